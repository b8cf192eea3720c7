/*
 * Where LeakSanitizer looks; linked into runners of the AddressSanitizer build only.
 *
 * Each test runs in a process of its own, and that process is checked as it ends. The runner that starts them is not
 * ours: what Criterion keeps until its end would drown a leak of a test, so the check is off there. BoxFort names its
 * arena to the processes of the tests in BXFI_MAP, which the runner itself does not have.
 */
#include <stdlib.h>

int __lsan_is_turned_off(void);

__attribute__((visibility("default"))) int __lsan_is_turned_off(void)
{
    return getenv("BXFI_MAP") == NULL;
}
