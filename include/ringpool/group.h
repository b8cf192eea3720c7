/*
 * Task groups: a scope that tasks are submitted into, and that ends when all of them have.
 *
 * The first member that fails is the group's error; unless the group keeps going, it cancels the rest: members that
 * have not started end at once, those that run are asked through the group's context. Groups nest: inside a member,
 * rp_ctx_current() is the group's context, and groups and futures made there go below it.
 *
 * Functions that take a group: -EINVAL for NULL; -ECHILD if it is from before a fork. Any thread, inside tasks too.
 */
#ifndef RINGPOOL_GROUP_H
#define RINGPOOL_GROUP_H

#include <ringpool/base.h>
#include <ringpool/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_pool;
struct rp_group;

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_group_options {
    struct rp_ctx
        *ctx; /* the group's context goes below it; NULL: below the context of the calling task, if it has one */
    int64_t deadline; /* the group's context ends then; 0: none */
    bool keep_going;  /* an error cancels nothing */
    uint64_t reserved[4];
};

/*
 * Makes a group of tasks of the pool; options may be NULL. *group belongs to the caller, who ends it with
 * rp_group_destroy. 0; -EINVAL; -ENOMEM; -EAGAIN: no thread for the deadline's timer; -ESHUTDOWN, -ECHILD.
 */
RP_API int rp_group_create(struct rp_group **group, struct rp_pool *pool, const struct rp_group_options *options);

/*
 * Submits fn(arg) as a member, as rp_pool_submit does and with its errors; -ENOMEM; -ECANCELED or -ETIMEDOUT: the
 * group's context has ended. fn fails by returning a negative errno. The second form says all that a struct rp_task
 * can: its fn must be NULL, and its ctx, as the group has one (-EINVAL).
 */
RP_API int rp_group_submit(struct rp_group *group, int (*fn)(void *arg), void *arg);
RP_API int rp_group_submit_task(struct rp_group *group, int (*fn)(void *arg), const struct rp_task *task);

/*
 * Waits until no member is left, those included that are submitted meanwhile: 0 if all succeeded, else the first
 * error; -EFAULT: a member panicked; -ECANCELED, -ETIMEDOUT, -ESHUTDOWN, -EAGAIN: it never ran. A worker of the pool
 * runs members that have not started itself. -ETIMEDOUT also: the deadline (0: none) has passed first; one may wait
 * again. -EDEADLK: a member waits for this wait, the caller itself for instance.
 */
RP_API int rp_group_wait(struct rp_group *group, int64_t deadline);

/* Cancels all members as rp_ctx_cancel of the group's context does. Further submits are refused. Does not block. */
RP_API int rp_group_cancel(struct rp_group *group, int cause);

/* The group's context, borrowed. NULL for NULL. */
RP_API struct rp_ctx *rp_group_ctx(struct rp_group *group);

/* Gives the group up, in any state: members go on and meet their end. NULL is allowed. */
RP_API void rp_group_destroy(struct rp_group *group);

#ifdef __cplusplus
}
#endif

#endif
