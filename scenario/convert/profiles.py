"""Kinds of shoppers of old files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scenario import visits
from scenario.checks import SUM_TOLERANCE
from scenario.convert.keys import ACTIONS
from scenario.convert.old import MINUTE_S, SECOND_S, Found, Old
from scenario.convert.report import Report, at, said, same
from scenario.convert.values import Number, name_of, number_of, parts_of, percent_of, plain_key, share_of, to_sum_one
from scenario.errors import suggestion
from scenario.model import USER_ACTIONS, one_name

Tree = dict[str, Any]

NEUTRAL: Mapping[str, Any] = {
    "session_duration_range": [5, 15],
    "pages_per_session": [8, 20],
    "think_time_range": [1.0, 3.0],
    "action_probabilities": {"browse": 0.5, "search": 0.2, "cart": 0.2, "order": 0.1},
    "conversion_rate": 0.3,
    "cart_abandonment_rate": 0.4,
}
"""What a profile gets that does not say and that no shipped profile is named like: the example of the README."""

_TELLING = (
    "session_duration_range",
    "think_time_range",
    "action_probabilities",
    "conversion_rate",
    "pages_per_session",
)
_PROFILE_KEYS = ("description", *NEUTRAL, "cart_size")
_MOST_PAGES = 10_000

# The names that old files have for them
_PAGES = ("pages_per_session", "pages", "page_views", "page_views_per_session", "pages_viewed", "pages_per_visit")
_THINK = ("think_time", "think_times", "wait_time", "pause", "think_time_between_requests")
_CONVERSION = ("conversion", "conversion_probability", "purchase_rate", "buy_rate")
_ABANDONMENT = (
    "abandonment_rate", "cart_abandonment", "abandonment", "abandonment_probability", "cart_abandonment_probability",
)  # fmt: skip
_CART = ("cart_size", "items_per_cart", "cart_items", "basket_size", "items_per_order", "items_per_purchase")


@dataclass(frozen=True, slots=True)
class Profiles:
    content: dict[str, Tree]  # name -> profile of the new file
    names: Mapping[str, str]  # one spelling of a name -> its name in the new file
    weights: Mapping[str, Number]  # name -> the weight that the old file gives the profile itself

    def named(self, name: str) -> str | None:
        return self.names.get(spelling(name))


def convert_profiles(
    found: list[tuple[str, str, Any]], base: Mapping[str, Any], shipped: Tree, report: Report
) -> Profiles:
    """All profiles; `found` are place, name and content, `base` what base_config said for all of them."""
    content: dict[str, Tree] = {}
    names: dict[str, str] = {}
    weights: dict[str, Number] = {}
    places: dict[str, tuple[str, Any]] = {}
    for place, old_name, old in found:
        name = name_of(old_name)
        if not isinstance(old, Mapping) or not name:
            report.refuse(place, f"{said(old)} is not a profile", "Write a name and a mapping of its numbers")
            continue
        key = spelling(name)
        if key in places:
            first, there = places[key]
            if there == old:
                report.dropped(place, old, f"{first} is the same profile")
            else:
                report.refuse(place, f"names the same profile as {first}, with other numbers", "Keep one, or rename it")
            continue
        places[key] = place, old
        names[key] = name
        if name != old_name:
            report.note(place, said(old_name), name, "names are letters, digits, _ and -")
        one = _Profile(Old(old, place, report), name, base, shipped)
        content[name] = one.convert()
        if one.weight is not None:
            weights[name] = one.weight
    return Profiles(content, names, weights)


def spelling(name: str) -> str:
    """One spelling for a profile's names: Careful Shoppers, careful-shopper and careful_shopper are the same."""
    return one_name(plain_key(name))


class _Profile:
    def __init__(self, old: Old, name: str, base: Mapping[str, Any], shipped: Tree) -> None:
        self._old = old
        self._report = old.report
        self._base = base
        self._model = next((one for key, one in shipped.items() if spelling(key) == spelling(name)), None)
        self._refused = len(old.report.refusals)
        self.weight: Number | None = None

    def convert(self) -> Tree:
        old, out = self._old, Tree()
        description = old.convert("description", ("desc", "summary"), _text, "text")
        if description:
            out["description"] = description
        shares = "a share from 0 to 1"
        out["session_duration_range"] = self._session_minutes()
        out["pages_per_session"] = old.whole_pair("pages_per_session", _PAGES)
        out["think_time_range"] = old.time_pair("think_time_range", _THINK, SECOND_S, SECOND_S)
        out["action_probabilities"] = self._actions()
        out["conversion_rate"] = old.convert("conversion_rate", _CONVERSION, share_of, shares)
        out["cart_abandonment_rate"] = old.convert("cart_abandonment_rate", _ABANDONMENT, share_of, shares)
        out["cart_size"] = old.whole_pair("cart_size", _CART)
        found = old.take("weight", "percentage", "share", "user_percentage")
        if found is not None:
            self.weight = self._weight(found)
        old.finish(_PROFILE_KEYS)
        self._fill(out)
        return {key: value for key, value in out.items() if value is not None}

    def _session_minutes(self) -> Any:
        """The key that ends in _range is in minutes, as the new file has it; others have to say their unit."""
        stems = ("session_duration", "session_length", "session_time")
        is_new = "session_duration_range" in map(plain_key, self._old.keys)
        return self._old.time_pair("session_duration_range", stems, MINUTE_S, MINUTE_S if is_new else None)

    def _weight(self, found: Found) -> Number | None:
        weight = percent_of(found.value)
        weight = number_of(found.value) if weight is None else weight
        if weight is None or weight < 0:
            self._report.refuse(found.place, f"{said(found.value)} is not a weight of at least 0", "Write a number")
            return None
        self._report.dropped(
            found.place, found.value, "phases without a user_behavior_distribution get their shares by it"
        )
        return weight

    def _actions(self) -> Any:
        """action_probabilities, or the flat keys *_probability, brought to a sum of 1."""
        old = self._old
        found = old.take(
            "action_probabilities", "actions", "action_weights", "behavior_probabilities", "action_distribution"
        )
        flat = [
            key
            for key in old.keys
            if plain_key(key).removesuffix("_probability") in ACTIONS and plain_key(key) not in ACTIONS
        ]
        if found is not None and not isinstance(found.value, Mapping):
            self._report.refuse(found.place, f"{said(found.value)} is not a mapping", "Write user action: probability")
            return None
        given = dict(found.value) if found is not None else {}
        for key in flat:
            one = old.take_key(key)
            if found is not None:
                self._report.refuse(one.place, f"stands beside {found.key}", "Keep one of them")
            given[key] = one.value
        if not given:
            return None
        place = old.place if found is None else found.place
        parts = action_parts(given, place, self._report, "_probability")
        return None if parts is None else self._to_one(parts, given, place, found)

    def _to_one(self, parts: dict[str, Number], given: Tree, place: str, found: Found | None) -> Any:
        total = math.fsum(parts.values())
        if total <= 0:
            self._report.refuse(place, "all probabilities are 0", "Give at least one user action a probability")
            return None
        is_one = abs(total - 1) <= SUM_TOLERANCE
        written = parts if is_one else to_sum_one(parts)
        reason = "user actions in one mapping" if is_one else f"they add up to {said(total)}; scaled to 1"
        if found is None:
            for key, value in given.items():
                self._report.note(at(place, key), said(value), f"action_probabilities {said(written)}", reason)
        elif found.key != "action_probabilities" or not same(written, given):
            self._report.note(place, said(given), f"action_probabilities {said(written)}", reason)
        return written

    # What is not said

    def _fill(self, out: Tree) -> None:
        refused = len(self._report.refusals) > self._refused
        if refused:
            return  # what is missing may be what was refused
        if self._model is None and not any(out[key] is not None for key in _TELLING):
            known = ", ".join(key for key in _TELLING)
            self._report.refuse(self._old.place, "says nothing about its shoppers", f"Give at least one of {known}")
            return
        for key in ("session_duration_range", "think_time_range", "action_probabilities", "conversion_rate"):
            self._fill_one(out, key)
        self._fill_one(out, "cart_abandonment_rate")
        if out["cart_size"] is None and self._model and "cart_size" in self._model:
            self._fill_one(out, "cart_size")
        if out["pages_per_session"] is None:
            self._fill_pages(out)

    def _fill_one(self, out: Tree, key: str) -> None:
        if out[key] is not None:
            return
        if key in self._base:
            value, reason = self._base[key], "base_config says it for all profiles"
        elif self._model is not None:
            value, reason = self._model[key], "default: the shipped profile of this name"
        else:
            value, reason = NEUTRAL[key], "default: the example profile of the README"
        out[key] = value
        if key == "cart_abandonment_rate" and self._base.get(key) is None:
            most = 1 - out["conversion_rate"]  # more carts than sessions cannot be
            if value > most:
                out[key], reason = max(0, round(most, 6)), f"{reason}, as far as conversion_rate leaves room for it"
        self._report.filled(at(self._old.place, key), said(out[key]), reason)

    def _fill_pages(self, out: Tree) -> None:
        """As many as by default, but no more than fit: half of the session at most is spent in think times."""
        model = self._model or NEUTRAL
        think_s = sum(out["think_time_range"]) / 2
        visit_s = visits.pauses_per_visit(out["action_probabilities"]) * think_s
        minutes = out["session_duration_range"]
        fit = [max(1, min(_MOST_PAGES, int(end * 60 / 2 / visit_s))) if visit_s > 0 else _MOST_PAGES for end in minutes]
        wanted = self._base.get("pages_per_session", model["pages_per_session"])
        pages = sorted(min(most, want) for most, want in zip(fit, wanted, strict=True))
        out["pages_per_session"] = pages
        reason = "default" if pages == wanted else f"default {said(wanted)}, as many as leave room in half a session"
        self._report.filled(at(self._old.place, "pages_per_session"), said(pages), reason)


def action_parts(given: Mapping[str, Any], place: str, report: Report, suffix: str) -> dict[str, Number] | None:
    """User action -> number, in the order of the model; names that mean the same action are added. None: refused."""
    parts: dict[str, Number] = {}
    good = True
    for (key, value), read in zip(given.items(), parts_of(list(given.values())), strict=True):
        plain = plain_key(str(key))
        action = ACTIONS.get(plain.removesuffix(suffix), ACTIONS.get(plain))
        if action is None:
            way_out = f"Write it as one of the user actions. {suggestion(plain, USER_ACTIONS)}"
            report.refuse(at(place, str(key)), "is not a user action", way_out)
            good = False
        elif read is None:
            report.refuse(
                at(place, str(key)), f"{said(value)} is not a number of at least 0", "Write a number such as 0.5"
            )
            good = False
        elif action in parts:
            report.note(at(place, str(key)), said(value), f"added to {action}", "it means the same user action")
            parts[action] += read
        else:
            parts[action] = read
    return {action: parts[action] for action in parts} if good else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) and value.strip() else None
