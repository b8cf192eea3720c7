/* See meter.h. */
#include "meter.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000

/* Two lines: the prefetcher fetches them in pairs. */
#define LINES 128

#define PRODUCER_STACK (256 << 10)

/* --- the clock ---------------------------------------------------------------------------------------------------- */

bool meter_uses_tsc;
double meter_ns_per_tick = 1;

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * NS + t.tv_nsec;
}

int64_t meter_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

void meter_sleep_until(int64_t ns)
{
    struct timespec t = {.tv_sec = ns / NS, .tv_nsec = ns % NS};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

void meter_pass_until(int64_t ns, bool sleep)
{
    if (sleep)
        meter_sleep_until(ns);
    while (meter_now() < ns)
        ;
}

static bool tsc_is_steady(void)
{
    char line[4096];
    bool steady = false;
    FILE *file = fopen("/proc/cpuinfo", "re");

    if (!file)
        return false;
    while (!steady && fgets(line, sizeof(line), file))
        steady = strncmp(line, "flags", 5) == 0 && strstr(line, " constant_tsc") && strstr(line, " nonstop_tsc");
    fclose(file);
    return steady;
}

static double pace_now(void)
{
    enum { ADDITIONS = 200000 };
    uint64_t x = 0;
    int64_t begun = meter_now();

    for (int i = 0; i < ADDITIONS; i++) {
        x += 1;
        __asm__ volatile("" : "+r"(x));
    }
    return (double)(meter_now() - begun) / ADDITIONS;
}

static double pace_at_begin;

double meter_mean_pace(void)
{
    double now = pace_now();

    return pace_at_begin > 0 ? (pace_at_begin + now) / 2 : now;
}

void meter_begin(void)
{
    pace_at_begin = pace_now();
#if defined(__x86_64__)
    enum { CALIBRATION_NS = 20000000 };
    int64_t ns, ticks;

    if (!tsc_is_steady())
        return;
    meter_uses_tsc = true;
    ns = meter_now();
    ticks = meter_ticks();
    meter_sleep_until(ns + CALIBRATION_NS);
    /* Both are read once more as close together as at first; an interruption in between shows in neither ratio. */
    ns = meter_now() - ns;
    ticks = meter_ticks() - ticks;
    meter_ns_per_tick = (double)ns / (double)ticks;
#else
    (void)tsc_is_steady;
#endif
}

uint64_t meter_steps(uint64_t ns)
{
    enum { TRIES = 50, STEPS = 200000 };
    int64_t best = INT64_MAX;

    for (int i = 0; i < TRIES; i++) {
        int64_t begun = meter_now(), took;

        meter_compute((uint64_t)begun, STEPS);
        took = meter_now() - begun;
        best = took < best ? took : best;
    }
    return (uint64_t)((double)ns * STEPS / (double)(best > 0 ? best : 1));
}

/* --- cells -------------------------------------------------------------------------------------------------------- */

struct cell {
    _Atomic uint64_t tasks; /* written by its thread; relaxed: whoever needs it exact has joined, or waits for it */
    struct rp_histogram *latency; /* NULL until its thread has one to add to: several pages */
    struct cell *next;            /* in cells */
    struct cell *next_prepared;   /* not the same: who loses a pop reads it of a cell that its winner pushes already */
} __attribute__((aligned(LINES)));

static _Atomic(struct cell *) cells;    /* all, for the sum; pushed only */
static _Atomic(struct cell *) prepared; /* popped only while threads run, so there is no ABA */
static _Thread_local struct cell *mine;

/* Written to, so that a task which adds to it takes no page fault. */
static struct rp_histogram *histogram_make(void)
{
    struct rp_histogram *histogram = malloc(sizeof(*histogram));

    if (histogram)
        memset(histogram, 0, sizeof(*histogram));
    return histogram;
}

static struct cell *cell_make(bool latency)
{
    struct cell *cell = aligned_alloc(LINES, sizeof(*cell));

    if (!cell)
        return NULL;
    memset(cell, 0, sizeof(*cell));
    if (latency && !(cell->latency = histogram_make())) {
        free(cell);
        return NULL;
    }
    return cell;
}

/* A task has nobody to report to. */
static void *needed(void *memory)
{
    if (!memory) {
        fputs("bench: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static struct cell *cell_join(void)
{
    struct cell *cell = atomic_load(&prepared);

    while (cell && !atomic_compare_exchange_weak(&prepared, &cell, cell->next_prepared))
        ;
    if (!cell)
        cell = needed(cell_make(false));
    cell->next = atomic_load(&cells);
    while (!atomic_compare_exchange_weak(&cells, &cell->next, cell))
        ;
    return mine = cell;
}

bool cells_prepare(unsigned n, bool latency)
{
    while (n--) {
        struct cell *cell = cell_make(latency);

        if (!cell)
            return false;
        cell->next_prepared = atomic_load(&prepared);
        atomic_store(&prepared, cell);
    }
    return true;
}

uint64_t cells_tasks(void)
{
    uint64_t sum = 0;

    for (struct cell *cell = atomic_load(&cells); cell; cell = cell->next)
        sum += atomic_load_explicit(&cell->tasks, memory_order_acquire);
    return sum;
}

void cells_latency(struct rp_histogram *sum)
{
    for (struct cell *cell = atomic_load(&cells); cell; cell = cell->next)
        if (cell->latency)
            rp_histogram_merge(sum, cell->latency);
}

void cells_wait(uint64_t n, int64_t step_ns)
{
    while (cells_tasks() < n)
        meter_sleep_until(meter_now() + step_ns);
}

/* --- tasks -------------------------------------------------------------------------------------------------------- */

static inline void count(void)
{
    struct cell *cell = mine ? mine : cell_join();

    /* Release: who sees the count sees what the task wrote before it. */
    atomic_store_explicit(&cell->tasks, atomic_load_explicit(&cell->tasks, memory_order_relaxed) + 1,
                          memory_order_release);
}

void task_count(void *unused)
{
    (void)unused;
    count();
}

void task_spin(void *steps)
{
    meter_compute((uint64_t)(uintptr_t)steps, (uint64_t)(uintptr_t)steps);
    count();
}

void task_sleep(void *ns)
{
    struct timespec t = {.tv_sec = (int64_t)(uintptr_t)ns / NS, .tv_nsec = (int64_t)(uintptr_t)ns % NS};

    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
        ;
    count();
}

void task_latency(void *ticks)
{
    int64_t now = meter_ticks();
    struct cell *cell = mine ? mine : cell_join();

    if (!cell->latency)
        cell->latency = needed(histogram_make());
    rp_histogram_add(cell->latency, meter_ns(now - (int64_t)(uintptr_t)ticks));
    count();
}

/* --- the process -------------------------------------------------------------------------------------------------- */

static int64_t timeval_ns(struct timeval t)
{
    return (int64_t)t.tv_sec * NS + (int64_t)t.tv_usec * 1000;
}

struct usage usage_now(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (struct usage){
        .wall = meter_now(),
        .cpu = timeval_ns(used.ru_utime) + timeval_ns(used.ru_stime),
        .switches = (uint64_t)used.ru_nvcsw + (uint64_t)used.ru_nivcsw,
        .voluntary = (uint64_t)used.ru_nvcsw,
    };
}

struct usage usage_since(const struct usage *before)
{
    struct usage now = usage_now();

    return (struct usage){
        .wall = now.wall - before->wall,
        .cpu = now.cpu - before->cpu,
        .switches = now.switches - before->switches,
        .voluntary = now.voluntary - before->voluntary,
    };
}

/* The kernel adds up the threads in the order of their creation, so that what it takes for that is in neither sum. */
int64_t usage_of_others(void)
{
    int64_t own = clock_ns(CLOCK_THREAD_CPUTIME_ID);

    return clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
}

uint64_t usage_max_rss_kb(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (uint64_t)used.ru_maxrss;
}

uint64_t usage_rss_kb(void)
{
    unsigned long size, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file) {
        if (fscanf(file, "%lu %lu", &size, &resident) != 2)
            resident = 0;
        fclose(file);
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
}

/* --- threads that begin together ---------------------------------------------------------------------------------- */

struct gang {
    void (*body)(void *arg, unsigned i);
    void *arg;
    pthread_barrier_t there; /* all threads and the starter: ready, and then let go */
};

struct member {
    pthread_t id;
    struct gang *gang;
    unsigned i;
};

static void *member_main(void *arg)
{
    struct member *self = arg;

    pthread_barrier_wait(&self->gang->there);
    pthread_barrier_wait(&self->gang->there);
    self->gang->body(self->gang->arg, self->i);
    return NULL;
}

int threads_run(unsigned n, void (*body)(void *arg, unsigned i), void *arg, struct usage *begun)
{
    struct gang gang = {.body = body, .arg = arg};
    struct member *members = calloc(n, sizeof(*members));
    pthread_attr_t attr;
    int rc = 0;

    if (!members)
        return -ENOMEM;
    pthread_barrier_init(&gang.there, NULL, n + 1);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, PRODUCER_STACK);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        members[i] = (struct member){.gang = &gang, .i = i};
        rc = pthread_create(&members[i].id, &attr, member_main, &members[i]);
    }
    pthread_attr_destroy(&attr);
    if (rc) {
        /* Those that were made wait at the barrier for ever: the run is over, and the process with it. */
        fprintf(stderr, "bench: cannot make %u threads: %s\n", n, strerror(rc));
        exit(1);
    }
    pthread_barrier_wait(&gang.there);
    *begun = usage_now();
    pthread_barrier_wait(&gang.there);
    for (unsigned i = 0; i < n; i++)
        pthread_join(members[i].id, NULL);
    pthread_barrier_destroy(&gang.there);
    free(members);
    return 0;
}
