"""The rows: what is run, on whom, and by which figure it is judged.

`ours` are variants of ringpool: name -> further keys. They run in turn with each other and the peers, so that a bar
which compares two of them compares figures of one run.
"""

BACKENDS = {"ringpool": "backend=auto", "ringpool-epoll": "backend=epoll"}
# A round trip of ours: by an event of the user's, by a future, and by a future that the waiter may run itself.
JOINS = {"ringpool": "", "ringpool-future": "by=future", "ringpool-run": "by=run"}
# Of two pools that differ in one thing, in turns of one process: of the throughput which shapes, and latencies.
VERSUS = {"epoll": ("1/1", "1/2", "4/2", "1/1000", "4/1000", "1000/1000"), "metrics": ("1/1", "4/2")}
VERSUS_LATENCY = {"wake 1000 us asleep": "what=wake gap_us=1000 gap=sleep samples=1000",
                  "wake 50 us": "what=wake gap_us=50 samples=20000", "wake 5 us": "what=wake gap_us=5 samples=100000",
                  "roundtrip W=1": "what=roundtrip samples=100000",
                  "roundtrip W=2": "what=roundtrip workers=2 samples=100000",
                  "roundtrip 200 us": "what=roundtrip gap_us=200 gap=sleep samples=4000"}
UNORDERED = {"ringpool-unordered": "unordered=yes"}  # tasks may start in any order, as those of most peers do

SHAPES = ((1, 1), (1, 2), (4, 2), (1, 1000), (4, 1000), (1000, 1000))
FLOOR_SHAPE = "1/1"  # of batches: no shape does more on two CPUs than a submitter beside a worker
POINTS = (1, 2, 4, 16, 100, 1000, 10000)  # of the curves
JUDGED = ("ringpool 1/16", "ringpool 1/10000", "ringpool 4/16", "ringpool 1000/16")  # points that bars speak of


class Row:
    """name; workload and keys; the figure it is judged by, its unit and scale; whether more is better.

    scaled: tasks of the first try, from which the number is found that takes the time asked for. peers: True: all;
    else their names. check: whether a bar speaks of it, and of which peers then (True: of those in `peers`).
    brief: keys that replace others under --check, where time is short. seconds: a run takes so many times the time that
    is asked for. floor: what shows the least that the machine asks for here (peers/floor.c), and takes part always: one
    name, or several with the keys of each. also: further figures of which a bar asks for the best peer's: nobody sits
    out who is not far behind in these as well.
    """

    def __init__(self, name, args, figure, unit="", scale=1.0, more=True, quick=False, scaled=0, ours=None, peers=True,
                 check=True, brief="", seconds=1, floor=None, also=()):
        self.name, self.args, self.figure, self.unit = name, args.split(), figure, unit
        self.scale, self.more, self.quick, self.scaled = scale, more, quick, scaled
        self.ours = ours or {"ringpool": ""}
        self.peers, self.check, self.brief, self.seconds = peers, check, brief.split(), seconds
        self.also = also
        self.floor = floor if isinstance(floor, dict) else {floor: ""} if floor else {}

    def keys(self, brief):
        replaced = {word.split("=")[0] for word in self.brief} if brief else set()
        return [w for w in self.args if w.split("=")[0] not in replaced] + (self.brief if brief else [])

    def variants(self, checking):
        curve = checking and self.name.startswith("growth")
        return {name: keys for name, keys in self.ours.items() if not curve or name in JUDGED}

    def takes(self, peer, checking):
        if peer.startswith("floor-"):
            return peer in self.floor
        whom = self.check if checking and self.check is not True else self.peers
        return whom is True or bool(whom) and peer in whom


def throughput_rows():
    unit = {"figure": "tasks_per_s", "unit": "M/s", "scale": 1e-6}
    out = []
    for producers, workers in SHAPES:
        shape = f"{producers}/{workers}"
        keys = f"throughput producers={producers} workers={workers}" + (" queue=65536" if producers == 1000 else "")
        seconds = 4 if producers == 1000 else 1  # so many threads take 60 ms to begin and to end
        out.append(Row(f"throughput {shape}", keys, **unit, quick=shape in ("1/1", "4/2", "4/1000"), scaled=20000,
                       seconds=seconds, floor="floor-ring" if workers <= 2 else None))
        out.append(Row(f"strict {shape}", keys + " mode=strict", **unit, quick=shape == "4/2", scaled=5000,
                       check=("mutex", "go-lifo") if shape not in ("1/1", "1000/1000") else False,
                       floor="floor-ring" if workers <= 2 else None))
        out.append(Row(f"batch {shape}", keys, **unit, quick=shape == "1/1", scaled=20000, seconds=seconds, peers=(),
                       ours={"ringpool": "mode=batch batch=64", "ringpool-single": "mode=queue"},
                       floor={"floor-ring": "mode=batch batch=64"} if shape == FLOOR_SHAPE else None))
    for other, shapes in VERSUS.items():
        for shape in shapes:
            producers, workers = shape.split("/")
            many = " queue=65536 tasks=320000000 pairs=8" if producers == "1000" else ""
            out.append(Row(f"versus {other} {shape}", f"versus other={other} producers={producers} workers={workers}{many}",
                           "ratio", "x", quick=shape == "1/1", peers=()))
    out.append(Row("growth workers", "throughput producers=1", **unit, scaled=20000, peers=(), seconds=2,
                   ours={f"ringpool 1/{n}": f"workers={n}" for n in POINTS}))
    out.append(Row("growth submitters", "throughput workers=16", **unit, scaled=20000, peers=(), seconds=4,
                   ours={f"ringpool {n}/16": f"producers={n}" for n in POINTS}))
    return out


def latency_rows():
    p50 = {"figure": "p50_us", "unit": "us", "more": False}
    out = [
        Row("wake 1000 us asleep", "wake gap_us=1000 gap=sleep samples=1000", **p50, quick=True, also=("p99_us",),
            floor="floor-futex"),
        Row("wake 1000 us", "wake gap_us=1000 gap=spin samples=1000", **p50, check=False),
        Row("wake 50 us", "wake gap_us=50 samples=20000", **p50, quick=True, brief="samples=10000",
            floor="floor-futex"),
        Row("wake 5 us", "wake gap_us=5 samples=100000", **p50, check=()),
    ]
    for name, keys in VERSUS_LATENCY.items():
        out.append(Row(f"versus epoll {name}", f"versus other=epoll pairs=50 {keys}", "ratio", "x", more=False, peers=()))
    for workers in (1, 2):
        out.append(Row(f"roundtrip W={workers}", f"roundtrip workers={workers} samples=50000", **p50,
                       quick=workers == 1, ours=JOINS, brief="samples=20000", floor="floor-ring",
                       check=("crossbeam", "go-channel", "mutex", "libuv", "glib", "asio")))
    # Who waits for every result sleeps between two of them; where it spins, the other CPU is halted and to be woken.
    out.append(Row("roundtrip 200 us", "roundtrip gap_us=200 gap=sleep samples=3000", **p50, ours=JOINS,
                   brief="samples=2000", check=(), floor="floor-futex"))
    out.append(Row("roundtrip 200 us spun", "roundtrip gap_us=200 gap=spin samples=3000", **p50, ours=JOINS,
                   check=False))
    return out


def rows():
    out = throughput_rows()
    for spin in (500, 5000):
        out.append(Row(f"work {spin} ns", f"work workers=2 spin={spin}", "efficiency", quick=spin == 5000,
                       scaled=10000, ours={**BACKENDS, **UNORDERED}, check=(),
                       floor={"floor-shares": "", "floor-ring": ""}))
    # where submitters wait for room often, or workers outnumber the CPUs
    for spin, workers, how in ((500, 16, "queue=64"), (5000, 2, "queue=64"), (5000, 2, "mode=strict"),
                               (20000, 16, "mode=strict")):
        out.append(Row(f"work {spin} ns W={workers} {how}", f"work workers={workers} spin={spin} {how}",
                       "efficiency", scaled=10000, check=False))
    out.append(Row("submit busy", "work workers=1 spin=5000 tasks=40000 queue=1000000 sample=1", "submit_p50_ns", "ns",
                   more=False, peers=("mutex", "glib", "asio"), check=()))
    out += latency_rows()
    out.append(Row("sleepers thread", "sleepers tasks=100000 workers=1000 ms=10", "elapsed_s", "s", more=False,
                   check=(), floor="floor-shares"))
    out.append(Row("sleepers timer", "sleepers mode=timer tasks=1000000 outstanding=50000 ms=10", "elapsed_s", "s",
                   more=False, ours=BACKENDS, check=()))
    for workers in (1000, 10000):
        out.append(Row(f"idle {workers}", f"idle workers={workers}", "rss_kb_per_worker", "KiB", more=False,
                       check=(), floor="floor-futex",
                       peers=True if workers == 1000 else ("mutex", "glib", "asio", "go-channel")))
    out.append(Row("fanout", "fanout", "speedup", "x", quick=True, floor="floor-shares"))
    for consumer in ("busy", "asleep"):
        out.append(Row(f"completions {consumer}", f"completions consumer={consumer} tasks=5000000", "completions_per_s",
                       "M/s", 1e-6, quick=consumer == "busy", ours=BACKENDS, peers=(), brief="tasks=2000000",
                       check=() if consumer == "busy" else False))
    out.append(Row("timers", "timers n=1000000", "arm_cancel_ns", "ns", more=False, ours=BACKENDS, peers=()))
    out.append(Row("multi", "multi test=choose", "two_choices_ns", "ns", more=False, peers=(), check=False))
    return out
