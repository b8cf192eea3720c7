/*
 * A multi pool's verbs that change it while it is open: tune and prewarm, whose totals are divided among the pools, add
 * and remove, weights and the strategy.
 */
#include "pool/multi.h"

#include <errno.h>
#include <limits.h>

/* --- capacity ----------------------------------------------------------------------------------------------------- */

/*
 * Divides: `least` for each and the rest by weight, cut where the running sum of the weights falls, so that the shares
 * add up exactly and equal weights differ by one at most. false: not enough for all.
 */
static bool divide(struct held *held, unsigned n, unsigned total, unsigned least)
{
    unsigned __int128 weights = 0, sum = 0;
    unsigned given = 0;

    if ((uint64_t)n * least > total)
        return false;
    unsigned rest = total - n * least;
    for (unsigned i = 0; i < n; i++)
        weights += held[i].weight;
    for (unsigned i = 0; i < n; i++) {
        sum += held[i].weight;
        unsigned until = (unsigned)(rest * sum / weights);
        held[i].share = least + (until - given);
        given = until;
    }
    return true;
}

static int divide_capacity(struct held *held, unsigned n, unsigned capacity)
{
    if (capacity == 0 || capacity == RP_UNLIMITED) {
        for (unsigned i = 0; i < n; i++)
            held[i].share = capacity;
        return 0;
    }
    if (!divide(held, n, capacity, 1))
        return -EINVAL;
    for (unsigned i = 0; i < n; i++)
        if (held[i].share > RP_WORKERS_MAX || held[i].share < held[i].member->pool->min_workers)
            return -EINVAL;
    return 0;
}

/* The total asked for becomes the latest. */
static uint64_t total_set(struct multi *multi, unsigned capacity)
{
    rp_lock_acquire(&multi->lock);
    uint64_t total = ((load_seq(&multi->total) >> 32) + 1) << 32 | capacity;
    store_seq(&multi->total, total);
    rp_lock_release(&multi->lock);
    return total;
}

/* Of tunes that race each goes on until the pools are as the latest has said, for it may have undone a part of that. */
static int tune_all(struct multi *multi, struct held *held, unsigned n, unsigned capacity)
{
    int rc = divide_capacity(held, n, capacity);
    uint64_t total = rc ? 0 : total_set(multi, capacity);

    while (!rc) {
        for (unsigned i = 0; i < n && !rc; i++)
            rc = pool_tune(held[i].member->pool, held[i].share, true); /* it may just be rebooted or removed */
        uint64_t latest = load_seq(&multi->total);
        if (latest == total || divide_capacity(held, n, (unsigned)latest))
            break;
        total = latest;
    }
    return rc;
}

typedef int all_verb(struct multi *multi, struct held *held, unsigned n, unsigned total);

/* Calls `verb` for the pools of the moment and a total. */
static int with_all(struct rp_multi *handle, all_verb *verb, unsigned total)
{
    struct multi *multi;
    struct held *held;
    unsigned n;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    rc = load_seq(&multi->state) & MULTI_CLOSED ? -ESHUTDOWN : multi_hold_all(multi, false, &held, &n, NULL);
    if (!rc) {
        rc = verb(multi, held, n, total);
        multi_held_leave(multi, held, n);
    }
    multi_guest_leave(multi);
    return rc;
}

int rp_multi_tune(struct rp_multi *handle, unsigned capacity)
{
    return with_all(handle, tune_all, capacity);
}

int rp_multi_tune_pool(struct rp_multi *handle, unsigned index, unsigned capacity)
{
    struct multi *multi;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    struct member *member = roster_hold(multi, index);
    rc = load_seq(&multi->state) & MULTI_CLOSED ? -ESHUTDOWN : member ? 0 : -ENOENT;
    if (!rc)
        rc = pool_tune(member->pool, capacity, true);
    if (member)
        guest_leave(member->pool);
    multi_guest_leave(multi);
    return rc;
}

static unsigned live(const struct held *held, unsigned n)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n; i++)
        sum += pool_running(held[i].member->pool);
    return sum < INT_MAX ? (unsigned)sum : INT_MAX;
}

static int prewarm(struct multi *multi, struct held *held, unsigned n, unsigned workers)
{
    (void)multi;
    unsigned before = live(held, n);
    int error = 0;

    divide(held, n, workers, 0);
    for (unsigned i = 0; i < n; i++) {
        int rc = rp_pool_prewarm(pool_handle(held[i].member->pool), held[i].share);
        if (rc < 0 && rc != -ESHUTDOWN) /* it is just rebooted or removed */
            error = rc;
    }
    unsigned after = live(held, n);
    return error && after <= before ? error : (int)after;
}

int rp_multi_prewarm(struct rp_multi *handle, unsigned workers)
{
    return with_all(handle, prewarm, workers);
}

/* --- one pool, and which of them is chosen ------------------------------------------------------------------------ */

int rp_multi_add(struct rp_multi *handle, unsigned capacity)
{
    struct multi *multi;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    rc = load_seq(&multi->state) & MULTI_CLOSED ? -ESHUTDOWN : roster_add(multi, capacity, 1);
    if (rc >= 0)
        log_emit(&multi->log, RP_LOG_INFO, "multi pool %s: pool %d added", multi->name, rc);
    multi_guest_leave(multi);
    return rc;
}

int rp_multi_remove(struct rp_multi *handle, unsigned index)
{
    struct multi *multi;
    struct member *member;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    rc = roster_take(multi, index, &member);
    if (!rc) {
        log_emit(&multi->log, RP_LOG_INFO, "multi pool %s: pool %u removed", multi->name, index);
        pool_end(member->pool, false);
    }
    multi_guest_leave(multi);
    return rc;
}

int rp_multi_set_weight(struct rp_multi *handle, unsigned index, unsigned weight)
{
    struct multi *multi;
    int rc = weight ? multi_guest_enter(handle, &multi) : -EINVAL;

    if (rc)
        return rc;
    rc = roster_set_weight(multi, index, weight);
    multi_guest_leave(multi);
    return rc;
}

int multi_check_strategy(const struct rp_multi_options *options, enum rp_strategy strategy)
{
    return (unsigned)strategy > RP_CUSTOM || (strategy == RP_CUSTOM && !options->choose) ? -EINVAL : 0;
}

int rp_multi_set_strategy(struct rp_multi *handle, enum rp_strategy strategy)
{
    struct multi *multi;
    int rc = multi_guest_enter(handle, &multi);

    if (rc)
        return rc;
    rc = multi_check_strategy(&multi->options, strategy);
    if (!rc)
        store_seq(&multi->strategy, strategy);
    multi_guest_leave(multi);
    return rc;
}

int rp_multi_strategy(const struct rp_multi *handle, bool effective)
{
    struct multi *multi;
    int rc = multi_enter(handle, &multi);

    if (rc)
        return rc;
    rc = load_relaxed(&multi->forked) ? -ECHILD : (int)load_seq(&multi->strategy); /* constant in this process */
    if (rc == RP_AUTO && effective)
        rc = load_seq(&multi->leaning) ? RP_LEAST_TASKS : RP_ROUND_ROBIN;
    handle_exit();
    return rc;
}
