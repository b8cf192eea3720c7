/* See bench.h. A workload of the pool is added in bench/workload.c, any other by a line in the table here. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "command.h"
#include "workload.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} others[] = {
    {"lock", bench_lock, "rp_lock beside pthread_mutex and a spinlock"},
    {"multi", bench_multi, "the strategies of the multi pool: waits, shares, cost, isolation"},
    {"versus", bench_versus, "two pools that differ in one thing, in turns: a ratio"},
    {"completions", bench_completions, "results of tasks on their way to one consumer"},
    {"timers", bench_timers, "arm and cancel with a million outstanding, and how late they fire"},
};

#define OTHERS (sizeof(others) / sizeof(others[0]))

static void print_usage_line(FILE *out)
{
    fputs("usage: ringpool bench ", out);
    for (size_t i = 0; i < nworkloads; i++)
        fprintf(out, "%s|", workloads[i].name);
    for (size_t i = 0; i < OTHERS; i++)
        fprintf(out, "%s%s", i ? "|" : "", others[i].name);
    fputs(" [KEY=VALUE...] [--json], or ringpool bench --quick\n", out);
}

static void print_help(void)
{
    print_usage_line(stdout);
    puts("");
    for (size_t i = 0; i < nworkloads; i++)
        printf("  %-11s %s\n", workloads[i].name, workloads[i].summary);
    for (size_t i = 0; i < OTHERS; i++)
        printf("  %-11s %s\n", others[i].name, others[i].summary);
    puts("  --quick     a few of them in a small table");
    puts("\n`ringpool bench WORKLOAD --help` lists its keys; `make bench` runs them beside other pools.");
}

int command_bench(int argc, char **argv)
{
    if (argc < 2) {
        print_usage_line(stderr);
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return STATUS_OK;
    }
    if (strcmp(argv[1], "--quick") == 0 && argc == 2)
        return bench_quick();
    for (size_t i = 0; i < nworkloads; i++)
        if (strcmp(workloads[i].name, argv[1]) == 0)
            return workloads[i].run(&ringpool_executor, argc - 1, argv + 1);
    for (size_t i = 0; i < OTHERS; i++)
        if (strcmp(others[i].name, argv[1]) == 0)
            return others[i].run(argc - 1, argv + 1);
    fputs("ringpool bench: unknown workload ", stderr);
    print_name(stderr, argv[1]);
    fputs("; ", stderr);
    print_usage_line(stderr);
    return STATUS_USAGE;
}

enum bench_parsed bench_parse(const char *workload, const struct bench_key *keys, size_t n, int argc, char **argv,
                              bool *json)
{
    static const enum bench_parsed meaning[] = {
        [ARGS_RUN] = BENCH_RUN,
        [ARGS_HELP] = BENCH_HELP,
        [ARGS_USAGE] = BENCH_USAGE,
    };
    struct arg_key numbers[BENCH_KEYS_MOST];

    for (size_t i = 0; i < n; i++)
        numbers[i] = (struct arg_key){keys[i].name, keys[i].least, keys[i].most, keys[i].value, keys[i].meaning, NULL};
    return meaning[args_parse("ringpool bench", workload, numbers, n, argc, argv, json)];
}

static int compare_values(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct bench_figure bench_summarise(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), compare_values);
    return (struct bench_figure){
        .median = (values[(n - 1) / 2] + values[n / 2]) / 2,
        .min = values[0],
        .max = values[n - 1],
    };
}
