/*
 * The backend without io_uring: epoll on the bell, an eventfd.
 *
 * Three ways to sleep, tried in this order when it is opened: epoll_pwait2, whose timeout has nanoseconds (5.11); else
 * epoll_wait and a timerfd, since epoll_wait counts milliseconds; and where no descriptor is to be had, a futex, whose
 * word is the bell then. So this backend always opens, memory granted.
 */
#include "ring/backend.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <ringpool/base.h>

#include "base/futex.h"
#include "ring/bell.h"
#include "ring/probe.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441 /* the same number on every architecture */
#endif

/* What epoll says of a readable descriptor. */
enum { SAYS_BELL = 0, SAYS_TIMER = 1 };

struct epoll {
    struct backend backend;
    int epoll; /* -1: the futex way */
    int bell;
    int timer;              /* -1: epoll_pwait2 knows the time itself */
    int64_t set;            /* what the timerfd is set to; INT64_MAX: disarmed */
    _Atomic uint32_t sound; /* the bell of the futex way: 1 is ringing */
};

static struct epoll *epoll_of(struct backend *backend)
{
    return (struct epoll *)backend;
}

/* Through syscall(2), as glibc has the wrapper only since 2.35. */
static int wait_precise(struct epoll *epoll, struct epoll_event *events, int n, int64_t left)
{
    int64_t timeout[2] = {left / 1000000000, left % 1000000000}; /* the kernel's struct __kernel_timespec */
    return (int)syscall(SYS_epoll_pwait2, epoll->epoll, events, n, left < 0 ? NULL : timeout, NULL, _NSIG / 8);
}

static int watch(struct epoll *epoll, int fd, uint32_t says)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = says};
    return epoll_ctl(epoll->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void close_all(struct epoll *epoll)
{
    int fds[] = {epoll->epoll, epoll->bell, epoll->timer};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    epoll->epoll = epoll->bell = epoll->timer = -1;
}

/* NULL, or the call that failed and errno. */
static const char *open_descriptors(struct epoll *epoll)
{
    epoll->bell = bell_open();
    if (epoll->bell < 0) {
        errno = -epoll->bell;
        return "eventfd";
    }
    epoll->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll->epoll < 0) {
        return "epoll_create1";
    }
    if (watch(epoll, epoll->bell, SAYS_BELL) < 0) {
        return "epoll_ctl";
    }
    struct epoll_event event;
    if (wait_precise(epoll, &event, 1, 0) == 0) {
        return NULL;
    }
    epoll->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (epoll->timer < 0) {
        return "timerfd_create";
    }
    return watch(epoll, epoll->timer, SAYS_TIMER) < 0 ? "epoll_ctl" : NULL;
}

static int epoll_open(struct backend **out, struct backend_refusal *refusal)
{
    struct epoll *epoll = calloc(1, sizeof *epoll);
    if (!epoll) {
        *refusal = (struct backend_refusal){.call = "calloc", .rc = -ENOMEM};
        return -ENOMEM;
    }
    epoll->backend.ops = &epoll_backend;
    epoll->epoll = epoll->bell = epoll->timer = -1;
    epoll->set = INT64_MAX;
    const char *call = open_descriptors(epoll);
    if (call) {
        snprintf(epoll->backend.note, sizeof epoll->backend.note, "sleeps on a futex as %s gave %s", call,
                 probe_errno_name(-errno));
        close_all(epoll);
    }
    *out = &epoll->backend;
    return 0;
}

static void sleep_on_futex(struct epoll *epoll, int64_t deadline)
{
    /* To futex_wait a deadline of 0 means none; one in the past, which 0 is too, needs no wait. */
    if (deadline > 0) {
        futex_wait(&epoll->sound, 0, deadline == INT64_MAX ? 0 : deadline);
    }
    /* Pairs with epoll_ring; nothing is published by it, all that the reactor reads is under its lock. */
    store_relaxed(&epoll->sound, 0);
}

static int sleep_with_timerfd(struct epoll *epoll, struct epoll_event *events, int n, int64_t deadline)
{
    if (deadline != epoll->set) {
        struct itimerspec at = {{0, 0}, {0, 0}};
        if (deadline != INT64_MAX) {
            int64_t due = deadline > 0 ? deadline : 1; /* all zero would disarm it */
            at.it_value.tv_sec = due / 1000000000;
            at.it_value.tv_nsec = due % 1000000000;
        }
        timerfd_settime(epoll->timer, TFD_TIMER_ABSTIME, &at, NULL);
        epoll->set = deadline;
    }
    return epoll_wait(epoll->epoll, events, n, -1);
}

static void epoll_sleep(struct backend *backend, int64_t deadline)
{
    struct epoll *epoll = epoll_of(backend);
    struct epoll_event events[2];
    int n;
    if (epoll->epoll < 0) {
        sleep_on_futex(epoll, deadline);
        return;
    }
    if (epoll->timer >= 0) {
        n = sleep_with_timerfd(epoll, events, 2, deadline);
    } else {
        int64_t now = deadline == INT64_MAX ? 0 : rp_now();
        int64_t left = deadline == INT64_MAX ? -1 : deadline > now ? deadline - now : 0;
        n = wait_precise(epoll, events, 2, left);
    }
    if (n < 0 && errno != EINTR) { /* a filter installed later denies it: sleep in the plainest way, do not spin */
        bell_wait(epoll->bell, deadline);
        bell_drain(epoll->bell);
    }
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == SAYS_BELL) {
            bell_drain(epoll->bell);
        } else {
            epoll->set = 0; /* it has expired: even the same deadline must be set again */
        }
    }
}

static void epoll_ring(struct backend *backend)
{
    struct epoll *epoll = epoll_of(backend);
    if (epoll->epoll >= 0) {
        bell_ring(epoll->bell);
    } else if (exchange_relaxed(&epoll->sound, 1) == 0) {
        futex_wake(&epoll->sound, 1);
    }
}

static void epoll_close(struct backend *backend)
{
    struct epoll *epoll = epoll_of(backend);
    close_all(epoll);
    free(epoll);
}

const struct backend_ops epoll_backend = {
    .name = "epoll",
    .open = epoll_open,
    .sleep = epoll_sleep,
    .ring = epoll_ring,
    .close = epoll_close,
    .forget = epoll_close,
};
