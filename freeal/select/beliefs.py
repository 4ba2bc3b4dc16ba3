"""Which rows are believed once student and LLM have both spoken, and what the student is to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from freeal.errors import Unreadable
from freeal.select.fusion import log_linear
from freeal.types import (
    NO_CALL,
    PROBABILITY,
    Annotations,
    Best,
    BoolArray,
    FloatArray,
    IntArray,
    LoopState,
    alike,
    answered,
    argmax,
    by_row,
    portion,
    spoken,
    surest,
)

TargetKind = Literal["hard", "soft", "candidates", "posterior", "refined"]

PLAUSIBLE = 0.9
"""Probability that the candidate labels of a row have together, at least."""

ROUNDED = 1e-6
"""A mere word has just so much, give or take single precision: it is the only candidate."""


def agreeing(annotations: Annotations, student: FloatArray, best: Best = argmax) -> BoolArray:
    """(n,) rows the LLM labelled and the student would label the same, throughout, by what is `best` for either.

    Where the LLM left one of a row's decisions open, there is nothing that the student could agree with.
    """
    whole = answered(annotations.proba).reshape(len(student), -1).all(axis=1)
    agree: BoolArray = whole & alike(best(annotations.proba), best(student))
    return agree


def filtered(annotations: Annotations, student: FloatArray, passed: BoolArray, best: Best = argmax) -> BoolArray:
    """(n,) rows that `passed` (n,) the filter and on which student and LLM agree."""
    return passed & agreeing(annotations, student, best)


def most_confident(
    annotations: Annotations,
    student: FloatArray,
    share: float,
    best: Best = argmax,
    group: Callable[[IntArray], IntArray] = lambda best: best,
) -> BoolArray:
    """(n,) of the agreeing rows of each class, the `share` the student is surest of (FreeAL's `right_list`).

    Args:
        group: what counts as the class of a row that has several decisions: (n, s) -> (n,).
    """
    agree, labels, sureness = agreeing(annotations, student, best), group(best(student)), surest(student)
    believed = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        rows = np.flatnonzero(agree & (labels == c))
        sure = rows[np.argsort(-sureness[rows], kind="stable")]
        believed[sure[: portion(share, len(sure))]] = True
    return believed


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the student is to learn: `rows` (m,) of the pool and their distributions `targets` (m, k), or (m, s, k).

    `weights` (m,), or (m, s), are zero for decisions that the LLM left open, as even odds do; None: one for all.
    """

    rows: IntArray
    targets: FloatArray
    weights: FloatArray | None = None


def lessons(annotations: Annotations, state: LoopState, kind: TargetKind) -> Lessons:
    """The rows the LLM labelled (abstentions never train) and what to learn of each.

    `soft`: the LLM's distribution; `candidates`: the same over its plausible labels; `hard`: its label; `posterior`:
    its distribution pooled with that of the last student; `refined` (FreeAL): its label, but the last student's
    where that was believed.

    Raises:
        Unreadable: there is nothing to learn, as the LLM gave no readable answer at all.
    """
    if not annotations.labelled.any():
        raise Unreadable(_nothing_read(annotations))
    proba = annotations.proba
    if kind == "posterior" and state.next_round:
        proba = log_linear(annotations.proba, state.student, 0.5, 0.5)
    if kind == "refined":
        proba = np.where(by_row(state.clean, proba), state.student, proba)
    rows = np.flatnonzero(spoken(proba) & annotations.labelled)
    known = answered(annotations.proba[rows])
    targets: FloatArray = proba[rows].astype(np.float64)
    if kind in ("hard", "refined"):
        targets = np.eye(proba.shape[-1])[argmax(targets)]
    if kind == "candidates":
        targets = among_candidates(targets)
    return Lessons(rows, targets, None if known.all() else known.astype(PROBABILITY))


def among_candidates(proba: FloatArray) -> FloatArray:
    """(m, k) or (m, s, k): each distribution over the fewest labels that have PLAUSIBLE of it together.

    The others get zero. Candidate labels as in CanDist (arXiv 2506.03857): what the LLM would name, might it name
    several.

    Example:
        >>> among_candidates(np.array([[0.6, 0.35, 0.05], [0.96, 0.03, 0.01]])).round(2).tolist()
        [[0.63, 0.37, 0.0], [1.0, 0.0, 0.0]]
    """
    order = np.argsort(-proba, axis=-1, kind="stable")
    ranked = np.take_along_axis(proba, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked
    kept = np.zeros_like(proba)
    np.put_along_axis(kept, order, np.where(before < PLAUSIBLE - ROUNDED, ranked, 0.0), axis=-1)
    candidates: FloatArray = kept / kept.sum(axis=-1, keepdims=True)
    return candidates


def _nothing_read(annotations: Annotations) -> str:
    silent = [problem for problem in annotations.problems if problem]
    problems = [problem for problem in silent if problem != NO_CALL]
    if silent and not problems:
        return "no row has a label: there were not calls enough for all questions about one (stop.max_calls)"
    first = f", first: {problems[0]}" if problems else ""
    return f"no row has a label, none of {len(problems)} replies could be read{first}; see freeal preview"
