/*
 * The pool of the textbook: a ring of tasks under one mutex, a condition variable for workers and one for submitters.
 * A signal is sent only when somebody may wait for it. Batches take the lock once.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "peer.h"

struct task {
    executor_fn *fn;
    void *arg;
};

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t filled, freed;
    struct task *ring;
    unsigned size, head, count;
    unsigned running, limit; /* running + count never exceeds limit */
    unsigned waiting;        /* submitters */
    unsigned idle;           /* workers */
    bool closed;
    unsigned workers;
    pthread_t *threads;
};

static void *worker(void *arg)
{
    struct pool *pool = arg;

    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        struct task task;

        while (pool->count == 0 && !pool->closed) {
            pool->idle++;
            pthread_cond_wait(&pool->filled, &pool->mutex);
            pool->idle--;
        }
        if (pool->count == 0)
            break;
        task = pool->ring[pool->head];
        pool->head = pool->head + 1 == pool->size ? 0 : pool->head + 1;
        pool->count--;
        pool->running++;
        pthread_mutex_unlock(&pool->mutex);
        task.fn(task.arg);
        pthread_mutex_lock(&pool->mutex);
        pool->running--;
        if (pool->waiting)
            pthread_cond_signal(&pool->freed);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void destroy(void *self)
{
    struct pool *pool = self;

    pthread_mutex_lock(&pool->mutex);
    pool->closed = true;
    pthread_cond_broadcast(&pool->filled);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->workers; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->freed);
    pthread_cond_destroy(&pool->filled);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->threads);
    free(pool->ring);
    free(pool);
}

static int create(void **self, const struct executor_config *config)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    int rc = 0;

    if (!pool)
        return -ENOMEM;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->filled, NULL);
    pthread_cond_init(&pool->freed, NULL);
    pool->size = pool->limit = config->workers + config->queue;
    pool->ring = calloc(pool->size, sizeof(*pool->ring));
    pool->threads = calloc(config->workers, sizeof(*pool->threads));
    if (!pool->ring || !pool->threads)
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

static void push_locked(struct pool *pool, executor_fn *fn, void *arg)
{
    unsigned tail;

    while (pool->count + pool->running >= pool->limit) {
        pool->waiting++;
        pthread_cond_wait(&pool->freed, &pool->mutex);
        pool->waiting--;
    }
    tail = pool->head + pool->count;
    pool->ring[tail < pool->size ? tail : tail - pool->size] = (struct task){fn, arg};
    pool->count++;
    if (pool->idle)
        pthread_cond_signal(&pool->filled);
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    struct pool *pool = self;

    pthread_mutex_lock(&pool->mutex);
    push_locked(pool, fn, arg);
    pthread_mutex_unlock(&pool->mutex);
    return 0;
}

static int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    while (n--)
        submit(self, fn, arg);
    return 0;
}

static int batch(void *self, executor_fn *fn, void *arg, unsigned n)
{
    struct pool *pool = self;

    pthread_mutex_lock(&pool->mutex);
    while (n--)
        push_locked(pool, fn, arg);
    pthread_mutex_unlock(&pool->mutex);
    return 0;
}

const struct executor peer_executor = {
    .name = "mutex",
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
    .batch = batch,
};
