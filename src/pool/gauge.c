/*
 * Gauges: what a pool says about itself. Everything here reads without a lock: the counts of the run queue, and the
 * worker table under RCU.
 */
#include "base/futex.h"
#include "pool/pool.h"

#include <errno.h>

#define ENDED_TRIES 1200
#define ENDED_TRIES_AWAKE 200
#define ENDED_NAP_NS 100000

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

unsigned pool_running(const struct pool *pool)
{
    return load_seq(&pool->alive);
}

unsigned pool_busy(const struct pool *pool)
{
    return smaller(runq_count(&pool->runq).taken, load_seq(&pool->alive));
}

unsigned pool_free_workers(const struct pool *pool)
{
    unsigned busy = runq_count(&pool->runq).taken;
    unsigned capacity = load_seq(&pool->capacity);

    return capacity - smaller(busy, capacity);
}

unsigned pool_waiting(const struct pool *pool)
{
    return runq_queued(&pool->runq) + room_blocked(pool);
}

unsigned pool_cap(const struct pool *pool)
{
    return load_seq(&pool->capacity);
}

static unsigned gauge(const struct rp_pool *handle, unsigned (*read)(const struct pool *pool))
{
    struct pool *pool;

    if (!gauge_enter(handle, &pool))
        return 0;
    unsigned value = read(pool);
    pool_exit();
    return value;
}

unsigned rp_pool_running(const struct rp_pool *handle)
{
    return gauge(handle, pool_running);
}

unsigned rp_pool_busy(const struct rp_pool *handle)
{
    return gauge(handle, pool_busy);
}

unsigned rp_pool_free(const struct rp_pool *handle)
{
    return gauge(handle, pool_free_workers);
}

unsigned rp_pool_waiting(const struct rp_pool *handle)
{
    return gauge(handle, pool_waiting);
}

unsigned rp_pool_cap(const struct rp_pool *handle)
{
    return gauge(handle, pool_cap);
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

/*
 * What ended, by how, with no task between being counted as dropped or panicked and being counted as done. That is some
 * instructions long; a thread may be preempted there, so after some tries each further one sleeps a little. Only if
 * that goes on for a tenth of a second do we give up, and `completed` then lacks that task until the next snapshot.
 */
static struct runq_counts ended(const struct pool *pool, uint64_t *dropped, uint64_t *panicked)
{
    _Atomic uint32_t nobody = 0;
    struct runq_counts counts;
    uint64_t failed;

    for (int tries = 0; tries < ENDED_TRIES; tries++) {
        if (tries > ENDED_TRIES_AWAKE)
            futex_wait(&nobody, 0, rp_after(ENDED_NAP_NS));
        failed = load_seq(&pool->failed);
        *dropped = load_seq(&pool->dropped);
        *panicked = load_seq(&pool->panicked);
        counts = runq_count(&pool->runq);
        if (load_seq(&pool->failing) == failed)
            break;
    }
    return counts;
}

void pool_snapshot(const struct pool *pool, struct rp_pool_snapshot *out)
{
    uint64_t outside = load_seq(&pool->outside_completed);
    uint64_t outside_dropped = load_seq(&pool->outside_dropped), outside_panicked = load_seq(&pool->outside_panicked);
    struct runq_counts counts = ended(pool, &out->dropped, &out->panicked);

    out->completed = counts.done - out->dropped - out->panicked + outside;
    out->dropped += outside_dropped;
    out->panicked += outside_panicked;
    out->running = load_seq(&pool->alive);
    out->busy = smaller(counts.taken, out->running);
    out->idle = out->running - out->busy;
    out->blocked = room_blocked(pool);
    out->waiting = counts.queued + (counts.taken - out->busy) + out->blocked;
    out->submitted = counts.done + counts.queued + counts.taken + outside + outside_dropped + outside_panicked;
    out->capacity = load_seq(&pool->capacity);
    out->closed = runq_closed(&pool->runq);
    out->rejected = load_seq(&pool->rejected);
    out->spawned = load_seq(&pool->spawned);
    out->expired = load_seq(&pool->expired);
}

int rp_pool_snapshot(const struct rp_pool *handle, struct rp_pool_snapshot *out)
{
    struct pool *pool;

    if (!out)
        return -EINVAL;
    *out = (struct rp_pool_snapshot){.closed = true};
    int rc = guest_enter(handle, &pool); /* not a section: it may sleep */
    if (rc)
        return rc;
    pool_snapshot(pool, out);
    guest_leave(pool);
    return 0;
}

static void worker_info(struct worker *worker, struct rp_worker_info *info)
{
    bool own;

    *info = (struct rp_worker_info){
        .worker = worker->number,
        .state = (int)load_acquire(&worker->state),
        .hung = load_acquire(&worker->hung),
        .tid = (int)load_relaxed(&worker->tid), /* reports: each figure stands alone */
        .tasks = load_relaxed(&worker->tasks),
    };
    if (info->state == RP_WORKER_RUNNING)
        info->label = load_acquire(&worker->label);
    info->since = info->state == RP_WORKER_RUNNING ? worker_since(worker, &own) : load_relaxed(&worker->parked_at);
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
        struct worker *worker = worker_at(pool, i);
        if (!worker)
            continue;
        if (found < n)
            worker_info(worker, &out[found]);
        found++;
    }
    pool_exit();
    return (int)found;
}
