/*
 * The worker table: number -> descriptor, read under RCU, changed under the pool's lock. See table.c.
 */
#ifndef POOL_TABLE_H
#define POOL_TABLE_H

#include "base/atomic.h"

#include <ringpool/base.h>

struct worker;

/* Chunk k holds 64 << k entries, so that the table grows without moving; 15 of them exceed RP_WORKERS_MAX. */
#define TABLE_CHUNKS 15
#define TABLE_FIRST 64U

struct table_entry {
    _Atomic(struct worker *) worker; /* published with release */
    uint32_t next_free;              /* under the lock: number + 1 of the next free entry */
};

struct table {
    _Atomic(struct table_entry *) chunk[TABLE_CHUNKS]; /* published with release */
    _Atomic uint32_t used;                             /* numbers below were given out once */
    uint32_t free;                                     /* under the lock: number + 1 of a free entry, 0: none */
};

/* The descriptor under a number, or NULL. In an RCU section, or on what cannot leave meanwhile. */
struct worker *table_get(const struct table *table, unsigned number);

/*
 * Gives the worker a number, the one freed last first. *number is set before readers can find the worker. 0, -ENOMEM,
 * or -EAGAIN: RP_WORKERS_MAX.
 */
int table_put(struct table *table, const struct rp_allocator *allocator, struct worker *worker, uint32_t *number);

/* Takes it out. Readers that found it may hold it until a grace period has passed. */
void table_take(struct table *table, unsigned number);
void table_destroy(struct table *table, const struct rp_allocator *allocator);

#endif
