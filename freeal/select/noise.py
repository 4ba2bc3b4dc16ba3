"""How many labels are wrong, as far as that can be told without gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freeal.types import Best, FloatArray, argmax, spoken


@dataclass(frozen=True, slots=True)
class EstimatedError:
    """The share of labels expected to be wrong: `overall`, and by the label that was given (None for one never given).

    It is what the distributions say of themselves, and as good as their calibration.
    """

    overall: float | None
    by_label: dict[str, float | None]


def estimated_error(posterior: FloatArray, labels: Sequence[str], best: Best = argmax) -> EstimatedError:
    """One minus the mean probability of the label, the `best`, over the rows of `posterior` (n, k) that have one.

    A row of several decisions is wrong where any of them is. Of several labels, (n, s, 2), the product of these
    probabilities counts, as if each erred by itself; of words, (n, s, k), which err together where one entity has them,
    the least sure one alone: that is too low, but the product is farther off (docs/log.md). By label it is told where
    `labels` are the decisions, one each.

    Example:
        >>> estimated_error(np.array([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]]), ["a", "b"]).by_label["b"] is None
        True
    """
    chosen, given = best(posterior), spoken(posterior)
    sure = np.take_along_axis(posterior.astype(np.float64), chosen[..., None], axis=-1)[..., 0]
    if sure.ndim == 2:
        sure = sure.prod(axis=1) if posterior.shape[-1] == 2 else sure.min(axis=1)
    doubt = 1.0 - sure
    by_label: dict[str, float | None] = {}
    if posterior.ndim == 2:
        by_label = {label: _mean(doubt[chosen == c]) for c, label in enumerate(labels)}
    elif posterior.shape[1:] == (len(labels), 2):
        of_each = 1.0 - posterior[given].astype(np.float64).max(axis=-1)
        by_label = {label: _mean(of_each[:, slot]) for slot, label in enumerate(labels)}
    return EstimatedError(_mean(doubt[given]), by_label)


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None
