/*
 * The stress test: random pools under random load and random interference, and a ledger of every task.
 *
 *     stress [pools|multi|jobs|soak] [--seed S] [--seconds T] [--backend auto|epoll|io_uring] [--stall SECONDS]
 *            [--round R] [--only MIX] [--canary hang|memory|thread|descriptor]
 *
 * It prints its seed first and takes it back; --seed S --round R begins with the round that failed. `soak` runs rounds
 * of all three loads in turn, and at the end the process must not be larger than it was when it had seen each of them
 * a few times. --only is for `pools`. A canary is a fault of the test's own making, which must be found.
 *
 * Nothing that moves for a while is a hang: every pool's state is printed and SIGABRT raised, so that a core file or a
 * debugger shows the threads. The while is one of time in which this process could run: it is counted in short naps of
 * the watchdog, each with a little work of its own. Where the process is stopped, has no CPU quota left, or stands in
 * line behind others, the watchdog does as well, and does not count.
 */
#include "stress.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <ringpool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t seed;
_Atomic uint64_t round_number, progress;
int backend = RP_BACKEND_AUTO;

static const struct load *const loads[] = {&load_pools, &load_multi, &load_jobs};
enum { LOADS = sizeof(loads) / sizeof(loads[0]) };
static const struct load *_Atomic current;
static const char *mix;
static int64_t stall_ns = INT64_C(20000000000);
static _Atomic bool finished;

/* --- randomness --------------------------------------------------------------------------------------------------- */

static _Thread_local uint64_t rng_state;
static _Atomic uint64_t rng_sown;

static uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9); /* the finaliser of splitmix64, S. Vigna */
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void sow(uint64_t place)
{
    rng_state = mix64(seed ^ mix64(round_number + (place << 32) + 1)) | 1;
}

uint32_t rnd(uint32_t below)
{
    if (!rng_state)
        sow(1000 + rng_sown++);
    rng_state += UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)((mix64(rng_state) >> 32) * below >> 32);
}

bool one_in(uint32_t n)
{
    return rnd(n) == 0;
}

/* --- failing ------------------------------------------------------------------------------------------------------ */

static void replay_hint(void)
{
    static const char *const backends[] = {"auto", "io_uring", "epoll"};

    fprintf(stderr, "stress: again with %s --seed %" PRIu64 " --round %" PRIu64 " --backend %s%s%s\n", current->name,
            seed, (uint64_t)round_number, backends[backend], mix ? " --only " : "", mix ? mix : "");
}

static void head(void)
{
    fprintf(stderr, "\nstress %s: FAILED in round %" PRIu64 ": ", current->name, (uint64_t)round_number);
}

/* Later failures may follow from the first, and are not told. */
void fail(const char *format, ...)
{
    static atomic_flag failed = ATOMIC_FLAG_INIT;
    va_list arguments;

    while (atomic_flag_test_and_set(&failed))
        pause();
    head();
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    current->dump();
    replay_hint();
    if (getenv("STRESS_ABORT")) /* for a core file */
        abort();
    _exit(1);
}

int expect(const char *call, int rc, bool may_fail, bool may_be_closed, const int *allowed)
{
    progress++;
    if (rc >= 0 || (rc == -ENOMEM && may_fail) || (rc == -ESHUTDOWN && may_be_closed))
        return rc;
    for (; *allowed; allowed++)
        if (rc == *allowed)
            return rc;
    fail("%s returned %d (%s)", call, rc, rp_strerror(rc));
}

static int64_t own_cpu_ns(void)
{
    struct timespec at;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

/* A nap counts as its own length, however long the machine made it. */
static void *watchdog(void *unused)
{
    const int64_t pause_ns = 10000000, work_ns = 100000;
    int64_t still = 0;
    uint64_t last = 0;

    (void)unused;
    while (!finished) {
        nap(pause_ns);
        for (int64_t until = own_cpu_ns() + work_ns; own_cpu_ns() < until;)
            ;
        uint64_t now = progress;
        still = now == last ? still + pause_ns : 0;
        last = now;
        if (still < stall_ns)
            continue;
        head();
        fprintf(stderr, "nothing has moved for %" PRId64 " s\n", stall_ns / 1000000000);
        current->dump();
        replay_hint();
        if (getenv("STRESS_HOLD")) /* for a debugger */
            for (fprintf(stderr, "stress: held as process %d\n", (int)getpid());;)
                pause();
        abort();
    }
    return NULL;
}

/* --- for pools ---------------------------------------------------------------------------------------------------- */

struct counting counting;

static void *count_calloc(void *user, size_t n, size_t size)
{
    void *p = counting.fails && one_in(6) ? NULL : calloc(n, size);

    (void)user;
    counting.pieces += p != NULL;
    return p;
}

static void *count_malloc(void *user, size_t size)
{
    return count_calloc(user, 1, size);
}

static void count_free(void *user, void *p)
{
    (void)user;
    free(p);
    counting.pieces -= p != NULL;
}

const struct rp_allocator counting_allocator = {.malloc = count_malloc, .calloc = count_calloc, .free = count_free};

void quiet_panic(void *user, const struct rp_panic_info *info)
{
    (void)user;
    (void)info;
}

void quiet_log(void *user, int level, const char *message)
{
    (void)user;
    (void)level;
    (void)message;
}

/* --- what must be as before --------------------------------------------------------------------------------------- */

static unsigned threads_before, files_before;

static unsigned entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned n = 0;

    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void residue_remember(void)
{
    nap(50000000); /* threads that end do so, or the first round hides one */
    threads_before = entries("/proc/self/task");
    files_before = entries("/proc/self/fd");
}

void residue_check(void)
{
    if (!SETTLES(entries("/proc/self/task") <= threads_before))
        fail("%u threads before the round, %u after", threads_before, entries("/proc/self/task"));
    if (!SETTLES(entries("/proc/self/fd") <= files_before))
        fail("%u descriptors before the round, %u after", files_before, entries("/proc/self/fd"));
}

/*
 * With an arena for each few threads malloc keeps the free end of all but the first, malloc_trim or not, and as much of
 * it as the largest block that was ever freed is large: 70 MiB after three minutes in which 100 KiB were in use. Rings
 * of unlimited pools are such blocks. With one arena and fixed limits what is free goes back.
 */
static void size_begin(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    mallopt(M_TRIM_THRESHOLD, 128 * 1024);
}

/* Anonymous memory in KiB, without what malloc only keeps. */
static long size_now(void)
{
    char line[128];
    long kib = -1;

    malloc_trim(0);
    FILE *file = fopen("/proc/self/status", "re");
    if (!file)
        return -1;
    while (fgets(line, sizeof(line), file))
        if (!strncmp(line, "RssAnon:", 8))
            kib = strtol(line + 8, NULL, 10);
    fclose(file);
    return kib;
}

/*
 * Rounds differ, so the largest of the first SIZES_FIRST after a round is held against the smallest of the last
 * SIZES_LAST: what grows by little each round still stands out after many.
 */
enum { SIZES_FIRST = 5 * LOADS, SIZES_LAST = 2 * LOADS, SIZE_SLACK_KIB = 512 };

static struct {
    uint64_t rounds;
    long first, last[SIZES_LAST];
} sizes;

/*
 * For the report: the least size in each of CURVE stretches of rounds, which become twice as long when there are more.
 */
enum { CURVE = 16 };

static struct {
    uint64_t length, seen; /* rounds of a stretch; those of the last one so far */
    unsigned stretches;
    long least[CURVE + 1];
} curve = {.length = 1};

static void curve_add(long size)
{
    if (curve.seen == curve.length) {
        curve.seen = 0;
        curve.stretches++;
    }
    if (curve.stretches == CURVE) {
        for (unsigned i = 0; i < CURVE / 2; i++)
            curve.least[i] = curve.least[2 * i] < curve.least[2 * i + 1] ? curve.least[2 * i] : curve.least[2 * i + 1];
        curve.stretches = CURVE / 2;
        curve.length *= 2;
    }
    long *least = &curve.least[curve.stretches];
    if (curve.seen++ == 0 || size < *least)
        *least = size;
}

static void curve_print(void)
{
    printf("stress: memory: the least KiB in each %" PRIu64 " rounds:", curve.length);
    for (unsigned i = 0; i <= curve.stretches; i++)
        printf(" %ld", curve.least[i]);
    printf("\n");
}

static void size_remember(void)
{
    long now = size_now();

    curve_add(now);
    if (sizes.rounds < SIZES_FIRST && now > sizes.first)
        sizes.first = now;
    sizes.last[sizes.rounds++ % SIZES_LAST] = now;
}

static void size_check(void)
{
    long least = sizes.last[0];

    curve_print();
    if (SANITIZED || sizes.first < 0) {
        printf("stress: memory: not looked at (%s)\n", SANITIZED ? "a sanitizer keeps some" : "no /proc");
        return;
    }
    for (int i = 1; i < SIZES_LAST; i++)
        least = sizes.last[i] < least ? sizes.last[i] : least;
    if (least > sizes.first + SIZE_SLACK_KIB)
        fail("%ld KiB after the first rounds, %ld after the last", sizes.first, least);
    printf("stress: memory: at most %ld KiB after each of the first %d rounds, %ld at the end\n", sizes.first,
           SIZES_FIRST, least);
}

/* --- faults of its own -------------------------------------------------------------------------------------------- */

static const char *canary;

static void *canary_thread(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void canary_sing(void)
{
    static void *volatile kept;
    pthread_t thread;

    if (!canary || round_number < 1)
        return;
    if (!strcmp(canary, "hang"))
        pause();
    else if (!strcmp(canary, "memory") && (kept = malloc(1024 * 1024)))
        memset(kept, 1, 1024 * 1024);
    else if (!strcmp(canary, "descriptor") && dup(0) < 0)
        fail("the canary has no descriptor");
    else if (!strcmp(canary, "thread") && pthread_create(&thread, NULL, canary_thread, NULL))
        fail("the canary has no thread");
}

/* --- main --------------------------------------------------------------------------------------------------------- */

static void rounds_run(const struct load *only, bool soak, double seconds)
{
    uint64_t first = round_number, rounds = 0, least = soak ? SIZES_FIRST + SIZES_LAST : 0;

    for (int64_t until = rp_now() + (int64_t)(seconds * 1e9); rp_now() < until || rounds < least; rounds++) {
        round_number = first + rounds;
        current = soak ? loads[round_number % LOADS] : only;
        sow(0);
        rng_sown = 0;
        current->round_run();
        canary_sing();
        residue_check();
        if (soak)
            size_remember();
    }
    if (soak)
        size_check();
    for (int i = 0; i < LOADS; i++)
        if (soak || loads[i] == only) {
            printf("stress %s: ok, rounds %" PRIu64, loads[i]->name,
                   soak ? (rounds + LOADS - 1 - (uint64_t)i) / LOADS : rounds);
            loads[i]->report();
            printf("\n");
        }
}

static int usage(void)
{
    fprintf(stderr, "usage: stress [pools|multi|jobs|soak] [--seed S] [--seconds T] [--backend auto|epoll|io_uring]\n"
                    "              [--stall SECONDS] [--round R] [--only any|calm|chaos|memory|expiry|shrink]\n"
                    "              [--canary hang|memory|thread|descriptor]\n");
    return 2;
}

static bool backend_named(const char *name)
{
    backend = !strcmp(name, "auto")       ? RP_BACKEND_AUTO
              : !strcmp(name, "epoll")    ? RP_BACKEND_EPOLL
              : !strcmp(name, "io_uring") ? RP_BACKEND_IO_URING
                                          : -1;
    return backend >= 0;
}

int main(int argc, char **argv)
{
    const struct load *only = &load_pools;
    double seconds = 10;
    bool soak = false;
    pthread_t dog;
    int i = 1;

    seed = (uint64_t)rp_now() ^ (uint64_t)getpid() << 40;
    if (argc > 1 && argv[1][0] != '-') {
        i = 2;
        soak = !strcmp(argv[1], "soak");
        only = NULL;
        for (int k = 0; k < LOADS; k++)
            if (!strcmp(argv[1], loads[k]->name))
                only = loads[k];
        if (!soak && !only)
            return usage();
    }
    for (; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value)
            return usage();
        if (!strcmp(name, "--seed"))
            seed = strtoull(value, NULL, 0);
        else if (!strcmp(name, "--seconds"))
            seconds = strtod(value, NULL);
        else if (!strcmp(name, "--round"))
            round_number = strtoull(value, NULL, 0);
        else if (!strcmp(name, "--stall"))
            stall_ns = strtoll(value, NULL, 0) * 1000000000;
        else if (!strcmp(name, "--canary"))
            canary = value;
        else if (!strcmp(name, "--only") ? pools_mix(mix = value) : !strcmp(name, "--backend") && backend_named(value))
            continue;
        else
            return usage();
    }
    printf("stress %s: seed %" PRIu64 ", backend %s\n", soak ? "soak" : only->name, seed,
           backend == RP_BACKEND_EPOLL      ? "epoll"
           : backend == RP_BACKEND_IO_URING ? "io_uring"
                                            : rp_backend());
    fflush(stdout);
    current = soak ? loads[0] : only;
    if (soak)
        size_begin();
    for (int k = 0; k < LOADS; k++)
        if (soak || loads[k] == only)
            loads[k]->warm_up();
    if (pthread_create(&dog, NULL, watchdog, NULL))
        return 1;
    residue_remember();
    rounds_run(only, soak, seconds);
    finished = true;
    pthread_join(dog, NULL);
    return 0;
}
