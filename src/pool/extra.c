/*
 * Workers that stand in for blocked ones: while a task blocks, in rp_blocking_begin or as a submitter to its own pool,
 * one more worker than the capacity may live and one more task be in flight. Bounded by max_extra. When the grant
 * ends, the worker that is too many leaves after its task, or at once if it is parked.
 */
#include "pool/pool.h"

#include <errno.h>

static void tell(const struct pool *pool, unsigned extra)
{
    log_emit(&pool->log, RP_LOG_DEBUG, "pool %s: %u workers may stand in for blocked ones", pool->name, extra);
}

bool extra_grant(struct pool *pool)
{
    rp_lock_acquire(&pool->lock);
    bool granted = pool->extra < pool->max_extra;
    if (granted) {
        pool->extra++;
        pool_retarget_locked(pool);
    }
    unsigned extra = pool->extra;
    rp_lock_release(&pool->lock);
    if (!granted)
        return false;
    tell(pool, extra);
    pool_settle(pool);
    return true;
}

void extra_return(struct pool *pool)
{
    rp_lock_acquire(&pool->lock);
    unsigned extra = --pool->extra;
    pool_retarget_locked(pool);
    rp_lock_release(&pool->lock);
    tell(pool, extra);
    pool_settle(pool);
}

void extra_settle(struct frame *frame)
{
    for (; frame->extra; frame->extra--)
        extra_return(frame->pool);
    frame->blocking = 0;
}

int rp_blocking_begin(void)
{
    struct frame *frame = frame_current();

    if (!frame || frame->phase != FRAME_OPEN)
        return -EPERM;
    if (!frame->worker) {
        frame->blocking++;
        return 0; /* the submitter runs the task: no worker is held up */
    }
    if (frame->blocking++)
        return frame->extra ? 0 : -EAGAIN; /* the outer bracket has asked already */
    if (!extra_grant(frame->pool))
        return -EAGAIN;
    frame->extra++;
    return 0;
}

int rp_blocking_end(void)
{
    struct frame *frame = frame_current();

    if (!frame || !frame->blocking)
        return -EPERM;
    if (--frame->blocking == 0)
        extra_settle(frame);
    return 0;
}

void rp_heartbeat(void)
{
    struct frame *frame = frame_current();

    if (frame && frame->worker && frame->phase == FRAME_OPEN)
        store_relaxed(&frame->worker->since, rp_now()); /* a report's figure */
}
