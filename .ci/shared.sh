# What the scripts here share: how to install packages and tools, how to find a compiler for another
# target, or Debian's, which can build the standard library for it from source. `logs` is the folder
# for what commands print: a script that installs packages or calls `logged` sets it first.

say() { echo "--- $*"; }

fail() {
    echo "$0: FAILED: $*" >&2
    exit 1
}

# logged NAME SECONDS COMMAND...: runs it silently, for so long at most, and shows what it printed
# only if it fails. What it leaves running (Wine does) holds on to a file then, and not to
# anybody's pipe.
logged() {
    local log=$logs/$1.log
    timeout --kill-after=10 "$2" "${@:3}" </dev/null >"$log" 2>&1 && return
    local status=$?
    cat "$log" >&2
    [ "$status" -ne 124 ] || echo "not done within $2 seconds" >&2
    fail "$1"
}

on_path() { command -v "$1" >/dev/null; }

# install_tool NAME: the cargo command of that name, where it is missing.
install_tool() {
    on_path "$1" && return
    local begun=$SECONDS
    # They run for a short time: to optimise them would take longer than it saves.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install "$1" --locked --quiet --debug
    echo "$1 installed in $((SECONDS - begun)) s"
}

# toolchain_has TRIPLE: the Rust on PATH has its standard library.
toolchain_has() {
    on_path cargo && on_path rustc && [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$1/lib" ]
}

# Debian's compiler: new enough, and with the source of its standard library.
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

# choose_cargo TRIPLE: adds to `cargo`, the command, and to `options` what builds for it.
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

# count LOG: shows each program with its result, and each test that did not run with the reason.
# Sets `passed` and `ignored`, and fails if a test has failed, or none has run.
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
