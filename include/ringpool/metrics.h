/*
 * Metrics: what a pool or a multi pool has done, in counts and times, and the same as a text that Prometheus reads.
 *
 * Gauges and counters are there for every pool. Times are measured where the option `metrics` was set when it was made:
 * how long tasks waited in the queue, from their submit to their start, and how long they ran, as clock time, with what
 * their thread was off the CPU. Each worker records for itself, up to 114 KiB, and readers add that up.
 *
 * While tasks take 16 us or longer, or come one by one, each is measured. Of shorter ones that come in a stream it is
 * one in 2, 4, .. 1024, about one in 16 us of work, and counts for as many; so that counts are those of the tasks to
 * some percent, and percentiles are those of a sample. But a rare one that runs 256 times as long as its neighbours,
 * and 16 us at least, is found by what it holds up, and counts for itself alone, at that time less what its neighbours
 * usually take. So does, as it cannot be told from one, a time for which the worker was off the CPU between two such
 * tasks, and once the first dozens of them where tasks become longer. What is not measured: how long the submitter was
 * blocked; the parts of a strand's turn; the wait of what does not run from the queue (in its submitter's place, in a
 * waiter's, as a continuation); a task that ended its thread, in another's place.
 *
 * What times cost, on one submitter and one worker: of empty tasks some 3 %, of tasks of 500 ns 4 %.
 */
#ifndef RINGPOOL_METRICS_H
#define RINGPOOL_METRICS_H

#include <ringpool/base.h>
#include <ringpool/histogram.h>
#include <ringpool/multi.h>
#include <ringpool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ns; all 0 while there is nothing. Percentiles to 1 %, max is exact, but for a task that was found as said above. */
struct rp_latency {
    uint64_t count, sum;
    int64_t mean, p50, p90, p99, p999, max;
};

struct rp_metrics {
    struct rp_pool_snapshot counts; /* of a multi pool those of rp_multi_snapshot */
    bool measured;                  /* whether the times below are: the option metrics */
    uint64_t cancelled;             /* of counts.dropped (which may have some more already): its context was
                                       cancelled, or its future, */
    uint64_t late;                  /* its deadline, or its context's, passed before it started, */
    uint64_t discarded;             /* a discarding overload policy ended it, */
    uint64_t released;              /* or a release */
    uint64_t overran;               /* tasks that ran for longer than their timeout */
    double reuse;                   /* the share of tasks that found a worker which had been made before; 0: no task */
    double throughput;              /* tasks completed a second, over the last one to three seconds if somebody looks as
                                       often, else since the last look but one, or the creation */
    int64_t run_ewma;               /* ns: of how long tasks ran, an average that forgets: to each worker its last
                                       measured task counts for a sixteenth. Of those that measured within a second of
                                       the last that did */
    struct rp_latency wait, run;    /* in the queue; from start to end, of tasks that panicked too */
};

/*
 * All of it. Any thread, inside a task too; takes 114 KiB of memory for as long as it runs, and the pool's lock for
 * some us a worker, while none is made or ended.
 * 0, -EINVAL, -ENOMEM, -ECHILD, -ESHUTDOWN: destroyed.
 */
RP_API int rp_pool_metrics(const struct rp_pool *pool, struct rp_metrics *out);
/* The same of all pools together, and of those that were removed. */
RP_API int rp_multi_metrics(const struct rp_multi *multi, struct rp_metrics *out);

/*
 * Adds the whole distributions to *wait and *run, either of which may be NULL; nothing where nothing is measured.
 * Otherwise as above.
 */
RP_API int rp_pool_histograms(const struct rp_pool *pool, struct rp_histogram *wait, struct rp_histogram *run);
RP_API int rp_multi_histograms(const struct rp_multi *multi, struct rp_histogram *wait, struct rp_histogram *run);

/* One or the other, and what its samples are labelled with: pool="label". UTF-8, any length, no two alike. */
struct rp_metrics_source {
    const char *label;
    const struct rp_pool *pool;
    const struct rp_multi *multi;
};

/*
 * Writes the metrics of n sources in the text format of OpenMetrics 1.0 (openmetrics.io, application/openmetrics-text;
 * version=1.0.0; charset=utf-8), in pieces that are each handed to write(user, text, size) in order.
 * A source that is destroyed, or was made before a fork, is left out. Times are in seconds, as summaries with the
 * quantiles 0.5, 0.9, 0.99, 0.999 and 1.
 * 0; what write returned if that was negative, and it is not called again; -EINVAL: an argument, or a source that names
 * no pool or two or has no label; -ENOMEM. Any thread, inside a task too; blocks as write does.
 */
RP_API int rp_metrics_text(const struct rp_metrics_source *sources, unsigned n,
                           int (*write)(void *user, const char *text, size_t size), void *user);

#ifdef __cplusplus
}
#endif

#endif
