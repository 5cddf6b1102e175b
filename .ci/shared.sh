# Shared by the scripts here: installs packages and tools, and finds a compiler for another target. If the
# Rust on PATH does not have the target, Debian's compiler can build the standard library for it from source.
# `logs` is the folder for the output of commands. A script that installs packages or calls `logged` must set
# it first.

say() { echo "--- $*"; }

fail() {
    echo "$0: FAILED: $*" >&2
    exit 1
}

# logged NAME SECONDS COMMAND...: runs COMMAND silently for at most SECONDS, and shows its output only if it
# fails. The output goes to a file, because a process that COMMAND leaves running (as Wine does) would keep a
# pipe open.
logged() {
    local log=$logs/$1.log
    timeout --kill-after=10 "$2" "${@:3}" </dev/null >"$log" 2>&1 && return
    local status=$?
    cat "$log" >&2
    [ "$status" -ne 124 ] || echo "not done within $2 seconds" >&2
    fail "$1"
}

on_path() { command -v "$1" >/dev/null; }

# install_tool NAME: installs the cargo command of that name if it is missing.
install_tool() {
    on_path "$1" && return
    local begun=$SECONDS
    # Unoptimised, because the tools run so briefly that to optimise them takes longer than it saves.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install "$1" --locked --quiet --debug
    echo "$1 installed in $((SECONDS - begun)) s"
}

# toolchain_has TRIPLE: succeeds if the Rust on PATH has the standard library of that target.
toolchain_has() {
    on_path cargo && on_path rustc && [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$1/lib" ]
}

# system_rust: succeeds if Debian's compiler is new enough and has the source of the standard library.
system_rust() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] || return
    local declared actual
    declared=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    actual=$(/usr/bin/rustc --version | cut -d ' ' -f 2)
    printf '%s\n' "$declared" "$actual" | sort --version-sort --check=quiet &&
        [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]
}

system_rust_packages=(rustc-web cargo-web rust-web-src libstd-rust-web-dev)

# install_packages PACKAGE...
install_packages() {
    [ $# -gt 0 ] || return 0
    say "installing $*"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get
        -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    [ "$(id -u)" -eq 0 ] || apt=(sudo "${apt[@]}")
    logged apt-get-update 300 "${apt[@]}" update
    logged apt-get-install 1200 "${apt[@]}" install --yes --no-install-recommends "$@"
}

# choose_cargo TRIPLE: appends the cargo that can build for TRIPLE to `cargo`, and its options to `options`.
choose_cargo() {
    if toolchain_has "$1"; then
        cargo+=(cargo)
        say "$(rustc --version), which has $1"
    else
        system_rust || fail "no compiler of Debian's that can build for $1"
        cargo+=(RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo)
        options+=("-Zbuild-std=std,panic_unwind,test")
        say "$(/usr/bin/rustc --version), with a standard library for $1 built from its source"
    fi
}

# count LOG: shows the result of each program, and each ignored test with its reason. Sets `passed` and
# `ignored`. Fails if a test has failed, or if none has run.
count() {
    awk '
        /^ +Running / { program = $2 == "unittests" ? $3 : $2 }
        /^test .* \.\.\. ignored/ { print "ignored: " program ": " substr($0, 6) }
        /^test result: / {
            printf "%-24s %4d passed, %d failed, %d ignored\n", program, $4, $6, $8
        }' "$1"
    local failed
    read -r passed failed ignored < <(
        awk '/^test result: / { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$1"
    )
    [ "$failed" -eq 0 ] || fail "tests"
    [ "$passed" -gt 0 ] || fail "no test has run"
}
