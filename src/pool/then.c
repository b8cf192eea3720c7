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
 */
#include "pool/then.h"

#include <errno.h>
#include <ringpool/pool.h>

struct list {
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

/* The entry's hold, which the tie's reference has become, passes on to the run. */
static void run_ready(struct pool *pool, struct rp_future *future, bool guest)
{
    if (!future_claim(future, 0)) {
        if (load_acquire(&future->word) & FUTURE_RUNNING) /* a waiter runs it, and sees to its end */
            future_unref(future);
        else /* cancelled since the tie fired: still to give its source back */
            end_collecting(&future->job, future_code(future));
        return;
    }
    struct entry entry = future_entry(future);
    int result = -ESHUTDOWN;
    if (!guest)
        add_seq(&pool->guests, 1); /* for an exit of the thread, see frame_exits */
    if (load_seq(&pool->dropping)) {
        add_relaxed(&pool->outside_dropped, 1); /* a counter */
    } else {
        result = frame_run(pool, worker_self(pool), &entry, FRAME_CALLER) ? 0 : -EFAULT;
        add_relaxed(result ? &pool->outside_panicked : &pool->outside_completed, 1); /* a counter */
    }
    end_collecting(&future->job, result);
    if (!guest)
        guest_leave(pool);
}

/* Takes what the thread's list holds into the caller's: at most `here` of this pool stay, if it has room for more. */
static void sort_ready(struct pool *pool, struct list *list, unsigned here)
{
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

void then_end(struct pool *pool, struct job *job, int result, bool onward, bool guest)
{
    struct list list = {.end = &list.first};
    end_collecting(job, result);
    if (!mine.ready)
        return;
    sort_ready(pool, &list, onward);
    while (list.first) {
        struct rp_future *future = list.first;

        list.first = future->ready_next;
        if (!list.first)
            list.end = &list.first;
        run_ready(pool, future, guest);
        sort_ready(pool, &list, !list.first);
    }
}

/* --- making ----------------------------------------------------------------------------------------------------- */

/* The source is done. The tie's reference to the continuation is ours. */
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
    future_ref(future);
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
    rc = future_create(pool ? door_pool(pool) : source->door, &task, &future);
    if (rc)
        return rc;
    future->next = next;
    future_ref(source);
    future->source = source;
    future->tie = (struct watch){.fire = tie_fire, .deferred = true};
    future_ref(future); /* the tie's */
    if (future_watch(source, &future->tie)) {
        future_guard(future);
    } else {
        future_unref(future);
        rc = start_here(future);
    }
    if (rc)
        future_unref(future);
    else
        *out = future;
    return rc;
}
