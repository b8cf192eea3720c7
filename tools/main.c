/*
 * The command `ringpool`: a table of sub-commands, and what holds for all of them.
 *
 * Statuses: 0 all is well, 1 something went wrong, 2 the arguments make no sense, 128 + signal interrupted. Results
 * that could not be written (a full disk) are an error of every sub-command, found here when stdout is closed.
 */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int command_help(int argc, char **argv);
static int command_version(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"demo", command_demo, "count and checksum the files of a tree on the pool, against a serial run"},
    {"bench", command_bench, "measure one thing beside its peers"},
    {"version", command_version, "print the version of the library"},
    {"help", command_help, "print this list, or the help of one sub-command"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void print_usage_line(FILE *out)
{
    fputs("usage: ringpool ", out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "%s%s", i ? "|" : "", commands[i].name);
    fputs(" [ARGUMENTS]\n", out);
}

static int unknown_command(const char *name)
{
    fputs("ringpool: unknown sub-command ", stderr);
    print_name(stderr, name);
    fputs("; ", stderr);
    print_usage_line(stderr);
    return STATUS_USAGE;
}

static int command_help(int argc, char **argv)
{
    const struct command *command;

    if (argc > 2) {
        print_usage_line(stderr);
        return STATUS_USAGE;
    }
    if (argc == 2) {
        char option[] = "--help";
        char *help[] = {argv[1], option, NULL};

        command = command_find(argv[1]);
        if (!command)
            return unknown_command(argv[1]);
        if (command->run != command_help && command->run != command_version)
            return command->run(2, help);
    }
    print_usage_line(stdout);
    puts("");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].summary);
    puts("\n`ringpool SUB-COMMAND --help` says more.");
    return STATUS_OK;
}

static int command_version(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        fputs("ringpool: version takes no arguments; usage: ringpool version\n", stderr);
        return STATUS_USAGE;
    }
    printf("ringpool %s\n", rp_version());
    return STATUS_OK;
}

/*
 * A closed stdin, stdout or stderr would give its number to the next file that is opened, and results would be written
 * into it. /dev/null takes the place, in the direction that makes every use of it fail as before.
 */
static void hold_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            _exit(STATUS_FAILED);
}

/* The error of an earlier write is remembered by the stream, but not its reason. */
static int finish_output(int status)
{
    bool failed = ferror(stdout) != 0;

    errno = 0;
    if (fclose(stdout) == 0 && !failed)
        return status;
    fprintf(stderr, "ringpool: cannot write to standard output: %s\n",
            errno ? strerror(errno) : "an earlier write failed");
    return status == STATUS_OK ? STATUS_FAILED : status;
}

int main(int argc, char **argv)
{
    static char help[] = "help", version[] = "version";
    const struct command *command;

    hold_standard_files();
    if (argc < 2) {
        print_usage_line(stderr);
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        argv[1] = help;
    else if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        argv[1] = version;
    command = command_find(argv[1]);
    if (!command)
        return unknown_command(argv[1]);
    return finish_output(command->run(argc - 1, argv + 1));
}
