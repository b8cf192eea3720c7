/*
 * Log lines: the right ones, whole, to the right place, and without a trace in the thread that logs.
 */
#include "base/log.h"

#include "base/atomic.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char seen[4096];
static int seen_level;
static int seen_count;

static void remember(void *user, int level, const char *message)
{
    *(int *)user += 1;
    seen_level = level;
    snprintf(seen, sizeof(seen), "%s", message);
    errno = EDOM;
}

Test(log, default_level_is_warnings_and_errors)
{
    struct log log = {0};

    cr_assert(log_wants(&log, RP_LOG_ERROR));
    cr_assert(log_wants(&log, RP_LOG_WARNING));
    cr_assert_not(log_wants(&log, RP_LOG_INFO));
    cr_assert_not(log_wants(&log, RP_LOG_DEBUG));
}

Test(log, each_level_includes_the_more_severe)
{
    for (int least = RP_LOG_ERROR; least <= RP_LOG_DEBUG; least++) {
        struct log log = {.level = least};

        for (int level = RP_LOG_ERROR; level <= RP_LOG_DEBUG; level++) {
            cr_assert_eq(log_wants(&log, level), level <= least);
        }
    }
}

Test(log, none_means_none_and_no_message_has_the_level_default_or_none)
{
    struct log nothing = {.level = RP_LOG_NONE}, all = {.level = RP_LOG_DEBUG};

    cr_assert_not(log_wants(&nothing, RP_LOG_ERROR));
    cr_assert_not(log_wants(&all, RP_LOG_DEFAULT));
    cr_assert_not(log_wants(&all, RP_LOG_NONE));
    cr_assert_not(log_wants(&all, -1));
}

Test(log, user_function_gets_level_and_text_of_wanted_messages_only)
{
    struct log log = {.write = remember, .user = &seen_count, .level = RP_LOG_INFO};

    log_emit(&log, RP_LOG_DEBUG, "unwanted");
    cr_assert_eq(seen_count, 0);
    log_emit(&log, RP_LOG_INFO, "%s of %d", "seven", 9);
    cr_assert_eq(seen_count, 1);
    cr_assert_eq(seen_level, RP_LOG_INFO);
    cr_assert_str_eq(seen, "seven of 9");
}

Test(log, errno_survives_whatever_the_user_function_does)
{
    struct log log = {.write = remember, .user = &seen_count};

    errno = ENOTTY;
    log_emit(&log, RP_LOG_ERROR, "%m");
    cr_assert_eq(errno, ENOTTY);
    cr_assert_str_eq(seen, strerror(ENOTTY));
}

Test(log, long_messages_are_cut_at_1023_bytes)
{
    struct log log = {.write = remember, .user = &seen_count};
    char text[3000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_emit(&log, RP_LOG_ERROR, "%s", text);
    cr_assert_eq(strlen(seen), 1023u);
}

/* Each read from a pipe in packet mode gives what one write put there: two writes would be two reads. */
static ssize_t stderr_line_of(const struct log *log, int level, const char *message, char *line, size_t size)
{
    int ends[2], kept = dup(STDERR_FILENO);
    ssize_t n;

    cr_assert_eq(pipe2(ends, O_CLOEXEC | O_DIRECT | O_NONBLOCK), 0);
    dup2(ends[1], STDERR_FILENO);
    log_emit(log, level, "%s", message);
    dup2(kept, STDERR_FILENO);
    n = read(ends[0], line, size - 1);
    line[n > 0 ? n : 0] = '\0';
    cr_assert_eq(read(ends[0], &(char){0}, 1), -1, "more than one write");
    close(ends[0]);
    close(ends[1]);
    close(kept);
    return n;
}

Test(log, by_default_one_write_makes_one_line_on_stderr)
{
    static const char *const lines[] = {"ringpool: error: it broke\n", "ringpool: warning: it broke\n",
                                        "ringpool: info: it broke\n", "ringpool: debug: it broke\n"};
    struct log log = {.level = RP_LOG_DEBUG};
    char line[2000];

    for (int level = RP_LOG_ERROR; level <= RP_LOG_DEBUG; level++) {
        stderr_line_of(&log, level, "it broke", line, sizeof(line));
        cr_assert_str_eq(line, lines[level - RP_LOG_ERROR]);
    }
}

Test(log, a_cut_line_still_ends_with_a_newline)
{
    struct log log = {0};
    char text[3000], line[2000];
    ssize_t n;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    n = stderr_line_of(&log, RP_LOG_WARNING, text, line, sizeof(line));
    cr_assert_eq(n, (ssize_t)strlen("ringpool: warning: ") + 1023 + 1);
    cr_assert_eq(line[n - 1], '\n');
}

Test(log, a_closed_stderr_is_no_error)
{
    struct log log = {0};
    int kept = dup(STDERR_FILENO);

    close(STDERR_FILENO);
    errno = 0;
    log_emit(&log, RP_LOG_ERROR, "nobody hears this");
    cr_assert_eq(errno, 0);
    dup2(kept, STDERR_FILENO);
    close(kept);
}

static _Atomic int reached;

static void cancellable(void *user, int level, const char *message)
{
    (void)user;
    (void)level;
    (void)message;
    pthread_testcancel();
    add_seq(&reached, 1);
}

/* Not for ASan: glibc's unwinding leaves the poison of the frames that it skips, and ASan then trips over its own. */
__attribute__((no_sanitize("address"))) static void *log_with_a_cancellation_pending(void *arg)
{
    (void)arg;
    pthread_cancel(pthread_self());
    log_emit(&(struct log){.write = cancellable}, RP_LOG_ERROR, "not here");
    log_emit(&(struct log){0}, RP_LOG_ERROR, "a test of cancellation writes this line");
    add_seq(&reached, 1);
    pthread_testcancel();
    add_seq(&reached, 1);
    return NULL;
}

Test(log, is_no_cancellation_point_and_lets_a_pending_one_act_later)
{
    pthread_t thread;
    void *result;

    cr_assert_eq(pthread_create(&thread, NULL, log_with_a_cancellation_pending, NULL), 0);
    pthread_join(thread, &result);
    cr_assert_eq(load_seq(&reached), 2);
    cr_assert_eq(result, PTHREAD_CANCELED);
}
