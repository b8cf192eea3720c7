/*
 * `ringpool demo`: real input on the pool, and proof that the pool did it right.
 *
 * Every regular file below a directory is counted and checksummed three times: once to warm the page cache, once in
 * this thread, once on the pool with a task for each file. Both timed readings run the same function over the same
 * list and find the same cache, so that their ratio is the pool's doing; making the workers is in the pool's time. Each
 * file's figures must agree, and each task must have run exactly once. A file that somebody else changed meanwhile is
 * told apart by its status (and, where that shows nothing, by a further reading) and is no error.
 */
#include "demo.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "command.h"

#define USAGE "usage: ringpool demo [--workers N] [--list] [--json] [DIR]"
#define DEFAULT_DIRECTORY "/usr/include"

/* Deep enough that the submitter is not the bottleneck, small beside the list of files. */
#define QUEUE_DEPTH 1024

/* How long to block before the progress bar has its turn. */
#define SLICE_NS 100000000

/* --- stopping ----------------------------------------------------------------------------------------------------- */

/* The signal that asked, or 0. Lock-free, hence good in a handler; relaxed, as it publishes nothing but itself. */
static atomic_int stop_signal;

static void on_stop(int signal)
{
    atomic_store_explicit(&stop_signal, signal, memory_order_relaxed);
}

bool demo_go_on(void)
{
    return atomic_load_explicit(&stop_signal, memory_order_relaxed) == 0;
}

/* Once: the second signal finds the default action, for a file system that hangs. What is ignored stays ignored. */
static void catch_stop_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND}, old;

        sigemptyset(&action.sa_mask);
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

/* --- troubles ----------------------------------------------------------------------------------------------------- */

static void say_about(struct demo *demo, const char *path, const char *what)
{
    progress_clear(&demo->progress);
    fputs("ringpool demo: ", stderr);
    print_name(stderr, path);
    fprintf(stderr, ": %s\n", what);
}

static bool trouble_keep(struct demo *demo, const char *path, int error)
{
    char *copy;

    if (demo->ntroubles == demo->troubles_room) {
        size_t room = demo->troubles_room ? demo->troubles_room * 2 : 16;
        struct trouble *bigger = reallocarray(demo->troubles, room, sizeof(*bigger));

        if (!bigger)
            return false;
        demo->troubles = bigger;
        demo->troubles_room = room;
    }
    copy = strdup(path);
    if (!copy)
        return false;
    demo->troubles[demo->ntroubles++] = (struct trouble){.path = copy, .error = error};
    return true;
}

static void on_unreadable(void *user, const char *path, int error)
{
    struct demo *demo = user;

    say_about(demo, path, strerror(error));
    if (!trouble_keep(demo, path, error))
        demo->out_of_memory = true;
}

/* --- the readings ------------------------------------------------------------------------------------------------- */

static bool walk_step(void *user)
{
    struct demo *demo = user;

    progress_add(&demo->progress, 1);
    progress_show(&demo->progress);
    return demo_go_on() && !demo->out_of_memory;
}

static int list_files(struct demo *demo)
{
    struct tree_hooks hooks = {.unreadable = on_unreadable, .go_on = walk_step, .user = demo};
    int rc;

    progress_phase(&demo->progress, "listing", 0);
    rc = tree_list(&demo->tree, &hooks);
    if (demo->out_of_memory)
        return -ENOMEM;
    if (rc < 0)
        return rc;
    /* One more than needed: calloc may give NULL for none. */
    demo->items = calloc(demo->tree.files + 1, sizeof(*demo->items));
    if (!demo->items)
        return -ENOMEM;
    for (size_t i = 0; i < demo->tree.files; i++) {
        demo->items[i].demo = demo;
        demo->items[i].path = demo->tree.paths[i];
    }
    return 0;
}

static bool serial_step(void *user, size_t bytes)
{
    struct demo *demo = user;

    progress_add(&demo->progress, bytes);
    progress_show(&demo->progress);
    return demo_go_on();
}

static int read_serially(struct demo *demo, const char *phase)
{
    struct digest_hook hook = {.step = serial_step, .user = demo};
    int64_t begun;

    progress_phase(&demo->progress, phase, demo->tree.bytes);
    begun = rp_now();
    for (size_t i = 0; i < demo->tree.files; i++) {
        if (!demo_go_on())
            return -EINTR;
        digest_file(&demo->tree, demo->items[i].path, hook, &demo->items[i].serial);
    }
    demo->serial_ns = rp_now() - begun;
    return demo_go_on() ? 0 : -EINTR;
}

static bool task_step(void *user, size_t bytes)
{
    struct demo *demo = user;

    progress_add(&demo->progress, bytes);
    return demo_go_on();
}

static void digest_task(void *arg)
{
    struct item *item = arg;
    struct demo *demo = item->demo;
    struct digest_hook hook = {.step = task_step, .user = demo};

    atomic_fetch_add_explicit(&item->runs, 1, memory_order_relaxed);
    digest_file(&demo->tree, item->path, hook, &item->pool);
    if (atomic_fetch_sub_explicit(&demo->left, 1, memory_order_relaxed) == 1)
        atomic_store_explicit(&demo->last, rp_now(), memory_order_relaxed);
}

struct rp_pool_options demo_pool_options(void)
{
    return (struct rp_pool_options){.queue_depth = QUEUE_DEPTH, .name = "demo"};
}

static int submit_file(struct demo *demo, struct rp_pool *pool, struct item *item)
{
    for (;;) {
        int rc;

        if (!demo_go_on())
            return -EINTR;
        rc = rp_pool_submit_until(pool, digest_task, item, rp_after(SLICE_NS));
        progress_show(&demo->progress);
        if (rc != -ETIMEDOUT)
            return rc;
    }
}

static int submit_files(struct demo *demo, struct rp_pool *pool)
{
    int rc = rp_pool_snapshot(pool, &demo->midway);

    for (size_t i = 0; rc == 0 && i < demo->tree.files; i++) {
        if (i == demo->tree.files / 2)
            rc = rp_pool_snapshot(pool, &demo->midway);
        if (rc == 0)
            rc = submit_file(demo, pool, &demo->items[i]);
    }
    return rc;
}

int demo_drain(struct demo *demo, struct rp_pool *pool)
{
    int rc;

    do {
        rc = rp_pool_release_until(pool, rp_after(SLICE_NS), NULL);
        progress_show(&demo->progress);
    } while (rc == -ETIMEDOUT);
    return rc;
}

static int first_error(int a, int b)
{
    return a < 0 ? a : b;
}

/* Destroy waits for the tasks, so that none is left that uses the items, whatever went wrong before. */
static int read_on_pool(struct demo *demo)
{
    struct rp_pool_options options = demo_pool_options();
    struct rp_pool *pool;
    int64_t begun;
    int rc;

    progress_phase(&demo->progress, "pool", demo->tree.bytes);
    atomic_store_explicit(&demo->left, demo->tree.files, memory_order_relaxed);
    rc = rp_pool_create(&pool, demo->workers, &options);
    if (rc < 0)
        return rc;
    begun = rp_now();
    atomic_store_explicit(&demo->last, begun, memory_order_relaxed);
    rc = submit_files(demo, pool);
    rc = first_error(rc, demo_drain(demo, pool));
    demo->pool_ns = atomic_load_explicit(&demo->last, memory_order_relaxed) - begun;
    rc = first_error(rc, rp_pool_snapshot(pool, &demo->end));
    rc = first_error(rc, rp_pool_destroy(pool));
    return first_error(rc, demo_go_on() ? 0 : -EINTR);
}

/* --- the comparison ----------------------------------------------------------------------------------------------- */

static bool is_gone(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ESTALE;
}

/*
 * Times have the granularity of a tick, and the files of some file systems have no true ones. So where the status of a
 * file is the same and its content is not, a further reading in this thread decides: if it is the first one's, then the
 * pool's was wrong.
 */
static enum verdict judge_difference(const struct demo *demo, const struct item *item)
{
    struct digest_hook hook = {.step = task_step, .user = (void *)demo};
    struct digest again;

    if (!digest_same_state(&item->serial, &item->pool))
        return VERDICT_CHANGED;
    digest_file(&demo->tree, item->path, hook, &again);
    return !again.error && digest_same_content(&item->serial, &again) ? VERDICT_MISMATCH : VERDICT_CHANGED;
}

static enum verdict judge(const struct demo *demo, struct item *item)
{
    int serial = item->serial.error, pool = item->pool.error;

    if (atomic_load_explicit(&item->runs, memory_order_relaxed) != 1)
        return VERDICT_MISMATCH;
    if (serial || pool) {
        if (serial != pool && is_gone(serial ? serial : pool))
            return VERDICT_CHANGED;
        return VERDICT_UNREADABLE;
    }
    if (digest_same_content(&item->serial, &item->pool))
        return VERDICT_SAME;
    return judge_difference(demo, item);
}

static void count(struct totals *totals, const struct digest *digest)
{
    totals->files++;
    totals->bytes += digest->bytes;
    totals->lines += digest->lines;
    totals->words += digest->words;
    totals->crc = (uint32_t)crc32_combine(totals->crc, digest->crc, (z_off_t)digest->bytes);
}

static void compare(struct demo *demo)
{
    struct totals *totals = &demo->totals;

    totals->unreadable = demo->ntroubles;
    for (size_t i = 0; i < demo->tree.files; i++) {
        struct item *item = &demo->items[i];

        item->verdict = judge(demo, item);
        if (!item->serial.error)
            count(totals, &item->serial);
        if (item->verdict == VERDICT_UNREADABLE) {
            totals->unreadable++;
            say_about(demo, item->path, strerror(item->serial.error ? item->serial.error : item->pool.error));
        } else if (item->verdict == VERDICT_CHANGED) {
            totals->changed++;
            say_about(demo, item->path, "changed between the two runs");
        } else if (item->verdict == VERDICT_MISMATCH) {
            totals->mismatched++;
            say_about(demo, item->path, "the pool's figures differ from those of the serial run");
        }
    }
}

/* --- the command -------------------------------------------------------------------------------------------------- */

static int run(struct demo *demo)
{
    int rc = list_files(demo);

    if (rc == 0)
        rc = read_serially(demo, "warming");
    if (rc == 0)
        rc = read_serially(demo, "serial");
    if (rc == 0)
        rc = read_on_pool(demo);
    if (rc == 0)
        rc = demo_measure_latencies(demo);
    progress_clear(&demo->progress);
    return rc;
}

static int finish(struct demo *demo, int rc)
{
    if (!demo_go_on()) {
        int signal = atomic_load_explicit(&stop_signal, memory_order_relaxed);

        complain("demo: interrupted (%s)", strsignal(signal));
        return STATUS_SIGNAL + signal;
    }
    if (rc < 0)
        return complain_rc("demo", rc);
    compare(demo);
    if (demo->json)
        demo_report_json(demo);
    else
        demo_report_text(demo);
    return demo->totals.mismatched || demo->totals.unreadable ? STATUS_FAILED : STATUS_OK;
}

static int demo_run(struct demo *demo)
{
    int rc = tree_open(&demo->tree, demo->directory), status;

    if (rc < 0) {
        fputs("ringpool demo: ", stderr);
        print_name(stderr, demo->directory);
        fprintf(stderr, ": %s; " USAGE "\n", strerror(-rc));
        return rc == -ENOMEM ? STATUS_FAILED : STATUS_USAGE;
    }
    progress_init(&demo->progress);
    catch_stop_signals();
    status = finish(demo, run(demo));
    for (size_t i = 0; i < demo->ntroubles; i++)
        free(demo->troubles[i].path);
    free(demo->troubles);
    free(demo->items);
    tree_close(&demo->tree);
    return status;
}

static void print_help(void)
{
    puts(USAGE "\n"
               "\n"
               "Counts bytes, lines and words (as GNU wc does in the C locale) and computes the CRC-32 of every\n"
               "regular file below DIR (default " DEFAULT_DIRECTORY
               ") on the pool, a task for each file, and again in one\n"
               "thread; compares the two, and measures how soon a submitted task starts. Symbolic links are not\n"
               "followed.\n"
               "\n"
               "  --workers N  capacity of the pool; 0, the default: the CPUs that affinity and cgroup allow\n"
               "  --list       each file's figures as well\n"
               "  --json       one JSON object instead of the text\n"
               "  --help       this text\n"
               "\n"
               "Status: 0 all is well; 1 files could not be read (they are named on stderr), or the runs disagree;\n"
               "2 bad arguments; 128 + signal if interrupted.");
}

/* One line: what is wrong with which argument, and the usage. */
static int usage_error(const char *what, const char *argument)
{
    fprintf(stderr, "ringpool demo: %s ", what);
    print_name(stderr, argument);
    fputs("; " USAGE "\n", stderr);
    return STATUS_USAGE;
}

int command_demo(int argc, char **argv)
{
    enum { HELP = 256, JSON, LIST, WORKERS };
    static const struct option options[] = {
        {"help", no_argument, NULL, HELP},
        {"json", no_argument, NULL, JSON},
        {"list", no_argument, NULL, LIST},
        {"workers", required_argument, NULL, WORKERS},
        {0},
    };
    struct demo demo = {.directory = DEFAULT_DIRECTORY};
    uint64_t number;
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (option) {
        case 'h':
        case HELP:
            print_help();
            return STATUS_OK;
        case JSON:
            demo.json = true;
            break;
        case LIST:
            demo.list = true;
            break;
        case WORKERS:
            if (!parse_number(optarg, 0, RP_WORKERS_MAX, &number))
                return usage_error("--workers takes a number from 0 to 1048574, not", optarg);
            demo.workers = (unsigned)number;
            break;
        case ':':
            return usage_error("a value is missing after", argv[optind - 1]);
        default:
            if (optopt > 0 && optopt < HELP)
                return usage_error("unknown option", (char[]){'-', (char)optopt, '\0'});
            return usage_error("bad option", argv[optind - 1]);
        }
    }
    if (argc - optind > 1)
        return usage_error("one directory at most, so not also", argv[optind + 1]);
    if (optind < argc)
        demo.directory = argv[optind];
    return demo_run(&demo);
}
