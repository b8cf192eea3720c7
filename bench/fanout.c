/*
 * Fanout: a loop over N elements of about 50 ns each, spread over the workers, beside the same loop in one thread of
 * the same run. Each element adds to a sum that must come out the same, so that none was skipped or done twice.
 *
 * Where the library has a parallel loop it is used. Elsewhere the submitter cuts the range into `chunks` tasks for each
 * worker, submits them (in a batch where there is one) and sleeps until the last is done, which is what a user would
 * write. The best of three of each, since the question is what the library adds and not what the neighbours do.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "command.h"
#include "meter.h"
#include "workload.h"

#define REPEATS 3

static uint64_t steps_per_element;
static _Atomic uint64_t total; /* added to once for each range */

static void body(uint64_t from, uint64_t to)
{
    uint64_t sum = 0, x = 0, nothing = 0;

    __asm__ volatile("" : "+r"(nothing));
    for (uint64_t i = from; i < to; i++) {
        /* `nothing` is 0, which neither compiler nor processor knows: an element begins when the one before is done. */
        x = meter_compute(i + (x & nothing), steps_per_element);
        sum += x;
    }
    atomic_fetch_add_explicit(&total, sum, memory_order_relaxed);
}

/* --- by tasks ----------------------------------------------------------------------------------------------------- */

static struct scatter {
    uint64_t elements, chunks;
    _Atomic uint64_t next, left;
    pthread_mutex_t mutex;
    pthread_cond_t done;
} scatter = {.mutex = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

/* Each task takes the next chunk: which one does not matter, and so all tasks have the same argument. */
static void chunk_task(void *unused)
{
    uint64_t i = atomic_fetch_add(&scatter.next, 1);

    (void)unused;
    body(scatter.elements * i / scatter.chunks, scatter.elements * (i + 1) / scatter.chunks);
    if (atomic_fetch_sub(&scatter.left, 1) == 1) {
        pthread_mutex_lock(&scatter.mutex);
        pthread_cond_signal(&scatter.done);
        pthread_mutex_unlock(&scatter.mutex);
    }
}

struct by_tasks {
    const struct executor *executor;
    void *pool;
    int rc;
};

static void scatter_and_wait(void *arg)
{
    struct by_tasks *run = arg;

    run->rc = run->executor->batch ? run->executor->batch(run->pool, chunk_task, NULL, (unsigned)scatter.chunks)
                                   : run->executor->burst(run->pool, chunk_task, NULL, scatter.chunks);
    if (run->rc)
        return;
    pthread_mutex_lock(&scatter.mutex);
    while (scatter.left)
        pthread_cond_wait(&scatter.done, &scatter.mutex);
    pthread_mutex_unlock(&scatter.mutex);
}

static int by_tasks(const struct executor *executor, void *pool, uint64_t elements, uint64_t chunks)
{
    struct by_tasks run = {.executor = executor, .pool = pool};

    scatter.elements = elements;
    scatter.chunks = chunks;
    scatter.next = 0;
    scatter.left = chunks;
    if (executor->inside)
        executor->inside(pool, scatter_and_wait, &run);
    else
        scatter_and_wait(&run);
    return run.rc;
}

/* --- the run ------------------------------------------------------------------------------------------------------ */

int fanout_run(const struct executor *executor, int argc, char **argv)
{
    uint64_t tasks = 1000000, workers = 2, spin = 50, chunks = 32, backend = 0, lazy = 0, expected = 0;
    int64_t serial = INT64_MAX, parallel = INT64_MAX;
    struct record record;
    bool json = false;
    void *pool;
    int rc;
    const struct arg_key keys[] = {
        {"tasks", 1, TASKS_MOST, &tasks, "elements", NULL},
        {"workers", 1, 1024, &workers, "threads that run; with a library's own loop the caller is one of them", NULL},
        {"spin", 0, 1000000, &spin, "ns of arithmetic for each element", NULL},
        {"chunks", 1, 1024, &chunks, "tasks for each worker, where the loop is cut by hand", NULL},
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
    meter_begin();
    steps_per_element = meter_steps(spin);
    struct executor_config config = {
        .workers = (unsigned)workers,
        .producers = 1,
        .queue = 65536,
        .lazy = lazy,
        .backend = (int)backend,
    };
    rc = executor->create(&pool, &config);
    for (int i = 0; i < REPEATS && rc == 0; i++) {
        int64_t begun = meter_now(), middle;

        total = 0;
        body(0, tasks);
        expected = total;
        middle = meter_now();
        total = 0;
        rc = executor->parallel ? executor->parallel(pool, body, tasks)
                                : by_tasks(executor, pool, tasks, chunks * workers);
        parallel = meter_now() - middle < parallel ? meter_now() - middle : parallel;
        serial = middle - begun < serial ? middle - begun : serial;
        if (total != expected)
            record.wrong = "the parallel sum differs from the serial one";
    }
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    executor->destroy(pool);
    record_add(&record, "serial_ns_per_element", (double)serial / (double)tasks);
    record_add(&record, "parallel_ns_per_element", (double)parallel / (double)tasks);
    record_add(&record, "speedup", (double)serial / (double)parallel);
    return record_print(&record, json);
}
