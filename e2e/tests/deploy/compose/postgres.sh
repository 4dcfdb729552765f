#!/bin/sh
# What the official image does when it starts, as far as deploy/compose.yaml counts on it.
set -eu

data=/var/lib/postgresql/data
chown postgres:postgres "$data" /run/postgresql
if [ ! -s "$data/PG_VERSION" ]; then
    su postgres -c "initdb -D $data -U $POSTGRES_USER -A scram-sha-256 --pwfile=$POSTGRES_PASSWORD_FILE -E UTF8 --locale=C"
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | su postgres -c "postgres --single -D $data postgres"
fi
exec su postgres -c "exec postgres -D $data -k /run/postgresql -c listen_addresses=*"
