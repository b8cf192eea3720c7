/*
 * Pace: what workers tell of how long their tasks take. On a bare descriptor, with times of its own, but for one: that
 * the workers of a pool do tell.
 */
#include "gates.h"

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

Test(pace, has_no_part_in_it_in_which_no_task_ended)
{
    for (int i = 0; i < 2 * TOLD; i++) {
        pace_begins(&worker, now);
        now += TOLD_NS;
        pace_ends(&worker, now);
        work(1, 500);
    }
    cr_assert_eq(pool_task_ns(&pool), 500);
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

#define LASTS_NS (MS / 20)

/* Whatever the machine does meanwhile, it is not shorter. */
static void lasts(void *arg)
{
    int64_t until = rp_now() + LASTS_NS;

    (void)arg;
    while (rp_now() < until)
        ;
}

/* Of one worker. *inside is there until the pool is destroyed. */
static struct rp_pool *pool_made(unsigned depth, struct pool **inside)
{
    struct rp_pool_options options = {.queue_depth = depth};
    struct rp_pool *made;

    cr_assert_eq(rp_pool_create(&made, 1, &options), 0);
    cr_assert_eq(pool_enter(made, inside), 0);
    pool_exit();
    return made;
}

/* Too few tasks for it to be told between two. */
Test(pace, is_told_by_a_worker_that_parks)
{
    struct pool *inside;
    struct rp_pool *made = pool_made(0, &inside);

    for (unsigned i = 0; i < TOLD / 2; i++) {
        cr_assert_eq(rp_pool_submit(made, lasts, NULL), 0);
        ASSERT_EVENTUALLY(rp_pool_busy(made) == 0 && idle_top(atomic_load(&inside->idle.word)) != 0);
    }
    cr_assert_geq(pool_task_ns(inside), LASTS_NS);
    cr_assert_eq(rp_pool_destroy(made), 0);
}

/* It always finds one more. */
Test(pace, is_told_by_a_worker_that_never_runs_dry)
{
    struct gate first = GATE_SHUT, last = GATE_SHUT;
    struct pool *inside;
    struct rp_pool *made = pool_made(4 * TOLD + 1, &inside);

    cr_assert_eq(rp_pool_submit(made, gate_hold, &first), 0);
    for (unsigned i = 0; i < 4 * TOLD; i++)
        cr_assert_eq(rp_pool_submit(made, lasts, NULL), 0);
    cr_assert_eq(rp_pool_submit(made, gate_hold, &last), 0);
    gate_open(&first);
    ASSERT_EVENTUALLY(last.inside == 1);
    cr_assert_geq(pool_task_ns(inside), LASTS_NS);
    gate_open(&last);
    cr_assert_eq(rp_pool_destroy(made), 0);
}
