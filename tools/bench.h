/*
 * `ringpool bench WORKLOAD [key=value...] [--json]`. What drives a pool lies in bench/ and is shared with the peers;
 * this header is what the other workloads need: their arguments, all numbers, and the median of their rounds.
 */
#ifndef RINGPOOL_TOOLS_BENCH_H
#define RINGPOOL_TOOLS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_key {
    const char *name;
    uint64_t least, most;
    uint64_t *value; /* holds the default, is set if the key is given */
    const char *meaning;
};

enum bench_parsed { BENCH_RUN, BENCH_HELP, BENCH_USAGE };

#define BENCH_KEYS_MOST 16

/*
 * The arguments after the workload's name, at most BENCH_KEYS_MOST keys. BENCH_HELP and BENCH_USAGE have been answered:
 * the workload returns.
 */
enum bench_parsed bench_parse(const char *workload, const struct bench_key *keys, size_t n, int argc, char **argv,
                              bool *json);

/* A figure over the rounds of a run. */
struct bench_figure {
    double median, min, max;
};

/* n is 1 or more; sorts the values. */
struct bench_figure bench_summarise(double *values, size_t n);

int bench_lock(int argc, char **argv);
int bench_completions(int argc, char **argv); /* bench/completions.c */
int bench_timers(int argc, char **argv);      /* bench/timers.c */

#endif
