/*
 * No peer but a floor, as floor.c: what the tasks themselves take on so many threads. Nothing is queued, and nobody is
 * woken for a task: a burst is a number, from which each thread takes one after the other.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "peer.h"

struct pool {
    unsigned workers;
    pthread_t *threads;
    executor_fn *fn; /* NULL: end */
    void *arg;
    sem_t given, done;
    _Alignas(128) _Atomic int64_t left;
};

static void await(sem_t *sem)
{
    while (sem_wait(sem))
        ;
}

static void *worker(void *arg)
{
    struct pool *pool = arg;

    for (;;) {
        await(&pool->given);
        if (!pool->fn)
            return NULL;
        while (atomic_fetch_sub_explicit(&pool->left, 1, memory_order_relaxed) > 0)
            pool->fn(pool->arg);
        sem_post(&pool->done);
    }
}

static void give(struct pool *pool, executor_fn *fn, void *arg, uint64_t tasks)
{
    pool->fn = fn;
    pool->arg = arg;
    atomic_store(&pool->left, (int64_t)tasks);
    for (unsigned i = 0; i < pool->workers; i++)
        sem_post(&pool->given);
}

static void destroy(void *self)
{
    struct pool *pool = self;

    give(pool, NULL, NULL, 0);
    for (unsigned i = 0; i < pool->workers; i++)
        pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    free(pool);
}

static int create(void **self, const struct executor_config *config)
{
    struct pool *pool = aligned_alloc(128, sizeof(*pool));
    int rc = 0;

    if (config->strict || config->producers != 1)
        return -ENOTSUP;
    if (!pool)
        return -ENOMEM;
    pool->workers = 0;
    sem_init(&pool->given, 0, 0);
    sem_init(&pool->done, 0, 0);
    pool->threads = calloc(config->workers, sizeof(*pool->threads));
    if (!pool->threads)
        rc = ENOMEM;
    while (rc == 0 && pool->workers < config->workers) {
        rc = pthread_create(&pool->threads[pool->workers], NULL, worker, pool);
        pool->workers += rc == 0;
    }
    if (rc)
        destroy(pool);
    *self = pool;
    return -rc;
}

/* Of its one producer, who sleeps until all are done. */
static int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    struct pool *pool = self;

    give(pool, fn, arg, n);
    for (unsigned i = 0; i < pool->workers; i++)
        await(&pool->done);
    return 0;
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    return burst(self, fn, arg, 1);
}

const struct executor peer_executor = {
    .name = "floor-shares",
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
};
