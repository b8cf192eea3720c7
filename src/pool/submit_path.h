/*
 * The short way of a submit, once the pool is entered: claim, publish, look whether to wake somebody. Inline, for
 * submit.c and for the multi pool's route.c: on this way the task stays in registers (see runq_path.h).
 */
#ifndef POOL_SUBMIT_PATH_H
#define POOL_SUBMIT_PATH_H

#include "base/cpu.h"
#include "pool/pool.h"
#include "pool/runq_path.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* P3 of idle.h, where there is something to do. */
void call_and_exit(struct pool *pool);

/* P2, P3 of idle.h. In the section that pool_enter opened, which it ends. */
static inline __attribute__((always_inline)) void wake_and_exit(struct pool *pool)
{
    if (idle_must_wake(pool))
        call_and_exit(pool);
    else
        pool_exit();
}

/* Up to n positions at once: how many; or 0, a negative errno: not so. */
static inline __attribute__((always_inline)) int claim_now(struct pool *pool, unsigned class, unsigned n,
                                                           uint64_t *first)
{
    if (unlikely(!load_relaxed(&pool->alive))) /* a hint */
        return 0;
    if (likely(class == CLASS_NORMAL))
        return runq_claim_normal(&pool->runq, n, true, first);
    return load_relaxed(&pool->runq.rings[class]) /* a hint */
               ? runq_claim(&pool->runq, class, n, true, first)
               : 0;
}

/* false: the long way, and the section goes on. Else the task is published, and the section has ended. */
static inline __attribute__((always_inline)) bool submit_fast(struct pool *pool, const struct entry *entry,
                                                              unsigned class)
{
    uint64_t position;

    if (unlikely(claim_now(pool, class, 1, &position) != 1))
        return false;
    ring_publish(load_acquire(&pool->runq.rings[class]), position, entry, true);
    wake_and_exit(pool);
    return true;
}

static inline __attribute__((always_inline)) void plain_entry(struct entry *entry, void (*fn)(void *arg), void *arg)
{
    entry->fn = fn;
    entry->arg = arg;
    entry->dropped = NULL;
    entry->label = NULL;
    entry->deadline = entry->timeout = 0;
    entry->cpu = cpu_current();
    entry->plain = 1;
}

#endif
