/*
 * CPUs: affinity and quota, the latter on machines that are made of files.
 */
#include "base/cpu.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define V2_MOUNT "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNT "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"

static char root[] = "/tmp/ringpool-cpu-XXXXXX";
static char proc_dir[PATH_MAX];

/* Writes a file of the machine, making the directories above it. */
static void put(const char *path, const char *text)
{
    char full[PATH_MAX];
    FILE *file;

    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    file = fopen(full, "we");
    cr_assert_not_null(file, "%s: %s", full, strerror(errno));
    fputs(text, file);
    fclose(file);
}

static void make_machine(void)
{
    cr_assert_not_null(mkdtemp(root));
    snprintf(proc_dir, sizeof(proc_dir), "%s/proc/self", root);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_machine(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static unsigned quota(void)
{
    return cpu_quota_below(proc_dir, root);
}

TestSuite(quota, .init = make_machine, .fini = remove_machine);

Test(quota, v2_rounds_up)
{
    static const struct {
        const char *text;
        unsigned cpus;
    } cases[] = {
        {"100000 100000\n", 1}, {"200000 100000\n", 2}, {"150000 100000\n", 2}, {"1000 100000\n", 1},
        {"100001 100000\n", 2}, {"50000 10000\n", 5},   {"max 100000\n", 0},    {"400000 100000", 4},
    };

    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put("/sys/fs/cgroup/app/cpu.max", cases[i].text);
        cr_assert_eq(quota(), cases[i].cpus, "%s", cases[i].text);
    }
}

Test(quota, v2_the_smallest_of_all_ancestors_counts)
{
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    put("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    cr_assert_eq(quota(), 0u);
    put("/sys/fs/cgroup/a/cpu.max", "600000 100000\n");
    cr_assert_eq(quota(), 6u);
    put("/sys/fs/cgroup/a/b/cpu.max", "300000 100000\n");
    cr_assert_eq(quota(), 3u);
    put("/sys/fs/cgroup/a/b/c/cpu.max", "400000 100000\n");
    cr_assert_eq(quota(), 3u);
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n"); /* the root of a container's namespace has one */
    cr_assert_eq(quota(), 2u);
    put("/sys/fs/cgroup/a/b/c/d/cpu.max", "100000 100000\n"); /* of a group below, and of one beside */
    put("/sys/fs/cgroup/x/cpu.max", "100000 100000\n");
    cr_assert_eq(quota(), 2u);
}

Test(quota, v2_nothing_above_the_mount_point_is_read)
{
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    put("/sys/fs/cpu.max", "100000 100000\n");
    put("/cpu.max", "100000 100000\n");
    cr_assert_eq(quota(), 0u);
}

Test(quota, v2_in_the_root_group)
{
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    cr_assert_eq(quota(), 0u);
    put("/sys/fs/cgroup/cpu.max", "300000 100000\n");
    cr_assert_eq(quota(), 3u);
}

Test(quota, v1_reads_quota_and_period)
{
    put("/proc/self/cgroup", "9:name=systemd:/x\n2:cpuset:/y\n1:cpu,cpuacct:/app\n0::/z\n");
    put("/proc/self/mountinfo", V1_MOUNT);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(quota(), 0u);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "250000\n");
    cr_assert_eq(quota(), 3u);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(quota(), 2u);
}

Test(quota, v1_other_controllers_are_not_mistaken_for_cpu)
{
    put("/proc/self/cgroup", "2:cpuset:/app\n1:cpuacct:/app\n");
    put("/proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                                "33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n");
    put("/sys/fs/cgroup/cpuset/app/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpuset/app/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpuacct/app/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpuacct/app/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(quota(), 0u);
}

Test(quota, hybrid_takes_the_smaller_of_v1_and_v2)
{
    put("/proc/self/cgroup", "1:cpu,cpuacct:/app\n0::/app\n");
    put("/proc/self/mountinfo", V1_MOUNT V2_MOUNT);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(quota(), 3u);
    put("/sys/fs/cgroup/app/cpu.max", "500000 100000\n");
    cr_assert_eq(quota(), 3u);
    put("/sys/fs/cgroup/app/cpu.max", "100000 100000\n");
    cr_assert_eq(quota(), 1u);
}

/* A container that sees its own group as the root of the mount, but the host's path in /proc/self/cgroup. */
Test(quota, the_root_of_the_mount_is_taken_off_the_path)
{
    put("/proc/self/cgroup", "0::/docker/abc/inner\n");
    put("/proc/self/mountinfo", "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    cr_assert_eq(quota(), 4u);
    put("/sys/fs/cgroup/inner/cpu.max", "200000 100000\n");
    cr_assert_eq(quota(), 2u);
    put("/proc/self/cgroup", "0::/docker/abc\n");
    cr_assert_eq(quota(), 4u);
}

Test(quota, a_mount_that_does_not_show_our_group_sets_no_limit)
{
    put("/proc/self/cgroup", "0::/docker/abcdef\n");
    put("/proc/self/mountinfo", "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n");
    cr_assert_eq(quota(), 0u);
    put("/proc/self/cgroup", "0::/../other\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    put("/sys/fs/other/cpu.max", "100000 100000\n");
    cr_assert_eq(quota(), 0u);
}

Test(quota, escaped_names_and_colons_in_the_path)
{
    put("/proc/self/cgroup", "0::/my app:1\n");
    put("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/c\\040group\\134 rw shared:1 master:2 - cgroup2 cgroup rw\n");
    put("/sys/fs/c group\\/my app:1/cpu.max", "300000 100000\n");
    cr_assert_eq(quota(), 3u);
}

Test(quota, a_mount_at_the_root_directory)
{
    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", "31 23 0:28 / / rw - cgroup2 cgroup rw\n");
    put("/app/cpu.max", "300000 100000\n");
    cr_assert_eq(quota(), 3u);
    put("/cpu.max", "200000 100000\n");
    cr_assert_eq(quota(), 2u);
}

Test(quota, malformed_limits_are_no_limits)
{
    static const char *const texts[] = {
        "",
        "\n",
        "max\n",
        "100000\n",
        "100000 \n",
        "abc 100000\n",
        "100000 0\n",
        "0 100000\n",
        "-5 100000\n",
        "1 -1\n",
        "1 abc\n",
        "99999999999999999999999999 100000\n",
        "9223372036854775807 1\n",
    };

    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        put("/sys/fs/cgroup/app/cpu.max", texts[i]);
        cr_assert_eq(quota(), 0u, "%s", texts[i]);
    }
}

Test(quota, malformed_tables_are_no_limits)
{
    static const char *const groups[] = {"", "\n", "0\n", "0:\n", "0::\n", "0::app\n", ":::\n", "no newline"};
    static const char *const mounts[] = {
        "",
        "\n",
        " - \n",
        " - cgroup2\n",
        "1 2 3 - cgroup2 cgroup2 rw\n",
        "1 2 3 / - cgroup2 cgroup2 rw\n",
        "1 2 3 / /sys/fs/cgroup rw cgroup2 cgroup2 rw\n",
        "1 2 3 app /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "1 2 3 / /sys/fs/cgroup rw - cgroup\n",
        "1 2 3 / /sys/fs/cgroup rw - tmpfs tmpfs rw,cpu\n",
        "1 2 3 / \\0 rw - cgroup2",
    };

    put("/sys/fs/cgroup/app/cpu.max", "100000 100000\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        put("/proc/self/cgroup", groups[i]);
        cr_assert_eq(quota(), 0u, "%s", groups[i]);
    }
    put("/proc/self/cgroup", "0::/app\n");
    cr_assert_eq(quota(), 1u);
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        put("/proc/self/mountinfo", mounts[i]);
        cr_assert_eq(quota(), 0u, "%s", mounts[i]);
    }
}

Test(quota, a_path_too_long_for_a_path_is_no_limit)
{
    char group[2 * PATH_MAX] = "0::";

    memset(group + 3, 'x', sizeof(group) - 4);
    group[3] = '/';
    put("/proc/self/cgroup", group);
    put("/proc/self/mountinfo", V2_MOUNT);
    cr_assert_eq(quota(), 0u);
}

Test(quota, without_proc_there_is_no_limit)
{
    cr_assert_eq(quota(), 0u);
    put("/proc/self/cgroup", "0::/app\n");
    cr_assert_eq(quota(), 0u);
}

Test(quota, isolated_cpus_are_told)
{
    static const struct {
        const char *text;
        bool isolated;
    } cases[] = {{"2-5,7\n", true}, {"0\n", true}, {"3", true}, {"\n", false}, {"", false}};
    char sys_dir[PATH_MAX];

    snprintf(sys_dir, sizeof(sys_dir), "%s/sys", root);
    cr_assert_not(cpu_isolated_below(sys_dir));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        put("/sys/isolated", cases[i].text);
        cr_expect_eq(cpu_isolated_below(sys_dir), cases[i].isolated, "\"%s\"", cases[i].text);
    }
}

Test(cpu, available_is_at_least_one_and_at_most_the_affinity)
{
    cpu_set_t mask;
    unsigned cpus;

    errno = ENOTTY;
    cpus = cpu_available();
    cr_assert_eq(errno, ENOTTY);
    cr_assert_geq(cpus, 1u);
    if (sched_getaffinity(0, sizeof(mask), &mask) == 0) {
        cr_assert_leq(cpus, (unsigned)CPU_COUNT(&mask));
    }
}

/* Leaves the caller the first CPU that it may use, and returns its number. */
static int keep_one_cpu(void)
{
    cpu_set_t all, one;
    int cpu = 0;

    cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    while (!CPU_ISSET(cpu, &all)) {
        cpu++;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    return cpu;
}

Test(cpu, available_follows_the_affinity_mask)
{
    keep_one_cpu();
    cr_assert_eq(cpu_available(), 1u);
}

Test(cpu, current_is_the_cpu_that_we_are_bound_to)
{
    int cpu = keep_one_cpu();

    cr_assert_eq(cpu_current(), cpu);
    cr_assert_eq(cpu_current(), sched_getcpu());
}

/* Reads the caller's mask, and counts it. */
static int cpus_of_mask(cpu_set_t *mask)
{
    cr_assert_eq(sched_getaffinity(0, sizeof(*mask), mask), 0);
    return CPU_COUNT(mask);
}

/* The kernel may move us back at any time, but not each time. */
Test(cpu, leaving_moves_the_caller_and_keeps_its_mask)
{
    cpu_set_t before, after;
    int moved = 0;

    if (cpus_of_mask(&before) < 2)
        cr_skip_test("one CPU");
    if (cpu_isolated_below("/sys/devices/system/cpu"))
        cr_skip_test("isolated CPUs");
    for (int tries = 0; tries < 100; tries++) {
        int cpu = cpu_current();

        errno = ENOTTY;
        cpu_leave(cpu);
        moved += cpu_current() != cpu;
        cr_assert_eq(errno, ENOTTY);
        cpus_of_mask(&after);
        cr_assert(CPU_EQUAL(&before, &after));
    }
    cr_assert_gt(moved, 50);
}

Test(cpu, leaving_the_only_cpu_or_none_does_nothing)
{
    cpu_set_t before, after;
    int cpu = keep_one_cpu();

    cpus_of_mask(&before);
    cpu_leave(cpu);
    cpu_leave(-1);
    cpu_leave(cpu + 1);
    cpu_leave(INT_MAX);
    cpus_of_mask(&after);
    cr_assert(CPU_EQUAL(&before, &after));
    cr_assert_eq(cpu_current(), cpu);
}
