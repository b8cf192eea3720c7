#!/bin/sh
# Makes sure that what a goal of make needs is on this machine.
#
#   tools/setup.sh GROUP...     groups: build test sanitize mutants coverage memcheck neighbours kernels lint fmt bench peers
#
# Says nothing and calls no package manager when all is there, which costs some milliseconds. Else, on Debian and its
# kin as root, it installs what is missing; anywhere else it names the packages and fails before anything was built.
# CC and CXX in the environment say which compilers are meant.
set -eu

CC=${CC:-gcc}
CXX=${CXX:-g++}
missing=

need() { # package, test...
    package=$1
    shift
    "$@" >/dev/null 2>&1 && return
    case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
}

program() { command -v "$1"; }
library() { command -v pkg-config && pkg-config --exists "$1"; }
header() { [ -e "/usr/include/$1" ] || [ -n "$(ls /usr/include/*/"$1" 2>/dev/null)" ]; }
crate() { ls -d /usr/share/cargo/registry/"$1"-[0-9]*; }
sanitizer() { echo 'int main(void) { return 0; }' | ${CC} -fsanitize="${SANITIZE:-address}" -x c - -o /dev/null; }

# The package that brings a compiler; for names with a version (clang-16) it is the name itself.
compiler_package() {
    case ${1##*/} in
    cc) echo gcc ;;
    clang++) echo clang ;;
    clang++-*) echo "clang-${1##*-}" ;;
    *) echo "${1##*/}" ;;
    esac
}

for group; do
    case $group in
    build)
        need "$(compiler_package "${CC%% *}")" program "${CC%% *}"
        need libc6-dev header stdlib.h
        need binutils program objcopy
        need pkg-config program pkg-config
        need liburing-dev library liburing
        need liburcu-dev library liburcu-bp
        need zlib1g-dev library zlib
        ;;
    test)
        need "$(compiler_package "${CXX%% *}")" program "${CXX%% *}"
        need libcriterion-dev library criterion
        need python3 program python3
        ;;
    sanitize)
        # gcc brings its runtimes along, clang has them in a package of their own.
        case ${CC##*/} in
        clang*) need "libclang-rt-$(clang_version=$(${CC} -dumpversion 2>/dev/null) && echo "${clang_version%%.*}" ||
            echo 14)-dev" sanitizer ;;
        esac
        ;;
    mutants)
        need patch program patch
        ;;
    neighbours)
        need stress-ng program stress-ng
        ;;
    kernels)
        need qemu-system-x86 program qemu-system-x86_64
        need busybox-static program busybox
        need cpio program cpio
        ;;
    coverage)
        need gcovr program gcovr
        ;;
    memcheck)
        need valgrind program valgrind
        ;;
    lint)
        need clang program clang
        need clang-tidy program clang-tidy
        need cppcheck program cppcheck
        ;;
    fmt) need clang-format program clang-format ;;
    bench) need python3 program python3 ;;
    peers)
        need "$(compiler_package "${CXX%% *}")" program "${CXX%% *}"
        need libuv1-dev library libuv
        need libglib2.0-dev library glib-2.0
        need libtbb-dev header tbb/task_group.h
        need libboost-dev header boost/asio/thread_pool.hpp
        need golang-go program go
        need default-jdk-headless program javac
        need rustc program rustc
        need cargo program cargo
        need librust-crossbeam-channel-dev crate crossbeam-channel
        need librust-rayon-dev crate rayon
        ;;
    *)
        echo "setup: no group is called $group" >&2
        exit 2
        ;;
    esac
done

[ -n "$missing" ] || exit 0

# Debian, or a distribution that says it is like it.
debian() {
    command -v apt-get >/dev/null 2>&1 || return 1
    [ -r /etc/os-release ] || return 0
    (. /etc/os-release && case " ${ID-} ${ID_LIKE-} " in *" debian "*) ;; *) false ;; esac)
}

if ! debian; then
    echo "setup: missing here; by the names that Debian gives the packages:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "setup: missing here; install as root: apt-get install$missing" >&2
    exit 1
fi

echo "  SETUP  $missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # one word per package
if ! { apt-get -o DPkg::Lock::Timeout=600 update &&
    apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing; } </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    echo "setup: could not install$missing" >&2
    exit 1
fi
