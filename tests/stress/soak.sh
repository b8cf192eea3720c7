#!/bin/sh
# All loads of the stress test for hours, in one process for each backend, in weather that changes; used by `make soak`,
# which passes BUILD.
#
#   tests/stress/soak.sh HOURS [SEED]        HOURS may be a fraction
#
# Every SPELL seconds (10) the weather changes: calm, a CPU quota, neighbours (stress-ng), both, a process that is
# stopped for longer than the watchdog waits. The watchdog ends the run when nothing has moved for 2 s of time in which
# the process could run. At the end the process has the threads, descriptors and memory of its beginning. What this
# machine does not have is named as skipped. First the canaries: a run that cannot turn red proves nothing.
set -eu

hours=$1
seed=${2:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
spell=${SPELL:-10}
stress=$(cd "$BUILD" && pwd)/tests/stress
seconds=$(awk -v hours="$hours" 'BEGIN { s = int(hours * 3600 / 2); print s < 10 ? 10 : s }')
log=$(mktemp)
run=
neighbour=
. tests/support/cgroup.sh

calm() {
    [ -z "$neighbour" ] || { kill "$neighbour" && wait "$neighbour"; } 2>/dev/null || :
    neighbour=
    [ -z "$quota_group" ] || quota_set max
}

tidy() {
    [ -z "$run" ] || kill -KILL "$run" 2>/dev/null || :
    calm
    rm -f "$log"
    sleep 0.1
    groups_remove
}
quota_group=
trap tidy EXIT
trap 'exit 1' INT TERM

canary() { # kind, status
    rc=0
    "$stress" soak --seconds 1 --stall 2 --seed "$seed" --canary "$1" >"$log" 2>&1 || rc=$?
    if [ "$rc" != "$2" ]; then
        cat "$log"
        echo "soak: FAILED: the canary \`$1' was not found (status $rc)"
        exit 1
    fi
    printf '  %-7s %s: found\n' CANARY "$1"
}
canary hang 134
canary thread 1
canary descriptor 1
canary memory 1

quota_make || { quota_group= && echo "    skipped: CPU quota: no writable group"; }
command -v stress-ng >/dev/null || echo "    skipped: neighbours: no stress-ng"

neighbours_come() {
    command -v stress-ng >/dev/null || return 0
    stress-ng --quiet --cpu 2 --switch 1 --fork 1 --vm 1 --vm-bytes 32M --timeout $((spell * 2 + 60)) >/dev/null 2>&1 &
    neighbour=$!
}

weather() { # number of the spell
    calm
    case $(($1 % 5)) in
    1) [ -z "$quota_group" ] || quota_set 50 ;;
    2) neighbours_come ;;
    3)
        [ -z "$quota_group" ] || quota_set 20
        neighbours_come
        ;;
    4)
        kill -STOP "$run" 2>/dev/null || :
        sleep 4
        kill -CONT "$run" 2>/dev/null || :
        ;;
    esac
}

for backend in auto epoll; do
    printf '  %-7s %d s: seed %d, backend %s\n' SOAK "$seconds" "$seed" "$backend"
    set -- "$stress" soak --seconds "$seconds" --stall 2 --seed "$seed" --backend "$backend"
    if [ -n "$quota_group" ]; then
        sh -c "$inside" sh "$quota_group" "$@" &
    else
        "$@" &
    fi
    run=$!
    number=0
    while kill -0 "$run" 2>/dev/null; do
        weather "$number"
        number=$((number + 1))
        naps=0
        while [ "$naps" -lt "$spell" ] && kill -0 "$run" 2>/dev/null; do
            sleep 1
            naps=$((naps + 1))
        done
    done
    rc=0
    wait "$run" || rc=$?
    run=
    calm
    if [ "$rc" != 0 ]; then
        echo "soak: FAILED with $rc: --seed $seed --backend $backend"
        exit 1
    fi
    printf '  %-7s %d spells of weather\n' "" "$number"
done
echo "soak: both backends without loss, leak or hang"
