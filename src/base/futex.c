/*
 * The futex system calls by syscall(2), glibc having no wrapper.
 *
 * FUTEX_WAIT_BITSET instead of FUTEX_WAIT, because its timeout is absolute and on CLOCK_MONOTONIC: a caller that loops
 * over wakes without cause passes the same deadline again and does not drift. Both calls leave errno as it was: they
 * run below functions of the user's thread, who may be about to look at errno.
 */
#include "base/futex.h"

#include "base/fork.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/prctl.h>
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

static int wait_as(int flag, _Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    struct timespec at;
    int saved = errno;
    int rc = 0;

    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET | flag, expected, time_of(deadline, &at), NULL,
                FUTEX_BITSET_MATCH_ANY) < 0) {
        rc = -errno;
    }
    errno = saved;
    return rc;
}

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    return wait_as(FUTEX_PRIVATE_FLAG, word, expected, deadline);
}

int futex_wait_shared(_Atomic uint32_t *word, uint32_t expected)
{
    return wait_as(0, word, expected, 0);
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

static int wake_as(int flag, _Atomic uint32_t *word, int n)
{
    int saved = errno;
    long woken = 0;

    if (n > 0) {
        woken = syscall(SYS_futex, word, FUTEX_WAKE | flag, n);
    }
    errno = saved;
    return woken > 0 ? (int)woken : 0;
}

/* The kernel takes the key of a private futex from the address alone, so that a word that is gone is no fault. */
int futex_wake(_Atomic uint32_t *word, int n)
{
    return wake_as(FUTEX_PRIVATE_FLAG, word, n);
}

int futex_wake_shared(_Atomic uint32_t *word, int n)
{
    return wake_as(0, word, n);
}

/* --- crowds ----------------------------------------------------------------------------------------------------- */

/* Of the kernel's headers since 6.16. */
#define HASH_CALL 78
#define HASH_GET_SLOTS 2
#define SLOTS_LEAST 16 /* that the kernel gives a process */

/* So many in a bucket cost a wake in it more than a shared futex costs its sleeper and its waker. */
#define SLOT_FULL 8

#define CROWD_MASK UINT64_C(0xffffffff)

/* The fork generation, and how many have joined and not left in it. */
static _Atomic uint64_t crowd;

static bool slots_are_full(uint64_t sleepers)
{
    int saved = errno;

    if (sleepers <= SLOTS_LEAST * SLOT_FULL) {
        return false;
    }
    int slots = prctl(HASH_CALL, HASH_GET_SLOTS, 0, 0, 0); /* 0: the system's table; older kernels know no other */
    errno = saved;
    return slots > 0 && sleepers > (uint64_t)slots * SLOT_FULL;
}

bool futex_crowd_join(void)
{
    uint64_t now = load_relaxed(&crowd), begun = (uint64_t)fork_generation() << 32; /* a count, as the next */
    uint64_t joined;

    do {
        joined = ((now & ~CROWD_MASK) == begun ? now : begun) + 1;
    } while (!cas_relaxed(&crowd, &now, joined));
    return slots_are_full(joined & CROWD_MASK);
}

void futex_crowd_leave(void)
{
    uint64_t now = load_relaxed(&crowd), begun = (uint64_t)fork_generation() << 32; /* a count, as the next */

    while ((now & ~CROWD_MASK) == begun && now != begun && !cas_relaxed(&crowd, &now, now - 1)) {
    }
}
