"""What is said of candidate spans of a text, put together into distributions of its words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freeal.types import PROBABILITY, BoolArray, FloatArray


def best_apart(candidates: Sequence[tuple[int, int]], entity: FloatArray) -> list[int]:
    """Places of candidates that share no word, the best first: those of most words likelier an entity than not.

    What is taken is worth its words times P(entity) - 1/2, so that a name is preferred to its parts where both are as
    likely, and of those that are rather none the likeliest comes first.

    Args:
        entity: (c,) P(it is an entity) of each candidate, a run of words `(start, end)`.

    Example:
        >>> best_apart([(0, 1), (0, 2), (1, 2)], np.array([0.9, 0.85, 0.9]))
        [1]
        >>> best_apart([(0, 1), (0, 2), (1, 2)], np.array([0.3, 0.4, 0.1]))
        [1]
    """
    lengths = np.array([end - start for start, end in candidates], np.int64)
    worth = np.maximum(lengths * (entity - 0.5), 0.0)
    taken: BoolArray = np.zeros(max((end for _, end in candidates), default=0), bool)
    found = []
    for place in sorted(range(len(candidates)), key=lambda i: (-worth[i], -entity[i], -lengths[i], candidates[i])):
        start, end = candidates[place]
        if not taken[start:end].any():
            taken[start:end] = True
            found.append(place)
    return found


def composed(candidates: Sequence[tuple[int, int]], proba: FloatArray, slots: int, outside: float) -> FloatArray:
    """(slots, 2t+1) over O, B-x1, I-x1, …: the words of the best candidates that lie apart are what those are.

    Args:
        proba: (c, t+1) of each candidate over the t types and, last, "no entity".
        outside: P(O) of words in none of the candidates taken.
    """
    types = proba.shape[1] - 1
    words = np.full((slots, 2 * types + 1), (1.0 - outside) / (2 * types))
    words[:, 0] = outside
    for place in best_apart(candidates, 1.0 - proba[:, -1]):
        start, end = candidates[place]
        words[start:end] = 0.0
        words[start:end, 0] = proba[place, -1]
        words[start, 1::2] = proba[place, :-1]
        words[start + 1 : end, 2::2] = proba[place, :-1]
    return words.astype(PROBABILITY)


def even_shares(
    asked: Sequence[tuple[int, tuple[int, int]]],
    k: int,
    nested: bool,
    every: Sequence[tuple[int, tuple[int, int]]] = (),
) -> FloatArray:
    """(k,) shares of the types and, last, of none, if a place in a text is as likely each type as nothing.

    Where those asked about were chosen for being likely, some of the entities at the places of the others are lost and
    some are not: the shares lie half-way between all and none.

    Args:
        asked: (text, (start, end)) of every candidate, in the order of texts and words.
        nested: candidates are mostly parts of each other, and of those that share words one at most is an entity; else
            each is a place of its own.
        every: those `asked` and those that were not.

    Example:
        >>> even_shares([(0, (0, 2)), (0, (0, 1)), (0, (1, 2)), (1, (4, 5))], 2, nested=True)
        array([0.25, 0.75])
        >>> even_shares([(0, (0, 2)), (0, (0, 1))], 4, nested=False)
        array([0.25, 0.25, 0.25, 0.25])
        >>> even_shares([(0, (0, 2)), (0, (0, 1))], 2, nested=True, every=[(0, (0, 2)), (0, (0, 1)), (1, (4, 5))])
        array([0.375, 0.625])
    """
    places = _places(asked) + max(0, _places(every) - _places(asked)) / 2
    share = (min(1.0, places / len(asked)) if nested and asked else 1.0) / k
    shares: FloatArray = np.full(k, share)
    shares[-1] = 1.0 - (k - 1) * share
    return shares


def _places(candidates: Sequence[tuple[int, tuple[int, int]]]) -> int:
    """How many places they are about, if those that share words are about one."""
    places, here, reach = 0, -1, -1
    for text, (start, end) in candidates:
        if text != here or start >= reach:
            places, here, reach = places + 1, text, end
        reach = max(reach, end)
    return places
