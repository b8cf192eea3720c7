/*
 * `ringpool bench --quick`: a few shapes in a small table, to see whether something is badly off. Every row is a run of
 * the command itself, since a workload starts with a fresh process; no peers and one run each, so take no figure from
 * here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "workload.h"

#define ARGS_MOST 10

static const struct row {
    const char *title;
    const char *args[ARGS_MOST];
    struct {
        const char *name, *unit;
        double scale;
    } figure[3];
} rows[] = {
    {"throughput 1/1",
     {"throughput", "tasks=4000000"},
     {{"tasks_per_s", "M/s", 1e-6}, {"cpu_ns_per_task", "ns CPU", 1}, {"csw", "switches", 1}}},
    {"throughput 4/2",
     {"throughput", "producers=4", "workers=2", "tasks=4000000"},
     {{"tasks_per_s", "M/s", 1e-6}, {"cpu_ns_per_task", "ns CPU", 1}, {"csw", "switches", 1}}},
    {"throughput 4/1000",
     {"throughput", "producers=4", "workers=1000", "tasks=4000000"},
     {{"tasks_per_s", "M/s", 1e-6}, {"cpu_ns_per_task", "ns CPU", 1}, {"csw", "switches", 1}}},
    {"strict 1/2",
     {"throughput", "workers=2", "mode=strict", "tasks=1000000"},
     {{"tasks_per_s", "M/s", 1e-6}, {"cpu_ns_per_task", "ns CPU", 1}, {"csw", "switches", 1}}},
    {"batch 64, 1/1",
     {"throughput", "mode=batch", "tasks=4000000"},
     {{"tasks_per_s", "M/s", 1e-6}, {"cpu_ns_per_task", "ns CPU", 1}, {"csw", "switches", 1}}},
    {"work 5 us, 2 workers",
     {"work", "workers=2", "spin=5000", "tasks=100000"},
     {{"efficiency", "of the CPUs", 1}, {"cpu_ns_per_task", "ns CPU", 1}, {"csw", "switches", 1}}},
    {"wake, 1 ms gap",
     {"wake", "gap_us=1000", "samples=1000"},
     {{"p50_us", "us p50", 1}, {"p99_us", "us p99", 1}, {"cpu_s", "s CPU", 1}}},
    {"wake, 50 us gap",
     {"wake", "gap_us=50", "samples=20000"},
     {{"p50_us", "us p50", 1}, {"p99_us", "us p99", 1}, {"cpu_s", "s CPU", 1}}},
    {"round trip",
     {"roundtrip", "samples=100000"},
     {{"p50_us", "us p50", 1}, {"p99_us", "us p99", 1}, {"cpu_s", "s CPU", 1}}},
    {"idle, 1000 workers",
     {"idle", "workers=1000", "seconds=1"},
     {{"rss_kb_per_worker", "KiB each", 1}, {"create_us_per_worker", "us to make", 1}, {"wakeups", "wake-ups", 1}}},
    {"fanout", {"fanout"}, {{"speedup", "x serial", 1}, {"parallel_ns_per_element", "ns each", 1}}},
};

/* Runs a row in a child; its JSON goes to text. Returns the child's exit status, or -1. */
static int run_row(const struct row *row, char *text, size_t size)
{
    static char program[] = "ringpool", bench[] = "bench", json[] = "--json";
    char *argv[ARGS_MOST + 4] = {program, bench};
    int pipefd[2], status, n = 2;
    size_t got = 0;
    ssize_t more;
    pid_t child;

    for (int i = 0; i < ARGS_MOST && row->args[i]; i++)
        argv[n++] = (char *)(uintptr_t)row->args[i]; /* execv does not write to them */
    argv[n] = json;
    if (pipe(pipefd))
        return -1;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        dup2(pipefd[1], STDOUT_FILENO);
        close(pipefd[0]);
        close(pipefd[1]);
        execv("/proc/self/exe", argv);
        _exit(STATUS_FAILED);
    }
    close(pipefd[1]);
    while (child > 0 && got < size - 1 && (more = read(pipefd[0], text + got, size - 1 - got)) > 0)
        got += (size_t)more;
    text[got] = '\0';
    close(pipefd[0]);
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* The number after "name": in an object that we wrote ourselves. */
static bool find_figure(const char *json, const char *name, double *value)
{
    char key[64];
    const char *at;

    snprintf(key, sizeof(key), "\"%s\":", name);
    at = strstr(json, key);
    if (at)
        *value = strtod(at + strlen(key), NULL);
    return at != NULL;
}

int bench_quick(void)
{
    int status = STATUS_OK;
    char json[4096];

    for (size_t i = 0; i < NKEYS(rows); i++) {
        if (run_row(&rows[i], json, sizeof(json)) != 0) {
            printf("%-22s FAILED\n", rows[i].title);
            status = STATUS_FAILED;
            continue;
        }
        printf("%-22s", rows[i].title);
        for (size_t k = 0; k < NKEYS(rows[i].figure) && rows[i].figure[k].name; k++) {
            double value = 0;

            find_figure(json, rows[i].figure[k].name, &value);
            printf("  %10.*f %-11s", value * rows[i].figure[k].scale < 1000 ? 2 : 0, value * rows[i].figure[k].scale,
                   rows[i].figure[k].unit);
        }
        putchar('\n');
    }
    return status;
}
