/*
 * Doors; door.h says what for. Where there is a multi pool behind it, it is route.c that submits.
 */
#include "pool/door.h"

#include "base/alloc.h"
#include "pool/job.h"
#include "pool/multi.h"

#include <errno.h>

static int pool_allocator(const struct rp_pool *handle, struct rp_allocator *out)
{
    struct pool *pool;
    int rc = pool_enter(handle, &pool);

    if (rc)
        return rc;
    *out = pool->allocator;
    rc = load_relaxed(&pool->forked) ? -ECHILD : runq_closed(&pool->runq) ? -ESHUTDOWN : 0; /* constant in a process */
    pool_exit();
    return rc;
}

static int multi_allocator(const struct rp_multi *handle, struct rp_allocator *out)
{
    struct multi *multi;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    *out = multi->allocator;
    rc = load_seq(&multi->state) & MULTI_CLOSED ? -ESHUTDOWN : 0;
    multi_guest_leave(multi);
    return rc;
}

int door_allocator(struct door door, struct rp_allocator *allocator)
{
    return door.multi ? multi_allocator(door.multi, allocator) : pool_allocator(door.pool, allocator);
}

void *door_alloc(struct door door, size_t size, struct rp_allocator *allocator, int *rc)
{
    void *memory = NULL;

    *rc = door_allocator(door, allocator);
    if (!*rc && !(memory = alloc_zeroed(allocator, 1, size)))
        *rc = -ENOMEM;
    return memory;
}

int door_submit(struct door door, const struct entry *entry, const struct rp_task *task, _Atomic(struct rp_pool *) *at)
{
    if (door.multi)
        return route_job(door.multi, entry, task, at);
    if (at)
        store_release(at, door.pool);
    return pool_submit_job(door.pool, entry, task);
}

int door_submit_task(struct door door, const struct rp_task *task)
{
    return door.multi ? rp_multi_submit_task(door.multi, task) : rp_pool_submit_task(door.pool, task);
}

bool door_leads_to(struct door door, const struct pool *pool)
{
    const struct member *member = door.multi ? member_of(pool) : NULL;

    if (!door.multi)
        return pool->handle == &door.pool->handle;
    return member && member->multi->handle == &door.multi->handle;
}
