/*
 * What the parts of the model share among themselves: the coroutine and the scheduler's state.
 */
#ifndef MODEL_CORE_H
#define MODEL_CORE_H

#include "base/atomic.h"
#include "model.h"
#include "override.h"

enum { COROUTINES = 24, STACK_BYTES = 64 * 1024, BUFFERED = 6, TLS_BYTES = 512 };

/* A store that its coroutine has made and that others do not see yet. */
struct pending {
    volatile void *p;
    uint64_t value;
    uint8_t size;
    bool rmw; /* it has its place in the order of the word's values already: others that write must see it first */
    bool seq; /* the coroutine's next sequentially consistent access comes after it */
};

enum state { UNUSED, RUNNABLE, BLOCKED, ENDED };

struct coroutine {
    void *sp;
    enum state state;
    int64_t priority;
    uint64_t serial; /* its thread id */
    char name[16];
    void *(*main)(void *);
    void *arg;
    bool detached, actor, service; /* service: a reactor, which may sleep at the end of all */

    const void *waits_on; /* BLOCKED: a word's address, or whatever else stands for the reason */
    const char *waits_for;
    int64_t deadline; /* 0: none */
    uint64_t queued;  /* order of blocking */
    int outcome;      /* what the wait returns */

    bool attached; /* to RCU; for the library to ask: any may have sections */
    unsigned rcu_depth;
    uint64_t rcu_sections; /* outermost sections it has begun */
    struct model_cleanup *cleanups;
    const void *stack_base; /* of the pool's stack that it pretends to run on */
    struct pending buffer[BUFFERED];
    unsigned buffered, seq_buffered;
    bool own_buffered; /* one of them is to its own stack */
    char tls[TLS_BYTES];
};

enum strategy { PCT, WALK };

struct model {
    struct coroutine *current, *main;
    uint64_t step, next_turn;
    uint64_t begun; /* the step at which the set-up was over */
    const struct site *site;
    bool trace;
    bool weak;      /* stores are delayed */
    bool delay_rmw; /* ... and those of read-modify-writes */
    unsigned rmw_pending;
    unsigned flush; /* of 4: how likely a coroutine that is switched away from has some of its stores seen */
    bool calm;      /* set-up: nobody is preempted */
    int64_t now;
    /* The scheduler's own. */
    enum strategy strategy;
    unsigned changes, changed;
    uint64_t change_at[8];
    unsigned stride; /* WALK: mean steps between switches */
    int64_t lowest;
    int64_t clock_priority;
    uint64_t serials, queue;
    unsigned spurious; /* one of so many waits ends without cause; 0: none */
    unsigned thread_failures, allocation_failures;
    bool settling, settling_with_time;
    bool cpus_differ;
    unsigned share_first, share_depth; /* 1: workers take one task at a time */
    bool share_looks;                  /* busy workers look at each turn whether one rests */
    bool head_insists;                 /* the first of blocked submitters shuts the gate as soon as it may */
    uint64_t task_ns[2];               /* how long tasks take, as a hint says by turns, */
    unsigned task_looks;               /* by how often it was looked at */
    uint64_t seed;
    const struct scenario *scenario;
};
extern struct model model;
extern struct coroutine coroutines[COROUTINES];

/* --- schedule.c --- */
struct coroutine *coroutine_new(const char *name, void *(*main)(void *), void *arg);
/* Sleeps until woken or until the deadline: what wake() said, or -ETIMEDOUT. */
int block(const void *on, const char *what, int64_t deadline);
void wake(struct coroutine *who, int outcome);
/* Wakes up to n of those that block on the address, in any order; how many. */
unsigned wake_on(const void *on, unsigned n, int outcome);
_Noreturn void coroutine_end(void);
/* The caller spins or gives up its turn: everybody else goes first. */
void yield_lowest(void);
void turn_slow(void);
static inline void step(const struct site *site)
{
    model.site = site;
    if (__builtin_expect(++model.step >= model.next_turn, 0))
        turn_slow();
}
void trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define STEPS_MAX 60000 /* the longest schedule allowed */
/* Runs one and returns how many steps it had. */
uint64_t schedule_run(const struct scenario *scenario, uint64_t seed, bool trace);

/* --- access.c --- */
void flush_all(struct coroutine *who);
void flush_everybody(void);
void flush_some(struct coroutine *who);
void memory_reset(void);
void memory_check(const volatile void *p);
bool on_a_stack(const volatile void *p);
bool on_own_stack(const volatile void *p);

/* --- reactor.c --- */
void reactors_reset(void);
/* --- base.c --- */

#endif
