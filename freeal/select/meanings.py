"""Which rows show that the meanings of the labels are not clear, and whether other meanings do no harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freeal.select.queries import margin
from freeal.types import BoolArray, FloatArray, IntArray, argmax

PAIRS, EACH, TYPICAL = 8, 3, 2
"""Pairs of labels that are told, rows a pair, and believed rows a label."""

MOST_TYPICAL = 48
"""Where every label's believed rows would be more than this, only those of the pairs are told."""

UNSURE = 0.2
"""Margin below which the LLM wavers between its two best labels."""


@dataclass(frozen=True, slots=True)
class Confused:
    """Two classes (a, b), a < b, that are taken for each other, and the `rows` that show it best."""

    pair: tuple[int, int]
    rows: IntArray


@dataclass(frozen=True, slots=True)
class Cases:
    """What is told to whoever rewrites the meanings: confused pairs, most rows first, and `typical` rows a class."""

    confused: Sequence[Confused]
    typical: Sequence[IntArray]

    @property
    def rows(self) -> IntArray:
        """All of them, each once."""
        return np.concatenate([np.zeros(0, np.int64), *(each.rows for each in self.confused), *self.typical])


def cases(llm: FloatArray, student: FloatArray, believed: BoolArray, eligible: BoolArray) -> Cases:
    """A few rows for each of the most confused pairs of labels, and a few believed ones a label; no gold.

    A row counts for a pair where LLM and student name one each, or where the LLM alone wavers between the two and the
    row is not believed. Of a pair's rows those come first on which both are sure, then those on which the LLM wavers
    most; typical are the believed rows of which the less sure of the two is surest.

    Args:
        llm: (n, k), NaN for an abstention; such a row is no case.
        student: (n, k), of a student that did not learn from the row.
        believed: (n,) rows on which both agree.
        eligible: (n,) rows that may be told; no others are.

    Example:
        >>> llm = np.array([[0.9, 0.1], [0.2, 0.8], [0.95, 0.05]])
        >>> student = np.array([[0.1, 0.9], [0.3, 0.7], [0.8, 0.2]])
        >>> found = cases(llm, student, np.array([False, True, True]), np.ones(3, bool))
        >>> found.confused[0].pair, found.confused[0].rows.tolist(), [rows.tolist() for rows in found.typical]
        ((0, 1), [0], [[2], [1]])
    """
    k = llm.shape[1]
    theirs, ours = argmax(llm), argmax(student)
    sure = np.minimum(np.nan_to_num(llm).max(axis=1), np.nan_to_num(student).max(axis=1))
    spoken = eligible & (theirs >= 0) & (ours >= 0)
    differ = spoken & (theirs != ours)
    close = margin(llm)
    wavers = spoken & ~differ & ~believed & (close < UNSURE)
    second = np.argsort(np.nan_to_num(llm), axis=1, kind="stable")[:, -2]
    other = np.where(differ, ours, second)
    strength = np.where(differ, 1.0 + sure, 1.0 - close)
    confused = _confused(np.minimum(theirs, other) * k + np.maximum(theirs, other), strength, differ | wavers, k)
    in_pairs = {c for each in confused for c in each.pair}
    told = set(range(k)) if k * TYPICAL <= MOST_TYPICAL else in_pairs
    typical = [
        _surest(spoken & ~differ & believed & (theirs == c), sure, TYPICAL if c in told else 0) for c in range(k)
    ]
    return Cases(confused, typical)


def _confused(codes: IntArray, strength: FloatArray, among: BoolArray, k: int) -> list[Confused]:
    pairs, counts = np.unique(codes[among], return_counts=True)
    chosen = pairs[np.argsort(-counts, kind="stable")][:PAIRS]
    return [
        Confused((int(code) // k, int(code) % k), _surest(among & (codes == code), strength, EACH)) for code in chosen
    ]


def _surest(among: BoolArray, strength: FloatArray, count: int) -> IntArray:
    rows = np.flatnonzero(among)
    return rows[np.argsort(-strength[rows], kind="stable")][:count]


def held_out(classes: IntArray, eligible: BoolArray, count: int, rng: np.random.Generator) -> IntArray:
    """At most `count` eligible rows to compare meanings on, ascending: drawn at random, as many a class as it goes.

    Evenly, so that a label whose meaning was spoilt is noticed, be it ever so rare.

    Args:
        classes: (n,) class of each row, -1 for none; such a row is not drawn.

    Example:
        >>> held_out(np.array([0, 0, 0, 0, 1, -1]), np.ones(6, bool), 2, np.random.default_rng(0)).tolist()[1]
        4
    """
    rows = rng.permutation(np.flatnonzero(eligible & (classes >= 0)))
    turn = np.zeros(len(rows), np.int64)
    for c in np.unique(classes[rows]):
        mine = classes[rows] == c
        turn[mine] = np.arange(mine.sum())
    return np.sort(rows[np.argsort(turn, kind="stable")][:count])


def no_worse(before: IntArray, after: IntArray, reference: IntArray) -> bool:
    """Whether answers `after` (m,) agree with `reference` on as many rows as those `before`, and on one at least.

    An abstention (-1) agrees with nobody.

    Example:
        >>> no_worse(np.array([0, 1]), np.array([1, 1]), np.array([1, 0])), no_worse(*[np.array([-1])] * 3)
        (True, False)
    """
    return agreed(after, reference) >= max(1, agreed(before, reference))


def agreed(classes: IntArray, reference: IntArray) -> int:
    """On how many rows two labellings (m,) agree, abstentions apart."""
    return int(((classes == reference) & (classes >= 0)).sum())
