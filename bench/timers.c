/*
 * `ringpool bench timers`: what a timer costs, and how late it is.
 *
 * n timers are armed for times of the next hours, in any order, and stay outstanding. Then `pairs` times one of them is
 * armed for another time and cancelled, and armed as it was: the figures are medians of runs of 1000 calls, so that a
 * preemption spoils one run. Then `samples` timers of the reactor fire one after the other, each in turn with an
 * absolute timerfd that a thread waits for, which is the kernel's own: from the time asked for to the first
 * instruction.
 *
 * What it leaves out: many that fire at once (`sleepers` of timers), functions that run in a pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <ringpool.h>

#include "args.h"
#include "bench.h"
#include "command.h"
#include "histogram.h"
#include "meter.h"
#include "record.h"
#include "workload.h"

#define RUN 1000
#define HOUR INT64_C(3600000000000)

struct run {
    struct rp_timer **timer;
    uint64_t n, pairs, samples, gap_us;
    double *arm, *cancel, *both; /* ns of each run */
    double create_ns;            /* and the first arming */
    struct rp_histogram ours, kernel;
    int64_t asked;
    uint32_t fired;
    uint64_t random;
};

/* Marsaglia's xorshift64. */
static uint64_t random_next(struct run *run)
{
    uint64_t x = run->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return run->random = x;
}

static void fired(struct rp_timer *timer, void *arg)
{
    struct run *run = arg;

    (void)timer;
    rp_histogram_add(&run->ours, rp_now() - run->asked);
    __atomic_store_n(&run->fired, 1, __ATOMIC_RELEASE);
}

static int64_t some_time(struct run *run)
{
    return rp_now() + HOUR + (int64_t)(random_next(run) % (uint64_t)HOUR);
}

static int fill(struct run *run, const struct rp_timer_options *options)
{
    int64_t begun = meter_ticks();
    int rc = 0;

    for (uint64_t i = 0; i < run->n && !rc; i++) {
        rc = rp_timer_create(&run->timer[i], fired, run, options);
        if (!rc)
            rc = rp_timer_arm(run->timer[i], some_time(run));
    }
    run->create_ns = (double)meter_ns(meter_ticks() - begun) / (double)run->n;
    return rc;
}

/* RUN times each: arm anew, then cancel, over different timers and times that were drawn before. */
static int churn_once(struct run *run, uint64_t at)
{
    static struct rp_timer *chosen[RUN];
    static int64_t due[RUN];
    int rc = 0;

    for (int i = 0; i < RUN; i++) {
        chosen[i] = run->timer[(random_next(run) >> 16) % run->n];
        due[i] = some_time(run);
    }
    int64_t t0 = meter_ticks();
    for (int i = 0; i < RUN; i++)
        rc |= rp_timer_arm(chosen[i], due[i]);
    int64_t t1 = meter_ticks();
    for (int i = 0; i < RUN; i++)
        rp_timer_cancel(chosen[i]);
    int64_t t2 = meter_ticks();
    for (int i = 0; i < RUN; i++) {
        rc |= rp_timer_arm(chosen[i], due[i]);
        rp_timer_cancel(chosen[i]);
    }
    int64_t t3 = meter_ticks();
    for (int i = 0; i < RUN; i++)
        rc |= rp_timer_arm(chosen[i], due[i]); /* they are outstanding again */
    run->arm[at] = (double)meter_ns(t1 - t0) / RUN;
    run->cancel[at] = (double)meter_ns(t2 - t1) / RUN;
    run->both[at] = (double)meter_ns(t3 - t2) / RUN;
    return rc;
}

static int fire_ours(struct run *run, struct rp_timer *timer, int64_t due)
{
    __atomic_store_n(&run->fired, 0, __ATOMIC_RELAXED);
    run->asked = due;
    int rc = rp_timer_arm(timer, due);
    while (!rc && !__atomic_load_n(&run->fired, __ATOMIC_ACQUIRE))
        meter_sleep_until(due + 200000); /* asleep, as a program that waits for a timer is */
    return rc;
}

static int fire_kernel(struct run *run, int fd, int64_t due)
{
    struct itimerspec at = {.it_value = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000}};
    uint64_t ticks;

    if (timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL))
        return -errno;
    if (read(fd, &ticks, sizeof(ticks)) != sizeof(ticks))
        return -EIO;
    rp_histogram_add(&run->kernel, rp_now() - due);
    return 0;
}

static int lateness(struct run *run, const struct rp_timer_options *options)
{
    struct rp_timer *timer = NULL;
    int64_t gap = (int64_t)run->gap_us * 1000;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    int rc = fd < 0 ? -errno : rp_timer_create(&timer, fired, run, options);

    if (fd >= 0 && rc)
        close(fd);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < run->samples && !rc; i++) {
        rc = fire_ours(run, timer, rp_now() + gap);
        if (!rc)
            rc = fire_kernel(run, fd, rp_now() + gap);
    }
    rp_timer_destroy(timer);
    close(fd);
    return rc;
}

static int measure(struct run *run, int backend, struct record *record)
{
    const struct rp_timer_options options = {.backend = backend};
    uint64_t runs = run->pairs / RUN ? run->pairs / RUN : 1, kb = usage_rss_kb();
    int rc;

    run->timer = calloc(run->n, sizeof(struct rp_timer *));
    run->arm = calloc(runs, sizeof(double));
    run->cancel = calloc(runs, sizeof(double));
    run->both = calloc(runs, sizeof(double));
    if (!run->timer || !run->arm || !run->cancel || !run->both)
        return -ENOMEM;
    rc = fill(run, &options);
    record_add(record, "create_and_arm_ns", run->create_ns);
    record_add(record, "bytes_per_timer", (double)(usage_rss_kb() - kb) * 1024 / (double)run->n);
    for (uint64_t i = 0; i < runs && !rc; i++)
        rc = churn_once(run, i);
    if (!rc) {
        record_add(record, "arm_ns", bench_summarise(run->arm, runs).median);
        record_add(record, "cancel_ns", bench_summarise(run->cancel, runs).median);
        record_add(record, "arm_cancel_ns", bench_summarise(run->both, runs).median);
        rc = lateness(run, &options);
    }
    for (uint64_t i = 0; i < run->n; i++)
        if (run->timer[i])
            rp_timer_destroy(run->timer[i]);
    return rc;
}

static void report(struct record *record, const struct run *run)
{
    record_add(record, "late_p50_us", rp_histogram_at(&run->ours, 0.50) / 1e3);
    record_add(record, "late_p99_us", rp_histogram_at(&run->ours, 0.99) / 1e3);
    record_add(record, "kernel_p50_us", rp_histogram_at(&run->kernel, 0.50) / 1e3);
    record_add(record, "kernel_p99_us", rp_histogram_at(&run->kernel, 0.99) / 1e3);
}

int bench_timers(int argc, char **argv)
{
    static const int backends[] = {RP_BACKEND_AUTO, RP_BACKEND_IO_URING, RP_BACKEND_EPOLL};
    static struct run run = {
        .n = 1000000, .pairs = 1000000, .samples = 500, .gap_us = 1000, .random = 88172645463325252};
    struct record record = {.program = "ringpool", .about = rp_backend(), .workload = "timers"};
    uint64_t backend = 0;
    bool json = false;
    const struct arg_key keys[] = {
        {"n", 1, 100000000, &run.n, "timers that stay outstanding", NULL},
        {"pairs", RUN, TASKS_MOST, &run.pairs, "of arm and cancel, in runs of 1000", NULL},
        {"samples", 1, 1000000, &run.samples, "timers that fire", NULL},
        {"gap_us", 1, 10000000, &run.gap_us, "how long ahead these are armed", NULL},
        {"backend", 0, 0, &backend, "what sleeps for timers", backend_words},
    };

    record.keys = keys;
    record.nkeys = NKEYS(keys);
    switch (args_parse("ringpool bench", "timers", keys, NKEYS(keys), argc, argv, &json)) {
    case ARGS_HELP:
        return STATUS_OK;
    case ARGS_USAGE:
        return STATUS_USAGE;
    default:
        break;
    }
    meter_begin();
    prctl(PR_SET_TIMERSLACK, 1); /* for the kernel's side of the comparison: no slack there either */
    int rc = measure(&run, backends[backend], &record);
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    report(&record, &run);
    if (run.ours.total != run.samples)
        record.wrong = "not every timer fired once";
    return record_print(&record, json);
}
