/*
 * rp_blocking_begin and end: a task that blocks is stood in for, within the bound, and for no longer than it says.
 */
#include "gates.h"

struct block {
    struct gate held, after; /* between begin and end; after end */
    int nested;              /* how many more begins */
    _Atomic int begin, inner, end, extra_end;
    _Atomic int ends_wrong;
    bool no_end, panics;
};

#define BLOCK                                                                                                          \
    {                                                                                                                  \
        .held = GATE_SHUT, .after = GATE_SHUT                                                                          \
    }

static void block_run(void *arg)
{
    struct block *block = arg;

    block->begin = rp_blocking_begin();
    for (int i = 0; i < block->nested; i++)
        block->inner = rp_blocking_begin();
    gate_hold(&block->held);
    if (block->panics)
        rp_panic("between begin and end");
    if (block->no_end)
        return;
    for (int i = 0; i < block->nested; i++)
        block->ends_wrong += rp_blocking_end() != 0;
    block->end = rp_blocking_end();
    block->extra_end = rp_blocking_end();
    gate_hold(&block->after);
}

static void hear_nothing(void *user, const struct rp_panic_info *info)
{
    (void)user;
    (void)info;
}

Test(blocking, outside_of_a_task_there_is_nothing_to_stand_in_for)
{
    cr_assert_eq(rp_blocking_begin(), -EPERM);
    cr_assert_eq(rp_blocking_end(), -EPERM);
    rp_heartbeat();
}

Test(blocking, a_task_that_blocks_lets_one_more_run)
{
    static struct block block = BLOCK;
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, NULL);

    cr_assert_eq(rp_pool_submit(pool, block_run, &block), 0);
    ASSERT_EVENTUALLY(block.held.inside == 1);
    cr_assert_eq(block.begin, 0);
    cr_assert_eq(rp_pool_cap(pool), 1); /* the capacity is what was asked for */
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), 0);
    ASSERT_EVENTUALLY(gate.inside == 1);
    cr_assert_eq(rp_pool_running(pool), 2);
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), -EAGAIN);
    gate_open(&block.held);
    ASSERT_EVENTUALLY(block.after.inside == 1);
    cr_assert_eq(block.end, 0);
    cr_assert_eq(block.extra_end, -EPERM);
    gate_let(&gate, 1);
    ASSERT_EVENTUALLY(rp_pool_running(pool) == 1); /* the one too many has left */
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), -EAGAIN);
    gate_open(&block.after);
    gate_open(&gate);
    finish(pool);
}

Test(blocking, a_blocked_submitter_gets_the_room_that_begin_makes)
{
    static struct block block = BLOCK;
    static struct gate gate = GATE_SHUT, first = GATE_SHUT;
    struct rp_pool *pool = pool_of(2, NULL);
    struct submitter blocked = {.pool = pool, .task = {.fn = gate_hold, .arg = &gate}};
    struct submitter starter = {.pool = pool, .task = {.fn = block_run, .arg = &block}};

    occupy(pool, &first, 2);
    submitter_block(&starter, 0);
    submitter_block(&blocked, 1);
    gate_let(&first, 1); /* room for the one that will block, and by its begin for the next */
    cr_assert_eq(submitter_join(&starter), 0);
    cr_assert_eq(submitter_join(&blocked), 0);
    ASSERT_EVENTUALLY(gate.inside == 1 && block.held.inside == 1 && first.inside == 1);
    gate_open(&gate);
    gate_open(&first);
    gate_open(&block.held);
    gate_open(&block.after);
    finish(pool);
}

Test(blocking, nested_brackets_count_once_and_end_with_the_outermost)
{
    static struct block block = BLOCK;
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, NULL);

    block.nested = 5;
    cr_assert_eq(rp_pool_submit(pool, block_run, &block), 0);
    ASSERT_EVENTUALLY(block.held.inside == 1);
    cr_assert_eq(block.begin, 0);
    cr_assert_eq(block.inner, 0);
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), 0);
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), -EAGAIN); /* one more, not six */
    gate_open(&block.held);
    gate_open(&gate);
    ASSERT_EVENTUALLY(block.after.inside == 1);
    cr_assert_eq(block.ends_wrong, 0);
    cr_assert_eq(block.end, 0);
    cr_assert_eq(block.extra_end, -EPERM);
    gate_open(&block.after);
    finish(pool);
}

Test(blocking, no_more_stand_in_than_max_extra_allows)
{
    enum { N = 5, EXTRA = 3 };
    static struct block blocks[N] = {BLOCK, BLOCK, BLOCK, BLOCK, BLOCK};
    struct rp_pool *pool = pool_of(N, &(struct rp_pool_options){.max_extra = EXTRA});
    static struct gate gate = GATE_SHUT;
    int granted = 0;

    for (int i = 0; i < N; i++) {
        cr_assert_eq(rp_pool_submit(pool, block_run, &blocks[i]), 0);
        ASSERT_EVENTUALLY(blocks[i].held.inside == 1);
        cr_assert_eq(blocks[i].begin, i < EXTRA ? 0 : -EAGAIN);
        granted += blocks[i].begin == 0;
    }
    cr_assert_eq(granted, EXTRA);
    for (int i = 0; i < EXTRA; i++)
        cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), 0);
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), -EAGAIN);
    ASSERT_EVENTUALLY(gate.inside == EXTRA);
    for (int i = 0; i < N; i++)
        gate_open(&blocks[i].held);
    for (int i = 0; i < N; i++) {
        ASSERT_EVENTUALLY(blocks[i].after.inside == 1);
        cr_assert_eq(blocks[i].end, 0); /* of the refused ones too */
        gate_open(&blocks[i].after);
    }
    gate_open(&gate);
    ASSERT_EVENTUALLY(nothing_in_flight(pool) && rp_pool_running(pool) <= N);
    finish(pool);
}

static void ends_by_itself(struct block *block)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.max_extra = 1, .on_panic = hear_nothing});

    for (int i = 0; i < 3; i++) { /* if one were not ended, the next would be refused */
        block->begin = 1;
        cr_assert_eq(rp_pool_submit(pool, block_run, block), 0);
        ASSERT_EVENTUALLY(block->held.inside == 1);
        cr_assert_eq(block->begin, 0);
        gate_let(&block->held, 1);
        ASSERT_EVENTUALLY(nothing_in_flight(pool));
    }
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), 0);
    cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), -EAGAIN);
    gate_open(&gate);
    finish(pool);
}

Test(blocking, a_bracket_left_open_ends_with_its_task)
{
    static struct block block = BLOCK;

    block.no_end = true;
    block.nested = 2;
    ends_by_itself(&block);
}

Test(blocking, a_bracket_left_open_ends_with_a_panic_of_its_task)
{
    static struct block block = BLOCK;

    block.panics = true;
    block.nested = 2;
    ends_by_itself(&block);
}

static void end_only(void *arg)
{
    *(_Atomic int *)arg = rp_blocking_end();
}

Test(blocking, a_bracket_is_its_own_tasks_and_not_the_next_ones)
{
    static struct block block = BLOCK;
    struct rp_pool *pool = pool_of(1, NULL);
    _Atomic int rc = 1;

    block.no_end = true;
    gate_open(&block.held);
    cr_assert_eq(rp_pool_submit(pool, block_run, &block), 0);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    cr_assert_eq(rp_pool_submit(pool, end_only, &rc), 0);
    finish(pool);
    cr_assert_eq(rc, -EPERM);
}

struct brackets {
    _Atomic unsigned ran, wrong;
};

static void bracket_often(void *arg)
{
    struct brackets *brackets = arg;

    for (int i = 0; i < 20; i++) {
        int rc = rp_blocking_begin();
        brackets->wrong += rc != 0 && rc != -EAGAIN;
        brackets->wrong += rp_blocking_end() != 0;
    }
    brackets->ran++;
}

/* Adversary: brackets open and close all the time, so that workers come and go while tasks wait: none is stranded. */
Test(blocking, tasks_are_not_lost_while_brackets_open_and_close)
{
    enum { TASKS = 1000 };
    struct brackets brackets = {0};
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = 20, .max_extra = 3});

    for (int i = 0; i < TASKS; i++)
        cr_assert_eq(rp_pool_submit(pool, bracket_often, &brackets), 0);
    ASSERT_EVENTUALLY(brackets.ran == TASKS);
    ASSERT_EVENTUALLY(nothing_in_flight(pool) && rp_pool_running(pool) <= 2);
    cr_assert_eq(brackets.wrong, 0);
    finish(pool);
}
