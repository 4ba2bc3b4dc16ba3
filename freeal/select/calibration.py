"""Taking an LLM's taste for some labels out of its probabilities, without gold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from freeal.types import (
    NO_CALL,
    PROBABILITY,
    Annotations,
    Answers,
    BoolArray,
    FloatArray,
    IntArray,
    LoopState,
    answered,
    by_row,
    spoken,
)

SMOOTHING = 1.0
"""Rows' worth of an even split added for each class: a handful of rows moves little."""

DOUBT = 10.0
"""Rows a class at which half the bias of a later pass is used: few answers must not be bent to what was believed."""

FLOOR = 1e-6

EVENNESS = 0.7
"""Weight of the mean log share of the labels against the log of the variance explained; docs/log.md has the curve."""

STEPS = 200
"""Of the fixed point at most; it ends before where nothing changes any more."""

RIDGE = 3.0
"""Added to the squared singular values of the texts' vectors: about the strength of the linear student's."""

TINY = 1e-6

FEWEST = 10
"""Rows a class below which shares are not estimated; the pass is divided by its mean instead."""

LEAST_TRUST = 0.01
"""So much of a distribution is kept at least: which label it prefers must not get lost."""

TELLING = 20
"""Rows below which it cannot be told whether labels are told apart."""

WIDEST = (-3.0, 3.0)
"""Logarithms of the temperatures that are looked at."""

AGAIN = 0.9
"""Share of the rows of the first pass that a later one must have asked about, to be compared with it."""

MOST = 4000
"""Rows the shares are estimated from, spread over the pass: a sample of so many tells them well enough."""


def batch_bias(proba: FloatArray) -> FloatArray:
    """(k,) to add to log-probabilities: minus the log of the pool's mean distribution.

    Batch calibration (Zhou et al., 2024, arXiv 2309.17249, eq. 3): what the model says of a batch as a whole is
    its taste, and is divided out. It favours no class of its own accord, but it does not know of real skew.

    Args:
        proba: (a, k), no abstentions.
    """
    k = proba.shape[1]
    mean = (proba.sum(axis=0) + SMOOTHING) / (len(proba) + k * SMOOTHING)
    bias: FloatArray = -np.log(np.maximum(mean, FLOOR))
    return bias


def prior_bias(proba: FloatArray, prior: FloatArray) -> FloatArray:
    """(k,) to add to log-probabilities so that the mean distribution over the rows becomes `prior` (k,).

    The fixed point of b <- b + log prior - log mean(softmax(log p + b)); a class whose prior is zero is floored.
    """
    wanted = np.log(np.maximum(prior, 1e-4) / np.maximum(prior, 1e-4).sum())
    bias: FloatArray = np.zeros(proba.shape[1])
    for _ in range(STEPS):
        step = wanted - np.log(np.maximum(shifted(proba, bias).mean(axis=0), FLOOR))
        bias = bias + step
        if np.abs(step).max() < 1e-6:
            break
    centred: FloatArray = bias - bias.mean()
    return centred


def estimated_prior(
    proba: FloatArray, vectors: FloatArray, even: bool = True, taste: FloatArray | None = None
) -> FloatArray:
    """(k,) the shares of the labels, without gold: as they are best learned, and as the LLM's taste leaves them.

    The `learnable_prior` makes a rare label of two as frequent as the other, the more so the less texts tell of it. To
    divide out what the LLM says of texts that say nothing (contextual calibration, Zhao et al., ICML 2021, by words of
    the pool itself, Fei et al., ACL 2023) leaves it rare, but errs where an LLM knows labels by single words. So each
    has its say by what is told, squared: the LLM's by the `information` of its answers, the texts' by the share of the
    variance that they explain. Measured in docs/log.md.

    Args:
        proba: (m, k), no abstentions; vectors: (m, d) of the same texts, of length one.
        even: as for `learnable_prior`.
        taste: (b, k) what the LLM says of texts that say nothing; None if that is not known.
    """
    learned = learnable_prior(proba, vectors, even)
    told = None if taste is None else information(proba)
    if taste is None or told is None:
        return learned
    explained = Explained.by(vectors).share(shifted(proba, prior_bias(proba, learned)))
    weights = np.array([told, explained]) ** 2
    by_llm = weights[0] / weights.sum() if weights.any() else 0.0
    left = shifted(proba, batch_bias(taste)).mean(axis=0)
    shares: FloatArray = by_llm * left + (1.0 - by_llm) * learned
    return shares


def learnable_prior(proba: FloatArray, vectors: FloatArray, even: bool = True) -> FloatArray:
    """(k,) the shares of the labels under which they can best be learned from the texts: an estimate without gold.

    Which shift of the log-probabilities is right, an LLM's answers alone do not tell. But labels that a shift made
    wrong follow nothing in the texts: of a class that mere taste has filled, a student learns little. So the shift is
    taken for which a ridge regression on the texts' vectors explains, for rows that it has not seen, the most variance
    of the shifted distributions; the mean log share of the labels, times EVENNESS, keeps each of them in being.

    Args:
        proba: (m, k), no abstentions.
        vectors: (m, d) of the same texts, of length one.
        even: labels are as frequent as each other, as far as nothing else is known; else as frequent as the LLM has
            them: a "yes" among a row's many answers is mostly rarer than a "no".

    Returns:
        shares that add up to one. Where nothing can be learned of even ones, as of a rare label that they have filled
        with others, the search starts from those that are left when taste is divided out; where nothing can be learned
        of these either, they are the answer. Unless `even`, both begin with what the LLM says as it is.
    """
    from scipy.optimize import minimize

    k = proba.shape[1]
    explain = Explained.by(vectors)

    def objective(bias: FloatArray) -> tuple[float, FloatArray]:
        now = shifted(proba, bias)
        amount, slope = explain(now)
        mean = now.mean(axis=0)
        by_row = slope / amount + EVENNESS / (k * mean * len(now))
        by_bias = (now * by_row - now * (now * by_row).sum(axis=1, keepdims=True)).sum(axis=0)
        return -float(np.log(amount) + EVENNESS * np.log(mean).mean()), -by_bias

    starts = [prior_bias(proba, np.full(k, 1.0 / k)), batch_bias(proba), np.zeros(k)]
    found = starts[1] if even else starts[2]
    for start in starts if even else reversed(starts):
        if explain(shifted(proba, start))[0] > TINY:
            found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
            break
    best: FloatArray = shifted(proba, found).mean(axis=0)
    return best


@dataclass(frozen=True, slots=True)
class Explained:
    """How much of the variance of distributions texts explain, left-one-out, for many distributions of the same texts.

    `basis` (m, r) and `kept` (r,): the hat matrix of the ridge regression is basis · kept · basisᵀ; `scale` (m,) turns
    its residuals into those of a regression without the row (Golub, Heath and Wahba, 1979).
    """

    basis: FloatArray
    kept: FloatArray
    scale: FloatArray

    @classmethod
    def by(cls, vectors: FloatArray) -> Explained:
        """For texts with these vectors (m, d)."""
        centred = vectors.astype(np.float64) - vectors.mean(axis=0)
        design = np.concatenate([centred, np.ones((len(vectors), 1))], axis=1)
        basis, singular, _ = np.linalg.svd(design, full_matrices=False)
        kept = singular**2 / (singular**2 + RIDGE)
        return cls(basis, kept, 1.0 / np.maximum(1.0 - (basis**2) @ kept, TINY))

    def __call__(self, proba: FloatArray) -> tuple[float, FloatArray]:
        """Variance of `proba` (m, k) explained, a row, at least TINY; and its derivative by each entry."""
        apart = proba - proba.mean(axis=0)
        missed = self._residuals(proba) * self.scale[:, None]
        amount = float((apart**2).sum() - (missed**2).sum()) / len(proba)
        slope: FloatArray = 2.0 * (apart - self._residuals(missed * self.scale[:, None])) / len(proba)
        return (amount, slope) if amount > TINY else (TINY, np.zeros_like(slope))

    def share(self, proba: FloatArray) -> float:
        """Of the variance of `proba` (m, k), from 0 to 1; 0 where there is none."""
        variance = float(((proba - proba.mean(axis=0)) ** 2).sum()) / len(proba)
        return self(proba)[0] / variance if variance > TINY else 0.0

    def _residuals(self, values: FloatArray) -> FloatArray:
        left: FloatArray = values - self.basis @ (self.kept[:, None] * (self.basis.T @ values))
        return left


def information(first: FloatArray) -> float | None:
    """How far an LLM's first answers (n, k) tell the labels apart, from 0 to 1; None if they are too few to say.

    Of several decisions a row, (n, s, k), the mean of what the answers to each tell.

    The mutual information of row and label, after the taste for some labels was divided out, as a share of log k. Near
    zero the answers are alike for all texts, and whatever is learned from them is chance: on the MR, TREC and emotion
    sets a model of half a billion parameters has .25 to .41, on SUBJ, where it is right on half of the rows, .04.

    Example:
        >>> information(np.tile([0.7, 0.3], (100, 1)))
        0.0
    """
    if first.ndim == 3:
        told = [each for slot in range(first.shape[1]) if (each := information(first[:, slot])) is not None]
        return float(np.mean(told)) if told else None
    proba = first[~np.isnan(first[:, 0])].astype(np.float64)
    if len(proba) < TELLING:
        return None
    even = shifted(proba, batch_bias(proba))
    mean = even.mean(axis=0)
    gained = _entropy(mean[None, :])[0] - _entropy(even).mean()
    return round(max(0.0, float(gained / np.log(proba.shape[1]))), 6)


def _entropy(proba: FloatArray) -> FloatArray:
    """(m,) in nats."""
    entropy: FloatArray = -(proba * np.log(np.maximum(proba, 1e-12))).sum(axis=1)
    return entropy


def temperature(proba: FloatArray, classes: IntArray) -> float:
    """What to divide the logarithms of `proba` (m, k) by, so that they fit the `classes` (m,) best (Guo et al., 2017).

    `proba` has to come from who did not learn these rows; else it is taken for surer than it may be.
    """
    from scipy.optimize import minimize_scalar

    def cross_entropy(log_temperature: float) -> float:
        fitted = tempered(proba, float(np.exp(log_temperature)))
        return -float(np.log(np.maximum(fitted[np.arange(len(classes)), classes], FLOOR)).mean())

    return float(np.exp(minimize_scalar(cross_entropy, bounds=WIDEST, method="bounded").x))


def tempered(proba: FloatArray, by: float | FloatArray) -> FloatArray:
    """softmax(log `proba` / `by`): below 1 surer, above less sure; abstentions (NaN) stay abstentions.

    Of several decisions a row, (n, s, k), `by` may be (s, 1), one for each.
    """
    logits = np.log(np.maximum(proba.astype(np.float64), FLOOR)) / by
    return shifted(np.exp(logits - logits.max(axis=-1, keepdims=True)), np.zeros(proba.shape[-1]))


def shifted(proba: FloatArray, bias: FloatArray) -> FloatArray:
    """softmax(log `proba` + `bias`) of every distribution; abstentions (NaN) stay abstentions."""
    logits = np.log(np.maximum(proba, FLOOR)) + bias
    logits = logits - logits.max(axis=-1, keepdims=True)
    weights = np.exp(logits)
    normalised: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
    return normalised


@dataclass(frozen=True, slots=True)
class Correction:
    """What is done to every distribution of a pass that is more than a word.

    `bias` (k,) is added to its logarithms; then it keeps `trust` of itself, and even odds get the rest.

    Example:
        >>> sure = np.array([[0.9, 0.1]])
        >>> Correction(np.zeros(2), trust=0.25)(sure, np.array([True]))
        array([[0.6, 0.4]])
    """

    bias: FloatArray
    trust: float = 1.0

    def __call__(self, proba: FloatArray, scored: BoolArray) -> FloatArray:
        """(a, k) corrected where `scored` (a,); a mere word is left as it is, and an abstention (NaN) stays one."""
        kept = self.trust * shifted(proba, self.bias) + (1.0 - self.trust) / proba.shape[-1]
        return np.where(by_row(scored, proba), kept, proba)


@dataclass(frozen=True, slots=True)
class Corrections:
    """A correction for each of the s decisions of a row."""

    of: Sequence[Correction]

    def __call__(self, proba: FloatArray, scored: BoolArray) -> FloatArray:
        """(a, s, k) corrected decision by decision; where nothing is known of one, that stays so."""
        slots = [proba[:, slot] for slot in range(proba.shape[1])]
        each = [correct(slot, scored & answered(slot)) for slot, correct in zip(slots, self.of, strict=True)]
        return np.stack(each, axis=1)


@dataclass(frozen=True, slots=True)
class Calibrator:
    """What becomes of a pass of the LLM: calibrated, and joined to what it said before.

    kind: `none`; `batch` (the first pass is divided by its mean); `estimated` (it is brought to the shares of the
    labels, see `estimated_prior`); `prior` (it is brought to the stated shares). In all but the first, a later pass
    over some rows is brought to the mean of what is believed by then of those of them that had labels.
    passes: `latest` replaces what a row had; `average` takes the geometric mean of its passes since the second
    round: what was said before there were demonstrations from the pool is replaced in both, where there is another
    answer; a row, or one of its decisions, that gets none keeps what it had.
    """

    kind: Literal["none", "batch", "estimated", "prior"]
    passes: Literal["latest", "average"]
    prior: FloatArray | None = None
    vectors: Callable[[IntArray], FloatArray] | None = None
    """(m, d) of rows of the pool, of length one; for `estimated`."""
    taste: Callable[[], FloatArray | None] | None = None
    """(b, k) what the LLM says of texts that say nothing, for `estimated`; None where that is not known."""
    min_information: float = 0.0
    """For `estimated`: of a first pass that tells less, the labels stay and the sureness goes."""
    sober: bool = True
    """Whether a later pass over the rows of the first is made `no_surer` than that was."""
    shares: FloatArray | None = None
    """(k,) of the labels, for `estimated` in place of an estimate."""

    def __call__(self, state: LoopState, answers: Answers) -> Annotations:
        """The annotations after `answers`; a row that abstains now keeps what it had, as does each of its decisions."""
        before, given = state.annotations, spoken(answers.proba)
        labelled = by_row(before.labelled, state.posterior)
        believed = np.where(labelled, state.posterior, np.nan) if labelled.any() else state.posterior
        if self.sober and self.kind != "none" and _most_again(before.first, answers.rows):
            sober = no_surer(answers.proba, before.first[answers.rows], answers.scored)
            answers = replace(answers, proba=sober)
        plain = self if state.next_round == 0 else replace(self, taste=None)  # that of answers without demonstrations
        proba = plain.correction(answers, believed)(answers.proba, answers.scored)
        rows = answers.rows[given]
        joined, first = before.proba.copy(), before.first.copy()
        kept = before.proba[rows] if self.passes == "average" else np.full_like(proba[given], np.nan)
        kept[before.asked_in[rows] <= 0] = np.nan
        anew = answered(proba[given]) | ~answered(before.proba[rows])
        joined[rows] = np.where(anew[..., None], geometric_mean(kept, proba[given]), before.proba[rows])
        if state.next_round == 0:
            first[answers.rows] = answers.proba
        asked_in, problems = before.asked_in.copy(), before.problems.copy()
        asked = np.array([problem != NO_CALL for problem in answers.problems], bool)
        asked_in[answers.rows[asked]] = state.next_round
        told = asked | (before.asked_in[answers.rows] < 0)
        problems[answers.rows[told]] = np.array(answers.problems, object)[told]
        return Annotations(first.astype(PROBABILITY), joined.astype(PROBABILITY), asked_in, problems)

    def correction(self, answers: Answers, believed: FloatArray) -> Correction | Corrections:
        """What is done to the distributions of this pass; nothing where there is nothing to calibrate.

        Args:
            believed: (n, k) what is believed of the pool so far, NaN for rows of which that is nothing; (n, s, k) of
                several decisions a row, each of which is calibrated by itself.
        """
        if not answers.scored.any():
            return Correction(np.zeros(answers.proba.shape[-1]))
        if answers.proba.ndim == 3:
            slots = [answers.proba[:, slot] for slot in range(answers.proba.shape[1])]
            each = [replace(answers, proba=slot, scored=answers.scored & answered(slot)) for slot in slots]
            return Corrections([self._of_one(one, believed[:, slot], False) for slot, one in enumerate(each)])
        return self._of_one(answers, believed, True)

    def _of_one(self, answers: Answers, believed: FloatArray, alone: bool) -> Correction:
        """Of one decision, which is the one that a row has if it is `alone`."""
        usable = answers.scored & ~np.isnan(answers.proba[:, 0])
        proba, rows = answers.proba[usable].astype(np.float64), answers.rows[usable]
        if self.kind == "none" or not usable.any():
            return Correction(np.zeros(answers.proba.shape[1]))
        known = ~np.isnan(believed[rows, 0])
        if known.any():
            count, k = int(known.sum()), proba.shape[1]
            shares = believed[rows[known]].astype(np.float64).mean(axis=0)
            return Correction(prior_bias(proba[known], shares) * (count / (count + k * DOUBT)))
        return self._of_first(proba, rows, alone)

    def _of_first(self, proba: FloatArray, rows: IntArray, alone: bool) -> Correction:
        if self.prior is not None:
            return Correction(prior_bias(proba, self.prior))
        if self.kind == "estimated" and (told := information(proba)) is not None and told < self.min_information:
            return Correction(np.zeros(proba.shape[1]), max(told, LEAST_TRUST))
        if self.kind == "batch" or len(proba) < FEWEST * proba.shape[1]:
            return Correction(batch_bias(proba) if alone or self.kind == "batch" else np.zeros(proba.shape[1]))
        if self.shares is not None:
            return Correction(prior_bias(proba, self.shares))
        if self.vectors is None:
            return Correction(batch_bias(proba))
        sample = np.linspace(0, len(proba) - 1, min(len(proba), MOST)).astype(np.int64)
        taste = None if self.taste is None else self.taste()
        shares = estimated_prior(proba[sample], self.vectors(rows[sample]), alone, taste)
        return Correction(prior_bias(proba, shares))


def _most_again(first: FloatArray, rows: IntArray) -> bool:
    """Whether most rows of the first pass (n, k) are among `rows`: of doubtful ones alone any pass is surer."""
    told = spoken(first)
    return bool(told.any()) and told[rows].sum() >= AGAIN * told.sum()


def asked_again(annotations: Annotations) -> bool:
    """Whether a sober word stands for most rows of the first pass: they were asked about once more, and are enough."""
    enough = spoken(annotations.first).sum() >= FEWEST * annotations.first.shape[-1]
    return bool(enough) and _most_again(annotations.first, np.flatnonzero(annotations.asked_in > 0))


def no_surer(proba: FloatArray, before: FloatArray, scored: BoolArray) -> FloatArray:
    """A later pass tempered so that it is no surer, in the mean, than an earlier one `before` was of the same rows.

    Demonstrations make an LLM surer, whether or not they make it right more often: it repeats what it is shown (Zhao et
    al., ICML 2021). Nothing but gold tells how much of the sureness is deserved, so that none of it is believed; a pass
    that is less sure stays as it is. Both are compared at even shares of the labels: where one is liked, all is sure.
    Of several decisions a row each is tempered by itself. Fewer than FEWEST rows a label tell too little.

    Args:
        proba: (a, k), or (a, s, k), of the later pass; before: the same of the earlier one; NaN where it abstained.
        scored: (a,) which are more than a word; the others stay as they are.

    Example:
        >>> sure, unsure = np.eye(2).repeat(30, axis=0), np.where(np.eye(2).repeat(30, axis=0) > 0, 0.8, 0.2)
        >>> no_surer(0.96 * sure + 0.02, unsure, np.ones(60, bool))[0].round(3)
        array([0.8, 0.2])
    """
    if proba.ndim == 3:
        slots = [no_surer(proba[:, slot], before[:, slot], scored) for slot in range(proba.shape[1])]
        return np.stack(slots, axis=1)
    both = scored & answered(proba) & answered(before)
    if both.sum() < FEWEST * proba.shape[1]:
        return proba
    even = np.full(proba.shape[1], 1.0 / proba.shape[1])
    earlier, later = (shifted(each, prior_bias(each, even)) for each in (before[both], proba[both]))
    most = float(earlier.max(axis=1).mean())
    if later.max(axis=1).mean() <= most:
        return proba
    return np.where(by_row(scored, proba), tempered(proba, as_sure_as(most, later)), proba)


def as_sure_as(sureness: float, proba: FloatArray) -> float:
    """The temperature at which the best class of `proba` (m, k) has `sureness` in the mean, or the nearest allowed.

    Example:
        >>> round(as_sure_as(0.9, np.array([[0.75, 0.25]])), 3)
        0.5
    """
    from scipy.optimize import brentq

    def above(log_temperature: float) -> float:
        return float(tempered(proba, float(np.exp(log_temperature))).max(axis=1).mean()) - sureness

    coldest, warmest = WIDEST
    if above(coldest) <= 0.0:
        return float(np.exp(coldest))
    return float(np.exp(brentq(above, coldest, warmest) if above(warmest) < 0.0 else warmest))


def geometric_mean(before: FloatArray, now: FloatArray) -> FloatArray:
    """(m, k) the normalised geometric mean of two passes; where `before` is an abstention (NaN), `now`."""
    older = np.where(np.isnan(before), now, before)
    return shifted(np.sqrt(older * now), np.zeros(now.shape[-1]))
