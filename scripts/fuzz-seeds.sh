#!/bin/sh
# Takes over into fuzz/seeds what fuzzing found: of the fewest inputs that reach as much as all of them, 64 for a target, of
# every length. Seeds with a name of their own stay as they are; the others are replaced.
#
#   scripts/fuzz-seeds.sh [TARGET...]    default: every target that has a corpus
set -eu

cd "$(dirname "$0")/../fuzz"
most=64
export RUSTC_BOOTSTRAP=1
if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046 # one word each
    set -- $(ls corpus)
fi
for target; do
    least=$(mktemp -d)
    cargo fuzz run --fuzz-dir . --sanitizer none "$target" "$least" "corpus/$target" "seeds/$target" -- \
        -merge=1 -max_len=16384 2>/dev/null
    # A find is named after its hash.
    for seed in "seeds/$target"/*; do
        case $(basename "$seed") in
        [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]*) rm "$seed" ;;
        *) rm -f "$least/$(sha1sum "$seed" | cut -d ' ' -f 1)" ;;
        esac
    done
    ls -Sr "$least" | awk -v all="$(ls "$least" | wc -l)" -v most="$most" \
        'all <= most || int(NR * most / all) != int((NR - 1) * most / all)' |
        while read -r found; do cp "$least/$found" "seeds/$target/"; done
    rm -r "$least"
    printf '%s: %s seeds\n' "$target" "$(ls "seeds/$target" | wc -l)"
done
