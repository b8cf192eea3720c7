/*
 * A log-linear histogram of nanoseconds, after G. Tene's HdrHistogram: within each power of two the values fall into
 * 128 equal buckets, so that any value below 2^63 is kept to better than 1 % (half of 1/128 at a bucket's middle),
 * values below 256 exactly, and recording is two shifts and an addition.
 *
 * It is plain memory of the caller's, empty when zeroed: one thread at a time. No function here allocates or blocks;
 * all are async-signal-safe.
 */
#ifndef RINGPOOL_HISTOGRAM_H
#define RINGPOOL_HISTOGRAM_H

#include <ringpool/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RP_HISTOGRAM_BITS 7 /* 2^7 buckets a power of two */
#define RP_HISTOGRAM_BUCKETS ((64 - RP_HISTOGRAM_BITS) << RP_HISTOGRAM_BITS)

/* 57 KiB: better not on a worker's stack. */
struct rp_histogram {
    uint64_t total, most, sum; /* how many values, the greatest, and their sum */
    uint64_t count[RP_HISTOGRAM_BUCKETS];
};

/* The bucket of a value below 2^63. */
RP_API unsigned rp_histogram_bucket(uint64_t value);

/* A negative value, as of a clock that ran backwards, counts as 0. */
RP_API void rp_histogram_add(struct rp_histogram *h, int64_t ns);

/* Adds all values of `from`. */
RP_API void rp_histogram_merge(struct rp_histogram *into, const struct rp_histogram *from);

/* The value that the share `fraction` (0..1) of all values do not exceed, to 1 %, 1 exactly; 0 when there are none. */
RP_API double rp_histogram_at(const struct rp_histogram *h, double fraction);
RP_API double rp_histogram_mean(const struct rp_histogram *h);

/* Of a bucket: its least value, its middle and its greatest, neither above the greatest of all. For who prints one. */
RP_API uint64_t rp_histogram_low(unsigned bucket);
RP_API double rp_histogram_middle(const struct rp_histogram *h, unsigned bucket);
RP_API uint64_t rp_histogram_high(const struct rp_histogram *h, unsigned bucket);

#ifdef __cplusplus
}
#endif

#endif
