#!/bin/bash
# The tests on old kernels: boots Debian's in qemu, which emulates the processor, and runs the suite in each.
#
#   tests/kernels/run.sh [BOOT...]     5.10 6.1 6.12 denied; all if none is named
#
# Used by the Makefile, which passes BUILD and TESTS, a pattern of tests. Every boot has its expectation of rp_backend():
# a probe that denies itself what a kernel grants would otherwise pass all tests, on epoll. Fails if a test fails, a guest
# panics, ends early or takes longer than KERNEL_TIMEOUT seconds (2400), or the backend is another. What cannot be had
# (qemu, a kernel's package) is SKIPPED, with the reason, and fails nothing.
#
# A guest that ends before its first process has said a word is booted again, twice at most, and it is told: nothing of
# ours had run. Where the host is busy the emulator now and then runs an int3 that the kernel had already patched away
# in its own text (`Oops: int3: 0000`, seen with 6.12 some 5 s after its start).
set -uo pipefail

BUILD=${BUILD:-build}
TESTS=${TESTS:-}
limit=${KERNEL_TIMEOUT:-2400}
cache=$BUILD/kernels

# boot | suite of the package | more of the kernel's command line | what rp_backend() is
boots='
5.10|bullseye||io_uring (interrupting task run)
6.1|bookworm||io_uring (single issuer, deferred task run)
6.12|bookworm-backports||io_uring (single issuer, deferred task run)
denied|bookworm-backports|sysctl.kernel.io_uring_disabled=2|epoll (io_uring denied by kernel.io_uring_disabled=2)
'

skip_all() {
    echo "test-kernels: SKIPPED: $1"
    exit 0
}

[ "$(uname -m)" = x86_64 ] || skip_all "the guests are x86-64, this machine is $(uname -m)"
if ! said=$(tools/setup.sh kernels 2>&1); then
    skip_all "$(tail -n 1 <<<"$said")"
fi
mkdir -p "$cache"
tests/kernels/image.sh "$cache/image.gz" "$BUILD/ringpool" "$BUILD"/tests/{run,deny_io_uring,fault_subject} || exit 1

for name; do
    grep -q "^$name|" <<<"$boots" || { echo "test-kernels: no boot is called $name" >&2; exit 2; }
done

qemu=
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null' EXIT
trap 'exit 1' INT TERM

# cx16 is hidden: where qemu knows no atomic access of 16 bytes, each one of the kernel's allocator stops both processors.
boot() { # name, suite, more of the command line
    rm -f "$cache/$1".{console,report}
    timeout -k 5 "$limit" qemu-system-x86_64 -M pc -accel tcg,thread=multi -cpu max,-cx16 -m 512 -smp 2 -nodefaults \
        -display none -no-reboot -serial "file:$cache/$1.console" -serial "file:$cache/$1.report" \
        -kernel "$cache/$2/vmlinuz" -initrd "$cache/image.gz" \
        -append "console=ttyS0 panic=-1 oops=panic quiet mitigations=off tsc=reliable seconds=$((limit / 2)) tests=$TESTS $3" \
        </dev/null &
    qemu=$!
    wait "$qemu"
    ended=$?
    qemu=
}

fact() { # name, of the last boot
    sed -n "s/^$1: //p" "$report" | tail -n 1
}

# Why the last boot is no success, or nothing.
verdict() { # expected backend
    if [ "$ended" -ge 124 ]; then
        echo "hung: ended after $limit s"
    elif [ -z "$(fact end)" ]; then
        echo 'the guest ended before its tests did'
    elif [ "$(fact suite)" != 0 ] || [ "$(fact environment)" != 0 ]; then
        echo 'tests failed'
    elif [ "$(fact backend)" != "$1" ]; then
        echo "the backend should be $1"
    fi
}

explain() { # name
    grep -a '^not ok' "$report" | sed 's/^/    /'
    echo "    the console ($cache/$1.console) ends so:"
    tail -n 20 "$cache/$1.console" | tr -d '\r' | sed 's/^/    /'
}

# shellcheck disable=SC2059 # one format for the heading and the rows
row='  %-7s %-26s %-52s %6s %6s %7s   %-17s %7s  %s\n'
printf "$row" boot kernel backend passed failed skipped surroundings seconds ''
failed=0
while IFS='|' read -r name suite more expected; do
    [ -n "$name" ] || continue
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
    if ! why=$(tests/kernels/fetch.sh "$suite" "$cache/$suite" 2>&1); then
        printf '  %-7s SKIPPED: %s\n' "$name" "$(tail -n 1 <<<"$why")"
        continue
    fi
    start=$SECONDS
    report=$cache/$name.report
    for again in 2 1 0; do
        boot "$name" "$suite" "$more"
        if [ $again = 0 ] || [ "$ended" -ge 124 ] || [ -n "$(fact kernel)" ]; then break; fi
        mv "$cache/$name.console" "$cache/$name.console.$again"
        printf '  %-7s AGAIN: ended before its first process (%s)\n' "$name" \
            "$(grep -am1 -o 'Oops: .*\|Kernel panic.*' "$cache/$name.console.$again" | tr -d '\r' || echo 'no panic')"
    done
    why=$(verdict "$expected")
    # Tests that a pattern leaves out are none.
    printf "$row" "$name" "$(fact kernel)" "$(fact backend)" \
        "$(grep '^ok ' "$report" | grep -vc '# SKIP')" "$(grep -c '^not ok ' "$report")" \
        "$(grep '^ok .*# SKIP' "$report" | grep -vc 'SKIP test was skipped$')" \
        "$(fact surroundings | sed 's/\([0-9]*\) surroundings held, \([0-9]*\) failed, \([0-9]*\) skipped/\1 + \2 + \3/')" \
        $((SECONDS - start)) "${why:+FAILED: $why}"
    [ -z "$why" ] || { explain "$name" && failed=1; }
done <<<"$boots"
exit $failed
