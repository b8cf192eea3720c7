/*
 * Log lines. The default is one write(2) for a whole line, so that lines of different threads do not mix.
 *
 * Logging happens in the middle of other things, often on a thread of the user's: it leaves errno alone, and it is no
 * cancellation point, whatever the user's function does, because a thread cancelled here would take a half-done state
 * of the pool with it.
 */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 1024, PREFIX_BYTES = 32 };

static const char *const level_names[] = {
    [RP_LOG_ERROR] = "error",
    [RP_LOG_WARNING] = "warning",
    [RP_LOG_INFO] = "info",
    [RP_LOG_DEBUG] = "debug",
};

bool log_wants(const struct log *log, int level)
{
    int least = log->level == RP_LOG_DEFAULT ? RP_LOG_WARNING : log->level;

    return least != RP_LOG_NONE && level >= RP_LOG_ERROR && level <= RP_LOG_DEBUG && level <= least;
}

static void write_stderr(int level, const char *message)
{
    char line[PREFIX_BYTES + MESSAGE_BYTES];
    int n = snprintf(line, sizeof(line), "ringpool: %s: %s\n", level_names[level], message);

    /* A line that cannot be written is lost: there is no better place to complain. */
    while (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0 && errno == EINTR) {
    }
}

void log_emit(const struct log *log, int level, const char *fmt, ...)
{
    int saved = errno;
    int cancel_state;
    char message[MESSAGE_BYTES];
    va_list args;

    if (!log_wants(log, level)) {
        return;
    }
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    va_start(args, fmt);
    if (vsnprintf(message, sizeof(message), fmt, args) < 0) {
        (void)snprintf(message, sizeof(message), "%s", fmt); /* better than nothing */
    }
    va_end(args);
    if (log->write) {
        log->write(log->user, level, message);
    } else {
        write_stderr(level, message);
    }
    (void)pthread_setcancelstate(cancel_state, NULL);
    errno = saved;
}
