//! `login` and `logout`.

use clap::Args;
use ota_proto::admin::v1::GetCallerRequest;

use crate::{
    authority::Authority,
    client::Client,
    commands::token::{role_word, scope_words},
    context::{Context, Contexts, DEFAULT_NAME, Route, Target},
    credential::Token,
    error::Failure,
    first_contact,
    oidc::{self, Provider},
    server_url::ServerUrl,
    session::Session,
};

const LOGIN_EXAMPLES: &str = "\
The token is read from --token-file, else from OTACTL_TOKEN, else from standard input, else you are asked. It is tried \
before anything is saved. With --context NAME it is saved under that name and becomes the current context.

An https:// server is believed when --ca-file holds the authority that signed its certificate, or --pin the SHA-256 of \
its own authority's key. Without either, you are shown that SHA-256 and asked. The authority is kept in the context. The \
server writes its own to ca.pem in its data directory.

With --oidc you log in as yourself: you open a page, on this machine or any other, and type a code.

Examples:
  otactl login https://127.0.0.1:8443 --ca-file ota-data/ca.pem --token-file ota-data/admin-token
  pass show ota/lab | otactl login https://ota.lab.example:8443 --context lab --pin sha256:6f0c…
  otactl login https://ota.example:8443 --oidc";

/// Arguments of `login`.
#[derive(Debug, Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub struct Login {
    /// The server, for example https://ota.example:8443
    #[arg(value_name = "URL")]
    url: ServerUrl,
    /// Log in as a person at the identity provider that the server trusts
    #[arg(long, conflicts_with = "token_file")]
    oidc: bool,
}

impl Login {
    /// Tries the token and saves it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let insecure = session.options().insecure;
        self.url.check_transport(insecure)?;
        let name = session.options().context.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let mut contexts = session.contexts()?;

        // A pipe is read, or a person asked, before anything is done for them.
        let given = if self.oidc { None } else { Some(self.token(session)?) };
        let authority = self.authority(session, &contexts, &name).await?;
        let route = Route { server: self.url.clone(), authority: authority.clone(), pin: session.options().pin };
        let (token, login) = match given {
            Some(token) => (token, None),
            None => log_in(session, &route).await.map(|(token, login)| (token, Some(login)))?,
        };
        let target = Target { name: name.clone(), route, token: token.clone() };
        let client = Client::connect(&target, session.request_id).await?;
        let caller = client.access().get_caller(GetCallerRequest {}).await?.into_inner();

        let context = Context { server: self.url.clone(), token, insecure, certificate_authority: authority, login };
        contexts.contexts.insert(name.clone(), context);
        contexts.current = Some(name.clone());
        contexts.save(&session.contexts_path()?)?;
        let limits = match scope_words(caller.scope.as_ref()).as_str() {
            "-" => String::new(),
            words => format!(", limited to {words}"),
        };
        let who = format!("{} ({}{limits})", caller.display_name, role_word(caller.role));
        session.messages.say(&format!("logged in to {} as {who}; saved as context {name}", self.url));
        Ok(())
    }

    fn token(&self, session: &Session) -> Result<Token, Failure> {
        match session.token_given()? {
            Some(token) => Ok(token),
            None => Token::ask(session.asker.may_ask()),
        }
    }

    /// Finds out whom to believe: what was said, else what was believed before, else the person.
    async fn authority(
        &self,
        session: &Session,
        contexts: &Contexts,
        name: &str,
    ) -> Result<Option<Authority>, Failure> {
        if !self.url.is_encrypted() {
            return Ok(None);
        }
        if let Some(authority) = session.authority_given()? {
            return Ok(Some(authority));
        }
        if let Some(pin) = session.options().pin {
            return first_contact::pinned(&self.url, pin).await.map(Some);
        }
        let known = contexts.contexts.get(name).filter(|context| context.server == self.url);
        match known.and_then(|context| context.certificate_authority.clone()) {
            Some(authority) => Ok(Some(authority)),
            None => first_contact::asked(&self.url, session.asker).await.map(Some),
        }
    }
}

/// Sends the person to the identity provider and waits.
async fn log_in(session: &Session, route: &Route) -> Result<(Token, oidc::Login), Failure> {
    let options = Client::login_options(route).await?;
    let provider = Provider::discover(&options.issuer, &options.client_id).await?;
    let invitation = provider.invite(&options.scopes).await?;
    // Not `say`: without it nobody could log in, quiet or not.
    session.messages.ask(&format!("Open {} and type the code {}", invitation.verification_uri, invitation.user_code));
    if let Some(whole) = &invitation.verification_uri_complete {
        session.messages.ask(&format!("or open {whole}"));
    }
    provider.wait(&invitation).await
}

const LOGOUT_EXAMPLES: &str = "\
The token keeps working elsewhere; `otactl token revoke` ends that.

Examples:
  otactl logout
  otactl logout --context lab";

/// Arguments of `logout`.
#[derive(Debug, Args)]
#[command(after_help = LOGOUT_EXAMPLES)]
pub struct Logout {}

impl Logout {
    /// Forgets the context.
    pub fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut contexts = session.contexts()?;
        let chosen = contexts.chosen(session.options().context.as_deref())?;
        let Some(name) = chosen.map(|(name, _)| name.to_owned()) else {
            session.messages.say("not logged in");
            return Ok(());
        };
        contexts.contexts.remove(&name);
        if contexts.current.as_ref() == Some(&name) {
            contexts.current = None;
        }
        contexts.save(&session.contexts_path()?)?;
        session.messages.say(&format!("forgot context {name} and its token"));
        Ok(())
    }
}
