//! `health`: whether the server can do its work. Says nothing secret, and needs no login.

use std::time::Duration;

use clap::Args;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    client,
    context::{Contexts, Route},
    error::Failure,
    first_contact,
    server_url::ServerUrl,
    session::Session,
};

/// What the server calls the question whether it can do its work.
const READINESS: &str = "readiness";

/// How long the answer may take. Scripts and supervisors wait for it.
const LIMIT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
No token is needed and none is sent. Without --ca-file, --pin or a context for the server its certificate is not checked, \
which is said. Exit code 0 when the server is ready, 1 when it is not or cannot be reached.

Examples:
  otactl health
  otactl health https://ota.example:8443 --ca-file ca.pem
  otactl health http://ota.ota.svc:9464";

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Health {
    /// The server; without it, the one of --server or of the context
    #[arg(value_name = "URL")]
    url: Option<ServerUrl>,
}

impl Health {
    /// Asks.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let route = self.route(session)?;
        let server = route.server.clone();
        let late = |_| Failure::failed(format!("{server} does not say in time whether it is ready"));
        let status = tokio::time::timeout(LIMIT, ask(&route, session)).await.map_err(late)??;
        if status != ServingStatus::Serving {
            return Err(Failure::failed(format!("{server} is not ready"))
                .hint("its log says why: it may be starting or stopping, or its database does not answer"));
        }
        session.printer.line(&format!("{server} is ready"))
    }

    fn route(&self, session: &Session) -> Result<Route, Failure> {
        let options = session.options();
        let named = self.url.as_ref().or(options.server.as_ref());
        // Where no home folder is, or a file of somebody else's, a server that was named can still be asked.
        let contexts = match session.contexts() {
            Err(_) if named.is_some() && options.context.is_none() => Contexts::default(),
            contexts => contexts?,
        };
        let context = match contexts.chosen(options.context.as_deref()) {
            Err(_) if named.is_some() && options.context.is_none() => None,
            context => context?,
        };
        let server = match (named, context) {
            (Some(server), _) => server.clone(),
            (None, Some((_, context))) => context.server.clone(),
            (None, None) => {
                return Err(Failure::usage("nothing says which server is meant").hint("say `otactl health URL`"));
            }
        };
        let saved = context.filter(|(_, context)| context.server == server);
        let known = saved.and_then(|(_, context)| context.certificate_authority.clone());
        Ok(Route { authority: session.authority_given()?.or(known), pin: options.pin, server })
    }
}

async fn ask(route: &Route, session: &Session) -> Result<ServingStatus, Failure> {
    let server = &route.server;
    let channel = if server.is_encrypted() && route.authority.is_none() && route.pin.is_none() {
        let channel = client::open(server, &first_contact::unbelieved(server)?.0).await?;
        session.messages.warn(&format!("the certificate of {server} was not checked"));
        channel
    } else {
        client::connect(route).await?
    };
    let request = HealthCheckRequest { service: READINESS.to_owned() };
    Ok(HealthClient::new(channel).check(request).await?.into_inner().status())
}
