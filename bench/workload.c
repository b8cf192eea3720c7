/* See workload.h. A workload is added by a line in the table. */
#include "workload.h"

#include <stdio.h>
#include <string.h>

#include "command.h"

const struct workload workloads[] = {
    {"throughput", flood_throughput, "empty tasks as fast as they go: queued, strict (no queue), or in batches"},
    {"work", flood_work, "tasks of known length: how much of the time goes to them"},
    {"wake", latency_wake, "from submit to the task's first instruction, one task each gap"},
    {"roundtrip", latency_roundtrip, "submit one task and block until it is done"},
    {"sleepers", flood_sleepers, "tasks that sleep: how many at once"},
    {"idle", idle_run, "what idle workers cost"},
    {"fanout", fanout_run, "a parallel loop beside a serial one"},
    {"load", latency_load, "an open loop at a rate: latency from the intended start, as HdrHistogram prints it"},
};
const size_t nworkloads = NKEYS(workloads);

const char *const backend_words[] = {"auto", "io_uring", "epoll", NULL};
const char *const yes_words[] = {"no", "yes", NULL};

enum args_parsed workload_args(const struct executor *executor, struct record *record, const struct arg_key *keys,
                               size_t n, size_t ours, int argc, char **argv, bool *json)
{
    static char about[256];

    *record = (struct record){
        .program = executor->name,
        .about = about,
        .workload = argv[0],
        .keys = keys,
        .nkeys = executor->is_ringpool ? n : n - ours,
    };
    if (!executor->about || !executor->about(about, sizeof(about)))
        snprintf(about, sizeof(about), "%s", executor->name);
    return args_parse(executor->is_ringpool ? "ringpool bench" : executor->name, argv[0], keys, record->nkeys, argc,
                      argv, json);
}

int workload_failed(const struct record *record, const char *what, int rc)
{
    fprintf(stderr, "%s %s: %s: %s\n", record->program, record->workload, what, strerror(-rc));
    return STATUS_FAILED;
}
