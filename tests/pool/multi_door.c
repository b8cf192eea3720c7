/*
 * Futures, groups, retries, strands and completions through a multi pool: the strategy sends each task to a pool, and
 * all that is promised of them at a pool holds over the pools.
 */
#include "multi.h"

#include <ringpool/completion.h>
#include <ringpool/context.h>
#include <ringpool/timer.h>

static int add_one(void *arg, void **value)
{
    *value = arg;
    return 1;
}

static uint64_t completed(struct rp_multi *multi, unsigned index)
{
    return pool_look(rp_multi_pool(multi, index)).completed;
}

/* --- futures ------------------------------------------------------------------------------------------------------ */

Test(multi_future, the_strategy_sends_each_to_a_pool)
{
    struct rp_multi *multi = multi_make(4, 10, RP_ROUND_ROBIN, NULL); /* none is ever full */
    struct rp_future *futures[40];

    for (int i = 0; i < 40; i++)
        cr_assert_eq(rp_multi_submit_future(multi, add_one, &futures[i], &futures[i]), 0);
    cr_assert_eq(rp_future_wait_all(futures, 40, rp_after(PATIENCE)), 0);
    for (int i = 0; i < 40; i++) {
        void *value = NULL;
        cr_assert_eq(rp_future_get(futures[i], &value), 1);
        cr_assert_eq(value, &futures[i]);
        rp_future_destroy(futures[i]);
    }
    for (unsigned i = 0; i < 4; i++)
        AWAIT(completed(multi, i) == 10);
    multi_end(multi);
}

struct hop {
    struct rp_multi *multi;
    unsigned left;
};

/* Each waits for the next one, which the round robin sends to the other pool. */
static int hop_task(void *arg, void **value)
{
    struct hop *hop = arg;
    struct rp_future *future;

    (void)value;
    if (!hop->left)
        return 0;
    struct hop next = {hop->multi, hop->left - 1};
    int rc = rp_multi_submit_future(hop->multi, hop_task, &next, &future);
    if (rc)
        return rc;
    rc = rp_future_get(future, NULL);
    rp_future_destroy(future);
    return rc < 0 ? rc : rc + 1;
}

/*
 * Adversary: tasks of two pools of one worker each that wait for one another in turn. Holds: others stand in for them.
 */
Test(multi_future, tasks_of_two_pools_may_wait_for_one_another)
{
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct hop hop = {multi, 9};
    struct rp_future *future;

    for (int round = 0; round < 20; round++) {
        cr_assert_eq(rp_multi_submit_future(multi, hop_task, &hop, &future), 0);
        int rc = rp_future_get_until(future, NULL, rp_after(PATIENCE));
        cr_assert_eq(rc, 9, "%d", rc);
        rp_future_destroy(future);
    }
    multi_end(multi);
}

static int plus_one(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    *next_value = value;
    return result + 1;
}

/* Adversary: the pool that ran the source is removed before the continuation is made. Holds: it goes to another one. */
Test(multi_future, continuations_outlive_the_pool_of_their_source)
{
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct rp_future *future, *next;

    for (int round = 0; round < 200; round++) {
        cr_assert_eq(rp_multi_submit_future(multi, add_one, multi, &future), 0);
        if (round % 2)
            cr_assert_eq(rp_future_wait_all(&future, 1, rp_after(PATIENCE)), 0);
        if (round % 50 == 1) {
            cr_assert_eq(rp_multi_remove(multi, 0), 0);
            cr_assert_eq(rp_multi_add(multi, 1), 0);
        }
        for (int i = 0; i < 5; i++) {
            cr_assert_eq(rp_future_then(future, NULL, plus_one, NULL, &next), 0);
            rp_future_destroy(future);
            future = next;
        }
        void *value = NULL;
        cr_assert_eq(rp_future_get_until(future, &value, rp_after(PATIENCE)), 6);
        cr_assert_eq(value, multi);
        rp_future_destroy(future);
    }
    multi_end(multi);
}

Test(multi_future, what_is_queued_at_a_pool_can_be_cancelled_and_run_by_the_waiter)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(
        2, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &(struct rp_pool_options){.queue_depth = 4}});
    struct rp_future *cancelled, *run;

    hold_pool(multi, 0, &gate, 1);
    hold_pool(multi, 1, &gate, 1);
    cr_assert_eq(rp_multi_submit_future(multi, add_one, NULL, &cancelled), 0);
    cr_assert_eq(rp_multi_submit_future(multi, add_one, NULL, &run), 0);
    cr_assert_eq(rp_future_cancel(cancelled), 0);
    cr_assert_eq(rp_future_get(cancelled, NULL), -ECANCELED);
    cr_assert_eq(rp_future_run(run), 0);
    cr_assert_eq(rp_future_get(run, NULL), 1);
    rp_future_destroy(cancelled);
    rp_future_destroy(run);
    open_and_end(multi, &gate);
}

static int fail_thrice(void *arg, void **value)
{
    (void)value;
    return add_seq((_Atomic uint32_t *)arg, 1) < 3 ? -EIO : 7;
}

/* Adversary: all pools there were when the first attempt began are gone when the last one does. */
Test(multi_future, a_retry_outlives_pools)
{
    struct rp_multi *multi = multi_make(3, 1, RP_ROUND_ROBIN, NULL);
    _Atomic uint32_t attempts = 0;
    const struct rp_task task = {.arg = (void *)&attempts};
    const struct rp_retry retry = {.attempts = 5, .delay = 20 * MS, .backoff = RP_BACKOFF_CONSTANT};
    struct rp_future *future;

    cr_assert_eq(rp_multi_submit_retry(multi, fail_thrice, &task, &retry, &future), 0);
    for (unsigned i = 0; i < 3; i++) {
        AWAIT(load_seq(&attempts) > i);
        cr_assert_eq(rp_multi_add(multi, 1), i ? (int)i - 1 : 3);
        cr_assert_eq(rp_multi_remove(multi, i), 0);
    }
    cr_assert_eq(rp_future_get_until(future, NULL, rp_after(PATIENCE)), 7);
    cr_assert_eq(load_seq(&attempts), 4);
    rp_future_destroy(future);
    multi_end(multi);
}

/* --- want of memory between submits ------------------------------------------------------------------------------- */

static void bank_close(struct bank *bank)
{
    store_seq(&bank->fail_on, 1);
    store_seq(&bank->fail_at, load_seq(&bank->calls) + 1);
}

static void bank_open(struct bank *bank)
{
    store_seq(&bank->fail_at, 0);
    store_seq(&bank->fail_on, 0);
}

struct wanting {
    struct gate gate;
    _Atomic uint32_t calls;
};

static int fail_behind_gate(void *arg, void **value)
{
    struct wanting *me = arg;

    (void)value;
    gate_pass(&me->gate);
    return add_seq(&me->calls, 1) ? 7 : -EIO;
}

/*
 * Adversary: the second attempt goes to a pool that has yet to make the ring of the task's class, and for a while there
 * is no memory for that. Holds: it comes later, with the result that it has then.
 */
Test(multi_future, a_retry_waits_while_there_is_no_memory)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    const struct rp_pool_options pool = {.allocator = &allocator};
    const struct rp_multi_options options = {.pool = &pool};
    struct rp_multi *multi = multi_make(1, 1, RP_ROUND_ROBIN, &options);
    struct wanting me = {0};
    const struct rp_task task = {.arg = &me, .priority = RP_PRIO_HIGH};
    const struct rp_retry retry = {.attempts = 2, .delay = MS / 10};
    struct rp_future *future;

    cr_assert_eq(rp_multi_submit_retry(multi, fail_behind_gate, &task, &retry, &future), 0);
    AWAIT(load_seq(&me.gate.inside) == 1);
    cr_assert_eq(rp_multi_add(multi, 1), 1);
    cr_assert_eq(rp_multi_remove(multi, 0), 0);
    bank_close(&bank);
    uint32_t before = load_seq(&bank.failures);
    gate_open(&me.gate);
    AWAIT(load_seq(&bank.failures) >= before + 5 || rp_future_done(future));
    cr_assert_eq(rp_future_try_get(future, NULL), -EBUSY, "it ended for want of memory");
    cr_assert_eq(load_seq(&me.calls), 1);
    bank_open(&bank);
    cr_assert_eq(rp_future_get_timeout(future, NULL, PATIENCE), 7);
    cr_assert_eq(load_seq(&me.calls), 2);
    rp_future_destroy(future);
    multi_end(multi);
    AWAIT(load_seq(&bank.live) == 0);
    cr_assert_eq(load_seq(&bank.strange), 0);
}

/* A strategy that needs memory of its own. */
struct chooser {
    _Atomic uint32_t short_of_memory, refused;
};

static int choose_if_there_is_memory(void *user, const struct rp_multi_view *views, unsigned n)
{
    struct chooser *chooser = user;

    (void)views, (void)n;
    if (!load_seq(&chooser->short_of_memory))
        return 0;
    add_seq(&chooser->refused, 1);
    return -ENOMEM;
}

static int exit_next(void *arg, int result, void *value, void **next_value)
{
    (void)arg, (void)result, (void)value, (void)next_value;
    pthread_exit(NULL);
}

static int add_next(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    *next_value = value;
    return result + 1;
}

/*
 * Adversary: a continuation ends the thread on which three others wait, and the user's strategy that is to find them a
 * pool has no memory for a while. Holds: they come later, each once.
 */
Test(multi_future, continuations_without_a_thread_wait_while_there_is_no_memory)
{
    struct chooser chooser = {0};
    const struct rp_pool_options pool = {.log_level = RP_LOG_NONE};
    const struct rp_multi_options options = {
        .pool = &pool, .choose = choose_if_there_is_memory, .choose_user = &chooser};
    struct rp_multi *multi = multi_make(1, 1, RP_CUSTOM, &options);
    struct wanting me = {.calls = 1};
    struct rp_future *first, *exits, *next[3];

    cr_assert_eq(rp_multi_submit_future(multi, fail_behind_gate, &me, &first), 0);
    AWAIT(load_seq(&me.gate.inside) == 1);
    cr_assert_eq(rp_future_then(first, NULL, exit_next, NULL, &exits), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_future_then(first, NULL, add_next, NULL, &next[i]), 0);
    store_seq(&chooser.short_of_memory, 1);
    gate_open(&me.gate);
    cr_assert_eq(rp_future_get_timeout(exits, NULL, PATIENCE), -EFAULT);
    AWAIT(load_seq(&chooser.refused) >= 20 ||
          rp_future_done(next[0])); /* three when they were made ready, all others by the reactor */
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_future_try_get(next[i], NULL), -EBUSY, "number %d ended for want of memory", i);
    store_seq(&chooser.short_of_memory, 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(rp_future_get_timeout(next[i], NULL, PATIENCE), 8);
        rp_future_destroy(next[i]);
    }
    rp_future_destroy(exits);
    rp_future_destroy(first);
    multi_end(multi);
}

/* --- groups ------------------------------------------------------------------------------------------------------- */

static int count_member(void *arg)
{
    add_seq((_Atomic uint32_t *)arg, 1);
    return 0;
}

static int fail_member(void *arg)
{
    (void)arg;
    return -EIO;
}

static int hang_until_cancelled(void *arg)
{
    (void)arg;
    return rp_ctx_sleep(rp_ctx_current(), rp_after(PATIENCE)) ? -ECANCELED : 0;
}

Test(multi_group, its_members_are_spread_and_waited_for_together)
{
    struct rp_multi *multi = multi_make(4, 2, RP_ROUND_ROBIN, NULL);
    _Atomic uint32_t ran = 0;
    struct rp_group *group;

    cr_assert_eq(rp_multi_group_create(&group, multi, NULL), 0);
    for (int i = 0; i < 400; i++)
        cr_assert_eq(rp_group_submit(group, count_member, (void *)&ran), 0);
    cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), 0);
    cr_assert_eq(load_seq(&ran), 400);
    rp_group_destroy(group);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_gt(completed(multi, i), 0);
    multi_end(multi);
}

Test(multi_group, the_first_error_cancels_members_at_other_pools)
{
    struct rp_multi *multi = multi_make(3, 1, RP_ROUND_ROBIN, NULL);
    struct rp_group *group;

    cr_assert_eq(rp_multi_group_create(&group, multi, NULL), 0);
    cr_assert_eq(rp_group_submit(group, hang_until_cancelled, NULL), 0);
    cr_assert_eq(rp_group_submit(group, hang_until_cancelled, NULL), 0);
    cr_assert_eq(rp_group_submit(group, fail_member, NULL), 0);
    cr_assert_eq(rp_group_wait(group, rp_after(PATIENCE)), -EIO);
    rp_group_destroy(group);
    multi_end(multi);
}

/* --- contexts and completions ------------------------------------------------------------------------------------- */

static int submit_with_ctx(struct rp_pool *multi, void *arg)
{
    struct rp_task task = {.fn = count_task, .arg = arg, .ctx = ((struct rp_ctx **)arg)[1]};

    return rp_multi_submit_task((struct rp_multi *)multi, &task);
}

/* Adversary: nothing but its context ends the submitter's blocking. */
Test(multi_context, its_end_ends_a_submitter_that_waits_for_room_in_any_pool)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct caller callers[3];
    struct rp_ctx *ctx;

    cr_assert_eq(rp_ctx_create(&ctx, NULL, 0), 0);
    struct rp_ctx *arg[2] = {NULL, ctx};
    hold(multi, &gate, 2);
    AWAIT(load_seq(&gate.inside) == 2);
    for (int i = 0; i < 3; i++)
        caller_start(&callers[i], (struct rp_pool *)multi, submit_with_ctx, arg);
    AWAIT(rp_multi_waiting(multi) == 3);
    rp_ctx_cancel(ctx, 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(caller_end(&callers[i]), -ECANCELED);
    cr_assert_eq(submit_with_ctx((struct rp_pool *)multi, arg), -ECANCELED);
    cr_assert_eq(rp_multi_waiting(multi), 0);
    rp_ctx_destroy(ctx);
    open_and_end(multi, &gate);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void panic(void *arg)
{
    (void)arg;
    rp_panic("as it was told");
}

Test(multi_completion, each_task_of_any_pool_posts_its_own)
{
    struct rp_multi_options options = {.pool = &(struct rp_pool_options){.queue_depth = 64, .log_level = RP_LOG_NONE}};
    struct rp_multi *multi = multi_make(3, 2, RP_ROUND_ROBIN, &options);
    struct rp_completion seen[16];
    struct rp_task batch[10];
    uint64_t sum = 0, want = 0;
    unsigned n = 0, faults = 0;
    struct rp_cq *cq;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    for (uint64_t i = 0; i < 100; i++, want += i) {
        struct rp_task task = {.fn = i % 10 ? nothing : panic, .cq = cq, .user_data = i + 1};
        cr_assert_eq(rp_multi_submit_task(multi, &task), 0);
    }
    for (uint64_t i = 0; i < 10; i++)
        batch[i] = (struct rp_task){.fn = nothing, .cq = i % 2 ? cq : NULL, .user_data = 1000};
    cr_assert_eq(rp_multi_submit_batch(multi, batch, 10), 10);
    while (n < 105) {
        int got = rp_cq_wait(cq, seen, 16, 1, rp_after(PATIENCE));
        cr_assert_gt(got, 0, "%d of 105 came: %s", n, rp_strerror(got));
        for (int i = 0; i < got; i++) {
            sum += seen[i].user_data;
            faults += seen[i].result == -EFAULT;
        }
        n += (unsigned)got;
    }
    cr_assert_eq(sum, want + 5000);
    cr_assert_eq(faults, 10);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    multi_end(multi);
}

/* --- timers ------------------------------------------------------------------------------------------------------- */

struct alarms {
    _Atomic uint32_t ran, dropped;
    _Atomic int reason;
};

static void alarm_run(struct rp_timer *timer, void *arg)
{
    (void)timer;
    add_seq(&((struct alarms *)arg)->ran, 1);
}

static void alarm_dropped(struct rp_timer *timer, void *arg, int reason)
{
    struct alarms *alarms = arg;

    (void)timer;
    store_seq(&alarms->reason, reason);
    add_seq(&alarms->dropped, 1);
}

Test(multi_timer, the_strategy_sends_each_run_to_a_pool)
{
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct rp_timer_options options = {.multi = multi, .dropped = alarm_dropped, .label = "alarm"};
    struct alarms alarms = {0};
    struct rp_timer *timer;

    cr_assert_eq(rp_timer_create(&timer, alarm_run, &alarms, &options), 0);
    cr_assert_eq(rp_timer_arm_periodic(timer, rp_now(), MS), 0);
    AWAIT(completed(multi, 0) >= 2 && completed(multi, 1) >= 2);
    cr_assert_eq(rp_multi_remove(multi, 0), 0);
    uint32_t ran = load_seq(&alarms.ran);
    AWAIT(load_seq(&alarms.ran) >= ran + 2);
    cr_assert_eq(load_seq(&alarms.dropped), 0);
    cr_assert_eq(rp_multi_release(multi), 0);
    AWAIT(load_seq(&alarms.dropped) > 0);
    cr_assert_eq(load_seq(&alarms.reason), -ESHUTDOWN);
    cr_assert_eq(rp_timer_destroy(timer), 0);
    multi_end(multi);
}

Test(multi_timer, runs_in_one_or_the_other)
{
    struct rp_multi *multi = multi_make(1, 1, RP_ROUND_ROBIN, NULL);
    struct rp_timer *timer = (struct rp_timer *)1;
    struct rp_timer_options options = {.multi = multi, .pool = rp_multi_pool(multi, 0)};

    cr_assert_eq(rp_timer_create(&timer, alarm_run, NULL, &options), -EINVAL);
    cr_assert_null(timer);
    multi_end(multi);
}

/* --- strands ------------------------------------------------------------------------------------------------------ */

#define KEYS 16

struct lane {
    _Atomic uint32_t inside, next, wrong;
};

struct step {
    struct lane *lane;
    uint32_t number;
};

static void take_step(void *arg)
{
    struct step *step = arg;
    struct lane *lane = step->lane;

    if (add_seq(&lane->inside, 1) || load_seq(&lane->next) != step->number)
        store_seq(&lane->wrong, 1);
    store_seq(&lane->next, step->number + 1);
    sub_seq(&lane->inside, 1);
}

/* Adversary: pools come and go while the keys wander among them. Holds: one at a time of a key, in order. */
Test(multi_strand, a_key_keeps_its_order_over_all_pools)
{
    static struct lane lanes[KEYS];
    static struct step steps[KEYS][500];
    struct rp_multi *multi = multi_make(3, 2, RP_ROUND_ROBIN, NULL);
    const struct rp_strand_options options = {.burst = 3};
    struct rp_strand *strand;

    cr_assert_eq(rp_multi_strand_create(&strand, multi, &options), 0);
    for (uint32_t i = 0; i < 500; i++) {
        for (unsigned key = 0; key < KEYS; key++) {
            steps[key][i] = (struct step){&lanes[key], i};
            cr_assert_eq(rp_strand_submit(strand, key, take_step, &steps[key][i]), 0);
        }
        if (i % 100 == 50) {
            cr_assert_eq(rp_multi_remove(multi, 1), 0);
            cr_assert_eq(rp_multi_add(multi, 2), 1);
        }
    }
    cr_assert_eq(rp_strand_release_until(strand, rp_after(PATIENCE)), 0);
    for (unsigned key = 0; key < KEYS; key++) {
        cr_assert_eq(load_seq(&lanes[key].wrong), 0, "key %u", key);
        cr_assert_eq(load_seq(&lanes[key].next), 500, "key %u", key);
    }
    cr_assert_eq(rp_strand_destroy(strand), 0);
    multi_end(multi);
}

/* --- bad input, the end, memory ----------------------------------------------------------------------------------- */

Test(multi_door, bad_arguments_are_refused_and_leave_nothing)
{
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    const struct rp_task with_fn = {.fn = nothing}, none = {0};
    const struct rp_retry retry = {0};
    struct rp_future *future = (struct rp_future *)1;
    struct rp_strand *strand = (struct rp_strand *)1;
    struct rp_group *group = (struct rp_group *)1;

    cr_assert_eq(rp_multi_submit_future(NULL, add_one, NULL, &future), -EINVAL);
    cr_assert_null(future);
    cr_assert_eq(rp_multi_submit_future(multi, NULL, NULL, &future), -EINVAL);
    cr_assert_eq(rp_multi_submit_future(multi, add_one, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_multi_submit_future_task(multi, add_one, &with_fn, &future), -EINVAL);
    cr_assert_eq(rp_multi_submit_retry(NULL, add_one, &none, &retry, &future), -EINVAL);
    cr_assert_eq(rp_multi_submit_retry(multi, add_one, &none, NULL, &future), -EINVAL);
    cr_assert_eq(rp_multi_group_create(&group, NULL, NULL), -EINVAL);
    cr_assert_null(group);
    cr_assert_eq(rp_multi_group_create(NULL, multi, NULL), -EINVAL);
    cr_assert_eq(rp_multi_strand_create(&strand, NULL, NULL), -EINVAL);
    cr_assert_null(strand);
    cr_assert_eq(rp_multi_strand_create(NULL, multi, NULL), -EINVAL);
    multi_end(multi);
}

Test(multi_door, after_the_release_all_say_so_and_what_is_queued_ends)
{
    struct gate gate = {0};
    struct rp_multi_options options = {
        .pool = &(struct rp_pool_options){.queue_depth = 4, .release_policy = RP_RELEASE_DROP}};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, &options);
    struct rp_future *queued[4], *future;
    struct rp_group *group, *late;

    cr_assert_eq(rp_multi_group_create(&group, multi, NULL), 0);
    hold(multi, &gate, 2);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(rp_multi_submit_future(multi, add_one, NULL, &queued[i]), 0);
    cr_assert_eq(rp_multi_release(multi), 0);
    cr_assert_eq(rp_multi_submit_future(multi, add_one, NULL, &future), -ESHUTDOWN);
    cr_assert_eq(rp_multi_group_create(&late, multi, NULL), -ESHUTDOWN);
    cr_assert_eq(rp_group_submit(group, fail_member, NULL), -ESHUTDOWN);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(rp_future_get_until(queued[i], NULL, rp_after(PATIENCE)), -ESHUTDOWN);
        rp_future_destroy(queued[i]);
    }
    rp_group_destroy(group);
    open_and_end(multi, &gate);
}

/* Every allocation on the way fails in turn: the call says -ENOMEM, and nothing is left of it. */
Test(multi_door, without_memory_nothing_is_left_behind)
{
    struct bank bank = {0};
    const struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_multi_options options = {.pool = &(struct rp_pool_options){.allocator = &allocator}};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, &options);
    const struct rp_task none = {0};
    const struct rp_retry retry = {0};
    bool failed = true;

    for (uint32_t n = 1; failed; n++) {
        struct rp_future *future = NULL, *tried = NULL;
        struct rp_group *group = NULL;
        int rc[3];

        cr_assert_lt(n, 50U);
        store_seq(&bank.failures, 0);
        store_seq(&bank.fail_at, load_seq(&bank.calls) + n);
        rc[0] = rp_multi_submit_future(multi, add_one, NULL, &future);
        rc[1] = rp_multi_submit_retry(multi, add_one, &none, &retry, &tried);
        rc[2] = rp_multi_group_create(&group, multi, NULL);
        store_seq(&bank.fail_at, 0);
        failed = load_seq(&bank.failures) > 0;
        for (int i = 0; i < 3; i++)
            cr_assert(rc[i] == 0 || rc[i] == -ENOMEM, "call %d: %s", i, rp_strerror(rc[i]));
        cr_assert_eq(failed, rc[0] || rc[1] || rc[2], "allocation %u", n);
        cr_assert_eq(future ? rp_future_get(future, NULL) : 1, 1);
        cr_assert_eq(tried ? rp_future_get(tried, NULL) : 1, 1);
        rp_future_destroy(future);
        rp_future_destroy(tried);
        rp_group_destroy(group);
    }
    multi_end(multi);
    AWAIT(load_seq(&bank.live) == 0);
    cr_assert_eq(load_seq(&bank.strange), 0);
}
