/*
 * Contained signals: the task's own fault ends the task, everything else goes where it went before.
 */
#include "life.h"

#include <signal.h>
#include <sys/mman.h>

/* A sanitizer takes these signals itself, or the jump out of their handler for a mistake, and memcheck the fault. */
#define NEEDS_PLAIN_BUILD()                                                                                            \
    do {                                                                                                               \
        if (UNDER_ASAN || UNDER_TSAN || UNDER_MEMCHECK)                                                                \
            cr_skip_test("faults on purpose are the sanitizer's");                                                     \
    } while (0)

struct fault {
    _Atomic uint32_t panics;
    int signal, nframes;
    char reason[256], label[32];
};

static void note_fault(void *user, const struct rp_panic_info *info)
{
    struct fault *fault = user;

    fault->signal = info->signal;
    fault->nframes = info->nframes;
    snprintf(fault->reason, sizeof(fault->reason), "%s", info->reason);
    snprintf(fault->label, sizeof(fault->label), "%s", info->label ? info->label : "");
    add_seq(&fault->panics, 1);
}

static struct rp_pool *pool_containing(struct fault *fault)
{
    struct rp_pool_options options = {
        .contain_signals = true, .on_panic = note_fault, .panic_user = fault, .no_purge = true};

    return pool_make(1, &options);
}

/* --- faults ----------------------------------------------------------------------------------------------------- */

/* The address passes through memory, where the compiler cannot see that it is none. */
static void touch(void *address)
{
    volatile char *volatile target = address;

    *target = 1;
}

static void divide(void *arg)
{
#if defined(__x86_64__) || defined(__i386__)
    int zero = arg != NULL, one = 1, high = 0;
    __asm__ volatile("idivl %2" : "+a"(one), "+d"(high) : "r"(zero) : "cc");
#else
    (void)arg;
    rp_panic("this machine's division does not trap");
#endif
}

static void illegal(void *arg)
{
    (void)arg;
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("ud2");
#else
    __builtin_trap();
#endif
}

static void beyond_the_file(void *arg)
{
    FILE *file = tmpfile();
    char *map = file ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0) : MAP_FAILED;

    (void)arg;
    if (file)
        fclose(file);
    if (map == MAP_FAILED)
        rp_panic("no file to map");
    touch(map);
}

static unsigned (*volatile deeper)(unsigned, volatile char *);

static unsigned recurse(unsigned depth, volatile char *above)
{
    volatile char frame[512];

    if (above)
        frame[0] = above[0];
    frame[depth % sizeof(frame)] = 1;
    return deeper(depth + 1, frame) + (unsigned)frame[depth % sizeof(frame)];
}

static void overflow(void *arg)
{
    (void)arg;
    deeper = recurse;
    recurse(0, NULL);
}

/* The fault is told as what it is, and the only worker goes on. */
static void assert_contained(void (*fn)(void *), void *arg, int signal, const char *name)
{
    struct fault fault = {0};
    struct rp_pool *pool = pool_containing(&fault);
    struct rp_task task = {.fn = fn, .arg = arg, .label = "faulty"};
    _Atomic uint32_t ran = 0;

    for (uint32_t round = 1; round <= 3; round++) {
        cr_assert_eq(rp_pool_submit_task(pool, &task), 0);
        AWAIT(load_seq(&fault.panics) == round);
        cr_assert_eq(fault.signal, signal, "signal %d: %s", fault.signal, fault.reason);
        cr_assert_eq(strncmp(fault.reason, name, strlen(name)), 0, "%s", fault.reason);
        cr_assert_not_null(strstr(fault.reason, " at 0x"), "%s", fault.reason);
        cr_assert_str_eq(fault.label, "faulty");
        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
        AWAIT(load_seq(&ran) == round);
    }
    cr_assert_eq(rp_pool_release_until(pool, rp_after(PATIENCE), NULL), 0);
    struct rp_pool_snapshot seen = pool_look(pool);
    cr_assert_eq(seen.panicked, 3);
    cr_assert_eq(seen.completed, 3);
    cr_assert_eq(seen.spawned, 1);
    cr_assert_eq(rp_pool_destroy(pool), 0);
}

Test(pool_contain, a_wild_write_ends_the_task_alone)
{
    NEEDS_PLAIN_BUILD();
    assert_contained(touch, (void *)(uintptr_t)0x10, SIGSEGV, "SIGSEGV");
}

Test(pool_contain, an_address_that_cannot_be_ends_the_task_alone)
{
    NEEDS_PLAIN_BUILD();
    assert_contained(touch, (void *)(uintptr_t)0x8000123412341234, SIGSEGV, "SIGSEGV");
}

Test(pool_contain, a_division_by_zero_ends_the_task_alone)
{
    NEEDS_PLAIN_BUILD();
#if !defined(__x86_64__) && !defined(__i386__)
    cr_skip_test("division does not trap here");
#endif
    assert_contained(divide, NULL, SIGFPE, "SIGFPE");
}

Test(pool_contain, an_illegal_instruction_ends_the_task_alone)
{
    NEEDS_PLAIN_BUILD();
    assert_contained(illegal, NULL, SIGILL, "SIGILL");
}

Test(pool_contain, a_page_beyond_its_file_ends_the_task_alone)
{
    NEEDS_PLAIN_BUILD();
    assert_contained(beyond_the_file, NULL, SIGBUS, "SIGBUS");
}

Test(pool_contain, a_stack_overflow_meets_the_guard_page)
{
    NEEDS_PLAIN_BUILD();
    assert_contained(overflow, NULL, SIGSEGV, "SIGSEGV");
}

static void fault_behind_gate(void *arg)
{
    gate_pass(arg);
    touch((void *)(uintptr_t)0x10);
}

Test(pool_contain, many_faults_at_once_leave_a_pool_that_works)
{
    NEEDS_PLAIN_BUILD();
    struct fault fault = {0};
    struct rp_pool_options options = {.contain_signals = true, .on_panic = note_fault, .panic_user = &fault};
    struct rp_pool *pool = pool_make(16, &options);
    struct gate gate = {0};
    _Atomic uint32_t ran = 0;

    for (int i = 0; i < 16; i++)
        cr_assert_eq(rp_pool_submit(pool, fault_behind_gate, &gate), 0);
    AWAIT(load_seq(&gate.inside) == 16);
    gate_open(&gate);
    AWAIT(load_seq(&fault.panics) == 16);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(rp_pool_submit(pool, count_task, &ran), 0);
    AWAIT(load_seq(&ran) == 100);
    pool_end(pool);
}

struct nest {
    struct rp_pool *pool;
    _Atomic uint32_t went_on;
};

static void run_a_fault_inside(void *arg)
{
    struct nest *nest = arg;

    rp_pool_try_submit(nest->pool, touch, (void *)(uintptr_t)0x10);
    rp_pool_release_until(nest->pool, 0, NULL); /* runs it here: this is the only worker */
    add_seq(&nest->went_on, 1);
}

Test(pool_contain, a_fault_in_a_helped_task_leaves_the_helper_alone)
{
    NEEDS_PLAIN_BUILD();
    struct fault fault = {0};
    struct rp_pool_options options = {
        .contain_signals = true, .on_panic = note_fault, .panic_user = &fault, .queue_depth = 2};
    struct nest nest = {.pool = pool_make(1, &options)};

    cr_assert_eq(rp_pool_submit(nest.pool, run_a_fault_inside, &nest), 0);
    AWAIT(load_seq(&nest.went_on) == 1);
    cr_assert_eq(load_seq(&fault.panics), 1);
    pool_end(nest.pool);
}

/* --- what is not the task's fault ------------------------------------------------------------------------------- */

static _Atomic uint32_t handled;
static _Atomic uint32_t handled_signal;

static void earlier_handler(int signal, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    store_seq(&handled_signal, (uint32_t)signal);
    add_seq(&handled, 1);
}

static void install_earlier(int signal)
{
    struct sigaction action = {.sa_sigaction = earlier_handler, .sa_flags = SA_SIGINFO};

    cr_assert_eq(sigaction(signal, &action, NULL), 0);
}

static void raise_signal(void *arg)
{
    struct nest *nest = arg;

    raise(SIGSEGV);
    add_seq(&nest->went_on, 1);
}

Test(pool_contain, signals_that_are_sent_go_to_the_handler_that_was_there)
{
    NEEDS_PLAIN_BUILD();
    struct fault fault = {0};
    install_earlier(SIGSEGV);
    install_earlier(SIGFPE);
    struct nest nest = {.pool = pool_containing(&fault)};

    cr_assert_eq(kill(getpid(), SIGSEGV), 0);
    AWAIT(load_seq(&handled) == 1);
    cr_assert_eq(raise(SIGFPE), 0);
    AWAIT(load_seq(&handled) == 2);
    cr_assert_eq(load_seq(&handled_signal), SIGFPE);
    cr_assert_eq(rp_pool_submit(nest.pool, raise_signal, &nest), 0);
    AWAIT(load_seq(&nest.went_on) == 1);
    cr_assert_eq(load_seq(&handled), 3, "raise in a task is a signal sent");
    cr_assert_eq(load_seq(&fault.panics), 0);
    pool_end(nest.pool);
}

static void plain_handler(int signal)
{
    store_seq(&handled_signal, (uint32_t)signal);
    add_seq(&handled, 1);
}

Test(pool_contain, a_handler_without_siginfo_is_chained_as_well)
{
    NEEDS_PLAIN_BUILD();
    struct fault fault = {0};
    cr_assert_neq(signal(SIGBUS, plain_handler), SIG_ERR);
    struct rp_pool *pool = pool_containing(&fault);

    cr_assert_eq(raise(SIGBUS), 0);
    AWAIT(load_seq(&handled) == 1);
    cr_assert_eq(load_seq(&handled_signal), SIGBUS);
    pool_end(pool);
}

/* Runs the task in a pool, in a child, and never sees the end of it if the signal does what it does by default. */
struct deadly {
    bool contain;   /* a pool that contains exists */
    bool elsewhere; /* but the task runs in another, which does not */
    void (*fn)(void *arg);
};

static int run_deadly(void *arg)
{
    struct deadly *deadly = arg;
    struct rp_pool_options options = {.contain_signals = deadly->contain, .log_level = RP_LOG_NONE};
    struct rp_pool *pool, *other = NULL;

    CHECK(rp_pool_create(&pool, 1, &options) == 0);
    options.contain_signals = false;
    CHECK(rp_pool_create(&other, 1, &options) == 0);
    CHECK(rp_pool_submit(deadly->elsewhere ? other : pool, deadly->fn, (void *)(uintptr_t)0x10) == 0);
    rp_pool_release_until(pool, 0, NULL);
    rp_pool_release_until(other, 0, NULL);
    return 0;
}

Test(pool_contain, is_off_by_default)
{
    NEEDS_PLAIN_BUILD();
    cr_assert_eq(in_child(run_deadly, &(struct deadly){.fn = touch}), 128 + SIGSEGV);
    cr_assert_eq(in_child(run_deadly, &(struct deadly){.fn = illegal}), 128 + SIGILL);
    cr_assert_eq(in_child(run_deadly, &(struct deadly){.contain = true, .fn = touch}), 0, "nor does it always die");
}

Test(pool_contain, is_for_the_pool_that_asked)
{
    NEEDS_PLAIN_BUILD();
    cr_assert_eq(in_child(run_deadly, &(struct deadly){.contain = true, .elsewhere = true, .fn = touch}),
                 128 + SIGSEGV);
}

static int fault_outside_of_a_task(void *arg)
{
    struct rp_pool_options options = {.contain_signals = true};
    struct rp_pool *pool;

    CHECK(rp_pool_create(&pool, 1, &options) == 0);
    touch(arg);
    return 0;
}

static void send_fatal(void *arg)
{
    (void)arg;
    raise(SIGSEGV);
}

Test(pool_contain, what_is_not_a_tasks_fault_kills_as_before)
{
    NEEDS_PLAIN_BUILD();
    cr_assert_eq(in_child(fault_outside_of_a_task, (void *)(uintptr_t)0x10), 128 + SIGSEGV);
    cr_assert_eq(in_child(run_deadly, &(struct deadly){.contain = true, .fn = send_fatal}), 128 + SIGSEGV);
}
