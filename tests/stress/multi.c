/*
 * The load `multi`: pools come, go, grow, shrink, close and open while submitters run under a strategy
 * that changes, and a ledger of every task.
 *
 * A round: a multi pool of one to six pools with random options (capacity, queue, expiry, overload and release policy,
 * bound on blocked submitters, weights, health check with a short limit, an allocator that counts and may fail), one to
 * eight submitters with all forms of submit, tasks that count, sleep, panic, submit, end their thread, remove a pool,
 * or wait for the release, and three chaos threads that add, remove, tune, weigh, switch, prewarm, release, reboot,
 * list and add up. It ends by release_until and destroy, by destroy alone, with submitters at work, or by a task of its
 * own.
 *
 * What must hold: an accepted task meets exactly one fate and a rejected one none; every return code is one that the
 * header allows; a snapshot adds up at any moment and agrees with the ledger at rest;
 * memory is as before.
 */
#include "stress.h"

#include <errno.h>
#include <pthread.h>
#include <ringpool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUBMITTERS 8
#define CHAOS 3
#define RECORDS 20000
#define BATCH 16

enum { NONE, ACCEPTED, REJECTED };

struct record {
    _Atomic int verdict; /* by its submitter; NONE stays where a task ended the thread inside of submit */
    _Atomic int ran, dropped;
    uint32_t choice;
    unsigned depth;
    unsigned form; /* of submit: for the report */
    int overload;
};

static struct trial {
    struct rp_multi *multi;
    bool calm;     /* never released before the end: no submit may be refused for that */
    bool may_fail; /* the allocator does, now and then */
    bool drops;    /* some policy drops */
    bool bounded;  /* -EAGAIN is allowed to whoever may block */
    _Atomic bool over, stop;
    _Atomic uint64_t panics;
    _Atomic unsigned used;
    struct record records[RECORDS];
} trial;

static _Atomic uint64_t n_accepted, n_ran, n_dropped, n_added, n_removed, n_health;

/* --- for a report ------------------------------------------------------------------------------------------------- */

static void dump(void)
{
    struct rp_pool_snapshot s;
    struct rp_multi_info info[16];

    if (!trial.multi || rp_multi_snapshot(trial.multi, &s))
        return;
    fprintf(stderr,
            "capacity %u, running %u, busy %u, waiting %u, blocked %u, closed %d, submitted %" PRIu64
            ", completed %" PRIu64 ", dropped %" PRIu64 ", panicked %" PRIu64 ", rejected %" PRIu64 "\n",
            s.capacity, s.running, s.busy, s.waiting, s.blocked, s.closed, s.submitted, s.completed, s.dropped,
            s.panicked, s.rejected);
    int n = rp_multi_pools(trial.multi, info, 16);
    for (int i = 0; i < n && i < 16; i++)
        fprintf(stderr, "    pool %u: capacity %u, running %u, busy %u, waiting %u, closed %d, out %d, spare %u\n",
                info[i].index, info[i].capacity, info[i].running, info[i].busy, info[i].waiting, info[i].closed,
                info[i].out, info[i].spare);
}

/* What may have closed is asked after the call. */
#define EXPECT(call, ...)                                                                                              \
    ({                                                                                                                 \
        int returned = (call);                                                                                         \
        expect(#call, returned, trial.may_fail, !trial.calm || trial.over, (const int[]){__VA_ARGS__, 0});             \
    })

/* --- tasks -------------------------------------------------------------------------------------------------------- */

static void submit_some(unsigned depth);

static void task_drop(void *arg, int reason)
{
    struct record *r = arg;

    progress++;
    if (r->ran || r->dropped++)
        fail("a second fate: dropped");
    if (reason != -ESHUTDOWN && reason != -EAGAIN && reason != -ETIMEDOUT)
        fail("dropped for %d", reason);
}

static _Thread_local unsigned nest; /* tasks on this thread's stack: all of them end with the thread */

static void task_body(struct record *r)
{
    progress++;
    if (r->ran++ || r->dropped)
        fail("a second fate: ran");
    switch (r->choice % 40) {
    case 0:
        trial.panics++;
        nest--;
        rp_panic("task %td", r - trial.records);
        return;
    case 1:
        trial.panics += nest;
        pthread_exit(NULL);
    case 2:
    case 3:
        nap(100000 + r->choice % 1000 * 1000);
        break;
    case 4:
        if (rp_blocking_begin() == 0 || true) {
            nap(200000);
            rp_blocking_end();
        }
        break;
    case 5:
    case 6:
    case 7:
        if (r->depth < 3)
            submit_some(r->depth + 1);
        break;
    case 8:
        if (EXPECT(rp_multi_remove(trial.multi, r->choice % 9), -ENOENT, -EBUSY) == 0)
            n_removed++;
        break;
    case 9:
        if (!trial.calm && r->choice % 7 == 0 && !trial.over) {
            EXPECT(rp_multi_release_until(trial.multi, rp_after(r->choice % 3 * 1000000), NULL), -ETIMEDOUT);
            EXPECT(rp_multi_reboot(trial.multi), -ESHUTDOWN);
        }
        break;
    case 10:
        if (r->choice % 16 == 0) /* hangs, as the health check sees it */
            nap(8000000);
        break;
    default:
        for (volatile unsigned i = 0; i < r->choice % 500; i++)
            ;
    }
}

static void task_run(void *arg)
{
    nest++;
    task_body(arg);
    nest--;
}

static struct record *record_take(unsigned depth)
{
    unsigned i = trial.used++;

    if (i >= RECORDS)
        return NULL;
    trial.records[i].choice = rnd(1 << 20);
    trial.records[i].depth = depth;
    return &trial.records[i];
}

static void verdict(struct record *r, int rc)
{
    r->verdict = rc ? REJECTED : ACCEPTED;
    progress++;
}

static struct rp_task task_for(struct record *r)
{
    struct rp_task task = {.fn = task_run, .dropped = task_drop, .arg = r, .priority = (int)rnd(3)};

    if (one_in(3))
        r->overload = task.overload = (int)rnd(RP_OVERLOAD_CALLER_RUNS + 1);
    if (task.overload == RP_OVERLOAD_DISCARD_OLDEST && !trial.drops)
        r->overload = task.overload = 0; /* it could drop one that has no word for it */
    if (one_in(6))
        task.deadline = rp_after(rnd(300) * 10000);
    return task;
}

static void submit_batch(unsigned depth)
{
    struct rp_task tasks[BATCH];
    struct record *records[BATCH];
    unsigned n = 0, want = 1 + rnd(BATCH);

    for (; n < want && (records[n] = record_take(depth)); n++) {
        tasks[n] = task_for(records[n]);
        records[n]->form = 4;
    }
    if (!n)
        return;
    int rc = EXPECT(rp_multi_submit_batch(trial.multi, tasks, n), -EAGAIN, -ETIMEDOUT, -EDEADLK);
    for (unsigned i = 0; i < n; i++)
        verdict(records[i], rc > 0 && i < (unsigned)rc ? 0 : -1);
}

static void submit_one(unsigned depth)
{
    struct record *r = record_take(depth);
    int rc;

    if (!r)
        return;
    switch (r->form = rnd(4)) {
    case 0:
        if (trial.drops || trial.may_fail) /* no dropped function: its fate could not be told */
            goto as_task;
        rc = trial.bounded || depth ? EXPECT(rp_multi_submit(trial.multi, task_run, r), -EAGAIN, -EDEADLK)
                                    : EXPECT(rp_multi_submit(trial.multi, task_run, r), 0);
        break;
    case 1:
        if (trial.drops || trial.may_fail)
            goto as_task;
        rc = EXPECT(rp_multi_try_submit(trial.multi, task_run, r), -EAGAIN);
        break;
    case 2:
        if (trial.drops || trial.may_fail)
            goto as_task;
        rc = EXPECT(rp_multi_submit_until(trial.multi, task_run, r, rp_after(rnd(2000) * 1000)), -ETIMEDOUT, -EAGAIN,
                    -EDEADLK);
        break;
    default:
    as_task : {
        struct rp_task task = task_for(r);
        rc = EXPECT(rp_multi_submit_task(trial.multi, &task), -EAGAIN, -ETIMEDOUT, -EDEADLK);
    }
    }
    verdict(r, rc);
}

static void submit_some(unsigned depth)
{
    if (one_in(4))
        submit_batch(depth);
    else
        submit_one(depth);
}

static void *submitter(void *place)
{
    sow((uintptr_t)place);
    while (!trial.stop && trial.used < RECORDS) {
        submit_some(0);
        if (one_in(200))
            nap(rnd(1000000));
    }
    return NULL;
}

/* --- chaos -------------------------------------------------------------------------------------------------------- */

static void look(void)
{
    struct rp_pool_snapshot s;
    struct rp_multi_info info[8];

    if (EXPECT(rp_multi_snapshot(trial.multi, &s), -ESHUTDOWN))
        return;
    if (s.busy + s.idle != s.running)
        fail("snapshot: busy %u + idle %u is not running %u", s.busy, s.idle, s.running);
    if (s.submitted != s.completed + s.dropped + s.panicked + s.busy + s.waiting - s.blocked)
        fail("snapshot: submitted %" PRIu64 " does not add up", s.submitted);
    int n = EXPECT(rp_multi_pools(trial.multi, info, 8), -ESHUTDOWN);
    if (n == 0 && !trial.over)
        fail("no pool is left");
    struct rp_metrics m;
    EXPECT(rp_multi_metrics(trial.multi, &m), -ESHUTDOWN);
    rp_multi_running(trial.multi);
    rp_multi_busy(trial.multi);
    rp_multi_free(trial.multi);
    rp_multi_waiting(trial.multi);
    rp_multi_cap(trial.multi);
}

static int choose(void *user, const struct rp_multi_view *pools, unsigned n)
{
    (void)user;
    (void)pools;
    return (int)rnd(n);
}

static void chaos_once(void)
{
    switch (rnd(12)) {
    case 0:
        if (EXPECT(rp_multi_pools(trial.multi, NULL, 0), -ESHUTDOWN) < 9 &&
            EXPECT(rp_multi_add(trial.multi, 1 + rnd(6)), -EAGAIN) >= 0)
            n_added++;
        break;
    case 1:
        if (EXPECT(rp_multi_remove(trial.multi, rnd(9)), -ENOENT, -EBUSY) == 0)
            n_removed++;
        break;
    case 2:
        EXPECT(rp_multi_tune(trial.multi, one_in(10) ? RP_UNLIMITED : 1 + rnd(40)), -EINVAL, -ESHUTDOWN);
        break;
    case 3:
        EXPECT(rp_multi_tune_pool(trial.multi, rnd(9), 1 + rnd(8)), -ENOENT, -EINVAL);
        break;
    case 4:
        EXPECT(rp_multi_set_strategy(trial.multi, (enum rp_strategy)rnd(RP_CUSTOM + 1)), -ESHUTDOWN);
        break;
    case 5:
        EXPECT(rp_multi_set_weight(trial.multi, rnd(9), 1 + rnd(4)), -ENOENT);
        break;
    case 6:
        EXPECT(rp_multi_prewarm(trial.multi, rnd(12)), -EAGAIN);
        break;
    case 7:
        if (!trial.calm && one_in(4)) {
            EXPECT(one_in(2) ? rp_multi_release(trial.multi)
                             : rp_multi_release_until(trial.multi, rp_after(rnd(3000000)), NULL),
                   -ETIMEDOUT);
            nap(rnd(500000));
            if (!trial.over)
                EXPECT(rp_multi_reboot(trial.multi), -ESHUTDOWN);
        }
        break;
    case 8:
        counting.fails = trial.may_fail && !trial.over && one_in(2);
        break;
    default:
        look();
    }
}

static void *chaos(void *place)
{
    sow((uintptr_t)place);
    while (!trial.stop) {
        chaos_once();
        nap(rnd(400000));
    }
    return NULL;
}

static void on_health(void *user, const struct rp_multi_health *event)
{
    (void)user;
    (void)event;
    n_health++;
}

/* --- a round ------------------------------------------------------------------------------------------------------ */

static int trial_create(void)
{
    struct rp_pool_options pool = {
        .queue_depth = one_in(2) ? 0 : rnd(50),
        .expiry_ns = one_in(2) ? 0 : 1000000 + rnd(3000000),
        .min_workers = one_in(3),
        .metrics = one_in(3),
        .overload = one_in(3) ? (int)rnd(RP_OVERLOAD_CALLER_RUNS + 1) : 0,
        .release_policy = one_in(4) ? RP_RELEASE_DROP : RP_RELEASE_RUN,
        .max_blocking = one_in(4) ? 1 + rnd(3) : 0,
        .max_extra = one_in(3) ? 1 + rnd(3) : 0,
        .backend = backend,
        .own_reactor = one_in(4),
        .stack_size = STACK,
        .allocator = &counting_allocator,
        .on_panic = quiet_panic,
        .log = quiet_log,
        .log_level = RP_LOG_DEBUG,
    };
    struct rp_multi_options options = {
        .pool = &pool,
        .weigh_by_capacity = one_in(3),
        .no_skip = one_in(3),
        .auto_waiting = one_in(2) ? rnd(10) : 0,
        .choose = choose,
        .health_ns = one_in(2) ? 1000000 + rnd(3000000) : 0,
        .hang_ns = 2000000,
        .on_health = on_health,
    };

    if (pool.max_blocking && one_in(2))
        pool.nonblocking = false;
    trial.calm = one_in(2);
    trial.may_fail = one_in(4);
    trial.drops = true; /* deadlines and policies: tasks may be dropped wherever they may say so */
    if (!pool.overload && pool.release_policy == RP_RELEASE_RUN)
        trial.drops = false;
    trial.bounded = pool.max_blocking || pool.overload;
    return rp_multi_create(&trial.multi, 1 + rnd(6), 1 + rnd(5), (enum rp_strategy)rnd(RP_CUSTOM + 1), &options);
}

enum { INSIDE_WAITS = 1, INSIDE_DROPPED };
static _Atomic int inside_rc; /* what destroy returned, 0 or negative; or INSIDE_* */

static void destroy_inside(void *unused)
{
    (void)unused;
    inside_rc = rp_multi_destroy(trial.multi);
}

static void destroy_dropped(void *arg, int reason)
{
    (void)arg;
    (void)reason;
    inside_rc = INSIDE_DROPPED;
}

/* Again as long as others that are left discard it, or take its pool away. */
static void end_inside(void)
{
    const struct rp_task task = {.fn = destroy_inside, .dropped = destroy_dropped};

    do {
        inside_rc = INSIDE_WAITS;
        int rc = rp_multi_submit_task(trial.multi, &task);
        if (rc == -EAGAIN || rc == -ENOMEM) {
            inside_rc = INSIDE_DROPPED;
            nap(1000000);
        } else if (rc) {
            fail("the task that destroys: %d (%s)", rc, rp_strerror(rc));
        }
    } while (SETTLES(inside_rc != INSIDE_WAITS) && inside_rc == INSIDE_DROPPED);
}

/* Fates against verdicts, and against the multi pool's own books, if they were taken at rest. */
static void ledger_check(const struct rp_pool_snapshot *at_rest)
{
    uint64_t accepted = 0, ran = 0, dropped = 0, unknown = 0;
    unsigned used = trial.used < RECORDS ? trial.used : RECORDS;

    for (unsigned i = 0; i < used; i++) {
        struct record *r = &trial.records[i];
        unknown += r->verdict == NONE;
        if (r->verdict == REJECTED && (r->ran || r->dropped))
            fail("record %u was rejected and met a fate", i);
        if (r->verdict != ACCEPTED)
            continue;
        if (r->ran + r->dropped != 1)
            fail("record %u (form %u, overload %d, depth %u) was accepted and met %d fates; calm %d, may_fail %d, "
                 "drops %d",
                 i, r->form, r->overload, r->depth, r->ran + r->dropped, trial.calm, trial.may_fail, trial.drops);
        accepted++;
        ran += (unsigned)r->ran;
        dropped += (unsigned)r->dropped;
    }
    n_accepted += accepted;
    n_ran += ran;
    n_dropped += dropped;
    if (!at_rest || unknown)
        return;
    if (at_rest->running || at_rest->busy || at_rest->waiting || at_rest->blocked)
        fail("at rest: running %u, busy %u, waiting %u", at_rest->running, at_rest->busy, at_rest->waiting);
    if (at_rest->submitted != accepted || at_rest->dropped != dropped || at_rest->panicked != trial.panics ||
        at_rest->completed != ran - trial.panics)
        fail("at rest: submitted %" PRIu64 " completed %" PRIu64 " dropped %" PRIu64 " panicked %" PRIu64
             ", but the ledger has %" PRIu64 " accepted, %" PRIu64 " ran, %" PRIu64 " dropped, %" PRIu64 " panics",
             at_rest->submitted, at_rest->completed, at_rest->dropped, at_rest->panicked, accepted, ran, dropped,
             (uint64_t)trial.panics);
}

enum ending { END_RELEASE, END_DESTROY, END_RACING, END_INSIDE, ENDINGS };

static void destroy(void)
{
    int rc = rp_multi_destroy(trial.multi);

    if (rc)
        fail("destroy returned %d", rc);
}

static void trial_end(enum ending ending, struct rp_pool_snapshot *at_rest, bool *rested)
{
    if (ending == END_RELEASE) {
        trial.over = true;
        int rc;
        while ((rc = rp_multi_release_until(trial.multi, 0, NULL)) == -ENOMEM || rc == -ESHUTDOWN)
            ; /* a reboot inside a task that still ran */
        if (rc)
            fail("release_until returned %d", rc);
        if (!SETTLES(rp_multi_running(trial.multi) == 0))
            fail("%u workers after release_until", rp_multi_running(trial.multi));
        rc = rp_multi_snapshot(trial.multi, at_rest);
        *rested = rc == 0;
    }
    if (ending == END_INSIDE) {
        end_inside();
        if (inside_rc)
            fail("destroy inside a task returned %d", inside_rc);
    } else {
        destroy();
    }
}

static void round_run(void)
{
    pthread_t submitters[SUBMITTERS], chaos_threads[CHAOS];
    unsigned n;
    enum ending ending;
    struct rp_pool_snapshot at_rest;
    bool rested = false;

    memset(&trial, 0, sizeof(trial));
    int rc = trial_create();
    if (rc)
        fail("create returned %d (%s)", rc, rp_strerror(rc));
    n = 1 + rnd(SUBMITTERS);
    ending = (enum ending)rnd(ENDINGS);
    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&submitters[i], NULL, submitter, (void *)(uintptr_t)(i + 1)))
            fail("the test itself has no thread");
    for (unsigned i = 0; i < CHAOS; i++)
        if (pthread_create(&chaos_threads[i], NULL, chaos, (void *)(uintptr_t)(100 + i)))
            fail("the test itself has no thread");
    nap(1000000 + rnd(200000000));
    if (ending == END_RACING) {
        trial.over = true;
        destroy();
    }
    trial.stop = true;
    for (unsigned i = 0; i < CHAOS; i++)
        pthread_join(chaos_threads[i], NULL);
    counting.fails = false;
    if (ending != END_RACING && !trial.calm)
        rp_multi_reboot(trial.multi);
    for (unsigned i = 0; i < n; i++)
        pthread_join(submitters[i], NULL);
    if (ending != END_RACING) {
        if (ending == END_INSIDE || ending == END_DESTROY)
            trial.over = true;
        if (ending == END_INSIDE && !trial.calm)
            rp_multi_reboot(trial.multi);
        trial_end(ending, &at_rest, &rested);
    }
    if (!SETTLES(counting.pieces == 0))
        fail("destroyed, and %" PRId64 " pieces of memory are held", (int64_t)counting.pieces);
    trial.multi = NULL;
    ledger_check(rested ? &at_rest : NULL);
}

static void warm_up(void)
{
    struct rp_multi *multi;
    struct rp_pool_options pool = {.backend = backend, .stack_size = STACK};

    if (rp_multi_create(&multi, 2, 2, RP_RANDOM, &(struct rp_multi_options){.pool = &pool})) {
        fprintf(stderr, "stress: cannot create\n");
        exit(1);
    }
    rp_multi_prewarm(multi, 4);
    rp_multi_destroy(multi);
}

static void report(void)
{
    printf(", accepted %" PRIu64 ", ran %" PRIu64 ", dropped %" PRIu64 ", pools added %" PRIu64 ", removed %" PRIu64
           ", health steps %" PRIu64,
           (uint64_t)n_accepted, (uint64_t)n_ran, (uint64_t)n_dropped, (uint64_t)n_added, (uint64_t)n_removed,
           (uint64_t)n_health);
}

const struct load load_multi = {"multi", warm_up, round_run, dump, report};
