/*
 * Error texts: one sentence for each code that ringpool returns, which says what went wrong and what to do about it.
 *
 * The texts are literals and the choice is a switch, so that the function may be called where nothing else may: in a
 * signal handler, in a forked child, without memory.
 */
#include <ringpool/base.h>

#include <errno.h>

const char *rp_strerror(int rc)
{
    if (rc >= 0) {
        return "success";
    }
    switch (rc) {
    case -EINVAL:
        return "an argument or option is out of its range and nothing happened: compare the call with the comment "
               "of the function, and check that option structs start zeroed";
    case -ENOMEM:
        return "memory or address space is short and nothing happened: free some, raise the limits (ulimit -v, "
               "vm.max_map_count), or try again later";
    case -EAGAIN:
        return "there is no room, thread or worker now and the call was asked not to wait: try again later, use a "
               "call that blocks, or raise the capacity, the queue depth or the limit of threads (ulimit -u)";
    case -ECHILD:
        return "the object was made before this process was forked: make a new one here, destroy only frees this one";
    case -ESHUTDOWN:
        return "the object is released or closed and takes nothing new: reboot it or make another one";
    case -ETIMEDOUT:
        return "the deadline passed first: give more time, or find out what holds it up";
    case -ECANCELED:
        return "it was cancelled before it ended: nothing to do, unless nobody meant to cancel it";
    case -EDEADLK:
        return "waiting here would never end, because whoever could end the wait is waiting too: submit with "
               "RP_OVERLOAD_CALLER_RUNS, raise queue_depth, max_extra or the capacity, or do not wait inside a task";
    case -EALREADY:
        return "this was asked for before and is done or under way: wait for the first call to end";
    case -EPERM:
        return "the system does not permit it (privileges, seccomp or a sysctl): ask for less, or grant it";
    case -EACCES:
        return "access is denied: check the permissions of what was named";
    case -ENOSYS:
        return "the running kernel does not have what was asked for: leave the choice to ringpool, or use a newer "
               "kernel";
    case -ENOTSUP:
        return "what was asked for is not to be had, with this version of ringpool or on this kernel: leave the option "
               "at its default";
    case -EFAULT:
        return "the task panicked and has no result: see the panic handler's report or the log for the reason";
    case -EMFILE:
        return "this process has too many open descriptors: close some, or raise its limit (ulimit -n)";
    case -ENFILE:
        return "the system has too many open descriptors: close some, or raise fs.file-max";
    case -ENOENT:
        return "what was named does not exist, or not any more: check the name";
    case -EEXIST:
        return "it exists already: use that one, or choose another name";
    case -EBADF:
        return "the descriptor is not open or not of the right kind: check who closed it";
    case -EBADFD:
        return "the ring was made disabled and is not enabled yet: enable it (io_uring_enable_rings) first";
    case -EBUSY:
        return "it is in use: end that use first, or try again later";
    case -EINTR:
        return "a signal handler ran and the call stopped early: call it again";
    case -EPIPE:
        return "the other side is closed and takes nothing more: stop sending";
    case -ENOBUFS:
    case -ENOSPC:
        return "a bounded table or buffer is full: remove something, or ask for a larger one";
    case -EOVERFLOW:
    case -ERANGE:
        return "a number does not fit: pass a smaller one";
    case -ESRCH:
        return "the thread or process does not exist any more: nothing is left to do for it";
    case -EIO:
        return "the system failed to read or write: see the kernel's log";
    case -EPROTO:
        return "something happened that ringpool takes for impossible: please report it with the log";
    default:
        return "an error of the system that ringpool hands on: its number is an errno value, see errno(3)";
    }
}
