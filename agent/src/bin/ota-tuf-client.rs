//! Starts the client of The Update Framework that the public conformance suite drives.

use std::process::ExitCode;

fn main() -> ExitCode {
    ota_agent::tuf_client::main()
}
