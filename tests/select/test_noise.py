"""How many labels are wrong, told without gold."""

import doctest

import numpy as np
import pytest

from freeal.select import noise
from freeal.select.noise import estimated_error


def test_of_several_decisions_as_many_rows_are_expected_to_be_wrong_as_are():
    rng = np.random.default_rng(0)
    yes = rng.uniform(0.0, 1.0, (4000, 5))
    proba = np.stack([1 - yes, yes], axis=-1)
    gold = rng.random(yes.shape) < yes
    wrong = ((yes > 0.5) != gold).any(axis=1).mean()
    assert estimated_error(proba, list("abcde")).overall == pytest.approx(wrong, abs=0.03)


def test_of_words_the_least_sure_one_counts_and_padding_changes_nothing():
    proba = np.array([[[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], [[np.nan] * 3] * 2])
    padded = np.concatenate([proba, np.tile([1.0, 0.0, 0.0], (2, 3, 1))], axis=1)
    padded[1] = np.nan
    found = estimated_error(padded, ["O", "B-A", "I-A"])
    assert found.overall == estimated_error(proba, ["O", "B-A", "I-A"]).overall == pytest.approx(0.2)


def test_of_one_decision_it_is_the_doubt_in_the_label():
    found = estimated_error(np.array([[0.9, 0.1], [0.3, 0.7], [np.nan, np.nan]]), ["a", "b"])
    assert found.overall == pytest.approx(0.2)
    assert found.by_label == pytest.approx({"a": 0.1, "b": 0.3})


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(noise).failed == 0
