/*
 * Gauges: what a pool says about itself. Everything here reads without a lock: the counts of the run queue, and the
 * worker table under RCU.
 */
#include "pool/pool.h"

#include <errno.h>

/* Enters for a gauge: false in a forked child, and where there is no pool. */
static bool gauge_enter(const struct rp_pool *handle, struct pool **pool)
{
    if (pool_enter(handle, pool))
        return false;
    if (!load_relaxed(&(*pool)->forked)) /* constant in this process */
        return true;
    pool_exit();
    return false;
}

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned rp_pool_running(const struct rp_pool *handle)
{
    struct pool *pool;

    if (!gauge_enter(handle, &pool))
        return 0;
    unsigned running = load_seq(&pool->alive);
    pool_exit();
    return running;
}

unsigned rp_pool_busy(const struct rp_pool *handle)
{
    struct pool *pool;
    unsigned queued, busy;

    if (!gauge_enter(handle, &pool))
        return 0;
    runq_gauges(&pool->runq, &queued, &busy);
    busy = smaller(busy, load_seq(&pool->alive));
    pool_exit();
    return busy;
}

unsigned rp_pool_free(const struct rp_pool *handle)
{
    struct pool *pool;
    unsigned queued, busy;

    if (!gauge_enter(handle, &pool))
        return 0;
    runq_gauges(&pool->runq, &queued, &busy);
    unsigned capacity = load_seq(&pool->capacity);
    pool_exit();
    return capacity - smaller(busy, capacity);
}

unsigned rp_pool_waiting(const struct rp_pool *handle)
{
    struct pool *pool;

    if (!gauge_enter(handle, &pool))
        return 0;
    unsigned waiting = runq_queued(&pool->runq) + room_blocked(pool);
    pool_exit();
    return waiting;
}

unsigned rp_pool_cap(const struct rp_pool *handle)
{
    struct pool *pool;

    if (!gauge_enter(handle, &pool))
        return 0;
    unsigned capacity = load_seq(&pool->capacity);
    pool_exit();
    return capacity;
}

bool rp_pool_is_closed(const struct rp_pool *handle)
{
    struct pool *pool;

    if (!gauge_enter(handle, &pool))
        return true;
    bool closed = runq_closed(&pool->runq);
    pool_exit();
    return closed;
}

/* --- the snapshot ----------------------------------------------------------------------------------------------- */

/* What the workers counted, those whose descriptor was freed included: again if one was freed meanwhile. */
static void tally(const struct pool *pool, uint64_t *tasks, uint64_t *panics)
{
    uint64_t before;

    do {
        before = load_seq(&pool->retirements);
        *tasks = load_seq(&pool->retired_tasks);
        *panics = load_seq(&pool->retired_panics);
        unsigned used = load_acquire(&pool->table.used);
        for (unsigned n = 0; n < used; n++) {
            const struct worker *worker = worker_at(pool, n);
            if (!worker)
                continue;
            *tasks += load_relaxed(&worker->tasks); /* its own count: at rest exact */
            *panics += load_relaxed(&worker->panics);
        }
    } while (before % 2 || load_seq(&pool->retirements) != before);
}

int rp_pool_snapshot(const struct rp_pool *handle, struct rp_pool_snapshot *out)
{
    struct pool *pool;
    unsigned queued;

    if (!out)
        return -EINVAL;
    *out = (struct rp_pool_snapshot){.closed = true};
    int rc = pool_enter(handle, &pool);
    if (rc)
        return rc;
    if (load_relaxed(&pool->forked)) { /* constant in this process */
        pool_exit();
        return -ECHILD;
    }
    tally(pool, &out->completed, &out->panicked);
    out->completed += load_seq(&pool->ran_elsewhere);
    out->panicked += load_seq(&pool->panicked_elsewhere);
    runq_gauges(&pool->runq, &queued, &out->busy);
    out->running = load_seq(&pool->alive);
    out->busy = smaller(out->busy, out->running);
    out->idle = out->running - out->busy;
    out->blocked = room_blocked(pool);
    out->waiting = queued + out->blocked;
    out->capacity = load_seq(&pool->capacity);
    out->closed = runq_closed(&pool->runq);
    out->dropped = load_seq(&pool->dropped);
    out->rejected = load_seq(&pool->rejected);
    out->spawned = load_seq(&pool->spawned);
    out->expired = load_seq(&pool->expired);
    out->submitted = out->completed + out->panicked + out->dropped + out->busy + queued;
    pool_exit();
    return 0;
}

static void worker_info(const struct worker *worker, struct rp_worker_info *info)
{
    *info = (struct rp_worker_info){
        .worker = worker->number,
        .state = (int)load_acquire(&worker->state),
        .hung = load_acquire(&worker->hung),
        .tid = (int)load_relaxed(&worker->tid), /* reports: each figure stands alone */
        .tasks = load_relaxed(&worker->tasks),
    };
    if (info->state == RP_WORKER_RUNNING)
        info->label = load_acquire(&worker->label);
    info->since = info->state == RP_WORKER_RUNNING ? load_relaxed(&worker->since) : load_relaxed(&worker->parked_at);
}

int rp_pool_workers(const struct rp_pool *handle, struct rp_worker_info *out, unsigned n)
{
    struct pool *pool;
    unsigned found = 0;

    if (n && !out)
        return -EINVAL;
    int rc = pool_enter(handle, &pool);
    if (rc)
        return rc;
    if (load_relaxed(&pool->forked)) { /* constant in this process */
        pool_exit();
        return -ECHILD;
    }
    unsigned used = load_acquire(&pool->table.used);
    for (unsigned i = 0; i < used; i++) {
        const struct worker *worker = worker_at(pool, i);
        if (!worker)
            continue;
        if (found < n)
            worker_info(worker, &out[found]);
        found++;
    }
    pool_exit();
    return (int)found;
}
