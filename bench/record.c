/* See record.h. */
#include "record.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "command.h"
#include "meter.h"

static int cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* The processor's name, as /proc/cpuinfo of x86 gives it. */
static void processor(char *name, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");

    snprintf(name, size, "unknown");
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(name, size, "%s", strchr(line, ':') + 2);
            break;
        }
    if (file)
        fclose(file);
}

void record_add(struct record *record, const char *figure, double value)
{
    if (record->nfigures < RECORD_FIGURES) {
        record->figure[record->nfigures].name = figure;
        record->figure[record->nfigures++].value = value;
    }
}

static void print_json(const struct record *record, const char *cpu, const struct utsname *system)
{
    fputs("{\"program\":", stdout);
    print_json_string(stdout, record->program);
    fputs(",\"about\":", stdout);
    print_json_string(stdout, record->about);
    printf(",\"workload\":\"%s\",\"params\":{", record->workload);
    for (size_t i = 0; i < record->nkeys; i++) {
        printf("%s\"%s\":", i ? "," : "", record->keys[i].name);
        if (record->keys[i].words)
            printf("\"%s\"", record->keys[i].words[*record->keys[i].value]);
        else
            printf("%" PRIu64, *record->keys[i].value);
    }
    fputs("},\"figures\":{", stdout);
    for (size_t i = 0; i < record->nfigures; i++)
        printf("%s\"%s\":%.9g", i ? "," : "", record->figure[i].name, record->figure[i].value);
    printf("},\"exact\":%s,\"machine\":{\"cpus\":%d,\"processor\":", record->wrong ? "false" : "true", cpus());
    print_json_string(stdout, cpu);
    printf(",\"kernel\":\"%s\"}}\n", system->release);
}

static void print_text(const struct record *record, const char *cpu, const struct utsname *system)
{
    printf("%s %s:", record->program, record->workload);
    for (size_t i = 0; i < record->nkeys; i++) {
        printf(" %s=", record->keys[i].name);
        if (record->keys[i].words)
            printf("%s", record->keys[i].words[*record->keys[i].value]);
        else
            printf("%" PRIu64, *record->keys[i].value);
    }
    printf("\n%s; %d CPUs, %s, Linux %s\n", record->about, cpus(), cpu, system->release);
    for (size_t i = 0; i < record->nfigures; i++)
        printf("  %-22s %16.*f\n", record->figure[i].name, record->figure[i].value < 1000 ? 3 : 0,
               record->figure[i].value);
}

int record_print(struct record *record, bool json)
{
    char cpu[128];
    struct utsname system;

    record_add(record, "addition_ns", meter_mean_pace());
    processor(cpu, sizeof(cpu));
    if (uname(&system))
        snprintf(system.release, sizeof(system.release), "unknown");
    if (json)
        print_json(record, cpu, &system);
    else
        print_text(record, cpu, &system);
    if (record->wrong)
        fprintf(stderr, "%s %s: WRONG: %s\n", record->program, record->workload, record->wrong);
    return record->wrong ? STATUS_FAILED : STATUS_OK;
}
