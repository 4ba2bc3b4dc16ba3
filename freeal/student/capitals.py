"""Capitals for encoders that do not see them: a mark before each word that has some.

Encoders whose tokenizer lowers all letters still have tokens that stand for nothing. As marks of capitals they are
learned like any other word, and the checkpoint stays an ordinary one; who opens it without freeal has to set them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from freeal.student.encoders import Tokens
from freeal.types import IntArray

NAMES = ("[unused1]", "[unused2]", "[unused3]")
"""Tokens of BERT's vocabularies that no text has, as marks of `capitals_of` 1 to 3."""


def capitals_of(word: str) -> int:
    """0: no capital; 1: the first letter alone is one; 2: all letters are, two or more; 3: any others.

    Example:
        >>> [capitals_of(word) for word in ("rome", "Rome", "EU", "5-HT", "mRNA", "McCain", "A", "7")]
        [0, 1, 2, 2, 3, 3, 1, 0]
    """
    letters = [letter for letter in word if letter.isalpha()]
    capitals = [letter.isupper() for letter in letters]
    if not any(capitals):
        return 0
    if not any(capitals[1:]):
        return 1 if capitals[0] else 3
    return 2 if all(capitals) else 3


def marks_for(tokenizer: Any) -> tuple[int, ...]:
    """Ids of a mark for each of `capitals_of` but 0; none if the tokenizer tells capitals, or has no token to spare.

    Args:
        tokenizer: a tokenizer of transformers.
    """
    ids = [tokenizer.convert_tokens_to_ids(name) for name in NAMES]
    sees = tokenizer("Rome EU")["input_ids"] != tokenizer("rome eu")["input_ids"]
    return () if sees or any(each in (None, tokenizer.unk_token_id) for each in ids) else tuple(map(int, ids))


def marked(
    tokens: Tokens, at: IntArray, words: Sequence[str], marks: Sequence[int], limit: int
) -> tuple[Tokens, IntArray]:
    """The tokens with a mark before each word that has capitals, `limit` of them at most, and `at` in these.

    Args:
        tokens: (l,) of a text.
        at: (s,) place of the first token of each of `words`, rising; -1 for a word that is not read.
        words: the first s words of the text, or fewer.
        marks: ids, of `capitals_of` 1 to 3.
        limit: tokens that the encoder reads; the last is kept, as it ends the text.

    Example:
        >>> marked([101, 7, 8, 9, 102], np.array([1, 2, -1]), ["Rome", "is", "Big"], [4, 5, 6], 8)
        ([101, 4, 7, 8, 9, 102], array([ 2,  3, -1]))
        >>> marked([101, 7, 8, 9, 102], np.array([1, 2, 3]), ["Rome", "is", "BIG"], [4, 5, 6], 6)
        ([101, 4, 7, 8, 102], array([ 2,  3, -1]))
    """
    found = ((int(place), capitals_of(word)) for place, word in zip(at, words, strict=False) if place >= 0)
    before = {place: kind for place, kind in found if kind}
    longer: Tokens = []
    for place, token in enumerate(tokens):
        if place in before:
            longer.append(marks[before[place] - 1])
        longer.append(token)
    moved = np.where(at >= 0, at + np.searchsorted(np.array(sorted(before), np.int64), at, side="right"), -1)
    if len(longer) > limit:
        kept = longer[: limit - 1]
        moved = np.where(moved < len(kept), moved, -1)
        longer = [*(kept[:-1] if kept and kept[-1] in marks else kept), longer[-1]]
    return longer, moved
