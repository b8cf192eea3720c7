# `make bench` and `make bench-check`: ours and the peers, interleaved. Included by the Makefile; needs python3.
#
#   make bench ARGS=--quick            a few minutes; ARGS='--rows throughput --rounds 9', ARGS=--help
#   make bench-check                   the rows that the bars speak of; fails if a bar does not hold

.PHONY: bench bench-check bench-peers
bench: $(BUILD)/ringpool bench-peers ## ours beside other pools: a table, build/bench/results.json and report.html
	$(Q)bench/run.py --build $(BUILD) $(ARGS)

bench-check: $(BUILD)/ringpool bench-peers ## whether the bars hold, each as a ratio of the same run
	$(Q)bench/run.py --build $(BUILD) --check $(ARGS)

bench-peers:
	$(Q)command -v python3 >/dev/null || { echo 'bench: needs python3 (package python3)' >&2; exit 1; }
	$(Q)bench/peers/build.sh $(BUILD)/bench/peers
