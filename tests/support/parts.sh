#!/bin/sh
# Runs a Criterion runner on one backend as run.sh does, with a run of its own for the suites of each first letter: under
# valgrind Criterion's own process has crashed in runs of a quarter of an hour.
#
#   tests/support/parts.sh io_uring|epoll RUNNER
#
# All parts run, whatever happens in one; succeeds only if each has. The last line sums them up. TESTS, as in run.sh,
# takes their place.
set -eu

backend=$1
runner=$2

if [ -n "${TESTS:-}" ]; then
    exec tests/support/run.sh "$backend" "$runner"
fi

list=$("$runner" --list)
passed=0 failed=0 broken=
for letter in $(printf '%s\n' "$list" | grep -o '^[[:alnum:]_]' | sort -u); do
    PART=$letter TESTS="$letter*/*" tests/support/run.sh "$backend" "$runner" || broken="$broken $letter"
    results=$BUILD/tests/$(basename "$runner").$backend.$letter.tap
    passed=$((passed + $(cat "$results" | grep '^ok ' | grep -vc '# SKIP' || :)))
    failed=$((failed + $(cat "$results" | grep -c '^not ok ' || :)))
done
echo "$backend: $passed passed, $failed failed"
if [ -n "$broken" ]; then
    echo "tests: not all is well with the suites of:$broken" >&2
    exit 1
elif [ $passed -eq 0 ] || [ $failed -ne 0 ]; then
    echo "tests: none ran, or some failed" >&2
    exit 1
fi
