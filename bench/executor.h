/*
 * What a benchmark drives: something that runs tasks on workers. Ours is in ringpool.c, each peer in peers/ fills in
 * one of these too, and the workloads are the same code for all; peers in other languages follow that code closely.
 *
 * Loops are the executor's own (burst), so that the measured path holds the call that a user writes and no call through
 * a pointer. What a library has no word for is NULL, and the workload says so or does it in the obvious way.
 */
#ifndef RINGPOOL_BENCH_EXECUTOR_H
#define RINGPOOL_BENCH_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum backend { BACKEND_AUTO, BACKEND_IO_URING, BACKEND_EPOLL };

struct executor_config {
    unsigned workers, producers;
    unsigned queue; /* tasks accepted beyond those running, where the library bounds its queue; 0: none (strict) */
    bool strict;    /* never more in flight than workers: the submitter waits */
    bool metrics;   /* for ours */
    bool unordered; /* for ours: tasks may start in any order */
    bool lazy;      /* workers are made when they are needed, where the library can choose */
    int backend;    /* enum backend, for ours */
};

typedef void executor_fn(void *arg);

/* The functions return 0 or a negative errno, and are called from any thread unless they say otherwise. */
struct executor {
    const char *name;
    bool (*about)(char *text, unsigned size); /* version and such, for the record; may be NULL */
    bool is_ringpool;                         /* has the keys that only ours has: backend, lazy */
    bool is_lazy; /* makes its workers only as tasks come, whatever the configuration says */

    int (*create)(void **self, const struct executor_config *config);
    void (*destroy)(void *self); /* runs what was accepted */

    int (*submit)(void *self, executor_fn *fn, void *arg);
    int (*burst)(void *self, executor_fn *fn, void *arg, uint64_t n); /* n tasks, one at a time */
    int (*batch)(void *self, executor_fn *fn, void *arg, unsigned n); /* n tasks in one call; NULL: has none */
    int (*join)(void *self, executor_fn *fn, void *arg);              /* one task, until it is done; NULL: an event
                                                                             of mutex and condition variable */
    /* Ours: the same by a future that is waited for, or run by the waiter where no worker has begun it. */
    int (*join_future)(void *self, executor_fn *fn, void *arg);
    int (*join_run)(void *self, executor_fn *fn, void *arg);
    int (*parallel)(void *self, void (*body)(uint64_t from, uint64_t to), uint64_t n); /* NULL: tasks of chunks */
    /* `waits` waits of `ns` by the library's timers, `outstanding` at once until fewer are left; each ends in
     * task_count. Returns when all have ended. NULL: there are no timers. */
    int (*timers)(void *self, uint64_t waits, uint64_t outstanding, int64_t ns);
    /* The library's submits count only in one thread, or in one that it prepares: producers run inside of this. */
    void (*inside)(void *self, executor_fn *produce, void *arg); /* NULL: any thread may submit */
};

#ifdef __cplusplus
}
#endif

#endif
