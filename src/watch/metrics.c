/*
 * Metrics: reading what pools count and measure. See ringpool/metrics.h for what the figures mean, pool/measure.h for
 * how they come about.
 *
 * All of a pool is read under its lock, so that what a worker has measured is found either at the worker or, once its
 * descriptor is gone, in the pool's own set, and never in both.
 */
#include <ringpool/metrics.h>

#include "base/alloc.h"
#include "pool/multi.h"

#include <errno.h>

#define EWMA_NS 1000000000

/* What is added up over the workers of one or several pools. */
struct times {
    struct rp_histogram wait, run;
    double ewma; /* the sum of those that measured within EWMA_NS of the last that did */
    unsigned ewmas;
    int64_t ewma_at;
    double throughput;
    struct fates fates;
    bool measured;
};

static void ewma_read(const struct measures *measures, struct times *times)
{
    int64_t at = load_relaxed(&measures->ewma_at); /* reports: each figure stands alone */

    if (!at || at < times->ewma_at - EWMA_NS)
        return;
    if (at > times->ewma_at + EWMA_NS) {
        times->ewma = 0;
        times->ewmas = 0;
    }
    times->ewma += (double)load_relaxed(&measures->ewma);
    times->ewmas++;
    times->ewma_at = at > times->ewma_at ? at : times->ewma_at;
}

static void measures_read(const struct measures *measures, struct times *times)
{
    ewma_read(measures, times);
    tally_read(&measures->wait, &times->wait);
    tally_read(&measures->run, &times->run);
}

/* The worker's table changes under the lock alone. */
static void workers_read_locked(const struct pool *pool, struct times *times)
{
    unsigned used = load_acquire(&pool->table.used);

    for (unsigned i = 0; i < used; i++) {
        const struct worker *worker = worker_at(pool, i);
        if (worker)
            measures_read(worker->measures, times);
    }
}

/*
 * A guest. The fates first: they are counted after what is dropped, of which there are then no fewer.
 */
static void pool_read(struct pool *pool, struct times *times, struct rp_pool_snapshot *counts)
{
    fates_add(&times->fates, &pool->fates);
    pool_snapshot(pool, counts);
    rp_lock_acquire(&pool->lock);
    times->throughput += rate_look(&pool->rate, rp_now(), counts->completed);
    if (pool->measured) {
        times->measured = true;
        measures_read(pool->measured, times);
        workers_read_locked(pool, times);
    }
    rp_lock_release(&pool->lock);
}

static struct rp_latency latency(const struct rp_histogram *h)
{
    return (struct rp_latency){
        .count = h->total,
        .sum = h->sum,
        .mean = (int64_t)rp_histogram_mean(h),
        .p50 = (int64_t)rp_histogram_at(h, 0.5),
        .p90 = (int64_t)rp_histogram_at(h, 0.9),
        .p99 = (int64_t)rp_histogram_at(h, 0.99),
        .p999 = (int64_t)rp_histogram_at(h, 0.999),
        .max = (int64_t)h->most,
    };
}

/* Of what was spawned some may have had no task; and of a task that is not over nobody knows yet. */
static double reuse(const struct rp_pool_snapshot *counts)
{
    uint64_t tasks = counts->completed + counts->panicked + counts->busy;

    return counts->spawned < tasks ? 1 - (double)counts->spawned / (double)tasks : 0;
}

static void metrics_fill(struct rp_metrics *out, const struct times *times)
{
    out->measured = times->measured;
    out->cancelled = load_relaxed(&times->fates.cancelled); /* our own */
    out->late = load_relaxed(&times->fates.late);
    out->discarded = load_relaxed(&times->fates.discarded);
    out->released = load_relaxed(&times->fates.released);
    out->overran = load_relaxed(&times->fates.overran);
    out->reuse = reuse(&out->counts);
    out->throughput = times->throughput;
    out->run_ewma = times->ewmas ? (int64_t)(times->ewma / times->ewmas) : 0;
    out->wait = latency(&times->wait);
    out->run = latency(&times->run);
}

/* What a call is to fill in; NULL: not that. */
struct wanted {
    struct rp_metrics *metrics;
    struct rp_histogram *wait, *run;
};

static void wanted_fill(const struct wanted *wanted, const struct times *times)
{
    if (wanted->metrics)
        metrics_fill(wanted->metrics, times);
    if (wanted->wait)
        rp_histogram_merge(wanted->wait, &times->wait);
    if (wanted->run)
        rp_histogram_merge(wanted->run, &times->run);
}

/* --- a pool ------------------------------------------------------------------------------------------------------- */

/*
 * Times are too large for a stack, and belong to the allocator of what they are of, which is held until they are freed.
 */
static int pool_look(const struct rp_pool *handle, const struct wanted *wanted)
{
    struct rp_pool_snapshot counts;
    struct pool *pool;
    int rc = guest_enter(handle, &pool);

    if (rc)
        return rc;
    struct times *times = alloc_zeroed(&pool->allocator, 1, sizeof(*times));
    if (times) {
        pool_read(pool, times, &counts);
        if (wanted->metrics)
            wanted->metrics->counts = counts;
        wanted_fill(wanted, times);
        alloc_free(&pool->allocator, times);
    }
    guest_leave(pool);
    return times ? 0 : -ENOMEM;
}

int rp_pool_metrics(const struct rp_pool *pool, struct rp_metrics *out)
{
    if (!out)
        return -EINVAL;
    *out = (struct rp_metrics){.counts.closed = true};
    return pool_look(pool, &(struct wanted){.metrics = out});
}

int rp_pool_histograms(const struct rp_pool *pool, struct rp_histogram *wait, struct rp_histogram *run)
{
    return pool_look(pool, &(struct wanted){.wait = wait, .run = run});
}

/* --- a multi pool ------------------------------------------------------------------------------------------------- */

static void member_read(struct member *member, struct times *times)
{
    struct rp_pool_snapshot counts;

    pool_read(member->pool, times, &counts);
}

/* Under the lock no pool ends. */
static void multi_read(struct multi *multi, struct times *times)
{
    struct cds_list_head *node;

    rp_lock_acquire(&multi->lock);
    const struct roster *roster = load_relaxed(&multi->roster); /* under the lock */
    fates_add(&times->fates, &multi->fates);
    if (multi->measured) {
        times->measured = true;
        measures_read(multi->measured, times);
    }
    for (unsigned i = 0; roster && i < roster->slots; i++)
        if (roster->by_index[i])
            member_read(roster->by_index[i], times);
    cds_list_for_each(node, &multi->draining) member_read(caa_container_of(node, struct member, drain), times);
    rp_lock_release(&multi->lock);
}

/* As pool_look; the fates before the counts, as there. */
static int multi_look(const struct rp_multi *handle, const struct wanted *wanted)
{
    struct multi *multi;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    struct times *times = alloc_zeroed(&multi->allocator, 1, sizeof(*times));
    if (times) {
        multi_read(multi, times);
        if (wanted->metrics)
            rc = rp_multi_snapshot(handle, &wanted->metrics->counts);
        if (!rc)
            wanted_fill(wanted, times);
        alloc_free(&multi->allocator, times);
    }
    multi_guest_leave(multi);
    return times ? rc : -ENOMEM;
}

int rp_multi_metrics(const struct rp_multi *multi, struct rp_metrics *out)
{
    if (!out)
        return -EINVAL;
    *out = (struct rp_metrics){.counts.closed = true};
    return multi_look(multi, &(struct wanted){.metrics = out});
}

int rp_multi_histograms(const struct rp_multi *multi, struct rp_histogram *wait, struct rp_histogram *run)
{
    return multi_look(multi, &(struct wanted){.wait = wait, .run = run});
}
