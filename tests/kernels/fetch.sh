#!/bin/sh
# Gets the newest cloud kernel of a Debian suite, installing nothing.
#
#   tests/kernels/fetch.sh SUITE DIRECTORY
#
# Leaves it as DIRECTORY/vmlinuz, where later calls find it. apt does the work, with lists and a source of its own below
# DIRECTORY: the mirror, its key and the way there are those that this machine's own apt is set up with. Where it cannot
# be had the last line on stderr says why.
set -eu

suite=$1
directory=$2
[ ! -e "$directory/vmlinuz" ] || exit 0

fail() {
    echo "$1" >&2
    exit 1
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "no apt here to get the package with"

# The archive that this machine's own release comes from, if that is Debian's.
release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
source=$(apt-get indextargets 'Created-By: Packages' "Release: $release" 2>/dev/null | awk '
    /^Repo-URI: / { uri = $2 }
    /^Signed-By: / && $2 ~ "^/" { key = "[signed-by=" $2 "] " }
    /^$/ { exit }
    END { if (uri) print "deb " key uri }')
[ -n "$source" ] || fail "apt has no source for $release, the release of this machine"

mkdir -p "$directory/lists/partial" "$directory/archives/partial" "$directory/unpacked"
directory=$(cd "$directory" && pwd)
trap 'rm -rf "$directory/lists" "$directory/archives" "$directory/unpacked"' EXIT
echo "$source $suite main" >"$directory/source.list"

apt() { # program, argument...
    program=$1
    shift
    "$program" -qq -o APT::Architecture=amd64 -o Dir::Etc::SourceList="$directory/source.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$directory/lists" -o Dir::Cache::archives="$directory/archives" -o Dir::Cache::pkgcache= \
        -o Dir::Cache::srcpkgcache= -o Acquire::Languages=none -o APT::Sandbox::User= "$@"
}

apt apt-get update -o APT::Update::Error-Mode=any >"$directory/apt.log" 2>&1 ||
    fail "apt cannot read the suite $suite: $(grep -m 1 '^[EW]:' "$directory/apt.log")"
package=$(apt apt-cache show linux-image-cloud-amd64 2>/dev/null |
    sed -n 's/^Depends: .*\(linux-image-[0-9][^ ,]*\).*/\1/p' | tail -n 1)
[ -n "$package" ] || fail "the suite $suite has no linux-image-cloud-amd64"
(cd "$directory/archives" && apt apt-get download "$package") >"$directory/apt.log" 2>&1 ||
    fail "apt cannot download $package: $(grep -m 1 '^[EW]:' "$directory/apt.log")"
dpkg-deb -x "$directory"/archives/*.deb "$directory/unpacked"
mv "$directory"/unpacked/boot/vmlinuz-* "$directory/vmlinuz"
