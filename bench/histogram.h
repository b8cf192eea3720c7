/*
 * How the benchmarks print ringpool's histograms. The peers, which do not have the library, link its histogram alone.
 */
#ifndef RINGPOOL_BENCH_HISTOGRAM_H
#define RINGPOOL_BENCH_HISTOGRAM_H

#include <ringpool/histogram.h>

#include <stdio.h>

/*
 * The text form of HdrHistogram's outputPercentileDistribution: in us, five steps for each halving of the rest, the
 * greatest value that falls into the same bucket. The buckets are those of an HdrHistogram of two significant digits.
 */
void histogram_print(const struct rp_histogram *h, FILE *out);

#endif
