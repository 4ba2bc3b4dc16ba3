"""A student whose rows are judged by another that has not learned from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from freeal.student import Keep, Student
from freeal.types import FloatArray, Inputs, StudentView


@dataclass
class JudgedStudent:
    """`student` learns and is kept; `judge` says of each row what can be said without having learned from it.

    A fine-tuned encoder repeats nearly every label it was given, so that its word on its own rows confirms them
    and its losses tell little. The judge, which has not seen the row, gives `out_of_fold_` and `losses_` in its place.

    Args:
        weigh: each row, or of several labels each label of it, teaches the student by how clean the judge's losses
            make it: co-teaching (Han et al., NeurIPS 2018) with one peer that is cheap.
    """

    student: Student
    judge: Student
    weigh: bool = False
    losses_: FloatArray = field(init=False, repr=False)
    out_of_fold_: FloatArray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.losses_ = self.judge.losses_

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Both learn the distributions `targets` (m, k), or (m, s, 2); `losses_` are the judge's."""
        self.judge.fit(inputs, targets, weights, keep)
        self.losses_, self.out_of_fold_ = self.judge.losses_, self.judge.out_of_fold_
        if self.weigh and keep is not None:
            believed = _belief(self.losses_, keep)
            given = np.ones(len(inputs)) if weights is None else weights
            weights = believed * (given if given.ndim == believed.ndim else given[:, None])
        self.student.fit(inputs, targets, weights, keep)
        return self

    def view(self, inputs: Inputs) -> StudentView:
        """What the student makes of them; the judge is for rows it was taught alone."""
        return self.student.view(inputs)

    def save(self, folder: Path) -> None:
        """Write the student; the judge has done its work."""
        self.student.save(folder)


def _belief(losses: FloatArray, keep: Keep) -> FloatArray:
    """(m,), or of `losses` (epochs, m, s) (m, s), P(clean), each decision's among those of its own label."""
    if losses.ndim == 2:
        return keep(losses).p_clean
    return np.stack([keep(losses[..., slot]).p_clean for slot in range(losses.shape[-1])], axis=-1)
