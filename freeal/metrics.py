"""How good things are, and the only reader of gold labels. Nothing here selects anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from freeal.types import BoolArray, FloatArray, IntArray, argmax

UNKNOWN = -1


def accuracy(predicted: IntArray, gold: IntArray) -> float | None:
    """Share of rows with known gold (>= 0) that are right; an abstention (-1) is wrong. None without gold."""
    known = gold >= 0
    return float((predicted[known] == gold[known]).mean()) if known.any() else None


def right(predicted: IntArray, gold: IntArray) -> FloatArray:
    """1.0 for each row with known gold that is right, else 0.0: what a paired comparison needs."""
    known = gold >= 0
    found: FloatArray = (predicted[known] == gold[known]).astype(np.float64)
    return found


def macro_f1(predicted: IntArray, gold: IntArray, k: int) -> float | None:
    """Mean F1 over the classes that occur in gold; an abstention is a miss of its class. None without gold."""
    known = gold >= 0
    if not known.any():
        return None
    scores = []
    for c in range(k):
        right = float(((predicted == c) & (gold == c) & known).sum())
        claimed, there = float(((predicted == c) & known).sum()), float((gold == c).sum())
        if there:
            scores.append(2 * right / (claimed + there))
    return float(np.mean(scores))


def calibration_error(proba: FloatArray, gold: IntArray, bins: int = 15) -> float | None:
    """Expected calibration error of the most probable class, equal-width bins (Guo et al., 2017). None without gold."""
    usable = (gold >= 0) & ~np.isnan(proba[:, 0])
    if not usable.any():
        return None
    confidence = proba[usable].max(axis=1).astype(np.float64)
    right = argmax(proba[usable]) == gold[usable]
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[bin_of == b].mean() - confidence[bin_of == b].mean()) * (bin_of == b).sum() for b in set(bin_of)]
    return float(sum(gaps) / usable.sum())


def confusion(predicted: IntArray, gold: IntArray, k: int) -> list[list[int]]:
    """(k, k) rows with known gold, counted by gold (first) and predicted class; abstentions are not among them."""
    counts = np.zeros((k, k), np.int64)
    both = (gold >= 0) & (predicted >= 0)
    np.add.at(counts, (gold[both], predicted[both]), 1)
    return [[int(count) for count in row] for row in counts]


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of like confidence: how sure the distributions are of them in the mean, and the share that is right."""

    confidence: float
    accuracy: float
    rows: int


def reliability(proba: FloatArray, gold: IntArray, bins: int = 10) -> list[Bin]:
    """The points of a reliability diagram (Niculescu-Mizil and Caruana, 2005): bins of equal width that have rows."""
    usable = (gold >= 0) & ~np.isnan(proba[:, 0])
    confidence = proba[usable].max(axis=1).astype(np.float64)
    right = argmax(proba[usable]) == gold[usable]
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    among = [bin_of == b for b in np.unique(bin_of)]
    return [Bin(float(confidence[rows].mean()), float(right[rows].mean()), int(rows.sum())) for rows in among]


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one set of predictions; None where gold is unknown."""

    accuracy: float | None
    macro_f1: float | None
    calibration_error: float | None
    coverage: float


def scores(proba: FloatArray, gold: IntArray | None) -> Scores:
    """All figures of distributions (n, k) against gold (n,); `coverage` is the share that does not abstain."""
    coverage = float((~np.isnan(proba[:, 0])).mean()) if len(proba) else 0.0
    if gold is None:
        return Scores(None, None, None, coverage)
    predicted = argmax(proba)
    k = proba.shape[1]
    return Scores(accuracy(predicted, gold), macro_f1(predicted, gold, k), calibration_error(proba, gold), coverage)


@dataclass(frozen=True, slots=True)
class Gold:
    """True labels of pool and test as class indices, -1 where unknown; None where there are none at all."""

    pool: IntArray | None = None
    test: IntArray | None = None

    def on_pool(self, among: BoolArray | None = None, **predictions: FloatArray) -> dict[str, Scores]:
        """Scores of each named set of distributions over the pool; of the rows `among` (n,) alone, if that is given.

        The coverage is always that of the whole pool.
        """
        gold = self.pool if self.pool is None or among is None else np.where(among, self.pool, UNKNOWN)
        return {name: scores(proba, gold) for name, proba in predictions.items()}

    def on_test(self, **predictions: FloatArray) -> dict[str, Scores]:
        """Scores of each named set of distributions over the test."""
        return {name: scores(proba, self.test) for name, proba in predictions.items()}

    def confusion(self, proba: FloatArray) -> list[list[int]] | None:
        """Of the labels that distributions (n, k) over the pool come to; None without gold."""
        return None if self.pool is None else confusion(argmax(proba), self.pool, proba.shape[1])

    def reliability(self, proba: FloatArray) -> list[dict[str, float]] | None:
        """The reliability diagram of distributions (n, k) over the pool; None without gold."""
        return None if self.pool is None else [asdict(each) for each in reliability(proba, self.pool)]

    def wrong_prompts(self, shown: Sequence[tuple[Sequence[int | None], Sequence[int]]]) -> float | None:
        """Share of prompts, of those with demonstrations that can be judged, that show a wrong one; None without any.

        Args:
            shown: of each prompt the rows and classes of its demonstrations, as for `wrong_demonstrations`.
        """
        shares = [self.wrong_demonstrations(rows, labels) for rows, labels in shown]
        judged = [share > 0 for share in shares if share is not None]
        return float(np.mean(judged)) if judged else None

    def wrong_demonstrations(self, rows: Sequence[int | None], labels: Sequence[int]) -> float | None:
        """Share of demonstrations taken from the pool whose label is wrong; None if that is not known."""
        if self.pool is None:
            return None
        judged = [self.pool[r] != c for r, c in zip(rows, labels, strict=True) if r is not None and self.pool[r] >= 0]
        return float(np.mean(judged)) if judged else None
