"""When a run stops."""

from dataclasses import replace

import pytest

from freeal.select.stopping import reason
from freeal.types import LoopState


def state(next_round, changed):
    return replace(LoopState.start(10, 2), next_round=next_round, changed=changed)


def test_it_goes_on_while_labels_change():
    assert reason(state(2, 0.1), 0.005, 10, None) is None


def test_few_changes_are_a_reason_to_stop():
    assert reason(state(2, 0.001), 0.005, 10, None) == "no change: 0.10% of the labels changed, less than 0.50%"


def test_the_first_round_is_never_stopped_for_a_lack_of_change():
    assert reason(state(1, 0.0), 0.5, 10, None) is None


def test_a_limit_of_zero_never_stops():
    assert reason(state(5, 0.0), 0.0, 10, None) is None


@pytest.mark.parametrize("calls", [1000, 1200])
def test_a_spent_budget_comes_first(calls):
    assert reason(state(2, 0.0), 0.5, calls, 1000) == f"budget: {calls:,} of 1,000 calls are spent"


def test_a_budget_that_is_left_is_no_reason():
    assert reason(state(2, 0.5), 0.005, 999, 1000) is None
