//! `EventService`: the append-only record.

use chrono::Utc;
use ota_domain::event::Cursor;
use ota_e2e::{Operator, Options, TestServer, assert_refused, assert_violates, operator::unique_payload};
use ota_proto::{
    admin::v1::{
        ApiToken, CreateApiTokenRequest, Event, ListEventsRequest, RevokeApiTokenRequest, Role, WatchEventsRequest,
        WatchEventsResponse,
    },
    device::v1::DeploymentState,
};
use ota_server::db;
use sqlx::{PgConnection, PgPool};
use tonic::{Code, Request, Status, Streaming};

async fn watch(operator: &Operator, cursor: &str) -> Streaming<WatchEventsResponse> {
    let request = WatchEventsRequest { cursor: cursor.to_owned(), ..Default::default() };
    operator.events().watch_events(request).await.expect("anybody watches").into_inner()
}

/// The next `count` events of a watch.
async fn next(stream: &mut Streaming<WatchEventsResponse>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let answer = stream.message().await.expect("the watch goes on").expect("the watch goes on");
        events.push(answer.event.expect("an answer has an event"));
    }
    events
}

fn subjects(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.subject.as_str()).collect()
}

async fn list(operator: &Operator, filter: &str) -> Result<Vec<Event>, Status> {
    let request = ListEventsRequest { filter: filter.to_owned(), ..Default::default() };
    Ok(operator.events().list_events(request).await?.into_inner().events)
}

/// Records an event in the connection's transaction.
async fn record(connection: &mut PgConnection, subject: &str) {
    let statement = "INSERT INTO event (kind, actor, subject) VALUES ('device.labeled', 'server', $1)";
    sqlx::query(statement).bind(subject).execute(&mut *connection).await.expect("an event is recorded");
    db::notify::events(connection).await.expect("watchers are woken");
}

/// What a watcher could read at this moment of everything.
async fn readable(pool: &PgPool) -> Vec<String> {
    let mut connection = pool.acquire().await.expect("a connection");
    let horizon = db::event::horizon(&mut connection).await.expect("a horizon");
    let (all, start) = (db::event::Query::default(), Cursor { transaction: 0, id: 0 });
    let events = db::event::between(&mut connection, &all, start, horizon, 1_000).await.expect("events are read");
    events.into_iter().map(|event| event.subject).collect()
}

#[tokio::test]
async fn events_are_listed_newest_first_by_device_rollout_and_filter() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (device, other) = (admin.enroll().await, admin.enroll().await);
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    let rollout = admin.assign(&release, &[&device]).await;

    let of_device = admin.events_of(&device.name()).await;
    assert!(of_device.iter().all(|event| event.device == device.name()));
    assert!(of_device.iter().any(|event| event.kind == "device.enrolled"));
    let request = ListEventsRequest { rollout: rollout.name.clone(), ..Default::default() };
    let of_rollout = admin.events().list_events(request).await.unwrap().into_inner().events;
    assert!(!of_rollout.is_empty() && of_rollout.iter().all(|event| event.rollout == rollout.name));

    let enrolled = list(&admin, "kind=device.enrolled").await.unwrap();
    assert_eq!(subjects(&enrolled), [other.name(), device.name()]);
    assert_eq!(subjects(&list(&admin, &format!("actor={}", device.id())).await.unwrap()), [device.name()]);
    assert_eq!(subjects(&list(&admin, "kind!=device.enrolled,actor=server").await.unwrap()).len(), 1);

    for (filter, says) in
        [("kind=device.exploded", "device.exploded"), ("subject=x", "subject"), ("a b", "character 3")]
    {
        let told = assert_violates(&list(&admin, filter).await.unwrap_err(), "filter");
        assert!(told.contains(says), "{filter}: {told}");
    }
    let request = ListEventsRequest { device: "device/x".to_owned(), ..Default::default() };
    assert_violates(&admin.events().list_events(request).await.unwrap_err(), "device");
    let request = ListEventsRequest { rollout: "x".to_owned(), ..Default::default() };
    assert_violates(&admin.events().list_events(request).await.unwrap_err(), "rollout");
}

#[tokio::test]
async fn pages_hold_every_event_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    for _ in 0..3 {
        admin.enroll().await;
    }
    let all = list(&admin, "").await.unwrap();
    let (mut paged, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEventsRequest { page_size: 2, page_token, ..Default::default() };
        let page = admin.events().list_events(request).await.unwrap().into_inner();
        paged.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn a_watch_sees_what_happens_on_every_replica_and_goes_on_where_it_was_left() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let mut stream = watch(&server.admin(), "").await;
    let here = server.admin().enroll().await;
    let there = replica.admin().enroll().await;
    let seen = next(&mut stream, 4).await;
    let kinds: Vec<_> = seen.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["enroll_token.created", "device.enrolled", "enroll_token.created", "device.enrolled"]);
    assert_eq!((seen[1].subject.clone(), seen[3].subject.clone()), (here.name(), there.name()));

    for (index, event) in seen.iter().enumerate().take(3) {
        let mut resumed = watch(&replica.admin(), &event.cursor).await;
        assert_eq!(next(&mut resumed, 3 - index).await, seen[index + 1..]);
    }
}

#[tokio::test]
async fn a_watch_of_one_device_passes_over_the_others() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let request = WatchEventsRequest { device: device.name(), cursor: "0.0".to_owned(), ..Default::default() };
    let mut stream = admin.events().watch_events(request).await.unwrap().into_inner();
    admin.enroll().await;
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    device.granted().await;
    let kinds: Vec<_> = next(&mut stream, 2).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["device.enrolled", "deployment.granted"]);
}

#[tokio::test]
async fn no_event_is_lost_when_transactions_commit_out_of_order() {
    let server = TestServer::start().await;
    let pool = server.pool();
    let mut stream = watch(&server.admin(), "").await;
    let mut older = pool.begin().await.unwrap();
    let mut newer = pool.begin().await.unwrap();
    record(&mut older, "older/1").await;
    record(&mut newer, "newer/1").await;
    record(&mut older, "older/2").await;
    newer.commit().await.unwrap();
    assert!(!readable(pool).await.contains(&"newer/1".to_owned()), "an older transaction may still record");
    older.commit().await.unwrap();
    let seen = next(&mut stream, 3).await;
    assert_eq!(subjects(&seen), ["older/1", "older/2", "newer/1"]);

    for (index, event) in seen.iter().enumerate().take(2) {
        let mut resumed = watch(&server.admin(), &event.cursor).await;
        assert_eq!(next(&mut resumed, 2 - index).await, seen[index + 1..], "after {}", event.subject);
    }
}

#[tokio::test]
async fn a_transaction_that_records_nothing_holds_nobody_up_for_long() {
    let server = TestServer::start().await;
    let mut stream = watch(&server.admin(), "").await;
    let mut older = server.pool().begin().await.unwrap();
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *older).await.unwrap();
    let mut newer = server.pool().begin().await.unwrap();
    record(&mut newer, "newer/1").await;
    newer.commit().await.unwrap();
    // Its end is announced to nobody: the watcher has to look by itself.
    older.rollback().await.unwrap();
    assert_eq!(subjects(&next(&mut stream, 1).await), ["newer/1"]);
}

#[tokio::test]
async fn a_long_absence_is_caught_up_with_in_order() {
    let server = TestServer::start().await;
    let cursor = list(&server.admin(), "").await.unwrap().remove(0).cursor;
    let many = "INSERT INTO event (kind, actor, subject) SELECT 'x', 'server', n::TEXT FROM generate_series(1, 1234) n";
    sqlx::query(many).execute(server.pool()).await.unwrap();
    let mut stream = watch(&server.admin(), &cursor).await;
    let expected: Vec<String> = (1..=1234).map(|number| number.to_string()).collect();
    assert_eq!(subjects(&next(&mut stream, 1234).await), expected);
}

#[tokio::test]
async fn a_stopping_server_sends_watchers_away() {
    let server = TestServer::start().await;
    let mut stream = watch(&server.admin(), "").await;
    server.begin_to_stop();
    assert_refused(&stream.message().await.unwrap_err(), Code::Unavailable, "SHUTTING_DOWN");
}

#[tokio::test]
async fn a_watch_ends_with_its_token() {
    let server = TestServer::start().await;
    let token = ApiToken { display_name: "wall".to_owned(), role: Role::Viewer.into(), ..Default::default() };
    let request = CreateApiTokenRequest { api_token: Some(token) };
    let made = server.admin().access().create_api_token(request).await.unwrap().into_inner();
    let mut stream = watch(&Operator::new(&server.url(), &made.secret), "").await;
    let request = RevokeApiTokenRequest { name: made.api_token.unwrap().name };
    server.admin().access().revoke_api_token(request).await.unwrap();
    // What was recorded just before may still come.
    let end = loop {
        match stream.message().await {
            Ok(event) => assert!(event.is_some(), "the stream ends without a word"),
            Err(status) => break status,
        }
    };
    assert_refused(&end, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused() {
    let server = TestServer::start().await;
    for cursor in ["x", "1", "1.", "-1.1", "1.1.1"] {
        let request = WatchEventsRequest { cursor: cursor.to_owned(), ..Default::default() };
        assert_violates(&server.admin().events().watch_events(request).await.unwrap_err(), "cursor");
    }
}

#[tokio::test]
async fn nobody_changes_what_was_recorded() {
    let server = TestServer::start().await;
    let before = list(&server.admin(), "").await.unwrap();
    for statement in ["UPDATE event SET actor = 'nobody'", "DELETE FROM event", "TRUNCATE event"] {
        let refusal = sqlx::query(statement).execute(server.pool()).await.unwrap_err();
        assert!(refusal.to_string().contains("append-only"), "{statement}: {refusal}");
    }
    assert_eq!(list(&server.admin(), "").await.unwrap(), before);
    assert!(before.iter().all(|event| event.time.is_some_and(|time| time.seconds <= Utc::now().timestamp())));
}

/// The source address of the event that `admin` causes by calling with these headers.
async fn source(admin: &Operator, headers: &[(&'static str, &str)]) -> String {
    let token = ApiToken { display_name: "probe".to_owned(), role: Role::Viewer.into(), ..Default::default() };
    let mut request = Request::new(CreateApiTokenRequest { api_token: Some(token) });
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let made = admin.access().create_api_token(request).await.unwrap().into_inner().api_token.unwrap();
    let events = list(admin, "kind=api_token.created").await.unwrap();
    events.into_iter().find(|event| event.subject == made.name).unwrap().source_address
}

#[tokio::test]
async fn every_event_of_a_caller_says_where_the_call_came_from() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.report(&deployment, 1, DeploymentState::Downloading).await.unwrap();
    let newer = admin.publish("fw", "1.1.0", &unique_payload(100)).await;
    admin.assign(&newer, &[&device]).await;
    let events = list(&admin, "").await.unwrap();
    for kind in [
        "enroll_token.created",
        "device.enrolled",
        "release.published",
        "rollout.created",
        "deployment.granted",
        "deployment.downloading",
        "deployment.superseded",
    ] {
        assert!(events.iter().any(|event| event.kind == kind), "{kind}");
    }
    for event in events {
        let due = if event.actor == "server" { "" } else { "127.0.0.1" };
        assert_eq!(event.source_address, due, "{event:?}");
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed_when_it_says_for_whom_it_calls() {
    let server = TestServer::start().await;
    let headers = [("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.9")];
    assert_eq!(source(&server.admin(), &headers).await, "127.0.0.1");

    let trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let server = TestServer::with(Options { trusted_proxies, ..Options::default() }).await;
    let admin = server.admin();
    assert_eq!(source(&admin, &[]).await, "127.0.0.1");
    assert_eq!(source(&admin, &[("x-forwarded-for", "198.51.100.1, 192.0.2.9, 10.1.2.3")]).await, "192.0.2.9");
    assert_eq!(source(&admin, &[("forwarded", "for=\"[2001:db8::9]:4711\"")]).await, "2001:db8::9");
}

#[tokio::test]
async fn transactions_are_ordered_as_numbers_also_where_they_gain_a_digit() {
    let server = TestServer::start().await;
    let numbers = "INSERT INTO event (transaction, kind, actor, subject)
                   SELECT n::TEXT::XID8, 'x', 'server', n::TEXT FROM unnest(ARRAY[10, 9, 100, 99, 11]) AS n";
    sqlx::query(numbers).execute(server.pool()).await.unwrap();
    let seen = next(&mut watch(&server.admin(), "0.0").await, 5).await;
    assert_eq!(subjects(&seen), ["9", "10", "11", "99", "100"]);
}
