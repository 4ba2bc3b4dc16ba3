"""Whose word a label is, and why."""

import numpy as np
import pytest

from freeal.select.reasons import Decision, believed_by, decided_by, mute, reasons, sources
from freeal.tasks.tags import decode
from freeal.types import NO_CALL, Annotations, LoopState, argmax

NOTHING = [np.nan] * 2


def after(llm, student, final, asked_in=0, problem=None, believed=False):
    """The state after a round in which everybody said this of the rows, each argument a row."""
    llm, student, final = (np.array(said, np.float32) for said in (llm, student, final))
    n = len(final)
    said = Annotations(llm, llm, np.full(n, asked_in, np.int16), np.full(n, problem, object))
    none = np.zeros(n, np.float32)
    return LoopState(1, said, final, student, none, np.full(n, believed), none)


def test_the_source_tells_whose_word_a_label_is():
    llm = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], NOTHING, NOTHING]
    student = [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1], NOTHING]
    final = [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1], NOTHING]
    assert sources(after(llm, student, final), argmax) == ["both", "llm", "student", "student", "nobody"]


def test_whose_word_entities_are_is_told_by_what_is_decoded():
    one, other = [[[0.4, 0.6, 0.0], [0.3, 0.0, 0.7]]], [[[0.4, 0.6, 0.0], [0.6, 0.0, 0.4]]]
    late = [[[0.6, 0.4, 0.0], [0.1, 0.0, 0.9]]]  # O, then I: decoded as B, I
    for student, whose in ((late, "both"), (other, "llm")):
        assert sources(after(one, student, one), decode) == [whose]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (after([[0.9, 0.1]], [[0.8, 0.2]], [[0.9, 0.1]], believed=True), "agree, and the student found it easy"),
        (after([[0.9, 0.1]], [[0.8, 0.2]], [[0.9, 0.1]]), "agree, but the student found it hard: not believed"),
        (after([[0.9, 0.1]], [[0.4, 0.6]], [[0.8, 0.2]]), "which says otherwise, the LLM's word weighs more"),
        (after([[0.9, 0.1]], [[0.5, 0.5]], [[0.9, 0.1]]), "the LLM's word alone: no student has a say"),
        (after([[0.6, 0.4]], [[0.1, 0.9]], [[0.2, 0.8]]), "which says otherwise, the student's word weighs more"),
        (after([NOTHING], [[0.1, 0.9]], [[0.1, 0.9]], -1), "the LLM was not asked: the student's word alone"),
        (after([NOTHING], [[0.1, 0.9]], [[0.1, 0.9]], 0, "cut off"), "the LLM gave no label (cut off): the student's"),
        (after([NOTHING], [[0.5, 0.5]], [NOTHING], -1), "no label: the LLM was not asked, and no student has a say"),
        (after([NOTHING], [[0.1, 0.9]], [[0.1, 0.9]], -1, NO_CALL), f"not asked ({NO_CALL}): the student's"),
        (after([NOTHING], [[0.5, 0.5]], [NOTHING], 0, "refused"), "no label: the LLM gave no label (refused), and no"),
        (
            after([[0.5, 0.4, 0.1]], [[0.1, 0.4, 0.5]], [[0.3, 0.4, 0.3]]),
            "LLM and student differ: together they favour a third label",
        ),
        (
            after([[[0.9, 0.1], [0.6, 0.4]]], [[[0.6, 0.4], [0.1, 0.9]]], [[[0.9, 0.1], [0.3, 0.7]]]),
            "pooled with the LLM's, which says otherwise, the student's word weighs more",
        ),
        (
            after([[[0.9, 0.1], [0.6, 0.4]]], [[[0.4, 0.6], [0.1, 0.9]]], [[[0.9, 0.1], [0.3, 0.7]]]),
            "LLM and student differ in part: their words are pooled decision by decision",
        ),
        (after([[0.9, 0.1]], [[0.8, 0.2]], [[0.9, 0.1]], -1), "LLM and student agree"),
    ],
)  # fmt: skip
def test_the_reason_is_what_happened_to_the_row(state, why):
    assert why in reasons(state, argmax)[0]


@pytest.mark.parametrize(
    ("filter_kind", "belief_kind", "believed", "why"),
    [
        ("gmm", "agreement", True, "agree, and the student found it easy: believed"),
        ("quantile", "agreement", False, "agree, but the student found it hard: not believed"),
        ("none", "agreement", True, "LLM and student agree: believed"),
        ("gmm", "confident", True, "agree, and it is among those the student is surest of: believed"),
        ("none", "confident", False, "agree, but the student is surer of others: not believed"),
    ],
)
def test_the_reason_to_believe_is_that_of_the_run(filter_kind, belief_kind, believed, why):
    state = after([[0.9, 0.1]], [[0.8, 0.2]], [[0.9, 0.1]], believed=believed)
    assert reasons(state, argmax, "LLM", Decision(believed_by(filter_kind, belief_kind)))[0].endswith(why)


LLM_STANDS = after([[0.6, 0.4]], [[0.1, 0.9]], [[0.6, 0.4]])
STUDENT_STANDS = after([[0.6, 0.4]], [[0.1, 0.9]], [[0.1, 0.9]])


@pytest.mark.parametrize(
    ("fusion", "state", "why"),
    [
        (("freeal", 0.5, 0.5), LLM_STANDS, "LLM and student differ: not believed, so the LLM's word stands"),
        (("log_linear", 0.5, 0.0), LLM_STANDS, "the LLM's word alone: the student, which says otherwise, has no say"),
        (("log_linear", 0.9, 0.1), LLM_STANDS, "pooled with the student's, which says otherwise, the LLM's word"),
        (("log_linear", 0.0, 0.5), STUDENT_STANDS, "the student's word alone: the LLM, which says otherwise, has no"),
        (("log_linear", 0.5, 0.5), STUDENT_STANDS, "pooled with the LLM's, which says otherwise, the student's word"),
    ],
)
def test_the_reason_why_a_word_stands_is_that_of_the_run(fusion, state, why):
    (told,) = reasons(state, argmax, decision=Decision(rule=decided_by(*fusion)))
    assert told.startswith(why)
    assert "surer" not in told


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (LLM_STANDS, "differ: the LLM's word stands, now that it was asked again about each entity in dispute"),
        (STUDENT_STANDS, "differ: the student's word stands, now that the LLM was asked again about each"),
        (
            after([[[0.9, 0.1], [0.6, 0.4]]], [[[0.4, 0.6], [0.1, 0.9]]], [[[0.9, 0.1], [0.3, 0.7]]]),
            "differ: each entity in dispute is one if the LLM, asked again, says so, as far as calls went",
        ),
        (after([[0.9, 0.1]], [[0.8, 0.2]], [[0.9, 0.1]], believed=True), "LLM and student agree"),
        (after([[0.9, 0.1]], [[0.5, 0.5]], [[0.9, 0.1]]), "the LLM's word alone: no student has a say"),
        (after([NOTHING], [[0.1, 0.9]], [[0.1, 0.9]], -1), "the LLM was not asked: the student's word alone"),
    ],
)
def test_disputes_that_were_settled_by_asking_again_are_not_called_pooled(state, why):
    (told,) = reasons(state, argmax, decision=Decision(verified=True))
    assert why in told
    assert "pooled" not in told


def test_an_understudy_is_named_in_the_place_of_the_llm():
    state = after([[0.9, 0.1]], [[0.4, 0.6]], [[0.8, 0.2]])
    told = "pooled with the student's, which says otherwise, the understudy's word weighs more"
    assert reasons(state, argmax, "understudy") == [told]


def test_who_prefers_no_label_has_said_nothing():
    assert mute(np.array([[0.5, 0.5], [0.4, 0.6]])).tolist() == [True, False]
    assert mute(np.full((2, 3, 2), 0.5)).tolist() == [True, True]
    assert mute(np.zeros((0, 2))).tolist() == []
