/*
 * The histogram that the benchmarks' latencies come from: percentiles of distributions that are known, and the text
 * form, which tools for HdrHistogram read.
 */
#include <criterion/criterion.h>
#include <histogram.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 200000
#define TOLERANCE 0.01 /* what the buckets promise */

static struct rp_histogram *made(void)
{
    struct rp_histogram *h = calloc(1, sizeof(*h));

    cr_assert_not_null(h);
    return h;
}

/* In any order: a histogram has no memory of it. */
static double uniform_at(double fraction)
{
    return 1e6 * (1 + fraction);
}

static double exponential_at(double fraction)
{
    return -log(1 - fraction) * 50000;
}

static struct rp_histogram *sample(double (*quantile)(double fraction))
{
    struct rp_histogram *h = made();

    for (int i = 0; i < N; i++)
        rp_histogram_add(h, (int64_t)quantile((i + 0.5) / N));
    return h;
}

static void expect_near(double found, double wanted, const char *what, double at)
{
    cr_assert(fabs(found - wanted) <= TOLERANCE * wanted, "%s at %.4f: %g instead of %g", what, at, found, wanted);
}

static void expect_quantiles(struct rp_histogram *h, double (*quantile)(double fraction), const char *what)
{
    static const double at[] = {0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999};

    cr_assert_eq(h->total, N);
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
        expect_near(rp_histogram_at(h, at[i]), quantile(at[i]), what, at[i]);
    free(h);
}

Test(histogram, percentiles_of_known_distributions_are_found_to_one_percent)
{
    expect_quantiles(sample(uniform_at), uniform_at, "uniform");
    expect_quantiles(sample(exponential_at), exponential_at, "exponential");
}

Test(histogram, small_values_and_the_greatest_are_exact)
{
    struct rp_histogram *h = made();

    for (int i = 0; i < 256; i++)
        rp_histogram_add(h, i);
    for (int i = 1; i < 256; i++)
        cr_assert_eq(rp_histogram_at(h, (i + 0.5) / 256), i);
    rp_histogram_add(h, 123456789);
    rp_histogram_add(h, -5); /* a clock that ran backwards: counted, as 0 */
    cr_assert_eq(rp_histogram_at(h, 1), 123456789);
    cr_assert_eq(h->count[0], 2);
    cr_assert_eq(h->total, 258);
    free(h);
}

Test(histogram, merged_histograms_are_one)
{
    struct rp_histogram *whole = sample(exponential_at), *sum = made(), *part = made();

    for (int i = 0; i < N; i++)
        rp_histogram_add(i % 3 ? sum : part, (int64_t)exponential_at((i + 0.5) / N));
    rp_histogram_merge(sum, part);
    cr_assert_eq(memcmp(whole, sum, sizeof(*whole)), 0);
    free(whole);
    free(sum);
    free(part);
}

/* Prints it; the caller frees. */
static char *text_of(const struct rp_histogram *h)
{
    char *text;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    cr_assert_not_null(file);
    histogram_print(h, file);
    fclose(file);
    return text;
}

/*
 * What HdrHistogram 2.1.11 prints for the same values (two significant digits, five ticks, scaled by 1000), but for its
 * number of decimals, and for the greatest value, which it rounds up to its bucket's end (17.535).
 */
static const char golden[] = "       Value     Percentile TotalCount 1/(1-Percentile)\n"
                             "\n"
                             "       0.007 0.000000000000          1           1.00\n"
                             "       0.175 0.100000000000          5           1.11\n"
                             "       0.703 0.200000000000         10           1.25\n"
                             "       1.575 0.300000000000         15           1.43\n"
                             "       2.815 0.400000000000         20           1.67\n"
                             "       4.383 0.500000000000         25           2.00\n"
                             "       5.503 0.550000000000         28           2.22\n"
                             "       6.303 0.600000000000         30           2.50\n"
                             "       7.647 0.650000000000         33           2.86\n"
                             "       8.575 0.700000000000         35           3.33\n"
                             "      10.111 0.750000000000         38           4.00\n"
                             "      10.687 0.775000000000         39           4.44\n"
                             "      11.263 0.800000000000         40           5.00\n"
                             "      12.351 0.825000000000         42           5.71\n"
                             "      12.991 0.850000000000         43           6.67\n"
                             "      13.567 0.875000000000         44           8.00\n"
                             "      14.207 0.887500000000         45           8.89\n"
                             "      14.207 0.900000000000         45          10.00\n"
                             "      14.847 0.912500000000         46          11.43\n"
                             "      15.487 0.925000000000         47          13.33\n"
                             "      15.487 0.937500000000         47          16.00\n"
                             "      16.191 0.943750000000         48          17.78\n"
                             "      16.191 0.950000000000         48          20.00\n"
                             "      16.191 0.956250000000         48          22.86\n"
                             "      16.895 0.962500000000         49          26.67\n"
                             "      16.895 0.968750000000         49          32.00\n"
                             "      16.895 0.971875000000         49          35.56\n"
                             "      16.895 0.975000000000         49          40.00\n"
                             "      16.895 0.978125000000         49          45.71\n"
                             "      17.500 0.981250000000         50          53.33\n"
                             "      17.500 1.000000000000         50\n";

Test(histogram, text_is_that_of_hdrhistogram)
{
    struct rp_histogram *h = made();
    char *text;

    for (int64_t i = 1; i <= 50; i++)
        rp_histogram_add(h, i * i * 7);
    text = text_of(h);
    cr_assert_eq(strncmp(text, golden, strlen(golden)), 0, "%s", text);
    cr_assert_not_null(strstr(text, "\n#[Mean    =        6.010, StdDeviation   =        5.314]\n"), "%s", text);
    cr_assert_not_null(strstr(text, "\n#[Max     =       17.500, Total count    =           50]\n"), "%s", text);
    cr_assert_not_null(strstr(text, "\n#[Buckets =           56, SubBuckets     =          256]\n"), "%s", text);
    free(text);
    free(h);
}

Test(histogram, text_of_a_known_distribution_tells_its_quantiles_and_moments)
{
    struct rp_histogram *h = sample(exponential_at);
    char *text = text_of(h), *line = strchr(text, '\n') + 2;
    double value, at, before = -1, mean, spread;
    unsigned long count, lines = 0;

    while (sscanf(line, "%lf %lf %lu", &value, &at, &count) == 3) {
        cr_assert_gt(at, before);
        before = at;
        cr_assert_geq(count, (unsigned long)floor(at * N));
        if (at > 0.01 && at < 0.9999)
            expect_near(value * 1e3, exponential_at(at), "text", at);
        line = strchr(line, '\n') + 1;
        lines++;
    }
    cr_assert_eq(before, 1);
    cr_assert_eq(count, N);
    cr_assert_gt(lines, 60); /* five for each of some 17 halvings, while values differ */
    cr_assert_eq(sscanf(line, "#[Mean    = %lf, StdDeviation   = %lf]", &mean, &spread), 2, "%s", line);
    expect_near(mean, 50, "mean", 0);
    expect_near(spread, 50, "deviation", 0); /* an exponential's is its mean */
    free(text);
    free(h);
}

Test(histogram, text_of_nothing_is_a_text)
{
    struct rp_histogram *h = made();
    char *text = text_of(h);

    cr_assert_not_null(strstr(text, "       0.000 1.000000000000          0\n"), "%s", text);
    cr_assert_not_null(strstr(text, "Total count    =            0]"), "%s", text);
    free(text);
    free(h);
}
