"""One distribution a row, from all who have spoken of it."""

from __future__ import annotations

import numpy as np

from freeal.config import FusionConfig
from freeal.select.calibration import FEWEST, as_sure_as, prior_bias, shifted, tempered
from freeal.tasks import Task
from freeal.types import Annotations, BoolArray, FloatArray, argmax, by_row, spoken

FLOOR = 1e-6


def tempers_student(fusion: FusionConfig, task: Task) -> bool:
    """Whether a student is tempered that is surer than it agrees: not where all is alike by nature, and so agrees."""
    return fusion.modest and not task.alike_by_nature


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


def pooled(
    llm: FloatArray,
    student: FloatArray,
    weights: tuple[float, float],
    modest: bool,
    shares: bool,
    pool: tuple[FloatArray, FloatArray] | None = None,
) -> FloatArray:
    """What LLM and student come to, as `log_linear`, with what their words about the pool tell of the two.

    Args:
        llm, student: of the rows wanted, (n, k) or (n, s, k).
        weights: of the LLM and of the student.
        modest: the student is tempered by `doubt` before it has its say.
        shares: classes become as frequent as the LLM has them, see `share_bias`.
        pool: LLM and student on the pool, if the rows wanted are others; of these nothing is estimated.
    """
    theirs, its = pool or (llm, student)
    if modest:
        temperatures = doubt(its, theirs)
        student, its = tempered(student, temperatures), tempered(its, temperatures)
    found = log_linear(llm, student, *weights)
    if not shares:
        return found
    of_pool = found if pool is None else log_linear(theirs, its, *weights)
    return at_shares(found, llm, share_bias(of_pool, theirs))


def doubt(student: FloatArray, llm: FloatArray) -> FloatArray:
    """The temperature, one or above, at which the student is as sure, in the mean, as it agrees with the LLM's labels.

    They are what it was taught: who says .9 and foretells them in four of five rows is too sure of himself, and would
    overrule a better LLM. One that is less sure than it agrees stays as it is: agreement proves nothing.

    Args:
        student: (n, k), or (n, s, k), of rows that it did not learn from; llm: as wide, NaN where it abstained.

    Returns:
        (1,), or (s, 1), for `tempered`; ones where fewer than FEWEST rows a label are there to tell by.

    Example:
        >>> sure = np.tile([0.9, 0.1], (50, 1))
        >>> tempered(sure, doubt(sure, np.eye(2)[np.arange(50) % 5 // 4]))[0].round(3)
        array([0.8, 0.2])
    """
    if student.ndim == 3:
        return np.stack([doubt(student[:, slot], llm[:, slot]) for slot in range(student.shape[1])])
    told = spoken(llm)
    if told.sum() < FEWEST * student.shape[1]:
        return np.ones(1)
    agreed = float((argmax(student[told]) == argmax(llm[told])).mean())
    if student[told].max(axis=1).mean() <= agreed:
        return np.ones(1)
    return np.array([as_sure_as(agreed, student[told])])


def share_bias(pooled: FloatArray, llm: FloatArray) -> FloatArray:
    """(k,) to add to the log-probabilities of pooled classes: each is then as frequent, in the mean, as the LLM has it.

    Where two voices do not mark the same words, their geometric mean marks neither's, and fewer than either: what is
    rare becomes rarer. How frequent it is was settled when the LLM's answers were calibrated.

    Args:
        pooled: (n, s, k); llm: as wide, NaN where it abstained.

    Returns:
        zeros where no word is in doubt.

    Example:
        >>> llm, student = np.array([[[0.4, 0.6], [0.9, 0.1]]]), np.array([[[0.9, 0.1], [0.4, 0.6]]])
        >>> pooled = log_linear(llm, student, 0.5, 0.5)
        >>> pooled[0, 0].round(2), at_shares(pooled, llm, share_bias(pooled, llm))[0, 0].round(2)
        (array([0.71, 0.29]), array([0.65, 0.35]))
    """
    told = spoken(llm)
    ours, theirs = (each[told].reshape(-1, each.shape[-1]).astype(np.float64) for each in (pooled, llm))
    in_doubt = np.minimum(ours.max(axis=1), theirs.max(axis=1)) < 1.0 - FLOOR
    if not in_doubt.any():
        return np.zeros(pooled.shape[-1])
    return prior_bias(ours[in_doubt], theirs[in_doubt].mean(axis=0))


def at_shares(pooled: FloatArray, llm: FloatArray, bias: FloatArray) -> FloatArray:
    """`pooled` (n, s, k) with `bias` (k,) added to its log-probabilities in the rows that the LLM spoke of."""
    return np.where(np.isnan(llm[..., :1]), pooled, shifted(pooled, bias))


def sharpened(pooled: FloatArray, llm: FloatArray) -> FloatArray:
    """The pool of two voices, as sure in the mean as the LLM is alone; one that is surer stays as it is.

    Who pools two forecasts that each know something of their own gets one that is less sure than it might be (Ranjan
    and Gneiting, JRSS B 2010; Satopää et al., Int. J. Forecasting 2014): right more often than the LLM, it doubts more.
    No label changes. Of several decisions a row each is sharpened by itself; rows without a word of the LLM stay as
    they are, and so do all where fewer than FEWEST rows a label have one.

    Args:
        pooled: (n, k), or (n, s, k).
        llm: as wide; NaN where it abstained. What it says must be no surer than it may be: see `no_surer`.

    Example:
        >>> sharpened(np.tile([0.75, 0.25], (20, 1)), np.tile([0.9, 0.1], (20, 1)))[0].round(3)
        array([0.9, 0.1])
    """
    if pooled.ndim == 3:
        return np.stack([sharpened(pooled[:, slot], llm[:, slot]) for slot in range(pooled.shape[1])], axis=1)
    told = spoken(llm)
    if told.sum() < FEWEST * pooled.shape[1]:
        return pooled
    least = float(llm[told].max(axis=1).mean())
    if pooled[told].max(axis=1).mean() >= least:
        return pooled
    return np.where(by_row(told, pooled), tempered(pooled, as_sure_as(least, pooled[told])), pooled)


def freeal(annotations: Annotations, student: FloatArray, believed: BoolArray) -> FloatArray:
    """(n, k) the student's distribution on believed rows and where the LLM abstained, the LLM's on the rest."""
    by_student = believed | ~annotations.labelled
    return np.where(by_row(by_student, student), student, annotations.proba)
