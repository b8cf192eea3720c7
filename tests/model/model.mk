# The model: the pool's real sources under a deterministic scheduler; see tests/model/README.md. Included by the Makefile.

MODEL_DIR := tests/model
MODEL_BUILD := $(BUILD)/model
MODEL_POOL := $(sort $(wildcard src/pool/*.c)) $(addprefix src/base/,alloc.c clock.c error.c histogram.c lock.c log.c)
MODEL_OWN := $(sort $(wildcard $(MODEL_DIR)/*.c))
MODEL_OBJ := $(patsubst %.c,$(MODEL_BUILD)/%.o,$(MODEL_POOL) $(MODEL_OWN))
MODEL := $(MODEL_BUILD)/model
# -Wshadow: the accesses are statement expressions, which nest.
MODEL_CFLAGS := -D_GNU_SOURCE -std=gnu11 -O2 -g -Wall -Wextra $(WERROR) -Wmissing-prototypes -Wstrict-prototypes \
    -include $(MODEL_DIR)/override.h -I$(MODEL_DIR) -Iinclude

$(MODEL_BUILD)/%.o: %.c $(BUILD)/config.mk
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(MODEL_CFLAGS) -Isrc $(DEPS_CFLAGS) -MMD -MP -c $< -o $@

$(MODEL): $(MODEL_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) -g -no-pie $^ -o $@

-include $(MODEL_OBJ:.o=.d)

.PHONY: model model-long mutants model-spin
SCENARIO ?=
FIRST ?=
MODEL_RUN = $(MODEL) $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(FIRST),--first $(FIRST)) --jobs $(shell nproc)
model: $(MODEL) ## the pool under a deterministic scheduler: 2 million schedules, at most 2 minutes; FIRST= seed; SCENARIO= SEED= replay
	$(Q)$(if $(SEED),$(MODEL) --scenario $(SCENARIO) --seed $(SEED),$(MODEL_RUN) --schedules 2000000 --seconds 120)

model-long: $(MODEL) ## the same, 100 million schedules
	$(Q)$(MODEL_RUN) --schedules 100000000

MUTANT ?=
mutants: $(MODEL) ## each known mistake, seeded into a copy of src/, must be found by the model; MUTANT= one of them
	$(Q)BUILD='$(BUILD)' CC='$(CC)' MODEL_CFLAGS='$(MODEL_CFLAGS)' MODEL_POOL='$(MODEL_POOL)' MODEL_OBJ='$(MODEL_OBJ)' \
	    DEPS_CFLAGS='$(DEPS_CFLAGS)' $(MODEL_DIR)/mutants.sh 2000000 $(MUTANT)

model-spin: ## the Promela models by spin, exhaustively, and their seeded mistakes (skipped without spin)
	$(Q)BUILD='$(BUILD)' $(MODEL_DIR)/spin.sh

C11_OBJ := $(patsubst %.c,$(MODEL_BUILD)/%.o,$(addprefix $(MODEL_DIR)/,schedule.c access.c base.c main.c reactor.c) src/base/alloc.c)
.PHONY: model-c11
model-c11: $(MODEL) ## stack, hand-off, room and others as small C11 programs: this scheduler, and GenMC, nidhugg, CBMC, herd where installed
	$(Q)BUILD='$(BUILD)' CC='$(CC)' MODEL_CFLAGS='$(MODEL_CFLAGS)' C11_OBJ='$(C11_OBJ)' $(MODEL_DIR)/c11.sh
