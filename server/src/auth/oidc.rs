//! Operators that an identity provider vouches for (OpenID Connect Core 1.0).
//!
//! They log in there and show the token they got. It is checked here with the provider's public keys, which are fetched
//! once and kept: a call costs one signature check and no request to anybody.

mod settings;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{
        AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, Jwk, JwkSet, OctetKeyPairParameters,
        PublicKeyUse,
    },
};
use ota_domain::Scope;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Identity, Principal};
use crate::app::{Dependency, Error, Reason, Result};

pub use settings::{Options, ParseRoleMappingError, RoleMapping, RoleMappings, Settings};

/// How far clocks may disagree.
const LEEWAY: TimeDelta = TimeDelta::seconds(60);
/// How often the keys are fetched without need, so that one which was taken away is not believed for ever.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3600);
/// How soon after an attempt to fetch the keys another one may follow, whoever shows whatever key id.
const REFRESH_PAUSE: TimeDelta = TimeDelta::seconds(10);
/// How long the provider may take to answer, and how much.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Longest token looked at. Providers that list hundreds of groups come near to half of it.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest subject (OpenID Connect Core 1.0 §2).
const MAX_SUBJECT_BYTES: usize = 255;
/// Longest name that the event log shows.
const MAX_DISPLAY_NAME: usize = 128;

/// The provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Some of the settings are there, and one that they need is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The issuer is no URL, or one that anybody on the way could answer for.
    #[error("the issuer {0} must be an https URL (http only on this machine)")]
    Issuer(String),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    /// The provider does not answer as it should.
    #[error("{0} does not answer as it should")]
    Fetch(Url, #[source] reqwest::Error),
    /// The answer is too long or no such document.
    #[error("{0} sent {1}")]
    Answer(Url, String),
}

impl ProviderError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing(_) => Some(
                "an identity provider needs --oidc-issuer, --oidc-client-id and at least one --oidc-role, such as ota-admins=admin",
            ),
            Self::Issuer(_) => {
                Some("write the issuer as the provider's tokens have it, such as https://id.example/realms/ota")
            }
            Self::Client(_) => {
                Some("it needs the system's certificate authorities; the package is often ca-certificates")
            }
            Self::Fetch(..) | Self::Answer(..) => None,
        }
    }
}

/// The part of the discovery document that matters here (OpenID Connect Discovery 1.0 §3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: Url,
}

/// A key of the provider, and the one algorithm that it is for.
struct Key {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// An attempt to fetch the keys.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: DateTime<Utc>,
    answered: bool,
}

/// An identity provider that the server was told to trust.
pub struct Provider {
    settings: Settings,
    issuer: Url,
    client: reqwest::Client,
    keys: RwLock<Arc<[Key]>>,
    /// How the keys were last asked for. Held while they are being asked for.
    asked: Mutex<Option<Asked>>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Provider {
    /// Trusts this provider. Nothing is fetched yet.
    ///
    /// # Errors
    /// When the issuer is not one that can be trusted.
    pub fn new(settings: Settings) -> std::result::Result<Self, ProviderError> {
        let bad = || ProviderError::Issuer(settings.issuer.clone());
        let issuer: Url = settings.issuer.parse().map_err(|_| bad())?;
        if !is_safe(&issuer) {
            return Err(bad());
        }
        // It refuses only when there is one already.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ProviderError::Client)?;
        Ok(Self { settings, issuer, client, keys: RwLock::new(Arc::new([])), asked: Mutex::new(None) })
    }

    /// Where people log in.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Keeps the keys fresh until `stop`. A provider that does not answer keeps nobody waiting: the keys that are there
    /// stay.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.refresh(Utc::now())).await {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, source, "the identity provider's keys could not be fetched");
            }
        }
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// `CREDENTIAL_INVALID` for a token that is not one of the provider's for this server at `now`; `ROLE_INSUFFICIENT` for
    /// somebody who has no role here; `IDENTITY_PROVIDER_UNAVAILABLE` when the key is not known and the provider does not
    /// answer.
    pub async fn authenticate(&self, token: &str, now: DateTime<Utc>) -> Result<Principal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid());
        }
        let header = decode_header(token).map_err(|_| invalid())?;
        let id = header.kid.ok_or_else(invalid)?;
        let mut keys = self.keys();
        if !keys.iter().any(|key| key.id == id) {
            self.refresh_for_unknown(now).await?;
            keys = self.keys();
        }
        let key = keys.iter().find(|key| key.id == id).ok_or_else(invalid)?;
        let claims = self.check(token, key, now).ok_or_else(invalid)?;
        self.principal(&claims)
    }

    /// The claims of a token that this key signed, when it is for this server and of this time.
    fn check(&self, token: &str, key: &Key, now: DateTime<Utc>) -> Option<Map<String, Value>> {
        // The key says how it signs, never the token.
        let mut validation = Validation::new(key.algorithm);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Times are checked here: the library would ask the clock itself.
        validation.validate_exp = false;
        let claims = decode::<Map<String, Value>>(token, &key.key, &validation).ok()?.claims;
        // The library also takes a list with the issuer in it.
        claims.get("iss").and_then(Value::as_str).filter(|issuer| *issuer == self.settings.issuer)?;
        let expires_at = time(claims.get("exp"))?;
        let begins_at = match claims.get("nbf") {
            Some(begin) => time(Some(begin))?,
            None => DateTime::UNIX_EPOCH,
        };
        (now < expires_at + LEEWAY && begins_at - LEEWAY <= now).then_some(claims)
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str).filter(|text| !text.is_empty());
        let subject = text("sub").filter(|text| is_plain(text, MAX_SUBJECT_BYTES)).ok_or_else(invalid)?;
        let expires_at = time(claims.get("exp")).ok_or_else(invalid)? + LEEWAY;
        let held: Vec<&str> = match claims.get(&self.settings.role_claim) {
            Some(Value::String(value)) => vec![value.as_str()],
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
        };
        let mapping = self.settings.roles.iter().find(|mapping| held.contains(&mapping.value.as_str()));
        let role = mapping.map(|mapping| mapping.role).ok_or_else(|| {
            Error::refused(
                Reason::RoleInsufficient,
                "the identity provider gives you no role here; ask an admin for one",
            )
        })?;
        let name = ["name", "preferred_username", "email"].into_iter().find_map(text);
        let display_name = name.filter(|name| is_plain(name, MAX_DISPLAY_NAME)).unwrap_or(subject).to_owned();
        let identity = Identity::User { subject: subject.to_owned(), expires_at };
        Ok(Principal::Operator { identity, display_name, role, scope: Scope::default() })
    }

    fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches the keys for a key id that is not known, unless that was tried just now: anybody can make up key ids.
    async fn refresh_for_unknown(&self, now: DateTime<Utc>) -> Result<()> {
        // Who comes while another one fetches waits for that one's keys.
        let mut asked = self.asked.lock().await;
        let unavailable = |source| Error::Unavailable { dependency: Dependency::IdentityProvider, source };
        match *asked {
            Some(Asked { at, answered }) if (now - at).abs() < REFRESH_PAUSE => {
                if answered {
                    Ok(())
                } else {
                    Err(unavailable("it did not answer a moment ago".into()))
                }
            }
            Some(_) | None => self.ask(&mut asked, now).await.map_err(|error| unavailable(error.into())),
        }
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// When the provider does not answer as it should. The keys that are there stay.
    pub async fn refresh(&self, now: DateTime<Utc>) -> std::result::Result<(), ProviderError> {
        self.ask(&mut *self.asked.lock().await, now).await
    }

    async fn ask(&self, asked: &mut Option<Asked>, now: DateTime<Utc>) -> std::result::Result<(), ProviderError> {
        *asked = Some(Asked { at: now, answered: false });
        let keys = self.fetch().await?;
        tracing::info!(issuer = %self.issuer, keys = keys.len(), "fetched the identity provider's keys");
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
        *asked = Some(Asked { at: now, answered: true });
        Ok(())
    }

    async fn fetch(&self) -> std::result::Result<Vec<Key>, ProviderError> {
        let mut url = self.issuer.clone();
        url.set_path(&format!("{}/.well-known/openid-configuration", self.issuer.path().trim_end_matches('/')));
        let discovery: Discovery = self.get(&url).await?;
        if discovery.issuer != self.settings.issuer {
            return Err(ProviderError::Answer(url, format!("a document of another issuer, {}", discovery.issuer)));
        }
        if !is_safe(&discovery.jwks_uri) {
            return Err(ProviderError::Answer(url, format!("keys at {}, which is not https", discovery.jwks_uri)));
        }
        let set: JwkSet = self.get(&discovery.jwks_uri).await?;
        Ok(set.keys.iter().filter_map(key).collect())
    }

    async fn get<T: DeserializeOwned>(&self, url: &Url) -> std::result::Result<T, ProviderError> {
        let failed = |error| ProviderError::Fetch(url.clone(), error);
        let mut answer =
            self.client.get(url.clone()).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(ProviderError::Answer(url.clone(), "too much".to_owned()));
            }
            body.extend_from_slice(&piece);
        }
        serde_json::from_slice(&body)
            .map_err(|error| ProviderError::Answer(url.clone(), format!("no such document: {error}")))
    }
}

/// A key for signatures, of a kind that is trusted here; `None` for any other. Never one that is itself a secret.
fn key(jwk: &Jwk) -> Option<Key> {
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
    let algorithm = if let AlgorithmParameters::RSA(_) = &jwk.algorithm {
        Algorithm::RS256
    } else if let AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
        curve: EllipticCurve::P256, ..
    }) = &jwk.algorithm
    {
        Algorithm::ES256
    } else if let AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters { curve: EllipticCurve::Ed25519, .. }) =
        &jwk.algorithm
    {
        Algorithm::EdDSA
    } else {
        return None;
    };
    let id = jwk.common.key_id.clone()?;
    // One that says it is for another algorithm is not for this one.
    let says = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
    let fits = says.is_none_or(|says| says == format!("{algorithm:?}"));
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs && fits)?;
    Some(Key { id, algorithm, key })
}

/// Whether nobody on the way can answer for it.
fn is_safe(url: &Url) -> bool {
    match url.scheme() {
        "https" => url.has_host(),
        "http" => match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        },
        _ => false,
    }
}

/// A NumericDate (RFC 7519 §2). Some providers write fractions.
fn time(value: Option<&Value>) -> Option<DateTime<Utc>> {
    let number = value?;
    let seconds = number.as_i64().or_else(|| {
        let seconds = number.as_f64().filter(|seconds| seconds.is_finite() && seconds.abs() < 1e15)?;
        format!("{:.0}", seconds.floor()).parse().ok()
    })?;
    // Room for the leeway on either side.
    DateTime::from_timestamp(seconds, 0).filter(|time| (1970..9999).contains(&chrono::Datelike::year(time)))
}

fn is_plain(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

/// The same for everything that is wrong with a token.
fn invalid() -> Error {
    Error::refused(Reason::CredentialInvalid, "the credential is not known here, has expired or was revoked")
}
