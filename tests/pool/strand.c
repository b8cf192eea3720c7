/*
 * Strands: order and no overlap by key, keys side by side, and nothing lost by panics, limits, refusals and ends.
 */
#include <ringpool/completion.h>
#include <ringpool/context.h>
#include <ringpool/strand.h>

#include "life.h"
#include "seed.h"

static struct rp_strand *strand_make(struct rp_pool *pool, const struct rp_strand_options *options)
{
    struct rp_strand *strand = NULL;
    int rc = rp_strand_create(&strand, pool, options);

    cr_assert_eq(rc, 0, "create: %s", rp_strerror(rc));
    return strand;
}

static struct rp_strand_snapshot look(struct rp_strand *strand)
{
    struct rp_strand_snapshot seen;

    cr_assert_eq(rp_strand_snapshot(strand, &seen), 0);
    return seen;
}

static bool is_empty(struct rp_strand *strand)
{
    struct rp_strand_snapshot seen = look(strand);

    return !seen.keys && !seen.queued && !seen.running;
}

static struct rp_pool *queueing_pool(unsigned capacity)
{
    struct rp_pool_options options = {.queue_depth = 1024, .log_level = RP_LOG_NONE};

    return pool_make(capacity, &options);
}

static struct rp_task booked(struct ledger *ledger)
{
    return (struct rp_task){.fn = ledger_run, .arg = ledger, .dropped = ledger_drop};
}

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

static void end_badly(void *arg)
{
    if (arg)
        rp_panic("on purpose");
    pthread_exit(NULL);
}

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

/* Adversary: memory that fails at the Nth call. Holds: the submit says so, whatever was accepted runs, nothing leaks. */
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

/* --- limits ----------------------------------------------------------------------------------------------------- */

struct late {
    struct rp_strand *strand;
    uint64_t key;
    struct rp_task task;
};

static int call_late(struct rp_pool *pool, void *arg)
{
    struct late *late = arg;

    (void)pool;
    return rp_strand_submit_task(late->strand, late->key, &late->task);
}

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
 * The pool is full: the opener of a key blocks there. Holds: who comes for the same key waits with it or is refused, and
 * when the opener is refused the next one opens.
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

/* --- deadlines, completions ------------------------------------------------------------------------------------- */

Test(strand, a_late_task_is_dropped_and_those_behind_it_run)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate gate = {0};
    struct ledger late = {0}, other = {0};
    struct rp_task task = booked(&late), behind = booked(&other);

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    task.deadline = rp_after(100 * MS);
    for (uint64_t key = 1; key <= 2; key++) { /* key 1 is opened by the late one, key 2 is not */
        if (key == 2)
            cr_assert_eq(rp_strand_submit_task(strand, key, &behind), 0);
        cr_assert_eq(rp_strand_submit_task(strand, key, &task), 0);
        cr_assert_eq(rp_strand_submit_task(strand, key, &behind), 0);
    }
    while (rp_now() < task.deadline)
        nap(MS);
    gate_open(&gate);
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&late.dropped), 2);
    cr_assert_eq(load_seq(&late.reason), ETIMEDOUT);
    cr_assert_eq(load_seq(&late.ran), 0);
    cr_assert_eq(load_seq(&other.ran), 3);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

Test(strand, each_task_posts_its_own_completion)
{
    struct rp_pool *pool = queueing_pool(2);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct rp_completion out[5];
    struct rp_cq *cq;
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    struct rp_task task[5] = {
        {.fn = count_task, .arg = (void *)&ran},
        {.fn = end_badly, .arg = strand},
        {.fn = end_badly},
        {.fn = count_task, .arg = (void *)&ran, .deadline = rp_after(20 * MS)},
        {.fn = count_task, .arg = (void *)&ran},
    };
    static const int result[5] = {0, -EFAULT, -EFAULT, -ETIMEDOUT, 0};
    for (unsigned i = 0; i < 5; i++) {
        task[i].cq = cq;
        task[i].user_data = i;
        cr_assert_eq(rp_strand_submit_task(strand, 1, &task[i]), 0);
    }
    while (rp_now() < task[3].deadline)
        nap(MS);
    gate_open(&gate);
    cr_assert_eq(rp_cq_wait(cq, out, 5, 5, rp_after(PATIENCE)), 5);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(out[i].user_data, i, "a key's completions come in its order");
        cr_assert_eq(out[i].result, result[i]);
    }
    cr_assert_eq(rp_strand_release(strand), 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &task[0]), -ESHUTDOWN);
    cr_assert_eq(rp_cq_wait(cq, out, 5, 0, 0), 0, "a refused task posts nothing");
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

static const char trace;

/* Counts itself if it finds its value, and hands on to its own key, by the context that it finds. */
struct traced {
    struct rp_strand *strand;
    _Atomic uint32_t seen;
    uint32_t last;
};

static void trace_on(void *arg)
{
    struct traced *traced = arg;
    struct rp_task next = {.fn = trace_on, .arg = traced, .ctx = rp_ctx_current()};

    if (rp_ctx_value(rp_ctx_current(), &trace) == traced && add_seq(&traced->seen, 1) + 1 < traced->last)
        cr_expect_eq(rp_strand_submit_task(traced->strand, 1, &next), 0);
}

Test(strand, a_context_travels_with_its_tasks_and_ends_those_that_wait)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct traced traced = {.strand = strand, .last = 3};
    struct gate gate = {0};
    struct ledger ledger = {0};
    struct rp_completion out[4];
    struct rp_ctx *ctx;
    struct rp_cq *cq;
    struct rp_task tasks[4] = {
        {.fn = trace_on, .arg = &traced}, {.fn = end_badly, .arg = strand}, {.fn = end_badly}, booked(&ledger)};

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    cr_assert_eq(rp_ctx_create_with(&ctx, NULL, &(struct rp_ctx_options){.key = &trace, .value = &traced}), 0);
    for (unsigned i = 0; i < 4; i++) {
        tasks[i].ctx = ctx;
        tasks[i].cq = cq;
        tasks[i].user_data = i;
        if (i == 3) {
            cr_assert_eq(rp_cq_wait(cq, out, 3, 3, rp_after(PATIENCE)), 3);
            AWAIT(load_seq(&traced.seen) == 3 && is_empty(strand));
            cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
        }
        cr_assert_eq(rp_strand_submit_task(strand, 1, &tasks[i]), 0);
    }
    static const int results[3] = {0, -EFAULT, -EFAULT};
    for (unsigned i = 0; i < 3; i++)
        cr_assert(out[i].user_data == i && out[i].result == results[i], "%u: %d", i, out[i].result);
    rp_ctx_cancel(ctx, 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &tasks[3]), -ECANCELED);
    gate_open(&gate);
    cr_assert_eq(rp_cq_wait(cq, out, 1, 1, rp_after(PATIENCE)), 1);
    cr_assert(out[0].user_data == 3 && out[0].result == -ECANCELED);
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&ledger.dropped), 1);
    cr_assert_eq(load_seq(&ledger.reason), ECANCELED);
    rp_ctx_destroy(ctx);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

struct slow {
    struct rp_pool *pool;
    struct rp_ctx *ctx;
    struct gate gate;
};

/* Runs until its context tells it of the timeout, and then until the gate is opened. */
static void run_too_long(void *arg)
{
    struct slow *slow = arg;

    rp_ctx_sleep(slow->ctx, 0);
    gate_pass(&slow->gate);
}

static unsigned hung_workers(struct rp_pool *pool)
{
    struct rp_worker_info info[4];
    int n = rp_pool_workers(pool, info, 4);
    unsigned hung = 0;

    for (int i = 0; i < n; i++)
        hung += info[i].hung;
    return hung;
}

/* Adversary: fn goes on after its timeout. Holds: the next task of the key waits for its return all the same. */
Test(strand, a_task_that_runs_for_too_long_is_told_and_keeps_its_key)
{
    struct rp_pool *pool = pool_make(2, &(struct rp_pool_options){.queue_depth = 16, .log_level = RP_LOG_NONE});
    struct rp_strand *strand = strand_make(pool, NULL);
    struct slow slow = {.pool = pool};
    struct rp_completion out[3];
    struct rp_cq *cq;
    _Atomic uint32_t ran = 0, other = 0;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    cr_assert_eq(rp_ctx_create(&slow.ctx, NULL, 0), 0);
    struct rp_task task = {.fn = run_too_long, .arg = &slow, .ctx = slow.ctx, .cq = cq, .timeout = MS};
    struct rp_task behind = {.fn = count_task, .arg = (void *)&ran, .cq = cq, .user_data = 1, .timeout = PATIENCE};
    struct rp_task last = {.fn = count_task, .arg = (void *)&ran, .cq = cq, .user_data = 2};
    cr_assert_eq(rp_strand_submit_task(strand, 1, &task), 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &behind), 0);
    cr_assert_eq(rp_strand_submit_task(strand, 1, &last), 0);
    AWAIT(load_seq(&slow.gate.inside) == 1);
    cr_assert_eq(rp_ctx_err(slow.ctx), -ETIMEDOUT);
    cr_assert_eq(hung_workers(pool), 1);
    cr_assert_eq(rp_strand_submit(strand, 2, count_task, (void *)&other), 0);
    AWAIT(load_seq(&other) == 1);
    cr_assert_eq(load_seq(&ran), 0);
    gate_open(&slow.gate);
    cr_assert_eq(rp_cq_wait(cq, out, 3, 3, rp_after(PATIENCE)), 3);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(out[i].user_data == i && out[i].result == (i ? 0 : -ETIMEDOUT), "%u: %d", i, out[i].result);
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&ran), 2);
    cr_assert_eq(hung_workers(pool), 0);
    rp_ctx_destroy(slow.ctx);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

/* Adversary: the timeout's timer stands on the stack of a run that panics, or whose thread ends. Holds: it goes first. */
Test(strand, a_timeout_ends_with_its_task_however_that_ends)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.queue_depth = 16, .log_level = RP_LOG_NONE});
    struct rp_strand *strand = strand_make(pool, NULL);
    struct rp_completion out[40];
    struct rp_cq *cq;
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_cq_create(&cq, NULL), 0);
    for (unsigned i = 0; i < 40; i++) {
        const struct rp_task task = {.fn = i % 2 ? count_task : end_badly,
                                     .arg = i % 2   ? (void *)&ran
                                            : i % 4 ? NULL
                                                    : (void *)strand,
                                     .cq = cq,
                                     .user_data = i,
                                     .timeout = 20 * MS}; /* over by the end of the test */
        cr_assert_eq(rp_strand_submit_task(strand, 1, &task), 0);
    }
    cr_assert_eq(rp_cq_wait(cq, out, 40, 40, rp_after(PATIENCE)), 40);
    for (unsigned i = 0; i < 40; i++)
        if (out[i].user_data % 2 == 0)
            cr_assert_eq(out[i].result, -EFAULT);
    nap(25 * MS); /* for a timer that was left behind */
    AWAIT(is_empty(strand));
    cr_assert_eq(load_seq(&ran), 20);
    cr_assert_eq(hung_workers(pool), 0);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(pool);
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

/* Three keys, the first running behind a gate, each with two tasks queued. */
static void fill(struct rp_strand *strand, struct gate *gate, struct ledger *ledger)
{
    struct rp_task task = booked(ledger);

    cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, gate), 0);
    AWAIT(load_seq(&gate->inside) == 1);
    for (uint64_t i = 0; i < 6; i++) {
        cr_assert_eq(rp_strand_submit_task(strand, 1 + i % 3, &task), 0);
        add_seq(&ledger->accepted, 1);
    }
}

Test(strand, release_runs_what_is_queued)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct gate gate = {0};
    struct ledger ledger = {0};

    fill(strand, &gate, &ledger);
    cr_assert_eq(rp_strand_release(strand), 0);
    cr_assert_eq(rp_strand_release(strand), 0);
    cr_assert_eq(rp_strand_submit(strand, 1, count_task, NULL), -ESHUTDOWN);
    cr_assert_eq(rp_strand_release_until(strand, rp_after(2 * MS)), -ETIMEDOUT);
    gate_open(&gate);
    cr_assert_eq(rp_strand_release_until(strand, rp_after(PATIENCE)), 0);
    cr_assert_eq(load_seq(&ledger.ran), 6);
    cr_assert_eq(rp_strand_release_until(strand, 1), 0);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}

Test(strand, release_drops_what_is_queued_by_its_policy)
{
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, &(struct rp_strand_options){.release_policy = RP_RELEASE_DROP});
    struct gate gate = {0};
    struct ledger ledger = {0};

    fill(strand, &gate, &ledger);
    cr_assert_eq(rp_strand_release(strand), 0);
    gate_open(&gate);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    cr_assert_eq(load_seq(&gate.passed), 1);
    cr_assert_eq(load_seq(&ledger.dropped), 6);
    cr_assert_eq(load_seq(&ledger.reason), ESHUTDOWN);
    pool_end(pool);
}

Test(strand, a_pool_that_is_released_runs_or_drops_them_by_its_policy)
{
    for (int policy = RP_RELEASE_RUN; policy <= RP_RELEASE_DROP; policy++) {
        struct rp_pool_options options = {.queue_depth = 16, .release_policy = policy};
        struct rp_pool *pool = pool_make(1, &options);
        struct rp_strand *strand = strand_make(pool, &(struct rp_strand_options){.burst = 1});
        struct gate gate = {0};
        struct ledger ledger = {0};
        fill(strand, &gate, &ledger);
        cr_assert_eq(rp_pool_release(pool), 0);
        cr_assert_eq(rp_strand_submit(strand, 99, count_task, NULL), -ESHUTDOWN);
        gate_open(&gate);
        cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
        AWAIT(is_empty(strand));
        cr_assert_eq(load_seq(&ledger.ran), policy == RP_RELEASE_RUN ? 6 : 0);
        cr_assert_eq(load_seq(&ledger.dropped), policy == RP_RELEASE_RUN ? 0 : 6);
        cr_assert_eq(rp_strand_destroy(strand), 0);
        cr_assert_eq(rp_pool_destroy(pool), 0);
    }
}

Test(strand, release_wakes_blocked_submitters)
{
    for (int which = 0; which < 3; which++) {
        struct rp_pool_options options = {.queue_depth = which == 2 ? 0 : 8};
        struct rp_pool *pool = pool_make(1, &options);
        struct rp_strand *strand =
            strand_make(pool, &(struct rp_strand_options){.max_queued = which == 0, .max_per_key = which == 1});
        struct gate gate = {0};
        struct ledger ledger = {0};
        struct caller caller, opener;
        struct late late = {strand, 1, booked(&ledger)};
        if (which == 2) {
            cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
            AWAIT(load_seq(&gate.inside) == 1);
            caller_start(&opener, pool, call_late, &late); /* blocks in the pool, and gets in later */
            AWAIT(pool_look(pool).blocked == 1);
        } else {
            cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
            AWAIT(load_seq(&gate.inside) == 1);
            cr_assert_eq(rp_strand_submit_task(strand, 1, &late.task), 0);
        }
        caller_start(&caller, pool, call_late, &late);
        cr_assert_eq(rp_strand_release(strand), 0);
        cr_assert_eq(caller_end(&caller), -ESHUTDOWN);
        gate_open(&gate);
        if (which == 2)
            cr_assert_eq(caller_end(&opener), 0);
        cr_assert_eq(rp_strand_destroy(strand), 0);
        cr_assert_eq(load_seq(&ledger.ran), 1);
        pool_end(pool);
    }
}

struct suicide {
    struct rp_strand *strand;
    _Atomic int rc, again, until, refused;
    _Atomic uint32_t behind;
};

static void suicide_run(void *arg)
{
    struct suicide *me = arg;

    me->until = rp_strand_release_until(me->strand, rp_after(PATIENCE));
    me->rc = rp_strand_destroy(me->strand);
    me->again = rp_strand_destroy(me->strand);
    me->refused = rp_strand_submit(me->strand, 1, suicide_run, me);
}

Test(strand, destroy_inside_a_task_is_deferred)
{
    struct rp_pool *pool = queueing_pool(2);
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);

    for (int i = 0; i < 50; i++) {
        struct suicide me = {.rc = 1};
        struct gate gate = {0};
        me.strand = strand_make(pool, &(struct rp_strand_options){.allocator = &allocator});
        cr_assert_eq(rp_strand_submit(me.strand, 1, gate_pass, &gate), 0);
        cr_assert_eq(rp_strand_submit(me.strand, 1, suicide_run, &me), 0);
        for (uint64_t key = 1; key < 5; key++)
            cr_assert_eq(rp_strand_submit(me.strand, key, count_task, (void *)&me.behind), 0);
        gate_open(&gate);
        AWAIT(load_seq(&bank.live) == 0);
        cr_assert_eq(me.until, -EDEADLK);
        cr_assert_eq(me.rc, 0);
        cr_assert_eq(me.again, -EALREADY);
        cr_assert_eq(me.refused, -ESHUTDOWN);
        cr_assert_eq(load_seq(&me.behind), 4);
    }
    pool_end(pool);
}

struct racer {
    struct rp_strand *strand;
    struct ledger *ledger;
    _Atomic uint32_t tid;
    pthread_t thread;
};

static void *racer_main(void *arg)
{
    struct racer *me = arg;
    struct rp_task task = booked(me->ledger);

    store_seq(&me->tid, (uint32_t)gettid());
    int rc = rp_strand_submit_task(me->strand, (uint64_t)(uintptr_t)me % 3, &task);
    add_seq(rc ? &me->ledger->refused : &me->ledger->accepted, 1);
    return NULL;
}

static bool sleeps(struct racer *racer)
{
    char tid[16], text[512];

    snprintf(tid, sizeof(tid), "%u", load_seq(&racer->tid));
    thread_file(tid, "stat", text, sizeof(text));
    const char *state = strrchr(text, ')');
    return state && state[1] && state[2] == 'S';
}

/* Adversary: destroy while submitters block in the pool and at the limit. Holds: each is accepted or refused. */
static int call_destroy(struct rp_pool *pool, void *strand)
{
    (void)pool;
    return rp_strand_destroy(strand);
}

Test(strand, destroy_lets_blocked_submitters_go)
{
    struct rp_pool *pool = pool_make(1, NULL);

    for (int round = 0; round < 50; round++) {
        struct bank bank = {0};
        struct rp_allocator allocator = bank_allocator(&bank);
        struct rp_strand_options options = {.max_queued = 1 + (unsigned)round % 3, .allocator = &allocator};
        struct rp_strand *strand = strand_make(pool, &options);
        struct gate gate = {0};
        struct ledger ledger = {0};
        struct racer racer[4];
        struct caller destroyer;
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
        AWAIT(load_seq(&gate.inside) == 1);
        for (int i = 0; i < 4; i++) {
            racer[i] = (struct racer){.strand = strand, .ledger = &ledger};
            cr_assert_eq(pthread_create(&racer[i].thread, NULL, racer_main, &racer[i]), 0);
        }
        AWAIT(pool_look(pool).blocked >= 1);
        for (int i = 0; i < 4; i++)
            AWAIT(load_seq(&racer[i].tid) && sleeps(&racer[i]));
        caller_start(&destroyer, pool, call_destroy, strand);
        AWAIT(load_seq(&ledger.refused) >=
              1); /* at least one is beyond the limit, and goes; others wait for the pool */
        gate_open(&gate);
        for (int i = 0; i < 4; i++)
            cr_assert_eq(pthread_join(racer[i].thread, NULL), 0);
        cr_assert_eq(caller_end(&destroyer), 0);
        cr_assert_eq(load_seq(&ledger.accepted) + load_seq(&ledger.refused), 4);
        cr_assert(ledger_balances(&ledger));
        cr_assert_eq(load_seq(&bank.live), 0);
    }
    pool_end(pool);
}

/* --- fork ------------------------------------------------------------------------------------------------------- */

struct parent {
    struct rp_strand *strand;
    struct bank *bank;
};

static int child_of_strand(void *arg)
{
    struct parent *parent = arg;
    struct rp_strand_snapshot seen;

    CHECK(rp_strand_submit(parent->strand, 1, count_task, NULL) == -ECHILD);
    CHECK(rp_strand_release(parent->strand) == -ECHILD);
    CHECK(rp_strand_release_until(parent->strand, 0) == -ECHILD);
    CHECK(rp_strand_snapshot(parent->strand, &seen) == -ECHILD);
    CHECK(rp_strand_destroy(parent->strand) == 0);
    CHECK(load_seq(&parent->bank->live) == 1); /* the task that runs in the parent */
    return 0;
}

Test(strand, a_forked_child_is_refused_and_leaves_the_parent_alone)
{
    struct rp_pool *pool = queueing_pool(1);
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct parent parent = {.strand = strand_make(pool, &(struct rp_strand_options){.allocator = &allocator}),
                            .bank = &bank};
    struct gate gate = {0};
    struct ledger ledger = {0};

    fill(parent.strand, &gate, &ledger);
    cr_assert_eq(in_child(child_of_strand, &parent), 0);
    gate_open(&gate);
    AWAIT(load_seq(&ledger.ran) == 6);
    cr_assert_eq(rp_strand_destroy(parent.strand), 0);
    cr_assert_eq(load_seq(&bank.live), 0);
    pool_end(pool);
}

struct forker {
    _Atomic int status;
};

static void fork_run(void *arg)
{
    pid_t pid = fork();

    if (pid == 0)
        return; /* the child ends as a thread does, and runs nothing of the key any more */
    ((struct forker *)arg)->status = child_status(pid);
}

static void not_in_child(void *arg)
{
    if (getpid() != (pid_t)(intptr_t)arg)
        _exit(77);
}

Test(strand, a_task_that_forks_runs_its_key_on_in_the_parent_only)
{
    if (UNDER_TSAN || UNDER_ASAN)
        cr_skip_test("a child that goes on is no place for a sanitizer");
    struct rp_pool *pool = queueing_pool(1);
    struct rp_strand *strand = strand_make(pool, NULL);
    struct forker forker = {.status = -2};
    struct gate gate = {0};

    cr_assert_eq(rp_strand_submit(strand, 1, gate_pass, &gate), 0);
    cr_assert_eq(rp_strand_submit(strand, 1, fork_run, &forker), 0);
    cr_assert_eq(rp_strand_submit(strand, 1, not_in_child, (void *)(intptr_t)getpid()), 0);
    gate_open(&gate);
    AWAIT(is_empty(strand));
    cr_assert_eq(forker.status, 0, "status %d", forker.status);
    cr_assert_eq(rp_strand_destroy(strand), 0);
    pool_end(pool);
}
