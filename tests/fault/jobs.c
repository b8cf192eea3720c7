/*
 * A life of futures, continuations, groups, retries, contexts, completion queues, timers and strands.
 *
 * Everything is asked for once or a few times, on a pool or on a multi pool of two; what is refused with a code that
 * the header names is left out from then on. Each accepted task has a record, and must run or be dropped, once;
 * futures, groups and completions must end. Where the fault lasts perhaps no worker can be made for them: then the
 * pools are released first and drop what is queued, and all has ended at the latest when they are destroyed.
 */
#include "subject.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum { FUTURES = 6, MEMBERS = 4, QUEUED = 8, STRAND = 8, KEYS = 2, RECORDS = 48 };

struct record {
    bool accepted;
    unsigned attempts; /* most runs */
    unsigned choice;
    _Atomic unsigned ran, dropped;
    _Atomic int reason;
};

static struct jobs {
    bool sure;
    struct rp_pool *pool;
    struct rp_multi *multi;
    struct rp_ctx *root, *ctx;
    struct rp_cq *cq;
    struct rp_strand *strand;
    struct rp_timer *timers[2];
    struct rp_future *futures[FUTURES], *then, *retry;
    struct rp_group *group;
    _Atomic unsigned fires, next_called, last_of_key[KEYS];
    unsigned owed, had; /* completions */
    unsigned used;
    struct record record[RECORDS];
} job;

/* --- tasks -------------------------------------------------------------------------------------------------------- */

static struct record *record_new(void)
{
    if (job.used == RECORDS)
        broke(CANNOT_TELL, "too few records");
    struct record *record = &job.record[job.used++];
    record->attempts = 1;
    record->choice = job.used;
    return record;
}

static void run(void *arg)
{
    struct record *record = arg;

    if (++record->ran > record->attempts)
        broke(TWICE, "task %td ran %u times", record - job.record, record->ran);
}

static void dropped(void *arg, int reason)
{
    struct record *record = arg;

    record->reason = reason;
    record->dropped++;
}

static int run_future(void *arg, void **value)
{
    struct record *record = arg;

    run(record);
    *value = record;
    if (record->choice == 3)
        rp_panic("as asked");
    return record->attempts > 1 && record->ran < 2 ? -EIO : 7;
}

static int run_member(void *arg)
{
    run(arg);
    return 0;
}

static int run_next(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    (void)value;
    *next_value = NULL;
    job.next_called++;
    return result;
}

static void run_strand(void *arg)
{
    struct record *record = arg;
    _Atomic unsigned *last = &job.last_of_key[record->choice % KEYS];

    if (record->choice < *last)
        broke(TWICE, "task %u of a key runs after task %u", record->choice, *last);
    *last = record->choice;
    run(record);
}

static void fire(struct rp_timer *timer, void *arg)
{
    (void)timer;
    (void)arg;
    job.fires++;
}

static struct rp_task task_of(struct record *record)
{
    return (struct rp_task){
        .dropped = dropped, .arg = record, .overload = lasting ? RP_OVERLOAD_FAIL : RP_OVERLOAD_BLOCK};
}

/* What a submit gave. Where the fault lasts there may never be room. */
static bool accepted(struct record *record, const char *call, int rc)
{
    if (job.sure && rc == -EAGAIN)
        return false;
    EXPECT(job.sure, call, rc, -EAGAIN, -ENOMEM);
    record->accepted = rc == 0;
    return record->accepted;
}

/* --- beginning ---------------------------------------------------------------------------------------------------- */

static bool pools_make(bool multi)
{
    const struct rp_pool_options options = {.expiry_ns = 3 * MS,
                                            .queue_depth = 32,
                                            .release_policy = lasting ? RP_RELEASE_DROP : RP_RELEASE_RUN,
                                            .on_panic = on_panic,
                                            .log = on_log,
                                            .stack_size = STACK,
                                            .allocator = &hook_allocator,
                                            .backend = backend};
    const struct rp_multi_options several = {.pool = &options, .health_ns = 5 * MS};
    int rc =
        multi ? rp_multi_create(&job.multi, 2, 2, RP_LEAST_TASKS, &several) : rp_pool_create(&job.pool, 3, &options);

    EXPECT(job.sure, "create", rc, -ENOMEM, -EAGAIN, -EPERM, -ENOSYS, -EMFILE, -ENFILE, -EINVAL);
    if ((rc == -EPERM || rc == -ENOSYS || rc == -EMFILE || rc == -ENFILE || rc == -EINVAL) &&
        backend != RP_BACKEND_IO_URING)
        broke(UNDOCUMENTED, "create gave %d though no backend was asked for", rc);
    if (!rc != (job.pool || job.multi))
        broke(UNDOCUMENTED, "create gave %d and left %p", rc, (void *)job.pool);
    return rc == 0;
}

static void others_make(void)
{
    const struct rp_ctx_options dated = {.deadline = rp_after(PATIENCE), .allocator = &hook_allocator};
    const struct rp_cq_options queue = {.entries = 2, .backend = backend, .allocator = &hook_allocator};
    const struct rp_strand_options strand = {.burst = 2, .backend = backend, .allocator = &hook_allocator};
    const struct rp_timer_options timer = {.backend = backend, .allocator = &hook_allocator};
    struct rp_timer_options timer_in_pool = timer;

    if (EXPECT(job.sure, "ctx_create", rp_ctx_create_with(&job.root, NULL, &dated), -ENOMEM, -EAGAIN) == 0)
        EXPECT(job.sure, "ctx_create", rp_ctx_create_with(&job.ctx, job.root, &dated), -ENOMEM, -EAGAIN);
    EXPECT(job.sure, "cq_create", rp_cq_create(&job.cq, &queue), -ENOMEM);
    if (job.cq)
        EXPECT(job.sure, "cq_fd", rp_cq_fd(job.cq), -ENOMEM, -EMFILE, -ENFILE);
    EXPECT(job.sure, "strand_create",
           job.multi ? rp_multi_strand_create(&job.strand, job.multi, &strand)
                     : rp_strand_create(&job.strand, job.pool, &strand),
           -ENOMEM, -EAGAIN, -EPERM, -ENOSYS, -EMFILE, -ENFILE);
    EXPECT(job.sure, "timer_create", rp_timer_create(&job.timers[0], fire, NULL, &timer), -ENOMEM, -EAGAIN, -EPERM,
           -ENOSYS, -EMFILE, -ENFILE);
    if (job.multi)
        return;
    timer_in_pool.pool = job.pool;
    EXPECT(job.sure, "timer_create", rp_timer_create(&job.timers[1], fire, NULL, &timer_in_pool), -ENOMEM, -EAGAIN,
           -EPERM, -ENOSYS, -EMFILE, -ENFILE);
}

/* --- submitting --------------------------------------------------------------------------------------------------- */

static void submit_futures(void)
{
    struct rp_retry again = {.attempts = 3, .delay = MS / 2};

    for (int i = 0; i < FUTURES; i++) {
        struct record *record = record_new();
        struct rp_task task = task_of(record);
        task.ctx = i % 2 ? job.ctx : NULL;
        task.timeout = i == 4 ? 50 * MS : 0;
        accepted(record, "submit_future",
                 job.multi ? rp_multi_submit_future_task(job.multi, run_future, &task, &job.futures[i])
                           : rp_pool_submit_future_task(job.pool, run_future, &task, &job.futures[i]));
    }
    struct record *record = record_new();
    struct rp_task task = task_of(record);
    record->attempts = again.attempts;
    accepted(record, "submit_retry",
             job.multi ? rp_multi_submit_retry(job.multi, run_future, &task, &again, &job.retry)
                       : rp_pool_submit_retry(job.pool, run_future, &task, &again, &job.retry));
    if (job.futures[0])
        EXPECT(job.sure, "future_then", rp_future_then(job.futures[0], NULL, run_next, NULL, &job.then), -ENOMEM,
               -EAGAIN);
}

static void submit_group(void)
{
    const struct rp_group_options options = {.ctx = job.ctx, .deadline = rp_after(PATIENCE)};
    int rc = job.multi ? rp_multi_group_create(&job.group, job.multi, &options)
                       : rp_group_create(&job.group, job.pool, &options);

    if (EXPECT(job.sure, "group_create", rc, -ENOMEM, -EAGAIN))
        return;
    for (int i = 0; i < MEMBERS; i++) {
        struct record *record = record_new();
        struct rp_task task = task_of(record);
        accepted(record, "group_submit", rp_group_submit_task(job.group, run_member, &task));
    }
}

static void submit_queued(void)
{
    for (int i = 0; job.cq && i < QUEUED; i++) {
        struct record *record = record_new();
        struct rp_task task = task_of(record);
        task.fn = run;
        task.cq = job.cq;
        task.user_data = (uint64_t)(record - job.record);
        job.owed += accepted(record, "submit_task with a queue",
                             job.multi ? rp_multi_submit_task(job.multi, &task) : rp_pool_submit_task(job.pool, &task));
    }
    if (job.cq)
        job.owed += EXPECT(job.sure, "cq_post", rp_cq_post(job.cq, RECORDS, 0), -ENOMEM) == 0;
}

static void submit_strand(void)
{
    for (int i = 0; job.strand && i < STRAND; i++) {
        struct record *record = record_new();
        struct rp_task task = task_of(record);
        task.fn = run_strand;
        accepted(record, "strand_submit", rp_strand_submit_task(job.strand, record->choice % KEYS, &task));
    }
}

static void arm_timers(void)
{
    for (int i = 0; i < 2; i++)
        if (job.timers[i])
            EXPECT(true, "timer_arm",
                   i ? rp_timer_arm_periodic(job.timers[i], rp_after(MS), MS)
                     : rp_timer_arm(job.timers[i], rp_after(MS)),
                   0);
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

static int64_t patience(void)
{
    return rp_after(lasting ? 30 * MS : PATIENCE);
}

/*
 * A pool of a multi pool that cannot make workers is rebooted by the health check: its queue meets the release policy.
 */
static int if_rebooted(void)
{
    return job.multi && lasting ? -ESHUTDOWN : -ETIMEDOUT;
}

static void await_future(struct rp_future *future, const char *what)
{
    void *value;

    if (!future)
        return;
    int rc = rp_future_get_until(future, &value, patience());
    if (!rp_future_done(future) && !lasting)
        broke(LOST, "the wait for %s gave %d (%s)", what, rc, rp_strerror(rc));
    if (rc < 0)
        EXPECT(false, "future_get", rc, -ETIMEDOUT, -EFAULT, -EIO, -ENOMEM, -EAGAIN, -ECANCELED, if_rebooted());
}

static void await_completions(void)
{
    struct rp_completion out[4];

    while (job.had < job.owed) {
        int n = rp_cq_wait(job.cq, out, 4, 1, patience());
        if (n == -ETIMEDOUT && lasting)
            return;
        if (n <= 0)
            broke(LOST, "%u completions of %u came, then cq_wait gave %d", job.had, job.owed, n);
        for (int i = 0; i < n; i++)
            if (out[i].result && out[i].result != -ESHUTDOWN)
                broke(UNDOCUMENTED, "a completion with %d", out[i].result);
        job.had += (unsigned)n;
    }
}

static void await_all(void)
{
    int rc;

    for (int i = 0; i < FUTURES; i++)
        await_future(job.futures[i], "a future");
    await_future(job.then, "a continuation");
    await_future(job.retry, "a retry");
    if (job.group) {
        rc = rp_group_wait(job.group, patience());
        EXPECT(job.sure, "group_wait", rc, -ETIMEDOUT, -EAGAIN, -ENOMEM, if_rebooted());
        if (rc == -ETIMEDOUT && !lasting)
            broke(LOST, "a group does not end");
    }
    await_completions();
    for (int i = 0; i < 3000 && !lasting && job.timers[0] && !job.fires; i++)
        nap(5 * MS);
    if (!lasting && job.timers[0] && !job.fires)
        broke(LOST, "a timer does not fire");
    if (job.ctx)
        EXPECT(job.sure, "ctx_sleep", rp_ctx_sleep(job.ctx, rp_after(MS)), -ENOMEM);
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static void pools_release(void)
{
    struct rp_release_report report;
    int rc = job.multi ? rp_multi_release_until(job.multi, patience(), &report)
                       : rp_pool_release_until(job.pool, patience(), &report);

    if (rc == -ETIMEDOUT && !lasting)
        broke(LOST, "the release does not end: busy %u, queued %u", report.busy, report.queued);
    if (EXPECT(job.sure, "release_until", rc, -ETIMEDOUT, -ENOMEM) == -ENOMEM && job.pool)
        broke(UNDOCUMENTED, "release_until of a pool gave ENOMEM");
}

static void end_all(void)
{
    if (lasting)
        pools_release();
    for (int i = 0; i < 2; i++)
        if (job.timers[i])
            EXPECT(true, "timer_destroy", rp_timer_destroy(job.timers[i]), 0);
    if (job.strand) {
        int rc = rp_strand_release_until(job.strand, patience());
        EXPECT(job.sure, "strand_release_until", rc, -ETIMEDOUT);
        if (rc == -ETIMEDOUT && !lasting)
            broke(LOST, "a strand does not end");
        EXPECT(true, "strand_destroy", rp_strand_destroy(job.strand), 0);
    }
    if (job.ctx)
        rp_ctx_cancel(job.root, 0);
    if (!lasting)
        pools_release();
    for (int i = 0; i < FUTURES; i++)
        rp_future_destroy(job.futures[i]);
    rp_future_destroy(job.then);
    rp_future_destroy(job.retry);
    rp_group_destroy(job.group);
    EXPECT(job.sure, "destroy", job.multi ? rp_multi_destroy(job.multi) : rp_pool_destroy(job.pool), -ENOMEM);
    if (job.cq) {
        bool lasts = lasting;
        lasting = false; /* all tasks have met their fate, so all completions are there */
        await_completions();
        lasting = lasts;
        EXPECT(true, "cq_destroy", rp_cq_destroy(job.cq), 0);
    }
    rp_ctx_destroy(job.ctx);
    rp_ctx_destroy(job.root);
}

static void ledger_check(void)
{
    for (unsigned i = 0; i < job.used; i++) {
        const struct record *r = &job.record[i];

        if (!r->accepted && (r->ran || r->dropped))
            broke(TWICE, "task %u was refused; it ran %u times and was dropped %u times", i, r->ran, r->dropped);
        if (r->accepted && (r->ran > 0) + r->dropped != 1)
            broke(r->ran || r->dropped ? TWICE : LOST, "task %u ran %u times and was dropped %u times", i, r->ran,
                  r->dropped);
        if (r->dropped && r->reason != -ESHUTDOWN && r->reason != -ECANCELED && r->reason != -ETIMEDOUT)
            broke(UNDOCUMENTED, "task %u was dropped with %d", i, r->reason);
    }
}

void jobs_live(bool sure, bool multi)
{
    memset(&job, 0, sizeof(job));
    job.sure = sure;
    if (!pools_make(multi))
        return;
    others_make();
    arm_timers();
    submit_futures();
    submit_group();
    submit_queued();
    submit_strand();
    await_all();
    nap(8 * MS); /* workers expire */
    submit_strand();
    end_all();
    ledger_check();
}
