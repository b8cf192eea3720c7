/*
 * What `ringpool demo` prints on stdout: the same figures as text for people and as one JSON object for programs.
 */
#include "demo.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command.h"

/* The fields of a snapshot, so that both reports hold all of them. */
static const struct gauge {
    const char *name;
    size_t offset;
    enum { GAUGE_UNSIGNED, GAUGE_BOOL, GAUGE_COUNTER } kind;
} gauges[] = {
#define GAUGE(field, kind)                                                                                             \
    {                                                                                                                  \
#field, offsetof(struct rp_pool_snapshot, field), kind                                                         \
    }
    GAUGE(capacity, GAUGE_UNSIGNED), GAUGE(running, GAUGE_UNSIGNED),  GAUGE(busy, GAUGE_UNSIGNED),
    GAUGE(idle, GAUGE_UNSIGNED),     GAUGE(waiting, GAUGE_UNSIGNED),  GAUGE(blocked, GAUGE_UNSIGNED),
    GAUGE(closed, GAUGE_BOOL),       GAUGE(submitted, GAUGE_COUNTER), GAUGE(completed, GAUGE_COUNTER),
    GAUGE(dropped, GAUGE_COUNTER),   GAUGE(rejected, GAUGE_COUNTER),  GAUGE(panicked, GAUGE_COUNTER),
    GAUGE(spawned, GAUGE_COUNTER),   GAUGE(expired, GAUGE_COUNTER),
#undef GAUGE
};

#define GAUGES (sizeof(gauges) / sizeof(gauges[0]))

static uint64_t gauge_value(const struct rp_pool_snapshot *snapshot, const struct gauge *gauge)
{
    const char *field = (const char *)snapshot + gauge->offset;

    switch (gauge->kind) {
    case GAUGE_UNSIGNED:
        return *(const unsigned *)field;
    case GAUGE_BOOL:
        return *(const bool *)field;
    default:
        return *(const uint64_t *)field;
    }
}

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

/* n per second; 0 where the time is too short to say. */
static double rate(double n, int64_t ns)
{
    return ns > 0 ? n / seconds(ns) : 0;
}

static double speed_up(const struct demo *demo)
{
    return demo->pool_ns > 0 ? (double)demo->serial_ns / (double)demo->pool_ns : 0;
}

/* --- text --------------------------------------------------------------------------------------------------------- */

static void print_list(const struct demo *demo)
{
    printf("%10s %10s %12s %8s  path\n", "lines", "words", "bytes", "crc-32");
    for (size_t i = 0; i < demo->tree.files; i++) {
        const struct item *item = &demo->items[i];

        if (item->serial.error)
            continue;
        printf("%10" PRIu64 " %10" PRIu64 " %12" PRIu64 " %08" PRIx32 "  ", item->serial.lines, item->serial.words,
               item->serial.bytes, item->serial.crc);
        print_name(stdout, item->path);
        putchar('\n');
    }
    putchar('\n');
}

static void print_speed(const char *name, const struct demo *demo, int64_t ns)
{
    const struct totals *totals = &demo->totals;

    printf("  %-8s %10.0f %10.1f %10.3f\n", name, rate((double)totals->files, ns),
           rate((double)totals->bytes / 1e6, ns), seconds(ns));
}

static void print_speeds(const struct demo *demo)
{
    printf("\nspeed       files/s       MB/s    seconds\n");
    print_speed("serial", demo, demo->serial_ns);
    print_speed("pool", demo, demo->pool_ns);
    printf("  speed-up %10.2f   with %u workers; one reading each in this run, after an uncounted one that warmed the\n"
           "                        page cache; the pool's from the first submit to the end of the last task\n",
           speed_up(demo), demo->end.capacity);
}

static void print_snapshots(const struct demo *demo)
{
    printf("\npool           midway     at end\n");
    for (size_t i = 0; i < GAUGES; i++)
        printf("  %-9s %9" PRIu64 "  %9" PRIu64 "\n", gauges[i].name, gauge_value(&demo->midway, &gauges[i]),
               gauge_value(&demo->end, &gauges[i]));
}

static void print_latencies(const struct demo *demo)
{
    printf("\nwake latency, us     p50        p90        p99        max   (%d submits, submit to start)\n",
           LATENCY_SAMPLES);
    for (size_t i = 0; i < LATENCIES; i++)
        printf("  %-12s %9.1f  %9.1f  %9.1f  %9.1f\n", demo->latencies[i].name, demo->latencies[i].p50,
               demo->latencies[i].p90, demo->latencies[i].p99, demo->latencies[i].max);
}

void demo_report_text(const struct demo *demo)
{
    const struct totals *totals = &demo->totals;

    if (demo->list)
        print_list(demo);
    printf("directory    ");
    print_name(stdout, demo->directory);
    printf("\nbackend      %s\n", rp_backend());
    printf("files        %" PRIu64 "   in %zu directories; %zu links and special files skipped\n", totals->files,
           demo->tree.directories, demo->tree.skipped);
    printf("bytes        %" PRIu64 "\nlines        %" PRIu64 "\nwords        %" PRIu64 "\n", totals->bytes,
           totals->lines, totals->words);
    printf("checksum     %08" PRIx32 "   CRC-32 of all contents, in the byte order of the paths\n", totals->crc);
    printf("mismatches   %" PRIu64 "   between the serial run and the pool\n", totals->mismatched);
    printf("changed      %" PRIu64 "\nunreadable   %" PRIu64 "\n", totals->changed, totals->unreadable);
    print_speeds(demo);
    print_snapshots(demo);
    print_latencies(demo);
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

static void json_digest(const struct digest *digest)
{
    printf("\"bytes\":%" PRIu64 ",\"lines\":%" PRIu64 ",\"words\":%" PRIu64 ",\"crc32\":\"%08" PRIx32 "\"",
           digest->bytes, digest->lines, digest->words, digest->crc);
}

static void json_error(const char *path, int error)
{
    printf("{\"path\":");
    print_json_string(stdout, path);
    printf(",\"error\":");
    print_json_string(stdout, strerror(error));
    putchar('}');
}

static void json_unreadable(const struct demo *demo)
{
    const char *comma = "";

    printf(",\"unreadable\":[");
    for (size_t i = 0; i < demo->ntroubles; i++, comma = ",") {
        fputs(comma, stdout);
        json_error(demo->troubles[i].path, demo->troubles[i].error);
    }
    for (size_t i = 0; i < demo->tree.files; i++) {
        const struct item *item = &demo->items[i];

        if (item->verdict != VERDICT_UNREADABLE)
            continue;
        fputs(comma, stdout);
        json_error(item->path, item->serial.error ? item->serial.error : item->pool.error);
        comma = ",";
    }
    putchar(']');
}

static void json_paths(const struct demo *demo, const char *key, enum verdict verdict)
{
    const char *comma = "";

    printf(",\"%s\":[", key);
    for (size_t i = 0; i < demo->tree.files; i++) {
        if (demo->items[i].verdict != verdict)
            continue;
        fputs(comma, stdout);
        print_json_string(stdout, demo->items[i].path);
        comma = ",";
    }
    putchar(']');
}

static void json_list(const struct demo *demo)
{
    const char *comma = "";

    printf(",\"list\":[");
    for (size_t i = 0; i < demo->tree.files; i++) {
        if (demo->items[i].serial.error)
            continue;
        printf("%s{\"path\":", comma);
        print_json_string(stdout, demo->items[i].path);
        putchar(',');
        json_digest(&demo->items[i].serial);
        putchar('}');
        comma = ",";
    }
    putchar(']');
}

static void json_speed(const char *name, const struct demo *demo, int64_t ns)
{
    printf(",\"%s\":{\"seconds\":%.6f,\"files_per_s\":%.1f,\"mb_per_s\":%.3f}", name, seconds(ns),
           rate((double)demo->totals.files, ns), rate((double)demo->totals.bytes / 1e6, ns));
}

static void json_snapshot(const char *key, const struct rp_pool_snapshot *snapshot)
{
    printf(",\"%s\":{", key);
    for (size_t i = 0; i < GAUGES; i++) {
        uint64_t value = gauge_value(snapshot, &gauges[i]);

        printf("%s\"%s\":", i ? "," : "", gauges[i].name);
        if (gauges[i].kind == GAUGE_BOOL)
            fputs(value ? "true" : "false", stdout);
        else
            printf("%" PRIu64, value);
    }
    putchar('}');
}

static void json_latencies(const struct demo *demo)
{
    printf(",\"wake_latency_us\":{\"samples\":%d", LATENCY_SAMPLES);
    for (size_t i = 0; i < LATENCIES; i++)
        printf(",\"%s\":{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f}", demo->latencies[i].key,
               demo->latencies[i].p50, demo->latencies[i].p90, demo->latencies[i].p99, demo->latencies[i].max);
    putchar('}');
}

void demo_report_json(const struct demo *demo)
{
    const struct totals *totals = &demo->totals;

    printf("{\"directory\":");
    print_json_string(stdout, demo->directory);
    printf(",\"backend\":");
    print_json_string(stdout, rp_backend());
    printf(",\"files\":%" PRIu64 ",\"directories\":%zu,\"skipped\":%zu", totals->files, demo->tree.directories,
           demo->tree.skipped);
    printf(",\"bytes\":%" PRIu64 ",\"lines\":%" PRIu64 ",\"words\":%" PRIu64 ",\"crc32\":\"%08" PRIx32 "\"",
           totals->bytes, totals->lines, totals->words, totals->crc);
    json_speed("serial", demo, demo->serial_ns);
    json_speed("pool", demo, demo->pool_ns);
    printf(",\"speed_up\":%.3f", speed_up(demo));
    printf(",\"mismatches\":%" PRIu64, totals->mismatched);
    json_paths(demo, "mismatched", VERDICT_MISMATCH);
    json_paths(demo, "changed", VERDICT_CHANGED);
    json_unreadable(demo);
    json_snapshot("midway", &demo->midway);
    json_snapshot("end", &demo->end);
    json_latencies(demo);
    if (demo->list)
        json_list(demo);
    puts("}");
}
