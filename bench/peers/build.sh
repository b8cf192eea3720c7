#!/bin/sh
# Builds the peers that this machine can build, into FOLDER (default build/bench/peers), and names each one that it
# skips with the reason. Fails only if there is none at all. Needs no network; `make bench-deps` installs the packages:
#
#   libuv1-dev libglib2.0-dev libtbb-dev libboost-dev golang-go default-jdk-headless cargo
#   librust-crossbeam-channel-dev librust-rayon-dev
#
#   bench/peers/build.sh [FOLDER]
#
# FOLDER/list says afterwards what there is: one line each, "NAME COMMAND...".
set -u

cd "$(dirname "$0")/../.." || exit 1
out=${1:-build/bench/peers}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
CC=${CC:-gcc}
CXX=${CXX:-g++}
log=$out/build.log
: >"$log"
: >"$out/list.new"
: >"$out/skipped"

ready() { echo "$1 $2" >>"$out/list.new"; echo "  PEER    $1"; }
skip() { echo "$1: $2" | tee -a "$out/skipped" | sed 's/^/  SKIPPED /'; }
have() { command -v "$1" >/dev/null 2>&1; }
# Nothing to do if no source is newer.
fresh() { # target, source...
    target=$1
    shift
    [ -e "$target" ] && [ -z "$(find "$@" -newer "$target" -type f)" ]
}

FLAGS="-O2 -g -pthread -D_GNU_SOURCE -Ibench -Itools -Iinclude"

# --- C and C++: the workloads of bench/ with another executor ---------------------------------------------------------

# Of what the workloads share with the command only the text functions are linked, without those that need the library:
# hence the sections.
shared="bench/args.c bench/record.c bench/meter.c bench/histogram.c src/base/histogram.c bench/workload.c bench/flood.c bench/latency.c
    bench/idle.c bench/fanout.c bench/peers/main.c tools/text.c"
read="bench tools src/base/histogram.c include/ringpool/histogram.h"
objects=
for source in $shared; do
    object=$out/$(echo "${source%.c}" | tr / -).o
    objects="$objects $object"
    # shellcheck disable=SC2086 # these are words
    fresh "$object" $read || $CC -std=gnu11 -Wall -Wextra $FLAGS -ffunction-sections -c "$source" -o "$object" \
        >>"$log" 2>&1 || { cat "$log"; exit 1; }
done

native() { # name, source, compiler with its flags, header to probe, package, libraries
    name=$1 source=$2 compile=$3 probe=$4 package=$5 libraries=$6
    # shellcheck disable=SC2086
    if [ -n "$probe" ] && ! echo "#include <$probe>" | $compile $FLAGS -E - >/dev/null 2>&1; then
        skip "$name" "no <$probe> (package $package)"
    elif fresh "$out/$name" $read || { $compile -Wall -Wextra $FLAGS -c "$source" -o "$out/$name.o" &&
        ${compile%% *} $FLAGS "$out/$name.o" $objects -Wl,--gc-sections $libraries -lm -o "$out/$name"; } \
        >>"$log" 2>&1; then
        ready "$name" "$out/$name"
    else
        skip "$name" "does not build, see $log"
    fi
}

pkg() { pkg-config "$@" 2>/dev/null; }
native mutex bench/peers/mutex.c "$CC -std=gnu11" "" "" ""
native floor-ring bench/peers/floor.c "$CC -std=gnu11 -DFLOOR_SPINS" "" "" ""
native floor-shares bench/peers/shares.c "$CC -std=gnu11" "" "" ""
native floor-futex bench/peers/floor.c "$CC -std=gnu11" "" "" ""
native libuv bench/peers/libuv.c "$CC -std=gnu11" uv.h libuv1-dev "$(pkg --libs libuv || echo -luv)"
native glib bench/peers/glib.c "$CC -std=gnu11 $(pkg --cflags glib-2.0)" glib.h libglib2.0-dev "$(pkg --libs glib-2.0)"
native openmp bench/peers/openmp.c "$CC -std=gnu11 -fopenmp" omp.h gcc "-fopenmp"
native tbb bench/peers/tbb.cpp "$CXX -x c++ -std=c++17" tbb/task_group.h libtbb-dev "-ltbb"
native asio bench/peers/asio.cpp "$CXX -x c++ -std=c++17" boost/asio/thread_pool.hpp libboost-dev ""

# --- Go ---------------------------------------------------------------------------------------------------------------

if ! have go; then
    skip go "no go (package golang-go)"
elif fresh "$out/go" bench/peers/go || (cd bench/peers/go &&
    GOFLAGS=-mod=mod GOPROXY=off GOTOOLCHAIN=local GOCACHE="$out/gocache" go build -o "$out/go" .) >>"$log" 2>&1; then
    ready go-channel "$out/go channel"
    ready go-spawn "$out/go spawn"
    ready go-lifo "$out/go lifo"
else
    skip go "does not build, see $log"
fi
skip ants "a Go module that would have to be fetched; go-lifo has its design, bars.py its recorded figures"

# --- Java -------------------------------------------------------------------------------------------------------------

if ! have javac; then
    skip java "no javac (package default-jdk-headless)"
elif fresh "$out/java/Peer.class" bench/peers/java ||
    javac -d "$out/java" bench/peers/java/Peer.java >>"$log" 2>&1; then
    ready java-forkjoin "java -Xss256k -cp $out/java Peer forkjoin"
    ready java-fixed "java -Xss256k -cp $out/java Peer fixed"
else
    skip java "does not build, see $log"
fi

# --- Rust: the crates of Debian as a registry of their own, so that nothing is fetched --------------------------------

registry=/usr/share/cargo/registry
if ! have cargo; then
    skip rust "no cargo (package cargo)"
elif ! ls -d $registry/crossbeam-channel-* $registry/rayon-1* >/dev/null 2>&1; then
    skip rust "no crates in $registry (packages librust-crossbeam-channel-dev librust-rayon-dev)"
else
    rm -rf "$out/rust-src"
    mkdir -p "$out/rust-src/.cargo"
    cp -r bench/peers/rust/. "$out/rust-src"
    printf '[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "%s"\n' $registry \
        >"$out/rust-src/.cargo/config.toml"
    if fresh "$out/rust" bench/peers/rust || (cd "$out/rust-src" &&
        PEER_RUSTC=$(rustc --version) CARGO_TARGET_DIR="$out/rust-target" cargo build --release --offline &&
        cp "$out/rust-target/release/peer" "$out/rust") >>"$log" 2>&1; then
        ready crossbeam "$out/rust crossbeam"
        ready rayon "$out/rust rayon"
    else
        skip rust "does not build, see $log"
    fi
fi

mv "$out/list.new" "$out/list"
[ -s "$out/list" ]
