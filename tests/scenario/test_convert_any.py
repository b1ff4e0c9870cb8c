"""Old files of all kinds at once, drawn at random: each is refused with pointers, or becomes a file that loads and a
report that accounts for every value of the old file and of the new one."""

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from scenario.convert.keys import ADDRESSES, BASE, CATALOGUE, PROFILES, is_scenarios
from scenario.convert.report import Note, at, said
from scenario.convert.values import name_of, plain_key
from scenario.errors import ScenarioError
from tests.scenario.files import ADDRESS, PRODUCT, Tree
from tests.scenario.old_files import convert, lines, result

SEEDS = range(150)
NAMES = ("browser", "Bulk Buyer", "quick_browser", "window_shopper")
SERVICES = ("inventory_service", "cart-service", "order", "Payment Service")
PROSE = (
    "5x normal response time",
    "30% of requests fail",
    "20% of requests timeout",
    "200% increase",
    "down",
    "normal",
)


# Old files


def renamed(random: Random, content: Tree, key: str, *others: str) -> None:
    """The same value under one of several keys, sometimes as text."""
    value = content.pop(key)
    value = str(value) if isinstance(value, int) and random.random() < 0.3 else value
    content[random.choice([key, *others])] = value


def a_profile(random: Random) -> Tree:
    shortest = random.randint(2, 10)
    content: Tree = {}
    content.update(
        random.choice(
            [
                {"session_duration_range": [shortest, shortest + 10]},
                {"session_duration_minutes": shortest},
                {"session_duration_seconds": {"min": shortest * 60, "max": shortest * 100}},
                {"session_duration": f"{shortest}-{shortest + 5} min"},
            ]
        )
    )
    actions = {"browse": random.randint(1, 60), "search": random.randint(0, 30), "cart": random.randint(1, 30)}
    if random.random() < 0.5:
        content["action_probabilities"] = {key: part / 100 for key, part in actions.items()}
    else:
        content.update({f"{key}_probability": f"{part}%" for key, part in actions.items()})
    if random.random() < 0.7:
        content["conversion_rate"] = random.choice(
            [0.05, "20%", 30, 0.95]
        )  # the last one leaves too little room to abandon carts
        renamed(random, content, "conversion_rate", "conversion", "purchase_rate")
    if random.random() < 0.5:
        content["abandonment_rate"] = random.choice([0.2, "40%"])
    if random.random() < 0.5:
        content.update(random.choice([{"think_time_range": [0.5, 2]}, {"min_think_time": 1, "max_think_time": 2}]))
    if random.random() < 0.3:
        content["notes"] = "Made in spring"
    return content


def a_phase(random: Random, index: int, profiles: list[str]) -> Tree:
    content: Tree = {"name": f"phase {index}", "duration_minutes": random.choice([5, 12.5, 20])}
    if random.random() < 0.5:
        content["duration_seconds"] = content.pop("duration_minutes") * 60
    if random.random() < 0.4:
        content["start_minute"] = index * random.choice([5, 20, 30])
    content["concurrent_users"] = random.randint(1, 90)
    renamed(random, content, "concurrent_users", "users", "userCount")
    if random.random() < 0.7:
        shares = {f"{name}s" if random.random() < 0.3 else name: random.randint(1, 60) for name in profiles}
        content["user_behavior_distribution"] = random.choice(
            [shares, {key: share / 100 for key, share in shares.items()}, {key: f"{s}%" for key, s in shares.items()}]
        )
        renamed(random, content, "user_behavior_distribution", "user_mix")
    if random.random() < 0.7:
        content["weights"] = {"browse": random.randint(1, 60), "add_to_cart": random.randint(0, 30)}
        renamed(random, content, "weights", "scenario_weights", "action_weights")
    if random.random() < 0.7:
        content["intensity"] = random.choice(["high", "Very High", "normal", "peak"])
    if random.random() < 0.3:
        content["simulated_conditions"] = {random.choice(SERVICES): random.choice(PROSE)}
    if random.random() < 0.3:
        key, value = random.choice(
            [("user_variance", 0.3), ("user_count_variance", "20%"), ("think_time_variance", 40)]
        )
        content.update(
            random.choice([{key: value}, {"chaos_config": {key: value}}, {"chaos_parameters": {key: value}}])
        )
    if random.random() < 0.2:
        content["expected_behavior"] = "Queues grow"
    return content


def a_scenario(random: Random, profiles: list[str]) -> Tree:
    key = random.choice(["traffic_patterns", "phases", "chaos_phases"])
    phases = [a_phase(random, index, profiles) for index in range(random.randint(1, 4))]
    content: Tree = {"description": "Some load", key: phases}
    if random.random() < 0.2:
        content["name"] = "The day"
    if len({"start_minute" in phase for phase in phases}) == 2:
        for phase in phases:
            phase.pop("start_minute", None)
    if random.random() < 0.4:
        content["duration_minutes"] = random.choice([10, 40, 90])
    if random.random() < 0.3:
        content["failure_timeline"] = [
            {"minute": 1, "duration_minutes": 3, "service": random.choice(SERVICES), "impact": random.choice(PROSE)}
        ]
    return content


def an_old_file(random: Random) -> Tree:
    profiles = random.sample(NAMES, random.randint(1, 3))
    base: Tree = {"total_users": random.choice([5, 500]), "max_concurrent_users": random.choice([20, 100])}
    if random.random() < 0.5:
        base["think_time_range"] = [1, 2]
    if random.random() < 0.5:
        base["connection_pool_size"] = 10
    renamed(random, base, "max_concurrent_users", "max_users")
    sections: Tree = {
        random.choice(["base_config", "global_settings"]): base,
        random.choice(["user_behavior_profiles", "profiles"]): {name: a_profile(random) for name in profiles},
    }
    for section in random.sample(["training_scenarios", "stress_scenarios", "failure_scenarios"], random.randint(1, 3)):
        sections[section] = {random.choice(["day", "Big Night"]): a_scenario(random, profiles)}
    if random.random() < 0.5:
        product = {**PRODUCT, "stock": 3}
        sections["products"] = [{key: product[key] for key in random.sample(sorted(product), 5)} | {"sku": "MUG-1"}]
    if random.random() < 0.5:
        address = {**ADDRESS}
        address[random.choice(["zip", "zipCode", "postal_code"])] = random.choice([2108, address.pop("zip_code")])
        sections["addresses"] = [address]
    return {"rl_training_scenarios": sections} if random.random() < 0.5 else sections


# Values, and the places of a file that they have


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, "" if key == "rl_training_scenarios" and not place else at(place, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, at(place, index))
    else:
        yield place, value


def unchanged(old_place: str, value: Any, new: dict[str, Any]) -> bool:
    """Whether a value of the old file stands in the new one, in the section of the same kind."""
    head, _, rest = old_place.partition(".")
    sections = {
        "base_config": BASE, "user_behavior_profiles": PROFILES, "product_catalogue": CATALOGUE,
        "shipping_addresses": ADDRESSES,
    }  # fmt: skip
    plain = plain_key(re.sub(r"\[.*", "", head))
    name = next((name for name, names in sections.items() if plain in names), "training_scenarios")
    index = re.search(r"\[\d+\]", head)
    here = name + (index[0] if index else "") + f".{rest}"
    here = re.sub(r"'([^']*)'", lambda match: name_of(match[1]), here)
    here = re.sub(r"\.(chaos_)?phases\[", ".traffic_patterns[", here)
    pattern = re.sub(r"\\\[\d+\\\]", r"\\[\\d+\\]", re.escape(here))  # phases are written in order of their start
    pattern = pattern.replace("Big_Night", "Big_Night(_\\d)?").replace(r"\.day\.", r"\.day(_\d)?\.")
    return any(re.fullmatch(pattern, place) and value == there for place, there in new.items())


def accounted(place: str, value: Any, notes: list[Note]) -> bool:
    """Whether a line is about a value: about its place, or about what it is a part of with the value in it."""
    about = [note for note in notes if place == note.place or re.match(re.escape(note.place) + r"[.\[]", place)]
    return any(note.place == place or said(value) in note.found or note.found.endswith("...") for note in about)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_result_loads_and_the_report_accounts_for_every_value(seed):
    old = an_old_file(Random(seed))
    try:
        converted = convert(old)
    except ScenarioError as error:
        assert error.problems
        assert all(problem.place and problem.way_out for problem in error.problems)
        return
    new, notes = dict(leaves(result(converted))), converted.notes
    lost = [
        place for place, value in leaves(old) if not unchanged(place, value, new) and not accounted(place, value, notes)
    ]
    assert lost == []
    written = "\n".join(lines(converted))
    before = {(name_of(re.split(r"[.\]]", place)[-1]), repr(value)) for place, value in leaves(old)}
    for place, value in new.items():
        key = re.split(r"[.\]]", place)[-1]
        filled_up = (
            place.startswith(("product_catalogue", "shipping_addresses")) and f"{place.split('[')[0]}: " in written
        )
        parent = re.split(r"[.\[]", place.removesuffix(f".{key}"))[-1]
        assert (key, repr(value)) in before or key in written or parent in written or filled_up, place


@pytest.mark.parametrize("seed", SEEDS[::5])
def test_a_converted_file_has_nothing_to_convert(seed):
    try:
        first = convert(an_old_file(Random(seed)))
    except ScenarioError:
        return
    again = convert(first.yaml, "old.yaml")
    assert [line for line in lines(again) if "used by no phase" not in line] == []
    assert result(again) == result(first)


def test_drawn_files_are_of_both_kinds():
    """Else the laws above would be about nothing."""
    good = sum(is_convertible(an_old_file(Random(seed))) for seed in SEEDS[::5])
    assert 20 <= good < len(SEEDS[::5])


def is_convertible(old: Tree) -> bool:
    try:
        convert(old)
    except ScenarioError:
        return False
    return True


WEIRD = (
    None, True, -1, 0, 1e300, float("nan"), 10**30, "", " ", "x" * 3000, "5x", "50%", "\x1b[31m", "1-2-3", "\u2028",
    "yes: [1", [], [[]], [None], [1, 2, 3], ["a", {}], {}, {"": 1}, {"a": {"b": []}}, {"min": "x"}, {"users": {}},
    {"phases": 3},
)  # fmt: skip
KEYS = ("", "users", "a b", "\n", "min_think_time", "chaos")


@pytest.mark.parametrize("seed", SEEDS)
def test_weird_values_are_refused_or_converted_but_never_a_crash(seed):
    random = Random(seed)
    old = an_old_file(random)
    for _ in range(random.randint(1, 3)):
        holder: Any = old
        while True:
            key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner or random.random() < 0.2:
                break
            holder = inner
        holder[key] = deepcopy(random.choice(WEIRD))
        if isinstance(holder, dict) and random.random() < 0.3:
            holder[random.choice(KEYS)] = deepcopy(random.choice(WEIRD))
    try:
        converted = convert(old)
    except ScenarioError as error:
        assert error.problems
    else:
        assert result(converted)


def _set(path: str, value: Any) -> Callable[[Tree], None]:
    """Writes a value to the first thing at a path such as training_scenarios.*.traffic_patterns.*.users."""

    def poison(tree: Tree) -> None:
        *above, key = path.split(".")
        for part in above:
            step: Any = list(tree.values()) if isinstance(tree, dict) and part == "*" else None
            tree = step[0] if step else tree[0] if isinstance(tree, list) else tree[part]
        tree[key] = value

    return poison


POISON = {
    "negative users": ("training_scenarios.*.phases.*.concurrent_users", -3),
    "no users": ("training_scenarios.*.phases.*.concurrent_users", 0),
    "unknown key": ("training_scenarios.*.phases.*.gravity", 9.81),
    "unknown setting": ("base_config.gravity", 9.81),
    "unknown profile": ("training_scenarios.*.phases.*.user_behavior_distribution", {"ghost": 1}),
    "unknown intensity": ("training_scenarios.*.phases.*.intensity", "insane"),
    "prose": ("training_scenarios.*.phases.*.simulated_conditions", {"cart-service": "it gets bad"}),
    "rate": ("profiles.*.conversion_rate", "many"),
    "zip": ("shipping_addresses.*.zip_code", "EC1A 1BB"),
}


@pytest.mark.parametrize("what", POISON)
@pytest.mark.parametrize("seed", range(4))
def test_one_bad_value_among_others_is_pointed_at(seed, what):
    random = Random(seed)
    while True:
        old = an_old_file(random)
        sections = old.get("rl_training_scenarios", old)
        scenarios = next(value for key, value in sections.items() if is_scenarios(key))
        content = next(iter(scenarios.values()))
        content["phases"] = next(
            content.pop(key) for key in ("phases", "traffic_patterns", "chaos_phases") if key in content
        )
        phase = content["phases"][0]
        for key in ("users", "userCount", "user_mix"):
            phase.pop(key, None)
        phase["concurrent_users"] = 5
        whole = {
            "base_config": {}, "profiles": next(value for key, value in sections.items() if key.endswith("profiles")),
            "training_scenarios": scenarios, "shipping_addresses": [dict(ADDRESS)],
        }  # fmt: skip
        for profile in whole["profiles"].values():
            profile.pop("conversion", None), profile.pop("purchase_rate", None)
        try:
            convert(whole)
            break
        except ScenarioError:
            continue
    path, value = POISON[what]
    _set(path, value)(whole)
    with pytest.raises(ScenarioError) as caught:
        convert(json.dumps(whole))
    key = path.rpartition(".")[2]
    assert any(key in str(problem) for problem in caught.value.problems)
    assert all(problem.place and problem.way_out for problem in caught.value.problems)
