"""What is said of candidates becomes what is said of words, and is neither surer nor less sure than it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.select.composing import best_apart, composed, even_shares

WORDS = 6
SPANS = st.tuples(st.integers(0, WORDS - 1), st.integers(1, 3)).map(lambda at: (at[0], min(WORDS, sum(at))))
CASES = st.lists(SPANS, unique=True, max_size=8).flatmap(
    lambda spans: st.tuples(
        st.just(spans), st.lists(st.floats(0, 1), min_size=len(spans), max_size=len(spans)).map(np.array)
    )
)


def of_two_types(entity):
    """(c, 3): the entity's probability shared out two to one."""
    entity = np.asarray(entity, float).reshape(-1, 1)
    return np.hstack([entity * 2 / 3, entity / 3, 1 - entity])


def test_the_words_of_a_candidate_are_what_it_is():
    (proba,) = [composed([(1, 3)], np.array([[0.6, 0.1, 0.3]]), 4, outside=0.9)]
    np.testing.assert_allclose(proba[1], [0.3, 0.6, 0.0, 0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(proba[2], [0.3, 0.0, 0.6, 0.0, 0.1], atol=1e-6)
    np.testing.assert_allclose(proba[[0, 3], 0], 0.9, atol=1e-6)


@pytest.mark.parametrize(
    ("entity", "taken"),
    [
        ([0.9, 0.85, 0.9], [1]),
        ([0.9, 0.6, 0.2], [0, 2]),
        ([0.1, 0.2, 0.3], [2, 0]),
        ([0.9, 0.4, 0.8], [0, 2]),
        ([0.3, 0.39, 0.1], [1]),
    ],
)
def test_a_name_is_preferred_to_its_parts_unless_it_is_less_likely(entity, taken):
    assert best_apart([(0, 1), (0, 2), (1, 2)], np.array(entity)) == taken


@given(CASES)
def test_what_is_taken_lies_apart_and_nothing_more_could_be(case):
    spans, entity = case
    taken = best_apart(spans, entity)
    words = [word for place in taken for word in range(*spans[place])]
    assert len(words) == len(set(words))
    assert all(set(range(*span)) & set(words) for span in spans)


@given(CASES, st.randoms())
def test_the_order_of_candidates_does_not_matter(case, dice):
    spans, entity = case
    order = list(range(len(spans)))
    dice.shuffle(order)
    again = composed([spans[i] for i in order], of_two_types(entity[order]), WORDS, 0.9)
    np.testing.assert_array_equal(again, composed(spans, of_two_types(entity), WORDS, 0.9))


@given(CASES)
def test_where_none_is_rather_an_entity_the_likeliest_comes_first(case):
    spans, entity = case
    unlikely = entity / 2
    assert all(unlikely[place] == unlikely.max() for place in best_apart(spans, unlikely)[:1])


@given(CASES)
def test_words_have_distributions(case):
    spans, entity = case
    proba = composed(spans, of_two_types(entity), WORDS, 0.9)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)
    assert (proba >= 0).all()


@given(CASES)
def test_an_entity_is_marked_only_where_a_candidate_is_likelier_one_than_not(case):
    spans, entity = case
    proba = composed(spans, of_two_types(entity), WORDS, 0.9)
    for word in np.flatnonzero(proba[:, 0] < 0.5):
        assert any(start <= word < end and p > 0.5 for (start, end), p in zip(spans, entity, strict=True))


@pytest.mark.parametrize("k", [2, 3, 5])
@given(candidates=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=30))
def test_even_shares_are_shares_and_nested_candidates_are_rarely_entities(k, candidates):
    asked = sorted({(text, (start, start + length)) for text, start, length in candidates})
    apart, nested = (even_shares(asked, k, nested=each) for each in (False, True))
    for shares in (apart, nested):
        assert shares.sum() == pytest.approx(1.0)
        assert (shares > 0).all()
    np.testing.assert_allclose(apart, 1 / k)
    assert nested[-1] >= apart[-1] - 1e-12


@given(
    candidates=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=30),
    chosen=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_of_the_entities_of_candidates_left_out_half_are_expected_among_the_others(candidates, chosen):
    every = sorted({(text, (start, start + length)) for text, start, length in candidates})
    asked = [each for each, is_asked in zip(every, chosen, strict=False) if is_asked] or every[:1]
    shares = even_shares(asked, 2, nested=True, every=every)
    few, all_ = even_shares(asked, 2, nested=True)[0], even_shares(every, 2, nested=True)[0] * len(every) / len(asked)
    assert shares[0] == pytest.approx(min(0.5, (few + max(few, all_)) / 2))
    np.testing.assert_allclose(even_shares(every, 2, True, every), even_shares(every, 2, True))


def test_candidates_that_share_no_word_are_places_of_their_own():
    asked = [(0, (0, 1)), (0, (1, 2)), (1, (0, 1))]
    np.testing.assert_allclose(even_shares(asked, 4, nested=True), even_shares(asked, 4, nested=False))
