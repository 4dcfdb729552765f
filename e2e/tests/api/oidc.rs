//! Operators whom an identity provider vouches for.

use chrono::{TimeDelta, Utc};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ota_e2e::{
    Issuer, Operator, Options, TestServer, assert_refused,
    issuer::{IssuerKey, KeyKind},
};
use ota_proto::admin::v1::{
    ApiToken, CreateApiTokenRequest, GetCallerRequest, GetCallerResponse, GetLoginOptionsRequest, ListEventsRequest,
    Role,
};
use ota_server::{app::Error, auth::oidc};
use serde_json::{Value, json};
use tonic::{Code, Status};

fn options(issuer: &Issuer) -> oidc::Options {
    let roles = ["fleet-admins=admin", "senders=deployer", "releasers=publisher", "readers=viewer"];
    oidc::Options {
        oidc_issuer: Some(issuer.url()),
        oidc_client_id: Some("otactl".to_owned()),
        oidc_audience: Some("ota".to_owned()),
        oidc_scopes: vec!["openid".to_owned(), "groups".to_owned()],
        oidc_role_claim: "groups".to_owned(),
        oidc_role: roles.map(|text| text.parse().unwrap()).to_vec(),
    }
}

async fn trusting(issuer: &Issuer) -> TestServer {
    TestServer::with(Options { oidc: options(issuer), ..Options::default() }).await
}

/// The claims of a good token, changed as the test wants.
fn claims(issuer: &Issuer, change: Value) -> Value {
    let now = Utc::now().timestamp();
    let mut claims = json!({
        "iss": issuer.url(), "aud": ["ota", "other"], "sub": "ada-1", "name": "Ada", "groups": ["fleet-admins"],
        "iat": now, "nbf": now, "exp": now + 600,
    });
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims.as_object_mut().unwrap().insert(name.clone(), value.clone());
        }
    }
    claims
}

async fn caller(server: &TestServer, token: &str) -> Result<GetCallerResponse, Status> {
    let operator = Operator::new(&server.url(), token);
    Ok(operator.access().get_caller(GetCallerRequest {}).await?.into_inner())
}

#[tokio::test]
async fn whom_the_provider_vouches_for_is_known_by_subject_and_role() {
    for kind in [KeyKind::Rs256, KeyKind::Es256, KeyKind::EdDsa] {
        let key = IssuerKey::generate("k1", kind);
        let issuer = Issuer::start(vec![key.clone()]).await;
        let server = trusting(&issuer).await;
        let token = key.sign(&claims(&issuer, json!({})));
        let who = caller(&server, &token).await.unwrap();
        assert_eq!((who.name.as_str(), who.display_name.as_str(), who.role()), ("users/ada-1", "Ada", Role::Admin));

        let ada = Operator::new(&server.url(), &token);
        let made = ApiToken { display_name: "x".to_owned(), role: Role::Viewer.into(), ..Default::default() };
        ada.access().create_api_token(CreateApiTokenRequest { api_token: Some(made) }).await.unwrap();
        let events = ada.events().list_events(ListEventsRequest::default()).await.unwrap().into_inner().events;
        assert_eq!((events[0].actor.as_str(), events[0].actor_display_name.as_str()), ("users/ada-1", "Ada"));

        for (group, role) in [
            ("fleet-admins", Role::Admin),
            ("senders", Role::Deployer),
            ("releasers", Role::Publisher),
            ("readers", Role::Viewer),
        ] {
            let token = key.sign(&claims(&issuer, json!({ "groups": group, "name": null })));
            let who = caller(&server, &token).await.unwrap();
            assert_eq!((who.display_name.as_str(), who.role()), ("ada-1", role));
        }
        let two = key.sign(&claims(&issuer, json!({ "groups": ["readers", "x", "releasers"] })));
        assert_eq!(caller(&server, &two).await.unwrap().role(), Role::Publisher);
        let reader = Operator::new(&server.url(), &key.sign(&claims(&issuer, json!({ "groups": ["readers"] }))));
        let status = reader.access().create_api_token(CreateApiTokenRequest::default()).await.unwrap_err();
        assert_refused(&status, Code::PermissionDenied, "ROLE_INSUFFICIENT");
        for groups in [json!(["nobody"]), json!([]), json!(null), json!({ "fleet-admins": true }), json!(7)] {
            let stranger = key.sign(&claims(&issuer, json!({ "groups": groups })));
            assert_refused(&caller(&server, &stranger).await.unwrap_err(), Code::PermissionDenied, "ROLE_INSUFFICIENT");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_the_providers_for_this_server_now_is_refused() {
    let key = IssuerKey::generate("k1", KeyKind::Es256);
    let issuer = Issuer::start(vec![key.clone()]).await;
    let server = trusting(&issuer).await;
    let now = Utc::now().timestamp();
    let good = key.sign(&claims(&issuer, json!({})));
    caller(&server, &good).await.unwrap();

    let mut bad: Vec<(String, String)> = [
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "aud": [] }),
        json!({ "iss": "https://evil.example" }),
        json!({ "iss": format!("{}/", issuer.url()) }),
        json!({ "iss": [issuer.url(), "https://evil.example"] }),
        json!({ "iss": null }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": "two\nlines" }),
        json!({ "exp": now - 61 }),
        json!({ "exp": null }),
        json!({ "exp": "tomorrow" }),
        json!({ "nbf": now + 120 }),
        json!({ "nbf": "x" }),
    ]
    .into_iter()
    .map(|change| (change.to_string(), key.sign(&claims(&issuer, change))))
    .collect();

    let whole = claims(&issuer, json!({}));
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    for none in ["none", "None", "NONE", ""] {
        let header = part(&json!({ "alg": none, "kid": "k1", "typ": "JWT" }));
        bad.push((format!("alg {none:?}"), format!("{header}.{}.", part(&whole))));
    }
    let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
    for public in [key.public_bytes(), &key.public_bytes()[1..], b""] {
        let public = EncodingKey::from_secret(public);
        bad.push(("HS256 with the public key".to_owned(), encode(&header, &whole, &public).unwrap()));
    }
    bad.push(("unknown key".to_owned(), IssuerKey::generate("k2", KeyKind::Es256).sign(&whole)));
    bad.push(("another key of the same id".to_owned(), IssuerKey::generate("k1", KeyKind::Es256).sign(&whole)));
    bad.push(("a key of another kind".to_owned(), IssuerKey::generate("k1", KeyKind::EdDsa).sign(&whole)));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other = claims(&issuer, json!({ "sub": "eve" }));
    bad.push(("other claims".to_owned(), format!("{header}.{}.{signature}", part(&other))));
    bad.push(("no signature".to_owned(), format!("{signed}.")));
    bad.push(("too long".to_owned(), key.sign(&claims(&issuer, json!({ "x": "x".repeat(20_000) })))));
    let no_kid = part(&json!({ "alg": "ES256", "typ": "JWT" }));
    bad.push(("no key id".to_owned(), format!("{no_kid}.{}.{signature}", part(&whole))));

    for (what, token) in bad {
        let status = caller(&server, &token).await.expect_err(&what);
        assert_refused(&status, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
    // Clocks may disagree by a minute.
    for change in [json!({ "exp": now - 30 }), json!({ "nbf": now + 30 }), json!({ "nbf": null })] {
        caller(&server, &key.sign(&claims(&issuer, change))).await.unwrap();
    }
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_when_they_change_and_nobody_makes_the_server_ask_all_the_time() {
    let (old, new) = (IssuerKey::generate("k1", KeyKind::Es256), IssuerKey::generate("k2", KeyKind::EdDsa));
    let issuer = Issuer::start(vec![]).await;
    let server = trusting(&issuer).await;
    ota_e2e::eventually("the keys are fetched at the start", std::time::Duration::from_secs(20), async || {
        (issuer.fetches() == 1).then_some(())
    })
    .await;
    let provider = server.app().oidc.as_ref().unwrap();
    let now = Utc::now();
    issuer.rotate(vec![old.clone()]);
    provider.refresh(now).await.unwrap();
    let (first, second) = (old.sign(&claims(&issuer, json!({}))), new.sign(&claims(&issuer, json!({}))));
    for _ in 0..20 {
        provider.authenticate(&first, now).await.unwrap();
    }
    assert_eq!(issuer.fetches(), 2);
    issuer.rotate(vec![new.clone()]);
    // Just asked: for an unknown key nobody is asked again.
    for _ in 0..20 {
        provider.authenticate(&second, now).await.unwrap_err();
    }
    assert_eq!(issuer.fetches(), 2);
    let later = now + TimeDelta::seconds(10);
    provider.authenticate(&second, later).await.unwrap();
    provider.authenticate(&first, later).await.unwrap_err();
    assert_eq!(issuer.fetches(), 3);
    caller(&server, &second).await.unwrap();
}

#[tokio::test]
async fn an_unknown_key_is_fetched_when_it_is_first_shown() {
    let key = IssuerKey::generate("k1", KeyKind::Es256);
    let issuer = Issuer::start(vec![key.clone()]).await;
    let provider = options(&issuer).provider().unwrap().unwrap();
    provider.authenticate(&key.sign(&claims(&issuer, json!({}))), Utc::now()).await.unwrap();
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_provider_that_is_away_keeps_no_server_from_starting_and_nobody_else_out() {
    let key = IssuerKey::generate("k1", KeyKind::Es256);
    let issuer = Issuer::start(vec![key.clone()]).await;
    let (oidc, token) = (options(&issuer), key.sign(&claims(&issuer, json!({}))));
    drop(issuer);
    let server = TestServer::with(Options { oidc, ..Options::default() }).await;
    for _ in 0..2 {
        let status = caller(&server, &token).await.unwrap_err();
        assert_refused(&status, Code::Unavailable, "IDENTITY_PROVIDER_UNAVAILABLE");
    }
    caller(&server, server.admin_token()).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_went_away_keeps_nobody_out_whose_key_is_known() {
    let (key, other) = (IssuerKey::generate("k1", KeyKind::Es256), IssuerKey::generate("k2", KeyKind::Es256));
    let issuer = Issuer::start(vec![key.clone()]).await;
    let server = trusting(&issuer).await;
    let (known, unknown) = (key.sign(&claims(&issuer, json!({}))), other.sign(&claims(&issuer, json!({}))));
    caller(&server, &known).await.unwrap();
    issuer.fail();
    let provider = server.app().oidc.as_ref().unwrap();
    let later = Utc::now() + TimeDelta::seconds(20);
    provider.refresh(later).await.unwrap_err();
    caller(&server, &known).await.unwrap();
    assert!(matches!(provider.authenticate(&unknown, later).await, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn everybody_learns_where_to_log_in() {
    let issuer = Issuer::start(vec![]).await;
    let server = trusting(&issuer).await;
    let anonymous = Operator::anonymous(&server.url());
    let options = anonymous.access().get_login_options(GetLoginOptionsRequest {}).await.unwrap().into_inner();
    assert_eq!((options.issuer, options.client_id.as_str()), (issuer.url(), "otactl"));
    assert_eq!(options.scopes, ["openid", "groups"]);

    let without = TestServer::start().await;
    let anonymous = Operator::anonymous(&without.url());
    let status = anonymous.access().get_login_options(GetLoginOptionsRequest {}).await.unwrap_err();
    assert_refused(&status, Code::FailedPrecondition, "IDENTITY_PROVIDER_MISSING");
}

#[tokio::test]
async fn only_a_provider_that_nobody_on_the_way_can_answer_for_is_trusted() {
    let issuer = Issuer::start(vec![]).await;
    for url in ["http://idp.example", "ftp://idp.example", "idp.example", "", "http://localhost.evil.example"] {
        let options = oidc::Options { oidc_issuer: Some(url.to_owned()), ..options(&issuer) };
        options.provider().expect_err(url);
    }
}
