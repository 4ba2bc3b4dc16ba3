"""What a student minimises: pure functions on tensors, randomness from a generator handed in.

Sizes: `b` rows in a batch, `k` classes, `d` features. Targets are distributions (b, k), or, where s labels are
decided apart, (b, s, 2). A mean over no rows is zero, never NaN: FreeAL's own code divides by the number of clean
rows, so that a batch without one spoils every weight of the student.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ENTITY_SHARE = 0.5
"""Weight of the entity words of a batch where words are labelled; the words labelled O have the rest."""


@dataclass(frozen=True, slots=True)
class JointReading:
    """What one forward pass over b texts, or b words of texts, and their second wordings gave."""

    features: Tensor
    """(b, d) of the texts: the input of the last layer."""
    logits: Tensor
    """(b, k) of the texts."""
    augmented_logits: Tensor
    """(b, k) of the second wordings."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """Features (b, d) and targets (b, k), each a blend of two rows."""

    features: Tensor
    targets: Tensor


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(b,) cross-entropy in nats of `logits` (b, k) under the distributions `targets` (b, k); (b, s) of (b, s, k).

    It is linear in the targets: a row scaled by a weight counts by that weight.
    """
    return -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def plain_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of the soft cross-entropy, in a row that of its decisions.

    Args:
        logits: (b, k), or (b, s, k).
        targets: as wide.
        weights: (b,) by which each row counts, or (b, s), each decision.
    """
    losses = soft_cross_entropy(logits, targets)
    counted = losses * (weights if weights.ndim == losses.ndim else weights[:, None])
    return _mean(counted if counted.ndim == 1 else counted.mean(dim=-1))


def no_and_yes(logits: Tensor) -> Tensor:
    """(b, s, 2) logits of "no" and "yes", for which softmax and cross-entropy are sigmoid and binary cross-entropy.

    Args:
        logits: (b, s), one a label.
    """
    return torch.stack([torch.zeros_like(logits), logits], dim=-1)


def tagging_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of w words, those labelled O and those labelled as entity each as a mean over their own number.

    Most words are O: in one mean over all they drown the others. ENTITY_SHARE is the weight of the entity words.

    Args:
        logits: (w, k), the class O first.
        targets: (w, k); the most probable class says which a word is.
        weights: (w,) by which each word counts.
    """
    return _mean(weights * evenly(targets) * soft_cross_entropy(logits, targets))


def robust_tagging_loss(
    first: Tensor, second: Tensor, targets: Tensor, weights: Tensor, trust: Tensor, extra: float, temperature: float
) -> Tensor:
    """Cross-entropy of w words as far as their labels are trusted, consistency of two readings as far as they are not.

    Words labelled O and those labelled as entity weigh as in `tagging_loss`, which this is where all are trusted. The
    readings differ by dropout alone (in the manner of R-Drop, Liang et al., NeurIPS 2021).

    Args:
        first, second: (w, k) logits of either reading, the class O first.
        targets: (w, k); the most probable class says which a word is.
        weights: (w,) by which each word counts.
        trust: (w,) P(label is right) in [0, 1].
        extra: weight of the consistency, see `ramp`.
        temperature: sharpening of the consistency targets.
    """
    taught = 0.5 * (soft_cross_entropy(first, targets) + soft_cross_entropy(second, targets))
    apart = consistency(first, second, temperature)
    return _mean(weights * evenly(targets) * (trust * taught + extra * (1.0 - trust) * apart))


def evenly(targets: Tensor) -> Tensor:
    """(w,) weights that give the entity words ENTITY_SHARE of a mean over all words, and the others the rest.

    Args:
        targets: (w, k), the class O first; the most probable class says which a word is.
    """
    entity = targets.argmax(dim=-1) > 0
    of_entities, of_others = int(entity.sum()), int((~entity).sum())
    ours, theirs = ENTITY_SHARE / max(of_entities, 1), (1.0 - ENTITY_SHARE) / max(of_others, 1)
    return len(targets) * torch.where(entity, ours, theirs)


def sharpen(proba: Tensor, temperature: float) -> Tensor:
    """Distributions (b, k) raised to 1/temperature and normalised; below one, the sure become surer."""
    return torch.softmax(proba.clamp_min(torch.finfo(proba.dtype).tiny).log() / temperature, dim=-1)


def refined(targets: Tensor, logits: Tensor, share: float, temperature: float) -> Tensor:
    """`targets` (b, k), or (b, s, k), with a `share` of what the student says: its sharpened word among the candidates.

    The candidates of a row are the labels that its target gives a probability at all: the student chooses among what
    the LLM held possible, and more freely the firmer it is (in the manner of CanDist, arXiv 2506.03857, sec. 4).

    Args:
        logits: of the student as it is now, as wide as the targets.
        share: 0 leaves the targets as they are, 1 leaves the choice to the student.
    """
    own = sharpen(torch.softmax(logits.float(), dim=-1), temperature) * (targets > 0)
    own = own / own.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(own.dtype).tiny)
    return (1.0 - share) * targets + share * own


def mixup(features: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> Mixed:
    """Blend each row with another of the batch, itself the larger part (Zhang et al., ICLR 2018; FreeAL, sec. 3.3).

    One share λ ~ Beta(alpha, alpha) for the batch, max(λ, 1-λ) as in DivideMix (ICLR 2020), and one permutation.

    Args:
        features: (b, d), b may be zero.
        targets: (b, k).
        alpha: above zero; FreeAL uses 4.
        generator: on the CPU, wherever the features are.
    """
    share = _beta(alpha, generator)
    share = max(share, 1.0 - share)
    other = torch.randperm(len(features), generator=generator).to(features.device)
    return Mixed(
        share * features + (1.0 - share) * features[other],
        share * targets + (1.0 - share) * targets[other],
    )


def consistency(logits: Tensor, augmented_logits: Tensor, temperature: float) -> Tensor:
    """(b,) how far the readings of two wordings are apart: ½·KL(aug‖text) + ½·KL(text‖aug).

    The first of each pair is a target: sharpened, and without a gradient.
    """
    text = sharpen(torch.softmax(logits.detach(), dim=-1), temperature)
    augmented = sharpen(torch.softmax(augmented_logits.detach(), dim=-1), temperature)
    return 0.5 * _kl(augmented, logits) + 0.5 * _kl(text, augmented_logits)


def ramp(epoch: float, ramp_epochs: float) -> float:
    """Weight of FreeAL's extra terms: rises from zero to one in the first `ramp_epochs` (FreeAL: 10)."""
    return min(epoch / ramp_epochs, 1.0)


def freeal_loss(
    read: JointReading,
    targets: Tensor,
    weights: Tensor,
    clean: Tensor,
    head: Callable[[Tensor], Tensor],
    extra: float,
    alpha: float,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """CE(clean) + extra · [mixup CE(clean) + CE(second wording, clean) + consistency(not clean)].

    Xiao et al., FreeAL, EMNLP 2023, sec. 3.3. Each term is a mean over its own rows; FreeAL's code
    sums the consistency instead, which ties its weight to the batch size.

    Args:
        read: what the student made of the batch.
        targets: (b, k) given distributions.
        weights: (b,) by which each row counts.
        clean: (b,) bool, rows whose target is believed; none, or all, is fine.
        head: the last layer, (b, d) -> (b, k).
        extra: weight of the bracket, see `ramp`.
        alpha: of the mixup's Beta distribution.
        temperature: sharpening of the consistency targets; FreeAL uses 0.85.
        generator: for the mixup.
    """
    scaled = weights[clean, None] * targets[clean]
    mixed = mixup(read.features[clean], scaled, alpha, generator)
    apart = consistency(read.logits[~clean], read.augmented_logits[~clean], temperature)
    supervised = _mean(soft_cross_entropy(read.logits[clean], scaled))
    return supervised + extra * (
        _mean(soft_cross_entropy(head(mixed.features), mixed.targets))
        + _mean(soft_cross_entropy(read.augmented_logits[clean], scaled))
        + _mean(weights[~clean] * apart)
    )


def _kl(target: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(logits, dim=-1), target, reduction="none").sum(dim=-1)


def _mean(losses: Tensor) -> Tensor:
    """The mean of (b,), zero where b is zero."""
    return losses.sum() / max(len(losses), 1)


def _beta(alpha: float, generator: torch.Generator) -> float:
    # torch samples Beta from the global state only, so NumPy does it, seeded from the generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))
