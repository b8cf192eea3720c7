/*
 * Doors: where tasks are submitted to, a pool or a multi pool, for those who look after tasks until they have ended and
 * for whom the two are alike (jobs, futures, groups, strands).
 */
#ifndef POOL_DOOR_H
#define POOL_DOOR_H

#include "base/alloc.h"
#include "pool/pool.h"

struct rp_multi;

/* One of the two is set. */
struct door {
    struct rp_pool *pool;
    struct rp_multi *multi;
};

static inline struct door door_pool(struct rp_pool *pool)
{
    return (struct door){.pool = pool};
}

static inline struct door door_multi(struct rp_multi *multi)
{
    return (struct door){.multi = multi};
}

/* The allocator behind the door: 0, -EINVAL (it is no door), -ECHILD, -ESHUTDOWN. */
int door_allocator(struct door door, struct rp_allocator *allocator);
/* Whether that is alloc_libc, for who submits there next, and learns by that whether it is open: anything where not. */
static inline bool door_libc(struct door door)
{
    return door.pool && load_relaxed(&door.pool->handle.libc); /* constant while the pool lives */
}
/*
 * `size` zeroed bytes from the allocator behind the door, which *allocator becomes, or NULL and *rc: -EINVAL (it is no
 * door), -ENOMEM, -ECHILD, -ESHUTDOWN.
 */
void *door_alloc(struct door door, size_t size, struct rp_allocator *allocator, int *rc);

/*
 * Submits a job's entry as a task: what submit returns. Of `task`: priority, overload, deadline, ctx. May block. *at
 * (NULL: nobody asks) becomes the pool that has it, before it does.
 */
int door_submit(struct door door, const struct entry *entry, const struct rp_task *task, _Atomic(struct rp_pool *) *at);

/* rp_pool_submit_task, rp_multi_submit_task. */
int door_submit_task(struct door door, const struct rp_task *task);

/* Whether the pool is the door's, or one of it. */
bool door_leads_to(struct door door, const struct pool *pool);

#endif
