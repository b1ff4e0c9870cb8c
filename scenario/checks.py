"""What concerns several values of a file at once: sums, timelines, references, what can be done at all.

Works on the well-formed part of a file (see `scenario.structure`). A check whose values are not all there is left out:
what is missing or wrong is reported already, and its consequences would only hide the cause.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from scenario import chaos, visits
from scenario.errors import Problem, bare, number, show, suggestion
from scenario.model import DEFAULTS, PAYMENT_LIMIT, REWARD_COMPONENTS, USER_ACTIONS, one_name
from scenario.phase_checks import check_phase
from scenario.structure import place_of

SUM_TOLERANCE = 1e-6
TAKEN_REWARDS = (*REWARD_COMPONENTS, "01", "filled")  # what the exporter's columns reward_<name> are called already
_MINUTES_TOLERANCE = 1e-6

Tree = Mapping[str, Any]


def check(suite: Tree, reported: Collection[str]) -> list[Problem]:
    """The problems between the values of a file. `reported` are the places that have a problem already."""
    return _Checks(suite, reported).run()


class _Checks:
    def __init__(self, suite: Tree, reported: Collection[str]) -> None:
        self._suite = suite
        self._reported = {above for place in reported for above in _at_and_above(place)}
        self._base: Tree = suite.get("base_config", {})
        self._profiles: Tree = suite.get("user_behavior_profiles", {})
        self._defined = {one_name(name): name for name in self._profiles}
        self._problems: list[Problem] = []
        self._skus: dict[str, int] = {}  # SKU -> its first place in the catalogue

    def run(self) -> list[Problem]:
        self._check_rewards("base_config", self._base)
        self._check_catalogue()
        self._profiles_are_defined_once()
        for name, profile in self._profiles.items():
            self._check_profile(place_of(("user_behavior_profiles", name)), profile)
        for name, scenario in self._suite.get("training_scenarios", {}).items():
            self._check_scenario(place_of(("training_scenarios", name)), scenario)
        return self._problems

    def _add(self, place: str, text: str, way_out: str) -> None:
        self._problems.append(Problem(place, text, way_out))

    def _is_whole(self, place: str) -> bool:
        """Whether nothing at or below a place was reported, so that what is there is all that was written."""
        return place not in self._reported

    def _sums_to_one(self, place: str, parts: Mapping[str, float] | None, what: str) -> bool:
        if not parts or not self._is_whole(place):
            return False
        total = math.fsum(parts.values())
        if abs(total - 1) <= SUM_TOLERANCE:
            return True
        listed = ", ".join(f"{bare(name)} {number(part)}" for name, part in parts.items())
        self._add(place, f"adds up to {number(total)}, not 1 ({listed})", f"Change the {what} so that they add up to 1")
        return False

    # Rewards

    def _check_rewards(self, place: str, settings: Tree) -> None:
        """The weights of a scenario, or those that base_config states for all."""
        own = settings.get("rewards", {})
        taken = [name for name in own if name in TAKEN_REWARDS]
        for name in taken:
            way_out = "Give it a name of its own; it becomes the column reward_<name>"
            self._add(f"{place}.rewards.{name}", "is a name that the suite uses", way_out)
        stated = [key for key in ("reward_weights", "rewards") if key in settings]
        places = [f"{above}.{key}" for above in (place, "base_config") for key in ("reward_weights", "rewards")]
        if taken or not stated or not all(map(self._is_whole, places)):
            return
        weights = {**DEFAULTS["reward_weights"], **self._weights(self._base), **self._weights(settings)}
        if "rewards" in settings:  # those of base_config do not hold then
            weights = {name: weights[name] for name in (*DEFAULTS["reward_weights"], *own)}
        self._sums_to_one(f"{place}.{stated[0]}", weights, "weights")

    @staticmethod
    def _weights(settings: Tree) -> dict[str, float]:
        own = {name: reward["weight"] for name, reward in settings.get("rewards", {}).items()}
        return {**settings.get("reward_weights", {}), **own}

    # The catalogue

    def _check_catalogue(self) -> None:
        first = self._skus
        for index, product in enumerate(self._suite.get("product_catalogue", [])):
            sku = product.get("sku")
            if sku in first:
                text = f"{show(sku)} is the SKU of product_catalogue[{first[sku]}] already"
                self._add(f"product_catalogue[{index}].sku", text, "Give every product a SKU of its own")
            elif sku is not None:
                first[sku] = index

    # Profiles

    def _profiles_are_defined_once(self) -> None:
        first: dict[str, str] = {}
        for name in self._profiles:
            one = one_name(name)
            if one in first:
                text = f"names the same profile as {show(first[one])} (singular and plural mean the same)"
                self._add(place_of(("user_behavior_profiles", name)), text, "Keep one of them, or rename it")
            first.setdefault(one, name)

    def _check_profile(self, place: str, profile: Tree) -> None:
        for key in ("session_duration_range", "pages_per_session", "think_time_range", "cart_size"):
            self._range_is_ordered(f"{place}.{key}", profile.get(key))
        self._sums_to_one(f"{place}.action_probabilities", profile.get("action_probabilities"), "probabilities")
        self._intents_are_possible(place, profile)
        self._visits_fit(place, profile)
        self._carts_can_be_paid(place, profile)

    def _range_is_ordered(self, place: str, pair: Any) -> None:
        if pair is not None and pair[0] > pair[1]:
            text = f"[{number(pair[0])}, {number(pair[1])}] starts above its end"
            self._add(place, text, "Write it as [smallest, largest]")

    def _intents_are_possible(self, place: str, profile: Tree) -> None:
        buy, abandon = profile.get("conversion_rate"), profile.get("cart_abandonment_rate")
        if abandon == 1:
            text = "is 1: no cart would ever be ordered, so it says nothing about how many carts there are"
            self._add(f"{place}.cart_abandonment_rate", text, "Use a rate below 1, such as 0.95")
        elif buy is not None and abandon is not None and buy / (1 - abandon) > 1 + SUM_TOLERANCE:
            carts = number(round(buy / (1 - abandon), 4))
            text = (
                f"conversion_rate {number(buy)} with cart_abandonment_rate {number(abandon)} "
                f"needs {carts} carts per session, more than 1"
            )
            way_out = (
                "Lower one of them: conversion_rate / (1 - cart_abandonment_rate) is the share of sessions with a cart"
            )
            self._add(place, text, way_out)

    def _visits_fit(self, place: str, profile: Tree) -> None:
        minutes, pages, think_s = (
            profile.get(key) for key in ("session_duration_range", "pages_per_session", "think_time_range")
        )
        actions = profile.get("action_probabilities")
        if minutes is None or pages is None or think_s is None or not actions:
            return
        if not self._is_whole(f"{place}.action_probabilities"):
            return
        visit_s = visits.pauses_per_visit(actions) * (think_s[0] + think_s[1]) / 2
        for count, length_min in zip(pages, minutes, strict=True):
            if count * visit_s > length_min * 60:
                text = (
                    f"{count} page visits of {number(round(visit_s, 2))} s (think times x requests per visit) "
                    f"do not fit a session of {number(length_min)} minutes"
                )
                self._add(f"{place}.pages_per_session", text, "Use fewer pages, longer sessions or shorter think times")
                return  # the other end says the same

    def _carts_can_be_paid(self, place: str, profile: Tree) -> None:
        products = [one for one in self._suite.get("product_catalogue", []) if "price" in one and "sku" in one]
        if not products or not self._is_whole(f"{place}.cart_size"):
            return
        units = profile.get("cart_size", DEFAULTS["cart_size"])[1]
        dearest = max(products, key=lambda one: float(one["price"]))
        amount = dearest["price"] * units
        if amount > PAYMENT_LIMIT:
            text = (
                f"{units} x {dearest['sku']} at {number(dearest['price'])} is {number(amount)}, "
                f"above the payment limit of {number(PAYMENT_LIMIT)}"
            )
            self._add(f"{place}.cart_size", text, "Use smaller carts or lower prices; such a payment always fails")

    # Scenarios

    def _check_scenario(self, place: str, scenario: Tree) -> None:
        self._check_rewards(place, scenario)
        patterns = f"{place}.traffic_patterns"
        phases: list[Tree] = list(scenario.get("traffic_patterns", []))
        self._names_are_unique(patterns, phases)
        self._timeline_is_closed(patterns, phases)
        self._durations_add_up(place, scenario, phases)
        self._users_are_allowed(place, scenario, phases)
        self._times_fit_the_phases(place, scenario, phases)
        _, ramp_s = self._effective(place, scenario, "ramp_seconds")
        for index, phase in enumerate(phases):
            self._problems += check_phase(f"{patterns}[{index}]", phase, self._skus, ramp_s, self._is_whole)
            self._check_distribution(f"{patterns}[{index}].user_behavior_distribution", phase)
            self._check_weights(f"{patterns}[{index}].scenario_weights", phase)

    def _setting(self, place: str, scenario: Tree, key: str) -> tuple[str, Any]:
        """A scenario's own value or the file's, with its place; None when neither has a good one."""
        if key in scenario or not self._is_whole(f"{place}.{key}"):
            return f"{place}.{key}", scenario.get(key)
        return f"base_config.{key}", self._base.get(key)

    def _names_are_unique(self, patterns: str, phases: list[Tree]) -> None:
        first: dict[str, int] = {}
        for index, phase in enumerate(phases):
            name = phase.get("name")
            if name in first:
                text = f"{show(name)} is the name of traffic_patterns[{first[name]}] already"
                self._add(f"{patterns}[{index}].name", text, "Give every phase a name of its own")
            elif name is not None:
                first[name] = index

    def _timeline_is_closed(self, patterns: str, phases: list[Tree]) -> None:
        end: float | None = 0.0  # None: not known, because of a problem that is reported
        before = "the scenario starts"
        for index, phase in enumerate(phases):
            place = f"{patterns}[{index}].start_minute"
            start = phase.get("start_minute", end if self._is_whole(place) else None)
            if start is not None and end is not None and abs(start - end) > _MINUTES_TOLERANCE:
                how = "a gap" if start > end else "an overlap"
                text = (
                    f"is {number(start)}, but {before} at minute {number(end)}: "
                    f"{how} of {number(round(abs(start - end), 6))} min"
                )
                self._add(place, text, f"Write {number(end)}, or leave start_minute out")
            duration = phase.get("duration_minutes")
            end = start + duration if start is not None and duration is not None else None
            before = f"{bare(phase.get('name', f'phase {index}'))} ends"

    def _durations_add_up(self, place: str, scenario: Tree, phases: list[Tree]) -> None:
        where, wanted = self._setting(place, scenario, "test_duration_minutes")
        if wanted is None or not phases or any("duration_minutes" not in phase for phase in phases):
            return
        total = math.fsum(phase["duration_minutes"] for phase in phases)
        if abs(total - wanted) > _MINUTES_TOLERANCE:
            text = f"adds up to {number(total)} minutes, but {where} is {number(wanted)}"
            self._add(f"{place}.traffic_patterns", text, "Change the phases' durations or test_duration_minutes")

    def _users_are_allowed(self, place: str, scenario: Tree, phases: list[Tree]) -> None:
        where_most, most = self._setting(place, scenario, "max_concurrent_users")
        where_all, accounts = self._setting(place, scenario, "total_users")
        for key, where, value in (("max_concurrent_users", where_most, most), ("total_users", where_all, accounts)):
            if value is None and self._is_whole(where):
                self._add(place, f"{key} is missing", f"Add {key} to base_config or to the scenario")
        for index, phase in enumerate(phases):
            users, at_most = phase.get("concurrent_users"), _most_users(phase)
            if users is not None and most is not None and at_most > most:
                wanders = f" and wanders up to {at_most}" if at_most > users else ""
                text = f"is {users}{wanders}, but {where_most} is {most}"
                way_out = "Use fewer users or raise max_concurrent_users"
                self._add(f"{place}.traffic_patterns[{index}].concurrent_users", text, way_out)
        largest = max((_most_users(phase) for phase in phases), default=0)
        if accounts is not None and accounts < largest:
            text = f"is {accounts}, but a phase has {largest} users at once, each with an account of its own"
            self._add(where_all if where_all.startswith(place) else f"{place}.total_users", text, "Raise total_users")

    def _times_fit_the_phases(self, place: str, scenario: Tree, phases: list[Tree]) -> None:
        known = [phase for phase in phases if "duration_minutes" in phase]
        if not known:
            return
        shortest = min(known, key=lambda phase: float(phase["duration_minutes"]))
        shortest_s = shortest["duration_minutes"] * 60
        name = bare(shortest.get("name", "the shortest phase"))
        for key in ("ramp_seconds", "data_collection_interval_seconds"):
            where, value = self._effective(place, scenario, key)
            # A ramp as long as its phase would never reach the mix; one decision in a phase is enough.
            if value is not None and (value > shortest_s or (key == "ramp_seconds" and value == shortest_s)):
                text = f"is {number(value)} s, but {name} lasts only {number(shortest_s)} s"
                self._add(where, text, f"Use a smaller {key} or a longer phase")
        where, interval_s = self._effective(place, scenario, "data_collection_interval_seconds")
        _, episode_s = self._effective(place, scenario, "episode_seconds")
        if interval_s is not None and episode_s is not None and episode_s < interval_s:
            text = f"is {number(interval_s)} s, but an episode lasts only {number(episode_s)} s"
            self._add(where, text, "Use a shorter interval or a longer episode_seconds")

    def _effective(self, place: str, scenario: Tree, key: str) -> tuple[str, Any]:
        """A setting as it will be used, defaults included. Reported in the scenario: that is where it does not fit."""
        where, value = self._setting(place, scenario, key)
        if value is None and self._is_whole(where):
            value = DEFAULTS[key]
        return f"{place}.{key}", value

    def _check_distribution(self, place: str, phase: Tree) -> None:
        distribution: Tree = phase.get("user_behavior_distribution", {})
        first: dict[str, str] = {}
        for name in distribution:
            one = one_name(name)
            if one in first:
                text = f"{show(name)} and {show(first[one])} name the same profile"
                self._add(place, text, "Keep one of them")
            elif self._profiles and one not in self._defined:
                text = f"the profile {show(name)} is not defined"
                self._add(place, text, suggestion(name, self._profiles))
            first.setdefault(one, name)
        self._sums_to_one(place, distribution, "shares")

    def _check_weights(self, place: str, phase: Tree) -> None:
        given: Tree | None = phase.get("scenario_weights")
        if given is None or not self._is_whole(place):
            return
        weights = {action: given[f"{action}_weight"] for action in USER_ACTIONS if f"{action}_weight" in given}
        if not any(weights.values()):
            text = "all weights are 0" if weights else "gives no weight"
            self._add(place, text, "Give at least one user action a weight above 0, such as browse_weight: 50")
            return
        for name, share in phase.get("user_behavior_distribution", {}).items():
            defined = self._defined.get(one_name(name), "")
            profile = self._profiles.get(defined, {})
            actions = profile.get("action_probabilities")
            actions_place = f"{place_of(('user_behavior_profiles', defined))}.action_probabilities"
            if share > 0 and actions and self._is_whole(actions_place):
                self._every_intent_has_something_to_do(place, name, profile, visits.weigh(actions, weights))

    def _every_intent_has_something_to_do(
        self, place: str, name: str, profile: Tree, choice: Mapping[str, float]
    ) -> None:
        if profile.get("conversion_rate") == 1:
            needed: Iterable[str] = USER_ACTIONS
        else:
            needed = visits.ALLOWED["browse_only"]
        if not any(choice[action] for action in needed):
            text = f"leaves {bare(name)} nothing to do in a session without a cart: {', '.join(needed)} all come to 0"
            self._add(place, text, "Give one of them a weight above 0 that the profile also gives a probability")


def _most_users(phase: Tree) -> int:
    """The users a phase can come to, with chaos."""
    variance: float = (phase.get("chaos_parameters") or {}).get("user_variance") or 0.0
    return chaos.most_users(phase.get("concurrent_users", 0), variance)


def _at_and_above(place: str) -> list[str]:
    """A place and all that it is a part of: a.b[2].c is a part of a.b[2], a.b and a."""
    return [place, *(place[:index] for index, char in enumerate(place) if char in ".[")]
