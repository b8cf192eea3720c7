/*
 * Lets Criterion run under ThreadSanitizer; linked into runners of that build only.
 *
 * Criterion isolates tests with BoxFort, which maps an arena at a fixed random address: 0x200000000000 plus
 * rand_r() & 0x3fffff steps of 16 MiB. Nearly all of these lie in what ThreadSanitizer reserves for its shadow, the
 * mapping is refused, and the runner gives up with "Could not initialize inheritable arena". This rand_r leaves
 * BoxFort its choice among the addresses that are the application's: from 0x550000000000, where ThreadSanitizer's
 * middle range begins on x86-64, to 0x554000000000, below every position-independent executable (these begin at
 * 0x555555554000). Nothing else in a runner calls rand_r.
 */
#if !defined(__x86_64__)
#error "the ranges below are those of ThreadSanitizer on x86-64"
#endif

#define ARENA_BASE 0x200000000000UL
#define ARENA_STEP (1UL << 24)
#define FIRST_STEP ((unsigned)((0x550000000000UL - ARENA_BASE) / ARENA_STEP))
#define STEPS ((unsigned)((0x554000000000UL - 0x550000000000UL) / ARENA_STEP))

int rand_r(unsigned *seed);

/* Takes the place of libc's for libcriterion too, hence visible. */
__attribute__((visibility("default"))) int rand_r(unsigned *seed)
{
    /* The high bits of a linear congruential generator (the constants of the C standard's example). */
    *seed = *seed * 1103515245U + 12345U;
    return (int)(FIRST_STEP + (*seed >> 16) % STEPS);
}
