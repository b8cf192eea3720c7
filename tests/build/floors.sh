#!/bin/sh
# tools/floors.sh can fail: for each rule, a tree that breaks only this rule is reported, and a tree that breaks none
# is not.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checker=$(pwd)/tools/floors.sh
n=0

seed() { # file, line...
    mkdir -p "$work/tree/$(dirname "$1")"
    file=$work/tree/$1
    shift
    printf '%s\n' "$@" >>"$file"
}

fresh() {
    rm -rf "$work/tree"
    seed include/ringpool/base.h 'int rp_one(void);'
    seed include/ringpool/pool.h '#include <ringpool/base.h>'
    seed src/base/futex.h '/* pthread_cond_wait, printf( and SYS_futex in a comment are no harm */'
    seed src/base/futex.c '#include "base/futex.h"' 'long futex(void) { return SYS_futex; }'
    seed src/pool/pool.h '#include <ringpool/pool.h>' '#include "base/futex.h"'
    seed src/pool/pool.c '#include "pool/pool.h"' 'const char *s = "abort() // in a string";'
    seed tests/pool/test.c '#include "pool/pool.h"'
}

check() { # 0 or 1, what the tree has, text expected
    rc=0
    out=$(cd "$work/tree" && "$checker") || rc=$?
    if [ "$rc" != "$1" ] || ! printf '%s\n' "$out" | grep -q "$3"; then
        printf 'floors: a tree with %s gave status %s and said:\n%s\n' "$2" "$rc" "$out" >&2
        exit 1
    fi
    n=$((n + 1))
    fresh
}

fresh
check 0 "nothing wrong" "7 files, no violation"
seed src/base/up.c '#include "pool/pool.h"'
check 1 "an upward include" "src/base/up.c:1:.*above"
seed src/base/up.c '#include <ringpool/pool.h>'
check 1 "a public header of a floor above" "src/base/up.c:1:.*above"
seed src/base/gone.c '#include "base/gone.h"'
check 1 "an include of nothing" "src/base/gone.c:1:.*no such file"
seed src/base/a.h '#include "base/b.h"'
seed src/base/b.h '#include "base/a.h"'
check 1 "a cycle" "src/base/a.h -> src/base/b.h -> src/base/a.h"
seed src/pool/futex.c 'long again(void) { return SYS_futex; }'
check 1 "a second futex file" "SYS_futex in 2 files"
seed src/pool/cond.c 'int f(pthread_cond_t *c) { return pthread_cond_wait(c, 0); }'
check 1 "a condition variable" "src/pool/cond.c:1:.*pthread_cond"
seed src/pool/sem.c 'int f(sem_t *s) { return sem_post(s); }'
check 1 "a semaphore" "src/pool/sem.c:1:.*sem_post"
seed src/pool/out.c '/* two' ' lines */ int f(void) { return fprintf(stderr, "x"); }'
check 1 "output" "src/pool/out.c:2:.*fprintf"
seed src/pool/end.c 'void f(void) { abort(); }'
check 1 "an abort" "src/pool/end.c:1:.*abort"
seed src/base/env.c 'const char *f(void) { return getenv("RP"); }'
check 1 "an environment variable" "src/base/env.c:1:.*getenv"
seed src/base/wall.c 'int f(struct timespec *t) { return clock_gettime(CLOCK_REALTIME, t); }'
check 1 "the wall clock" "src/base/wall.c:1:.*CLOCK_REALTIME"
seed src/base/ctor.c '__attribute__((constructor)) static void f(void) {}'
check 1 "a constructor" "src/base/ctor.c:1:.*constructor"
seed src/pool/handler.c 'int f(void) { return sigaction(SIGINT, &action, 0); }'
check 1 "a signal handler" "src/pool/handler.c:1:.*sigaction"
seed src/pool/panic.c 'int f(void) { return sigaction(SIGSEGV, &action, 0); }'
check 0 "the handlers of contain_signals" "8 files, no violation"
seed src/pool/memory.c 'void *f(void) { return malloc(1); }'
check 1 "memory that no hook gives" "src/pool/memory.c:1:.*malloc"
seed tools/main.c '#include "base/futex.h"'
check 1 "a tool that looks inside" "tools/main.c:1:.*public headers"
seed tests/base/test.c '#include "pool/pool.h"'
check 1 "a unit test that looks above its floor" "tests/base/test.c:1:.*above"
echo "floors: the check finds what it is for ($n trees)"
