"""Entities as spans of a text, the words they are made of, and the BIO tags that say the same word by word.

Entities are flat: no two share a character. Tags are written as BIO2 (`B-` opens every entity) and read in all the
dialects that are about: BIO2, IOB1 (`B-` only between neighbours of one type), IOBES, BILOU and BMES.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from freeal.tasks.classification import validate_labels

OUTSIDE = "O"

HYPHENS = frozenset("-‐‑")
"""What may hold two words together."""

_FUNCTION = """
a about above after again against all also although am an and any are as at be because been before being below between
both but by can could did do does doing down during each either else ever every few for from further had has have having
he her here hers him his how however i if in into is it its itself just less may me might more most much must my neither
no nor not now of off on once one only or other our out over own per same she should since so some still such than that
the their them then there these they this those though through thus to too two under until up upon us very via was we
were what when where whether which while who whom whose why will with within without would yet you your
"""

FUNCTION = frozenset(_FUNCTION.split())
"""English words that belong to no name by themselves."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """An entity of type `type`: the characters `text[start:end]`.

    Raises:
        ValueError: it is empty, or begins before the text.
    """

    start: int
    end: int
    type: str

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"span {self.start}:{self.end} {self.type!r} is empty or begins before its text")

    def of(self, text: str) -> str:
        """Its words, as they stand in `text`."""
        return text[self.start : self.end]


class Word(NamedTuple):
    """The characters `text[start:end]`, which are tagged together."""

    start: int
    end: int


class Tokenized(NamedTuple):
    """A text and its words, in order and without overlaps."""

    text: str
    words: tuple[Word, ...]


# --- words


def split_words(text: str) -> tuple[Word, ...]:
    """The words of `text`, found by the Unicode categories of its characters alone.

    A word is a run of letters and digits; an apostrophe or underscore *between* two of them is part of it (`O'Brien`),
    except that the English `'s` is a word of its own, so that `Obama` is one in `Obama's`. Any other visible character
    is a word by itself (`UK-based` and `3.5` are three), and so is each letter of a script that is written without
    spaces or with what follows joined to a name (Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese).
    Combining marks, variation selectors and skin tones belong to the character before them, and a zero-width joiner or
    soft hyphen holds its neighbours together.

    Example:
        >>> [text[start:end] for text in ["Obama's UK-based aide."] for start, end in split_words(text)]
        ['Obama', "'s", 'UK', '-', 'based', 'aide', '.']
    """
    kinds = "".join(map(_kind, text))
    return tuple(Word(*found.span()) for found in _WORD.finditer(kinds))


def held(text: str, place: int) -> bool:
    """Whether at `place` there is a hyphen that holds the words on both sides of it together.

    Example:
        >>> held("UK-based", 2), held("UK - based", 3), held("-based", 0)
        (True, False, False)
    """
    beside = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
    return text[place : place + 1] in HYPHENS and len(beside) == 2 and all(map(str.isalnum, beside))


def join_tokens(tokens: Sequence[str]) -> Tokenized:
    """A text of `tokens` with one space between two of them; each token is a word.

    Raises:
        ValueError: a token is empty or has white space at an end, so that its borders could not be told.
    """
    words, start = [], 0
    for number, token in enumerate(tokens, 1):
        if not token or token != token.strip():
            raise ValueError(f"token {number} ({token!r}) is empty or has white space at an end; remove that")
        words.append(Word(start, start + len(token)))
        start += len(token) + 1
    return Tokenized(" ".join(tokens), tuple(words))


@lru_cache(4096)
def _kind(character: str) -> str:
    """One letter for what `character` is to `_WORD`."""
    if character in "sS":
        return "s"
    if character in "'’":
        return "'"
    if character == "_":
        return "_"
    if character in "\u200c\u200d\u00ad":
        return "j"
    if "\U0001f3fb" <= character <= "\U0001f3ff":
        return "m"
    category = unicodedata.category(character)
    if category[0] == "L" and _stands_alone(character):
        return "x"
    return {"L": "w", "N": "w", "M": "m", "Z": " "}.get(category[0], " " if category in ("Cc", "Cf") else "x")


def _stands_alone(letter: str) -> bool:
    script = unicodedata.name(letter, "").partition(" ")[0]
    return unicodedata.east_asian_width(letter) == "W" or script in ("THAI", "LAO", "KHMER", "MYANMAR")


_RUN = r"[ws](?:[wsm]|j(?=[wsm]))*"
_WORD = re.compile(rf"{_RUN}(?:(?!'s(?![wsm]))[_']{_RUN})*|(?<=[wsm])'s(?![wsm])|[^ j]m*(?:jm*(?![wsj ])[^ ]m*)*")
"""Over the kinds of characters: a word with inner joiners, an English `'s`, any other character with its marks."""


# --- tags


class Tag(NamedTuple):
    """`prefix` is one of B I O E S L U M, `type` empty for O."""

    prefix: str
    type: str


def read_tag(tag: str) -> Tag:
    """The parts of `tag`.

    Raises:
        ValueError: it is neither O nor a prefix, a hyphen and a type.
    """
    if tag == OUTSIDE:
        return Tag(OUTSIDE, "")
    prefix, hyphen, type_ = tag.partition("-")
    if prefix not in tuple("BIESLUM") or not hyphen or not type_.strip():
        raise ValueError(f"{tag!r} is no tag; expected O, or B- or I- and a type, such as B-PER")
    return Tag(prefix, type_)


def tag_vocabulary(types: Sequence[str]) -> tuple[str, ...]:
    """O, and B- and I- of each type, in the order of `types`: class index -> tag.

    Raises:
        PromptError: there is no type, or two that cannot be told apart.

    Example:
        >>> tag_vocabulary(["PER", "LOC"])
        ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
    """
    validate_labels(types, least=1)
    return (OUTSIDE, *(f"{prefix}-{type_}" for type_ in types for prefix in "BI"))


def chunks(tags: Sequence[str]) -> tuple[Span, ...]:
    """The entities of one sentence of `tags`, in order; their `start` and `end` count *tags*.

    An entity begins at B, S and U, at any other tag of another type than the one before, and after an entity that
    E, L, S or U closed: so IOB1, IOBES, BILOU and BMES are read, and an `I-` that continues nothing begins an entity
    (as conlleval has it).

    Raises:
        ValueError: something is no tag.

    Example:
        >>> chunks(["I-PER", "I-PER", "B-PER", "O"])
        (Span(start=0, end=2, type='PER'), Span(start=2, end=3, type='PER'))
    """
    found: list[Span] = []
    start, before = 0, Tag(OUTSIDE, "")
    for place, tag in enumerate(map(read_tag, [*tags, OUTSIDE])):
        if tag.type != before.type or tag.prefix in "BSU" or before.prefix in "ESLU":
            if before.type:
                found.append(Span(start, place, before.type))
            start = place
        before = tag
    return tuple(found)


# --- tags <-> spans


def to_spans(tags: Sequence[str], words: Sequence[Word]) -> tuple[Span, ...]:
    """The entities that `tags` give to `words`, from the start of the first word to the end of the last.

    Raises:
        ValueError: there are not as many tags as words, or something is no tag.
    """
    if len(tags) != len(words):
        raise ValueError(f"{len(tags)} tag(s) for {len(words)} word(s); each word needs one")
    return tuple(Span(words[c.start].start, words[c.end - 1].end, c.type) for c in chunks(tags))


def to_tags(spans: Sequence[Span], words: Sequence[Word]) -> list[str]:
    """BIO2 tags of `words`; spans are first widened to whole words, see `widened`.

    Raises:
        ValueError: a span touches no word.
    """
    tags = [OUTSIDE] * len(words)
    for span in widened(spans, words):
        first, last = _touched(span, words)
        tags[first:last] = [f"B-{span.type}", *[f"I-{span.type}"] * (last - first - 1)]
    return tags


def widened(spans: Sequence[Span], words: Sequence[Word]) -> tuple[Span, ...]:
    """`spans` from the start of the first word that each touches to the end of the last, sorted.

    Where two come to share a word, the longer is kept, see `flat`.

    Raises:
        ValueError: a span touches no word.
    """
    reached = [(_touched(span, words), span.type) for span in spans]
    return flat([Span(words[first].start, words[last - 1].end, type_) for (first, last), type_ in reached])


def flat(spans: Sequence[Span]) -> tuple[Span, ...]:
    """`spans` without overlaps, sorted: of two that share a character the longer is kept, else the one named first."""
    starts: list[int] = []
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: s.start - s.end):  # the sort is stable: named first stays first
        place = bisect_left(starts, span.start)
        if (place == 0 or kept[place - 1].end <= span.start) and (place == len(kept) or span.end <= kept[place].start):
            starts.insert(place, span.start)
            kept.insert(place, span)
    return tuple(kept)


def _touched(span: Span, words: Sequence[Word]) -> tuple[int, int]:
    """Index of the first word that `span` shares a character with, and of the one after the last."""
    first = bisect_right(words, span.start, key=lambda word: word.end)
    last = bisect_left(words, span.end, key=lambda word: word.start)
    if first >= last:
        raise ValueError(f"span {span.start}:{span.end} {span.type!r} touches no word; give it the words it is about")
    return first, last
