"""How good things are, and the only reader of gold labels. Nothing here selects anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from freeal.types import BoolArray, Demonstration, FloatArray, IntArray, alike, argmax, spoken

UNKNOWN = -1


def accuracy(predicted: IntArray, gold: IntArray) -> float | None:
    """Share of rows with known gold (>= 0) that are right; an abstention (-1) is wrong. None without gold.

    Of rows with several decisions, (n, s), those that are right throughout.
    """
    judged = right(predicted, gold)
    return float(judged.mean()) if len(judged) else None


def right(predicted: IntArray, gold: IntArray) -> FloatArray:
    """1.0 for each row with known gold that is right, else 0.0: what a paired comparison needs."""
    is_known = known(gold)
    found: FloatArray = alike(predicted, gold)[is_known].astype(np.float64)
    return found


def known(gold: IntArray) -> BoolArray:
    """(n,) rows with gold, (n,) or (n, s)."""
    if not gold.size:
        return np.zeros(len(gold), bool)
    found: BoolArray = np.all((gold >= 0).reshape(len(gold), -1), axis=1)
    return found


def macro_f1(predicted: IntArray, gold: IntArray, k: int) -> float | None:
    """Mean F1 over the classes that occur in gold; an abstention is a miss of its class. None without gold."""
    there_is = gold >= 0
    if not there_is.any():
        return None
    scores = []
    for c in range(k):
        right = float(((predicted == c) & (gold == c) & there_is).sum())
        claimed, there = float(((predicted == c) & there_is).sum()), float((gold == c).sum())
        if there:
            scores.append(2 * right / (claimed + there))
    return float(np.mean(scores))


ERROR_BINS, DIAGRAM_BINS = 15, 10
"""Bins of a calibration error, as in the literature; and points of a diagram, fewer, so that each has rows."""


def calibration_error(proba: FloatArray, gold: IntArray) -> float | None:
    """Expected calibration error of the most probable class, equal-width bins (Guo et al., 2017). None without gold.

    Of rows with several decisions every decision counts.
    """
    proba, gold = proba.reshape(-1, proba.shape[-1]), gold.reshape(-1)
    usable = (gold >= 0) & ~np.isnan(proba[:, 0])
    if not usable.any():
        return None
    confidence = proba[usable].max(axis=1).astype(np.float64)
    right = argmax(proba[usable]) == gold[usable]
    bin_of = np.minimum((confidence * ERROR_BINS).astype(int), ERROR_BINS - 1)
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


def reliability(proba: FloatArray, gold: IntArray) -> list[Bin]:
    """The points of a reliability diagram (Niculescu-Mizil and Caruana, 2005): bins of equal width that have rows."""
    usable = (gold >= 0) & ~np.isnan(proba[:, 0])
    confidence = proba[usable].max(axis=1).astype(np.float64)
    right = argmax(proba[usable]) == gold[usable]
    bin_of = np.minimum((confidence * DIAGRAM_BINS).astype(int), DIAGRAM_BINS - 1)
    among = [bin_of == b for b in np.unique(bin_of)]
    return [Bin(float(confidence[rows].mean()), float(right[rows].mean()), int(rows.sum())) for rows in among]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Of one label, or one type of entity; 0.0 where there is nothing to divide by. `in_gold`: how many there are."""

    precision: float
    recall: float
    f1: float
    in_gold: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one set of predictions; None where gold is unknown.

    `accuracy`: share of rows that are right, throughout if a row needs several decisions. Those with a default are of
    the labels found and missed, for tasks with any number of them a row: there `micro_f1` is the figure to look at.
    `noise`: of entities, how many there are by what is wrong with them.
    """

    accuracy: float | None
    macro_f1: float | None
    calibration_error: float | None
    coverage: float
    precision: float | None = None
    recall: float | None = None
    micro_f1: float | None = None
    by_label: Mapping[str, LabelScores] | None = None
    noise: Mapping[str, int] | None = None


Score = Callable[[FloatArray, IntArray | None], Scores]
"""Distributions and gold -> figures: `scores`, or what a kind of task has in its place."""


def scores(proba: FloatArray, gold: IntArray | None) -> Scores:
    """All figures of distributions (n, k) against gold (n,); `coverage` is the share that does not abstain."""
    coverage = float(spoken(proba).mean()) if len(proba) else 0.0
    if gold is None:
        return Scores(None, None, None, coverage)
    predicted = argmax(proba)
    k = proba.shape[1]
    return Scores(accuracy(predicted, gold), macro_f1(predicted, gold, k), calibration_error(proba, gold), coverage)


def set_scores(labels: Sequence[str], proba: FloatArray, gold: IntArray | None) -> Scores:
    """The same of any of `labels` a row: `proba` (n, s, 2) against `gold` (n, s), each 0, 1, or -1 throughout.

    Precision, recall and F1 are micro-averaged; macro-F1 is the mean over the labels that occur in gold.
    """
    coverage = float(spoken(proba).mean()) if len(proba) else 0.0
    if gold is None or not known(gold).any():
        return Scores(None, None, None, coverage)
    rows = known(gold)
    predicted = argmax(proba)
    claimed, there = predicted[rows] == 1, gold[rows] == 1
    counts = (claimed & there).sum(axis=0), claimed.sum(axis=0), there.sum(axis=0)
    by_label = [LabelScores(*_found(*each), int(each[2])) for each in zip(*counts, strict=True)]
    of_labels = [each.f1 for each in by_label if each.in_gold]
    return Scores(
        accuracy(predicted, gold), float(np.mean(of_labels)) if of_labels else 0.0,
        calibration_error(proba, gold), coverage, *_found(*(each.sum() for each in counts)),
        dict(zip(labels, by_label, strict=True)),
    )  # fmt: skip


def _found(hits: int, claimed: int, there: int) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    return float(hits / max(1, claimed)), float(hits / max(1, there)), float(2 * hits / max(1, claimed + there))


@dataclass(frozen=True, slots=True)
class Gold:
    """True labels of pool and test as class indices, -1 where unknown; None where there are none at all."""

    pool: IntArray | None = None
    test: IntArray | None = None
    score: Score = scores

    def on_pool(self, among: BoolArray | None = None, **predictions: FloatArray) -> dict[str, Scores]:
        """Scores of each named set of distributions over the pool; of the rows `among` (n,) alone, if that is given.

        The coverage is always that of the whole pool.
        """
        gold = self.pool
        if gold is not None and among is not None:
            gold = gold.copy()
            gold[~among] = UNKNOWN
        return {name: self.score(proba, gold) for name, proba in predictions.items()}

    def on_test(self, **predictions: FloatArray) -> dict[str, Scores]:
        """Scores of each named set of distributions over the test."""
        return {name: self.score(proba, self.test) for name, proba in predictions.items()}

    def confusion(self, proba: FloatArray) -> list[list[int]] | None:
        """Of the labels that distributions (n, k) over the pool come to; None without gold, or of several a row."""
        return None if self.pool is None or self.pool.ndim > 1 else confusion(argmax(proba), self.pool, proba.shape[1])

    def reliability(self, proba: FloatArray) -> list[dict[str, float]] | None:
        """The reliability diagram of distributions (n, k) over the pool; None without gold, or of several a row."""
        return (
            None
            if self.pool is None or self.pool.ndim > 1
            else [asdict(each) for each in reliability(proba, self.pool)]
        )

    def wrong_prompts(self, shown: Sequence[Sequence[Demonstration]], write: Write) -> float | None:
        """Share of prompts, of those whose demonstrations can be judged, that show a wrong one; None without any."""
        shares = [self.wrong_demonstrations(demos, write) for demos in shown]
        judged = [share > 0 for share in shares if share is not None]
        return float(np.mean(judged)) if judged else None

    def wrong_demonstrations(self, demos: Sequence[Demonstration], write: Write) -> float | None:
        """Share of demonstrations taken from the pool whose label is wrong; None if that is not known.

        Args:
            write: text and classes -> the label as a demonstration has it.
        """
        if self.pool is None:
            return None
        is_known = known(self.pool)
        from_pool = [(demo, demo.row) for demo in demos if demo.row is not None and is_known[demo.row]]
        judged = [demo.label != write(demo.text, self.pool[row]) for demo, row in from_pool]
        return float(np.mean(judged)) if judged else None


Write = Callable[[str, IntArray], str]
