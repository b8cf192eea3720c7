/*
 * The workloads, each in the file named for its kind: flood.c (throughput, work, sleepers), latency.c (wake, roundtrip,
 * load), idle.c, fanout.c. A workload gets its own name in argv[0] and runs once, on the executor it is given.
 */
#ifndef RINGPOOL_BENCH_WORKLOAD_H
#define RINGPOOL_BENCH_WORKLOAD_H

#include "args.h"
#include "executor.h"
#include "record.h"

struct workload {
    const char *name;
    int (*run)(const struct executor *executor, int argc, char **argv);
    const char *summary;
};

extern const struct workload workloads[];
extern const size_t nworkloads;

/* Ours. */
extern const struct executor ringpool_executor;

int flood_throughput(const struct executor *executor, int argc, char **argv);
int flood_work(const struct executor *executor, int argc, char **argv);
int flood_sleepers(const struct executor *executor, int argc, char **argv);
int latency_wake(const struct executor *executor, int argc, char **argv);
int latency_roundtrip(const struct executor *executor, int argc, char **argv);
int latency_load(const struct executor *executor, int argc, char **argv);
int idle_run(const struct executor *executor, int argc, char **argv);
int fanout_run(const struct executor *executor, int argc, char **argv);

/* Ours alone: has no counterpart among the peers (multi.c). */
int bench_multi(int argc, char **argv);
/* Two pools that differ in one thing, in turns (versus.c). */
int bench_versus(int argc, char **argv);

/* A table of a few shapes of ours, in less than 20 s. */
int bench_quick(void);

/* --- what workloads share --- */

extern const char *const backend_words[], *const yes_words[];

#define WORKERS_MOST 100000
#define PRODUCERS_MOST 10000
#define TASKS_MOST UINT64_C(10000000000)
#define QUEUE_MOST (UINT64_C(1) << 20)

/* Parses for the workload named argv[0]; the last `ours` keys are those that only ringpool has. */
enum args_parsed workload_args(const struct executor *executor, struct record *record, const struct arg_key *keys,
                               size_t n, size_t ours, int argc, char **argv, bool *json);

/* Says that it cannot be measured; returns the status. */
int workload_failed(const struct record *record, const char *what, int rc);

/* The keys that only ringpool has, to be the last of the list. */
#define KEYS_OF_RINGPOOL(backend, lazy)                                                                                \
    {"backend", 0, 0, &(backend), "what sleeps for timers", backend_words},                                            \
    {                                                                                                                  \
        "lazy", 0, 0, &(lazy), "workers are made as tasks come, not before the clock starts", yes_words                \
    }
#define NKEYS_OF_RINGPOOL 2

#define NKEYS(keys) (sizeof(keys) / sizeof((keys)[0]))

#endif
