/*
 * The built command as a child process, and trees of files for it to read.
 *
 * The command is found by RINGPOOL_COMMAND of the environment, else by RP_COMMAND of the compiler, else as
 * build/ringpool. All functions that can fail fail the test; call them in the test's own thread.
 */
#ifndef RINGPOOL_TESTS_TOOLS_CHILD_H
#define RINGPOOL_TESTS_TOOLS_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What is different about a run; zero: nothing. */
struct child_setting {
    const char *stdout_path; /* open this for stdout instead of capturing it */
    bool closed_stdout;      /* and stdin with it, so that one more file may take stdout's number */
    bool unprivileged;       /* as nobody, if the tests run as root, who can read everything */
};

struct child_result {
    int status; /* exit status, or -signal */
    char *out, *err;
};

const char *child_command(void);

/* args ends in NULL and begins behind the command's name. Ended by child_free. */
struct child_result child_run(struct child_setting setting, const char *const *args);
void child_free(struct child_result *result);

#define RUN(...) child_run((struct child_setting){0}, (const char *const[]){__VA_ARGS__, NULL})
#define RUN_WITH(setting, ...) child_run((struct child_setting)setting, (const char *const[]){__VA_ARGS__, NULL})

/* A fresh directory that everybody may read; removed by tree_remove. */
char *tree_make(void);
void tree_remove(char *root);

/* Below root; the directories of name must be there. */
void tree_write(const char *root, const char *name, const void *data, size_t n);
void tree_mkdir(const char *root, const char *name);

/* root/name, to be freed. */
char *tree_path(const char *root, const char *name);

/* Exactly one JSON value, by the grammar of RFC 8259, in valid UTF-8 and with a newline at most behind it. */
bool is_json(const char *text);

bool has_one_line(const char *text);

#endif
