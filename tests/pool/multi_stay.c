/*
 * Round robin where tasks queue: a thread stays with each pool for a while, if it submits fast, and no pool gets more
 * than its share by that for long.
 */
#include "multi.h"

#include <string.h>

#define POOLS 4
#define STAY_MOST 128
#define BURST 64
#define PACED 32      /* it looks how fast it submits after so many */
#define FAST_NS 16000 /* for a burst and what comes before it: then any PACED of it were fast enough to stay */

/* Pools whose only worker is held, with so many tasks waiting in each. */
static struct rp_multi *multi_deep(struct gate *gate, unsigned waiting)
{
    struct rp_pool_options pool = {.queue_depth = 32768};
    struct rp_multi *multi = multi_make(POOLS, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});

    for (unsigned i = 0; i < POOLS; i++)
        hold_pool(multi, i, gate, 1);
    for (unsigned i = 0; i < POOLS; i++)
        for (unsigned k = 0; k < waiting; k++)
            cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, i), gate_pass, gate), 0);
    return multi;
}

static void look(struct rp_multi *multi, unsigned seen[POOLS])
{
    for (unsigned i = 0; i < POOLS; i++)
        seen[i] = given(multi, i);
}

/*
 * Submits a burst: how many pools got something. *fast: since the end of the one before, *ended, it took no longer than
 * FAST_NS.
 */
static unsigned burst(struct rp_multi *multi, struct gate *gate, int64_t *ended, bool *fast)
{
    unsigned before[POOLS], after[POOLS], touched = 0;

    look(multi, before);
    hold(multi, gate, BURST);
    int64_t now = rp_now();
    *fast = now - *ended <= FAST_NS;
    *ended = now;
    look(multi, after);
    for (unsigned i = 0; i < POOLS; i++)
        touched += after[i] != before[i];
    return touched;
}

Test(multi_stay, in_turn_while_less_than_32_wait)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_deep(&gate, 15);
    unsigned seen[POOLS];

    for (unsigned round = 0; round < 4; round++) {
        hold(multi, &gate, POOLS * 4);
        look(multi, seen);
        for (unsigned i = 0; i < POOLS; i++)
            cr_assert_eq(seen[i], 16 + 4 * (round + 1));
    }
    open_and_end(multi, &gate);
}

/* In turn a burst would go to all pools alike. */
Test(multi_stay, with_each_pool_where_tasks_queue)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_deep(&gate, 200);
    unsigned fast = 0, staying = 0;
    int64_t ended = 0;

    for (unsigned k = 0; k < 400; k++) {
        bool was_fast;
        unsigned touched = burst(multi, &gate, &ended, &was_fast);
        fast += was_fast;
        staying += touched <= 2;
        cr_assert_leq(spread(multi, POOLS), 2 * STAY_MOST, "of %u for each", (k + 1) * BURST / POOLS);
    }
    open_and_end(multi, &gate);
    if (fast < 200)
        cr_skip_test("it submits too slowly here to stay");
    cr_assert_gt(staying, 0, "%u bursts were fast", fast);
}

/*
 * Adversary: a thread that is slow once in so many submits, so that it breaks off its way around by stays, each time
 * after as many. Holds: none of the pools gets more by that.
 */
Test(multi_stay, broken_off_it_goes_on_where_it_was)
{
    for (unsigned every = 32; every < 600; every += 37) {
        struct gate gate = {0};
        struct rp_multi *multi = multi_deep(&gate, 200);
        for (unsigned given_to_all = 0; given_to_all < 20000; given_to_all += every) {
            hold(multi, &gate, every);
            int64_t until = rp_now() + 20000;
            while (rp_now() < until)
                ;
            cr_assert_leq(spread(multi, POOLS), 2 * STAY_MOST, "every %u, after %u", every, given_to_all);
        }
        open_and_end(multi, &gate);
    }
}

/*
 * What waited once tells nothing later: one by one they go in turn, but for those before it looks how fast it is, and
 * those before that, after fast ones, which were too few to make these slow.
 */
Test(multi_stay, not_by_a_thread_that_submits_slowly)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_deep(&gate, 200);
    unsigned before[POOLS], after[POOLS], last = POOLS, stay = 0, most = 0;

    hold(multi, &gate, 1024); /* by now it stays, unless it was slow */
    look(multi, before);
    for (unsigned k = 0; k < 400; k++) {
        int64_t until = rp_now() + 1000;
        hold(multi, &gate, 1);
        look(multi, after);
        for (unsigned i = 0; i < POOLS; i++)
            if (after[i] != before[i]) {
                stay = i == last ? stay + 1 : 1;
                last = i;
            }
        memcpy(before, after, sizeof(before));
        most = stay > most ? stay : most;
        while (rp_now() < until)
            ;
    }
    cr_assert_lt(most, 2 * PACED, "%u in a row", most);
    open_and_end(multi, &gate);
}

struct little {
    struct rp_multi *multi;
    struct gate *gate;
};

static void *submit_little(void *arg)
{
    const struct little *me = arg;

    hold(me->multi, me->gate, 100);
    return NULL;
}

/* Adversary: threads that end when they have come around and begun to stay. */
Test(multi_stay, threads_that_submit_a_little_stay_with_different_pools)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_deep(&gate, 200);
    struct little me = {multi, &gate};

    for (unsigned k = 0; k < 40; k++) {
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, submit_little, &me), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_leq(spread(multi, POOLS), 4 * STAY_MOST, "after %u threads", k + 1);
    }
    open_and_end(multi, &gate);
}

/* Adversary: a batch when the last of a stay is due, again and again. */
Test(multi_stay, batches_in_between_do_not_add_up)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_deep(&gate, 200);
    struct rp_task batch[2 * 100];

    for (unsigned i = 0; i < 200; i++)
        batch[i] = (struct rp_task){.fn = gate_pass, .arg = &gate};
    for (unsigned k = 0; k < 100; k++) {
        hold(multi, &gate, STAY_MOST - 1);
        cr_assert_eq(rp_multi_submit_batch(multi, batch, 200), 200);
        hold(multi, &gate, 29);
        cr_assert_leq(spread(multi, POOLS), 10 * STAY_MOST, "after %u batches", k + 1);
    }
    open_and_end(multi, &gate);
}

/* Nobody stays in a multi pool of one pool, nor in what becomes of it. */
Test(multi_stay, is_forgotten_with_a_single_pool)
{
    struct rp_pool_options pool = {.queue_depth = 4096};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
    struct gate first = {0}, second = {0};

    for (unsigned i = 0; i < 2; i++)
        hold_pool(multi, i, &first, 1);
    hold(multi, &first, 1000);
    gate_open(&first);
    AWAIT(multi_look(multi).completed == 1002);
    cr_assert_eq(rp_multi_remove(multi, 1), 0);
    struct gate open = {0};
    gate_open(&open);
    hold(multi, &open, 1000);
    AWAIT(given(multi, 0) == 0);
    cr_assert_eq(rp_multi_add(multi, 1), 1);
    hold(multi, &second, 64);
    cr_assert_eq(given(multi, 0), 32);
    cr_assert_eq(given(multi, 1), 32);
    open_and_end(multi, &second);
}

/* One that is full for it hangs does not make a thread stay with the others, where tasks are taken at once. */
Test(multi_stay, with_none_for_a_pool_that_hangs)
{
    struct rp_pool_options pool = {.queue_depth = 64};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(4, 64, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
    unsigned before[4];

    hold_pool(multi, 0, &gate, 64);
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 0), gate_pass, &gate), 0);
    cr_assert_eq(rp_pool_try_submit(rp_multi_pool(multi, 0), gate_pass, &gate), -EAGAIN);
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned i = 1; i < 4; i++)
            before[i] = given(multi, i);
        hold(multi, &gate, 4); /* 0 is passed over for 1, 2 and 3 */
        for (unsigned i = 1; i < 4; i++)
            cr_assert_geq(given(multi, i), before[i] + 1);
    }
    open_and_end(multi, &gate);
}
