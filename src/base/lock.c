/*
 * rp_lock: Drepper's mutex3 ("Futexes Are Tricky", 2011) with a bounded spin in front.
 *
 * The word is FREE, HELD, or CONTENDED: held, and somebody may sleep on it. Only a thread that has put CONTENDED there
 * sleeps, and only on that value, and whoever takes the word away from CONTENDED wakes one sleeper. So no sleeper is
 * forgotten: the one that wakes cannot know whether others still sleep, therefore it takes the lock as CONTENDED,
 * which costs one needless wake at the end of a queue. A spinner that takes the lock as HELD in between is harmless,
 * as the woken thread then finds the word taken and puts CONTENDED back before it sleeps again.
 */
#include <ringpool/lock.h>

#include "base/atomic.h"
#include "base/futex.h"

enum { FREE = 0, HELD = 1, CONTENDED = 2 };

/* Pauses of 1, 2, 4 ... 32 turns: 63 turns of some 25-45 ns, about 2 us. */
#define LONGEST_PAUSE 32

_Static_assert(sizeof(_Atomic uint32_t) == sizeof(uint32_t), "the public word is accessed as an atomic one");
_Static_assert(_Alignof(_Atomic uint32_t) == _Alignof(uint32_t), "the public word is accessed as an atomic one");

/* The public header is C++ too, which has no _Atomic: here alone the word becomes what it is. */
static inline _Atomic uint32_t *word_of(struct rp_lock *lock)
{
    return (_Atomic uint32_t *)&lock->word;
}

static inline bool take_free(_Atomic uint32_t *word)
{
    uint32_t found = FREE;

    return cas_acquire(word, &found, HELD);
}

/* Looks before it exchanges, so that spinners share the line instead of stealing it from the holder. */
static bool spin(_Atomic uint32_t *word)
{
    for (unsigned pause = 1; pause <= LONGEST_PAUSE; pause *= 2) {
        for (unsigned turn = 0; turn < pause; turn++) {
            cpu_relax();
        }
        /* Relaxed: only a hint, take_free orders. */
        if (load_relaxed(word) == FREE && take_free(word)) {
            return true;
        }
    }
    return false;
}

static __attribute__((noinline)) void acquire_slow(_Atomic uint32_t *word)
{
    if (spin(word)) {
        return;
    }
    while (exchange_acquire(word, CONTENDED) != FREE) {
        (void)futex_wait(word, CONTENDED, 0);
    }
}

void rp_lock_acquire(struct rp_lock *lock)
{
    _Atomic uint32_t *word = word_of(lock);

    if (!take_free(word)) {
        acquire_slow(word);
    }
}

bool rp_lock_try(struct rp_lock *lock)
{
    return take_free(word_of(lock));
}

void rp_lock_release(struct rp_lock *lock)
{
    _Atomic uint32_t *word = word_of(lock);

    /* Once the word is free the next holder may free its memory: the wake then meets nobody, or wakes without cause. */
    if (exchange_release(word, FREE) == CONTENDED) {
        (void)futex_wake(word, 1);
    }
}
