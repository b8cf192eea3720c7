/*
 * The base floor's contracts for coroutines: futex, rcu, clock, cpu, stacks, fork, and threads.
 */
#include "core.h"

#include "base/alloc.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/signals.h"
#include "base/stack.h"

#include <errno.h>
#include <stdio.h>

/* --- futex ------------------------------------------------------------------------------------------------------ */

static bool without_cause(void)
{
    return model.spurious && !model.calm && chance(model.spurious);
}

/* Who sleeps on a shared futex is only found by a wake of such. */
static void *shared_key(_Atomic uint32_t *word)
{
    return (char *)(void *)word + 1;
}

static int wait_on(void *key, _Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    static const struct site site = {"futex", 0, "futex_wait", ""};
    struct coroutine *me = model.current;

    step(&site);
    flush_all(me);
    memory_check(word);
    uint32_t found = *(volatile uint32_t *)(volatile void *)word;
    trace("futex_wait at %p: expects %#x, finds %#x", (void *)word, expected, found);
    if (found != expected)
        return -EAGAIN;
    if (deadline && deadline <= model.now)
        return -ETIMEDOUT;
    if (without_cause()) {
        trace("... ends without cause");
        return chance(2) ? 0 : -EINTR;
    }
    return block(key, "a futex", deadline);
}

static int wake_key(void *key, int n)
{
    static const struct site site = {"futex", 0, "futex_wake", ""};

    step(&site);
    flush_all(model.current);
    unsigned woken = n > 0 ? wake_on(key, (unsigned)n, 0) : 0;
    trace("futex_wake at %p: %u woken", key, woken);
    return (int)woken;
}

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    return wait_on((void *)word, word, expected, deadline);
}

int futex_wake(_Atomic uint32_t *word, int n)
{
    return wake_key((void *)word, n);
}

int futex_wait_shared(_Atomic uint32_t *word, uint32_t expected)
{
    return wait_on(shared_key(word), word, expected, 0);
}

int futex_wake_shared(_Atomic uint32_t *word, int n)
{
    return wake_key(shared_key(word), n);
}

/* How full the kernel's table is may change with each worker. */
bool futex_crowd_join(void)
{
    return chance(2);
}

void futex_crowd_leave(void)
{
}

/* The model's kernel has no wait for several words: whoever wants it goes the other way round. */
int futex_wait_any(const struct futex_expected *words, unsigned n, int64_t deadline)
{
    (void)words;
    (void)n;
    (void)deadline;
    return -ENOSYS;
}

bool futex_wait_any_works(void)
{
    return false;
}

/* --- rcu -------------------------------------------------------------------------------------------------------- */

bool model_rcu_attached(void)
{
    return model.current->attached;
}

int model_rcu_attach(void)
{
    model.current->attached = true;
    return 0;
}

void model_rcu_enter(void)
{
    static const struct site site = {"rcu", 0, "rcu_enter", ""};
    struct coroutine *me = model.current;

    step(&site);
    if (me->rcu_depth++ == 0)
        me->rcu_sections++;
}

void model_rcu_exit(void)
{
    static const struct site site = {"rcu", 0, "rcu_exit", ""};
    struct coroutine *me = model.current;

    step(&site);
    must(me->rcu_depth > 0, "an RCU section ends that was not begun");
    if (--me->rcu_depth == 0)
        wake_on(&me->rcu_sections, COROUTINES, 0);
}

bool model_rcu_inside(void)
{
    return model.current->rcu_depth > 0;
}

/* Waits out the sections that run now, not those that begin later. */
void rcu_wait(void)
{
    static const struct site site = {"rcu", 0, "rcu_wait", ""};
    struct {
        uint64_t serial, section;
    } seen[COROUTINES];

    step(&site);
    must(model.current->rcu_depth == 0, "rcu_wait inside an RCU section");
    flush_everybody();
    for (int i = 0; i < COROUTINES; i++) {
        seen[i].serial = coroutines[i].state != UNUSED && coroutines[i].rcu_depth ? coroutines[i].serial : 0;
        seen[i].section = coroutines[i].rcu_sections;
    }
    for (int i = 0; i < COROUTINES; i++) {
        struct coroutine *who = &coroutines[i];

        while (seen[i].serial && who->serial == seen[i].serial && who->rcu_depth &&
               who->rcu_sections == seen[i].section)
            block(&who->rcu_sections, "a grace period", 0);
    }
    flush_everybody();
    trace("a grace period has passed");
}

/* --- clock, cpu, fork ------------------------------------------------------------------------------------------- */

void model_clock(struct timespec *now)
{
    model.now += 50;
    *now = (struct timespec){.tv_sec = model.now / 1000000000, .tv_nsec = model.now % 1000000000};
}

unsigned cpu_available(void)
{
    return 2;
}

/* With more than one, submitters look around for room before they block. */
unsigned cpu_allowed(void)
{
    return model.cpus_differ ? 2 : 1;
}

void share_plan(unsigned first, unsigned depth)
{
    model.share_first = first;
    model.share_depth = depth;
}

unsigned model_share_first(void)
{
    return model.share_first;
}

unsigned model_share_depth(void)
{
    return model.share_depth;
}

int64_t model_share_look_ns(void)
{
    return model.share_looks ? 0 : FOREVER;
}

int64_t model_overtake_ns(void)
{
    return model.head_insists ? 0 : FOREVER;
}

uint64_t model_task_ns(void)
{
    return model.task_ns[model.task_looks++ / 4 % 2];
}

/* All on one CPU: nobody looks around. Otherwise workers do, which makes schedules long. */
int cpu_current(void)
{
    return model.cpus_differ ? (int)(model.current - coroutines) : 0;
}

_Atomic unsigned fork_generation_word;

/* Nothing forks here. */
void fork_hold_off(void)
{
}

void fork_let_go(void)
{
}

int fork_install(void)
{
    return 0;
}

int fork_register(const struct fork_hooks *hooks)
{
    (void)hooks;
    return 0;
}

/* --- stacks: only who stands on which --------------------------------------------------------------------------- */

size_t stack_tls_size(void)
{
    return 0;
}

static const struct coroutine *standing_on(const void *base)
{
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        if ((who->state == RUNNABLE || who->state == BLOCKED) && who->stack_base == base)
            return who;
    return NULL;
}

/* Only what stands above it is memory here. */
int stack_map(struct stack *stack, const struct stack_shape *shape, struct stack_slab *slab)
{
    char *owner = alloc_aligned(&model_allocator, CACHE_APART, shape->above);

    (void)slab;
    if (!owner)
        return -ENOMEM;
    *stack = (struct stack){owner - shape->size, shape->size, shape->above};
    return 0;
}

void stack_slab_map(struct stack_slab *slab, const struct stack_shape *shape, unsigned n)
{
    (void)shape;
    (void)n;
    *slab = (struct stack_slab){0};
}

void stack_slab_unmap(struct stack_slab *slab)
{
    (void)slab;
}

void stack_unmap(struct stack *stack)
{
    if (!stack->base)
        return;
    const struct coroutine *who = standing_on(stack->base);
    must(!who, "the stack is unmapped that %s stands on", who->name);
    alloc_free_aligned(&model_allocator, stack_above(stack));
    *stack = (struct stack){0};
}

void model_attr_set_stack(pthread_attr_t *attr, void *base)
{
    memcpy(attr, &base, sizeof(base));
}

/* --- signals: there are none -------------------------------------------------------------------------------------- */

void signals_block(sigset_t *before)
{
    (void)before;
}

void signals_restore(const sigset_t *before)
{
    (void)before;
}

/* --- threads ---------------------------------------------------------------------------------------------------- */

static struct coroutine *thread_find(pthread_t thread)
{
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        if (who->state != UNUSED && who->serial == thread)
            return who;
    violated("a thread is joined or detached that was already, or never was");
}

int model_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *), void *arg)
{
    static const struct site site = {"thread", 0, "pthread_create", ""};
    char name[16];
    void *base;

    step(&site);
    flush_all(model.current);
    if (model.thread_failures && !model.calm && chance(2)) {
        model.thread_failures--;
        trace("pthread_create fails");
        return EAGAIN;
    }
    memcpy(&base, attr, sizeof(base));
    const struct coroutine *other = standing_on(base);
    must(!other, "a thread is made on the stack that %s stands on", other->name);
    snprintf(name, sizeof(name), "thread%u", (unsigned)model.serials + 1);
    struct coroutine *who = coroutine_new(name, main, arg);
    who->stack_base = base;
    *thread = who->serial;
    trace("makes %s", who->name);
    step(&site);
    return 0;
}

int model_thread_join(pthread_t thread, void **result)
{
    struct coroutine *who = thread_find(thread);

    (void)result;
    while (who->state != ENDED)
        block(who, "a thread's end", 0);
    who->state = UNUSED;
    return 0;
}

int model_thread_tryjoin(pthread_t thread)
{
    static const struct site site = {"thread", 0, "pthread_tryjoin_np", ""};
    struct coroutine *who = thread_find(thread);

    step(&site);
    if (who->state != ENDED)
        return EBUSY;
    who->state = UNUSED;
    return 0;
}

int model_thread_detach(pthread_t thread)
{
    struct coroutine *who = thread_find(thread);

    who->detached = true;
    if (who->state == ENDED)
        who->state = UNUSED;
    return 0;
}

pthread_t model_thread_self(void)
{
    return model.current->serial;
}

void model_cleanup_push(struct model_cleanup *cleanup)
{
    cleanup->outer = model.current->cleanups;
    model.current->cleanups = cleanup;
}

/* Those that a task pushed and a panic jumped over are forgotten as well. */
void model_cleanup_pop(struct model_cleanup *cleanup, int execute)
{
    model.current->cleanups = cleanup->outer;
    if (execute)
        cleanup->run(cleanup->arg);
}

void model_thread_exit(void)
{
    struct coroutine *me = model.current;

    while (me->cleanups) {
        struct model_cleanup *cleanup = me->cleanups;

        me->cleanups = cleanup->outer;
        cleanup->run(cleanup->arg);
    }
    coroutine_end();
}

void model_yield(void)
{
    yield_lowest();
}
