#!/bin/sh
# What of src/ the tests execute; used by the Makefile, which passes BUILD (a build with --coverage).
#
#   tests/support/coverage.sh RUNNER
#
# Runs the suite on both backends, then a minute or two of what meets rare branches: the stress ledger, failing system
# calls, hostile surroundings. Prints the lines and branches of each file, writes pages that mark every line below BUILD,
# and fails when less than LEAST_LINES percent of the lines of src/ or LEAST_BRANCHES percent of its branches are executed.
# With TESTS the suite alone is run, by that pattern, and no figure is too low.
#
# Left out of the count are the branches of assert() alone: one of them ends the process of a program that is wrong. (A
# line that no test can execute could be left out by a comment GCOVR_EXCL_... beside it that says why; there is none.)
set -eu

runner=$1
LEAST_LINES=${LEAST_LINES:-95}
LEAST_BRANCHES=${LEAST_BRANCHES:-85}
pages=$BUILD/coverage

# Tests that become another user may not write there, which is no news.
export GCOV_ERROR_FILE=/dev/null
find "$BUILD" -name '*.gcda' -delete
tests/support/run.sh io_uring "$runner"
tests/support/run.sh epoll "$runner"
if [ -z "${TESTS-}" ]; then
    tests/stress/run.sh 1 2 1
    CASES=${CASES:-300} tests/fault/run.sh some 1
    tests/fault/environment.sh 1
else
    LEAST_LINES=0 LEAST_BRANCHES=0
fi

rm -rf "$pages"
mkdir -p "$pages"
gcovr --root . --filter 'src/' --exclude-branches-by-pattern '.*\bassert\(.*' \
    --csv "$pages/figures.csv" --html-details "$pages/index.html" "$BUILD/obj/src"

# filename, line_total, line_covered, line_percent, branch_total, branch_covered, ...
awk -F, -v least_lines="$LEAST_LINES" -v least_branches="$LEAST_BRANCHES" -v pages="$pages/index.html" '
    function percent(part, of) { return of ? 100 * part / of : 100 }
    function row(name, lines, hit, branches, taken) {
        printf "  %-24s %6d / %-6d %5.1f %%  %6d / %-6d %5.1f %%\n", name, hit, lines, percent(hit, lines),
            taken, branches, percent(taken, branches)
    }
    function low(what, part, of, least) {
        if (percent(part, of) >= least) return 0
        printf "coverage: FAILED: %.2f %% of the %s, %s are asked for\n", percent(part, of), what, least
        return 1
    }
    NR == 1 { printf "  %-24s %6s   %-6s %7s  %6s   %-6s\n", "file", "lines", "", "", "branches", ""; next }
    { row($1, $2, $3, $5, $6); lines += $2; hit += $3; branches += $5; taken += $6 }
    END {
        row("all", lines, hit, branches, taken)
        print "  pages: " pages
        failed = low("lines", hit, lines, least_lines) + low("branches", taken, branches, least_branches)
        if (!lines) print "coverage: FAILED: nothing was counted"
        exit failed || !lines
    }' "$pages/figures.csv"
