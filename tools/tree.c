/* See tree.h. */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directories yet to be read: the last one found is read first, so that the list stays short on wide trees. */
struct todo {
    char **paths;
    size_t n, room;
};

/* Takes over path, also when it fails. */
static int list_push(char ***list, size_t *n, size_t *room, char *path)
{
    if (*n == *room) {
        size_t grown = *room ? *room * 2 : 64;
        char **bigger = reallocarray(*list, grown, sizeof(*bigger));

        if (!bigger) {
            free(path);
            return -ENOMEM;
        }
        *list = bigger;
        *room = grown;
    }
    (*list)[(*n)++] = path;
    return 0;
}

/* directory + "/" + name, without a second slash. */
static char *path_join(const char *directory, const char *name)
{
    size_t length = strlen(directory);
    const char *slash = length > 0 && directory[length - 1] == '/' ? "" : "/";
    char *path;

    return asprintf(&path, "%s%s%s", directory, slash, name) < 0 ? NULL : path;
}

int tree_open(struct tree *tree, const char *directory)
{
    size_t length = strlen(directory);
    int rc;

    *tree = (struct tree){.root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC)};
    if (tree->root < 0)
        return -errno;
    while (length > 0 && directory[length - 1] == '/')
        length--;
    tree->prefix = malloc(length + 2);
    if (!tree->prefix) {
        rc = -ENOMEM;
        goto close_root;
    }
    memcpy(tree->prefix, directory, length);
    memcpy(tree->prefix + length, "/", 2);
    tree->prefix_length = length + 1;
    return 0;

close_root:
    close(tree->root);
    return rc;
}

void tree_close(struct tree *tree)
{
    for (size_t i = 0; i < tree->files; i++)
        free(tree->paths[i]);
    free(tree->paths);
    free(tree->prefix);
    close(tree->root);
}

/*
 * The kernel takes no path of PATH_MAX bytes or more, so a longer one is walked in pieces, each of which ends before a
 * slash. A name has at most NAME_MAX bytes: every piece has a slash to end at.
 */
int tree_open_path(const struct tree *tree, const char *path, int flags)
{
    int at = tree->root, fd;

    path += tree->prefix_length;
    while (strlen(path) >= PATH_MAX) {
        char piece[PATH_MAX];
        char *end;
        int next;

        memcpy(piece, path, PATH_MAX - 1);
        piece[PATH_MAX - 1] = '\0';
        end = strrchr(piece, '/');
        *end = '\0';
        next = openat(at, piece, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            next = -errno;
        if (at != tree->root)
            close(at);
        if (next < 0)
            return next;
        at = next;
        path += end - piece + 1;
    }
    fd = openat(at, *path ? path : ".", flags | O_CLOEXEC);
    if (fd < 0)
        fd = -errno;
    if (at != tree->root)
        close(at);
    return fd;
}

static int tree_add_entry(struct tree *tree, struct todo *todo, const char *path, int dirfd, const char *name,
                          const struct tree_hooks *hooks)
{
    struct stat st;
    char *full;

    full = path_join(path, name);
    if (!full)
        return -ENOMEM;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
        /* Removed since the directory named it: then it is not below the directory. */
        if (errno != ENOENT)
            hooks->unreadable(hooks->user, full, errno);
        free(full);
        return 0;
    }
    if (S_ISDIR(st.st_mode))
        return list_push(&todo->paths, &todo->n, &todo->room, full);
    if (S_ISREG(st.st_mode)) {
        tree->bytes += (uint64_t)st.st_size;
        return list_push(&tree->paths, &tree->files, &tree->room, full);
    }
    tree->skipped++;
    free(full);
    return 0;
}

static int tree_read_directory(struct tree *tree, struct todo *todo, const char *path, const struct tree_hooks *hooks)
{
    int fd = tree_open_path(tree, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    int rc = 0;
    DIR *dir;

    if (fd < 0) {
        hooks->unreadable(hooks->user, path, -fd);
        return 0;
    }
    dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -ENOMEM;
    }
    tree->directories++;
    while (rc == 0) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            if (errno)
                hooks->unreadable(hooks->user, path, errno);
            break;
        }
        if (!hooks->go_on(hooks->user))
            rc = -EINTR;
        else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = tree_add_entry(tree, todo, path, fd, entry->d_name, hooks);
    }
    closedir(dir);
    return rc;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int tree_list(struct tree *tree, const struct tree_hooks *hooks)
{
    struct todo todo = {0};
    char *path = strdup(tree->prefix);
    int rc = path ? list_push(&todo.paths, &todo.n, &todo.room, path) : -ENOMEM;

    while (rc == 0 && todo.n > 0) {
        path = todo.paths[--todo.n];
        rc = tree_read_directory(tree, &todo, path, hooks);
        free(path);
    }
    while (todo.n > 0)
        free(todo.paths[--todo.n]);
    free(todo.paths);
    if (tree->files > 0)
        qsort(tree->paths, tree->files, sizeof(*tree->paths), compare_paths);
    return rc;
}
