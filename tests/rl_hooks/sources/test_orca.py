"""The newest load report of each instance, as long as it is fresh."""

import math

import pytest

from rl_hooks.control import SourceError
from rl_hooks.sources.orca import OrcaSource

S = 1_000_000_000
CART, ORDER = 2, 3


class Clock:
    now_s = 100.0

    def __call__(self) -> int:
        return round(self.now_s * S)


def source(clock: Clock) -> OrcaSource:
    return OrcaSource(fresh_s=5, now_ns=clock)


def test_it_reads_responses() -> None:
    assert OrcaSource("http://127.0.0.1:9").reads_responses is True
    assert OrcaSource("http://127.0.0.1:9").describe() == "orca"


def test_the_newest_report_of_each_instance_counts_in_whatever_order_they_come() -> None:
    clock = Clock()
    one = source(clock)
    one.push_reports(
        [
            (CART, "cart-service-1", '{"cpu_utilization": 0.9}', 99 * S),
            (CART, "cart-service-1", '{"cpu_utilization": 0.1}', 98 * S),
            (ORDER, "order-service-1", "TEXT cpu_utilization=0.4,named_metrics.in_flight=3", 97 * S),
        ]
    )
    sample = one.sample()
    assert [(i.service, i.instance, i.cpu) for i in sample.instances] == [
        (CART, "cart-service-1", 0.9),
        (ORDER, "order-service-1", 0.4),
    ]
    assert sample.instances[1].in_flight == 3
    assert math.isnan(sample.instances[0].in_flight)
    assert (sample.t_ns, sample.received_ns) == (97 * S, 100 * S)


def test_a_report_that_is_too_old_is_missing_and_its_instance_marked() -> None:
    clock = Clock()
    one = source(clock)
    one.push_reports(
        [(CART, "a", "TEXT cpu_utilization=0.4", 100 * S), (CART, "b", "TEXT cpu_utilization=0.6", 104 * S)]
    )
    clock.now_s = 105.5
    old, fresh = one.sample().instances
    assert (math.isnan(old.cpu), fresh.cpu) == (True, 0.6)
    clock.now_s = 120
    with pytest.raises(SourceError, match="no answer of the last 5 s had a load report with a value within its range"):
        one.sample()


def test_a_report_of_a_time_to_come_says_nothing_about_now() -> None:
    one = source(Clock())
    one.push_reports([(CART, "a", "TEXT cpu_utilization=0.4", 101 * S)])
    with pytest.raises(SourceError):
        one.sample()


def test_a_value_out_of_its_range_is_missing() -> None:
    one = source(Clock())
    one.push_reports([(CART, "a", "TEXT cpu_utilization=-1,mem_utilization=0.5,named_metrics.queue=nan", 99 * S)])
    (instance,) = one.sample().instances
    assert math.isnan(instance.cpu)
    assert math.isnan(instance.queue_depth)
    assert instance.memory == 0.5


def test_without_any_report_it_says_what_to_look_at() -> None:
    with pytest.raises(
        SourceError, match="no answer had the header endpoint-load-metrics yet; do the services send it"
    ):
        source(Clock()).sample()


@pytest.mark.parametrize("text", ["BIN CAESBA==", "[" * 9000, 'JSON {"a":' * 3000, "nonsense"])
def test_reports_that_cannot_be_read_are_counted_and_the_first_is_shown(text: str) -> None:
    one = source(Clock())
    one.push_reports([(CART, "a", text, 99 * S), (CART, "a", "nonsense", 99 * S)])
    assert (one.reports, one.unreadable) == (2, 2)
    with pytest.raises(SourceError, match="2 of 2 load reports cannot be read; the first: "):
        one.sample()
