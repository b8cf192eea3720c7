"""The bars: what ringpool is to reach, as ratios to the best peer of the same run wherever there is one.

A peer that runs a task in the submitting or waiting thread does not queue it, and is no rival where queueing is what is
measured; one that keeps a second CPU busy while it waits is none for wake-ups. A bar without its row, or without a peer
to compare with, counts as not measured; one whose row ringpool failed in does not hold.

Where both sides took part in the same rounds, it is the median of the rounds' ratios that decides: the machine's pace
changes from one minute to the next, and in a round both sides run within seconds.

A bar is settled when the rounds agree on which side of it the ratio is: so many of them that with a fair coin they
would in at most one of sixteen cases (a sign test; of five rounds, all). The driver takes more rounds of those that are
not.
"""
from collections import namedtuple
from math import comb
from statistics import median

from measure import ABSENT
from rows import FLOOR_SHAPE, SHAPES, VERSUS, VERSUS_LATENCY

# bar: of which group; claim; holds: True, False or None (not measured); ours, other: "48.1 (46.0..49.9) M/s", the other
# side with its name; ratio: ours to the other (see above), or None; why: of None; goal: a wish, which decides nothing;
# floor: what the machine asks of any pool in that row, measured in the same run, or ""; barred: that does not reach the
# bar either. row, programs: where, and between whom, it is decided; rounds: how many; settled: see above; paces: of one
# that is not, against a bar in absolute terms: what it was at which pace of the machine, or "".
Verdict = namedtuple("Verdict",
                     "bar claim holds ours other ratio why goal floor barred row programs rounds settled paces",
                     defaults=("",))

CHANCE = 1 / 16

INLINE = {"tbb", "openmp"}
FLOOR = "floor-"  # peers/floor.c: no pool, but what any pool of threads is made of
NONE = "none"  # what hands no task to another CPU has no floor in that row
IN_ORDER = "floor-ring"  # of these the one whose tasks start in the order in which they came
# M tasks/s of ants v2 on a queueless shape, measured once on two cores; its design, written anew, is the peer go-lifo.
ANTS = {"1/2": 2.1, "4/2": 1.9, "1/1000": 2.7, "4/1000": 4.0}
BURNING = 1.5  # cores in use while the submitter, who spins, uses one
TICK_US = 4000  # of a kernel with HZ=250

QUEUED = ("throughput", "strict", "batch", "wake", "roundtrip")
NATIVE = ("mutex", "libuv", "glib", "asio")  # the C and C++ peers that queue


def rivals(row, table):
    """Names of the peers that count as rivals in a row."""
    names = [name for name in table if not name.startswith(("ringpool", FLOOR))]
    if row.startswith(QUEUED):
        names = [name for name in names if name not in INLINE]
    if row == "wake 50 us":
        names = [name for name in names if table[name] and
                 table[name]["cpu_s"][0] / table[name]["elapsed_s"][0] <= BURNING]
    return names


def best(row, figure, more, table, names=None):
    """-> (name, (median, least, greatest)) of the best rival, or None."""
    found = [(name, table[name][figure]) for name in rivals(row, table)
             if figure in table[name] and (names is None or name in names)]
    return (max if more else min)(found, key=lambda pair: pair[1][0]) if found else None


def short(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def shown(figure, unit=""):
    """A median with its spread."""
    if unit == "M/s":
        figure = [value * 1e-6 for value in figure]
    median, least, most = (short(value) for value in figure)
    return f"{median} ({least}..{most})" + (f" {unit}" if unit else "")


NOT_RUN = "the row was not run"


def beyond(ours, floor, more):
    """Whether ours is better than that floor, which then forbids nothing."""
    return ours > 1.02 * floor if more else 1.02 * ours < floor


class Side:
    """One side of a comparison: a figure of a program in a row, or nothing and why. rounds: the row, and its figures
    in the order in which they were taken; paces: the machine's then."""

    def __init__(self, figure=None, why=NOT_RUN, failed=False, name="", floors=(), rounds=("", ()), paces=()):
        self.figure, self.why, self.failed, self.name, self.floors = figure, why, failed, name, floors
        self.row, self.rounds = rounds
        self.paces = paces


def quotient(a, b):
    return a / b if b else float("inf") if a else 1.0


def ratios_of(ours, other):
    """Of two sides that have figures: of each round, where they ran in the same ones; else of ours to the other's
    median."""
    if ours.row == other.row and ours.rounds and len(ours.rounds) == len(other.rounds):
        return [quotient(a, b) for a, b in zip(ours.rounds, other.rounds)]
    return [quotient(a, other.figure[0]) for a in ours.rounds or ours.figure[:1]]


def is_settled(ratios, factor, more):
    n = len(ratios)
    above = sum(ratio >= factor if more else ratio > factor for ratio in ratios)
    few = min(above, n - above)
    return 2 * sum(comb(n, i) for i in range(few + 1)) <= CHANCE * 2 ** n


PACE = "addition_ns"  # how long an addition took that needs the one before
SLOW = 1.25  # times the least of the rounds


def by_pace(figures, paces, unit):
    """-> "0.09 us at 0.28 ns an addition (12 rounds), 0.16 us at 0.49 (18)", or "" where there was but one pace."""
    if not paces or len(paces) != len(figures):
        return ""
    slow = [pace > SLOW * min(paces) for pace in paces]
    if 2 > slow.count(True) or 2 > slow.count(False):
        return ""
    out = []
    for which in (False, True):
        at, values = (median(v for v, s in zip(those, slow) if s == which) for those in (paces, figures))
        out.append(f"{short(values)} {unit}".rstrip() + f" at {at:.2f} ns an addition ({slow.count(which)} rounds)")
    return ", ".join(out)


class Judge:
    """tables: {row: {program: {figure: (median, least, greatest)}}}; failures: {row: {program: why}};
    rounds: {row: {program: [{figure: value}, ...]}}, of those that never failed."""

    def __init__(self, tables, failures, rounds):
        self.tables, self.failures, self.rounds, self.verdicts = tables, failures, rounds, []

    def taken(self, row, program, figure):
        return row, [figures[figure] for figures in self.rounds.get(row, {}).get(program, ()) if figure in figures]

    def side(self, row, figure, program="ringpool", floor_of=None, floor=FLOOR):
        """floor_of: the row that has the floor, if it is another one; floor: how its name begins. Where ours is better
        than the ones in order they forbid nothing: then it is held against all of the row."""
        found = self.tables.get(row, {}).get(program, {}).get(figure)
        why = self.failures.get(row, {}).get(program)
        if found and not why:
            every = {name: other[figure] for name, other in self.tables.get(floor_of or row, {}).items()
                     if name.startswith(FLOOR) and figure in other}
            floors = [other for name, other in every.items() if name.startswith(floor)]
            if floor == IN_ORDER and all(beyond(found[0], other[0], True) for other in floors):
                floors = list(every.values())
            return Side(found, name=program, floors=floors, rounds=self.taken(row, program, figure),
                        paces=self.taken(row, program, PACE)[1])
        if why:
            return Side(why=f"{program}: {why}", failed=program.startswith("ringpool") and why != ABSENT)
        return Side(why="no such peer" if row in self.tables else NOT_RUN)

    def best(self, row, figure, more, names=None):
        if row not in self.tables:
            return Side()
        found = best(row, figure, more, self.tables[row], names)
        if not found:
            return Side(why="no peer to compare with")
        return Side(found[1], name=found[0], rounds=self.taken(row, found[0], figure))

    def against(self, bar, claim, ours, other, factor, more, unit="", goal=False, limit=""):
        """ours against factor x other's, both Sides; limit: what the other is, if it is no figure but a number."""
        lacking = ours if ours.figure is None else other if other.figure is None else None
        if lacking:
            verdict = Verdict(bar, claim, False if lacking.failed else None, "", "", None, lacking.why, goal, "", False,
                              ours.row, (), 0, True)
        else:
            a, b = ours.figure[0], other.figure[0]
            ratios = ratios_of(ours, other)
            ratio = median(ratios)
            holds = ratio >= factor if more else ratio <= factor
            reaches = (lambda one: one >= factor * b) if more else (lambda one: one <= factor * b)
            floor = (max if more else min)(ours.floors, default=None)
            theirs = f"{shown(other.figure, unit)} by {other.name}" if other.name else f"the bar of {limit}"
            barred = bool(floor) and not holds and not reaches(floor[0]) and not beyond(a, floor[0], more)
            settled = is_settled(ratios, factor, more)
            scale = 1e-6 if unit == "M/s" else 1
            paces = "" if settled or other.name else by_pace([v * scale for v in ours.rounds], ours.paces, unit)
            verdict = Verdict(bar, claim, holds, shown(ours.figure, unit), theirs, ratio, "", goal,
                              shown(floor, unit) if floor else "", barred, ours.row, (ours.name, other.name),
                              len(ratios), settled, paces)
        self.verdicts.append(verdict)

    def limit(self, bar, row, figure, limit, more=False, unit="", program="ringpool", goal=False, floor=FLOOR):
        claim = f"{row}, {program}: {figure}" if program != "ringpool" else f"{row}: {figure}"
        scale = 1e-6 if unit == "M/s" else 1
        text = f"{short(limit * scale)} {unit}".rstrip()
        self.against(bar, f"{claim} {'>=' if more else '<='} {text}", self.side(row, figure, program, floor=floor),
                     Side((limit, limit, limit)), 1.0, more, unit, goal, text)

    def versus(self, other, shape, second, first, factor):
        """Two pools in turns of one process: the second's throughput against factor x the first's."""
        self.against(other, f"throughput {shape}: {second} >= {factor:g} x {first}",
                     self.side(f"versus {other} {shape}", "ratio"), Side((factor,) * 3), 1.0, True, "", False,
                     f"{factor:g}")

    def against_best(self, bar, row, figure, factor, more=True, unit=""):
        times = "" if factor == 1 else f"{factor:g} x "
        self.against(bar, f"{row}: {figure} {'>=' if more else '<='} {times}the best peer's", self.side(row, figure),
                     self.best(row, figure, more), factor, more, unit)


def judge_throughput(it):
    for shapes, factor in ((("1/1", "1/2", "4/2"), 1.2), (("1/1000", "4/1000"), 1.5), (("1000/1000",), 1.0)):
        for shape in shapes:
            it.against_best("throughput", f"throughput {shape}", "tasks_per_s", factor, unit="M/s")
            if factor == 1.2:
                it.limit("throughput", f"throughput {shape}", "tasks_per_s", 75e6, more=True, unit="M/s", goal=True)
    for shape, ants in ANTS.items():
        row = f"strict {shape}"
        ours = it.side(row, "tasks_per_s")
        it.against("strict", f"{row}: >= 100 x mutex and condition variable", ours,
                   it.side(row, "tasks_per_s", "mutex"), 100, True, "M/s")
        it.against("strict", f"{row}: >= 3 x ants, as recorded", ours, Side((ants * 1e6,) * 3, name="ants, once"),
                   3, True, "M/s")
        it.against("strict", f"{row}: >= 3 x ants' design in this run", ours, it.side(row, "tasks_per_s", "go-lifo"),
                   3, True, "M/s", goal=True)
    for producers, workers in SHAPES:
        row = f"batch {producers}/{workers}"
        it.against("batch", f"{row}: >= 1.3 x one at a time",
                   it.side(row, "tasks_per_s", floor_of=f"batch {FLOOR_SHAPE}"),
                   it.side(row, "tasks_per_s", "ringpool-single"), 1.3, True, "M/s")
    it.against_best("CPU per task", "throughput 1/1", "cpu_ns_per_task", 1.0, more=False, unit="ns")
    for program, floor in (("ringpool", IN_ORDER), ("ringpool-unordered", FLOOR)):
        it.limit("work", "work 500 ns", "efficiency", 0.90, more=True, program=program, floor=floor)
        it.limit("work", "work 5000 ns", "efficiency", 0.95, more=True, program=program, floor=floor)


def judge_latency(it):
    for figure in ("p50_us", "p99_us"):
        it.against_best("wake", "wake 1000 us asleep", figure, 1.0, more=False, unit="us")
    it.against_best("wake", "wake 50 us", "p50_us", 1.0, more=False, unit="us")
    it.limit("wake", "wake 50 us", "p99_us", 60, unit="us")
    it.limit("wake", "wake 50 us", "p999_us", TICK_US, unit="us")
    it.limit("wake", "wake 5 us", "p50_us", 0.5, unit="us")
    for row in ("roundtrip W=1", "roundtrip W=2"):
        it.limit("round trip", row, "p50_us", 0.30, unit="us")
        it.against("round trip", f"{row}: p99_us <= crossbeam's", it.side(row, "p99_us"),
                   it.side(row, "p99_us", "crossbeam"), 1.0, False, "us")
        it.limit("round trip", row, "p50_us", 0.10, unit="us", program="ringpool-run", floor=NONE)
        it.against("round trip", f"{row}, ringpool-future: p50_us <= the best C or C++ peer's",
                   it.side(row, "p50_us", "ringpool-future"), it.best(row, "p50_us", False, NATIVE), 1.0, False, "us")
    it.limit("round trip", "roundtrip 200 us", "p50_us", 7, unit="us")
    it.limit("submit", "submit busy", "submit_p50_ns", 35, unit="ns")
    it.limit("submit", "submit busy", "submit_p99_ns", 200, unit="ns")


def judge_rest(it):
    it.limit("sleepers", "sleepers thread", "elapsed_s", 1.02, unit="s")
    it.limit("sleepers", "sleepers timer", "elapsed_s", 0.4, unit="s")
    it.limit("sleepers", "sleepers timer", "cpu_s", 0.3, unit="s")
    it.limit("sleepers", "sleepers timer", "maxrss_kb", 64 << 10, unit="KiB")
    for workers in (1000, 10000):
        row = f"idle {workers}"
        it.limit("idle", row, "rss_kb_per_worker", 8.5, unit="KiB")
        it.limit("idle", row, "create_us_per_worker", 25, unit="us")
        it.limit("idle", row, "cpu_s", 0.001, unit="s")  # of the one sleep and wake that the measuring is
        it.limit("idle", row, "wakeups", 0)
    it.limit("fanout", "fanout", "speedup", 1.9, more=True)
    it.against_best("fanout", "fanout", "speedup", 1.0)
    it.against("growth", "10,000 workers >= 0.8 x 16", it.side("growth workers", "tasks_per_s", "ringpool 1/10000"),
               it.side("growth workers", "tasks_per_s", "ringpool 1/16"), 0.8, True, "M/s")
    it.against("growth", "1000 submitters >= 0.5 x 4", it.side("growth submitters", "tasks_per_s", "ringpool 1000/16"),
               it.side("growth submitters", "tasks_per_s", "ringpool 4/16"), 0.5, True, "M/s")
    for shape in VERSUS["metrics"]:
        it.versus("metrics", shape, "with metrics", "without", 0.95)


def judge_backends(it):
    for shape in VERSUS["epoll"]:
        it.versus("epoll", shape, "on epoll", "on io_uring", 0.97)
    more = [("work 500 ns", "efficiency", ""), ("work 5000 ns", "efficiency", "")]
    for row in VERSUS_LATENCY:
        it.against("epoll", f"{row}: p50 on epoll <= on io_uring / 0.97", it.side(f"versus epoll {row}", "ratio"),
                   Side((1 / 0.97,) * 3), 1.0, False, "", False, short(1 / 0.97))
    less = [("sleepers timer", "elapsed_s", "s")]
    for row, figure, unit in more:
        it.against("epoll", f"{row}: {figure} on epoll >= 0.97 x on io_uring", it.side(row, figure, "ringpool-epoll"),
                   it.side(row, figure), 0.97, True, unit)
    for row, figure, unit in less:
        it.against("epoll", f"{row}: {figure} on epoll <= on io_uring / 0.97", it.side(row, figure, "ringpool-epoll"),
                   it.side(row, figure), 1 / 0.97, False, unit)


def judge_ours(it):
    it.limit("completions", "completions busy", "completions_per_s", 8e6, more=True, unit="M/s")
    it.limit("completions", "completions busy", "sleeps_per_completion", 0.025)
    it.limit("timers", "timers", "arm_cancel_ns", 60, unit="ns")
    it.against("timers", "timers: p50 of the lateness <= 2 x the kernel's own", it.side("timers", "late_p50_us"),
               it.side("timers", "kernel_p50_us"), 2.0, False, "us")


def judge(tables, failures, rounds=None):
    it = Judge(tables, failures, rounds or {})
    for part in (judge_throughput, judge_latency, judge_rest, judge_backends, judge_ours):
        part(it)
    return it.verdicts


def word(verdict):
    if verdict.holds is None:
        return "not measured"
    if verdict.goal:
        return "reached" if verdict.holds else "not reached"
    return "holds" if verdict.holds else "out of reach" if verdict.barred else "FAILS"


def show(verdicts, some=False):
    """Prints the verdicts, those of rows that were not run only if `some` is false; returns the exit status."""
    print("\nThe bars: the ratio, and the medians with least..greatest of both sides")
    for verdict in verdicts:
        if some and verdict.why == NOT_RUN:
            continue
        text = f"{verdict.ratio:.3g} x: {verdict.ours} to {verdict.other}" if verdict.ratio is not None else verdict.why
        goal = " (a goal, no bar)" if verdict.goal else ""
        floor = f"; the machine's floor: {verdict.floor}" if verdict.floor and not verdict.holds else ""
        rounds = f"; {verdict.rounds} rounds, not settled" if verdict.rounds > 1 and not verdict.settled else ""
        rounds += f": {verdict.paces}" if verdict.paces else ""
        print(f"{word(verdict):<13} {verdict.bar}: {verdict.claim}{goal}: {text}{floor}{rounds}")
    counted = [verdict.holds for verdict in verdicts if not verdict.goal]
    barred = sum(verdict.barred for verdict in verdicts if not verdict.goal)
    print(f"\n{counted.count(True)} bars hold, {counted.count(False)} do not, {barred} of them where what the machine asks of "
          f"any pool does not reach the bar either; {counted.count(None)} were not measured")
    return 1 if False in counted else 0
