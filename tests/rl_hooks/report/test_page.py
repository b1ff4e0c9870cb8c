"""The HTML file: nothing to load, nothing that runs, whatever names the data brings; readable without eyes."""

import doctest
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.report import stats, svg, thresholds
from rl_hooks.report.evidence import Evidence
from rl_hooks.report.judge import judge
from rl_hooks.report.page import page
from rl_hooks.report.pictures import Picture, pictures
from rl_hooks.report.svg import Band, Line, Panel
from rl_hooks.report.thresholds import Thresholds
from rl_hooks.run_reader import Run
from tests import builders
from tests.rl_hooks.report import made

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x onerror=\"boom()\">\x00\u202e&amp;"
VOID = {"meta", "link", "br", "img", "hr", "input"}
SHAPES = {"svg", "title", "text", "line", "path", "rect", "circle"}
WRITTEN = {"html", "head", "meta", "style", "body", "header", "main", "section", "footer", "figure", "figcaption"}
WRITTEN |= {"h1", "h2", "h3", "p", "strong", "b", "i", "ul", "li", "span", "small", "br", "div", *SHAPES}
WRITTEN |= {"table", "thead", "tbody", "tr", "th", "td"}


class Reader(HTMLParser):
    """All elements with their attributes, and the text; fails on what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_examples_in_docstrings_hold() -> None:
    for module in (stats, svg, thresholds):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


def html(evidence: Evidence) -> str:
    card = judge(evidence, Thresholds())
    return page(card, pictures(card.case))


@pytest.fixture(scope="module")
def full() -> str:
    """A page with every picture: faults, generator load, missing telemetry, a policy with two probabilities."""
    run = made.made_run(minutes=5, policy=made.sticky)
    return html(made.with_run(made.evidence(run), eventful(run)))


def eventful(run: Run, name: str = "") -> Run:
    fault = {"kind": "fault", "fault": 0, "service": "cart-service", "fault_kind": f"latency{name}", "phase": "morning"}
    load = {"kind": "generator", "process": f"worker{name}", "cpu": 0.5, "lag_p99_s": 0.01}
    events = (
        {"t_ns": builders.at(60), "what": "applied", **fault},
        {"t_ns": builders.at(90), "what": "lifted", **fault},
        *({"t_ns": builders.at(second), **load} for second in range(10, 100, 10)),
    )
    return replace(run, events=(*run.events, *events))


def test_every_picture_is_there(full: str) -> None:
    titles = re.findall(r"<figure><h3>(.*?)</h3>", full)
    assert titles == [
        *("Users per profile", "Response times per service", "Errors per service", "Missing telemetry"),
        *("Load generator", "Actions by phase", "Propensity against frequency", "Rewards by action", "Coverage"),
        "Recovery after faults",
    ]


def test_the_verdict_comes_first(full: str) -> None:
    text = Reader(full).text
    places = [text.index(part) for part in ("Demonstration size", "The data", "Checks", "Pictures")]
    assert places == sorted(places)


def test_nothing_is_loaded_and_nothing_runs(full: str) -> None:
    elements = Reader(full).elements
    assert {tag for tag, _ in elements} <= WRITTEN
    assert not {name for _, attributes in elements for name in attributes if name in ("src", "href", "srcset", "data")}
    assert not {name for _, attributes in elements for name in attributes if name.startswith("on")}
    style = re.findall(r"<style>(.*?)</style>", full, re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    policy = [attributes["content"] for tag, attributes in elements if "http-equiv" in attributes and tag == "meta"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_it_has_a_dark_and_a_printed_form(full: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in full
    assert "@media print" in full


def test_every_picture_says_what_it_shows_and_every_table_has_headings(full: str) -> None:
    elements = Reader(full).elements
    drawn = [attributes for tag, attributes in elements if tag == "svg"]
    assert len(drawn) == 8
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in elements if tag == "th")
    assert full.startswith('<!DOCTYPE html>\n<html lang="en">')


def test_hostile_names_are_text(full: str) -> None:
    run = made.made_run(minutes=5)
    names = {**run.names, "phase": ("", HOSTILE, "evening"), "profile": ("", HOSTILE, "careful_shopper")}
    named = replace(run, names=names)
    evidence = made.with_run(made.evidence(named), eventful(named, HOSTILE))
    facts = {**evidence.facts, "runs": [{**evidence.facts["runs"][0], "target": HOSTILE, "scenario": HOSTILE}]}
    text = html(replace(evidence, origin=HOSTILE, facts=facts))
    read, harmless = Reader(text), Reader(full)
    assert {tag for tag, _ in read.elements} == {tag for tag, _ in harmless.elements}
    assert {name for _, attributes in read.elements for name in attributes} <= {
        *(name for _, attributes in harmless.elements for name in attributes),
    }
    assert read.text.count("<script>alert('x')</script>") > 5, "it is there to be read"
    assert "\x00" not in text
    assert "\u202e" not in text, "nothing turns the direction of the text around it"


def test_every_place_for_text_is_escaped() -> None:
    card = judge(made.evidence(made.made_run(minutes=1)), Thresholds())
    finding = replace(card.checks[0].finding, found=HOSTILE)
    check = replace(card.checks[0], name=HOSTILE, title=HOSTILE, threshold=HOSTILE, meaning=HOSTILE, finding=finding)
    verdict = replace(card.overall, decided_by=(HOSTILE,), sentence=HOSTILE)
    picture = Picture(HOSTILE, HOSTILE, svg.figure(HOSTILE, [], 1), (("c1", HOSTILE),))
    read = Reader(page(replace(card, checks=(check,), overall=verdict), [picture]))
    assert not {"script", "img"} & {tag for tag, _ in read.elements}
    assert read.text.count("<script>") == 12
    assert [attributes["aria-label"] for tag, attributes in read.elements if tag == "svg"] == [
        HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    ]


def test_a_bundle_alone_has_its_pictures_too() -> None:
    evidence = replace(made.evidence(made.made_run(minutes=5)), recorded=())
    titles = re.findall(r"<figure><h3>(.*?)</h3>", html(evidence))
    assert "Response times per service" in titles
    assert "Users per profile" not in titles


def test_data_without_a_usable_step_still_makes_a_page() -> None:
    evidence = made.evidence(made.made_run(minutes=5))
    nothing = evidence.steps.assign(split=np.full(len(evidence.steps), "excluded", object))
    assert "There is no usable step" in html(replace(evidence, steps=nothing))


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3, 17, [5, 10, 15]), (5, 5, [5])]
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_a_line_ends_where_nothing_is_known() -> None:
    line = Line("a", "c1", np.arange(5.0), np.array([1.0, 2.0, np.nan, 3.0, np.nan]))
    drawn = svg.stack("a line", [Panel("p", [line])], 4, [Band(0, 2, "first", "phase-a")], "s")
    (path,) = re.findall(r'd="(.*?)"', drawn)
    assert path.count("M") == 2
    assert path.count("L") == 1


@pytest.mark.parametrize("values", [[], [np.nan], [0.0], [1e-9, 1e9]])
@pytest.mark.parametrize("log", [False, True])
def test_charts_of_nothing_and_of_extremes_hold_only_numbers(values: list[float], log: bool) -> None:
    line = Line("a", "c1", np.arange(float(len(values))), np.array(values, float))
    drawn = svg.stack("extreme", [Panel("p", [line], log=log)], 0, [], "s")
    assert "nan" not in drawn.lower().replace("extreme", "")
    assert "inf" not in drawn


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium to look at the page")
@pytest.mark.parametrize("scheme", [1, 0], ids=["light", "dark"])
def test_a_browser_shows_it_without_a_word(full: str, tmp_path: Path, scheme: int) -> None:
    (tmp_path / "card.html").write_text(full, encoding="utf-8")
    command: list[Any] = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *(f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'profile'}"),
        *(f"--screenshot={tmp_path / 'card.png'}", "--window-size=1200,3000", (tmp_path / "card.html").as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, "neither a refused load nor a broken style"
    assert (tmp_path / "card.png").stat().st_size > 50_000
