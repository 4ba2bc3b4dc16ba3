"""Entities on which LLM and student differ, and what a second question about one does to a row's distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from freeal.types import FloatArray, IntArray

FLOOR = 1e-6


class Dispute(NamedTuple):
    """An entity of type number `type` in the words `start` to `end` (exclusive) of `row`, which one of two marked."""

    row: int
    start: int
    end: int
    type: int


def disputed(first: IntArray, second: IntArray) -> list[Dispute]:
    """The entities that are in one of two markings alone, in the order of rows and words.

    Args:
        first, second: (n, s) classes in the order O, B-x1, I-x1, B-x2, …; rows where one abstains (-1) are left out.

    Example:
        >>> disputed(np.array([[1, 2, 0]]), np.array([[1, 0, 0]]))
        [Dispute(row=0, start=0, end=1, type=0), Dispute(row=0, start=0, end=2, type=0)]
    """
    apart = np.flatnonzero((first != second).any(axis=1) & (first >= 0).all(axis=1) & (second >= 0).all(axis=1))
    found: list[Dispute] = []
    for row in map(int, apart):
        one, other = entities(first[row]), entities(second[row])
        found += [Dispute(row, *entity) for entity in sorted(one ^ other)]
    return found


def entities(tags: IntArray) -> set[tuple[int, int, int]]:
    """(start, end, type) of each entity that `tags` (s,) mark; an I that continues nothing begins an entity."""
    found, start, kind = set(), 0, -1
    for place, tag in enumerate([*tags.tolist(), 0]):
        goes_on = tag > 0 and tag % 2 == 0 and (tag - 1) // 2 == kind
        if kind >= 0 and not goes_on:
            found.add((start, place, kind))
        if not goes_on:
            start, kind = place, (tag - 1) // 2 if tag > 0 else -1
    return found


def settled(proba: FloatArray, disputes: Sequence[Dispute], right: FloatArray) -> FloatArray:
    """`proba` (n, s, k), each entity's words given the probability `right` (d,) that it is one; NaN changes nothing.

    The tag that the entity gives to a word has that probability. The others share the rest as they did before; where it
    is rather none, O has it: that it is not of this type says nothing for another. Of entities that share a word and
    are rather ones the likeliest stands, and what another has besides is part of none.
    """
    found = proba.copy()
    heard = [int(place) for place in np.argsort(-right, kind="stable") if not np.isnan(right[place])]
    standing: dict[tuple[int, int], float] = {}
    for place in [place for place in heard if right[place] >= 0.5]:
        if standing.keys().isdisjoint(_words(disputes[place])):
            _give(found, disputes[place], float(right[place]), _words(disputes[place]))
            standing |= dict.fromkeys(_words(disputes[place]), float(right[place]))
            heard.remove(place)
    given = set(standing)
    for place in heard:
        words = _words(disputes[place])
        over = max(standing.get(word, 0.0) for word in words)
        _give(found, disputes[place], min(float(right[place]), 1.0 - over), [w for w in words if w not in given])
        given.update(words)
    return found


def _words(dispute: Dispute) -> list[tuple[int, int]]:
    return [(dispute.row, word) for word in range(dispute.start, dispute.end)]


def _give(proba: FloatArray, dispute: Dispute, p: float, words: Sequence[tuple[int, int]]) -> None:
    """Write into `proba` that `words` of the dispute are of its entity with the probability `p`."""
    for row, word in words:
        tag = 2 * dispute.type + (1 if word == dispute.start else 2)
        others = np.maximum(proba[row, word].astype(np.float64), FLOOR)
        if p < 0.5:
            others[:], others[0] = FLOOR, 1.0
        others[tag] = 0.0
        mixed = others * (1.0 - p) / others.sum()
        mixed[tag] = p
        proba[row, word] = mixed
