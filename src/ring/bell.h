/*
 * The bell: an eventfd by which any thread ends the sleep of the reactor's, however that one sleeps on it.
 */
#ifndef RING_BELL_H
#define RING_BELL_H

#include <stdint.h>

/* A descriptor, or a negative errno. */
int bell_open(void);

/* Any thread; keeps errno; no cancellation point. */
void bell_ring(int bell);

/* Gives the descriptor back; keeps errno. */
void bell_close(int bell);

/* Silences it. A ring that comes later sounds again. */
void bell_drain(int bell);

/* Sleeps until `fd` (a bell, or anything else that polls) is readable, `deadline` (INT64_MAX: none), or a signal. */
void bell_wait(int fd, int64_t deadline);

#endif
