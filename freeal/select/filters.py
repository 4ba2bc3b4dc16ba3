"""Which labels to believe, from how hard the student found them. Law: `p_clean` never rises with the loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from freeal.types import CleanSplit, FloatArray

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

FEWEST = 4
"""Below so many rows two Gaussians explain nothing; the smaller half of the losses is believed instead."""


def small_loss_gmm(losses: FloatArray, threshold: float = 0.7) -> CleanSplit:
    """Believe the rows whose loss belongs to the lower of two Gaussians.

    Networks fit clean labels before noisy ones, so early losses fall into two heaps
    (Li et al., DivideMix, ICLR 2020, sec. 3.1; Xiao et al., FreeAL, EMNLP 2023). A plain mixture can give
    the *easiest* rows P(clean) = 0, where the wider component wins the far tail; between the two means the
    odds can only fall, so losses beyond a mean are judged as if they lay on it.

    Args:
        losses: (epochs, m) cross-entropy in nats of each row under its given label; epochs are averaged.
        threshold: P(clean) in (0, 1) above which a row is believed. FreeAL uses 0.7.

    Returns:
        `p_clean` (m,) and `clean` (m,), aligned with the columns of `losses`. With fewer than four rows, or
        losses that are all the same or in one heap, the smaller half is believed and `note` says so.

    Raises:
        ValueError: no row, or a loss that is not finite.

    Example:
        >>> small_loss_gmm(np.array([[0.1, 0.2, 2.5, 0.1, 2.7]])).clean
        array([ True,  True, False,  True, False])
    """
    loss = _averaged(losses)
    if not _tells_apart(loss):
        return _by_rank(losses, f"only {len(loss)} labelled rows" if len(loss) < FEWEST else "all losses are equal")
    scaled = ((loss - loss.min()) / np.ptp(loss))[:, None]
    two = _two_gaussians(scaled)
    low, high = two.means_[:, 0].min(), two.means_[:, 0].max()
    between = np.clip(scaled, low, high)
    p_clean = two.predict_proba(between)[:, two.means_[:, 0].argmin()]
    if not (p_clean > threshold).any():
        return _by_rank(losses, f"no label is clean with more than {threshold:g}")
    return CleanSplit(p_clean, p_clean > threshold, loss)


def _by_rank(losses: FloatArray, why: str) -> CleanSplit:
    half = small_loss_quantile(losses, 0.5)
    return CleanSplit(
        half.p_clean, half.clean, half.loss, f"{why}: labels are believed by the rank of their loss alone"
    )


@dataclass(frozen=True, slots=True)
class Mixture:
    """Two Gaussians over losses in nats, the clean heap first: `weights`, `means` and `deviations`, (2,) each."""

    weights: FloatArray
    means: FloatArray
    deviations: FloatArray

    def density(self, at: FloatArray) -> FloatArray:
        """(2, x) of each heap at the losses `at` (x,); both together have the area one."""
        z = (at - self.means[:, None]) / self.deviations[:, None]
        heaps: FloatArray = (self.weights / self.deviations)[:, None] * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        return heaps

    def falls_to(self, threshold: float) -> float | None:
        """The loss between the means at which P(clean) is no more above `threshold`; None if it stays above."""
        between = np.linspace(self.means[0], self.means[1], STEPS)
        low, high = self.density(between)
        below = np.flatnonzero(low / (low + high) <= threshold)
        return float(between[below[0]]) if len(below) else None


STEPS = 10_001
"""Losses between two means at which P(clean) is looked at to find where it falls to a threshold."""


def mixture(losses: FloatArray) -> Mixture | None:
    """The Gaussians that `small_loss_gmm` fits to `losses` (epochs, m), to look at; None where there are none."""
    loss = _averaged(losses)
    if not _tells_apart(loss):
        return None
    spread = np.ptp(loss)
    two = _two_gaussians(((loss - loss.min()) / spread)[:, None])
    order = two.means_[:, 0].argsort()
    means, deviations = two.means_[order, 0], np.sqrt(two.covariances_[order, 0, 0])
    return Mixture(two.weights_[order], loss.min() + spread * means, spread * deviations)


@dataclass(frozen=True, slots=True)
class Boundary:
    """What a filter did, to look at: the largest `loss` that it passes, in nats, by which `rule`, and the heaps it saw.

    `heaps`: None where it did not go by them.
    """

    loss: float
    rule: str
    heaps: Mixture | None = None


def boundary_gmm(losses: FloatArray, threshold: float = 0.7) -> Boundary:
    """Where `small_loss_gmm` parts `losses` (epochs, m): where P(clean) is `threshold`, or as it does without heaps."""
    passed, heaps = small_loss_gmm(losses, threshold), mixture(losses)
    if heaps is None or passed.note:
        return boundary_quantile(losses, 0.5)
    falls = heaps.falls_to(threshold)
    largest = float(passed.loss.max())
    return Boundary(largest if falls is None else falls, f"P(clean) = {threshold:g}", heaps)


def boundary_quantile(losses: FloatArray, share: float = 0.5) -> Boundary:
    """Where `small_loss_quantile` parts `losses` (epochs, m)."""
    passed = small_loss_quantile(losses, share)
    return Boundary(float(passed.loss[passed.clean].max()), f"smallest {share:.0%}")


def _tells_apart(loss: FloatArray) -> bool:
    return len(loss) >= FEWEST and float(np.ptp(loss)) >= 1e-9


def _two_gaussians(scaled: FloatArray) -> GaussianMixture:
    """Fitted to losses (m, 1) in [0, 1]; seeded by their ends, so that the same losses give the same heaps."""
    from sklearn.mixture import GaussianMixture

    ends = np.quantile(scaled, [0.1, 0.9]).reshape(2, 1)
    if ends[0] == ends[1]:
        ends = np.array([[0.0], [1.0]])
    return GaussianMixture(2, reg_covar=5e-4, means_init=ends, random_state=0, max_iter=200).fit(scaled)


def small_loss_quantile(losses: FloatArray, share: float = 0.5) -> CleanSplit:
    """Believe the `share` of rows with the smallest losses; `p_clean` is one minus the loss's rank in [0, 1].

    Rows with equal losses are believed together. Raises ValueError as `small_loss_gmm` does.

    Example:
        >>> small_loss_quantile(np.array([[3.0, 1.0, 2.0, 4.0]])).clean
        array([False,  True,  True, False])
    """
    loss = _averaged(losses)
    rank = np.searchsorted(np.sort(loss), loss, side="left") / len(loss)
    return CleanSplit(1.0 - rank, rank < share, loss)


def each_decision(keep: Callable[[FloatArray], CleanSplit]) -> Callable[[FloatArray], CleanSplit]:
    """`keep`, of losses (epochs, m, s), each of the s decisions judged among its own kind.

    A row is believed where all of its decisions are; its `p_clean` is the least of theirs, its loss their mean. Losses
    (epochs, m) are given to `keep` as they are.
    """

    def split(losses: FloatArray) -> CleanSplit:
        if losses.ndim == 2:
            return keep(losses)
        each = [keep(losses[..., slot]) for slot in range(losses.shape[-1])]
        notes = Counter(one.note for one in each if one.note)
        told = "; ".join(f"of {count} labels {note}" for note, count in notes.items())
        return CleanSplit(
            np.min([one.p_clean for one in each], axis=0), np.all([one.clean for one in each], axis=0),
            np.mean([one.loss for one in each], axis=0), told or None,
        )  # fmt: skip

    return split


def believe_all(losses: FloatArray) -> CleanSplit:
    """Believe every row."""
    loss = _averaged(losses)
    return CleanSplit(np.ones(len(loss)), np.ones(len(loss), bool), loss)


def _averaged(losses: FloatArray) -> FloatArray:
    if losses.ndim != 2 or losses.shape[0] == 0 or losses.shape[1] == 0:
        raise ValueError(f"losses: expected (epochs, m) with at least one of each, found shape {losses.shape}")
    if not np.isfinite(losses).all():
        raise ValueError(f"losses: {int((~np.isfinite(losses)).sum())} of {losses.size} are not finite")
    averaged: FloatArray = losses.astype(np.float64).mean(axis=0)
    return averaged
