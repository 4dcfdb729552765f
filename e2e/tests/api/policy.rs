//! Who may call what: every RPC there is, called by everybody there is.

use bytes::Bytes;
use ota_domain::role::Role;
use ota_e2e::{
    TestDevice, TestServer, assert_refused,
    credential::Bearer,
    raw::{RawClient, paths},
    reason,
};
use ota_proto::{
    FILE_DESCRIPTOR_SET,
    admin::v1::{DecommissionDeviceRequest, EnrollToken, GetCallerRequest, RejectDeviceRequest, RevokeApiTokenRequest},
};
use ota_server::auth::policy::{self, Demand};
use tonic::Code;

/// The services that the server serves.
pub(super) const DESCRIPTORS: [&[u8]; 4] = [
    FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// Every RPC of theirs.
fn served() -> Vec<String> {
    DESCRIPTORS.into_iter().flat_map(paths).collect()
}

fn without_row<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    paths.iter().copied().filter(|path| policy::demand(path).is_none()).collect()
}

#[test]
fn every_rpc_has_a_row_and_every_row_an_rpc() {
    let served = served();
    let served: Vec<_> = served.iter().map(String::as_str).collect();
    assert!(served.len() > 60, "{served:?}");
    assert_eq!(without_row(&served), [""; 0], "these have no row in server/src/auth/policy.rs");
    let dead: Vec<_> = policy::rows().map(|(path, _)| path).filter(|path| !served.contains(&path.as_str())).collect();
    assert_eq!(dead, [""; 0], "these rows are for no RPC");
}

#[test]
fn an_rpc_that_was_added_without_a_row_is_found() {
    let added = "/ota.admin.v1.PackageService/ObliteratePackage";
    assert_eq!(without_row(&["/ota.admin.v1.PackageService/GetPackage", added]), [added]);
}

/// Somebody who calls, and what the gate answers them.
struct Caller {
    name: &'static str,
    client: RawClient,
    /// The refusal for an RPC with this demand; `None` where they are let through.
    refused: fn(Demand) -> Option<(Code, &'static str)>,
}

const MISSING: (Code, &str) = (Code::Unauthenticated, "CREDENTIAL_MISSING");
const INVALID: (Code, &str) = (Code::Unauthenticated, "CREDENTIAL_INVALID");
const INSUFFICIENT: (Code, &str) = (Code::PermissionDenied, "ROLE_INSUFFICIENT");

fn as_operator(own: Role, demand: Demand) -> Option<(Code, &'static str)> {
    match demand {
        Demand::Nothing => None,
        Demand::Device | Demand::EnrolledKey => Some(INSUFFICIENT),
        Demand::Operator(needed) => (!own.allows(needed)).then_some(INSUFFICIENT),
    }
}

/// As a device whose calls for devices are answered like this.
fn as_device(demand: Demand, answer: Option<(Code, &'static str)>) -> Option<(Code, &'static str)> {
    match demand {
        Demand::Nothing => None,
        Demand::Device | Demand::EnrolledKey => answer,
        Demand::Operator(_) => Some(INSUFFICIENT),
    }
}

fn unless_nothing(demand: Demand, answer: (Code, &'static str)) -> Option<(Code, &'static str)> {
    match demand {
        Demand::Nothing => None,
        Demand::Device | Demand::EnrolledKey | Demand::Operator(_) => Some(answer),
    }
}

async fn callers(server: &TestServer) -> Vec<Caller> {
    let admin = server.admin();
    let with = |bearer: Bearer| RawClient::new(&server.url(), bearer);
    let mut callers = Vec::new();
    let mut add = |name, bearer: Bearer, refused| callers.push(Caller { name, client: with(bearer), refused });

    add("anonymous", Bearer::anonymous(), |demand| unless_nothing(demand, MISSING));
    add("garbage", Bearer::new("garbage"), |demand| unless_nothing(demand, INVALID));

    add("viewer", admin.appoint(Role::Viewer).await.bearer(), |demand| as_operator(Role::Viewer, demand));
    add("publisher", admin.appoint(Role::Publisher).await.bearer(), |demand| as_operator(Role::Publisher, demand));
    add("deployer", admin.appoint(Role::Deployer).await.bearer(), |demand| as_operator(Role::Deployer, demand));
    add("admin", admin.bearer(), |demand| as_operator(Role::Admin, demand));

    let revoked = admin.appoint(Role::Admin).await;
    let id = revoked.access().get_caller(GetCallerRequest {}).await.unwrap().into_inner().name;
    admin.access().revoke_api_token(RevokeApiTokenRequest { name: id }).await.unwrap();
    add("revoked", revoked.bearer(), |demand| match demand {
        Demand::Nothing => None,
        // It is no credential of a device, whatever became of it.
        Demand::Device | Demand::EnrolledKey => Some(INSUFFICIENT),
        Demand::Operator(_) => Some(INVALID),
    });
    add("admin with another's secret", swap_secret(&admin.bearer(), &revoked.bearer()), |demand| match demand {
        Demand::Nothing => None,
        Demand::Device | Demand::EnrolledKey => Some(INSUFFICIENT),
        Demand::Operator(_) => Some(INVALID),
    });

    let (device, other) = (admin.enroll().await, admin.enroll().await);
    add("device", device.bearer(), |demand| as_device(demand, None));
    let swapped = swap_secret(&device.bearer(), &other.bearer());
    add("device with another's secret", swapped, |demand| as_device(demand, Some(INVALID)));
    let decommissioned = admin.enroll().await;
    let request = DecommissionDeviceRequest { name: decommissioned.name() };
    admin.devices().decommission_device(request).await.unwrap();
    add("decommissioned device", decommissioned.bearer(), |demand| {
        as_device(demand, Some((Code::PermissionDenied, "DEVICE_DECOMMISSIONED")))
    });
    let token = EnrollToken { max_uses: 2, approval_required: true, ..Default::default() };
    let string = admin.enrollment_string(token).await;
    let url = server.url();
    let pending = TestDevice::enroll(&url, &string, "test").await.unwrap();
    add("pending device", pending.bearer(), |demand| {
        as_device(demand, Some((Code::PermissionDenied, "DEVICE_PENDING")))
    });
    let rejected = TestDevice::enroll(&url, &string, "test").await.unwrap();
    admin.devices().reject_device(RejectDeviceRequest { name: rejected.name() }).await.unwrap();
    add("rejected device", rejected.bearer(), |demand| {
        as_device(demand, Some((Code::PermissionDenied, "DEVICE_REJECTED")))
    });
    callers
}

/// The id of one credential with the secret of another.
fn swap_secret(id: &Bearer, secret: &Bearer) -> Bearer {
    let parts = |bearer: &Bearer| bearer.token().unwrap().splitn(3, '_').map(str::to_owned).collect::<Vec<_>>();
    let (id, secret) = (parts(id), parts(secret));
    Bearer::new(&format!("{}_{}_{}", id[0], id[1], secret[2]))
}

/// What the gate said of a call. What a handler says, and an open stream, are its letting through.
async fn gate(client: &RawClient, path: &str) -> Option<(Code, String)> {
    let status = client.open(path, Bytes::new()).await.err()?;
    let reason = reason(&status)?;
    let from_gate = ["CREDENTIAL_MISSING", "CREDENTIAL_INVALID", "ROLE_INSUFFICIENT"].contains(&reason.as_str())
        || reason.starts_with("DEVICE_") && status.code() == Code::PermissionDenied;
    from_gate.then_some((status.code(), reason))
}

#[tokio::test]
async fn everybody_is_let_through_or_refused_as_the_policy_says() {
    let server = TestServer::start().await;
    let callers = callers(&server).await;
    let mut wrong = Vec::new();
    for path in served() {
        let demand = policy::demand(&path).unwrap();
        for caller in &callers {
            let told = gate(&caller.client, &path).await;
            let told = told.as_ref().map(|(code, reason)| (*code, reason.as_str()));
            let due = (caller.refused)(demand);
            if told != due {
                wrong.push(format!("{path} ({demand:?}) as {}: {told:?}, due {due:?}", caller.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_has_no_row_is_refused_to_the_admin_too() {
    let server = TestServer::start().await;
    let admin = RawClient::new(&server.url(), server.admin().bearer());
    for path in ["/ota.admin.v1.PackageService/ObliteratePackage", "/unheard.Of/Call", "/"] {
        let status = admin.open(path, Bytes::new()).await.unwrap_err();
        assert_refused(&status, Code::Unimplemented, "NOT_IMPLEMENTED");
    }
}
