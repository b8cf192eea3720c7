/*
 * The public timers, over the reactor's.
 *
 * When and whether a timer fires is decided by the reactor, under its lock; here is only what a run is. `state` holds
 * five bits of it:
 *
 *    RUNS      from the begin of a firing to the end of its run, in the pool also while it is queued or waits for room
 *    DOOMED    destroyed while it ran: who clears RUNS frees it
 *    AWAITED   somebody sleeps until RUNS is cleared
 *    AGAIN     in a pool: it was armed during its run and has fired since; the same task runs it once more
 *    STOPPED   cancelled inside its run while the reactor was in its fire again: that begins no other run
 *
 * Both ways to the end meet in this word: destroy sets DOOMED and frees if RUNS is not there; the end of a run clears
 * RUNS and frees if DOOMED is there. A cancel asks the reactor first (armed? in its fire?), then for RUNS; the fire is
 * not over before RUNS is set, so a run is seen in the one or the other. A cancel inside a run in the pool cannot wait
 * for a fire that goes on beside it, and would be followed by another run: hence STOPPED, until it is armed anew.
 *
 * A run in the pool is a task with a frame of its own around the user's function, so that a panic, and a thread that
 * ends in it, are ends of the run like any other.
 */
#include <ringpool/timer.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/futex.h"
#include "pool/door.h"
#include "pool/pool.h"

#include <errno.h>
#include <limits.h>

enum { RUNS = 1, DOOMED = 2, AWAITED = 4, AGAIN = 8, STOPPED = 16 };

#define RETRY_NS INT64_C(1000000)

struct rp_timer {
    struct timer timer;        /* the reactor's */
    _Atomic uint32_t state;    /* futex */
    _Atomic uint32_t periodic; /* as armed last */
    unsigned generation;       /* constant from here: fork_generation() at its making */
    _Atomic uint64_t missed;   /* firings of a periodic one that found the run before it not over; by the reactor */
    void (*fn)(struct rp_timer *timer, void *arg);
    void *arg;
    struct rp_allocator allocator;
    struct pooled *pooled; /* NULL: runs on the reactor */
};

/* What one that runs in a pool has beside. */
struct pooled {
    struct rp_timer timer;
    struct timer retry;       /* armed while the pool has no room */
    _Atomic uint32_t waiting; /* for room: who takes this away has the run, to submit it or to end it */
    struct door door;
    void (*dropped)(struct rp_timer *timer, void *arg, int reason);
    const char *label;
    int priority;
};

/* The runs on this thread, innermost first. */
struct run {
    struct rp_timer *timer;
    struct run *outer;
};
static _Thread_local struct run *runs;

static bool runs_here(const struct rp_timer *timer)
{
    for (const struct run *run = runs; run; run = run->outer)
        if (run->timer == timer)
            return true;
    return false;
}

static inline bool is_foreign(const struct rp_timer *timer)
{
    return timer->generation != fork_generation();
}

static void timer_free(struct rp_timer *timer)
{
    struct rp_allocator allocator = timer->allocator;
    struct reactor *reactor = timer->timer.reactor;

    alloc_free(&allocator, timer);
    reactor_put(reactor);
}

/* --- a run ------------------------------------------------------------------------------------------------------ */

/* true: it is to run once more. Else its run is over, and the timer may be gone. */
static bool run_again_or_end(struct rp_timer *timer)
{
    uint32_t state = load_seq(&timer->state);

    while (!cas_seq(&timer->state, &state, state & ~(uint32_t)(state & AGAIN ? AGAIN : RUNS | AWAITED)))
        ;
    if (state & AGAIN)
        return true;
    if (state & AWAITED)
        futex_wake(&timer->state, INT_MAX);
    if (state & DOOMED)
        timer_free(timer);
    return false;
}

static void run_ended(struct rp_timer *timer)
{
    and_seq(&timer->state, ~(uint32_t)AGAIN); /* who ends it so has cancelled it, or cannot run it */
    run_again_or_end(timer);
}

static void call(struct rp_timer *timer)
{
    struct run run = {.timer = timer, .outer = runs};

    runs = &run;
    timer->fn(timer, timer->arg);
    runs = run.outer;
}

static void run_task(void *arg);
static void drop_task(void *arg, int reason);

/* Submits the run, or sees to another attempt. On the reactor, which must not block. */
static void run_submit(struct pooled *pooled)
{
    struct rp_task task = {
        .fn = run_task,
        .arg = pooled,
        .dropped = drop_task,
        .label = pooled->label,
        .priority = pooled->priority,
        .overload = RP_OVERLOAD_FAIL,
    };
    int rc = door_submit_task(pooled->door, &task);

    if (rc == -EAGAIN || rc == -ENOMEM || rc == -EDEADLK) {
        timer_arm(&pooled->retry, rp_after(RETRY_NS)); /* fires on this thread, so not before the next line */
        store_seq(&pooled->waiting, 1);
    } else if (rc) {
        drop_task(pooled, rc);
    }
}

static void fire(struct timer *base)
{
    struct rp_timer *timer = caa_container_of(base, struct rp_timer, timer);

    uint32_t state = load_seq(&timer->state);
    bool periodic = load_relaxed(&timer->periodic); /* set before the arming that fires, or one that replaces it */

    do
        if (state & STOPPED)
            return;
    while (!cas_seq(&timer->state, &state, state | (!(state & RUNS) ? RUNS : periodic ? 0 : AGAIN)));
    if (state & RUNS) {
        add_relaxed(&timer->missed, periodic); /* a counter */
        return;
    }
    if (timer->pooled) {
        run_submit(timer->pooled);
        return;
    }
    call(timer);
    run_ended(timer);
}

static void retry_fire(struct timer *base)
{
    struct pooled *pooled = caa_container_of(base, struct pooled, retry);

    if (exchange_seq(&pooled->waiting, 0))
        run_submit(pooled);
}

static void call_entry(void *arg)
{
    call(arg);
}

/*
 * A run in a pool, and what ran on the thread before: the call's own record has gone with its stack when it is needed.
 */
struct task_run {
    struct rp_timer *timer;
    struct run *before;
};

/* The user's function has ended its thread. */
static void run_exits(void *arg)
{
    const struct task_run *run = arg;

    runs = run->before;
    run_ended(run->timer);
}

static void run_task(void *arg)
{
    struct rp_timer *timer = arg; /* the first member of pooled */
    struct frame *outer = frame_current();
    struct task_run run = {timer, runs};
    struct entry entry = {.fn = call_entry, .arg = timer, .label = timer->pooled->label};

    pthread_cleanup_push(run_exits, &run);
    do {
        frame_run(outer->pool, outer->worker, &entry, FRAME_PART);
        runs = run.before; /* a panic has jumped over the call's own */
    } while (run_again_or_end(timer));
    pthread_cleanup_pop(0);
}

static void drop_task(void *arg, int reason)
{
    struct pooled *pooled = arg;

    if (pooled->dropped)
        pooled->dropped(&pooled->timer, pooled->timer.arg, reason);
    run_ended(&pooled->timer);
}

/* --- making ----------------------------------------------------------------------------------------------------- */

static int options_check(const struct rp_timer_options *options)
{
    for (size_t i = 0; i < sizeof(options->reserved) / sizeof(options->reserved[0]); i++)
        if (options->reserved[i])
            return -EINVAL;
    if ((unsigned)options->backend > RP_BACKEND_EPOLL || (unsigned)options->priority > RP_PRIO_LOW ||
        (options->pool && options->multi) ||
        (!options->pool && !options->multi && (options->dropped || options->label || options->priority)))
        return -EINVAL;
    return 0;
}

static struct rp_timer *timer_alloc(const struct rp_allocator *allocator, const struct rp_timer_options *options)
{
    if (!options->pool && !options->multi)
        return alloc_zeroed(allocator, 1, sizeof(struct rp_timer));
    struct pooled *pooled = alloc_zeroed(allocator, 1, sizeof(*pooled));
    if (!pooled)
        return NULL;
    pooled->timer.pooled = pooled;
    pooled->door = (struct door){.pool = options->pool, .multi = options->multi};
    pooled->dropped = options->dropped;
    pooled->label = options->label;
    pooled->priority = options->priority;
    return &pooled->timer;
}

int rp_timer_create(struct rp_timer **out, void (*fn)(struct rp_timer *timer, void *arg), void *arg,
                    const struct rp_timer_options *options)
{
    static const struct rp_timer_options none;
    struct rp_allocator allocator;
    struct reactor *reactor;

    if (!out)
        return -EINVAL;
    *out = NULL;
    options = options ? options : &none;
    int rc = fn ? options_check(options) : -EINVAL;
    if (!rc)
        rc = alloc_init(&allocator, options->allocator);
    if (!rc)
        rc = reactor_get(&reactor, options->backend, false);
    if (rc)
        return rc;
    struct rp_timer *timer = timer_alloc(&allocator, options);
    if (!timer) {
        reactor_put(reactor);
        return -ENOMEM;
    }
    timer->generation = fork_generation();
    timer->fn = fn;
    timer->arg = arg;
    timer->allocator = allocator;
    timer_init(&timer->timer, reactor, fire);
    if (timer->pooled)
        timer_init(&timer->pooled->retry, reactor, retry_fire);
    *out = timer;
    return 0;
}

/* --- arming and cancelling -------------------------------------------------------------------------------------- */

static void arm_prepare(struct rp_timer *timer, bool periodic)
{
    store_relaxed(&timer->missed, 0);          /* a counter */
    store_relaxed(&timer->periodic, periodic); /* ordered by the reactor's lock */
    if (load_seq(&timer->state) & STOPPED)
        and_seq(&timer->state, ~(uint32_t)STOPPED);
}

int rp_timer_arm(struct rp_timer *timer, int64_t due)
{
    if (!timer || due <= 0)
        return -EINVAL;
    if (is_foreign(timer))
        return -ECHILD;
    arm_prepare(timer, false);
    timer_arm(&timer->timer, due);
    return 0;
}

int rp_timer_arm_periodic(struct rp_timer *timer, int64_t start, int64_t interval)
{
    if (!timer || start <= 0 || interval <= 0)
        return -EINVAL;
    if (is_foreign(timer))
        return -ECHILD;
    arm_prepare(timer, true);
    timer_arm_periodic(&timer->timer, start, interval);
    return 0;
}

uint64_t rp_timer_overruns(const struct rp_timer *timer)
{
    if (!timer || is_foreign(timer))
        return 0;
    return timer_skipped(&timer->timer) + load_relaxed(&timer->missed); /* a counter */
}

/* A run that waits for room in the pool is taken back; it was never more than armed. */
static bool retry_cancel(struct rp_timer *timer)
{
    if (!timer->pooled || !exchange_seq(&timer->pooled->waiting, 0))
        return false;
    timer_cancel(&timer->pooled->retry);
    run_ended(timer);
    return true;
}

static int cancel(struct rp_timer *timer)
{
    unsigned was = timer_disarm(&timer->timer);

    if (was & TIMER_FIRES && runs_here(timer))
        or_seq(&timer->state, STOPPED);
    and_seq(&timer->state, ~(uint32_t)AGAIN);
    if (retry_cancel(timer) && !(was & TIMER_FIRES)) /* a fire beside us may begin the next run where that one was */
        return RP_TIMER_CANCELED;
    if (was & TIMER_FIRES || load_seq(&timer->state) & RUNS)
        return RP_TIMER_RUNS;
    return was & TIMER_ARMED ? RP_TIMER_CANCELED : RP_TIMER_IDLE;
}

int rp_timer_cancel(struct rp_timer *timer)
{
    if (!timer)
        return -EINVAL;
    return is_foreign(timer) ? -ECHILD : cancel(timer);
}

/* Whether the caller may wait for the run's end: not in it, and not where it comes from. */
static bool may_wait(const struct rp_timer *timer)
{
    return !runs_here(timer) && !(timer->pooled && reactor_is_self(timer->timer.reactor));
}

/* Nothing of it is armed or in its fire after this, but what its own run arms. */
static void disarm_wait(struct rp_timer *timer)
{
    timer_cancel_wait(&timer->timer);
    if (timer->pooled)
        timer_cancel_wait(&timer->pooled->retry);
}

/* Waits until it neither runs nor fires nor is armed. */
static void settle(struct rp_timer *timer)
{
    bool task = rp_blocking_begin() != -EPERM;

    for (;;) {
        disarm_wait(timer); /* no fire begins from here on but by an arming of the run's own */
        retry_cancel(timer);
        uint32_t state = load_seq(&timer->state);
        if (!(state & RUNS))
            break;
        if (!(state & AWAITED) && !cas_seq(&timer->state, &state, state | AWAITED))
            continue;
        futex_wait(&timer->state, state | AWAITED, 0);
    }
    disarm_wait(timer);
    if (task)
        rp_blocking_end();
}

int rp_timer_cancel_wait(struct rp_timer *timer)
{
    int fate = rp_timer_cancel(timer);

    if (fate == RP_TIMER_RUNS && may_wait(timer))
        settle(timer);
    return fate;
}

int rp_timer_destroy(struct rp_timer *timer)
{
    if (!timer)
        return -EINVAL;
    if (is_foreign(timer)) {
        timer_free(timer);
        return 0;
    }
    if (cancel(timer) == RP_TIMER_RUNS && may_wait(timer))
        settle(timer);
    disarm_wait(timer);
    retry_cancel(timer);
    if (!(or_seq(&timer->state, DOOMED) & RUNS))
        timer_free(timer);
    return 0;
}
