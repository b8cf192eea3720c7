/*
 * The text of OpenMetrics: read here line by line as its grammar has it (openmetrics.io, "ABNF"), and held against the
 * figures that it is made of.
 */
#include <ringpool/metrics.h>

#include "../pool/multi.h"

#include <ctype.h>
#include <locale.h>
#include <math.h>

struct text {
    char *at;
    size_t size, pieces;
    int fail_at, rc; /* the piece of that number is refused */
};

static int collect(void *user, const char *piece, size_t size)
{
    struct text *text = user;

    if (text->fail_at && (int)++text->pieces >= text->fail_at)
        return text->rc;
    text->at = realloc(text->at, text->size + size + 1);
    memcpy(text->at + text->size, piece, size);
    text->size += size;
    text->at[text->size] = 0;
    return 0;
}

static void do_nothing(void *arg)
{
    (void)arg;
}

static void text_of(struct text *text, const struct rp_metrics_source *sources, unsigned n)
{
    *text = (struct text){0};
    cr_assert_eq(rp_metrics_text(sources, n, collect, text), 0);
}

/* The value of the sample that begins so; NAN: there is none. */
static double value_of(const struct text *text, const char *sample)
{
    const char *found = strstr(text->at, sample);

    return found && (found == text->at || found[-1] == '\n') ? atof(found + strlen(sample)) : NAN;
}

/* --- the grammar -------------------------------------------------------------------------------------------------- */

static const char *name_end(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return s;
    while (isalnum((unsigned char)*s) || *s == '_' || *s == ':')
        s++;
    return s;
}

/* {name="escaped",...} */
static const char *labels_end(const char *s)
{
    cr_assert_eq(*s, '{', "no labels: %s", s);
    do {
        const char *end = name_end(++s);
        cr_assert(end > s && end[0] == '=' && end[1] == '"', "no label: %s", s);
        for (s = end + 2; *s != '"'; s++) {
            cr_assert(*s && *s != '\n', "an open quote");
            if (*s == '\\') {
                s++;
                cr_assert(*s == '\\' || *s == '"' || *s == 'n', "an escape that there is not");
            }
        }
        s++;
    } while (*s == ',');
    cr_assert_eq(*s, '}', "labels end with: %s", s);
    return s + 1;
}

/* A sample of the family that was last declared. */
static void check_sample(const char *line, const char *family, const char *type)
{
    const char *end = name_end(line);
    char *rest;
    size_t named = strlen(family), size = (size_t)(end - line);

    cr_assert(size >= named && !strncmp(line, family, named), "%.40s among those of %s", line, family);
    const char *suffix = line + named;
    size -= named;
    if (!strcmp(type, "counter"))
        cr_assert(size == 6 && !strncmp(suffix, "_total", 6), "%.60s", line);
    else if (!strcmp(type, "gauge"))
        cr_assert(size == 0, "%.60s", line);
    else
        cr_assert(size == 0 || (size == 4 && !strncmp(suffix, "_sum", 4)) ||
                  (size == 6 && !strncmp(suffix, "_count", 6)));
    end = labels_end(end);
    cr_assert_eq(*end, ' ');
    (void)strtod(end + 1, &rest);
    cr_assert(rest > end + 1 && *rest == 0, "no number: %s", end);
    cr_assert_null(strchr(end, ','), "a comma in a number: %s", end);
}

static void check_text(const struct text *text)
{
    char family[80] = "", type[20] = "", unit[20], *copy = strdup(text->at), *save = NULL;
    char seen[40][80];
    unsigned families = 0;
    bool over = false;

    cr_assert_eq(text->at[text->size - 1], '\n');
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char other[80];
        cr_assert_not(over, "more after the end: %s", line);
        if (!strcmp(line, "# EOF")) {
            over = true;
        } else if (sscanf(line, "# TYPE %79s %19s", family, type) == 2) {
            for (unsigned i = 0; i < families; i++)
                cr_assert_str_neq(seen[i], family, "twice");
            cr_assert_lt(families, 40);
            memcpy(seen[families++], family, sizeof(family));
            cr_assert(!strcmp(type, "gauge") || !strcmp(type, "counter") || !strcmp(type, "summary"));
        } else if (sscanf(line, "# UNIT %79s %19s", other, unit) == 2) {
            cr_assert_str_eq(other, family);
            cr_assert(strlen(family) > strlen(unit) && !strcmp(family + strlen(family) - strlen(unit), unit));
        } else if (sscanf(line, "# HELP %79s", other) == 1) {
            cr_assert_str_eq(other, family);
        } else {
            check_sample(line, family, type);
        }
    }
    cr_assert(over, "no end");
    free(copy);
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

Test(openmetrics, text_keeps_the_grammar_and_says_what_the_metrics_say)
{
    const struct rp_pool_options measured = {.metrics = true, .queue_depth = 16};
    struct rp_pool *pool = pool_make(2, &measured), *plain = pool_make(RP_UNLIMITED, NULL);
    struct rp_multi *multi = multi_make(2, 3, RP_ROUND_ROBIN, &(struct rp_multi_options){.pool = &measured});
    struct rp_metrics_source sources[] = {{.label = "a \"quoted\\one\"\nof two lines", .pool = pool},
                                          {.label = "", .pool = plain},
                                          {.label = "many", .multi = multi}};
    struct text text;

    for (int i = 0; i < 7; i++)
        cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
    AWAIT(pool_look(pool).completed == 7 && rp_pool_busy(pool) == 0);
    text_of(&text, sources, 3);
    check_text(&text);
    cr_assert_eq(
        value_of(&text,
                 "ringpool_ended_tasks_total{pool=\"a \\\"quoted\\\\one\\\"\\nof two lines\",fate=\"completed\"} "),
        7);
    cr_assert_eq(value_of(&text, "ringpool_run_seconds_count{pool=\"a \\\"quoted\\\\one\\\"\\nof two lines\"} "), 7);
    cr_assert_eq(value_of(&text, "ringpool_capacity{pool=\"many\"} "), 6);
    cr_assert_eq(value_of(&text, "ringpool_capacity{pool=\"\"} "), INFINITY);
    cr_assert_eq(value_of(&text, "ringpool_run_seconds_count{pool=\"many\"} "), 0);
    cr_assert(isnan(value_of(&text, "ringpool_run_seconds_count{pool=\"\"} ")), "nothing is measured there");
    free(text.at);
    multi_end(multi);
    pool_end(plain);
    pool_end(pool);
}

Test(openmetrics, of_nothing_there_is_a_text_too)
{
    struct text text;

    text_of(&text, NULL, 0);
    check_text(&text);
    free(text.at);
}

Test(openmetrics, what_write_returns_ends_it)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_metrics_source source = {.label = "x", .pool = pool};
    struct text text = {.fail_at = 5, .rc = -EIO};

    cr_assert_eq(rp_metrics_text(&source, 1, collect, &text), -EIO);
    cr_assert_eq(text.pieces, 5, "it was called again");
    free(text.at);
    text = (struct text){.fail_at = 1, .rc = 12}; /* as of a write that tells how much */
    cr_assert_eq(rp_metrics_text(&source, 1, collect, &text), 0);
    pool_end(pool);
}

/* Adversary: a locale whose decimal point is a comma. */
Test(openmetrics, numbers_are_those_of_no_locale)
{
    struct rp_pool *pool = pool_make(1, &(struct rp_pool_options){.metrics = true});
    struct rp_metrics_source source = {.label = "x", .pool = pool};
    struct text text;

    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "de_DE") &&
        !setlocale(LC_NUMERIC, "fr_FR.UTF-8"))
        cr_skip_test("no such locale is installed");
    cr_assert_eq(rp_pool_submit(pool, do_nothing, NULL), 0);
    AWAIT(pool_look(pool).completed == 1);
    text_of(&text, &source, 1);
    setlocale(LC_NUMERIC, "C");
    check_text(&text);
    free(text.at);
    pool_end(pool);
}

Test(openmetrics, wrong_calls_are_refused)
{
    struct rp_pool *pool = pool_make(1, NULL);
    struct rp_multi *multi = multi_make(1, 1, RP_ROUND_ROBIN, NULL);
    struct rp_metrics_source source = {.label = "x", .pool = pool};
    struct text text = {0};

    cr_assert_eq(rp_metrics_text(NULL, 1, collect, &text), -EINVAL);
    cr_assert_eq(rp_metrics_text(&source, 1, NULL, &text), -EINVAL);
    source.label = NULL;
    cr_assert_eq(rp_metrics_text(&source, 1, collect, &text), -EINVAL);
    source = (struct rp_metrics_source){.label = "x"};
    cr_assert_eq(rp_metrics_text(&source, 1, collect, &text), -EINVAL);
    source = (struct rp_metrics_source){.label = "x", .pool = pool, .multi = multi};
    cr_assert_eq(rp_metrics_text(&source, 1, collect, &text), -EINVAL);
    cr_assert_eq(text.size, 0);
    multi_end(multi);
    pool_end(pool);
}
