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

struct futex_expected {
    _Atomic uint32_t *word;
    uint32_t expected;
};

/*
 * futex_wait on up to 128 words at once, until one of them is another value or is woken; the same results, and -ENOSYS
 * where the kernel has no futex_waitv (before 5.16, or denied): futex_wait_any_works() says so beforehand, after a
 * trial at its first call.
 */
int futex_wait_any(const struct futex_expected *words, unsigned n, int64_t deadline);
bool futex_wait_any_works(void);

/* Wakes up to n sleepers on the word and returns how many. The word may be gone already: then nothing happens. */
int futex_wake(_Atomic uint32_t *word, int n);

#endif
