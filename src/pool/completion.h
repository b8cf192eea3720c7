/*
 * What a job needs of a completion queue.
 */
#ifndef POOL_COMPLETION_H
#define POOL_COMPLETION_H

#include <stdint.h>

struct rp_cq;

/* A place for one completion, and a reference: 0 or a negative errno. May be called at submit, holds a reference. */
int cq_reserve(struct rp_cq *cq);
/* Fills it, exactly one per reserve, and drops the reference. */
void cq_post(struct rp_cq *cq, uint64_t user_data, int result);
/* The submit failed: the place is given back, and the reference. */
void cq_unreserve(struct rp_cq *cq);

#endif
