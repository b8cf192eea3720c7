/*
 * The time limit of each test: TEST_TIMEOUT seconds, 300 if that is not set. Criterion's own --timeout ends no test that
 * hangs (2.4.1), so an alarm does: Criterion reports the test by its name as one that crashed, and goes on.
 *
 * Each test runs in a process of its own, which BoxFort tells where its arena is in BXFI_MAP; the runner itself, which
 * lasts for as long as all of them, does not have that. A child that a test forks has no alarm but its own.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void limit_begin(void)
{
    const char *text = getenv("TEST_TIMEOUT");
    long seconds = text ? strtol(text, NULL, 10) : 300;

    if (getenv("BXFI_MAP") && seconds > 0)
        alarm((unsigned)seconds);
}

Test(harness, every_test_has_an_alarm)
{
    unsigned left = alarm(0);

    cr_assert_gt(left, 0);
    alarm(left);
}
