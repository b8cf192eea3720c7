/*
 * The reactor's contract (ring/reactor.h) for coroutines: timers by the model's clock, posted work, one coroutine that
 * fires and runs them. Its own steps are atomic; between them anything may happen.
 */
#include "core.h"

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

void reactors_reset(void)
{
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

/* Something was added: the coroutine looks again. */
static void notify(struct reactor *reactor)
{
    if (reactor->thread->state == BLOCKED && reactor->thread->waits_on == reactor)
        wake(reactor->thread, 0);
}

static void fire(struct reactor *reactor, struct timer *timer)
{
    unlink_timer(timer);
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

void timer_arm(struct timer *timer, int64_t due)
{
    struct reactor *reactor = timer->reactor;

    step(&arm_site);
    memory_check(timer);
    flush_all(model.current);
    if (timer->state == ARMED)
        unlink_timer(timer);
    timer->due = due;
    timer->state = ARMED;
    timer->next = reactor->timers;
    timer->link = &reactor->timers;
    if (timer->next)
        timer->next->link = &timer->next;
    reactor->timers = timer;
    trace("arms a timer for %+lld ns", (long long)(due - model.now));
    notify(reactor);
}

bool timer_cancel(struct timer *timer)
{
    step(&cancel_site);
    memory_check(timer);
    flush_all(model.current);
    if (timer->state != ARMED)
        return false;
    unlink_timer(timer);
    return true;
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
