"""An interval that holds: from few rows, few errors, and probabilities that are wrong."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal import certificate
from freeal.certificate import LEAST, allocate, certify, difference, draw, more_needed, strata


def test_the_examples_are_true():
    assert doctest.testmod(certificate).failed == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 80))
def test_no_stratum_gives_more_than_it_has_nor_fewer_than_are_needed(sure, total):
    sure = np.array(sure)
    stratum = strata(sure)
    sizes = np.bincount(stratum)
    drawn = allocate(min(total, len(sure)), stratum)
    assert (drawn <= sizes).all()
    assert (drawn >= np.minimum(sizes, LEAST)).all()
    assert drawn.sum() >= min(total, len(sure))


def test_the_most_doubtful_are_the_first_stratum():
    sure = np.random.default_rng(0).random(100)
    stratum = strata(sure)
    assert sure[stratum == 0].max() < sure[stratum == stratum.max()].min()


def test_more_rows_are_the_same_rows_and_more():
    stratum = np.arange(100) % 4
    few, many = (set(draw(np.full(4, count), stratum, seed=3).tolist()) for count in (5, 9))
    assert few < many
    assert len(few) == 20


def test_strata_give_rows_in_proportion_to_their_size():
    assert allocate(103, np.repeat([0, 1, 2], [500, 300, 200])).tolist() == [52, 30, 21]


def audits(right, sure, rows, count, estimator=certify):
    """What as many simulated audits found."""
    stratum = strata(sure)
    wanted = allocate(rows, stratum)
    samples = (draw(wanted, stratum, seed) for seed in range(count))
    return [estimator(drawn, right[drawn], sure, stratum) for drawn in samples]


def held(right, sure, rows, count):
    """In how many simulated audits the interval has the truth in it."""
    return sum(found.low <= right.mean() <= found.high for found in audits(right, sure, rows, count))


def labels(accuracy, overconfident=0.0, size=1500):
    """Which labels are right, and how sure they are of themselves, rightly or not."""
    rng = np.random.default_rng(7)
    chance = np.clip(rng.beta(accuracy * 5, (1 - accuracy) * 5, size), 0.02, 1.0)
    return rng.random(size) < chance, chance + overconfident * (1 - chance)


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.97])
@pytest.mark.parametrize("overconfident", [0.0, 0.5])
def test_the_interval_holds_in_950_of_1000_audits(accuracy, overconfident):
    """930 of 1,000 is what is asked, 95 % what is claimed."""
    assert held(*labels(accuracy, overconfident), 100, 1000) >= 950


@pytest.mark.parametrize("rows", [50, 100, 300])
@pytest.mark.parametrize("wrong", [0.1, 0.3])
def test_it_holds_where_all_errors_are_among_the_surest_rows(rows, wrong):
    rng = np.random.default_rng(0)
    sure = np.r_[rng.uniform(0.5, 0.9, 800), rng.uniform(0.99, 1.0, 200)]
    right = np.r_[np.ones(800, bool), rng.random(200) >= wrong]
    assert held(right, sure, rows, 500) >= 465


@pytest.mark.parametrize("overconfident", [0.0, 0.5, 1.0])
def test_wrong_probabilities_bias_nothing(overconfident):
    right, sure = labels(0.8, overconfident)
    means = [found.mean for found in audits(right, sure, 60, 2000, difference)]
    assert np.mean(means) == pytest.approx(right.mean(), abs=3 * np.std(means) / np.sqrt(2000) + 0.001)


def test_probabilities_that_tell_right_from_wrong_narrow_the_interval():
    """Here those of a student, in strata of other labels: within these they differ."""
    rng = np.random.default_rng(1)
    sure, stratum = rng.random(1500), rng.integers(0, 5, 1500)
    right = rng.random(1500) < sure
    rows = draw(allocate(100, stratum), stratum, seed=0)
    told = certify(rows, right[rows], sure, stratum)
    silent = certify(rows, right[rows], np.full_like(sure, 0.5), stratum)
    assert told.high - told.low < 0.9 * (silent.high - silent.low)
    assert told.worth > 1.2 * silent.worth


def test_probabilities_that_tell_nothing_or_the_contrary_are_left_out():
    right, sure = labels(0.7)
    rows = np.arange(100)
    plain = right[rows].mean()
    alone = np.zeros(len(sure), int)
    assert certify(rows, right[rows], 1.0 - sure, alone).estimate == pytest.approx(plain)
    assert certify(rows, right[rows], sure, alone).estimate != pytest.approx(plain, abs=1e-3)


def test_probabilities_that_are_the_truth_make_the_estimate_the_truth():
    right, _ = labels(0.7)
    rows, alone = np.arange(100), np.zeros(len(right), int)
    assert right[rows].mean() != pytest.approx(right.mean(), abs=0.001)
    exact = difference(rows, right[rows], right.astype(float), alone).mean
    assert abs(exact - right.mean()) < 0.1 * abs(right[rows].mean() - right.mean())


@pytest.mark.parametrize(("right", "share"), [(True, 1.0), (False, 0.0)])
def test_of_rows_all_right_or_all_wrong_the_estimate_is_that_and_no_certainty(right, share):
    sure = np.random.default_rng(0).random(1000)
    found = certify(np.arange(60), np.full(60, right), sure, strata(sure))
    assert found.estimate == share
    assert 0.03 < found.high - found.low < 0.2


def simple(answers, size=100_000):
    """The certificate of a simple sample, of labels that are all equally sure."""
    return certify(np.arange(len(answers)), np.array(answers), np.full(size, 0.9), np.zeros(size, int))


def test_no_error_among_few_rows_is_no_certainty():
    found = simple([True] * 20, 10_000)
    assert found.estimate == found.high == 1.0
    assert 0.8 < found.low < 0.9


def test_the_interval_narrows_with_the_rows():
    right, sure = labels(0.8, size=1000)
    widths = []
    for total in (30, 100, 400, 1000):
        rows = draw(allocate(total, strata(sure)), strata(sure), seed=0)
        found = certify(rows, right[rows], sure, strata(sure))
        widths.append(found.high - found.low)
    assert sorted(widths, reverse=True) == widths


def test_when_all_rows_are_labelled_nothing_is_estimated():
    found = certify(np.arange(4), np.array([1, 0, 1, 1], bool), np.array([0.9, 0.2, 0.6, 0.7]), np.array([0, 0, 1, 1]))
    assert (found.low, found.estimate, found.high) == (0.75, 0.75, 0.75)


def test_a_stratum_without_answers_is_judged_with_its_neighbour():
    stratum, sure = np.repeat([0, 1, 2], [10, 10, 20]), np.full(40, 0.9)
    found = certify(np.array([10, 11]), np.array([True, False]), sure, stratum)
    assert found.estimate == 0.5
    assert found == certify(np.array([10, 11]), np.array([True, False]), sure, np.zeros(40, int))
    with pytest.raises(ValueError, match="no row has an answer"):
        certify(np.array([], int), np.array([], bool), sure, stratum)


def test_how_many_more_rows_are_needed():
    few = simple([True] * 97 + [False] * 3)
    more = more_needed(few, 0.95, 100_000)
    assert more > 0
    many = (100 + more) // 100 + 1
    assert simple(([True] * 97 + [False] * 3) * many).low >= 0.95
    assert more_needed(few, 0.9, 100_000) == 0
    assert more_needed(few, 0.98, 100_000) is None
    assert more_needed(few, 0.95, 120) == 20, "there are no more"


def test_without_an_error_so_far_a_few_hundred_rows_prove_99_percent():
    perfect = simple([True] * 100)
    assert 200 < more_needed(perfect, 0.99, 100_000) < 400
