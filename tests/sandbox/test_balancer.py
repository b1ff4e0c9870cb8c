from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from rl_hooks.decision import ACTIONS
from sandbox.balancer import Balancer, Exchange
from sandbox.clock import VirtualClock
from sandbox.instance import Effect

Make = Callable[..., Balancer]


def send(balancer: Balancer, answers: list[Exchange], method: str = "GET", **how: str) -> Exchange:
    return balancer.send(method, answers.append, **how)


def test_what_the_answer_tells(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(workers=(1, 1)), []
    for _ in range(4):
        send(balancer, answers, action="least_loaded")
    clock.run_until(5.0)
    last = answers[-1]
    assert (last.code, last.served, last.attempts, last.flags, last.action) == (200, True, 1, (), "least_loaded")
    assert (last.queue_s, last.upstream_s, last.in_flight_at_choice) == (pytest.approx(1.0), pytest.approx(2.0), 1)
    assert [answer.backend.name for answer in answers if answer.backend] == ["a-1", "a-2", "a-1", "a-2"]
    assert balancer.in_flight == 0 and balancer.answered == 4 and balancer.failed == 0


def test_without_an_action_the_control_action_is_applied(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(), []
    assert send(balancer, answers).action == "round_robin"
    balancer.action = "backpressure"
    assert send(balancer, answers).action == "backpressure"
    assert send(balancer, answers, action="weighted_capacity").action == "weighted_capacity"


def test_least_loaded_is_least_loaded_while_all_six_actions_are_mixed(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(demand_sigma=0.6), []
    rng, chosen_least = Random(2), 0
    for _ in range(5000):
        clock.run_for(rng.expovariate(3.2))
        action = rng.choice(ACTIONS)
        before = [backend.in_flight for backend in balancer.backends]
        exchange = send(balancer, answers, action=action)
        if action == "least_loaded" and exchange.backend is not None:
            chosen_least += 1
            assert before[exchange.backend.index] == min(before) == exchange.in_flight_at_choice
        if action == "backpressure" and exchange.flags == ("shed",):
            assert all(n - b.workers >= 8 * b.workers for n, b in zip(before, balancer.backends, strict=True))
    assert chosen_least > 700
    clock.run_for(1e6)
    assert balancer.in_flight == 0 and balancer.received == balancer.answered == len(answers) == 5000


def test_weighted_shares_hold_while_all_six_actions_are_mixed(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers, rng = make_balancer(), [], Random(4)
    shares: Counter[str] = Counter()
    for _ in range(3000):
        clock.run_for(rng.expovariate(2.0))
        exchange = send(balancer, answers, action=rng.choice(ACTIONS))
        if exchange.action == "weighted_capacity" and exchange.backend is not None:
            shares[exchange.backend.name] += 1
    assert shares["a-1"] == pytest.approx(2 * shares["a-2"], abs=2) and abs(shares["a-2"] - shares["a-3"]) <= 1


def fail(balancer: Balancer, number: int, effect: Effect = Effect(error_rate=1.0)) -> None:  # noqa: B008
    balancer.backends[number].instance.set_effect("test", effect)


@pytest.mark.parametrize(
    ("action", "method", "retried"),
    [("circuit_breaker", "GET", True), ("circuit_breaker", "POST", False)]
    + [(action, "GET", False) for action in ACTIONS if action != "circuit_breaker"],
)
def test_an_error_is_retried_only_by_circuit_breaker_and_only_for_get(
    clock: VirtualClock, make_balancer: Make, action: str, method: str, retried: bool
) -> None:
    balancer, answers = make_balancer(workers=(1, 1, 1)), []
    fail(balancer, 0)
    exchange = send(balancer, answers, method, action=action)
    assert exchange.backend is balancer.backends[0]
    clock.run_until(3.0)
    assert answers == [exchange]
    if retried:
        assert (exchange.attempts, exchange.code, exchange.flags) == (2, 200, ("failed", "retried"))
        assert exchange.backend is balancer.backends[1]
    else:
        assert (exchange.attempts, exchange.code, exchange.flags) == (1, 500, ("failed",))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_retried_for_every_method(
    clock: VirtualClock, make_balancer: Make, method: str
) -> None:
    balancer, answers = make_balancer(), []
    balancer.backends[0].instance.crash()
    exchange = send(balancer, answers, method, action="circuit_breaker")
    clock.run_until(3.0)
    assert (exchange.attempts, exchange.code, exchange.flags) == (2, 200, ("refused", "retried"))


def test_a_post_that_was_reset_is_not_retried_and_a_get_is(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(workers=(1, 1)), []
    post = send(balancer, answers, "POST", action="circuit_breaker")
    send(balancer, answers, "GET", action="circuit_breaker")
    get = send(balancer, answers, "GET", action="circuit_breaker")
    clock.run_until(0.5)
    balancer.backends[0].instance.crash()
    clock.run_until(5.0)
    assert (post.code, post.flags) == (502, ("reset",))
    assert (get.code, get.flags, get.attempts) == (200, ("reset", "retried"), 2)


def test_every_instance_is_tried_once_at_most(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(), []
    for number in range(3):
        fail(balancer, number)
    exchange = send(balancer, answers, action="circuit_breaker")
    clock.run_until(5.0)
    assert exchange.attempts == 3 and exchange.code == 500
    assert exchange.flags == ("failed", "retried", "failed", "retried", "failed")
    assert [backend.requests_total for backend in balancer.backends] == [1, 1, 1]


def test_a_retry_goes_to_another_instance_whose_turn_it_may_not_be(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(workers=(1, 1)), []
    fail(balancer, 0)
    first = send(balancer, answers, action="circuit_breaker")
    send(balancer, answers, action="circuit_breaker")  # now it would be the turn of the first instance again
    clock.run_until(5.0)
    assert (first.backend, first.code, first.attempts) == (balancer.backends[1], 200, 2)


def test_a_probe_whose_client_goes_away_does_not_block_the_breaker(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(workers=(9,)), []
    fail(balancer, 0)
    for _ in range(5):
        send(balancer, answers)
    clock.run_until(12.0)
    balancer.backends[0].instance.remove_effect("test")
    probe = send(balancer, answers, action="circuit_breaker")
    assert send(balancer, answers, action="circuit_breaker").flags == ("breaker_open",)
    probe.cancel()
    assert send(balancer, answers, action="circuit_breaker").backend is balancer.backends[0]


def test_the_budget_limits_retries_to_a_fifth_of_the_requests(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(workers=(50, 50, 50), breaker_consecutive=10**6, breaker_min_requests=1e9), []
    for number in range(3):
        fail(balancer, number)
    for _ in range(1000):
        send(balancer, answers, action="circuit_breaker")
        clock.run_for(0.1)
    clock.run_for(10.0)
    retries = sum(answer.attempts - 1 for answer in answers)
    assert retries == 10 + 1000 * 0.2 - 1 or retries == 10 + 1000 * 0.2


def test_breakers_learn_from_all_actions_but_only_circuit_breaker_obeys(
    clock: VirtualClock, make_balancer: Make
) -> None:
    balancer, answers = make_balancer(workers=(9, 9, 9)), []
    fail(balancer, 0)
    for _ in range(15):
        send(balancer, answers, action="round_robin")
    clock.run_until(2.0)
    assert [backend.breaker.state(2.0) for backend in balancer.backends] == ["open", "closed", "closed"]
    chosen = [send(balancer, answers, action="circuit_breaker").backend for _ in range(4)]
    assert balancer.backends[0] not in chosen
    assert send(balancer, answers, action="least_loaded").backend is balancer.backends[0]


def test_when_all_breakers_are_open_it_refuses_at_once(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(workers=(9, 9, 9)), []
    for number in range(3):
        fail(balancer, number)
    for _ in range(15):
        send(balancer, answers, action="round_robin")
    clock.run_until(2.0)
    refused = send(balancer, answers, action="circuit_breaker")
    assert (refused.code, refused.flags, refused.backend, refused.attempts) == (503, ("breaker_open",), None, 0)
    assert balancer.refused_codes == {("circuit_breaker", 503): 1}


def test_a_timeout_frees_the_count_at_once_and_the_worker_when_it_is_done(
    clock: VirtualClock, make_balancer: Make
) -> None:
    balancer, answers = make_balancer(workers=(1,), request_timeout_s=3.0, hang_s=10.0), []
    fail(balancer, 0, Effect(timeout_rate=1.0))
    hanging, waiting = send(balancer, answers), send(balancer, answers)
    clock.run_until(1.9)
    assert balancer.in_flight == 2 and not answers
    clock.run_until(3.1)
    instance = balancer.backends[0].instance
    # One hung in the worker; the other left the queue (after the queue timeout of 2 s, before the request timeout).
    assert waiting.flags == ("queue_timeout",) and hanging.flags == ("timeout",) and hanging.code == 504
    assert (balancer.in_flight, instance.in_flight, instance.busy, instance.queue_depth) == (0, 1, 1, 0)
    clock.run_until(10.1)
    assert (instance.in_flight, instance.busy) == (0, 0)
    assert len(answers) == balancer.received == balancer.answered == 2


def test_a_client_that_goes_away_leaves_the_queue_or_lets_the_work_run_on(
    clock: VirtualClock, make_balancer: Make
) -> None:
    balancer, answers = make_balancer(workers=(1,)), []
    working, waiting = send(balancer, answers), send(balancer, answers)
    instance = balancer.backends[0].instance
    for exchange in (working, waiting, working):
        exchange.cancel()
    assert (balancer.in_flight, instance.in_flight, instance.busy, instance.queue_depth) == (0, 1, 1, 0)
    clock.run_until(5.0)
    assert instance.in_flight == 0 and answers == [] and balancer.received == balancer.answered == 2
    assert balancer.backends[0].codes == {("round_robin", 499): 2} and balancer.failed == 0


def test_a_pin_wins_over_the_strategy_and_an_unknown_one_is_ignored(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(), []
    pinned = [send(balancer, answers, pin="a-3") for _ in range(3)]
    assert all(one.backend is balancer.backends[2] and one.flags == ("pinned",) for one in pinned)
    assert send(balancer, answers, pin="a-9").flags == ("unknown_pin",)


def test_health_checks_take_a_dead_instance_out_and_back_in(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(workers=(9, 9, 9)), []
    balancer.backends[0].instance.crash()
    send(balancer, answers)
    assert answers[0].flags == ("refused",) and answers[0].code == 502
    clock.run_until(4.1)  # two checks of 2 s
    assert [backend.healthy for backend in balancer.backends] == [False, True, True]
    assert balancer.backends[0] not in [send(balancer, answers).backend for _ in range(4)]
    balancer.backends[0].instance.start()
    clock.run_until(6.1)
    assert balancer.backends[0].healthy


def test_without_a_healthy_instance_it_refuses(clock: VirtualClock, make_balancer: Make) -> None:
    balancer, answers = make_balancer(), []
    for backend in balancer.backends:
        backend.instance.crash()
    clock.run_until(10.0)
    for action in ACTIONS:
        send(balancer, answers, action=action)
    assert [(one.code, one.flags, one.attempts) for one in answers] == [(503, ("no_healthy_instance",), 0)] * 6


def test_a_failing_instance_draws_those_that_look_at_latency_alone(clock: VirtualClock, make_balancer: Make) -> None:
    """Nobody is spared by construction: failing fast looks fast."""
    balancer, answers, rng = make_balancer(demand_sigma=0.6, mean_service_s=0.05), [], Random(1)
    fail(balancer, 0)
    for _ in range(2000):
        clock.run_for(rng.expovariate(30.0))
        send(balancer, answers, action="fastest_response")
    assert balancer.backends[0].requests_total > 0.6 * len(answers)
