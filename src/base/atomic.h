/*
 * Atomic words by the name of their memory order. Every atomic access of the tree goes through here, so that the
 * order stands in the name where a reader looks for it, and so that a model build can put its scheduler between two
 * accesses (define RP_MODEL_ATOMIC to a header that supplies the same names).
 *
 * There is no fence in the list on purpose: ThreadSanitizer does not know fences, and the protocols of this tree use
 * sequentially consistent accesses on both sides where they need store-then-load order.
 */
#ifndef BASE_ATOMIC_H
#define BASE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef RP_MODEL_ATOMIC
#include RP_MODEL_ATOMIC
#else

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define load_seq(p) atomic_load_explicit((p), memory_order_seq_cst)

#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_seq(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)

#define exchange_relaxed(p, v) atomic_exchange_explicit((p), (v), memory_order_relaxed)
#define exchange_acquire(p, v) atomic_exchange_explicit((p), (v), memory_order_acquire)
#define exchange_release(p, v) atomic_exchange_explicit((p), (v), memory_order_release)
#define exchange_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define exchange_seq(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)

/* Each gives the value before the operation. */
#define add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define add_acq_rel(p, v) atomic_fetch_add_explicit((p), (v), memory_order_acq_rel)
#define add_seq(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define sub_relaxed(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_relaxed)
#define sub_acq_rel(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_acq_rel)
#define sub_seq(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
#define or_seq(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define and_seq(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)

/*
 * True if *p was *expected and is now v; else *expected is what was found. Strong: a failure means another value.
 * The order is that of the success; a failed exchange is a relaxed load, so a caller that acts on the value found
 * reloads it with the order that it needs.
 */
#define cas_relaxed(p, expected, v)                                                                                    \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_relaxed, memory_order_relaxed)
#define cas_acquire(p, expected, v)                                                                                    \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acquire, memory_order_relaxed)
#define cas_release(p, expected, v)                                                                                    \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_release, memory_order_relaxed)
#define cas_acq_rel(p, expected, v)                                                                                    \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_relaxed)
#define cas_seq(p, expected, v)                                                                                        \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst, memory_order_relaxed)

/* One turn of a spin loop: tells the CPU (and a model's scheduler) that the caller waits for another thread. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield" ::: "memory");
#else
    __asm__ __volatile__("" ::: "memory");
#endif
}

/* So many turns without a look: some 25 ns each on x86. A model makes one of them. */
static inline void cpu_pause(unsigned turns)
{
    while (turns--)
        cpu_relax();
}

#endif

/* Brings the line to this CPU as its own, for a write that is to come. */
static inline void prefetch_to_write(const void *line)
{
#if defined(__x86_64__)
    __asm__("prefetchw %0" : : "m"(*(const char *)line)); /* the builtin fetches it to be shared, without -mprfchw */
#else
    __builtin_prefetch(line, 1);
#endif
}

/* Words written by different threads stand this far apart: a pair of cache lines, as x86 prefetches them in pairs. */
#define CACHE_APART 128

#endif
