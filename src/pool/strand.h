/*
 * A strand from inside: strand.c is the way of a task, strand_life.c making and ending.
 */
#ifndef POOL_STRAND_H
#define POOL_STRAND_H

#include "base/fork.h"
#include "pool/door.h"
#include "pool/keys.h"
#include "ring/reactor.h"

#include <ringpool/strand.h>

#define HOLDS_CLOSED (UINT64_C(1) << 63)

struct rp_strand {
    struct shard shard[SHARDS];

    alignas(CACHE_APART) _Atomic uint64_t queued; /* all shards', where max_queued counts them */
    _Atomic uint32_t room;                        /* futex: one of them has started, while `blocked` */
    _Atomic uint32_t blocked;                     /* submitters that wait for `room` */

    alignas(CACHE_APART) struct door door; /* constant from here */
    unsigned burst, max_queued, max_per_key, generation;
    int overload, release_policy;
    struct rp_allocator allocator;
    struct reactor *reactor;
    struct rp_strand *next, **link; /* under registry_lock */

    _Atomic uint32_t open_shards; /* not over */
    _Atomic uint32_t end;         /* futex: ENDED, DEFERRED */
    _Atomic uint32_t dropping;    /* released, and the policy is to drop */
    _Atomic uint32_t doomed;      /* destroy has been called */
    struct rp_lock orphan_lock;
    struct key *orphans; /* under orphan_lock: runners that the timer submits again */
    struct timer orphan_timer;
};

enum { ENDED = 1, DEFERRED = 2 }; /* rp_strand.end */

static inline bool strand_is_foreign(const struct rp_strand *strand)
{
    return strand->generation != fork_generation();
}

/* Whether the caller runs a task of the strand. */
bool strand_inside(const struct rp_strand *strand);
/* Submits orphaned runners again, on the reactor. */
void strand_orphans_fire(struct timer *timer);
/* Tells those that wait for a key of the shard. Under its lock. */
void shard_changed(struct shard *shard);

/* A hold on the shard: 0, or -ESHUTDOWN. */
int shard_enter(struct shard *shard);
/* Gives back a hold, a call's or a key's. The strand may be gone after it. */
void shard_leave(struct shard *shard);

#endif
