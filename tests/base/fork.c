/*
 * Fork: the hooks run in their order, and the child is a process in which everything of this floor works again.
 *
 * A child says what it found by its exit status: an assertion belongs into the test's own process.
 */
#include "base/fork.h"

#include "base/rcu.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <ringpool/lock.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Forks; the child's status is what `body` returns, 0 meaning that all was well. */
static int status_of_child(int (*body)(void))
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(body());
    }
    cr_assert_gt(pid, 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "the child died by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static int generation_of_child(void)
{
    return (int)fork_generation();
}

static int generation_of_grandchild(void)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        _exit((int)fork_generation());
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

Test(fork, the_generation_grows_in_the_child_and_only_there)
{
    cr_assert_eq(fork_install(), 0);
    cr_assert_eq(fork_install(), 0);
    cr_assert_eq(fork_generation(), 0u);
    cr_assert_eq(status_of_child(generation_of_child), 1);
    cr_assert_eq(status_of_child(generation_of_grandchild), 2);
    cr_assert_eq(fork_generation(), 0u);
}

static char trace[64];

static void note(const char *step)
{
    size_t used = strlen(trace);

    snprintf(trace + used, sizeof trace - used, "%s", step);
}

#define HOOKS(x)                                                                                                       \
    static void prepare_##x(void)                                                                                      \
    {                                                                                                                  \
        note("p" #x " ");                                                                                              \
    }                                                                                                                  \
    static void parent_##x(void)                                                                                       \
    {                                                                                                                  \
        note("P" #x " ");                                                                                              \
    }                                                                                                                  \
    static void child_##x(void)                                                                                        \
    {                                                                                                                  \
        note("C" #x " ");                                                                                              \
    }                                                                                                                  \
    static const struct fork_hooks hooks_##x = {prepare_##x, parent_##x, child_##x}

HOOKS(1);
HOOKS(2);
HOOKS(3);

static int child_trace_differs(void)
{
    return strcmp(trace, "p3 p2 p1 C1 C2 C3 ") != 0;
}

Test(fork, prepare_runs_in_reverse_order_and_the_others_in_order)
{
    cr_assert_eq(fork_register(&hooks_1), 0);
    cr_assert_eq(fork_register(&hooks_2), 0);
    cr_assert_eq(fork_register(&hooks_3), 0);
    cr_assert_eq(status_of_child(child_trace_differs), 0);
    cr_assert_str_eq(trace, "p3 p2 p1 P1 P2 P3 ");
}

static int all_well(void)
{
    return 0;
}

Test(fork, the_same_hooks_again_are_run_once)
{
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(fork_register(&hooks_1), 0);
    }
    cr_assert_eq(status_of_child(all_well), 0);
    cr_assert_str_eq(trace, "p1 P1 ");
}

Test(fork, eight_sets_fit_and_a_ninth_is_enomem)
{
    static const struct fork_hooks empty[9]; /* each function may be NULL */

    for (int i = 0; i < 8; i++) {
        cr_assert_eq(fork_register(&empty[i]), 0);
    }
    cr_assert_eq(fork_register(&empty[8]), -ENOMEM);
    cr_assert_eq(fork_register(&empty[3]), 0);
    cr_assert_eq(status_of_child(all_well), 0);
}

static int register_another(void)
{
    static const struct fork_hooks empty;

    return fork_register(&empty);
}

Test(fork, a_child_may_register_hooks)
{
    cr_assert_eq(fork_register(&hooks_1), 0);
    cr_assert_eq(status_of_child(register_another), 0);
}

static int use_rcu(void)
{
    if (rcu_attach()) {
        return 1;
    }
    rcu_enter();
    rcu_exit();
    rcu_wait();
    return 0;
}

Test(fork, a_child_of_an_attached_thread_uses_rcu)
{
    cr_assert_eq(use_rcu(), 0);
    cr_assert_eq(status_of_child(use_rcu), 0);
    cr_assert_eq(use_rcu(), 0);
}

Test(fork, a_child_of_an_unattached_thread_uses_rcu)
{
    cr_assert_eq(fork_install(), 0);
    cr_assert_eq(status_of_child(use_rcu), 0);
}

static pthread_barrier_t barrier;
static _Atomic int failures;

static void *stay_in_a_section(void *arg)
{
    (void)arg;
    if (rcu_attach()) {
        add_seq(&failures, 1);
    }
    rcu_enter();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    rcu_exit();
    return NULL;
}

/* Adversary: the child inherits the registration of a reader that exists no more and would never leave its section. */
Test(fork, a_child_does_not_wait_for_the_readers_of_its_parent)
{
    pthread_t thread;

    pthread_barrier_init(&barrier, NULL, 2);
    cr_assert_eq(pthread_create(&thread, NULL, stay_in_a_section, NULL), 0);
    pthread_barrier_wait(&barrier);
    cr_assert_eq(status_of_child(use_rcu), 0);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    cr_assert_eq(load_seq(&failures), 0);
    cr_assert_eq(use_rcu(), 0);
}

static _Atomic bool stop;

static void *attach_and_end(void *arg)
{
    (void)arg;
    if (use_rcu()) {
        add_seq(&failures, 1);
    }
    return NULL;
}

static void *make_readers(void *arg)
{
    (void)arg;
    while (!load_seq(&stop)) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, attach_and_end, NULL)) {
            add_seq(&failures, 1);
            break;
        }
        pthread_join(thread, NULL);
    }
    return NULL;
}

static void *register_hooks(void *arg)
{
    (void)arg;
    while (!load_seq(&stop)) {
        if (fork_register(&hooks_1)) {
            add_seq(&failures, 1);
        }
        sched_yield();
    }
    return NULL;
}

static int use_everything(void)
{
    static const struct fork_hooks empty;
    pthread_t thread;

    alarm(60); /* a lock that came into the child held would hang it */
    if (use_rcu() || fork_register(&empty) || pthread_create(&thread, NULL, attach_and_end, NULL)) {
        return 1;
    }
    pthread_join(thread, NULL);
    return load_seq(&failures) != 0;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* Adversary: forks at every point of a registration, a grace period and a fork_register of other threads. */
Test(fork, a_child_finds_no_lock_held)
{
    pthread_t makers[2], registrar;

#ifdef SANITIZED
    cr_skip_test("a sanitizer's own locks come into the child held");
#endif
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&makers[i], NULL, make_readers, NULL), 0);
    }
    cr_assert_eq(fork_install(), 0);
    cr_assert_eq(pthread_create(&registrar, NULL, register_hooks, NULL), 0);
    for (int i = 0; i < 50; i++) {
        trace[0] = '\0';
        cr_assert_eq(status_of_child(use_everything), 0);
    }
    store_seq(&stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(makers[i], NULL);
    }
    pthread_join(registrar, NULL);
    cr_assert_eq(load_seq(&failures), 0);
}

static struct rp_lock guarded;

static void take(void)
{
    rp_lock_acquire(&guarded);
}

static void give(void)
{
    rp_lock_release(&guarded);
}

static int lock_is_free(void)
{
    return rp_lock_try(&guarded) ? 0 : 1;
}

Test(fork, a_lock_taken_in_prepare_is_free_on_both_sides)
{
    static const struct fork_hooks hooks = {take, give, give};

    cr_assert_eq(fork_register(&hooks), 0);
    cr_assert_eq(status_of_child(lock_is_free), 0);
    cr_assert(rp_lock_try(&guarded));
}

Test(fork, the_signal_mask_is_the_same_afterwards)
{
    sigset_t before, after;

    cr_assert_eq(fork_install(), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    cr_assert_eq(status_of_child(all_well), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < 32; number++) {
        cr_assert_eq(sigismember(&before, number), sigismember(&after, number));
    }
}

/* --- forks that wait ---- */

static _Atomic int about_to, forked;

static void *fork_once(void *arg)
{
    (void)arg;
    store_seq(&about_to, 1);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    store_seq(&forked, 1);
    waitpid(pid, NULL, 0);
    return NULL;
}

/* Adversary: a fork that begins while forks are held off. It must not be through before they are let go. */
Test(fork, waits_while_it_is_held_off)
{
    pthread_t thread;

    cr_assert_eq(fork_install(), 0);
    fork_hold_off();
    cr_assert_eq(pthread_create(&thread, NULL, fork_once, NULL), 0);
    while (!load_seq(&about_to)) {
        sched_yield();
    }
    for (int i = 0; i < 1000; i++) { /* a fork that does not wait gets its chance */
        sched_yield();
        cr_assert_eq(load_seq(&forked), 0);
    }
    fork_let_go();
    pthread_join(thread, NULL);
    cr_assert_eq(load_seq(&forked), 1);
}

static _Atomic int holding, held_beside, holds_end;
static _Atomic unsigned holds;

static void *hold_again_and_again(void *arg)
{
    (void)arg;
    while (!load_seq(&holds_end)) {
        fork_hold_off();
        add_seq(&holding, 1);
        if (add_seq(&holds, 1) % 4 == 0) {
            sched_yield();
        }
        sub_seq(&holding, 1);
        fork_let_go();
    }
    return NULL;
}

static void look_who_holds(void)
{
    if (load_seq(&holding)) {
        store_seq(&held_beside, 1);
    }
}

static int holds_off_and_forks(void)
{
    fork_hold_off();
    fork_let_go();
    return status_of_child(all_well);
}

/* Adversary: several hold forks off again and again. A fork finds none of them, is let through, and leaves no trace. */
Test(fork, finds_nobody_of_many_who_hold_it_off)
{
    static const struct fork_hooks look = {look_who_holds, look_who_holds, NULL};
    pthread_t threads[3];

    cr_assert_eq(fork_register(&look), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, hold_again_and_again, NULL), 0);
    }
    for (int i = 0; i < 100; i++) {
        unsigned before = load_seq(&holds);
        cr_assert_eq(status_of_child(holds_off_and_forks), 0, "child %d", i);
        while (load_seq(&holds) == before) { /* nobody who waited sleeps for good */
            sched_yield();
        }
    }
    store_seq(&holds_end, 1);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(load_seq(&held_beside), 0);
}

static void hold_off_and_let_go(void)
{
    fork_hold_off();
    fork_let_go();
}

/* A user's handler may make threads through us, while this thread's fork is under way. */
Test(fork, may_be_held_off_in_a_handler)
{
    cr_assert_eq(pthread_atfork(hold_off_and_let_go, hold_off_and_let_go, hold_off_and_let_go), 0);
    cr_assert_eq(fork_install(), 0);
    cr_assert_eq(status_of_child(all_well), 0);
}

static pthread_key_t last_words;
static _Atomic int in_last_words, may_end;

static int attach_another(void)
{
    pthread_t thread;

    if (rcu_attach() || pthread_create(&thread, NULL, fork_once, NULL)) {
        return 1;
    }
    return pthread_join(thread, NULL);
}

static void linger(void *unused)
{
    (void)unused;
    store_seq(&in_last_words, 1);
    while (!load_seq(&may_end)) {
        sched_yield();
    }
}

static void *end_slowly(void *arg)
{
    (void)arg;
    pthread_setspecific(last_words, &last_words);
    (void)rcu_attach();
    rcu_thread_ends();
    return NULL;
}

/* Adversary: a destructor of thread-local data that does not return before the fork did. */
Test(fork, is_not_held_up_for_ever_by_a_thread_that_ends)
{
    pthread_t thread;

#ifdef SANITIZED
    cr_skip_test("ThreadSanitizer makes no threads in a child of a process with threads; others' locks may come held");
#endif
    cr_assert_eq(fork_install(), 0);
    cr_assert_eq(pthread_key_create(&last_words, linger), 0);
    cr_assert_eq(pthread_create(&thread, NULL, end_slowly, NULL), 0);
    while (!load_seq(&in_last_words)) {
        sched_yield();
    }
    cr_assert_eq(status_of_child(attach_another), 0);
    store_seq(&may_end, 1);
    pthread_join(thread, NULL);
    cr_assert_eq(status_of_child(attach_another), 0);
}

static _Atomic int status_at_the_end;

static void fork_at_the_end(void *unused)
{
    int status = -1;
    pid_t pid = fork();

    (void)unused;
    if (pid == 0) {
        _exit(attach_another());
    }
    waitpid(pid, &status, 0);
    store_seq(&status_at_the_end, status);
}

Test(fork, works_in_a_thread_that_ends)
{
    pthread_t thread;

#ifdef SANITIZED
    cr_skip_test("ThreadSanitizer makes no threads in a child of a process with threads; others' locks may come held");
#endif
    store_seq(&status_at_the_end, -1);
    cr_assert_eq(fork_install(), 0);
    cr_assert_eq(pthread_key_create(&last_words, fork_at_the_end), 0);
    cr_assert_eq(pthread_create(&thread, NULL, end_slowly, NULL), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(load_seq(&status_at_the_end), 0);
}
