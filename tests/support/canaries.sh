#!/bin/sh
# Proves that a run under a sanitizer, or memcheck, can turn red: each canary does one thing wrong and must be noticed,
# and the control beside them, which does nothing wrong, must not.
#
#   tests/support/canaries.sh RUNNER      SANITIZE, MEMCHECK and BUILD come from the Makefile
set -eu

runner=$1
report=$(pwd)/$BUILD/tests/canary.report
case $BUILD in /*) report=$BUILD/tests/canary.report ;; esac
. tests/support/sanitizers.sh

case ${MEMCHECK:+memcheck}$SANITIZE in
memcheck) canaries='use_after_free leak uninitialised' ;;
thread) canaries='race' ;;
*) canaries='use_after_free leak signed_overflow' ;;
esac

# Red: the test failed, or a report was left behind.
is_red() {
    sanitizer_settings "$report"
    # shellcheck disable=SC2086 # words of a command
    $checker "$runner" --filter "canary/$1" --tap="$report.tap" </dev/null >"$report.out" 2>&1 || :
    if ! grep "ok - canary::$1 " "$report.tap" | grep -qv "# SKIP"; then
        cat "$report.out" >&2
        echo "canaries: $1 did not run" >&2
        exit 1
    fi
    grep -q "^not ok - canary::$1 " "$report.tap" && return
    [ -n "$(sanitizer_reports "$report")" ]
}

if is_red control_has_nothing_wrong; then
    cat "$report.out" $(sanitizer_reports "$report") >&2
    echo "canaries: the control is red, so a red canary would mean nothing" >&2
    exit 1
fi
for canary in $canaries; do
    if ! is_red "$canary"; then
        cat "$report.out" >&2
        echo "canaries: $canary went unnoticed under ${MEMCHECK:+memcheck}$SANITIZE" >&2
        exit 1
    fi
done
rm -f "$report".*
printf '  %-7s %s\n' CANARY "noticed: $canaries"
