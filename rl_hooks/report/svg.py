"""Charts as SVG text: pure functions of numbers and names. Colours are CSS classes, so that light, dark and print
each have their own; every name that comes from data goes through `escape`."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WIDTH = 960
_LEFT, _RIGHT = 62, 12
_CHAR = 6.6  # of a 12 px label


def escape(text: object) -> str:
    """Text for HTML and SVG, also within quotes; control characters become a replacement character."""
    plain = "".join(char if char.isprintable() or char == " " else "\N{REPLACEMENT CHARACTER}" for char in str(text))
    return html.escape(plain, quote=True)


@dataclass(frozen=True)
class Band:
    """A stretch of the x axis that is shaded: a phase or a fault."""

    start: float
    end: float
    name: str
    style: str  # phase-a, phase-b or fault


@dataclass(frozen=True)
class Line:
    """One line of a panel; NaN interrupts it."""

    name: str
    style: str  # a class: c1, c2 ... ; "dashed" may follow
    x: Array
    y: Array


@dataclass(frozen=True)
class Panel:
    """One plot of a stack that shares the x axis."""

    title: str
    lines: Sequence[Line]
    unit: str = ""
    top: float | None = None  # of the y axis; None: from the data
    log: bool = False
    height: int = 96
    bands: Sequence[Band] = ()  # beside those of all panels


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high.

    >>> ticks(0, 90)
    [0, 20, 40, 60, 80]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def stack(label: str, panels: Sequence[Panel], x_end: float, bands: Sequence[Band], x_unit: str) -> str:
    """Panels above each other with one x axis from 0 to `x_end`; `bands` of all of them are named above the first."""
    x = _scale(0, max(x_end, 1e-9), _LEFT, WIDTH - _RIGHT)
    parts, y = [], 20
    parts += [_band_name(band, x) for band in bands]
    for panel in panels:
        parts += [_shade(band, x, y + 16, panel.height) for band in (*bands, *panel.bands)]
        parts += _panel(panel, x, y + 16)
        y += panel.height + 26
    y += 4
    parts += [_x_tick(x(tick), y + 8, tick) for tick in ticks(0, x_end, 9)]
    parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{y + 24}" text-anchor="end">{escape(x_unit)}</text>')
    return figure(label, parts, y + 30)


def figure(label: str, parts: Sequence[str], height: float, width: float = WIDTH) -> str:
    """An SVG element that says what it shows to who cannot see it."""
    opening = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return "\n".join([opening, f"<title>{escape(label)}</title>", *parts, "</svg>"])


def _panel(panel: Panel, x: Callable[[float], float], top: float) -> list[str]:
    known = np.concatenate([line.y[np.isfinite(line.y)] for line in panel.lines] or [np.empty(0)])
    bottom = top + panel.height
    if panel.log:
        known = known[known > 0]
        low = 10 ** math.floor(math.log10(known.min())) if len(known) else 1.0
        high = max(10 ** math.ceil(math.log10(known.max())) if len(known) else 10.0, low * 10)
        y = _log_scale(low, high, bottom, top)
        marks = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    else:
        low, high = 0.0, panel.top if panel.top is not None else float(known.max()) * 1.05 if len(known) else 1.0
        high = high if high > 0 else 1.0
        y = _scale(low, high, bottom, top)
        marks = ticks(low, high, 3)
    parts = [f'<text class="label" x="{_LEFT}" y="{top - 4}">{escape(panel.title)}</text>']
    for mark in marks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        text = f"{mark:g}{panel.unit}"
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    floor = low if panel.log else None
    parts += [f'<path class="line {line.style}" d="{_path(line, x, y, floor)}"/>' for line in panel.lines]
    return parts


def _path(line: Line, x: Callable[[float], float], y: Callable[[float], float], floor: float | None) -> str:
    parts, pen_down = [], False
    for at, value in zip(line.x.tolist(), line.y.tolist(), strict=True):
        if not math.isfinite(value):
            pen_down = False
            continue
        height = y(value if floor is None else max(value, floor))
        # A point between two gaps would not be seen without a stroke of its own.
        parts.append(f"L{x(at):.1f} {height:.1f}" if pen_down else f"M{x(at):.1f} {height:.1f}h0.1")
        pen_down = True
    return "".join(parts)


def _shade(band: Band, x: Callable[[float], float], top: float, height: float) -> str:
    width = max(x(band.end) - x(band.start), 1.0)
    place = f'x="{x(band.start):.1f}" y="{top}" width="{width:.1f}" height="{height}"'
    return f'<rect class="{band.style}" {place}><title>{escape(band.name)}</title></rect>'


def _band_name(band: Band, x: Callable[[float], float]) -> str:
    text = fit(band.name, x(band.end) - x(band.start) - 6)
    return f'<text class="phase-name" x="{x(band.start) + 3:.1f}" y="13">{escape(text)}</text>' if text else ""


def fit(text: str, width: float) -> str:
    """`text`, cut to about that many pixels; "" where not even a few letters have room.

    >>> fit("lunch_hour_shopping", 80)
    'lunch_hour_…'
    """
    letters = int(width / _CHAR)
    if len(text) <= letters:
        return text
    return f"{text[: letters - 1]}…" if letters >= 3 else ""


def histograms(label: str, groups: Sequence[tuple[str, Array]], bins: int = 40, columns: int = 3) -> str:
    """One histogram of values from 0 to 1 per group, all with the same y axis; the mean is marked."""
    width, height, gap = (WIDTH - _LEFT) / columns, 110, 44
    counts = [np.histogram(values, bins, (0, 1))[0] / max(1, len(values)) for _, values in groups]
    high = max((float(count.max()) for count in counts if len(count)), default=0.0) or 1.0
    parts = []
    for number, ((name, values), count) in enumerate(zip(groups, counts, strict=True)):
        left, top = 8 + number % columns * (width + 16), 22 + number // columns * (height + gap)
        x, y = _scale(0, 1, left, left + width), _scale(0, high, top + height, top)
        head = f"{name}: {len(values)}" + (f", mean {values.mean():.3f}" if len(values) else "")
        parts.append(f'<text class="label" x="{left:.1f}" y="{top - 6}">{escape(head)}</text>')
        for place, share in enumerate(count.tolist()):
            if share:
                box = f'x="{x(place / bins):.1f}" y="{y(share):.1f}" width="{width / bins - 0.6:.1f}"'
                parts.append(f'<rect class="bar" {box} height="{top + height - y(share):.1f}"/>')
        base = top + height
        parts.append(f'<line class="axis" x1="{left:.1f}" x2="{left + width:.1f}" y1="{base}" y2="{base}"/>')
        if len(values):
            mean = x(float(values.mean()))
            parts.append(f'<line class="mark" x1="{mean:.1f}" x2="{mean:.1f}" y1="{top}" y2="{base}"/>')
        parts += [_x_tick(x(tick), base + 14, tick) for tick in (0, 0.25, 0.5, 0.75, 1)]
    rows = -(-len(groups) // columns)
    return figure(label, parts, 22 + rows * (height + gap), WIDTH)


@dataclass(frozen=True)
class Dot:
    """A measured share with its interval beside what it should be."""

    name: str
    value: float
    low: float
    high: float
    expected: float


def dots(label: str, rows: Sequence[Dot]) -> str:
    """Each row a dot with its interval and a tick where it should be."""
    left, height = 220, 26
    high = max([max(row.high, row.expected) for row in rows], default=1.0) * 1.08 or 1.0
    x = _scale(0, high, left, WIDTH - _RIGHT)
    bottom = 8 + len(rows) * height
    parts = []
    for tick in ticks(0, high, 8):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{bottom}"/>')
        parts.append(_x_tick(x(tick), bottom + 16, tick))
    for number, row in enumerate(rows):
        y = 8 + (number + 0.5) * height
        name = escape(fit(row.name, left - 14))
        parts.append(f'<text class="label" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        ends = f'x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="line c1" {ends}/>')
        parts.append(f'<circle class="dot" cx="{x(row.value):.1f}" cy="{y:.1f}" r="4"/>')
        place = x(row.expected)
        parts.append(f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}"/>')
    return figure(label, parts, bottom + 22)


def bars(label: str, rows: Sequence[tuple[str, float | None, str]], unit: str) -> str:
    """Horizontal bars of (name, length or None, what is written beside it)."""
    left, right, height = 420, 90, 24
    longest = max([length for _, length, _ in rows if length is not None], default=0.0) or 1.0
    x = _scale(0, longest, left, WIDTH - right)
    parts = []
    for number, (name, length, text) in enumerate(rows):
        y = 6 + number * height
        parts.append(
            f'<text class="label" x="{left - 10}" y="{y + 15}" text-anchor="end">{escape(fit(name, left - 14))}</text>'
        )
        end = x(length) if length is not None else left
        if length is not None:
            width = max(end - left, 2)
            parts.append(f'<rect class="bar" x="{left}" y="{y + 3}" width="{width:.1f}" height="{height - 8}"/>')
        parts.append(f'<text class="tick" x="{end + 6:.1f}" y="{y + 15}">{escape(text)}</text>')
    bottom = 6 + len(rows) * height
    parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{bottom + 14}" text-anchor="end">{escape(unit)}</text>')
    return figure(label, parts, bottom + 20)


def strip(label: str, rows: Sequence[str], values: Array, x_end: float, x_unit: str) -> str:
    """A heat map over time: (rows, points) of shares; NaN, where there is nothing, stays empty."""
    left, height = 150, 22
    width = (WIDTH - _RIGHT - left) / max(1, values.shape[1])
    parts = []
    for number, name in enumerate(rows):
        y = 4 + number * height
        parts.append(
            f'<text class="label" x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(fit(name, left - 10))}</text>'
        )
        frame = f'x="{left}" y="{y}" width="{WIDTH - _RIGHT - left}" height="{height - 3}"'
        parts.append(f'<rect class="cell-frame" {frame}/>')
        for place, value in enumerate(values[number].tolist()):
            if value > 0:
                box = f'x="{left + place * width:.1f}" y="{y}" width="{width + 0.2:.1f}" height="{height - 3}"'
                parts.append(f'<rect class="bad" {box} fill-opacity="{0.15 + 0.85 * value:.2f}"/>')
    bottom = 4 + len(rows) * height
    x = _scale(0, max(x_end, 1e-9), left, WIDTH - _RIGHT)
    parts += [_x_tick(x(tick), bottom + 12, tick) for tick in ticks(0, x_end, 8)]
    parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{bottom + 27}" text-anchor="end">{escape(x_unit)}</text>')
    return figure(label, parts, bottom + 32)


def _x_tick(x: float, y: float, value: float) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{value:g}</text>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (min(max(value, low), high) - low) / (high - low) * (end - start)


def _log_scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    inner = _scale(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(max(value, low)))
