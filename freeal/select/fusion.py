"""One distribution a row, from all who have spoken of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from freeal.config import FusionConfig
from freeal.select.calibration import FEWEST, as_sure_as, prior_bias, shifted, tempered
from freeal.tasks import Task
from freeal.types import Annotations, BoolArray, FloatArray, answered, argmax, by_row, spoken

FLOOR = 1e-6

Bound = Literal["none", "rows", "words"]
"""How a student is kept from overruling a better LLM: not at all, or by what it foretold of rows, or of words."""


def bound_of(fusion: FusionConfig, task: Task) -> Bound:
    """Where most is alike by nature, whoever says so agrees and may be sure: there entities alone tell."""
    if not fusion.modest:
        return "none"
    return "words" if task.alike_by_nature else "rows"


def log_linear(
    llm: FloatArray, student: FloatArray, llm_weight: float | FloatArray, student_weight: float | FloatArray
) -> FloatArray:
    """Proportional to llm**llm_weight * student**student_weight; where the LLM said nothing, the student's own.

    Probabilities are (n, k) or (n, s, k), the LLM's NaN where it abstains, and even in decisions that it left open;
    weights are numbers or, of several decisions a row, (s, 1).

    A geometric pool (Genest and Zidek, 1986): who is sure counts more, and nobody is overruled by who is unsure.

    Example:
        >>> log_linear(np.array([[0.9, 0.1]]), np.array([[0.4, 0.6]]), 0.5, 0.5).round(2)
        array([[0.71, 0.29]])
    """
    spoken = np.where(np.isnan(llm), 1.0, llm)
    weight = np.where(answered(llm)[..., None], student_weight, 1.0)
    logits = llm_weight * np.log(np.maximum(spoken, FLOOR)) + weight * np.log(np.maximum(student, FLOOR))
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    pooled: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
    return pooled


@dataclass(frozen=True)
class Say:
    """How LLM and student are pooled.

    Args:
        llm, student: their weights, () or, of several decisions a row, (s, 1).
        temperatures: of the student, (1,) or (s, 1), for `tempered`; None if it is taken at its word.
        words: whether decisions are about words, some of which the student does not read (see `unread`).
    """

    llm: FloatArray
    student: FloatArray
    temperatures: FloatArray | None = None
    words: bool = False

    def __call__(self, llm: FloatArray, student: FloatArray) -> FloatArray:
        """The pool of what is said of any rows, (n, k) each, or (n, s, k); of words nobody else read, the LLM's own."""
        if self.temperatures is not None:
            student = tempered(student, self.temperatures)
        found = log_linear(llm, student, self.llm, self.student)
        if not (self.words and self.llm.any()):
            return found
        return np.where((unread(student) & answered(llm))[..., None], llm, found)


def unread(student: FloatArray) -> BoolArray:
    """(n, s) words that a student of words, (n, s, k), does not read: of no other is it certain that they are O."""
    nothing: BoolArray = student[..., 0] == 1.0
    return nothing


def say(llm: FloatArray, student: FloatArray, weights: tuple[float, float], bound: Bound, words: bool = False) -> Say:
    """How the two are pooled, by what they said of the pool.

    A student of rows is tempered by `doubt`; then, of rows and of words, its share of the weights is no more than it
    has `foretold`: the LLM gains what it loses, if it is to have a say at all.

    Args:
        llm, student: of the pool, (n, k) or (n, s, k); the student of rows that it did not learn from.
        weights: of the LLM and of the student.
        words: whether the decisions are about words, some of which the student may not read.
    """
    temperatures = doubt(student, llm) if bound == "rows" else np.ones(1)
    doubted = (temperatures != 1.0).any()
    both, its = sum(weights), np.array(weights[1])
    if bound != "none" and weights[0]:
        heard = tempered(student, temperatures) if doubted else student
        its = np.minimum(its, both * foretold(heard, llm, bound))
    return Say(both - its, its, temperatures if doubted else None, words)


def pooled(
    llm: FloatArray,
    student: FloatArray,
    say: Say,
    shares: bool,
    pool: tuple[FloatArray, FloatArray] | None = None,
) -> FloatArray:
    """What LLM and student come to, as `log_linear`.

    Args:
        llm, student: of the rows wanted, (n, k) or (n, s, k).
        shares: classes become as frequent as the LLM has them, see `share_bias`.
        pool: LLM and student on the pool, if the rows wanted are others; of these nothing is estimated.
    """
    found = say(llm, student)
    if not shares:
        return found
    of_pool = found if pool is None else say(*pool)
    return at_shares(found, llm, share_bias(of_pool, llm if pool is None else pool[0]))


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
    told = answered(llm)
    if told.sum() < FEWEST * student.shape[1]:
        return np.ones(1)
    agreed = float((argmax(student[told]) == argmax(llm[told])).mean())
    if student[told].max(axis=1).mean() <= agreed:
        return np.ones(1)
    return np.array([as_sure_as(agreed, student[told])])


def foretold(student: FloatArray, llm: FloatArray, bound: Bound) -> FloatArray:
    """How much of what the LLM says a student foretells, beyond the shares of its labels.

    1 - KL(llm, student) / KL(llm, shares), from 0 to 1: the R² of Cameron and Windmeijer (J. Econometrics 77, 1997).
    Who learned from few rows is sure of what it does not know, and foretells less than the shares. Of words, each
    counts by the LLM's doubt that it is O: by saying O alone a student would foretell most of them. What the LLM was
    asked in vain or not asked at all, where it is even, does not count, nor do words that a student does not read. Nor
    is a student blamed for being surer than the LLM ever is: a mere word has .9 by convention.

    Args:
        student: (n, k), or (n, s, k), of rows that it did not learn from; of words, O comes first, and is certain of
            those it does not read.
        llm: as wide; NaN where it abstained.

    Returns:
        (), or of several decisions a row (s, 1); 1 where there is nothing to foretell: no answer, or all alike.

    Example:
        >>> llm = np.array([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
        >>> float(foretold(llm, llm, "words")), float(foretold(llm[:, [1, 0, 2]], llm, "words"))
        (1.0, 0.0)
    """
    if student.ndim == 3 and bound == "rows":
        return np.stack([foretold(student[:, slot], llm[:, slot], bound) for slot in range(llm.shape[1])])[:, None]
    told = spoken(llm)
    theirs, its = (each[told].reshape(-1, each.shape[-1]) for each in (llm, student))
    counts = 1.0 - theirs[:, 0] if bound == "words" else np.ones(len(theirs))
    some = (counts > FLOOR) & answered(theirs)
    if bound == "words":
        some &= ~unread(its)
    theirs, its, counts = theirs[some].astype(np.float64), its[some].astype(np.float64), counts[some, None]
    if not len(theirs):
        return np.array(1.0)
    shares = np.log(np.maximum((counts * theirs).sum(axis=0) / counts.sum(), FLOOR))
    words = np.log(np.maximum(theirs, FLOOR))
    its = _at_most(its, float(theirs.max()))
    beyond = float((counts * theirs * (words - shares)).sum())
    if beyond <= FLOOR * counts.sum():
        return np.array(1.0)
    unforeseen = (counts * theirs * (words - np.log(np.maximum(its, FLOOR)))).sum()
    return np.array(np.clip(1.0 - unforeseen / beyond, 0.0, 1.0))


def _at_most(proba: FloatArray, sureness: float) -> FloatArray:
    """`proba` (m, k), each with so much of even odds that no class has more than `sureness`."""
    even, most = 1.0 / proba.shape[1], proba.max(axis=1, keepdims=True)
    kept = (sureness - even) / np.maximum(most - even, FLOOR)
    return np.where(most > sureness, even + kept * (proba - even), proba)


def share_bias(pooled: FloatArray, llm: FloatArray) -> FloatArray:
    """(k,) to add to the log-probabilities of pooled classes: each is then as frequent, in the mean, as the LLM has it.

    Where two voices do not mark the same words, their geometric mean marks neither's, and fewer than either: what is
    rare becomes rarer. How frequent it is was settled when the LLM's answers were calibrated. Words of which the LLM's
    own word stands were not pooled, and count for nothing.

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
    in_doubt &= answered(theirs) & (ours != theirs).any(axis=1)
    if not in_doubt.any():
        return np.zeros(pooled.shape[-1])
    return prior_bias(ours[in_doubt], theirs[in_doubt].mean(axis=0))


def at_shares(pooled: FloatArray, llm: FloatArray, bias: FloatArray) -> FloatArray:
    """`pooled` (n, s, k) with `bias` (k,) added to its log-probabilities, where the LLM spoke and was pooled."""
    as_it_is = np.isnan(llm[..., :1]) | (pooled == llm).all(axis=-1, keepdims=True)
    return np.where(as_it_is, pooled, shifted(pooled, bias))


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
    told = answered(llm)
    if told.sum() < FEWEST * pooled.shape[1]:
        return pooled
    least = float(llm[told].max(axis=1).mean())
    if pooled[told].max(axis=1).mean() >= least:
        return pooled
    return np.where(by_row(told, pooled), tempered(pooled, as_sure_as(least, pooled[told])), pooled)


def freeal(annotations: Annotations, student: FloatArray, believed: BoolArray) -> FloatArray:
    """(n, k) the student's distribution on believed rows and where the LLM said nothing, the LLM's on the rest."""
    by_student = by_row(believed, student) | ~answered(annotations.proba)[..., None]
    return np.where(by_student, student, annotations.proba)
