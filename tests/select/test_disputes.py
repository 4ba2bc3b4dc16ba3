"""Laws of disputes: what both mark alike is none, and what is settled stays a distribution."""

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freeal.select import disputes
from freeal.select.disputes import Dispute, disputed, settled
from freeal.tasks.tags import decode


@st.composite
def markings(draw):
    """Two valid markings (n, s) of the same texts with two types."""
    n, s = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return decode(rng.dirichlet(np.ones(5), (n, s))), decode(rng.dirichlet(np.ones(5), (n, s)))


@given(markings())
def test_what_is_alike_is_not_disputed_and_neither_side_is_preferred(both):
    first, second = both
    assert disputed(first, first) == []
    assert disputed(first, second) == disputed(second, first)


@given(markings())
def test_settling_for_one_side_gives_what_it_marked_in_the_disputed_words(both):
    first, second = both
    found = disputed(first, second)
    proba = np.eye(5)[second]
    right = np.array([float(_marks(first, each)) for each in found])
    decided = settled(proba, found, right).argmax(axis=-1)
    for each, yes in zip(found, right, strict=True):
        words = slice(each.start, each.end)
        assert not yes or (decided[each.row, words] == first[each.row, words]).all()


@given(markings(), st.integers(0, 100))
def test_what_is_settled_are_distributions_and_other_rows_stay(both, seed):
    first, second = both
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(5), first.shape)
    found = disputed(first, second)
    after = settled(proba, found, rng.random(len(found)))
    np.testing.assert_allclose(after.sum(axis=-1), 1.0)
    untouched = sorted(set(range(len(first))) - {each.row for each in found})
    assert (after[untouched] == proba[untouched]).all()


def test_an_abstention_is_no_dispute_and_no_answer_changes_nothing():
    assert disputed(np.array([[-1, -1]]), np.array([[1, 0]])) == []
    proba = np.full((1, 2, 3), 1 / 3)
    assert (settled(proba, [Dispute(0, 0, 1, 0)], np.array([np.nan])) == proba).all()


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(disputes).failed == 0


def _marks(marking, dispute):
    single = np.zeros_like(marking)
    single[dispute.row] = marking[dispute.row]
    return dispute in disputed(single, np.zeros_like(marking))


def test_what_the_llm_denies_is_not_marked_whoever_else_shares_the_rest():
    proba = np.array([[[0.35, 0.4, 0.1, 0.1, 0.05]]])
    after = settled(proba, [Dispute(0, 0, 1, 0)], np.array([0.45]))
    assert after[0, 0].argmax() == 0


def test_a_longer_entity_that_is_denied_leaves_the_shorter_one_that_is_confirmed():
    proba = np.full((1, 2, 3), [0.1, 0.45, 0.45])
    after = settled(proba, [Dispute(0, 0, 1, 0), Dispute(0, 0, 2, 0)], np.array([0.9, 0.3]))
    assert after[0].argmax(axis=-1).tolist() == [1, 0]


@given(markings(), st.integers(0, 100))
def test_of_entities_that_share_words_the_likeliest_stands_and_no_piece_of_another_is_left(both, seed):
    first, second = both
    found = disputed(first, second)
    right = np.random.default_rng(seed).random(len(found))
    alike = np.where(first == second, first, 0)
    decided = settled(np.eye(5)[alike] * 0.9 + 0.02, found, right).argmax(axis=-1)
    for each, p in zip(found, right, strict=True):
        stands = {other for other in found if (decided[other.row, other.start : other.end] == _tags(other)).all()}
        rivals = {other: q for other, q in zip(found, right, strict=True) if other != each and _share(other, each)}
        if p > 0.5 and each not in stands:
            assert any(other in stands for other, q in rivals.items() if q > p)
        if p < 0.5 and all(q < 0.5 for q in rivals.values()):
            assert (decided[each.row, each.start : each.end] == 0).all()


def test_what_is_left_of_an_entity_beside_a_likelier_one_is_none():
    both = [Dispute(0, 0, 2, 0), Dispute(0, 1, 2, 0)]  # "Bank England", and "England" in it
    proba = np.full((1, 2, 3), [0.1, 0.45, 0.45])
    assert settled(proba, both, np.array([0.6, 0.95]))[0].argmax(axis=-1).tolist() == [0, 1]
    assert settled(proba, both, np.array([0.95, 0.6]))[0].argmax(axis=-1).tolist() == [1, 2]
    three = [Dispute(0, 0, 1, 0), Dispute(0, 0, 2, 0), Dispute(0, 1, 2, 0)]  # "Paris London", and each alone
    assert settled(proba, three, np.array([0.8, 0.85, 0.95]))[0].argmax(axis=-1).tolist() == [1, 1]


def _share(one, other):
    return one.row == other.row and one.start < other.end and other.start < one.end


def _tags(dispute):
    return [2 * dispute.type + 1] + [2 * dispute.type + 2] * (dispute.end - dispute.start - 1)
