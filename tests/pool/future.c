/*
 * A future: one outcome that all observers agree on, whether its task returns, panics, is dropped, cancelled or out of
 * time; memory that is short, forks, and typed wrappers.
 */
#include "futures.h"

#include <ringpool/context.h>

static int fail(void *arg, void **value)
{
    *value = arg; /* goes with any result that fn returns */
    return -EPROTO;
}

static int exit_thread(void *arg, void **value)
{
    (void)arg;
    (void)value;
    pthread_exit(NULL);
}

static int count_one(void *arg, void **value)
{
    (void)value;
    add_seq((_Atomic uint32_t *)arg, 1);
    return 0;
}

/* --- results ------------------------------------------------------------------------------------------------------ */

Test(future, get_gives_what_fn_returned)
{
    struct rp_pool *pool = pool_make(2, NULL);
    struct rp_future *good = future_make(pool, answer, &pool), *bad;
    void *value = NULL;

    cr_assert_eq(rp_future_get(good, &value), 42);
    cr_assert_eq(value, &pool);
    cr_assert(rp_future_done(good));
    value = NULL;
    cr_assert_eq(rp_future_try_get(good, &value), 42);
    cr_assert_eq(value, &pool);
    cr_assert_eq(rp_future_get_until(good, NULL, 1), 42, "done is done, however late one asks");
    cr_assert_eq(rp_future_cancel(good), -EALREADY);
    cr_assert_eq(rp_future_run(good), -EALREADY);
    rp_future_destroy(good);
    bad = future_make(pool, fail, &value);
    cr_assert_eq(rp_future_get(bad, &value), -EPROTO);
    cr_assert_eq(value, &value);
    rp_future_destroy(bad);
    pool_end(pool);
}

Test(future, bad_arguments_are_refused)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = (struct rp_future *)&pool, *done = future_make(pool, answer, NULL);
    struct rp_future *array[2] = {done, NULL};

    cr_assert_eq(rp_pool_submit_future(NULL, answer, NULL, &future), -EINVAL);
    cr_assert_null(future);
    cr_assert_eq(rp_pool_submit_future(pool, NULL, NULL, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future(pool, answer, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, NULL, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, &(struct rp_task){.fn = count_task}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, &(struct rp_task){.priority = 9}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, &(struct rp_task){.deadline = 1}, &future), -ETIMEDOUT);
    cr_assert_eq(rp_future_get(NULL, NULL), -EINVAL);
    cr_assert_eq(rp_future_get_until(done, NULL, -1), -EINVAL);
    cr_assert_eq(rp_future_get_timeout(done, NULL, -1), -EINVAL);
    cr_assert_eq(rp_future_get_timeout(NULL, NULL, 1), -EINVAL);
    cr_assert_eq(rp_future_try_get(NULL, NULL), -EINVAL);
    cr_assert_eq(rp_future_cancel(NULL), -EINVAL);
    cr_assert_eq(rp_future_run(NULL), -EINVAL);
    cr_assert_eq(rp_future_then(NULL, pool, NULL, NULL, &future), -EINVAL);
    cr_assert_eq(rp_future_wait_any(array, 0, 0), -EINVAL);
    cr_assert_eq(rp_future_wait_any(array, 2, 0), -EINVAL);
    cr_assert_eq(rp_future_wait_any(array, 1, -1), -EINVAL);
    cr_assert_eq(rp_future_wait_all(array, 2, 0), -EINVAL);
    cr_assert_eq(rp_future_wait_all(NULL, 0, 0), 0);
    cr_assert(!rp_future_done(NULL));
    rp_future_destroy(NULL);
    rp_future_destroy(done);
    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(rp_pool_submit_future(pool, answer, NULL, &future), -ESHUTDOWN);
    cr_assert_null(future);
    pool_end(pool);
}

Test(future, a_get_that_gives_up_may_come_again)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, pass_gate, &gate);

    cr_assert_eq(rp_future_try_get(future, NULL), -EBUSY);
    cr_assert_eq(rp_future_get_until(future, NULL, 1), -ETIMEDOUT);
    cr_assert_eq(rp_future_get_until(future, NULL, rp_after(2 * MS)), -ETIMEDOUT);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), 0);
    rp_future_destroy(future);
    pool_end(pool);
}

Test(future, a_get_with_a_timeout_waits_for_so_long_and_no_less)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, pass_gate, &gate), *good;
    void *value = &gate;

    cr_assert_eq(rp_future_get_timeout(future, &value, 0), -ETIMEDOUT);
    int64_t start = rp_now();
    cr_assert_eq(rp_future_get_timeout(future, &value, 2 * MS), -ETIMEDOUT);
    cr_assert_geq(rp_now() - start, 2 * MS);
    cr_assert_eq(value, &gate, "no end, no value");
    cr_assert_not(rp_future_done(future));
    gate_open(&gate);
    cr_assert_eq(rp_future_get_timeout(future, NULL, INT64_MAX), 0);
    rp_future_destroy(future);
    good = future_make(pool, answer, &pool);
    cr_assert_eq(rp_future_get_timeout(good, &value, PATIENCE), 42);
    cr_assert_eq(value, &pool);
    cr_assert_eq(rp_future_get_timeout(good, NULL, 0), 42, "done is done");
    rp_future_destroy(good);
    pool_end(pool);
}

static int ask_without_waiting(void *arg, void **value)
{
    struct rp_future *inner;
    int rc = rp_pool_submit_future(arg, answer, arg, &inner);

    if (rc)
        return rc;
    rc = rp_future_get_timeout(inner, value, 0);
    rp_future_destroy(inner);
    return rc;
}

/* Adversary: the only worker asks for what is queued behind it. Holds: no time to wait is no reason not to help. */
Test(future, a_get_without_time_to_wait_helps)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 4});
    struct rp_future *outer = future_make(pool, ask_without_waiting, pool);
    void *value = NULL;

    cr_assert_eq(rp_future_get(outer, &value), 42);
    cr_assert_eq(value, pool);
    rp_future_destroy(outer);
    pool_end(pool);
}

Test(future, once_get_has_returned_there_is_room_again)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.nonblocking = true});

    for (int i = 0; i < 5000; i++) {
        struct rp_future *future = future_make(pool, answer, NULL);
        cr_assert_eq(rp_future_get(future, NULL), 42);
        rp_future_destroy(future);
    }
    pool_end(pool);
}

Test(future, a_panic_and_an_exit_of_the_thread_are_efault)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.log = quiet, .queue_depth = 8});

    for (int i = 0; i < 20; i++) {
        struct rp_future *future = future_make(pool, i % 2 ? panic : exit_thread, NULL);
        void *value = &value;
        cr_assert_eq(rp_future_get(future, &value), -EFAULT);
        cr_assert_null(value);
        rp_future_destroy(future);
    }
    struct rp_future *after = future_make(pool, answer, NULL);
    cr_assert_eq(rp_future_get(after, NULL), 42);
    rp_future_destroy(after);
    pool_end(pool);
}

/* --- destroying and dropping -------------------------------------------------------------------------------------- */

Test(future, destroyed_in_any_state_the_task_still_runs)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 10; i++)
        rp_future_destroy(future_make(pool, count_one, &ran));
    rp_future_detach(future_make(pool, count_one, &ran));
    gate_open(&gate);
    AWAIT(load_seq(&ran) == 11);
    struct rp_future *done = future_make(pool, answer, NULL);
    cr_assert_eq(rp_future_get(done, NULL), 42);
    rp_future_destroy(done);
    pool_end(pool);
}

Test(future, a_future_outlives_its_pool)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, answer, &gate_pass);
    void *value;

    pool_end(pool);
    cr_assert_eq(rp_future_get(future, &value), 42);
    rp_future_destroy(future);
}

static int give_itself_up(void *arg, void **value)
{
    struct rp_future **own = arg;

    (void)value;
    rp_future_destroy(*own);
    *own = NULL;
    return 0;
}

Test(future, one_may_give_itself_up_wherever_it_runs)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    struct rp_future *here, *there;

    here = future_make(pool, give_itself_up, &here);
    there = future_make(pool, give_itself_up, &there);
    cr_assert_eq(rp_future_run(here), 0);
    cr_assert_null(here);
    cr_assert_not_null(there);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_null(there);
}

Test(future, a_closed_pool_refuses_it_and_counts_that)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = (struct rp_future *)&pool;
    struct rp_pool_snapshot seen;

    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(rp_pool_submit_future(pool, answer, NULL, &future), -ESHUTDOWN);
    cr_assert_null(future);
    for (int priority = RP_PRIO_NORMAL; priority <= RP_PRIO_LOW; priority++) {
        const struct rp_task like = {.priority = priority};
        cr_assert_eq(rp_pool_submit_future_task(pool, answer, &like, &future), -ESHUTDOWN);
    }
    cr_assert_eq(rp_pool_snapshot(pool, &seen), 0);
    cr_assert_eq(seen.rejected, 4);
    pool_end(pool);
    cr_assert_eq(rp_pool_submit_future(pool, answer, NULL, &future), -ESHUTDOWN);
}

/* Handles are given out again, the oldest first: 64 of them at least. */
Test(future, its_memory_is_the_pools_whoever_had_the_handle_before)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);

    for (int i = 0; i < 130; i++) {
        const struct rp_pool_options options = {.allocator = i % 3 ? NULL : &allocator};
        struct rp_pool *pool = pool_make(1, &options);
        _Atomic uint32_t ran = 0;

        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0); /* the worker is there, and all that it takes */
        AWAIT(load_seq(&ran));
        uint32_t before = load_seq(&bank.calls);
        struct rp_future *future = future_make(pool, answer, NULL);
        cr_assert_eq(load_seq(&bank.calls) - before, i % 3 == 0, "number %d", i);
        cr_assert_eq(rp_future_get(future, NULL), 42);
        rp_future_destroy(future);
        pool_end(pool);
    }
    cr_assert_eq(load_seq(&bank.live), 0);
    cr_assert_eq(load_seq(&bank.strange), 0);
}

struct dropping {
    _Atomic uint32_t ran, dropped;
    _Atomic int reason;
};

static int dropping_run(void *arg, void **value)
{
    (void)value;
    add_seq(&((struct dropping *)arg)->ran, 1);
    return 0;
}

static void dropping_drop(void *arg, int reason)
{
    store_seq(&((struct dropping *)arg)->reason, reason);
    add_seq(&((struct dropping *)arg)->dropped, 1);
}

Test(future, a_release_that_drops_ends_the_queued_ones)
{
    struct gate gate = {0};
    struct dropping fate = {0};
    struct rp_pool *pool =
        pool_make(1, &(struct rp_pool_options){.queue_depth = 8, .release_policy = RP_RELEASE_DROP, .log = quiet});
    struct rp_future *futures[4];

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(rp_pool_submit_future_task(pool, dropping_run,
                                                &(struct rp_task){.arg = &fate, .dropped = dropping_drop}, &futures[i]),
                     0);
    cr_assert_eq(rp_pool_release(pool), 0);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(rp_future_get(futures[i], NULL), -ESHUTDOWN);
        rp_future_destroy(futures[i]);
    }
    cr_assert_eq(load_seq(&fate.dropped), 4);
    cr_assert_eq(load_seq(&fate.reason), -ESHUTDOWN);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&fate.ran), 0);
}

Test(future, a_deadline_that_passes_in_the_queue_is_etimedout)
{
    struct gate gate = {0};
    struct dropping fate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_future_task(
                     pool, dropping_run,
                     &(struct rp_task){.arg = &fate, .dropped = dropping_drop, .deadline = rp_after(5 * MS)}, &future),
                 0);
    nap(6 * MS);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), -ETIMEDOUT);
    rp_future_destroy(future);
    pool_end(pool);
    cr_assert_eq(load_seq(&fate.dropped), 1);
}

static int sleep_until_asked(void *arg, void **value)
{
    (void)value;
    store_seq((_Atomic uint32_t *)arg, 1);
    return rp_ctx_sleep(rp_ctx_current(), rp_after(PATIENCE)) == -ETIMEDOUT ? 7 : 8;
}

/* The future is done at its timeout, whatever fn does; what fn returns after that is nobody's. */
Test(future, a_run_timeout_completes_it_and_cancels_its_context)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.log = quiet});
    _Atomic uint32_t begun = 0;
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_future_task(pool, sleep_until_asked,
                                            &(struct rp_task){.arg = &begun, .timeout = 5 * MS}, &future),
                 0);
    cr_assert_eq(rp_future_get(future, NULL), -ETIMEDOUT);
    pool_end(pool); /* fn has seen its context end, else this takes long */
    cr_assert_eq(load_seq(&begun), 1);
    rp_future_destroy(future);
}

/* --- cancelling --------------------------------------------------------------------------------------------------- */

Test(future, a_queued_one_that_is_cancelled_never_runs)
{
    struct gate gate = {0};
    struct dropping fate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_future_task(pool, dropping_run,
                                            &(struct rp_task){.arg = &fate, .dropped = dropping_drop}, &future),
                 0);
    cr_assert_eq(rp_future_cancel(future), 0);
    cr_assert_eq(rp_future_try_get(future, NULL), -ECANCELED, "at once");
    cr_assert_eq(rp_future_cancel(future), -EALREADY);
    gate_open(&gate);
    AWAIT(load_seq(&fate.dropped) == 1);
    cr_assert_eq(load_seq(&fate.reason), -ECANCELED);
    AWAIT(pool_look(pool).dropped == 1);
    rp_future_destroy(future);
    pool_end(pool);
    cr_assert_eq(load_seq(&fate.ran), 0);
}

static int until_cancelled(void *arg, void **value)
{
    (void)value;
    struct rp_ctx *ctx = rp_ctx_current();
    store_seq((_Atomic uint32_t *)arg, 1);
    return rp_ctx_sleep(ctx, rp_after(PATIENCE));
}

Test(future, a_running_one_is_asked_through_its_context)
{
    struct rp_pool *pool = pool_make(1, NULL);
    _Atomic uint32_t begun = 0;
    struct rp_future *future = future_make(pool, until_cancelled, &begun);

    AWAIT(load_seq(&begun));
    cr_assert_eq(rp_future_cancel(future), 0);
    cr_assert_eq(rp_future_get(future, NULL), -ECANCELED, "what fn returned");
    rp_future_destroy(future);
    pool_end(pool);
}

static int asks_late(void *arg, void **value)
{
    (void)value;
    gate_pass(arg);
    return rp_ctx_err(rp_ctx_current());
}

Test(future, a_context_that_is_asked_for_after_the_cancel_has_ended)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, asks_late, &gate);

    AWAIT(load_seq(&gate.inside));
    cr_assert_eq(rp_future_cancel(future), 0);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), -ECANCELED);
    rp_future_destroy(future);
    pool_end(pool);
}

struct race {
    struct rp_future *future;
    pthread_barrier_t barrier;
    int seen[3];
    pthread_t thread[3];
    _Atomic uint32_t next;
};

static void *race_observe(void *arg)
{
    struct race *race = arg;
    unsigned me = add_seq(&race->next, 1);

    pthread_barrier_wait(&race->barrier);
    if (me == 0)
        rp_future_cancel(race->future);
    race->seen[me] = rp_future_get(race->future, NULL);
    return NULL;
}

/*
 * Adversary: a cancel between submit and start, and two observers. One CAS decides: fn ran once and all see 0, or it
 * never ran and all see -ECANCELED. A cancel that is stored beside the claim instead shows as a mix.
 */
Test(future, a_cancel_that_races_with_the_start_has_one_outcome)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 16});
    static _Atomic uint32_t others;
    unsigned outcomes[2] = {0};

    for (int round = 0; round < 600; round++) {
        struct race race = {0};
        _Atomic uint32_t ran = 0;

        pthread_barrier_init(&race.barrier, NULL, 3);
        for (int i = 0; i < round % 4; i++)
            cr_assert_eq(rp_pool_submit(pool, count_task, &others), 0);
        race.future = future_make(pool, count_one, &ran);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&race.thread[i], NULL, race_observe, &race), 0);
        for (int i = 0; i < 3; i++)
            pthread_join(race.thread[i], NULL);
        AWAIT(rp_pool_busy(pool) + rp_pool_waiting(pool) == 0);
        cr_assert(race.seen[0] == 0 || race.seen[0] == -ECANCELED);
        cr_assert_eq(race.seen[1], race.seen[0]);
        cr_assert_eq(race.seen[2], race.seen[0]);
        cr_assert_eq(load_seq(&ran), race.seen[0] == 0);
        outcomes[race.seen[0] == 0]++;
        rp_future_destroy(race.future);
        pthread_barrier_destroy(&race.barrier);
    }
    cr_log_info("%u cancelled, %u ran", outcomes[0], outcomes[1]);
    pool_end(pool);
}

/* --- memory and forks --------------------------------------------------------------------------------------------- */

static void memory_round(struct bank *bank)
{
    struct rp_allocator allocator = bank_allocator(bank);
    struct rp_pool *pool;
    struct rp_future *future, *next;
    uint32_t fail_at = load_seq(&bank->fail_at);

    store_seq(&bank->fail_at, 0);
    cr_assert_eq(rp_pool_create(&pool, 2, &(struct rp_pool_options){.allocator = &allocator, .queue_depth = 8}), 0);
    uint32_t base = load_seq(&bank->calls);
    store_seq(&bank->fail_at, fail_at ? base + fail_at : 0);
    int rc = rp_pool_submit_future(pool, answer, NULL, &future);
    cr_assert(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "submit gave %d", rc);
    if (!rc) {
        rc = rp_future_then(future, NULL, plus_one, NULL, &next);
        cr_assert(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "then gave %d", rc);
        cr_assert_eq(rp_future_get(future, NULL), 42);
        if (!rc) {
            cr_assert_eq(rp_future_get(next, NULL), 43);
            rp_future_destroy(next);
        }
        rp_future_destroy(future);
    }
    pool_end(pool);
}

Test(future, memory_that_is_short_is_returned_and_nothing_is_lost)
{
    for (uint32_t at = 0; at < 12; at++) {
        struct bank bank = {.fail_at = at};
        memory_round(&bank);
        cr_assert_eq(load_seq(&bank.live), 0, "%u blocks stay, failure at %u", load_seq(&bank.live), at);
        cr_assert_eq(load_seq(&bank.strange), 0);
    }
}

static int child_body(void *arg)
{
    struct rp_future *future = arg, *next;
    struct rp_future *array[] = {future};

    CHECK(rp_future_get(future, NULL) == -ECHILD);
    CHECK(rp_future_get_timeout(future, NULL, 0) == -ECHILD);
    CHECK(rp_future_try_get(future, NULL) == -ECHILD);
    CHECK(rp_future_cancel(future) == -ECHILD);
    CHECK(rp_future_run(future) == -ECHILD);
    CHECK(rp_future_then(future, NULL, plus_one, NULL, &next) == -ECHILD);
    CHECK(rp_future_wait_any(array, 1, 0) == -ECHILD);
    CHECK(rp_future_wait_all(array, 1, 0) == -ECHILD);
    rp_future_destroy(future);
    return 0;
}

Test(future, a_forked_child_refuses_those_of_its_parent)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, pass_gate, &gate);

    cr_assert_eq(in_child(child_body, future), 0);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), 0);
    rp_future_destroy(future);
    pool_end(pool);
}

/* --- types -------------------------------------------------------------------------------------------------------- */

struct pair {
    int a, b;
};

static int add_pair(struct pair *pair, struct pair **sum)
{
    pair->a += pair->b;
    *sum = pair;
    return 0;
}

RP_FUTURE_TYPE(sum, struct pair, struct pair, add_pair)

Test(future, typed_wrappers_need_no_cast)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct pair pair = {20, 22}, *out;
    struct rp_future *future;

    cr_assert_eq(sum_submit(pool, &pair, &future), 0);
    cr_assert_eq(sum_get_until(future, &out, 0), 0);
    cr_assert_eq(out->a, 42);
    out = NULL;
    cr_assert_eq(sum_get(future, &out), 0);
    cr_assert_eq(out, &pair);
    out = NULL;
    cr_assert_eq(sum_get_timeout(future, &out, 0), 0);
    cr_assert_eq(out, &pair);
    rp_future_destroy(future);
    pool_end(pool);
}
