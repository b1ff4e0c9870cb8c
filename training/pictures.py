"""Pictures of a comparison, as SVG files that need nothing else."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rl_hooks.report.svg import WIDTH, escape, figure, fit, ticks
from training.comparison import Comparison
from training.outcome import meaning

COLOURS = 6  # that can be told from each other; more policies take them in turn
LEFT, RIGHT = 290, 16  # of the differences, beside the names
PANEL_LEFT, PANEL_TOP, PANEL_HEIGHT = 62, 64, 260
ROW = 30

_STYLE = """<style>
svg { background: #ffffff; font: 12px system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
text { fill: #1b1f24; } .tick, .phase-name { fill: #57606a; font-size: 11px; }
.grid { stroke: #d0d7de; stroke-width: .7; } .axis { stroke: #57606a; stroke-width: 1.2; } .line { stroke-width: 3; }
.c1 { stroke: #0b62c4; fill: #0b62c4; } .c2 { stroke: #b35900; fill: #b35900; } .c3 { stroke: #c2255c; fill: #c2255c; }
.c4 { stroke: #1a7f37; fill: #1a7f37; } .c5 { stroke: #6639ba; fill: #6639ba; } .c6 { stroke: #0a7280; fill: #0a7280; }
.fault { fill: #d1242f; fill-opacity: .14; } .phase { stroke: #57606a; stroke-dasharray: 3 3; stroke-width: .8; }
</style>"""


def differences(found: Comparison, measure: str) -> str:
    """How far the chosen policy is from each other one in a measure, with 95 % intervals; 0 is marked."""
    known = {other: row[measure] for other, row in found.differences.items() if row[measure].is_known}
    ends = [0.0, *(end for one in known.values() for end in (one.low, one.high))]
    x = _scale(*_room(min(ends), max(ends)), LEFT, WIDTH - RIGHT)
    bottom = 34 + ROW * len(found.differences)
    parts = [f'<text x="12" y="18">{escape(fit(_title(found, measure), WIDTH - 24))}</text>']
    for tick in ticks(*_room(min(ends), max(ends)), 6):
        parts.append(_line("grid", x(tick), x(tick), 28, bottom))
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{_signed(tick)}</text>'
        )
    parts.append(_line("axis", x(0), x(0), 28, bottom))
    for number, other in enumerate(found.differences):
        y = 34 + (number + 0.5) * ROW
        name = escape(fit(f"less {other}", LEFT - 20))
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        if other in known:
            one, style = known[other], colour(list(found.values).index(other))
            parts.append(_line(f"line {style}", x(one.low), x(one.high), y, y))
            parts.append(f'<circle class="{style}" cx="{x(one.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        else:
            parts.append(f'<text class="tick" x="{x(0) + 8:.1f}" y="{y + 4:.1f}">cannot be told</text>')
    return standalone(_title(found, measure), parts, bottom + 26)


@dataclass(frozen=True)
class Span:
    """A block of a run. Times in minutes since the first run's start, runs one after the other."""

    policy: str
    start_min: float
    end_min: float
    value: float  # NaN: none
    begins: str  # run or phase that begins here; "" where it goes on
    fault: bool


def blocks(spans: Sequence[Span], policies: Sequence[str], measure: str) -> str:
    """The value of every block over time, in its policy's colour; faults are shaded, phases are named."""
    known = [span.value for span in spans if math.isfinite(span.value)] or [0.0]
    low, high = _room(min(known), max(known))
    bottom = PANEL_TOP + PANEL_HEIGHT
    y = _scale(low, high, bottom, PANEL_TOP)
    x = _scale(0, max(span.end_min for span in spans), PANEL_LEFT, WIDTH - RIGHT)
    title = f"{measure} per block, without its first window: {meaning(measure)[0]}"
    parts = [f'<text x="12" y="18">{escape(title)}</text>', *_legend(policies)]
    parts += [
        f'<rect class="fault" x="{x(span.start_min):.1f}" y="{PANEL_TOP}" height="{PANEL_HEIGHT}" '
        f'width="{x(span.end_min) - x(span.start_min):.1f}"/>'
        for span in spans
        if span.fault
    ]
    for tick in ticks(low, high, 5):
        parts.append(_line("grid", PANEL_LEFT, WIDTH - RIGHT, y(tick), y(tick)))
        parts.append(f'<text class="tick" x="{PANEL_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts += _beginnings(spans, x, bottom)
    for span in spans:
        if math.isfinite(span.value):
            style = colour(list(policies).index(span.policy))
            parts.append(_line(f"line {style}", x(span.start_min), x(span.end_min), y(span.value), y(span.value)))
    for tick in ticks(0, spans[-1].end_min, 8):
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{bottom + 30}" text-anchor="end">minutes</text>')
    return standalone(title, parts, bottom + 38)


def colour(number: int) -> str:
    """The class of the policy in that place."""
    return f"c{number % COLOURS + 1}"


def standalone(label: str, parts: Sequence[str], height: float) -> str:
    """A figure as a file of its own."""
    return (
        figure(label, [_STYLE, *parts], height).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
    )


def _title(found: Comparison, measure: str) -> str:
    return f"{measure} ({meaning(measure)[0]}): {found.chosen} less the others, 95 % intervals"


def _legend(policies: Sequence[str]) -> list[str]:
    wide = (WIDTH - PANEL_LEFT - RIGHT) / len(policies)
    parts = []
    for number, name in enumerate(policies):
        left = PANEL_LEFT + number * wide
        parts.append(_line(f"line {colour(number)}", left, left + 18, 32, 32))
        parts.append(f'<text x="{left + 24:.1f}" y="36">{escape(fit(name, wide - 30))}</text>')
    return parts


def _beginnings(spans: Sequence[Span], x: Callable[[float], float], bottom: float) -> list[str]:
    """Where a phase begins, with its name as far as there is room."""
    first = [span for span in spans if span.begins]
    ends = [*(span.start_min for span in first[1:]), spans[-1].end_min]
    parts = []
    for span, end_min in zip(first, ends, strict=True):
        name = fit(span.begins, x(end_min) - x(span.start_min) - 6)
        parts.append(_line("phase", x(span.start_min), x(span.start_min), PANEL_TOP - 14, bottom))
        parts.append(
            f'<text class="phase-name" x="{x(span.start_min) + 3:.1f}" y="{PANEL_TOP - 4}">{escape(name)}</text>'
        )
    return parts


def _signed(value: float) -> str:
    return f"{value:+g}" if value else "0"


def _line(style: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _room(low: float, high: float) -> tuple[float, float]:
    """A range with a little room at both ends, also where it has no width."""
    room = (high - low) * 0.06 or max(abs(high) * 0.01, 1e-6)
    return low - room, high + room
