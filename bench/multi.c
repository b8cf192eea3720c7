/*
 * Multi: what choosing among pools costs and what it is good for. Ours alone, by the public headers.
 *
 *   test=equal       an open loop of tasks that sleep 1 ms at 70 % of the workers' time: how evenly the pools share,
 *   test=mixed       and how long tasks wait. mixed makes `skew` of 1000 tasks sleep `long_ms`. The pools have queues,
 *                    as without them no task could wait behind a long one. Beside each other: every strategy, or the
 *                    one asked for, and a single pool of all workers. The wait counts from the time-table, not from
 *                    submit
 *   test=choose      ns for submitting to pools whose workers are held, so that nothing but the submit runs, less the
 *                    same to the pools directly in turn: entering, choosing, and touching what it takes
 *   test=throughput  tasks that compute for work_ns from 4 threads, through the multi pool, to a single pool, and to as
 *                    many bare rings as there are pools, each with a thread (bare_pools.h), in turns of one run
 *   test=isolation   the wait of tasks while pool 0 is well, full, panicking and hung, the latter until the health
 *                    check has it back
 *
 * What it leaves out: tasks that use the CPU (they sleep, so that many workers fit on few CPUs), and batches.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ringpool.h>

#include "bare_pools.h"
#include "command.h"
#include "meter.h"
#include "workload.h"

#define SHORT_NS 1000000
#define SPIN_REST_NS 60000
#define SUBMITTERS 4
#define ROUNDS 5

enum { TEST_EQUAL, TEST_MIXED, TEST_CHOOSE, TEST_THROUGHPUT, TEST_ISOLATION };
static const char *const test_words[] = {"equal", "mixed", "choose", "throughput", "isolation", NULL};

/* As enum rp_strategy, and all of these. */
enum { STRATEGIES = RP_AUTO + 1 };
static const char *const strategy_words[] = {"round_robin", "least_tasks", "two_choices", "random",
                                             "local",       "auto",        "all",         NULL};

struct run {
    uint64_t test, strategy, pools, workers, queue, skew, long_ms, load, seconds, work_ns;
    struct record record;
};

/* The record keeps the pointer. */
static void add(struct run *run, const char *who, const char *what, double value)
{
    static char names[RECORD_FIGURES][48];
    char *name = names[run->record.nfigures % RECORD_FIGURES];

    snprintf(name, sizeof(names[0]), "%s_%s", who, what);
    record_add(&run->record, name, value);
}

/* --- an open loop ------------------------------------------------------------------------------------------------- */

struct job {
    int64_t due, started; /* ns */
    int64_t sleep;
};

static void nap_ns(int64_t ns)
{
    nanosleep(&(struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}, NULL);
}

static void job_run(void *arg)
{
    struct job *job = arg;

    job->started = meter_now();
    nap_ns(job->sleep);
}

static double uniform(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(*seed >> 11) + 0.5) / 9007199254740992.0;
}

/* The same jobs for every strategy: times by a Poisson process, long ones by chance. */
static void jobs_plan(const struct run *run, struct job *jobs, uint64_t n, double gap_ns, double chance)
{
    uint64_t seed = 42;
    double at = 0;

    for (uint64_t i = 0; i < n; i++) {
        at -= gap_ns * log(uniform(&seed));
        jobs[i] = (struct job){.due = (int64_t)at};
        jobs[i].sleep = uniform(&seed) < chance ? (int64_t)run->long_ms * 1000000 : SHORT_NS;
    }
}

/* One of them. */
struct target {
    struct rp_multi *multi;
    struct rp_pool *pool;
    struct bare_pools *bare; /* of bursts */
};

static int jobs_submit(struct target target, struct job *jobs, uint64_t n)
{
    int64_t start = meter_now() + 1000000;
    int rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i++) {
        jobs[i].due += start;
        if (jobs[i].due - meter_now() > SPIN_REST_NS)
            meter_sleep_until(jobs[i].due - SPIN_REST_NS);
        while (meter_now() < jobs[i].due)
            ;
        rc = target.multi ? rp_multi_submit(target.multi, job_run, &jobs[i])
                          : rp_pool_submit(target.pool, job_run, &jobs[i]);
    }
    return rc;
}

static void add_waits(struct run *run, const char *who, const struct job *jobs, uint64_t n)
{
    static struct rp_histogram waits;

    memset(&waits, 0, sizeof(waits));
    for (uint64_t i = 0; i < n; i++)
        rp_histogram_add(&waits, jobs[i].started - jobs[i].due);
    add(run, who, "p50_us", rp_histogram_at(&waits, 0.5) / 1e3);
    add(run, who, "p99_us", rp_histogram_at(&waits, 0.99) / 1e3);
    add(run, who, "max_us", (double)waits.most / 1e3);
}

/* By how much the pool furthest from an equal share is off, in percent of that. */
static double share_error(struct rp_multi *multi, unsigned pools, uint64_t n)
{
    double mean = (double)n / pools, worst = 0;

    for (unsigned i = 0; i < pools; i++) {
        struct rp_pool_snapshot seen;
        if (rp_pool_snapshot(rp_multi_pool(multi, i), &seen))
            continue;
        worst = fmax(worst, fabs((double)seen.submitted - mean) / mean * 100);
    }
    return worst;
}

static int loop_multi(struct run *run, enum rp_strategy strategy, struct job *jobs, uint64_t n)
{
    struct rp_pool_options pool = {.queue_depth = (unsigned)run->queue, .prealloc = true, .no_purge = true};
    struct rp_multi *multi;
    int rc = rp_multi_create(&multi, (unsigned)run->pools, (unsigned)run->workers, strategy,
                             &(struct rp_multi_options){.pool = &pool});

    if (rc)
        return rc;
    rc = jobs_submit((struct target){.multi = multi}, jobs, n);
    rp_multi_release_until(multi, 0, NULL);
    if (!rc) {
        add_waits(run, strategy_words[strategy], jobs, n);
        add(run, strategy_words[strategy], "share_error_%", share_error(multi, (unsigned)run->pools, n));
    }
    rp_multi_destroy(multi);
    return rc;
}

static int loop_single(struct run *run, struct job *jobs, uint64_t n)
{
    struct rp_pool_options options = {
        .queue_depth = (unsigned)(run->queue * run->pools), .prealloc = true, .no_purge = true};
    struct rp_pool *pool;
    int rc = rp_pool_create(&pool, (unsigned)(run->pools * run->workers), &options);

    if (rc)
        return rc;
    rc = jobs_submit((struct target){.pool = pool}, jobs, n);
    rp_pool_destroy(pool);
    if (!rc)
        add_waits(run, "single", jobs, n);
    return rc;
}

static int open_loop(struct run *run)
{
    double chance = run->test == TEST_MIXED ? (double)run->skew / 1000 : 0;
    double service = chance * (double)run->long_ms * 1e6 + (1 - chance) * SHORT_NS;
    double gap = service / (double)(run->pools * run->workers) / ((double)run->load / 100);
    uint64_t n = (uint64_t)((double)run->seconds * 1e9 / gap);
    struct job *jobs = calloc(n ? n : 1, sizeof(*jobs));
    int rc = jobs ? 0 : -ENOMEM;

    for (unsigned s = 0; s < STRATEGIES && rc == 0; s++) {
        if (run->strategy != STRATEGIES && run->strategy != s)
            continue;
        jobs_plan(run, jobs, n, gap, chance);
        rc = loop_multi(run, (enum rp_strategy)s, jobs, n);
    }
    if (rc == 0) {
        jobs_plan(run, jobs, n, gap, chance);
        rc = loop_single(run, jobs, n);
    }
    free(jobs);
    return rc;
}

/* --- the cost of choosing ----------------------------------------------------------------------------------------- */

/* Held by whoever holds workers up, who sleep meanwhile. */
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static void hold_task(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&held);
    pthread_mutex_unlock(&held);
}

/* Pools with room for `share` tasks each and one worker that is held. */
static int held_multi(const struct run *run, enum rp_strategy strategy, unsigned share, struct rp_multi **multi)
{
    struct rp_pool_options pool = {.queue_depth = share * 2, .no_purge = true};
    int rc = rp_multi_create(multi, (unsigned)run->pools, 1, strategy, &(struct rp_multi_options){.pool = &pool});

    for (unsigned i = 0; i < run->pools && rc == 0; i++)
        rc = rp_pool_submit(rp_multi_pool(*multi, i), hold_task, NULL);
    return rc;
}

static double ns_each(int64_t begun, uint64_t n)
{
    return (double)meter_ns(meter_ticks() - begun) / (double)n;
}

/* The best of several rounds: what else runs can only make one slower. The tasks do nothing once they are let go. */
static int choose_round(const struct run *run, enum rp_strategy strategy, double *multi_ns, double *direct_ns)
{
    unsigned pools = (unsigned)run->pools, share = pools > 4096 ? 16 : 65536 / pools;
    uint64_t n = (uint64_t)share * pools / 2;
    struct rp_pool **direct = calloc(pools, sizeof(struct rp_pool *));
    struct rp_multi *multi;
    pthread_mutex_lock(&held);
    int rc = direct ? held_multi(run, strategy, share, &multi) : -ENOMEM;
    if (rc) {
        pthread_mutex_unlock(&held);
        free(direct);
        return rc;
    }
    for (unsigned i = 0; i < pools; i++)
        direct[i] = rp_multi_pool(multi, i);
    int64_t begun = meter_ticks();
    for (uint64_t i = 0, at = 0; i < n && rc == 0; i++) {
        rc = rp_pool_submit(direct[at], task_count, NULL);
        at = at + 1 == pools ? 0 : at + 1;
    }
    *direct_ns = fmin(*direct_ns, ns_each(begun, n));
    begun = meter_ticks();
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = rp_multi_submit(multi, task_count, NULL);
    *multi_ns = fmin(*multi_ns, ns_each(begun, n));
    pthread_mutex_unlock(&held);
    rp_multi_destroy(multi);
    free(direct);
    return rc;
}

static int choose(struct run *run)
{
    double direct_ns = 1e9, multi_ns[STRATEGIES];
    int rc = 0;

    for (unsigned s = 0; s < STRATEGIES; s++)
        multi_ns[s] = 1e9;
    for (unsigned i = 0; i < STRATEGIES * ROUNDS && rc == 0; i++)
        if (run->strategy == STRATEGIES || run->strategy == i % STRATEGIES)
            rc = choose_round(run, (enum rp_strategy)(i % STRATEGIES), &multi_ns[i % STRATEGIES], &direct_ns);
    add(run, "direct", "ns", direct_ns);
    for (unsigned s = 0; s < STRATEGIES && rc == 0; s++) {
        if (run->strategy != STRATEGIES && run->strategy != s)
            continue;
        add(run, strategy_words[s], "ns", multi_ns[s]);
        add(run, strategy_words[s], "choose_ns", multi_ns[s] - direct_ns);
    }
    return rc;
}

/* --- throughput --------------------------------------------------------------------------------------------------- */

struct burst {
    struct target target;
    uint64_t n; /* of each submitter */
    void (*fn)(void *arg);
    void *arg;
    _Atomic int rc;
};

static void burst(void *arg, unsigned i)
{
    struct burst *b = arg;
    int rc = 0;

    if (b->target.bare)
        bare_pools_burst(b->target.bare, i, b->fn, b->arg, b->n);
    for (uint64_t k = 0; k < b->n && rc == 0 && !b->target.bare; k++)
        rc = b->target.multi ? rp_multi_submit(b->target.multi, b->fn, b->arg)
                             : rp_pool_submit(b->target.pool, b->fn, b->arg);
    if (rc)
        b->rc = rc;
}

/* Million tasks a second. */
static double burst_speed(const struct run *run, struct target target, int *rc)
{
    uint64_t steps = run->work_ns ? meter_steps(run->work_ns) : 0;
    struct burst b = {.target = target,
                      .n = 200000 * run->seconds / SUBMITTERS / (1 + run->work_ns / 1000),
                      .fn = steps ? task_spin : task_count,
                      .arg = (void *)(uintptr_t)steps}; /* NOLINT(performance-no-int-to-ptr) */
    uint64_t before = cells_tasks();
    struct usage begun;
    int made = threads_run(SUBMITTERS, burst, &b, &begun);

    *rc = made ? made : b.rc;
    if (*rc)
        return 0;
    cells_wait(before + b.n * SUBMITTERS, 50000);
    struct usage used = usage_since(&begun);
    return (double)(b.n * SUBMITTERS) * 1e3 / (double)used.wall;
}

/* Beside each other, the best of some rounds of each. */
enum { MULTI, SINGLE, BARE, TARGETS };

static int targets_make(const struct run *run, enum rp_strategy strategy, struct target *targets)
{
    struct rp_pool_options each = {.queue_depth = (unsigned)run->queue, .prealloc = true, .no_purge = true};
    struct rp_pool_options all = each;
    unsigned pools = (unsigned)run->pools, workers = (unsigned)run->workers;
    int rc =
        rp_multi_create(&targets[MULTI].multi, pools, workers, strategy, &(struct rp_multi_options){.pool = &each});

    all.queue_depth *= pools;
    if (!rc)
        rc = rp_pool_create(&targets[SINGLE].pool, pools * workers, &all);
    return rc;
}

static int throughput_of(struct run *run, enum rp_strategy strategy)
{
    static const char *const words[] = {"Mtasks_s", "single_Mtasks_s", "bare_Mtasks_s"};
    struct target targets[TARGETS] = {0};
    double best[TARGETS] = {0};
    int rc = targets_make(run, strategy, targets);

    for (int round = 0; round < ROUNDS && rc == 0; round++) {
        for (int t = 0; t < TARGETS && rc == 0; t++) {
            if (t == BARE) /* only while it is measured, since its threads never sleep */
                rc = bare_pools_create(&targets[BARE].bare, (unsigned)run->pools, (unsigned)run->queue);
            if (!rc)
                best[t] = fmax(best[t], burst_speed(run, targets[t], &rc));
            if (t == BARE && targets[BARE].bare)
                bare_pools_destroy(targets[BARE].bare);
        }
    }
    for (int t = 0; t < TARGETS && rc == 0; t++)
        add(run, strategy_words[strategy], words[t], best[t]);
    if (!rc)
        add(run, strategy_words[strategy], "ratio", best[MULTI] / best[SINGLE]);
    if (targets[MULTI].multi)
        rp_multi_destroy(targets[MULTI].multi);
    if (targets[SINGLE].pool)
        rp_pool_destroy(targets[SINGLE].pool);
    return rc;
}

static int throughput(struct run *run)
{
    int rc = 0;

    for (unsigned s = 0; s < STRATEGIES && rc == 0; s++)
        if (run->strategy == STRATEGIES || run->strategy == s)
            rc = throughput_of(run, (enum rp_strategy)s);
    return rc;
}

/* --- isolation ---------------------------------------------------------------------------------------------------- */

static _Atomic unsigned steps[4];
static _Atomic int64_t out_since, out_for;

static void on_health(void *unused, const struct rp_multi_health *event)
{
    (void)unused;
    steps[event->step]++;
    if (event->step == RP_MULTI_OUT)
        out_since = rp_now();
    if (event->step == RP_MULTI_BACK)
        out_for = rp_now() - out_since;
}

static void panic_task(void *unused)
{
    (void)unused;
    rp_panic("on purpose");
}

static void on_panic(void *unused, const struct rp_panic_info *info)
{
    (void)unused;
    (void)info;
}

static void say_nothing(void *unused, int level, const char *message)
{
    (void)unused;
    (void)level;
    (void)message;
}

/* A task for pool 0 that comes back as soon as it is done. */
static _Atomic bool troubled;
static struct rp_pool *troubled_pool;

static void again(void *task)
{
    nap_ns(SHORT_NS);
    if (troubled)
        rp_pool_try_submit(troubled_pool, again, task);
}

static void *panic_main(void *unused)
{
    (void)unused;
    while (troubled) {
        rp_pool_try_submit(troubled_pool, panic_task, NULL);
        nap_ns(SHORT_NS / 10);
    }
    return NULL;
}

static int isolation_phase(struct run *run, struct rp_multi *multi, const char *name)
{
    double gap = (double)SHORT_NS / (double)(run->pools * run->workers) / ((double)run->load / 200);
    uint64_t n = (uint64_t)((double)run->seconds * 1e9 / gap);
    struct job *jobs = calloc(n ? n : 1, sizeof(*jobs));
    int rc = jobs ? 0 : -ENOMEM;

    if (rc)
        return rc;
    jobs_plan(run, jobs, n, gap, 0);
    rc = jobs_submit((struct target){.multi = multi}, jobs, n);
    nap_ns(INT64_C(300000000)); /* all have long ended */
    if (!rc)
        add_waits(run, name, jobs, n);
    free(jobs);
    return rc;
}

static int isolation_phases(struct run *run, struct rp_multi *multi)
{
    pthread_t panics;
    int rc = isolation_phase(run, multi, "well");

    troubled_pool = rp_multi_pool(multi, 0);
    troubled = true;
    for (unsigned i = 0; i < run->workers + run->queue; i++)
        rp_pool_try_submit(troubled_pool, again, NULL);
    rc = rc ? rc : isolation_phase(run, multi, "full");
    troubled = false;
    nap_ns(INT64_C(100000000));
    troubled = true;
    if (!rc && pthread_create(&panics, NULL, panic_main, NULL) == 0) {
        rc = isolation_phase(run, multi, "panicking");
        troubled = false;
        pthread_join(panics, NULL);
    }
    pthread_mutex_lock(&held);
    for (unsigned i = 0; i < run->workers; i++)
        rp_pool_try_submit(troubled_pool, hold_task, NULL);
    rc = rc ? rc : isolation_phase(run, multi, "hung");
    pthread_mutex_unlock(&held);
    add(run, "health", "out", steps[RP_MULTI_OUT]);
    add(run, "health", "rebooted", steps[RP_MULTI_REBOOTED]);
    add(run, "health", "back", steps[RP_MULTI_BACK]);
    add(run, "health", "out_for_ms", (double)out_for / 1e6);
    return rc;
}

static int isolation(struct run *run)
{
    struct rp_pool_options pool = {.queue_depth = (unsigned)run->queue,
                                   .prealloc = true,
                                   .no_purge = true,
                                   .on_panic = on_panic,
                                   .log = say_nothing};
    struct rp_multi_options options = {
        .pool = &pool, .health_ns = 20000000, .hang_ns = 200000000, .on_health = on_health};
    struct rp_multi *multi;
    enum rp_strategy strategy = run->strategy == STRATEGIES ? RP_LEAST_TASKS : (enum rp_strategy)run->strategy;
    int rc = rp_multi_create(&multi, (unsigned)run->pools, (unsigned)run->workers, strategy, &options);

    if (rc)
        return rc;
    rc = isolation_phases(run, multi);
    rp_multi_destroy(multi);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

int bench_multi(int argc, char **argv)
{
    static int (*const tests[])(struct run * run) = {open_loop, open_loop, choose, throughput, isolation};
    static struct run run = {.test = TEST_MIXED,
                             .strategy = STRATEGIES,
                             .pools = 8,
                             .workers = 4,
                             .queue = 4096,
                             .skew = 10,
                             .long_ms = 1000,
                             .load = 70,
                             .seconds = 5};
    static const struct arg_key keys[] = {
        {"test", 0, 0, &run.test, "what is measured", test_words},
        {"strategy", 0, 0, &run.strategy, "of enum rp_strategy, or all of them one after the other", strategy_words},
        {"pools", 1, 16384, &run.pools, "how many", NULL},
        {"workers", 1, 10000, &run.workers, "of each pool", NULL},
        {"queue", 0, 1000000, &run.queue, "of each pool: tasks that may wait", NULL},
        {"skew", 0, 1000, &run.skew, "mixed: how many of 1000 tasks are long", NULL},
        {"long_ms", 1, 60000, &run.long_ms, "mixed: how long a long task sleeps", NULL},
        {"load", 1, 100, &run.load, "percent of the workers' time that the tasks take (isolation: half of it)", NULL},
        {"seconds", 1, 3600, &run.seconds, "of each measurement; throughput: times 200000 tasks a round", NULL},
        {"work_ns", 0, 1000000, &run.work_ns, "throughput: how long a task computes", NULL},
    };
    bool json;
    enum args_parsed parsed = workload_args(&ringpool_executor, &run.record, keys, NKEYS(keys), 0, argc, argv, &json);

    if (parsed != ARGS_RUN)
        return parsed == ARGS_HELP ? STATUS_OK : STATUS_USAGE;
    meter_begin();
    int rc = tests[run.test](&run);
    return rc ? workload_failed(&run.record, "cannot run", rc) : record_print(&run.record, json);
}
