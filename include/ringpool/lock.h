/*
 * rp_lock: a lock of one futex word for short critical sections.
 *
 * An acquirer first spins, with exponential backoff and for a bounded time (about 2 us), because a section this short
 * is over sooner than a sleep would be; then it parks on the futex. No system call while nobody waits. Not recursive,
 * not fair: a lock that is held for longer than a few hundred instructions wants pthread_mutex_t instead.
 * After U. Drepper, "Futexes Are Tricky" (2011), mutex3, with the spin in front.
 */
#ifndef RINGPOOL_LOCK_H
#define RINGPOOL_LOCK_H

#include <ringpool/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All zero is an unlocked lock; there is nothing to destroy. The word belongs to the functions below. */
struct rp_lock {
    uint32_t word;
};

/* Takes the lock; blocks until it is free. Any thread; deadlocks if the caller holds it already. */
RP_API void rp_lock_acquire(struct rp_lock *lock);

/* Takes the lock if it is free: true if taken. Any thread, does not block. */
RP_API bool rp_lock_try(struct rp_lock *lock);

/* Gives the lock back, waking one waiter if there is one. Only the thread that holds it; does not block. */
RP_API void rp_lock_release(struct rp_lock *lock);

#ifdef __cplusplus
}
#endif

#endif
