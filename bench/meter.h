/*
 * Measuring: a clock of some nanoseconds (on AMD the TSC moves in steps of about 10 ns), counters that no two workers
 * share, what the process has used, and arithmetic that takes a known time.
 *
 * The clock is the TSC where the kernel says that it runs evenly (constant_tsc, nonstop_tsc), calibrated against
 * CLOCK_MONOTONIC, else CLOCK_MONOTONIC itself. A cell belongs to one thread, which makes it at its first task (or
 * finds one prepared), has cache lines of its own, and outlives the thread.
 */
#ifndef RINGPOOL_BENCH_METER_H
#define RINGPOOL_BENCH_METER_H

#include <stdbool.h>
#include <stdint.h>

#include "histogram.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Calibrates; before anything else of this file. Takes some ms. */
void meter_begin(void);

/*
 * How long one addition of a chain takes, ns: the pace of the CPU that the caller runs on, which a guest of a machine
 * that others use as well does not choose. The mean of now and meter_begin, if it was called. Takes 0.1 ms or so.
 */
double meter_mean_pace(void);

/* --- the clock --- */

extern bool meter_uses_tsc;
extern double meter_ns_per_tick;

int64_t meter_now(void); /* ns on CLOCK_MONOTONIC */

static inline int64_t meter_ticks(void)
{
#if defined(__x86_64__)
    if (meter_uses_tsc)
        return (int64_t)__builtin_ia32_rdtsc();
#endif
    return meter_now();
}

static inline int64_t meter_ns(int64_t ticks)
{
    return (int64_t)((double)ticks * meter_ns_per_tick);
}

void meter_sleep_until(int64_t ns);            /* on CLOCK_MONOTONIC */
void meter_pass_until(int64_t ns, bool sleep); /* sleeps or spins */

/* --- what tasks do --- */

/* Tasks, in the executors' signature. Each counts itself in its thread's cell. */
void task_count(void *unused);
void task_spin(void *steps); /* so many steps of arithmetic, see meter_steps */
void task_sleep(void *ns);
void task_latency(void *ticks); /* adds the time since `ticks` to the cell's histogram */

/* Arithmetic in which each step needs the one before, so that its time grows with the number of steps alone. */
static inline uint64_t meter_compute(uint64_t x, uint64_t steps)
{
    for (uint64_t i = 0; i < steps; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

/* How many steps take ns: by the best of several tries, since an interruption only ever makes a try longer. */
uint64_t meter_steps(uint64_t ns);

/* --- cells --- */

/*
 * Makes cells for threads to find, with histograms for those that task_latency needs, so that a first task neither
 * allocates nor takes a page fault. false: no memory.
 */
bool cells_prepare(unsigned n, bool latency);
uint64_t cells_tasks(void); /* tasks that were counted, all threads; exact once they have been joined or seen */
void cells_latency(struct rp_histogram *sum);

/* Sleeps in steps of `step_ns` until n tasks were counted. */
void cells_wait(uint64_t n, int64_t step_ns);

/* --- the process --- */

struct usage {
    int64_t wall, cpu; /* ns */
    uint64_t switches; /* context switches, voluntary and not */
    uint64_t voluntary;
};

struct usage usage_now(void);
struct usage usage_since(const struct usage *before);
/* CPU time of all threads of the process but the caller, ns. To ask takes a millisecond where there are 10,000. */
int64_t usage_of_others(void);
uint64_t usage_max_rss_kb(void);
uint64_t usage_rss_kb(void); /* now */

/* --- threads that begin together --- */

/* Runs body(arg, i) on n threads. Returns 0 or a negative errno; *begun is when they were let go (ticks). */
int threads_run(unsigned n, void (*body)(void *arg, unsigned i), void *arg, struct usage *begun);

#ifdef __cplusplus
}
#endif

#endif
