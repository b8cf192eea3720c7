/*
 * `ringpool bench completions`: how fast results come back to one consumer.
 *
 * P threads hand over work and one consumer takes the completions. via=tasks: an empty task for each completion, in
 * batches, on W workers: what a user sees. via=post: the threads post themselves (rp_cq_post): the queue alone. The
 * consumer is busy (it never sleeps, as an event loop that has other things to do), or asleep (it waits for one
 * completion and sleeps when there is none). ring=doorbell: the completions ring at the consumer's own io_uring ring,
 * which it waits on; it counts the CQEs.
 *
 * A futex wake-up has two system calls, of who sleeps and of who wakes. `sleeps_per_completion` counts the first by the
 * voluntary switches of the consumer; tests/pool/calls.c counts all calls.
 */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <ringpool.h>

#include "args.h"
#include "bench.h"
#include "command.h"
#include "meter.h"
#include "record.h"
#include "workload.h"

#define TAKE_MOST 256
#define BATCH_MOST 256
#define TAG 1

enum { CONSUMER_BUSY, CONSUMER_ASLEEP };
static const char *const consumer_words[] = {"busy", "asleep", NULL};
enum { VIA_TASKS, VIA_POST };
static const char *const via_words[] = {"tasks", "post", NULL};
enum { RING_NO, RING_DOORBELL };
static const char *const ring_words[] = {"no", "doorbell", NULL};

struct run {
    struct rp_cq *cq;
    struct rp_pool *pool;
    struct io_uring ring;
    uint64_t n, each, producers, via, consumer, uses_ring, batch;
    uint64_t taken, sum, calls, cqes; /* the consumer's */
    uint64_t voluntary;
    int error;
};

static void nothing(void *arg)
{
    (void)arg;
}

static int hand_over_tasks(struct run *run, uint64_t first)
{
    struct rp_task tasks[BATCH_MOST];

    for (uint64_t i = 0; i < run->each;) {
        unsigned n = 0;
        for (; n < run->batch && i + n < run->each; n++)
            tasks[n] = (struct rp_task){.fn = nothing, .cq = run->cq, .user_data = first + i + n};
        for (unsigned done = 0; done < n;) {
            int rc = rp_pool_submit_batch(run->pool, tasks + done, n - done);
            if (rc < 0)
                return rc;
            done += (unsigned)rc;
        }
        i += n;
    }
    return 0;
}

static int hand_over_posts(struct run *run, uint64_t first)
{
    int rc = 0;

    for (uint64_t i = 0; i < run->each && !rc; i++)
        while ((rc = rp_cq_post(run->cq, first + i, 0)) == -EAGAIN)
            sched_yield(); /* the limit: the consumer is behind */
    return rc;
}

static void producer(struct run *run, unsigned i)
{
    uint64_t first = i * run->each;
    int rc = run->via == VIA_TASKS ? hand_over_tasks(run, first) : hand_over_posts(run, first);

    if (rc)
        __atomic_store_n(&run->error, rc, __ATOMIC_RELAXED);
}

static int take(struct run *run, unsigned min)
{
    struct rp_completion out[TAKE_MOST];
    int n = rp_cq_wait(run->cq, out, TAKE_MOST, min, min ? rp_after(INT64_C(10000000000)) : 0);

    run->calls++;
    for (int i = 0; i < n; i++)
        run->sum += out[i].user_data;
    if (n > 0)
        run->taken += (uint64_t)n;
    return n;
}

/* One turn of a loop that lives in io_uring: sleeps in the ring if it may, and takes when the doorbell has come. */
static int take_by_ring(struct run *run)
{
    struct io_uring_cqe *cqe;
    bool asleep = run->consumer == CONSUMER_ASLEEP;
    int rc = asleep ? io_uring_submit_and_wait(&run->ring, 1) : io_uring_submit_and_get_events(&run->ring);

    if (rc < 0 && rc != -EINTR)
        return rc;
    while (io_uring_peek_cqe(&run->ring, &cqe) == 0) {
        io_uring_cqe_seen(&run->ring, cqe);
        run->cqes++;
        int n;
        while ((n = take(run, 0)) == TAKE_MOST)
            ;
        if (n < 0)
            return n;
        rc = rp_cq_arm(run->cq);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void consumer(struct run *run)
{
    struct rusage begun, ended;
    int rc = 0;

    getrusage(RUSAGE_THREAD, &begun);
    if (run->uses_ring)
        rc = rp_cq_arm(run->cq);
    while (run->taken < run->n && rc >= 0 && !__atomic_load_n(&run->error, __ATOMIC_RELAXED))
        rc = run->uses_ring ? take_by_ring(run) : take(run, run->consumer == CONSUMER_ASLEEP);
    getrusage(RUSAGE_THREAD, &ended);
    run->voluntary = (uint64_t)(ended.ru_nvcsw - begun.ru_nvcsw);
    if (rc < 0)
        __atomic_store_n(&run->error, rc, __ATOMIC_RELAXED);
}

static void body(void *arg, unsigned i)
{
    struct run *run = arg;

    if (i == 0)
        consumer(run);
    else
        producer(run, i - 1);
}

static int run_open(struct run *run, unsigned workers, int backend)
{
    struct rp_cq_options options = {.backend = backend, .tag = TAG, .limit = run->via == VIA_POST ? 1U << 20 : 0};
    const struct rp_pool_options pool_options = {
        .queue_depth = 4096, .prealloc = true, .no_purge = true, .backend = backend};
    int rc = run->uses_ring ? io_uring_queue_init(64, &run->ring, 0) : 0;

    if (rc)
        return rc;
    options.ring = run->uses_ring ? &run->ring : NULL;
    rc = rp_cq_create(&run->cq, &options);
    if (!rc && run->via == VIA_TASKS)
        rc = rp_pool_create(&run->pool, workers, &pool_options);
    return rc;
}

static void run_close(struct run *run)
{
    if (run->pool)
        rp_pool_destroy(run->pool);
    if (run->cq)
        rp_cq_destroy(run->cq);
    if (run->uses_ring)
        io_uring_queue_exit(&run->ring);
}

static void report(struct record *record, const struct run *run, const struct usage *used)
{
    double n = (double)run->n;

    record_add(record, "completions_per_s", n * 1e9 / (double)used->wall);
    record_add(record, "cpu_ns_per_completion", (double)used->cpu / n);
    record_add(record, "per_call", run->calls ? n / (double)run->calls : 0);
    record_add(record, "sleeps_per_completion", (double)run->voluntary / n);
    if (run->uses_ring)
        record_add(record, "cqes_per_completion", (double)run->cqes / n);
    if (run->sum != run->n * (run->n - 1) / 2)
        record->wrong = "not exactly the completions came that were owed";
}

int bench_completions(int argc, char **argv)
{
    static const int backends[] = {RP_BACKEND_AUTO, RP_BACKEND_IO_URING, RP_BACKEND_EPOLL};
    uint64_t tasks = 10000000, workers = 1, backend = 0;
    struct run run = {.producers = 1, .batch = 64};
    struct record record = {.program = "ringpool", .about = rp_backend(), .workload = "completions"};
    struct usage begun, used;
    bool json = false;
    const struct arg_key keys[] = {
        {"consumer", 0, 0, &run.consumer, "what it does while there is none", consumer_words},
        {"via", 0, 0, &run.via, "tasks that owe a completion, or posts alone", via_words},
        {"ring", 0, 0, &run.uses_ring, "the consumer waits on a ring of its own", ring_words},
        {"producers", 1, PRODUCERS_MOST, &run.producers, "threads that submit, or post", NULL},
        {"workers", 1, WORKERS_MOST, &workers, "threads that run the tasks", NULL},
        {"tasks", 1, TASKS_MOST, &tasks, "completions", NULL},
        {"batch", 1, BATCH_MOST, &run.batch, "tasks in one submit", NULL},
        {"backend", 0, 0, &backend, "what sleeps for timers", backend_words},
    };

    record.keys = keys;
    record.nkeys = NKEYS(keys);
    switch (args_parse("ringpool bench", "completions", keys, NKEYS(keys), argc, argv, &json)) {
    case ARGS_HELP:
        return STATUS_OK;
    case ARGS_USAGE:
        return STATUS_USAGE;
    default:
        break;
    }
    meter_begin();
    run.each = tasks / run.producers;
    run.n = run.each * run.producers;
    int rc = run.n ? run_open(&run, (unsigned)workers, backends[backend]) : -EINVAL;
    if (!rc)
        rc = threads_run((unsigned)run.producers + 1, body, &run, &begun);
    if (!rc)
        rc = run.error;
    used = usage_since(&begun);
    if (rc)
        return workload_failed(&record, "cannot run", rc);
    report(&record, &run, &used);
    run_close(&run);
    return record_print(&record, json);
}
