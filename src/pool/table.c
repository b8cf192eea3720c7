/*
 * The worker table: number -> descriptor. Scans (snapshot, worker list, the pop of the idle stack) read it under RCU
 * without a lock; it changes under the pool's lock. Chunks are added and stay where they are, so a reader needs no
 * copy; a descriptor is freed a grace period after it was taken out.
 */
#include "pool/table.h"

#include "base/alloc.h"

#include <ringpool/pool.h>

#include <errno.h>

static inline unsigned chunk_of(unsigned number)
{
    return 31 - (unsigned)__builtin_clz(number / TABLE_FIRST + 1);
}

static inline unsigned chunk_start(unsigned chunk)
{
    return TABLE_FIRST * ((1U << chunk) - 1);
}

static struct table_entry *entry_at(const struct table *table, unsigned number)
{
    unsigned chunk = chunk_of(number);
    struct table_entry *entries = load_acquire(&table->chunk[chunk]);

    return entries ? &entries[number - chunk_start(chunk)] : NULL;
}

struct worker *table_get(const struct table *table, unsigned number)
{
    const struct table_entry *entry = entry_at(table, number);

    return entry ? load_acquire(&entry->worker) : NULL; /* pairs with table_put */
}

int table_put(struct table *table, const struct rp_allocator *allocator, struct worker *worker, uint32_t *number)
{
    uint32_t n = table->free ? table->free - 1 : load_relaxed(&table->used); /* both only change under our lock */

    if (n >= RP_WORKERS_MAX)
        return -EAGAIN;
    struct table_entry *entry = entry_at(table, n);
    if (!entry) {
        unsigned chunk = chunk_of(n);
        struct table_entry *entries = alloc_zeroed(allocator, TABLE_FIRST << chunk, sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        store_release(&table->chunk[chunk], entries);
        entry = &entries[n - chunk_start(chunk)];
    }
    if (table->free)
        table->free = entry->next_free;
    else
        store_release(&table->used, n + 1);
    *number = n;
    store_release(&entry->worker, worker);
    return 0;
}

void table_take(struct table *table, unsigned number)
{
    struct table_entry *entry = entry_at(table, number);

    store_release(&entry->worker, NULL);
    entry->next_free = table->free;
    table->free = number + 1;
}

void table_destroy(struct table *table, const struct rp_allocator *allocator)
{
    for (unsigned chunk = 0; chunk < TABLE_CHUNKS; chunk++)
        alloc_free(allocator, load_relaxed(&table->chunk[chunk])); /* nobody else is left */
}
