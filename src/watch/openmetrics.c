/*
 * Metrics as text. OpenMetrics wants all samples of a family together, so the families are walked outside and the
 * sources inside, after everything was read.
 */
#include <ringpool/metrics.h>

#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LINE 256
#define NS_PER_S 1000000000U

struct writer {
    int (*write)(void *user, const char *text, size_t size);
    void *user;
    int rc; /* of the first write that failed */
};

struct source {
    const char *label;
    struct rp_metrics metrics;
};

static void put(struct writer *writer, const char *text, size_t size)
{
    if (!writer->rc && size) {
        int rc = writer->write(writer->user, text, size);
        writer->rc = rc < 0 ? rc : 0;
    }
}

static void put_text(struct writer *writer, const char *text)
{
    put(writer, text, strlen(text));
}

/* As the format wants it in quotes. */
static void put_label(struct writer *writer, const char *label)
{
    for (size_t plain; *label; label += plain) {
        plain = strcspn(label, "\\\"\n");
        put(writer, label, plain);
        if (label[plain]) {
            put_text(writer, label[plain] == '\n' ? "\\n" : label[plain] == '"' ? "\\\"" : "\\\\");
            label++;
        }
    }
}

static void put_sample(struct writer *writer, const char *name, const struct source *source, const char *more,
                       const char *value)
{
    put_text(writer, name);
    put_text(writer, "{pool=\"");
    put_label(writer, source->label);
    put_text(writer, "\"");
    put_text(writer, more);
    put_text(writer, "} ");
    put_text(writer, value);
    put_text(writer, "\n");
}

static void put_count(struct writer *writer, const char *name, const struct source *source, const char *more,
                      uint64_t value)
{
    char text[LINE];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    put_sample(writer, name, source, more, text);
}

/* In integers, as a locale has its say in how others are written. */
static void put_seconds(struct writer *writer, const char *name, const struct source *source, const char *more,
                        uint64_t ns)
{
    char text[LINE];

    snprintf(text, sizeof(text), "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);
    put_sample(writer, name, source, more, text);
}

/* To nine places; not negative, and below 2^63 / 10^9. */
static void put_number(struct writer *writer, const char *name, const struct source *source, double value)
{
    put_seconds(writer, name, source, "", (uint64_t)(value * NS_PER_S));
}

static void put_family(struct writer *writer, const char *name, const char *type, const char *unit, const char *help)
{
    char text[LINE];

    snprintf(text, sizeof(text), "# TYPE %s %s\n", name, type);
    put_text(writer, text);
    if (unit) {
        snprintf(text, sizeof(text), "# UNIT %s %s\n", name, unit);
        put_text(writer, text);
    }
    snprintf(text, sizeof(text), "# HELP %s %s\n", name, help);
    put_text(writer, text);
}

/* --- families ----------------------------------------------------------------------------------------------------- */

static void capacity(struct writer *writer, const struct source *source, const char *name)
{
    if (source->metrics.counts.capacity == RP_UNLIMITED)
        put_sample(writer, name, source, "", "+Inf");
    else
        put_count(writer, name, source, "", source->metrics.counts.capacity);
}

static void workers(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, ",state=\"busy\"", source->metrics.counts.busy);
    put_count(writer, name, source, ",state=\"idle\"", source->metrics.counts.idle);
}

static void waiting(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.counts.waiting - source->metrics.counts.blocked);
}

static void blocked(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.counts.blocked);
}

static void closed(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.counts.closed);
}

static void submitted(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.counts.submitted);
}

static void ended(struct writer *writer, const struct source *source, const char *name)
{
    const struct rp_metrics *m = &source->metrics;

    put_count(writer, name, source, ",fate=\"completed\"", m->counts.completed);
    put_count(writer, name, source, ",fate=\"panicked\"", m->counts.panicked);
    put_count(writer, name, source, ",fate=\"cancelled\"", m->cancelled);
    put_count(writer, name, source, ",fate=\"late\"", m->late);
    put_count(writer, name, source, ",fate=\"discarded\"", m->discarded);
    put_count(writer, name, source, ",fate=\"released\"", m->released);
}

static void rejected(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.counts.rejected);
}

static void overran(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.overran);
}

static void spawned(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.counts.spawned);
}

static void expired(struct writer *writer, const struct source *source, const char *name)
{
    put_count(writer, name, source, "", source->metrics.counts.expired);
}

static void reuse(struct writer *writer, const struct source *source, const char *name)
{
    put_number(writer, name, source, source->metrics.reuse);
}

static void throughput(struct writer *writer, const struct source *source, const char *name)
{
    put_number(writer, name, source, source->metrics.throughput);
}

static void ewma(struct writer *writer, const struct source *source, const char *name)
{
    if (source->metrics.measured)
        put_seconds(writer, name, source, "", (uint64_t)source->metrics.run_ewma);
}

static void summary(struct writer *writer, const struct source *source, const char *name, const struct rp_latency *of)
{
    char part[LINE];

    if (!source->metrics.measured)
        return;
    put_seconds(writer, name, source, ",quantile=\"0.5\"", (uint64_t)of->p50);
    put_seconds(writer, name, source, ",quantile=\"0.9\"", (uint64_t)of->p90);
    put_seconds(writer, name, source, ",quantile=\"0.99\"", (uint64_t)of->p99);
    put_seconds(writer, name, source, ",quantile=\"0.999\"", (uint64_t)of->p999);
    put_seconds(writer, name, source, ",quantile=\"1.0\"", (uint64_t)of->max);
    snprintf(part, sizeof(part), "%s_sum", name);
    put_seconds(writer, part, source, "", of->sum);
    snprintf(part, sizeof(part), "%s_count", name);
    put_count(writer, part, source, "", of->count);
}

static void wait(struct writer *writer, const struct source *source, const char *name)
{
    summary(writer, source, name, &source->metrics.wait);
}

static void run(struct writer *writer, const struct source *source, const char *name)
{
    summary(writer, source, name, &source->metrics.run);
}

static const struct family {
    const char *name, *type, *unit, *help;
    void (*samples)(struct writer *writer, const struct source *source, const char *name);
} families[] = {
    {"ringpool_capacity", "gauge", NULL, "The most workers that may live.", capacity},
    {"ringpool_workers", "gauge", NULL, "Live workers.", workers},
    {"ringpool_waiting_tasks", "gauge", NULL, "Tasks accepted and not started.", waiting},
    {"ringpool_blocked_submitters", "gauge", NULL, "Submitters that wait for room.", blocked},
    {"ringpool_closed", "gauge", NULL, "Whether it takes nothing new.", closed},
    {"ringpool_submitted_tasks", "counter", NULL, "Tasks accepted.", submitted},
    {"ringpool_ended_tasks", "counter", NULL, "Tasks that have ended, by how.", ended},
    {"ringpool_rejected_tasks", "counter", NULL, "Submits that returned an error.", rejected},
    {"ringpool_overran_tasks", "counter", NULL, "Tasks that ran for longer than their timeout.", overran},
    {"ringpool_spawned_workers", "counter", NULL, "Workers made.", spawned},
    {"ringpool_expired_workers", "counter", NULL, "Workers ended as they were idle for too long.", expired},
    {"ringpool_reuse_ratio", "gauge", "ratio", "The share of tasks that found a worker made before.", reuse},
    {"ringpool_throughput", "gauge", NULL, "Tasks completed a second, lately.", throughput},
    {"ringpool_run_ewma_seconds", "gauge", "seconds", "How long tasks ran lately, on average.", ewma},
    {"ringpool_queue_wait_seconds", "summary", "seconds", "From a task's submit to its start.", wait},
    {"ringpool_run_seconds", "summary", "seconds", "From a task's start to its end.", run},
};

static void put_all(struct writer *writer, const struct source *sources, unsigned n)
{
    char name[LINE];

    for (unsigned f = 0; f < sizeof(families) / sizeof(families[0]); f++) {
        const struct family *family = &families[f];
        put_family(writer, family->name, family->type, family->unit, family->help);
        snprintf(name, sizeof(name), "%s%s", family->name, strcmp(family->type, "counter") ? "" : "_total");
        for (unsigned i = 0; i < n && !writer->rc; i++)
            family->samples(writer, &sources[i], name);
    }
    put_text(writer, "# EOF\n");
}

/* --- the call ----------------------------------------------------------------------------------------------------- */

static bool source_valid(const struct rp_metrics_source *source)
{
    return source->label && !source->pool != !source->multi;
}

/* Those that can be read: how many, or an error. */
static int sources_read(const struct rp_metrics_source *sources, unsigned n, struct source *out)
{
    int found = 0;

    for (unsigned i = 0; i < n; i++) {
        struct source *one = &out[found];
        one->label = sources[i].label;
        int rc = sources[i].pool ? rp_pool_metrics(sources[i].pool, &one->metrics)
                                 : rp_multi_metrics(sources[i].multi, &one->metrics);
        if (rc == 0)
            found++;
        else if (rc != -ESHUTDOWN && rc != -ECHILD)
            return rc;
    }
    return found;
}

int rp_metrics_text(const struct rp_metrics_source *sources, unsigned n,
                    int (*write)(void *user, const char *text, size_t size), void *user)
{
    struct writer writer = {.write = write, .user = user};
    struct rp_allocator allocator;

    if ((n && !sources) || !write || n > INT32_MAX)
        return -EINVAL;
    for (unsigned i = 0; i < n; i++)
        if (!source_valid(&sources[i]))
            return -EINVAL;
    (void)alloc_init(&allocator, NULL); /* libc's: never fails */
    struct source *read = alloc_zeroed(&allocator, n ? n : 1, sizeof(*read));
    if (!read)
        return -ENOMEM;
    int found = sources_read(sources, n, read);
    if (found >= 0)
        put_all(&writer, read, (unsigned)found);
    alloc_free(&allocator, read);
    return found < 0 ? found : writer.rc;
}
