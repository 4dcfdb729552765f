#!/bin/sh
# The development database, kept under .tools/devdb: lets the compile-time checked queries be built online.
#
#   eval "$(scripts/devdb.sh start)"   starts it and sets DATABASE_URL
#   scripts/devdb.sh reset             empties it and applies every migration
#   scripts/devdb.sh url               prints its URL
#   scripts/devdb.sh stop              stops it
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=$(dirname "$here")/.tools/devdb

case ${1:-} in
start)
    url=$("$here/postgres.sh" start "$folder")
    echo "export DATABASE_URL='$url'"
    ;;
reset) "$here/postgres.sh" fill "$folder" ;;
url | stop) "$here/postgres.sh" "$1" "$folder" ;;
*)
    echo "usage: devdb.sh start|reset|url|stop" >&2
    exit 2
    ;;
esac
