#!/bin/sh
# Makes images with the names that deploy/compose.yaml has for its database and its store, where no registry is at hand:
# this machine's Postgres and the SeaweedFS of scripts/setup.sh object-store, each with a shell, and nothing else.
#
#   images.sh FOLDER WEED POSTGRES_BIN POSTGRES_IMAGE SEAWEEDFS_IMAGE
set -eu

folder=$1 weed=$2 postgres=$3 postgres_image=$4 seaweedfs_image=$5
here=$(cd "$(dirname "$0")" && pwd)
busybox=$(command -v busybox)

# Begins a root folder with a shell and what shells call.
begin() {
    mkdir -p "$1/bin" "$1/etc" "$1/tmp"
    cp "$busybox" "$1/bin/busybox"
    for name in sh cat chown su wget; do ln -s busybox "$1/bin/$name"; done
}

# Copies a file to the same place beneath a root folder.
keep() {
    mkdir -p "$2$(dirname "$1")"
    cp -L "$1" "$2$1"
}

root=$folder/postgres
begin "$root"
mkdir -p "$root/run/postgresql" "$root/var/lib/postgresql/data"
printf 'root:x:0:0:root:/:/bin/sh\npostgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\npostgres:x:999:\n' >"$root/etc/group"
for program in postgres initdb pg_isready; do
    keep "$postgres/$program" "$root"
    ln -s "$postgres/$program" "$root/bin/$program"
    ldd "$postgres/$program"
done | grep -o '/[^ ]*' | sort -u | while read -r library; do keep "$library" "$root"; done
share=$("$postgres/pg_config" --sharedir)
library=$("$postgres/pg_config" --pkglibdir)
mkdir -p "$root$share" "$root$library"
cp -R "$share/." "$root$share"
cp "$library/plpgsql.so" "$library/dict_snowball.so" "$root$library/"
keep /usr/share/zoneinfo/UTC "$root"
cp "$here/postgres.sh" "$root/bin/postgres.sh"

root=$folder/seaweedfs
begin "$root"
mkdir -p "$root/data"
cp "$weed" "$root/bin/weed"

build() {
    buildah bud --quiet --isolation chroot -t "$2" -f - "$folder/$1" >/dev/null
}
printf 'FROM scratch\nCOPY . /\nSTOPSIGNAL SIGINT\nENTRYPOINT ["/bin/sh", "/bin/postgres.sh"]\n' | build postgres "$postgres_image"
printf 'FROM scratch\nCOPY . /\n' | build seaweedfs "$seaweedfs_image"
