/*
 * What the parts of `ringpool demo` share: the work (demo.c), the wake latencies (demo_latency.c) and the report
 * (demo_report.c).
 */
#ifndef RINGPOOL_TOOLS_DEMO_H
#define RINGPOOL_TOOLS_DEMO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ringpool/pool.h>

#include "digest.h"
#include "progress.h"
#include "tree.h"

enum verdict {
    VERDICT_SAME = 0,
    VERDICT_MISMATCH, /* the pool's figures are wrong, or the task did not run exactly once */
    VERDICT_CHANGED,  /* the file was changed, replaced or removed between the readings or during one */
    VERDICT_UNREADABLE,
};

struct demo;

struct item {
    struct demo *demo;
    const char *path;
    struct digest serial, pool;
    atomic_uint runs; /* how often the pool ran the task: 1 */
    enum verdict verdict;
};

/* A directory, or an entry of one, that the walk could not read. */
struct trouble {
    char *path;
    int error;
};

#define LATENCY_SAMPLES 500

struct latency {
    const char *name, *key;    /* in the text, in JSON */
    int64_t gap_ns;            /* between two submits; 0: back to back */
    double p50, p90, p99, max; /* us */
};

struct totals {
    uint64_t files, bytes, lines, words;
    uint32_t crc; /* of the contents one after the other, in the byte order of the paths */
    uint64_t mismatched, changed, unreadable;
};

enum { LATENCY_GAPS, LATENCY_BACK_TO_BACK, LATENCIES };

struct demo {
    const char *directory;
    unsigned workers; /* capacity asked for, 0: default */
    bool json, list;

    struct tree tree;
    struct progress progress;
    struct item *items; /* tree.files of them */
    struct trouble *troubles;
    size_t ntroubles, troubles_room;
    bool out_of_memory; /* a trouble could not be noted */

    atomic_size_t left;       /* tasks that have not ended; whoever ends the last one */
    atomic_int_fast64_t last; /* writes down when */
    int64_t serial_ns, pool_ns;
    struct rp_pool_snapshot midway, end;
    struct latency latencies[LATENCIES];
    struct totals totals;
};

/* False once a signal has asked the command to stop. Any thread. */
bool demo_go_on(void);

/* The options of every pool of the demo. */
struct rp_pool_options demo_pool_options(void);

/* Waits until all tasks have ended, with the progress bar going on: 0 or a negative errno of the library. */
int demo_drain(struct demo *demo, struct rp_pool *pool);

/* Fills in the latencies: 0, -EINTR, -ENOMEM or an error of the library. */
int demo_measure_latencies(struct demo *demo);

void demo_report_text(const struct demo *demo);
void demo_report_json(const struct demo *demo);

#endif
