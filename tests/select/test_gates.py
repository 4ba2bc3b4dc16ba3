"""Reasons to look at labels before they are used."""

import numpy as np
import pytest

from freeal.select.gates import warnings

ALL = np.ones(40, bool)


def posterior(*counts):
    return np.repeat(np.eye(len(counts)) * 0.8 + 0.1, counts, axis=0)


def test_labels_of_every_kind_are_no_reason():
    assert warnings(posterior(25, 15), ALL, ALL, 0.2) == []


@pytest.mark.parametrize(("counts", "told"), [((40, 0), True), ((39, 1), True), ((38, 2), False)])
def test_one_label_for_nearly_all_is_told(counts, told):
    assert bool(warnings(posterior(*counts), ALL, ALL, 0.2)) == told


def test_a_handful_of_rows_may_have_one_label():
    assert warnings(posterior(19, 0), ALL[:19], ALL[:19], 0.2) == []


def test_nothing_believed_is_told():
    assert "no row is believed" in warnings(posterior(20, 20), ALL, ~ALL, 0.2)[0]


@pytest.mark.parametrize(("answered", "told"), [(40, False), (32, False), (31, True), (0, True)])
def test_too_few_answers_are_told(answered, told):
    labelled = np.arange(40) < answered
    assert bool(warnings(posterior(20, 20), labelled, ALL, 0.2)) == told
