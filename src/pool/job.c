/*
 * Jobs: how a task that somebody looks after goes through the run queue, and how its end is told.
 *
 * A job's end is told once, by whoever ends it: the worker after fn returned or panicked, the thread's exit, or the
 * drop. It is told after the accounts were made, so that whoever learns of the end finds room in the pool; unless
 * something is to run in the ended task's place: then the task stays in flight until that has run as well.
 *
 * Rejected: a kind of its own in the queue's entries for each. The queue would carry knowledge that it does not use.
 * What an entry does say is only what it carries: a job, or a completion that is owed and nothing else, which becomes a
 * job where it is taken.
 *
 * Here are also the simplest jobs: tasks with a context or a completion queue.
 */
#include "pool/job.h"

#include "base/alloc.h"
#include "base/rcu.h"
#include "pool/completion.h"
#include "pool/context.h"
#include "pool/then.h"

#include <errno.h>

void job_run(void *arg)
{
    struct job *job = arg;

    frame_current()->job = job;
    job->ops->run(job);
}

void job_dropped(void *arg, int reason)
{
    struct job *job = arg;

    job->ops->end(job, reason);
}

int job_take(struct entry *entry)
{
    struct job *job;

    while ((job = entry_job(entry))) {
        int rc = job->ops->claim(job);
        if (rc != JOB_ELSEWHERE)
            return rc;
        if (!job->ops->swapped(job, entry))
            return JOB_ELSEWHERE;
    }
    return JOB_MINE;
}

static void account(struct pool *pool, int how)
{
    switch (how) {
    case JOB_RETURNED:
        task_ended(pool);
        break;
    case JOB_PANICKED:
        task_failed(pool, &pool->panicked);
        break;
    case JOB_OUTSIDE_RETURNED:
        add_relaxed(&pool->outside_completed, 1); /* a counter */
        break;
    default:
        add_relaxed(&pool->outside_panicked, 1); /* a counter */
    }
}

void job_finish(struct pool *pool, struct job *job, int how, bool onward)
{
    account(pool, how);
    if (job)
        then_end(pool, job, how == JOB_RETURNED || how == JOB_OUTSIDE_RETURNED ? 0 : -EFAULT, onward, true);
}

/* The end is counted, and nobody waits for that; then it is told. true: all is done. Else the caller is a guest. */
static bool finish_quiet(struct pool *pool, struct job *job)
{
    (void)rcu_attach(); /* a thread may do nothing else here but run futures */
    rcu_enter();
    runq_end(&pool->runq);
    bool quiet = !task_end_awaited(pool) && !load_seq(&pool->deferred) && job->ops->end_quiet(job);
    if (!quiet)
        add_seq(&pool->guests, 1); /* destroy, which sees none in flight by now, waits for this section first */
    rcu_exit();
    return quiet;
}

void job_finish_unheld(struct pool *pool, struct job *job, int how, bool onward)
{
    if (how == JOB_RETURNED && job && job->ops->end_quiet) {
        if (finish_quiet(pool, job))
            return;
        task_end_tell(pool);
        then_end(pool, job, 0, onward, true);
    } else {
        add_seq(&pool->guests, 1);
        job_finish(pool, job, how, onward);
    }
    guest_leave(pool);
}

void job_finish_worker(struct worker *worker, struct job *job)
{
    struct pool *pool = worker->pool;

    worker->holds = job->ops->continues && job->ops->continues(job);
    if (!worker->holds)
        task_ended(pool);
    then_end(pool, job, 0, true, false);
    if (worker->holds)
        task_ended(pool);
    worker->holds = false;
}

/* --- a task that owes a completion, and no more ------------------------------------------------------------------- */

/*
 * Its entry carries the completion through the queue, so that nothing is allocated; it is a job only from where it was
 * taken to its end.
 */
static void owed_run(struct job *job)
{
    const struct owed *owed = caa_container_of(job, const struct owed, job);

    owed->fn(owed->arg);
}

static void owed_end(struct job *job, int result)
{
    const struct owed *owed = caa_container_of(job, const struct owed, job);

    cq_post(owed->cq, owed->user_data, result);
}

static const struct job_ops owed_ops = {.run = owed_run, .end = owed_end};

void owed_make(struct owed *owed, struct entry *entry)
{
    *owed = (struct owed){
        .job.ops = &owed_ops, .fn = entry->fn, .arg = entry->arg, .cq = entry->cq, .user_data = entry->user_data};
    *entry = (struct entry){
        .fn = job_run,
        .arg = &owed->job,
        .stamp = entry->stamp,
        .cpu = entry->cpu,
        .plain = ENTRY_JOB | (entry->plain & ENTRY_STAMPED),
    };
}

/* --- a task with a context or a completion queue ---------------------------------------------------------------- */

/* Of the task what the entry does not carry, so that it fits the size that malloc has at hand. */
struct task_job {
    struct job job;
    void (*fn)(void *arg);
    void *arg;
    void (*dropped)(void *arg, int reason);
    struct rp_ctx *ctx; /* held */
    struct rp_cq *cq;   /* its completion is reserved */
    uint64_t user_data;
    bool begun;
    _Atomic uint32_t overdue;
    struct rp_allocator allocator;
};

static struct task_job *task_job_of(struct job *job)
{
    return caa_container_of(job, struct task_job, job);
}

static void task_job_free(struct task_job *t)
{
    struct rp_allocator allocator = t->allocator;

    ctx_unref(t->ctx);
    alloc_free(&allocator, t);
}

static int task_claim(struct job *job)
{
    return rp_ctx_err(task_job_of(job)->ctx);
}

static void task_run(struct job *job)
{
    struct task_job *t = task_job_of(job);

    t->begun = true;
    t->fn(t->arg);
}

static void task_end(struct job *job, int result)
{
    struct task_job *t = task_job_of(job);

    if (!t->begun && t->dropped)
        t->dropped(t->arg, result);
    if (!result && load_acquire(&t->overdue)) /* stored before the timer was cancelled */
        result = -ETIMEDOUT;
    if (t->cq)
        cq_post(t->cq, t->user_data, result);
    task_job_free(t);
}

static struct rp_ctx *task_context(struct job *job, bool make)
{
    (void)make;
    return task_job_of(job)->ctx;
}

static void task_overdue(struct job *job)
{
    struct task_job *t = task_job_of(job);

    store_release(&t->overdue, 1);
    rp_ctx_cancel(t->ctx, -ETIMEDOUT);
}

static const struct job_ops task_ops = {
    .claim = task_claim,
    .run = task_run,
    .end = task_end,
    .context = task_context,
    .overdue = task_overdue,
};

int job_from_task(struct door door, const struct rp_task *task, struct entry *entry)
{
    struct rp_allocator allocator;
    struct task_job *t;
    int rc = 0;

    if (task->ctx && ((rc = ctx_usable(task->ctx)) || (rc = ctx_err(task->ctx))))
        return rc;
    if (entry->plain && !task->ctx) {
        entry->cq = task->cq;
        entry->user_data = task->user_data;
        entry->plain = ENTRY_CQ;
        return (rc = rcu_attach()) ? rc : cq_reserve(task->cq);
    }
    rc = door_allocator(door, &allocator);
    if (rc)
        return rc;
    t = alloc_raw(&allocator, sizeof(*t));
    if (!t)
        return -ENOMEM;
    if (task->cq && (rc = cq_reserve(task->cq))) {
        alloc_free(&allocator, t);
        return rc;
    }
    *t = (struct task_job){
        .job.ops = &task_ops,
        .fn = task->fn,
        .arg = task->arg,
        .dropped = task->dropped,
        .ctx = task->ctx,
        .cq = task->cq,
        .user_data = task->user_data,
        .allocator = allocator,
    };
    rp_ctx_hold(task->ctx);
    entry->fn = job_run;
    entry->dropped = job_dropped;
    entry->arg = &t->job;
    entry->plain = entry->label || entry->deadline || entry->timeout ? ENTRY_FULL : ENTRY_JOB;
    return 0;
}

void job_discard(struct entry *entry)
{
    if (entry->plain == ENTRY_CQ) {
        cq_unreserve(entry->cq);
        return;
    }
    struct task_job *t = task_job_of(entry->arg);

    if (t->cq)
        cq_unreserve(t->cq);
    task_job_free(t);
}

/* --- the current task's context --------------------------------------------------------------------------------- */

static struct rp_ctx *current_context(bool make)
{
    const struct frame *frame = frame_current();

    return frame && frame->job && frame->job->ops->context ? frame->job->ops->context(frame->job, make) : NULL;
}

struct rp_ctx *rp_ctx_current(void)
{
    return current_context(true);
}

struct rp_ctx *ctx_inherited(void)
{
    return current_context(false);
}
