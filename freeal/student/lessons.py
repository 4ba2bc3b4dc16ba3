"""What a student is taught, looked over once before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freeal.errors import DataError
from freeal.types import FloatArray, Inputs, IntArray


@dataclass(frozen=True, slots=True)
class Lesson:
    """m rows to learn: `targets` (m, k) add up to one, `weights` (m,) are not negative."""

    inputs: Inputs
    targets: FloatArray
    weights: FloatArray

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def given(self) -> IntArray:
        """(m,) most probable label of each row: the one its loss is taken under."""
        return np.asarray(self.targets.argmax(axis=1), np.int64)


def look_over(inputs: Inputs, targets: FloatArray, weights: FloatArray | None, k: int) -> Lesson:
    """The lesson, if it can be learned; weights default to one.

    Raises:
        DataError: no rows, shapes that do not fit, an abstention, or rows that are no distribution.
    """
    m = len(inputs)
    if m == 0:
        raise DataError("no labelled row to train on: the LLM abstained everywhere, or the pool is empty")
    if np.shape(targets) != (m, k):
        raise DataError(f"targets have the shape {np.shape(targets)}; expected ({m}, {k}): rows and labels")
    if not np.isfinite(targets).all():
        row = int(np.flatnonzero(~np.isfinite(targets).all(axis=1))[0])
        raise DataError(f"targets of row {row} are not finite; leave abstentions out before training")
    if (targets < 0).any() or not np.allclose(targets.sum(axis=1), 1.0, atol=1e-3):
        raise DataError("targets must be distributions: no entry below zero, every row adding up to one")
    given = np.ones(m, np.float32) if weights is None else np.asarray(weights, np.float32)
    if given.shape != (m,) or not (np.isfinite(given).all() and (given >= 0).all()):
        raise DataError(f"weights must be {m} finite numbers, none below zero; found the shape {given.shape}")
    return Lesson(inputs, np.asarray(targets, np.float32), given)
