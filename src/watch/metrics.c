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

/* What is added up over the workers of one or several pools. */
struct times {
    struct rp_histogram wait, run;
    double ewma;  /* each worker's by the tasks that it has run, */
    double tasks; /* and those */
    double throughput;
    struct fates fates;
    bool measured;
};

static void fates_read(struct fates *sum, const struct fates *one)
{
    add_relaxed(&sum->cancelled, load_relaxed(&one->cancelled)); /* reports: each figure stands alone */
    add_relaxed(&sum->late, load_relaxed(&one->late));
    add_relaxed(&sum->discarded, load_relaxed(&one->discarded));
    add_relaxed(&sum->overran, load_relaxed(&one->overran));
}

static void measures_read(const struct measures *measures, struct times *times)
{
    tally_read(&measures->wait, &times->wait);
    tally_read(&measures->run, &times->run);
}

/* The worker's table changes under the lock alone. */
static void workers_read_locked(const struct pool *pool, struct times *times)
{
    unsigned used = load_acquire(&pool->table.used);

    for (unsigned i = 0; i < used; i++) {
        const struct worker *worker = worker_at(pool, i);
        if (!worker)
            continue;
        double tasks = (double)load_relaxed(&worker->tasks); /* reports: each figure stands alone */
        measures_read(worker->measures, times);
        times->ewma += tasks * (double)load_relaxed(&worker->measures->ewma);
        times->tasks += tasks;
    }
}

/* A guest. */
static void pool_read(struct pool *pool, struct times *times, uint64_t completed)
{
    rp_lock_acquire(&pool->lock);
    fates_read(&times->fates, &pool->fates);
    times->throughput += rate_look(&pool->rate, rp_now(), completed);
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
    out->overran = load_relaxed(&times->fates.overran);
    out->reuse = reuse(&out->counts);
    out->throughput = times->throughput;
    out->run_ewma = times->tasks > 0 ? (int64_t)(times->ewma / times->tasks) : 0;
    out->wait = latency(&times->wait);
    out->run = latency(&times->run);
}

static void histograms_add(const struct times *times, struct rp_histogram *wait, struct rp_histogram *run)
{
    if (wait)
        rp_histogram_merge(wait, &times->wait);
    if (run)
        rp_histogram_merge(run, &times->run);
}

/* --- a pool ------------------------------------------------------------------------------------------------------- */

/* The counts, unless that is NULL, and the times. Too large for a stack: times are alloc_free's. */
static int pool_times(const struct rp_pool *handle, struct rp_pool_snapshot *counts, struct times **times,
                      struct rp_allocator *allocator)
{
    struct rp_pool_snapshot own;
    struct pool *pool;
    int rc = guest_enter(handle, &pool);

    if (rc)
        return rc;
    *allocator = pool->allocator;
    *times = alloc_zeroed(allocator, 1, sizeof(**times));
    if (*times) {
        pool_snapshot(pool, &own);
        pool_read(pool, *times, own.completed);
        if (counts)
            *counts = own;
    }
    guest_leave(pool);
    return *times ? 0 : -ENOMEM;
}

int rp_pool_metrics(const struct rp_pool *pool, struct rp_metrics *out)
{
    struct rp_allocator allocator;
    struct times *times;

    if (!out)
        return -EINVAL;
    *out = (struct rp_metrics){.counts.closed = true};
    int rc = pool_times(pool, &out->counts, &times, &allocator);
    if (rc)
        return rc;
    metrics_fill(out, times);
    alloc_free(&allocator, times);
    return 0;
}

int rp_pool_histograms(const struct rp_pool *pool, struct rp_histogram *wait, struct rp_histogram *run)
{
    struct rp_allocator allocator;
    struct times *times;
    int rc = pool_times(pool, NULL, &times, &allocator);

    if (rc)
        return rc;
    histograms_add(times, wait, run);
    alloc_free(&allocator, times);
    return 0;
}

/* --- a multi pool ------------------------------------------------------------------------------------------------- */

static void member_read(struct member *member, struct times *times)
{
    struct rp_pool_snapshot counts;

    pool_snapshot(member->pool, &counts);
    pool_read(member->pool, times, counts.completed);
}

/* Under the lock no pool ends. */
static void multi_read(struct multi *multi, struct times *times)
{
    struct cds_list_head *node;

    rp_lock_acquire(&multi->lock);
    const struct roster *roster = load_relaxed(&multi->roster); /* under the lock */
    fates_read(&times->fates, &multi->fates);
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

static int multi_times(const struct rp_multi *handle, struct times **times, struct rp_allocator *allocator)
{
    struct multi *multi;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    *allocator = multi->allocator;
    *times = alloc_zeroed(allocator, 1, sizeof(**times));
    if (*times)
        multi_read(multi, *times);
    multi_guest_leave(multi);
    return *times ? 0 : -ENOMEM;
}

int rp_multi_metrics(const struct rp_multi *multi, struct rp_metrics *out)
{
    struct rp_allocator allocator;
    struct times *times;

    if (!out)
        return -EINVAL;
    *out = (struct rp_metrics){0};
    int rc = rp_multi_snapshot(multi, &out->counts);
    if (rc || (rc = multi_times(multi, &times, &allocator)))
        return rc;
    metrics_fill(out, times);
    alloc_free(&allocator, times);
    return 0;
}

int rp_multi_histograms(const struct rp_multi *multi, struct rp_histogram *wait, struct rp_histogram *run)
{
    struct rp_allocator allocator;
    struct times *times;
    int rc = multi_times(multi, &times, &allocator);

    if (rc)
        return rc;
    histograms_add(times, wait, run);
    alloc_free(&allocator, times);
    return 0;
}
