/*
 * Submitters without room: those that block are all served or told, and what the other policies promise holds.
 */
#include "ledger.h"

#include <errno.h>

#define MS INT64_C(1000000)

static void submit_pair(void *arg)
{
    struct chore *job = arg;

    job_submit(&job[0]);
    job_submit(&job[1]);
}

/* Strict capacity: every submitter beyond it blocks, and each end of a task lets the next one in. */
static void blocked(void)
{
    open_pool(1 + choose(2), &(struct rp_pool_options){.min_workers = choose(2)});
    for (int i = 0; i < 6; i++)
        job_new();
    for (int i = 0; i < 6; i += 2)
        actor("submitter", submit_pair, &ledger.job[i]);
    actors_join();
    accepted_check();
    all_done();
    must(ledger.most <= ledger.capacity, "%u tasks ran at once", ledger.most);
    close_pool();
}

/* All of them sleep when the tasks end: the first call has to reach all, one after the other. */
static void blocked_asleep(void)
{
    struct gate hold = {0};
    unsigned depth = choose(2);

    open_pool(1, &(struct rp_pool_options){.queue_depth = depth});
    for (unsigned i = 0; i < 4 + depth; i++) {
        job_new()->waits = i <= depth ? &hold : NULL;
        ledger.job[i].priority = (int)choose(3);
    }
    for (unsigned i = 0; i <= depth; i++)
        job_submit(&ledger.job[i]);
    for (unsigned i = depth + 1; i < 4 + depth; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    settle(false);
    gate_open(&hold);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Tasks of blocked submitters that need one another: all the room is used, not only the first piece. */
static void blocked_dependent(void)
{
    struct gate hold = {0}, started = {0};

    open_pool(2, NULL);
    for (int i = 0; i < 2; i++)
        job_new()->waits = &hold;
    job_new()->waits = &started;
    job_new()->opens = &started;
    job_submit(&ledger.job[0]);
    job_submit(&ledger.job[1]);
    actor("submit2", submit_job, &ledger.job[2]);
    actor("submit3", submit_job, &ledger.job[3]);
    if (chance(2))
        settle(false);
    gate_open(&hold);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

static void submit_soon(void *arg)
{
    int rc = job_submit_until(arg, model_now() + (1 + choose(3)) * MS);

    must(rc == 0 || rc == -ETIMEDOUT, "submit_until: %d", rc);
}

static void open_late(void *arg)
{
    model_sleep((1 + choose(3)) * MS);
    gate_open(arg);
}

/* One that gives up takes no call with it that another one needs. */
static void blocked_deadline(void)
{
    struct gate hold = {0};

    open_pool(1, &(struct rp_pool_options){.queue_depth = choose(2)});
    for (int i = 0; i < 5; i++)
        job_new();
    ledger.job[0].waits = &hold;
    job_submit(&ledger.job[0]);
    actor("soon1", submit_soon, &ledger.job[1]);
    actor("submit2", submit_job, &ledger.job[2]);
    actor("soon3", submit_soon, &ledger.job[3]);
    actor("submit4", submit_job, &ledger.job[4]);
    actor("opener", open_late, &hold);
    settle(true);
    actors_join();
    must(ledger.job[2].rc == 0 && ledger.job[4].rc == 0, "those without a deadline: %d, %d", ledger.job[2].rc,
         ledger.job[4].rc);
    all_done();
    close_pool();
}

/* So many may block, the next is told; and the number is given back. */
static void max_blocking(void)
{
    struct gate hold = {0};
    unsigned refused = 0;

    open_pool(1, &(struct rp_pool_options){.max_blocking = 1});
    for (int i = 0; i < 5; i++)
        job_new();
    ledger.job[0].waits = &hold;
    job_submit(&ledger.job[0]);
    for (int i = 1; i < 4; i++)
        actor("submitter", submit_job, &ledger.job[i]);
    settle(false);
    for (int i = 1; i < 4; i++)
        refused += ledger.job[i].submitted && ledger.job[i].rc == -EAGAIN;
    must(refused == 2, "%u of 3 were refused, one may block", refused);
    gate_open(&hold);
    settle(false);
    actor("submitter", submit_job, &ledger.job[4]);
    actors_join();
    must(ledger.job[4].rc == 0, "nobody blocks any more: %d", ledger.job[4].rc);
    all_done();
    close_pool();
}

static void submit_next(struct chore *job)
{
    job_submit(job + 1);
}

/*
 * Workers that block in submit are stood in for: their tasks' tasks run; told is only one who finds no stand-in left.
 */
static void blocked_inside(void)
{
    unsigned extra = 1 + choose(3); /* three of the tasks submit: with three stand-ins nobody need be told */

    open_pool(1 + choose(2), &(struct rp_pool_options){.queue_depth = choose(2), .max_extra = extra});
    for (int i = 0; i < 6; i++)
        job_new()->inside = i % 2 ? NULL : submit_next;
    for (int i = 0; i < 6; i += 2)
        actor("submitter", submit_job, &ledger.job[i]);
    actors_join();
    settle(false);
    for (int i = 0; i < 6; i++)
        must(ledger.job[i].rc == 0 || (i % 2 && extra < 3 && ledger.job[i].rc == -EDEADLK),
             "job %d with %u stand-ins: %d", i, extra, ledger.job[i].rc);
    all_done();
    close_pool();
}

static void tune_one(void *arg)
{
    (void)arg;
    int rc = rp_pool_tune(ledger.pool, 1);
    must(rc == 0, "tune: %d", rc);
}

/* The target shrinks to the workers that block: they are told, or stood in for, but do not hang. */
static void blocked_inside_tune(void)
{
    open_pool(3, &(struct rp_pool_options){.max_extra = 1 + choose(3), .min_workers = choose(2)});
    for (int i = 0; i < 6; i++)
        job_new()->inside = i % 2 ? NULL : submit_next;
    for (int i = 0; i < 6; i += 2)
        actor("submitter", submit_job, &ledger.job[i]);
    actor("tune", tune_one, NULL);
    actors_join();
    settle(false);
    for (int i = 0; i < 6; i++)
        must(ledger.job[i].rc == 0 || (i % 2 && ledger.job[i].rc == -EDEADLK), "job %d: %d", i, ledger.job[i].rc);
    all_done();
    close_pool();
}

static struct gate all_in, doors;

/* Three workers where one may be: each has said that it blocks, which is over when all are in. */
static void submit_from_the_crowd(struct chore *job)
{
    rp_blocking_begin();
    if (ledger.running == 3)
        gate_open(&all_in);
    gate_wait(&all_in);
    rp_blocking_end();
    gate_wait(&doors);
    job_submit(job + 3);
}

/*
 * All three submit, and two are stood in for: the second stand-in is what makes room, for an outsider who stands before
 * them. Whoever found no room and joins while it is there must not sleep on when the outsider has taken it.
 */
static void blocked_inside_crowd(void)
{
    all_in = doors = (struct gate){0};
    open_pool(1, &(struct rp_pool_options){.queue_depth = 1, .max_extra = 2});
    for (int i = 0; i < 7; i++)
        job_new()->inside = i < 3 ? submit_from_the_crowd : NULL;
    for (int i = 0; i < 3; i++)
        job_submit(&ledger.job[i]);
    settle(false);
    actor("outsider", submit_job, &ledger.job[6]);
    settle(false);
    gate_open(&doors);
    actors_join();
    settle(false);
    for (int i = 0; i < 7; i++)
        must(ledger.job[i].rc == 0 || (i >= 3 && i < 6 && ledger.job[i].rc == -EDEADLK), "job %d: %d", i,
             ledger.job[i].rc);
    all_done();
    close_pool();
}

static void block_in(struct chore *job)
{
    (void)job;
    rp_blocking_begin();
}

/* A task that says that it blocks is stood in for; one that forgets the end has it ended. */
static void blocking_hint(void)
{
    struct gate started = {0};

    open_pool(1, &(struct rp_pool_options){.min_workers = choose(2), .max_extra = 2});
    job_new()->waits = &started;
    ledger.job[0].inside = block_in;
    job_new()->opens = &started;
    ledger.job[1].inside = chance(2) ? block_in : NULL;
    job_new();
    ledger.job[chance(2)].panics = chance(3);
    actor("submit0", submit_job, &ledger.job[0]);
    settle(false);
    actor("submit1", submit_job, &ledger.job[1]);
    actor("submit2", submit_job, &ledger.job[2]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

static void submit_batch_three(void *arg)
{
    int rc = jobs_submit_batch(arg, 3);

    must(rc == 3, "the batch: %d", rc);
}

/* Batches that block half way beside single submitters. */
static void blocked_batch(void)
{
    open_pool(1 + choose(2), &(struct rp_pool_options){.queue_depth = choose(2)});
    for (int i = 0; i < 6; i++)
        job_new();
    actor("batch", submit_batch_three, &ledger.job[0]);
    actor("submit3", submit_job, &ledger.job[3]);
    actor("pair", submit_pair, &ledger.job[4]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* The policies that do not block, beside one that does. */
static void policies(void)
{
    static const int overloads[] = {RP_OVERLOAD_BLOCK, RP_OVERLOAD_DISCARD_NEWEST, RP_OVERLOAD_DISCARD_OLDEST,
                                    RP_OVERLOAD_CALLER_RUNS, RP_OVERLOAD_FAIL};

    open_pool(1, &(struct rp_pool_options){.queue_depth = choose(3)});
    for (int i = 0; i < 5; i++) {
        job_new()->overload = overloads[choose(5)];
        ledger.job[i].priority = (int)choose(3);
        actor("submitter", submit_job, &ledger.job[i]);
    }
    actors_join();
    for (int i = 0; i < 5; i++)
        must(ledger.job[i].rc == 0 ||
                 (ledger.job[i].rc == -EAGAIN &&
                  (ledger.job[i].overload == RP_OVERLOAD_FAIL || ledger.job[i].overload == RP_OVERLOAD_DISCARD_OLDEST)),
             "job %d with policy %d: %d", i, ledger.job[i].overload, ledger.job[i].rc);
    all_done();
    close_pool();
}

const struct scenario scenarios_room[] = {
    {"blocked", "at strict capacity every blocked submitter is served", blocked},
    {"blocked-asleep", "one call reaches all that sleep, one after the other", blocked_asleep},
    {"blocked-dependent", "all the room is given to those that block", blocked_dependent},
    {"blocked-deadline", "one that gives up takes no call with it", blocked_deadline},
    {"max-blocking", "so many may block, the next is told", max_blocking},
    {"blocked-inside", "workers that block in submit are stood in for or told", blocked_inside},
    {"blocked-inside-tune", "the same while the pool shrinks", blocked_inside_tune},
    {"blocked-inside-crowd", "the same while outsiders block before them", blocked_inside_crowd},
    {"blocking-hint", "a task that says that it blocks is stood in for", blocking_hint},
    {"blocked-batch", "batches that block beside single submitters", blocked_batch},
    {"policies", "discard, caller-runs and fail beside a blocked submitter", policies},
    {0},
};
