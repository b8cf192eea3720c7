/*
 * The multi pool's verbs: what they do to all pools together and to each, and its life.
 */
#include "multi.h"

/* --- create ------------------------------------------------------------------------------------------------------- */

Test(multi_create, bad_arguments_are_refused_and_leave_nothing)
{
    struct holdings before = holdings_now();
    const unsigned weights[] = {1, 0};
    struct rp_multi *multi = (struct rp_multi *)1;
    struct rp_pool_options wrong_pool = {.expiry_ns = -1};
    struct rp_multi_options wrong[] = {
        {.reserved = {[7] = 1}}, {.health_ns = -1},    {.hang_ns = -1},
        {.auto_low = 80},        {.weights = weights}, {.pool = &wrong_pool},
    };

    cr_assert_eq(rp_multi_create(NULL, 1, 1, RP_ROUND_ROBIN, NULL), -EINVAL);
    cr_assert_eq(rp_multi_create(&multi, 0, 1, RP_ROUND_ROBIN, NULL), -EINVAL);
    cr_assert_null(multi);
    cr_assert_eq(rp_multi_create(&multi, RP_MULTI_POOLS_MAX + 1, 1, RP_ROUND_ROBIN, NULL), -EINVAL);
    cr_assert_eq(rp_multi_create(&multi, 2, RP_WORKERS_MAX + 1, RP_ROUND_ROBIN, NULL), -EINVAL);
    cr_assert_eq(rp_multi_create(&multi, 2, 1, (enum rp_strategy)(RP_CUSTOM + 1), NULL), -EINVAL);
    cr_assert_eq(rp_multi_create(&multi, 2, 1, (enum rp_strategy) - 1, NULL), -EINVAL);
    cr_assert_eq(rp_multi_create(&multi, 2, 1, RP_CUSTOM, NULL), -EINVAL);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_assert_eq(rp_multi_create(&multi, 2, 1, RP_ROUND_ROBIN, &wrong[i]), -EINVAL, "options %u", i);
    cr_assert_null(multi);
    ASSERT_NOTHING_LEFT(before);
}

Test(multi_create, null_is_refused_by_every_verb)
{
    struct rp_pool_snapshot seen;
    struct rp_task task = {.fn = count_task};

    cr_assert_eq(rp_multi_submit(NULL, count_task, NULL), -EINVAL);
    cr_assert_eq(rp_multi_try_submit(NULL, count_task, NULL), -EINVAL);
    cr_assert_eq(rp_multi_submit_until(NULL, count_task, NULL, 0), -EINVAL);
    cr_assert_eq(rp_multi_submit_task(NULL, &task), -EINVAL);
    cr_assert_eq(rp_multi_submit_batch(NULL, &task, 1), -EINVAL);
    cr_assert_eq(rp_multi_tune(NULL, 1), -EINVAL);
    cr_assert_eq(rp_multi_tune_pool(NULL, 0, 1), -EINVAL);
    cr_assert_eq(rp_multi_prewarm(NULL, 1), -EINVAL);
    cr_assert_eq(rp_multi_release(NULL), -EINVAL);
    cr_assert_eq(rp_multi_release_until(NULL, 0, NULL), -EINVAL);
    cr_assert_eq(rp_multi_reboot(NULL), -EINVAL);
    cr_assert_eq(rp_multi_destroy(NULL), -EINVAL);
    cr_assert_eq(rp_multi_snapshot(NULL, &seen), -EINVAL);
    cr_assert_eq(rp_multi_pools(NULL, NULL, 0), -EINVAL);
    cr_assert_eq(rp_multi_add(NULL, 1), -EINVAL);
    cr_assert_eq(rp_multi_remove(NULL, 0), -EINVAL);
    cr_assert_eq(rp_multi_set_strategy(NULL, RP_RANDOM), -EINVAL);
    cr_assert_eq(rp_multi_set_weight(NULL, 0, 1), -EINVAL);
    cr_assert_eq(rp_multi_strategy(NULL, true), -EINVAL);
    cr_assert_null(rp_multi_pool(NULL, 0));
    cr_assert_eq(rp_multi_running(NULL) + rp_multi_busy(NULL) + rp_multi_free(NULL) + rp_multi_waiting(NULL) +
                     rp_multi_cap(NULL),
                 0);
    cr_assert(rp_multi_is_closed(NULL));
}

Test(multi_create, bad_tasks_are_refused)
{
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct rp_task task = {.fn = count_task, .priority = 9};

    cr_assert_eq(rp_multi_submit(multi, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_multi_submit_task(multi, NULL), -EINVAL);
    cr_assert_eq(rp_multi_submit_task(multi, &task), -EINVAL);
    cr_assert_eq(rp_multi_submit_batch(multi, &task, 1), -EINVAL);
    cr_assert_eq(rp_multi_submit_batch(multi, NULL, 1), -EINVAL);
    cr_assert_eq(rp_multi_submit_batch(multi, NULL, 0), 0);
    cr_assert_eq(rp_multi_release_until(multi, -1, NULL), -EINVAL);
    multi_end(multi);
}

static void configure(void *user, unsigned index, struct rp_pool_options *options)
{
    add_seq((_Atomic uint32_t *)user, 1);
    options->queue_depth = index * 10;
}

Test(multi_create, each_pool_is_made_as_the_options_say)
{
    _Atomic uint32_t configured = 0;
    struct rp_pool_options pool = {.min_workers = 2, .name = "workers"};
    struct rp_multi_options options = {.pool = &pool, .configure = configure, .configure_user = (void *)&configured};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 3, RP_ROUND_ROBIN, &options);

    pool.min_workers = 99; /* it was copied */
    cr_assert_eq(load_seq(&configured), 2);
    cr_assert_eq(rp_multi_running(multi), 4);
    AWAIT(count_threads_named("workers.0") == 2 && count_threads_named("workers.1") == 2);
    for (int i = 0; i < 16; i++)
        cr_assert_eq(rp_multi_try_submit(multi, gate_pass, &gate), 0);
    cr_assert_eq(rp_multi_try_submit(multi, gate_pass, &gate), -EAGAIN); /* 3 and 3, and 10 in the queue of one */
    cr_assert_eq(given(multi, 1), 13);
    cr_assert_eq(rp_multi_add(multi, 1), -EINVAL); /* fewer than min_workers */
    cr_assert_eq(rp_multi_add(multi, 4), 2);
    cr_assert_eq(load_seq(&configured), 4);
    open_and_end(multi, &gate);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

Test(multi_submit, everything_accepted_runs_once)
{
    static const enum rp_strategy all[] = {RP_ROUND_ROBIN, RP_LEAST_TASKS, RP_TWO_CHOICES,
                                           RP_RANDOM,      RP_LOCAL,       RP_AUTO};

    for (unsigned s = 0; s < sizeof(all) / sizeof(all[0]); s++) {
        struct rp_pool_options pool = {.queue_depth = s * 16};
        struct rp_multi *multi = multi_make(3, 2, all[s], &(struct rp_multi_options){.pool = &pool});
        struct ledger ledger = {0};
        struct rp_task batch[40];

        for (int i = 0; i < 40; i++)
            batch[i] = (struct rp_task){.fn = ledger_run,
                                        .dropped = ledger_drop,
                                        .arg = &ledger,
                                        .priority = i / 5 % 3,
                                        .label = "one of forty"};
        for (int i = 0; i < 200; i++)
            cr_assert_eq(rp_multi_submit(multi, ledger_run, &ledger), 0);
        for (int i = 0; i < 20; i++)
            cr_assert_eq(rp_multi_submit_batch(multi, batch, 40), 40);
        for (int i = 0; i < 40; i++)
            cr_assert_eq(rp_multi_submit_task(multi, &batch[i]), 0);
        cr_assert_eq(rp_multi_release_until(multi, rp_after(PATIENCE), NULL), 0);
        cr_assert_eq(load_seq(&ledger.ran), 1040);
        struct rp_pool_snapshot seen = multi_look(multi);
        cr_assert(adds_up(&seen));
        cr_assert_eq(seen.completed, 1040);
        cr_assert_eq(rp_multi_destroy(multi), 0);
    }
}

static void panic_task(void *arg)
{
    (void)arg;
    rp_panic("on purpose");
}

static void count_panic(void *user, const struct rp_panic_info *info)
{
    (void)info;
    add_seq((_Atomic uint32_t *)user, 1);
}

/* What happens in one pool shows in no other. */
Test(multi_submit, pools_are_independent)
{
    _Atomic uint32_t panics = 0, ran = 0;
    struct rp_pool_options pool = {.on_panic = count_panic, .panic_user = (void *)&panics};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 4, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
    struct rp_pool_snapshot other;

    for (int i = 0; i < 50; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 0), panic_task, NULL), 0);
    AWAIT(load_seq(&panics) == 50);
    hold_pool(multi, 0, &gate, 4);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&ran) == 50);
    cr_assert_eq(rp_pool_snapshot(rp_multi_pool(multi, 1), &other), 0);
    cr_assert_eq(other.panicked, 0);
    AWAIT(multi_look(multi).completed == 50);
    cr_assert_eq(multi_look(multi).panicked, 50);
    open_and_end(multi, &gate);
}

/* --- gauges ------------------------------------------------------------------------------------------------------- */

Test(multi_gauges, are_sums_and_are_there_for_each_pool)
{
    struct rp_pool_options pool = {.queue_depth = 4};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(3, 2, RP_LEAST_TASKS, &(struct rp_multi_options){.pool = &pool});
    struct rp_multi_info info[2];

    hold(multi, &gate, 9);
    AWAIT(load_seq(&gate.inside) == 6);
    cr_assert_eq(rp_multi_cap(multi), 6);
    cr_assert_eq(rp_multi_busy(multi), 6);
    cr_assert_eq(rp_multi_running(multi), 6);
    cr_assert_eq(rp_multi_waiting(multi), 3);
    cr_assert_eq(rp_multi_free(multi), 0);
    cr_assert_not(rp_multi_is_closed(multi));
    struct rp_pool_snapshot seen = multi_look(multi);
    cr_assert(adds_up(&seen));
    cr_assert(seen.capacity == 6 && seen.running == 6 && seen.busy == 6 && seen.waiting == 3 && seen.submitted == 9);
    cr_assert_eq(rp_multi_pools(multi, info, 2), 3);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(info[i].index, i);
        cr_assert_eq(info[i].weight, 1);
        cr_assert_eq(info[i].busy, 2);
        cr_assert_eq(info[i].waiting, 1);
        cr_assert_not(info[i].out || info[i].closed);
    }
    cr_assert_eq(rp_multi_tune_pool(multi, 2, RP_UNLIMITED), 0);
    cr_assert_eq(rp_multi_cap(multi), RP_UNLIMITED);
    open_and_end(multi, &gate);
}

Test(multi_gauges, a_pool_is_found_by_its_number)
{
    struct rp_multi *multi = multi_make(2, 2, RP_ROUND_ROBIN, NULL);

    cr_assert_not_null(rp_multi_pool(multi, 1));
    cr_assert_neq(rp_multi_pool(multi, 0), rp_multi_pool(multi, 1));
    cr_assert_null(rp_multi_pool(multi, 2));
    cr_assert_null(rp_multi_pool(multi, UINT_MAX));
    cr_assert_eq(rp_pool_destroy(rp_multi_pool(multi, 0)), -EBUSY);
    cr_assert_eq(rp_pool_cap(rp_multi_pool(multi, 0)), 2);
    multi_end(multi);
}

/* --- tune --------------------------------------------------------------------------------------------------------- */

static unsigned cap_of(struct rp_multi *multi, unsigned index)
{
    return rp_pool_cap(rp_multi_pool(multi, index));
}

Test(multi_tune, divides_a_total_exactly)
{
    struct rp_multi *multi = multi_make(4, 8, RP_ROUND_ROBIN, NULL);

    for (unsigned total = 4; total < 40; total++) {
        cr_assert_eq(rp_multi_tune(multi, total), 0);
        cr_assert_eq(rp_multi_cap(multi), total);
        for (unsigned i = 0; i < 4; i++)
            cr_assert(cap_of(multi, i) == total / 4 || cap_of(multi, i) == total / 4 + 1);
    }
    cr_assert_eq(rp_multi_tune(multi, 3), -EINVAL);
    cr_assert_eq(rp_multi_cap(multi), 39);
    cr_assert_eq(rp_multi_tune_pool(multi, 2, 17), 0);
    cr_assert_eq(cap_of(multi, 2), 17);
    cr_assert_eq(rp_multi_tune_pool(multi, 4, 17), -ENOENT);
    cr_assert_eq(rp_multi_tune(multi, RP_UNLIMITED), 0);
    cr_assert_eq(cap_of(multi, 0), RP_UNLIMITED);
    cr_assert_eq(rp_multi_tune(multi, 0), 0);
    cr_assert_leq(cap_of(multi, 0), CPU_SETSIZE);
    multi_end(multi);
}

Test(multi_tune, divides_by_weight_and_keeps_the_minimum)
{
    const unsigned weights[] = {1, 3};
    struct rp_pool_options pool = {.min_workers = 2};
    struct rp_multi *multi =
        multi_make(2, 4, RP_LEAST_TASKS, &(struct rp_multi_options){.weights = weights, .pool = &pool});

    cr_assert_eq(rp_multi_tune(multi, 42), 0);
    cr_assert_eq(cap_of(multi, 0), 11);
    cr_assert_eq(cap_of(multi, 1), 31);
    cr_assert_eq(rp_multi_tune(multi, 4), -EINVAL); /* 1 and 3 */
    cr_assert_eq(rp_multi_cap(multi), 42);
    multi_end(multi);
}

static int submit_gated(struct rp_pool *multi, void *gate)
{
    return rp_multi_submit((struct rp_multi *)(void *)multi, gate_pass, gate);
}

/* caller_start hands its first argument through. */
static void start(struct caller *caller, struct rp_multi *multi, int (*call)(struct rp_pool *, void *), void *arg)
{
    caller_start(caller, (struct rp_pool *)(void *)multi, call, arg);
}

struct tuner {
    struct rp_multi *multi;
    unsigned total;
    _Atomic uint32_t *ready;
};

static void *tune_main(void *arg)
{
    const struct tuner *me = arg;

    add_seq(me->ready, 1);
    while (load_seq(me->ready) % 2)
        cpu_relax();
    return (void *)(intptr_t)rp_multi_tune(me->multi, me->total);
}

/* Adversary: two at once, which set one pool after the other. Holds: the shares are those of one of them. */
Test(multi_tune, of_two_totals_that_race_one_holds)
{
    struct rp_multi *multi = multi_make(16, 1, RP_ROUND_ROBIN, NULL);
    _Atomic uint32_t ready = 0;

    for (int round = 0; round < 300; round++) {
        struct tuner tuners[2] = {{multi, 16, &ready}, {multi, 160, &ready}};
        pthread_t threads[2];
        void *rc;
        for (int i = 0; i < 2; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, tune_main, &tuners[i]), 0);
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(pthread_join(threads[i], &rc), 0);
            cr_assert_null(rc);
        }
        unsigned each = cap_of(multi, 0);
        cr_assert(each == 1 || each == 10);
        for (unsigned i = 1; i < 16; i++)
            cr_assert_eq(cap_of(multi, i), each, "round %d: pool %u has %u, pool 0 %u", round, i, cap_of(multi, i),
                         each);
    }
    multi_end(multi);
}

Test(multi_tune, growth_lets_blocked_submitters_in)
{
    struct gate gate = {0};
    struct caller caller;
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);

    hold(multi, &gate, 2);
    start(&caller, multi, submit_gated, &gate);
    AWAIT(multi_look(multi).blocked == 1);
    cr_assert_eq(rp_multi_tune(multi, 4), 0);
    cr_assert_eq(caller_end(&caller), 0);
    open_and_end(multi, &gate);
}

Test(multi_prewarm, makes_workers_in_all_pools)
{
    struct rp_multi *multi = multi_make(3, 4, RP_ROUND_ROBIN, NULL);

    cr_assert_eq(rp_multi_prewarm(multi, 6), 6);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_running(rp_multi_pool(multi, i)), 2);
    cr_assert_eq(rp_multi_prewarm(multi, 100), 12);
    multi_end(multi);
}

/* --- release and reboot ------------------------------------------------------------------------------------------- */

Test(multi_release, closes_all_pools_and_reboot_opens_them)
{
    struct gate gate = {0};
    struct caller caller;
    struct rp_release_report report;
    _Atomic uint32_t ran = 0;
    struct rp_multi *multi = multi_make(3, 1, RP_ROUND_ROBIN, NULL);

    hold(multi, &gate, 3);
    AWAIT(load_seq(&gate.inside) == 3);
    start(&caller, multi, submit_gated, &gate);
    AWAIT(multi_look(multi).blocked == 1);
    cr_assert_eq(rp_multi_release(multi), 0);
    cr_assert_eq(caller_end(&caller), -ESHUTDOWN);
    cr_assert(rp_multi_is_closed(multi));
    cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), -ESHUTDOWN);
    cr_assert_eq(rp_multi_tune(multi, 9), -ESHUTDOWN);
    cr_assert_eq(rp_multi_tune_pool(multi, 0, 9), -ESHUTDOWN);
    cr_assert_eq(rp_multi_prewarm(multi, 9), -ESHUTDOWN);
    cr_assert_eq(rp_multi_add(multi, 1), -ESHUTDOWN);
    cr_assert_eq(rp_multi_release(multi), 0);
    cr_assert_eq(rp_multi_release_until(multi, rp_after(5 * MS), &report), -ETIMEDOUT);
    cr_assert_eq(report.busy, 3);
    cr_assert_eq(report.listed, 3);
    cr_assert_eq(rp_multi_reboot(multi), 0);
    cr_assert_not(rp_multi_is_closed(multi));
    gate_open(&gate);
    for (int i = 0; i < 9; i++)
        cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&ran) == 9);
    multi_end(multi);
}

Test(multi_release, one_deadline_holds_over_all_pools)
{
    struct gate gates[3] = {0};
    struct caller opener;
    struct rp_multi *multi = multi_make(3, 1, RP_ROUND_ROBIN, NULL);

    for (unsigned i = 0; i < 3; i++)
        hold_pool(multi, i, &gates[i], 1);
    int64_t deadline = rp_after(20 * MS);
    gate_open(&gates[0]);
    cr_assert_eq(rp_multi_release_until(multi, deadline, NULL), -ETIMEDOUT);
    cr_assert_geq(rp_now(), deadline);
    gate_open(&gates[1]);
    gate_open(&gates[2]);
    cr_assert_eq(rp_multi_release_until(multi, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(rp_multi_running(multi), 0);
    (void)opener;
    cr_assert_eq(rp_multi_destroy(multi), 0);
}

struct inner_wait {
    struct rp_multi *multi;
    _Atomic uint32_t begun, ended;
    uint32_t together;
    _Atomic int rc;
};

static void wait_inside(void *arg)
{
    struct inner_wait *wait = arg;

    add_seq(&wait->begun, 1);
    while (load_seq(&wait->begun) < wait->together)
        nap(MS / 10);
    int rc = rp_multi_release_until(wait->multi, 0, NULL);
    if (rc)
        store_seq(&wait->rc, rc);
    add_seq(&wait->ended, 1);
}

/*
 * Adversary: a task in each of three pools of one worker waits for the end of all, with tasks queued behind each. None
 * can end before the others are let off, and nobody but them can run what is queued.
 */
Test(multi_release, tasks_in_different_pools_wait_without_waiting_for_each_other)
{
    struct rp_pool_options pool = {.queue_depth = 8};
    struct inner_wait wait = {.together = 4}; /* the fourth is ours: all tasks are queued */
    _Atomic uint32_t ran = 0;

    wait.multi = multi_make(3, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(wait.multi, i), wait_inside, &wait), 0);
    for (unsigned i = 0; i < 12; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(wait.multi, i % 3), count_task, (void *)&ran), 0);
    add_seq(&wait.begun, 1);
    AWAIT(load_seq(&wait.ended) == 3);
    cr_assert_eq(load_seq(&wait.rc), 0);
    cr_assert_eq(load_seq(&ran), 12);
    multi_end(wait.multi);
}

/* --- destroy ------------------------------------------------------------------------------------------------------ */

Test(multi_destroy, runs_what_was_accepted_and_leaves_nothing)
{
    struct holdings before = holdings_now();
    struct rp_pool_options pool = {.queue_depth = 64};

    for (int round = 0; round < 20; round++) {
        struct rp_multi *multi = multi_make(3, 2, RP_TWO_CHOICES, &(struct rp_multi_options){.pool = &pool});
        _Atomic uint32_t ran = 0;

        for (int i = 0; i < 100; i++)
            cr_assert_eq(rp_multi_submit(multi, count_task, (void *)&ran), 0);
        cr_assert_eq(rp_multi_destroy(multi), 0);
        cr_assert_eq(load_seq(&ran), 100);
    }
    ASSERT_NOTHING_LEFT(before);
}

struct destroyer {
    struct rp_multi *multi;
    _Atomic int rc;
    _Atomic uint32_t done, ran;
};

static void destroy_inside(void *arg)
{
    struct destroyer *me = arg;

    store_seq(&me->rc, rp_multi_destroy(me->multi));
    store_seq(&me->done, 1);
}

static void count_here(void *arg)
{
    add_seq(&((struct destroyer *)arg)->ran, 1);
}

/* Deferred: the call returns, other pools' tasks still run, and everything is freed after the last. */
Test(multi_destroy, inside_a_task_is_deferred)
{
    struct holdings before = holdings_now();
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool_options pool = {.queue_depth = 8, .allocator = &allocator};

    for (int round = 0; round < 10; round++) {
        struct destroyer me = {.rc = 1};
        struct gate gate = {0};

        me.multi = multi_make(3, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
        hold_pool(me.multi, 2, &gate, 1);
        for (int i = 0; i < 4; i++)
            cr_assert_eq(rp_pool_submit(rp_multi_pool(me.multi, 2), count_here, &me), 0);
        cr_assert_eq(rp_pool_submit(rp_multi_pool(me.multi, 1), destroy_inside, &me), 0);
        AWAIT(load_seq(&me.done));
        cr_assert_eq(load_seq(&me.rc), 0);
        cr_assert_eq(load_seq(&me.ran), 0);
        gate_open(&gate);
        AWAIT(load_seq(&bank.live) == 0);
        cr_assert_eq(load_seq(&me.ran), 4);
        cr_assert_eq(load_seq(&bank.strange), 0);
    }
    ASSERT_NOTHING_LEFT(before);
}

struct racer {
    struct rp_multi *multi;
    _Atomic uint32_t accepted, ran, stop;
};

static void racer_task(void *arg)
{
    add_seq(&((struct racer *)arg)->ran, 1);
}

static void *race_main(void *arg)
{
    struct racer *me = arg;
    int rc = 0;

    while (!rc) {
        rc = rp_multi_submit(me->multi, racer_task, me);
        if (!rc)
            add_seq(&me->accepted, 1);
    }
    return (void *)(intptr_t)rc;
}

/* Adversary: submitters at work while it is destroyed: each sees -ESHUTDOWN in the end, and what was accepted ran. */
Test(multi_destroy, may_race_with_submitters)
{
    for (int round = 0; round < 30; round++) {
        struct racer me = {0};
        pthread_t threads[3];
        void *rc;

        me.multi = multi_make(2, 2, RP_LEAST_TASKS, NULL);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, race_main, &me), 0);
        AWAIT(load_seq(&me.ran) > 100);
        cr_assert_eq(rp_multi_destroy(me.multi), 0);
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(pthread_join(threads[i], &rc), 0);
            cr_assert_eq((intptr_t)rc, -ESHUTDOWN);
        }
        cr_assert_eq(load_seq(&me.accepted), load_seq(&me.ran));
    }
}

static int call_destroy(struct rp_pool *multi, void *arg)
{
    (void)arg;
    return rp_multi_destroy((struct rp_multi *)(void *)multi);
}

Test(multi_destroy, the_second_of_two_is_told)
{
    struct gate gate = {0};
    struct caller first;
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);

    hold(multi, &gate, 2);
    start(&first, multi, call_destroy, NULL);
    AWAIT(rp_multi_is_closed(multi));
    cr_assert_eq(rp_multi_destroy(multi), -EALREADY);
    cr_assert_eq(rp_multi_submit(multi, gate_pass, &gate), -ESHUTDOWN);
    gate_open(&gate);
    cr_assert_eq(caller_end(&first), 0);
}
