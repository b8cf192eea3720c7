#!/usr/bin/env python3
"""The driver of the benchmarks (bench/run.py) with programs that are scripts: what it runs in which order, what it does
with one that hangs or lies, what it answers to nonsense, and what it writes. No figure here is a measurement.
"""
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TREE, "bench"))

import bars  # noqa: E402
import measure  # noqa: E402
import run as driver  # noqa: E402

# Says which program ran, then prints the figures.
SCRIPT = """#!/bin/sh
echo {name} "$@" >>{log}
{body}
"""
FIGURES = """echo '{"figures": {"p50_us": %g, "p99_us": %g, "cpu_s": 1, "elapsed_s": 1}}'"""


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.build = self.folder.name
        self.log = os.path.join(self.build, "log")
        os.makedirs(os.path.join(self.build, "bench/peers"))
        self.program("ringpool", os.path.join(self.build, "ringpool"), FIGURES % (5, 6))
        self.peers = []

    def tearDown(self):
        self.folder.cleanup()

    def program(self, name, path, body):
        with open(path, "w") as file:
            file.write(SCRIPT.format(name=name, log=self.log, body=body))
        os.chmod(path, 0o755)

    def peer(self, name, body):
        path = os.path.join(self.build, "bench/peers", name)
        self.program(name, path, body)
        self.peers.append(f"{name} {path}")
        with open(os.path.join(self.build, "bench/peers/list"), "w") as file:
            file.write("\n".join(self.peers) + "\n")

    def run_it(self, *args):
        done = subprocess.run([sys.executable, os.path.join(TREE, "bench/run.py"), "--build", self.build, "--repeat",
                               "0", *args], capture_output=True, text=True)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def results(self, name="results.json"):
        with open(os.path.join(self.build, "bench", name)) as file:
            return json.load(file)

    def ran(self):
        with open(self.log) as file:
            return [line.split()[0] for line in file]

    def test_rounds_are_interleaved_and_nobody_always_follows_the_same(self):
        for name in ("asio", "glib"):
            self.peer(name, FIGURES % (7, 8))
        self.assertEqual(self.run_it("--rows", "wake 1000 us", "--rounds", "3").returncode, 0)
        once = ["ringpool", "asio", "glib"]
        asleep, spinning = self.ran()[:12], self.ran()[12:]
        self.assertEqual(spinning, [])  # the exact name, not both rows that begin so
        self.assertEqual(asleep, once + ["ringpool", "glib", "asio"] + ["glib", "ringpool", "asio"])

    def test_a_peer_that_hangs_is_ended_and_the_rest_goes_on(self):
        self.peer("asio", "sleep 60 & sleep 60")
        self.peer("glib", FIGURES % (7, 8))
        done = self.run_it("--rows", "wake 1000 us,roundtrip 200 us", "--rounds", "2", "--limit", "0.3")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(re.findall(r"asio +hung: ended after 0.3 s", done.stdout)), 2, done.stdout)
        for row in self.results()["rows"]:
            self.assertEqual(len(row["runs"]["glib"]), 2)
            self.assertEqual(len(row["runs"]["asio"]), 1)

    def test_what_a_failing_program_says_is_reported(self):
        self.peer("asio", "echo 'asio wake: WRONG: not exactly the tasks ran' >&2; exit 1")
        self.peer("glib", "echo usage >&2; exit 2")
        self.peer("mutex", "echo no JSON")
        self.peer("tbb", "kill -SEGV $$")
        done = self.run_it("--rows", "wake 1000 us", "--rounds", "1")
        self.assertEqual(done.returncode, 0)
        for line in (r"asio +asio wake: WRONG: not exactly the tasks ran", r"glib +does not apply",
                     r"mutex +printed no result", r"tbb +status -11"):
            self.assertRegex(done.stdout, line)

    def test_without_peers_ours_runs_alone_and_it_is_said(self):
        done = self.run_it("--rows", "wake 1000 us", "--rounds", "1")
        self.assertEqual(done.returncode, 0)
        self.assertIn("no peers were built", done.stderr)
        self.assertEqual(self.ran(), ["ringpool"])

    def test_nonsense_is_answered_in_one_line_with_what_there_is(self):
        self.peer("asio", FIGURES % (7, 8))
        for args, there in ((("--rows", "wink"), "wake 50 us"), (("--rows", "wake,wink"), "wake 50 us"),
                            (("--peers", "asia"), "asio"), (("--frobs",), "usage:"), (("--rounds", "x"), "usage:"),
                            (("--rounds", "0"), "usage:"), (("--seconds", "-1"), "usage:")):
            done = self.run_it(*args)
            self.assertEqual(done.returncode, 2, args)
            self.assertEqual(done.stdout, "", args)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(there, done.stderr)
        self.assertFalse(os.path.exists(self.log))

    def test_check_says_which_bar_holds_and_fails_when_one_does_not(self):
        good = self.run_it("--check", "--rows", "roundtrip 200 us", "--rounds", "1")
        self.assertEqual(good.returncode, 0, good.stdout)
        self.assertRegex(good.stdout, r"holds +round trip: roundtrip 200 us: p50_us <= 7 us")
        self.program("ringpool", os.path.join(self.build, "ringpool"), FIGURES % (9, 9))
        bad = self.run_it("--check", "--rows", "roundtrip 200 us", "--rounds", "1")
        self.assertEqual(bad.returncode, 1)
        self.assertRegex(bad.stdout, r"FAILS +round trip: roundtrip 200 us: p50_us <= 7 us: 1.29 x: 9 \(9..9\) us")

    def test_a_bar_that_the_floor_does_not_reach_either_is_told_apart_and_does_not_hold(self):
        self.program("ringpool", os.path.join(self.build, "ringpool"), FIGURES % (70, 80))
        for floor, word in ((65, "out of reach"), (55, "FAILS")):
            self.peer("floor-futex", FIGURES % (floor, floor))
            done = self.run_it("--check", "--rows", "wake 50 us", "--rounds", "1")
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stdout, rf"{word} +wake: wake 50 us: p99_us <= 60 us.*; the machine's floor: {floor}")
            self.assertIn(f"{int(floor == 65)} of them where what the machine asks", done.stdout)

    def test_a_row_whose_rounds_do_not_agree_goes_on(self):
        figures = """echo "{\\"figures\\": {\\"submit_p50_ns\\": $p50, \\"submit_p99_ns\\": 100}}" """
        turns = f"[ $(($(wc -l <{self.log}) % 3)) = 0 ] && p50=40 || p50=30; "
        for body, rounds, settled in (("p50=30; " + figures, 5, True), (turns + figures, 12, False)):
            self.program("ringpool", os.path.join(self.build, "ringpool"), body)
            done = self.run_it("--check", "--rows", "submit busy", "--rounds", "5", "--settle", "12")
            self.assertEqual(done.returncode, 0)
            self.assertEqual(len(self.ran()), rounds)
            os.remove(self.log)
            self.assertEqual("; 12 rounds, not settled" in done.stdout, not settled)
            self.assertEqual("(12 rounds)" in done.stdout, not settled)

    def test_a_row_that_ringpool_fails_in_is_a_bar_that_does_not_hold(self):
        self.program("ringpool", os.path.join(self.build, "ringpool"), "echo lost a task >&2; exit 1")
        done = self.run_it("--check", "--rows", "roundtrip 200 us", "--rounds", "1")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"FAILS +round trip: roundtrip 200 us: .*lost a task")

    def test_parts_are_merged_and_the_later_one_stands(self):
        part = lambda name: os.path.join(self.build, "bench", name)
        self.run_it("--rows", "wake 1000 us,roundtrip 200 us", "--rounds", "1", "--out", part("a.json"))
        self.program("ringpool", os.path.join(self.build, "ringpool"), FIGURES % (9, 9))
        self.run_it("--rows", "wake 50 us,roundtrip 200 us", "--rounds", "1", "--out", part("b.json"))
        done = self.run_it("--check", "--merge", part("a.json"), part("b.json"))
        self.assertEqual(done.returncode, 1)
        rows = {row["row"]: row["runs"]["ringpool"][0]["figures"]["p50_us"] for row in self.results()["rows"]}
        self.assertEqual(rows, {"wake 1000 us": 5, "wake 50 us": 9, "roundtrip 200 us": 9})
        self.assertTrue(os.path.exists(part("report.html")))

    def test_what_cannot_be_merged_is_refused(self):
        part = lambda name: os.path.join(self.build, "bench", name)
        self.run_it("--rows", "wake 1000 us", "--rounds", "1", "--out", part("a.json"))
        other = self.results("a.json")
        other["machine"]["processor"] = "Z80"
        for name, text in (("b.json", json.dumps(other)), ("c.json", "[]"), ("d.json", "{"), ("e.json", '{"rows": 1}')):
            with open(part(name), "w") as file:
                file.write(text)
            done = self.run_it("--merge", part("a.json"), part(name))
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
            self.assertIn(name, done.stderr)
        self.assertEqual(self.run_it("--merge", part("none.json")).returncode, 2)

    def test_the_page_is_one_file_for_light_and_dark(self):
        self.peer("asio<&>", FIGURES % (7, 8))
        self.run_it("--rows", "wake 1000 us", "--rounds", "1")
        with open(os.path.join(self.build, "bench/report.html")) as file:
            page = file.read()
        self.assertIn("<svg", page)
        self.assertIn("prefers-color-scheme: dark", page)
        self.assertIn("asio&lt;&amp;&gt;", page)
        self.assertNotRegex(page, r"<script|https?:|url\(|<link|@import|asio<&")

    def test_a_disturbed_run_is_repeated_and_else_marked(self):
        busy = iter(range(0, 10_000, 100))  # 100 s of others' time in every run
        original, measure.busy_seconds, measure.NOISE_FROM = measure.busy_seconds, lambda: next(busy), 0
        try:
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
                driver.main(["--build", self.build, "--rows", "wake 1000 us", "--rounds", "2", "--repeat", "1"])
        finally:
            measure.busy_seconds, measure.NOISE_FROM = original, 0.1
        self.assertEqual(self.ran(), ["ringpool"] * 4)
        self.assertIn("[2 of 2 runs noisy]", out.getvalue())
        self.assertEqual(len(self.results()["rows"][0]["runs"]["ringpool"]), 2)

    def test_under_check_who_is_far_behind_sits_out(self):
        self.peer("asio", FIGURES % (10, 10))
        self.peer("glib", FIGURES % (29, 29))
        self.peer("mutex", FIGURES % (31, 31))
        self.run_it("--check", "--rows", "wake 50 us", "--rounds", "3")
        self.assertEqual([self.ran().count(name) for name in ("asio", "glib", "mutex")], [3, 3, 1])


    def test_but_not_who_may_be_the_best_in_another_figure_that_is_judged(self):
        self.peer("asio", FIGURES % (10, 10))
        self.peer("glib", FIGURES % (31, 29))
        self.peer("mutex", FIGURES % (31, 31))
        self.run_it("--check", "--rows", "wake 1000 us asleep", "--rounds", "3")
        self.assertEqual([self.ran().count(name) for name in ("asio", "glib", "mutex")], [3, 3, 1])


class Bars(unittest.TestCase):
    def verdict(self, tables, claim):
        return next(v for v in bars.judge(tables, {}) if v.claim.startswith(claim))

    def test_who_runs_tasks_in_the_submitter_is_no_rival(self):
        row = {"tasks_per_s": (10e6, 9e6, 11e6)}
        tables = {"throughput 1/1": {"ringpool": row, "tbb": {"tasks_per_s": (90e6,) * 3},
                                     "asio": {"tasks_per_s": (8e6, 7e6, 9e6)}}}
        verdict = self.verdict(tables, "throughput 1/1: tasks_per_s >= 1.2 x")
        self.assertTrue(verdict.holds)
        self.assertEqual(verdict.ours, "10 (9..11) M/s")
        self.assertEqual(verdict.other, "8 (7..9) M/s by asio")

    def test_who_burns_a_core_is_no_rival_for_a_wake_up(self):
        figures = lambda p50, cpu: {"p50_us": (p50,) * 3, "cpu_s": (cpu,) * 3, "elapsed_s": (1,) * 3}
        tables = {"wake 50 us": {"ringpool": figures(20, 1), "spinner": figures(1, 1.9), "asio": figures(25, 1.1)}}
        self.assertTrue(self.verdict(tables, "wake 50 us: p50_us <=").holds)

    def test_what_ran_in_the_same_rounds_is_compared_by_round(self):
        rounds = {"batch 1/1": {"ringpool": [90, 135, 134], "ringpool-single": [60, 100, 110]}}
        median = lambda values: (sorted(values)[1], min(values), max(values))
        tables = {row: {name: {"tasks_per_s": median(values)} for name, values in programs.items()}
                  for row, programs in rounds.items()}
        taken = {row: {name: [{"tasks_per_s": value} for value in values] for name, values in programs.items()}
                 for row, programs in rounds.items()}
        find = lambda verdicts: next(v for v in verdicts if v.claim.startswith("batch 1/1"))
        self.assertEqual((find(bars.judge(tables, {})).ratio, find(bars.judge(tables, {}, taken)).ratio), (1.34, 1.35))
        taken["batch 1/1"]["ringpool-single"].append({"tasks_per_s": 1})  # not of the same rounds
        self.assertEqual(find(bars.judge(tables, {}, taken)).ratio, 1.34)

    def test_a_bar_is_settled_when_hardly_any_round_contradicts(self):
        for above, below, settled in ((5, 0, True), (0, 5, True), (4, 0, False), (4, 1, False), (8, 1, True),
                                      (7, 2, False), (21, 9, True), (15, 15, False)):
            self.assertEqual(bars.is_settled([1.1] * above + [0.9] * below, 1.0, True), settled, (above, below))
            self.assertEqual(bars.is_settled([0.9] * above + [1.1] * below, 1.0, False), settled, (above, below))

    def test_a_bar_that_hangs_on_the_machines_pace_says_so(self):
        def paces(figures, additions):
            rounds = {"roundtrip W=1": {"ringpool-run": [{"p50_us": figure, "addition_ns": addition}
                                                         for figure, addition in zip(figures, additions)]}}
            tables = {"roundtrip W=1": {"ringpool-run": {"p50_us": (sorted(figures)[2], min(figures), max(figures))}}}
            return next(verdict.paces for verdict in bars.judge(tables, {}, rounds)
                        if verdict.claim.startswith("roundtrip W=1, ringpool-run"))
        figures = [0.09, 0.16, 0.09, 0.17, 0.08]
        self.assertEqual(paces(figures, [0.28, 0.49, 0.30, 0.50, 0.28]), "0.09 us at 0.28 ns an addition (3 rounds), "
                         "0.165 us at 0.49 ns an addition (2 rounds)")
        self.assertEqual(paces(figures, [0.28] * 5), "")
        self.assertEqual(paces(figures, [0.28, 0.28, 0.28, 0.49, 0.28]), "", "one round says nothing")
        self.assertEqual(paces([0.09] * 5, [0.28, 0.49] * 2 + [0.28]), "", "settled")

    def test_who_goes_on_is_who_the_bars_compare(self):
        taken = {"throughput 1/1": {"ringpool": [100] * 4 + [50], "go": [20] * 5, "asio": [10] * 5,
                                    "floor-ring": [90] * 5}}
        rounds = {row: {name: [{"tasks_per_s": value * 1e6} for value in values] for name, values in programs.items()}
                  for row, programs in taken.items()}
        tables = {row: {name: {"tasks_per_s": (sorted(values)[2] * 1e6, min(values) * 1e6, max(values) * 1e6)}
                        for name, values in programs.items()} for row, programs in taken.items()}
        self.assertEqual(driver.disputants(bars.judge(tables, {}, rounds), "throughput 1/1"), set())
        rounds["throughput 1/1"]["go"][0] = {"tasks_per_s": 200e6}
        self.assertEqual(driver.disputants(bars.judge(tables, {}, rounds), "throughput 1/1"),
                         {"ringpool", "go"})
        self.assertEqual(driver.disputants(bars.judge(tables, {}, rounds), "throughput 1/2"), set())

    def test_two_pools_in_turns_are_judged_by_their_ratio(self):
        for other, claim, bar in (("epoll", "throughput 1/1: on epoll", 0.97),
                                  ("metrics", "throughput 1/1: with metrics", 0.95)):
            for ratio in (bar - 0.01, bar, bar + 0.01):
                tables = {f"versus {other} 1/1": {"ringpool": {"ratio": (ratio,) * 3}}}
                self.assertEqual(self.verdict(tables, claim).holds, ratio >= bar, (other, ratio))

    def test_tasks_in_order_are_held_against_a_floor_in_order(self):
        row = {"ringpool": 0.87, "ringpool-unordered": 0.87, "floor-ring": 0.88, "floor-shares": 0.98}
        tables = {"work 500 ns": {name: {"efficiency": (value,) * 3} for name, value in row.items()}}
        self.assertTrue(self.verdict(tables, "work 500 ns: efficiency >= 0.9").barred)
        self.assertFalse(self.verdict(tables, "work 500 ns, ringpool-unordered").barred)

    def test_and_if_it_is_better_than_that_against_bare_threads(self):
        for shares, barred in ((0.88, True), (0.91, False)):
            row = {"ringpool": 0.77, "floor-ring": 0.63, "floor-shares": shares}
            tables = {"work 500 ns": {name: {"efficiency": (value,) * 3} for name, value in row.items()}}
            self.assertEqual(self.verdict(tables, "work 500 ns: efficiency >= 0.9").barred, barred, shares)

    def test_what_stays_on_its_cpu_has_no_floor_of_two(self):
        row = {"ringpool": 0.5, "ringpool-run": 0.5, "floor-ring": 0.5}
        tables = {"roundtrip W=1": {name: {"p50_us": (value,) * 3} for name, value in row.items()}}
        for claim, barred in (("roundtrip W=1: p50_us <= 0.3", True), ("roundtrip W=1, ringpool-run", False)):
            verdict = self.verdict(tables, claim)
            self.assertEqual((verdict.holds, verdict.barred), (False, barred), claim)

    def test_each_row_of_the_bars_is_spoken_of(self):
        said = {verdict.bar for verdict in bars.judge({}, {})}
        for bar in ("throughput", "strict", "batch", "CPU per task", "work", "wake", "round trip", "submit", "sleepers",
                    "idle", "fanout", "growth", "metrics", "epoll"):
            self.assertIn(bar, said)
        self.assertTrue(all(verdict.holds is None for verdict in bars.judge({}, {})))


if __name__ == "__main__":
    unittest.main(verbosity=0)
