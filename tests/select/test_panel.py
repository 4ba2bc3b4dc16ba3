"""What several readers say together."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.select import panel
from freeal.select.calibration import shifted
from freeal.select.panel import accuracies, learned, pooled, trust
from freeal.types import Answers, argmax

NOTHING = np.nan


def answers(proba, scored=True, problems=None):
    proba = np.asarray(proba, np.float32)
    n = len(proba)
    given = tuple("empty reply" if np.isnan(row[0]) else None for row in proba) if problems is None else problems
    return Answers(np.arange(n), proba, np.full(n, scored), given)


def reader(truth, right, k=3, seed=0, taste=0.0, sure=0.8):
    """Distributions of a reader that prefers the true label with probability `right`."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(truth)) < right, truth, (truth + rng.integers(1, k, len(truth))) % k)
    proba = np.full((len(truth), k), (1 - sure) / (k - 1))
    proba[np.arange(len(truth)), said] = sure
    return shifted(proba, taste * np.arange(k))


def together(said):
    known = learned(said)
    return pooled(said, known), known.weights


TRUTH = np.random.default_rng(7).integers(0, 3, 600)


def right(proba):
    return float((argmax(proba) == TRUTH).mean())


def test_a_single_reader_is_left_as_it_is():
    alone = answers(reader(TRUTH, 0.8, taste=1.0))
    found, weights = together([alone])
    assert found is alone
    assert weights.tolist() == [1.0]


@given(order=st.permutations(range(3)))
def test_the_order_of_readers_does_not_matter(order):
    said = [answers(reader(TRUTH, p, seed=i, taste=i / 2)) for i, p in enumerate((0.9, 0.7, 0.6))]
    plain, weights = together(said)
    turned, others = together([said[i] for i in order])
    np.testing.assert_allclose(others, weights[list(order)], atol=1e-9)
    np.testing.assert_allclose(turned.proba, plain.proba, atol=1e-5)
    assert weights.sum() == pytest.approx(1.0)


def test_three_that_disagree_are_better_than_the_best_of_them():
    said = [answers(reader(TRUTH, p, seed=i)) for i, p in enumerate((0.85, 0.7, 0.7))]
    found, weights = together(said)
    assert right(found.proba) > max(right(each.proba) for each in said)
    assert weights[0] == max(weights)


def test_who_tells_nothing_has_hardly_a_word():
    good, bad = reader(TRUTH, 0.8), np.tile([0.9, 0.05, 0.05], (len(TRUTH), 1))
    found, weights = together([answers(bad), answers(good)])
    assert weights[0] < 0.01
    np.testing.assert_array_equal(argmax(found.proba), argmax(good))
    noise = answers(reader(TRUTH, 1 / 3, seed=5))
    _, weights = together([answers(good), answers(reader(TRUTH, 0.8, seed=2)), noise])
    assert weights[2] == min(weights) < 0.1


@pytest.mark.parametrize("good", [1, 2, 3])
def test_readers_that_always_say_the_same_do_not_win_by_agreeing(good):
    same = np.tile([0.9, 0.05, 0.05], (len(TRUTH), 1))
    weights, _ = trust([*[reader(TRUTH, 0.9, seed=i, sure=0.9) for i in range(good)], same, same])
    assert weights[good:].max() < 0.01
    assert weights[:good].min() > 0.8 / good


def test_taste_is_taken_out_before_anything_is_pooled():
    plain = [answers(reader(TRUTH, 0.8, seed=i)) for i in range(3)]
    tasteful = [answers(reader(TRUTH, 0.8, seed=i, taste=1.5)) for i in range(3)]
    assert right(tasteful[0].proba) < 0.6
    assert right(together(tasteful)[0].proba) > right(plain[0].proba)


def test_who_abstains_has_no_say_and_where_all_do_the_row_abstains():
    first, second = reader(TRUTH, 0.8), reader(TRUTH, 0.7, seed=1)
    first[:2], second[1:3] = NOTHING, NOTHING
    found, _ = together([answers(first), answers(second)])
    assert np.isnan(found.proba).all(axis=1).tolist() == [False, True, *[False] * (len(TRUTH) - 2)]
    assert found.problems[:3] == (None, "empty reply", None)
    assert argmax(found.proba)[0] == argmax(second)[0]
    assert argmax(found.proba)[2] == argmax(first)[2]
    np.testing.assert_allclose(np.nansum(found.proba, axis=1), np.where(np.isnan(found.proba[:, 0]), 0, 1), atol=1e-5)


def test_words_are_taken_as_they_are():
    word = answers(np.tile([0.9, 0.05, 0.05], (4, 1)), scored=False)
    found, _ = together([word, answers(np.full((4, 3), NOTHING), scored=False)])
    np.testing.assert_allclose(found.proba, word.proba, atol=1e-6)
    assert not found.scored.any()


@given(seed=st.integers(0, 20), k=st.integers(2, 5))
def test_accuracies_are_shares_and_come_near_the_truth(seed, k):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, 3000)
    real = np.array([0.9, 0.8, 0.75, 0.7])
    wrong = (truth + rng.integers(1, k, (4, 3000))) % k
    said = np.where(rng.random((4, 3000)) < real[:, None], truth, wrong)
    found = accuracies(said, k)
    np.testing.assert_allclose(found, real, atol=0.05)
    said[0, :100] = -1
    assert ((accuracies(said, k) >= 1 / k) & (accuracies(said, k) <= 0.99)).all()


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(panel).failed == 0


def test_two_of_which_nothing_can_be_told_share_alike():
    assert trust([np.full((3, 2), 0.5), np.full((3, 2), 0.5)])[0].tolist() == [0.5, 0.5]


def test_what_is_known_of_readers_is_used_on_other_rows():
    said = [answers(reader(TRUTH, p, seed=i, taste=1.0)) for i, p in enumerate((0.85, 0.7, 0.7))]
    known = learned(said)
    some = [Answers(each.rows[:5], each.proba[:5], each.scored[:5], each.problems[:5]) for each in said]
    np.testing.assert_allclose(pooled(some, known).proba, pooled(said, known).proba[:5], atol=1e-6)


# --- several readers of one voice


def copies(voices, *readers):
    said = [answers(proba) for proba in readers]
    known = learned(said, voices)
    return pooled(said, known), known.weights


@given(count=st.integers(1, 4), taste=st.floats(-1, 1))
def test_paraphrases_that_say_the_same_are_one_voice(count, taste):
    good, bad = reader(TRUTH, 0.9, taste=taste), reader(TRUTH, 0.6, seed=1)
    other = reader(TRUTH, 0.75, seed=2)
    once, weights = copies([0, 1, 2], good, bad, other)
    found, shared = copies([0] * count + [1, 2], *[good] * count, bad, other)
    np.testing.assert_allclose(found.proba, once.proba, atol=1e-5)
    np.testing.assert_allclose(shared[:count], weights[0] / count, atol=1e-6)
    np.testing.assert_allclose(shared[count:], weights[1:], atol=1e-6)


def test_the_wordings_of_one_llm_weigh_alike_however_good_each_seems():
    said = [reader(TRUTH, p, seed=i) for i, p in enumerate((0.9, 0.6, 0.6))]
    _, weights = copies([0, 0, 0], *said)
    assert weights.tolist() == pytest.approx([1 / 3] * 3)
    _, apart = copies([0, 1, 2], *said)
    assert apart[0] > 1 / 3 + 0.05


def test_wordings_that_err_together_do_not_outvote_the_others():
    wrong = reader(TRUTH, 0.55, seed=3)
    others = [reader(TRUTH, 0.85, seed=i) for i in (1, 2)]
    together, _ = copies([0, 0, 0, 1, 2], wrong, wrong, wrong, *others)
    apart, _ = copies([0, 1, 2, 3, 4], wrong, wrong, wrong, *others)
    assert right(together.proba) > right(apart.proba) + 0.1


def test_the_even_pool_is_the_mean_of_the_logarithms():
    said = [np.array([[0.5, 0.3, 0.2]]), np.array([[0.1, 0.8, 0.1]])]
    known = panel.Pooling(np.zeros((2, 3)), np.array([0.5, 0.5]), np.array([0, 0]), np.ones(2))
    means = np.exp(np.mean(np.log(said), axis=0))[0]
    np.testing.assert_allclose(pooled([answers(each) for each in said], known).proba[0], means / means.sum(), atol=1e-6)


def test_a_wording_that_abstains_leaves_its_weight_to_its_llm():
    first, second, other = (reader(TRUTH, p, seed=i) for i, p in enumerate((0.8, 0.8, 0.7)))
    gaps = first.copy()
    gaps[:5] = NOTHING
    known = panel.Pooling(np.zeros((3, 3)), np.array([0.2, 0.2, 0.6]), np.array([0, 0, 1]), np.ones(3))
    found = pooled([answers(gaps), answers(second), answers(other)], known)
    two = panel.Pooling(np.zeros((2, 3)), np.array([0.4, 0.6]), np.array([0, 1]), np.ones(2))
    np.testing.assert_allclose(found.proba[:5], pooled([answers(second), answers(other)], two).proba[:5], atol=1e-6)
    three = pooled([answers(first), answers(second), answers(other)], known)
    np.testing.assert_allclose(found.proba[5:], three.proba[5:], atol=1e-6)


def test_without_calibration_what_is_said_is_pooled_as_it_is():
    said = [answers(reader(TRUTH, 0.8, seed=i, taste=1.5)) for i in range(2)]
    known = learned(said, [0, 0], calibrated=False)
    assert not known.biases.any()
    logs = np.mean([np.log(each.proba) for each in said], axis=0)
    np.testing.assert_array_equal(argmax(pooled(said, known).proba), logs.argmax(axis=1))
    assert learned(said, [0, 0]).biases.any()


# --- how sure each is


@pytest.mark.parametrize("k", [2, 5])
def test_the_surest_does_not_have_the_last_word_where_it_is_not_the_best(k):
    """One gives sharp probabilities and is right less often than two that give mere words."""
    rng = np.random.default_rng(k)
    truth = rng.integers(0, k, 2000)
    wrong = (truth + rng.integers(1, k, (3, 2000))) % k
    labels = np.where(rng.random((3, 2000)) < np.array([[0.65], [0.86], [0.84]]), truth, wrong)
    sure = np.array([1 - 1e-6, 0.9, 0.9])
    said = [answers(np.where(np.eye(k)[row] > 0, s, (1 - s) / (k - 1))) for row, s in zip(labels, sure, strict=True)]
    found, _ = together(said)
    assert (argmax(found.proba) == truth).mean() >= max((row == truth).mean() for row in labels)


def test_a_pool_is_as_sure_as_the_best_of_it_is_right():
    said = [answers(reader(TRUTH, p, seed=i, sure=0.5)) for i, p in enumerate((0.9, 0.8, 0.8))]
    known = learned(said)
    found = pooled(said, known).proba
    assert found.max(axis=1).mean() == pytest.approx(0.9, abs=0.02)
    assert right(found) > 0.9
    np.testing.assert_array_equal(argmax(found), argmax(pooled(said, replace(known, sharpness=1.0)).proba))


def test_one_that_is_no_surer_than_right_is_left_as_it_is():
    said = [answers(reader(TRUTH, 0.8, seed=i, sure=0.5)) for i in range(3)]
    assert learned(said).temperatures.tolist() == [1.0] * 3


def test_of_two_that_say_mere_words_the_first_is_believed():
    said = [answers(np.tile(each, (4, 1)), scored=False) for each in ([0.9, 0.05, 0.05], [0.05, 0.05, 0.9])]
    assert argmax(together(said)[0].proba).tolist() == [0] * 4
    assert argmax(together(said[::-1])[0].proba).tolist() == [2] * 4
