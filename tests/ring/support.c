#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Asks the kernel, not the library: some tests must be the first to make the library look. */
bool uring_is_granted(void)
{
    struct io_uring_params params = {0};
    struct io_uring ring;
    int rc = io_uring_queue_init_params(2, &ring, &params);
    if (rc == 0) {
        io_uring_queue_exit(&ring);
    }
    return rc == 0;
}

struct reactor *get(int backend, bool own)
{
    struct reactor *reactor;
    int rc = reactor_get(&reactor, backend, own);
    cr_assert_eq(rc, 0, "reactor_get gave %d", rc);
    return reactor;
}

unsigned seed_of(const char *test)
{
    const char *given = getenv("RP_TEST_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)rp_now();
    fprintf(stderr, "%s: RP_TEST_SEED=%u\n", test, seed);
    return seed;
}

void deny_call(long number, int error, bool everywhere)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
#ifdef RP_VALGRIND
    cr_skip_test("memcheck makes these calls itself, or knows none that sets such a filter");
#endif
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    unsigned flags = everywhere ? SECCOMP_FILTER_FLAG_TSYNC : 0;
    cr_assert_eq(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program), 0);
}

static unsigned count_entries(const char *path)
{
    unsigned n = 0;
    DIR *directory = opendir(path);
    cr_assert_not_null(directory);
    while (readdir(directory)) {
        n++;
    }
    closedir(directory);
    return n;
}

unsigned count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

unsigned count_threads(void)
{
    return count_entries("/proc/self/task");
}

void await(_Atomic uint32_t *word, uint32_t value)
{
    uint32_t seen;
    while ((seen = load_acquire(word)) < value) {
        futex_wait(word, seen, 0);
    }
}

void announce(_Atomic uint32_t *word)
{
    add_acq_rel(word, 1);
    futex_wake(word, INT_MAX);
}

int in_child(int (*body)(void *argument), void *argument)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(body(argument));
    }
    cr_assert_gt(pid, 0);
    while (waitpid(pid, &status, 0) < 0) {
        cr_assert_eq(errno, EINTR);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
