/*
 * A task: a function with an argument, and as data everything that may be said about when and how it runs.
 */
#ifndef RINGPOOL_TASK_H
#define RINGPOOL_TASK_H

#include <ringpool/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_ctx;
struct rp_cq;

/*
 * Order of the start among the queued tasks of a pool; first in, first out within a class (but see the option
 * `unordered`). High goes before normal
 * before low, but of every 16 tasks that a worker takes, one goes to the oldest low task first and three to the oldest
 * normal one, so that a stream of one class cannot starve the others.
 */
enum rp_priority { RP_PRIO_NORMAL = 0, RP_PRIO_HIGH = 1, RP_PRIO_LOW = 2 };

/* What a submit does when the pool has no room: no free worker, none to be made, and a full queue. */
enum rp_overload {
    RP_OVERLOAD_DEFAULT = 0,    /* as the pool's options say; there: block */
    RP_OVERLOAD_BLOCK,          /* wait for room, until the task's deadline */
    RP_OVERLOAD_FAIL,           /* -EAGAIN */
    RP_OVERLOAD_DISCARD_NEWEST, /* accept the incoming task and drop it: returns 0 after dropped(arg, -EAGAIN) */
    RP_OVERLOAD_DISCARD_OLDEST, /* drop the oldest queued task in its favour, the lowest class first; -EAGAIN if none
                                   is queued */
    RP_OVERLOAD_CALLER_RUNS,    /* run it in the submitting thread, before submit returns 0 */
};

/*
 * Zero means default for every field but fn. The struct is copied by submit; what it points to is not.
 *
 * An accepted task meets exactly one fate: fn(arg) runs, or dropped(arg, reason) is called once. When submit returns an
 * error neither happens, and the caller still owns arg.
 */
struct rp_task {
    void (*fn)(void *arg); /* runs on a worker of the pool; NULL is -EINVAL */
    void *arg;             /* handed to fn or to dropped, which then own it */
    /*
     * Called instead of fn, on any thread (a worker, the submitter, or whoever releases the pool), without a lock of
     * the pool held. Reasons: -ECANCELED (its context was cancelled), -ETIMEDOUT (its deadline or its context's
     * passed before it started), -ESHUTDOWN (the pool was released with RP_RELEASE_DROP, or destroyed while no worker
     * could be made), -EAGAIN (discarded by an overload policy). NULL: nothing is called. It must return: a panic in it
     * is only logged, and it must not end its thread. It may call anything of the pool, destroy (deferred) too.
     */
    void (*dropped)(void *arg, int reason);
    const char *label;  /* shown in reports; must outlive the task; NULL: none */
    int priority;       /* enum rp_priority */
    int overload;       /* enum rp_overload */
    int64_t deadline;   /* latest start (absolute); also bounds the submitter's blocking; 0: none */
    int64_t timeout;    /* longest run, ns; 0: none. At its end the worker counts as hung until fn returns: nothing is
                          interrupted, a warning names the task, and ctx is cancelled with -ETIMEDOUT, for all
                          that share it: give the task one of its own */
    struct rp_ctx *ctx; /* held until the task has ended; once it ends, submit returns -ECANCELED or -ETIMEDOUT, also
                           when it blocks, and a queued task is dropped with that when the queue gets to it. Inside
                           the task rp_ctx_current() is it. -ECHILD: made before a fork. NULL: none */
    struct rp_cq *cq;   /* gets one completion when the task has ended: 0, -EFAULT (panic), -ETIMEDOUT (timeout), or the
                           reason for which it was dropped. None if submit fails; that may be for the queue: -EAGAIN
                           (its limit), -ENOMEM, -ESHUTDOWN (destroyed), -ECHILD. NULL: none */
    uint64_t user_data; /* in the completion; without cq it is ignored */
};

/* What the panic handler of a pool receives. Everything it points to lives until the handler returns. */
struct rp_panic_info {
    const char *
        reason; /* the text of rp_panic, or what ended the task: "the task ended its thread: ...", "SIGSEGV at 0x..." */
    const char *label;   /* the task's label, or NULL */
    int signal;          /* the contained signal's number, else 0 */
    void *const *frames; /* return addresses, innermost first, for backtrace_symbols(3) */
    int nframes;         /* 0 where no backtrace could be taken */
};

/*
 * Ends the running task at once, as if fn had returned, but counted as panicked; the worker lives on and the pool's
 * panic handler (default: one line in the log) gets the printf-formatted reason, cut at 255 bytes.
 * Inside a task only, on the thread that runs it: elsewhere it logs an error and returns. It is a jump: what the
 * task holds (locks, memory) it keeps; neither its handlers of pthread_cleanup_push nor C++ destructors run.
 */
RP_API void rp_panic(const char *fmt, ...) RP_PRINTF(1, 2);

/*
 * Tells the watchdog and the worker list that the running task lives: resets its age there. Any thread; outside a task
 * it does nothing. Does not block.
 */
RP_API void rp_heartbeat(void);

/*
 * Brackets a part of a task that blocks (on I/O, a lock, a child): between begin and end the pool may run one more
 * worker in its place, within the option max_extra. Begin and end nest. begin: 0 when the pool may grow by one,
 * -EAGAIN when the bound is reached (end must be called all the same), -EPERM outside a task. end: 0, or -EPERM
 * without a begin in the same task; a task that ends in between has it ended. In a task that its submitter runs
 * (caller-runs) on a thread of its own they do nothing, as no worker is held up. Does not block.
 */
RP_API int rp_blocking_begin(void);
RP_API int rp_blocking_end(void);

#ifdef __cplusplus
}
#endif

#endif
