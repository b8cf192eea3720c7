/*
 * Room: submitters that wait until a task more may be in flight.
 *
 * A submitter that finds no room looks for it for some microseconds (room_soon), since a task ends sooner than a thread
 * is put to sleep and woken; not where a crowd stands there already, whose heads keep a deep queue full without it, and
 * whom it would take a CPU from, or the workers; nor where few tasks are in flight that take much longer. What it does
 * between two looks hangs on how fast the workers are (rest): it leaves them their cache lines, its CPU, or both for a
 * nap. Then it stands in a list, first come first served. Only the first of the list (the head) claims; newcomers may
 * claim besides it, which is what keeps a saturated pool fast, but no more than overtakes() of them for each head:
 * `gate` holds the claim number from which on newcomers count as having no room. Where tasks take longer the time
 * counts: a head that looks in vain after OVERTAKE_NS shuts the gate at once.
 *
 * No wake-up is lost.                            The head                      Whoever ends a task
 * The order of each side is what makes it so:      H1 is counted in attention     E1 done + 1
 *                                                  H2 own word = LOOKING          E2 load attention
 *                                                  H3 clears pending              E3 pending 0 -> 1, and only then:
 *                                                  H4 claims (reads done)         E4 the head's word = CALLED; wakes it
 *                                                  H5 word LOOKING -> SLEEPING       if it was SLEEPING
 *                                                     by CAS, and sleeps
 * All seq_cst but the words. Say E1 comes too late for H4. Then E2 comes after H1 and sees the waiter, and E3 comes
 * after H3: it finds pending 0 and calls the head, after H2, so that H5 fails or is woken; or it finds pending 1, set
 * after H3 by another one that calls the head as well. `pending` is a throttle: it says that the head was called and
 * has not yet gone back to H3. While a called head looks around for room pending stays 1, so that tasks end without a
 * look at the list. It is cleared before the last claim, never after: cleared later it could swallow the call for room
 * that the claim did not see.
 *
 * Headship passes on when the head leaves, with room, in vain, or at its deadline: it takes itself off the list, clears
 * pending (a call may have been for the one that leaves) and, if there is room, calls the next head. Room that comes
 * after its look finds pending clear.
 *
 * Workers of the pool may stand here too. The room is stuck when nobody is left to make any: all workers that may live
 * stand here, or every task in flight is on the stack of one that does (several may be on one stack, where a task
 * helps). Whoever stands inside a stuck room is granted one more worker, within max_extra. Beyond that it sleeps if
 * somebody inside may yet go on, as one that waits there for a future that runs elsewhere, and else hears -EDEADLK:
 * that is looked for before each sleep inside a task, over all pools (knot.c). The room becomes stuck when a worker
 * joins, which then looks itself; when the target shrinks, which calls all that stand in tasks, of this pool or of
 * another (room_target_changed); when a head takes the last room away, which calls them as it leaves, for they may have
 * joined while it was there; or when a task ends and leaves more in flight than the limit, or a newcomer was faster:
 * the head that is called for that looks, and calls them.
 */
#include "base/futex.h"
#include "pool/context.h"
#include "pool/knot.h"
#include "pool/pool.h"

#include <errno.h>
#include <sched.h>

#define OVERTAKES_LEAST 16384U /* of empty tasks so many are 0.2 ms, and to change heads takes 0.03 */
#define OVERTAKES_MOST 65536U
#define OVERTAKES_TIMES 4U /* what may be in flight: changing heads costs less then than the tasks in between */
#ifndef OVERTAKE_NS        /* the model has one of its own */
#define OVERTAKE_NS 1000000
#endif
#define CROWD 4U
#define CROWD_LIMIT 256U
#define REST_YIELD 16U
#define REST_LEAST 8U /* of a shorter queue half is gone before a thread is changed, unless its tasks are long */
#define REST_MOST 64U
#define ALONE_NS 1500       /* a turn of the CPU that comes back so soon went to nobody */
#define REST_BRISK 16U      /* tasks that end in REST_MOST turns where workers are at it */
#define REST_LONGER 2       /* times REST_MOST turns before such a queue */
#define AMONG_NS 5000       /* for each submitter more that gives up its CPU */
#define ALONE_LONG_NS 50000 /* more than it takes to rouse a CPU for a worker */
#define ALONE_AGAIN_NS 4000 /* once it has helped to call one more */
#define PACE_TASKS 32U      /* in how many a pace is measured */
#define SLOW_NS 8000        /* for as many tasks as may be in flight, by all workers, */
#define SLOW_ALL_NS 16000   /* or by one, */
#define SLOW_EACH_NS 3000   /* or for one task */
#define LASTS_NS 75000      /* from one end to the next: more than it takes to wake a thread */
#define FEW 16U             /* tasks in flight: before fewer nobody naps, who would miss room for most of them */
#define NAP_NS 50000
#define NAP_MOST_NS 1000000
#define NAP_LATE_NS 150000 /* with the timer's slack, and some */
#define NAP_NS_PER_TASK 8  /* of those that may be in flight: so long takes a worker that has a CPU of its own */
#define REST_IN_NAP 64     /* REST_MOST turns in a nap and its slack */
#define REFRAIN_LEAST 16
#define REFRAIN_MOST 4096

enum { LOOKING, SLEEPING, CALLED };

struct waiter {
    struct cds_list_head node; /* under the room's lock */
    struct watch watch;        /* on its context, if it has one */
    _Atomic uint32_t word;     /* LOOKING and SLEEPING by the waiter, CALLED by others */
    _Atomic uint32_t head;     /* 1: first of the list; set under the room's lock, once and for all */
    int64_t head_at;           /* since then; before `head` */
    bool insists;              /* a head that has shut the gate */
    unsigned held;             /* tasks in flight on the waiter's own stack; 0: not a worker of this pool */
    bool in_task;              /* of whatever pool */
    bool naps;                 /* nothing but room concerns it */
    unsigned granted;          /* workers that stand in for it */
    struct sleeper sleeper;    /* while it sleeps in a task */
};

void room_init(struct room *room)
{
    CDS_INIT_LIST_HEAD(&room->waiters);
}

static struct waiter *head_locked(struct room *room)
{
    return cds_list_empty(&room->waiters) ? NULL : cds_list_first_entry(&room->waiters, struct waiter, node);
}

static uint32_t overtakes(uint32_t limit)
{
    return limit >= OVERTAKES_MOST / OVERTAKES_TIMES    ? OVERTAKES_MOST
           : limit <= OVERTAKES_LEAST / OVERTAKES_TIMES ? OVERTAKES_LEAST
                                                        : limit * OVERTAKES_TIMES;
}

/* The word of a gate that is shut from that claim on. */
static uint64_t gate_at(uint32_t claim)
{
    return UINT64_C(1) << 63 | (claim & FLIGHT_MASK);
}

/* The list's head has changed: from now on so many newcomers may claim besides the new one. */
static void head_changed_locked(struct pool *pool)
{
    struct waiter *head = head_locked(&pool->room);
    uint64_t gate = 0;

    if (head) {
        uint32_t more = overtakes(load_seq(&pool->runq.limit));
        gate = gate_at(tail_accepted(load_seq(&pool->runq.tail)) + more);
        head->head_at = rp_now();
        store_release(&head->head, 1); /* it reads that after a call, or made it itself */
    }
    store_seq(&pool->runq.gate, gate);
}

/*
 * Once it has been the head for long, and has been called in vain: no newcomer may claim besides it. Nobody else writes
 * the gate while it is the head.
 */
static void head_insists(struct pool *pool, struct waiter *me)
{
    if (me->insists || rp_now() - me->head_at < OVERTAKE_NS)
        return;
    me->insists = true;
    store_seq(&pool->runq.gate, gate_at(tail_accepted(load_seq(&pool->runq.tail))));
}

/* Under a lock that keeps the waiter there. true: it sleeps, and the caller owes it a futex_wake. */
static bool waiter_call(struct waiter *waiter)
{
    return exchange_acq_rel(&waiter->word, CALLED) == SLEEPING;
}

void room_signal(struct pool *pool)
{
    struct room *room = &pool->room;

    if (load_seq(&room->pending) || exchange_seq(&room->pending, 1)) /* E3 */
        return;
    rp_lock_acquire(&room->lock);
    struct waiter *head = head_locked(room);
    bool asleep = head && waiter_call(head); /* E4 */
    rp_lock_release(&room->lock);
    if (asleep)
        futex_wake(&head->word, 1); /* it may have gone: then nobody sleeps there, or on a word that expects such */
}

/* Calls those that wait, or only those in tasks, but for one. */
static void call_all(struct pool *pool, bool in_tasks, const struct waiter *but)
{
    struct waiter *waiter;

    rp_lock_acquire(&pool->room.lock);
    /* cppcheck-suppress nullPointerRedundantCheck ; `but` may be NULL, the entry of a list is not */
    cds_list_for_each_entry (waiter, &pool->room.waiters, node)
        if (waiter != but && (waiter->in_task || !in_tasks) && waiter_call(waiter))
            futex_wake(&waiter->word, 1);
    rp_lock_release(&pool->room.lock);
}

void room_wake_all(struct pool *pool)
{
    call_all(pool, false, NULL);
}

static bool stuck_locked(struct pool *pool)
{
    const struct room *room = &pool->room;

    if (!room->inside)
        return false;
    return room->inside >= load_seq(&pool->target) ||
           (room->held >= runq_flight(&pool->runq) && !runq_has_room(&pool->runq));
}

static bool stuck(struct pool *pool)
{
    rp_lock_acquire(&pool->room.lock);
    bool yes = stuck_locked(pool);
    rp_lock_release(&pool->room.lock);
    return yes;
}

/* Only who is in a task can help or give up: a head outside, or one that has just looked, would spin until one has. */
static void call_if_stuck(struct pool *pool, const struct waiter *caller)
{
    if (stuck(pool))
        call_all(pool, true, caller);
}

void room_target_changed(struct pool *pool)
{
    call_if_stuck(pool, NULL);
    knot_tell(pool);
}

/* On a worker whose task has waited for others of the pool. */
static void forget_pace(const struct pool *pool)
{
    struct worker *worker = worker_self(pool);

    if (worker)
        pace_forgets(worker);
}

unsigned room_sleep(struct pool *pool)
{
    unsigned held = frame_held(pool);

    rp_lock_acquire(&pool->room.lock);
    pool->room.inside++;
    pool->room.held += held;
    rp_lock_release(&pool->room.lock);
    return held;
}

void room_wake(struct pool *pool, unsigned held)
{
    rp_lock_acquire(&pool->room.lock);
    pool->room.inside--;
    pool->room.held -= held;
    rp_lock_release(&pool->room.lock);
    forget_pace(pool);
}

static int waiter_join(struct pool *pool, struct waiter *me)
{
    struct room *room = &pool->room;
    int rc = 0;

    rp_lock_acquire(&room->lock);
    if (pool->max_blocking && room_blocked(pool) >= pool->max_blocking) {
        rc = -EAGAIN;
    } else {
        cds_list_add_tail(&me->node, &room->waiters);
        room->inside += me->held > 0;
        room->held += me->held;
        if (head_locked(room) == me)
            head_changed_locked(pool); /* first: whom others see as blocked, the gate protects */
        add_seq(&room->attention, 1);  /* H1 */
    }
    rp_lock_release(&room->lock);
    return rc;
}

static void waiter_leave(struct pool *pool, struct waiter *me)
{
    struct room *room = &pool->room;

    rp_lock_acquire(&room->lock);
    bool head = head_locked(room) == me;
    cds_list_del(&me->node);
    room->inside -= me->held > 0;
    room->held -= me->held;
    sub_seq(&room->attention, 1);
    if (head)
        head_changed_locked(pool);
    bool others_stuck = stuck_locked(pool);
    rp_lock_release(&room->lock);
    for (; me->granted; me->granted--)
        extra_return(pool);
    if (!head)
        return; /* no call is ever for another than the head */
    store_seq(&room->pending, 0);
    if (room_blocked(pool) && (runq_has_room(&pool->runq) || runq_closed(&pool->runq)))
        room_signal(pool);
    else if (others_stuck)
        call_all(pool, true, NULL); /* one that joined while there was room has not found that */
    pool_progress(pool);            /* the gate may be open */
}

/*
 * A nap is in vain if the queue was drained before its end: the workers sleep then, and who has to be called first
 * comes later than a queue of short tasks is full again, which looks like one that drains slowly. (Not so if it ended
 * late: the workers had all CPUs meanwhile.) From the second vain nap on some that would follow are not due, twice as
 * many each time. Submitters may overwrite each other's counts: they are hints.
 */
static bool nap_is_due(const struct pool *pool)
{
    return !load_relaxed(&pool->room.refrain);
}

static void nap_refuse(struct room *room)
{
    uint32_t left = load_relaxed(&room->refrain);

    if (left)
        store_relaxed(&room->refrain, left - 1);
}

static void nap_learn(struct room *room, bool vain)
{
    uint32_t next = load_relaxed(&room->refrain_next);

    if (vain) {
        store_relaxed(&room->refrain, next);
        next = next < REFRAIN_LEAST ? REFRAIN_LEAST : next < REFRAIN_MOST ? 2 * next : REFRAIN_MOST;
    } else {
        next /= 2;
    }
    store_relaxed(&room->refrain_next, next);
}

/* Tasks. */
static uint32_t ended_since(const struct pool *pool, uint32_t before)
{
    return (runq_done(&pool->runq) - before) & FLIGHT_MASK;
}

/*
 * Before a queue that is drained at the moment, task by task within nanoseconds, a submitter only gives the workers
 * some room to run in, and keeps its CPU and its looks to itself. false: it is not such a queue, or others want the
 * CPU: those that are blocked here, or the workers of a multi pool's other pools.
 */
static bool rest_briskly(const struct pool *pool)
{
    uint32_t before = runq_done(&pool->runq);

    if (room_blocked(pool) || load_relaxed(&pool->owner)) /* hints */
        return false;
    cpu_pause(REST_MOST / 4);
    uint32_t soon = ended_since(pool, before);
    if (soon && soon < REST_BRISK / 4) /* none: the workers may be keeping their distance */
        return false;
    cpu_pause(REST_MOST - REST_MOST / 4);
    if (ended_since(pool, before) < REST_BRISK)
        return false;
    cpu_pause(REST_LONGER * REST_MOST);
    return true;
}

/* Whether half of a short queue takes the workers longer than two changes of threads, by what ended lately. */
static bool queue_drains_slowly(struct pool *pool, unsigned limit)
{
    struct room *room = &pool->room;
    uint32_t done = runq_done(&pool->runq), ended = (done - load_relaxed(&room->paced_done)) & FLIGHT_MASK; /* hints */

    if (ended >= PACE_TASKS) {
        int64_t now = rp_now(), each = (now - load_relaxed(&room->paced_at)) / ended; /* as all of this */
        store_relaxed(&room->paced_done, done);
        store_relaxed(&room->paced_at, now);
        store_relaxed(&room->slow, each * limit >= SLOW_NS);
    }
    return load_relaxed(&room->slow);
}

/*
 * Whether the workers are to have the CPU of who waits for them, as one more of them could run there: if the tasks in
 * flight take one worker longer than some changes of threads, or each of them takes longer than one. Of empty tasks,
 * which are waited for longer than they run, how fast a queue is drained tells more.
 */
static bool drains_slowly(struct pool *pool, unsigned limit)
{
    uint64_t each = pool_task_ns(pool);

    if (each >= SLOW_EACH_NS || each * limit >= SLOW_ALL_NS)
        return true;
    return limit >= REST_LEAST && pool->queue_depth && queue_drains_slowly(pool, limit);
}

/*
 * Whether tasks take so long, and so few are in flight, that who waits for the end of one is better asleep than in the
 * way.
 */
static bool tasks_last(const struct pool *pool)
{
    unsigned limit = load_relaxed(&pool->runq.limit); /* a hint, as how long they take */
    unsigned at_once = limit < pool->cpus ? limit : pool->cpus;

    return limit < FEW && pool_task_ns(pool) >= LASTS_NS * (uint64_t)at_once;
}

/* Gives up the CPU. true: nobody wanted it but submitters that did so as well; *beside: there are such. */
static bool cpu_is_unwanted(struct room *room, bool *beside)
{
    int64_t before = rp_now();
    uint32_t others = add_relaxed(&room->yielding, 1); /* hints, as the next */
    sched_yield();
    uint32_t still = sub_relaxed(&room->yielding, 1) - 1;

    *beside = still;
    return rp_now() - before < ALONE_NS + (others > still ? others : still) * AMONG_NS;
}

/*
 * Of submitters that look for room and give up their CPU: whether nobody else has wanted that for long, while there are
 * workers for all CPUs and tasks are not brief. Then a worker stands behind another one, on the CPU where it ran last.
 */
static bool alone_for_long(struct pool *pool, bool alone)
{
    struct room *room = &pool->room;
    int64_t since = load_relaxed(&room->alone_at), now = alone ? rp_now() : 0; /* hints, as all of this */

    if (since ? now && now - since < (load_relaxed(&room->alone_again) ? ALONE_AGAIN_NS : ALONE_LONG_NS) : !now)
        return false;
    bool late = since && now && pool_task_ns(pool) >= BRIEF_NS;
    store_relaxed(&room->alone_at, now);
    return late && pool->cpus > 1 && load_relaxed(&pool->alive) >= pool->cpus;
}

/*
 * What to do about that. If one that was called stands there, it keeps others from being called, for a time slice: one
 * more is called, and again as soon as that one sleeps. true: only a nap helps, as an idle CPU is given who works and
 * stands there, and the workers have enough to do for as long.
 */
static bool alone_needs_nap(struct pool *pool)
{
    bool again = load_relaxed(&pool->room.alone_again), called = idle_call_beside(pool); /* a hint */

    store_relaxed(&pool->room.alone_again, called);
    if (called || again)
        return false;
    unsigned limit = load_relaxed(&pool->runq.limit);                /* hints */
    uint64_t all = pool_task_ns(pool) * limit;                       /* for one worker */
    return limit >= FEW && all >= 2 * NAP_NS * (uint64_t)pool->cpus; /* a nap, and the timer's slack */
}

/*
 * Where much is in flight, or it takes long, it pays to wait until more than one has ended, away from the words that
 * the workers write, and off the CPU if they want it. true: a nap is due: it would leave the workers enough to do, as
 * so few have ended meanwhile and so many are left; or workers wait for another CPU, and only an idle one is given
 * them. *alone: nobody has use for this CPU, but for submitters that rest as well, so that workers may be waiting for
 * one another on the others, until it is idle.
 */
static bool rest(struct pool *pool, bool *alone)
{
    unsigned limit = load_relaxed(&pool->runq.limit); /* a hint */
    unsigned turns = limit / 16 < REST_MOST ? limit / 16 : REST_MOST;
    uint32_t before = 0;

    *alone = false;
    if (tasks_last(pool) || (turns == REST_MOST && rest_briskly(pool)))
        return false;
    if (turns >= REST_YIELD || drains_slowly(pool, limit)) {
        bool others, unwanted = cpu_is_unwanted(&pool->room, &others);
        bool full = runq_flight(&pool->runq) > limit / 2; /* else it took long, and they may be waiting for us */
        *alone = unwanted || others;
        if (alone_for_long(pool, full && unwanted))
            return alone_needs_nap(pool);
        if (!full)
            return false;
        before = runq_done(&pool->runq);
    }
    cpu_pause(turns);
    return turns == REST_MOST && ended_since(pool, before) * REST_IN_NAP < limit / 2 &&
           runq_flight(&pool->runq) > limit / 2;
}

/*
 * Instead of blocking, once, where the workers are busy for longer with what is in flight: who is woken for each task
 * that ends finds room for a few, and the workers pay for that.
 */
static void nap(struct pool *pool)
{
    _Atomic uint32_t nobody = 0;
    uint32_t limit = load_relaxed(&pool->runq.limit); /* a hint */
    int64_t span = (int64_t)limit * NAP_NS_PER_TASK, until;

    until = rp_after(span < NAP_NS ? NAP_NS : span < NAP_MOST_NS ? span : NAP_MOST_NS);
    futex_wait(&nobody, 0, until);
    bool in_time = rp_now() - until < NAP_LATE_NS;
    nap_learn(&pool->room, in_time && runq_flight(&pool->runq) <= limit / 16);
}

/*
 * Looks for room for a short while. The claim's result, -EAGAIN if there was none; 0: a newcomer's nap is due, though
 * there may be room by now for a few tasks: who claims that looks for room again at once, and never leaves its CPU.
 * A head that `naps` does so here, for the same reason: it would be called again for a few tasks.
 */
static int look_around(struct pool *pool, unsigned class, bool newcomer, bool naps, uint64_t *position)
{
    int64_t until = 0;
    bool alone, last = tasks_last(pool);

    for (;;) {
        if (rest(pool, &alone) && naps) {
            if (!nap_is_due(pool))
                nap_refuse(&pool->room);
            else if (newcomer)
                return alone ? 0 : -EAGAIN;
            else
                nap(pool);
        }
        for (int i = 0; i < 16; i++) {
            if (newcomer && runq_gate_shut(&pool->runq))
                return -EAGAIN;
            if (runq_has_room(&pool->runq) || runq_closed(&pool->runq)) {
                int rc = runq_claim(&pool->runq, class, 1, newcomer, position);
                if (rc != -EAGAIN)
                    return rc;
            }
            cpu_relax();
        }
        int64_t now = rp_now();
        if (!until)
            until = now + pool->spin_ns;
        if (last || now >= until)
            return -EAGAIN;
    }
}

static bool is_crowded(struct pool *pool)
{
    return room_blocked(pool) >= CROWD && load_relaxed(&pool->runq.limit) >= CROWD_LIMIT; /* hints */
}

/*
 * Before a crowd, too: who went to sleep instead would often leave its CPU idle, as the next head was woken on the one
 * where it ran last, and waits there behind a worker that takes all that the queue has.
 */
void room_rest(struct pool *pool)
{
    bool alone;

    if (pool->spin_ns)
        (void)rest(pool, &alone);
}

int room_soon(struct pool *pool, unsigned class, uint64_t *position)
{
    return pool->spin_ns && !is_crowded(pool) ? look_around(pool, class, true, true, position) : -EAGAIN;
}

/* One more worker stands in, and the room for its task is the head's. false: as many do as may. */
static bool waiter_grant(struct pool *pool, struct waiter *me)
{
    if (!extra_grant(pool))
        return false;
    me->granted++;
    room_signal(pool);
    return true;
}

/* One look of a waiter: the claim's result, -EAGAIN to sleep on. */
static int waiter_try(struct pool *pool, struct waiter *me, unsigned class, uint64_t *position)
{
    bool called = exchange_acq_rel(&me->word, LOOKING) == CALLED; /* H2: a call that this undoes is answered below */

    while (me->held && stuck(pool) && waiter_grant(pool, me))
        ;
    if (!load_acquire(&me->head))
        return runq_closed(&pool->runq) ? -ESHUTDOWN : -EAGAIN;
    int rc = -EAGAIN;
    if (called && pool->spin_ns)
        rc = look_around(pool, class, false, me->naps, position);
    if (rc == -EAGAIN) {
        store_seq(&pool->room.pending, 0);                       /* H3 */
        rc = runq_claim(&pool->runq, class, 1, false, position); /* H4 */
    }
    if (rc == -EAGAIN)
        head_insists(pool, me);
    if (rc == -EAGAIN && !me->held)
        call_if_stuck(pool, me);
    return rc;
}

/* H5. -ETIMEDOUT at `until`. */
static int word_sleep(struct waiter *me, int64_t until)
{
    uint32_t word = LOOKING;

    if (!cas_acq_rel(&me->word, &word, SLEEPING))
        return 0;
    while (load_acquire(&me->word) == SLEEPING)
        if (futex_wait(&me->word, SLEEPING, until) == -ETIMEDOUT)
            return -ETIMEDOUT;
    return 0;
}

static void waiter_stir(struct sleeper *sleeper)
{
    struct waiter *waiter = caa_container_of(sleeper, struct waiter, sleeper);

    if (waiter_call(waiter))
        futex_wake(&waiter->word, 1);
}

/* Inside a task not if nobody could ever call it: -EDEADLK. `full`: it has to look again soon in any case. */
static int waiter_sleep(struct pool *pool, struct waiter *me, int64_t until, bool full)
{
    const struct want want = {.room = pool};

    if (!me->in_task || full)
        return word_sleep(me, until);
    int rc = knot_join(&me->sleeper, &want, until, waiter_stir);
    if (!rc) {
        rc = word_sleep(me, until);
        knot_leave(&me->sleeper);
    }
    if (rc == -EBUSY)
        rc = waiter_grant(pool, me) ? 0 : -EDEADLK;
    return rc;
}

/* Under the lock of the context's tree, which taking the watch off takes as well: the waiter is still there. */
static void waiter_context_ended(struct watch *watch, int reason)
{
    struct waiter *waiter = caa_container_of(watch, struct waiter, watch);

    (void)reason;
    if (waiter_call(waiter))
        futex_wake(&waiter->word, 1);
}

int room_claim(struct pool *pool, struct how how, uint64_t *position)
{
    unsigned class = how.class;
    int64_t deadline = how.deadline;
    struct rp_ctx *ctx = how.ctx;
    unsigned held = frame_held(pool);
    struct waiter me = {
        .word = LOOKING,
        .watch = {.fire = waiter_context_ended},
        .held = held,
        .in_task = frame_current(),
        .naps = pool->spin_ns && !deadline && !ctx && !held,
    };
    int64_t pause = 50000;
    int rc = -EAGAIN;
    bool alone;

    bool naps = me.naps && !is_crowded(pool) && (how.nap || (rest(pool, &alone) && nap_is_due(pool)));
    if (naps)
        nap(pool);
    if (naps || how.nap) /* there may have been room all the time, which who may not nap is not to be refused */
        rc = runq_claim(&pool->runq, class, 1, true, position);
    if (rc != -EAGAIN && rc != -EBUSY)
        return rc;
    rc = waiter_join(pool, &me);
    if (rc)
        return rc;
    if (ctx)
        ctx_watch(ctx, &me.watch); /* has it ended, the look below finds that */
    while ((rc = waiter_try(pool, &me, class, position)) == -EAGAIN || rc == -EBUSY) {
        bool full = rc == -EBUSY; /* the ring, of tasks whose workers are being made: nobody signals that */
        int64_t until = deadline;

        if (ctx && (rc = ctx_err(ctx))) /* after the word was reset: H2 */
            break;
        if (full) {
            int64_t again = rp_after(pause);
            if (!until || again < until)
                until = again;
            if (pause < 10000000)
                pause *= 2;
        }
        rc = waiter_sleep(pool, &me, until, full);
        if (rc == -ETIMEDOUT && deadline && rp_now() >= deadline)
            break;
        if (rc && rc != -ETIMEDOUT)
            break;
    }
    if (ctx)
        ctx_unwatch(ctx, &me.watch);
    waiter_leave(pool, &me);
    if (held)
        forget_pace(pool);
    return rc;
}
