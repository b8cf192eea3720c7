/*
 * Memory for thread stacks: mapped with a guard page below, kept and given out again by its owner.
 */
#ifndef BASE_STACK_H
#define BASE_STACK_H

#include <stddef.h>

struct stack {
    void *base;  /* lowest usable byte, above the guard page */
    size_t size; /* usable bytes, a multiple of the page size */
};

/*
 * What the thread-local variables of the loaded objects take of every thread's stack (glibc puts them at its top): a
 * program or a sanitizer may have hundreds of KiB of them. To be added to what the thread is to have for itself. Takes
 * a lock of glibc's: hold forks off (base/fork.h).
 */
size_t stack_tls_size(void);

/* Maps a stack of at least `size` bytes. 0; -ENOMEM: memory or mappings (vm.max_map_count) are exhausted. */
int stack_map(struct stack *stack, size_t size);

/* Unmaps it and zeroes *stack; a zeroed stack is allowed. */
void stack_unmap(struct stack *stack);

/*
 * Gives the stack's pages below `keep` bytes from its top back to the kernel; the mapping stays. No thread may run on
 * those pages.
 */
void stack_trim(const struct stack *stack, size_t keep);

#endif
