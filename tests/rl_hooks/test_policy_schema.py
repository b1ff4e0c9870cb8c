"""What a policy was made for: written and read back, and compared with a run."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rl_hooks.decision import ACTIONS
from rl_hooks.observation import FEATURES, Feature
from rl_hooks.policy_schema import Normalization, PolicySchema, SchemaError
from tests.tiny_policy import schema


def test_a_schema_is_read_back_as_it_was_written() -> None:
    assert PolicySchema.from_json(schema().to_json()) == schema()
    assert PolicySchema.from_metadata(schema().to_metadata()) == schema()


def test_equal_schemas_are_written_equally() -> None:
    turned = replace(schema(), slo_ms=dict(reversed(schema().slo_ms.items())))
    assert turned.to_metadata() == schema().to_metadata()


def test_everything_wrong_is_said_at_once() -> None:
    data = schema().to_json()
    del data["gamma"]
    data |= {"name": "a b", "window_s": 0, "decision_interval_s": True, "extra": 1, "actions": ["one", 2]}
    data["features"][1] = {**data["features"][1], "unit": ""}
    data["features"][2] = "in_flight"
    data["normalization"]["std"][0] = 0.0
    data["slo_ms"]["cart-service"] = -5
    data["data"] = {"train.parquet": "abc"}
    data["made_by"] = {}
    with pytest.raises(SchemaError) as caught:
        PolicySchema.from_json(data)
    assert str(caught.value).splitlines() == [
        "no schema of a policy, 12 problems",
        "  extra: is not known; leave it out",
        "  gamma: is missing",
        "  features[1].unit: a text is needed, found ''",
        "  features[2]: an object is needed, found 'in_flight'",
        "  name: a name of letters, digits and _ . - is needed, found 'a b'",
        "  actions[1]: a text is needed, found 2",
        "  window_s: a number above 0 is needed, found 0",
        "  decision_interval_s: a number above 0 is needed, found True",
        "  normalization.std[0]: a number above 0 is needed, found 0.0",
        "  slo_ms.cart-service: a number above 0 is needed, found -5",
        "  data.train.parquet: a sha256 in hex is needed, found 'abc'",
        "  made_by: an object with entries is needed, found {}",
    ]


@pytest.mark.parametrize("missing", list(schema().to_json()))
def test_what_is_missing_is_said_once(missing: str) -> None:
    data = schema().to_json()
    del data[missing]
    with pytest.raises(SchemaError) as caught:
        PolicySchema.from_json(data)
    assert str(caught.value) == f"no schema of a policy, 1 problem\n  {missing}: is missing"


@pytest.mark.parametrize(
    ("special", "complaint"),
    [
        ({"actions": (*ACTIONS[:5], ACTIONS[0])}, "actions: names that are all different are needed, found ["),
        (
            {"normalization": Normalization(("obs.cpu",), (0.0,), (1.0,), (0.0,), (0.0,), (1.0,))},
            (
                "normalization.columns: obs.<name> of every feature in their order is needed, then known.<name> of "
                "those that can be missing"
            ),
        ),
        (
            {"normalization": replace(schema().normalization, mean=(0.0,))},
            f"normalization.mean: {len(FEATURES)} numbers are needed, found 1",
        ),
    ],
)
def test_parts_that_contradict_each_other_are_refused(special: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SchemaError) as caught:
        PolicySchema.from_json(schema(**special).to_json())
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "no schema of a policy, it is not JSON ("),
        ("[" * 100_000, "no schema of a policy, it is not JSON ("),
        ("[]", "the whole text: an object is needed, found []"),
        ("1" * (1 << 21), "2097152 characters are no schema of a policy; at most 1048576 are read"),
        (json.dumps({**schema().to_json(), "gamma": float("nan")}), "gamma: a number from 0 to 1 is needed, found nan"),
    ],
)
def test_what_is_no_schema_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(SchemaError) as caught:
        PolicySchema.from_metadata(text)
    assert complaint in str(caught.value)


def test_a_policy_fits_to_what_it_was_made_for() -> None:
    assert schema().problems(ACTIONS, FEATURES, 60.0, 2.0) == []


def test_seconds_of_two_files_are_the_same_up_to_rounding() -> None:
    compressed = schema(window_s=60 / 45, decision_interval_s=9 / 45)
    assert compressed.problems(ACTIONS, FEATURES, 1.3333333333, 0.2 + 1e-12) == []
    assert len(compressed.problems(ACTIONS, FEATURES, 1.3334, 0.2)) == 1


def test_every_reason_why_it_does_not_fit_is_told_with_what_would() -> None:
    there = [replace(feature, unit="s") if feature.name == "in_flight" else feature for feature in FEATURES[1:]]
    there.append(replace(FEATURES[0], name="weather"))
    problems = schema().problems((*ACTIONS[1:], ACTIONS[0]), there, 1.5, 0.2)
    chosen, others = ", ".join(ACTIONS), ", ".join((*ACTIONS[1:], ACTIONS[0]))
    version = "use it with what made it (by hand 1), or train it anew"
    assert problems == [
        f"actions: the policy chooses among {chosen}; here they are {others}; {version}",
        f"feature response_time_mean_ms: the policy needs it, and it is not there; {version}",
        f"feature weather: the policy does not know it; {version}",
        f"feature in_flight: the policy was trained with unit 'requests', here 's'; {version}",
        (
            "observation window: the policy was trained with 60 s of real time, here it is 1.5 s; a run with 60 s "
            "would fit (time scale and window_seconds decide it)"
        ),
        (
            "decision interval: the policy was trained with 2 s of real time, here it is 0.2 s; a run with 2 s would "
            "fit (time scale and --decision-interval decide it)"
        ),
    ]


def test_a_feature_of_ones_own_that_the_policy_does_not_know_is_left_out_of_the_export() -> None:
    own = Feature("weather", "degrees", 0, None, "window", "exporter", "never")
    assert schema().problems(ACTIONS, [*FEATURES, own], 60.0, 2.0) == [
        "feature weather: the policy does not know it; export without this --feature, or train anew"
    ]


def test_with_other_actions_only_these_are_told_and_not_the_features_of_each() -> None:
    (problem,) = schema().problems(("instance_1", "instance_2"), FEATURES[1:], 60.0, 2.0)
    assert problem == (
        f"actions: the policy chooses among {', '.join(ACTIONS)}; here they are instance_1, instance_2; use it where "
        "its own are chosen among (--action-space), or train one for these"
    )


def test_the_same_features_in_another_order_do_not_fit() -> None:
    (problem,) = schema().problems(ACTIONS, FEATURES[::-1], 60.0, 2.0)
    assert problem.startswith("features: the policy takes the same ones in another order; use it with")
