/*
 * The allocator hook: every block comes back to the user pointer it came from, and whichever allocation fails, the call
 * says so, nothing is lost and nothing leaks.
 */
#include "life.h"

/* A life of a pool that reaches every place that allocates. Returns what create returned. */
static int live(struct bank *bank, struct ledger *ledger)
{
    struct rp_allocator allocator = bank_allocator(bank);
    struct rp_pool_options options = {.allocator = &allocator,
                                      .queue_depth = 8,
                                      .min_workers = 1,
                                      .expiry_ns = 1 * MS,
                                      .contain_signals = !(UNDER_ASAN || UNDER_TSAN),
                                      .own_reactor = true,
                                      .metrics = true,
                                      .log_level = RP_LOG_NONE};
    struct rp_pool *pool;
    int rc = rp_pool_create(&pool, 4, &options);

    if (rc) {
        cr_assert_null(pool);
        return rc;
    }
    for (int i = 0; i < 12; i++) {
        struct rp_task task = {
            .fn = ledger_run, .dropped = ledger_drop, .arg = ledger, .priority = i % 3, .overload = RP_OVERLOAD_BLOCK};
        int sent = rp_pool_submit_task(pool, &task);
        cr_assert(sent == 0 || sent == -ENOMEM || sent == -EAGAIN, "submit gave %d", sent);
        add_seq(sent ? &ledger->refused : &ledger->accepted, 1);
    }
    rc = rp_pool_prewarm(pool, 4);
    cr_assert(rc >= 1 || rc == -EAGAIN, "prewarm gave %d", rc);
    AWAIT(ledger_balances(ledger));
    rc = rp_pool_tune(pool, 40);
    cr_assert_eq(rc, 0);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(rp_pool_reboot(pool), 0);
    int sent = ledger_submit(ledger, pool, RP_OVERLOAD_BLOCK);
    cr_assert(sent == 0 || sent == -ENOMEM || sent == -EAGAIN, "submit gave %d", sent);
    cr_assert_eq(rp_pool_destroy(pool), 0);
    return 0;
}

static void assert_settled(struct bank *bank, struct ledger *ledger)
{
    cr_assert_eq(load_seq(&bank->live), 0, "%u blocks stay, failure at %u", load_seq(&bank->live),
                 load_seq(&bank->fail_at));
    cr_assert_eq(load_seq(&bank->strange), 0, "freed to a user pointer that it did not come from");
    cr_assert(ledger_balances(ledger), "failure at %u", load_seq(&bank->fail_at));
}

Test(pool_allocator, every_block_comes_back)
{
    struct holdings before = holdings_now();
    struct bank bank = {0};
    struct ledger ledger = {0};

    cr_assert_eq(live(&bank, &ledger), 0);
    assert_settled(&bank, &ledger);
    cr_assert_gt(load_seq(&bank.calls), 0);
    cr_assert_eq(load_seq(&ledger.accepted), 13);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_allocator, blocks_of_two_pools_are_not_mixed)
{
    struct bank banks[2] = {0};
    struct rp_pool *pools[2];
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 2; i++) {
        struct rp_allocator allocator = bank_allocator(&banks[i]);
        struct rp_pool_options options = {.allocator = &allocator, .expiry_ns = 2 * MS};
        pools[i] = pool_make(4, &options);
    }
    for (uint32_t round = 0; round < 20; round++) {
        for (int i = 0; i < 2; i++)
            for (int task = 0; task < 4; task++)
                cr_assert_eq(rp_pool_submit(pools[i], count_task, &ran), 0);
        AWAIT(load_seq(&ran) == (round + 1) * 8);
        nap(2 * MS);
    }
    for (int i = 0; i < 2; i++) {
        pool_end(pools[i]);
        cr_assert_eq(load_seq(&banks[i].live), 0);
        cr_assert_eq(load_seq(&banks[i].strange), 0);
    }
}

/*
 * Adversary: memory that fails at the Nth call, once or from then on, for every N until a life passes without failure.
 * create says -ENOMEM or -EAGAIN (a worker could not be made) and leaves nothing; a submit refuses or the task runs.
 */
static void fail_everywhere(bool on)
{
    struct holdings before = holdings_now();
    bool failed = true;
    unsigned refused = 0;

    for (uint32_t n = 1; failed; n++) {
        struct bank bank = {.fail_at = n, .fail_on = on};
        struct ledger ledger = {0};
        int rc = live(&bank, &ledger);
        cr_assert(rc == 0 || rc == -ENOMEM || rc == -EAGAIN, "create gave %d, failure at %u", rc, n);
        refused += rc != 0;
        assert_settled(&bank, &ledger);
        failed = load_seq(&bank.failures) > 0;
        cr_assert_lt(n, 10000, "it allocates without end");
    }
    cr_assert_gt(refused, 1);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_allocator, any_single_failure_is_told_and_leaks_nothing)
{
    fail_everywhere(false);
}

Test(pool_allocator, memory_that_ends_is_told_and_leaks_nothing)
{
    fail_everywhere(true);
}
