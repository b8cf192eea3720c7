#!/bin/sh
# Runs a Criterion runner on one backend; used by the Makefile, which passes BUILD and TESTS.
#
#   tests/support/run.sh io_uring|epoll RUNNER
#
# Succeeds only if tests ran, all passed, and no sanitizer has left a report; with PART, the name of one of several runs,
# all its tests may have been skipped. Criterion's own synthesis is the last line when all is well. A test that takes
# longer than TEST_TIMEOUT seconds is ended (time_limit.c), and so is a run after RUN_TIMEOUT: a child that a test left
# behind can keep Criterion waiting. RP_TEST_BACKEND tells the tests which backend they were given.
#
# Criterion's runner itself may abort: "Could not spawn test instance: Protocol error" was seen twice in some thirty runs
# on a machine where others ran tests and process ids came round within seconds (it hands a child its orders in a file of
# shared memory that is named by the child's process id alone). That says nothing of any test, as those are processes of
# their own, and leaves no list of results: then the whole run is made once more.
set -eu

backend=$1
runner=$2
name=$BUILD/tests/$(basename "$runner").$backend${PART:+.$PART}
. tests/support/sanitizers.sh
sanitizer_settings "$(pwd -P)/${name#"$(pwd -P)/"}.report"
case $BUILD in /*) sanitizer_settings "$name.report" ;; esac

case $backend in
io_uring)
    filter=
    if why=$("$BUILD/tests/deny_io_uring" --probe); then
        what="tests on io_uring"
        export RP_TEST_BACKEND=io_uring
    else
        # The run counts all the same: it shows what a user of this machine gets.
        what="tests as the machine is: it grants no io_uring ($why)"
        export RP_TEST_BACKEND=epoll
    fi
    ;;
epoll)
    filter=$BUILD/tests/deny_io_uring
    what="tests on epoll, io_uring denied by seccomp"
    export RP_TEST_BACKEND=epoll
    ;;
esac
printf '  %-7s %s%s\n' RUN "$what" "${SANITIZE:+ ($SANITIZE)}${MEMCHECK:+ (memcheck)}"

run() {
    rm -f "$name.tap"
    rc=0
    timeout -k 10 "${RUN_TIMEOUT:-1200}" $checker $filter "$runner" -j2 --tap="$name.tap" \
        ${TESTS:+--filter "$TESTS"} </dev/null || rc=$?
}

reported() {
    [ -n "$(sanitizer_reports "$name.report")" ]
}

run
if [ $rc -eq 134 ] && [ ! -s "$name.tap" ] && ! reported; then # 128 + SIGABRT
    echo "tests: Criterion's runner aborted; once more" >&2
    run
fi

skipped='# SKIP'
[ -z "${PART:-}" ] || skipped='^$'
ran=$(grep -E '^(not )?ok ' "$name.tap" 2>/dev/null | grep -vc "$skipped" || :)
for report in $(sanitizer_reports "$name.report"); do
    cat "$report" >&2
    echo "tests: a sanitizer reported, see $report" >&2
    rc=1
done
if [ "${ran:-0}" -eq 0 ]; then
    echo "tests: none ran" >&2
    rc=1
fi
exit $rc
