/*
 * A worker: takes tasks, runs them, waits for more (search.c, idle.h), leaves.
 */
#include "base/cpu.h"
#include "base/futex.h"
#include "base/rcu.h"
#include "pool/job.h"
#include "pool/runq_path.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STAMPED (1U << 31) /* of `unstamped`: this task has set `since` */
#ifndef TIMED_TASKS        /* the model has one of its own */
#define TIMED_TASKS 64     /* worker_times is called after so many */
#endif
#define WAY_TURNS 64U /* of the CPU, while others take; */
#define WAY_LOOK 32U  /* and to see that they do: 0.8 us */

/* --- states ----------------------------------------------------------------------------------------------------- */

void worker_turn(struct worker *worker, enum rp_worker_state state)
{
    static const char *const names[] = {
        [RP_WORKER_UNINITIALISED] = "uninitialised", [RP_WORKER_RUNNING] = "running", [RP_WORKER_IDLE] = "idle",
        [RP_WORKER_STOPPING] = "stopping",           [RP_WORKER_STOPPED] = "stopped",
    };
    const struct pool *pool = worker->pool;

    store_release(&worker->state, state);
    if (__builtin_expect(pool->traces, 0))
        log_emit(&pool->log, RP_LOG_DEBUG, "pool %s: worker %u is %s", pool->name, worker->number, names[state]);
}

/* --- one task --------------------------------------------------------------------------------------------------- */

/* Precise to some milliseconds, for reports of ages: a fifth of the price of rp_now. */
static int64_t coarse_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void worker_labels(struct worker *worker, const char *label)
{
    if (load_relaxed(&worker->label) == label) /* own word */
        return;
    store_release(&worker->label, label);
    store_relaxed(&worker->unstamped, 0); /* own word: the next task says that it has none */
}

/*
 * Before a task: since when it runs, and what is said of it. Even the coarse clock takes a quarter of the time that a
 * worker spends on an empty task, so of tasks without a label one in so many does this as take some microseconds, as
 * far as is known, and says the same of the others. Only a task of that group after a long one would look older than it
 * is: hence the next one does it as soon as somebody has looked (worker_since), and after a microsecond without work.
 * While `unstamped` is not 0 the state is RUNNING, and there is no label.
 */
static __attribute__((noinline)) void worker_says(struct worker *worker, const char *label)
{
    int64_t now = coarse_now();
    bool moved = now != load_relaxed(&worker->since); /* own word */

    store_relaxed(&worker->since, now);                    /* before the state, for health.c */
    if (load_relaxed(&worker->state) != RP_WORKER_RUNNING) /* own word */
        worker_turn(worker, RP_WORKER_RUNNING);
    worker_labels(worker, label);
    worker->frame.label = label;
    store_release(&worker->unstamped, label || moved ? 0 : worker->taker.alike | STAMPED);
}

/* Whether that was said before a task before, and goes for this one as well. */
static inline bool worker_has_said(struct worker *worker, const char *label)
{
    uint32_t left = load_relaxed(&worker->unstamped) & ~STAMPED; /* own word, but for those who ask for 0 */

    if (label || left <= 1)
        return false;
    store_relaxed(&worker->unstamped, left - 1); /* over a 0, now and then: who asked asks again */
    return true;
}

int64_t worker_since(struct worker *worker, bool *own)
{
    uint32_t left = load_acquire(&worker->unstamped); /* before `since` */
    int64_t since = load_relaxed(&worker->since);     /* a report's figure */

    *own = left == 0 || left & STAMPED;
    store_relaxed(&worker->unstamped, 0); /* a hint */
    return since;
}

/* See measure.h: from now on it may have tasks to do, and it has none at the moment. */
static inline void row_begins(struct worker *worker)
{
    if (worker->measures)
        measure_row_begins(worker);
}

static inline void row_ends(struct worker *worker)
{
    if (worker->measures)
        measure_row_ends(worker, rp_now());
}

/*
 * It has nothing to do: that time counts for no task, or, where it is over at once, in no more than a report's age.
 *
 * And it is the time to register with RCU. To one that only waits, since it was made, that would be more than all else
 * that it has of its own, in memory and in time; and of a thousand that are called together each would have the next
 * one wait for that.
 */
static inline bool worker_searches(struct worker *worker, bool *searching)
{
    (void)rcu_attach(); /* what can fail of it was done when the pool was created */
    worker->taker.timed_at = 0;
    bool found = search_for_work(worker, searching);

    if (worker->search.soon)
        return true;
    if (worker->search.dry_at) {
        pace_ends(worker, worker->search.dry_at);
        if (found)
            pace_begins(worker, rp_now());
    }
    store_relaxed(&worker->unstamped, 0); /* own word */
    if (worker->measures) {
        measure_row_ends(worker, worker->search.dry_at ? worker->search.dry_at : rp_now());
        if (found)
            measure_row_begins(worker);
    }
    return found;
}

static __attribute__((noinline)) void task_ended_watched(struct pool *pool, uint64_t attention)
{
    if ((uint32_t)attention)
        room_signal(pool);
    if (attention & ATTENTION_WATCH)
        pool_progress(pool);
    if ((attention & ~ATTENTION_WATCH) >= ATTENTION_ENDER)
        pool_notify_enders(pool); /* which tells them only when this was the last that they wait for */
}

/* Whether only submitters wait, whose head has been called: E3 in room.c, and what task_ended_watched would find. */
static inline bool room_has_called(struct pool *pool, uint64_t attention)
{
    return attention < ATTENTION_ENDER && load_seq(&pool->room.pending);
}

/* After each task that has come into done: who waits for that. */
static inline void look_after_end(struct pool *pool)
{
    uint64_t attention = load_seq(&pool->room.attention); /* E2 in room.c */
    if (__builtin_expect(attention != 0, 0) && !room_has_called(pool, attention))
        task_ended_watched(pool, attention);
}

bool task_end_awaited(struct pool *pool)
{
    return load_seq(&pool->room.attention) != 0; /* E2 in room.c */
}

void task_end_tell(struct pool *pool)
{
    look_after_end(pool);
}

void task_ended(struct pool *pool)
{
    runq_end(&pool->runq);
    look_after_end(pool);
}

void task_failed(struct pool *pool, _Atomic uint64_t *how)
{
    add_seq(&pool->failing, 1);
    add_relaxed(how, 1); /* ordered by its neighbours */
    task_ended(pool);
    add_seq(&pool->failed, 1);
}

void task_drop(struct pool *pool, const struct entry *entry, int reason)
{
    frame_drop(pool, entry, reason, true);
    task_failed(pool, &pool->dropped);
    fates_count(&pool->fates, reason);
}

static __attribute__((noinline)) int task_check_full(struct pool *pool, struct entry *entry, struct owed *owed)
{
    int rc = job_take(entry);

    entry_complete(entry); /* or what came in its place */
    entry_settle(entry, owed);
    if (rc)
        return rc;
    if (load_seq(&pool->dropping)) /* the release drops what it sees itself; this is for the rest */
        return -ESHUTDOWN;
    return entry->deadline && rp_now() >= entry->deadline ? -ETIMEDOUT : 0;
}

/* What task_check finds of most. */
static inline bool task_is_clear(const struct pool *pool, const struct entry *entry)
{
    return entry->plain == ENTRY_PLAIN && !load_relaxed(&pool->dropping); /* a drop that is seen late is none */
}

int task_check(struct pool *pool, struct entry *entry, struct owed *owed)
{
    if (!task_is_clear(pool, entry))
        return task_check_full(pool, entry, owed);
    entry_complete(entry);
    return 0;
}

/* On the reactor: the task that the timer was armed for runs still, or it would have been cancelled. */
void run_limit_fire(struct timer *timer)
{
    const struct limit *limit = caa_container_of(timer, struct limit, timer);
    struct pool *pool = limit->pool;

    add_relaxed(&pool->fates.overran, 1); /* a counter */
    if (limit->worker)
        store_release(&limit->worker->hung, 1);
    log_emit(&pool->log, RP_LOG_WARNING, "pool %s: worker %d is hung: task %s runs for longer than its timeout",
             pool->name, limit->worker ? (int)limit->worker->number : -1,
             limit->label ? limit->label : "without label");
    if (limit->job)
        limit->job->ops->overdue(limit->job);
}

void run_limit_init(struct limit *limit, struct pool *pool, struct worker *worker)
{
    timer_init(&limit->timer, pool->reactor, run_limit_fire);
    limit->pool = pool;
    limit->worker = worker;
}

/* Labels of full entries only: a plain one has no timeout. The reactor's lock publishes what is set here. */
void run_limit_arm(struct limit *limit, const struct entry *entry)
{
    limit->label = entry->label;
    limit->job = entry_job(entry);
    timer_arm(&limit->timer, rp_after(entry->timeout));
}

void run_limit_end(struct limit *limit)
{
    timer_cancel_wait(&limit->timer);
    if (limit->worker)
        store_release(&limit->worker->hung, 0);
}

static void run_limited(struct worker *worker, const struct entry *entry)
{
    run_limit_arm(&worker->run_limit, entry);
    entry->fn(entry->arg);
}

/* Undoes what a task may leave behind on its worker, whichever way it ended; a plain one was never limited. */
static inline void task_left(struct worker *worker, bool plain)
{
    struct frame *frame = &worker->frame;

    frame->phase = FRAME_CLOSING;
    if (__builtin_expect(frame->blocking != 0, 0))
        extra_settle(frame);
    if (!plain && worker->limited) {
        worker->limited = false;
        run_limit_end(&worker->run_limit);
    }
}

/*
 * An entry that has been checked, and whether it is ENTRY_PLAIN, and measured. true: it has ended, and the caller is to
 * count it.
 */
static inline __attribute__((always_inline)) bool entry_run(struct worker *worker, struct pool *pool,
                                                            const struct entry *entry, bool plain, bool measured)
{
    const char *label = plain || entry_kind(entry) ? NULL : entry->label;
    if (!worker_has_said(worker, label))
        worker_says(worker, label);
    worker->frame.phase = FRAME_OPEN;
    if (measured)
        measure_begin(worker->measures, entry->stamp);
    if (!plain && !entry_kind(entry) && entry->timeout) {
        worker->limited = true;
        run_limited(worker, entry);
    } else {
        entry->fn(entry->arg);
    }
    if (__builtin_expect(load_relaxed(&pool->forked) != 0, 0)) /* a child of the task's: see worker_loop */
        return false;
    if (measured)
        measure_end(worker->measures);
    if (worker->taker.stride) /* what the next task is taken with is wanted for writing as soon as that can be */
        taker_fetch(runq_normal(&pool->runq), &worker->taker);
    task_left(worker, plain);
    store_relaxed(&worker->tasks, load_relaxed(&worker->tasks) + 1); /* own word; ordered by [end] */
    if (plain || !worker->frame.job)
        return true;
    job_finish_worker(worker, frame_job_end(&worker->frame));
    worker->frame.phase = FRAME_IDLE;
    return false;
}

static __attribute__((noinline)) bool worker_run_full(struct worker *worker, struct entry *entry)
{
    struct pool *pool = worker->pool;
    int reason = task_check(pool, entry, &worker->owed);

    if (!reason)
        return entry_run(worker, pool, entry, entry_kind(entry) == ENTRY_PLAIN, entry_stamped(entry));
    if (reason < 0)
        task_drop(pool, entry, reason);
    return false;
}

/* true as of entry_run. What the entry has beside is in *more, which is used up; see slot_empty. */
static inline __attribute__((always_inline)) bool worker_run(struct worker *worker, struct pool *pool,
                                                             const struct entry *entry, struct entry *more)
{
    worker->submitter_cpu = entry->cpu;
    if (__builtin_expect(task_is_clear(pool, entry), 1))
        return entry_run(worker, pool, entry, true, false);
    entry_brief(more, entry);
    return worker_run_full(worker, more);
}

/* The task of the worker's own frame did not return. */
static void worker_panicked(struct worker *worker)
{
    struct pool *pool = worker->pool;

    task_left(worker, false);
    pace_forgets(worker);
    if (worker->measures && worker->measures->began)
        measure_end(worker->measures);
    row_ends(worker);
    panic_report(&worker->frame);
    job_finish_unheld(pool, frame_job_end(&worker->frame), JOB_PANICKED, false);
    worker->frame.phase = FRAME_IDLE;
}

/* What it ran in a task's place ended the thread: the task itself had returned. */
static void worker_held(struct worker *worker)
{
    worker->holds = false;
    task_ended(worker->pool);
    worker->frame.phase = FRAME_IDLE;
}

bool pool_help(struct pool *pool, int drop)
{
    static _Thread_local struct taker taker;
    struct entry entry;
    struct owed completion;
    bool owed = false;

    while (!runq_take(&pool->runq, &taker, &owed, &entry) && !share_steal(runq_normal(&pool->runq), &entry)) {
        if (!shares_left(runq_normal(&pool->runq)))
            return false;
        sched_yield(); /* a worker is just taking what is there */
    }
    int rc = task_check(pool, &entry, &completion);
    if (rc > 0)
        return true;
    if (rc || drop) {
        task_drop(pool, &entry, rc ? rc : drop);
        return true;
    }
    if (entry_stamped(&entry))
        measure_shared_wait(pool->measured, entry.stamp);
    bool returned = frame_run(pool, worker_self(pool), &entry, FRAME_HELP);
    job_finish(pool, entry_job(&entry), returned ? JOB_RETURNED : JOB_PANICKED, false);
    return true;
}

/* --- the end of a shift, or of the worker ------------------------------------------------------------------------- */

/* Gives up its place among those that have begun, if there are more than `least`. */
static bool settled_leave(struct pool *pool, uint32_t least)
{
    uint32_t settled = load_seq(&pool->settled);

    do {
        if (settled <= least)
            return false;
    } while (!cas_seq(&pool->settled, &settled, settled - 1));
    return true;
}

#define IF_ALL_IS_OVER UINT_MAX

/*
 * Leaves, if more than `floor` live and more than `least` have begun, or all is over: gives up its place in `alive`,
 * then looks at the queue (see idle.h). true: it is gone. false: it stays, and *searching says as what. One that
 * expires counts on no worker that may yet fail to begin: the minimum would end for one that never comes.
 */
static bool worker_leave(struct worker *worker, unsigned floor, unsigned least, bool *searching)
{
    struct pool *pool = worker->pool;
    uint32_t alive = load_seq(&pool->alive);
    unsigned standing = pool->min_workers;

    *searching = false;
    if (runq_closed(&pool->runq)) {
        least = 0;
        floor = runq_drained(&pool->runq) ? 0 : alive;
        standing = pool->standing;
    }
    if (!settled_leave(pool, least))
        return false;
    do {
        if (alive <= floor)
            goto stays;
    } while (!cas_seq(&pool->alive, &alive, alive - 1));
    if (!runq_closed(&pool->runq) && alive - 1 < standing) { /* a reboot counted on us */
        add_seq(&pool->alive, 1);
        goto stays;
    }
    worker->enlisted = false;
    if (!runq_ready(&pool->runq))
        return true;
    rcu_enter();
    *searching = worker->enlisted = idle_wake_one(pool); /* if this finds nobody else it enlists one more: the caller */
    rcu_exit();
    if (!worker->enlisted)
        return true;
stays:
    add_seq(&pool->settled, 1);
    return false;
}

/* What it was told may be true no more. */
static bool called_leaves(struct worker *worker, uint32_t call, bool *searching)
{
    struct pool *pool = worker->pool;

    if (call == PARK_SURPLUS)
        return worker_leave(worker, load_seq(&pool->target), 0, searching);
    if (call != PARK_EXPIRED)
        return worker_leave(worker, IF_ALL_IS_OVER, 0, searching);
    if (!worker_leave(worker, pool->min_workers, pool->min_workers, searching))
        return false;
    add_relaxed(&pool->expired, 1); /* a counter */
    return true;
}

static bool is_surplus(struct pool *pool)
{
    return load_relaxed(&pool->alive) > load_relaxed(&pool->target); /* seen late: the next task will see it */
}

/* The last task, if its end is owed, comes into done without a next one. */
static inline void task_settle(struct worker *worker, bool *owed)
{
    if (*owed)
        task_ended(worker->pool);
    *owed = false;
    worker->frame.phase = FRAME_IDLE;
}

/*
 * Steals a task that waits behind another worker's, as share_rob, and runs it; *owed as of entry_run. Apart from the
 * worker's loop, so that there a task is in registers.
 */
static __attribute__((noinline)) int worker_steals(struct worker *worker, int64_t now, bool searching, bool *owed)
{
    struct pool *pool = worker->pool;
    struct entry entry;
    int rc = share_rob(runq_normal(&pool->runq), now, &entry);

    if (rc != 1)
        return rc;
    if (searching)
        idle_search_end(pool);
    *owed = worker_run(worker, pool, &entry, &entry);
    return 1;
}

/*
 * Where the head may not go on before a task begins that waits in a share: steals that one, and runs it, as
 * worker_steals. A holder that is so far behind others was preempted, as a rule, and often by the very one that finds
 * it so, while another CPU is free: who sleeps for a moment leaves it this one, and wakes up on that. What has ended is
 * counted.
 */
static __attribute__((noinline)) int worker_catches_up(struct worker *worker, bool *searching, bool *owed)
{
    struct pool *pool = worker->pool;
    struct ring *ring = runq_normal(&pool->runq);
    _Atomic uint32_t nobody = 0;
    struct entry entry;

    if (!load_relaxed(&ring->shares_used) || !share_lags(&pool->runq, load_seq(&ring->head))) /* late: looks again */
        return 0;
    if (*searching)
        idle_search_end(pool);
    *searching = false;
    pace_forgets(worker);
    row_ends(worker);
    if (SHARE_NAP_NS)
        futex_wait(&nobody, 0, rp_after(SHARE_NAP_NS));
    row_begins(worker);
    cpu_relax();
    if (!share_lags(&pool->runq, load_seq(&ring->head)) || !share_steal(ring, &entry))
        return -EAGAIN;
    *owed = worker_run(worker, pool, &entry, &entry);
    return 1;
}

/* From time to time a worker looks whether tasks wait behind others', however much it has to do itself. */
static inline bool look_is_due(const struct worker *worker)
{
    return load_relaxed(&worker->since) - worker->taker.looked_at >= SHARE_LOOK_NS; /* own word */
}

/* Returns what is owed then. One that finds such a task looks again after it. */
static __attribute__((noinline)) bool worker_looks(struct worker *worker, bool owed)
{
    int64_t now = load_relaxed(&worker->since); /* own word */

    task_settle(worker, &owed);
    if (worker_steals(worker, now, false, &owed) != 1)
        worker->taker.looked_at = now;
    return owed;
}

/* Whether others take tasks, or end them, as far as is seen in a moment. */
static bool others_take(const struct pool *pool)
{
    const _Atomic uint64_t *head = &runq_normal(&pool->runq)->head;
    uint64_t before = load_relaxed(head);

    cpu_pause(WAY_LOOK);
    return load_relaxed(head) != before;
}

/*
 * It has met another worker at the head, among brief tasks, of which one worker does more than two: so whoever else
 * wants the CPU may have it, before all submitters that would fill the queue meanwhile. Most who want it may be workers
 * that have met others themselves: each of these gives it on as well, while one takes on another CPU, so that it soon
 * comes to a submitter.
 */
static __attribute__((noinline)) void worker_makes_way(struct worker *worker)
{
    unsigned turns = 0;

    worker->taker.meets = false;
    worker->taker.timed_at = 0;
    pace_forgets(worker);
    store_relaxed(&worker->unstamped, 0); /* own word */
    row_ends(worker);
    do
        sched_yield();
    while (++turns < WAY_TURNS && others_take(worker->pool));
    row_begins(worker);
}

/*
 * Learns how long its tasks are; a worker of brief ones keeps its distance from who submits them. Returns what is owed
 * then.
 */
static __attribute__((noinline)) bool worker_times(struct worker *worker, bool owed)
{
    if (worker->taker.taken == worker->taker.timed_taken) /* what it ran since was stolen from others */
        return owed;
    taker_learn(&worker->pool->runq, &worker->taker);
    if (!worker->taker.brief || pool_task_ns(worker->pool) >= BRIEF_NS) { /* else it knows enough */
        pace_ends(worker, worker->taker.timed_at);
        pace_begins(worker, worker->taker.timed_at);
    }
    if (worker->measures)
        measure_row(worker, worker->taker.timed_at);
    if (worker->taker.meets) {
        task_settle(worker, &owed);
        worker_makes_way(worker);
    } else if (worker->taker.brief && search_is_close(worker)) {
        task_settle(worker, &owed);
        search_fall_back(worker);
    }
    return owed;
}

/* In a child that has returned from the task that forked: the worker ends as a thread does. */
static inline bool is_in_child(const struct pool *pool)
{
    return __builtin_expect(load_relaxed(&pool->forked) != 0, 0);
}

/* After a task. false: the worker is gone. */
static inline __attribute__((always_inline)) bool worker_goes_on(struct worker *worker, struct pool *pool, bool *owed,
                                                                 bool *searching, bool shares)
{
    if (!*owed && is_in_child(pool)) /* a task that is owed has ended here */
        return false;
    if (__builtin_expect(worker->taker.taken % TIMED_TASKS == 0, 0))
        *owed = worker_times(worker, *owed);
    if (shares && __builtin_expect(look_is_due(worker), 0)) {
        *owed = worker_looks(worker, *owed);
        if (is_in_child(pool))
            return false;
    }
    if (__builtin_expect(!is_surplus(pool), 1))
        return true;
    task_settle(worker, owed);
    share_leave(&worker->taker);
    return !worker_leave(worker, load_seq(&pool->target), 0, searching);
}

/* Sleeps until it is called. false: it has left. */
static __attribute__((noinline)) bool worker_parks(struct worker *worker, bool *searching)
{
    struct pool *pool = worker->pool;

    share_leave(&worker->taker);
    if (load_relaxed(&worker->state) != RP_WORKER_IDLE) /* own word */
        worker_turn(worker, RP_WORKER_IDLE);
    store_relaxed(&worker->label, NULL);
    if (runq_closed(&pool->runq) && runq_drained(&pool->runq)) {
        if (*searching)
            idle_search_end(pool);
        return !worker_leave(worker, IF_ALL_IS_OVER, 0, searching);
    }
    if (worker->measures)
        measure_rests(pool);
    int64_t now = rp_now();
    pace_ends(worker, now); /* before it sleeps: from its call to its task there is no time to lose */
    uint32_t call = idle_park(pool, worker, *searching, now);
    now = rp_now();
    pace_begins(worker, now);
    search_parked(worker, now);
    *searching = worker->search.called = call == PARK_NOTIFIED;
    if (!*searching && called_leaves(worker, call, searching))
        return false;
    row_begins(worker);
    return true;
}

/* One that was made before there is anything to do sleeps at once; not one that a panic brings here. false: it left. */
static bool worker_wakes(struct worker *worker, bool *searching)
{
    return *searching || worker->taker.taken || worker_parks(worker, searching);
}

/* Apart from the function that sets the landing of panics, in which no variable could stay in a register. */
static inline __attribute__((always_inline)) void worker_loop(struct worker *worker, bool searching, bool shares)
{
    struct pool *pool = worker->pool;
    struct entry entry, more;
    bool owed = false; /* its last task has ended and is not in done */

    for (;;) {
        bool ended = owed;
        bool taken = runq_take_as(&pool->runq, &worker->taker, &owed, &entry, &more, shares);
        if (ended && !owed) {
            worker->frame.phase = FRAME_IDLE;
            look_after_end(pool);
        }
        if (taken) {
            if (searching) {
                if (__builtin_expect(worker->search.called, 0))
                    idle_called_found(pool, worker->taker.last, worker->search.called_at);
                else
                    idle_search_end(pool);
                worker->search.called = searching = false;
            }
            owed = worker_run(worker, pool, &entry, &more);
            if (!worker_goes_on(worker, pool, &owed, &searching, shares))
                return;
            continue;
        }
        task_settle(worker, &owed);
        bool stole_owed = false; /* so that `owed` need not be in memory */
        int stole = shares ? worker_catches_up(worker, &searching, &stole_owed) : 0;
        if (stole == 0) {
            if (worker_searches(worker, &searching))
                continue;
            stole = shares ? worker_steals(worker, 0, searching, &stole_owed) : 0;
            if (stole == 1)
                searching = false;
            else if (!searching)
                stole = 0; /* somebody else does, or will be called */
        }
        if (stole == 1) {
            owed = stole_owed;
            if (!worker_goes_on(worker, pool, &owed, &searching, shares))
                return;
        }
        if (stole)
            continue;
        if (!worker_parks(worker, &searching))
            return;
    }
}

/* Twice, so that a task in order pays for no share. */
static __attribute__((noinline)) void loop_in_order(struct worker *worker, bool searching)
{
    worker_loop(worker, searching, false);
}

static __attribute__((noinline)) void loop_with_shares(struct worker *worker, bool searching)
{
    worker_loop(worker, searching, true);
}

/* --- the thread ------------------------------------------------------------------------------------------------- */

static int worker_begin(struct worker *worker)
{
    struct pool *pool = worker->pool;
    int rc;

    store_relaxed(&worker->tid, (uint32_t)syscall(SYS_gettid)); /* a report's figure */
    prctl(PR_SET_NAME, worker->name);
    if (pool->hooks.sched_policy &&
        sched_setscheduler(0, pool->hooks.sched_policy, &(struct sched_param){pool->hooks.sched_priority}))
        return -errno;
    worker->local = NULL;
    rc = panic_stack_set(worker);
    if (!rc && pool->hooks.worker_start) {
        rc = pool->hooks.worker_start(pool->hooks.worker_user, worker->number, &worker->local);
        rc = rc > 0 ? 0 : rc;
    }
    worker->started = !rc;
    if (rc)
        panic_stack_clear(worker);
    return rc;
}

/* Tells the creator how its first workers began, with the last of those that it waits for or the first that failed. */
static void worker_reports(struct pool *pool, int rc)
{
    int none = 0;

    if (rc)
        cas_seq(&pool->begin_error, &none, rc);
    uint32_t begun = add_seq(&pool->begun, 1) + 1;
    uint32_t awaited = load_seq(&pool->populating);
    if (awaited && (rc || begun >= awaited))
        futex_wake(&pool->begun, 1);
}

static void worker_end(struct worker *worker)
{
    struct pool *pool = worker->pool;

    row_ends(worker);
    worker_turn(worker, RP_WORKER_STOPPING);
    if (worker->started && pool->hooks.worker_stop) {
        worker->started = false;
        pool->hooks.worker_stop(pool->hooks.worker_user, worker->number, worker->local);
    }
    panic_stack_clear(worker);
    pool_dismiss_if_drained(pool);
    frame_pop(&worker->frame);
    worker_retire(worker);
}

/*
 * The task, or a hook, ended the thread by pthread_exit or cancellation: this runs on its way out. The worker is
 * replaced: its place in alive goes to a new one.
 */
static void worker_exits(void *arg)
{
    struct worker *worker = arg;
    struct pool *pool = worker->pool;

    if (worker->holds) {
        worker_held(worker);
    } else if (worker->frame.phase != FRAME_IDLE) {
        snprintf(worker->frame.reason, sizeof(worker->frame.reason),
                 "the task ended its thread: pthread_exit or cancellation");
        worker->frame.nframes = 0;
        worker->frame.signal = 0;
        worker_panicked(worker);
    }
    share_leave(&worker->taker);
    if (worker->enlisted) {
        worker->enlisted = false;
        if (worker->begun) {
            sub_seq(&pool->settled, 1);
            worker_spawn(pool, false);
        } else {
            worker_failed(pool, worker->born_searching, -ECANCELED); /* still as it was born */
        }
    }
    if (!worker->begun)
        worker_reports(pool, -ECANCELED);
    worker_end(worker);
}

/*
 * true: a task panicked, and the caller calls again. A function of its own, as the jump loses the locals of the one
 * that set the landing.
 */
static bool worker_work(struct worker *worker)
{
    if (_setjmp(worker->frame.landing))
        return true;
    bool searching = worker->born_searching;
    worker->search.called = searching;
    worker->born_searching = false;
    if (!worker_wakes(worker, &searching))
        return false;
    row_begins(worker);
    if (runq_normal(&worker->pool->runq)->shares)
        loop_with_shares(worker, searching);
    else
        loop_in_order(worker, searching);
    return false;
}

/* Until a task panics or the worker leaves. The pop forgets the cleanup handlers that a panicked task had pushed. */
static void worker_shift(struct worker *worker)
{
    pthread_cleanup_push(worker_exits, worker);
    if (worker->panicked)
        worker_panicked(worker);
    worker->panicked = worker_work(worker);
    pthread_cleanup_pop(0);
}

void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct pool *pool = worker->pool;

    worker->submitter_cpu = -1;
    worker->taker = (struct taker){.share_most = SHARE_FIRST};
    store_relaxed(&worker->unstamped, 0); /* own word */
    search_init(&worker->search);
    worker->pace = (struct pace){0};
    if (worker->measures)
        measure_forget(worker->measures);
    worker->begun = worker->started = worker->panicked = worker->holds = false;
    frame_push(&worker->frame, pool, worker);
    int rc;
    pthread_cleanup_push(worker_exits, worker); /* for worker_start */
    rc = worker_begin(worker);
    pthread_cleanup_pop(0);
    if (rc) {
        worker->enlisted = false;
        worker_failed(pool, worker->born_searching, rc);
        worker_reports(pool, rc);
    } else {
        worker->begun = true;
        add_seq(&pool->settled, 1);
        worker_reports(pool, 0);
        worker_retry_settled(pool);
        worker_turn(worker, RP_WORKER_IDLE);
        worker_helps_fill(pool);
        do
            worker_shift(worker);
        while (worker->panicked);
    }
    if (load_relaxed(&pool->forked)) /* constant in this process */
        return NULL;
    worker_end(worker);
    return NULL;
}
