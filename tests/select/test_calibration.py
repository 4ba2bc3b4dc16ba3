"""Taking the LLM's taste out, and joining several passes."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeal.select.calibration import (
    Calibrator,
    Correction,
    Explained,
    batch_bias,
    information,
    learnable_prior,
    no_surer,
    prior_bias,
    shifted,
)
from freeal.types import NO_CALL, Answers, LoopState, argmax


def tasteful(n=400, k=3, seed=0):
    """Distributions of an LLM that likes its first label."""
    rng = np.random.default_rng(seed)
    return shifted(rng.dirichlet(np.ones(k), n), np.linspace(1.5, 0.0, k))


def answers(proba, rows=None, scored=True, problems=None):
    proba = np.asarray(proba, np.float32)
    n = len(proba)
    rows = np.arange(n) if rows is None else np.asarray(rows)
    problems = tuple("nothing" if np.isnan(p[0]) else None for p in proba) if problems is None else problems
    return Answers(rows, proba, np.full(n, scored), problems)


def after(state, annotations, posterior=None, number=1):
    posterior = annotations.proba if posterior is None else posterior
    student = np.full_like(posterior, 1 / posterior.shape[1])
    n = len(posterior)
    return LoopState(number, annotations, posterior, student, np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n))


NOTHING = [np.nan, np.nan]


def test_the_batch_bias_makes_the_mean_more_even():
    proba = tasteful()
    mean = shifted(proba, batch_bias(proba)).mean(axis=0)
    assert np.ptp(mean) < 0.3 * np.ptp(proba.mean(axis=0))


def test_an_even_batch_is_left_alone():
    proba = np.tile(np.eye(3) * 0.7 + 0.1, (50, 1))
    np.testing.assert_allclose(shifted(proba, batch_bias(proba)), proba, atol=1e-9)


def test_a_handful_of_rows_moves_little():
    one = np.array([[0.98, 0.02]])
    assert shifted(one, batch_bias(one)).argmax() == 0


@settings(max_examples=30)
@given(shares=st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_the_prior_bias_reaches_the_stated_mean(shares, seed):
    prior, proba = np.array(shares) / sum(shares), tasteful(seed=seed)
    np.testing.assert_allclose(shifted(proba, prior_bias(proba, prior)).mean(axis=0), prior, atol=1e-3)


def test_a_class_that_never_occurs_may_have_the_prior_zero():
    bias = prior_bias(tasteful(), np.array([0.5, 0.5, 0.0]))
    assert np.isfinite(bias).all()
    assert shifted(tasteful(), bias).mean(axis=0)[2] < 0.01


@pytest.mark.parametrize("kind", ["none", "batch", "prior"])
def test_abstentions_stay_abstentions(kind):
    said = answers([[0.9, 0.1], NOTHING, [0.7, 0.3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Calibrator(kind, "average", np.array([0.5, 0.5]))(LoopState.start(3, (2,)), said)
    assert found.labelled.tolist() == [True, False, True]
    assert list(found.problems) == [None, "nothing", None]


def test_mere_words_are_left_as_they_are():
    said = answers([[0.9, 0.1]] * 20, scored=False)
    found = Calibrator("batch", "latest")(LoopState.start(20, (2,)), said)
    np.testing.assert_array_equal(found.proba, said.proba)


def test_no_calibration_changes_nothing():
    said = answers(tasteful(50, 2))
    found = Calibrator("none", "average")(LoopState.start(50, (2,)), said)
    np.testing.assert_allclose(found.proba, said.proba, atol=1e-6)


@pytest.mark.parametrize("passes", ["average", "latest"])
def test_what_was_said_before_there_were_demonstrations_is_replaced(passes):
    calibrate, start = Calibrator("none", passes), LoopState.start(1, (2,))
    state = after(start, calibrate(start, answers([[0.9, 0.1]])))
    np.testing.assert_allclose(calibrate(state, answers([[0.2, 0.8]])).proba[0], [0.2, 0.8], atol=1e-6)


def test_the_average_is_the_geometric_mean_of_the_later_passes():
    calibrate, state = Calibrator("none", "average"), LoopState.start(1, (2,))
    for said in ([0.5, 0.5], [0.9, 0.1]):
        state = after(state, calibrate(state, answers([said])))
    found = calibrate(state, answers([[0.2, 0.8]])).proba[0]
    expected = np.sqrt([0.9 * 0.2, 0.1 * 0.8])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-6)


def test_the_latest_pass_replaces_all_before_it():
    calibrate, state = Calibrator("none", "latest"), LoopState.start(1, (2,))
    for said in ([0.5, 0.5], [0.9, 0.1]):
        state = after(state, calibrate(state, answers([said])))
    np.testing.assert_allclose(calibrate(state, answers([[0.2, 0.8]])).proba[0], [0.2, 0.8], atol=1e-6)


@pytest.mark.parametrize("passes", ["average", "latest"])
def test_a_row_that_abstains_now_keeps_what_it_had(passes):
    calibrate, start = Calibrator("none", passes), LoopState.start(2, (2,))
    before = calibrate(start, answers([[0.9, 0.1], [0.4, 0.6]]))
    found = calibrate(after(start, before), answers([NOTHING], rows=[1]))
    np.testing.assert_array_equal(found.proba, before.proba)
    assert found.problems[1] == "nothing"
    assert found.asked_in.tolist() == [0, 1]


def test_a_row_that_was_refused_stays_so_if_no_call_is_left_to_ask_again():
    calibrate, start = Calibrator("none", "average"), LoopState.start(2, (2,))
    before = calibrate(start, answers([[0.9, 0.1], NOTHING], problems=(None, "refused")))
    found = calibrate(after(start, before), answers([NOTHING], rows=[1], problems=(NO_CALL,)))
    assert found.asked_in.tolist() == [0, 0]
    assert list(found.problems) == [None, "refused"]


def test_the_taste_without_demonstrations_is_not_that_of_a_later_pass():
    calibrate = Calibrator("estimated", "latest", taste=lambda: pytest.fail("it is not asked for"))
    state = replace(LoopState.start(40, (2,)), next_round=1)
    assert calibrate(state, answers(tasteful(40, 2))).labelled.all()


def test_a_row_for_which_no_call_was_left_was_not_asked():
    calibrate, start = Calibrator("none", "average"), LoopState.start(3, (2,))
    before = calibrate(start, answers([[0.9, 0.1], NOTHING], problems=(None, NO_CALL)))
    assert before.asked_in.tolist() == [0, -1, -1]
    found = calibrate(after(start, before), answers([NOTHING, [0.2, 0.8]], problems=(NO_CALL, None)))
    assert found.asked_in.tolist() == [0, 1, -1]
    assert found.labelled.tolist() == [True, True, False]


def test_a_row_that_abstained_before_takes_what_it_is_given_now():
    calibrate, start = Calibrator("none", "average"), LoopState.start(1, (2,))
    state = after(start, calibrate(start, answers([NOTHING])))
    np.testing.assert_allclose(calibrate(state, answers([[0.2, 0.8]])).proba[0], [0.2, 0.8], atol=1e-6)


def test_the_first_word_of_the_llm_is_never_overwritten():
    calibrate, start = Calibrator("batch", "average"), LoopState.start(3, (2,))
    first = answers([[0.9, 0.1], NOTHING, [0.7, 0.3]])
    state = after(start, calibrate(start, first), np.full((3, 2), 0.5, np.float32))
    found = calibrate(state, answers([[0.1, 0.9], [0.2, 0.8]], rows=[0, 1]))
    np.testing.assert_array_equal(found.first, first.proba)


def test_a_later_pass_over_many_rows_is_brought_to_what_is_believed_of_them():
    n = 4000
    start, calibrate = LoopState.start(n, (2,)), Calibrator("batch", "latest")
    believed = np.tile([0.2, 0.8], (n, 1)).astype(np.float32)
    state = after(start, calibrate(start, answers(tasteful(n, 2))), believed)
    found = calibrate(state, answers(tasteful(n, 2, seed=1)))
    np.testing.assert_allclose(found.proba.mean(axis=0), [0.2, 0.8], atol=0.01)


def test_a_later_pass_is_no_surer_than_the_first_was_of_the_same_rows():
    n, rng = 400, np.random.default_rng(0)
    first = rng.dirichlet(np.full(3, 0.6), n)
    surer = shifted(first**3, np.zeros(3))
    start, calibrate = LoopState.start(n, (3,)), Calibrator("batch", "latest")
    said = calibrate(start, answers(first))
    state = after(start, said, said.proba)
    found = calibrate(state, answers(surer))
    assert surer.max(axis=1).mean() > said.proba.max(axis=1).mean() + 0.05
    assert found.proba.max(axis=1).mean() == pytest.approx(said.proba.max(axis=1).mean(), abs=0.02)
    np.testing.assert_allclose(found.proba.mean(axis=0), said.proba.mean(axis=0), atol=0.02)
    told = replace(calibrate, sober=False)(state, answers(surer))
    assert told.proba.max(axis=1).mean() > said.proba.max(axis=1).mean() + 0.05


def test_a_later_pass_that_is_less_sure_stays_so_and_so_do_mere_words_and_abstentions():
    n, rng = 100, np.random.default_rng(1)
    first = rng.dirichlet(np.full(2, 0.3), n)
    every = np.ones(n, bool)
    modest = shifted(np.sqrt(first), np.zeros(2))
    np.testing.assert_array_equal(no_surer(modest, first, every), modest)
    surer = shifted(first**4, np.zeros(2))
    surer[3] = np.nan
    words = every.copy()
    words[:10] = False
    found = no_surer(surer, first, words)
    np.testing.assert_array_equal(found[:10], surer[:10])
    assert (found[10:].max(axis=1) <= surer[10:].max(axis=1) + 1e-9).all()
    assert found[10:].max(axis=1).mean() < surer[10:].max(axis=1).mean() - 0.02
    np.testing.assert_array_equal(found.argmax(axis=1)[4:], surer.argmax(axis=1)[4:])
    np.testing.assert_array_equal(no_surer(surer, np.full_like(first, np.nan), every), surer)


def test_of_rows_chosen_for_being_doubtful_nothing_is_learned():
    n, rng = 400, np.random.default_rng(3)
    first, other = rng.dirichlet(np.full(2, 0.5), (2, n))
    start, calibrate = LoopState.start(n, (2,)), Calibrator("batch", "latest")
    said = calibrate(start, answers(first))
    state = after(start, said, said.proba)
    doubtful = np.argsort(first.max(axis=1))[: n // 2]
    asked = answers(other[doubtful], rows=doubtful)
    as_it_says = replace(calibrate, sober=False)(state, asked)
    np.testing.assert_array_equal(calibrate(state, asked).proba, as_it_says.proba)


def test_later_passes_are_all_held_against_the_first():
    n, rng = 400, np.random.default_rng(4)
    first = rng.dirichlet(np.full(2, 0.5), n)
    start, calibrate = LoopState.start(n, (2,)), Calibrator("batch", "latest")
    state, sureness = start, []
    for _ in range(4):
        said = calibrate(state, answers(first))
        state = after(state, said, said.proba)
        sureness.append(float(said.proba.max(axis=1).mean()))
    assert sureness[-1] == pytest.approx(sureness[0], abs=0.01)


def test_few_rows_a_label_tell_too_little_to_temper_by():
    rng = np.random.default_rng(5)
    first = rng.dirichlet(np.full(6, 0.5), 48)
    surer = shifted(first**3, np.zeros(6))
    np.testing.assert_array_equal(no_surer(surer, first, np.ones(48, bool)), surer)


def test_each_of_several_decisions_is_tempered_by_itself():
    rng = np.random.default_rng(2)
    first = rng.dirichlet(np.full(2, 0.5), (60, 2))
    now = first.copy()
    now[:, 1] = shifted(first[:, 1] ** 4, np.zeros(2))
    found = no_surer(now, first, np.ones(60, bool))
    np.testing.assert_array_equal(found[:, 0], now[:, 0])
    assert found[:, 1].max(axis=1).mean() < now[:, 1].max(axis=1).mean()


def test_a_later_pass_over_one_row_keeps_what_the_llm_says_of_it():
    start, calibrate = LoopState.start(50, (2,)), Calibrator("batch", "latest")
    believed = np.tile([0.6, 0.4], (50, 1)).astype(np.float32)
    state = after(start, calibrate(start, answers(tasteful(50, 2))), believed)
    found = calibrate(state, answers([[0.05, 0.95]], rows=[7]))
    assert found.proba[7, 1] > 0.8


def test_rows_not_asked_are_untouched():
    calibrate, start = Calibrator("batch", "average"), LoopState.start(4, (2,))
    found = calibrate(start, answers([[0.8, 0.2]], rows=[2]))
    assert found.labelled.tolist() == [False, False, True, False]
    assert found.asked_in.tolist() == [-1, -1, 0, -1]


def readable(shares, n=1200, seed=0, taste=0.0, dimensions=12):
    """Distributions of an LLM with a taste for the first labels, texts' vectors near their classes, and the classes."""
    rng = np.random.default_rng(seed)
    k = len(shares)
    classes = rng.choice(k, n, p=shares)
    vectors = rng.normal(size=(k, dimensions))[classes] + rng.normal(0, 0.7, (n, dimensions))
    logits = 1.2 * np.eye(k)[classes] + rng.normal(0, 1.0, (n, k)) + taste * np.linspace(1, 0, k)
    return shifted(np.exp(logits), np.zeros(k)), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), classes


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.25, 0.75), (0.6, 0.3, 0.1), (0.1, 0.1, 0.4, 0.4)])
@pytest.mark.parametrize("taste", [0.0, 2.0])
def test_shares_are_nearer_to_the_true_ones_than_even_ones_are(shares, taste):
    proba, vectors, classes = readable(shares, taste=taste)
    found = learnable_prior(proba, vectors)
    true = np.bincount(classes) / len(classes)
    even = np.full(len(shares), 1 / len(shares))
    assert found.sum() == pytest.approx(1.0)
    assert np.abs(found - true).sum() < max(0.75 * np.abs(even - true).sum(), 0.1)


def test_a_taste_of_the_llm_does_not_change_the_shares():
    proba, vectors, _ = readable((0.3, 0.7))
    liked = shifted(proba, np.array([1.5, 0.0]))
    np.testing.assert_allclose(learnable_prior(proba, vectors), learnable_prior(liked, vectors), atol=1e-3)


def test_texts_that_tell_nothing_leave_the_shares_without_taste():
    proba, _, _ = readable((0.2, 0.8), n=60)
    left = shifted(proba, batch_bias(proba)).mean(axis=0)
    np.testing.assert_allclose(learnable_prior(proba, np.ones((60, 3))), left)


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_label_is_not_made_half_of_all_though_even_shares_cannot_be_learned(seed):
    rng = np.random.default_rng(seed)
    classes = (np.arange(400) < 20).astype(int)
    logits = 4.0 * (classes - 0.5) + 2.5 * rng.normal(size=400) - 3.0
    proba = shifted(np.exp(np.stack([-logits / 2, logits / 2], axis=1)), np.zeros(2))
    vectors = rng.normal(size=(400, 200)) + 6.0 * np.eye(200)[0] * classes[:, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert learnable_prior(proba, vectors)[1] < 0.4


def test_what_is_explained_has_the_derivative_it_says():
    proba, vectors, _ = readable((0.3, 0.3, 0.4), n=80)
    explain = Explained.by(vectors)
    amount, slope = explain(proba)
    step = np.random.default_rng(1).normal(size=proba.shape)
    more, less = explain(proba + 1e-5 * step)[0], explain(proba - 1e-5 * step)[0]
    assert (more - less) / 2e-5 == pytest.approx(float((slope * step).sum()), rel=1e-5)
    assert 0 < amount < float(proba.var(axis=0).sum())


def test_what_is_explained_is_that_of_regressions_that_have_not_seen_the_row():
    proba, vectors, _ = readable((0.5, 0.5), n=60, dimensions=4)
    explain = Explained.by(vectors)
    centred = np.c_[vectors - vectors.mean(axis=0), np.ones(60)]
    missed = []
    for row in range(60):
        rest = np.arange(60) != row
        left = centred[rest]
        weights = np.linalg.solve(left.T @ left + 3.0 * np.eye(5), left.T @ proba[rest])
        missed.append(proba[row] - centred[row] @ weights)
    expected = (((proba - proba.mean(axis=0)) ** 2).sum() - (np.array(missed) ** 2).sum()) / 60
    assert explain(proba)[0] == pytest.approx(expected, rel=1e-6)


def test_the_first_pass_is_brought_to_the_shares_found_and_a_later_one_to_what_is_believed_of_rows_with_labels():
    proba, vectors, _ = readable((0.25, 0.75), taste=2.0)
    calibrate = Calibrator("estimated", "average", vectors=lambda rows: vectors[rows])
    start = LoopState.start(len(proba), (2,))
    scout = np.arange(0, len(proba), 2)
    first = calibrate(start, answers(proba[scout], scout))
    shares = learnable_prior(proba[scout].astype(np.float32), vectors[scout])
    np.testing.assert_allclose(first.proba[scout].mean(axis=0), shares, atol=1e-3)
    believed = np.where(np.isnan(first.proba), [1.0, 0.0], first.proba).astype(np.float32)  # a student that errs
    later = calibrate(after(start, first, believed), answers(proba))
    assert later.proba[:, 1].mean() == pytest.approx(shares[1], abs=0.03)


def test_of_a_first_pass_that_tells_hardly_anything_the_labels_stay_and_the_sureness_goes():
    chance = np.random.default_rng(0)
    nothing = answers(shifted(chance.dirichlet(np.full(2, 400.0), 300), np.array([1.0, 0.0])))
    telling = answers(shifted(chance.dirichlet(np.full(2, 0.2), 300), np.array([1.0, 0.0])))
    vectors = chance.normal(size=(300, 8))
    careful = Calibrator("estimated", "latest", vectors=lambda rows: vectors[rows], min_information=0.08)
    careless = Calibrator("estimated", "latest", vectors=lambda rows: vectors[rows])
    unknown = np.full((300, 2), np.nan)
    assert careless.correction(nothing, unknown).bias.any()
    assert careful.correction(telling, unknown).bias == pytest.approx(careless.correction(telling, unknown).bias)
    assert careful.correction(telling, unknown).trust == 1.0
    left = careful.correction(nothing, unknown)(nothing.proba, nothing.scored).astype(np.float32)
    np.testing.assert_array_equal(argmax(left), argmax(nothing.proba))
    assert 0.5 < left.max(axis=1).mean() < 0.52


def test_few_rows_are_divided_by_their_mean():
    proba, vectors, _ = readable((0.5, 0.5), n=19)
    calibrate = Calibrator("estimated", "average", vectors=lambda rows: vectors[rows])
    found = calibrate.correction(answers(proba), np.full((19, 2), np.nan)).bias
    np.testing.assert_allclose(found, batch_bias(proba.astype(np.float32).astype(np.float64)), atol=1e-6)


@given(seed=st.integers(0, 99), k=st.integers(2, 7), trust=st.floats(0.01, 1.0))
def test_a_correction_gives_distributions_and_less_trust_changes_no_label(seed, k, trust):
    rng = np.random.default_rng(seed)
    proba, bias = rng.dirichlet(np.ones(k), 50), rng.normal(size=k)
    proba[0] = np.nan
    scored = np.arange(50) != 1
    found = Correction(bias, trust)(proba, scored)
    np.testing.assert_array_equal(argmax(found), argmax(Correction(bias)(proba, scored)))
    np.testing.assert_allclose(found[1:].sum(axis=1), 1.0)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], proba[1])
    assert (found[2:].max(axis=1) <= Correction(bias)(proba, scored)[2:].max(axis=1) + 1e-12).all()


@given(seed=st.integers(0, 99), k=st.integers(2, 7))
def test_information_is_a_share_that_no_taste_changes(seed, k):
    proba = np.random.default_rng(seed).dirichlet(np.ones(k), 200)
    told = information(proba)
    assert 0.0 <= told <= 1.0
    taste = np.linspace(0.5, 0.0, k)
    assert information(shifted(proba, taste)) == pytest.approx(told, abs=0.1)
    assert information(np.eye(k)[np.arange(200) % k]) == pytest.approx(1.0, abs=1e-3)


def several(rates, n=400, seed=0):
    """Vectors (n, 64), which labels each row has (n, s), and an honest LLM's P(yes) as (n, s, 2)."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 64))
    score = vectors @ rng.normal(size=(64, len(rates))) / 8 + 0.5 * rng.normal(size=(n, len(rates)))
    there = score > np.quantile(score, 1 - np.array(rates), axis=0).diagonal()
    yes = 1 / (1 + np.exp(-np.where(there, 1.5, -1.5) - rng.normal(size=there.shape)))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), there, np.stack([1 - yes, yes], axis=-1)


def test_of_several_labels_a_rare_one_is_not_made_as_frequent_as_its_absence():
    vectors, there, proba = several([0.01, 0.3])
    said = Answers(np.arange(400), proba.astype(np.float32), np.ones(400, bool), (None,) * 400)
    calibrate = Calibrator("estimated", "latest", vectors=lambda rows: vectors[rows])
    yes = calibrate(LoopState.start(400, (2, 2)), said).proba.argmax(axis=-1) == 1
    right, before = (yes == there).mean(axis=0), (proba.argmax(axis=-1) == there).mean(axis=0)
    assert (right >= before - 0.02).all()
    few = Answers(np.arange(12), proba[:12].astype(np.float32), np.ones(12, bool), (None,) * 12)
    np.testing.assert_allclose(calibrate(LoopState.start(12, (2, 2)), few).proba, few.proba, atol=1e-6)


@pytest.mark.parametrize("kind", ["batch", "estimated", "prior"])
def test_of_a_label_that_was_asked_about_in_vain_nothing_is_known_afterwards_either(kind):
    vectors, _, proba = several([0.2, 0.3], 100)
    proba[7, 1] = 0.5
    said = Answers(np.arange(100), proba.astype(np.float32), np.ones(100, bool), (None,) * 100)
    prior = np.array([0.9, 0.1]) if kind == "prior" else None
    found = Calibrator(kind, "latest", prior, lambda rows: vectors[rows])(LoopState.start(100, (2, 2)), said).proba
    assert found[7, 1].tolist() == [0.5, 0.5]
    assert found[7, 0].tolist() != proba[7, 0].tolist()


@pytest.mark.parametrize("passes", ["average", "latest"])
def test_a_label_that_is_asked_about_in_vain_now_keeps_what_it_had(passes):
    yes, no, vain = [0.1, 0.9], [0.9, 0.1], [0.5, 0.5]
    calibrate, state = Calibrator("none", passes), LoopState.start(1, (2, 2))
    for said in ([vain, yes], [yes, yes], [no, vain]):
        words = Answers(np.arange(1), np.array([said], np.float32), np.zeros(1, bool), (None,))
        state = after(state, calibrate(state, words))
    found = state.annotations.proba[0]
    np.testing.assert_allclose(found, [vain if passes == "average" else no, yes], atol=1e-6)


def test_what_was_left_open_before_makes_no_later_answer_less_sure():
    sure = np.where(np.random.default_rng(0).random((60, 1, 1)) < 0.5, [0.05, 0.95], [0.95, 0.05])
    before = sure.copy()
    before[::2] = 0.5
    np.testing.assert_allclose(no_surer(sure, before, np.ones(60, bool)), sure)
