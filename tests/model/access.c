/*
 * Memory as the coroutines see it: store buffers, and an allocator that gives nothing out twice.
 *
 * In half of the schedules (`weak`) a store goes into its coroutine's buffer first, and others see it later: when the
 * scheduler takes the coroutine's turn and chooses so, when the buffer is full, or when the coroutine must wait for it.
 * It must before its next sequentially consistent access if a sequentially consistent one is in the buffer, before a
 * futex call, when it makes a thread or ends, and when another thread waits for a grace period (liburcu uses
 * membarrier(2)). So a store followed by a load of another word may take effect the other way round unless both are
 * sequentially consistent: what C11 and the machines allow, and what a lost wake-up is made of.
 * A read-modify-write may be delayed as well (that of arm64 is, in effect: a later load need not wait for its store):
 * it has its place in the word's order at once, so another coroutine that writes the word makes it be seen first, but
 * loads still give the old value. Buffers keep their order, and loads are not early: IRIW and its kin are not modelled.
 * Words on the stacks of others are written at once, as their frames may be gone later; those on a coroutine's own are
 * seen at the latest with its next read-modify-write, which every frame that others know of makes before it goes.
 */
#include "core.h"

#include <errno.h>

/* --- raw memory ------------------------------------------------------------------------------------------------- */

static uint64_t raw_load(const volatile void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 4:
        return *(const volatile uint32_t *)p;
    default:
        return *(const volatile uint64_t *)p;
    }
}

static void raw_store(volatile void *p, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)p = (uint8_t)value;
        break;
    case 4:
        *(volatile uint32_t *)p = (uint32_t)value;
        break;
    default:
        *(volatile uint64_t *)p = value;
        break;
    }
}

/* --- buffers ---------------------------------------------------------------------------------------------------- */

/* Makes the oldest n stores of the coroutine be seen. */
static void flush(struct coroutine *who, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct pending *store = &who->buffer[i];

        memory_check(store->p);
        raw_store(store->p, store->size, store->value);
        who->seq_buffered -= store->seq;
        model.rmw_pending -= store->rmw;
    }
    who->buffered -= n;
    who->own_buffered &= who->buffered > 0;
    memmove(who->buffer, who->buffer + n, who->buffered * sizeof(who->buffer[0]));
}

void flush_all(struct coroutine *who)
{
    if (who->buffered)
        flush(who, who->buffered);
}

void flush_everybody(void)
{
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        if (who->state != UNUSED)
            flush_all(who);
}

void flush_some(struct coroutine *who)
{
    flush(who, choose(who->buffered + 1));
}

/*
 * Before a write: pending read-modify-writes of others to the same word are seen first, and before one that will be
 * pending itself their stores as well. So a word whose order a pending read-modify-write has fixed has one coroutine's
 * stores pending only. A pending plain store may also be overtaken: it then undoes what the other has written.
 */
static void flush_others(const volatile void *p, bool stores)
{
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++) {
        unsigned through = 0;

        if (who == model.current || who->state == UNUSED)
            continue;
        for (unsigned i = 0; i < who->buffered; i++)
            if (who->buffer[i].p == p && (stores || who->buffer[i].rmw))
                through = i + 1;
        if (through)
            flush(who, through);
    }
}

static void buffer_add(volatile void *p, unsigned size, uint64_t value, bool rmw, bool seq)
{
    struct coroutine *me = model.current;

    if (me->buffered == BUFFERED)
        flush(me, 1);
    me->buffer[me->buffered++] = (struct pending){p, value, (uint8_t)size, rmw, seq};
    me->seq_buffered += seq;
    me->own_buffered |= on_a_stack(p);
    model.rmw_pending += rmw;
}

static bool delays(const volatile void *p)
{
    return model.weak && !model.calm && (!on_a_stack(p) || on_own_stack(p));
}

static bool delays_rmw(const volatile void *p)
{
    return model.delay_rmw && delays(p) && !on_a_stack(p);
}

/* --- the accesses ----------------------------------------------------------------------------------------------- */

static uint64_t cut(uint64_t value, unsigned size)
{
    return size == 8 ? value : value & ((UINT64_C(1) << 8 * size) - 1);
}

/* What the caller sees: its own latest store, or memory. */
static uint64_t visible(const volatile void *p, unsigned size)
{
    struct coroutine *me = model.current;

    for (unsigned i = me->buffered; i-- > 0;)
        if (me->buffer[i].p == p)
            return me->buffer[i].value;
    return raw_load(p, size);
}

static void show(const struct site *site, uint64_t value, const char *note)
{
    const char *file = strstr(site->file, "src/");

    trace("%-17s %-34s %#llx%s  %s:%u", site->op, site->word, (unsigned long long)value, note, file ? file : site->file,
          site->line);
}

uint64_t model_load(const volatile void *p, unsigned size, enum order order, const struct site *site)
{
    step(site);
    memory_check(p);
    if (order == SEQ && model.current->seq_buffered)
        flush_all(model.current);
    uint64_t value = visible(p, size);
    if (model.trace)
        show(site, value, value == raw_load(p, size) ? "" : " (own, unseen by others)");
    return value;
}

void model_store(volatile void *p, unsigned size, uint64_t value, enum order order, const struct site *site)
{
    step(site);
    memory_check(p);
    value = cut(value, size);
    if (model.rmw_pending)
        flush_others(p, false);
    if (delays(p)) {
        buffer_add(p, size, value, false, order == SEQ);
    } else {
        if (order != RELAXED)
            flush_all(model.current);
        raw_store(p, size, value);
    }
    if (model.trace)
        show(site, value, delays(p) ? " (delayed)" : "");
}

/* Reads the word for a read-modify-write: what it read stays the latest value until it has written. */
static uint64_t rmw_begin(volatile void *p, unsigned size, enum order order)
{
    struct coroutine *me = model.current;

    if (model.weak)
        flush_others(p, delays_rmw(p));
    if ((order == SEQ && me->seq_buffered) || me->own_buffered)
        flush_all(me);
    for (unsigned i = 0; i < me->buffered; i++)
        if (me->buffer[i].p == p) {
            flush_all(me);
            break;
        }
    return raw_load(p, size);
}

static void rmw_end(volatile void *p, unsigned size, uint64_t value, enum order order)
{
    if (delays_rmw(p)) {
        buffer_add(p, size, value, true, order == SEQ);
        return;
    }
    flush_all(model.current);
    raw_store(p, size, value);
}

uint64_t model_rmw(volatile void *p, unsigned size, enum rmw how, uint64_t operand, enum order order,
                   const struct site *site)
{
    step(site);
    memory_check(p);
    uint64_t before = rmw_begin(p, size, order);
    uint64_t after = how == EXCHANGE ? operand
                     : how == ADD    ? before + operand
                     : how == SUB    ? before - operand
                     : how == OR     ? before | operand
                                     : before & operand;

    after = cut(after, size);
    rmw_end(p, size, after, order);
    if (model.trace)
        show(site, after, model.current->buffered ? " (delayed)" : "");
    return before;
}

bool model_cas(volatile void *p, unsigned size, uint64_t *expected, uint64_t value, enum order order,
               const struct site *site)
{
    step(site);
    memory_check(p);
    if (model.weak)
        flush_others(p, delays_rmw(p));
    uint64_t before = visible(p, size);
    if (before == cut(*expected, size)) { /* a failure is a relaxed load, whatever the order */
        rmw_begin(p, size, order);
        rmw_end(p, size, cut(value, size), order);
        if (model.trace)
            show(site, cut(value, size), model.current->buffered ? " (delayed)" : "");
        return true;
    }
    *expected = before;
    if (model.trace)
        show(site, before, " (failed)");
    return false;
}

void model_relax(const struct site *site)
{
    model.site = site;
    yield_lowest();
}

/* --- the allocator ------------------------------------------------------------------------------------------------ */

#define ARENA (4U << 20)
#define GRAIN 64

enum { NOBODYS, LIVE, FREED };

struct block {
    size_t grains;
    char pad[GRAIN - sizeof(size_t)];
};

static _Alignas(GRAIN) char arena[ARENA];
static uint8_t owned[ARENA / GRAIN];
static size_t arena_used; /* grains */
static unsigned blocks;

void memory_reset(void)
{
    memset(owned, NOBODYS, arena_used);
    arena_used = 0;
    blocks = 0;
}

void memory_check(const volatile void *p)
{
    uintptr_t at = (uintptr_t)p - (uintptr_t)arena;

    if (at < ARENA && __builtin_expect(owned[at / GRAIN] != LIVE, 0))
        violated("access to %s memory at %p", owned[at / GRAIN] == FREED ? "freed" : "foreign", p);
    must((uintptr_t)p >= 4096 && (uintptr_t)p >> 48 == 0, "access to %p", p);
}

static bool fails(void)
{
    if (!model.allocation_failures || model.calm || chance(2))
        return false;
    model.allocation_failures--;
    trace("an allocation fails");
    return true;
}

static void *take(size_t size)
{
    size_t grains = 1 + (size + GRAIN - 1) / GRAIN;
    struct block *block = (struct block *)(void *)(arena + arena_used * GRAIN);

    if (fails())
        return NULL;
    must(arena_used + grains <= ARENA / GRAIN, "the scenario needs more memory than the model has");
    memset(owned + arena_used, LIVE, grains);
    owned[arena_used] = NOBODYS; /* the header */
    arena_used += grains;
    block->grains = grains;
    blocks++;
    return block + 1;
}

static void *arena_malloc(void *user, size_t size)
{
    (void)user;
    void *p = take(size);
    if (p)
        memset(p, 0x5a, size);
    return p;
}

static void *arena_calloc(void *user, size_t n, size_t size)
{
    (void)user;
    void *p = take(n * size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

/* A store of another's that is still under way to the block is one to freed memory. */
static void arena_free(void *user, void *p)
{
    struct block *block = (struct block *)p - 1;
    size_t first = (size_t)((char *)p - arena) / GRAIN, n = block->grains - 1;

    (void)user;
    must((char *)p > arena && (char *)p < arena + ARENA && owned[first] == LIVE, "free of %p, which is not allocated",
         p);
    flush_all(model.current);
    for (struct coroutine *who = coroutines; who < coroutines + COROUTINES; who++)
        for (unsigned i = 0; who->state != UNUSED && i < who->buffered; i++)
            must((size_t)((volatile char *)who->buffer[i].p - (char *)p) >= n * GRAIN,
                 "memory is freed that %s still writes to", who->name);
    memset(owned + first, FREED, n);
    memset(p, 0xa5, n * GRAIN);
    blocks--;
    trace("frees %p, %zu bytes", p, n * GRAIN);
}

const struct rp_allocator model_allocator = {arena_malloc, arena_calloc, arena_free, NULL};

unsigned blocks_left(void)
{
    return blocks;
}
