"""Which rows are asked about."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeal.select.queries import margin, query
from freeal.types import Annotations, LoopState

STRATEGIES = ("all", "not_clean", "uncertain", "random", "none")


def state(posterior, clean, next_round=1):
    posterior = np.asarray(posterior, np.float32)
    n, k = posterior.shape
    return LoopState(
        next_round, Annotations.none(n, k), posterior, posterior, np.zeros(n, np.float32), np.array(clean, bool),
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
@settings(max_examples=40, deadline=None)
@given(where=states(), limit=st.integers(0, 40))
def test_rows_are_unique_inside_the_pool_and_no_more_than_allowed(strategy, where, limit):
    rows = ask(where, strategy, limit)
    assert len(set(rows.tolist())) == len(rows) <= limit
    assert all(0 <= row < len(where.posterior) for row in rows)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_round_asks_about_every_row_it_may_drawn_from_the_whole_pool(strategy):
    np.testing.assert_array_equal(ask(LoopState.start(7, 2), strategy), np.arange(7))
    some = ask(LoopState.start(1000, 2), strategy, 200)
    assert (np.diff(some) > 0).all()
    assert 0.4 < (some < 500).mean() < 0.6


@settings(max_examples=40, deadline=None)
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
