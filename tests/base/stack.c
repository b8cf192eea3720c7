/*
 * Thread stacks: usable to the last byte, guarded below, and given back without being unmapped.
 */
#include "base/stack.h"

#include "base/atomic.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static size_t page;

static void setup(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
}

TestSuite(stack, .init = setup);

/* Whether the kernel may read a byte there: a fault becomes EFAULT instead of a signal. */
static bool readable(const char *at)
{
    int ends[2];
    ssize_t n;

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    n = write(ends[1], at, 1);
    close(ends[0]);
    close(ends[1]);
    return n == 1;
}

Test(stack, is_at_least_as_large_as_asked_and_in_whole_pages)
{
    const size_t sizes[] = {0, 1, page - 1, page, page + 1, 256 * 1024, 1000001};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct stack stack;

        cr_assert_eq(stack_map(&stack, sizes[i], 0), 0);
        cr_assert_geq(stack.size, sizes[i]);
        cr_assert_lt(stack.size, sizes[i] + page + 1);
        cr_assert_eq(stack.size % page, 0u);
        cr_assert_eq((uintptr_t)stack.base % page, 0u);
        memset(stack.base, 0xaa, stack.size);
        stack_unmap(&stack);
    }
}

Test(stack, holds_zeroed_bytes_for_its_owner_above)
{
    const size_t above[] = {1, CACHE_APART, CACHE_APART + 1, 1280, page, 3 * page + 1};

    for (size_t i = 0; i < sizeof(above) / sizeof(above[0]); i++) {
        struct stack stack;

        cr_assert_eq(stack_map(&stack, 4 * page, above[i]), 0);
        char *owned = stack_above(&stack);
        cr_assert_geq(stack.size, 4 * page);
        cr_assert_geq(stack.above, above[i]);
        cr_assert_eq((uintptr_t)owned % CACHE_APART, 0u);
        cr_assert_eq((uintptr_t)(owned + stack.above) % page, 0u);
        for (size_t byte = 0; byte < above[i]; byte++)
            cr_assert_eq(owned[byte], 0);
        memset(stack.base, 0xaa, stack.size + stack.above);
        stack_unmap(&stack);
        cr_assert_not(readable(owned));
        cr_assert_null(stack.base);
    }
}

Test(stack, has_a_guard_page_below)
{
    struct stack stack;

    cr_assert_eq(stack_map(&stack, 4 * page, 0), 0);
    cr_assert(readable(stack.base));
    cr_assert(readable((char *)stack.base + stack.size - 1));
    cr_assert_not(readable((char *)stack.base - 1));
    cr_assert_not(readable((char *)stack.base - page));
    stack_unmap(&stack);
}

static void *address_of_a_local(void *arg)
{
    volatile char local[1000];

    local[0] = 1;
    local[999] = local[0];
    *(uintptr_t *)arg = (uintptr_t)__builtin_frame_address(0);
    return NULL;
}

Test(stack, a_thread_runs_on_it)
{
    struct stack stack;
    pthread_attr_t attr;
    pthread_t thread;
    uintptr_t address = 0;

    cr_assert_eq(stack_map(&stack, 256 * 1024 + stack_tls_size(), 0), 0);
    pthread_attr_init(&attr);
    cr_assert_eq(pthread_attr_setstack(&attr, stack.base, stack.size), 0);
    cr_assert_eq(pthread_create(&thread, &attr, address_of_a_local, &address), 0);
    pthread_join(thread, NULL);
    cr_assert(address >= (uintptr_t)stack.base && address < (uintptr_t)stack.base + stack.size);
    pthread_attr_destroy(&attr);
    stack_unmap(&stack);
}

Test(stack, unmap_takes_the_guard_page_along_and_may_be_repeated)
{
    struct stack stack;
    unsigned char resident;
    char *base;

    cr_assert_eq(stack_map(&stack, page, 0), 0);
    base = stack.base;
    stack_unmap(&stack);
    cr_assert_eq(mincore(base - page, page, &resident), -1);
    cr_assert_eq(mincore(base, page, &resident), -1);
    cr_assert_null(stack.base);
    stack_unmap(&stack);
}

Test(stack, does_not_take_huge_pages)
{
    struct stack stack;
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[512], head[32];
    bool in_stack = false, refused = false;

#ifdef RP_VALGRIND
    cr_skip("memcheck shows a /proc/self/smaps of its own");
#endif
    if (!maps || access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK)) {
        cr_skip("this kernel has no huge pages to refuse, or no smaps");
    }
    cr_assert_eq(stack_map(&stack, 4 << 20, 0), 0);
    snprintf(head, sizeof(head), "%lx-", (unsigned long)stack.base);
    while (fgets(line, sizeof(line), maps)) {
        if (strncmp(line, head, strlen(head)) == 0) {
            in_stack = true;
        } else if (in_stack && strncmp(line, "VmFlags:", 8) == 0) {
            refused = strstr(line, " nh") != NULL;
            break;
        }
    }
    fclose(maps);
    cr_assert(in_stack);
    cr_assert(refused);
    stack_unmap(&stack);
}

Test(stack, without_address_space_is_enomem_and_errno_is_kept)
{
    struct stack stack = {0};
    struct rlimit before, none;
    int rc;

    cr_assert_eq(stack_map(&stack, SIZE_MAX, 0), -ENOMEM);
    cr_assert_eq(stack_map(&stack, SIZE_MAX / 2 - page, 0), -ENOMEM);
    cr_assert_eq(stack_map(&stack, page, SIZE_MAX), -ENOMEM);
    cr_assert_eq(stack_map(&stack, SIZE_MAX / 2, SIZE_MAX / 4), -ENOMEM);

    getrlimit(RLIMIT_AS, &before);
    none = before;
    none.rlim_cur = 4096;
    setrlimit(RLIMIT_AS, &none);
    errno = ENOTTY;
    rc = stack_map(&stack, 256 * 1024, 0);
    setrlimit(RLIMIT_AS, &before);
    cr_assert_eq(rc, -ENOMEM);
    cr_assert_eq(errno, ENOTTY);
    cr_assert_null(stack.base);
}
