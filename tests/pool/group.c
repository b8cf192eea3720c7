/*
 * Task groups: the count, the first error, and waits that help.
 */
#include "pool/life.h"

#include <ringpool/context.h>
#include <ringpool/future.h>
#include <ringpool/group.h>

static struct rp_group *group_make(struct rp_pool *pool, const struct rp_group_options *options)
{
    struct rp_group *group = NULL;

    cr_assert_eq(rp_group_create(&group, pool, options), 0);
    return group;
}

static int count_one(void *arg)
{
    add_seq((_Atomic uint32_t *)arg, 1);
    return 0;
}

static int fail(void *arg)
{
    (void)arg;
    return -EPROTO;
}

static int until_cancelled(void *arg)
{
    add_seq((_Atomic uint32_t *)arg, 1);
    return rp_ctx_sleep(rp_ctx_current(), rp_after(PATIENCE));
}

Test(group, bad_arguments_are_refused)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_group *group;

    cr_assert_eq(rp_group_create(NULL, pool, NULL), -EINVAL);
    cr_assert_eq(rp_group_create(&group, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_group_create(&group, pool, &(struct rp_group_options){.reserved = {1}}), -EINVAL);
    cr_assert_eq(rp_group_create(&group, pool, &(struct rp_group_options){.deadline = -1}), -EINVAL);
    cr_assert_null(group);
    cr_assert_eq(rp_group_submit(NULL, fail, NULL), -EINVAL);
    cr_assert_eq(rp_group_wait(NULL, 0), -EINVAL);
    cr_assert_eq(rp_group_cancel(NULL, 0), -EINVAL);
    cr_assert_null(rp_group_ctx(NULL));
    rp_group_destroy(NULL);
    group = group_make(pool, NULL);
    cr_assert_eq(rp_group_submit(group, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_group_submit_task(group, fail, NULL), -EINVAL);
    cr_assert_eq(rp_group_submit_task(group, fail, &(struct rp_task){.fn = count_task}), -EINVAL);
    cr_assert_eq(rp_group_submit_task(group, fail, &(struct rp_task){.ctx = rp_group_ctx(group)}), -EINVAL,
                 "a member's context is the group's");
    cr_assert_eq(rp_group_wait(group, -1), -EINVAL);
    cr_assert_eq(rp_group_wait(group, 0), 0, "an empty one has ended");
    rp_group_destroy(group);
    pool_end(pool);
}

Test(group, wait_returns_when_all_have_ended)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 64});
    struct rp_group *group = group_make(pool, NULL);
    _Atomic uint32_t ran = 0;

    for (uint32_t round = 1; round <= 20; round++) {
        for (int i = 0; i < 50; i++)
            cr_assert_eq(rp_group_submit(group, count_one, &ran), 0);
        cr_assert_eq(rp_group_wait(group, 0), 0);
        cr_assert_eq(load_seq(&ran), round * 50);
    }
    rp_group_destroy(group);
    pool_end(pool);
}

Test(group, the_first_error_cancels_the_rest)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 64});
    struct rp_group *group = group_make(pool, NULL);
    _Atomic uint32_t asked = 0;

    cr_assert_eq(rp_group_submit(group, until_cancelled, &asked), 0);
    AWAIT(load_seq(&asked) == 1);
    cr_assert_eq(rp_group_submit(group, fail, NULL), 0);
    cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), -EPROTO);
    cr_assert_eq(rp_group_submit(group, fail, NULL), -ECANCELED);
    cr_assert_eq(rp_ctx_cause(rp_group_ctx(group)), -EPROTO);
    rp_group_destroy(group);
    pool_end(pool);
}

Test(group, one_below_an_ended_context_takes_no_member)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_ctx *ctx;

    cr_assert_eq(rp_ctx_create(&ctx, NULL, 0), 0);
    rp_ctx_cancel(ctx, -EPROTO);
    struct rp_group *group = group_make(pool, &(struct rp_group_options){.ctx = ctx});
    cr_assert_eq(rp_ctx_cause(rp_group_ctx(group)), -EPROTO);
    cr_assert_eq(rp_group_submit(group, fail, NULL), -ECANCELED);
    cr_assert_eq(rp_group_wait(group, 0), 0, "none was ever in it");
    rp_group_destroy(group);
    rp_ctx_destroy(ctx);
    pool_end(pool);
}

Test(group, one_that_keeps_going_runs_all)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 64});
    struct rp_group *group = group_make(pool, &(struct rp_group_options){.keep_going = true});
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 10; i++) {
        cr_assert_eq(rp_group_submit(group, fail, NULL), 0);
        cr_assert_eq(rp_group_submit(group, count_one, &ran), 0);
    }
    cr_assert_eq(rp_group_wait(group, 0), -EPROTO);
    cr_assert_eq(load_seq(&ran), 10);
    rp_group_destroy(group);
    pool_end(pool);
}

Test(group, a_cancel_ends_the_queued_members_at_once)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 64});
    struct rp_group *group = group_make(pool, NULL);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(rp_group_submit(group, count_one, &ran), 0);
    cr_assert_eq(rp_group_wait(group, rp_after(MS)), -ETIMEDOUT);
    cr_assert_eq(rp_group_cancel(group, 0), 0);
    cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), -ECANCELED, "though the worker is still busy");
    rp_group_destroy(group);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&ran), 0);
}

struct scope {
    struct rp_pool *pool;
    int depth;
    _Atomic uint32_t *ran;
};

static int scope_run(void *arg)
{
    struct scope *scope = arg, inner = {scope->pool, scope->depth - 1, scope->ran};
    struct rp_group *group;

    add_seq(scope->ran, 1);
    if (scope->depth == 0)
        return 0;
    int rc = rp_group_create(&group, scope->pool, NULL);
    for (int i = 0; i < 3 && !rc; i++)
        rc = rp_group_submit(group, scope_run, &inner);
    int waited = rp_group_wait(group, 0);
    rp_group_destroy(group);
    return rc ? rc : waited;
}

/* Each scope waits for three inner ones; on one worker all of them run on one stack. */
Test(group, nested_scopes_end_on_any_number_of_workers)
{
    for (unsigned capacity = 1; capacity <= 3; capacity++) {
        struct rp_pool *pool = pool_make(capacity, &(struct rp_pool_options){.queue_depth = 1024});
        _Atomic uint32_t ran = 0;
        struct scope scope = {pool, 5, &ran};
        struct rp_group *group = group_make(pool, NULL);

        cr_assert_eq(rp_group_submit(group, scope_run, &scope), 0);
        cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), 0);
        cr_assert_eq(load_seq(&ran), 364);
        rp_group_destroy(group);
        pool_end(pool);
    }
}

static int waits_for_own(void *arg)
{
    return rp_group_wait(arg, 0);
}

Test(group, a_member_that_waits_for_its_group_is_edeadlk)
{
    struct rp_pool *pool = pool_make(2, NULL);
    struct rp_group *group = group_make(pool, NULL);

    cr_assert_eq(rp_group_submit(group, waits_for_own, group), 0);
    cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), -EDEADLK);
    rp_group_destroy(group);
    pool_end(pool);
}

Test(group, destroyed_early_its_members_go_on)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 64, .allocator = &allocator});
    struct rp_group *group = group_make(pool, NULL);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(rp_group_submit(group, count_one, &ran), 0);
    rp_group_destroy(group);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&ran), 20);
    cr_assert_eq(load_seq(&bank.live), 0, "%u blocks stay", load_seq(&bank.live));
}

/* --- memory and forks --------------------------------------------------------------------------------------------- */

/* A group's life in which the call of that number, counted from the group's making, gets no memory. */
static void memory_round(struct bank *bank, uint32_t fail_at)
{
    struct rp_allocator allocator = bank_allocator(bank);
    struct rp_pool *pool =
        pool_make(2, &(struct rp_pool_options){.allocator = &allocator, .queue_depth = 8, .log_level = RP_LOG_NONE});
    _Atomic uint32_t ran = 0, accepted = 0;
    struct rp_group *group;

    store_seq(&bank->fail_at, load_seq(&bank->calls) + fail_at);
    int rc = rp_group_create(&group, pool, &(struct rp_group_options){.deadline = rp_after(PATIENCE)});
    cr_assert(rc == 0 || rc == -ENOMEM, "create gave %d", rc);
    cr_assert_eq(group == NULL, rc != 0);
    for (int i = 0; i < 4 && !rc; i++) {
        int sent = rp_group_submit(group, count_one, &ran);
        cr_assert(sent == 0 || sent == -ENOMEM || sent == -EAGAIN, "submit gave %d", sent);
        add_seq(&accepted, sent == 0);
    }
    if (!rc)
        cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), 0, "a member that was refused is none");
    cr_assert_eq(load_seq(&ran), load_seq(&accepted));
    rp_group_destroy(group);
    pool_end(pool);
}

Test(group, memory_that_is_short_is_returned_and_nothing_is_lost)
{
    unsigned failures = 0;

    for (uint32_t at = 1; at < 16; at++) {
        struct bank bank = {0};
        memory_round(&bank, at);
        failures += load_seq(&bank.failures);
        cr_assert_eq(load_seq(&bank.live), 0, "%u blocks stay, failure at %u", load_seq(&bank.live), at);
        cr_assert_eq(load_seq(&bank.strange), 0);
    }
    cr_assert_geq(failures, 6, "the group, its context and each member");
}

static int child_body(void *arg)
{
    struct rp_group *group = arg;

    CHECK(rp_group_submit(group, fail, NULL) == -ECHILD);
    CHECK(rp_group_submit_task(group, fail, &(struct rp_task){0}) == -ECHILD);
    CHECK(rp_group_wait(group, 0) == -ECHILD);
    CHECK(rp_group_cancel(group, 0) == -ECHILD);
    rp_group_destroy(group);
    return 0;
}

Test(group, a_forked_child_refuses_those_of_its_parent)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 8});
    struct rp_group *group = group_make(pool, NULL);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    cr_assert_eq(rp_group_submit(group, count_one, &ran), 0);
    cr_assert_eq(in_child(child_body, group), 0);
    gate_open(&gate);
    cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), 0);
    cr_assert_eq(load_seq(&ran), 1);
    rp_group_destroy(group);
    pool_end(pool);
}
