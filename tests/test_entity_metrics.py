"""Entities against gold: laws over random sentences, and one example of each kind of noise."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal import entity_metrics
from freeal.entity_metrics import EntityNoise, entity_noise, entity_scores, scores_of
from freeal.metrics import LabelScores
from freeal.tasks.spans import chunks
from freeal.types import argmax

TAGS = st.sampled_from(["O", "O", "B-A", "I-A", "B-B", "I-B", "S-B"])


@st.composite
def corpora(draw):
    """Predicted and gold sentences of the same lengths; some predictions abstain, some gold is unknown."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6))
    predicted, gold = (
        [draw(st.one_of(st.lists(TAGS, min_size=n, max_size=n), st.none())) for n in lengths] for _ in range(2)
    )
    return predicted, gold


def known(sentences, gold):
    return sum(len(chunks(tags or [])) for tags, truth in zip(sentences, gold, strict=True) if truth is not None)


@given(corpora())
def test_every_predicted_entity_is_of_one_kind(corpus):
    predicted, gold = corpus
    noise, report = entity_noise(predicted, gold), entity_scores(predicted, gold)
    if all(tags is None for tags in gold):
        assert noise is report is None
        return
    assert noise.predicted == known(predicted, gold)
    assert noise.correct + noise.wrong_type + noise.missed <= known(gold, gold) == report.micro.in_gold
    assert report.micro.in_gold == sum(scores.in_gold for scores in report.by_type.values())
    assert report.micro.precision == pytest.approx(noise.correct / (noise.predicted or 1))
    assert report.micro.recall == pytest.approx(noise.correct / (report.micro.in_gold or 1))
    assert 0 <= report.micro.f1 <= 1


@given(corpora(), st.randoms())
def test_the_order_of_the_sentences_does_not_matter(corpus, chance):
    pairs = list(zip(*corpus, strict=True))
    chance.shuffle(pairs)
    predicted, gold = zip(*pairs, strict=True)
    assert entity_noise(predicted, gold) == entity_noise(*corpus)
    assert entity_scores(predicted, gold) == entity_scores(*corpus)


@given(corpora())
def test_gold_itself_is_perfect(corpus):
    gold = corpus[1]
    entities = known(gold, gold)
    if any(tags is not None for tags in gold):
        assert entity_noise(gold, gold) == EntityNoise(entities, 0, 0, 0, 0, 0)
    if entities:
        report = entity_scores(gold, gold)
        assert report.micro == LabelScores(1.0, 1.0, 1.0, entities)
        assert {scores.f1 for scores in report.by_type.values()} == {1.0}


@given(corpora())
def test_gold_and_predictions_change_places_as_precision_and_recall_do(corpus):
    both = [pair for pair in zip(*corpus, strict=True) if None not in pair]
    if both:
        predicted, gold = zip(*both, strict=True)
        there, back = entity_scores(predicted, gold).micro, entity_scores(gold, predicted).micro
        assert (there.precision, there.recall) == (back.recall, back.precision)


@pytest.mark.parametrize(
    ("kind", "predicted", "gold"),
    [
        ("correct", "O B-A I-A", "O B-A I-A"),
        ("correct", "O I-A E-A", "O B-A I-A"),
        ("wrong_boundary", "O B-A O", "O B-A I-A"),
        ("wrong_boundary", "B-A I-A O", "B-B B-A I-A"),
        ("wrong_type", "O B-B I-B", "O B-A I-A"),
        ("wrong_both", "O B-B O", "O B-A I-A"),
        ("spurious", "B-A O O", "O B-A O"),
    ],
)
def test_each_kind_of_noise_is_told(kind, predicted, gold):
    assert getattr(entity_noise([predicted.split()], [gold.split()]), kind) == 1


def test_a_gold_entity_is_missed_where_nothing_overlaps_it():
    assert entity_noise([["B-A", "O", "B-B"]], [["B-A", "B-A", "I-A"]]).missed == 0
    assert entity_noise([["B-A", "O", "O"]], [["B-A", "B-A", "I-A"]]).missed == 1


def test_an_abstention_misses_everything_and_unlabelled_gold_does_not_count():
    predicted, gold = [None, ["B-A"]], [["B-A", "B-B"], None]
    assert entity_noise(predicted, gold) == EntityNoise(0, 0, 0, 0, 0, 2)
    assert entity_scores(predicted, gold).micro == LabelScores(0.0, 0.0, 0.0, 2)
    assert entity_scores([], []) is entity_noise([], []) is None


def test_types_keep_their_own_figures_even_with_hyphens():
    report = entity_scores([["B-a-b", "B-c", "O"]], [["B-a-b", "O", "B-c"]])
    assert {name: (scores.f1, scores.in_gold) for name, scores in report.by_type.items()} == {
        "a-b": (1.0, 1),
        "c": (0.0, 1),
    }


def test_lengths_that_differ_are_told():
    with pytest.raises(ValueError, match=r"1 predicted sentence\(s\), 0 in gold"):
        entity_scores([["O"]], [])
    with pytest.raises(ValueError, match=r"sentence 2: 1 predicted tag\(s\), 2 in gold"):
        entity_noise([["O"], ["O"]], [["O"], ["O", "O"]])


def test_a_tagger_that_is_as_right_as_it_is_sure_has_hardly_a_calibration_error():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet([2.0, 1.0, 1.0], (1000, 20))
    gold = (rng.random((1000, 20, 1)) > proba.cumsum(axis=-1)).sum(axis=-1)
    score = scores_of(["O", "B-A", "I-A"], argmax)
    assert score(proba, gold).calibration_error < 0.05
    assert score(np.tile([0.9, 0.1, 0.0], (1000, 20, 1)), gold).calibration_error is None  # nothing is predicted


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(entity_metrics).failed == 0
