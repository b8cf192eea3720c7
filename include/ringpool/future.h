/*
 * Futures: tasks with a result, which can be waited for, cancelled and continued.
 *
 * A future is one futex word: neither its completion nor a look at it makes a system call while nobody sleeps on it.
 *
 * Waiting helps. A worker that waits for a future of its own pool which has not started runs it in place, on its own
 * stack, while at least half of that is left; else, and while it sleeps for one that runs elsewhere, the pool may have
 * one more worker (within max_extra). So tasks may wait for tasks at any capacity, and to a depth that
 * options.stack_size and max_extra bound: a level takes some 1.5 KiB beyond what fn needs, and beyond the bound the
 * wait is -EDEADLK, after a tenth of a second in which another might make way. A future that runs in place keeps its
 * place in the queue (what a submit inside a task does without room: rp_pool_submit). A wait that could never end,
 * because what it waits for is below it on its own stack, or waits for it in turn, over whatever threads, is -EDEADLK
 * at once.
 *
 * Every future meets exactly one end, and all who look see the same one: what fn returned, with its value; or, with the
 * value NULL,
 *   -ECANCELED   it was cancelled, or its context was, before it started
 *   -ETIMEDOUT   its deadline passed before it started, which is found out when the queue gets to it, or its context's
 *                did, which ends it at that moment; or it ran for longer than its timeout
 *   -EFAULT      fn panicked, or ended its thread
 *   -ESHUTDOWN   the pool dropped it at the release
 *   -EAGAIN      an overload policy discarded it
 *
 * Functions that take a future: -EINVAL for NULL; -ECHILD if it is from before a fork. Any thread, inside tasks too.
 */
#ifndef RINGPOOL_FUTURE_H
#define RINGPOOL_FUTURE_H

#include <ringpool/base.h>
#include <ringpool/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rp_pool;
struct rp_future;

/*
 * Submits fn(arg, &value) as rp_pool_submit does, with the same errors, and -ENOMEM. On success *future belongs to the
 * caller, who ends it with rp_future_destroy at any time; on failure it is NULL and fn is never called. fn's return
 * value is the future's result (by custom 0 or a negative errno), *value, NULL at first, goes with it. Memory: what the
 * submitter wrote before is visible to fn, what fn wrote to whoever saw the future done.
 */
RP_API int rp_pool_submit_future(struct rp_pool *pool, int (*fn)(void *arg, void **value), void *arg,
                                 struct rp_future **future);

/*
 * The same with all that a struct rp_task can say; task->fn must be NULL. dropped is called, with the reason, when fn
 * will never run; after a cancel that is when the queue gets to it. ctx NULL: the context of the task that submits, if
 * it has one. A timeout completes the future with -ETIMEDOUT and cancels the context that is its own, which fn sees as
 * rp_ctx_current(), not the one that ctx names; fn goes on until it returns.
 */
RP_API int rp_pool_submit_future_task(struct rp_pool *pool, int (*fn)(void *arg, void **value),
                                      const struct rp_task *task, struct rp_future **future);

/*
 * The result, and the value in *value (value may be NULL); as often as one likes. Blocks until it is done, with a
 * deadline at most until then: -ETIMEDOUT (a result may be that too: rp_future_done tells). -EDEADLK: see above. A
 * future that runs in place may make it late. -EINVAL: a negative deadline.
 */
RP_API int rp_future_get(struct rp_future *future, void **value);
RP_API int rp_future_get_until(struct rp_future *future, void **value, int64_t deadline);

/*
 * rp_future_get_until with the deadline rp_after(timeout_ns): blocks for at most so many nanoseconds from now, 0 not at
 * all (a deadline of 0 is none, but no time to wait is none either), and INT64_MAX for ever in practice. Unlike
 * rp_future_try_get it helps, so inside a task even 0 may run the future in place. -EINVAL: a negative timeout_ns; all
 * else as of get_until.
 */
RP_API int rp_future_get_timeout(struct rp_future *future, void **value, int64_t timeout_ns);

/* The result if it is done, else -EBUSY. Does not block. */
RP_API int rp_future_try_get(struct rp_future *future, void **value);

/* Whether it is done: one load. false for NULL. */
RP_API bool rp_future_done(const struct rp_future *future);

/*
 * Cancels it: one that has not started never runs and is done with -ECANCELED when this returns; one that runs is asked
 * through its context (rp_ctx_current() in fn) and ends as fn returns. 0, or -EALREADY: it is done. Does not block.
 */
RP_API int rp_future_cancel(struct rp_future *future);

/*
 * Runs it in the calling thread, now, if nobody has begun to: 0, and it is done. For a waiter that has nothing better
 * to do than wait for a worker; fn then runs beside the pool's workers, beyond its capacity. -EALREADY: it has begun or
 * ended. What fn raises ends fn as on a worker.
 */
RP_API int rp_future_run(struct rp_future *future);

/*
 * A future of `next`, which runs on the pool (NULL: that of `future`) once `future` is done, with its result and value.
 * If fn of `future` never returned, there is nothing to go on with: next is not called, and the new one gets the same
 * code. It keeps hold of `future`, which may be destroyed at once. A continuation runs on the worker that ended what it
 * continues, if that one is of its pool; else it is submitted, and the thread that ends `future` blocks for room as a
 * submitter would; what that submit fails with, -ESHUTDOWN or -ENOMEM, is its result. If `future` is done already this
 * call submits. Errors as of rp_pool_submit_future.
 */
RP_API int rp_future_then(struct rp_future *future, struct rp_pool *pool,
                          int (*next)(void *arg, int result, void *value, void **next_value), void *arg,
                          struct rp_future **next_future);

/*
 * Waits until one of n futures is done, and returns the least index of those that are; -ETIMEDOUT: none by the deadline
 * (0: none); -EINVAL: n is 0 or above INT_MAX, a NULL in the array, a negative deadline; -EDEADLK: none can ever be;
 * -ENOMEM, only with more than 128 or where the kernel cannot wait for several words.
 */
RP_API int rp_future_wait_any(struct rp_future *const *futures, unsigned n, int64_t deadline);

/*
 * Waits until all are done: 0, also for n 0; their results come from get. -ETIMEDOUT, -EINVAL, -EDEADLK: one never
 * will.
 */
RP_API int rp_future_wait_all(struct rp_future *const *futures, unsigned n, int64_t deadline);

/*
 * Gives the handle up, in any state; the task itself goes on and meets its end. The value that nobody took is whoever's
 * it was. NULL is allowed. Not while another thread uses the handle. detach says that the rest is meant to go on.
 *
 * Where the pool has no allocator of the user's the calling thread keeps the memory of up to 16 that have ended, 10 KiB,
 * for the next ones that it makes, until it ends.
 */
RP_API void rp_future_destroy(struct rp_future *future);
RP_API void rp_future_detach(struct rp_future *future);

/*
 * Futures with types. RP_FUTURE_TYPE(sum, struct in, struct out, add) makes of `int add(struct in *, struct out **)`
 *   static int sum_submit(struct rp_pool *pool, struct in *in, struct rp_future **future);
 *   static int sum_get(struct rp_future *future, struct out **out);
 *   static int sum_get_until(struct rp_future *future, struct out **out, int64_t deadline);
 *   static int sum_get_timeout(struct rp_future *future, struct out **out, int64_t timeout_ns);
 * so that no pointer is cast where it is used.
 */
/* NOLINTBEGIN(bugprone-macro-parentheses): a type cannot stand in parentheses */
#define RP_FUTURE_TYPE(name, in_type, out_type, function)                                                              \
    static inline int name##_call_(void *in_, void **out_)                                                             \
    {                                                                                                                  \
        out_type *typed_ = 0;                                                                                          \
        int rc_ = (function)((in_type *)in_, &typed_);                                                                 \
        *out_ = (void *)typed_;                                                                                        \
        return rc_;                                                                                                    \
    }                                                                                                                  \
    static inline int name##_submit(struct rp_pool *pool_, in_type *in_, struct rp_future **future_)                   \
    {                                                                                                                  \
        return rp_pool_submit_future(pool_, name##_call_, (void *)in_, future_);                                       \
    }                                                                                                                  \
    static inline int name##_get_until(struct rp_future *future_, out_type **out_, int64_t deadline_)                  \
    {                                                                                                                  \
        void *value_ = 0;                                                                                              \
        int rc_ = rp_future_get_until(future_, &value_, deadline_);                                                    \
        *out_ = (out_type *)value_;                                                                                    \
        return rc_;                                                                                                    \
    }                                                                                                                  \
    static inline int name##_get(struct rp_future *future_, out_type **out_)                                           \
    {                                                                                                                  \
        return name##_get_until(future_, out_, 0);                                                                     \
    }                                                                                                                  \
    static inline int name##_get_timeout(struct rp_future *future_, out_type **out_, int64_t timeout_ns_)              \
    {                                                                                                                  \
        void *value_ = 0;                                                                                              \
        int rc_ = rp_future_get_timeout(future_, &value_, timeout_ns_);                                                \
        *out_ = (out_type *)value_;                                                                                    \
        return rc_;                                                                                                    \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

#ifdef __cplusplus
}
#endif

#endif
