/* See histogram.h. */
#include "histogram.h"

#include <inttypes.h>
#include <math.h>

#define STEPS_PER_HALVING 5

/* The middle of a bucket; never more than the greatest value that was recorded. */
static double bucket_value(const struct histogram *h, unsigned bucket)
{
    unsigned shift = bucket >> (HISTOGRAM_BITS + 1) ? (bucket >> HISTOGRAM_BITS) - 1 : 0;
    double low = ldexp((double)(bucket - (shift << HISTOGRAM_BITS)), (int)shift);
    double middle = shift ? low + ldexp(0.5, (int)shift) : low;

    return middle < (double)h->most ? middle : (double)h->most;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->count[i] += from->count[i];
    into->total += from->total;
    into->sum += from->sum;
    into->most = from->most > into->most ? from->most : into->most;
}

static unsigned bucket_at(const struct histogram *h, double fraction, uint64_t *upto)
{
    double wanted = ceil(fraction * (double)h->total);
    unsigned bucket = 0;

    *upto = h->count[0];
    while (bucket + 1 < HISTOGRAM_BUCKETS && (*upto == 0 || (double)*upto < wanted))
        *upto += h->count[++bucket];
    return bucket;
}

double histogram_at(const struct histogram *h, double fraction)
{
    uint64_t upto;

    if (h->total == 0)
        return 0;
    return fraction >= 1 ? (double)h->most : bucket_value(h, bucket_at(h, fraction, &upto));
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

void histogram_print(const struct histogram *h, FILE *out)
{
    double fraction = 0;
    uint64_t upto = 0;

    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    while (upto < h->total) {
        double value = bucket_value(h, bucket_at(h, fraction, &upto)) / 1e3;

        if (upto == h->total)
            break;
        fprintf(out, "%12.3f %2.12f %10" PRIu64 " %14.2f\n", value, fraction, upto, 1 / (1 - fraction));
        /* A step is a fifth of the halving that the fraction is in. */
        fraction += (1 - fraction) > 0 ? ldexp(1.0, -(int)floor(log2(1 / (1 - fraction))) - 1) / STEPS_PER_HALVING : 1;
    }
    fprintf(out, "%12.3f %2.12f %10" PRIu64 "\n", (double)h->most / 1e3, 1.0, h->total);
    fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", histogram_mean(h) / 1e3, deviation(h) / 1e3);
    fprintf(out, "#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n", (double)h->most / 1e3, h->total);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", 64 - HISTOGRAM_BITS, 1 << HISTOGRAM_BITS);
}
