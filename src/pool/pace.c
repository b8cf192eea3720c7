/*
 * Pace: how long tasks take, for those who wait for room and for workers that run dry.
 *
 * Each worker knows when it began to have tasks to do and when it had none any more, as it asks the clock then anyway,
 * or, in between, after every so many of them. What lies between two such moments, by the tasks that ended in it, is
 * their pace: waits for submitters are not part of it, but for a microsecond at most, as they would be if the
 * submitters measured it, who could then not tell tasks that are slow from those that are waited for. A worker tells
 * the pool once it knows that of enough of them, and only what differs from what the pool knows, so that a word that
 * submitters read is seldom written; and only if the one before would have been told as well, as a worker that was
 * preempted would tell of very long tasks. A time in which a task waited for others of the pool, or ran one of them
 * inside, is forgotten: how long that took says nothing of the next one.
 *
 * All of that are hints: nothing but speed depends on them.
 */
#include "pool/pool.h"

#define PACE_TASKS 64  /* so many are enough, */
#define PACE_NS 100000 /* or as many as take so long */

void pace_begins(struct worker *worker, int64_t now)
{
    worker->pace.since = now;
    worker->pace.tasks = load_relaxed(&worker->tasks); /* own word */
}

void pace_ends(struct worker *worker, int64_t now)
{
    struct pace *pace = &worker->pace;
    uint64_t ended = load_relaxed(&worker->tasks) - pace->tasks; /* own word */

    if (pace->since && ended) { /* else it was called, or has found something, in vain */
        pace->span += (uint64_t)(now - pace->since);
        pace->ended += ended;
    }
    pace->since = 0;
    if (!pace->ended || (pace->ended < PACE_TASKS && pace->span < PACE_NS))
        return;

    uint64_t known = pool_task_ns(worker->pool) * pace->ended;
    bool differs = 2 * pace->span > 3 * known || 3 * pace->span < 2 * known;
    if (differs && pace->differed) {
        uint64_t each = pace->span / pace->ended;
        store_relaxed(&worker->pool->task_ns, each < UINT32_MAX ? (uint32_t)each : UINT32_MAX);
    }
    pace->differed = differs && !pace->differed;
    pace->span = pace->ended = 0;
}

void pace_forgets(struct worker *worker)
{
    worker->pace.since = 0;
}
