/*
 * Knots: no wait inside a task is for ever because all sleep for one another.
 *
 * Threads inside tasks publish what they sleep for, futures, a group, or room in a pool, under one lock of the process,
 * which only these slow paths take. Before they sleep they look whether that can ever come: assume that all published
 * sleepers are stuck; then free, until nothing changes, each that wants
 *   - a future which is done, runs on a thread that is not (or no longer) taken for stuck, or is queued at a pool that
 *     has more workers than stuck ones;
 *   - all members of a group, none of which is stuck;
 *   - room in a pool that has some, or that is closed, or where somebody who is not taken for stuck can make some: it
 *     has more workers than stuck ones, and more tasks in flight than those on their stacks;
 * and each that sleeps until a deadline at most: it will go on, if only in vain. If the caller remains, it is part of a
 * knot or hangs from one, whether it has a deadline or not. Then the same is asked for pools with workers enough: who
 * remains even so is told -EDEADLK, else -EBUSY, and may try to have one more worker stand in.
 *
 * The last one to close a knot sees it whole: what somebody wants becomes unattainable only by a publication, whose
 * author looks after it; a thread's claims come before its sleep. But a pool may also lose a worker: it was made
 * smaller, or a stand-in has gone. Whoever takes it away has those look again that block for room, anywhere, and are
 * stuck now (knot_tell). One that waits for futures in a worker has a stand-in of its own, which no loss takes away;
 * one for whom there was none, as max_extra stood in elsewhere, looks again every 10 ms (wait.c). Not seen is only the
 * knot that a loss ties of waits alone, over two pools.
 *
 * Threads outside of tasks need not publish: nobody waits for what they run. What a task waits for by other means is
 * taken for something that comes.
 */
#include "pool/knot.h"

#include "base/fork.h"

static struct rp_lock sleepers_lock;
static CDS_LIST_HEAD(sleepers);

static void fork_prepare(void)
{
    rp_lock_acquire(&sleepers_lock);
}

static void fork_parent(void)
{
    rp_lock_release(&sleepers_lock);
}

static void fork_child(void)
{
    CDS_INIT_LIST_HEAD(&sleepers); /* the threads are not here */
    rp_lock_release(&sleepers_lock);
}

static const struct fork_hooks hooks = {fork_prepare, fork_parent, fork_child};

/* --- who is stuck, assuming that the sleepers that are not freed are ---------------------------------------------- */

static bool thread_stuck_locked(const void *thread)
{
    struct sleeper *sleeper;

    cds_list_for_each_entry (sleeper, &sleepers, node)
        if (sleeper->thread == thread)
            return !sleeper->freed;
    return false;
}

/* Whether a pool may be short of workers: the answer to the second question is without that. */
static bool may_be_short;

/* Its workers that are stuck; `held`, if not NULL: the tasks in flight on their stacks. */
static unsigned workers_stuck_locked(const struct pool *pool, unsigned *held)
{
    struct sleeper *sleeper;
    unsigned stuck = 0;

    cds_list_for_each_entry (sleeper, &sleepers, node) {
        unsigned holds = sleeper->freed ? 0 : frames_held(sleeper->frames, pool);
        stuck += holds > 0;
        if (held)
            *held += holds;
    }
    return stuck;
}

static bool pool_stuck_locked(const struct rp_pool *handle)
{
    struct pool *pool;

    if (!may_be_short || pool_enter(handle, &pool))
        return false; /* destroyed: it drops what is queued */
    unsigned target = load_seq(&pool->target);
    pool_exit();
    return workers_stuck_locked(pool, NULL) >= target;
}

static bool room_stuck_locked(struct pool *pool)
{
    unsigned held = 0;

    if (!may_be_short || runq_has_room(&pool->runq) || runq_closed(&pool->runq))
        return false;
    return workers_stuck_locked(pool, &held) >= load_seq(&pool->target) || held >= runq_flight(&pool->runq);
}

static bool future_stuck_locked(struct rp_future *future)
{
    struct rp_future *root = future_root(future);
    uint32_t word = load_acquire(&root->word);
    const void *runner = load_acquire(&root->runner); /* [runner]; NULL: claimed just now */
    bool stuck = false;

    if (word & FUTURE_DONE)
        stuck = false;
    else if (word & FUTURE_RUNNING)
        stuck = runner && thread_stuck_locked(runner);
    else if (word & FUTURE_QUEUED)
        stuck = pool_stuck_locked(load_acquire(&root->pool));
    future_unref(root);
    return stuck;
}

static bool member_stuck_locked(struct rp_future *member, void *arg)
{
    (void)arg;
    return future_stuck_locked(member);
}

static bool want_stuck_locked(const struct want *want)
{
    if (want->room)
        return room_stuck_locked(want->room);
    if (want->group)
        return group_any_member(want->group, member_stuck_locked, NULL);
    for (unsigned i = 0; i < want->n; i++)
        if (!future_stuck_locked(want->futures[i]))
            return false;
    return true;
}

/* Frees sleepers until nothing changes; most looks end with the first line of the loop. */
static bool stuck_locked(struct sleeper *me, bool with_shortage)
{
    struct sleeper *sleeper;
    bool changed;

    may_be_short = with_shortage;
    cds_list_for_each_entry (sleeper, &sleepers, node)
        sleeper->freed = sleeper->timed && sleeper != me;
    do {
        if (!want_stuck_locked(me->want))
            return false;
        changed = false;
        cds_list_for_each_entry (sleeper, &sleepers, node) {
            if (sleeper == me || sleeper->freed || want_stuck_locked(sleeper->want))
                continue;
            sleeper->freed = changed = true;
        }
    } while (changed);
    return true;
}

void knot_tell(struct pool *pool)
{
    struct sleeper *sleeper;

    rp_lock_acquire(&sleepers_lock);
    cds_list_for_each_entry (sleeper, &sleepers, node)
        sleeper->freed = false;
    if (!cds_list_empty(&sleepers) && workers_stuck_locked(pool, NULL) >= load_seq(&pool->target))
        cds_list_for_each_entry (sleeper, &sleepers, node)
            if (sleeper->stir && stuck_locked(sleeper, true))
                sleeper->stir(sleeper);
    rp_lock_release(&sleepers_lock);
}

int knot_join(struct sleeper *me, const struct want *want, int64_t deadline, void (*stir)(struct sleeper *me))
{
    int rc = fork_register(&hooks);

    if (rc)
        return rc;
    *me = (struct sleeper){.thread = thread_self(),
                           .frames = frame_current(),
                           .want = want,
                           .stir = stir,
                           .timed = deadline && deadline != INT64_MAX};
    rp_lock_acquire(&sleepers_lock);
    cds_list_add_tail(&me->node, &sleepers);
    if (stuck_locked(me, true))
        rc = stuck_locked(me, false) ? -EDEADLK : -EBUSY;
    if (rc)
        cds_list_del(&me->node);
    rp_lock_release(&sleepers_lock);
    return rc;
}

void knot_leave(struct sleeper *me)
{
    rp_lock_acquire(&sleepers_lock);
    cds_list_del(&me->node);
    rp_lock_release(&sleepers_lock);
}
