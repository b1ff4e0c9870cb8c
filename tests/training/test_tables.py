"""One comparison as text, JSON and pictures."""

import doctest
import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from rl_hooks.decision import ACTIONS
from training import pictures, tables
from training.comparison import UNKNOWN, Comparison, Difference
from training.pictures import Span

SVG = "{http://www.w3.org/2000/svg}"


def made(**other: Difference) -> Comparison:
    """onnx:a, ahead of uniform in reward, behind in p95, with a policy it never met."""
    return Comparison(
        chosen="onnx:a",
        values={
            "onnx:a": {"reward": 0.87654, "p95_ms": 130.0},
            "uniform": {"reward": 0.85, "p95_ms": 120.0},
            "<b>": {"reward": math.nan, "p95_ms": 90.0},
        },
        differences={
            "uniform": {"reward": Difference(0.02654, 0.005, 40), "p95_ms": Difference(10.0, 2.0, 40), **other},
            "<b>": {"reward": UNKNOWN, "p95_ms": UNKNOWN},
        },
        about={"runs": ["one", "two"], "blocks": {"onnx:a": 8, "uniform": 9}},
        notes=("<b>: never met onnx:a",),
        shares={"onnx:a": {"lunch": np.array([0.5, 0.5, 0, 0, 0, 0])}},
    )


def test_the_examples_of_the_docstrings_hold() -> None:
    assert tuple(doctest.testmod(tables)) == (0, 2)


def test_a_person_reads_values_differences_and_who_is_better() -> None:
    assert "\n".join(tables.lines(made())) == (
        "policy  onnx:a\n"
        "runs    one, two\n"
        "blocks  onnx:a 8, uniform 9\n"
        "\n"
        "measure      onnx:a     uniform         <b>\n"
        "reward       0.8765      0.8500           -  weighted reward per decision with a request, 0 to 1\n"
        "p95_ms       130.00      120.00       90.00  95th percentile of the same\n"
        "\n"
        "onnx:a less uniform\n"
        "                        difference  95 % interval           80 % power from\n"
        "reward                     +0.0265  +0.0164 to +0.0366               0.0144  better\n"
        "p95_ms                      +10.00  +5.96 to +14.04                    5.74  worse\n"
        "\n"
        "onnx:a less <b>\n"
        "                        difference  95 % interval           80 % power from\n"
        "reward                           -  -                                     -\n"
        "p95_ms                           -  -                                     -\n"
        "\n"
        "actions of  phase  "
        "least_loaded  fastest_response  round_robin  weighted_capacity  circuit_breaker  backpressure\n"
        "onnx:a      lunch  "
        "         50%               50%           0%                 0%               0%            0%\n"
        "\n"
        "<b>: never met onnx:a"
    )


def test_the_file_has_the_same_numbers_and_null_for_what_is_not_known() -> None:
    written = json.loads(json.dumps(tables.to_json(made()), allow_nan=False))
    assert written["values"]["<b>"] == {"reward": None, "p95_ms": 90.0}
    reward = written["differences"]["uniform"]["reward"]
    assert (reward["value"], reward["degrees"], reward["verdict"]) == (0.02654, 40, "better")
    assert written["differences"]["<b>"]["reward"]["low"] is None
    assert list(written["action_shares"]["onnx:a"]["lunch"]) == list(ACTIONS)
    assert (written["policy"], written["runs"], written["notes"]) == (
        "onnx:a",
        ["one", "two"],
        ["<b>: never met onnx:a"],
    )


def test_differences_are_drawn_where_their_intervals_are() -> None:
    drawn = ElementTree.fromstring(pictures.differences(made(), "reward"))
    (dot,) = drawn.findall(f"{SVG}circle")
    (bar,) = [line for line in drawn.findall(f"{SVG}line") if line.attrib["class"].startswith("line")]
    (zero,) = [line for line in drawn.findall(f"{SVG}line") if line.attrib["class"] == "axis"]
    assert float(zero.attrib["x1"]) < float(bar.attrib["x1"]) < float(dot.attrib["cx"]) < float(bar.attrib["x2"])
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    assert "less <b>" in texts and "cannot be told" in texts


def test_nothing_to_draw_is_drawn_too() -> None:
    """Equal values, and none at all."""
    same = made(reward=Difference(0.0, 0.0, 40))
    assert len(ElementTree.fromstring(pictures.differences(same, "reward")).findall(f"{SVG}circle")) == 1
    none = [Span("uniform", 0, 5, math.nan, "night", False)]
    assert ElementTree.fromstring(pictures.blocks(none, ["uniform"], "reward")).findall(f"{SVG}rect") == []


@pytest.mark.parametrize("policies", [2, 8])
def test_blocks_are_drawn_in_the_colour_of_their_policy(policies: int) -> None:
    names = [f"p{number}" for number in range(policies)]
    spans = [
        Span(name, 5.0 * k, 5.0 * k + 5, 0.8 + 0.01 * k, "" if k else "night", k == 1) for k, name in enumerate(names)
    ]
    drawn = ElementTree.fromstring(pictures.blocks(spans, names, "reward"))
    lines = [line for line in drawn.findall(f"{SVG}line") if line.attrib["class"].startswith("line")]
    legend, blocks = lines[:policies], lines[policies:]
    assert [one.attrib["class"] for one in blocks] == [one.attrib["class"] for one in legend]
    heights = [float(one.attrib["y1"]) for one in blocks]
    assert heights == sorted(heights, reverse=True)
    assert len(drawn.findall(f"{SVG}rect")) == 1
