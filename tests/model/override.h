/*
 * Included before every source of the pool in the model build (-include): puts the model's coroutines where the sources
 * call threads, the clock and the scheduler of the system, and takes the place of the headers base/rcu.h and
 * base/cpu.h. The system's headers come first, so that the names below change the calls and not the declarations.
 */
#ifndef MODEL_OVERRIDE_H
#define MODEL_OVERRIDE_H

#include <execinfo.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RP_MODEL_ATOMIC "model_atomic.h" /* for base/atomic.h */

/* Thread-local variables become one section, which the scheduler saves and loads with each coroutine. */
#undef _Thread_local
#define _Thread_local __attribute__((section("model_tls")))

/* --- threads ---------------------------------------------------------------------------------------------------- */

struct model_cleanup {
    void (*run)(void *arg);
    void *arg;
    struct model_cleanup *outer;
};

int model_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *), void *arg);
int model_thread_join(pthread_t thread, void **result);
int model_thread_tryjoin(pthread_t thread);
int model_thread_detach(pthread_t thread);
pthread_t model_thread_self(void);
_Noreturn void model_thread_exit(void);
void model_cleanup_push(struct model_cleanup *cleanup);
void model_cleanup_pop(struct model_cleanup *cleanup, int execute);
void model_attr_set_stack(pthread_attr_t *attr, void *base);
void model_yield(void);
void model_clock(struct timespec *now);

#define pthread_create(thread, attr, main, arg) model_thread_create(thread, attr, main, arg)
#define pthread_join(thread, result) model_thread_join(thread, result)
#define pthread_tryjoin_np(thread, result) model_thread_tryjoin(thread)
#define pthread_detach(thread) model_thread_detach(thread)
#define pthread_self() model_thread_self()
#define pthread_exit(result) model_thread_exit()
#define pthread_attr_init(attr) memset(attr, 0, sizeof(pthread_attr_t))
#define pthread_attr_destroy(attr) ((void)(attr))
#define pthread_attr_setstack(attr, base, size) (model_attr_set_stack(attr, base), (void)(size), 0)
#define pthread_setcancelstate(state, old) ((void)(state), (void)(old))
#undef pthread_cleanup_push
#undef pthread_cleanup_pop
#define pthread_cleanup_push(run, arg)                                                                                 \
    {                                                                                                                  \
        struct model_cleanup cleanup_ = {(run), (arg), NULL};                                                          \
        model_cleanup_push(&cleanup_);
#define pthread_cleanup_pop(execute)                                                                                   \
    model_cleanup_pop(&cleanup_, (execute));                                                                           \
    }
#define sched_yield() model_yield()
#define clock_gettime(id, now) model_clock(now)
#define prctl(...) ((void)0)

/* No call does anything, and its arguments count as used. */
static inline long model_syscall(long number, ...)
{
    (void)number;
    return 1;
}
#define syscall(...) model_syscall(__VA_ARGS__)

static inline int model_backtrace(void **frames, int n)
{
    (void)frames;
    (void)n;
    return 0;
}
#define backtrace(frames, n) model_backtrace(frames, n)

/* --- base/rcu.h ------------------------------------------------------------------------------------------------- */

#define BASE_RCU_H

bool model_rcu_attached(void);
int model_rcu_attach(void);
void model_rcu_enter(void);
void model_rcu_exit(void);
bool model_rcu_inside(void);
void rcu_wait(void);

static inline bool rcu_attached(void)
{
    return model_rcu_attached();
}

static inline int rcu_attach(void)
{
    return model_rcu_attach();
}

static inline void rcu_thread_ends(void)
{
}

static inline void rcu_enter(void)
{
    model_rcu_enter();
}

static inline void rcu_exit(void)
{
    model_rcu_exit();
}

static inline bool rcu_inside(void)
{
    return model_rcu_inside();
}

/* --- pool/runq.h, pool/share.h ---------------------------------------------------------------------------------- */

#define RING_MIN 4U
#define RING_SLACK 4U
#define SHARE_MOST 2U
#define SHARE_NAP_NS 0
#define SHARE_CPUS 2U

/* Of the schedule: what a worker takes at once, how many tasks it leaves to others, how long a share rests. */
unsigned model_share_first(void);
unsigned model_share_depth(void);
int64_t model_share_look_ns(void);
#define SHARE_FIRST model_share_first()
#define SHARE_DEPTH(others) ((void)(others), model_share_depth())
#define SHARE_LOOK_NS model_share_look_ns()

/* --- pool/worker.c ---------------------------------------------------------------------------------------------- */

#define TIMED_TASKS 2U

/* --- pool/pool.h, pool/search.c --------------------------------------------------------------------------------- */

uint64_t model_task_ns(void); /* of the schedule, and it changes */
#define TASK_NS(pool) ((void)(pool), model_task_ns())
#define LOOK_LONGER_NS 200

/* --- pool/spawn.c ----------------------------------------------------------------------------------------------- */

#define FILL_MANY 2

/* --- pool/room.c ------------------------------------------------------------------------------------------------ */

int64_t model_overtake_ns(void); /* of the schedule */
#define OVERTAKE_NS model_overtake_ns()

/* --- base/cpu.h ------------------------------------------------------------------------------------------------- */

#define BASE_CPU_H

unsigned cpu_available(void);
unsigned cpu_allowed(void);
int cpu_current(void);

#endif
