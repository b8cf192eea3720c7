/*
 * The futex calls: what each return value means, and that a deadline is absolute.
 */
#include "base/futex.h"

#include "base/fork.h"
#include "base/rcu.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <ringpool/base.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

Test(futex, wait_on_another_value_returns_at_once)
{
    _Atomic uint32_t word = 1;

    cr_assert_eq(futex_wait(&word, 0, 0), -EAGAIN);
    cr_assert_eq(futex_wait(&word, 0, rp_after(INT64_C(1000000000))), -EAGAIN);
}

Test(futex, deadline_in_the_past_times_out_at_once)
{
    _Atomic uint32_t word = 0;

    cr_assert_eq(futex_wait(&word, 0, 1), -ETIMEDOUT);
    cr_assert_eq(futex_wait(&word, 0, rp_after(-1)), -ETIMEDOUT);
}

Test(futex, negative_deadline_is_past_not_invalid)
{
    _Atomic uint32_t word = 0;

    cr_assert_eq(futex_wait(&word, 0, -1), -ETIMEDOUT);
    cr_assert_eq(futex_wait(&word, 0, INT64_MIN), -ETIMEDOUT);
}

Test(futex, another_value_goes_before_a_deadline_in_the_past)
{
    _Atomic uint32_t word = 1;

    cr_assert_eq(futex_wait(&word, 0, 1), -EAGAIN);
}

Test(futex, does_not_time_out_before_its_deadline)
{
    _Atomic uint32_t word = 0;
    int64_t deadline = rp_after(2000000);
    int rc;

    do {
        rc = futex_wait(&word, 0, deadline);
    } while (rc == 0 || rc == -EINTR);
    cr_assert_eq(rc, -ETIMEDOUT);
    cr_assert_geq(rp_now(), deadline);
}

static _Atomic uint32_t sleepers_word;
static _Atomic int rc_of_sleeper;

static void *sleep_far(void *arg)
{
    (void)arg;
    store_seq(&rc_of_sleeper, futex_wait(&sleepers_word, 0, INT64_MAX));
    return NULL;
}

Test(futex, wake_ends_a_wait_and_counts_it)
{
    pthread_t thread;

    store_seq(&rc_of_sleeper, 1);
    cr_assert_eq(pthread_create(&thread, NULL, sleep_far, NULL), 0);
    while (futex_wake(&sleepers_word, 1) == 0) { /* it is not asleep yet */
        sched_yield();
    }
    pthread_join(thread, NULL);
    cr_assert_eq(load_seq(&rc_of_sleeper), 0);
}

static void *sleep_until_set(void *arg)
{
    (void)arg;
    while (load_seq(&sleepers_word) == 0) {
        (void)futex_wait(&sleepers_word, 0, 0);
    }
    return NULL;
}

/* Adversary: each sleeper may be before, in or behind its wait when the word changes; all of them must return. */
Test(futex, no_sleeper_misses_a_change_followed_by_a_wake)
{
    pthread_t threads[8];

    for (int i = 0; i < 8; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, sleep_until_set, NULL), 0);
    }
    store_seq(&sleepers_word, 1);
    cr_assert_leq(futex_wake(&sleepers_word, INT32_MAX), 8);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void on_signal(int number)
{
    (void)number;
}

Test(futex, signal_handler_ends_a_wait)
{
    struct sigaction action = {.sa_handler = on_signal};
    pthread_t thread;

    sigaction(SIGUSR1, &action, NULL);
    store_seq(&rc_of_sleeper, 1);
    cr_assert_eq(pthread_create(&thread, NULL, sleep_far, NULL), 0);
    while (load_seq(&rc_of_sleeper) == 1) {
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    }
    pthread_join(thread, NULL);
    cr_assert_eq(load_seq(&rc_of_sleeper), -EINTR);
}

Test(futex, wake_of_a_word_that_is_gone_does_nothing)
{
    _Atomic uint32_t *word =
        mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq((void *)word, MAP_FAILED);
    munmap((void *)word, (size_t)sysconf(_SC_PAGESIZE));
    cr_assert_eq(futex_wake(word, 1), 0);
}

Test(futex, more_words_than_the_kernel_takes_are_refused)
{
    static struct futex_expected words[129];
    _Atomic uint32_t word = 0;

    for (int i = 0; i < 129; i++) {
        words[i] = (struct futex_expected){&word, 0};
    }
    cr_assert_eq(futex_wait_any(words, 129, 1), -EINVAL);
    if (futex_wait_any_works()) {
        cr_assert_eq(futex_wait_any(words, 128, 1), -ETIMEDOUT);
    }
}

Test(futex, wake_of_none_wakes_none)
{
    _Atomic uint32_t word = 0;

    cr_assert_eq(futex_wake(&word, 1), 0);
    cr_assert_eq(futex_wake(&word, 0), 0);
    cr_assert_eq(futex_wake(&word, -1), 0);
}

Test(futex, leaves_errno_alone)
{
    _Atomic uint32_t word = 1;

    errno = ENOTTY;
    (void)futex_wait(&word, 0, 0);
    (void)futex_wait(&word, 1, 1);
    (void)futex_wake(&word, 1);
    (void)futex_wait_shared(&word, 0);
    (void)futex_wake_shared(&word, 1);
    for (int i = 0; i < 1000; i++) {
        (void)futex_crowd_join();
    }
    cr_assert_eq(errno, ENOTTY);
}

/* --- crowds ----------------------------------------------------------------------------------------------------- */

static void *sleep_shared_until_set(void *arg)
{
    (void)arg;
    while (load_seq(&sleepers_word) == 0) {
        (void)futex_wait_shared(&sleepers_word, 0);
    }
    return NULL;
}

Test(futex, shared_sleepers_are_woken_by_shared_wakes_and_private_ones_by_private)
{
    pthread_t threads[2];

    cr_assert_eq(futex_wait_shared(&sleepers_word, 1), -EAGAIN);
    cr_assert_eq(pthread_create(&threads[0], NULL, sleep_shared_until_set, NULL), 0);
    while (futex_wake_shared(&sleepers_word, 1) == 0) { /* it is not asleep yet */
        sched_yield();
    }
    cr_assert_eq(pthread_create(&threads[1], NULL, sleep_until_set, NULL), 0);
    while (futex_wake(&sleepers_word, 1) == 0) {
        sched_yield();
    }
    store_seq(&sleepers_word, 1);
    cr_assert_leq(futex_wake(&sleepers_word, 2), 1);
    cr_assert_leq(futex_wake_shared(&sleepers_word, 2), 1);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
}

Test(futex, shared_wake_of_a_word_that_is_gone_does_nothing)
{
    _Atomic uint32_t *word =
        mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq((void *)word, MAP_FAILED);
    munmap((void *)word, (size_t)sysconf(_SC_PAGESIZE));
    cr_assert_eq(futex_wake_shared(word, 1), 0);
}

static void *returns(void *arg)
{
    return arg;
}

/* So many sleep on private words of their own; -1: all do, as the kernel has no table for this process. */
static long private_places(void)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, returns, NULL), 0); /* with a first thread the process has its table */
    pthread_join(thread, NULL);
    int slots = prctl(78, 2, 0, 0, 0); /* PR_FUTEX_HASH_GET_SLOTS */

    return slots > 0 ? 8L * slots : -1;
}

#define CROWD 40000L

/* How many of CROWD that join are told to sleep on private words, before the first that is not. */
static long join_all(void)
{
    long places = -1;

    for (long i = 0; i < CROWD; i++) {
        bool shared = futex_crowd_join();
        if (shared && places < 0) {
            places = i;
        } else if (!shared && places >= 0) {
            return -2;
        }
    }
    return places;
}

static void leave_all(void)
{
    for (long i = 0; i < CROWD; i++) {
        futex_crowd_leave();
    }
}

Test(futex, of_a_crowd_those_sleep_on_shared_words_whom_the_private_table_has_no_place_for)
{
    long places = private_places();

    if (places > CROWD) {
        places = -1;
    }
    cr_assert_eq(join_all(), places);
    leave_all();
    cr_assert_eq(join_all(), places, "who has left has a place still");
    leave_all();
    leave_all();
    cr_assert_eq(join_all(), places, "more left than had come");
}

Test(futex, in_a_child_nobody_has_joined)
{
#ifdef RCU_TSAN
    cr_skip_test("ThreadSanitizer allows no thread in a child, with which this makes the kernel give it a table");
#endif
    long places = private_places();

    cr_assert_eq(fork_install(), 0);
    (void)join_all();
    pid_t child = fork();
    if (child == 0) {
        futex_crowd_leave();                             /* of one that joined in the parent */
        if (places >= 0 && private_places() != places) { /* other limits hold there */
            _exit(0);
        }
        _exit(join_all() == (places > CROWD ? -1 : places) ? 0 : 1);
    }
    int status = -1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
}
