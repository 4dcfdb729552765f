//! `login` and `logout`.

use clap::Args;
use ota_proto::admin::v1::GetCallerRequest;

use crate::{
    client::Client,
    commands::token::role_word,
    context::{Context, DEFAULT_NAME, Target},
    credential::Token,
    error::Failure,
    server_url::ServerUrl,
    session::Session,
};

const LOGIN_EXAMPLES: &str = "\
The token is read from --token-file, else from OTACTL_TOKEN, else from standard input, else you are asked. It is tried \
before anything is saved. With --context NAME it is saved under that name and becomes the current context.

Examples:
  otactl login http://127.0.0.1:8443 --token-file admin.token
  pass show ota/lab | otactl login http://127.0.0.1:8443 --context lab";

/// Arguments of `login`.
#[derive(Debug, Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub struct Login {
    /// The server, for example http://127.0.0.1:8443
    #[arg(value_name = "URL")]
    url: ServerUrl,
}

impl Login {
    /// Tries the token and saves it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let insecure = session.options().insecure;
        self.url.check_transport(insecure)?;
        let token = match session.token_given()? {
            Some(token) => token,
            None => Token::ask(session.asker.may_ask())?,
        };
        let name = session.options().context.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let mut contexts = session.contexts()?;

        let target = Target { server: self.url.clone(), token: token.clone(), insecure };
        let client = Client::connect(&target, session.request_id).await?;
        let caller = client.access().get_caller(GetCallerRequest {}).await?.into_inner();

        contexts.contexts.insert(name.clone(), Context { server: self.url.clone(), token, insecure });
        contexts.current = Some(name.clone());
        contexts.save(&session.contexts_path()?)?;
        let who = format!("{} ({})", caller.display_name, role_word(caller.role));
        session.messages.say(&format!("logged in to {} as {who}; saved as context {name}", self.url));
        Ok(())
    }
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
