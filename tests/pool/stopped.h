/*
 * A thread that stands still wherever SIGUSR1 finds it, as one does that the scheduler has put aside.
 */
#ifndef TESTS_POOL_STOPPED_H
#define TESTS_POOL_STOPPED_H

#include <criterion/criterion.h>

#include <signal.h>
#include <unistd.h>

static int stop_here[2], stopped_there[2]; /* pipes */

/* Holds the thread that takes the signal, wherever it is, until a byte comes. */
static void hold_thread(int signal)
{
    char byte = (char)signal;
    ssize_t done = write(stopped_there[1], &byte, 1);

    done = done == 1 ? read(stop_here[0], &byte, 1) : 0;
    (void)done;
}

static void stops_prepare(void)
{
    cr_assert_eq(pipe(stop_here), 0);
    cr_assert_eq(pipe(stopped_there), 0);
    signal(SIGUSR1, hold_thread);
}

#endif
