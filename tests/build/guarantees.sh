#!/bin/sh
# Checks the table of src/README.md: each numbered guarantee has a row, and the scenarios, models, tests and mutants that
# a row names exist. Used by `make test`.
#
#   tests/build/guarantees.sh [README]
set -eu

readme=${1:-src/README.md}
failed=0

wrong() {
    echo "guarantees: $*"
    failed=1
}

exists() { # guarantee, column, name
    case $2:$3 in
    *:*/*.*) [ -e "$3" ] || wrong "$1: there is no file $3" ;;
    2:*) grep -q "^    {\"$3\", " tests/model/scenarios_*.c || wrong "$1: there is no scenario $3" ;;
    3:*/*) grep -qE "^Test\(${3%/*}, ${3#*/}[,)]" tests/*/*.c || wrong "$1: there is no test $3" ;;
    4:*) [ -e "tests/model/mutants/$3.patch" ] || wrong "$1: there is no mutant $3" ;;
    *) wrong "$1: what is $3?" ;;
    esac
}

last=$(sed -n 's/^\([0-9][0-9]*\)\. .*/\1/p' "$readme" | tail -n 1)
number=0
while [ "$number" -lt "$last" ]; do
    number=$((number + 1))
    row=$(sed -n "s/^| $number | //p" "$readme")
    [ -n "$row" ] || { wrong "$number has no row" && continue; }
    column=1
    while [ "$column" -lt 4 ]; do
        cell=$(echo "$row" | cut -d '|' -f "$column")
        column=$((column + 1))
        case $cell in
        *'`'*) for name in $(echo "$cell" | tr '`' '\n' | sed -n 'n;p'); do exists "$number" "$column" "$name"; done ;;
        *'none: '*) ;;
        *) wrong "$number: column $column neither names anything nor says why" ;;
        esac
    done
done
[ "$last" -gt 0 ] || wrong "no guarantees in $readme"
[ "$failed" = 0 ]
