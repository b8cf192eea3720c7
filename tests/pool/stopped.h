/*
 * A thread that is stopped in its sleep by a signal, as one is that the scheduler has put aside. Not before it sleeps:
 * it might hold a lock that the test needs.
 */
#ifndef TESTS_POOL_STOPPED_H
#define TESTS_POOL_STOPPED_H

#include <criterion/criterion.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static int stop_here[2], stopped_there[2]; /* pipes */

/* Holds the thread that takes the signal until a byte comes. */
static void hold_thread(int signal)
{
    char byte = (char)signal;
    ssize_t done = write(stopped_there[1], &byte, 1);

    done = done == 1 ? read(stop_here[0], &byte, 1) : 0;
    (void)done;
}

/* The sleep is interrupted: under ThreadSanitizer the handler runs at the thread's next access, not before. */
static void stops_prepare(void)
{
    struct sigaction action = {.sa_handler = hold_thread};

    cr_assert_eq(pipe(stop_here), 0);
    cr_assert_eq(pipe(stopped_there), 0);
    cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
}

/* The kernel's number of a thread: the clock of its CPU time is named after it, see MAKE_THREAD_CPUCLOCK in Linux. */
static int number_of(pthread_t thread)
{
    clockid_t clock;

    cr_assert_eq(pthread_getcpuclockid(thread, &clock), 0);
    return ~(clock >> 3);
}

static bool sleeps(int number)
{
    char path[64], state = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", number);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    int got = fscanf(file, "%*d %*s %c", &state); /* the tests' threads have no space in their names */
    fclose(file);
    return got == 1 && state == 'S';
}

/* A thread that is about to sleep in submit, or does. */
static void stop_asleep(pthread_t thread)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    int number = number_of(thread);
    char byte;

    do {
        nanosleep(&moment, NULL); /* memcheck's threads sleep whenever it is not their turn: so at least once */
    } while (!sleeps(number));
    cr_assert_eq(pthread_kill(thread, SIGUSR1), 0);
    cr_assert_eq(read(stopped_there[0], &byte, 1), 1);
}

#endif
