#!/usr/bin/env bash
# Updates a device twice before your eyes: server, agent and command line, as a newcomer would run them.
# ONCE=1 checks the outcome and ends; otherwise everything runs on until Ctrl-C.
set -euo pipefail

cd "$(dirname "$0")/.."
scripts/setup.sh toolchain postgres
SQLX_OFFLINE=true cargo build --workspace --bins
bin=$PWD/target/debug

# Readable by others, because as root the server lends its database to another account.
scratch=$(mktemp -d /tmp/ota-demo.XXXXXX)
chmod 755 "$scratch"
server='' agent=''
stop() {
    status=$?
    trap - EXIT INT TERM
    for process in $agent $server; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
    done
    rm -rf "$scratch"
    exit "$status"
}
trap stop EXIT
trap 'exit 0' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
    printf '$ %s\n' "$*"
    "$@"
}
otactl() { "$bin/otactl" "$@"; }
# The demo's own settings, so that yours stay as they are.
export XDG_CONFIG_HOME=$scratch/config

say "A server. It brings its own Postgres and keeps everything in one folder."
"$bin/ota-server" --data-dir "$scratch/server" --listen 127.0.0.1:0 --log warn >"$scratch/url" 2>"$scratch/server.log" &
server=$!
until [ -s "$scratch/url" ]; do
    kill -0 "$server" 2>/dev/null || { cat "$scratch/server.log" >&2; exit 1; }
    sleep 0.1
done
url=$(cat "$scratch/url")
run otactl login "$url" --ca-file "$scratch/server/ca.pem" --token-file "$scratch/server/admin-token"

say "A device. It enrols with a string that works once and tells it which server to believe."
token=$(otactl enroll-token create --description "the demo's device")
run "$bin/ota-agent" enroll "$token" --server "$url" --data-dir "$scratch/device" --hardware demo-board
OTA_AGENT_LOG=warn "$bin/ota-agent" run --data-dir "$scratch/device" &
agent=$!

say "Two releases of a real program: otactl itself, and a start script that differs."
for version in 1.0.0 2.0.0; do
    tree=$scratch/release-$version
    mkdir -p "$tree/bin" "$tree/ota/hooks"
    cp "$bin/otactl" "$tree/bin/"
    printf '#!/bin/sh\n# Starts release %s.\nexec "$(dirname "$0")/bin/otactl" --version\n' "$version" >"$tree/start.sh"
    printf '#!/bin/sh\nexec "$OTA_RELEASE_DIR/start.sh"\n' >"$tree/ota/hooks/health"
    chmod 755 "$tree/start.sh" "$tree/ota/hooks/health"
    run otactl upload "$tree" --package demo --version "$version" --notes "The demo's release $version"
done

for version in 1.0.0 2.0.0; do
    say "Assign $version. The device is woken, downloads, verifies, switches, checks its health and commits."
    run otactl assign "demo@$version" --all --yes --wait --timeout 2m --quiet
done

say "The fleet"
run otactl device list
run otactl event list --limit 12

running=$(otactl device list -o json | tr -d ' \n' | sed -n 's/.*"running":\[{"package":"demo","version":"\([^"]*\)".*/\1/p')
tree_sum() { (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum); }
if [ "$running" != 2.0.0 ] || [ "$(tree_sum "$scratch/release-2.0.0")" != "$(tree_sum "$scratch/device/packages/demo/current/")" ]; then
    echo "error: the device runs '$running' or its tree is not the one that was uploaded" >&2
    cat "$scratch/server.log" >&2
    exit 1
fi
say "The device runs 2.0.0, and its tree is the one that was uploaded."
[ -z "${ONCE:-}" ] || exit 0

cat <<NEXT

Everything keeps running until Ctrl-C. In another terminal:

  export XDG_CONFIG_HOME=$XDG_CONFIG_HOME PATH=$bin:\$PATH
  otactl status
  otactl device list -o wide
  otactl assign demo@1.0.0 --all --wait
  otactl event list --watch
  ota-agent status --data-dir $scratch/device
NEXT
wait "$server"
