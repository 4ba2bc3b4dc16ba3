"""Taking an LLM's taste for some labels out of its probabilities, without gold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from freeal.types import PROBABILITY, Annotations, Answers, BoolArray, FloatArray, LoopState

SMOOTHING = 1.0
"""Rows' worth of an even split added for each class: a handful of rows moves little."""

DOUBT = 10.0
"""Rows a class at which half the bias of a later pass is used: few answers must not be bent to what was believed."""

FLOOR = 1e-6


def batch_bias(proba: FloatArray) -> FloatArray:
    """(k,) to add to log-probabilities: minus the log of the pool's mean distribution.

    Batch calibration (Zhou et al., 2024, arXiv 2309.17249, eq. 3): what the model says of a batch as a whole is
    its taste, and is divided out. It favours no class of its own accord, but it does not know of real skew.

    Args:
        proba: (a, k), no abstentions.
    """
    k = proba.shape[1]
    mean = (proba.sum(axis=0) + SMOOTHING) / (len(proba) + k * SMOOTHING)
    bias: FloatArray = -np.log(np.maximum(mean, FLOOR))
    return bias


def prior_bias(proba: FloatArray, prior: FloatArray, steps: int = 200) -> FloatArray:
    """(k,) to add to log-probabilities so that the mean distribution over the rows becomes `prior` (k,).

    The fixed point of b <- b + log prior - log mean(softmax(log p + b)); a class whose prior is zero is floored.
    """
    wanted = np.log(np.maximum(prior, 1e-4) / np.maximum(prior, 1e-4).sum())
    bias: FloatArray = np.zeros(proba.shape[1])
    for _ in range(steps):
        step = wanted - np.log(np.maximum(shifted(proba, bias).mean(axis=0), FLOOR))
        bias = bias + step
        if np.abs(step).max() < 1e-6:
            break
    centred: FloatArray = bias - bias.mean()
    return centred


def shifted(proba: FloatArray, bias: FloatArray) -> FloatArray:
    """softmax(log `proba` + `bias`), row by row; abstentions (NaN) stay abstentions."""
    logits = np.log(np.maximum(proba, FLOOR)) + bias
    logits = logits - logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    normalised: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return normalised


@dataclass(frozen=True, slots=True)
class Calibrator:
    """What becomes of a pass of the LLM: calibrated, and joined to what it said before.

    kind: `none`; `batch` (the first pass is divided by its mean); `prior` (the first pass is brought to the stated
    shares). In both, a later pass over some rows is brought to the mean of what is believed of those rows by then.
    passes: `latest` replaces what a row had; `average` takes the geometric mean of its passes since the second
    round: what was said before there were demonstrations from the pool is replaced in both.
    """

    kind: Literal["none", "batch", "prior"]
    passes: Literal["latest", "average"]
    prior: FloatArray | None = None

    def __call__(self, state: LoopState, answers: Answers) -> Annotations:
        """The annotations after `answers`; a row that abstains now keeps what it had."""
        proba = shifted_where(answers.proba, self.bias(answers, state.posterior), answers.scored)
        before, given = state.annotations, ~np.isnan(answers.proba[:, 0])
        rows = answers.rows[given]
        joined, first = before.proba.copy(), before.first.copy()
        kept = before.proba[rows] if self.passes == "average" else np.full_like(proba[given], np.nan)
        kept[before.asked_in[rows] <= 0] = np.nan
        joined[rows] = geometric_mean(kept, proba[given])
        if state.next_round == 0:
            first[answers.rows] = answers.proba
        asked_in, problems = before.asked_in.copy(), before.problems.copy()
        asked_in[answers.rows] = state.next_round
        problems[answers.rows] = answers.problems
        return Annotations(first.astype(PROBABILITY), joined.astype(PROBABILITY), asked_in, problems)

    def bias(self, answers: Answers, posterior: FloatArray) -> FloatArray:
        """(k,) bias of this pass; zero where there is nothing to calibrate."""
        usable = answers.scored & ~np.isnan(answers.proba[:, 0])
        proba = answers.proba[usable].astype(np.float64)
        if self.kind == "none" or not usable.any():
            return np.zeros(answers.proba.shape[1])
        believed = posterior[answers.rows[usable]].astype(np.float64)
        if not np.isnan(believed).any():
            rows, k = proba.shape
            used: FloatArray = prior_bias(proba, believed.mean(axis=0)) * (rows / (rows + k * DOUBT))
            return used
        return batch_bias(proba) if self.prior is None else prior_bias(proba, self.prior)


def geometric_mean(before: FloatArray, now: FloatArray) -> FloatArray:
    """(m, k) the normalised geometric mean of two passes; where `before` is an abstention (NaN), `now`."""
    older = np.where(np.isnan(before), now, before)
    return shifted(np.sqrt(older * now), np.zeros(now.shape[1]))


def shifted_where(proba: FloatArray, bias: FloatArray, scored: BoolArray) -> FloatArray:
    """`shifted` on the rows that carry real probabilities; a mere word is left as it is."""
    return np.where(scored[:, None], shifted(proba, bias), proba)
