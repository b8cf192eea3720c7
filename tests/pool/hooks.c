/*
 * What the user says about workers: hooks around their lives, names, signals, CPUs, stacks and scheduling.
 */
#include "life.h"

#include <sched.h>
#include <signal.h>

#define MOST 64

/* What the hooks saw. */
struct book {
    _Atomic uint32_t starts, stops, wrong, asked, lines;
    _Atomic uint32_t living[MOST];       /* by worker number */
    _Atomic uint32_t fail_from, fail_to; /* the starts of these numbers, counted from 1, are refused */
};

static int book_start(void *user, unsigned worker, void **local)
{
    struct book *book = user;
    uint32_t nth = add_seq(&book->asked, 1) + 1;

    if (nth >= load_seq(&book->fail_from) && nth < load_seq(&book->fail_to))
        return -ENODEV;
    if (worker >= MOST || exchange_seq(&book->living[worker], 1))
        add_seq(&book->wrong, 1); /* two living workers of one number */
    *local = (void *)&book->living[worker % MOST];
    add_seq(&book->starts, 1);
    return 0;
}

static void book_stop(void *user, unsigned worker, void *local)
{
    struct book *book = user;

    if (local != (void *)&book->living[worker % MOST] || !exchange_seq(&book->living[worker % MOST], 0))
        add_seq(&book->wrong, 1);
    add_seq(&book->stops, 1);
}

static void book_line(void *user, int level, const char *message)
{
    struct book *book = user;

    (void)message;
    if (level <= RP_LOG_WARNING)
        add_seq(&book->lines, 1);
}

static struct rp_pool_options book_options(struct book *book)
{
    return (struct rp_pool_options){
        .worker_start = book_start, .worker_stop = book_stop, .worker_user = book, .log = book_line, .log_user = book};
}

static void burst(struct rp_pool *pool, unsigned n)
{
    struct gate gate = {0};

    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == n);
    gate_open(&gate);
    AWAIT(load_seq(&gate.passed) == n);
}

/* --- start and stop --------------------------------------------------------------------------------------------- */

Test(pool_hooks, each_start_has_one_stop_and_numbers_are_unique_among_the_living)
{
    struct book book = {0};
    struct rp_pool_options options = book_options(&book);
    options.expiry_ns = 2 * MS;
    struct rp_pool *pool = pool_make(16, &options);

    for (int round = 0; round < 10; round++) {
        burst(pool, 16);
        AWAIT(rp_pool_running(pool) < 8);
    }
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&book.wrong), 0);
    cr_assert_eq(load_seq(&book.starts), load_seq(&book.stops));
    cr_assert_eq(load_seq(&book.starts), pool_look(pool).spawned);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

static void count_stop(void *user, unsigned worker, void *local)
{
    (void)worker;
    if (!local)
        add_seq((_Atomic uint32_t *)user, 1);
}

Test(pool_hooks, stop_is_called_without_a_start_hook_too)
{
    _Atomic uint32_t stops = 0;
    struct rp_pool_options options = {.worker_stop = count_stop, .worker_user = (void *)&stops, .min_workers = 3};
    struct rp_pool *pool = pool_make(3, &options);

    pool_end(pool);
    cr_assert_eq(load_seq(&stops), 3);
}

Test(pool_hooks, a_start_that_fails_at_creation_is_reported)
{
    struct holdings before = holdings_now();
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct book book = {.fail_from = 1, .fail_to = 2};
    struct rp_pool_options options = book_options(&book);
    struct rp_pool *pool = (struct rp_pool *)(uintptr_t)1;

    options.allocator = &allocator;
    cr_assert_eq(rp_pool_create(&pool, 2, &options), -ENODEV, "the first worker shows it");
    cr_assert_null(pool);

    book = (struct book){.fail_from = 2, .fail_to = 100};
    options.min_workers = 3;
    cr_assert_eq(rp_pool_create(&pool, 4, &options), -ENODEV);
    cr_assert_null(pool);
    cr_assert_eq(load_seq(&book.starts), load_seq(&book.stops), "no stop for those that failed");
    cr_assert_eq(load_seq(&bank.live), 0);
    ASSERT_NOTHING_LEFT(before);
}

/*
 * Adversary: the start hook refuses for a while, when no other worker lives. The task was accepted, so it must run
 * once a start succeeds, without another submit to give the push: the retry timer looks after it.
 */
Test(pool_hooks, a_start_that_fails_later_is_tried_again_and_no_task_is_lost)
{
    struct book book = {0};
    struct rp_pool_options options = book_options(&book);
    options.expiry_ns = 5 * MS;
    struct rp_pool *pool = pool_make(1, &options);
    _Atomic uint32_t ran = 0;

    AWAIT(rp_pool_running(pool) == 0);
    uint32_t asked = load_seq(&book.asked);
    store_seq(&book.fail_to, asked + 5);
    store_seq(&book.fail_from, asked + 1);
    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 1);
    cr_assert_geq(load_seq(&book.asked), asked + 5);
    cr_assert_geq(load_seq(&book.lines), 1, "it is logged");
    pool_end(pool);
    cr_assert_eq(load_seq(&book.wrong), 0);
    cr_assert_eq(load_seq(&book.starts), load_seq(&book.stops));
}

/* With another worker alive the tasks go there meanwhile. */
Test(pool_hooks, a_pool_works_on_with_the_workers_that_could_start)
{
    struct book book = {.fail_from = 2, .fail_to = UINT32_MAX};
    struct rp_pool_options options = book_options(&book);
    options.min_workers = 1;
    struct rp_pool *pool = pool_make(8, &options);
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 200; i++)
        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 200);
    cr_assert_eq(load_seq(&book.starts), 1);
    pool_end(pool);
    cr_assert_eq(load_seq(&book.stops), 1);
}

/* Adversary: from some moment on threads can be made but never begin. The task that one was made for is accepted. */
Test(pool_hooks, destroy_drops_the_tasks_that_no_worker_can_begin_for)
{
    struct book book = {0};
    struct rp_pool_options options = book_options(&book);
    options.expiry_ns = 5 * MS;
    struct rp_pool *pool = pool_make(1, &options);
    struct ledger ledger = {0};
    struct rp_task task = {.fn = ledger_run, .dropped = ledger_drop, .arg = &ledger};

    AWAIT(rp_pool_running(pool) == 0);
    store_seq(&book.fail_to, UINT32_MAX);
    store_seq(&book.fail_from, 1);
    uint32_t asked = load_seq(&book.asked);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(load_seq(&book.asked) > asked);
    cr_assert_eq(rp_pool_destroy(pool), 0);
    cr_assert_eq(load_seq(&ledger.ran), 0);
    cr_assert_eq(load_seq(&ledger.dropped), 1);
    cr_assert_eq(load_seq(&book.starts), load_seq(&book.stops));
}

static void witness_nothing(void *user, const struct rp_panic_info *info)
{
    (void)user;
    (void)info;
}

static void end_thread(void *arg)
{
    (void)arg;
    pthread_exit(NULL);
}

/* Adversary: a worker of the minimum ends, and the one that replaces it cannot begin. */
Test(pool_hooks, the_minimum_is_made_good_after_a_start_that_failed)
{
    struct book book = {.fail_from = 3, .fail_to = 5};
    struct rp_pool_options options = book_options(&book);
    options.min_workers = 2;
    options.on_panic = witness_nothing;
    struct rp_pool *pool = pool_make(4, &options);

    cr_assert_eq(rp_pool_submit(pool, end_thread, NULL), 0);
    AWAIT(load_seq(&book.asked) >= 5);
    AWAIT(rp_pool_running(pool) == 2);
    pool_end(pool);
    cr_assert_eq(load_seq(&book.wrong), 0);
}

/* --- the thread ------------------------------------------------------------------------------------------------- */

/* What a task sees of its thread. */
struct view {
    char name[16];
    sigset_t blocked;
    cpu_set_t cpus;
    int policy;
    size_t stack, guard;
    _Atomic uint32_t done;
};

static void look_at_thread(void *arg)
{
    struct view *view = arg;
    pthread_attr_t attr;
    void *base;

    pthread_getname_np(pthread_self(), view->name, sizeof(view->name));
    pthread_sigmask(SIG_BLOCK, NULL, &view->blocked);
    sched_getaffinity(0, sizeof(view->cpus), &view->cpus);
    view->policy = sched_getscheduler(0);
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &base, &view->stack);
        pthread_attr_destroy(&attr);
    }
    store_seq(&view->done, 1);
}

static struct view view_of(const struct rp_pool_options *options)
{
    struct rp_pool *pool = pool_make(1, options);
    struct view view = {0};

    cr_assert_eq(rp_pool_submit(pool, look_at_thread, &view), 0);
    AWAIT(load_seq(&view.done));
    pool_end(pool);
    return view;
}

Test(pool_hooks, threads_are_named_by_prefix_and_number)
{
    struct rp_pool_options options = {.name = "a-very-long-prefix"};
    struct view view = view_of(&options);
    cr_assert_str_eq(view.name, "a-very-lo-0");

    options.name = "short";
    view = view_of(&options);
    cr_assert_str_eq(view.name, "short-0");
    view = view_of(NULL);
    cr_assert_str_eq(view.name, "rp-0");
}

Test(pool_hooks, workers_block_asynchronous_signals)
{
    static const int blocked[] = {SIGUSR1, SIGUSR2, SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGCHLD, SIGPIPE, SIGQUIT};
    static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    sigset_t before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    struct view view = view_of(NULL);
    pthread_sigmask(SIG_BLOCK, NULL, &after);

    for (size_t i = 0; i < sizeof(blocked) / sizeof(blocked[0]); i++)
        cr_assert_eq(sigismember(&view.blocked, blocked[i]), 1, "signal %d", blocked[i]);
    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
        cr_assert_eq(sigismember(&view.blocked, open[i]), 0, "signal %d", open[i]);
    for (int signal = 1; signal < 32; signal++)
        cr_assert_eq(sigismember(&before, signal), sigismember(&after, signal), "the maker's own mask is as it was");
}

Test(pool_hooks, workers_run_where_they_are_told)
{
    cpu_set_t allowed;
    cr_assert_eq(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        struct rp_pool_options options = {.cpus = &one, .cpus_size = sizeof(one)};
        struct view view = view_of(&options);
        cr_assert(CPU_EQUAL(&view.cpus, &one), "cpu %d", cpu);
    }
}

Test(pool_hooks, stacks_are_as_large_as_asked_for)
{
    struct rp_pool_options options = {.stack_size = (1 << 20) + 1};
    struct view view = view_of(&options);
    cr_assert_geq(view.stack, (1 << 20) + 1);
    view = view_of(NULL);
    cr_assert_geq(view.stack, 256 << 10);
}

static void use_stack(void *arg)
{
    volatile char room[900 << 10];

    for (size_t i = 0; i < sizeof(room); i += 4096)
        room[i] = (char)i;
    store_seq((_Atomic uint32_t *)arg, 1U + (unsigned)(room[0] != 0));
}

Test(pool_hooks, a_task_may_use_the_stack)
{
    struct rp_pool_options options = {.stack_size = 1 << 20};
    struct rp_pool *pool = pool_make(1, &options);
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit(pool, use_stack, &ran), 0);
    AWAIT(load_seq(&ran) == 1);
    pool_end(pool);
}

Test(pool_hooks, scheduling_is_applied)
{
    struct rp_pool_options options = {.sched_policy = SCHED_BATCH};
    cr_assert_eq(view_of(&options).policy, SCHED_BATCH);
    options.sched_policy = SCHED_IDLE;
    cr_assert_eq(view_of(&options).policy, SCHED_IDLE);
}

static int ask_for_real_time(void *arg)
{
    struct rp_pool_options options = {.sched_policy = SCHED_FIFO, .sched_priority = 1, .log_level = RP_LOG_NONE};
    struct rp_pool *pool = NULL;
    long descriptors = count_descriptors();

    (void)arg;
    if (geteuid() == 0)
        CHECK(setuid(54321) == 0);
    CHECK(rp_pool_create(&pool, 2, &options) == -EPERM);
    CHECK(pool == NULL);
    CHECK(COMES_TRUE(count_threads() == 1 && count_descriptors() == descriptors));
    return 0;
}

Test(pool_hooks, scheduling_that_is_not_granted_fails_the_creation)
{
    cr_assert_eq(in_child(ask_for_real_time, NULL), 0);
}

Test(pool_hooks, cpus_that_do_not_exist_fail_the_creation)
{
    struct holdings before = holdings_now();
    cpu_set_t far;
    CPU_ZERO(&far);
    CPU_SET(CPU_SETSIZE - 1, &far);
    struct rp_pool_options options = {.cpus = &far, .cpus_size = sizeof(far), .log_level = RP_LOG_NONE};
    struct rp_pool *pool;

    if (sysconf(_SC_NPROCESSORS_CONF) >= CPU_SETSIZE)
        cr_skip_test("this machine has that CPU");
    cr_assert_eq(rp_pool_create(&pool, 1, &options), -EINVAL);
    cr_assert_null(pool);
    ASSERT_NOTHING_LEFT(before);
}
