/*
 * Creation: what it refuses, what it makes, and that a refusal leaves nothing behind.
 */
#include "life.h"

#include <sched.h>

/* --- refusals --------------------------------------------------------------------------------------------------- */

struct refusal {
    const char *why;
    unsigned capacity;
    struct rp_pool_options options;
    int rc;
};

static int create_refused(const struct refusal *row)
{
    struct rp_pool *pool = (struct rp_pool *)(uintptr_t)1;
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool_options options = row->options;

    if (!options.allocator)
        options.allocator = &allocator;
    int rc = rp_pool_create(&pool, row->capacity, &options);
    cr_assert_null(pool, "%s: the pointer is not cleared", row->why);
    cr_assert_eq(load_seq(&bank.live), 0, "%s: memory stays", row->why);
    return rc;
}

static void *some_malloc(void *user, size_t size)
{
    (void)user;
    return malloc(size);
}

Test(pool_create, every_option_out_of_range_is_refused_and_leaves_nothing)
{
    static const cpu_set_t none;
    static const struct rp_allocator third = {.malloc = some_malloc};
    const struct refusal rows[] = {
        {"negative expiry", 2, {.expiry_ns = -1}, -EINVAL},
        {"prealloc without limit", RP_UNLIMITED, {.prealloc = true}, -EINVAL},
        {"nonblocking with max_blocking", 2, {.nonblocking = true, .max_blocking = 1}, -EINVAL},
        {"minimum above capacity", 2, {.min_workers = 3}, -EINVAL},
        {"minimum above all", RP_UNLIMITED, {.min_workers = RP_WORKERS_MAX + 1}, -EINVAL},
        {"queue depth", 2, {.queue_depth = RP_QUEUE_DEPTH_MAX + 1}, -EINVAL},
        {"overload", 2, {.overload = RP_OVERLOAD_CALLER_RUNS + 1}, -EINVAL},
        {"negative overload", 2, {.overload = -1}, -EINVAL},
        {"release policy", 2, {.release_policy = RP_RELEASE_DROP + 1}, -EINVAL},
        {"negative release policy", 2, {.release_policy = -1}, -EINVAL},
        {"stack size", 2, {.stack_size = 4096}, -EINVAL},
        {"stack beyond all memory", 2, {.stack_size = SIZE_MAX}, -EINVAL},
        {"allocator in part", 2, {.allocator = &third}, -EINVAL},
        {"cpus without size", 2, {.cpus = &none}, -EINVAL},
        {"size without cpus", 2, {.cpus_size = sizeof(none)}, -EINVAL},
        {"no cpu at all", 2, {.cpus = &none, .cpus_size = sizeof(none)}, -EINVAL},
        {"scheduling policy", 2, {.sched_policy = 99}, -EINVAL},
        {"negative scheduling policy", 2, {.sched_policy = -1}, -EINVAL},
        {"priority below", 2, {.sched_policy = SCHED_FIFO, .sched_priority = 0}, -EINVAL},
        {"priority above", 2, {.sched_policy = SCHED_RR, .sched_priority = 1000}, -EINVAL},
        {"backend", 2, {.backend = RP_BACKEND_EPOLL + 1}, -EINVAL},
        {"negative backend", 2, {.backend = -1}, -EINVAL},
        {"log level", 2, {.log_level = RP_LOG_NONE + 1}, -EINVAL},
        {"negative log level", 2, {.log_level = -1}, -EINVAL},
        {"extra workers", 2, {.max_extra = RP_WORKERS_MAX + 1}, -EINVAL},
        {"capacity above all", RP_WORKERS_MAX + 1, {0}, -EINVAL},
        {"capacity just below no limit", RP_UNLIMITED - 1, {0}, -EINVAL},
    };
    struct holdings before = holdings_now();

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int rc = create_refused(&rows[i]);
        cr_assert_eq(rc, rows[i].rc, "%s gave %d", rows[i].why, rc);
    }
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_create, each_reserved_word_must_be_zero)
{
    struct refusal row = {.why = "reserved", .capacity = 1};

    for (size_t i = 0; i < sizeof(row.options.reserved) / sizeof(row.options.reserved[0]); i++) {
        row.options.reserved[i] = UINT64_C(1) << 63;
        cr_assert_eq(create_refused(&row), -EINVAL, "word %zu", i);
        row.options.reserved[i] = 0;
    }
}

Test(pool_create, a_null_pool_is_refused_by_every_call)
{
    struct rp_pool_snapshot snapshot;
    struct rp_task task = {.fn = count_task};
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_create(NULL, 1, NULL), -EINVAL);
    cr_assert_eq(rp_pool_submit(NULL, count_task, &ran), -EINVAL);
    cr_assert_eq(rp_pool_try_submit(NULL, count_task, &ran), -EINVAL);
    cr_assert_eq(rp_pool_submit_until(NULL, count_task, &ran, 0), -EINVAL);
    cr_assert_eq(rp_pool_submit_task(NULL, &task), -EINVAL);
    cr_assert_eq(rp_pool_submit_batch(NULL, &task, 1), -EINVAL);
    cr_assert_eq(rp_pool_tune(NULL, 1), -EINVAL);
    cr_assert_eq(rp_pool_prewarm(NULL, 1), -EINVAL);
    cr_assert_eq(rp_pool_release(NULL), -EINVAL);
    cr_assert_eq(rp_pool_release_until(NULL, 0, NULL), -EINVAL);
    cr_assert_eq(rp_pool_reboot(NULL), -EINVAL);
    cr_assert_eq(rp_pool_destroy(NULL), -EINVAL);
    cr_assert_eq(rp_pool_snapshot(NULL, &snapshot), -EINVAL);
    cr_assert_eq(rp_pool_workers(NULL, NULL, 0), -EINVAL);
    cr_assert_eq(rp_pool_running(NULL) + rp_pool_busy(NULL) + rp_pool_free(NULL) + rp_pool_waiting(NULL), 0);
    cr_assert_eq(rp_pool_cap(NULL), 0);
    cr_assert(rp_pool_is_closed(NULL));
}

/* --- what it makes ---------------------------------------------------------------------------------------------- */

/* The CPUs that the test may use, and how many. */
static cpu_set_t allowed_cpus(unsigned *n)
{
    cpu_set_t cpus;

    cr_assert_eq(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    *n = (unsigned)CPU_COUNT(&cpus);
    return cpus;
}

static void stay_on_one_cpu(void)
{
    unsigned n;
    cpu_set_t cpus = allowed_cpus(&n), one;

    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &cpus) && CPU_COUNT(&one) == 0)
            CPU_SET(cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
}

Test(pool_create, capacity_zero_is_what_affinity_and_quota_allow)
{
    unsigned cpus;
    allowed_cpus(&cpus);
    struct rp_pool *wide = pool_make(0, NULL);
    cr_assert_geq(rp_pool_cap(wide), 1);
    cr_assert_leq(rp_pool_cap(wide), cpus);

    stay_on_one_cpu();
    struct rp_pool *narrow = pool_make(0, NULL);
    cr_assert_eq(rp_pool_cap(narrow), 1);

    cr_assert_eq(rp_pool_tune(wide, 0), 0);
    cr_assert_eq(rp_pool_cap(wide), 1, "tune computes the default anew");
    pool_end(wide);
    pool_end(narrow);
}

Test(pool_create, without_a_minimum_no_worker_is_made)
{
    struct rp_pool_options options = {.name = "lazy"};
    struct rp_pool *pool = pool_make(4, &options);

    cr_assert_eq(rp_pool_running(pool), 0);
    cr_assert_eq(count_threads_named("lazy"), 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.capacity, 4);
    cr_assert_eq(seen.spawned, 0);
    cr_assert_not(seen.closed);
    cr_assert_eq(rp_pool_free(pool), 4);
    pool_end(pool);
}

Test(pool_create, prealloc_makes_all_workers_and_lets_them_expire)
{
    struct rp_pool_options options = {.prealloc = true, .name = "pre", .expiry_ns = 20 * MS, .min_workers = 2};
    struct rp_pool *pool = pool_make(6, &options);

    cr_assert_eq(pool_look(pool).spawned, 6);
    AWAIT(rp_pool_running(pool) == 2);
    AWAIT(count_threads_named("pre") == 2);
    AWAIT(pool_look(pool).expired == 4);
    pool_end(pool);
}

Test(pool_create, prewarm_makes_workers_ahead_up_to_the_capacity)
{
    struct rp_pool_options options = {.no_purge = true, .name = "warm"};
    struct rp_pool *pool = pool_make(6, &options);

    cr_assert_eq(rp_pool_prewarm(pool, 0), 0);
    cr_assert_eq(rp_pool_prewarm(pool, 4), 4);
    cr_assert_eq(rp_pool_running(pool), 4);
    cr_assert_eq(rp_pool_prewarm(pool, 2), 4, "none is ended");
    cr_assert_eq(rp_pool_prewarm(pool, 100), 6);
    AWAIT(count_threads_named("warm") == 6); /* they name themselves */
    cr_assert_eq(pool_look(pool).spawned, 6);
    cr_assert_eq(rp_pool_release(pool), 0);
    cr_assert_eq(rp_pool_prewarm(pool, 1), -ESHUTDOWN);
    pool_end(pool);
}

Test(pool_create, preallocated_workers_stay_without_purge)
{
    struct rp_pool_options options = {.prealloc = true, .no_purge = true, .expiry_ns = 1 * MS, .name = "stay"};
    struct rp_pool *pool = pool_make(5, &options);

    nap(50 * MS); /* many expiries */
    cr_assert_eq(rp_pool_running(pool), 5);
    cr_assert_eq(count_threads_named("stay"), 5);
    cr_assert_eq(pool_look(pool).expired, 0);
    pool_end(pool);
}

Test(pool_create, minimum_workers_never_expire)
{
    struct rp_pool_options options = {.min_workers = 3, .expiry_ns = 1 * MS, .name = "min"};
    struct rp_pool *pool = pool_make(8, &options);
    struct gate gate = {0};

    cr_assert_eq(rp_pool_running(pool), 3);
    cr_assert_eq(count_threads_named("min"), 3);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 8);
    gate_open(&gate);
    AWAIT(rp_pool_running(pool) == 3);
    nap(50 * MS); /* many expiries */
    cr_assert_eq(rp_pool_running(pool), 3);
    pool_end(pool);
}

Test(pool_create, standing_workers_are_made_again_by_a_reboot)
{
    struct rp_pool_options options = {.min_workers = 3, .name = "again"};
    struct rp_pool *pool = pool_make(4, &options);

    for (int round = 0; round < 5; round++) {
        cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
        cr_assert_eq(rp_pool_running(pool), 0);
        cr_assert_eq(rp_pool_reboot(pool), 0);
        AWAIT(rp_pool_running(pool) == 3);
        AWAIT(count_threads_named("again") == 3);
    }
    pool_end(pool);
}

Test(pool_create, options_name_and_allocator_are_copied)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    char name[] = "copy";
    struct rp_pool_options options = {.name = name, .allocator = &allocator, .no_purge = true};
    struct rp_pool *pool = pool_make(1, &options);
    _Atomic uint32_t ran = 0;

    memset(name, 'x', sizeof(name) - 1);
    memset(&allocator, 0xff, sizeof(allocator));
    memset(&options, 0xff, sizeof(options));
    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 1);
    AWAIT(count_threads_named("copy") == 1);
    pool_end(pool);
    cr_assert_eq(load_seq(&bank.live), 0);
}

/* Alone in its process, so that the reactors counted are this test's. */
Test(pool_create, pools_share_a_reactor_unless_one_asks_for_its_own)
{
    struct holdings before = holdings_now();
    struct rp_pool_options own = {.own_reactor = true};
    struct rp_pool *a = pool_make(1, NULL), *b = pool_make(1, NULL);

    AWAIT(count_threads_named("rp-reactor") == 1);
    struct rp_pool *c = pool_make(1, &own);
    AWAIT(count_threads_named("rp-reactor") == 2);
    pool_end(a);
    pool_end(c);
    AWAIT(count_threads_named("rp-reactor") == 1);
    pool_end(b);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_create, a_backend_asked_for_by_name_is_had_or_refused)
{
    struct holdings before = holdings_now();
    struct rp_pool_options options = {.backend = RP_BACKEND_EPOLL};
    struct rp_pool *pool = pool_make(1, &options);
    pool_end(pool);

    options.backend = RP_BACKEND_IO_URING;
    int rc = rp_pool_create(&pool, 1, &options);
    if (strncmp(rp_backend(), "io_uring", 8) == 0) {
        cr_assert_eq(rc, 0);
        pool_end(pool);
    } else {
        cr_assert(rc == -ENOSYS || rc == -EPERM, "gave %d though the backend is %s", rc, rp_backend());
        cr_assert_null(pool);
    }
    ASSERT_NOTHING_LEFT(before);
}
