"""What a student is taught, looked over once before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freeal.errors import DataError
from freeal.tasks.classification import fold
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


def spread(kinds: IntArray, texts: Sequence[str], folds: int, seed: int) -> IntArray:
    """(m,) number of each row's fold: at random, each of the `kinds` (m,) spread evenly over all.

    All rows of one text, whatever its case and spaces, are in one fold: a judge that learned from a row's twin has seen
    the row. Of a kind, the texts with the most rows are dealt first, each to the fold with the fewest rows of its
    kinds, then of all.

    Example:
        >>> spread(np.array([0, 1, 0, 1]), ["Good film", "bad", "good  film", "Bad"], folds=2, seed=0)
        array([0, 1, 0, 1])
    """
    chance = np.random.default_rng(seed).permutation(len(kinds))
    heaps = _heaps(texts)
    first = np.array([heap[0] for heap in heaps])
    order = np.lexsort((chance[first], [-len(heap) for heap in heaps], kinds[first]))
    names, kind_of = np.unique(kinds, return_inverse=True)
    dealt = np.zeros((min(folds, len(heaps)), len(names)), np.int64)
    numbers = np.empty(len(kinds), np.int64)
    for rows in (heaps[i] for i in order):
        fewest = np.lexsort((dealt.sum(axis=1), dealt[:, kind_of[rows]].sum(axis=1)))[0]
        np.add.at(dealt[fewest], kind_of[rows], 1)
        numbers[rows] = fewest
    return numbers


def _heaps(texts: Sequence[str]) -> list[list[int]]:
    """The rows of each distinct text, in the order of their first ones."""
    heaps: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        heaps.setdefault(" ".join(fold(text).split()), []).append(row)
    return list(heaps.values())
