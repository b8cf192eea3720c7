/*
 * Strands: serial execution by key. Tasks of one key run in the order of their submits and never two at once; tasks of
 * different keys run side by side on the workers of one pool.
 *
 * A key is any number, and needs no announcement: it costs 64 bytes while it has tasks, and nothing afterwards, so
 * there may be millions. For the pool a key with tasks is one task, which runs them one after the other; where others
 * wait for a worker it goes to the end of the pool's queue after a bounded number of them (rp_strand_options.burst).
 * The pool's gauges therefore count keys at work, rp_strand_snapshot counts tasks. What one task wrote is visible to
 * the next of its key.
 *
 * All functions may be called from any thread and inside a task, of the same key too, and race with each other; with
 * rp_strand_destroy only submits may that began before it, blocked ones too, and those of the strand's own tasks: they
 * get -ESHUTDOWN. Errors that all share: -EINVAL: an argument is out of its range (a NULL strand too); -ECHILD: the
 * strand was made before this process was forked.
 */
#ifndef RINGPOOL_STRAND_H
#define RINGPOOL_STRAND_H

#include <ringpool/base.h>
#include <ringpool/pool.h>
#include <ringpool/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_strand;

/* Zero means default for every field; reserved words must be zero (-EINVAL). */
struct rp_strand_options {
    unsigned burst;       /* tasks of one key in a row while others wait for a worker of the pool; 0: 16 */
    unsigned max_queued;  /* most tasks, over all keys, that are accepted and not started; 0: any number */
    unsigned max_per_key; /* the same for each key */
    int overload;       /* enum rp_overload for tasks that do not say: block (0), fail or discard newest; others, whose
                             meaning would take a key's order apart, are -ENOTSUP */
    int release_policy; /* enum rp_release_policy: queued tasks at rp_strand_release; 0: they run */
    int backend;        /* enum rp_backend_choice of the shared reactor */
    const struct rp_allocator *allocator; /* copied; NULL: malloc */
    uint64_t reserved[5];
};

/* All counts of tasks: submitted == completed + dropped + panicked + queued + running. */
struct rp_strand_snapshot {
    uint64_t submitted, completed, dropped, panicked;
    uint64_t queued;  /* accepted, not started */
    unsigned running; /* started, not ended */
    unsigned keys;    /* that have tasks */
};

/*
 * Makes a strand on a pool, which must outlive it. options may be NULL. It belongs to the caller, who ends it with
 * rp_strand_destroy.
 * -EINVAL, -ENOMEM, -ENOTSUP: the overload policy; -EAGAIN: no thread for the reactor; -EPERM, -ENOSYS, -EMFILE,
 * -ENFILE: the backend asked for by name is not granted.
 */
RP_API int rp_strand_create(struct rp_strand **strand, struct rp_pool *pool, const struct rp_strand_options *options);

/*
 * Hands fn(arg) to the key. 0: accepted. The first task of a key needs room in the pool, by the overload policy as any
 * task; until it has it, others of that key wait with it. Later ones need none. At the strand's own limits the policy
 * holds as well: blocked submitters keep no order among each other; a task of the strand does not block there but gets
 * -EAGAIN, as it might wait for itself.
 * -EAGAIN: no room, and not to wait, or another task's policy is just discarding the key's tasks; -ENOMEM;
 * -ESHUTDOWN: strand or pool are released; -EDEADLK: a worker of the pool that would block, and none can stand in for
 * it.
 */
RP_API int rp_strand_submit(struct rp_strand *strand, uint64_t key, void (*fn)(void *arg), void *arg);

/*
 * The same with what struct rp_task can say. priority is that of the key while it has tasks: the first one's. A
 * deadline bounds the start of this task and the blocking (-ETIMEDOUT). With a completion queue each task posts its own
 * completion: 0, -EFAULT after a panic, or why it was dropped. dropped is called once for a task that will not run,
 * with a reason as there, or that with which the pool dropped its key (-EAGAIN: discarded by another task's policy).
 * A context is as in any task, but that it does not end the submitter's blocking: once it has ended submit returns
 * -ECANCELED or -ETIMEDOUT, and a queued task is dropped with that when its turn comes; inside the task
 * rp_ctx_current() is it. A timeout bounds the run of this task: at its end the worker counts as hung and the context
 * is cancelled, but the key waits until fn has returned; then the completion is -ETIMEDOUT.
 * -ENOTSUP: an overload policy that strands do not have; what reserving a completion gave.
 */
RP_API int rp_strand_submit_task(struct rp_strand *strand, uint64_t key, const struct rp_task *task);

/*
 * Closes the strand: later submits get -ESHUTDOWN, blocked ones return with it, queued tasks meet the release policy,
 * running ones end by themselves. There is no way back. Released already: 0. Does not wait.
 */
RP_API int rp_strand_release(struct rp_strand *strand);

/*
 * Releases, and waits until all tasks have ended, until `deadline` (0: none). 0; -ETIMEDOUT: not yet, it may be called
 * again; -EDEADLK: inside a task of the strand. Inside another task it counts as blocking.
 */
RP_API int rp_strand_release_until(struct rp_strand *strand, int64_t deadline);

/* Counts of this moment, shard by shard: exact while nothing changes. Does not block. */
RP_API int rp_strand_snapshot(struct rp_strand *strand, struct rp_strand_snapshot *out);

/*
 * Releases, waits until all is ended, and frees; in any state. Inside a task of the strand it returns at once, and the
 * end of the last task frees it. A second destroy that races gets -EALREADY. In a forked child it frees.
 */
RP_API int rp_strand_destroy(struct rp_strand *strand);

#ifdef __cplusplus
}
#endif

#endif
