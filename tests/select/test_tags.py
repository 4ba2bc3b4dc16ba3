"""Laws of tags: what is decoded is valid and the likeliest of all that is."""

import doctest
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeal.select import tags as of_words
from freeal.select.disputes import entities
from freeal.select.filters import small_loss_gmm
from freeal.select.tags import believed_words, clean_words, entities_in, loss_of_texts
from freeal.tasks import tags
from freeal.tasks.tags import FLOOR, decode, span_confidence


@st.composite
def texts(draw, most_words=4, most_types=2, n=None):
    """(n, s, k), the probabilities small multiples of each other, so that ties and zeros are common."""
    n = draw(st.integers(1, 3)) if n is None else n
    s, k = draw(st.integers(1, most_words)), 2 * draw(st.integers(0, most_types)) + 1
    counts = draw(st.lists(st.integers(0, 5), min_size=n * s * k, max_size=n * s * k))
    shares = np.array(counts, np.float64).reshape(n, s, k) + 1e-300
    return shares / shares.sum(axis=-1, keepdims=True)


def is_valid(path):
    """Every I (even) follows B or I of its own type."""
    return all(tag == 0 or tag % 2 == 1 or before in (tag - 1, tag) for before, tag in pairwise([0, *path]))


def score(proba, path):
    return np.log(np.maximum(proba[np.arange(len(path)), path], FLOOR)).sum()


@settings(max_examples=60)
@given(proba=texts(most_words=9, most_types=4))
def test_what_is_decoded_is_valid(proba):
    assert all(is_valid(path) for path in decode(proba))


@settings(max_examples=40)
@given(proba=texts(n=1))
def test_no_valid_sequence_is_likelier(proba):
    text, (path,) = proba[0], decode(proba)
    others = filter(is_valid, product(range(text.shape[1]), repeat=len(text)))
    best = max(score(text, np.array(other)) for other in others)
    assert score(text, path) == pytest.approx(best)


@settings(max_examples=60)
@given(proba=texts(most_words=6))
def test_where_the_likeliest_tags_are_valid_nothing_is_likelier(proba):
    for text, path in zip(proba, decode(proba), strict=True):
        likeliest = text.argmax(axis=1)
        if is_valid(likeliest):
            assert score(text, path) == pytest.approx(score(text, likeliest))


@settings(max_examples=30)
@given(proba=texts(most_words=6))
def test_texts_do_not_look_at_each_other(proba):
    np.testing.assert_array_equal(decode(proba), np.stack([decode(text) for text in proba]))


@settings(max_examples=30)
@given(proba=texts(), more=st.integers(1, 3))
def test_slots_behind_the_last_word_change_nothing(proba, more):
    n, _, k = proba.shape
    behind = np.repeat(np.eye(k)[None, :1], n, axis=0).repeat(more, axis=1)
    np.testing.assert_array_equal(decode(np.concatenate([proba, behind], axis=1))[:, :-more], decode(proba))


def test_an_abstention_has_no_tags_and_leaves_its_neighbours_alone():
    proba = np.array([[[0.2, 0.8, 0.0]], [[np.nan] * 3]])
    assert decode(proba).tolist() == [[1], [-1]]


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (0, 0, 1)])
def test_no_texts_and_no_words_are_decoded_as_such(shape):
    assert decode(np.zeros(shape)).shape == shape[:2]


def test_an_even_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="found 4"):
        decode(np.ones((1, 1, 4)))


@settings(max_examples=40)
@given(proba=texts(n=1, most_types=3), ends=st.tuples(st.integers(0, 3), st.integers(1, 4)))
def test_the_confidence_of_a_span_lies_between_that_of_its_words(proba, ends):
    text, (start, end) = proba[0], ends
    if not start < end <= len(text) or text.shape[1] < 3:
        with pytest.raises(ValueError, match="there are"):
            span_confidence(text, start, end, 0)
        return
    of_words = [max(text[word, 1 if word == start else 2], FLOOR) for word in range(start, end)]
    found = span_confidence(text, start, end, 0)
    assert min(of_words) * (1 - 1e-9) <= found <= max(of_words) * (1 + 1e-9)


MASKS = st.lists(st.booleans(), min_size=12, max_size=12).map(lambda row: np.array(row).reshape(3, 4))
TAGS = st.lists(st.integers(0, 4), min_size=12, max_size=12).map(lambda row: np.array(row).reshape(3, 4))
LOSSES = st.lists(st.floats(0, 20, width=32), min_size=12, max_size=12).map(lambda row: np.array(row).reshape(3, 4))


@settings(max_examples=50)
@given(losses=LOSSES, entity=MASKS, read=MASKS)
def test_the_loss_of_a_text_is_the_mean_of_its_two_means(losses, entity, read):
    for row, found in enumerate(loss_of_texts(losses, entity, read)):
        sorts = [losses[row][read[row] & (entity[row] == kind)] for kind in (True, False)]
        means = [sort.mean() for sort in sorts if len(sort)]
        assert found == pytest.approx(np.mean(means) if means else 0.0, abs=1e-5)


@settings(max_examples=30)
@given(losses=LOSSES, entity=MASKS, read=MASKS)
def test_belief_in_a_word_never_rises_with_its_loss_among_its_own_sort(losses, entity, read):
    p_clean = clean_words(losses, entity.astype(int), read)
    assert (p_clean[~read] == 1).all()
    for sort in (read & entity, read & ~entity):
        assert (np.diff(p_clean[sort][np.argsort(losses[sort], kind="stable")]) <= 1e-6).all()
    assert ((p_clean >= 0) & (p_clean <= 1)).all()


@settings(max_examples=50)
@given(losses=LOSSES, given=TAGS, read=MASKS)
def test_the_words_of_an_entity_are_believed_alike_by_the_mean_of_their_losses(losses, given, read):
    number, p_clean = entities_in(given), clean_words(losses, given, read)
    there = [read & (number == entity) for entity in np.unique(number[read & (number >= 0)])]
    means = np.array([losses[words].mean() for words in there])
    trust = np.array([p_clean[words].min() for words in there])
    assert all(np.ptp(p_clean[words]) == 0 for words in there)
    assert (np.diff(trust[np.argsort(means, kind="stable")]) <= 1e-6).all()


@given(given=TAGS)
def test_entities_are_numbered_as_they_are_read(given):
    number = entities_in(given)
    found = {(row, *entity) for row, tags in enumerate(given) for entity in entities(tags)}
    for place, (row, start, end, _) in enumerate(sorted(found)):
        assert np.argwhere(number == place).tolist() == [[row, word] for word in range(start, end)]
    assert ((number < 0) == (given == 0)).all()


def test_an_entity_is_doubted_whole_for_one_word_that_is_hard():
    losses = np.tile([0.1, 0.2, 0.1], (20, 1)) + np.linspace(0, 1e-3, 60).reshape(20, 3)
    losses[:4, 1] += 4.0
    given = np.tile([1, 2, 1], (20, 1))  # an entity of two words, and one of one word
    p_clean = clean_words(losses, given, np.ones_like(given, bool))
    assert p_clean[:4, :2].max() < 0.1
    assert p_clean[4:].min() > 0.9
    assert p_clean[:4, 2].min() > 0.9


def test_hard_entity_words_are_no_measure_for_the_others():
    losses = np.r_[np.full(20, 0.01), np.full(5, 0.5), np.full(20, 2.0), np.full(5, 6.0)][None]
    losses = losses + np.linspace(0, 1e-3, 50)
    entity = np.arange(50)[None] >= 25
    p_clean = clean_words(losses, entity, np.ones_like(entity))[0]
    assert p_clean[25:45].min() > 0.9  # harder than the wrong ones of the other sort
    assert max(p_clean[20:25].max(), p_clean[45:].max()) < 0.1


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(tags).failed == doctest.testmod(of_words).failed == 0


def test_words_are_believed_among_their_own_sort():
    rng = np.random.default_rng(0)
    entity, read = np.zeros((40, 10), bool), np.ones((40, 10), bool)
    entity[:, :4], read[:, 9] = True, False
    wrong = rng.random((40, 10)) < 0.25
    # entities are harder: a sound one has a larger loss than a wrong O
    losses = np.where(entity, 3.0, 0.1) + np.where(wrong, 1.0, 0.0) + rng.uniform(0, 0.1, (40, 10))
    found = believed_words(losses, entity, read, small_loss_gmm)
    assert (found[read] == ~wrong[read]).all()
    assert found[~read].all()


def test_a_word_that_is_alone_of_its_sort_is_believed():
    entity, read = np.array([[True, False]]), np.array([[True, True]])
    assert believed_words(np.array([[9.0, 0.1]]), entity, read, lambda losses: pytest.fail("asked")).all()
