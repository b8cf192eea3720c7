"""Charts as inline SVG: bars with whiskers, and curves over a logarithmic height. Colours are CSS variables of the page."""
import math
from html import escape

HUES = (210, 25, 140, 280, 350, 55, 175, 320, 95, 240, 5, 190, 115, 300, 40)
DASHES = ("", "6 3", "2 3", "8 3 2 3")


def number(value):
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(math.floor(math.log10(abs(value)))))
    return f"{value:,.{min(digits, 4)}f}"


def tick(value):
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def is_ours(name):
    return name.startswith("ringpool")


class Colours:
    """A program has the same colour everywhere; ours are of the page's accent."""

    def __init__(self):
        self.seen = {}

    def __call__(self, name):
        if is_ours(name):
            return "var(--accent)" if name == "ringpool" else "var(--variant)"
        hue = HUES[self.place(name) % len(HUES)]
        return f"hsl({hue} 60% var(--l))"

    def place(self, name):
        return self.seen.setdefault(name, len(self.seen))

    def dash(self, name):
        dash = "" if name == "ringpool" else DASHES[self.place(name) // (1 if is_ours(name) else 4) % len(DASHES)]
        return f' stroke-dasharray="{dash}"' if dash else ""


def nice_step(most):
    """A step of 1, 2 or 5 times a power of ten that gives about four of them."""
    size = 10 ** math.floor(math.log10(most / 4))
    return next(size * k for k in (1, 2, 5, 10) if most / (size * k) <= 5)


def figure(caption, width, height, parts):
    return (f'<figure><figcaption>{escape(caption)}</figcaption><svg viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{escape(caption)}">{"".join(parts)}</svg></figure>')


def text(x, y, words, anchor="start", kind=""):
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def bars(caption, unit, values, colour):
    """values: [(name, median, least, greatest), ...] from above to below."""
    width, label, right, height, foot = 470, 118, 62, 20, 34
    most = max(v[3] for v in values) or 1
    step = nice_step(most)
    x = lambda value: label + value / most * (width - label - right)
    bottom = len(values) * height + 2
    parts = []
    for k in range(int(most / step) + 1):
        at = x(k * step)
        parts.append(f'<path d="M{at:.1f} 0V{bottom}" stroke="var(--line)"/>'
                     + text(at, bottom + 14, tick(round(k * step, 12)), "middle", "dim"))
    parts.append(text((label + width - right) / 2, bottom + 29, unit, "middle", "dim"))
    for i, (name, median, least, greatest) in enumerate(values):
        y = i * height
        title = f"{name}: {number(median)} ({number(least)} .. {number(greatest)}) {unit}"
        parts.append(text(label - 6, y + 14, name, "end", "us" if is_ours(name) else "")
                     + f'<rect x="{label}" y="{y + 3}" width="{max(x(median) - label, 1):.1f}" height="14" rx="2" '
                     f'fill="{colour(name)}"><title>{escape(title)}</title></rect>'
                     f'<path d="M{x(least):.1f} {y + 6}v8M{x(least):.1f} {y + 10}H{x(greatest):.1f}M{x(greatest):.1f} '
                     f'{y + 6}v8" stroke="var(--ink)" fill="none"/>'
                     + text(x(greatest) + 5, y + 14, number(median)))
    return figure(caption, width, bottom + foot, parts)


def curves(caption, xlabel, ylabel, ticks, lines, colour):
    """ticks: labels at equal distances along x; lines: {name: [value or None, ...]}, one for each tick."""
    flat = [v for values in lines.values() for v in values if v]
    if not flat:
        return ""
    width, left, legend, top, foot = 470, 58, 128, 8, 40
    height = max(250, len(lines) * 17 + 16)
    low, high = math.floor(math.log10(min(flat))), math.ceil(math.log10(max(flat)))
    high = max(high, low + 1)
    right, bottom = width - legend, height - foot
    x = lambda i: left + 8 + i * (right - left - 16) / max(1, len(ticks) - 1)
    y = lambda v: bottom - (math.log10(v) - low) / (high - low) * (bottom - top)
    parts = []
    for decade in range(low, high + 1):
        at = y(10 ** decade)
        parts.append(f'<path d="M{left} {at:.1f}H{right}" stroke="var(--line)"/>'
                     + text(left - 6, at + 4, tick(10 ** decade), "end", "dim"))
        if decade < high and high - low <= 3:
            parts += [f'<path d="M{left} {y(k * 10 ** decade):.1f}H{right}" stroke="var(--line)" stroke-width=".4"/>'
                      for k in (2, 5)]
    parts += [text(x(i), bottom + 16, label, "middle", "dim") for i, label in enumerate(ticks)]
    parts.append(text((left + right) / 2, bottom + 34, xlabel, "middle", "dim"))
    middle = (top + bottom) / 2
    parts.append(f'<g transform="rotate(-90 12 {middle:.1f})">{text(12, middle, ylabel, "middle", "dim")}</g>')
    for i, (name, values) in enumerate(lines.items()):
        points = [(x(k), y(v)) for k, v in enumerate(values) if v]
        thick = 3 if name == "ringpool" else 2 if is_ours(name) else 1.4
        said = ", ".join(f"{label} {number(v)}" for label, v in zip(ticks, values) if v)
        parts.append(f'<g><title>{escape(name)}: {escape(said)}</title><polyline fill="none" stroke="{colour(name)}" '
                     f'stroke-width="{thick}"{colour.dash(name)} points="'
                     + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '"/>'
                     + "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour(name)}"/>' for a, b in points)
                     + "</g>")
        at = i * 17 + 12
        parts.append(f'<path d="M{right + 8} {at}h20" stroke="{colour(name)}" stroke-width="{thick}"'
                     f'{colour.dash(name)}/>' + text(right + 33, at + 4, name, "start", "us" if is_ours(name) else ""))
    return figure(caption, width, height, parts)
