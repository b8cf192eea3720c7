/*
 * Deadlines: never 0 (none), never negative (invalid), and never wrapped round.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <ringpool/base.h>
#include <stdio.h>

Test(clock, now_is_positive_and_never_goes_back)
{
    int64_t last = rp_now();

    cr_assert_gt(last, 0);
    for (int i = 0; i < 1000; i++) {
        int64_t now = rp_now();

        cr_assert_geq(now, last);
        last = now;
    }
}

Test(clock, after_lies_as_far_ahead_as_asked)
{
    int64_t before = rp_now();
    int64_t deadline = rp_after(INT64_C(5000000000));
    int64_t behind = rp_now();

    cr_assert_geq(deadline, before + INT64_C(5000000000));
    cr_assert_leq(deadline, behind + INT64_C(5000000000));
}

Test(clock, after_saturates_instead_of_wrapping)
{
    cr_assert_eq(rp_after(INT64_MAX), INT64_MAX);
    cr_assert_eq(rp_after(INT64_MAX - 1), INT64_MAX);
}

Test(clock, after_a_negative_time_is_past_but_neither_none_nor_negative)
{
    int64_t deadline = rp_after(-1);

    cr_assert_gt(deadline, 0);
    cr_assert_lt(deadline, rp_now());
    cr_assert_eq(rp_after(INT64_MIN), 1);
    cr_assert_eq(rp_after(-rp_now() - 1000000), 1);
}

Test(clock, version_is_that_of_the_header)
{
    char text[32];

    cr_assert_str_eq(rp_version(), RP_VERSION);
    snprintf(text, sizeof(text), "%d.%d.%d", RP_VERSION_MAJOR, RP_VERSION_MINOR, RP_VERSION_PATCH);
    cr_assert_str_eq(text, RP_VERSION);
}

Test(clock, leaves_errno_alone)
{
    errno = ENOTTY;
    (void)rp_now();
    (void)rp_after(1);
    (void)rp_version();
    cr_assert_eq(errno, ENOTTY);
}
