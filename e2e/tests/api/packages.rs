//! `PackageService`: packages, and payloads as operators read them.

use ota_e2e::{
    Operator, TestServer, assert_refused, assert_violates,
    device::sha256,
    operator::{crc32c, unique_payload},
};
use ota_proto::admin::v1::{
    CreatePackageRequest, DeletePackageRequest, DownloadPayloadRequest, GetPackageRequest, ListEventsRequest,
    ListPackagesRequest, ListReleasesRequest, Package, UpdatePackageRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Status};

async fn create(operator: &Operator, id: &str, description: &str) -> Result<Package, Status> {
    let package = Some(Package { description: description.to_owned(), ..Default::default() });
    let request = CreatePackageRequest { package_id: id.to_owned(), package };
    Ok(operator.packages().create_package(request).await?.into_inner().package.expect("an answer has the package"))
}

async fn get(operator: &Operator, id: &str) -> Result<Package, Status> {
    let request = GetPackageRequest { name: format!("packages/{id}") };
    Ok(operator.packages().get_package(request).await?.into_inner().package.expect("an answer has the package"))
}

async fn delete(operator: &Operator, id: &str) -> Result<(), Status> {
    let request = DeletePackageRequest { name: format!("packages/{id}") };
    operator.packages().delete_package(request).await.map(drop)
}

async fn count(server: &TestServer) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM package").fetch_one(server.pool()).await.expect("a count")
}

#[tokio::test]
async fn a_created_package_is_read_and_listed() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let made = create(&admin, "gateway-fw", "What the gateway runs.\n").await.unwrap();
    assert_eq!((made.name.as_str(), made.description.as_str()), ("packages/gateway-fw", "What the gateway runs.\n"));
    assert_eq!((made.release_count, made.latest_version.as_str()), (0, ""));
    assert_eq!(get(&admin, "gateway-fw").await.unwrap(), made);
    let listed = admin.packages().list_packages(ListPackagesRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.packages, listed.next_page_token.as_str()), (vec![made], ""));
}

#[tokio::test]
async fn what_is_no_name_is_refused_and_not_stored() {
    let server = TestServer::start().await;
    let long = "a".repeat(64);
    for name in ["", "..", "a..b", "a/b", "../etc", "a\\b", "UPPER", "a b", "a\u{0}", "a\n", "é", "-a", "a-", &long] {
        let status = create(&server.admin(), name, "").await.unwrap_err();
        assert_violates(&status, "package_id");
    }
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn a_description_is_printable_and_short() {
    let server = TestServer::start().await;
    for description in ["\u{0}", "\u{1b}[2J", &"x".repeat(1_025)] {
        let status = create(&server.admin(), "app", description).await.unwrap_err();
        assert_violates(&status, "package.description");
    }
    assert_eq!(count(&server).await, 0);
    create(&server.admin(), "app", &"é".repeat(1_024)).await.unwrap();
}

#[tokio::test]
async fn a_name_is_given_once() {
    let server = TestServer::start().await;
    create(&server.admin(), "app", "first").await.unwrap();
    let status = create(&server.admin(), "app", "second").await.unwrap_err();
    assert_refused(&status, Code::AlreadyExists, "PACKAGE_EXISTS");
    assert_eq!(get(&server.admin(), "app").await.unwrap().description, "first");
}

#[tokio::test]
async fn an_unknown_package_is_not_found() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let update = UpdatePackageRequest {
        package: Some(Package { name: "packages/none".to_owned(), ..Default::default() }),
        update_mask: None,
    };
    let list = ListReleasesRequest { parent: "packages/none".to_owned(), ..Default::default() };
    for status in [
        get(&admin, "none").await.unwrap_err(),
        delete(&admin, "none").await.unwrap_err(),
        admin.packages().update_package(update).await.unwrap_err(),
        admin.packages().list_releases(list).await.unwrap_err(),
    ] {
        assert_refused(&status, Code::NotFound, "PACKAGE_NOT_FOUND");
    }
    assert_violates(&get(&admin, "../etc").await.unwrap_err(), "name");
}

#[tokio::test]
async fn pages_hold_every_package_once_by_name() {
    let server = TestServer::start().await;
    let admin = server.admin();
    for name in ["e", "b", "d", "a", "c"] {
        create(&admin, name, "").await.unwrap();
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListPackagesRequest { page_size: 2, page_token };
        let page = admin.packages().list_packages(request).await.unwrap().into_inner();
        assert!(page.packages.len() <= 2);
        names.extend(page.packages.into_iter().map(|package| package.name));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(names, ["packages/a", "packages/b", "packages/c", "packages/d", "packages/e"]);
    let request = ListPackagesRequest { page_size: -1, page_token: String::new() };
    assert_violates(&admin.packages().list_packages(request).await.unwrap_err(), "page_size");
    let request = ListPackagesRequest { page_size: 0, page_token: "../x".to_owned() };
    let status = admin.packages().list_packages(request).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let first = create(&admin, "app", "one").await.unwrap();
    let update = |description: &str, etag: &str| {
        let package = Package {
            name: "packages/app".to_owned(),
            description: description.to_owned(),
            etag: etag.to_owned(),
            ..Default::default()
        };
        let mut client = admin.packages();
        async move { client.update_package(UpdatePackageRequest { package: Some(package), update_mask: None }).await }
    };
    let second = update("two", &first.etag).await.unwrap().into_inner().package.unwrap();
    assert_ne!(second.etag, first.etag);
    let status = update("three", &first.etag).await.unwrap_err();
    assert_refused(&status, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(get(&admin, "app").await.unwrap(), second);
    // Who sends none does not mind.
    update("four", "").await.unwrap();
}

#[tokio::test]
async fn only_the_description_can_be_changed() {
    let server = TestServer::start().await;
    let admin = server.admin();
    create(&admin, "app", "one").await.unwrap();
    let request = UpdatePackageRequest {
        package: Some(Package { name: "packages/app".to_owned(), release_count: 7, ..Default::default() }),
        update_mask: Some(FieldMask { paths: vec!["description".to_owned(), "release_count".to_owned()] }),
    };
    let status = admin.packages().update_package(request).await.unwrap_err();
    assert_violates(&status, "update_mask.paths[1]");
    assert_eq!(get(&admin, "app").await.unwrap().description, "one");
}

#[tokio::test]
async fn a_package_is_deleted_only_when_empty() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let status = delete(&admin, "app").await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "PACKAGE_NOT_EMPTY");
    create(&admin, "empty", "").await.unwrap();
    delete(&admin, "empty").await.unwrap();
    assert_eq!(count(&server).await, 1);
}

#[tokio::test]
async fn every_change_is_recorded_with_who_made_it() {
    let server = TestServer::start().await;
    let publisher = server.operator(ota_domain::role::Role::Publisher).await;
    create(&publisher, "app", "").await.unwrap();
    delete(&publisher, "app").await.unwrap();
    let events = server.admin().events().list_events(ListEventsRequest::default()).await.unwrap().into_inner().events;
    let kinds: Vec<_> = events
        .iter()
        .filter(|event| event.subject == "packages/app")
        .map(|event| (event.kind.as_str(), event.actor_display_name.as_str()))
        .collect();
    assert_eq!(kinds, [("package.deleted", "publisher"), ("package.created", "publisher")]);
}

#[tokio::test]
async fn an_operator_downloads_a_payload_from_any_offset() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(600_000);
    let name = format!("payloads/{}", admin.upload(&bytes).await);
    let download = async |name: &str, offset: i64| {
        let request = DownloadPayloadRequest { name: name.to_owned(), offset };
        let mut stream = admin.packages().download_payload(request).await?.into_inner();
        let mut got = Vec::new();
        while let Some(piece) = stream.message().await? {
            assert_eq!(piece.offset, offset + i64::try_from(got.len()).unwrap());
            assert!(piece.data.len() <= 256 * 1024);
            assert_eq!(piece.crc32c, crc32c(&piece.data));
            got.extend_from_slice(&piece.data);
        }
        Ok::<_, Status>(got)
    };
    assert!(download(&name, 0).await.unwrap() == bytes);
    assert!(download(&name, 262_145).await.unwrap() == bytes[262_145..]);
    assert!(download(&name, 600_000).await.unwrap().is_empty());
    assert_refused(&download(&name, 600_001).await.unwrap_err(), Code::OutOfRange, "RANGE_INVALID");
    let other = format!("payloads/{}", sha256(b"other"));
    assert_refused(&download(&other, 0).await.unwrap_err(), Code::NotFound, "PAYLOAD_NOT_FOUND");
}
