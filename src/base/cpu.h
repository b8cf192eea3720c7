/*
 * CPUs: how many this process may use, and which one the caller runs on.
 */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__has_include)
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#define CPU_RSEQ 1
#endif
#endif

/*
 * CPUs that the caller's affinity mask allows (threads inherit it), less where the cgroup's quota grants fewer (v2
 * cpu.max of every ancestor, v1 cfs_quota/period), a quota rounded up; at least 1. Reads files: for set-up, not for
 * every task. Keeps errno; no cancellation point.
 */
unsigned cpu_available(void);

/* CPUs that the caller's affinity mask allows, at least 1. A system call. Keeps errno. */
unsigned cpu_allowed(void);

/*
 * Moves the caller to another CPU if it runs on this one (-1: none) and its affinity mask allows another; the mask is
 * afterwards what it was. Where the kernel does not do it the caller stays, and so it does on a machine that keeps CPUs
 * out of the kernel's balancing: it would stay for good where it was put, on somebody else's CPU perhaps. A file is
 * read, for set-up; a cancellation point. Keeps errno.
 */
void cpu_leave(int cpu);

/*
 * Whether the file `isolated` below sys_dir ("/sys/devices/system/cpu") names CPUs that are kept out of the kernel's
 * balancing (isolcpus= in its admin-guide/kernel-parameters). What is not to be read names none.
 */
bool cpu_isolated_below(const char *sys_dir);

/*
 * The cgroup's part of cpu_available: CPUs that the quota grants, rounded up, 0 for no limit. Reads `cgroup` and
 * `mountinfo` below proc_dir ("/proc/self"), and puts fs_prefix ("") before every mount point that they name, so that
 * a test can show it another machine.
 */
unsigned cpu_quota_below(const char *proc_dir, const char *fs_prefix);

/*
 * The CPU that the caller runs on now (a hint: it may have moved), or -1 where nothing tells. From the rseq area that
 * glibc registers (a load, 0.3 ns; glibc 2.35), else sched_getcpu.
 */
static inline int cpu_current(void)
{
#ifdef CPU_RSEQ
    /* A size of 0: the kernel has no rseq, or glibc was told not to register it (glibc.pthread.rseq=0). */
    if (__builtin_expect(__rseq_size != 0, 1)) {
#if defined(__x86_64__) && !defined(__ILP32__)
        const char *self; /* the psABI's thread pointer; clang 14 has no __builtin_thread_pointer here */

        __asm__("movq %%fs:0, %0" : "=r"(self));
#else
        const char *self = (const char *)__builtin_thread_pointer();
#endif
        const struct rseq *area = (const struct rseq *)(const void *)(self + __rseq_offset);
        const volatile uint32_t *cpu_id = &area->cpu_id; /* the kernel writes it at each move; negative: no rseq here */
        int32_t cpu = (int32_t)*cpu_id;

        if (__builtin_expect(cpu >= 0, 1)) {
            return cpu;
        }
    }
#endif
    return sched_getcpu();
}

#endif
