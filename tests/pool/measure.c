/*
 * How long ones are told from tasks that have become longer, by rows whose clock the test makes; which tasks are
 * measured; and that threads share a set without losing any.
 */
#include "pool/measure.h"
#include "base/alloc.h"
#include "pool/pool.h"
#include "pool/runq_path.h"

#include <criterion/criterion.h>
#include <time.h>

#define US 1000

static struct pool pool;
static struct worker worker;
static int64_t now;

static void begin(void)
{
    memset(&pool, 0, sizeof(pool));
    memset(&worker, 0, sizeof(worker));
    cr_assert_eq(alloc_init(&pool.allocator, NULL), 0);
    cr_assert_eq(runq_init(&pool.runq, &pool.allocator, 2, 100, false), 0);
    cr_assert_eq(runq_measure(&pool.runq), 0);
    worker.pool = &pool;
    worker.measures = measures_create(&pool.allocator);
    cr_assert_not_null(worker.measures);
    worker.measures->row_at = now = 1000 * US;
}

static void end(void)
{
    alloc_free(&pool.allocator, worker.measures);
    runq_destroy(&pool.runq);
}

/* So many tasks that took so long together, none of them measured. */
static void row(uint64_t tasks, int64_t ns)
{
    store_relaxed(&worker.tasks, load_relaxed(&worker.tasks) + tasks);
    measure_row(&worker, now += ns);
}

static void usual_rows(void)
{
    for (int i = 0; i < 10; i++)
        row(512, 16 * US);
}

static struct rp_histogram *found(void)
{
    static struct rp_histogram run;

    memset(&run, 0, sizeof(run));
    tally_read(&worker.measures->run, &run);
    return &run;
}

Test(measure, a_row_that_takes_long_has_one_long_task)
{
    begin();
    usual_rows();
    row(512, 116 * US);
    cr_assert_eq(found()->total, 0, "the next row may be as long");
    row(512, 16 * US);
    cr_assert_eq(found()->total, 1);
    cr_assert(found()->most >= 95 * US && found()->most <= 116 * US, "%llu", (unsigned long long)found()->most);
    row(512, 116 * US);
    measure_row_ends(&worker, now);
    cr_assert_eq(found()->total, 2, "and so if none follows");
    end();
}

Test(measure, tasks_that_have_become_longer_are_no_long_ones)
{
    begin();
    usual_rows();
    for (int i = 0; i < 20; i++)
        row(256, 256 * US);
    cr_assert_eq(found()->total, 0);
    row(256, 900 * US);
    row(256, 256 * US);
    cr_assert_eq(found()->total, 1, "among these one of more than half a millisecond is");
    row(512, 16 * US);
    row(512, 116 * US);
    row(512, 16 * US);
    cr_assert_eq(found()->total, 2, "and among brief ones again it takes less");
    end();
}

Test(measure, what_is_too_long_for_a_row_of_any_tasks_is_told_at_once)
{
    begin();
    usual_rows();
    row(256, 30000 * US);
    cr_assert_eq(found()->total, 1);
    row(256, 40000 * US);
    cr_assert_eq(found()->total, 2, "though the row before was long as well");
    cr_assert(found()->most >= 39900 * US && found()->most <= 40000 * US);
    end();
}

/* Adversary: a measured task that was off the CPU, among the others of a row one of which is long. */
Test(measure, one_that_was_held_up_hides_no_other)
{
    for (unsigned brief = 0; brief <= 5; brief += 5) {
        begin();
        usual_rows();
        for (unsigned i = 0; i < brief; i++) {
            measure_begin(worker.measures, 0);
            measure_end(worker.measures);
        }
        measure_begin(worker.measures, 0);
        nanosleep(&(struct timespec){.tv_nsec = 2000 * US}, NULL);
        measure_end(worker.measures);
        cr_assert_eq(found()->total, brief + 1);
        row(256, 30000 * US + worker.measures->row_timed_ns);
        cr_assert_eq(found()->total, brief + 2);
        cr_assert_geq(found()->most, 29000 * US);
        end();
    }
}

/* What others have found says what is usual for who has not seen any. */
Test(measure, the_first_row_of_a_worker_misses_none_either)
{
    begin();
    runq_stamp_every(&pool.runq, 256);
    row(256, 30000 * US);
    cr_assert_eq(found()->total, 1);
    end();
}

Test(measure, a_new_thread_on_a_stack_forgets_the_last_ones_row)
{
    begin();
    usual_rows();
    row(512, 116 * US);
    measure_forget(worker.measures);
    now += 700000 * US;
    row(512, 16 * US);
    row(512, 16 * US);
    measure_row_ends(&worker, now);
    cr_assert_eq(found()->total, 0);
    end();
}

Test(measure, the_shorter_tasks_are_the_fewer_are_measured)
{
    begin();
    cr_assert_eq(runq_stamped_every(&pool.runq), 1);
    row(20, 16 * US);
    cr_assert_eq(runq_stamped_every(&pool.runq), 1, "of a few it cannot be said");
    row(1024, 20 * US);
    cr_assert_eq(runq_stamped_every(&pool.runq), 512);
    row(1024, 40 * US);
    cr_assert_eq(runq_stamped_every(&pool.runq), 512, "not back for a little");
    row(4096, 20 * US);
    cr_assert_eq(runq_stamped_every(&pool.runq), 1024, "and no more");
    row(256, 256 * US);
    cr_assert_eq(runq_stamped_every(&pool.runq), 16);
    row(20, 400 * US);
    cr_assert_eq(runq_stamped_every(&pool.runq), 1);
    end();
}

static unsigned stamped(uint64_t from, uint64_t step, unsigned n)
{
    unsigned stamps = 0;

    for (unsigned i = 0; i < n; i++)
        stamps += ring_stamps(runq_normal(&pool.runq), (from + i * step) & POSITION_MASK);
    return stamps;
}

/* Adversary: batches of a power of two, whose last task is another one than the others. */
Test(measure, positions_that_are_measured_are_in_step_with_no_period)
{
    enum { N = 1 << 20 };

    begin();
    for (uint64_t every = 1; every <= 1024; every *= 2)
        for (uint64_t step = 1; step <= 1024; step *= 4) {
            runq_stamp_every(&pool.runq, every);
            cr_assert_eq(runq_stamped_every(&pool.runq), every);
            unsigned stamps = stamped(POSITION_MASK - 1000, step, N);
            cr_assert(stamps > N / every * 9 / 10 && stamps <= N / every * 11 / 10 + 1, "%u of each %llu, by %llu",
                      stamps, (unsigned long long)every, (unsigned long long)step);
        }
    end();
}

Test(measure, a_queue_that_measures_nothing_stamps_nothing)
{
    struct entry entry = {.fn = (void (*)(void *))end, .plain = ENTRY_PLAIN}, out;
    struct taker taker = {0};
    bool owed = false;

    memset(&pool, 0, sizeof(pool));
    cr_assert_eq(alloc_init(&pool.allocator, NULL), 0);
    cr_assert_eq(runq_init(&pool.runq, &pool.allocator, 2, 100, false), 0);
    store_relaxed(&pool.runq.limit, 100);
    cr_assert_eq(runq_stamped_every(&pool.runq), 0);
    for (int i = 0; i < 50; i++) { /* position 0 as well, whose hash is 0 */
        uint64_t position;
        cr_assert_eq(runq_claim(&pool.runq, CLASS_NORMAL, 1, true, &position), 1);
        runq_publish(&pool.runq, CLASS_NORMAL, position, &entry, true);
        cr_assert(runq_take(&pool.runq, &taker, &owed, &out));
        cr_assert_eq(out.plain, ENTRY_PLAIN);
        runq_end(&pool.runq);
    }
    runq_destroy(&pool.runq);
}

/* --- sets --------------------------------------------------------------------------------------------------------- */

enum { EACH = 20000 };

static void *add_many(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        measure_shared_run(arg, 1000 + i, 0, rp_now());
        measure_shared_wait(arg, stamp_now(4));
    }
    return NULL;
}

Test(measure, threads_that_share_a_set_lose_none)
{
    struct measures *shared, *sum;
    struct rp_histogram *h = calloc(1, sizeof(*h));
    pthread_t threads[4];

    begin();
    shared = measures_create(&pool.allocator);
    sum = measures_create(&pool.allocator);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, add_many, shared), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    measures_merge(sum, shared);
    measures_merge(sum, shared);
    tally_read(&sum->run, h);
    cr_assert_eq(h->total, 2 * 4 * EACH);
    cr_assert_eq(h->sum, 2 * 4 * (UINT64_C(1000) * EACH + (uint64_t)EACH * (EACH - 1) / 2));
    cr_assert_eq(h->most, 1000 + EACH - 1);
    tally_read(&sum->wait, h);
    cr_assert_eq(h->total, 2 * 4 * EACH + 2 * 4 * 4 * EACH, "each of these stands for four");
    cr_assert(load_relaxed(&sum->ewma) >= 1000 && load_relaxed(&sum->ewma) < 1000 + EACH);
    alloc_free(&pool.allocator, shared);
    alloc_free(&pool.allocator, sum);
    free(h);
    end();
}

/* --- rates -------------------------------------------------------------------------------------------------------- */

Test(measure, a_rate_is_that_since_a_look_of_more_than_a_second_ago)
{
    const int64_t s = INT64_C(1000000000);
    struct rate rate = {0};

    cr_assert_eq(rate_look(&rate, 2 * s, 2000), 1000);
    cr_assert_eq(rate_look(&rate, 3 * s, 12000), 10000);
    cr_assert_eq(rate_look(&rate, 3 * s + s / 2, 12000), 10000 * 2. / 3);
    cr_assert_eq(rate_look(&rate, 4 * s, 12000), 0);
    cr_assert_eq(rate_look(&rate, 4 * s, 11999), 0, "a count that lacks one is no rate without bound");
}
