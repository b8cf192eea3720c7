/*
 * Contexts: a tree of "this is not wanted any more", with deadlines, causes and values.
 *
 * A context ends once: cancelled, at its deadline, or with its parent; all below it end in the same step. A task that
 * was submitted with a context (rp_task.ctx) does not start once it has ended, its submitter does not block any longer,
 * and while it runs it asks rp_ctx_done() now and then, which is one load. Nothing is interrupted.
 *
 * Contexts are counted. Tasks, futures, groups and child contexts hold the ones they use, so that rp_ctx_destroy is
 * right at any time: it gives up the caller's hold and changes nothing else.
 *
 * Values. A context may carry one key with a value; rp_ctx_value() looks for a key from a context upwards. Inside a
 * task rp_ctx_current() is the task's context; futures, groups and continuations that a task submits without naming a
 * context go below that one, so what a request carries reaches all that is done for it. Tasks of rp_pool_submit carry
 * none, those of rp_pool_submit_task the one that they name.
 *
 * In a forked child the contexts made before it can be read and destroyed; cancelling them does nothing there, and as
 * a parent, or in a task, they are -ECHILD.
 */
#ifndef RINGPOOL_CONTEXT_H
#define RINGPOOL_CONTEXT_H

#include <ringpool/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_ctx;

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_ctx_options {
    int64_t deadline; /* it ends with -ETIMEDOUT then; 0: its parent's, or none; a parent's earlier one holds as well */
    const void *key;  /* compared by address; best that of an object of the code that owns the key; NULL: no value */
    void *value;      /* of key; must live as long as the context is used */
    const struct rp_allocator *allocator; /* copied; NULL: the parent's, or malloc */
    uint64_t reserved[4];
};

/*
 * Makes a context below `parent` (NULL: the root of a tree of its own). One whose deadline has passed, or whose parent
 * has ended, is made and has ended. The first context with a deadline starts the reactor that pools share, if no pool
 * has; a deadline is met late by that thread's wake-up, never early. Any thread. 0; -EINVAL: ctx is NULL, a negative
 * deadline, a reserved word; -ENOMEM; -EAGAIN: no thread for the reactor; -ECHILD: the parent is from before a fork.
 */
RP_API int rp_ctx_create(struct rp_ctx **ctx, struct rp_ctx *parent, int64_t deadline);
RP_API int rp_ctx_create_with(struct rp_ctx **ctx, struct rp_ctx *parent, const struct rp_ctx_options *options);

/*
 * Ends the context and all below it: rp_ctx_err becomes -ECANCELED (-ETIMEDOUT if that is the cause), rp_ctx_cause the
 * cause, any negative errno, 0 meaning -ECANCELED; a positive number counts as its negative. Without effect on one that
 * has ended: the first cause stays. Futures and group members below it that have not started end at once; queued tasks
 * are dropped when the queue gets to them. Takes time in proportion to what is below; does not block. Any thread.
 */
RP_API void rp_ctx_cancel(struct rp_ctx *ctx, int cause);

/* Whether it has ended: one load. false for NULL. Any thread, async-signal-safe. */
RP_API bool rp_ctx_done(const struct rp_ctx *ctx);

/* 0 while it lasts, then -ECANCELED or -ETIMEDOUT. 0 for NULL. Any thread, async-signal-safe. */
RP_API int rp_ctx_err(const struct rp_ctx *ctx);

/* 0 while it lasts, then what ended it: the cause of the cancel, also of one further up, or -ETIMEDOUT. Likewise. */
RP_API int rp_ctx_cause(const struct rp_ctx *ctx);

/* When it ends at the latest: its own deadline or an ancestor's, the earliest; 0: none. 0 for NULL. Any thread. */
RP_API int64_t rp_ctx_deadline(const struct rp_ctx *ctx);

/* The value of the key in the context or the nearest one above it that has the key; NULL if none does. Any thread. */
RP_API void *rp_ctx_value(const struct rp_ctx *ctx, const void *key);

/*
 * Sleeps until the context has ended: then rp_ctx_err(); or until `deadline` (0: none): then 0. For a task that waits
 * for nothing else: inside a pool it holds its worker. -EINVAL: ctx is NULL, or a negative deadline; -ECHILD. Any
 * thread.
 */
RP_API int rp_ctx_sleep(struct rp_ctx *ctx, int64_t deadline);

/*
 * The context of the task that the caller runs, NULL where there is none: outside of tasks, and in tasks that carry
 * none. A future always has one. Borrowed: valid until the task returns, longer with rp_ctx_hold. Does not block.
 */
RP_API struct rp_ctx *rp_ctx_current(void);

/* One more hold on the context, to be given up by rp_ctx_destroy as well. Returns ctx. Any thread. */
RP_API struct rp_ctx *rp_ctx_hold(struct rp_ctx *ctx);

/*
 * Gives up a hold: the memory is freed with the last one (the tasks' and children's count). Does not cancel. NULL is
 * allowed. May wait for a callback of the context's deadline that is just running. Any thread.
 */
RP_API void rp_ctx_destroy(struct rp_ctx *ctx);

#ifdef __cplusplus
}
#endif

#endif
