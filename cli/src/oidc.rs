//! Logs a person in at an identity provider, by the device authorization grant (RFC 8628): the person opens a page on
//! any device and types a code, while this program asks for the result.
//!
//! What goes to the server is the ID token (OpenID Connect Core 1.0, section 2), whose audience is the client id that the
//! server named. A refresh token, when the provider gives one, is kept, so that the person need not come back every hour.

use std::{fmt, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use http::Uri;
use serde::{Deserialize, Serialize};

use crate::{
    credential::Token,
    error::{Exit, Failure},
    server_url::is_loopback,
};

/// The grant's name (RFC 8628, section 3.4).
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How often to ask unless the provider says otherwise (RFC 8628, section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);

/// How long one answer of the provider may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A token is renewed when it is good for less than this.
const RENEW_BEFORE: TimeDelta = TimeDelta::seconds(60);

/// Most bytes of an answer. Tokens with many claims have a few kilobytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// A login that can renew itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Where people log in.
    pub issuer: String,
    /// As whom this program asks.
    pub client_id: String,
    /// When the token in use runs out.
    pub expires: DateTime<Utc>,
    /// What gets the next one. Absent when the provider gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("issuer", &self.issuer).field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Login {
    /// Tells whether the token in use has to be renewed before it is shown.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.expires - now < RENEW_BEFORE
    }
}

/// The provider's description of itself, as far as it is needed (OpenID Connect Discovery 1.0).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
}

/// What the person has to do (RFC 8628, section 3.2).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Invitation {
    device_code: String,
    /// The code to type.
    pub user_code: String,
    /// Where to type it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// An answer of the token endpoint: tokens, or why there are none.
#[derive(Debug, Default, Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    refresh_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What an answer of the token endpoint means.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Ask again.
    Pending,
    /// Ask again, and less often.
    SlowDown,
    /// The tokens.
    Done { id_token: String, refresh_token: Option<String> },
    /// It ends without tokens, for this reason.
    Refused(String),
}

impl From<TokenAnswer> for Step {
    fn from(answer: TokenAnswer) -> Self {
        match (answer.error.as_deref(), answer.id_token) {
            (None, Some(id_token)) => Self::Done { id_token, refresh_token: answer.refresh_token },
            (None, None) => {
                Self::Refused("it gave no ID token; is the scope openid among those it was asked for?".to_owned())
            }
            (Some("authorization_pending"), _) => Self::Pending,
            (Some("slow_down"), _) => Self::SlowDown,
            (Some("access_denied"), _) => Self::Refused("the request was denied there".to_owned()),
            (Some("expired_token"), _) => Self::Refused("the code ran out before it was typed".to_owned()),
            (Some("invalid_grant"), _) => Self::Refused("the login has ended there".to_owned()),
            (Some(other), _) => Self::Refused(answer.error_description.unwrap_or_else(|| other.to_owned())),
        }
    }
}

/// An identity provider.
#[derive(Debug)]
pub struct Provider {
    http: reqwest::Client,
    metadata: Metadata,
    client_id: String,
}

impl Provider {
    /// Reads where the provider's endpoints are.
    pub async fn discover(issuer: &str, client_id: &str) -> Result<Self, Failure> {
        safe(issuer)?;
        // The library under the client looks for it; another one may have been there first, which is the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // A redirect could lead a secret to another host, or out of encryption.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("otactl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unreachable(issuer, &error))?;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let answer = http.get(&url).send().await.map_err(|error| unreachable(issuer, &error))?;
        let metadata: Metadata = read(answer, issuer).await?;
        if metadata.issuer != issuer {
            return Err(Failure::failed(format!(
                "the identity provider at {issuer} says that it is {}",
                metadata.issuer
            )));
        }
        safe(&metadata.token_endpoint)?;
        metadata.device_authorization_endpoint.as_deref().map_or(Ok(()), safe)?;
        Ok(Self { http, metadata, client_id: client_id.to_owned() })
    }

    /// Begins a login.
    pub async fn invite(&self, scopes: &[String]) -> Result<Invitation, Failure> {
        let endpoint = self.metadata.device_authorization_endpoint.as_deref().ok_or_else(|| {
            Failure::failed(format!("{} does not offer logins from programs like this one", self.metadata.issuer))
                .hint("it has to support the device authorization grant (RFC 8628) for this client")
        })?;
        let scope = scopes.join(" ");
        let answer = self.post(endpoint, &[("client_id", self.client_id.as_str()), ("scope", &scope)]).await?;
        if !answer.status().is_success() {
            let refused: TokenAnswer = read(answer, &self.metadata.issuer).await?;
            let reason = refused.error_description.or(refused.error).unwrap_or_else(|| "it gives no reason".to_owned());
            return Err(Failure::failed(format!("{} refuses to begin a login: {reason}", self.metadata.issuer)));
        }
        read(answer, &self.metadata.issuer).await
    }

    /// Asks until the person is done.
    pub async fn wait(&self, invitation: &Invitation) -> Result<(Token, Login), Failure> {
        let mut interval = invitation.interval.map_or(INTERVAL, |seconds| Duration::from_secs(seconds.max(1)));
        let end = tokio::time::Instant::now() + Duration::from_secs(invitation.expires_in);
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(interval).await;
            let form = [
                ("grant_type", DEVICE_GRANT),
                ("device_code", &invitation.device_code),
                ("client_id", &self.client_id),
            ];
            match self.step(&form).await? {
                Step::Pending => {}
                Step::SlowDown => interval += INTERVAL,
                Step::Done { id_token, refresh_token } => return self.login(&id_token, refresh_token),
                Step::Refused(reason) => return Err(self.refused(&reason)),
            }
        }
        Err(self.refused("the code ran out before it was typed"))
    }

    /// Gets the next token for a login.
    pub async fn renew(&self, login: &Login) -> Result<(Token, Login), Failure> {
        let refresh_token =
            login.refresh_token.as_deref().ok_or_else(|| self.refused("it gave nothing to renew with"))?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("client_id", &self.client_id)];
        match self.step(&form).await? {
            Step::Done { id_token, refresh_token: next } => {
                self.login(&id_token, next.or_else(|| login.refresh_token.clone()))
            }
            Step::Pending | Step::SlowDown => Err(self.refused("it is not ready")),
            Step::Refused(reason) => Err(self.refused(&reason)),
        }
    }

    fn login(&self, id_token: &str, refresh_token: Option<String>) -> Result<(Token, Login), Failure> {
        let expires = expiry(id_token).ok_or_else(|| self.refused("its ID token cannot be read"))?;
        let (issuer, client_id) = (self.metadata.issuer.clone(), self.client_id.clone());
        Ok((Token::parse(id_token)?, Login { issuer, client_id, expires, refresh_token }))
    }

    async fn step(&self, form: &[(&str, &str)]) -> Result<Step, Failure> {
        let answer = self.post(&self.metadata.token_endpoint, form).await?;
        // Reasons come with the status 400 (RFC 6749, section 5.2).
        Ok(read::<TokenAnswer>(answer, &self.metadata.issuer).await?.into())
    }

    async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> Result<reqwest::Response, Failure> {
        let sent = self.http.post(endpoint).form(form).send().await;
        sent.map_err(|error| unreachable(&self.metadata.issuer, &error))
    }

    fn refused(&self, reason: &str) -> Failure {
        Failure::new(Exit::NotAuthenticated, format!("not logged in at {}: {reason}", self.metadata.issuer))
            .hint("try again with `otactl login URL --oidc`")
    }
}

/// Reads when an ID token runs out. Nothing is decided by it but when to get the next: the server checks the signature.
fn expiry(id_token: &str) -> Option<DateTime<Utc>> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let mut parts = id_token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    DateTime::from_timestamp(claims.exp, 0)
}

/// Refuses an address to which a secret would travel in the clear.
fn safe(address: &str) -> Result<(), Failure> {
    let uri: Option<Uri> = address.parse().ok();
    let fits = uri.as_ref().is_some_and(|uri| match uri.scheme_str() {
        Some("https") => true,
        Some("http") => uri.host().is_some_and(is_loopback),
        Some(_) | None => false,
    });
    if fits {
        return Ok(());
    }
    Err(Failure::failed(format!("the identity provider has the address {address:?}, which is not encrypted"))
        .hint("the server names it; it has to begin with https://"))
}

fn unreachable(issuer: &str, error: &reqwest::Error) -> Failure {
    Failure::because(format!("cannot reach the identity provider {issuer}"), error)
}

async fn read<T: for<'a> Deserialize<'a>>(mut answer: reqwest::Response, issuer: &str) -> Result<T, Failure> {
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(issuer, &error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            return Err(Failure::failed(format!("the identity provider {issuer} answers without an end")));
        }
    }
    serde_json::from_slice(&body).map_err(|_| {
        Failure::failed(format!("the identity provider {issuer} answers with {status} and not as it should"))
    })
}

#[cfg(test)]
mod tests;
