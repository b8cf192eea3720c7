/*
 * A bounded ring (D. Vyukov's, of 1024cores.net) and nothing else: of such are the floors made that benchmarks show
 * beside pools. Any thread may put and take; nothing here waits.
 */
#ifndef RINGPOOL_BENCH_BARE_RING_H
#define RINGPOOL_BENCH_BARE_RING_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define BARE_LINE 128
#define BARE_LOOKS 64

struct bare_cell {
    _Atomic uint64_t sequence;
    void (*fn)(void *arg);
    void *arg;
    uint64_t unused;
};

struct bare_ring {
    struct bare_cell *cells;
    uint64_t mask;
    _Alignas(BARE_LINE) _Atomic uint64_t tail;
    _Alignas(BARE_LINE) _Atomic uint64_t head;
};

static inline void bare_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* For at least so many. 0 or -ENOMEM. */
static inline int bare_ring_init(struct bare_ring *ring, unsigned least)
{
    uint64_t size = 2;

    while (size < least)
        size *= 2;
    atomic_init(&ring->tail, 0);
    atomic_init(&ring->head, 0);
    ring->mask = size - 1;
    ring->cells = calloc(size, sizeof(*ring->cells));
    for (uint64_t i = 0; ring->cells && i < size; i++)
        atomic_init(&ring->cells[i].sequence, i);
    return ring->cells ? 0 : -ENOMEM;
}

static inline void bare_ring_fini(struct bare_ring *ring)
{
    free(ring->cells);
}

/* How far a cell is from being what the caller at this position waits for: 0: it is that; below: not yet. */
static inline int64_t bare_ahead(struct bare_cell *cell, uint64_t position)
{
    return (int64_t)(atomic_load_explicit(&cell->sequence, memory_order_acquire) - position);
}

static inline bool bare_take(struct bare_ring *ring, struct bare_cell *out)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    for (;;) {
        struct bare_cell *cell = &ring->cells[head & ring->mask];
        int64_t ahead = bare_ahead(cell, head + 1);

        if (ahead < 0)
            return false;
        if (ahead == 0 && atomic_compare_exchange_weak_explicit(&ring->head, &head, head + 1, memory_order_relaxed,
                                                                memory_order_relaxed)) {
            out->fn = cell->fn;
            out->arg = cell->arg;
            atomic_store_explicit(&cell->sequence, head + ring->mask + 1, memory_order_release);
            return true;
        }
        if (ahead > 0)
            head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    }
}

/* Takes one, with some looks for it: the caller then gives up the CPU. */
static inline bool bare_look(struct bare_ring *ring, struct bare_cell *out)
{
    for (int i = 0; i < BARE_LOOKS; i++) {
        if (bare_take(ring, out))
            return true;
        bare_pause();
    }
    return false;
}

/*
 * Claims n positions: the first of them, or false. It asks for the last one's cell alone, so one before it may still be
 * with whoever took from it: bare_fill waits for that.
 */
static inline bool bare_claim(struct bare_ring *ring, unsigned n, uint64_t *first)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

    for (;;) {
        int64_t ahead = bare_ahead(&ring->cells[(tail + n - 1) & ring->mask], tail + n - 1);

        if (ahead < 0)
            return false;
        if (ahead == 0 && atomic_compare_exchange_weak_explicit(&ring->tail, &tail, tail + n, memory_order_relaxed,
                                                                memory_order_relaxed)) {
            *first = tail;
            return true;
        }
        if (ahead > 0)
            tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    }
}

/* Publishes a task at a claimed position, in the given order to what the caller does next. */
static inline void bare_fill(struct bare_ring *ring, uint64_t position, void (*fn)(void *arg), void *arg,
                             memory_order order)
{
    struct bare_cell *cell = &ring->cells[position & ring->mask];

    while (bare_ahead(cell, position))
        bare_pause();
    cell->fn = fn;
    cell->arg = arg;
    atomic_store_explicit(&cell->sequence, position + 1, order);
}

#endif
