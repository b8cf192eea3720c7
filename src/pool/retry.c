/*
 * Retries: a future whose fn is called again, after a wait in the reactor's timers.
 *
 * When fn has returned a failure that is worth another attempt, its end takes the bits RUNNING and QUEUED back, so
 * that the future is as one that has not started: it can be cancelled by the same CAS. The hold that its entry had
 * passes to the timer, and from the timer to the next entry. Such futures are never run beside the queue, so their
 * entry never keeps a place (wait.c), and whoever takes an entry of theirs may claim it.
 *
 * A cancel that finds the timer armed disarms it and ends the future; else the timer's callback, or the dequeue, finds
 * it done. The reactor is held, so that the timer fires even if the pool has gone: the attempt then ends the future.
 */
#include "pool/future.h"

#include "base/alloc.h"
#include "base/rcu.h"

#include <errno.h>
#include <ringpool/multi.h>
#include <ringpool/pool.h>
#include <ringpool/retry.h>
#include <string.h>

#define ATTEMPTS_DEFAULT 3
#define DELAY_DEFAULT INT64_C(100000000)
#define MAX_DELAY_DEFAULT INT64_C(30000000000)
#define JITTER_DEFAULT 50
#define NO_ROOM_DELAY INT64_C(1000000)

/* Of the thread that ends an attempt, then of the reactor; the timer's lock is between. */
struct retry {
    struct rp_retry policy; /* constant */
    unsigned attempt;       /* made so far */
    uint64_t random;
    struct reactor *reactor; /* held */
    struct timer timer;      /* armed while it waits */
    struct rp_future *future;
};

void retry_free(struct rp_future *future)
{
    reactor_put(future->retry->reactor);
    alloc_free(&future->allocator, future->retry);
}

/* --- the wait --------------------------------------------------------------------------------------------------- */

/* Marsaglia's xorshift64. */
static uint64_t random_next(struct retry *retry)
{
    uint64_t x = retry->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return retry->random = x;
}

static int64_t delay_before(struct retry *retry, unsigned made)
{
    const struct rp_retry *policy = &retry->policy;
    int64_t delay = policy->delay, factor = 1;

    if (policy->backoff == RP_BACKOFF_LINEAR)
        factor = made;
    else if (policy->backoff == RP_BACKOFF_EXPONENTIAL)
        factor = made - 1 < 62 ? INT64_C(1) << (made - 1) : INT64_MAX;
    if (__builtin_mul_overflow(delay, factor, &delay) || delay > policy->max_delay)
        delay = policy->max_delay;
    uint64_t most = (uint64_t)delay / 100 * policy->jitter;
    return delay - (int64_t)(most ? random_next(retry) % (most + 1) : 0);
}

/* Whether it is tried again, and when. */
static bool worth_it(struct rp_future *future, int64_t *due)
{
    struct retry *retry = future->retry;
    const struct rp_retry *policy = &retry->policy;

    if (future->rc >= 0 || retry->attempt >= policy->attempts)
        return false;
    if (policy->again && !policy->again(policy->user, future->rc, retry->attempt))
        return false;
    *due = rp_after(delay_before(retry, retry->attempt));
    return !policy->deadline || *due <= policy->deadline;
}

/* As one that has not started; not if it was cancelled or has ended. */
static bool unclaim(struct rp_future *future)
{
    uint32_t word = load_relaxed(&future->word); /* validated by the CAS */

    do {
        if (word & (FUTURE_DONE | FUTURE_ASKED))
            return false;
    } while (!cas_seq(&future->word, &word, word & ~(FUTURE_RUNNING | FUTURE_QUEUED)));
    return true;
}

bool retry_again(struct rp_future *future)
{
    struct retry *retry = future->retry;
    int64_t due;

    retry->attempt++;
    if (!worth_it(future, &due))
        return false;
    future_ref(future); /* ours: the timer may end it */
    bool again = unclaim(future);
    if (again) {
        future_guard(future);
        timer_arm(&retry->timer, due);
        if (future_is_done(future))
            retry_cancelled(future);
    }
    future_unref(future);
    return again;
}

/* Whoever disarms the timer has its hold; the end gives it up. */
void retry_cancelled(struct rp_future *future)
{
    if (timer_cancel(&future->retry->timer))
        future->job.ops->end(&future->job, -ECANCELED);
}

/* On the reactor. */
static void retry_fire(struct timer *timer)
{
    struct rp_future *future = caa_container_of(timer, struct retry, timer)->future;
    int rc = future_is_done(future) ? -ECANCELED : 0;

    if (!rc)
        rc = future_offer(future);
    if (rc == -EAGAIN || rc == -ENOMEM) /* no room, or none of memory for a worker */
        timer_arm(timer, rp_after(NO_ROOM_DELAY));
    else if (rc)
        future->job.ops->end(&future->job, rc);
}

/* --- submitting ------------------------------------------------------------------------------------------------- */

static int policy_check(const struct rp_retry *policy)
{
    static const uint64_t none[sizeof(policy->reserved) / sizeof(policy->reserved[0])];

    if ((unsigned)policy->backoff > RP_BACKOFF_CONSTANT || policy->delay < 0 || policy->max_delay < 0 ||
        policy->deadline < 0 || (policy->jitter > 100 && policy->jitter != RP_JITTER_NONE))
        return -EINVAL;
    return memcmp(policy->reserved, none, sizeof(none)) ? -EINVAL : 0;
}

static void policy_set(struct rp_retry *out, const struct rp_retry *policy)
{
    *out = *policy;
    out->attempts = policy->attempts ? policy->attempts : ATTEMPTS_DEFAULT;
    out->delay = policy->delay ? policy->delay : DELAY_DEFAULT;
    out->max_delay = policy->max_delay ? policy->max_delay : MAX_DELAY_DEFAULT;
    out->jitter = policy->jitter == RP_JITTER_NONE ? 0 : policy->jitter ? policy->jitter : JITTER_DEFAULT;
}

static int retry_attach(struct rp_future *future, const struct rp_retry *policy)
{
    struct retry *retry = alloc_zeroed(&future->allocator, 1, sizeof(*retry));

    if (!retry)
        return -ENOMEM;
    int rc = reactor_get(&retry->reactor, RP_BACKEND_AUTO, false);
    if (rc) {
        alloc_free(&future->allocator, retry);
        return rc;
    }
    policy_set(&retry->policy, policy);
    retry->future = future;
    retry->random = ((uint64_t)rp_now() ^ (uintptr_t)retry) | 1;
    timer_init(&retry->timer, retry->reactor, retry_fire);
    future->retry = retry;
    return 0;
}

static int submit_retry(struct door door, int (*fn)(void *arg, void **value), const struct rp_task *like,
                        const struct rp_retry *policy, struct rp_future **out)
{
    struct rp_future *future;

    if (out)
        *out = NULL;
    if (!fn || !like || like->fn || !policy || policy_check(policy))
        return -EINVAL;
    struct rp_task task = *like;
    if (!task.ctx)
        task.ctx = ctx_inherited();
    int rc = future_create(door, &task, KIND_RETRY, &future);
    if (rc)
        return rc;
    future->call.fn = fn;
    rc = retry_attach(future, policy);
    if (!rc)
        rc = future_submit(future);
    if (rc)
        future_discard(future);
    else if (out)
        *out = future;
    else
        future_leave(future, FUTURE_GONE);
    return rc;
}

int rp_pool_submit_retry(struct rp_pool *pool, int (*fn)(void *arg, void **value), const struct rp_task *like,
                         const struct rp_retry *policy, struct rp_future **out)
{
    return submit_retry(door_pool(pool), fn, like, policy, out);
}

int rp_multi_submit_retry(struct rp_multi *multi, int (*fn)(void *arg, void **value), const struct rp_task *like,
                          const struct rp_retry *policy, struct rp_future **out)
{
    return submit_retry(door_multi(multi), fn, like, policy, out);
}
