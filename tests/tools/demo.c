/*
 * The demo on trees whose figures are known: what it counts, what it passes over, what it names, and its statuses.
 */
#include "tools/child.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define WRITE(root, name, text) tree_write(root, name, text, sizeof(text) - 1)

static void expect_in(const char *text, const char *part)
{
    cr_assert_not_null(strstr(text, part), "\"%s\" is not in\n%s", part, text);
}

/* The object of one file in the list, with its path below root. */
static void expect_listed(const char *json, const char *root, const char *name, const char *figures)
{
    char *entry;

    cr_assert_geq(asprintf(&entry, "{\"path\":\"%s/%s\",%s}", root, name, figures), 0);
    expect_in(json, entry);
    free(entry);
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

/* The CRCs are those of Python's zlib; 123456789 is the check value of CRC-32 everywhere. */
static char *make_known_tree(void)
{
    char *root = tree_make(), *longest = malloc(200000);

    cr_assert_not_null(longest);
    memset(longest, 'a', 200000);
    WRITE(root, "binary", "\0\1 x\xff\n\x80 \x01");
    WRITE(root, "digits", "123456789");
    WRITE(root, "empty", "");
    tree_write(root, "long", longest, 200000);
    tree_mkdir(root, "sub");
    WRITE(root, "sub/two", "hello  wide\tworld\nbye\n");
    free(longest);
    return root;
}

#define KNOWN_TOTALS "\"bytes\":200040,\"lines\":3,\"words\":7,\"crc32\":\"e4b9bd9f\""

Test(demo, known_files_give_known_figures)
{
    char *root = make_known_tree();
    struct child_result result = RUN("demo", "--json", "--list", root);

    cr_assert_eq(result.status, 0, "%s", result.err);
    cr_assert_str_empty(result.err);
    cr_assert(is_json(result.out), "%s", result.out);
    expect_in(result.out, "\"files\":5,\"directories\":2,\"skipped\":0," KNOWN_TOTALS);
    expect_listed(result.out, root, "binary", "\"bytes\":9,\"lines\":1,\"words\":1,\"crc32\":\"a4008a5c\"");
    expect_listed(result.out, root, "digits", "\"bytes\":9,\"lines\":0,\"words\":1,\"crc32\":\"cbf43926\"");
    expect_listed(result.out, root, "empty", "\"bytes\":0,\"lines\":0,\"words\":0,\"crc32\":\"00000000\"");
    expect_listed(result.out, root, "sub/two", "\"bytes\":22,\"lines\":2,\"words\":4,\"crc32\":\"8667b4de\"");
    child_free(&result);
    tree_remove(root);
}

/* The file is longer than any buffer: its one word must not be counted once a piece. */
Test(demo, a_word_across_pieces_is_one_word)
{
    char *root = make_known_tree();
    struct child_result result = RUN("demo", "--json", "--list", root);

    expect_listed(result.out, root, "long", "\"bytes\":200000,\"lines\":0,\"words\":1,\"crc32\":\"e069539b\"");
    child_free(&result);
    tree_remove(root);
}

Test(demo, figures_do_not_depend_on_the_number_of_workers)
{
    static const char *const workers[] = {"0", "1", "3", "40"};
    char *root = make_known_tree();

    for (size_t i = 0; i < sizeof(workers) / sizeof(workers[0]); i++) {
        struct child_result result = RUN("demo", "--json", "--workers", workers[i], root);
        char capacity[32];

        cr_assert_eq(result.status, 0, "%s", result.err);
        expect_in(result.out, KNOWN_TOTALS);
        expect_in(result.out, "\"mismatches\":0");
        snprintf(capacity, sizeof(capacity), "\"end\":{\"capacity\":%s", workers[i]);
        if (i > 0)
            expect_in(result.out, capacity);
        child_free(&result);
    }
    tree_remove(root);
}

/* More files than the queue holds, so that submitting meets a full one. */
Test(demo, each_file_is_one_task_that_ended)
{
    char *root = tree_make();
    struct child_result result;

    for (int i = 0; i < 2500; i++) {
        char name[16];

        snprintf(name, sizeof(name), "%d", i);
        tree_write(root, name, "x", 1);
    }
    result = RUN("demo", "--json", root);
    cr_assert_eq(result.status, 0, "%s", result.err);
    expect_in(result.out, "\"files\":2500,");
    expect_in(strstr(result.out, "\"end\":{"), "\"closed\":true,\"submitted\":2500,\"completed\":2500,\"dropped\":0");
    child_free(&result);
    tree_remove(root);
}

Test(demo, an_empty_directory_is_fine)
{
    char *root = tree_make();
    struct child_result result = RUN("demo", "--json", root);

    cr_assert_eq(result.status, 0, "%s", result.err);
    cr_assert(is_json(result.out), "%s", result.out);
    expect_in(result.out, "\"files\":0,\"directories\":1,\"skipped\":0,\"bytes\":0,\"lines\":0,\"words\":0,"
                          "\"crc32\":\"00000000\"");
    child_free(&result);
    tree_remove(root);
}

Test(demo, text_has_every_figure)
{
    static const char *const parts[] = {
        "\nbackend      ",    "\nfiles        5 ",  "\nbytes        200040\n",
        "\nlines        3\n", "\nwords        7\n", "\nchecksum     e4b9bd9f ",
        "\nmismatches   0 ",  "\nchanged      0\n", "\nunreadable   0\n",
        "\n  serial ",        "\n  pool ",          "\n  speed-up ",
        "\n  capacity ",      "\n  running ",       "\n  busy ",
        "\n  idle ",          "\n  waiting ",       "\n  blocked ",
        "\n  closed ",        "\n  submitted ",     "\n  completed ",
        "\n  dropped ",       "\n  rejected ",      "\n  panicked ",
        "\n  spawned ",       "\n  expired ",       "\n  1 ms gaps ",
        "\n  back to back ",
    };
    char *root = make_known_tree();
    struct child_result result = RUN("demo", root);

    cr_assert_eq(result.status, 0, "%s", result.err);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        expect_in(result.out, parts[i]);
    child_free(&result);
    tree_remove(root);
}

/* --- trees that are not plain ------------------------------------------------------------------------------------- */

static void make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_geq(fd, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

/* Adversary: links that lead upwards and to themselves, and a FIFO that nobody will ever write to. */
Test(demo, links_and_special_files_are_skipped)
{
    char *root = tree_make(), *up = tree_path(root, "sub/up"), *self = tree_path(root, "self");
    char *file = tree_path(root, "to-file"), *fifo = tree_path(root, "fifo"), *sock = tree_path(root, "socket");
    struct child_result result;

    WRITE(root, "file", "x");
    tree_mkdir(root, "sub");
    cr_assert_eq(symlink("..", up), 0);
    cr_assert_eq(symlink("self", self), 0);
    cr_assert_eq(symlink("file", file), 0);
    cr_assert_eq(mkfifo(fifo, 0644), 0);
    make_socket(sock);
    result = RUN("demo", "--json", root);
    cr_assert_eq(result.status, 0, "%s", result.err);
    expect_in(result.out, "\"files\":1,\"directories\":2,\"skipped\":5,\"bytes\":1,");
    child_free(&result);

    /* The directory that is named may be a link: its name asked for it. */
    result = RUN("demo", "--json", up);
    cr_assert_eq(result.status, 0, "%s", result.err);
    expect_in(result.out, "\"files\":1,\"directories\":2,\"skipped\":5,");
    child_free(&result);
    free(up);
    free(self);
    free(file);
    free(fifo);
    free(sock);
    tree_remove(root);
}

/* The path of the file is several times longer than the kernel takes in one call. */
Test(demo, directories_may_be_deeper_than_a_path_can_say)
{
    enum { LEVELS = 120, NAME = 200 };
    char *root = tree_make(), name[NAME + 1];
    int at = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
    struct child_result result;

    memset(name, 'd', NAME);
    name[NAME] = '\0';
    for (int i = 0; i < LEVELS; i++) {
        int next;

        cr_assert_eq(mkdirat(at, name, 0755), 0);
        next = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        cr_assert_geq(next, 0);
        close(at);
        at = next;
    }
    fd = openat(at, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    cr_assert_eq(write(fd, "123456789", 9), 9);
    close(fd);
    close(at);
    result = RUN("demo", "--json", root);
    cr_assert_eq(result.status, 0, "%s", result.err);
    expect_in(result.out, "\"files\":1,\"directories\":121,\"skipped\":0,\"bytes\":9,\"lines\":0,\"words\":1,"
                          "\"crc32\":\"cbf43926\"");
    child_free(&result);
    tree_remove(root);
}

Test(demo, any_name_is_escaped_in_json)
{
    char *root = tree_make();
    struct child_result result;

    WRITE(root, "new\nline", "");
    WRITE(root, "quote\"back\\slash", "");
    WRITE(root, "bell\a\x7f", "");
    WRITE(root, "caf\xc3\xa9", "");
    WRITE(root, "latin\xe9", "");
    WRITE(root, "surrogate\xed\xa0\x80", "");
    result = RUN("demo", "--json", "--list", root);
    cr_assert_eq(result.status, 0, "%s", result.err);
    cr_assert(is_json(result.out), "%s", result.out);
    cr_assert(has_one_line(result.out));
    expect_in(result.out, "/new\\u000aline\"");
    expect_in(result.out, "/quote\\\"back\\\\slash\"");
    expect_in(result.out, "/bell\\u0007\\u007f\"");
    expect_in(result.out, "/caf\xc3\xa9\"");
    expect_in(result.out, "/latin\\ufffd\"");
    expect_in(result.out, "/surrogate\\ufffd\\ufffd\\ufffd\"");
    child_free(&result);
    tree_remove(root);
}

Test(demo, any_name_is_one_harmless_line_of_text)
{
    char *root = tree_make();
    struct child_result result;

    WRITE(root, "new\nline", "");
    WRITE(root, "clear\033[2J", "");
    WRITE(root, "c1\xc2\x9b", "");
    WRITE(root, "caf\xc3\xa9", "");
    result = RUN("demo", "--list", root);
    cr_assert_eq(result.status, 0, "%s", result.err);
    expect_in(result.out, "/new\\nline\"\n");
    expect_in(result.out, "/clear\\033[2J\"\n");
    expect_in(result.out, "/c1\\302\\233\"\n");
    expect_in(result.out, "/caf\xc3\xa9\n");
    cr_assert_null(strchr(result.out, '\033'));
    child_free(&result);
    tree_remove(root);
}

/* --- what goes wrong ---------------------------------------------------------------------------------------------- */

Test(demo, unreadable_files_and_directories_are_named_and_counted)
{
    char *root = tree_make(), *file = tree_path(root, "secret"), *directory = tree_path(root, "locked");
    struct child_result json, text;

    WRITE(root, "open", "123456789");
    WRITE(root, "secret", "x");
    tree_mkdir(root, "locked");
    WRITE(root, "locked/inside", "x");
    cr_assert_eq(chmod(file, 0), 0);
    cr_assert_eq(chmod(directory, 0), 0);
    json = RUN_WITH({.unprivileged = true}, "demo", "--json", root);
    text = RUN_WITH({.unprivileged = true}, "demo", root);
    cr_assert_eq(chmod(directory, 0755), 0);

    cr_assert_eq(json.status, 1, "%d %s", json.status, json.err);
    cr_assert(is_json(json.out), "%s", json.out);
    expect_in(json.out, "\"files\":1,\"directories\":1,\"skipped\":0,\"bytes\":9,");
    expect_in(json.out, "\"mismatches\":0");
    expect_in(json.out, "/locked\",\"error\":\"Permission denied\"}");
    expect_in(json.out, "/secret\",\"error\":\"Permission denied\"}");
    expect_in(json.err, "/secret: Permission denied\n");
    expect_in(json.err, "/locked: Permission denied\n");
    cr_assert_eq(text.status, 1);
    expect_in(text.out, "\nunreadable   2\n");
    child_free(&json);
    child_free(&text);
    free(file);
    free(directory);
    tree_remove(root);
}

/* This file of the kernel has other content at every reading, while its status stays as it is. */
Test(demo, a_file_that_changes_is_no_fault_of_the_pool)
{
    static const char random[] = "/proc/sys/kernel/random";
    struct child_result result;

    if (access("/proc/sys/kernel/random/uuid", R_OK) < 0)
        cr_skip_test("no file of the kernel that changes");
    result = RUN("demo", "--json", random);
    expect_in(result.out, "\"mismatches\":0,\"mismatched\":[],\"changed\":[");
    expect_in(result.out, "\"/proc/sys/kernel/random/uuid\"");
    expect_in(result.err, "/proc/sys/kernel/random/uuid: changed");
    cr_assert_eq(result.status, strstr(result.out, "\"unreadable\":[]") ? 0 : 1, "%d %s", result.status, result.err);
    child_free(&result);
}

static void expect_usage_error(struct child_result result, const char *what)
{
    cr_assert_eq(result.status, 2, "%s: status %d", what, result.status);
    cr_assert_str_empty(result.out, "%s: %s", what, result.out);
    cr_assert(has_one_line(result.err), "%s: %s", what, result.err);
    expect_in(result.err, "usage: ringpool demo ");
    child_free(&result);
}

Test(demo, bad_arguments_are_usage_errors)
{
    char *root = tree_make(), *file = tree_path(root, "file"), *missing = tree_path(root, "missing");

    WRITE(root, "file", "x");
    expect_usage_error(RUN("demo", "--frobs"), "unknown option");
    expect_usage_error(RUN("demo", "-x"), "unknown short option");
    expect_usage_error(RUN("demo", "--json=1"), "value that is not wanted");
    expect_usage_error(RUN("demo", "--workers"), "missing value");
    expect_usage_error(RUN("demo", "--workers", "x", root), "no number");
    expect_usage_error(RUN("demo", "--workers", "-1", root), "negative number");
    expect_usage_error(RUN("demo", "--workers", "", root), "empty number");
    expect_usage_error(RUN("demo", "--workers=1048575", root), "too many");
    expect_usage_error(RUN("demo", "--workers=99999999999999999999", root), "overflow");
    expect_usage_error(RUN("demo", root, root), "two directories");
    expect_usage_error(RUN("demo", file), "no directory");
    expect_usage_error(RUN("demo", missing), "nothing there");
    expect_usage_error(RUN("demo", ""), "empty name");
    free(file);
    free(missing);
    tree_remove(root);
}

Test(demo, a_report_that_cannot_be_written_is_an_error)
{
    char *root = make_known_tree();
    struct child_result full = RUN_WITH({.stdout_path = "/dev/full"}, "demo", root);
    struct child_result json = RUN_WITH({.stdout_path = "/dev/full"}, "demo", "--json", root);
    struct child_result closed = RUN_WITH({.closed_stdout = true}, "demo", root);

    cr_assert_eq(full.status, 1);
    expect_in(full.err, "No space left on device");
    cr_assert_eq(json.status, 1);
    expect_in(json.err, "No space left on device");
    cr_assert_eq(closed.status, 1);
    expect_in(closed.err, "Bad file descriptor");
    child_free(&full);
    child_free(&json);
    child_free(&closed);
    tree_remove(root);
}

/* --- at a terminal ------------------------------------------------------------------------------------------------ */

struct terminal {
    int master, slave;
    struct termios before;
    char seen[65536];
    size_t n;
};

static void terminal_open(struct terminal *terminal)
{
    terminal->n = 0;
    terminal->seen[0] = '\0';
    terminal->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal->master < 0 || grantpt(terminal->master) < 0 || unlockpt(terminal->master) < 0)
        cr_skip_test("no pseudo-terminal");
    terminal->slave = open(ptsname(terminal->master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    cr_assert_geq(terminal->slave, 0);
    cr_assert_eq(tcgetattr(terminal->slave, &terminal->before), 0);
}

static pid_t terminal_run(struct terminal *terminal, const char *directory)
{
    pid_t pid = fork();

    if (pid == 0) {
        setenv("TERM", "xterm", 1);
        dup2(terminal->slave, STDOUT_FILENO);
        dup2(terminal->slave, STDERR_FILENO);
        execl(child_command(), "ringpool", "demo", directory, (char *)NULL);
        _exit(127);
    }
    cr_assert_gt(pid, 0);
    /* The child's is the last one now: reading fails when it has ended. */
    close(terminal->slave);
    return pid;
}

/* Reads until the text is there. */
static void terminal_await(struct terminal *terminal, const char *text)
{
    do {
        ssize_t n = read(terminal->master, terminal->seen + terminal->n, sizeof(terminal->seen) - 1 - terminal->n);

        cr_assert_gt(n, 0, "\"%s\" did not come, but: %s", text, terminal->seen);
        terminal->n += (size_t)n;
        terminal->seen[terminal->n] = '\0';
    } while (!strstr(terminal->seen, text));
}

/*
 * A file of a terabyte, all of it a hole: no machine reads it before the signal, which is sent when the bar shows that
 * the reading has begun.
 */
Test(demo, an_interrupted_run_leaves_the_terminal_as_it_was, .timeout = 60)
{
    char *root = tree_make(), *path = tree_path(root, "huge");
    struct terminal terminal;
    struct termios after;
    int status;
    pid_t pid;

    WRITE(root, "huge", "");
    if (truncate(path, (off_t)1 << 40) < 0) {
        tree_remove(root);
        cr_skip_test("no sparse files");
    }
    terminal_open(&terminal);
    pid = terminal_run(&terminal, root);
    terminal_await(&terminal, "warming");
    cr_assert_eq(kill(pid, SIGINT), 0);
    terminal_await(&terminal, "interrupted");
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 128 + SIGINT);
    expect_in(terminal.seen, "\r\033[Kringpool demo: interrupted");
    cr_assert_eq(tcgetattr(terminal.master, &after), 0);
    cr_assert_eq(after.c_lflag, terminal.before.c_lflag);
    cr_assert_eq(after.c_oflag, terminal.before.c_oflag);
    cr_assert_eq(after.c_iflag, terminal.before.c_iflag);
    close(terminal.master);
    free(path);
    tree_remove(root);
}

Test(demo, the_bar_is_gone_before_the_report)
{
    char *root = make_known_tree(), *last;
    struct terminal terminal;
    int status;
    pid_t pid;

    terminal_open(&terminal);
    pid = terminal_run(&terminal, root);
    terminal_await(&terminal, "back to back");
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    expect_in(terminal.seen, "\rlisting ");
    last = strstr(terminal.seen, "directory ");
    cr_assert_not_null(last);
    cr_assert_geq(last - terminal.seen, 4);
    cr_assert_eq(memcmp(last - 4, "\r\033[K", 4), 0);
    cr_assert_null(strchr(last, '\033'));
    close(terminal.master);
    tree_remove(root);
}
