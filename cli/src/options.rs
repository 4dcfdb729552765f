//! The options that every command takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{authority::Pin, output::Format, server_url::ServerUrl};

/// Heading of these options in `--help`.
const HEADING: &str = "Options of every command";

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub struct GlobalOptions {
    /// How to write data: table, wide, json, yaml, name or jsonl [default: table]
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        env = "OTACTL_OUTPUT",
        hide_env = true
    )]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub output: Format,
    /// Leave out the header line of tables
    #[arg(long, global = true)]
    pub no_headers: bool,
    /// When to use colours: auto, always or never; NO_COLOR and CLICOLOR are heeded too [default: auto]
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub color: Color,
    /// Say nothing on standard error but warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Never ask; fail where an answer would be needed
    #[arg(long, global = true, env = "OTACTL_NO_INPUT", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub no_input: bool,
    /// Use this saved context [env: OTACTL_CONTEXT]
    #[arg(long, global = true, value_name = "NAME", env = "OTACTL_CONTEXT", hide_env = true)]
    pub context: Option<String>,
    /// Use this server, for example https://ota.example:8443 [env: OTACTL_SERVER]
    #[arg(long, global = true, value_name = "URL", env = "OTACTL_SERVER", hide_env = true)]
    pub server: Option<ServerUrl>,
    /// Read the API token from this file, `-` for standard input [env: OTACTL_TOKEN_FILE, or OTACTL_TOKEN for the token itself]
    #[arg(long, global = true, value_name = "FILE", env = "OTACTL_TOKEN_FILE", hide_env = true)]
    pub token_file: Option<PathBuf>,
    /// Believe a server whose certificate an authority in this PEM file signed [env: OTACTL_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", env = "OTACTL_CA_FILE", hide_env = true)]
    pub ca_file: Option<PathBuf>,
    /// Believe a server whose own authority has a public key with this SHA-256 [env: OTACTL_PIN]
    #[arg(long, global = true, value_name = "SHA256", env = "OTACTL_PIN", hide_env = true)]
    pub pin: Option<Pin>,
    /// Allow an unencrypted connection to another machine
    #[arg(long, global = true, env = "OTACTL_INSECURE", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub insecure: bool,
    /// Keep contexts in this file [default: ~/.config/otactl/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "OTACTL_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Makes the choice for both output streams.
    pub fn apply(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}
