/*
 * Waits for futures: for one or all of several, and inside of tasks, where they help, sleep, or say why they cannot.
 */
#include "futures.h"

/* --- several ------------------------------------------------------------------------------------------------------ */

static void wait_any_over(unsigned n)
{
    struct rp_future **futures = calloc(n, sizeof(struct rp_future *));
    struct gate *gates = calloc(n, sizeof(struct gate));
    struct rp_pool *pool = pool_make(n, &(struct rp_pool_options){.stack_size = SMALL_STACK});

    for (unsigned i = 0; i < n; i++)
        futures[i] = future_make(pool, pass_gate, &gates[i]);
    cr_assert_eq(rp_future_wait_any(futures, n, 1), -ETIMEDOUT);
    cr_assert_eq(rp_future_wait_any(futures, n, rp_after(2 * MS)), -ETIMEDOUT);
    gate_open(&gates[n - 1]);
    cr_assert_eq(rp_future_wait_any(futures, n, rp_after(PATIENCE)), (int)n - 1);
    gate_open(&gates[(n - 1) / 2]);
    cr_assert_eq(rp_future_wait_any(futures, n - 1, 0), (int)(n - 1) / 2);
    cr_assert_eq(rp_future_wait_all(futures, n, rp_after(MS)), -ETIMEDOUT);
    for (unsigned i = 0; i < n; i++)
        gate_open(&gates[i]);
    cr_assert_eq(rp_future_wait_all(futures, n, 0), 0);
    cr_assert_eq(rp_future_wait_any(futures, n, 0), 0, "the least index");
    for (unsigned i = 0; i < n; i++)
        rp_future_destroy(futures[i]);
    pool_end(pool);
    free(gates);
    free(futures);
}

Test(future, wait_any_of_3)
{
    wait_any_over(3);
}

Test(future, wait_any_of_128_is_one_call_of_the_kernel)
{
    wait_any_over(128);
}

Test(future, wait_any_of_300_needs_no_such_call)
{
    wait_any_over(300);
}

struct opener {
    struct gate *gates;
    unsigned which;
    pthread_barrier_t barrier;
};

static void *open_later(void *arg)
{
    struct opener *opener = arg;

    pthread_barrier_wait(&opener->barrier);
    gate_open(&opener->gates[opener->which]);
    return NULL;
}

/* Adversary: the completion falls between the look and the sleep. A wake-up that is lost hangs here. */
static void no_wake_is_lost(unsigned n, unsigned rounds)
{
    struct rp_pool *pool = pool_make(n, &(struct rp_pool_options){.stack_size = SMALL_STACK});
    struct rp_future **futures = calloc(n, sizeof(struct rp_future *));

    for (unsigned round = 0; round < rounds; round++) {
        struct opener opener = {.gates = calloc(n, sizeof(struct gate)), .which = round % n};
        pthread_t thread;

        pthread_barrier_init(&opener.barrier, NULL, 2);
        for (unsigned i = 0; i < n; i++)
            futures[i] = future_make(pool, pass_gate, &opener.gates[i]);
        pthread_create(&thread, NULL, open_later, &opener);
        pthread_barrier_wait(&opener.barrier);
        cr_assert_eq(rp_future_wait_any(futures, n, rp_after(PATIENCE)), (int)opener.which);
        pthread_join(thread, NULL);
        for (unsigned i = 0; i < n; i++)
            gate_open(&opener.gates[i]);
        cr_assert_eq(rp_future_wait_all(futures, n, rp_after(PATIENCE)), 0);
        for (unsigned i = 0; i < n; i++)
            rp_future_destroy(futures[i]);
        AWAIT(rp_pool_busy(pool) == 0); /* the last gate is left by its task */
        pthread_barrier_destroy(&opener.barrier);
        free(opener.gates);
    }
    free(futures);
    pool_end(pool);
}

Test(future, no_wake_is_lost_by_waiting_on_words)
{
    no_wake_is_lost(3, 400);
}

Test(future, no_wake_is_lost_by_watching)
{
    no_wake_is_lost(140, UNDER_TSAN ? 5 : 20);
}

/* --- helping ------------------------------------------------------------------------------------------------------ */

struct tree {
    struct rp_pool *pool;
    int depth;
    int rc;
};

static int tree_run(void *arg, void **value)
{
    struct tree *tree = arg, sub[2] = {{tree->pool, tree->depth - 1, 0}, {tree->pool, tree->depth - 1, 0}};
    struct rp_future *futures[2];
    int sum = 1;

    (void)value;
    if (tree->depth == 0)
        return 1;
    for (int i = 0; i < 2; i++) {
        int rc = rp_pool_submit_future(tree->pool, tree_run, &sub[i], &futures[i]);
        if (rc)
            return rc;
    }
    for (int i = 0; i < 2; i++) {
        int rc = rp_future_get(futures[i], NULL);
        rp_future_destroy(futures[i]);
        sum = rc < 0 ? rc : sum < 0 ? sum : sum + rc;
    }
    return sum;
}

static void whole_tree(unsigned capacity, unsigned queue, int depth)
{
    struct rp_pool *pool = pool_make(capacity, &(struct rp_pool_options){.queue_depth = queue});
    struct tree tree = {.pool = pool, .depth = depth};
    struct rp_future *future = future_make(pool, tree_run, &tree);

    cr_assert_eq(rp_future_get(future, NULL), (1 << (depth + 1)) - 1);
    rp_future_destroy(future);
    AWAIT(pool_look(pool).busy == 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.waiting, 0);
    cr_assert_eq(seen.submitted, (1U << (depth + 1)) - 1);
    cr_assert_eq(seen.completed, seen.submitted, "each entry taken was one task run: %lu of %lu",
                 (unsigned long)seen.completed, (unsigned long)seen.submitted);
    pool_end(pool);
}

/* Each task waits for two that it submits. With one worker all but the first run by helping, on one stack. */
Test(future, a_tree_of_waits_ends_on_one_worker)
{
    whole_tree(1, 4096, 10);
}

Test(future, a_tree_of_waits_ends_on_two_workers)
{
    whole_tree(2, 4096, 12);
}

Test(future, a_tree_of_waits_ends_without_a_queue)
{
    whole_tree(2, 0, 5);
}

/* Submits one half, does the other itself, waits; what the pool has no room for it does here as well. */
static int halve(void *arg, void **value)
{
    struct tree *tree = arg, half = {tree->pool, tree->depth - 1, 0}, other = half;
    const struct rp_task task = {.arg = &half, .overload = RP_OVERLOAD_CALLER_RUNS};
    struct rp_future *future;

    if (tree->depth == 0)
        return 1;
    int rc = rp_pool_submit_future_task(tree->pool, halve, &task, &future);
    if (rc)
        return rc;
    int mine = halve(&other, value);
    int others = rp_future_get(future, NULL);
    rp_future_destroy(future);
    return mine < 0 ? mine : others < 0 ? others : mine + others;
}

/* Adversary: far more parts are outstanding than the pool has room and stand-ins for. Caller-runs is what they need. */
Test(future, a_task_that_splits_itself_ends_on_any_pool_if_the_caller_runs)
{
    for (unsigned capacity = 1; capacity <= 2; capacity++)
        for (unsigned queue = 0; queue <= 1; queue++) {
            struct rp_pool *pool = pool_make(capacity, &(struct rp_pool_options){.queue_depth = queue, .max_extra = 1});
            struct tree tree = {.pool = pool, .depth = 9};
            struct rp_future *future;

            cr_assert_eq(rp_pool_submit_future(pool, halve, &tree, &future), 0);
            cr_assert_eq(rp_future_get(future, NULL), 1 << 9, "capacity %u, queue %u", capacity, queue);
            rp_future_destroy(future);
            pool_end(pool);
        }
}

struct loop {
    struct rp_pool *pool;
    int rounds;
};

static int loop_run(void *arg, void **value)
{
    struct loop *loop = arg;

    (void)value;
    for (int i = 0; i < loop->rounds; i++) {
        struct rp_future *future;
        int rc = rp_pool_submit_future(loop->pool, answer, NULL, &future);
        if (rc)
            return rc;
        rc = rp_future_get(future, NULL);
        rp_future_destroy(future);
        if (rc != 42)
            return rc;
    }
    return loop->rounds;
}

/* Helping leaves nothing in the ring, whose 64 places would be full after the 64th round. */
Test(future, helping_again_and_again_does_not_fill_the_queue)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct loop loop = {pool, 1000};
    struct rp_future *future = future_make(pool, loop_run, &loop);

    cr_assert_eq(rp_future_get(future, NULL), 1000);
    rp_future_destroy(future);
    pool_end(pool);
}

struct preferred {
    struct rp_pool *pool;
    struct gate *ready;
    struct rp_future **wanted;
    _Atomic uint32_t others;
};

static void wants_one(void *arg)
{
    struct preferred *me = arg;

    gate_pass(me->ready);
    if (rp_future_get(*me->wanted, NULL) != 42 || load_seq(&me->others))
        add_seq(&me->others, 1000);
}

/* The one waited for is preferred to those before it, and each of those still runs once, also with other futures among
 * them that are waited for elsewhere. */
Test(future, those_that_one_was_preferred_to_keep_a_place)
{
    for (unsigned at = 0; at < 12; at++) {
        struct gate ready = {0};
        struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 64});
        struct rp_future *wanted = NULL;
        struct preferred me = {.pool = pool, .ready = &ready, .wanted = &wanted};

        cr_assert_eq(rp_pool_submit(pool, wants_one, &me), 0);
        AWAIT(load_seq(&ready.inside));
        for (unsigned i = 0; i < 12; i++) {
            if (i == at)
                wanted = future_make(pool, answer, NULL);
            cr_assert_eq(rp_pool_submit(pool, count_task, &me.others), 0);
        }
        gate_open(&ready);
        AWAIT(load_seq(&me.others) >= 12);
        pool_end(pool);
        cr_assert_eq(load_seq(&me.others), 12);
        rp_future_destroy(wanted);
    }
}

Test(future, any_thread_may_run_what_nobody_has_begun)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(2, &gate);
    struct rp_future *future = future_make(pool, answer, &gate), *bad = future_make(pool, panic, NULL);
    struct rp_future *left = future_make(pool, answer, NULL);
    void *value;

    cr_assert_eq(rp_future_run(bad), 0);
    cr_assert_eq(rp_future_run(future), 0);
    cr_assert_eq(rp_future_try_get(future, &value), 42);
    cr_assert_eq(value, &gate);
    cr_assert_eq(rp_future_try_get(bad, NULL), -EFAULT);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(left, NULL), 42);
    pool_end(pool);
    rp_future_destroy(left);
    rp_future_destroy(bad);
    rp_future_destroy(future);
}

Test(future, one_that_is_run_in_place_makes_room_for_a_blocked_submitter)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 1});
    _Atomic uint32_t ran = 0;
    struct rp_future *future;
    struct caller blocked;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside));
    future = future_make(pool, answer, NULL);
    caller_start(&blocked, pool, call_submit_counting, &ran);
    AWAIT(rp_pool_waiting(pool) == 2); /* it, and the future */
    cr_assert_eq(rp_future_run(future), 0);
    cr_assert_eq(caller_end(&blocked), 0);
    cr_assert_eq(load_seq(&ran), 0, "it is queued: the gate is shut");
    gate_open(&gate);
    AWAIT(load_seq(&ran) == 1);
    rp_future_destroy(future);
    pool_end(pool);
}

static int end_thread(void *arg, void **value)
{
    (void)arg;
    (void)value;
    pthread_exit(NULL);
}

static void *run_it(void *future)
{
    rp_future_run(future);
    return future; /* it does not come here */
}

Test(future, one_that_ends_the_thread_that_runs_it_in_place_is_efault)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    struct rp_future *bad = future_make(pool, end_thread, NULL), *next = future_make(pool, answer, NULL);
    pthread_t thread;
    void *returned;

    cr_assert_eq(pthread_create(&thread, NULL, run_it, bad), 0);
    cr_assert_eq(pthread_join(thread, &returned), 0);
    cr_assert_null(returned);
    cr_assert_eq(rp_future_try_get(bad, NULL), -EFAULT);
    cr_assert_eq(rp_pool_busy(pool), 1, "the gate's task alone is left");
    gate_open(&gate);
    cr_assert_eq(rp_future_get(next, NULL), 42);
    pool_end(pool); /* waits for guests */
    rp_future_destroy(next);
    rp_future_destroy(bad);
}

/* --- deadlock ----------------------------------------------------------------------------------------------------- */

struct self_waiter {
    struct rp_future *future;
    struct gate gate;
};

static int waits_for_itself(void *arg, void **value)
{
    struct self_waiter *me = arg;

    (void)value;
    gate_pass(&me->gate);
    return rp_future_get(me->future, NULL);
}

struct dive {
    struct rp_pool *pool;
    int depth;
};

/* Waits for a future of its own kind that goes one level deeper. The levels below it, or what ended them. */
static int dive(void *arg, void **value)
{
    struct dive *mine = arg;
    struct rp_future *future;

    *value = NULL;
    if (!mine->depth)
        return 0;
    mine[-1] = (struct dive){mine->pool, mine->depth - 1};
    int rc = rp_pool_submit_future(mine->pool, dive, &mine[-1], &future);
    if (rc)
        return rc;
    rc = rp_future_get(future, NULL);
    rp_future_destroy(future); /* where the wait was refused it may still run */
    return rc < 0 ? rc : rc + 1;
}

/*
 * Adversary: tasks that wait for tasks deeper than any stack. A worker helps while half of its stack is left, then
 * others stand in; when no more may, a wait is refused. Nobody's stack overflows.
 */
static void dive_to(int depth, bool reached)
{
    struct rp_pool_options options = {.queue_depth = (unsigned)depth + 1};
    struct dive *levels = calloc((size_t)depth + 1, sizeof(*levels));
    struct rp_pool *pool;
    struct rp_future *future;

    cr_assert_not_null(levels);
    cr_assert_eq(rp_pool_create(&pool, 1, &options), 0);
    levels[depth] = (struct dive){pool, depth};
    cr_assert_eq(rp_pool_submit_future(pool, dive, &levels[depth], &future), 0);
    int rc = rp_future_get(future, NULL);
    rp_future_destroy(future);
    cr_assert_eq(rc, reached ? depth : -EDEADLK, "%d", rc);
    cr_assert_eq(rp_pool_destroy(pool), 0);
    free(levels);
}

Test(future, waits_within_waits_go_deeper_than_one_stack)
{
    dive_to(UNDER_ASAN || UNDER_TSAN ? 100 : 1000, true); /* a sanitizer's frames are several times as large */
}

Test(future, waits_within_waits_beyond_all_stacks_are_edeadlk)
{
    dive_to(30000, false);
}

Test(future, a_wait_for_oneself_is_edeadlk)
{
    for (unsigned capacity = 1; capacity <= 2; capacity++) {
        struct rp_pool *pool = pool_make(capacity, NULL);
        struct self_waiter me = {0};

        me.future = future_make(pool, waits_for_itself, &me);
        gate_open(&me.gate);
        cr_assert_eq(rp_future_get(me.future, NULL), -EDEADLK);
        rp_future_destroy(me.future);
        pool_end(pool);
    }
}

struct ring {
    struct rp_future *futures[8];
    struct gate gate;
    unsigned n;
    bool any;
    int64_t timeout; /* 0: none */
    _Atomic uint32_t deadlocks;
};

struct link {
    struct ring *ring;
    unsigned at;
};

static int waits_for_next(void *arg, void **value)
{
    struct link *link = arg;
    struct ring *ring = link->ring;

    (void)value;
    gate_pass(&ring->gate);
    struct rp_future *next = ring->futures[(link->at + 1) % ring->n]; /* all are made before the gate opens */
    int rc = ring->any       ? rp_future_wait_any(&next, 1, 0)
             : ring->timeout ? rp_future_get_timeout(next, NULL, ring->timeout)
                             : rp_future_get(next, NULL);
    if (rc == -EDEADLK)
        add_seq(&ring->deadlocks, 1);
    return rc < 0 ? rc : 0;
}

static void ring_of(unsigned n, bool any, int64_t timeout)
{
    struct rp_pool *pool = pool_make(n, NULL);
    struct ring ring = {.n = n, .any = any, .timeout = timeout};
    struct link links[8];

    for (unsigned i = 0; i < n; i++) {
        links[i] = (struct link){&ring, i};
        ring.futures[i] = future_make(pool, waits_for_next, &links[i]);
    }
    AWAIT(load_seq(&ring.gate.inside) == n);
    gate_open(&ring.gate);
    for (unsigned i = 0; i < n; i++)
        cr_assert_neq(rp_future_get_until(ring.futures[i], NULL, rp_after(PATIENCE)), -ETIMEDOUT, "hangs");
    cr_assert_geq(load_seq(&ring.deadlocks), 1);
    pool_end(pool);
    for (unsigned i = 0; i < n; i++)
        rp_future_destroy(ring.futures[i]);
}

/* Adversary: the last two go to sleep at once. Each looks under the one lock, after it has published itself. */
Test(future, a_cycle_over_workers_is_edeadlk)
{
    for (int round = 0; round < 30; round++) {
        ring_of(2, false, 0);
        ring_of(3, false, 0);
        ring_of(8, true, 0);
    }
}

Test(future, a_cycle_of_waits_until_the_end_of_time_is_edeadlk_too)
{
    ring_of(2, false, INT64_MAX);
}

struct two_pools {
    struct rp_pool *pool[2];
    struct rp_future *future[2];
};

static int waits_elsewhere(void *arg, void **value)
{
    struct rp_future **future = arg;

    (void)value;
    return rp_future_get(*future, NULL);
}

/* A waits for what is queued behind B's only worker, which waits likewise: each sleeper is stood in for. */
Test(future, two_pools_of_one_worker_may_wait_for_each_other)
{
    struct rp_pool *pools[2];
    struct rp_future *inner[2], *outer[2];
    struct gate gate = {0};

    for (int i = 0; i < 2; i++) {
        pools[i] = pool_make(1, &(struct rp_pool_options){.queue_depth = 8});
        cr_assert_eq(rp_pool_submit(pools[i], gate_pass, &gate), 0);
    }
    for (int i = 0; i < 2; i++)
        outer[i] = future_make(pools[i], waits_elsewhere, &inner[1 - i]);
    for (int i = 0; i < 2; i++)
        inner[i] = future_make(pools[i], answer, NULL);
    gate_open(&gate);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(rp_future_get(outer[i], NULL), 42);
    for (int i = 0; i < 2; i++) {
        pool_end(pools[i]);
        rp_future_destroy(inner[i]);
        rp_future_destroy(outer[i]);
    }
}
