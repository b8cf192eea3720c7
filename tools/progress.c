/* See progress.h. */
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <ringpool/base.h>

#define REDRAW_NS 100000000
#define BAR_MOST 40
#define BESIDE_BAR 30 /* columns of the texts left and right of the bar */

void progress_init(struct progress *progress)
{
    const char *terminal = getenv("TERM");

    *progress = (struct progress){
        .shown = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0,
        .phase = "",
    };
}

void progress_phase(struct progress *progress, const char *phase, uint64_t total)
{
    progress->phase = phase;
    progress->total = total;
    atomic_store_explicit(&progress->done, 0, memory_order_relaxed);
}

static int bar_width(void)
{
    struct winsize size;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;

    columns -= BESIDE_BAR;
    return columns < 0 ? 0 : columns > BAR_MOST ? BAR_MOST : columns;
}

static void draw(const struct progress *progress)
{
    static const char full[BAR_MOST + 1] = "########################################";
    static const char empty[BAR_MOST + 1] = "........................................";
    uint64_t done = atomic_load_explicit(&progress->done, memory_order_relaxed);
    double share;
    int width, filled;

    if (progress->total == 0) {
        fprintf(stderr, "\r%-10s %" PRIu64 "\033[K", progress->phase, done);
        return;
    }
    share = done < progress->total ? (double)done / (double)progress->total : 1.0;
    width = bar_width();
    filled = (int)(share * width);
    fprintf(stderr, "\r%-10s [%.*s%.*s] %3d %%\033[K", progress->phase, filled, full, width - filled, empty,
            (int)(share * 100));
}

void progress_show(struct progress *progress)
{
    int64_t now;

    if (!progress->shown)
        return;
    now = rp_now();
    if (now < progress->next)
        return;
    progress->next = now + REDRAW_NS;
    progress->drawn = true;
    draw(progress);
}

void progress_clear(struct progress *progress)
{
    if (!progress->drawn)
        return;
    progress->drawn = false;
    progress->next = 0;
    fputs("\r\033[K", stderr);
}
