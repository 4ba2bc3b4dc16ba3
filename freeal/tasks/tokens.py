"""Entities in the text: the LLM names their words, which are found in the text; arrays hold a BIO tag for each word."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from freeal.errors import PromptError
from freeal.tasks import TRUST_IN_A_WORD, Form, Kind, Said, rarest, tags, with_meaning
from freeal.tasks.classification import Classification, fold, validate_labels
from freeal.tasks.grounding import ground, listed
from freeal.tasks.spans import Span, Word, split_words, tag_vocabulary, to_spans, to_tags
from freeal.types import PROBABILITY, BoolArray, FloatArray, IntArray

MOST_WORDS = 128
"""Words of a text that are read; of those behind nothing is said, and an entity that ends there is left out."""

BEHIND = "behind the last word read"
"""Why an entity is dropped that ends there."""

NONE = "none"
"""How a text without entities is written."""

MARK = re.compile(r"\[(?P<words>[^\[\]]+)\]\s?\((?P<kind>[^()\[\]]+)\)")
"""How the LLM marks an entity in a text that it writes itself."""

JSON_ROOM = 256
"""Tokens of a reply in JSON, which says more words about each entity."""


@dataclass(frozen=True)
class Tokens:
    """Entities of the types `labels`; distributions are (n, s, k) over BIO tags, s words of the longest text.

    `words`: type, or NONE -> what an LLM that is asked about candidates may call it, the most general word first.

    Raises:
        PromptError: the types, or the words, cannot be told apart, or a type is called as what is no entity.

    Example:
        >>> task = Tokens({"PER": "", "LOC": ""})
        >>> text = "Ann met Bob"
        >>> task.write(text, task.tagged(text, [Span(0, 3, "PER"), Span(8, 11, "PER")]))
        'PER: Ann | Bob'
    """

    labels: Mapping[str, str]
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: Kind = "tokens"
    questions: int = 1
    alike_by_nature: bool = True
    room: int = 96
    answers: tuple[str, ...] = ()
    as_json: bool = False
    """Replies are JSON, an object for each entity, and so is what `write` gives; else lines, one for each type."""

    def __post_init__(self) -> None:
        validate_labels(list(self.labels), least=1)
        if clash := next((label for label in self.labels if fold(label) == NONE), None):
            raise PromptError(f"type {clash!r} is called as what is no entity; rename it")
        tags = [label for label in self.labels if label[:2] == "B-" and f"I-{label[2:]}" in self.labels]
        if tags:
            types = ", ".join(tag[2:] for tag in tags)
            raise PromptError(f"types are named as tags are: {', '.join(self.labels)}; name the types alone: {types}")
        if self.words:
            Classification({**self.labels, NONE: ""}, self.words)

    @property
    def owners(self) -> IntArray:
        return np.arange(0)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tag_vocabulary(list(self.labels))

    @cached_property
    def form(self) -> Form | None:
        if not self.as_json:
            return None
        types = list(self.labels)
        entity = _object({"text": {"type": "string"}, "type": {"type": "string", "enum": types}})
        told = (
            "Whatever form is named above, reply with JSON: "
            f"{self._written([('words as they stand in the text', types[0])])}, "
            f"an object for each that occurs, in the order of the text; if there is none, {self._written([])}"
        )
        return Form(_object({"entities": {"type": "array", "items": entity}}), told)

    def meaning(self, labels: Mapping[str, str]) -> Tokens:
        return replace(self, labels=labels)

    def in_json(self) -> Tokens:
        return replace(self, as_json=True, room=JSON_ROOM)

    @property
    def groups(self) -> tuple[str, ...]:
        return *self.labels, NONE

    @property
    def variables(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (), ("entities",)

    def asked(self, question: int) -> Mapping[str, str]:
        return {}

    def answered(self, label: str, question: int) -> Mapping[str, str]:
        return {"entities": label}

    def shape(self, texts: Sequence[str]) -> tuple[int, ...]:
        longest = max((len(split_words(text)) for text in texts), default=0)
        return min(longest, MOST_WORDS), len(self.classes)

    def heard(self, reply: str | None, text: str) -> Said:
        words = split_words(text)
        found = ground(reply, text, list(self.labels), words)
        unread = [span.of(text) for span in behind(words, found.spans or ())]
        dropped = (*(each.cause for each in found.dropped), *[BEHIND] * len(unread))
        named = tuple(map(fold, found.named)) if found.spans is not None or found.named else None
        invented = tuple(fold(each.words) for each in found.dropped if each.cause == "invented")
        rest = (dropped, named, invented)
        if found.spans is None:
            return Said(None, found.problem, *rest)
        if unread and len(unread) == len(found.spans):
            return Said(None, f"all that was named ends {BEHIND}: {', '.join(map(repr, unread[:3]))}", *rest)
        best = self.tagged(text, found.spans)
        k = len(self.classes)
        proba = np.full((len(best), k), (1 - TRUST_IN_A_WORD) / (k - 1), PROBABILITY)
        proba[np.arange(len(best)), best] = TRUST_IN_A_WORD
        return Said(proba, None, *rest)

    def correction(self, replies: Sequence[str]) -> str:
        if self.form:
            return f"That could not be read. {self.form.told}"
        return (
            "That could not be read. Reply with a line for each type that occurs, as in  type: words | other words  "
            f"(types: {', '.join(self.labels)}; the words exactly as they stand in the text), or with  {NONE}"
        )

    def tagged(self, text: str, spans: Sequence[Span]) -> IntArray:
        """(w,) classes of the words of `text` that are read; an entity that ends behind them is left out."""
        words = split_words(text)
        unread = set(behind(words, spans))
        names = to_tags([span for span in spans if span not in unread], words)[:MOST_WORDS]
        return np.array([self.classes.index(name) for name in names], np.int64)

    def spans(self, text: str, best: IntArray) -> tuple[Span, ...]:
        """The entities that the classes `best` (s,) give to `text`."""
        words = split_words(text)[: len(best)]
        return to_spans([self.classes[c] for c in best[: len(words)]], words)

    def best(self, proba: FloatArray) -> IntArray:
        return tags.decode(proba)

    def there(self, best: IntArray) -> BoolArray:
        of_types = ((best[..., None] > 0) & ((best[..., None] - 1) // 2 == np.arange(len(self.labels)))).any(axis=1)
        return np.column_stack([of_types, (best == 0).all(axis=1)])

    def group(self, best: IntArray) -> IntArray:
        return rarest(self.there(best))

    def write(self, text: str, best: IntArray) -> str:
        return self._written([(" ".join(span.of(text).split()), span.type) for span in self.spans(text, best)])

    def tells(self, text: str, best: IntArray) -> bool:
        if len(split_words(text)) > MOST_WORDS:
            return False
        said = self.heard(self.write(text, best), text) if best.any() else None
        if said is None or said.proba is None:
            return said is None
        return np.array_equal(self.best(said.proba[None])[0], best[: len(said.proba)])

    def _written(self, named: Sequence[tuple[str, str]]) -> str:
        """A reply that names these words, each with its type, in the order of the text.

        Where the same words have several types it is JSON in any case: lines would not tell which is where.
        """
        namesakes = len(set(named)) > len({words for words, _ in named})
        if self.as_json or namesakes:
            return json.dumps(
                {"entities": [{"text": words, "type": type_} for words, type_ in named]}, ensure_ascii=False
            )
        of_type = {type_: dict.fromkeys(words for words, each in named if each == type_) for type_ in self.labels}
        return "\n".join(f"{type_}: {listed(list(words))}" for type_, words in of_type.items() if words) or NONE

    def commission(self, group: str) -> str:
        types = "; ".join(with_meaning(self.labels, label) for label in self.labels)
        if group == NONE:
            return f"in which nothing of these kinds is named: {types}."
        return (
            f"in which at least one {with_meaning(self.labels, group)} is named. Mark all that it names of these "
            f"kinds: {types}. A mark is [the exact words](kind), as in [the words]({group})."
        )

    def composed(self, written: str, group: str) -> tuple[str, str] | None:
        names = {fold(label): label for label in self.labels}
        text, spans, read = "", [], 0
        for mark in MARK.finditer(written):
            text += written[read : mark.start()]
            words, kind = mark["words"].strip(), names.get(fold(mark["kind"]))
            if kind is None or not words:
                return None
            spans.append(Span(len(text), len(text) + len(words), kind))
            text, read = text + words, mark.end()
        text += written[read:]
        here = {span.type for span in spans} or {NONE}
        if not text or set("[]") & set(text) or group not in here:
            return None
        best = self.tagged(text, spans)
        return (text, self.write(text, best)) if self.tells(text, best) else None

    def gold(self, texts: Sequence[str], true: Sequence[Any]) -> IntArray:
        slots = self.shape(texts)[0]
        rows = [self.tagged(text, spans or ()) for text, spans in zip(texts, true, strict=True)]
        classes = padded(rows, slots)
        classes[[spans is None for spans in true]] = -1
        return classes

    def pretended(self, number: int, text: str) -> str:
        first = next((text[start:end] for start, end in split_words(text)), "-")
        return self._written([(first, list(self.labels)[number % len(self.labels)])])

    def cells(self, text: str, best: IntArray, proba: FloatArray) -> dict[str, Any]:
        if len(best) and best[0] < 0:
            return {"spans": None}
        starts = [start for start, _ in split_words(text)]
        ends = [end for _, end in split_words(text)]
        types = list(self.labels)
        return {
            "spans": [
                {
                    "start": span.start, "end": span.end, "label": span.type, "text": span.of(text),
                    "probability": round(tags.span_confidence(
                        proba, starts.index(span.start), ends.index(span.end) + 1, types.index(span.type)
                    ), 4),
                }
                for span in self.spans(text, best)
            ]
        }  # fmt: skip


def behind(words: Sequence[Word], spans: Sequence[Span]) -> list[Span]:
    """Those of `spans` that end behind those of a text's `words` that are read."""
    return [span for word in words[MOST_WORDS : MOST_WORDS + 1] for span in spans if span.end > word.start]


def _object(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of an object with these and no others; servers that are strict want every one required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def padded(rows: Sequence[IntArray], slots: int) -> IntArray:
    """(n, slots) classes of words, and O behind the last word of each text."""
    made = np.zeros((len(rows), slots), np.int64)
    for place, row in enumerate(rows):
        made[place, : len(row)] = row[:slots]
    return made
