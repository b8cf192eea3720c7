/*
 * Pools across fork: dead in the child, which may make its own; untouched in the parent.
 */
#include "life.h"

#include <ringpool/future.h>

static int never_run(void *arg, void **value)
{
    (void)arg;
    (void)value;
    abort();
}

static int every_call_is_refused(struct rp_pool *pool)
{
    struct rp_future *future = NULL;
    struct rp_pool_snapshot seen;
    struct rp_release_report report;
    struct rp_worker_info info;
    struct rp_task task = {.fn = count_task};
    _Atomic uint32_t ran = 0;

    task.arg = (void *)&ran;
    CHECK(rp_pool_submit(pool, count_task, (void *)&ran) == -ECHILD);
    CHECK(rp_pool_try_submit(pool, count_task, (void *)&ran) == -ECHILD);
    CHECK(rp_pool_submit_until(pool, count_task, (void *)&ran, rp_after(PATIENCE)) == -ECHILD);
    for (int overload = RP_OVERLOAD_DEFAULT; overload <= RP_OVERLOAD_CALLER_RUNS; overload++)
        for (int priority = RP_PRIO_NORMAL; priority <= RP_PRIO_LOW; priority++) {
            task.overload = overload;
            task.priority = priority;
            CHECK(rp_pool_submit_task(pool, &task) == -ECHILD);
            CHECK(rp_pool_submit_batch(pool, &task, 1) == -ECHILD);
            const struct rp_task like = {.overload = overload, .priority = priority};
            CHECK(rp_pool_submit_future_task(pool, never_run, &like, &future) == -ECHILD && !future);
        }
    CHECK(rp_pool_submit_future(pool, never_run, NULL, &future) == -ECHILD && !future);
    CHECK(rp_pool_tune(pool, 5) == -ECHILD);
    CHECK(rp_pool_prewarm(pool, 2) == -ECHILD);
    CHECK(rp_pool_release(pool) == -ECHILD);
    CHECK(rp_pool_release_until(pool, rp_after(PATIENCE), &report) == -ECHILD);
    CHECK(rp_pool_reboot(pool) == -ECHILD);
    CHECK(rp_pool_snapshot(pool, &seen) == -ECHILD);
    CHECK(rp_pool_workers(pool, &info, 1) == -ECHILD);
    CHECK(rp_pool_running(pool) == 0);
    CHECK(rp_pool_busy(pool) == 0);
    CHECK(rp_pool_free(pool) == 0);
    CHECK(rp_pool_waiting(pool) == 0);
    CHECK(rp_pool_cap(pool) == 0);
    CHECK(rp_pool_is_closed(pool));
    CHECK(load_seq(&ran) == 0);
    return 0;
}

static int a_new_pool_works(void)
{
    struct rp_pool_options options = {.min_workers = 1, .queue_depth = 4, .expiry_ns = 5 * MS};
    struct rp_pool *pool;
    _Atomic uint32_t ran = 0;

    CHECK(rp_pool_create(&pool, 2, &options) == 0);
    for (uint32_t i = 0; i < 50; i++)
        CHECK(rp_pool_submit(pool, count_task, (void *)&ran) == 0);
    CHECK(COMES_TRUE(load_seq(&ran) == 50));
    CHECK(COMES_TRUE(rp_pool_running(pool) == 1)); /* the timers of a new reactor fire */
    CHECK(rp_pool_release_until(pool, rp_after(PATIENCE), NULL) == 0);
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

static int refused_then_destroyed(void *arg)
{
    struct rp_pool *pool = arg;

    if (every_call_is_refused(pool))
        return 1;
    CHECK(rp_pool_destroy(pool) == 0);
    CHECK(rp_pool_is_closed(pool));
    CHECK(rp_pool_running(pool) == 0);
    return 0;
}

static int new_beside_the_dead(void *arg)
{
    struct rp_pool *pool = arg;

    if (a_new_pool_works() || every_call_is_refused(pool))
        return 1;
    CHECK(rp_pool_destroy(pool) == 0);
    return a_new_pool_works();
}

static void assert_untouched(struct rp_pool *pool, unsigned capacity)
{
    _Atomic uint32_t ran = 0;

    cr_assert_not(rp_pool_is_closed(pool));
    cr_assert_eq(rp_pool_cap(pool), capacity);
    for (uint32_t i = 0; i < 100; i++)
        cr_assert_eq(rp_pool_submit(pool, count_task, (void *)&ran), 0);
    AWAIT(load_seq(&ran) == 100);
    pool_end(pool);
}

Test(pool_fork, the_child_is_refused_by_every_call_and_destroys)
{
    struct rp_pool_options options = {.prealloc = true, .no_purge = true};
    struct rp_pool *pool = pool_make(3, &options);

    cr_assert_eq(in_child(refused_then_destroyed, pool), 0);
    assert_untouched(pool, 3);
}

Test(pool_fork, a_new_pool_works_in_the_child)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct rp_pool *pool = pool_make(3, NULL);

    cr_assert_eq(in_child(new_beside_the_dead, pool), 0);
    assert_untouched(pool, 3);
}

/* The child must not wait for tasks, workers or submitters that do not exist there. */
Test(pool_fork, a_loaded_pool_is_refused_and_destroyed_in_the_child)
{
    struct rp_pool_options options = {.queue_depth = 2};
    struct rp_pool *pool = pool_make(2, &options);
    struct gate gate = {0};
    struct caller caller;

    for (int i = 0; i < 4; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 2);
    caller_start(&caller, pool, call_submit_gated, &gate);
    AWAIT(pool_look(pool).blocked == 1);
    cr_assert_eq(in_child(refused_then_destroyed, pool), 0);
    cr_assert_eq(rp_pool_busy(pool), 2);
    gate_open(&gate);
    cr_assert_eq(caller_end(&caller), 0);
    AWAIT(load_seq(&gate.passed) == 5);
    assert_untouched(pool, 2);
}

Test(pool_fork, a_released_pool_is_refused_as_a_forked_one)
{
    struct rp_pool *pool = pool_make(2, NULL);

    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(in_child(refused_then_destroyed, pool), 0);
    cr_assert_eq(rp_pool_reboot(pool), 0);
    assert_untouched(pool, 2);
}

/* --- from a task ------------------------------------------------------------------------------------------------ */

struct forking {
    struct rp_pool *pool;
    int (*body)(void *arg);
    int status;
    _Atomic uint32_t done;
};

static void fork_inside(void *arg)
{
    struct forking *forking = arg;

    forking->status = in_child(forking->body, forking->pool);
    store_seq(&forking->done, 1);
}

/*
 * Workers that were never called are called inside a fork, by handlers that wait for what they submit. The handlers are
 * there before the library's, so that they run when it has prepared.
 */
static struct rp_pool *used_in_fork;
static _Atomic uint32_t ran_in_fork;

static void submit_and_wait(void)
{
    uint32_t before = load_seq(&ran_in_fork);

    if (rp_pool_submit(used_in_fork, count_task, (void *)&ran_in_fork) == 0)
        while (load_seq(&ran_in_fork) == before)
            sched_yield();
}

Test(pool_fork, a_handler_of_a_fork_may_wait_for_a_task)
{
    struct rp_pool_options options = {.min_workers = 3, .queue_depth = 4};

    NEEDS_THREADS_IN_CHILDREN();
    cr_assert_eq(pthread_atfork(submit_and_wait, submit_and_wait, NULL), 0);
    used_in_fork = pool_make(3, &options);
    for (uint32_t round = 1; round <= 3; round++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        cr_assert_gt(child, 0);
        cr_assert_eq(waitpid(child, NULL, 0), child);
        cr_assert_eq(load_seq(&ran_in_fork), 2 * round);
    }
    pool_end(used_in_fork);
}

Test(pool_fork, a_task_may_fork)
{
    struct rp_pool *pool = pool_make(2, NULL);
    struct forking forking = {.pool = pool, .body = refused_then_destroyed, .status = -1};

    cr_assert_eq(rp_pool_submit(pool, fork_inside, &forking), 0);
    AWAIT(load_seq(&forking.done));
    cr_assert_eq(forking.status, 0);
    assert_untouched(pool, 2);
}

Test(pool_fork, the_child_of_a_task_may_make_a_pool)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct rp_pool *pool = pool_make(2, NULL);
    struct forking forking = {.pool = pool, .body = new_beside_the_dead, .status = -1};

    cr_assert_eq(rp_pool_submit(pool, fork_inside, &forking), 0);
    AWAIT(load_seq(&forking.done));
    cr_assert_eq(forking.status, 0);
    assert_untouched(pool, 2);
}

/* --- under load ------------------------------------------------------------------------------------------------- */

struct load {
    struct rp_pool *pool;
    struct ledger ledger;
    _Atomic uint32_t stop;
};

static void *load_submits(void *arg)
{
    struct load *load = arg;

    while (!load_seq(&load->stop))
        ledger_submit(&load->ledger, load->pool, RP_OVERLOAD_DEFAULT);
    return NULL;
}

static void *load_shakes(void *arg)
{
    struct load *load = arg;

    for (unsigned i = 0; !load_seq(&load->stop); i++)
        rp_pool_tune(load->pool, 1 + i % 3);
    return NULL;
}

/*
 * Adversary: forks at any moment of submits, parks, tunes and expiries, with their locks held. The child must neither
 * hang on a lock that nobody holds there nor disturb the parent.
 */
Test(pool_fork, forks_under_load_disturb_nobody)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct rp_pool_options options = {.expiry_ns = 1 * MS};
    struct load load = {.pool = pool_make(2, &options)};
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i ? load_submits : load_shakes, &load), 0);
    for (int i = 0; i < 15; i++)
        cr_assert_eq(in_child(new_beside_the_dead, load.pool), 0, "child %d", i);
    store_seq(&load.stop, 1);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_eq(rp_pool_release_until(load.pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&load.ledger.ran), load_seq(&load.ledger.accepted));
    cr_assert_eq(load_seq(&load.ledger.refused), 0);
    cr_assert_eq(rp_pool_destroy(load.pool), 0);
}

static void *load_forks(void *arg)
{
    struct load *load = arg;
    bool all_well = true;

    while (!load_seq(&load->stop))
        all_well = in_child(new_beside_the_dead, load->pool) == 0 && all_well;
    return all_well ? arg : NULL;
}

/* Adversary: forks while several threads make workers, which hold them off together. */
Test(pool_fork, forks_while_many_workers_are_made)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct load load = {.pool = pool_make(2, NULL)};
    struct rp_pool_options options = {.prealloc = true};
    pthread_t thread;
    void *all_well;

    cr_assert_eq(pthread_create(&thread, NULL, load_forks, &load), 0);
    for (int i = 0; i < 5; i++) {
        struct rp_pool *many = pool_make(200, &options);
        cr_assert_eq(rp_pool_running(many), 200);
        cr_assert_eq(rp_pool_destroy(many), 0);
    }
    store_seq(&load.stop, 1);
    cr_assert_eq(pthread_join(thread, &all_well), 0);
    cr_assert_not_null(all_well, "a child failed");
    cr_assert_eq(rp_pool_destroy(load.pool), 0);
}

/* Frees as it should, but a worker that ends is held in its first free until the fork is over. */
struct held_free {
    _Atomic uint32_t reached, forked;
    void *_Atomic freed;
    _Atomic uint32_t twice;
};

static _Thread_local bool on_worker;

static int mark_worker(void *user, unsigned worker, void **local)
{
    (void)user;
    (void)worker;
    (void)local;
    on_worker = true;
    return 0;
}

static void *plain_malloc(void *user, size_t size)
{
    (void)user;
    return malloc(size);
}

static void *plain_calloc(void *user, size_t n, size_t size)
{
    (void)user;
    return calloc(n, size);
}

static void hold_in_free(void *user, void *p)
{
    struct held_free *held = user;

    if (p == load_seq(&held->freed)) {
        add_seq(&held->twice, 1);
        return;
    }
    if (!on_worker || load_seq(&held->reached)) {
        free(p);
        return;
    }
    store_seq(&held->freed, p);
    store_seq(&held->reached, 1);
    (void)COMES_TRUE(load_seq(&held->forked));
}

struct dead_pool {
    struct rp_pool *pool;
    struct held_free *held;
};

static int frees_nothing_twice(void *arg)
{
    struct dead_pool *dead = arg;

    CHECK(rp_pool_destroy(dead->pool) == 0);
    CHECK(load_seq(&dead->held->twice) == 0);
    return 0;
}

/* Adversary: a fork in the moment when an ending worker has given back the stack for its signal handlers. */
Test(pool_fork, a_child_frees_nothing_that_an_ending_worker_has_freed)
{
    NEEDS_THREADS_IN_CHILDREN();
    struct held_free held = {0};
    struct rp_allocator allocator = {plain_malloc, plain_calloc, hold_in_free, &held};
    struct rp_pool_options options = {
        .allocator = &allocator, .contain_signals = true, .expiry_ns = 1 * MS, .worker_start = mark_worker};
    struct dead_pool dead = {pool_make(1, &options), &held};

    AWAIT(load_seq(&held.reached));
    cr_assert_eq(in_child(frees_nothing_twice, &dead), 0);
    store_seq(&held.forked, 1);
    cr_assert_eq(rp_pool_destroy(dead.pool), 0);
    cr_assert_eq(load_seq(&held.twice), 0);
    free(load_seq(&held.freed)); /* not before: its address is to be nobody else's */
}
