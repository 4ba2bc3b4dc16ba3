"""What every student keeps to, whatever is inside, also where a text has any number of labels."""

import numpy as np
import pytest

from freeal.config import LinearConfig, TransformerConfig
from freeal.select import filters
from freeal.student import crossfitted, each_label, judged, linear, transformer, uniform
from freeal.student.embedders import TfidfEmbedder
from freeal.types import CleanSplit, Inputs

LABELS = ("negative", "positive", "unused")
ONE = ("plain", "freeal", "candidates", "coteaching", "cross-fitted", "linear", "uniform")
SEVERAL = "any number: "
KINDS = (*ONE, *(SEVERAL + kind for kind in ("plain", "candidates", "coteaching", "cross-fitted", "linear")))


def build(kind, tiny_encoder):
    learns, several = kind.removeprefix(SEVERAL), kind.startswith(SEVERAL)
    if learns == "linear" and several:
        made = lambda: linear.LinearStudent(LinearConfig(), each_label.NAMES, 0, TfidfEmbedder(32))  # noqa: E731
        return each_label.EachLabelStudent(LABELS, made)
    if learns == "linear":
        return linear.LinearStudent(LinearConfig(), LABELS, 0, TfidfEmbedder(32))
    if learns == "uniform":
        return uniform.UniformStudent(lambda texts: shape(kind))
    if learns == "cross-fitted":
        plain = kind.replace(learns, "plain")
        judge = crossfitted.CrossFitted(lambda fold: build(plain, tiny_encoder), 2, 0, shape(kind))
        return judged.JudgedStudent(build(plain, tiny_encoder), judge)
    config = TransformerConfig(objective=learns, epochs=2, min_steps=0, warmup_epochs=1, batch_size=8, device="cpu")
    student = transformer.TransformerStudent(config, LABELS, 0, str(tiny_encoder), several=several)
    if learns == "coteaching":
        return judged.JudgedStudent(student, build(kind.replace(learns, "linear"), tiny_encoder), weigh=True)
    return student


def reopen(kind, folder):
    if "linear" in kind:
        return (each_label if kind.startswith(SEVERAL) else linear).load(folder, TfidfEmbedder(32))
    return build(kind, folder) if "uniform" in kind else transformer.load(folder)


def shape(kind):
    return (len(LABELS), 2) if kind.startswith(SEVERAL) else (len(LABELS),)


@filters.each_decision
def keep(losses):
    clean = losses.mean(axis=0) <= losses.mean()
    return CleanSplit(clean.astype(np.float32), clean, losses.mean(axis=0))


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def targets(kind, reviews):
    soft = np.full((len(reviews), 3), [0.1, 0.9, 0.0], np.float32)
    soft[::2] = [0.7, 0.3, 0.0]
    return np.stack([1 - soft, soft], axis=-1) if kind.startswith(SEVERAL) else soft


@pytest.fixture(scope="module")
def student(kind, tiny_encoder, reviews, targets):
    return build(kind, tiny_encoder).fit(reviews, targets, keep=keep)


def test_losses_have_a_row_an_epoch_a_column_a_text_and_one_for_each_decision(kind, student, reviews):
    assert student.losses_.shape[0] >= 1
    assert student.losses_.shape[1:] == (len(reviews), *shape(kind)[:-1])


def test_losses_are_finite_and_not_negative(student):
    assert np.isfinite(student.losses_).all()
    assert (student.losses_ >= 0).all()


def test_what_is_said_out_of_fold_is_as_wide_as_the_targets(student, targets):
    if student.out_of_fold_ is not None:
        assert student.out_of_fold_.shape == targets.shape
        np.testing.assert_allclose(student.out_of_fold_.sum(axis=-1), 1.0, atol=1e-5)


def test_a_view_has_a_distribution_and_a_vector_a_text(kind, student, reviews):
    view = student.view(reviews)
    assert view.proba.shape == (len(reviews), *shape(kind))
    assert view.embeddings.shape[0] == len(reviews)
    assert view.proba.dtype == view.embeddings.dtype == np.float32
    np.testing.assert_allclose(view.proba.sum(axis=-1), 1.0, atol=1e-5)


def test_a_view_keeps_the_order_of_the_texts(student, reviews):
    view, back = student.view(reviews), student.view(Inputs(reviews.texts[::-1]))
    np.testing.assert_allclose(view.proba[::-1], back.proba, atol=1e-5)


def test_a_view_of_nothing_is_empty_and_as_wide(kind, student, reviews):
    view, empty = student.view(reviews), student.view(Inputs([]))
    assert empty.proba.shape == (0, *shape(kind))
    assert empty.embeddings.shape == (0, view.embeddings.shape[1])


def test_the_same_seed_gives_the_same_bytes(kind, student, tiny_encoder, reviews, targets):
    again = build(kind, tiny_encoder).fit(reviews, targets, keep=keep)
    assert again.losses_.tobytes() == student.losses_.tobytes()
    assert again.view(reviews).proba.tobytes() == student.view(reviews).proba.tobytes()


def test_fitting_twice_is_fitting_once(kind, student, tiny_encoder, reviews, targets):
    twice = build(kind, tiny_encoder).fit(reviews, targets[::-1].copy(), keep=keep).fit(reviews, targets, keep=keep)
    assert twice.losses_.tobytes() == student.losses_.tobytes()


def test_a_saved_student_sees_what_it_saw(kind, student, reviews, tmp_path):
    student.save(tmp_path / "student")
    view, again = student.view(reviews), reopen(kind, tmp_path / "student").view(reviews)
    np.testing.assert_array_equal(again.proba, view.proba)
    np.testing.assert_array_equal(again.embeddings, view.embeddings)


def test_a_saved_student_holds_no_pickle(student, tmp_path):
    student.save(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".pkl", ".bin", ".pt", ".npy"}]


@pytest.mark.parametrize("learns", ["plain", "candidates", "linear"])
def test_the_labels_of_a_row_may_weigh_differently(learns, tiny_encoder, reviews):
    yes = np.array([float("good" in text) for text in reviews.texts], np.float32)
    targets = np.stack([np.stack([1 - yes, yes], axis=-1)] * 3, axis=1)
    targets[:, 1] = targets[
        :, 1, ::-1
    ]  # the second label is taught the contrary, of no weight at all for half the rows
    weights = np.ones((len(reviews), 3), np.float32)
    weights[::2, 1] = 0.0
    found = build(SEVERAL + learns, tiny_encoder).fit(reviews, targets, weights).view(reviews).proba
    all_count = build(SEVERAL + learns, tiny_encoder).fit(reviews, targets, weights[:, 0]).view(reviews).proba
    assert np.abs(found[:, 1] - all_count[:, 1]).max() > 1e-4
    assert found.shape == all_count.shape


def test_a_judge_weighs_each_label_of_a_row_by_its_own_loss(reviews):
    class Told:
        losses_ = np.random.default_rng(0).random((1, len(reviews), 3))
        out_of_fold_ = None

        def fit(self, inputs, targets, weights=None, keep=None):
            self.weights = weights
            return self

    targets = np.zeros((len(reviews), 3, 2), np.float32)
    taught, own = Told(), np.linspace(0.5, 1.0, len(reviews))
    judged.JudgedStudent(taught, Told(), weigh=True).fit(reviews, targets, own, keep)
    expected = [own * keep(Told.losses_[..., slot]).p_clean for slot in range(3)]
    np.testing.assert_allclose(taught.weights, np.stack(expected, axis=-1))
