/*
 * What the tests of a pool's life share: gates that hold tasks up, ledgers that count fates, what the process holds
 * (threads, descriptors, memory), an allocator that keeps books, and children.
 *
 * Asserting helpers are for the test's own thread only.
 */
#ifndef TESTS_POOL_LIFE_H
#define TESTS_POOL_LIFE_H

#include <criterion/criterion.h>

#include <ringpool/pool.h>

#include "base/atomic.h"
#include "base/futex.h"
#include "checkers.h"
#include "patience.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef RP_VALGRIND
#define UNDER_MEMCHECK true
#else
#define UNDER_MEMCHECK false
#endif

/* --- time ------------------------------------------------------------------------------------------------------- */

static inline void nap(int64_t ns)
{
    struct timespec span = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

    while (nanosleep(&span, &span) && errno == EINTR)
        ;
}

/* --- gates ------------------------------------------------------------------------------------------------------ */

/* Tasks that pass through it announce themselves and wait until it is opened. */
struct gate {
    _Atomic uint32_t inside, opened, passed;
};

static inline void gate_pass(void *arg)
{
    struct gate *gate = arg;

    add_seq(&gate->inside, 1);
    while (!load_seq(&gate->opened))
        futex_wait(&gate->opened, 0, 0);
    add_seq(&gate->passed, 1);
}

static inline void gate_open(struct gate *gate)
{
    store_seq(&gate->opened, 1);
    futex_wake(&gate->opened, INT_MAX);
}

static inline void count_task(void *arg)
{
    add_seq((_Atomic uint32_t *)arg, 1);
}

/* --- ledgers ---------------------------------------------------------------------------------------------------- */

/* The fates of tasks: what submit accepted must have run or been dropped, once. */
struct ledger {
    _Atomic uint32_t accepted, refused, ran, dropped, reason;
};

static inline void ledger_run(void *arg)
{
    add_seq(&((struct ledger *)arg)->ran, 1);
}

static inline void ledger_drop(void *arg, int reason)
{
    store_seq(&((struct ledger *)arg)->reason, (uint32_t)-reason);
    add_seq(&((struct ledger *)arg)->dropped, 1);
}

/* Submits one task that is booked; returns what submit did. Any thread. */
static inline int ledger_submit(struct ledger *ledger, struct rp_pool *pool, int overload)
{
    struct rp_task task = {.fn = ledger_run, .arg = ledger, .dropped = ledger_drop, .overload = overload};
    int rc = rp_pool_submit_task(pool, &task);

    add_seq(rc ? &ledger->refused : &ledger->accepted, 1);
    return rc;
}

static inline bool ledger_balances(struct ledger *ledger)
{
    return load_seq(&ledger->ran) + load_seq(&ledger->dropped) == load_seq(&ledger->accepted);
}

/* --- pools ------------------------------------------------------------------------------------------------------ */

static inline struct rp_pool *pool_make(unsigned capacity, const struct rp_pool_options *options)
{
    struct rp_pool *pool = NULL;
    int rc = rp_pool_create(&pool, capacity, options);

    cr_assert_eq(rc, 0, "create: %s", rp_strerror(rc));
    cr_assert_not_null(pool);
    return pool;
}

static inline void pool_end(struct rp_pool *pool)
{
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0, "tasks or workers do not end");
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

static inline struct rp_pool_snapshot pool_look(struct rp_pool *pool)
{
    struct rp_pool_snapshot seen;

    cr_assert_eq(rp_pool_snapshot(pool, &seen), 0);
    return seen;
}

/* A thread that makes one call which may block; its result is there once `returned` is set. */
struct caller {
    struct rp_pool *pool;
    int (*call)(struct rp_pool *pool, void *arg);
    void *arg;
    int rc;
    _Atomic uint32_t returned;
    pthread_t thread;
};

static inline void *caller_main(void *arg)
{
    struct caller *caller = arg;

    caller->rc = caller->call(caller->pool, caller->arg);
    store_seq(&caller->returned, 1);
    return NULL;
}

static inline void caller_start(struct caller *caller, struct rp_pool *pool, int (*call)(struct rp_pool *, void *),
                                void *arg)
{
    *caller = (struct caller){.pool = pool, .call = call, .arg = arg};
    cr_assert_eq(pthread_create(&caller->thread, NULL, caller_main, caller), 0);
}

/* What its call returned. */
static inline int caller_end(struct caller *caller)
{
    AWAIT(load_seq(&caller->returned));
    cr_assert_eq(pthread_join(caller->thread, NULL), 0);
    return caller->rc;
}

static inline int call_submit_counting(struct rp_pool *pool, void *count)
{
    return rp_pool_submit(pool, count_task, count);
}

static inline int call_submit_gated(struct rp_pool *pool, void *gate)
{
    return rp_pool_submit(pool, gate_pass, gate);
}

/* --- what the process holds ------------------------------------------------------------------------------------- */

/* Calls look(name, arg) for each entry and adds up what it returns; -1: the directory cannot be read. */
static inline long directory_sum(const char *path, long (*look)(const char *name, void *arg), void *arg)
{
    DIR *directory = opendir(path);
    long sum = 0;

    if (!directory)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            sum += look(entry->d_name, arg);
    closedir(directory);
    return sum;
}

static inline long count_entry(const char *name, void *arg)
{
    (void)name;
    (void)arg;
    return 1;
}

/* One line of a file of the thread, "" if it has gone. */
static inline void thread_file(const char *tid, const char *file, char *text, size_t size)
{
    char path[96];

    snprintf(path, sizeof(path), "/proc/self/task/%.20s/%s", tid, file);
    text[0] = 0;
    FILE *stream = fopen(path, "re");
    if (!stream)
        return;
    size_t n = fread(text, 1, size - 1, stream);
    text[n] = 0;
    fclose(stream);
}

static inline bool thread_is_named(const char *tid, const char *prefix)
{
    char name[32];

    thread_file(tid, "comm", name, sizeof(name));
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static inline long count_named(const char *tid, void *prefix)
{
    return thread_is_named(tid, prefix);
}

static inline long count_threads(void)
{
    return directory_sum("/proc/self/task", count_entry, NULL);
}

static inline long count_threads_named(const char *prefix)
{
    return directory_sum("/proc/self/task", count_named, (void *)(uintptr_t)prefix);
}

/* The one that lists them is not counted. */
static inline long count_descriptors(void)
{
    return directory_sum("/proc/self/fd", count_entry, NULL) - 1;
}

static inline long resident_bytes(void)
{
    long pages = 0;
    FILE *stream = fopen("/proc/self/statm", "re");

    if (!stream)
        return -1;
    if (fscanf(stream, "%*d %ld", &pages) != 1)
        pages = -1;
    fclose(stream);
    return pages * sysconf(_SC_PAGESIZE);
}

struct holdings {
    long threads, descriptors;
};

static inline struct holdings holdings_now(void)
{
    return (struct holdings){count_threads(), count_descriptors()};
}

/* A joined thread stays in /proc for a moment. */
static inline bool holdings_return(struct holdings before)
{
    return COMES_TRUE(count_threads() == before.threads && count_descriptors() == before.descriptors);
}

#define ASSERT_NOTHING_LEFT(before)                                                                                    \
    cr_assert(holdings_return(before), "threads %ld, %ld before; descriptors %ld, %ld before", count_threads(),        \
              (before).threads, count_descriptors(), (before).descriptors)

/* --- an allocator that keeps books ------------------------------------------------------------------------------ */

struct bank {
    _Atomic uint32_t live, calls, strange; /* strange: blocks freed that are not this bank's */
    _Atomic uint32_t fail_at, failures;    /* the call of that number fails; 0: none */
    _Atomic uint32_t fail_on;              /* 1: so do all after it */
};

/* In front of each block; as large as malloc's alignment. */
union bank_mark {
    struct {
        struct bank *bank;
        uint32_t state;
    } of;
    max_align_t align;
};

enum { BANK_LENT = 0x1e47, BANK_BACK = 0xbac4 };

static inline void *bank_calloc(void *user, size_t n, size_t size)
{
    struct bank *bank = user;
    uint32_t call = add_seq(&bank->calls, 1) + 1, fail_at = load_seq(&bank->fail_at);
    size_t total;

    if (fail_at && (call == fail_at || (call > fail_at && load_seq(&bank->fail_on)))) {
        add_seq(&bank->failures, 1);
        return NULL;
    }
    if (__builtin_mul_overflow(n, size, &total) || __builtin_add_overflow(total, sizeof(union bank_mark), &total))
        return NULL;
    union bank_mark *mark = calloc(1, total);
    if (!mark)
        return NULL;
    mark->of.bank = bank;
    mark->of.state = BANK_LENT;
    add_seq(&bank->live, 1);
    return mark + 1;
}

static inline void *bank_malloc(void *user, size_t size)
{
    return bank_calloc(user, 1, size);
}

static inline void bank_free(void *user, void *p)
{
    struct bank *bank = user;
    union bank_mark *mark = (union bank_mark *)p - 1;

    if (!p)
        return;
    if (mark->of.bank != bank || mark->of.state != BANK_LENT) {
        add_seq(&bank->strange, 1);
        return;
    }
    mark->of.state = BANK_BACK;
    sub_seq(&bank->live, 1);
    free(mark);
}

static inline struct rp_allocator bank_allocator(struct bank *bank)
{
    return (struct rp_allocator){.malloc = bank_malloc, .calloc = bank_calloc, .free = bank_free, .user = bank};
}

/* --- children --------------------------------------------------------------------------------------------------- */

#define NEEDS_THREADS_IN_CHILDREN()                                                                                    \
    do {                                                                                                               \
        if (UNDER_TSAN || UNDER_ASAN)                                                                                  \
            cr_skip_test("a sanitizer's own locks come into the child held by threads that are not there");            \
    } while (0)

/* In a child: says what was wrong, and makes the function that it stands in return 1. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: in the child: %s\n", __FILE__, __LINE__, #condition);                              \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static inline int child_status(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The status of a child that exits with what body returns; 128 + signal if one ended it; -1: no child. Any thread. */
static inline int in_child(int (*body)(void *arg), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();

    if (pid < 0)
        return -1;
    if (pid == 0) {
        alarm(60); /* a child that hangs is a failure, not a runner that hangs */
        _exit(body(arg));
    }
    return child_status(pid);
}

#endif
