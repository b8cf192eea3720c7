/*
 * What the tests of the ring floor share: a test for each backend, seeds, filters, and counts of what may leak.
 */
#ifndef TESTS_RING_SUPPORT_H
#define TESTS_RING_SUPPORT_H

#include <criterion/criterion.h>

#include <ringpool/base.h>
#include <ringpool/pool.h>

#include "base/atomic.h"
#include "base/futex.h"
#include "ring/reactor.h"

/* The claim as two tests, one per backend; that for io_uring is skipped where the machine denies it. */
#define BACKENDS(suite, claim)                                                                                         \
    static void claim(int backend);                                                                                    \
    Test(suite, claim##_on_io_uring)                                                                                   \
    {                                                                                                                  \
        if (!uring_is_granted()) {                                                                                     \
            cr_skip_test("no io_uring here");                                                                          \
        }                                                                                                              \
        claim(RP_BACKEND_IO_URING);                                                                                    \
    }                                                                                                                  \
    Test(suite, claim##_on_epoll)                                                                                      \
    {                                                                                                                  \
        claim(RP_BACKEND_EPOLL);                                                                                       \
    }                                                                                                                  \
    static void claim(int backend)

bool uring_is_granted(void);

/* A reactor of its own, or the shared one; asserts that it is there. */
struct reactor *get(int backend, bool own);

/* RP_TEST_SEED of the environment, or a new seed; printed, so that a failure can be played again. */
unsigned seed_of(const char *test);

/* Answers a system call with an errno from now on: in this thread and those it makes, or in all there are. Asserts. */
void deny_call(long number, int error, bool everywhere);

/* Descriptors and threads of the process. */
unsigned count_descriptors(void);
unsigned count_threads(void);

/* Waits until *word has at least this value. */
void await(_Atomic uint32_t *word, uint32_t value);
/* Adds 1 and wakes who awaits. */
void announce(_Atomic uint32_t *word);

/* The exit status of a child that runs body(argument) and exits with what it returns; 128 + signal if one ended it. */
int in_child(int (*body)(void *argument), void *argument);

#endif
