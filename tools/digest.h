/*
 * What the demo computes of a file: bytes, lines, words and CRC-32, in one pass through a buffer of fixed size, so that
 * a file of any length costs the same memory.
 *
 * Lines are newlines. A word begins at a printable ASCII character that is not in one, and ends at white space: bytes
 * that are neither belong to the word around them and make none of their own, which is how GNU wc counts in the C
 * locale (wc of POSIX takes them for letters). The CRC is the one of zlib, gzip and PNG.
 */
#ifndef RINGPOOL_TOOLS_DIGEST_H
#define RINGPOOL_TOOLS_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tree.h"

/* Enough of a file's status to see that it was replaced or written to. */
struct file_state {
    dev_t dev;
    ino_t ino;
    off_t size;
    int64_t mtime, ctime; /* ns */
};

struct digest {
    uint64_t bytes, lines, words;
    uint32_t crc;
    int error;               /* 0, or the errno value for which the file could not be read: the rest means nothing */
    bool unsteady;           /* it was written to while it was read */
    struct file_state state; /* when it was opened */
};

/* Called after each piece that was read; false gives up with EINTR. */
struct digest_hook {
    bool (*step)(void *user, size_t bytes);
    void *user;
};

/* Any thread; needs 64 KiB of stack. The error is in *out. */
void digest_file(const struct tree *tree, const char *path, struct digest_hook hook, struct digest *out);

bool digest_same_content(const struct digest *a, const struct digest *b);
bool digest_same_state(const struct digest *a, const struct digest *b);

#endif
