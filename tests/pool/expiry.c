/*
 * Expiry: idle workers end, the longest idle first, never below the minimum, never at the price of a task; and a pool
 * that has nothing to expire sleeps.
 */
#include "life.h"

static void burst(struct rp_pool *pool, unsigned n)
{
    struct gate gate = {0};

    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == n);
    gate_open(&gate);
    AWAIT(load_seq(&gate.passed) == n);
}

Test(pool_expiry, idle_workers_end)
{
    struct rp_pool_options options = {.expiry_ns = 10 * MS, .name = "exp"};
    struct rp_pool *pool = pool_make(8, &options);

    for (unsigned round = 1; round <= 3; round++) {
        burst(pool, 8);
        AWAIT(rp_pool_running(pool) == 0);
        AWAIT(count_threads_named("exp") == 0);
    }
    AWAIT(pool_look(pool).expired == pool_look(pool).spawned);
    cr_assert_eq(pool_look(pool).completed, 24);
    pool_end(pool);
}

/* Of all workers only the first begins; the others are held at their start, and then fail. */
struct chosen {
    struct gate gate;
    _Atomic uint32_t started, stopped, ran;
};

static int chosen_start(void *user, unsigned worker, void **local)
{
    struct chosen *chosen = user;

    (void)worker;
    (void)local;
    if (add_seq(&chosen->started, 1) == 0)
        return 0;
    gate_pass(&chosen->gate);
    return -EPERM;
}

static void chosen_stop(void *user, unsigned worker, void *local)
{
    struct chosen *chosen = user;

    (void)worker;
    (void)local;
    add_seq(&chosen->stopped, 1);
}

/*
 * Adversary: a second worker whose start takes so long that the first idles past its expiry, and then fails, as do all
 * that are made after it. Holds: who may yet fail is not counted on, so the first stays, and runs what is submitted.
 */
Test(pool_expiry, the_minimum_does_not_leave_for_a_worker_that_fails_to_begin)
{
    struct chosen chosen = {0};
    struct rp_pool_options options = {.min_workers = 1,
                                      .queue_depth = 8,
                                      .expiry_ns = 1 * MS,
                                      .worker_start = chosen_start,
                                      .worker_stop = chosen_stop,
                                      .worker_user = &chosen,
                                      .log_level = RP_LOG_NONE};
    struct rp_pool *pool = pool_make(2, &options);
    struct gate gate = {0};

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    cr_assert_eq(rp_pool_submit(pool, count_task, &chosen.ran), 0);
    AWAIT(load_seq(&chosen.gate.inside) == 1);
    gate_open(&gate);
    AWAIT(load_seq(&chosen.ran) == 1);
    nap(50 * MS); /* many expiries */
    gate_open(&chosen.gate);
    AWAIT(load_seq(&chosen.gate.passed) >= 1);
    cr_assert_eq(rp_pool_submit(pool, count_task, &chosen.ran), 0);
    AWAIT(load_seq(&chosen.ran) == 2);
    cr_assert_eq(load_seq(&chosen.stopped), 0);
    pool_end(pool);
}

Test(pool_expiry, no_purge_keeps_all)
{
    struct rp_pool_options options = {.expiry_ns = 1 * MS, .no_purge = true};
    struct rp_pool *pool = pool_make(5, &options);

    burst(pool, 5);
    nap(50 * MS); /* many expiries */
    cr_assert_eq(rp_pool_running(pool), 5);
    pool_end(pool);
}

/* Whether the worker that announced itself under this thread id sleeps idle. */
static bool worker_is_parked(struct rp_pool *pool, _Atomic uint32_t *tid)
{
    struct rp_worker_info info[8];
    int n = rp_pool_workers(pool, info, 8);
    char text[24], stat[512];

    for (int i = 0; i < n && i < 8; i++) {
        if ((uint32_t)info[i].tid != load_seq(tid) || info[i].state != RP_WORKER_IDLE)
            continue;
        snprintf(text, sizeof(text), "%d", info[i].tid);
        thread_file(text, "stat", stat, sizeof(stat));
        const char *state = strrchr(stat, ')');
        return state && state[1] && state[2] == 'S';
    }
    return false;
}

struct held {
    struct gate gate;
    _Atomic uint32_t tid;
};

static void hold(void *arg)
{
    struct held *held = arg;

    store_seq(&held->tid, (uint32_t)gettid());
    gate_pass(&held->gate);
}

static bool thread_lives(uint32_t tid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/task/%u", tid);
    return access(path, F_OK) == 0;
}

/* Each tick may find workers on the stack while those that an earlier one told to end are still on their way. */
Test(pool_expiry, expired_counts_those_that_ended_not_those_that_were_told_to)
{
    struct rp_pool_options options = {.prealloc = true, .expiry_ns = MS / 4, .min_workers = 100};
    struct rp_pool *pool = pool_make(200, &options);

    AWAIT(rp_pool_running(pool) == 100);
    AWAIT(pool_look(pool).expired == pool_look(pool).spawned - 100);
    struct timespec ticks = {.tv_nsec = 20 * MS};
    nanosleep(&ticks, NULL); /* of which none may count one more */
    cr_assert_eq(pool_look(pool).expired, pool_look(pool).spawned - 100);
    pool_end(pool);
}

/* Adversary: workers that were told to end with the pool find it open again. */
Test(pool_expiry, a_worker_that_a_release_ends_has_not_expired)
{
    struct rp_pool_options options = {.prealloc = true, .no_purge = true};

    for (int i = 0; i < 40; i++) {
        struct rp_pool *pool = pool_make(16, &options);
        AWAIT(rp_pool_running(pool) == 16);
        cr_assert_eq(rp_pool_release(pool), 0);
        cr_assert_eq(rp_pool_reboot(pool), 0);
        AWAIT(rp_pool_running(pool) == 16);
        cr_assert_eq(pool_look(pool).expired, 0);
        pool_end(pool);
    }
}

/* One that looked for its task before that was published may have parked and expired: it is not among the three. */
Test(pool_expiry, busy_workers_do_not_expire)
{
    struct rp_pool_options options = {.expiry_ns = 1 * MS};
    struct rp_pool *pool = pool_make(3, &options);
    struct held held[3] = {0};

    for (int i = 0; i < 3; i++)
        cr_assert_eq(rp_pool_submit(pool, hold, &held[i]), 0);
    for (int i = 0; i < 3; i++)
        AWAIT(load_seq(&held[i].gate.inside) == 1);
    nap(50 * MS); /* many expiries */
    cr_assert_eq(rp_pool_running(pool), 3);
    for (int i = 0; i < 3; i++) {
        cr_assert(thread_lives(load_seq(&held[i].tid)));
        gate_open(&held[i].gate);
    }
    AWAIT(rp_pool_running(pool) == 0);
    pool_end(pool);
}

/* Whatever the tick's timing: those that remain are the ones that went idle last. */
Test(pool_expiry, the_longest_idle_end_first)
{
    struct rp_pool_options options = {.expiry_ns = 100 * MS, .min_workers = 2};
    struct rp_pool *pool = pool_make(6, &options);
    struct held held[6] = {0};

    for (int i = 0; i < 6; i++)
        cr_assert_eq(rp_pool_submit(pool, hold, &held[i]), 0);
    for (int i = 0; i < 6; i++)
        AWAIT(load_seq(&held[i].gate.inside) == 1);
    for (int i = 0; i < 6; i++) {
        gate_open(&held[i].gate);
        AWAIT(!thread_lives(load_seq(&held[i].tid)) || worker_is_parked(pool, &held[i].tid));
    }
    AWAIT(rp_pool_running(pool) == 2);
    for (int i = 0; i < 4; i++)
        AWAIT(!thread_lives(load_seq(&held[i].tid)));
    cr_assert(thread_lives(load_seq(&held[4].tid)));
    cr_assert(thread_lives(load_seq(&held[5].tid)));
    pool_end(pool);
}

/*
 * Adversary: an expiry as long as the gaps between the tasks, so that the ticker takes the idle stack apart while
 * submitters pop it and workers park and leave. Every task must start, whoever is told to leave: whoever leaves looks
 * at the queue after it gave up its place, and the ticker looks after it put the list back.
 */
Test(pool_expiry, racing_hand_off_loses_nothing)
{
    struct rp_pool_options options = {.expiry_ns = 1 * MS};
    struct rp_pool *pool = pool_make(4, &options);
    _Atomic uint32_t ran = 0;
    uint32_t sent = 0;

    for (int64_t until = rp_after(1000 * MS); rp_now() < until;) {
        for (int i = 0; i < 3; i++, sent++)
            cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
        AWAIT(load_seq(&ran) == sent);
        nap(MS * (2 + sent % 7) / 4); /* 0.5 to 2 expiries */
    }
    pool_end(pool);
    cr_assert_eq(load_seq(&ran), sent);
}

/* --- at rest ---------------------------------------------------------------------------------------------------- */

static long switches_of(const char *tid, void *prefix)
{
    char status[4096];

    if (!thread_is_named(tid, prefix) && !thread_is_named(tid, "rp-reactor"))
        return 0;
    thread_file(tid, "status", status, sizeof(status));
    const char *line = strstr(status, "\nvoluntary_ctxt_switches:");
    return line ? atol(strchr(line, ':') + 1) : 0;
}

/* Whether no thread of the pool nor the reactor wakes for 300 ms, in the end. */
static bool comes_to_rest(const char *prefix)
{
    int64_t give_up = rp_after(PATIENCE);

    do {
        long before = directory_sum("/proc/self/task", switches_of, (void *)(uintptr_t)prefix);
        nap(300 * MS);
        if (directory_sum("/proc/self/task", switches_of, (void *)(uintptr_t)prefix) == before)
            return true;
    } while (rp_now() < give_up);
    return false;
}

Test(pool_expiry, an_idle_pool_at_its_minimum_wakes_nobody)
{
    struct rp_pool_options options = {.expiry_ns = 20 * MS, .min_workers = 2, .name = "rest"};
    struct rp_pool *pool = pool_make(6, &options);

    burst(pool, 6);
    AWAIT(rp_pool_running(pool) == 2);
    cr_assert(comes_to_rest("rest"), "something ticks though nothing can expire");
    cr_assert_eq(rp_pool_running(pool), 2);
    pool_end(pool);
}

Test(pool_expiry, an_empty_pool_wakes_nobody)
{
    struct rp_pool_options options = {.expiry_ns = 20 * MS, .name = "empty"};
    struct rp_pool *pool = pool_make(6, &options);

    burst(pool, 6);
    AWAIT(rp_pool_running(pool) == 0);
    cr_assert(comes_to_rest("empty"), "something ticks though nothing can expire");
    pool_end(pool);
}

Test(pool_expiry, a_pool_without_purge_wakes_nobody)
{
    struct rp_pool_options options = {.expiry_ns = 20 * MS, .no_purge = true, .name = "kept"};
    struct rp_pool *pool = pool_make(6, &options);

    burst(pool, 6);
    cr_assert(comes_to_rest("kept"), "something ticks though nothing can expire");
    pool_end(pool);
}
