/*
 * A multi pool's gauges: those of its pools added up, and each pool's own.
 */
#include "pool/multi.h"

#include <errno.h>
#include <string.h>

static void sum_add(uint64_t *sum, unsigned value)
{
    *sum = value == RP_UNLIMITED || *sum + value > RP_UNLIMITED ? RP_UNLIMITED : *sum + value;
}

/* In a section, or under the lock. */
static uint64_t sum_members(const struct multi *multi, unsigned (*gauge)(const struct pool *pool))
{
    const struct roster *roster = load_acquire(&multi->roster);
    uint64_t sum = 0;

    for (unsigned i = 0; roster && i < roster->slots; i++)
        if (roster->by_index[i])
            sum_add(&sum, gauge(roster->by_index[i]->pool));
    return sum;
}

/* Under the lock no pool moves from the table to the removed ones, and none of these ends. */
static uint64_t sum_with_draining(struct multi *multi, unsigned (*gauge)(const struct pool *pool))
{
    struct cds_list_head *node;

    rp_lock_acquire(&multi->lock);
    uint64_t sum = sum_members(multi, gauge);
    cds_list_for_each(node, &multi->draining) sum_add(&sum, gauge(caa_container_of(node, struct member, drain)->pool));
    rp_lock_release(&multi->lock);
    return sum;
}

/* Without a lock, unless there are removed pools to be looked at as well. */
static unsigned sum_of(const struct rp_multi *handle, unsigned (*gauge)(const struct pool *pool), bool draining)
{
    struct multi *multi;
    uint64_t sum = 0;

    if (multi_enter(handle, &multi))
        return 0;
    bool forked = load_relaxed(&multi->forked); /* constant in this process */
    bool locked = draining && load_seq(&multi->unfinished);
    if (!forked && !locked)
        sum = sum_members(multi, gauge);
    handle_exit();
    if (!forked && locked && multi_guest_enter(handle, &multi) == 0) {
        sum = sum_with_draining(multi, gauge);
        multi_guest_leave(multi);
    }
    return (unsigned)sum;
}

/* Submitters that wait for any pool. */
static unsigned blocked(const struct rp_multi *handle)
{
    struct multi *multi;

    if (multi_enter(handle, &multi))
        return 0;
    unsigned waiting =
        load_relaxed(&multi->forked) ? 0 : load_seq(&multi->lobby.waiting); /* constant in this process */
    handle_exit();
    return waiting;
}

unsigned rp_multi_running(const struct rp_multi *multi)
{
    return sum_of(multi, pool_running, true);
}

unsigned rp_multi_busy(const struct rp_multi *multi)
{
    return sum_of(multi, pool_busy, true);
}

unsigned rp_multi_free(const struct rp_multi *multi)
{
    return sum_of(multi, pool_free_workers, false);
}

unsigned rp_multi_waiting(const struct rp_multi *multi)
{
    uint64_t sum = sum_of(multi, pool_waiting, true);

    sum_add(&sum, blocked(multi));
    return (unsigned)sum;
}

unsigned rp_multi_cap(const struct rp_multi *multi)
{
    return sum_of(multi, pool_cap, false);
}

bool rp_multi_is_closed(const struct rp_multi *handle)
{
    struct multi *multi;

    if (multi_enter(handle, &multi))
        return true;
    bool closed = load_relaxed(&multi->forked) || load_seq(&multi->state) & MULTI_CLOSED; /* forked: constant here */
    handle_exit();
    return closed;
}

static void snapshot_add(struct rp_pool_snapshot *sum, const struct pool *pool)
{
    struct rp_pool_snapshot one;

    pool_snapshot(pool, &one);
    sum->running += one.running;
    sum->busy += one.busy;
    sum->idle += one.idle;
    sum->waiting += one.waiting;
    sum->blocked += one.blocked;
    sum->submitted += one.submitted;
    sum->completed += one.completed;
    sum->dropped += one.dropped;
    sum->rejected += one.rejected;
    sum->panicked += one.panicked;
    sum->spawned += one.spawned;
    sum->expired += one.expired;
}

int rp_multi_snapshot(const struct rp_multi *handle, struct rp_pool_snapshot *out)
{
    struct multi *multi;
    struct cds_list_head *node;

    if (!out)
        return -EINVAL;
    *out = (struct rp_pool_snapshot){.closed = true};
    int rc = multi_guest_enter(handle, &multi);
    if (rc)
        return rc;
    rp_lock_acquire(&multi->lock);
    const struct roster *roster = load_relaxed(&multi->roster); /* under the lock */
    *out = multi->retired;
    for (unsigned i = 0; roster && i < roster->slots; i++)
        if (roster->by_index[i])
            snapshot_add(out, roster->by_index[i]->pool);
    cds_list_for_each(node, &multi->draining) snapshot_add(out, caa_container_of(node, struct member, drain)->pool);
    out->capacity = (unsigned)sum_members(multi, pool_cap);
    out->rejected += load_seq(&multi->rejected);
    unsigned waiting = load_seq(&multi->lobby.waiting);
    out->blocked += waiting;
    out->waiting += waiting;
    out->closed = load_seq(&multi->state) & MULTI_CLOSED;
    rp_lock_release(&multi->lock);
    multi_guest_leave(multi);
    return 0;
}

static void info_fill(const struct member *member, unsigned weight, struct rp_multi_info *info)
{
    const struct pool *pool = member->pool;

    *info = (struct rp_multi_info){
        .index = member->index,
        .weight = weight,
        .capacity = pool_cap(pool),
        .running = pool_running(pool),
        .busy = pool_busy(pool),
        .waiting = pool_waiting(pool),
        .closed = runq_closed(&pool->runq),
        .spare = load_relaxed(&member->spare), /* a report's figure */
        .out = load_relaxed(&member->out),     /* likewise */
    };
}

int rp_multi_pools(const struct rp_multi *handle, struct rp_multi_info *out, unsigned n)
{
    struct multi *multi;
    unsigned found = 0;

    if (n && !out)
        return -EINVAL;
    int rc = multi_guest_enter(handle, &multi);
    if (rc)
        return rc;
    rp_lock_acquire(&multi->lock);
    const struct roster *roster = load_relaxed(&multi->roster); /* under the lock */
    for (unsigned i = 0; roster && i < roster->slots; i++) {
        const struct member *member = roster->by_index[i];
        if (!member)
            continue;
        if (found < n)
            info_fill(member, member->weight, &out[found]);
        found++;
    }
    rp_lock_release(&multi->lock);
    multi_guest_leave(multi);
    return (int)found;
}

struct rp_pool *rp_multi_pool(struct rp_multi *handle, unsigned index)
{
    struct rp_pool *pool = NULL;
    struct multi *multi;

    if (multi_enter(handle, &multi))
        return NULL;
    const struct roster *roster = load_acquire(&multi->roster);
    if (roster && index < roster->slots && roster->by_index[index])
        pool = pool_handle(roster->by_index[index]->pool);
    handle_exit();
    return pool;
}
