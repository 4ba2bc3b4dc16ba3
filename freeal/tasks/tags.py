"""Labels of words: BIO2 tags, and the likeliest sequence that obeys them.

Sizes: `t` types of entity, `s` words of the longest text, k = 2t+1 classes in the order O, B-x1, I-x1, B-x2, I-x2, …
Words behind the last of a text are a certain O. A text that is NaN throughout is an abstention.
"""

from __future__ import annotations

import numpy as np

from freeal.types import BoolArray, FloatArray, IntArray

FLOOR = 1e-12
"""Probabilities count as this much at least, so that a sequence is found where no valid one is possible."""


def decode(proba: FloatArray) -> IntArray:
    """The likeliest of all valid tag sequences of each text: I-x follows B-x or I-x alone (Viterbi, 1967).

    Args:
        proba: (n, s, k), or (s, k) for one text.

    Returns:
        (n, s), or (s,), classes; -1 for an abstention.

    Raises:
        ValueError: the number of classes is not odd.

    Example:
        >>> decode(np.array([[0.6, 0.4, 0.0], [0.1, 0.0, 0.9]]))  # O, then I-x: not allowed
        array([1, 2])
    """
    if proba.ndim == 2:
        only: IntArray = decode(proba[None])[0]
        return only
    n, s, k = proba.shape
    if k % 2 == 0:
        raise ValueError(f"proba: expected 2t+1 classes (O, and B and I of each type), found {k}")
    score = np.log(np.maximum(np.nan_to_num(proba.astype(np.float64)), FLOOR))
    inside, starts = np.arange(2, k, 2), np.arange(1, k, 2)
    before = np.zeros((n, s, k), np.int64)
    if s:
        # before the first word there is nothing to go on from
        score[:, 0, inside] = -np.inf
    for word in range(1, s):
        last = score[:, word - 1]
        goes_on = last[:, inside] >= last[:, starts]
        before[:, word] = last.argmax(axis=1)[:, None]
        before[:, word, inside] = np.where(goes_on, inside, starts)
        score[:, word] += np.take_along_axis(last, before[:, word], axis=1)
    abstained: BoolArray = np.asarray(np.isnan(proba).any(axis=(1, 2)))
    return np.where(abstained[:, None], -1, _walked_back(score, before))


def _walked_back(score: FloatArray, before: IntArray) -> IntArray:
    """(n, s) from the best end of each text back to its first word."""
    n, s, _ = score.shape
    path = np.zeros((n, s), np.int64)
    if s:
        path[:, -1] = score[:, -1].argmax(axis=1)
    for word in range(s - 1, 0, -1):
        path[:, word - 1] = before[np.arange(n), word, path[:, word]]
    return path


def span_confidence(proba: FloatArray, start: int, end: int, type: int) -> float:
    """Geometric mean of the probabilities that its words have of their tags: B at `start`, I up to `end`.

    Args:
        proba: (s, k) of one text.
        start, end: its words, `end` exclusive.
        type: number of the entity's type, from 0.

    Raises:
        ValueError: no such words, or no such type.

    Example:
        >>> round(span_confidence(np.array([[0.1, 0.9, 0.0], [0.5, 0.1, 0.4]]), 0, 2, 0), 3)
        0.6
    """
    s, k = proba.shape
    if not (0 <= start < end <= s and 0 <= 2 * type + 1 < k):
        raise ValueError(f"words {start} to {end} of type {type}: there are {s} words and {k // 2} types")
    tags = np.where(np.arange(start, end) == start, 2 * type + 1, 2 * type + 2)
    of_words = proba[np.arange(start, end), tags].astype(np.float64)
    return float(np.exp(np.log(np.maximum(of_words, FLOOR)).mean()))
