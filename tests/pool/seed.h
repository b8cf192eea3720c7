/*
 * The seed of a test that draws: printed, and taken from RP_TEST_SEED where that is set.
 */
#ifndef TESTS_POOL_SEED_H
#define TESTS_POOL_SEED_H

#include <ringpool/base.h>

#include <stdio.h>
#include <stdlib.h>

static inline unsigned seed_of(const char *test)
{
    const char *given = getenv("RP_TEST_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)rp_now();

    fprintf(stderr, "%s: RP_TEST_SEED=%u\n", test, seed);
    return seed;
}

#endif
