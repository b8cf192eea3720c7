# ringpool. `make help` lists the targets; V=1 shows the commands.
#
# Everything is built out of tree in $(BUILD). What the machine says (compiler, flags of the libraries) is kept in
# $(BUILD)/config.mk, which make writes before anything else and of which every object depends: a changed flag or
# compiler rebuilds. Writing it begins with tools/setup.sh, which installs or names what is missing; so the first run
# needs nothing but make, and `help`, `clean` and the other goals that compile nothing touch nothing.

VERSION := 0.1.0
SONAME := libringpool.so.0

BUILD ?= build
PREFIX ?= /usr/local
bindir ?= $(PREFIX)/bin
libdir ?= $(PREFIX)/lib
includedir ?= $(PREFIX)/include
pkgconfigdir ?= $(libdir)/pkgconfig

ifeq ($(origin CC),default)
CC := gcc
endif
# For the C++ test of the headers: the sibling of the C compiler.
ifeq ($(origin CXX),default)
CXX := $(or $(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC))),$(if $(findstring gcc,$(CC)),$(subst gcc,g++,$(CC))),g++)
endif
OBJCOPY ?= objcopy
NM ?= nm
CFLAGS ?= -O2 -g
WERROR ?= -Werror
# A list for -fsanitize=; set by check-asan and check-tsan for a build folder of their own.
SANITIZE ?=
# 1: src/ counts what is executed; set by coverage for a build folder of its own.
COVERAGE ?=
# 1: what runs under valgrind; set by check-memcheck for a build folder of its own.
MEMCHECK ?=
# Passed on by `make demo`, `make bench`: ARGS="lock --runs 5".
ARGS ?=
# A Criterion pattern that limits the test goals: TESTS='pool/*'.
TESTS ?=

WARNINGS := -Wall -Wextra $(WERROR) -Wmissing-prototypes -Wstrict-prototypes -Wshadow -Wpointer-arith -Wundef -Wvla
COMPILE := -std=gnu11 -fPIC -fvisibility=hidden -pthread $(WARNINGS)
INSTRUMENT := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
ifneq ($(findstring undefined,$(SANITIZE)),)
INSTRUMENT += -fno-sanitize-recover=undefined
endif
INSTRUMENT += $(if $(MEMCHECK),-DRP_VALGRIND)

# The counters are the library's alone, and many threads add to them.
COUNT_src := $(if $(COVERAGE),--coverage -fprofile-update=atomic)

# What each tree sees: the library everything, the programs the public headers, the tests the floor they are of as well.
# The library's words of a thread are found without a call, in a shared library too: glibc keeps 512 bytes for those of
# libraries that are loaded late, and ours are fewer (tests/build/exports.sh).
SEES_src := -Iinclude -Isrc -ftls-model=initial-exec
SEES_tools := -Iinclude -Itools -Ibench
SEES_bench := -Iinclude -Itools -Ibench
SEES_tests := -Iinclude -Isrc -Itests -Ibench

OBJ := $(BUILD)/obj
LIB_SRC := $(sort $(wildcard src/*/*.c))
COMMAND_SRC := $(sort $(wildcard tools/*.c bench/*.c))
# One runner for all floors (memcheck's: for the library). The programs beside it, the canaries and the shims for checkers have
# a main or a build of their own.
SUPPORT_SRC := $(filter-out $(addprefix tests/support/,deny_io_uring.c tsan_rand.c leak_check.c flush_counters.c canary_%), \
    $(sort $(wildcard tests/support/*.c)))
SANITIZE_SRC := $(if $(findstring thread,$(SANITIZE)),tests/support/tsan_rand.c) \
    $(if $(findstring address,$(SANITIZE)),tests/support/leak_check.c)
# With what unit tests of programs are of.
TEST_SRC := $(sort $(foreach floor,base ring pool watch $(if $(MEMCHECK),,tools),$(wildcard tests/$(floor)/*.c))) $(SUPPORT_SRC) $(SANITIZE_SRC) \
    bench/histogram.c
STRESS_SRC := $(sort $(wildcard tests/stress/*.c))
CANARY_SRC := $(sort $(wildcard tests/support/canary_*.c)) $(SANITIZE_SRC)
HEADERS := $(sort $(wildcard include/*.h include/*/*.h))

object = $(patsubst %.c,$(OBJ)/%.o,$(1))
LIB_OBJ := $(call object,$(LIB_SRC))
COMMAND_OBJ := $(call object,$(COMMAND_SRC))
TEST_OBJ := $(call object,$(TEST_SRC))
STRESS_OBJ := $(call object,$(STRESS_SRC))
CANARY_OBJ := $(call object,$(CANARY_SRC))
# A part of every program whose counters matter.
COUNT_OBJ := $(if $(COVERAGE),$(call object,tests/support/flush_counters.c))

SHARED := $(BUILD)/libringpool.so
STATIC := $(BUILD)/libringpool.a
INTERNAL := $(OBJ)/libinternal.a
COMMAND := $(if $(COMMAND_SRC),$(BUILD)/ringpool)
RUNNER := $(BUILD)/tests/run
STRESS := $(BUILD)/tests/stress
CANARY := $(BUILD)/tests/canary
DENY := $(BUILD)/tests/deny_io_uring
FAULT := $(BUILD)/tests/fault_supervisor $(BUILD)/tests/fault_subject

# Quiet by default: `$(call say,CC,file)` stands for the command.
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' '$(1)' '$(patsubst $(BUILD)/%,%,$(2))')
MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# --- set-up -----------------------------------------------------------------------------------------------------------

GOALS := $(or $(MAKECMDGOALS),all)
TEST_GOALS := test check check-io_uring check-epoll check-headers check-exports check-install check-bench check-sanitized check-valgrind check-coverage stress soak check-fault fault test-kernels
BENCH_GOALS := bench bench-check bench-peers
BUILD_GOALS := all $(BENCH_GOALS) demo install deps lint model model-long model-c11 mutants $(TEST_GOALS) $(BUILD)/%

NEEDS := $(if $(filter $(BUILD_GOALS),$(GOALS)),build) \
    $(if $(filter $(TEST_GOALS) $(BUILD)/tests/%,$(GOALS)),test) \
    $(if $(filter $(BENCH_GOALS),$(GOALS)),bench) $(if $(filter check-sanitized,$(GOALS)),sanitize) $(if $(filter mutants,$(GOALS)),mutants) $(if $(filter lint,$(GOALS)),lint)

ifneq ($(filter build,$(NEEDS)),)
include $(BUILD)/config.mk
endif
ifneq ($(filter test,$(NEEDS)),)
include $(BUILD)/config-test.mk
endif

# Looked at by every run and written only when something changed; make starts again by itself when one was written.
export CC CXX SANITIZE MEMCHECK
$(BUILD)/config.mk: export FLAGS = $(CC) $(CPPFLAGS) $(COMPILE) $(CFLAGS) $(INSTRUMENT) $(COUNT_src) $(LDFLAGS)
$(BUILD)/config.mk: FORCE
	@tools/setup.sh $(NEEDS)
	@tools/config.sh $@ DEPS 'liburing liburcu-bp' ZLIB zlib

$(BUILD)/config-test.mk: FORCE | $(BUILD)/config.mk
	@tools/config.sh $@ CRITERION criterion

FORCE:

# Lists of objects, so that a file that went away rebuilds what it was part of.
$(OBJ)/%.list: FORCE
	@mkdir -p $(@D)
	@echo '$($*_OBJ)' | cmp -s - $@ || echo '$($*_OBJ)' >$@

# --- building ---------------------------------------------------------------------------------------------------------

.PHONY: all
all: $(SHARED) $(STATIC) $(COMMAND) ## build the libraries and the command into build/

$(OBJ)/%.o: %.c $(BUILD)/config.mk
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) -D_GNU_SOURCE $(SEES_$(firstword $(subst /, ,$<))) $(DEPS_CFLAGS) $(CPPFLAGS) $(COMPILE) $(CFLAGS) \
	    $(INSTRUMENT) $(COUNT_$(firstword $(subst /, ,$<))) -MMD -MP -c $< -o $@

$(call object,$(TEST_SRC) $(STRESS_SRC) $(CANARY_SRC)): | $(if $(filter test,$(NEEDS)),$(BUILD)/config-test.mk)

LINK = $(CC) -pthread $(CFLAGS) $(INSTRUMENT) $(if $(COVERAGE),--coverage) $(LDFLAGS) -Wl,--as-needed

# nodelete: threads that called it come back when they end, to liburcu's destructor of thread-specific data and to ours.
$(BUILD)/libringpool.so.$(VERSION): $(LIB_OBJ) $(OBJ)/LIB.list src/ringpool.map
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=src/ringpool.map -Wl,-z,defs -Wl,-z,relro,-z,now \
	    -Wl,-z,nodelete $(LIB_OBJ) $(DEPS_LIBS) -o $@

$(SHARED): $(BUILD)/libringpool.so.$(VERSION)
	@ln -sf $(<F) $(BUILD)/$(SONAME)
	@ln -sf $(SONAME) $@

# One relocatable object whose hidden symbols are made local: no internal name can clash with one of the user's.
$(STATIC): $(LIB_OBJ) $(OBJ)/LIB.list
	$(call say,AR,$@)
	$(Q)$(CC) -nostdlib -r $(LIB_OBJ) -o $(OBJ)/ringpool.o
	$(Q)$(OBJCOPY) --localize-hidden $(OBJ)/ringpool.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(OBJ)/ringpool.o

# The same objects as they are, for unit tests of one floor.
$(INTERNAL): $(LIB_OBJ) $(OBJ)/LIB.list
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(LIB_OBJ)

$(BUILD)/ringpool: $(COMMAND_OBJ) $(STATIC) $(OBJ)/COMMAND.list
	$(call say,LD,$@)
	$(Q)$(LINK) $(COMMAND_OBJ) $(STATIC) $(DEPS_LIBS) $(ZLIB_LIBS) -lm -o $@

$(RUNNER): $(TEST_OBJ) $(COUNT_OBJ) $(OBJ)/TEST.list
$(STRESS): $(STRESS_OBJ) $(COUNT_OBJ) $(OBJ)/STRESS.list
$(CANARY): $(CANARY_OBJ) $(OBJ)/CANARY.list
$(RUNNER) $(STRESS) $(CANARY): $(INTERNAL)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) $(filter %.o,$^) $(INTERNAL) $(CRITERION_LIBS) $(DEPS_LIBS) -lm -o $@

$(DENY): $(call object,tests/support/deny_io_uring.c)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) $< -o $@

# The subject is a program like any other: it is linked with what users link with.
$(BUILD)/tests/fault_subject: $(OBJ)/tests/fault/jobs.o
$(FAULT): $(BUILD)/tests/fault_%: $(OBJ)/tests/fault/%.o $(COUNT_OBJ) $(STATIC)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(LINK) $(filter %.o,$^) $(STATIC) $(DEPS_LIBS) -o $@

-include $(patsubst %.o,%.d,$(sort $(LIB_OBJ) $(COMMAND_OBJ) $(TEST_OBJ) $(STRESS_OBJ) $(CANARY_OBJ)) \
    $(addprefix $(OBJ)/tests/,support/deny_io_uring.o fault/supervisor.o fault/subject.o fault/jobs.o))

# --- tests ------------------------------------------------------------------------------------------------------------

export BUILD NM TESTS
# For tests of the command.
export RINGPOOL_COMMAND := $(abspath $(BUILD))/ringpool
RUN = tests/support/run.sh

# The steps are lines of one recipe, not prerequisites: their order holds under -j, and Criterion has the last word.
.PHONY: test check
check: test ## the same as test
test: $(SHARED) $(STATIC) $(COMMAND) $(RUNNER) $(DENY) ## headers, exports, floors, guarantees, benchmarks' driver, then all tests on io_uring and on epoll
	$(Q)tests/build/headers.sh
	$(Q)tests/build/exports.sh
	$(Q)tests/build/floors.sh
	$(Q)tools/floors.sh
	$(Q)tests/build/guarantees.sh
	$(Q)tests/build/install.sh
	$(Q)tests/tools/bench_driver.py
	$(Q)$(RUN) io_uring $(RUNNER)
	$(Q)$(RUN) epoll $(RUNNER)

.PHONY: check-io_uring check-epoll check-headers check-exports check-install check-bench
check-io_uring: $(RUNNER) $(COMMAND) $(DENY) ## the tests on io_uring alone
	$(Q)$(RUN) io_uring $(RUNNER)

check-epoll: $(RUNNER) $(COMMAND) $(DENY) ## the tests on epoll alone: io_uring is denied by seccomp
	$(Q)$(RUN) epoll $(RUNNER)

check-headers: ## each public header alone, as C11, C17 and C++17
	$(Q)tests/build/headers.sh

check-exports: $(SHARED) $(STATIC) ## the libraries export what the headers declare, and nothing else
	$(Q)tests/build/exports.sh

check-install: all ## an installed library is found and linked by pkg-config
	$(Q)tests/build/install.sh

check-bench: ## the driver of the benchmarks, with programs that are scripts
	$(Q)tests/tools/bench_driver.py

.PHONY: check-asan check-tsan check-sanitized
check-asan: ## both runs under AddressSanitizer, LeakSanitizer and UBSan
	$(Q)$(MAKE) check-sanitized BUILD=$(BUILD)/asan SANITIZE=address,undefined

check-tsan: ## both runs under ThreadSanitizer
	$(Q)$(MAKE) check-sanitized BUILD=$(BUILD)/tsan SANITIZE=thread

.PHONY: check-memcheck check-valgrind
check-memcheck: ## both runs under valgrind's memcheck: no error, no lost block
	$(Q)tools/setup.sh memcheck
	$(Q)$(MAKE) check-valgrind BUILD=$(BUILD)/memcheck MEMCHECK=1 CFLAGS='-O1 -g'

check-valgrind: $(CANARY) $(RUNNER) $(DENY)
	$(Q)tests/support/canaries.sh $(CANARY)
	$(Q)TEST_TIMEOUT=600 RUN_TIMEOUT=3600 tests/support/parts.sh io_uring $(RUNNER)
	$(Q)TEST_TIMEOUT=600 RUN_TIMEOUT=3600 tests/support/parts.sh epoll $(RUNNER)

.PHONY: coverage check-coverage
coverage: ## lines and branches of src/ that the tests execute, and pages below build/; fails below 95 % and 85 %
	$(Q)tools/setup.sh coverage
	$(Q)$(MAKE) check-coverage BUILD=$(BUILD)/coverage COVERAGE=1 CFLAGS='-O0 -g'

check-coverage: $(RUNNER) $(COMMAND) $(DENY) $(STRESS) $(FAULT)
	$(Q)tests/support/coverage.sh $(RUNNER)

# The canaries first: a run that cannot turn red proves nothing.
check-sanitized: $(CANARY) $(RUNNER) $(COMMAND) $(DENY)
	$(Q)tests/support/canaries.sh $(CANARY)
	$(Q)$(RUN) io_uring $(RUNNER)
	$(Q)$(RUN) epoll $(RUNNER)

.PHONY: stress soak demo
MINUTES ?= 2
SEEDS ?= 4
stress: $(STRESS) ## the randomised ledger over SEEDS seeds, on both backends, for MINUTES
	$(Q)BUILD='$(BUILD)' tests/stress/run.sh $(MINUTES) $(SEEDS) $(SEED)

# stress-ng, where it can be had without asking: those that want it say what they skip.
NEIGHBOURS = tools/setup.sh neighbours 2>/dev/null || :
HOURS ?= 1
soak: $(STRESS) ## all loads in one process for HOURS (0.05, say), in changing weather; SEED=N
	$(Q)$(NEIGHBOURS)
	$(Q)BUILD='$(BUILD)' tests/stress/soak.sh $(HOURS) $(SEED)

.PHONY: check-fault fault
check-fault: $(FAULT) $(DENY) ## about a minute of failing system calls and hostile surroundings; SEED=N
	$(Q)BUILD='$(BUILD)' tests/fault/run.sh some $(SEED)
	$(Q)$(NEIGHBOURS)
	$(Q)BUILD='$(BUILD)' tests/fault/environment.sh 1

fault: $(FAULT) $(DENY) ## every system call of a pool's life fails once and for good, with every error
	$(Q)BUILD='$(BUILD)' tests/fault/run.sh all
	$(Q)$(NEIGHBOURS)
	$(Q)BUILD='$(BUILD)' tests/fault/environment.sh 10

# With seconds of patience for each boot as KERNEL_TIMEOUT, and BOOTS='5.10 denied' for some of them.
BOOTS ?=
.PHONY: test-kernels
test-kernels: $(RUNNER) $(COMMAND) $(DENY) $(FAULT) ## the tests on Debian's 5.10, 6.1 and 6.12, and with io_uring denied, in qemu; BOOTS='5.10 denied'
	$(Q)BUILD='$(BUILD)' tests/kernels/run.sh $(BOOTS)

include bench/bench.mk
include tests/model/model.mk

demo: $(BUILD)/ringpool ## see it work
	$(Q)$(BUILD)/ringpool demo $(ARGS)

# --- the source -------------------------------------------------------------------------------------------------------

FORMATTED = $(sort $(wildcard $(foreach tree,include src tools bench tests,$(foreach kind,h c,\
    $(tree)/*.$(kind) $(tree)/*/*.$(kind) $(tree)/*/*/*.$(kind)))))

.PHONY: fmt fmt-check lint floors
fmt: ## format the C sources
	$(Q)tools/setup.sh fmt
	$(Q)clang-format -i $(FORMATTED)

fmt-check: ## say what fmt would change
	$(Q)tools/setup.sh fmt
	$(Q)clang-format --dry-run -Werror $(FORMATTED)

lint: ## clang-tidy and cppcheck
	$(Q)BUILD='$(BUILD)' tools/lint.sh $(DEPS_CFLAGS)

floors: ## no file includes a floor above its own
	$(Q)tools/floors.sh

# --- installing -------------------------------------------------------------------------------------------------------

.PHONY: install uninstall clean deps help
install: all ## install below PREFIX (default /usr/local); DESTDIR stages
	$(Q)install -d $(DESTDIR)$(bindir) $(DESTDIR)$(libdir) $(DESTDIR)$(includedir)/ringpool $(DESTDIR)$(pkgconfigdir)
	$(Q)install -m 644 $(wildcard include/*.h) $(DESTDIR)$(includedir)
	$(Q)install -m 644 $(wildcard include/ringpool/*.h) $(DESTDIR)$(includedir)/ringpool
	$(Q)install -m 644 $(STATIC) $(DESTDIR)$(libdir)
	$(Q)install -m 755 $(BUILD)/libringpool.so.$(VERSION) $(DESTDIR)$(libdir)
	$(Q)ln -sf libringpool.so.$(VERSION) $(DESTDIR)$(libdir)/$(SONAME)
	$(Q)ln -sf $(SONAME) $(DESTDIR)$(libdir)/libringpool.so
	$(Q)$(if $(COMMAND),install -m 755 $(COMMAND) $(DESTDIR)$(bindir))
	$(Q)sed -e 's|@prefix@|$(PREFIX)|' -e 's|@libdir@|$(libdir)|' -e 's|@includedir@|$(includedir)|' \
	    -e 's|@version@|$(VERSION)|' src/ringpool.pc.in >$(BUILD)/ringpool.pc
	$(Q)install -m 644 $(BUILD)/ringpool.pc $(DESTDIR)$(pkgconfigdir)
	$(Q)[ -n '$(DESTDIR)' ] || [ "$$(id -u)" != 0 ] || ldconfig

uninstall: ## remove what install put there
	$(Q)rm -f $(DESTDIR)$(bindir)/ringpool $(DESTDIR)$(pkgconfigdir)/ringpool.pc \
	    $(addprefix $(DESTDIR)$(libdir)/,libringpool.a libringpool.so $(SONAME) libringpool.so.$(VERSION)) \
	    $(addprefix $(DESTDIR)$(includedir)/,$(patsubst include/%,%,$(HEADERS)))
	$(Q)[ ! -d $(DESTDIR)$(includedir)/ringpool ] || rmdir --ignore-fail-on-non-empty $(DESTDIR)$(includedir)/ringpool
	$(Q)[ -n '$(DESTDIR)' ] || [ "$$(id -u)" != 0 ] || ldconfig

clean: ## remove build/
	$(Q)rm -rf $(BUILD)

deps: ## install or name the packages that building and testing need
	$(Q)tools/setup.sh build test

help: ## this list
	@echo 'make [V=1] [CC=clang] [BUILD=build] [TARGET...]'
	@awk -F ':.*## ' '/^[a-z][a-z_-]*:.*## / { printf "  %-15s %s\n", $$1, $$2 }' Makefile bench/bench.mk tests/model/model.mk
