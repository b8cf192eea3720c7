/*
 * The scheduler: which coroutine goes on at each access of a shared word.
 *
 * Mostly PCT (Burckhardt, Kothari, Musuvathi, Nagarakatte: "A Randomized Scheduler with Probabilistic Guarantees of
 * Finding Bugs", ASPLOS 2010): each coroutine gets a random priority, the one with the highest that can go on does, and
 * at d random steps of the schedule the one that runs falls below all others. A bug that needs d ordering constraints
 * is found with a probability that falls with the d-th power of the length, not exponentially. Some seeds walk at
 * random instead. Time is one more participant with a priority: when it comes first, the earliest deadline passes.
 *
 * A coroutine that spins falls below everybody else, so that what it waits for can happen; a schedule of more than
 * STEPS_MAX steps is a livelock. When nobody can go on and no deadline is left, main is, if it waits for just that;
 * otherwise that is a deadlock.
 */
#include "core.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#define START_NS INT64_C(1000000000000)

struct model model;
struct coroutine coroutines[COROUTINES];

extern char __start_model_tls[], __stop_model_tls[];
static char tls_initial[TLS_BYTES];
static void *base_sp; /* schedule_run's own stack */

/* --- random numbers: xorshift64* --------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static uint64_t random_word(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1d;
}

unsigned choose(unsigned n)
{
    return (unsigned)((random_word() >> 32) * n >> 32);
}

/* --- reports ----------------------------------------------------------------------------------------------------- */

void trace(const char *fmt, ...)
{
    va_list args;

    if (!model.trace || model.calm)
        return;
    printf("%6llu %-10s ", (unsigned long long)model.step, model.current ? model.current->name : "-");
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

static void list_coroutines(void)
{
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++) {
        if (who->state == BLOCKED)
            printf("  %-10s waits for %s at %p%s\n", who->name, who->waits_for, who->waits_on,
                   who->deadline ? ", until a deadline" : "");
        else if (who->state == RUNNABLE)
            printf("  %-10s can go on\n", who->name);
    }
}

void violated(const char *fmt, ...)
{
    va_list args;

    printf("VIOLATED  scenario %s: ", model.scenario->name);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n  at step %llu, in %s", (unsigned long long)model.step, model.current ? model.current->name : "nobody");
    if (model.site)
        printf(", near %s:%u %s(%s)", model.site->file, model.site->line, model.site->op, model.site->word);
    putchar('\n');
    list_coroutines();
    printf("  replay: make model SCENARIO=%s SEED=%llu\n", model.scenario->name, (unsigned long long)model.seed);
    fflush(stdout);
    _exit(3);
}

/* --- switching --------------------------------------------------------------------------------------------------- */

/*
 * Saves the caller's registers on its stack, its stack pointer in *save, and goes on where `load` was saved. By hand,
 * as swapcontext(3) makes a system call each way.
 */
void context_switch(void **save, void *load);
#if defined(__x86_64__)
__asm__(".text\n.globl context_switch\n.type context_switch,@function\ncontext_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size context_switch,.-context_switch\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl context_switch\n.type context_switch,@function\ncontext_switch:\n"
        "sub sp,sp,#160\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
        "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\nstp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\n"
        "stp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\nmov x9,sp\nstr x9,[x0]\nmov sp,x1\n"
        "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\n"
        "ldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\nldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\n"
        "ldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\nadd sp,sp,#160\nret\n"
        ".size context_switch,.-context_switch\n");
#else
#error "write context_switch for this machine"
#endif

static size_t tls_size(void)
{
    return (size_t)(__stop_model_tls - __start_model_tls);
}

static char *stacks;

static void stacks_make(void)
{
    size_t size = (size_t)COROUTINES * STACK_BYTES;

    if (stacks)
        return;
    stacks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < COROUTINES; i++)
        mprotect(stacks + (size_t)i * STACK_BYTES, 4096, PROT_NONE);
    must(tls_size() <= TLS_BYTES, "thread-local variables take %zu bytes", tls_size());
    memcpy(tls_initial, __start_model_tls, tls_size());
}

bool on_a_stack(const volatile void *p)
{
    return (uintptr_t)p - (uintptr_t)stacks < (uintptr_t)COROUTINES * STACK_BYTES;
}

bool on_own_stack(const volatile void *p)
{
    return ((uintptr_t)p - (uintptr_t)stacks) / STACK_BYTES == (uintptr_t)(model.current - coroutines);
}

static void coroutine_main(void)
{
    struct coroutine *me = model.current;

    me->main(me->arg);
    turn("a thread's last lines"); /* destructors of thread-local data */
    coroutine_end();
}

static void stack_prepare(struct coroutine *who)
{
    uint64_t *sp = (uint64_t *)(void *)(stacks + (size_t)(who - coroutines + 1) * STACK_BYTES);

#if defined(__x86_64__)
    *--sp = 0; /* what coroutine_main would return to: keeps the stack aligned as after a call */
    *--sp = (uint64_t)(uintptr_t)coroutine_main;
    sp -= 6;
#else
    sp -= 20;
    memset(sp, 0, 160);
    sp[11] = (uint64_t)(uintptr_t)coroutine_main;
#endif
    who->sp = sp;
}

static void go_to(struct coroutine *next)
{
    struct coroutine *from = model.current;

    if (next == from)
        return;
    if (from->buffered && model.flush && choose(4) < model.flush)
        flush_some(from);
    memcpy(from->tls, __start_model_tls, tls_size());
    memcpy(__start_model_tls, next->tls, tls_size());
    model.current = next;
    trace("goes on");
    context_switch(&from->sp, next->sp);
}

/* --- who goes on -------------------------------------------------------------------------------------------------- */

static int64_t random_priority(void)
{
    return (int64_t)(random_word() >> 2) | 1 << 20;
}

static int64_t earliest_deadline(void)
{
    int64_t earliest = FOREVER;

    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        if (who->state == BLOCKED && who->deadline && who->deadline < earliest)
            earliest = who->deadline;
    return earliest;
}

static void time_passes(int64_t until)
{
    if (until > model.now)
        model.now = until;
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        if (who->state == BLOCKED && who->deadline && who->deadline <= model.now)
            wake(who, -ETIMEDOUT);
    model.clock_priority = chance(2) ? random_priority() : --model.lowest;
}

static struct coroutine *highest(void)
{
    struct coroutine *best = NULL;

    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        if (who->state == RUNNABLE && (!best || who->priority > best->priority))
            best = who;
    return best;
}

static struct coroutine *anybody(void)
{
    struct coroutine *found[COROUTINES];
    unsigned n = 0;

    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        if (who->state == RUNNABLE)
            found[n++] = who;
    return n ? found[choose(n)] : NULL;
}

/* Nobody can go on: time must pass, or it is a deadlock, or all is settled: then main goes on before anybody else. */
static bool stuck(void)
{
    int64_t earliest;

    flush_everybody();
    earliest = earliest_deadline();
    if (model.settling && (!model.settling_with_time || earliest == FOREVER)) {
        model.settling = false;
        wake(model.main, 0);
        return true;
    }
    if (earliest == FOREVER)
        violated("deadlock: nobody can go on");
    time_passes(earliest);
    return false;
}

static struct coroutine *choose_next(bool walk)
{
    struct coroutine *next;
    int64_t earliest;

    while (!(next = walk ? anybody() : highest()))
        if (stuck())
            return model.main;
    if ((walk ? chance(32) : model.clock_priority > next->priority) && (earliest = earliest_deadline()) != FOREVER) {
        time_passes(earliest);
        next = walk ? anybody() : highest();
    }
    return next;
}

static void next_turn_set(void)
{
    if (model.strategy == WALK)
        model.next_turn = model.step + 1 + choose(2 * model.stride);
    else
        model.next_turn = model.changed < model.changes ? model.change_at[model.changed] : UINT64_MAX;
    if (model.next_turn > STEPS_MAX)
        model.next_turn = STEPS_MAX;
    if (model.next_turn <= model.step)
        model.next_turn = model.step + 1;
}

/* The caller may lose its turn: a change point, a random switch, or somebody of a higher priority can go on. */
void turn_slow(void)
{
    if (model.step >= STEPS_MAX)
        violated("livelock: more than %d steps", STEPS_MAX);
    if (model.calm) {
        model.next_turn = STEPS_MAX;
        return;
    }
    while (model.changed < model.changes && model.step >= model.change_at[model.changed]) {
        model.current->priority = (int64_t)(model.changes - model.changed);
        model.changed++;
    }
    next_turn_set();
    go_to(choose_next(model.strategy == WALK));
}

void yield_lowest(void)
{
    flush_all(model.current);
    if (++model.step >= STEPS_MAX)
        violated("livelock: more than %d steps", STEPS_MAX);
    model.now += 1000;
    model.current->priority = --model.lowest;
    if (!model.calm)
        go_to(choose_next(model.strategy == WALK));
}

int block(const void *on, const char *what, int64_t deadline)
{
    struct coroutine *me = model.current;

    flush_all(me);
    trace("sleeps for %s at %p%s", what, on, deadline ? ", until a deadline" : "");
    me->state = BLOCKED;
    me->waits_on = on;
    me->waits_for = what;
    me->deadline = deadline;
    me->queued = ++model.queue;
    go_to(choose_next(model.strategy == WALK));
    return me->outcome;
}

void wake(struct coroutine *who, int outcome)
{
    if (who->state != BLOCKED)
        return;
    who->state = RUNNABLE;
    who->outcome = outcome;
    who->waits_on = NULL;
    who->deadline = 0;
    if (who->priority < 0 && chance(2)) /* it has spun: that shall not hold it back for good */
        who->priority = random_priority();
    if (!model.calm && model.strategy == PCT && who->priority > model.current->priority)
        model.next_turn = model.step;
}

unsigned wake_on(const void *on, unsigned n, int outcome)
{
    unsigned woken = 0;

    while (woken < n) {
        struct coroutine *found = NULL;
        unsigned seen = 0;

        for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
            if (who->state == BLOCKED && who->waits_on == on && chance(++seen))
                found = who;
        if (!found)
            break;
        wake(found, outcome);
        woken++;
    }
    return woken;
}

struct coroutine *coroutine_new(const char *name, void *(*main)(void *), void *arg)
{
    struct coroutine *who = coroutines;

    while (who < coroutines + COROUTINES && who->state != UNUSED)
        who++;
    must(who < coroutines + COROUTINES, "the scenario needs more than %d coroutines", COROUTINES);
    *who = (struct coroutine){.state = RUNNABLE, .main = main, .arg = arg, .serial = ++model.serials};
    snprintf(who->name, sizeof(who->name), "%s", name);
    memcpy(who->tls, tls_initial, tls_size());
    who->priority = random_priority();
    stack_prepare(who);
    if (!model.calm && model.strategy == PCT && model.current && who->priority > model.current->priority)
        model.next_turn = model.step;
    return who;
}

void coroutine_end(void)
{
    struct coroutine *me = model.current;
    static void *nowhere;

    flush_all(me);
    must(me->rcu_depth == 0, "a thread ends inside an RCU section");
    trace("ends");
    if (me == model.main) {
        context_switch(&nowhere, base_sp);
    }
    wake_on(me, COROUTINES, 0); /* whoever joins it */
    me->state = me->detached ? UNUSED : ENDED;
    go_to(choose_next(model.strategy == WALK));
    __builtin_unreachable();
}

/* --- for scenarios ------------------------------------------------------------------------------------------------ */

struct start {
    void (*run)(void *arg);
    void *arg;
};
static struct start starts[COROUTINES];
static unsigned started;

static void *actor_main(void *arg)
{
    struct start *start = arg;

    start->run(start->arg);
    return NULL;
}

/* The set-up is over: from here on the change points count. */
static void begin(void)
{
    if (model.begun)
        return;
    model.begun = model.step + 1;
    model.calm = false;
    for (unsigned i = 0; i < model.changes; i++)
        model.change_at[i] += model.step;
    next_turn_set();
}

void actor(const char *name, void (*run)(void *arg), void *arg)
{
    must(started < COROUTINES, "too many actors");
    starts[started] = (struct start){run, arg};
    begin();
    coroutine_new(name, actor_main, &starts[started++])->actor = true;
}

void actors_join(void)
{
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++) {
        if (!who->actor)
            continue;
        while (who->state != ENDED)
            block(who, "an actor's end", 0);
        who->state = UNUSED;
        who->actor = false;
    }
}

void settle(bool time)
{
    begin();
    model.settling = true;
    model.settling_with_time = time;
    block(&model.settling, "everybody to come to rest", 0);
}

unsigned threads_left(void)
{
    unsigned n = 0;

    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        n += who != model.main && !who->service && (who->state == RUNNABLE || who->state == BLOCKED);
    return n;
}

void gate_wait(struct gate *gate)
{
    while (!gate->open)
        block(gate, "a gate", 0);
}

void gate_open(struct gate *gate)
{
    trace("opens a gate");
    gate->open = true;
    wake_on(gate, COROUTINES, 0);
}

void turn(const char *what)
{
    static struct site site = {"scenario", 0, "turn", ""};

    site.word = what;
    step(&site);
}

int64_t model_now(void)
{
    return model.now;
}

void model_sleep(int64_t ns)
{
    static const char nowhere;

    block(&nowhere, "time to pass", model.now + ns);
}

void fail_threads(unsigned most)
{
    model.thread_failures = most;
}

void fail_allocations(unsigned most)
{
    model.allocation_failures = most;
}

/* --- one schedule ------------------------------------------------------------------------------------------------- */

static int later(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* What the seed decides beforehand. */
static void plan(void)
{
    unsigned length = 100U << choose(5); /* of the part in which it changes its mind */

    model.strategy = chance(4) ? WALK : PCT;
    model.stride = 1U << choose(5);
    model.changes = 1 + choose(5);
    for (unsigned i = 0; i < model.changes; i++)
        model.change_at[i] = 1 + choose(length);
    qsort(model.change_at, model.changes, sizeof(model.change_at[0]), later);
    model.clock_priority = chance(2) ? -1 : random_priority();
    model.weak = chance(2);
    model.delay_rmw = chance(2);
    model.flush = choose(3);
    model.spurious = chance(2) ? 0 : 2 + choose(6);
    model.cpus_differ = chance(4);
    model.share_first = chance(2) ? 1 : 2 + choose(3);
    model.share_depth = choose(2);
    model.share_looks = chance(2);
    model.head_insists = chance(2);
    for (unsigned i = 0; i < 2; i++)
        model.task_ns[i] = (const uint64_t[]){0, 1000, 100000, 1000000}[choose(4)];
    model.next_turn = UINT64_MAX;
}

static void *scenario_main(void *arg)
{
    const struct scenario *scenario = arg;

    scenario->run();
    settle(false);
    must(threads_left() == 0, "threads are left at the end");
    must(blocks_left() == 0, "%u blocks of memory were not freed", blocks_left());
    return NULL;
}

uint64_t schedule_run(const struct scenario *scenario, uint64_t seed, bool traced)
{
    uint64_t name = 0;

    for (const char *c = scenario->name; *c; c++)
        name = name * 31 + (unsigned char)*c;
    random_state = mix(mix(seed) ^ name) | 1;
    model = (struct model){.trace = traced, .calm = true, .now = START_NS, .seed = seed, .scenario = scenario};
    stacks_make();
    for (int i = 0; i < COROUTINES; i++)
        coroutines[i].state = UNUSED, coroutines[i].actor = coroutines[i].service = false;
    started = 0;
    memory_reset();
    reactors_reset();
    plan();
    model.main = model.current = coroutine_new("main", scenario_main, (void *)(uintptr_t)scenario);
    memcpy(__start_model_tls, tls_initial, tls_size());
    context_switch(&base_sp, model.main->sp);
    return model.step - model.begun;
}
