/*
 * Wake, roundtrip and load: how long one task takes on its way.
 *
 * The time stamp travels as the task's argument, and each worker keeps a histogram of its own: nothing is shared that
 * the task would not share anyway. wake and roundtrip take one sample after the other, so they say nothing about
 * load. load does: it submits by a time-table that does not wait for anybody, and counts from the time
 * that the table says, so that a stall of 10 ms is seen by every task that should have started in it (G. Tene's
 * "coordinated omission" is what leaving this out is called).
 *
 * A gap is slept where it says so (the submitter's CPU is free meanwhile) and else spun on the clock.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "command.h"
#include "meter.h"
#include "workload.h"

/* Gaps from here on are slept if not said otherwise. */
#define SLEEP_FROM_US 1000
/* load sleeps until so long before the time-table's next entry, and spins the rest. */
#define SPIN_REST_NS 100000
#define PREPARED_CELLS_MOST 64

enum { GAP_AUTO, GAP_SLEEP, GAP_SPIN };
enum { BY_EVENT, BY_FUTURE, BY_RUN };
static const char *const by_words[] = {"event", "future", "run", NULL};
static const char *const gap_words[] = {"auto", "sleep", "spin", NULL};

static void add_percentiles(struct record *record, const struct rp_histogram *h)
{
    record_add(record, "p50_us", rp_histogram_at(h, 0.50) / 1e3);
    record_add(record, "p90_us", rp_histogram_at(h, 0.90) / 1e3);
    record_add(record, "p99_us", rp_histogram_at(h, 0.99) / 1e3);
    record_add(record, "p999_us", rp_histogram_at(h, 0.999) / 1e3);
    record_add(record, "max_us", (double)h->most / 1e3);
    record_add(record, "mean_us", rp_histogram_mean(h) / 1e3);
}

static unsigned cells_for(uint64_t workers)
{
    return workers < PREPARED_CELLS_MOST ? (unsigned)workers : PREPARED_CELLS_MOST;
}

/* --- wake and roundtrip ------------------------------------------------------------------------------------------- */

struct latency {
    const struct executor *executor;
    void *pool;
    uint64_t samples;
    int64_t gap_ns;
    bool sleep;
    uint64_t by;
    struct rp_histogram submit, whole; /* the call; roundtrip: until it was done */
    int error;
    struct usage begun;
};

/* The argument is a time, not an address. */
static void *stamp(void)
{
    return (void *)(uintptr_t)meter_ticks(); /* NOLINT(performance-no-int-to-ptr) */
}

static void wake_samples(void *arg)
{
    struct latency *run = arg;

    for (uint64_t i = 0; i < run->samples && run->error == 0; i++) {
        int64_t next = meter_now() + run->gap_ns;
        int64_t begun = meter_ticks();

        run->error = run->executor->submit(run->pool, task_latency, stamp());
        rp_histogram_add(&run->submit, meter_ns(meter_ticks() - begun));
        meter_pass_until(next, run->sleep);
    }
}

/* For libraries whose users wait on a mutex and a condition variable. */
struct event {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done;
};

static void event_task(void *arg)
{
    struct event *event = arg;

    task_count(NULL);
    pthread_mutex_lock(&event->mutex);
    event->done = true;
    pthread_cond_signal(&event->changed);
    pthread_mutex_unlock(&event->mutex);
}

static int event_join(const struct latency *run, struct event *event)
{
    int rc;

    event->done = false;
    rc = run->executor->submit(run->pool, event_task, event);
    if (rc)
        return rc;
    pthread_mutex_lock(&event->mutex);
    while (!event->done)
        pthread_cond_wait(&event->changed, &event->mutex);
    pthread_mutex_unlock(&event->mutex);
    return 0;
}

static void roundtrip_samples(void *arg)
{
    struct latency *run = arg;
    struct event event = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    int (*const joins[])(void *self, executor_fn *fn, void *arg) = {
        [BY_EVENT] = run->executor->join,
        [BY_FUTURE] = run->executor->join_future,
        [BY_RUN] = run->executor->join_run,
    };

    for (uint64_t i = 0; i < run->samples && run->error == 0; i++) {
        int64_t begun = meter_ticks();

        run->error = joins[run->by] ? joins[run->by](run->pool, task_count, NULL) : event_join(run, &event);
        rp_histogram_add(&run->whole, meter_ns(meter_ticks() - begun));
        if (run->gap_ns)
            meter_pass_until(meter_now() + run->gap_ns, run->sleep);
    }
}

static void in_one_thread(void (*samples)(void *arg), struct latency *run)
{
    run->begun = usage_now();
    if (run->executor->inside)
        run->executor->inside(run->pool, samples, run);
    else
        samples(run);
}

static int latency_main(const struct executor *executor, int argc, char **argv, bool wake)
{
    uint64_t gap_us = wake ? 50 : 0, gap = GAP_AUTO, workers = 1, samples = 20000, backend = 0, lazy = 0, by = 0;
    struct record record;
    struct usage used;
    bool json = false;
    int rc;
    const struct arg_key keys[] = {
        {"gap_us", 0, 10000000, &gap_us, "from one sample to the next", NULL},
        {"gap", 0, 0, &gap, "how it passes; auto: asleep from 1000 us on", gap_words},
        {"workers", 1, WORKERS_MOST, &workers, "threads that run", NULL},
        {"samples", 1, 100000000, &samples, "tasks", NULL},
        {"by", 0, 0, &by, "roundtrip: what it waits for: an event, a future, or a future that it may run itself",
         by_words},
        KEYS_OF_RINGPOOL(backend, lazy),
    };

    switch (workload_args(executor, &record, keys, NKEYS(keys), NKEYS_OF_RINGPOOL + 1, argc, argv, &json)) {
    case ARGS_HELP:
        return STATUS_OK;
    case ARGS_USAGE:
        return STATUS_USAGE;
    default:
        break;
    }
    meter_begin();
    struct latency *run = calloc(1, sizeof(*run));
    struct rp_histogram *latency = calloc(1, sizeof(*latency));
    struct executor_config config = {
        .workers = (unsigned)workers,
        .producers = 1,
        .queue = 1024,
        .lazy = lazy,
        .backend = (int)backend,
    };
    rc = run && latency && cells_prepare(cells_for(workers), true) ? 0 : -ENOMEM;
    if (rc == 0) {
        run->executor = executor;
        run->samples = samples;
        run->gap_ns = (int64_t)gap_us * 1000;
        run->by = by;
        run->sleep = gap == GAP_SLEEP || (gap == GAP_AUTO && gap_us >= SLEEP_FROM_US);
        rc = executor->create(&run->pool, &config);
    }
    if (rc == 0) {
        in_one_thread(wake ? wake_samples : roundtrip_samples, run);
        rc = run->error;
        if (rc == 0)
            cells_wait(samples, 100000);
        used = usage_since(&run->begun);
        executor->destroy(run->pool);
    }
    if (rc) {
        free(latency);
        free(run);
        return workload_failed(&record, "cannot run", rc);
    }
    cells_latency(latency);
    add_percentiles(&record, wake ? latency : &run->whole);
    if (wake) {
        record_add(&record, "submit_p50_us", rp_histogram_at(&run->submit, 0.50) / 1e3);
        record_add(&record, "submit_p99_us", rp_histogram_at(&run->submit, 0.99) / 1e3);
    }
    record_add(&record, "elapsed_s", (double)used.wall / 1e9);
    record_add(&record, "cpu_s", (double)used.cpu / 1e9);
    record_add(&record, "csw", (double)used.switches);
    if (cells_tasks() != samples)
        record.wrong = "not exactly the tasks ran that were submitted";
    free(latency);
    free(run);
    return record_print(&record, json);
}

int latency_wake(const struct executor *executor, int argc, char **argv)
{
    return latency_main(executor, argc, argv, true);
}

int latency_roundtrip(const struct executor *executor, int argc, char **argv)
{
    return latency_main(executor, argc, argv, false);
}

/* --- load --------------------------------------------------------------------------------------------------------- */

enum { ARRIVALS_CONSTANT, ARRIVALS_POISSON };
static const char *const arrivals_words[] = {"constant", "poisson", NULL};

struct load {
    const struct executor *executor;
    void *pool;
    double gap_ns; /* the mean */
    int64_t span_ns;
    bool poisson;
    uint64_t random, submitted;
    uint64_t stall_ns, workers; /* half way each of the workers gets a task that sleeps, if not 0 */
    int64_t late_ns;            /* the most that a submit began after its time */
    int error;
};

/* xorshift64* of S. Vigna; in (0, 1]. */
static double uniform(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)((*state * UINT64_C(2685821657736338717) >> 11) + 1) * 0x1p-53;
}

static void stall(struct load *load)
{
    for (uint64_t i = 0; i < load->workers && load->error == 0; i++)
        load->error = load->executor->submit(load->pool, task_sleep,
                                             (void *)(uintptr_t)load->stall_ns); /* NOLINT(performance-no-int-to-ptr) */
    load->stall_ns = 0;
}

static void load_submit(void *arg)
{
    struct load *load = arg;
    int64_t begun = meter_now(), begun_ticks = meter_ticks();
    double due = 0; /* ns after the beginning */

    while (due < (double)load->span_ns && load->error == 0) {
        int64_t late = meter_now() - begun - (int64_t)due;

        if (late < -SPIN_REST_NS)
            meter_sleep_until(begun + (int64_t)due - SPIN_REST_NS);
        while ((late = meter_now() - begun - (int64_t)due) < 0)
            ;
        load->late_ns = late > load->late_ns ? late : load->late_ns;
        if (load->stall_ns && due >= (double)load->span_ns / 2)
            stall(load);
        int64_t intended = begun_ticks + (int64_t)(due / meter_ns_per_tick);
        load->error = load->executor->submit(load->pool, task_latency,
                                             (void *)(uintptr_t)intended); /* NOLINT(performance-no-int-to-ptr) */
        load->submitted++;
        due += load->poisson ? -log(uniform(&load->random)) * load->gap_ns : load->gap_ns;
    }
}

int latency_load(const struct executor *executor, int argc, char **argv)
{
    uint64_t rate = 100000, arrivals = ARRIVALS_CONSTANT, seconds = 5, workers = 2, queue = 1024, seed = 1, backend = 0;
    uint64_t lazy = 0, stall_ms = 0, ran = 0;
    struct record record;
    bool json = false;
    int rc;
    const struct arg_key keys[] = {
        {"rate", 1, 100000000, &rate, "tasks per second", NULL},
        {"arrivals", 0, 0, &arrivals, "how the gaps are distributed", arrivals_words},
        {"seconds", 1, 3600, &seconds, "how long", NULL},
        {"workers", 1, WORKERS_MOST, &workers, "threads that run", NULL},
        {"queue", 0, QUEUE_MOST, &queue, "tasks that wait", NULL},
        {"seed", 1, UINT64_MAX, &seed, "of the gaps", NULL},
        {"stall_ms", 0, 60000, &stall_ms, "half way all workers stand still for so long: what was due then shows it",
         NULL},
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
    meter_begin();
    struct rp_histogram *latency = calloc(1, sizeof(*latency));
    struct load load = {
        .executor = executor,
        .gap_ns = 1e9 / (double)rate,
        .span_ns = (int64_t)seconds * 1000000000,
        .poisson = arrivals == ARRIVALS_POISSON,
        .random = seed,
        .stall_ns = stall_ms * 1000000,
        .workers = workers,
    };
    struct executor_config config = {
        .workers = (unsigned)workers,
        .producers = 1,
        .queue = (unsigned)queue,
        .lazy = lazy,
        .backend = (int)backend,
    };
    struct usage begun, used = {0};
    rc = latency && cells_prepare(cells_for(workers), true) ? executor->create(&load.pool, &config) : -ENOMEM;
    if (rc == 0) {
        begun = usage_now();
        if (executor->inside)
            executor->inside(load.pool, load_submit, &load);
        else
            load_submit(&load);
        rc = load.error;
        ran = load.submitted + (stall_ms ? workers : 0);
        if (rc == 0)
            cells_wait(ran, 100000);
        used = usage_since(&begun);
        executor->destroy(load.pool);
    }
    if (rc) {
        free(latency);
        return workload_failed(&record, "cannot run", rc);
    }
    cells_latency(latency);
    if (!json)
        histogram_print(latency, stdout);
    add_percentiles(&record, latency);
    record_add(&record, "p9999_us", rp_histogram_at(latency, 0.9999) / 1e3);
    record_add(&record, "tasks", (double)load.submitted);
    record_add(&record, "rate_reached", (double)load.submitted * 1e9 / (double)used.wall);
    record_add(&record, "latest_submit_us", (double)load.late_ns / 1e3);
    record_add(&record, "cpu_s", (double)used.cpu / 1e9);
    if (cells_tasks() != ran)
        record.wrong = "not exactly the tasks ran that were submitted";
    free(latency);
    return record_print(&record, json);
}
