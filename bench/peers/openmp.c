/*
 * OpenMP tasks (libgomp): a parallel region of the producer and the workers, in which the producer makes tasks. The
 * producer may run tasks itself, when too many wait and at the end: not a queue in the sense of the others. One
 * producer only, since each thread outside would open a region, and workers, of its own.
 */
#include <omp.h>
#include <stdio.h>

#include "peer.h"

static unsigned workers;

static bool about(char *text, unsigned size)
{
    snprintf(text, size, "OpenMP %d (libgomp)", _OPENMP);
    return true;
}

static int create(void **self, const struct executor_config *config)
{
    if (config->strict || config->producers > 1)
        return -ENOTSUP;
    workers = config->workers;
    *self = &workers;
    return 0;
}

static void destroy(void *self)
{
    (void)self;
}

static void inside(void *self, executor_fn *produce, void *arg)
{
    (void)self;
#pragma omp parallel num_threads(workers + 1)
#pragma omp single
    produce(arg);
}

static int submit(void *self, executor_fn *fn, void *arg)
{
    (void)self;
#pragma omp task firstprivate(fn, arg)
    fn(arg);
    return 0;
}

static int burst(void *self, executor_fn *fn, void *arg, uint64_t n)
{
    (void)self;
    while (n--) {
#pragma omp task firstprivate(fn, arg)
        fn(arg);
    }
    return 0;
}

static int join(void *self, executor_fn *fn, void *arg)
{
    submit(self, fn, arg);
#pragma omp taskwait
    return 0;
}

#define GRAIN 1024

static int parallel(void *self, void (*body)(uint64_t from, uint64_t to), uint64_t n)
{
    (void)self;
#pragma omp parallel for num_threads(workers) schedule(dynamic, 4)
    for (uint64_t i = 0; i < (n + GRAIN - 1) / GRAIN; i++)
        body(i * GRAIN, (i + 1) * GRAIN < n ? (i + 1) * GRAIN : n);
    return 0;
}

const struct executor peer_executor = {
    .name = "openmp",
    .about = about,
    .is_lazy = true,
    .create = create,
    .destroy = destroy,
    .submit = submit,
    .burst = burst,
    .join = join,
    .parallel = parallel,
    .inside = inside,
};
