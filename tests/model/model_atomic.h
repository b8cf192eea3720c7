/*
 * The names of base/atomic.h for the model build: each access first gives the scheduler a turn, then goes to memory by
 * way of the coroutine's store buffer (access.c). Included by base/atomic.h through RP_MODEL_ATOMIC.
 */
#ifndef MODEL_ATOMIC_H
#define MODEL_ATOMIC_H

#include <string.h>

/* One place in the sources that accesses a word, for the interleaving that is printed. */
struct site {
    const char *file;
    unsigned line;
    const char *op, *word;
};

enum order { RELAXED, ORDERED, SEQ }; /* ORDERED: acquire, release or both, which the model does not tell apart */
enum rmw { EXCHANGE, ADD, SUB, OR, AND };

uint64_t model_load(const volatile void *p, unsigned size, enum order order, const struct site *site);
void model_store(volatile void *p, unsigned size, uint64_t value, enum order order, const struct site *site);
uint64_t model_rmw(volatile void *p, unsigned size, enum rmw how, uint64_t operand, enum order order,
                   const struct site *site);
bool model_cas(volatile void *p, unsigned size, uint64_t *expected, uint64_t value, enum order order,
               const struct site *site);
void model_relax(const struct site *site);

#define MODEL_SITE(name, text)                                                                                         \
    ({                                                                                                                 \
        static const struct site site_ = {__FILE__, __LINE__, name, text};                                             \
        &site_;                                                                                                        \
    })
/* The type of the word without _Atomic. */
#define MODEL_TYPE(p) __typeof__((void)0, *(p))
#define MODEL_BITS(v)                                                                                                  \
    ({                                                                                                                 \
        uint64_t bits_ = 0;                                                                                            \
        memcpy(&bits_, &(v), sizeof(v));                                                                               \
        bits_;                                                                                                         \
    })
#define MODEL_FROM(type, raw)                                                                                          \
    ({                                                                                                                 \
        uint64_t raw_ = (raw);                                                                                         \
        type from_;                                                                                                    \
        memcpy(&from_, &raw_, sizeof(type));                                                                           \
        from_;                                                                                                         \
    })

#define MODEL_LOAD(p, order, name) MODEL_FROM(MODEL_TYPE(p), model_load((p), sizeof(*(p)), order, MODEL_SITE(name, #p)))
#define MODEL_STORE(p, v, order, name)                                                                                 \
    ({                                                                                                                 \
        MODEL_TYPE(p) value_ = (v);                                                                                    \
        model_store((p), sizeof(*(p)), MODEL_BITS(value_), order, MODEL_SITE(name, #p));                               \
    })
#define MODEL_RMW(p, v, how, order, name)                                                                              \
    ({                                                                                                                 \
        MODEL_TYPE(p) operand_ = (MODEL_TYPE(p))(v);                                                                   \
        MODEL_FROM(MODEL_TYPE(p),                                                                                      \
                   model_rmw((p), sizeof(*(p)), how, MODEL_BITS(operand_), order, MODEL_SITE(name, #p)));              \
    })
#define MODEL_CAS(p, expected, v, order, name)                                                                         \
    ({                                                                                                                 \
        MODEL_TYPE(p) desired_ = (v);                                                                                  \
        __typeof__(expected) wanted_ = (expected);                                                                     \
        uint64_t found_ = MODEL_BITS(*wanted_);                                                                        \
        bool won_ = model_cas((p), sizeof(*(p)), &found_, MODEL_BITS(desired_), order, MODEL_SITE(name, #p));          \
        *wanted_ = MODEL_FROM(MODEL_TYPE(p), found_);                                                                  \
        won_;                                                                                                          \
    })

#define load_relaxed(p) MODEL_LOAD(p, RELAXED, "load_relaxed")
#define load_acquire(p) MODEL_LOAD(p, ORDERED, "load_acquire")
#define load_seq(p) MODEL_LOAD(p, SEQ, "load_seq")

#define store_relaxed(p, v) MODEL_STORE(p, v, RELAXED, "store_relaxed")
#define store_release(p, v) MODEL_STORE(p, v, ORDERED, "store_release")
#define store_seq(p, v) MODEL_STORE(p, v, SEQ, "store_seq")

#define exchange_relaxed(p, v) MODEL_RMW(p, v, EXCHANGE, RELAXED, "exchange_relaxed")
#define exchange_acquire(p, v) MODEL_RMW(p, v, EXCHANGE, ORDERED, "exchange_acquire")
#define exchange_release(p, v) MODEL_RMW(p, v, EXCHANGE, ORDERED, "exchange_release")
#define exchange_acq_rel(p, v) MODEL_RMW(p, v, EXCHANGE, ORDERED, "exchange_acq_rel")
#define exchange_seq(p, v) MODEL_RMW(p, v, EXCHANGE, SEQ, "exchange_seq")

#define add_relaxed(p, v) MODEL_RMW(p, v, ADD, RELAXED, "add_relaxed")
#define add_acq_rel(p, v) MODEL_RMW(p, v, ADD, ORDERED, "add_acq_rel")
#define add_seq(p, v) MODEL_RMW(p, v, ADD, SEQ, "add_seq")
#define sub_relaxed(p, v) MODEL_RMW(p, v, SUB, RELAXED, "sub_relaxed")
#define sub_acq_rel(p, v) MODEL_RMW(p, v, SUB, ORDERED, "sub_acq_rel")
#define sub_seq(p, v) MODEL_RMW(p, v, SUB, SEQ, "sub_seq")
#define or_seq(p, v) MODEL_RMW(p, v, OR, SEQ, "or_seq")
#define and_seq(p, v) MODEL_RMW(p, v, AND, SEQ, "and_seq")

#define cas_relaxed(p, expected, v) MODEL_CAS(p, expected, v, RELAXED, "cas_relaxed")
#define cas_acquire(p, expected, v) MODEL_CAS(p, expected, v, ORDERED, "cas_acquire")
#define cas_release(p, expected, v) MODEL_CAS(p, expected, v, ORDERED, "cas_release")
#define cas_acq_rel(p, expected, v) MODEL_CAS(p, expected, v, ORDERED, "cas_acq_rel")
#define cas_seq(p, expected, v) MODEL_CAS(p, expected, v, SEQ, "cas_seq")

#define cpu_relax() model_relax(MODEL_SITE("cpu_relax", ""))
#define cpu_pause(turns) ((void)(turns), cpu_relax())

#endif
