/*
 * What the threads and the tasks of the load `pools` do: submit in all forms, look, tune, release, open again, block,
 * and end badly.
 */
#include "pools.h"

#include <signal.h>

#define BATCH 24
#define NESTING 3

_Thread_local unsigned depth;
_Thread_local bool guest;
_Atomic bool submitters_done;
pthread_t submitter_threads[SUBMITTERS];
unsigned submitter_count;

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
    if (one_in(4)) {
        struct rp_metrics m;
        code_check("metrics", rp_pool_metrics(t->pool, &m), shut(t) | (t->may_fail ? MAY_NOMEM : 0));
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

/* --- submitting --------------------------------------------------------------------------------------------------- */

static void run(void *arg);

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

/* --- the threads of a round --------------------------------------------------------------------------------------- */

void *submitter(void *arg)
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

void *chaos(void *arg)
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
