/*
 * Our own executor, by the public headers alone.
 *
 * Workers are made before the clock starts and stay (min_workers, no_purge), as the peers' do; lazy=yes leaves both to
 * the pool's defaults.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ringpool.h>

#include "meter.h"
#include "workload.h"

/* Tasks in one call of a batch; longer ones are cut. */
#define BATCH_MOST 1024
#define WATCH_NS 1000000

static int chosen_backend; /* there is one pool in a run */

static bool about(char *text, unsigned size)
{
    snprintf(text, size, "ringpool %s, %s", rp_version(), rp_backend());
    return true;
}

static int create(void **self, const struct executor_config *config)
{
    static const int backends[] = {
        [BACKEND_AUTO] = RP_BACKEND_AUTO,
        [BACKEND_IO_URING] = RP_BACKEND_IO_URING,
        [BACKEND_EPOLL] = RP_BACKEND_EPOLL,
    };
    struct rp_pool_options options = {
        .queue_depth = config->strict ? 0 : config->queue,
        .prealloc = !config->lazy,
        .no_purge = !config->lazy,
        .metrics = config->metrics,
        .unordered = config->unordered,
        .backend = backends[config->backend],
    };
    struct rp_pool *pool;
    int rc;

    chosen_backend = options.backend;
    rc = rp_pool_create(&pool, config->workers, &options);

    *self = pool;
    return rc;
}

static void destroy(void *self)
{
    rp_pool_destroy(self);
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    return rp_pool_submit(self, fn, arg);
}

static int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    int rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = rp_pool_submit(self, fn, arg);
    return rc;
}

static int batch(void *self, executor_fn *fn, void *arg, unsigned n)
{
    struct rp_task tasks[BATCH_MOST];

    for (unsigned done = 0; done < n;) {
        unsigned size = n - done < BATCH_MOST ? n - done : BATCH_MOST;
        int rc;

        for (unsigned i = 0; i < size; i++)
            tasks[i] = (struct rp_task){.fn = fn, .arg = arg};
        rc = rp_pool_submit_batch(self, tasks, size);
        if (rc < 0)
            return rc;
        done += (unsigned)rc;
    }
    return 0;
}

/* --- one task, until it is done ----------------------------------------------------------------------------------- */

/*
 * An event as a careful user writes it. The waiter looks for some microseconds, which saves both sides a system call
 * when the task is short, and then sleeps. Where the last task ended on the waiter's own CPU it sleeps at once: the
 * worker could not run while it looks.
 */
enum { EVENT_PENDING, EVENT_SLEEPING, EVENT_DONE };
#define EVENT_SPIN_NS 20000

struct event {
    _Atomic uint32_t word;
    executor_fn *fn;
    void *arg;
    _Atomic int cpu; /* where the task ended */
};

static void event_task(void *arg)
{
    struct event *event = arg;

    event->fn(event->arg);
    atomic_store_explicit(&event->cpu, sched_getcpu(), memory_order_relaxed); /* a hint */
    /* The waiter may be gone right after; the wake only uses the address. */
    if (atomic_exchange_explicit(&event->word, EVENT_DONE, memory_order_acq_rel) == EVENT_SLEEPING)
        syscall(SYS_futex, &event->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool event_look(struct event *event)
{
    int64_t until = rp_now() + EVENT_SPIN_NS;

    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(&event->word, memory_order_acquire) == EVENT_DONE)
                return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    } while (rp_now() < until);
    return false;
}

static void event_wait(struct event *event, int last_cpu)
{
    uint32_t pending = EVENT_PENDING;

    if (last_cpu != sched_getcpu() && event_look(event))
        return;
    if (!atomic_compare_exchange_strong_explicit(&event->word, &pending, EVENT_SLEEPING, memory_order_acq_rel,
                                                 memory_order_acquire))
        return;
    while (atomic_load_explicit(&event->word, memory_order_acquire) == EVENT_SLEEPING)
        syscall(SYS_futex, &event->word, FUTEX_WAIT_PRIVATE, EVENT_SLEEPING, NULL, NULL, 0);
}

static int join(void *self, executor_fn *fn, void *arg)
{
    /* Thread-local and not on the stack: the worker's FUTEX_WAKE may come when this has returned. */
    static _Thread_local struct event event = {.cpu = -1};
    int last_cpu = atomic_load_explicit(&event.cpu, memory_order_relaxed), rc;

    event.fn = fn;
    event.arg = arg;
    atomic_store_explicit(&event.word, EVENT_PENDING, memory_order_relaxed); /* published by submit */
    rc = rp_pool_submit(self, event_task, &event);
    if (rc == 0)
        event_wait(&event, last_cpu);
    return rc;
}

/* --- the same by a future ----------------------------------------------------------------------------------------- */

struct call {
    executor_fn *fn;
    void *arg;
};

static int future_task(void *arg, void **value)
{
    struct call *call = arg;

    (void)value;
    call->fn(call->arg);
    return 0;
}

static int join_by(struct rp_pool *pool, struct call *call, bool run)
{
    struct rp_future *future;
    int rc = rp_pool_submit_future(pool, future_task, call, &future);

    if (rc)
        return rc;
    if (run)
        rp_future_run(future); /* or somebody has begun it */
    rc = rp_future_get(future, NULL);
    rp_future_destroy(future);
    return rc;
}

static int join_future(void *self, executor_fn *fn, void *arg)
{
    return join_by(self, &(struct call){fn, arg}, false);
}

static int join_run(void *self, executor_fn *fn, void *arg)
{
    return join_by(self, &(struct call){fn, arg}, true);
}

/* --- waits by timers ---------------------------------------------------------------------------------------------- */

struct waits {
    _Atomic uint64_t left; /* to be begun */
    int64_t ns;
};

static void wait_again(struct rp_timer *timer, struct waits *waits)
{
    /* The last waits take it below nothing, once for each timer. */
    if ((int64_t)atomic_fetch_sub_explicit(&waits->left, 1, memory_order_relaxed) > 0)
        rp_timer_arm(timer, rp_after(waits->ns));
}

static void wait_over(struct rp_timer *timer, void *waits)
{
    task_count(NULL);
    wait_again(timer, waits);
}

static int timers(void *unused, uint64_t n, uint64_t outstanding, int64_t ns)
{
    const struct rp_timer_options options = {.backend = chosen_backend};
    struct waits waits = {.left = n, .ns = ns};
    struct rp_timer **made = calloc(outstanding, sizeof(struct rp_timer *));
    int rc = made ? 0 : -ENOMEM;

    (void)unused;
    for (uint64_t i = 0; i < outstanding && rc == 0; i++) {
        rc = rp_timer_create(&made[i], wait_over, &waits, &options);
        if (rc == 0)
            wait_again(made[i], &waits);
    }
    if (rc == 0)
        cells_wait(n, WATCH_NS);
    for (uint64_t i = 0; i < outstanding && made; i++)
        if (made[i])
            rp_timer_destroy(made[i]);
    free(made);
    return rc;
}

const struct executor ringpool_executor = {
    .name = "ringpool",
    .about = about,
    .is_ringpool = true,
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
    .batch = batch,
    .join = join,
    .join_future = join_future,
    .join_run = join_run,
    .timers = timers,
};
