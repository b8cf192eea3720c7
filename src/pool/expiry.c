/*
 * Expiry: the tick that ends workers which have been parked for longer than the expiry duration, the longest parked
 * first, and ages the cache of those that have ended. It is armed only while there is something that can expire: an
 * idle pool at its minimum has no timer, and wakes nobody.
 */
#include "pool/pool.h"

static bool can_expire(struct pool *pool)
{
    return !pool->no_purge && load_seq(&pool->alive) > pool->min_workers;
}

/* The flag spares a parking worker the reactor's lock: whoever clears it looks again. */
void tick_arm(struct pool *pool)
{
    if (load_seq(&pool->tick_armed) || !can_expire(pool))
        return;
    if (!exchange_seq(&pool->tick_armed, 1))
        timer_arm(&pool->tick, rp_after(pool->expiry_ns));
}

/* A descriptor came into the cache. */
void tick_arm_for_cache(struct pool *pool)
{
    if (!pool->no_purge && !load_seq(&pool->tick_armed) && !exchange_seq(&pool->tick_armed, 1))
        timer_arm(&pool->tick, rp_after(pool->expiry_ns));
}

static void tick_again(struct pool *pool, int64_t due)
{
    if (due) {
        timer_arm(&pool->tick, due);
        return;
    }
    store_seq(&pool->tick_armed, 0);
    /* Whoever parked before the line above left the arming to us. */
    if (idle_top(load_seq(&pool->idle.word)))
        tick_arm(pool);
    if (worker_cached(pool))
        tick_arm_for_cache(pool);
}

void tick_fire(struct timer *timer)
{
    struct pool *pool = caa_container_of(timer, struct pool, tick);
    int64_t now = rp_now();
    int64_t oldest = 0;
    uint32_t alive = load_seq(&pool->alive);

    worker_cache_age(pool);
    unsigned n = 0;
    if (can_expire(pool)) {
        n = idle_dismiss_expired(pool, alive - pool->min_workers, now - pool->expiry_ns, &oldest);
        if (n)
            log_emit(&pool->log, RP_LOG_DEBUG, "pool %s: %u idle workers told to expire", pool->name, n);
        if (load_seq(&pool->alive) - n <= pool->min_workers)
            oldest = 0; /* those that remain are the minimum */
    }
    int64_t due = oldest ? oldest + pool->expiry_ns : 0;
    if (n || worker_cached(pool)) /* the next turn of the generations */
        due = now + pool->expiry_ns;
    if (due && due < now + pool->expiry_ns / 16)
        due = now + pool->expiry_ns / 16 + 1; /* a park time a little out of order does not make us hurry */
    tick_again(pool, due);
}
