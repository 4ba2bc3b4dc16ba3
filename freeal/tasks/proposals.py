"""Words of a text that may be an entity, found by simple rules: who cannot write a list of entities may judge each one.

A candidate is `(start, end)`, places among the words of a text, `end` exclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from freeal.tasks.spans import split_words
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


def proposed(text: str, kind: Kind, marked: Iterable[Candidate] = ()) -> list[Candidate]:
    """Candidates of `text` in the order of its words: at most MOST, those `marked` by somebody first among them.

    `names` are runs of words with a capital letter, and two of them with a link between. `phrases` are besides all
    runs of words between function words and punctuation, and their parts of up to LONGEST words; mere numbers are none.

    Example:
        >>> text = "The Bank of England fell"
        >>> [" ".join(text.split()[start:end]) for start, end in proposed(text, "names")]
        ['Bank', 'Bank of England', 'England']
    """
    places = split_words(text)[:MOST_WORDS]
    words = [text[start:end] for start, end in places]
    capital = [_capital(word) for word in words]
    for i, (before, here) in enumerate(pairwise(places), 1):  # U.S.
        capital[i] |= words[i] == "." and before.end == here.start and len(words[i - 1]) == 1 and capital[i - 1]
    found = [*((start, end) for start, end in marked if end <= len(words)), *_names(words, capital)]
    if kind == "phrases":
        runs = _runs([word[0].isalnum() and word.casefold() not in FUNCTION for word in words])
        phrases = [*runs, *(part for run in runs for part in _parts(run))]
        found += [(start, end) for start, end in phrases if any(map(str.isalpha, "".join(words[start:end])))]
    return sorted(list(dict.fromkeys(found))[:MOST])


def question(example: Example, candidate: Candidate, **more: str) -> Example:
    """A candidate of `example` as a text to be labelled itself: its words are in the column `words`, beside `more`."""
    places = split_words(example.text)
    words = example.text[places[candidate[0]].start : places[candidate[1] - 1].end]
    return replace(example, fields={**example.fields, "words": words, **more})


def _names(words: Sequence[str], capital: Sequence[bool]) -> list[Candidate]:
    runs = _runs(capital)
    linked = [
        (first[0], second[1])
        for first, second in pairwise(runs)
        if second[0] - first[1] == 1 and words[first[1]].casefold() in LINKS
    ]
    long = [(start, end) for start, end in runs if end - start > LONGEST and "." not in words[start:end]]
    headline = [part for run in long for part in _parts(run)]
    return [*runs, *linked, *headline]


def _capital(word: str) -> bool:
    """US is a name, and Us is none."""
    shouted = word.isupper() and len(word) > 1
    return any(map(str.isupper, word)) and (shouted or word.casefold() not in FUNCTION)


def _runs(inside: Sequence[bool]) -> list[Candidate]:
    """The longest runs of words that are `inside`."""
    borders = [i for i, (before, here) in enumerate(pairwise([False, *inside, False])) if before != here]
    return list(zip(borders[::2], borders[1::2], strict=True))


def _parts(run: Candidate) -> list[Candidate]:
    """All runs of up to LONGEST words within `run`, longer ones first."""
    start, end = run
    return [(i, i + n) for n in range(LONGEST, 0, -1) for i in range(start, end - n + 1)]
