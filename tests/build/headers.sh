#!/bin/sh
# Each public header compiles alone, pedantically clean, as C11, C17 and C++17: a user may include any one of them
# first, from either language, under his own warnings.
set -eu

n=0
warnings='-Wall -Wextra -Wpedantic -Wundef -Werror'
for header in $(cd include && find . -name '*.h' | sed 's|^\./||' | sort); do
    for standard in c11 c17 c++17; do
        case $standard in
        c++*) compiler="$CXX -x c++ -Wold-style-cast" ;;
        *) compiler="$CC -x c -Wstrict-prototypes" ;;
        esac
        # Twice: the guard is part of the promise.
        # shellcheck disable=SC2086 # flags
        if ! printf '#include <%s>\n#include <%s>\n' "$header" "$header" |
            $compiler -std=$standard $warnings -Iinclude -fsyntax-only -; then
            echo "headers: $header does not stand alone as $standard" >&2
            exit 1
        fi
    done
    n=$((n + 1))
done
[ $n -gt 0 ] || { echo "headers: none found" >&2; exit 1; }
echo "headers: $n stand alone as C11, C17 and C++17"
