/*
 * Pools that come and go: their numbers, what a removed pool still owes, and submits that run meanwhile.
 */
#include "multi.h"

Test(multi_table, add_gives_the_lowest_free_number)
{
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);

    cr_assert_eq(rp_multi_add(multi, 3), 2);
    cr_assert_eq(rp_multi_cap(multi), 5);
    cr_assert_eq(rp_multi_remove(multi, 0), 0);
    cr_assert_null(rp_multi_pool(multi, 0));
    cr_assert_not_null(rp_multi_pool(multi, 1));
    cr_assert_eq(rp_pool_cap(rp_multi_pool(multi, 2)), 3);
    cr_assert_eq(rp_multi_cap(multi), 4);
    cr_assert_eq(rp_multi_remove(multi, 0), -ENOENT);
    cr_assert_eq(rp_multi_remove(multi, 7), -ENOENT);
    cr_assert_eq(rp_multi_add(multi, 4), 0);
    cr_assert_eq(rp_pool_cap(rp_multi_pool(multi, 0)), 4);
    cr_assert_eq(rp_multi_remove(multi, 2), 0);
    cr_assert_eq(rp_multi_remove(multi, 1), 0);
    cr_assert_eq(rp_multi_remove(multi, 0), -EBUSY);
    cr_assert_eq(rp_multi_add(multi, 1), 1);
    cr_assert_eq(rp_multi_add(multi, RP_WORKERS_MAX + 1), -EINVAL);
    multi_end(multi);
}

/* What it accepted, running or queued, still runs; the call does not wait for it; the books keep it. */
Test(multi_table, a_removed_pool_drains)
{
    struct rp_pool_options pool = {.queue_depth = 8};
    struct rp_multi_options options = {.pool = &pool};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, &options);
    struct rp_release_report report;
    _Atomic uint32_t ran = 0;
    struct gate gate = {0};

    hold_pool(multi, 1, &gate, 1);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 1), count_task, (void *)&ran), 0);
    cr_assert_eq(rp_multi_remove(multi, 1), 0);
    cr_assert_eq(rp_multi_busy(multi), 1);
    cr_assert_eq(rp_multi_waiting(multi), 5);
    cr_assert_eq(rp_multi_cap(multi), 1);
    struct rp_pool_snapshot seen = multi_look(multi);
    cr_assert(adds_up(&seen));
    cr_assert(seen.submitted == 6 && seen.busy == 1 && seen.waiting == 5);
    cr_assert_eq(rp_multi_release_until(multi, rp_after(5 * MS), &report), -ETIMEDOUT);
    cr_assert(report.busy == 1 && report.queued == 5 && report.listed == 1);
    gate_open(&gate);
    cr_assert_eq(rp_multi_release_until(multi, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&ran), 5);
    AWAIT(rp_multi_running(multi) == 0);
    seen = multi_look(multi);
    cr_assert(adds_up(&seen));
    cr_assert_eq(seen.completed, 6);
    cr_assert_eq(rp_multi_destroy(multi), 0);
}

/*
 * Adversary: a thread that makes and removes pools in a row, however little of the CPUs the reactor gets. Holds: where
 * nobody is in a pool there is nothing left of it once remove has returned; unless it has a reactor of its own.
 */
Test(multi_table, of_a_removed_pool_at_rest_nothing_is_left)
{
    struct holdings before = holdings_now();
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool_options pool = {.queue_depth = 8, .allocator = &allocator};

    for (int own = 0; own < 2; own++) {
        pool.own_reactor = own;
        struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
        uint32_t live = load_seq(&bank.live);
        for (int i = 0; i < 20; i++) {
            cr_assert_eq(rp_multi_add(multi, 1), 2);
            cr_assert_gt(load_seq(&bank.live), live);
            cr_assert_eq(rp_multi_remove(multi, 2), 0);
            if (own)
                AWAIT(load_seq(&bank.live) == live);
            cr_assert_eq(load_seq(&bank.live), live);
        }
        multi_end(multi);
        cr_assert_eq(load_seq(&bank.live), 0);
        cr_assert_eq(load_seq(&bank.strange), 0);
    }
    ASSERT_NOTHING_LEFT(before);
}

struct remover {
    struct rp_multi *multi;
    _Atomic int rc;
    _Atomic uint32_t done;
};

static void remove_own(void *arg)
{
    struct remover *me = arg;

    store_seq(&me->rc, rp_multi_remove(me->multi, 1));
    store_seq(&me->done, 1);
}

Test(multi_table, a_task_may_remove_its_own_pool)
{
    struct holdings before = holdings_now();
    struct remover me = {.rc = 1};

    me.multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    cr_assert_eq(rp_pool_submit(rp_multi_pool(me.multi, 1), remove_own, &me), 0);
    AWAIT(load_seq(&me.done));
    cr_assert_eq(load_seq(&me.rc), 0);
    multi_end(me.multi);
    ASSERT_NOTHING_LEFT(before);
}

/* A task that adds a pool whose number is taken meanwhile, so that what it has made must go again. */
struct adder {
    struct rp_multi *multi;
    struct gate stop; /* the superfluous pool's worker ends when it opens */
    _Atomic uint32_t made, done;
    _Atomic int rc;
};

static void configure_adder(void *user, unsigned index, struct rp_pool_options *options)
{
    struct adder *me = user;

    options->min_workers = index == 2;
    if (index == 2 && add_seq(&me->made, 1) == 0)
        rp_multi_add(me->multi, 1);
}

static void stop_late(void *user, unsigned worker, void *local)
{
    (void)worker;
    (void)local;
    gate_pass(&((struct adder *)user)->stop);
}

static void add_inside(void *arg)
{
    struct adder *me = arg;

    store_seq(&me->rc, rp_multi_add(me->multi, 1));
    store_seq(&me->done, 1);
}

static int release_all(struct rp_pool *multi, void *unused)
{
    (void)unused;
    return rp_multi_release_until((struct rp_multi *)(void *)multi, rp_after(PATIENCE), NULL);
}

/*
 * Adversary: who waits for the end of all holds the pool that add has made in vain, while the task that adds is one of
 * those that it waits for. Holds: add does not wait for that pool's end.
 */
Test(multi_table, an_add_inside_a_task_waits_for_nobody_who_waits_for_the_task)
{
    struct adder me = {.rc = 1};
    struct rp_pool_options pool = {.worker_stop = stop_late, .worker_user = &me};
    struct rp_multi_options options = {.pool = &pool, .configure = configure_adder, .configure_user = &me};
    struct caller caller;

    me.multi = multi_make(2, 1, RP_ROUND_ROBIN, &options);
    cr_assert_eq(rp_pool_submit(rp_multi_pool(me.multi, 0), add_inside, &me), 0);
    AWAIT(load_seq(&me.stop.inside) == 1);
    caller_start(&caller, (struct rp_pool *)(void *)me.multi, release_all, NULL);
    AWAIT(rp_multi_is_closed(me.multi));
    gate_open(&me.stop);
    AWAIT(load_seq(&me.done));
    cr_assert(load_seq(&me.rc) == 3 || load_seq(&me.rc) == -ESHUTDOWN, "add gave %d", load_seq(&me.rc));
    cr_assert_eq(caller_end(&caller), 0);
    multi_end(me.multi);
}

static int submit_gated(struct rp_pool *multi, void *gate)
{
    return rp_multi_submit((struct rp_multi *)(void *)multi, gate_pass, gate);
}

Test(multi_table, an_added_pool_lets_blocked_submitters_in)
{
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct gate gate = {0};
    struct caller callers[3];

    hold(multi, &gate, 2);
    AWAIT(load_seq(&gate.inside) == 2);
    for (unsigned i = 0; i < 3; i++) {
        caller_start(&callers[i], (struct rp_pool *)(void *)multi, submit_gated, &gate);
        AWAIT(multi_look(multi).blocked == i + 1);
    }
    cr_assert_eq(rp_multi_waiting(multi), 3);
    cr_assert_eq(rp_multi_remove(multi, 0), 0); /* full as it is, it frees nobody's place */
    cr_assert_eq(multi_look(multi).blocked, 3);
    cr_assert_eq(rp_multi_add(multi, 3), 0);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(caller_end(&callers[i]), 0);
    gate_open(&gate);
    multi_end(multi);
}

/* Whichever pool a place comes free in, the one that waits longest gets it; a pool that hangs keeps nobody. */
Test(multi_table, a_blocked_submitter_takes_the_first_place_anywhere)
{
    struct rp_multi *multi = multi_make(3, 1, RP_LEAST_TASKS, NULL);
    struct gate hung = {0}, freed = {0};
    struct caller caller;

    hold_pool(multi, 0, &hung, 1);
    hold_pool(multi, 1, &hung, 1);
    hold_pool(multi, 2, &freed, 1);
    for (int round = 0; round < 20; round++) {
        struct gate next = {0};
        caller_start(&caller, (struct rp_pool *)(void *)multi, submit_gated, &next);
        AWAIT(multi_look(multi).blocked == 1);
        gate_open(&freed);
        cr_assert_eq(caller_end(&caller), 0);
        AWAIT(load_seq(&next.inside) == 1);
        cr_assert_eq(given(multi, 2), 1);
        gate_open(&next);
        AWAIT(load_seq(&next.passed) == 1 && given(multi, 2) == 0);
        freed = (struct gate){0};
        hold_pool(multi, 2, &freed, 1);
    }
    gate_open(&hung);
    gate_open(&freed);
    multi_end(multi);
}

/* --- under load --------------------------------------------------------------------------------------------------- */

#define SUBMITTERS 3

struct load {
    struct rp_multi *multi;
    struct ledger ledger;
    _Atomic uint32_t stop, wrong;
};

static void *load_main(void *arg)
{
    struct load *load = arg;

    while (!load_seq(&load->stop)) {
        struct rp_task task = {.fn = ledger_run, .arg = &load->ledger, .dropped = ledger_drop};
        int rc = rp_multi_submit_task(load->multi, &task);
        add_seq(rc ? &load->ledger.refused : &load->ledger.accepted, 1);
        if (rc)
            store_seq(&load->wrong, (uint32_t)-rc);
    }
    return NULL;
}

/*
 * Adversary: pools are added and removed as fast as that goes while submitters run under every strategy. No submit may
 * be refused, as a pool is always there, and the removed pools' tasks must all have run when all is over.
 */
Test(multi_table, nothing_is_refused_or_lost_while_pools_come_and_go)
{
    struct holdings before = holdings_now();
    struct load load = {0};
    pthread_t threads[SUBMITTERS];

    load.multi = multi_make(2, 2, RP_ROUND_ROBIN, NULL);
    for (int i = 0; i < SUBMITTERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, load_main, &load), 0);
    for (unsigned round = 0; round < 120; round++) {
        cr_assert_eq(rp_multi_set_strategy(load.multi, (enum rp_strategy)(round % RP_CUSTOM)), 0);
        int added = rp_multi_add(load.multi, 1 + round % 3);
        cr_assert_geq(added, 0);
        uint32_t ran = load_seq(&load.ledger.ran);
        AWAIT(load_seq(&load.ledger.ran) > ran + 20);
        cr_assert_eq(rp_multi_remove(load.multi, round % 2 ? (unsigned)added : round % 3 ? 0 : 1), 0);
        if (!rp_multi_pool(load.multi, 0))
            cr_assert_eq(rp_multi_add(load.multi, 2), 0);
        if (!rp_multi_pool(load.multi, 1))
            cr_assert_eq(rp_multi_add(load.multi, 2), 1);
        if (rp_multi_pool(load.multi, 2))
            cr_assert_eq(rp_multi_remove(load.multi, 2), 0);
        struct rp_pool_snapshot seen = multi_look(load.multi);
        cr_assert(adds_up(&seen));
    }
    store_seq(&load.stop, 1);
    for (int i = 0; i < SUBMITTERS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_eq(load_seq(&load.wrong), 0, "a submit was refused: %s", rp_strerror(-(int)load_seq(&load.wrong)));
    cr_assert_eq(rp_multi_release_until(load.multi, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&load.ledger.ran), load_seq(&load.ledger.accepted));
    cr_assert_eq(multi_look(load.multi).completed, load_seq(&load.ledger.accepted));
    cr_assert_eq(rp_multi_destroy(load.multi), 0);
    ASSERT_NOTHING_LEFT(before);
}
