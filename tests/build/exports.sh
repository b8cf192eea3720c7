#!/bin/sh
# Three lists must be the same: what the headers declare with RP_API, what the symbol map names, and what the shared
# library exports. The static library must define these for the linker and no other name. And the shared one can be loaded
# late, its threads' words being found in what the loader keeps free for that, of which it takes no more than most.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# The preprocessor removes comments and turns RP_API into its attribute; a declaration ends at its semicolon, and the
# first name before a parenthesis is the function's.
for header in include/ringpool/*.h; do echo "#include <ringpool/${header##*/}>"; done |
    $CC -x c -std=c11 -Iinclude -E -P - | tr '\n' ' ' | tr ';' '\n' |
    sed -n 's/.*__attribute__((visibility("default")))//p' |
    sed -n 's/^[^(]*[^a-zA-Z0-9_]\([a-zA-Z_][a-zA-Z0-9_]*\) *(.*/\1/p' | sort >"$work/declared"
sed -n '/global:/,/local:/s/^ *\([A-Za-z_][A-Za-z0-9_]*\);.*/\1/p' src/ringpool.map | sort >"$work/mapped"
# The name of a node itself is an absolute symbol (type A).
$NM -D --defined-only "$BUILD/libringpool.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$work/shared"
$NM -g --defined-only "$BUILD/libringpool.a" | awk 'NF == 3 { print $3 }' | sort >"$work/static"

same() { # list, what it is
    if ! diff "$work/declared" "$work/$1" >"$work/diff"; then
        sed -n -e "s/^< /exports: declared with RP_API, but missing $2: /p" \
            -e "s/^> /exports: not declared with RP_API, but $2: /p" "$work/diff" >&2
        failed=1
    fi
}
same mapped 'in src/ringpool.map'
same shared 'in libringpool.so'
same static 'in libringpool.a'

if grep -v '^rp_' "$work/shared" >&2; then
    echo "exports: the names above lack the prefix rp_" >&2
    failed=1
fi
cat >"$work/late.c" <<'END'
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc == 2 && dlopen(argv[1], RTLD_NOW))
        return 0;
    fprintf(stderr, "exports: loaded late: %s\n", dlerror());
    return 1;
}
END
$CC "$work/late.c" -o "$work/late" -ldl
"$work/late" "$BUILD/libringpool.so" || failed=1
# Threads that called us give back what they have when they end, a slot of liburcu's and what they keep for their next
# futures: so neither library may be gone by then.
cat >"$work/gone.c" <<'END'
#include <dlfcn.h>
#include <pthread.h>
#include <ringpool/future.h>
#include <ringpool/pool.h>
#include <stdio.h>

static const char *path;

static int nothing(void *arg, void **value)
{
    *value = arg;
    return 0;
}

static void *use(void *how)
{
    void *library = dlopen(path, RTLD_NOW);
    struct rp_pool *pool = NULL;
    struct rp_future *future = NULL;

    if (!library)
        return "dlopen";
    *(void **)how = dlsym(library, "rp_future_destroy");
    int (*create)(struct rp_pool **, unsigned, const struct rp_pool_options *) = dlsym(library, "rp_pool_create");
    int (*submit)(struct rp_pool *, int (*)(void *, void **), void *, struct rp_future **) =
        dlsym(library, "rp_pool_submit_future");
    int (*get)(struct rp_future *, void **) = dlsym(library, "rp_future_get");
    void (*destroy)(struct rp_future *) = dlsym(library, "rp_future_destroy");
    int (*end)(struct rp_pool *) = dlsym(library, "rp_pool_destroy");
    if (create(&pool, 1, NULL) || submit(pool, nothing, NULL, &future) || get(future, NULL))
        return "a future";
    destroy(future);
    return end(pool) || dlclose(library) ? "the end" : NULL;
}

int main(int argc, char **argv)
{
    void *inside = NULL, *failed = "the arguments";
    pthread_t thread;
    Dl_info info;

    path = argv[argc - 1];
    if (argc == 2 && pthread_create(&thread, NULL, use, &inside) == 0)
        pthread_join(thread, &failed);
    if (!failed && !dladdr(inside, &info))
        failed = "it is gone";
    if (failed)
        fprintf(stderr, "exports: closed: %s\n", (const char *)failed);
    return failed != NULL;
}
END
$CC -D_GNU_SOURCE -Iinclude "$work/gone.c" -o "$work/gone" -ldl -pthread
"$work/gone" "$BUILD/libringpool.so" || { echo "exports: closed before a caller's thread ends: fails" >&2; failed=1; }
words=$(($(objdump -p "$BUILD/libringpool.so" | awk '$1 == "TLS" { getline; print $4 }')))
if [ "$words" -eq 0 ] || [ "$words" -gt 384 ]; then
    echo "exports: the words of a thread take $words bytes, of 512 that glibc keeps free for all libraries" >&2
    failed=1
fi

[ -s "$work/declared" ] || { echo "exports: no declaration found" >&2; failed=1; }
[ $failed -eq 0 ] && echo "exports: $(wc -l <"$work/declared") functions, the same in headers, map and libraries"
exit $failed
