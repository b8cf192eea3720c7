/*
 * Arguments of a workload: KEY=VALUE and --json. A key takes a number within bounds, or one of a few words.
 * An argument that makes no sense is answered with one line on stderr that says what there is.
 */
#ifndef RINGPOOL_BENCH_ARGS_H
#define RINGPOOL_BENCH_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arg_key {
    const char *name;
    uint64_t least, most;
    uint64_t *value; /* holds the default, is set if the key is given */
    const char *meaning;
    const char *const *words; /* ends with NULL; *value is the index of one. NULL: a number */
};

enum args_parsed { ARGS_RUN, ARGS_HELP, ARGS_USAGE };

/* argv[0] is passed over. ARGS_HELP and ARGS_USAGE have been answered. `program` is "ringpool bench" or a peer's. */
enum args_parsed args_parse(const char *program, const char *workload, const struct arg_key *keys, size_t n, int argc,
                            char **argv, bool *json);

#endif
