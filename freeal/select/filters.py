"""Which labels to believe, from how hard the student found them. Law: `p_clean` never rises with the loss."""

from __future__ import annotations

import numpy as np

from freeal.types import CleanSplit, FloatArray

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
        losses that are all the same, the smaller half is believed and `note` says so.

    Raises:
        ValueError: no row, or a loss that is not finite.

    Example:
        >>> small_loss_gmm(np.array([[0.1, 0.2, 2.5, 0.1, 2.7]])).clean
        array([ True,  True, False,  True, False])
    """
    from sklearn.mixture import GaussianMixture

    loss = _averaged(losses)
    spread = float(np.ptp(loss))
    if len(loss) < FEWEST or spread < 1e-9:
        why = f"only {len(loss)} labelled rows" if len(loss) < FEWEST else "all losses are equal"
        half = small_loss_quantile(losses, 0.5)
        return CleanSplit(half.p_clean, half.clean, f"{why}: labels are believed by the rank of their loss alone")
    scaled = ((loss - loss.min()) / spread)[:, None]
    ends = np.quantile(scaled, [0.1, 0.9]).reshape(2, 1)
    if ends[0] == ends[1]:
        ends = np.array([[0.0], [1.0]])
    mixture = GaussianMixture(2, reg_covar=5e-4, means_init=ends, random_state=0, max_iter=200).fit(scaled)
    low, high = mixture.means_[:, 0].min(), mixture.means_[:, 0].max()
    between = np.clip(scaled, low, high)
    p_clean = mixture.predict_proba(between)[:, mixture.means_[:, 0].argmin()]
    return CleanSplit(p_clean, p_clean > threshold)


def small_loss_quantile(losses: FloatArray, share: float = 0.5) -> CleanSplit:
    """Believe the `share` of rows with the smallest losses; `p_clean` is one minus the loss's rank in [0, 1].

    Rows with equal losses are believed together. Raises ValueError as `small_loss_gmm` does.

    Example:
        >>> small_loss_quantile(np.array([[3.0, 1.0, 2.0, 4.0]])).clean
        array([False,  True,  True, False])
    """
    loss = _averaged(losses)
    rank = np.searchsorted(np.sort(loss), loss, side="left") / len(loss)
    return CleanSplit(1.0 - rank, rank < share)


def believe_all(losses: FloatArray) -> CleanSplit:
    """Believe every row."""
    loss = _averaged(losses)
    return CleanSplit(np.ones(len(loss)), np.ones(len(loss), bool))


def _averaged(losses: FloatArray) -> FloatArray:
    if losses.ndim != 2 or losses.shape[0] == 0 or losses.shape[1] == 0:
        raise ValueError(f"losses: expected (epochs, m) with at least one of each, found shape {losses.shape}")
    if not np.isfinite(losses).all():
        raise ValueError(f"losses: {int((~np.isfinite(losses)).sum())} of {losses.size} are not finite")
    averaged: FloatArray = losses.astype(np.float64).mean(axis=0)
    return averaged
