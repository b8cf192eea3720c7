/*
 * Continuations of futures: they go on with result and value, in constant stack, however those before them ended.
 */
#include "futures.h"

Test(future, then_goes_on_with_result_and_value)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, &gate), *other = pool_make(1, NULL);
    struct rp_future *first = future_make(pool, answer, &gate), *second, *third, *fourth;
    void *value;

    cr_assert_eq(rp_future_then(first, NULL, plus_one, NULL, &second), 0);
    cr_assert_eq(rp_future_then(second, other, plus_one, NULL, &third), 0);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(third, &value), 44);
    cr_assert_eq(value, &gate);
    cr_assert_eq(rp_future_then(first, pool, plus_one, NULL, &fourth), 0, "of one that is done");
    rp_future_destroy(first);
    cr_assert_eq(rp_future_get(fourth, NULL), 43);
    rp_future_destroy(second);
    rp_future_destroy(third);
    rp_future_destroy(fourth);
    pool_end(other);
    pool_end(pool);
}

struct chain_wait {
    struct rp_future *last;
    struct gate gate;
};

static int waits_for_last(void *arg, void **value)
{
    struct chain_wait *wait = arg;

    (void)value;
    gate_pass(&wait->gate);
    return rp_future_get(wait->last, NULL);
}

/* Each link would cost a frame if completion called completion: 100,000 of them do not fit on a worker's stack. */
static void deep_chain(bool cancel, int links, bool from_task)
{
    struct gate gate = {0};
    struct chain_wait wait = {0};
    struct rp_pool *pool =
        pool_make(1, &(struct rp_pool_options){.queue_depth = 4, .stack_size = SMALL_STACK, .log = quiet});
    struct rp_future *waiter = NULL;

    if (from_task)
        waiter = future_make(pool, waits_for_last, &wait);
    else
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    struct rp_future *first = future_make(pool, answer, NULL), *last = first;
    for (int i = 0; i < links; i++) {
        struct rp_future *next;
        cr_assert_eq(rp_future_then(last, NULL, plus_one, NULL, &next), 0);
        if (last != first)
            rp_future_destroy(last);
        last = next;
    }
    wait.last = last;
    if (cancel)
        cr_assert_eq(rp_future_cancel(first), 0);
    gate_open(&gate);
    gate_open(&wait.gate);
    cr_assert_eq(rp_future_get(from_task ? waiter : last, NULL), cancel ? -ECANCELED : 42 + links);
    rp_future_destroy(first);
    rp_future_destroy(last);
    rp_future_destroy(waiter);
    pool_end(pool);
}

Test(future, a_chain_of_100000_runs_in_constant_stack)
{
    deep_chain(false, 100000, false);
}

Test(future, a_chain_of_100000_fails_in_constant_stack)
{
    deep_chain(true, 100000, false);
}

Test(future, a_chain_of_100000_is_helped_in_constant_stack)
{
    deep_chain(false, 100000, true);
}

Test(future, many_continuations_of_one_all_run)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 4});
    struct rp_future *first = future_make(pool, pass_gate, &gate), *next[200];

    for (int i = 0; i < 200; i++)
        cr_assert_eq(rp_future_then(first, NULL, plus_one, NULL, &next[i]), 0);
    cr_assert_eq(rp_future_cancel(next[77]), 0);
    gate_open(&gate);
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(rp_future_get(next[i], NULL), i == 77 ? -ECANCELED : 1);
        rp_future_destroy(next[i]);
    }
    rp_future_destroy(first);
    pool_end(pool);
}

static int panics_on(void *arg, int result, void *value, void **next_value)
{
    (void)arg, (void)result, (void)value, (void)next_value;
    rp_panic("in a continuation");
    return 0;
}

static int exits_on(void *arg, int result, void *value, void **next_value)
{
    (void)arg, (void)result, (void)value, (void)next_value;
    pthread_exit(NULL);
}

Test(future, a_continuation_may_panic_or_end_its_thread)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 64, .log = quiet});

    for (int i = 0; i < 20; i++) {
        struct gate gate = {0};
        struct rp_future *first = future_make(pool, pass_gate, &gate), *bad, *after;
        cr_assert_eq(rp_future_then(first, NULL, i % 2 ? panics_on : exits_on, NULL, &bad), 0);
        cr_assert_eq(rp_future_then(bad, NULL, plus_one, NULL, &after), 0);
        gate_open(&gate);
        cr_assert_eq(rp_future_get(bad, NULL), -EFAULT);
        cr_assert_eq(rp_future_get(after, NULL), -EFAULT);
        cr_assert_eq(rp_future_get(first, NULL), 0);
        rp_future_destroy(first);
        rp_future_destroy(bad);
        rp_future_destroy(after);
    }
    AWAIT(pool_look(pool).busy == 0 && pool_look(pool).waiting == 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.panicked, 20);
    cr_assert_eq(seen.completed, 20);
    pool_end(pool);
}

/*
 * No room in the pool: the thread that ends `first` is to run all of what continues it, and the first of these ends it.
 */
Test(future, a_continuation_that_ends_its_thread_takes_none_with_it)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.log = quiet});

    for (int i = 0; i < 20; i++) {
        struct gate gate = {0};
        struct rp_future *first = future_make(pool, pass_gate, &gate), *next[4];
        for (int k = 0; k < 4; k++)
            cr_assert_eq(rp_future_then(first, NULL, k % 2 ? plus_one : exits_on, NULL, &next[k]), 0);
        gate_open(&gate);
        for (int k = 0; k < 4; k++) {
            cr_assert_eq(rp_future_get_until(next[k], NULL, rp_after(PATIENCE)), k % 2 ? 1 : -EFAULT, "%d", k);
            rp_future_destroy(next[k]);
        }
        rp_future_destroy(first);
    }
    pool_end(pool);
}

Test(future, a_continuation_that_is_refused_lets_go_of_what_it_continues)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.nonblocking = true, .allocator = &allocator});
    struct rp_future *first = future_make(pool, answer, NULL), *next;

    cr_assert_eq(rp_future_get(first, NULL), 42);
    AWAIT(rp_pool_submit(pool, gate_pass, &gate) == 0);
    cr_assert_eq(rp_future_then(first, NULL, plus_one, NULL, &next), -EAGAIN);
    cr_assert_null(next);
    rp_future_destroy(first);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&bank.live), 0, "%u blocks stay", load_seq(&bank.live));
}
