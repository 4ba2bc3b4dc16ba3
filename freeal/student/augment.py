"""A second wording for texts that come with none: cheap, and good enough to ask for consistency."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def augment(text: str, rng: np.random.Generator, drop: float = 0.1, swap: float = 0.1) -> str:
    """The text with some words left out and some neighbours swapped.

    Two of the four operations of Wei & Zou (EDA, EMNLP 2019), at their share of 0.1; FreeAL itself
    translates to French and back, which needs two more models.

    Args:
        text: words are what white space separates; a text of one word comes back as it is.
        rng: the only source of chance.
        drop: share of the words left out, in [0, 1]; one word always stays.
        swap: share of the neighbours that change places, in [0, 1].

    Example:
        >>> augment("a slow but charming film", np.random.default_rng(1), drop=0.3)
        'a slow charming film'
    """
    words = text.split()
    if len(words) < 2:
        return text
    return " ".join(_swapped(_thinned(words, rng, drop), rng, swap))


def hide(
    tokens: Sequence[int], mask: int, spared: Collection[int], rng: np.random.Generator, share: float = 0.1
) -> list[int]:
    """The tokens with some of them hidden behind `mask`: every word stays where it was, so that its label is still its.

    Token cutoff (Shen et al., 2020, arXiv 2009.13818), with the mask instead of a zero vector.

    Args:
        tokens: ids of one text.
        mask: the id that hides.
        spared: ids that are never hidden, such as those of the beginning and the end.
        rng: the only source of chance.
        share: of the tokens, in [0, 1].

    Example:
        >>> hide([101, 7, 8, 9, 102], 103, {101, 102}, np.random.default_rng(0), share=0.5)
        [101, 103, 103, 103, 102]
    """
    hidden = rng.random(len(tokens)) < share
    return [mask if gone and token not in spared else token for token, gone in zip(tokens, hidden, strict=True)]


def _thinned(words: list[str], rng: np.random.Generator, drop: float) -> list[str]:
    stays = rng.random(len(words)) >= drop
    if not stays.any():
        stays[rng.integers(len(words))] = True
    return [word for word, kept in zip(words, stays, strict=True) if kept]


def _swapped(words: list[str], rng: np.random.Generator, swap: float) -> list[str]:
    words = list(words)
    for left in np.flatnonzero(rng.random(len(words) - 1) < swap):
        words[left], words[left + 1] = words[left + 1], words[left]
    return words
