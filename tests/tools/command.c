/*
 * The command as a whole and its benchmark of locks: what is answered to whom, and with which status.
 */
#include "tools/child.h"

#include <criterion/criterion.h>
#include <ringpool/base.h>
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
