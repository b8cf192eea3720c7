/*
 * Error texts: each code has a sentence of its own, every other number a generic one, and none is ever NULL.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <ringpool/base.h>
#include <string.h>

static const int codes[] = {
    EINVAL,  ENOMEM, EAGAIN, ECHILD, ESHUTDOWN, ETIMEDOUT, ECANCELED, EDEADLK, EALREADY, EPERM,  ENOSYS,
    ENOTSUP, EFAULT, EMFILE, ENFILE, ENOENT,    EBADF,     EBUSY,     EINTR,   ENOSPC,   EBADFD,
};
#define CODES (sizeof(codes) / sizeof(codes[0]))

Test(error, every_code_says_what_went_wrong_and_what_to_do)
{
    const char *generic = rp_strerror(-4000);

    for (size_t i = 0; i < CODES; i++) {
        const char *text = rp_strerror(-codes[i]);

        cr_assert_str_neq(text, generic, "errno %d has only the generic text", codes[i]);
        cr_assert_not_null(strchr(text, ':'), "no advice in: %s", text);
        cr_assert_null(strchr(text, '\n'));
    }
}

Test(error, no_two_codes_share_a_text)
{
    for (size_t i = 0; i < CODES; i++) {
        for (size_t j = 0; j < i; j++) {
            cr_assert_str_neq(rp_strerror(-codes[i]), rp_strerror(-codes[j]));
        }
    }
}

Test(error, zero_and_counts_are_success)
{
    cr_assert_str_eq(rp_strerror(0), "success");
    cr_assert_str_eq(rp_strerror(1), "success");
    cr_assert_str_eq(rp_strerror(INT_MAX), "success");
}

Test(error, no_number_gives_null_or_an_empty_text)
{
    for (int rc = -5000; rc <= 5000; rc++) {
        const char *text = rp_strerror(rc);

        cr_assert_not_null(text);
        cr_assert_gt(strlen(text), 0u);
    }
    cr_assert_not_null(rp_strerror(INT_MIN));
}

Test(error, the_text_is_static)
{
    cr_assert_eq(rp_strerror(-EINVAL), rp_strerror(-EINVAL));
}
