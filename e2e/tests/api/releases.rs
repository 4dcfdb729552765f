//! `PackageService`: releases, and the payloads that go with them.

use std::time::Duration;

use ota_e2e::{
    Operator, TestServer, assert_refused, assert_violates, eventually, operator::unique_payload, violated_fields,
};
use ota_proto::{
    admin::v1::{
        CreateReleaseRequest, DeletePayloadRequest, DeleteReleaseRequest, DeploymentState, GetPackageRequest,
        GetPayloadRequest, GetReleaseRequest, Installer, ListReleasesRequest, Release, ReleaseState,
        UpdateReleaseRequest, YankReleaseRequest,
    },
    device::v1::RunningRelease,
};
use tonic::{Code, Status};

/// Until a broken test fails.
const DEADLINE: Duration = Duration::from_secs(20);

fn wanted(payload: &str) -> Release {
    Release { installer: Installer::File.into(), payload: payload.to_owned(), ..Default::default() }
}

async fn uploaded(operator: &Operator) -> String {
    format!("payloads/{}", operator.upload(&unique_payload(1_000)).await)
}

async fn get(operator: &Operator, name: &str) -> Result<Release, Status> {
    let request = GetReleaseRequest { name: name.to_owned() };
    Ok(operator.packages().get_release(request).await?.into_inner().release.expect("an answer has the release"))
}

async fn yank(operator: &Operator, name: &str) -> Release {
    let request = YankReleaseRequest { name: name.to_owned(), reason: "it does not boot".to_owned() };
    let answer = operator.packages().yank_release(request).await.expect("a publisher yanks a release");
    answer.into_inner().release.expect("an answer has the release")
}

async fn delete(operator: &Operator, name: &str) -> Result<(), Status> {
    operator.packages().delete_release(DeleteReleaseRequest { name: name.to_owned() }).await.map(drop)
}

async fn payload_is_there(operator: &Operator, name: &str) -> bool {
    match operator.packages().get_payload(GetPayloadRequest { name: name.to_owned() }).await {
        Ok(_) => true,
        Err(status) => {
            assert_refused(&status, Code::NotFound, "PAYLOAD_NOT_FOUND");
            false
        }
    }
}

/// Packages, releases and events of packages: what a refused request may not have made.
async fn count(server: &TestServer) -> i64 {
    let query = "SELECT (SELECT count(*) FROM package) + (SELECT count(*) FROM release)
                     + (SELECT count(*) FROM event WHERE subject LIKE 'packages/%')";
    sqlx::query_scalar(query).fetch_one(server.pool()).await.expect("a count")
}

#[tokio::test]
async fn a_published_release_is_read_and_listed() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let payload = uploaded(&admin).await;
    let release = Release {
        hardware: vec!["rpi4".to_owned(), "rpi5".to_owned()],
        unpacked_size_bytes: 5_000,
        notes: "Fixes.\n".to_owned(),
        ..wanted(&payload)
    };
    let made = admin.create_release("app", "1.0.0-rc.1", release.clone()).await.unwrap();
    assert_eq!(made.name, "packages/app/releases/1.0.0-rc.1");
    assert_eq!((&made.hardware, &made.payload, &made.notes), (&release.hardware, &payload, &release.notes));
    assert_eq!((made.payload_size_bytes, made.unpacked_size_bytes, made.release_counter), (1_000, 5_000, 1));
    assert_eq!((made.state(), made.installer()), (ReleaseState::Published, Installer::File));
    assert_eq!(get(&admin, &made.name).await.unwrap(), made);
    for parent in ["packages/app", "packages/-"] {
        let request = ListReleasesRequest { parent: parent.to_owned(), ..Default::default() };
        let listed = admin.packages().list_releases(request).await.unwrap().into_inner();
        assert_eq!(listed.releases, std::slice::from_ref(&made), "{parent}");
    }
}

#[tokio::test]
async fn every_fault_is_told_at_once_and_nothing_is_stored() {
    let server = TestServer::start().await;
    let request = CreateReleaseRequest {
        parent: "packages/a/b".to_owned(),
        version: "newest".to_owned(),
        release: Some(Release {
            hardware: vec!["ok".to_owned(), "Not OK".to_owned()],
            installer: Installer::Slot.into(),
            payload: "payloads/abc".to_owned(),
            unpacked_size_bytes: -1,
            notes: "x".repeat(16 * 1024 + 1),
            ..Default::default()
        }),
        create_package: true,
        validate_only: false,
    };
    let status = server.admin().packages().create_release(request).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "FIELDS_INVALID");
    assert_eq!(
        violated_fields(&status),
        [
            "parent",
            "version",
            "release.hardware[1]",
            "release.installer",
            "release.payload",
            "release.unpacked_size_bytes",
            "release.notes"
        ]
    );
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn a_version_that_is_not_semver_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let payload = uploaded(&admin).await;
    let long = format!("1.0.0-{}", "a".repeat(64));
    for version in ["", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.0+build", "1.0.0/..", "1.0.0\u{0}", &long] {
        let status = admin.create_release("app", version, wanted(&payload)).await.unwrap_err();
        assert_violates(&status, "version");
    }
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn an_installer_of_a_later_server_is_refused_in_words() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let payload = uploaded(&admin).await;
    for installer in [Installer::Unspecified, Installer::Slot, Installer::Module, Installer::Mcu] {
        let release = Release { installer: installer.into(), ..wanted(&payload) };
        let status = admin.create_release("app", "1.0.0", release).await.unwrap_err();
        assert!(assert_violates(&status, "release.installer").contains("INSTALLER_DIRECTORY"));
    }
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn a_version_is_published_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let first = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let before = count(&server).await;
    let other = uploaded(&admin).await;
    let status = admin.create_release("app", "1.0.0", wanted(&other)).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "RELEASE_EXISTS");
    assert_eq!(get(&admin, &first.name).await.unwrap(), first);
    assert_eq!(count(&server).await, before);
}

#[tokio::test]
async fn a_payload_that_was_not_uploaded_cannot_be_released() {
    let server = TestServer::start().await;
    let payload = format!("payloads/{}", "7".repeat(64));
    let status = server.admin().create_release("app", "1.0.0", wanted(&payload)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "PAYLOAD_NOT_FOUND");
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn a_package_is_made_only_when_asked_for() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let request = CreateReleaseRequest {
        parent: "packages/app".to_owned(),
        version: "1.0.0".to_owned(),
        release: Some(wanted(&uploaded(&admin).await)),
        ..Default::default()
    };
    let status = admin.packages().create_release(request).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "PACKAGE_NOT_FOUND");
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn validating_checks_everything_and_stores_nothing() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let request = CreateReleaseRequest {
        parent: "packages/app".to_owned(),
        version: "1.0.0".to_owned(),
        release: Some(wanted(&uploaded(&admin).await)),
        create_package: true,
        validate_only: true,
    };
    let release = admin.packages().create_release(request.clone()).await.unwrap().into_inner().release.unwrap();
    assert_eq!(release.name, "packages/app/releases/1.0.0");
    assert_eq!(count(&server).await, 0);
    admin.packages().create_release(CreateReleaseRequest { validate_only: false, ..request.clone() }).await.unwrap();
    let status = admin.packages().create_release(request).await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "RELEASE_EXISTS");
}

#[tokio::test]
async fn counters_rise_whatever_the_version_says_and_are_never_given_twice() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(100);
    assert_eq!(admin.publish("app", "2.0.0", &bytes).await.release_counter, 1);
    let second = admin.publish("app", "1.0.0", &bytes).await;
    assert_eq!(second.release_counter, 2);
    delete(&admin, &second.name).await.unwrap();
    assert_eq!(admin.publish("app", "3.0.0", &bytes).await.release_counter, 3);
    // Another package counts by itself.
    assert_eq!(admin.publish("other", "1.0.0", &bytes).await.release_counter, 1);
}

#[tokio::test]
async fn releases_published_at_once_get_counters_of_their_own() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let payload = uploaded(&admin).await;
    let versions: Vec<_> = (0..8).map(|patch| format!("1.0.{patch}")).collect();
    let publishing = versions.iter().map(|version| admin.create_release("app", version, wanted(&payload)));
    let published = futures_util::future::join_all(publishing).await;
    let mut counters: Vec<_> = published.into_iter().map(|release| release.unwrap().release_counter).collect();
    counters.sort_unstable();
    assert_eq!(counters, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn only_the_notes_change_and_only_with_the_current_etag() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let first = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let update = |etag: &str, notes: &str| {
        let release = Release {
            name: first.name.clone(),
            etag: etag.to_owned(),
            notes: notes.to_owned(),
            hardware: vec!["ignored".to_owned()],
            ..Default::default()
        };
        let mut client = admin.packages();
        async move { client.update_release(UpdateReleaseRequest { release: Some(release), update_mask: None }).await }
    };
    let second = update(&first.etag, "two").await.unwrap().into_inner().release.unwrap();
    assert_eq!(second, Release { notes: "two".to_owned(), etag: second.etag.clone(), ..first.clone() });
    let status = update(&first.etag, "three").await.unwrap_err();
    assert_refused(&status, Code::Aborted, "ETAG_MISMATCH");
    assert_violates(&update("", "\u{1b}]0;owned\u{7}").await.unwrap_err(), "release.notes");
    assert_eq!(get(&admin, &first.name).await.unwrap(), second);
}

#[tokio::test]
async fn yanking_cancels_what_no_device_was_told_of_and_nothing_else() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let older = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let release = admin.publish("app", "1.1.0", &unique_payload(100)).await;
    let (waiting, told) = (admin.enroll().await, admin.enroll().await);
    admin.assign(&release, &[&waiting, &told]).await;
    told.granted().await;

    assert_eq!(yank(&admin, &release.name).await.state(), ReleaseState::Yanked);
    assert_eq!(admin.deployments(&waiting.name()).await[0].state(), DeploymentState::Canceled);
    assert_eq!(admin.deployments(&told.name()).await[0].state(), DeploymentState::Granted);
    assert!(waiting.check_in().await.unwrap().deployments.is_empty());
    let kinds: Vec<_> = admin.events_of(&waiting.name()).await.into_iter().map(|event| event.kind).collect();
    assert!(kinds.contains(&"deployment.canceled".to_owned()), "{kinds:?}");

    let package = GetPackageRequest { name: "packages/app".to_owned() };
    let package = admin.packages().get_package(package).await.unwrap().into_inner().package.unwrap();
    assert_eq!((package.release_count, package.latest_version.as_str()), (2, "1.0.0"));
    let status = admin.create_rollout(&release, ota_proto::admin::v1::target::Choice::All(true)).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "RELEASE_YANKED");
    assert_eq!(get(&admin, &older.name).await.unwrap().state(), ReleaseState::Published);

    let recorded = count(&server).await;
    assert_eq!(yank(&admin, &release.name).await.state(), ReleaseState::Yanked);
    assert_eq!(count(&server).await, recorded, "yanking twice is recorded once");
}

#[tokio::test]
async fn a_release_in_a_rollout_is_not_deleted() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let device = admin.enroll().await;
    admin.assign(&release, &[&device]).await;
    let status = delete(&admin, &release.name).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "RELEASE_IN_USE");
    assert!(payload_is_there(&admin, &release.payload).await);
}

#[tokio::test]
async fn a_release_that_a_device_runs_is_not_deleted() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let sha256 = admin.upload(&unique_payload(1)).await;
    let device = admin.enroll().await;
    let running = RunningRelease {
        package: "app".to_owned(),
        version: "1.0.0".to_owned(),
        payload_sha256: sha256.0.to_vec().into(),
    };
    device.check_in_running(&[running]).await.unwrap();
    eventually("the server knows what the device runs", DEADLINE, async || {
        (!admin.device(&device.name()).await.running.is_empty()).then_some(())
    })
    .await;
    let status = delete(&admin, &release.name).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "RELEASE_IN_USE");
}

#[tokio::test]
async fn a_payload_goes_with_the_last_release_that_has_it() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(100);
    let first = admin.publish("app", "1.0.0", &bytes).await;
    let second = admin.publish("app", "2.0.0", &bytes).await;
    let digest = first.payload.strip_prefix("payloads/").unwrap();
    let blob = server.blob_store().join("sha256").join(&digest[..2]).join(digest);

    let request = DeletePayloadRequest { name: first.payload.clone() };
    let status = admin.packages().delete_payload(request).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "PAYLOAD_IN_USE");

    delete(&admin, &first.name).await.unwrap();
    assert!(payload_is_there(&admin, &second.payload).await && blob.exists());
    delete(&admin, &second.name).await.unwrap();
    assert!(!payload_is_there(&admin, &second.payload).await && !blob.exists());

    let status = get(&admin, &second.name).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "RELEASE_NOT_FOUND");
    // The same bytes can come again.
    admin.publish("app", "3.0.0", &bytes).await;
    assert!(blob.exists());
}
