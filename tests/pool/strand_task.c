/*
 * What a task of a strand may ask for: a deadline, a completion, a context, a timeout.
 */
#include "strands.h"

#include <ringpool/completion.h>
#include <ringpool/context.h>

Test(strand, a_late_task_is_dropped_and_those_behind_it_run)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate gate = {0};
    struct ledger late = {0}, other = {0};
    struct rp_task task = booked(&late), behind = booked(&other);

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    task.deadline = rp_after(100 * MS);
    for (uint64_t key = 1; key <= 2; key++) { /* key 1 is opened by the late one, key 2 is not */
        if (key == 2)
            cr_assert_eq(rp_strand_submit_task(strand, key, &behind), 0);
        cr_assert_eq(rp_strand_submit_task(strand, key, &task), 0);
        cr_assert_eq(rp_strand_submit_task(strand, key, &behind), 0);
    }
    while (rp_now() < task.deadline)
        nap(MS);
    gate_open(&gate);
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&late.dropped), 2);
    cr_assert_eq(load_seq(&late.reason), ETIMEDOUT);
    cr_assert_eq(load_seq(&late.ran), 0);
    cr_assert_eq(load_seq(&other.ran), 3);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

static void short_task(void *arg)
{
    (void)arg;
}

/* Also where a worker has not said anything of itself for some short tasks. Who looks in between makes it do so. */
Test(strand, a_label_ends_with_its_task)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate before = {0}, after = {0};
    struct rp_task task = {.fn = short_task, .label = "part"};
    struct rp_worker_info info;

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &before), 0);
    AWAIT(load_seq(&before.inside) == 1);
    for (int i = 0; i < 600; i++)
        cr_assert_eq(rp_pool_submit(pool, short_task, NULL), 0);
    cr_assert_eq(rp_strand_submit(strand, 1, short_task, NULL), 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &task), 0);
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &after), 0);
    gate_open(&before);
    AWAIT(load_seq(&after.inside) == 1);
    cr_assert_eq(rp_pool_workers(pool, &info, 1), 1);
    cr_assert_null(info.label, "%s", info.label);
    gate_open(&after);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

Test(strand, each_task_posts_its_own_completion)
{
    struct rp_pool *pool = queueing_pool(2);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct rp_completion out[5];
    struct rp_cq *cq;
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    struct rp_task task[5] = {
        {.fn = count_task, .arg = (void *)&ran},
        {.fn = end_badly, .arg = strand},
        {.fn = end_badly},
        {.fn = count_task, .arg = (void *)&ran, .deadline = rp_after(20 * MS)},
        {.fn = count_task, .arg = (void *)&ran},
    };
    static const int result[5] = {0, -EFAULT, -EFAULT, -ETIMEDOUT, 0};
    for (unsigned i = 0; i < 5; i++) {
        task[i].cq = cq;
        task[i].user_data = i;
        cr_assert_eq(rp_strand_submit_task(strand, 1, &task[i]), 0);
    }
    while (rp_now() < task[3].deadline)
        nap(MS);
    gate_open(&gate);
    cr_assert_eq(rp_cq_wait(cq, out, 5, 5, rp_after(PATIENCE)), 5);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(out[i].user_data, i, "a key's completions come in its order");
        cr_assert_eq(out[i].result, result[i]);
    }
    cr_assert_eq(rp_strand_release(strand), 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &task[0]), -ESHUTDOWN);
    cr_assert_eq(rp_cq_wait(cq, out, 5, 0, 0), 0, "a refused task posts nothing");
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

static const char trace;

/* Counts itself if it finds its value, and hands on to its own key, by the context that it finds. */
struct traced {
    struct rp_strand *strand;
    _Atomic uint32_t seen;
    uint32_t last;
};

static void trace_on(void *arg)
{
    struct traced *traced = arg;
    struct rp_task next = {.fn = trace_on, .arg = traced, .ctx = rp_ctx_current()};

    if (rp_ctx_value(rp_ctx_current(), &trace) == traced && add_seq(&traced->seen, 1) + 1 < traced->last)
        cr_expect_eq(rp_strand_submit_task(traced->strand, 1, &next), 0);
}

Test(strand, a_context_travels_with_its_tasks_and_ends_those_that_wait)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct traced traced = {.strand = strand, .last = 3};
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_completion out[4];
    struct rp_ctx *ctx;
    struct rp_cq *cq;
    struct rp_task tasks[4] = {
        {.fn = trace_on, .arg = &traced}, {.fn = end_badly, .arg = strand}, {.fn = end_badly}, booked(&ledger)};

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    cr_assert_eq(rp_ctx_create_with(&ctx, NULL, &(struct rp_ctx_options){.key = &trace, .value = &traced}), 0);
    for (unsigned i = 0; i < 4; i++) {
        tasks[i].ctx = ctx;
        tasks[i].cq = cq;
        tasks[i].user_data = i;
        if (i == 3) {
            cr_assert_eq(rp_cq_wait(cq, out, 3, 3, rp_after(PATIENCE)), 3);
            AWAIT(load_seq(&traced.seen) == 3 && is_empty(strand));
            cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
        }
        cr_assert_eq(rp_strand_submit_task(strand, 1, &tasks[i]), 0);
    }
    static const int results[3] = {0, -EFAULT, -EFAULT};
    for (unsigned i = 0; i < 3; i++)
        cr_assert(out[i].user_data == i && out[i].result == results[i], "%u: %d", i, out[i].result);
    rp_ctx_cancel(ctx, 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &tasks[3]), -ECANCELED);
    gate_open(&gate);
    cr_assert_eq(rp_cq_wait(cq, out, 1, 1, rp_after(PATIENCE)), 1);
    cr_assert(out[0].user_data == 3 && out[0].result == -ECANCELED);
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&ledger.dropped), 1);
    cr_assert_eq(load_seq(&ledger.reason), ECANCELED);
    rp_ctx_destroy(ctx);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

struct slow {
    struct rp_pool *pool;
    struct rp_ctx *ctx;
    struct gate gate;
};

/* Runs until its context tells it of the timeout, and then until the gate is opened. */
static void run_too_long(void *arg)
{
    struct slow *slow = arg;

    rp_ctx_sleep(slow->ctx, 0);
    gate_pass(&slow->gate);
}

static unsigned hung_workers(struct rp_pool *pool)
{
    struct rp_worker_info info[4];
    int n = rp_pool_workers(pool, info, 4);
    unsigned hung = 0;

    for (int i = 0; i < n; i++)
        hung += info[i].hung;
    return hung;
}

/* Adversary: fn goes on after its timeout. Holds: the next task of the key waits for its return all the same. */
Test(strand, a_task_that_runs_for_too_long_is_told_and_keeps_its_key)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 16, .log_level = RP_LOG_NONE});
    struct rp_strand *strand = strand_make(pool, NULL);
    struct slow slow = {.pool = pool};
    struct rp_completion out[3];
    struct rp_cq *cq;
    _Atomic uint32_t ran = 0, other = 0;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    cr_assert_eq(rp_ctx_create(&slow.ctx, NULL, 0), 0);
    struct rp_task task = {.fn = run_too_long, .arg = &slow, .ctx = slow.ctx, .cq = cq, .timeout = MS};
    struct rp_task behind = {.fn = count_task, .arg = (void *)&ran, .cq = cq, .user_data = 1, .timeout = PATIENCE};
    struct rp_task last = {.fn = count_task, .arg = (void *)&ran, .cq = cq, .user_data = 2};
    cr_assert_eq(rp_strand_submit_task(strand, 1, &task), 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &behind), 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &last), 0);
    AWAIT(load_seq(&slow.gate.inside) == 1);
    cr_assert_eq(rp_ctx_err(slow.ctx), -ETIMEDOUT);
    cr_assert_eq(hung_workers(pool), 1);
    cr_assert_eq(rp_strand_submit(strand, 2, count_task, (void *)&other), 0);
    AWAIT(load_seq(&other) == 1);
    cr_assert_eq(load_seq(&ran), 0);
    gate_open(&slow.gate);
    cr_assert_eq(rp_cq_wait(cq, out, 3, 3, rp_after(PATIENCE)), 3);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(out[i].user_data == i && out[i].result == (i ? 0 : -ETIMEDOUT), "%u: %d", i, out[i].result);
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&ran), 2);
    cr_assert_eq(hung_workers(pool), 0);
    rp_ctx_destroy(slow.ctx);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

/*
 * Adversary: the timeout's timer stands on the stack of a run that panics, or whose thread ends. Holds: it goes first.
 */
Test(strand, a_timeout_ends_with_its_task_however_that_ends)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 16, .log_level = RP_LOG_NONE});
    struct rp_strand *strand = strand_make(pool, NULL);
    struct rp_completion out[40];
    struct rp_cq *cq;
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    for (unsigned i = 0; i < 40; i++) {
        const struct rp_task task = {.fn = i % 2 ? count_task : end_badly,
                                     .arg = i % 2   ? (void *)&ran
                                            : i % 4 ? NULL
                                                    : (void *)strand,
                                     .cq = cq,
                                     .user_data = i,
                                     .timeout = 20 * MS}; /* over by the end of the test */
        cr_assert_eq(rp_strand_submit_task(strand, 1, &task), 0);
    }
    cr_assert_eq(rp_cq_wait(cq, out, 40, 40, rp_after(PATIENCE)), 40);
    for (unsigned i = 0; i < 40; i++)
        if (out[i].user_data % 2 == 0)
            cr_assert_eq(out[i].result, -EFAULT);
    nap(25 * MS); /* for a timer that was left behind */
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&ran), 20);
    cr_assert_eq(hung_workers(pool), 0);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}
