/*
 * Canaries of the AddressSanitizer build and of memcheck: each does one thing wrong that must be noticed. canaries.sh
 * runs them one by one and fails when one of them sings on.
 */
#include <criterion/criterion.h>
#include <limits.h>
#include <stdlib.h>

static char *volatile block;
static volatile int number;

static __attribute__((noinline)) void lose_a_block(void)
{
    block = malloc(77);
    block = NULL;
}

Test(canary, control_has_nothing_wrong)
{
    block = malloc(1);
    cr_assert_not_null(block);
    free(block);
}

Test(canary, use_after_free)
{
    block = malloc(1);
    char *stale = block;
    free(stale);
    number = *block;
    cr_assert(true, "reached only when nothing noticed");
}

Test(canary, leak)
{
    /* More than one: a stale copy in a register or on the stack still counts as a reference. */
    for (int i = 0; i < 10; i++) {
        lose_a_block();
    }
    cr_assert_null(block);
}

Test(canary, signed_overflow)
{
    number = INT_MAX;
    number = number + 1;
    cr_assert(true, "reached only when nothing noticed");
}

/* memcheck's alone: it comes to light where a branch depends on it. */
Test(canary, uninitialised)
{
    block = malloc(1);
    if (*block)
        number = 1;
    free(block);
    cr_assert(true, "reached only when nothing noticed");
}
