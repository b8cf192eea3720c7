/*
 * Pace: what workers tell of how long their tasks take. On a bare descriptor, with times of its own, but for one: that
 * the workers of a pool do tell.
 */
#include "patience.h"

#include "pool/handle.h"
#include "pool/pool.h"

#include <ringpool/pool.h>

#define TOLD 64 /* tasks, or */
#define TOLD_NS 100000

static struct pool pool;
static struct worker worker;
static int64_t now;

static void setup(void)
{
    memset(&pool, 0, sizeof(pool));
    memset(&worker, 0, sizeof(worker));
    worker.pool = &pool;
    now = 1000000000;
}

TestSuite(pace, .init = setup);

/* So many tasks, and nothing to do after them. */
static void work(unsigned tasks, int64_t each)
{
    pace_begins(&worker, now);
    now += tasks * each;
    atomic_fetch_add(&worker.tasks, tasks);
    pace_ends(&worker, now);
    now += 1000000; /* of no task */
}

Test(pace, is_told_when_enough_tasks_have_said_so_twice)
{
    work(TOLD, 500);
    cr_assert_eq(pool_task_ns(&pool), 0);
    work(TOLD, 500);
    cr_assert_eq(pool_task_ns(&pool), 500);
}

Test(pace, is_that_of_tasks_and_not_of_the_time_in_between)
{
    for (unsigned i = 0; i < 2 * TOLD; i++)
        work(1, 700);
    cr_assert_eq(pool_task_ns(&pool), 700);
}

Test(pace, of_long_tasks_is_told_after_few)
{
    work(2, TOLD_NS / 2);
    work(1, TOLD_NS);
    cr_assert_eq(pool_task_ns(&pool), TOLD_NS);
}

Test(pace, of_one_that_was_preempted_is_not_told)
{
    work(TOLD, 500);
    work(TOLD, 500);
    for (int i = 0; i < 4; i++) {
        work(TOLD, 100000);
        work(TOLD, 500);
    }
    cr_assert_eq(pool_task_ns(&pool), 500);
}

Test(pace, follows_in_both_directions_but_not_what_is_near)
{
    static const struct {
        int64_t each;
        uint64_t told;
    } steps[] = {{500, 500}, {700, 500}, {340, 500}, {800, 800}, {1100, 800}, {20000, 20000}, {100, 100}};

    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        for (int twice = 0; twice < 2; twice++)
            work(TOLD, steps[i].each);
        cr_assert_eq(pool_task_ns(&pool), steps[i].told, "after tasks of %d ns: %d", (int)steps[i].each,
                     (int)pool_task_ns(&pool));
    }
}

Test(pace, forgets_a_time_in_which_it_did_something_else)
{
    for (int i = 0; i < 4; i++) {
        pace_begins(&worker, now);
        now += TOLD * 9000;
        atomic_fetch_add(&worker.tasks, TOLD);
        pace_forgets(&worker);
        pace_ends(&worker, now);
        work(TOLD, 500);
    }
    cr_assert_eq(pool_task_ns(&pool), 500);
}

Test(pace, of_tasks_of_seconds_is_told_as_far_as_it_can_be)
{
    for (int i = 0; i < 2; i++)
        work(1, INT64_C(3600) * 1000 * MS);
    cr_assert_eq(pool_task_ns(&pool), UINT32_MAX);
}

Test(pace, of_no_task_is_not_told)
{
    for (int i = 0; i < 4; i++)
        work(0, 0);
    pace_begins(&worker, now);
    now += 10 * MS;
    pace_ends(&worker, now);
    cr_assert_eq(pool_task_ns(&pool), 0);
}

static void lasts(void *arg)
{
    int64_t until = rp_now() + *(int64_t *)arg;

    while (rp_now() < until)
        ;
}

/* Whatever the machine does meanwhile, none is shorter. */
static void pool_tells(unsigned workers, unsigned depth)
{
    struct rp_pool_options options = {.queue_depth = depth};
    struct rp_pool *made;
    struct pool *inside;
    int64_t each = MS / 20;

    cr_assert_eq(rp_pool_create(&made, workers, &options), 0);
    cr_assert_eq(pool_enter(made, &inside), 0);
    pool_exit(); /* it is not destroyed before it was looked at */
    for (int i = 0; i < 400; i++)
        cr_assert_eq(rp_pool_submit(made, lasts, &each), 0);
    cr_assert(COMES_TRUE(pool_task_ns(inside) != 0));
    cr_assert_geq(pool_task_ns(inside), (uint64_t)each);
    cr_assert_eq(rp_pool_destroy(made), 0);
}

Test(pace, is_told_by_workers_that_run_dry)
{
    pool_tells(2, 0);
}

Test(pace, is_told_by_workers_that_never_do)
{
    pool_tells(1, 400);
}
