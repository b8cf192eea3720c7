/*
 * Blocked submitters: who gets in, in what order, who may pass them, and that none stays behind, however its wait ends.
 */
#include "gates.h"
#include "seed.h"
#include "stopped.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static struct submitter submitter_of(struct rp_pool *pool, void (*fn)(void *arg), void *arg)
{
    return (struct submitter){.pool = pool, .task = {.fn = fn, .arg = arg}};
}

Test(room, a_blocked_submitter_gets_in_when_a_task_ends)
{
    for (unsigned depth = 0; depth <= 3; depth++) {
        struct gate gate = GATE_SHUT;
        _Atomic unsigned ran = 0;
        struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = depth});
        struct submitter blocked = submitter_of(pool, count_up, (void *)&ran);

        for (unsigned i = 0; i < 2 + depth; i++)
            cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
        ASSERT_EVENTUALLY(gate.inside == 2);
        submitter_block(&blocked, 0);
        cr_assert_not(blocked.returned);
        cr_assert_eq(rp_pool_waiting(pool), depth + 1);
        gate_let(&gate, 1);
        cr_assert_eq(submitter_join(&blocked), 0);
        gate_open(&gate);
        finish(pool);
        cr_assert_eq(ran, 1);
        cr_assert_eq(gate.passed, 2 + depth);
    }
}

/* Adversary: twenty submitters, one after the other. The list is first in, first out and only its head claims. */
Test(room, blocked_submitters_are_served_first_come_first_served)
{
    enum { N = 20 };
    static struct gate gate = GATE_SHUT;
    static struct order order;
    static struct submitter all[N];
    struct mark marks[N];
    struct rp_pool *pool = pool_of(1, NULL);

    occupy(pool, &gate, 1);
    for (int i = 0; i < N; i++) {
        marks[i] = (struct mark){&order, i};
        all[i] = submitter_of(pool, mark_run, &marks[i]);
        submitter_block(&all[i], (unsigned)i);
    }
    gate_open(&gate);
    for (int i = 0; i < N; i++)
        cr_assert_eq(submitter_join(&all[i]), 0);
    finish(pool);
    cr_assert_eq(order.n, N);
    for (int i = 0; i < N; i++)
        cr_assert_eq(order.of[i], i, "place %d went to submitter %d", i, order.of[i]);
}

/* --- overtaking ------------------------------------------------------------------------------------------------- */

struct flood {
    struct rp_pool *pool;
    pthread_t thread;
    _Atomic unsigned *accepted;
    _Atomic bool *stop;
    void (*fn)(void *arg);
    void *arg;
};

static void *flood_main(void *arg)
{
    struct flood *flood = arg;

    while (!*flood->stop)
        if (rp_pool_try_submit(flood->pool, flood->fn, flood->arg) == 0)
            atomic_fetch_add(flood->accepted, 1);
    return NULL;
}

/*
 * Adversary: the first blocked submitter is stopped by a signal in its sleep, as a scheduler might, while there is room
 * all the time and `threads` others submit as fast as they can. After so many claims the gate is shut against them:
 * then each thread that was inside may have passed it once more, and the room stays free for the one that waits.
 */
static void overtaken_by_at_most(unsigned threads, unsigned depth, unsigned bound)
{
    struct gate gate = GATE_SHUT;
    _Atomic unsigned accepted = 0, ran = 0;
    _Atomic bool stop = false;
    struct flood floods[8];
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = depth});
    struct submitter victim = submitter_of(pool, count_up, (void *)&ran);

    stops_prepare();
    occupy(pool, &gate, 2);
    for (unsigned i = 0; i < depth; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
    submitter_block(&victim, 0);
    stop_asleep(victim.thread);
    gate_open(&gate);
    ASSERT_EVENTUALLY(rp_pool_busy(pool) == 0 && rp_pool_waiting(pool) == 1);
    for (unsigned i = 0; i < threads; i++) {
        floods[i] = (struct flood){.pool = pool, .accepted = &accepted, .stop = &stop, .fn = do_nothing};
        cr_assert_eq(pthread_create(&floods[i].thread, NULL, flood_main, &floods[i]), 0);
    }
    ASSERT_EVENTUALLY(accepted >= bound - threads && rp_pool_busy(pool) == 0);
    for (int i = 0; i < 50; i++) /* time to exceed it, for a pool that would */
        nap();
    cr_assert_eq(snapshot_of(pool).blocked, 1);
    unsigned overtook = accepted;
    cr_assert_not(victim.returned);
    cr_assert_eq(write(stop_here[1], "", 1), 1);
    cr_assert_eq(submitter_join(&victim), 0);
    ASSERT_EVENTUALLY(accepted > overtook); /* and the gate is open again */
    stop = true;
    for (unsigned i = 0; i < threads; i++)
        pthread_join(floods[i].thread, NULL);
    finish(pool);
    cr_assert_eq(ran, 1);
    cr_assert_leq(overtook, bound, "overtaken by %u", overtook);
}

Test(room, a_blocked_submitter_is_overtaken_by_at_most_16384_later_ones)
{
    overtaken_by_at_most(1, 16, 16384 + 1);
}

Test(room, before_a_deep_queue_it_is_four_times_what_may_be_in_flight)
{
    overtaken_by_at_most(1, 4998, 20000 + 1);
}

Test(room, the_bound_on_overtaking_grows_by_one_for_each_thread_inside_submit)
{
    overtaken_by_at_most(4, 16, 16384 + 4);
}

/*
 * Adversary: one that takes each place the moment it is free, which the woken head comes too late for. A millisecond
 * later the head, called in vain once more, gets the next place all the same: that makes two or three rounds for each,
 * and some more where it is slow to wake. Without it each takes from five to some hundreds.
 */
Test(room, who_has_been_the_first_for_a_millisecond_is_overtaken_no_more)
{
    enum { VICTIMS = 8, ROUNDS = 25 * VICTIMS };
    struct gate gate = GATE_SHUT;
    _Atomic unsigned accepted = 0, ran = 0;
    _Atomic bool stop = false;
    struct rp_pool *pool = pool_of(1, NULL);
    struct flood flood = {.pool = pool, .accepted = &accepted, .stop = &stop, .fn = gate_hold, .arg = &gate};
    unsigned round = 0;

    occupy(pool, &gate, 1);
    cr_assert_eq(pthread_create(&flood.thread, NULL, flood_main, &flood), 0);
    for (unsigned i = 0; i < VICTIMS; i++) {
        struct submitter victim = submitter_of(pool, count_up, (void *)&ran);
        submitter_start(&victim); /* a place that was just free may be its own at once */
        for (; round < ROUNDS && !victim.returned; round++) {
            pass_time_until(rp_after(2000000)); /* it sleeps again by then, as a rule */
            gate_let(&gate, 1);
        }
        cr_assert(victim.returned, "number %u after %u rounds, overtaken %u times", i, round, accepted);
        cr_assert_eq(submitter_join(&victim), 0);
    }
    stop = true;
    gate_open(&gate);
    pthread_join(flood.thread, NULL);
    finish(pool);
    cr_assert_eq(ran, VICTIMS);
}

/* --- how many may block ----------------------------------------------------------------------------------------- */

static unsigned returned_of(const struct submitter *all, unsigned n)
{
    unsigned returned = 0;

    for (unsigned i = 0; i < n; i++)
        returned += all[i].returned;
    return returned;
}

/* Adversary: a hundred threads reach a limit of ten at once. The count is compared and raised under one lock. */
Test(room, max_blocking_is_exact_when_a_hundred_threads_reach_it_at_once)
{
    enum { N = 100, LIMIT = 10 };
    static struct gate gate = GATE_SHUT;
    static struct submitter all[N];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.max_blocking = LIMIT});
    pthread_barrier_t start;
    _Atomic unsigned ran = 0;
    unsigned in = 0, refused = 0;

    occupy(pool, &gate, 1);
    pthread_barrier_init(&start, NULL, N);
    for (int i = 0; i < N; i++) {
        all[i] = submitter_of(pool, count_up, (void *)&ran);
        all[i].start = &start;
        submitter_start(&all[i]);
    }
    ASSERT_EVENTUALLY(returned_of(all, N) == N - LIMIT);
    cr_assert_eq(snapshot_of(pool).blocked, LIMIT);
    gate_open(&gate);
    for (int i = 0; i < N; i++) {
        int rc = submitter_join(&all[i]);
        cr_assert(rc == 0 || rc == -EAGAIN);
        in += rc == 0;
        refused += rc == -EAGAIN;
    }
    finish(pool);
    cr_assert_eq(in, LIMIT);
    cr_assert_eq(refused, N - LIMIT);
    cr_assert_eq(ran, LIMIT);
}

Test(room, a_hundred_may_block_where_a_hundred_are_allowed_and_the_next_may_not)
{
    enum { N = 100 };
    static struct gate gate = GATE_SHUT;
    static struct submitter all[N];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.max_blocking = N});
    _Atomic unsigned ran = 0;

    occupy(pool, &gate, 1);
    for (int i = 0; i < N; i++) {
        all[i] = submitter_of(pool, count_up, (void *)&ran);
        submitter_start(&all[i]);
    }
    ASSERT_EVENTUALLY(snapshot_of(pool).blocked == N);
    cr_assert_eq(rp_pool_submit(pool, count_up, (void *)&ran), -EAGAIN);
    cr_assert_eq(rp_pool_submit_until(pool, count_up, (void *)&ran, rp_after(PATIENCE_NS)), -EAGAIN);
    gate_open(&gate);
    for (int i = 0; i < N; i++)
        cr_assert_eq(submitter_join(&all[i]), 0);
    cr_assert_eq(rp_pool_submit(pool, count_up, (void *)&ran), 0); /* the places are free again */
    finish(pool);
    cr_assert_eq(ran, N + 1);
}

/* --- giving up -------------------------------------------------------------------------------------------------- */

Test(room, a_submitter_that_times_out_leaves_nothing_behind)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.max_blocking = 1});
    struct fate fate = {0};
    struct rp_task task = fated(&fate);

    occupy(pool, &gate, 1);
    for (int i = 0; i < 5; i++) { /* its place among those allowed to block is free each time */
        int64_t deadline = rp_after(2 * MS);
        cr_assert_eq(rp_pool_submit_until(pool, fate_run, &fate, deadline), -ETIMEDOUT);
        cr_assert_geq(rp_now(), deadline);
        task.deadline = rp_after(2 * MS);
        cr_assert_eq(rp_pool_submit_task(pool, &task), -ETIMEDOUT);
    }
    cr_assert_eq(rp_pool_waiting(pool), 0);
    cr_assert_eq(snapshot_of(pool).blocked, 0);
    gate_open(&gate);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    cr_assert_eq(rp_pool_submit(pool, fate_run, &fate), 0);
    finish(pool);
    cr_assert_eq(fate.ran, 1);
    cr_assert_eq(fate.dropped, 0);
}

/*
 * Adversary: the first in the list gives up at about the moment at which room appears, so that the call may be its own.
 * Whoever leaves the list clears the call and passes the room on: the one behind it, which has no deadline, gets in
 * though no other task will end.
 */
Test(room, a_submitter_that_times_out_passes_the_room_on)
{
    unsigned seed = seed_of("a_submitter_that_times_out_passes_the_room_on");

    for (int round = 0; round < 100; round++) {
        struct gate gate = GATE_SHUT;
        _Atomic unsigned ran = 0, first_ran = 0;
        struct rp_pool *pool = pool_of(1, NULL);
        struct submitter first = submitter_of(pool, count_up, (void *)&first_ran);
        struct submitter second = submitter_of(pool, count_up, (void *)&ran);

        occupy(pool, &gate, 1);
        first.task.deadline = rp_after(3 * MS);
        submitter_start(&first);
        EVENTUALLY(snapshot_of(pool).blocked == 1 || first.returned);
        submitter_start(&second);
        int64_t until = first.task.deadline - (int64_t)(rand_r(&seed) % 200) * 1000 + 100000;
        while (rp_now() < until)
            ;
        gate_open(&gate);
        int rc = submitter_join(&first);
        cr_assert(rc == 0 || rc == -ETIMEDOUT);
        cr_assert(EVENTUALLY(second.returned), "round %d: the room was lost", round);
        cr_assert_eq(submitter_join(&second), 0);
        finish(pool);
        cr_assert_eq(ran, 1);
        cr_assert_leq(first_ran, rc == 0); /* its task's deadline may have passed in the queue */
    }
}

/* Adversary: fifty submitters whose deadlines pass at about one time while tasks end: each has one fate, none hangs. */
Test(room, submitters_with_and_without_deadline_share_the_room)
{
    enum { N = 60 };
    static struct gate gate = GATE_SHUT;
    static struct submitter all[N];
    static struct fate fate[N];
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = 1});

    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
    for (int i = 0; i < N; i++) {
        all[i] = (struct submitter){.pool = pool, .task = fated(&fate[i])};
        if (i % 2)
            all[i].task.deadline = rp_after(5 * MS);
        submitter_start(&all[i]);
    }
    ASSERT_EVENTUALLY(snapshot_of(pool).blocked >= N / 2);
    gate_open(&gate);
    for (int i = 0; i < N; i++) {
        int rc = submitter_join(&all[i]);
        cr_assert(rc == 0 || (rc == -ETIMEDOUT && i % 2));
    }
    finish(pool);
    for (int i = 0; i < N; i++)
        cr_assert_eq(fate[i].ran + fate[i].dropped, all[i].rc == 0);
}

/* --- ends ------------------------------------------------------------------------------------------------------- */

/* Adversary: a thousand sleep in the list. Closing wakes all, not the head alone. */
Test(room, a_thousand_blocked_submitters_return_when_the_pool_is_released)
{
    enum { N = 1000 };
    static struct gate gate = GATE_SHUT;
    static struct submitter all[N];
    static struct fate fate;
    struct rp_pool *pool = pool_of(1, NULL);

    occupy(pool, &gate, 1);
    for (int i = 0; i < N; i++) {
        all[i] = (struct submitter){.pool = pool, .task = fated(&fate)};
        submitter_start(&all[i]);
    }
    ASSERT_EVENTUALLY(snapshot_of(pool).blocked == N);
    cr_assert_eq(rp_pool_release(pool), 0);
    for (int i = 0; i < N; i++) /* while the worker is busy still */
        cr_assert_eq(submitter_join(&all[i]), -ESHUTDOWN);
    cr_assert_eq(gate.inside, 1);
    cr_assert_eq(snapshot_of(pool).blocked, 0);
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(fate.ran + fate.dropped, 0);
}

Test(room, capacity_that_grows_lets_blocked_submitters_in)
{
    enum { N = 6 };
    static struct gate gate = GATE_SHUT;
    static struct submitter all[N];
    struct rp_pool *pool = pool_of(1, NULL);

    occupy(pool, &gate, 1);
    for (int i = 0; i < N; i++) {
        all[i] = submitter_of(pool, gate_hold, &gate);
        submitter_block(&all[i], (unsigned)i);
    }
    cr_assert_eq(rp_pool_tune(pool, 3), 0); /* two more, in the order of their coming */
    ASSERT_EVENTUALLY(gate.inside == 3);
    cr_assert_eq(submitter_join(&all[0]), 0);
    cr_assert_eq(submitter_join(&all[1]), 0);
    cr_assert_eq(snapshot_of(pool).blocked, N - 2);
    cr_assert_eq(rp_pool_tune(pool, RP_UNLIMITED), 0);
    for (int i = 2; i < N; i++)
        cr_assert_eq(submitter_join(&all[i]), 0);
    ASSERT_EVENTUALLY(gate.inside == 1 + N);
    gate_open(&gate);
    finish(pool);
}

struct producer {
    struct rp_pool *pool;
    pthread_t thread;
    _Atomic unsigned *ran;
    unsigned failed;
};

enum { PRODUCED = 3000 };

static void *produce(void *arg)
{
    struct producer *me = arg;

    for (int i = 0; i < PRODUCED; i++)
        me->failed += rp_pool_submit(me->pool, count_up, (void *)me->ran) != 0;
    return NULL;
}

/* Adversary: many more submitters than room, all the time: each call for room must reach one that looks. */
Test(room, no_submitter_is_forgotten_under_contention)
{
    enum { THREADS = 12 };
    struct rp_pool *pool = pool_of(2, NULL);
    struct producer all[THREADS];
    _Atomic unsigned ran = 0;

    for (int i = 0; i < THREADS; i++) {
        all[i] = (struct producer){.pool = pool, .ran = &ran};
        cr_assert_eq(pthread_create(&all[i].thread, NULL, produce, &all[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(all[i].thread, NULL);
        cr_assert_eq(all[i].failed, 0);
    }
    finish(pool);
    cr_assert_eq(ran, THREADS * PRODUCED);
}
