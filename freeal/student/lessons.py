"""What a student is taught, looked over once before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freeal.errors import DataError
from freeal.types import PROBABILITY, FloatArray, Inputs, IntArray


@dataclass(frozen=True, slots=True)
class Lesson:
    """m rows to learn: `targets` (m, k), or (m, s, k), add up to one, `weights` (m,), or (m, s), are not negative."""

    inputs: Inputs
    targets: FloatArray
    weights: FloatArray

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def given(self) -> IntArray:
        """(m,), or (m, s), most probable label: the one a loss is taken under."""
        return np.asarray(self.targets.argmax(axis=-1), np.int64)


def look_over(inputs: Inputs, targets: FloatArray, weights: FloatArray | None, k: int, slots: bool = False) -> Lesson:
    """The lesson, if it can be learned; weights default to one. With `slots` a row has s distributions instead of one.

    The weights are those of the rows (m,), or, with `slots`, also of their decisions (m, s).

    Raises:
        DataError: no rows, shapes that do not fit, an abstention, or rows that are no distribution.
    """
    m = len(inputs)
    if m == 0:
        raise DataError("no labelled row to train on: the LLM abstained everywhere, or the pool is empty")
    shape = np.shape(targets)
    if slots and not (len(shape) == 3 and shape[::2] == (m, k)):
        raise DataError(f"targets have the shape {shape}; expected ({m}, s, {k}): rows, decisions and classes")
    if not slots and shape != (m, k):
        raise DataError(f"targets have the shape {shape}; expected ({m}, {k}): rows and labels")
    if not np.isfinite(targets).all():
        row = int(np.argwhere(~np.isfinite(targets))[0, 0])
        raise DataError(f"targets of row {row} are not finite; leave abstentions out before training")
    if (targets < 0).any() or not np.allclose(targets.sum(axis=-1), 1.0, atol=1e-3):
        raise DataError("targets must be distributions: no entry below zero, every row adding up to one")
    given = np.ones(m, np.float32) if weights is None else np.asarray(weights, np.float32)
    allowed = {(m,), shape[:2]} if slots else {(m,)}
    if given.shape not in allowed or not (np.isfinite(given).all() and (given >= 0).all()):
        raise DataError(f"weights must be {m} finite numbers, none below zero; found the shape {given.shape}")
    return Lesson(inputs, np.asarray(targets, np.float32), given)


def losses_under(given: IntArray, proba: FloatArray) -> FloatArray:
    """(m,), or (m, s), cross-entropy in nats of `proba` (m, k), or (m, s, k), under the labels `given`."""
    of_given = np.take_along_axis(proba, given[..., None], axis=-1)[..., 0]
    losses: FloatArray = -np.log(np.maximum(of_given, np.finfo(PROBABILITY).tiny))
    return losses


def spread(kinds: IntArray, folds: int, seed: int) -> IntArray:
    """(m,) number of each row's fold: at random, each of the `kinds` (m,) spread evenly over all."""
    chance = np.random.default_rng(seed).permutation(len(kinds))
    order = np.lexsort((chance, kinds))
    numbers = np.empty(len(kinds), np.int64)
    numbers[order] = np.arange(len(kinds)) % min(folds, len(kinds))
    return numbers
