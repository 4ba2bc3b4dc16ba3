"""Names that the LLM lists from memory, as a second voice on what the candidates of a text are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import NamedTuple

import numpy as np

from freeal.errors import BudgetError
from freeal.events import Emit, Note
from freeal.ledger import Ledger
from freeal.llm import Message, Reply, Request
from freeal.select.calibration import prior_bias, shifted
from freeal.select.fusion import log_linear
from freeal.student import Student
from freeal.types import BoolArray, FloatArray, Inputs, IntArray

WORK = "names"
"""What it asks is told, and kept, under this name."""

FACT = "names"
"""Under this name the ledger remembers how often each type was found in the first round."""

FEWEST = 5
"""Names of a type from which one can learn what others look like."""

LONGEST = 4
"""Words of a name; what is longer is an explanation."""

WORTH = 0.5
"""Share of the candidates of the pool, those most like the names, about which the LLM is asked (docs/log.md)."""

SHOWN = 3
"""Names of each type that the user is told."""

ROOM = 160
"""Tokens for a list."""

_MARK = re.compile(r"^\s*(?:[-*+•]|\[\d{1,3}\]|\(?\d{1,3}[.):](?!\d)|\d{1,3}\s[-–—]\s)\s*")
_COMMENT = re.compile(r"\s[-–—]\s|:(?:\s|$)|\s\(")
_BRACKETS = re.compile(r"\s\([^()]*\)(?!\w)")
_COMMA = re.compile(r",(?!\d)(?=\s|\w{2})")
_AND = re.compile(r"^(?:and|or)\s", re.IGNORECASE)
_FENCE = re.compile(r"^```.*$", re.MULTILINE)
_STRING = re.compile(r'"([^"\n]*)"(\s*:)?')
_AROUND = " \t.*,\"'`“”‘’[]"


class Names(NamedTuple):
    """Names, and of each the place of its type."""

    words: tuple[str, ...]
    types: tuple[int, ...]

    def of(self, type_: int) -> list[str]:
        """The names of the type in this place."""
        return [word for word, each in zip(self.words, self.types, strict=True) if each == type_]


class _Pupil(NamedTuple):
    """Who learned the names, and how likely to be one are words that are worth a question at `least`."""

    student: Student
    least: float


@dataclass(frozen=True)
class Lexicon:
    """It corrects what an LLM says of candidates by how like they are to names that it lists by itself.

    An LLM too small to judge what words are in their sentence may still know names of the type: a regression on the
    vectors of those, against the words of all candidates of the pool, reads the candidates. Both voices weigh the same,
    and each type stays as frequent as the LLM has it (docs/log.md has the figures). What is least like any name is not
    worth a question.

    `types`: their names. `requests`: what has names listed, as many of each type, one type after another.
    `unlabelled`: the words of all candidates of the pool. `student`: a new one that learns from words what they are.
    `ask` puts requests to the LLM, under WORK.
    """

    types: Sequence[str]
    requests: Sequence[Request]
    unlabelled: Callable[[], Sequence[str]]
    student: Callable[[], Student]
    ask: Callable[[Sequence[Request]], Sequence[Reply]]
    ledger: Ledger
    emit: Emit

    @property
    def calls(self) -> int:
        """How many lists are asked for."""
        return len(self.requests)

    def worth(self, words: Sequence[str], work: str) -> BoolArray | None:
        """(c,) whether the LLM should be asked about the candidates `words`; None if nobody can tell.

        Of all candidates of the pool that is the share WORTH. It is as `__call__` where a run goes on with more calls.
        """
        if not self._has_a_say(work) or (pupil := self._pupil) is None:
            return None
        worth: BoolArray = _named(pupil.student, words) >= pupil.least if words else np.zeros(0, bool)
        return worth

    def _has_a_say(self, work: str) -> bool:
        """Where nothing was corrected in the first round, nothing is later."""
        return work == "round 0" or self.ledger.recall(FACT, alone=True) is not None

    def __call__(self, proba: FloatArray, words: Sequence[str], work: str) -> FloatArray:
        """(c, t+1) `proba` of the candidates `words` over the types and none, corrected; NaN stays where it is.

        A pass over the pool finds out how each type stays as frequent; a test follows the first round. Where nothing
        was corrected in that, nothing is later: a run that goes on with more calls keeps to how it began.
        """
        heard = ~np.isnan(proba[:, 0]) if len(proba) else np.zeros(0, bool)
        if not heard.any() or not self._has_a_say(work) or (pupil := self._pupil) is None:
            return proba
        kept = self.ledger.recall(FACT, alone=True)
        like = pupil.student.view(Inputs(tuple(word for word, told in zip(words, heard, strict=True) if told))).proba
        pooled = log_linear(proba[heard], like, 0.5, 0.5)
        of_test = isinstance(kept, list) and not work.startswith("round ")
        bias = np.array(kept) if of_test else prior_bias(pooled, proba[heard].mean(axis=0))
        if work == "round 0":
            self.ledger.remember(FACT, bias.tolist())
        corrected = proba.copy()
        corrected[heard] = shifted(pooled, bias)
        return corrected

    @cached_property
    def _pupil(self) -> _Pupil | None:
        """Who learned the names; None if there are too few of a type."""
        names, unlabelled = self._names(), tuple(self.unlabelled())
        counts = np.bincount(np.array(names.types, np.int64), minlength=len(self.types))
        if not unlabelled or counts.min() < FEWEST:
            short = [type_ for type_, count in zip(self.types, counts, strict=True) if count < FEWEST]
            self.emit(Note(f"too few names of {', '.join(short)} were listed: the LLM judges alone", WORK))
            return None
        few = "; ".join(f"{type_}: {', '.join(names.of(place)[:SHOWN])}, …" for place, type_ in enumerate(self.types))
        self.emit(Note(f"{len(names.words)} names that the LLM listed have a say on the candidates ({few})", WORK))
        types = np.array([*names.types, *[len(self.types)] * len(unlabelled)], np.int64)
        student = self.student().fit(
            Inputs((*names.words, *unlabelled)), np.eye(len(self.types) + 1)[types], evenly(types, len(names.words))
        )
        return _Pupil(student, float(np.quantile(_named(student, unlabelled), 1.0 - WORTH)))

    def _names(self) -> Names:
        try:
            replies = self.ask(self.requests)
        except BudgetError as error:
            self.emit(Note(f"no names are listed: {error}", WORK))
            replies = []
        found: dict[tuple[str, int], str] = {}
        for place, reply in enumerate(replies):
            for name in listed(reply.text or "", cut_off=reply.tokens_out >= ROOM):
                found.setdefault((name.casefold(), place * len(self.types) // self.calls), name)
        return Names(tuple(found.values()), tuple(type_ for _, type_ in found))


def _named(student: Student, words: Sequence[str]) -> FloatArray:
    """(c,) P(a name of any type) of `words`, by who learned the names."""
    named: FloatArray = 1.0 - student.view(Inputs(tuple(words))).proba[:, -1]
    return named


def requests_for(
    types: Mapping[str, str], words: Mapping[str, Sequence[str]], lists: int, temperature: float, seed: int
) -> list[Request]:
    """What asks for `lists` lists of each type, of one of its `words` after another.

    Args:
        types: what each means.
        words: those that each type goes by, if any.
        lists: of each type.
        temperature: of the LLM; with it lists differ.
        seed: of the lists.
    """
    return [
        Request(chat(word, type_, means), (), ROOM, temperature, 1000 * seed + number)
        for type_, means in types.items()
        for number, word in zip(range(lists), cycle(words.get(type_, [""])))
    ]


def chat(word: str, type_: str, means: str) -> tuple[Message, ...]:
    """The chat that asks for a list of names of a type, of those that go by `word`, if that says anything."""
    type_means = f"{type_}: {means}" if means else type_
    what = f"{word} ({type_means})" if word else type_means
    return (
        Message(
            "system",
            "You write lists. Reply with the entries alone, one on each line, without explanations.",
        ),
        Message("user", f"Write thirty different examples of {what}."),
    )


def listed(written: str, cut_off: bool = False) -> list[str]:
    """The names in a list that an LLM wrote, without marks and comments; what it says beside them is left out.

    Lists have one name on each line, or commas between the names, or are JSON. `cut_off`: the last name is not whole.

    Example:
        >>> listed("Sure:\\n1. Asthma\\n2. **Heart failure** - a weak heart\\n- Fever (high)\\n3. Mig", cut_off=True)
        ['Asthma', 'Heart failure', 'Fever']
        >>> listed("asthma, heart failure, and fever.")
        ['asthma', 'heart failure', 'fever']
    """
    text = _FENCE.sub("", written).replace("**", "").strip()
    strings = [string for string, is_key in _STRING.findall(text) if not is_key]
    is_json = text.startswith(("[", "{")) and strings
    entries = strings if is_json else _entries(text)[: -1 if cut_off else None]
    names = [entry.strip(_AROUND) for entry in entries]
    return list(dict.fromkeys(name for name in names if _may_be_a_name(name)))


def _entries(text: str) -> list[str]:
    """What stands on each line of a list, or between its commas: of lines with marks only if most have several."""
    lines = [line for line in re.split(r"[\n;]", text) if line.strip() and not line.rstrip().endswith(":")]
    said = [_without_comment(line) for line in lines]
    several = 2 * sum(len(_COMMA.findall(each)) > 1 for each in said) >= len(said)
    entries = []
    for line, each in zip(lines, said, strict=True):
        parts = _COMMA.split(each)
        if _MARK.match(line) and not several:
            parts = parts[:1]
        entries += [_AND.sub("", part.strip(_AROUND)) for part in parts]
    return entries


def _without_comment(line: str) -> str:
    """A line without its mark and what explains the name; commas behind a colon part names if there is no mark."""
    text = _MARK.sub("", line)
    head, _, tail = text.partition(": ")
    if text == line and _COMMA.search(tail) and not _COMMA.search(head):
        text = tail
    return _COMMENT.split(_BRACKETS.sub("", text), maxsplit=1)[0]


def _may_be_a_name(text: str) -> bool:
    return any(map(str.isalpha, text)) and len(text.split()) <= LONGEST


def evenly(types: IntArray, named: int) -> FloatArray:
    """(m,) weights under which each of `types` (m,) weighs the same, and all that is none of them as much as they do.

    `types` count from 0; the highest is that of what has no type. `named`: how many have one, which all of those weigh
    together.

    Example:
        >>> evenly(np.array([0, 0, 1, 2, 2, 2, 2]), 3)
        array([0.75, 0.75, 1.5 , 0.75, 0.75, 0.75, 0.75])
    """
    counts = np.bincount(types)
    share = np.full(len(counts), named / (len(counts) - 1))
    share[-1] = named
    weights: FloatArray = (share / counts)[types]
    return weights
