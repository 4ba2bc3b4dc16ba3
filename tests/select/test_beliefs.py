"""What is believed of the labels, and what the student learns."""

from dataclasses import replace

import numpy as np
import pytest

from freeal.errors import LLMError
from freeal.select.beliefs import agreeing, among_candidates, filtered, lessons, most_confident
from freeal.tasks.tags import decode
from freeal.types import NO_CALL, Annotations, LoopState

KINDS = ("hard", "soft", "posterior", "refined")
NOTHING = (np.nan, np.nan)
NOTHING_SAID = (np.nan,) * 3


def said(*proba, problem="not a label: 'hm'"):
    proba = np.array(proba, np.float32)
    problems = np.array([problem if np.isnan(p[0]) else None for p in proba] + [None], object)[:-1]
    return Annotations(proba, proba, np.zeros(len(proba), np.int16), problems)


def later(annotations, student, clean):
    n, k = annotations.proba.shape
    start = LoopState.start(n, (k,))
    student = np.array(student, np.float32)
    return replace(start, next_round=1, annotations=annotations, student=student, clean=np.array(clean))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("next_round", [0, 1])
def test_abstentions_never_train(kind, next_round):
    annotations = said((0.9, 0.1), NOTHING, (0.3, 0.7))
    state = later(annotations, [(0.5, 0.5)] * 3, [True] * 3) if next_round else LoopState.start(3, (2,))
    taught = lessons(annotations, state, kind)
    assert taught.rows.tolist() == [0, 2]
    np.testing.assert_allclose(taught.targets.sum(axis=1), 1.0, atol=1e-6)


def test_nothing_readable_at_all_says_what_came_instead():
    with pytest.raises(LLMError, match=r"none of 2 replies could be read, first: not a label: 'hm'"):
        lessons(said(NOTHING, NOTHING), LoopState.start(2, (2,)), "soft")


def test_too_few_calls_for_any_row_are_not_taken_for_unreadable_replies():
    with pytest.raises(LLMError, match=r"not calls enough for all questions about one \(stop.max_calls\)"):
        lessons(said(NOTHING, NOTHING, problem=NO_CALL), LoopState.start(2, (2,)), "soft")


def test_hard_targets_are_labels_and_soft_ones_distributions():
    annotations = said((0.9, 0.1), (0.3, 0.7))
    start = LoopState.start(2, (2,))
    assert lessons(annotations, start, "hard").targets.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(lessons(annotations, start, "soft").targets, annotations.proba)


def test_refined_targets_keep_the_students_label_on_believed_rows():
    annotations = said((0.9, 0.1), (0.9, 0.1))
    state = later(annotations, [(0.2, 0.8), (0.2, 0.8)], [True, False])
    assert lessons(annotations, state, "refined").targets.tolist() == [[0, 1], [1, 0]]


def test_posterior_targets_pool_llm_and_last_student():
    annotations = said((0.6, 0.4))
    state = later(annotations, [(0.1, 0.9)], [False])
    assert lessons(annotations, state, "posterior").targets.argmax() == 1
    assert lessons(annotations, LoopState.start(1, (2,)), "posterior").targets.argmax() == 0


def test_only_what_passed_and_is_agreed_on_is_believed():
    annotations = said((0.9, 0.1), (0.9, 0.1), NOTHING, (0.9, 0.1))
    student = np.array([(0.8, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.2)])
    assert agreeing(annotations, student).tolist() == [True, False, False, True]
    assert filtered(annotations, student, np.array([True, True, True, False])).tolist() == [True, False, False, False]


def test_two_agree_where_what_they_come_to_is_the_same_whatever_is_likeliest_on_the_way():
    one, late = [(0.4, 0.6, 0.0), (0.3, 0.0, 0.7)], [(0.6, 0.4, 0.0), (0.1, 0.0, 0.9)]  # B, I; O, I: an entity of both
    short, other = [(0.4, 0.6, 0.0), (0.6, 0.0, 0.4)], [(0.6, 0.4, 0.0), (0.6, 0.0, 0.4)]
    proba = np.array([one, one, one, [NOTHING_SAID] * 2])
    annotations = Annotations(proba, proba, np.zeros(4, np.int16), np.full(4, None, object))
    student, passed = np.array([late, short, other, late]), np.ones(4, bool)
    assert agreeing(annotations, student, decode).tolist() == [True, False, False, False]
    assert filtered(annotations, student, passed, decode).tolist() == [True, False, False, False]
    assert most_confident(annotations, student, 1.0, decode, lambda best: best[:, 0]).tolist() == [
        True, False, False, False,
    ]  # fmt: skip


def test_the_most_confident_are_chosen_class_by_class():
    sure = np.r_[np.linspace(0.9, 0.99, 10), np.linspace(0.51, 0.6, 5)]
    student = np.stack([sure, 1 - sure], axis=1)
    student[10:] = student[10:, ::-1]
    believed = most_confident(said(*student), student, 0.2)
    assert np.flatnonzero(believed).tolist() == [8, 9, 14]


def test_a_class_with_one_row_still_has_its_most_confident():
    student = np.array([(0.9, 0.1), (0.4, 0.6)])
    assert most_confident(said(*student), student, 0.2).all()


def test_a_decision_that_was_left_open_is_not_learned_and_nobody_agrees_with_it():
    said_of = np.array([[[0.1, 0.9], [0.5, 0.5]], [[0.1, 0.9], [0.8, 0.2]]], np.float32)
    annotations = Annotations(said_of, said_of, np.zeros(2, np.int16), np.full(2, None, object))
    taught = lessons(annotations, LoopState.start(2, (2, 2)), "soft")
    assert taught.weights.tolist() == [[1, 0], [1, 1]]
    assert agreeing(annotations, np.array([[[0.2, 0.8], [0.9, 0.1]]] * 2)).tolist() == [False, True]
    learned = replace(LoopState.start(2, (2, 2)), next_round=1, student=np.full((2, 2, 2), [0.2, 0.8]))
    assert lessons(annotations, learned, "posterior").weights.tolist() == [[1, 0], [1, 1]]
    whole = Annotations(said_of[1:], said_of[1:], np.zeros(1, np.int16), np.full(1, None, object))
    assert lessons(whole, LoopState.start(1, (2, 2)), "soft").weights is None


def test_a_mere_word_is_its_only_candidate_in_single_precision_too():
    word = np.full((1, 4), 0.1 / 3, np.float32)
    word[0, 2] = 0.9
    assert among_candidates(word).tolist() == [[0, 0, 1, 0]]
