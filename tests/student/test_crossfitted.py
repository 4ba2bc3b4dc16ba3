"""Students that judge each other's rows."""

import numpy as np
import pytest

from freeal.config import LinearConfig
from freeal.errors import ModelError
from freeal.student.crossfitted import CrossFitted
from freeal.student.embedders import TfidfEmbedder
from freeal.student.linear import LinearStudent
from freeal.student.uniform import UniformStudent
from freeal.types import Inputs, StudentView

LABELS = ("bad", "good")


class Parrot:
    """Repeats what it was taught of a text, and is even about all others."""

    def fit(self, inputs, targets, weights=None, keep=None):
        self.taught = dict(zip(inputs.texts, targets, strict=True))
        return self

    def view(self, inputs):
        even = np.full(2, 0.5)
        return StudentView(np.stack([self.taught.get(text, even) for text in inputs.texts]), np.zeros((len(inputs), 1)))


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


def test_of_a_single_row_nothing_is_said():
    judge = CrossFitted(lambda fold: Parrot(), 2, 0, (2,)).fit(Inputs(["alone"]), np.array([[0.2, 0.8]]))
    assert judge.out_of_fold_.tolist() == [[0.5, 0.5]]


def test_judges_are_not_kept(tmp_path):
    judge = CrossFitted(lambda fold: UniformStudent(lambda texts: (2,)), 2, 0, (2,))
    with pytest.raises(ModelError, match="are not kept"):
        judge.save(tmp_path)
    with pytest.raises(ModelError, match="are not kept"):
        judge.view(Inputs(["a text"]))
