/*
 * The reactor across fork: dead in the child, untouched in the parent.
 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "support.h"

#define MS INT64_C(1000000)

/* ThreadSanitizer ends a child that starts threads when its parent had several; memcheck opens a descriptor in it. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || defined(RP_VALGRIND)
#define CHILDREN_MAY_HAVE_THREADS false
#elif defined(__has_feature)
#define CHILDREN_MAY_HAVE_THREADS !(__has_feature(thread_sanitizer) || __has_feature(address_sanitizer))
#else
#define CHILDREN_MAY_HAVE_THREADS true
#endif

struct fixture {
    struct reactor *reactor;
    int backend;
    unsigned descriptors; /* before there was a reactor; 0: not known */
    struct timer armed, idle;
    struct work work;
    _Atomic uint32_t fired, ran;
};

static void fire_armed(struct timer *timer)
{
    announce(&((struct fixture *)((char *)timer - offsetof(struct fixture, armed)))->fired);
}

static void fire_idle(struct timer *timer)
{
    announce(&((struct fixture *)((char *)timer - offsetof(struct fixture, idle)))->fired);
}

static void run(struct work *work)
{
    announce(&((struct fixture *)((char *)work - offsetof(struct fixture, work)))->ran);
}

static int use_the_dead_and_make_a_new_one(void *argument)
{
    struct fixture *fixture = argument;
    unsigned descriptors = count_descriptors();
    if (fixture->descriptors != 0 && descriptors != fixture->descriptors) {
        return 1; /* the child keeps descriptors of the parent's reactor */
    }
    timer_arm(&fixture->idle, rp_now());
    reactor_post(fixture->reactor, &fixture->work);
    if (timer_cancel(&fixture->armed) || timer_cancel_wait(&fixture->idle)) {
        return 2;
    }
    if (reactor_is_self(fixture->reactor)) {
        return 3;
    }

    struct reactor *fresh;
    if (reactor_get(&fresh, fixture->backend, false) != 0 || fresh == fixture->reactor) {
        return 4;
    }
    reactor_put(fixture->reactor);
    timer_init(&fixture->idle, fresh, fire_idle);
    timer_arm(&fixture->idle, rp_after(MS));
    await(&fixture->fired, 1);
    reactor_post(fresh, &fixture->work);
    await(&fixture->ran, 1);
    timer_cancel_wait(&fixture->idle);
    reactor_put(fresh);
    if (load_relaxed(&fixture->fired) != 1 || load_relaxed(&fixture->ran) != 1) {
        return 5;
    }
    return count_descriptors() == descriptors ? 0 : 6;
}

BACKENDS(fork, a_child_finds_the_reactor_dead_and_can_make_a_new_one)
{
    if (!CHILDREN_MAY_HAVE_THREADS) {
        cr_skip_test("the checker forbids it");
    }
    struct fixture fixture = {.backend = backend, .work = {.run = run}};
    fixture.descriptors = count_descriptors();
    fixture.reactor = get(backend, false);
    timer_init(&fixture.armed, fixture.reactor, fire_armed);
    timer_init(&fixture.idle, fixture.reactor, fire_idle);
    timer_arm(&fixture.armed, rp_after(3600000 * MS));
    cr_assert_eq(in_child(use_the_dead_and_make_a_new_one, &fixture), 0);

    /* And the parent's goes on: the child has armed, posted and cancelled nothing here. */
    cr_assert_eq(load_relaxed(&fixture.fired), 0);
    cr_assert_eq(load_relaxed(&fixture.ran), 0);
    timer_arm(&fixture.armed, rp_after(MS));
    await(&fixture.fired, 1);
    reactor_post(fixture.reactor, &fixture.work);
    await(&fixture.ran, 1);
    timer_cancel_wait(&fixture.armed);
    reactor_put(fixture.reactor);
}

static int only_put(void *argument)
{
    reactor_put(argument);
    return 0;
}

struct busy {
    struct reactor *reactor;
    _Atomic bool stop;
};

static void fire_nothing(struct timer *timer)
{
    (void)timer;
}

static void *keep_busy(void *argument)
{
    struct busy *busy = argument;
    struct timer timer;
    timer_init(&timer, busy->reactor, fire_nothing);
    while (!load_relaxed(&busy->stop)) {
        timer_arm(&timer, rp_after(10000));
        timer_cancel(&timer);
        struct reactor *own;
        if (reactor_get(&own, RP_BACKEND_AUTO, true) == 0) {
            reactor_put(own);
        }
    }
    timer_cancel_wait(&timer);
    return NULL;
}

/* Adversary: forks at any moment of other threads' arming, opening and closing. Holds: no child hangs on a lock that
 * nobody will release there. */
BACKENDS(fork, a_fork_amid_arming_opening_and_closing_leaves_usable_children)
{
    if (!CHILDREN_MAY_HAVE_THREADS) {
        cr_skip_test("the checker forbids it");
    }
    struct busy busy = {.reactor = get(backend, false)};
    struct fixture fixture = {.backend = backend, .work = {.run = run}};
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) {
        pthread_create(&thread[i], NULL, keep_busy, &busy);
    }
    for (int i = 0; i < 30; i++) {
        if (i % 2) {
            cr_assert_eq(in_child(only_put, busy.reactor), 0);
            continue;
        }
        fixture.reactor = get(backend, i % 4 == 0);
        timer_init(&fixture.armed, fixture.reactor, fire_armed);
        timer_init(&fixture.idle, fixture.reactor, fire_idle);
        int status = in_child(use_the_dead_and_make_a_new_one, &fixture);
        cr_assert_eq(status, 0, "%d", status);
        reactor_put(fixture.reactor);
    }
    store_relaxed(&busy.stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    reactor_put(busy.reactor);
}

struct forker {
    struct work work;
    struct reactor *reactor;
    _Atomic uint32_t done;
    int status;
};

static int put_own_and_return(void *argument)
{
    struct forker *forker = argument;
    if (!reactor_is_self(forker->reactor)) {
        return 1;
    }
    reactor_put(forker->reactor);
    return 0;
}

static void fork_in_run(struct work *work)
{
    struct forker *forker = (struct forker *)((char *)work - offsetof(struct forker, work));
    forker->status = in_child(put_own_and_return, forker);
    announce(&forker->done);
}

BACKENDS(fork, the_reactors_own_thread_may_fork)
{
    struct forker forker = {.work = {.run = fork_in_run}, .reactor = get(backend, true)};
    reactor_post(forker.reactor, &forker.work);
    await(&forker.done, 1);
    cr_assert_eq(forker.status, 0);
    reactor_put(forker.reactor);
}
