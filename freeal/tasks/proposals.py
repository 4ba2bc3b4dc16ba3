"""Words of a text that may be an entity, found by simple rules: who cannot write a list of entities may judge each one.

A candidate is `(start, end)`, places among the words of a text, `end` exclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from freeal.tasks.spans import FUNCTION, HYPHENS, Word, held, split_words
from freeal.tasks.tokens import MOST_WORDS
from freeal.types import Example

Kind = Literal["names", "phrases"]
Candidate = tuple[int, int]

MOST = 24
"""Candidates of one text; those that come last are left out."""

LONGEST = 3
"""Words of a part of a run that is a candidate of its own."""

_LINKS = "of de del della di da du des la le van von der den ter bin ibn al el & ' ."

LINKS = frozenset(_LINKS.split())
"""What stands between two parts of one name: Bank of England, J. Smith, AT&T."""

APOSTROPHES = frozenset("'’")
"""What stands before an English `s`."""


def proposed(text: str, kind: Kind, marked: Iterable[Candidate] = (), most: int | None = MOST) -> list[Candidate]:
    """Candidates of `text` in the order of its words: at most `most`, those `marked` by somebody first among them.

    `names` are runs of words with a capital letter, and two of them with a link between; words that hyphens hold
    together are one word here, and those of them with a capital are candidates, too. `phrases` are besides all runs of
    words between function words and punctuation, and their parts of up to LONGEST words, over hyphens and an English
    `'s` and up to these; mere numbers are none.

    Example:
        >>> text = "The Bank of England fell"
        >>> [" ".join(text.split()[start:end]) for start, end in proposed(text, "names")]
        ['Bank', 'Bank of England', 'England']
    """
    places = split_words(text)[:MOST_WORDS]
    words = [text[start:end] for start, end in places]
    units = _units(text, places)
    written = [text[places[start].start : places[end - 1].end] for start, end in units]
    inner = [part for start, end in units if end - start > 1 for part in _parts(range(start, end, 2))]
    found = [(units[start][0], units[end - 1][1]) for start, end in _names(written, _capitals(places, units, written))]
    found += [(start, end) for start, end in inner if _capital(words[start]) and _capital(words[end - 1])]
    if kind == "phrases":
        found += [*((units[start][0], units[end - 1][1]) for start, end in _phrases(written)), *inner]
    with_letters = [(start, end) for start, end in found if any(map(str.isalpha, "".join(words[start:end])))]
    known = [(start, end) for start, end in marked if end <= len(words)]
    return sorted(list(dict.fromkeys([*known, *with_letters]))[:most])


def question(example: Example, candidate: Candidate, **more: str) -> Example:
    """A candidate of `example` as a text to be labelled itself: its words are in the column `words`, beside `more`."""
    places = split_words(example.text)
    words = example.text[places[candidate[0]].start : places[candidate[1] - 1].end]
    return replace(example, fields={**example.fields, "words": words, **more})


def _units(text: str, places: Sequence[Word]) -> list[Candidate]:
    """The words, those that hyphens hold together as one."""
    units: list[Candidate] = []
    for place, word in enumerate(places):
        if place > 1 and held(text, word.start - 1):
            units[-2:] = [(units[-2][0], place + 1)]
        else:
            units.append((place, place + 1))
    return units


def _capitals(places: Sequence[Word], units: Sequence[Candidate], written: Sequence[str]) -> list[bool]:
    """Which units, as `written`, are in a name: those with a capital letter, and the point behind one letter of U.S."""
    capital = [_capital(each) for each in written]
    for i, (before, here) in enumerate(pairwise(units), 1):
        touches = places[before[1] - 1].end == places[here[0]].start
        capital[i] |= written[i] == "." and touches and len(written[i - 1]) == 1 and capital[i - 1]
    return capital


def _names(words: Sequence[str], capital: Sequence[bool]) -> list[Candidate]:
    runs = _runs(capital)
    linked = [
        (first[0], second[1])
        for first, second in pairwise(runs)
        if second[0] - first[1] == 1 and words[first[1]].casefold() in LINKS
    ]
    long = [(start, end) for start, end in runs if end - start > LONGEST and "." not in words[start:end]]
    headline = [part for run in long for part in _parts(range(*run))]
    return [*runs, *linked, *headline]


def _phrases(words: Sequence[str]) -> list[Candidate]:
    joints = [_is_joint(*three) for three in zip(("", *words), words, (*words[1:], ""), strict=False)]
    content = [
        word[0].isalnum() and word.casefold() not in FUNCTION and not joint
        for word, joint in zip(words, joints, strict=True)
    ]
    joined = _runs([inside or joint for inside, joint in zip(content, joints, strict=True)])
    over = [places for run in joined if (places := [i for i in range(*run) if content[i]])]
    return [*_runs(content), *((run[0], run[-1] + 1) for run in over), *(part for run in over for part in _parts(run))]


def _is_joint(before: str, word: str, after: str) -> bool:
    """Whether a phrase may go on behind `word`: a hyphen, or an English `'s`, in one word or in two."""
    two = (word in APOSTROPHES and after in ("s", "S")) or (word in ("s", "S") and before in APOSTROPHES)
    return word in HYPHENS or two or (word[0] in APOSTROPHES and word[1:] in ("s", "S"))


def _capital(word: str) -> bool:
    """US is a name, and Us is none."""
    shouted = word.isupper() and len(word) > 1
    return any(map(str.isupper, word)) and (shouted or word.casefold() not in FUNCTION)


def _runs(inside: Sequence[bool]) -> list[Candidate]:
    """The longest runs of words that are `inside`."""
    borders = [i for i, (before, here) in enumerate(pairwise([False, *inside, False])) if before != here]
    return list(zip(borders[::2], borders[1::2], strict=True))


def _parts(run: Sequence[int]) -> list[Candidate]:
    """All parts of `run`, places of words in order, of up to LONGEST of these, longer ones first."""
    return [(run[i], run[i + n - 1] + 1) for n in range(LONGEST, 0, -1) for i in range(len(run) - n + 1)]
