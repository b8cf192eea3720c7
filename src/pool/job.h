/*
 * Jobs: tasks that somebody looks after until they have ended, by whatever way. See job.c.
 *
 * The run queue knows nothing of them. A job's entry is an entry whose fn is job_run and whose arg is the job, so a
 * plain task pays for jobs with nothing but the look at frame.job after it, on a line that it has just written.
 */
#ifndef POOL_JOB_H
#define POOL_JOB_H

#include "pool/door.h"

#include <ringpool/context.h>

struct job;

/* What a dequeue finds, see job_take. Negative: the reason why it must not run. */
enum { JOB_MINE = 0, JOB_ELSEWHERE = 1 };

struct job_ops {
    /* Its entry was taken off the queue: JOB_MINE, JOB_ELSEWHERE (its entry keeps a place), or a reason to drop it. */
    int (*claim)(struct job *job);
    /* In JOB_ELSEWHERE: gives up the entry's hold; true: *entry is what the place is kept for. */
    bool (*swapped)(struct job *job, struct entry *entry);
    /* Whether its entry keeps a place, and for what is settled. NULL: it never does. */
    bool (*kept)(const struct job *job);
    /* In the task's frame. May not return. */
    void (*run)(struct job *job);
    /*
     * Once: 0 after run returned, -EFAULT if it did not, or the reason why it was dropped. Gives up the entry's hold.
     */
    void (*end)(struct job *job, int result);
    /* In a section: `end` of one that returned, if nobody but waiters wants to know; false: it is not so. NULL: never. */
    bool (*end_quiet)(struct job *job);
    /* Whether `end` will run something in the ended task's place. A hint. NULL: never. */
    bool (*continues)(const struct job *job);
    /* On its own thread while it runs: its context, made now if `make`. */
    struct rp_ctx *(*context)(struct job *job, bool make);
    /* On the reactor while it runs: it has run for longer than its timeout. */
    void (*overdue)(struct job *job);
};

/* Makes the job of an entry that owes a completion, and the entry that job's. */
void owed_make(struct owed *owed, struct entry *entry);

/* The fn and the dropped of a job's entry. */
void job_run(void *arg);
void job_dropped(void *arg, int reason);

static inline struct job *entry_job(const struct entry *entry)
{
    return entry_kind(entry) != ENTRY_PLAIN && entry->fn == job_run ? entry->arg : NULL;
}

/*
 * What became of an entry that was taken off the queue: JOB_MINE: *entry is a task to run, perhaps another one than it
 * was; JOB_ELSEWHERE: nothing is left to do; or the reason to drop *entry.
 */
int job_take(struct entry *entry);

/* How a task ended that ran: in flight, or accepted without the queue. */
enum { JOB_RETURNED, JOB_PANICKED, JOB_OUTSIDE_RETURNED, JOB_OUTSIDE_PANICKED };
/*
 * The accounts of a task that ran, then the end of its job (NULL: it was none). `onward`: what continues it may run on
 * the calling thread. The caller is a guest.
 */
void job_finish(struct pool *pool, struct job *job, int how, bool onward);
/*
 * The same of a task in flight by one who is no guest: what is in flight keeps the pool, and a section that is begun
 * before the end is counted keeps it for as long as it takes to become a guest, if need be.
 */
void job_finish_unheld(struct pool *pool, struct job *job, int how, bool onward);
/* The same for one that returned on the worker's own frame. */
void job_finish_worker(struct worker *worker, struct job *job);

/*
 * Before an entry is run, or dropped: one that owes a completion becomes a job's, which lives in *owed until it has
 * ended.
 */
static inline void entry_settle(struct entry *entry, struct owed *owed)
{
    if (entry_kind(entry) == ENTRY_CQ)
        owed_make(owed, entry);
    if (entry_kind(entry) == ENTRY_JOB)
        entry->dropped = job_dropped;
}

/* The job of a frame whose task has ended; the frame has none from then on. */
static inline struct job *frame_job_end(struct frame *frame)
{
    struct job *job = frame->job;

    frame->job = NULL;
    return job;
}

/* Whether the task is to be looked after: it is submitted as a job. */
static inline bool task_is_job(const struct rp_task *task)
{
    return task->ctx || task->cq;
}
/* The task with a context or a completion queue as an entry: 0 or an error. On failure of the submit: job_discard. */
int job_from_task(struct door door, const struct rp_task *task, struct entry *entry);
void job_discard(struct entry *entry);

/* Submits a job's entry as a task: what submit returns. Of `task`: priority, overload, deadline, ctx. May block. */
int pool_submit_job(struct rp_pool *pool, const struct entry *entry, const struct rp_task *task);
/* The same of a job without label, deadline and timeout, whose entry is nowhere in memory then. */
int pool_submit_brief(struct rp_pool *pool, struct job *job, const struct rp_task *task);

/* The context that what the caller's task submits goes below; NULL: none. */
struct rp_ctx *ctx_inherited(void);

#endif
