/*
 * Runs a command as if the kernel had no io_uring: a seccomp filter answers io_uring_setup, io_uring_enter and
 * io_uring_register with EPERM, as the default profile of container runtimes does. The filter is inherited by all that
 * the command starts.
 *
 *   deny_io_uring COMMAND [ARGUMENT...]
 *   deny_io_uring --probe      exits with 0 if io_uring is granted here, else says on stdout why not and exits with 1
 *
 * Written against the kernel's interface alone, so that the tests need no libseccomp.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define OWN_ARCH AUDIT_ARCH_RISCV64
#else
#error "add the AUDIT_ARCH_ value of this architecture"
#endif

/* setup, enter and register have neighbouring numbers, the same on every architecture. */
_Static_assert(__NR_io_uring_enter == __NR_io_uring_setup + 1 && __NR_io_uring_register == __NR_io_uring_setup + 2,
               "one range covers the three calls");

static int probe(void)
{
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    long fd = syscall(__NR_io_uring_setup, 1, &params);
    return fd < 0 ? -errno : close((int)fd);
}

static int deny(void)
{
    struct sock_filter code[] = {
        /* A call by another architecture's numbers is not ours to judge: the library makes none. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, __NR_io_uring_setup, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, __NR_io_uring_register, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0)) {
        return -errno;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: deny_io_uring COMMAND [ARGUMENT...] | --probe\n");
        return 2;
    }
    if (strcmp(argv[1], "--probe") == 0) {
        int rc = probe();
        if (rc) {
            printf("io_uring_setup: %s\n", strerror(-rc));
        }
        return rc ? 1 : 0;
    }

    int rc = deny();
    if (rc) {
        fprintf(stderr, "deny_io_uring: the filter is refused: %s\n", strerror(-rc));
        return 2;
    }
    /* A filter that lets a call through would make every test that follows prove the wrong thing. */
    rc = probe();
    if (rc != -EPERM && rc != -ENOSYS) {
        fprintf(stderr, "deny_io_uring: io_uring_setup still gives %d\n", rc);
        return 2;
    }
    execvp(argv[1], argv + 1);
    fprintf(stderr, "deny_io_uring: %s: %s\n", argv[1], strerror(errno));
    return 127;
}
