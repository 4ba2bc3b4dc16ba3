"""Which rows are asked about."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeal.select.queries import expected_gain, margin, query, reliability
from freeal.types import Annotations, LoopState

STRATEGIES = ("all", "not_clean", "uncertain", "gain", "random", "none")


def state(posterior, clean, next_round=1):
    posterior = np.asarray(posterior, np.float32)
    n, k = posterior.shape
    return LoopState(
        next_round, Annotations.none(n, (k,)), posterior, posterior, np.zeros(n, np.float32), np.array(clean, bool),
        np.full(n, np.nan, np.float32),
    )  # fmt: skip


def ask(where, strategy, limit=1000, seed=0):
    return query(where, strategy, limit, np.random.default_rng(seed))


@st.composite
def states(draw):
    n = draw(st.integers(1, 30))
    posterior = np.random.default_rng(draw(st.integers(0, 99))).dirichlet(np.ones(3), n)
    posterior[draw(st.lists(st.booleans(), min_size=n, max_size=n))] = np.nan
    return state(posterior, draw(st.lists(st.booleans(), min_size=n, max_size=n)), draw(st.integers(0, 3)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=40)
@given(where=states(), limit=st.integers(0, 40))
def test_rows_are_unique_inside_the_pool_and_no_more_than_allowed(strategy, where, limit):
    rows = ask(where, strategy, limit)
    assert len(set(rows.tolist())) == len(rows) <= limit
    assert all(0 <= row < len(where.posterior) for row in rows)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_round_asks_about_every_row_it_may_drawn_from_the_whole_pool(strategy):
    np.testing.assert_array_equal(ask(LoopState.start(7, (2,)), strategy), np.arange(7))
    some = ask(LoopState.start(1000, (2,)), strategy, 200)
    assert (np.diff(some) > 0).all()
    assert 0.4 < (some < 500).mean() < 0.6


def test_where_not_all_rows_can_be_asked_again_they_are_drawn_from_the_whole_pool():
    where = state(np.full((1000, 2), 0.5), [False] * 1000)
    some = ask(where, "all", 200)
    assert len(some) == 200
    assert (np.diff(some) > 0).all()
    assert 0.4 < (some < 500).mean() < 0.6
    np.testing.assert_array_equal(ask(where, "all", 1000), np.arange(1000))


@settings(max_examples=40)
@given(where=states())
def test_clean_rows_are_never_asked_again(where):
    if where.next_round:
        np.testing.assert_array_equal(np.sort(ask(where, "not_clean")), np.flatnonzero(~where.clean))


def test_abstentions_come_first_and_the_surest_row_last():
    where = state([[0.9, 0.1], [np.nan, np.nan], [0.5, 0.5], [0.6, 0.4]], [False] * 4)
    assert ask(where, "not_clean").tolist() == [1, 2, 3, 0]
    assert ask(where, "uncertain", limit=2).tolist() == [1, 2]


def test_everything_clean_leaves_nothing_to_ask():
    assert len(ask(state([[0.9, 0.1]] * 3, [True] * 3), "not_clean")) == 0


def test_chance_takes_half_and_the_same_half_by_the_same_seed():
    where = state(np.full((9, 2), 0.5), [False] * 9)
    assert len(ask(where, "random")) == 5
    assert ask(where, "random", seed=1).tolist() == ask(where, "random", seed=1).tolist()


def test_the_margin_is_best_less_second_and_minus_one_for_an_abstention():
    np.testing.assert_allclose(margin(np.array([[0.7, 0.2, 0.1], [np.nan] * 3])), [0.5, -1.0])
    assert margin(np.zeros((0, 3))).shape == (0,)


DISTRIBUTIONS = st.integers(0, 99).map(lambda seed: np.random.default_rng(seed).dirichlet(np.full(4, 0.7), 20))
RIGHT = st.floats(0.25, 0.99)


@given(proba=DISTRIBUTIONS, right=RIGHT)
def test_an_answer_is_expected_to_do_no_harm_and_to_help_more_the_better_it_is(proba, right):
    gain = expected_gain(proba, right)
    assert (gain >= 0).all()
    assert (gain <= 1.0 - proba.max(axis=1) + 1e-12).all()
    assert (expected_gain(proba, min(0.99, right + 0.1)) >= gain - 1e-12).all()
    assert expected_gain(proba, 0.25) == pytest.approx(np.zeros(20), abs=1e-12)  # what says nothing is worth nothing


@given(proba=DISTRIBUTIONS, right=RIGHT, seed=st.integers(0, 9))
def test_the_gain_knows_no_label_by_name(proba, right, seed):
    renamed = proba[:, np.random.default_rng(seed).permutation(4)]
    np.testing.assert_allclose(expected_gain(renamed, right), expected_gain(proba, right), atol=1e-12)


@given(proba=DISTRIBUTIONS, right=RIGHT)
def test_the_gain_is_that_of_all_answers_spelt_out(proba, right):
    wrong = (1 - right) / 3
    for row, gain in zip(proba, expected_gain(proba, right), strict=True):
        said = [max(row[c] * (right if c == j else wrong) for c in range(4)) for j in range(4)]
        assert gain == pytest.approx(sum(said) - row.max(), abs=1e-12)


def test_no_row_gains_more_than_one_of_which_nothing_is_known():
    even = expected_gain(np.full((1, 4), 0.25), 0.9)[0]
    assert even == expected_gain(np.full((1, 4), np.nan), 0.9)[0]
    assert (expected_gain(np.random.default_rng(0).dirichlet(np.ones(4), 500), 0.9) <= even + 1e-12).all()
    assert expected_gain(np.array([[1.0, 0.0]]), 0.9)[0] == 0.0


def agreeing(n=100, wrong=0):
    """LLM and student say the same of half of the rows each, but for `wrong` ones."""
    posterior = np.eye(2)[np.arange(n) % 2] * 0.6 + 0.2
    student = posterior.copy()
    student[:wrong] = student[:wrong, ::-1]
    where = state(posterior, [True] * n)
    said = Annotations(
        where.annotations.first, posterior.astype(np.float32), np.zeros(n, np.int16), np.full(n, None, object)
    )
    return replace(where, annotations=said, student=student.astype(np.float32))


def test_reliability_grows_with_agreement_from_chance():
    found = [reliability(agreeing(wrong=wrong)) for wrong in (0, 10, 30, 50)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 0.99
    assert found[1] == pytest.approx(0.5 + 0.5 * 0.8**0.5)
    assert found[3] == 0.5
    assert reliability(state([[0.5, 0.5]], [False])) == 0.5


def test_rows_are_asked_by_what_they_promise_for_their_length():
    where = agreeing(wrong=10)
    doubtful = where.posterior.copy()
    doubtful[[3, 7]] = 0.5
    where = replace(where, posterior=doubtful)
    cost = np.ones(100)
    cost[3] = 30.0
    rng = np.random.default_rng(0)
    assert query(where, "gain", 1000, rng, cost)[0] == 7
    assert len(query(where, "gain", 1000, rng, cost)) == 100
    assert sorted(query(where, "gain", 1000, rng, cost, min_gain=0.3)) == [3, 7]
