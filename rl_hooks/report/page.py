"""The HTML of a report card: one file without scripts and without anything to load, read from top to bottom."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rl_hooks.report.judge import ReportCard
from rl_hooks.report.pictures import Picture
from rl_hooks.report.svg import escape
from rl_hooks.report.verdict import EXIT_CODES, Check, Fitness, Verdict

_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1f24; --soft: #57606a; --rule: #d0d7de; --panel: #f6f8fa;
  --c1: #0b62c4; --c2: #b35900; --c3: #c2255c; --c4: #1a7f37; --c5: #6639ba; --c6: #0a7280; --heat: #4a90d9;
  --pass: #1a7f37; --warn: #8a5a00; --fail: #b3121d; --fault: #d1242f; --phase: #57606a; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171c; --text: #e8ebef; --soft: #a3adb8; --rule: #3a424d; --panel: #1d2229;
    --c1: #6cb0ff; --c2: #ffa657; --c3: #ff7b9c; --c4: #56d364; --c5: #c297ff; --c6: #5ad4e0; --heat: #2f6fc0;
    --pass: #56d364; --warn: #e3b341; --fail: #ff7b72; --fault: #ff7b72; --phase: #a3adb8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 68rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .4rem 0; }
.verdict { margin: 1rem 0; padding: 1rem 1.25rem; background: var(--panel); border-left: .5rem solid var(--soft); }
.verdict strong { display: block; font-size: 1.6rem; line-height: 1.25; }
.verdict.good { border-color: var(--pass); } .verdict.demo { border-color: var(--warn); }
.verdict.bad { border-color: var(--fail); }
.verdict li { margin: .25rem 0; } .verdict ul { margin: .4rem 0 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--rule); }
thead th { border-bottom: 2px solid var(--rule); } tbody th { font-weight: 600; }
td small, .limits { color: var(--soft); font-size: .82rem; }
td { overflow-wrap: anywhere; }
.facts th { width: 15rem; } .checks th:nth-child(1) { width: 16rem; } .checks th:nth-child(2) { width: 8rem; }
.limits { font-weight: 400; }
.mark-pass, .mark-warn, .mark-fail, .mark-none { font-weight: 700; white-space: nowrap; }
.mark-pass { color: var(--pass); } .mark-warn { color: var(--warn); } .mark-fail { color: var(--fail); }
.mark-none { color: var(--soft); font-weight: 400; }
figure { margin: 1.6rem 0; } figcaption { margin: .1rem 0 .5rem; color: var(--soft); font-size: .92rem; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
svg text { fill: var(--text); } svg .tick, svg .phase-name { fill: var(--soft); font-size: 11px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 .3rem; padding: 0; list-style: none;
  font-size: .85rem; }
.legend i { display: inline-block; width: 1.4rem; height: .55rem; margin-right: .4rem; vertical-align: .05rem; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.dashed { stroke-dasharray: 6 4; }
.line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); } .line.c3 { stroke: var(--c3); }
.line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); } .line.c6 { stroke: var(--c6); }
i.c1 { background: var(--c1); } i.c2 { background: var(--c2); } i.c3 { background: var(--c3); }
i.c4 { background: var(--c4); } i.c5 { background: var(--c5); } i.c6 { background: var(--c6); }
i.mark { background: var(--c2); } i.fault { background: var(--fault); opacity: .35; }
.grid { stroke: var(--rule); stroke-width: .7; } .axis { stroke: var(--soft); }
.mark { stroke: var(--c2); stroke-width: 2; }
.bar, .dot { fill: var(--c1); } .bad { fill: var(--fault); } .cell-frame { fill: var(--panel); stroke: var(--rule); }
.phase-a { fill: var(--phase); fill-opacity: .09; } .phase-b { fill: var(--phase); fill-opacity: .02; }
.fault { fill: var(--fault); fill-opacity: .22; }
.heat td { text-align: right; font-variant-numeric: tabular-nums;
  background: color-mix(in srgb, var(--heat) calc(var(--share) * .75), transparent); }
.heat thead th:not(:first-child) { text-align: right; }
.heat td.few { text-decoration: underline wavy var(--fail); } .heat th { font-weight: 400; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 44rem) { .facts th { width: 8rem; } .checks th:nth-child(1) { width: 8.5rem; }
  .checks th:nth-child(2) { width: 5rem; } .mark-none { white-space: normal; } }
@media print {
  :root { color-scheme: light; --back: #fff; --text: #000; --soft: #444; --rule: #bbb; --panel: #f4f4f4;
    --c1: #0b62c4; --c2: #b35900; --c3: #c2255c; --c4: #1a7f37; --c5: #6639ba; --c6: #0a7280; --heat: #4a90d9;
    --pass: #1a7f37; --warn: #8a5a00; --fail: #b3121d; --fault: #d1242f; --phase: #57606a; }
  body { max-width: none; padding: 0; font-size: 11pt; } figure, tr, .verdict { break-inside: avoid; }
  h2 { break-after: avoid; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

# Nothing may be loaded and nothing may run, whatever a name in the data looks like.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_MARKS = {
    Verdict.PASS: ("mark-pass", "\N{CHECK MARK} pass"),
    Verdict.WARN: ("mark-warn", "! warn"),
    Verdict.FAIL: ("mark-fail", "\N{MULTIPLICATION SIGN} fail"),
    Verdict.NOT_APPLICABLE: ("mark-none", "not applicable"),
}

_ORDER = (Verdict.FAIL, Verdict.WARN, Verdict.PASS, Verdict.NOT_APPLICABLE)


def page(card: ReportCard, drawn: Sequence[Picture]) -> str:
    """The whole file."""
    facts = card.case.evidence.facts
    scenarios = " and ".join(sorted({str(run["scenario"]) for run in facts["runs"]}))
    title = f"Report card: {scenarios}"
    body = [
        f"<header><h1>{escape(title)}</h1></header>",
        "<main>",
        *_verdict(card),
        "<h2>The data</h2>",
        *_facts(card),
        "<h2>Checks</h2>",
        *_checks(card.checks),
        "<h2>Pictures</h2>",
        *(line for picture in drawn for line in _figure(picture)),
        "</main>",
        _footer(card),
    ]
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(lines) + "\n"


def _footer(card: ReportCard) -> str:
    made_by, origin = card.case.evidence.facts["made_by"], card.case.evidence.origin
    text = f"Made by {made_by['name']} {made_by['version']} from {origin}. For programs: report_card.json."
    return f"<footer>{escape(text)}</footer>"


def _verdict(card: ReportCard) -> Iterator[str]:
    overall = card.overall
    good = EXIT_CODES[overall.fitness] == 0
    short = (Fitness.DEMONSTRATION, Fitness.UNJUDGED)
    style = "bad" if not good else "demo" if overall.fitness in short else "good"
    yield f'<section class="verdict {style}" aria-label="Verdict">'
    yield f"<strong>{escape(overall.fitness[0].upper() + overall.fitness[1:])}</strong>"
    yield f"<p>{escape(overall.sentence)}</p>"
    decided = [check for check in card.checks if check.name in overall.decided_by]
    if decided:
        yield "<ul>"
        for check in decided:
            yield f"<li>{_mark(check.finding.verdict)} <b>{escape(check.title)}.</b> {escape(check.finding.found)}</li>"
        yield "</ul>"
    yield "</section>"


def _facts(card: ReportCard) -> Iterator[str]:
    facts = card.case.evidence.facts
    counts = facts["counts"]
    parts = ", ".join(f"{name} {number}" for name, number in counts["transitions"].items())
    excluded = ", ".join(f"{row['rows']} {name}" for name, row in counts["excluded"].items() if row["rows"])
    rows: dict[str, str] = {"runs": ", ".join(_run(run) for run in facts["runs"])}
    rows["scenario"] = ", ".join(sorted({str(run["scenario"]) for run in facts["runs"]}))
    rows["requests"] = str(sum(int(run["requests"]) for run in facts["runs"]))
    rows["sessions"] = str(sum(int(run["sessions_by_outcome"]["sessions"]) for run in facts["runs"]))
    not_applied = f"; {counts['not_applied']} could not be applied" if counts.get("not_applied") else ""
    rows["decisions"] = f"{counts['decisions']}, every {facts['decision_interval_s']:g} s for each service{not_applied}"
    rows["transitions"] = parts + (f" ({excluded})" if excluded else "")
    rows["reward"] = ", ".join(f"{name} {weight:g}" for name, weight in facts["reward_weights"].items())
    rows["logging policy"] = _each(facts["runs"], "logging_policy")
    rows["balancer, metrics, actuator"] = "; ".join(
        _each(facts["runs"], key) for key in ("balancer", "source", "actuator")
    )
    rows["seed, time scale, user scale"] = "; ".join(
        _each(facts["runs"], key) for key in ("seed", "time_scale", "user_scale")
    )
    rows["target"] = _each(facts["runs"], "target")
    yield '<div class="wide"><table class="facts"><tbody>'
    for name, text in rows.items():
        yield f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
    yield "</tbody></table></div>"


def _run(run: Mapping[str, Any]) -> str:
    compressed = ", compressed" if run.get("compressed") else ""
    compressed += ", in virtual time" if run.get("virtual") else ""
    return f"{run['run_id']} ({run['state']}{compressed})"


def _each(runs: Sequence[Mapping[str, Any]], key: str) -> str:
    values = dict.fromkeys(run.get(key) for run in runs)
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    yield '<div class="wide"><table class="checks">'
    yield '<thead><tr><th scope="col">check</th><th scope="col">verdict</th><th scope="col">found</th></tr></thead>'
    yield "<tbody>"
    for check in sorted(checks, key=lambda check: _ORDER.index(check.finding.verdict)):
        finding = check.finding
        size = "<br><small>by size alone</small>" if finding.too_small and finding.verdict is Verdict.FAIL else ""
        found = finding.found[0].upper() + finding.found[1:]
        yield (
            f'<tr><th scope="row">{escape(check.title)}<br><span class="limits">{escape(check.name)}</span></th>'
            f"<td>{_mark(finding.verdict)}{size}</td><td>{escape(found)}<br><small>{escape(check.meaning)}</small>"
            f'<br><span class="limits">Limits: {escape(check.threshold)}.</span></td></tr>'
        )
    yield "</tbody></table></div>"


def _mark(verdict: Verdict) -> str:
    style, text = _MARKS[verdict]
    return f'<span class="{style}">{text}</span>'


def _figure(picture: Picture) -> Iterator[str]:
    yield f"<figure><h3>{escape(picture.title)}</h3><figcaption>{escape(picture.caption)}</figcaption>"
    if picture.legend:
        items = "".join(f'<li><i class="{style}"></i>{escape(name)}</li>' for style, name in picture.legend)
        yield f'<ul class="legend">{items}</ul>'
    yield picture.body
    yield "</figure>"
