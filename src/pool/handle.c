/*
 * Handles: what a user's `struct rp_pool *` points to.
 *
 * A call may begin before destroy returns and read the handle long after. So handles live in storage that is never
 * given back, and a handle leads to the pool proper (the core) by one pointer. Inside an RCU read-side section a core
 * that was found there is not freed. Handles of destroyed pools are given out again, the oldest first.
 */
#include "base/alloc.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/rcu.h"
#include "pool/pool.h"

#include <errno.h>
#include <stdlib.h>

#define CHUNK 64

struct chunk {
    struct chunk *next;
    struct rp_pool handle[CHUNK];
};

/* Under `lock`; `first` spares a process of few pools the allocation. */
static struct rp_lock lock;
static struct chunk first;
static struct chunk *chunks;
static struct rp_pool *oldest_free, **newest_free = &oldest_free;

static void before_fork(void)
{
    rp_lock_acquire(&lock);
}

static void after_fork(void)
{
    rp_lock_release(&lock);
}

/* The child has none of the workers: every pool refuses calls there. */
static void after_fork_in_child(void)
{
    for (struct chunk *chunk = chunks; chunk; chunk = chunk->next)
        for (unsigned i = 0; i < CHUNK; i++) {
            struct pool *core = load_relaxed(&chunk->handle[i].core); /* no other thread exists */
            if (!core)
                continue;
            store_relaxed(&core->forked, 1);
            or_seq(&core->runq.tail, TAIL_CLOSED);
        }
    rp_lock_release(&lock);
}

static const struct fork_hooks hooks = {before_fork, after_fork, after_fork_in_child};

static void free_add(struct rp_pool *handle)
{
    handle->next_free = NULL;
    *newest_free = handle;
    newest_free = &handle->next_free;
}

static int chunk_add(void)
{
    struct chunk *chunk = chunks ? calloc(1, sizeof(*chunk)) : &first; /* outlives every pool, so not from a hook */

    if (!chunk)
        return -ENOMEM;
    chunk->next = chunks;
    chunks = chunk;
    for (unsigned i = 0; i < CHUNK; i++)
        free_add(&chunk->handle[i]);
    return 0;
}

int handle_create(struct rp_pool **handle, struct pool *core)
{
    int rc = fork_register(&hooks);

    if (rc)
        return rc;
    rp_lock_acquire(&lock);
    if (!oldest_free)
        rc = chunk_add();
    if (!rc) {
        struct rp_pool *h = oldest_free;
        oldest_free = h->next_free;
        if (!oldest_free)
            newest_free = &oldest_free;
        core->handle = h;
        store_release(&h->state, HANDLE_LIVE);
        store_release(&h->core, core); /* pairs with the load in pool_enter */
        *handle = h;
    }
    rp_lock_release(&lock);
    return rc;
}

void handle_empty(struct rp_pool *handle)
{
    store_seq(&handle->core, NULL);
}

void handle_free(struct rp_pool *handle)
{
    rp_lock_acquire(&lock);
    store_release(&handle->state, HANDLE_FREE);
    free_add(handle);
    rp_lock_release(&lock);
}

/* --- entering --------------------------------------------------------------------------------------------------- */

int pool_enter(const struct rp_pool *handle, struct pool **core)
{
    if (__builtin_expect(!handle, 0))
        return -EINVAL;
    int rc = rcu_attach();
    if (__builtin_expect(rc, 0))
        return rc;
    rcu_enter();
    *core = load_acquire(&handle->core);
    if (__builtin_expect(!*core, 0)) {
        rcu_exit();
        return -ESHUTDOWN;
    }
    return 0;
}

void pool_exit(void)
{
    rcu_exit();
}

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
    if (sub_seq(&pool->guests, 1) == 1) {
        futex_wake((_Atomic uint32_t *)&pool->guests, 1);
        pool_maybe_reap(pool);
    }
    rcu_exit();
}
