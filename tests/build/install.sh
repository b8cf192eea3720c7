#!/bin/sh
# A staged installation is complete: a program finds the library by pkg-config alone, links it shared and static, runs;
# and uninstall leaves no file behind.
set -eu

# The makes below are runs of their own: no job server to share, and the variables of the command line come along in
# the environment.
unset MAKEFLAGS MFLAGS

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage

${MAKE:-make} -s install DESTDIR="$stage" PREFIX=/usr >/dev/null
cat >"$work/user.c" <<'EOF'
#include <ringpool.h>
#include <string.h>
int main(void)
{
    return strcmp(rp_version(), RP_VERSION) != 0;
}
EOF

# Only the paths of ringpool's own .pc lie in the stage; its dependencies are the machine's.
query="pkg-config --define-variable=prefix=$stage/usr --define-variable=libdir=$stage/usr/lib
    --define-variable=includedir=$stage/usr/include"
export PKG_CONFIG_PATH="$stage/usr/lib/pkgconfig"
# shellcheck disable=SC2046,SC2086 # flags
{
    $CC "$work/user.c" $($query --cflags --libs ringpool) -o "$work/shared"
    $CC "$work/user.c" $($query --cflags ringpool) -Wl,-Bstatic -L"$stage/usr/lib" -lringpool -Wl,-Bdynamic \
        $($query --static --libs ringpool | sed 's/-lringpool//') -o "$work/static"
}
LD_LIBRARY_PATH="$stage/usr/lib" "$work/shared"
"$work/static"

${MAKE:-make} -s uninstall DESTDIR="$stage" PREFIX=/usr
if left=$(find "$stage" ! -type d | grep .); then
    echo "install: uninstall left behind: $left" >&2
    exit 1
fi
echo "install: found by pkg-config, linked shared and static, uninstalled"
