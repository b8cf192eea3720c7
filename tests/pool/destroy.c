/*
 * Destruction in any state, from anywhere, against anybody; and what is left of a pool afterwards: nothing.
 */
#include "life.h"

#include <ringpool/future.h>
#include <ringpool/timer.h>

static int call_destroy(struct rp_pool *pool, void *arg)
{
    (void)arg;
    return rp_pool_destroy(pool);
}

static int call_release_until(struct rp_pool *pool, void *arg)
{
    (void)arg;
    return rp_pool_release_until(pool, 0, NULL);
}

static void assert_gone(struct rp_pool *pool)
{
    cr_assert_eq(rp_pool_running(pool) + rp_pool_busy(pool) + rp_pool_free(pool) + rp_pool_waiting(pool), 0);
    cr_assert_eq(rp_pool_cap(pool), 0);
    cr_assert(rp_pool_is_closed(pool));
}

/* --- states ----------------------------------------------------------------------------------------------------- */

Test(pool_destroy, ends_a_fresh_pool)
{
    struct holdings before = holdings_now();
    struct rp_pool *pool = pool_make(4, NULL);

    cr_assert_eq(rp_pool_destroy(pool), 0);
    assert_gone(pool);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_destroy, ends_a_pool_of_idle_workers)
{
    struct holdings before = holdings_now();
    struct rp_pool_options options = {.prealloc = true, .no_purge = true};
    struct rp_pool *pool = pool_make(16, &options);

    cr_assert_eq(rp_pool_destroy(pool), 0);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_destroy, finishes_what_was_accepted)
{
    struct holdings before = holdings_now();
    struct rp_pool_options options = {.queue_depth = 100};
    struct rp_pool *pool = pool_make(2, &options);
    struct ledger ledger = {0};

    for (int i = 0; i < 100; i++)
        cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_DEFAULT), 0);
    cr_assert_eq(rp_pool_destroy(pool), 0);
    cr_assert_eq(load_seq(&ledger.ran), 100);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_destroy, drops_what_was_queued_by_policy)
{
    struct rp_pool_options options = {.queue_depth = 10, .release_policy = RP_RELEASE_DROP};
    struct rp_pool *pool = pool_make(1, &options);
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct caller caller;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_DEFAULT), 0);
    caller_start(&caller, pool, call_destroy, NULL);
    AWAIT(load_seq(&ledger.dropped) == 10);
    cr_assert_not(load_seq(&caller.returned), "it waits for what runs");
    gate_open(&gate);
    cr_assert_eq(caller_end(&caller), 0);
    cr_assert_eq(load_seq(&ledger.reason), ESHUTDOWN);
    cr_assert_eq(load_seq(&ledger.ran), 0);
}

Test(pool_destroy, ends_a_released_pool_drained_or_not)
{
    struct holdings before = holdings_now();
    struct rp_pool *pool = pool_make(2, NULL);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    cr_assert_eq(rp_pool_release_until(pool, 0, NULL), 0);
    cr_assert_eq(rp_pool_destroy(pool), 0);

    pool = pool_make(2, NULL);
    struct gate gate = {0};
    struct caller caller;
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    cr_assert_eq(rp_pool_release(pool), 0);
    caller_start(&caller, pool, call_destroy, NULL);
    gate_open(&gate);
    cr_assert_eq(caller_end(&caller), 0);
    cr_assert_eq(load_seq(&gate.passed), 1);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_destroy, blocked_submitters_are_told)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct caller callers[4], destroyer;
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    for (int i = 0; i < 4; i++)
        caller_start(&callers[i], pool, call_submit_counting, &ran);
    AWAIT(pool_look(pool).blocked == 4);
    caller_start(&destroyer, pool, call_destroy, NULL);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(caller_end(&callers[i]), -ESHUTDOWN);
    gate_open(&gate);
    cr_assert_eq(caller_end(&destroyer), 0);
    cr_assert_eq(load_seq(&ran), 0);
}

Test(pool_destroy, who_waits_for_the_end_gets_it_or_is_told)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct caller waiter, destroyer;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    caller_start(&waiter, pool, call_release_until, NULL);
    AWAIT(rp_pool_is_closed(pool));
    caller_start(&destroyer, pool, call_destroy, NULL);
    nap(5 * MS); /* for the destroyer to begin; whichever comes first, the claim holds */
    gate_open(&gate);
    int rc = caller_end(&waiter);
    cr_assert(rc == 0 || rc == -ESHUTDOWN, "gave %d", rc);
    cr_assert_eq(caller_end(&destroyer), 0);
}

Test(pool_destroy, a_second_destroyer_is_told)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct caller first;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    caller_start(&first, pool, call_destroy, NULL);
    AWAIT(rp_pool_is_closed(pool));
    cr_assert_eq(rp_pool_destroy(pool), -EALREADY);
    cr_assert_eq(rp_pool_reboot(pool), -ESHUTDOWN, "what dies is not opened again");
    gate_open(&gate);
    cr_assert_eq(caller_end(&first), 0);
}

Test(pool_destroy, a_destroyed_pool_is_closed_and_empty)
{
    struct rp_pool *pool = pool_make(3, NULL);
    struct rp_pool_snapshot seen;
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    cr_assert_eq(rp_pool_destroy(pool), 0);
    assert_gone(pool);
    cr_assert_eq(rp_pool_snapshot(pool, &seen), -ESHUTDOWN);
    cr_assert(seen.closed);
    cr_assert_eq(seen.running, 0);
}

/* --- from inside ------------------------------------------------------------------------------------------------ */

struct suicide {
    struct rp_pool *pool;
    _Atomic uint32_t calls, rc, others;
};

static void suicide_commit(void *arg)
{
    struct suicide *me = arg;

    if (add_seq(&me->calls, 1) == 0)
        store_seq(&me->rc, (uint32_t)-rp_pool_destroy(me->pool));
}

Test(pool_destroy, a_task_may_destroy_its_own_pool)
{
    struct holdings before = holdings_now();
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool_options options = {.queue_depth = 64, .allocator = &allocator, .min_workers = 2};
    struct rp_pool *pool = pool_make(4, &options);
    struct suicide me = {.pool = pool};
    struct gate gate = {0};
    struct ledger ledger = {0};

    for (int i = 0; i < 4; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    cr_assert_eq(rp_pool_submit(pool, suicide_commit, &me), 0);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_DEFAULT), 0);
    gate_open(&gate);
    AWAIT(load_seq(&me.calls) == 1);
    ASSERT_NOTHING_LEFT(before);
    cr_assert_eq(load_seq(&me.rc), 0);
    cr_assert_eq(load_seq(&ledger.ran), 20, "what was accepted still runs");
    cr_assert_eq(load_seq(&bank.live), 0);
    assert_gone(pool);
}

static void panic_with(void *arg)
{
    (void)arg;
    rp_panic("over");
}

static void destroy_on_panic(void *user, const struct rp_panic_info *info)
{
    (void)info;
    suicide_commit(user);
}

Test(pool_destroy, a_panic_handler_may_destroy_the_pool)
{
    struct holdings before = holdings_now();
    struct suicide me = {0};
    struct rp_pool_options options = {.on_panic = destroy_on_panic, .panic_user = &me};

    me.pool = pool_make(2, &options);
    cr_assert_eq(rp_pool_submit(me.pool, panic_with, NULL), 0);
    AWAIT(load_seq(&me.calls) == 1);
    ASSERT_NOTHING_LEFT(before);
    cr_assert_eq(load_seq(&me.rc), 0);
}

static void destroy_at_stop(void *user, unsigned worker, void *local)
{
    (void)worker;
    (void)local;
    suicide_commit(user);
}

Test(pool_destroy, a_worker_that_stops_may_destroy_the_pool)
{
    struct holdings before = holdings_now();
    struct suicide me = {0};
    struct rp_pool_options options = {.worker_stop = destroy_at_stop, .worker_user = &me, .expiry_ns = 5 * MS};
    _Atomic uint32_t ran = 0;

    me.pool = pool_make(2, &options);
    cr_assert_eq(rp_pool_submit(me.pool, count_task, &ran), 0);
    AWAIT(load_seq(&me.calls) >= 1);
    ASSERT_NOTHING_LEFT(before);
    cr_assert_eq(load_seq(&me.rc), 0);
    cr_assert_eq(load_seq(&ran), 1);
}

struct in_place {
    struct rp_pool *pool;
    struct rp_timer *timer;
    struct gate gate;
    _Atomic uint32_t stopped, fired;
    int rc;
    bool in_time;
};

static void note_stop(void *user, unsigned worker, void *local)
{
    struct in_place *me = user;

    (void)worker;
    (void)local;
    add_seq(&me->stopped, 1);
}

static void note_time(struct rp_timer *timer, void *arg)
{
    struct in_place *me = arg;

    (void)timer;
    add_seq(&me->fired, 1);
}

static int destroy_in_place(void *arg, void **value)
{
    struct in_place *me = arg;

    (void)value;
    me->rc = rp_pool_destroy(me->pool);
    gate_open(&me->gate);
    me->in_time = COMES_TRUE(load_seq(&me->stopped) == 1) && rp_timer_arm(me->timer, rp_after(50 * MS)) == 0 &&
                  COMES_TRUE(load_seq(&me->fired) == 1);
    return 42;
}

/* Its last worker has left by then: the reactor, which frees the pool, must not wait for that task. */
Test(pool_destroy, a_future_that_is_run_in_place_may_destroy_the_pool_and_run_on)
{
    struct holdings before = holdings_now();
    struct in_place me = {0};
    struct rp_pool_options options = {.queue_depth = 4, .worker_stop = note_stop, .worker_user = &me};
    struct rp_future *future;

    cr_assert_eq(rp_timer_create(&me.timer, note_time, &me, NULL), 0);
    me.pool = pool_make(1, &options);
    cr_assert_eq(rp_pool_submit(me.pool, gate_pass, &me.gate), 0);
    AWAIT(load_seq(&me.gate.inside));
    cr_assert_eq(rp_pool_submit_future(me.pool, destroy_in_place, &me, &future), 0);
    cr_assert_eq(rp_future_run(future), 0);
    cr_assert_eq(me.rc, 0);
    cr_assert(me.in_time);
    cr_assert_eq(rp_future_get(future, NULL), 42);
    rp_future_destroy(future);
    cr_assert_eq(rp_timer_destroy(me.timer), 0);
    ASSERT_NOTHING_LEFT(before);
    assert_gone(me.pool);
}

Test(pool_destroy, a_task_that_its_submitter_runs_may_destroy_the_pool)
{
    struct holdings before = holdings_now();
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct suicide me = {.pool = pool};
    struct rp_task task = {.fn = suicide_commit, .arg = &me, .overload = RP_OVERLOAD_CALLER_RUNS};

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    cr_assert_eq(load_seq(&me.calls), 1, "by the submitter");
    cr_assert_eq(load_seq(&me.rc), 0);
    cr_assert(rp_pool_is_closed(pool));
    gate_open(&gate);
    ASSERT_NOTHING_LEFT(before);
    assert_gone(pool);
}

struct cross {
    struct rp_pool *other;
    _Atomic uint32_t rc, done;
};

static void destroy_the_other(void *arg)
{
    struct cross *cross = arg;

    store_seq(&cross->rc, (uint32_t)-rp_pool_destroy(cross->other));
    store_seq(&cross->done, 1);
}

Test(pool_destroy, a_task_may_destroy_another_pool)
{
    struct holdings before = holdings_now();
    struct rp_pool_options options = {.prealloc = true};
    struct rp_pool *pool = pool_make(1, NULL);
    struct cross cross = {.other = pool_make(4, &options)};

    cr_assert_eq(rp_pool_submit(pool, destroy_the_other, &cross), 0);
    AWAIT(load_seq(&cross.done));
    cr_assert_eq(load_seq(&cross.rc), 0);
    pool_end(pool);
    ASSERT_NOTHING_LEFT(before);
}

/* --- against others --------------------------------------------------------------------------------------------- */

struct race {
    struct rp_pool *pool;
    struct ledger ledger;
    _Atomic uint32_t started, wrong, destroyed;
};

static void *submit_until_the_end(void *arg)
{
    struct race *race = arg;
    int rc;

    add_seq(&race->started, 1);
    while ((rc = ledger_submit(&race->ledger, race->pool, RP_OVERLOAD_DEFAULT)) == 0)
        ;
    if (rc != -ESHUTDOWN)
        add_seq(&race->wrong, 1);
    return NULL;
}

static void *destroy_once(void *arg)
{
    struct race *race = arg;
    int rc;

    while (load_seq(&race->started) < 3)
        nap(MS / 10);
    rc = rp_pool_destroy(race->pool);
    if (rc == 0)
        add_seq(&race->destroyed, 1);
    else if (rc != -EALREADY)
        add_seq(&race->wrong, 1);
    return NULL;
}

static void *watch_until_the_end(void *arg)
{
    struct race *race = arg;
    struct rp_pool_snapshot seen;
    struct rp_worker_info workers[4];

    while (!rp_pool_is_closed(race->pool)) {
        rp_pool_snapshot(race->pool, &seen);
        rp_pool_workers(race->pool, workers, 4);
        rp_pool_tune(race->pool, 1 + rp_pool_busy(race->pool) % 3);
    }
    return NULL;
}

/*
 * Adversary: three submitters, a watcher that tunes, and two destroyers. One destroyer wins; every submitter gets
 * -ESHUTDOWN, from the closed pool or from the handle that outlives it; every accepted task has run when destroy
 * returns; nothing is left. A call holds the pool by its RCU section or as a guest, and destroy waits for both.
 */
Test(pool_destroy, races_with_submitters_watchers_and_a_second_destroyer)
{
    struct holdings before = holdings_now();

    for (int round = 0; round < 60; round++) {
        struct race race = {.pool = pool_make(2, NULL)};
        pthread_t threads[6];
        void *(*const mains[])(void *) = {submit_until_the_end, submit_until_the_end, submit_until_the_end,
                                          watch_until_the_end,  destroy_once,         destroy_once};
        for (int i = 0; i < 6; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, mains[i], &race), 0);
        for (int i = 0; i < 6; i++)
            cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_assert_eq(load_seq(&race.wrong), 0);
        cr_assert_eq(load_seq(&race.destroyed), 1);
        cr_assert_eq(load_seq(&race.ledger.ran), load_seq(&race.ledger.accepted));
    }
    ASSERT_NOTHING_LEFT(before);
}

/* The same, but the end comes from inside and is deferred. */
Test(pool_destroy, deferred_destruction_races_with_submitters)
{
    struct holdings before = holdings_now();

    for (int round = 0; round < 60; round++) {
        struct race race = {.pool = pool_make(2, NULL)};
        struct suicide me = {.pool = race.pool};
        pthread_t threads[3];
        for (int i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, submit_until_the_end, &race), 0);
        AWAIT(load_seq(&race.started) == 3);
        cr_assert_eq(rp_pool_submit(race.pool, suicide_commit, &me), 0);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(pthread_join(threads[i], NULL), 0);
        AWAIT(ledger_balances(&race.ledger));
        cr_assert_eq(load_seq(&race.wrong), 0);
        cr_assert_eq(load_seq(&me.rc), 0);
        AWAIT(rp_pool_cap(race.pool) == 0); /* freed: the handle is not given to the next round while it is read */
    }
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_destroy, a_thousand_rounds_leave_nothing)
{
    struct holdings before = holdings_now();
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool_options options = {.allocator = &allocator};
    _Atomic uint32_t ran = 0;

    for (uint32_t round = 0; round < 1000; round++) {
        struct rp_pool *pool = pool_make(2, &options);
        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
        cr_assert_eq(rp_pool_destroy(pool), 0);
        cr_assert_eq(load_seq(&ran), round + 1);
        cr_assert_eq(load_seq(&bank.live), 0);
    }
    ASSERT_NOTHING_LEFT(before);
}
