//! Saved servers and tokens: `~/.config/otactl/config.toml`.
//!
//! What a command uses is chosen in this order: option, environment variable, context. The file holds tokens, so only
//! its owner may read it, and it is replaced as a whole, so that a crash leaves the old one.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use crate::{
    authority::{Authority, Pin},
    credential::Token,
    error::{Exit, Failure},
    oidc::Login,
    server_url::ServerUrl,
};

/// Name of the context that `login` makes unless told another.
pub const DEFAULT_NAME: &str = "default";

/// One saved server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Where the server is.
    pub server: ServerUrl,
    /// The token to show there.
    pub token: Token,
    /// The person allowed an unencrypted connection to another machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Who signs the server's certificate, in PEM. Absent for a server without encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<Authority>,
    /// How the token was got and gets renewed, when an identity provider gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

/// All saved servers.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// What options and environment say about the server.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Use this context.
    pub context: Option<String>,
    /// Use this server.
    pub server: Option<ServerUrl>,
    /// Use this token.
    pub token: Option<Token>,
    /// Allow an unencrypted connection to another machine.
    pub insecure: bool,
    /// Believe this authority.
    pub authority: Option<Authority>,
    /// Believe the authority with this pin alone.
    pub pin: Option<Pin>,
}

/// The server a command talks to.
#[derive(Debug)]
pub struct Target {
    /// What its keys and what was verified of it are kept under: the context's name, or one made of its address.
    pub name: String,
    /// The way to it.
    pub route: Route,
    /// The token to show there.
    pub token: Token,
}

/// The way to a server.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where it is.
    pub server: ServerUrl,
    /// Who signs its certificate, when that is known.
    pub authority: Option<Authority>,
    /// The pin its authority must have, when one was given.
    pub pin: Option<Pin>,
}

impl Contexts {
    /// Reads the file. A file that does not exist holds no contexts.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::because(format!("cannot read {}", path.display()), &error)),
        };
        toml::from_str(&text).map_err(|error| {
            // Its message, not its rendering: that would show the line, and the line may hold a token.
            Failure::failed(format!("{} is damaged: {}", path.display(), error.message()))
                .hint("repair the file, or delete it and log in again")
        })
    }

    /// Writes the file so that only its owner can read it.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let text = toml::to_string(self).map_err(io::Error::other)?;
            // Temporary files are made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| Failure::because(format!("cannot write {}", path.display()), &error))
    }

    /// Tells which context is meant, and gives it.
    pub fn chosen(&self, name: Option<&str>) -> Result<Option<(&str, &Context)>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok(Some((name, context))),
            None => Err(self.unknown(name)),
        }
    }

    /// Makes the failure for a name that no context has.
    pub fn unknown(&self, name: &str) -> Failure {
        let known: Vec<_> = self.contexts.keys().map(String::as_str).collect();
        let hint = if known.is_empty() {
            "log in with `otactl login URL`".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        Failure::usage(format!("there is no context {name:?}")).hint(hint)
    }

    /// Decides what a command talks to.
    pub fn target(&self, overrides: Overrides) -> Result<Target, Failure> {
        let context = match self.chosen(overrides.context.as_deref()) {
            Ok(context) => context,
            // A full answer from elsewhere needs no context, even when the file names one that is gone.
            Err(_) if overrides.context.is_none() && overrides.server.is_some() && overrides.token.is_some() => None,
            Err(error) => return Err(error),
        };
        let server = match (&overrides.server, context) {
            (Some(server), _) => server.clone(),
            (None, Some((_, context))) => context.server.clone(),
            (None, None) => {
                return Err(Failure::new(Exit::NotAuthenticated, "not logged in")
                    .hint("log in with `otactl login URL`; the server prints that line when it first starts"));
            }
        };
        // A saved token goes to the server it was saved for and to no other.
        let saved = context.filter(|(_, context)| context.server == server);
        let token = overrides.token.or_else(|| saved.map(|(_, context)| context.token.clone())).ok_or_else(|| {
            Failure::new(Exit::NotAuthenticated, format!("no token for {server}"))
                .hint(format!("log in with `otactl login {server}`, or use --token-file or OTACTL_TOKEN"))
        })?;
        let insecure = overrides.insecure || saved.is_some_and(|(_, context)| context.insecure);
        server.check_transport(insecure)?;
        let authority =
            overrides.authority.or_else(|| saved.and_then(|(_, context)| context.certificate_authority.clone()));
        let name = saved.map_or_else(|| server.file_name(), |(name, _)| name.to_owned());
        Ok(Target { name, route: Route { server, authority, pin: overrides.pin }, token })
    }
}

/// Returns where the file is unless an option says otherwise.
pub fn default_path() -> Result<PathBuf, Failure> {
    let folders = etcetera::base_strategy::Xdg::new()
        .map_err(|_| Failure::failed("the home folder is not known").hint("set HOME, or use --config FILE"))?;
    Ok(folders.config_dir().join("otactl").join("config.toml"))
}

/// Returns a warning when others can read the file.
pub fn exposed(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o077 != 0)
        .then(|| format!("other users can read {0}, which holds tokens; run `chmod 600 {0}`", path.display()))
}

#[cfg(test)]
mod tests;
