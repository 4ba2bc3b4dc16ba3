"""Students that judge each other's rows."""

import numpy as np
import pytest

from freeal.config import LinearConfig, TransformerConfig
from freeal.errors import ModelError
from freeal.student.crossfitted import CrossFitted
from freeal.student.embedders import TfidfEmbedder
from freeal.student.judged import JudgedStudent
from freeal.student.linear import LinearStudent
from freeal.student.transformer import TransformerStudent
from freeal.student.uniform import UniformStudent
from freeal.types import CleanSplit, Inputs, StudentView

LABELS = ("bad", "good")


class Parrot:
    """Repeats what it was taught of a text, and is even about all others."""

    def fit(self, inputs, targets, weights=None, keep=None):
        self.taught = dict(zip(inputs.texts, targets, strict=True))
        return self

    def view(self, inputs):
        even = np.full(2, 0.5)
        return StudentView(np.stack([self.taught.get(text, even) for text in inputs.texts]), np.zeros((len(inputs), 1)))


class Taught(UniformStudent):
    """Says of every text what is true of those it was taught, in the mean."""

    def __init__(self):
        super().__init__(lambda texts: (2, 2))

    def fit(self, inputs, targets, weights=None, keep=None):
        self.mean = targets.mean(axis=0)
        return self

    def view(self, inputs):
        return StudentView(np.tile(self.mean, (len(inputs), 1, 1)), np.zeros((len(inputs), 1)))


def test_nobody_judges_a_row_that_it_was_taught():
    inputs, targets = Inputs([f"text {i}" for i in range(9)]), np.eye(2)[np.arange(9) % 2]
    judge = CrossFitted(lambda fold: Parrot(), 3, 0, (2,)).fit(inputs, targets)
    np.testing.assert_array_equal(judge.out_of_fold_, np.full((9, 2), 0.5))
    np.testing.assert_allclose(judge.losses_, np.full((1, 9), np.log(2)), atol=1e-6)


def test_what_the_others_teach_is_told_of_each_row():
    texts = [f"{word} film {i}" for i in range(10) for word in ("awful", "lovely")]
    targets = np.eye(2)[np.arange(20) % 2]
    new = lambda fold: LinearStudent(LinearConfig(c=100.0), LABELS, fold, TfidfEmbedder(64))  # noqa: E731
    judge = CrossFitted(new, 2, 0, (2,)).fit(Inputs(texts), targets)
    assert (judge.out_of_fold_.argmax(axis=1) == targets.argmax(axis=1)).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_label_of_several_is_in_every_fold(seed):
    targets = np.tile(np.eye(2)[[0, 0]], (60, 1, 1))
    targets[4:34, 0], targets[:4, 1] = np.eye(2)[1], np.eye(2)[1]
    judge = CrossFitted(lambda fold: Taught(), 2, seed, (2, 2))
    judge.fit(Inputs([f"text {i}" for i in range(60)]), targets)
    np.testing.assert_allclose(judge.out_of_fold_[0], [[0.5, 0.5], [28 / 30, 2 / 30]])


def test_of_a_single_row_nothing_is_said():
    judge = CrossFitted(lambda fold: Parrot(), 2, 0, (2,)).fit(Inputs(["alone"]), np.array([[0.2, 0.8]]))
    assert judge.out_of_fold_.tolist() == [[0.5, 0.5]]


def test_judges_are_not_kept(tmp_path):
    judge = CrossFitted(lambda fold: UniformStudent(lambda texts: (2,)), 2, 0, (2,))
    with pytest.raises(ModelError, match="are not kept"):
        judge.save(tmp_path)
    with pytest.raises(ModelError, match="are not kept"):
        judge.view(Inputs(["a text"]))


def test_those_who_judge_for_freeals_student_believe_no_more_rows_than_it(tiny_encoder, reviews):
    def keep(losses):
        asked.append(losses.shape[1])
        return CleanSplit(np.ones(losses.shape[1], np.float32), np.ones(losses.shape[1], bool), losses[0])

    asked = []
    config = TransformerConfig(objective="freeal", epochs=2, min_steps=0, warmup_epochs=1, batch_size=8, device="cpu")
    new = lambda fold: TransformerStudent(config, LABELS, fold, str(tiny_encoder))  # noqa: E731
    targets = np.eye(2)[[int("good" in text) for text in reviews.texts]]
    JudgedStudent(new(0), CrossFitted(new, 2, 0, (2,))).fit(reviews, targets, keep=keep)
    m = len(reviews)
    assert asked == [m // 2, m - m // 2, m]
