#!/bin/sh
# The small C11 programs of tests/model/c11 with each checker that is installed, and with their mistakes, which must be
# found; used by `make model-c11`, which passes BUILD, CC and what the model is built with.
#
#   tests/model/c11.sh [GOAL...]       goals: plain own genmc nidhugg cbmc herd; all of them if none is given
#
# plain   a compiler's threads, many rounds: shows that the programs run, hardly more
# own     this project's scheduler, with its store buffers
# genmc   all executions that C11 allows (RC11)
# nidhugg all executions of a machine whose stores are late and out of order (PSO)
# cbmc    the same machine, by SAT, with both places where a compiler may put its fences
# herd    the pairs of accesses alone, as litmus tests, against RC11: that each order is needed, and that they suffice
#
# What a checker cannot show is not asked of it: the table says which finds which. None of the last four is a package of
# Debian 12 (CBMC is one of 11 and 13, herd of later ones); whoever is missing is named as skipped. GENMC, NIDHUGG, CBMC
# and HERD name them elsewhere.
set -eu

here=tests/model/c11
work=$BUILD/model/c11
schedules=${SCHEDULES:-300000}
failed=0 ran=0
mkdir -p "$work"

# program, mistake (- none), who must find it: o own, n nidhugg, m cbmc (with SMALL), c genmc
table='
stack   -                  omnc
stack   NO_TAG             omnc
stack   PUSH_RELAXED       mnc
stack   POP_RELAXED        c
handoff -                  omnc
handoff NO_RECHECK         omnc
handoff RECHECK_FIRST      omnc
handoff NO_CHAIN           onc
handoff SKIP_IF_AWAKE      onc
handoff READY_WITHOUT_HEAD onc
handoff NOTIFY_STORE       omnc
handoff SLEEP_STORE        omnc
handoff PUBLISH_RELEASE    omnc
handoff IDLE_ACQUIRE       oc
handoff PUSH_ACQ_REL       oc
handoff RECHECK_ACQUIRE    oc
phases  -                  onc
phases  ONE_COUNT          onc
phases  COUNT_BY_NOW       onc
phases  WAITS_LATE         onc
phases  WAITS_FIRST        onc
phases  ENTER_RELAXED      onc
forks   -                  onc
forks   COUNT_BESIDE       onc
forks   SILENT             onc
forks   WAKE_FIRST         onc
forks   OUT_RELAXED        c
forks   BIT_RELAXED        c
room    -                  omnc
room    CLEAR_LATE         onc
room    NO_CLEAR           omnc
room    RESET_LATE         omnc
room    COUNT_LATE         omnc
room    CALL_STORE         omnc
room    DONE_ACQ_REL       oc
room    ATTENTION_ACQUIRE  oc
room    COUNT_ACQ_REL      c
room    CLEAR_RELEASE      onc
room    CLAIM_ACQUIRE      oc
'

# litmus test, weakened access (- none)
litmus='
parking  -
parking  PUBLISH=release
parking  IDLE=acquire
parking  PUSH=acq_rel
parking  RECHECK=acquire
counting -
counting COUNT=acq_rel
counting CLAIM=acquire
counting DONE=acq_rel
counting ATTENTION=acquire
clearing -
clearing CLEAR=release
clearing CLAIM=acquire
clearing DONE=acq_rel
clearing PENDING=acquire
pushing  -
pushing  PUSH=relaxed
pushing  POP=relaxed
'

say() { # checker, program, mistake, expected, found
    verdict=ok
    [ "$4" = "$5" ] || verdict=WRONG failed=1
    ran=$((ran + 1))
    printf '%-6s %-8s %-8s %-20s %s\n' "$verdict" "$1" "$2" "$3" "$5"
}

# Each prints: holds, fails, or what went wrong.
define() { [ "$1" = - ] || echo "-D$1"; }

plain_check() {
    $CC -std=c11 -O2 -pthread -DROUNDS=2000 "$here/$1.c" -o "$work/$1.plain" && "$work/$1.plain" && echo holds || echo fails
}

own_check() {
    # shellcheck disable=SC2046,SC2086 # flags are words
    $CC $MODEL_CFLAGS -Isrc -DC11_MODEL $(define "$2") -w -c "$here/$1.c" -o "$work/$1.$2.o" &&
        $CC -g -no-pie "$work/$1.$2.o" $C11_OBJ -o "$work/$1.$2" || { echo "does not build" && return; }
    rc=0
    "$work/$1.$2" --schedules "$schedules" --jobs 1 --first 1 >"$work/$1.$2.log" 2>&1 || rc=$?
    case $rc in
    0) echo holds ;;
    3) echo fails ;; # after the interleaving
    *) echo "ended with $rc" ;;
    esac
}

genmc_check() {
    # shellcheck disable=SC2046
    if "$GENMC" --rc11 -- $(define "$2") "$here/$1.c" >"$work/genmc.log" 2>&1; then
        echo holds
    else
        grep -qiE 'violation|error detected' "$work/genmc.log" && echo fails || echo "did not run: $(tail -n 1 "$work/genmc.log")"
    fi
}

nidhugg_check() {
    # shellcheck disable=SC2046
    if "$NIDHUGG" -std=c11 $(define "$2") "$here/$1.c" -- --pso >"$work/nidhugg.log" 2>&1; then
        grep -q 'No errors were detected' "$work/nidhugg.log" && echo holds || echo "did not run"
    else
        grep -q 'Error detected' "$work/nidhugg.log" && echo fails || echo "did not run: $(tail -n 1 "$work/nidhugg.log")"
    fi
}

cbmc_check() {
    found=holds
    checks=
    turns=4
    [ "$1" != handoff ] || turns=3 # SMALL: shorter loops
    ! "$CBMC" --help | grep -q no-standard-checks || checks=--no-standard-checks
    for place in FENCE_STORES FENCE_LOADS; do
        # shellcheck disable=SC2046,SC2086
        rc=0 && "$CBMC" --mm pso --unwind $turns --unwinding-assertions $checks -D$place -DSMALL $(define "$2") "$here/$1.c" \
            >"$work/cbmc.log" 2>&1 || rc=$?
        [ "$rc" != 10 ] || found=fails
        [ "$rc" = 0 ] || [ "$rc" = 10 ] || found="did not run: $(tail -n 1 "$work/cbmc.log")"
        ! grep -q 'unwinding assertion.*FAILURE' "$work/cbmc.log" || found="looks too short"
    done
    echo "$found"
}

herd_check() {
    sed -e "s/memory_order_${2%=*}\\b/memory_order_${2#*=}/" -e 's/memory_order_[A-Z][A-Z]*/memory_order_seq_cst/' \
        "$here/$1.litmus" >"$work/$1.litmus"
    "$HERD" -model rc11.cat "$work/$1.litmus" >"$work/herd.log" 2>&1 || :
    case $(sed -n 's/^Observation [a-z]* \([A-Z][a-z]*\) .*/\1/p' "$work/herd.log") in
    Never) echo holds ;;
    Sometimes | Always) echo fails ;;
    *) echo "did not run: $(tail -n 1 "$work/herd.log")" ;;
    esac
}

herd_all() {
    while read -r program mistake; do
        [ -n "$program" ] || continue
        expected=fails
        [ "$mistake" != - ] || expected=holds
        say herd "$program" "$mistake" "$expected" "$(herd_check "$program" "$mistake" </dev/null)"
    done <<END
$litmus
END
}

checker() { # name, letter
    while read -r program mistake who; do
        case $who in *$2*) ;; *) continue ;; esac
        expected=fails
        [ "$mistake" != - ] || expected=holds
        say "$1" "$program" "$mistake" "$expected" "$("$1_check" "$program" "$mistake" </dev/null)"
    done <<END
$table
END
}

optional() { # name, letter, command
    if command -v "$3" >/dev/null; then
        checker "$1" "$2"
    else
        echo "model-c11: SKIPPED: $1 is not installed"
    fi
}

GENMC=${GENMC:-genmc}
NIDHUGG=${NIDHUGG:-nidhuggc}
CBMC=${CBMC:-cbmc}
HERD=${HERD:-herd7}
[ $# -gt 0 ] || set -- plain own genmc nidhugg cbmc herd
for goal; do
    case $goal in
    plain)
        for program in stack handoff phases forks room; do say plain $program - holds "$(plain_check $program)"; done
        ;;
    own) checker own o ;;
    genmc) optional genmc c "$GENMC" ;;
    nidhugg) optional nidhugg n "$NIDHUGG" ;;
    cbmc) optional cbmc m "$CBMC" ;;
    herd)
        if command -v "$HERD" >/dev/null; then
            herd_all
        else
            echo "model-c11: SKIPPED: herd is not installed"
        fi
        ;;
    esac
done
printf 'model-c11: %d checks\n' "$ran"
[ "$failed" = 0 ]
