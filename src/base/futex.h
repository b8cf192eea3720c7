/*
 * The futex system calls: the only place in the tree that names them. Private futexes of one 32-bit word.
 * Callers keep their own loop: every wait may return without cause.
 */
#ifndef BASE_FUTEX_H
#define BASE_FUTEX_H

#include "base/atomic.h"

/*
 * Sleeps while *word == expected, until woken or until `deadline` (ns on CLOCK_MONOTONIC, 0: none).
 * 0: woken, perhaps without cause; -EAGAIN: *word is another value already; -ETIMEDOUT; -EINTR: a signal handler ran.
 * Any other failure is returned as it is; a caller that loops on its word treats it as a wake without cause.
 */
int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline);

/* Wakes up to n sleepers on the word and returns how many. The word may be gone already: then nothing happens. */
int futex_wake(_Atomic uint32_t *word, int n);

#endif
