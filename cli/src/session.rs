//! What every command is given: its printer, its voice, whether it may ask, and the way to the server.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    authority::Authority,
    client::Client,
    consent::Asker,
    context::{self, Context, Contexts, Overrides},
    credential::Token,
    error::Failure,
    messages::Messages,
    oidc::Provider,
    options::GlobalOptions,
    output::Printer,
};

/// One run of otactl.
pub struct Session {
    /// Standard output.
    pub printer: Printer,
    /// Standard error.
    pub messages: Messages,
    /// Questions to the person.
    pub asker: Asker,
    /// Id of all requests of this run.
    pub request_id: Uuid,
    options: GlobalOptions,
    token_variable: Option<String>,
    client: OnceCell<Client>,
}

impl Session {
    /// Starts a run. `token_variable` is what the environment holds as a token.
    pub fn new(options: GlobalOptions, token_variable: Option<String>, request_id: Uuid) -> Self {
        let out = Box::new(std::io::BufWriter::new(anstream::stdout()));
        Self {
            printer: Printer::new(options.output, !options.no_headers, Utc::now, out),
            messages: Messages::new(options.quiet),
            asker: Asker::new(!options.no_input && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()),
            request_id,
            options,
            token_variable,
            client: OnceCell::new(),
        }
    }

    /// Returns the moment that ages and expiry times are counted from.
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// Returns the options that every command takes.
    pub fn options(&self) -> &GlobalOptions {
        &self.options
    }

    /// Returns where the contexts are kept.
    pub fn contexts_path(&self) -> Result<PathBuf, Failure> {
        self.options.config.clone().map_or_else(context::default_path, Ok)
    }

    /// Returns where a context's own targets key is.
    pub fn targets_key_path(&self, context: &str) -> Result<PathBuf, Failure> {
        Ok(self.trust_home()?.join("keys").join(format!("{}.pem", file_name(context))))
    }

    /// Returns the folder of what was verified of a context's server.
    pub fn trust_folder(&self, context: &str) -> Result<PathBuf, Failure> {
        Ok(self.trust_home()?.join("trust").join(file_name(context)))
    }

    /// Returns the folder of keys and of what was verified: `ota` in the configuration folder, or beside `--config`.
    fn trust_home(&self) -> Result<PathBuf, Failure> {
        let path = self.contexts_path()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        // The default file has a folder of its own there.
        let folder = if self.options.config.is_none() { folder.parent().unwrap_or(folder) } else { folder };
        Ok(folder.join("ota"))
    }

    /// Reads the saved contexts.
    pub fn contexts(&self) -> Result<Contexts, Failure> {
        let path = self.contexts_path()?;
        let contexts = Contexts::load(&path)?;
        if let Some(warning) = context::exposed(&path) {
            self.messages.warn(&warning);
        }
        Ok(contexts)
    }

    /// Returns the token that options or environment give, if they do.
    pub fn token_given(&self) -> Result<Option<Token>, Failure> {
        match (&self.options.token_file, &self.token_variable) {
            (Some(path), _) => Token::read(path).map(Some),
            (None, Some(text)) => Token::parse(text).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Renews the token of a login at an identity provider, when it is used and about to run out.
    async fn renewed(&self, mut contexts: Contexts, overrides: &Overrides) -> Result<Contexts, Failure> {
        if overrides.token.is_some() || overrides.server.is_some() {
            return Ok(contexts);
        }
        let Some((name, context)) = contexts.chosen(overrides.context.as_deref())? else { return Ok(contexts) };
        let Some(login) = context.login.as_ref().filter(|login| login.is_due(self.now())) else { return Ok(contexts) };
        let provider = Provider::discover(&login.issuer, &login.client_id).await?;
        let (token, login) = provider.renew(login).await?;
        let renewed = Context { token, login: Some(login), ..context.clone() };
        contexts.contexts.insert(name.to_owned(), renewed);
        contexts.save(&self.contexts_path()?)?;
        Ok(contexts)
    }

    /// Returns the authority that options or environment name, if they do.
    pub fn authority_given(&self) -> Result<Option<Authority>, Failure> {
        self.options.ca_file.as_deref().map(Authority::read).transpose()
    }

    /// Connects to the server that options, environment and contexts name; the second time, returns the same client.
    pub async fn client(&self) -> Result<Client, Failure> {
        let client = self
            .client
            .get_or_try_init(|| async {
                let overrides = Overrides {
                    context: self.options.context.clone(),
                    server: self.options.server.clone(),
                    token: self.token_given()?,
                    insecure: self.options.insecure,
                    authority: self.authority_given()?,
                    pin: self.options.pin,
                };
                let contexts = self.renewed(self.contexts()?, &overrides).await?;
                let target = contexts.target(overrides)?;
                Client::connect(&target, self.request_id).await
            })
            .await?;
        Ok(client.clone())
    }
}

/// Makes a file's name of a context's, such that no two contexts share one and none leaves its folder.
fn file_name(context: &str) -> String {
    let plain =
        |byte: u8, first: bool| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && !first);
    let bytes = context.bytes().enumerate();
    bytes
        .map(|(at, byte)| if plain(byte, at == 0) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_context_has_a_name_that_leaves_its_folder() {
        assert_eq!(file_name("lab-2.example"), "lab-2.example");
        assert_eq!(file_name("../../etc"), "%2e.%2f..%2fetc");
        assert_eq!(file_name("."), "%2e");
        assert_ne!(file_name("a b"), file_name("a%20b"));
    }
}
