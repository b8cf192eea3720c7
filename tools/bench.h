/*
 * `ringpool bench WORKLOAD [key=value...] [--json]`: the table of workloads is in bench.c, each workload in a file of
 * its own. This header is what a workload needs: its arguments and the median of its rounds.
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

/* The arguments after the workload's name. BENCH_HELP and BENCH_USAGE have been answered: the workload returns. */
enum bench_parsed bench_parse(const char *workload, const struct bench_key *keys, size_t n, int argc, char **argv,
                              bool *json);

/* A figure over the rounds of a run. */
struct bench_figure {
    double median, min, max;
};

/* n is 1 or more; sorts the values. */
struct bench_figure bench_summarise(double *values, size_t n);

int bench_lock(int argc, char **argv);

#endif
