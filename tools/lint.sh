#!/bin/sh
# clang-tidy (by .clang-tidy) and cppcheck over the C sources; arguments are further flags of the compiler. Every
# finding is an error: a false one is silenced where it stands, with its reason.
#
#   tools/lint.sh [FLAG...]     in the environment: BUILD (default build), JOBS (default: one per CPU)
#
# clang-tidy looks at one file at a time, JOBS of them at once. What it found clean is remembered below BUILD/lint by
# the text that it saw: the file after the preprocessor, comments included as they may silence a check, the flags, the
# checks and the version. So a second run costs seconds, and a change of a header looks again at those who include it.
set -eu

BUILD=${BUILD:-build}
JOBS=${JOBS:-$(nproc)}
COMMON='-std=gnu11 -D_GNU_SOURCE -Iinclude -Isrc -Itools -Ibench -Itests'

# Other people's headers as such (-isystem), so that findings in them are not ours.
flags_of() { # file
    others=
    case $1 in
    bench/peers/*) others="-fopenmp $(pkg-config --cflags glib-2.0 libuv 2>/dev/null || :)" ;;
    tests/model/c11/*) ;; # programs of their own
    tests/model/*) others='-include tests/model/override.h -Itests/model' ;; # as model.mk does
    esac
    echo "$COMMON $(echo "$EXTRA $others" | sed 's|-I */|-isystem /|g')"
}

# One file, called below through xargs.
if [ "${1-}" = --file ]; then
    flags=$(flags_of "$2")
    stamp=$BUILD/lint/$(echo "$2" | tr / _)
    seen=$stamp.$$
    trap 'rm -f "$seen" "$seen.out"' EXIT
    # shellcheck disable=SC2086 # flags are words
    if ! clang $flags -E -CC "$2" >"$seen" 2>"$seen.out"; then
        case $2 in bench/peers/*) # may need a package that is not here, as building it does
            echo "lint: SKIPPED $2: $(grep -m1 error: "$seen.out" || echo 'does not preprocess')"
            exit 0 ;;
        esac
    fi
    key=$({ cat .clang-tidy "$seen"; clang-tidy --version; echo "$flags"; } | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" != "$key" ] || exit 0
    # Its count of the warnings in other people's headers is no news.
    # shellcheck disable=SC2086
    if clang-tidy --quiet "$2" -- $flags >"$seen.out" 2>&1; then
        echo "$key" >"$stamp"
    else
        grep -v ' warnings generated\.$' "$seen.out" || :
        exit 1
    fi
    exit 0
fi

EXTRA=$*
export BUILD EXTRA
mkdir -p "$BUILD/lint"
failed=0

# The canaries are wrong on purpose.
find src tools bench tests -name '*.c' ! -name 'canary_*' | sort | xargs -n 1 -P "$JOBS" "$0" --file || failed=1

# shellcheck disable=SC2046 # one word per file
cppcheck --quiet -j "$JOBS" --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
    --suppress=missingInclude --error-exitcode=1 --library=tools/cppcheck.cfg -D_GNU_SOURCE -D__GNUC__=12 \
    -D__x86_64__ -Iinclude -Isrc $(find src -name '*.c' | sort) || failed=1
exit $failed
