//! The seals over the record of events: everything once, in order, and nothing changed unnoticed.

use std::{collections::BTreeSet, time::Duration};

use chrono::Utc;
use futures_util::future;
use ota_domain::event::{BrokenSeal, Head, Seal, verify_seal};
use ota_e2e::{Operator, TestServer, eventually};
use ota_proto::{
    admin::v1::{ListEventSealsRequest, ListEventsRequest},
    convert::admin::event::read_seal,
};
use ota_server::{app::event_seals, db};
use sqlx::{AssertSqlSafe, PgPool};

/// How long a broken test takes to fail.
const LIMIT: Duration = Duration::from_secs(30);

/// All seals, by pages of `page_size`.
async fn seals(operator: &Operator, page_size: i32) -> Vec<Seal> {
    let (mut seals, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEventSealsRequest { page_size, page_token };
        let page = operator.events().list_event_seals(request).await.unwrap().into_inner();
        seals.extend(page.seals.into_iter().map(|seal| read_seal(seal).unwrap()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return seals;
        }
    }
}

fn verify(seals: &[Seal]) -> Result<Head, BrokenSeal> {
    seals.iter().try_fold(Head::START, verify_seal)
}

/// Seals until all events are sealed that the API lists. Other tests' transactions may hold the horizon back for a moment.
async fn seal_all(server: &TestServer) {
    eventually("all events are sealed", LIMIT, async || {
        event_seals::seal(server.app(), Utc::now()).await.unwrap();
        let open = "SELECT NOT EXISTS (SELECT FROM event WHERE (transaction, id) > COALESCE(
                        (SELECT (last_transaction, last_id) FROM event_seal ORDER BY number DESC LIMIT 1),
                        ('0'::XID8, 0::BIGINT)))";
        sqlx::query_scalar::<_, bool>(open).fetch_one(server.pool()).await.unwrap().then_some(())
    })
    .await;
}

async fn record(pool: &PgPool, subject: &str) {
    let statement = "INSERT INTO event (kind, actor, subject) VALUES ('device.labeled', 'server', $1)";
    sqlx::query(statement).bind(subject).execute(pool).await.unwrap();
}

/// The events' ids, as their records have them.
fn ids(seals: &[Seal]) -> Vec<i64> {
    let cursor = |record: &String| {
        let record: serde_json::Value = serde_json::from_str(record).unwrap();
        record["cursor"].as_str().unwrap().rsplit_once('.').unwrap().1.parse().unwrap()
    };
    seals.iter().flat_map(|seal| &seal.records).map(cursor).collect()
}

#[tokio::test]
async fn two_replicas_and_many_writers_seal_every_event_exactly_once() {
    const WRITERS: usize = 8;
    const EVENTS: usize = 60;
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let writer = async |writer: usize| {
        for number in 0..EVENTS {
            // Long and short transactions side by side, so that identities and commits disagree in their order.
            let mut transaction = server.pool().begin().await.unwrap();
            let subject = format!("devices/{writer}-{number}");
            let statement = "INSERT INTO event (kind, actor, subject) VALUES ('device.labeled', 'server', $1)";
            sqlx::query(statement).bind(subject).execute(&mut *transaction).await.unwrap();
            if (writer + number).is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
            transaction.commit().await.unwrap();
        }
    };
    let sealer = async |app: &ota_server::app::App| {
        for _ in 0..40 {
            event_seals::seal(app, Utc::now()).await.unwrap();
        }
    };
    let writers = future::join_all((0..WRITERS).map(writer));
    tokio::join!(writers, sealer(server.app()), sealer(replica.app()));
    seal_all(&server).await;

    let sealed = seals(&server.admin(), 3).await;
    verify(&sealed).unwrap();
    let ids = ids(&sealed);
    let all: Vec<i64> = sqlx::query_scalar("SELECT id FROM event ORDER BY id").fetch_all(server.pool()).await.unwrap();
    assert!(all.len() >= WRITERS * EVENTS);
    assert_eq!(ids.len(), all.len());
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all.into_iter().collect());
    assert_eq!(seals(&replica.admin(), 1_000).await, sealed);
}

#[tokio::test]
async fn an_event_is_sealed_without_anybody_asking() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    eventually("the device's enrolment is sealed", LIMIT, async || {
        let sealed = seals(&admin, 0).await;
        sealed.iter().flat_map(|seal| &seal.records).any(|record| record.contains(&device.name())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_of_a_running_transaction_or_behind_it_is_sealed_yet() {
    let server = TestServer::start().await;
    let mut slow = server.pool().begin().await.unwrap();
    sqlx::query("INSERT INTO event (kind, actor, subject) VALUES ('device.labeled', 'server', 'devices/slow')")
        .execute(&mut *slow)
        .await
        .unwrap();
    record(server.pool(), "devices/fast").await;
    event_seals::seal(server.app(), Utc::now()).await.unwrap();
    let text = format!("{:?}", seals(&server.admin(), 0).await);
    assert!(!text.contains("devices/fast") && !text.contains("devices/slow"), "{text}");
    slow.commit().await.unwrap();
    seal_all(&server).await;
    let sealed = seals(&server.admin(), 0).await;
    verify(&sealed).unwrap();
    let text = format!("{sealed:?}");
    assert!(text.find("devices/slow").unwrap() < text.find("devices/fast").unwrap());
}

/// Runs SQL as somebody who may do anything to the database, its triggers included.
async fn tamper(pool: &PgPool, sql: &str) {
    let sql = format!(
        "BEGIN; ALTER TABLE event DISABLE TRIGGER ALL; ALTER TABLE event_seal DISABLE TRIGGER ALL; {sql};
         ALTER TABLE event ENABLE TRIGGER ALL; ALTER TABLE event_seal ENABLE TRIGGER ALL; COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

#[tokio::test]
async fn whoever_changes_the_record_in_the_database_is_found() {
    let server = TestServer::start().await;
    for number in 0..4 {
        record(server.pool(), &format!("devices/{number}")).await;
        seal_all(&server).await;
    }
    let admin = server.admin();
    let before = seals(&admin, 0).await;
    let head = verify(&before).unwrap();
    assert!(head.number >= 4);

    let one = "id = (SELECT id FROM event WHERE subject = 'devices/1')";
    let set = |column: &str| format!("UPDATE event SET {column} WHERE {one}");
    for sql in [
        set("actor = 'apiTokens/somebody-else'"),
        set("actor_display_name = 'eve'"),
        set("kind = 'device.deleted'"),
        set("subject = 'devices/9'"),
        set("details = '{\"a\": \"b\"}'"),
        set("device_id = '01939000-0000-7000-8000-000000000001'"),
        set("rollout_id = '01939000-0000-7000-8000-000000000001'"),
        set("request_id = 'r'"),
        set("source_address = '192.0.2.1'"),
        set("at = at + INTERVAL '1 microsecond'"),
        format!("DELETE FROM event WHERE {one}"),
        "INSERT INTO event (transaction, kind, actor, subject)
         SELECT transaction, kind, actor, subject FROM event WHERE subject = 'devices/1'"
            .to_owned(),
        "UPDATE event_seal SET sha256 = decode(repeat('07', 32), 'hex') WHERE number = 2".to_owned(),
        "UPDATE event_seal SET previous_sha256 = decode(repeat('07', 32), 'hex') WHERE number = 2".to_owned(),
        "UPDATE event_seal SET last_id = last_id - 1 WHERE number = 2".to_owned(),
        "DELETE FROM event_seal WHERE number = 2".to_owned(),
        "DELETE FROM event_seal WHERE number = 1".to_owned(),
    ] {
        // On a copy of the tables, so that one change does not hide another.
        let keep = "CREATE TABLE kept_event AS TABLE event; CREATE TABLE kept_seal AS TABLE event_seal";
        let back =
            "DELETE FROM event; INSERT INTO event OVERRIDING SYSTEM VALUE TABLE kept_event; DROP TABLE kept_event;
                    DELETE FROM event_seal; INSERT INTO event_seal TABLE kept_seal; DROP TABLE kept_seal";
        tamper(server.pool(), &format!("{keep}; {sql}")).await;
        verify(&seals(&admin, 0).await).expect_err(&sql);
        tamper(server.pool(), back).await;
        assert_eq!(seals(&admin, 0).await[..before.len()], before, "{sql}");
    }
}

#[tokio::test]
async fn the_end_of_the_record_cannot_be_cut_off_before_somebody_who_saw_it() {
    let server = TestServer::start().await;
    record(server.pool(), "devices/1").await;
    seal_all(&server).await;
    let seen = verify(&seals(&server.admin(), 0).await).unwrap();
    tamper(server.pool(), "DELETE FROM event_seal; DELETE FROM event WHERE subject = 'devices/1'").await;
    seal_all(&server).await;
    let sealed = seals(&server.admin(), 0).await;
    verify(&sealed).unwrap();
    // A chain that was made anew verifies in itself. Whoever kept a hash of the old one does not find it again.
    assert!(sealed.iter().all(|seal| seal.sha256 != seen.sha256), "{seen:?}");
}

#[tokio::test]
async fn who_seals_keeps_nobody_from_recording() {
    let server = TestServer::start().await;
    let mut sealing = eventually("nobody else seals", LIMIT, async || {
        let mut transaction = server.pool().begin().await.unwrap();
        db::event_seal::try_lock(&mut transaction).await.unwrap().map(|_| transaction)
    })
    .await;
    db::event_seal::last(&mut sealing).await.unwrap();
    // With the seal's transaction open, an event is recorded and another replica finds nothing to do.
    server.admin().enroll().await;
    assert_eq!(event_seals::seal(server.app(), Utc::now()).await.unwrap(), 0);
    sealing.rollback().await.unwrap();
}

#[tokio::test]
async fn seals_and_pages_stay_small_however_long_the_records_are() {
    let server = TestServer::start().await;
    let long = "INSERT INTO event (kind, actor, subject, details)
                SELECT 'device.labeled', 'server', 'devices/' || number, jsonb_build_object('after', repeat('x', 100000))
                FROM generate_series(1, 60) AS number";
    sqlx::query(long).execute(server.pool()).await.unwrap();
    let many = "INSERT INTO event (kind, actor, subject)
                SELECT 'device.labeled', 'server', 'devices/' || number FROM generate_series(1, 2500) AS number";
    sqlx::query(many).execute(server.pool()).await.unwrap();
    seal_all(&server).await;
    let sealed = seals(&server.admin(), 1_000).await;
    verify(&sealed).unwrap();
    assert!(sealed.iter().all(|seal| seal.records.iter().map(String::len).sum::<usize>() <= 1024 * 1024));
    assert!(sealed.len() >= 8, "{}", sealed.len());
    let listed = ListEventsRequest { page_size: 1, ..Default::default() };
    assert_eq!(server.admin().events().list_events(listed).await.unwrap().into_inner().events.len(), 1);
}
