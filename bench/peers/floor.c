/*
 * No peer but a floor: what the machine asks of any pool of threads. A bounded ring (D. Vyukov's, of 1024cores.net) and
 * threads that take from it, and nothing of what a pool promises: no end but the process's own, no lost wake-up only
 * because one word is bumped for each task while somebody sleeps. A row that cannot reach its bar is shown beside it.
 *
 * With FLOOR_SPINS a worker without work looks at the ring for ever, which is the least that a task can cost and for
 * no more workers than CPUs; else it sleeps in a futex at once.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"

#define LINE 128
#define LOOKS 64 /* before it gives up the CPU */
#define STACK ((size_t)64 << 10)

#ifdef FLOOR_SPINS
#define NAME "floor-ring"
enum { spins = true };
#else
#define NAME "floor-futex"
enum { spins = false };
#endif

struct cell {
    _Atomic uint64_t sequence;
    executor_fn *fn;
    void *arg;
    uint64_t unused;
};

struct pool {
    struct cell *ring;
    uint64_t mask;
    unsigned workers;
    pthread_t *threads;
    _Alignas(LINE) _Atomic uint64_t tail;
    _Alignas(LINE) _Atomic uint64_t head;
    _Alignas(LINE) _Atomic uint32_t signal; /* bumped for sleepers */
    _Atomic uint32_t sleepers;
    atomic_bool closed;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void futex_call(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static bool take(struct pool *pool, struct cell *out)
{
    uint64_t head = atomic_load_explicit(&pool->head, memory_order_relaxed);

    for (;;) {
        struct cell *cell = &pool->ring[head & pool->mask];
        int64_t ahead = (int64_t)(atomic_load_explicit(&cell->sequence, memory_order_acquire) - (head + 1));

        if (ahead < 0)
            return false;
        if (ahead == 0 && atomic_compare_exchange_weak_explicit(&pool->head, &head, head + 1, memory_order_relaxed,
                                                                memory_order_relaxed)) {
            out->fn = cell->fn;
            out->arg = cell->arg;
            atomic_store_explicit(&cell->sequence, head + pool->mask + 1, memory_order_release);
            return true;
        }
        if (ahead > 0)
            head = atomic_load_explicit(&pool->head, memory_order_relaxed);
    }
}

static bool put(struct pool *pool, executor_fn *fn, void *arg)
{
    uint64_t tail = atomic_load_explicit(&pool->tail, memory_order_relaxed);

    for (;;) {
        struct cell *cell = &pool->ring[tail & pool->mask];
        int64_t ahead = (int64_t)(atomic_load_explicit(&cell->sequence, memory_order_acquire) - tail);

        if (ahead < 0)
            return false;
        if (ahead == 0 && atomic_compare_exchange_weak_explicit(&pool->tail, &tail, tail + 1, memory_order_relaxed,
                                                                memory_order_relaxed)) {
            cell->fn = fn;
            cell->arg = arg;
            atomic_store_explicit(&cell->sequence, tail + 1, spins ? memory_order_release : memory_order_seq_cst);
            return true;
        }
        if (ahead > 0)
            tail = atomic_load_explicit(&pool->tail, memory_order_relaxed);
    }
}

/* Counted before it looks again: a submitter that sees no sleeper has published before that look. */
static bool sleep_unless_ready(struct pool *pool, struct cell *out)
{
    uint32_t signal = atomic_load(&pool->signal);

    atomic_fetch_add(&pool->sleepers, 1);
    bool ready = take(pool, out);
    if (!ready && !atomic_load(&pool->closed))
        futex_call(&pool->signal, FUTEX_WAIT, signal);
    atomic_fetch_sub(&pool->sleepers, 1);
    return ready;
}

static bool look(struct pool *pool, struct cell *out)
{
    for (int i = 0; i < LOOKS; i++) {
        if (take(pool, out))
            return true;
        pause_cpu();
    }
    sched_yield();
    return false;
}

static void *worker(void *arg)
{
    struct pool *pool = arg;
    struct cell task;

    for (;;) {
        if (take(pool, &task) || (spins ? look(pool, &task) : sleep_unless_ready(pool, &task)))
            task.fn(task.arg);
        else if (atomic_load_explicit(&pool->closed, memory_order_relaxed))
            return NULL;
    }
}

static void destroy(void *self)
{
    struct pool *pool = self;

    atomic_store(&pool->closed, true);
    atomic_fetch_add(&pool->signal, 1);
    futex_call(&pool->signal, FUTEX_WAKE, INT_MAX);
    for (unsigned i = 0; i < pool->workers; i++)
        pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    free(pool->ring);
    free(pool);
}

static int create(void **self, const struct executor_config *config)
{
    struct pool *pool = aligned_alloc(LINE, (sizeof(*pool) + LINE - 1) / LINE * LINE);
    uint64_t size = 2;
    pthread_attr_t attr;
    int rc = 0;

    if (config->strict)
        return -ENOTSUP;
    while (size < config->queue)
        size *= 2;
    if (!pool)
        return -ENOMEM;
    memset(pool, 0, sizeof(*pool));
    pool->mask = size - 1;
    pool->ring = calloc(size, sizeof(*pool->ring));
    pool->threads = calloc(config->workers, sizeof(*pool->threads));
    if (!pool->ring || !pool->threads)
        rc = ENOMEM;
    for (uint64_t i = 0; i < size && rc == 0; i++)
        pool->ring[i].sequence = i;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    while (rc == 0 && pool->workers < config->workers) {
        rc = pthread_create(&pool->threads[pool->workers], &attr, worker, pool);
        pool->workers += rc == 0;
    }
    pthread_attr_destroy(&attr);
    if (rc)
        destroy(pool);
    *self = pool;
    return -rc;
}

static void wait_for_room(void)
{
    if (!spins)
        sched_yield();
    for (int i = 0; i < LOOKS; i++)
        pause_cpu();
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    struct pool *pool = self;

    while (!put(pool, fn, arg))
        wait_for_room();
    if (!spins && atomic_load(&pool->sleepers)) {
        atomic_fetch_add(&pool->signal, 1);
        futex_call(&pool->signal, FUTEX_WAKE, 1);
    }
    return 0;
}

static int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    while (n--)
        submit(self, fn, arg);
    return 0;
}

/* The positions by one claim; the last slot is the last to become free where one thread takes, as in the row that shows it. */
static bool put_many(struct pool *pool, executor_fn *fn, void *arg, unsigned n)
{
    uint64_t tail = atomic_load_explicit(&pool->tail, memory_order_relaxed);

    for (;;) {
        struct cell *last = &pool->ring[(tail + n - 1) & pool->mask];
        int64_t ahead = (int64_t)(atomic_load_explicit(&last->sequence, memory_order_acquire) - (tail + n - 1));

        if (ahead < 0)
            return false;
        if (ahead == 0 && atomic_compare_exchange_weak_explicit(&pool->tail, &tail, tail + n, memory_order_relaxed,
                                                                memory_order_relaxed))
            break;
        if (ahead > 0)
            tail = atomic_load_explicit(&pool->tail, memory_order_relaxed);
    }
    for (uint64_t at = tail; at < tail + n; at++) {
        struct cell *cell = &pool->ring[at & pool->mask];
        while (atomic_load_explicit(&cell->sequence, memory_order_acquire) != at)
            pause_cpu();
        cell->fn = fn;
        cell->arg = arg;
        atomic_store_explicit(&cell->sequence, at + 1, memory_order_release);
    }
    return true;
}

/* Of the spinning form alone: nobody is woken. */
static int batch(void *self, executor_fn *fn, void *arg, unsigned n)
{
    while (!put_many(self, fn, arg, n))
        wait_for_room();
    return 0;
}

const struct executor peer_executor = {
    .name = NAME,
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
    .batch = spins ? batch : NULL,
};
