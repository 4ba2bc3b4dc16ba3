"""How good labels are, from a few rows that a person has labelled: a prediction-powered mean, and its interval.

The sample is stratified by how sure the labels are, and proportional. The labels' own probabilities of being right
stand in for the rows that nobody labelled, corrected by the labelled ones, and weigh as much as they are found to tell:
wrong ones bias nothing, and the better they are, the narrower the interval. It is an approximation: in simulated audits
one of 95 % held in .93 or more of them on every pool, also where all errors were among the fifth that the labels were
surest of (`benchmarks/audit_coverage.py --made-up`, `--hidden`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from freeal.types import BoolArray, FloatArray, IntArray

STRATA = 5
"""Parts of the pool, by how sure its labels are, that a sample is drawn from."""

LEAST = 5
"""Rows of a stratum that are drawn at least: with fewer, nothing is known of how its rows differ."""

CONFIDENCE = 0.95


def strata(sure: FloatArray) -> IntArray:
    """(n,) number of each row's stratum, the most doubtful rows first: parts of like size by how `sure` (n,) they are.

    Rows that are equally sure are in the same stratum, so that there may be fewer than STRATA.

    Example:
        >>> strata(np.array([0.9, 0.5, 0.7, 0.7]))
        array([2, 0, 1, 1])
    """
    edges = np.unique(np.quantile(sure, np.linspace(0, 1, STRATA + 1)[1:-1]))
    found = np.searchsorted(edges, sure, side="left")
    numbers: IntArray = np.unique(found, return_inverse=True)[1]
    return numbers


def allocate(total: int, stratum: IntArray) -> IntArray:
    """(h,) rows to draw of each stratum, `total` together: in proportion to its size.

    More from the doubtful strata (Neyman, 1934) would tell more of large samples, but trusts the labels not to err
    where they are sure. No stratum gets fewer than `LEAST` rows, if it has them, so that the sum may be larger.

    Example:
        >>> allocate(20, np.repeat([0, 1, 2], [60, 30, 10]))
        array([12,  6,  5])
    """
    sizes = np.bincount(stratum)
    ends = np.round(total * np.cumsum(sizes) / len(stratum)).astype(np.int64)
    drawn: IntArray = np.maximum(np.diff(ends, prepend=0), np.minimum(LEAST, sizes))
    return drawn


def draw(wanted: IntArray, stratum: IntArray, seed: int) -> IntArray:
    """`wanted` (h,) rows of each stratum, in random order; with the same seed and more wanted, the same and more.

    Args:
        stratum: (n,) number of each row's stratum.
    """
    order = np.random.default_rng([seed, 5]).permutation(len(stratum))
    chosen = np.zeros(len(stratum), bool)
    for h, count in enumerate(wanted):
        chosen[order[stratum[order] == h][:count]] = True
    return order[chosen[order]]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The share of labels that is right: its estimate, and an interval meant to hold with probability `confidence`."""

    estimate: float
    low: float
    high: float
    confidence: float
    rows: int
    """Rows that a person has labelled."""

    worth: float
    """Rows of a simple sample that would tell as much."""


def certify(
    rows: IntArray, right: BoolArray, sure: FloatArray, stratum: IntArray, confidence: float = CONFIDENCE
) -> Certificate:
    """The certificate of n labels, of which those of `rows` (m,) were found to be `right` (m,) or not.

    The mean is that of `difference`; the interval that of Clopper and Pearson (1934) for as many rows of a simple
    sample as would tell as much (Korn and Graubard, 1998), which holds for few errors, where a normal one does not.

    Args:
        sure: (n,) probability that each label is right, as the labels themselves have it.
        stratum: (n,) number of each row's stratum, within which those with answers were drawn by chance.

    Raises:
        ValueError: no answer at all.
    """
    found = difference(rows, right, sure, stratum)
    mean, answered = found.mean, len(rows)
    if found.variance <= 0.0:  # every row was labelled
        return Certificate(mean, mean, mean, confidence, answered, float(answered))
    worth = max(found.smooth * (1.0 - found.smooth) / found.variance, 1.0)
    tail = (1.0 - confidence) / 2.0
    high = float(beta.ppf(1.0 - tail, mean * worth + 1.0, (1.0 - mean) * worth)) if mean < 1 else 1.0
    return Certificate(mean, _low(mean, worth, tail), high, confidence, answered, worth)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Share of labels that is right: its `mean` and `variance`, and the mean had each stratum one hit and miss more."""

    mean: float
    variance: float
    smooth: float


def difference(rows: IntArray, right: BoolArray, sure: FloatArray, stratum: IntArray) -> Estimate:
    """The share of n labels that is right, by the probabilities of all and the answers to some, as in `certify`.

    The difference estimator in each stratum (Särndal et al., 1992; Angelopoulos et al., Prediction-powered inference,
    Science 2023): the mean of the probabilities over all rows, and of what those with an answer are off by. How much
    the probabilities weigh, from 0 to 1, is what makes the variance least (Angelopoulos et al., PPI++, 2023). A
    stratum without an answer is judged with its neighbour.

    Example:
        >>> sure = np.array([0.9, 0.9, 0.5, 0.5])
        >>> found = difference(np.array([0, 2, 3]), np.array([True, False, False]), sure, np.zeros(4, int))
        >>> round(found.mean, 2)  # a third of those with an answer, and the row without one is surer than they are
        0.4
    """
    if not len(rows):
        raise ValueError("no row has an answer")
    known = np.unique(stratum[rows])
    place = np.maximum(np.searchsorted(known, stratum, side="right") - 1, 0)
    sizes, counts = np.bincount(place), np.bincount(place[rows])
    excess = sure - (np.bincount(place, sure) / sizes)[place]  # over the mean of the stratum
    hits, beyond = np.bincount(place[rows], right), np.bincount(place[rows], excess[rows])
    # one hit and one miss more: no stratum is taken for perfect because few of its rows were labelled
    smooth = (hits + 1.0) / (counts + 2.0)
    common = (np.bincount(place[rows], right * excess[rows]) - hits * beyond / counts) / (counts + 2.0)
    spread = (np.bincount(place[rows], excess[rows] ** 2) - beyond**2 / counts) / (counts + 2.0)
    shares = sizes / sizes.sum()
    scale = shares**2 * (1.0 - counts / sizes) / counts
    weight = _weight(float(scale @ common), float(scale @ (np.bincount(place, excess**2) / sizes)))
    mean = float(np.clip(shares @ ((hits - weight * beyond) / counts), 0.0, 1.0))
    variance = scale @ (smooth * (1.0 - smooth) - 2.0 * weight * common + weight**2 * spread)
    return Estimate(mean, float(variance), float(shares @ smooth))


def _weight(common: float, spread: float) -> float:
    """What the probabilities should count for: their covariance with being right, as a share of their own variance."""
    return min(max(common / spread, 0.0), 1.0) if spread > 0.0 else 0.0


def more_needed(found: Certificate, wanted: float, size: int) -> int | None:
    """Rows to label besides until the interval lies above `wanted`, if the estimate stays; None if it never would.

    Never more than are left of the `size` rows of the pool: then nothing is estimated.
    """
    if found.low >= wanted:
        return 0
    if found.estimate <= wanted:
        return None
    tail = (1.0 - found.confidence) / 2.0
    rows = found.rows
    while rows < size and _low(found.estimate, found.worth * rows / found.rows, tail) < wanted:
        rows = min(size, int(rows * 1.02) + 1)
    return rows - found.rows


def _low(mean: float, worth: float, tail: float) -> float:
    """Lower end of the interval of Clopper and Pearson for a share `mean` of `worth` rows."""
    return float(beta.ppf(tail, mean * worth, (1.0 - mean) * worth + 1.0)) if mean > 0 else 0.0
