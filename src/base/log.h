/*
 * Log lines with a level, to the user's function or, by default, as one line each on stderr.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <ringpool/base.h>

struct log {
    /* NULL: "ringpool: <level>: <message>\n" by one write(2) to fd 2 */
    void (*write)(void *user, int level, const char *message);
    void *user;
    /* enum rp_log_level: the least severe that is written; RP_LOG_DEFAULT means warnings, RP_LOG_NONE nothing */
    int level;
};

bool log_wants(const struct log *log, int level);

/* Formats (cut at 1023 bytes) and writes, if the level is wanted. Keeps errno; no cancellation point inside. */
void log_emit(const struct log *log, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
