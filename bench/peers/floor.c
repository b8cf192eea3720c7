/*
 * No peer but a floor: what the machine asks of any pool of threads. A bounded ring (D. Vyukov's, of 1024cores.net) and
 * threads that take from it, and nothing of what a pool promises: no end but the process's own, no lost wake-up only
 * because one word is bumped for each task while somebody sleeps. A row that cannot reach its bar is shown beside it.
 *
 * With FLOOR_SPINS a worker without work looks at the ring for ever, which is the least that a task can cost and for
 * no more workers than CPUs; else it sleeps in a futex at once. Strict, the ring has a cell for each worker: one that has
 * taken a task has freed its cell before it runs it, which is less than is asked of a pool.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bare_ring.h"
#include "peer.h"

#define STACK ((size_t)64 << 10)

#ifdef FLOOR_SPINS
#define NAME "floor-ring"
enum { spins = true };
#else
#define NAME "floor-futex"
enum { spins = false };
#endif

struct pool {
    struct bare_ring ring;
    unsigned workers;
    pthread_t *threads;
    _Alignas(BARE_LINE) _Atomic uint32_t signal; /* bumped for sleepers */
    _Atomic uint32_t sleepers;
    atomic_bool closed;
};

static void futex_call(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static bool put(struct pool *pool, executor_fn *fn, void *arg, unsigned n)
{
    uint64_t first;

    if (!bare_claim(&pool->ring, n, &first))
        return false;
    for (unsigned i = 0; i < n; i++)
        bare_fill(&pool->ring, first + i, fn, arg, spins ? memory_order_release : memory_order_seq_cst);
    return true;
}

/* Counted before it looks again: a submitter that sees no sleeper has published before that look. */
static bool sleep_unless_ready(struct pool *pool, struct bare_cell *out)
{
    uint32_t signal = atomic_load(&pool->signal);

    atomic_fetch_add(&pool->sleepers, 1);
    bool ready = bare_take(&pool->ring, out);
    if (!ready && !atomic_load(&pool->closed))
        futex_call(&pool->signal, FUTEX_WAIT, signal);
    atomic_fetch_sub(&pool->sleepers, 1);
    return ready;
}

static bool look(struct pool *pool, struct bare_cell *out)
{
    bool found = bare_look(&pool->ring, out);

    if (!found)
        sched_yield();
    return found;
}

static void *worker(void *arg)
{
    struct pool *pool = arg;
    struct bare_cell task;

    for (;;) {
        if (bare_take(&pool->ring, &task) || (spins ? look(pool, &task) : sleep_unless_ready(pool, &task)))
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
    bare_ring_fini(&pool->ring);
    free(pool);
}

static int create(void **self, const struct executor_config *config)
{
    struct pool *pool = aligned_alloc(BARE_LINE, (sizeof(*pool) + BARE_LINE - 1) / BARE_LINE * BARE_LINE);
    pthread_attr_t attr;
    int rc = 0;

    if (!pool)
        return -ENOMEM;
    memset(pool, 0, sizeof(*pool));
    pool->threads = calloc(config->workers, sizeof(*pool->threads));
    if (bare_ring_init(&pool->ring, config->strict ? config->workers : config->queue) || !pool->threads)
        rc = ENOMEM;
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

/* Where more than one task may wait some room is made before the next look. */
static void put_soon(struct pool *pool, executor_fn *fn, void *arg, unsigned n)
{
    bool deep = pool->ring.mask >= BARE_LOOKS;

    for (unsigned looks = 1; !put(pool, fn, arg, n); looks++) {
        for (int i = 0; i < (deep ? BARE_LOOKS : 1); i++)
            bare_pause();
        if (deep || looks % BARE_LOOKS == 0)
            sched_yield();
    }
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    struct pool *pool = self;

    put_soon(pool, fn, arg, 1);
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

/* Of the spinning form alone: nobody is woken. */
static int batch(void *self, executor_fn *fn, void *arg, unsigned n)
{
    put_soon(self, fn, arg, n);
    return 0;
}

struct joined {
    executor_fn *fn;
    void *arg;
    _Alignas(BARE_LINE) atomic_bool done;
};

static void run_joined(void *arg)
{
    struct joined *joined = arg;

    joined->fn(joined->arg);
    atomic_store_explicit(&joined->done, true, memory_order_release);
}

/* Likewise: there and back, two lines each way. */
static int join(void *self, executor_fn *fn, void *arg)
{
    struct joined joined = {.fn = fn, .arg = arg};

    put_soon(self, run_joined, &joined, 1);
    while (!atomic_load_explicit(&joined.done, memory_order_acquire))
        bare_pause();
    return 0;
}

const struct executor peer_executor = {
    .name = NAME,
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
    .batch = spins ? batch : NULL,
    .join = spins ? join : NULL,
};
