//! `EventService`.

use std::{pin::Pin, str::FromStr};

use futures_util::{Stream, StreamExt};
use ota_domain::event::Cursor;
use ota_proto::{
    admin::v1::{
        ListEventSealsRequest, ListEventSealsResponse, ListEventsRequest, ListEventsResponse, WatchEventsRequest,
        WatchEventsResponse, event_service_server::EventService,
    },
    convert::admin::{device::DEVICE, event as wire},
};
use tonic::{Request, Response, Status};

use super::named;
use crate::{
    app::{App, Error, event_seals, events},
    db::page,
    grpc::{caller, retiring},
};

const ROLLOUT: &str = "rollouts/{rollout}";

/// Reads the record of what happened.
#[derive(Debug)]
pub struct Events {
    app: App,
}

impl Events {
    /// Serves from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl EventService for Events {
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let caller = caller(&request);
        let wanted = request.into_inner();
        let page = page::request(wanted.page_size, &wanted.page_token)?;
        let device = optional("device", &wanted.device, DEVICE)?;
        let rollout = optional("rollout", &wanted.rollout, ROLLOUT)?;
        let page = events::list(&self.app, &caller, device, rollout, &wanted.filter, page).await?;
        Ok(Response::new(ListEventsResponse {
            events: page.rows.into_iter().map(wire::event).collect(),
            next_page_token: page.next_token,
        }))
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let (caller, retiring) = (caller(&request), retiring(&request, &self.app));
        let wanted = request.into_inner();
        let cursor = match wanted.cursor.as_str() {
            "" => None,
            text => Some(text.parse::<Cursor>().map_err(|error| Error::invalid("cursor", error))?),
        };
        let device = optional("device", &wanted.device, DEVICE)?;
        let rollout = optional("rollout", &wanted.rollout, ROLLOUT)?;
        let events = events::watch(self.app.clone(), caller, device, rollout, cursor, retiring).await?;
        let answers = events.map(|event| Ok(WatchEventsResponse { event: Some(wire::event(event?)) }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_event_seals(
        &self,
        request: Request<ListEventSealsRequest>,
    ) -> Result<Response<ListEventSealsResponse>, Status> {
        let caller = caller(&request);
        let wanted = request.into_inner();
        let page = page::request(wanted.page_size, &wanted.page_token)?;
        let page = event_seals::list(&self.app, &caller, &page).await?;
        Ok(Response::new(ListEventSealsResponse {
            seals: page.rows.into_iter().map(wire::seal).collect(),
            next_page_token: page.next_token,
        }))
    }
}

/// Reads a name that may be empty, which means any.
fn optional<T>(field: &str, text: &str, pattern: &'static str) -> Result<Option<T>, Error>
where
    T: FromStr<Err: std::fmt::Display>,
{
    if text.is_empty() { Ok(None) } else { named(field, text, pattern).map(Some) }
}
