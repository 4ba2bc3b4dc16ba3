from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freeal.student.augment import augment, hide

texts = st.lists(st.text("abcdé.", min_size=1, max_size=5), min_size=1, max_size=12).map(" ".join)


@given(texts, st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
def test_words_are_left_out_or_moved_and_one_stays(text, seed, drop, swap):
    words = augment(text, np.random.default_rng(seed), drop, swap).split()
    assert words
    assert Counter(words) <= Counter(text.split())


def test_the_same_generator_gives_the_same_wording():
    text = "a slow but charming film about a boy and his dog"
    assert augment(text, np.random.default_rng(3)) == augment(text, np.random.default_rng(3))


def test_other_chance_gives_another_wording():
    text = "a slow but charming film about a boy and his dog"
    assert len({augment(text, np.random.default_rng(seed)) for seed in range(20)}) > 10


def test_a_single_word_stays_as_it_is():
    assert augment("splendid", np.random.default_rng(0), drop=1.0) == "splendid"


def test_dropping_everything_leaves_one_word():
    assert augment("good film", np.random.default_rng(0), drop=1.0) in {"good", "film"}


@given(st.lists(st.integers(0, 9)), st.integers(0, 2**32), st.floats(0, 1))
def test_a_hidden_word_keeps_its_place_and_marks_are_seen(tokens, seed, share):
    seen = hide(tokens, 99, {0, 1}, np.random.default_rng(seed), share)
    assert len(seen) == len(tokens)
    assert all(new == old or (new == 99 and old > 1) for new, old in zip(seen, tokens, strict=True))


def test_as_many_words_are_hidden_as_asked():
    tokens = [0, *range(2, 2002), 1]
    assert hide(tokens, 99, {0, 1}, np.random.default_rng(0), 0.0) == tokens
    assert hide(tokens, -1, {0, 1}, np.random.default_rng(0), 1.0) == [0, *[-1] * 2000, 1]
    assert 150 < hide(tokens, -1, {0, 1}, np.random.default_rng(0)).count(-1) < 250
