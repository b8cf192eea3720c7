/*
 * System calls that are not made: futures and completions cost none while nobody sleeps.
 *
 * A seccomp filter over the test's thread and those that it makes raises SIGSYS for the futex calls of the library,
 * which all go through libc's syscall(); the handler counts, then makes the call itself, by an instruction elsewhere.
 * So the counts are the kernel's own, of every thread, and the program runs as it would. libc's own locks are left
 * alone: it may wait for one while it has all signals blocked.
 */
#include "pool/life.h"

#include <ringpool/completion.h>
#include <ringpool/context.h>
#include <ringpool/future.h>
#include <ringpool/multi.h>

#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

enum { TASKS = 1000, SYSCALL_BYTES = 64 };

#if defined(__x86_64__)
#define COUNTED true
#else
#define COUNTED false
#endif

static _Atomic uint32_t calls_made;
static _Thread_local volatile uint32_t calls_here; /* by this thread */

#if COUNTED
long calls_raw(long number, long a, long b, long c, long d, long e, long f);
__asm__(".pushsection .text\n"
        "calls_raw:\n"
        "  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n  mov %r8, %r10\n  mov %r9, %r8\n"
        "  mov 8(%rsp), %r9\n"
        "  syscall\n"
        "  ret\n"
        ".popsection\n");

static void on_call(int signal, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)signal;
    add_seq(&calls_made, 1);
    calls_here = calls_here + 1;
    r[REG_RAX] = calls_raw(info->si_syscall, r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]);
}

static int filter_set(void)
{
    uint64_t from = (uintptr_t)dlsym(RTLD_DEFAULT, "syscall");
    uint32_t low = (uint32_t)from, high = (uint32_t)(from >> 32);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 449, 0, 5), /* futex_waitv */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, low, 0, 1),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, low + SYSCALL_BYTES, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};

    if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -errno;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}
#else
static int filter_set(void)
{
    return -ENOSYS;
}
#endif

/* From here on calls of this thread and of those made by it are counted; skips the test where that cannot be. */
static void count_calls(void)
{
    /* NOLINTNEXTLINE(misc-redundant-expression): the same only without any */
    if (!COUNTED || UNDER_TSAN || UNDER_ASAN || UNDER_MEMCHECK)
        cr_skip_test("calls are counted on x86-64 without a sanitizer");
    cr_assert_eq(filter_set(), 0);
    uint32_t before = load_seq(&calls_made);
    _Atomic uint32_t word = 0;
    futex_wake(&word, 1);
    cr_assert_eq(load_seq(&calls_made), before + 1, "a call that is made is counted");
}

/* Memory of which malloc's own locks know nothing. */
static char arena[16 << 20];
static _Atomic uint64_t arena_used;

static void *arena_calloc(void *user, size_t n, size_t size)
{
    uint64_t bytes = (n * size + 63) / 64 * 64, at = add_seq(&arena_used, bytes);

    (void)user;
    return at + bytes <= sizeof(arena) ? arena + at : NULL;
}

static void *arena_malloc(void *user, size_t size)
{
    return arena_calloc(user, 1, size);
}

static void arena_free(void *user, void *p)
{
    (void)user;
    (void)p;
}

static const struct rp_allocator arena_allocator = {arena_malloc, arena_calloc, arena_free, NULL};

/* A pool of one worker that is awake, and stays so until it is let go. */
struct spinner {
    struct rp_pool *pool;
    _Atomic uint32_t inside, go;
};

static void spin(void *arg)
{
    struct spinner *spinner = arg;

    store_seq(&spinner->inside, 1);
    while (!load_seq(&spinner->go))
        cpu_relax();
}

static void spinner_make(struct spinner *spinner)
{
    *spinner = (struct spinner){0};
    spinner->pool =
        pool_make(1, &(struct rp_pool_options){
                         .queue_depth = 2 * TASKS, .allocator = &arena_allocator, .no_purge = true, .prealloc = true});
    cr_assert_eq(rp_pool_submit(spinner->pool, spin, spinner), 0);
    AWAIT(load_seq(&spinner->inside));
}

static int seven(void *arg, void **value)
{
    *value = arg;
    return 7;
}

static int goes_on(void *arg, int result, void *value, void **next_value)
{
    (void)arg;
    *next_value = value;
    return result;
}

/* The worker's way to sleep once it has run out of tasks is one call, and who looks late sees it. */
#define PARKED 1

/*
 * Adversary: none. Holds: submit, cancel, run in place, then, get, wait_any, wait_all and destroy of futures make no
 * call while the worker is busy, nor does the worker that runs a thousand of them while nobody waits.
 */
Test(calls, futures_make_none_while_nobody_sleeps)
{
    static struct rp_future *future[TASKS], *next[TASKS];
    struct spinner spinner;

    count_calls();
    spinner_make(&spinner);
    uint32_t before = load_seq(&calls_made);
    for (int i = 0; i < TASKS; i++) {
        cr_assert_eq(rp_pool_submit_future(spinner.pool, seven, &spinner, &future[i]), 0);
        cr_assert_eq(rp_future_then(future[i], NULL, goes_on, NULL, &next[i]), 0);
        if (i % 10 == 3)
            cr_assert_eq(rp_future_cancel(future[i]), 0);
        if (i % 10 == 7)
            cr_assert_eq(rp_future_run(future[i]), 0);
    }
    cr_assert_eq(load_seq(&calls_made) - before, 0, "%u by the submitter", load_seq(&calls_made) - before);
    store_seq(&spinner.go, 1);
    for (int i = 0; i < TASKS; i++) {
        while (!rp_future_done(next[i]))
            cpu_relax();
        cr_assert_eq(rp_future_get(future[i], NULL), i % 10 == 3 ? -ECANCELED : 7);
        cr_assert_eq(rp_future_get(next[i], NULL), i % 10 == 3 ? -ECANCELED : 7);
    }
    cr_assert_eq(rp_future_wait_all(next, TASKS, 0), 0);
    cr_assert_eq(rp_future_wait_any(next, TASKS, 0), 0);
    for (int i = 0; i < TASKS; i++) {
        rp_future_destroy(future[i]);
        rp_future_destroy(next[i]);
    }
    cr_assert_leq(load_seq(&calls_made) - before, PARKED, "%u in all", load_seq(&calls_made) - before);
    pool_end(spinner.pool);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* Holds: a thousand completions into a consumer that is awake cost no call. */
Test(calls, completions_make_none_while_the_consumer_is_awake)
{
    struct rp_completion out[64];
    struct spinner spinner;
    struct rp_cq *cq;
    int taken = 0;

    count_calls();
    spinner_make(&spinner);
    cr_assert_eq(rp_cq_create(&cq, &(struct rp_cq_options){.entries = 8, .allocator = &arena_allocator}), 0);
    uint32_t before = load_seq(&calls_made);
    for (int i = 0; i < TASKS; i++)
        cr_assert_eq(rp_pool_submit_task(spinner.pool, &(struct rp_task){.fn = nothing, .cq = cq}), 0);
    store_seq(&spinner.go, 1);
    while (taken < TASKS) {
        int n = rp_cq_wait(cq, out, 64, 0, 0);
        cr_assert_geq(n, 0);
        taken += n;
    }
    cr_assert_leq(load_seq(&calls_made) - before, PARKED, "%u in all", load_seq(&calls_made) - before);
    cr_assert_eq(rp_cq_destroy(cq), 0);
    pool_end(spinner.pool);
}

/*
 * Adversary: eight workers sleep, and every one has something to do. Holds: the submitter of a batch decides once whom
 * to wake; the others are called by those that wake.
 */
Test(calls, a_batch_is_one_wake_up_decision)
{
    enum { BATCH = 64, ROUNDS = 50 };
    struct rp_task tasks[BATCH];
    static _Atomic uint32_t ran;
    uint32_t rounds_with_a_call = 0;

    count_calls();
    struct rp_pool *pool =
        pool_make(8, &(struct rp_pool_options){
                         .queue_depth = BATCH, .allocator = &arena_allocator, .no_purge = true, .prealloc = true});
    for (int i = 0; i < BATCH; i++)
        tasks[i] = (struct rp_task){.fn = count_task, .arg = (void *)&ran};
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        nap(2 * MS); /* most likely they sleep then; if not, there is less to call */
        uint32_t before = calls_here;
        cr_assert_eq(rp_pool_submit_batch(pool, tasks, BATCH), BATCH);
        cr_assert_leq(calls_here - before, 1, "%u calls", calls_here - before);
        rounds_with_a_call += calls_here != before;
        AWAIT(load_seq(&ran) == round * BATCH);
    }
    cr_log_info("%u of %d batches met sleepers", rounds_with_a_call, ROUNDS);
    pool_end(pool);
}

/* Holds: a submit that finds no room and may not wait makes no call, nor does one that takes the long way to it. */
Test(calls, a_full_multi_pool_refuses_without_one)
{
    struct rp_pool_options options = {.allocator = &arena_allocator, .no_purge = true, .prealloc = true};
    struct spinner spinner = {0};
    struct rp_multi *multi;

    count_calls();
    cr_assert_eq(rp_multi_create(&multi, 1, 1, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &options}), 0);
    cr_assert_eq(rp_multi_submit(multi, spin, &spinner), 0);
    AWAIT(load_seq(&spinner.inside));
    uint32_t before = load_seq(&calls_made);
    for (int i = 0; i < TASKS; i++)
        cr_assert_eq(rp_multi_try_submit(multi, nothing, NULL), -EAGAIN);
    cr_assert_eq(load_seq(&calls_made) - before, 0, "%u calls", load_seq(&calls_made) - before);
    store_seq(&spinner.go, 1);
    cr_assert_eq(rp_multi_destroy(multi), 0);
}

static int open_by_gate(void *arg, void **value)
{
    (void)value;
    gate_pass(arg);
    return 7;
}

static int call_get(struct rp_pool *pool, void *arg)
{
    (void)pool;
    return rp_future_get(arg, NULL);
}

/* The other side: a wake-up that is owed is made, so that the counts above are no accident of a blind counter. */
Test(calls, one_who_sleeps_is_woken_by_a_call)
{
    struct gate gate = {0};
    struct rp_future *future;
    struct caller caller;

    count_calls();
    struct rp_pool *pool = pool_make(1, NULL);
    uint32_t before = load_seq(&calls_made);
    cr_assert_eq(rp_pool_submit_future(pool, open_by_gate, &gate, &future), 0);
    caller_start(&caller, pool, call_get, future);
    AWAIT(load_seq(&gate.inside));
    nap(5 * MS); /* so that it sleeps, most likely; if not, the calls of the gate are there */
    gate_open(&gate);
    cr_assert_eq(caller_end(&caller), 7);
    cr_assert_geq(load_seq(&calls_made) - before, 2);
    rp_future_destroy(future);
    pool_end(pool);
}
