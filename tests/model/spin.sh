#!/bin/sh
# Runs spin over the Promela models: each exhaustively, and each with its seeded mistakes, which must be found. Used by
# `make model-spin`, which passes BUILD. Without spin it says so and succeeds.
#
#   tests/model/spin.sh [MODEL]        idle, expiry or room; all of them if not given
set -eu

if ! command -v spin >/dev/null; then
    echo "model-spin: SKIPPED, spin is not installed (apt-get install spin)"
    exit 0
fi
here=$(pwd -P)/tests/model
only=${1:-}
failed=0

# check holds|fails|unfalsified FILE [-DNAME...]: unfalsified means no error in what bitstate hashing reaches in a minute.
check() {
    expected=$1 model=$2
    shift 2
    [ "$only" = "$model" ] || [ -z "$only" ] || return 0
    dir=$BUILD/model/spin/$model$(printf '%s' "$*" | tr -d ' ')
    how=-DCOLLAPSE limit=3600 # the longest takes a minute where nobody else runs
    [ "$expected" != unfalsified ] || how=-DBITSTATE limit=60
    rm -rf "$dir"
    mkdir -p "$dir"
    (cd "$dir" && spin "$@" -a "$here/$model.pml" >spin.log 2>&1 &&
        cc -O2 -w -DSAFETY -DVECTORSZ=4096 $how -DMEMLIM=4000 -o pan pan.c &&
        timeout -s INT $limit ./pan -m400000 -w26 >pan.log 2>&1) || :
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$dir/pan.log" 2>/dev/null | head -n 1)
    if [ -z "$states" ]; then
        found="did not run"
    elif ! grep -q 'errors: 0' "$dir/pan.log"; then
        found=fails
    elif [ "$expected" = unfalsified ]; then
        found=unfalsified
    elif grep -Eq 'max search depth too small|reached -DMEMLIM|Search not completed|interrupted' "$dir/pan.log"; then
        found=unfinished
    else
        found=holds
    fi
    verdict=ok
    [ "$found" = "$expected" ] || { verdict=WRONG; failed=1; }
    printf '%-6s %-7s %-52s %s, %s states\n' "$verdict" "$model" "$*" "$found" "${states:-no}"
}

check holds idle
check holds idle -DDEPENDENT
for mistake in NO_CHAIN NO_RECHECK GROW_LATE; do
    check fails idle -DDEPENDENT -D$mistake
done
check holds expiry -DTASKS=1
check holds expiry -DTASKS=1 -DMINIMUM=1
check holds expiry -DTASKS=1 -DWORKERS=1 -DRELEASE
for mistake in NO_LOOK_BACK NO_LEAVE_LOOK LEAVE_ON_STACK; do
    check fails expiry -DTASKS=1 -D$mistake
done
for mistake in CLOSED_BEFORE_PUSH TICKER_MISSES_CLOSE TELL_NOBODY LEAVE_ON_FLAG; do
    check fails expiry -DTASKS=1 -DRELEASE -D$mistake
done
check unfalsified expiry -DTASKS=1 -DRELEASE
check unfalsified expiry -DDEPENDENT
check holds room
check holds room -DDEADLINE
check holds room -DWORKERS=1 -DCLOSE
check holds room -DWORKERS=0 -DCLOSE
check holds room -DWORKERS=1 -DSUBMITTERS=1 -DNEWCOMERS=4 -DOVERTAKES=2
for mistake in CLEAR_LATE RESET_LATE NO_CLEAR NO_HANDOVER COUNT_LATE SLEEP_BLIND; do
    check fails room -D$mistake
done
check fails room -DWORKERS=0 -DCLOSE -DCLOSE_SILENT
for mistake in NO_GATE INSIST_BLIND; do
    check fails room -DWORKERS=1 -DSUBMITTERS=1 -DNEWCOMERS=4 -DOVERTAKES=2 -D$mistake
done
exit $failed
