/*
 * The table of the keys that have tasks, in shards with a lock each; see strand.c for a key's life.
 */
#ifndef POOL_KEYS_H
#define POOL_KEYS_H

#include "base/atomic.h"

#include <ringpool/base.h>
#include <ringpool/lock.h>

#include <stdalign.h>

struct rp_cq;

#define SHARD_BITS 5
#define SHARDS (1U << SHARD_BITS)
#define SPARES_MOST 64U
#define BUCKETS_LEAST 8U
#define SEGMENTS 28 /* of buckets: 8, 8, 16, 32 ...; keys beyond only make the chains longer */

enum { OPENING, OPEN, DROPPING, DONE };       /* key.state */
enum { COMPLETED, DROPPED, PANICKED, FATES }; /* of a task */

struct item {
    struct item *next;
    void (*fn)(void *arg);
    void *arg;
    void (*dropped)(void *arg, int reason);
    const char *label;
    int64_t deadline;
    struct rp_cq *cq; /* reserved in it; NULL: none */
    union {
        uint64_t user_data; /* for cq */
        int64_t timeout;    /* of a job, which has its completion itself; 0: none */
    };
};

struct key {
    struct key *next; /* in the bucket */
    uint64_t value;
    struct item *first, **end; /* queued, oldest first */
    struct shard *shard;
    struct key *orphan; /* the next one, in the list of orphans */
    unsigned queued;
    uint16_t pins; /* openers that have not returned from the pool */
    uint8_t state;
    uint8_t priority;
    uint32_t epoch; /* openings so far: an opener resolves his own only */
    int reason;     /* DROPPING: why the pool dropped the runner */
};

union block {
    struct item item;
    struct key key;
    union block *next;
};
_Static_assert(sizeof(union block) == 64, "a key, or a task, is one cache line");

/* A part of the table and of the strand. Under `lock` all but holds, changed and what is constant. */
struct shard {
    alignas(CACHE_APART) struct rp_lock lock;
    _Atomic uint32_t changed;             /* futex: an OPENING was resolved, or a key has room, while `waiting` */
    _Atomic uint64_t holds;               /* keys, calls inside; HOLDS_CLOSED */
    struct rp_strand *strand;             /* constant */
    const struct rp_allocator *allocator; /* constant */
    unsigned waiting;                     /* for `changed` */
    unsigned spares, running, keys;
    union block *spare;
    unsigned buckets; /* in use */
    struct key **segment[SEGMENTS];
    uint64_t queued, submitted, ended[FATES];
};

/* The shard of a key. */
unsigned shard_number(uint64_t key);

/* An empty table. 0 or -ENOMEM; table_clear either way. */
int table_init(struct shard *shard);
/* Gives all memory back, in a forked child keys and tasks too. */
void table_clear(struct shard *shard);

/* All of these under the shard's lock. A block is not zeroed; NULL: no memory. */
union block *block_get(struct shard *shard);
void block_put(struct shard *shard, void *p);
/* The link that points to the key, or to NULL. */
struct key **table_find(struct shard *shard, uint64_t value);
/* A new key, DONE and without tasks; NULL: no memory. */
struct key *table_add(struct shard *shard, uint64_t value);
void table_remove(struct shard *shard, struct key *key);

#endif
