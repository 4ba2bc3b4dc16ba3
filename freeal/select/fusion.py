"""One distribution a row, from all who have spoken of it."""

from __future__ import annotations

import numpy as np

from freeal.types import Annotations, BoolArray, FloatArray, by_row

FLOOR = 1e-6


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


def freeal(annotations: Annotations, student: FloatArray, believed: BoolArray) -> FloatArray:
    """(n, k) the student's distribution on believed rows and where the LLM abstained, the LLM's on the rest."""
    by_student = believed | ~annotations.labelled
    return np.where(by_row(by_student, student), student, annotations.proba)
