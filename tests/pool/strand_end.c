/*
 * How strands end: by release, with their pool, by destroy inside a task and against submitters; and in a forked child.
 */
#include "strands.h"

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
