/*
 * The supervisor: runs a program and answers chosen system calls of all its threads with chosen errors.
 *
 *   supervisor [--fail CALL:ERRNO:N[-]]... [--count] [--limit SECONDS] [--hold] PROGRAM [ARGUMENT...]
 *
 * --fail answers the Nth call of that name with ERRNO instead of letting the kernel see it; with a dash, every one
 * from the Nth on. --count says on stdout how often each call of the table below was made. Calls count only between the
 * two marks that the program sets (prctl with the number of marks.h), so that the dynamic linker and the program's own
 * preparations are left alone. A program that is not through after the limit (20 s) is hung: its threads are listed and
 * it is killed, or, with --hold, left for a debugger.
 *
 * Exits with 0 when the program did and every fault was met, with 3 when it did and a fault was not (there were fewer
 * calls), with the program's status when that is not 0, with 128 + the signal that killed it, 124 for a hang, 125 for a
 * mistake of its own.
 *
 * A seccomp filter with user notification reaches what preloading cannot: raw system calls and those that liburing
 * inlines. The filter is installed between fork and exec, and its descriptor is sent to the parent. Written against the
 * kernel's interface alone, as tests/support/deny_io_uring.c is.
 */
#include "marks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <urcu/static/urcu-bp.h>

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define OWN_ARCH AUDIT_ARCH_RISCV64
#else
#error "add the AUDIT_ARCH_ value of this architecture"
#endif

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5) /* 5.19 */
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum { OK = 0, NOT_MET = 3, HUNG = 124, MISTAKE = 125 };

/*
 * futex_wait is FUTEX_WAIT and FUTEX_WAIT_BITSET. mmap_liburcu are the mappings that liburcu makes for its registry of
 * readers, known by their length (a header and 8 readers, doubled again and again): it answers their failure by
 * abort(). A mapping of ours that happens to have such a length is counted among them.
 */
static const struct call {
    const char *name;
    int number;
} calls[] = {
    {"clone3", SYS_clone3},
    {"clone", SYS_clone},
    {"mmap", SYS_mmap},
    {"mmap_liburcu", SYS_mmap},
    {"munmap", SYS_munmap},
    {"mprotect", SYS_mprotect},
    {"madvise", SYS_madvise},
    {"io_uring_setup", SYS_io_uring_setup},
    {"io_uring_enter", SYS_io_uring_enter},
    {"io_uring_register", SYS_io_uring_register},
    {"futex_wait", SYS_futex},
    {"eventfd2", SYS_eventfd2},
    {"epoll_create1", SYS_epoll_create1},
    {"epoll_ctl", SYS_epoll_ctl},
    {"epoll_pwait2", SYS_epoll_pwait2},
#ifdef SYS_epoll_wait
    {"epoll_wait", SYS_epoll_wait},
#endif
    {"epoll_pwait", SYS_epoll_pwait},
    {"ppoll", SYS_ppoll},
    {"timerfd_create", SYS_timerfd_create},
    {"timerfd_settime", SYS_timerfd_settime},
    {"membarrier", SYS_membarrier},
    {"sched_setscheduler", SYS_sched_setscheduler},
    {"sched_setaffinity", SYS_sched_setaffinity},
    {"sched_getaffinity", SYS_sched_getaffinity},
    {"read", SYS_read},
    {"write", SYS_write},
    {"openat", SYS_openat},
    {"newfstatat", SYS_newfstatat},
    {"sigaltstack", SYS_sigaltstack},
};
enum { CALLS = sizeof(calls) / sizeof(calls[0]), FAULTS_MAX = 8, FILTER_MAX = 16 + 3 * CALLS };

static const struct {
    const char *name;
    int code;
} errors[] = {
    {"EPERM", EPERM},   {"ENOENT", ENOENT}, {"EINTR", EINTR},   {"EIO", EIO},
    {"ENXIO", ENXIO},   {"EBADF", EBADF},   {"EAGAIN", EAGAIN}, {"ENOMEM", ENOMEM},
    {"EACCES", EACCES}, {"EFAULT", EFAULT}, {"EBUSY", EBUSY},   {"EEXIST", EEXIST},
    {"ENODEV", ENODEV}, {"EINVAL", EINVAL}, {"ENFILE", ENFILE}, {"EMFILE", EMFILE},
    {"ENOSPC", ENOSPC}, {"ENOSYS", ENOSYS}, {"EBADFD", EBADFD}, {"EBADR", EBADR},
    {"ESRCH", ESRCH},   {"ELOOP", ELOOP},   {"ETIME", ETIME},   {"EOPNOTSUPP", EOPNOTSUPP},
    {"SPURIOUS", 0}, /* success though nothing was done: of a futex wait, a wake without cause */
};

struct fault {
    int call, code;
    unsigned long first;
    bool onward, met;
};

static struct fault faults[FAULTS_MAX];
static unsigned faults_count;
static unsigned long made[CALLS]; /* between the marks */
static bool counting, hold;
static double limit = 20;

static void complain(const char *what)
{
    fprintf(stderr, "supervisor: %s: %s\n", what, strerror(errno));
}

/* --- the program's side ------------------------------------------------------------------------------------------- */

/* Whether the filter asks about this call at all: what nobody counts or fails costs nothing. */
static bool is_watched(int call)
{
    for (unsigned i = 0; i < faults_count; i++)
        if (calls[faults[i].call].number == calls[call].number)
            return true;
    return counting;
}

static unsigned filter_write(struct sock_filter code[FILTER_MAX])
{
    const struct sock_filter ask = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_filter head[] = {
        /* A call by another architecture's numbers is none of the library's. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0),
        allow,
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])), /* the low half: little endian */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1),
        ask,
        allow,
    };
    const struct sock_filter futex_waits[] = {
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x7f), /* without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0 /* FUTEX_WAIT */, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 9 /* FUTEX_WAIT_BITSET */, 0, 1),
        ask,
        allow,
    };
    unsigned n = sizeof(head) / sizeof(head[0]);

    memcpy(code, head, sizeof(head));
    for (int call = 0; call < CALLS; call++) {
        if (!is_watched(call))
            continue;
        if (calls[call].number == SYS_futex) {
            memcpy(code + n, futex_waits, sizeof(futex_waits));
            n += sizeof(futex_waits) / sizeof(futex_waits[0]);
        } else {
            code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[call].number, 0, 1);
            code[n++] = ask;
        }
    }
    code[n++] = allow;
    return n;
}

/* The descriptor on which the kernel asks. With the second flag a signal does not make an asked call begin anew. */
static int filter_install(void)
{
    struct sock_filter code[FILTER_MAX];
    struct sock_fprog program = {.len = (unsigned short)filter_write(code), .filter = code};
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (fd < 0 && errno == EINVAL)
        fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return (int)fd;
}

/* sendmsg and recvmsg, as the filter may already ask about write. */
static int descriptor_send(int socket, int fd)
{
    char byte = 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fd))};
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

static int descriptor_receive(int socket)
{
    char byte;
    int fd = -1;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)};

    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

static _Noreturn void program_run(int socket, char **argv)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = filter_install();
    if (fd < 0 || descriptor_send(socket, fd)) {
        complain("the filter is refused");
        _exit(MISTAKE);
    }
    close(fd);
    close(socket);
    execvp(argv[0], argv);
    complain(argv[0]);
    _exit(MISTAKE);
}

/* --- answering ---------------------------------------------------------------------------------------------------- */

static bool is_of_liburcu(const struct seccomp_data *data)
{
    for (uint64_t length = 32 + 8 * sizeof(struct urcu_bp_reader); length < UINT64_C(1) << 32; length *= 2)
        if (data->args[1] == length)
            return true;
    return false;
}

static int call_of(const struct seccomp_data *data)
{
    for (int call = 0; call < CALLS; call++)
        if (calls[call].number == data->nr &&
            (data->nr != SYS_mmap || !strcmp(calls[call].name, "mmap_liburcu") == is_of_liburcu(data)))
            return call;
    return -1;
}

/* NULL: the kernel shall have it. */
static struct fault *fault_of(const struct seccomp_data *data)
{
    int call = call_of(data);

    if (call < 0)
        return NULL;
    made[call]++;
    for (unsigned i = 0; i < faults_count; i++)
        if (faults[i].call == call &&
            (made[call] == faults[i].first || (faults[i].onward && made[call] > faults[i].first)))
            return &faults[i];
    return NULL;
}

/* Answers one question. False: there will be no more. */
static bool answer(int listener, bool *between)
{
    struct seccomp_notif question;
    struct seccomp_notif_resp response;
    struct fault *fault = NULL;

    memset(&question, 0, sizeof(question));
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &question))
        return errno == EINTR || errno == ENOENT; /* it was killed before we saw it */
    response = (struct seccomp_notif_resp){.id = question.id};
    if (question.data.nr == SYS_prctl) {
        *between = question.data.args[1] == MARK_BEGIN;
    } else if (*between && (fault = fault_of(&question.data))) {
        fault->met = true;
        response.error = -fault->code;
    } else {
        response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    }
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* ENOENT: it was killed meanwhile */
    return true;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static double now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void print_file(pid_t pid, const char *task, const char *file)
{
    char path[320], text[160];

    snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", (int)pid, task, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text));
    while (n > 0 && text[n - 1] == '\n')
        n--;
    fprintf(stderr, " %.*s", n > 0 ? (int)n : 0, text);
    if (fd >= 0)
        close(fd);
}

/* Of each thread: its name, the call it is in with the arguments, and where in the kernel it waits. */
static void list_threads(pid_t pid)
{
    char path[64];
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    while (folder && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        fprintf(stderr, "    thread %s", entry->d_name);
        print_file(pid, entry->d_name, "comm");
        print_file(pid, entry->d_name, "syscall");
        print_file(pid, entry->d_name, "wchan");
        fprintf(stderr, "\n");
    }
    if (folder)
        closedir(folder);
}

static int hung(pid_t pid)
{
    fprintf(stderr, "supervisor: hung: not through after %.0f s\n", limit);
    list_threads(pid);
    if (hold) {
        fprintf(stderr, "supervisor: held as process %d\n", (int)pid);
        pause();
    }
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return HUNG;
}

static int verdict(int status)
{
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    if (WEXITSTATUS(status))
        return WEXITSTATUS(status);
    if (counting)
        for (int call = 0; call < CALLS; call++)
            printf("%s %lu\n", calls[call].name, made[call]);
    for (unsigned i = 0; i < faults_count; i++)
        if (!faults[i].met)
            return NOT_MET;
    return OK;
}

/*
 * Until the program ends. Its children may outlive it and keep the listener open: its end is looked for by itself. The
 * limit is one of time in which we ran: a turn counts as TURN_MOST at the most, so that a machine that stands still,
 * and the program with it, is no hang.
 */
#define TURN_MOST 0.1
static int supervise(pid_t pid, int listener)
{
    double spent = 0, before = now();
    bool between = false, asked = true;
    int status;

    for (;;) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        int n = poll(&ready, 1, asked ? 20 : 1);

        if (n > 0 && ready.revents & POLLIN)
            asked = answer(listener, &between);
        else if (waitpid(pid, &status, WNOHANG) == pid)
            return verdict(status);
        else if (n > 0) /* no thread has the filter any more: its end is near */
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        double at = now();
        spent += at - before < TURN_MOST ? at - before : TURN_MOST;
        before = at;
        if (spent > limit)
            return hung(pid);
    }
}

/* --- arguments ---------------------------------------------------------------------------------------------------- */

static int fault_add(const char *text)
{
    char call[32], code[32], dash[2] = "";
    struct fault *fault = &faults[faults_count];

    *fault = (struct fault){.call = -1, .code = -1};
    /* NOLINTNEXTLINE(cert-err34-c): what does not fit the format is refused. */
    if (faults_count == FAULTS_MAX || sscanf(text, "%31[^:]:%31[^:]:%lu%1[-]", call, code, &fault->first, dash) < 3)
        return -1;
    for (int i = 0; i < CALLS; i++)
        if (strcmp(calls[i].name, call) == 0)
            fault->call = i;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (strcmp(errors[i].name, code) == 0)
            fault->code = errors[i].code;
    fault->onward = dash[0] == '-';
    faults_count++;
    return fault->call < 0 || fault->code < 0 || fault->first == 0 ? -1 : 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: supervisor [--fail CALL:ERRNO:N[-]]... [--count] [--limit SECONDS] [--hold] PROGRAM "
                    "[ARGUMENT...]\n");
    return MISTAKE;
}

int main(int argc, char **argv)
{
    int pair[2], i = 1;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--count") == 0)
            counting = true;
        else if (strcmp(argv[i], "--hold") == 0)
            hold = true;
        else if (strcmp(argv[i], "--limit") == 0 && i + 1 < argc)
            limit = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--fail") != 0 || i + 1 == argc || fault_add(argv[++i]))
            return usage();
    }
    if (i == argc)
        return usage();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        complain("socketpair");
        return MISTAKE;
    }
    pid_t pid = fork();
    if (pid == 0)
        program_run(pair[1], argv + i);
    close(pair[1]);
    int listener = pid < 0 ? -1 : descriptor_receive(pair[0]);
    if (listener < 0) {
        fprintf(stderr, "supervisor: cannot start\n");
        return MISTAKE;
    }
    return supervise(pid, listener);
}
