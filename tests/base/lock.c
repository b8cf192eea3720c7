/*
 * rp_lock: exclusion, no waiter forgotten, nothing left behind.
 */
#include "base/atomic.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <ringpool/lock.h>
#include <sched.h>

enum { THREADS = 8, ROUNDS = 20000 };

static struct rp_lock lock;
static pthread_barrier_t start;
static long counter; /* under lock */
static _Atomic int arrived;

Test(lock, zero_is_free)
{
    struct rp_lock fresh = {0};

    cr_assert(rp_lock_try(&fresh));
    rp_lock_release(&fresh);
    rp_lock_acquire(&fresh);
    rp_lock_release(&fresh);
    cr_assert_eq(fresh.word, 0u);
}

Test(lock, try_does_not_take_a_held_lock)
{
    struct rp_lock held = {0};

    rp_lock_acquire(&held);
    cr_assert_not(rp_lock_try(&held));
    rp_lock_release(&held);
    cr_assert(rp_lock_try(&held));
}

static void *count_up(void *arg)
{
    bool by_try = arg != NULL;

    pthread_barrier_wait(&start);
    for (int i = 0; i < ROUNDS; i++) {
        if (!by_try) {
            rp_lock_acquire(&lock);
        } else {
            while (!rp_lock_try(&lock)) {
                sched_yield();
            }
        }
        counter++;
        rp_lock_release(&lock);
    }
    return NULL;
}

/* Adversary: eight threads on few CPUs, so that holders are preempted and waiters sleep; every other one barges in. */
Test(lock, no_increment_is_lost_between_contending_threads)
{
    pthread_t threads[THREADS];

    pthread_barrier_init(&start, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, count_up, i % 4 == 3 ? &lock : NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(counter, (long)THREADS * ROUNDS);
    cr_assert_eq(lock.word, 0u);
}

static void *pass_through(void *arg)
{
    (void)arg;
    add_seq(&arrived, 1);
    rp_lock_acquire(&lock);
    counter++;
    rp_lock_release(&lock);
    return NULL;
}

/*
 * Adversary: all waiters sleep before the only release, which wakes one of them. What holds: each hands on, as it took
 * the lock as contended. The word says so when the first one sleeps or is about to.
 */
Test(lock, one_release_lets_every_sleeper_through)
{
    pthread_t threads[THREADS];

    rp_lock_acquire(&lock);
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, pass_through, NULL), 0);
    }
    while (load_seq(&arrived) < THREADS || load_seq((_Atomic uint32_t *)&lock.word) != 2) {
        sched_yield();
    }
    cr_assert_eq(counter, 0);
    rp_lock_release(&lock);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(counter, THREADS);
    cr_assert_eq(lock.word, 0u);
}

Test(lock, leaves_errno_alone)
{
    pthread_t thread;

    rp_lock_acquire(&lock);
    cr_assert_eq(pthread_create(&thread, NULL, pass_through, NULL), 0);
    while (load_seq((_Atomic uint32_t *)&lock.word) != 2) {
        sched_yield();
    }
    errno = ENOTTY;
    rp_lock_release(&lock);
    rp_lock_acquire(&lock);
    rp_lock_release(&lock);
    cr_assert_eq(errno, ENOTTY);
    pthread_join(thread, NULL);
}
