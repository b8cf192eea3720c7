#!/usr/bin/env python3
"""Runs ringpool and its peers in turn and compares them.

A row is a workload with its keys (rows.py). Within a round every program runs once, one after the other, so that a
neighbour's load hits them alike; the order rotates from round to round, and is reversed in every second one, so that
nobody always follows the same. A figure is the median of the rounds, with its least and greatest. A run over its time
limit is ended and reported, and its program sits the row out. While a run lasts the CPU time of all other processes is
counted: a run with more than 0.15 cores of it is repeated a few times and else marked, and the table says how many
were. Where a row's number of tasks is left open each program gets one that takes it about the time asked for.

--check says for each bar (bars.py) whether it holds. It runs the rows that bars speak of with the peers they name, and
a peer that is more than three times worse than the best in the first round, by each figure that a bar asks for, sits
out the others. A row with a bar that is not settled by then goes on for as many rounds as --settle allows, with the
programs alone that its bars compare.

Prints a table for each row, and writes the runs as JSON and the page (report.py) beside it, after every row: what was
measured is kept when it is interrupted. --merge makes one report of several such files.
"""
import argparse
import fnmatch
import json
import os
import sys
import time

sys.dont_write_bytecode = True  # the source tree stays as it is

import bars  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
from rows import rows  # noqa: E402

FAR_BEHIND = 3
SETTLE = 30  # rounds
TASKS_MOST = 20_000_000  # of a row whose runs take the usual time
TASKS_LEAST = 2000
WARMING = ("java",)  # programs that run before they measure: a first try may as well be a long one
TASKS_EACH = 20  # at least, of each submitter: else the run is over before the last one is awake


# --- a row ------------------------------------------------------------------------------------------------------------

class Program:
    """One that takes part in a row."""

    def __init__(self, name, command, row):
        self.name, self.command, self.seconds, self.runs, self.out = name, command, row.seconds, [], ""
        submitters = max((int(word[10:]) for word in command if word.startswith("producers=")), default=1)
        self.least = max(TASKS_LEAST, TASKS_EACH * submitters)
        self.tasks = max(row.scaled * (50 if name.startswith(WARMING) else 1), self.least) if row.scaled else 0

    def run(self, options):
        """A run, repeated while others disturb it; the last one counts."""
        command = self.command + ([f"tasks={self.tasks}"] if self.tasks else []) + ["--json"]
        for _ in range(1 + options.repeat):
            run = measure.run_once(command, options.limit)
            if "failed" in run or not measure.is_noisy(run):
                break
        if self.tasks:
            run["tasks"] = self.tasks
        return run

    def scale(self, options):
        """Finds the number of tasks that takes about the time asked for, by a few tries, as in a short run a thousand
        threads do little but begin. Returns a try that was long enough, or has failed: it is the first run."""
        wanted = options.seconds * self.seconds
        for _ in range(6):
            run = measure.run_once(self.command + [f"tasks={self.tasks}", "--json"], options.limit)
            run["tasks"] = self.tasks
            if "failed" in run:
                return run
            self.tasks = int(min(max(run["figures"]["tasks_per_s"] * wanted, self.least), TASKS_MOST * self.seconds))
            if run["figures"]["elapsed_s"] > 0.7 * wanted or self.tasks == run["tasks"]:
                return run
        return None

    def take_turn(self, options, first):
        run = self.scale(options) if first and self.tasks else None
        run = run or self.run(options)
        self.runs.append(run)
        if "failed" in run:
            self.out = run["failed"]


def is_far_behind(row, figure, table, name):
    best = bars.best(row.name, figure, row.more, table)
    if not best or not best[1][0] or figure not in table[name]:
        return False
    ratio = table[name][figure][0] / best[1][0]
    return (1 / ratio if row.more and ratio else ratio) > FAR_BEHIND


def sit_out(row, programs):
    """Ends the row for peers that cannot become the best: a single run may be better than all medians."""
    table = {p.name: summary(p.runs) for p in programs}
    for program in programs:
        if not program.name.startswith(("ringpool", bars.FLOOR)) and \
                all(is_far_behind(row, figure, table, program.name) for figure in (row.figure, *row.also)):
            program.out = "sat out"


def run_round(programs, number, options):
    turn = number % len(programs)
    for program in (programs[turn:] + programs[:turn])[:: -1 if number % 2 else 1]:
        if not program.out:
            program.take_turn(options, number == 0)


def disputants(verdicts, row):
    """The programs that the bars of a row compare, if one of these is not settled."""
    spoken = [verdict for verdict in verdicts if verdict.row == row and not verdict.goal]
    if all(verdict.settled for verdict in spoken):
        return set()
    return {name for verdict in spoken for name in verdict.programs}


def run_row(row, commands, options, judge):
    """-> {program: [run, ...]}, of which `judge` makes the verdicts."""
    programs = [Program(name, command, row) for name, command in commands.items()]
    runs = {program.name: program.runs for program in programs}
    for number in range(options.rounds):
        run_round(programs, number, options)
        if options.check and number == 0:
            sit_out(row, programs)
    for number in range(options.rounds, options.settle):
        wanted = disputants(judge(runs), row.name)
        if not wanted:
            break
        run_round([p for p in programs if p.name in wanted or p.name.startswith(bars.FLOOR)], number, options)
    return runs


def summary(runs):
    """-> {figure: (median, least, greatest)} of the runs that went well."""
    good = [run["figures"] for run in runs if "figures" in run]
    out = {}
    for figure in good[0] if good else ():
        values = sorted(f[figure] for f in good if figure in f)
        n = len(values)
        out[figure] = ((values[(n - 1) // 2] + values[n // 2]) / 2, values[0], values[-1])
    return out


def failure(runs):
    return next((run["failed"] for run in runs if "failed" in run), None)


def notes(name, runs, row, names):
    out = ""
    if name.startswith(bars.FLOOR):
        out += "  (the machine's floor, no pool)"
    elif name not in names and not name.startswith("ringpool"):
        why = "runs tasks in the submitter or waiter" if name in bars.INLINE else "burns a CPU"
        out += f"  (no rival: {why})"
    if len(runs) < row["rounds"] and not failure(runs):
        out += "  (far behind: sat out after round 1)"
    if len(runs) > row["rounds"]:
        out += f"  ({len(runs)} rounds)"
    noisy = sum(measure.is_noisy(run) for run in runs)
    if noisy:
        out += f"  [{noisy} of {len(runs)} runs noisy]"
    if failure(runs):
        out += f"  then {failure(runs)}"
    return out


def print_row(row, table):
    """row as it stands in the JSON."""
    unit, figure, scale = row["unit"], row["figure"], row["scale"]
    print(f"\n{row['row']}   ({' '.join(row['args'])}; {figure}{', ' + unit if unit else ''})   load {row['load']:.2f}")
    names = bars.rivals(row["row"], table)
    best = bars.best(row["row"], figure, row["more_is_better"], table)
    order = sorted(table, key=lambda n: table[n].get(figure, (0,))[0], reverse=row["more_is_better"])
    if row["row"].startswith("growth"):
        order = list(table)
    for name in sorted(order, key=lambda n: figure not in table[n]):
        runs = row["runs"][name]
        if figure not in table[name]:
            print(f"  {name:<20} {failure(runs) or 'no figure'}")
            continue
        median, least, most = (value * scale for value in table[name][figure])
        ratio = f"{median / (best[1][0] * scale):8.2f} x best peer" if best and best[1][0] else ""
        print(f"  {name:<20} {median:11.3f}  {least:11.3f} .. {most:<11.3f}{ratio}{notes(name, runs, row, names)}")
    sys.stdout.flush()


# --- results ----------------------------------------------------------------------------------------------------------

class Results:
    """What a results file holds, and what follows from it."""

    def __init__(self, machine, skipped, found=()):
        self.machine, self.skipped, self.rows = machine, skipped, list(found)

    def add(self, row):
        """A row that is there already is replaced."""
        self.rows = [other for other in self.rows if other["row"] != row["row"]] + [row]

    def with_runs(self, row, runs):
        """These results and those of one more row."""
        return Results(self.machine, self.skipped, self.rows + [{"row": row.name, "runs": runs}])

    def tables(self):
        return {row["row"]: {name: summary(runs) for name, runs in row["runs"].items()} for row in self.rows}

    def verdicts(self):
        failures = {row["row"]: {name: failure(runs) for name, runs in row["runs"].items() if failure(runs)}
                    for row in self.rows}
        rounds = {row["row"]: {name: [run["figures"] for run in runs] for name, runs in row["runs"].items()
                               if not failure(runs)} for row in self.rows}
        return bars.judge(self.tables(), failures, rounds)

    def write(self, path):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        verdicts = self.verdicts()
        with open(path + ".new", "w") as file:
            json.dump({"machine": self.machine, "skipped": self.skipped, "rows": self.rows,
                       "bars": [verdict._asdict() for verdict in verdicts]}, file, indent=1)
        os.rename(path + ".new", path)
        with open(page_of(path), "w") as file:
            file.write(report.page(self.machine, self.skipped, self.rows, self.tables(), verdicts))


def page_of(path):
    stem = path[:-5] if path.endswith(".json") else path
    return os.path.join(os.path.dirname(path), "report.html") if os.path.basename(stem) == "results" else stem + ".html"


def merge(paths):
    """One result of several files; of a row in two of them the later file's stands. Or a complaint."""
    out = None
    for path in paths:
        try:
            with open(path) as file:
                data = json.load(file)
            part = Results(data["machine"], data["skipped"], data["rows"])
            part.tables()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{path} is no results file: {error}"
        if out is None:
            out = part
            continue
        if any(out.machine[key] != part.machine[key] for key in ("processor", "cpus", "kernel")):
            return f"{path} is of another machine than {paths[0]}"
        for row in part.rows:
            out.add(row)
        out.skipped += [line for line in part.skipped if line not in out.skipped]
    order = {row.name: i for i, row in enumerate(rows())}
    out.rows.sort(key=lambda row: order.get(row["row"], len(order)))
    return out


# --- the programs -----------------------------------------------------------------------------------------------------

def peers(build):
    try:
        with open(os.path.join(build, "bench/peers/list")) as file:
            return {name: command for name, *command in map(str.split, file)}
    except FileNotFoundError:
        print("bench: no peers were built (bench/peers/build.sh)", file=sys.stderr)
        return {}


def skipped(build):
    try:
        with open(os.path.join(build, "bench/peers/skipped")) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def programs(row, found, options):
    keys = row.keys(options.check)
    out = {name: [os.path.join(options.build, "ringpool"), "bench"] + keys + more.split()
           for name, more in row.variants(options.check).items()}
    out.update({name: command + keys + row.floor.get(name, "").split()
                for name, command in found.items() if row.takes(name, options.check)})
    return out


# --- the command line -------------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"bench: {message}; usage: {' '.join(self.format_usage().split()[1:])}", file=sys.stderr)
        sys.exit(2)


def options_of(argv):
    parser = Parser(description="ringpool beside other pools", prog="make bench ARGS=...")
    parser.add_argument("--quick", action="store_true", help="a few rows, 3 rounds, short runs: some minutes")
    parser.add_argument("--check", action="store_true", help="say for each bar whether it holds; 1 if one does not")
    parser.add_argument("--rows", action="append", metavar="ROW,...",
                        help="only these: their beginnings, or patterns; --list shows them (repeatable)")
    parser.add_argument("--peers", metavar="PEER,...", help="only these; 'none': ours alone")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--settle", type=int, metavar="ROUNDS", help="with --check: as many for a row with a bar that "
                        f"is not settled; default {SETTLE}, or --rounds if that is given")
    parser.add_argument("--seconds", type=float, help="how long a throughput run takes; default 0.5, --check 0.25")
    parser.add_argument("--limit", type=float, default=20, help="end a run after so many seconds; default 20")
    parser.add_argument("--repeat", type=int, help="how often a noisy run is repeated; default 2")
    parser.add_argument("--out", metavar="FILE", help="the JSON; the page goes beside it; default results.json and "
                        "report.html in BUILD/bench")
    parser.add_argument("--merge", nargs="+", metavar="FILE", help="run nothing: one report of these results")
    parser.add_argument("--build", default="build", help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="list the rows")
    options = parser.parse_args(argv)
    short = options.quick or options.check
    if options.settle is not None and not options.check:
        parser.error("--settle goes with --check")
    if options.settle is None:
        options.settle = SETTLE if options.check and options.rounds is None else 0
    options.rounds = options.rounds if options.rounds is not None else 3 if options.quick else 5
    options.seconds = options.seconds if options.seconds is not None else 0.15 if options.quick else 0.25 if short else 0.5
    options.repeat = options.repeat if options.repeat is not None else 0 if options.quick else 2
    options.out = options.out or os.path.join(options.build, "bench", "results.json")
    for name, least in (("rounds", 1), ("seconds", 0.001), ("limit", 0.001), ("repeat", 0), ("settle", 0)):
        if not getattr(options, name) >= least:
            parser.error(f"--{name} must be {least:g} or more")
    return options


def chosen(options):
    """The rows asked for; or the pattern that fits none."""
    out = [row for row in rows() if (row.quick or not options.quick)
           and (not options.check or options.rows or row.check is not False)]
    if not options.rows:
        return out
    picked = set()
    for pattern in ",".join(options.rows).split(","):
        fits = {row.name for row in out if row.name == pattern}
        fits = fits or {row.name for row in out if row.name.startswith(pattern) or fnmatch.fnmatch(row.name, pattern)}
        if not fits:
            return pattern
        picked |= fits
    return [row for row in out if row.name in picked]


def chosen_peers(options):
    """The peers to run; or the name that none has."""
    found = peers(options.build)
    if options.peers is None:
        return found
    names = [name for name in options.peers.split(",") if name != "none"]
    return next((name for name in names if name not in found), None) or {name: found[name] for name in names}


def complain(text, there):
    print(f"bench: {text}; there are: {', '.join(there)}", file=sys.stderr)
    return 2


def finish(results, options):
    print(f"\n{options.out} and {page_of(options.out)} written")
    return bars.show(results.verdicts(), bool(options.rows)) if options.check else 0


def run_all(todo, found, options):
    results = Results(measure.machine(), skipped(options.build))
    about = results.machine
    print(f"{about['processor']}, {about['cpus']} CPUs, Linux {about['kernel']}, load {about['load']:.2f}; "
          f"{options.rounds} rounds; medians, least .. greatest")
    for line in results.skipped:
        print(f"not here: {line}")
    status = 0
    try:
        for row in todo:
            load, date = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M:%S %z")
            runs = run_row(row, programs(row, found, options), options,
                           lambda runs, row=row: results.with_runs(row, runs).verdicts())
            results.add({"row": row.name, "args": row.keys(options.check), "figure": row.figure, "unit": row.unit,
                         "scale": row.scale, "more_is_better": row.more, "rounds": options.rounds, "load": load,
                         "date": date, "runs": runs})
            print_row(results.rows[-1], results.tables()[row.name])
            results.write(options.out)
    except KeyboardInterrupt:
        print("\nbench: interrupted; what was measured is kept", file=sys.stderr)
        status = 130
    if not results.rows:
        return status
    return finish(results, options) or status


def main(argv):
    options = options_of(argv)
    if options.list:
        print("\n".join(row.name for row in rows()))
        return 0
    if options.merge:
        results = merge(options.merge)
        if isinstance(results, str):
            print(f"bench: {results}", file=sys.stderr)
            return 2
        for row in results.rows:
            print_row(row, results.tables()[row["row"]])
        results.write(options.out)
        return finish(results, options)
    todo, found = chosen(options), chosen_peers(options)
    if isinstance(todo, str):
        return complain(f"no row is called {todo!r}", [row.name for row in rows()])
    if isinstance(found, str):
        return complain(f"no peer is called {found!r}", peers(options.build))
    return run_all(todo, found, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
