/*
 * Which backend a process gets, and whether it is told the truth about why.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ring/probe.h"
#include "support.h"

struct ping {
    struct work work;
    struct timer timer;
    _Atomic uint32_t ran;
};

static void ping_run(struct work *work)
{
    announce(&((struct ping *)((char *)work - offsetof(struct ping, work)))->ran);
}

static void ping_fire(struct timer *timer)
{
    announce(&((struct ping *)((char *)timer - offsetof(struct ping, timer)))->ran);
}

/* Work is run and a timer fires while the reactor sleeps; with a pause, so that both meet it asleep. */
static void assert_works(struct reactor *reactor)
{
    struct ping ping = {.work = {.run = ping_run}};
    timer_init(&ping.timer, reactor, ping_fire);
    reactor_post(reactor, &ping.work);
    await(&ping.ran, 1);
    timer_arm(&ping.timer, rp_after(2000000));
    await(&ping.ran, 2);
    timer_cancel_wait(&ping.timer);
}

static void assert_falls_back(const char *text)
{
    struct reactor *reactor = get(RP_BACKEND_AUTO, false);
    cr_assert_str_eq(rp_backend(), text);
    cr_assert_str_eq(reactor_backend(reactor), text);
    assert_works(reactor);
    reactor_put(reactor);
}

static int get_by_name(void)
{
    struct reactor *reactor;
    int rc = reactor_get(&reactor, RP_BACKEND_IO_URING, true);
    cr_assert_null(reactor);
    return rc;
}

/* The kernel's own word, which outranks a filter's. */
static bool setting_denies(void)
{
    FILE *file = fopen("/proc/sys/kernel/io_uring_disabled", "re");
    int value = 0;

    if (!file)
        return false;
    bool denies = fscanf(file, "%d", &value) == 1 && value;
    fclose(file);
    return denies;
}

Test(probe, eperm_of_a_filter_is_told)
{
    if (setting_denies())
        cr_skip_test("kernel.io_uring_disabled is set");
    deny_call(SYS_io_uring_setup, EPERM, false);
    assert_falls_back("epoll (io_uring denied by seccomp: io_uring_setup gave EPERM)");
    cr_assert_eq(get_by_name(), -EPERM);
}

Test(probe, enosys_of_a_filter_is_told)
{
    if (!uring_is_granted()) {
        cr_skip_test("no io_uring here"); /* another filter may be there already, and EPERM outranks ENOSYS or not */
    }
    deny_call(SYS_io_uring_setup, ENOSYS, false);
    assert_falls_back("epoll (io_uring unavailable: a seccomp filter hides io_uring_setup or the kernel lacks it, "
                      "ENOSYS)");
    cr_assert_eq(get_by_name(), -ENOSYS);
}

Test(probe, a_filter_that_denies_only_enter_is_found_by_the_round_trip)
{
    if (!uring_is_granted()) {
        cr_skip_test("no io_uring here");
    }
    unsigned descriptors = count_descriptors();
    deny_call(SYS_io_uring_enter, EPERM, false);
    assert_falls_back("epoll (io_uring denied by seccomp: io_uring_enter gave EPERM)");
    cr_assert_eq(get_by_name(), -EPERM);
    cr_assert_eq(count_descriptors(), descriptors);
}

Test(probe, a_granted_ring_is_told_with_its_flags)
{
    if (!uring_is_granted()) {
        cr_skip_test("no io_uring here");
    }
    struct reactor *reactor = get(RP_BACKEND_AUTO, false);
    cr_assert_str_eq(reactor_backend(reactor), rp_backend());
    cr_assert_eq(strncmp(rp_backend(), "io_uring (", 10), 0, "%s", rp_backend());
    assert_works(reactor);
    reactor_put(reactor);
}

/* The thread sits in a ring that it may no longer enter: it must neither spin nor go deaf. */
Test(probe, a_filter_installed_later_breaks_no_reactor)
{
    if (!uring_is_granted()) {
        cr_skip_test("no io_uring here");
    }
    struct reactor *reactor = get(RP_BACKEND_IO_URING, true);
    assert_works(reactor);
    deny_call(SYS_io_uring_enter, EPERM, true);
    assert_works(reactor);
    assert_works(reactor);
    reactor_put(reactor);
}

Test(probe, epoll_without_its_precise_wait_uses_a_timer_descriptor)
{
    deny_call(441, ENOSYS, false); /* epoll_pwait2 */
    struct reactor *reactor = get(RP_BACKEND_EPOLL, true);
    assert_works(reactor);
    assert_works(reactor);
    reactor_put(reactor);
}

Test(probe, epoll_denied_later_breaks_no_reactor)
{
    struct reactor *reactor = get(RP_BACKEND_EPOLL, true);
    assert_works(reactor);
    deny_call(441, EPERM, true);
    assert_works(reactor);
    assert_works(reactor);
    reactor_put(reactor);
}

Test(probe, locked_memory_is_named_when_it_decides)
{
    struct rlimit none = {0, 0};
    if (!uring_is_granted() || setrlimit(RLIMIT_MEMLOCK, &none) != 0 || setresuid(65534, 65534, 65534) != 0) {
        cr_skip_test("needs io_uring and root");
    }
    /* Not every kernel counts rings as locked memory; one that does must be understood. */
    struct reactor *reactor = get(RP_BACKEND_AUTO, false);
    if (strncmp(rp_backend(), "io_uring", 8) != 0) {
        cr_assert_str_eq(rp_backend(), "epoll (io_uring denied by RLIMIT_MEMLOCK=0: no room left for a ring, ENOMEM)");
        cr_assert_eq(get_by_name(), -ENOMEM);
    }
    assert_works(reactor);
    reactor_put(reactor);
}

/* Whether a filter of system calls is set, by /proc/self/status. */
static bool filtered(void)
{
    char line[256];
    bool is = false;
    FILE *status = fopen("/proc/self/status", "re");
    cr_assert_not_null(status);
    while (fgets(line, sizeof line, status)) {
        is |= strncmp(line, "Seccomp:", 8) == 0 && !strchr(line, '0');
    }
    fclose(status);
    return is;
}

static void assert_explains(const char *call, int rc, const char *text)
{
    char out[200];
    probe_explain(out, sizeof out, &(struct backend_refusal){.call = call, .rc = rc});
    cr_assert_str_eq(out, text);
}

Test(probe, a_refusal_is_told_by_what_decided)
{
    assert_explains("io_uring_setup", -ENFILE,
                    "io_uring unavailable: fs.file-max is exhausted, io_uring_setup gave ENFILE");
    assert_explains("eventfd", -EMFILE, "io_uring unavailable: RLIMIT_NOFILE is exhausted, eventfd gave EMFILE");
    assert_explains("io_uring_enter", -ENOSYS, "io_uring unavailable: io_uring_enter is missing, ENOSYS");
    assert_explains("io_uring_setup", -EINVAL, "io_uring unavailable: io_uring_setup gave EINVAL");
    assert_explains("calloc", -ENOMEM, "io_uring unavailable: no memory for a ring, calloc gave ENOMEM");
    if (filtered()) {
        assert_explains("io_uring_enter", -EACCES, "io_uring denied by seccomp: io_uring_enter gave EACCES");
        assert_explains("io_uring_setup", -ENOSYS,
                        "io_uring unavailable: a seccomp filter hides io_uring_setup or the kernel lacks it, ENOSYS");
    } else {
        assert_explains("io_uring_enter", -EACCES, "io_uring denied by a security module: io_uring_enter gave EACCES");
        assert_explains("io_uring_setup", -ENOSYS, "io_uring unavailable: kernel lacks io_uring_setup, ENOSYS");
    }
}

Test(probe, a_limit_of_locked_memory_is_named_where_it_binds)
{
    struct rlimit little = {65536, 65536};
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &little), 0);
    if (geteuid() == 0) {
        assert_explains("io_uring_setup", -ENOMEM,
                        "io_uring unavailable: no memory for a ring, io_uring_setup gave ENOMEM");
        cr_assert_eq(setresuid(65534, 65534, 65534), 0);
    }
    assert_explains("io_uring_setup", -ENOMEM,
                    "io_uring denied by RLIMIT_MEMLOCK=65536: no room left for a ring, ENOMEM");
}

static void limit_descriptors(rlim_t n, struct rlimit *old)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, old), 0);
    limit = *old;
    limit.rlim_cur = n;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* With 0, 1, 2 ... descriptors left every step of opening fails once, and each time a way remains. */
Test(probe, exhausted_descriptors_leave_a_working_reactor)
{
    unsigned descriptors = count_descriptors();
    int first_free = dup(0);
    cr_assert_geq(first_free, 0);
    close(first_free);
    for (int backend = RP_BACKEND_AUTO; backend <= RP_BACKEND_EPOLL; backend++) {
        for (unsigned left = 0; left < 5; left++) {
            struct rlimit old;
            struct reactor *reactor;
            limit_descriptors((rlim_t)first_free + left, &old);
            int rc = reactor_get(&reactor, backend, true);
            setrlimit(RLIMIT_NOFILE, &old);
            if (backend == RP_BACKEND_IO_URING && rc < 0) {
                cr_assert(rc == -EMFILE || rc == -EPERM || rc == -ENOSYS, "%d", rc);
                continue;
            }
            cr_assert_eq(rc, 0, "%d", rc);
            if (left == 0) {
                cr_assert_not_null(strstr(reactor_backend(reactor), "sleeps on a futex as eventfd gave EMFILE"));
            }
            assert_works(reactor);
            reactor_put(reactor);
        }
    }
    cr_assert_eq(count_descriptors(), descriptors);
}

Test(probe, the_reason_of_exhausted_descriptors_is_kept)
{
    struct rlimit old;
    if (!uring_is_granted()) {
        cr_skip_test("no io_uring here");
    }
    limit_descriptors(0, &old);
    const char *text = rp_backend();
    setrlimit(RLIMIT_NOFILE, &old);
    cr_assert_str_eq(text, "epoll (io_uring unavailable: RLIMIT_NOFILE is exhausted, io_uring_setup gave EMFILE)");
    cr_assert_eq(rp_backend(), text);
}
