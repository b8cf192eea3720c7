/*
 * What every part of ringpool shares: times, error texts, the allocator hook, log levels, the backend's name.
 *
 * Conventions of the whole API
 *  - A function returns 0 (or a count) or a negative errno value, and never sets errno. rp_strerror() turns such a
 *    value into a sentence that says what went wrong and what to do.
 *  - Times are int64_t nanoseconds on CLOCK_MONOTONIC. A `deadline` is absolute, a `timeout` or `interval` relative.
 *    A deadline of 0 means none, one in the past times out at once, a negative one is -EINVAL.
 *  - Option structs may be zeroed: zero is the default of every field. Their reserved words must be zero (-EINVAL).
 *  - "Any thread" includes the inside of a task unless the comment says otherwise. No function may be called from a
 *    signal handler unless its comment says "async-signal-safe".
 */
#ifndef RINGPOOL_BASE_H
#define RINGPOOL_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RP_API __attribute__((visibility("default")))
#define RP_PRINTF(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))
#else
#define RP_API
#define RP_PRINTF(format_index, first_argument)
#endif

#define RP_VERSION_MAJOR 0
#define RP_VERSION_MINOR 1
#define RP_VERSION_PATCH 0
#define RP_VERSION "0.1.0"

/* A capacity without limit: as many workers as the tasks in flight ask for and the machine grants. */
#define RP_UNLIMITED 0xffffffffU

/* Severity of a log message, as the log function of the options receives it. */
enum rp_log_level {
    RP_LOG_DEFAULT = 0, /* in options: warnings and errors */
    RP_LOG_ERROR = 1,   /* something was lost or cannot go on */
    RP_LOG_WARNING = 2, /* something failed and was dealt with */
    RP_LOG_INFO = 3,    /* decisions: tuned, released, rebooted */
    RP_LOG_DEBUG = 4,   /* every change of state of a pool and of a worker */
    RP_LOG_NONE = 5,    /* in options: nothing at all */
};

/* Which waiting mechanism a reactor uses, in options. */
enum rp_backend_choice {
    RP_BACKEND_AUTO = 0,     /* io_uring where the kernel grants it, else epoll */
    RP_BACKEND_IO_URING = 1, /* or create fails with -ENOSYS or -EPERM */
    RP_BACKEND_EPOLL = 2,
};

/*
 * Where memory comes from. Copied by create; `user` must outlive the object. The functions are called from any
 * thread, never from a signal handler, and may return NULL: the caller then gets -ENOMEM and nothing is lost. All
 * three must be set or none (-EINVAL). An object without a hook of its own (a future, a group, a retry) is made from
 * its pool's. Not from here: workers' stacks, with the descriptor on top of each, as they need guard pages; reactors
 * and the handles of pools, which belong to the process and outlive the object that was the first to need them; what
 * the C library, liburing and liburcu take.
 */
struct rp_allocator {
    void *(*malloc)(void *user, size_t size);
    void *(*calloc)(void *user, size_t n, size_t size);
    void (*free)(void *user, void *p);
    void *user;
};

/* Now on CLOCK_MONOTONIC, in ns. Any thread, does not block, async-signal-safe. */
RP_API int64_t rp_now(void);

/*
 * The deadline `ns` nanoseconds from now, saturating at INT64_MAX; a negative `ns` gives a deadline in the past, and
 * the result is never 0, which would mean none. Any thread, does not block, async-signal-safe.
 */
RP_API int64_t rp_after(int64_t ns);

/*
 * What went wrong and what to do about it, for every code that ringpool returns; a generic text for any other number,
 * and "success" for 0 and counts. The text is static, never NULL. Any thread, does not block, async-signal-safe.
 */
RP_API const char *rp_strerror(int rc);

/*
 * The backend that a reactor uses in this process when none is asked for by name, with its reason, e.g.
 * "io_uring (single issuer, deferred task run)" or "epoll (io_uring denied by seccomp: io_uring_setup gave EPERM)".
 * Probes the kernel at the first call (some 100 us), afterwards a load. The text is static. Any thread.
 */
RP_API const char *rp_backend(void);

/* RP_VERSION of the library that was linked at run time. Any thread, async-signal-safe. */
RP_API const char *rp_version(void);

#ifdef __cplusplus
}
#endif

#endif
