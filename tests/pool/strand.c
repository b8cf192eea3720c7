/*
 * Strands: order and no overlap by key, keys side by side and fair to each other, and nothing lost by panics or for
 * want of memory.
 */
#include "seed.h"
#include "strands.h"

Test(strand, wrong_arguments_are_refused)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_strand *strand = (struct rp_strand *)1;
    struct rp_strand_snapshot seen;
    struct rp_strand_options wrong[] = {
        {.overload = 9}, {.release_policy = 2}, {.backend = 5}, {.reserved = {[4] = 1}}};
    struct rp_strand_options strange = {.overload = RP_OVERLOAD_DISCARD_OLDEST};
    static const struct {
        struct rp_task task;
        int rc;
    } tasks[] = {
        {{.fn = NULL}, -EINVAL},
        {{.fn = count_task, .priority = 3}, -EINVAL},
        {{.fn = count_task, .overload = 99}, -EINVAL},
        {{.fn = count_task, .deadline = -1}, -EINVAL},
        {{.fn = count_task, .timeout = -1}, -EINVAL},
        {{.fn = count_task, .overload = RP_OVERLOAD_CALLER_RUNS}, -ENOTSUP},
        {{.fn = count_task, .deadline = 1}, -ETIMEDOUT},
    };

    cr_assert_eq(rp_strand_create(NULL, pool, NULL), -EINVAL);
    cr_assert_eq(rp_strand_create(&strand, NULL, NULL), -EINVAL);
    cr_assert_null(strand);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_assert_eq(rp_strand_create(&strand, pool, &wrong[i]), -EINVAL);
    cr_assert_eq(rp_strand_create(&strand, pool, &strange), -ENOTSUP);
    strand = strand_make(pool, NULL);
    for (size_t i = 0; i < sizeof(tasks) / sizeof(tasks[0]); i++)
        cr_assert_eq(rp_strand_submit_task(strand, 1, &tasks[i].task), tasks[i].rc, "number %zu", i);
    cr_assert_eq(rp_strand_submit(NULL, 1, count_task, NULL), -EINVAL);
    cr_assert_eq(rp_strand_submit_task(strand, 1, NULL), -EINVAL);
    cr_assert_eq(rp_strand_snapshot(strand, NULL), -EINVAL);
    cr_assert_eq(rp_strand_snapshot(NULL, &seen), -EINVAL);
    cr_assert_eq(rp_strand_release(NULL), -EINVAL);
    cr_assert_eq(rp_strand_release_until(strand, -1), -EINVAL);
    cr_assert_eq(rp_strand_destroy(NULL), -EINVAL);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

/* --- order and overlap ------------------------------------------------------------------------------------------ */

enum { SUBMITTERS = 4, KEYS = 61 };

struct lane {
    _Atomic uint32_t inside, overlaps, disorder;
    uint64_t last[SUBMITTERS]; /* plain: that the tasks of a key see each other's writes is part of the promise */
    uint64_t ran;
};

struct step {
    struct lane *lane;
    unsigned submitter;
    uint64_t number;
};

static void step_run(void *arg)
{
    struct step *step = arg;
    struct lane *lane = step->lane;

    if (add_seq(&lane->inside, 1))
        add_seq(&lane->overlaps, 1);
    if (step->number <= lane->last[step->submitter])
        add_seq(&lane->disorder, 1);
    lane->last[step->submitter] = step->number;
    lane->ran++;
    if (step->number % 97 == 0)
        sched_yield();
    sub_seq(&lane->inside, 1);
    free(step);
}

struct pusher {
    struct rp_strand *strand;
    struct lane *lanes;
    unsigned index, n, seed;
    uint64_t pushed[KEYS];
    _Atomic uint32_t failed;
    pthread_t thread;
};

static void *pusher_main(void *arg)
{
    struct pusher *me = arg;

    for (unsigned i = 0; i < me->n; i++) {
        unsigned key = (unsigned)rand_r(&me->seed) % KEYS;
        key = key % 3 ? key : 0; /* one busy key */
        struct step *step = malloc(sizeof(*step));
        *step = (struct step){&me->lanes[key], me->index, ++me->pushed[key]};
        int rc;
        while ((rc = rp_strand_submit(me->strand, key, step_run, step)) == -EAGAIN)
            sched_yield();
        if (rc)
            add_seq(&me->failed, 1);
    }
    return NULL;
}

/*
 * Adversary: several submitters over few keys, one of them busy, with limits and pools that make them block, be refused
 * and yield. Holds: each key runs its tasks one at a time, those of one submitter in his order, and all of them.
 */
static void push(unsigned capacity, unsigned depth, struct rp_strand_options options, unsigned n, const char *test)
{
    struct rp_pool_options pool_options = {.queue_depth = depth};
    struct rp_pool *pool = pool_make(capacity, &pool_options);
    struct rp_strand *strand = strand_make(pool, &options);
    static struct lane lanes[KEYS];
    static struct pusher pusher[SUBMITTERS];
    unsigned seed = seed_of(test);

    memset(lanes, 0, sizeof(lanes));
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        pusher[i] = (struct pusher){.strand = strand, .lanes = lanes, .index = i, .n = n, .seed = seed + i};
        cr_assert_eq(pthread_create(&pusher[i].thread, NULL, pusher_main, &pusher[i]), 0);
    }
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        cr_assert_eq(pthread_join(pusher[i].thread, NULL), 0);
        cr_assert_eq(load_seq(&pusher[i].failed), 0);
    }
    AWAIT(is_empty(strand));
    struct rp_strand_snapshot seen = look(strand);
    cr_assert_eq(seen.submitted, SUBMITTERS * (uint64_t)n);
    cr_assert_eq(seen.completed, SUBMITTERS * (uint64_t)n);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
    uint64_t ran = 0;
    for (unsigned key = 0; key < KEYS; key++) {
        cr_assert_eq(load_seq(&lanes[key].overlaps), 0);
        cr_assert_eq(load_seq(&lanes[key].disorder), 0);
        ran += lanes[key].ran;
    }
    cr_assert_eq(ran, SUBMITTERS * (uint64_t)n);
}

#define PUSHES (UNDER_TSAN || UNDER_ASAN ? 2000U : 20000U)

Test(strand, tasks_of_a_key_keep_their_order_and_do_not_overlap)
{
    push(4, 1024, (struct rp_strand_options){0}, PUSHES, "roomy");
}

Test(strand, order_holds_in_a_pool_without_a_queue)
{
    push(2, 0, (struct rp_strand_options){.burst = 2}, PUSHES / 4, "direct");
}

Test(strand, order_holds_when_submitters_are_refused)
{
    push(2, 3, (struct rp_strand_options){.overload = RP_OVERLOAD_FAIL, .max_per_key = 3}, PUSHES / 4, "refused");
}

Test(strand, order_holds_when_submitters_block_at_the_limits)
{
    push(3, 8, (struct rp_strand_options){.max_queued = 5, .max_per_key = 2, .burst = 1}, PUSHES / 4, "limits");
}

Test(strand, different_keys_run_side_by_side)
{
    struct rp_pool *pool = queueing_pool(3);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate gate = {0};

    for (uint64_t key = 0; key < 3; key++)
        for (int i = 0; i < 2; i++)
            cr_assert_eq(rp_strand_submit(strand, key, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 3);
    cr_assert_eq(look(strand).running, 3);
    cr_assert_eq(look(strand).queued, 3);
    cr_assert_eq(look(strand).keys, 3);
    gate_open(&gate);
    AWAIT(load_seq(&gate.passed) == 6);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

struct chain {
    struct rp_strand *strand;
    uint64_t key;
    unsigned left;
    bool within, overlap;
    _Atomic uint32_t ended, failed;
};

static void chain_run(void *arg)
{
    struct chain *chain = arg;

    chain->overlap |= chain->within;
    chain->within = true;
    if (!chain->left--)
        add_seq(&chain->ended, 1);
    else if (rp_strand_submit(chain->strand, chain->key, chain_run, chain))
        add_seq(&chain->failed, 1);
    chain->within = false;
}

Test(strand, a_task_may_submit_to_its_own_key)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct chain chain = {.strand = strand, .key = 7, .left = 2000};

    cr_assert_eq(rp_strand_submit(strand, 7, chain_run, &chain), 0);
    AWAIT(load_seq(&chain.ended) == 1);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(load_seq(&chain.failed), 0);
    cr_assert_not(chain.overlap);
    pool_end(pool);
}

/* --- fairness --------------------------------------------------------------------------------------------------- */

struct hog {
    struct rp_strand *strand;
    _Atomic uint32_t stop, ran;
};

static void hog_run(void *arg)
{
    struct hog *hog = arg;

    add_seq(&hog->ran, 1);
    if (!load_seq(&hog->stop))
        rp_strand_submit(hog->strand, 1, hog_run, hog);
}

/* Adversary: a key that is never without a task, on the only worker. Holds: others get it too. */
static void hog_yields(unsigned depth)
{
    struct rp_pool_options options = {.queue_depth = depth};
    struct rp_pool *pool = pool_make(1, &options);
    struct hog hog = {.strand = strand_make(pool, NULL)};
    _Atomic uint32_t other = 0;

    cr_assert_eq(rp_strand_submit(hog.strand, 1, hog_run, &hog), 0);
    for (uint32_t i = 1; i <= 20; i++) {
        cr_assert_eq(rp_pool_submit(pool, count_task, (void *)&other), 0);
        cr_assert_eq(rp_strand_submit(hog.strand, i + 1, count_task, (void *)&other), 0);
        AWAIT(load_seq(&other) == 2 * i);
    }
    store_seq(&hog.stop, 1);
    cr_assert_eq(rp_strand_destroy(hog.strand), 0);
    pool_end(pool);
}

Test(strand, a_busy_key_lets_others_have_its_worker)
{
    hog_yields(8);
}

Test(strand, a_busy_key_lets_blocked_submitters_in)
{
    hog_yields(0);
}

/* --- tasks that do not return ----------------------------------------------------------------------------------- */

Test(strand, a_key_goes_on_after_a_panic_and_after_a_thread_that_ended)
{
    struct rp_pool *pool = queueing_pool(2);
    struct rp_strand *strand = strand_make(pool, NULL);
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 30; i++) {
        cr_assert_eq(rp_strand_submit(strand, 5, end_badly, i % 3 ? strand : NULL), 0);
        cr_assert_eq(rp_strand_submit(strand, 5, count_task, (void *)&ran), 0);
    }
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&ran), 30);
    cr_assert_eq(look(strand).panicked, 30);
    cr_assert_eq(look(strand).completed, 30);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

/* The pool has no room for the runner of a key whose thread has ended. Holds: it is submitted again until it has. */
Test(strand, a_key_without_a_worker_gets_one_when_there_is_room)
{
    struct rp_pool_options options = {.log_level = RP_LOG_NONE};
    struct rp_pool *pool = pool_make(1, &options);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate gate = {0};
    struct caller caller;
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(rp_strand_submit(strand, 1, end_badly, NULL), 0);
        cr_assert_eq(rp_strand_submit(strand, 1, count_task, (void *)&ran), 0);
    }
    caller_start(&caller, pool, call_submit_counting, (void *)&ran); /* blocks for the only worker */
    AWAIT(pool_look(pool).blocked == 1);
    gate_open(&gate);
    cr_assert_eq(caller_end(&caller), 0);
    AWAIT(load_seq(&ran) == 11);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

Test(strand, a_key_costs_memory_only_while_it_has_tasks)
{
    enum { N = 100000 };
    struct rp_pool_options pool_options = {.queue_depth = N};
    struct rp_pool *pool = pool_make(1, &pool_options);
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_strand *strand = strand_make(pool, &(struct rp_strand_options){.allocator = &allocator});
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;
    uint32_t made = load_seq(&bank.live);

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (int round = 0; round < 2; round++)
        for (uint64_t key = 0; key < N / 2; key++)
            cr_assert_eq(rp_strand_submit(strand, key * 4096, count_task, (void *)&ran), 0);
    cr_assert_eq(look(strand).keys, N / 2);
    gate_open(&gate);
    AWAIT(load_seq(&ran) == N && is_empty(strand));
    cr_assert_leq(load_seq(&bank.live), made + 32 * 64, "some spare blocks to a shard, no keys");
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(load_seq(&bank.live), 0);
    cr_assert_eq(load_seq(&bank.strange), 0);
    pool_end(pool);
}

/* Adversary: memory that fails at the Nth call. Holds: the submit says so, what was accepted runs, nothing leaks. */
Test(strand, a_failure_of_memory_is_told_and_loses_nothing)
{
    struct rp_pool *pool = queueing_pool(2);
    bool failed = true;

    for (uint32_t n = 1; failed; n++) {
        struct bank bank = {.fail_at = n, .fail_on = n % 2};
        struct rp_allocator allocator = bank_allocator(&bank);
        struct ledger ledger = {0};
        struct rp_task task = booked(&ledger);
        struct rp_strand *strand;
        int rc = rp_strand_create(&strand, pool, &(struct rp_strand_options){.allocator = &allocator});
        cr_assert(rc == 0 || rc == -ENOMEM);
        for (uint64_t i = 0; !rc && i < 100; i++) {
            int sent = rp_strand_submit_task(strand, i % 40, &task);
            cr_assert(sent == 0 || sent == -ENOMEM);
            add_seq(sent ? &ledger.refused : &ledger.accepted, 1);
        }
        if (!rc)
            cr_assert_eq(rp_strand_destroy(strand), 0);
        cr_assert(ledger_balances(&ledger), "failure at %u", n);
        cr_assert_eq(load_seq(&ledger.dropped), 0);
        cr_assert_eq(load_seq(&bank.live), 0, "failure at %u", n);
        failed = load_seq(&bank.failures) > 0 && n < 150;
    }
    pool_end(pool);
}
