/* See child.h. */
#include "tools/child.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef RP_COMMAND
#define RP_COMMAND "build/ringpool"
#endif

enum { ARGS_MOST = 16, NOBODY = 65534, CANNOT_RUN = 127 };

const char *child_command(void)
{
    const char *command = getenv("RINGPOOL_COMMAND");

    return command && *command ? command : RP_COMMAND;
}

/* A file rather than a pipe: no reader is needed for the child to go on. */
static int capture_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0) {
        char name[] = "/tmp/ringpool-test-XXXXXX";

        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0)
            unlink(name);
    }
    cr_assert_geq(fd, 0, "no temporary file: %s", strerror(errno));
    return fd;
}

static char *read_all(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    char *text = malloc((size_t)size + 1);

    cr_assert_not_null(text);
    cr_assert_eq(pread(fd, text, (size_t)size, 0), size);
    text[size] = '\0';
    close(fd);
    return text;
}

static bool give_up_privileges(void)
{
    return geteuid() != 0 || (setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

/* After fork: only what is async-signal-safe. The command is open already, should nobody be unable to reach it. */
static void child_become(int command, struct child_setting setting, char **argv, int out, int err)
{
    if (setting.stdout_path)
        out = open(setting.stdout_path, O_WRONLY | O_CLOEXEC);
    if (setting.closed_stdout) {
        close(STDIN_FILENO);
        close(STDOUT_FILENO);
    } else if (dup2(out, STDOUT_FILENO) < 0) {
        _exit(CANNOT_RUN);
    }
    if (dup2(err, STDERR_FILENO) < 0 || (setting.unprivileged && !give_up_privileges()))
        _exit(CANNOT_RUN);
    fexecve(command, argv, environ);
    _exit(CANNOT_RUN);
}

struct child_result child_run(struct child_setting setting, const char *const *args)
{
    int command = open(child_command(), O_RDONLY | O_CLOEXEC), out = capture_file(), err = capture_file(), status;
    char *argv[ARGS_MOST + 2] = {(char *)"ringpool"};
    struct child_result result;
    pid_t pid;

    cr_assert_geq(command, 0, "%s: %s", child_command(), strerror(errno));
    for (size_t i = 0; args[i]; i++) {
        cr_assert_lt(i, (size_t)ARGS_MOST);
        argv[i + 1] = (char *)args[i];
    }
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        child_become(command, setting, argv, out, err);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    close(command);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    result.out = read_all(out);
    result.err = read_all(err);
    return result;
}

void child_free(struct child_result *result)
{
    free(result->out);
    free(result->err);
}

/* --- trees -------------------------------------------------------------------------------------------------------- */

char *tree_make(void)
{
    char *root = strdup("/tmp/ringpool-tree-XXXXXX");

    cr_assert_not_null(root);
    cr_assert_not_null(mkdtemp(root), "%s", strerror(errno));
    cr_assert_eq(chmod(root, 0755), 0);
    return root;
}

/* By rm, which reaches paths that are too long for the kernel. */
void tree_remove(char *root)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        execlp("rm", "rm", "-rf", root, (char *)NULL);
        _exit(CANNOT_RUN);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    free(root);
}

char *tree_path(const char *root, const char *name)
{
    char *path;

    cr_assert_geq(asprintf(&path, "%s/%s", root, name), 0);
    return path;
}

void tree_write(const char *root, const char *name, const void *data, size_t n)
{
    char *path = tree_path(root, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    cr_assert_eq(write(fd, data, n), (ssize_t)n);
    cr_assert_eq(close(fd), 0);
    free(path);
}

void tree_mkdir(const char *root, const char *name)
{
    char *path = tree_path(root, name);

    cr_assert_eq(mkdir(path, 0755), 0, "%s: %s", path, strerror(errno));
    free(path);
}

bool has_one_line(const char *text)
{
    const char *newline = strchr(text, '\n');

    return newline && newline != text && newline[1] == '\0';
}
