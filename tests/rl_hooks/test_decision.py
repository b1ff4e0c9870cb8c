"""The header contract: what is written can be read back, and nothing odd from the network becomes a fact."""

import pytest

from rl_hooks.decision import ACTIONS, Served, read_request, read_response, read_us, write_request, write_response


@pytest.mark.parametrize("action", [*ACTIONS, None])
def test_a_request_asks_for_what_was_written(action: str | None) -> None:
    assert read_request(write_request(action)) == action


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("instance", ["cart-service-1", None])
@pytest.mark.parametrize(("upstream_us", "queue_us"), [(1500, 250), (None, None), (0, 0)])
def test_a_response_tells_what_was_written(
    action: str, instance: str | None, upstream_us: int | None, queue_us: int | None
) -> None:
    served = Served(action, instance, upstream_us, queue_us)
    assert read_response(write_response(served)) == served


def test_an_unknown_action_is_none() -> None:
    assert read_request({"X-RL-Action": "fastest"}) is None
    assert read_response({"X-LB-Action": "fastest", "X-LB-Instance": "a"}).action is None


@pytest.mark.parametrize("text", [None, "", "fast", "-1", "nan", "inf", "1e300", "3600000001"])
def test_a_time_that_makes_no_sense_is_missing(text: str | None) -> None:
    assert read_us(text, 1) is None


def test_times_come_in_their_unit() -> None:
    assert read_us("1500", 1) == 1500
    assert read_us("1.5", 1000) == 1500
    assert read_us("3600001", 1000) is None
