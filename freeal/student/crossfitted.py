"""A student that is judged by others of its kind, each of which has not seen the rows it judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from freeal.errors import ModelError
from freeal.student import Keep, Student
from freeal.student.lessons import look_over, losses_under, spread
from freeal.tasks import rarest
from freeal.types import PROBABILITY, FloatArray, Inputs, StudentView


class CrossFitted:
    """`out_of_fold_` and `losses_` by students that `new` makes, a fresh one for each of the `folds`.

    Each learns all rows but those of its fold, and reads these (cross-fitting; Chernozhukov et al., 2018). It stands
    where a judge does (see `judged`), and keeps no student: what it costs is `folds` trainings on part of the rows.

    Args:
        new: the number of a fold -> a student that has learned nothing.
        folds: two or more.
        seed: of which row is in which fold; each label is spread over all, of a row with several its rarest one, and
            each text is in one.
        shape: (k,) or (s, k), of what is said of one row.
    """

    losses_: FloatArray
    out_of_fold_: FloatArray | None = None

    def __init__(self, new: Callable[[int], Student], folds: int, seed: int, shape: tuple[int, ...]) -> None:
        self.new, self.folds, self.seed, self.shape = new, folds, seed, shape
        self.losses_ = np.zeros((1, 0), PROBABILITY)

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Learn the distributions `targets` (m, k), or (m, s, k), part by part; `losses_` (1, m), or (1, m, s).

        A single row has nobody who learned from others: of it nothing is said.

        Raises:
            DataError: no rows, or targets that are no distributions.
        """
        several = len(self.shape) > 1
        lesson = look_over(inputs, targets, weights, self.shape[-1], several)
        unseen = np.full(lesson.targets.shape, 1.0 / self.shape[-1], PROBABILITY)
        kinds = rarest(lesson.given > 0) if several else lesson.given
        fold_of = spread(kinds, inputs.texts, self.folds, self.seed)
        for fold in range(self.folds):
            rest, held = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            if len(rest) and len(held):
                learned = self.new(fold).fit(inputs.take(rest), lesson.targets[rest], lesson.weights[rest], keep)
                unseen[held] = learned.view(inputs.take(held)).proba
        self.out_of_fold_ = unseen
        self.losses_ = losses_under(lesson.given, unseen)[None]
        return self

    def view(self, inputs: Inputs) -> StudentView:
        raise ModelError("cross-fitted students judge the rows they are taught, and are not kept")

    def save(self, folder: Path) -> None:
        raise ModelError("cross-fitted students judge the rows they are taught, and are not kept")
