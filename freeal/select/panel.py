"""Several readers of the same rows: how far each is to be trusted, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freeal.select.calibration import Correction, batch_bias, information
from freeal.types import PROBABILITY, Answers, BoolArray, FloatArray, IntArray, argmax

FEWEST_TO_VOTE = 3
"""Readers from which on their agreements tell how good each is; of two it cannot be told which one errs."""

STEPS = 50
LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class Pooling:
    """What is known of r readers: `biases` (r, k) take out each one's taste, `weights` (r,) add up to one."""

    biases: FloatArray
    weights: FloatArray


def learned(said: Sequence[Answers]) -> Pooling:
    """What a pass over the same rows tells of its readers; one that gives mere words has no taste to take out."""
    biases = np.stack([_bias(each) for each in said])
    return Pooling(biases, trust([_plain(each, bias) for each, bias in zip(said, biases, strict=True)]))


def pooled(said: Sequence[Answers], known: Pooling) -> Answers:
    """One answer a row.

    Each pass is first freed of its reader's taste for some labels, as far as it gave probabilities; then the
    distributions are multiplied, each to the power of its reader's weight (a geometric pool, Genest and Zidek, 1986).
    Who abstains on a row has no say there; where all do, the row abstains for the reason of the first. What a single
    reader says is left as it is.

    Args:
        said: what each reader says of the same rows, in the same order.
        known: of the readers, from these rows or from others.
    """
    if len(said) == 1:
        return said[0]
    plain = [_plain(each, bias) for each, bias in zip(said, known.biases, strict=True)]
    weights = known.weights
    spoke = np.stack([~np.isnan(proba[:, 0]) for proba in plain])
    anybody: BoolArray = spoke.max(axis=0)
    shares = weights[:, None] * spoke
    total = shares.sum(axis=0)
    shares = np.where(total > 0, shares / np.maximum(total, 1e-12), spoke / np.maximum(spoke.sum(axis=0), 1))
    logs = sum(
        share[:, None] * np.log(np.maximum(np.nan_to_num(proba, nan=1.0), 1e-6))
        for share, proba in zip(shares, plain, strict=True)
    )
    powers = np.exp(logs - np.max(logs, axis=1, keepdims=True))
    proba = np.where(anybody[:, None], powers / powers.sum(axis=1, keepdims=True), np.nan)
    scored: BoolArray = np.stack([each.scored for each in said]).max(axis=0)
    problems = tuple(None if some else first for some, first in zip(anybody, said[0].problems, strict=True))
    return Answers(said[0].rows, proba.astype(PROBABILITY), scored, problems)


def trust(passes: Sequence[FloatArray]) -> FloatArray:
    """(r,) how far each reader is trusted, without gold; adds up to one.

    Of three or more by how well each agrees with what the others come to: the accuracies of a model in which every
    reader errs by itself and evenly, found by expectation and maximisation (Dawid and Skene, 1979, with one parameter a
    reader), as log-odds beyond chance. Of two by what each tells of the labels, see `information`.

    Args:
        passes: of each reader (a, k) distributions, NaN where it abstains.
    """
    known = [information(proba) for proba in passes]
    if len(passes) < FEWEST_TO_VOTE:
        told = np.array([LEAST if amount is None else amount for amount in known])
    else:
        k = passes[0].shape[1]
        right = accuracies(np.stack([argmax(proba) for proba in passes]), k)
        told = np.log(right * (k - 1) / (1.0 - right))
    told = np.maximum(told, LEAST)
    shares: FloatArray = told / told.sum()
    return shares


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


def _bias(answers: Answers) -> FloatArray:
    """(k,) that divides the probabilities of a pass by their mean."""
    usable = answers.scored & ~np.isnan(answers.proba[:, 0])
    return batch_bias(answers.proba[usable].astype(np.float64)) if usable.any() else np.zeros(answers.proba.shape[1])


def _plain(answers: Answers, bias: FloatArray) -> FloatArray:
    """(a, k) what a pass says, its reader's taste taken out."""
    return Correction(bias)(answers.proba.astype(np.float64), answers.scored)
