"""How a run stands, as lines for a terminal. Pure: a document of `rl_hooks.standing` in, text out."""

from collections.abc import Mapping
from typing import Any

UNKNOWN = "-"

_HEAD = ("service", "latency", "p95", "failed", "req/s", "in flight", "cpu", "queue", "action", "propensity", "reward")
_WIDTHS = (-17, 7, 7, 6, 6, 9, 4, 5, -17, 10, 6)  # negative: to the left


def lines_of(now: Mapping[str, Any]) -> list[str]:
    """All facts, a dozen lines. Nothing in them moves a cursor, whatever the names are that files and users chose."""
    lines = [_first(now), *_facts(now), _row(_HEAD), *(_row(_service(one)) for one in now["services"])]
    return [printable(line) for line in lines]


def printable(text: str) -> str:
    """
    >>> printable("cart\\x1b[2Jservice")
    'cart?[2Jservice'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def _first(now: Mapping[str, Any]) -> str:
    left_s = now["duration_s"] - now["run_time_s"]
    left = f", {clock(left_s)} left" if now["state"] == "running" else ""
    at = f"{clock(now['run_time_s'])} of {clock(now['duration_s'])}{left}"
    return f"{now['run']}  {now['state']}  {at}  {now['phase'] or ''}".rstrip()


def _facts(now: Mapping[str, Any]) -> list[str]:
    counts, reward = now["counts"], now["reward"]
    users = [f"{one['profile']} {one['running']} of {one['planned']}" for one in now["users"]]
    running, planned = (sum(one[name] for one in now["users"]) for name in ("running", "planned"))
    failed = _failed(counts)
    lost = "known when the run has ended" if counts["rows_lost"] is None else str(counts["rows_lost"])
    rate_rps = sum(one["request_rate_rps"] or 0.0 for one in now["services"])
    missed = f", {counts['skipped']} intervals missed" if counts["skipped"] else ""
    without = f"(without {', '.join(reward['without'])})"
    nothing = "no decision is settled yet" if now["state"] == "running" else "not known"
    so_far = nothing if reward["mean"] is None else f"{reward['mean']:.3f} {without}"
    age = now["telemetry_age_s"]
    return [
        f"users      {running} of {planned}: {', '.join(users) or 'nobody'}",
        f"requests   {counts['requests']} recorded, {rate_rps:.1f}/s, {failed}; rows lost: {lost}",
        f"decisions  {counts['decisions']} recorded{missed}; reward so far: {so_far}",
        f"telemetry  {'no metrics' if age is None else f'{age:.1f} s old'}; traffic: {now['pattern'] or 'not known'}",
        f"faults     {', '.join(now['faults']) or 'none in force'}",
        *([f"trouble    {now['trouble']}"] if now["trouble"] else []),
    ]


def _failed(counts: Mapping[str, Any]) -> str:
    if not counts["requests"]:
        return "none yet"
    if counts["failed"] is None:
        return "how many failed is not known here"
    return f"{100 * counts['failed'] / counts['requests']:.2f} % failed"


def _service(one: Mapping[str, Any]) -> tuple[str, ...]:
    applied = "" if one["actuated"] in (True, None) else " (not applied)"
    return (
        one["service"],
        _known(one["latency_ms"], "{:.0f} ms"),
        _known(one["p95_ms"], "{:.0f} ms"),
        _known(one["error_rate"], "{:.1%}"),
        _known(one["request_rate_rps"], "{:.1f}"),
        _known(one["in_flight"], "{:.0f}"),
        _known(one["cpu"], "{:.0%}"),
        _known(one["queue"], "{:.0f}"),
        f"{one['action'] or UNKNOWN}{applied}",
        _known(one["propensity"], "{:.3f}"),
        _known(one["reward"], "{:.3f}"),
    )


def _row(cells: tuple[str, ...]) -> str:
    padded = (f"{c:<{-width}}" if width < 0 else f"{c:>{width}}" for c, width in zip(cells, _WIDTHS, strict=True))
    return "  ".join(padded).rstrip()


def _known(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else form.format(value)


def clock(seconds: float) -> str:
    """
    >>> clock(75.9), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
