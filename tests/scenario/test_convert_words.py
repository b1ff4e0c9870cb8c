"""Numbers, times and prose as people write them."""

import doctest
from random import Random

import pytest

from scenario.convert import prose, values
from scenario.convert.prose import conditions_of, service_in, value_of


@pytest.mark.parametrize(("module", "examples"), [(prose, 4), (values, 3)])
def test_the_worked_examples(module, examples):
    assert tuple(doctest.testmod(module)) == (0, examples)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("5x normal response time", {"latency_factor": 5}),
        ("5 times slower", {"latency_factor": 5}),
        ("Five times slower.", {"latency_factor": 5}),
        ("twice the normal latency", {"latency_factor": 2}),
        ("2.5\u00d7 latency", {"latency_factor": 2.5}),
        ("response time increases 5x", {"latency_factor": 5}),
        ("200% increase", {"latency_factor": 3}),
        ("300% response time increase", {"latency_factor": 4}),
        ("latency increased by 50%", {"latency_factor": 1.5}),
        ("400% of normal response time", {"latency_factor": 4}),
        ("30% of requests fail", {"error_rate": 0.3}),
        ("30 percent of all requests return errors", {"error_rate": 0.3}),
        ("error rate of 30%", {"error_rate": 0.3}),
        ("half of requests fail", {"error_rate": 0.5}),
        ("all requests fail", {"error_rate": 1}),
        ("20% of requests timeout", {"timeout_rate": 0.2}),
        ("20% of requests time out", {"timeout_rate": 0.2}),
        ("15% timeout rate", {"timeout_rate": 0.15}),
        ("capacity reduced to 40%", {"capacity": 0.4}),
        ("capacity reduced by 40%", {"capacity": 0.6}),
        ("30% of cpu stolen", {"antagonist": 0.3}),
        ("complete outage", {"crash": True}),
        ("5x latency, 20% errors and 10% timeouts", {"latency_factor": 5, "error_rate": 0.2, "timeout_rate": 0.1}),
        ("normal", {}),
        ("all services recover", {}),
    ],
)
def test_prose_that_is_understood(text, conditions):
    assert conditions_of(text) == conditions


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slow",
        "5x",  # times what?
        "30%",
        "5x normal response time on Sundays",
        "30% of requests fail, more or less",
        "5x slower, 3x slower",
        "30% of users leave",
        "not down",
        "x" * 1000,
    ],
)
def test_prose_that_is_not_understood_as_a_whole(text):
    assert conditions_of(text) is None


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("latency_factor", "5x", 5),
        ("latency_factor", "300%", 3),
        ("latency_factor", "200% increase", 3),
        ("latency_factor", 5, 5),
        ("error_rate", "30%", 0.3),
        ("error_rate", 30, 0.3),
        ("error_rate", "30% of requests fail", 0.3),
        ("error_rate", "5x normal response time", None),
        ("error_rate", "200% increase", None),
        ("latency_factor", True, None),
        ("crash", True, True),
        ("crash", "perhaps", None),
    ],
)
def test_a_single_condition(key, value, read):
    assert value_of(key, value) == read


@pytest.mark.parametrize(
    ("text", "service", "rest"),
    [
        ("inventory service: 30% of requests fail", "inventory-service", "30% of requests fail"),
        ("30% of inventory requests fail", "inventory-service", "30% of requests fail"),
        ("5x slower in cart-service", "cart-service", "5x slower"),
        ("5x slower", None, "5x slower"),
    ],
)
def test_services_in_words(text, service, rest):
    assert service_in(text) == (service, rest)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("25", 25),
        (" 1,000 ", 1000),
        ("1e3", 1000),
        (0.5, 0.5),
        ("1,00", None),
        (True, None),
        ("nan", None),
        (None, None),
    ],
)
def test_numbers(value, read):
    assert values.number_of(value) == read


@pytest.mark.parametrize(
    ("value", "unit_s", "minutes"),
    [(300, 1.0, 5), ("300", 1.0, 5), ("5 min", None, 5), ("0.5h", 1.0, 30), (5, None, None), ("5 parsecs", 1.0, None)],
)
def test_times_in_minutes(value, unit_s, minutes):
    assert values.time_of(value, unit_s, 60.0) == minutes


@pytest.mark.parametrize(
    ("value", "pair"),
    [
        ([2, 5], (2, 5)),
        ({"min": 2, "max": 5}, (2, 5)),
        ("2-5", (2, 5)),
        (3, (3, 3)),
        ([1, 2, 3], None),
        ({"min": 2}, None),
        ({"min": 2, "max": 5, "step": 1}, None),
    ],
)
def test_ranges(value, pair):
    assert values.pair_of(value, values.number_of) == pair


def test_parts_add_up_to_one_and_keep_their_proportions():
    random = Random(3)
    for _ in range(300):
        parts = {str(index): random.random() * 100 for index in range(random.randint(1, 12))}
        whole, total = values.to_sum_one(parts), sum(parts.values())
        assert abs(sum(whole.values()) - 1) < 1e-9
        assert all(abs(whole[key] - part / total) <= 1e-6 for key, part in parts.items())
