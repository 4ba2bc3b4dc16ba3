"""Capitals told to encoders that do not see them."""

import doctest
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from freeal.config import TaggerConfig
from freeal.student import capitals
from freeal.student.capitals import capitals_of, marked, marks_for
from freeal.student.tagger import TaggerStudent, load
from freeal.types import Inputs

MARKS = (901, 902, 903)
WORD = st.text("abAB7", min_size=1, max_size=4)


def words(text):
    return [found.span() for found in re.finditer(r"\S+", text)]


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(capitals).failed == 0


@given(st.lists(WORD, max_size=8), st.data())
def test_marks_stand_before_their_words_and_change_nothing_else(some, data):
    pieces = data.draw(st.lists(st.integers(0, 3), min_size=len(some), max_size=len(some)), "tokens of each word")
    at = np.array([1 + sum(pieces[:i]) if count else -1 for i, count in enumerate(pieces)], np.int64)
    tokens = list(range(sum(pieces) + 2))
    longer, moved = marked(tokens, at, some, MARKS, 99)
    assert [token for token in longer if token not in MARKS] == tokens
    for word, old, new in zip(some, at, moved, strict=True):
        if old < 0:
            assert new < 0
            continue
        assert longer[new] == tokens[old]
        before = longer[new - 1]
        assert (before == MARKS[capitals_of(word) - 1]) if capitals_of(word) else before not in MARKS


@given(st.lists(WORD, min_size=1, max_size=8), st.integers(2, 12))
def test_no_more_tokens_than_the_encoder_reads(some, limit):
    tokens = list(range(len(some) + 2))
    longer, moved = marked(tokens, np.arange(1, len(some) + 1), some, MARKS, limit)
    assert len(longer) <= max(limit, 2)
    assert longer[-1] == tokens[-1]
    whole, there = marked(tokens, np.arange(1, len(some) + 1), some, MARKS, 99)
    for place, (new, old) in enumerate(zip(moved, there, strict=True)):
        assert new == (old if len(whole) <= limit or old < limit - 1 else -1)
        assert new < 0 or longer[new] == tokens[place + 1]
    assert len(longer) < 2 or longer[-2] not in MARKS, "no mark without its word"


def test_only_encoders_without_capitals_that_have_tokens_to_spare_are_told(free_encoder, tiny_encoder, tiny_chat):
    ids = marks_for(AutoTokenizer.from_pretrained(free_encoder))
    assert ids == (5, 6, 7)
    assert marks_for(AutoTokenizer.from_pretrained(tiny_encoder)) == ()
    assert marks_for(AutoTokenizer.from_pretrained(tiny_chat)) == (), "its bytes tell capitals apart"


@pytest.fixture(params=[True, False])
def learned(request, free_encoder):
    """A student of texts in which nothing but capitals tells what a name is, and those texts."""
    texts = ["the Good film", "the good Film", "the GOOD film", "the good film", "Good plot", "good plot"] * 4
    target = [[int(word.istitle()) for word in text.split()] for text in texts]
    given = np.zeros((len(texts), 3), int)
    for row, tags in enumerate(target):
        given[row, : len(tags)] = tags
    settings = {"epochs": 60, "batch_size": 8, "learning_rate": 2e-3, "device": "cpu", "folds": 0, "min_steps": 0}
    config = TaggerConfig(capitals=request.param, **settings)
    student = TaggerStudent(config, ("NAME",), 0, str(free_encoder), words)
    return student.fit(Inputs(texts), np.eye(3, dtype=np.float32)[given]), texts[:6], given[:6], request.param


def test_what_capitals_alone_tell_is_learned_if_they_are_told(learned):
    student, texts, tags, told = learned
    right = (student.view(Inputs(texts)).proba.argmax(-1) == tags).all().item()
    assert right == told


def test_a_saved_student_reads_as_it_learned(learned, tmp_path):
    student, texts, _, told = learned
    student.save(tmp_path)
    again = load(tmp_path, words)
    assert bool(again.marks) == told
    np.testing.assert_allclose(again.view(Inputs(texts)).proba, student.view(Inputs(texts)).proba, atol=1e-6)
    card = json.loads((tmp_path / "student.json").read_text(encoding="utf-8"))
    del card["marks"]  # as it was written before there were marks
    (tmp_path / "student.json").write_text(json.dumps(card), encoding="utf-8")
    assert load(tmp_path, words).marks == ()


def test_marks_take_no_room_from_the_words(free_encoder):
    config = TaggerConfig(device="cpu", folds=0, max_tokens=6)
    student = TaggerStudent(config, ("NAME",), 0, str(free_encoder), words)
    read = student._texts(["The GOOD Film GOOD Film good"], None)
    assert (read.at[0] >= 0).tolist() == [True] * 4 + [False] * 2, "four words stand between the ends of six tokens"
    assert len(read.tokens[0]) == 6 + 4
