/*
 * `ringpool bench lock`: rp_lock beside pthread_mutex_t and a pure spinlock.
 *
 * Uncontended: nanoseconds for one acquire and release by one thread. Contended: sections per second of all threads
 * together, each thread taking the lock again at once; a section adds one to a plain counter and, if asked, computes
 * for a while. The rounds are interleaved, each lock in turn at each number of threads, so that a neighbour's load hits
 * them alike, and the order rotates. Each counter must equal the number of sections, or the lock excludes nobody.
 *
 * What it leaves out: fairness, the CPU time of waiters (a spinner burns its share, a parked waiter none), sections
 * with system calls. All three are called through a pointer, which adds the same nanosecond or two to each. Lock and
 * counter share a cache line, as they mostly do in programs.
 */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <ringpool/base.h>
#include <ringpool/lock.h>

#include "command.h"

#define ROUNDS 5
#define THREADS_MOST 256
#define UNCONTENDED_PAIRS 100000
#define NS_PER_MS 1000000

/* Two lines: the prefetcher fetches them in pairs. */
#define LINES 128

/* --- the locks ---------------------------------------------------------------------------------------------------- */

struct arena {
    union {
        struct rp_lock rp;
        pthread_mutex_t mutex;
        atomic_bool spin;
    } lock;
    uint64_t counter; /* guarded by the lock */
} __attribute__((aligned(LINES)));

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static void rp_acquire(struct arena *arena)
{
    rp_lock_acquire(&arena->lock.rp);
}

static void rp_release(struct arena *arena)
{
    rp_lock_release(&arena->lock.rp);
}

static void mutex_acquire(struct arena *arena)
{
    pthread_mutex_lock(&arena->lock.mutex);
}

static void mutex_release(struct arena *arena)
{
    pthread_mutex_unlock(&arena->lock.mutex);
}

/* Test-and-set; waits on a plain load, so that the line stays shared until the holder writes. */
static void spin_acquire(struct arena *arena)
{
    while (atomic_exchange_explicit(&arena->lock.spin, true, memory_order_acquire))
        while (atomic_load_explicit(&arena->lock.spin, memory_order_relaxed))
            relax();
}

static void spin_release(struct arena *arena)
{
    atomic_store_explicit(&arena->lock.spin, false, memory_order_release);
}

static const struct kind {
    const char *name;
    void (*acquire)(struct arena *arena);
    void (*release)(struct arena *arena);
} kinds[] = {
    {"rp_lock", rp_acquire, rp_release},
    {"pthread_mutex", mutex_acquire, mutex_release},
    {"spinlock", spin_acquire, spin_release},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* All zero is the unlocked state of each: rp_lock and the flag by definition, the mutex by its initialiser. */
static void arena_reset(struct arena *arena, const struct kind *kind)
{
    memset(arena, 0, sizeof(*arena));
    if (kind->acquire == mutex_acquire)
        arena->lock.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

/* --- the section -------------------------------------------------------------------------------------------------- */

/* Arithmetic in which each step needs the one before, so that its time grows with the number of steps alone. */
static void compute(uint64_t steps)
{
    uint64_t x = steps;

    for (uint64_t i = 0; i < steps; i++) {
        x = x * 6364136223846793005U + 1442695040888963407U;
        __asm__ volatile("" : "+r"(x));
    }
}

/* How many steps take ns: the best of a few tries, since an interruption only ever makes a try longer. */
static uint64_t calibrate(uint64_t ns)
{
    enum { TRIES = 5, STEPS = 200000 };
    int64_t best = INT64_MAX;

    if (ns == 0)
        return 0;
    for (int i = 0; i < TRIES; i++) {
        int64_t begun = rp_now(), took;

        compute(STEPS);
        took = rp_now() - begun;
        best = took < best ? took : best;
    }
    return (uint64_t)((double)ns * STEPS / (double)(best > 0 ? best : 1)) + 1;
}

/* --- one measurement ---------------------------------------------------------------------------------------------- */

struct run {
    const struct kind *kind;
    struct arena *arena;
    uint64_t steps;
    pthread_mutex_t gate; /* closed (held) until all threads are there */
    atomic_bool stop;     /* relaxed: a flag that publishes nothing */
};

struct thread {
    pthread_t id;
    struct run *run;
    uint64_t sections;
} __attribute__((aligned(LINES)));

/* What a round works on. */
struct scene {
    struct arena *arena;
    struct thread *threads;
    uint64_t ms, steps;
};

struct result {
    double figure;
    bool exact; /* the counter says what the threads say */
};

static void *thread_main(void *arg)
{
    struct thread *self = arg;
    struct run *run = self->run;
    uint64_t sections = 0;

    pthread_mutex_lock(&run->gate);
    pthread_mutex_unlock(&run->gate);
    while (!atomic_load_explicit(&run->stop, memory_order_relaxed)) {
        run->kind->acquire(run->arena);
        run->arena->counter++;
        compute(run->steps);
        run->kind->release(run->arena);
        sections++;
    }
    self->sections = sections;
    return NULL;
}

static void sleep_ms(uint64_t ms)
{
    int64_t end = rp_after((int64_t)ms * NS_PER_MS);
    struct timespec t = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* Sections per second of n threads: 0 or a negative errno. The time ends with the last thread's last section. */
static int measure_contended(const struct scene *scene, const struct kind *kind, unsigned n, struct result *result)
{
    struct run run = {
        .kind = kind,
        .arena = scene->arena,
        .steps = scene->steps,
        .gate = PTHREAD_MUTEX_INITIALIZER,
    };
    uint64_t sections = 0;
    unsigned made = 0;
    int64_t begun, took;
    int rc = 0;

    arena_reset(scene->arena, kind);
    pthread_mutex_lock(&run.gate);
    while (made < n && rc == 0) {
        scene->threads[made].run = &run;
        rc = pthread_create(&scene->threads[made].id, NULL, thread_main, &scene->threads[made]);
        made += rc == 0;
    }
    begun = rp_now();
    atomic_store_explicit(&run.stop, rc != 0, memory_order_relaxed);
    pthread_mutex_unlock(&run.gate);
    if (rc == 0)
        sleep_ms(scene->ms);
    atomic_store_explicit(&run.stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < made; i++) {
        pthread_join(scene->threads[i].id, NULL);
        sections += scene->threads[i].sections;
    }
    took = rp_now() - begun;
    *result = (struct result){
        .figure = (double)sections * 1e9 / (double)(took > 0 ? took : 1),
        .exact = sections == scene->arena->counter,
    };
    return -rc;
}

/* Nanoseconds for a pair of acquire and release around the addition. */
static struct result measure_uncontended(const struct scene *scene, const struct kind *kind)
{
    struct arena *arena = scene->arena;
    int64_t begun;

    arena_reset(arena, kind);
    begun = rp_now();
    for (unsigned i = 0; i < UNCONTENDED_PAIRS; i++) {
        kind->acquire(arena);
        arena->counter++;
        kind->release(arena);
    }
    return (struct result){
        .figure = (double)(rp_now() - begun) / UNCONTENDED_PAIRS,
        .exact = arena->counter == UNCONTENDED_PAIRS,
    };
}

/* --- the rounds --------------------------------------------------------------------------------------------------- */

/* Row 0 is the uncontended one, the others are numbers of threads. */
#define ROWS_MOST 4

struct table {
    unsigned rows;
    unsigned threads[ROWS_MOST];
    double figures[ROWS_MOST][KINDS][ROUNDS];
    bool exact;
};

static int measure_one(const struct scene *scene, struct table *table, unsigned row, size_t kind, unsigned round)
{
    struct result result;
    int rc = 0;

    if (row == 0)
        result = measure_uncontended(scene, &kinds[kind]);
    else
        rc = measure_contended(scene, &kinds[kind], table->threads[row], &result);
    table->figures[row][kind][round] = result.figure;
    table->exact &= result.exact;
    return rc;
}

static int measure_all(const struct scene *scene, struct table *table)
{
    table->exact = true;
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned row = 0; row < table->rows; row++)
            for (size_t turn = 0; turn < KINDS; turn++) {
                int rc = measure_one(scene, table, row, (turn + round) % KINDS, round);

                if (rc < 0)
                    return rc;
            }
    return 0;
}

/* --- the report --------------------------------------------------------------------------------------------------- */

static int cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static void print_row(const char *title, double (*figures)[ROUNDS], double unit)
{
    printf("%-24s", title);
    for (size_t k = 0; k < KINDS; k++) {
        struct bench_figure f = bench_summarise(figures[k], ROUNDS);
        char range[32];

        snprintf(range, sizeof(range), "(%.1f..%.1f)", f.min / unit, f.max / unit);
        printf(" %7.1f %-16s", f.median / unit, range);
    }
    putchar('\n');
}

static void report_text(struct table *table, uint64_t section, uint64_t ms)
{
    char title[32];

    printf("lock: %d CPUs, sections of %" PRIu64 " ns, %d interleaved rounds of %" PRIu64 " ms; medians (min..max)\n",
           cpus(), section, ROUNDS, ms);
    printf("%-24s", "");
    for (size_t k = 0; k < KINDS; k++)
        printf(" %7s %-16s", "", kinds[k].name);
    putchar('\n');
    print_row("uncontended, ns a pair", table->figures[0], 1);
    for (unsigned row = 1; row < table->rows; row++) {
        snprintf(title, sizeof(title), "%u thread%s, M/s", table->threads[row], table->threads[row] == 1 ? "" : "s");
        print_row(title, table->figures[row], 1e6);
    }
    puts(table->exact ? "correct: every counter equals the number of sections"
                      : "WRONG: a counter differs from the number of sections");
}

static void json_row(const char *key, double (*figures)[ROUNDS])
{
    printf(",\"%s\":{", key);
    for (size_t k = 0; k < KINDS; k++) {
        struct bench_figure f = bench_summarise(figures[k], ROUNDS);

        printf("%s\"%s\":{\"median\":%.2f,\"min\":%.2f,\"max\":%.2f}", k ? "," : "", kinds[k].name, f.median, f.min,
               f.max);
    }
    putchar('}');
}

static void report_json(struct table *table, uint64_t section, uint64_t ms)
{
    char key[32];

    printf("{\"workload\":\"lock\",\"cpus\":%d,\"section_ns\":%" PRIu64 ",\"rounds\":%d,\"ms\":%" PRIu64, cpus(),
           section, ROUNDS, ms);
    json_row("uncontended_ns", table->figures[0]);
    for (unsigned row = 1; row < table->rows; row++) {
        snprintf(key, sizeof(key), "threads_%u_per_s", table->threads[row]);
        json_row(key, table->figures[row]);
    }
    printf(",\"correct\":%s}\n", table->exact ? "true" : "false");
}

/* --- the command -------------------------------------------------------------------------------------------------- */

static int measure_and_report(uint64_t threads, uint64_t ms, uint64_t section, bool json)
{
    struct table table = {.rows = ROWS_MOST, .threads = {0, 1, 2, 4}};
    struct scene scene = {.ms = ms, .steps = calibrate(section)};
    int rc = -ENOMEM;

    if (threads) {
        table.rows = 2;
        table.threads[1] = (unsigned)threads;
    }
    scene.arena = aligned_alloc(LINES, sizeof(*scene.arena));
    scene.threads = aligned_alloc(LINES, THREADS_MOST * sizeof(*scene.threads));
    if (scene.arena && scene.threads)
        rc = measure_all(&scene, &table);
    free(scene.threads);
    free(scene.arena);
    if (rc < 0) {
        complain("bench lock: %s", strerror(-rc));
        return STATUS_FAILED;
    }
    if (json)
        report_json(&table, section, ms);
    else
        report_text(&table, section, ms);
    return table.exact ? STATUS_OK : STATUS_FAILED;
}

int bench_lock(int argc, char **argv)
{
    uint64_t threads = 0, ms = 50, section = 0;
    bool json = false;
    const struct bench_key keys[] = {
        {"threads", 0, THREADS_MOST, &threads, "contending threads; 0, the default: 1, 2 and 4 in turn"},
        {"ms", 1, 60000, &ms, "how long each measurement lasts; default 50"},
        {"section", 0, 1000000, &section, "ns of arithmetic in each section; default 0: one addition"},
    };

    switch (bench_parse("lock", keys, sizeof(keys) / sizeof(keys[0]), argc, argv, &json)) {
    case BENCH_HELP:
        return STATUS_OK;
    case BENCH_USAGE:
        return STATUS_USAGE;
    default:
        return measure_and_report(threads, ms, section, json);
    }
}
