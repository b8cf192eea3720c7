/*
 * Retries: how often, how long between, and that nothing waits on a worker.
 */
#include "pool/life.h"

#include <ringpool/context.h>
#include <ringpool/future.h>
#include <ringpool/retry.h>

struct flaky {
    _Atomic uint32_t calls;
    uint32_t good; /* the call that succeeds; 0: none */
    int64_t at[64];
};

static int flaky_run(void *arg, void **value)
{
    struct flaky *flaky = arg;
    uint32_t call = add_seq(&flaky->calls, 1) + 1;

    flaky->at[(call - 1) % 64] = rp_now();
    *value = arg;
    return call == flaky->good ? 0 : -EPROTO;
}

static struct rp_future *retry_make(struct rp_pool *pool, struct flaky *flaky, const struct rp_retry *retry)
{
    struct rp_future *future = NULL;

    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &(struct rp_task){.arg = flaky}, retry, &future), 0);
    return future;
}

Test(retry, bad_arguments_are_refused)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_task task = {0};
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &task, NULL, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, NULL, &task, &(struct rp_retry){0}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &task, &(struct rp_retry){.backoff = 3}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &task, &(struct rp_retry){.jitter = 101}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &task, &(struct rp_retry){.delay = -1}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, NULL, &(struct rp_retry){0}, &future), -EINVAL);
    cr_assert_eq(
        rp_pool_submit_retry(pool, flaky_run, &(struct rp_task){.fn = count_task}, &(struct rp_retry){0}, &future),
        -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &task, &(struct rp_retry){.max_delay = -1}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &task, &(struct rp_retry){.deadline = -1}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &task, &(struct rp_retry){.reserved = {1}}, &future), -EINVAL);
    cr_assert_null(future);
    pool_end(pool);
}

Test(retry, it_is_tried_until_it_succeeds)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct flaky flaky = {.good = 4};
    struct rp_future *future = retry_make(pool, &flaky, &(struct rp_retry){.attempts = 9, .delay = MS / 10});
    void *value = NULL;

    cr_assert_eq(rp_future_get(future, &value), 0);
    cr_assert_eq(value, &flaky);
    cr_assert_eq(load_seq(&flaky.calls), 4);
    rp_future_destroy(future);
    pool_end(pool);
}

Test(retry, it_gives_up_after_its_attempts_with_the_last_result)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct flaky flaky = {0};
    struct rp_future *future = retry_make(pool, &flaky, &(struct rp_retry){.delay = MS / 10});

    cr_assert_eq(rp_future_get(future, NULL), -EPROTO);
    cr_assert_eq(load_seq(&flaky.calls), 3);
    rp_future_destroy(future);
    pool_end(pool);
}

Test(retry, no_attempt_comes_before_its_delay)
{
    static const int64_t factors[3][4] = {{1, 2, 4, 5}, {1, 2, 3, 4}, {1, 1, 1, 1}}; /* the largest: 5 */

    for (int backoff = 0; backoff < 3; backoff++) {
        struct rp_pool *pool = pool_make(1, NULL);
        struct flaky flaky = {0};
        struct rp_future *future = retry_make(
            pool, &flaky,
            &(struct rp_retry){
                .attempts = 5, .backoff = backoff, .delay = MS, .max_delay = 5 * MS, .jitter = RP_JITTER_NONE});

        cr_assert_eq(rp_future_get(future, NULL), -EPROTO);
        for (int i = 0; i < 4; i++)
            cr_assert_geq(flaky.at[i + 1] - flaky.at[i], factors[backoff][i] * MS);
        rp_future_destroy(future);
        pool_end(pool);
    }
}

static bool never_again(void *user, int result, unsigned attempt)
{
    *(unsigned *)user = attempt;
    return result != -EPROTO;
}

Test(retry, the_predicate_and_the_deadline_end_it)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct flaky flaky = {0};
    unsigned attempt = 0;
    struct rp_future *future = retry_make(pool, &flaky, &(struct rp_retry){.again = never_again, .user = &attempt});

    cr_assert_eq(rp_future_get(future, NULL), -EPROTO);
    cr_assert_eq(attempt, 1);
    rp_future_destroy(future);
    future = retry_make(
        pool, &flaky, &(struct rp_retry){.delay = PATIENCE, .max_delay = PATIENCE, .deadline = rp_after(PATIENCE / 4)});
    cr_assert_eq(rp_future_get(future, NULL), -EPROTO);
    cr_assert_eq(load_seq(&flaky.calls), 2);
    rp_future_destroy(future);
    pool_end(pool);
}

Test(retry, the_wait_holds_no_worker_and_a_cancel_ends_it)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct flaky flaky = {0};
    struct rp_ctx *ctx;
    struct rp_future *futures[2];
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_ctx_create(&ctx, NULL, 0), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &(struct rp_task){.arg = &flaky, .ctx = i ? ctx : NULL},
                                          &(struct rp_retry){.delay = PATIENCE, .max_delay = PATIENCE}, &futures[i]),
                     0);
    AWAIT(load_seq(&flaky.calls) == 2 && pool_look(pool).busy == 0);
    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 1);
    cr_assert_eq(rp_future_try_get(futures[0], NULL), -EBUSY);
    cr_assert_eq(rp_future_cancel(futures[0]), 0);
    rp_ctx_cancel(ctx, 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(rp_future_get(futures[i], NULL), -ECANCELED);
        rp_future_destroy(futures[i]);
    }
    rp_ctx_destroy(ctx);
    pool_end(pool);
}

struct crowd {
    struct rp_pool *pool;
    struct gate gate;
    _Atomic uint32_t calls;
    int rc;
};

/* The first attempt leaves a pool that is full without it: three tasks where two and then three may be in flight. */
static int crowd_run(void *arg, void **value)
{
    struct crowd *crowd = arg;

    (void)value;
    if (add_seq(&crowd->calls, 1))
        return 0;
    for (int i = 0; i < 3 && !crowd->rc; i++)
        crowd->rc = rp_pool_submit(crowd->pool, gate_pass, &crowd->gate);
    int rc = rp_pool_tune(crowd->pool, 1);
    if (rc < 0)
        crowd->rc = rc;
    return -EPROTO;
}

Test(retry, an_attempt_that_finds_no_room_comes_later)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 2});
    struct crowd crowd = {.pool = pool};
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_retry(pool, crowd_run, &(struct rp_task){.arg = &crowd},
                                      &(struct rp_retry){.delay = MS / 10}, &future),
                 0);
    AWAIT(load_seq(&crowd.gate.inside) == 1 && pool_look(pool).busy == 1);
    nap(20 * MS); /* for attempts, in vain */
    cr_assert_eq(crowd.rc, 0);
    cr_assert_eq(load_seq(&crowd.calls), 1);
    cr_assert_eq(rp_future_get_until(future, NULL, 1), -ETIMEDOUT, "it waits");
    gate_open(&crowd.gate);
    cr_assert_eq(rp_future_get(future, NULL), 0);
    cr_assert_eq(load_seq(&crowd.calls), 2);
    rp_future_destroy(future);
    pool_end(pool);
}

Test(retry, without_a_future_it_goes_on_by_itself)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct flaky flaky = {.good = 3};

    cr_assert_eq(rp_pool_submit_retry(pool, flaky_run, &(struct rp_task){.arg = &flaky},
                                      &(struct rp_retry){.delay = MS / 10}, NULL),
                 0);
    AWAIT(load_seq(&flaky.calls) == 3);
    pool_end(pool);
    cr_assert_eq(load_seq(&flaky.calls), 3);
}

/* 2^(n-1) of the longest delay there is, and of the shortest after more doublings than an integer has bits. */
Test(retry, a_wait_beyond_all_integers_is_the_longest)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct flaky flaky = {0}, far = {0};
    struct rp_future *future = retry_make(
        pool, &flaky, &(struct rp_retry){.attempts = 80, .delay = 1, .max_delay = 1, .jitter = RP_JITTER_NONE});
    struct rp_future *stays =
        retry_make(pool, &far, &(struct rp_retry){.attempts = 80, .delay = INT64_MAX, .max_delay = INT64_MAX});

    cr_assert_eq(rp_future_get(future, NULL), -EPROTO);
    cr_assert_eq(load_seq(&flaky.calls), 80);
    cr_assert_eq(rp_future_get_until(stays, NULL, rp_after(MS)), -ETIMEDOUT);
    cr_assert_eq(rp_future_cancel(stays), 0);
    cr_assert_eq(rp_future_get(stays, NULL), -ECANCELED);
    cr_assert_leq(load_seq(&far.calls), 1);
    rp_future_destroy(future);
    rp_future_destroy(stays);
    pool_end(pool);
}

Test(retry, an_attempt_after_the_release_is_eshutdown)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.allocator = &allocator});
    struct flaky flaky = {0};
    struct rp_future *future = retry_make(pool, &flaky, &(struct rp_retry){.delay = 20 * MS});

    AWAIT(load_seq(&flaky.calls) == 1);
    pool_end(pool);
    int rc = rp_future_get(future, NULL);
    cr_assert(rc == -ESHUTDOWN, "got %d after %u calls", rc, load_seq(&flaky.calls));
    rp_future_destroy(future);
    AWAIT(load_seq(&bank.live) == 0);
}

/* --- memory and forks --------------------------------------------------------------------------------------------- */

/*
 * Adversary: any one allocation fails, from the submit to the last attempt. Holds: the submit says so, or all attempts.
 */
Test(retry, memory_that_is_short_is_returned_and_nothing_is_lost)
{
    unsigned failures = 0;

    for (uint32_t at = 1; at < 10; at++) {
        struct bank bank = {0};
        struct rp_allocator allocator = bank_allocator(&bank);
        struct rp_pool *pool =
            pool_make(1, &(struct rp_pool_options){.allocator = &allocator, .log_level = RP_LOG_NONE});
        struct flaky flaky = {.good = 3};
        struct rp_future *future;

        store_seq(&bank.fail_at, load_seq(&bank.calls) + at);
        int rc = rp_pool_submit_retry(pool, flaky_run, &(struct rp_task){.arg = &flaky}, &(struct rp_retry){.delay = 1},
                                      &future);
        cr_assert(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "submit gave %d", rc);
        cr_assert_eq(future == NULL, rc != 0);
        if (!rc)
            cr_assert_eq(rp_future_get(future, NULL), 0);
        cr_assert_eq(load_seq(&flaky.calls), rc ? 0 : 3);
        rp_future_destroy(future);
        pool_end(pool);
        AWAIT(load_seq(&bank.live) == 0);
        failures += load_seq(&bank.failures);
        cr_assert_eq(load_seq(&bank.strange), 0);
    }
    cr_assert_geq(failures, 2);
}

static int child_body(void *arg)
{
    struct rp_future *future = arg;

    CHECK(rp_future_get(future, NULL) == -ECHILD);
    CHECK(rp_future_cancel(future) == -ECHILD);
    rp_future_destroy(future);
    return 0;
}

/* Adversary: the fork comes while the timer of the next attempt is armed. Holds: it is the parent's alone. */
Test(retry, a_forked_child_refuses_those_of_its_parent)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct flaky flaky = {.good = 2};
    struct rp_future *future =
        retry_make(pool, &flaky, &(struct rp_retry){.delay = 100 * MS, .jitter = RP_JITTER_NONE});

    AWAIT(load_seq(&flaky.calls) == 1);
    cr_assert_eq(in_child(child_body, future), 0);
    cr_assert_eq(rp_future_get(future, NULL), 0);
    cr_assert_eq(load_seq(&flaky.calls), 2);
    rp_future_destroy(future);
    pool_end(pool);
}
