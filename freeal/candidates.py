"""Entities without writing: the LLM is asked what each candidate of a text is, as of texts with one label each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import yaml

from freeal import prompts
from freeal.annotator import Annotator
from freeal.errors import ConfigError
from freeal.events import Emit, Note
from freeal.ledger import Ledger
from freeal.lexicon import Lexicon
from freeal.llm import Capabilities, Reply, Request
from freeal.prompts import Prompt
from freeal.select import habits
from freeal.select.calibration import Calibrator, Correction, Corrections
from freeal.select.composing import composed, even_shares
from freeal.select.disputes import entities
from freeal.tasks import TRUST_IN_A_WORD
from freeal.tasks.grounding import ground
from freeal.tasks.proposals import MOST, Candidate, Kind, proposed, question
from freeal.tasks.spans import split_words
from freeal.tasks.tokens import NONE, Tokens
from freeal.types import PROBABILITY, Answers, Demonstration, FloatArray, IntArray, LoopState, Pool

FACT = "candidates"
"""Under this name the ledger remembers how the first round's answers were calibrated."""

NEITHER = "none of these, only a part of one, or more than one"

BY_NAME = """
## system
You say what words of a text are. Reply with one of these and nothing else:
{% for label, meaning in labels.items() %}
- {{ label }}{{ ": " ~ meaning if meaning else "" }}
{% endfor %}

## user
Text: {{ text }}
What is "{{ words }}", exactly these words, here?

## assistant
{{ label }}
"""

BY_WORDS = """
## system
You say what words of a text are. Reply with one of these and nothing else: {{ words | join(", ") }}.

## user
Text: {{ text }}
In this text, "{{ words }}" is a:

## assistant
{{ label }}
"""


class _Asked(NamedTuple):
    """A candidate of the row of the pool that is asked about in the `place`-th place."""

    place: int
    row: int
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Candidates:
    """It stands where one `Annotator` does: what that one's LLM says of each candidate becomes what is said of a row.

    `calibrator` frees the answers about candidates of the LLM's taste; what comes out are words of an LLM to all that
    follows. `known`: what is known of the pool; what was marked there is a candidate, too. `vectors` (m, d) of the
    words of candidates, of length one: for a calibrator that estimates the shares of the types. `lexicon`: who has a
    say beside the LLM, once that is calibrated.
    """

    annotator: Annotator
    kind: Kind
    calls_a_row: int
    calibrator: Calibrator
    min_information: float = 0.0
    """The least that a pass may tell of what the candidates are, before it is told that it does not."""
    known: LoopState | None = None
    vectors: Callable[[Sequence[str]], FloatArray] | None = None
    lexicon: Lexicon | None = None

    @property
    def prompt(self) -> Prompt:
        return self.annotator.prompt

    @property
    def ledger(self) -> Ledger:
        return self.annotator.ledger

    @property
    def emit(self) -> Emit:
        return self.annotator.emit

    @property
    def capabilities(self) -> Capabilities:
        return self.annotator.capabilities

    @property
    def by_words(self) -> bool:
        """Whether the types go by words, and not by their names."""
        return bool(words_of(self.prompt))

    def prepare(self) -> Candidates:
        """Let the LLM find out what it needs to know; a candidate has one label, so that nothing is asked for in JSON.

        Raises:
            ConfigError: it gives no probabilities.
        """
        self.annotator.prepare()
        check(self.capabilities, self.kind)
        return self

    def told(self, meanings: Mapping[str, str] | None) -> Candidates:
        """The same, but what the types mean is told in other words; None: as the prompt has it."""
        return replace(self, annotator=self.annotator.told(meanings))

    def after(self, state: LoopState) -> Candidates:
        """The same, for the round that begins with `state`."""
        return replace(self.told(state.meanings), known=state)

    def ask(self, requests: Sequence[Request], work: str) -> list[Reply]:
        """Replies to any requests."""
        return self.annotator.ask(requests, work)

    def unasked(self, pool: Pool, work: str) -> int:
        """Calls that the candidates of all rows of `pool` have to take; as `Annotator.unasked`."""
        quiet = replace(self, annotator=replace(self.annotator, emit=lambda event: None))
        asked, _ = quiet._worth_asking(pool, np.arange(len(pool)), work)
        return self._asking().unasked(self._questions(pool, asked), work)

    def annotate(
        self,
        pool: Pool,
        rows: IntArray,
        shown: Sequence[Sequence[Demonstration]],
        work: str,
        all_or_none: bool = False,
    ) -> Answers:
        """What the LLM says of `rows`; as `Annotator.annotate`. A row of which one candidate got no answer abstains."""
        asked, every = self._worth_asking(pool, rows, work)
        said = self._said(pool, asked, shown, work, all_or_none)
        silent = len(rows) - len({each.place for each in asked})
        alarms = [*habits.unasked(silent, len(rows), self.kind), *habits.undecided(said.proba, self.min_information)]
        for alarm in alarms:
            self.emit(Note(alarm, work))
        correct = self._correction(said, self._believed(rows, asked), pool, asked, every, work)
        proba = correct(said.proba, said.scored)
        if self.lexicon is not None:
            proba = self.lexicon(proba, self._words(pool, asked), work)
        return self._composed(pool, rows, asked, replace(said, proba=proba, alarms=tuple(alarms)))

    def _worth_asking(self, pool: Pool, rows: IntArray, work: str) -> tuple[list[_Asked], list[_Asked]]:
        """The candidates of `rows` to ask about, and all that these were chosen from.

        Of phrases, where names were listed, those like these and those marked so far are; else the first of each row.
        """
        marks = self._marked(rows)

        def of(most: int | None) -> list[_Asked]:
            return [
                _Asked(place, int(row), candidate)
                for place, (row, marked) in enumerate(zip(rows, marks, strict=True))
                for candidate in proposed(pool[int(row)].text, self.kind, marked, most)
            ]

        every, few = of(None), of(MOST)
        choosing = self.lexicon if self.kind == "phrases" else None  # of capitalised words most are names
        worth = None if choosing is None else choosing.worth(self._words(pool, every), work)
        if worth is None:
            if len(few) < len(every):
                cut = len({each.place for each in set(every) - set(few)})
                told = f"{len(every) - len(few):,} candidates of {cut:,} texts are not asked about and count as none"
                self.emit(Note(f"{told}: of each text at most {MOST} are", work))
            return few, few
        like = [
            each for each, is_like in zip(every, worth, strict=True) if is_like or each.candidate in marks[each.place]
        ]
        return like, every

    def _said(
        self,
        pool: Pool,
        asked: Sequence[_Asked],
        shown: Sequence[Sequence[Demonstration]],
        work: str,
        all_or_none: bool,
    ) -> Answers:
        """What the LLM says of each candidate, as of a text with one label."""
        turns = {id(demos): turns_of(demos, self.prompt, self.kind) for demos in shown}
        theirs = [turns[id(shown[each.place])] for each in asked]
        questions = self._questions(pool, asked)
        return self._asking().annotate(questions, np.arange(len(asked)), theirs, work, all_or_none)

    def _asking(self) -> Annotator:
        return replace(self.annotator, prompt=prompt_of(self.prompt), unit="candidates", states=False)

    def _questions(self, pool: Pool, asked: Sequence[_Asked]) -> Pool:
        return Pool(tuple(question(pool[each.row], each.candidate) for each in asked))

    def _marked(self, rows: IntArray) -> list[list[Candidate]]:
        """What the LLM and the student have marked in each of `rows` so far."""
        if self.known is None:
            return [[] for _ in rows]
        said, read = (self._entities(rows, each) for each in (self.known.annotations.proba, self.known.student))
        return [
            sorted({(start, end) for start, end, _ in first | second}) for first, second in zip(said, read, strict=True)
        ]

    def _entities(self, rows: IntArray, proba: FloatArray) -> list[set[tuple[int, int, int]]]:
        """(start, end, type) of the entities that `proba` (n, s, k) comes to in each of `rows`."""
        return [entities(tags) for tags in self.prompt.task.best(proba[rows])]

    def _believed(self, rows: IntArray, asked: Sequence[_Asked]) -> FloatArray:
        """(c, t+1) what is believed of each candidate so far, NaN of rows of which that is nothing.

        Of types that go by words always: what is believed has lost the names that overlap others, and with a question
        that tells names apart that is too many (docs/log.md).
        """
        count = len(self.prompt.labels) + 1
        believed = np.full((len(asked), count), np.nan)
        if self.known is None or self.by_words:
            return believed
        labelled, found = self.known.annotations.labelled, self._entities(rows, self.known.posterior)
        for number, each in enumerate(asked):
            types = [type_ for start, end, type_ in found[each.place] if (start, end) == each.candidate]
            if labelled[each.row]:
                believed[number] = np.eye(count)[types[0] if types else -1]
        return believed

    def _words(self, pool: Pool, asked: Sequence[_Asked]) -> list[str]:
        """Of each candidate, as they stand in its text."""
        return [question(pool[each.row], each.candidate).fields["words"] for each in asked]

    def _correction(
        self,
        said: Answers,
        believed: FloatArray,
        pool: Pool,
        asked: Sequence[_Asked],
        every: Sequence[_Asked],
        work: str,
    ) -> Correction | Corrections:
        """How answers are freed of the LLM's taste; those of a test estimate nothing, the first round has told it."""
        if not work.startswith("round ") and isinstance(kept := self.ledger.recall(FACT), dict):
            return Correction(np.array(kept["bias"]), float(kept["trust"]))
        found = self._calibrator(self._words(pool, asked), asked, every).correction(said, believed)
        if work == "round 0" and isinstance(found, Correction):
            self.ledger.remember(FACT, {"bias": found.bias.tolist(), "trust": found.trust})
        return found

    def _calibrator(self, words: Sequence[str], asked: Sequence[_Asked], every: Sequence[_Asked]) -> Calibrator:
        """The run's, for these candidates; types that go by words are brought to even shares, not to estimated ones.

        What is none of the types follows nothing in the words of candidates, so that an estimate makes it rarer than it
        is: with a prompt that tells it apart the estimate is the poorer one (docs/log.md).
        """
        if self.by_words:
            of_these, of_all = ([(each.place, each.candidate) for each in some] for some in (asked, every))
            shares = even_shares(of_these, len(self.prompt.labels) + 1, self.kind == "phrases", of_all)
            return replace(self.calibrator, shares=shares)
        if self.vectors is None:
            return self.calibrator
        embed = self.vectors
        return replace(self.calibrator, vectors=lambda places: embed([words[place] for place in places]))

    def _composed(self, pool: Pool, rows: IntArray, asked: Sequence[_Asked], said: Answers) -> Answers:
        """What is said of the rows, from what is said of their candidates; words, for it is calibrated already."""
        slots, classes = self.prompt.task.shape(pool.texts)
        proba = np.full((len(rows), slots, classes), np.nan, PROBABILITY)
        problems = np.full(len(rows), None, object)
        mine: list[list[int]] = [[] for _ in rows]
        for number, each in enumerate(asked):
            mine[each.place].append(number)
        for place, row in enumerate(rows):
            problems[place] = next((said.problems[i] for i in mine[place] if said.problems[i]), None)
            if problems[place] is None:
                found = [asked[i].candidate for i in mine[place]]
                proba[place] = composed(found, said.proba[mine[place]], slots, TRUST_IN_A_WORD)
                proba[place, len(split_words(pool[int(row)].text)) :] = np.eye(1, classes)
        return Answers(np.asarray(rows), proba, np.zeros(len(rows), bool), tuple(problems), said.alarms)


def check(capabilities: Capabilities, kind: Kind) -> None:
    """Make sure that an LLM can judge candidates.

    Raises:
        ConfigError: it gives no probabilities.
    """
    if not capabilities.probabilities or capabilities.by_uid:
        raise ConfigError(
            f"reading: {kind} needs an LLM that gives the probability of each label; this one gives none: set "
            "reading: written"
        )


def prompt_of(prompt: Prompt) -> Prompt:
    """The prompt that asks what one candidate is: one of the types of `prompt`, or none; by words, if they have any."""
    meanings, words = {**prompt.labels, NONE: NEITHER}, words_of(prompt)
    labels = {
        label: {"means": meaning, "words": list(words[label])} if label in words else meaning
        for label, meaning in meanings.items()
    }
    front = yaml.safe_dump({"labels": labels}, sort_keys=False, allow_unicode=True)
    return prompts.parse(prompt.path, f"---\n{front}---\n{BY_WORDS if words else BY_NAME}")


def words_of(prompt: Prompt) -> Mapping[str, Sequence[str]]:
    """The words that each type goes by; nothing, if types go by their names."""
    return prompt.task.words if isinstance(prompt.task, Tokens) else {}


def questions_of(pool: Pool, kind: Kind, most: int | None = MOST) -> Pool:
    """Every candidate of every text, at most `most` of each, as the first round asks about them."""
    found = ((each, candidate) for each in pool.examples for candidate in proposed(each.text, kind, most=most))
    return Pool(tuple(question(each, candidate) for each, candidate in found))


def turns_of(demos: Sequence[Demonstration], prompt: Prompt, kind: Kind) -> tuple[Demonstration, ...]:
    """Questions about each demonstration: one entity of each type, and the first candidate apart from all."""
    return tuple(turn for demo in demos for turn in _turns_of(demo, list(prompt.labels), kind))


def _turns_of(demo: Demonstration, types: Sequence[str], kind: Kind) -> list[Demonstration]:
    spans = ground(demo.label, demo.text, types).spans or ()
    named: dict[str, str] = {}
    for span in spans:
        named.setdefault(span.type, span.of(demo.text))
    places = split_words(demo.text)
    apart = (
        demo.text[places[start].start : places[end - 1].end]
        for start, end in proposed(demo.text, kind)
        if all(places[end - 1].end <= span.start or span.end <= places[start].start for span in spans)
    )
    named_and_not = [*named.items(), *((NONE, words) for words in islice(apart, 1))]
    return [
        Demonstration(demo.text, label, demo.row, demo.probability, {**demo.fields, "words": words})
        for label, words in named_and_not
    ]
