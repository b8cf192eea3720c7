/*
 * Contexts from the inside: how they are held, watched and embedded. See context.c.
 */
#ifndef POOL_CONTEXT_H
#define POOL_CONTEXT_H

#include "base/atomic.h"
#include "pool/watch.h"
#include "ring/reactor.h"

#include <ringpool/context.h>
#include <ringpool/lock.h>

/* Legend: T under the tree's lock, which is the root's `lock`; c constant once the context is given out. */
struct rp_ctx {
    _Atomic uint64_t state; /* T writes, once: 0, then err in the low half and cause in the high half; any reads */
    _Atomic uint32_t refs;
    unsigned generation;                    /* c: of forks */
    struct rp_ctx *parent, *root;           /* c: the parent is held */
    struct rp_lock lock;                    /* used in a root only */
    struct cds_list_head children, sibling; /* T */
    struct cds_list_head watches;           /* T */
    int64_t deadline;                       /* c */
    struct timer timer;                     /* where there is a reactor */
    struct reactor *reactor;                /* c: held; NULL: no deadline of its own */
    const void *key;                        /* c */
    void *value;                            /* c */
    void (*release)(struct rp_ctx *ctx);    /* c: frees the memory */
    struct rp_allocator allocator;          /* c */
};

static inline int ctx_err(const struct rp_ctx *ctx)
{
    return (int)(uint32_t)load_acquire(&ctx->state); /* [ended] pairs with the store in end_one_locked */
}

static inline void ctx_ref(struct rp_ctx *ctx)
{
    add_relaxed(&ctx->refs, 1); /* the caller holds one already, which orders it */
}

/* NULL is allowed. Not under a tree's lock. */
void ctx_unref(struct rp_ctx *ctx);

/* Makes a context in zeroed memory of the caller's, below a parent or NULL, with one reference. Cannot fail. */
void ctx_embed(struct rp_ctx *ctx, struct rp_ctx *parent, void (*release)(struct rp_ctx *ctx));

/* Cancels one whose memory the caller holds, but perhaps nobody the context any more: then it does nothing. */
void ctx_cancel_late(struct rp_ctx *ctx);

/* Whether it may be used here: 0 or -ECHILD. */
int ctx_usable(const struct rp_ctx *ctx);

/* Sets a watch: 0; positive: it is set already; negative: why the context has ended, and it is not set. */
int ctx_watch(struct rp_ctx *ctx, struct watch *watch);
/* true: it was still set, and will not fire. */
bool ctx_unwatch(struct rp_ctx *ctx, struct watch *watch);

#endif
