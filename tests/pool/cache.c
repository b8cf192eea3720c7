/*
 * The cache of ended workers: what ended is used again, and given back when nobody asks for it.
 */
#include "life.h"

#include <sys/mman.h>

struct roll {
    _Atomic uint32_t starts, highest;
};

static int note_start(void *user, unsigned worker, void **local)
{
    struct roll *roll = user;
    uint32_t highest = load_seq(&roll->highest);

    (void)local;
    while (highest < worker && !cas_seq(&roll->highest, &highest, worker))
        highest = load_seq(&roll->highest);
    add_seq(&roll->starts, 1);
    return 0;
}

/* Where tasks stood: frames of one function, so that two of one stack are close to each other. */
#define STOOD_MOST 64
#define CLOSE 4096

struct ground {
    struct gate *gate;
    _Atomic unsigned tasks;
    char *stood[STOOD_MOST];
};

static void stand(void *arg)
{
    struct ground *ground = arg;

    ground->stood[add_seq(&ground->tasks, 1)] = __builtin_frame_address(0);
    gate_pass(ground->gate);
}

static unsigned count_stacks(const struct ground *ground)
{
    unsigned n = 0, tasks = load_seq(&ground->tasks);

    for (unsigned i = 0; i < tasks; i++) {
        bool known = false;
        for (unsigned k = 0; k < i; k++)
            known |= labs(ground->stood[i] - ground->stood[k]) < CLOSE;
        n += !known;
    }
    return n;
}

static unsigned count_mapped(const struct ground *ground)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    unsigned char resident;
    unsigned n = 0;

    for (unsigned i = 0; i < load_seq(&ground->tasks); i++)
        n += mincore((char *)((uintptr_t)ground->stood[i] & ~(page - 1)), page, &resident) == 0;
    return n;
}

/* n tasks at once. */
static void burst(struct rp_pool *pool, unsigned n, struct ground *ground)
{
    struct gate gate = {0};

    ground->gate = &gate;
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(rp_pool_submit(pool, stand, ground), 0);
    AWAIT(load_seq(&gate.inside) == n);
    gate_open(&gate);
    AWAIT(load_seq(&gate.passed) == n);
}

/* Tuning ends workers here, with an expiry so long that no purge comes between. */
Test(pool_cache, an_ended_worker_is_used_again)
{
    struct bank bank = {0};
    struct roll roll = {0};
    struct ground ground = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_pool_options options = {.expiry_ns = 3600 * 1000 * MS,
                                      .allocator = &allocator,
                                      .worker_start = note_start,
                                      .worker_user = &roll,
                                      .name = "cached"};
    struct rp_pool *pool = pool_make(6, &options);

    burst(pool, 6, &ground);
    uint32_t calls = load_seq(&bank.calls);
    cr_assert_eq(count_stacks(&ground), 6);
    cr_assert_eq(rp_pool_workers(pool, NULL, 0), 6);
    for (int round = 0; round < 5; round++) {
        cr_assert_eq(rp_pool_tune(pool, 1), 0);
        AWAIT(rp_pool_running(pool) == 1);
        AWAIT(count_threads_named("cached") == 1);
        cr_assert_eq(rp_pool_tune(pool, 6), 0);
        burst(pool, 6, &ground);
    }
    cr_assert_eq(load_seq(&bank.calls), calls);
    cr_assert_eq(rp_pool_workers(pool, NULL, 0), 6, "no descriptor is made anew");
    cr_assert_eq(count_stacks(&ground), 6, "nor a stack");
    cr_assert_eq(load_seq(&roll.starts), 6 + 5 * 5);
    cr_assert_eq(load_seq(&roll.highest), 5, "numbers are reused");
    pool_end(pool);
    cr_assert_eq(load_seq(&bank.live), 0);
    cr_assert_eq(count_mapped(&ground), 0);
}

Test(pool_cache, what_is_not_used_between_two_purges_is_freed)
{
    struct rp_pool_options options = {.expiry_ns = 10 * MS};
    struct rp_pool *pool = pool_make(12, &options);

    for (int round = 0; round < 4; round++) {
        struct gate gate = {0};
        struct ground ground = {.gate = &gate};
        for (int i = 0; i < 12; i++)
            cr_assert_eq(rp_pool_submit(pool, stand, &ground), 0);
        AWAIT(load_seq(&gate.inside) == 12);
        cr_assert_eq(count_stacks(&ground), 12);
        cr_assert_eq(count_mapped(&ground), 12);
        cr_assert_geq(rp_pool_workers(pool, NULL, 0), 12);
        gate_open(&gate);
        AWAIT(rp_pool_workers(pool, NULL, 0) == 0); /* descriptors too */
        AWAIT(count_mapped(&ground) == 0);
        AWAIT(load_seq(&gate.passed) == 12);
    }
    pool_end(pool);
}

Test(pool_cache, counters_survive_the_descriptors)
{
    struct rp_pool_options options = {.expiry_ns = 5 * MS};
    struct rp_pool *pool = pool_make(8, &options);
    struct ground ground = {0};

    for (unsigned round = 1; round <= 5; round++) {
        burst(pool, 8, &ground);
        AWAIT(rp_pool_running(pool) == 0);
        AWAIT(rp_pool_workers(pool, NULL, 0) == 0);
        struct rp_pool_snapshot seen = pool_look(pool);
        cr_assert_eq(seen.completed, 8 * round);
        cr_assert_eq(seen.submitted, 8 * round);
    }
    pool_end(pool);
}

/* --- many ------------------------------------------------------------------------------------------------------- */

#define MANY 10000
/* Slack for what malloc, the C library and the RCU library keep. Ten thousand idle stacks are 80 MiB and more. */
#define RESIDENT_SLACK (32L << 20)

/* A small machine's kernel allows few threads in all. Not all that it allows: others live there too. */
static bool kernel_allows_threads(long n)
{
    static const char *const limits[] = {"/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"};
    long most = LONG_MAX;

    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        FILE *file = fopen(limits[i], "re");
        long limit;
        if (file && fscanf(file, "%ld", &limit) == 1 && limit < most)
            most = limit;
        if (file)
            fclose(file);
    }
    return most > n + n / 4;
}

Test(pool_cache, ten_thousand_workers_come_and_go)
{
    if (UNDER_TSAN || UNDER_ASAN || UNDER_MEMCHECK)
        cr_skip_test("a sanitizer has fewer threads than this test, and keeps memory");
    if (!kernel_allows_threads(MANY))
        cr_skip_test("the kernel of this machine allows fewer threads in all");
    struct holdings before = holdings_now();
    long resident = resident_bytes();
    struct rp_pool_options options = {.prealloc = true, .expiry_ns = 300 * MS, .stack_size = 65536, .name = "many"};
    struct rp_pool *pool;
    struct gate gate = {0};

    int rc = rp_pool_create(&pool, MANY, &options);
    if (rc == -EAGAIN || rc == -ENOMEM)
        cr_skip_test("the limits of this machine forbid ten thousand threads");
    cr_assert_eq(rc, 0);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == MANY);
    cr_assert_eq(rp_pool_busy(pool), MANY);
    gate_open(&gate);
    AWAIT(rp_pool_running(pool) == 0);
    AWAIT(rp_pool_workers(pool, NULL, 0) == 0); /* the cache is empty */
    AWAIT(count_threads_named("many") == 0);
    cr_assert(COMES_TRUE(resident_bytes() <= resident + RESIDENT_SLACK), "%ld bytes stay", resident_bytes() - resident);
    pool_end(pool);
    ASSERT_NOTHING_LEFT(before);
}

/*
 * Adversary: of so many some sleep on private futexes and some on shared ones (see futex_crowd_join), and which of both
 * a descriptor's worker has may be another one after each life.
 */
Test(pool_cache, each_of_a_crowd_is_called_and_ended_in_life_after_life)
{
    enum { CROWD = 400 };
    struct rp_pool_options options = {.prealloc = true, .no_purge = true};
    struct rp_pool *pool = pool_make(CROWD, &options);

    for (unsigned life = 0; life < 3; life++) {
        for (unsigned round = 0; round < 2; round++) {
            struct gate gate = {0};
            for (int i = 0; i < CROWD; i++)
                cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
            AWAIT(load_seq(&gate.inside) == CROWD);
            gate_open(&gate);
            AWAIT(load_seq(&gate.passed) == CROWD && rp_pool_busy(pool) == 0);
        }
        cr_assert_eq(rp_pool_tune(pool, life ? 1 : CROWD / 2), 0);
        AWAIT(rp_pool_running(pool) <= (life ? 1 : CROWD / 2));
        cr_assert_eq(rp_pool_tune(pool, CROWD), 0);
    }
    pool_end(pool);
}
