//! What the agent is told: by flags, by the environment, by a TOML file, in this order; the rest has defaults.
//!
//! The file is read once, before anything is touched. Unknown keys and wrong values are errors, all told at once.

mod section;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ota_domain::violation::{Violation, Violations};
use ota_domain::{Hardware, PackageName};

use crate::archive;
use crate::download::Slow;
use crate::hooks::{Deadlines, Programs};
use crate::server_url::ServerUrl;
use section::Section;

/// Where the file is looked for when no flag names one.
pub const DEFAULT_FILE: &str = "/etc/ota/agent.toml";

const DEFAULT_DATA_DIR: &str = "/var/lib/ota-agent";

/// All settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The server, unless the enrolment remembers it.
    pub server: Option<ServerUrl>,
    /// Certificates of the authorities that sign the server's, when the one pinned at the enrolment does not.
    pub ca_file: Option<PathBuf>,
    /// Where the agent keeps everything.
    pub data_dir: PathBuf,
    /// Hardware type to enrol with.
    pub hardware: Option<Hardware>,
    /// What the maker calls this one machine.
    pub hardware_id: Option<String>,
    /// Plain transport beyond this machine was allowed.
    pub insecure: bool,
    /// When to check in again if the server cannot be asked.
    pub check_in_fallback: Duration,
    /// What the device can bear.
    pub limits: Limits,
    /// How long hooks may take.
    pub hooks: Deadlines,
    /// Settings of single packages.
    pub packages: BTreeMap<PackageName, Package>,
    /// What is added to the inventory.
    pub attributes: BTreeMap<String, String>,
}

/// What the device can bear.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// What an archive may grow to.
    pub archive: archive::Limits,
    /// Bytes that a download has to leave free.
    pub reserve_bytes: u64,
    /// Most bytes a second to download.
    pub bandwidth: Option<u64>,
    /// What is too slow a download to be waited for.
    pub slow: Slow,
    /// How long a download may make no headway before it is given up.
    pub download_stall: Duration,
    /// How long the server may take for the whole answer to a check-in.
    pub check_in: Duration,
}

/// Settings of one package.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Package {
    /// Name of the file that the `file` installer makes; the package's name when absent.
    pub file_name: Option<String>,
    /// Whether that file cannot be executed.
    pub is_plain: bool,
    /// Hooks outside the release.
    pub programs: Programs,
}

/// What flags and the environment say.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// TOML file with settings [default: /etc/ota/agent.toml, if it exists]
    #[arg(long, global = true, env = "OTA_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder in which the agent keeps its identity, its record and the releases [default: /var/lib/ota-agent]
    #[arg(long, global = true, env = "OTA_AGENT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the server, such as https://ota.example.com:8443 [default: the one the device is enrolled at]
    #[arg(long, global = true, env = "OTA_AGENT_SERVER", value_name = "URL")]
    pub server: Option<ServerUrl>,
    /// PEM file with the authorities that sign the server's certificate [default: the one the enrolment string pins]
    #[arg(long, global = true, env = "OTA_AGENT_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Speak http:// to a server beyond this machine although nothing is encrypted: on the way, everybody can read
    /// and change what is sent
    #[arg(long, global = true, env = "OTA_AGENT_INSECURE")]
    pub insecure: bool,
    /// Most bytes a second to download
    #[arg(long, global = true, env = "OTA_AGENT_BANDWIDTH", value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub bandwidth: Option<u64>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration {path} is not TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Some settings are wrong.
    #[error("the configuration {path} is wrong:{}", list(violations))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        violations: Vec<Violation>,
    },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("\n  {}: {}", violation.field, violation.description)).collect()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: None,
            ca_file: None,
            data_dir: PathBuf::from(DEFAULT_DATA_DIR),
            hardware: None,
            hardware_id: None,
            insecure: false,
            check_in_fallback: Duration::from_secs(300),
            limits: Limits {
                archive: archive::Limits { max_entries: 65_536, max_unpacked_bytes: 8 << 30 },
                reserve_bytes: 64 << 20,
                bandwidth: None,
                slow: Slow::default(),
                download_stall: Duration::from_secs(6 * 3600),
                check_in: Duration::from_secs(600),
            },
            hooks: Deadlines {
                stop: Duration::from_secs(30),
                start: Duration::from_secs(60),
                health: Duration::from_secs(60),
                health_interval: Duration::from_secs(2),
            },
            packages: BTreeMap::new(),
            attributes: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads the file, if there is one, and lets the flags override it.
    pub fn load(flags: &Flags) -> Result<Self, Error> {
        let mut config = match &flags.config {
            Some(path) => Self::read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::read(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        if let Some(data_dir) = &flags.data_dir {
            config.data_dir.clone_from(data_dir);
        }
        if let Some(server) = &flags.server {
            config.server = Some(server.clone());
        }
        if let Some(ca_file) = &flags.ca_file {
            config.ca_file = Some(ca_file.clone());
        }
        config.insecure |= flags.insecure;
        config.limits.bandwidth = flags.bandwidth.or(config.limits.bandwidth);
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let table = text.parse().map_err(|source| Error::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        parse(table).map_err(|violations| Error::Invalid { path: path.to_owned(), violations })
    }

    /// Returns the settings of a package.
    pub fn package(&self, package: &PackageName) -> Package {
        self.packages.get(package).cloned().unwrap_or_default()
    }
}

fn parse(table: toml::Table) -> Result<Config, Vec<Violation>> {
    let mut config = Config::default();
    let mut violations = Violations::default();
    let mut root = Section::new(table, String::new(), &mut violations);

    config.server = root.take("server");
    config.ca_file = root.take("ca_file");
    root.set("data_dir", &mut config.data_dir);
    config.hardware = root.take("hardware");
    config.hardware_id = root.take("hardware_id");
    root.set("insecure", &mut config.insecure);
    root.set_duration("check_in_fallback", &mut config.check_in_fallback);
    root.set("attributes", &mut config.attributes);

    root.section("limits", |mut limits| {
        limits.set("max_entries", &mut config.limits.archive.max_entries);
        limits.set("max_unpacked_bytes", &mut config.limits.archive.max_unpacked_bytes);
        limits.set("reserve_bytes", &mut config.limits.reserve_bytes);
        config.limits.bandwidth = limits.take_positive("bandwidth_bytes_per_second");
        let least = limits.take_positive("least_bytes_per_second");
        config.limits.slow.bytes_per_second = least.unwrap_or(config.limits.slow.bytes_per_second);
        limits.set_duration("slow_for", &mut config.limits.slow.window);
        limits.set_duration("download_stall", &mut config.limits.download_stall);
        limits.set_duration("check_in", &mut config.limits.check_in);
        limits.finish();
    });
    root.section("hooks", |mut hooks| {
        hooks.set_duration("stop", &mut config.hooks.stop);
        hooks.set_duration("start", &mut config.hooks.start);
        hooks.set_duration("health", &mut config.hooks.health);
        hooks.set_duration("health_interval", &mut config.hooks.health_interval);
        hooks.finish();
    });
    root.sections("packages", |name, mut section| {
        let package = Package {
            file_name: section.take_file_name("file_name"),
            is_plain: section.take("executable") == Some(false),
            programs: Programs {
                stop: section.take_program("stop"),
                start: section.take_program("start"),
                health: section.take_program("health"),
            },
        };
        section.finish();
        config.packages.insert(name, package);
    });
    root.finish();
    violations.finish(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Config, Vec<Violation>> {
        parse(text.parse().unwrap())
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse_text("").unwrap(), Config::default());
    }

    #[test]
    fn the_example_file_shows_the_defaults() {
        assert_eq!(parse_text(include_str!("../agent.example.toml")).unwrap(), Config::default());
    }

    #[test]
    fn every_setting_is_read() {
        let config = parse_text(
            r#"
            server = "https://ota.example:8443"
            ca_file = "/etc/ota/ca.pem"
            data_dir = "/data/ota"
            hardware = "rpi4"
            hardware_id = "board-7"
            insecure = true
            check_in_fallback = "90s"
            [attributes]
            site = "lab"
            [limits]
            max_entries = 10
            max_unpacked_bytes = 1000
            reserve_bytes = 0
            bandwidth_bytes_per_second = 500
            least_bytes_per_second = 50
            slow_for = "5m"
            download_stall = "1h"
            check_in = "2m"
            [hooks]
            stop = "1s"
            start = "2s"
            health = "3s"
            health_interval = "100ms"
            [packages.gateway-fw]
            file_name = "gateway"
            executable = false
            stop = "/usr/bin/stop"
            start = "/usr/bin/start"
            health = "/usr/bin/health"
            "#,
        )
        .unwrap();
        let default = Config::default();
        assert_eq!(config.server.unwrap().to_string(), "https://ota.example:8443");
        assert_eq!(config.ca_file, Some(PathBuf::from("/etc/ota/ca.pem")));
        assert_eq!((config.data_dir, config.insecure), (PathBuf::from("/data/ota"), true));
        assert_eq!(config.hardware.unwrap().as_str(), "rpi4");
        assert_eq!(config.check_in_fallback, Duration::from_secs(90));
        assert_eq!(config.attributes["site"], "lab");
        assert_eq!((config.limits.archive.max_entries, config.limits.reserve_bytes), (10, 0));
        assert_eq!(config.limits.bandwidth, Some(500));
        assert_eq!(config.limits.slow, Slow { bytes_per_second: 50, window: Duration::from_secs(300) });
        assert_ne!(config.limits.download_stall, default.limits.download_stall);
        assert_eq!(config.limits.check_in, Duration::from_secs(120));
        assert_eq!(config.hooks.health_interval, Duration::from_millis(100));
        let package = &config.packages[&"gateway-fw".parse().unwrap()];
        assert_eq!((package.file_name.as_deref(), package.is_plain), (Some("gateway"), true));
        assert_eq!(package.programs.start, Some(PathBuf::from("/usr/bin/start")));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let violations = parse_text(
            r#"
            serve = "typo"
            server = "ftp://ota.example"
            hardware = "Not A Name"
            check_in_fallback = 5
            [limits]
            max_entries = -1
            bandwidth_bytes_per_second = 0
            speed = 1
            [hooks]
            start = "0s"
            [packages."../up"]
            start = "/x"
            [packages.app]
            file_name = "../x"
            start = "relative"
            "#,
        )
        .unwrap_err();
        let mut fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "check_in_fallback",
                "hardware",
                "hooks.start",
                "limits.bandwidth_bytes_per_second",
                "limits.max_entries",
                "limits.speed",
                "packages.../up",
                "packages.app.file_name",
                "packages.app.start",
                "serve",
                "server",
            ]
        );
    }

    #[test]
    fn flags_come_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, "data_dir = \"/file\"\nserver = \"http://file:1\"\n").unwrap();
        let mut flags = Flags { config: Some(file), ..Flags::default() };
        assert_eq!(Config::load(&flags).unwrap().data_dir, PathBuf::from("/file"));
        flags.data_dir = Some(PathBuf::from("/flag"));
        let config = Config::load(&flags).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/flag"));
        assert_eq!(config.server.unwrap().to_string(), "http://file:1");
    }

    #[test]
    fn a_file_that_was_named_has_to_exist() {
        let flags = Flags { config: Some(PathBuf::from("/nowhere/agent.toml")), ..Flags::default() };
        assert!(matches!(Config::load(&flags), Err(Error::Read { .. })));
    }
}
