/*
 * Submit: the fast path alone on the first page, then what a submit does when it cannot go straight through.
 *
 * The fast path is: enter the pool (an RCU read-side section), claim a position, publish the task, look at the idle
 * word, leave. No lock, no allocation, no system call unless a worker sleeps. What the many forms of submit differ in
 * is data: struct how.
 */
#include "base/rcu.h"
#include "pool/job.h"
#include "pool/submit_path.h"

#include <errno.h>
#include <sched.h>

#define BUSY_TRIES 64
#define LONG_BATCH 16 /* a worker need not keep its distance; measured, see bench/RESULTS.md */

static int submit_slow(const struct rp_pool *handle, const struct entry *entry, struct how how);

static inline int overload_of(const struct pool *pool, int overload)
{
    if (overload == RP_OVERLOAD_DEFAULT)
        overload = pool->overload;
    return overload == RP_OVERLOAD_BLOCK && pool->nonblocking ? RP_OVERLOAD_FAIL : overload;
}

static inline bool may_block(const struct pool *pool, int overload)
{
    return overload_of(pool, overload) == RP_OVERLOAD_BLOCK;
}

/* A position that is free within microseconds. false: the long way, and how->nap is what to begin it with. */
static __attribute__((noinline)) bool claim_soon(struct pool *pool, struct how *how, int rc, uint64_t *position)
{
    if (rc != -EAGAIN || !may_block(pool, how->overload))
        return false;
    rc = room_soon(pool, how->class, position);
    how->nap = rc == 0;
    return rc == 1;
}

void call_and_exit(struct pool *pool)
{
    bool owed = idle_wake_one(pool);

    if (owed)
        add_seq(&pool->guests, 1);
    pool_exit();
    if (owed) {
        worker_spawn(pool, true);
        guest_leave(pool);
    }
}

/* The entry is copied for the long way, so that on the short one it is never in memory. */
static inline __attribute__((always_inline)) int submit_inline(const struct rp_pool *handle, const struct entry *entry,
                                                               struct how how)
{
    struct pool *pool;
    uint64_t position, later;
    int rc = pool_enter(handle, &pool);

    if (unlikely(rc))
        return rc;
    rc = claim_now(pool, how.class, 1, &position);
    if (unlikely(rc != 1)) {
        struct entry own = *entry;
        if (!claim_soon(pool, &how, rc, &later)) {
            pool_exit();
            return submit_slow(handle, &own, how);
        }
        position = later;
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): not set only where rc is negative, which it takes for 1 */
    ring_publish(load_acquire(&pool->runq.rings[how.class]), position, entry, true);
    wake_and_exit(pool);
    return 0;
}

static __attribute__((noinline)) int submit_entry(const struct rp_pool *handle, const struct entry *entry,
                                                  struct how how)
{
    return submit_inline(handle, entry, how);
}

static inline __attribute__((always_inline)) int submit_plain(struct rp_pool *handle, void (*fn)(void *arg), void *arg,
                                                              int overload, int64_t deadline)
{
    struct entry entry;

    if (unlikely(!fn))
        return -EINVAL;
    plain_entry(&entry, fn, arg);
    return submit_inline(handle, &entry, (struct how){.overload = overload, .deadline = deadline});
}

int rp_pool_submit(struct rp_pool *pool, void (*fn)(void *arg), void *arg)
{
    return submit_plain(pool, fn, arg, RP_OVERLOAD_DEFAULT, 0);
}

int rp_pool_try_submit(struct rp_pool *pool, void (*fn)(void *arg), void *arg)
{
    return submit_plain(pool, fn, arg, RP_OVERLOAD_FAIL, 0);
}

int submit_deadline(int64_t deadline)
{
    if (likely(deadline == 0))
        return 0;
    return deadline < 0 ? -EINVAL : rp_now() >= deadline ? -ETIMEDOUT : 0;
}

int rp_pool_submit_until(struct rp_pool *pool, void (*fn)(void *arg), void *arg, int64_t deadline)
{
    if (!pool)
        return -EINVAL;
    int rc = submit_deadline(deadline);

    return rc ? rc : submit_plain(pool, fn, arg, RP_OVERLOAD_DEFAULT, deadline);
}

/* Member by member, as task_entry. */
static inline void task_how(const struct rp_task *task, struct how *how)
{
    how->class = (unsigned)task->priority;
    how->overload = task->overload;
    how->deadline = task->deadline;
    how->ctx = task->ctx;
    how->nap = false;
}

struct how submit_how(const struct rp_task *task)
{
    struct how how;

    task_how(task, &how);
    return how;
}

/* 0, or -EINVAL, -ETIMEDOUT. */
static inline int task_validate(const struct rp_task *task)
{
    if (!task->fn || (unsigned)task->priority > RP_PRIO_LOW || (unsigned)task->overload > RP_OVERLOAD_CALLER_RUNS ||
        task->timeout < 0)
        return -EINVAL;
    return submit_deadline(task->deadline);
}

/* The entry of a task that is right. Member by member: what is put together elsewhere and copied costs a stall. */
static inline void task_entry(const struct rp_task *task, int cpu, struct entry *entry)
{
    entry->fn = task->fn;
    entry->arg = task->arg;
    entry->dropped = task->dropped;
    entry->label = task->label;
    entry->deadline = task->deadline;
    entry->timeout = task->timeout;
    entry->cpu = cpu;
    entry->plain = !task->dropped && !task->label && !task->deadline && !task->timeout;
}

/* The entry and the manner that a task asks for, or -EINVAL, -ETIMEDOUT. */
static int task_read(const struct rp_task *task, struct entry *entry, struct how *how)
{
    int rc = task_validate(task);

    if (rc)
        return rc;
    task_entry(task, cpu_current(), entry);
    task_how(task, how);
    return 0;
}

static __attribute__((noinline)) int submit_as_job(struct rp_pool *pool, const struct rp_task *task)
{
    struct entry entry;
    struct how how;
    int rc = task_read(task, &entry, &how);

    if (rc || (rc = job_from_task(door_pool(pool), task, &entry)))
        return rc;
    rc = submit_entry(pool, &entry, how);
    if (rc)
        job_discard(&entry);
    return rc;
}

int rp_pool_submit_task(struct rp_pool *pool, const struct rp_task *task)
{
    struct entry entry;
    struct how how;

    if (!pool || !task)
        return -EINVAL;
    if (unlikely(task_is_job(task)))
        return submit_as_job(pool, task);
    int rc = task_read(task, &entry, &how);
    return rc ? rc : submit_inline(pool, &entry, how);
}

int pool_submit_job(struct rp_pool *pool, const struct entry *entry, const struct rp_task *task)
{
    return submit_entry(pool, entry, submit_how(task));
}

int pool_submit_brief(struct rp_pool *pool, struct job *job, const struct rp_task *task)
{
    struct entry entry = {.fn = job_run, .arg = job, .cpu = cpu_current(), .plain = ENTRY_JOB};

    return submit_inline(pool, &entry, submit_how(task));
}

/* --- batches ---------------------------------------------------------------------------------------------------- */

/* How many tasks from the first on can be claimed at once: those of its class that are not wrong. */
static inline unsigned run_length(const struct rp_task *tasks, unsigned n)
{
    unsigned length = 1;

    while (length < n && tasks[length].priority == tasks[0].priority && !task_is_job(&tasks[length]) &&
           !task_validate(&tasks[length]))
        length++;
    return length;
}

/* Apart, so that the others' entries need not be in memory. */
static __attribute__((noinline)) void batch_put_stamped(struct ring *ring, uint64_t position,
                                                        const struct rp_task *task, int cpu, bool last)
{
    struct entry entry;

    task_entry(task, cpu, &entry);
    ring_put_stamped(ring, position, &entry, last);
}

/*
 * Claims and publishes as many of the n tasks, all of one class, as there is room for, in the caller's section, which
 * it ends. Returns how many; 0 when the next one must take the long way: then the section goes on.
 */
static unsigned batch_in_section(struct pool *pool, const struct rp_task *tasks, unsigned n)
{
    unsigned class = (unsigned)tasks[0].priority;
    uint64_t position;
    int claimed = claim_now(pool, class, n, &position);

    if (claimed <= 0)
        return 0;
    struct ring *ring = load_acquire(&pool->runq.rings[class]);
    int cpu = cpu_current();

    if (cpu >= 0 && n >= LONG_BATCH)
        cpu |= CPU_BATCH;
    for (int i = 0; i < claimed; i++) { /* a deadline that has passed since the check is met at the dequeue */
        uint64_t at = position + (unsigned)i;
        prefetch_to_write(slot_at(ring, at + BATCH_AHEAD));
        if (ring_stamps(ring, at)) {
            batch_put_stamped(ring, at, &tasks[i], cpu, i + 1 == claimed);
        } else {
            struct entry entry;
            task_entry(&tasks[i], cpu, &entry);
            ring_put(ring, at, &entry, i + 1 == claimed);
        }
    }
    wake_and_exit(pool); /* one decision: the wake chain does the rest */
    return (unsigned)claimed;
}

/* `cut`: the claim before has found no room for all. */
static unsigned batch_claim(const struct rp_pool *handle, const struct rp_task *tasks, unsigned n, bool cut)
{
    struct pool *pool;

    if (pool_enter(handle, &pool))
        return 0;
    if (unlikely(cut) && may_block(pool, tasks[0].overload))
        room_rest(pool);
    unsigned claimed = batch_in_section(pool, tasks, n);
    if (!claimed)
        pool_exit();
    return claimed;
}

/* One that goes by itself, as it is a job, or meets no room, or an error. */
static __attribute__((noinline)) int batch_single(struct rp_pool *pool, const struct rp_task *task)
{
    struct entry entry;
    struct how how;

    if (task_is_job(task))
        return submit_as_job(pool, task);
    int rc = task_read(task, &entry, &how);
    return rc ? rc : submit_entry(pool, &entry, how);
}

int rp_pool_submit_batch(struct rp_pool *pool, const struct rp_task *tasks, unsigned n)
{
    unsigned accepted = 0, checked = 0; /* tasks before `checked` are right, and of one class from `accepted` on */
    bool cut = false;

    if (!pool || (n && !tasks) || n > INT32_MAX)
        return -EINVAL;
    while (accepted < n) {
        const struct rp_task *first = &tasks[accepted];
        bool goes = !task_is_job(first) && !task_validate(first); /* its deadline may have passed by now */
        if (goes && checked <= accepted)
            checked = accepted + run_length(first, n - accepted);
        unsigned claimed = goes ? batch_claim(pool, first, checked - accepted, cut) : 0;
        accepted += claimed;
        cut = claimed && accepted < checked;
        if (claimed)
            continue;
        int rc = batch_single(pool, first);
        if (rc)
            return accepted ? (int)accepted : rc;
        accepted++;
    }
    return (int)accepted;
}

/* --- without room ----------------------------------------------------------------------------------------------- */

/* The incoming task is accepted and ended without the queue. */
static void end_here(struct pool *pool, const struct entry *entry, int reason)
{
    struct entry own = *entry;
    struct owed owed;

    if (!reason)
        reason = job_take(&own);
    entry_settle(&own, &owed);
    if (reason) {
        frame_drop(pool, &own, reason, false);
        add_relaxed(&pool->outside_dropped, 1); /* a counter */
        fates_count(&pool->fates, reason);
        return;
    }
    if (pool->measured)
        entry_measure(&own);
    bool returned = frame_run(pool, worker_self(pool), &own, FRAME_CALLER);
    job_finish(pool, entry_job(&own), returned ? JOB_OUTSIDE_RETURNED : JOB_OUTSIDE_PANICKED, false);
}

/* Drops the oldest queued task. -EAGAIN: none is queued. */
static int discard_oldest(struct pool *pool)
{
    struct entry victim;
    struct owed owed;

    int rc;

    do {
        while (!runq_take_lowest(&pool->runq, &victim)) {
            if (!runq_ready(&pool->runq))
                return -EAGAIN;
            sched_yield(); /* a worker is just taking it */
        }
        rc = task_check(pool, &victim, &owed);
    } while (rc > 0); /* what was there runs elsewhere, and is still in flight */
    task_drop(pool, &victim, rc ? rc : -EAGAIN);
    return 0;
}

/*
 * Another claim, for a while if only the ring has no room: a consumer is about to leave its slot, or tasks fill the
 * ring whose workers are still to be made, which this then sees to. Returns as runq_claim, but never -EBUSY.
 */
static int claim_again(struct pool *pool, struct how how, bool newcomer, uint64_t *position)
{
    for (int tries = 0;; tries++) {
        int rc = runq_claim(&pool->runq, how.class, 1, newcomer, position);
        if (rc != -EBUSY)
            return rc;
        if (tries >= BUSY_TRIES &&
            (load_seq(&pool->alive) >= load_seq(&pool->target) || load_seq(&pool->spawn_failing)))
            return -EAGAIN;
        if (tries >= BUSY_TRIES)
            idle_call_one(pool);
        sched_yield();
    }
}

/* Gets a position by the overload policy: 1; 0: the task is ended already; or what submit returns. */
static int claim_by_policy(struct pool *pool, const struct entry *entry, struct how how, bool refused,
                           uint64_t *position)
{
    int overload = overload_of(pool, how.overload);
    bool newcomer = true;
    int rc;

    while ((rc = refused || how.nap ? -EAGAIN : claim_again(pool, how, newcomer, position)) == -EAGAIN) {
        switch (overload) {
        case RP_OVERLOAD_BLOCK:
            return room_claim(pool, how, position);
        case RP_OVERLOAD_DISCARD_NEWEST:
            end_here(pool, entry, -EAGAIN);
            return 0;
        case RP_OVERLOAD_CALLER_RUNS:
            end_here(pool, entry, 0);
            return 0;
        case RP_OVERLOAD_DISCARD_OLDEST:
            if (discard_oldest(pool))
                return -EAGAIN;
            newcomer = refused = false; /* the place is its own making: it overtakes nobody */
            continue;
        default:
            return -EAGAIN;
        }
    }
    return rc;
}

static int class_ensure(struct pool *pool, unsigned class)
{
    rp_lock_acquire(&pool->lock);
    int rc = runq_add_class(&pool->runq, class);
    rp_lock_release(&pool->lock);
    return rc;
}

static int submit_guest(struct pool *pool, const struct entry *entry, struct how how, bool refused)
{
    uint64_t position;

    if (runq_closed(&pool->runq))
        return -ESHUTDOWN;
    int rc = class_ensure(pool, how.class);
    if (rc)
        return rc;
    rc = worker_ensure(pool);
    if (rc)
        return rc == -ENOMEM ? rc : -EAGAIN;
    rc = claim_by_policy(pool, entry, how, refused, &position);
    if (rc != 1)
        return rc;
    runq_publish(&pool->runq, how.class, position, entry, true);
    if (idle_must_wake(pool))
        idle_call_one(pool);
    return 0;
}

static __attribute__((noinline)) int submit_slow(const struct rp_pool *handle, const struct entry *entry,
                                                 struct how how)
{
    struct pool *pool;
    int rc = guest_enter(handle, &pool);

    if (rc)
        return rc;
    rc = submit_guest(pool, entry, how, false);
    if (rc)
        add_relaxed(&pool->rejected, 1); /* a counter */
    guest_leave(pool);
    return rc;
}

/* --- for the multi pool ------------------------------------------------------------------------------------------- */

int submit_read(const struct rp_task *task, struct entry *entry, struct how *how)
{
    return task_read(task, entry, how);
}

unsigned submit_fast_batch(struct pool *pool, const struct rp_task *tasks, unsigned n)
{
    struct entry entry;
    struct how how;

    return task_read(&tasks[0], &entry, &how) ? 0 : batch_in_section(pool, tasks, run_length(tasks, n));
}

bool submit_blocks(const struct pool *pool, struct how how)
{
    return may_block(pool, how.overload);
}

int submit_as_guest(struct pool *pool, const struct entry *entry, struct how how, enum submit_as as)
{
    int rc = submit_guest(pool, entry, how, as == SUBMIT_REFUSED);

    if (rc && as != SUBMIT_TRIES)
        add_relaxed(&pool->rejected, 1); /* a counter */
    return rc;
}
