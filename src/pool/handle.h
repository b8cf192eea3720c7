/*
 * Handles: what a user's pointer to a pool or a multi pool points to.
 *
 * A call may begin before destroy returns and read the handle long after. So handles live in storage that is never
 * given back, and a handle leads to the object proper (the core) by one pointer. Inside an RCU read-side section a core
 * that was found there is not freed. Handles of destroyed objects are given out again, the oldest first, but only to
 * objects of the same kind.
 */
#ifndef POOL_HANDLE_H
#define POOL_HANDLE_H

#include "base/atomic.h"
#include "base/rcu.h"

#include <errno.h>
#include <ringpool/lock.h>

struct handle {
    _Atomic(void *) core; /* NULL once destroyed; read in an RCU section */
    _Atomic uint32_t state;
    _Atomic bool libc;        /* the core's memory comes from alloc_libc; of a destroyed one: any value */
    struct handle *next_free; /* under the kind's lock */
};

/* MEMBER: a live pool that belongs to a multi pool, and is nobody else's to destroy. */
enum { HANDLE_FREE, HANDLE_LIVE, HANDLE_DYING, HANDLE_MEMBER };

#define HANDLE_CHUNK 64

struct handle_chunk {
    struct handle_chunk *next;
    struct handle handle[HANDLE_CHUNK];
};

/*
 * All handles of one kind; zero but for the functions, which a fork calls for each core (each may be NULL). No core is
 * taken out of its handle, and so none is freed, between before_fork and the other two.
 */
struct handle_kind {
    struct rp_lock lock;
    struct handle_chunk first, *chunks; /* `first` spares a process of few objects the allocation */
    struct handle *oldest_free, **newest_free;
    void (*before_fork)(void *core);
    void (*after_fork)(void *core);
    void (*after_fork_in_child)(void *core); /* no other thread exists */
};

extern struct handle_kind pool_handles, multi_handles;

/* A live handle to the core. 0 or -ENOMEM. */
int handle_create(struct handle_kind *kind, struct handle **handle, void *core);
/* Takes the core out: no call enters it from then on. */
void handle_empty(struct handle_kind *kind, struct handle *handle);
/* The handle may be given out again. */
void handle_free(struct handle_kind *kind, struct handle *handle);

/*
 * Enters the core: 0 and *core readable until handle_exit, inside an RCU read-side section; or -EINVAL, -ESHUTDOWN
 * (destroyed), and no section.
 */
static inline int handle_enter(const struct handle *handle, void **core)
{
    if (__builtin_expect(!handle, 0))
        return -EINVAL;
    (void)rcu_attach(); /* what can fail of it was done when the handle was made */
    rcu_enter();
    *core = load_acquire(&handle->core);
    if (__builtin_expect(!*core, 0)) {
        rcu_exit();
        return -ESHUTDOWN;
    }
    return 0;
}

static inline void handle_exit(void)
{
    rcu_exit();
}

#endif
