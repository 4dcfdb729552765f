//! Which provider is trusted, and for what.

use clap::Args;
use ota_domain::role::Role;

use super::{Provider, ProviderError};

/// Who vouches for people.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "oidc")]
pub struct Options {
    /// Identity provider (OpenID Connect) that people log in at with `otactl login --oidc`: its issuer URL, exactly as its
    /// tokens have it. Needs --oidc-client-id and --oidc-role.
    #[arg(long, global = true, env = "OTA_OIDC_ISSUER", value_name = "URL")]
    pub oidc_issuer: Option<String>,

    /// The client that otactl is at the identity provider: a public one with the device authorization grant.
    #[arg(long, global = true, env = "OTA_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,

    /// For whom the identity provider's tokens have to be made. Default: the client id.
    #[arg(long, global = true, env = "OTA_OIDC_AUDIENCE", value_name = "AUDIENCE")]
    pub oidc_audience: Option<String>,

    /// What otactl asks the identity provider for. Some need more for the role claim, or offline_access for logins that
    /// last.
    #[arg(
        long,
        global = true,
        env = "OTA_OIDC_SCOPES",
        value_name = "SCOPES",
        value_delimiter = ',',
        default_value = "openid,profile"
    )]
    pub oidc_scopes: Vec<String>,

    /// The claim that gives people their roles: a text or a list of texts.
    #[arg(long, global = true, env = "OTA_OIDC_ROLE_CLAIM", value_name = "CLAIM", default_value = "groups")]
    pub oidc_role_claim: String,

    /// What a value of the role claim means, such as ota-admins=admin or cn=ota,ou=groups,dc=example=deployer. May be
    /// repeated; in the environment variable one a line. Of several that a person has, the first given here counts. Who has
    /// none is refused.
    #[arg(long, global = true, env = "OTA_OIDC_ROLE", value_name = "VALUE=ROLE")]
    pub oidc_role: Vec<RoleMappings>,
}

impl Options {
    /// The provider that is to be trusted; `None` when none is configured.
    ///
    /// # Errors
    /// When it is configured by half, or not one that can be trusted.
    pub fn provider(&self) -> Result<Option<Provider>, ProviderError> {
        self.settings()?.map(Provider::new).transpose()
    }

    fn settings(&self) -> Result<Option<Settings>, ProviderError> {
        let Self { oidc_issuer, oidc_client_id, oidc_audience, oidc_scopes, oidc_role_claim, oidc_role } = self;
        if oidc_issuer.is_none() && oidc_client_id.is_none() && oidc_audience.is_none() && oidc_role.is_empty() {
            return Ok(None);
        }
        let given = |text: &Option<String>, flag| {
            text.clone().filter(|text| !text.is_empty()).ok_or(ProviderError::Missing(flag))
        };
        let client_id = given(oidc_client_id, "--oidc-client-id")?;
        if oidc_role.is_empty() {
            return Err(ProviderError::Missing("--oidc-role"));
        }
        Ok(Some(Settings {
            issuer: given(oidc_issuer, "--oidc-issuer")?,
            audience: oidc_audience.clone().unwrap_or_else(|| client_id.clone()),
            client_id,
            scopes: oidc_scopes.clone(),
            role_claim: oidc_role_claim.clone(),
            roles: oidc_role.iter().flat_map(|RoleMappings(mappings)| mappings.clone()).collect(),
        }))
    }
}

/// Which provider is trusted, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The issuer's URL, exactly as its tokens have it.
    pub issuer: String,
    /// The client id that people log in with.
    pub client_id: String,
    /// For whom tokens have to be made.
    pub audience: String,
    /// Scopes that people ask for when they log in.
    pub scopes: Vec<String>,
    /// The claim with a person's roles.
    pub role_claim: String,
    /// What the claim's values mean; of several that a person has, the first here counts.
    pub roles: Vec<RoleMapping>,
}

/// What one value of the role claim means: `ota-admins=admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleMapping {
    /// The value.
    pub value: String,
    /// The role.
    pub role: Role,
}

/// Some of them, one a line: names of LDAP have commas and semicolons in them, so that nothing else can stand between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleMappings(pub Vec<RoleMapping>);

impl std::str::FromStr for RoleMappings {
    type Err = ParseRoleMappingError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseRoleMappingError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mappings: Vec<_> = lines.map(str::parse).collect::<std::result::Result<_, _>>()?;
        if mappings.is_empty() { Err(ParseRoleMappingError) } else { Ok(Self(mappings)) }
    }
}

/// The text is no mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be value=role, such as ota-admins=admin; roles are viewer, publisher, deployer and admin")]
pub struct ParseRoleMappingError;

impl std::str::FromStr for RoleMapping {
    type Err = ParseRoleMappingError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseRoleMappingError> {
        let (value, role) = text.rsplit_once('=').ok_or(ParseRoleMappingError)?;
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role).ok_or(ParseRoleMappingError)?;
        if value.is_empty() { Err(ParseRoleMappingError) } else { Ok(Self { value: value.to_owned(), role }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Options {
        Options {
            oidc_issuer: Some("https://id.example".to_owned()),
            oidc_client_id: Some("otactl".to_owned()),
            oidc_role: vec!["ota-admins=admin".parse().unwrap()],
            ..Options::default()
        }
    }

    #[test]
    fn a_provider_is_configured_wholly_or_not_at_all() {
        assert_eq!(Options::default().settings().unwrap(), None);
        assert_eq!(whole().settings().unwrap().unwrap().audience, "otactl");
        let missing = |options: Options| match options.settings() {
            Err(error @ ProviderError::Missing(flag)) if error.hint().is_some() => flag,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(Options { oidc_issuer: None, ..whole() }), "--oidc-issuer");
        assert_eq!(missing(Options { oidc_issuer: Some(String::new()), ..whole() }), "--oidc-issuer");
        assert_eq!(missing(Options { oidc_client_id: None, ..whole() }), "--oidc-client-id");
        assert_eq!(missing(Options { oidc_role: Vec::new(), ..whole() }), "--oidc-role");
        let audience = Some("ota".to_owned());
        assert_eq!(missing(Options { oidc_audience: audience, ..Options::default() }), "--oidc-client-id");
    }

    #[test]
    fn a_mapping_names_a_value_and_a_role() {
        let mapping: RoleMapping = "cn=ota,dc=example=deployer".parse().unwrap();
        assert_eq!((mapping.value.as_str(), mapping.role), ("cn=ota,dc=example", Role::Deployer));
        for text in ["", "admin", "=admin", "x=", "x=root", "x=Admin"] {
            text.parse::<RoleMapping>().unwrap_err();
        }
    }

    #[test]
    fn a_group_may_have_an_ldap_name() {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            options: Options,
        }
        let roles = |arguments: &[&str]| {
            let flags = ["ota-server", "--oidc-issuer", "https://id.example", "--oidc-client-id", "otactl"];
            let program = <Program as clap::Parser>::try_parse_from(flags.iter().chain(arguments)).unwrap();
            program.options.settings().unwrap().unwrap().roles
        };
        let dn = "cn=ota admins;x,ou=groups,dc=example";
        let (admins, viewers) = (format!("{dn}=admin"), "everybody=viewer");
        let due = [(dn, Role::Admin), ("everybody", Role::Viewer)]
            .map(|(value, role)| RoleMapping { value: value.to_owned(), role });
        assert_eq!(roles(&["--oidc-role", &admins, "--oidc-role", viewers]), due);
        // As the environment variable has them, which can be given only once.
        assert_eq!(roles(&["--oidc-role", &format!("\n  {admins}\r\n  {viewers}\n")]), due);
        for bad in ["", "\n", "a=admin\nb", "a=admin,b=viewer,"] {
            bad.parse::<RoleMappings>().unwrap_err();
        }
    }
}
