/*
 * Tuning: growth is felt at once, shrinking interrupts nobody, and what cannot be tuned is told.
 */
#include "life.h"

#include <sched.h>

Test(pool_tune, growth_lets_blocked_submitters_in)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct caller callers[3];

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (int i = 0; i < 3; i++)
        caller_start(&callers[i], pool, call_submit_gated, &gate);
    AWAIT(pool_look(pool).blocked == 3);
    cr_assert_eq(rp_pool_waiting(pool), 3);

    cr_assert_eq(rp_pool_tune(pool, 4), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(caller_end(&callers[i]), 0);
    AWAIT(load_seq(&gate.inside) == 4);
    cr_assert_eq(rp_pool_waiting(pool), 0);
    cr_assert_eq(rp_pool_busy(pool), 4);
    gate_open(&gate);
    pool_end(pool);
}

Test(pool_tune, growth_starts_queued_tasks)
{
    struct rp_pool_options options = {.queue_depth = 8};
    struct rp_pool *pool = pool_make(1, &options);
    struct gate gate = {0};

    for (int i = 0; i < 5; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    cr_assert_eq(rp_pool_tune(pool, 5), 0);
    AWAIT(load_seq(&gate.inside) == 5);
    gate_open(&gate);
    pool_end(pool);
}

/* How many tasks ran at the same time at most. */
struct crowd {
    _Atomic uint32_t now, most, ran;
};

static void crowd_join(void *arg)
{
    struct crowd *crowd = arg;
    uint32_t now = add_seq(&crowd->now, 1) + 1, most = load_seq(&crowd->most);

    while (most < now && !cas_seq(&crowd->most, &most, now))
        most = load_seq(&crowd->most);
    sched_yield();
    sub_seq(&crowd->now, 1);
    add_seq(&crowd->ran, 1);
}

Test(pool_tune, shrinking_a_saturated_pool_interrupts_nothing_and_ends_at_the_new_number)
{
    struct rp_pool_options options = {.name = "shrink", .no_purge = true};
    struct rp_pool *pool = pool_make(6, &options);
    struct gate gate = {0};
    struct crowd crowd = {0};

    for (int i = 0; i < 6; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 6);
    cr_assert_eq(rp_pool_tune(pool, 2), 0);
    cr_assert_eq(rp_pool_cap(pool), 2);
    cr_assert_eq(rp_pool_busy(pool), 6, "all go on");
    cr_assert_eq(rp_pool_free(pool), 0);
    cr_assert_eq(rp_pool_try_submit(pool, gate_pass, &gate), -EAGAIN);

    gate_open(&gate);
    AWAIT(load_seq(&gate.passed) == 6);
    AWAIT(rp_pool_running(pool) <= 2);
    AWAIT(count_threads_named("shrink") <= 2);
    for (int i = 0; i < 200; i++)
        cr_assert_eq(rp_pool_submit(pool, crowd_join, &crowd), 0);
    AWAIT(load_seq(&crowd.ran) == 200);
    cr_assert_leq(load_seq(&crowd.most), 2);
    AWAIT(pool_look(pool).completed == 206);
    pool_end(pool);
}

Test(pool_tune, shrinking_an_idle_pool_ends_the_surplus_without_expiry)
{
    struct rp_pool_options options = {.prealloc = true, .no_purge = true, .name = "idle"};
    struct rp_pool *pool = pool_make(7, &options);

    cr_assert_eq(rp_pool_tune(pool, 3), 0);
    AWAIT(rp_pool_running(pool) == 3);
    AWAIT(count_threads_named("idle") == 3);
    pool_end(pool);
}

Test(pool_tune, goes_to_unlimited_and_back)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};

    cr_assert_eq(rp_pool_tune(pool, RP_UNLIMITED), 0);
    cr_assert_eq(rp_pool_cap(pool), RP_UNLIMITED);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(rp_pool_try_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 20);
    cr_assert_eq(rp_pool_free(pool), RP_UNLIMITED - 20);

    cr_assert_eq(rp_pool_tune(pool, 2), 0);
    cr_assert_eq(rp_pool_cap(pool), 2);
    gate_open(&gate);
    AWAIT(rp_pool_running(pool) <= 2);
    AWAIT(load_seq(&gate.passed) == 20);
    pool_end(pool);
}

Test(pool_tune, an_unlimited_pool_can_be_made_and_bounded)
{
    struct rp_pool *pool = pool_make(RP_UNLIMITED, NULL);
    struct gate gate = {0};

    cr_assert_eq(rp_pool_tune(pool, 1), 0);
    cr_assert_eq(rp_pool_try_submit(pool, gate_pass, &gate), 0);
    cr_assert_eq(rp_pool_try_submit(pool, gate_pass, &gate), -EAGAIN);
    gate_open(&gate);
    pool_end(pool);
}

Test(pool_tune, what_cannot_be_tuned_is_told_and_changes_nothing)
{
    struct rp_pool_options options = {.min_workers = 2};
    struct rp_pool *pool = pool_make(4, &options);

    cr_assert_eq(rp_pool_tune(pool, RP_WORKERS_MAX + 1), -EINVAL);
    cr_assert_eq(rp_pool_tune(pool, RP_UNLIMITED - 1), -EINVAL);
    cr_assert_eq(rp_pool_tune(pool, 1), -EINVAL, "below the minimum");
    cr_assert_eq(rp_pool_cap(pool), 4);
    cr_assert_eq(rp_pool_tune(pool, 2), 0);

    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(rp_pool_tune(pool, 3), -ESHUTDOWN);
    cr_assert_eq(rp_pool_cap(pool), 2);
    cr_assert_eq(rp_pool_reboot(pool), 0);
    cr_assert_eq(rp_pool_tune(pool, 3), 0);
    cr_assert_eq(rp_pool_cap(pool), 3);
    pool_end(pool);
}

struct tuning {
    struct rp_pool *pool;
    _Atomic uint32_t rc, ran;
};

static void tune_from_inside(void *arg)
{
    struct tuning *tuning = arg;

    store_seq(&tuning->rc, (uint32_t)-rp_pool_tune(tuning->pool, 3));
    store_seq(&tuning->ran, 1);
}

Test(pool_tune, a_task_may_tune_its_own_pool)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct tuning tuning = {.pool = pool};

    cr_assert_eq(rp_pool_submit(pool, tune_from_inside, &tuning), 0);
    AWAIT(load_seq(&tuning.ran) == 1);
    cr_assert_eq(load_seq(&tuning.rc), 0);
    cr_assert_eq(rp_pool_cap(pool), 3);
    pool_end(pool);
}

/* --- a storm ---------------------------------------------------------------------------------------------------- */

struct storm {
    struct rp_pool *pool;
    struct ledger ledger;
    _Atomic uint32_t stop, wrong;
};

static void *storm_tunes(void *arg)
{
    static const unsigned capacities[] = {1, 7, 2, RP_UNLIMITED, 3, 0, 16, 1};
    struct storm *storm = arg;

    for (unsigned i = 0; !load_seq(&storm->stop); i++) {
        int rc = rp_pool_tune(storm->pool, capacities[i % 8]);
        if (rc)
            add_seq(&storm->wrong, 1);
        sched_yield();
    }
    return NULL;
}

static void *storm_submits(void *arg)
{
    struct storm *storm = arg;

    while (!load_seq(&storm->stop))
        if (ledger_submit(&storm->ledger, storm->pool, RP_OVERLOAD_DEFAULT))
            add_seq(&storm->wrong, 1);
    return NULL;
}

/*
 * Adversary: two threads tune up and down without pause while three submitters block for room. Each task must run
 * once, no submitter may be left asleep, and the pool must end. A tune stores the limit and then looks for blocked
 * submitters and surplus workers (pool_settle), which is what makes a growth that nobody else notices felt.
 */
Test(pool_tune, a_storm_of_tunes_under_load_loses_nothing)
{
    struct storm storm = {.pool = pool_make(2, NULL)};
    pthread_t threads[5];

    for (int i = 0; i < 5; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i < 2 ? storm_tunes : storm_submits, &storm), 0);
    nap(400 * MS);
    store_seq(&storm.stop, 1);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_eq(rp_pool_release_until(storm.pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&storm.wrong), 0);
    cr_assert_eq(load_seq(&storm.ledger.ran), load_seq(&storm.ledger.accepted));
    cr_assert_eq(rp_pool_destroy(storm.pool), 0);
}
