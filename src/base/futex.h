/*
 * The futex system calls: the only place in the tree that names them. Futexes of one 32-bit word, private unless a
 * call says otherwise. Callers keep their own loop: every wait may return without cause.
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

/*
 * Where a crowd sleeps, each thread on a word of its own. Since Linux 6.17 the private futexes of a process are in a
 * hash table of its own, of four buckets for each thread that has a CPU and of 16 at least (PR_FUTEX_HASH(2const)), and
 * each wake in the process passes all that sleep in its bucket: of 10,000 workers on two CPUs some 600. Shared futexes
 * are in the system's table, of 256 buckets a CPU, and cost a tenth of a microsecond more. So those of a crowd that
 * come once the buckets are full are to be shared; their words are of memory that the process has written to, as the
 * kernel knows an anonymous page by its address alone.
 *
 * A join is followed by a leave of the same process, by any thread; a child begins with nobody. true: the word of who
 * joins is to be shared for as long as that one sleeps on it.
 */
bool futex_crowd_join(void);
void futex_crowd_leave(void);

/* futex_wait, without a deadline, and futex_wake, of such a word. */
int futex_wait_shared(_Atomic uint32_t *word, uint32_t expected);
int futex_wake_shared(_Atomic uint32_t *word, int n);

#endif
