/*
 * Completion queues through the public door: tasks that name one in struct rp_task.
 */
#include <ringpool/completion.h>

#include "life.h"

/* A pool and a queue. */
struct stage {
    struct rp_pool *pool;
    struct rp_cq *cq;
    struct rp_completion out[64];
};

static void stage_set(struct stage *stage, unsigned capacity, struct rp_pool_options options)
{
    options.log_level = RP_LOG_NONE;
    stage->pool = pool_make(capacity, &options);
    cr_assert_eq(rp_cq_create(&stage->cq, &(struct rp_cq_options){.entries = 4}), 0);
}

static void stage_strike(struct stage *stage)
{
    cr_assert_eq(rp_cq_wait(stage->cq, stage->out, 64, 0, 0), 0, "one completion more than tasks");
    pool_end(stage->pool);
    cr_assert_eq(rp_cq_destroy(stage->cq), 0);
}

/* Waits for one completion and asserts what it says. */
static void expect(struct stage *stage, uint64_t user_data, int result)
{
    cr_assert_eq(rp_cq_wait(stage->cq, stage->out, 1, 1, rp_after(PATIENCE)), 1);
    cr_assert_eq(stage->out[0].user_data, user_data);
    cr_assert_eq(stage->out[0].result, result, "result %d", stage->out[0].result);
}

static void panic(void *arg)
{
    if (arg)
        pthread_exit(NULL);
    rp_panic("on purpose");
}

Test(completion_task, a_task_that_returns_posts_0)
{
    struct stage stage;
    _Atomic uint32_t ran = 0;

    stage_set(&stage, 2, (struct rp_pool_options){0});
    for (uint64_t i = 0; i < 100; i++) {
        struct rp_task task = {.fn = count_task, .arg = (void *)&ran, .cq = stage.cq, .user_data = i << 40};
        cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
        expect(&stage, i << 40, 0);
        cr_assert_eq(load_seq(&ran), i + 1, "the task is over before its completion is there");
    }
    stage_strike(&stage);
}

Test(completion_task, a_task_that_only_owes_a_completion_takes_no_memory)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct stage stage;
    _Atomic uint32_t ran = 0;

    stage_set(&stage, 1, (struct rp_pool_options){.allocator = &allocator, .prealloc = true, .queue_depth = 8});
    uint32_t before = load_seq(&bank.calls);
    for (uint64_t i = 0; i < 100; i++) {
        struct rp_task task = {.fn = count_task, .arg = (void *)&ran, .cq = stage.cq, .user_data = ~i};
        cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
        expect(&stage, ~i, 0);
    }
    cr_assert_eq(load_seq(&bank.calls), before);
    cr_assert_eq(load_seq(&ran), 100);
    stage_strike(&stage);
    cr_assert_eq(load_seq(&bank.live), 0);
}

Test(completion_task, a_task_that_panics_posts_efault)
{
    struct stage stage;

    stage_set(&stage, 2, (struct rp_pool_options){0});
    for (int i = 0; i < 10; i++) {
        struct rp_task task = {.fn = panic, .arg = i % 2 ? &stage : NULL, .cq = stage.cq, .user_data = 3};
        cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
        expect(&stage, 3, -EFAULT);
    }
    stage_strike(&stage);
}

Test(completion_task, a_dropped_task_posts_why)
{
    struct stage stage;
    struct gate gate = {0};
    struct ledger ledger = {0};

    stage_set(&stage, 1, (struct rp_pool_options){.queue_depth = 1, .release_policy = RP_RELEASE_DROP});
    struct rp_task task = {.fn = ledger_run, .dropped = ledger_drop, .arg = &ledger, .cq = stage.cq};
    cr_assert_eq(rp_pool_submit(stage.pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    task.user_data = 1;
    task.deadline = rp_after(1000 * MS);
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0); /* queued, until it is late */
    int64_t late = task.deadline;
    task.deadline = 0;
    task.user_data = 2;
    task.overload = RP_OVERLOAD_DISCARD_NEWEST;
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    expect(&stage, 2, -EAGAIN);
    task.user_data = 3;
    task.overload = RP_OVERLOAD_FAIL;
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), -EAGAIN, "refused: it posts nothing");
    while (rp_now() < late)
        nap(MS);
    gate_open(&gate);
    expect(&stage, 1, -ETIMEDOUT);
    struct gate second = {0};
    cr_assert_eq(rp_pool_submit(stage.pool, gate_pass, &second), 0);
    AWAIT(load_seq(&second.inside) == 1);
    task.user_data = 4;
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    cr_assert_eq(rp_pool_release(stage.pool), 0);
    expect(&stage, 4, -ESHUTDOWN);
    task.user_data = 5;
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), -ESHUTDOWN);
    gate_open(&second);
    cr_assert_eq(load_seq(&ledger.dropped), 3);
    stage_strike(&stage);
}

Test(completion_task, a_task_that_its_submitter_runs_posts_too)
{
    struct stage stage;
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;

    stage_set(&stage, 1, (struct rp_pool_options){0});
    cr_assert_eq(rp_pool_submit(stage.pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    struct rp_task task = {
        .fn = count_task, .arg = (void *)&ran, .cq = stage.cq, .user_data = 9, .overload = RP_OVERLOAD_CALLER_RUNS};
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    expect(&stage, 9, 0);
    task.fn = panic;
    task.arg = NULL;
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    expect(&stage, 9, -EFAULT);
    gate_open(&gate);
    stage_strike(&stage);
}

Test(completion_task, a_batch_posts_one_for_each_accepted_task)
{
    struct stage stage;
    struct rp_task task[16];
    _Atomic uint32_t ran = 0;

    stage_set(&stage, 2, (struct rp_pool_options){.queue_depth = 32});
    for (unsigned i = 0; i < 16; i++)
        task[i] = (struct rp_task){.fn = count_task, .arg = (void *)&ran, .cq = stage.cq, .user_data = i};
    task[10].fn = NULL; /* the batch ends before it */
    cr_assert_eq(rp_pool_submit_batch(stage.pool, task, 16), 10);
    cr_assert_eq(rp_cq_wait(stage.cq, stage.out, 64, 10, rp_after(PATIENCE)), 10);
    uint32_t seen = 0;
    for (int i = 0; i < 10; i++)
        seen |= 1U << stage.out[i].user_data;
    cr_assert_eq(seen, 0x3ff);
    stage_strike(&stage);
}

Test(completion_task, a_queue_at_its_limit_refuses_the_submit)
{
    struct stage stage;
    struct rp_cq *small;
    _Atomic uint32_t ran = 0;

    stage_set(&stage, 2, (struct rp_pool_options){.queue_depth = 8});
    cr_assert_eq(rp_cq_create(&small, &(struct rp_cq_options){.limit = 2}), 0);
    struct rp_task task = {.fn = count_task, .arg = (void *)&ran, .cq = small};
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), -EAGAIN);
    cr_assert_eq(rp_cq_wait(small, stage.out, 2, 2, rp_after(PATIENCE)), 2);
    cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    AWAIT(load_seq(&ran) == 3);
    cr_assert_eq(rp_cq_destroy(small), 0);
    stage_strike(&stage);
}

/* Adversary: the queue is destroyed while tasks owe to it. Holds: they run, post to nobody, and nothing leaks. */
Test(completion_task, tasks_outlive_their_queue)
{
    struct stage stage;
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct gate gate = {0};
    struct rp_cq *cq;

    stage_set(&stage, 2, (struct rp_pool_options){.queue_depth = 8});
    cr_assert_eq(rp_cq_create(&cq, &(struct rp_cq_options){.allocator = &allocator}), 0);
    struct rp_task task = {.fn = gate_pass, .arg = &gate, .cq = cq};
    for (int i = 0; i < 6; i++)
        cr_assert_eq(rp_pool_submit_task(stage.pool, &task), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    cr_assert_gt(load_seq(&bank.live), 0);
    gate_open(&gate);
    AWAIT(load_seq(&gate.passed) == 6 && load_seq(&bank.live) == 0);
    stage_strike(&stage);
}
