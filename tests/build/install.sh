#!/bin/sh
# A staged installation is complete: a program finds the library by pkg-config alone, links it shared and static, and
# runs, as does one without any shared library; and uninstall leaves no file behind.
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
static void increment(void *arg)
{
    ++*(int *)arg;
}
int main(void)
{
    struct rp_pool *pool;
    int n = 0;
    return strcmp(rp_version(), RP_VERSION) || rp_pool_create(&pool, 1, NULL) ||
           rp_pool_submit(pool, increment, &n) || rp_pool_destroy(pool) || n != 1;
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

# A program without any shared library, where there is what to link it with.
whole=
# shellcheck disable=SC2046,SC2086 # flags
if echo 'int main(void) { return 0; }' |
    $CC -static -x c - -x none $(pkg-config --static --libs liburing liburcu-bp) -o "$work/whole" 2>/dev/null; then
    $CC -static "$work/user.c" $($query --static --cflags --libs ringpool) -o "$work/whole"
    "$work/whole"
    whole=", as a whole too"
else
    echo "install: a program without shared libraries is not tried: some static library is missing here"
fi

${MAKE:-make} -s uninstall DESTDIR="$stage" PREFIX=/usr
if left=$(find "$stage" ! -type d | grep .); then
    echo "install: uninstall left behind: $left" >&2
    exit 1
fi
echo "install: found by pkg-config, linked shared and static$whole, uninstalled"
