//! Who may call what: one row for each RPC. An RPC without a row is refused to everybody.

use ota_domain::role::Role;

/// What an RPC demands of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    Nothing,
    /// An accepted device: its certificate or a session.
    Device,
    /// The same, and the certificate may have expired: the handshake has proven the key all the same.
    EnrolledKey,
    /// An API token or a token of the identity provider, whose role allows this one's.
    Operator(Role),
}

use Demand::{Device, EnrolledKey, Nothing, Operator};
use Role::{Admin, Deployer, Publisher, Viewer};

/// The table, by service and method.
const POLICY: &[(&str, &[(&str, Demand)])] = &[
    ("grpc.health.v1.Health", &[("Check", Nothing), ("Watch", Nothing)]),
    ("grpc.reflection.v1.ServerReflection", &[("ServerReflectionInfo", Nothing)]),
    ("grpc.reflection.v1alpha.ServerReflection", &[("ServerReflectionInfo", Nothing)]),
    (
        "ota.device.v1.EnrollmentService",
        &[
            ("GetTrustAnchors", Nothing),
            ("Enroll", Nothing),
            ("RenewCertificate", EnrolledKey),
            ("CreateChallenge", Nothing),
            ("CreateSession", Nothing),
        ],
    ),
    (
        "ota.device.v1.UpdateService",
        &[
            ("CheckIn", Device),
            ("Watch", Device),
            ("Download", Device),
            ("ReportProgress", Device),
            ("ReportInventory", Device),
        ],
    ),
    (
        "ota.admin.v1.AccessService",
        &[
            ("CreateApiToken", Operator(Admin)),
            ("ListApiTokens", Operator(Admin)),
            ("RevokeApiToken", Operator(Admin)),
            ("GetCaller", Operator(Viewer)),
            ("GetLoginOptions", Nothing),
        ],
    ),
    (
        "ota.admin.v1.DeviceService",
        &[
            ("GetDevice", Operator(Viewer)),
            ("ListDevices", Operator(Viewer)),
            ("UpdateDevice", Operator(Deployer)),
            ("ApproveDevice", Operator(Deployer)),
            ("RejectDevice", Operator(Deployer)),
            ("DecommissionDevice", Operator(Deployer)),
            ("DeleteDevice", Operator(Deployer)),
            ("ExplainDevice", Operator(Viewer)),
        ],
    ),
    (
        "ota.admin.v1.EnrollTokenService",
        &[
            ("CreateEnrollToken", Operator(Deployer)),
            ("GetEnrollToken", Operator(Viewer)),
            ("ListEnrollTokens", Operator(Viewer)),
            ("RevokeEnrollToken", Operator(Deployer)),
        ],
    ),
    (
        "ota.admin.v1.EventService",
        &[("ListEvents", Operator(Viewer)), ("WatchEvents", Operator(Viewer)), ("ListEventSeals", Operator(Viewer))],
    ),
    (
        "ota.admin.v1.GroupService",
        &[
            ("CreateGroup", Operator(Deployer)),
            ("GetGroup", Operator(Viewer)),
            ("ListGroups", Operator(Viewer)),
            ("UpdateGroup", Operator(Deployer)),
            ("DeleteGroup", Operator(Deployer)),
        ],
    ),
    (
        "ota.admin.v1.PackageService",
        &[
            ("CreatePackage", Operator(Publisher)),
            ("GetPackage", Operator(Viewer)),
            ("ListPackages", Operator(Viewer)),
            ("UpdatePackage", Operator(Publisher)),
            ("DeletePackage", Operator(Publisher)),
            ("CreateRelease", Operator(Publisher)),
            ("GetRelease", Operator(Viewer)),
            ("ListReleases", Operator(Viewer)),
            ("UpdateRelease", Operator(Publisher)),
            ("YankRelease", Operator(Publisher)),
            ("DeleteRelease", Operator(Publisher)),
            ("CreateUpload", Operator(Publisher)),
            ("GetUpload", Operator(Publisher)),
            ("UploadPayload", Operator(Publisher)),
            ("DeleteUpload", Operator(Publisher)),
            ("GetPayload", Operator(Viewer)),
            ("DownloadPayload", Operator(Viewer)),
            ("DeletePayload", Operator(Publisher)),
        ],
    ),
    (
        "ota.admin.v1.RolloutService",
        &[
            ("CreateRollout", Operator(Deployer)),
            ("PreviewRollout", Operator(Viewer)),
            ("GetRollout", Operator(Viewer)),
            ("ListRollouts", Operator(Viewer)),
            ("PauseRollout", Operator(Deployer)),
            ("ResumeRollout", Operator(Deployer)),
            ("PromoteRollout", Operator(Deployer)),
            ("CancelRollout", Operator(Deployer)),
            ("GetDeployment", Operator(Viewer)),
            ("ListDeployments", Operator(Viewer)),
            ("CancelDeployment", Operator(Deployer)),
            ("RetryDeployment", Operator(Deployer)),
        ],
    ),
    ("ota.admin.v1.StatusService", &[("GetStatus", Operator(Viewer))]),
    (
        "ota.admin.v1.TrustService",
        &[
            ("GetTrustStatus", Operator(Viewer)),
            ("GetMetadata", Operator(Viewer)),
            ("PublishTargets", Operator(Publisher)),
            ("PublishRoots", Operator(Admin)),
            ("AddTargetsKey", Operator(Admin)),
            ("RotateServerKey", Operator(Admin)),
            ("ExportDeviceMetadata", Operator(Deployer)),
        ],
    ),
];

/// The place of the row of the RPC at `path` (`/package.Service/Method`) among [`rows`], and what it demands. `None` for an
/// RPC without a row: refuse it.
#[must_use]
pub fn row(path: &str) -> Option<(usize, Demand)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let mut before = 0;
    for (name, methods) in POLICY {
        if *name == service {
            let place = methods.iter().position(|(name, _)| *name == method)?;
            return Some((before + place, methods[place].1));
        }
        before += methods.len();
    }
    None
}

/// The service and the method in this row.
#[must_use]
pub fn name(row: usize) -> Option<(&'static str, &'static str)> {
    let rows = POLICY.iter().flat_map(|(service, methods)| methods.iter().map(|(method, _)| (*service, *method)));
    rows.into_iter().nth(row)
}

/// What the RPC at `path` demands, as [`row`] has it.
#[must_use]
pub fn demand(path: &str) -> Option<Demand> {
    row(path).map(|(_, demand)| demand)
}

/// The name of every service.
pub fn services() -> impl Iterator<Item = &'static str> {
    POLICY.iter().map(|(service, _)| *service)
}

/// Every row, as path and demand.
pub fn rows() -> impl Iterator<Item = (String, Demand)> {
    POLICY.iter().flat_map(|(service, methods)| {
        methods.iter().map(move |&(method, demand)| (format!("/{service}/{method}"), demand))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_row_is_refused() {
        for path in [
            "",
            "/",
            "/ota.admin.v1.StatusService",
            "/ota.admin.v1.StatusService/",
            "/ota.admin.v1.StatusService/Get",
            "/ota.admin.v1.Nothing/GetStatus",
            "ota.admin.v1.StatusService/GetStatus",
        ] {
            assert_eq!(demand(path), None, "{path}");
        }
    }

    #[test]
    fn a_row_is_found_by_its_path() {
        assert_eq!(demand("/ota.device.v1.UpdateService/CheckIn"), Some(Device));
        for (place, (path, demand)) in rows().enumerate() {
            assert_eq!(row(&path), Some((place, demand)), "{path}");
            let (service, method) = name(place).unwrap();
            assert_eq!(format!("/{service}/{method}"), path);
        }
    }
}
