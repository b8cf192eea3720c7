/*
 * A system that is short of threads, or that stops the process for a while: the pool works with what it has and takes
 * up the rest when it can.
 */
#include "life.h"

#include <signal.h>
#include <sys/resource.h>

/* --- too few threads -------------------------------------------------------------------------------------------- */

/*
 * In a child: becomes a user that nobody else is and may have no more than `more` threads beside the caller. Its
 * supplementary rights go with the user.
 */
static int limit_threads(unsigned more)
{
    struct rlimit limit;

    if (geteuid() == 0)
        CHECK(setuid(60000 + (uid_t)getpid() % 5000) == 0);
    CHECK(getrlimit(RLIMIT_NPROC, &limit) == 0);
    limit.rlim_cur = 1 + more;
    CHECK(setrlimit(RLIMIT_NPROC, &limit) == 0);
    return 0;
}

static int unlimit_threads(void)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NPROC, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NPROC, &limit) == 0);
    return 0;
}

/* Only a user of its own has no other threads that the limit counts. */
#define NEEDS_ROOT()                                                                                                   \
    do {                                                                                                               \
        if (geteuid() != 0)                                                                                            \
            cr_skip_test("needs root, to become a user without other threads");                                        \
        if (UNDER_TSAN || UNDER_ASAN)                                                                                  \
            cr_skip_test("the sanitizer wants threads of its own");                                                    \
    } while (0)

/* The reactor and two workers are all that may live. */
static int works_with_two(void *arg)
{
    struct rp_pool_options options = {
        .queue_depth = *(unsigned *)arg, .log_level = RP_LOG_NONE, .expiry_ns = 3600 * 1000 * MS};
    struct rp_pool *pool;
    struct gate gate = {0};
    struct rp_pool_snapshot seen;
    _Atomic uint32_t ran = 0;

    if (limit_threads(3))
        return 1;
    CHECK(rp_pool_create(&pool, 8, &options) == 0);
    for (int i = 0; i < 6; i++)
        CHECK(rp_pool_submit(pool, gate_pass, &gate) == 0);
    CHECK(COMES_TRUE(load_seq(&gate.inside) == 2));
    CHECK(COMES_TRUE(rp_pool_running(pool) == 2));
    nap(20 * MS); /* for retries, in vain */
    CHECK(load_seq(&gate.inside) == 2);
    gate_open(&gate);
    CHECK(COMES_TRUE(load_seq(&gate.passed) == 6)); /* the two run all of them */
    for (int i = 0; i < 500; i++)
        CHECK(rp_pool_submit(pool, count_task, (void *)&ran) == 0);
    CHECK(COMES_TRUE(load_seq(&ran) == 500));
    CHECK(rp_pool_release_until(pool, rp_after(PATIENCE), NULL) == 0);
    CHECK(rp_pool_snapshot(pool, &seen) == 0);
    CHECK(seen.completed == 506 && seen.spawned == 2);
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

Test(pool_threads, a_pool_works_on_with_the_two_workers_that_could_be_made)
{
    NEEDS_ROOT();
    cr_assert_eq(in_child(works_with_two, &(unsigned){16}), 0);
    cr_assert_eq(in_child(works_with_two, &(unsigned){0}), 0, "direct hand-off");
}

/* Nobody submits or ends a task when the limit is lifted: the retry timer alone must notice. */
static int takes_up_the_rest(void *arg)
{
    struct rp_pool_options options = {.log_level = RP_LOG_NONE};
    struct rp_pool *pool;
    struct gate gate = {0};

    (void)arg;
    if (limit_threads(3))
        return 1;
    CHECK(rp_pool_create(&pool, 8, &options) == 0);
    for (int i = 0; i < 6; i++)
        CHECK(rp_pool_submit(pool, gate_pass, &gate) == 0);
    CHECK(COMES_TRUE(load_seq(&gate.inside) == 2));
    if (unlimit_threads())
        return 1;
    CHECK(COMES_TRUE(load_seq(&gate.inside) == 6));
    gate_open(&gate);
    CHECK(rp_pool_release_until(pool, rp_after(PATIENCE), NULL) == 0);
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

Test(pool_threads, queued_tasks_get_their_workers_when_threads_can_be_made_again)
{
    NEEDS_ROOT();
    cr_assert_eq(in_child(takes_up_the_rest, NULL), 0);
}

static int create_is_refused(void *arg)
{
    struct rp_pool_options options = {.min_workers = 3, .log_level = RP_LOG_NONE};
    struct rp_pool *pool = (struct rp_pool *)(uintptr_t)1;
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    long descriptors = count_descriptors();

    (void)arg;
    options.allocator = &allocator;
    if (limit_threads(3))
        return 1;
    CHECK(rp_pool_create(&pool, 8, &options) == -EAGAIN);
    CHECK(pool == NULL);
    CHECK(load_seq(&bank.live) == 0);
    CHECK(COMES_TRUE(count_threads() == 1 && count_descriptors() == descriptors));
    if (limit_threads(0))
        return 1;
    options.min_workers = 0;
    CHECK(rp_pool_create(&pool, 8, &options) == -EAGAIN); /* not even a reactor */
    CHECK(pool == NULL);
    CHECK(load_seq(&bank.live) == 0);
    CHECK(COMES_TRUE(count_threads() == 1 && count_descriptors() == descriptors));
    return 0;
}

Test(pool_threads, a_creation_that_cannot_make_its_minimum_is_refused_and_leaves_nothing)
{
    NEEDS_ROOT();
    cr_assert_eq(in_child(create_is_refused, NULL), 0);
}

static int nobody_can_run(void *arg)
{
    struct rp_pool_options options = {.queue_depth = 4, .log_level = RP_LOG_NONE, .min_workers = 0};
    struct rp_pool *pool;
    struct ledger ledger = {0};

    (void)arg;
    if (limit_threads(1))
        return 1;
    CHECK(rp_pool_create(&pool, 4, &options) == 0);
    CHECK(ledger_submit(&ledger, pool, RP_OVERLOAD_BLOCK) == -EAGAIN); /* no worker, and none can be made */
    CHECK(rp_pool_prewarm(pool, 2) == -EAGAIN);
    CHECK(rp_pool_running(pool) == 0);
    if (unlimit_threads())
        return 1;
    CHECK(ledger_submit(&ledger, pool, RP_OVERLOAD_BLOCK) == 0);
    CHECK(COMES_TRUE(load_seq(&ledger.ran) == 1));
    CHECK(rp_pool_prewarm(pool, 3) == 3);
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

Test(pool_threads, without_any_worker_submit_is_refused_until_one_can_be_made)
{
    NEEDS_ROOT();
    cr_assert_eq(in_child(nobody_can_run, NULL), 0);
}

static int prewarms_in_part(void *arg)
{
    struct rp_pool_options options = {.log_level = RP_LOG_NONE, .no_purge = true};
    struct rp_pool *pool;

    (void)arg;
    if (limit_threads(4))
        return 1;
    CHECK(rp_pool_create(&pool, 8, &options) == 0);
    CHECK(rp_pool_prewarm(pool, 8) == 3);
    CHECK(rp_pool_prewarm(pool, 8) == -EAGAIN);
    CHECK(rp_pool_prewarm(pool, 2) == 3);
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

Test(pool_threads, prewarm_tells_how_many_could_be_made)
{
    NEEDS_ROOT();
    cr_assert_eq(in_child(prewarms_in_part, NULL), 0);
}

static int prewarms_many_in_part(void *arg)
{
    struct rp_pool_options options = {.log_level = RP_LOG_NONE, .no_purge = true};
    struct rp_pool *pool;

    (void)arg;
    if (limit_threads(100))
        return 1;
    CHECK(rp_pool_create(&pool, 200, &options) == 0);
    CHECK(rp_pool_prewarm(pool, 200) == 99);
    CHECK(rp_pool_prewarm(pool, 200) == -EAGAIN);
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

/* So many that some of them help to make the others, which all stop at the first that is not to be had. */
Test(pool_threads, prewarm_of_many_tells_how_many_could_be_made)
{
    NEEDS_ROOT();
    cr_assert_eq(in_child(prewarms_many_in_part, NULL), 0);
}

/* --- a process that is stopped ---------------------------------------------------------------------------------- */

/* Stops its parent for two seconds. */
static pid_t stop_parent_later(void)
{
    pid_t target = getpid(), pid = fork();

    if (pid)
        return pid;
    nap(100 * MS);
    kill(target, SIGSTOP);
    nap(2000 * MS);
    kill(target, SIGCONT);
    _exit(0);
}

/*
 * Adversary: the process stands still for two seconds between any two instructions, while workers expire and submitters
 * block; all deadlines lie in the past when it goes on.
 */
static int works_across_a_stop(void *arg)
{
    struct rp_pool_options options = {.expiry_ns = 5 * MS, .queue_depth = 2, .min_workers = 1};
    struct rp_pool *pool;
    struct ledger ledger = {0};
    pid_t stopper = stop_parent_later();
    int status = 0;
    pid_t ended;

    (void)arg;
    CHECK(stopper > 0);
    CHECK(rp_pool_create(&pool, 3, &options) == 0);
    while ((ended = waitpid(stopper, &status, WNOHANG)) == 0) {
        for (int i = 0; i < 6; i++)
            CHECK(ledger_submit(&ledger, pool, RP_OVERLOAD_BLOCK) == 0);
        nap(3 * MS);
    }
    CHECK(ended == stopper && status == 0);
    CHECK(COMES_TRUE(ledger_balances(&ledger)));
    CHECK(COMES_TRUE(rp_pool_running(pool) == 1));
    CHECK(ledger_submit(&ledger, pool, RP_OVERLOAD_BLOCK) == 0);
    CHECK(rp_pool_release_until(pool, rp_after(PATIENCE), NULL) == 0);
    CHECK(load_seq(&ledger.ran) == load_seq(&ledger.accepted));
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

/* In a child, so that the one who stands still is not who reports to the runner. */
Test(pool_threads, a_process_that_is_stopped_and_continued_loses_nothing)
{
    if (UNDER_TSAN || UNDER_ASAN)
        cr_skip_test("a sanitizer's own locks come into the child held");
    cr_assert_eq(in_child(works_across_a_stop, NULL), 0);
}
