"""report.html: one file without scripts or anything from elsewhere, with inline SVG, light or dark as the reader likes.

Throughput as bars, one chart a shape; latency as curves over the percentile; CPU time of an empty task over the number
of workers; then the bars and every figure as tables.
"""
import math
from html import escape

import bars

HUES = (210, 25, 140, 280, 350, 60, 175, 320, 95, 240, 5, 190)

STYLE = """
:root { color-scheme: light dark; --ink: #222; --dim: #667; --paper: #fff; --line: #ddd; --l: 42%; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --dim: #99a; --paper: #16181d; --line: #33363f; --l: 65%; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { font-weight: 600; } .dim, text.dim { color: var(--dim); fill: var(--dim); }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; } figcaption { font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
td, th { text-align: right; padding: .15rem .7rem; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; } .us { font-weight: 700; }
.holds { color: hsl(140 60% var(--l)); } .fails { color: hsl(0 70% var(--l)); font-weight: 700; }
"""


def number(value):
    if value == 0:
        return "0"
    digits = max(0, 2 - int(math.floor(math.log10(abs(value)))))
    return f"{value:,.{min(digits, 4)}f}"


class Colours:
    """The same program has the same colour everywhere."""

    def __init__(self):
        self.seen = {}

    def __call__(self, name):
        hue = HUES[self.seen.setdefault(name, len(self.seen)) % len(HUES)]
        return f"hsl({hue} 65% var(--l))"


def bar_chart(row, table, colour):
    figure, scale = row["figure"], row["scale"]
    values = [(name, *(v * scale for v in t[figure])) for name, t in table.items() if figure in t]
    values.sort(key=lambda v: v[1], reverse=row["more_is_better"])
    if not values:
        return ""
    width, label, height = 460, 120, 20
    most = max(v[3] for v in values) or 1
    x = lambda value: label + value / most * (width - label - 70)
    parts = []
    for i, (name, median, least, greatest) in enumerate(values):
        y = i * height
        weight = ' class="us"' if name.startswith("ringpool") else ""
        parts.append(f'<text x="{label - 6}" y="{y + 14}" text-anchor="end"{weight}>{escape(name)}</text>'
                     f'<rect x="{label}" y="{y + 3}" width="{max(x(median) - label, 1):.1f}" height="14" rx="2" '
                     f'fill="{colour(name)}"><title>{escape(name)}: {number(least)} .. {number(greatest)}</title>'
                     f'</rect>'
                     f'<path d="M{x(least):.1f} {y + 10}H{x(greatest):.1f}" stroke="var(--ink)"/>'
                     f'<text x="{x(greatest) + 5:.1f}" y="{y + 14}">{number(median)}</text>')
    caption = f"{escape(row['row'])}, {escape(row['figure'])} {escape(row['unit'])}"
    return (f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {width} {len(values) * height}" '
            f'width="{width}" role="img" aria-label="{caption}">{"".join(parts)}</svg></figure>')


def line_chart(title, ticks, lines, colour, unit):
    """ticks: labels along x; lines: {name: [value or None, ...]}. Logarithmic upwards."""
    flat = [v for values in lines.values() for v in values if v]
    if not flat:
        return ""
    width, height, left, bottom, legend = 460, 240, 60, 24, 120
    low, high = math.floor(math.log10(min(flat))), math.ceil(math.log10(max(flat)))
    high = max(high, low + 1)
    x = lambda i: left + i * (width - left - legend) / max(1, len(ticks) - 1)
    y = lambda v: height - bottom - (math.log10(v) - low) / (high - low) * (height - bottom - 10)
    parts = []
    for decade in range(low, high + 1):
        at = y(10 ** decade)
        parts.append(f'<path d="M{left} {at:.1f}H{width - legend}" stroke="var(--line)"/>'
                     f'<text class="dim" x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{10 ** decade:g}</text>')
    parts += [f'<text class="dim" x="{x(i):.1f}" y="{height - 6}" text-anchor="middle">{escape(t)}</text>'
              for i, t in enumerate(ticks)]
    for i, (name, values) in enumerate(lines.items()):
        points = [(x(k), y(v)) for k, v in enumerate(values) if v]
        thick = 3 if name.startswith("ringpool") else 1.5
        parts.append(f'<polyline fill="none" stroke="{colour(name)}" stroke-width="{thick}" points="'
                     + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + f'"><title>{escape(name)}</title></polyline>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour(name)}"/>' for a, b in points]
        parts.append(f'<rect x="{width - legend + 8}" y="{i * 17 + 4}" width="10" height="10" fill="{colour(name)}"/>'
                     f'<text x="{width - legend + 22}" y="{i * 17 + 13}">{escape(name)}</text>')
    height = max(height, len(lines) * 17 + 8)
    caption = f"{escape(title)}, {escape(unit)}"
    return (f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {width} {height}" width="{width}" '
            f'role="img" aria-label="{caption}">{"".join(parts)}</svg></figure>')


def latency_charts(results, tables, colour):
    figures = (("p50_us", "p50"), ("p90_us", "p90"), ("p99_us", "p99"), ("p999_us", "p99.9"), ("max_us", "max"))
    for row in results:
        if row["row"].startswith(("wake", "roundtrip")):
            lines = {name: [t.get(f, (None,))[0] for f, _ in figures]
                     for name, t in tables[row["row"]].items() if t}
            yield line_chart(row["row"], [label for _, label in figures], lines, colour, "us")


def cost_chart(tables, colour):
    counts = (1, 2, 16, 1000, 10000)
    lines = {}
    for i, workers in enumerate(counts):
        for row in (f"throughput 1/{workers}", f"growth 1/{workers}"):
            for name, table in tables.get(row, {}).items():
                if "cpu_ns_per_task" in table:
                    lines.setdefault(name, [None] * len(counts))[i] = table["cpu_ns_per_task"][0]
    return line_chart("CPU time of an empty task over the number of workers", [str(n) for n in counts], lines, colour,
                      "ns")


def figures_table(row, table):
    figures = []
    for t in table.values():
        figures += [f for f in t if f not in figures]
    if not figures:
        return ""
    out = [f"<h3>{escape(row['row'])}</h3><p class=dim>{escape(' '.join(row['args']))}</p><table><tr><th>"]
    out += [f"<th>{escape(f)}" for f in figures]
    for name, t in table.items():
        out.append(f'<tr><td{" class=us" if name.startswith("ringpool") else ""}>{escape(name)}')
        if not t:
            failed = next((run["failed"] for run in row["runs"][name] if "failed" in run), "no figure")
            out.append(f'<td colspan="{len(figures)}" class="dim">{escape(failed)}')
            continue
        for f in figures:
            median, least, most = t.get(f, (None, None, None))
            out.append("<td>" if median is None else
                       f'<td title="{number(least)} .. {number(most)}">{number(median)}')
    return "".join(out) + "</table>"


def bars_table(verdicts):
    kind = {True: "holds", False: "fails", None: "dim"}
    lines = [f'<tr><td>{escape(v.bar)}: {escape(v.claim)}<td class="{kind[v.holds]}">{bars.word(v)}'
             + (f'<td>{v.ratio:.3g}<td>{escape(v.ours)}<td>{escape(v.other)}' if v.ratio is not None
                else f'<td colspan="3" class="dim">{escape(v.why)}') for v in verdicts]
    return f"<table><tr><th>bar<th><th>ratio<th>ringpool<th>against{''.join(lines)}</table>"


def page(machine, skipped, results, tables, verdicts):
    colour = Colours()
    colour("ringpool")
    throughput = "".join(bar_chart(row, tables[row["row"]], colour) for row in results
                         if not row["row"].startswith(("wake", "roundtrip")))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ringpool beside other pools</title><style>{STYLE}</style>
<h1>ringpool beside other pools</h1>
<p>{escape(machine['processor'])}, {machine['cpus']} CPUs, Linux {escape(machine['kernel'])}, load
{machine['load']:.2f} at the beginning, {escape(machine['date'])}. Medians of interleaved rounds; the thin
line, and the text that appears under the pointer, is least .. greatest.</p>
<h2>Throughput, work, cost</h2><div class="charts">{throughput}{cost_chart(tables, colour)}</div>
<h2>Latency</h2><div class="charts">{''.join(latency_charts(results, tables, colour))}</div>
<h2>The bars</h2>{bars_table(verdicts)}
<h2>All figures</h2>{''.join(figures_table(row, tables[row['row']]) for row in results)}
</html>
"""
