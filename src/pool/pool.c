/*
 * A pool's life: create, tune, release, reboot, destroy.
 *
 * The end. Closing sets one bit in the run queue's tail word, after which every claim fails, so that what was accepted
 * is a fixed set. Each worker that finds the queue closed and drained leaves and sends the parked ones after it.
 * destroy closes, waits until no thread of the pool is left, takes the core out of its handle, and waits for the calls
 * that found it there: first a grace period (they are now gone or counted as guests), then for the guests, then a
 * grace period again for the guests' last lines. From inside a task it only closes, and the reactor does the rest:
 * after the last thread, the last guest, and the last task that was taken by neither (wait.c).
 */
#include "pool/pool.h"

#include "base/alloc.h"
#include "base/cpu.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/rcu.h"
#include "pool/then.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define EXPIRY_DEFAULT_NS INT64_C(1000000000)
#define ROOM_SPIN_NS 20000
#define STACK_DEFAULT (256 * 1024)
#define EXTRA_DEFAULT 64
#define STRANDED_TRIES 2

/* --- limits ----------------------------------------------------------------------------------------------------- */

static unsigned capacity_or_default(unsigned capacity)
{
    return capacity ? capacity : cpu_available();
}

static unsigned workers_of(unsigned capacity)
{
    return capacity < RP_WORKERS_MAX ? capacity : RP_WORKERS_MAX;
}

static bool capacity_valid(unsigned capacity)
{
    return capacity <= RP_WORKERS_MAX || capacity == RP_UNLIMITED;
}

void pool_retarget_locked(struct pool *pool)
{
    unsigned target = workers_of(workers_of(load_relaxed(&pool->capacity)) + pool->extra); /* under our lock */

    store_seq(&pool->target, target);
    store_seq(&pool->runq.limit, target + pool->queue_depth);
}

void pool_settle(struct pool *pool)
{
    if (room_blocked(pool) && runq_has_room(&pool->runq))
        room_signal(pool);
    if (runq_ready(&pool->runq))
        idle_call_one(pool);
    idle_dismiss_surplus(pool);
    room_target_changed(pool);
    pool_progress(pool);
}

int pool_tune(struct pool *pool, unsigned capacity, bool closed_too)
{
    int rc = 0;

    if (!capacity_valid(capacity))
        return -EINVAL;
    capacity = capacity_or_default(capacity);
    rp_lock_acquire(&pool->lock);
    if (!closed_too && runq_closed(&pool->runq))
        rc = -ESHUTDOWN;
    else if (capacity < pool->min_workers)
        rc = -EINVAL;
    if (!rc) {
        store_seq(&pool->capacity, capacity);
        pool_retarget_locked(pool);
    }
    rp_lock_release(&pool->lock);
    if (!rc) {
        log_emit(&pool->log, RP_LOG_INFO, "pool %s: tuned to %u", pool->name, capacity);
        pool_settle(pool);
    }
    return rc;
}

int rp_pool_tune(struct rp_pool *handle, unsigned capacity)
{
    struct pool *pool;

    if (!capacity_valid(capacity))
        return -EINVAL;
    int rc = guest_enter(handle, &pool);
    if (rc)
        return rc;
    rc = pool_tune(pool, capacity, false);
    guest_leave(pool);
    return rc;
}

int rp_pool_prewarm(struct rp_pool *handle, unsigned n)
{
    struct pool *pool;
    int rc = guest_enter(handle, &pool);

    if (rc)
        return rc;
    if (runq_closed(&pool->runq)) {
        rc = -ESHUTDOWN;
    } else {
        unsigned before = load_seq(&pool->alive);
        rc = worker_fill(pool, n);
        unsigned alive = load_seq(&pool->alive);
        rc = rc && alive <= before ? -EAGAIN : (int)alive;
    }
    guest_leave(pool);
    return rc;
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

void pool_dismiss_if_drained(struct pool *pool)
{
    if (runq_closed(&pool->runq) && runq_drained(&pool->runq))
        idle_dismiss_all(pool);
}

/* Whether an ender may go on: for one inside, when only tasks that wait as it does are left. */
static bool has_ended(struct pool *pool, bool inside)
{
    if (inside)
        return runq_flight(&pool->runq) <= load_seq(&pool->excused);
    return runq_flight(&pool->runq) == 0 && load_seq(&pool->alive) == 0 && load_seq(&pool->threads) == 0;
}

static void enders_wake(struct pool *pool)
{
    add_seq(&pool->ended, 1);
    futex_wake(&pool->ended, INT_MAX);
}

void pool_notify_enders(struct pool *pool)
{
    if ((load_seq(&pool->room.attention) & ~ATTENTION_WATCH) < ATTENTION_ENDER)
        return;
    if (!has_ended(pool, true) && !has_ended(pool, false) && load_seq(&pool->alive) && runq_closed(&pool->runq))
        return;
    enders_wake(pool);
}

uint32_t pool_close(struct pool *pool, bool dying)
{
    rp_lock_acquire(&pool->lock);
    pool->dying |= dying;
    uint32_t generation = load_seq(&pool->generation);
    bool first = !(or_seq(&pool->runq.tail, TAIL_CLOSED) & TAIL_CLOSED);
    if (pool->release_policy == RP_RELEASE_DROP)
        store_seq(&pool->dropping, 1);
    rp_lock_release(&pool->lock);
    if (first)
        log_emit(&pool->log, RP_LOG_INFO, "pool %s: released", pool->name);
    room_wake_all(pool);
    pool_progress(pool);
    while (load_seq(&pool->dropping) && pool_help(pool, -ESHUTDOWN)) /* until a reboot */
        ;
    if (runq_ready(&pool->runq))
        idle_call_one(pool);
    pool_dismiss_if_drained(pool);
    return generation;
}

int rp_pool_release(struct rp_pool *handle)
{
    struct pool *pool;
    int rc = guest_enter(handle, &pool);

    if (rc)
        return rc;
    pool_close(pool, false);
    guest_leave(pool);
    return 0;
}

void ender_leave(void *arg)
{
    struct ender *me = arg;

    frame_unexcuse(me->pool, me->excused);
    sub_seq(&me->pool->excused, me->excused);
    sub_seq(&me->pool->room.attention, ATTENTION_ENDER);
}

void ender_join(struct ender *me)
{
    struct pool *pool = me->pool;

    me->excused = frame_excuse(pool);
    add_seq(&pool->excused, me->excused);
    add_seq(&pool->room.attention, ATTENTION_ENDER);
    if (me->excused)
        pool_notify_enders(pool); /* one less task that others wait for */
}

/*
 * No worker lives though tasks wait, and none can be made: a destroy must end all the same. `failures` is how many
 * could not be made, or not begin, before it. A worker that was made may fail to begin, which calls the enders: the
 * attempts must have an end.
 */
static void drop_stranded(struct pool *pool, uint32_t failures)
{
    while (load_seq(&pool->failures) - failures < STRANDED_TRIES) {
        if (load_seq(&pool->alive) || !runq_ready(&pool->runq) || !worker_add(pool, false))
            return;
    }
    while (!load_seq(&pool->alive) && pool_help(pool, -ESHUTDOWN))
        ;
}

int ender_wait(struct ender *me, int64_t deadline, bool destroying)
{
    struct pool *pool = me->pool;
    uint32_t failures = load_seq(&pool->failures);

    for (;;) {
        uint32_t seen = load_seq(&pool->ended);
        int64_t until = deadline;

        if (load_seq(&pool->generation) != me->generation)
            return -ESHUTDOWN;
        if (destroying)
            drop_stranded(pool, failures);
        if (has_ended(pool, me->inside))
            return 0;
        if (me->inside) {
            if (pool_help(pool, 0))
                continue;
            if (!runq_drained(&pool->runq)) { /* claimed and not yet published: nobody calls us for that */
                int64_t soon = rp_after(1000000);
                until = !until || soon < until ? soon : until;
            }
        }
        if (deadline && rp_now() >= deadline)
            return -ETIMEDOUT;
        futex_wait(&pool->ended, seen, until);
    }
}

void ender_report(struct pool *pool, struct rp_release_report *report)
{
    unsigned used = load_acquire(&pool->table.used);
    int64_t now = rp_now();

    struct runq_counts counts = runq_count(&pool->runq);
    report->queued += counts.queued;
    report->busy += counts.taken;
    report->blocked += room_blocked(pool);
    rcu_enter();
    for (unsigned i = 0; i < used && report->listed < 16; i++) {
        struct worker *worker = worker_at(pool, i);
        if (!worker || load_acquire(&worker->state) != RP_WORKER_RUNNING)
            continue;
        bool own;
        int64_t age = now - worker_since(worker, &own);
        report->worker[report->listed].label = load_acquire(&worker->label);
        report->worker[report->listed].running_ns = age > 0 ? age : 0;
        report->listed++;
    }
    rcu_exit();
}

int rp_pool_release_until(struct rp_pool *handle, int64_t deadline, struct rp_release_report *report)
{
    struct ender me = {0};

    if (report)
        memset(report, 0, sizeof(*report));
    if (deadline < 0)
        return -EINVAL;
    int rc = guest_enter(handle, &me.pool);
    if (rc)
        return rc;
    me.inside = frame_inside(me.pool);
    me.generation = pool_close(me.pool, false);
    ender_join(&me);
    pthread_cleanup_push(ender_leave, &me); /* a task that it helps with may end the thread */
    rc = ender_wait(&me, deadline, false);
    pthread_cleanup_pop(1);
    if (rc == -ETIMEDOUT && report)
        ender_report(me.pool, report);
    guest_leave(me.pool);
    return rc;
}

int rp_pool_reboot(struct rp_pool *handle)
{
    struct pool *pool;
    int rc = guest_enter(handle, &pool);

    if (rc)
        return rc;
    rp_lock_acquire(&pool->lock);
    bool opened = !pool->dying && runq_closed(&pool->runq);
    if (pool->dying)
        rc = -ESHUTDOWN;
    if (opened) {
        store_seq(&pool->dropping, 0);
        add_seq(&pool->generation, 1);
        and_seq(&pool->runq.tail, ~TAIL_CLOSED);
    }
    rp_lock_release(&pool->lock);
    if (opened) {
        log_emit(&pool->log, RP_LOG_INFO, "pool %s: rebooted", pool->name);
        enders_wake(pool);
        worker_fill(pool, pool->standing); /* what cannot be made now is tried again later */
        pool_settle(pool);
    }
    guest_leave(pool);
    return rc;
}

/* --- destroy ---------------------------------------------------------------------------------------------------- */

static void pool_free(struct pool *pool)
{
    struct rp_allocator allocator = pool->allocator;

    runq_destroy(&pool->runq);
    table_destroy(&pool->table, &allocator);
    alloc_free(&allocator, pool->measured);
    stack_slab_unmap(&pool->slab); /* of one who was making workers when this process was forked */
    pthread_attr_destroy(&pool->attr);
    if (pool->reactor)
        reactor_put(pool->reactor);
    alloc_free_aligned(&allocator, pool);
}

static void guests_await(struct pool *pool)
{
    uint32_t guests = or_seq(&pool->guests, GUESTS_AWAITED) | GUESTS_AWAITED;

    for (; guests != GUESTS_AWAITED; guests = load_seq(&pool->guests))
        futex_wait(&pool->guests, guests, 0);
}

/* What fires meanwhile may arm itself once more: hence twice. */
static void timers_end(struct pool *pool)
{
    for (int i = 0; i < 2; i++) {
        timer_cancel_wait(&pool->tick);
        timer_cancel_wait(&pool->retry);
        timer_cancel_wait(&pool->orphan_timer);
    }
}

/* All of it has ended, nobody finds it any more, and its guests have left. */
static void free_ended(struct pool *pool, struct ender *me)
{
    struct handle *handle = pool->handle;
    struct pool_owner *owner = load_acquire(&pool->owner);

    timers_end(pool);
    ender_wait(me, 0, true); /* a guest or a timer may have made one more worker */
    ender_leave(me);
    rcu_wait();
    timers_end(pool); /* a worker's end arms the tick */
    then_orphans_end(pool);
    worker_cache_clear(pool);
    log_emit(&pool->log, RP_LOG_DEBUG, "pool %s: destroyed", pool->name);
    if (owner)
        owner->ended(owner, pool);
    pool_free(pool);
    handle_free(&pool_handles, handle);
    if (owner)
        owner->gone(owner);
}

/* Waits for the end of a closed pool; after a grace period there are no new guests. */
static void await_end(struct pool *pool, struct ender *me)
{
    *me = (struct ender){.pool = pool, .generation = load_seq(&pool->generation)}; /* the last one */
    ender_join(me);
    ender_wait(me, 0, true); /* cannot be rebooted any more */
    handle_empty(&pool_handles, pool->handle);
    rcu_wait();
}

static void pool_finish(struct pool *pool)
{
    struct ender me;

    await_end(pool, &me);
    guests_await(pool);
    free_ended(pool, &me);
}

/* By whom it was left to: who still came in meanwhile is not waited for, but its last one leaves it to the reactor. */
static void pool_finish_deferred(struct pool *pool)
{
    struct ender me;

    await_end(pool, &me);
    rcu_enter(); /* it may be freed as soon as it can be reaped */
    bool guests = load_seq(&pool->guests);
    if (guests) {
        ender_leave(&me);
        store_seq(&pool->reaped, 0);
        pool_maybe_reap(pool); /* the last one may have left before */
    }
    rcu_exit();
    if (!guests)
        free_ended(pool, &me);
}

static void pool_reap(struct work *work)
{
    pool_finish_deferred(caa_container_of(work, struct pool, reap));
}

/*
 * What is left to the reactor is done at once where nobody has to be waited for: else a thread that makes and removes
 * pools in a row is ahead of the reactor without end, where that one gets less of the CPUs. Not inside a task, which
 * somebody may be waiting for, nor where it would wait for the end of the pool's own reactor, or for what the threads of
 * ended workers do last. The caller is a guest; if true it was one, and the pool is gone, or left to its guests.
 */
static bool reap_at_once(struct pool *pool)
{
    if (frame_current() || pool->hooks.own_reactor || reactor_is_self(pool->reactor) || load_seq(&pool->guests) != 1 ||
        !has_ended(pool, false) || worker_cached(pool) || exchange_seq(&pool->reaped, 1))
        return false;
    sub_seq(&pool->guests, 1);
    pool_finish_deferred(pool);
    return true;
}

/*
 * Taken: by who runs a future in place. Where tasks are stranded such a one may have claimed and not yet taken: then
 * the reactor waits for it, as it does for a task that is about to end.
 */
void pool_maybe_reap(struct pool *pool)
{
    if (load_seq(&pool->deferred) && !load_seq(&pool->guests) && !load_seq(&pool->threads) &&
        !runq_count(&pool->runq).taken && !exchange_seq(&pool->reaped, 1))
        reactor_post(pool->reactor, &pool->reap);
}

/* In a forked child: the other threads do not exist, and their locks may be held. Our own stack may be a worker's. */
static void pool_free_forked(struct pool *pool)
{
    struct handle *handle = pool->handle;
    unsigned used = load_relaxed(&pool->table.used); /* one thread */

    handle_empty(&pool_handles, handle);
    for (unsigned i = 0; i < used; i++) {
        struct worker *worker = worker_at(pool, i);
        if (!worker || worker == worker_self(pool))
            continue;
        alloc_free(&pool->allocator, worker->alternate_stack);
        worker_free(worker);
    }
    if (!frame_inside(pool))
        pool_free(pool);
    handle_free(&pool_handles, handle);
}

void pool_end(struct pool *pool, bool wait)
{
    if (load_relaxed(&pool->forked)) { /* constant in this process */
        pool_free_forked(pool);
        return;
    }
    if (!wait || frame_inside(pool)) {
        add_seq(&pool->guests, 1); /* not reaped before we are through */
        pool_close(pool, true);
        store_seq(&pool->deferred, 1);
        if (!reap_at_once(pool))
            guest_leave(pool);
        return;
    }
    pool_close(pool, true);
    pool_finish(pool);
}

int rp_pool_destroy(struct rp_pool *pool)
{
    uint32_t state = HANDLE_LIVE;

    if (!pool)
        return -EINVAL;
    int rc = rcu_attach();
    if (rc)
        return rc;
    if (!cas_acq_rel(&pool->handle.state, &state, HANDLE_DYING))
        return state == HANDLE_MEMBER ? -EBUSY : -EALREADY;
    pool_end(load_acquire(&pool->handle.core), true); /* ours to take out from here on */
    return 0;
}

/* --- create ----------------------------------------------------------------------------------------------------- */

static int options_check(unsigned capacity, const struct rp_pool_options *o)
{
    static const uint64_t none[sizeof(o->reserved) / sizeof(o->reserved[0])];

    if (memcmp(o->reserved, none, sizeof(none)) != 0)
        return -EINVAL;
    if (o->expiry_ns < 0 || o->queue_depth > RP_QUEUE_DEPTH_MAX || o->min_workers > capacity ||
        o->min_workers > RP_WORKERS_MAX || o->max_extra > RP_WORKERS_MAX)
        return -EINVAL;
    if ((o->prealloc && capacity == RP_UNLIMITED) || (o->nonblocking && o->max_blocking))
        return -EINVAL;
    if ((unsigned)o->overload > RP_OVERLOAD_CALLER_RUNS || (unsigned)o->release_policy > RP_RELEASE_DROP ||
        (unsigned)o->backend > RP_BACKEND_EPOLL || (unsigned)o->log_level > RP_LOG_NONE)
        return -EINVAL;
    if (o->stack_size && (o->stack_size < (size_t)PTHREAD_STACK_MIN || o->stack_size > PTRDIFF_MAX / 2))
        return -EINVAL;
    if (!o->cpus != !o->cpus_size)
        return -EINVAL;
    if (o->sched_policy && (o->sched_priority < sched_get_priority_min(o->sched_policy) ||
                            o->sched_priority > sched_get_priority_max(o->sched_policy)))
        return -EINVAL; /* an unknown policy has the range -1..-1 */
    return o->sched_policy < 0 ? -EINVAL : 0;
}

static void pool_options(struct pool *pool, const struct rp_pool_options *o)
{
    pool->hooks = *o;
    pool->overload = o->overload ? o->overload : RP_OVERLOAD_BLOCK;
    pool->release_policy = o->release_policy;
    pool->nonblocking = o->nonblocking;
    pool->no_purge = o->no_purge;
    pool->contain_signals = o->contain_signals;
    pool->min_workers = o->min_workers;
    pool->max_blocking = o->max_blocking;
    pool->queue_depth = o->queue_depth;
    pool->max_extra = o->max_extra ? o->max_extra : EXTRA_DEFAULT;
    pool->expiry_ns = o->expiry_ns ? o->expiry_ns : EXPIRY_DEFAULT_NS;
    pool->cpus = cpu_allowed();
    pool->spin_ns = pool->cpus > 1 ? ROOM_SPIN_NS : 0;
    fork_hold_off();
    pool->stack_room = o->stack_size ? o->stack_size : STACK_DEFAULT;
    pool->shape = (struct stack_shape){.size = pool->stack_room + stack_tls_size(),
                                       .above = sizeof(struct worker),
                                       .locked = o->sched_policy == SCHED_FIFO || o->sched_policy == SCHED_RR};
    fork_let_go();
    pool->log = (struct log){.write = o->log, .user = o->log_user, .level = o->log_level};
    pool->traces = log_wants(&pool->log, RP_LOG_DEBUG);
    snprintf(pool->name, sizeof(pool->name), "%s", o->name && *o->name ? o->name : "rp");
}

static int pool_init(struct pool *pool, unsigned capacity, const struct rp_pool_options *o)
{
    int rc;

    pool_options(pool, o);
    pool->standing = o->prealloc ? capacity : o->min_workers;
    store_relaxed(&pool->capacity, capacity); /* nobody else sees the pool yet */
    CDS_INIT_LIST_HEAD(&pool->fresh);
    CDS_INIT_LIST_HEAD(&pool->victim);
    room_init(&pool->room);
    pthread_attr_init(&pool->attr);
    if (o->cpus && (rc = -pthread_attr_setaffinity_np(&pool->attr, o->cpus_size, o->cpus)))
        return rc;
    if (o->contain_signals && (rc = panic_contain_signals()))
        return rc;
    if ((rc = runq_init(&pool->runq, &pool->allocator, workers_of(capacity), o->queue_depth, o->unordered)))
        return rc;
    if (o->metrics && (!(pool->measured = measures_create(&pool->allocator)) || runq_measure(&pool->runq)))
        return -ENOMEM;
    if ((rc = reactor_get(&pool->reactor, o->backend, o->own_reactor)))
        return rc;
    pool_retarget_locked(pool);
    timer_init(&pool->tick, pool->reactor, tick_fire);
    timer_init(&pool->retry, pool->reactor, worker_retry_fire);
    timer_init(&pool->orphan_timer, pool->reactor, then_orphans_fire);
    pool->reap.run = pool_reap;
    pool->rate.at[0] = pool->rate.at[1] = rp_now();
    return 0;
}

/*
 * Makes the workers that stand from the beginning, at least one where the system may refuse what the options ask of a
 * thread, and waits until each has begun or failed to, so that create can tell.
 */
static int pool_populate(struct pool *pool, const struct rp_pool_options *o)
{
    bool trial = o->cpus || o->sched_policy || o->worker_start;
    unsigned n = pool->standing ? pool->standing : trial;

    store_seq(&pool->populating, n);
    int rc = worker_fill(pool, n);
    for (uint32_t seen; !rc && !load_seq(&pool->begin_error) && (seen = load_seq(&pool->begun)) < n;)
        futex_wait(&pool->begun, seen, 0);
    store_seq(&pool->populating, 0);
    return rc ? rc : load_seq(&pool->begin_error);
}

int rp_pool_create(struct rp_pool **out, unsigned capacity, const struct rp_pool_options *options)
{
    static const struct rp_pool_options defaults;
    const struct rp_pool_options *o = options ? options : &defaults;
    struct rp_allocator allocator;

    if (!out)
        return -EINVAL;
    *out = NULL;
    if (!capacity_valid(capacity))
        return -EINVAL;
    capacity = capacity_or_default(capacity);
    int rc = options_check(capacity, o);
    if (rc || (rc = rcu_attach()) || (rc = alloc_init(&allocator, o->allocator)))
        return rc;
    struct pool *pool = alloc_aligned(&allocator, CACHE_APART, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pool->allocator = allocator;
    rc = pool_init(pool, capacity, o);
    if (!rc)
        rc = handle_create(&pool_handles, &pool->handle, pool);
    if (rc) {
        pool_free(pool);
        return rc;
    }
    store_relaxed(&pool->handle->libc, allocator.malloc == alloc_libc.malloc); /* not given out yet */
    log_emit(&pool->log, RP_LOG_DEBUG, "pool %s: created, capacity %u, queue depth %u, reactor on %s", pool->name,
             capacity, pool->queue_depth, reactor_backend(pool->reactor));
    *out = pool_handle(pool);
    rc = pool_populate(pool, o);
    if (rc) {
        rp_pool_destroy(*out);
        *out = NULL;
    }
    return rc;
}
