"""Several readers of the same rows: how far each is to be trusted, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from freeal.select.calibration import Correction, as_sure_as, batch_bias, information, tempered
from freeal.types import PROBABILITY, Answers, BoolArray, FloatArray, IntArray, argmax

FEWEST_TO_VOTE = 3
"""Readers from which on their agreements tell how good each is; of two it cannot be told which one errs."""

STEPS = 50
LEAST = 1e-3

TELLS_NOTHING = 0.02
"""Information below which a reader says much the same of all rows, see `information`."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """What is known of r readers: `biases` (r, k) take out each one's taste, `weights` (r,) add up to one.

    `voices` (r,): readers with the same number are one LLM asked in several ways; they weigh alike. `temperatures`
    (r,) take out what each is surer than right, `sharpness` what their pool is less sure than the best of them right.
    """

    biases: FloatArray
    weights: FloatArray
    voices: IntArray
    temperatures: FloatArray
    sharpness: float = 1.0


def learned(said: Sequence[Answers], voices: Sequence[int] | None = None, calibrated: bool = True) -> Pooling:
    """What a pass over the same rows tells of its readers; one that gives mere words has no taste to take out.

    Paraphrases of one question, put to one LLM, err alike: that they agree is no evidence. So those of one voice are
    pooled evenly first, each voice is trusted as `trust` says, and its readers share its weight. One that is surer
    than it is right, as far as the others can tell, is made less sure: in a product the surest has the last word. Their
    pool is made as sure, at least, as the best of them is right: voices that each know something of their own doubt too
    much together (Ranjan and Gneiting, JRSS B 2010).

    Args:
        said: what each of r readers says of the same rows, in the same order.
        voices: (r,) the number of each reader's LLM; each is a voice of its own, if left out.
        calibrated: whether to take the readers' tastes out; otherwise what they say is pooled as it is.
    """
    of = np.arange(len(said)) if voices is None else np.asarray(voices)
    biases = np.stack([_bias(each) if calibrated else np.zeros(each.proba.shape[1]) for each in said])
    plain = np.stack([freed(each, bias) for each, bias in zip(said, biases, strict=True)])
    names, place, count = np.unique(of, return_inverse=True, return_counts=True)
    together = [_geometric(plain[of == voice], np.ones((of == voice).sum())[:, None]) for voice in names]
    weights, right = trust(together, words=not any(each.scored.any() for each in said))
    temperatures = np.array([_temperature(*each) for each in zip(together, right, strict=True)])
    known = Pooling(biases, (weights / count)[place], of, temperatures[place])
    best = max((share for share in right if share is not None), default=None)
    if best is None:
        return known
    proba = _together(said, known)
    told = proba[~np.isnan(proba[:, 0])]
    return known if told.max(axis=1).mean() >= best else replace(known, sharpness=as_sure_as(best, told))


def _temperature(proba: FloatArray, right: float | None) -> float:
    """At which a voice is as sure, in the mean, as it is `right`; one, if it is no surer or that is not known."""
    told = proba[~np.isnan(proba[:, 0])]
    if right is None or not len(told) or told.max(axis=1).mean() <= right:
        return 1.0
    return as_sure_as(right, told)


def pooled(said: Sequence[Answers], known: Pooling) -> Answers:
    """One answer a row.

    Each pass is first `freed` of its reader's taste for some labels, as far as it gave probabilities, and tempered;
    then the distributions are multiplied, each to the power of its reader's weight (a geometric pool, Genest and Zidek,
    1986). Who abstains on a row has no say there, and leaves its weight to the other readers of its voice; where all
    do, the row abstains for the reason of the first. What a single reader says is left as it is.

    Args:
        said: what each reader says of the same rows, in the same order.
        known: of the readers, from these rows or from others.
    """
    if len(said) == 1:
        return said[0]
    proba = tempered(_together(said, known), known.sharpness)
    anybody: BoolArray = ~np.isnan(proba[:, 0])
    scored: BoolArray = np.stack([each.scored for each in said]).max(axis=0)
    problems = tuple(None if some else first for some, first in zip(anybody, said[0].problems, strict=True))
    return Answers(said[0].rows, proba.astype(PROBABILITY), scored, problems)


def _together(said: Sequence[Answers], known: Pooling) -> FloatArray:
    """(a, k) the product of what each reader says, as `pooled` tells; NaN where all abstain."""
    each = zip(said, known.biases, known.temperatures, strict=True)
    plain = np.stack([tempered(freed(answers, bias), by) for answers, bias, by in each])
    return _geometric(plain, _shares(~np.isnan(plain[:, :, 0]), known))


def freed(answers: Answers, bias: FloatArray) -> FloatArray:
    """(a, k) what a pass says, its reader's taste taken out; mere words as they are."""
    return Correction(bias)(answers.proba.astype(np.float64), answers.scored)


def trust(passes: Sequence[FloatArray], words: bool = False) -> tuple[FloatArray, list[float | None]]:
    """(r,) how far each reader is trusted, without gold, which adds up to one; and how often it is right, if known.

    Of three or more by how well each agrees with what the others come to: the accuracies of a model in which every
    reader errs by itself and evenly, found by expectation and maximisation (Dawid and Skene, 1979, with one parameter a
    reader), as log-odds beyond chance. Of two by what each tells of the labels, see `information`; if both say mere
    words, that is chance, and the first is believed where they differ. Readers that tell nothing are not among the
    three: those that always say the same agree perfectly, and have hardly a word.

    Args:
        passes: of each reader (a, k) distributions, NaN where it abstains.
        words: they stand for mere words, all as sure as each other.
    """
    known = [information(proba) for proba in passes]
    telling, told = _telling(known), np.full(len(passes), LEAST)
    right: list[float | None] = [None] * len(passes)
    if words and len(passes) == FEWEST_TO_VOTE - 1:
        told[:] = 1.0, 1.0 - LEAST
    elif len(telling) < FEWEST_TO_VOTE:
        told[telling] = [known[place] or LEAST for place in telling]
    else:
        k = passes[0].shape[1]
        found = accuracies(np.stack([argmax(passes[place]) for place in telling]), k)
        told[telling] = np.log(found * (k - 1) / (1.0 - found))
        for place, share in zip(telling, found, strict=True):
            right[place] = float(share)
    told = np.maximum(told, LEAST)
    return told / told.sum(), right


def _telling(known: Sequence[float | None]) -> list[int]:
    """Places of the readers that tell the labels apart, as far as that is `known`; of fewer than may vote, all."""
    if len(known) < FEWEST_TO_VOTE:
        return list(range(len(known)))
    return [place for place, amount in enumerate(known) if amount is None or amount >= TELLS_NOTHING]


def accuracies(labels: IntArray, k: int) -> FloatArray:
    """(r,) share of right labels of each of r readers, `labels` (r, a) with -1 for abstentions; in [1/k, .99].

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.integers(0, 3, 2000)
        >>> wrong = (truth + rng.integers(1, 3, (3, 2000))) % 3
        >>> said = np.where(rng.random((3, 2000)) < np.array([[0.9], [0.7], [0.6]]), truth, wrong)
        >>> accuracies(said, 3).round(1).tolist()
        [0.9, 0.7, 0.6]
    """
    votes = np.eye(k)[np.maximum(labels, 0)] * (labels >= 0)[:, :, None]
    right = np.full(len(labels), 0.7)
    for _ in range(STEPS):
        odds = np.log(right * (k - 1) / (1.0 - right))
        truth = np.exp((odds[:, None, None] * votes).sum(axis=0))
        truth /= truth.sum(axis=1, keepdims=True)
        agreed = (votes * truth).sum(axis=(1, 2)) / np.maximum(votes.sum(axis=(1, 2)), 1.0)
        right = np.clip(agreed, 1.0 / k, 0.99)
    return right


def _shares(spoke: BoolArray, known: Pooling) -> FloatArray:
    """(r, a) the weight of each reader on each row: that of its voice, shared among those of it that spoke."""
    same = known.voices[:, None] == known.voices
    shares: FloatArray = (same @ known.weights)[:, None] * spoke / np.maximum(same @ spoke.astype(np.int64), 1)
    return shares


def _geometric(passes: FloatArray, shares: FloatArray) -> FloatArray:
    """(a, k) the weighted geometric mean of `passes` (r, a, k), row by row; NaN where all abstain.

    Args:
        shares: (r, a), or (r, 1) for all rows; where those that speak have none, they count alike.
    """
    spoke = ~np.isnan(passes[:, :, 0])
    shares = shares * spoke
    total = shares.sum(axis=0)
    shares = np.where(total > 0, shares / np.maximum(total, 1e-12), spoke / np.maximum(spoke.sum(axis=0), 1))
    logs = (shares[:, :, None] * np.log(np.maximum(np.nan_to_num(passes, nan=1.0), 1e-6))).sum(axis=0)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    anybody: BoolArray = spoke.max(axis=0)
    proba: FloatArray = np.where(anybody[:, None], powers / powers.sum(axis=1, keepdims=True), np.nan)
    return proba


def _bias(answers: Answers) -> FloatArray:
    """(k,) that divides the probabilities of a pass by their mean."""
    usable = answers.scored & ~np.isnan(answers.proba[:, 0])
    return batch_bias(answers.proba[usable].astype(np.float64)) if usable.any() else np.zeros(answers.proba.shape[1])
