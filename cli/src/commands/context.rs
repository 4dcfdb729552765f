//! `context`: choose between saved servers.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    authority::Authority,
    context::Context,
    error::{Exit, Failure},
    output::{Cell, Column, Document, Resource, Tone},
    session::Session,
};

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List saved servers
    List(List),
    /// Make a saved server the current one
    Use(Use),
    /// Show which server is in use, without its token
    Show(Show),
}

/// Arguments of `context list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl context list\n  otactl context list -o name")]
pub struct List {}

/// Arguments of `context use`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl context use lab")]
pub struct Use {
    /// The context
    #[arg(value_name = "NAME")]
    name: String,
}

/// Arguments of `context show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl context show\n  otactl context show --context lab -o json")]
pub struct Show {}

impl ContextCommand {
    /// Does it.
    pub fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::List(_) => list(session),
            Self::Use(command) => choose(session, &command.name),
            Self::Show(_) => show(session),
        }
    }
}

fn list(session: &mut Session) -> Result<(), Failure> {
    let contexts = session.contexts()?;
    let chosen = session.options().context.as_ref().or(contexts.current.as_ref());
    let views: Vec<_> =
        contexts.contexts.iter().map(|(name, context)| View::new(name, context, Some(name) == chosen)).collect();
    if views.is_empty() {
        session.messages.say("no contexts; log in with `otactl login URL`");
    }
    session.printer.list(&views)
}

fn choose(session: &mut Session, name: &str) -> Result<(), Failure> {
    let mut contexts = session.contexts()?;
    if !contexts.contexts.contains_key(name) {
        return Err(contexts.unknown(name));
    }
    contexts.current = Some(name.to_owned());
    contexts.save(&session.contexts_path()?)?;
    session.messages.say(&format!("using context {name}"));
    Ok(())
}

fn show(session: &mut Session) -> Result<(), Failure> {
    let contexts = session.contexts()?;
    let Some((name, context)) = contexts.chosen(session.options().context.as_deref())? else {
        return Err(Failure::new(Exit::NotAuthenticated, "no context is in use")
            .hint("log in with `otactl login URL`, or choose one with `otactl context use NAME`"));
    };
    session.printer.one(&View::new(name, context, contexts.current.as_deref() == Some(name)))
}

/// A context without its token.
struct View {
    name: String,
    server: String,
    current: bool,
    insecure: bool,
    authority: Option<Authority>,
}

impl View {
    fn new(name: &str, context: &Context, current: bool) -> Self {
        Self {
            name: name.to_owned(),
            server: context.server.to_string(),
            current,
            insecure: context.insecure,
            authority: context.certificate_authority.clone(),
        }
    }
}

impl Resource for View {
    const PLURAL: &'static str = "contexts";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::plain(json!({
            "name": self.name,
            "server": self.server,
            "current": self.current,
            "insecure": self.insecure,
            "certificateAuthority": self.authority.as_ref().map(|authority| json!({
                "pin": authority.pin().map(|pin| pin.to_string()),
                "checksHostName": !authority.is_built_in(),
            })),
        }))
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("NAME", |view, _| view.name.as_str().into()),
            Column::new("CURRENT", |view, _| if view.current { Cell::toned("yes", Tone::Good) } else { "no".into() }),
            Column::new("SERVER", |view, _| view.server.as_str().into()),
            Column::wide("ENCRYPTION", |view, _| match &view.authority {
                Some(authority) => Cell::toned(format!("TLS: {}", authority.describe()), Tone::Good),
                None => "none".into(),
            }),
            Column::wide(
                "INSECURE",
                |view, _| if view.insecure { Cell::toned("allowed", Tone::Busy) } else { "no".into() },
            ),
        ]
    }
}
