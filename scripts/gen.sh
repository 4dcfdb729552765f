#!/bin/sh
# Writes the code that is generated from the protos; with --check, only says whether it is current.
#
# Built as part of the workspace rather than by `cargo run -p ota-proto`: that would settle on other features of shared
# dependencies, and compile tokio, tonic and a few dozen more a second time.
set -eu

cd "$(dirname "$0")/.."
cargo build --quiet --workspace --example gen
exec "${CARGO_TARGET_DIR:-target}/debug/examples/gen" "$@"
