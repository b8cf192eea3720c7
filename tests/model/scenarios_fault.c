/*
 * What goes wrong: threads and memory that are not to be had, tasks that do not return, time that runs out; and what is
 * used again: descriptors, rings, handles.
 */
#include "core.h"
#include "ledger.h"

#include "pool/pool.h"

#include <errno.h>

#define MS INT64_C(1000000)

/* Submitted until accepted, as a caller would. */
static void submit_stubborn(void *arg)
{
    struct chore *job = arg;

    while (job_submit(job) == -EAGAIN || job->rc == -ENOMEM)
        model_sleep(MS);
}

/* A task whose worker cannot be made is looked after by the retry, also when it needs another one's worker. */
static void thread_failures(void)
{
    struct gate started = {0};

    open_pool(2, &(struct rp_pool_options){.queue_depth = choose(2)});
    job_new()->waits = &started;
    job_new()->opens = &started;
    job_new();
    fail_threads(1 + choose(3));
    for (int i = 0; i < 3; i++)
        actor("submitter", submit_stubborn, &ledger.job[i]);
    settle(true);
    actors_join();
    accepted_check();
    settle(true);
    fates_check();
    rest_check();
    close_pool();
}

/* The same when the pool is destroyed meanwhile: what no worker can run is dropped. */
static void thread_failures_destroy(void)
{
    open_pool(2, &(struct rp_pool_options){.queue_depth = 4});
    for (int i = 0; i < 3; i++)
        job_new()->deadline = FOREVER;
    fail_threads(2 + choose(8));
    for (int i = 0; i < 2; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    if (chance(2))
        settle(false);
    fail_threads(2 + choose(8));
    actor("submitter", submit_job, &ledger.job[2]);
    if (chance(2))
        actors_join();
    int rc = rp_pool_destroy(ledger.pool);
    must(rc == 0, "destroy: %d", rc);
    actors_join();
    fates_check();
}

/* Rings of classes, descriptors, table: -ENOMEM is told, or made good later. */
static void allocation_failures(void)
{
    open_pool(2, &(struct rp_pool_options){.queue_depth = choose(2)});
    for (int i = 0; i < 3; i++)
        job_new()->priority = (int)choose(3);
    fail_allocations(1 + choose(4));
    for (int i = 0; i < 3; i++)
        actor("submitter", submit_stubborn, &ledger.job[i]);
    settle(true);
    actors_join();
    accepted_check();
    settle(true);
    fates_check();
    rest_check();
    close_pool();
}

static unsigned starts_fail;
static unsigned started_workers, most_workers; /* that live now, by the hooks; and the most at once */

static int start_hook(void *user, unsigned worker, void **local)
{
    (void)user;
    (void)worker;
    (void)local;
    turn("worker_start");
    if (starts_fail && chance(2)) {
        starts_fail--;
        return -EIO;
    }
    if (++started_workers > most_workers)
        most_workers = started_workers;
    return 0;
}

static void stop_hook(void *user, unsigned worker, void *local)
{
    (void)user;
    (void)worker;
    (void)local;
    turn("worker_stop");
    started_workers--;
}

/* A worker that does not start is as one that cannot be made; each that did start is stopped. */
static void start_failures(void)
{
    starts_fail = started_workers = most_workers = 0;
    open_pool(2, &(struct rp_pool_options){
                     .queue_depth = choose(2), .worker_start = start_hook, .worker_stop = stop_hook, .expiry_ns = MS});
    for (int i = 0; i < 3; i++)
        job_new();
    starts_fail = 1 + choose(3);
    for (int i = 0; i < 3; i++)
        actor("submitter", submit_stubborn, &ledger.job[i]);
    settle(true);
    actors_join();
    accepted_check();
    settle(true);
    fates_check();
    rest_check();
    close_pool();
    must(started_workers == 0, "%u workers were started and not stopped", started_workers);
}

/* The first worker begins; each later one takes longer than an expiry, and fails. */
static int start_first_hook(void *user, unsigned worker, void **local)
{
    if (!most_workers)
        return start_hook(user, worker, local);
    model_sleep(4 * MS);
    return -EIO;
}

/* The only worker, which is the minimum, does not end for another that may yet fail to begin. */
static void start_minimum(void)
{
    starts_fail = started_workers = most_workers = 0;
    open_pool(2, &(struct rp_pool_options){.min_workers = 1,
                                           .queue_depth = 2,
                                           .worker_start = start_first_hook,
                                           .worker_stop = stop_hook,
                                           .expiry_ns = MS});
    for (int i = 0; i < 3; i++) {
        job_submit(job_new());
        if (chance(2))
            settle(true);
        must(started_workers == 1, "the minimum has ended");
    }
    settle(true);
    must(started_workers == 1, "the minimum has ended");
    fates_check();
    rest_check();
    close_pool();
}

static void prewarm(void *arg)
{
    int n = rp_pool_prewarm(ledger.pool, *(unsigned *)arg);

    must(n >= 0, "prewarm: %d", n);
}

/* Workers are made from many sides at once, and never more than may live. */
static void prewarming(void)
{
    unsigned two = 2;

    starts_fail = started_workers = most_workers = 0;
    open_pool(2, &(struct rp_pool_options){.queue_depth = 2, .worker_start = start_hook, .worker_stop = stop_hook});
    for (int i = 0; i < 2; i++) {
        job_new();
        actor("submitter", submit_job, &ledger.job[i]);
    }
    actor("prewarm0", prewarm, &two);
    if (chance(2))
        actor("prewarm1", prewarm, &two);
    actors_join();
    all_done();
    must(most_workers <= 2, "%u workers lived at once", most_workers);
    must(rp_pool_running(ledger.pool) == 2, "%u workers after prewarm", rp_pool_running(ledger.pool));
    close_pool();
}

static void prewarm_all(void *arg)
{
    unsigned all = *(unsigned *)arg;
    int n = rp_pool_prewarm(ledger.pool, all);

    must(n == (int)all, "%d workers after a prewarm of %u", n, all);
}

/* Who has many to make is helped by the first ones that begin, and comes back when all are made. */
static void filling(void)
{
    unsigned all = 3 + choose(2);
    bool tunes = chance(2);

    open_pool(all, NULL);
    actor("prewarm0", prewarm_all, &all);
    if (chance(2))
        actor("prewarm1", prewarm_all, &all);
    job_new();
    actor("submitter", submit_job, &ledger.job[0]);
    actors_join();
    all_done();
    must(rp_pool_running(ledger.pool) <= all, "%u workers live", rp_pool_running(ledger.pool));
    if (tunes) { /* once more, with what the first one has left behind */
        must(!rp_pool_tune(ledger.pool, all + 3), "tune");
        all += 3;
        actor("prewarm2", prewarm_all, &all);
        actors_join();
        settle(true);
    }
    rest_check();
    close_pool();
}

/* --- tasks that do not return ------------------------------------------------------------------------------------ */

/* All workers panic while submitters block: the pool works on, and the submitters get their room. */
static void panics(void)
{
    open_pool(1 + choose(2), &(struct rp_pool_options){.min_workers = choose(2)});
    for (int i = 0; i < 5; i++) {
        job_new()->panics = i < 3 || chance(2);
        actor("submitter", submit_job, &ledger.job[i]);
    }
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Tasks that end their thread: the worker is replaced, or not if the pool ends meanwhile. */
static void thread_exits(void)
{
    bool releases = chance(2);

    open_pool(1 + choose(2), &(struct rp_pool_options){.queue_depth = choose(2), .min_workers = choose(2)});
    for (int i = 0; i < 4; i++) {
        job_new()->exits = i < 2 || chance(2);
        actor("submitter", submit_job, &ledger.job[i]);
    }
    if (releases)
        must(rp_pool_release(ledger.pool) == 0, "release");
    settle(true);
    actors_join();
    fates_check();
    rest_check();
    close_pool();
}

static void end_all(struct chore *job)
{
    int rc = rp_pool_release_until(ledger.pool, 0, NULL);

    must(rc == 0, "release_until inside: %d", rc);
    (void)job;
}

/* The same in tasks that a waiting task runs on top of itself. */
static void failing_helped(void)
{
    open_pool(1, &(struct rp_pool_options){.queue_depth = 4});
    job_new()->inside = end_all;
    for (int i = 1; i < 4; i++) {
        job_new()->panics = chance(2);
        ledger.job[i].exits = !ledger.job[i].panics && chance(3);
    }
    for (int i = 0; i < 4; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    settle(true);
    actors_join();
    settle(true);
    ledger.running = 0; /* a task below one that ended its thread does not come back */
    fates_check();
    rest_check();
    close_pool();
}

/* --- time -------------------------------------------------------------------------------------------------------- */

static void sleep_inside(struct chore *job)
{
    model_sleep(choose(3) * MS);
    (void)job;
}

/* The run limit fires or not, and is disarmed before the worker goes on. */
static void run_limits(void)
{
    struct rp_worker_info info[4];

    open_pool(2, &(struct rp_pool_options){.queue_depth = 4, .min_workers = choose(2)});
    for (int i = 0; i < 4; i++) {
        job_new()->timeout = MS;
        ledger.job[i].inside = sleep_inside;
        ledger.job[i].panics = chance(4);
        actor("submitter", submit_job, &ledger.job[i]);
    }
    settle(true);
    actors_join();
    accepted_check();
    all_done();
    int n = rp_pool_workers(ledger.pool, info, 4);
    for (int i = 0; i < n; i++)
        must(!info[i].hung, "worker %u is hung at rest", info[i].worker);
    close_pool();
}

/* Queued tasks whose latest start passes are dropped, once. */
static void start_deadlines(void)
{
    open_pool(1, &(struct rp_pool_options){.queue_depth = 3});
    for (int i = 0; i < 4; i++) {
        job_new()->inside = sleep_inside;
        ledger.job[i].deadline = model_now() + (1 + choose(3)) * MS;
        actor("submitter", submit_job, &ledger.job[i]);
    }
    settle(true);
    actors_join();
    for (int i = 0; i < 4; i++) {
        const struct chore *job = &ledger.job[i];
        must(job->rc == 0 || job->rc == -ETIMEDOUT, "job %d: %d", i, job->rc);
        must(!job->drops || job->reason == -ETIMEDOUT, "job %d dropped for %d", i, job->reason);
    }
    all_done();
    close_pool();
}

/* --- what is used again ------------------------------------------------------------------------------------------ */

static void tune_to(void *arg)
{
    int rc = rp_pool_tune(ledger.pool, *(unsigned *)arg);

    must(rc == 0, "tune: %d", rc);
}

/* A worker ends while another is made: no descriptor is used, and no stack stood on, by two. */
static void cache_reuse(void)
{
    struct gate started = {0};
    unsigned one = 1, two = 2;

    open_pool(2, &(struct rp_pool_options){.queue_depth = 2, .prealloc = true, .expiry_ns = chance(2) ? MS : 0});
    job_new();
    job_new()->waits = &started;
    job_new()->opens = &started;
    job_new();
    actor("shrink", tune_to, &one);
    actor("submit0", submit_job, &ledger.job[0]);
    if (chance(2))
        settle(true);
    actor("grow", tune_to, &two);
    for (int i = 1; i < 4; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    settle(true); /* the growing may come before the shrinking */
    rp_pool_tune(ledger.pool, two);
    actors_join();
    accepted_check();
    settle(true);
    fates_check();
    rest_check();
    close_pool();
}

/* A ring of two slots, whose positions are about to pass 2^40 and their counts 2^23. */
static void ring_wraps(void)
{
    open_pool(2, &(struct rp_pool_options){.min_workers = choose(2)});
    struct pool *core = ledger.pool->handle.core;
    struct ring *ring = core->runq.rings[CLASS_NORMAL];
    uint64_t start = POSITION_MASK + 1 - choose(4);

    model.calm = true;
    ring->mask = 1;
    ring->head = (start & POSITION_MASK) | start << POSITION_BITS; /* all of them have ended */
    ring->halves = start >> (POSITION_BITS - 1);
    core->runq.tail = start & POSITION_MASK;
    core->runq.done_seen = (uint32_t)start & FLIGHT_MASK;
    for (uint64_t i = 0; i < 2; i++)
        ring->slots[(start + i) & 1].sequence = (start + i) & POSITION_MASK;
    flush_everybody();
    model.calm = false;
    for (int i = 0; i < 6; i++)
        job_new();
    for (int i = 0; i < 6; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    settle(true); /* where the ring is full and not the pool, the blocked ones look again after a while */
    actors_join();
    accepted_check();
    settle(true);
    fates_check();
    rest_check();
    must(runq_count(&core->runq).done == start + 6, "the count of ended tasks has wrapped");
    must(ring->halves == (start + 6) >> (POSITION_BITS - 1), "a passed half was not counted");
    close_pool();
}

static void destroy_pool(void *arg)
{
    int rc = rp_pool_destroy(ledger.pool);

    (void)arg;
    must(rc == 0, "destroy: %d", rc);
}

static void create_again(void *arg)
{
    struct rp_pool **again = arg;

    *again = another_pool(1, NULL);
}

/* The last free handle is given out again while calls of its former life are under way. */
static void handle_reuse(void)
{
    static struct pool dummies[64];
    struct handle *held[64];
    struct rp_pool *again = NULL;
    unsigned n = 0;

    open_pool(1, &(struct rp_pool_options){.min_workers = choose(2)});
    job_new();
    job_new();
    for (; n < 63; n++)
        handle_create(&pool_handles, &held[n], &dummies[n]);
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_job, &ledger.job[1]);
    destroy_pool(NULL);
    actor("create", create_again, &again);
    settle(true);
    actors_join();
    must(again == ledger.pool, "another handle was given out");
    fates_check();
    close_pool();
    model.calm = true;
    for (; n > 0; n--) {
        handle_empty(&pool_handles, held[n - 1]);
        handle_free(&pool_handles, held[n - 1]);
    }
    flush_everybody();
    model.calm = false;
}

/* A reader of all gauges while tasks come, end, panic and are dropped: the figures are of one moment. */
static void look(void *arg)
{
    struct rp_pool_snapshot s;

    (void)arg;
    for (int i = 0; i < 3; i++) {
        must(rp_pool_snapshot(ledger.pool, &s) == 0, "no snapshot");
        must(s.busy + s.idle == s.running, "%u busy + %u idle != %u running", s.busy, s.idle, s.running);
        must(s.submitted == s.completed + s.dropped + s.panicked + s.busy + s.waiting - s.blocked,
             "submitted %llu != %llu + %llu + %llu + %u + %u - %u", (unsigned long long)s.submitted,
             (unsigned long long)s.completed, (unsigned long long)s.dropped, (unsigned long long)s.panicked, s.busy,
             s.waiting, s.blocked);
        must(s.completed < 100 && s.dropped < 100, "a figure went below zero");
    }
}

static void snapshots(void)
{
    open_pool(2, &(struct rp_pool_options){.queue_depth = 3});
    for (int i = 0; i < 4; i++) {
        job_new()->panics = i == 1;
        ledger.job[i].deadline = i == 2 ? model_now() + MS : 0;
        actor("submitter", submit_job, &ledger.job[i]);
    }
    actor("look", look, NULL);
    settle(true);
    actors_join();
    all_done();
    close_pool();
}

const struct scenario scenarios_fault[] = {
    {"thread-failures", "a task whose worker cannot be made is looked after", thread_failures},
    {"thread-failures-destroy", "and dropped where the pool ends first", thread_failures_destroy},
    {"allocation-failures", "-ENOMEM loses nothing", allocation_failures},
    {"start-failures", "a worker that does not start is tried again", start_failures},
    {"start-minimum", "the minimum does not end for a worker that fails to begin", start_minimum},
    {"prewarming", "workers made from many sides, never more than may live", prewarming},
    {"filling", "many workers made, with the help of the first ones", filling},
    {"panics", "workers that panic while submitters block", panics},
    {"thread-exits", "a worker whose task ends its thread is replaced", thread_exits},
    {"failing-helped", "panics and thread ends in tasks that another one helps with", failing_helped},
    {"run-limits", "a run limit never outlives its task", run_limits},
    {"start-deadlines", "a queued task that is late is dropped once", start_deadlines},
    {"cache-reuse", "no descriptor or stack is used by two", cache_reuse},
    {"ring-wraps", "two slots, and counts that wrap", ring_wraps},
    {"handle-reuse", "a handle in its second life", handle_reuse},
    {"snapshots", "a snapshot's figures are of one moment", snapshots},
    {0},
};
