/* See histogram.h. */
#include "histogram.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

#define STEPS_PER_HALVING 5

static double deviation(const struct rp_histogram *h)
{
    double mean = rp_histogram_mean(h), squares = 0;

    for (unsigned i = 0; i < RP_HISTOGRAM_BUCKETS; i++)
        if (h->count[i])
            squares += (double)h->count[i] * pow(rp_histogram_middle(h, i) - mean, 2);
    return h->total ? sqrt(squares / (double)h->total) : 0;
}

/* From one percentile to the next: a fifth of the halving of the rest that it is in. All of these are exact. */
static double percent_step(double percent)
{
    return 100 / ldexp(STEPS_PER_HALVING, (int)floor(log2(100 / (100 - percent))) + 1);
}

void histogram_print(const struct rp_histogram *h, FILE *out)
{
    double percent = 0;
    uint64_t upto = 0;

    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for (unsigned i = 0; i < RP_HISTOGRAM_BUCKETS && upto < h->total; i++) {
        upto += h->count[i];
        /* The line that first holds all of them is the last but one. */
        for (bool last = false; h->count[i] && !last && 100 * (double)upto / (double)h->total >= percent;) {
            fprintf(out, "%12.3f %2.12f %10" PRIu64 " %14.2f\n", (double)rp_histogram_high(h, i) / 1e3, percent / 100,
                    upto, 1 / (1 - percent / 100));
            percent += percent_step(percent);
            last = upto == h->total;
        }
    }
    fprintf(out, "%12.3f %2.12f %10" PRIu64 "\n", (double)h->most / 1e3, 1.0, h->total);
    fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", rp_histogram_mean(h) / 1e3, deviation(h) / 1e3);
    fprintf(out, "#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n", (double)h->most / 1e3, h->total);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", 64 - RP_HISTOGRAM_BITS - 1, 2 << RP_HISTOGRAM_BITS);
}
