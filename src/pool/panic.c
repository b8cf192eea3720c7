/*
 * Tasks that do not return: panics, and signals that a task raises itself where the pool contains them.
 *
 * A frame stands on the stack of whoever runs tasks; a panic jumps to the innermost one. A worker has one frame for
 * its life, so that a task pays nothing; helping and caller-runs push one per task.
 *
 * Containment installs handlers for the four signals once per process, keeps the ones found there and passes on
 * whatever is not a contained task's own fault.
 */
#include "base/alloc.h"
#include "base/rcu.h"
#include "pool/job.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ALTERNATE_STACK 65536
#define NEST_MOST 64 /* tasks on the stack of a thread that is no worker */

static _Thread_local struct frame *current;

struct frame *frame_current(void)
{
    return current;
}

/*
 * Half of a worker's stack is for what nests, half for the innermost task, whose needs the stack was sized for. Of
 * other threads, which run tasks in their submitter's place, the stack is not known but as a rule a hundred times
 * deeper.
 */
bool frame_may_nest(void)
{
    unsigned depth = 0;

    for (const struct frame *frame = current; frame; frame = frame->outer, depth++)
        if (frame->worker) {
            const struct worker *worker = frame->worker;
            uintptr_t left = (uintptr_t)__builtin_frame_address(0) - (uintptr_t)worker->stack.base;
            return left >= worker->pool->stack_room / 2; /* or more than all, on a stack of the task's own making */
        }
    return depth < NEST_MOST;
}

void frame_push(struct frame *frame, struct pool *pool, struct worker *worker)
{
    frame->pool = pool;
    frame->worker = worker;
    frame->outer = current;
    frame->phase = FRAME_IDLE;
    frame->counted = frame->excused = false;
    frame->job = NULL;
    frame->limit = NULL;
    frame->blocking = frame->extra = 0;
    current = frame;
}

void frame_pop(struct frame *frame)
{
    current = frame->outer;
}

bool frame_inside(const struct pool *pool)
{
    for (const struct frame *frame = current; frame; frame = frame->outer)
        if (frame->pool == pool)
            return true;
    return false;
}

struct worker *worker_self(const struct pool *pool)
{
    for (const struct frame *frame = current; frame; frame = frame->outer)
        if (frame->pool == pool && frame->worker)
            return frame->worker;
    return NULL;
}

/* Whether the frame's task is one of those in flight. */
static bool frame_flies(const struct frame *frame)
{
    return frame->kind == FRAME_WORKER ? frame->phase != FRAME_IDLE : frame->counted;
}

unsigned frames_held(const struct frame *frames, const struct pool *pool)
{
    unsigned n = 0;
    bool worker = false;

    for (const struct frame *frame = frames; frame; frame = frame->outer)
        if (frame->pool == pool) {
            n += frame_flies(frame);
            worker |= frame->worker != NULL;
        }
    return !worker ? 0 : n ? n : 1; /* in a hook */
}

unsigned frame_held(const struct pool *pool)
{
    return frames_held(current, pool);
}

unsigned frame_excuse(struct pool *pool)
{
    unsigned n = 0;

    for (struct frame *frame = current; frame; frame = frame->outer)
        if (frame->pool == pool && frame_flies(frame) && !frame->excused) {
            frame->excused = true;
            n++;
        }
    return n;
}

void frame_unexcuse(struct pool *pool, unsigned n)
{
    for (struct frame *frame = current; n; frame = frame->outer)
        if (frame->pool == pool && frame->excused) {
            frame->excused = false;
            n--;
        }
}

void frame_drop(struct pool *pool, const struct entry *entry, int reason, bool flight)
{
    struct frame frame;

    if (!entry->dropped)
        return;
    frame_push(&frame, pool, NULL);
    frame.kind = FRAME_DROP;
    frame.counted = flight;
    frame.label = entry->label;
    entry->dropped(entry->arg, reason);
    frame_pop(&frame);
}

/* --- landing ---------------------------------------------------------------------------------------------------- */

static void report_default(struct pool *pool, const struct rp_panic_info *info)
{
    char trace[768];
    size_t used = 0;

    trace[0] = 0;
    for (int i = 0; i < info->nframes && used + 24 < sizeof(trace); i++)
        used += (size_t)snprintf(trace + used, sizeof(trace) - used, " %p", info->frames[i]);
    log_emit(&pool->log, RP_LOG_ERROR, "pool %s: task %s panicked: %s; frames:%s", pool->name,
             info->label ? info->label : "without label", info->reason, trace);
}

void panic_report(struct frame *frame)
{
    struct pool *pool = frame->pool;
    struct rp_panic_info info = {
        .reason = frame->reason,
        .label = frame->label,
        .signal = frame->signal,
        .frames = frame->frames,
        .nframes = frame->nframes,
    };

    frame->phase = FRAME_CLOSING;
    if (pool->hooks.on_panic)
        pool->hooks.on_panic(pool->hooks.panic_user, &info);
    else
        report_default(pool, &info);
}

static _Noreturn void land(struct frame *frame)
{
    frame->phase = FRAME_CLOSING;
    _longjmp(frame->landing, 1);
}

void rp_panic(const char *fmt, ...)
{
    struct frame *frame = current;
    va_list args;

    va_start(args, fmt);
    if (!frame || frame->phase != FRAME_OPEN) {
        static const struct log log = {0};
        char reason[PANIC_REASON];
        vsnprintf(reason, sizeof(reason), fmt, args);
        va_end(args);
        log_emit(frame ? &frame->pool->log : &log, RP_LOG_ERROR, "rp_panic outside of a task: %s", reason);
        return;
    }
    vsnprintf(frame->reason, sizeof(frame->reason), fmt, args);
    va_end(args);
    frame->signal = 0;
    frame->nframes = backtrace(frame->frames, PANIC_FRAMES);
    land(frame);
}

/* --- a task in a frame of its own ------------------------------------------------------------------------------- */

/* What a task may leave behind on a frame of its own. */
static void frame_left(struct frame *frame)
{
    if (frame->blocking || frame->extra)
        extra_settle(frame);
    if (frame->limit)
        run_limit_end(frame->limit);
}

static void frame_exits(void *arg)
{
    struct frame *frame = arg;

    if (frame->kind == FRAME_PART) { /* the task around it ends its thread as well, and reports */
        frame->outer->label = frame->label;
        frame_left(frame);
        frame_pop(frame);
        return;
    }
    snprintf(frame->reason, sizeof(frame->reason), "the task ended its thread: pthread_exit or cancellation");
    frame->nframes = 0;
    frame->signal = 0;
    frame_left(frame);
    panic_report(frame);
    frame_pop(frame);
    if (frame->kind == FRAME_PLACE) {
        job_finish_unheld(frame->pool, frame->job, JOB_PANICKED, false);
    } else {
        job_finish(frame->pool, frame->job, frame->kind == FRAME_HELP ? JOB_PANICKED : JOB_OUTSIDE_PANICKED, false);
        guest_leave(frame->pool); /* both others run inside a call of a guest */
    }
}

/* The frame outlives the jump; locals of this function are not read after it. */
static bool frame_land(struct frame *frame, const struct entry *entry)
{
    if (_setjmp(frame->landing))
        return false;
    frame->phase = FRAME_OPEN;
    entry->fn(entry->arg);
    frame->phase = FRAME_CLOSING;
    return true;
}

bool frame_run(struct pool *pool, struct worker *worker, const struct entry *entry, unsigned kind)
{
    struct frame frame;
    struct limit limit;
    int64_t began = __builtin_expect(entry_stamped(entry), 0) ? rp_now() : 0;
    bool returned;

    frame_push(&frame, pool, worker);
    frame.label = entry_kind(entry) ? NULL : entry->label;
    frame.kind = kind;
    frame.counted = kind == FRAME_HELP || kind == FRAME_PLACE;
    if (!entry_kind(entry) && entry->timeout) {
        run_limit_init(&limit, pool, worker);
        frame.limit = &limit;
        run_limit_arm(&limit, entry);
    }
    pthread_cleanup_push(frame_exits, &frame);
    returned = frame_land(&frame, entry);
    pthread_cleanup_pop(0);
    frame_left(&frame);
    if (began) {
        int64_t now = rp_now();
        measure_shared_run(pool->measured, now - began, entry->stamp, now);
    }
    if (!returned)
        panic_report(&frame);
    frame_pop(&frame);
    if (worker)
        pace_forgets(worker); /* that was a task inside of a task */
    return returned;
}

/* --- contained signals ------------------------------------------------------------------------------------------ */

static const int contained[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
#define CONTAINED (sizeof(contained) / sizeof(contained[0]))

static struct rp_lock install_lock;
static bool installed;
static struct sigaction before[CONTAINED];

static const char *signal_name(int signal)
{
    return signal == SIGSEGV ? "SIGSEGV" : signal == SIGBUS ? "SIGBUS" : signal == SIGFPE ? "SIGFPE" : "SIGILL";
}

/* Hexadecimal by hand: snprintf is not async-signal-safe. */
static void describe(char *text, int signal, const void *address)
{
    static const char digits[] = "0123456789abcdef";
    char *end = stpcpy(stpcpy(text, signal_name(signal)), " at 0x");
    uintptr_t value = (uintptr_t)address;
    int shift = 60;

    while (shift > 0 && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        *end++ = digits[value >> shift & 15];
    *end = 0;
}

/* What would have happened without us. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
    const struct sigaction *old = NULL;

    for (size_t i = 0; i < CONTAINED; i++)
        if (contained[i] == signal)
            old = &before[i];
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(signal, info, context);
    } else if (old->sa_handler == SIG_IGN && info->si_code <= 0) {
        return;
    } else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
        old->sa_handler(signal);
    } else {
        sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL); /* the instruction faults again */
        if (info->si_code <= 0)
            raise(signal);
    }
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
    struct frame *frame = current;
    bool own_fault = info->si_code > 0 && info->si_code != SI_KERNEL; /* of an instruction, not sent */

    own_fault |= info->si_code == SI_KERNEL && signal == SIGSEGV; /* a non-canonical address */
    if (!frame || frame->phase != FRAME_OPEN || !frame->worker || !frame->pool->contain_signals || !own_fault ||
        rcu_inside()) { /* inside: a fault of the library's, or of what it was handed */
        pass_on(signal, info, context);
        return;
    }
    describe(frame->reason, signal, info->si_addr);
    frame->signal = signal;
    frame->nframes = backtrace(frame->frames, PANIC_FRAMES); /* libgcc was loaded at the installation */
    land(frame);
}

int panic_contain_signals(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    void *warm[2];
    int rc = 0;

    backtrace(warm, 2); /* its first call loads a library, which a signal handler must not */
    rp_lock_acquire(&install_lock);
    for (size_t i = 0; !installed && i < CONTAINED; i++)
        if (sigaction(contained[i], &action, &before[i]))
            rc = -errno;
    installed |= !rc;
    rp_lock_release(&install_lock);
    return rc;
}

int panic_stack_set(struct worker *worker)
{
    struct pool *pool = worker->pool;

    if (!pool->contain_signals)
        return 0;
    worker->alternate_stack = alloc_zeroed(&pool->allocator, 1, ALTERNATE_STACK);
    if (!worker->alternate_stack)
        return -ENOMEM;
    if (sigaltstack(&(stack_t){.ss_sp = worker->alternate_stack, .ss_size = ALTERNATE_STACK}, NULL) == 0)
        return 0;
    int rc = -errno;
    panic_stack_clear(worker);
    return rc;
}

void panic_stack_clear(struct worker *worker)
{
    if (!worker->alternate_stack)
        return;
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    void *stack = worker->alternate_stack;
    worker->alternate_stack = NULL; /* first: a child forked in between would free it again */
    alloc_free(&worker->pool->allocator, stack);
}
