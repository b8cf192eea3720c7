/*
 * Contexts: one lock per tree, one word per context.
 *
 * The word is all that a task looks at: it is written once, under the lock of the tree, and read by anybody with one
 * load. The lock is the root's, so that a cancel marks a whole subtree in one step: no child can be made below a
 * context that has ended and last on. Whoever wants to be told leaves a watch (watch.h).
 *
 * Lifetime. Each context holds its parent. At its last reference a context first waits for its timer's callback, then
 * leaves the tree under the lock, then is freed: so a walk under the lock meets only readable memory, perhaps of a
 * context that is on its way out. The callback takes a reference of its own, unless none is left: then the one who
 * gave the last one back is waiting for the callback, and there is nobody to be told. Walks and releases are loops: a
 * tree may be a chain of any depth.
 *
 * Order of locks: a tree's, then the reactor's (timer_cancel). Nothing that a tree's lock is held for calls back, but
 * for watches that store a word and wake.
 */
#include "pool/context.h"

#include "base/alloc.h"
#include "base/fork.h"
#include "base/futex.h"

#include <errno.h>
#include <string.h>

/* --- holding ---------------------------------------------------------------------------------------------------- */

void ctx_unref(struct rp_ctx *ctx)
{
    while (ctx && sub_acq_rel(&ctx->refs, 1) == 1) {
        struct rp_ctx *parent = ctx->parent;

        if (ctx->reactor) {
            timer_cancel_wait(&ctx->timer);
            reactor_put(ctx->reactor);
        }
        if (parent &&
            ctx->generation == fork_generation()) { /* else the lock may be held by a thread that is not here */
            rp_lock_acquire(&ctx->root->lock);
            cds_list_del(&ctx->sibling);
            rp_lock_release(&ctx->root->lock);
        }
        ctx->release(ctx);
        ctx = parent;
    }
}

/* false: the last one was given back, and the memory lasts only as long as the caller is waited for. */
static bool ref_try(struct rp_ctx *ctx)
{
    uint32_t refs = load_relaxed(&ctx->refs); /* validated by the CAS */

    do {
        if (!refs)
            return false;
    } while (!cas_acquire(&ctx->refs, &refs, refs + 1));
    return true;
}

int ctx_usable(const struct rp_ctx *ctx)
{
    return ctx->generation == fork_generation() ? 0 : -ECHILD;
}

/* --- ending ----------------------------------------------------------------------------------------------------- */

static uint64_t state_of(int err, int cause)
{
    return (uint64_t)(uint32_t)cause << 32 | (uint32_t)err;
}

/* false: it had ended before, and so had all below it. */
static bool end_one_locked(struct rp_ctx *ctx, uint64_t state, struct cds_list_head *later)
{
    if (load_relaxed(&ctx->state)) /* written under the lock that we hold */
        return false;
    store_release(&ctx->state, state); /* [ended] */
    if (ctx->reactor)
        timer_cancel(&ctx->timer);
    watch_fire_locked(&ctx->watches, later, (int)(uint32_t)state);
    return true;
}

static struct rp_ctx *child_of(const struct cds_list_head *node)
{
    return caa_container_of(node, struct rp_ctx, sibling);
}

/* The next context of the subtree of `top` in the order of a walk, depth first; NULL: that was the last. */
static struct rp_ctx *walk_next(const struct rp_ctx *top, struct rp_ctx *at, bool down)
{
    if (down && !cds_list_empty(&at->children))
        return child_of(at->children.next);
    while (at != top) {
        if (at->sibling.next != &at->parent->children)
            return child_of(at->sibling.next);
        at = at->parent;
    }
    return NULL;
}

static void ctx_end(struct rp_ctx *ctx, int err, int cause)
{
    uint64_t state = state_of(err, cause);
    CDS_LIST_HEAD(later);

    rp_lock_acquire(&ctx->root->lock);
    for (struct rp_ctx *at = ctx; at;)
        at = walk_next(ctx, at, end_one_locked(at, state, &later));
    rp_lock_release(&ctx->root->lock);
    watch_fire_later(&later, err);
}

/* On the reactor. */
static void ctx_expire(struct timer *timer)
{
    struct rp_ctx *ctx = caa_container_of(timer, struct rp_ctx, timer);

    if (!ref_try(ctx))
        return;
    ctx_end(ctx, -ETIMEDOUT, -ETIMEDOUT);
    ctx_unref(ctx);
}

void rp_ctx_cancel(struct rp_ctx *ctx, int cause)
{
    if (!ctx || ctx_usable(ctx) || ctx_err(ctx))
        return;
    if (cause > 0)
        cause = -cause;
    ctx_ref(ctx); /* a watch may give up what holds it */
    ctx_end(ctx, cause == -ETIMEDOUT ? -ETIMEDOUT : -ECANCELED, cause ? cause : -ECANCELED);
    ctx_unref(ctx);
}

void ctx_cancel_late(struct rp_ctx *ctx)
{
    if (!ref_try(ctx))
        return;
    rp_ctx_cancel(ctx, 0);
    ctx_unref(ctx);
}

/* --- making ----------------------------------------------------------------------------------------------------- */

void ctx_embed(struct rp_ctx *ctx, struct rp_ctx *parent, void (*release)(struct rp_ctx *ctx))
{
    store_relaxed(&ctx->refs, 1); /* nobody else sees it yet */
    ctx->generation = fork_generation();
    ctx->release = release;
    ctx->root = ctx;
    CDS_INIT_LIST_HEAD(&ctx->children);
    CDS_INIT_LIST_HEAD(&ctx->watches);
    if (!parent)
        return;
    ctx_ref(parent);
    ctx->parent = parent;
    ctx->root = parent->root;
    if (parent->deadline && (!ctx->deadline || parent->deadline < ctx->deadline))
        ctx->deadline = parent->deadline;
    rp_lock_acquire(&ctx->root->lock);
    store_release(&ctx->state, load_relaxed(&parent->state)); /* [ended]; the load: under the lock that writes it */
    cds_list_add_tail(&ctx->sibling, &parent->children);
    rp_lock_release(&ctx->root->lock);
}

static void ctx_free(struct rp_ctx *ctx)
{
    struct rp_allocator allocator = ctx->allocator;

    alloc_free(&allocator, ctx);
}

static int options_check(const struct rp_ctx_options *o)
{
    static const uint64_t none[sizeof(o->reserved) / sizeof(o->reserved[0])];

    return o->deadline < 0 || memcmp(o->reserved, none, sizeof(none)) != 0 ? -EINVAL : 0;
}

/* A timer is needed only for a deadline that no ancestor's timer comes before. */
static int deadline_prepare(struct rp_ctx *ctx, const struct rp_ctx *parent, int64_t deadline)
{
    ctx->deadline = deadline;
    if (!deadline || (parent && parent->deadline && parent->deadline <= deadline))
        return 0;
    int rc = reactor_get(&ctx->reactor, RP_BACKEND_AUTO, false);
    if (!rc)
        timer_init(&ctx->timer, ctx->reactor, ctx_expire);
    return rc;
}

int rp_ctx_create_with(struct rp_ctx **out, struct rp_ctx *parent, const struct rp_ctx_options *options)
{
    static const struct rp_ctx_options defaults;
    const struct rp_ctx_options *o = options ? options : &defaults;
    struct rp_allocator allocator;

    if (!out)
        return -EINVAL;
    *out = NULL;
    int rc = options_check(o);
    if (rc || (parent && (rc = ctx_usable(parent))))
        return rc;
    rc = alloc_init(&allocator, o->allocator || !parent ? o->allocator : &parent->allocator);
    if (rc || (rc = fork_install()))
        return rc;
    struct rp_ctx *ctx = alloc_zeroed(&allocator, 1, sizeof(*ctx));
    if (!ctx)
        return -ENOMEM;
    rc = deadline_prepare(ctx, parent, o->deadline);
    if (rc) {
        alloc_free(&allocator, ctx);
        return rc;
    }
    ctx->allocator = allocator;
    ctx->key = o->key;
    ctx->value = o->value;
    ctx_embed(ctx, parent, ctx_free);
    if (ctx->reactor && rp_now() >= ctx->deadline)
        ctx_end(ctx, -ETIMEDOUT, -ETIMEDOUT);
    else if (ctx->reactor)
        timer_arm(&ctx->timer, ctx->deadline);
    *out = ctx;
    return 0;
}

int rp_ctx_create(struct rp_ctx **ctx, struct rp_ctx *parent, int64_t deadline)
{
    return rp_ctx_create_with(ctx, parent, &(struct rp_ctx_options){.deadline = deadline});
}

struct rp_ctx *rp_ctx_hold(struct rp_ctx *ctx)
{
    if (ctx)
        ctx_ref(ctx);
    return ctx;
}

void rp_ctx_destroy(struct rp_ctx *ctx)
{
    ctx_unref(ctx);
}

/* --- reading ---------------------------------------------------------------------------------------------------- */

bool rp_ctx_done(const struct rp_ctx *ctx)
{
    return ctx && load_acquire(&ctx->state) != 0; /* [ended] */
}

int rp_ctx_err(const struct rp_ctx *ctx)
{
    return ctx ? ctx_err(ctx) : 0;
}

int rp_ctx_cause(const struct rp_ctx *ctx)
{
    return ctx ? (int)(uint32_t)(load_acquire(&ctx->state) >> 32) : 0; /* [ended] */
}

int64_t rp_ctx_deadline(const struct rp_ctx *ctx)
{
    return ctx ? ctx->deadline : 0;
}

void *rp_ctx_value(const struct rp_ctx *ctx, const void *key)
{
    for (; ctx && key; ctx = ctx->parent)
        if (ctx->key == key)
            return ctx->value;
    return NULL;
}

/* --- being told ------------------------------------------------------------------------------------------------- */

int ctx_watch(struct rp_ctx *ctx, struct watch *watch)
{
    rp_lock_acquire(&ctx->root->lock);
    int err = (int)(uint32_t)load_relaxed(&ctx->state); /* written under the lock that we hold */
    if (!err && watch->set)
        err = 1;
    else if (!err)
        watch_set_locked(&ctx->watches, watch);
    rp_lock_release(&ctx->root->lock);
    return err;
}

bool ctx_unwatch(struct rp_ctx *ctx, struct watch *watch)
{
    rp_lock_acquire(&ctx->root->lock);
    bool was_set = watch_clear_locked(watch);
    rp_lock_release(&ctx->root->lock);
    return was_set;
}

struct sleeper {
    struct watch watch;
    _Atomic uint32_t told;
};

static void sleeper_tell(struct watch *watch, int reason)
{
    struct sleeper *sleeper = caa_container_of(watch, struct sleeper, watch);

    (void)reason;
    store_release(&sleeper->told, 1); /* under the lock, so that the sleeper's stack is still there */
    futex_wake(&sleeper->told, 1);
}

int rp_ctx_sleep(struct rp_ctx *ctx, int64_t deadline)
{
    struct sleeper me = {.watch = {.fire = sleeper_tell}};

    if (!ctx || deadline < 0)
        return -EINVAL;
    int rc = ctx_usable(ctx);
    if (rc || (rc = ctx_watch(ctx, &me.watch)))
        return rc;
    while (!load_acquire(&me.told))
        if (futex_wait(&me.told, 0, deadline) == -ETIMEDOUT)
            break;
    ctx_unwatch(ctx, &me.watch);
    return ctx_err(ctx);
}
