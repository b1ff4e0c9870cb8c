import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.clock import VirtualClock
from sandbox.shop.calls import Request
from sandbox.shop.catalogue import Product
from sandbox.stage import Load, LoadError, Stage, read_load
from sandbox.world import World

KETTLE = {"sku": "K-1", "name": "Kettle", "category": "kitchen", "brand": "Fuma", "price": 30}
LOAD = {"time_scale": 45, "expect": {"inventory-service GET /a": 500}, "products": [KETTLE]}


def test_a_closed_world_answers_what_is_under_way_and_leaves_nothing_on_the_clock(
    make_world: Callable[..., World], clock: VirtualClock
) -> None:
    world = make_world(weather=True)
    clock.run_for(100.0)
    answers: list[Any] = []
    world.send("user-service", Request("GET", "/a"), answers.append)
    world.close()
    clock.run_for(10_000.0)
    assert [answer.code for answer in answers] == [401] and clock.step() is False


def test_a_new_load_brings_a_new_world_on_and_the_tally_goes_on(
    make_world: Callable[..., World], clock: VirtualClock
) -> None:
    loads: list[Load] = []

    def build(load: Load) -> World:
        loads.append(load)
        return make_world()

    stage = Stage(build, Load())
    first = stage.world
    for _ in range(3):
        first.send("user-service", Request("GET", "/a"), lambda _: None)
    stage.set_load(read_load(LOAD))
    assert stage.world is not first and loads[1].time_scale == 45.0
    stage.world.send("user-service", Request("GET", "/a"), lambda _: None)
    assert stage.tally()["user-service"] == (0, 0)
    clock.run_for(10.0)
    assert stage.tally()["user-service"] == (4, 0), "answers of the earlier world count too"


def test_a_load_is_read() -> None:
    assert read_load(LOAD) == Load(45.0, {"inventory-service GET /a": 500.0}, (Product(*KETTLE.values()),))


def test_all_problems_of_a_load_are_told() -> None:
    with pytest.raises(LoadError) as caught:
        read_load({"time_scale": 0, "expect": {}, "products": [], "speed": 1})
    assert caught.value.problems == (
        "speed: unknown field",
        "time_scale: must be a number above 0, for example 45",
        'expect: must be a JSON object like {"cart-service POST /api/cart/items": 12.3}',
        "products: must be a list of 1 to 10000 products",
    )
    with pytest.raises(LoadError, match="must be an object with time_scale, expect and products"):
        read_load([])


def test_a_load_is_announced_over_http(run_live: Callable[..., Any]) -> None:
    live = run_live("--healthy")
    live.token("ann")
    status, _, text = live.call("PUT", "/control/load", LOAD)
    assert status == 400  # ann's run is going on
    assert "another run is going on here, its last request came 0." in text
    assert "s ago; wait until it has ended, or start a sandbox of your own with --port 0" in text
    while status == 400:
        time.sleep(0.1)
        status, _, text = live.call("PUT", "/control/load", LOAD)
    assert status == 200
    assert json.loads(text)["lines"][2].split() == ["inventory-service", "500.0", "4+2+2", "8.00", "ms", "0.50"]
    live.tokens.clear()  # it is another shop
    assert live.shop("GET", "inventory-service/api/inventory/products/K-1")[1]["name"] == "Kettle"
    assert live.get("/state")["client_requests_total"] == 5
    status, _, text = live.call("PUT", "/control/load", {})
    assert status == 400 and len(json.loads(text)["problems"]) == 3
    assert "not JSON" in live.call("PUT", "/control/load", b"{")[2]
    assert live.stop() == 0
    assert live.closing.splitlines()[1].split() == ["user-service", "4", "(0)"]
