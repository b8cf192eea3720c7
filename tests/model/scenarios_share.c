/*
 * Shares: what a worker puts aside for itself is begun once, by it or by another, and hides nothing from anybody.
 */
#include "ledger.h"

#include <errno.h>

/* A pool whose workers are there and parked, or on their way. */
static void open_shares(unsigned workers, unsigned first, unsigned depth, unsigned queue)
{
    share_plan(first, depth);
    open_pool(workers, &(struct rp_pool_options){.queue_depth = queue, .prealloc = true});
    if (chance(2))
        settle(false);
}

static void submit_four(void *arg)
{
    struct chore *first = arg;
    int accepted = jobs_submit_batch(first, 4);

    for (int i = accepted > 0 ? accepted : 0; i < 4; i++)
        job_submit(&first[i]);
}

/* As a batch, or as one submit after the other. */
static void submit_all(struct chore *first)
{
    unsigned n = (unsigned)(&ledger.job[ledger.jobs] - first);

    if (chance(2)) {
        actor("batch", submit_batch, first);
        return;
    }
    for (unsigned i = 0; i < n; i++)
        actor("submitter", submit_job, &first[i]);
}

/* The first task of a share waits for its last one, for which another worker must come. */
static void dependent(void)
{
    struct gate started = {0};
    unsigned n = 2 + choose(3);

    open_shares(2 + choose(2), n, 0, 4);
    for (unsigned i = 0; i < n; i++)
        job_new();
    ledger.job[0].waits = &started;
    ledger.job[n - 1].opens = &started;
    submit_all(&ledger.job[0]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Two holders, thieves of both, and shares that are taken again and again. */
static void again(void)
{
    unsigned n = 6 + choose(4);

    open_shares(3, 2 + choose(3), choose(2), n);
    for (unsigned i = 0; i < n; i++)
        job_new();
    submit_all(&ledger.job[0]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Each task of a chain waits until the one behind it has started, in whatever share that is. */
static void chain(void)
{
    struct gate started[3] = {{0}};

    open_shares(4, 2 + choose(3), choose(2), 4);
    for (unsigned i = 0; i < 4; i++) {
        job_new()->waits = i < 3 ? &started[i] : NULL;
        ledger.job[i].opens = i ? &started[i - 1] : NULL;
    }
    submit_all(&ledger.job[0]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* The holder leaves with something in its share: by a panic, with its thread, or as one too many. */
static void tune_down(struct chore *job)
{
    (void)job;
    int rc = rp_pool_tune(ledger.pool, 1);
    must(rc == 0, "tune: %d", rc);
}

static void leaves(void)
{
    struct gate started = {0};
    unsigned how = choose(3);

    open_shares(2, 3, 0, 6);
    for (unsigned i = 0; i < 4; i++)
        job_new();
    ledger.job[0].panics = how == 0;
    ledger.job[0].exits = how == 1;
    ledger.job[0].inside = how == 2 ? tune_down : NULL;
    if (how != 2) {
        ledger.job[1].waits = &started;
        ledger.job[3].opens = &started;
    }
    submit_all(&ledger.job[0]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

static void submit_one_then_batch(void *arg)
{
    struct chore *job = arg;

    job_submit(job);
    submit_batch(job + 1);
}

/*
 * A worker comes from its task and takes a share of dependent tasks, while the one that was called for them finds
 * nothing at the head and parks. Both have run a task before, so that they know their submitter's CPU for their own and
 * do not look around.
 */
static void under_park(void)
{
    struct gate warm = {0}, hold = {0}, started = {0};

    share_plan(3, 0);
    open_pool(2, &(struct rp_pool_options){.queue_depth = 4, .prealloc = true});
    job_new()->waits = &warm;
    job_new()->opens = &warm;
    for (int i = 0; i < 2; i++)
        job_submit(&ledger.job[i]);
    settle(false);
    job_new()->waits = &hold;
    job_submit(&ledger.job[2]);
    settle(false);
    bool before = chance(2); /* one for the other worker, which is on its way to park when the rest comes */
    if (before)
        job_new();
    job_new()->waits = &started;
    job_new();
    job_new()->opens = &started;
    actor("batch", before ? submit_one_then_batch : submit_batch, &ledger.job[3]);
    actor("opener", open_gate, &hold);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/*
 * Two tasks of a share end, the first by the take of the second, that one by the next share. Both make room that is
 * needed: two submitters have blocked, of whom the last one's task is what all the others wait for.
 */
static void blocked(void)
{
    struct gate started = {0};

    share_plan(2, 0);
    open_pool(4, &(struct rp_pool_options){.prealloc = true});
    settle(false);
    for (unsigned i = 0; i < 6; i++)
        job_new()->waits = i < 2 || i == 5 ? NULL : &started;
    ledger.job[5].opens = &started;
    actor("batch", submit_four, &ledger.job[0]);
    for (unsigned i = 4; i < 6; i++)
        actor("blocked", submit_job, &ledger.job[i]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* The same with as few others as can be: one worker has a share of two, and a submitter blocks until the first ends. */
static void blocked_once(void)
{
    struct gate started = {0};

    share_plan(2, 0);
    open_pool(2, &(struct rp_pool_options){.prealloc = true});
    settle(false);
    job_new();
    job_new()->waits = &started;
    job_new()->opens = &started;
    jobs_submit_batch(&ledger.job[0], 2);
    actor("blocked", submit_job, &ledger.job[2]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

/* Inside a task: waits for the end of all others, those of its own share included. */
static void release_inside(struct chore *job)
{
    (void)job;
    int rc = rp_pool_release_until(ledger.pool, 0, NULL);
    must(rc == 0, "release_until inside: %d", rc);
}

static void helps(void)
{
    unsigned n = 2 + choose(2);

    open_shares(1 + choose(2), n, 0, 4);
    for (unsigned i = 0; i < n; i++)
        job_new();
    ledger.job[choose(2)].inside = release_inside;
    jobs_submit_batch(&ledger.job[0], n);
    accepted_check();
    settle(false);
    fates_check();
    close_pool();
}

/* What is in a share at a release is drained or dropped as what is queued. */
static void share_released(void)
{
    share_plan(2 + choose(3), 0);
    open_pool(2, &(struct rp_pool_options){
                     .queue_depth = 4, .min_workers = 2, .release_policy = chance(2) ? RP_RELEASE_DROP : 0});
    for (unsigned i = 0; i < 4; i++)
        job_new();
    actor("batch", submit_batch, &ledger.job[0]);
    actor("release", release, NULL);
    actors_join();
    released();
    close_pool();
}

static struct gate returned;

/* What the others wait for is that the last submit returns. */
static void submit_around(void *arg)
{
    struct chore *job = arg;

    jobs_submit_batch(job, 2);
    for (int i = 2; i < 10; i++)
        job_submit(&job[i]);
    gate_open(&returned);
}

/* A share's first task blocks while the ring goes round: what waits behind it takes no slot from others. */
static void round_about(void)
{
    returned = (struct gate){0};
    open_shares(2, 2, 0, 2); /* eight slots, four tasks in flight */
    for (unsigned i = 0; i < 10; i++)
        job_new()->waits = i == 0 || i == 8 ? &returned : NULL;
    actor("submitter", submit_around, &ledger.job[0]);
    actors_join();
    accepted_check();
    all_done();
    close_pool();
}

const struct scenario scenarios_share[] = {
    {"share-dependent", "a share's first task waits for its last", dependent},
    {"share-again", "shares taken and stolen from again and again", again},
    {"share-chain", "each task waits for the next", chain},
    {"share-leaves", "a holder that panics, exits or is one too many", leaves},
    {"share-under-park", "a worker parks while another takes a share of what it was called for", under_park},
    {"share-blocked", "ends of a share make room for what the others wait for", blocked},
    {"share-blocked-once", "an end within a share makes room for what its next task waits for", blocked_once},
    {"share-helps", "a task that waits for the end helps with its own share", helps},
    {"share-released", "a release drains or drops shares", share_released},
    {"share-round-about", "what waits in a share takes no slot from others", round_about},
    {0},
};
