//! The server's connections to its database, which calls share.

use std::{future::poll_fn, pin::pin, task::Poll};

use ota_e2e::database;

#[tokio::test]
async fn a_caller_who_goes_away_while_a_transaction_begins_leaves_none_open() {
    let database = database::fresh().await;
    let pool = ota_server::db::pool(database.connect_options(), 1);
    sqlx::query("CREATE TABLE written (number INT)").execute(&pool).await.unwrap();
    let mut written = 0;
    for _ in 0..20 {
        for patience in 0..6 {
            {
                // Given up when it has waited so often for the database.
                let (mut begin, mut waited) = (pin!(pool.begin()), 0);
                poll_fn(|context| {
                    waited += 1;
                    let ready = begin.as_mut().poll(context).is_ready();
                    if ready || waited > patience { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            sqlx::query("INSERT INTO written VALUES (1)").execute(&pool).await.unwrap();
            written += 1;
            let seen: i64 =
                sqlx::query_scalar("SELECT count(*) FROM written").fetch_one(database.pool()).await.unwrap();
            assert_eq!(seen, written, "after {patience} waits: what was written is not committed");
        }
    }
}
