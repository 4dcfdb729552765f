#!/bin/sh
# Runs every test. What it could not run is named at the end, and fails the run when CI=true.
#
#   scripts/test.sh [ARGUMENTS OF cargo test]    default: --workspace
set -eu

cd "$(dirname "$0")/.."
not_run=

scripts/setup.sh toolchain
postgres=1
scripts/setup.sh postgres || { postgres= && not_run="$not_run the crates ota-server and ota-e2e (no PostgreSQL),"; }
if scripts/setup.sh python; then
    OTA_PYTHON=$(pwd)/.tools/venv/bin/python
    export OTA_PYTHON
else
    not_run="$not_run the independent gRPC client and verifier (no Python with grpcio and tuf),"
fi

scripts/setup.sh softhsm || not_run="$not_run keys behind PKCS#11 (no SoftHSM),"

scripts/setup.sh object-store || not_run="$not_run payloads in an S3-compatible store and two replicas that share one (no SeaweedFS),"

scripts/setup.sh compose || not_run="$not_run deploy/compose.yaml (no podman-compose, or no network for containers),"

scripts/setup.sh systemd || not_run="$not_run the service unit (no systemd),"

# Whatever a developer has set to compile queries online must not decide here.
export SQLX_OFFLINE=true

if [ $# -eq 0 ]; then
    status=0
    scripts/chart.sh || status=$?
    case $status in
    0) ;;
    3) not_run="$not_run the Helm chart (no Helm, checkov or promtool)," ;;
    *) exit "$status" ;;
    esac

    # Building it takes minutes: who runs some tests names one in OTA_IMAGE when they need it.
    if scripts/setup.sh podman && OTA_IMAGE=$(scripts/image.sh); then
        export OTA_IMAGE
        # As scripts/image.sh has done.
        podman info >/dev/null 2>&1 || export STORAGE_DRIVER=vfs
    else
        not_run="$not_run the image and what runs it (no podman, or it could not be built),"
    fi
    set -- --workspace
    [ -n "$postgres" ] || set -- --workspace --exclude ota-server --exclude ota-e2e
fi
# The tests start the programs. Built together with the tests, so that both share one set of dependencies.
cargo build --workspace --bins --tests
cargo test "$@"

if [ -n "$not_run" ]; then
    printf '\nNOT TESTED:%s see "setup" above\n' "$not_run" >&2
    [ "${CI:-}" != true ] || exit 1
fi
