/*
 * The bell, by eventfd. Raw system calls, since glibc's write is a cancellation point: a thread with a cancellation
 * pending would vanish in the middle of its submit.
 */
#include "ring/bell.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <ringpool/base.h>

int bell_open(void)
{
    int saved = errno;
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = bell >= 0 ? bell : -errno;
    errno = saved;
    return rc;
}

void bell_close(int bell)
{
    int saved = errno;
    syscall(SYS_close, bell);
    errno = saved;
}

void bell_ring(int bell)
{
    int saved = errno;
    uint64_t one = 1;
    /* EAGAIN, the only other failure, would mean 2^64 unheard rings: then it sounds anyway. */
    while (syscall(SYS_write, bell, &one, sizeof one) < 0 && errno == EINTR) {
    }
    errno = saved;
}

void bell_drain(int bell)
{
    uint64_t count;
    while (syscall(SYS_read, bell, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

void bell_wait(int fd, int64_t deadline)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    if (deadline == INT64_MAX) {
        ppoll(&poll_fd, 1, NULL, NULL);
        return;
    }
    int64_t now = rp_now();
    int64_t left = deadline > now ? deadline - now : 0;
    struct timespec timeout = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    ppoll(&poll_fd, 1, &timeout, NULL);
}
