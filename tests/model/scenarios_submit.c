/*
 * Submitters, the idle stack, the run queue and workers: no task is stranded, and none runs twice.
 */
#include "ledger.h"

#include <errno.h>

static void submit_three(void *arg)
{
    struct chore *job = arg;

    for (int i = 0; i < 3; i++)
        job_submit(&job[i]);
}

/* One submitter against workers that are about to park. */
static void park(void)
{
    open_pool(1 + choose(2), &(struct rp_pool_options){.queue_depth = 4, .min_workers = choose(2)});
    job_new();
    job_new();
    job_new();
    actor("submitter", submit_three, &ledger.job[0]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

static void two_submitters(void)
{
    open_pool(2, &(struct rp_pool_options){.queue_depth = choose(2) * 8, .min_workers = choose(3)});
    for (int i = 0; i < 4; i++)
        job_new();
    for (int i = 0; i < 2; i++)
        actor(i ? "submit1" : "submit0", submit_job, &ledger.job[i]);
    actors_join();
    for (int i = 2; i < 4; i++)
        actor(i == 3 ? "submit3" : "submit2", submit_job, &ledger.job[i]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Task 0 ends only when task 1 has started: "somebody is awake" is no excuse for not waking. */
static void dependent(void)
{
    struct gate started = {0};

    open_pool(2, &(struct rp_pool_options){.queue_depth = choose(2), .min_workers = choose(3)});
    job_new()->waits = &started;
    job_new()->opens = &started;
    if (chance(2)) { /* workers that have come and parked first */
        settle(false);
    }
    actor("submit0", submit_job, &ledger.job[0]);
    actor("submit1", submit_job, &ledger.job[1]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* The same with a chain of three, and with tasks before them that leave the workers in any state. */
static void dependent_chain(void)
{
    struct gate first = {0}, second = {0};

    open_pool(3, &(struct rp_pool_options){.queue_depth = choose(3), .min_workers = choose(4)});
    for (unsigned i = choose(3); i > 0; i--)
        job_submit(job_new());
    struct chore *job = &ledger.job[ledger.jobs];
    job_new()->waits = &first;
    job_new();
    job_new()->opens = &second;
    job[1].opens = &first;
    job[1].waits = &second;
    for (unsigned i = 0; i < 3; i++)
        actor("submitter", submit_job, &job[i]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* One wake-up decision for a batch of tasks that need each other: the wake chain has to do the rest. */
static void batch(void)
{
    struct gate started = {0};
    unsigned n = 2 + choose(2);

    open_pool(n + choose(2), &(struct rp_pool_options){.queue_depth = choose(4), .min_workers = choose(3)});
    for (unsigned i = 0; i < n; i++)
        job_new()->waits = &started;
    ledger.job[n - 1].waits = NULL;
    ledger.job[n - 1].opens = &started;
    actor("batch", submit_batch, &ledger.job[0]);
    actors_join();
    all_done();
    must(ledger.job[0].runs == 1, "nothing was accepted");
    close_pool();
}

static void submit_then_batch(void *arg)
{
    struct chore *job = arg;

    job_submit(&job[0]);
    jobs_submit_batch(&job[1], 2);
}

/*
 * One worker parks, another comes from its task and takes the first of two dependent tasks under the look of the one
 * that parks: what stands behind it was not seen by anybody else.
 */
static void parking_under_take(void)
{
    struct gate hold = {0}, started = {0};

    open_pool(2, &(struct rp_pool_options){.queue_depth = 2, .min_workers = 2});
    job_new()->waits = &hold;
    job_submit(&ledger.job[0]);
    settle(false);
    job_new();
    job_new()->waits = &started;
    job_new()->opens = &started;
    actor("submitter", submit_then_batch, &ledger.job[1]);
    actor("opener", open_gate, &hold);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Three classes, whose rings are made at their first use, while workers look at what there is. */
static void priorities(void)
{
    struct gate started = {0};

    open_pool(2, &(struct rp_pool_options){.queue_depth = 4, .min_workers = choose(3)});
    for (unsigned i = 0; i < 3; i++)
        job_new()->priority = (int)((i + choose(3)) % 3);
    ledger.job[0].waits = &started;
    ledger.job[1].opens = &started;
    for (unsigned i = 0; i < 3; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

static void try_job(void *arg)
{
    job_try(arg);
}

/*
 * Never more tasks at once than capacity, never more in flight than capacity and depth; the refused ones did nothing.
 */
static void bounded(void)
{
    struct gate hold = {0};
    unsigned depth = choose(2), capacity = 1 + choose(2);

    open_pool(capacity, &(struct rp_pool_options){.queue_depth = depth, .min_workers = choose(2)});
    for (unsigned i = 0; i < 4; i++) {
        job_new()->waits = &hold;
        actor("submitter", try_job, &ledger.job[i]);
    }
    actors_join();
    unsigned accepted = 0;
    for (unsigned i = 0; i < 4; i++)
        accepted += ledger.job[i].rc == 0;
    must(accepted == capacity + depth, "%u accepted of %u", accepted, capacity + depth);
    settle(false);
    must(ledger.running == capacity, "%u tasks run, %u may", ledger.running, capacity);
    gate_open(&hold);
    all_done();
    must(ledger.most <= capacity, "%u tasks ran at once", ledger.most);
    close_pool();
}

const struct scenario scenarios_submit[] = {
    {"park", "one submitter, workers about to park: no task is stranded", park},
    {"two-submitters", "two submitters, twice: no task is stranded", two_submitters},
    {"dependent", "a task that waits for another to start is no reason to wake nobody", dependent},
    {"dependent-chain", "three such tasks, on a pool in any state", dependent_chain},
    {"batch", "one wake-up decision for a batch whose tasks need each other", batch},
    {"parking-under-take", "a worker that parks sees past the task that another one takes", parking_under_take},
    {"priorities", "classes whose rings appear while workers look", priorities},
    {"bounded", "never more in flight than capacity and depth, and so many always", bounded},
    {0},
};
