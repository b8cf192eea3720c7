/* See ringpool/histogram.h. */
#include <ringpool/histogram.h>

static unsigned bucket_shift(unsigned bucket)
{
    return bucket >> (RP_HISTOGRAM_BITS + 1) ? (bucket >> RP_HISTOGRAM_BITS) - 1 : 0;
}

uint64_t rp_histogram_low(unsigned bucket)
{
    unsigned shift = bucket_shift(bucket);

    return (uint64_t)(bucket - (shift << RP_HISTOGRAM_BITS)) << shift;
}

uint64_t rp_histogram_high(const struct rp_histogram *h, unsigned bucket)
{
    uint64_t high = rp_histogram_low(bucket) + (UINT64_C(1) << bucket_shift(bucket)) - 1;

    return high < h->most ? high : h->most;
}

double rp_histogram_middle(const struct rp_histogram *h, unsigned bucket)
{
    unsigned shift = bucket_shift(bucket);
    double middle = (double)rp_histogram_low(bucket) + (shift ? (double)(UINT64_C(1) << (shift - 1)) : 0);

    return middle < (double)h->most ? middle : (double)h->most;
}

unsigned rp_histogram_bucket(uint64_t value)
{
    unsigned shift = value >> (RP_HISTOGRAM_BITS + 1) ? (unsigned)(63 - __builtin_clzll(value)) - RP_HISTOGRAM_BITS : 0;

    return (shift << RP_HISTOGRAM_BITS) + (unsigned)(value >> shift);
}

void rp_histogram_add(struct rp_histogram *h, int64_t ns)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;

    h->count[rp_histogram_bucket(value)]++;
    h->total++;
    h->sum += value;
    if (value > h->most)
        h->most = value;
}

void rp_histogram_merge(struct rp_histogram *into, const struct rp_histogram *from)
{
    for (unsigned i = 0; i < RP_HISTOGRAM_BUCKETS; i++)
        into->count[i] += from->count[i];
    into->total += from->total;
    into->sum += from->sum;
    into->most = from->most > into->most ? from->most : into->most;
}

double rp_histogram_at(const struct rp_histogram *h, double fraction)
{
    double wanted = fraction * (double)h->total;
    uint64_t upto = h->count[0];
    unsigned bucket = 0;

    if (h->total == 0)
        return 0;
    if (fraction >= 1)
        return (double)h->most;
    while (bucket + 1 < RP_HISTOGRAM_BUCKETS && (upto == 0 || (double)upto < wanted))
        upto += h->count[++bucket];
    return rp_histogram_middle(h, bucket);
}

double rp_histogram_mean(const struct rp_histogram *h)
{
    return h->total ? (double)h->sum / (double)h->total : 0;
}
