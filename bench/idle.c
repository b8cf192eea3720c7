/*
 * Idle: what W workers cost that have nothing to do. Creation until all of them live, resident memory of each, and in
 * some idle seconds the CPU time of all threads but the one that measures, and context switches of the whole process.
 *
 * What a process pays once is not a worker's: the pages of code, a library's own structures, trials of what the kernel
 * has. So a pool of one worker is made and ended first.
 *
 * Where workers are made only as tasks come, W tasks are submitted that wait for each other, so that all must live at
 * once. What it leaves out: the kernel's memory for a thread (some 22 KiB), which no process sees in its own size.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "command.h"
#include "meter.h"
#include "workload.h"

#define SETTLE_NS 300000000

static void meet(void *arg)
{
    pthread_barrier_t *barrier = arg;

    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier); /* nobody leaves before the last has come, or one worker could serve two */
    task_count(NULL);
}

struct meeting {
    const struct executor *executor;
    void *pool;
    unsigned workers;
    uint64_t before; /* tasks that were counted */
    int rc;
    pthread_barrier_t barrier; /* never destroyed: in error somebody still waits at it, and the process ends */
};

static void hold_meeting(void *arg)
{
    struct meeting *meeting = arg;

    for (unsigned i = 0; i < meeting->workers && meeting->rc == 0; i++)
        meeting->rc = meeting->executor->submit(meeting->pool, meet, &meeting->barrier);
    if (meeting->rc == 0)
        cells_wait(meeting->before + meeting->workers, 1000000);
}

static int bring_to_life(const struct executor *executor, void *pool, unsigned workers)
{
    static struct meeting meeting;

    meeting = (struct meeting){.executor = executor, .pool = pool, .workers = workers, .before = cells_tasks()};
    pthread_barrier_init(&meeting.barrier, NULL, workers);
    if (executor->inside)
        executor->inside(pool, hold_meeting, &meeting);
    else
        hold_meeting(&meeting);
    return meeting.rc;
}

static int create_living(const struct executor *executor, void **pool, const struct executor_config *config)
{
    int rc = executor->create(pool, config);

    return rc || !(executor->is_lazy || config->lazy) ? rc : bring_to_life(executor, *pool, config->workers);
}

static int warm_up(const struct executor *executor, struct executor_config config)
{
    void *pool;

    config.workers = 1;
    int rc = create_living(executor, &pool, &config);
    if (rc == 0)
        executor->destroy(pool);
    return rc;
}

int idle_run(const struct executor *executor, int argc, char **argv)
{
    uint64_t workers = 1000, seconds = 2, backend = 0, lazy = 0, before_kb, created_kb;
    struct record record;
    struct usage begun, used, idle;
    int64_t idle_ns;
    bool json = false;
    void *pool;
    int rc;
    const struct arg_key keys[] = {
        {"workers", 1, WORKERS_MOST, &workers, "threads that do nothing", NULL},
        {"seconds", 1, 3600, &seconds, "how long it is watched", NULL},
        KEYS_OF_RINGPOOL(backend, lazy),
    };

    switch (workload_args(executor, &record, keys, NKEYS(keys), NKEYS_OF_RINGPOOL, argc, argv, &json)) {
    case ARGS_HELP:
        return STATUS_OK;
    case ARGS_USAGE:
        return STATUS_USAGE;
    default:
        break;
    }
    struct executor_config config = {
        .workers = (unsigned)workers,
        .producers = 1,
        .queue = 1024,
        .lazy = lazy,
        .backend = (int)backend,
    };
    rc = cells_prepare((unsigned)workers, false) ? warm_up(executor, config) : -ENOMEM;
    before_kb = usage_rss_kb();
    begun = usage_now();
    if (rc == 0)
        rc = create_living(executor, &pool, &config);
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    used = usage_since(&begun);
    meter_sleep_until(meter_now() + SETTLE_NS);
    created_kb = usage_rss_kb();
    idle_ns = usage_of_others();
    begun = usage_now();
    meter_sleep_until(meter_now() + (int64_t)seconds * 1000000000);
    idle = usage_since(&begun);
    idle_ns = usage_of_others() - idle_ns;
    idle_ns = idle_ns > 0 ? idle_ns : 0; /* some hundred ns are between two clocks */
    record_add(&record, "create_us_per_worker", (double)used.wall / 1e3 / (double)workers);
    record_add(&record, "create_cpu_us_per_worker", (double)used.cpu / 1e3 / (double)workers);
    record_add(&record, "rss_kb_per_worker",
               created_kb > before_kb ? (double)(created_kb - before_kb) / (double)workers : 0);
    record_add(&record, "cpu_s", (double)idle_ns / 1e9);
    /* Going to sleep above is the one that is ours. */
    record_add(&record, "wakeups", idle.voluntary ? (double)idle.voluntary - 1 : 0);
    begun = usage_now();
    executor->destroy(pool);
    used = usage_since(&begun);
    record_add(&record, "destroy_us_per_worker", (double)used.wall / 1e3 / (double)workers);
    return record_print(&record, json);
}
