/*
 * The record of a run: what was asked (params), what came out (figures), on which machine, and whether exactly the
 * tasks ran that were submitted. As one JSON object on one line, or as text.
 */
#ifndef RINGPOOL_BENCH_RECORD_H
#define RINGPOOL_BENCH_RECORD_H

#include <stdbool.h>
#include <stddef.h>

#include "args.h"

#define RECORD_FIGURES 32

struct record {
    const char *program, *about, *workload;
    const struct arg_key *keys; /* the params */
    size_t nkeys;
    size_t nfigures;
    struct {
        const char *name;
        double value;
    } figure[RECORD_FIGURES];
    const char *wrong; /* what makes the run worthless, or NULL */
};

void record_add(struct record *record, const char *figure, double value);

/* Adds the machine's pace and prints it; returns the exit status: 1 if something was wrong. */
int record_print(struct record *record, bool json);

#endif
