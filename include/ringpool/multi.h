/*
 * The multi pool: several pools behind one door, each with workers and a queue of its own.
 *
 * A submit chooses a pool by the strategy. If that one has no room it looks once for the pool with the fewest tasks,
 * and if none has room it does there what the task's overload policy says. A submitter that blocks waits for room in
 * any pool, first in, first out, and is overtaken by at most 1024 later submits, blocking or not, plus one for each
 * thread that is inside submit at that moment; after these the overload policy acts as if there were no room. But a
 * task of one of the pools waits at its own pool, where a worker stands in for it, and is not among those that are
 * counted. The pools share nothing but what their options name: one that is full, panics or hangs costs the others
 * nothing.
 *
 * Pools are numbered from 0. rp_multi_add gives the lowest number that is free; the number of a removed pool stays free
 * until then. Pools come and go while everything else runs: a submit lands in a pool of the moment or returns an error.
 *
 * Every function may be called from any thread, from inside a task too, and may race with every other, with
 * rp_multi_destroy as well if it began before that one returned. The verbs of the pool do here what rp_pool_ says of
 * them; below stands only what is different. Return codes that all share: -EINVAL (an argument is out of its range, a
 * NULL multi pool too, and nothing happened), -ENOMEM (nothing happened), -ECHILD (made before this process was
 * forked), -ESHUTDOWN (released, or destroyed).
 */
#ifndef RINGPOOL_MULTI_H
#define RINGPOOL_MULTI_H

#include <ringpool/base.h>
#include <ringpool/future.h>
#include <ringpool/group.h>
#include <ringpool/pool.h>
#include <ringpool/retry.h>
#include <ringpool/strand.h>
#include <ringpool/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_multi;

/* The most pools, and so the numbers from 0 to this less one. */
#define RP_MULTI_POOLS_MAX 65536U

/*
 * How a submit chooses. What is said of full pools holds while another one has room. A pool's load is its busy workers
 * and its waiting tasks, divided by its weight.
 */
enum rp_strategy {
    /*
     * Each in turn, by each thread: of n * k submits in a row of a thread each of the n pools is given k, and of all
     * that T threads submit no pool is given more than T above another. Where in three quarters of the pools 32 tasks
     * or more wait, a thread that has come around stays with each pool for as many submits as wait in each of those, at
     * most 128, until it has again or takes longer than half a microsecond for each; what a pool is given more by that
     * goes to another one the next time. A batch is cut evenly for all pools, from the next one on.
     * A thread that submits to more than four multi pools may begin anew each time that it turns to another one. A full
     * pool is passed over (option no_skip: the turn goes to the least loaded).
     */
    RP_ROUND_ROBIN = 0,
    RP_LEAST_TASKS, /* the least loaded of all, never a full one. Costs a look at each pool; ends at an empty one */
    RP_TWO_CHOICES, /* the less loaded of two at random (M. Mitzenmacher, 2001): nearly as good, at a fixed cost */
    RP_RANDOM,      /* any; a full one is passed over */
    RP_LOCAL,       /* by the CPU of the caller: CPU modulo pools; a full one is passed over for its neighbour */
    RP_AUTO,        /* least tasks under load, else round robin: see the options auto_ */
    RP_CUSTOM,      /* the option choose */
};

/* A pool as the option choose sees it. The numbers of one pool are of one moment. */
struct rp_multi_view {
    unsigned index;    /* its number */
    unsigned weight;   /* at least 1 */
    unsigned capacity; /* may be RP_UNLIMITED */
    unsigned busy;     /* tasks taken by its workers */
    unsigned waiting;  /* tasks accepted but not started, and submitters that block */
    bool room;         /* one more task would be accepted at once */
};

enum rp_multi_health_step {
    RP_MULTI_OUT = 1,  /* found sick, and taken out of the rotation */
    RP_MULTI_REBOOTED, /* who blocked at it went elsewhere, its queue met the release policy, it is open again */
    RP_MULTI_BACK,     /* found well, and back in the rotation */
};

enum rp_multi_health_cause {
    RP_MULTI_HUNG = 1,   /* all workers run their task for longer than hang_ns, and no more may be made */
    RP_MULTI_NO_WORKERS, /* it has none, and none can be made */
};

/* What the option on_health is told. */
struct rp_multi_health {
    unsigned index;   /* of the pool */
    int step;         /* enum rp_multi_health_step */
    int cause;        /* enum rp_multi_health_cause: why it was taken out */
    unsigned running; /* its workers */
    unsigned hung;    /* those that run their task for longer than hang_ns */
    unsigned spare;   /* workers beyond its capacity that stand in for hung ones */
};

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_multi_options {
    const struct rp_pool_options *pool; /* of every pool, those added later too; copied with what it points to, except
                                           the log's, the hooks' and the allocator's user pointers. The multi pool takes
                                           log, name, allocator and backend from here as well. NULL: defaults. To the
                                           name each pool adds a dot and its number, cutting the name so that all
                                           fits */
    void (*configure)(void *user, unsigned index, struct rp_pool_options *options); /* before pool `index` is made: may
                                           change its options (other CPUs for each, say), and may call anything but
                                           destroy. NULL: all alike */
    void *configure_user;
    const unsigned *weights;      /* one for each pool of create, at least 1 (-EINVAL); copied. NULL: 1 each */
    bool weigh_by_capacity;       /* the weight is multiplied by the pool's capacity of the moment */
    bool no_skip;                 /* round robin does not pass over full pools in turn, but goes to least tasks */
    unsigned auto_high, auto_low; /* RP_AUTO turns to least tasks when busy and waiting tasks reach auto_high
                                           percent of the capacity, and back to round robin below auto_low; 0: 70, 50.
                                           auto_low above auto_high: -EINVAL */
    unsigned auto_waiting;        /* ... and also while at least so many tasks wait; 0: does not matter */
    int (*choose)(void *user, const struct rp_multi_view *pools, unsigned n); /* RP_CUSTOM: the position in pools[] (not
                                           the number), or a negative errno, which submit returns. Any thread, several
                                           at once; must return. It may block, and may call anything but destroy */
    void *choose_user;
    int64_t health_ns; /* how often to look for sick pools while tasks that came through the multi pool are in flight;
                          0: never. Negative: -EINVAL */
    int64_t hang_ns; /* a worker hangs when its task runs for longer without rp_heartbeat, as told by `since` of struct
                          rp_worker_info once that is its own task's; 0: 10 s */
    void (*on_health)(void *user, const struct rp_multi_health *event); /* on the health check's own thread; may block
                                           and call anything; destroy is deferred there. NULL: only the log is told */
    void *health_user;
    uint64_t reserved[8];
};

/* One pool as rp_multi_pools lists it. */
struct rp_multi_info {
    unsigned index, weight, capacity, running, busy, waiting;
    bool closed;
    bool out;       /* of the rotation: the health check found it sick */
    unsigned spare; /* workers beyond its capacity that stand in for hung ones */
};

/*
 * Makes `pools` pools of capacity_each workers (0: the default of rp_pool_create, for each). options may be NULL. On
 * failure *multi is NULL and nothing is left behind. Blocks while workers are made.
 * -EINVAL: multi is NULL, pools is 0 or above RP_MULTI_POOLS_MAX, an unknown strategy, RP_CUSTOM without `choose`, an
 * option out of range or a reserved word set; what rp_pool_create returns; -EAGAIN: the health check's thread could not
 * be made.
 */
RP_API int rp_multi_create(struct rp_multi **multi, unsigned pools, unsigned capacity_each, enum rp_strategy strategy,
                           const struct rp_multi_options *options);

/*
 * As the verbs of the pool. The deadline holds over all that a submit does, however many pools it tries. -EAGAIN means
 * that no pool had room and the task may not wait, or that as many submitters block as max_blocking of the pools'
 * options, times the pools, allows.
 */
RP_API int rp_multi_submit(struct rp_multi *multi, void (*fn)(void *arg), void *arg);
RP_API int rp_multi_try_submit(struct rp_multi *multi, void (*fn)(void *arg), void *arg);
RP_API int rp_multi_submit_until(struct rp_multi *multi, void (*fn)(void *arg), void *arg, int64_t deadline);
RP_API int rp_multi_submit_task(struct rp_multi *multi, const struct rp_task *task);

/*
 * Cuts the batch into as many parts as there are pools, at least one task each, and lets the strategy choose for each
 * part; one wake-up decision for a part. What the chosen pool has no room for is submitted as by rp_multi_submit_task.
 * Accepted is a prefix of the array. Tasks of one batch that go to different pools have no order among them.
 */
RP_API int rp_multi_submit_batch(struct rp_multi *multi, const struct rp_task *tasks, unsigned n);

/*
 * Futures, retries, groups and strands whose tasks the strategy sends to one of the pools each: what future.h, retry.h,
 * group.h and strand.h say of a pool, the errors too, holds here of the multi pool. Contexts and completion queues
 * come with rp_multi_submit_task, timers with the option multi of timer.h.
 *   A worker that waits for a future helps with it only if that waits at its own pool; else it sleeps, and its pool may
 * have one more worker meanwhile, so that pools whose tasks wait for one another get on, too.
 *   A continuation whose pool is NULL is sent anew, or runs on the worker that ended what it continues if that one is
 * of any of the pools. Each attempt of a retry is sent anew: one that finds no room comes later, and a removed pool
 * ends none. A strand's key is sent anew whenever it gets its first task, and when others wait for its worker. A strand
 * must be destroyed before the multi pool.
 */
RP_API int rp_multi_submit_future(struct rp_multi *multi, int (*fn)(void *arg, void **value), void *arg,
                                  struct rp_future **future);
RP_API int rp_multi_submit_future_task(struct rp_multi *multi, int (*fn)(void *arg, void **value),
                                       const struct rp_task *task, struct rp_future **future);
RP_API int rp_multi_submit_retry(struct rp_multi *multi, int (*fn)(void *arg, void **value), const struct rp_task *task,
                                 const struct rp_retry *retry, struct rp_future **future);
RP_API int rp_multi_group_create(struct rp_group **group, struct rp_multi *multi,
                                 const struct rp_group_options *options);
RP_API int rp_multi_strand_create(struct rp_strand **strand, struct rp_multi *multi,
                                  const struct rp_strand_options *options);

/*
 * Sets the capacity of all pools together. Each gets at least 1, and of the rest a share by its weight of options and
 * rp_multi_set_weight (equal weights: shares that differ by 1 at most); the shares add up to `capacity` exactly. 0:
 * each the default, computed anew; RP_UNLIMITED: each. Of two calls that race the later one holds for all pools.
 * -EINVAL: fewer than pools, or a share below a pool's min_workers or above RP_WORKERS_MAX: then nothing changed.
 */
RP_API int rp_multi_tune(struct rp_multi *multi, unsigned capacity);

/* rp_pool_tune on one pool. -ENOENT: there is no such pool. */
RP_API int rp_multi_tune_pool(struct rp_multi *multi, unsigned index, unsigned capacity);

/* Makes workers until n live, divided as rp_multi_tune says but without a least. Returns how many live then. */
RP_API int rp_multi_prewarm(struct rp_multi *multi, unsigned n);

RP_API int rp_multi_release(struct rp_multi *multi);

/*
 * Waits for all pools at once, removed ones that still drain included; the report adds up all. Inside a task of one of
 * the pools it helps with what is queued in any, and waits for all tasks but its own and those that wait in here too.
 */
RP_API int rp_multi_release_until(struct rp_multi *multi, int64_t deadline, struct rp_release_report *report);

RP_API int rp_multi_reboot(struct rp_multi *multi);

/* Inside a task of one of its pools, or in on_health, the destruction is deferred as a pool's is. */
RP_API int rp_multi_destroy(struct rp_multi *multi);

/*
 * Sums over the pools, RP_UNLIMITED if one is unlimited or the sum is too large. running, busy and waiting include
 * removed pools that still drain; cap and free do not.
 */
RP_API unsigned rp_multi_running(const struct rp_multi *multi);
RP_API unsigned rp_multi_busy(const struct rp_multi *multi);
RP_API unsigned rp_multi_free(const struct rp_multi *multi);
RP_API unsigned rp_multi_waiting(const struct rp_multi *multi);
RP_API unsigned rp_multi_cap(const struct rp_multi *multi);
RP_API bool rp_multi_is_closed(const struct rp_multi *multi);

/*
 * The sum of the pools' snapshots, with all that removed pools have counted; each pool's part is of one moment, and the
 * equations of struct rp_pool_snapshot hold for the sum. rejected also counts submits that found no open pool.
 */
RP_API int rp_multi_snapshot(const struct rp_multi *multi, struct rp_pool_snapshot *out);

/* Lists up to n pools in order of their numbers, and returns how many there are (perhaps more than n). */
RP_API int rp_multi_pools(const struct rp_multi *multi, struct rp_multi_info *out, unsigned n);

/*
 * The pool of that number, for its gauges and for submits past the strategy; NULL if there is none. It belongs to the
 * multi pool: rp_pool_destroy on it is -EBUSY. After the pool's removal the pointer may be used only until its last
 * task has ended; it may name another pool later.
 */
RP_API struct rp_pool *rp_multi_pool(struct rp_multi *multi, unsigned index);

/*
 * Adds a pool and returns its number. capacity 0: the default. Blocks while its workers are made. Errors as
 * rp_multi_create, and -ENOSPC: RP_MULTI_POOLS_MAX are there; -ESHUTDOWN: released. After an error workers that were
 * made already may still be ending.
 */
RP_API int rp_multi_add(struct rp_multi *multi, unsigned capacity);

/*
 * Takes a pool out and returns when no submit can choose it any more. It drains in the background: what it accepted
 * still runs (or is dropped by its release policy), and its workers end. A pool in which nobody is, and that has had no
 * worker lately, is freed by then, unless it has a reactor of its own or this is called inside a task.
 * -ENOENT: there is no such pool; -EBUSY: it is the last one.
 */
RP_API int rp_multi_remove(struct rp_multi *multi, unsigned index);

/* Changes the strategy for submits from now on. -EINVAL: unknown, or RP_CUSTOM without `choose`. */
RP_API int rp_multi_set_strategy(struct rp_multi *multi, enum rp_strategy strategy);

/* The strategy as set; `effective`: what RP_AUTO does now, RP_ROUND_ROBIN or RP_LEAST_TASKS. */
RP_API int rp_multi_strategy(const struct rp_multi *multi, bool effective);

/* -ENOENT: there is no such pool; -EINVAL: weight 0. */
RP_API int rp_multi_set_weight(struct rp_multi *multi, unsigned index, unsigned weight);

#ifdef __cplusplus
}
#endif

#endif
