#!/usr/bin/env python3
"""Runs ringpool and its peers in turn and compares them.

A row is a workload with its keys. Within a round every program runs once, one after the other, so that a neighbour's
load hits them alike, and the order rotates from round to round; a figure is the median of the rounds, with its least
and greatest. A run over its time limit is killed and reported, and its program sits the row out. While a run lasts the
CPU time of all other processes is counted: a run with more than 0.15 cores of it is repeated a few times and else
marked, and the table says how many were. Rows with a `*` number of tasks are probed first, so that each program runs
for about the same time.

Prints a table for each row, and writes results.json (every run) and report.html beside it.
"""
import argparse
import fnmatch
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the source tree stays as it is

import bars  # noqa: E402
import report  # noqa: E402

NOISE = 0.15  # cores
TICKS = os.sysconf("SC_CLK_TCK")


class Row:
    """name; workload and keys; the figure it is judged by, its unit and scale; whether more is better."""

    def __init__(self, name, args, figure, unit, scale=1.0, more=True, quick=False, scaled=0, ours=None, peers=True):
        self.name, self.args, self.figure, self.unit = name, args.split(), figure, unit
        self.scale, self.more, self.quick, self.scaled = scale, more, quick, scaled
        self.ours = ours or {"ringpool": ""}  # variants of ours: name -> further keys
        self.peers = peers  # True: all; False: none; or a tuple of names


BACKENDS = {"ringpool": "backend=auto", "ringpool-epoll": "backend=epoll"}
# A round trip of ours: by an event of the user's, by a future, and by a future that the waiter may run itself.
JOINS = {**BACKENDS, "ringpool-future": "by=future", "ringpool-run": "by=run"}


def rows():
    """scaled is the number of tasks of the probe."""
    out = []
    for producers, workers, extra in ((1, 1, ""), (1, 2, ""), (4, 2, ""), (1, 1000, ""), (4, 1000, ""),
                                      (1000, 1000, " queue=65536")):
        keys = f"throughput producers={producers} workers={workers}{extra}"
        shape = f"{producers}/{workers}"
        few = shape in ("1/1", "4/2", "4/1000")
        out.append(Row(f"throughput {shape}", keys, "tasks_per_s", "M/s", 1e-6, quick=few, scaled=20000,
                       ours=BACKENDS if few else None))
        if producers < 1000:
            out.append(Row(f"strict {shape}", keys + " mode=strict", "tasks_per_s", "M/s", 1e-6, quick=shape == "4/2",
                           scaled=5000))
        out.append(Row(f"batch {shape}", keys + " mode=batch batch=64", "tasks_per_s", "M/s", 1e-6,
                       quick=shape == "1/1", scaled=20000, peers=("mutex",)))
    for workers in (16, 10000):
        out.append(Row(f"growth 1/{workers}", f"throughput producers=1 workers={workers}", "tasks_per_s", "M/s", 1e-6,
                       scaled=20000, peers=False))
    for producers in (4, 1000):
        out.append(Row(f"growth {producers}/16", f"throughput producers={producers} workers=16", "tasks_per_s", "M/s",
                       1e-6, scaled=20000, peers=False))
    for spin in (500, 5000):
        out.append(Row(f"work {spin} ns", f"work workers=2 spin={spin}", "efficiency", "", quick=spin == 5000,
                       scaled=10000))
    out.append(Row("submit busy", "work workers=1 spin=5000 tasks=40000 queue=1000000 sample=1", "submit_p50_ns", "ns",
                   more=False, peers=("mutex", "glib", "asio")))
    out.append(Row("wake 1000 us asleep", "wake gap_us=1000 gap=sleep samples=1000", "p50_us", "us", more=False,
                   quick=True, ours=BACKENDS))
    out.append(Row("wake 1000 us", "wake gap_us=1000 gap=spin samples=1000", "p50_us", "us", more=False))
    out.append(Row("wake 50 us", "wake gap_us=50 samples=20000", "p50_us", "us", more=False, quick=True, ours=BACKENDS))
    out.append(Row("wake 5 us", "wake gap_us=5 samples=100000", "p50_us", "us", more=False))
    for workers in (1, 2):
        out.append(Row(f"roundtrip W={workers}", f"roundtrip workers={workers} samples=50000", "p50_us", "us",
                       more=False, quick=workers == 1, ours=JOINS if workers == 1 else None))
    out.append(Row("roundtrip 200 us", "roundtrip gap_us=200 samples=3000", "p50_us", "us", more=False))
    out.append(Row("sleepers", "sleepers tasks=100000 workers=1000 ms=10", "elapsed_s", "s", more=False))
    out.append(Row("idle 1000", "idle workers=1000", "rss_kb_per_worker", "KiB", more=False))
    out.append(Row("idle 10000", "idle workers=10000", "rss_kb_per_worker", "KiB", more=False,
                   peers=("mutex", "glib", "asio", "go")))
    out.append(Row("fanout", "fanout", "speedup", "x", quick=True))
    for consumer in ("busy", "asleep"):
        out.append(Row(f"completions {consumer}", f"completions consumer={consumer} tasks=5000000", "completions_per_s",
                       "M/s", 1e-6, quick=consumer == "busy", ours=BACKENDS, peers=False))
    out.append(Row("timers", "timers", "arm_cancel_ns", "ns", more=False, ours=BACKENDS, peers=False))
    return out


# --- one run ----------------------------------------------------------------------------------------------------------

def busy_seconds():
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq = (int(n) for n in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def run_once(command, limit):
    """-> a dict: the program's own JSON, or "failed" with the reason; and what the machine did meanwhile."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        busy, begun = busy_seconds(), time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True)
        late = False
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if not late and time.monotonic() - begun > limit:
                late = True
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - begun
        others = max(0.0, busy_seconds() - busy - used.ru_utime - used.ru_stime) / max(wall, 0.01)
        out.seek(0), err.seek(0)
        text, complaint = out.read().decode(errors="replace"), err.read().decode(errors="replace").strip()
    run = {}
    if late:
        run["failed"] = f"killed after {limit:g} s"
    elif child.returncode == 2:
        run["failed"] = "does not apply"
    elif child.returncode:
        run["failed"] = (complaint.splitlines() or [f"status {child.returncode}"])[-1][:160]
        if "not supported" in run["failed"]:
            run["failed"] = "does not apply"
    else:
        try:
            run = json.loads(text.strip().splitlines()[-1])
        except (ValueError, IndexError):
            run["failed"] = "printed no result"
    # Below some ticks of the clock that /proc/stat counts by, the figure says nothing.
    run["others_cores"] = round(others, 3) if wall > 0.1 else 0.0
    run["wall_s"] = round(wall, 3)
    return run


# --- a row ------------------------------------------------------------------------------------------------------------

def probe(row, command, options):
    """The number of tasks that takes about the time asked for; or the failure."""
    tasks, first = row.scaled, None
    for _ in range(2):
        run = run_once(command + [f"tasks={tasks}", "--json"], options.limit)
        if "failed" in run:
            return None, first or run
        rate = run["figures"]["tasks_per_s"]
        tasks = int(min(max(rate * options.seconds, 2000), 20_000_000))
        first = None
        if tasks < 4 * row.scaled:
            break
    return tasks, None


def run_row(row, programs, options):
    """-> {program: [run, ...]}; prints progress to stderr."""
    runs = {name: [] for name in programs}
    commands, out = {}, set()
    for name, command in programs.items():
        commands[name] = command
        if row.scaled:
            tasks, failed = probe(row, command, options)
            if failed:
                runs[name].append(failed)
                out.add(name)
            else:
                commands[name] = command + [f"tasks={tasks}"]
    names = list(programs)
    for number in range(options.rounds):
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]
            if name in out:
                continue
            for attempt in range(1 + options.repeat):
                run = run_once(commands[name] + ["--json"], options.limit)
                if "failed" in run or run["others_cores"] <= NOISE:
                    break
            runs[name].append(run)
            if "failed" in run:
                out.add(name)
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


def print_row(row, runs, table):
    print(f"\n{row.name}   ({' '.join(row.args)}; {row.figure}{', ' + row.unit if row.unit else ''})")
    rivals = bars.rivals(row.name, table)
    best = bars.best(row.name, row.figure, row.more, table)
    order = sorted(table, key=lambda n: table[n].get(row.figure, (0, 0, 0))[0], reverse=row.more)
    for name in sorted(order, key=lambda n: row.figure not in table[n]):
        if row.figure not in table[name]:
            reason = next((run["failed"] for run in runs[name] if "failed" in run), "no figure")
            print(f"  {name:<16} {reason}")
            continue
        median, least, most = (value * row.scale for value in table[name][row.figure])
        ratio = ""
        if best and best[1] and not (name in rivals and len(rivals) == 1):
            ratio = f"{median / (best[1] * row.scale):8.2f} x best peer"
        noisy = sum(run.get("others_cores", 0) > NOISE for run in runs[name])
        failed = next((", then " + run["failed"] for run in runs[name] if "failed" in run), "")
        note = ""
        if name not in rivals and not name.startswith("ringpool"):
            why = "runs tasks in the submitter or waiter" if name in bars.INLINE else "burns a CPU"
            note = f"  (no rival: {why})"
        if noisy:
            note += f"  [{noisy} of {len(runs[name])} runs noisy]"
        print(f"  {name:<16} {median:11.3f}  {least:11.3f} .. {most:<11.3f}{ratio}{note}{failed}")
    sys.stdout.flush()


# --- all --------------------------------------------------------------------------------------------------------------

def peers(build, only):
    found = {}
    try:
        with open(os.path.join(build, "bench/peers/list")) as file:
            for line in file:
                name, *command = line.split()
                if not only or name in only:
                    found[name] = command
    except FileNotFoundError:
        print("bench: no peers were built (bench/peers/build.sh)", file=sys.stderr)
    return found


def skipped(build):
    try:
        with open(os.path.join(build, "bench/peers/skipped")) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def machine():
    cpu = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {"processor": cpu, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "load": os.getloadavg(), "date": time.strftime("%Y-%m-%d %H:%M:%S %z")}


def options_of(argv):
    parser = argparse.ArgumentParser(description="ringpool beside other pools", prog="make bench ARGS=...")
    parser.add_argument("--quick", action="store_true", help="a few rows, 3 rounds, short runs: some minutes")
    parser.add_argument("--check", action="store_true", help="say for each bar whether it holds; 1 if one does not")
    parser.add_argument("--rows", action="append", help="only rows of this pattern (repeatable)")
    parser.add_argument("--peers", help="only these, separated by commas; 'none': ours alone")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--seconds", type=float, help="how long a throughput run should take; default 0.5")
    parser.add_argument("--limit", type=float, default=30, help="kill a run after so many seconds; default 30")
    parser.add_argument("--repeat", type=int, help="how often a noisy run is repeated; default 2")
    parser.add_argument("--build", default="build", help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="list the rows")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.15 if options.quick else 0.5)
    options.repeat = options.repeat if options.repeat is not None else (0 if options.quick else 2)
    return options


def chosen(options):
    out = [row for row in rows() if row.quick or not options.quick]
    if options.rows:
        out = [row for row in out if any(fnmatch.fnmatch(row.name, p) or row.name.startswith(p) for p in options.rows)]
    return out


def main(argv):
    options = options_of(argv)
    todo = chosen(options)
    if options.list or not todo:
        print("\n".join(row.name for row in rows()))
        return 0 if options.list else 2
    found = peers(options.build, options.peers.split(",") if options.peers else None)
    about = machine()
    print(f"{about['processor']}, {about['cpus']} CPUs, Linux {about['kernel']}, load {about['load'][0]:.2f}; "
          f"{options.rounds} rounds; medians, least .. greatest")
    for line in skipped(options.build):
        print(f"not here: {line}")
    results, tables = [], {}
    try:
        for row in todo:
            programs = {name: [os.path.join(options.build, "ringpool"), "bench"] + row.args + keys.split()
                        for name, keys in row.ours.items()}
            programs.update({name: command + row.args for name, command in found.items()
                             if row.peers is True or row.peers and name in row.peers})
            runs = run_row(row, programs, options)
            tables[row.name] = {name: summary(runs[name]) for name in runs}
            print_row(row, runs, tables[row.name])
            results.append({"row": row.name, "args": row.args, "figure": row.figure, "unit": row.unit,
                            "scale": row.scale, "more_is_better": row.more, "runs": runs})
    except KeyboardInterrupt:
        print("\nbench: interrupted; what was measured is kept", file=sys.stderr)
    folder = os.path.join(options.build, "bench")
    os.makedirs(folder, exist_ok=True)
    verdicts = bars.judge(tables)
    with open(os.path.join(folder, "results.json"), "w") as file:
        json.dump({"machine": about, "rounds": options.rounds, "skipped": skipped(options.build), "rows": results,
                   "bars": [verdict._asdict() for verdict in verdicts]}, file, indent=1)
    with open(os.path.join(folder, "report.html"), "w") as file:
        file.write(report.page(about, options.rounds, results, tables, verdicts))
    print(f"\n{folder}/results.json and {folder}/report.html written")
    return bars.show(verdicts) if options.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
