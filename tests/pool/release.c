/*
 * Release, waiting for its end, and reboot: nothing accepted is lost, nobody is left waiting, and a wait that gives up
 * can be taken up again.
 */
#include "life.h"

#include <sched.h>

static int call_release_until(struct rp_pool *pool, void *arg)
{
    (void)arg;
    return rp_pool_release_until(pool, 0, NULL);
}

/* --- closing ---------------------------------------------------------------------------------------------------- */

Test(pool_release, later_submits_are_told)
{
    struct rp_pool *pool = pool_make(2, NULL);
    _Atomic uint32_t ran = 0;
    struct rp_task task = {.fn = count_task, .arg = &ran, .priority = RP_PRIO_HIGH};

    cr_assert_not(rp_pool_is_closed(pool));
    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert(rp_pool_is_closed(pool));
    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), -ESHUTDOWN);
    cr_assert_eq(rp_pool_try_submit(pool, count_task, &ran), -ESHUTDOWN);
    cr_assert_eq(rp_pool_submit_until(pool, count_task, &ran, rp_after(PATIENCE)), -ESHUTDOWN);
    cr_assert_eq(rp_pool_submit_task(pool, &task), -ESHUTDOWN);
    cr_assert_eq(rp_pool_submit_batch(pool, &task, 1), -ESHUTDOWN);
    cr_assert_eq(rp_pool_prewarm(pool, 1), -ESHUTDOWN);
    for (int overload = RP_OVERLOAD_BLOCK; overload <= RP_OVERLOAD_CALLER_RUNS; overload++) {
        task.overload = overload;
        cr_assert_eq(rp_pool_submit_task(pool, &task), -ESHUTDOWN, "policy %d", overload);
    }
    cr_assert_eq(rp_pool_release(pool), 0, "released already");
    cr_assert_eq(rp_pool_release_until(pool, 0, NULL), 0);
    cr_assert_eq(rp_pool_release_until(pool, 0, NULL), 0, "and again");
    cr_assert_eq(load_seq(&ran), 0);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

/* A pool of one worker, held by the gate, with three booked tasks queued behind it. */
static struct rp_pool *pool_loaded(struct gate *gate, struct ledger *ledger, int policy)
{
    struct rp_pool_options options = {.queue_depth = 3, .release_policy = policy};
    struct rp_pool *pool = pool_make(1, &options);

    cr_assert_eq(rp_pool_submit(pool, gate_pass, gate), 0);
    AWAIT(load_seq(&gate->inside) == 1);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(ledger_submit(ledger, pool, RP_OVERLOAD_FAIL), 0);
    cr_assert_eq(rp_pool_waiting(pool), 3);
    return pool;
}

Test(pool_release, queued_tasks_run_by_default)
{
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_pool *pool = pool_loaded(&gate, &ledger, RP_RELEASE_RUN);

    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(load_seq(&gate.passed), 0, "release returns at once");
    gate_open(&gate);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&ledger.ran), 3);
    cr_assert_eq(load_seq(&ledger.dropped), 0);
    cr_assert_eq(rp_pool_running(pool), 0);
    cr_assert_eq(pool_look(pool).completed, 4);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

Test(pool_release, queued_tasks_are_dropped_once_by_policy)
{
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_pool *pool = pool_loaded(&gate, &ledger, RP_RELEASE_DROP);

    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(load_seq(&ledger.dropped), 3, "by the call itself");
    cr_assert_eq(load_seq(&ledger.reason), ESHUTDOWN);
    cr_assert_eq(rp_pool_release(pool), 0);
    gate_open(&gate);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&ledger.ran), 0);
    cr_assert_eq(load_seq(&ledger.dropped), 3);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.dropped, 3);
    cr_assert_eq(seen.completed, 1, "what runs is not interrupted");
    cr_assert_eq(seen.submitted, 4);

    cr_assert_eq(rp_pool_reboot(pool), 0);
    cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_DEFAULT), 0);
    AWAIT(load_seq(&ledger.ran) == 1);
    pool_end(pool);
}

static int call_submit_deadline(struct rp_pool *pool, void *count)
{
    return rp_pool_submit_until(pool, count_task, count, rp_after(PATIENCE));
}

Test(pool_release, blocked_submitters_return_at_once)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct caller callers[6];
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    for (int i = 0; i < 6; i++)
        caller_start(&callers[i], pool, i % 2 ? call_submit_counting : call_submit_deadline, &ran);
    AWAIT(pool_look(pool).blocked == 6);
    cr_assert_eq(rp_pool_release(pool), 0);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(caller_end(&callers[i]), -ESHUTDOWN);
    cr_assert_eq(pool_look(pool).blocked, 0);
    cr_assert_eq(load_seq(&gate.passed), 0);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&ran), 0);
}

/* --- waiting for the end ---------------------------------------------------------------------------------------- */

Test(pool_release, a_wait_that_gives_up_reports_and_may_be_taken_up_again)
{
    struct rp_pool_options options = {.queue_depth = 3};
    struct rp_pool *pool = pool_make(2, &options);
    struct gate gate = {0};
    struct caller caller;
    struct rp_task task = {.fn = gate_pass, .arg = &gate, .label = "slow"};
    struct rp_release_report report, later;
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 2; i++)
        cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(load_seq(&gate.inside) == 2);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    caller_start(&caller, pool, call_submit_counting, &ran);
    AWAIT(pool_look(pool).blocked == 1);

    memset(&report, 0xff, sizeof(report));
    cr_assert_eq(rp_pool_release_until(pool, rp_after(1 * MS), &report), -ETIMEDOUT);
    cr_assert_eq(report.busy, 2);
    cr_assert_eq(report.queued, 3);
    cr_assert_leq(report.blocked, 1, "it may have returned already");
    cr_assert_eq(report.listed, 2);
    for (unsigned i = 0; i < report.listed; i++) {
        cr_assert_str_eq(report.worker[i].label, "slow");
        cr_assert_geq(report.worker[i].running_ns, 0);
    }
    cr_assert_eq(caller_end(&caller), -ESHUTDOWN);

    nap(20 * MS);
    cr_assert_eq(rp_pool_release_until(pool, 1, &later), -ETIMEDOUT, "a deadline in the past");
    cr_assert_eq(later.busy, 2);
    cr_assert_eq(later.queued, 3);
    cr_assert_eq(later.blocked, 0);
    cr_assert_eq(later.listed, 2);
    cr_assert_geq(later.worker[0].running_ns, report.worker[0].running_ns + 20 * MS, "it has aged");
    cr_assert_eq(rp_pool_release_until(pool, rp_after(1 * MS), NULL), -ETIMEDOUT, "without a report");

    gate_open(&gate);
    memset(&report, 0xff, sizeof(report));
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), &report), 0);
    cr_assert_eq(report.busy + report.queued + report.blocked + report.listed, 0);
    cr_assert_eq(load_seq(&ran), 3);
    cr_assert_eq(rp_pool_release_until(pool, -1, NULL), -EINVAL);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

Test(pool_release, a_report_lists_no_more_than_sixteen)
{
    struct rp_pool *pool = pool_make(20, NULL);
    struct gate gate = {0};
    struct rp_release_report report;

    for (int i = 0; i < 20; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 20);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(1 * MS), &report), -ETIMEDOUT);
    cr_assert_eq(report.busy, 20);
    cr_assert_eq(report.listed, 16);
    cr_assert_null(report.worker[0].label);
    gate_open(&gate);
    pool_end(pool);
}

Test(pool_release, all_workers_have_left_when_it_returns_zero)
{
    struct rp_pool_options options = {.name = "leave", .prealloc = true};
    struct rp_pool *pool = pool_make(8, &options);

    cr_assert_eq(rp_pool_release_until(pool, 0, NULL), 0);
    cr_assert_eq(rp_pool_running(pool), 0);
    AWAIT(count_threads_named("leave") == 0);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

Test(pool_release, several_threads_may_wait_for_the_same_end)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct caller callers[4];

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    for (int i = 0; i < 4; i++)
        caller_start(&callers[i], pool, call_release_until, NULL);
    AWAIT(rp_pool_is_closed(pool));
    gate_open(&gate);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(caller_end(&callers[i]), 0);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

/* --- from inside ------------------------------------------------------------------------------------------------ */

struct insider {
    struct rp_pool *pool;
    struct ledger *ledger;
    _Atomic uint32_t *meeting; /* how many insiders have come; all wait for `party` */
    uint32_t party;
    int64_t deadline;
    int rc;
    struct rp_release_report report;
    unsigned own; /* tasks that it submits first */
    _Atomic uint32_t ended;
};

static void release_from_inside(void *arg)
{
    struct insider *me = arg;

    for (unsigned i = 0; i < me->own; i++)
        ledger_submit(me->ledger, me->pool, RP_OVERLOAD_FAIL);
    if (me->meeting) {
        add_seq(me->meeting, 1);
        while (load_seq(me->meeting) < me->party)
            sched_yield();
    }
    me->rc = rp_pool_release_until(me->pool, me->deadline, &me->report);
    store_seq(&me->ended, 1);
}

/* Nobody else could run the queued tasks: the only worker is the one that waits. */
Test(pool_release, the_only_worker_helps_with_what_is_queued)
{
    struct rp_pool_options options = {.queue_depth = 16};
    struct rp_pool *pool = pool_make(1, &options);
    struct ledger ledger = {0};
    struct insider me = {.pool = pool, .ledger = &ledger, .own = 9};

    cr_assert_eq(rp_pool_submit(pool, release_from_inside, &me), 0);
    AWAIT(load_seq(&me.ended));
    cr_assert_eq(me.rc, 0);
    cr_assert_eq(load_seq(&ledger.accepted), 9);
    cr_assert_eq(load_seq(&ledger.ran), 9);
    pool_end(pool);
}

/*
 * Adversary: as many tasks as there are workers wait inside at once, each for all others. They must not wait for each
 * other: a wait from inside ends when only tasks that wait as it does are in flight (has_ended).
 */
Test(pool_release, tasks_that_wait_inside_do_not_wait_for_each_other)
{
    struct rp_pool_options options = {.queue_depth = 16};
    struct rp_pool *pool = pool_make(3, &options);
    struct ledger ledger = {0};
    struct insider insiders[3];
    _Atomic uint32_t meeting = 0;

    for (int i = 0; i < 3; i++) {
        insiders[i] = (struct insider){
            .pool = pool, .ledger = &ledger, .own = 3, .meeting = &meeting, .party = 3, .deadline = rp_after(PATIENCE)};
        cr_assert_eq(rp_pool_submit(pool, release_from_inside, &insiders[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        AWAIT(load_seq(&insiders[i].ended));
        cr_assert_eq(insiders[i].rc, 0, "gave %d", insiders[i].rc);
    }
    cr_assert_eq(load_seq(&ledger.ran), 9);
    pool_end(pool);
}

Test(pool_release, a_task_that_waits_inside_waits_for_the_others)
{
    struct rp_pool *pool = pool_make(2, NULL);
    struct gate gate = {0};
    struct insider me = {.pool = pool, .deadline = rp_after(5 * MS)};
    struct insider again = {.pool = pool};
    struct rp_task task = {.fn = gate_pass, .arg = &gate, .label = "other"};

    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    cr_assert_eq(rp_pool_submit(pool, release_from_inside, &me), 0);
    AWAIT(load_seq(&me.ended));
    cr_assert_eq(me.rc, -ETIMEDOUT);
    cr_assert_eq(me.report.busy, 2, "the other and itself");
    cr_assert_eq(rp_pool_reboot(pool), 0);
    cr_assert_eq(rp_pool_submit(pool, release_from_inside, &again), 0);
    AWAIT(rp_pool_is_closed(pool));
    cr_assert_not(load_seq(&again.ended));
    gate_open(&gate);
    AWAIT(load_seq(&again.ended));
    cr_assert_eq(again.rc, 0);
    pool_end(pool);
}

/* --- reboot ----------------------------------------------------------------------------------------------------- */

Test(pool_release, reboot_opens_a_pool_that_still_drains)
{
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_pool *pool = pool_loaded(&gate, &ledger, RP_RELEASE_RUN);

    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(rp_pool_reboot(pool), 0);
    cr_assert_not(rp_pool_is_closed(pool));
    cr_assert_eq(rp_pool_reboot(pool), 0, "not released: nothing to do");
    cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_FAIL), -EAGAIN, "as full as it was");
    gate_open(&gate);
    AWAIT(load_seq(&ledger.ran) == 3);
    cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_DEFAULT), 0);
    AWAIT(load_seq(&ledger.ran) == 4);
    pool_end(pool);
}

Test(pool_release, a_drained_pool_works_again_after_reboot)
{
    struct rp_pool *pool = pool_make(3, NULL);
    struct ledger ledger = {0};

    for (uint32_t round = 1; round <= 20; round++) {
        for (int i = 0; i < 5; i++)
            cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_DEFAULT), 0);
        cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
        cr_assert_eq(load_seq(&ledger.ran), 5 * round);
        cr_assert_eq(rp_pool_reboot(pool), 0);
    }
    pool_end(pool);
}

Test(pool_release, reboot_wakes_who_waits_for_the_end)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct caller callers[3];

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    for (int i = 0; i < 3; i++)
        caller_start(&callers[i], pool, call_release_until, NULL);
    AWAIT(rp_pool_is_closed(pool));
    while (load_seq(&callers[0].returned) + load_seq(&callers[1].returned) + load_seq(&callers[2].returned) < 3) {
        cr_assert_eq(rp_pool_reboot(pool), 0); /* one may release after the first reboot */
        nap(MS);
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(caller_end(&callers[i]), -ESHUTDOWN);
    gate_open(&gate);
    pool_end(pool);
}

struct reopening {
    struct rp_pool *pool;
    _Atomic uint32_t stop, reboots, waits, wrong;
};

static void *reopen_whenever_closed(void *arg)
{
    struct reopening *r = arg;

    while (!load_seq(&r->stop)) {
        if (!rp_pool_is_closed(r->pool))
            continue;
        if (rp_pool_reboot(r->pool))
            add_seq(&r->wrong, 1);
        add_seq(&r->reboots, 1);
    }
    return NULL;
}

static void *wait_for_the_end(void *arg)
{
    struct reopening *r = arg;

    for (int i = 0; i < 3000; i++) {
        int rc = rp_pool_release_until(r->pool, 0, NULL);
        if (rc && rc != -ESHUTDOWN)
            add_seq(&r->wrong, 1);
        add_seq(&r->waits, 1);
    }
    store_seq(&r->stop, 1);
    return NULL;
}

/*
 * Adversary: a reboot that comes as soon as the pool is closed, perhaps before the one that closed it has begun to
 * wait. The wait must notice, since a pool that is open has no end to wait for; and a worker stands from the reboot on,
 * so that it would not end by chance. What makes it hold: the generation that a waiter compares is that of its closing.
 */
Test(pool_release, a_reboot_just_after_the_closing_is_not_missed)
{
    struct rp_pool_options options = {.min_workers = 1};
    struct reopening r = {.pool = pool_make(1, &options)};
    pthread_t waiter, opener;

    cr_assert_eq(pthread_create(&opener, NULL, reopen_whenever_closed, &r), 0);
    cr_assert_eq(pthread_create(&waiter, NULL, wait_for_the_end, &r), 0);
    uint32_t seen = 0;
    while (!load_seq(&r.stop)) {
        AWAIT(load_seq(&r.stop) || load_seq(&r.waits) != seen); /* one wait that never ends */
        seen = load_seq(&r.waits);
    }
    cr_assert_eq(pthread_join(waiter, NULL), 0);
    cr_assert_eq(pthread_join(opener, NULL), 0);
    cr_assert_eq(load_seq(&r.wrong), 0);
    pool_end(r.pool);
}

/* --- all at once ------------------------------------------------------------------------------------------------ */

struct mix {
    struct rp_pool *pool;
    struct ledger ledger;
    _Atomic uint32_t stop, wrong;
};

static void *mix_submits(void *arg)
{
    static const int overloads[] = {RP_OVERLOAD_BLOCK, RP_OVERLOAD_FAIL, RP_OVERLOAD_DISCARD_NEWEST,
                                    RP_OVERLOAD_DISCARD_OLDEST, RP_OVERLOAD_CALLER_RUNS};
    struct mix *mix = arg;

    for (unsigned i = 0; !load_seq(&mix->stop); i++) {
        int rc = ledger_submit(&mix->ledger, mix->pool, overloads[i % 5]);
        if (rc && rc != -ESHUTDOWN && rc != -EAGAIN)
            add_seq(&mix->wrong, 1);
    }
    return NULL;
}

static void *mix_shakes(void *arg)
{
    struct mix *mix = arg;

    for (unsigned i = 0; !load_seq(&mix->stop); i++) {
        int rc = i % 5 == 4 ? rp_pool_release_until(mix->pool, rp_after(MS), NULL) : rp_pool_release(mix->pool);
        if (rc && rc != -ETIMEDOUT && rc != -ESHUTDOWN)
            add_seq(&mix->wrong, 1);
        rc = rp_pool_tune(mix->pool, 1 + i % 4);
        if (rc && rc != -ESHUTDOWN)
            add_seq(&mix->wrong, 1);
        if (rp_pool_reboot(mix->pool))
            add_seq(&mix->wrong, 1);
        nap(MS / 5);
    }
    return NULL;
}

/*
 * Adversary: releases, reboots and tunes against submitters of every policy. Every accepted task must meet exactly one
 * fate, and every submitter must return: the closed bit and the claim stand in one word, so a submit is either before
 * a release and drained, or after it and refused.
 */
static void mix_run(int policy)
{
    struct rp_pool_options options = {.queue_depth = 4, .release_policy = policy, .min_workers = 1};
    struct mix mix = {.pool = pool_make(2, &options)};
    pthread_t threads[5];

    for (int i = 0; i < 5; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i < 2 ? mix_shakes : mix_submits, &mix), 0);
    nap(400 * MS);
    store_seq(&mix.stop, 1);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_eq(rp_pool_release_until(mix.pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&mix.wrong), 0);
    cr_assert(ledger_balances(&mix.ledger), "accepted %u, ran %u, dropped %u", load_seq(&mix.ledger.accepted),
              load_seq(&mix.ledger.ran), load_seq(&mix.ledger.dropped));
    struct rp_pool_snapshot seen = pool_look(mix.pool);
    cr_assert_eq(seen.submitted, load_seq(&mix.ledger.accepted));
    cr_assert_eq(seen.completed, load_seq(&mix.ledger.ran));
    cr_assert_eq(seen.dropped, load_seq(&mix.ledger.dropped));
    cr_assert_eq(seen.rejected, load_seq(&mix.ledger.refused));
    cr_assert_eq(rp_pool_destroy(mix.pool), 0);
}

Test(pool_release, submits_that_race_release_reboot_and_tune_run_once)
{
    mix_run(RP_RELEASE_RUN);
}

Test(pool_release, submits_that_race_release_reboot_and_tune_run_or_are_dropped_once)
{
    mix_run(RP_RELEASE_DROP);
}
