#!/bin/sh
# The loads of the stress test over many seeds, on both backends in turn; used by the Makefile, which passes BUILD.
#
#   tests/stress/run.sh MINUTES SEEDS [FIRST]
#
# MINUTES are divided over SEEDS seeds from FIRST (a random one if not given, printed) on; the time of a seed is divided
# over the loads, and of each load half goes to io_uring, or what the machine grants in its place, and half to epoll.
# Ends at the first failure, which names the seed and how to replay it.
set -eu

minutes=$1
seeds=$2
first=${3:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
seconds=$((minutes * 60 / seeds / 6))
[ "$seconds" -gt 0 ] || seconds=1
. tests/support/sanitizers.sh
sanitizer_settings "$(pwd -P)/${BUILD#"$(pwd -P)/"}/tests/stress.report"
case $BUILD in /*) sanitizer_settings "$BUILD/tests/stress.report" ;; esac

printf '  %-7s %d minutes: seeds %d to %d, %d s each of each load on both backends\n' STRESS "$minutes" "$first" $((first + seeds - 1)) "$seconds"
for seed in $(seq "$first" $((first + seeds - 1))); do
    for run in 'pools auto' 'multi auto' 'jobs auto' 'pools epoll' 'multi epoll' 'jobs epoll'; do
        load=${run% *} backend=${run#* }
        if ! "$BUILD/tests/stress" "$load" --seed "$seed" --seconds "$seconds" --backend "$backend"; then
            cat "$BUILD"/tests/stress.report.* 2>/dev/null || :
            echo "stress: FAILED with $load --seed $seed --backend $backend" >&2
            exit 1
        fi
        for report in $(sanitizer_reports "$BUILD/tests/stress.report"); do
            cat "$report" >&2
            echo "stress: a sanitizer reported with $load --seed $seed --backend $backend" >&2
            exit 1
        done
    done
done
printf 'stress: %d seeds on both backends without loss, leak or hang\n' "$seeds"
