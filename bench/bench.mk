# `make bench` and `make bench-check`: ours and the peers, interleaved. Included by the Makefile.
#
#   make bench ARGS=--quick            a few minutes; ARGS='--rows throughput --rounds 9', ARGS=--help
#   make bench-check                   the rows that the bars speak of; fails if a bar does not hold
#   make bench-deps                    installs what the peers need; without it those that are here run
#   make bench ARGS='--merge a.json b.json'    one report of parts, made by ARGS='--rows wake,roundtrip --out a.json'

.PHONY: bench bench-check bench-peers bench-deps
bench: $(BUILD)/ringpool bench-peers ## ours beside other pools: a table, build/bench/results.json and report.html
	$(Q)bench/run.py --build $(BUILD) $(ARGS)

bench-check: $(BUILD)/ringpool bench-peers ## whether the bars hold, each as a ratio of the same run
	$(Q)bench/run.py --build $(BUILD) --check $(ARGS)

bench-deps: ## install what the peers are built with
	$(Q)tools/setup.sh bench peers

bench-peers: ## build the peers, and name those that cannot be built here
	$(Q)bench/peers/build.sh $(BUILD)/bench/peers
