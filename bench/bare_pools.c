/* See bare_pools.h. */
#include "bare_pools.h"

#include <pthread.h>
#include <sched.h>

#include "bare_ring.h"

struct bare_pool {
    struct bare_ring ring;
    pthread_t thread;
    const atomic_bool *closed;
};

struct bare_pools {
    unsigned rings;
    atomic_bool closed;
    struct bare_pool *each;
};

static void *run(void *arg)
{
    struct bare_pool *pool = arg;
    struct bare_cell task;

    for (;;) {
        if (bare_look(&pool->ring, &task))
            task.fn(task.arg);
        else if (atomic_load_explicit(pool->closed, memory_order_acquire))
            return NULL;
        else
            sched_yield();
    }
}

int bare_pools_create(struct bare_pools **out, unsigned rings, unsigned queue)
{
    struct bare_pools *pools = calloc(1, sizeof(*pools));
    int rc = pools ? 0 : -ENOMEM;

    if (!rc && !(pools->each = aligned_alloc(BARE_LINE, rings * sizeof(*pools->each))))
        rc = -ENOMEM;
    while (!rc && pools->rings < rings) {
        struct bare_pool *pool = &pools->each[pools->rings];
        pool->closed = &pools->closed;
        rc = bare_ring_init(&pool->ring, queue);
        if (!rc && (rc = -pthread_create(&pool->thread, NULL, run, pool)))
            bare_ring_fini(&pool->ring);
        pools->rings += !rc;
    }
    if (rc && pools)
        bare_pools_destroy(pools);
    *out = rc ? NULL : pools;
    return rc;
}

void bare_pools_destroy(struct bare_pools *pools)
{
    atomic_store_explicit(&pools->closed, true, memory_order_release);
    for (unsigned i = 0; i < pools->rings; i++) {
        pthread_join(pools->each[i].thread, NULL);
        bare_ring_fini(&pools->each[i].ring);
    }
    free(pools->each);
    free(pools);
}

void bare_pools_burst(struct bare_pools *pools, unsigned from, void (*fn)(void *arg), void *arg, uint64_t n)
{
    unsigned at = from % pools->rings, full = 0;
    uint64_t position;

    while (n) {
        if (bare_claim(&pools->each[at].ring, 1, &position)) {
            bare_fill(&pools->each[at].ring, position, fn, arg, memory_order_release);
            full = 0;
            n--;
        } else if (++full == pools->rings) {
            sched_yield();
            full = 0;
        }
        at = at + 1 == pools->rings ? 0 : at + 1;
    }
}
