/*
 * How soon a submitted task starts: from just before the submit call to the first instruction of the task, so that
 * blocking in submit, waiting in the queue and the wake-up are all in it.
 *
 * Two workloads on one pool. With gaps of 1 ms the worker has parked before the next submit comes: the cost of a
 * wake-up. Back to back each is submitted as soon as the one before has ended: the cost of a hand-over to a worker that
 * may be awake still. The first few samples of each, which make the workers, are not counted.
 */
#include "demo.h"

#include <ringpool.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define WARM_UP 20
#define GAP_NS 1000000

struct sample {
    int64_t submitted, started;
};

static int note_start(void *arg, void **value)
{
    struct sample *sample = arg;

    (void)value;
    sample->started = rp_now();
    return 0;
}

/* An early return, by a signal, is looked at by the caller. */
static void sleep_until(int64_t when)
{
    struct timespec t = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int submit_samples(struct demo *demo, struct rp_pool *pool, struct sample *samples, int64_t gap_ns)
{
    for (size_t i = 0; i < WARM_UP + LATENCY_SAMPLES; i++) {
        struct rp_future *future;
        int rc;

        if (!demo_go_on())
            return -EINTR;
        if (gap_ns)
            sleep_until(rp_after(gap_ns));
        samples[i].submitted = rp_now();
        rc = rp_pool_submit_future(pool, note_start, &samples[i], &future);
        if (rc < 0)
            return rc;
        rc = rp_future_get(future, NULL);
        rp_future_destroy(future);
        if (rc < 0)
            return rc;
        progress_show(&demo->progress);
    }
    return 0;
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The nearest rank: the least sample that p percent of all do not exceed. */
static double percentile_us(const int64_t *sorted, unsigned p)
{
    const unsigned rank = (LATENCY_SAMPLES * p + 99) / 100;

    return (double)sorted[rank - 1] / 1000;
}

static void summarise(struct latency *latency, const struct sample *samples)
{
    int64_t times[LATENCY_SAMPLES];

    for (size_t i = 0; i < LATENCY_SAMPLES; i++)
        times[i] = samples[WARM_UP + i].started - samples[WARM_UP + i].submitted;
    qsort(times, LATENCY_SAMPLES, sizeof(times[0]), compare_times);
    latency->p50 = percentile_us(times, 50);
    latency->p90 = percentile_us(times, 90);
    latency->p99 = percentile_us(times, 99);
    latency->max = percentile_us(times, 100);
}

int demo_measure_latencies(struct demo *demo)
{
    static const struct latency workloads[LATENCIES] = {
        [LATENCY_GAPS] = {.name = "1 ms gaps", .key = "gap_1ms", .gap_ns = GAP_NS},
        [LATENCY_BACK_TO_BACK] = {.name = "back to back", .key = "back_to_back"},
    };
    struct rp_pool_options options = demo_pool_options();
    struct sample(*samples)[WARM_UP + LATENCY_SAMPLES];
    struct rp_pool *pool;
    int rc, ended;

    progress_phase(&demo->progress, "latency", 0);
    samples = calloc(LATENCIES, sizeof(*samples));
    if (!samples)
        return -ENOMEM;
    rc = rp_pool_create(&pool, demo->workers, &options);
    if (rc < 0)
        goto free_samples;
    for (size_t i = 0; rc == 0 && i < LATENCIES; i++) {
        demo->latencies[i] = workloads[i];
        rc = submit_samples(demo, pool, samples[i], workloads[i].gap_ns);
    }
    ended = rp_pool_destroy(pool);
    rc = rc < 0 ? rc : ended;
    for (size_t i = 0; rc == 0 && i < LATENCIES; i++)
        summarise(&demo->latencies[i], samples[i]);

free_samples:
    free(samples);
    return rc;
}
