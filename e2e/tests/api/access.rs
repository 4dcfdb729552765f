//! `AccessService`.

use chrono::{TimeDelta, Utc};
use ota_domain::{
    role,
    secret::{BearerToken, Secret},
};
use ota_e2e::{Operator, TestServer, assert_refused, assert_violates, violated_fields};
use ota_proto::{
    admin::v1::{
        ApiToken, CreateApiTokenRequest, CreateApiTokenResponse, GetCallerRequest, GetCallerResponse,
        ListApiTokensRequest, RevokeApiTokenRequest, Role,
    },
    convert::timestamp,
};
use ota_server::app::{self, access::NewToken};
use tonic::{Code, Status};

async fn create(admin: &Operator, api_token: ApiToken) -> Result<CreateApiTokenResponse, Status> {
    let request = CreateApiTokenRequest { api_token: Some(api_token) };
    Ok(admin.access().create_api_token(request).await?.into_inner())
}

async fn made(admin: &Operator, name: &str) -> (ApiToken, String) {
    let token = ApiToken { display_name: name.to_owned(), role: Role::Viewer.into(), ..Default::default() };
    let made = create(admin, token).await.expect("an admin makes a token");
    (made.api_token.expect("an answer has the token"), made.secret)
}

async fn revoke(admin: &Operator, name: &str) -> Result<ApiToken, Status> {
    let request = RevokeApiTokenRequest { name: name.to_owned() };
    Ok(admin.access().revoke_api_token(request).await?.into_inner().api_token.expect("an answer has the token"))
}

async fn caller(operator: &Operator) -> Result<GetCallerResponse, Status> {
    Ok(operator.access().get_caller(GetCallerRequest {}).await?.into_inner())
}

async fn stored(server: &TestServer) -> (i64, i64) {
    let counts = "SELECT (SELECT count(*) FROM api_token), (SELECT count(*) FROM event)";
    sqlx::query_as(counts).fetch_one(server.pool()).await.expect("rows are counted")
}

#[tokio::test]
async fn every_role_learns_who_it_is() {
    let server = TestServer::start().await;
    for (role, wire) in role::Role::ALL.into_iter().zip([Role::Viewer, Role::Publisher, Role::Deployer, Role::Admin]) {
        let who = caller(&server.operator(role).await).await.unwrap();
        assert_eq!((who.role(), who.display_name.as_str()), (wire, role.as_str()));
        assert!(who.name.starts_with("apiTokens/"), "{}", who.name);
    }
}

#[tokio::test]
async fn every_fault_of_a_token_is_told_and_nothing_is_stored() {
    let server = TestServer::start().await;
    let before = stored(&server).await;
    for display_name in ["", "   ", "bell\u{7}", &"x".repeat(129)] {
        let token = ApiToken {
            display_name: display_name.to_owned(),
            role: 99,
            expire_time: Some(timestamp(Utc::now())),
            ..Default::default()
        };
        let refusal = create(&server.admin(), token).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "FIELDS_INVALID");
        assert_eq!(
            violated_fields(&refusal),
            ["api_token.display_name", "api_token.role", "api_token.expire_time"],
            "{display_name:?}"
        );
    }
    let expire_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let token = ApiToken { display_name: "ci".to_owned(), role: 1, expire_time, ..Default::default() };
    assert_violates(&create(&server.admin(), token).await.unwrap_err(), "api_token.expire_time");
    assert_eq!(stored(&server).await, before);
}

#[tokio::test]
async fn a_revoked_token_ends_at_once_and_revoking_it_again_changes_nothing() {
    let server = TestServer::start().await;
    let (token, secret) = made(&server.admin(), "ci").await;
    let ci = Operator::new(&server.url(), &secret);
    caller(&ci).await.unwrap();

    let revoked = revoke(&server.admin(), &token.name).await.unwrap();
    assert!(revoked.revoke_time.is_some());
    assert_refused(&caller(&ci).await.unwrap_err(), Code::Unauthenticated, "CREDENTIAL_INVALID");

    let after = stored(&server).await;
    assert_eq!(revoke(&server.admin(), &token.name).await.unwrap().revoke_time, revoked.revoke_time);
    assert_eq!(stored(&server).await, after);
}

#[tokio::test]
async fn an_expired_token_and_a_wrong_secret_are_refused_alike() {
    let server = TestServer::start().await;
    let (token, secret) = made(&server.admin(), "ci").await;
    let Ok(BearerToken::Api { token: id, .. }) = secret.parse() else { panic!("{secret} is no API token") };
    let wrong = BearerToken::Api { token: id, secret: Secret([7; 32]) }.to_string();
    let refusal = caller(&Operator::new(&server.url(), &wrong)).await.unwrap_err();
    assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_INVALID");

    let expired = sqlx::query("UPDATE api_token SET expires_at = now() WHERE id = $1").bind(id.0);
    expired.execute(server.pool()).await.unwrap();
    let late = caller(&Operator::new(&server.url(), &secret)).await.unwrap_err();
    assert_eq!((late.code(), late.message()), (refusal.code(), refusal.message()), "{}", token.name);
}

#[tokio::test]
async fn an_unknown_token_and_a_name_of_something_else_are_refused() {
    let server = TestServer::start().await;
    let unknown = "apiTokens/01890a5d-ac96-774b-bcce-b302099a8057";
    assert_refused(&revoke(&server.admin(), unknown).await.unwrap_err(), Code::NotFound, "API_TOKEN_NOT_FOUND");
    for name in ["", "apiTokens/", "apiTokens/x", "devices/01890a5d-ac96-774b-bcce-b302099a8057", "../etc"] {
        assert_violates(&revoke(&server.admin(), name).await.unwrap_err(), "name");
    }
}

#[tokio::test]
async fn the_use_of_a_token_is_written_once_a_minute() {
    let server = TestServer::start().await;
    let (_, secret) = made(&server.admin(), "ci").await;
    let Ok(BearerToken::Api { token, secret }) = secret.parse() else { panic!("no API token") };
    let start = Utc::now() + TimeDelta::hours(1);
    for (seconds, written) in [(0, 0), (59, 0), (60, 60), (61, 60), (121, 121)] {
        let now = start + TimeDelta::seconds(seconds);
        app::access::authenticate(server.app(), token, &secret, now).await.unwrap();
        let last = sqlx::query_scalar("SELECT last_used_at FROM api_token WHERE id = $1").bind(token.0);
        let last: chrono::DateTime<Utc> = last.fetch_one(server.pool()).await.unwrap();
        let expected = start + TimeDelta::seconds(written);
        assert_eq!(last.timestamp_micros(), expected.timestamp_micros(), "after {seconds} s");
    }
}

#[tokio::test]
async fn of_many_replicas_that_start_at_once_one_makes_the_first_token() {
    let server = TestServer::start().await;
    sqlx::query("DELETE FROM api_token").execute(server.pool()).await.unwrap();
    let start = async || app::access::first_admin(server.pool(), &NewToken::random(), Utc::now()).await;
    let starts = (0..6).map(|_| start());
    let made = futures_util::future::try_join_all(starts).await.unwrap();
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    assert!(!start().await.unwrap());
}

#[tokio::test]
async fn pages_hold_every_token_once_and_no_secret() {
    let server = TestServer::start().await;
    let mut expected = Vec::new();
    for number in 0..5 {
        expected.insert(0, made(&server.admin(), &number.to_string()).await.0.display_name);
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListApiTokensRequest { page_size: 2, page_token };
        let page = server.admin().access().list_api_tokens(request).await.unwrap().into_inner();
        assert!(page.api_tokens.len() <= 2);
        names.extend(page.api_tokens.into_iter().map(|token| token.display_name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    expected.push("first admin".to_owned());
    assert_eq!(names, expected);

    let request = ListApiTokensRequest { page_size: -1, page_token: String::new() };
    assert_violates(&server.admin().access().list_api_tokens(request).await.unwrap_err(), "page_size");
    let request = ListApiTokensRequest { page_size: 0, page_token: "x".to_owned() };
    let refusal = server.admin().access().list_api_tokens(request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
}
