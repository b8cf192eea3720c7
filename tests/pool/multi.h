/*
 * What the tests of the multi pool share. Tasks that are held by a gate make every strategy's choice countable: where
 * nothing ends, a pool's busy count is the number of tasks that it was given.
 */
#ifndef TESTS_POOL_MULTI_H
#define TESTS_POOL_MULTI_H

#include "life.h"

#include <ringpool/multi.h>

static inline struct rp_multi *multi_make(unsigned pools, unsigned capacity, enum rp_strategy strategy,
                                          const struct rp_multi_options *options)
{
    struct rp_multi *multi = NULL;
    int rc = rp_multi_create(&multi, pools, capacity, strategy, options);

    cr_assert_eq(rc, 0, "create: %s", rp_strerror(rc));
    cr_assert_not_null(multi);
    return multi;
}

static inline void multi_end(struct rp_multi *multi)
{
    cr_assert_eq(rp_multi_release_until(multi, rp_after(PATIENCE), NULL), 0, "tasks or workers do not end");
    cr_assert_eq(rp_multi_destroy(multi), 0);
}

static inline int submit_counted(struct rp_pool *multi, void *ran)
{
    return rp_multi_submit((struct rp_multi *)(void *)multi, count_task, ran);
}

static inline struct rp_pool_snapshot multi_look(const struct rp_multi *multi)
{
    struct rp_pool_snapshot seen;

    cr_assert_eq(rp_multi_snapshot(multi, &seen), 0);
    return seen;
}

static inline bool adds_up(const struct rp_pool_snapshot *s)
{
    return s->busy + s->idle == s->running &&
           s->submitted == s->completed + s->dropped + s->panicked + s->busy + s->waiting - s->blocked;
}

/* Tasks that pool `index` has in flight: those it was given, while a gate holds them all. */
static inline unsigned given(struct rp_multi *multi, unsigned index)
{
    struct rp_pool *pool = rp_multi_pool(multi, index);

    cr_assert_not_null(pool, "there is no pool %u", index);
    struct rp_pool_snapshot seen = pool_look(pool); /* of one moment: no task that begins is missed */
    return seen.busy + seen.waiting;
}

static inline void hold(struct rp_multi *multi, struct gate *gate, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(rp_multi_submit(multi, gate_pass, gate), 0);
}

/* Holds n workers of one pool, past the strategy. */
/* What the pool given most got more than the one given least. */
static inline unsigned spread(struct rp_multi *multi, unsigned pools)
{
    unsigned most = 0, least = UINT_MAX;

    for (unsigned i = 0; i < pools; i++) {
        unsigned n = given(multi, i);
        most = n > most ? n : most;
        least = n < least ? n : least;
    }
    return most - least;
}

static inline void hold_pool(struct rp_multi *multi, unsigned index, struct gate *gate, unsigned n)
{
    uint32_t before = load_seq(&gate->inside);

    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, index), gate_pass, gate), 0);
    AWAIT(load_seq(&gate->inside) == before + n);
}

static inline void open_and_end(struct rp_multi *multi, struct gate *gate)
{
    gate_open(gate);
    multi_end(multi);
}

#endif
