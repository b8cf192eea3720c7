/*
 * The strategies of the multi pool: what each promises of where a task goes, and the fallback that all share.
 */
#include "multi.h"

/* --- round robin -------------------------------------------------------------------------------------------------- */

Test(multi_round_robin, gives_each_pool_its_turn)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(3, 16, RP_ROUND_ROBIN, NULL);

    for (unsigned k = 1; k <= 5; k++) {
        hold(multi, &gate, 3);
        for (unsigned i = 0; i < 3; i++)
            cr_assert_eq(given(multi, i), k);
    }
    open_and_end(multi, &gate);
}

#define TAKERS 4
#define TAKES 10 /* so few that a thread stays with no pool */

struct taker {
    struct rp_multi *multi[2]; /* of the second, if there is one, as many, in turn */
    struct gate *gate;
    unsigned takes;
};

static void *take_turns(void *arg)
{
    const struct taker *me = arg;

    for (unsigned i = 0; i < me->takes; i++)
        for (unsigned m = 0; m < 2; m++)
            if (me->multi[m] && rp_multi_submit(me->multi[m], gate_pass, me->gate))
                return (void *)1;
    return NULL;
}

static void take_at_once(struct taker *takers, unsigned n)
{
    pthread_t threads[2 * TAKERS];
    void *wrong;

    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_turns, &takers[i]), 0);
    for (unsigned i = 0; i < n; i++) {
        cr_assert_eq(pthread_join(threads[i], &wrong), 0);
        cr_assert_null(wrong);
    }
}

/* A thread's n * k submits are, wherever in its way around they begin. */
Test(multi_round_robin, is_exact_from_anywhere_on)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(3, 16, RP_ROUND_ROBIN, NULL);
    unsigned before[3];

    for (unsigned from = 0; from < 4; from++) {
        hold(multi, &gate, 1);
        for (unsigned i = 0; i < 3; i++)
            before[i] = given(multi, i);
        hold(multi, &gate, 6);
        for (unsigned i = 0; i < 3; i++)
            cr_assert_eq(given(multi, i) - before[i], 2);
    }
    open_and_end(multi, &gate);
}

/* Adversary: four threads at once. Each goes all the way around, so the sum is exact however they interleave. */
Test(multi_round_robin, is_exact_over_all_threads)
{
    struct rp_pool_options pool = {.queue_depth = 512};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(5, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
    struct taker takers[TAKERS];

    for (unsigned i = 0; i < TAKERS; i++)
        takers[i] = (struct taker){.multi = {multi}, .gate = &gate, .takes = TAKES};
    take_at_once(takers, TAKERS);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(given(multi, i), TAKERS * TAKES / 5);
    open_and_end(multi, &gate);
}

/* Adversary: threads that submit a little and end, and such as meet two or more multi pools in turn. */
Test(multi_round_robin, is_off_by_no_more_than_the_threads)
{
    struct rp_pool_options pool = {.queue_depth = 512};
    struct gate gate = {0};
    struct rp_multi *all[6]; /* the first and the fifth begin at the same place of a thread's */
    struct taker takers[2 * TAKERS];

    for (unsigned i = 0; i < 6; i++)
        all[i] = multi_make(2 + i % 4, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &pool});
    for (unsigned i = 0; i < TAKERS; i++) {
        takers[i] = (struct taker){.multi = {all[0], all[4]}, .gate = &gate, .takes = TAKES + i};
        takers[TAKERS + i] = (struct taker){.multi = {all[0], all[1 + i % 3]}, .gate = &gate, .takes = 1 + i};
    }
    take_at_once(takers, 2 * TAKERS);
    for (unsigned i = 0; i < 6; i++)
        cr_assert_leq(spread(all[i], 2 + i % 4), 2 * TAKERS, "multi pool %u", i);
    for (unsigned i = 0; i < 6; i++)
        open_and_end(all[i], &gate);
}

/* Each begins with the next pool, whatever others do meanwhile. */
Test(multi_round_robin, is_exact_over_threads_that_submit_once)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(4, 8, RP_ROUND_ROBIN, NULL);
    struct taker taker = {.multi = {multi}, .gate = &gate, .takes = 1};

    hold(multi, &gate, 4);
    for (unsigned i = 0; i < 8; i++) {
        take_at_once(&taker, 1);
        hold(multi, &gate, 2);
    }
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(given(multi, i), 1 + 2 + 4);
    open_and_end(multi, &gate);
}

Test(multi_round_robin, passes_over_a_full_pool)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(3, 4, RP_ROUND_ROBIN, NULL);

    hold_pool(multi, 0, &gate, 4);
    hold(multi, &gate, 4); /* 0 is full: 1, 1, 2, 1 by turns that began at 0, 1, 2, 0 */
    cr_assert_eq(given(multi, 0), 4);
    cr_assert_eq(given(multi, 1) + given(multi, 2), 4);
    hold(multi, &gate, 4);
    cr_assert_eq(given(multi, 1), 4);
    cr_assert_eq(given(multi, 2), 4);
    cr_assert_eq(rp_multi_try_submit(multi, gate_pass, &gate), -EAGAIN);
    open_and_end(multi, &gate);
}

/* Without skipping the turn of a full pool goes to the least loaded, here 2, and not to the next, here 1. */
Test(multi_round_robin, without_skipping_turns_to_the_least_loaded)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(3, 4, RP_ROUND_ROBIN, &(struct rp_multi_options){.no_skip = true});

    hold_pool(multi, 0, &gate, 4);
    hold_pool(multi, 1, &gate, 2);
    hold(multi, &gate, 1); /* the turn of 0 */
    cr_assert_eq(given(multi, 1), 2);
    cr_assert_eq(given(multi, 2), 1);
    open_and_end(multi, &gate);
}

Test(multi_round_robin, cuts_a_batch_evenly)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(4, 8, RP_ROUND_ROBIN, NULL);
    struct rp_task tasks[26];

    for (int i = 0; i < 26; i++)
        tasks[i] = (struct rp_task){.fn = gate_pass, .arg = &gate};
    cr_assert_eq(rp_multi_prewarm(multi, 32), 32);
    cr_assert_eq(rp_multi_submit_batch(multi, tasks, 24), 24);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(given(multi, i), 6);
    open_and_end(multi, &gate);
}

/* --- least tasks -------------------------------------------------------------------------------------------------- */

Test(multi_least_tasks, evens_out)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(4, 16, RP_LEAST_TASKS, NULL);

    hold_pool(multi, 0, &gate, 7);
    hold_pool(multi, 1, &gate, 4);
    hold_pool(multi, 2, &gate, 1);
    hold(multi, &gate, 16);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(given(multi, i), 7);
    open_and_end(multi, &gate);
}

/* All workers run in all pools, so that a count of running ones tells nothing: the queue must count. */
Test(multi_least_tasks, counts_what_waits)
{
    struct rp_pool_options pool = {.queue_depth = 64};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 2, RP_LEAST_TASKS, &(struct rp_multi_options){.pool = &pool});

    hold_pool(multi, 0, &gate, 2);
    hold_pool(multi, 1, &gate, 2);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 0), gate_pass, &gate), 0);
    hold(multi, &gate, 20);
    cr_assert_eq(given(multi, 0), 22);
    cr_assert_eq(given(multi, 1), 22);
    open_and_end(multi, &gate);
}

/* The small pool is full and has fewer tasks than the large one. */
Test(multi_least_tasks, passes_over_a_full_pool_while_another_has_room)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 2, RP_LEAST_TASKS, NULL);

    cr_assert_eq(rp_multi_tune_pool(multi, 1, 20), 0);
    hold_pool(multi, 0, &gate, 2);
    hold_pool(multi, 1, &gate, 5);
    hold(multi, &gate, 15);
    cr_assert_eq(given(multi, 0), 2);
    cr_assert_eq(given(multi, 1), 20);
    open_and_end(multi, &gate);
}

Test(multi_least_tasks, divides_by_weight)
{
    const unsigned weights[] = {1, 3};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 64, RP_LEAST_TASKS, &(struct rp_multi_options){.weights = weights});

    hold(multi, &gate, 40);
    cr_assert_eq(given(multi, 0), 10);
    cr_assert_eq(given(multi, 1), 30);
    cr_assert_eq(rp_multi_set_weight(multi, 0, 3), 0);
    hold(multi, &gate, 20);
    cr_assert_eq(given(multi, 0), 30);
    cr_assert_eq(rp_multi_set_weight(multi, 0, 0), -EINVAL);
    cr_assert_eq(rp_multi_set_weight(multi, 2, 1), -ENOENT);
    open_and_end(multi, &gate);
}

Test(multi_least_tasks, divides_by_capacity_if_asked)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 10, RP_LEAST_TASKS, &(struct rp_multi_options){.weigh_by_capacity = true});

    cr_assert_eq(rp_multi_tune_pool(multi, 1, 40), 0);
    hold(multi, &gate, 25);
    cr_assert_eq(given(multi, 0), 5);
    cr_assert_eq(given(multi, 1), 20);
    open_and_end(multi, &gate);
}

/* --- the others --------------------------------------------------------------------------------------------------- */

/* Of two pools both are always looked at, so the choice is the lighter one. */
Test(multi_two_choices, takes_the_lighter_of_two)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 32, RP_TWO_CHOICES, NULL);

    hold_pool(multi, 0, &gate, 9);
    hold(multi, &gate, 9);
    cr_assert_eq(given(multi, 1), 9);
    hold(multi, &gate, 20);
    cr_assert_eq(given(multi, 0), 19);
    open_and_end(multi, &gate);
}

/* The heaviest pool of all is never chosen: whichever the other choice is, it is lighter. */
Test(multi_two_choices, never_takes_the_heaviest)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(4, 200, RP_TWO_CHOICES, &(struct rp_multi_options){0});

    for (int i = 0; i < 60; i++)
        cr_assert_eq(rp_pool_submit(rp_multi_pool(multi, 2), gate_pass, &gate), 0);
    hold(multi, &gate, 120);
    cr_assert_eq(given(multi, 2), 60);
    for (unsigned i = 0; i < 4; i++)
        if (i != 2)
            cr_assert_leq(given(multi, i), 60);
    open_and_end(multi, &gate);
}

Test(multi_random, reaches_every_pool_and_no_full_one)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(4, 50, RP_RANDOM, NULL);

    hold_pool(multi, 3, &gate, 50);
    hold(multi, &gate, 100); /* none of the three stays empty but with a chance of 1e-17 */
    for (unsigned i = 0; i < 3; i++)
        cr_assert_gt(given(multi, i), 0);
    cr_assert_eq(given(multi, 3), 50);
    open_and_end(multi, &gate);
}

Test(multi_local, goes_by_the_cpu_and_to_the_neighbour_of_a_full_pool)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(3, 4, RP_LOCAL, NULL);
    cpu_set_t one;
    int cpu = sched_getcpu();

    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    unsigned at = (unsigned)cpu % 3;
    hold(multi, &gate, 4);
    cr_assert_eq(given(multi, at), 4);
    hold(multi, &gate, 4);
    cr_assert_eq(given(multi, (at + 1) % 3), 4);
    hold(multi, &gate, 4);
    cr_assert_eq(given(multi, (at + 2) % 3), 4);
    open_and_end(multi, &gate);
}

/* --- auto --------------------------------------------------------------------------------------------------------- */

/* Four tasks one after the other, so that there is no other load than that of `busy` when it looks. */
static void count_in_turn(struct rp_multi *multi, _Atomic uint32_t *ran, unsigned busy)
{
    for (uint32_t i = 0, before = load_seq(ran); i < 4; i++) {
        cr_assert_eq(rp_multi_submit(multi, count_task, (void *)ran), 0);
        AWAIT(load_seq(ran) == before + i + 1 && rp_multi_busy(multi) == busy);
    }
}

/*
 * 20 workers. From 14 tasks on (0.7) it is least tasks, and only below 10 (0.5) round robin again. It looks as often as
 * there are pools, so a few submits at most after the load has changed.
 */
Test(multi_auto, turns_by_load_and_with_hysteresis)
{
    struct gate low = {0}, middle = {0}, high = {0};
    struct rp_multi *multi = multi_make(2, 10, RP_AUTO, NULL);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_multi_strategy(multi, false), RP_AUTO);
    hold(multi, &low, 8);
    count_in_turn(multi, &ran, 8);
    cr_assert_eq(rp_multi_strategy(multi, true), RP_ROUND_ROBIN);
    hold(multi, &middle, 3);
    hold(multi, &high, 3);
    hold(multi, &high, 2);
    cr_assert_eq(rp_multi_strategy(multi, true), RP_LEAST_TASKS);
    gate_open(&high);
    AWAIT(rp_multi_busy(multi) == 11);
    count_in_turn(multi, &ran, 11);
    cr_assert_eq(rp_multi_strategy(multi, true), RP_LEAST_TASKS);
    gate_open(&middle);
    AWAIT(rp_multi_busy(multi) == 8);
    count_in_turn(multi, &ran, 8);
    cr_assert_eq(rp_multi_strategy(multi, true), RP_ROUND_ROBIN);
    open_and_end(multi, &low);
}

Test(multi_auto, turns_by_what_waits)
{
    struct rp_pool_options pool = {.queue_depth = 64};
    struct rp_multi_options options = {.pool = &pool, .auto_high = 100000, .auto_waiting = 6};
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 2, RP_AUTO, &options);

    for (unsigned i = 0; i < 2; i++)
        hold_pool(multi, i, &gate, 2);
    hold(multi, &gate, 5);
    cr_assert_eq(rp_multi_strategy(multi, true), RP_ROUND_ROBIN);
    hold(multi, &gate, 4);
    cr_assert_eq(rp_multi_strategy(multi, true), RP_LEAST_TASKS);
    open_and_end(multi, &gate);
}

/* --- custom ------------------------------------------------------------------------------------------------------- */

struct choosing {
    int position;
    unsigned calls, n;
    struct rp_multi_view seen[64];
};

static int choose(void *user, const struct rp_multi_view *pools, unsigned n)
{
    struct choosing *choosing = user;

    choosing->calls++;
    choosing->n = n;
    for (unsigned i = 0; i < n && i < 64; i++)
        choosing->seen[i] = pools[i];
    return choosing->position;
}

static struct rp_multi *multi_choosing(struct choosing *choosing, unsigned pools, unsigned capacity)
{
    return multi_make(pools, capacity, RP_CUSTOM,
                      &(struct rp_multi_options){.choose = choose, .choose_user = choosing});
}

Test(multi_custom, goes_where_the_user_says)
{
    struct choosing choosing = {.position = 2};
    struct gate gate = {0};
    struct rp_multi *multi = multi_choosing(&choosing, 4, 8);

    hold(multi, &gate, 5);
    cr_assert_eq(given(multi, 2), 5);
    cr_assert_eq(choosing.calls, 5);
    cr_assert_eq(choosing.n, 4);
    cr_assert_eq(choosing.seen[2].index, 2);
    cr_assert_eq(choosing.seen[2].capacity, 8);
    cr_assert_eq(choosing.seen[2].busy + choosing.seen[2].waiting, 4);
    cr_assert(choosing.seen[2].room);
    cr_assert_eq(rp_multi_remove(multi, 1), 0);
    hold(multi, &gate, 1); /* the position is of the view, where pool 3 is the third now */
    cr_assert_eq(given(multi, 3), 1);
    cr_assert_eq(choosing.seen[1].index, 2);
    struct rp_task batch[2] = {{.fn = gate_pass, .arg = &gate}, {.fn = gate_pass, .arg = &gate}};
    cr_assert_eq(rp_multi_submit_batch(multi, batch, 2), 2);
    cr_assert_eq(given(multi, 3), 3);
    open_and_end(multi, &gate);
}

Test(multi_custom, a_full_choice_falls_back)
{
    struct choosing choosing = {.position = 0};
    struct gate gate = {0};
    struct rp_multi *multi = multi_choosing(&choosing, 3, 2);

    hold(multi, &gate, 6);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(given(multi, i), 2);
    cr_assert_eq(rp_multi_try_submit(multi, gate_pass, &gate), -EAGAIN);
    cr_assert(!choosing.seen[0].room);
    open_and_end(multi, &gate);
}

Test(multi_custom, a_wrong_answer_is_told_and_loses_nothing)
{
    struct choosing choosing = {.position = 3};
    struct rp_multi *multi = multi_choosing(&choosing, 3, 2);
    struct ledger ledger = {0};
    struct rp_task task = {.fn = ledger_run, .arg = &ledger, .dropped = ledger_drop};

    cr_assert_eq(rp_multi_submit_task(multi, &task), -EINVAL);
    choosing.position = -EXFULL;
    cr_assert_eq(rp_multi_submit_task(multi, &task), -EXFULL);
    cr_assert_eq(load_seq(&ledger.ran) + load_seq(&ledger.dropped), 0);
    cr_assert_eq(multi_look(multi).rejected, 2);
    multi_end(multi);
}

/* More pools than the view has room for on the stack. */
Test(multi_custom, sees_many_pools)
{
    struct choosing choosing = {.position = 63};
    struct gate gate = {0};
    struct rp_multi *multi = multi_choosing(&choosing, 64, 1);

    hold(multi, &gate, 1);
    cr_assert_eq(choosing.n, 64);
    cr_assert_eq(given(multi, 63), 1);
    open_and_end(multi, &gate);
}

/* --- switching ---------------------------------------------------------------------------------------------------- */

Test(multi_strategy, can_be_changed_while_running)
{
    struct gate gate = {0};
    struct rp_multi *multi = multi_make(2, 32, RP_ROUND_ROBIN, NULL);

    hold_pool(multi, 0, &gate, 10);
    hold(multi, &gate, 2);
    cr_assert_eq(given(multi, 0), 11);
    cr_assert_eq(rp_multi_set_strategy(multi, RP_LEAST_TASKS), 0);
    cr_assert_eq(rp_multi_strategy(multi, true), RP_LEAST_TASKS);
    hold(multi, &gate, 10);
    cr_assert_eq(given(multi, 1), 11);
    cr_assert_eq(rp_multi_set_strategy(multi, RP_CUSTOM), -EINVAL);
    cr_assert_eq(rp_multi_set_strategy(multi, (enum rp_strategy)99), -EINVAL);
    cr_assert_eq(rp_multi_strategy(multi, false), RP_LEAST_TASKS);
    open_and_end(multi, &gate);
}

/* --- overload ----------------------------------------------------------------------------------------------------- */

static const enum rp_strategy every[] = {RP_ROUND_ROBIN, RP_LEAST_TASKS, RP_TWO_CHOICES, RP_RANDOM, RP_LOCAL, RP_AUTO};
#define EVERY (sizeof(every) / sizeof(every[0]))

/* Whatever the strategy says, -EAGAIN comes only when all are full. */
Test(multi_overload, every_place_of_every_pool_is_found)
{
    for (unsigned s = 0; s < EVERY; s++) {
        struct gate gate = {0};
        struct rp_multi *multi = multi_make(7, 3, every[s], NULL);

        for (int i = 0; i < 21; i++)
            cr_assert_eq(rp_multi_try_submit(multi, gate_pass, &gate), 0, "strategy %d, task %d", every[s], i);
        cr_assert_eq(rp_multi_try_submit(multi, gate_pass, &gate), -EAGAIN);
        for (unsigned i = 0; i < 7; i++)
            cr_assert_eq(given(multi, i), 3);
        open_and_end(multi, &gate);
    }
}

Test(multi_overload, the_policy_speaks_when_all_are_full)
{
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_multi *multi = multi_make(2, 1, RP_ROUND_ROBIN, NULL);
    struct rp_task task = {.fn = ledger_run, .arg = &ledger, .dropped = ledger_drop};

    hold(multi, &gate, 2);
    AWAIT(load_seq(&gate.inside) == 2);
    task.overload = RP_OVERLOAD_FAIL;
    cr_assert_eq(rp_multi_submit_task(multi, &task), -EAGAIN);
    task.overload = RP_OVERLOAD_DISCARD_OLDEST;
    cr_assert_eq(rp_multi_submit_task(multi, &task), -EAGAIN);
    task.overload = RP_OVERLOAD_DISCARD_NEWEST;
    cr_assert_eq(rp_multi_submit_task(multi, &task), 0);
    cr_assert_eq(load_seq(&ledger.dropped), 1);
    task.overload = RP_OVERLOAD_CALLER_RUNS;
    cr_assert_eq(rp_multi_submit_task(multi, &task), 0);
    cr_assert_eq(load_seq(&ledger.ran), 1);
    task.overload = RP_OVERLOAD_BLOCK;
    task.deadline = rp_after(5 * MS);
    cr_assert_eq(rp_multi_submit_task(multi, &task), -ETIMEDOUT);
    cr_assert_eq(rp_multi_submit_until(multi, ledger_run, &ledger, rp_after(5 * MS)), -ETIMEDOUT);
    cr_assert_eq(rp_multi_submit_until(multi, ledger_run, &ledger, 1), -ETIMEDOUT);
    cr_assert_eq(rp_multi_submit_until(multi, ledger_run, &ledger, -1), -EINVAL);
    struct rp_pool_snapshot seen = multi_look(multi);
    cr_assert(adds_up(&seen));
    cr_assert_eq(seen.rejected, 4);
    open_and_end(multi, &gate);
}

struct nested {
    struct rp_multi *multi;
    _Atomic uint32_t begun, sent, ran;
    uint32_t together;
    _Atomic int worst;
};

static void nested_inner(void *arg)
{
    add_seq(&((struct nested *)arg)->ran, 1);
}

static void nested_outer(void *arg)
{
    struct nested *nested = arg;

    add_seq(&nested->begun, 1);
    while (load_seq(&nested->begun) < nested->together)
        nap(MS / 10);
    for (int i = 0; i < 3; i++) {
        int rc = rp_multi_submit(nested->multi, nested_inner, nested);
        if (rc)
            store_seq(&nested->worst, rc);
        else
            add_seq(&nested->sent, 1);
    }
}

/*
 * Adversary: all workers of all pools submit at once, each of them blocking. If one of them waited at another pool than
 * its own, the pools could wait for each other in a ring. Each waits at its own, where one more worker stands in.
 */
Test(multi_overload, tasks_of_full_pools_that_submit_do_not_lock_up)
{
    for (unsigned s = 0; s < EVERY; s++) {
        struct nested nested = {.together = 4};

        nested.multi = multi_make(4, 1, every[s], NULL);
        for (unsigned i = 0; i < 4; i++)
            cr_assert_eq(rp_pool_submit(rp_multi_pool(nested.multi, i), nested_outer, &nested), 0);
        AWAIT(load_seq(&nested.ran) == 12);
        cr_assert_eq(load_seq(&nested.worst), 0);
        multi_end(nested.multi);
    }
}
