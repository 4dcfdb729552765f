//! `token`: the API tokens of people and programs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use ota_domain::PackageName;
use ota_proto::admin::v1::{
    ApiToken, CreateApiTokenRequest, ListApiTokensRequest, RevokeApiTokenRequest, Role as WireRole, Scope,
};

use crate::{
    client::Client,
    commands::assign::parse_selector,
    error::{Failure, promised},
    listing::{self, ListOptions, Page, PageRequest},
    output::{Cell, Column, Document, Resource, Tone},
    reference::{IdRef, short},
    session::Session,
    time,
};

/// Collection of API tokens in resource names.
const COLLECTION: &str = "apiTokens";

/// What to do with API tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and write its secret to standard output, once
    Create(Create),
    /// List tokens, newest first
    List(List),
    /// End a token's use at once
    Revoke(Revoke),
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
#[command(after_help = "\
The secret is the only thing on standard output, so that scripts can keep it. It cannot be shown again.

With --devices, the token sees, and acts on, the devices whose labels match, and no others; with --packages, it publishes \
and assigns packages whose names begin so. An admin's token cannot be limited.

Examples:
  otactl token create 'build server' --role publisher --expires-in 90d > ci.token
  otactl token create kim --role deployer
  otactl token create 'lab robot' --role deployer --devices 'site=lab' --packages gateway-")]
pub struct Create {
    /// Who or what will use it; the event log shows it
    #[arg(value_name = "NAME")]
    display_name: String,
    /// What it may do: viewer, publisher, deployer or admin
    #[arg(long, value_enum, hide_possible_values = true)]
    role: Role,
    /// How long it works, for example 90d [default: until it is revoked]
    #[arg(long, value_name = "SPAN", value_parser = time::parse_span)]
    expires_in: Option<Duration>,
    /// Only for devices whose labels match
    #[arg(long, value_name = "SELECTOR", value_parser = parse_selector)]
    devices: Option<String>,
    /// Only for packages whose names begin so
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    packages: Option<String>,
}

/// Checks a prefix where it is typed: one that no package's name can begin with would allow nothing.
fn parse_prefix(text: &str) -> Result<String, String> {
    // A name may end otherwise than a prefix may: with a letter or digit behind it, the prefix has to be one.
    match format!("{text}0").parse::<PackageName>() {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err("no package's name begins so; names are of a-z, 0-9, '.', '_' and '-'".to_owned()),
    }
}

/// Arguments of `token list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl token list")]
pub struct List {
    #[command(flatten)]
    list: ListOptions,
}

/// Arguments of `token revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl token revoke 4f21a0c3")]
pub struct Revoke {
    /// The tokens' ids, or their beginnings or ends
    #[arg(value_name = "TOKEN-ID", required = true)]
    ids: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Read everything but secrets
    Viewer,
    /// Also upload payloads and publish releases
    Publisher,
    /// Also assign releases and look after devices
    Deployer,
    /// Everything
    Admin,
}

impl From<Role> for WireRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Publisher => Self::Publisher,
            Role::Deployer => Self::Deployer,
            Role::Admin => Self::Admin,
        }
    }
}

impl TokenCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        match self {
            Self::Create(command) => create(session, &client, command).await,
            Self::List(command) => {
                let fetch = async |page| list(&client, page).await;
                listing::show(session, &command.list, fetch).await
            }
            Self::Revoke(command) => {
                for id in &command.ids {
                    let token = find(&client, id).await?;
                    session.asker.confirm(&format!("Revoke the token of {}?", token.display_name), command.yes)?;
                    let request = RevokeApiTokenRequest { name: token.name };
                    let token = client.access().revoke_api_token(request).await?.into_inner().api_token;
                    session.printer.done(&promised(token)?, "revoked")?;
                }
                Ok(())
            }
        }
    }
}

async fn create(session: &mut Session, client: &Client, command: Create) -> Result<(), Failure> {
    let is_limited = command.devices.is_some() || command.packages.is_some();
    if is_limited && command.role == Role::Admin {
        return Err(Failure::usage("an admin's token cannot be limited")
            .hint("leave out --devices and --packages, or choose another role"));
    }
    let scope = is_limited.then(|| Scope {
        device_selector: command.devices.unwrap_or_default(),
        package_prefix: command.packages.unwrap_or_default(),
    });
    let token = ApiToken {
        display_name: command.display_name,
        role: WireRole::from(command.role).into(),
        expire_time: command.expires_in.map(|span| time::timestamp(session.now() + span)),
        scope: scope.clone(),
        ..ApiToken::default()
    };
    let request = CreateApiTokenRequest { api_token: Some(token) };
    let answer = client.access().create_api_token(request).await?.into_inner();
    let token = promised(answer.api_token.clone())?;
    if token.scope != scope {
        // An older server ignores what it does not know, and would have made a token without limits.
        client.access().revoke_api_token(RevokeApiTokenRequest { name: token.name }).await?;
        return Err(
            Failure::failed("this server cannot limit tokens; the one it made is revoked").hint("update the server")
        );
    }
    session.messages.say(&format!(
        "token {} for {}; its secret is shown this once:",
        short(&token.name),
        token.display_name
    ));
    let document = Document::new("ota.admin.v1.CreateApiTokenResponse", &answer);
    session.printer.secret(&answer.secret, &document, &token.name)
}

async fn list(client: &Client, page: PageRequest) -> Result<Page<ApiToken>, tonic::Status> {
    let request = ListApiTokensRequest { page_size: page.size, page_token: page.token };
    let answer = client.access().list_api_tokens(request).await?.into_inner();
    Ok(Page { items: answer.api_tokens, next: answer.next_page_token })
}

/// Finds a token with what there is to say about it: the question before its end names its user.
async fn find(client: &Client, text: &str) -> Result<ApiToken, Failure> {
    let id = IdRef::parse(COLLECTION, text)?;
    let listed = listing::fetch_all(None, async |page| list(client, page).await).await?;
    let name = id.pick(COLLECTION, listed.iter().map(|token| token.name.as_str()))?;
    let known = listed.into_iter().find(|token| token.name == name);
    // Of one that is not there the server knows what to say.
    Ok(known.unwrap_or_else(|| ApiToken { display_name: short(&name).to_owned(), name, ..ApiToken::default() }))
}

impl Resource for ApiToken {
    const PLURAL: &'static str = "apiTokens";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.ApiToken", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("TOKEN-ID", |token, _| short(&token.name).into()),
            Column::new("NAME", |token, _| token.display_name.as_str().into()),
            Column::new("ROLE", |token, _| role_word(token.role).into()),
            Column::new("LIMITED TO", |token, _| scope_words(token.scope.as_ref()).into()),
            Column::new("STATE", state),
            Column::age("EXPIRES", |token, now| time::until(token.expire_time.as_ref(), now).into()),
            Column::age("LAST USE", |token, now| time::age(token.last_use_time.as_ref(), now).into()),
            Column::age("AGE", |token, now| time::age(token.create_time.as_ref(), now).into()),
        ]
    }
}

fn state(token: &ApiToken, now: DateTime<Utc>) -> Cell {
    if token.revoke_time.is_some() {
        return Cell::toned("revoked", Tone::Bad);
    }
    match token.expire_time.as_ref().and_then(time::moment) {
        Some(end) if end <= now => Cell::toned("expired", Tone::Faint),
        Some(_) | None => Cell::toned("active", Tone::Good),
    }
}

/// Says what a role is limited to. `-` when it is not.
pub fn scope_words(scope: Option<&Scope>) -> String {
    let Some(scope) = scope else { return "-".to_owned() };
    let part = |title: &str, value: &str| (!value.is_empty()).then(|| format!("{title} {value}"));
    let parts = [part("devices", &scope.device_selector), part("packages", &scope.package_prefix)];
    let words: Vec<_> = parts.into_iter().flatten().collect();
    if words.is_empty() { "-".to_owned() } else { words.join("; ") }
}

/// Names a role of the API.
pub fn role_word(role: i32) -> &'static str {
    match WireRole::try_from(role) {
        Ok(WireRole::Viewer) => "viewer",
        Ok(WireRole::Publisher) => "publisher",
        Ok(WireRole::Deployer) => "deployer",
        Ok(WireRole::Admin) => "admin",
        Ok(WireRole::Unspecified) | Err(_) => "unknown role",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_said_in_words() {
        let scope = |devices: &str, packages: &str| Scope {
            device_selector: devices.to_owned(),
            package_prefix: packages.to_owned(),
        };
        assert_eq!(scope_words(None), "-");
        assert_eq!(scope_words(Some(&scope("", ""))), "-");
        assert_eq!(scope_words(Some(&scope("site=lab", "gw-"))), "devices site=lab; packages gw-");
    }

    #[test]
    fn a_prefix_that_fits_no_package_is_refused() {
        assert_eq!(parse_prefix("gateway-"), Ok("gateway-".to_owned()));
        for wrong in ["", "-x", "Gate", "a/b"] {
            assert!(parse_prefix(wrong).is_err(), "{wrong}");
        }
    }
}
