/*
 * What the tests of strands share: a strand and what it says of itself, tasks that are booked, come late or end badly.
 */
#ifndef TESTS_POOL_STRANDS_H
#define TESTS_POOL_STRANDS_H

#include "life.h"

#include <ringpool/strand.h>

static inline struct rp_strand *strand_make(struct rp_pool *pool, const struct rp_strand_options *options)
{
    struct rp_strand *strand = NULL;
    int rc = rp_strand_create(&strand, pool, options);

    cr_assert_eq(rc, 0, "create: %s", rp_strerror(rc));
    return strand;
}

static inline struct rp_strand_snapshot look(struct rp_strand *strand)
{
    struct rp_strand_snapshot seen;

    cr_assert_eq(rp_strand_snapshot(strand, &seen), 0);
    return seen;
}

static inline bool is_empty(struct rp_strand *strand)
{
    struct rp_strand_snapshot seen = look(strand);

    return !seen.keys && !seen.queued && !seen.running;
}

static inline struct rp_pool *queueing_pool(unsigned capacity)
{
    struct rp_pool_options options = {.queue_depth = 1024, .log_level = RP_LOG_NONE};

    return pool_make(capacity, &options);
}

/* --- tasks ------------------------------------------------------------------------------------------------------ */

static inline struct rp_task booked(struct ledger *ledger)
{
    return (struct rp_task){.fn = ledger_run, .arg = ledger, .dropped = ledger_drop};
}

static inline void end_badly(void *arg)
{
    if (arg)
        rp_panic("on purpose");
    pthread_exit(NULL);
}

/* A submit that may block: for caller_start. */
struct late {
    struct rp_strand *strand;
    uint64_t key;
    struct rp_task task;
};

static inline int call_late(struct rp_pool *pool, void *arg)
{
    struct late *late = arg;

    (void)pool;
    return rp_strand_submit_task(late->strand, late->key, &late->task);
}

#endif
