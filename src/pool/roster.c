/*
 * The table of pools: made anew for each change, published under the lock, freed after a grace period.
 *
 * A pool that is taken out meets this order: the table without it is published; a grace period passes, after which
 * everybody who chose it has submitted or is counted as its guest; it is closed, which sends its blocked submitters on;
 * it drains; and it is freed as any pool is, after its guests. So a submit finds a live pool or a closed one that says
 * so, and never another pool's handle.
 */
#include "base/alloc.h"
#include "base/rcu.h"
#include "pool/multi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SAMPLE_MOST 1024

/* --- a member ----------------------------------------------------------------------------------------------------- */

/* Before a pool that measures is made: where to put what it has measured at its end. */
static int multi_measure(struct multi *multi)
{
    rp_lock_acquire(&multi->lock);
    if (!multi->measured)
        multi->measured = measures_create(&multi->allocator);
    int rc = multi->measured ? 0 : -ENOMEM;
    rp_lock_release(&multi->lock);
    return rc;
}

/* The pool ended and can be read for the last time. */
static void member_ended(struct pool_owner *owner, const struct pool *pool)
{
    struct member *member = caa_container_of(owner, struct member, owner);
    struct multi *multi = member->multi;
    struct rp_pool_snapshot last;

    pool_snapshot(pool, &last);
    rp_lock_acquire(&multi->lock);
    cds_list_del(&member->drain);
    multi->retired.submitted += last.submitted;
    multi->retired.completed += last.completed;
    multi->retired.dropped += last.dropped;
    multi->retired.rejected += last.rejected;
    multi->retired.panicked += last.panicked;
    multi->retired.spawned += last.spawned;
    multi->retired.expired += last.expired;
    fates_add(&multi->fates, &pool->fates);
    if (pool->measured)
        measures_merge(multi->measured, pool->measured);
    rp_lock_release(&multi->lock);
}

static void member_progress(struct pool_owner *owner)
{
    lobby_progress(&caa_container_of(owner, struct member, owner)->multi->lobby);
}

/* Its memory is freed. The section covers the last lines: who waits for `unfinished` waits for a grace period then. */
static void member_gone(struct pool_owner *owner)
{
    struct member *member = caa_container_of(owner, struct member, owner);
    struct multi *multi = member->multi;

    alloc_free(&multi->allocator, member);
    multi_finished_one(multi);
}

/* The user's name and the number, in nine bytes. */
static void member_name(const struct multi *multi, unsigned index, char *name, size_t size)
{
    char number[7];
    int digits = snprintf(number, sizeof(number), ".%u", index % RP_MULTI_POOLS_MAX);

    snprintf(name, size, "%.*s%s", (int)size - 1 - digits, multi->name, number);
}

static int member_create(struct multi *multi, unsigned index, unsigned capacity, unsigned weight, struct member **out)
{
    struct rp_pool_options options = multi->pool_options;
    struct member *member = alloc_zeroed(&multi->allocator, 1, sizeof(*member));
    char name[NAME_BYTES];
    struct rp_pool *pool;

    if (!member)
        return -ENOMEM;
    member_name(multi, index, name, sizeof(name));
    options.name = name;
    if (multi->options.configure)
        multi->options.configure(multi->options.configure_user, index, &options);
    int rc = options.metrics ? multi_measure(multi) : 0;
    if (!rc)
        rc = rp_pool_create(&pool, capacity, &options);
    if (rc) {
        alloc_free(&multi->allocator, member);
        return rc;
    }
    store_release(&pool->handle.state, HANDLE_MEMBER); /* nobody else has the handle yet */
    member->multi = multi;
    member->pool = load_acquire(&pool->handle.core);
    member->index = index;
    member->weight = weight;
    member->owner = (struct pool_owner){.progress = member_progress, .ended = member_ended, .gone = member_gone};
    CDS_INIT_LIST_HEAD(&member->drain);
    store_release(&member->pool->owner, &member->owner);
    *out = member;
    return 0;
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

static struct roster *roster_alloc(struct multi *multi, unsigned slots)
{
    struct roster *roster = alloc_zeroed(&multi->allocator, 1, sizeof(*roster) + slots * sizeof(struct seat));

    if (!roster)
        return NULL;
    roster->slots = slots;
    if (slots && !(roster->by_index = alloc_zeroed(&multi->allocator, slots, sizeof(struct member *)))) {
        alloc_free(&multi->allocator, roster);
        return NULL;
    }
    return roster;
}

void roster_free(struct multi *multi, struct roster *roster)
{
    alloc_free(&multi->allocator, roster->by_index);
    alloc_free(&multi->allocator, roster);
}

/* The seats and counts from by_index. Where all are out, all are in: a sick pool is better than none. */
static void roster_seat(struct roster *roster)
{
    unsigned well = 0;

    for (unsigned i = 0; i < roster->slots; i++) {
        roster->members += roster->by_index[i] != NULL;
        well += roster->by_index[i] && !load_relaxed(&roster->by_index[i]->out); /* under the lock */
    }
    roster->all_out = !well;
    for (unsigned i = 0; i < roster->slots; i++) {
        const struct member *member = roster->by_index[i];
        if (member && (!load_relaxed(&member->out) || !well)) /* under the lock */
            roster->seat[roster->seats++] = (struct seat){.pool = member->pool,
                                                          .ring = runq_normal(&member->pool->runq),
                                                          .index = member->index,
                                                          .weight = member->weight};
    }
    roster->sample = 1;
    while (roster->sample < roster->seats && roster->sample < SAMPLE_MOST)
        roster->sample *= 2;
    roster->sample--;
}

static struct roster *roster_now_locked(struct multi *multi)
{
    return load_relaxed(&multi->roster); /* only written under the lock that we hold */
}

/*
 * A copy with member `with` put in and number `without` left out (RP_MULTI_POOLS_MAX: none), not yet published. Its
 * slots end with the last that is used.
 */
static struct roster *roster_copy_locked(struct multi *multi, struct member *with, unsigned without)
{
    const struct roster *old = roster_now_locked(multi);
    unsigned slots = old ? old->slots : 0;

    while (slots && (slots - 1 == without || !old->by_index[slots - 1]))
        slots--;
    if (with && with->index >= slots)
        slots = with->index + 1;
    struct roster *copy = roster_alloc(multi, slots);
    if (!copy)
        return NULL;
    for (unsigned i = 0; old && i < old->slots && i < slots; i++)
        copy->by_index[i] = i == without ? NULL : old->by_index[i];
    if (with)
        copy->by_index[with->index] = with;
    roster_seat(copy);
    return copy;
}

/* Gives the old table back, for roster_retire. */
static struct roster *roster_publish_locked(struct multi *multi, struct roster *roster)
{
    struct roster *old = roster_now_locked(multi);

    store_release(&multi->roster, roster); /* pairs with the loads under RCU */
    return old;
}

/*
 * After this nobody reads the old table, nor a pool that only it named, unless as a guest. Who waits for room looks at
 * the new one.
 */
static void roster_retire(struct multi *multi, struct roster *old)
{
    lobby_progress(&multi->lobby);
    rcu_wait();
    if (old)
        roster_free(multi, old);
}

/* --- changes ------------------------------------------------------------------------------------------------------ */

static unsigned index_free_locked(struct multi *multi)
{
    const struct roster *roster = roster_now_locked(multi);
    unsigned index = 0;

    while (roster && index < roster->slots && roster->by_index[index])
        index++;
    return index;
}

/* The first table. A failure leaves nothing behind. */
int roster_create(struct multi *multi, unsigned pools, unsigned capacity, const unsigned *weights)
{
    struct roster *roster = roster_alloc(multi, pools);
    int rc = roster ? 0 : -ENOMEM;
    unsigned made = 0;

    for (; !rc && made < pools; made += !rc)
        rc = member_create(multi, made, capacity, weights ? weights[made] : 1, &roster->by_index[made]);
    if (!rc) {
        roster_seat(roster);
        rp_lock_acquire(&multi->lock);
        roster_publish_locked(multi, roster);
        rp_lock_release(&multi->lock);
        return 0;
    }
    add_seq(&multi->unfinished, made);
    while (made)
        pool_end(roster->by_index[--made]->pool, true);
    if (roster)
        roster_free(multi, roster);
    return rc;
}

/* The number is only sure under the lock, and the pool is made without: another one may take it meanwhile. */
int roster_add(struct multi *multi, unsigned capacity, unsigned weight)
{
    for (;;) {
        struct roster *roster = NULL, *old = NULL;
        struct member *member;

        rp_lock_acquire(&multi->lock);
        unsigned index = index_free_locked(multi);
        rp_lock_release(&multi->lock);
        if (index >= RP_MULTI_POOLS_MAX)
            return -ENOSPC;
        int rc = member_create(multi, index, capacity, weight, &member);
        if (rc)
            return rc;
        rp_lock_acquire(&multi->lock);
        if (load_seq(&multi->state) & (MULTI_CLOSED | MULTI_DYING))
            rc = -ESHUTDOWN;
        else if (index_free_locked(multi) != index)
            rc = -EAGAIN;
        else if (!(roster = roster_copy_locked(multi, member, RP_MULTI_POOLS_MAX)))
            rc = -ENOMEM;
        if (!rc) {
            old = roster_publish_locked(multi, roster);
        } else {
            cds_list_add(&member->drain, &multi->draining);
            add_seq(&multi->unfinished, 1);
        }
        rp_lock_release(&multi->lock);
        if (!rc) {
            lobby_pool_added(multi);
            roster_retire(multi, old);
            return (int)index;
        }
        pool_end(member->pool, false); /* a guest of it may be waiting for the task that we are in */
        if (rc != -EAGAIN)
            return rc;
    }
}

static struct member *member_at_locked(struct multi *multi, unsigned index)
{
    const struct roster *roster = roster_now_locked(multi);

    return roster && index < roster->slots ? roster->by_index[index] : NULL;
}

int roster_take(struct multi *multi, unsigned index, struct member **member)
{
    struct roster *roster, *old = NULL;
    int rc = 0;

    rp_lock_acquire(&multi->lock);
    *member = member_at_locked(multi, index);
    if (!*member)
        rc = -ENOENT;
    else if (roster_now_locked(multi)->members == 1)
        rc = -EBUSY;
    else if (!(roster = roster_copy_locked(multi, NULL, index)))
        rc = -ENOMEM;
    else {
        old = roster_publish_locked(multi, roster);
        cds_list_add_tail(&(*member)->drain, &multi->draining);
        add_seq(&multi->unfinished, 1);
    }
    rp_lock_release(&multi->lock);
    if (!rc)
        roster_retire(multi, old);
    return rc;
}

struct roster *roster_take_all(struct multi *multi)
{
    rp_lock_acquire(&multi->lock);
    struct roster *old = roster_publish_locked(multi, NULL);
    for (unsigned i = 0; old && i < old->slots; i++)
        if (old->by_index[i]) {
            cds_list_add_tail(&old->by_index[i]->drain, &multi->draining);
            add_seq(&multi->unfinished, 1);
        }
    rp_lock_release(&multi->lock);
    rcu_wait();
    return old;
}

/* What a change of a member is to set; NULL: stays. */
struct change {
    const unsigned *weight;
    const bool *out;
};

/* Changes the member and publishes a table that shows it, or neither. `expected` may be NULL: whichever is there. */
static int member_change(struct multi *multi, unsigned index, const struct member *expected, struct change change)
{
    struct roster *roster = NULL, *old = NULL;
    int rc = -ENOENT;

    rp_lock_acquire(&multi->lock);
    struct member *member = member_at_locked(multi, index);
    if (member && (!expected || member == expected)) {
        uint32_t weight = member->weight;
        uint32_t out = load_relaxed(&member->out); /* under the lock, as below */
        if (change.weight)
            member->weight = *change.weight;
        if (change.out)
            store_relaxed(&member->out, *change.out);
        roster = roster_copy_locked(multi, NULL, RP_MULTI_POOLS_MAX);
        rc = roster ? 0 : -ENOMEM;
        if (roster) {
            old = roster_publish_locked(multi, roster);
        } else {
            member->weight = weight;
            store_relaxed(&member->out, out);
        }
    }
    rp_lock_release(&multi->lock);
    if (!rc)
        roster_retire(multi, old);
    return rc;
}

int roster_set_weight(struct multi *multi, unsigned index, unsigned weight)
{
    return member_change(multi, index, NULL, (struct change){.weight = &weight});
}

int roster_set_out(struct multi *multi, struct member *member, bool out)
{
    return member_change(multi, member->index, member, (struct change){.out = &out});
}

/* --- holding ------------------------------------------------------------------------------------------------------ */

/* In a section the table's pools can be read; counted as a guest there, a pool stays until guest_leave. */
static struct member *next(struct multi *multi, unsigned *index, bool in)
{
    struct member *found = NULL;

    rcu_enter();
    const struct roster *roster = load_acquire(&multi->roster);
    for (; roster && *index < roster->slots && !found; ++*index) {
        found = roster->by_index[*index];
        if (found && in && load_relaxed(&found->out) && !roster->all_out) /* seen late: the table's successor is */
            found = NULL;
    }
    if (found)
        add_seq(&found->pool->guests, 1);
    rcu_exit();
    return found;
}

struct member *roster_next(struct multi *multi, unsigned *index)
{
    return next(multi, index, false);
}

struct member *roster_next_in(struct multi *multi, unsigned *index)
{
    return next(multi, index, true);
}

struct member *roster_hold(struct multi *multi, unsigned index)
{
    unsigned from = index;
    struct member *member = roster_next(multi, &from);

    if (!member || member->index == index)
        return member;
    guest_leave(member->pool);
    return NULL;
}
