/*
 * The table of keys.
 *
 * Linear hashing (W. Litwin, "Linear Hashing", VLDB 1980): the table grows and shrinks by one bucket at a time, so that
 * no submit pays for a million keys. Rejected: doubling tables (a pause under the lock), liburcu's hash (it resizes on
 * a thread of its own, which must be had, and aborts the process without memory; readers without a lock are of no use
 * here, since every access changes the key). Shards are chosen by the upper bits of the hash, buckets by the lower.
 * Blocks for keys and tasks are of one size, and each shard keeps some that are free.
 */
#include "pool/keys.h"

#include "base/alloc.h"

#include <errno.h>

/* --- blocks ----------------------------------------------------------------------------------------------------- */

union block *block_get(struct shard *shard)
{
    union block *block = shard->spare;

    if (!block)
        return alloc_zeroed(shard->allocator, 1, sizeof(*block));
    shard->spare = block->next;
    shard->spares--;
    return block;
}

void block_put(struct shard *shard, void *p)
{
    union block *block = p;

    if (shard->spares >= SPARES_MOST) {
        alloc_free(shard->allocator, block);
        return;
    }
    block->next = shard->spare;
    shard->spare = block;
    shard->spares++;
}

/* --- the table -------------------------------------------------------------------------------------------------- */

/* The finalizer of MurmurHash3 (A. Appleby): keys are often counters or addresses. */
static uint64_t hash_of(uint64_t key)
{
    key = (key ^ key >> 33) * UINT64_C(0xff51afd7ed558ccd);
    key = (key ^ key >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return key ^ key >> 33;
}

unsigned shard_number(uint64_t key)
{
    return (unsigned)(hash_of(key) >> (64 - SHARD_BITS));
}

static unsigned highest_power(unsigned n)
{
    return 1U << (31 - __builtin_clz(n));
}

/* Segment 0 holds the first 8 buckets, segment s from 8 << (s - 1) on as many again. */
static unsigned segment_of(unsigned bucket)
{
    return bucket < BUCKETS_LEAST ? 0 : 32U - 3 - (unsigned)__builtin_clz(bucket);
}

static struct key **bucket_at(struct shard *shard, unsigned bucket)
{
    unsigned s = segment_of(bucket);

    return &shard->segment[s][s ? bucket - (BUCKETS_LEAST << (s - 1)) : bucket];
}

/* The bucket of a hash while n are in use: those that were split this round take one bit more. */
static unsigned bucket_of(uint64_t hash, unsigned n)
{
    unsigned power = highest_power(n);
    unsigned bucket = (unsigned)hash & (2 * power - 1);

    return bucket < n ? bucket : bucket & (power - 1);
}

/* Splits one bucket. Without memory the chains stay longer for a while. */
static void table_grow(struct shard *shard)
{
    unsigned new = shard->buckets, s = segment_of(new);

    if (s >= SEGMENTS)
        return;
    if (!shard->segment[s])
        shard->segment[s] = alloc_zeroed(shard->allocator, new, sizeof(struct key *)); /* as many again */
    if (!shard->segment[s])
        return;
    shard->buckets++;
    struct key **link = bucket_at(shard, new - highest_power(new)), **to = bucket_at(shard, new);
    while (*link) {
        struct key *key = *link;
        if (bucket_of(hash_of(key->value), shard->buckets) != new) {
            link = &key->next;
            continue;
        }
        *link = key->next;
        key->next = *to;
        *to = key;
    }
}

/* Joins the last bucket with the one that it was split from. */
static void table_shrink(struct shard *shard)
{
    unsigned last = --shard->buckets;
    struct key **from = bucket_at(shard, last), **to = bucket_at(shard, last - highest_power(last));

    while (*to)
        to = &(*to)->next;
    *to = *from;
    *from = NULL;
    if (last == highest_power(last)) { /* the first of its segment */
        alloc_free(shard->allocator, shard->segment[segment_of(last)]);
        shard->segment[segment_of(last)] = NULL;
    }
}

struct key **table_find(struct shard *shard, uint64_t value)
{
    struct key **link = bucket_at(shard, bucket_of(hash_of(value), shard->buckets));

    while (*link && (*link)->value != value)
        link = &(*link)->next;
    return link;
}

struct key *table_add(struct shard *shard, uint64_t value)
{
    struct key *key = (struct key *)block_get(shard);

    if (!key)
        return NULL;
    if (++shard->keys > shard->buckets)
        table_grow(shard);
    struct key **bucket = bucket_at(shard, bucket_of(hash_of(value), shard->buckets));
    *key = (struct key){.next = *bucket, .value = value, .shard = shard, .state = DONE};
    key->end = &key->first;
    *bucket = key;
    return key;
}

void table_remove(struct shard *shard, struct key *key)
{
    struct key **link = table_find(shard, key->value);

    *link = key->next;
    block_put(shard, key);
    shard->keys--;
    for (int i = 0; i < 4 && shard->buckets > BUCKETS_LEAST && shard->keys < shard->buckets / 4; i++)
        table_shrink(shard);
}

/* --- beginning and end ------------------------------------------------------------------------------------------ */

int table_init(struct shard *shard)
{
    shard->buckets = BUCKETS_LEAST;
    shard->segment[0] = alloc_zeroed(shard->allocator, BUCKETS_LEAST, sizeof(struct key *));
    return shard->segment[0] ? 0 : -ENOMEM;
}

static void key_free(struct shard *shard, struct key *key)
{
    for (struct item *item; (item = key->first);) {
        key->first = item->next;
        alloc_free(shard->allocator, item);
    }
    alloc_free(shard->allocator, key);
}

void table_clear(struct shard *shard)
{
    for (unsigned i = 0; shard->segment[0] && i < shard->buckets; i++)
        for (struct key *key; (key = *bucket_at(shard, i));) {
            *bucket_at(shard, i) = key->next;
            key_free(shard, key);
        }
    while (shard->spare) {
        union block *block = shard->spare;
        shard->spare = block->next;
        alloc_free(shard->allocator, block);
    }
    for (unsigned s = 0; s < SEGMENTS; s++)
        alloc_free(shard->allocator, shard->segment[s]);
}
