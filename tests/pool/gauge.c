/*
 * Gauges, the snapshot and the list of workers: exact at rest, consistent at any moment, harmless without a pool.
 */
#include "gates.h"

#include <string.h>

Test(gauge, gauges_of_no_pool_are_zero_and_it_is_closed)
{
    struct rp_pool_snapshot snapshot;
    struct rp_worker_info info;

    cr_assert_eq(rp_pool_running(NULL), 0);
    cr_assert_eq(rp_pool_busy(NULL), 0);
    cr_assert_eq(rp_pool_free(NULL), 0);
    cr_assert_eq(rp_pool_waiting(NULL), 0);
    cr_assert_eq(rp_pool_cap(NULL), 0);
    cr_assert(rp_pool_is_closed(NULL));
    cr_assert_eq(rp_pool_snapshot(NULL, &snapshot), -EINVAL);
    cr_assert_eq(rp_pool_workers(NULL, &info, 1), -EINVAL);
}

Test(gauge, a_list_or_snapshot_into_nothing_is_refused)
{
    struct rp_pool *pool = pool_of(1, NULL);

    cr_assert_eq(rp_pool_snapshot(pool, NULL), -EINVAL);
    cr_assert_eq(rp_pool_workers(pool, NULL, 1), -EINVAL);
    cr_assert_eq(rp_pool_workers(pool, NULL, 0), 0); /* just how many there are */
    finish(pool);
}

Test(gauge, each_gauge_says_what_its_word_means)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(3, &(struct rp_pool_options){.queue_depth = 4, .no_purge = true});
    struct submitter blocked = {.pool = pool, .task = {.fn = gate_hold, .arg = &gate}};

    cr_assert_eq(rp_pool_cap(pool), 3);
    cr_assert_eq(rp_pool_free(pool), 3);
    cr_assert_eq(rp_pool_running(pool), 0);
    occupy(pool, &gate, 2);
    cr_assert_eq(rp_pool_busy(pool), 2);
    cr_assert_eq(rp_pool_free(pool), 1);
    cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
    ASSERT_EVENTUALLY(gate.inside == 3);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
    submitter_block(&blocked, 0);
    struct rp_pool_snapshot s = snapshot_of(pool);
    cr_assert_eq(s.capacity, 3);
    cr_assert_eq(s.running, 3);
    cr_assert_eq(s.busy, 3);
    cr_assert_eq(s.idle, 0);
    cr_assert_eq(s.waiting, 5); /* four queued and one that blocks */
    cr_assert_eq(s.blocked, 1);
    cr_assert_not(s.closed);
    cr_assert_eq(s.submitted, 7);
    cr_assert_eq(s.completed, 0);
    cr_assert_eq(rp_pool_waiting(pool), 5);
    cr_assert_eq(rp_pool_free(pool), 0);
    gate_open(&gate);
    cr_assert_eq(submitter_join(&blocked), 0);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    cr_assert_eq(rp_pool_running(pool), 3); /* idle ones live */
    cr_assert_eq(rp_pool_free(pool), 3);
    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert(rp_pool_is_closed(pool));
    finish(pool);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* When the only worker's task began, as it says. */
static int64_t begun(const struct rp_pool *pool)
{
    struct rp_worker_info info;

    cr_assert_eq(rp_pool_workers(pool, &info, 1), 1);
    cr_assert_eq(info.state, RP_WORKER_RUNNING);
    return info.since;
}

/*
 * Of a stream of brief tasks only some read the clock: one that turns out long is as old as it is all the same, and so
 * is another one right after it.
 */
Test(gauge, a_long_task_among_brief_ones_is_as_old_as_it_is)
{
    enum { COARSE = 20 * 1000 * 1000 }; /* a clock of 100 Hz, and some */
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 4096, .no_purge = true});

    for (int round = 0; round < 16; round++) {
        struct gate first = GATE_SHUT, second = GATE_SHUT;
        for (int i = 0; i < 2000 + round; i++)
            cr_assert_eq(rp_pool_submit(pool, nothing, NULL), 0);
        pass_time_until(rp_now() + COARSE); /* they are over, and it sleeps or not */
        int64_t before = rp_now();
        for (int i = 0; i < 1000 + round; i++)
            cr_assert_eq(rp_pool_submit(pool, nothing, NULL), 0);
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &first), 0);
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &second), 0);
        ASSERT_EVENTUALLY(first.inside == 1);
        cr_assert_geq(begun(pool), before - COARSE);
        pass_time_until(rp_now() + 3 * COARSE);
        int64_t opened = rp_now();
        gate_open(&first);
        ASSERT_EVENTUALLY(second.inside == 1);
        cr_assert_geq(begun(pool), opened - COARSE, "as old as the one before it");
        gate_open(&second);
        ASSERT_EVENTUALLY(nothing_in_flight(pool));
    }
    finish(pool);
}

/* A worker leaves in the middle of a stream of brief tasks, and later another one gets its descriptor. */
Test(gauge, a_new_worker_does_not_take_over_the_age_of_an_old_one)
{
    enum { COARSE = 20 * 1000 * 1000 };
    struct rp_pool *pool =
        pool_of(2, &(struct rp_pool_options){.queue_depth = 4096, .no_purge = true, .prealloc = true});

    for (int round = 0; round < 5; round++) {
        struct gate gate = GATE_SHUT;
        struct rp_worker_info info[2];
        for (int i = 0; i < 60000; i++) {
            cr_assert_eq(rp_pool_submit(pool, nothing, NULL), 0);
            if (i == 40000)
                cr_assert_geq(rp_pool_tune(pool, 1), 0);
        }
        ASSERT_EVENTUALLY(nothing_in_flight(pool) && rp_pool_running(pool) == 1);
        pass_time_until(rp_now() + 4 * COARSE);
        int64_t before = rp_now();
        cr_assert_geq(rp_pool_tune(pool, 2), 0);
        occupy(pool, &gate, 2);
        cr_assert_eq(rp_pool_workers(pool, info, 2), 2);
        for (int i = 0; i < 2; i++)
            cr_assert_geq(info[i].since, before - COARSE, "worker %u", info[i].worker);
        gate_open(&gate);
        ASSERT_EVENTUALLY(nothing_in_flight(pool));
    }
    finish(pool);
}

static void panics(void *arg)
{
    (void)arg;
    rp_panic("on purpose");
}

static void hear_nothing(void *user, const struct rp_panic_info *info)
{
    (void)user;
    (void)info;
}

Test(gauge, the_snapshot_is_exact_at_rest)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool =
        pool_of(2, &(struct rp_pool_options){.queue_depth = 4, .no_purge = true, .on_panic = hear_nothing});
    struct rp_task doomed = {.fn = do_nothing, .overload = RP_OVERLOAD_DISCARD_NEWEST};
    struct rp_task own = {.fn = do_nothing, .overload = RP_OVERLOAD_CALLER_RUNS};
    struct rp_task oldest = {.fn = do_nothing, .overload = RP_OVERLOAD_DISCARD_OLDEST};

    occupy(pool, &gate, 2);
    cr_assert_eq(rp_pool_submit(pool, panics, NULL), 0); /* the victim of `oldest` */
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_submit(pool, panics, NULL), 0);
    cr_assert_eq(rp_pool_try_submit(pool, do_nothing, NULL), -EAGAIN);
    cr_assert_eq(rp_pool_try_submit(pool, do_nothing, NULL), -EAGAIN);
    cr_assert_eq(rp_pool_submit_task(pool, &doomed), 0);
    cr_assert_eq(rp_pool_submit_task(pool, &own), 0);
    cr_assert_eq(rp_pool_submit_task(pool, &oldest), 0);
    gate_open(&gate);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    for (int again = 0; again < 2; again++) {
        struct rp_pool_snapshot s = snapshot_of(pool);
        cr_assert_eq(s.completed, 4); /* two held, the caller's own, the one that discarded */
        cr_assert_eq(s.panicked, 3);
        cr_assert_eq(s.dropped, 2);
        cr_assert_eq(s.rejected, 2);
        cr_assert_eq(s.submitted, 9);
        cr_assert_eq(s.busy + s.waiting + s.blocked, 0);
        cr_assert_eq(s.running, 2);
        cr_assert_eq(s.idle, 2);
        cr_assert_eq(s.spawned, 2);
        cr_assert_eq(s.expired, 0);
    }
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE_NS), NULL), 0);
    struct rp_pool_snapshot s = snapshot_of(pool); /* the workers have left; what they did stays counted */
    cr_assert_eq(s.running, 0);
    cr_assert_eq(s.submitted, 9);
    cr_assert_eq(s.completed, 4);
    cr_assert(s.closed);
    finish(pool);
}

struct load {
    struct rp_pool *pool;
    pthread_t thread;
    _Atomic bool *stop;
    _Atomic uint64_t *accepted;
    unsigned kind;
};

static void *load_main(void *arg)
{
    struct load *load = arg;

    for (unsigned i = 0; !*load->stop; i++) {
        struct rp_task task = {.fn = i % 64 ? do_nothing : panics,
                               .priority = (int)(i % 3),
                               .overload = load->kind % 2 ? RP_OVERLOAD_DISCARD_OLDEST : RP_OVERLOAD_BLOCK};
        if (rp_pool_submit_task(load->pool, &task) == 0)
            atomic_fetch_add(load->accepted, 1);
    }
    return NULL;
}

/*
 * Adversary: four threads submit, block, discard and panic while snapshots are taken. Each must be of one moment: its
 * sums hold, no count goes back, and what had been accepted before the snapshot began is in it.
 */
Test(gauge, every_snapshot_under_load_is_of_one_moment)
{
    enum { THREADS = 4, SNAPSHOTS = 20000, TASKS = 100000 };
    struct rp_pool *pool = pool_of(3, &(struct rp_pool_options){.queue_depth = 5, .on_panic = hear_nothing});
    _Atomic bool stop = false;
    _Atomic uint64_t accepted = 0;
    struct load loads[THREADS];
    struct rp_pool_snapshot last = {0};
    unsigned sums = 0, backward = 0, missing = 0, bounds = 0;

    for (unsigned i = 0; i < THREADS; i++) {
        loads[i] = (struct load){.pool = pool, .stop = &stop, .accepted = &accepted, .kind = i};
        cr_assert_eq(pthread_create(&loads[i].thread, NULL, load_main, &loads[i]), 0);
    }
    int64_t until = rp_after(PATIENCE_NS);
    int taken = 0;
    for (; (taken < SNAPSHOTS || accepted < TASKS) && rp_now() < until; taken++) {
        uint64_t before = accepted;
        struct rp_pool_snapshot s;

        if (rp_pool_snapshot(pool, &s))
            break;
        sums += s.busy + s.idle != s.running;
        sums += s.submitted != s.completed + s.dropped + s.panicked + s.busy + (s.waiting - s.blocked);
        bounds += s.running > 3 || s.busy > 3 || s.waiting - s.blocked > 8 || s.blocked > THREADS;
        backward += s.submitted < last.submitted;
        backward += s.completed < last.completed || s.dropped < last.dropped || s.panicked < last.panicked;
        backward += s.rejected < last.rejected || s.spawned < last.spawned || s.expired < last.expired;
        missing += s.submitted < before;
        last = s;
    }
    stop = true;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(loads[i].thread, NULL);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    struct rp_pool_snapshot s = snapshot_of(pool);
    finish(pool);
    cr_expect_eq(s.submitted, accepted);
    cr_expect_eq(s.submitted, s.completed + s.dropped + s.panicked);
    cr_expect_eq(sums, 0);
    cr_expect_eq(bounds, 0);
    cr_expect_eq(backward, 0, "%u of %d snapshots went back", backward, taken);
    cr_expect_eq(missing, 0, "%u of %d snapshots lacked accepted tasks", missing, taken);
}

/* --- the list of workers ---------------------------------------------------------------------------------------- */

Test(gauge, the_list_says_of_each_worker_what_it_does)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(3, &(struct rp_pool_options){.no_purge = true});
    struct rp_task task = {.fn = gate_hold, .arg = &gate, .label = "held"};
    struct rp_worker_info info[4];

    int64_t before = rp_now();
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    ASSERT_EVENTUALLY(gate.inside == 3);
    cr_assert_eq(rp_pool_workers(pool, info, 4), 3);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(info[i].state, RP_WORKER_RUNNING);
        cr_assert_str_eq(info[i].label, "held");
        cr_assert_gt(info[i].tid, 0);
        cr_assert_eq(info[i].tasks, 0);
        cr_assert_not(info[i].hung);
        cr_assert(info[i].since > before - 100 * MS && info[i].since <= rp_now()); /* a coarse clock */
        for (unsigned k = 0; k < i; k++)
            cr_assert(info[k].worker != info[i].worker && info[k].tid != info[i].tid);
    }
    memset(info, 0, sizeof(info));
    cr_assert_eq(rp_pool_workers(pool, info, 2), 3); /* how many there are, and no entry beyond the two */
    cr_assert_eq(info[2].tid, 0);
    gate_open(&gate);
    ASSERT_EVENTUALLY(nothing_in_flight(pool) && all_parked(pool));
    cr_assert_eq(rp_pool_workers(pool, info, 4), 3);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(info[i].state, RP_WORKER_IDLE);
        cr_assert_null(info[i].label);
        cr_assert_eq(info[i].tasks, 1);
    }
    finish(pool);
}
