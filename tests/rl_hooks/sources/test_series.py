"""What series say at a moment: their own times, sums that double nothing, ranges, names."""

import doctest
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rl_hooks.sources import series
from rl_hooks.sources.series import Field, Label, Naming, SampleClock, Selector, Series, SeriesError, Told, tell

CART = {"service": "cart-service", "pod": "cart-service-1", "job": "pods"}
S = 1_000_000_000


def made(values: Sequence[float], t_s: Sequence[float], took_s: float = 0.0, name: str = "m", **labels: str) -> Series:
    t_ns = np.round(np.array(t_s) * S).astype(np.int64)
    return Series(name, {**CART, **labels}, t_ns, t_ns + round(took_s * S), np.array(values, np.float64))


def told(found: Sequence[Series], *moments_s: float, of: Sequence[Series] = (), **special: Any) -> Told:
    """What one field says whose selector finds `found`, and its limit `of`."""
    special = {"name": "queue_depth", "stale_ns": 3 * S, **special}
    if of:
        special["of"] = Selector.parse("limit")
    field = Field(selector=Selector.parse("m"), **special)
    moments_ns = np.round(np.array(moments_s) * S).astype(np.int64)
    return tell([field], Naming(), {"m": found, "limit": of}, moments_ns)


def values(found: Sequence[Series], *moments_s: float, **special: Any) -> list[float]:
    (table,) = told(found, *moments_s, **special).values.values()
    return [float(value) for value in table[:, 0]]


def test_doctests_hold() -> None:
    assert doctest.testmod(series).failed == 0


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_value_counts_from_its_own_time_on_and_not_before() -> None:
    assert values([made([7, 8], [1, 2])], 0.999, 1, 1.999, 2) == pytest.approx([math.nan, 7, 7, 8], nan_ok=True)


def test_a_value_counts_only_when_its_scrape_has_ended() -> None:
    """Looking ahead by the duration of a scrape is looking ahead."""
    assert values([made([7, 8], [1, 2], took_s=0.5)], 1.4, 1.5, 2.4, 2.5) == pytest.approx(
        [math.nan, 7, 7, 8], nan_ok=True
    )


def test_no_moment_is_told_anything_of_its_future() -> None:
    """Each value is its own time; at random moments no value is younger, and none that was known is passed over."""
    rng = np.random.default_rng(5)
    t_s = np.cumsum(rng.uniform(0.5, 1.5, 200))
    took = rng.uniform(0, 0.4, 200)
    one = made(t_s, t_s)
    one = Series(one.name, one.labels, one.t_ns, one.t_ns + np.round(took * S).astype(np.int64), one.values)
    moments = np.sort(rng.uniform(t_s[0] + 1, t_s[-1], 500))
    found = np.array(values([one], *moments))
    assert (found <= moments + 1e-9).all()
    known = t_s + took
    assert found == pytest.approx([t_s[known <= moment + 1e-9].max() for moment in moments])


def test_a_stale_value_is_missing_and_its_instance_keeps_its_place_for_a_while() -> None:
    seen = told([made([7], [1])], 4, 4.001, 7, 7.001)
    assert seen.values["queue_depth"][:, 0] == pytest.approx([7, math.nan, math.nan, math.nan], nan_ok=True)
    assert seen.listed[:, 0].tolist() == [True, True, True, False]
    assert seen.oldest_ns.tolist() == [S, 0, 0, 0]


def test_an_instance_that_went_silent_is_marked_beside_one_that_did_not() -> None:
    both = told([made([7], [1]), made([9], [5], pod="cart-service-2")], 5)
    one, other = both.samples(0)
    assert (one.instance, math.isnan(one.queue_depth), one.up) == ("cart-service-1", True, None)
    assert (other.instance, other.queue_depth) == ("cart-service-2", 9)


def test_a_samples_time_is_that_of_the_oldest_value_in_it() -> None:
    both = told([made([7], [1]), made([9], [3.5], pod="cart-service-2")], 3.6)
    sample = SampleClock().sample(both, 0, 4 * S)
    assert sample is not None
    assert (sample.t_ns, sample.received_ns) == (S, 4 * S)


def test_samples_are_told_apart_by_their_times_also_when_the_oldest_value_is_the_same() -> None:
    """An observation window adds up what has one time: a queue would count twice."""
    both = told([made([7], [1]), made([9, 10], [2, 3], pod="cart-service-2")], 2, 3)
    clock = SampleClock()
    samples = [clock.sample(both, row, 4 * S) for row in (0, 1)]
    assert [sample.t_ns for sample in samples if sample is not None] == [S, S + 1]


def test_nothing_known_is_no_sample() -> None:
    assert SampleClock().sample(told([made([7], [1])], 0.5), 0, S) is None


# -- sums, parts, rates -----------------------------------------------------------------------------------------------


def test_series_of_one_instance_are_added_up() -> None:
    assert values([made([2], [1], code="200"), made([3], [1], code="502")], 1) == [5]


def test_of_series_that_were_replaced_only_the_fresh_ones_are_added_up() -> None:
    assert values([made([2], [1], replica="a"), made([3], [5], replica="b")], 5) == [3]


def test_two_jobs_that_scrape_one_instance_are_refused_instead_of_counted_twice() -> None:
    with pytest.raises(SeriesError) as caught:
        values([made([2], [1]), made([2], [1], job="again")], 1)
    assert str(caught.value) == (
        "queue_depth of cart-service-1: series of several jobs would be added up (again, pods); "
        'choose one with job="..." in the selector of fields.queue_depth, in a file'
    )


def test_jobs_may_differ_from_instance_to_instance() -> None:
    """One job per service is usual."""
    found = told([made([2], [1]), made([3], [1], job="other", pod="cart-service-2")], 1)
    assert found.values["queue_depth"].tolist() == [[2, 3]]


def test_names_that_differ_in_their_prefix_are_not_added_up() -> None:
    with pytest.raises(SeriesError, match=r"several names would be added up \(a_m, m\)"):
        values([made([2], [1]), made([2], [1], name="a_m")], 1)


def test_a_part_is_of_those_limits_that_are_limits() -> None:
    """The JVM states -1 for a pool without a limit of its own."""
    used = [made([30], [1], id="eden"), made([20], [1], id="old")]
    limits = [made([-1], [1], id="eden"), made([100], [1], id="old")]
    assert values(used, 1, of=limits, name="memory", high=1.0) == [0.5]
    assert math.isnan(values(used, 1, of=limits[:1], name="memory", high=1.0)[0])


@pytest.mark.parametrize("odd", [-1, 1.5, math.nan, math.inf, -math.inf])
def test_a_value_out_of_its_range_is_missing(odd: float) -> None:
    found = told([made([odd], [1])], 1, name="cpu", high=1.0)
    assert math.isnan(found.values["cpu"][0, 0])
    assert found.oldest_ns.tolist() == [0]


def test_one_part_out_of_range_makes_the_sum_missing() -> None:
    assert math.isnan(values([made([-1], [1], code="1"), made([3], [1], code="2")], 1)[0])


def test_values_are_scaled_before_their_range_is_looked_at() -> None:
    assert values([made([40], [1])], 1, name="cpu", scale=0.01, high=1.0) == [0.4]


def test_a_rate_is_made_of_the_two_newest_raw_values() -> None:
    """Not extrapolated; of one value alone, or of a counter that began anew, there is none."""
    one = made([10, 11, 14, 2], [0, 2, 4, 6])
    assert values([one], 1, 2, 4, 5, 6, rate=True) == pytest.approx([math.nan, 0.5, 1.5, 1.5, math.nan], nan_ok=True)


# -- which series, and of whom ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("m", True),
        ('m{pod="cart-service-1"}', True),
        ('m{pod=~"cart-.*",job!="lb"}', True),
        ('m{pod=~"cart"}', False),  # anchored
        ('m{zone=""}', True),  # an absent label is an empty one
        ('m{zone!=""}', False),
        ('{__name__=~"m|n", job!~"p.*"}', False),
        ("mm", False),
    ],
)
def test_a_selector_finds_what_prometheus_would_find(text: str, matches: bool) -> None:
    assert Selector.parse(text).matches(made([1], [1])) is matches


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rate(m[5m])", 'is no selector; write name{label="value"}, without functions and without a range'),
        ("", "is no selector"),
        ("m{pod}", "'pod' is no matcher"),
        ('{job="a"}', "names no metric"),
        ('m{a=~"("}', "is no regular expression"),
    ],
)
def test_what_is_no_selector_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SeriesError) as caught:
        Selector.parse(text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"service": "order-service", "pod": "p-1"}, (3, "p-1")),
        ({"pod_name": "order-service-2"}, (3, "order-service-2")),
        ({"exported_pod": "order-service-2", "pod": "prometheus-0"}, (3, "order-service-2")),
        ({"service": "recommendations", "pod": "recommendations-1"}, None),
        ({"service": "order-service", "pod": "-"}, None),  # refused by the balancer: no instance was contacted
        ({"service": "order-service"}, None),
        ({"pod": "order-services-1"}, None),
    ],
)
def test_labels_name_service_and_instance(labels: dict[str, str], named: tuple[int, str] | None) -> None:
    assert Naming().of(labels) == named


def test_a_pattern_makes_our_name_of_a_label() -> None:
    naming = Naming(instance=Label(("instance",), r"([a-z-]+-\d+)\..*:\d+"))
    assert naming.of({"instance": "cart-service-2.shop.svc:8080"}) == (2, "cart-service-2")
    assert naming.of({"instance": "10.0.0.1:8080"}) is None


def test_of_several_usual_names_the_first_counts_that_is_there() -> None:
    fields = [Field("cpu", Selector.parse(name)) for name in ("nowhere", "first", "second")]
    found = {"first": [made([0.1], [1])], "second": [made([0.2], [1], pod="cart-service-2")]}
    assert tell(fields, Naming(), found, np.array([S])).values["cpu"].tolist() == [[0.1]]
