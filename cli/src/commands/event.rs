//! `event`: what happened and who did it.

mod verify;

use std::time::Duration;

use clap::{Args, Subcommand};
use ota_proto::admin::v1::{Event, ListEventsRequest, WatchEventsRequest};

use crate::{
    client::Client,
    commands::{
        device::{self, pairs},
        rollout,
    },
    error::{Failure, is_transient},
    listing::{self, Page},
    output::{Column, Document, Resource, Widths},
    session::Session,
    time,
};

/// Events shown unless told otherwise. The log has no end.
const DEFAULT_LIMIT: u32 = 100;

/// Events shown before those that a watch follows, as `tail -f` does.
const WATCH_LIMIT: u32 = 10;

/// Wait before a broken watch goes on.
const RECONNECT_WAIT: Duration = Duration::from_secs(2);

/// What to do with events.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// List events, newest first; with --watch, the last ones and then each as it happens
    List(List),
    /// Check that nobody changed the event log since it was written
    Verify(verify::Verify),
}

/// Arguments of `event list`.
#[derive(Debug, Args)]
#[command(after_help = "\
A watch outlives a restart of the server, and shows each event once. With --cursor, it goes on behind an event seen \
before: with -o jsonl, every event carries its cursor.

Examples:
  otactl event list --device 4f21a0c3
  otactl event list --filter 'kind=release.published' --limit 20
  otactl event list --watch -o jsonl | jq --unbuffered .kind")]
pub struct List {
    /// Only what concerns this device
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only what concerns this rollout
    #[arg(long, value_name = "ROLLOUT")]
    rollout: Option<String>,
    /// Only events whose fields kind and actor match
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true, conflicts_with = "watch")]
    filter: String,
    /// Show at most this many past events [default: 100, with --watch 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Show each event as it happens, until Ctrl-C
    #[arg(short, long, visible_alias = "follow")]
    watch: bool,
    /// Begin behind the event with this cursor
    #[arg(long, value_name = "CURSOR", requires = "watch", conflicts_with = "limit")]
    cursor: Option<String>,
}

impl EventCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.run(session).await,
            Self::Verify(command) => command.run(session).await,
        }
    }
}

impl List {
    async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let mut scope = Scope { filter: self.filter, ..Scope::default() };
        if let Some(text) = &self.device {
            scope.device = device::resolve(&client, text).await?;
        }
        if let Some(text) = &self.rollout {
            scope.rollout = rollout::resolve(&client, text).await?;
        }
        if self.watch {
            return watch(session, &client, scope, self.limit.unwrap_or(WATCH_LIMIT), self.cursor).await;
        }
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        let events = past(&client, &scope, limit).await?;
        if events.is_empty() {
            session.messages.say("no events");
        } else if self.limit.is_none() && events.len() == limit as usize {
            session.messages.say(&format!("showing the last {limit} events; --limit shows more"));
        }
        session.printer.list(&events)
    }
}

/// Which events.
#[derive(Debug, Default)]
struct Scope {
    device: String,
    rollout: String,
    filter: String,
}

/// Fetches past events, newest first.
async fn past(client: &Client, scope: &Scope, limit: u32) -> Result<Vec<Event>, Failure> {
    let fetch = async |page: listing::PageRequest| {
        let request = ListEventsRequest {
            page_size: page.size,
            page_token: page.token,
            device: scope.device.clone(),
            rollout: scope.rollout.clone(),
            filter: scope.filter.clone(),
        };
        let answer = client.events().list_events(request).await?.into_inner();
        Ok(Page { items: answer.events, next: answer.next_page_token })
    };
    Ok(listing::fetch_all(Some(limit), fetch).await?)
}

/// Shows events as they happen, from the cursor on, or after the last few.
async fn watch(
    session: &mut Session,
    client: &Client,
    scope: Scope,
    limit: u32,
    cursor: Option<String>,
) -> Result<(), Failure> {
    let mut widths = Widths::default();
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => {
            let mut events = past(client, &scope, limit).await?;
            events.reverse();
            session.printer.stream(&events, &mut widths)?;
            events.pop().map(|newest| newest.cursor).unwrap_or_default()
        }
    };
    loop {
        let status = match follow(session, client, &scope, &mut cursor, &mut widths).await? {
            Some(status) if !is_transient(&status) => return Err(status.into()),
            Some(status) => Failure::from(status).what().to_owned(),
            None => "the server ended the stream".to_owned(),
        };
        session.messages.say(&format!("the watch was interrupted ({status}); going on"));
        tokio::time::sleep(RECONNECT_WAIT).await;
    }
}

/// Shows events until the stream ends, and returns the error it ended with.
async fn follow(
    session: &mut Session,
    client: &Client,
    scope: &Scope,
    cursor: &mut String,
    widths: &mut Widths,
) -> Result<Option<tonic::Status>, Failure> {
    let request =
        WatchEventsRequest { cursor: cursor.clone(), device: scope.device.clone(), rollout: scope.rollout.clone() };
    let mut stream = match client.events().watch_events(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Some(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(answer)) => {
                let Some(event) = answer.event else { continue };
                cursor.clone_from(&event.cursor);
                session.printer.stream(&[event], widths)?;
            }
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        }
    }
}

impl Resource for Event {
    const PLURAL: &'static str = "events";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.Event", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("TIME", |event, _| time::exact(event.time.as_ref()).into()),
            Column::new("KIND", |event, _| event.kind.as_str().into()),
            Column::new("SUBJECT", |event, _| event.subject.as_str().into()),
            Column::new("BY", |event, _| by(event).into()),
            Column::new("DETAILS", |event, _| pairs(&event.details).join(" ").into()),
            Column::wide("ACTOR", |event, _| event.actor.as_str().into()),
            Column::wide("FROM", |event, _| event.source_address.as_str().into()),
            Column::wide("REQUEST", |event, _| event.request_id.as_str().into()),
        ]
    }
}

/// Names the actor as people know it.
fn by(event: &Event) -> &str {
    if event.actor_display_name.is_empty() { &event.actor } else { &event.actor_display_name }
}
