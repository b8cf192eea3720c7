/*
 * A peer's program: the workloads of ../ on the executor that the peer's own file defines. Same keys, same output as
 * `ringpool bench`.
 */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "peer.h"
#include "workload.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: %s ", peer_executor.name);
    for (size_t i = 0; i < nworkloads; i++)
        fprintf(out, "%s%s", i ? "|" : "", workloads[i].name);
    fputs(" [KEY=VALUE...] [--json]\n", out);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr, STATUS_USAGE);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout, STATUS_OK);
    for (size_t i = 0; i < nworkloads; i++)
        if (strcmp(workloads[i].name, argv[1]) == 0)
            return workloads[i].run(&peer_executor, argc - 1, argv + 1);
    return usage(stderr, STATUS_USAGE);
}
