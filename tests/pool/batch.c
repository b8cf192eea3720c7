/*
 * rp_pool_submit_batch: it returns a prefix, the prefix meets exactly one fate each, the rest none.
 */
#include "gates.h"

#include <stdlib.h>

enum { LARGE = 100000 };

Test(batch, all_tasks_of_a_batch_with_room_are_accepted_and_run)
{
    struct fate fate[100] = {0};
    struct rp_task tasks[100];
    struct rp_pool *pool = pool_of(3, &(struct rp_pool_options){.queue_depth = 100});

    for (int i = 0; i < 100; i++)
        tasks[i] = fated(&fate[i]);
    cr_assert_eq(rp_pool_submit_batch(pool, tasks, 100), 100);
    finish(pool);
    for (int i = 0; i < 100; i++)
        cr_assert(fate[i].ran == 1 && fate[i].dropped == 0);
}

Test(batch, an_empty_batch_is_accepted_and_does_nothing)
{
    struct rp_pool *pool = pool_of(1, NULL);
    struct rp_task task = {.fn = do_nothing};

    cr_assert_eq(rp_pool_submit_batch(pool, NULL, 0), 0);
    cr_assert_eq(rp_pool_submit_batch(pool, &task, 0), 0);
    cr_assert_eq(snapshot_of(pool).submitted, 0);
    cr_assert_eq(rp_pool_running(pool), 0);
    finish(pool);
}

Test(batch, a_batch_larger_than_the_room_is_accepted_as_far_as_it_goes_without_blocking)
{
    for (int by_pool = 0; by_pool <= 1; by_pool++) {
        struct gate gate = GATE_SHUT;
        struct fate fate[20] = {0};
        struct rp_task tasks[20];
        struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = 7, .nonblocking = by_pool});

        occupy(pool, &gate, 2);
        for (int i = 0; i < 20; i++) {
            tasks[i] = fated(&fate[i]);
            tasks[i].overload = by_pool ? RP_OVERLOAD_BLOCK : RP_OVERLOAD_FAIL;
        }
        cr_assert_eq(rp_pool_submit_batch(pool, tasks, 20), 7);
        cr_assert_eq(rp_pool_submit_batch(pool, tasks, 20), -EAGAIN);
        gate_open(&gate);
        finish(pool);
        for (int i = 0; i < 20; i++)
            cr_assert_eq(fate[i].ran, i < 7);
    }
}

Test(batch, classes_may_mix_and_each_keeps_its_order)
{
    static struct gate gate = GATE_SHUT;
    static struct order order;
    struct mark marks[90];
    struct rp_task tasks[90];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 90});
    int next[3] = {0, 1, 2};

    occupy(pool, &gate, 1);
    for (int i = 0; i < 90; i++) {
        marks[i] = (struct mark){&order, i};
        tasks[i] = (struct rp_task){.fn = mark_run, .arg = &marks[i], .priority = i % 3};
    }
    cr_assert_eq(rp_pool_submit_batch(pool, tasks, 90), 90);
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(order.n, 90);
    for (int i = 0; i < 90; i++) {
        int *expected = &next[order.of[i] % 3];
        cr_assert_eq(order.of[i], *expected);
        *expected += 3;
    }
}

Test(batch, an_error_in_the_middle_ends_the_prefix)
{
    static const struct {
        int rc;
        struct rp_task wrong;
    } errors[] = {
        {-EINVAL, {.priority = 9}},  {-EINVAL, {.overload = -3}},   {-EINVAL, {.timeout = -1}},
        {-EINVAL, {.deadline = -1}}, {-ETIMEDOUT, {.deadline = 1}},
    };

    for (unsigned e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
        for (int at = 0; at < 5; at++) {
            struct fate fate[5] = {0};
            struct rp_task tasks[5];
            struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 5});

            for (int i = 0; i < 5; i++) {
                tasks[i] = i == at ? errors[e].wrong : (struct rp_task){0};
                tasks[i].fn = fate_run;
                tasks[i].dropped = fate_drop;
                tasks[i].arg = &fate[i];
            }
            cr_assert_eq(rp_pool_submit_batch(pool, tasks, 5), at ? at : errors[e].rc);
            finish(pool);
            for (int i = 0; i < 5; i++)
                cr_assert_eq(fate[i].ran + fate[i].dropped, i < at);
        }
    }
}

Test(batch, each_task_keeps_its_own_policy)
{
    static struct gate gate = GATE_SHUT;
    struct fate fate[5] = {0};
    struct rp_task tasks[5];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 1});

    occupy(pool, &gate, 1);
    for (int i = 0; i < 5; i++)
        tasks[i] = fated(&fate[i]);
    tasks[1].overload = RP_OVERLOAD_DISCARD_NEWEST; /* 0 takes the only place */
    tasks[2].overload = RP_OVERLOAD_CALLER_RUNS;
    tasks[3].overload = RP_OVERLOAD_DISCARD_OLDEST; /* 0, of which it takes the place */
    tasks[4].overload = RP_OVERLOAD_FAIL;
    cr_assert_eq(rp_pool_submit_batch(pool, tasks, 5), 4);
    cr_assert(fate[0].dropped == 1 && fate[1].dropped == 1 && fate[2].ran == 1);
    gate_open(&gate);
    finish(pool);
    cr_assert(fate[3].ran == 1 && fate[3].dropped == 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(fate[i].ran + fate[i].dropped, i < 4);
}

struct sender {
    struct rp_pool *pool;
    struct rp_task *tasks;
    unsigned n;
    pthread_t thread;
    _Atomic int rc;
};

static void *send_batch(void *arg)
{
    struct sender *sender = arg;

    sender->rc = rp_pool_submit_batch(sender->pool, sender->tasks, sender->n);
    return NULL;
}

Test(batch, a_batch_that_blocks_waits_for_room_one_task_after_the_other)
{
    static struct gate gate = GATE_SHUT;
    struct order order = {0};
    struct mark marks[30];
    struct rp_task tasks[30];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 2});
    struct sender sender = {.pool = pool, .tasks = tasks, .n = 30};

    occupy(pool, &gate, 1);
    for (int i = 0; i < 30; i++) {
        marks[i] = (struct mark){&order, i};
        tasks[i] = (struct rp_task){.fn = mark_run, .arg = &marks[i]};
    }
    cr_assert_eq(pthread_create(&sender.thread, NULL, send_batch, &sender), 0);
    ASSERT_EVENTUALLY(snapshot_of(pool).blocked == 1);
    cr_assert_eq(rp_pool_waiting(pool), 3);
    gate_open(&gate);
    cr_assert_eq(pthread_join(sender.thread, NULL), 0);
    cr_assert_eq(sender.rc, 30);
    finish(pool);
    for (int i = 0; i < 30; i++)
        cr_assert_eq(order.of[i], i);
}

Test(batch, a_blocked_batch_returns_its_prefix_when_the_pool_is_released)
{
    static struct gate gate = GATE_SHUT;
    struct fate fate[9] = {0};
    struct rp_task tasks[9];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 4});
    struct sender sender = {.pool = pool, .tasks = tasks, .n = 9};

    occupy(pool, &gate, 1);
    for (int i = 0; i < 9; i++)
        tasks[i] = fated(&fate[i]);
    cr_assert_eq(pthread_create(&sender.thread, NULL, send_batch, &sender), 0);
    ASSERT_EVENTUALLY(snapshot_of(pool).blocked == 1);
    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(pthread_join(sender.thread, NULL), 0);
    cr_assert_eq(sender.rc, 4);
    gate_open(&gate);
    finish(pool);
    for (int i = 0; i < 9; i++)
        cr_assert_eq(fate[i].ran, i < 4);
}

static struct rp_task *large_batch(struct fate **fate)
{
    struct rp_task *tasks = calloc(LARGE, sizeof(*tasks));

    *fate = calloc(LARGE, sizeof(**fate));
    cr_assert(tasks && *fate);
    for (int i = 0; i < LARGE; i++)
        tasks[i] = fated(&(*fate)[i]);
    return tasks;
}

Test(batch, a_hundred_thousand_tasks_in_one_batch_run_once_each)
{
    static const unsigned depths[] = {5000, LARGE};

    for (int d = 0; d < 2; d++) {
        struct fate *fate;
        struct rp_task *tasks = large_batch(&fate);
        struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = depths[d]});

        cr_assert_eq(rp_pool_submit_batch(pool, tasks, LARGE), LARGE);
        finish(pool);
        for (int i = 0; i < LARGE; i++)
            cr_assert(fate[i].ran == 1 && fate[i].dropped == 0);
        free(tasks);
        free(fate);
    }
}

/*
 * Adversary: deadlines that pass one after the other while the batch is being submitted, between any two looks at them.
 * Whatever the count says, the prefix has one fate each and the rest none, and no task takes the place of another.
 */
Test(batch, deadlines_that_pass_during_the_submit_leave_each_task_its_own_fate)
{
    for (int round = 0; round < 20; round++) {
        struct fate *fate;
        struct rp_task *tasks = large_batch(&fate);
        struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = LARGE});

        for (int i = 0; i < LARGE; i++)
            tasks[i].deadline = 1;
        int64_t first = rp_after(3 * MS); /* after the deadlines below are set, and before they are all looked at */
        for (int i = 0; i < LARGE; i++)
            tasks[i].deadline = first + i * (1 + round * 3);
        int accepted = rp_pool_submit_batch(pool, tasks, LARGE);
        cr_assert(accepted >= 0 || accepted == -ETIMEDOUT);
        finish(pool);
        for (int i = 0; i < LARGE; i++)
            cr_assert_eq(fate[i].ran + fate[i].dropped, i < accepted, "task %d of %d: ran %u, dropped %u", i, accepted,
                         fate[i].ran, fate[i].dropped);
        free(tasks);
        free(fate);
    }
}

/* Adversary: no room for so long that a deadline passes which was well ahead when the batch was first looked at. */
Test(batch, a_deadline_that_passes_while_the_batch_waits_for_room_ends_it)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 1});
    _Atomic unsigned ran = 0;
    int64_t deadline = rp_after(20000000);
    struct rp_task tasks[] = {{.fn = count_up, .arg = (void *)&ran},
                              {.fn = count_up, .arg = (void *)&ran},
                              {.fn = count_up, .arg = (void *)&ran, .deadline = deadline}};
    struct sender sender = {.pool = pool, .tasks = tasks, .n = 3};

    occupy(pool, &gate, 1);
    cr_assert_eq(pthread_create(&sender.thread, NULL, send_batch, &sender), 0);
    ASSERT_EVENTUALLY(snapshot_of(pool).blocked == 1 || rp_now() >= deadline);
    pass_time_until(deadline + 1000000);
    gate_open(&gate);
    cr_assert_eq(pthread_join(sender.thread, NULL), 0);
    cr_assert_eq(sender.rc, 2);
    finish(pool);
    cr_assert_eq(ran, 2);
}

/*
 * Adversary: a pool that was made for one worker and grown, and a batch larger than the queue was laid out for, of a
 * class whose tasks all wait for each other. Each needs a worker of its own; none may wait for the end of the batch.
 */
static void grown_pool_takes_a_batch(int priority)
{
    struct gate gate = GATE_SHUT;
    struct rp_task tasks[200];
    struct rp_pool *pool = pool_of(1, NULL);
    struct sender sender = {.pool = pool, .tasks = tasks, .n = 200};

    cr_assert_eq(rp_pool_tune(pool, 200), 0);
    for (int i = 0; i < 200; i++)
        tasks[i] = (struct rp_task){.fn = gate_hold, .arg = &gate, .priority = priority};
    cr_assert_eq(pthread_create(&sender.thread, NULL, send_batch, &sender), 0);
    ASSERT_EVENTUALLY(gate.inside == 200);
    gate_open(&gate);
    cr_assert_eq(pthread_join(sender.thread, NULL), 0);
    cr_assert_eq(sender.rc, 200);
    finish(pool);
}

Test(batch, a_grown_pool_takes_a_batch_of_normal_tasks_that_all_wait_for_each_other)
{
    grown_pool_takes_a_batch(RP_PRIO_NORMAL);
}

Test(batch, a_grown_pool_takes_a_batch_of_high_tasks_that_all_wait_for_each_other)
{
    grown_pool_takes_a_batch(RP_PRIO_HIGH);
}

static void *send_many(void *arg)
{
    struct sender *sender = arg;

    for (unsigned at = 0; at < sender->n; at += 50)
        if (rp_pool_submit_batch(sender->pool, &sender->tasks[at], 50) != 50)
            sender->rc = -1;
    return NULL;
}

/* Adversary: batches of all classes that race for little room with each other. */
Test(batch, batches_that_race_lose_and_double_nothing)
{
    enum { THREADS = 4 };
    struct fate *fate;
    struct rp_task *tasks = large_batch(&fate);
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = 30});
    struct sender all[THREADS];

    for (int i = 0; i < LARGE; i++)
        tasks[i].priority = i / 7 % 3;
    for (int i = 0; i < THREADS; i++) {
        all[i] = (struct sender){.pool = pool, .tasks = &tasks[i * 5000], .n = 5000};
        cr_assert_eq(pthread_create(&all[i].thread, NULL, send_many, &all[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(all[i].thread, NULL);
        cr_assert_eq(all[i].rc, 0);
    }
    finish(pool);
    for (int i = 0; i < LARGE; i++)
        cr_assert(fate[i].ran == (i < THREADS * 5000) && fate[i].dropped == 0);
    free(tasks);
    free(fate);
}
