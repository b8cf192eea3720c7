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

/* Of the kernel's headers since 5.16, which may be newer than those that we are built with. */
#define WAITV_CALL 449
#define WAITV_32_PRIVATE (0x02 | FUTEX_PRIVATE_FLAG)
#define WAITV_WORDS 128

struct waitv_word {
    uint64_t expected, address;
    uint32_t flags, reserved;
};

/* The kernel calls a negative time invalid; the first nanosecond after boot is as far in the past. */
static const struct timespec *time_of(int64_t deadline, struct timespec *at)
{
    int64_t ns = deadline > 0 ? deadline : 1;

    *at = (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
    return deadline != 0 ? at : NULL;
}

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    struct timespec at;
    int saved = errno;
    int rc = 0;

    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, time_of(deadline, &at), NULL,
                FUTEX_BITSET_MATCH_ANY) < 0) {
        rc = -errno;
    }
    errno = saved;
    return rc;
}

int futex_wait_any(const struct futex_expected *words, unsigned n, int64_t deadline)
{
    struct waitv_word waiters[WAITV_WORDS];
    struct timespec at;
    int saved = errno;
    int rc = 0;

    if (n > WAITV_WORDS) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < n; i++) {
        waiters[i] = (struct waitv_word){
            .expected = words[i].expected, .address = (uintptr_t)words[i].word, .flags = WAITV_32_PRIVATE};
    }
    if (syscall(WAITV_CALL, waiters, n, 0, time_of(deadline, &at), CLOCK_MONOTONIC) < 0) {
        rc = -errno;
    }
    errno = saved;
    return rc;
}

/* A word that has changed already: a kernel that knows the call says so. */
bool futex_wait_any_works(void)
{
    static _Atomic int answer; /* 0: not asked; any thread finds the same */
    int known = load_relaxed(&answer);

    if (!known) {
        _Atomic uint32_t word = 1;
        known = futex_wait_any(&(struct futex_expected){&word, 0}, 1, 0) == -EAGAIN ? 1 : -1;
        store_relaxed(&answer, known);
    }
    return known > 0;
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
