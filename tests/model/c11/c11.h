/*
 * What the small C11 programs of this folder share: accesses by memory order under the names of src/base/atomic.h,
 * threads, and what must hold; for four readers.
 *   - GenMC and nidhugg take C11 and pthreads as they are. So does a compiler, for a plain run of many ROUNDS.
 *   - With C11_MODEL the threads are coroutines of this project's own scheduler (tests/model/schedule.c), and accesses
 *     go through its store buffers.
 *   - CBMC knows machines (TSO, PSO) instead of C11's orders. For it an access is a plain one between fences, as a
 *     compiler for such a machine would place them: the one between a sequentially consistent store and a later
 *     sequentially consistent load behind the store, or, with -DFENCE_LOADS, before the load. C11 allows both, so what
 *     is right holds with both; what leans on an order that it did not ask for fails with one of them. CBMC's
 *     read-modify-writes order everything, so a weak one is no mistake there.
 *
 * A program defines round_begin, thread1, thread2 (and so on up to C11_THREADS) and round_end, whose MUSTs are checked.
 * A sleeping thread is one that has ended: whoever would wake it says so in a plain variable. So there is no futex, no
 * endless loop, and a lost wake-up is a state at the end.
 */
#ifndef C11_H
#define C11_H

#ifndef C11_THREADS
#define C11_THREADS 2
#endif

static void round_begin(void);
static void round_end(void);
static void thread1(void);
static void thread2(void);
#if C11_THREADS > 2
static void thread3(void);
#endif
#if C11_THREADS > 3
static void thread4(void);
#endif

#if defined(__CPROVER__)

/* Macros, not functions: CBMC refuses threads that share by way of pointers. */
typedef unsigned word;
#define FENCE_ALL __CPROVER_fence("WWfence", "RRfence", "RWfence", "WRfence")
#ifdef FENCE_LOADS
#define BEFORE_SEQ_LOAD __CPROVER_fence("WRfence")
#define AFTER_SEQ_STORE ((void)0)
#else
#define BEFORE_SEQ_LOAD ((void)0)
#define AFTER_SEQ_STORE __CPROVER_fence("WRfence")
#endif
#define ACQUIRED __CPROVER_fence("RRfence", "RWfence")
#define RELEASING __CPROVER_fence("RWfence", "WWfence")

#define LOAD(p, before, after)                                                                                         \
    ({                                                                                                                 \
        before;                                                                                                        \
        unsigned value_ = *(p);                                                                                        \
        after;                                                                                                         \
        value_;                                                                                                        \
    })
#define RMW(p, new, before, after)                                                                                     \
    ({                                                                                                                 \
        before;                                                                                                        \
        __CPROVER_atomic_begin();                                                                                      \
        unsigned old_ = *(p);                                                                                          \
        *(p) = (new);                                                                                                  \
        __CPROVER_atomic_end();                                                                                        \
        after;                                                                                                         \
        old_;                                                                                                          \
    })
#define CAS(p, expected, v, before, after)                                                                             \
    ({                                                                                                                 \
        before;                                                                                                        \
        __CPROVER_atomic_begin();                                                                                      \
        unsigned old_ = *(p);                                                                                          \
        _Bool same_ = old_ == *(expected);                                                                             \
        if (same_)                                                                                                     \
            *(p) = (v);                                                                                                \
        __CPROVER_atomic_end();                                                                                        \
        *(expected) = old_;                                                                                            \
        after;                                                                                                         \
        same_;                                                                                                         \
    })
#define BOTH(a, b) (a, b)
#define load_relaxed(p) LOAD(p, (void)0, (void)0)
#define load_acquire(p) LOAD(p, (void)0, ACQUIRED)
#define load_seq(p) LOAD(p, BEFORE_SEQ_LOAD, ACQUIRED)
#define store_relaxed(p, v) ((void)(*(p) = (v)))
#define store_release(p, v) (RELEASING, (void)(*(p) = (v)))
#define store_seq(p, v) (RELEASING, (void)(*(p) = (v)), AFTER_SEQ_STORE)
#define exchange_acq_rel(p, v) RMW(p, v, RELEASING, ACQUIRED)
#define exchange_seq(p, v) RMW(p, v, BOTH(BEFORE_SEQ_LOAD, RELEASING), BOTH(ACQUIRED, AFTER_SEQ_STORE))
#define add_acq_rel(p, v) RMW(p, old_ + (v), RELEASING, ACQUIRED)
#define add_seq(p, v) RMW(p, old_ + (v), BOTH(BEFORE_SEQ_LOAD, RELEASING), BOTH(ACQUIRED, AFTER_SEQ_STORE))
#define cas_relaxed(p, expected, v) CAS(p, expected, v, (void)0, (void)0)
#define cas_acq_rel(p, expected, v) CAS(p, expected, v, RELEASING, ACQUIRED)
#define cas_seq(p, expected, v) CAS(p, expected, v, BOTH(BEFORE_SEQ_LOAD, RELEASING), BOTH(ACQUIRED, AFTER_SEQ_STORE))

#define full_fence() FENCE_ALL
#define MUST(condition, text) __CPROVER_assert(condition, text)

static word ended1, ended2, ended3, ended4;
#define RUN(n)                                                                                                         \
    __CPROVER_ASYNC_##n : ({                                                                                           \
        thread##n();                                                                                                   \
        FENCE_ALL;                                                                                                     \
        ended##n = 1;                                                                                                  \
    })

int main(void)
{
    round_begin();
    FENCE_ALL;
    RUN(1);
    RUN(2);
#if C11_THREADS > 2
    RUN(3);
#endif
#if C11_THREADS > 3
    RUN(4);
#endif
    __CPROVER_assume(ended1 && ended2 && (C11_THREADS < 3 || ended3) && (C11_THREADS < 4 || ended4));
    FENCE_ALL;
    round_end();
}

#elif defined(C11_MODEL)

#include "../core.h"

typedef _Atomic uint32_t word;
#define MUST(condition, text) must(condition, text)

static inline void full_fence(void)
{
    static const struct site site = {"fence", 0, "full_fence", ""};

    step(&site);
    flush_all(model.current);
}

/* The scheduler swaps the section of thread-local variables; it must not be empty. */
static __attribute__((section("model_tls"), used)) int nothing;

static void actor_of(void *thread)
{
    ((void (*)(void))(uintptr_t)thread)();
}

static void program_run(void)
{
    void (*const threads[])(void) = {
        thread1,
        thread2,
#if C11_THREADS > 2
        thread3,
#endif
#if C11_THREADS > 3
        thread4,
#endif
    };

    round_begin();
    for (unsigned i = 0; i < C11_THREADS; i++)
        actor("thread", actor_of, (void *)(uintptr_t)threads[i]);
    actors_join();
    flush_everybody();
    round_end();
}

static const struct scenario program_scenario[] = {{"c11", "the program's MUSTs", program_run}, {NULL, NULL, NULL}};
const struct scenario *const scenario_lists[] = {program_scenario, NULL};

#else

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#ifdef ROUNDS
#include <stdio.h>
#include <stdlib.h>
#define MUST(condition, text) ((condition) ? (void)0 : (fprintf(stderr, "%s\n", text), abort()))
#else
#include <assert.h>
#define ROUNDS 1
#define MUST(condition, text) assert((condition) && (text))
#endif

typedef _Atomic unsigned word;
#define load_relaxed(p) atomic_load_explicit(p, memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit(p, memory_order_acquire)
#define load_seq(p) atomic_load_explicit(p, memory_order_seq_cst)
#define store_relaxed(p, v) atomic_store_explicit(p, v, memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit(p, v, memory_order_release)
#define store_seq(p, v) atomic_store_explicit(p, v, memory_order_seq_cst)
#define exchange_acq_rel(p, v) atomic_exchange_explicit(p, v, memory_order_acq_rel)
#define exchange_seq(p, v) atomic_exchange_explicit(p, v, memory_order_seq_cst)
#define add_acq_rel(p, v) atomic_fetch_add_explicit(p, v, memory_order_acq_rel)
#define add_seq(p, v) atomic_fetch_add_explicit(p, v, memory_order_seq_cst)
#define cas_relaxed(p, expected, v)                                                                                    \
    atomic_compare_exchange_strong_explicit(p, expected, v, memory_order_relaxed, memory_order_relaxed)
#define cas_acq_rel(p, expected, v)                                                                                    \
    atomic_compare_exchange_strong_explicit(p, expected, v, memory_order_acq_rel, memory_order_relaxed)
#define cas_seq(p, expected, v)                                                                                        \
    atomic_compare_exchange_strong_explicit(p, expected, v, memory_order_seq_cst, memory_order_relaxed)

#define full_fence() atomic_thread_fence(memory_order_seq_cst)

static void *main_of(void *thread)
{
    switch (*(const int *)thread) {
    case 1:
        thread1();
        break;
    case 2:
        thread2();
        break;
#if C11_THREADS > 2
    case 3:
        thread3();
        break;
#endif
#if C11_THREADS > 3
    case 4:
        thread4();
        break;
#endif
    }
    return NULL;
}

int main(void)
{
    static const int numbers[] = {1, 2, 3, 4};
    pthread_t threads[C11_THREADS];

    for (int round = 0; round < ROUNDS; round++) {
        round_begin();
        for (int i = 0; i < C11_THREADS; i++)
            if (pthread_create(&threads[i], NULL, main_of, (void *)&numbers[i]))
                return 2;
        for (int i = 0; i < C11_THREADS; i++)
            pthread_join(threads[i], NULL);
        round_end();
    }
    return 0;
}

#endif

#endif
