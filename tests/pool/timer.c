/*
 * The public timers, on the reactor and in a pool, each on both backends.
 */
#include <ringpool/timer.h>

#include "life.h"

#include "ring/reactor.h"

#define HOUR (3600 * 1000 * MS)

/* The claim as four tests: on the reactor or in a pool, by backend. */
#define EVERYWHERE(claim)                                                                                              \
    static void claim(int backend, struct rp_pool *pool);                                                              \
    static void claim##_by(int backend, bool pooled)                                                                   \
    {                                                                                                                  \
        struct rp_pool_options options = {.queue_depth = 16};                                                          \
        struct rp_pool *pool = pooled ? pool_make(2, &options) : NULL;                                                 \
        if (!backend_is_granted(backend))                                                                              \
            cr_skip_test("no io_uring here");                                                                          \
        claim(backend, pool);                                                                                          \
        if (pool)                                                                                                      \
            pool_end(pool);                                                                                            \
    }                                                                                                                  \
    Test(timer, claim##_on_io_uring)                                                                                   \
    {                                                                                                                  \
        claim##_by(RP_BACKEND_IO_URING, false);                                                                        \
    }                                                                                                                  \
    Test(timer, claim##_on_epoll)                                                                                      \
    {                                                                                                                  \
        claim##_by(RP_BACKEND_EPOLL, false);                                                                           \
    }                                                                                                                  \
    Test(timer, claim##_in_a_pool)                                                                                     \
    {                                                                                                                  \
        claim##_by(RP_BACKEND_AUTO, true);                                                                             \
    }                                                                                                                  \
    static void claim(int backend, struct rp_pool *pool)

static bool backend_is_granted(int backend)
{
    struct reactor *reactor;

    if (reactor_get(&reactor, backend, false))
        return false;
    reactor_put(reactor);
    return true;
}

struct alarm {
    struct rp_timer *timer;
    int64_t due, interval;
    struct gate gate; /* passed by each run, if `held` */
    bool held;
    _Atomic uint32_t ran, early, dropped, reason;
    _Atomic int fate; /* what a call inside the run has given */
};

static void alarm_run(struct rp_timer *timer, void *arg)
{
    struct alarm *alarm = arg;

    (void)timer;
    if (rp_now() < alarm->due)
        add_seq(&alarm->early, 1);
    if (alarm->held)
        gate_pass(&alarm->gate);
    add_seq(&alarm->ran, 1);
}

static void alarm_drop(struct rp_timer *timer, void *arg, int reason)
{
    struct alarm *alarm = arg;

    (void)timer;
    store_seq(&alarm->reason, (uint32_t)-reason);
    add_seq(&alarm->dropped, 1);
}

static void alarm_make(struct alarm *alarm, int backend, struct rp_pool *pool, void (*fn)(struct rp_timer *, void *))
{
    struct rp_timer_options options = {
        .pool = pool, .backend = backend, .dropped = pool ? alarm_drop : NULL, .label = pool ? "alarm" : NULL};
    int rc = rp_timer_create(&alarm->timer, fn, alarm, &options);

    cr_assert_eq(rc, 0, "create: %s", rp_strerror(rc));
}

Test(timer, wrong_arguments_are_refused)
{
    struct rp_timer *timer = (struct rp_timer *)1;
    struct rp_timer_options wrong[] = {
        {.backend = 9}, {.priority = 1}, {.label = "x"}, {.dropped = alarm_drop}, {.reserved = {1}}};

    cr_assert_eq(rp_timer_create(NULL, alarm_run, NULL, NULL), -EINVAL);
    cr_assert_eq(rp_timer_create(&timer, NULL, NULL, NULL), -EINVAL);
    cr_assert_null(timer);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_assert_eq(rp_timer_create(&timer, alarm_run, NULL, &wrong[i]), -EINVAL, "number %zu", i);
    cr_assert_eq(rp_timer_create(&timer, alarm_run, NULL, NULL), 0);
    cr_assert_eq(rp_timer_arm(timer, 0), -EINVAL);
    cr_assert_eq(rp_timer_arm(timer, -1), -EINVAL);
    cr_assert_eq(rp_timer_arm_periodic(timer, 0, 1), -EINVAL);
    cr_assert_eq(rp_timer_arm_periodic(timer, 1, 0), -EINVAL);
    cr_assert_eq(rp_timer_arm(NULL, 1), -EINVAL);
    cr_assert_eq(rp_timer_cancel(NULL), -EINVAL);
    cr_assert_eq(rp_timer_cancel_wait(NULL), -EINVAL);
    cr_assert_eq(rp_timer_overruns(NULL), 0);
    cr_assert_eq(rp_timer_destroy(NULL), -EINVAL);
    cr_assert_eq(rp_timer_destroy(timer), 0);
}

EVERYWHERE(a_timer_runs_once_and_never_early)
{
    struct alarm alarm = {0};

    alarm_make(&alarm, backend, pool, alarm_run);
    for (uint32_t i = 1; i <= 50; i++) {
        alarm.due = rp_after(i % 3 ? (int64_t)i * 20000 : 0);
        cr_assert_eq(rp_timer_arm(alarm.timer, alarm.due), 0);
        AWAIT(load_seq(&alarm.ran) == i);
    }
    cr_assert_eq(rp_timer_cancel_wait(alarm.timer) == RP_TIMER_CANCELED, false);
    cr_assert_eq(load_seq(&alarm.ran), 50);
    cr_assert_eq(load_seq(&alarm.early), 0);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

EVERYWHERE(a_cancel_says_what_it_met)
{
    struct alarm alarm = {.held = true};

    alarm_make(&alarm, backend, pool, alarm_run);
    cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_IDLE);
    cr_assert_eq(rp_timer_arm(alarm.timer, rp_after(HOUR)), 0);
    cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_CANCELED);
    cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_IDLE);
    cr_assert_eq(rp_timer_arm(alarm.timer, 1), 0);
    AWAIT(load_seq(&alarm.gate.inside) == 1);
    cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_RUNS);
    cr_assert_eq(rp_timer_arm(alarm.timer, rp_after(HOUR)), 0);
    cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_RUNS, "armed again, and still running");
    gate_open(&alarm.gate);
    AWAIT(rp_timer_cancel(alarm.timer) == RP_TIMER_IDLE);
    cr_assert_eq(load_seq(&alarm.ran), 1);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

struct canceller {
    struct alarm *alarm;
    _Atomic uint32_t returned, tid;
    int fate;
    pthread_t thread;
};

static void *canceller_main(void *arg)
{
    struct canceller *me = arg;

    store_seq(&me->tid, (uint32_t)gettid());
    me->fate = rp_timer_cancel_wait(me->alarm->timer);
    store_seq(&me->returned, 1);
    return NULL;
}

static bool sleeps(uint32_t thread)
{
    char tid[16], text[512];

    snprintf(tid, sizeof(tid), "%u", thread);
    thread_file(tid, "stat", text, sizeof(text));
    const char *state = strrchr(text, ')');
    return state && state[1] && state[2] == 'S';
}

/* Adversary: a periodic timer, due again while its run is held. Holds: after the waiting cancel nothing runs. */
EVERYWHERE(a_waiting_cancel_returns_after_the_run)
{
    struct alarm alarm = {.held = true};
    struct canceller canceller = {.alarm = &alarm};

    alarm_make(&alarm, backend, pool, alarm_run);
    cr_assert_eq(rp_timer_arm_periodic(alarm.timer, 1, MS), 0);
    AWAIT(load_seq(&alarm.gate.inside) == 1);
    cr_assert_eq(pthread_create(&canceller.thread, NULL, canceller_main, &canceller), 0);
    AWAIT(load_seq(&canceller.tid) && sleeps(load_seq(&canceller.tid)));
    cr_assert_eq(load_seq(&canceller.returned), 0);
    gate_open(&alarm.gate);
    AWAIT(load_seq(&canceller.returned));
    uint32_t ran = load_seq(&alarm.ran);
    cr_assert_eq(pthread_join(canceller.thread, NULL), 0);
    cr_assert_eq(canceller.fate, RP_TIMER_RUNS);
    nap(5 * MS);
    cr_assert_eq(load_seq(&alarm.ran), ran);
    cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_IDLE);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

/* --- periodic --------------------------------------------------------------------------------------------------- */

static void count_period(struct rp_timer *timer, void *arg)
{
    struct alarm *alarm = arg;
    uint32_t k = load_seq(&alarm->ran);

    /* The k-th run, with the overruns before it, is not before start + k * interval. */
    if (rp_now() < alarm->due + (int64_t)k * alarm->interval)
        add_seq(&alarm->early, 1);
    (void)timer;
    add_seq(&alarm->ran, 1);
}

/* Holds: runs and overruns together are as many as intervals have passed: nothing drifts, nothing is queued up. */
EVERYWHERE(a_periodic_timer_does_not_drift)
{
    struct alarm alarm = {.interval = MS};

    alarm_make(&alarm, backend, pool, count_period);
    alarm.due = rp_after(MS);
    cr_assert_eq(rp_timer_arm_periodic(alarm.timer, alarm.due, alarm.interval), 0);
    AWAIT(load_seq(&alarm.ran) >= 50);
    rp_timer_cancel_wait(alarm.timer);
    int64_t after = (rp_now() - alarm.due) / alarm.interval;
    int64_t counted = load_seq(&alarm.ran) + (int64_t)rp_timer_overruns(alarm.timer);
    cr_assert_leq(counted, after + 1, "%lld counted in %lld intervals", (long long)counted, (long long)after + 1);
    cr_assert_geq(counted, 50);
    cr_assert_eq(load_seq(&alarm.early), 0);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

EVERYWHERE(a_run_that_takes_longer_than_the_interval_costs_overruns)
{
    struct alarm alarm = {.held = true};

    alarm_make(&alarm, backend, pool, alarm_run);
    int64_t start = rp_now();
    cr_assert_eq(rp_timer_arm_periodic(alarm.timer, start, MS), 0);
    AWAIT(load_seq(&alarm.gate.inside) == 1);
    while (rp_now() < start + 10 * MS)
        nap(MS);
    cr_assert_eq(load_seq(&alarm.gate.inside), 1, "never two at once");
    gate_open(&alarm.gate);
    AWAIT(load_seq(&alarm.ran) >= 3);
    cr_assert_geq(rp_timer_overruns(alarm.timer), 8);
    rp_timer_cancel_wait(alarm.timer);
    cr_assert_leq((int64_t)load_seq(&alarm.ran) + (int64_t)rp_timer_overruns(alarm.timer), (rp_now() - start) / MS + 1);
    cr_assert_eq(rp_timer_arm(alarm.timer, rp_after(HOUR)), 0);
    cr_assert_eq(rp_timer_overruns(alarm.timer), 0, "counted anew");
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

/* --- inside the run --------------------------------------------------------------------------------------------- */

static void rearm_inside(struct rp_timer *timer, void *arg)
{
    struct alarm *alarm = arg;

    if (add_seq(&alarm->ran, 1) + 1 < 100)
        rp_timer_arm(timer, rp_after(1000));
}

EVERYWHERE(a_timer_may_be_armed_inside_its_run)
{
    struct alarm alarm = {0};

    alarm_make(&alarm, backend, pool, rearm_inside);
    cr_assert_eq(rp_timer_arm(alarm.timer, 1), 0);
    AWAIT(load_seq(&alarm.ran) == 100);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

static void cancel_inside(struct rp_timer *timer, void *arg)
{
    struct alarm *alarm = arg;

    alarm->fate = rp_timer_cancel_wait(timer);
    add_seq(&alarm->ran, 1);
}

EVERYWHERE(a_periodic_timer_may_be_cancelled_inside_its_run)
{
    struct alarm alarm = {0};

    alarm_make(&alarm, backend, pool, cancel_inside);
    cr_assert_eq(rp_timer_arm_periodic(alarm.timer, 1, 1000), 0);
    AWAIT(load_seq(&alarm.ran) == 1);
    AWAIT(rp_timer_cancel(alarm.timer) == RP_TIMER_IDLE);
    cr_assert_eq(alarm.fate, RP_TIMER_RUNS);
    cr_assert_eq(load_seq(&alarm.ran), 1);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

static void destroy_inside(struct rp_timer *timer, void *arg)
{
    struct alarm *alarm = arg;

    alarm->fate = rp_timer_destroy(timer);
    add_seq(&alarm->ran, 1);
}

EVERYWHERE(a_timer_may_be_destroyed_inside_its_run)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_timer_options options = {.pool = pool, .backend = backend, .allocator = &allocator};

    for (uint32_t i = 1; i <= 50; i++) {
        struct alarm alarm = {.fate = 1};
        cr_assert_eq(rp_timer_create(&alarm.timer, destroy_inside, &alarm, &options), 0);
        cr_assert_eq(rp_timer_arm_periodic(alarm.timer, 1, i % 2 ? 1000 : HOUR), 0);
        AWAIT(load_seq(&alarm.ran) == 1 && load_seq(&bank.live) == 0);
        cr_assert_eq(alarm.fate, 0);
    }
}

/* Adversary: destroy, at any point of the life of a timer that fires all the time. */
EVERYWHERE(destroy_is_right_in_any_state)
{
    struct bank bank = {0};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_timer_options options = {.pool = pool, .backend = backend, .allocator = &allocator};

    for (uint32_t i = 0; i < 400; i++) {
        struct alarm alarm = {0};
        cr_assert_eq(rp_timer_create(&alarm.timer, i % 5 ? alarm_run : rearm_inside, &alarm, &options), 0);
        if (i % 3 == 1)
            cr_assert_eq(rp_timer_arm(alarm.timer, rp_after((int64_t)i * 200)), 0);
        else if (i % 3 == 2)
            cr_assert_eq(rp_timer_arm_periodic(alarm.timer, 1, 500 + i), 0);
        int64_t until = rp_now() + i % 7 * 20000; /* not by yields: beside busy neighbours each may take milliseconds */
        while (rp_now() < until)
            cpu_relax();
        cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
        cr_assert_eq(load_seq(&bank.live), 0);
    }
}

/* --- in a pool -------------------------------------------------------------------------------------------------- */

static void panic_in_run(struct rp_timer *timer, void *arg)
{
    (void)timer;
    if (add_seq(&((struct alarm *)arg)->ran, 1) % 2)
        rp_panic("on purpose");
    else
        pthread_exit(NULL);
}

Test(timer, a_run_that_panics_or_ends_its_thread_is_over)
{
    struct rp_pool_options options = {.log_level = RP_LOG_NONE};
    struct rp_pool *pool = pool_make(2, &options);
    struct alarm alarm = {0};

    alarm_make(&alarm, RP_BACKEND_AUTO, pool, panic_in_run);
    for (uint32_t i = 1; i <= 10; i++) {
        cr_assert_eq(rp_timer_arm(alarm.timer, 1), 0);
        AWAIT(load_seq(&alarm.ran) == i);
        rp_timer_cancel_wait(alarm.timer);
        cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_IDLE);
    }
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
    pool_end(pool);
}

Test(timer, a_full_pool_delays_the_run_and_can_be_cancelled)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};
    struct alarm alarm = {0};

    alarm_make(&alarm, RP_BACKEND_AUTO, pool, alarm_run);
    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    cr_assert_eq(rp_timer_arm(alarm.timer, 1), 0);
    AWAIT(pool_look(pool).rejected >= 3); /* it tries again and again */
    cr_assert_eq(rp_timer_cancel_wait(alarm.timer) == RP_TIMER_IDLE, false);
    cr_assert_eq(rp_timer_cancel(alarm.timer), RP_TIMER_IDLE);
    cr_assert_eq(rp_timer_arm(alarm.timer, 1), 0);
    AWAIT(pool_look(pool).rejected >= 6);
    cr_assert_eq(load_seq(&alarm.ran), 0);
    gate_open(&gate);
    AWAIT(load_seq(&alarm.ran) == 1);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
    pool_end(pool);
}

Test(timer, destroy_does_not_wait_for_room_in_a_full_pool)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct gate gate = {0};

    cr_assert_eq(rp_pool_submit(pool, gate_pass, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 1);
    for (uint64_t i = 0; i < 30; i++) {
        struct alarm alarm = {0};
        alarm_make(&alarm, RP_BACKEND_AUTO, pool, alarm_run);
        uint64_t rejected = pool_look(pool).rejected;
        cr_assert_eq(rp_timer_arm_periodic(alarm.timer, 1, 100000), 0);
        AWAIT(pool_look(pool).rejected > rejected + i % 4);
        cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
        cr_assert_eq(load_seq(&alarm.ran), 0);
    }
    gate_open(&gate);
    pool_end(pool);
}

Test(timer, a_released_pool_drops_the_run)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct alarm alarm = {0};

    alarm_make(&alarm, RP_BACKEND_AUTO, pool, alarm_run);
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    cr_assert_eq(rp_timer_arm(alarm.timer, 1), 0);
    AWAIT(load_seq(&alarm.dropped) == 1);
    cr_assert_eq(load_seq(&alarm.reason), ESHUTDOWN);
    rp_timer_cancel_wait(alarm.timer);
    cr_assert_eq(rp_pool_reboot(pool), 0);
    cr_assert_eq(rp_timer_arm(alarm.timer, 1), 0);
    AWAIT(load_seq(&alarm.ran) == 1);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
    pool_end(pool);
}

struct inside_task {
    struct alarm *alarm;
    _Atomic int rc;
};

static void cancel_in_task(void *arg)
{
    struct inside_task *me = arg;

    cr_assert_eq(rp_timer_arm(me->alarm->timer, 1), 0);
    while (rp_timer_cancel(me->alarm->timer) == RP_TIMER_CANCELED)
        rp_timer_arm(me->alarm->timer, 1);
    rp_timer_cancel_wait(me->alarm->timer);
    me->rc = 1;
}

/* Adversary: the only worker waits for a run that is queued behind it. */
Test(timer, a_waiting_cancel_inside_a_task_lets_the_run_end)
{
    struct rp_pool_options options = {.queue_depth = 4};
    struct rp_pool *pool = pool_make(1, &options);
    struct alarm alarm = {0};
    struct inside_task task = {.alarm = &alarm};

    alarm_make(&alarm, RP_BACKEND_AUTO, pool, alarm_run);
    cr_assert_eq(rp_pool_submit(pool, cancel_in_task, &task), 0);
    AWAIT(task.rc == 1);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
    pool_end(pool);
}

/* --- many ------------------------------------------------------------------------------------------------------- */

static void count_run(struct rp_timer *timer, void *arg)
{
    (void)timer;
    add_seq((_Atomic uint32_t *)arg, 1);
}

Test(timer, a_million_may_be_outstanding)
{
    enum { N = 1000000 };
    struct rp_timer **timers = calloc(N, sizeof(struct rp_timer *));
    _Atomic uint32_t ran = 0;
    uint32_t due = 0;

    cr_assert_not_null(timers);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(rp_timer_create(&timers[i], count_run, &ran, NULL), 0);
        bool soon = i % 1000 == 0;
        due += soon;
        cr_assert_eq(rp_timer_arm(timers[i], rp_after(soon ? 50 * MS : HOUR + i * INT64_C(1000))), 0);
    }
    AWAIT(load_seq(&ran) == due);
    uint32_t canceled = 0;
    for (uint32_t i = 0; i < N; i++)
        canceled += rp_timer_cancel(timers[i]) == RP_TIMER_CANCELED;
    cr_assert_eq(canceled, N - due);
    for (uint32_t i = 0; i < N; i++)
        cr_assert_eq(rp_timer_destroy(timers[i]), 0);
    free(timers);
}

/* --- fork, memory ----------------------------------------------------------------------------------------------- */

static int child_of_timer(void *arg)
{
    struct alarm *alarm = arg, own = {0};

    CHECK(rp_timer_arm(alarm->timer, 1) == -ECHILD);
    CHECK(rp_timer_arm_periodic(alarm->timer, 1, 1) == -ECHILD);
    CHECK(rp_timer_cancel(alarm->timer) == -ECHILD);
    CHECK(rp_timer_cancel_wait(alarm->timer) == -ECHILD);
    CHECK(rp_timer_overruns(alarm->timer) == 0);
    CHECK(rp_timer_destroy(alarm->timer) == 0);
    CHECK(UNDER_TSAN || rp_timer_create(&own.timer, alarm_run, &own, NULL) == 0);
    if (!UNDER_TSAN) {
        CHECK(rp_timer_arm(own.timer, 1) == 0);
        CHECK(COMES_TRUE(load_seq(&own.ran) == 1));
        CHECK(rp_timer_destroy(own.timer) == 0);
    }
    return 0;
}

Test(timer, a_forked_child_is_refused_and_leaves_the_parent_alone)
{
    struct alarm alarm = {0};

    alarm_make(&alarm, RP_BACKEND_AUTO, NULL, alarm_run);
    cr_assert_eq(rp_timer_arm(alarm.timer, rp_after(50 * MS)), 0);
    cr_assert_eq(in_child(child_of_timer, &alarm), 0);
    AWAIT(load_seq(&alarm.ran) == 1);
    cr_assert_eq(rp_timer_destroy(alarm.timer), 0);
}

Test(timer, a_failure_of_memory_is_told_and_leaks_nothing)
{
    struct holdings before = holdings_now();
    struct bank bank = {.fail_at = 1};
    struct rp_allocator allocator = bank_allocator(&bank);
    struct rp_timer *timer;

    cr_assert_eq(rp_timer_create(&timer, alarm_run, NULL, &(struct rp_timer_options){.allocator = &allocator}),
                 -ENOMEM);
    cr_assert_null(timer);
    ASSERT_NOTHING_LEFT(before);
}
