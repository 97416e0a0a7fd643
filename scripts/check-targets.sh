#!/usr/bin/env bash
# Compile-checks the library, with all its dependencies, for targets this machine cannot run.
#
#   scripts/check-targets.sh [TARGET...]
#
# Where the toolchain has a target's standard library (rustup target add TARGET), that is used. For all others the standard
# library is compiled from Debian's packages rustc-web and rust-web-src; as root, the script installs them where they are
# missing. Prints `ok TARGET` for each target, followed by the warnings, if any; or `FAILED TARGET` and what cargo said.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=("$@")
if [ $# = 0 ]; then
    targets=(aarch64-apple-darwin x86_64-unknown-freebsd aarch64-unknown-linux-gnu x86_64-unknown-linux-musl)
fi

# A directory of its own: two compilers that take turns in one directory would each throw away what the other has built.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/targets"
# Nothing is run, so nobody debugs it.
export CARGO_PROFILE_DEV_DEBUG=0

# The paths where Debian puts its compiler and, below that compiler's sysroot, the sources that -Zbuild-std looks for.
debian_rustc=/usr/bin/rustc
debian_sources=/usr/lib/rustlib/src/rust/library/std/Cargo.toml

toolchain_has() {
    local folder
    folder=$(rustc --print target-libdir --target "$1" 2>/dev/null) && compgen -G "$folder/libstd-*.rlib" >/dev/null
}

install_debian_compiler() {
    if [ -x "$debian_rustc" ] && [ -e "$debian_sources" ]; then
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "no standard library for: $*" >&2
        echo "either install the packages rustc-web and rust-web-src, or run: rustup target add $*" >&2
        exit 1
    fi
    {
        # A source that cannot be reached may be one that is not needed: installing tells.
        apt-get update -qq || true
        # Without the recommended cargo-web: the cargo in use stays the one that the developer has chosen.
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web rust-web-src
    } </dev/null >&2
}

# Debian's compiler calls itself stable; RUSTC_BOOTSTRAP lets it, and the cargo that asks it, take unstable options.
check_with_own_std() {
    RUSTC=$debian_rustc RUSTC_BOOTSTRAP=1 cargo check --quiet --lib -Zbuild-std=std,panic_abort "$@"
}

check_directly() {
    cargo check --quiet --lib "$@"
}

declare -A check
without_std=()
for target in "${targets[@]}"; do
    if toolchain_has "$target"; then
        check[$target]=check_directly
    else
        check[$target]=check_with_own_std
        without_std+=("$target")
    fi
done
if [ ${#without_std[@]} -gt 0 ]; then
    install_debian_compiler "${without_std[@]}"
    # All at once, because a standard library alone does not keep two processors busy. The loop below, which finds nearly
    # everything done, tells which target failed and why.
    check_with_own_std "${without_std[@]/#/--target=}" >/dev/null 2>&1 || true
fi

failed=0
for target in "${targets[@]}"; do
    if output=$("${check[$target]}" --target "$target" 2>&1); then
        echo "ok $target"
    else
        echo "FAILED $target"
        failed=1
    fi
    if [ -n "$output" ]; then
        printf '%s\n' "$output"
    fi
done
exit $failed
