/*
 * RCU: the one place that names the liburcu flavour, urcu-bp.
 *
 * Why bp: submitters are threads that ringpool did not make, and a forked child must be able to make new pools. bp is
 * the flavour that registers a thread by itself, that unregisters it when it ends, and that can drop the registrations
 * of threads which do not exist after a fork.
 *
 * What bp does wrong for a library is met here: it aborts the process when the mapping for its registry cannot be had.
 * rcu_attach() registers the calling thread explicitly and first makes sure that such a mapping can be had. If it
 * cannot, the thread stays as it is: sections of one that is not registered are counted, and waited for, by phases.h.
 *
 * The read side is inlined from liburcu's static header, without _LGPL_SOURCE: its two functions are of the few that
 * the header itself offers to code under any licence (fewer than ten lines). URCU_INLINE_SMALL_FUNCTIONS says the same
 * to urcu-bp.h, but only since liburcu 0.14, and calls through the library cost as much again as the section itself.
 */
#ifndef BASE_RCU_H
#define BASE_RCU_H

/*
 * bp says that its readers are aligned to a cache line, then puts them 32 bytes into a page. Harmless for the plain
 * words that they are, but UBSan would report every section; a declaration that comes first tells it not to look. Nor
 * must ThreadSanitizer: it takes the registry slot that one thread leaves and another is given for a race of the two.
 */
#if defined(__GNUC__)
#define RCU_UNCHECKED __attribute__((no_sanitize("alignment"), no_sanitize("thread")))
static inline RCU_UNCHECKED void _urcu_bp_read_lock_update(unsigned long tmp);
static inline RCU_UNCHECKED void _urcu_bp_read_lock(void);
static inline RCU_UNCHECKED void _urcu_bp_read_unlock(void);
static inline RCU_UNCHECKED int _urcu_bp_read_ongoing(void);
#endif
#include <urcu/static/urcu-bp.h>

#include "base/atomic.h"
#include "base/phases.h"

#if defined(__SANITIZE_THREAD__)
#define RCU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RCU_TSAN 1
#endif
#endif

/*
 * ThreadSanitizer does not see liburcu's own atomics (inline assembly). What RCU promises is told to it on one tag:
 * the end of a section happens before the return of every rcu_wait() that comes later. Nothing else is told, so that a
 * section that uses memory after its rcu_wait() is still reported.
 */
#ifdef RCU_TSAN
#include <sanitizer/tsan_interface.h>
extern char rcu_tsan_tag;
#define RCU_TSAN_RELEASE() __tsan_release(&rcu_tsan_tag)
#define RCU_TSAN_ACQUIRE() __tsan_acquire(&rcu_tsan_tag)
#else
#define RCU_TSAN_RELEASE() ((void)0)
#define RCU_TSAN_ACQUIRE() ((void)0)
#endif

/* The rest of rcu_attach(). */
int rcu_attach_slow(void);

/* Whether the calling thread is registered. async-signal-safe. */
static inline bool rcu_attached(void)
{
    return URCU_TLS(urcu_bp_reader) != NULL;
}

/*
 * Registers the calling thread as a reader, once; afterwards one thread-local load. 0, also where it cannot be
 * registered now, for want of memory, beside a fork, or as others' registrations take too long: then its sections cost
 * more, and the next call tries again; -ENOMEM: the handlers of forks could not be installed, which no thread meets
 * after another one's 0. Any thread; waits for the registrations of others, for 10 ms at most, once.
 *
 * The load is of bp's own word, not of a flag beside it: bp clears it in its thread-exit destructor, and destructors
 * of other thread-specific data may come after that one and attach again.
 */
static inline int rcu_attach(void)
{
    return __builtin_expect(rcu_attached(), 1) ? 0 : rcu_attach_slow();
}

/*
 * Brackets a read-side section. Cheap for a registered thread. Some thread has had a 0 of rcu_attach(). Sections nest;
 * nothing inside may sleep, nor register the thread: a signal handler of a program that uses urcu-bp itself, on a
 * thread that could not be registered, is left.
 */
static inline void rcu_enter(void)
{
    if (__builtin_expect(rcu_attached(), 1))
        _urcu_bp_read_lock();
    else
        phases_enter();
}

/* Whether the calling thread is in a section. async-signal-safe. */
static inline bool rcu_inside(void)
{
    return rcu_attached() ? _urcu_bp_read_ongoing() : phases_inside();
}

static inline void rcu_exit(void)
{
    RCU_TSAN_RELEASE();
    if (__builtin_expect(rcu_attached(), 1))
        _urcu_bp_read_unlock();
    else
        phases_exit();
}

/* Waits until all sections that run now have ended. The caller is in none. */
void rcu_wait(void);

/*
 * The calling thread, one that ringpool made, does nothing more after this but end: until bp has taken it out of its
 * registry, a fork waits for it, and it for a fork that is under way. Under no lock.
 */
void rcu_thread_ends(void);

/* For fork.c: no registration and no rcu_wait() is under way between prepare and parent or child. */
void rcu_fork_prepare(void);
void rcu_fork_parent(void);
void rcu_fork_child(void);

#endif
