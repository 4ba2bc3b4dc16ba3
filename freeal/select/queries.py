"""Which rows to ask the LLM about. Every strategy gives unique rows inside the pool, best first."""

from __future__ import annotations

from typing import Literal

import numpy as np

from freeal.types import FloatArray, IntArray, LoopState, argmax

Strategy = Literal["all", "not_clean", "uncertain", "random", "none"]

SCOUTED = 25
"""Rows a label that the first of several rounds asks about at least."""


def scouted(n: int, k: int, share: float, rounds: int) -> int:
    """Of `n` rows with `k` labels those that the first of `rounds` asks about: all, if it is the only one.

    Example:
        >>> scouted(1000, 6, 0.25, rounds=2), scouted(1000, 77, 0.25, rounds=2), scouted(1000, 6, 0.25, rounds=1)
        (250, 1000, 1000)
    """
    return n if rounds == 1 else min(n, max(int(np.ceil(share * n)), SCOUTED * k))


def query(state: LoopState, strategy: Strategy, limit: int, rng: np.random.Generator) -> IntArray:
    """At most `limit` rows worth a call, the most doubtful first.

    In the first round those are drawn at random, in the order of the pool. Later: `all`; `not_clean`, the rows whose
    label is not believed (abstentions among them); `uncertain`, all rows by the margin of their posterior; `random`, a
    random half of them; `none`.
    """
    n = len(state.posterior)
    if state.next_round == 0:
        return np.sort(rng.permutation(n)[:limit])
    if strategy == "none":
        return np.arange(0)
    if strategy == "all":
        return np.arange(n)[:limit]
    if strategy == "random":
        return rng.permutation(n)[: min(limit, (n + 1) // 2)]
    doubtful = np.arange(n) if strategy == "uncertain" else np.flatnonzero(~state.clean)
    return doubtful[np.argsort(margin(state.posterior[doubtful]), kind="stable")][:limit]


def margin(proba: FloatArray) -> FloatArray:
    """(n,) probability of the best class less that of the second best; -1 for an abstention."""
    if not len(proba):
        return np.zeros(0)
    best = np.sort(np.where(np.isnan(proba), 0.0, proba), axis=1)
    return np.where(argmax(proba) < 0, -1.0, best[:, -1] - best[:, -2])
