/*
 * The limits of a strand, over all keys and of one; who waits at them, and at a pool that is full.
 */
#include "strands.h"

static void at_a_limit(struct rp_strand_options options, uint64_t other_key)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, &options);
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct caller caller;
    struct late late = {strand, other_key, booked(&ledger)};
    struct rp_task task = booked(&ledger);

    cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_strand_submit_task(strand, 1, &task), 0);
    task.overload = RP_OVERLOAD_FAIL;
    cr_assert_eq(rp_strand_submit_task(strand, other_key, &task), -EAGAIN);
    task.overload = RP_OVERLOAD_DISCARD_NEWEST;
    cr_assert_eq(rp_strand_submit_task(strand, other_key, &task), 0);
    cr_assert_eq(load_seq(&ledger.dropped), 1);
    cr_assert_eq(load_seq(&ledger.reason), EAGAIN);
    task.overload = RP_OVERLOAD_BLOCK;
    task.deadline = rp_after(2 * MS);
    cr_assert_eq(rp_strand_submit_task(strand, other_key, &task), -ETIMEDOUT);
    caller_start(&caller, pool, call_late, &late);
    cr_assert_not(load_seq(&caller.returned));
    gate_open(&gate);
    cr_assert_eq(caller_end(&caller), 0);
    AWAIT(load_seq(&ledger.ran) == 4);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

Test(strand, the_limit_over_all_keys_holds_by_the_policy)
{
    at_a_limit((struct rp_strand_options){.max_queued = 3}, 2);
}

Test(strand, the_limit_of_a_key_holds_by_the_policy)
{
    at_a_limit((struct rp_strand_options){.max_per_key = 3}, 1);
}

struct flood {
    struct rp_strand *strand;
    _Atomic uint32_t accepted, refused, ran;
    _Atomic int rc;
};

static void flood_count(void *arg)
{
    add_seq(&((struct flood *)arg)->ran, 1);
}

static void flood_run(void *arg)
{
    struct flood *flood = arg;

    for (int i = 0; i < 10; i++) {
        int rc = rp_strand_submit(flood->strand, 1, flood_count, flood);
        add_seq(rc ? &flood->refused : &flood->accepted, 1);
        if (rc)
            flood->rc = rc;
    }
}

Test(strand, a_task_of_the_strand_does_not_wait_for_itself)
{
    struct rp_pool *pool = queueing_pool(1);
    struct flood flood = {.strand = strand_make(pool, &(struct rp_strand_options){.max_queued = 4})};

    cr_assert_eq(rp_strand_submit(flood.strand, 1, flood_run, &flood), 0);
    AWAIT(load_seq(&flood.accepted) + load_seq(&flood.refused) == 10);
    AWAIT(is_empty(flood.strand));
    cr_assert_eq(load_seq(&flood.accepted), 4);
    cr_assert_eq(flood.rc, -EAGAIN);
    cr_assert_eq(load_seq(&flood.ran), 4);
    cr_assert_eq(rp_strand_destroy(flood.strand), 0);
    pool_end(pool);
}

/*
 * The pool is full: the opener of a key blocks there. Holds: who comes for the same key waits with it or is refused,
 * and when the opener is refused the next one opens.
 */
Test(strand, others_wait_with_the_opener_of_a_key)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct caller opener, follower;
    struct late first = {strand, 1, booked(&ledger)}, second = {strand, 1, booked(&ledger)};
    struct rp_task task = booked(&ledger);

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    first.task.deadline = rp_after(20 * MS);
    caller_start(&opener, pool, call_late, &first);
    AWAIT(pool_look(pool).blocked == 1 || load_seq(&opener.returned));
    caller_start(&follower, pool, call_late, &second);
    task.overload = RP_OVERLOAD_FAIL;
    cr_assert_eq(rp_strand_submit_task(strand, 1, &task), -EAGAIN);
    cr_assert_eq(caller_end(&opener), -ETIMEDOUT);
    AWAIT(pool_look(pool).blocked == 1); /* the follower is the opener now */
    cr_assert_eq(look(strand).keys, 1);
    gate_open(&gate);
    cr_assert_eq(caller_end(&follower), 0);
    AWAIT(load_seq(&ledger.ran) == 1 && is_empty(strand));
    cr_assert_eq(load_seq(&ledger.dropped), 0);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

struct discarded {
    struct rp_strand *strand;
    _Atomic int reason, rc;
};

static void submit_again(void *arg, int reason)
{
    struct discarded *d = arg;

    store_seq(&d->reason, reason);
    store_seq(&d->rc, rp_strand_submit(d->strand, 1, count_task, &d->rc));
}

/* Nothing was released: who comes while the pool discards the key is told that there is no room. */
Test(strand, a_key_that_the_pool_discards_refuses_as_for_want_of_room)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 1});
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate gate = {0};
    struct discarded d = {.strand = strand};
    struct ledger other = {0};
    struct rp_task first = {.fn = count_task, .arg = &d, .dropped = submit_again}, second = booked(&other);

    second.overload = RP_OVERLOAD_DISCARD_OLDEST;
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &first), 0);
    cr_assert_eq(rp_pool_submit_task(pool, &second), 0);
    cr_assert_eq(load_seq(&d.reason), -EAGAIN);
    cr_assert_eq(load_seq(&d.rc), -EAGAIN);
    gate_open(&gate);
    AWAIT(load_seq(&other.ran) == 1);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}
