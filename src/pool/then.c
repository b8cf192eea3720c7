/*
 * Continuations: futures that start when another one is done.
 *
 * A continuation is tied to its source by a watch, and waits without an entry in any queue: neither FUTURE_QUEUED nor
 * FUTURE_READY is set. When the source is done the tie fires: with a code, there is nothing to go on with, and the
 * continuation gets the same code; else it is ready.
 *
 * Chains of any length end in constant stack. Two lists per thread make loops of what would be recursion: `done`,
 * the futures whose watches are still to be fired (a code that runs down a chain), and `ready`, the continuations
 * that are still to be started. Whoever fires first on the thread empties both.
 *
 * Where a ready one runs. A worker that has just ended the source runs one of its continuations in its place, without
 * a wake-up or a way through the queue, and offers the others to the pool; what the pool has no room for it runs as
 * well: the end of a future never blocks for room of its own pool, and no continuation is lost to a full queue.
 * FUTURE_READY says that a continuation is on some thread's list: a waiter may claim it there and run it itself.
 *
 * One that ends its thread (pthread_exit) leaves the others of the list behind, without a thread, or a place in flight
 * to wait for room in. Those become orphans of the pool, which the reactor offers to it until it has room.
 */
#include "pool/then.h"

#include <errno.h>
#include <ringpool/pool.h>

#define ORPHANS_NS INT64_C(1000000)

struct list {
    struct pool *pool;
    struct rp_future *first, **end;
};

static _Thread_local struct {
    struct rp_future *done, *done_last;   /* by done_next */
    struct rp_future *ready, *ready_last; /* by ready_next */
    bool firing;                          /* somebody below on the stack empties `done` */
    bool collecting;                      /* somebody below on the stack takes `ready` */
} mine;

static void ready_push(struct rp_future *future)
{
    future->ready_next = NULL;
    if (mine.ready)
        mine.ready_last->ready_next = future;
    else
        mine.ready = future;
    mine.ready_last = future;
}

static struct rp_future *ready_pop(struct rp_future **list)
{
    struct rp_future *future = *list;

    *list = future->ready_next;
    return future;
}

/* --- firing ----------------------------------------------------------------------------------------------------- */

static void fire_one(struct rp_future *future)
{
    CDS_LIST_HEAD(later);

    rp_lock_acquire(&future->lock);
    watch_fire_locked(&future->watches, &later, 0);
    rp_lock_release(&future->lock);
    watch_fire_later(&later, 0);
    future_unref(future);
}

void then_fire(struct rp_future *future)
{
    future_ref(future);
    future->done_next = NULL;
    if (mine.done)
        mine.done_last->done_next = future;
    else
        mine.done = future;
    mine.done_last = future;
    if (mine.firing)
        return;
    mine.firing = true;
    while (mine.done) {
        struct rp_future *at = mine.done;
        mine.done = at->done_next;
        fire_one(at);
    }
    mine.firing = false;
    while (mine.ready && !mine.collecting)
        future_release(ready_pop(&mine.ready));
}

/* --- starting --------------------------------------------------------------------------------------------------- */

/* What the end makes ready stays on the thread's list. */
static void end_collecting(struct job *job, int result)
{
    bool outer = mine.collecting;

    mine.collecting = true;
    job->ops->end(job, result);
    mine.collecting = outer;
}

/* It cannot be claimed. */
static void lost_ready(struct rp_future *future)
{
    if (load_acquire(&future->word) & FUTURE_RUNNING) /* a waiter runs it, and sees to its end */
        future_unref(future);
    else /* cancelled since the tie fired: still to give its source back */
        end_collecting(&future->job, future_code(future));
}

/* The share that the tie had passes on to the run. */
static void run_ready(struct pool *pool, struct rp_future *future, bool guest)
{
    if (!future_claim(future, FUTURE_READY, 0)) {
        lost_ready(future);
        return;
    }
    struct entry entry;
    future_entry(future, &entry);
    int result = -ESHUTDOWN;
    if (!guest)
        add_seq(&pool->guests, 1); /* for an exit of the thread, see frame_exits */
    if (load_seq(&pool->dropping)) {
        add_relaxed(&pool->outside_dropped, 1); /* a counter */
        fates_count(&pool->fates, result);
    } else {
        if (pool->measured)
            entry_measure(&entry);
        result = frame_run(pool, worker_self(pool), &entry, FRAME_CALLER) ? 0 : -EFAULT;
        add_relaxed(result ? &pool->outside_panicked : &pool->outside_completed, 1); /* a counter */
    }
    end_collecting(&future->job, result);
    if (!guest)
        guest_leave(pool);
}

/* Takes what the thread's list holds into the caller's: at most `here` of its pool stay, if that has room for more. */
static void sort_ready(struct list *list, unsigned here)
{
    struct pool *pool = list->pool;

    while (mine.ready) {
        struct rp_future *future = ready_pop(&mine.ready);

        if (!door_leads_to(future->door, pool)) {
            future_release(future);
            continue;
        }
        if (!here && !future_offer(future))
            continue;
        here -= here > 0;
        store_release(&future->pool, pool_handle(pool));
        or_seq(&future->word, FUTURE_READY); /* publishes the hold on the source, too */
        future->ready_next = NULL;
        *list->end = future;
        list->end = &future->ready_next;
    }
}

static struct rp_future *list_pop(struct list *list)
{
    struct rp_future *future = list->first;

    list->first = future->ready_next;
    if (!list->first)
        list->end = &list->first;
    return future;
}

/* --- without a thread ------------------------------------------------------------------------------------------- */

/* As before it was ready, so that it may be offered. false: it is claimed or done. */
static bool unready(struct rp_future *future)
{
    uint32_t word = load_relaxed(&future->word); /* validated by the CAS */

    do {
        if (word & (FUTURE_RUNNING | FUTURE_DONE))
            return false;
    } while (!cas_seq(&future->word, &word, word & ~FUTURE_READY));
    return true;
}

static void orphan_add(struct pool *pool, struct rp_future *future)
{
    rp_lock_acquire(&pool->orphan_lock);
    future->ready_next = pool->orphans;
    pool->orphans = future;
    rp_lock_release(&pool->orphan_lock);
    timer_arm(&pool->orphan_timer, rp_after(ORPHANS_NS));
}

static struct rp_future *orphans_take(struct pool *pool)
{
    rp_lock_acquire(&pool->orphan_lock);
    struct rp_future *first = pool->orphans;
    pool->orphans = NULL;
    rp_lock_release(&pool->orphan_lock);
    return first;
}

void then_orphans_fire(struct timer *timer)
{
    struct pool *pool = caa_container_of(timer, struct pool, orphan_timer);
    struct rp_future *list = orphans_take(pool);

    while (list) {
        struct rp_future *future = ready_pop(&list);
        int rc = future_is_done(future) ? -ECANCELED : future_offer(future);
        if (rc == -EAGAIN || rc == -ENOMEM) /* no room, or none of memory for a worker */
            orphan_add(pool, future);
        else if (rc)
            future->job.ops->end(&future->job, rc);
    }
}

void then_orphans_end(struct pool *pool)
{
    struct rp_future *list = orphans_take(pool);

    while (list) {
        struct rp_future *future = ready_pop(&list);
        future->job.ops->end(&future->job, -ESHUTDOWN);
    }
}

/* One of the list has ended the thread. */
static void list_exits(void *arg)
{
    struct list *list = arg;

    while (list->first) {
        struct rp_future *future = list_pop(list);

        if (unready(future))
            orphan_add(list->pool, future);
        else
            lost_ready(future);
    }
    guest_leave(list->pool);
}

/* --- all of it -------------------------------------------------------------------------------------------------- */

void then_end(struct pool *pool, struct job *job, int result, bool onward, bool guest)
{
    struct list list = {.pool = pool, .end = &list.first};
    end_collecting(job, result);
    if (!mine.ready)
        return;
    add_seq(&pool->guests, 1); /* an exit of the thread gives up the caller's before the list is dealt with */
    pthread_cleanup_push(list_exits, &list);
    sort_ready(&list, onward);
    while (list.first) {
        run_ready(pool, list_pop(&list), guest);
        sort_ready(&list, !list.first);
    }
    pthread_cleanup_pop(0);
    guest_leave(pool);
}

/* --- making ----------------------------------------------------------------------------------------------------- */

/* The source is done. The tie's share of the continuation is ours. */
static void tie_fire(struct watch *watch, int reason)
{
    struct rp_future *future = caa_container_of(watch, struct rp_future, tie);
    int code = future_code(future->source);

    (void)reason;
    if (code || future_is_done(future))
        future->job.ops->end(&future->job, code ? code : -ECANCELED);
    else
        ready_push(future);
}

static int source_check(const struct rp_future *source, struct rp_future **out)
{
    if (!out)
        return -EINVAL;
    *out = NULL;
    return future_usable(source);
}

/* The source is done already: the caller is the submitter. */
static int start_here(struct rp_future *future)
{
    int code = future_code(future->source);

    if (!code)
        return future_submit(future);
    future->job.ops->end(&future->job, code);
    return 0;
}

int rp_future_then(struct rp_future *source, struct rp_pool *pool,
                   int (*next)(void *arg, int result, void *value, void **next_value), void *arg,
                   struct rp_future **out)
{
    struct rp_future *future;
    int rc = source_check(source, out);

    if (rc || !next)
        return rc ? rc : -EINVAL;
    struct rp_ctx *ctx = ctx_inherited();
    const struct rp_task task = {.arg = arg, .ctx = ctx ? ctx : source->task.ctx};
    rc = future_create(pool ? door_pool(pool) : source->door, &task, KIND_NEXT, &future);
    if (rc)
        return rc;
    future->call.next = next;
    future_ref(source);
    future->source = source;
    future->tie = (struct watch){.fire = tie_fire, .deferred = true};
    if (future_watch(source, &future->tie))
        future_guard(future);
    else
        rc = start_here(future);
    if (rc)
        future_discard(future);
    else
        *out = future;
    return rc;
}
