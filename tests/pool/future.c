/*
 * Futures: one outcome that all observers agree on, and waits that help, sleep, or say why they cannot.
 */
#include "pool/life.h"

#include <ringpool/context.h>
#include <ringpool/future.h>

#include "base/atomic.h"

/* Small enough for hundreds of workers; a sanitizer wants more of a stack than that. */
#define SMALL_STACK (UNDER_TSAN || UNDER_ASAN ? 0 : 65536)

static int answer(void *arg, void **value)
{
    *value = arg;
    return 42;
}

static int fail(void *arg, void **value)
{
    *value = arg; /* goes with any result that fn returns */
    return -EPROTO;
}

static int pass_gate(void *arg, void **value)
{
    (void)value;
    gate_pass(arg);
    return 0;
}

static int panic(void *arg, void **value)
{
    (void)value;
    rp_panic("as asked by %p", arg);
    return 0;
}

static int exit_thread(void *arg, void **value)
{
    (void)arg;
    (void)value;
    pthread_exit(NULL);
}

static int count_one(void *arg, void **value)
{
    (void)value;
    add_seq((_Atomic uint32_t *)arg, 1);
    return 0;
}

static void quiet(void *user, int level, const char *message)
{
    (void)user;
    (void)level;
    (void)message;
}

static struct rp_future *future_make(struct rp_pool *pool, int (*fn)(void *, void **), void *arg)
{
    struct rp_future *future = NULL;
    int rc = rp_pool_submit_future(pool, fn, arg, &future);

    cr_assert_eq(rc, 0, "submit: %s", rp_strerror(rc));
    return future;
}

/* A pool whose workers all stand at the gate, and have room behind them. */
static struct rp_pool *pool_shut(unsigned capacity, struct gate *gate)
{
    struct rp_pool *pool = pool_make(capacity, &(struct rp_pool_options){.queue_depth = 4096, .log = quiet});

    for (unsigned i = 0; i < capacity; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, gate), 0);
    AWAIT(load_seq(&gate->inside) == capacity);
    return pool;
}

/* --- results ------------------------------------------------------------------------------------------------------ */

Test(future, get_gives_what_fn_returned)
{
    struct rp_pool *pool = pool_make(2, NULL);
    struct rp_future *good = future_make(pool, answer, &pool), *bad;
    void *value = NULL;

    cr_assert_eq(rp_future_get(good, &value), 42);
    cr_assert_eq(value, &pool);
    cr_assert(rp_future_done(good));
    value = NULL;
    cr_assert_eq(rp_future_try_get(good, &value), 42);
    cr_assert_eq(value, &pool);
    cr_assert_eq(rp_future_get_until(good, NULL, 1), 42, "done is done, however late one asks");
    cr_assert_eq(rp_future_cancel(good), -EALREADY);
    cr_assert_eq(rp_future_run(good), -EALREADY);
    rp_future_destroy(good);
    bad = future_make(pool, fail, &value);
    cr_assert_eq(rp_future_get(bad, &value), -EPROTO);
    cr_assert_eq(value, &value);
    rp_future_destroy(bad);
    pool_end(pool);
}

Test(future, bad_arguments_are_refused)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = (struct rp_future *)&pool, *done = future_make(pool, answer, NULL);
    struct rp_future *array[2] = {done, NULL};

    cr_assert_eq(rp_pool_submit_future(NULL, answer, NULL, &future), -EINVAL);
    cr_assert_null(future);
    cr_assert_eq(rp_pool_submit_future(pool, NULL, NULL, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future(pool, answer, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, NULL, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, &(struct rp_task){.fn = count_task}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, &(struct rp_task){.priority = 9}, &future), -EINVAL);
    cr_assert_eq(rp_pool_submit_future_task(pool, answer, &(struct rp_task){.deadline = 1}, &future), -ETIMEDOUT);
    cr_assert_eq(rp_future_get(NULL, NULL), -EINVAL);
    cr_assert_eq(rp_future_get_until(done, NULL, -1), -EINVAL);
    cr_assert_eq(rp_future_get_timeout(done, NULL, -1), -EINVAL);
    cr_assert_eq(rp_future_get_timeout(NULL, NULL, 1), -EINVAL);
    cr_assert_eq(rp_future_try_get(NULL, NULL), -EINVAL);
    cr_assert_eq(rp_future_cancel(NULL), -EINVAL);
    cr_assert_eq(rp_future_run(NULL), -EINVAL);
    cr_assert_eq(rp_future_then(NULL, pool, NULL, NULL, &future), -EINVAL);
    cr_assert_eq(rp_future_wait_any(array, 0, 0), -EINVAL);
    cr_assert_eq(rp_future_wait_any(array, 2, 0), -EINVAL);
    cr_assert_eq(rp_future_wait_any(array, 1, -1), -EINVAL);
    cr_assert_eq(rp_future_wait_all(array, 2, 0), -EINVAL);
    cr_assert_eq(rp_future_wait_all(NULL, 0, 0), 0);
    cr_assert(!rp_future_done(NULL));
    rp_future_destroy(NULL);
    rp_future_destroy(done);
    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(rp_pool_submit_future(pool, answer, NULL, &future), -ESHUTDOWN);
    cr_assert_null(future);
    pool_end(pool);
}

Test(future, a_get_that_gives_up_may_come_again)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, pass_gate, &gate);

    cr_assert_eq(rp_future_try_get(future, NULL), -EBUSY);
    cr_assert_eq(rp_future_get_until(future, NULL, 1), -ETIMEDOUT);
    cr_assert_eq(rp_future_get_until(future, NULL, rp_after(2 * MS)), -ETIMEDOUT);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), 0);
    rp_future_destroy(future);
    pool_end(pool);
}

Test(future, a_get_with_a_timeout_waits_for_so_long_and_no_less)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, pass_gate, &gate), *good;
    void *value = &gate;

    cr_assert_eq(rp_future_get_timeout(future, &value, 0), -ETIMEDOUT);
    int64_t start = rp_now();
    cr_assert_eq(rp_future_get_timeout(future, &value, 2 * MS), -ETIMEDOUT);
    cr_assert_geq(rp_now() - start, 2 * MS);
    cr_assert_eq(value, &gate, "no end, no value");
    cr_assert_not(rp_future_done(future));
    gate_open(&gate);
    cr_assert_eq(rp_future_get_timeout(future, NULL, INT64_MAX), 0);
    rp_future_destroy(future);
    good = future_make(pool, answer, &pool);
    cr_assert_eq(rp_future_get_timeout(good, &value, PATIENCE), 42);
    cr_assert_eq(value, &pool);
    cr_assert_eq(rp_future_get_timeout(good, NULL, 0), 42, "done is done");
    rp_future_destroy(good);
    pool_end(pool);
}

static int ask_without_waiting(void *arg, void **value)
{
    struct rp_future *inner;
    int rc = rp_pool_submit_future(arg, answer, arg, &inner);

    if (rc)
        return rc;
    rc = rp_future_get_timeout(inner, value, 0);
    rp_future_destroy(inner);
    return rc;
}

/* Adversary: the only worker asks for what is queued behind it. Holds: no time to wait is no reason not to help. */
Test(future, a_get_without_time_to_wait_helps)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 4});
    struct rp_future *outer = future_make(pool, ask_without_waiting, pool);
    void *value = NULL;

    cr_assert_eq(rp_future_get(outer, &value), 42);
    cr_assert_eq(value, pool);
    rp_future_destroy(outer);
    pool_end(pool);
}

Test(future, once_get_has_returned_there_is_room_again)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.nonblocking = true});

    for (int i = 0; i < 5000; i++) {
        struct rp_future *future = future_make(pool, answer, NULL);
        cr_assert_eq(rp_future_get(future, NULL), 42);
        rp_future_destroy(future);
    }
    pool_end(pool);
}

Test(future, a_panic_and_an_exit_of_the_thread_are_efault)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.log = quiet, .queue_depth = 8});

    for (int i = 0; i < 20; i++) {
        struct rp_future *future = future_make(pool, i % 2 ? panic : exit_thread, NULL);
        void *value = &value;
        cr_assert_eq(rp_future_get(future, &value), -EFAULT);
        cr_assert_null(value);
        rp_future_destroy(future);
    }
    struct rp_future *after = future_make(pool, answer, NULL);
    cr_assert_eq(rp_future_get(after, NULL), 42);
    rp_future_destroy(after);
    pool_end(pool);
}

/* --- destroying and dropping -------------------------------------------------------------------------------------- */

Test(future, destroyed_in_any_state_the_task_still_runs)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 10; i++)
        rp_future_destroy(future_make(pool, count_one, &ran));
    rp_future_detach(future_make(pool, count_one, &ran));
    gate_open(&gate);
    AWAIT(load_seq(&ran) == 11);
    struct rp_future *done = future_make(pool, answer, NULL);
    cr_assert_eq(rp_future_get(done, NULL), 42);
    rp_future_destroy(done);
    pool_end(pool);
}

Test(future, a_future_outlives_its_pool)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, answer, &gate_pass);
    void *value;

    pool_end(pool);
    cr_assert_eq(rp_future_get(future, &value), 42);
    rp_future_destroy(future);
}

struct dropping {
    _Atomic uint32_t ran, dropped;
    _Atomic int reason;
};

static int dropping_run(void *arg, void **value)
{
    (void)value;
    add_seq(&((struct dropping *)arg)->ran, 1);
    return 0;
}

static void dropping_drop(void *arg, int reason)
{
    store_seq(&((struct dropping *)arg)->reason, reason);
    add_seq(&((struct dropping *)arg)->dropped, 1);
}

Test(future, a_release_that_drops_ends_the_queued_ones)
{
    struct gate gate = {0};
    struct dropping fate = {0};
    struct rp_pool *pool =
        pool_make(1, &(struct rp_pool_options){.queue_depth = 8, .release_policy = RP_RELEASE_DROP, .log = quiet});
    struct rp_future *futures[4];

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(rp_pool_submit_future_task(pool, dropping_run,
                                                &(struct rp_task){.arg = &fate, .dropped = dropping_drop}, &futures[i]),
                     0);
    cr_assert_eq(rp_pool_release(pool), 0);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(rp_future_get(futures[i], NULL), -ESHUTDOWN);
        rp_future_destroy(futures[i]);
    }
    cr_assert_eq(load_seq(&fate.dropped), 4);
    cr_assert_eq(load_seq(&fate.reason), -ESHUTDOWN);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&fate.ran), 0);
}

Test(future, a_deadline_that_passes_in_the_queue_is_etimedout)
{
    struct gate gate = {0};
    struct dropping fate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_future_task(
                     pool, dropping_run,
                     &(struct rp_task){.arg = &fate, .dropped = dropping_drop, .deadline = rp_after(5 * MS)}, &future),
                 0);
    nap(6 * MS);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), -ETIMEDOUT);
    rp_future_destroy(future);
    pool_end(pool);
    cr_assert_eq(load_seq(&fate.dropped), 1);
}

static int sleep_until_asked(void *arg, void **value)
{
    (void)value;
    store_seq((_Atomic uint32_t *)arg, 1);
    return rp_ctx_sleep(rp_ctx_current(), rp_after(PATIENCE)) == -ETIMEDOUT ? 7 : 8;
}

/* The future is done at its timeout, whatever fn does; what fn returns after that is nobody's. */
Test(future, a_run_timeout_completes_it_and_cancels_its_context)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.log = quiet});
    _Atomic uint32_t begun = 0;
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_future_task(pool, sleep_until_asked,
                                            &(struct rp_task){.arg = &begun, .timeout = 5 * MS}, &future),
                 0);
    cr_assert_eq(rp_future_get(future, NULL), -ETIMEDOUT);
    pool_end(pool); /* fn has seen its context end, else this takes long */
    cr_assert_eq(load_seq(&begun), 1);
    rp_future_destroy(future);
}

/* --- cancelling --------------------------------------------------------------------------------------------------- */

Test(future, a_queued_one_that_is_cancelled_never_runs)
{
    struct gate gate = {0};
    struct dropping fate = {0};
    struct rp_pool *pool = pool_shut(1, &gate);
    struct rp_future *future;

    cr_assert_eq(rp_pool_submit_future_task(pool, dropping_run,
                                            &(struct rp_task){.arg = &fate, .dropped = dropping_drop}, &future),
                 0);
    cr_assert_eq(rp_future_cancel(future), 0);
    cr_assert_eq(rp_future_try_get(future, NULL), -ECANCELED, "at once");
    cr_assert_eq(rp_future_cancel(future), -EALREADY);
    gate_open(&gate);
    AWAIT(load_seq(&fate.dropped) == 1);
    cr_assert_eq(load_seq(&fate.reason), -ECANCELED);
    AWAIT(pool_look(pool).dropped == 1);
    rp_future_destroy(future);
    pool_end(pool);
    cr_assert_eq(load_seq(&fate.ran), 0);
}

static int until_cancelled(void *arg, void **value)
{
    (void)value;
    struct rp_ctx *ctx = rp_ctx_current();
    store_seq((_Atomic uint32_t *)arg, 1);
    return rp_ctx_sleep(ctx, rp_after(PATIENCE));
}

Test(future, a_running_one_is_asked_through_its_context)
{
    struct rp_pool *pool = pool_make(1, NULL);
    _Atomic uint32_t begun = 0;
    struct rp_future *future = future_make(pool, until_cancelled, &begun);

    AWAIT(load_seq(&begun));
    cr_assert_eq(rp_future_cancel(future), 0);
    cr_assert_eq(rp_future_get(future, NULL), -ECANCELED, "what fn returned");
    rp_future_destroy(future);
    pool_end(pool);
}

static int asks_late(void *arg, void **value)
{
    (void)value;
    gate_pass(arg);
    return rp_ctx_err(rp_ctx_current());
}

Test(future, a_context_that_is_asked_for_after_the_cancel_has_ended)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, asks_late, &gate);

    AWAIT(load_seq(&gate.inside));
    cr_assert_eq(rp_future_cancel(future), 0);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), -ECANCELED);
    rp_future_destroy(future);
    pool_end(pool);
}

struct race {
    struct rp_future *future;
    pthread_barrier_t barrier;
    int seen[3];
    pthread_t thread[3];
    _Atomic uint32_t next;
};

static void *race_observe(void *arg)
{
    struct race *race = arg;
    unsigned me = add_seq(&race->next, 1);

    pthread_barrier_wait(&race->barrier);
    if (me == 0)
        rp_future_cancel(race->future);
    race->seen[me] = rp_future_get(race->future, NULL);
    return NULL;
}

/*
 * Adversary: a cancel between submit and start, and two observers. One CAS decides: fn ran once and all see 0, or it
 * never ran and all see -ECANCELED. A cancel that is stored beside the claim instead shows as a mix.
 */
Test(future, a_cancel_that_races_with_the_start_has_one_outcome)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 16});
    static _Atomic uint32_t others;
    unsigned outcomes[2] = {0};

    for (int round = 0; round < 600; round++) {
        struct race race = {0};
        _Atomic uint32_t ran = 0;

        pthread_barrier_init(&race.barrier, NULL, 3);
        for (int i = 0; i < round % 4; i++)
            cr_assert_eq(rp_pool_submit(pool, count_task, &others), 0);
        race.future = future_make(pool, count_one, &ran);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&race.thread[i], NULL, race_observe, &race), 0);
        for (int i = 0; i < 3; i++)
            pthread_join(race.thread[i], NULL);
        AWAIT(rp_pool_busy(pool) + rp_pool_waiting(pool) == 0);
        cr_assert(race.seen[0] == 0 || race.seen[0] == -ECANCELED);
        cr_assert_eq(race.seen[1], race.seen[0]);
        cr_assert_eq(race.seen[2], race.seen[0]);
        cr_assert_eq(load_seq(&ran), race.seen[0] == 0);
        outcomes[race.seen[0] == 0]++;
        rp_future_destroy(race.future);
        pthread_barrier_destroy(&race.barrier);
    }
    cr_log_info("%u cancelled, %u ran", outcomes[0], outcomes[1]);
    pool_end(pool);
}

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
 * Adversary: tasks that wait for tasks deeper than any stack. A worker helps while half of its stack is left, then others
 * stand in; when no more may, a wait is refused. Nobody's stack overflows.
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

/* --- continuations ------------------------------------------------------------------------------------------------ */

static int plus_one(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    *next_value = value;
    return result + 1;
}

Test(future, then_goes_on_with_result_and_value)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_shut(1, &gate), *other = pool_make(1, NULL);
    struct rp_future *first = future_make(pool, answer, &gate), *second, *third, *fourth;
    void *value;

    cr_assert_eq(rp_future_then(first, NULL, plus_one, NULL, &second), 0);
    cr_assert_eq(rp_future_then(second, other, plus_one, NULL, &third), 0);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(third, &value), 44);
    cr_assert_eq(value, &gate);
    cr_assert_eq(rp_future_then(first, pool, plus_one, NULL, &fourth), 0, "of one that is done");
    rp_future_destroy(first);
    cr_assert_eq(rp_future_get(fourth, NULL), 43);
    rp_future_destroy(second);
    rp_future_destroy(third);
    rp_future_destroy(fourth);
    pool_end(other);
    pool_end(pool);
}

struct chain_wait {
    struct rp_future *last;
    struct gate gate;
};

static int waits_for_last(void *arg, void **value)
{
    struct chain_wait *wait = arg;

    (void)value;
    gate_pass(&wait->gate);
    return rp_future_get(wait->last, NULL);
}

/* Each link would cost a frame if completion called completion: 100,000 of them do not fit on a worker's stack. */
static void deep_chain(bool cancel, int links, bool from_task)
{
    struct gate gate = {0};
    struct chain_wait wait = {0};
    struct rp_pool *pool =
        pool_make(1, &(struct rp_pool_options){.queue_depth = 4, .stack_size = SMALL_STACK, .log = quiet});
    struct rp_future *waiter = NULL;

    if (from_task)
        waiter = future_make(pool, waits_for_last, &wait);
    else
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    struct rp_future *first = future_make(pool, answer, NULL), *last = first;
    for (int i = 0; i < links; i++) {
        struct rp_future *next;
        cr_assert_eq(rp_future_then(last, NULL, plus_one, NULL, &next), 0);
        if (last != first)
            rp_future_destroy(last);
        last = next;
    }
    wait.last = last;
    if (cancel)
        cr_assert_eq(rp_future_cancel(first), 0);
    gate_open(&gate);
    gate_open(&wait.gate);
    cr_assert_eq(rp_future_get(from_task ? waiter : last, NULL), cancel ? -ECANCELED : 42 + links);
    rp_future_destroy(first);
    rp_future_destroy(last);
    rp_future_destroy(waiter);
    pool_end(pool);
}

Test(future, a_chain_of_100000_runs_in_constant_stack)
{
    deep_chain(false, 100000, false);
}

Test(future, a_chain_of_100000_fails_in_constant_stack)
{
    deep_chain(true, 100000, false);
}

Test(future, a_chain_of_100000_is_helped_in_constant_stack)
{
    deep_chain(false, 100000, true);
}

Test(future, many_continuations_of_one_all_run)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 4});
    struct rp_future *first = future_make(pool, pass_gate, &gate), *next[200];

    for (int i = 0; i < 200; i++)
        cr_assert_eq(rp_future_then(first, NULL, plus_one, NULL, &next[i]), 0);
    cr_assert_eq(rp_future_cancel(next[77]), 0);
    gate_open(&gate);
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(rp_future_get(next[i], NULL), i == 77 ? -ECANCELED : 1);
        rp_future_destroy(next[i]);
    }
    rp_future_destroy(first);
    pool_end(pool);
}

static int panics_on(void *arg, int result, void *value, void **next_value)
{
    (void)arg, (void)result, (void)value, (void)next_value;
    rp_panic("in a continuation");
    return 0;
}

static int exits_on(void *arg, int result, void *value, void **next_value)
{
    (void)arg, (void)result, (void)value, (void)next_value;
    pthread_exit(NULL);
}

Test(future, a_continuation_may_panic_or_end_its_thread)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 64, .log = quiet});

    for (int i = 0; i < 20; i++) {
        struct gate gate = {0};
        struct rp_future *first = future_make(pool, pass_gate, &gate), *bad, *after;
        cr_assert_eq(rp_future_then(first, NULL, i % 2 ? panics_on : exits_on, NULL, &bad), 0);
        cr_assert_eq(rp_future_then(bad, NULL, plus_one, NULL, &after), 0);
        gate_open(&gate);
        cr_assert_eq(rp_future_get(bad, NULL), -EFAULT);
        cr_assert_eq(rp_future_get(after, NULL), -EFAULT);
        cr_assert_eq(rp_future_get(first, NULL), 0);
        rp_future_destroy(first);
        rp_future_destroy(bad);
        rp_future_destroy(after);
    }
    AWAIT(pool_look(pool).busy == 0 && pool_look(pool).waiting == 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.panicked, 20);
    cr_assert_eq(seen.completed, 20);
    pool_end(pool);
}

/* No room in the pool: the thread that ends `first` is to run all of what continues it, and the first of these ends it. */
Test(future, a_continuation_that_ends_its_thread_takes_none_with_it)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.log = quiet});

    for (int i = 0; i < 20; i++) {
        struct gate gate = {0};
        struct rp_future *first = future_make(pool, pass_gate, &gate), *next[4];
        for (int k = 0; k < 4; k++)
            cr_assert_eq(rp_future_then(first, NULL, k % 2 ? plus_one : exits_on, NULL, &next[k]), 0);
        gate_open(&gate);
        for (int k = 0; k < 4; k++) {
            cr_assert_eq(rp_future_get_until(next[k], NULL, rp_after(PATIENCE)), k % 2 ? 1 : -EFAULT, "%d", k);
            rp_future_destroy(next[k]);
        }
        rp_future_destroy(first);
    }
    pool_end(pool);
}

/* --- memory and forks --------------------------------------------------------------------------------------------- */

static void memory_round(struct bank *bank)
{
    struct rp_allocator allocator = bank_allocator(bank);
    struct rp_pool *pool;
    struct rp_future *future, *next;
    uint32_t fail_at = load_seq(&bank->fail_at);

    store_seq(&bank->fail_at, 0);
    cr_assert_eq(rp_pool_create(&pool, 2, &(struct rp_pool_options){.allocator = &allocator, .queue_depth = 8}), 0);
    uint32_t base = load_seq(&bank->calls);
    store_seq(&bank->fail_at, fail_at ? base + fail_at : 0);
    int rc = rp_pool_submit_future(pool, answer, NULL, &future);
    cr_assert(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "submit gave %d", rc);
    if (!rc) {
        rc = rp_future_then(future, NULL, plus_one, NULL, &next);
        cr_assert(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "then gave %d", rc);
        cr_assert_eq(rp_future_get(future, NULL), 42);
        if (!rc) {
            cr_assert_eq(rp_future_get(next, NULL), 43);
            rp_future_destroy(next);
        }
        rp_future_destroy(future);
    }
    pool_end(pool);
}

Test(future, memory_that_is_short_is_returned_and_nothing_is_lost)
{
    for (uint32_t at = 0; at < 12; at++) {
        struct bank bank = {.fail_at = at};
        memory_round(&bank);
        cr_assert_eq(load_seq(&bank.live), 0, "%u blocks stay, failure at %u", load_seq(&bank.live), at);
        cr_assert_eq(load_seq(&bank.strange), 0);
    }
}

Test(future, a_continuation_that_is_refused_lets_go_of_what_it_continues)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.nonblocking = true, .allocator = &allocator});
    struct rp_future *first = future_make(pool, answer, NULL), *next;

    cr_assert_eq(rp_future_get(first, NULL), 42);
    AWAIT(rp_pool_submit(pool, gate_pass, &gate) == 0);
    cr_assert_eq(rp_future_then(first, NULL, plus_one, NULL, &next), -EAGAIN);
    cr_assert_null(next);
    rp_future_destroy(first);
    gate_open(&gate);
    pool_end(pool);
    cr_assert_eq(load_seq(&bank.live), 0, "%u blocks stay", load_seq(&bank.live));
}

static int child_body(void *arg)
{
    struct rp_future *future = arg, *next;
    struct rp_future *array[] = {future};

    CHECK(rp_future_get(future, NULL) == -ECHILD);
    CHECK(rp_future_get_timeout(future, NULL, 0) == -ECHILD);
    CHECK(rp_future_try_get(future, NULL) == -ECHILD);
    CHECK(rp_future_cancel(future) == -ECHILD);
    CHECK(rp_future_run(future) == -ECHILD);
    CHECK(rp_future_then(future, NULL, plus_one, NULL, &next) == -ECHILD);
    CHECK(rp_future_wait_any(array, 1, 0) == -ECHILD);
    CHECK(rp_future_wait_all(array, 1, 0) == -ECHILD);
    rp_future_destroy(future);
    return 0;
}

Test(future, a_forked_child_refuses_those_of_its_parent)
{
    struct gate gate = {0};
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_future *future = future_make(pool, pass_gate, &gate);

    cr_assert_eq(in_child(child_body, future), 0);
    gate_open(&gate);
    cr_assert_eq(rp_future_get(future, NULL), 0);
    rp_future_destroy(future);
    pool_end(pool);
}

/* --- types -------------------------------------------------------------------------------------------------------- */

struct pair {
    int a, b;
};

static int add_pair(struct pair *pair, struct pair **sum)
{
    pair->a += pair->b;
    *sum = pair;
    return 0;
}

RP_FUTURE_TYPE(sum, struct pair, struct pair, add_pair)

Test(future, typed_wrappers_need_no_cast)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct pair pair = {20, 22}, *out;
    struct rp_future *future;

    cr_assert_eq(sum_submit(pool, &pair, &future), 0);
    cr_assert_eq(sum_get_until(future, &out, 0), 0);
    cr_assert_eq(out->a, 42);
    out = NULL;
    cr_assert_eq(sum_get(future, &out), 0);
    cr_assert_eq(out, &pair);
    out = NULL;
    cr_assert_eq(sum_get_timeout(future, &out, 0), 0);
    cr_assert_eq(out, &pair);
    rp_future_destroy(future);
    pool_end(pool);
}
