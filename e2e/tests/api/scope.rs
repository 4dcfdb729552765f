//! Roles limited to some devices and packages: what lies outside is not there to read and not theirs to change.

use std::{collections::BTreeMap, future::Future};

use bytes::Bytes;
use ota_domain::{Labels, PackageName, Selector, role};
use ota_e2e::{
    Operator, TestDevice, TestServer, assert_refused, assert_violates, operator::unique_payload, raw::RawClient,
    reason, signing::target,
};
use ota_proto::admin::v1::{self as api, Role, target::Choice};
use ota_server::auth::policy::{self, Demand};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use prost::Message;
use tonic::{Code, Status};

fn scope(devices: &str, packages: &str) -> Option<api::Scope> {
    Some(api::Scope { device_selector: devices.to_owned(), package_prefix: packages.to_owned() })
}

fn role(role: role::Role) -> Role {
    match role {
        role::Role::Viewer => Role::Viewer,
        role::Role::Publisher => Role::Publisher,
        role::Role::Deployer => Role::Deployer,
        role::Role::Admin => Role::Admin,
    }
}

/// Somebody with this role, limited.
async fn limited(server: &TestServer, own: role::Role, scope: Option<api::Scope>) -> Operator {
    let token =
        api::ApiToken { display_name: "limited".to_owned(), role: role(own).into(), scope, ..Default::default() };
    let request = api::CreateApiTokenRequest { api_token: Some(token) };
    let made = server.admin().access().create_api_token(request).await.unwrap().into_inner();
    Operator::new(&server.url(), &made.secret)
}

fn labels(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// One site with everything there can be: a device at work, a waiting one, a package, a release, a rollout.
struct Site {
    device: TestDevice,
    pending: TestDevice,
    enroll_token: String,
    package: String,
    release: api::Release,
    rollout: api::Rollout,
    deployment: String,
}

impl Site {
    async fn build(server: &TestServer, name: &str) -> Self {
        let admin = server.admin();
        let token = |approval_required| api::EnrollToken {
            max_uses: 2,
            approval_required,
            labels: labels(&[("site", name)]),
            ..Default::default()
        };
        let request = api::CreateEnrollTokenRequest { enroll_token: Some(token(true)) };
        let made = admin.enroll_tokens().create_enroll_token(request).await.unwrap().into_inner();
        let pending = TestDevice::enroll(&server.url(), &made.enrollment_string, "test").await.unwrap();
        let string = admin.enrollment_string(token(false)).await;
        let device = TestDevice::enroll(&server.url(), &string, "test").await.unwrap();
        let package = format!("{name}-fw");
        let release = admin.publish(&package, "1.0.0", &unique_payload(100)).await;
        let rollout = admin.assign(&release, &[&device]).await;
        let deployment = admin.deployments(&device.name()).await.remove(0).name;
        let enroll_token = made.enroll_token.unwrap().name;
        Self { device, pending, enroll_token, package, release, rollout, deployment }
    }

    /// What gives it away.
    fn traces(&self) -> Vec<String> {
        let id = |name: &str| name.rsplit_once('/').unwrap().1.to_owned();
        vec![
            self.device.id().to_owned(),
            self.pending.id().to_owned(),
            id(&self.enroll_token),
            self.package.clone(),
            id(&self.rollout.name),
            id(&self.deployment),
            id(&self.release.payload),
        ]
    }
}

/// What a limited caller who may call at all gets when they ask for things outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// As if it did not exist.
    NotFound(&'static str),
    /// Told that they may not.
    OutOfScope,
    /// An answer without it.
    Filtered,
    /// Nothing here is of a device or a package, for this reason.
    Unconcerned(&'static str),
    /// Only for admins, who cannot be limited.
    Admin,
    /// Not served yet.
    NotServed,
}

/// The table, and for each RPC the request that asks for things of the site.
#[expect(clippy::needless_update, reason = "one macro for messages with and without further fields")]
fn call(path: &str, site: &Site) -> (Due, Vec<u8>) {
    let device = site.device.name();
    let release = site.release.name.clone();
    let package = format!("packages/{}", site.package);
    let token = site.enroll_token.clone();
    let (service, method) = path.rsplit_once('/').unwrap();
    let service = service.rsplit_once('.').unwrap().1;
    macro_rules! ask {
        ($due:expr, $request:ident { $($field:ident: $value:expr),* $(,)? }) => {
            ($due, api::$request { $($field: $value.into(),)* ..Default::default() }.encode_to_vec())
        };
    }
    use Due::{Admin, Filtered, NotFound, NotServed, OutOfScope, Unconcerned};
    match (service, method) {
        ("AccessService", "CreateApiToken" | "ListApiTokens" | "RevokeApiToken") => (Admin, Vec::new()),
        ("AccessService", "GetCaller") => (Unconcerned("callers are told of themselves"), Vec::new()),
        ("DeviceService", "GetDevice") => ask!(NotFound("DEVICE_NOT_FOUND"), GetDeviceRequest { name: device }),
        ("DeviceService", "ListDevices") => ask!(Filtered, ListDevicesRequest {}),
        ("DeviceService", "UpdateDevice") => {
            let device = api::Device { name: device, ..Default::default() };
            let mask = prost_types::FieldMask { paths: vec!["labels".to_owned()] };
            ask!(OutOfScope, UpdateDeviceRequest { device: device, update_mask: mask })
        }
        ("DeviceService", "ApproveDevice") => ask!(OutOfScope, ApproveDeviceRequest { name: site.pending.name() }),
        ("DeviceService", "RejectDevice") => ask!(OutOfScope, RejectDeviceRequest { name: site.pending.name() }),
        ("DeviceService", "DecommissionDevice") => ask!(OutOfScope, DecommissionDeviceRequest { name: device }),
        ("DeviceService", "DeleteDevice") => ask!(OutOfScope, DeleteDeviceRequest { name: device }),
        ("DeviceService", "ExplainDevice") => ask!(NotFound("DEVICE_NOT_FOUND"), ExplainDeviceRequest { name: device }),
        ("EnrollTokenService", "CreateEnrollToken") => {
            let token = api::EnrollToken { labels: labels(&[("site", "out")]), ..Default::default() };
            ask!(OutOfScope, CreateEnrollTokenRequest { enroll_token: token })
        }
        ("EnrollTokenService", "GetEnrollToken") => {
            ask!(NotFound("ENROLL_TOKEN_NOT_FOUND"), GetEnrollTokenRequest { name: token })
        }
        ("EnrollTokenService", "ListEnrollTokens") => ask!(Filtered, ListEnrollTokensRequest {}),
        ("EnrollTokenService", "RevokeEnrollToken") => ask!(OutOfScope, RevokeEnrollTokenRequest { name: token }),
        ("EventService", "ListEvents") => ask!(Filtered, ListEventsRequest { page_size: 1_000 }),
        ("EventService", "WatchEvents") => ask!(Filtered, WatchEventsRequest { cursor: "0.0" }),
        ("EventService", "ListEventSeals") => ask!(OutOfScope, ListEventSealsRequest {}),
        ("GroupService", _) => (NotServed, Vec::new()),
        ("PackageService", "CreatePackage") => ask!(OutOfScope, CreatePackageRequest { package_id: "out-new" }),
        ("PackageService", "GetPackage") => ask!(NotFound("PACKAGE_NOT_FOUND"), GetPackageRequest { name: package }),
        ("PackageService", "ListPackages") => ask!(Filtered, ListPackagesRequest {}),
        ("PackageService", "UpdatePackage") => {
            let package = api::Package { name: package, description: "x".to_owned(), ..Default::default() };
            ask!(OutOfScope, UpdatePackageRequest { package: package })
        }
        ("PackageService", "DeletePackage") => ask!(OutOfScope, DeletePackageRequest { name: package }),
        ("PackageService", "CreateRelease") => {
            let release = api::Release {
                installer: api::Installer::File.into(),
                payload: site.release.payload.clone(),
                ..Default::default()
            };
            ask!(OutOfScope, CreateReleaseRequest { parent: package, version: "2.0.0", release: release })
        }
        ("PackageService", "GetRelease") => ask!(NotFound("RELEASE_NOT_FOUND"), GetReleaseRequest { name: release }),
        ("PackageService", "ListReleases") => ask!(Filtered, ListReleasesRequest { parent: "packages/-" }),
        ("PackageService", "UpdateRelease") => {
            let release = api::Release { name: release, notes: "x".to_owned(), ..Default::default() };
            ask!(OutOfScope, UpdateReleaseRequest { release: release })
        }
        ("PackageService", "YankRelease") => ask!(OutOfScope, YankReleaseRequest { name: release }),
        ("PackageService", "DeleteRelease") => ask!(OutOfScope, DeleteReleaseRequest { name: release }),
        ("PackageService", "CreateUpload" | "GetUpload" | "UploadPayload" | "DeleteUpload") => {
            (Unconcerned("an upload belongs to no package, and only who has its bytes learns its id"), Vec::new())
        }
        ("PackageService", "GetPayload") => {
            ask!(NotFound("PAYLOAD_NOT_FOUND"), GetPayloadRequest { name: site.release.payload.clone() })
        }
        ("PackageService", "DownloadPayload") => {
            ask!(NotFound("PAYLOAD_NOT_FOUND"), DownloadPayloadRequest { name: site.release.payload.clone() })
        }
        ("PackageService", "DeletePayload") => {
            ask!(OutOfScope, DeletePayloadRequest { name: site.release.payload.clone() })
        }
        ("RolloutService", "CreateRollout") => ask!(OutOfScope, CreateRolloutRequest { rollout: rollout(site) }),
        ("RolloutService", "PreviewRollout") => {
            ask!(NotFound("RELEASE_NOT_FOUND"), PreviewRolloutRequest { rollout: rollout(site) })
        }
        ("RolloutService", "GetRollout") => {
            ask!(NotFound("ROLLOUT_NOT_FOUND"), GetRolloutRequest { name: site.rollout.name.clone() })
        }
        ("RolloutService", "ListRollouts") => ask!(Filtered, ListRolloutsRequest {}),
        ("RolloutService", "PauseRollout" | "ResumeRollout" | "PromoteRollout") => (NotServed, Vec::new()),
        ("RolloutService", "CancelRollout") => {
            ask!(OutOfScope, CancelRolloutRequest { name: site.rollout.name.clone(), force: true })
        }
        ("RolloutService", "GetDeployment") => {
            ask!(NotFound("DEPLOYMENT_NOT_FOUND"), GetDeploymentRequest { name: site.deployment.clone() })
        }
        ("RolloutService", "ListDeployments") => ask!(Filtered, ListDeploymentsRequest {}),
        ("RolloutService", "CancelDeployment") => {
            ask!(OutOfScope, CancelDeploymentRequest { name: site.deployment.clone() })
        }
        ("RolloutService", "RetryDeployment") => {
            ask!(OutOfScope, RetryDeploymentRequest { name: site.deployment.clone() })
        }
        ("StatusService", "GetStatus") => (Filtered, Vec::new()),
        ("TrustService", "PublishRoots" | "AddTargetsKey" | "RotateServerKey") => (Admin, Vec::new()),
        ("TrustService", "GetTrustStatus") => (Unconcerned("keys are of all packages"), Vec::new()),
        ("TrustService", "GetMetadata") => (Unconcerned("who signs a list has to have all of it"), Vec::new()),
        ("TrustService", "PublishTargets") => (Unconcerned("lists are told apart by a test of their own"), Vec::new()),
        ("TrustService", "ExportDeviceMetadata") => {
            let lifetime = prost_types::Duration { seconds: 3600, nanos: 0 };
            ask!(NotFound("DEVICE_NOT_FOUND"), ExportDeviceMetadataRequest { device: device, lifetime: lifetime })
        }
        _ => panic!("{path}: say here what a caller with a limited role gets when they ask for things outside"),
    }
}

fn rollout(site: &Site) -> api::Rollout {
    let choice = Choice::Devices(api::DeviceList { names: vec![site.device.name()] });
    let target = Some(api::Target { choice: Some(choice) });
    api::Rollout { release: site.release.name.clone(), target, ..Default::default() }
}

/// What the admin sees of everything, to find what changed.
async fn everything(admin: &Operator) -> String {
    let devices = admin.devices().list_devices(api::ListDevicesRequest::default()).await.unwrap().into_inner();
    let packages = admin.packages().list_packages(api::ListPackagesRequest::default()).await.unwrap().into_inner();
    let parent = "packages/-".to_owned();
    let request = api::ListReleasesRequest { parent, ..Default::default() };
    let releases = admin.packages().list_releases(request).await.unwrap().into_inner();
    let rollouts = admin.rollouts().list_rollouts(api::ListRolloutsRequest::default()).await.unwrap().into_inner();
    let request = api::ListDeploymentsRequest::default();
    let deployments = admin.rollouts().list_deployments(request).await.unwrap().into_inner();
    let request = api::ListEnrollTokensRequest::default();
    let tokens = admin.enroll_tokens().list_enroll_tokens(request).await.unwrap().into_inner();
    // Maps of the wire have no order of their own.
    let devices: Vec<_> = devices
        .devices
        .into_iter()
        .map(|mut device| (device.labels.drain().collect::<BTreeMap<_, _>>(), device))
        .collect();
    let tokens: Vec<_> = tokens
        .enroll_tokens
        .into_iter()
        .map(|mut token| (token.labels.drain().collect::<BTreeMap<_, _>>(), token))
        .collect();
    format!("{devices:?}{packages:?}{releases:?}{rollouts:?}{deployments:?}{tokens:?}")
}

fn contains(answer: &[u8], trace: &str) -> bool {
    answer.windows(trace.len()).any(|window| window == trace.as_bytes())
}

/// The answers to a call. A watch goes on for ever: its are those up to one with this text.
async fn answers(client: &RawClient, path: &str, message: Vec<u8>, until: &str) -> Result<Vec<u8>, Status> {
    let mut stream = client.open(path, Bytes::from(message)).await?;
    let mut all = Vec::new();
    while let Some(answer) = stream.message().await? {
        all.extend_from_slice(&answer);
        if path.ends_with("/WatchEvents") && contains(&answer, until) {
            break;
        }
    }
    Ok(all)
}

#[tokio::test]
async fn every_rpc_keeps_a_limited_caller_to_their_scope() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let outside = Site::build(&server, "out").await;
    let inside = Site::build(&server, "in").await;
    let before = everything(&admin).await;
    let mut wrong = Vec::new();
    for own in [role::Role::Viewer, role::Role::Publisher, role::Role::Deployer] {
        let caller = limited(&server, own, scope("site=in", "in-")).await;
        let client = RawClient::new(&server.url(), caller.bearer());
        for (path, demand) in policy::rows() {
            let Demand::Operator(needed) = demand else { continue };
            let (due, message) = call(&path, &outside);
            if !own.allows(needed) {
                let told = client.open(&path, Bytes::from(message)).await.map(|_| ()).unwrap_err();
                assert_refused(&told, Code::PermissionDenied, "ROLE_INSUFFICIENT");
                continue;
            }
            let told = answers(&client, &path, message, inside.device.id()).await;
            let right = match (due, &told) {
                (Due::NotFound(due), Err(status)) => {
                    (status.code(), reason(status).as_deref()) == (Code::NotFound, Some(due))
                }
                (Due::OutOfScope, Err(status)) => {
                    (status.code(), reason(status).as_deref()) == (Code::PermissionDenied, Some("OUT_OF_SCOPE"))
                }
                (Due::NotServed, Err(status)) => status.code() == Code::Unimplemented,
                (Due::Filtered, Ok(answer)) => outside.traces().iter().all(|trace| !contains(answer, trace)),
                (Due::Unconcerned(_), _) => true,
                (Due::NotFound(_) | Due::OutOfScope | Due::NotServed | Due::Admin, Ok(_))
                | (Due::Filtered | Due::Admin, Err(_)) => false,
            };
            if !right {
                let told = told.map(|answer| String::from_utf8_lossy(&answer).into_owned());
                wrong.push(format!("{path} as {own:?}: due {due:?}, told {told:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(everything(&admin).await, before);
}

#[tokio::test]
async fn inside_their_scope_a_limited_caller_works_as_ever() {
    let server = TestServer::start().await;
    let (outside, inside) = (Site::build(&server, "out").await, Site::build(&server, "in").await);
    let deployer = limited(&server, role::Role::Deployer, scope("site=in", "in-")).await;
    let publisher = limited(&server, role::Role::Publisher, scope("site=in", "in-")).await;

    assert_eq!(deployer.device(&inside.device.name()).await.name, inside.device.name());
    let approved = api::ApproveDeviceRequest { name: inside.pending.name(), ..Default::default() };
    deployer.devices().approve_device(approved).await.unwrap();
    let release = publisher.publish("in-fw", "2.0.0", &unique_payload(50)).await;

    // Who says all means all they see, and the rollout says so.
    let made = deployer.create_rollout(&release, Choice::All(true)).await.unwrap();
    assert_eq!(made.target, Some(api::Target { choice: Some(Choice::Selector("site=in".to_owned())) }));
    assert!(server.admin().deployments(&outside.device.name()).await.len() == 1);
    assert_eq!(inside.device.granted().await.version, "2.0.0");
    let events = deployer.events_of(&inside.device.name()).await;
    assert!(events.iter().any(|event| event.kind == "deployment.granted"), "{events:?}");
    let newer = publisher.publish("in-fw", "3.0.0", &unique_payload(50)).await;
    let made = deployer.create_rollout(&newer, Choice::Selector("site".to_owned())).await.unwrap();
    assert_eq!(made.target, Some(api::Target { choice: Some(Choice::Selector("site,site=in".to_owned())) }));

    let count = deployer.status().get_status(api::GetStatusRequest {}).await.unwrap().into_inner();
    let devices = count.devices.unwrap();
    assert_eq!((devices.accepted, devices.pending, count.package_count, count.release_count), (2, 0, 1, 3));

    let seen = deployer.access().get_caller(api::GetCallerRequest {}).await.unwrap().into_inner();
    assert_eq!(seen.scope, scope("site=in", "in-"));
}

#[tokio::test]
async fn nobody_moves_a_device_out_of_their_scope() {
    let server = TestServer::start().await;
    let inside = Site::build(&server, "in").await;
    let deployer = limited(&server, role::Role::Deployer, scope("site=in", "")).await;
    let label = async |pairs: &[(&str, &str)]| {
        let device = api::Device { name: inside.device.name(), labels: labels(pairs), ..Default::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
        deployer.devices().update_device(api::UpdateDeviceRequest { device: Some(device), update_mask }).await
    };
    label(&[("site", "in"), ("ring", "a")]).await.unwrap();
    for pairs in [&[("site", "out")][..], &[]] {
        assert_refused(&label(pairs).await.unwrap_err(), Code::PermissionDenied, "OUT_OF_SCOPE");
    }
}

#[tokio::test]
async fn a_scope_is_checked_when_it_is_given() {
    let server = TestServer::start().await;
    let create = async |own: Role, scope| {
        let token = api::ApiToken { display_name: "x".to_owned(), role: own.into(), scope, ..Default::default() };
        server.admin().access().create_api_token(api::CreateApiTokenRequest { api_token: Some(token) }).await
    };
    let admin = create(Role::Admin, scope("site=in", "")).await.unwrap_err();
    assert_violates(&admin, "api_token.scope");
    let selector = create(Role::Viewer, scope("site=(", "")).await.unwrap_err();
    assert_violates(&selector, "api_token.scope.device_selector");
    let prefix = create(Role::Viewer, scope("", "In/")).await.unwrap_err();
    assert_violates(&prefix, "api_token.scope.package_prefix");
    let empty = create(Role::Admin, scope("", "")).await.unwrap().into_inner();
    assert_eq!(empty.api_token.unwrap().scope, None);
    let mut access = server.admin().access();
    let list = access.list_api_tokens(api::ListApiTokensRequest::default());
    assert!(list.await.unwrap().into_inner().api_tokens.iter().all(|token| token.scope.is_none()));
}

/// Something a limited deployer tries, on devices by their number.
#[derive(Debug, Clone)]
enum Attempt {
    Get(usize),
    Explain(usize),
    List(String),
    Events,
    Deployments(Option<usize>),
    Rollouts,
    Label(usize, Vec<(&'static str, &'static str)>),
    Reject(usize),
    Decommission(usize),
    Delete(usize),
    AssignTo(Vec<usize>),
    AssignBy(String),
    AssignAll,
    CancelRollout(usize),
    CancelDeployment(usize),
    RetryDeployment(usize),
    EnrollToken(Vec<(&'static str, &'static str)>),
}

fn device_labels() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let value = || prop_oneof![Just(None), Just(Some("x")), Just(Some("y"))];
    (value(), value()).prop_map(|(a, b)| [("a", a), ("b", b)].into_iter().filter_map(|(k, v)| Some((k, v?))).collect())
}

fn selector() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a"),
        Just("!a"),
        Just("a=x"),
        Just("a!=x"),
        Just("b in (x,y)"),
        Just("b notin (y)"),
        Just("b=y")
    ];
    prop::collection::vec(part, 1..3).prop_map(|parts| parts.join(","))
}

fn attempt(devices: usize) -> impl Strategy<Value = Attempt> {
    let one = move || 0..devices;
    prop_oneof![
        one().prop_map(Attempt::Get),
        one().prop_map(Attempt::Explain),
        selector().prop_map(Attempt::List),
        Just(Attempt::Events),
        prop::option::of(one()).prop_map(Attempt::Deployments),
        Just(Attempt::Rollouts),
        (one(), device_labels()).prop_map(|(device, labels)| Attempt::Label(device, labels)),
        one().prop_map(Attempt::Reject),
        one().prop_map(Attempt::Decommission),
        one().prop_map(Attempt::Delete),
        prop::collection::vec(one(), 1..3).prop_map(Attempt::AssignTo),
        selector().prop_map(Attempt::AssignBy),
        Just(Attempt::AssignAll),
        one().prop_map(Attempt::CancelRollout),
        one().prop_map(Attempt::CancelDeployment),
        one().prop_map(Attempt::RetryDeployment),
        device_labels().prop_map(Attempt::EnrollToken),
    ]
}

/// What the fleet of the property test is made of.
struct Fleet {
    devices: Vec<TestDevice>,
    rollouts: Vec<String>,
    deployments: Vec<String>,
    release: api::Release,
}

impl Attempt {
    /// Tries it, and returns the answer as text, if there was one.
    async fn make(self, by: &Operator, fleet: &Fleet) -> Option<String> {
        async fn text<T: std::fmt::Debug>(
            call: impl Future<Output = Result<tonic::Response<T>, Status>>,
        ) -> Option<String> {
            call.await.ok().map(|answer| format!("{:?}", answer.into_inner()))
        }
        let name = |device: usize| fleet.devices[device].name();
        let (mut devices, mut rollouts, mut events) = (by.devices(), by.rollouts(), by.events());
        let assign =
            async |choice| by.create_rollout(&fleet.release, choice).await.ok().map(|made| format!("{made:?}"));
        match self {
            Self::Get(device) => text(devices.get_device(api::GetDeviceRequest { name: name(device) })).await,
            Self::Explain(device) => {
                text(devices.explain_device(api::ExplainDeviceRequest { name: name(device) })).await
            }
            Self::List(selector) => {
                text(devices.list_devices(api::ListDevicesRequest { selector, ..Default::default() })).await
            }
            Self::Events => {
                text(events.list_events(api::ListEventsRequest { page_size: 1_000, ..Default::default() })).await
            }
            Self::Deployments(device) => {
                let device = device.map(name).unwrap_or_default();
                text(rollouts.list_deployments(api::ListDeploymentsRequest { device, ..Default::default() })).await
            }
            Self::Rollouts => text(rollouts.list_rollouts(api::ListRolloutsRequest::default())).await,
            Self::Label(device, pairs) => {
                let device = api::Device { name: name(device), labels: labels(&pairs), ..Default::default() };
                let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
                text(devices.update_device(api::UpdateDeviceRequest { device: Some(device), update_mask })).await
            }
            Self::Reject(device) => text(devices.reject_device(api::RejectDeviceRequest { name: name(device) })).await,
            Self::Decommission(device) => {
                text(devices.decommission_device(api::DecommissionDeviceRequest { name: name(device) })).await
            }
            Self::Delete(device) => text(devices.delete_device(api::DeleteDeviceRequest { name: name(device) })).await,
            Self::AssignTo(devices) => {
                let names = devices.into_iter().map(name).collect();
                assign(Choice::Devices(api::DeviceList { names })).await
            }
            Self::AssignBy(selector) => assign(Choice::Selector(selector)).await,
            Self::AssignAll => assign(Choice::All(true)).await,
            Self::CancelRollout(index) => {
                let name = fleet.rollouts[index].clone();
                text(rollouts.cancel_rollout(api::CancelRolloutRequest { name, force: true })).await
            }
            Self::CancelDeployment(index) => {
                let name = fleet.deployments[index].clone();
                text(rollouts.cancel_deployment(api::CancelDeploymentRequest { name })).await
            }
            Self::RetryDeployment(index) => {
                let name = fleet.deployments[index].clone();
                text(rollouts.retry_deployment(api::RetryDeploymentRequest { name })).await
            }
            Self::EnrollToken(pairs) => {
                let token = api::EnrollToken { labels: labels(&pairs), ..Default::default() };
                let request = api::CreateEnrollTokenRequest { enroll_token: Some(token) };
                text(by.enroll_tokens().create_enroll_token(request)).await
            }
        }
    }
}

/// What the admin sees of the devices that are outside: the device, its deployments.
async fn untouched(admin: &Operator, fleet: &Fleet, outside: &[usize]) -> Vec<String> {
    let mut seen = Vec::new();
    for &device in outside {
        let name = fleet.devices[device].name();
        let mut device = admin.device(&name).await;
        let labels: BTreeMap<_, _> = device.labels.drain().collect();
        seen.push(format!("{device:?}{labels:?}{:?}", admin.deployments(&name).await));
    }
    seen
}

#[tokio::test]
async fn a_token_limited_to_a_selector_never_sees_or_changes_a_device_outside() {
    const DEVICES: usize = 6;
    const FLEETS: usize = 6;
    const ATTEMPTS: usize = 40;
    let mut runner = TestRunner::deterministic();
    for _ in 0..FLEETS {
        let server = TestServer::start().await;
        let admin = server.admin();
        let release = admin.publish("fw", "1.0.0", &unique_payload(10)).await;
        let mut fleet = Fleet { devices: vec![], rollouts: vec![], deployments: vec![], release };
        let mut labeled: Vec<Labels> = Vec::new();
        for _ in 0..DEVICES {
            let pairs = device_labels().new_tree(&mut runner).unwrap().current();
            let token = api::EnrollToken { labels: labels(&pairs), ..Default::default() };
            let string = admin.enrollment_string(token).await;
            let device = TestDevice::enroll(&server.url(), &string, "test").await.unwrap();
            fleet.rollouts.push(admin.assign(&fleet.release, &[&device]).await.name);
            fleet.deployments.push(admin.deployments(&device.name()).await.remove(0).name);
            fleet.devices.push(device);
            labeled.push(labels(&pairs).into_iter().collect());
        }
        let own = selector().new_tree(&mut runner).unwrap().current();
        let chosen: Selector = own.parse().unwrap();
        let deployer = limited(&server, role::Role::Deployer, scope(&own, "")).await;
        let outside: Vec<usize> = (0..DEVICES).filter(|&device| !chosen.matches(&labeled[device])).collect();
        let before = untouched(&admin, &fleet, &outside).await;
        for _ in 0..ATTEMPTS {
            let attempt = attempt(DEVICES).new_tree(&mut runner).unwrap().current();
            let told = attempt.clone().make(&deployer, &fleet).await.unwrap_or_default();
            for &device in &outside {
                assert!(!told.contains(fleet.devices[device].id()), "{own}: {attempt:?} told {told}");
            }
        }
        assert_eq!(untouched(&admin, &fleet, &outside).await, before, "{own}");
    }
}

#[tokio::test]
async fn a_limited_publisher_changes_no_entry_of_a_package_outside() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (inside, outside) = (Site::build(&server, "in").await, Site::build(&server, "out").await);
    let publisher = limited(&server, role::Role::Publisher, scope("", "in-")).await;
    let outside_name: PackageName = outside.package.parse().unwrap();
    let path = |site: &Site| target(&site.release).path();
    for told in [
        publisher
            .edit_targets(|list| {
                list.remove(&path(&outside));
            })
            .await,
        publisher.edit_targets(|list| list.raise_floor(&outside_name, 1)).await,
    ] {
        assert_refused(&told.unwrap_err(), Code::PermissionDenied, "OUT_OF_SCOPE");
    }
    let release = admin.create_unsigned_release(&outside.package, "2.0.0", outside.release.clone()).await.unwrap();
    assert_refused(&publisher.sign(&release).await.unwrap_err(), Code::PermissionDenied, "OUT_OF_SCOPE");
    publisher
        .edit_targets(|list| {
            list.remove(&path(&inside));
        })
        .await
        .unwrap();
    publisher.sign(&inside.release).await.unwrap();
}
