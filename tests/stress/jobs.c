/*
 * The load `jobs`: futures, continuations, groups, retries, contexts, completion queues, timers and strands on a pool
 * or a multi pool that is tuned, released and opened again, and a ledger of every task.
 *
 * A round: one pool, or a multi pool of two or three, with random options (capacity, queue, expiry, overload and
 * release policy, an allocator that counts and may fail), one strand and one completion queue with a consumer that
 * waits or polls. One to five producers submit in all forms, with contexts that they cancel or that run out, and then
 * wait for one, any or all, cancel, run it themselves, tie a continuation, or give the handle up. Tasks panic, sleep,
 * fail, and wait for tasks of their own. A chaos thread tunes, releases and opens.
 *
 * What must hold: an accepted task runs once (a retry at most as often as it may) or is dropped once; a future's result
 * is its function's if that returned, and else says why; a continuation is called if, and only if, its source's
 * function returned; nobody of a group runs when its wait has returned; each accepted task with a queue posts one
 * completion, which tells what became of it; tasks of one key and producer run in order, and those of one key never at
 * once; a timer's function runs no more often than it was armed, and not once destroy has returned; every return code
 * is one that the header allows; memory is as before.
 */
#include "stress.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <ringpool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCERS 5
#define RECORDS 6000
#define MEMBERS 6
#define KEYS 6
#define NESTING 2

enum { NONE, ACCEPTED, REJECTED };
enum { RETURNED = 1, PANICKED = 2 };

/* One task. `verdict` is its submitter's, the rest that of whoever runs or drops it. */
struct record {
    _Atomic int verdict;
    _Atomic int ran, dropped, reason, end, completions, result;
    unsigned attempts; /* most runs: 1, but for retries */
    unsigned failures; /* of a retry: so many runs fail */
    uint32_t choice;
    unsigned depth;
    unsigned producer, key; /* of a strand's task */
    unsigned number;        /* ... in the order of its producer's tasks of that key */
    bool has_queue, inside_group;
    _Atomic int running;
};

static struct trial {
    struct rp_pool *pool;
    struct rp_multi *multi; /* one of the two */
    struct rp_strand *strand;
    struct rp_cq *cq;
    bool calm;     /* never released before the end */
    bool may_fail; /* the allocator does, now and then */
    _Atomic bool over, stop;
    _Atomic unsigned used;
    _Atomic unsigned queued, taken; /* completions owed, and had */
    _Atomic int key_busy[KEYS];
    unsigned key_given[PRODUCERS][KEYS], key_seen[PRODUCERS][KEYS];
    struct record records[RECORDS];
} trial;

static _Atomic uint64_t n_futures, n_groups, n_retries, n_timers, n_fires, n_strand, n_completions, n_canceled,
    n_panics, n_dropped, n_rejected;

static void dump(void)
{
    struct rp_pool_snapshot s;
    int rc = trial.multi ? rp_multi_snapshot(trial.multi, &s) : trial.pool ? rp_pool_snapshot(trial.pool, &s) : -EINVAL;

    if (!rc)
        fprintf(stderr,
                "capacity %u, running %u, busy %u, waiting %u, blocked %u, closed %d, submitted %" PRIu64
                ", completed %" PRIu64 ", dropped %" PRIu64 ", panicked %" PRIu64 "\n",
                s.capacity, s.running, s.busy, s.waiting, s.blocked, s.closed, s.submitted, s.completed, s.dropped,
                s.panicked);
    fprintf(stderr, "completions %u of %u, pieces of memory %" PRId64 "; calm %d, may_fail %d, over %d\n", trial.taken,
            trial.queued, (int64_t)counting.pieces, trial.calm, trial.may_fail, trial.over);
    for (unsigned i = 0; i < RECORDS && i < trial.used; i++) {
        const struct record *r = &trial.records[i];
        if (r->verdict == ACCEPTED && (r->ran + r->dropped == 0 || (r->has_queue && !r->completions)))
            fprintf(stderr, "record %u: runs %d, drops %d (%d), completions %d, strand %d, choice %u, depth %u\n", i,
                    r->ran, r->dropped, r->reason, r->completions, r->number != 0, r->choice % 32, r->depth);
    }
}

/* --- return codes ------------------------------------------------------------------------------------------------- */

/* What may have closed is asked after the call. */
#define EXPECT(call, ...)                                                                                              \
    ({                                                                                                                 \
        int returned = (call);                                                                                         \
        expect(#call, returned, trial.may_fail, !trial.calm || trial.stop, (const int[]){__VA_ARGS__, 0});             \
    })

/* What a submit may say: a policy or a context refuses, or a worker that would wait for itself. */
#define SUBMITTED(call) EXPECT(call, -EAGAIN, -ECANCELED, -ETIMEDOUT, -EDEADLK)

static void verdict(struct record *r, int rc)
{
    r->verdict = rc ? REJECTED : ACCEPTED;
    n_rejected += rc != 0;
}

/* --- tasks -------------------------------------------------------------------------------------------------------- */

static struct record *record_take(unsigned depth)
{
    unsigned i = trial.used++;

    if (i >= RECORDS)
        return NULL;
    struct record *r = &trial.records[i];
    r->choice = rnd(1 << 20);
    r->depth = depth;
    r->attempts = 1;
    return r;
}

static unsigned index_of(const struct record *r)
{
    return (unsigned)(r - trial.records);
}

static void task_drop(void *arg, int reason)
{
    struct record *r = arg;

    progress++;
    r->reason = reason;
    n_dropped++;
    if (r->ran || r->dropped++)
        fail("record %u: a second fate: dropped for %d after %d runs", index_of(r), reason, r->ran);
    if (reason != -ESHUTDOWN && reason != -EAGAIN && reason != -ETIMEDOUT && reason != -ECANCELED)
        fail("record %u was dropped for %d", index_of(r), reason);
}

static void wait_inside(unsigned depth);

/* What all tasks do. Returns the function's result. */
static int task_body(struct record *r)
{
    int before = r->ran++;

    progress++;
    if (before >= (int)r->attempts || r->dropped)
        fail("record %u: a second fate: ran %d times, dropped %d times", index_of(r), before + 1, r->dropped);
    r->end = 0;
    r->running++;
    switch (r->choice % 32) {
    case 0:
        n_panics++;
        r->end = PANICKED;
        r->running--;
        rp_panic("record %u", index_of(r));
        break;
    case 1:
    case 2:
        nap(50000 + r->choice % 400 * 1000);
        break;
    case 3:
        if (rp_ctx_current())
            rp_ctx_sleep(rp_ctx_current(), rp_after(r->choice % 500 * 1000));
        break;
    case 4:
    case 5:
    case 6:
        if (r->depth < NESTING)
            wait_inside(r->depth + 1);
        break;
    default:
        for (volatile unsigned i = 0; i < r->choice % 300; i++)
            ;
    }
    r->end = RETURNED;
    r->running--;
    if ((unsigned)before < r->failures)
        return -EIO;
    return (int)index_of(r);
}

static void plain_run(void *arg)
{
    task_body(arg);
}

static int future_run(void *arg, void **value)
{
    *value = arg;
    return task_body(arg);
}

/* Members of a group fail now and then. */
static int member_run(void *arg)
{
    struct record *r = arg;
    int rc = task_body(r);

    return r->choice % 9 == 8 ? -EIO : rc;
}

static struct rp_task task_for(struct record *r, struct rp_ctx *ctx)
{
    struct rp_task task = {.dropped = task_drop, .arg = r, .priority = (int)rnd(3), .ctx = ctx};

    if (one_in(4))
        task.overload = (int)rnd(RP_OVERLOAD_CALLER_RUNS + 1);
    if (one_in(8))
        task.deadline = rp_after(rnd(400) * 10000);
    return task;
}

/* --- futures ------------------------------------------------------------------------------------------------------ */

static struct rp_future *future_make(struct record *r, struct rp_ctx *ctx)
{
    struct rp_task task = task_for(r, ctx);
    struct rp_future *future = NULL;
    int rc;

    if (one_in(10))
        task.timeout = 1 + rnd(300000);
    if (trial.multi)
        rc = SUBMITTED(rp_multi_submit_future_task(trial.multi, future_run, &task, &future));
    else
        rc = SUBMITTED(rp_pool_submit_future_task(trial.pool, future_run, &task, &future));
    if (!rc != !!future)
        fail("a submit returned %d and left the future %p", rc, (void *)future);
    verdict(r, rc);
    n_futures += rc == 0;
    return future;
}

static struct rp_future *retry_make(struct record *r, struct rp_ctx *ctx)
{
    struct rp_task task = task_for(r, ctx);
    struct rp_retry retry = {
        .attempts = 1 + rnd(4), .delay = 20000 + rnd(200000), .max_delay = 300000, .backoff = (int)rnd(3)};
    struct rp_future *future = NULL;
    int rc;

    r->attempts = retry.attempts;
    r->failures = rnd(5);
    if (trial.multi)
        rc = SUBMITTED(rp_multi_submit_retry(trial.multi, future_run, &task, &retry, &future));
    else
        rc = SUBMITTED(rp_pool_submit_retry(trial.pool, future_run, &task, &retry, &future));
    verdict(r, rc);
    n_retries += rc == 0;
    return future;
}

/* A result that all who look see, and that fits what became of the task. */
static void result_check(const struct record *r, int rc, const void *value)
{
    bool told = rc == -ECANCELED || rc == -ETIMEDOUT || rc == -ESHUTDOWN || rc == -EAGAIN || rc == -EFAULT ||
                (rc == -ENOMEM && trial.may_fail); /* of a continuation, which is submitted as its source ends */

    if (rc >= 0 && (rc != (int)index_of(r) || value != r || r->end != RETURNED))
        fail("record %u ended with %d and value %p, end %d", index_of(r), rc, value, r->end);
    if (rc == -EIO && !r->failures)
        fail("record %u failed, which it never does", index_of(r));
    if (rc == -EFAULT && r->end != PANICKED)
        fail("record %u ended as after a panic", index_of(r));
    if (rc < 0 && rc != -EIO && (!told || (value && rc != -EDEADLK)))
        fail("record %u ended with %d (%s) and value %p", index_of(r), rc, rp_strerror(rc), value);
    if (rc == -EAGAIN && r->ran && r->attempts == 1) /* a later attempt may be discarded */
        fail("record %u ran and ended as discarded", index_of(r));
}

static void future_wait(struct rp_future *future, const struct record *r, bool inside)
{
    void *value = NULL, *again = NULL;
    int rc = one_in(2) ? rp_future_get(future, &value) : rp_future_get_until(future, &value, rp_after(rnd(300000)));

    progress++;
    if (!rp_future_done(future)) {
        if (rc != -ETIMEDOUT && !(rc == -EDEADLK && inside))
            fail("a wait for record %u returned %d (%s) before its end", index_of(r), rc, rp_strerror(rc));
        return;
    }
    if (rc == -EDEADLK && inside)
        return;
    if (rc == -ETIMEDOUT) /* of the wait, or the end */
        rc = rp_future_try_get(future, &value);
    if (rp_future_get(future, &again) != rc || again != value)
        fail("record %u has two ends", index_of(r));
    result_check(r, rc, value);
}

struct next {
    const struct record *source;
    _Atomic int called, result;
};

static int next_run(void *arg, int result, void *value, void **next_value)
{
    struct next *next = arg;

    progress++;
    *next_value = value;
    next->result = result;
    if (next->called++)
        fail("a continuation of record %u is called twice", index_of(next->source));
    return result;
}

static void future_continue(struct rp_future *future, const struct record *r)
{
    struct next next = {.source = r};
    struct rp_future *then;

    if (SUBMITTED(rp_future_then(future, NULL, next_run, &next, &then)))
        return;
    void *value = NULL;
    int rc = rp_future_get(then, &value);
    if (next.called && rc != next.result && rc != -EFAULT)
        fail("a continuation of record %u returned %d, its future says %d", index_of(r), next.result, rc);
    if (next.called && !r->ran)
        fail("record %u never ran and is continued", index_of(r));
    if (!next.called && rc >= 0)
        fail("a continuation of record %u was not called and has the end %d", index_of(r), rc);
    rp_future_destroy(then);
}

static void future_end(struct rp_future *future, struct record *r, bool inside)
{
    int rc;

    switch (rnd(inside ? 5 : 7)) {
    case 0:
        rc = EXPECT(rp_future_cancel(future), -EALREADY);
        n_canceled += rc == 0;
        future_wait(future, r, inside);
        break;
    case 1:
        break; /* given up */
    case 2:
        EXPECT(rp_future_run(future), -EALREADY);
        future_wait(future, r, inside);
        break;
    case 5:
        future_continue(future, r);
        break;
    default:
        future_wait(future, r, inside);
    }
    rp_future_destroy(future);
}

/* A task that waits for one of its own pool, or of the multi pool's: it helps, or others go on. */
static void wait_inside(unsigned depth)
{
    struct record *r = record_take(depth);
    struct rp_future *future = r ? future_make(r, NULL) : NULL;

    if (future)
        future_end(future, r, true);
}

static void future_several(struct rp_ctx *ctx)
{
    struct rp_future *futures[MEMBERS];
    struct record *records[MEMBERS];
    unsigned n = 0;

    for (unsigned i = 1 + rnd(MEMBERS); i; i--) {
        records[n] = record_take(0);
        futures[n] = records[n] ? future_make(records[n], ctx) : NULL;
        n += futures[n] != NULL;
    }
    if (n && one_in(2)) {
        int which = EXPECT(rp_future_wait_any(futures, n, one_in(2) ? 0 : rp_after(rnd(200000))), -ETIMEDOUT);
        if (which >= (int)n || (which >= 0 && !rp_future_done(futures[which])))
            fail("wait_any of %u returned %d", n, which);
    }
    if (one_in(2)) {
        int rc = EXPECT(rp_future_wait_all(futures, n, one_in(2) ? 0 : rp_after(rnd(500000))), -ETIMEDOUT);
        for (unsigned i = 0; i < n && !rc; i++)
            if (!rp_future_done(futures[i]))
                fail("wait_all of %u returned 0, and %u is not done", n, i);
    }
    for (unsigned i = 0; i < n; i++)
        future_end(futures[i], records[i], false);
}

/* --- groups ------------------------------------------------------------------------------------------------------- */

static void group_use(struct rp_ctx *ctx)
{
    const struct rp_group_options options = {
        .ctx = ctx, .keep_going = one_in(2), .deadline = one_in(6) ? rp_after(rnd(500000)) : 0};
    struct record *records[MEMBERS];
    struct rp_group *group;
    unsigned n = 0;

    if (trial.multi ? EXPECT(rp_multi_group_create(&group, trial.multi, &options), -EAGAIN)
                    : EXPECT(rp_group_create(&group, trial.pool, &options), -EAGAIN))
        return;
    n_groups++;
    for (unsigned i = 1 + rnd(MEMBERS); i && (records[n] = record_take(0)); i--, n++) {
        struct rp_task task = task_for(records[n], NULL);

        records[n]->inside_group = true;
        verdict(records[n], SUBMITTED(rp_group_submit_task(group, member_run, &task)));
    }
    if (one_in(5))
        EXPECT(rp_group_cancel(group, -EINTR), 0);
    if (!one_in(6)) {
        EXPECT(rp_group_wait(group, 0), -EIO, -EFAULT, -ECANCELED, -ETIMEDOUT, -ESHUTDOWN, -EAGAIN, -EINTR);
        for (unsigned i = 0; i < n; i++)
            if (records[i]->running)
                fail("record %u runs, and its group has ended", index_of(records[i]));
    }
    rp_group_destroy(group);
}

/* --- completions -------------------------------------------------------------------------------------------------- */

static void queue_use(struct rp_ctx *ctx)
{
    struct record *r = record_take(0);

    if (!r)
        return;
    struct rp_task task = task_for(r, ctx);
    task.fn = plain_run;
    task.cq = trial.cq;
    task.user_data = index_of(r);
    r->has_queue = true;
    int rc = trial.multi ? SUBMITTED(rp_multi_submit_task(trial.multi, &task))
                         : SUBMITTED(rp_pool_submit_task(trial.pool, &task));
    verdict(r, rc);
    trial.queued += rc == 0;
}

static void completion_check(const struct rp_completion *c)
{
    struct record *r = &trial.records[c->user_data];

    progress++;
    n_completions++;
    if (c->user_data >= RECORDS || !r->has_queue)
        fail("a completion of nobody's: user_data %" PRIu64, c->user_data);
    if (r->completions++)
        fail("record %u posts a second completion", index_of(r));
    r->result = c->result;
}

/* Waits, or sleeps on the descriptor as an event loop would. Ends when all that is owed has come and no more will. */
static void *consumer(void *unused)
{
    struct rp_completion out[16];
    bool polls;

    (void)unused;
    sow(500);
    polls = one_in(2);
    while (!trial.over || trial.taken < trial.queued) {
        unsigned max = 1 + rnd(16);
        int fd = polls ? rp_cq_fd(trial.cq) : -1;

        if (fd >= 0)
            poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 1);
        int n = rp_cq_wait(trial.cq, out, max, fd >= 0 ? 0 : 1 + rnd(max), fd >= 0 ? 0 : rp_after(2000000));
        if (n < 0 && n != -ETIMEDOUT)
            fail("cq_wait returned %d (%s)", n, rp_strerror(n));
        for (int i = 0; i < n; i++)
            completion_check(&out[i]);
        trial.taken += n > 0 ? (unsigned)n : 0;
    }
    return NULL;
}

/* --- timers ------------------------------------------------------------------------------------------------------- */

struct clockwork {
    _Atomic unsigned fires, drops;
    _Atomic bool gone;
};

static void timer_fire(struct rp_timer *timer, void *arg)
{
    struct clockwork *clockwork = arg;

    (void)timer;
    progress++;
    n_fires++;
    clockwork->fires++;
    if (clockwork->gone)
        fail("a timer fires that was destroyed");
}

static void timer_drop(struct rp_timer *timer, void *arg, int reason)
{
    struct clockwork *clockwork = arg;

    (void)timer;
    (void)reason;
    clockwork->drops++;
}

static void timer_use(void)
{
    struct clockwork clockwork = {0};
    struct rp_timer *timer;
    struct rp_timer_options options = {.backend = backend, .allocator = &counting_allocator};
    unsigned armed = 0;

    if (trial.pool && one_in(2)) {
        options.pool = trial.pool;
        options.dropped = timer_drop;
    }
    if (EXPECT(rp_timer_create(&timer, timer_fire, &clockwork, &options), -EAGAIN))
        return;
    n_timers++;
    bool periodic = one_in(4);
    for (unsigned i = 1 + rnd(4); i; i--) {
        armed++;
        EXPECT(periodic ? rp_timer_arm_periodic(timer, rp_after(rnd(100000)), 1 + rnd(200000))
                        : rp_timer_arm(timer, rp_after(rnd(300000))),
               0);
        if (one_in(2))
            nap(rnd(200000));
        if (one_in(3))
            EXPECT(one_in(2) ? rp_timer_cancel(timer) : rp_timer_cancel_wait(timer), 0);
    }
    EXPECT(rp_timer_destroy(timer), 0);
    clockwork.gone = true;
    if (!periodic && clockwork.fires + clockwork.drops > armed)
        fail("a timer was armed %u times and fired %u times", armed, clockwork.fires);
}

/* --- strands ------------------------------------------------------------------------------------------------------ */

static void strand_run(void *arg)
{
    struct record *r = arg;
    _Atomic int *busy = &trial.key_busy[r->key];
    unsigned *seen = &trial.key_seen[r->producer][r->key];

    if ((*busy)++)
        fail("two tasks of key %u at once", r->key);
    if (r->number < *seen)
        fail("task %u of producer %u and key %u runs after task %u", r->number, r->producer, r->key, *seen);
    *seen = r->number;
    (*busy)--; /* before what follows, as a task may panic */
    task_body(r);
}

static void strand_use(unsigned producer)
{
    struct record *r = record_take(NESTING); /* it does not wait for others */

    if (!r)
        return;
    r->key = rnd(KEYS);
    r->producer = producer;
    r->number = ++trial.key_given[producer][r->key];
    struct rp_task task = {.fn = strand_run, .arg = r, .dropped = task_drop};
    if (one_in(6))
        task.deadline = rp_after(rnd(300) * 10000);
    if (one_in(4)) {
        task.cq = trial.cq;
        task.user_data = index_of(r);
        r->has_queue = true;
    }
    int rc = SUBMITTED(rp_strand_submit_task(trial.strand, r->key, &task));
    verdict(r, rc);
    n_strand += rc == 0;
    trial.queued += rc == 0 && r->has_queue;
}

/* --- the threads of a round --------------------------------------------------------------------------------------- */

static void produce(unsigned producer, struct rp_ctx *ctx)
{
    struct record *r;
    struct rp_future *future;

    switch (rnd(10)) {
    case 0:
    case 1:
    case 2:
        if ((r = record_take(0)) && (future = future_make(r, ctx)))
            future_end(future, r, false);
        break;
    case 3:
        if ((r = record_take(0)) && (future = retry_make(r, ctx)))
            future_end(future, r, false);
        break;
    case 4:
        future_several(ctx);
        break;
    case 5:
        group_use(ctx);
        break;
    case 6:
        timer_use();
        break;
    case 7:
        for (unsigned i = rnd(8); i; i--)
            strand_use(producer);
        break;
    default:
        queue_use(ctx);
    }
}

static struct rp_ctx *ctx_make(struct rp_ctx *parent)
{
    const struct rp_ctx_options options = {.deadline = one_in(4) ? rp_after(rnd(3000000)) : 0,
                                           .allocator = &counting_allocator};
    struct rp_ctx *ctx = NULL;

    EXPECT(rp_ctx_create_with(&ctx, parent, &options), -EAGAIN);
    return ctx;
}

static void *producer(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    struct rp_ctx *root, *ctx;

    sow(1 + me);
    root = ctx_make(NULL);
    ctx = ctx_make(root);
    for (unsigned turns = 50 + rnd(250); turns && !trial.stop; turns--) {
        produce(me, one_in(2) ? ctx : NULL);
        if (one_in(12) && ctx) {
            rp_ctx_cancel(one_in(4) ? root : ctx, one_in(2) ? 0 : -EPERM);
            rp_ctx_destroy(ctx);
            if (rp_ctx_done(root)) {
                rp_ctx_destroy(root);
                root = ctx_make(NULL);
            }
            ctx = ctx_make(root);
        }
    }
    rp_ctx_destroy(ctx);
    rp_ctx_destroy(root);
    return NULL;
}

static void reopen(void)
{
    if (!trial.over)
        EXPECT(trial.multi ? rp_multi_reboot(trial.multi) : rp_pool_reboot(trial.pool), 0);
}

static void *chaos(void *unused)
{
    (void)unused;
    sow(600);
    while (!trial.stop) {
        switch (rnd(5)) {
        case 0:
            EXPECT(trial.multi ? rp_multi_tune(trial.multi, 3 + rnd(10)) : rp_pool_tune(trial.pool, 1 + rnd(8)), 0);
            break;
        case 1:
            if (!trial.calm && one_in(3)) {
                EXPECT(trial.multi ? rp_multi_release_until(trial.multi, rp_after(rnd(1000000)), NULL)
                                   : rp_pool_release_until(trial.pool, rp_after(rnd(1000000)), NULL),
                       -ETIMEDOUT);
                nap(rnd(300000));
                reopen();
            }
            break;
        case 2:
            counting.fails = trial.may_fail && one_in(2);
            break;
        default:
            nap(rnd(2000000));
        }
        nap(rnd(500000));
    }
    return NULL;
}

/* --- a round ------------------------------------------------------------------------------------------------------ */

static void trial_begin(void)
{
    const struct rp_pool_options pool = {
        .queue_depth = one_in(2) ? 0 : rnd(50),
        .expiry_ns = 1000000 + rnd(3000000),
        .min_workers = one_in(3),
        .metrics = one_in(3),
        .overload = one_in(4) ? (int)rnd(RP_OVERLOAD_CALLER_RUNS + 1) : 0,
        .release_policy = one_in(3) ? RP_RELEASE_DROP : RP_RELEASE_RUN,
        .max_extra = one_in(3) ? 1 + rnd(3) : 0,
        .backend = backend,
        .own_reactor = one_in(4),
        .stack_size = STACK,
        .allocator = &counting_allocator,
        .on_panic = quiet_panic,
        .log = quiet_log,
    };
    const struct rp_strand_options strand = {.burst = rnd(4),
                                             .max_queued = one_in(3) ? 1 + rnd(20) : 0,
                                             .backend = backend,
                                             .allocator = &counting_allocator};
    const struct rp_cq_options queue = {.entries = 1U << rnd(7), .backend = backend, .allocator = &counting_allocator};
    int rc;

    memset(&trial, 0, sizeof(trial));
    trial.calm = one_in(2);
    trial.may_fail = one_in(4);
    if (one_in(3)) {
        const struct rp_multi_options options = {.pool = &pool};
        rc = rp_multi_create(&trial.multi, 2 + rnd(2), 1 + rnd(4), (enum rp_strategy)rnd(RP_CUSTOM), &options);
    } else {
        rc = rp_pool_create(&trial.pool, 1 + rnd(8), &pool);
    }
    if (rc)
        fail("create returned %d (%s)", rc, rp_strerror(rc));
    rc = trial.multi ? rp_multi_strand_create(&trial.strand, trial.multi, &strand)
                     : rp_strand_create(&trial.strand, trial.pool, &strand);
    if (rc || (rc = rp_cq_create(&trial.cq, &queue)))
        fail("create of a strand or a queue returned %d (%s)", rc, rp_strerror(rc));
}

static void ledger_check(void)
{
    unsigned used = trial.used < RECORDS ? trial.used : RECORDS;

    for (unsigned i = 0; i < used; i++) {
        const struct record *r = &trial.records[i];
        bool ran = r->ran > 0;

        if (r->verdict == REJECTED && (ran || r->dropped || r->completions))
            fail("record %u was rejected: %d runs, %d drops, %d completions", i, r->ran, r->dropped, r->completions);
        if (r->verdict != ACCEPTED)
            continue;
        if (ran + r->dropped != 1)
            fail("record %u was accepted: %d runs, %d drops", i, r->ran, r->dropped);
        if (!r->has_queue)
            continue;
        if (r->completions != 1)
            fail("record %u posted %d completions", i, r->completions);
        if (r->result != (r->dropped ? r->reason : r->end == PANICKED ? -EFAULT : 0))
            fail("record %u posted %d: %d runs, end %d, reason %d", i, r->result, r->ran, r->end, r->reason);
    }
}

static void round_run(void)
{
    pthread_t producers[PRODUCERS], chaos_thread, consumer_thread;
    unsigned n = 1 + rnd(PRODUCERS);

    trial_begin();
    bool failed =
        pthread_create(&chaos_thread, NULL, chaos, NULL) || pthread_create(&consumer_thread, NULL, consumer, NULL);
    for (unsigned i = 0; i < n; i++)
        failed |= pthread_create(&producers[i], NULL, producer, (void *)(uintptr_t)i) != 0;
    if (failed)
        fail("the test itself has no thread");
    for (unsigned i = 0; i < n; i++)
        pthread_join(producers[i], NULL);
    trial.stop = true;
    pthread_join(chaos_thread, NULL);
    counting.fails = false;
    bool through_release = one_in(2);
    if (through_release)
        EXPECT(rp_strand_release_until(trial.strand, 0), 0);
    int rc = rp_strand_destroy(trial.strand);
    if (!rc)
        rc = trial.multi ? rp_multi_destroy(trial.multi) : rp_pool_destroy(trial.pool);
    if (rc)
        fail("destroy returned %d (%s)", rc, rp_strerror(rc));
    trial.multi = NULL;
    trial.pool = NULL;
    trial.over = true; /* all that is owed has been posted */
    pthread_join(consumer_thread, NULL);
    if ((rc = rp_cq_destroy(trial.cq)))
        fail("destroy of the queue returned %d (%s)", rc, rp_strerror(rc));
    if (!SETTLES(counting.pieces == 0))
        fail("all is destroyed, and %" PRId64 " pieces of memory are held", (int64_t)counting.pieces);
    ledger_check();
}

/* What a process has once: the shared reactor, tables of liburcu and libgcc. */
static void warm_up(void)
{
    struct rp_pool_options options = {.backend = backend, .stack_size = STACK};
    struct rp_pool *pool;
    struct rp_timer *timer;

    if (rp_pool_create(&pool, 2, &options) ||
        rp_timer_create(&timer, timer_fire, NULL, &(struct rp_timer_options){.backend = backend})) {
        fprintf(stderr, "stress: cannot create\n");
        exit(1);
    }
    rp_pool_prewarm(pool, 2);
    rp_timer_destroy(timer);
    rp_pool_destroy(pool);
}

static void report(void)
{
    printf(", futures %" PRIu64 ", canceled %" PRIu64 ", retries %" PRIu64 ", groups %" PRIu64 ", completions %" PRIu64
           ", strand tasks %" PRIu64 ", timers %" PRIu64 ", fires %" PRIu64 ", panics %" PRIu64 ", dropped %" PRIu64
           ", rejected %" PRIu64,
           (uint64_t)n_futures, (uint64_t)n_canceled, (uint64_t)n_retries, (uint64_t)n_groups, (uint64_t)n_completions,
           (uint64_t)n_strand, (uint64_t)n_timers, (uint64_t)n_fires, (uint64_t)n_panics, (uint64_t)n_dropped,
           (uint64_t)n_rejected);
}

const struct load load_jobs = {"jobs", warm_up, round_run, dump, report};
