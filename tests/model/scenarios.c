/*
 * All the lists of scenarios.
 */
#include "model.h"

extern const struct scenario scenarios_submit[], scenarios_life[], scenarios_room[], scenarios_fault[],
    scenarios_future[], scenarios_queue[], scenarios_timer[], scenarios_multi[], scenarios_share[];

const struct scenario *const scenario_lists[] = {
    scenarios_submit, scenarios_life,  scenarios_room,  scenarios_fault, scenarios_future,
    scenarios_queue,  scenarios_timer, scenarios_multi, scenarios_share, NULL};
