//! Starts the agent and turns how it ended into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ota_agent::commands::main()
}
