/*
 * What a submit does without room: each overload policy, from the pool's options and from the task, and the precedence
 * of the one over the other.
 */
#include "gates.h"

enum { DEPTH = 3 };

/* A pool of one worker, held by the gate, whose queue is full of the fates given, in their order. */
static struct rp_pool *full_pool(int overload, struct gate *gate, struct fate queued[DEPTH])
{
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = DEPTH, .overload = overload});

    occupy(pool, gate, 1);
    for (int i = 0; i < DEPTH; i++) {
        struct rp_task task = fated(&queued[i]);
        cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    }
    return pool;
}

static int submit_fated(struct rp_pool *pool, struct fate *fate, int overload, int priority)
{
    struct rp_task task = fated(fate);

    task.overload = overload;
    task.priority = priority;
    return rp_pool_submit_task(pool, &task);
}

/* The pool's policy when `by_pool`, else the task's, against a pool that would do something else. */
static struct rp_pool *full_pool_with(int overload, bool by_pool, struct gate *gate, struct fate queued[DEPTH])
{
    return full_pool(by_pool                        ? overload
                     : overload == RP_OVERLOAD_FAIL ? RP_OVERLOAD_DISCARD_NEWEST
                                                    : RP_OVERLOAD_FAIL,
                     gate, queued);
}

/* NOLINTNEXTLINE(bugprone-macro-parentheses): the argument is a name that is declared, not an expression. */
#define BY_POOL_AND_BY_TASK(by_pool) for (int by_pool = 0; by_pool <= 1; by_pool++)

Test(overload, fail_returns_eagain_and_leaves_the_task_with_its_caller)
{
    BY_POOL_AND_BY_TASK(by_pool)
    {
        struct gate gate = GATE_SHUT;
        struct fate queued[DEPTH] = {0}, incoming = {0};
        struct rp_pool *pool = full_pool_with(RP_OVERLOAD_FAIL, by_pool, &gate, queued);

        cr_assert_eq(submit_fated(pool, &incoming, by_pool ? RP_OVERLOAD_DEFAULT : RP_OVERLOAD_FAIL, 0), -EAGAIN);
        cr_assert_eq(snapshot_of(pool).rejected, 1);
        gate_open(&gate);
        finish(pool);
        cr_assert_eq(incoming.ran + incoming.dropped, 0);
        for (int i = 0; i < DEPTH; i++)
            cr_assert(queued[i].ran == 1 && queued[i].dropped == 0);
    }
}

Test(overload, discard_newest_accepts_the_incoming_task_and_drops_it)
{
    BY_POOL_AND_BY_TASK(by_pool)
    {
        struct gate gate = GATE_SHUT;
        struct fate queued[DEPTH] = {0}, incoming = {0};
        struct rp_pool *pool = full_pool_with(RP_OVERLOAD_DISCARD_NEWEST, by_pool, &gate, queued);

        cr_assert_eq(submit_fated(pool, &incoming, by_pool ? RP_OVERLOAD_DEFAULT : RP_OVERLOAD_DISCARD_NEWEST, 0), 0);
        cr_assert_eq(incoming.dropped, 1); /* before submit returned */
        cr_assert_eq(incoming.reason, -EAGAIN);
        cr_assert_eq(snapshot_of(pool).dropped, 1);
        cr_assert_eq(snapshot_of(pool).rejected, 0);
        gate_open(&gate);
        finish(pool);
        cr_assert_eq(incoming.ran, 0);
        cr_assert_eq(incoming.dropped, 1);
        for (int i = 0; i < DEPTH; i++)
            cr_assert(queued[i].ran == 1 && queued[i].dropped == 0);
    }
}

Test(overload, discard_oldest_drops_the_queued_task_that_waits_longest)
{
    BY_POOL_AND_BY_TASK(by_pool)
    {
        struct gate gate = GATE_SHUT;
        struct fate queued[DEPTH] = {0}, incoming[2] = {0};
        struct rp_pool *pool = full_pool_with(RP_OVERLOAD_DISCARD_OLDEST, by_pool, &gate, queued);

        for (int i = 0; i < 2; i++) {
            int rc = submit_fated(pool, &incoming[i], by_pool ? RP_OVERLOAD_DEFAULT : RP_OVERLOAD_DISCARD_OLDEST, 0);
            cr_assert_eq(rc, 0);
            cr_assert_eq(queued[i].dropped, 1);
            cr_assert_eq(queued[i].reason, -EAGAIN);
            cr_assert_eq(snapshot_of(pool).waiting, DEPTH);
        }
        gate_open(&gate);
        finish(pool);
        cr_assert(queued[2].ran == 1 && queued[2].dropped == 0);
        for (int i = 0; i < 2; i++) {
            cr_assert(queued[i].ran == 0 && queued[i].dropped == 1);
            cr_assert(incoming[i].ran == 1 && incoming[i].dropped == 0);
        }
    }
}

Test(overload, discard_oldest_takes_the_lowest_class_first)
{
    static struct gate gate = GATE_SHUT;
    static const int class[5] = {RP_PRIO_HIGH, RP_PRIO_NORMAL, RP_PRIO_LOW, RP_PRIO_NORMAL, RP_PRIO_LOW};
    static const int order[5] = {2, 4, 1, 3, 0};
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 5});
    struct fate queued[5] = {0}, incoming = {0};

    occupy(pool, &gate, 1);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(submit_fated(pool, &queued[i], 0, class[i]), 0);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(submit_fated(pool, &incoming, RP_OVERLOAD_DISCARD_OLDEST, RP_PRIO_HIGH), 0);
        for (int k = 0; k < 5; k++)
            cr_assert_eq(queued[order[k]].dropped, k <= i);
    }
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(incoming.ran, 5);
}

Test(overload, discard_oldest_fails_when_nothing_is_queued)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.overload = RP_OVERLOAD_DISCARD_OLDEST});
    struct fate incoming = {0};

    occupy(pool, &gate, 2);
    cr_assert_eq(submit_fated(pool, &incoming, 0, 0), -EAGAIN);
    cr_assert_eq(submit_fated(pool, &incoming, 0, RP_PRIO_LOW), -EAGAIN);
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(incoming.ran + incoming.dropped, 0);
}

/* Adversary: six threads discard each other's tasks. A task leaves the queue by one compare-and-swap: one fate each. */
Test(overload, tasks_that_discard_each_other_meet_exactly_one_fate_each)
{
    enum { THREADS = 6, EACH = 40 };
    static struct gate gate = GATE_SHUT;
    static struct fate fate[THREADS * EACH];
    static struct submitter all[THREADS * EACH];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 4});
    pthread_barrier_t start;
    unsigned ran = 0, dropped = 0;

    occupy(pool, &gate, 1);
    pthread_barrier_init(&start, NULL, THREADS);
    for (int round = 0; round < EACH; round++) {
        for (int i = round * THREADS; i < (round + 1) * THREADS; i++) {
            all[i] = (struct submitter){.pool = pool, .task = fated(&fate[i]), .start = &start};
            all[i].task.overload = RP_OVERLOAD_DISCARD_OLDEST;
            all[i].task.priority = i % 3;
            submitter_start(&all[i]);
        }
        for (int i = round * THREADS; i < (round + 1) * THREADS; i++)
            submitter_join(&all[i]);
    }
    cr_assert_leq(snapshot_of(pool).waiting, 4);
    gate_open(&gate);
    finish(pool);
    for (int i = 0; i < THREADS * EACH; i++) {
        cr_assert_eq(fate[i].ran + fate[i].dropped, all[i].rc == 0);
        ran += fate[i].ran;
        dropped += fate[i].dropped;
    }
    cr_assert_gt(ran, 0);
    cr_assert_leq(ran, 4);
    cr_assert_gt(dropped, 0);
}

/* --- caller runs ------------------------------------------------------------------------------------------------ */

Test(overload, caller_runs_runs_the_task_in_the_submitting_thread_before_submit_returns)
{
    BY_POOL_AND_BY_TASK(by_pool)
    {
        struct gate gate = GATE_SHUT;
        struct fate queued[DEPTH] = {0}, incoming = {0};
        struct rp_pool *pool = full_pool_with(RP_OVERLOAD_CALLER_RUNS, by_pool, &gate, queued);

        cr_assert_eq(submit_fated(pool, &incoming, by_pool ? RP_OVERLOAD_DEFAULT : RP_OVERLOAD_CALLER_RUNS, 0), 0);
        cr_assert_eq(incoming.ran, 1);
        cr_assert(pthread_equal(incoming.thread, pthread_self()));
        cr_assert_eq(snapshot_of(pool).completed, 1);
        gate_open(&gate);
        finish(pool);
        cr_assert(incoming.ran == 1 && incoming.dropped == 0);
        cr_assert(!pthread_equal(queued[0].thread, pthread_self()));
    }
}

Test(overload, caller_runs_hands_the_task_over_where_there_is_room)
{
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.overload = RP_OVERLOAD_CALLER_RUNS});
    struct fate fate = {0};

    cr_assert_eq(submit_fated(pool, &fate, 0, 0), 0);
    finish(pool);
    cr_assert_eq(fate.ran, 1);
    cr_assert_not(pthread_equal(fate.thread, pthread_self()));
}

struct panics {
    _Atomic unsigned n;
    char reason[64], label[64];
};

static void note_panic(void *user, const struct rp_panic_info *info)
{
    struct panics *panics = user;

    snprintf(panics->reason, sizeof(panics->reason), "%s", info->reason);
    snprintf(panics->label, sizeof(panics->label), "%s", info->label ? info->label : "");
    panics->n++;
}

static void panic_with_number(void *arg)
{
    rp_panic("number %d", *(int *)arg);
}

Test(overload, a_task_that_panics_in_its_caller_ends_the_task_and_not_the_caller)
{
    static struct gate gate = GATE_SHUT;
    static struct panics panics;
    struct rp_pool *pool = pool_of(
        1,
        &(struct rp_pool_options){.overload = RP_OVERLOAD_CALLER_RUNS, .on_panic = note_panic, .panic_user = &panics});
    int number = 42;
    struct rp_task task = {.fn = panic_with_number, .arg = &number, .label = "fragile"};

    occupy(pool, &gate, 1);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    cr_assert_eq(panics.n, 1);
    cr_assert_str_eq(panics.reason, "number 42");
    cr_assert_str_eq(panics.label, "fragile");
    cr_assert_eq(snapshot_of(pool).panicked, 1);
    gate_open(&gate);
    finish(pool);
}

struct nest {
    struct rp_pool *pool;
    int depth, panic_at;
    int entered, left;
    int wrong;
};

/* Submits itself again to the full pool, so that it runs in itself. */
static void nest_run(void *arg)
{
    struct nest *nest = arg;

    nest->entered++;
    if (nest->entered == nest->panic_at)
        rp_panic("level %d", nest->entered);
    if (nest->entered < nest->depth) {
        struct rp_task task = {.fn = nest_run, .arg = nest, .overload = RP_OVERLOAD_CALLER_RUNS};
        nest->wrong += rp_pool_submit_task(nest->pool, &task) != 0;
    }
    nest->left++;
}

Test(overload, caller_runs_nests)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, NULL);
    struct nest nest = {.pool = pool, .depth = 50};
    struct rp_task task = {.fn = nest_run, .arg = &nest, .overload = RP_OVERLOAD_CALLER_RUNS};

    occupy(pool, &gate, 1);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    cr_assert_eq(nest.entered, 50);
    cr_assert_eq(nest.left, 50);
    cr_assert_eq(nest.wrong, 0);
    gate_open(&gate);
    finish(pool);
}

Test(overload, a_panic_of_a_nested_task_ends_only_the_innermost)
{
    static struct gate gate = GATE_SHUT;
    static struct panics panics;
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.on_panic = note_panic, .panic_user = &panics});
    struct nest nest = {.pool = pool, .depth = 50, .panic_at = 20};
    struct rp_task task = {.fn = nest_run, .arg = &nest, .overload = RP_OVERLOAD_CALLER_RUNS};

    occupy(pool, &gate, 1);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    cr_assert_eq(nest.entered, 20);
    cr_assert_eq(nest.left, 19);
    cr_assert_eq(nest.wrong, 0);
    cr_assert_eq(panics.n, 1);
    cr_assert_str_eq(panics.reason, "level 20");
    gate_open(&gate);
    finish(pool);
}

/* The same on a worker: its only task fills the pool, so that what it submits runs in itself. */
Test(overload, a_worker_that_finds_its_own_pool_full_runs_the_task_itself)
{
    static struct panics panics;
    struct rp_pool *pool =
        pool_of(1, &(struct rp_pool_options){.on_panic = note_panic, .panic_user = &panics, .no_purge = true});
    static struct nest nest;

    nest = (struct nest){.pool = pool, .depth = 30, .panic_at = 30};
    cr_assert_eq(rp_pool_submit(pool, nest_run, &nest), 0);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    struct rp_pool_snapshot s = snapshot_of(pool);
    cr_assert_eq(s.completed, 29);
    cr_assert_eq(s.panicked, 1);
    cr_assert_eq(s.spawned, 1);
    finish(pool);
    cr_assert_eq(nest.left, 29);
    cr_assert_eq(nest.wrong, 0);
}

/* --- blocking --------------------------------------------------------------------------------------------------- */

Test(overload, a_task_may_block_on_a_pool_that_fails_by_default)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.overload = RP_OVERLOAD_FAIL});
    struct fate fate = {0};
    struct submitter blocked = {.pool = pool, .task = fated(&fate)};

    occupy(pool, &gate, 1);
    blocked.task.overload = RP_OVERLOAD_BLOCK;
    submitter_block(&blocked, 0);
    cr_assert_not(blocked.returned);
    gate_open(&gate);
    cr_assert_eq(submitter_join(&blocked), 0);
    finish(pool);
    cr_assert_eq(fate.ran, 1);
}

Test(overload, the_nonblocking_option_turns_every_blocking_submit_into_eagain)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.nonblocking = true});
    struct fate fate = {0};

    occupy(pool, &gate, 1);
    cr_assert_eq(rp_pool_submit(pool, fate_run, &fate), -EAGAIN);
    cr_assert_eq(rp_pool_try_submit(pool, fate_run, &fate), -EAGAIN);
    cr_assert_eq(rp_pool_submit_until(pool, fate_run, &fate, rp_after(PATIENCE_NS)), -EAGAIN);
    cr_assert_eq(submit_fated(pool, &fate, RP_OVERLOAD_DEFAULT, 0), -EAGAIN);
    cr_assert_eq(submit_fated(pool, &fate, RP_OVERLOAD_BLOCK, 0), -EAGAIN);
    cr_assert_eq(fate.ran + fate.dropped, 0);
    cr_assert_eq(submit_fated(pool, &fate, RP_OVERLOAD_CALLER_RUNS, 0), 0); /* which does not block */
    cr_assert_eq(fate.ran, 1);
    gate_open(&gate);
    finish(pool);
}

Test(overload, try_submit_fails_whatever_the_policy_of_the_pool)
{
    for (int overload = RP_OVERLOAD_DEFAULT; overload <= RP_OVERLOAD_CALLER_RUNS; overload++) {
        struct gate gate = GATE_SHUT;
        struct fate queued[DEPTH] = {0}, incoming = {0};
        struct rp_pool *pool = full_pool(overload, &gate, queued);

        cr_assert_eq(rp_pool_try_submit(pool, fate_run, &incoming), -EAGAIN);
        gate_open(&gate);
        finish(pool);
        cr_assert_eq(incoming.ran, 0);
        for (int i = 0; i < DEPTH; i++)
            cr_assert_eq(queued[i].ran, 1);
    }
}
