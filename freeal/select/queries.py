"""Which rows to ask the LLM about. Every strategy gives unique rows inside the pool, best first."""

from __future__ import annotations

from typing import Literal

import numpy as np

from freeal.select.rounds import agreement
from freeal.types import FloatArray, IntArray, LoopState, argmax, portion

Strategy = Literal["all", "not_clean", "uncertain", "gain", "random", "none"]

SCOUTED = 25
"""Rows a label that the first of several rounds asks about at least."""


def scouted(n: int, k: int, share: float, rounds: int) -> int:
    """Of `n` rows with `k` labels those that the first of `rounds` asks about: all, if it is the only one.

    Example:
        >>> scouted(1000, 6, 0.25, rounds=2), scouted(1000, 77, 0.25, rounds=2), scouted(1000, 6, 0.25, rounds=1)
        (250, 1000, 1000)
    """
    return n if rounds == 1 else min(n, max(portion(share, n), SCOUTED * k))


def affordable(wanted: int, left: int | None, calls_a_row: int, aside: int = 0) -> int:
    """How many of the rows `wanted` can be asked about where `left` calls may be made; None: any number.

    A row takes `calls_a_row` of them, and `aside` are set aside for something else.

    Example:
        >>> affordable(100, 50, 6), affordable(100, 50, 6, aside=20), affordable(100, 5, 6), affordable(100, None, 6)
        (8, 5, 0, 100)
    """
    return wanted if left is None else max(0, min(wanted, (left - aside) // calls_a_row))


def query(
    state: LoopState,
    strategy: Strategy,
    limit: int,
    rng: np.random.Generator,
    cost: FloatArray | None = None,
    min_gain: float = 0.0,
) -> IntArray:
    """At most `limit` rows worth a call, the most doubtful first.

    In the first round those are drawn at random, in the order of the pool. Later: `all`, drawn likewise if there are
    more; `not_clean`, the rows whose label is not believed (abstentions among them); `uncertain`, all rows by the
    margin of their posterior; `gain`, those that promise at least `min_gain`, by their gain for one unit of `cost`
    (n,); `random`, a random half of them; `none`.
    """
    n = len(state.posterior)
    if state.next_round == 0 or strategy == "all":
        return np.sort(rng.permutation(n)[:limit])
    if strategy == "none":
        return np.arange(0)
    if strategy == "gain":
        gain = expected_gain(state.posterior, reliability(state))
        worth = np.flatnonzero(gain >= min_gain)
        for_one = gain if cost is None else gain / cost
        return worth[np.argsort(-for_one[worth], kind="stable")][:limit]
    if strategy == "random":
        return rng.permutation(n)[: min(limit, (n + 1) // 2)]
    doubtful = np.arange(n) if strategy == "uncertain" else np.flatnonzero(~state.clean)
    return doubtful[np.argsort(margin(state.posterior[doubtful]), kind="stable")][:limit]


def expected_gain(proba: FloatArray, right: float) -> FloatArray:
    """(n,) by how much one more answer is expected to raise the probability of the best label.

    Of several decisions a row, (n, s, k), the gains add up.

    The value of information (Howard, 1966) of an answer that names the true label with probability `right`, every
    other one alike, and knows nothing of the answers before: Σ_j max_c p(c) p(j | c) - max_c p(c). A label that no
    answer can turn gains nothing.

    Args:
        proba: (n, k); for an abstention all labels are alike.

    Example:
        >>> expected_gain(np.array([[0.5, 0.5], [0.95, 0.05]]), 0.9).round(2).tolist()
        [0.4, 0.0]
    """
    if proba.ndim == 3:
        by_decision = expected_gain(proba.reshape(-1, proba.shape[-1]), right)
        summed: FloatArray = by_decision.reshape(proba.shape[:2]).sum(axis=1)
        return summed
    k = proba.shape[1]
    known = np.where(np.isnan(proba), 1.0 / k, proba).astype(np.float64)
    wrong = (1.0 - right) / (k - 1)
    ranked = np.sort(known, axis=1)
    best, second = ranked[:, -1:], ranked[:, -2:-1]
    others = np.where(known == best, second, best)  # the likeliest of the other labels
    raised: FloatArray = np.maximum(known * right, others * wrong).sum(axis=1)
    return np.maximum(raised - best[:, 0], 0.0)


def reliability(state: LoopState) -> float:
    """How often the LLM is right, as far as its agreement with a student that has not seen the row tells.

    If both err on their own, agreement beyond chance is the product of what each knows beyond chance; taken for alike,
    each knows its square root (as in Cohen, 1960).
    """
    chance, agree = 1.0 / float(state.posterior.shape[-1]), agreement(state.annotations, state.student)
    if agree is None:
        return chance
    return min(0.99, chance + (1.0 - chance) * float(np.sqrt(max(agree, 0.0))))


def margin(proba: FloatArray) -> FloatArray:
    """(n,) probability of the best class less that of the second best; -1 for an abstention.

    Of several decisions a row, (n, s, k), the closest one counts.
    """
    if not len(proba):
        return np.zeros(0)
    best = np.sort(np.where(np.isnan(proba), 0.0, proba), axis=-1)
    margins = np.where(argmax(proba) < 0, -1.0, best[..., -1] - best[..., -2])
    closest: FloatArray = margins.reshape(len(proba), -1).min(axis=1)
    return closest
