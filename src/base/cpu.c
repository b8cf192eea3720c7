/*
 * How many CPUs this process may use, and where the caller runs.
 *
 * The affinity mask says on which CPUs, the cgroup says for how much of the time. A quota applies to a group and all
 * below it, so that the smallest of the process's own group and of every ancestor that is visible counts. Where the
 * groups are visible stands in two files: `cgroup` names the process's group in each hierarchy, `mountinfo` says which
 * subtree (root) of a hierarchy is mounted where. A group is visible where that root is an ancestor of it:
 *
 *     0::/a/b/c        and root /a     at /sys/fs/cgroup     ->  /sys/fs/cgroup/b/c, /sys/fs/cgroup/b, /sys/fs/cgroup
 *
 * Whatever is missing, denied or malformed sets no limit: a wrong guess upwards costs some throttling, a wrong guess
 * downwards would leave CPUs unused for good. Formats: proc_pid_mountinfo(5), cgroups(7), and the kernel's
 * Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.
 */
#include "base/cpu.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Group paths of the process in the two kinds of hierarchy; NULL: none. */
struct groups {
    char *v1; /* the hierarchy that has the cpu controller */
    char *v2;
};

/* What one line of mountinfo says, unescaped in place. */
struct mount {
    char *root;
    char *point;
    bool v2;
};

static FILE *open_below(const char *dir, const char *name)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/%s", dir, name);

    return n > 0 && (size_t)n < sizeof(path) ? fopen(path, "re") : NULL;
}

/* The smaller of two limits of which 0 is none. */
static unsigned smaller(unsigned a, unsigned b)
{
    if (a == 0 || b == 0) {
        return a + b;
    }
    return a < b ? a : b;
}

static unsigned cpus_of(long long quota, long long period)
{
    long long cpus;

    if (quota <= 0 || period <= 0) {
        return 0;
    }
    cpus = quota / period + (quota % period != 0);
    return cpus < INT_MAX ? (unsigned)cpus : 0;
}

/* Reads a number and moves *text behind it; false if there is none. strtoll's blanks and sign are the kernel's too. */
static bool read_number(const char **text, long long *number)
{
    char *end;

    errno = 0;
    *number = strtoll(*text, &end, 10);
    if (end == *text || errno != 0) {
        return false;
    }
    *text = end;
    return true;
}

static bool read_line(const char *dir, const char *name, char *line, int size)
{
    FILE *file = open_below(dir, name);
    bool got;

    if (!file) {
        return false;
    }
    got = fgets(line, size, file) != NULL;
    fclose(file);
    return got;
}

/* "<quota> <period>" or "max <period>" */
static unsigned quota_v2(const char *dir)
{
    char line[64];
    const char *at = line;
    long long quota, period;

    if (!read_line(dir, "cpu.max", line, sizeof(line)) || !read_number(&at, &quota) || !read_number(&at, &period)) {
        return 0;
    }
    return cpus_of(quota, period);
}

/* One number in each of two files; a quota of -1 is none. */
static unsigned quota_v1(const char *dir)
{
    char quota_line[32], period_line[32];
    const char *at_quota = quota_line, *at_period = period_line;
    long long quota, period;

    if (!read_line(dir, "cpu.cfs_quota_us", quota_line, sizeof(quota_line)) ||
        !read_line(dir, "cpu.cfs_period_us", period_line, sizeof(period_line)) || !read_number(&at_quota, &quota) ||
        !read_number(&at_period, &period)) {
        return 0;
    }
    return cpus_of(quota, period);
}

/* The path of `group` as seen from `root`: "" or "/b/c"; NULL if it is not below root. */
static const char *path_below(const char *root, const char *group)
{
    size_t n = strlen(root);

    /* Outside the process's cgroup namespace the kernel writes "..": where that is cannot be told from here. */
    if (root[0] != '/' || group[0] != '/' || strstr(root, "/..") || strstr(group, "/..")) {
        return NULL;
    }
    if (n == 1) {
        return group[1] ? group : "";
    }
    if (strncmp(group, root, n) != 0 || (group[n] != '/' && group[n] != '\0')) {
        return NULL;
    }
    return group + n;
}

/* The smallest quota of the group and its visible ancestors, from the group's directory up to the mount point. */
static unsigned quota_of_mount(const struct mount *mount, const struct groups *groups, const char *fs_prefix)
{
    const char *group = mount->v2 ? groups->v2 : groups->v1;
    const char *below = group ? path_below(mount->root, group) : NULL;
    char dir[PATH_MAX];
    unsigned cpus = 0;
    size_t top;
    int n;

    if (!below) {
        return 0;
    }
    top = strlen(fs_prefix) + strlen(mount->point);
    n = snprintf(dir, sizeof(dir), "%s%s%s", fs_prefix, mount->point, below);
    if (n < 0 || (size_t)n >= sizeof(dir)) {
        return 0;
    }
    for (;;) {
        cpus = smaller(cpus, mount->v2 ? quota_v2(dir) : quota_v1(dir));
        if (strlen(dir) <= top) {
            return cpus;
        }
        *strrchr(dir, '/') = '\0'; /* what stands above `top` starts with one */
    }
}

/* Is `word` one of the words of a list that commas separate? */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

/* Lines of `cgroup`: "<hierarchy>:<controllers>:<path>", for v2 "0::<path>". The path may contain colons. */
static void read_groups(FILE *file, struct groups *groups)
{
    char *line = NULL;
    size_t room = 0;

    while (getline(&line, &room, file) > 0) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        char **group;

        if (!path) {
            continue;
        }
        *controllers++ = '\0';
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        if (*controllers == '\0' && strcmp(line, "0") == 0) {
            group = &groups->v2;
        } else if (has_word(controllers, "cpu")) {
            group = &groups->v1;
        } else {
            continue;
        }
        if (!*group) {
            *group = strdup(path);
        }
    }
    free(line);
}

static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}

/* mountinfo writes blank, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/*
 * Line of `mountinfo`: "<id> <parent> <dev> <root> <point> <options> [<tag> ...] - <type> <source> <super options>".
 * True if it is a mount of v2, or of the v1 hierarchy with the cpu controller, which its super options name.
 */
static bool read_mount(char *line, struct mount *mount)
{
    char *field[5], *type, *options, *save;
    char *behind = strstr(line, " - ");

    if (!behind) {
        return false;
    }
    *behind = '\0';
    save = line;
    for (int i = 0; i < 5; i++) {
        field[i] = strsep(&save, " ");
        if (!field[i]) {
            return false;
        }
    }
    save = behind + 3;
    save[strcspn(save, "\n")] = '\0';
    type = strsep(&save, " ");
    (void)strsep(&save, " ");
    options = save;
    mount->v2 = strcmp(type, "cgroup2") == 0;
    if (!mount->v2 && (strcmp(type, "cgroup") != 0 || !options || !has_word(options, "cpu"))) {
        return false;
    }
    mount->root = field[3];
    mount->point = field[4];
    unescape(mount->root);
    unescape(mount->point);
    if (strcmp(mount->point, "/") == 0) {
        mount->point[0] = '\0'; /* paths are put together from parts that each start with a slash */
    }
    return true;
}

static unsigned smallest_quota(FILE *mounts, const struct groups *groups, const char *fs_prefix)
{
    char *line = NULL;
    size_t room = 0;
    unsigned cpus = 0;

    while (getline(&line, &room, mounts) > 0) {
        struct mount mount;

        if (read_mount(line, &mount)) {
            cpus = smaller(cpus, quota_of_mount(&mount, groups, fs_prefix));
        }
    }
    free(line);
    return cpus;
}

unsigned cpu_quota_below(const char *proc_dir, const char *fs_prefix)
{
    struct groups groups = {0};
    unsigned cpus = 0;
    FILE *file = open_below(proc_dir, "cgroup");

    if (file) {
        read_groups(file, &groups);
        fclose(file);
    }
    file = groups.v1 || groups.v2 ? open_below(proc_dir, "mountinfo") : NULL;
    if (file) {
        cpus = smallest_quota(file, &groups, fs_prefix);
        fclose(file);
    }
    free(groups.v1);
    free(groups.v2);
    return cpus;
}

/*
 * The caller's affinity mask of `size` bytes, which goes back by CPU_FREE, or NULL. The kernel refuses a mask smaller
 * than its own with EINVAL, and does not say how large that is.
 */
static cpu_set_t *mask_of_caller(size_t *size)
{
    for (int cpus = CPU_SETSIZE; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *mask = CPU_ALLOC(cpus);

        *size = CPU_ALLOC_SIZE(cpus);
        if (!mask || sched_getaffinity(0, *size, mask) == 0) {
            return mask;
        }
        int error = errno;
        CPU_FREE(mask);
        if (error != EINVAL) {
            break;
        }
    }
    return NULL;
}

unsigned cpu_allowed(void)
{
    int saved = errno;
    size_t size;
    cpu_set_t *mask = mask_of_caller(&size);
    long count = mask ? CPU_COUNT_S(size, mask) : 0;

    CPU_FREE(mask);
    if (count <= 0) {
        count = sysconf(_SC_NPROCESSORS_ONLN);
    }
    errno = saved;
    return count > 0 ? (unsigned)count : 1;
}

bool cpu_isolated_below(const char *sys_dir)
{
    FILE *file = open_below(sys_dir, "isolated");
    int first = file ? fgetc(file) : EOF; /* a list such as 2-5,7, or an empty line */

    if (file) {
        fclose(file);
    }
    return first != EOF && first != '\n';
}

/* Leaves the CPU for another one of the caller's mask, which is set again afterwards. */
static void leave(int cpu, size_t size, cpu_set_t *mask)
{
    CPU_CLR_S((size_t)cpu, size, mask);
    if (CPU_COUNT_S(size, mask) > 0 && sched_setaffinity(0, size, mask) == 0) {
        CPU_SET_S((size_t)cpu, size, mask);
        (void)sched_setaffinity(0, size, mask);
    }
}

void cpu_leave(int cpu)
{
    int saved = errno;
    size_t size;

    if (cpu >= 0 && cpu_current() == cpu && !cpu_isolated_below("/sys/devices/system/cpu")) {
        cpu_set_t *mask = mask_of_caller(&size);
        if (mask && CPU_ISSET_S((size_t)cpu, size, mask)) {
            leave(cpu, size, mask);
        }
        CPU_FREE(mask);
    }
    errno = saved;
}

unsigned cpu_available(void)
{
    int saved = errno;
    int cancel_state;
    unsigned cpus;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    cpus = smaller(cpu_allowed(), cpu_quota_below("/proc/self", ""));
    (void)pthread_setcancelstate(cancel_state, NULL);
    errno = saved;
    return cpus;
}
