/*
 * Strands: how they are made, released and destroyed, in any state.
 *
 * Each shard counts its keys and the calls inside of it; CLOSED is a bit of that count, so that entering and
 * closing exclude each other, and the one that brings it to CLOSED and 0 knows that the shard is over. The last shard
 * ends the strand. A destroy waits for that, or inside a task of the strand leaves the freeing to it.
 */
#include "pool/strand.h"

#include "base/alloc.h"
#include "base/futex.h"
#include "base/rcu.h"

#include <errno.h>
#include <limits.h>
#include <ringpool/multi.h>

#define BURST 16U

/* --- fork: no child finds a shard between two states ------------------------------------------------------------ */

static struct rp_lock registry_lock;
static struct rp_strand *registry;

static void before_fork(void)
{
    rp_lock_acquire(&registry_lock);
    for (struct rp_strand *strand = registry; strand; strand = strand->next)
        for (unsigned i = 0; i < SHARDS; i++)
            rp_lock_acquire(&strand->shard[i].lock);
}

static void after_fork(void)
{
    for (struct rp_strand *strand = registry; strand; strand = strand->next)
        for (unsigned i = 0; i < SHARDS; i++)
            rp_lock_release(&strand->shard[i].lock);
    rp_lock_release(&registry_lock);
}

static const struct fork_hooks hooks = {before_fork, after_fork, after_fork};

/* --- ending ----------------------------------------------------------------------------------------------------- */

static void strand_free(struct rp_strand *strand)
{
    struct rp_allocator allocator = strand->allocator;

    rp_lock_acquire(&registry_lock);
    *strand->link = strand->next;
    if (strand->next)
        strand->next->link = strand->link;
    rp_lock_release(&registry_lock);
    if (strand->reactor)
        timer_cancel_wait(&strand->orphan_timer);
    for (unsigned i = 0; i < SHARDS; i++)
        table_clear(&strand->shard[i]);
    reactor_put(strand->reactor);
    alloc_free_aligned(&allocator, strand);
}

/* A shard is over; with the last one the strand may be gone. */
static void shard_ended(struct rp_strand *strand)
{
    if (sub_seq(&strand->open_shards, 1) != 1)
        return;
    if (or_seq(&strand->end, ENDED) & DEFERRED)
        strand_free(strand);
    else
        futex_wake(&strand->end, INT_MAX);
}

int shard_enter(struct shard *shard)
{
    uint64_t holds = load_relaxed(&shard->holds); /* the CAS orders */

    do
        if (holds & HOLDS_CLOSED)
            return -ESHUTDOWN;
    while (!cas_acq_rel(&shard->holds, &holds, holds + 1));
    return 0;
}

void shard_leave(struct shard *shard)
{
    struct rp_strand *strand = shard->strand;

    if (sub_seq(&shard->holds, 1) == (HOLDS_CLOSED | 1))
        shard_ended(strand);
}

/* --- making, releasing, destroying ------------------------------------------------------------------------------ */

static int options_check(const struct rp_strand_options *options)
{
    for (size_t i = 0; i < sizeof(options->reserved) / sizeof(options->reserved[0]); i++)
        if (options->reserved[i])
            return -EINVAL;
    if ((unsigned)options->backend > RP_BACKEND_EPOLL || (unsigned)options->overload > RP_OVERLOAD_CALLER_RUNS ||
        (unsigned)options->release_policy > RP_RELEASE_DROP)
        return -EINVAL;
    return options->overload > RP_OVERLOAD_DISCARD_NEWEST ? -ENOTSUP : 0;
}

/* A shard that has not come to its turn has no memory: table_clear finds nothing there. */
static int shards_init(struct rp_strand *strand)
{
    int rc = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        strand->shard[i].strand = strand;
        strand->shard[i].allocator = &strand->allocator;
    }
    for (unsigned i = 0; i < SHARDS && !rc; i++)
        rc = table_init(&strand->shard[i]);
    return rc;
}

static void strand_register(struct rp_strand *strand)
{
    rp_lock_acquire(&registry_lock);
    strand->next = registry;
    strand->link = &registry;
    if (registry)
        registry->link = &strand->next;
    registry = strand;
    rp_lock_release(&registry_lock);
}

static int strand_init(struct rp_strand *strand, struct door door, const struct rp_strand_options *options)
{
    strand->door = door;
    strand->generation = fork_generation();
    strand->burst = options->burst ? options->burst : BURST;
    strand->max_queued = options->max_queued;
    strand->max_per_key = options->max_per_key;
    strand->overload = options->overload ? options->overload : RP_OVERLOAD_BLOCK;
    strand->release_policy = options->release_policy;
    store_relaxed(&strand->open_shards, SHARDS); /* nobody else knows it yet */
    strand_register(strand);
    int rc = shards_init(strand);
    if (!rc)
        rc = reactor_get(&strand->reactor, options->backend, false);
    if (!rc)
        timer_init(&strand->orphan_timer, strand->reactor, strand_orphans_fire);
    return rc;
}

static int strand_create(struct rp_strand **out, struct door door, const struct rp_strand_options *options)
{
    static const struct rp_strand_options none;
    struct rp_allocator allocator;

    if (!out)
        return -EINVAL;
    *out = NULL;
    options = options ? options : &none;
    int rc = door.pool || door.multi ? options_check(options) : -EINVAL;
    if (!rc)
        rc = alloc_init(&allocator, options->allocator);
    if (!rc)
        rc = rcu_attach();
    if (!rc)
        rc = fork_register(&hooks);
    if (rc)
        return rc;
    struct rp_strand *strand = alloc_aligned(&allocator, CACHE_APART, sizeof(*strand));
    if (!strand)
        return -ENOMEM;
    strand->allocator = allocator;
    rc = strand_init(strand, door, options);
    if (rc)
        strand_free(strand);
    else
        *out = strand;
    return rc;
}

int rp_strand_create(struct rp_strand **out, struct rp_pool *pool, const struct rp_strand_options *options)
{
    return strand_create(out, door_pool(pool), options);
}

int rp_multi_strand_create(struct rp_strand **out, struct rp_multi *multi, const struct rp_strand_options *options)
{
    return strand_create(out, door_multi(multi), options);
}

/* Counted as one shard more, so that the strand cannot end under it; nothing if it has ended. */
static void close_shards(struct rp_strand *strand)
{
    uint32_t open = load_seq(&strand->open_shards);

    do
        if (!open)
            return;
    while (!cas_seq(&strand->open_shards, &open, open + 1));
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &strand->shard[i];
        uint64_t before = or_seq(&shard->holds, HOLDS_CLOSED);
        rp_lock_acquire(&shard->lock);
        shard_changed(shard);
        rp_lock_release(&shard->lock);
        if (before == 0)
            shard_ended(strand);
    }
    add_seq(&strand->room, 1);
    futex_wake(&strand->room, INT_MAX);
    shard_ended(strand);
}

int rp_strand_release(struct rp_strand *strand)
{
    if (!strand)
        return -EINVAL;
    if (strand_is_foreign(strand))
        return -ECHILD;
    if (strand->release_policy == RP_RELEASE_DROP)
        store_seq(&strand->dropping, 1);
    close_shards(strand);
    return 0;
}

/* 0, or -ETIMEDOUT. */
static int end_wait(struct rp_strand *strand, int64_t deadline)
{
    bool task = rp_blocking_begin() != -EPERM;
    uint32_t end;
    int rc = 0;

    while (!((end = load_seq(&strand->end)) & ENDED) && rc != -ETIMEDOUT)
        rc = futex_wait(&strand->end, end, deadline);
    if (task)
        rp_blocking_end();
    return end & ENDED ? 0 : -ETIMEDOUT;
}

int rp_strand_release_until(struct rp_strand *strand, int64_t deadline)
{
    if (deadline < 0)
        return -EINVAL;
    int rc = rp_strand_release(strand);
    if (rc)
        return rc;
    return strand_inside(strand) ? -EDEADLK : end_wait(strand, deadline);
}

int rp_strand_snapshot(struct rp_strand *strand, struct rp_strand_snapshot *out)
{
    if (!strand || !out)
        return -EINVAL;
    if (strand_is_foreign(strand))
        return -ECHILD;
    *out = (struct rp_strand_snapshot){0};
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &strand->shard[i];
        rp_lock_acquire(&shard->lock);
        out->submitted += shard->submitted;
        out->completed += shard->ended[COMPLETED];
        out->dropped += shard->ended[DROPPED];
        out->panicked += shard->ended[PANICKED];
        out->queued += shard->queued;
        out->running += shard->running;
        out->keys += shard->keys;
        rp_lock_release(&shard->lock);
    }
    return 0;
}

int rp_strand_destroy(struct rp_strand *strand)
{
    if (!strand)
        return -EINVAL;
    if (strand_is_foreign(strand)) {
        strand_free(strand);
        return 0;
    }
    if (exchange_seq(&strand->doomed, 1))
        return -EALREADY;
    bool within = strand_inside(strand);
    rp_strand_release(strand);
    if (within) {
        if (or_seq(&strand->end, DEFERRED) & ENDED)
            strand_free(strand);
        return 0;
    }
    end_wait(strand, 0);
    strand_free(strand);
    return 0;
}
