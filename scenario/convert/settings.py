"""base_config and the settings of a scenario of old files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scenario.checks import SUM_TOLERANCE
from scenario.convert.old import MINUTE_S, SECOND_S, Old
from scenario.convert.prose import service_of
from scenario.convert.report import Report, at, said, same
from scenario.convert.values import number_of, parts_of, plain_key, time_of, to_sum_one, unit_of, whole_of
from scenario.errors import suggestion
from scenario.model import REWARD_COMPONENTS, SERVICES

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Time:
    stems: tuple[str, ...]
    to_s: float
    bare_s: float | None  # the unit of a key that names none
    zero: bool = False  # may be 0


_TIMES: Mapping[str, _Time] = {
    "test_duration_minutes": _Time(("test_duration", "total_duration", "duration", "run_time"), MINUTE_S, None),
    "data_collection_interval_seconds": _Time(
        ("data_collection_interval", "collection_interval", "decision_interval", "sampling_interval"),
        SECOND_S,
        SECOND_S,
    ),
    "window_seconds": _Time(("window", "observation_window", "metrics_window"), SECOND_S, SECOND_S),
    "episode_seconds": _Time(("episode", "episode_length", "episode_duration"), SECOND_S, SECOND_S),
    "ramp_seconds": _Time(
        ("ramp", "ramp_up", "ramp_up_time", "ramp_time", "ramp_up_duration"), SECOND_S, SECOND_S, True
    ),
    "request_timeout_seconds": _Time(("request_timeout", "timeout", "http_timeout"), SECOND_S, SECOND_S),
    "retry_delay_seconds": _Time(("retry_delay", "retry_backoff", "retry_wait"), SECOND_S, SECOND_S, True),
    "recovery_pause_minutes": _Time(
        ("recovery_pause", "recovery_time", "pause_between_scenarios", "cooldown"), MINUTE_S, None, True
    ),
}
_WHOLE: Mapping[str, tuple[str, ...]] = {
    "total_users": ("total_user_count", "accounts", "num_accounts", "user_pool_size", "user_pool", "number_of_users"),
    "max_concurrent_users": ("max_users", "maximum_users", "max_concurrency", "concurrent_users_max", "user_limit"),
    "retry_attempts": ("max_retries", "retries", "retry_count", "num_retries", "max_retry_attempts"),
}
_URL_KEYS = ("host", "target_url", "base_host", "url", "target", "target_host", "gateway_url", "load_balancer_url")
ORDER = (
    "base_url", "total_users", "max_concurrent_users", "test_duration_minutes", "data_collection_interval_seconds",
    "window_seconds", "episode_seconds", "ramp_seconds", "request_timeout_seconds", "retry_attempts",
    "retry_delay_seconds", "recovery_pause_minutes", "background_requests_per_second", "service_slo_ms",
    "reward_weights", "rewards",
)  # fmt: skip


def take_settings(old: Old) -> Tree:
    """The settings that a mapping has, under the keys of the new file and in their order."""
    out: Tree = {}
    for key, time in _TIMES.items():
        out[key] = old.time(key, time.stems, time.to_s, time.bare_s, time.zero)
    for key, names in _WHOLE.items():
        read = _whole_or_zero if key == "retry_attempts" else _whole_above_zero
        what = "a whole number of at least 0" if key == "retry_attempts" else "a whole number above 0"
        out[key] = old.convert(key, names, read, what)
    background = ("background_rps", "background_traffic_rps")
    out["background_requests_per_second"] = old.convert(
        "background_requests_per_second", background, _at_least_zero, "a number of at least 0"
    )
    out["service_slo_ms"] = _slo(old)
    out["rewards"] = _own_rewards(old)
    out["reward_weights"] = _rewards(old, beside=sum(one["weight"] for one in (out["rewards"] or {}).values()))
    return {key: out[key] for key in ORDER if out.get(key) is not None}


def add_settings(there: Tree, more: Tree, place: str, report: Report) -> None:
    """Put settings from `place` beside others; one thing with two values is refused."""
    for key, value in more.items():
        if there.setdefault(key, value) != value:
            text = f"{key} is {said(value)} here and {said(there[key])} elsewhere"
            report.refuse(place, text, "Keep one of them")


def take_base_url(old: Old) -> str | None:
    url: str | None = old.convert(
        "base_url", _URL_KEYS, _url, "an address such as http://localhost:8080/proxy", "the loader knows one spelling"
    )
    return url


def take_for_profiles(old: Old) -> Tree:
    """What base_config says for all profiles that do not say it themselves."""
    think = ("think_time", "think_times", "wait_time")
    found = {
        "think_time_range": old.time_pair("think_time_range", think, SECOND_S, SECOND_S),
        "pages_per_session": old.whole_pair("pages_per_session", ("pages_per_session", "pages")),
        "session_duration_range": old.time_pair("session_duration_range", ("session_duration",), MINUTE_S, None),
    }
    given = {key: value for key, value in found.items() if value is not None}
    for key, value in given.items():
        reason = "profiles say it themselves; those that do not get it from here"
        old.report.note(at(old.place, key), said(value), f"{key} of profiles", reason)
    return given


def _slo(old: Old) -> Tree | None:
    found = old.take(
        "service_slo_ms", "service_slo", "slo_ms", "slos", "slo", "service_slos", "sla", "response_time_slo"
    )
    if found is None:
        return None
    report = old.report
    if not isinstance(found.value, Mapping):
        report.refuse(found.place, f"{said(found.value)} is not a mapping", "Write service: milliseconds")
        return None
    out: Tree = {}
    for name, value in found.value.items():
        service = service_of(name) or service_of(unit_of(plain_key(name))[0])
        unit_s = unit_of(plain_key(name))[1] or 0.001
        milliseconds = time_of(value, unit_s, 0.001)
        if service is None:
            report.refuse(at(found.place, name), "is not one of the five services", suggestion(name, SERVICES))
        elif milliseconds is None or milliseconds <= 0:
            text = f"{said(value)} is not a number of milliseconds above 0"
            report.refuse(at(found.place, name), text, "Write a number such as 250")
        else:
            out[service] = milliseconds
    if found.key != "service_slo_ms" or not same(out, found.value):
        report.note(found.place, said(found.value), f"service_slo_ms {said(out)}", "milliseconds by service")
    return out


def _own_rewards(old: Old) -> Tree | None:
    """Rewards of one's own, which only the files of this suite have: a function and a weight each."""
    if "rewards" not in old.keys:
        return None
    value = old.peek("rewards")
    if not isinstance(value, Mapping) or not all(_is_own_reward(one) for one in value.values()):
        return None  # weights, as older files have them
    return dict(old.take_key("rewards").value)


def _is_own_reward(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and set(value) == {"function", "weight"} and number_of(value["weight"]) is not None
    )


def _rewards(old: Old, beside: float) -> Tree | None:
    """The weights of the five, which add up to 1 with those `beside` them."""
    found = old.take("reward_weights", "rewards", "reward_function", "reward")
    if found is None:
        return None
    report = old.report
    if not isinstance(found.value, Mapping):
        report.refuse(found.place, f"{said(found.value)} is not a mapping", "Write component: weight")
        return None
    parts: Tree = {}
    for (name, value), read in zip(found.value.items(), parts_of(list(found.value.values())), strict=True):
        key = plain_key(name).removesuffix("_weight")
        if key not in REWARD_COMPONENTS:
            report.refuse(at(found.place, name), "is not a component of the reward", suggestion(key, REWARD_COMPONENTS))
        elif read is None:
            report.refuse(
                at(found.place, name), f"{said(value)} is not a weight of at least 0", "Write one such as 0.3"
            )
        else:
            parts[key] = read
    total = math.fsum(parts.values())
    if total <= 0 or len(parts) < len(found.value):
        if total <= 0:
            report.refuse(found.place, "has no weight above 0", "Give the components weights that add up to 1")
        return None
    written = parts if abs(total + beside - 1) <= SUM_TOLERANCE else to_sum_one(parts)
    written = written | {key: 0 for key in REWARD_COMPONENTS if key not in written}
    if found.key != "reward_weights" or not same(written, found.value):
        reason = f"all five components, scaled from {said(total)} to 1"
        report.note(found.place, said(found.value), f"reward_weights {said(written)}", reason)
    return written


def _url(value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return None
    return value.strip() if "://" in value else f"http://{value.strip()}"


def _whole_above_zero(value: Any) -> int | None:
    read = whole_of(value)
    return read if read is not None and read > 0 else None


def _whole_or_zero(value: Any) -> int | None:
    read = whole_of(value)
    return read if read is not None and read >= 0 else None


def _at_least_zero(value: Any) -> Any:
    read = number_of(value)
    return read if read is not None and read >= 0 else None
