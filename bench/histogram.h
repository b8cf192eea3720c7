/*
 * A log-linear histogram of nanoseconds, after G. Tene's HdrHistogram: within each power of two the values fall into
 * 128 equal buckets, so that any value from 0 to 2^63 is kept to better than 1 % (half of 1/128 at a bucket's middle),
 * values below 256 exactly, and recording is two shifts and an addition. One thread writes it; merge when all are done.
 */
#ifndef RINGPOOL_BENCH_HISTOGRAM_H
#define RINGPOOL_BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BITS 7 /* 2^7 buckets a power of two */
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_BITS) << HISTOGRAM_BITS)

struct histogram {
    uint64_t total, most, sum;
    uint64_t count[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t value)
{
    unsigned shift = value >> (HISTOGRAM_BITS + 1) ? (unsigned)(63 - __builtin_clzll(value)) - HISTOGRAM_BITS : 0;

    return (shift << HISTOGRAM_BITS) + (unsigned)(value >> shift);
}

static inline void histogram_add(struct histogram *h, int64_t ns)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;

    h->count[histogram_bucket(value)]++;
    h->total++;
    h->sum += value;
    if (value > h->most)
        h->most = value;
}

void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that the share `fraction` (0..1) of all values do not exceed; 0 when there are none. */
double histogram_at(const struct histogram *h, double fraction);
double histogram_mean(const struct histogram *h);

/*
 * The text form of HdrHistogram's outputPercentileDistribution: in us, five steps for each halving of the rest, the
 * greatest value that falls into the same bucket. The buckets are those of an HdrHistogram of two significant digits.
 */
void histogram_print(const struct histogram *h, FILE *out);

#endif
