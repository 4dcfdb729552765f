#!/bin/sh
# A throwaway Postgres in a folder, reachable on a Unix socket only, for the compile-time checked queries.
# It keeps no promise about durability; the one that keeps data is the server's own (server/src/postgres).
#
#   scripts/postgres.sh bin            prints the folder that holds initdb and postgres
#   scripts/postgres.sh start FOLDER   makes the cluster when lacking, starts it, prints its URL
#   scripts/postgres.sh fill FOLDER    makes its database anew, with every migration
#   scripts/postgres.sh url FOLDER     prints its URL
#   scripts/postgres.sh stop FOLDER    stops it
set -eu

die() {
    printf 'postgres.sh: %s\n' "$*" >&2
    exit 1
}

# The same order as the server's: override, PATH, the newest of Debian's, Homebrew's.
bin_dir() {
    if [ -n "${OTA_POSTGRES_BIN:-}" ]; then
        [ -x "$OTA_POSTGRES_BIN/initdb" ] || die "OTA_POSTGRES_BIN=$OTA_POSTGRES_BIN holds no initdb"
        echo "$OTA_POSTGRES_BIN"
        return
    fi
    # What PATH finds may be a lone symlink: its siblings (pg_ctl, psql) are beside the real file.
    if command -v initdb >/dev/null; then
        dir=$(dirname "$(readlink -f "$(command -v initdb)")")
        if [ -x "$dir/postgres" ]; then
            echo "$dir"
            return
        fi
    fi
    # shellcheck disable=SC2012 # package managers name no folder with a space
    for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5,5nr) \
        $(ls -d /usr/pgsql-*/bin 2>/dev/null | sort -t- -k2,2nr) \
        $(ls -d /usr/libexec/postgresql*/ 2>/dev/null | sort -Vr) \
        $(ls -d /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin 2>/dev/null | sort -r); do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            echo "${dir%/}"
            return
        fi
    done
    die "found no initdb and postgres: run scripts/setup.sh postgres, or set OTA_POSTGRES_BIN"
}

# Postgres refuses root, so as root everything runs as this user.
as_owner() {
    if [ "$(id -u)" != 0 ]; then
        "$@"
    elif command -v setpriv >/dev/null; then
        setpriv --reuid "$owner" --regid "$(id -g "$owner")" --clear-groups -- env HOME=/ "$@"
    else
        # shellcheck disable=SC2016 # for the inner shell to expand
        # busybox has no setpriv; the arguments arrive as $0 and $@, unharmed by quoting.
        su -s /bin/sh "$owner" -c 'exec "$0" "$@"' -- "$@"
    fi
}

# A socket path may have 107 bytes, and ".s.PGSQL.5432" takes 14 of them.
socket_dir() {
    if [ "${#folder}" -le 85 ]; then
        echo "$folder/run"
    else
        echo "/tmp/ota-pg-$(printf %s "$folder" | cksum | cut -d' ' -f1)"
    fi
}

url() {
    echo "postgres://ota@localhost/ota?host=$(socket_dir)"
}

start() {
    bin=$(bin_dir)
    mkdir -p "$folder"
    if [ "$(id -u)" = 0 ]; then
        chown "$owner" "$folder"
        as_owner test -x "$folder" || die "user $owner cannot reach $folder: one of its parents denies it (chmod o+x)"
    fi
    sockets=$(socket_dir)
    as_owner mkdir -p -m 700 "$sockets"
    if [ ! -d "$folder/data" ]; then
        as_owner rm -rf "$folder/data.new"
        as_owner "$bin/initdb" -D "$folder/data.new" -U ota -A trust -E UTF8 --locale=C --no-sync >"$folder/initdb.log" 2>&1 ||
            die "initdb failed, see $folder/initdb.log"
        as_owner mv "$folder/data.new" "$folder/data"
    fi
    if ! as_owner "$bin/pg_ctl" -D "$folder/data" status >/dev/null 2>&1; then
        as_owner "$bin/pg_ctl" -D "$folder/data" -l "$folder/postgres.log" -w -s start \
            -o "-k '$sockets' -c listen_addresses= -c fsync=off -c max_connections=200 -c shared_buffers=32MB" \
            >&2 </dev/null || die "postgres did not start, see $folder/postgres.log"
    fi
    sql="SELECT 'CREATE DATABASE ota' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'ota')"
    echo "$sql \\gexec" | psql_on postgres
    url
}

psql_on() {
    as_owner "$(bin_dir)/psql" -X -q -v ON_ERROR_STOP=1 -h "$(socket_dir)" -U ota -d "$1"
}

fill() {
    # Two commands, because neither may share a transaction.
    echo 'DROP DATABASE IF EXISTS ota WITH (FORCE)' | psql_on postgres
    echo 'CREATE DATABASE ota' | psql_on postgres
    for migration in "$migrations"/*.sql; do
        { echo 'BEGIN;'; cat "$migration"; echo 'COMMIT;'; } | psql_on ota || die "cannot apply $migration"
    done
}

stop() {
    [ -d "$folder/data" ] || return 0
    bin=$(bin_dir)
    if as_owner "$bin/pg_ctl" -D "$folder/data" status >/dev/null 2>&1; then
        as_owner "$bin/pg_ctl" -D "$folder/data" -m fast -w -s stop
    fi
}

action=${1:-}
if [ "$action" = bin ]; then
    bin_dir
    exit
fi
[ $# -eq 2 ] || die "usage: postgres.sh bin | start FOLDER | fill FOLDER | url FOLDER | stop FOLDER"
migrations=$(cd "$(dirname "$0")/../migrations" && pwd)
case $2 in
/*) folder=$2 ;;
*) folder=$(pwd)/$2 ;;
esac
owner=postgres
id "$owner" >/dev/null 2>&1 || owner=nobody
# initdb and psql complain when they cannot enter the current folder.
cd /
case $action in
start | fill | url | stop) "$action" ;;
*) die "unknown action $action" ;;
esac
