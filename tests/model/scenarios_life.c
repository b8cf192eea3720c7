/*
 * The life of a pool: expiry, release, reboot, tune and destroy, each racing with submitters and with one another.
 */
#include "ledger.h"

#include "pool/pool.h"

#include <errno.h>

#define MS INT64_C(1000000)

static void submit_several(void *arg)
{
    struct chore *job = arg;

    for (int i = 0; i < 2; i++) {
        job_submit(&job[i]);
        if (chance(2))
            model_sleep(choose(3) * MS);
    }
}

/* --- expiry ----------------------------------------------------------------------------------------------------- */

/* The ticker takes the stack while tasks come: an expired worker is not one that a submitter counted on. */
static void expiry_handoff(void)
{
    open_pool(2, &(struct rp_pool_options){.queue_depth = choose(3), .expiry_ns = MS, .min_workers = 0});
    for (int i = 0; i < 4; i++)
        job_new();
    for (int i = 0; i < 4; i += 2)
        actor("submitter", submit_several, &ledger.job[i]);
    actors_join();
    accepted_check();
    all_done();
    settle(true);
    must(rp_pool_running(ledger.pool) == 0, "%u workers did not expire", rp_pool_running(ledger.pool));
    rest_check();
    close_pool();
}

/* The same with tasks that need one another, parked workers at the start and a minimum that must stay. */
static void expiry_minimum(void)
{
    struct gate started = {0};
    unsigned least = 1 + choose(2);

    open_pool(3, &(struct rp_pool_options){.prealloc = true, .expiry_ns = MS, .min_workers = least});
    job_new()->waits = &started;
    job_new()->opens = &started;
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_job, &ledger.job[1]);
    actors_join();
    accepted_check();
    all_done();
    must(rp_pool_running(ledger.pool) >= least, "%u workers of the minimum", rp_pool_running(ledger.pool));
    settle(true);
    must(rp_pool_running(ledger.pool) == least, "%u workers, %u are the minimum", rp_pool_running(ledger.pool), least);
    rest_check();
    close_pool();
}

static void call_beside(void *unused)
{
    (void)unused;
    for (int i = 0; i < 4; i++) {
        (void)idle_call_beside(ledger.pool->handle.core);
        model_yield();
    }
}

/*
 * Who waits for room calls one more beside those that search, in any state of the pool, while workers expire and their
 * descriptors are freed: it is one call more, and tasks that need one another get their workers as without it.
 */
static void beside(void)
{
    struct gate started = {0};

    open_pool(3, &(struct rp_pool_options){.queue_depth = choose(3), .expiry_ns = MS, .min_workers = choose(3)});
    job_new()->waits = &started;
    job_new()->opens = &started;
    for (int i = 0; i < 2; i++)
        job_new();
    actor("submitter", submit_several, &ledger.job[0]);
    actor("submitter", submit_several, &ledger.job[2]);
    actor("beside", call_beside, NULL);
    actors_join();
    accepted_check();
    all_done();
    settle(true);
    rest_check();
    close_pool();
}

/* --- release ---------------------------------------------------------------------------------------------------- */

/* What was accepted before the release runs, what comes later is told so, and no worker stays. */
static void release_submit(void)
{
    open_pool(2, &(struct rp_pool_options){.queue_depth = choose(2) * 4, .min_workers = choose(3)});
    for (int i = 0; i < 3; i++)
        job_new();
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_job, &ledger.job[1]);
    actor("release", release, NULL);
    if (chance(2))
        actor("release2", release, NULL);
    actors_join();
    must(job_submit(&ledger.job[2]) == -ESHUTDOWN, "a submit after the release: %d", ledger.job[2].rc);
    released();
    for (int i = 0; i < 2; i++)
        must(ledger.job[i].rc == 0 || ledger.job[i].rc == -ESHUTDOWN, "submit: %d", ledger.job[i].rc);
    close_pool();
}

/* Submitters that block are told, whoever is first. */
static void release_blocked(void)
{
    struct gate hold = {0};

    open_pool(1, &(struct rp_pool_options){.min_workers = choose(2)});
    job_new()->waits = &hold;
    job_submit(&ledger.job[0]);
    settle(false);
    for (int i = 1; i < 4; i++) {
        job_new();
        actor("submitter", submit_job, &ledger.job[i]);
    }
    if (chance(2))
        settle(false);
    actor("release", release, NULL);
    actors_join();
    gate_open(&hold);
    released();
    close_pool();
}

/* Queued tasks are dropped by the release, or by whoever meets them; each once. */
static void release_drop(void)
{
    open_pool(1, &(struct rp_pool_options){.queue_depth = 4, .release_policy = RP_RELEASE_DROP});
    for (int i = 0; i < 4; i++)
        job_new()->deadline = FOREVER; /* a task with all its fields, or the drop is silent */
    for (int i = 0; i < 4; i += 2)
        actor("submitter", submit_several, &ledger.job[i]);
    actor("release", release, NULL);
    actors_join();
    released();
    close_pool();
}

static void release_until(void *arg)
{
    struct rp_release_report report;
    int *rc = arg;
    unsigned reboots = ledger.reboots;

    *rc = rp_pool_release_until(ledger.pool, chance(2) ? 0 : model_now() + 5 * MS, &report);
    must(*rc == 0 || *rc == -ETIMEDOUT || *rc == -ESHUTDOWN, "release_until: %d", *rc);
    if (*rc == 0 && ledger.reboots == reboots) /* what runs after a reboot is of the next life */
        must(ledger.running == 0, "release_until has returned while %u tasks run", ledger.running);
}

/* Two wait for the end; it comes when the last worker has left, or the deadline is told. */
static void release_await(void)
{
    struct gate hold = {0};
    int rc[2];

    open_pool(2, &(struct rp_pool_options){.queue_depth = 2, .min_workers = choose(2)});
    for (int i = 0; i < 2; i++)
        job_new();
    ledger.job[0].waits = chance(2) ? &hold : NULL;
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_job, &ledger.job[1]);
    actor("await0", release_until, &rc[0]);
    actor("await1", release_until, &rc[1]);
    settle(true);
    gate_open(&hold);
    actors_join();
    released();
    close_pool();
}

static void help_inside(struct chore *job)
{
    int rc = rp_pool_release_until(ledger.pool, 0, NULL);

    must(rc == 0, "release_until inside: %d", rc);
    (void)job;
}

/* Tasks that wait for the end themselves run what is queued, and do not wait for each other. */
static void release_inside(void)
{
    open_pool(1 + choose(2), &(struct rp_pool_options){.queue_depth = 3, .min_workers = choose(2)});
    for (int i = 0; i < 4; i++)
        job_new()->inside = i == 0 || (i == 1 && chance(2)) ? help_inside : NULL;
    for (int i = 0; i < 4; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    actors_join();
    settle(true); /* a position that is claimed and not published is looked for again after a while */
    released();
    close_pool();
}

/* --- reboot ----------------------------------------------------------------------------------------------------- */

static void reboot(void *arg)
{
    ledger.reboots++;
    int rc = rp_pool_reboot(ledger.pool);

    (void)arg;
    must(rc == 0, "reboot: %d", rc);
}

/* Opened again while it drains: in whatever order they come, a pool that is open at the end takes tasks. */
static void reboot_release(void)
{
    unsigned least = choose(3);
    int rc;

    open_pool(2, &(struct rp_pool_options){.queue_depth = 2, .min_workers = least});
    for (int i = 0; i < 4; i++)
        job_new();
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_job, &ledger.job[1]);
    actor("release", release, NULL);
    actor("reboot", reboot, NULL);
    if (chance(2))
        actor("await", release_until, &rc);
    settle(true);
    if (rp_pool_is_closed(ledger.pool))
        reboot(NULL);
    actors_join();
    for (int i = 2; i < 4; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    settle(false);
    actors_join();
    for (int i = 2; i < 4; i++)
        must(ledger.job[i].rc == 0, "a submit after the reboot: %d", ledger.job[i].rc);
    settle(false);
    fates_check();
    rest_check();
    must(rp_pool_running(ledger.pool) >= least, "%u workers after the reboot, the minimum is %u",
         rp_pool_running(ledger.pool), least);
    close_pool();
}

/* --- tune ------------------------------------------------------------------------------------------------------- */

static void tune(void *arg)
{
    int rc = rp_pool_tune(ledger.pool, *(unsigned *)arg);

    must(rc == 0, "tune: %d", rc);
}

/* Shrunk while every worker is busy or about to park: the surplus leaves, and no task is left behind. */
static void tune_down(void)
{
    unsigned one = 1, two = 2;

    open_pool(3, &(struct rp_pool_options){.queue_depth = 2, .prealloc = chance(2)});
    for (int i = 0; i < 4; i++)
        job_new();
    actor("submit0", submit_several, &ledger.job[0]);
    actor("submit2", submit_several, &ledger.job[2]);
    actor("tune", tune, chance(2) ? &one : &two);
    if (chance(2))
        actor("tune2", tune, &two);
    settle(true);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Two shrink parked workers at once, or one does while the ticker holds the stack: none stays above the target. */
static void tune_parked(void)
{
    unsigned one = 1, two = 2;
    bool ticks = chance(2);

    open_pool(3, &(struct rp_pool_options){.prealloc = true, .expiry_ns = ticks ? MS : 0, .min_workers = ticks});
    if (chance(2))
        settle(false);
    if (ticks)
        model_sleep(MS - MS / 8);
    actor("tune1", tune, &one);
    if (!ticks)
        actor("tune2", tune, &two);
    settle(false); /* no time for the ticker to come again */
    actors_join();
    all_done();
    close_pool();
}

/* Grown while submitters block: the new room is theirs. */
static void tune_up(void)
{
    struct gate hold = {0};
    unsigned capacity = 2 + choose(2);

    open_pool(1, &(struct rp_pool_options){.min_workers = choose(2)});
    for (int i = 0; i < 3; i++) {
        job_new()->waits = &hold;
        actor("submitter", submit_job, &ledger.job[i]);
    }
    if (chance(2))
        settle(false);
    actor("tune", tune, &capacity);
    settle(false);
    must(ledger.running == capacity, "%u tasks run at a capacity of %u", ledger.running, capacity);
    gate_open(&hold);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Shrunk below and grown again, with dependent tasks on the way. */
static void tune_both(void)
{
    struct gate started = {0};
    unsigned one = 1, three = 3;

    open_pool(2, &(struct rp_pool_options){.queue_depth = 2, .prealloc = chance(2)});
    job_new()->waits = &started;
    job_new()->opens = &started;
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_job, &ledger.job[1]);
    actor("shrink", tune, &one);
    settle(true);
    actor("grow", tune, &three);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* --- destroy ---------------------------------------------------------------------------------------------------- */

static void destroy(void *arg)
{
    int *rc = arg;

    *rc = rp_pool_destroy(ledger.pool);
    must(*rc == 0 || *rc == -EALREADY, "destroy: %d", *rc);
}

/* Calls that have begun meet a pool that goes away: none touches what is freed, and what it accepted has run. */
static void destroy_submit(void)
{
    int rc[2];

    open_pool(2, &(struct rp_pool_options){
                     .queue_depth = choose(2) * 2, .min_workers = choose(2), .expiry_ns = chance(2) ? MS : 0});
    for (int i = 0; i < 3; i++)
        job_new();
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_several, &ledger.job[1]);
    actor("destroy0", destroy, &rc[0]);
    bool twice = chance(2);
    if (twice)
        actor("destroy1", destroy, &rc[1]);
    settle(true);
    actors_join();
    fates_check();
    must(!twice || (rc[0] == 0) != (rc[1] == 0), "two destroys say %d and %d", rc[0], rc[1]);
}

static unsigned two_workers = 2;

static void tune_any(void *arg)
{
    (void)arg;
    int rc = rp_pool_tune(ledger.pool, two_workers);
    must(rc == 0 || rc == -ESHUTDOWN, "tune: %d", rc);
}

static void reboot_any(void *arg)
{
    (void)arg;
    int rc = rp_pool_reboot(ledger.pool);
    must(rc == 0 || rc == -ESHUTDOWN, "reboot: %d", rc);
}

static void look_any(void *arg)
{
    struct rp_pool_snapshot snapshot;
    struct rp_worker_info info[2];

    (void)arg;
    (void)rp_pool_running(ledger.pool);
    (void)rp_pool_workers(ledger.pool, info, 2);
    int rc = rp_pool_snapshot(ledger.pool, &snapshot);
    must(rc == 0 || rc == -ESHUTDOWN, "snapshot: %d", rc);
}

static void release_any(void *arg)
{
    (void)arg;
    int rc = rp_pool_release(ledger.pool);
    must(rc == 0 || rc == -ESHUTDOWN, "release: %d", rc);
}

static void await_any(void *arg)
{
    (void)arg;
    int rc = rp_pool_release_until(ledger.pool, 0, NULL);
    must(rc == 0 || rc == -ESHUTDOWN, "release_until: %d", rc);
}

/* Everything else that may race with a destroy. */
static void destroy_calls(void)
{
    static void (*const calls[])(void *arg) = {tune_any, reboot_any, look_any, release_any, await_any};
    int rc;

    open_pool(1,
              &(struct rp_pool_options){.queue_depth = 2, .min_workers = choose(2), .expiry_ns = chance(2) ? MS : 0});
    job_new();
    actor("submit", submit_job, &ledger.job[0]);
    for (int i = 0; i < 2; i++)
        actor("call", calls[choose(5)], NULL);
    actor("destroy", destroy, &rc);
    settle(true);
    actors_join();
    fates_check();
}

static void destroy_from_task(struct chore *job)
{
    int rc = rp_pool_destroy(ledger.pool);

    (void)job;
    must(rc == 0 || rc == -EALREADY, "destroy inside: %d", rc);
}

/* Deferred: the reactor frees the pool when the last task has ended, and nobody is left. */
static void destroy_inside(void)
{
    open_pool(1 + choose(2), &(struct rp_pool_options){.queue_depth = 2, .min_workers = choose(2)});
    for (int i = 0; i < 3; i++) {
        job_new()->inside = i == 0 || (i == 1 && chance(3)) ? destroy_from_task : NULL;
        actor("submitter", submit_job, &ledger.job[i]);
    }
    settle(true);
    actors_join();
    fates_check();
}

const struct scenario scenarios_life[] = {
    {"expiry-handoff", "the ticker and submitters: no task is stranded, all workers expire", expiry_handoff},
    {"expiry-minimum", "the same with dependent tasks and a minimum that stays", expiry_minimum},
    {"call-beside", "one more is called beside those that search, while workers expire", beside},
    {"release-submit", "release and submit: what was accepted runs, no worker stays", release_submit},
    {"release-blocked", "release tells every blocked submitter", release_blocked},
    {"release-drop", "each queued task is dropped once, or has run", release_drop},
    {"release-await", "two wait for the end of a pool", release_await},
    {"release-inside", "tasks that wait for the end help, and do not wait for each other", release_inside},
    {"reboot-release", "reboot and release in any order", reboot_release},
    {"tune-down", "a shrinking pool strands no task and keeps no surplus", tune_down},
    {"tune-parked", "two that shrink, or one and the ticker, leave no surplus", tune_parked},
    {"tune-up", "the room of a growing pool goes to those that block", tune_up},
    {"tune-both", "shrunk and grown around dependent tasks", tune_both},
    {"destroy-submit", "destroy and submit: no freed memory is touched", destroy_submit},
    {"destroy-calls", "destroy and every other call", destroy_calls},
    {"destroy-inside", "a destroy inside a task is done by the reactor", destroy_inside},
    {0},
};
