/*
 * The reactor's promises, each on both backends.
 */
#include "ring/reactor.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpu.h"
#include "support.h"

#define MS INT64_C(1000000)
#define HOUR (3600 * 1000 * MS)

struct alarm {
    struct timer timer;
    int64_t due;
    _Atomic uint32_t early, fired;
};

static struct alarm *alarm_of(struct timer *timer)
{
    return (struct alarm *)((char *)timer - offsetof(struct alarm, timer));
}

static void ring_alarm(struct timer *timer)
{
    struct alarm *alarm = alarm_of(timer);
    if (rp_now() < alarm->due) {
        add_relaxed(&alarm->early, 1);
    }
    announce(&alarm->fired);
}

/* Fires and work that tests hold up: they announce that they began, then wait to be let go. */
struct gate {
    struct work work;
    struct timer timer;
    struct reactor *reactor;
    _Atomic uint32_t began, let_go, ended;
};

static void pass_gate(struct gate *gate)
{
    announce(&gate->began);
    await(&gate->let_go, 1);
    announce(&gate->ended);
}

static void gate_fire(struct timer *timer)
{
    pass_gate((struct gate *)((char *)timer - offsetof(struct gate, timer)));
}

static void gate_run(struct work *work)
{
    pass_gate((struct gate *)((char *)work - offsetof(struct gate, work)));
}

/* Returns when the reactor has run everything posted before. */
struct marker {
    struct work work;
    _Atomic uint32_t ran;
};

static void mark(struct work *work)
{
    announce(&((struct marker *)((char *)work - offsetof(struct marker, work)))->ran);
}

static void settle(struct reactor *reactor)
{
    struct marker marker = {.work = {.run = mark}};
    reactor_post(reactor, &marker.work);
    await(&marker.ran, 1);
}

struct ask {
    struct work work;
    cpu_set_t mask;
    _Atomic uint32_t ran;
};

static void ask_mask(struct work *work)
{
    struct ask *ask = (struct ask *)((char *)work - offsetof(struct ask, work));
    cr_expect_eq(sched_getaffinity(0, sizeof ask->mask, &ask->mask), 0);
    announce(&ask->ran);
}

/* Where sched_setaffinity is denied the thread stays where it is. */
BACKENDS(reactor, the_thread_may_run_wherever_its_maker_may)
{
    cpu_set_t mine;
    cr_assert_eq(sched_getaffinity(0, sizeof mine, &mine), 0);
    for (int denied = 0; denied < 2; denied++) {
        if (denied) {
            deny_call(SYS_sched_setaffinity, EPERM, false);
        }
        struct reactor *reactor = get(backend, true);
        struct ask ask = {.work = {.run = ask_mask}};
        reactor_post(reactor, &ask.work);
        await(&ask.ran, 1);
        cr_assert(CPU_EQUAL(&mine, &ask.mask));
        reactor_put(reactor);
    }
}

/*
 * The CPU on which the process's newest thread ran last, from /proc/self/task/TID/stat. One that was joined may still
 * be listed, and then vanish; a sanitizer may have one of its own.
 */
static int cpu_of_newest_thread(void)
{
    enum { FIELDS_AFTER_NAME = 37 }; /* proc_pid_stat(5): the name is field 2, the CPU field 39 */
    long newest = 0;
    char path[64], line[1024] = "";
    DIR *tasks = opendir("/proc/self/task");
    cr_assert_not_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));) {
        long tid = strtol(entry->d_name, NULL, 10);
        newest = tid > newest ? tid : newest;
    }
    closedir(tasks);
    cr_assert_neq(newest, gettid(), "there is none but the caller");
    snprintf(path, sizeof path, "/proc/self/task/%ld/stat", newest);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    cr_assert_not_null(fgets(line, sizeof line, file));
    fclose(file);
    char *at = strrchr(line, ')');
    for (int field = 0; at && field < FIELDS_AFTER_NAME; field++) {
        at = strchr(at + 1, ' ');
    }
    cr_assert_not_null(at);
    return (int)strtol(at, NULL, 10);
}

/* The kernel may move both, so it need not hold each time. */
BACKENDS(reactor, the_thread_does_not_stay_where_its_maker_runs)
{
    enum { N = 40 };
    int stayed = 0;
    cpu_set_t mine;
    cr_assert_eq(sched_getaffinity(0, sizeof mine, &mine), 0);
    if (CPU_COUNT(&mine) < 2 || cpu_isolated_below("/sys/devices/system/cpu")) {
        cr_skip_test("one CPU, or isolated ones");
    }
    for (int i = 0; i < N; i++) {
        int before = cpu_current();
        struct reactor *reactor = get(backend, true);
        stayed += cpu_of_newest_thread() == before;
        reactor_put(reactor);
    }
    cr_assert_lt(stayed, N / 4);
}

/* Adversary: due times across all levels, armed in no order. Holds: none early, each once. */
BACKENDS(reactor, timers_fire_once_and_never_early)
{
    enum { N = 500 };
    static struct alarm alarm[N];
    unsigned seed = seed_of("timers_fire_once_and_never_early");
    struct reactor *reactor = get(backend, true);
    for (int i = 0; i < N; i++) {
        timer_init(&alarm[i].timer, reactor, ring_alarm);
        alarm[i].due = rp_now() + rand_r(&seed) % (50 * MS);
        timer_arm(&alarm[i].timer, alarm[i].due);
    }
    for (int i = 0; i < N; i++) {
        await(&alarm[i].fired, 1);
    }
    settle(reactor);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(load_relaxed(&alarm[i].early), 0, "fired early");
        cr_assert_eq(load_relaxed(&alarm[i].fired), 1, "fired %u times", load_relaxed(&alarm[i].fired));
        cr_assert_not(timer_cancel(&alarm[i].timer));
    }
    reactor_put(reactor);
}

BACKENDS(reactor, a_million_timers_can_be_armed_and_cancelled)
{
    enum { N = 1000000 };
    struct timer *timer = calloc(N, sizeof *timer);
    cr_assert_not_null(timer);
    struct reactor *reactor = get(backend, true);
    for (int i = 0; i < N; i++) {
        timer_init(&timer[i], reactor, ring_alarm);
        timer_arm(&timer[i], rp_after(HOUR + i * INT64_C(1000)));
    }
    for (int i = 0; i < N; i++) {
        cr_assert(timer_cancel(&timer[i]));
    }
    reactor_put(reactor);
    free(timer);
}

/* The thread sleeps for an hour (or is about to); what is earlier must not wait for that. */
BACKENDS(reactor, an_earlier_timer_ends_a_long_sleep)
{
    struct alarm late = {.due = 0}, soon = {.due = 0};
    struct reactor *reactor = get(backend, true);
    timer_init(&late.timer, reactor, ring_alarm);
    timer_init(&soon.timer, reactor, ring_alarm);
    timer_arm(&late.timer, rp_after(HOUR));
    for (uint32_t i = 1; i <= 200; i++) {
        soon.due = rp_after(i % 2 ? 0 : 100000);
        timer_arm(&soon.timer, soon.due);
        await(&soon.fired, i);
    }
    timer_cancel_wait(&soon.timer);
    cr_assert(timer_cancel(&late.timer));
    cr_assert_eq(load_relaxed(&soon.early), 0);
    reactor_put(reactor);
}

BACKENDS(reactor, a_timer_moved_forward_fires_at_its_new_time)
{
    struct alarm alarm = {.due = 0};
    struct reactor *reactor = get(backend, true);
    timer_init(&alarm.timer, reactor, ring_alarm);
    alarm.due = rp_after(5 * MS);
    timer_arm(&alarm.timer, rp_after(HOUR));
    timer_arm(&alarm.timer, alarm.due);
    await(&alarm.fired, 1);
    timer_cancel_wait(&alarm.timer);
    cr_assert_eq(load_relaxed(&alarm.early), 0);
    reactor_put(reactor);
}

BACKENDS(reactor, a_timer_moved_back_does_not_fire_at_its_old_time)
{
    struct alarm moved = {.due = 0}, other = {.due = 0};
    struct reactor *reactor = get(backend, true);
    timer_init(&moved.timer, reactor, ring_alarm);
    timer_init(&other.timer, reactor, ring_alarm);
    uint32_t before;
    int64_t old;
    do { /* again if this thread was kept from the CPU until the old time */
        timer_cancel_wait(&moved.timer);
        before = load_acquire(&moved.fired);
        old = rp_after(5 * MS);
        timer_arm(&moved.timer, old);
        timer_arm(&moved.timer, rp_after(HOUR));
    } while (rp_now() >= old);
    timer_arm(&other.timer, rp_after(10 * MS));
    await(&other.fired, 1);
    timer_cancel_wait(&other.timer);
    cr_assert_eq(load_acquire(&moved.fired), before);
    cr_assert(timer_cancel(&moved.timer));
    reactor_put(reactor);
}

static void fire_again(struct timer *timer)
{
    struct alarm *alarm = alarm_of(timer);
    if (add_acq_rel(&alarm->fired, 1) + 1 < 100) {
        timer_arm(timer, rp_after(1000));
    }
    futex_wake(&alarm->fired, 1);
}

BACKENDS(reactor, a_timer_may_be_armed_inside_its_own_fire)
{
    struct alarm alarm = {.due = 0};
    struct reactor *reactor = get(backend, true);
    timer_init(&alarm.timer, reactor, fire_again);
    timer_arm(&alarm.timer, rp_now());
    await(&alarm.fired, 100);
    cr_assert_not(timer_cancel_wait(&alarm.timer));
    cr_assert_eq(load_relaxed(&alarm.fired), 100);
    reactor_put(reactor);
}

static void fire_for_ever(struct timer *timer)
{
    announce(&alarm_of(timer)->fired);
    timer_arm(timer, rp_now());
}

/* Adversary: a timer that arms itself anew at once. Holds: after cancel_wait it is quiet, though cancel alone need not
 * be the end of it. */
BACKENDS(reactor, cancel_wait_ends_a_timer_that_arms_itself)
{
    struct reactor *reactor = get(backend, true);
    for (int i = 0; i < 100; i++) {
        struct alarm *alarm = calloc(1, sizeof *alarm);
        timer_init(&alarm->timer, reactor, fire_for_ever);
        timer_arm(&alarm->timer, rp_now());
        await(&alarm->fired, 1 + (uint32_t)i % 3);
        timer_cancel_wait(&alarm->timer);
        free(alarm);
    }
    reactor_put(reactor);
}

static void fire_freeing(struct timer *timer)
{
    struct alarm *alarm = alarm_of(timer);
    _Atomic uint32_t *fired = (_Atomic uint32_t *)(uintptr_t)alarm->due;
    free(alarm);
    announce(fired);
}

BACKENDS(reactor, fire_may_free_its_timer)
{
    _Atomic uint32_t fired = 0;
    struct reactor *reactor = get(backend, true);
    for (uint32_t i = 1; i <= 100; i++) {
        struct alarm *alarm = calloc(1, sizeof *alarm);
        alarm->due = (int64_t)(uintptr_t)&fired;
        timer_init(&alarm->timer, reactor, fire_freeing);
        timer_arm(&alarm->timer, rp_now());
        await(&fired, i);
    }
    reactor_put(reactor);
}

/* Adversary: a cancel at the moment the timer is due. Holds: either it was cancelled or it fires, exactly one. */
BACKENDS(reactor, a_cancel_that_races_with_fire_has_exactly_one_outcome)
{
    unsigned seed = seed_of("a_cancel_that_races_with_fire_has_exactly_one_outcome");
    struct reactor *reactor = get(backend, true);
    unsigned cancelled = 0;
    for (int i = 0; i < 2000; i++) {
        struct alarm alarm = {.due = rp_now() + rand_r(&seed) % 100000};
        int64_t until = alarm.due + rand_r(&seed) % 60000;
        timer_init(&alarm.timer, reactor, ring_alarm);
        timer_arm(&alarm.timer, alarm.due);
        while (rp_now() < until) {
            cpu_relax();
        }
        bool won = i % 2 ? timer_cancel(&alarm.timer) : timer_cancel_wait(&alarm.timer);
        if (!won) {
            await(&alarm.fired, 1);
        }
        timer_cancel_wait(&alarm.timer); /* so that the alarm may leave the stack */
        cr_assert_eq(load_acquire(&alarm.fired) + won, 1, "fired %u, cancelled %d", load_relaxed(&alarm.fired), won);
        cancelled += won;
    }
    cr_log_info("%u of 2000 cancelled", cancelled);
    reactor_put(reactor);
}

struct canceller {
    struct gate *gate;
    _Atomic uint32_t begins, returned, seen_ended;
};

static void *cancel_and_wait(void *argument)
{
    struct canceller *canceller = argument;
    announce(&canceller->begins);
    timer_cancel_wait(&canceller->gate->timer);
    store_release(&canceller->seen_ended, load_acquire(&canceller->gate->ended));
    announce(&canceller->returned);
    return NULL;
}

/* Adversary: fire has begun and is held up. Holds: whoever waits returns only after fire has; several may wait. */
BACKENDS(reactor, cancel_wait_returns_after_fire_has)
{
    enum { N = 3 };
    struct gate gate = {.reactor = NULL};
    struct canceller canceller[N] = {{.gate = &gate}, {.gate = &gate}, {.gate = &gate}};
    pthread_t thread[N];
    struct reactor *reactor = get(backend, true);
    timer_init(&gate.timer, reactor, gate_fire);
    timer_arm(&gate.timer, rp_now());
    await(&gate.began, 1);
    for (int i = 0; i < N; i++) {
        pthread_create(&thread[i], NULL, cancel_and_wait, &canceller[i]);
        await(&canceller[i].begins, 1);
    }
    usleep(2000); /* not for the verdict: only so that most have reached their wait */
    for (int i = 0; i < N; i++) {
        cr_assert_eq(load_acquire(&canceller[i].returned), 0, "did not wait");
    }
    announce(&gate.let_go);
    for (int i = 0; i < N; i++) {
        pthread_join(thread[i], NULL);
        cr_assert_eq(load_acquire(&canceller[i].seen_ended), 1, "returned before fire had");
    }
    reactor_put(reactor);
}

static void fire_cancelling_itself(struct timer *timer)
{
    struct alarm *alarm = alarm_of(timer);
    timer_arm(timer, rp_after(HOUR));
    if (!reactor_is_self(timer->reactor) || !timer_cancel_wait(timer) || timer_cancel_wait(timer)) {
        add_relaxed(&alarm->early, 1);
    }
    announce(&alarm->fired);
}

BACKENDS(reactor, cancel_wait_inside_fire_returns_at_once)
{
    struct alarm alarm = {.due = 0};
    struct reactor *reactor = get(backend, true);
    timer_init(&alarm.timer, reactor, fire_cancelling_itself);
    timer_arm(&alarm.timer, rp_now());
    await(&alarm.fired, 1);
    timer_cancel_wait(&alarm.timer);
    cr_assert_eq(load_relaxed(&alarm.early), 0);
    cr_assert_not(reactor_is_self(reactor));
    reactor_put(reactor);
}

/* Two timers expire together; the fire of one cancels the other, which is collected already. */
struct pair {
    struct timer timer[2];
    _Atomic uint32_t fired, cancelled, done;
};

static void fire_one(struct timer *timer, struct pair *pair, int other)
{
    (void)timer;
    add_relaxed(&pair->fired, 1);
    if (timer_cancel(&pair->timer[other])) {
        add_relaxed(&pair->cancelled, 1);
    }
    announce(&pair->done);
}

static void fire_first(struct timer *timer)
{
    fire_one(timer, (struct pair *)((char *)timer - offsetof(struct pair, timer[0])), 1);
}

static void fire_second(struct timer *timer)
{
    fire_one(timer, (struct pair *)((char *)timer - offsetof(struct pair, timer[1])), 0);
}

BACKENDS(reactor, a_timer_collected_but_not_fired_can_still_be_cancelled)
{
    struct reactor *reactor = get(backend, true);
    for (int i = 0; i < 50; i++) {
        struct gate gate = {.work = {.run = gate_run}};
        struct pair pair = {.fired = 0};
        reactor_post(reactor, &gate.work);
        await(&gate.began, 1); /* the thread is held up while both become due */
        timer_init(&pair.timer[0], reactor, fire_first);
        timer_init(&pair.timer[1], reactor, fire_second);
        timer_arm(&pair.timer[0], rp_now());
        timer_arm(&pair.timer[1], rp_now());
        announce(&gate.let_go);
        await(&pair.done, 1);
        settle(reactor);
        cr_assert_eq(load_relaxed(&pair.fired), 1);
        cr_assert_eq(load_relaxed(&pair.cancelled), 1);
    }
    reactor_put(reactor);
}

struct numbered {
    struct work work;
    unsigned producer, number;
    struct order *order;
};

struct order {
    unsigned next[3]; /* the reactor's thread only, until all have run */
    _Atomic uint32_t wrong, ran;
};

static void check_order(struct work *work)
{
    struct numbered *numbered = (struct numbered *)((char *)work - offsetof(struct numbered, work));
    struct order *order = numbered->order;
    if (order->next[numbered->producer]++ != numbered->number) {
        add_relaxed(&order->wrong, 1);
    }
    free(numbered);
    announce(&order->ran);
}

struct producer {
    struct reactor *reactor;
    struct order *order;
    unsigned number;
};

static void *produce(void *argument)
{
    struct producer *producer = argument;
    for (unsigned i = 0; i < 5000; i++) {
        struct numbered *numbered = calloc(1, sizeof *numbered);
        *numbered = (struct numbered){{.run = check_order}, producer->number, i, producer->order};
        reactor_post(producer->reactor, &numbered->work);
    }
    return NULL;
}

/* Adversary: three producers, and a thread that sleeps between. Holds: the order of each producer; none is lost. */
BACKENDS(reactor, work_runs_once_in_order_of_posting)
{
    struct order order = {.ran = 0};
    struct producer producer[3];
    pthread_t thread[3];
    struct reactor *reactor = get(backend, true);
    for (unsigned i = 0; i < 3; i++) {
        producer[i] = (struct producer){reactor, &order, i};
        pthread_create(&thread[i], NULL, produce, &producer[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
    }
    await(&order.ran, 15000);
    settle(reactor);
    cr_assert_eq(load_relaxed(&order.wrong), 0);
    cr_assert_eq(load_relaxed(&order.ran), 15000);
    reactor_put(reactor);
}

BACKENDS(reactor, work_posted_before_the_last_put_still_runs)
{
    for (int i = 0; i < 50; i++) {
        struct marker marker[10] = {{{.run = NULL}, 0}};
        struct reactor *reactor = get(backend, true);
        for (int k = 0; k < 10; k++) {
            marker[k].work.run = mark;
            reactor_post(reactor, &marker[k].work);
        }
        reactor_put(reactor);
        for (int k = 0; k < 10; k++) {
            cr_assert_eq(load_acquire(&marker[k].ran), 1);
        }
    }
}

/* Strictly one after the other, so that every post meets the thread asleep or just about to be. */
BACKENDS(reactor, no_wake_is_lost_between_work_and_sleep)
{
    struct reactor *reactor = get(backend, true);
    for (int i = 0; i < 5000; i++) {
        settle(reactor);
    }
    reactor_put(reactor);
}

static _Atomic bool storm_over;

/* setresuid makes glibc signal every thread, with a signal that cannot be blocked: each interrupts the sleep. */
static void *interrupt_everybody(void *argument)
{
    (void)argument;
    while (!load_relaxed(&storm_over)) {
        (void)!setresuid((uid_t)-1, (uid_t)-1, (uid_t)-1);
    }
    return NULL;
}

BACKENDS(reactor, interrupted_sleeps_lose_nothing_and_fire_nothing_early)
{
    pthread_t thread;
    struct alarm alarm = {.due = 0};
    struct reactor *reactor = get(backend, true);
    timer_init(&alarm.timer, reactor, ring_alarm);
    store_relaxed(&storm_over, false);
    pthread_create(&thread, NULL, interrupt_everybody, NULL);
    for (uint32_t i = 1; i <= 100; i++) {
        alarm.due = rp_after(500000);
        timer_arm(&alarm.timer, alarm.due);
        await(&alarm.fired, i);
        settle(reactor);
    }
    store_relaxed(&storm_over, true);
    pthread_join(thread, NULL);
    timer_cancel_wait(&alarm.timer);
    cr_assert_eq(load_relaxed(&alarm.early), 0);
    reactor_put(reactor);
}

static void note_mask(struct work *work)
{
    struct marker *marker = (struct marker *)((char *)work - offsetof(struct marker, work));
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    static const int users[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGPIPE, SIGPROF};
    uint32_t open = 1;
    for (size_t i = 0; i < sizeof users / sizeof users[0]; i++) {
        open += !sigismember(&mask, users[i]);
    }
    char name[16];
    pthread_getname_np(pthread_self(), name, sizeof name);
    open += strcmp(name, "rp-reactor") != 0;
    add_acq_rel(&marker->ran, open);
    futex_wake(&marker->ran, 1);
}

BACKENDS(reactor, the_thread_is_named_and_blocks_the_signals_of_users)
{
    struct marker marker = {.work = {.run = note_mask}};
    struct reactor *reactor = get(backend, true);
    reactor_post(reactor, &marker.work);
    await(&marker.ran, 1);
    reactor_put(reactor);
    cr_assert_eq(load_relaxed(&marker.ran), 1);
}

BACKENDS(reactor, one_is_shared_and_own_ones_are_not)
{
    struct reactor *a = get(backend, false), *b = get(backend, false), *own = get(backend, true);
    cr_assert_eq(a, b);
    cr_assert_neq(a, own);
    reactor_put(a);
    settle(b); /* lives until the last put */
    reactor_put(b);
    settle(own);
    reactor_put(own);
    reactor_put(NULL);
}

static void await_threads(unsigned n)
{
    /* A joined thread leaves /proc a moment later than join returns, a detached one when it likes. */
    for (int i = 0; i < 10000 && count_threads() != n; i++) {
        usleep(1000);
    }
    cr_assert_eq(count_threads(), n);
}

static void put_in_fire(struct timer *timer)
{
    struct gate *gate = (struct gate *)((char *)timer - offsetof(struct gate, timer));
    reactor_put(gate->reactor);
    announce(&gate->ended);
}

static void put_in_run(struct work *work)
{
    struct gate *gate = (struct gate *)((char *)work - offsetof(struct gate, work));
    reactor_put(gate->reactor);
    announce(&gate->ended);
}

/* Adversary: the last reference goes on the reactor's own thread, while the poster is still ringing its bell. */
BACKENDS(reactor, the_last_put_may_come_on_the_reactors_own_thread)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    for (int i = 0; i < 200; i++) {
        struct gate gate = {.reactor = get(backend, i % 4 < 2)};
        if (i % 2) {
            timer_init(&gate.timer, gate.reactor, put_in_fire);
            timer_arm(&gate.timer, rp_now());
        } else {
            gate.work.run = put_in_run;
            reactor_post(gate.reactor, &gate.work);
        }
        await(&gate.ended, 1);
    }
    await_threads(threads);
    cr_assert_eq(count_descriptors(), descriptors);
}

BACKENDS(reactor, a_thousand_lives_leave_no_descriptor_and_no_thread)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    for (int i = 0; i < 1000; i++) {
        struct reactor *reactor = get(backend, i % 2);
        if (i % 3 == 0) {
            settle(reactor);
        }
        reactor_put(reactor);
    }
    cr_assert_eq(count_descriptors(), descriptors);
    await_threads(threads);
}

static void *get_and_put(void *argument)
{
    int backend = *(int *)argument;
    for (int i = 0; i < 200; i++) {
        struct reactor *reactor;
        if (reactor_get(&reactor, backend, false) == 0) {
            settle(reactor);
            reactor_put(reactor);
        }
    }
    return NULL;
}

BACKENDS(reactor, gets_and_puts_of_the_shared_one_may_race)
{
    pthread_t thread[3];
    for (int i = 0; i < 3; i++) {
        pthread_create(&thread[i], NULL, get_and_put, &backend);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
    }
}

struct census {
    struct work work;
    _Atomic uint32_t ran, tid;
};

static void tell_tid(struct work *work)
{
    struct census *census = (struct census *)((char *)work - offsetof(struct census, work));
    store_relaxed(&census->tid, (uint32_t)gettid());
    announce(&census->ran);
}

static uint32_t tid_of(struct reactor *reactor)
{
    struct census census = {.work = {.run = tell_tid}};
    reactor_post(reactor, &census.work);
    await(&census.ran, 1);
    return load_relaxed(&census.tid);
}

/* How often a thread has gone to sleep so far, as the kernel counts. */
static uint64_t sleeps_of(uint32_t tid)
{
    char path[64], line[256];
    uint64_t sleeps = 0;
    snprintf(path, sizeof path, "/proc/self/task/%u/status", tid);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0) {
            sleeps = strtoull(line + 24, NULL, 10);
        }
    }
    fclose(file);
    return sleeps;
}

/* Nothing armed soon: the thread must not wake, however long one looks. */
BACKENDS(reactor, an_idle_reactor_does_not_wake)
{
    struct alarm alarm = {.due = 0};
    struct reactor *reactor = get(backend, true);
    timer_init(&alarm.timer, reactor, ring_alarm);
    timer_arm(&alarm.timer, rp_after(HOUR));
    uint32_t tid = tid_of(reactor);
    usleep(20000); /* it has gone to sleep by now, or nearly: one more is allowed below for that */
    uint64_t before = sleeps_of(tid);
    usleep(200000);
    cr_assert_leq(sleeps_of(tid), before + 1);
    timer_cancel(&alarm.timer);
    reactor_put(reactor);
}

BACKENDS(reactor, a_missing_thread_is_reported_and_leaves_nothing)
{
    unsigned descriptors = count_descriptors();
    struct reactor *reactor;
    reactor_put(get(backend, false)); /* what is made once per process is there */
    deny_call(SYS_clone3, EAGAIN, false);
    for (int own = 0; own < 2; own++) {
        cr_assert_eq(reactor_get(&reactor, backend, own), -EAGAIN);
        cr_assert_null(reactor);
    }
    cr_assert_eq(count_descriptors(), descriptors);
}
