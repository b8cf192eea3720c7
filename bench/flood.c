/*
 * Throughput, work and sleepers: P threads submit N tasks among them, as fast as they are let.
 *
 * The clock runs from the moment the producers are let go until the last task has counted itself; threads on both sides
 * were made before (lazy=yes: ours as they are needed). The end is seen by looking at the workers' counters every
 * 50 us once the producers are through, so a run should last some tens of milliseconds at least.
 *
 * What it leaves out: the time to make and end workers; tasks that allocate or return something; submitters that do
 * something else between two tasks. mode=queue bounds the queue where the library can; where it cannot, the queue grows
 * (see maxrss_kb). submit_ns is wall time in submit over tasks, waiting for room included.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "command.h"
#include "meter.h"
#include "workload.h"

#define WATCH_NS 50000
#define BATCH_MOST 1024

enum { MODE_QUEUE, MODE_STRICT, MODE_BATCH };
static const char *const mode_words[] = {"queue", "strict", "batch", NULL};

struct flood {
    const struct executor *executor;
    void *pool;
    executor_fn *fn;
    void *arg;
    uint64_t tasks, producers, batch;
    bool sample;                  /* time single calls */
    int64_t *took;                /* ns in submit, by producer */
    struct rp_histogram *samples; /* of single calls, by producer */
    _Atomic int error;            /* of a submit; the run is void */
};

struct produce {
    struct flood *flood;
    unsigned i;
};

static int submit_sampled(struct flood *flood, struct rp_histogram *histogram, uint64_t n)
{
    int rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i++) {
        int64_t begun = meter_ticks();

        rc = flood->executor->submit(flood->pool, flood->fn, flood->arg);
        rp_histogram_add(histogram, meter_ns(meter_ticks() - begun));
    }
    return rc;
}

static int submit_batches(struct flood *flood, uint64_t n)
{
    int rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i += flood->batch) {
        uint64_t size = n - i < flood->batch ? n - i : flood->batch;

        rc = flood->executor->batch(flood->pool, flood->fn, flood->arg, (unsigned)size);
    }
    return rc;
}

static void produce_share(void *arg)
{
    struct produce *produce = arg;
    struct flood *flood = produce->flood;
    uint64_t n = flood->tasks / flood->producers + (produce->i < flood->tasks % flood->producers);
    int64_t begun = meter_now();
    int rc;

    if (flood->sample)
        rc = submit_sampled(flood, &flood->samples[produce->i], n);
    else if (flood->batch)
        rc = submit_batches(flood, n);
    else
        rc = flood->executor->burst(flood->pool, flood->fn, flood->arg, n);
    flood->took[produce->i] = meter_now() - begun;
    if (rc)
        flood->error = rc;
}

static void produce(void *arg, unsigned i)
{
    struct produce share = {.flood = arg, .i = i};

    if (share.flood->executor->inside)
        share.flood->executor->inside(share.flood->pool, produce_share, &share);
    else
        produce_share(&share);
}

/* Runs all of it. The pool is destroyed before the tasks are counted: one that ran twice would show. */
static int flood_go(struct flood *flood, const struct executor_config *config, struct usage *used)
{
    struct usage begun;
    int rc = cells_prepare(config->workers, false) ? flood->executor->create(&flood->pool, config) : -ENOMEM;

    if (rc)
        return rc;
    flood->took = calloc(flood->producers, sizeof(*flood->took));
    flood->samples = flood->sample ? calloc(flood->producers, sizeof(*flood->samples)) : NULL;
    rc = !flood->took || (flood->sample && !flood->samples)
             ? -ENOMEM
             : threads_run((unsigned)flood->producers, produce, flood, &begun);
    if (rc == 0 && flood->error == 0)
        cells_wait(flood->tasks, WATCH_NS);
    if (rc == 0)
        *used = usage_since(&begun);
    flood->executor->destroy(flood->pool);
    return rc ? rc : flood->error;
}

static void flood_free(struct flood *flood)
{
    free(flood->took);
    free(flood->samples);
}

static void add_common(struct record *record, struct flood *flood, const struct usage *used)
{
    int64_t took = 0;
    double n = (double)flood->tasks;

    for (uint64_t i = 0; i < flood->producers && flood->took; i++)
        took += flood->took[i];
    record_add(record, "elapsed_s", (double)used->wall / 1e9);
    record_add(record, "tasks_per_s", n * 1e9 / (double)used->wall);
    if (flood->took)
        record_add(record, "submit_ns", (double)took / n);
    record_add(record, "cpu_s", (double)used->cpu / 1e9);
    record_add(record, "cpu_ns_per_task", (double)used->cpu / n);
    record_add(record, "csw", (double)used->switches);
    record_add(record, "maxrss_kb", (double)usage_max_rss_kb());
    if (flood->sample) {
        struct rp_histogram *all = &flood->samples[0];

        for (uint64_t i = 1; i < flood->producers; i++)
            rp_histogram_merge(all, &flood->samples[i]);
        record_add(record, "submit_p50_ns", rp_histogram_at(all, 0.50));
        record_add(record, "submit_p99_ns", rp_histogram_at(all, 0.99));
        record_add(record, "submit_p999_ns", rp_histogram_at(all, 0.999));
    }
    if (cells_tasks() != flood->tasks)
        record->wrong = "not exactly the tasks ran that were submitted";
}

static double clamp_cpus(uint64_t workers)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    return workers < (uint64_t)cpus ? (double)workers : (double)cpus;
}

static int flood_main(const struct executor *executor, int argc, char **argv, bool works)
{
    uint64_t producers = 1, workers = 1, tasks = works ? 100000 : 2000000, mode = MODE_QUEUE, queue = 1024, batch = 64;
    uint64_t sample = 0, spin = 5000, metrics = 0, unordered = 0, backend = 0, lazy = 0;
    struct record record;
    struct usage used = {0};
    bool json = false;
    int rc;
    const struct arg_key keys[] = {
        {works ? "spin" : "batch", 1, works ? 1000000000 : BATCH_MOST, works ? &spin : &batch,
         works ? "ns of arithmetic in each task" : "tasks in one call, for mode=batch", NULL},
        {"producers", 1, PRODUCERS_MOST, &producers, "threads that submit", NULL},
        {"workers", 1, WORKERS_MOST, &workers, "threads that run", NULL},
        {"tasks", 1, TASKS_MOST, &tasks, "all producers together", NULL},
        {"mode", 0, 0, &mode, "strict: never more in flight than workers", mode_words},
        {"queue", 0, QUEUE_MOST, &queue, "tasks that wait, unless strict", NULL},
        {"sample", 0, 1, &sample, "1: time each submit, which costs some 20 ns each", NULL},
        {"metrics", 0, 0, &metrics, "the pool's own, while it runs", yes_words},
        {"unordered", 0, 0, &unordered, "tasks may start in any order: the pool's option of that name", yes_words},
        KEYS_OF_RINGPOOL(backend, lazy),
    };

    switch (workload_args(executor, &record, keys, NKEYS(keys), NKEYS_OF_RINGPOOL + 2, argc, argv, &json)) {
    case ARGS_HELP:
        return STATUS_OK;
    case ARGS_USAGE:
        return STATUS_USAGE;
    default:
        break;
    }
    if (mode == MODE_BATCH && (!executor->batch || works || sample)) {
        fprintf(stderr, "%s %s: mode=batch: %s\n", executor->name, argv[0],
                executor->batch ? "goes with throughput and sample=0 alone" : "there is no call for that here");
        return STATUS_USAGE;
    }
    meter_begin();
    struct flood flood = {
        .executor = executor,
        .fn = works ? task_spin : task_count,
        .arg = works ? (void *)(uintptr_t)meter_steps(spin) : NULL, /* NOLINT(performance-no-int-to-ptr) */
        .tasks = tasks,
        .producers = producers,
        .batch = mode == MODE_BATCH ? batch : 0,
        .sample = sample,
    };
    struct executor_config config = {
        .workers = (unsigned)workers,
        .producers = (unsigned)producers,
        .queue = mode == MODE_STRICT ? 0 : (unsigned)queue,
        .strict = mode == MODE_STRICT,
        .metrics = metrics,
        .unordered = unordered,
        .lazy = lazy,
        .backend = (int)backend,
    };
    rc = flood_go(&flood, &config, &used);
    if (rc == 0)
        add_common(&record, &flood, &used);
    flood_free(&flood);
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    if (works)
        record_add(&record, "efficiency", (double)tasks * (double)spin / (clamp_cpus(workers) * (double)used.wall));
    return record_print(&record, json);
}

int flood_throughput(const struct executor *executor, int argc, char **argv)
{
    return flood_main(executor, argc, argv, false);
}

int flood_work(const struct executor *executor, int argc, char **argv)
{
    return flood_main(executor, argc, argv, true);
}

enum { SLEEP_THREAD, SLEEP_TIMER };
static const char *const sleep_words[] = {"thread", "timer", NULL};

/* The waits are on the library's timers; nothing is submitted. */
static int wait_go(struct flood *flood, const struct executor_config *config, uint64_t outstanding, int64_t ns,
                   struct usage *used)
{
    struct usage begun;
    int rc = flood->executor->create(&flood->pool, config);

    if (rc)
        return rc;
    begun = usage_now();
    rc = flood->executor->timers(flood->pool, flood->tasks, outstanding, ns);
    *used = usage_since(&begun);
    flood->executor->destroy(flood->pool);
    return rc;
}

int flood_sleepers(const struct executor *executor, int argc, char **argv)
{
    uint64_t tasks = 100000, workers = 1000, ms = 10, mode = SLEEP_THREAD, queue = 1024, outstanding = 50000;
    uint64_t backend = 0, lazy = 0, at_once;
    struct record record;
    struct usage used = {0};
    bool json = false;
    int rc;
    const struct arg_key keys[] = {
        {"tasks", 1, TASKS_MOST, &tasks, "all together", NULL},
        {"workers", 1, WORKERS_MOST, &workers, "mode=thread: threads that run", NULL},
        {"ms", 1, 60000, &ms, "how long each sleeps", NULL},
        {"mode", 0, 0, &mode, "who sleeps: the task's thread, or a timer", sleep_words},
        {"queue", 0, QUEUE_MOST, &queue, "tasks that wait", NULL},
        {"outstanding", 1, 100000000, &outstanding, "mode=timer: waits at once", NULL},
        KEYS_OF_RINGPOOL(backend, lazy),
    };

    switch (workload_args(executor, &record, keys, NKEYS(keys), NKEYS_OF_RINGPOOL, argc, argv, &json)) {
    case ARGS_HELP:
        return STATUS_OK;
    case ARGS_USAGE:
        return STATUS_USAGE;
    default:
        break;
    }
    if (mode == SLEEP_TIMER && !executor->timers) {
        fprintf(stderr, "%s %s: mode=timer: there are no timers here\n", executor->name, argv[0]);
        return STATUS_USAGE;
    }
    meter_begin();
    struct flood flood = {
        .executor = executor,
        .fn = task_sleep,
        .arg = (void *)(uintptr_t)(ms * 1000000), /* NOLINT(performance-no-int-to-ptr) */
        .tasks = tasks,
        .producers = 1,
    };
    struct executor_config config = {
        .workers = mode == SLEEP_TIMER ? 1 : (unsigned)workers,
        .producers = 1,
        .queue = (unsigned)queue,
        .lazy = lazy,
        .backend = (int)backend,
    };
    rc = mode == SLEEP_TIMER ? wait_go(&flood, &config, outstanding, (int64_t)ms * 1000000, &used)
                             : flood_go(&flood, &config, &used);
    if (rc == 0)
        add_common(&record, &flood, &used);
    flood_free(&flood);
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    at_once = mode == SLEEP_TIMER ? outstanding : workers;
    const uint64_t waves = (tasks + at_once - 1) / at_once;
    record_add(&record, "ideal_s", (double)(waves * ms) / 1e3);
    return record_print(&record, json);
}
