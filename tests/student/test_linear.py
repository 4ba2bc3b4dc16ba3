import numpy as np
import pytest

from freeal.config import LinearConfig
from freeal.errors import DataError, ModelError
from freeal.student.embedders import TfidfEmbedder
from freeal.student.linear import LinearStudent, load
from freeal.types import Inputs

LABELS = ("negative", "positive")


def student(labels=LABELS, **config):
    return LinearStudent(LinearConfig(**config), labels, 0, TfidfEmbedder(64))


def targets_of(inputs, k=2):
    return np.eye(k, dtype=np.float32)[np.arange(len(inputs)) % 2]


def test_it_learns_what_the_words_tell(reviews):
    learned = student(c=10.0).fit(reviews, targets_of(reviews))
    assert (learned.view(reviews).proba.argmax(1) == targets_of(reviews).argmax(1)).mean() > 0.9


def test_a_wrong_label_has_the_largest_loss(reviews):
    targets = targets_of(reviews)
    targets[19] = targets[19][::-1]
    assert student(c=10.0).fit(reviews, targets).losses_[0].argmax() == 19


def test_losses_are_out_of_fold():
    rng = np.random.default_rng(0)
    noise = Inputs([" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(60)])
    learned = student(c=1e4).fit(noise, targets_of(noise))
    own = learned.view(noise).proba[np.arange(60), targets_of(noise).argmax(1)]
    assert learned.losses_.mean() > -np.log(own).mean() + 0.5


@pytest.mark.parametrize("m", [1, 2, 3])
def test_few_rows_are_enough(reviews, m):
    few = reviews.take(np.arange(m))
    learned = student().fit(few, targets_of(few))
    assert np.isfinite(learned.losses_).all()
    assert learned.view(reviews).proba.shape == (24, 2)


def test_a_label_nobody_gave_keeps_a_column_and_a_little_probability(reviews):
    learned = student(labels=("negative", "positive", "neutral")).fit(reviews, targets_of(reviews, 3))
    proba = learned.view(reviews).proba
    assert proba.shape == (24, 3)
    assert (proba[:, 2] > 0).all()
    assert (proba[:, 2] < 0.01).all()


def test_one_label_everywhere_is_learned_as_such(reviews):
    learned = student().fit(reviews, np.eye(2, dtype=np.float32)[np.zeros(24, int)])
    assert (learned.view(reviews).proba[:, 0] > 0.99).all()
    assert np.isfinite(learned.losses_).all()


def test_soft_targets_count_by_their_probability(reviews):
    unsure = np.full((24, 2), 0.5, np.float32)
    np.testing.assert_allclose(student().fit(reviews, unsure).view(reviews).proba, 0.5, atol=1e-3)


def test_a_row_without_weight_is_not_learned(reviews):
    targets, weights = targets_of(reviews), np.ones(24, np.float32)
    targets[0], weights[0] = targets[0][::-1], 0.0
    without = student().fit(reviews.take(np.arange(1, 24)), targets[1:])
    np.testing.assert_allclose(
        student().fit(reviews, targets, weights).view(reviews).proba, without.view(reviews).proba, atol=1e-4
    )


def test_another_embedder_is_refused(reviews, tmp_path):
    student().fit(reviews, targets_of(reviews)).save(tmp_path)
    with pytest.raises(ModelError, match="'dimensions': 64"):
        load(tmp_path, TfidfEmbedder(32))


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        load(tmp_path, TfidfEmbedder(64))


def test_abstentions_are_refused(reviews):
    targets = targets_of(reviews)
    targets[5] = np.nan
    with pytest.raises(DataError, match="row 5"):
        student().fit(reviews, targets)
