/*
 * Waiting for what comes into a ring of the test's own.
 */
#ifndef TESTS_POOL_CQE_H
#define TESTS_POOL_CQE_H

#include "life.h"

#include <liburing.h>

/*
 * Submits what is to be, and waits for a CQE; false when patience ends. Under memcheck it looks again and again: that
 * lets no other thread run while one blocks in io_uring_enter, and a poll of the ring is not woken by deferred task
 * run.
 */
static inline bool cqe_comes(struct io_uring *ring)
{
    struct __kernel_timespec span = {.tv_nsec = UNDER_MEMCHECK ? 0 : 10 * MS};
    struct io_uring_cqe *cqe;

    return COMES_TRUE(io_uring_submit_and_wait_timeout(ring, &cqe, 1, &span, NULL) >= 0 &&
                      io_uring_peek_cqe(ring, &cqe) == 0);
}

#endif
