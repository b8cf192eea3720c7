/*
 * Tasks that do not return: the worker lives or is replaced, the handler is told, the counters stay right.
 */
#include "life.h"

#include <stdarg.h>

/* What the handler and the log heard, the last of each. */
struct witness {
    struct rp_pool *pool;
    _Atomic uint32_t panics, lines, resubmitted;
    pthread_mutex_t lock;
    char reason[512], label[64], line[2048];
    int signal, nframes, level;
    void *innermost;
};

#define WITNESS                                                                                                        \
    {                                                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER                                                                              \
    }

static void witness_panic(void *user, const struct rp_panic_info *info)
{
    struct witness *w = user;

    pthread_mutex_lock(&w->lock);
    snprintf(w->reason, sizeof(w->reason), "%s", info->reason);
    snprintf(w->label, sizeof(w->label), "%s", info->label ? info->label : "(none)");
    w->signal = info->signal;
    w->nframes = info->nframes;
    w->innermost = info->nframes ? info->frames[0] : NULL;
    pthread_mutex_unlock(&w->lock);
    add_seq(&w->panics, 1);
}

static void witness_log(void *user, int level, const char *message)
{
    struct witness *w = user;

    pthread_mutex_lock(&w->lock);
    w->level = level;
    snprintf(w->line, sizeof(w->line), "%s", message);
    pthread_mutex_unlock(&w->lock);
    add_seq(&w->lines, 1);
}

static void panic_task(void *arg)
{
    rp_panic("number %d of %s", 42, (const char *)arg);
}

/* --- rp_panic --------------------------------------------------------------------------------------------------- */

Test(pool_panic, the_handler_gets_reason_label_and_frames)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {
        .on_panic = witness_panic, .panic_user = &w, .log = witness_log, .log_user = &w, .no_purge = true};
    struct rp_pool *pool = pool_make(1, &options);
    struct rp_task task = {.fn = panic_task, .arg = (void *)(uintptr_t) "those", .label = "culprit"};
    _Atomic uint32_t ran = 0;

    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(load_seq(&w.panics) == 1);
    cr_assert_str_eq(w.reason, "number 42 of those");
    cr_assert_str_eq(w.label, "culprit");
    cr_assert_eq(w.signal, 0);
    cr_assert_gt(w.nframes, 0);
    cr_assert_not_null(w.innermost);
    cr_assert_eq(load_seq(&w.lines), 0, "with a handler the log is silent");

    task.label = NULL;
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    AWAIT(load_seq(&w.panics) == 2);
    cr_assert_str_eq(w.label, "(none)");

    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 1);
    cr_assert_eq(rp_pool_release_until(pool, 0, NULL), 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.panicked, 2);
    cr_assert_eq(seen.completed, 1);
    cr_assert_eq(seen.submitted, 3);
    cr_assert_eq(seen.spawned, 1, "the worker survived");
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

Test(pool_panic, without_a_handler_one_line_goes_to_the_log)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.log = witness_log, .log_user = &w, .name = "named"};
    struct rp_pool *pool = pool_make(1, &options);
    struct rp_task task = {.fn = panic_task, .arg = (void *)(uintptr_t) "many", .label = "culprit"};

    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    pool_end(pool);
    cr_assert_eq(load_seq(&w.lines), 1);
    cr_assert_eq(w.level, RP_LOG_ERROR);
    cr_assert_not_null(strstr(w.line, "number 42 of many"), "%s", w.line);
    cr_assert_not_null(strstr(w.line, "culprit"), "%s", w.line);
    cr_assert_not_null(strstr(w.line, "0x"), "no backtrace in: %s", w.line);
    cr_assert_null(strchr(w.line, '\n'));
}

static void panic_at_length(void *arg)
{
    rp_panic("%s", (const char *)arg);
}

Test(pool_panic, a_long_reason_is_cut)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w};
    struct rp_pool *pool = pool_make(1, &options);
    char text[1000];

    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    cr_assert_eq(rp_pool_submit(pool, panic_at_length, text), 0);
    pool_end(pool);
    cr_assert_eq(load_seq(&w.panics), 1);
    cr_assert_eq(strlen(w.reason), 255);
}

static void resubmit_on_panic(void *user, const struct rp_panic_info *info)
{
    struct witness *w = user;

    (void)info;
    if (add_seq(&w->panics, 1) < 5)
        rp_pool_submit(w->pool, panic_task, (void *)(uintptr_t) "again");
    else
        rp_pool_submit(w->pool, count_task, &w->resubmitted);
}

Test(pool_panic, the_handler_may_submit)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = resubmit_on_panic, .panic_user = &w, .queue_depth = 2};

    w.pool = pool_make(1, &options);
    cr_assert_eq(rp_pool_submit(w.pool, panic_task, (void *)(uintptr_t) "first"), 0);
    AWAIT(load_seq(&w.resubmitted) == 1);
    cr_assert_eq(load_seq(&w.panics), 6);
    pool_end(w.pool);
}

static void note_cleanup(void *arg)
{
    add_seq((_Atomic uint32_t *)arg, 1);
}

static void panic_with_cleanup(void *arg)
{
    pthread_cleanup_push(note_cleanup, arg);
    rp_panic("with something to clean up");
    pthread_cleanup_pop(0);
}

static void exit_thread(void *arg)
{
    (void)arg;
    pthread_exit(NULL);
}

/* A panic is a jump; what pthread_cleanup_push registered is neither run nor remembered. */
Test(pool_panic, cleanup_handlers_of_the_task_do_not_run)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w};
    struct rp_pool *pool = pool_make(1, &options);
    _Atomic uint32_t cleaned = 0;

    cr_assert_eq(rp_pool_submit(pool, panic_with_cleanup, &cleaned), 0);
    AWAIT(load_seq(&w.panics) == 1);
    pool_end(pool);
    cr_assert_eq(load_seq(&cleaned), 0);
}

/*
 * A panic jumps out of the block of a cleanup handler. The thread's list of handlers must not go on naming that dead
 * block: a later task of the same worker that ends the thread would run into it.
 */
Test(pool_panic, past_a_cleanup_handler_leaves_no_trace_of_it)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w, .no_purge = true};
    struct rp_pool *pool = pool_make(1, &options);
    _Atomic uint32_t cleaned = 0;

    cr_assert_eq(rp_pool_submit(pool, panic_with_cleanup, &cleaned), 0);
    AWAIT(load_seq(&w.panics) == 1);
    uint32_t seen = load_seq(&cleaned);
    cr_assert_eq(rp_pool_submit(pool, exit_thread, NULL), 0);
    AWAIT(load_seq(&w.panics) == 2);
    pool_end(pool);
    cr_assert_eq(load_seq(&cleaned), seen);
}

/* Standard error as a file that can be read back. */
static int stderr_kept = -1;

static void stderr_capture(FILE **file)
{
    *file = tmpfile();
    cr_assert_not_null(*file);
    fflush(stderr);
    stderr_kept = dup(STDERR_FILENO);
    cr_assert_geq(dup2(fileno(*file), STDERR_FILENO), 0);
}

static void stderr_restore(FILE *file, char *text, size_t size)
{
    cr_assert_geq(dup2(stderr_kept, STDERR_FILENO), 0);
    close(stderr_kept);
    rewind(file);
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
}

Test(pool_panic, outside_of_a_task_it_logs_and_returns)
{
    FILE *file;
    char text[1024];
    bool returned = false;

    stderr_capture(&file);
    rp_panic("nobody runs %s", "this");
    returned = true;
    stderr_restore(file, text, sizeof(text));
    cr_assert(returned);
    cr_assert_not_null(strstr(text, "nobody runs this"), "said: %s", text);
    cr_assert_eq(strchr(text, '\n'), text + strlen(text) - 1, "one line");
}

static int panic_in_hook(void *user, unsigned worker, void **local)
{
    (void)worker;
    (void)local;
    rp_panic("in a hook");
    add_seq((_Atomic uint32_t *)user, 1);
    return 0;
}

Test(pool_panic, in_a_hook_it_logs_to_the_pool_and_returns)
{
    struct witness w = WITNESS;
    _Atomic uint32_t went_on = 0, ran = 0;
    struct rp_pool_options options = {
        .log = witness_log, .log_user = &w, .worker_start = panic_in_hook, .worker_user = (void *)&went_on};
    struct rp_pool *pool = pool_make(1, &options);

    cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    pool_end(pool);
    cr_assert_eq(load_seq(&ran), 1);
    cr_assert_geq(load_seq(&went_on), 1);
    cr_assert_not_null(strstr(w.line, "in a hook"));
}

/* --- many at once ----------------------------------------------------------------------------------------------- */

static void panic_behind_gate(void *arg)
{
    gate_pass(arg);
    rp_panic("all together");
}

/*
 * Adversary: every worker of the pool panics at the same moment while submitters block. A task that lands gives its
 * room back as one that returns does, so that no submitter is left asleep.
 */
Test(pool_panic, fifty_at_once_leave_a_pool_that_works)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w, .no_purge = true};
    struct rp_pool *pool = pool_make(50, &options);
    struct gate gate = {0};
    struct caller callers[20];
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 50; i++)
        cr_assert_eq(rp_pool_submit(pool, panic_behind_gate, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 50);
    for (int i = 0; i < 20; i++)
        caller_start(&callers[i], pool, call_submit_counting, &ran);
    AWAIT(pool_look(pool).blocked == 20);
    gate_open(&gate);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(caller_end(&callers[i]), 0);
    AWAIT(load_seq(&ran) == 20);
    AWAIT(load_seq(&w.panics) == 50);
    for (int i = 0; i < 500; i++)
        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 520);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.panicked, 50);
    cr_assert_eq(seen.completed, 520);
    cr_assert_eq(seen.spawned, 50);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

/* --- nested ----------------------------------------------------------------------------------------------------- */

struct nest {
    struct rp_pool *pool;
    _Atomic uint32_t rc, went_on;
};

Test(pool_panic, in_a_task_that_its_submitter_runs_submit_returns)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w};
    struct rp_pool *pool = pool_make(1, &options);
    struct gate gate = {0};
    struct rp_task task = {
        .fn = panic_task, .arg = (void *)(uintptr_t) "mine", .label = "caller's", .overload = RP_OVERLOAD_CALLER_RUNS};

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
    cr_assert_eq(load_seq(&w.panics), 1);
    cr_assert_str_eq(w.reason, "number 42 of mine");
    cr_assert_str_eq(w.label, "caller's");
    gate_open(&gate);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.panicked, 1);
    cr_assert_eq(seen.completed, 1);
    cr_assert_eq(seen.submitted, 2);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

static void run_one_that_panics(void *arg)
{
    struct nest *nest = arg;
    struct rp_task task = {.fn = panic_task, .arg = (void *)(uintptr_t) "inner", .overload = RP_OVERLOAD_CALLER_RUNS};

    store_seq(&nest->rc, (uint32_t)-rp_pool_submit_task(nest->pool, &task));
    add_seq(&nest->went_on, 1);
}

Test(pool_panic, an_inner_panic_leaves_the_outer_task_alone)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w};
    struct nest nest = {.pool = pool_make(1, &options)};

    cr_assert_eq(rp_pool_submit(nest.pool, run_one_that_panics, &nest), 0);
    AWAIT(load_seq(&nest.went_on) == 1);
    cr_assert_eq(load_seq(&nest.rc), 0);
    cr_assert_eq(load_seq(&w.panics), 1);
    cr_assert_eq(rp_pool_release_until(nest.pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(pool_look(nest.pool).completed, 1);
    cr_assert_eq(pool_look(nest.pool).panicked, 1);
    cr_assert_eq(rp_pool_destroy(nest.pool), 0);
}

static void help_some_that_panic(void *arg)
{
    struct nest *nest = arg;

    for (int i = 0; i < 3; i++)
        rp_pool_try_submit(nest->pool, panic_task, (void *)(uintptr_t) "helped");
    store_seq(&nest->rc, (uint32_t)-rp_pool_release_until(nest->pool, 0, NULL));
    add_seq(&nest->went_on, 1);
}

Test(pool_panic, a_task_that_helps_survives_what_it_runs)
{
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w, .queue_depth = 8};
    struct nest nest = {.pool = pool_make(1, &options)};

    cr_assert_eq(rp_pool_submit(nest.pool, help_some_that_panic, &nest), 0);
    AWAIT(load_seq(&nest.went_on) == 1);
    cr_assert_eq(load_seq(&nest.rc), 0);
    cr_assert_eq(load_seq(&w.panics), 3);
    cr_assert_eq(rp_pool_release_until(nest.pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(pool_look(nest.pool).panicked, 3);
    cr_assert_eq(pool_look(nest.pool).completed, 1);
    cr_assert_eq(rp_pool_destroy(nest.pool), 0);
}

/* --- threads that end ------------------------------------------------------------------------------------------- */

struct cancelled {
    pthread_t thread;
    _Atomic uint32_t ready;
};

static void wait_for_cancellation(void *arg)
{
    struct cancelled *me = arg;

    me->thread = pthread_self();
    store_seq(&me->ready, 1);
    for (;;)
        pause();
}

static int stops_counted(void *user, unsigned worker, void **local)
{
    (void)worker;
    *local = user;
    return 0;
}

static void count_stop(void *user, unsigned worker, void *local)
{
    (void)worker;
    if (user == local)
        add_seq((_Atomic uint32_t *)user, 1);
}

Test(pool_panic, a_task_that_ends_its_thread_has_its_worker_replaced)
{
    struct holdings before = holdings_now();
    struct witness w = WITNESS;
    _Atomic uint32_t stops = 0, ran = 0;
    struct rp_pool_options options = {.on_panic = witness_panic,
                                      .panic_user = &w,
                                      .min_workers = 2,
                                      .no_purge = true,
                                      .worker_start = stops_counted,
                                      .worker_stop = count_stop,
                                      .worker_user = (void *)&stops};
    struct rp_pool *pool = pool_make(2, &options);

    for (uint32_t round = 1; round <= 10; round++) {
        cr_assert_eq(rp_pool_submit(pool, exit_thread, NULL), 0);
        AWAIT(load_seq(&w.panics) == round);
        AWAIT(rp_pool_running(pool) == 2);
        AWAIT(load_seq(&stops) == round);
    }
    cr_assert_not_null(strstr(w.reason, "pthread_exit"), "%s", w.reason);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 50);
    AWAIT(rp_pool_busy(pool) == 0);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.panicked, 10);
    cr_assert_eq(seen.completed, 50);
    cr_assert_eq(seen.spawned, 12);
    cr_assert_eq(load_seq(&stops), 12, "once per start");
    cr_assert_eq(rp_pool_destroy(pool), 0);
    ASSERT_NOTHING_LEFT(before);
}

/*
 * Under ThreadSanitizer a thread that is cancelled inside of a call that it intercepts goes on without being seen: what
 * the thread does afterwards is reported as races with everybody.
 */
#define NOT_IF_CANCELLING_BLINDS                                                                                       \
    do {                                                                                                               \
        if (UNDER_TSAN)                                                                                                \
            cr_skip_test("ThreadSanitizer loses sight of a cancelled thread");                                         \
    } while (0)

Test(pool_panic, a_cancelled_task_has_its_worker_replaced)
{
    NOT_IF_CANCELLING_BLINDS;
    struct holdings before = holdings_now();
    struct witness w = WITNESS;
    struct rp_pool_options options = {.on_panic = witness_panic, .panic_user = &w};
    struct rp_pool *pool = pool_make(1, &options);
    struct caller caller;
    _Atomic uint32_t ran = 0;

    for (uint32_t round = 1; round <= 5; round++) {
        struct cancelled me = {0};
        struct rp_task task = {.fn = wait_for_cancellation, .arg = &me, .label = "sleeper"};
        cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
        AWAIT(load_seq(&me.ready));
        caller_start(&caller, pool, call_submit_counting, &ran);
        cr_assert_eq(pthread_cancel(me.thread), 0);
        cr_assert_eq(caller_end(&caller), 0);
        AWAIT(load_seq(&ran) == round);
        AWAIT(load_seq(&w.panics) == round);
        cr_assert_str_eq(w.label, "sleeper");
    }
    pool_end(pool);
    ASSERT_NOTHING_LEFT(before);
}

Test(pool_panic, release_waits_for_a_task_that_ends_its_thread)
{
    NOT_IF_CANCELLING_BLINDS;
    struct rp_pool_options options = {.queue_depth = 4, .log_level = RP_LOG_NONE};
    struct rp_pool *pool = pool_make(1, &options);
    struct cancelled me = {0};
    struct ledger ledger = {0};

    cr_assert_eq(rp_pool_submit(pool, wait_for_cancellation, &me), 0);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(ledger_submit(&ledger, pool, RP_OVERLOAD_FAIL), 0);
    AWAIT(load_seq(&me.ready));
    cr_assert_eq(rp_pool_release_until(pool, rp_after(MS), NULL), -ETIMEDOUT);
    cr_assert_eq(pthread_cancel(me.thread), 0);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(load_seq(&ledger.ran), 4, "by the one that replaced it");
    cr_assert_eq(rp_pool_destroy(pool), 0);
}
