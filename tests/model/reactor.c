/*
 * The reactor's contract (ring/reactor.h) for coroutines: timers by the model's clock, posted work, one coroutine that
 * fires and runs them. Its own steps are atomic; between them anything may happen.
 */
#include "core.h"

#include "ring/bell.h"
#include "ring/reactor.h"

#include <errno.h>

enum { REACTORS = 4, IDLE = 0, ARMED = 1 };

struct reactor {
    bool used, ending;
    unsigned references;
    struct timer *timers; /* armed ones, in any order */
    struct timer *firing;
    struct work *work, **work_end;
    struct coroutine *thread;
};

static struct reactor reactors[REACTORS];
static const struct site post_site = {"reactor", 0, "reactor_post", ""}, arm_site = {"reactor", 0, "timer_arm", ""},
                         cancel_site = {"reactor", 0, "timer_cancel", ""}, fire_site = {"reactor", 0, "fire", ""};

static void bells_reset(void);

void reactors_reset(void)
{
    bells_reset();
    memset(reactors, 0, sizeof(reactors));
}

static int64_t earliest(const struct reactor *reactor)
{
    int64_t due = FOREVER;

    for (const struct timer *timer = reactor->timers; timer; timer = timer->next)
        if (timer->due < due)
            due = timer->due;
    return due;
}

static void unlink_timer(struct timer *timer)
{
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    timer->state = IDLE;
}

static void link_timer(struct timer *timer, int64_t due)
{
    struct reactor *reactor = timer->reactor;

    timer->due = due;
    timer->state = ARMED;
    timer->next = reactor->timers;
    timer->link = &reactor->timers;
    if (timer->next)
        timer->next->link = &timer->next;
    reactor->timers = timer;
}

/* Something was added: the coroutine looks again. */
static void notify(struct reactor *reactor)
{
    if (reactor->thread->state == BLOCKED && reactor->thread->waits_on == reactor)
        wake(reactor->thread, 0);
}

static void fire(struct reactor *reactor, struct timer *timer)
{
    unlink_timer(timer);
    if (timer->interval > 0) { /* for the next time first, as the real one does */
        int64_t skipped = (model.now - timer->due) / timer->interval;
        timer->skipped += (uint64_t)skipped;
        link_timer(timer, timer->due + (skipped + 1) * timer->interval);
    }
    reactor->firing = timer;
    trace("a timer fires");
    step(&fire_site);
    timer->fire(timer);
    flush_all(model.current);
    reactor->firing = NULL;
    wake_on(&reactor->firing, COROUTINES, 0);
}

static struct timer *due_timer(const struct reactor *reactor)
{
    for (struct timer *timer = reactor->timers; timer; timer = timer->next)
        if (timer->due <= model.now)
            return timer;
    return NULL;
}

static void *reactor_main(void *arg)
{
    struct reactor *reactor = arg;

    for (;;) {
        struct work *work = reactor->work;
        struct timer *timer;

        if (work) {
            reactor->work = work->next;
            if (!work->next)
                reactor->work_end = &reactor->work;
            step(&fire_site);
            work->run(work);
            flush_all(model.current);
        } else if (reactor->ending) {
            break;
        } else if ((timer = due_timer(reactor))) {
            fire(reactor, timer);
        } else {
            int64_t due = earliest(reactor);
            block(reactor, "a timer or work", due == FOREVER ? 0 : due);
        }
    }
    reactor->used = false;
    return NULL;
}

static struct reactor *reactor_self(void)
{
    for (int i = 0; i < REACTORS; i++)
        if (reactors[i].used && reactors[i].thread == model.current)
            return &reactors[i];
    return NULL;
}

/* Every pool has its own: what one shared by all adds is told by the reactor's own tests. */
int reactor_get(struct reactor **out, int backend, bool own)
{
    (void)backend;
    (void)own;
    for (int i = 0; i < REACTORS; i++) {
        struct reactor *reactor = &reactors[i];

        if (reactor->used)
            continue;
        *reactor = (struct reactor){.used = true, .references = 1};
        reactor->work_end = &reactor->work;
        reactor->thread = coroutine_new("reactor", reactor_main, reactor);
        reactor->thread->service = true;
        *out = reactor;
        return 0;
    }
    return -EAGAIN;
}

void reactor_put(struct reactor *reactor)
{
    if (!reactor)
        return;
    struct coroutine *thread = reactor->thread;
    reactor->ending = true;
    if (reactor_self() == reactor) {
        thread->detached = true;
        return;
    }
    notify(reactor);
    while (thread->state != ENDED)
        block(thread, "the reactor's end", 0);
    thread->state = UNUSED;
}

const char *reactor_backend(const struct reactor *reactor)
{
    (void)reactor;
    return "model";
}

bool reactor_is_self(const struct reactor *reactor)
{
    return reactor->thread == model.current;
}

void timer_init(struct timer *timer, struct reactor *reactor, void (*fire_)(struct timer *timer))
{
    *timer = (struct timer){.reactor = reactor, .fire = fire_, .state = IDLE};
}

static void arm(struct timer *timer, int64_t due, int64_t interval)
{
    step(&arm_site);
    memory_check(timer);
    flush_all(model.current);
    if (timer->state == ARMED)
        unlink_timer(timer);
    timer->interval = interval;
    timer->skipped = 0;
    link_timer(timer, due);
    trace("arms a timer for %+lld ns", (long long)(due - model.now));
    notify(timer->reactor);
}

void timer_arm(struct timer *timer, int64_t due)
{
    arm(timer, due, 0);
}

void timer_arm_periodic(struct timer *timer, int64_t due, int64_t interval)
{
    arm(timer, due, interval);
}

uint64_t timer_skipped(const struct timer *timer)
{
    memory_check(timer);
    return timer->skipped;
}

unsigned timer_disarm(struct timer *timer)
{
    unsigned found = 0;

    step(&cancel_site);
    memory_check(timer);
    flush_all(model.current);
    if (timer->reactor->firing == timer)
        found |= TIMER_FIRES;
    if (timer->state == ARMED) {
        unlink_timer(timer);
        found |= TIMER_ARMED;
    }
    return found;
}

bool timer_cancel(struct timer *timer)
{
    return timer_disarm(timer) & TIMER_ARMED;
}

bool timer_cancel_wait(struct timer *timer)
{
    struct reactor *reactor = timer->reactor;
    bool armed = timer_cancel(timer);

    while (reactor->firing == timer && reactor->thread != model.current) {
        block(&reactor->firing, "a timer's fire to return", 0);
        if (timer->state == ARMED)
            unlink_timer(timer);
    }
    return armed;
}

void reactor_post(struct reactor *reactor, struct work *work)
{
    step(&post_site);
    flush_all(model.current);
    work->next = NULL;
    *reactor->work_end = work;
    reactor->work_end = &work->next;
    notify(reactor);
}

/* The model has no rings: queues in a user's ring are told by their tests. */
bool reactor_sends(const struct reactor *reactor)
{
    (void)reactor;
    return false;
}

int reactor_send(struct reactor *reactor, int ring_fd, const struct ring_message *messages, unsigned n)
{
    (void)reactor;
    (void)ring_fd;
    (void)messages;
    (void)n;
    return -EOPNOTSUPP;
}

/* --- bells ------------------------------------------------------------------------------------------------------ */

enum { BELLS = 4, FIRST_BELL = 1000 };

static struct {
    bool open, sounds;
} bells[BELLS];
static const struct site bell_site = {"bell", 0, "bell", ""};

static void bells_reset(void)
{
    memset(bells, 0, sizeof(bells));
}

int bell_open(void)
{
    for (int i = 0; i < BELLS; i++)
        if (!bells[i].open) {
            bells[i].open = true;
            return FIRST_BELL + i;
        }
    return -EMFILE;
}

static unsigned bell_index(int bell)
{
    unsigned i = (unsigned)(bell - FIRST_BELL);

    step(&bell_site);
    flush_all(model.current);
    must(i < BELLS && bells[i].open, "bell %d is not open", bell);
    return i;
}

void bell_ring(int bell)
{
    unsigned i = bell_index(bell);

    trace("rings bell %d", bell);
    bells[i].sounds = true;
    wake_on(&bells[i], COROUTINES, 0);
}

void bell_drain(int bell)
{
    bells[bell_index(bell)].sounds = false;
}

void bell_close(int bell)
{
    if (bell >= 0)
        bells[bell_index(bell)].open = false;
}

void bell_wait(int fd, int64_t deadline)
{
    unsigned i = bell_index(fd);

    if (!bells[i].sounds)
        block(&bells[i], "a fd", deadline == FOREVER ? 0 : deadline);
}
