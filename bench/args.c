/* See args.h. */
#include "args.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command.h"

static void print_words(FILE *out, const char *const *words)
{
    for (size_t i = 0; words[i]; i++)
        fprintf(out, "%s%s", i ? "|" : "", words[i]);
}

static void print_keys(FILE *out, const char *program, const char *workload, const struct arg_key *keys, size_t n)
{
    fprintf(out, "usage: %s %s", program, workload);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, " [%s=", keys[i].name);
        if (keys[i].words)
            print_words(out, keys[i].words);
        else
            fprintf(out, "%" PRIu64 "..%" PRIu64, keys[i].least, keys[i].most);
        putc(']', out);
    }
    fputs(" [--json]\n", out);
}

static void print_help(const char *program, const char *workload, const struct arg_key *keys, size_t n)
{
    print_keys(stdout, program, workload, keys, n);
    puts("");
    for (size_t i = 0; i < n; i++) {
        printf("  %-10s %s", keys[i].name, keys[i].meaning);
        if (keys[i].words)
            printf("; default %s\n", keys[i].words[*keys[i].value]);
        else if (strstr(keys[i].meaning, "default")) /* says more about it than a number would */
            puts("");
        else
            printf("; default %" PRIu64 "\n", *keys[i].value);
    }
}

static const struct arg_key *find_key(const struct arg_key *keys, size_t n, const char *name, size_t length)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(keys[i].name) == length && memcmp(keys[i].name, name, length) == 0)
            return &keys[i];
    return NULL;
}

static bool set_value(const struct arg_key *key, const char *text)
{
    if (!key->words)
        return parse_number(text, key->least, key->most, key->value);
    for (uint64_t i = 0; key->words[i]; i++)
        if (strcmp(key->words[i], text) == 0) {
            *key->value = i;
            return true;
        }
    return false;
}

enum args_parsed args_parse(const char *program, const char *workload, const struct arg_key *keys, size_t n, int argc,
                            char **argv, bool *json)
{
    for (int i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        const struct arg_key *key = equals ? find_key(keys, n, argv[i], (size_t)(equals - argv[i])) : NULL;

        if (strcmp(argv[i], "--json") == 0) {
            *json = true;
            continue;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(program, workload, keys, n);
            return ARGS_HELP;
        }
        if (key && set_value(key, equals + 1))
            continue;
        fprintf(stderr, "%s %s: %s ", program, workload, key ? "value out of range in" : "unknown key");
        print_name(stderr, argv[i]);
        fputs("; ", stderr);
        print_keys(stderr, program, workload, keys, n);
        return ARGS_USAGE;
    }
    return ARGS_RUN;
}
