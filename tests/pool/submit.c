/*
 * rp_pool_submit and its forms: who gets the task, when a worker is made, what is accepted, what is refused, and that
 * an accepted task meets exactly one fate while a refused one meets none.
 */
#include "gates.h"

#include <string.h>

/* --- who gets the task ------------------------------------------------------------------------------------------ */

static _Thread_local unsigned own_number;

static int remember_number(void *user, unsigned worker, void **local)
{
    (void)user;
    (void)local;
    own_number = worker;
    return 0;
}

struct visit {
    struct gate gate;
    _Atomic int worker;
};

/* Says on which worker it runs, and stays there until it is let go. */
static void visit_run(void *arg)
{
    struct visit *visit = arg;

    visit->worker = (int)own_number;
    gate_hold(&visit->gate);
}

static void visit_begin(struct rp_pool *pool, struct visit *visit)
{
    visit->worker = -1;
    cr_assert_eq(rp_pool_submit(pool, visit_run, visit), 0);
    ASSERT_EVENTUALLY(visit->gate.inside == 1);
}

static void visit_end(struct rp_pool *pool, struct visit *visit, unsigned busy)
{
    gate_let(&visit->gate, 1);
    ASSERT_EVENTUALLY(rp_pool_busy(pool) == busy);
}

/* Adversary: workers park in an order of the test's choosing. The stack of parked workers gives the last one first. */
Test(submit, the_worker_that_parked_last_gets_the_next_task)
{
    static struct visit visits[4] = {{GATE_SHUT, 0}, {GATE_SHUT, 0}, {GATE_SHUT, 0}, {GATE_SHUT, 0}};
    static const int park_order[4] = {2, 0, 3, 1};
    struct rp_pool *pool = pool_of(4, &(struct rp_pool_options){.no_purge = true, .worker_start = remember_number});
    int number[4];

    for (int i = 0; i < 4; i++)
        visit_begin(pool, &visits[i]);
    for (int i = 0; i < 4; i++)
        number[i] = visits[i].worker;
    for (int i = 0; i < 4; i++) {
        struct rp_worker_info info[4];
        bool asleep = false;

        visit_end(pool, &visits[park_order[i]], 3 - (unsigned)i);
        while (!asleep) { /* until this one is on the stack: idle, and asleep in the kernel */
            char path[64], state = 0;

            cr_assert_eq(rp_pool_workers(pool, info, 4), 4);
            const struct rp_worker_info *w = NULL;
            for (int k = 0; k < 4; k++)
                if ((int)info[k].worker == number[park_order[i]])
                    w = &info[k];
            cr_assert_not_null(w);
            if (w->state == RP_WORKER_IDLE) {
                snprintf(path, sizeof(path), "/proc/self/task/%d/stat", w->tid);
                FILE *stat = fopen(path, "re");
                cr_assert_not_null(stat);
                cr_assert_eq(fscanf(stat, "%*d (%*[^)]) %c", &state), 1);
                fclose(stat);
                asleep = state == 'S';
            }
            nap();
        }
    }
    for (int i = 3; i >= 0; i--) { /* each next task while the former ones run */
        visit_begin(pool, &visits[i]);
        cr_expect_eq(visits[i].worker, number[park_order[i]], "task %d went to worker %d instead of %d", 3 - i,
                     visits[i].worker, number[park_order[i]]);
    }
    for (int i = 0; i < 4; i++)
        gate_open(&visits[i].gate);
    finish(pool);
}

Test(submit, one_task_at_a_time_stays_on_one_worker)
{
    static struct visit visit = {GATE_SHUT, 0};
    struct rp_pool *pool = pool_of(8, &(struct rp_pool_options){.no_purge = true, .worker_start = remember_number});
    int first = -1;

    ASSERT_EVENTUALLY(all_parked(pool)); /* a pool with a start hook makes its first worker at creation */
    for (int i = 0; i < 50; i++) {
        visit_begin(pool, &visit);
        if (first < 0)
            first = visit.worker;
        cr_assert_eq(visit.worker, first);
        visit_end(pool, &visit, 0);
        ASSERT_EVENTUALLY(all_parked(pool));
    }
    cr_assert_eq(rp_pool_running(pool), 1);
    finish(pool);
}

Test(submit, a_worker_is_made_only_when_none_is_free_and_fewer_live_than_may)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(5, &(struct rp_pool_options){.no_purge = true, .queue_depth = 3});

    cr_assert_eq(rp_pool_running(pool), 0);
    for (unsigned i = 1; i <= 5; i++) {
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
        ASSERT_EVENTUALLY(gate.inside == i);
        cr_assert_eq(rp_pool_running(pool), i);
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
    cr_assert_eq(rp_pool_running(pool), 5);
    gate_let(&gate, 8);
    ASSERT_EVENTUALLY(nothing_in_flight(pool) && all_parked(pool));
    for (unsigned i = 1; i <= 5; i++) {
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
        ASSERT_EVENTUALLY(gate.inside == i);
    }
    cr_assert_eq(snapshot_of(pool).spawned, 5);
    gate_open(&gate);
    finish(pool);
}

/*
 * Adversary: a pool without a worker, whose first submit has to make one before it may accept the task. The worker that
 * it made is the free one that gets the task; another would have nothing to do.
 */
Test(submit, the_first_task_of_a_pool_makes_one_worker)
{
    unsigned spawned = 0;

    for (int i = 0; i < 100; i++) {
        struct rp_pool *pool = pool_of(4, &(struct rp_pool_options){.no_purge = true});
        _Atomic unsigned ran = 0;

        cr_assert_eq(rp_pool_submit(pool, count_up, (void *)&ran), 0);
        ASSERT_EVENTUALLY(ran == 1 && nothing_in_flight(pool));
        spawned += (unsigned)snapshot_of(pool).spawned;
        finish(pool);
    }
    cr_assert_eq(spawned, 100);
}

Test(submit, an_unlimited_pool_runs_500_blocked_tasks_at_once)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(RP_UNLIMITED, NULL);

    for (int i = 0; i < 500; i++)
        cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), 0);
    ASSERT_EVENTUALLY(gate.inside == 500);
    cr_assert_eq(rp_pool_cap(pool), RP_UNLIMITED);
    cr_assert_eq(rp_pool_busy(pool), 500);
    cr_assert_eq(rp_pool_free(pool), RP_UNLIMITED - 500);
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(gate.passed, 500);
}

/* --- what is accepted ------------------------------------------------------------------------------------------- */

static void accepts_exactly(unsigned capacity, unsigned depth)
{
    struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(capacity, &(struct rp_pool_options){.queue_depth = depth});

    for (unsigned i = 0; i < capacity + depth; i++)
        cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), 0, "task %u of %u + %u", i, capacity, depth);
    ASSERT_EVENTUALLY(gate.inside == capacity);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), -EAGAIN);
    for (unsigned ended = 1; ended <= 3; ended++) { /* each end makes room for one */
        gate_let(&gate, 1);
        ASSERT_EVENTUALLY(gate.passed == ended && rp_pool_busy(pool) + rp_pool_waiting(pool) == capacity + depth - 1);
        cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), 0);
        cr_assert_eq(rp_pool_try_submit(pool, gate_hold, &gate), -EAGAIN);
    }
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(gate.passed, capacity + depth + 3);
}

Test(submit, a_pool_without_queue_accepts_as_many_tasks_as_it_has_workers)
{
    accepts_exactly(1, 0);
    accepts_exactly(7, 0);
}

Test(submit, a_queue_holds_exactly_its_depth_beyond_the_workers)
{
    accepts_exactly(1, 1);
    accepts_exactly(2, 5);
    accepts_exactly(3, 64);
    accepts_exactly(1, 1000);
}

/* Adversary: eight threads fight for the last places. The count of a claim and its test are one compare-and-swap. */
Test(submit, the_bound_holds_against_submitters_that_race_for_it)
{
    static struct gate gate = GATE_SHUT;
    static struct submitter all[64];
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = 11, .nonblocking = true});
    pthread_barrier_t start;
    unsigned accepted = 0;

    pthread_barrier_init(&start, NULL, 64);
    for (int i = 0; i < 64; i++) {
        all[i] = (struct submitter){.pool = pool, .start = &start};
        all[i].task = (struct rp_task){.fn = gate_hold, .arg = &gate, .priority = i % 3};
        submitter_start(&all[i]);
    }
    for (int i = 0; i < 64; i++) {
        int rc = submitter_join(&all[i]);
        cr_assert(rc == 0 || rc == -EAGAIN);
        accepted += rc == 0;
    }
    cr_assert_eq(accepted, 13);
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(gate.passed, 13);
}

/*
 * Adversary: a pool made for one worker and grown afterwards, so that its queue was laid out for fewer tasks than may
 * be in flight now. Room is what the capacity says: while fewer workers live than may, no submit may fail.
 */
Test(submit, a_grown_pool_has_room_for_as_many_tasks_as_it_may_have_workers)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, NULL);
    unsigned refused = 0;

    cr_assert_eq(rp_pool_tune(pool, 300), 0);
    for (int i = 0; i < 300; i++)
        refused += rp_pool_try_submit(pool, gate_hold, &gate) != 0;
    cr_expect_eq(refused, 0);
    ASSERT_EVENTUALLY(gate.inside == 300 - refused);
    gate_open(&gate);
    finish(pool);
}

struct box {
    int written; /* not atomic: a race detector sees where the order is missing */
    _Atomic unsigned read;
};

static void box_read(void *arg)
{
    struct box *box = arg;

    box->read = (unsigned)box->written;
}

Test(submit, what_the_submitter_wrote_before_is_seen_by_the_task)
{
    static struct box boxes[2000];
    struct rp_pool *pool = pool_of(3, &(struct rp_pool_options){.queue_depth = 7});

    for (int i = 0; i < 2000; i++) {
        boxes[i].written = i + 1;
        cr_assert_eq(rp_pool_submit(pool, box_read, &boxes[i]), 0);
    }
    finish(pool);
    for (unsigned i = 0; i < 2000; i++)
        cr_assert_eq(boxes[i].read, i + 1);
}

/* --- deadlines -------------------------------------------------------------------------------------------------- */

Test(submit, a_past_deadline_times_out_and_a_negative_one_is_refused_even_with_room)
{
    struct rp_pool *pool = pool_of(2, NULL);
    struct fate fate = {0};
    struct rp_task task = fated(&fate);

    cr_assert_eq(rp_pool_submit_until(pool, fate_run, &fate, 1), -ETIMEDOUT);
    cr_assert_eq(rp_pool_submit_until(pool, fate_run, &fate, rp_now()), -ETIMEDOUT);
    cr_assert_eq(rp_pool_submit_until(pool, fate_run, &fate, -1), -EINVAL);
    cr_assert_eq(rp_pool_submit_until(pool, fate_run, &fate, INT64_MIN), -EINVAL);
    task.deadline = 1;
    cr_assert_eq(rp_pool_submit_task(pool, &task), -ETIMEDOUT);
    task.deadline = -1;
    cr_assert_eq(rp_pool_submit_task(pool, &task), -EINVAL);
    finish(pool);
    cr_assert_eq(fate.ran + fate.dropped, 0);
}

Test(submit, a_deadline_of_zero_means_none_and_one_far_off_does_not_overflow)
{
    struct rp_pool *pool = pool_of(1, NULL);
    _Atomic unsigned ran = 0;

    cr_assert_eq(rp_pool_submit_until(pool, count_up, &ran, 0), 0);
    cr_assert_eq(rp_pool_submit_until(pool, count_up, &ran, INT64_MAX), 0);
    cr_assert_eq(rp_pool_submit_until(pool, count_up, &ran, rp_after(INT64_MAX)), 0);
    finish(pool);
    cr_assert_eq(ran, 3);
}

Test(submit, submit_until_bounds_the_wait_of_the_submitter_and_not_the_start_of_the_task)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 1});
    _Atomic unsigned ran = 0;

    occupy(pool, &gate, 1);
    int64_t deadline = rp_after(300 * MS);
    int rc = rp_pool_submit_until(pool, count_up, &ran, deadline);
    cr_assert(rc == 0 || rp_now() >= deadline); /* only a machine that slept through it may time out */
    int64_t before = rp_after(20 * MS);
    cr_assert_eq(rp_pool_submit_until(pool, count_up, &ran, rc ? deadline : before), -ETIMEDOUT);
    pass_time_until(deadline);
    gate_open(&gate);
    finish(pool);
    cr_assert_eq(ran, rc == 0);
}

Test(submit, a_task_whose_deadline_passes_in_the_queue_is_dropped_once_and_never_runs)
{
    static struct gate gate = GATE_SHUT;
    static struct fate fate[30];
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.queue_depth = 60});
    _Atomic unsigned without = 0;

    occupy(pool, &gate, 1);
    int64_t deadline = rp_after(200 * MS);
    unsigned accepted = 0;
    for (int i = 0; i < 30; i++) {
        struct rp_task task = fated(&fate[i]);
        task.deadline = deadline;
        task.priority = i % 3;
        int rc = rp_pool_submit_task(pool, &task);
        cr_assert(rc == 0 || (rc == -ETIMEDOUT && rp_now() >= deadline));
        accepted += rc == 0;
        if (rc)
            continue;
        task = (struct rp_task){.fn = count_up, .arg = (void *)&without, .deadline = deadline}; /* nobody to tell */
        accepted += rp_pool_submit_task(pool, &task) == 0;
    }
    pass_time_until(deadline);
    gate_open(&gate);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    cr_assert_eq(snapshot_of(pool).dropped, accepted);
    finish(pool);
    cr_assert_eq(without, 0);
    for (int i = 0; i < 30; i++) {
        cr_assert_eq(fate[i].ran, 0);
        cr_assert_leq(fate[i].dropped, 1);
        cr_assert(!fate[i].dropped || fate[i].reason == -ETIMEDOUT);
    }
}

Test(submit, a_task_that_starts_before_its_deadline_runs_to_its_end)
{
    static struct gate gate = GATE_SHUT;
    struct rp_pool *pool = pool_of(1, NULL);
    int64_t deadline = rp_after(100 * MS);
    struct rp_task task = {.fn = gate_hold, .arg = &gate, .deadline = deadline};

    int rc = rp_pool_submit_task(pool, &task);
    bool started = rc == 0 && EVENTUALLY(gate.inside == 1 || rp_now() > deadline) && gate.inside == 1;
    pass_time_until(deadline);
    gate_open(&gate);
    finish(pool);
    cr_assert(!started || gate.passed == 1);
}

/* --- the longest run -------------------------------------------------------------------------------------------- */

struct heard {
    _Atomic unsigned warnings;
    _Atomic bool with_label;
};

static void hear(void *user, int level, const char *message)
{
    struct heard *heard = user;

    if (level != RP_LOG_WARNING)
        return;
    if (strstr(message, "slow task of the test"))
        heard->with_label = true;
    heard->warnings++;
}

static bool some_hung(const struct rp_pool *pool, unsigned hung, const char *label)
{
    struct rp_worker_info info[8];
    int n = rp_pool_workers(pool, info, 8);
    unsigned found = 0;

    for (int i = 0; i < n && i < 8; i++)
        if (info[i].hung && info[i].label && !strcmp(info[i].label, label))
            found++;
    return found == hung;
}

Test(submit, a_worker_whose_task_exceeds_its_timeout_counts_as_hung_until_the_task_returns)
{
    static struct gate gate = GATE_SHUT, other = GATE_SHUT;
    static struct heard heard;
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.log = hear, .log_user = &heard});
    struct rp_task task = {.fn = gate_hold, .arg = &gate, .label = "slow task of the test", .timeout = 5 * MS};

    occupy(pool, &other, 1);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    ASSERT_EVENTUALLY(some_hung(pool, 1, task.label));
    ASSERT_EVENTUALLY(heard.warnings == 1);
    cr_assert(heard.with_label);
    cr_assert_eq(gate.inside, 1); /* nobody interrupted it */
    gate_open(&gate);
    ASSERT_EVENTUALLY(some_hung(pool, 0, task.label) && gate.passed == 1);
    gate_open(&other);
    finish(pool);
    cr_assert_eq(heard.warnings, 1); /* said once, and not of the task without a timeout */
}

Test(submit, a_task_within_its_timeout_is_never_called_hung)
{
    static struct heard heard;
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.log = hear, .log_user = &heard, .queue_depth = 8});
    _Atomic unsigned ran = 0;
    struct rp_task task = {.fn = count_up, .arg = (void *)&ran, .timeout = INT64_C(3600000) * MS};

    for (int i = 0; i < 500; i++)
        cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    task.timeout = INT64_MAX;
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    finish(pool);
    cr_assert_eq(ran, 501);
    cr_assert_eq(heard.warnings, 0);
}

/* --- what is refused -------------------------------------------------------------------------------------------- */

static const struct {
    const char *what;
    int rc;
    struct rp_task task;
    bool without_fn;
} wrong[] = {
    {"no function", -EINVAL, {0}, true},
    {"a priority too high", -EINVAL, {.priority = RP_PRIO_LOW + 1}, false},
    {"a negative priority", -EINVAL, {.priority = -1}, false},
    {"an unknown policy", -EINVAL, {.overload = RP_OVERLOAD_CALLER_RUNS + 1}, false},
    {"a negative policy", -EINVAL, {.overload = -1}, false},
    {"a negative deadline", -EINVAL, {.deadline = -1}, false},
    {"a negative timeout", -EINVAL, {.timeout = -1}, false},
};
enum { WRONG = sizeof(wrong) / sizeof(wrong[0]) };

static struct rp_task wrong_task(int i, struct fate *fate)
{
    struct rp_task task = wrong[i].task;

    task.fn = wrong[i].without_fn ? NULL : fate_run;
    task.dropped = fate_drop;
    task.arg = fate;
    return task;
}

Test(submit, a_bad_argument_leaves_the_task_with_its_caller)
{
    struct rp_pool *pool = pool_of(1, NULL);
    struct fate fate = {0};

    for (int i = 0; i < WRONG; i++) {
        struct rp_task task = wrong_task(i, &fate);
        cr_expect_eq(rp_pool_submit_task(pool, &task), wrong[i].rc, "%s", wrong[i].what);
        cr_expect_eq(rp_pool_submit_batch(pool, &task, 1), wrong[i].rc, "a batch of %s", wrong[i].what);
    }
    cr_assert_eq(rp_pool_submit(pool, NULL, &fate), -EINVAL);
    cr_assert_eq(rp_pool_try_submit(pool, NULL, &fate), -EINVAL);
    cr_assert_eq(rp_pool_submit_until(pool, NULL, &fate, rp_after(PATIENCE_NS)), -EINVAL);
    cr_assert_eq(rp_pool_submit_task(pool, NULL), -EINVAL);
    cr_assert_eq(rp_pool_submit_batch(pool, NULL, 1), -EINVAL);
    cr_assert_eq(snapshot_of(pool).submitted, 0);
    cr_assert_eq(rp_pool_submit(pool, fate_run, &fate), 0); /* and the pool is none the worse */
    finish(pool);
    cr_assert_eq(fate.ran, 1);
    cr_assert_eq(fate.dropped, 0);
}

Test(submit, no_pool_is_a_bad_argument)
{
    struct fate fate = {0};
    struct rp_task task = fated(&fate);

    cr_assert_eq(rp_pool_submit(NULL, fate_run, &fate), -EINVAL);
    cr_assert_eq(rp_pool_try_submit(NULL, fate_run, &fate), -EINVAL);
    cr_assert_eq(rp_pool_submit_until(NULL, fate_run, &fate, 0), -EINVAL);
    cr_assert_eq(rp_pool_submit_task(NULL, &task), -EINVAL);
    cr_assert_eq(rp_pool_submit_batch(NULL, &task, 1), -EINVAL);
    cr_assert_eq(fate.ran + fate.dropped, 0);
}

Test(submit, a_released_pool_refuses_every_form_and_every_policy)
{
    struct rp_pool *pool = pool_of(2, &(struct rp_pool_options){.queue_depth = 4});
    struct fate fate = {0};

    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(rp_pool_submit(pool, fate_run, &fate), -ESHUTDOWN);
    cr_assert_eq(rp_pool_try_submit(pool, fate_run, &fate), -ESHUTDOWN);
    cr_assert_eq(rp_pool_submit_until(pool, fate_run, &fate, rp_after(PATIENCE_NS)), -ESHUTDOWN);
    for (int overload = RP_OVERLOAD_DEFAULT; overload <= RP_OVERLOAD_CALLER_RUNS; overload++) {
        for (int priority = RP_PRIO_NORMAL; priority <= RP_PRIO_LOW; priority++) {
            struct rp_task task = fated(&fate);
            task.overload = overload;
            task.priority = priority;
            cr_assert_eq(rp_pool_submit_task(pool, &task), -ESHUTDOWN);
            cr_assert_eq(rp_pool_submit_batch(pool, &task, 1), -ESHUTDOWN);
        }
    }
    finish(pool);
    cr_assert_eq(fate.ran + fate.dropped, 0);
}

Test(submit, every_code_that_a_pool_returns_has_a_text_of_its_own)
{
    static const int codes[] = {EINVAL,    ENOMEM,  EAGAIN,   ECHILD, ESHUTDOWN, ETIMEDOUT,
                                ECANCELED, EDEADLK, EALREADY, EPERM,  ENOTSUP,   ENOSYS};
    enum { CODES = sizeof(codes) / sizeof(codes[0]) };

    for (int i = 0; i < CODES; i++) {
        const char *text = rp_strerror(-codes[i]);
        cr_assert_neq(strlen(text), 0);
        cr_assert_str_neq(text, rp_strerror(-4000));
        for (int k = 0; k < i; k++)
            cr_assert_str_neq(text, rp_strerror(-codes[k]));
    }
}

/* --- from inside a task ----------------------------------------------------------------------------------------- */

struct chain {
    struct rp_pool *pool;
    unsigned left;
    _Atomic unsigned ran;
    _Atomic int rc;
};

static void chain_run(void *arg)
{
    struct chain *chain = arg;

    chain->ran++;
    if (chain->left == 0)
        return;
    chain->left--; /* the next link may run before submit returns: nothing of the chain is touched afterwards */
    int rc = rp_pool_submit(chain->pool, chain_run, chain);
    if (rc)
        chain->rc = rc;
}

/* Adversary: the only worker submits while nobody else may take a task: without a stand-in it would wait for ever. */
Test(submit, the_only_worker_of_a_pool_without_queue_may_submit_to_it)
{
    struct rp_pool *pool = pool_of(1, NULL);
    static struct chain chain;

    chain = (struct chain){.pool = pool, .left = 1};
    cr_assert_eq(rp_pool_submit(pool, chain_run, &chain), 0);
    ASSERT_EVENTUALLY(chain.ran == 2);
    cr_assert_eq(chain.rc, 0);
    finish(pool);
}

Test(submit, a_chain_of_tasks_each_submitted_by_the_one_before_reaches_its_end)
{
    for (unsigned capacity = 1; capacity <= 2; capacity++) {
        struct rp_pool *pool = pool_of(capacity, NULL);
        static struct chain chain;

        chain = (struct chain){.pool = pool, .left = 2000};
        cr_assert_eq(rp_pool_submit(pool, chain_run, &chain), 0);
        ASSERT_EVENTUALLY(chain.ran == 2001);
        cr_assert_eq(chain.rc, 0);
        ASSERT_EVENTUALLY(nothing_in_flight(pool) && rp_pool_running(pool) <= capacity); /* nobody stands in any more */
        finish(pool);
    }
}

/* Among short tasks one worker takes what comes, and another only stands by: until one of them is not short. */
Test(submit, a_task_that_blocks_among_short_ones_holds_up_nobody)
{
    struct rp_pool *pool = pool_of(8, &(struct rp_pool_options){.queue_depth = 1024, .no_purge = true});
    struct rp_task shorts[64];

    for (int i = 0; i < 64; i++)
        shorts[i] = (struct rp_task){.fn = do_nothing};
    for (int round = 0; round < 200; round++) {
        struct gate gate = GATE_SHUT;
        _Atomic unsigned ran = 0;
        for (int i = 0; i < 4000; i += 64) {
            if (round % 2)
                cr_assert_eq(rp_pool_submit_batch(pool, shorts, 64), 64);
            else
                for (int k = 0; k < 64; k++)
                    cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
        }
        cr_assert_eq(rp_pool_submit(pool, gate_hold, &gate), 0);
        for (int i = 0; i < 100; i++)
            cr_assert_eq(rp_pool_submit(pool, count_up, (void *)&ran), 0);
        ASSERT_EVENTUALLY(ran == 100);
        cr_assert_eq(gate.passed, 0);
        gate_open(&gate);
        ASSERT_EVENTUALLY(nothing_in_flight(pool));
    }
    finish(pool);
}

struct tree {
    struct rp_pool *pool;
    _Atomic unsigned ran, errors;
};
static struct tree tree;

/* Each node submits two more until the depth is used up. */
static void tree_run(void *arg)
{
    uintptr_t depth = (uintptr_t)arg;

    for (int i = 0; i < 2 && depth; i++)
        if (rp_pool_submit(tree.pool, tree_run, (void *)(depth - 1)))
            tree.errors++;
    tree.ran++;
}

/* Adversary: all workers block in submit at once, again and again; enough may stand in that nobody is refused. */
Test(submit, a_tree_of_tasks_that_submit_each_other_is_complete_on_small_pools)
{
    for (unsigned capacity = 1; capacity <= 3; capacity++) {
        struct rp_pool *pool = pool_of(capacity, &(struct rp_pool_options){.max_extra = 2000});

        tree.pool = pool;
        tree.ran = tree.errors = 0;
        cr_assert_eq(rp_pool_submit(pool, tree_run, (void *)9), 0);
        ASSERT_EVENTUALLY(tree.ran == 1023 || tree.errors);
        cr_assert_eq(tree.errors, 0);
        ASSERT_EVENTUALLY(nothing_in_flight(pool) && rp_pool_running(pool) <= capacity);
        finish(pool);
    }
}

struct inner {
    struct rp_pool *pool;
    struct gate gate;
    _Atomic int rc;
    _Atomic bool returned;
};

static void submit_inside(void *arg)
{
    struct inner *inner = arg;

    gate_hold(&inner->gate);
    inner->rc = rp_pool_submit(inner->pool, do_nothing, NULL);
    inner->returned = true;
}

/*
 * Adversary: one worker, one that may stand in, and a foreign submitter that stands first. The worker's submit has the
 * stand-in granted, whose room is the foreign one's; its task submits as well. Now all that may live block in submit:
 * the last one hears of it, ends, and makes room for the other. Which one that is is the scheduler's choice, as the
 * first may be on its way to its sleep still.
 */
Test(submit, the_last_worker_to_block_hears_of_the_deadlock_when_no_more_may_stand_in)
{
    static struct inner first = {.gate = GATE_SHUT}, second = {.gate = GATE_SHUT};
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.max_extra = 1});
    struct submitter foreign = {.pool = pool, .task = {.fn = submit_inside, .arg = &second}};

    first.pool = second.pool = pool;
    cr_assert_eq(rp_pool_submit(pool, submit_inside, &first), 0);
    ASSERT_EVENTUALLY(first.gate.inside == 1);
    submitter_block(&foreign, 0);
    gate_open(&first.gate);
    ASSERT_EVENTUALLY(second.gate.inside == 1);
    cr_assert_eq(submitter_join(&foreign), 0);
    cr_assert_not(first.returned);
    gate_open(&second.gate);
    ASSERT_EVENTUALLY(first.returned && second.returned);
    cr_assert(first.rc == -EDEADLK || second.rc == -EDEADLK);
    cr_assert(first.rc == 0 || second.rc == 0);
    ASSERT_EVENTUALLY(nothing_in_flight(pool));
    finish(pool);
}

Test(submit, a_nonblocking_submit_inside_a_task_fails_rather_than_have_another_stand_in)
{
    static struct inner inner = {.gate = GATE_SHUT};
    struct rp_pool *pool = pool_of(1, &(struct rp_pool_options){.nonblocking = true});

    inner.pool = pool;
    cr_assert_eq(rp_pool_submit(pool, submit_inside, &inner), 0);
    gate_open(&inner.gate);
    ASSERT_EVENTUALLY(inner.returned);
    cr_assert_eq(inner.rc, -EAGAIN);
    finish(pool);
}
