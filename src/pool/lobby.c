/*
 * The lobby: submitters that wait until any pool of a multi pool has room. Were they to block at one pool, it could be
 * the one that hangs, while the others idle.
 *
 * One that finds no room looks for it for some microseconds, as in room.c and for the same reasons. Then it stands in a
 * list, first come first served, and only the first of them (the head) tries. Newcomers may still submit besides it, but
 * no more than OVERTAKES of them for each head.
 *
 * Pools tell of room by their owner's `progress`. For the end of a task that must cost nothing while nobody waits, so
 * the lobby sets a bit in the word that every ending task looks at anyway (room.attention), in all pools while somebody
 * waits: they are watched. The protocol is that of room.c, with each pool in the place of the one:
 *
 *     The head                                       Whoever ends a task, opens, closes or grows a pool
 *       H1 it is listed, all pools are watched         E1 done + 1 (or the change)
 *       H2 own word = LOOKING                          E2 load attention (for a change: waiting)
 *       H3 clears pending                              E3 pending 0 -> 1, and only then:
 *       H4 tries all pools (reads done)                E4 the head's word = CALLED; wakes it if it was SLEEPING
 *       H5 word LOOKING -> SLEEPING by CAS, sleeps
 *
 * All seq_cst but the words. If E1 comes too late for H4 then E2 comes after H1 and sees the watch, E3 after H3, and
 * whoever sets pending calls the head after H2. While a called head looks around pending stays 1, so that tasks end
 * without a look at the list. A pool that is added is watched by whoever adds it if anybody waits by then (both sides
 * hold the lock), and whoever publishes another table calls the head after it. Headship passes on by a call to the next
 * head, whatever the reason for leaving.
 */
#include "base/futex.h"
#include "base/rcu.h"
#include "pool/context.h"
#include "pool/multi.h"

#include <errno.h>

enum { LOOKING, SLEEPING, CALLED };

struct waiter {
    struct cds_list_head node; /* under the lobby's lock */
    struct watch watch;        /* on its context, if it has one */
    _Atomic uint32_t word;     /* LOOKING and SLEEPING by the waiter, CALLED by others */
    _Atomic uint32_t head;     /* 1: first of the list; set under the lock, once and for all */
};

void lobby_init(struct lobby *lobby)
{
    CDS_INIT_LIST_HEAD(&lobby->waiters);
}

static struct waiter *head_locked(struct lobby *lobby)
{
    return cds_list_empty(&lobby->waiters) ? NULL : cds_list_first_entry(&lobby->waiters, struct waiter, node);
}

void lobby_progress(struct lobby *lobby)
{
    if (!load_seq(&lobby->waiting) || load_seq(&lobby->pending) || exchange_seq(&lobby->pending, 1)) /* E2, E3 */
        return;
    rp_lock_acquire(&lobby->lock);
    struct waiter *head = head_locked(lobby);
    bool asleep = head && exchange_acq_rel(&head->word, CALLED) == SLEEPING; /* E4 */
    rp_lock_release(&lobby->lock);
    if (asleep)
        futex_wake(&head->word, 1); /* it may have gone: then nobody sleeps there, or on a word that expects such */
}

/* Watches all pools of the table, or none. A removed pool stays watched: its calls are to no purpose and do no harm. */
static void watch_locked(struct multi *multi, bool watch)
{
    rcu_enter();
    const struct roster *roster = load_acquire(&multi->roster);
    for (unsigned i = 0; roster && i < roster->slots; i++) {
        struct member *member = roster->by_index[i];
        if (!member || member->watched == watch)
            continue;
        if (watch)
            or_seq(&member->pool->room.attention, ATTENTION_WATCH); /* H1 */
        else
            and_seq(&member->pool->room.attention, ~ATTENTION_WATCH);
        member->watched = watch;
    }
    rcu_exit();
}

void lobby_pool_added(struct multi *multi)
{
    rp_lock_acquire(&multi->lobby.lock);
    if (load_seq(&multi->lobby.waiting))
        watch_locked(multi, true);
    rp_lock_release(&multi->lobby.lock);
}

/* From now on OVERTAKES newcomers may submit besides it. */
static void head_changed_locked(struct lobby *lobby)
{
    struct waiter *head = head_locked(lobby);

    store_relaxed(&lobby->overtaken, 0); /* a count that is to be near enough */
    if (head)
        store_release(&head->head, 1); /* it reads that after a call, or made it itself */
}

static int waiter_join(struct multi *multi, struct waiter *me, uint64_t most)
{
    struct lobby *lobby = &multi->lobby;
    int rc = 0;

    rp_lock_acquire(&lobby->lock);
    uint32_t before = load_seq(&lobby->waiting);
    if (most && before >= most) {
        rc = -EAGAIN;
    } else {
        cds_list_add_tail(&me->node, &lobby->waiters);
        store_seq(&lobby->waiting, before + 1);
        if (!before) {
            head_changed_locked(lobby);
            watch_locked(multi, true);
        }
    }
    rp_lock_release(&lobby->lock);
    return rc;
}

static void waiter_leave(struct multi *multi, struct waiter *me)
{
    struct lobby *lobby = &multi->lobby;

    rp_lock_acquire(&lobby->lock);
    bool head = head_locked(lobby) == me;
    cds_list_del(&me->node);
    if (head)
        head_changed_locked(lobby);
    if (sub_seq(&lobby->waiting, 1) == 1)
        watch_locked(multi, false);
    rp_lock_release(&lobby->lock);
    if (!head)
        return; /* no call is ever for another than the head */
    store_seq(&lobby->pending, 0);
    lobby_progress(lobby);
}

/* The most that may wait here, 0: any number. */
static uint64_t most_waiters(const struct multi *multi)
{
    rcu_enter();
    const struct roster *roster = load_acquire(&multi->roster);
    uint64_t most = roster ? (uint64_t)multi->pool_options.max_blocking * roster->members : 0;
    rcu_exit();
    return most;
}

static bool any_room(const struct multi *multi)
{
    bool any = false;

    rcu_enter();
    const struct roster *roster = load_acquire(&multi->roster);
    for (unsigned i = 0; roster && i < roster->seats && !any; i++)
        any = balance_room(roster->seat[i].pool);
    rcu_exit();
    return any;
}

/* Looks for room for a short while: what attempt returned, -EAGAIN if there was none. */
static int look_around(struct multi *multi, bool newcomer, int (*attempt)(void *arg), void *arg)
{
    int64_t until = rp_now() + multi->spin_ns;

    do {
        for (int i = 0; i < 16; i++) {
            if (newcomer && load_relaxed(&multi->lobby.overtaken) >= OVERTAKES) /* a hint */
                return -EAGAIN;
            if (any_room(multi) && (!newcomer || lobby_pass(&multi->lobby))) {
                int rc = attempt(arg);
                if (rc != -EAGAIN)
                    return rc;
            }
            cpu_relax();
        }
    } while (rp_now() < until);
    return -EAGAIN;
}

/* One look of a waiter: what attempt returned, -EAGAIN to sleep on. */
static int waiter_try(struct multi *multi, struct waiter *me, int (*attempt)(void *arg), void *arg)
{
    bool called = exchange_acq_rel(&me->word, LOOKING) == CALLED; /* H2: a call that this undoes is answered below */
    int rc = -EAGAIN;

    if (!load_acquire(&me->head))
        return -EAGAIN;
    if (called && multi->spin_ns)
        rc = look_around(multi, false, attempt, arg);
    if (rc == -EAGAIN) {
        store_seq(&multi->lobby.pending, 0); /* H3 */
        rc = attempt(arg);                   /* H4 */
    }
    return rc;
}

/* H5. -ETIMEDOUT at the deadline. */
static int waiter_sleep(struct waiter *me, int64_t deadline)
{
    uint32_t word = LOOKING;

    if (!cas_acq_rel(&me->word, &word, SLEEPING))
        return 0;
    while (load_acquire(&me->word) == SLEEPING)
        if (futex_wait(&me->word, SLEEPING, deadline) == -ETIMEDOUT && rp_now() >= deadline)
            return -ETIMEDOUT;
    return 0;
}

/* Under the lock of the context's tree, which taking the watch off takes as well: the waiter is still there. */
static void waiter_context_ended(struct watch *watch, int reason)
{
    struct waiter *waiter = caa_container_of(watch, struct waiter, watch);

    (void)reason;
    if (exchange_acq_rel(&waiter->word, CALLED) == SLEEPING)
        futex_wake(&waiter->word, 1);
}

int lobby_wait(struct multi *multi, int64_t deadline, struct rp_ctx *ctx, int (*attempt)(void *arg), void *arg)
{
    struct waiter me = {.word = LOOKING, .watch = {.fire = waiter_context_ended}};
    int rc = -EAGAIN;

    if (multi->spin_ns)
        rc = look_around(multi, true, attempt, arg);
    if (rc != -EAGAIN)
        return rc;
    rc = waiter_join(multi, &me, most_waiters(multi));
    if (rc)
        return rc;
    if (ctx)
        ctx_watch(ctx, &me.watch); /* has it ended, the look below finds that */
    while ((rc = waiter_try(multi, &me, attempt, arg)) == -EAGAIN) {
        if (ctx && (rc = ctx_err(ctx))) /* after the word was reset: H2 */
            break;
        if ((rc = waiter_sleep(&me, deadline)))
            break;
    }
    if (ctx)
        ctx_unwatch(ctx, &me.watch);
    waiter_leave(multi, &me);
    return rc;
}
