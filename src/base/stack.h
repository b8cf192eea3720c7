/*
 * Memory for thread stacks: mapped with a guard page below, kept and given out again by its owner.
 */
#ifndef BASE_STACK_H
#define BASE_STACK_H

#include <stdbool.h>
#include <stddef.h>

struct stack {
    void *base;   /* lowest usable byte, above the guard page */
    size_t size;  /* usable bytes */
    size_t above; /* bytes above those, that the owner asked for; base + size + above is the end of a page */
};

/*
 * What the thread-local variables of the loaded objects take of every thread's stack (glibc puts them at its top): a
 * program or a sanitizer may have hundreds of KiB of them. To be added to what the thread is to have for itself. Takes
 * a lock of glibc's: hold forks off (base/fork.h).
 */
size_t stack_tls_size(void);

/* What is asked of a stack. */
struct stack_shape {
    size_t size;  /* at least so many usable bytes, */
    size_t above; /* and so many above them for the owner */
    bool locked;  /* mlockall(MCL_CURRENT) is to bring it into memory whole, for what it takes to have that */
};

/* Address space for stacks of one shape that are to be mapped one after the other. */
struct stack_slab {
    void *start; /* the stacks that are left, each with the guard page below it */
    size_t each; /* bytes of one */
    unsigned left;
};

/*
 * So that mapping a stack is one system call instead of three: for `n`, at least 1, of this shape. Without address
 * space for them the slab is empty, and each stack is mapped by itself.
 */
void stack_slab_map(struct stack_slab *slab, const struct stack_shape *shape, unsigned n);

/* What is left of it; the stacks that were taken stay as they are. */
void stack_slab_unmap(struct stack_slab *slab);

/*
 * Maps a stack. Its owner finds the zeroed bytes above it at stack_above(), aligned to CACHE_APART. They lie in the
 * page that any thread touches first, so what is kept there costs an idle thread next to nothing. It comes out of the
 * slab, which is for such, if that is not NULL and has one left. 0; -ENOMEM: memory or mappings (vm.max_map_count) are
 * exhausted.
 */
int stack_map(struct stack *stack, const struct stack_shape *shape, struct stack_slab *slab);

static inline void *stack_above(const struct stack *stack)
{
    return (char *)stack->base + stack->size;
}

/* Unmaps it and zeroes *stack, which is not above it; a zeroed stack is allowed. */
void stack_unmap(struct stack *stack);

#endif
