//! The command line for the people who run the fleet.
//!
//! `cli` reads the arguments, a module of `commands` does what they say with the `session` it is given, `output` writes
//! data to standard output, `messages` all else to standard error, and `error` decides what a failure looks like and
//! which exit code it has. Nothing here decides about the fleet: the server does.

pub mod authority;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod commands;
pub mod consent;
pub mod context;
pub mod credential;
pub mod error;
pub mod export;
pub mod first_contact;
pub mod image_repository;
pub mod label_edit;
pub mod listing;
pub mod messages;
pub mod oidc;
pub mod options;
pub mod output;
pub mod payload;
pub mod progress;
pub mod publication;
pub mod reference;
pub mod roots;
pub mod seals;
pub mod server_url;
pub mod session;
pub mod signing;
pub mod text;
pub mod time;
pub mod upload;

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use anstyle::AnsiColor;
use clap::Parser;
use uuid::Uuid;

use cli::{Cli, Command};
use error::{Exit, Failure};
use session::Session;

/// Runs otactl with the arguments and the environment of the process.
pub fn main() -> ExitCode {
    // Exits by itself with 0 for `--help` and 2 for wrong usage.
    let Cli { options, command } = Cli::parse();
    options.color.apply();
    let token = std::env::var(credential::TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
    let session = Session::new(options, token, Uuid::now_v7());
    let exit = match run(command, session) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            failure.exit()
        }
    };
    ExitCode::from(exit.code())
}

fn run(command: Command, mut session: Session) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot start", &error))?;
    let hint = command.interruption_hint();
    let request_id = session.request_id;
    let result = runtime.block_on(async {
        tokio::select! {
            result = command.run(&mut session) => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(interrupted(hint)),
        }
    });
    // A thread may still read a large file. Nobody waits for it.
    runtime.shutdown_background();
    // What was found before a failure is still worth reading.
    let flushed = session.printer.flush();
    result.map_err(|failure| failure.request(request_id)).and(flushed)
}

fn interrupted(hint: Option<&'static str>) -> Failure {
    let failure = Failure::new(Exit::Interrupted, "interrupted");
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Tells the person. Nobody is left to tell when standard error itself cannot be written.
fn report(failure: &Failure) {
    if failure.exit() == Exit::ReaderGone {
        return;
    }
    if failure.exit() == Exit::Interrupted && std::io::stderr().is_terminal() {
        // The cursor stands behind a bar or the `^C` that the terminal wrote.
        let _ = writeln!(std::io::stderr());
    }
    let text = failure.to_string();
    let (label, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let style = AnsiColor::Red.on_default().bold();
    let _ = writeln!(anstream::stderr(), "{style}{label}{style:#} {rest}");
}
