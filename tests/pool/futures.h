/*
 * What the tests of futures share: functions for future tasks, a future made of one of them, and a pool that has not
 * begun what is queued.
 */
#ifndef TESTS_POOL_FUTURES_H
#define TESTS_POOL_FUTURES_H

#include "life.h"

#include <ringpool/future.h>

/* Small enough for hundreds of workers; a sanitizer wants more of a stack than that. */
#define SMALL_STACK (UNDER_TSAN || UNDER_ASAN ? 0 : 65536)

/* --- what they run ------------------------------------------------------------------------------------------------ */

static inline int answer(void *arg, void **value)
{
    *value = arg;
    return 42;
}

static inline int pass_gate(void *arg, void **value)
{
    (void)value;
    gate_pass(arg);
    return 0;
}

static inline int panic(void *arg, void **value)
{
    (void)value;
    rp_panic("as asked by %p", arg);
    return 0;
}

/* A continuation. */
static inline int plus_one(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    *next_value = value;
    return result + 1;
}

/* --- made --------------------------------------------------------------------------------------------------------- */

static inline void quiet(void *user, int level, const char *message)
{
    (void)user;
    (void)level;
    (void)message;
}

static inline struct rp_future *future_make(struct rp_pool *pool, int (*fn)(void *, void **), void *arg)
{
    struct rp_future *future = NULL;
    int rc = rp_pool_submit_future(pool, fn, arg, &future);

    cr_assert_eq(rc, 0, "submit: %s", rp_strerror(rc));
    return future;
}

/* A pool whose workers all stand at the gate, and have room behind them. */
static inline struct rp_pool *pool_shut(unsigned capacity, struct gate *gate)
{
    struct rp_pool *pool = pool_make(capacity, &(struct rp_pool_options){.queue_depth = 4096, .log = quiet});

    for (unsigned i = 0; i < capacity; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, gate), 0);
    AWAIT(load_seq(&gate->inside) == capacity);
    return pool;
}

#endif
