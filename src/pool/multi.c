/*
 * A multi pool's life: create, release, reboot, destroy; and how calls enter it and hold its pools. What else may be
 * done with it is in multi_verbs.c and multi_gauge.c.
 *
 * Whether the multi pool is open stands in one word
 * (`state`), and every change of it is carried to each pool by multi_settle_pool, which looks at the word again
 * afterwards: so a release and a reboot that race leave all pools as the later of the two has said, without a lock held
 * while users' functions run.
 *
 * The end is the pool's: no table, a grace period, all pools closed and ended, then the handle is emptied and whoever
 * is still inside is waited for, in sections and as guests.
 */
#include "pool/multi.h"

#include "base/alloc.h"
#include "base/cpu.h"
#include "base/futex.h"
#include "base/rcu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ROOM_SPIN_NS 20000
#define AUTO_HIGH 70
#define AUTO_LOW 50
#define HANG_DEFAULT_NS INT64_C(10000000000)

/* --- entering ----------------------------------------------------------------------------------------------------- */

static void before_fork(void *core)
{
    rp_lock_acquire(&((struct multi *)core)->lock);
}

static void after_fork(void *core)
{
    rp_lock_release(&((struct multi *)core)->lock);
}

static void after_fork_in_child(void *core)
{
    struct multi *multi = core;

    store_relaxed(&multi->forked, 1); /* no other thread exists */
    store_relaxed(&multi->health.armed, 1);
    rp_lock_release(&multi->lock);
}

struct handle_kind multi_handles = {
    .before_fork = before_fork,
    .after_fork = after_fork,
    .after_fork_in_child = after_fork_in_child,
};

int multi_guest_enter(const struct rp_multi *handle, struct multi **multi)
{
    int rc = multi_enter(handle, multi);

    if (rc)
        return rc;
    if (load_relaxed(&(*multi)->forked)) { /* constant in this process */
        handle_exit();
        return -ECHILD;
    }
    add_seq(&(*multi)->guests, 1);
    handle_exit();
    return 0;
}

/* Destroyed from inside, and the last one is out: the reactor does the rest. In a section. */
static void maybe_reap(struct multi *multi)
{
    if (load_seq(&multi->deferred) && !(load_seq(&multi->guests) & ~GUESTS_AWAITED) &&
        !(load_seq(&multi->unfinished) & ~GUESTS_AWAITED) && !exchange_seq(&multi->reaped, 1))
        reactor_post(multi->reactor, &multi->reap);
}

/* multi_finish waits for no guest, then for a grace period: the lines of the section are the last of this one. */
static void count_down(struct multi *multi, _Atomic uint32_t *count)
{
    rcu_enter();
    uint32_t left = sub_seq(count, 1) - 1;
    if (left == GUESTS_AWAITED)
        futex_wake(count, 1);
    if (!(left & ~GUESTS_AWAITED))
        maybe_reap(multi);
    rcu_exit();
}

void multi_guest_leave(struct multi *multi)
{
    count_down(multi, &multi->guests);
}

void multi_finished_one(struct multi *multi)
{
    count_down(multi, &multi->unfinished);
}

bool multi_inside(const struct multi *multi)
{
    for (const struct frame *frame = frame_current(); frame; frame = frame->outer) {
        const struct member *member = member_of(frame->pool);
        if (member && member->multi == multi)
            return true;
    }
    return health_is_self(multi);
}

/* --- all pools at once -------------------------------------------------------------------------------------------- */

void multi_held_leave(struct multi *multi, struct held *held, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        guest_leave(held[i].member->pool);
    alloc_free(&multi->allocator, held);
}

static unsigned members_locked(struct multi *multi, bool draining)
{
    const struct roster *roster = load_relaxed(&multi->roster); /* under the lock */
    unsigned n = roster ? roster->members : 0;
    struct cds_list_head *node;

    if (draining)
        cds_list_for_each(node, &multi->draining) n++;
    return n;
}

/* A pool in the table has not begun to end; one that drains may have, so that its handle has the last word. */
static unsigned hold_locked(struct multi *multi, struct held *held, unsigned room, bool draining)
{
    const struct roster *roster = load_relaxed(&multi->roster); /* under the lock */
    struct cds_list_head *node;
    unsigned n = 0;

    for (unsigned i = 0; roster && i < roster->slots && n < room; i++) {
        struct member *member = roster->by_index[i];
        if (!member)
            continue;
        add_seq(&member->pool->guests, 1);
        held[n++] = (struct held){.member = member, .weight = member->weight};
    }
    if (!draining)
        return n;
    cds_list_for_each(node, &multi->draining)
    {
        struct member *member = caa_container_of(node, struct member, drain);
        struct pool *pool;
        if (n < room && guest_enter(pool_handle(member->pool), &pool) == 0)
            held[n++] = (struct held){.member = member, .weight = 1};
    }
    return n;
}

/* Opens or closes: the new state, whose count has changed if that has. A multi pool that is destroyed stays closed. */
static uint32_t state_set_locked(struct multi *multi, bool closed)
{
    uint32_t state = load_seq(&multi->state); /* only written under the lock that we hold */

    if (closed != ((state & MULTI_CLOSED) != 0) && !(state & MULTI_DYING)) {
        state = (state ^ MULTI_CLOSED) + MULTI_GENERATION;
        store_seq(&multi->state, state);
    }
    return state;
}

int multi_hold_all(struct multi *multi, bool draining, struct held **held, unsigned *n, uint32_t *closed)
{
    for (;;) {
        rp_lock_acquire(&multi->lock);
        unsigned room = members_locked(multi, draining);
        rp_lock_release(&multi->lock);
        *held = alloc_zeroed(&multi->allocator, room ? room : 1, sizeof(**held));
        if (!*held)
            return -ENOMEM;
        rp_lock_acquire(&multi->lock);
        bool fits = members_locked(multi, draining) <= room;
        if (fits)
            *n = hold_locked(multi, *held, room, draining);
        if (fits && closed)
            *closed = state_set_locked(multi, true);
        rp_lock_release(&multi->lock);
        if (fits)
            return 0;
        alloc_free(&multi->allocator, *held);
    }
}

/* --- opening and closing ------------------------------------------------------------------------------------------ */

void multi_settle_pool(struct multi *multi, struct pool *pool)
{
    uint32_t state;

    do {
        state = load_seq(&multi->state);
        if (state & MULTI_CLOSED)
            pool_close(pool, false);
        else
            rp_pool_reboot(pool_handle(pool));
    } while (load_seq(&multi->state) != state);
}

/* Under the lock: a pool that is being added is in the table when the word changes, or sees the word changed. */
static int state_change(struct multi *multi, bool closed)
{
    rp_lock_acquire(&multi->lock);
    uint32_t state = state_set_locked(multi, closed);
    rp_lock_release(&multi->lock);
    return state & MULTI_DYING && !closed ? -ESHUTDOWN : 0;
}

static int open_or_close(struct multi *multi, bool closed)
{
    struct member *member;
    int rc = state_change(multi, closed);

    for (unsigned i = 0; !rc && (member = roster_next(multi, &i));) {
        multi_settle_pool(multi, member->pool);
        guest_leave(member->pool);
    }
    return rc;
}

static int open_or_close_from_outside(struct rp_multi *handle, bool closed)
{
    struct multi *multi;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    rc = open_or_close(multi, closed);
    multi_guest_leave(multi);
    return rc;
}

int rp_multi_release(struct rp_multi *handle)
{
    return open_or_close_from_outside(handle, true);
}

int rp_multi_reboot(struct rp_multi *handle)
{
    return open_or_close_from_outside(handle, false);
}

/* --- waiting for the end ------------------------------------------------------------------------------------------ */

/*
 * Who waits for all pools. `at`: the one whose queue it may be helping with; beyond all once it is through; `closed`:
 * the state in which it closed them, and in which it waits.
 */
struct waiter {
    struct multi *multi;
    struct held *held;
    unsigned n, at;
    uint32_t closed;
};

static bool still_closed(const struct waiter *me)
{
    return (load_seq(&me->multi->state) & ~(uint32_t)MULTI_DYING) == (me->closed & ~(uint32_t)MULTI_DYING);
}

/* Which of the pool's lives the waiter ends. If the multi pool was rebooted meanwhile, the pool is open after this. */
static uint32_t waiter_close(const struct waiter *me, struct pool *pool)
{
    uint32_t generation = pool_close(pool, false);

    if (!still_closed(me))
        multi_settle_pool(me->multi, pool);
    return generation;
}

/*
 * Also where a task that the waiter helps with ends the thread. What that task was a guest of, panic.c has left.
 */
static void waiter_leave(void *arg)
{
    struct waiter *me = arg;

    for (unsigned i = 0; i < me->n; i++) {
        ender_leave(&me->held[i].ender);
        if (i != me->at)
            guest_leave(me->held[i].member->pool);
    }
    alloc_free(&me->multi->allocator, me->held);
    multi_guest_leave(me->multi);
}

/*
 * The caller joins at all pools before it waits at any: its own tasks must not be waited for by others of its kind, at
 * whichever pool those stand. All wait at the pools in the same order and help where they stand, so that none of them
 * waits for a task that only another one could run.
 */
static void waiter_join(struct waiter *me)
{
    bool inside = multi_inside(me->multi);

    for (unsigned i = 0; i < me->n; i++) {
        struct pool *pool = me->held[i].member->pool;
        me->held[i].ender = (struct ender){.pool = pool, .inside = inside, .generation = waiter_close(me, pool)};
    }
    for (unsigned i = 0; i < me->n; i++)
        ender_join(&me->held[i].ender);
}

/* One pool alone may be rebooted, by a health check that has begun before the release: it is closed again. */
static int waiter_wait_at(struct waiter *me, struct ender *ender, int64_t deadline)
{
    int rc;

    while ((rc = ender_wait(ender, deadline, false)) == -ESHUTDOWN && still_closed(me))
        ender->generation = waiter_close(me, ender->pool);
    return rc;
}

static int waiter_wait(struct waiter *me, int64_t deadline)
{
    int rc = 0;

    for (me->at = 0; me->at < me->n && !rc; me->at++)
        rc = waiter_wait_at(me, &me->held[me->at].ender, deadline);
    me->at = me->n;
    return rc;
}

int rp_multi_release_until(struct rp_multi *handle, int64_t deadline, struct rp_release_report *report)
{
    struct waiter me = {0};

    if (report)
        memset(report, 0, sizeof(*report));
    if (deadline < 0)
        return -EINVAL;
    int rc = multi_guest_enter(handle, &me.multi);
    if (rc)
        return rc;
    rc = multi_hold_all(me.multi, true, &me.held, &me.n, &me.closed);
    if (rc) {
        multi_guest_leave(me.multi);
        return rc;
    }
    lobby_progress(&me.multi->lobby);
    waiter_join(&me);
    pthread_cleanup_push(waiter_leave, &me);
    rc = waiter_wait(&me, deadline);
    for (unsigned i = 0; rc == -ETIMEDOUT && report && i < me.n; i++)
        ender_report(me.held[i].member->pool, report);
    pthread_cleanup_pop(1);
    return rc;
}

/* --- destroy ------------------------------------------------------------------------------------------------------ */

static void multi_free(struct multi *multi)
{
    struct rp_allocator allocator = multi->allocator;

    if (multi->reactor)
        reactor_put(multi->reactor);
    alloc_free(&allocator, multi->cpus);
    alloc_free(&allocator, multi->measured);
    alloc_free_aligned(&allocator, multi);
}

/* No submit finds a pool from now on; all drain side by side, and are waited for if `wait`. */
static void pools_end(struct multi *multi, bool wait)
{
    rp_lock_acquire(&multi->lock);
    store_seq(&multi->state, state_set_locked(multi, true) | MULTI_DYING);
    rp_lock_release(&multi->lock);
    health_stop(multi);
    struct roster *all = roster_take_all(multi);
    lobby_progress(&multi->lobby);
    if (!all)
        return;
    for (unsigned i = 0; i < all->slots; i++)
        if (all->by_index[i])
            pool_close(all->by_index[i]->pool, true);
    for (unsigned i = 0; i < all->slots; i++)
        if (all->by_index[i])
            pool_end(all->by_index[i]->pool, wait); /* the member is gone after this, or soon */
    roster_free(multi, all);
}

static void count_await(_Atomic uint32_t *count)
{
    uint32_t now = or_seq(count, GUESTS_AWAITED) | GUESTS_AWAITED;

    for (; now != GUESTS_AWAITED; now = load_seq(count))
        futex_wait(count, now, 0);
}

/* After pools_end: waits for everybody and frees. Its destroyer, or the reactor for a deferred one. */
static void multi_finish(struct multi *multi)
{
    struct handle *handle = multi->handle; /* NULL: it was never made */

    if (handle)
        handle_empty(&multi_handles, handle);
    rcu_wait();
    count_await(&multi->guests);
    count_await(&multi->unfinished);
    health_join(multi);
    rcu_wait();
    multi_free(multi);
    if (handle)
        handle_free(&multi_handles, handle);
}

static void multi_reap(struct work *work)
{
    multi_finish(caa_container_of(work, struct multi, reap));
}

/* In a forked child. A pool whose end was under way at the fork stays as it is. */
static void member_free_forked(struct multi *multi, struct member *member)
{
    struct pool *pool = member->pool;

    store_release(&pool->owner, NULL);
    if (load_relaxed(&pool->handle->core) == pool) /* one thread */
        pool_end(pool, false);
    alloc_free(&multi->allocator, member);
}

static void multi_free_forked(struct multi *multi)
{
    struct roster *roster = load_relaxed(&multi->roster); /* one thread */
    struct handle *handle = multi->handle;
    struct cds_list_head *node, *next;

    handle_empty(&multi_handles, handle);
    for (unsigned i = 0; roster && i < roster->slots; i++)
        if (roster->by_index[i])
            member_free_forked(multi, roster->by_index[i]);
    cds_list_for_each_safe(node, next, &multi->draining)
        member_free_forked(multi, caa_container_of(node, struct member, drain));
    if (roster)
        roster_free(multi, roster);
    multi_free(multi);
    handle_free(&multi_handles, handle);
}

int rp_multi_destroy(struct rp_multi *handle)
{
    uint32_t state = HANDLE_LIVE;

    if (!handle)
        return -EINVAL;
    int rc = rcu_attach();
    if (rc)
        return rc;
    if (!cas_acq_rel(&handle->handle.state, &state, HANDLE_DYING))
        return -EALREADY;
    struct multi *multi = load_acquire(&handle->handle.core); /* ours to take out from here on */
    if (load_relaxed(&multi->forked)) {                       /* constant in this process */
        multi_free_forked(multi);
        return 0;
    }
    if (multi_inside(multi)) {
        add_seq(&multi->guests, 1); /* not reaped before we are through */
        pools_end(multi, false);
        store_seq(&multi->deferred, 1);
        multi_guest_leave(multi);
        return 0;
    }
    pools_end(multi, true);
    multi_finish(multi);
    return 0;
}

/* --- create ------------------------------------------------------------------------------------------------------- */

static int options_check(unsigned pools, enum rp_strategy strategy, const struct rp_multi_options *o)
{
    static const uint64_t none[sizeof(o->reserved) / sizeof(o->reserved[0])];

    if (pools == 0 || pools > RP_MULTI_POOLS_MAX || multi_check_strategy(o, strategy))
        return -EINVAL;
    if (memcmp(o->reserved, none, sizeof(none)) != 0 || o->health_ns < 0 || o->hang_ns < 0)
        return -EINVAL;
    if ((o->auto_low ? o->auto_low : AUTO_LOW) > (o->auto_high ? o->auto_high : AUTO_HIGH))
        return -EINVAL;
    if (o->pool && !o->pool->cpus != !o->pool->cpus_size)
        return -EINVAL;
    for (unsigned i = 0; o->weights && i < pools; i++)
        if (o->weights[i] == 0)
            return -EINVAL;
    return 0;
}

/* After this nothing of the user's is pointed to but functions and their user pointers. */
static int options_copy(struct multi *multi, const struct rp_multi_options *o)
{
    static const struct rp_pool_options defaults;
    const struct rp_pool_options *p = o->pool ? o->pool : &defaults;

    multi->options = *o;
    multi->options.pool = NULL;
    multi->options.weights = NULL;
    multi->options.auto_high = o->auto_high ? o->auto_high : AUTO_HIGH;
    multi->options.auto_low = o->auto_low ? o->auto_low : AUTO_LOW;
    multi->options.hang_ns = o->hang_ns ? o->hang_ns : HANG_DEFAULT_NS;
    multi->pool_options = *p;
    multi->pool_options.allocator = &multi->allocator;
    multi->log = (struct log){.write = p->log, .user = p->log_user, .level = p->log_level};
    snprintf(multi->name, sizeof(multi->name), "%s", p->name && *p->name ? p->name : "rp");
    if (!p->cpus)
        return 0;
    multi->cpus = alloc_zeroed(&multi->allocator, 1, p->cpus_size);
    if (!multi->cpus)
        return -ENOMEM;
    memcpy(multi->cpus, p->cpus, p->cpus_size);
    multi->pool_options.cpus = multi->cpus;
    return 0;
}

static int multi_init(struct multi *multi, unsigned pools, unsigned capacity, const struct rp_multi_options *o)
{
    int rc = options_copy(multi, o);

    CDS_INIT_LIST_HEAD(&multi->draining);
    lobby_init(&multi->lobby);
    multi->spin_ns = cpu_allowed() > 1 ? ROOM_SPIN_NS : 0;
    multi->reap.run = multi_reap;
    if (rc || (rc = reactor_get(&multi->reactor, multi->pool_options.backend, false)))
        return rc;
    if ((rc = roster_create(multi, pools, capacity, o->weights)))
        return rc;
    return health_begin(multi);
}

int rp_multi_create(struct rp_multi **out, unsigned pools, unsigned capacity_each, enum rp_strategy strategy,
                    const struct rp_multi_options *options)
{
    static const struct rp_multi_options defaults;
    static _Atomic uint32_t made;
    const struct rp_multi_options *o = options ? options : &defaults;
    struct rp_allocator allocator;

    if (!out)
        return -EINVAL;
    *out = NULL;
    int rc = options_check(pools, strategy, o);
    if (rc || (rc = rcu_attach()) || (rc = alloc_init(&allocator, o->pool ? o->pool->allocator : NULL)))
        return rc;
    struct multi *multi = alloc_aligned(&allocator, CACHE_APART, sizeof(*multi));
    if (!multi)
        return -ENOMEM;
    multi->allocator = allocator;
    multi->serial = add_relaxed(&made, 1) + 1; /* only counts */
    store_relaxed(&multi->strategy, strategy); /* nobody else sees it yet */
    rc = multi_init(multi, pools, capacity_each, o);
    if (!rc)
        rc = handle_create(&multi_handles, &multi->handle, multi);
    if (rc) {
        pools_end(multi, true);
        multi_finish(multi);
        return rc;
    }
    *out = caa_container_of(multi->handle, struct rp_multi, handle);
    return 0;
}
