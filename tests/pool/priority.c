/*
 * Priorities: the order in which queued tasks start. All on a pool of one worker that a gate holds while the queue is
 * filled, so that the order is the worker's alone.
 */
#include "gates.h"

enum { MOST = 400 };

struct field {
    struct rp_pool *pool;
    struct gate gate;
    struct order order;
    struct mark marks[MOST];
    unsigned n;
};

static void field_begin(struct field *field, unsigned depth)
{
    field->pool = pool_of(1, &(struct rp_pool_options){.queue_depth = depth});
    occupy(field->pool, &field->gate, 1);
}

static int field_add(struct field *field, int priority, int number)
{
    struct mark *mark = &field->marks[field->n++];

    *mark = (struct mark){.order = &field->order, .number = number};
    return rp_pool_submit_task(field->pool, &(struct rp_task){.fn = mark_run, .arg = mark, .priority = priority});
}

static void field_run(struct field *field)
{
    gate_open(&field->gate);
    finish(field->pool);
    cr_assert_eq(field->order.n, field->n);
}

Test(priority, tasks_of_one_class_run_in_the_order_of_their_submission)
{
    static const int classes[] = {RP_PRIO_NORMAL, RP_PRIO_HIGH, RP_PRIO_LOW};

    for (int c = 0; c < 3; c++) {
        struct field field = {.gate = GATE_SHUT};

        field_begin(&field, 300);
        for (int i = 0; i < 300; i++)
            cr_assert_eq(field_add(&field, classes[c], i), 0);
        field_run(&field);
        for (int i = 0; i < 300; i++)
            cr_assert_eq(field.order.of[i], i);
    }
}

/* Each pair of classes apart; of 16 takes one looks at low first and three at normal, which the bounds allow for. */
Test(priority, a_higher_class_goes_first_but_for_the_share_of_the_lower)
{
    static const int pairs[3][2] = {
        {RP_PRIO_HIGH, RP_PRIO_NORMAL}, {RP_PRIO_HIGH, RP_PRIO_LOW}, {RP_PRIO_NORMAL, RP_PRIO_LOW}};
    static const int share[3] = {3, 1, 1};

    for (int p = 0; p < 3; p++) {
        struct field field = {.gate = GATE_SHUT};
        int lower = 0;

        field_begin(&field, 320);
        for (int i = 0; i < 320; i++) /* the lower ones first */
            cr_assert_eq(field_add(&field, pairs[p][i < 160], pairs[p][i < 160]), 0);
        field_run(&field);
        for (int i = 0; i < 160; i++)
            lower += field.order.of[i] == pairs[p][1];
        cr_assert_eq(lower, 10 * share[p], "%d of class %d among the first 160", lower, pairs[p][1]);
    }
}

/* The ageing rule: in any 16 takes in a row, while all classes have tasks, 12 high, 3 normal and 1 low start. */
Test(priority, of_every_16_takes_one_is_the_oldest_low_task_and_three_are_the_oldest_normal_ones)
{
    static struct field field = {.gate = GATE_SHUT};
    int next[3] = {0};

    field_begin(&field, 390);
    for (int i = 0; i < 130; i++)
        for (int class = RP_PRIO_NORMAL; class <= RP_PRIO_LOW; class ++)
            cr_assert_eq(field_add(&field, class, class * 1000 + i), 0);
    field_run(&field);
    for (int i = 0; i < 128; i++) {
        int class = field.order.of[i] / 1000;
        cr_assert_eq(field.order.of[i] % 1000, next[class]++); /* first in, first out within the class */
    }
    for (int from = 0; from <= 112; from++) {
        int seen[3] = {0};
        for (int i = from; i < from + 16; i++)
            seen[field.order.of[i] / 1000]++;
        cr_assert_eq(seen[RP_PRIO_HIGH], 12);
        cr_assert_eq(seen[RP_PRIO_NORMAL], 3);
        cr_assert_eq(seen[RP_PRIO_LOW], 1);
    }
}

struct stream {
    struct rp_pool *pool;
    _Atomic unsigned ran;
    _Atomic bool stop;
};

/* Replaces itself for ever, so that its class never runs out of tasks. */
static void stream_run(void *arg)
{
    struct stream *stream = arg;
    struct rp_task task = {.fn = stream_run, .arg = stream, .priority = RP_PRIO_HIGH};

    stream->ran++;
    if (!stream->stop)
        rp_pool_submit_task(stream->pool, &task);
}

struct low {
    struct stream *stream;
    unsigned after; /* tasks of the stream that ran before it */
    _Atomic bool ran;
};

static void low_run(void *arg)
{
    struct low *low = arg;

    low->after = low->stream->ran;
    low->ran = true;
}

/* Adversary: a stream of high tasks without end. The worker's turn counter gives one of 16 takes to low first. */
Test(priority, a_stream_of_high_tasks_does_not_starve_a_low_one)
{
    static struct gate gate = GATE_SHUT;
    static struct stream stream;
    static struct low low = {.stream = &stream};
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 8});

    stream.pool = pool;
    occupy(pool, &gate, 1);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(
            rp_pool_submit_task(pool, &(struct rp_task){.fn = stream_run, .arg = &stream, .priority = RP_PRIO_HIGH}),
            0);
    cr_assert_eq(rp_pool_submit_task(pool, &(struct rp_task){.fn = low_run, .arg = &low, .priority = RP_PRIO_LOW}), 0);
    gate_open(&gate);
    ASSERT_EVENTUALLY(low.ran);
    stream.stop = true;
    finish(pool);
    cr_assert_leq(low.after, 15);
}

Test(priority, the_queue_depth_is_one_total_over_the_classes)
{
    static const int mixes[4][3] = {{6, 0, 0}, {0, 0, 6}, {2, 2, 2}, {1, 5, 0}}; /* how many of each class */

    for (int m = 0; m < 4; m++) {
        struct field field = {.gate = GATE_SHUT};

        field_begin(&field, 6);
        for (int class = RP_PRIO_NORMAL; class <= RP_PRIO_LOW; class ++)
            for (int i = 0; i < mixes[m][class]; i++)
                cr_assert_eq(field_add(&field, class, 0), 0);
        for (int class = RP_PRIO_NORMAL; class <= RP_PRIO_LOW; class ++)
            cr_assert_eq(
                rp_pool_submit_task(
                    field.pool, &(struct rp_task){.fn = do_nothing, .priority = class, .overload = RP_OVERLOAD_FAIL}),
                -EAGAIN);
        cr_assert_eq(rp_pool_waiting(field.pool), 6);
        field_run(&field);
    }
}

/* What blocks is served by the order of its coming, whatever its class: the class orders the queue only. */
Test(priority, a_blocked_submitter_of_a_low_task_is_not_overtaken_by_a_high_one_that_blocks_later)
{
    static struct field field = {.gate = GATE_SHUT};
    struct submitter low, high;

    field_begin(&field, 0);
    field.marks[0] = (struct mark){&field.order, RP_PRIO_LOW};
    field.marks[1] = (struct mark){&field.order, RP_PRIO_HIGH};
    field.n = 2;
    low = (struct submitter){.pool = field.pool};
    low.task = (struct rp_task){.fn = mark_run, .arg = &field.marks[0], .priority = RP_PRIO_LOW};
    high = (struct submitter){.pool = field.pool};
    high.task = (struct rp_task){.fn = mark_run, .arg = &field.marks[1], .priority = RP_PRIO_HIGH};
    submitter_block(&low, 0);
    submitter_block(&high, 1);
    gate_open(&field.gate);
    cr_assert_eq(submitter_join(&low), 0);
    cr_assert_eq(submitter_join(&high), 0);
    finish(field.pool);
    cr_assert_eq(field.order.n, 2);
    cr_assert_eq(field.order.of[0], RP_PRIO_LOW);
}
