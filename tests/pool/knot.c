/*
 * Knots: tasks that sleep for one another, in submits and in waits, over one pool and over two. What can come is waited
 * for, what cannot is -EDEADLK, and nothing hangs. No more than the spent max_extra stands in, so that nothing helps.
 */
#include "pool/life.h"

#include <ringpool/future.h>

#define ROUNDS 30

static void nothing(void *arg)
{
    (void)arg;
}

static int at_gate(void *arg, void **value)
{
    (void)value;
    gate_pass(arg);
    return 7;
}

/* One task of a scene: takes the one stand-in of its pool if it is to, and then waits for a future, or for room. */
struct part {
    struct rp_pool *room;      /* NULL: it waits for */
    struct rp_future **future; /* this */
    struct gate *gate;         /* before either */
    int64_t patience;          /* 0: none */
    bool spends;
    _Atomic uint32_t ready, done;
    int rc;
};

static void play(void *arg)
{
    struct part *part = arg;
    int64_t deadline = part->patience ? rp_after(part->patience) : 0;

    if (part->spends && rp_blocking_begin())
        part->rc = -EPROTO;
    store_seq(&part->ready, 1);
    gate_pass(part->gate);
    part->rc = part->room ? rp_pool_submit_until(part->room, nothing, NULL, deadline)
                          : rp_future_get_until(*part->future, NULL, deadline);
    store_seq(&part->done, 1);
}

static int play_part(void *arg, void **value)
{
    (void)value;
    play(arg);
    return 0;
}

static void part_start(struct part *part, struct rp_pool *pool)
{
    cr_assert_eq(rp_pool_submit(pool, play, part), 0);
    AWAIT(load_seq(&part->ready) == 1);
}

static bool any_done(struct part *part, int n)
{
    for (int i = 0; i < n; i++)
        if (load_seq(&part[i].done))
            return true;
    return false;
}

static struct rp_pool *pool_of_two(unsigned queue)
{
    return pool_make(1, &(struct rp_pool_options){.max_extra = 1, .queue_depth = queue, .log_level = RP_LOG_NONE});
}

/*
 * Adversary: all workers of a pool block, one of them in a submit; the other waits for what another pool will do.
 * Holds: the submit waits for it, whichever came first.
 */
Test(knot, a_submit_waits_for_a_worker_that_waits_for_what_will_come)
{
    for (int round = 0; round < ROUNDS; round++) {
        struct gate answer = {0}, first = {0}, second = {0};
        struct rp_pool *pool = pool_of_two(0), *other = pool_make(1, NULL);
        struct rp_future *future;
        struct part waiter = {.future = &future, .gate = round % 2 ? &first : &second, .spends = true};
        struct part submitter = {.room = pool, .gate = round % 2 ? &second : &first};

        cr_assert_eq(rp_pool_submit_future(other, at_gate, &answer, &future), 0);
        part_start(&waiter, pool);
        part_start(&submitter, pool);
        gate_open(&first);
        nap(round % 3 * MS);
        gate_open(&second);
        AWAIT(rp_pool_waiting(pool) == 1 || load_seq(&submitter.done));
        nap(round % 3 * MS);
        cr_assert_not(load_seq(&submitter.done), "refused too early: %d", submitter.rc);
        gate_open(&answer);
        AWAIT(load_seq(&waiter.done) && load_seq(&submitter.done));
        cr_assert_eq(waiter.rc, 7);
        cr_assert_eq(submitter.rc, 0);
        rp_future_destroy(future);
        pool_end(pool);
        pool_end(other);
    }
}

/*
 * Adversary: one worker blocks in a submit, the other waits for its end. Holds: one hears of it, the other gets its
 * due.
 */
Test(knot, a_submit_and_a_wait_for_the_submitter_are_edeadlk)
{
    for (int round = 0; round < ROUNDS; round++) {
        struct gate gate = {0};
        struct rp_pool *pool = pool_of_two(0);
        struct part submitter = {.room = pool, .gate = &gate, .spends = true};
        struct rp_future *future;
        struct part waiter = {.future = &future, .gate = &gate};
        const struct rp_task task = {.arg = &submitter};

        cr_assert_eq(rp_pool_submit_future_task(pool, play_part, &task, &future), 0);
        AWAIT(load_seq(&submitter.ready) == 1);
        part_start(&waiter, pool);
        gate_open(&gate);
        AWAIT(load_seq(&waiter.done) && load_seq(&submitter.done));
        cr_assert(waiter.rc == -EDEADLK || submitter.rc == -EDEADLK, "%d and %d", waiter.rc, submitter.rc);
        cr_assert(waiter.rc == 0 || submitter.rc == 0, "%d and %d", waiter.rc, submitter.rc);
        rp_future_destroy(future);
        pool_end(pool);
    }
}

/*
 * Adversary: two pools. The workers of one wait for what is queued at the other, those of the other for room in the
 * first. Holds: somebody hears of it, whoever comes last, and then all ends.
 */
Test(knot, a_knot_of_submits_and_waits_over_two_pools_is_edeadlk)
{
    for (int round = 0; round < ROUNDS; round++) {
        struct gate gate = {0}, open = {.opened = 1};
        struct rp_pool *full = pool_of_two(0), *other = pool_of_two(2);
        struct rp_future *future[2];
        struct part part[4];
        unsigned deadlocks = 0;

        for (int i = 0; i < 4; i++) {
            part[i] = (struct part){.gate = &gate, .spends = i % 2 == 0, .room = i < 2 ? NULL : full};
            part[i].future = i < 2 ? &future[i] : NULL;
            part_start(&part[i], i < 2 ? full : other);
        }
        for (int i = 0; i < 2; i++)
            cr_assert_eq(rp_pool_submit_future(other, at_gate, &open, &future[i]), 0);
        gate_open(&gate);
        for (int i = 0; i < 4; i++) {
            AWAIT(load_seq(&part[i].done));
            cr_assert(part[i].rc == -EDEADLK || part[i].rc == (i < 2 ? 7 : 0), "part %d: %d", i, part[i].rc);
            deadlocks += part[i].rc == -EDEADLK;
        }
        cr_assert_geq(deadlocks, 1);
        cr_assert_leq(deadlocks, 3, "the last ones get what they wait for");
        for (int i = 0; i < 2; i++)
            rp_future_destroy(future[i]);
        pool_end(full);
        pool_end(other);
    }
}

/*
 * Adversary: a ring of two waits, of which one has a deadline. Holds: nobody else is told that it can never come; and
 * nor is that one, unless it goes to sleep last: it stands among those that block a moment before.
 */
Test(knot, who_sleeps_until_a_deadline_is_in_nobodys_way_for_ever)
{
    bool timed_out = false;

    for (int round = 0; round < ROUNDS && !timed_out; round++) {
        struct gate first = {0}, second = {0};
        struct rp_pool *pool = pool_of_two(0);
        struct rp_future *future;
        struct part timed = {.room = pool, .gate = &first, .spends = true, .patience = 50 * MS};
        struct part waiter = {.future = &future, .gate = &second};
        const struct rp_task task = {.arg = &timed};

        cr_assert_eq(rp_pool_submit_future_task(pool, play_part, &task, &future), 0);
        AWAIT(load_seq(&timed.ready) == 1);
        part_start(&waiter, pool);
        gate_open(&first);
        AWAIT(rp_pool_waiting(pool) == 1 || load_seq(&timed.done));
        gate_open(&second);
        AWAIT(load_seq(&waiter.done) && load_seq(&timed.done));
        cr_assert_eq(waiter.rc, 0);
        cr_assert(timed.rc == -ETIMEDOUT || timed.rc == -EDEADLK, "%d", timed.rc);
        timed_out = timed.rc == -ETIMEDOUT;
        rp_future_destroy(future);
        pool_end(pool);
    }
    cr_assert(timed_out);
}

/*
 * Adversary: three pools. A task blocks for room in the second, whose workers wait for what is queued at the first,
 * whose workers, but for one, wait for that task. The first is made smaller by that one. Holds: somebody hears of it,
 * the one that blocks if all the others sleep by then, and everybody else gets what it waits for.
 */
Test(knot, a_pool_made_smaller_has_those_that_this_sticks_look_again)
{
    for (int round = 0; round < ROUNDS; round++) {
        struct gate gate = {0}, busy = {0}, open = {.opened = 1};
        struct rp_pool *shrinks = pool_make(2, &(struct rp_pool_options){.max_extra = 1, .queue_depth = 2});
        struct rp_pool *full = pool_of_two(0), *third = pool_make(1, NULL);
        struct rp_future *queued, *blocked, *held;
        struct part submitter = {.room = full, .gate = &gate};
        struct part part[4];
        const struct rp_task task = {.arg = &submitter};
        unsigned deadlocks;

        cr_assert_eq(rp_pool_submit_future_task(third, play_part, &task, &blocked), 0);
        AWAIT(load_seq(&submitter.ready) == 1);
        for (int i = 0; i < 4; i++) {
            part[i] = (struct part){.gate = &gate, .spends = i % 2 == 0, .future = i < 2 ? &blocked : &queued};
            part_start(&part[i], i < 2 ? shrinks : full);
        }
        cr_assert_eq(rp_pool_submit_future(shrinks, at_gate, &busy, &held), 0);
        AWAIT(rp_pool_waiting(shrinks) == 0);
        cr_assert_eq(rp_pool_submit_future(shrinks, at_gate, &open, &queued), 0);
        gate_open(&gate);
        AWAIT(rp_pool_waiting(full) == 1 || load_seq(&submitter.done));
        nap(round % 3 * MS);
        cr_assert_not(load_seq(&submitter.done), "refused too early: %d", submitter.rc);
        cr_assert_eq(rp_pool_tune(shrinks, 1), 0);
        AWAIT(load_seq(&submitter.done) || any_done(part, 4));
        gate_open(&busy);
        AWAIT(load_seq(&submitter.done));
        deadlocks = submitter.rc == -EDEADLK;
        cr_assert(deadlocks || submitter.rc == 0, "the submitter: %d", submitter.rc);
        for (int i = 0; i < 4; i++) {
            AWAIT(load_seq(&part[i].done));
            cr_assert(part[i].rc == -EDEADLK || part[i].rc == (i < 2 ? 0 : 7), "part %d: %d", i, part[i].rc);
            deadlocks += part[i].rc == -EDEADLK;
        }
        cr_assert_geq(deadlocks, 1);
        rp_future_destroy(queued);
        rp_future_destroy(blocked);
        rp_future_destroy(held);
        pool_end(shrinks);
        pool_end(full);
        pool_end(third);
    }
}
