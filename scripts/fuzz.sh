#!/bin/sh
# Fuzzes one parser after the other, each for some time. Finds are kept in fuzz/artifacts, and fail the run.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]    default: 300 seconds for every target
set -eu

cd "$(dirname "$0")/../fuzz"
seconds=${1:-300}
[ $# -eq 0 ] || shift
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --version 0.13.2 --locked >&2
# libFuzzer's instrumentation is an unstable flag of the compiler; this lets a stable one take it. No sanitizer: the code has
# no unsafe block of its own.
export RUSTC_BOOTSTRAP=1
# Some targets write and sync files, which a disk is slow at.
[ ! -d /dev/shm ] || export TMPDIR=/dev/shm
if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046 # one word each
    set -- $(cargo fuzz list --fuzz-dir .)
fi
for target; do
    mkdir -p "corpus/$target"
    # What is stored holds several documents.
    case $target in chain | trust_store) longest=16384 ;; *) longest=4096 ;; esac
    cargo fuzz run --fuzz-dir . --sanitizer none "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -max_len="$longest" -print_final_stats=1
done
