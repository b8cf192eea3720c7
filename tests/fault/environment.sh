#!/bin/sh
# Lives of pools in surroundings that refuse, starve or disturb; used by the Makefile, which passes BUILD.
#
#   tests/fault/environment.sh [SECONDS]      how long each of the disturbed cases lasts (1)
#
# Every case runs the subject (tests/fault/subject.c) on both backends. What refuses (limits of threads, descriptors,
# memory) must be told by the documented errors, and nothing may be lost or left; what only slows or disturbs (quotas,
# stops, signals, clocks, forks, neighbours) must not show at all. A case that needs a privilege or a tool which is not
# here says that it is skipped. FAULT_STEP_CLOCK=1 adds steps of the wall clock, which all of the machine sees.
set -u

BUILD=${BUILD:-build}
seconds=${1:-1}
subject=$(cd "$BUILD" && pwd)/tests/fault_subject
# For one run: it also has to do for a tenth of an emulated CPU, and outlast a machine that stands still for a while.
limit=$((seconds + 150))
scratch=$(mktemp -d)
chmod 755 "$scratch"
held=0 failed=0 skipped=0
neighbour=
. tests/support/cgroup.sh

tidy() {
    [ -z "$neighbour" ] || kill "$neighbour" 2>/dev/null
    groups_remove
    rm -rf "$scratch"
}
trap tidy EXIT
trap 'exit 1' INT TERM

skip() { # case, reason
    echo "    skipped: $1: $2"
    skipped=$((skipped + 1))
}

# Counts a finished run. 70 and 127: the subject could not even begin or make its own preparations: nothing was tried.
count() { # case, status
    case $2 in
    0) held=$((held + 1)) ;;
    70 | 127) ;;
    *)
        failed=$((failed + 1))
        [ "$2" != 124 ] && [ "$2" != 137 ] || echo "hung: ended after its time limit"
        sed "s/^/    /" "$scratch/said"
        echo "fault: FAILED with $2: $1"
        ;;
    esac
}

# A run of the command in these surroundings on both backends; the command gets the backend's name as last argument.
check() { # case, command...
    name=$1
    shift
    for backend in auto epoll; do
        rc=0
        timeout -k 5 $limit "$@" --backend $backend >"$scratch/said" 2>&1 || rc=$?
        count "$name, backend $backend" $rc
    done
}

root() { [ "$(id -u)" = 0 ]; }

# --- limits -----------------------------------------------------------------------------------------------------------

# ulimit's option, its value, then the command.
limited='ulimit "$1" "$2" || exit 70; shift 2; exec "$@"'

for n in 4 5 6 7 8 9 10 12; do
    check "RLIMIT_NOFILE $n" sh -c "$limited" sh -n $n "$subject" --hostile
    check "RLIMIT_NOFILE $n, jobs" sh -c "$limited" sh -n $n "$subject" --jobs --hostile
done
# Too little even for the dynamic linker at first (127), and for the subject.
for mib in 16 24 28 32 40 48 64 96 128 192 256; do
    sh -c "$limited" sh -v $((mib * 1024)) "$subject" --hostile >"$scratch/said" 2>&1
    case $? in 127 | 70) continue ;; esac
    check "RLIMIT_AS $mib MiB" sh -c "$limited" sh -v $((mib * 1024)) "$subject" --hostile
    check "RLIMIT_AS $mib MiB, jobs" sh -c "$limited" sh -v $((mib * 1024)) "$subject" --jobs --hostile
done

# Of limits that do not bind root, by a user of a number that nobody has.
nobody=54321
as_nobody="setpriv --reuid=$nobody --regid=$nobody --clear-groups --inh-caps=-all --bounding-set=-all"
cp "$subject" "$scratch/subject"
if ! root || ! $as_nobody true 2>/dev/null; then
    skip "RLIMIT_MEMLOCK and RLIMIT_NPROC" "need root and setpriv, to become another user"
else
    for kib in 0 8 16 32 64; do
        check "RLIMIT_MEMLOCK $kib KiB" sh -c "$limited" sh -l $kib $as_nobody "$scratch/subject" --hostile
    done
    for n in 4 5 6 7 8 10 12 14; do
        check "RLIMIT_NPROC $n" prlimit --nproc=$n $as_nobody "$scratch/subject" --hostile
    done
fi

# --- control groups ---------------------------------------------------------------------------------------------------

if group_make pids pids.max; then
    for n in 4 5 6 7 8 10 12 14; do
        echo $n >"$group/pids.max"
        check "cgroup pids.max $n" sh -c "$inside" sh "$group" "$subject" --hostile
        check "cgroup pids.max $n, jobs" sh -c "$inside" sh "$group" "$subject" --jobs --hostile
    done
else
    skip "cgroup pids" "no writable group"
fi

if quota_make && quota_set 10; then
    check "a CPU quota of 10 %" sh -c "$inside" sh "$quota_group" "$subject" --flawless
    check "a CPU quota of 10 %, jobs" sh -c "$inside" sh "$quota_group" "$subject" --jobs --flawless
    check "a CPU quota of 10 %, capacity of the default" sh -c "$inside" sh "$quota_group" "$subject" --flawless --capacity 0
else
    skip "a CPU quota of 10 %" "no writable group"
fi

# The group's memory ends in the middle of a life; its threads stand still where they touch a page, until more is given.
# The kernel's own memory (a new thread's, that to split a mapping at munmap) is charged as well, and refused instead.
if group_make memory memory.oom_control && echo 1 2>/dev/null >"$group/memory.oom_control"; then
    for kib in 600 800 1000 1400; do
        for backend in auto epoll; do
            echo 64M >"$group/memory.limit_in_bytes"
            (
                echo 0 >"$group/memory.force_empty"
                echo ${kib}K >"$group/memory.limit_in_bytes"
            ) 2>/dev/null
            sh -c "$inside" sh "$group" timeout -k 5 $limit "$subject" --announce --hostile --unmapped --seconds 1 \
                --backend $backend >"$scratch/said" 2>&1 &
            run=$!
            sleep 0.5
            grep -q 'under_oom 1' "$group/memory.oom_control" && starved=1
            echo 64M >"$group/memory.limit_in_bytes"
            rc=0
            wait $run || rc=$?
            # exec had no page for the arguments (which it may call E2BIG), or none at all; or none when it was too late
            # to fail, which the kernel answers with a SIGSEGV.
            [ $rc != 126 ] || rc=127
            [ $rc != 139 ] || grep -q '^begun$' "$scratch/said" || rc=127
            count "cgroup memory $kib KiB for a while, backend $backend" $rc
        done
    done
    [ -n "${starved-}" ] || echo "    note: the group's memory was never short"
else
    skip "cgroup memory" "no writable group of version 1 that can hold its threads instead of ending them"
fi

# --- disturbances -----------------------------------------------------------------------------------------------------

for backend in auto epoll; do
    timeout -k 5 $limit "$subject" --flawless --seconds "$seconds" --backend $backend >"$scratch/said" 2>&1 &
    run=$!
    while sleep 0.01 && pid=$(cat /proc/$run/task/$run/children 2>/dev/null) && [ -n "$pid" ]; do
        # shellcheck disable=SC2086 # with a blank at its end
        kill -STOP $pid 2>/dev/null && sleep 0.01 && kill -CONT $pid 2>/dev/null
    done
    rc=0
    wait $run || rc=$?
    count "SIGSTOP and SIGCONT, backend $backend" $rc
done

check "a storm of signals without SA_RESTART" "$subject" --flawless --storm --seconds "$seconds"
check "a storm of signals without SA_RESTART, jobs" "$subject" --jobs --flawless --storm --seconds "$seconds"
check "forks at random moments" "$subject" --flawless --forks --seconds "$seconds"
check "forks at random moments, jobs" "$subject" --jobs --flawless --forks --seconds "$seconds"
check "a storm of signals, multi pools" "$subject" --multi --flawless --storm --seconds "$seconds"
check "forks at random moments, multi pools" "$subject" --multi --flawless --forks --seconds "$seconds"
if command -v taskset >/dev/null; then
    check "all threads on one CPU" taskset -c 0 "$subject" --flawless --seconds "$seconds"
else
    skip "all threads on one CPU" "no taskset"
fi

# CLOCK_MONOTONIC of a process that was restored elsewhere: far ahead, and just after its start.
if unshare --time --monotonic 1 true 2>/dev/null; then
    uptime=$(cut -d. -f1 /proc/uptime)
    for offset in 86400 315360000 4000000000 -$((uptime - 1)); do
        check "CLOCK_MONOTONIC offset by $offset s" unshare --time --monotonic "$offset" --boottime "$offset" \
            "$subject" --flawless
        check "CLOCK_MONOTONIC offset by $offset s, jobs" unshare --time --monotonic "$offset" --boottime "$offset" \
            "$subject" --jobs --flawless
    done
else
    skip "offset clocks" "no time namespace"
fi
if [ "${FAULT_STEP_CLOCK:-0}" = 1 ] && root; then
    (
        while sleep 0.05; do
            date -s '+1 hour' && sleep 0.05 && date -s '-1 hour'
        done
    ) >/dev/null 2>&1 &
    neighbour=$!
    check "steps of the wall clock" "$subject" --flawless --seconds "$seconds"
    kill "$neighbour" && neighbour=
else
    skip "steps of the wall clock" "all of the machine would see them: FAULT_STEP_CLOCK=1 as root"
fi

if command -v stress-ng >/dev/null; then
    stress-ng --quiet --cpu 2 --switch 1 --fork 1 --vm 1 --vm-bytes 32M --timeout $((4 * limit)) >/dev/null 2>&1 &
    neighbour=$!
    check "stress-ng as a neighbour" "$subject" --flawless --seconds "$seconds"
    check "stress-ng as a neighbour, jobs" "$subject" --jobs --flawless --seconds "$seconds"
    kill "$neighbour"
    wait "$neighbour" 2>/dev/null
    neighbour=
else
    skip "a busy neighbour" "no stress-ng"
fi

printf 'fault: %d surroundings held, %d failed, %d skipped\n' $held $failed $skipped
[ $failed -eq 0 ] && [ $held -gt 0 ]
