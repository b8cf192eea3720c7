/*
 * What holds for the whole API: errno is left alone, descriptors do not survive an exec, and no thread of ours takes a
 * signal that was meant for the user's.
 */
#include "life.h"

#include <ringpool.h>

#include <fcntl.h>
#include <signal.h>

/* --- errno ------------------------------------------------------------------------------------------------------ */

static int returns(void *arg, void **value)
{
    *value = arg;
    return 0;
}

static int goes_on(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    *next_value = value;
    return result;
}

static int member(void *arg)
{
    (void)arg;
    return 0;
}

static void fires(struct rp_timer *timer, void *arg)
{
    (void)timer;
    add_seq((_Atomic uint32_t *)arg, 1);
}

/* Calls, and says which call it was that changed errno. */
#define KEEPS_ERRNO(call)                                                                                              \
    do {                                                                                                               \
        errno = ENOTTY;                                                                                                \
        (void)(call);                                                                                                  \
        cr_expect_eq(errno, ENOTTY, "%s made it %d", #call, errno);                                                    \
    } while (0)

/* The first calls of a process, which do the most: the kernel is probed, threads are started, tables are read. */
Test(conventions, errno_is_left_alone)
{
    struct rp_pool_options options = {.queue_depth = 4, .name = "errno"};
    struct rp_task task = {.fn = count_task, .label = "task", .deadline = rp_after(PATIENCE)};
    struct rp_pool_snapshot snapshot;
    struct rp_worker_info worker;
    struct rp_completion completion;
    struct rp_release_report report;
    struct rp_future *future, *next;
    struct rp_multi *multi;
    struct rp_timer *timer;
    struct rp_strand *strand;
    struct rp_group *group;
    struct rp_pool *pool, *none;
    struct rp_ctx *ctx;
    struct rp_cq *cq;
    static _Atomic uint32_t ran;
    void *value;

    KEEPS_ERRNO(rp_backend());
    KEEPS_ERRNO(rp_pool_create(&pool, 0, &options));
    options.reserved[0] = 1;
    KEEPS_ERRNO(rp_pool_create(&none, 0, &options));
    KEEPS_ERRNO(rp_cq_create(&cq, NULL));
    KEEPS_ERRNO(rp_ctx_create(&ctx, NULL, rp_after(PATIENCE)));
    task.arg = &ran;
    task.cq = cq;
    task.ctx = ctx;
    KEEPS_ERRNO(rp_pool_submit(pool, count_task, (void *)&ran));
    KEEPS_ERRNO(rp_pool_try_submit(pool, count_task, (void *)&ran));
    KEEPS_ERRNO(rp_pool_submit_until(pool, count_task, (void *)&ran, 1));
    KEEPS_ERRNO(rp_pool_submit_task(pool, &task));
    KEEPS_ERRNO(rp_pool_submit_batch(pool, &task, 1));
    KEEPS_ERRNO(rp_cq_fd(cq));
    KEEPS_ERRNO(rp_cq_wait(cq, &completion, 1, 1, rp_after(PATIENCE)));
    KEEPS_ERRNO(rp_pool_tune(pool, 3));
    KEEPS_ERRNO(rp_pool_prewarm(pool, 3));
    KEEPS_ERRNO(rp_pool_snapshot(pool, &snapshot));
    KEEPS_ERRNO(rp_pool_workers(pool, &worker, 1));
    KEEPS_ERRNO(rp_pool_submit_future(pool, returns, pool, &future));
    KEEPS_ERRNO(rp_future_then(future, NULL, goes_on, NULL, &next));
    KEEPS_ERRNO(rp_future_get(next, &value));
    KEEPS_ERRNO(rp_future_get_timeout(next, &value, 1));
    KEEPS_ERRNO(rp_future_wait_any(&next, 1, 1));
    KEEPS_ERRNO(rp_future_destroy(next));
    KEEPS_ERRNO(rp_future_destroy(future));
    KEEPS_ERRNO(rp_group_create(&group, pool, NULL));
    KEEPS_ERRNO(rp_group_submit(group, member, NULL));
    KEEPS_ERRNO(rp_group_wait(group, 0));
    KEEPS_ERRNO(rp_group_destroy(group));
    KEEPS_ERRNO(rp_timer_create(&timer, fires, (void *)&ran, NULL));
    KEEPS_ERRNO(rp_timer_arm(timer, 1));
    KEEPS_ERRNO(rp_timer_destroy(timer));
    KEEPS_ERRNO(rp_strand_create(&strand, pool, NULL));
    KEEPS_ERRNO(rp_strand_submit(strand, 1, count_task, (void *)&ran));
    KEEPS_ERRNO(rp_strand_destroy(strand));
    KEEPS_ERRNO(rp_multi_create(&multi, 2, 1, RP_LEAST_TASKS, NULL));
    KEEPS_ERRNO(rp_multi_submit(multi, count_task, (void *)&ran));
    KEEPS_ERRNO(rp_multi_destroy(multi));
    KEEPS_ERRNO(rp_pool_release_until(pool, 1, &report));
    KEEPS_ERRNO(rp_pool_submit(pool, count_task, (void *)&ran));
    KEEPS_ERRNO(rp_pool_reboot(pool));
    KEEPS_ERRNO(rp_pool_destroy(pool));
    KEEPS_ERRNO(rp_ctx_cancel(ctx, 0));
    KEEPS_ERRNO(rp_ctx_destroy(ctx));
    KEEPS_ERRNO(rp_cq_destroy(cq));
}

/* --- everything that there is ------------------------------------------------------------------------------------- */

/* One of each object that has threads or descriptors. */
struct all {
    struct rp_pool *pool, *epoll, *own;
    struct rp_multi *multi;
    struct rp_cq *cq;
};

static void all_make(struct all *all)
{
    struct rp_multi_options watched = {.health_ns = 1000 * MS};
    struct rp_pool_options options = {.min_workers = 2};

    all->pool = pool_make(2, &options);
    options.backend = RP_BACKEND_EPOLL;
    all->epoll = pool_make(2, &options);
    options.backend = RP_BACKEND_AUTO;
    options.own_reactor = true;
    all->own = pool_make(2, &options);
    cr_assert_eq(rp_multi_create(&all->multi, 2, 1, RP_ROUND_ROBIN, &watched), 0);
    cr_assert_eq(rp_cq_create(&all->cq, NULL), 0);
    cr_assert_geq(rp_cq_fd(all->cq), 0);
}

static void all_end(struct all *all)
{
    pool_end(all->pool);
    pool_end(all->epoll);
    pool_end(all->own);
    cr_assert_eq(rp_multi_destroy(all->multi), 0);
    cr_assert_eq(rp_cq_destroy(all->cq), 0);
}

static char before[4096]; /* by descriptor: 1: it was open */

static long note_descriptor(const char *name, void *arg)
{
    (void)arg;
    before[atoi(name) % (int)sizeof(before)] = 1;
    return 0;
}

static long survives_exec(const char *name, void *arg)
{
    int fd = atoi(name), flags = fcntl(fd, F_GETFD);

    (void)arg;
    return flags >= 0 && !before[fd % (int)sizeof(before)] && !(flags & FD_CLOEXEC);
}

Test(conventions, no_descriptor_survives_an_exec)
{
    struct all all;

    directory_sum("/proc/self/fd", note_descriptor, NULL);
    long many = count_descriptors();
    all_make(&all);
    cr_assert_gt(count_descriptors(), many);
    long surviving = directory_sum("/proc/self/fd", survives_exec, NULL);
    cr_expect_eq(surviving, 0, "%ld of them", surviving);
    all_end(&all);
}

/* Asynchronous ones, of those that a thread can block. */
static unsigned long long asynchronous(void)
{
    static const int raised[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGKILL, SIGSTOP};
    unsigned long long set = 0x7fffffff;

    for (size_t i = 0; i < sizeof(raised) / sizeof(raised[0]); i++)
        set &= ~(1ULL << (raised[i] - 1));
    return set;
}

/* The threads that were there before. */
struct others {
    unsigned n;
    int tid[16];
};

static long note_thread(const char *tid, void *arg)
{
    struct others *others = arg;

    others->tid[others->n++ % 16] = atoi(tid);
    return 1;
}

/* Whether a thread that was not there before lets an asynchronous signal through. */
static long takes_signals(const char *tid, void *arg)
{
    const struct others *others = arg;
    char status[4096];

    for (unsigned i = 0; i < others->n; i++)
        if (others->tid[i] == atoi(tid))
            return 0;
    thread_file(tid, "status", status, sizeof(status));
    const char *mask = strstr(status, "\nSigBlk:");
    if (!mask)
        return 0; /* it has ended */
    bool takes = asynchronous() & ~strtoull(mask + strlen("\nSigBlk:"), NULL, 16);
    if (takes)
        cr_log_warn("%.40s takes signals", status);
    return takes;
}

Test(conventions, no_thread_of_ours_takes_asynchronous_signals)
{
    struct all all;
    struct others others = {0};

    if (UNDER_TSAN || UNDER_ASAN)
        cr_skip_test("the sanitizer may start threads of its own");
    long many = directory_sum("/proc/self/task", note_thread, &others);
    cr_assert_leq(others.n, 16);
    all_make(&all);
    cr_assert_geq(count_threads(), many + 3 * 2 + 1 + 1); /* workers, reactors, and the health check */
    cr_expect_eq(directory_sum("/proc/self/task", takes_signals, &others), 0);
    all_end(&all);
}
