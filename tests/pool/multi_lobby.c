/*
 * Submitters that wait for room in any pool, and who may pass them.
 */
#include "multi.h"
#include "stopped.h"

#include <signal.h>

static void do_nothing(void *arg)
{
    (void)arg;
}

/* Two pools of one worker and no queue, all held, and a submitter that sleeps in front of them and is stopped there. */
struct victim {
    struct rp_multi *multi;
    struct gate gate;
    struct caller caller;
    _Atomic uint32_t ran;
};

static void victim_make(struct victim *victim, enum rp_strategy strategy)
{
    *victim = (struct victim){.multi = multi_make(2, 1, strategy, NULL)};
    stops_prepare();
    hold(victim->multi, &victim->gate, 2);
    caller_start(&victim->caller, (struct rp_pool *)(void *)victim->multi, submit_counted, (void *)&victim->ran);
    AWAIT(multi_look(victim->multi).blocked == 1);
    stop_asleep(victim->caller.thread);
    gate_open(&victim->gate);
    AWAIT(rp_multi_busy(victim->multi) == 0);
}

static void victim_end(struct victim *victim)
{
    cr_assert_eq(load_seq(&victim->ran), 0);
    cr_assert_eq(write(stop_here[1], "", 1), 1);
    cr_assert_eq(caller_end(&victim->caller), 0);
    AWAIT(load_seq(&victim->ran) == 1);
    multi_end(victim->multi);
}

/*
 * Adversary: the submitter that waits is stopped in its sleep, as a scheduler might, while all pools have room; another
 * one submits without end and without blocking. Holds: no more than 1024 of its tasks, and one, go before.
 */
Test(multi_lobby, who_waits_is_overtaken_by_at_most_1024_that_do_not_block)
{
    static const enum rp_strategy all[] = {RP_ROUND_ROBIN, RP_LEAST_TASKS, RP_TWO_CHOICES, RP_RANDOM, RP_LOCAL};

    for (unsigned s = 0; s < sizeof(all) / sizeof(all[0]); s++) {
        struct victim victim;
        _Atomic uint32_t passed = 0;
        uint32_t accepted = 0;

        victim_make(&victim, all[s]);
        for (int i = 0; i < 4000; i++) {
            accepted += rp_multi_try_submit(victim.multi, count_task, (void *)&passed) == 0;
            AWAIT(load_seq(&passed) == accepted); /* there is room again, or will be at once */
        }
        cr_assert_leq(accepted, 1024 + 1, "strategy %d: overtaken by %u", all[s], accepted);
        victim_end(&victim);
    }
}

/* Likewise; the policies act as if there were no room. */
Test(multi_lobby, whose_turn_it_is_not_meets_the_overload_policy)
{
    struct victim victim;
    struct ledger ledger = {0};
    struct rp_task task = {.fn = ledger_run, .dropped = ledger_drop, .arg = &ledger};

    victim_make(&victim, RP_ROUND_ROBIN);
    for (int i = 0; i < 4000; i++)
        rp_multi_try_submit(victim.multi, do_nothing, NULL);
    AWAIT(rp_multi_busy(victim.multi) == 0 && rp_multi_waiting(victim.multi) == 1);
    task.overload = RP_OVERLOAD_FAIL;
    cr_assert_eq(rp_multi_submit_task(victim.multi, &task), -EAGAIN);
    task.overload = RP_OVERLOAD_DISCARD_OLDEST; /* nothing is queued */
    cr_assert_eq(rp_multi_submit_task(victim.multi, &task), -EAGAIN);
    task.overload = RP_OVERLOAD_DISCARD_NEWEST;
    cr_assert_eq(rp_multi_submit_task(victim.multi, &task), 0);
    cr_assert_eq(load_seq(&ledger.dropped), 1);
    task.overload = RP_OVERLOAD_CALLER_RUNS;
    cr_assert_eq(rp_multi_submit_task(victim.multi, &task), 0);
    cr_assert_eq(load_seq(&ledger.ran), 1);
    task.overload = RP_OVERLOAD_BLOCK;
    task.deadline = rp_after(5 * MS);
    cr_assert_eq(rp_multi_submit_task(victim.multi, &task), -ETIMEDOUT);
    victim_end(&victim);
}
