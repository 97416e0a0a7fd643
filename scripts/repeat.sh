#!/usr/bin/env bash
# Runs the integration tests N times, in turn parallel and serial, and stops at the first failure.
#
#   scripts/repeat.sh N [FILTER...]
#
# What follows N goes to the test binary, for example the name of one test.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! [[ ${1-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: scripts/repeat.sh N [FILTER...]" >&2
    exit 2
fi
runs=$1
shift

log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --quiet --test it --no-run
for ((run = 1; run <= runs; run++)); do
    if ((run % 2)); then
        order=(parallel)
    else
        order=(serial --test-threads=1)
    fi
    started=$SECONDS
    # Before the run, so that it can be seen which one hangs.
    printf 'run %d of %d, %s: ' "$run" "$runs" "${order[0]}"
    status=0
    cargo test --quiet --test it -- "${order[@]:1}" "$@" </dev/null >"$log" 2>&1 || status=$?
    if [ $status != 0 ]; then
        echo "FAILED after $((SECONDS - started)) s"
        cat "$log"
        exit $status
    fi
    echo "ok, $((SECONDS - started)) s"
done
