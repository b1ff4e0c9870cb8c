"""`python -m scenario`: what it prints, where, and its exit codes."""

import json
import subprocess
import sys

import pytest

from scenario.__main__ import main
from tests.scenario.files import phase, suite, tree

PLAN = """\
Scenario day
  seed 7, time scale 40, user scale 0.1
  20 nominal minutes, 30 s of real time
  products 1, addresses 1, accounts 50; target named on the command line

Phases and users per profile
  phase    minutes  real       intensity  users  browser  buyer  weights
  morning  0-10     0:00-0:15  medium     2      1        1      browse 50/cart 30/order 20
  evening  10-20    0:15-0:30  medium     2      1        1      browse 50/cart 30/order 20
  morning: Coffee and mugs

Times, real
  decision interval 0.2 s (raised from 0.05 s: timers are not finer): about 150 intervals, 750 decisions
  window 1.5 s, episode 7.5 s, ramp 0.75 s
  request timeout 1 s (divided by 10)
  2 retries, the first after 0.05 s (divided by 10)
  response times to keep, ms (divided by 10): user-service 25, inventory-service 25, cart-service 30, \
order-service 50, payment-service 60
  reward weights: response_time 0.3, error_rate 0.3, throughput 0.1, load_balance 0.1, user_satisfaction 0.2
  compressed: time scale 40 is above 10, so queues behave differently from real time
"""


@pytest.fixture
def day(tmp_path):
    whole = tree()
    phase(whole).update(description="Coffee\n  and mugs", service_load_characteristics={"cart-service": "high"})
    path = tmp_path / "day.json"
    path.write_text(json.dumps(whole))
    return path


def test_a_plan_is_printed_with_all_that_differs_from_the_file(day, capsys):
    options = ["--seed", "7", "--time-scale", "40", "--user-scale", "0.1"]
    assert main([str(day), "day", *options]) == 0
    out, err = capsys.readouterr()
    head, rest = out.split("\n", 1)
    assert (head, err) == (f"File {day}", "")
    assert rest.startswith(PLAN)
    assert (
        "\nExpected requests per second, and per decision of each service\n  phase    requests/s  user-service" in rest
    )
    assert "\nExpected by the author of the file\n  morning, service load: cart-service high\n" in rest
    assert (
        "\nDefaults, because the file does not say\n  data_collection_interval_seconds 2\n  window_seconds 60\n" in rest
    )
    assert (
        "\nDiffers from the file\n"
        "  morning: users raised from 1 to 2, one for every profile with a share\n"
        "  evening: users raised from 1 to 2, one for every profile with a share\n"
        "  morning: buyer has 1 user instead of 0.4, the least for a share\n"
        "  evening: buyer has 1 user instead of 0.4, the least for a share\n" in rest
    )
    assert "\nWarnings\n  morning: less than 1 request per decision of user-service 0." in rest


def test_a_plan_that_is_as_the_file_says_has_no_such_blocks(capsys):
    assert main(["comprehensive_rl_training_config.json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("File ")
    assert "comprehensive_rl_training_config.yaml\nScenario comprehensive_rl_training: Six phases" in out
    assert "  decision interval 2 s: about 5400 intervals, 27000 decisions\n" in out
    for absent in ("compressed", "raised", "Differs from the file", "Defaults", "Expected by the author"):
        assert absent not in out


def test_problems_go_to_stderr_with_exit_code_2(day, capsys):
    whole = json.loads(day.read_text())
    phase(whole)["intensity"] = "hgh"
    suite(whole)["base_config"]["total_users"] = 0
    day.write_text(json.dumps(whole))
    assert main([str(day)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{day}: 2 problems\n  base_config.total_users: is 0, which is not above 0.")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none_config.yaml"], "none_config.yaml: 1 problem"),
        (["quick_validation_config.yaml", "quick"], "there is no scenario 'quick'"),
        (["quick_validation_config.yaml", "--time-scale", "0"], "time_scale: 0 is not a number between"),
        (["quick_validation_config.yaml", "--user-scale", "nan"], "user_scale: nan is not a number between"),
        (
            ["quick_validation_config.yaml", "--decision-interval", "-1"],
            "decision_interval: -1 is not a number between",
        ),
    ],
)
def test_what_cannot_be_planned_says_so(arguments, line, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err


def test_the_schema_is_printed_or_written(tmp_path, capsys):
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    target = tmp_path / "schema.json"
    assert main(["schema", "--output", str(target)]) == 0
    assert capsys.readouterr().out == f"wrote {target}\n"
    assert target.read_text() == printed
    assert json.loads(printed)["title"] == "RL training scenarios"


def test_it_runs_as_a_module_and_loads_nothing_else_of_ours():
    code = (
        "import sys, runpy; sys.argv = ['scenario', 'quick_validation_config.yaml']\n"
        "try: runpy.run_module('scenario', run_name='__main__')\n"
        "except SystemExit as stop: code = stop.code\n"
        "foreign = {'locust', 'gevent', 'numpy', 'profiles', 'shapes', 'rl_hooks', 'sandbox'} & set(sys.modules)\n"
        "print('end', code, foreign)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("end 0 set()\n")
