/*
 * The load `pools`: pools with random options under random load and random interference, and a ledger of every task.
 *
 * --only takes a mix: calm (no release before the end), chaos, memory (an allocator that fails at random), expiry
 * (workers expire within a millisecond), shrink (tune all the time).
 *
 * What a round is. One to three pools at once with random options: capacity 1 to 16, now and then 64 or unlimited;
 * queue depth, expiry, every overload and release policy, nonblocking or a bound on blocked submitters, minimum and
 * preallocated workers, few workers beyond capacity, shared or own reactor, contained signals, an allocator that counts
 * and may fail. One to twelve submitters use all forms of submit with tiny deadlines, priorities, labels, timeouts,
 * dropped callbacks and batches. Tasks count, spin, submit to their own pool, panic, fault, end their thread, bracket
 * blocking parts, read every gauge, tune, release, reboot and wait for the release of the pool they run on. Chaos
 * threads do the same from outside and send signals without SA_RESTART to the submitters. A pool ends by
 * release_until and destroy, by destroy alone, by two destroys at once, by destroy with submitters at work, or by a
 * task of its own.
 *
 * What must hold. An accepted task meets exactly one fate, with a reason that the pool's options allow; a rejected one
 * meets none; every return code is one that the headers allow for these options; a snapshot adds up at any moment and
 * agrees with the ledger at rest; the allocator is balanced after the end, deferred ends included.
 *
 * What it does not show: order (priorities, first in first out), bounds on overtaking, speed, fork.
 */
#include "stress.h"

#include <errno.h>
#include <pthread.h>
#include <ringpool.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOLS 3
#define SUBMITTERS 12
#define CHAOS 2
#define RECORDS 12000
#define BATCH 24
#define NESTING 3

enum mix { MIX_ANY, MIX_CALM, MIX_CHAOS, MIX_MEMORY, MIX_EXPIRY, MIX_SHRINK, MIXES };
static const char *const mix_names[MIXES] = {"any", "calm", "chaos", "memory", "expiry", "shrink"};

enum form { SUBMIT, TRY, UNTIL, TASK, FORM_BATCH, CROSS };
enum { VERDICT_NONE, ACCEPTED, REJECTED };
enum { FATE_NONE, FATE_RAN = 1 }; /* or the negative reason of dropped */
enum ending { END_RELEASE, END_DESTROY, END_TWO_DESTROYS, END_RACING, END_INSIDE, ENDINGS };

/*
 * One submission. `verdict` belongs to the submitting thread and is read after it was joined; NONE stays where a task
 * ended the thread inside of submit. `fate` is written by whoever runs or drops the task.
 */
struct record {
    struct trial *trial;
    _Atomic int fate;
    _Atomic int verdict;
    uint32_t choice;     /* what the task does */
    unsigned generation; /* 0: submitted from outside, else by a task of that generation less one */
    bool told;           /* has a dropped callback */
    bool dated;          /* has a deadline */
};

/* A pool of the round. Constant while threads run, but for the atomics and the records. */
struct trial {
    struct rp_pool *pool;
    unsigned number;
    struct rp_pool_options options;
    unsigned capacity;
    struct rp_allocator allocator;
    bool calm;     /* nobody releases it before the end */
    bool discards; /* tasks may ask for any overload policy */
    bool may_fail; /* its allocator fails now and then */
    enum ending ending;
    _Atomic bool failing;      /* the allocator does so now */
    _Atomic bool released;     /* a release or destroy has begun at some time */
    _Atomic bool over;         /* no reboot and no new submission from now on */
    _Atomic int64_t allocated; /* pieces of memory it holds */
    _Atomic int destroyed;     /* destroys that returned 0 */
    _Atomic uint64_t panics;
    _Atomic unsigned used; /* records taken */
    struct record records[RECORDS];
    bool rested; /* the snapshot below was taken at rest */
    struct rp_pool_snapshot at_rest;
};

static struct trial *trials[POOLS];
static _Atomic unsigned trials_alive;

static enum mix only;
static _Atomic bool stop_chaos;

/* The end line. Reasons and codes by errno. */
#define CODES 160
static _Atomic uint64_t n_accepted, n_ran, n_panics, n_spawned, n_expired, n_dropped[CODES], n_rejected[CODES];

/* --- for a report ------------------------------------------------------------------------------------------------------ */

static const char *const state_names[] = {"uninitialised", "running", "idle", "stopping", "stopped"};

static void dump(void)
{
    unsigned n = trials_alive;

    for (unsigned i = 0; i < n; i++) {
        struct trial *t = trials[i];
        const struct rp_pool_options *o = &t->options;
        struct rp_pool_snapshot s;
        struct rp_worker_info workers[64];
        unsigned open = 0, untold = 0, used = t->used < RECORDS ? t->used : RECORDS;

        for (unsigned k = 1; k < used; k++) {
            untold += t->records[k].verdict == VERDICT_NONE;
            open += t->records[k].verdict == ACCEPTED && t->records[k].fate == FATE_NONE;
        }
        fprintf(stderr,
                "pool %u: capacity %u, depth %u, expiry %" PRId64 " us, min %u, prealloc %d, extra %u, overload %d, "
                "release %d, nonblocking %d, max_blocking %u, own reactor %d, contain %d, no_purge %d, unordered %d, "
                "may_fail %d, "
                "calm %d, ending %d\n"
                "    released %d, over %d, destroyed %d, allocated %" PRId64 ", records %u, accepted without fate %u, "
                "without verdict %u\n",
                t->number, t->capacity, o->queue_depth, o->expiry_ns / 1000, o->min_workers, o->prealloc, o->max_extra,
                o->overload, o->release_policy, o->nonblocking, o->max_blocking, o->own_reactor, o->contain_signals,
                o->no_purge, o->unordered, t->may_fail, t->calm, (int)t->ending, t->released, t->over, t->destroyed,
                (int64_t)t->allocated, used, open, untold);
        int rc = t->pool ? rp_pool_snapshot(t->pool, &s) : -ESHUTDOWN;
        if (rc) {
            fprintf(stderr, "    no snapshot: %s\n", rp_strerror(rc));
            continue;
        }
        fprintf(stderr,
                "    capacity %u, running %u, busy %u, idle %u, waiting %u, blocked %u, closed %d\n"
                "    submitted %" PRIu64 ", completed %" PRIu64 ", dropped %" PRIu64 ", rejected %" PRIu64
                ", panicked %" PRIu64 ", spawned %" PRIu64 ", expired %" PRIu64 "\n",
                s.capacity, s.running, s.busy, s.idle, s.waiting, s.blocked, s.closed, s.submitted, s.completed,
                s.dropped, s.rejected, s.panicked, s.spawned, s.expired);
        int listed = rp_pool_workers(t->pool, workers, 64);
        for (int k = 0; k < listed && k < 64; k++)
            fprintf(stderr, "    worker %u: %s, tid %d, label %s, tasks %" PRIu64 "\n", workers[k].worker,
                    state_names[workers[k].state], workers[k].tid, workers[k].label ? workers[k].label : "-",
                    workers[k].tasks);
    }
}

/* --- the counting allocator --------------------------------------------------------------------------------------- */

static bool refuse(struct trial *t)
{
    return t->failing && one_in(4);
}

static void *count_malloc(void *user, size_t size)
{
    struct trial *t = user;
    void *p = refuse(t) ? NULL : malloc(size);

    t->allocated += p != NULL;
    return p;
}

static void *count_calloc(void *user, size_t n, size_t size)
{
    struct trial *t = user;
    void *p = refuse(t) ? NULL : calloc(n, size);

    t->allocated += p != NULL;
    return p;
}

static void count_free(void *user, void *p)
{
    struct trial *t = user;

    free(p);
    t->allocated -= p != NULL;
}

/* --- return codes ------------------------------------------------------------------------------------------------- */

static _Thread_local unsigned depth; /* tasks on this thread's stack */
static _Thread_local bool guest;     /* a thread of the test, not a worker */

/* Whether submit may say `rc` to a task of this record with this overload policy, by the headers. */
static bool code_allowed(const struct trial *t, const struct record *r, enum form form, int overload, int rc)
{
    if (overload == RP_OVERLOAD_DEFAULT)
        overload = t->options.overload ? t->options.overload : RP_OVERLOAD_BLOCK;
    switch (-rc) {
    case 0:
        return true;
    case EAGAIN:
        return form == TRY || form == CROSS || overload == RP_OVERLOAD_FAIL || overload == RP_OVERLOAD_DISCARD_OLDEST ||
               (overload == RP_OVERLOAD_BLOCK && (t->options.nonblocking || t->options.max_blocking)) || t->may_fail;
    case EDEADLK:
        return depth > 0 && overload == RP_OVERLOAD_BLOCK && form != TRY && form != CROSS;
    case ETIMEDOUT:
        return r->dated;
    case ESHUTDOWN:
        return t->released;
    case ENOMEM:
        return t->may_fail;
    }
    return false;
}

static void code_check(const char *call, int rc, unsigned long allowed)
{
    static const int codes[] = {ESHUTDOWN, EAGAIN, ENOMEM, ETIMEDOUT, EINVAL, EALREADY, EPERM};

    progress++;
    if (rc >= 0)
        return;
    for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i] == -rc && allowed >> i & 1)
            return;
    fail("%s returned %d (%s)", call, rc, rp_strerror(rc));
}
enum { MAY_SHUT = 1, MAY_AGAIN = 2, MAY_NOMEM = 4, MAY_TIME = 8, MAY_INVAL = 16, MAY_ALREADY = 32, MAY_PERM = 64 };

/* --- calls that anybody may make on a pool ------------------------------------------------------------------------ */

/* To be asked after the call: the release may come while it runs. */
static unsigned long shut(const struct trial *t)
{
    return t->released ? MAY_SHUT : 0;
}

static void look(struct trial *t)
{
    struct rp_pool_snapshot s;
    struct rp_worker_info workers[8];

    if (one_in(2)) {
        rp_pool_running(t->pool);
        rp_pool_busy(t->pool);
        rp_pool_free(t->pool);
        rp_pool_waiting(t->pool);
        rp_pool_cap(t->pool);
        rp_pool_is_closed(t->pool);
        return;
    }
    if (one_in(3)) {
        int n = rp_pool_workers(t->pool, workers, 8);
        code_check("workers", n, shut(t));
        for (int i = 0; i < n && i < 8; i++)
            if (workers[i].state < 0 || workers[i].state > RP_WORKER_STOPPED)
                fail("worker in state %d", workers[i].state);
        return;
    }
    int rc = rp_pool_snapshot(t->pool, &s);
    code_check("snapshot", rc, shut(t));
    if (rc)
        return;
    if (s.busy + s.idle != s.running)
        fail("snapshot: busy %u + idle %u is not running %u", s.busy, s.idle, s.running);
    if (s.submitted != s.completed + s.dropped + s.panicked + s.busy + s.waiting - s.blocked)
        fail("snapshot: submitted %" PRIu64 " does not add up", s.submitted);
}

static void tune(struct trial *t)
{
    unsigned capacity = one_in(12) ? RP_UNLIMITED : one_in(8) ? 0 : 1 + rnd(one_in(4) ? 40 : t->capacity % 64 + 2);
    bool invalid = capacity < t->options.min_workers || capacity == 0;

    int rc = rp_pool_tune(t->pool, capacity);
    code_check("tune", rc, shut(t) | (invalid ? MAY_INVAL : 0));
}

static void release(struct trial *t)
{
    t->released = true;
    code_check("release", rp_pool_release(t->pool), MAY_SHUT);
}

static void release_until(struct trial *t)
{
    struct rp_release_report report;

    t->released = true;
    int rc = rp_pool_release_until(t->pool, rp_after(rnd(2000000)), one_in(2) ? &report : NULL);
    code_check("release_until", rc, MAY_SHUT | MAY_TIME);
}

static void reboot(struct trial *t)
{
    if (!t->over)
        code_check("reboot", rp_pool_reboot(t->pool), MAY_SHUT);
}

static void destroy(struct trial *t)
{
    t->released = t->over = true;
    int rc = rp_pool_destroy(t->pool);
    code_check("destroy", rc, MAY_ALREADY);
    t->destroyed += rc == 0;
}

/* --- the ledger --------------------------------------------------------------------------------------------------- */

static void run(void *arg);

static struct record *record_take(struct trial *t, unsigned generation)
{
    unsigned i = t->used < RECORDS ? t->used++ : RECORDS;

    if (i >= RECORDS)
        return NULL;
    struct record *r = &t->records[i];
    r->trial = t;
    r->choice = rnd(100000);
    r->generation = generation;
    return r;
}

static void meet_fate(struct record *r, int fate)
{
    int before = atomic_exchange(&r->fate, fate);

    progress++;
    if (before != FATE_NONE)
        fail("record %td of pool %u meets fate %d after %d", r - r->trial->records, r->trial->number, fate, before);
    if (r->verdict == REJECTED)
        fail("record %td of pool %u was rejected and meets fate %d", r - r->trial->records, r->trial->number, fate);
}

static bool reason_allowed(const struct record *r, int reason)
{
    const struct trial *t = r->trial;

    switch (-reason) {
    case ETIMEDOUT:
        return r->dated;
    case ESHUTDOWN:
        return t->released && (t->options.release_policy == RP_RELEASE_DROP || t->may_fail);
    case EAGAIN:
        return t->discards;
    }
    return false;
}

static void dropped(void *arg, int reason)
{
    struct record *r = arg;

    meet_fate(r, reason < 0 ? reason : -CODES + 1);
    if (!reason_allowed(r, reason))
        fail("record %td of pool %u dropped for %d (%s)", r - r->trial->records, r->trial->number, reason,
             rp_strerror(reason));
    n_dropped[-reason]++;
}

static void verdict(struct trial *t, struct record *r, enum form form, int overload, int rc)
{
    static const char *const names[] = {"submit", "try_submit", "submit_until", "submit_task", "submit_batch", "cross"};

    progress++;
    if (!code_allowed(t, r, form, overload, rc))
        fail("%s to pool %u with overload policy %d at nesting %u returned %d (%s)", names[form], t->number, overload,
             depth, rc, rp_strerror(rc));
    r->verdict = rc ? REJECTED : ACCEPTED;
    if (rc && r->fate != FATE_NONE)
        fail("%s of record %td to pool %u returned %d after fate %d", names[form], r - t->records, t->number, rc,
             r->fate);
    if (rc)
        n_rejected[-rc]++;
    else
        n_accepted++;
}

/* --- submitting --------------------------------------------------------------------------------------------------- */

static int64_t tiny_deadline(void)
{
    static const uint32_t spans[] = {2000, 20000, 200000, 5000000};

    return rp_after(rnd(spans[rnd(4)]));
}

static void task_fill(struct trial *t, struct record *r, struct rp_task *task)
{
    static const char *const labels[] = {"alpha", "beta", "gamma"};

    r->told = !one_in(3);
    r->dated = one_in(4);
    *task = (struct rp_task){
        .fn = run,
        .arg = r,
        .dropped = r->told ? dropped : NULL,
        .label = one_in(2) ? labels[rnd(3)] : NULL,
        .priority = one_in(3) ? (int)rnd(3) : RP_PRIO_NORMAL,
        .overload = t->discards ? (int)rnd(6)
                    : one_in(3) ? (one_in(2) ? RP_OVERLOAD_FAIL : RP_OVERLOAD_BLOCK)
                                : 0,
        .deadline = r->dated ? tiny_deadline() : 0,
        .timeout = one_in(8) ? 1 + rnd(1000000) : 0,
        .user_data = rnd(100),
    };
}

static void submit_batch(struct trial *t, unsigned generation)
{
    struct rp_task tasks[BATCH];
    struct record *records[BATCH];
    unsigned n = 0, want = rnd(BATCH + 1);
    bool one_class = one_in(2);

    while (n < want && (records[n] = record_take(t, generation))) {
        task_fill(t, records[n], &tasks[n]);
        if (one_class)
            tasks[n].priority = tasks[0].priority;
        n++;
    }
    int rc = rp_pool_submit_batch(t->pool, tasks, n);
    if (rc > (int)n || (rc == 0 && n))
        fail("a batch of %u returned %d", n, rc);
    for (unsigned i = 0; i < n; i++) {
        if ((int)i < rc) {
            verdict(t, records[i], FORM_BATCH, tasks[i].overload, 0);
        } else if (rc < 0 && i == 0) {
            verdict(t, records[i], FORM_BATCH, tasks[i].overload, rc);
        } else { /* behind the first that met an error: that one's code is not told */
            records[i]->verdict = REJECTED;
            n_rejected[0]++;
            if (records[i]->fate != FATE_NONE)
                fail("a batch accepted %d of %u, but task %u meets fate %d", rc, n, i, records[i]->fate);
        }
    }
}

static void submit_some(struct trial *t, unsigned generation)
{
    struct rp_task task;
    enum form form = (enum form)rnd(5);
    int rc = 0, overload = RP_OVERLOAD_DEFAULT;

    if (t->over)
        return;
    if (form == FORM_BATCH) {
        submit_batch(t, generation);
        return;
    }
    struct record *r = record_take(t, generation);
    if (!r)
        return;
    switch (form) {
    case SUBMIT:
        rc = rp_pool_submit(t->pool, run, r);
        break;
    case TRY:
        rc = rp_pool_try_submit(t->pool, run, r);
        break;
    case UNTIL:
        r->dated = true;
        rc = rp_pool_submit_until(t->pool, run, r, tiny_deadline());
        break;
    default:
        task_fill(t, r, &task);
        overload = task.overload;
        rc = rp_pool_submit_task(t->pool, &task);
    }
    verdict(t, r, form, overload, rc);
}

/* From a task of another pool, and so never blocking: two pools that wait for each other would be our own deadlock. */
static void submit_across(unsigned generation)
{
    struct trial *t = trials[rnd(trials_alive)];
    struct record *r = t->over ? NULL : record_take(t, generation);

    if (r)
        verdict(t, r, CROSS, RP_OVERLOAD_FAIL, rp_pool_try_submit(t->pool, run, r));
}

/* --- what tasks do ------------------------------------------------------------------------------------------------ */

static void spin(int64_t ns)
{
    int64_t until = rp_now() + ns;

    while (rp_now() < until)
        ;
}

static void block_a_little(struct trial *t)
{
    unsigned long perm = guest || depth > 1 ? MAY_PERM : 0; /* a task that its submitter runs itself has no bracket */

    code_check("blocking_begin", rp_blocking_begin(), MAY_AGAIN | perm);
    if (one_in(2))
        spin(rnd(50000));
    else
        nap(rnd(200000));
    if (one_in(4))
        submit_some(t, NESTING);
    if (!one_in(4))
        code_check("blocking_end", rp_blocking_end(), perm);
}

static volatile int *volatile nowhere;

/* How a task may end other than by returning. */
static void end_badly(struct trial *t)
{
    if (guest)
        return; /* its thread is ours */
    t->panics++;
    n_panics++;
    depth = 0; /* of the frames here only one ends, but pthread_exit ends all: see run */
    pthread_exit(NULL);
}

static void act(struct record *r)
{
    struct trial *t = r->trial;
    uint32_t c = r->choice;

    if (c < 45000)
        return;
    if (c < 68000)
        spin(rnd(t->options.unordered ? 2000 : 30000));
    else if (c < 82000 && r->generation < NESTING)
        for (unsigned n = 1 + rnd(3); n; n--)
            submit_some(t, r->generation + 1);
    else if (c < 84000)
        submit_across(NESTING);
    else if (c < 87000)
        block_a_little(t);
    else if (c < 92000)
        look(t);
    else if (c < 93000)
        rp_heartbeat();
    else if (c < 93800)
        tune(t);
    else if (c < 94000 && !t->calm && !t->over)
        release(t);
    else if (c < 94200 && !t->calm && !t->over && depth < 3)
        release_until(t);
    else if (c < 95000)
        reboot(t);
    else if (c < 97500) {
        t->panics++;
        n_panics++;
        depth--;
        rp_panic("record %td", r - t->records);
    } else if (c < 97700 && t->options.contain_signals && !SANITIZED && !guest && depth == 1) {
        t->panics++;
        n_panics++;
        depth--;
        *nowhere = 1;
    } else if (c < 97800 && depth == 1) {
        end_badly(t);
    }
}

static void run(void *arg)
{
    struct record *r = arg;

    meet_fate(r, FATE_RAN);
    n_ran++;
    depth++;
    act(r);
    depth--;
}

static void on_panic(void *user, const struct rp_panic_info *info)
{
    if (!info->reason)
        fail("a panic without reason in pool %u", ((struct trial *)user)->number);
}

/* --- the threads of a round --------------------------------------------------------------------------------------- */

static _Atomic bool submitters_done;

static void *submitter(void *arg)
{
    uint64_t place = (uintptr_t)arg;

    guest = true;
    sow(place);
    unsigned calls = 200 + rnd(2500);
    while (calls-- && !submitters_done) {
        struct trial *t = trials[rnd(trials_alive)];
        submit_some(t, 0);
        if (!t->calm && rp_pool_is_closed(t->pool) && one_in(10))
            reboot(t);
        if (one_in(50))
            look(t);
        if (one_in(200))
            nap(rnd(3000000)); /* workers park and expire */
    }
    return NULL;
}

static pthread_t submitter_threads[SUBMITTERS];
static unsigned submitter_count;

static void *chaos(void *arg)
{
    uint64_t place = (uintptr_t)arg;

    guest = true;
    sow(place);
    bool shrinking = only == MIX_SHRINK;
    int rc;

    while (!stop_chaos) {
        struct trial *t = trials[rnd(trials_alive)];
        switch (shrinking ? 0 : rnd(9)) {
        case 0:
            tune(t);
            break;
        case 1:
            if (!t->calm)
                release(t);
            break;
        case 2:
            if (!t->calm)
                release_until(t);
            break;
        case 3:
        case 4:
            reboot(t);
            break;
        case 5:
            rc = rp_pool_prewarm(t->pool, rnd(20));
            code_check("prewarm", rc, MAY_AGAIN | shut(t) | (t->may_fail ? MAY_NOMEM : 0));
            break;
        case 6:
            look(t);
            break;
        default:
            pthread_kill(submitter_threads[rnd(submitter_count)], SIGUSR1);
        }
        nap(rnd(rnd(4) ? 100000 : 3000000));
    }
    return NULL;
}

static void on_sigusr1(int signal)
{
    (void)signal;
}

/* --- pools -------------------------------------------------------------------------------------------------------- */

static void options_roll(struct trial *t)
{
    struct rp_pool_options *o = &t->options;
    enum mix mix = only;

    t->capacity = one_in(20) ? RP_UNLIMITED : one_in(12) ? 64 : 1 + rnd(one_in(2) ? 3 : 16);
    t->calm = mix == MIX_CALM || mix == MIX_SHRINK || (mix != MIX_CHAOS && one_in(3));
    t->discards = one_in(2);
    t->may_fail = mix == MIX_MEMORY || (mix == MIX_ANY && one_in(5));
    t->ending = (enum ending)rnd(ENDINGS);
    t->allocator = (struct rp_allocator){count_malloc, count_calloc, count_free, t};
    o->queue_depth = one_in(3) ? 0 : rnd(65);
    o->unordered = one_in(3);
    if (o->unordered && !one_in(4)) /* deep enough, and its tasks short enough, for workers to take several at once */
        o->queue_depth = 200 + rnd(800);
    o->expiry_ns = mix == MIX_EXPIRY || one_in(2) ? 1000000 : 1000000 + rnd(50000000);
    o->no_purge = mix != MIX_EXPIRY && one_in(8);
    o->overload = t->discards ? (int)rnd(6) : one_in(4) ? RP_OVERLOAD_FAIL : RP_OVERLOAD_DEFAULT;
    o->nonblocking = one_in(6);
    o->max_blocking = !o->nonblocking && one_in(5) ? 1 + rnd(4) : 0;
    o->release_policy = one_in(2) ? RP_RELEASE_DROP : RP_RELEASE_RUN;
    unsigned most = t->capacity < 16 ? t->capacity : 16;
    o->min_workers = one_in(3) ? rnd(most + 1) : 0;
    o->prealloc = t->capacity != RP_UNLIMITED && one_in(6);
    o->max_extra = one_in(2) ? 1 + rnd(3) : 0;
    o->own_reactor = one_in(3);
    o->contain_signals = one_in(4);
    o->on_panic = on_panic;
    o->panic_user = t;
    o->log = quiet_log;
    o->stack_size = STACK;
    o->name = "stress";
    o->allocator = &t->allocator;
    o->backend = backend;
}

static void trial_begin(unsigned number)
{
    struct trial *t = calloc(1, sizeof(*t));

    if (!t)
        fail("the test itself has no memory");
    t->number = number;
    options_roll(t);
    trials[number] = t;
    t->failing = t->may_fail && one_in(4);
    int rc = rp_pool_create(&t->pool, t->capacity, &t->options);
    code_check("create", rc, t->may_fail ? MAY_NOMEM | MAY_AGAIN : 0);
    t->failing = false;
    if (rc) {
        if (t->pool || t->allocated)
            fail("a create that failed with %d left %p and %" PRId64 " pieces", rc, (void *)t->pool,
                 (int64_t)t->allocated);
        if ((rc = rp_pool_create(&t->pool, t->capacity, &t->options)))
            fail("create without failing allocator: %s", rp_strerror(rc));
    }
    t->failing = t->may_fail;
    trials_alive = number + 1;
}

static void destroy_inside(void *arg)
{
    struct record *r = arg;

    destroy(r->trial);
    r->fate = FATE_RAN;
}

static void destroy_dropped(void *arg, int reason)
{
    struct record *r = arg;

    r->fate = reason;
}

/* Until such a task has run: it may be dropped, and find the pool closed or full. It uses the record kept for it. */
static void end_inside(struct trial *t)
{
    struct record *r = &t->records[0];
    struct rp_task task = {.fn = destroy_inside, .arg = r, .dropped = destroy_dropped, .overload = RP_OVERLOAD_BLOCK};

    r->trial = t;
    while (r->fate != FATE_RAN) {
        int rc = rp_pool_reboot(t->pool);
        r->fate = FATE_NONE;
        if (!rc)
            rc = rp_pool_submit_task(t->pool, &task);
        if (rc && rc != -EAGAIN && rc != -ESHUTDOWN)
            fail("submit at the end: %s", rp_strerror(rc));
        while (!rc && r->fate == FATE_NONE)
            nap(100000);
        nap(100000);
    }
}

static void *destroy_thread(void *arg)
{
    guest = true;
    destroy(arg);
    return NULL;
}

/* Nobody but the pool's own tasks uses it any more. */
static void rest(struct trial *t)
{
    int rc;

    while ((rc = rp_pool_release_until(t->pool, rp_after(SETTLE_NS), NULL)) == -ESHUTDOWN)
        ; /* a task that had not seen the end yet rebooted it */
    if (rc)
        fail("release_until of pool %u at the end: %s", t->number, rp_strerror(rc));
    if ((rc = rp_pool_snapshot(t->pool, &t->at_rest)))
        fail("snapshot at rest: %s", rp_strerror(rc));
    t->rested = true;
    n_spawned += t->at_rest.spawned;
    n_expired += t->at_rest.expired;
}

static void trial_end(struct trial *t)
{
    pthread_t other;

    t->failing = false;
    switch (t->ending) {
    case END_RELEASE:
        t->released = t->over = true;
        rest(t);
        destroy(t);
        return;
    case END_TWO_DESTROYS:
        if (pthread_create(&other, NULL, destroy_thread, t))
            fail("the test itself has no thread");
        destroy(t);
        pthread_join(other, NULL);
        return;
    case END_INSIDE:
        end_inside(t);
        return;
    default:
        destroy(t);
    }
}

/* --- a round ------------------------------------------------------------------------------------------------------ */

static void ledger_check(struct trial *t)
{
    uint64_t accepted = 0, ran = 0, told = 0, silent = 0, unknown = 0;
    unsigned used = t->used < RECORDS ? t->used : RECORDS;
    bool drops = t->discards || t->options.release_policy == RP_RELEASE_DROP || t->may_fail;

    for (unsigned i = 1; i < used; i++) { /* without the one of end_inside */
        struct record *r = &t->records[i];
        unknown += r->verdict == VERDICT_NONE;
        if (r->verdict == REJECTED && r->fate != FATE_NONE)
            fail("record %u of pool %u was rejected and met fate %d", i, t->number, r->fate);
        if (r->verdict != ACCEPTED)
            continue;
        accepted++;
        ran += r->fate == FATE_RAN;
        told += r->fate < 0;
        silent += r->fate == FATE_NONE;
        if (r->fate == FATE_NONE && (r->told || !(drops || r->dated)))
            fail("record %u of pool %u was accepted and met no fate", i, t->number);
        if (r->fate < 0 && !r->told)
            fail("record %u of pool %u was told of a drop that it did not ask for", i, t->number);
    }
    if (!t->rested || unknown)
        return;
    const struct rp_pool_snapshot *s = &t->at_rest;
    if (s->busy || s->idle || s->running || s->waiting || s->blocked || !s->closed)
        fail("pool %u after release_until: running %u, busy %u, waiting %u", t->number, s->running, s->busy,
             s->waiting);
    if (s->submitted != accepted || s->dropped != told + silent || s->panicked != t->panics ||
        s->completed != ran - t->panics)
        fail("pool %u at rest: submitted %" PRIu64 " completed %" PRIu64 " dropped %" PRIu64 " panicked %" PRIu64
             ", but the ledger has %" PRIu64 " accepted, %" PRIu64 " ran, %" PRIu64 " told and %" PRIu64
             " untold drops, %" PRIu64 " panics",
             t->number, s->submitted, s->completed, s->dropped, s->panicked, accepted, ran, told, silent,
             (uint64_t)t->panics);
}

static void round_run(void)
{
    pthread_t chaos_threads[CHAOS];
    unsigned pools;

    stop_chaos = submitters_done = false;
    pools = 1 + (one_in(3) ? rnd(POOLS) : 0);
    for (unsigned i = 0; i < pools; i++) {
        trial_begin(i);
        trials[i]->used = 1; /* the first record is end_inside's */
    }
    submitter_count = 1 + rnd(SUBMITTERS);
    for (unsigned i = 0; i < submitter_count; i++)
        if (pthread_create(&submitter_threads[i], NULL, submitter, (void *)(uintptr_t)(i + 1)))
            fail("the test itself has no thread");
    for (unsigned i = 0; i < CHAOS; i++)
        if (pthread_create(&chaos_threads[i], NULL, chaos, (void *)(uintptr_t)(100 + i)))
            fail("the test itself has no thread");

    nap(1000000 + rnd(300000000));
    /* Pools that end under the hands of their submitters. A call made too late still finds the handle: no pool is made
     * until all submitters have gone, so the handle is nobody else's. */
    for (unsigned i = 0; i < pools; i++)
        if (trials[i]->ending == END_RACING)
            trial_end(trials[i]);
    stop_chaos = true;
    for (unsigned i = 0; i < CHAOS; i++)
        pthread_join(chaos_threads[i], NULL);
    for (unsigned i = 0; i < pools; i++) {
        trials[i]->failing = false;
        if (trials[i]->ending != END_RACING && !trials[i]->calm)
            reboot(trials[i]);
    }
    submitters_done = one_in(2);
    for (unsigned i = 0; i < submitter_count; i++)
        pthread_join(submitter_threads[i], NULL);
    for (unsigned i = 0; i < pools; i++)
        if (trials[i]->ending != END_RACING)
            trial_end(trials[i]);

    for (unsigned i = 0; i < pools; i++)
        if (!SETTLES(trials[i]->allocated == 0))
            fail("pool %u was destroyed and holds %" PRId64 " pieces of memory", i, (int64_t)trials[i]->allocated);
    for (unsigned i = 0; i < pools; i++) {
        ledger_check(trials[i]);
        if (trials[i]->destroyed != 1)
            fail("%d destroys of pool %u succeeded", trials[i]->destroyed, i);
    }
    trials_alive = 0;
    for (unsigned i = 0; i < pools; i++) {
        free(trials[i]);
        trials[i] = NULL;
    }
}

/* A first pool leaves behind what a process has once: the shared reactor may stay, tables of liburcu and libgcc too. */
static void warm_up(void)
{
    struct rp_pool_options o = {.backend = backend, .contain_signals = true, .stack_size = STACK};
    struct rp_pool *pool;
    int rc = rp_pool_create(&pool, 2, &o);

    if (rc) {
        fprintf(stderr, "stress: create: %s\n", rp_strerror(rc));
        exit(1);
    }
    guest = true;
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_sigusr1}, NULL); /* no SA_RESTART */
    rp_pool_prewarm(pool, 2);
    rp_pool_destroy(pool);
}

static void report(void)
{
    printf(", submitted %" PRIu64 ", ran %" PRIu64 ", panics %" PRIu64 ", spawned %" PRIu64 ", expired %" PRIu64,
           (uint64_t)n_accepted, (uint64_t)n_ran, (uint64_t)n_panics, (uint64_t)n_spawned, (uint64_t)n_expired);
    for (int i = 0; i < CODES; i++)
        if (n_dropped[i])
            printf(", dropped %s %" PRIu64, strerrorname_np(i), (uint64_t)n_dropped[i]);
    for (int i = 0; i < CODES; i++)
        if (n_rejected[i])
            printf(", rejected %s %" PRIu64, i ? strerrorname_np(i) : "in a batch", (uint64_t)n_rejected[i]);
}

bool pools_mix(const char *name)
{
    for (only = MIX_ANY; only < MIXES; only++)
        if (!strcmp(name, mix_names[only]))
            return true;
    return false;
}

const struct load load_pools = {"pools", warm_up, round_run, dump, report};
