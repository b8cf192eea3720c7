/*
 * Time and version: the monotonic clock in nanoseconds, and deadlines that never become 0, because 0 means none.
 */
#include <ringpool/base.h>

#include <time.h>

#define NS_PER_S INT64_C(1000000000)

int64_t rp_now(void)
{
    struct timespec now;

    /* Cannot fail: the clock exists since Linux 2.6 and the address is ours. */
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t rp_after(int64_t ns)
{
    int64_t deadline;

    /* Now is never negative, so that only a positive ns overflows. */
    if (__builtin_add_overflow(rp_now(), ns, &deadline)) {
        return INT64_MAX;
    }
    return deadline > 0 ? deadline : 1;
}

const char *rp_version(void)
{
    return RP_VERSION;
}
