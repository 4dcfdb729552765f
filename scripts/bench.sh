#!/bin/sh
# Builds the programs as they are shipped and measures them: one JSON line for each figure, on standard output.
#
#   scripts/bench.sh [ARGUMENTS OF ota-bench]    default: every scenario
set -eu

cd "$(dirname "$0")/.."
scripts/setup.sh toolchain postgres
# Without it the scenarios that compare with it say so.
scripts/setup.sh nginx || [ "${CI:-}" != true ]
export SQLX_OFFLINE=true
cargo build --release --workspace --bins >&2
exec "${CARGO_TARGET_DIR:-target}/release/ota-bench" "$@"
