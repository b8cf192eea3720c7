/*
 * `ringpool bench versus`: two pools of ours that differ in one thing, in turns, in one process.
 *
 * P threads submit empty tasks to one pool, then to the other, then to the other again, then to the one, and so on,
 * for some milliseconds each; the pool whose turn it is not sleeps. `ratio` is the median over the pairs of turns. With
 * a gap it is one thread that submits a task each gap, and `ratio` that of the medians of all times from submit to the
 * task's first instruction; with round trips, one that waits for each task, and of the times until it is done. Two
 * processes one after the other differ by more than what is looked for here, as a CPU is taken away for a moment or
 * lines travel further for a while: that hits both turns of a pair, or few pairs.
 *
 * What it leaves out: where the memory of the two pools lies differs too, by some percent of the figure, and stays for
 * the process. Hence several runs.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "bench.h"
#include "command.h"
#include "meter.h"
#include "workload.h"

#define PAIRS_MOST 1000
#define WATCH_NS 20000

enum { OTHER_SAME, OTHER_EPOLL, OTHER_METRICS };
static const char *const other_words[] = {"same", "epoll", "metrics", NULL};
enum { THROUGHPUT, WAKE, ROUNDTRIP };
static const char *const what_words[] = {"throughput", "wake", "roundtrip", NULL};
enum { GAP_SLEEP, GAP_SPIN };
static const char *const gap_words[] = {"sleep", "spin", NULL};

struct turns {
    const struct executor *executor;
    void *pool;
    uint64_t producers, tasks; /* in a turn */
    _Atomic int error;         /* of a submit; the run is void */
};

static void produce(void *arg, unsigned i)
{
    struct turns *turns = arg;
    uint64_t n = turns->tasks / turns->producers + (i < turns->tasks % turns->producers);
    int rc = turns->executor->burst(turns->pool, task_count, NULL, n);

    if (rc)
        turns->error = rc;
}

static int take_turn(struct turns *turns, void *pool, double *rate)
{
    uint64_t all = cells_tasks() + turns->tasks;
    struct usage begun;

    turns->pool = pool;
    int rc = threads_run((unsigned)turns->producers, produce, turns, &begun);
    if (rc || turns->error)
        return rc ? rc : turns->error;
    cells_wait(all, WATCH_NS);
    *rate = (double)turns->tasks * 1e9 / (double)usage_since(&begun).wall;
    return 0;
}

static int take_turns(struct turns *turns, void *const pools[2], unsigned pairs, double *rates[2], double *ratios)
{
    for (unsigned pair = 0; pair < pairs; pair++) {
        for (unsigned turn = 0; turn < 2; turn++) {
            unsigned which = (pair + turn) % 2;
            int rc = take_turn(turns, pools[which], &rates[which][pair]);
            if (rc)
                return rc;
        }
        ratios[pair] = rates[1][pair] / rates[0][pair];
    }
    return 0;
}

/* --- latencies ---------------------------------------------------------------------------------------------------- */

struct sample {
    int64_t begun, took; /* ticks */
};

static void task_sample(void *arg)
{
    struct sample *sample = arg;

    sample->took = meter_ticks() - sample->begun;
    task_count(NULL);
}

struct waker {
    int64_t gap_ns;
    bool sleep, round_trips;
    uint64_t samples; /* in a turn */
    struct sample *sample;
    struct rp_histogram latency[2];
};

static int wake_turn(struct waker *waker, const struct executor *executor, void *pool, struct rp_histogram *latency)
{
    uint64_t all = cells_tasks() + waker->samples;
    int rc = 0;

    for (uint64_t i = 0; i < waker->samples && rc == 0; i++) {
        struct sample *sample = &waker->sample[i];
        int64_t next = meter_now() + waker->gap_ns;

        sample->begun = meter_ticks();
        if (waker->round_trips) {
            rc = executor->join(pool, task_count, NULL);
            sample->took = meter_ticks() - sample->begun;
            next = meter_now() + waker->gap_ns;
        } else {
            rc = executor->submit(pool, task_sample, sample);
        }
        if (waker->gap_ns)
            meter_pass_until(next, waker->sleep);
    }
    if (rc)
        return rc;
    cells_wait(all, WATCH_NS);
    for (uint64_t i = 0; i < waker->samples; i++)
        rp_histogram_add(latency, meter_ns(waker->sample[i].took));
    return 0;
}

static int wake_turns(struct waker *waker, const struct executor *executor, void *const pools[2], unsigned pairs)
{
    int rc = 0;

    waker->sample = calloc(waker->samples, sizeof(*waker->sample));
    if (!waker->sample)
        return -ENOMEM;
    for (unsigned turn = 0; turn < 2 * pairs && rc == 0; turn++) {
        unsigned which = (turn / 2 + turn) % 2;
        rc = wake_turn(waker, executor, pools[which], &waker->latency[which]);
    }
    free(waker->sample);
    return rc;
}

/* --- the run ------------------------------------------------------------------------------------------------------ */

/* The second pool is what the workload's `other` says. */
static int create_both(const struct executor *executor, void *pools[2], struct executor_config config, uint64_t other)
{
    config.backend = BACKEND_AUTO;
    int rc = executor->create(&pools[0], &config);

    if (rc)
        return rc;
    config.backend = other == OTHER_EPOLL ? BACKEND_EPOLL : BACKEND_AUTO;
    config.metrics = other == OTHER_METRICS;
    rc = executor->create(&pools[1], &config);
    if (rc)
        executor->destroy(pools[0]);
    return rc;
}

int bench_versus(int argc, char **argv)
{
    const struct executor *executor = &ringpool_executor;
    static double rates_of[2][PAIRS_MOST], ratios[PAIRS_MOST];
    static struct waker waker;
    double *rates[2] = {rates_of[0], rates_of[1]};
    uint64_t producers = 1, workers = 1, tasks = 40000000, queue = 1024, other = OTHER_EPOLL, pairs = 20;
    uint64_t what = THROUGHPUT, gap_us = 0, gap = GAP_SPIN, samples = 20000;
    struct record record;
    bool json = false;
    void *pools[2];
    const struct arg_key keys[] = {
        {"other", 0, 0, &other, "what the second pool has that the first one has not", other_words},
        {"what", 0, 0, &what, "throughput; wake: to the first instruction; roundtrip: until it is done", what_words},
        {"producers", 1, PRODUCERS_MOST, &producers, "throughput: threads that submit", NULL},
        {"workers", 1, WORKERS_MOST, &workers, "threads of each pool", NULL},
        {"tasks", 1, TASKS_MOST, &tasks, "throughput: all turns together", NULL},
        {"queue", 0, QUEUE_MOST, &queue, "tasks that wait", NULL},
        {"pairs", 1, PAIRS_MOST, &pairs, "turns of each pool", NULL},
        {"gap_us", 0, 1000000, &gap_us, "wake: one task each gap; roundtrip: between one and the next", NULL},
        {"gap", 0, 0, &gap, "how the gap is spent", gap_words},
        {"samples", 1, 100000000, &samples, "wake, roundtrip: all turns together", NULL},
    };

    switch (workload_args(executor, &record, keys, NKEYS(keys), 0, argc, argv, &json)) {
    case ARGS_HELP:
        return STATUS_OK;
    case ARGS_USAGE:
        return STATUS_USAGE;
    default:
        break;
    }
    meter_begin();
    struct turns turns = {.executor = executor, .producers = producers, .tasks = (tasks + 2 * pairs - 1) / (2 * pairs)};
    struct executor_config config = {
        .workers = (unsigned)workers,
        .producers = (unsigned)producers,
        .queue = (unsigned)queue,
    };
    waker.gap_ns = (int64_t)gap_us * 1000;
    waker.sleep = gap == GAP_SLEEP;
    waker.round_trips = what == ROUNDTRIP;
    waker.samples = (samples + 2 * pairs - 1) / (2 * pairs);
    int rc = cells_prepare(2 * config.workers, false) ? create_both(executor, pools, config, other) : -ENOMEM;
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    rc = what != THROUGHPUT ? wake_turns(&waker, executor, pools, (unsigned)pairs)
                            : take_turns(&turns, pools, (unsigned)pairs, rates, ratios);
    executor->destroy(pools[0]);
    executor->destroy(pools[1]);
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    if (cells_tasks() != (what != THROUGHPUT ? waker.samples : turns.tasks) * 2 * pairs)
        record.wrong = "not exactly the tasks ran that were submitted";
    if (what != THROUGHPUT) {
        double first = rp_histogram_at(&waker.latency[0], 0.50), second = rp_histogram_at(&waker.latency[1], 0.50);
        record_add(&record, "p50_us", first / 1e3);
        record_add(&record, "other_p50_us", second / 1e3);
        record_add(&record, "ratio", second / first);
    } else {
        record_add(&record, "tasks_per_s", bench_summarise(rates[0], pairs).median);
        record_add(&record, "other_tasks_per_s", bench_summarise(rates[1], pairs).median);
        record_add(&record, "ratio", bench_summarise(ratios, pairs).median);
    }
    return record_print(&record, json);
}
