/*
 * The probe. It asks the kernel by doing: opens the io_uring backend (set-up, a request there and back, features) and
 * closes it. Versions are never compared, as distributions take features back to old kernels and filters take them away
 * from new ones. Only after a refusal are settings read, to tell the user which of them decided.
 *
 * Whatever refuses decides for the process, even a limit that might be raised later: a process whose pools differ by
 * the moment they were made would be harder to understand than one that is on epoll throughout.
 */
#include "ring/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ringpool/base.h>
#include <ringpool/lock.h>

#include "base/fork.h"

enum { REASON_SIZE = 192, CAPABILITY_IPC_LOCK = 14, CAPABILITY_SYS_ADMIN = 21 };

struct verdict {
    bool uring;
    char reason[REASON_SIZE];    /* why not; empty if it is */
    char text[REASON_SIZE + 16]; /* rp_backend() */
};

/*
 * The verdict is written under the lock before `decided` becomes the fork generation + 1 (release), and read after that
 * was seen (acquire). A child writes its own beside its parent's, whose text somebody may still print.
 */
static struct rp_lock lock;
static _Atomic unsigned decided;
static struct verdict verdicts[2];

const char *probe_errno_name(int rc)
{
    static const struct {
        int code;
        const char *name;
    } names[] = {
        {EPERM, "EPERM"},   {EACCES, "EACCES"}, {ENOSYS, "ENOSYS"},         {EINVAL, "EINVAL"}, {ENOMEM, "ENOMEM"},
        {EMFILE, "EMFILE"}, {ENFILE, "ENFILE"}, {EOPNOTSUPP, "EOPNOTSUPP"}, {ENODEV, "ENODEV"}, {EAGAIN, "EAGAIN"},
        {EBUSY, "EBUSY"},   {ENOSPC, "ENOSPC"}, {ENXIO, "ENXIO"},           {EFAULT, "EFAULT"}, {EBADF, "EBADF"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].code == -rc) {
            return names[i].name;
        }
    }
    return "an unknown error";
}

/* The start of a file of /proc as a string, empty if it cannot be read. */
static void read_file(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, size - 1) : 0;
    out[n > 0 ? n : 0] = '\0';
    if (fd >= 0) {
        close(fd);
    }
}

/* What the kernel says of the calling thread, to whom it refused. */
struct standing {
    bool known, filtered;
    unsigned long long capabilities;
};

static struct standing standing_now(void)
{
    char status[4096];
    struct standing standing = {0};
    read_file("/proc/thread-self/status", status, sizeof status);
    const char *seccomp = strstr(status, "\nSeccomp:");
    const char *effective = strstr(status, "\nCapEff:");
    standing.known = seccomp && effective;
    if (standing.known) {
        standing.filtered = strtol(seccomp + strlen("\nSeccomp:"), NULL, 10) != 0;
        standing.capabilities = strtoull(effective + strlen("\nCapEff:"), NULL, 16);
    }
    return standing;
}

static bool capable(const struct standing *standing, unsigned capability)
{
    return (standing->capabilities >> capability) & 1;
}

/* 0 also where the kernel has no such setting (before 6.6). */
static long uring_disabled(void)
{
    char value[32];
    read_file("/proc/sys/kernel/io_uring_disabled", value, sizeof value);
    return strtol(value, NULL, 10);
}

static void explain_denial(char *out, size_t size, const struct backend_refusal *refusal)
{
    struct standing standing = standing_now();
    long disabled = strcmp(refusal->call, "io_uring_setup") == 0 ? uring_disabled() : 0;
    const char *name = probe_errno_name(refusal->rc);
    if (disabled >= 2) {
        snprintf(out, size, "io_uring denied by kernel.io_uring_disabled=%ld", disabled);
    } else if (disabled == 1 && standing.known && !capable(&standing, CAPABILITY_SYS_ADMIN)) {
        snprintf(out, size,
                 "io_uring denied by kernel.io_uring_disabled=1 without CAP_SYS_ADMIN or membership in "
                 "kernel.io_uring_group");
    } else if (standing.filtered) {
        snprintf(out, size, "io_uring denied by seccomp: %s gave %s", refusal->call, name);
    } else if (standing.known) {
        snprintf(out, size, "io_uring denied by a security module: %s gave %s", refusal->call, name);
    } else {
        snprintf(out, size, "io_uring denied by seccomp or a security module: %s gave %s", refusal->call, name);
    }
}

static void explain_memory(char *out, size_t size, const struct backend_refusal *refusal)
{
    struct standing standing = standing_now();
    struct rlimit limit;
    bool limited = strcmp(refusal->call, "io_uring_setup") == 0 && !capable(&standing, CAPABILITY_IPC_LOCK) &&
                   getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    if (limited) {
        snprintf(out, size, "io_uring denied by RLIMIT_MEMLOCK=%llu: no room left for a ring, ENOMEM",
                 (unsigned long long)limit.rlim_cur);
    } else {
        snprintf(out, size, "io_uring unavailable: no memory for a ring, %s gave ENOMEM", refusal->call);
    }
}

void probe_explain(char *out, size_t size, const struct backend_refusal *refusal)
{
    switch (-refusal->rc) {
    case EPERM:
    case EACCES:
        explain_denial(out, size, refusal);
        break;
    case ENOMEM:
        explain_memory(out, size, refusal);
        break;
    case ENOSYS:
        if (strcmp(refusal->call, "io_uring_setup") != 0) {
            snprintf(out, size, "io_uring unavailable: %s is missing, ENOSYS", refusal->call);
        } else if (standing_now().filtered) {
            snprintf(out, size,
                     "io_uring unavailable: a seccomp filter hides io_uring_setup or the kernel lacks it, "
                     "ENOSYS");
        } else {
            snprintf(out, size, "io_uring unavailable: kernel lacks io_uring_setup, ENOSYS");
        }
        break;
    case EMFILE:
        snprintf(out, size, "io_uring unavailable: RLIMIT_NOFILE is exhausted, %s gave EMFILE", refusal->call);
        break;
    case ENFILE:
        snprintf(out, size, "io_uring unavailable: fs.file-max is exhausted, %s gave ENFILE", refusal->call);
        break;
    default:
        snprintf(out, size, "io_uring unavailable: %s gave %s", refusal->call, probe_errno_name(refusal->rc));
        break;
    }
}

static void decide_locked(struct verdict *verdict)
{
    struct backend *backend;
    struct backend_refusal refusal;
    char reason[REASON_SIZE];
    verdict->uring = uring_backend.open(&backend, &refusal) == 0;
    if (verdict->uring) {
        verdict->reason[0] = '\0';
        snprintf(verdict->text, sizeof verdict->text, "io_uring (%s)", backend->note);
        backend->ops->close(backend);
    } else {
        probe_explain(reason, sizeof reason, &refusal);
        memcpy(verdict->reason, reason, sizeof reason);
        snprintf(verdict->text, sizeof verdict->text, "epoll (%s)", reason);
    }
}

/* A fork waits for a probe that runs, so that its child inherits neither the lock held nor the probe's descriptors. */
static void take_lock(void)
{
    rp_lock_acquire(&lock);
}

static void give_lock(void)
{
    rp_lock_release(&lock);
}

static const struct fork_hooks hooks = {.prepare = take_lock, .parent = give_lock, .child = give_lock};

static const struct verdict *verdict_now(void)
{
    unsigned now = fork_generation() + 1;
    struct verdict *verdict = &verdicts[now % 2];
    if (load_acquire(&decided) != now) {
        int saved = errno;
        fork_register(&hooks); /* its failure only means that a fork in these 100 us is not waited for */
        rp_lock_acquire(&lock);
        if (load_relaxed(&decided) != now) { /* relaxed: written under the lock */
            decide_locked(verdict);
            store_release(&decided, now);
        }
        rp_lock_release(&lock);
        errno = saved;
    }
    return verdict;
}

bool probe_uring(const char **reason)
{
    const struct verdict *verdict = verdict_now();
    *reason = verdict->reason;
    return verdict->uring;
}

const char *rp_backend(void)
{
    return verdict_now()->text;
}
