/*
 * libuv: uv_queue_work, whose thread pool is one for the process (at most 1024 threads). A loop belongs to one thread,
 * so that each producer has its own; work is malloc'ed and freed in its after-work callback, as users do. The queue has
 * no bound: a producer with as much outstanding as the queue may hold lets its loop run until something comes back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "meter.h"
#include "peer.h"

#define THREADS_MOST 1024

struct work {
    uv_work_t work;
    executor_fn *fn;
    void *arg;
};

struct pool {
    unsigned most; /* outstanding, for each producer */
};

static _Thread_local uv_loop_t *loop;
static _Thread_local unsigned outstanding;

static bool about(char *text, unsigned size)
{
    snprintf(text, size, "libuv %s", uv_version_string());
    return true;
}

static void run(uv_work_t *work)
{
    struct work *self = (struct work *)work;

    self->fn(self->arg);
}

static void after(uv_work_t *work, int status)
{
    (void)status;
    outstanding--;
    free(work);
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    struct pool *pool = self;
    struct work *work;

    while (outstanding >= pool->most)
        uv_run(loop, UV_RUN_ONCE);
    work = malloc(sizeof(*work));
    if (!work)
        return -ENOMEM;
    work->fn = fn;
    work->arg = arg;
    outstanding++;
    return uv_queue_work(loop, &work->work, run, after);
}

static int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    int rc = 0;

    while (n-- && rc == 0)
        rc = submit(self, fn, arg);
    return rc;
}

static int join(void *self, executor_fn *fn, void *arg)
{
    int rc = submit(self, fn, arg);

    if (rc == 0)
        uv_run(loop, UV_RUN_DEFAULT);
    return rc;
}

static void inside(void *self, executor_fn *produce, void *arg)
{
    (void)self;
    loop = malloc(sizeof(*loop));
    if (!loop || uv_loop_init(loop)) {
        fputs("libuv: cannot make a loop\n", stderr);
        exit(1);
    }
    produce(arg);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    free(loop);
    loop = NULL;
}

/* --- waits by timers ---------------------------------------------------------------------------------------------- */

struct waits {
    uint64_t left, outstanding, ms;
};

static void wait_over(uv_timer_t *timer)
{
    struct waits *waits = timer->data;

    task_count(NULL);
    if (waits->left) {
        waits->left--;
        uv_timer_start(timer, wait_over, waits->ms, 0);
    }
}

static void run_waits(void *arg)
{
    struct waits *waits = arg;
    uv_timer_t *made = calloc(waits->outstanding, sizeof(*made));

    if (!made)
        return; /* and the count is not right */
    for (uint64_t i = 0; i < waits->outstanding && waits->left; i++) {
        uv_timer_init(loop, &made[i]);
        made[i].data = waits;
        waits->left--;
        uv_timer_start(&made[i], wait_over, waits->ms, 0);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    for (uint64_t i = 0; i < waits->outstanding && made[i].data; i++)
        uv_close((uv_handle_t *)&made[i], NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    free(made);
}

static int timers(void *self, uint64_t n, uint64_t outstanding, int64_t ns)
{
    struct waits waits = {.left = n, .outstanding = outstanding, .ms = (uint64_t)(ns / 1000000)};

    inside(self, run_waits, &waits);
    return 0;
}

static void nothing(void *arg)
{
    (void)arg;
}

/* The first work starts all threads. */
static void first_work(void *arg)
{
    submit(arg, nothing, NULL);
}

static int create(void **self, const struct executor_config *config)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    unsigned most = config->strict ? config->workers : config->workers + config->queue;
    char number[16];

    if (!pool)
        return -ENOMEM;
    /* What cannot be divided among the producers cannot be strict here. */
    if (config->workers > THREADS_MOST || (config->strict && config->producers > config->workers)) {
        free(pool);
        return -ENOTSUP;
    }
    snprintf(number, sizeof(number), "%u", config->workers);
    setenv("UV_THREADPOOL_SIZE", number, 1);
    pool->most = most / config->producers ? most / config->producers : 1;
    inside(pool, first_work, pool);
    *self = pool;
    return 0;
}

static void destroy(void *self)
{
    uv_library_shutdown();
    free(self);
}

const struct executor peer_executor = {
    .name = "libuv",
    .about = about,
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
    .join = join,
    .inside = inside,
    .timers = timers,
};
