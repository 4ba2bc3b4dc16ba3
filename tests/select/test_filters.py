"""Laws of belief by small loss."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from freeal.select import filters
from freeal.select.filters import believe_all, boundary_gmm, boundary_quantile, small_loss_gmm, small_loss_quantile

FILTERS = (small_loss_gmm, small_loss_quantile, believe_all)
LOSSES = st.lists(st.floats(0, 20, width=32), min_size=1, max_size=60).map(lambda row: np.array([row], np.float32))


@pytest.mark.parametrize("keep", FILTERS)
@settings(max_examples=30)
@given(losses=LOSSES)
def test_p_clean_never_rises_with_the_loss(keep, losses):
    split = keep(losses)
    by_loss = split.p_clean[np.argsort(losses[0], kind="stable")]
    assert (np.diff(by_loss) <= 1e-9).all()
    assert ((split.p_clean >= 0) & (split.p_clean <= 1)).all()


@pytest.mark.parametrize("keep", FILTERS)
@settings(max_examples=30)
@given(losses=LOSSES)
def test_no_row_is_disbelieved_while_a_harder_one_is_believed(keep, losses):
    clean = keep(losses).clean
    if clean.any():
        assert clean[losses[0] < losses[0][clean].max()].all()


@pytest.mark.parametrize("keep", FILTERS)
@settings(max_examples=20)
@given(losses=LOSSES)
def test_the_same_losses_are_split_into_the_same_bytes(keep, losses):
    first, second = keep(losses), keep(losses.copy())
    assert first.p_clean.tobytes() == second.p_clean.tobytes()
    assert first.clean.tobytes() == second.clean.tobytes()


@pytest.mark.parametrize(
    ("keep", "boundary"), [(small_loss_gmm, boundary_gmm), (small_loss_quantile, boundary_quantile)]
)
@settings(max_examples=30)
@given(losses=LOSSES)
def test_a_boundary_parts_what_the_filter_passed_from_the_rest(keep, boundary, losses):
    loss, clean, line = losses[0].astype(float), keep(losses).clean, boundary(losses).loss
    near = np.ptp(loss) / 1000 + 1e-9
    assert (loss[clean] <= line + near).all()
    assert (loss[~clean] >= line - near).all()


@pytest.fixture
def narrow_in_wide():
    """Two heaps of losses, the upper one so wide that its tail reaches below the lower one."""
    rng = np.random.default_rng(0)
    return np.r_[rng.normal(2.0, 0.05, 200), rng.normal(2.5, 1.0, 200)].clip(0)[None]


def test_a_plain_mixture_disbelieves_the_easiest_rows(narrow_in_wide):
    scaled = ((narrow_in_wide[0] - narrow_in_wide.min()) / np.ptp(narrow_in_wide))[:, None]
    mixture = GaussianMixture(2, reg_covar=5e-4, random_state=0).fit(scaled)
    narrow = mixture.covariances_.ravel().argmin()
    assert mixture.predict_proba(scaled)[scaled[:, 0].argmin(), narrow] < 1e-6


def test_the_easiest_rows_are_believed_where_the_wide_component_wins_the_far_tail(narrow_in_wide):
    split = small_loss_gmm(narrow_in_wide)
    easiest, hardest = narrow_in_wide[0].argsort()[[0, -1]]
    assert split.p_clean[easiest] == split.p_clean.max()
    assert split.clean[easiest]
    assert not split.clean[hardest]


def test_two_heaps_are_told_apart():
    rng = np.random.default_rng(1)
    losses = np.r_[rng.normal(0.2, 0.05, 80), rng.normal(2.0, 0.2, 20)][None]
    np.testing.assert_array_equal(small_loss_gmm(losses).clean, np.arange(100) < 80)


def test_a_higher_threshold_believes_no_more_rows():
    losses = np.random.default_rng(2).gamma(1.0, 1.0, (1, 200))
    kept = [small_loss_gmm(losses, threshold).clean for threshold in (0.3, 0.7, 0.95)]
    assert (kept[0] >= kept[1]).all()
    assert (kept[1] >= kept[2]).all()


def test_epochs_are_averaged():
    losses = np.random.default_rng(3).gamma(1.0, 1.0, (5, 40))
    np.testing.assert_array_equal(small_loss_gmm(losses).clean, small_loss_gmm(losses.mean(axis=0)[None]).clean)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_too_few_rows_fall_back_and_say_so(m):
    split = small_loss_gmm(np.arange(m, dtype=float)[None])
    assert split.note.startswith(f"only {m} labelled rows")
    assert split.clean.tolist() == [True, True, False][:m] if m == 3 else split.clean[0]


def test_equal_losses_are_all_believed_and_a_note_says_so():
    split = small_loss_gmm(np.full((3, 50), 0.7, np.float32))
    assert split.clean.all()
    assert split.note.startswith("all losses are equal")


def test_a_proper_split_needs_no_note():
    assert small_loss_gmm(np.array([[0.1, 0.2, 2.5, 0.1, 2.7]])).note is None


@pytest.mark.parametrize("keep", FILTERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_raises(keep, bad):
    with pytest.raises(ValueError, match="losses: 1 of 4 are not finite"):
        keep(np.array([[0.1, bad, 0.3, 0.4]]))


@pytest.mark.parametrize("keep", FILTERS)
@pytest.mark.parametrize("shape", [(1, 0), (0, 3), (3,)])
def test_no_losses_at_all_raise(keep, shape):
    with pytest.raises(ValueError, match="at least one of each"):
        keep(np.zeros(shape))


def test_the_quantile_believes_the_share_asked_for():
    losses = np.random.default_rng(4).permutation(100).astype(float)[None]
    np.testing.assert_array_equal(small_loss_quantile(losses, 0.3).clean, losses[0] < 30)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(filters).failed == 0
    assert doctest.testmod(filters).attempted > 0
