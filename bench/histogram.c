/* See histogram.h. */
#include "histogram.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

#define STEPS_PER_HALVING 5

static unsigned bucket_shift(unsigned bucket)
{
    return bucket >> (HISTOGRAM_BITS + 1) ? (bucket >> HISTOGRAM_BITS) - 1 : 0;
}

/* The least value of a bucket. */
static uint64_t bucket_low(unsigned bucket)
{
    unsigned shift = bucket_shift(bucket);

    return (uint64_t)(bucket - (shift << HISTOGRAM_BITS)) << shift;
}

/* The middle of a bucket; never more than the greatest value that was recorded. */
static double bucket_value(const struct histogram *h, unsigned bucket)
{
    unsigned shift = bucket_shift(bucket);
    double low = (double)bucket_low(bucket);
    double middle = shift ? low + ldexp(0.5, (int)shift) : low;

    return middle < (double)h->most ? middle : (double)h->most;
}

/* The greatest value of a bucket, likewise. */
static uint64_t bucket_high(const struct histogram *h, unsigned bucket)
{
    uint64_t high = bucket_low(bucket) + (UINT64_C(1) << bucket_shift(bucket)) - 1;

    return high < h->most ? high : h->most;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->count[i] += from->count[i];
    into->total += from->total;
    into->sum += from->sum;
    into->most = from->most > into->most ? from->most : into->most;
}

double histogram_at(const struct histogram *h, double fraction)
{
    double wanted = ceil(fraction * (double)h->total);
    uint64_t upto = h->count[0];
    unsigned bucket = 0;

    if (h->total == 0)
        return 0;
    if (fraction >= 1)
        return (double)h->most;
    while (bucket + 1 < HISTOGRAM_BUCKETS && (upto == 0 || (double)upto < wanted))
        upto += h->count[++bucket];
    return bucket_value(h, bucket);
}

double histogram_mean(const struct histogram *h)
{
    return h->total ? (double)h->sum / (double)h->total : 0;
}

static double deviation(const struct histogram *h)
{
    double mean = histogram_mean(h), squares = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        if (h->count[i])
            squares += (double)h->count[i] * pow(bucket_value(h, i) - mean, 2);
    return h->total ? sqrt(squares / (double)h->total) : 0;
}

/* From one percentile to the next: a fifth of the halving of the rest that it is in. All of these are exact. */
static double percent_step(double percent)
{
    return 100 / ldexp(STEPS_PER_HALVING, (int)floor(log2(100 / (100 - percent))) + 1);
}

void histogram_print(const struct histogram *h, FILE *out)
{
    double percent = 0;
    uint64_t upto = 0;

    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && upto < h->total; i++) {
        upto += h->count[i];
        /* The line that first holds all of them is the last but one. */
        for (bool last = false; h->count[i] && !last && 100 * (double)upto / (double)h->total >= percent;) {
            fprintf(out, "%12.3f %2.12f %10" PRIu64 " %14.2f\n", (double)bucket_high(h, i) / 1e3, percent / 100, upto,
                    1 / (1 - percent / 100));
            percent += percent_step(percent);
            last = upto == h->total;
        }
    }
    fprintf(out, "%12.3f %2.12f %10" PRIu64 "\n", (double)h->most / 1e3, 1.0, h->total);
    fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", histogram_mean(h) / 1e3, deviation(h) / 1e3);
    fprintf(out, "#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n", (double)h->most / 1e3, h->total);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", 64 - HISTOGRAM_BITS - 1, 2 << HISTOGRAM_BITS);
}
