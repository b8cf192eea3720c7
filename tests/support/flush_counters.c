/*
 * Keeps the counters of a process that ends by _exit; linked into what the coverage build runs.
 *
 * gcov writes its counters as a process exits. A child that a test forks ends by _exit instead, lest it run what its
 * parent registered for its own end; what was executed in the child alone would look as if it never were. The
 * definition in the program takes the place of libc's for libraries too. What ends by a signal keeps nothing.
 */
#include <sys/syscall.h>
#include <unistd.h>

void __gcov_dump(void);

__attribute__((visibility("default"))) void _exit(int status)
{
    __gcov_dump();
    for (;;) {
        syscall(SYS_exit_group, status);
    }
}
