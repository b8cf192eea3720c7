"""report.html: one file without scripts or anything from elsewhere, with inline SVG, light or dark as the reader likes.

First ringpool beside the best peer in every row; then throughput as bars, one chart a shape; latency as curves over the
percentile; throughput and CPU time over the number of workers and submitters; the bars; every figure in tables.
"""
from html import escape

import bars
import charts
import measure
from rows import POINTS

STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --dim: #5c6474; --paper: #fff; --line: #d9dde5; --accent: #0b62d6; --variant: #7fb0ee;
        --tint: #eef4fd; --l: 42%; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe3ea; --dim: #99a2b3; --paper: #14171d; --line: #343a46; --accent: #5aa2ff;
          --variant: #2f62a3; --tint: #1b2636; --l: 66%; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 64rem;
       margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { font-weight: 600; line-height: 1.2; } h2 { margin: 2.2rem 0 .6rem; } h3 { margin: 1.4rem 0 .2rem; }
.dim, text.dim { color: var(--dim); fill: var(--dim); } p { margin: .4rem 0; }
.charts { display: flex; flex-wrap: wrap; gap: 1.6rem 2rem; } figure { margin: 0; } figcaption { font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0 1rem; font-variant-numeric: tabular-nums; font-size: 14px; }
td, th { text-align: right; padding: .14rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:first-child, th:first-child, .left { text-align: left; }
.us, svg text.us { font-weight: 700; } tr.us { background: var(--tint); }
.holds { color: hsl(140 60% var(--l)); } .fails { color: hsl(0 70% var(--l)); font-weight: 700; }
"""

PERCENTILES = (("p50_us", "50 %"), ("p90_us", "90 %"), ("p99_us", "99 %"), ("p999_us", "99.9 %"), ("max_us", "max"))
CURVES_MOST = 9  # in one chart; who is further behind stands in the table

SECTIONS = (
    ("Throughput of empty tasks", "One at a time into a queue of 1024 (1000/1000: 65536); submitters / workers.",
     ("throughput",)),
    ("Strict hand-off", "No more tasks in flight than workers: the submitter waits.", ("strict",)),
    ("Batches", "64 tasks in a call, beside one at a time.", ("batch",)),
    ("Work, loops, sleepers", "", ("work", "fanout", "sleepers")),
    ("Idle workers, submit, timers, completions", "", ("idle", "submit", "timers", "completions", "multi")),
)


def of_groups(results, groups):
    return [row for row in results if row["row"].split()[0] in groups]


def bar_chart(row, table, colour):
    values = [(name, *(v * row["scale"] for v in t[row["figure"]])) for name, t in table.items() if row["figure"] in t]
    values.sort(key=lambda v: v[1], reverse=row["more_is_better"])
    if not values:
        return ""
    unit = {"M/s": "million a second", "us": "µs", "x": "times the serial loop", "": row["figure"]}
    better = "more is better" if row["more_is_better"] else "less is better"
    name = row["figure"].replace("_us_", "_").replace("_", " ") if row["unit"] in ("KiB", "ns") else ""
    return charts.bars(row["row"], f"{name + ', ' if name else ''}{unit.get(row['unit'], row['unit'])}; {better}",
                       values, colour)


def latency_charts(results, tables, colour):
    for row in of_groups(results, ("wake", "roundtrip")):
        lines = {name: [t.get(f, (None,))[0] for f, _ in PERCENTILES] for name, t in tables[row["row"]].items()
                 if row["figure"] in t}
        order = sorted(lines, key=lambda name: (not charts.is_ours(name), lines[name][0]))[:CURVES_MOST]
        yield charts.curves(row["row"], "so many of the tasks", "µs at most, logarithmic",
                            [label for _, label in PERCENTILES], {name: lines[name] for name in order}, colour)


def points(tables, row, shape, figure, scale):
    """Ours: of the curve's row, whose programs are named for their shapes, or else of the throughput row of a shape."""
    def at(shape):
        found = tables.get(row, {}).get("ringpool " + shape) or tables.get(f"throughput {shape}", {}).get("ringpool", {})
        return found.get(figure, (0,))[0] * scale or None

    return [at(shape.format(n)) for n in POINTS]


def peer_points(tables, figure, scale):
    """Of 1 submitter: what the throughput rows have at the numbers of workers that they share with the curve."""
    lines = {}
    for i, workers in enumerate(POINTS):
        for name, table in tables.get(f"throughput 1/{workers}", {}).items():
            if figure in table and not charts.is_ours(name):
                lines.setdefault(name, [None] * len(POINTS))[i] = table[figure][0] * scale
    return lines


def growth_charts(tables, colour):
    ticks = [charts.tick(n) for n in POINTS]
    for figure, caption, ylabel, scale, more in (
            ("tasks_per_s", "Throughput over the number of workers, 1 submitter", "million tasks a second", 1e-6, True),
            ("cpu_ns_per_task", "CPU time of a task over the number of workers, 1 submitter", "ns", 1, False)):
        ours, peers = points(tables, "growth workers", "1/{}", figure, scale), peer_points(tables, figure, scale)
        order = sorted(peers, key=lambda name: [v for v in peers[name] if v][-1], reverse=more)[:CURVES_MOST - 1]
        lines = {"ringpool": ours, **{name: peers[name] for name in order}} if any(ours) else {}
        yield charts.curves(caption, "workers, logarithmic", ylabel + ", logarithmic", ticks, lines, colour)
    yield charts.curves("Throughput over the number of submitters, 16 workers", "submitters, logarithmic",
                        "million tasks a second", ticks,
                        {"ringpool": points(tables, "growth submitters", "{}/16", "tasks_per_s", 1e-6)}, colour)


def glance_table(results, tables):
    lines = []
    for row in results:
        table, figure, unit = tables[row["row"]], row["figure"], row["unit"]
        best = bars.best(row["row"], figure, row["more_is_better"], table)
        ours = table.get("ringpool", {}).get(figure)
        if not best or not ours or not best[1][0]:
            continue
        ratio = ours[0] / best[1][0]
        better = (ratio >= 1) == row["more_is_better"] or ratio == 1
        lines.append(f'<tr><td>{escape(row["row"])}<td>{escape(bars.shown(ours, unit))}'
                     f'<td>{escape(bars.shown(best[1], unit))}<td class="left">{escape(best[0])}'
                     f'<td class="{"holds" if better else "fails"}">{charts.number(ratio)} x')
    return ("<div class=wide><table><tr><th>row<th>ringpool<th>best peer<th class=left><th>ringpool / best peer"
            + "".join(lines) + "</table></div>") if lines else ""


def figures_table(row, table):
    figures = []
    for t in table.values():
        figures += [f for f in t if f not in figures]
    if not figures:
        return ""
    noisy = sum(measure.is_noisy(run) for runs in row["runs"].values() for run in runs)
    note = f"; in {noisy} runs other processes used more than {measure.NOISE} core" if noisy else ""
    out = [f"<h3>{escape(row['row'])}</h3><p class=dim>{escape(' '.join(row['args']))}; {row['rounds']} rounds, "
           f"{escape(row['date'])}, load {row['load']:.2f}{note}</p><div class=wide><table><tr><th>"]
    out += [f"<th>{escape(f)}" for f in figures]
    for name, t in table.items():
        out.append(f'<tr{" class=us" if charts.is_ours(name) else ""}><td>{escape(name)}')
        if not t:
            failed = next((run["failed"] for run in row["runs"][name] if "failed" in run), "no figure")
            out.append(f'<td colspan="{len(figures)}" class="dim left">{escape(failed)}')
            continue
        for f in figures:
            median, least, most = t.get(f, (None, None, None))
            out.append("<td>" if median is None else
                       f'<td title="{charts.number(least)} .. {charts.number(most)}">{charts.number(median)}')
    return "".join(out) + "</table></div>"


def bars_table(verdicts):
    kind = {True: "holds", False: "fails", None: "dim"}
    lines = [f'<tr><td>{escape(v.bar)}<td class="left">{escape(v.claim)}<td class="{kind[v.holds]}">{bars.word(v)}'
             + (f'<td>{v.ratio:.3g}<td>{escape(v.ours)}<td>{escape(v.other)}<td class="dim">{escape(v.floor)}'
                if v.ratio is not None else f'<td colspan="4" class="dim left">{escape(v.why)}')
             for v in verdicts if v.why != bars.NOT_RUN]
    return (f"<div class=wide><table><tr><th>bar<th class=left>claim<th><th>ratio<th>ringpool<th>against<th>the machine's floor{''.join(lines)}"
            "</table></div>")


def page(machine, skipped, results, tables, verdicts):
    colour = charts.Colours()
    sections = []
    for title, about, groups in SECTIONS:
        drawn = "".join(bar_chart(row, tables[row["row"]], colour) for row in of_groups(results, groups))
        if drawn:
            sections.append(f'<h2>{title}</h2><p class="dim">{about}</p><div class="charts">{drawn}</div>')
    latency, growth = "".join(latency_charts(results, tables, colour)), "".join(growth_charts(tables, colour))
    if latency:
        sections.insert(1, f'<h2>Latency</h2><p class="dim">From submit to the task\'s first instruction (wake), or until '
                           f'it is known to be done (roundtrip). The nearest {CURVES_MOST}.</p>'
                           f'<div class="charts">{latency}</div>')
    if growth:
        sections.insert(2, f'<h2>Growth</h2><div class="charts">{growth}</div>')
    absent = "".join(f"<br>Not here: {escape(line)}." for line in skipped)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ringpool beside other pools</title><style>{STYLE}</style>
<h1>ringpool beside other pools</h1>
<p>{escape(machine['processor'])}, {machine['cpus']} CPUs, Linux {escape(machine['kernel'])},
{escape(machine['date'])}, load {machine['load']:.2f} at the beginning.</p>
<p class="dim">All programs of a row ran in turn, several rounds: medians; thin lines and brackets are least to greatest,
which also appear under the pointer.{absent}</p>
{glance_table(results, tables)}{''.join(sections)}
<h2>The bars</h2>{bars_table(verdicts)}
<h2>All figures</h2>{''.join(figures_table(row, tables[row['row']]) for row in results)}
</html>
"""
