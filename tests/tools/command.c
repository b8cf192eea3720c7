/*
 * The command as a whole and its benchmarks: what is answered to whom, and with which status.
 */
#include "tools/child.h"

#include <criterion/criterion.h>
#include <ringpool/base.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect_usage_error(struct child_result result, const char *what)
{
    cr_assert_eq(result.status, 2, "%s: status %d", what, result.status);
    cr_assert_str_empty(result.out, "%s: %s", what, result.out);
    cr_assert(has_one_line(result.err), "%s: %s", what, result.err);
    cr_assert_not_null(strstr(result.err, "usage: ringpool"), "%s: %s", what, result.err);
    child_free(&result);
}

/* The recogniser that other tests rely on must refuse as well as accept. */
Test(json, recogniser_takes_json_and_nothing_else)
{
    static const char *const good[] = {"{}\n", "[]", "{\"a\":[1,-2.5e3,true,null,\"\\u00e9\\n\xc3\xa9\"]}", " 0 "};
    static const char *const bad[] = {
        "",
        "{",
        "{}{}",
        "[1,]",
        "{\"a\"}",
        "{a:1}",
        "01",
        "1.",
        "nul",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\xff\"",
        "\"\xc3\"",
        "\"\xed\xa0\x80\"",
        "\"\xc0\x80\"",
        "[1 2]",
        "\"open",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_assert(is_json(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_not(is_json(bad[i]), "%s", bad[i]);
}

Test(command, without_a_known_sub_command_is_a_usage_error)
{
    struct child_result bare = child_run((struct child_setting){0}, (const char *const[]){NULL});

    expect_usage_error(bare, "no argument");
    expect_usage_error(RUN("frobnicate"), "frobnicate");
    expect_usage_error(RUN(""), "empty name");
    expect_usage_error(RUN("--frobnicate"), "unknown option");
    expect_usage_error(RUN("help", "frobnicate"), "help of nothing");
    expect_usage_error(RUN("version", "x"), "version with argument");
}

Test(command, an_unknown_name_cannot_steer_the_terminal)
{
    struct child_result result = RUN("a\033[2J\nb");

    cr_assert_eq(result.status, 2);
    cr_assert(has_one_line(result.err), "%s", result.err);
    cr_assert_null(strchr(result.err, '\033'));
    cr_assert_not_null(strstr(result.err, "\"a\\033[2J\\nb\""), "%s", result.err);
    child_free(&result);
}

Test(command, help_and_version_go_to_stdout)
{
    static const char *const help[][3] = {
        {"--help"},
        {"-h"},
        {"help"},
        {"help", "demo"},
        {"demo", "--help"},
        {"bench", "--help"},
        {"bench", "lock", "--help"},
    };
    static const char *const version[][2] = {{"--version"}, {"-V"}, {"version"}};

    for (size_t i = 0; i < sizeof(help) / sizeof(help[0]); i++) {
        struct child_result result =
            child_run((struct child_setting){0}, (const char *const[]){help[i][0], help[i][1], help[i][2], NULL});

        cr_assert_eq(result.status, 0, "help %zu", i);
        cr_assert_eq(strncmp(result.out, "usage: ringpool", 15), 0, "%s", result.out);
        cr_assert_str_empty(result.err);
        child_free(&result);
    }
    for (size_t i = 0; i < sizeof(version) / sizeof(version[0]); i++) {
        struct child_result result = RUN(version[i][0]);

        cr_assert_eq(result.status, 0);
        cr_assert_str_eq(result.out, "ringpool " RP_VERSION "\n");
        child_free(&result);
    }
}

Test(command, a_result_that_cannot_be_written_is_an_error)
{
    struct child_result full = RUN_WITH({.stdout_path = "/dev/full"}, "--help");
    struct child_result closed = RUN_WITH({.closed_stdout = true}, "--help");

    cr_assert_eq(full.status, 1);
    cr_assert(has_one_line(full.err), "%s", full.err);
    cr_assert_not_null(strstr(full.err, "No space left on device"), "%s", full.err);
    cr_assert_eq(closed.status, 1);
    cr_assert_not_null(strstr(closed.err, "Bad file descriptor"), "%s", closed.err);
    child_free(&full);
    child_free(&closed);
}

Test(bench, unknown_workloads_keys_and_values_are_usage_errors)
{
    expect_usage_error(RUN("bench"), "no workload");
    expect_usage_error(RUN("bench", "frobnicate"), "unknown workload");
    expect_usage_error(RUN("bench", "lock", "frobs=1"), "unknown key");
    expect_usage_error(RUN("bench", "lock", "thread=1"), "prefix of a key");
    expect_usage_error(RUN("bench", "lock", "threads"), "key without value");
    expect_usage_error(RUN("bench", "lock", "threads="), "empty value");
    expect_usage_error(RUN("bench", "lock", "threads=1x"), "no number");
    expect_usage_error(RUN("bench", "lock", "threads=-1"), "negative");
    expect_usage_error(RUN("bench", "lock", "threads=257"), "too many");
    expect_usage_error(RUN("bench", "lock", "ms=0"), "too few");
    expect_usage_error(RUN("bench", "lock", "ms=99999999999999999999999"), "overflow");
    expect_usage_error(RUN("bench", "lock", "--frobs"), "unknown option");
}

Test(bench, every_workload_refuses_what_it_does_not_know)
{
    static const char *const all[] = {"throughput", "work",   "wake",  "roundtrip", "sleepers", "idle",
                                      "fanout",     "timers", "multi", "load",      "lock",     "completions"};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct child_result help = RUN("bench", all[i], "--help");
        struct child_result list = RUN("bench", "frobnicate");

        cr_assert_eq(help.status, 0, "%s", all[i]);
        cr_assert_not_null(strstr(list.err, all[i]), "%s is not in: %s", all[i], list.err);
        child_free(&help);
        child_free(&list);
        expect_usage_error(RUN("bench", all[i], "frobs=1"), all[i]);
        expect_usage_error(RUN("bench", all[i], "workers"), all[i]);
        expect_usage_error(RUN("bench", all[i], "--frobs"), all[i]);
        expect_usage_error(RUN("bench", all[i], "\033[2J"), all[i]);
    }
}

Test(bench, values_out_of_range_and_words_that_are_none_are_usage_errors)
{
    expect_usage_error(RUN("bench", "throughput", "workers=0"), "no workers");
    expect_usage_error(RUN("bench", "throughput", "mode=loose"), "unknown word");
    expect_usage_error(RUN("bench", "throughput", "mode="), "no word");
    expect_usage_error(RUN("bench", "throughput", "tasks=1e6"), "not digits alone");
    expect_usage_error(RUN("bench", "sleepers", "mode=queue"), "another workload's word");
    expect_usage_error(RUN("bench", "load", "rate=0"), "no rate");
    expect_usage_error(RUN("bench", "completions", "consumer=awake"), "unknown word");
    expect_usage_error(RUN("bench", "--quick", "workers=1"), "quick takes nothing");
}

/* The value after "name": in JSON of ours; -1: there is none. */
static double figure_in(const char *json, const char *name)
{
    char key[64];
    const char *at;

    snprintf(key, sizeof(key), "\"%s\":", name);
    at = strstr(json, key);
    return at ? strtod(at + strlen(key), NULL) : -1;
}

Test(bench, each_workload_prints_one_json_object_with_its_figures)
{
    static const struct {
        const char *args[6], *figures[7];
    } runs[] = {
        {{"throughput", "tasks=1000", "producers=3", "workers=2"},
         {"tasks_per_s", "submit_ns", "cpu_ns_per_task", "csw", "maxrss_kb"}},
        {{"throughput", "tasks=1000", "mode=strict", "producers=2"}, {"tasks_per_s", "submit_ns", "cpu_ns_per_task"}},
        {{"throughput", "tasks=1000", "mode=batch", "batch=7"}, {"tasks_per_s", "submit_ns", "cpu_ns_per_task"}},
        {{"work", "tasks=100", "spin=500"}, {"efficiency"}},
        {{"wake", "samples=20", "gap_us=5"},
         {"p50_us", "p90_us", "p99_us", "p999_us", "max_us", "submit_p50_us", "submit_p99_us"}},
        {{"roundtrip", "samples=20", "workers=2"}, {"p50_us", "p99_us"}},
        {{"sleepers", "tasks=20", "workers=10", "ms=1"}, {"elapsed_s", "ideal_s"}},
        {{"sleepers", "tasks=200", "outstanding=20", "ms=1", "mode=timer"}, {"elapsed_s", "cpu_s", "maxrss_kb"}},
        {{"idle", "workers=4", "seconds=1"}, {"create_us_per_worker", "rss_kb_per_worker", "cpu_s", "wakeups"}},
        {{"fanout", "tasks=1000"}, {"speedup", "serial_ns_per_element"}},
        {{"timers", "n=1000", "pairs=1000", "samples=3"}, {"arm_ns", "cancel_ns"}},
        {{"completions", "tasks=1000", "consumer=asleep"}, {"completions_per_s"}},
    };

    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        const char *args[9] = {"bench"};
        struct child_result result;
        unsigned n = 1;

        for (unsigned k = 0; k < 6 && runs[i].args[k]; k++)
            args[n++] = runs[i].args[k];
        args[n] = "--json";
        result = child_run((struct child_setting){0}, args);
        cr_assert_eq(result.status, 0, "%s: %s", args[1], result.err);
        cr_assert(is_json(result.out) && has_one_line(result.out), "%s: %s", args[1], result.out);
        cr_assert_not_null(strstr(result.out, "\"exact\":true"), "%s", result.out);
        for (unsigned k = 0; k < 7 && runs[i].figures[k]; k++)
            cr_assert_geq(figure_in(result.out, runs[i].figures[k]), 0, "%s has no %s", args[1], runs[i].figures[k]);
        cr_assert_gt(figure_in(result.out, "addition_ns"), 0, "%s has no pace", args[1]);
        child_free(&result);
    }
}

/*
 * The adversary: a pool without a queue whose only worker stands still for 300 ms, so that the submitter stands as
 * well. 300 of the 1000 tasks are due meanwhile. Measured from submit to start one of them is late; by the time-table,
 * half of them are late by more than 150 ms. The least latency is what is asserted: a loaded machine only adds to it.
 */
Test(bench, load_counts_a_stall_for_every_task_that_was_due_in_it)
{
    static const char *const arrivals[] = {"arrivals=constant", "arrivals=poisson"};

    for (size_t i = 0; i < 2; i++) {
        struct child_result result = RUN("bench", "load", "rate=1000", "seconds=1", "workers=1", "queue=0", arrivals[i],
                                         "stall_ms=300", "--json");

        cr_assert_eq(result.status, 0, "%s", result.err);
        cr_assert_geq(figure_in(result.out, "p90_us"), 150000, "%s", result.out);
        cr_assert_geq(figure_in(result.out, "tasks"), 700, "%s", result.out);
        child_free(&result);
    }
}

Test(bench, load_prints_the_text_of_hdrhistogram)
{
    struct child_result result = RUN("bench", "load", "rate=1000", "seconds=1");

    cr_assert_eq(result.status, 0, "%s", result.err);
    cr_assert_eq(strncmp(result.out, "       Value     Percentile TotalCount 1/(1-Percentile)\n\n", 57), 0, "%s",
                 result.out);
    cr_assert_not_null(strstr(result.out, " 1.000000000000       1000\n#[Mean    = "), "%s", result.out);
    cr_assert_not_null(strstr(result.out, "\n#[Buckets = "), "%s", result.out);
    child_free(&result);
}

Test(bench, lock_loses_no_section_and_says_so)
{
    struct child_result text = RUN("bench", "lock", "ms=1");
    struct child_result json = RUN("bench", "lock", "ms=1", "threads=3", "section=100", "--json");

    cr_assert_eq(text.status, 0, "%s", text.err);
    cr_assert_not_null(strstr(text.out, "every counter equals the number of sections"), "%s", text.out);
    cr_assert_not_null(strstr(text.out, "\n4 threads"), "%s", text.out);
    cr_assert_eq(json.status, 0, "%s", json.err);
    cr_assert(is_json(json.out), "%s", json.out);
    cr_assert_not_null(strstr(json.out, "\"correct\":true"), "%s", json.out);
    cr_assert_not_null(strstr(json.out, "\"threads_3_per_s\":{\"rp_lock\":"), "%s", json.out);
    cr_assert_null(strstr(json.out, "threads_4"));
    child_free(&text);
    child_free(&json);
}
