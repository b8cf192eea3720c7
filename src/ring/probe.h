/*
 * The probe: whether io_uring is to be had in this process, and if not, what denies it.
 */
#ifndef RING_PROBE_H
#define RING_PROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "ring/backend.h"

/*
 * Whether reactors use io_uring when none is asked for by name. *reason becomes the clause that says why not, empty if
 * they do. Tries it at the first call in a process, and again in a forked child. Any thread.
 */
bool probe_uring(const char **reason);

/* One clause that says why io_uring was refused, naming the deciding setting: "io_uring denied by ...". */
void probe_explain(char *out, size_t size, const struct backend_refusal *refusal);

/* "EPERM" for -EPERM, of the codes that a refusal may have; "an unknown error" for others. */
const char *probe_errno_name(int rc);

#endif
