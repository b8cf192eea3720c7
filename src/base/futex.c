/*
 * The futex system calls by syscall(2), glibc having no wrapper.
 *
 * FUTEX_WAIT_BITSET instead of FUTEX_WAIT, because its timeout is absolute and on CLOCK_MONOTONIC: a caller that loops
 * over wakes without cause passes the same deadline again and does not drift. Both calls leave errno as it was: they
 * run below functions of the user's thread, who may be about to look at errno.
 */
#include "base/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

_Static_assert(sizeof(_Atomic uint32_t) == 4, "the kernel compares 32 bits");
_Static_assert(sizeof(((struct timespec *)0)->tv_sec) == sizeof(long), "SYS_futex reads the kernel's own timespec");

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    struct timespec at;
    const struct timespec *timeout = NULL;
    int saved = errno;
    int rc = 0;

    if (deadline != 0) {
        /* The kernel calls a negative time invalid; the first nanosecond after boot is as far in the past. */
        int64_t ns = deadline > 0 ? deadline : 1;

        at = (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
        timeout = &at;
    }
    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, timeout, NULL,
                FUTEX_BITSET_MATCH_ANY) < 0) {
        rc = -errno;
    }
    errno = saved;
    return rc;
}

int futex_wake(_Atomic uint32_t *word, int n)
{
    int saved = errno;
    long woken = 0;

    /* The kernel takes the key of a private futex from the address alone, so that a word that is gone is no fault. */
    if (n > 0) {
        woken = syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, n);
    }
    errno = saved;
    return woken > 0 ? (int)woken : 0;
}
