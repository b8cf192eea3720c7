/*
 * The multi pool: pools come and go under submitters, and whoever waits for room in any of them is served by any.
 */
#include "ledger.h"

#include "pool/multi.h"

#include <errno.h>

static void open_multi(unsigned pools, unsigned capacity, enum rp_strategy strategy)
{
    const struct rp_pool_options each = {
        .allocator = &model_allocator, .log_level = RP_LOG_NONE, .no_purge = true, .queue_depth = choose(2)};
    const struct rp_multi_options options = {.pool = &each};

    memset(&ledger, 0, sizeof(ledger));
    int rc = rp_multi_create(&ledger.multi, pools, capacity, strategy, &options);
    must(rc == 0, "create: %s", rp_strerror(rc));
}

static enum rp_strategy any_strategy(void)
{
    return (enum rp_strategy)choose(RP_CUSTOM);
}

static void each_pool_rests(void)
{
    for (unsigned i = 0; i < 4; i++) {
        struct rp_pool *pool = rp_multi_pool(ledger.multi, i);
        if (pool)
            pool_rest_check(pool->handle.core);
    }
}

static void all_fates_and_rest(void)
{
    settle(false);
    fates_check();
    each_pool_rests();
}

static void close_multi(void)
{
    int rc = rp_multi_destroy(ledger.multi);

    must(rc == 0, "destroy: %d", rc);
    fates_check();
    must(ledger.running == 0, "destroy has returned while %u tasks run", ledger.running);
}

static void submit_pair(void *arg)
{
    struct chore *job = arg;

    job_submit(&job[0]);
    job_submit(&job[1]);
}

/* Submitters of two tasks each, who come beside each other and see all of them through. */
static void pairs(int n)
{
    for (int i = 0; i < 2 * n; i++)
        job_new();
    for (int i = 0; i < 2 * n; i += 2)
        actor("submitter", submit_pair, &ledger.job[i]);
    actors_join();
    accepted_check();
    all_fates_and_rest();
    close_multi();
}

/* Every strategy beside each other, and none loses a task or leaves it lying. */
static void spread(void)
{
    open_multi(2, 1, any_strategy());
    pairs(3);
}

/* More submitters than there is room for, who come and go at the head of the list while tasks end. */
static void blocked(void)
{
    open_multi(1 + choose(2), 1, any_strategy());
    pairs(4);
}

/* A pool's workers are made, park, and have found many tasks at a time lately. */
static void begin_streams(struct rp_pool *handle, unsigned workers)
{
    struct pool *pool = handle->handle.core;
    int rc = rp_pool_prewarm(handle, workers);

    must(rc >= 0, "prewarm: %d", rc);
    settle(false);
    for (unsigned i = 0; i < workers; i++) {
        struct worker *worker = worker_at(pool, i);
        if (worker)
            worker->search.bursts = 16;
    }
}

/* Of such workers two are searchers at a time, while a third one is parked. */
static void two_searchers(void)
{
    open_multi(1, 3, RP_ROUND_ROBIN);
    begin_streams(rp_multi_pool(ledger.multi, 0), 3);
    pairs(3);
}

static void exchange_pools(void *arg)
{
    unsigned first = choose(2);
    int rc;

    (void)arg;
    for (unsigned i = 0; i < 2; i++) {
        if ((rc = rp_multi_add(ledger.multi, 1)) < 0)
            must(rc == -ENOMEM || rc == -EAGAIN, "add: %d", rc);
        rc = rp_multi_remove(ledger.multi, first ^ i);
        must(rc == 0 || rc == -EBUSY || rc == -ENOENT, "remove: %d", rc);
    }
}

/* Adversary: the pools that a submit looks at are taken out, drained and freed under it. */
static void exchange(void)
{
    open_multi(2, 1, any_strategy());
    for (int i = 0; i < 4; i++)
        job_new();
    actor("submitter", submit_pair, &ledger.job[0]);
    actor("submitter", submit_pair, &ledger.job[2]);
    actor("exchange", exchange_pools, NULL);
    actors_join();
    accepted_check();
    all_fates_and_rest();
    close_multi();
}

/* Two tasks that hold a worker of each pool, at depth 0 or with what its queue holds; then three that find no room. */
static unsigned fill(struct gate *hold, unsigned *pools)
{
    unsigned n = 0;

    for (unsigned pool = 0; pool < *pools; pool++) {
        struct rp_pool *handle = rp_multi_pool(ledger.multi, pool);
        for (unsigned depth = ((struct pool *)handle->handle.core)->queue_depth + 1; depth; depth--, n++) {
            struct chore *job = job_new();
            job->waits = &hold[pool];
            ledger.pool = handle;
            job_submit_to_pool(job);
        }
    }
    settle(false);
    for (unsigned i = 0; i < 3; i++)
        actor("submitter", submit_job, job_new());
    settle(false);
    for (unsigned i = 0; i < 3; i++)
        must(!ledger.job[n + i].submitted, "submitter %u found room", i);
    return n;
}

/* The room of either pool alone is enough for all that wait. */
static void served_by_any(void)
{
    struct gate hold[2] = {{0}, {0}};
    unsigned pools = 2, open = choose(2);

    open_multi(pools, 1, any_strategy());
    unsigned n = fill(hold, &pools);
    gate_open(&hold[open]);
    settle(false);
    for (unsigned i = 0; i < 3; i++)
        must(ledger.job[n + i].submitted && ledger.job[n + i].rc == 0, "submitter %u still waits", i);
    gate_open(&hold[1 - open]);
    actors_join();
    all_fates_and_rest();
    close_multi();
}

/* So is a pool that is added. */
static void served_by_new(void)
{
    struct gate hold[2] = {{0}, {0}};
    unsigned pools = 2;

    open_multi(pools, 1, any_strategy());
    unsigned n = fill(hold, &pools);
    int rc;
    do
        rc = rp_multi_add(ledger.multi, 1);
    while (rc == -ENOMEM || rc == -EAGAIN);
    must(rc == 2, "add: %d", rc);
    settle(false);
    for (unsigned i = 0; i < 3; i++)
        must(ledger.job[n + i].submitted && ledger.job[n + i].rc == 0, "submitter %u still waits", i);
    gate_open(&hold[0]);
    gate_open(&hold[1]);
    actors_join();
    all_fates_and_rest();
    close_multi();
}

static void release_multi(void *arg)
{
    (void)arg;
    must(rp_multi_release(ledger.multi) == 0, "release");
}

static void reboot_multi(void *arg)
{
    (void)arg;
    must(rp_multi_reboot(ledger.multi) == 0, "reboot");
}

/* Those that wait are told of the release. */
static void release_told(void)
{
    struct gate hold[2] = {{0}, {0}};
    unsigned pools = 2;

    open_multi(pools, 1, any_strategy());
    unsigned n = fill(hold, &pools);
    release_multi(NULL);
    settle(false);
    for (unsigned i = 0; i < 3; i++)
        must(ledger.job[n + i].submitted && ledger.job[n + i].rc == -ESHUTDOWN, "submitter %u was not told", i);
    gate_open(&hold[0]);
    gate_open(&hold[1]);
    actors_join();
    settle(false);
    fates_check();
    close_multi();
}

/* Releases and reboots that race leave all pools as the last one has said. */
static void release_reboot(void)
{
    open_multi(2, 1, RP_ROUND_ROBIN);
    for (int i = 0; i < 2; i++)
        job_new();
    actor("release", release_multi, NULL);
    actor("reboot", reboot_multi, NULL);
    actor("submitter", submit_pair, &ledger.job[0]);
    actors_join();
    settle(false);
    fates_check();
    bool closed = rp_multi_is_closed(ledger.multi);
    for (unsigned i = 0; i < 2; i++)
        must(rp_pool_is_closed(rp_multi_pool(ledger.multi, i)) == closed, "pool %u is not as all", i);
    for (int i = 2; i < 4; i++)
        must(job_submit(job_new()) == (closed ? -ESHUTDOWN : 0), "job %d: %d", i, ledger.job[i].rc);
    close_multi();
}

static void release_multi_until(void *arg)
{
    (void)arg;
    int rc = rp_multi_release_until(ledger.multi, 0, NULL);
    must(rc == 0 || rc == -ESHUTDOWN || rc == -ENOMEM, "release_until: %d", rc);
}

static void add_pool(void *arg)
{
    (void)arg;
    int rc = rp_multi_add(ledger.multi, 1);
    must(rc == 2 || rc == -ESHUTDOWN || rc == -ENOMEM || rc == -EAGAIN, "add: %d", rc);
}

/* So do those that wait for the end, which misses no pool that is being added. */
static void release_until_races(void)
{
    open_multi(2, 1, RP_ROUND_ROBIN);
    for (int i = 0; i < 2; i++)
        job_new();
    actor("release", release_multi_until, NULL);
    if (choose(2))
        actor("reboot", reboot_multi, NULL);
    if (choose(2))
        actor("add", add_pool, NULL);
    actor("submitter", submit_pair, &ledger.job[0]);
    actors_join();
    settle(false);
    fates_check();
    bool closed = rp_multi_is_closed(ledger.multi);
    for (unsigned i = 0; i < 3; i++)
        if (rp_multi_pool(ledger.multi, i))
            must(rp_pool_is_closed(rp_multi_pool(ledger.multi, i)) == closed, "pool %u is not as all", i);
    close_multi();
}

static void remove_and_open(void *hold)
{
    int rc = rp_multi_remove(ledger.multi, 1);

    must(rc == 0 || rc == -ENOMEM, "remove: %d", rc);
    gate_open(hold);
}

/* Adversary: who waits for a task elsewhere comes into the removed pool at any time; and that task may need remove. */
static void remove_beside_enders(void)
{
    struct gate hold = {0};
    struct chore *job;

    open_multi(2, 1, RP_ROUND_ROBIN);
    job = job_new();
    job->waits = choose(2) ? &hold : NULL;
    ledger.pool = rp_multi_pool(ledger.multi, 0);
    must(job_submit_to_pool(job) == 0, "submit: %d", job->rc);
    actor("release", release_multi_until, NULL);
    actor("remove", remove_and_open, &hold);
    actors_join();
    settle(false);
    fates_check();
    close_multi();
}

static void tune_multi(void *arg)
{
    const unsigned *total = arg;
    must(rp_multi_tune(ledger.multi, *total) == 0, "tune");
}

/* Of two totals that race the capacities add up to one. */
static void tunes(void)
{
    static unsigned totals[] = {2, 7};

    open_multi(2, 1, RP_ROUND_ROBIN);
    actor("tune", tune_multi, &totals[0]);
    actor("tune", tune_multi, &totals[1]);
    actors_join();
    unsigned total = rp_multi_cap(ledger.multi);
    must(total == 2 || total == 7, "the capacities add up to %u", total);
    close_multi();
}

static void destroy_multi(void *arg)
{
    (void)arg;
    must(rp_multi_destroy(ledger.multi) == 0, "destroy");
}

/* A call that began before destroy returned touches no freed memory. */
static void destroy_calls(void)
{
    open_multi(2, 1, any_strategy());
    for (int i = 0; i < 4; i++)
        job_new();
    actor("submitter", submit_pair, &ledger.job[0]);
    actor("submitter", submit_pair, &ledger.job[2]);
    actor("destroy", destroy_multi, NULL);
    actors_join();
    settle(false);
    fates_check();
}

const struct scenario scenarios_multi[] = {
    {"multi-spread", "every strategy loses no task and leaves none lying", spread},
    {"multi-two-searchers", "two searchers at a time strand no task", two_searchers},
    {"multi-blocked", "at strict capacity every blocked submitter is served", blocked},
    {"multi-exchange", "pools come and go under submitters", exchange},
    {"multi-served-by-any", "room in any pool serves all that wait", served_by_any},
    {"multi-served-by-new", "so does a pool that is added", served_by_new},
    {"multi-release-told", "a release tells all that wait", release_told},
    {"multi-release-reboot", "all pools end as the last one of both has said", release_reboot},
    {"multi-release-until", "so they do where somebody waits for the end, and pools are added", release_until_races},
    {"multi-remove", "remove waits for nobody who waits for another pool", remove_beside_enders},
    {"multi-tunes", "the later of two totals wins", tunes},
    {"multi-destroy-calls", "destroy waits for calls that began before", destroy_calls},
    {0},
};
