/* GLib: an exclusive GThreadPool. Its queue has no bound; what is pushed is a pointer, so each task is allocated. */
#include <glib.h>
#include <stdio.h>

#include "peer.h"

struct task {
    executor_fn *fn;
    void *arg;
};

struct pool {
    GThreadPool *threads;
    struct permits permits;
};

static bool about(char *text, unsigned size)
{
    snprintf(text, size, "GLib %u.%u.%u", glib_major_version, glib_minor_version, glib_micro_version);
    return true;
}

static void run(gpointer data, gpointer user)
{
    struct task task = *(struct task *)data;
    struct pool *pool = user;

    g_slice_free(struct task, data);
    task.fn(task.arg);
    permits_give(&pool->permits);
}

static int create(void **self, const struct executor_config *config)
{
    struct pool *pool = g_new0(struct pool, 1);
    GError *error = NULL;

    permits_init(&pool->permits, config);
    pool->threads = g_thread_pool_new(run, pool, (gint)config->workers, TRUE, &error);
    *self = pool;
    if (error) {
        g_error_free(error);
        return -EAGAIN;
    }
    return 0;
}

static void destroy(void *self)
{
    struct pool *pool = self;

    g_thread_pool_free(pool->threads, FALSE, TRUE);
    g_free(pool);
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    struct pool *pool = self;
    struct task *task;

    permits_take(&pool->permits);
    task = g_slice_new(struct task);
    *task = (struct task){fn, arg};
    return g_thread_pool_push(pool->threads, task, NULL) ? 0 : -EAGAIN;
}

static int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    int rc = 0;

    while (n-- && rc == 0)
        rc = submit(self, fn, arg);
    return rc;
}

const struct executor peer_executor = {
    .name = "glib",
    .about = about,
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
};
