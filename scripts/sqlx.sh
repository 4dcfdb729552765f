#!/bin/sh
# Keeps .sqlx, what Postgres says about each query, by which the queries are compiled without a database.
#
#   scripts/sqlx.sh gen [CARGO ARGUMENTS]     writes it anew (default: --workspace --all-targets)
#   scripts/sqlx.sh check COMMAND...          runs the command, which has to compile the workspace, and fails when the
#                                             queries that it met differ from .sqlx
#
# The macros write the files themselves when they are expanded with a database at hand and SQLX_OFFLINE_DIR set, so
# this needs a Postgres that lives for the moment, and no further tool.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
fresh=$root/.tools/sqlx
stamp=$root/.tools/sqlx-checked

# Every file with a query.
queries() {
    grep -rlE '\bquery[a-z_]*!' --include='*.rs' server e2e 2>/dev/null || :
}

# Changes with everything that .sqlx depends on.
state() {
    # shellcheck disable=SC2046 # one argument for each file; there are no spaces in our names
    cat $(queries) migrations/*.sql .sqlx/*.json Cargo.lock 2>/dev/null | cksum
}

# Runs a command with the macros connected to a database that has every migration.
online() {
    folder=$(mktemp -d /tmp/ota-sqlx.XXXXXX)
    # Postgres runs as somebody else when this is root.
    chmod 755 "$folder"
    trap 'scripts/postgres.sh stop "$folder"; rm -rf "$folder"' EXIT
    trap 'exit 130' INT TERM
    url=$(scripts/postgres.sh start "$folder")
    scripts/postgres.sh fill "$folder"
    rm -rf "$fresh"
    mkdir -p "$fresh"
    # Cargo does not know that the outcome depends on the variables below.
    queries | while read -r file; do touch "$file"; done
    SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh DATABASE_URL=$url "$@"
}

action=${1:-}
[ $# -eq 0 ] || shift
case $action in
gen)
    [ $# -gt 0 ] || set -- --workspace --all-targets
    online cargo check "$@"
    rm -rf .sqlx
    mv "$fresh" .sqlx
    echo "sqlx.sh: $(find .sqlx -name '*.json' | wc -l) queries in .sqlx" >&2
    ;;
check)
    if [ "$(state)" = "$(cat "$stamp" 2>/dev/null)" ]; then
        SQLX_OFFLINE=true "$@"
        exit
    fi
    online "$@"
    mkdir -p .sqlx
    if ! diff -r .sqlx "$fresh" >&2; then
        echo "error: .sqlx is stale (above: < committed, > as it should be)" >&2
        echo "hint: run \`make gen\` and commit" >&2
        exit 1
    fi
    state >"$stamp"
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
