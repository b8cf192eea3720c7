/*
 * Tasks that are tried again when they fail, after a wait that holds no worker.
 */
#ifndef RINGPOOL_RETRY_H
#define RINGPOOL_RETRY_H

#include <ringpool/base.h>
#include <ringpool/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_pool;
struct rp_future;

/* How the wait before attempt n + 1 follows from `delay`: times 2^(n-1), n, or 1. */
enum rp_backoff { RP_BACKOFF_EXPONENTIAL = 0, RP_BACKOFF_LINEAR = 1, RP_BACKOFF_CONSTANT = 2 };

#define RP_JITTER_NONE 0xffffffffU

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_retry {
    unsigned attempts; /* at most so many, the first included; 0: 3 */
    int backoff;       /* enum rp_backoff */
    int64_t delay;     /* ns; 0: 100 ms */
    int64_t max_delay; /* no wait is longer; 0: 30 s */
    unsigned
        jitter; /* up to so many percent are taken off each wait, at random; 0: 50; above 100 only RP_JITTER_NONE */
    int64_t deadline;                                        /* no attempt but the first starts after it; 0: none */
    bool (*again)(void *user, int result, unsigned attempt); /* whether this failure of that attempt (from 1) is worth
                          another; on the thread that ran it; must return; NULL: each is */
    void *user;
    uint64_t reserved[4];
};

/*
 * Submits a future as rp_pool_submit_future_task does, with the same errors, and tries it again while fn returns a
 * negative result and `retry` says so. Its result is the last attempt's. Between attempts it stands in the reactor's
 * timers, and is cancelled at once by rp_future_cancel and by its context. An attempt that finds no room in the pool,
 * or no memory for a worker, comes later; one that finds it released ends the future with -ESHUTDOWN. A panic and a
 * timeout are not tried again. task->timeout bounds each attempt, task->deadline each start; task->dropped is called
 * only if fn never ran. A thread that waits for it does not run it in place, and rp_future_run is -EALREADY. future may
 * be NULL: it goes on by itself. -EINVAL also: `retry` is NULL or out of range.
 */
RP_API int rp_pool_submit_retry(struct rp_pool *pool, int (*fn)(void *arg, void **value), const struct rp_task *task,
                                const struct rp_retry *retry, struct rp_future **future);

#ifdef __cplusplus
}
#endif

#endif
