/*
 * Runs schedules: many, over the scenarios in turn and in several processes, or one again with its interleaving.
 */
#include "core.h"

#include <getopt.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define SCENARIOS_MAX 128
/* Schedules of a scenario in a row: its code stays warm, and no scenario waits long for its turn. */
#define SLICE 64

struct options {
    uint64_t schedules, first;
    double seconds;
    unsigned jobs;
    const char *scenario;
    bool replay, quiet;
};

static const struct scenario *scenarios[SCENARIOS_MAX];
static unsigned scenario_count;

/* Shared by the processes. */
struct shared {
    volatile uint64_t done[64], steps[64], seed[64]; /* seed: of the schedule that runs */
    volatile unsigned scenario[64];                  /* ... and which one's it is */
    volatile bool stop;
};
static struct shared *shared;

static double seconds_now(void)
{
    struct timespec now;

#undef clock_gettime
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool scenario_selected(const char *name, const char *list)
{
    size_t length = strlen(name);

    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, length) && (!at[length] || at[length] == ','))
            return true;
    return !list;
}

static void scenarios_collect(const char *list)
{
    for (unsigned i = 0; scenario_lists[i]; i++)
        for (const struct scenario *s = scenario_lists[i]; s->name && scenario_count < SCENARIOS_MAX; s++)
            if (scenario_selected(s->name, list))
                scenarios[scenario_count++] = s;
}

/* A crash inside a schedule is a violation too. */
static void on_fault(int signal)
{
    violated("signal %d", signal);
}

static void faults_catch(void)
{
    static char stack[65536];
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};

    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof(stack)}, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    sigaction(SIGILL, &action, NULL);
}

/* Process `job` of all: its share of the seeds. */
static void run_share(const struct options *o, unsigned job)
{
    double end = seconds_now() + o->seconds;
    uint64_t per_process = o->schedules / o->jobs, seed = o->first + job * per_process;
    unsigned at = job * scenario_count / o->jobs;

    while (shared->done[job] < per_process && !shared->stop && seconds_now() < end) {
        shared->scenario[job] = at;
        for (unsigned i = 0; i < SLICE && shared->done[job] < per_process; i++) {
            shared->seed[job] = seed;
            shared->steps[job] += schedule_run(scenarios[at], seed++, false);
            shared->done[job]++;
        }
        at = (at + 1) % scenario_count;
    }
}

static int run_all(const struct options *o)
{
    double begin = seconds_now();
    pid_t pids[64] = {0};
    int failed = -1; /* the process that met a violation */
    uint64_t schedules = 0, steps = 0;

    if (!o->quiet)
        printf("model: %u scenarios, first seed %llu\n", scenario_count, (unsigned long long)o->first);
    fflush(stdout);
    for (unsigned job = 0; job < o->jobs; job++) {
        pids[job] = fork();
        if (pids[job] == 0) {
            faults_catch();
            run_share(o, job);
            _exit(0);
        }
    }
    for (unsigned job = 0; job < o->jobs; job++) {
        int status, which = 0;
        pid_t pid = waitpid(-1, &status, 0);
        while (pids[which] != pid)
            which++;
        if (status) {
            failed = which;
            shared->stop = true;
        }
    }
    for (unsigned job = 0; job < o->jobs; job++) {
        schedules += shared->done[job];
        steps += shared->steps[job];
    }
    double took = seconds_now() - begin;
    if (!o->quiet)
        printf("model: %llu schedules of %.0f steps in %.1f s, %.0f a second%s\n", (unsigned long long)schedules,
               schedules ? (double)steps / (double)schedules : 0, took, (double)schedules / took,
               failed >= 0 ? ", and a violation" : ", no violation");
    if (failed < 0 && schedules < o->schedules && !o->quiet)
        printf("model: stopped by the clock before %llu schedules\n", (unsigned long long)o->schedules);
    if (failed >= 0 && !o->quiet) {
        printf("the interleaving:\n");
        schedule_run(scenarios[shared->scenario[failed]], shared->seed[failed], true);
    }
    return failed >= 0;
}

static int usage(void)
{
    fprintf(stderr, "model [--schedules N] [--seconds S] [--first SEED] [--jobs N] [--scenario NAME,...] [--quiet]\n"
                    "model --scenario NAME --seed SEED     one schedule, with its interleaving\n"
                    "model --list\n");
    return 2;
}

static int list(void)
{
    for (unsigned i = 0; i < scenario_count; i++)
        printf("%-26s %s\n", scenarios[i]->name, scenarios[i]->claim);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"schedules", 1, NULL, 'n'}, {"seconds", 1, NULL, 's'},  {"first", 1, NULL, 'f'},
        {"jobs", 1, NULL, 'j'},      {"scenario", 1, NULL, 'c'}, {"seed", 1, NULL, 'r'},
        {"list", 0, NULL, 'l'},      {"quiet", 0, NULL, 'q'},    {NULL, 0, NULL, 0}};
    struct options o = {
        .schedules = 2000000, .seconds = 1e9, .first = (uint64_t)time(NULL) % 1000000000 * 10000, .jobs = 2};
    bool listing = false;

    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        switch (c) {
        case 'n':
            o.schedules = strtoull(optarg, NULL, 0);
            break;
        case 's':
            o.seconds = strtod(optarg, NULL);
            break;
        case 'f':
        case 'r':
            o.first = strtoull(optarg, NULL, 0);
            o.replay |= c == 'r';
            break;
        case 'j':
            o.jobs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'c':
            o.scenario = optarg;
            break;
        case 'l':
            listing = true;
            break;
        case 'q':
            o.quiet = true;
            break;
        default:
            return usage();
        }
    if (optind < argc || o.jobs < 1 || o.jobs > 64)
        return usage();
    scenarios_collect(o.scenario);
    if (!scenario_count || (o.replay && scenario_count != 1))
        return usage();
    if (listing)
        return list();
    faults_catch();
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (o.replay) {
        uint64_t steps = schedule_run(scenarios[0], o.first, true);
        printf("no violation in %llu steps\n", (unsigned long long)steps);
        return 0;
    }
    return run_all(&o);
}
