/*
 * How long a test waits for what must come. A wait is for an event and ends with it; patience only says that the event
 * is not coming, so that no test passes or fails by being fast. Time in which the machine stood still is none of it.
 */
#ifndef TESTS_POOL_PATIENCE_H
#define TESTS_POOL_PATIENCE_H

#include <criterion/criterion.h>

#include <ringpool/base.h>

#include <stdbool.h>
#include <time.h>

#define MS INT64_C(1000000)

/* For a deadline that is not to pass, whatever the machine does: what hangs is for the runner's time limit. */
#define PATIENCE (3600 * 1000 * MS)

/*
 * What is left of it. Between two looks no more than 10 ms count: for longer this process was stopped, or stood in
 * line.
 */
struct patience {
    int64_t left, last;
};

static inline bool patience_is_left(struct patience *patience)
{
    int64_t now = rp_now(), passed = now - patience->last;

    patience->last = now;
    patience->left -= passed < 10 * MS ? passed : 10 * MS;
    return patience->left > 0;
}

/* Whether the condition came true before patience ended. */
#define COMES_TRUE(condition)                                                                                          \
    ({                                                                                                                 \
        struct patience patience_ = {.left = 30 * 1000 * MS, .last = rp_now()};                                        \
        bool true_ = false;                                                                                            \
        while (!(true_ = (condition)) && patience_is_left(&patience_))                                                 \
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);                                                    \
        true_;                                                                                                         \
    })

/* In the test's own thread only. */
#define AWAIT(condition) cr_assert(COMES_TRUE(condition), "never came true: %s", #condition)

#endif
