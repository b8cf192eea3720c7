/*
 * Timers: a function at a time, once or periodically, on the reactor's thread or as a task of a pool.
 *
 * A million may be outstanding: arming and cancelling are O(1), take some tens of nanoseconds and no memory; one
 * sleeping thread drives them all. A timer never fires early.
 *
 * Where the function runs. Without a pool: on the reactor's thread, which sleeps for all pools of the process: it must
 * return soon and must not block, end its thread or raise signals. With a pool or a multi pool: as a task of it; while
 * that has no room the submit is tried again, every millisecond. A timer's function never runs twice at once.
 *
 * All functions may be called from any thread, inside the timer's own function too, and race with each other on the
 * same timer, but for destroy, after whose begin no other call may begin. Errors that all share: -EINVAL: an argument
 * is out of its range (a NULL timer too); -ECHILD: the timer was made before this process was forked.
 */
#ifndef RINGPOOL_TIMER_H
#define RINGPOOL_TIMER_H

#include <ringpool/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_multi;
struct rp_pool;
struct rp_timer;

/* What a cancel met. */
enum rp_timer_fate {
    RP_TIMER_IDLE = 0,     /* it was not armed: its function has run, or it was never armed */
    RP_TIMER_RUNS = 1,     /* its function runs now, or is about to (queued in the pool): once more, and no more */
    RP_TIMER_CANCELED = 2, /* it was armed; its function will not run for that arming */
};

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_timer_options {
    struct rp_pool *pool; /* where the function runs; it must outlive the timer; NULL: on the reactor's thread */
    /* With a pool: called instead of the function, with the reason of struct rp_task, when the pool does not run it
     * (released, destroyed, or the task was discarded). A periodic timer goes on. NULL: nothing is called. */
    void (*dropped)(struct rp_timer *timer, void *arg, int reason);
    const char *label;                    /* of the task; must outlive the timer */
    int priority;                         /* enum rp_priority of the task */
    int backend;                          /* enum rp_backend_choice of the shared reactor */
    const struct rp_allocator *allocator; /* copied; NULL: malloc */
    struct rp_multi
        *multi; /* like pool, of which it takes the place (both: -EINVAL): its strategy sends each run to one
                               of its pools. RP_CUSTOM asks on the reactor's thread, where the answer must not block */
    uint64_t reserved[3];
};

/*
 * Makes a timer, not armed. options may be NULL. It belongs to the caller, who ends it with rp_timer_destroy. Does not
 * block, but for starting the shared reactor with the first one.
 * -EINVAL; -ENOMEM; -EAGAIN: no thread for the reactor; -EPERM, -ENOSYS, -EMFILE, -ENFILE: the backend asked for by
 * name is not granted.
 */
RP_API int rp_timer_create(struct rp_timer **timer, void (*fn)(struct rp_timer *timer, void *arg), void *arg,
                           const struct rp_timer_options *options);

/*
 * Arms it for `due` (a deadline; one in the past fires at once), or moves it there; it is no longer periodic. A run
 * that has begun, or is queued in the pool, goes on. 0, or -EINVAL: due 0 or negative. Does not block.
 */
RP_API int rp_timer_arm(struct rp_timer *timer, int64_t due);

/*
 * Arms it for start + k * interval, k = 0, 1, 2 ...: without drift, however late a run was. A time that has passed
 * before its run could begin, or while the run before it is not over, is not made up for: it is counted as an overrun.
 * 0, or -EINVAL: start 0 or negative, interval below 1. Does not block.
 */
RP_API int rp_timer_arm_periodic(struct rp_timer *timer, int64_t start, int64_t interval);

/* Overruns since it was armed last. Does not block. 0 for NULL and in a forked child. */
RP_API uint64_t rp_timer_overruns(const struct rp_timer *timer);

/* Disarms it. An enum rp_timer_fate, or a shared error. Does not block. */
RP_API int rp_timer_cancel(struct rp_timer *timer);

/*
 * Disarms it, and if its function runs waits until that has returned; what the function has armed again is disarmed
 * too. An enum rp_timer_fate as of the call's beginning; after RP_TIMER_RUNS the run is over. It does not wait (and
 * says RP_TIMER_RUNS) inside the timer's own function, nor on the reactor's thread for one that runs in a pool. A wait
 * inside a task counts as blocking (rp_blocking_begin).
 */
RP_API int rp_timer_cancel_wait(struct rp_timer *timer);

/*
 * Ends it, in any state: disarms it, waits as rp_timer_cancel_wait does, frees it. Where that does not wait, the end of
 * the run frees it. 0; in a forked child it frees.
 */
RP_API int rp_timer_destroy(struct rp_timer *timer);

#ifdef __cplusplus
}
#endif

#endif
