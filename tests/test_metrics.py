"""Figures against gold, and None where there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from freeal.metrics import Gold, accuracy, calibration_error, macro_f1, scores
from freeal.types import Demonstration


def one_hot(labels, k=3):
    proba = np.eye(k)[np.maximum(labels, 0)]
    proba[np.asarray(labels) < 0] = np.nan
    return proba


def test_an_abstention_is_wrong_and_unknown_gold_is_left_out():
    assert accuracy(np.array([0, -1, 1, 2]), np.array([0, 1, 1, -1])) == pytest.approx(2 / 3)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=50))
def test_macro_f1_is_that_of_scikit_learn_over_the_classes_of_gold(pairs):
    predicted, gold = np.array(pairs).T
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert macro_f1(predicted, gold, 3) == pytest.approx(expected)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    gold = np.array([0, 1, 2])
    assert calibration_error(one_hot(gold), gold) == 0.0
    assert calibration_error(one_hot((gold + 1) % 3), gold) == 1.0


def test_confidence_that_matches_the_share_right_is_calibrated():
    proba = np.tile([0.75, 0.25], (100, 1))
    assert calibration_error(proba, np.repeat([0, 1], [75, 25])) == pytest.approx(0.0, abs=1e-9)


def test_without_gold_there_is_coverage_only():
    found = scores(one_hot([0, -1]), None)
    assert (found.accuracy, found.macro_f1, found.calibration_error, found.coverage) == (None, None, None, 0.5)


@pytest.mark.parametrize("gold", [np.array([-1, -1])])
def test_gold_that_is_nowhere_known_is_no_gold(gold):
    found = scores(one_hot([0, 1]), gold)
    assert (found.accuracy, found.macro_f1, found.calibration_error) == (None, None, None)


def test_nobody_answering_is_no_accuracy_and_no_crash():
    found = scores(one_hot([-1, -1]), np.array([0, 1]))
    assert (found.accuracy, found.macro_f1, found.coverage) == (0.0, 0.0, 0.0)
    assert found.calibration_error is None


def test_nothing_to_measure_is_measured():
    assert scores(np.zeros((0, 3)), None).coverage == 0.0


def shown(*rows_and_labels):
    return [Demonstration("a text", str(label), row) for row, label in rows_and_labels]


def test_demonstrations_from_the_pool_are_judged_and_written_ones_are_not():
    gold = Gold(np.array([0, 1, -1]))
    assert gold.wrong_demonstrations(shown((0, 0), (1, 0), (2, 0), (None, 0)), write) == 0.5
    assert gold.wrong_demonstrations(shown((None, 0)), write) is None
    assert Gold().wrong_demonstrations(shown((0, 0)), write) is None


def test_a_prompt_is_wrong_that_shows_one_wrong_demonstration():
    gold = Gold(np.array([0, 1, -1]))
    prompts = [shown((0, 0), (1, 1)), shown((0, 0), (1, 0)), shown((2, 0), (None, 0)), []]
    assert gold.wrong_prompts(prompts, write) == 0.5
    assert gold.wrong_prompts([[]], write) is None
    assert Gold().wrong_prompts([shown((0, 0))], write) is None


def write(text, label):
    return str(label)


def test_pool_and_test_have_gold_of_their_own():
    gold = Gold(np.array([0]), np.array([1]))
    assert gold.on_pool(llm=one_hot([0]))["llm"].accuracy == 1.0
    assert gold.on_test(llm=one_hot([0]))["llm"].accuracy == 0.0
