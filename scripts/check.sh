#!/bin/sh
# Everything that is said about the code without running it: formatting, lints, and that what is generated is current.
# What it could not look at is named at the end, and fails the check when CI=true.
set -eu

cd "$(dirname "$0")/.."
not_run=

step() { printf '\n== %s\n' "$*"; }

step "set-up"
scripts/setup.sh toolchain rust
postgres=1
scripts/setup.sh postgres || { postgres= && not_run="$not_run .sqlx"; }
buf=1
scripts/setup.sh buf || { buf= && not_run="$not_run buf"; }

step "cargo fmt --check"
cargo fmt --all --check

if [ -n "$buf" ]; then
    step "buf lint, buf format"
    .tools/bin/buf lint
    .tools/bin/buf format --diff --exit-code
fi

step "generated code"
scripts/gen.sh --check

step "cargo clippy, .sqlx"
if [ -n "$postgres" ]; then
    scripts/sqlx.sh check cargo clippy --workspace --all-targets -- -D warnings
else
    SQLX_OFFLINE=true cargo clippy --workspace --all-targets -- -D warnings
fi

if [ -n "$not_run" ]; then
    printf '\nNOT CHECKED:%s (see "setup" above)\n' "$not_run" >&2
    [ "${CI:-}" != true ] || exit 1
fi
