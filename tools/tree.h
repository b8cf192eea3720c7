/*
 * The regular files below a directory, in the byte order of their paths.
 *
 * Paths may be longer than PATH_MAX and directories nested without bound: the walk keeps a list of directories to do
 * instead of recursing, and holds two descriptors, however deep the tree is. Symbolic links are not followed (only the
 * directory given may be one), so the walk ends on every finite tree.
 */
#ifndef RINGPOOL_TOOLS_TREE_H
#define RINGPOOL_TOOLS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tree {
    int root;     /* O_PATH */
    char *prefix; /* the directory as given, with one slash behind it; every path begins with it */
    size_t prefix_length;
    char **paths; /* of the regular files, sorted */
    size_t files, room;
    uint64_t bytes;     /* sum of the sizes as the walk saw them */
    size_t directories; /* that were read, the root too */
    size_t skipped;     /* symbolic links, FIFOs, sockets, devices */
};

struct tree_hooks {
    void (*unreadable)(void *user, const char *path, int error); /* error: an errno value */
    bool (*go_on)(void *user);                                   /* asked for each entry; false ends the walk */
    void *user;
};

/* 0, or the negative errno of opening the directory or of memory; nothing is left behind then. */
int tree_open(struct tree *tree, const char *directory);

/* Walks: 0, -ENOMEM, or -EINTR as a hook asked. What could not be read was told to the hook and is left out. */
int tree_list(struct tree *tree, const struct tree_hooks *hooks);

void tree_close(struct tree *tree);

/* openat() of one of the tree's paths: a descriptor or a negative errno. Any thread. */
int tree_open_path(const struct tree *tree, const char *path, int flags);

#endif
