"""A sandbox that decides by itself: what it states is what it drew, once per interval and service."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from sandbox.clock import VirtualClock
from sandbox.decides import Decider, read_decides
from sandbox.world import World


def stated(world: World, service: str) -> tuple[str, dict[str, str]]:
    """The action in force, and what an answer says of it."""
    balancer = world.balancers[service]
    return balancer.action, {name.decode(): value.decode() for name, value in balancer.statement}


def test_it_decides_at_whole_multiples_of_the_interval_and_each_decision_has_an_id_of_its_own(
    clock: VirtualClock, make_world: Callable[..., World]
) -> None:
    world = make_world()
    decider = Decider(read_decides("uniform", 2.0), world.balancers, clock, 1, start_unix_s=1001.5)
    first = stated(world, "cart-service")[1]["x-lb-decision-id"]
    clock.run_for(0.49)
    assert stated(world, "cart-service")[1]["x-lb-decision-id"] == first
    ids = []
    for _ in range(3):
        clock.run_for(0.02 if not ids else 2.0)
        ids.append(stated(world, "cart-service")[1]["x-lb-decision-id"])
    assert ids == ["cart-service/501", "cart-service/502", "cart-service/503"]
    decider.close()
    clock.run_for(10.0)
    assert stated(world, "cart-service")[1]["x-lb-decision-id"] == ids[-1]


def test_the_stated_propensity_is_that_of_the_draw(clock: VirtualClock, make_world: Callable[..., World]) -> None:
    """Sticky: kept actions state keep + (1 - keep) / 6, others (1 - keep) / 6, about as often as they should."""
    world = make_world()
    decides = read_decides("sticky:0.4", 1.0)
    Decider(decides, world.balancers, clock, 7, start_unix_s=0.0)
    seen: Counter[bool] = Counter()
    before = {service: ACTIONS.index(stated(world, service)[0]) for service in SERVICES}
    for _ in range(400):
        clock.run_for(1.0)
        for service in SERVICES:
            action, says = stated(world, service)
            index = ACTIONS.index(action)
            assert float(says["x-lb-propensity"]) == pytest.approx(decides.distribution(before[service])[index])
            assert says["x-lb-policy"] == "sticky:0.4"
            seen[index == before[service]] += 1
            before[service] = index
    assert 0.45 < seen[True] / seen.total() < 0.55


@pytest.mark.parametrize("text", ["uniform:1", "sticky", "sticky:1", "sticky:-0.1", "sticky:much", "greedy"])
def test_what_it_cannot_do_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be uniform, or sticky:0\.5"):
        read_decides(text, 1.0)


def test_answers_say_who_decided_unless_the_request_did(run_live: Any) -> None:
    live = run_live("--healthy", "--time-scale", "10", "--decides", "uniform", "--decide-every", "600")
    assert "sandbox: decides by itself, uniform, every 60 s" in live.opening
    path, states = "/proxy/payment-service/actuator/health", {"x-lb-propensity", "x-lb-policy", "x-lb-decision-id"}
    told = live.call("GET", path)[1]
    assert states <= set(told)
    assert (told["x-lb-policy"], float(told["x-lb-propensity"])) == ("uniform", pytest.approx(1 / 6))
    served = live.call("GET", "/proxy/user-service/api/users/me")[1]
    assert states <= set(served)
    assert served["x-lb-decision-id"].startswith("user-service/")
    for asked in ({"X-RL-Action": "backpressure"}, {"X-LB-Pin": "user-service-1"}):
        assert not states & set(live.call("GET", "/proxy/user-service/api/users/me", None, asked)[1])
    status, _, text = live.call("PUT", "/control/actions", {"actions": {"user-service": "backpressure"}})
    assert status == 409
    assert "this sandbox decides by itself (uniform): start it without --decides, or leave the actions to it" in text


def test_a_sandbox_that_does_not_decide_states_nothing(run_live: Any) -> None:
    told = run_live("--healthy").call("GET", "/proxy/payment-service/actuator/health")[1]
    assert not {name for name in told if name in ("x-lb-propensity", "x-lb-policy", "x-lb-decision-id")}
