//! The same against a real server and a real agent: the tables of trust are put back to what they were.

use crate::fleet::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_put_back_takes_no_device_below_its_floor() {
    let fleet = Fleet::start().await;
    fleet
        .tamper(
            "CREATE TABLE old_metadata AS TABLE trust_metadata;
             CREATE TABLE old_document AS TABLE director_document;",
        )
        .await;
    let second = fleet.publish("2.0.0").await;
    let package = "app".parse().expect("a package's name");
    let floor = second.release_counter;
    fleet.admin.edit_targets(|list| list.raise_floor(&package, floor)).await.expect("an operator raises the floor");
    fleet.update_to(&second).await;
    fleet.assert_runs("2.0.0").await;

    fleet
        .tamper(
            "DELETE FROM director_document; INSERT INTO director_document SELECT * FROM old_document;
             DELETE FROM trust_metadata; INSERT INTO trust_metadata SELECT * FROM old_metadata;",
        )
        .await;
    // To this server nothing is wrong with the first release.
    fleet.update_to(&fleet.first).await;
    assert_eq!(fleet.failure().await, "TRUST");
    fleet.assert_runs("2.0.0").await;
}
