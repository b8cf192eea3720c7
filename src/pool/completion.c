/*
 * Completion queues are not in this version: no struct rp_cq can be made, and a task that names one is refused.
 */
#include "pool/completion.h"

#include <errno.h>

int cq_reserve(struct rp_cq *cq)
{
    (void)cq;
    return -ENOTSUP;
}

void cq_post(struct rp_cq *cq, uint64_t user_data, int result)
{
    (void)cq;
    (void)user_data;
    (void)result;
}

void cq_unreserve(struct rp_cq *cq)
{
    (void)cq;
}
