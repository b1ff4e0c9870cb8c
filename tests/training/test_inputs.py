"""What a network is given: nothing beyond what train has seen, nothing of the policy's own making."""

import numpy as np
import pytest

from rl_hooks.export.formats.encoding import Encoding
from training.inputs import Inputs


def two_features(raw: list[list[float]]) -> Inputs:
    encoding = Encoding(
        ("cpu", "previous_action_held"), np.array([0.5, 2.0]), np.array([0.25, 1.0]), np.array([True] * 2)
    )
    return Inputs.fit(encoding, np.array(raw))


def test_values_beyond_those_of_train_count_as_its_ends() -> None:
    inputs = two_features([[0.25, 1.0], [0.75, 1.0]])
    inside, beyond = inputs.encode(np.array([[0.75, 1.0], [50.0, 1.0]]))
    assert inside[0] == pytest.approx(beyond[0], abs=0.01)


def test_the_ends_leave_out_what_is_rarer_than_one_in_a_thousand() -> None:
    inputs = two_features([[0.5, 1.0]] * 9_999 + [[1e6, 1.0]])
    assert inputs.high[0] == pytest.approx(0.5)


def test_what_the_policy_itself_makes_is_left_out_known_or_not() -> None:
    inputs = two_features([[0.25, 1.0], [0.75, 6.0]])
    encoded = inputs.encode(np.array([[0.5, 1.0], [0.5, 500.0], [0.5, np.nan]]))
    assert (encoded == encoded[0]).all()
    assert inputs.used_columns.tolist() == [True, False, True, False]


def test_a_value_that_is_not_known_is_the_mean_and_said_to_be_unknown() -> None:
    inputs = two_features([[0.25, 1.0], [0.75, 1.0]])
    assert inputs.encode(np.array([[np.nan, 1.0]]))[0].tolist() == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.filterwarnings("error")
def test_a_feature_that_train_never_knew_has_its_mean_alone_as_a_range() -> None:
    inputs = two_features([[np.nan, 1.0], [np.nan, 2.0]])
    assert (inputs.low[0], inputs.high[0]) == (0.5, 0.5)
    assert inputs.encode(np.array([[9.0, 1.0]]))[0][0] == 0.0
