/*
 * What the sub-commands of `ringpool` share: statuses, messages, and text that is safe to print.
 *
 * A sub-command gets its own name in argv[0], writes results to stdout and everything else to stderr, and returns its
 * exit status. It never tests its writes to stdout: main does that once, at the end, for all of them.
 */
#ifndef RINGPOOL_TOOLS_COMMAND_H
#define RINGPOOL_TOOLS_COMMAND_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <ringpool/base.h>

enum status {
    STATUS_OK = 0,
    STATUS_FAILED = 1,   /* it ran, and something was wrong */
    STATUS_USAGE = 2,    /* it did not run: the arguments make no sense */
    STATUS_SIGNAL = 128, /* plus the signal's number: interrupted */
};

int command_bench(int argc, char **argv);
int command_demo(int argc, char **argv);

/* One line on stderr, "ringpool " before it: fmt begins with the sub-command's name and a colon. */
void complain(const char *fmt, ...) RP_PRINTF(1, 2);

/* Complains with the text of a ringpool error; what is the sub-command's name. Returns STATUS_FAILED. */
int complain_rc(const char *what, int rc);

/* A decimal number of digits alone, from least to most: true, and *value is set. */
bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *value);

/*
 * A file name as one line of text that cannot steer a terminal: as it is if it is printable UTF-8, else in double
 * quotes with the escapes of C.
 */
void print_name(FILE *out, const char *name);

/* A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD, so that every parser accepts the text. */
void print_json_string(FILE *out, const char *text);

#endif
