/*
 * Submitting to a multi pool: choosing a pool and calling a verb of it, with the fallback, is route() alone; what the
 * forms of submit differ in is data, as in submit.c.
 *
 * The fast path is one RCU section: enter, choose, the pool's own fast path. Where that does not go through, up to
 * three passes follow, none of them in a section, the caller counted as a guest of the multi pool and of the pool:
 *
 *     CHOICE  the strategy's pool, without blocking: it may only lack a worker or a ring
 *     LEAST   the least loaded pool with room, without blocking: the fallback, once
 *     WAIT    no pool has room, or not for a newcomer, as others wait for it: the overload policy has its way at the
 *             least loaded one. To block is to wait for room in any pool (lobby.c), but for a worker of one of the
 *             pools to wait at its own
 *
 * Why at its own: a pool knows when all its workers block in it, and lets one more stand in for them, or says -EDEADLK.
 * Workers of two full pools that waited elsewhere would wait for ever, and neither pool could tell. While the health
 * check reboots its pool such a worker looks every millisecond whether that is open again.
 *
 * A pool that is closed meanwhile, being removed or rebooted, says -ESHUTDOWN, also to those who blocked there: they
 * try again with another one. Only when no pool is open does submit return that code.
 */
#include "base/alloc.h"
#include "base/rcu.h"
#include "pool/balance_path.h"
#include "pool/job.h"
#include "pool/submit_path.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#define VIEWS_ON_STACK 32
#define REBOOT_LOOK_NS 1000000
#define PASSED_MANY 128

static void leave_at_exit(void *multi)
{
    multi_guest_leave(multi);
}

/* A task that the submitter runs itself (caller-runs) may end the thread: the pool's guest is left in panic.c then. */
static int submit_held(struct multi *multi, struct pool *pool, const struct entry *entry, struct how how,
                       enum submit_as as)
{
    int rc;

    pthread_cleanup_push(leave_at_exit, multi);
    rc = submit_as_guest(pool, entry, how, as);
    pthread_cleanup_pop(0);
    return rc;
}

/* The open pool of this multi pool that the calling thread is a worker of, or NULL. */
static struct pool *own_pool(const struct multi *multi)
{
    for (const struct frame *frame = frame_current(); frame; frame = frame->outer) {
        const struct member *member = frame->worker ? member_of(frame->pool) : NULL;
        if (member && member->multi == multi && !runq_closed(&frame->pool->runq))
            return frame->pool;
    }
    return NULL;
}

struct route {
    struct multi *multi;
    const struct entry *entry;
    struct how how;
    _Atomic(struct rp_pool *) *at; /* becomes the pool that is tried, before it is; NULL: nobody asks */
};

static void tell_pool(_Atomic(struct rp_pool *) *at, const struct pool *pool)
{
    if (__builtin_expect(at != NULL, 0))
        store_release(at, pool_handle(pool));
}

/* In a section, which it ends: submits to the pool in the given manner. */
static int submit_there(const struct route *route, struct pool *pool, struct how how, enum submit_as as)
{
    add_seq(&pool->guests, 1);
    rcu_exit();
    tell_pool(route->at, pool);
    int rc = submit_held(route->multi, pool, route->entry, how, as);
    guest_leave(pool);
    return rc;
}

static struct how without_blocking(const struct route *route)
{
    struct how how = route->how;

    how.overload = RP_OVERLOAD_FAIL;
    return how;
}

/* None is open. Where one is only being rebooted that is as if it were full. */
static int none_open(struct multi *multi)
{
    return load_seq(&multi->rebooting) && !(load_seq(&multi->state) & MULTI_CLOSED) ? -EAGAIN : -ESHUTDOWN;
}

/* LEAST: to the least loaded pool that has room. Again if that was closed meanwhile. */
static int try_least(const struct route *route)
{
    for (;;) {
        rcu_enter();
        const struct roster *roster = load_acquire(&route->multi->roster);
        const struct seat *seat = roster ? balance_least(route->multi, roster) : NULL;
        int rc = !seat ? none_open(route->multi) : -EAGAIN;
        if (!seat || !balance_room(seat->pool)) {
            rcu_exit();
            return rc;
        }
        rc = submit_there(route, seat->pool, without_blocking(route), SUBMIT_TRIES);
        if (rc != -ESHUTDOWN)
            return rc;
    }
}

/*
 * To any of the rotation that has room. What looks open may still refuse a newcomer in favour of those who block at
 * that very pool.
 */
static int try_all(void *arg)
{
    const struct route *route = arg;
    struct member *member;
    int rc = try_least(route);

    for (unsigned i = 0; rc == -EAGAIN && (member = roster_next_in(route->multi, &i));) {
        tell_pool(route->at, member->pool);
        if (balance_room(member->pool))
            rc = submit_held(route->multi, member->pool, route->entry, without_blocking(route), SUBMIT_TRIES);
        guest_leave(member->pool);
        if (rc == -ESHUTDOWN)
            rc = -EAGAIN;
    }
    return rc;
}

/*
 * WAIT, where the policy is not to block, or to do so at the caller's own pool: there it may have what room there is,
 * as what others wait for may wait for it. `pass`: so may the others.
 */
static int at_one_pool(const struct route *route, bool pass, bool *blocks)
{
    for (;;) {
        rcu_enter();
        const struct roster *roster = load_acquire(&route->multi->roster);
        struct pool *pool = own_pool(route->multi);
        const struct seat *seat = !pool && roster ? balance_least(route->multi, roster) : NULL;
        *blocks = !pool && (!seat || submit_blocks(seat->pool, route->how));
        if (*blocks || (!pool && !seat)) {
            rcu_exit();
            return -EAGAIN;
        }
        if (!pool)
            pool = seat->pool;
        int rc = submit_there(route, pool, route->how,
                              pass || submit_blocks(pool, route->how) ? SUBMIT_LAST : SUBMIT_REFUSED);
        if (rc != -ESHUTDOWN)
            return rc;
    }
}

/* Whether the caller is a worker of a pool that the health check has closed for a moment. */
static bool own_rebooting(const struct multi *multi)
{
    for (const struct frame *frame = frame_current(); frame; frame = frame->outer) {
        const struct member *member = frame->worker ? member_of(frame->pool) : NULL;
        if (member && member->multi == multi && load_relaxed(&member->out) && runq_closed(&frame->pool->runq))
            return true; /* out before it is closed */
    }
    return false;
}

/*
 * In the lobby. A worker whose own pool is being rebooted goes there for a moment only, since it is to wait at its own
 * when that is open again: then *again.
 */
static int wait_in_lobby(struct route *route, bool *again)
{
    int64_t deadline = route->how.deadline, until = deadline;

    if (unlikely(own_rebooting(route->multi))) {
        until = rp_after(REBOOT_LOOK_NS);
        if (deadline && deadline < until)
            until = deadline;
    }
    int rc = lobby_wait(route->multi, until, route->how.ctx, try_all, route);
    *again = rc == -ETIMEDOUT && until != deadline;
    return rc;
}

static int wait_pass(struct route *route, bool pass)
{
    bool blocks, again = true;
    int rc = 0;

    while (again) {
        rc = at_one_pool(route, pass, &blocks);
        if (!blocks)
            return rc;
        again = false;
        rc = route->how.overload == RP_OVERLOAD_FAIL ? try_all(route) : wait_in_lobby(route, &again);
    }
    if (rc)
        add_relaxed(&route->multi->rejected, 1); /* a counter */
    return rc;
}

/*
 * The passes, from a first choice on (NULL: there was none). `pass`: the newcomer is let past those who wait. Called in
 * a section, which it ends; the caller is a guest of the multi pool.
 */
static int passes(struct route *route, struct pool *choice, bool pass)
{
    struct multi *multi = route->multi;
    bool room = pass && choice && balance_room(choice);
    int rc = -EAGAIN;

    if (load_relaxed(&multi->forked)) { /* constant in this process */
        rcu_exit();
        return -ECHILD;
    }
    if (room)
        rc = submit_there(route, choice, without_blocking(route), SUBMIT_TRIES); /* CHOICE */
    else
        rcu_exit();
    if (pass && (rc == -EAGAIN || rc == -ESHUTDOWN))
        rc = try_least(route); /* LEAST */
    if (rc == -EAGAIN)
        return wait_pass(route, pass);
    if (rc)
        add_relaxed(&multi->rejected, 1); /* a counter */
    return rc;
}

static __attribute__((noinline)) int route_slow(struct route route, const struct seat *seat, bool pass)
{
    struct multi *multi = route.multi;

    add_seq(&multi->guests, 1);
    int rc = passes(&route, seat ? seat->pool : NULL, pass);
    health_arm(multi); /* again: that may have taken long */
    multi_guest_leave(multi);
    return rc;
}

/* --- the user's strategy ------------------------------------------------------------------------------------------ */

/* Asks the user: the number of a pool, or an error. A guest, outside of a section. */
static int ask(struct multi *multi)
{
    struct rp_multi_view on_stack[VIEWS_ON_STACK], *views = on_stack;
    unsigned n = 0;

    rcu_enter();
    const struct roster *roster = load_acquire(&multi->roster);
    unsigned room = roster ? roster->seats : 0;
    rcu_exit();
    if (room <= VIEWS_ON_STACK)
        room = VIEWS_ON_STACK;
    else if (!(views = alloc_zeroed(&multi->allocator, room, sizeof(*views))))
        return -ENOMEM;
    rcu_enter();
    roster = load_acquire(&multi->roster);
    for (; roster && n < roster->seats && n < room; n++)
        balance_view(multi, &roster->seat[n], &views[n]);
    rcu_exit();
    int chosen = n ? multi->options.choose(multi->options.choose_user, views, n) : -ESHUTDOWN;
    if (chosen >= 0)
        chosen = (unsigned)chosen < n ? (int)views[chosen].index : -EINVAL;
    if (views != on_stack)
        alloc_free(&multi->allocator, views);
    return chosen;
}

/* The number as it was in the view; a pool that was removed since is as good as a full one. */
static __attribute__((noinline)) int route_custom(const struct rp_multi *handle, struct route route)
{
    int rc = multi_guest_enter(handle, &route.multi);

    if (rc)
        return rc;
    struct multi *multi = route.multi;
    int index = ask(multi);
    if (index >= 0) {
        rcu_enter();
        const struct roster *roster = load_acquire(&multi->roster);
        struct member *member = roster && (unsigned)index < roster->slots ? roster->by_index[index] : NULL;
        rc = passes(&route, member ? member->pool : NULL, lobby_pass(&multi->lobby));
        health_arm(multi); /* again: the user's function may have taken long */
    } else {
        rc = index;
        add_relaxed(&multi->rejected, 1); /* a counter */
    }
    multi_guest_leave(multi);
    return rc;
}

/* --- every submit ------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void tell_switch(const struct rp_multi *handle)
{
    struct multi *multi;

    if (multi_guest_enter(handle, &multi))
        return;
    log_emit(&multi->log, RP_LOG_INFO, "multi pool %s: turns to %s", multi->name,
             load_relaxed(&multi->leaning) ? "least tasks" : "round robin"); /* as it is by now */
    multi_guest_leave(multi);
}

/*
 * A thread that finds pool after pool full fills those few that are drained as it comes by, task by task, at the CPU
 * that the workers of the others wait for: now and then it lets them have it.
 */
static void passed_over(void)
{
    static _Thread_local unsigned passed;

    if (++passed % PASSED_MANY == 0)
        sched_yield();
}

/* The way of a task that does not go through at once; in a section, which it ends. */
static __attribute__((noinline)) int route_long(struct multi *multi, const struct roster *roster, struct choice choice,
                                                const struct entry *entry, struct how how,
                                                _Atomic(struct rp_pool *) *at, bool pass)
{
    const struct seat *seat = choice.seat;

    if (seat && pass && choice.passes) {
        seat = balance_from(multi, roster, (unsigned)(seat - roster->seat));
        tell_pool(at, seat->pool);
        if (seat != choice.seat && submit_fast(seat->pool, entry, how.class)) {
            passed_over();
            return 0;
        }
    }
    return route_slow((struct route){.multi = multi, .entry = entry, .how = how, .at = at}, seat, pass);
}

/* The entry is copied for the long way, so that on the short one it is never in memory. */
static inline __attribute__((always_inline)) int route_inline(const struct rp_multi *handle, const struct entry *entry,
                                                              struct how how, _Atomic(struct rp_pool *) *at)
{
    struct multi *multi;
    bool switched = false;
    int rc = multi_enter(handle, &multi);

    if (unlikely(rc))
        return rc;
    health_arm(multi);
    if (unlikely(load_relaxed(&multi->strategy) == RP_CUSTOM)) { /* from when it is seen */
        struct entry own = *entry;
        handle_exit();
        return route_custom(handle, (struct route){.entry = &own, .how = how, .at = at});
    }
    const struct roster *roster = load_acquire(&multi->roster);
    struct choice choice = balance_choose(multi, roster, false, &switched);
    bool pass = lobby_pass(&multi->lobby);
    if (likely(choice.seat != NULL))
        tell_pool(at, choice.seat->pool);
    if (unlikely(!choice.seat || !pass || !submit_fast(choice.seat->pool, entry, how.class))) {
        struct entry own = *entry;
        rc = route_long(multi, roster, choice, &own, how, at, pass);
    }
    if (unlikely(switched))
        tell_switch(handle);
    return rc;
}

static __attribute__((noinline)) int route(const struct rp_multi *handle, const struct entry *entry, struct how how,
                                           _Atomic(struct rp_pool *) *at)
{
    return route_inline(handle, entry, how, at);
}

static inline __attribute__((always_inline)) int route_plain(struct rp_multi *multi, void (*fn)(void *arg), void *arg,
                                                             int overload, int64_t deadline)
{
    struct entry entry;
    int rc = !multi || !fn ? -EINVAL : unlikely(deadline != 0) ? submit_deadline(deadline) : 0;

    if (unlikely(rc))
        return rc;
    plain_entry(&entry, fn, arg);
    return route_inline(multi, &entry, (struct how){.overload = overload, .deadline = deadline}, NULL);
}

int rp_multi_submit(struct rp_multi *multi, void (*fn)(void *arg), void *arg)
{
    return route_plain(multi, fn, arg, RP_OVERLOAD_DEFAULT, 0);
}

int rp_multi_try_submit(struct rp_multi *multi, void (*fn)(void *arg), void *arg)
{
    return route_plain(multi, fn, arg, RP_OVERLOAD_FAIL, 0);
}

int rp_multi_submit_until(struct rp_multi *multi, void (*fn)(void *arg), void *arg, int64_t deadline)
{
    return route_plain(multi, fn, arg, RP_OVERLOAD_DEFAULT, deadline);
}

int route_job(struct rp_multi *multi, const struct entry *entry, const struct rp_task *task,
              _Atomic(struct rp_pool *) *at)
{
    return route(multi, entry, submit_how(task), at);
}

int rp_multi_submit_task(struct rp_multi *multi, const struct rp_task *task)
{
    struct entry entry;
    struct how how;
    int rc = multi && task ? submit_read(task, &entry, &how) : -EINVAL;
    bool job = !rc && task_is_job(task);

    if (job)
        rc = job_from_task(door_multi(multi), task, &entry);
    if (rc)
        return rc;
    rc = route(multi, &entry, how, NULL);
    if (rc && job)
        job_discard(&entry);
    return rc;
}

/* --- batches ------------------------------------------------------------------------------------------------------ */

/*
 * One part of a batch: what the chosen pool has room for at once, or else the first task by the long way. `size` holds
 * the size of a part, 0 until it is known. How many, or an error.
 */
static int route_part(const struct rp_multi *handle, const struct rp_task *tasks, unsigned n, unsigned *size)
{
    struct entry entry;
    struct route route = {.entry = &entry};
    bool switched = false;
    int rc = submit_read(&tasks[0], &entry, &route.how);

    if (rc || (rc = multi_enter(handle, &route.multi)))
        return rc;
    struct multi *multi = route.multi;
    health_arm(multi);
    if (load_relaxed(&multi->strategy) == RP_CUSTOM) { /* from when it is seen */
        handle_exit();
        rc = route_custom(handle, route);
        return rc ? rc : 1;
    }
    const struct roster *roster = load_acquire(&multi->roster);
    struct choice choice = balance_choose(multi, roster, true, &switched);
    const struct seat *seat = choice.seat;
    if (!*size && seat)
        *size = (n + roster->seats - 1) / roster->seats;
    if (seat && choice.passes)
        seat = balance_from(multi, roster, (unsigned)(seat - roster->seat));
    bool pass = lobby_pass(&multi->lobby);
    unsigned taken = seat && pass ? submit_fast_batch(seat->pool, tasks, n < *size ? n : *size) : 0;
    if (!taken)
        taken = !(rc = route_slow(route, seat, pass));
    if (switched)
        tell_switch(handle);
    return rc ? rc : (int)taken;
}

int rp_multi_submit_batch(struct rp_multi *multi, const struct rp_task *tasks, unsigned n)
{
    unsigned accepted = 0, size = 0;

    if (!multi || (n && !tasks) || n > INT32_MAX)
        return -EINVAL;
    while (accepted < n) {
        const struct rp_task *next = &tasks[accepted];
        int rc;
        if (!task_is_job(next))
            rc = route_part(multi, next, n - accepted, &size);
        else if (!(rc = rp_multi_submit_task(multi, next)))
            rc = 1;
        if (rc < 0)
            return accepted ? (int)accepted : rc;
        accepted += (unsigned)rc;
    }
    return (int)accepted;
}
