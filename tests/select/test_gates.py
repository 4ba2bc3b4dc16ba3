"""Reasons to look at labels before they are used."""

import numpy as np
import pytest

from freeal.select import gates
from freeal.types import Annotations

ALL = np.ones(40, bool)


def said(n=40, answered=40, asked=40):
    """Annotations of n rows, the first of which were asked, the first of these with an answer."""
    proba = np.full((n, 2), 0.5, np.float32)
    proba[answered:] = np.nan
    asked_in = np.where(np.arange(n) < asked, 0, -1)
    return Annotations(proba, proba, asked_in, np.full(n, None, object))


def posterior(*counts):
    return np.repeat(np.eye(len(counts)) * 0.8 + 0.1, counts, axis=0)


def warnings(final, *rest):
    """Of a run whose student says what the final labels say."""
    return gates.warnings(final, final, *rest, 0.0)


def test_labels_of_every_kind_are_no_reason():
    assert warnings(posterior(25, 15), said(), ALL, 0.2) == []


@pytest.mark.parametrize(("counts", "told"), [((40, 0), True), ((39, 1), True), ((38, 2), False)])
def test_one_label_for_nearly_all_is_told(counts, told):
    assert bool(warnings(posterior(*counts), said(), ALL, 0.2)) == told


def test_a_handful_of_rows_may_have_one_label():
    assert warnings(posterior(19, 0), said(19), ALL[:19], 0.2) == []


def test_nothing_believed_is_told():
    assert "no row is believed" in warnings(posterior(20, 20), said(), ~ALL, 0.2)[0]


@pytest.mark.parametrize(("answered", "told"), [(40, False), (32, False), (31, True), (0, True)])
def test_too_few_answers_are_told(answered, told):
    assert bool(warnings(posterior(20, 20), said(answered=answered), ALL, 0.2)) == told


def test_rows_that_were_never_asked_are_no_failures():
    assert warnings(posterior(20, 20), said(answered=10, asked=10), ALL, 0.2) == []


def test_rows_that_nobody_was_asked_about_and_that_have_no_label_are_told():
    final = posterior(20, 20)
    final[30:] = np.nan
    (found,) = gates.warnings(final, np.full((40, 2), 0.5), said(answered=30, asked=30), ALL, 0.2, 0.0)
    assert found.startswith("10 of 40 rows have no label: the LLM was not asked about them")


def test_a_student_that_has_collapsed_is_told_though_the_labels_have_not():
    found = gates.warnings(posterior(20, 20), posterior(40, 0), said(), ALL, 0.2, 0.0)
    assert found == ["the student gives one label to 100.0% of the rows: it may have learned nothing else"]
    uniform = np.full((40, 2), 0.5, np.float32)
    assert gates.warnings(posterior(20, 20), uniform, said(), ALL, 0.2, 0.0) == []


def test_an_llm_that_tells_nothing_apart_is_told():
    found = gates.warnings(posterior(25, 15), posterior(25, 15), said(), ALL, 0.2, 0.08)
    assert len(found) == 1
    assert "hardly tells the labels apart (0.0%" in found[0]
    assert "stop.min_information" in found[0]


def test_labels_that_the_student_finds_nothing_to_foretell_by_are_told():
    llm, student = np.eye(2)[np.arange(400) % 2], np.eye(2)[np.arange(400) // 2 % 2]
    answered = Annotations(llm, llm, np.zeros(400, np.int16), np.full(400, None, object))
    every = np.ones(400, bool)
    found = gates.warnings(llm, student, answered, every, 0.2, 0.0)
    assert len(found) == 1
    assert found[0].startswith("LLM and student agree no more than by chance (kappa 0.00 over 400 rows)")
    assert gates.warnings(llm, llm, answered, every, 0.2, 0.0) == []
    assert gates.warnings(llm, np.full((400, 2), 0.5), answered, every, 0.2, 0.0) == []
