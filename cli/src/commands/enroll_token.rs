//! `enroll-token`: the strings with which machines join the fleet.

use std::time::Duration;

use clap::{Args, Subcommand};
use ota_domain::Hardware;
use ota_proto::admin::v1::{
    CreateEnrollTokenRequest, EnrollToken, EnrollTokenState, GetEnrollTokenRequest, ListEnrollTokensRequest,
    RevokeEnrollTokenRequest,
};

use crate::{
    client::Client,
    commands::device::pairs,
    error::{Failure, promised},
    label_edit::parse_label,
    listing::{self, ListOptions, Page, PageRequest},
    output::{Cell, Column, Document, Resource, Tone},
    reference::{IdRef, short},
    session::Session,
    text, time,
};

/// Collection of enrolment tokens in resource names.
const COLLECTION: &str = "enrollTokens";

/// What to do with enrolment tokens.
#[derive(Debug, Subcommand)]
pub enum EnrollTokenCommand {
    /// Create a token and write its enrolment string to standard output, once
    Create(Create),
    /// List tokens, newest first
    List(List),
    /// Show a token
    Get(One),
    /// End a token's use; devices that enrolled with it stay
    Revoke(Several),
}

/// Arguments of `enroll-token create`.
#[derive(Debug, Args)]
#[command(after_help = "\
The enrolment string is the only thing on standard output, so that scripts can keep it. It cannot be shown again.

Examples:
  otactl enroll-token create
  otactl enroll-token create --uses 500 --expires-in 30d --approval --hardware rpi4 --label site=plant-7 > plant-7.token")]
pub struct Create {
    /// How many devices may enrol with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    uses: i32,
    /// How long it works, for example 12h or 30d [default: 24h]
    #[arg(long, value_name = "SPAN", value_parser = time::parse_span)]
    expires_in: Option<Duration>,
    /// Its devices wait until somebody approves them
    #[arg(long)]
    approval: bool,
    /// Only for this hardware type; may be repeated
    #[arg(long, value_name = "HARDWARE")]
    hardware: Vec<Hardware>,
    /// Its devices start with this label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
}

/// Arguments of `enroll-token list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl enroll-token list\n  otactl enroll-token list -o json")]
pub struct List {
    #[command(flatten)]
    list: ListOptions,
}

/// Arguments of `enroll-token get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl enroll-token get 4f21a0c3")]
pub struct One {
    /// The token's id, or its beginning or end
    #[arg(value_name = "TOKEN-ID")]
    id: String,
}

/// Arguments of `enroll-token revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl enroll-token revoke 4f21a0c3")]
pub struct Several {
    /// The tokens' ids, or their beginnings or ends
    #[arg(value_name = "TOKEN-ID", required = true)]
    ids: Vec<String>,
}

impl EnrollTokenCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        match self {
            Self::Create(command) => create(session, &client, command).await,
            Self::List(command) => {
                let fetch = async |page| list(&client, page).await;
                listing::show(session, &command.list, fetch).await
            }
            Self::Get(command) => {
                let request = GetEnrollTokenRequest { name: resolve(&client, &command.id).await? };
                let token = client.enroll_tokens().get_enroll_token(request).await?.into_inner().enroll_token;
                session.printer.one(&promised(token)?)
            }
            Self::Revoke(command) => {
                for id in &command.ids {
                    let request = RevokeEnrollTokenRequest { name: resolve(&client, id).await? };
                    let token = client.enroll_tokens().revoke_enroll_token(request).await?.into_inner().enroll_token;
                    session.printer.done(&promised(token)?, "revoked")?;
                }
                Ok(())
            }
        }
    }
}

async fn create(session: &mut Session, client: &Client, command: Create) -> Result<(), Failure> {
    let expire_time = command.expires_in.map(|span| time::timestamp(session.now() + span));
    let token = EnrollToken {
        description: command.description,
        max_uses: command.uses,
        expire_time,
        approval_required: command.approval,
        hardware: command.hardware.iter().map(ToString::to_string).collect(),
        labels: command.labels.into_iter().collect(),
        ..EnrollToken::default()
    };
    let request = CreateEnrollTokenRequest { enroll_token: Some(token) };
    let answer = client.enroll_tokens().create_enroll_token(request).await?.into_inner();
    let token = promised(answer.enroll_token.clone())?;
    let expires = time::until(token.expire_time.as_ref(), session.now());
    let uses = text::count(i64::from(token.max_uses), "device");
    session
        .messages
        .say(&format!("token {} for {uses}, expires {expires}; its string is shown this once:", short(&token.name)));
    let document = Document::new("ota.admin.v1.CreateEnrollTokenResponse", &answer);
    session.printer.secret(&answer.enrollment_string, &document, &token.name)
}

async fn list(client: &Client, page: PageRequest) -> Result<Page<EnrollToken>, tonic::Status> {
    let request = ListEnrollTokensRequest { page_size: page.size, page_token: page.token };
    let answer = client.enroll_tokens().list_enroll_tokens(request).await?.into_inner();
    Ok(Page { items: answer.enroll_tokens, next: answer.next_page_token })
}

async fn resolve(client: &Client, text: &str) -> Result<String, Failure> {
    let id = IdRef::parse(COLLECTION, text)?;
    let listed = match id {
        IdRef::Full(_) => Vec::new(),
        IdRef::Partial(_) => listing::fetch_all(None, async |page| list(client, page).await).await?,
    };
    id.pick(COLLECTION, listed.iter().map(|token| token.name.as_str()))
}

impl Resource for EnrollToken {
    const PLURAL: &'static str = "enrollTokens";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.EnrollToken", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("TOKEN-ID", |token, _| short(&token.name).into()),
            Column::new("STATE", |token, _| state(token.state())),
            Column::new("USES", |token, _| format!("{}/{}", token.uses, token.max_uses).into()),
            Column::age("EXPIRES", |token, now| time::until(token.expire_time.as_ref(), now).into()),
            Column::new("APPROVAL", |token, _| if token.approval_required { "needed" } else { "no" }.into()),
            Column::new("DESCRIPTION", |token, _| token.description.as_str().into()),
            Column::wide("HARDWARE", |token, _| hardware(token).into()),
            Column::wide("LABELS", |token, _| pairs(&token.labels).join(",").into()),
            Column::wide("CREATOR", |token, _| token.creator.as_str().into()),
            Column::wide_age("AGE", |token, now| time::age(token.create_time.as_ref(), now).into()),
        ]
    }
}

fn hardware(token: &EnrollToken) -> String {
    if token.hardware.is_empty() { "any".to_owned() } else { token.hardware.join(",") }
}

fn state(state: EnrollTokenState) -> Cell {
    match state {
        EnrollTokenState::Unspecified => "unknown".into(),
        EnrollTokenState::Active => Cell::toned("active", Tone::Good),
        EnrollTokenState::UsedUp => Cell::toned("used up", Tone::Faint),
        EnrollTokenState::Expired => Cell::toned("expired", Tone::Faint),
        EnrollTokenState::Revoked => Cell::toned("revoked", Tone::Bad),
    }
}
