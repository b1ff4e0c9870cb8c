"""From what came back to what is kept, what is missing and what the data will lack. Pure."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from rl_hooks.conformance.facts import (
    OF_SERVICES,
    OF_THE_BALANCER,
    UNKNOWN_ACTION,
    Answer,
    Ask,
    Facts,
    Page,
    Why,
    is_name,
)
from rl_hooks.conformance.metrics import labels_of
from rl_hooks.decision import (
    ACTION_INDEX,
    ACTIONS,
    NO_INSTANCE,
    RESPONSE_ACTION,
    RESPONSE_DECISION_ID,
    RESPONSE_INSTANCE,
    RESPONSE_LOAD,
    RESPONSE_POLICY,
    RESPONSE_PROPENSITY,
    RESPONSE_QUEUE_MS,
    RESPONSE_UPSTREAM_US,
    SERVICES,
    read_policy,
    read_propensity,
    read_us,
)
from scenario.errors import bare, show

CONTRACT_HEADERS = (RESPONSE_ACTION, RESPONSE_INSTANCE, RESPONSE_UPSTREAM_US, RESPONSE_QUEUE_MS)
DETAILS = ("X-LB-Flags", "X-LB-Attempts", "X-LB-Inflight")
OF_THE_SERVICE = ("X-Queue-Ms", "X-Service-Ms", "X-Queue-Depth", "X-Inflight")
SLACK_US = 2_000
"""How much longer than the whole the time upstream may look: two clocks of different grain."""
FEW_ANSWERS = 20  # of a service; among fewer, names that never come again prove nothing
KEEPS_CONNECTIONS = 0.5  # share of requests on a connection that was there

_FORWARDED = re.compile(rb"Failed to forward request: (\d{3})")
_GATEWAY = (502, 503, 504)  # answers for which no instance may have been there
_SHOWN = 4  # examples in one sentence


class Need(StrEnum):
    """How much the data needs it."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"
    OPTIONAL = "optional"


class Kept(StrEnum):
    """How it stands."""

    YES = "kept"
    PARTLY = "in part"
    NO = "missing"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one part of the contract."""

    name: str
    title: str
    need: Need
    kept: Kept
    found: str
    lacks: str  # what the data will lack; "" where it is kept
    way_out: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the contract, and how it is judged: (how it stands, what was seen)."""

    name: str
    title: str
    need: Need
    judge: Callable[[Facts], tuple[Kept, str]]
    lacks: str
    way_out: str


def judge(facts: Facts, *, steered_by_header: bool = True) -> list[Finding]:
    """Every part of the contract, in the order of PARTS.

    `steered_by_header` False: the balancer is steered otherwise or decides by itself, so it need not obey the header.
    """
    return [_find(part, facts, steered_by_header) for part in PARTS]


def broken(findings: Iterable[Finding]) -> list[Finding]:
    """The required parts that are not kept."""
    return [one for one in findings if one.need is Need.REQUIRED and one.kept in (Kept.PARTLY, Kept.NO)]


def _find(part: Part, facts: Facts, steered_by_header: bool) -> Finding:
    kept, found = part.judge(facts)
    good = kept is Kept.YES
    finding = Finding(
        part.name, part.title, part.need, kept, found, "" if good else part.lacks, "" if good else part.way_out
    )
    waived = not steered_by_header and part.name in STEERING
    return replace(finding, need=Need.OPTIONAL) if waived else finding


# -- can it be used at all ---------------------------------------------------------------------------------------------


def _health(facts: Facts) -> tuple[Kept, str]:
    sick = [f"{ask.service}: {_outcome(ask)}" for ask in facts.of(Why.HEALTH) if not _is_up(ask.answer)]
    count = len(facts.of(Why.HEALTH))
    if not sick:
        return Kept.YES, f"{count} services are UP"
    return _part_of(len(sick), count), "; ".join(sick)


def _is_up(answer: Answer | None) -> bool:
    content = _json(answer)
    return isinstance(content, dict) and content.get("status") == "UP" and answer is not None and answer.status == 200


def _outcome(ask: Ask) -> str:
    if ask.answer is None:
        return ask.error
    content = _json(ask.answer)
    if ask.answer.status != 200:
        return f"answered {ask.answer.status}"
    if isinstance(content, dict) and "status" in content:
        return f"says status {show(content['status'])}"
    return "answered 200, but not with a health report"


def _answered(facts: Facts) -> tuple[Kept, str]:
    silent = [ask for ask in facts.asks if ask.answer is None]
    total = len(facts.asks) + facts.not_asked
    left = f"; there was no time for {facts.not_asked} more" if facts.not_asked else ""
    if not silent and not left:
        return Kept.YES, f"all {total} requests"
    why = f" ({_counted(f'{ask.service}: {ask.error}' for ask in silent)})" if silent else ""
    return _part_of(len(silent) + facts.not_asked, total), f"{len(silent)} of {total} were not{why}{left}"


# -- the required headers ----------------------------------------------------------------------------------------------


def _action_header(facts: Facts) -> tuple[Kept, str]:
    return _header_of_all(facts, RESPONSE_ACTION, lambda _, value: is_name(value))


def _instance_header(facts: Facts) -> tuple[Kept, str]:
    return _header_of_all(
        facts,
        RESPONSE_INSTANCE,
        lambda answer, value: is_name(value) or (value == NO_INSTANCE and answer.status in _GATEWAY),
    )


def _header_of_all(facts: Facts, name: str, fits: Callable[[Answer, str], bool]) -> tuple[Kept, str]:
    """A header that every answer of a service has to carry."""
    good, bad = 0, []
    for _, answer in facts.answers(*OF_SERVICES):
        value = answer.get(name)
        if value is not None and fits(answer, value):
            good += 1
        else:
            bad.append(_what_is_wrong(answer, name))
    if good + len(bad) == 0:
        return Kept.NO, "no service answered"
    if not bad:
        return Kept.YES, f"on all {good} answers"
    return _part_of(len(bad), good + len(bad)), f"on {good} of {good + len(bad)} answers; {_counted(bad)}"


def _what_is_wrong(answer: Answer, name: str) -> str:
    values = answer.all(name)
    if not values:
        return f"absent with status {answer.status}"
    if len(set(values)) > 1:
        return "several that differ"
    return f"{_value(values[0])} with status {answer.status}"


def _own_errors(facts: Facts) -> tuple[Kept, str]:
    """Both headers on what the balancer may have to answer by itself."""
    asks, bad = facts.of(*OF_THE_BALANCER), []
    for ask in asks:
        if ask.answer is None:
            bad.append(f"{ask.why}: {ask.error}")
            continue
        lacking = [name for name in (RESPONSE_ACTION, RESPONSE_INSTANCE) if ask.answer.get(name) in (None, "")]
        if lacking:
            bad.append(f"{ask.why} (answered {ask.answer.status}): no {' and no '.join(lacking)}")
    if not asks:
        return Kept.UNKNOWN, "there was no time to ask"
    if not bad:
        return Kept.YES, ", ".join(f"{ask.why}: {ask.answer.status}" for ask in asks if ask.answer is not None)
    return _part_of(len(bad), len(asks)), "; ".join(bad)


def _service_errors(facts: Facts) -> tuple[Kept, str]:
    errors = [answer for _, answer in facts.answers(*OF_SERVICES) if answer.status >= 400]
    lacking = [
        f"{answer.status} without {name}"
        for answer in errors
        for name in (RESPONSE_ACTION, RESPONSE_INSTANCE)
        if answer.get(name) is None
    ]
    if not errors:
        return Kept.UNKNOWN, "no service answered with an error"
    seen = _counted(str(answer.status) for answer in errors)
    if not lacking:
        return Kept.YES, f"{len(errors)} answers ({seen})"
    return _part_of(len(lacking), 2 * len(errors)), _counted(lacking)


def _one_value(facts: Facts) -> tuple[Kept, str]:
    """No header of the contract is there twice with different values: nobody can tell which one is meant."""
    twice = Counter[str]()
    for _, answer in facts.answers(*OF_SERVICES, *OF_THE_BALANCER):
        twice.update(name for name in CONTRACT_HEADERS if len(set(answer.all(name))) > 1)
    if not twice:
        return Kept.YES, "no header is there twice with different values"
    return Kept.NO, ", ".join(f"{name} on {count} answers" for name, count in twice.items())


def _names(facts: Facts) -> tuple[Kept, str]:
    """Instances have names that come again, and not another one for every answer."""
    known, seen = facts.instances(), Counter[str]()
    for ask, answer in facts.answers(*OF_SERVICES):
        value = answer.get(RESPONSE_INSTANCE)
        seen[ask.service] += value is not None and is_name(value)
    if not seen.total():
        return Kept.NO, "no instance said its name"
    loose = [
        f"{service}: {len(names)} names in {seen[service]} answers"
        for service, names in known.items()
        if seen[service] >= FEW_ANSWERS and len(names) > seen[service] / 2
    ]
    if loose:
        return _part_of(len(loose), len(known)), "; ".join(loose)
    return Kept.YES, ", ".join(f"{service} {len(names)}" for service, names in known.items())


def _several(facts: Facts) -> tuple[Kept, str]:
    known = facts.instances()
    single = [service for service, names in known.items() if len(names) < 2]
    if not single:
        return Kept.YES, f"{sum(map(len, known.values()))} instances"
    return _part_of(len(single), len(known)), f"fewer than two were seen of {', '.join(single)}"


# -- steering by header ------------------------------------------------------------------------------------------------


def _obeys(facts: Facts) -> tuple[Kept, str]:
    wrong: dict[str, Counter[str]] = {}
    asked = [(ask, answer) for ask, answer in facts.answers(Why.ASKED) if ask.action is not None]
    for ask, answer in asked:
        if answer.get(RESPONSE_ACTION) != ask.action:
            wrong.setdefault(ask.action or "", Counter())[_applied(answer)] += 1
    if not asked:
        return Kept.NO, "no service answered"
    if not wrong:
        return Kept.YES, f"all six in {len({ask.service for ask, _ in asked})} services"
    told = "; ".join(f"{action} was answered by {_counts(values)}" for action, values in wrong.items())
    # The strategy a balancer always applies is right once in six times: that is not obeying in part.
    return Kept.PARTLY if len(wrong) < len(ACTIONS) - 1 else Kept.NO, told


def _no_leak(facts: Facts) -> tuple[Kept, str]:
    """An action that is applied in a row is applied among others too."""
    right: dict[tuple[str, str | None], bool] = {}
    for ask, answer in facts.answers(Why.ASKED):
        key = (ask.service, ask.action)
        right[key] = right.get(key, True) and answer.get(RESPONSE_ACTION) == ask.action
    mixed = [pair for pair in facts.answers(Why.MIXED) if right.get((pair[0].service, pair[0].action))]
    leaks = [f"{ask.action} got {_applied(answer)}" for ask, answer in mixed if _applied(answer) != ask.action]
    if not mixed:
        return Kept.UNKNOWN, "no action is applied even alone"
    if not leaks:
        return Kept.YES, f"{len(mixed)} requests in turn and at once, each under its own"
    return _part_of(len(leaks), len(mixed)), f"{len(leaks)} of {len(mixed)} requests: {_counted(leaks)}"


def _fallback(facts: Facts) -> tuple[Kept, str]:
    """Without an action, and with one that does not exist, the balancer's own is applied, and named."""
    bad, own = [], Counter[str]()
    asks = list(facts.answers(Why.ABSENT, Why.UNKNOWN))
    for ask, answer in asks:
        value = answer.get(RESPONSE_ACTION)
        if value is None or not is_name(value):
            bad.append(f"{ask.why} action: {_what_is_wrong(answer, RESPONSE_ACTION)}")
        elif value == UNKNOWN_ACTION:
            bad.append("an action that does not exist is said to be applied")
        else:
            own[value] += 1
    if not asks:
        return Kept.NO, "no service answered"
    if bad:
        return _part_of(len(bad), len(asks)), _counted(bad)
    strange = [name for name in own if name not in ACTION_INDEX]
    if strange:
        shown = ", ".join(bare(name) for name in strange[:_SHOWN])
        return Kept.PARTLY, f"its own is {shown}, none of the six actions"
    return Kept.YES, f"its own: {_counts(own)}"


def _pin(facts: Facts) -> tuple[Kept, str]:
    pinned, unknown = list(facts.answers(Why.PINNED)), list(facts.answers(Why.UNKNOWN_PIN))
    missed = sum(answer.get(RESPONSE_INSTANCE) != ask.pin for ask, answer in pinned)
    if not pinned:
        return Kept.UNKNOWN, "no instance is known to pin"
    statuses = _counted(
        f"{answer.status} by {'an instance' if is_name(answer.get(RESPONSE_INSTANCE) or '') else 'none'}"
        for _, answer in unknown
    )
    told = f"a name that does not exist: {statuses}"
    if not missed:
        return Kept.YES, f"{len(pinned)} of {len(pinned)} requests; {told}"
    share = Kept.NO if missed > len(pinned) / 2 else Kept.PARTLY
    return share, f"{len(pinned) - missed} of {len(pinned)} requests reached their instance; {told}"


# -- what makes the data richer ----------------------------------------------------------------------------------------


def _upstream(facts: Facts) -> tuple[Kept, str]:
    return _time_header(facts, RESPONSE_UPSTREAM_US, 1)


def _queue(facts: Facts) -> tuple[Kept, str]:
    return _time_header(facts, RESPONSE_QUEUE_MS, 1000)


def _time_header(facts: Facts, name: str, unit_us: int) -> tuple[Kept, str]:
    """A time that makes sense: a number, and not longer than the whole request took."""
    good, bad = [], []
    for _, answer in facts.answers(*OF_SERVICES):
        values = answer.all(name)
        value_us = read_us(answer.get(name), unit_us)
        if value_us is None:
            bad.append("absent" if not values else f"{_value(values[0])} is no time" if len(values) == 1 else "several")
        elif value_us > answer.duration_us + SLACK_US:
            bad.append("longer than the whole request")
        else:
            good.append(value_us)
    total = len(good) + len(bad)
    if not bad and good:
        low, high = min(good) / 1000, max(good) / 1000
        return Kept.YES, f"{low:g} to {high:g} ms"
    return _part_of(len(bad), total), f"on {len(good)} of {total} answers; {_counted(bad)}"


def _details(facts: Facts) -> tuple[Kept, str]:
    return _present(facts, DETAILS)


def _service_headers(facts: Facts) -> tuple[Kept, str]:
    return _present(facts, OF_THE_SERVICE)


def _present(facts: Facts, names: Sequence[str]) -> tuple[Kept, str]:
    answers = [answer for _, answer in facts.answers(*OF_SERVICES)]
    shares = {name: sum(bool(answer.all(name)) for answer in answers) for name in names}
    absent = [name for name, count in shares.items() if not count]
    if len(absent) == len(names):
        return Kept.NO, f"no {', '.join(names)}"
    if absent:
        return Kept.PARTLY, f"no {', '.join(absent)}"
    return Kept.YES, ", ".join(names)


def _trace(facts: Facts) -> tuple[Kept, str]:
    pairs = list(facts.answers(*OF_SERVICES))
    echoed = sum(answer.get("x-trace-id") == ask.trace_id for ask, answer in pairs)
    if echoed == len(pairs) and pairs:
        return Kept.YES, f"on all {echoed} answers"
    return _part_of(len(pairs) - echoed, len(pairs)), f"on {echoed} of {len(pairs)} answers"


def _backend_status(facts: Facts) -> tuple[Kept, str]:
    """Errors of a service are told from those of the balancer: passed through, or named in its 502."""
    errors = [answer for _, answer in facts.answers(*OF_SERVICES) if answer.status >= 400]
    hidden = [
        f"{answer.status} with no status of the service"
        for answer in errors
        if answer.status in _GATEWAY
        and is_name(answer.get(RESPONSE_INSTANCE) or "")
        and not _FORWARDED.search(answer.body)
    ]
    if not errors:
        return Kept.UNKNOWN, "no service answered with an error"
    if hidden:
        return _part_of(len(hidden), len(errors)), _counted(hidden)
    told = sum(_FORWARDED.search(answer.body) is not None for answer in errors)
    return Kept.YES, f"{len(errors) - told} passed through, {told} told in the balancer's own text"


def _decides_itself(facts: Facts) -> tuple[Kept, str]:
    """What observing needs: where no action is asked for, action, propensity and policy are told."""
    answers = [answer for _, answer in facts.answers(Why.ABSENT)]
    good = 0
    odd: list[str] = []
    for answer in answers:
        stated = answer.get(RESPONSE_PROPENSITY)
        if read_propensity(stated) is None and answer.all(RESPONSE_PROPENSITY):
            odd.append(f"{RESPONSE_PROPENSITY} {_value(answer.all(RESPONSE_PROPENSITY)[0])}")
        elif read_policy(answer.get(RESPONSE_POLICY)) is None and answer.all(RESPONSE_POLICY):
            odd.append(f"{RESPONSE_POLICY} {_value(answer.all(RESPONSE_POLICY)[0])}")
        good += read_propensity(stated) is not None
    if odd:
        return Kept.PARTLY, f"not valid: {_counted(odd)}"
    if not good:
        return Kept.NO, f"no {RESPONSE_PROPENSITY}"
    lacking = [name for name in (RESPONSE_POLICY, RESPONSE_DECISION_ID) if not any(one.all(name) for one in answers)]
    if good < len(answers) or lacking:
        without = f"; no {', '.join(lacking)}" if lacking else ""
        return Kept.PARTLY, f"{RESPONSE_PROPENSITY} on {good} of {len(answers)} answers{without}"
    return Kept.YES, f"{RESPONSE_PROPENSITY}, {RESPONSE_POLICY} and {RESPONSE_DECISION_ID} on all {good} answers"


def _orca(facts: Facts) -> tuple[Kept, str]:
    reports = [text for _, answer in facts.answers(*OF_SERVICES) for text in answer.all(RESPONSE_LOAD)]
    good = sum(_has_utilization(text) for text in reports)
    if not reports:
        return Kept.NO, f"no {RESPONSE_LOAD}"
    if good < len(reports):
        return Kept.PARTLY, f"{good} of {len(reports)} reports have a cpu_utilization of 0 to 1"
    return Kept.YES, f"{len(reports)} reports"


def _has_utilization(text: str) -> bool:
    try:
        report = json.loads(text.removeprefix("JSON "))
    except (ValueError, RecursionError):
        return False
    value = report.get("cpu_utilization") if isinstance(report, dict) else None
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


FAMILIES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lb_pod_requests_total": (("service",), ("pod", "pod_name", "instance"), ("action",), ("code",)),
    "lb_pod_active_requests": (("service",), ("pod", "pod_name", "instance")),
    "lb_pod_response_time": (("service",), ("pod", "pod_name", "instance")),
}
"""Metrics of the contract, with any prefix -> their labels, each under one of these names."""


def _metrics(facts: Facts) -> tuple[Kept, str]:
    pages = [(page.url, labels_of(body)) for page in facts.metrics if (body := _body_of(page))]
    if not pages:
        return Kept.NO, "; ".join(f"{page.url}: {_page_said(page)}" for page in facts.metrics) or "not looked for"
    return min((_metrics_of(url, found) for url, found in pages), key=lambda one: list(Kept).index(one[0]))


def _metrics_of(url: str, found: Mapping[str, set[str]]) -> tuple[Kept, str]:
    bad, absent = [], 0
    for family, needed in FAMILIES.items():
        mine = [labels for name, labels in found.items() if re.search(rf"(^|_){family}", name)]
        if not mine:
            bad.append(f"no {family}")
            absent += 1
            continue
        best = min(([names[0] for names in needed if not labels & {*names}] for labels in mine), key=len)
        if best:
            bad.append(f"{family} has no label {', '.join(best)}")
    if bad:
        return Kept.NO if absent == len(FAMILIES) else Kept.PARTLY, f"{url}: {'; '.join(bad)}"
    return Kept.YES, url


def _body_of(page: Page) -> bytes | None:
    return page.answer.body if page.answer is not None and page.answer.status == 200 else None


def _page_said(page: Page) -> str:
    return page.error if page.answer is None else f"answered {page.answer.status}"


def _admin(facts: Facts) -> tuple[Kept, str]:
    page = facts.admin
    if page is None:
        return Kept.UNKNOWN, "not looked for"
    content = _json(page.answer) if _body_of(page) is not None else None
    listed = [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    named = [one["name"] for one in listed if one.get("name") in SERVICES and isinstance(one.get("instances"), list)]
    if not named:
        said = _page_said(page) if _body_of(page) is None else "not a list of services with instances"
        return Kept.NO, f"{page.url}: {said}"
    absent = [name for name in SERVICES if name not in named]
    return (Kept.PARTLY, f"{page.url}: no {', '.join(absent)}") if absent else (Kept.YES, page.url)


def _reuse(facts: Facts) -> tuple[Kept, str]:
    answers = [answer for _, answer in facts.answers(*OF_SERVICES)]
    kept = sum(answer.reused for answer in answers)
    told = f"{kept} of {len(answers)} requests on a connection that was there"
    if not kept:
        return Kept.NO, told
    return Kept.YES if kept / len(answers) >= KEEPS_CONNECTIONS else Kept.PARTLY, told


# -- words -------------------------------------------------------------------------------------------------------------


def _part_of(bad: int, total: int) -> Kept:
    return Kept.NO if bad >= total else Kept.PARTLY


def _applied(answer: Answer) -> str:
    """The action that an answer names, fit to be shown."""
    values = answer.all(RESPONSE_ACTION)
    if not values:
        return "no action"
    return _value(values[0]) if len(set(values)) == 1 else "several actions"


def _value(text: str) -> str:
    """A value of a header within a sentence: never anything that a terminal would obey, never long."""
    return text if text in ACTION_INDEX else show(text)


def _counted(texts: Iterable[str]) -> str:
    return _counts(Counter(texts))


def _counts(counter: Counter[str]) -> str:
    shown = [f"{bare(text)} ({count})" if count > 1 else bare(text) for text, count in counter.most_common(_SHOWN)]
    more = [f"and {len(counter) - _SHOWN} others"] if len(counter) > _SHOWN else []
    return ", ".join([*shown, *more])


def _json(answer: Answer | None) -> Any:
    if answer is None:
        return None
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


# -- the contract ------------------------------------------------------------------------------------------------------

_NEED_ACTION = "nobody knows what routed a request: steps are left out of the splits (action_differs)"
_NEED_INSTANCE = "which instance served a request, and the reward load_balance"

PARTS: tuple[Part, ...] = (
    Part(
        "health",
        "every service is healthy",
        Need.REQUIRED,
        _health,
        "everything: a run does not begin before every service is UP",
        "Correct the URL, start the services, or let the balancer pass GET <host>/<service>/actuator/health on",
    ),
    Part(
        "answered",
        "every request is answered in time",
        Need.REQUIRED,
        _answered,
        "requests without an end, and whatever could not be asked here",
        "Look at the balancer and its log",
    ),
    Part(
        "action_header",
        "X-LB-Action: the strategy applied",
        Need.REQUIRED,
        _action_header,
        _NEED_ACTION,
        "Add the header to every answer, and keep gateways in front from taking it away",
    ),
    Part(
        "instance_header",
        "X-LB-Instance: who served it",
        Need.REQUIRED,
        _instance_header,
        _NEED_INSTANCE,
        "Add the header to every answer; - where no instance was contacted",
    ),
    Part(
        "own_errors",
        "both headers on the balancer's own errors",
        Need.REQUIRED,
        _own_errors,
        "failures that the strategy caused (no instance, shed load) are credited to none",
        "Add the headers to local replies too",
    ),
    Part(
        "service_errors",
        "both headers on errors of a service",
        Need.REQUIRED,
        _service_errors,
        "failed requests are credited to no strategy, so a strategy that causes them looks better than it is",
        "Add the headers whatever the status (nginx: `always`)",
    ),
    Part(
        "one_value",
        "one value for each header",
        Need.REQUIRED,
        _one_value,
        "which of the values is meant: such answers tell nothing",
        "Let one place set each header, and set it instead of adding to it",
    ),
    Part(
        "names",
        "instances keep their names",
        Need.REQUIRED,
        _names,
        _NEED_INSTANCE,
        "Send the name of the pod or server, not something that is new with every request",
    ),
    Part(
        "obeys",
        "X-RL-Action: all six strategies on request",
        Need.REQUIRED,
        _obeys,
        "actions that were drawn and not applied: their steps are left out",
        "Look whether something strips the header; or steer otherwise (--actuator), leave actions out, or observe",
    ),
    Part(
        "no_leak",
        "each request under its own action",
        Need.REQUIRED,
        _no_leak,
        "requests at a change of the action are served by the other one",
        "Choose by the request's own header, not by a state of the connection or the balancer",
    ),
    Part(
        "fallback",
        "without an action its own is applied, and named",
        Need.REQUIRED,
        _fallback,
        "what served requests that asked for nothing",
        "Send the name of the strategy that was applied, one of the six where it is one",
    ),
    Part(
        "several",
        "several instances to choose from",
        Need.RECOMMENDED,
        _several,
        "a difference between actions: with one instance all do the same",
        "Scale the service to two instances or more",
    ),
    Part(
        "upstream",
        "X-LB-Upstream-Us: time at the instance",
        Need.RECOMMENDED,
        _upstream,
        "upstream_us of the requests: time in the network cannot be told from time at the instance",
        "Send the time from the choice of the instance to the end of its answer, in microseconds",
    ),
    Part(
        "queue",
        "X-LB-Queue-Ms: time in a queue",
        Need.RECOMMENDED,
        _queue,
        "queue_us of the requests: time in a queue cannot be told from work",
        "Send the time a request waited in the balancer, in milliseconds",
    ),
    Part(
        "details",
        "X-LB-Flags, X-LB-Attempts, X-LB-Inflight",
        Need.RECOMMENDED,
        _details,
        "nothing of the bundle; whoever looks into a failure has less to go by",
        "Send why a request failed, how often it was tried, and what was in flight when it was sent",
    ),
    Part(
        "trace",
        "X-Trace-Id comes back",
        Need.RECOMMENDED,
        _trace,
        "the id by which a request is found in the balancer's log",
        "Send the request's header back",
    ),
    Part(
        "backend_status",
        "the service's status is known",
        Need.RECOMMENDED,
        _backend_status,
        "backend_status of the requests: an error of a service looks like one of the balancer",
        "Pass the status through, or begin the text of a 502 with it",
    ),
    Part(
        "metrics",
        "lb_pod_* metrics",
        Need.RECOMMENDED,
        _metrics,
        "what the balancer knows of its instances (in flight, counts, times), unless another source has it",
        "Name the page with --metrics; docs/sources.md lists what else can be a source",
    ),
    Part(
        "reuse",
        "connections are kept",
        Need.RECOMMENDED,
        _reuse,
        "every latency includes a connection of its own",
        "Let the balancer keep connections alive for some seconds",
    ),
    Part(
        "pin",
        "X-LB-Pin: an instance on request",
        Need.OPTIONAL,
        _pin,
        "actions that are instances (--action-space instances)",
        "Route a request with this header to the instance of that name",
    ),
    Part(
        "decides_itself",
        "X-LB-Propensity, X-LB-Policy, X-LB-Decision-Id",
        Need.OPTIONAL,
        _decides_itself,
        "propensities when it is observed: off-policy evaluation of such a bundle is refused",
        "Send the probability of the action that was taken, above 0 and at most 1",
    ),
    Part(
        "orca",
        "endpoint-load-metrics: the instance's own load",
        Need.OPTIONAL,
        _orca,
        "load of instances that comes with the answers (the source orca)",
        "Let the services send ORCA load reports as JSON",
    ),
    Part(
        "service_headers",
        "X-Queue-Ms, X-Service-Ms, X-Queue-Depth, X-Inflight",
        Need.OPTIONAL,
        _service_headers,
        "nothing of the bundle",
        "Let the services send them, and the balancer pass them on",
    ),
    Part(
        "admin",
        "GET /api/services",
        Need.OPTIONAL,
        _admin,
        "metrics from the balancer's admin API (the source admin)",
        "There are other sources: docs/sources.md",
    ),
)
STEERING = frozenset({"obeys", "no_leak"})
"""Parts that only a balancer which is steered by header has to keep."""
