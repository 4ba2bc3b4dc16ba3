"""When a run stops."""

from dataclasses import replace

import numpy as np
import pytest

from freeal.config import FusionConfig, StopConfig
from freeal.select.fusion import bound_of
from freeal.select.stopping import least_information, reason
from freeal.tasks.classification import Classification
from freeal.tasks.tokens import Tokens
from freeal.types import Annotations, LoopState


def state(next_round, changed, first=None, asked=10):
    said = Annotations.none(10, (2,)) if first is None else Annotations.none(len(first), (2,))
    asked_in = np.where(np.arange(len(said.asked_in)) < asked, 0, -1)
    said = replace(said, asked_in=asked_in, first=said.first if first is None else first)
    return replace(LoopState.start(10, (2,)), next_round=next_round, changed=changed, annotations=said)


def test_answers_about_entities_need_not_tell_words_apart():
    types, classes = Tokens({"PER": ""}), Classification({"good": "", "bad": ""})
    assert [least_information(StopConfig(min_information=0.1), task) for task in (types, classes)] == [0.0, 0.1]
    assert [bound_of(FusionConfig(), task) for task in (types, classes)] == ["words", "rows"]


def test_it_goes_on_while_labels_change():
    assert reason(state(2, 0.1), 0.005, 10, None, 0.0) is None


def test_few_changes_are_a_reason_to_stop():
    assert reason(state(2, 0.001), 0.005, 10, None, 0.0) == "no change: 0.10% of the labels changed, less than 0.50%"


def test_the_first_round_is_never_stopped_for_a_lack_of_change():
    assert reason(state(1, 0.0), 0.5, 10, None, 0.0) is None


def test_a_limit_of_zero_never_stops():
    assert reason(state(5, 0.0), 0.0, 10, None, 0.0) is None


@pytest.mark.parametrize("calls", [1000, 1200])
def test_a_spent_budget_comes_first(calls):
    assert reason(state(2, 0.0), 0.5, calls, 1000, 0.0) == f"budget: {calls:,} of 1,000 calls are spent"


def test_a_budget_that_is_left_is_no_reason():
    assert reason(state(2, 0.5), 0.005, 999, 1000, 0.0) is None


def test_calls_that_do_not_suffice_for_a_row_are_as_good_as_spent():
    told = "budget: 98 of 100 calls are spent, and a row takes 6"
    assert reason(state(2, 0.5), 0.005, 98, 100, 0.0, calls_a_row=6) == told
    assert reason(state(2, 0.5), 0.005, 94, 100, 0.0, calls_a_row=6) is None


def test_rows_that_were_never_asked_are_a_reason_to_go_on():
    assert reason(state(2, 0.0, asked=9), 0.005, 10, None, 0.0) is None


def test_who_has_taken_the_place_of_the_llm_leaves_nothing_to_ask():
    apart = np.tile([[0.8, 0.2], [0.2, 0.8]], (50, 1))
    assert reason(state(1, 1.0, apart), 0.0, 10, None, 0.08) is None
    assert "hardly tells the labels apart" in str(reason(state(1, 1.0, apart), 0.0, 10, None, 0.08, taken_over=True))


def test_answers_that_are_alike_for_all_texts_stop_it():
    alike = np.tile([0.9, 0.1], (100, 1))
    assert "hardly tells the labels apart" in str(reason(state(1, 1.0, alike), 0.0, 10, None, 0.08))
    assert reason(state(1, 1.0, alike), 0.0, 10, None, 0.0) is None
    apart = np.repeat([[0.9, 0.1], [0.1, 0.9]], 50, axis=0)
    assert reason(state(1, 1.0, apart), 0.0, 10, None, 0.08) is None
    assert reason(state(1, 1.0, alike[:10]), 0.0, 10, None, 0.08) is None
