//! Whatever an operator changes is on record: what, who, from where, and by which request.

use std::collections::BTreeSet;

use ota_e2e::TestServer;
use ota_proto::admin::v1::GetCallerRequest;
use ota_server::auth::policy::{self, Demand};
use tonic::Code;

use crate::outage::calls::World;

/// What calls begin with that change nothing.
const READING: [&str; 6] = ["Get", "List", "Watch", "Preview", "Explain", "Download"];

/// What changes nothing of the fleet, of packages or of who may do what: bytes on their way to become a payload, which is on
/// record when it is whole.
const UNRECORDED: [&str; 2] =
    ["/ota.admin.v1.PackageService/CreateUpload", "/ota.admin.v1.PackageService/DeleteUpload"];

fn changes(path: &str) -> bool {
    let (_, method) = path.rsplit_once('/').unwrap();
    matches!(policy::demand(path), Some(Demand::Operator(_))) && !READING.iter().any(|verb| method.starts_with(verb))
}

#[tokio::test]
async fn every_change_of_an_operators_has_an_event_with_actor_address_and_request() {
    let server = TestServer::start().await;
    let world = World::new(&server).await;
    let caller = server.admin().access().get_caller(GetCallerRequest {}).await.unwrap().into_inner().name;
    let calls = world.calls();
    for (path, _) in policy::rows().filter(|(path, _)| changes(path)) {
        assert!(calls.iter().any(|call| call.path == path), "make a call of {path} in outage/calls.rs");
    }
    let (mut unrecorded, mut requests) = (Vec::new(), BTreeSet::new());
    for call in calls.iter().filter(|call| changes(call.path)) {
        let before: i64 =
            sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM event").fetch_one(server.pool()).await.unwrap();
        match world.client(&server, call).call(call.path, call.message.clone()).await {
            Err(status) if status.code() == Code::Unimplemented => continue,
            outcome => outcome.unwrap(),
        };
        let statement = "SELECT kind, source_address, request_id FROM event WHERE id > $1 AND actor = $2";
        let events: Vec<(String, String, String)> =
            sqlx::query_as(statement).bind(before).bind(&caller).fetch_all(server.pool()).await.unwrap();
        if events.is_empty() {
            unrecorded.push(call.path);
        }
        let mut of_this_call = BTreeSet::new();
        for (kind, source_address, request_id) in events {
            assert_eq!(source_address, "127.0.0.1", "{}: {kind}", call.path);
            assert!(!request_id.is_empty() && !requests.contains(&request_id), "{}: {kind}", call.path);
            of_this_call.insert(request_id);
        }
        assert!(of_this_call.len() <= 1, "{}: {of_this_call:?}", call.path);
        requests.append(&mut of_this_call);
    }
    assert_eq!(unrecorded, UNRECORDED);
    assert!(requests.len() > 25, "{}", requests.len());
}
