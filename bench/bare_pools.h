/*
 * The floor of a multi pool: bare rings with one thread each, which looks at its own for ever and gives up the CPU when
 * that is empty. A submitter puts its tasks into them in turn, passes over full ones, and gives up the CPU when all
 * are. No sleeping, no wake-ups, no ends.
 */
#ifndef RINGPOOL_BENCH_BARE_POOLS_H
#define RINGPOOL_BENCH_BARE_POOLS_H

#include <stdint.h>

struct bare_pools;

/* 0 or a negative errno. */
int bare_pools_create(struct bare_pools **out, unsigned rings, unsigned queue);
/* What was put is run before. */
void bare_pools_destroy(struct bare_pools *pools);
/* n tasks, one at a time, in turn from the ring of this number on. Any thread. */
void bare_pools_burst(struct bare_pools *pools, unsigned from, void (*fn)(void *arg), void *arg, uint64_t n);

#endif
