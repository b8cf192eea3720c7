#!/bin/sh
# Packs the root file system of a guest: busybox, and programs of this machine with the shared libraries they need, each
# where it is found here.
#
#   tests/kernels/image.sh IMAGE PROGRAM...
#
# Criterion runs a test in a process that its dynamic loader has to start, so a static runner is not to be had; and the
# libraries are those that the programs were linked with. Below /ringpool is what the tests look for in a checkout, with
# BUILD as `build`.
set -eu

image=$1
shift
root=$(mktemp -d)
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT

add() { # file...: below the root as here
    for file; do
        mkdir -p "$root$(dirname "$file")"
        [ -e "$root$file" ] || cp -L "$file" "$root$file"
    done
}

# The dynamic loader and all that it loads.
libraries() { # program...
    for program; do ldd "$program" 2>/dev/null || :; done | sed -n 's/^.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' | sort -u
}

mkdir -p "$root/bin" "$root/busybox" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/etc" "$root/ringpool/build"
busybox=$(command -v busybox)
cp -L "$busybox" "$root/bin/busybox"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"

# Of these the tests want more than busybox can do; and its shell, like its timeout, would take its own all the same.
tools=/bin/sh
for tool in timeout env rm date setpriv prlimit unshare taskset; do
    tool=$(command -v $tool) && tools="$tools $tool"
done
# shellcheck disable=SC2046,SC2086 # one word per file
add $tools $(libraries "$busybox" $tools "$@")
# glibc loads this one when a thread exits or is cancelled; no program names it.
add "$(dirname "$(libraries "$@" | grep -m 1 '/libc\.so')")/libgcc_s.so.1"
[ ! -e /etc/ld.so.cache ] || add /etc/ld.so.cache

for program; do
    to=$root/ringpool/build/${program#"$BUILD"/}
    mkdir -p "$(dirname "$to")"
    cp "$program" "$to"
    strip --strip-debug "$to"
done
mkdir -p "$root/ringpool/tests"
cp -R tests/support tests/fault "$root/ringpool/tests"
cp tests/kernels/init "$root/init"

(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$image.new"
mv "$image.new" "$image"
