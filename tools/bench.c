/* See bench.h. A workload is added by a line in the table and its declaration. */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

static const struct workload {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} workloads[] = {
    {"lock", bench_lock, "rp_lock beside pthread_mutex and a spinlock"},
};

#define WORKLOADS (sizeof(workloads) / sizeof(workloads[0]))

static void print_usage_line(FILE *out)
{
    fputs("usage: ringpool bench ", out);
    for (size_t i = 0; i < WORKLOADS; i++)
        fprintf(out, "%s%s", i ? "|" : "", workloads[i].name);
    fputs(" [KEY=VALUE...] [--json]\n", out);
}

int command_bench(int argc, char **argv)
{
    if (argc < 2) {
        print_usage_line(stderr);
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage_line(stdout);
        puts("");
        for (size_t i = 0; i < WORKLOADS; i++)
            printf("  %-8s %s\n", workloads[i].name, workloads[i].summary);
        puts("\n`ringpool bench WORKLOAD --help` lists its keys.");
        return STATUS_OK;
    }
    for (size_t i = 0; i < WORKLOADS; i++)
        if (strcmp(workloads[i].name, argv[1]) == 0)
            return workloads[i].run(argc - 1, argv + 1);
    fputs("ringpool bench: unknown workload ", stderr);
    print_name(stderr, argv[1]);
    fputs("; ", stderr);
    print_usage_line(stderr);
    return STATUS_USAGE;
}

static void print_keys(FILE *out, const char *workload, const struct bench_key *keys, size_t n)
{
    fprintf(out, "usage: ringpool bench %s", workload);
    for (size_t i = 0; i < n; i++)
        fprintf(out, " [%s=%" PRIu64 "..%" PRIu64 "]", keys[i].name, keys[i].least, keys[i].most);
    fputs(" [--json]\n", out);
}

static const struct bench_key *find_key(const struct bench_key *keys, size_t n, const char *name, size_t length)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(keys[i].name) == length && memcmp(keys[i].name, name, length) == 0)
            return &keys[i];
    return NULL;
}

enum bench_parsed bench_parse(const char *workload, const struct bench_key *keys, size_t n, int argc, char **argv,
                              bool *json)
{
    for (int i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        const struct bench_key *key = equals ? find_key(keys, n, argv[i], (size_t)(equals - argv[i])) : NULL;

        if (strcmp(argv[i], "--json") == 0) {
            *json = true;
            continue;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_keys(stdout, workload, keys, n);
            puts("");
            for (size_t k = 0; k < n; k++)
                printf("  %-10s %s\n", keys[k].name, keys[k].meaning);
            return BENCH_HELP;
        }
        if (key && parse_number(equals + 1, key->least, key->most, key->value))
            continue;
        fprintf(stderr, "ringpool bench %s: %s ", workload, key ? "value out of range in" : "unknown key");
        print_name(stderr, argv[i]);
        fputs("; ", stderr);
        print_keys(stderr, workload, keys, n);
        return BENCH_USAGE;
    }
    return BENCH_RUN;
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
