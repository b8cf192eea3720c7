/* See digest.h. */
#include "digest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* Of the sizes that keep read() cheap the largest that leaves most of a worker's stack and of the L2 cache alone. */
#define CHUNK ((size_t)64 * 1024)

/* Being in a word is one bit; a byte keeps it (KEEPS), sets it (BEGINS) or, with neither, clears it. */
enum { BEGINS = 1, KEEPS = 2 };

static const unsigned char kinds[256] = {
    [0 ... '\t' - 1] = KEEPS,       ['\t' ... '\r'] = 0,       ['\r' + 1 ... ' ' - 1] = KEEPS, [' '] = 0,
    ['!' ... '~'] = KEEPS | BEGINS, ['~' + 1 ... 255] = KEEPS,
};

/* Returns whether the last byte was in a word. */
static unsigned digest_add(struct digest *digest, const unsigned char *data, size_t n, unsigned in_word)
{
    uint64_t lines = 0, words = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned kind = kinds[data[i]];
        unsigned now = (kind & BEGINS) | (in_word & kind >> 1);

        lines += data[i] == '\n';
        words += now & ~in_word;
        in_word = now;
    }
    digest->bytes += n;
    digest->lines += lines;
    digest->words += words;
    digest->crc = (uint32_t)crc32_z(digest->crc, data, n);
    return in_word;
}

static int64_t nanoseconds(const struct timespec *t)
{
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static int read_state(int fd, struct file_state *state)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return errno;
    /* A directory, FIFO or device has taken the place of the file that was listed. */
    if (!S_ISREG(st.st_mode))
        return ESTALE;
    *state = (struct file_state){
        .dev = st.st_dev,
        .ino = st.st_ino,
        .size = st.st_size,
        .mtime = nanoseconds(&st.st_mtim),
        .ctime = nanoseconds(&st.st_ctim),
    };
    return 0;
}

static bool same_state(const struct file_state *a, const struct file_state *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime == b->mtime && a->ctime == b->ctime;
}

static int digest_contents(int fd, struct digest_hook hook, struct digest *out)
{
    unsigned char chunk[CHUNK];
    unsigned in_word = 0;

    for (;;) {
        ssize_t n = read(fd, chunk, sizeof(chunk));

        if (n < 0 && errno != EINTR)
            return errno;
        if (n == 0)
            return 0;
        if (n > 0)
            in_word = digest_add(out, chunk, (size_t)n, in_word);
        if (!hook.step(hook.user, n > 0 ? (size_t)n : 0))
            return EINTR;
    }
}

void digest_file(const struct tree *tree, const char *path, struct digest_hook hook, struct digest *out)
{
    struct file_state after = {0};
    int fd;

    *out = (struct digest){.crc = (uint32_t)crc32_z(0, NULL, 0)};
    /* Should a FIFO or terminal have taken the file's place, opening it must neither block nor take the terminal. */
    fd = tree_open_path(tree, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        out->error = -fd;
        return;
    }
    out->error = read_state(fd, &out->state);
    if (!out->error)
        out->error = digest_contents(fd, hook, out);
    if (!out->error)
        out->error = read_state(fd, &after);
    out->unsteady = !out->error && !same_state(&out->state, &after);
    close(fd);
}

bool digest_same_content(const struct digest *a, const struct digest *b)
{
    return a->bytes == b->bytes && a->lines == b->lines && a->words == b->words && a->crc == b->crc;
}

bool digest_same_state(const struct digest *a, const struct digest *b)
{
    return !a->unsteady && !b->unsteady && same_state(&a->state, &b->state);
}
