#!/bin/sh
# clang-tidy (by .clang-tidy) and cppcheck over the C sources; arguments are further flags of the compiler. Every
# finding is an error: a false one is silenced where it stands, with its reason.
set -eu

# The canaries are wrong on purpose.
sources=$(find src tools bench tests -name '*.c' ! -name 'canary_*' 2>/dev/null | sort)
[ -n "$sources" ] || exit 0

failed=0
# shellcheck disable=SC2086 # one word per file
clang-tidy --quiet $sources -- -std=gnu11 -D_GNU_SOURCE -Iinclude -Isrc -Itools -Ibench -Itests "$@" || failed=1
library=$(find src -name '*.c' | sort)
# shellcheck disable=SC2086
[ -z "$library" ] || cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability \
    --inline-suppr --suppress=missingInclude --error-exitcode=1 -D_GNU_SOURCE -D__GNUC__=12 -D__x86_64__ \
    -Iinclude -Isrc $library || failed=1
exit $failed
