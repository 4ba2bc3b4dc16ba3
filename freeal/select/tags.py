"""How easy the words of texts were to learn. Sizes as in `tasks/tags.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from freeal.select.filters import small_loss_gmm
from freeal.types import PROBABILITY, BoolArray, CleanSplit, FloatArray, IntArray


def loss_of_texts(losses: FloatArray, entity: BoolArray, read: BoolArray) -> FloatArray:
    """(n,) the mean loss of a text's entity words and that of its other words, half and half.

    A mean over all its words would be that of the words outside, which are easy and many. A text that has only words
    of one sort gives their mean, a text without a word zero.

    Args:
        losses: (n, s) in nats of each word under its given tag.
        entity: (n, s) words whose given tag is not O.
        read: (n, s) words that count.
    """
    means = [_mean_where(losses, read & entity), _mean_where(losses, read & ~entity)]
    sorts = sum(found.astype(np.int64) for _, found in means)
    total = sum(np.where(found, mean, 0.0) for mean, found in means)
    of_texts: FloatArray = (total / np.maximum(sorts, 1)).astype(PROBABILITY)
    return of_texts


def _mean_where(losses: FloatArray, mask: BoolArray) -> tuple[FloatArray, BoolArray]:
    count = mask.sum(axis=1)
    return np.where(mask, losses, 0.0).sum(axis=1) / np.maximum(count, 1), count > 0


def clean_words(losses: FloatArray, given: IntArray, read: BoolArray) -> FloatArray:
    """(n, s) P(clean) of each word by its loss, among the entity words and among the others apart.

    An entity is believed or doubted whole: it counts once, by the mean loss of its words. Words of a sort whose losses
    do not fall into two heaps are believed, and so are words that do not count.

    Args:
        losses: (n, s) in nats of each word under its given tag.
        given: (n, s) that tag, O first, then B and I of each type.
        read: (n, s) words that count.
    """
    p_clean = np.ones(losses.shape, PROBABILITY)
    others = read & (given == 0)
    p_clean[others] = _p_clean(losses[others])
    entity = read & (given > 0)
    number = entities_in(given)[entity]
    words = np.bincount(number)
    of_entities = np.bincount(number, losses[entity]) / np.maximum(words, 1)
    there = words > 0
    trust = np.ones(len(words), PROBABILITY)
    trust[there] = _p_clean(of_entities[there])
    p_clean[entity] = trust[number]
    return p_clean


def entities_in(tags: IntArray) -> IntArray:
    """(n, s) number of the entity that each word is of, from 0 in the order of texts and words; -1 for O.

    An I that continues nothing begins an entity.

    Args:
        tags: (n, s), O first, then B and I of each type.

    Example:
        >>> entities_in(np.array([[0, 1, 2, 4, 0], [2, 2, 1, 0, 0]]))
        array([[-1,  0,  0,  1, -1],
               [ 2,  2,  3, -1, -1]])
    """
    before = np.pad(tags, ((0, 0), (1, 0)))[:, :-1]
    inside = (tags > 0) & (tags % 2 == 0)
    begins = (tags > 0) & ~(inside & ((before == tags) | (before == tags - 1)))
    return np.where(tags > 0, begins.ravel().cumsum().reshape(tags.shape) - 1, -1)


def _p_clean(losses: FloatArray) -> FloatArray:
    """(w,) P(clean) by `losses` (w,); one for all where they do not fall into two heaps, or are too few to compare."""
    if not len(losses):
        return np.ones(0, PROBABILITY)
    split = small_loss_gmm(losses[None])
    return np.ones(len(losses), PROBABILITY) if split.note else split.p_clean.astype(PROBABILITY)


def believed_words(
    losses: FloatArray, entity: BoolArray, read: BoolArray, keep: Callable[[FloatArray], CleanSplit]
) -> BoolArray:
    """(n, s) words whose tag `keep` believes by its loss, among the entity words and among the others apart.

    A single word of a sort is believed, as there is none to compare it with, and so are words that do not count.

    Args:
        losses, entity, read: as `loss_of_texts` takes them.
        keep: losses (1, w) -> which of the w are clean.
    """
    believed = np.ones(losses.shape, bool)
    for sort in (read & entity, read & ~entity):
        if sort.sum() > 1:
            believed[sort] = keep(losses[sort][None]).clean
    return believed
