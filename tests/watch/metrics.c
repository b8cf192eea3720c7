/*
 * Metrics: what is measured of which tasks, what is counted of the others, and that nothing is lost when workers and
 * pools go. No time is compared with another than the test's own.
 */
#include <ringpool/completion.h>
#include <ringpool/context.h>
#include <ringpool/metrics.h>

#include "../pool/multi.h"

static struct rp_metrics metrics_of(struct rp_pool *pool)
{
    struct rp_metrics metrics;

    cr_assert_eq(rp_pool_metrics(pool, &metrics), 0);
    return metrics;
}

static struct rp_metrics metrics_of_multi(struct rp_multi *multi)
{
    struct rp_metrics metrics;

    cr_assert_eq(rp_multi_metrics(multi, &metrics), 0);
    return metrics;
}

static void wait_ended(struct rp_pool *pool, uint64_t tasks)
{
    AWAIT(pool_look(pool).completed + pool_look(pool).panicked + pool_look(pool).dropped == tasks);
}

static void sleep_for(void *ns)
{
    nap((int64_t)(uintptr_t)ns);
}

static void do_nothing(void *arg)
{
    (void)arg;
}

static void *span(int64_t ns)
{
    return (void *)(uintptr_t)ns; /* NOLINT(performance-no-int-to-ptr) */
}

/* --- times -------------------------------------------------------------------------------------------------------- */

Test(metrics, of_tasks_that_take_their_time_each_is_measured)
{
    enum { N = 60 };
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.metrics = true, .queue_depth = N});
    int64_t began = rp_now();

    for (int i = 0; i < N; i++)
        cr_assert_eq(rp_pool_submit(pool, sleep_for, span(MS)), 0);
    wait_ended(pool, N);
    int64_t whole = rp_now() - began;
    struct rp_metrics seen = metrics_of(pool);
    cr_assert(seen.measured);
    cr_assert_eq(seen.run.count, N);
    cr_assert_eq(seen.wait.count, N);
    cr_assert(seen.run.p50 >= MS * 99 / 100, "%lld", (long long)seen.run.p50);
    cr_assert(seen.run.p50 <= seen.run.p99 && seen.run.p99 <= seen.run.max && seen.run.max <= whole);
    cr_assert(seen.run.mean >= MS && seen.run.mean <= seen.run.max);
    cr_assert(seen.run.sum >= (uint64_t)seen.run.mean * N && seen.run.sum < (uint64_t)(seen.run.mean + 1) * N);
    cr_assert(seen.run_ewma >= MS && seen.run_ewma <= seen.run.max);
    cr_assert(seen.wait.max >= (N / 2 - 1) * MS && seen.wait.max <= whole, "the last one stood behind half of all");
    cr_assert(seen.throughput > 0);
    pool_end(pool);
}

/* Through futures, batches, side classes and with a completion queue as well: what a task carries beside is kept. */
Test(metrics, in_whatever_way_a_task_came_it_is_measured_and_runs_as_it_was_told)
{
    enum { EACH = 20 };
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.metrics = true, .queue_depth = 100});
    struct rp_cq *cq;
    struct rp_task batch[EACH];
    struct rp_completion done[EACH];
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_cq_create(&cq, &(struct rp_cq_options){.entries = EACH}), 0);
    for (unsigned i = 0; i < EACH; i++) {
        struct rp_task high = {.fn = count_task, .arg = (void *)&ran, .priority = RP_PRIO_HIGH, .label = "high"};
        struct rp_task low = {.fn = count_task, .arg = (void *)&ran, .priority = RP_PRIO_LOW};
        struct rp_task owes = {.fn = count_task, .arg = (void *)&ran, .cq = cq, .user_data = i};
        cr_assert_eq(rp_pool_submit_task(pool, &high), 0);
        cr_assert_eq(rp_pool_submit_task(pool, &low), 0);
        cr_assert_eq(rp_pool_submit_task(pool, &owes), 0);
        batch[i] = (struct rp_task){.fn = count_task, .arg = (void *)&ran, .label = "batch"};
    }
    cr_assert_eq(rp_pool_submit_batch(pool, batch, EACH), EACH);
    for (unsigned seen = 0; seen < EACH;) {
        int n = rp_cq_wait(cq, done, EACH, 1, rp_after(PATIENCE));
        cr_assert_gt(n, 0);
        for (int i = 0; i < n; i++)
            cr_assert(done[i].user_data < EACH && done[i].result == 0);
        seen += (unsigned)n;
    }
    wait_ended(pool, 4 * EACH);
    cr_assert_eq(load_seq(&ran), 4 * EACH);
    struct rp_metrics seen = metrics_of(pool);
    cr_assert(seen.run.count > 0 && seen.wait.count > 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

/*
 * How many took so long, or nearly: of one that was found by what it held up, what its neighbours usually take is
 * deducted, which on a loaded machine may be more than they took.
 */
static uint64_t nearly_as_long(const struct rp_histogram *run, uint64_t ns)
{
    uint64_t n = 0;

    for (unsigned b = rp_histogram_bucket(ns * 3 / 4); b < RP_HISTOGRAM_BUCKETS; b++)
        n += run->count[b];
    return n;
}

/*
 * Adversary: one task that takes 30 ms among a hundred thousand of some nanoseconds, of which one in hundreds is
 * measured: at any place in the stream, the last one too.
 */
Test(metrics, a_long_one_among_brief_ones_is_not_missed)
{
    enum { N = 100000, LONG = 30 };

    for (int place = 0; place < 4; place++) {
        struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.metrics = true, .queue_depth = 1024});
        static struct rp_histogram run;

        for (int i = 0; i < N; i++)
            cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
        for (int i = 0; i < place; i++)
            cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
        cr_assert_eq(rp_pool_submit(pool, sleep_for, span(LONG * MS)), 0);
        for (int i = 0; place < 3 && i < N; i++)
            cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
        wait_ended(pool, pool_look(pool).submitted);
        AWAIT(metrics_of(pool).run.max >= LONG * MS * 3 / 4); /* it is told when its worker has nothing more to do */
        run = (struct rp_histogram){0};
        cr_assert_eq(rp_pool_histograms(pool, NULL, &run), 0);
        cr_assert_eq(run.most, metrics_of(pool).run.max);
        cr_assert_geq(nearly_as_long(&run, LONG * MS), 1, "place %d", place);
        pool_end(pool);
    }
}

/*
 * Of those of which one stands for many the counts are those of all, nearly: here to a half, whatever the machine does.
 */
Test(metrics, a_sample_counts_for_all)
{
    enum { N = 400000 };
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.metrics = true, .queue_depth = 1024});

    for (int i = 0; i < N; i++)
        cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
    wait_ended(pool, N);
    struct rp_metrics seen = metrics_of(pool);
    cr_assert(seen.run.count > N / 2 && seen.run.count < 2 * N, "%llu", (unsigned long long)seen.run.count);
    cr_assert(seen.wait.count > N / 2 && seen.wait.count < 2 * N, "%llu", (unsigned long long)seen.wait.count);
    pool_end(pool);
}

static void panic_later(void *ns)
{
    sleep_for(ns);
    rp_panic("on purpose");
}

Test(metrics, a_panic_and_a_task_in_its_submitters_place_are_measured)
{
    struct rp_pool *pool =
        pool_make(1, &(struct rp_pool_options){.metrics = true, .log_level = RP_LOG_NONE, .nonblocking = true});
    struct rp_task here = {.fn = sleep_for, .arg = span(2 * MS), .overload = RP_OVERLOAD_CALLER_RUNS};
    struct gate gate = {0};

    cr_assert_eq(rp_pool_submit(pool, panic_later, span(MS)), 0);
    wait_ended(pool, 1);
    AWAIT(metrics_of(pool).run.count == 1);
    cr_assert_geq(metrics_of(pool).run.max, MS);
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    cr_assert_eq(rp_pool_submit_task(pool, &here), 0);
    struct rp_metrics seen = metrics_of(pool);
    cr_assert_eq(seen.run.count, 2, "the one at the gate has not ended");
    cr_assert_geq(seen.run.max, 2 * MS);
    cr_assert_eq(seen.wait.count, 2, "who does not queue does not wait there");
    gate_open(&gate);
    pool_end(pool);
}

/* Adversary: long tasks each of which is the first on its thread, beside a stream of brief ones. */
Test(metrics, nor_is_the_first_on_a_new_worker)
{
    enum { N = 12 };
    static struct rp_histogram run;

    for (int round = 0; round < N; round++) {
        struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.metrics = true, .queue_depth = 1024});
        for (int i = 0; i < 20000; i++)
            cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
        cr_assert_eq(rp_pool_submit(pool, sleep_for, span(5 * MS)), 0);
        cr_assert_eq(rp_pool_tune(pool, 1), 0); /* one of both leaves after its task */
        cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
        cr_assert_eq(rp_pool_histograms(pool, NULL, &run), 0);
        cr_assert_eq(rp_pool_destroy(pool), 0);
    }
    cr_assert_geq(nearly_as_long(&run, 5 * MS), N);
}

/* --- what stays --------------------------------------------------------------------------------------------------- */

/* Adversary: workers that expire, whose descriptors are freed two purges later, while others look. */
Test(metrics, what_a_worker_has_measured_outlives_it)
{
    enum { N = 8 };
    struct rp_pool *pool = pool_make(N, &(struct rp_pool_options){.metrics = true, .expiry_ns = 2 * MS});
    struct rp_worker_info info;
    uint64_t tasks = 0;

    for (int round = 0; round < 3; round++) {
        struct gate gate = {0};
        for (int i = 0; i < N; i++)
            cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
        AWAIT(load_seq(&gate.inside) == N);
        gate_open(&gate);
        tasks += N;
        AWAIT(metrics_of(pool).run.count == tasks);
        AWAIT(rp_pool_running(pool) == 0);
        cr_assert_eq(metrics_of(pool).run.count, tasks);
        AWAIT(rp_pool_workers(pool, &info, 1) == 0); /* no descriptor is left */
        cr_assert_eq(metrics_of(pool).run.count, tasks);
        cr_assert_eq(metrics_of(pool).wait.count, tasks);
        cr_assert_gt(metrics_of(pool).run_ewma, 0);
    }
    cr_assert_eq(metrics_of(pool).counts.spawned, tasks);
    cr_assert_eq(metrics_of(pool).reuse, 0);
    pool_end(pool);
}

Test(metrics, of_all_pools_are_those_of_a_multi_pool_and_of_removed_ones)
{
    enum { EACH = 10 };
    const struct rp_pool_options of_each = {.metrics = true, .queue_depth = EACH};
    struct rp_multi *multi;
    struct rp_histogram *wait = calloc(1, sizeof(*wait)), *run = calloc(1, sizeof(*run));

    cr_assert_eq(rp_multi_create(&multi, 3, 2, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &of_each}), 0);
    for (unsigned i = 0; i < 3; i++)
        for (int k = 0; k < EACH; k++)
            cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, i), sleep_for, span(MS / 10)), 0);
    AWAIT(metrics_of_multi(multi).run.count == 3 * EACH);
    cr_assert_eq(metrics_of(rp_multi_pool(multi, 1)).run.count, EACH);
    cr_assert_eq(rp_multi_remove(multi, 1), 0);
    struct rp_metrics seen = metrics_of_multi(multi);
    cr_assert(seen.measured);
    cr_assert_eq(seen.run.count, 3 * EACH);
    cr_assert_eq(seen.wait.count, 3 * EACH);
    cr_assert_eq(seen.counts.completed, 3 * EACH);
    cr_assert_eq(rp_multi_histograms(multi, wait, run), 0);
    cr_assert_eq(rp_multi_histograms(multi, NULL, run), 0);
    cr_assert_eq(wait->total, 3 * EACH);
    cr_assert_eq(run->total, 6 * EACH, "they are added to what is there");
    free(wait);
    free(run);
    cr_assert_eq(rp_multi_destroy(multi), 0);
}

/* --- counts ------------------------------------------------------------------------------------------------------- */

static void submit_with(struct rp_pool *pool, struct ledger *ledger, struct rp_task task)
{
    task.fn = ledger_run;
    task.arg = ledger;
    task.dropped = ledger_drop;
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    add_seq(&ledger->accepted, 1);
}

Test(metrics, tasks_are_counted_by_their_fate)
{
    struct rp_pool *pool = pool_make(
        1, &(struct rp_pool_options){.queue_depth = 3, .release_policy = RP_RELEASE_DROP, .log_level = RP_LOG_NONE});
    struct ledger ledger = {0};
    struct gate gate = {0};
    struct rp_ctx *ctx;

    cr_assert_eq(rp_ctx_create(&ctx, NULL, 0), 0);
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    submit_with(pool, &ledger, (struct rp_task){.ctx = ctx});
    submit_with(pool, &ledger, (struct rp_task){.deadline = rp_after(20 * MS)});
    submit_with(pool, &ledger, (struct rp_task){.overload = RP_OVERLOAD_DISCARD_NEWEST});
    submit_with(pool, &ledger, (struct rp_task){.overload = RP_OVERLOAD_DISCARD_NEWEST});
    submit_with(pool, &ledger, (struct rp_task){.overload = RP_OVERLOAD_DISCARD_NEWEST});
    rp_ctx_cancel(ctx, 0);
    nap(25 * MS);
    gate_open(&gate);
    AWAIT(ledger_balances(&ledger));
    struct gate again = {0};
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &again), 0);
    AWAIT(load_seq(&again.inside) == 1);
    submit_with(pool, &ledger, (struct rp_task){0});
    submit_with(pool, &ledger, (struct rp_task){0});
    cr_assert_eq(rp_pool_release(pool), 0);
    AWAIT(ledger_balances(&ledger));
    gate_open(&again);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    struct rp_metrics seen = metrics_of(pool);
    cr_assert_not(seen.measured);
    cr_assert_eq(seen.run.count + seen.wait.count, 0);
    cr_assert_eq(seen.cancelled, 1);
    cr_assert_eq(seen.late, 1);
    cr_assert_eq(seen.discarded, 2);
    cr_assert_eq(seen.released, 2);
    cr_assert_eq(seen.counts.dropped, 6);
    cr_assert_eq(seen.counts.completed, 3);
    rp_ctx_destroy(ctx);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

Test(metrics, who_runs_for_longer_than_its_timeout_is_counted)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.metrics = true, .log_level = RP_LOG_NONE});
    struct gate gate = {0};
    struct rp_task task = {.fn = gate_pass, .arg = &gate, .timeout = MS};

    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(metrics_of(pool).overran == 1);
    gate_open(&gate);
    AWAIT(metrics_of(pool).run.count == 1);
    cr_assert_geq(metrics_of(pool).run.max, MS);
    pool_end(pool);
}

/* --- readers and wrong calls -------------------------------------------------------------------------------------- */

struct reader {
    struct rp_pool *pool;
    _Atomic uint32_t stop, looks;
};

static void *read_on(void *arg)
{
    struct reader *reader = arg;
    struct rp_metrics seen;
    uint64_t least = 0;

    while (!load_seq(&reader->stop)) {
        if (rp_pool_metrics(reader->pool, &seen) || seen.run.count < least)
            return arg;
        least = seen.run.count;
        add_seq(&reader->looks, 1);
    }
    return NULL;
}

/* Adversary: workers that come, measure and are freed, under two readers. No count ever goes back. */
Test(metrics, may_be_read_while_workers_come_and_go)
{
    struct rp_pool *pool =
        pool_make(6, &(struct rp_pool_options){.metrics = true, .queue_depth = 64, .expiry_ns = MS / 2});
    struct reader readers[2];
    pthread_t threads[2];
    void *fell;

    for (int i = 0; i < 2; i++) {
        readers[i] = (struct reader){.pool = pool};
        cr_assert_eq(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 200; i++)
            cr_assert_eq(rp_pool_submit(pool, i % 20 ? do_nothing : sleep_for, span(MS / 50)), 0);
        nap(2 * MS);
    }
    for (int i = 0; i < 2; i++) {
        AWAIT(load_seq(&readers[i].looks) >= 5);
        store_seq(&readers[i].stop, 1);
        pthread_join(threads[i], &fell);
        cr_assert_null(fell, "a count went back, or the call failed");
    }
    pool_end(pool);
}

static int refused_in_a_child(void *arg)
{
    struct rp_pool *pool = arg;
    struct rp_metrics seen;

    CHECK(rp_pool_metrics(pool, &seen) == -ECHILD);
    CHECK(rp_pool_histograms(pool, NULL, NULL) == -ECHILD);
    CHECK(rp_pool_destroy(pool) == 0);
    return 0;
}

Test(metrics, a_forked_child_has_none)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.metrics = true, .min_workers = 2});

    cr_assert_eq(in_child(refused_in_a_child, pool), 0);
    pool_end(pool);
}

Test(metrics, wrong_calls_are_refused)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_metrics seen;

    cr_assert_eq(rp_pool_metrics(NULL, &seen), -EINVAL);
    cr_assert_eq(rp_pool_metrics(pool, NULL), -EINVAL);
    cr_assert_eq(rp_multi_metrics(NULL, &seen), -EINVAL);
    cr_assert_eq(rp_pool_histograms(NULL, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_pool_histograms(pool, NULL, NULL), 0);
    cr_assert_eq(rp_multi_histograms(NULL, NULL, NULL), -EINVAL);
    pool_end(pool);
}
