//! A small identity provider: discovery, keys that can be rotated, and the device authorization grant.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// Bytes before the PKCS #1 key in the PKCS #8 of any RSA key of 2048 bits.
const PKCS8_RSA_2048_HEADER: usize = 26;

/// How an issuer signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with 2048 bits, PKCS #1 v1.5.
    Rs256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// A key of an issuer.
#[derive(Clone)]
pub struct IssuerKey {
    id: String,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
    public_bytes: Vec<u8>,
}

impl std::fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl IssuerKey {
    /// Makes one.
    ///
    /// # Panics
    /// When there is no randomness.
    #[must_use]
    pub fn generate(id: &str, kind: KeyKind) -> Self {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match kind {
            KeyKind::Rs256 => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der().expect("a key in PKCS#8");
                let modulus = pair.public_key().modulus().big_endian_without_leading_zero();
                let exponent = pair.public_key().exponent().big_endian_without_leading_zero();
                let public = json!({
                    "kty": "RSA", "alg": "RS256", "use": "sig", "kid": id, "n": text(modulus), "e": text(exponent),
                });
                let private = EncodingKey::from_rsa_der(&pkcs8.as_ref()[PKCS8_RSA_2048_HEADER..]);
                Self { id: id.to_owned(), algorithm: Algorithm::RS256, private, public, public_bytes: modulus.to_vec() }
            }
            KeyKind::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
                let pkcs8 = pair.to_pkcs8v1().expect("a key in PKCS#8");
                let point = pair.public_key().as_ref();
                let public = json!({
                    "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id,
                    "x": text(&point[1..33]), "y": text(&point[33..]),
                });
                let (private, public_bytes) = (EncodingKey::from_ec_der(pkcs8.as_ref()), point.to_vec());
                Self { id: id.to_owned(), algorithm: Algorithm::ES256, private, public, public_bytes }
            }
            KeyKind::EdDsa => {
                let pair = Ed25519KeyPair::generate().expect("a key");
                let pkcs8 = pair.to_pkcs8v1().expect("a key in PKCS#8");
                let point = pair.public_key().as_ref();
                let public = json!({
                    "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": id, "x": text(point),
                });
                let (private, public_bytes) = (EncodingKey::from_ed_der(pkcs8.as_ref()), point.to_vec());
                Self { id: id.to_owned(), algorithm: Algorithm::EdDSA, private, public, public_bytes }
            }
        }
    }

    /// Returns what everybody knows of it.
    #[must_use]
    pub fn public_bytes(&self) -> &[u8] {
        &self.public_bytes
    }

    /// Signs claims.
    ///
    /// # Panics
    /// When the key cannot sign.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.private).expect("a signed token")
    }
}

#[derive(Debug, Default)]
struct Inner {
    issuer: String,
    keys: Vec<IssuerKey>,
    /// What `/keys` was asked so far.
    fetches: usize,
    /// Whether it answers nothing of use.
    failing: bool,
    /// What the person did at the page.
    decision: Option<Decision>,
    /// How often `/token` was asked before that.
    polls: usize,
    /// How often a login was renewed.
    renewals: usize,
}

#[derive(Debug, Clone)]
enum Decision {
    Approved(Value),
    Denied,
}

type Shared = Arc<Mutex<Inner>>;

fn lock(inner: &Shared) -> std::sync::MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running identity provider. Dropping it ends it.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    inner: Shared,
    serving: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Issuer {
    /// Starts one with these keys.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub async fn start(keys: Vec<IssuerKey>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let issuer = format!("http://{address}/realms/ota");
        let inner = Shared::new(Mutex::new(Inner { issuer, keys, ..Inner::default() }));
        let router = Router::new()
            .route("/realms/ota/.well-known/openid-configuration", get(discovery))
            .route("/realms/ota/keys", get(keys_document))
            .route("/realms/ota/device", post(invite))
            .route("/realms/ota/token", post(token))
            .with_state(Arc::clone(&inner));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.ok();
        });
        Self { address, inner, serving }
    }

    /// Returns its URL, as its tokens have it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/realms/ota", self.address)
    }

    /// Takes these keys instead of those it has.
    pub fn rotate(&self, keys: Vec<IssuerKey>) {
        lock(&self.inner).keys = keys;
    }

    /// Answers nothing of use from here on.
    pub fn fail(&self) {
        lock(&self.inner).failing = true;
    }

    /// Types the code at its page, as somebody about whom it says this. It says the same at every renewal until then.
    pub fn approve(&self, claims: Value) {
        lock(&self.inner).decision = Some(Decision::Approved(claims));
    }

    /// Refuses at its page.
    pub fn deny(&self) {
        lock(&self.inner).decision = Some(Decision::Denied);
    }

    /// Returns how often somebody asked for tokens while nobody had come to its page, and forgets who came.
    pub fn forget(&self) -> usize {
        let mut inner = lock(&self.inner);
        inner.decision = None;
        std::mem::take(&mut inner.polls)
    }

    /// Returns how often somebody has asked for tokens while nobody had come to its page.
    #[must_use]
    pub fn polls(&self) -> usize {
        lock(&self.inner).polls
    }

    /// Returns how often a login was renewed.
    #[must_use]
    pub fn renewals(&self) -> usize {
        lock(&self.inner).renewals
    }

    /// Returns how often it was asked for its keys.
    #[must_use]
    pub fn fetches(&self) -> usize {
        lock(&self.inner).fetches
    }
}

async fn discovery(State(inner): State<Shared>) -> Result<Json<Value>, StatusCode> {
    let inner = lock(&inner);
    if inner.failing {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    Ok(Json(json!({
        "issuer": inner.issuer,
        "jwks_uri": format!("{}/keys", inner.issuer),
        "device_authorization_endpoint": format!("{}/device", inner.issuer),
        "token_endpoint": format!("{}/token", inner.issuer),
    })))
}

/// RFC 8628, section 3.2.
async fn invite(State(inner): State<Shared>) -> Json<Value> {
    let page = format!("{}/page", lock(&inner).issuer);
    Json(json!({
        "device_code": "a-device-code", "user_code": "WDJB-MJHT", "verification_uri": page, "expires_in": 600, "interval": 1,
    }))
}

/// RFC 8628, section 3.5, and RFC 6749, section 6.
async fn token(State(inner): State<Shared>, form: String) -> (StatusCode, Json<Value>) {
    let mut inner = lock(&inner);
    let refused = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
    let has = |pair: &str| form.split('&').any(|part| part == pair);
    let is_renewal = has("grant_type=refresh_token");
    if !has("client_id=otactl") || !(has("device_code=a-device-code") || has("refresh_token=a-refresh-token")) {
        return refused("invalid_grant");
    }
    match inner.decision.clone() {
        None => {
            inner.polls += 1;
            refused("authorization_pending")
        }
        Some(Decision::Denied) => refused("access_denied"),
        Some(Decision::Approved(claims)) => {
            inner.renewals += usize::from(is_renewal);
            let id_token = inner.keys.first().expect("an issuer has a key").sign(&claims);
            let answer = json!({ "id_token": id_token, "refresh_token": "a-refresh-token", "token_type": "Bearer" });
            (StatusCode::OK, Json(answer))
        }
    }
}

async fn keys_document(State(inner): State<Shared>) -> Json<Value> {
    let mut inner = lock(&inner);
    inner.fetches += 1;
    Json(json!({ "keys": inner.keys.iter().map(|key| key.public.clone()).collect::<Vec<_>>() }))
}
