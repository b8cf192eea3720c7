/*
 * Contexts: they end once, with all below them; and what that does to tasks, submitters and futures.
 */
#include "pool/life.h"

#include <ringpool/context.h>
#include <ringpool/future.h>
#include <ringpool/group.h>
#include <ringpool/retry.h>

static struct rp_ctx *ctx_make(struct rp_ctx *parent, int64_t deadline)
{
    struct rp_ctx *ctx = NULL;

    cr_assert_eq(rp_ctx_create(&ctx, parent, deadline), 0);
    return ctx;
}

static struct rp_pool *pool_shut(unsigned capacity, unsigned depth, struct gate *gate)
{
    struct rp_pool *pool =
        pool_make(capacity, &(struct rp_pool_options){.queue_depth = depth, .log_level = RP_LOG_NONE});

    for (unsigned i = 0; i < capacity; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, gate), 0);
    AWAIT(load_seq(&gate->inside) == capacity);
    return pool;
}

Test(context, bad_arguments_are_refused)
{
    struct rp_ctx *ctx;

    cr_assert_eq(rp_ctx_create(NULL, NULL, 0), -EINVAL);
    cr_assert_eq(rp_ctx_create(&ctx, NULL, -1), -EINVAL);
    cr_assert_eq(rp_ctx_create_with(&ctx, NULL, &(struct rp_ctx_options){.reserved = {1}}), -EINVAL);
    cr_assert_null(ctx);
    cr_assert_eq(rp_ctx_sleep(NULL, 0), -EINVAL);
    cr_assert(!rp_ctx_done(NULL));
    cr_assert_eq(rp_ctx_err(NULL), 0);
    cr_assert_null(rp_ctx_current());
    rp_ctx_cancel(NULL, 0);
    rp_ctx_destroy(NULL);
}

Test(context, a_cancel_reaches_all_below_and_nobody_beside)
{
    struct rp_ctx *root = ctx_make(NULL, 0), *left = ctx_make(root, 0), *right = ctx_make(root, 0);
    struct rp_ctx *below = ctx_make(left, 0);

    rp_ctx_cancel(left, -EPROTO);
    cr_assert(rp_ctx_done(left) && rp_ctx_done(below));
    cr_assert(!rp_ctx_done(root) && !rp_ctx_done(right));
    cr_assert_eq(rp_ctx_err(below), -ECANCELED);
    cr_assert_eq(rp_ctx_cause(below), -EPROTO);
    rp_ctx_cancel(root, 0);
    cr_assert_eq(rp_ctx_cause(below), -EPROTO, "the first cause stays");
    cr_assert_eq(rp_ctx_cause(right), -ECANCELED);
    struct rp_ctx *late = ctx_make(below, 0);
    cr_assert_eq(rp_ctx_cause(late), -EPROTO, "born ended");
    rp_ctx_destroy(root);
    rp_ctx_destroy(left);
    rp_ctx_destroy(right);
    rp_ctx_destroy(below);
    rp_ctx_destroy(late);
}

Test(context, a_positive_cause_counts_as_its_negative)
{
    struct rp_ctx *ctx = ctx_make(NULL, 0), *late = ctx_make(NULL, 0);

    rp_ctx_cancel(ctx, EPROTO);
    cr_assert_eq(rp_ctx_err(ctx), -ECANCELED);
    cr_assert_eq(rp_ctx_cause(ctx), -EPROTO);
    rp_ctx_cancel(late, ETIMEDOUT);
    cr_assert_eq(rp_ctx_err(late), -ETIMEDOUT);
    rp_ctx_destroy(ctx);
    rp_ctx_destroy(late);
}

Test(context, none_has_no_deadline_no_cause_and_no_value)
{
    struct rp_ctx *ctx = ctx_make(NULL, 0);

    cr_assert_eq(rp_ctx_deadline(NULL), 0);
    cr_assert_eq(rp_ctx_cause(NULL), 0);
    cr_assert_null(rp_ctx_value(NULL, &ctx));
    cr_assert_null(rp_ctx_value(ctx, NULL), "NULL is no key, not that of a context without one");
    cr_assert_null(rp_ctx_hold(NULL));
    rp_ctx_destroy(ctx);
}

Test(context, a_sleep_ends_at_its_deadline_or_with_the_context)
{
    struct rp_ctx *ctx = ctx_make(NULL, 0), *brief = ctx_make(NULL, rp_after(MS));
    int64_t deadline = rp_after(2 * MS);

    cr_assert_eq(rp_ctx_sleep(ctx, -1), -EINVAL);
    cr_assert_eq(rp_ctx_sleep(ctx, deadline), 0);
    cr_assert_geq(rp_now(), deadline);
    cr_assert_eq(rp_ctx_sleep(ctx, 1), 0, "that has passed");
    cr_assert_eq(rp_ctx_sleep(brief, 0), -ETIMEDOUT);
    rp_ctx_cancel(ctx, -EPROTO);
    cr_assert_eq(rp_ctx_sleep(ctx, 0), -ECANCELED);
    rp_ctx_destroy(ctx);
    rp_ctx_destroy(brief);
}

Test(context, a_chain_of_100000_ends_and_is_freed_in_constant_stack)
{
    struct rp_ctx *root = ctx_make(NULL, 0), *at = rp_ctx_hold(root);

    for (int i = 0; i < 100000; i++) {
        struct rp_ctx *next = ctx_make(at, 0);
        rp_ctx_destroy(at);
        at = next;
    }
    rp_ctx_cancel(root, 0);
    cr_assert(rp_ctx_done(at));
    rp_ctx_destroy(root);
    rp_ctx_destroy(at);
}

Test(context, a_deadline_ends_it_and_a_parents_earlier_one_holds)
{
    int64_t soon = rp_after(5 * MS);
    struct rp_ctx *parent = ctx_make(NULL, soon), *child = ctx_make(parent, rp_after(PATIENCE));
    struct rp_ctx *past = ctx_make(NULL, 1);

    cr_assert_eq(rp_ctx_err(past), -ETIMEDOUT);
    cr_assert_eq(rp_ctx_deadline(child), soon);
    cr_assert_eq(rp_ctx_sleep(child, 0), -ETIMEDOUT);
    cr_assert_eq(rp_ctx_cause(child), -ETIMEDOUT);
    cr_assert(rp_now() >= soon, "never early");
    rp_ctx_destroy(past);
    rp_ctx_destroy(parent);
    rp_ctx_destroy(child);
}

Test(context, a_queued_task_of_a_cancelled_context_is_dropped)
{
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_pool *pool = pool_shut(1, 4, &gate);
    struct rp_ctx *ctx = ctx_make(NULL, 0);
    struct rp_task task = {.fn = ledger_run, .dropped = ledger_drop, .arg = &ledger, .ctx = ctx};

    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    cr_assert_eq(rp_pool_submit_batch(pool, (struct rp_task[]){task, task}, 2), 2);
    rp_ctx_cancel(ctx, 0);
    cr_assert_eq(rp_pool_submit_task(pool, &task), -ECANCELED);
    rp_ctx_destroy(ctx); /* the tasks hold it */
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&ledger.dropped), 3);
    cr_assert_eq(load_seq(&ledger.reason), ECANCELED);
    cr_assert_eq(load_seq(&ledger.ran), 0);
}

static int call_submit_task(struct rp_pool *pool, void *task)
{
    return rp_pool_submit_task(pool, task);
}

/* Adversary: the pool is full and stays so; only the context can end the submitter's wait. */
Test(context, a_blocked_submitter_returns_when_its_context_ends)
{
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_pool *pool = pool_shut(1, 0, &gate);

    for (int i = 0; i < 2; i++) {
        struct rp_ctx *ctx = ctx_make(NULL, i ? rp_after(5 * MS) : 0);
        struct rp_task task = {.fn = ledger_run, .dropped = ledger_drop, .arg = &ledger, .ctx = ctx};
        struct caller caller;

        caller_start(&caller, pool, call_submit_task, &task);
        if (!i) {
            AWAIT(pool_look(pool).blocked == 1);
            rp_ctx_cancel(ctx, 0);
        }
        cr_assert_eq(caller_end(&caller), i ? -ETIMEDOUT : -ECANCELED);
        rp_ctx_destroy(ctx);
    }
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&ledger.ran) + load_seq(&ledger.dropped), 0);
}

static void wait_for_end(void *arg)
{
    struct rp_ctx *ctx = arg;

    while (!rp_ctx_done(ctx))
        nap(MS / 10);
}

Test(context, a_run_timeout_cancels_the_tasks_context)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.log_level = RP_LOG_NONE});
    struct rp_ctx *ctx = ctx_make(NULL, 0);

    cr_assert_eq(
        rp_pool_submit_task(pool, &(struct rp_task){.fn = wait_for_end, .arg = ctx, .ctx = ctx, .timeout = 5 * MS}), 0);
    pool_end(pool);
    cr_assert_eq(rp_ctx_err(ctx), -ETIMEDOUT);
    rp_ctx_destroy(ctx);
}

static int nothing(void *arg, void **value)
{
    (void)arg, (void)value;
    return 0;
}

Test(context, a_queued_future_of_a_cancelled_context_is_done_at_once)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, 200, &gate);
    struct rp_ctx *ctx = ctx_make(NULL, 0);
    struct rp_future *futures[100];

    for (int i = 0; i < 100; i++)
        cr_assert_eq(rp_pool_submit_future_task(pool, nothing, &(struct rp_task){.ctx = ctx}, &futures[i]), 0);
    rp_ctx_cancel(ctx, 0);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(rp_future_try_get(futures[i], NULL), -ECANCELED);
        rp_future_destroy(futures[i]);
    }
    rp_ctx_destroy(ctx);
    gate_open(&gate);
    pool_end(pool);
}

/* Adversary: ten thousand deadlines within some milliseconds, while the tasks start and end and contexts are freed. */
Test(context, a_storm_of_deadlines_ends_each_future_once)
{
    enum { STORM = 10000 };
    static struct rp_future *futures[STORM];
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 2 * STORM});
    unsigned ran = 0, late = 0, refused = 0;

    for (int i = 0; i < STORM; i++) {
        struct rp_ctx *ctx = ctx_make(NULL, rp_after((i % 50 + 1) * MS / 10));
        int rc = rp_pool_submit_future_task(pool, nothing, &(struct rp_task){.ctx = ctx}, &futures[i]);
        cr_assert(rc == 0 || rc == -ETIMEDOUT);
        refused += rc != 0;
        rp_ctx_destroy(ctx);
    }
    for (int i = 0; i < STORM; i++) {
        if (!futures[i])
            continue;
        int rc = rp_future_get(futures[i], NULL);
        cr_assert(rc == 0 || rc == -ETIMEDOUT);
        rc ? late++ : ran++;
        rp_future_destroy(futures[i]);
    }
    cr_assert_eq(ran + late + refused, STORM);
    pool_end(pool);
}

static const char key;

struct levels {
    struct rp_pool *pool;
    int left;
    void *seen;
};

static int level_run(void *arg, void **value)
{
    struct levels *levels = arg;
    struct rp_future *next;

    if (levels->left-- == 0) {
        *value = rp_ctx_value(rp_ctx_current(), &key);
        return 0;
    }
    int rc = rp_pool_submit_future(levels->pool, level_run, levels, &next);
    if (!rc) {
        rc = rp_future_get(next, value);
        rp_future_destroy(next);
    }
    return rc;
}

Test(context, values_travel_through_three_levels_of_submits)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 8});
    struct levels levels = {.pool = pool, .left = 3};
    struct rp_ctx *ctx;
    struct rp_future *future;
    void *value = NULL;

    cr_assert_eq(rp_ctx_create_with(&ctx, NULL, &(struct rp_ctx_options){.key = &key, .value = &levels}), 0);
    struct rp_ctx *below = ctx_make(ctx, 0);
    cr_assert_eq(rp_ctx_value(below, &key), &levels);
    cr_assert_null(rp_ctx_value(below, &levels));
    cr_assert_eq(rp_pool_submit_future_task(pool, level_run, &(struct rp_task){.arg = &levels, .ctx = below}, &future),
                 0);
    cr_assert_eq(rp_future_get(future, &value), 0);
    cr_assert_eq(value, &levels);
    rp_future_destroy(future);
    rp_ctx_destroy(below);
    rp_ctx_destroy(ctx);
    pool_end(pool);
}

static int member_looks(void *arg)
{
    *(void **)arg = rp_ctx_value(rp_ctx_current(), &key);
    return 0;
}

static int next_looks(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    (void)value;
    *next_value = rp_ctx_value(rp_ctx_current(), &key);
    return result;
}

static int attempt_looks(void *arg, void **value)
{
    *value = rp_ctx_value(rp_ctx_current(), &key);
    return add_seq((_Atomic uint32_t *)arg, 1) ? 0 : -EAGAIN; /* the second attempt, after a timer */
}

struct works {
    struct rp_pool *pool;
    void *member, *next, *attempt;
    _Atomic uint32_t attempts;
    int rc;
};

/* Inside a task with a context: submits by all verbs, none of which names one. */
static int works_run(void *arg, void **value)
{
    struct works *works = arg;
    struct rp_future *first = NULL, *next = NULL, *attempt = NULL;
    struct rp_group *group = NULL;
    const struct rp_task task = {.arg = &works->attempts};
    const struct rp_retry policy = {.delay = 1};
    _Atomic uint32_t second = 1;

    (void)value;
    int rc = rp_group_create(&group, works->pool, NULL);
    rc = rc ? rc : rp_group_submit(group, member_looks, &works->member);
    rc = rc ? rc : rp_group_wait(group, 0);
    rc = rc ? rc : rp_pool_submit_future(works->pool, attempt_looks, &second, &first);
    rc = rc ? rc : rp_future_then(first, NULL, next_looks, NULL, &next);
    rc = rc ? rc : rp_pool_submit_retry(works->pool, attempt_looks, &task, &policy, &attempt);
    rc = rc ? rc : rp_future_get(next, &works->next);
    rc = rc ? rc : rp_future_get(attempt, &works->attempt);
    rp_future_destroy(first);
    rp_future_destroy(next);
    rp_future_destroy(attempt);
    rp_group_destroy(group);
    return rc;
}

Test(context, values_travel_to_groups_continuations_and_retries)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 8});
    struct works works = {.pool = pool};
    struct rp_future *future;
    struct rp_ctx *ctx;

    cr_assert_eq(rp_ctx_create_with(&ctx, NULL, &(struct rp_ctx_options){.key = &key, .value = &works}), 0);
    cr_assert_eq(rp_pool_submit_future_task(pool, works_run, &(struct rp_task){.arg = &works, .ctx = ctx}, &future), 0);
    cr_assert_eq(rp_future_get(future, NULL), 0);
    cr_assert_eq(works.member, &works);
    cr_assert_eq(works.next, &works);
    cr_assert_eq(works.attempt, &works);
    rp_future_destroy(future);
    rp_ctx_destroy(ctx);
    pool_end(pool);
}

Test(context, a_task_without_memory_for_it_is_refused_and_holds_nothing)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.allocator = &allocator, .log_level = RP_LOG_NONE});
    struct rp_ctx *ctx = ctx_make(NULL, 0);
    _Atomic uint32_t ran = 0;
    const struct rp_task task = {.fn = count_task, .arg = (void *)&ran, .ctx = ctx};

    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(load_seq(&ran) == 1);
    store_seq(&bank.fail_on, 1);
    store_seq(&bank.fail_at, load_seq(&bank.calls) + 1);
    cr_assert_eq(rp_pool_submit_task(pool, &task), -ENOMEM);
    store_seq(&bank.fail_at, 0);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(load_seq(&ran) == 2);
    rp_ctx_destroy(ctx);
    pool_end(pool);
    cr_assert_eq(load_seq(&bank.live), 0);
}

struct plain {
    struct rp_pool *pool;
    struct rp_ctx *ctx, *seen;
    void *value;
    int rc;
    _Atomic uint32_t done;
};

static void plain_run(void *arg)
{
    struct plain *plain = arg;
    struct rp_future *future = NULL;
    _Atomic uint32_t second = 1;

    plain->seen = rp_ctx_current();
    plain->rc = rp_pool_submit_future(plain->pool, attempt_looks, &second, &future);
    if (!plain->rc)
        plain->rc = rp_future_get(future, &plain->value);
    rp_future_destroy(future);
    store_seq(&plain->done, 1);
}

Test(context, that_of_a_plain_task_is_current_in_it_and_goes_on_to_what_it_submits)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 8});
    struct plain plain = {.pool = pool}, without = {.pool = pool, .seen = (struct rp_ctx *)&plain};

    cr_assert_eq(rp_ctx_create_with(&plain.ctx, NULL, &(struct rp_ctx_options){.key = &key, .value = &plain}), 0);
    cr_assert_eq(rp_pool_submit_task(pool, &(struct rp_task){.fn = plain_run, .arg = &plain, .ctx = plain.ctx}), 0);
    cr_assert_eq(rp_pool_submit_task(pool, &(struct rp_task){.fn = plain_run, .arg = &without}), 0);
    AWAIT(load_seq(&plain.done) && load_seq(&without.done));
    cr_assert_eq(plain.rc, 0);
    cr_assert_eq(plain.seen, plain.ctx);
    cr_assert_eq(plain.value, &plain);
    cr_assert_eq(without.rc, 0);
    cr_assert_null(without.seen);
    cr_assert_null(without.value);
    rp_ctx_destroy(plain.ctx);
    pool_end(pool);
}

Test(context, memory_that_is_short_is_returned)
{
    struct bank bank = {.fail_at = 1};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_ctx *ctx;

    cr_assert_eq(rp_ctx_create_with(&ctx, NULL, &(struct rp_ctx_options){.allocator = &allocator}), -ENOMEM);
    cr_assert_null(ctx);
    cr_assert_eq(rp_ctx_create_with(&ctx, NULL, &(struct rp_ctx_options){.allocator = &allocator}), 0);
    struct rp_ctx *child = ctx_make(ctx, rp_after(PATIENCE));
    cr_assert_eq(load_seq(&bank.live), 2, "a child takes its memory from its parent's allocator");
    rp_ctx_destroy(ctx);
    rp_ctx_destroy(child);
    cr_assert_eq(load_seq(&bank.live), 0);
}

static int child_body(void *arg)
{
    struct rp_ctx *ctx = arg, *below;

    CHECK(rp_ctx_err(ctx) == 0);
    CHECK(rp_ctx_create(&below, ctx, 0) == -ECHILD);
    CHECK(rp_ctx_sleep(ctx, 0) == -ECHILD);
    rp_ctx_cancel(ctx, 0);
    CHECK(!rp_ctx_done(ctx));
    rp_ctx_destroy(ctx);
    return 0;
}

Test(context, a_forked_child_reads_and_destroys_those_of_its_parent)
{
    struct rp_ctx *ctx = ctx_make(NULL, rp_after(PATIENCE));

    cr_assert_eq(in_child(child_body, ctx), 0);
    rp_ctx_cancel(ctx, 0);
    cr_assert(rp_ctx_done(ctx));
    rp_ctx_destroy(ctx);
}
