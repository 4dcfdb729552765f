#!/bin/sh
# Builds the container image as localhost/ota:<version>, with buildah or, where that cannot be had, with docker. The same
# sources make the same image: its files carry the time of the last commit.
#
#   [OUT=FILE] scripts/image.sh    OUT: also writes an archive for `docker load` or `podman load`
#
# Prints the image's name on standard output.
set -eu

cd "$(dirname "$0")/.."
say() { printf 'image: %s\n' "$*" >&2; }

scripts/setup.sh toolchain musl certificates
if ! { scripts/setup.sh buildah || docker version >/dev/null 2>&1; }; then
    say "there is neither buildah nor a docker that runs"
    exit 1
fi

target=$(uname -m)-unknown-linux-musl
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name=localhost/ota:$version
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r "$epoch" +%Y-%m-%dT%H:%M:%SZ)

export SQLX_OFFLINE=true
began=$(date +%s)
cargo build --profile small --target "$target" -p ota-server -p otactl >&2
say "programs: $(($(date +%s) - began)) s"

# All that the build may see.
built=${CARGO_TARGET_DIR:-target}/$target/small
context=target/image
rm -rf "$context"
mkdir -p "$context/data"
cp "$built/ota-server" "$built/otactl" "$context/"
cp .tools/certificates/ca-certificates.crt "$context/"
chmod 755 "$context" "$context/data" "$context/ota-server" "$context/otactl"
chmod 644 "$context/ca-certificates.crt"
find "$context" -exec touch -h -d "$created" {} +

set -- -t "$name" -f deploy/Containerfile \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created" "$context"
if command -v buildah >/dev/null; then
    # Where the file system cannot stack layers, they are copied.
    buildah info >/dev/null 2>&1 || export STORAGE_DRIVER=vfs
    # Nothing runs during the build, so it needs no sandbox, which many build machines could not give it.
    buildah bud --quiet --isolation chroot --timestamp "$epoch" "$@" >/dev/null
    if [ -n "${OUT:-}" ]; then
        rm -f "$OUT"
        buildah push --quiet "$name" "docker-archive:$OUT:$name" >&2
    fi
else
    SOURCE_DATE_EPOCH=$epoch docker build --quiet "$@" >/dev/null
    [ -z "${OUT:-}" ] || docker save -o "$OUT" "$name"
fi

bytes=$(find "$context" -type f -exec cat {} + | wc -c)
compressed=$(tar -C "$context" -c . | gzip | wc -c)
say "$name: $bytes bytes, $compressed compressed${OUT:+, also in $OUT}"
echo "$name"
