/*
 * The pool: workers that run tasks.
 *
 * A submit hands its task to a free worker, the one most recently used first; with none free and fewer workers than the
 * capacity one is made; else the task is queued if the queue has room; else the overload policy says what happens
 * (default: the submitter blocks). Idle workers park on a futex each and end after the expiry duration.
 *
 * Words. Running: live workers, idle or busy. Busy: those executing a task. Idle: the others. Waiting: tasks accepted
 * but not started, plus the submitters that block. Capacity: the most workers that may live. Free: capacity - busy, how
 * many more tasks could start now (ants subtracts the idle workers as well, though these are the very ones that could
 * start one).
 *
 * Every function may be called from any thread and from inside a task, of the same pool too, unless it says
 * otherwise. Every function may race with every other on the same pool, with rp_pool_destroy too if it began before
 * that one returned. A thread's first call of any kind makes the thread known to liburcu: where others' first calls are
 * under way it waits for them, for 10 ms at most, also where it is said not to block.
 *
 * Return codes that all functions share:
 *   -EINVAL     an argument is out of its range (a NULL pool too), and nothing happened
 *   -ENOMEM     memory is short; nothing happened
 *   -ECHILD     the pool was made before this process was forked: make a new one here, destroy only frees this one
 *   -ESHUTDOWN  the pool is released (rp_pool_reboot opens it again) or destroyed
 */
#ifndef RINGPOOL_POOL_H
#define RINGPOOL_POOL_H

#include <ringpool/base.h>
#include <ringpool/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_pool;

/* What happens at release to the tasks that were accepted and have not started. */
enum rp_release_policy {
    RP_RELEASE_RUN = 0,  /* they run */
    RP_RELEASE_DROP = 1, /* dropped(arg, -ESHUTDOWN) */
};

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_pool_options {
    int64_t expiry_ns;     /* a worker idle for longer is ended, the oldest first; 0: 1 s; negative: -EINVAL */
    bool no_purge;         /* idle workers never expire */
    bool prealloc;         /* make all workers at creation (not with RP_UNLIMITED: -EINVAL); they may expire */
    bool nonblocking;      /* a submit that would block gets -EAGAIN; excludes max_blocking (-EINVAL) */
    bool contain_signals;  /* SIGSEGV, SIGBUS, SIGFPE and SIGILL that a task raises itself end the task as a panic
                              does. Installs process-wide handlers that chain to those found. Unsafe if the task held a
                              lock or had the heap half changed: for diagnosis and for sandboxed code */
    bool metrics;          /* measure how long tasks wait and run: ringpool/metrics.h, which says what that costs */
    unsigned min_workers;  /* made at creation, never expired; more than capacity: -EINVAL */
    unsigned max_blocking; /* so many submitters may block, the next gets -EAGAIN; 0: any number */
    unsigned queue_depth;  /* tasks accepted beyond the capacity, over all priorities; 0: direct hand-off. At most
                              RP_QUEUE_DEPTH_MAX */
    int overload;          /* enum rp_overload for tasks that do not say; 0: block */
    int release_policy;    /* enum rp_release_policy */
    void (*on_panic)(void *user, const struct rp_panic_info *info); /* on the worker, after the task was unwound; may
                              submit; NULL: an error line in the log. Must return: no panic, no pthread_exit */
    void *panic_user;
    void (*log)(void *user, int level, const char *message); /* any thread, also from several at once; message without
                              newline, alive until return; must not call ringpool. NULL: one line on stderr each */
    void *log_user;
    int (*worker_start)(void *user, unsigned worker, void **local); /* on the new worker before its first task; worker
                              is its number from 0, reused after its end. A negative return ends the worker and is
                              logged; create returns it, later another worker is tried after a while */
    void (*worker_stop)(void *user, unsigned worker, void *local);  /* on the worker after its last task; not called
                              when worker_start failed */
    void *worker_user;
    size_t stack_size; /* bytes per worker, beside what the program's thread-local variables take, rounded up to pages;
                           0: 256 KiB; below PTHREAD_STACK_MIN or above PTRDIFF_MAX / 2: -EINVAL. A guard page lies
                           below it, and running into it ends the process, contain_signals or not */
    const char *name;  /* prefix of the thread names, copied, cut at 9 bytes; NULL: "rp" */
    const struct rp_allocator *allocator; /* copied; NULL: malloc */
    /* Beyond the agreed ones: */
    const void *cpus;   /* a cpu_set_t: where workers may run; copied; NULL: as the thread that makes them */
    size_t cpus_size;   /* its size in bytes; set it with cpus */
    int sched_policy;   /* SCHED_OTHER (0), SCHED_BATCH, SCHED_IDLE, SCHED_FIFO, SCHED_RR of <sched.h> */
    int sched_priority; /* for SCHED_FIFO and SCHED_RR, whose workers' stacks mlockall brings into memory whole; after
                           mlockall(MCL_CURRENT) others' stay as they are until they are touched (Linux 6.13) */
    int backend;        /* enum rp_backend_choice */
    bool own_reactor;   /* a reactor thread of its own instead of the one that pools share */
    int log_level;      /* enum rp_log_level: the least severe that is logged; 0: warnings */
    unsigned max_extra; /* most workers beyond capacity that stand in for blocked ones; 0: 64 */
    bool unordered; /* tasks of the normal class may start in another order than they were submitted: workers take up to
                       16 of those that run for 0.15 to 8 us at once, 16 us of work, where 16 more wait for each other
                       CPU (128 from 9 CPUs on), and others take over what then waits behind a longer one. Several
                       workers do more of such tasks. A task must not wait for the start of another, but for one whose
                       future it waits for. Without effect on a single CPU, and where more may be in flight than the
                       queue has slots (as with RP_UNLIMITED, or after a tune to far more) */
    uint64_t reserved[8];
};

#define RP_QUEUE_DEPTH_MAX (1U << 21)
/* The most workers a pool can have; RP_UNLIMITED means as many. */
#define RP_WORKERS_MAX ((1U << 20) - 2)

/* What is left when release_until gives up; all zero when nothing is, or workers alone that are on their way out. */
struct rp_release_report {
    unsigned busy, queued, blocked; /* tasks that run, tasks that wait, submitters that have not returned yet */
    unsigned listed;                /* how many entries of worker[] are filled */
    struct {
        const char *label;  /* of the task, or NULL */
        int64_t running_ns; /* how long it has run so far, or since its last rp_heartbeat; see `since` below */
    } worker[16];
};

/*
 * All gauges and counters at one moment: busy + idle == running, and submitted (the accepted tasks) == completed +
 * dropped + panicked + busy + what is queued, which is waiting - blocked. completed counts the tasks whose fn returned;
 * spawned the workers that were made, expired those of them that have ended since they were idle for too long.
 * A task that another one runs on top of itself while it waits has no worker of its own and counts as queued.
 */
struct rp_pool_snapshot {
    unsigned capacity, running, busy, idle, waiting, blocked;
    bool closed;
    uint64_t submitted, completed, dropped, rejected, panicked, spawned, expired;
};

enum rp_worker_state {
    RP_WORKER_UNINITIALISED = 0, /* its thread is being made */
    RP_WORKER_RUNNING,           /* executes a task */
    RP_WORKER_IDLE,              /* parked, or looks for work */
    RP_WORKER_STOPPING,          /* was told to leave */
    RP_WORKER_STOPPED,           /* has left; its descriptor is in the cache */
};

/* One worker as rp_pool_workers sees it. */
struct rp_worker_info {
    unsigned worker;   /* its number */
    int state;         /* enum rp_worker_state */
    bool hung;         /* its task runs for longer than the task's timeout */
    int tid;           /* thread id as the kernel counts, 0 before it runs */
    const char *label; /* of its task, NULL if none or not running */
    int64_t since;  /* start of its task or last heartbeat, or when it went idle (CLOCK_MONOTONIC ns, to some ms). In a
                          stream of tasks of a few us or less: of one of up to 63 before its own, which took 16 us as
                          a rule; so that a second long one among these may look older than it is, unless somebody
                          has looked meanwhile */
    uint64_t tasks; /* tasks it has run */
};

/*
 * Makes a pool. capacity 0 means the default: the CPUs that affinity and the cgroup's cpu quota allow, at least 1.
 * options may be NULL. On success *pool belongs to the caller, who ends it with rp_pool_destroy; on failure *pool is
 * NULL and nothing is left behind. Blocks while workers are made (min_workers, prealloc).
 * -EINVAL: pool is NULL, capacity above RP_WORKERS_MAX and not RP_UNLIMITED, an option out of range, or a reserved word
 * set; -ENOMEM: memory; -EAGAIN: a thread could not be made (limits of threads or memory); -EPERM: the scheduling or
 * backend asked for is not granted; -ENOSYS, -EMFILE, -ENFILE: RP_BACKEND_IO_URING cannot be had; what worker_start
 * returned, if it failed.
 */
RP_API int rp_pool_create(struct rp_pool **pool, unsigned capacity, const struct rp_pool_options *options);

/*
 * Hands fn(arg) to the pool by its overload policy. 0: accepted. The default policy blocks while there is no room;
 * blocked submitters are served first in, first out. The first of them is overtaken by at most 16,384 later submits, or
 * four times as many as may be in flight when it becomes the first if that is more, but never more than 65,536, plus
 * one for each thread that is inside submit at that moment (a batch: its size); so one with n blocked in front of it by
 * at most n + 1 times as many. Where tasks take longer it is fewer: by none that comes later once it has been the first
 * for a millisecond and a task that ended since has left no room for it. Before it blocks, a submitter looks for room
 * for some 20 us, unless several are blocked already in front of a deep queue, or fewer than 16 tasks may be in flight
 * of which none ends for 75 us, as they went lately; between two looks it may give up its CPU to whoever wants it
 * (sched_yield). Before a queue that takes the workers longer it may nap, for a millisecond at most, so that it wakes
 * to room for many, unless its task has a deadline or a context.
 * A worker of the pool that would block here is stood in for by one more worker (within max_extra). That bounds how
 * deep tasks without room can submit to their own pool: tasks that split themselves again and again want
 * RP_OVERLOAD_CALLER_RUNS, at any capacity, or a queue_depth for all the parts that may be outstanding.
 * Memory: what the submitter wrote before is visible to fn.
 * -EAGAIN: the policy or option says not to block, or max_blocking submitters do already; or the pool has no worker
 * and none could be made; -EDEADLK: every worker of the pool blocks in here and none can be added; and the shared
 * ones above.
 */
RP_API int rp_pool_submit(struct rp_pool *pool, void (*fn)(void *arg), void *arg);

/* The same, never blocking: -EAGAIN without room. */
RP_API int rp_pool_try_submit(struct rp_pool *pool, void (*fn)(void *arg), void *arg);

/*
 * The same as rp_pool_submit, blocking until `deadline` at most: -ETIMEDOUT, late by as long as others keep the CPU that
 * it may have given up. The deadline bounds the submitter's wait only: once accepted, the task may start later than that
 * (rp_task.deadline bounds both).
 */
RP_API int rp_pool_submit_until(struct rp_pool *pool, void (*fn)(void *arg), void *arg, int64_t deadline);

/* Submits a task with all that struct rp_task can say. Errors as above, and -ETIMEDOUT: its deadline has passed. */
RP_API int rp_pool_submit_task(struct rp_pool *pool, const struct rp_task *task);

/*
 * Submits n tasks in order with one wake-up decision for all. Returns how many were accepted: a prefix of the array,
 * shorter than n only when the next task met an error; that error, when none was accepted. n 0 returns 0. Tasks that
 * may block wait for room one after the other. No two tasks of one batch overtake each other within a class.
 */
RP_API int rp_pool_submit_batch(struct rp_pool *pool, const struct rp_task *tasks, unsigned n);

/*
 * Sets the capacity: growth takes effect at once and lets blocked submitters in; on shrinking, workers end as they
 * finish their task, none is interrupted. 0: the default, computed anew. To and from RP_UNLIMITED is allowed.
 * 0, or -EINVAL: above RP_WORKERS_MAX, or below min_workers; -ESHUTDOWN: released.
 */
RP_API int rp_pool_tune(struct rp_pool *pool, unsigned capacity);

/*
 * Makes workers ahead of a burst until n are live (or capacity is reached). Returns how many are live then; a negative
 * errno only if none could be made though some were missing: -EAGAIN. Blocks while it makes them. They may expire.
 */
RP_API int rp_pool_prewarm(struct rp_pool *pool, unsigned n);

/*
 * Closes the pool and returns at once: later submits get -ESHUTDOWN, blocked submitters return with it, queued tasks
 * meet the release policy (dropped ones: by this call), running tasks end by themselves. Released already: 0.
 */
RP_API int rp_pool_release(struct rp_pool *pool);

/*
 * Releases, then waits until all tasks have ended and all workers left, until `deadline`. 0: all ended; -ETIMEDOUT: not
 * yet, *report says what is left (report may be NULL), and it may be called again to wait further; -ESHUTDOWN: the
 * pool was rebooted or destroyed meanwhile, so that the wait has no end.
 * Inside a task of the pool it runs queued tasks itself and waits for all tasks but its own (and those that wait in
 * here as well).
 */
RP_API int rp_pool_release_until(struct rp_pool *pool, int64_t deadline, struct rp_release_report *report);

/* Opens a released pool again, also while it still drains; what its options say holds again. Not released: 0. */
RP_API int rp_pool_reboot(struct rp_pool *pool);

/*
 * Releases, waits until all is ended by the release policy, and frees the pool; in any state. Calls that began before
 * it returned are safe and get -ESHUTDOWN; later ones are a mistake of the caller. A task that runs for ever makes it
 * wait for ever: rp_pool_release_until tells first. Inside a task of the same pool the destruction is deferred: the
 * call returns 0 at once, and the pool is freed when its last task has ended. A second destroy that races gets
 * -EALREADY. A pool of a multi pool (rp_multi_pool) is not the caller's to destroy: -EBUSY. In a forked child it frees
 * what can be freed and returns 0. NULL is -EINVAL.
 */
RP_API int rp_pool_destroy(struct rp_pool *pool);

/*
 * Gauges: one moment's value without a lock. Any thread, does not block. 0 for NULL, for a destroyed pool and in a
 * forked child; is_closed is true there.
 */
RP_API unsigned rp_pool_running(const struct rp_pool *pool);
RP_API unsigned rp_pool_busy(const struct rp_pool *pool);
RP_API unsigned rp_pool_free(const struct rp_pool *pool);
RP_API unsigned rp_pool_waiting(const struct rp_pool *pool);
RP_API unsigned rp_pool_cap(const struct rp_pool *pool);
RP_API bool rp_pool_is_closed(const struct rp_pool *pool);

/*
 * All of them at one moment, see struct rp_pool_snapshot. Takes no lock of the pool; it may sleep for a fraction of a
 * millisecond while a task is being counted as dropped or panicked.
 */
RP_API int rp_pool_snapshot(const struct rp_pool *pool, struct rp_pool_snapshot *out);

/*
 * Lists up to n workers into out and returns how many there are (perhaps more than n). Reads the worker table under
 * RCU, without a lock, also while the pool hangs.
 */
RP_API int rp_pool_workers(const struct rp_pool *pool, struct rp_worker_info *out, unsigned n);

#ifdef __cplusplus
}
#endif

#endif
