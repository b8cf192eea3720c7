/*
 * Futures: the word, and what may happen to it.
 *
 * The word's bits only ever get set, but for those that say where one that has not begun stands (retry.c, then.c). The
 * transitions that matter, each one CAS:
 *
 *     claim     neither RUNNING nor DONE -> RUNNING           a dequeue, or a waiter that runs it itself (PLACE)
 *     cancel    neither RUNNING nor DONE -> DONE | code       by cancel, by its context, by a source without result
 *     finish    not DONE -> DONE | code                       its runner (code 0 after fn returned), or its timeout
 *
 * So there is one claim or one cancel, and one finish: exactly one outcome, which stands in the word itself, but for
 * what fn returned. That is in `rc` and `value`: its runner alone writes them, before its finish; whoever sees DONE
 * with code 0 knows that it was the runner's and, the CAS being a release and the look an acquire [done], sees both.
 * Whoever sees another code does not look at them, so that a runner which comes after the timeout may write them in
 * peace.
 *
 * No wake-up is lost: a waiter sets WAITERS by a fetch-or, looks at what it got for DONE, and sleeps while the word is
 * as it was then. The finish is a read-modify-write of the same word: it comes before the fetch-or, and the waiter sees
 * DONE; or after, and sees WAITERS, and wakes; and if it comes between the fetch-or and the sleep, the word differs.
 * WATCHED is the same with a list beside it: it is set under the list's lock, after the watch is on the list.
 *
 * What a round trip costs is how often the first cache line of a future changes its CPU: made here, claimed there, done
 * there, seen here, and no more. Hence the share in the word (future_leave), the short end (end_plain), and the pauses
 * of who looks (spin in wait.c).
 */
#include "pool/future.h"

#include "base/alloc.h"
#include "base/cpu.h"
#include "base/futex.h"
#include "pool/completion.h"
#include "pool/then.h"

#include <errno.h>
#include <limits.h>
#include <ringpool/multi.h>
#include <stddef.h>
#include <string.h>

const void *thread_self(void)
{
    return (const void *)pthread_self();
}

static struct rp_future *future_of(struct job *job)
{
    return caa_container_of(job, struct rp_future, job);
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

static void unguard(struct rp_future *future)
{
    if ((future->kind & (KIND_CTX | KIND_PART)) == KIND_CTX && ctx_unwatch(future->task.ctx, &future->ctx_watch))
        future_unref(future); /* the watch's; the caller has another */
}

static uint32_t code_bits(int code)
{
    return (uint32_t)-code << FUTURE_CODE_SHIFT;
}

bool future_finish(struct rp_future *future, uint32_t unless, int code)
{
    uint32_t word = load_relaxed(&future->word); /* validated by the CAS */

    do {
        if (word & unless)
            return false;
    } while (!cas_seq(&future->word, &word, word | FUTURE_DONE | code_bits(code))); /* [done] */
    if (word & FUTURE_WAITERS)
        futex_wake(&future->word, INT_MAX);
    if (word & FUTURE_WATCHED)
        then_fire(future);
    if (!(word & FUTURE_RUNNING))
        unguard(future);
    if (future->kind & KIND_PART)
        group_member_ended(future);
    return true;
}

bool future_watch(struct rp_future *future, struct watch *watch)
{
    rp_lock_acquire(&future->lock);
    watch_set_locked(&future->watches, watch);
    bool set = !(or_seq(&future->word, FUTURE_WATCHED) & FUTURE_DONE);
    if (!set)
        watch_clear_locked(watch);
    rp_lock_release(&future->lock);
    return set;
}

bool future_unwatch(struct rp_future *future, struct watch *watch)
{
    rp_lock_acquire(&future->lock);
    bool was_set = watch_clear_locked(watch);
    rp_lock_release(&future->lock);
    return was_set;
}

/*
 * Who finds a single reference holds it: nobody else is left to take one. `keep`: the caller may need one again; not of
 * one from before a fork, which a thread that the child does not have may have had under its lock.
 */
static void unref(struct rp_future *future, bool keep)
{
    if (load_acquire(&future->refs) != 1 && sub_acq_rel(&future->refs, 1) != 1) /* pairs with the others' sub_acq_rel */
        return;
    struct rp_allocator allocator = future->allocator;

    ctx_unref(future->task.ctx);
    if (future->retry)
        retry_free(future);
    if (future->group)
        group_unref(future->group);
    if (keep && future->reusable && future->generation == fork_generation() && spare_keep(&future->spare))
        ALLOC_POISON(future, offsetof(struct rp_future, spare));
    else
        alloc_free_aligned(&allocator, future);
}

void future_unref(struct rp_future *future)
{
    unref(future, false);
}

void future_leave(struct rp_future *future, uint32_t as)
{
    uint32_t other = as ^ (FUTURE_GONE | FUTURE_LEFT);

    if (load_acquire(&future->word) & other || or_seq(&future->word, as) & other) /* [left] pairs with the other's */
        unref(future, as == FUTURE_GONE);
}

int future_result(const struct rp_future *future, void **value)
{
    int code = future_code(future);

    if (value)
        *value = code ? NULL : future->value;
    return code ? code : future->rc;
}

/* --- as a job --------------------------------------------------------------------------------------------------- */

bool future_claim(struct rp_future *future, uint32_t from, uint32_t with)
{
    uint32_t word = load_relaxed(&future->word); /* validated by the CAS */

    do {
        if (word & (FUTURE_RUNNING | FUTURE_DONE) || (word & from) != from)
            return false;
    } while (!cas_seq(&future->word, &word, word | FUTURE_RUNNING | with));
    store_relaxed(&future->cpu, cpu_current());    /* a hint */
    store_release(&future->runner, thread_self()); /* [runner] pairs with the load in wait.c */
    unguard(future);
    if (future->kind & KIND_PART)
        group_member_started(future);
    return true;
}

/* From a dequeue. */
static int claim(struct job *job)
{
    struct rp_future *future = future_of(job);

    if (future_claim(future, 0, 0))
        return JOB_MINE;
    if (load_acquire(&future->word) & FUTURE_PLACE)
        return JOB_ELSEWHERE;
    return future_code(future); /* done, and never claimed */
}

static bool swapped(struct job *job, struct entry *entry)
{
    struct rp_future *future = future_of(job);
    bool filled = place_take(future, entry);

    future_unref(future);
    return filled;
}

/* EMPTY is only met by whoever took the entry before its helper looked for it. */
static bool kept(const struct job *job)
{
    const struct rp_future *future = caa_container_of(job, const struct rp_future, job);

    return load_acquire(&future->word) & FUTURE_PLACE && load_acquire(&future->place) == PLACE_FILLED; /* [place] */
}

static void run(struct job *job)
{
    struct rp_future *future = future_of(job);
    void *value = NULL;
    int rc;

    if (future->kind & KIND_DROPPED) /* else nobody asks */
        future->begun = true;
    if (future->kind & KIND_NEXT) {
        void *source_value;
        int source_rc = future_result(future->source, &source_value);
        rc = future->call.next(future->arg, source_rc, source_value, &value);
    } else if (future->kind & KIND_PART) {
        rc = future->call.part(future->arg);
    } else {
        rc = future->call.fn(future->arg, &value);
    }
    future->rc = rc;
    future->value = value;
}

static void source_drop(struct rp_future *future)
{
    rp_lock_acquire(&future->lock);
    struct rp_future *source = future->source;
    future->source = NULL;
    rp_lock_release(&future->lock);
    if (source)
        future_unref(source);
}

#define NOT_PLAIN (FUTURE_DONE | FUTURE_WATCHED | FUTURE_OWN) /* its end is more than one CAS */

/* The end of one of no kind, and its last act, in one; not if its word has a bit of `unless`. */
static inline bool end_plain(struct rp_future *future, uint32_t unless, int result)
{
    uint32_t word = load_relaxed(&future->word); /* validated by the CAS */

    do {
        if (word & unless)
            return false;
    } while (!cas_seq(&future->word, &word, word | FUTURE_DONE | FUTURE_LEFT | code_bits(result))); /* [done], [left] */
    if (word & FUTURE_WAITERS) /* the memory may be gone: its address is all that is used */
        futex_wake(&future->word, INT_MAX);
    if (word & FUTURE_GONE)
        future_unref(future);
    return true;
}

static void end(struct job *job, int result)
{
    struct rp_future *future = future_of(job);

    if (!future->kind && end_plain(future, NOT_PLAIN, result))
        return;
    if (!result && future->retry && retry_again(future))
        return;
    if (result && !future->begun && future->task.dropped)
        future->task.dropped(future->arg, result);
    if (future->kind & KIND_NEXT)
        source_drop(future);
    future_finish(future, FUTURE_DONE, result);
    if (future->task.cq)
        cq_post(future->task.cq, future->task.user_data, future_result(future, NULL));
    if (load_acquire(&future->word) & FUTURE_OWN)
        ctx_unref(&future->own);
    future_leave(future, FUTURE_LEFT);
}

static bool end_quiet(struct job *job)
{
    struct rp_future *future = future_of(job);

    /* In a section: one that its owner has given up is freed elsewhere. */
    return !future->kind && end_plain(future, NOT_PLAIN | FUTURE_GONE, 0);
}

static bool continues(const struct job *job)
{
    const struct rp_future *future = caa_container_of(job, const struct rp_future, job);

    return load_relaxed(&future->word) & FUTURE_WATCHED; /* a hint */
}

static void own_release(struct rp_ctx *ctx)
{
    future_unref(caa_container_of(ctx, struct rp_future, own));
}

/*
 * The future's own context is made when somebody asks for it. Who cancels a future that runs sets ASKED and sees OWN,
 * or else this sets OWN and sees ASKED: the later of the two cancels the context.
 */
static struct rp_ctx *context(struct job *job, bool make)
{
    struct rp_future *future = future_of(job);

    if (future->group)
        return group_context(future->group);
    if (load_relaxed(&future->word) & FUTURE_OWN) /* set by this thread */
        return &future->own;
    if (!make)
        return future->task.ctx;
    future_ref(future); /* the context's */
    memset(&future->own, 0, sizeof(future->own));
    future->own.allocator = future->allocator;
    ctx_embed(&future->own, future->task.ctx, own_release);
    uint32_t word = or_seq(&future->word, FUTURE_OWN);
    if (word & FUTURE_DONE)
        rp_ctx_cancel(&future->own, future_code(future));
    else if (word & FUTURE_ASKED)
        rp_ctx_cancel(&future->own, 0);
    return &future->own;
}

/* On the reactor; its end is awaited before the future's. */
static void overdue(struct job *job)
{
    struct rp_future *future = future_of(job);

    future_finish(future, FUTURE_DONE, -ETIMEDOUT);
    if (load_seq(&future->word) & FUTURE_OWN)
        rp_ctx_cancel(&future->own, -ETIMEDOUT);
}

static const struct job_ops future_ops = {
    .claim = claim,
    .swapped = swapped,
    .kept = kept,
    .run = run,
    .end = end,
    .end_quiet = end_quiet,
    .continues = continues,
    .context = context,
    .overdue = overdue,
};

/* --- submitting ------------------------------------------------------------------------------------------------- */

static int task_check_fields(const struct rp_task *task)
{
    if ((unsigned)task->priority > RP_PRIO_LOW || (unsigned)task->overload > RP_OVERLOAD_CALLER_RUNS ||
        task->timeout < 0 || task->deadline < 0)
        return -EINVAL;
    if (task->deadline && rp_now() >= task->deadline)
        return -ETIMEDOUT;
    if (!task->ctx)
        return 0;
    int rc = ctx_usable(task->ctx);
    return rc ? rc : ctx_err(task->ctx);
}

/* Without the lock of the tree. */
static void guard_fire(struct watch *watch, int reason)
{
    struct rp_future *future = caa_container_of(watch, struct rp_future, ctx_watch);

    if (future_finish(future, FUTURE_RUNNING | FUTURE_DONE, reason) && future->retry)
        retry_cancelled(future);
    future_unref(future);
}

static uint16_t kind_of(const struct rp_task *task)
{
    return (task->ctx ? KIND_CTX : 0) | (task->cq ? KIND_CQ : 0) | (task->dropped ? KIND_DROPPED : 0);
}

static const struct rp_task nothing_else; /* constant, and so never written a moment ago: see make */

/*
 * All that stays as it is, in memory of its own. Member by member: to zero it as a whole takes longer than all that this
 * does, most of which would be written again. What is copied as a whole waits where its source has just been written in
 * other pieces; and so does who reads the copy.
 */
static int make(struct door door, const struct rp_task *task, uint16_t kind, struct rp_future **out)
{
    struct rp_allocator allocator = alloc_libc;
    bool libc = !kind && door_libc(door);
    int rc = libc ? 0 : door_allocator(door, &allocator);

    if (rc)
        return rc;
    struct rp_future *future = alloc_aligned_raw(&allocator, alignof(struct rp_future), sizeof(*future));
    if (!future)
        return -ENOMEM;
    if (task->cq && (rc = cq_reserve(task->cq))) {
        alloc_free_aligned(&allocator, future);
        return rc;
    }
    future->job.ops = &future_ops;
    future->value = NULL;
    future->rc = 0;
    future->kind = kind | kind_of(task);
    future->begun = false;
    future->full = task->label || task->deadline || task->timeout;
    future->reusable = libc && task == &nothing_else;
    future->group = NULL;
    future->retry = NULL;
    future->task = *task;
    rp_ctx_hold(task->ctx);
    future->allocator = allocator;
    future->lock = (struct rp_lock){0};
    CDS_INIT_LIST_HEAD(&future->watches);
    if (task->ctx)
        future->ctx_watch = (struct watch){.fire = guard_fire, .deferred = true};
    *out = future;
    return 0;
}

/* What another one of the kind left in it. Nobody else sees it yet. */
static void begin(struct rp_future *future, struct door door)
{
    store_relaxed(&future->word, 0);
    store_relaxed(&future->refs, 1);
    store_relaxed(&future->cpu, -1);
    store_relaxed(&future->runner, NULL);
    store_relaxed(&future->place, PLACE_OPEN);
    future->generation = fork_generation();
    future->door = door;
    store_relaxed(&future->pool, door.pool);
}

/* One that the thread has kept, for a task that says nothing else behind that door; or NULL. */
static struct rp_future *take_spare(struct door door)
{
    struct spare *spare = door_libc(door) ? spare_take() : NULL;

    if (!spare)
        return NULL;
    struct rp_future *future = caa_container_of(spare, struct rp_future, spare);
    ALLOC_UNPOISON(future, offsetof(struct rp_future, spare));
    return future;
}

int future_create(struct door door, const struct rp_task *task, uint16_t kind, struct rp_future **out)
{
    struct rp_future *future = !kind && task == &nothing_else ? take_spare(door) : NULL;

    if (!future) {
        int rc = door.pool || door.multi ? task_check_fields(task) : -EINVAL;
        if (rc || (rc = make(door, task, kind, &future)))
            return rc;
    }
    begin(future, door);
    future->arg = task->arg;
    *out = future;
    return 0;
}

void future_discard(struct rp_future *future)
{
    if (future->task.cq)
        cq_unreserve(future->task.cq);
    if (future->kind & KIND_NEXT)
        source_drop(future);
    unref(future, true);
}

int future_submit(struct rp_future *future)
{
    int rc;

    store_relaxed(&future->word, FUTURE_QUEUED); /* nobody else sees it until it is submitted */
    if (future->door.pool && !future->full) {
        rc = pool_submit_brief(future->door.pool, &future->job, &future->task);
    } else {
        struct entry entry;
        future_entry(future, &entry);
        rc = door_submit(future->door, &entry, &future->task, &future->pool);
    }
    if (!rc)
        future_guard(future);
    return rc;
}

/*
 * Sets the watch, then looks whether it came too late to be cleared by the claim or the finish. Who clears it for that
 * looks again: a retry that waits by now may have found it set, and left it at that.
 */
void future_guard(struct rp_future *future)
{
    if (!future->task.ctx || future->group)
        return;
    while (!(load_seq(&future->word) & (FUTURE_RUNNING | FUTURE_DONE))) {
        future_ref(future); /* the watch's */
        int reason = ctx_watch(future->task.ctx, &future->ctx_watch);
        if (reason > 0)
            future_unref(future); /* a retry has set it again before its submitter came here */
        else if (reason)
            guard_fire(&future->ctx_watch, reason);
        if (!(load_seq(&future->word) & (FUTURE_RUNNING | FUTURE_DONE)))
            return;
        unguard(future);
    }
}

/* The entry may be taken before we say that it is queued: then nobody asks for that any more. */
static int submit_late(struct rp_future *future, int overload)
{
    struct entry entry;
    future_entry(future, &entry);
    struct rp_task task = future->task;

    task.overload = overload;
    future_ref(future); /* ours, for the line below */
    int rc = door_submit(future->door, &entry, &task, &future->pool);
    if (!rc)
        or_seq(&future->word, FUTURE_QUEUED);
    future_unref(future);
    return rc;
}

int future_offer(struct rp_future *future)
{
    return submit_late(future, RP_OVERLOAD_FAIL);
}

void future_release(struct rp_future *future)
{
    int rc = submit_late(future, RP_OVERLOAD_BLOCK);

    if (rc)
        future->job.ops->end(&future->job, rc);
}

/* --- the user's calls ------------------------------------------------------------------------------------------- */

/* As `like` says, but with that argument. */
static int submit_task(struct door door, int (*fn)(void *arg, void **value), void *arg, const struct rp_task *like,
                       struct rp_future **out)
{
    struct rp_future *future;

    if (!out)
        return -EINVAL;
    *out = NULL;
    if (!fn || !like || like->fn)
        return -EINVAL;
    struct rp_ctx *ctx = like->ctx ? NULL : ctx_inherited();
    struct rp_task below;
    if (ctx) {
        below = *like;
        below.ctx = ctx;
        like = &below;
    }
    int rc = future_create(door, like, 0, &future);
    if (rc)
        return rc;
    future->call.fn = fn;
    future->arg = arg;
    rc = future_submit(future);
    if (rc)
        future_discard(future);
    else
        *out = future;
    return rc;
}

static int submit_like(struct door door, int (*fn)(void *arg, void **value), const struct rp_task *like,
                       struct rp_future **out)
{
    return submit_task(door, fn, like ? like->arg : NULL, like, out);
}

int rp_pool_submit_future_task(struct rp_pool *pool, int (*fn)(void *arg, void **value), const struct rp_task *like,
                               struct rp_future **out)
{
    return submit_like(door_pool(pool), fn, like, out);
}

int rp_pool_submit_future(struct rp_pool *pool, int (*fn)(void *arg, void **value), void *arg, struct rp_future **out)
{
    return submit_task(door_pool(pool), fn, arg, &nothing_else, out);
}

int rp_multi_submit_future_task(struct rp_multi *multi, int (*fn)(void *arg, void **value), const struct rp_task *like,
                                struct rp_future **out)
{
    return submit_like(door_multi(multi), fn, like, out);
}

int rp_multi_submit_future(struct rp_multi *multi, int (*fn)(void *arg, void **value), void *arg,
                           struct rp_future **out)
{
    return submit_task(door_multi(multi), fn, arg, &nothing_else, out);
}

bool rp_future_done(const struct rp_future *future)
{
    return future && future_is_done(future);
}

int rp_future_get_until(struct rp_future *future, void **value, int64_t deadline)
{
    int rc = deadline < 0 ? -EINVAL : future_usable(future);

    if (rc)
        return rc;
    if (!future_is_done(future) && (rc = future_wait(future, deadline)))
        return rc;
    return future_result(future, value);
}

int rp_future_get(struct rp_future *future, void **value)
{
    return rp_future_get_until(future, value, 0);
}

int rp_future_get_timeout(struct rp_future *future, void **value, int64_t timeout_ns)
{
    return timeout_ns < 0 ? -EINVAL : rp_future_get_until(future, value, rp_after(timeout_ns));
}

int rp_future_try_get(struct rp_future *future, void **value)
{
    int rc = future_usable(future);

    if (rc)
        return rc;
    return future_is_done(future) ? future_result(future, value) : -EBUSY;
}

static bool cancel_unstarted(struct rp_future *future)
{
    if (!future_finish(future, FUTURE_RUNNING | FUTURE_DONE, -ECANCELED))
        return false;
    if (future->retry)
        retry_cancelled(future);
    return true;
}

int rp_future_cancel(struct rp_future *future)
{
    int rc = future_usable(future);

    if (rc)
        return rc;
    if (cancel_unstarted(future))
        return 0;
    uint32_t word = or_seq(&future->word, FUTURE_ASKED);
    if (word & FUTURE_DONE)
        return -EALREADY;
    if (!(word & FUTURE_RUNNING) && cancel_unstarted(future)) /* an attempt had just ended; from here on none follows */
        return 0;
    if (word & FUTURE_OWN) /* else see context() */
        ctx_cancel_late(&future->own);
    return 0;
}

int rp_future_run(struct rp_future *future)
{
    int rc = future_usable(future);

    if (rc)
        return rc;
    return future_run_here(future, false, false) ? 0 : -EALREADY;
}

void rp_future_destroy(struct rp_future *future)
{
    if (future)
        future_leave(future, FUTURE_GONE);
}

void rp_future_detach(struct rp_future *future)
{
    rp_future_destroy(future);
}
