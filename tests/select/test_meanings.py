"""Laws of what is told to whoever rewrites the meanings of the labels, and of when the new ones are kept."""

import doctest

import numpy as np
import pytest

from freeal.select import meanings
from freeal.select.meanings import EACH, MOST_TYPICAL, PAIRS, TYPICAL, UNSURE, agreed, cases, held_out, no_worse
from freeal.select.queries import margin
from freeal.types import argmax


def drawn(seed, n=200, k=4, silent=0.1):
    """Distributions of an LLM that abstains now and then, of a student, believed and eligible rows."""
    rng = np.random.default_rng(seed)
    llm, student = rng.dirichlet(np.ones(k), n), rng.dirichlet(np.ones(k), n)
    student[: n // 2] = 0.8 * llm[: n // 2] + 0.2 * student[: n // 2]
    llm[rng.random(n) < silent] = np.nan
    believed = (argmax(llm) == argmax(student)) & (rng.random(n) < 0.5)
    return llm, student, believed, rng.random(n) < 0.8


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 4, 30])
def test_a_row_is_told_once_at_most_and_only_if_it_may_be(seed, k):
    llm, student, believed, eligible = drawn(seed, k=k)
    found = cases(llm, student, believed, eligible)
    assert found.confused
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert eligible[found.rows].all()
    assert (argmax(llm)[found.rows] >= 0).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 4, 30])
def test_few_rows_are_told_whatever_the_pool(seed, k):
    found = cases(*drawn(seed, n=2000, k=k))
    assert len(found.confused) == min(PAIRS, k * (k - 1) // 2)
    assert all(1 <= len(each.rows) <= EACH for each in found.confused)
    assert sum(map(len, found.typical)) <= max(MOST_TYPICAL, 2 * PAIRS * TYPICAL)


@pytest.mark.parametrize("seed", range(5))
def test_a_pairs_rows_are_of_these_two_labels(seed):
    llm, student, believed, eligible = drawn(seed)
    theirs, ours = argmax(llm), argmax(student)
    for each in cases(llm, student, believed, eligible).confused:
        for row in each.rows:
            if theirs[row] != ours[row]:
                assert {theirs[row], ours[row]} == set(each.pair)
            else:
                assert set(np.argsort(llm[row])[-2:]) == set(each.pair)
                assert margin(llm)[row] < UNSURE
                assert not believed[row]


@pytest.mark.parametrize("seed", range(5))
def test_typical_rows_are_believed_and_of_their_label(seed):
    llm, student, believed, eligible = drawn(seed)
    found = cases(llm, student, believed, eligible)
    assert any(len(rows) for rows in found.typical)
    for c, rows in enumerate(found.typical):
        assert believed[rows].all()
        assert (argmax(llm)[rows] == c).all()
        assert (argmax(student)[rows] == c).all()


def test_the_pair_with_most_rows_is_told_first_and_in_it_those_on_which_both_are_sure():
    llm = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.0, 0.1, 0.9]])
    student = np.array([[0.1, 0.9, 0.0], [0.4, 0.6, 0.0], [0.3, 0.7, 0.0], [0.9, 0.1, 0.0]])
    found = cases(llm, student, np.zeros(4, bool), np.ones(4, bool)).confused
    assert [each.pair for each in found] == [(0, 1), (0, 2)]
    assert found[0].rows.tolist() == [0, 2, 1]


def test_a_row_on_which_the_llm_wavers_is_a_case_though_the_student_says_the_same():
    llm, student = np.array([[0.51, 0.49], [0.9, 0.1]]), np.array([[0.9, 0.1], [0.9, 0.1]])
    found = cases(llm, student, np.zeros(2, bool), np.ones(2, bool)).confused
    assert [each.rows.tolist() for each in found] == [[0]]


def test_where_all_agree_and_are_sure_there_is_no_case():
    sure = np.eye(3)[[0, 1, 2, 0]] * 0.97 + 0.01
    assert not cases(sure, sure, np.ones(4, bool), np.ones(4, bool)).confused


def test_of_many_labels_only_those_confused_are_shown_believed_rows():
    k = MOST_TYPICAL
    sure = np.eye(k)[np.arange(2 * k) % k] * 0.9 + 0.1 / k
    student = sure.copy()
    student[0] = sure[1]
    found = cases(sure, student, np.arange(2 * k) > 0, np.ones(2 * k, bool))
    assert [c for c, rows in enumerate(found.typical) if len(rows)] == [0, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [0, 5, 24, 500])
def test_rows_held_out_are_distinct_eligible_and_even_over_the_classes(seed, count):
    rng = np.random.default_rng(seed)
    classes, eligible = rng.integers(-1, 3, 100), rng.random(100) < 0.8
    rows = held_out(classes, eligible, count, np.random.default_rng(seed))
    there = np.bincount(classes[eligible & (classes >= 0)], minlength=3)
    counts = np.bincount(classes[rows], minlength=3)
    assert len(set(rows.tolist())) == len(rows) == min(count, there.sum())
    assert (eligible[rows] & (classes[rows] >= 0)).all()
    assert rows.tolist() == sorted(rows)
    assert all(counts[c] == there[c] or counts[c] >= counts.max() - 1 for c in range(3))


def test_rows_held_out_depend_on_the_generator_alone():
    classes, eligible = np.arange(100) % 3, np.ones(100, bool)
    first, again, other = (held_out(classes, eligible, 24, np.random.default_rng(s)).tolist() for s in (1, 1, 2))
    assert first == again != other


def test_new_meanings_are_kept_if_agreement_does_not_fall():
    reference = np.array([0, 1, 0, 1])
    none, one, two = np.array([1, 0, 1, 0]), np.array([0, 0, 1, 0]), np.array([0, 1, 1, 0])
    for before in (none, one, two):
        for after in (none, one, two):
            rises = agreed(after, reference) >= agreed(before, reference)
            assert no_worse(before, after, reference) == (rises and after is not none)


def test_an_abstention_agrees_with_nobody():
    silent = np.array([-1, -1])
    assert agreed(silent, silent) == 0
    assert not no_worse(silent, silent, silent)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(meanings).failed == 0
