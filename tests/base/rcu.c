/*
 * RCU: a wait outlasts the sections that it must, also those of threads that are not registered; and a registration
 * that cannot be had ends nothing.
 */
#include "base/rcu.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <ringpool/base.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <urcu/urcu-bp.h>

/* ThreadSanitizer maps memory of its own at every step, which a limit would forbid it, and takes long for all else. */
#ifdef RCU_TSAN
#define BUT_FOR_TSAN .disabled = true
#else
#define BUT_FOR_TSAN .disabled = false
#endif

/* A reader that stays in its section until the waiter is under way. */
static _Atomic bool inside, waiter_started, leaving;
static _Atomic int failures;

/* Until it is registered: a call gives up where others' registrations take too long, or a fork is under way. */
static void attach_surely(void)
{
    while (!rcu_attached()) {
        if (rcu_attach()) {
            add_seq(&failures, 1);
            return;
        }
        sched_yield();
    }
}

struct visit {
    int depth;
    bool registered;
};

static void *read_for_a_while(void *arg)
{
    const struct visit *visit = arg;

    if (visit->registered) {
        attach_surely();
    }
    for (int i = 0; i < visit->depth; i++) {
        rcu_enter();
    }
    store_seq(&inside, true);
    for (int i = 1; i < visit->depth; i++) {
        rcu_exit();
    }
    while (!load_seq(&waiter_started)) {
        sched_yield();
    }
    for (int i = 0; i < 100; i++) { /* a wait that does not wait gets its chance to return */
        sched_yield();
    }
    if (!rcu_inside()) {
        add_seq(&failures, 1);
    }
    store_seq(&leaving, true);
    rcu_exit();
    if (rcu_inside() || rcu_attached() != visit->registered) {
        add_seq(&failures, 1);
    }
    return NULL;
}

static void wait_for_a_reader(int depth, bool registered)
{
    struct visit visit = {depth, registered};
    pthread_t reader;

    cr_assert_eq(rcu_attach(), 0);
    cr_assert_eq(pthread_create(&reader, NULL, read_for_a_while, &visit), 0);
    while (!load_seq(&inside)) {
        sched_yield();
    }
    store_seq(&waiter_started, true);
    rcu_wait();
    cr_assert(load_seq(&leaving));
    pthread_join(reader, NULL);
    cr_assert_eq(load_seq(&failures), 0);
}

Test(rcu, wait_outlasts_a_section_that_began_before)
{
    wait_for_a_reader(1, true);
}

Test(rcu, only_the_outermost_exit_ends_a_section)
{
    wait_for_a_reader(3, true);
}

Test(rcu, wait_outlasts_the_section_of_a_thread_that_is_not_registered)
{
    wait_for_a_reader(1, false);
}

Test(rcu, only_the_outermost_exit_ends_it)
{
    wait_for_a_reader(3, false);
}

Test(rcu, attach_in_the_section_of_a_thread_that_is_not_registered_waits_for_its_end)
{
    rcu_enter();
    cr_assert_eq(rcu_attach(), 0);
    cr_assert_not(rcu_attached());
    cr_assert(rcu_inside());
    rcu_exit();
    cr_assert_not(rcu_inside());
    rcu_wait();
    cr_assert_eq(rcu_attach(), 0);
    cr_assert(rcu_attached());
}

/* Each enters a section once more before the other may leave its own: there is no moment without a reader. */
static _Atomic unsigned entered[2];
static _Atomic bool relay_over;

static void *relay(void *arg)
{
    const unsigned me = *(unsigned *)arg;

    while (!load_seq(&relay_over)) {
        rcu_enter();
        unsigned round = add_seq(&entered[me], 1) + 1;
        while (load_seq(&entered[!me]) < round + me && !load_seq(&relay_over)) {
            sched_yield();
        }
        rcu_exit();
    }
    return NULL;
}

Test(rcu, a_wait_ends_though_there_is_always_a_reader_that_is_not_registered)
{
    unsigned both[] = {0, 1};
    pthread_t readers[2];

    cr_assert_eq(rcu_attach(), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&readers[i], NULL, relay, &both[i]), 0);
    }
    for (int i = 0; i < 200; i++) {
        unsigned before = load_seq(&entered[0]);
        rcu_wait();
        while (i % 10 == 0 && load_seq(&entered[0]) == before) { /* they are under way */
            sched_yield();
        }
    }
    store_seq(&relay_over, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(readers[i], NULL);
    }
}

static void *stay_inside(void *arg)
{
    rcu_enter();
    sem_post(&((sem_t *)arg)[0]);
    sem_wait(&((sem_t *)arg)[1]);
    rcu_exit();
    return NULL;
}

Test(rcu, a_child_does_not_wait_for_readers_that_it_does_not_have)
{
    sem_t told[2];
    pthread_t reader;
    int status;

    cr_assert_eq(rcu_attach(), 0);
    sem_init(&told[0], 0, 0);
    sem_init(&told[1], 0, 0);
    cr_assert_eq(pthread_create(&reader, NULL, stay_inside, told), 0);
    sem_wait(&told[0]);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        rcu_wait();
        rcu_enter();
        rcu_exit();
        rcu_wait();
        _exit(7);
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    sem_post(&told[1]);
    pthread_join(reader, NULL);
    rcu_wait();
}

Test(rcu, attach_may_be_repeated_and_wait_needs_no_reader)
{
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(rcu_attach(), 0);
        rcu_wait();
    }
}

/* Adversary: a fork whose handlers wait for a thread that calls us for the first time. */
static pthread_t first_caller;
static _Atomic int called_in_fork;

static void *call_first(void *arg)
{
    (void)arg;
    if (rcu_attach()) {
        add_seq(&failures, 1);
    }
    rcu_enter();
    rcu_exit();
    add_seq(&called_in_fork, 1);
    return NULL;
}

static void wait_for_first_caller(void)
{
    if (pthread_create(&first_caller, NULL, call_first, NULL) || pthread_join(first_caller, NULL)) {
        add_seq(&failures, 1);
    }
}

Test(rcu, a_handler_of_a_fork_may_wait_for_a_thread_that_calls_for_the_first_time)
{
    int status;

    cr_assert_eq(pthread_atfork(wait_for_first_caller, NULL, NULL), 0); /* before ours, hence prepared after it */
    cr_assert_eq(rcu_attach(), 0);
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(load_seq(&called_in_fork), 1);
    cr_assert_eq(load_seq(&failures), 0);
}

/*
 * Adversary: threads that begin together, so that many meet another's registration. With one try alone one in ten is
 * left out; none gives up before 10 ms have passed.
 */
enum { CROWD = 400 };
static pthread_barrier_t crowd;
static _Atomic int gave_up;

static void *join_crowd(void *arg)
{
    (void)arg;
    pthread_barrier_wait(&crowd);
    int64_t begun = rp_now();
    if (rcu_attach()) {
        add_seq(&failures, 1);
    }
    if (!rcu_attached() && rp_now() - begun < 10000000) {
        add_seq(&gave_up, 1);
    }
    pthread_barrier_wait(&crowd); /* until then each keeps its place */
    return NULL;
}

Test(rcu, threads_that_begin_together_are_registered)
{
    pthread_t threads[CROWD];

    urcu_bp_register_thread(); /* as a stranger, so that each registration has to try for memory, which takes longer */
    cr_assert_eq(pthread_barrier_init(&crowd, NULL, CROWD), 0);
    for (int i = 0; i < CROWD; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, join_crowd, NULL), 0);
    }
    for (int i = 0; i < CROWD; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    pthread_barrier_destroy(&crowd);
    cr_assert_eq(load_seq(&failures), 0);
    cr_assert_eq(load_seq(&gave_up), 0, "%d", load_seq(&gave_up));
}

/* Adversary: a writer that frees what it replaced. A stale read shows as a poisoned value (and to ASan as a use after
 * free). What holds: the reader's section spans load and use, and rcu_wait stands between unlink and free. */
struct boxed {
    int value;
};

static struct boxed *_Atomic published;
static _Atomic bool stop;

static void *read_published(void *registered)
{
    if (registered) {
        attach_surely();
    }
    while (!load_seq(&stop)) {
        rcu_enter();
        if (load_acquire(&published)->value != 7) {
            add_seq(&failures, 1);
        }
        rcu_exit();
    }
    return NULL;
}

Test(rcu, what_is_freed_after_a_wait_has_no_reader_left)
{
    pthread_t readers[3];
    struct boxed *box = malloc(sizeof(*box));

    box->value = 7;
    store_seq(&published, box);
    cr_assert_eq(rcu_attach(), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&readers[i], NULL, read_published, i ? &stop : NULL), 0);
    }
    for (int i = 0; i < 200; i++) {
        box = malloc(sizeof(*box));
        box->value = 7;
        box = exchange_acq_rel(&published, box);
        rcu_wait();
        box->value = -1;
        free(box);
    }
    store_seq(&stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(readers[i], NULL);
    }
    free(load_seq(&published));
    cr_assert_eq(load_seq(&failures), 0);
}

/* Enough threads that bp's arena, which starts with room for eight, must grow several times. */
enum { MANY = 300, STACK = 256 * 1024 };

static pthread_barrier_t before_attach, after_attach, finish;
static _Atomic int unregistered, attached;

static void *attach_twice(void *arg)
{
    (void)arg;
    pthread_barrier_wait(&before_attach); /* the thread has all the memory that it takes to start */
    pthread_barrier_wait(&before_attach);
    if (rcu_attach()) {
        add_seq(&failures, 1);
    }
    add_seq(rcu_attached() ? &attached : &unregistered, 1);
    rcu_enter();
    pthread_barrier_wait(&after_attach);
    pthread_barrier_wait(&after_attach);
    rcu_exit();
    attach_surely();
    rcu_enter();
    rcu_exit();
    pthread_barrier_wait(&finish);
    return NULL;
}

/*
 * MANY threads ask to be attached while there is no address space, and again when there is, in a section in between.
 * How many were not registered at first.
 */
static int crowd_without_memory(void)
{
    pthread_t threads[MANY];
    pthread_attr_t attr;
    struct rlimit before, none;

    pthread_barrier_init(&before_attach, NULL, MANY + 1);
    pthread_barrier_init(&after_attach, NULL, MANY + 1);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(pthread_create(&threads[i], &attr, attach_twice, NULL), 0);
    }
    pthread_barrier_wait(&before_attach);
    getrlimit(RLIMIT_AS, &before);
    none = before;
    none.rlim_cur = 4096;
    setrlimit(RLIMIT_AS, &none);
    pthread_barrier_wait(&before_attach);
    pthread_barrier_wait(&after_attach);
    setrlimit(RLIMIT_AS, &before);
    pthread_barrier_wait(&after_attach);
    rcu_wait(); /* walks a registry that grows meanwhile */
    pthread_barrier_wait(&finish);
    for (int i = 0; i < MANY; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(load_seq(&attached) + load_seq(&unregistered), MANY);
    cr_assert_eq(load_seq(&failures), 0);
    return load_seq(&unregistered);
}

Test(rcu, without_address_space_a_thread_reads_unregistered_until_there_is_some, BUT_FOR_TSAN)
{
    cr_assert_eq(rcu_attach(), 0); /* so that the arena exists, and is full after seven more */
    pthread_barrier_init(&finish, NULL, MANY + 1);
    cr_assert_eq(crowd_without_memory(), MANY);
    rcu_wait();
}

enum { BEFORE = 40 }; /* with so many the arena has grown to room for some more */
static pthread_barrier_t settled;

static void *attach_and_stay(void *arg)
{
    (void)arg;
    attach_surely();
    pthread_barrier_wait(&settled);
    pthread_barrier_wait(&finish);
    return NULL;
}

/*
 * The adversary: one registration too many that is made without a trial, as the arena is thought to have room: it
 * aborts.
 */
Test(rcu, without_address_space_the_free_slots_of_the_registry_are_given_and_no_more, BUT_FOR_TSAN)
{
    pthread_t before[BEFORE];
    pthread_attr_t attr;

    cr_assert_eq(rcu_attach(), 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_barrier_init(&settled, NULL, BEFORE + 1);
    pthread_barrier_init(&finish, NULL, MANY + BEFORE + 1);
    for (int i = 0; i < BEFORE; i++) {
        cr_assert_eq(pthread_create(&before[i], &attr, attach_and_stay, NULL), 0);
    }
    pthread_barrier_wait(&settled);
    int left_of_many = crowd_without_memory();
    cr_assert_gt(left_of_many, 0);
/* valgrind puts a new chunk right behind the last, where it cannot be told from it: no slot is known to be free. */
#ifndef RP_VALGRIND
    cr_assert_lt(left_of_many, MANY);
#endif
    for (int i = 0; i < BEFORE; i++) {
        pthread_join(before[i], NULL);
    }
}

struct other {
    bool stranger;
    sem_t *end, ready;
    uintptr_t slot;
};

static void *register_and_stay(void *arg)
{
    struct other *me = arg;
    sem_t *end = me->end;

    if (me->stranger)
        urcu_bp_register_thread();
    else
        attach_surely();
    me->slot = (uintptr_t)URCU_TLS(urcu_bp_reader);
    sem_post(&me->ready);
    sem_wait(end);
    return NULL;
}

/* A thread that is registered, by us or by itself, and stays: where its slot stands. */
static uintptr_t slot_of_another(bool stranger, sem_t *end, pthread_t *thread)
{
    struct other other = {.stranger = stranger, .end = end};
    pthread_attr_t attr;

    sem_init(&other.ready, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    cr_assert_eq(pthread_create(thread, &attr, register_and_stay, &other), 0);
    sem_wait(&other.ready);
    return other.slot;
}

/*
 * Adversary: a thread that registers by itself has the slot before one that begins a page, as a chunk's first one does.
 * That next slot is given to us, and must not pass for a new chunk full of free ones.
 */
Test(rcu, a_slot_after_a_strangers_is_not_taken_for_a_new_chunk, BUT_FOR_TSAN)
{
    enum { OTHERS = 200, ENOUGH = 125 };
    const uintptr_t size = sizeof(struct urcu_bp_reader), page = 4096;
    pthread_t threads[OTHERS];
    uintptr_t slot, first;
    sem_t end;
    int n = 0;

    cr_assert_eq(rcu_attach(), 0);
    first = (uintptr_t)URCU_TLS(urcu_bp_reader) % page;
    sem_init(&end, 0, 0);
    do {
        cr_assert_lt(n, OTHERS - 2);
        slot = slot_of_another(false, &end, &threads[n]);
        n++;
    } while (n < ENOUGH || (slot + 2 * size) % page != first);
    cr_assert_eq(slot_of_another(true, &end, &threads[n++]), slot + size);
    cr_assert_eq(slot_of_another(false, &end, &threads[n++]), slot + 2 * size);
    pthread_barrier_init(&finish, NULL, MANY + 1);
    cr_assert_gt(crowd_without_memory(), 0);
    for (int i = 0; i < n; i++)
        sem_post(&end);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static pthread_key_t late_key;
static _Atomic int late_rounds;

/* Runs in a second round of destructors, when bp has unregistered the thread in the first. */
static void attach_late(void *value)
{
    if (add_seq(&late_rounds, 1) == 0) {
        pthread_setspecific(late_key, value);
        return;
    }
    if (rcu_attach()) {
        add_seq(&failures, 1);
        return;
    }
    rcu_enter();
    rcu_exit();
}

static void *attach_early(void *arg)
{
    if (rcu_attach()) {
        add_seq(&failures, 1);
    }
    pthread_setspecific(late_key, arg);
    return NULL;
}

Test(rcu, a_thread_may_attach_again_from_its_last_destructors)
{
    pthread_t thread;

    cr_assert_eq(rcu_attach(), 0);
    cr_assert_eq(pthread_key_create(&late_key, attach_late), 0);
    cr_assert_eq(pthread_create(&thread, NULL, attach_early, &late_key), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(load_seq(&late_rounds), 2);
    cr_assert_eq(load_seq(&failures), 0);
    rcu_wait();
}

static void *read_once(void *arg)
{
    (void)arg;
    if (rcu_attach()) {
        add_seq(&failures, 1);
        return NULL;
    }
    rcu_enter();
    rcu_exit();
    return NULL;
}

Test(rcu, ended_threads_are_not_waited_for)
{
    cr_assert_eq(rcu_attach(), 0);
    for (int i = 0; i < 200; i++) {
        pthread_t thread;

        cr_assert_eq(pthread_create(&thread, NULL, read_once, NULL), 0);
        pthread_join(thread, NULL);
    }
    rcu_wait();
    cr_assert_eq(load_seq(&failures), 0);
}

static _Atomic int errno_after;

static void *attach_with_errno(void *arg)
{
    (void)arg;
    errno = ENOTTY;
    (void)rcu_attach();
    rcu_wait();
    store_seq(&errno_after, errno);
    return NULL;
}

Test(rcu, leaves_errno_alone)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, attach_with_errno, NULL), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(load_seq(&errno_after), ENOTTY);
}
