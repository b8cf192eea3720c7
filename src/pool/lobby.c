/*
 * The lobby: submitters that block until any pool of a multi pool has room. Were they to block at one pool, it could be
 * the one that hangs, while the others idle.
 *
 * They stand in a list, first come first served, and only the first of them (the head) tries. Newcomers that do not
 * block may still submit besides it, but no more than OVERTAKES of them for each head.
 *
 * Pools tell of room by their owner's `progress`. For the end of a task that must cost nothing while nobody waits, so
 * the lobby raises the word that every ending task looks at anyway (room.attention), in all pools while somebody waits:
 * they are watched. The protocol is that of room.c, with each pool in the place of the one:
 *
 *     The head                                       Whoever ends a task, opens, closes or grows a pool
 *       H1 it is listed, all pools are watched         E1 done + 1 (or the change)
 *       H2 resets its own word                         E2 load attention (for a change: waiting)
 *       H3 clears pending                              E3 pending 0 -> 1, and only then:
 *       H4 tries all pools (reads done)                E4 sets the head's word, wakes it
 *       H5 sleeps while its word is as in H2
 *
 * All seq_cst but the words. If E1 comes too late for H4 then E2 comes after H1 and sees the watch, E3 after H3, and
 * whoever sets pending calls the head after H2. A pool that is added is watched by whoever adds it if anybody waits by
 * then; both sides hold the lock. Headship passes on by a call to the next head, whatever the reason for leaving.
 */
#include "base/futex.h"
#include "base/rcu.h"
#include "pool/multi.h"

#include <errno.h>

enum { WAITING, CALLED };

struct waiter {
    struct cds_list_head node; /* under the lobby's lock */
    _Atomic uint32_t word;     /* WAITING by the waiter, CALLED by others */
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
    if (head)
        store_release(&head->word, CALLED); /* E4 */
    rp_lock_release(&lobby->lock);
    if (head)
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
            add_seq(&member->pool->room.attention, ATTENTION_ENDER); /* H1 */
        else
            sub_seq(&member->pool->room.attention, ATTENTION_ENDER);
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
    lobby_progress(&multi->lobby);
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
        if (!before)
            watch_locked(multi, true);
    }
    rp_lock_release(&lobby->lock);
    return rc;
}

static void waiter_leave(struct multi *multi, struct waiter *me)
{
    struct lobby *lobby = &multi->lobby;

    rp_lock_acquire(&lobby->lock);
    if (head_locked(lobby) == me)
        store_relaxed(&lobby->overtaken, 0); /* a count that is to be near enough */
    cds_list_del(&me->node);
    if (sub_seq(&lobby->waiting, 1) == 1)
        watch_locked(multi, false);
    rp_lock_release(&lobby->lock);
    store_seq(&lobby->pending, 0); /* a call may have been for the one that leaves */
    lobby_progress(lobby);
}

static bool is_head(struct lobby *lobby, const struct waiter *me)
{
    rp_lock_acquire(&lobby->lock);
    bool head = head_locked(lobby) == me;
    rp_lock_release(&lobby->lock);
    return head;
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

int lobby_wait(struct multi *multi, int64_t deadline, int (*attempt)(void *arg), void *arg)
{
    struct waiter me = {.word = WAITING};
    int rc = waiter_join(multi, &me, most_waiters(multi));

    if (rc)
        return rc;
    for (;;) {
        store_relaxed(&me.word, WAITING); /* H2: a call that this undoes is answered by the look below */
        if (is_head(&multi->lobby, &me)) {
            store_seq(&multi->lobby.pending, 0); /* H3 */
            if ((rc = attempt(arg)) != -EAGAIN)  /* H4 */
                break;
        }
        if (futex_wait(&me.word, WAITING, deadline) == -ETIMEDOUT && deadline && rp_now() >= deadline) {
            rc = -ETIMEDOUT;
            break;
        }
    }
    waiter_leave(multi, &me);
    return rc;
}
