/*
 * Handles; handle.h says what they are for. One lock for each kind guards its storage and its list of free handles, and
 * is held over a fork.
 */
#include "pool/handle.h"

#include "base/fork.h"
#include "base/futex.h"
#include "pool/pool.h"

#include <stdlib.h>

/* In this order a fork takes their locks. */
static struct handle_kind *const kinds[] = {&multi_handles, &pool_handles};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void each_core(struct handle_kind *kind, void (*visit)(void *core))
{
    if (!visit)
        return;
    for (struct handle_chunk *chunk = kind->chunks; chunk; chunk = chunk->next)
        for (unsigned i = 0; i < HANDLE_CHUNK; i++) {
            void *core = load_acquire(&chunk->handle[i].core); /* stays as it is: the lock is ours */
            if (core)
                visit(core);
        }
}

static void before_fork(void)
{
    for (unsigned i = 0; i < KINDS; i++) {
        rp_lock_acquire(&kinds[i]->lock);
        each_core(kinds[i], kinds[i]->before_fork);
    }
}

static void after_fork(void)
{
    for (unsigned i = KINDS; i-- > 0;) {
        each_core(kinds[i], kinds[i]->after_fork);
        rp_lock_release(&kinds[i]->lock);
    }
}

static void after_fork_in_child(void)
{
    for (unsigned i = KINDS; i-- > 0;) {
        each_core(kinds[i], kinds[i]->after_fork_in_child);
        rp_lock_release(&kinds[i]->lock);
    }
}

static const struct fork_hooks hooks = {before_fork, after_fork, after_fork_in_child};

static void free_add(struct handle_kind *kind, struct handle *handle)
{
    handle->next_free = NULL;
    *kind->newest_free = handle;
    kind->newest_free = &handle->next_free;
}

static int chunk_add(struct handle_kind *kind)
{
    struct handle_chunk *chunk = &kind->first;

    if (kind->chunks)
        chunk = calloc(1, sizeof(*chunk)); /* outlives every object, so not from a hook */
    else
        kind->newest_free = &kind->oldest_free;
    if (!chunk)
        return -ENOMEM;
    chunk->next = kind->chunks;
    kind->chunks = chunk;
    for (unsigned i = 0; i < HANDLE_CHUNK; i++)
        free_add(kind, &chunk->handle[i]);
    return 0;
}

int handle_create(struct handle_kind *kind, struct handle **handle, void *core)
{
    int rc = fork_register(&hooks);

    if (rc)
        return rc;
    rp_lock_acquire(&kind->lock);
    if (!kind->oldest_free)
        rc = chunk_add(kind);
    if (!rc) {
        struct handle *h = kind->oldest_free;
        kind->oldest_free = h->next_free;
        if (!kind->oldest_free)
            kind->newest_free = &kind->oldest_free;
        store_release(&h->state, HANDLE_LIVE);
        *handle = h;
        store_release(&h->core, core); /* pairs with the load in handle_enter */
    }
    rp_lock_release(&kind->lock);
    return rc;
}

void handle_empty(struct handle_kind *kind, struct handle *handle)
{
    rp_lock_acquire(&kind->lock);
    store_seq(&handle->core, NULL);
    rp_lock_release(&kind->lock);
}

void handle_free(struct handle_kind *kind, struct handle *handle)
{
    rp_lock_acquire(&kind->lock);
    store_release(&handle->state, HANDLE_FREE);
    free_add(kind, handle);
    rp_lock_release(&kind->lock);
}

/* --- pools ------------------------------------------------------------------------------------------------------ */

/* The child has none of the workers: every pool refuses calls there. */
static void pool_after_fork_in_child(void *core)
{
    struct pool *pool = core;

    store_relaxed(&pool->forked, 1); /* no other thread exists */
    or_seq(&pool->runq.tail, TAIL_CLOSED);
}

struct handle_kind pool_handles = {.after_fork_in_child = pool_after_fork_in_child};

int guest_enter(const struct rp_pool *handle, struct pool **core)
{
    int rc = pool_enter(handle, core);

    if (rc)
        return rc;
    if (load_relaxed(&(*core)->forked)) { /* constant in this process */
        pool_exit();
        return -ECHILD;
    }
    add_seq(&(*core)->guests, 1);
    pool_exit();
    return 0;
}

void guest_leave(struct pool *pool)
{
    rcu_enter(); /* destroy waits for no guest, then for a grace period: the lines below are the last of this one */
    uint32_t left = sub_seq(&pool->guests, 1) - 1;
    if (left == GUESTS_AWAITED)
        futex_wake(&pool->guests, 1);
    if (!(left & ~GUESTS_AWAITED))
        pool_maybe_reap(pool);
    rcu_exit();
}
