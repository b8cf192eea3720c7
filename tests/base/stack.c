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

static int map_stack(struct stack *stack, size_t size, size_t above, struct stack_slab *slab)
{
    return stack_map(stack, &(struct stack_shape){.size = size, .above = above}, slab);
}

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

        cr_assert_eq(map_stack(&stack, sizes[i], 0, NULL), 0);
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

        cr_assert_eq(map_stack(&stack, 4 * page, above[i], NULL), 0);
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

    cr_assert_eq(map_stack(&stack, 4 * page, 0, NULL), 0);
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

    cr_assert_eq(map_stack(&stack, 256 * 1024 + stack_tls_size(), 0, NULL), 0);
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

    cr_assert_eq(map_stack(&stack, page, 0, NULL), 0);
    base = stack.base;
    stack_unmap(&stack);
    cr_assert_eq(mincore(base - page, page, &resident), -1);
    cr_assert_eq(mincore(base, page, &resident), -1);
    cr_assert_null(stack.base);
    stack_unmap(&stack);
}

/* The slab is used up, or has stacks left: what was taken stays, each with its guard, and goes alone. */
Test(stack, a_slab_gives_what_single_stacks_are)
{
    const unsigned mapped[] = {1, 4, 7};

    for (size_t i = 0; i < sizeof(mapped) / sizeof(mapped[0]); i++) {
        struct stack_slab slab;
        struct stack stacks[4];

        stack_slab_map(&slab, &(struct stack_shape){.size = 4 * page, .above = 100}, mapped[i]);
        cr_assert_not_null(slab.start);
        for (int k = 0; k < 4; k++) {
            cr_assert_eq(map_stack(&stacks[k], 4 * page, 100, &slab), 0);
            cr_assert_geq(stacks[k].size, 4 * page);
            cr_assert_not(readable((char *)stacks[k].base - 1));
            memset(stacks[k].base, 0xaa, stacks[k].size + stacks[k].above);
        }
        char *rest = slab.start;
        cr_assert_eq(slab.left, mapped[i] > 4 ? mapped[i] - 4 : 0);
        stack_slab_unmap(&slab);
        if (mapped[i] > 4) {
            unsigned char resident;
            cr_assert_eq(mincore(rest, page, &resident), -1);
        }
        for (int k = 3; k >= 0; k--) {
            char *base = stacks[k].base;
            char *owned = stack_above(&stacks[k]);
            cr_assert_eq(owned[0], (char)0xaa);
            stack_unmap(&stacks[k]);
            cr_assert_not(readable(base));
            for (int below = 0; below < k; below++)
                cr_assert(readable(stacks[below].base));
        }
    }
}

/* The kernel brings in a mapping up to the first page that it cannot. */
Test(stack, one_that_is_to_be_locked_comes_into_memory_whole)
{
    enum { PAGES = 16 };
    const struct stack_shape shape = {.size = PAGES * page, .locked = true};
    struct stack_slab slab;
    struct stack stacks[2];
    unsigned char resident[PAGES] = {0};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(RP_VALGRIND)
    cr_skip("nothing is locked here");
#endif
    stack_slab_map(&slab, &shape, 2);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(stack_map(&stacks[i], &shape, &slab), 0);
    if (mlockall(MCL_CURRENT)) {
        cr_skip("no memory may be locked here");
    }
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(mincore(stacks[i].base, stacks[i].size, resident), 0);
        for (int k = 0; k < PAGES; k++)
            cr_assert_eq(resident[k] & 1, 1);
        cr_assert_not(readable((char *)stacks[i].base - 1));
    }
    munlockall();
    for (int i = 0; i < 2; i++)
        stack_unmap(&stacks[i]);
}

Test(stack, without_address_space_for_a_slab_each_stack_is_mapped_alone)
{
    struct stack_slab slab;
    struct stack stack;

    errno = ENOTTY;
    stack_slab_map(&slab, &(struct stack_shape){.size = SIZE_MAX / 4, .above = 0}, 1000);
    cr_assert_eq(slab.left, 0u);
    stack_slab_map(&slab, &(struct stack_shape){.size = (size_t)1 << 46, .above = 0}, 2);
    cr_assert_eq(slab.left, 0u);
    cr_assert_eq(errno, ENOTTY);
    cr_assert_eq(map_stack(&stack, 4 * page, 0, &slab), 0);
    stack_unmap(&stack);
    stack_slab_unmap(&slab);
}

static bool refuses_huge_pages(const struct stack *stack)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    const uintptr_t base = (uintptr_t)stack->base;
    unsigned long start, end;
    char line[512];
    bool in_stack = false, refused = false;

    while (maps && fgets(line, sizeof(line), maps)) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && base >= start && base < end) {
            in_stack = true;
        } else if (in_stack && strncmp(line, "VmFlags:", 8) == 0) {
            refused = strstr(line, " nh") != NULL;
            break;
        }
    }
    if (maps)
        fclose(maps);
    cr_assert(in_stack);
    return refused;
}

Test(stack, does_not_take_huge_pages)
{
    struct stack_slab slab;
    struct stack single, of_slab;

#ifdef RP_VALGRIND
    cr_skip("memcheck shows a /proc/self/smaps of its own");
#endif
    if (access("/proc/self/smaps", R_OK) || access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK)) {
        cr_skip("this kernel has no huge pages to refuse, or no smaps");
    }
    cr_assert_eq(map_stack(&single, 4 << 20, 0, NULL), 0);
    stack_slab_map(&slab, &(struct stack_shape){.size = 4 << 20, .above = 0}, 2);
    cr_assert_eq(map_stack(&of_slab, 4 << 20, 0, &slab), 0);
    cr_assert(refuses_huge_pages(&single));
    cr_assert(refuses_huge_pages(&of_slab));
    stack_unmap(&single);
    stack_unmap(&of_slab);
    stack_slab_unmap(&slab);
}

Test(stack, without_address_space_is_enomem_and_errno_is_kept)
{
    struct stack stack = {0};
    struct rlimit before, none;
    int rc;

    cr_assert_eq(map_stack(&stack, SIZE_MAX, 0, NULL), -ENOMEM);
    cr_assert_eq(map_stack(&stack, SIZE_MAX / 2 - page, 0, NULL), -ENOMEM);
    cr_assert_eq(map_stack(&stack, page, SIZE_MAX, NULL), -ENOMEM);
    cr_assert_eq(map_stack(&stack, SIZE_MAX / 2, SIZE_MAX / 4, NULL), -ENOMEM);

    getrlimit(RLIMIT_AS, &before);
    none = before;
    none.rlim_cur = 4096;
    setrlimit(RLIMIT_AS, &none);
    errno = ENOTTY;
    rc = map_stack(&stack, 256 * 1024, 0, NULL);
    setrlimit(RLIMIT_AS, &before);
    cr_assert_eq(rc, -ENOMEM);
    cr_assert_eq(errno, ENOTTY);
    cr_assert_null(stack.base);
}
