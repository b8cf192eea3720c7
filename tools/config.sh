#!/bin/sh
# Writes a fragment of makefile with what this machine says: the compiler's identity, the flags in use, and for each
# pair NAME 'modules' the variables NAME_CFLAGS and NAME_LIBS as pkg-config gives them.
#
#   tools/config.sh FILE [NAME MODULES]...
#
# The file is replaced only when its content changes, so that it may be a prerequisite of every object. FLAGS in the
# environment is recorded as it is: it is there to be compared.
set -eu

file=$1
shift
mkdir -p "$(dirname "$file")"
new=$file.$$
trap 'rm -f "$new"' EXIT

{
    echo "# Written by make, from what this machine says. Changes here are overwritten."
    echo "# compiler: $($CC --version | head -n 1)"
    echo "# flags: ${FLAGS-}"
    while [ $# -gt 0 ]; do
        # shellcheck disable=SC2086 # one word per module
        echo "$1_CFLAGS := $(pkg-config --cflags $2)"
        # shellcheck disable=SC2086
        echo "$1_LIBS := $(pkg-config --libs $2)"
        shift 2
    done
} >"$new"

cmp -s "$new" "$file" || mv "$new" "$file"
