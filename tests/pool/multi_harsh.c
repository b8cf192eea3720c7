/*
 * The multi pool where things fail: memory at each allocation, and in a forked child.
 */
#include "multi.h"

/* A life that reaches every place that allocates. Returns what create returned. */
static int live(struct bank *bank, struct ledger *ledger)
{
    struct rp_allocator allocator = bank_allocator(bank);
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof(cpus), &cpus);
    struct rp_pool_options pool = {.allocator = &allocator,
                                   .queue_depth = 4,
                                   .expiry_ns = 1 * MS,
                                   .cpus = &cpus,
                                   .cpus_size = sizeof(cpus),
                                   .log_level = RP_LOG_NONE};
    struct rp_multi_options options = {.pool = &pool, .health_ns = 2 * MS};
    struct rp_multi *multi;
    int rc = rp_multi_create(&multi, 2, 2, RP_LEAST_TASKS, &options);

    if (rc) {
        cr_assert_null(multi);
        return rc;
    }
    int added = rp_multi_add(multi, 2);
    cr_assert(added == 2 || added == -ENOMEM || added == -EAGAIN, "add gave %d", added);
    for (int i = 0; i < 12; i++) {
        struct rp_task task = {
            .fn = ledger_run, .dropped = ledger_drop, .arg = ledger, .priority = i % 3, .overload = RP_OVERLOAD_BLOCK};
        int sent = rp_multi_submit_task(multi, &task);
        cr_assert(sent == 0 || sent == -ENOMEM || sent == -EAGAIN, "submit gave %d", sent);
        add_seq(sent ? &ledger->refused : &ledger->accepted, 1);
    }
    rc = rp_multi_tune(multi, 9);
    cr_assert(rc == 0 || rc == -ENOMEM, "tune gave %d", rc);
    rc = rp_multi_prewarm(multi, 3);
    cr_assert(rc >= 0 || rc == -ENOMEM || rc == -EAGAIN, "prewarm gave %d", rc);
    rc = rp_multi_set_weight(multi, 0, 2);
    cr_assert(rc == 0 || rc == -ENOMEM, "set_weight gave %d", rc);
    unsigned members = (unsigned)rp_multi_pools(multi, NULL, 0);
    rc = rp_multi_remove(multi, 0);
    cr_assert(rc == 0 || rc == -ENOMEM, "remove gave %d", rc);
    cr_assert_eq((unsigned)rp_multi_pools(multi, NULL, 0), members - !rc);
    rc = rp_multi_release_until(multi, rp_after(PATIENCE), NULL);
    cr_assert(rc == 0 || rc == -ENOMEM, "release_until gave %d", rc);
    cr_assert_eq(rp_multi_reboot(multi), 0);
    cr_assert_eq(rp_multi_destroy(multi), 0);
    return 0;
}

static void fail_everywhere(bool on)
{
    struct holdings before = holdings_now();
    bool failed = true;

    for (uint32_t n = 1; failed; n++) {
        struct bank bank = {.fail_at = n, .fail_on = on};
        struct ledger ledger = {0};
        int rc = live(&bank, &ledger);
        cr_assert(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "create gave %d, failure at %u", rc, n);
        cr_assert_eq(load_seq(&bank.live), 0, "%u blocks stay, failure at %u", load_seq(&bank.live), n);
        cr_assert_eq(load_seq(&bank.strange), 0);
        cr_assert(ledger_balances(&ledger), "failure at %u", n);
        failed = load_seq(&bank.failures) > 0;
        cr_assert_lt(n, 10000, "it allocates without end");
    }
    ASSERT_NOTHING_LEFT(before);
}

Test(multi_allocator, any_single_failure_is_told_and_leaks_nothing)
{
    fail_everywhere(false);
}

Test(multi_allocator, memory_that_ends_is_told_and_leaks_nothing)
{
    fail_everywhere(true);
}

/* --- fork --------------------------------------------------------------------------------------------------------- */

#define NEEDS_THREADS_IN_CHILDREN()                                                                                    \
    do {                                                                                                               \
        if (UNDER_TSAN || UNDER_ASAN)                                                                                  \
            cr_skip_test("a sanitizer's own locks come into the child held by threads that are not there");            \
    } while (0)

static int a_new_one_works(void)
{
    struct rp_multi *multi;
    _Atomic uint32_t ran = 0;

    CHECK(rp_multi_create(&multi, 2, 2, RP_TWO_CHOICES, NULL) == 0);
    for (uint32_t i = 0; i < 20; i++)
        CHECK(rp_multi_submit(multi, count_task, (void *)&ran) == 0);
    CHECK(COMES_TRUE(load_seq(&ran) == 20));
    CHECK(rp_multi_destroy(multi) == 0);
    return 0;
}

static int every_call_is_refused(void *arg)
{
    struct rp_multi *multi = arg;
    struct rp_pool_snapshot seen;
    struct rp_multi_info info;
    _Atomic uint32_t ran = 0;
    struct rp_task task = {.fn = count_task, .arg = (void *)&ran};

    CHECK(rp_multi_submit(multi, count_task, (void *)&ran) == -ECHILD);
    CHECK(rp_multi_try_submit(multi, count_task, (void *)&ran) == -ECHILD);
    CHECK(rp_multi_submit_until(multi, count_task, (void *)&ran, rp_after(PATIENCE)) == -ECHILD);
    for (int overload = RP_OVERLOAD_DEFAULT; overload <= RP_OVERLOAD_CALLER_RUNS; overload++) {
        task.overload = overload;
        CHECK(rp_multi_submit_task(multi, &task) == -ECHILD);
        CHECK(rp_multi_submit_batch(multi, &task, 1) == -ECHILD);
    }
    CHECK(rp_multi_tune(multi, 5) == -ECHILD);
    CHECK(rp_multi_tune_pool(multi, 0, 5) == -ECHILD);
    CHECK(rp_multi_prewarm(multi, 2) == -ECHILD);
    CHECK(rp_multi_add(multi, 1) == -ECHILD);
    CHECK(rp_multi_remove(multi, 0) == -ECHILD);
    CHECK(rp_multi_set_weight(multi, 0, 1) == -ECHILD);
    CHECK(rp_multi_set_strategy(multi, RP_RANDOM) == -ECHILD);
    CHECK(rp_multi_strategy(multi, true) == -ECHILD);
    CHECK(rp_multi_release(multi) == -ECHILD);
    CHECK(rp_multi_release_until(multi, rp_after(PATIENCE), NULL) == -ECHILD);
    CHECK(rp_multi_reboot(multi) == -ECHILD);
    CHECK(rp_multi_snapshot(multi, &seen) == -ECHILD);
    CHECK(rp_multi_pools(multi, &info, 1) == -ECHILD);
    CHECK(rp_multi_running(multi) == 0 && rp_multi_busy(multi) == 0 && rp_multi_free(multi) == 0);
    CHECK(rp_multi_waiting(multi) == 0 && rp_multi_cap(multi) == 0);
    CHECK(rp_multi_is_closed(multi));
    CHECK(load_seq(&ran) == 0);
    CHECK(rp_multi_destroy(multi) == 0);
    return 0;
}

static int refused_and_anew(void *arg)
{
    CHECK(every_call_is_refused(arg) == 0);
    return a_new_one_works();
}

/* With a removed pool that drains, and the health check's thread at work. */
Test(multi_fork, is_dead_in_the_child_and_untouched_in_the_parent)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct rp_multi_options options = {.health_ns = 1 * MS};
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;

    for (enum rp_strategy strategy = RP_ROUND_ROBIN; strategy < RP_CUSTOM; strategy++) {
        struct rp_multi *multi = multi_make(3, 2, strategy, &options);
        gate = (struct gate){0};
        hold_pool(multi, 2, &gate, 1);
        cr_assert_eq(rp_multi_remove(multi, 2), 0);
        cr_assert_eq(in_child(refused_and_anew, multi), 0);
        store_seq(&ran, 0);
        for (int i = 0; i < 10; i++)
            cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
        AWAIT(load_seq(&ran) == 10);
        gate_open(&gate);
        multi_end(multi);
    }
}

struct forker {
    struct rp_multi *multi;
    _Atomic int status;
    _Atomic uint32_t done;
};

static void fork_inside(void *arg)
{
    struct forker *me = arg;

    store_seq(&me->status, in_child(refused_and_anew, me->multi));
    store_seq(&me->done, 1);
}

Test(multi_fork, inside_a_task_too)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct forker me = {.status = 1};

    me.multi = multi_make(2, 2, RP_ROUND_ROBIN, NULL);
    cr_assert_eq(rp_multi_submit(me.multi, fork_inside, &me), 0);
    AWAIT(load_seq(&me.done));
    cr_assert_eq(load_seq(&me.status), 0);
    multi_end(me.multi);
}

/* Adversary: forks while pools come and go. The child's destroy must find whole lists. */
struct churn {
    struct rp_multi *multi;
    _Atomic uint32_t stop;
};

static void *churn_main(void *arg)
{
    struct churn *churn = arg;

    while (!load_seq(&churn->stop)) {
        int index = rp_multi_add(churn->multi, 1);
        if (index > 0)
            rp_multi_remove(churn->multi, (unsigned)index);
    }
    return NULL;
}

static int only_destroy(void *arg)
{
    return rp_multi_destroy(arg) ? 1 : 0;
}

Test(multi_fork, may_come_while_pools_come_and_go)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct churn churn = {.multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL)};
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, churn_main, &churn), 0);
    for (int i = 0; i < 60; i++)
        cr_assert_eq(in_child(only_destroy, churn.multi), 0);
    store_seq(&churn.stop, 1);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    multi_end(churn.multi);
}

/* --- what was made with it ---------------------------------------------------------------------------------------- */

static int one(void *arg, void **value)
{
    (void)arg;
    (void)value;
    return 1;
}

static int member(void *arg)
{
    (void)arg;
    return 0;
}

static int use_the_door(void *arg)
{
    struct rp_multi *multi = ((void **)arg)[0];
    struct rp_group *group;
    struct rp_future *future;

    CHECK(rp_multi_submit_future(multi, one, NULL, &future) == -ECHILD);
    CHECK(rp_multi_group_create(&group, multi, NULL) == -ECHILD);
    CHECK(rp_group_submit(((void **)arg)[1], member, NULL) == -ECHILD);
    CHECK(rp_multi_create(&multi, 2, 1, RP_ROUND_ROBIN, NULL) == 0);
    CHECK(rp_multi_submit_future(multi, one, NULL, &future) == 0);
    CHECK(rp_future_get(future, NULL) == 1);
    rp_future_destroy(future);
    CHECK(rp_multi_destroy(multi) == 0);
    return 0;
}

Test(multi_fork, futures_and_groups_through_it_are_refused_and_new_ones_work)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct rp_group *group;

    cr_assert_eq(rp_multi_group_create(&group, multi, NULL), 0);
    void *arg[] = {multi, group};
    cr_assert_eq(in_child(use_the_door, arg), 0);
    rp_group_destroy(group);
    multi_end(multi);
}
