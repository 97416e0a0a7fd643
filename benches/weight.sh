#!/bin/sh
# How much does the library weigh? The number of crates that default features bring, and the time of a cold build.
# usage: benches/weight.sh [rounds]
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}

crates() {
    # The library itself is not counted.
    cargo tree --edges "$1" --prefix none --no-dedupe | sed 's/ (\*)$//' | sort -u | grep -vc '^procession '
}
echo "crates used at run time: $(crates normal)"
echo "with those needed to build: $(crates normal,build)"

target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
cargo fetch --quiet
for profile in dev release; do
    times=
    for _ in $(seq "$rounds"); do
        rm -rf "${target:?}"/*
        start=$(date +%s%N)
        CARGO_TARGET_DIR=$target cargo build --quiet --lib --profile "$profile"
        times="$times $((($(date +%s%N) - start) / 1000000))"
    done
    middle=$(printf '%s\n' $times | sort -n | sed -n "$(((rounds + 1) / 2))p")
    echo "cold build, $profile, $(nproc) processors: $middle ms (of$times)"
done
