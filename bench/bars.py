"""The bars: what ringpool is to reach, as ratios to the best peer of the same run wherever there is one.

A peer that runs a task in the submitting or waiting thread does not queue it, and is no rival where queueing is what is
measured; one that keeps a second CPU busy while it waits is none for wake-ups. A bar without its row, or without a peer
to compare with, counts as not measured.
"""
from collections import namedtuple

Verdict = namedtuple("Verdict", "name holds text")  # holds: True, False, or None for "not measured"

INLINE = {"tbb", "openmp"}
# M tasks/s of ants v2 on a queueless shape, measured once on two cores; it is not among the programs.
ANTS = {"1/2": 2.1, "4/2": 1.9, "1/1000": 2.7, "4/1000": 4.0}
BURNING = 1.5  # cores in use while the submitter, who spins, uses one

QUEUED = ("throughput", "strict", "batch", "wake", "roundtrip")


def rivals(row, table):
    """Names of the peers that count as rivals in a row."""
    names = [name for name in table if not name.startswith("ringpool")]
    if row.startswith(QUEUED):
        names = [name for name in names if name not in INLINE]
    if row == "wake 50 us":
        names = [name for name in names if table[name] and
                 table[name]["cpu_s"][0] / table[name]["elapsed_s"][0] <= BURNING]
    return names


def best(row, figure, more, table):
    """-> (name, median) of the best rival, or None."""
    found = [(name, table[name][figure][0]) for name in rivals(row, table) if figure in table[name]]
    return (max if more else min)(found, key=lambda pair: pair[1]) if found else None


NATIVE = ("mutex", "libuv", "glib", "asio")  # the C and C++ peers that queue


def best_native(judge, row, figure):
    found = [value for value in (judge.figure(row, figure, name) for name in NATIVE) if value is not None]
    return min(found) if found else None


class Judge:
    def __init__(self, tables):
        self.tables, self.verdicts = tables, []

    def figure(self, row, figure, program="ringpool"):
        return self.tables.get(row, {}).get(program, {}).get(figure, (None,))[0]

    def say(self, name, holds, text):
        self.verdicts.append(Verdict(name, holds, text))

    def absolute(self, row, figure, bar, more=False, unit="", title=None):
        value = self.figure(row, figure)
        name = title or f"{row}: {figure} {'>=' if more else '<='} {bar:g} {unit}".rstrip()
        if value is None:
            return self.say(name, None, "the row was not run")
        return self.say(name, value >= bar if more else value <= bar, f"{value:.3f} {unit}".rstrip())

    def against_best(self, row, figure, factor, more=True):
        ours, rival = self.figure(row, figure), best(row, figure, more, self.tables.get(row, {}))
        name = f"{row}: {figure} {'>=' if more else '<='} {factor:g} x best peer"
        if ours is None or rival is None:
            return self.say(name, None, "the row was not run" if ours is None else "no peer to compare with")
        ratio = ours / rival[1] if rival[1] else float("inf")
        return self.say(name, ratio >= factor if more else ratio <= factor,
                        f"{ratio:.2f} x ({ours:.4g} and {rival[1]:.4g} by {rival[0]})")

    def ratio(self, name, ours, other, factor):
        if ours is None or other is None:
            return self.say(name, None, "a row was not run")
        return self.say(name, ours / other >= factor, f"{ours / other:.2f} x ({ours:.4g} and {other:.4g})")


def judge_throughput(judge):
    for shapes, factor in ((("1/1", "1/2", "4/2"), 1.2), (("1/1000", "4/1000"), 1.5), (("1000/1000",), 1.0)):
        for shape in shapes:
            judge.against_best(f"throughput {shape}", "tasks_per_s", factor)
    for shape, ants in ANTS.items():
        row = f"strict {shape}"
        ours = judge.figure(row, "tasks_per_s")
        textbook = judge.figure(row, "tasks_per_s", "mutex")
        judge.ratio(f"{row}: >= 100 x mutex and condition variable", ours, textbook, 100)
        judge.ratio(f"{row}: >= 3 x ants (recorded: {ants} M/s)", ours, ants * 1e6, 3)
    for shape in ("1/1", "1/2", "4/2", "1/1000", "4/1000", "1000/1000"):
        judge.ratio(f"batch {shape}: >= 1.3 x one at a time", judge.figure(f"batch {shape}", "tasks_per_s"),
                    judge.figure(f"throughput {shape}", "tasks_per_s"), 1.3)
    judge.against_best("throughput 1/1", "cpu_ns_per_task", 1.0, more=False)
    judge.absolute("work 500 ns", "efficiency", 0.90, more=True)
    judge.absolute("work 5000 ns", "efficiency", 0.95, more=True)
    judge.absolute("submit busy", "submit_p50_ns", 35, unit="ns")
    judge.absolute("submit busy", "submit_p99_ns", 200, unit="ns")
    judge.ratio("growth: 10,000 workers >= 0.8 x 16", judge.figure("growth 1/10000", "tasks_per_s"),
                judge.figure("growth 1/16", "tasks_per_s"), 0.8)
    judge.ratio("growth: 1000 submitters >= 0.5 x 4", judge.figure("growth 1000/16", "tasks_per_s"),
                judge.figure("growth 4/16", "tasks_per_s"), 0.5)


def judge_latency(judge):
    for figure in ("p50_us", "p99_us"):
        judge.against_best("wake 1000 us asleep", figure, 1.0, more=False)
    judge.against_best("wake 50 us", "p50_us", 1.0, more=False)
    judge.absolute("wake 50 us", "p99_us", 60, unit="us")
    judge.absolute("wake 50 us", "p999_us", 4000, unit="us")
    judge.absolute("wake 5 us", "p50_us", 0.5, unit="us")
    judge.absolute("roundtrip W=1", "p50_us", 0.30, unit="us")
    ours, theirs = judge.figure("roundtrip W=1", "p99_us"), judge.figure("roundtrip W=1", "p99_us", "crossbeam")
    judge.ratio("roundtrip W=1: p99_us <= crossbeam's", theirs, ours, 1.0)
    judge.absolute("roundtrip 200 us", "p50_us", 7, unit="us")


def judge_rest(judge):
    judge.absolute("sleepers", "elapsed_s", 1.02, unit="s")
    for workers in (1000, 10000):
        row = f"idle {workers}"
        judge.absolute(row, "rss_kb_per_worker", 8.5, unit="KiB")
        judge.absolute(row, "create_us_per_worker", 25, unit="us")
        judge.absolute(row, "idle_cpu_s", 0.001, unit="s")
        judge.absolute(row, "idle_wakeups", 0)
    judge.absolute("fanout", "speedup", 1.9, more=True)
    judge.against_best("fanout", "speedup", 1.0)
    for row, figure, more in (("throughput 1/1", "tasks_per_s", True), ("throughput 4/2", "tasks_per_s", True),
                              ("throughput 4/1000", "tasks_per_s", True), ("wake 1000 us asleep", "p50_us", False),
                              ("wake 50 us", "p50_us", False), ("roundtrip W=1", "p50_us", False)):
        uring, epoll = judge.figure(row, figure), judge.figure(row, figure, "ringpool-epoll")
        judge.ratio(f"epoll, {row}: >= 0.97 x io_uring", *((epoll, uring) if more else (uring, epoll)), 0.97)
    judge.ratio("roundtrip W=1, future: p50_us <= the best C or C++ peer's",
                best_native(judge, "roundtrip W=1", "p50_us"),
                judge.figure("roundtrip W=1", "p50_us", "ringpool-future"), 1.0)
    judge.ratio("roundtrip W=1, a waiter that may run it: p50_us <= 0.10 us", 0.10,
                judge.figure("roundtrip W=1", "p50_us", "ringpool-run"), 1.0)
    judge.absolute("completions busy", "completions_per_s", 8e6, more=True)
    judge.absolute("completions busy", "sleeps_per_completion", 0.025)
    judge.absolute("timers", "arm_cancel_ns", 60, unit="ns")
    kernel, ours = judge.figure("timers", "kernel_p50_us"), judge.figure("timers", "late_p50_us")
    judge.ratio("timers: p50 of the lateness <= 2 x the kernel's own", kernel, ours, 0.5)
    for name in ("sleepers on timers", "metrics on >= 0.95 x off", "multi", "channel"):
        judge.say(name, None, "not in this build")


def judge(tables):
    it = Judge(tables)
    judge_throughput(it)
    judge_latency(it)
    judge_rest(it)
    return it.verdicts


def show(verdicts):
    """Prints the verdicts; returns the exit status."""
    words = {True: "holds", False: "FAILS", None: "not measured"}
    print()
    for verdict in verdicts:
        print(f"{words[verdict.holds]:<13} {verdict.name}: {verdict.text}")
    counts = {holds: sum(v.holds is holds for v in verdicts) for holds in words}
    print(f"\n{counts[True]} bars hold, {counts[False]} fail, {counts[None]} were not measured")
    return 1 if counts[False] else 0
