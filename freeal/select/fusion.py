"""One distribution a row, from all who have spoken of it."""

from __future__ import annotations

import numpy as np

from freeal.select.calibration import temperature
from freeal.types import Annotations, BoolArray, FloatArray, by_row

FLOOR = 1e-6

FEWEST = 50
"""Labels below which a student's weight is left as it is."""

MOST = 4.0
"""Times by which the weight of a student grows or shrinks at most."""


def log_linear(llm: FloatArray, student: FloatArray, llm_weight: float, student_weight: float) -> FloatArray:
    """Proportional to llm**llm_weight * student**student_weight; where the LLM abstains, the student's own.

    All are (n, k) or (n, s, k).

    A geometric pool (Genest and Zidek, 1986): who is sure counts more, and nobody is overruled by who is unsure.

    Example:
        >>> log_linear(np.array([[0.9, 0.1]]), np.array([[0.4, 0.6]]), 0.5, 0.5).round(2)
        array([[0.71, 0.29]])
    """
    spoken = np.where(np.isnan(llm), 1.0, llm)
    alone = np.isnan(llm[..., :1])
    weight = np.where(alone, 1.0, student_weight)
    logits = llm_weight * np.log(np.maximum(spoken, FLOOR)) + weight * np.log(np.maximum(student, FLOOR))
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    pooled: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
    return pooled


def sureness(annotations: Annotations, student: FloatArray) -> float:
    """What to multiply the weight of a student by that has not seen the rows it speaks of: learned without gold.

    One over the temperature at which its word (n, k) foretells the LLM's labels best (Guo et al., 2017, on the only
    labels there are): who is less sure of them than it might be counts for more, who is too sure for less. What LLM and
    student have wrong alike makes it too much, and a mean of two who both have some of the truth is too little.

    Example:
        >>> llm = np.repeat(np.eye(2), 50, axis=0)
        >>> said = Annotations(llm, llm, np.zeros(100, np.int16), np.full(100, None, object))
        >>> modest = np.where(llm > 0, 0.6, 0.4)
        >>> sureness(said, modest)
        4.0
    """
    told = annotations.labelled
    if told.sum() < FEWEST:
        return 1.0
    by = temperature(student[told], annotations.labels[told])
    return float(np.clip(round(1.0 / by, 4), 1.0 / MOST, MOST))


def freeal(annotations: Annotations, student: FloatArray, believed: BoolArray) -> FloatArray:
    """(n, k) the student's distribution on believed rows and where the LLM abstained, the LLM's on the rest."""
    by_student = believed | ~annotations.labelled
    return np.where(by_row(by_student, student), student, annotations.proba)
