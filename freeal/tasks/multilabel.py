"""Any number of labels a text: each label is a question of its own, answered by yes or no."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from freeal.errors import PromptError
from freeal.tasks import Kind, Said, rarest, with_meaning
from freeal.tasks.classification import Classification, fold, validate_labels
from freeal.types import BoolArray, FloatArray, IntArray, argmax

NO, YES = "no", "yes"
BETWEEN = "; "
NONE = "none"
"""How a text without any label is written."""


def listed(told: str, known: Container[str]) -> list[Any] | None:
    """The labels of a text as one cell has them: a JSON list, or names with `;`, `|` or `,` between them.

    Args:
        told: what the cell says; separators alone tell nothing, and give None, `[]` no label.
        known: the names there are, folded: one with a comma in it is not cut.

    Example:
        >>> listed('["joy"]', {"joy"}), listed("joy, love", {"joy", "love"}), listed("sad, but true", {"sad, but true"})
        (['joy'], ['joy', 'love'], ['sad, but true'])
    """
    if told.strip().startswith("["):
        with suppress(ValueError):
            found = json.loads(told)
            if isinstance(found, list):
                return found
    if fold(told) in known:
        return [told]
    between = next((mark for mark in (";", "|", ",") if mark in told), ";")
    return [name.strip() for name in told.split(between) if name.strip()] or None


@dataclass(frozen=True)
class Multilabel:
    """Each text has any number of `labels`; distributions are (n, s, 2), a "no" and a "yes" for each of s labels.

    Raises:
        PromptError: the labels cannot be told apart, or one cannot be told from the others' list.

    Example:
        >>> task = Multilabel({"joy": "", "love": ""})
        >>> task.write("a hug", np.array([1, 1])), task.write("a stone", np.array([0, 0]))
        ('joy; love', 'none')
    """

    labels: Mapping[str, str]
    kind: Kind = "multilabel"
    alike_by_nature: bool = False
    room: int = 8
    form: None = None

    def __post_init__(self) -> None:
        validate_labels(list(self.labels), least=1)
        for label in self.labels:
            if ";" in label or fold(label) == NONE:
                raise PromptError(f"label {label!r}: with several labels a text no name may be 'none' or have a ';'")

    @property
    def classes(self) -> tuple[str, ...]:
        return NO, YES

    answers = classes

    @property
    def owners(self) -> IntArray:
        return np.arange(len(self.answers))

    def meaning(self, labels: Mapping[str, str]) -> Multilabel:
        return replace(self, labels=labels)

    def in_json(self) -> Multilabel:
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        return *self.labels, NONE

    @property
    def questions(self) -> int:
        return len(self.labels)

    @property
    def variables(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return ("label", "meaning"), ("label", "meaning", "answer")

    def asked(self, question: int) -> Mapping[str, str]:
        name = list(self.labels)[question]
        return {"label": name, "meaning": self.labels[name]}

    def answered(self, label: str, question: int) -> Mapping[str, str]:
        names = {fold(name): name for name in self.labels}
        found = listed(label, names)
        told = None if found is None else [None if name is None else fold(str(name)) for name in found]
        if told is not None and (told == [NONE] or set(told) <= set(names)):
            return {"answer": YES if fold(list(self.labels)[question]) in told else NO}
        return {"answer": label}  # of a recording: what is not understood is no answer

    def shape(self, texts: Sequence[str]) -> tuple[int, ...]:
        return len(self.labels), 2

    def heard(self, reply: str | None, text: str) -> Said:
        said = self._yes_or_no.heard(reply, text)
        return said if said.proba is None else said._replace(named=(YES,) if said.proba.argmax() else ())

    def correction(self, replies: Sequence[str]) -> str:
        return f"Reply with one of these and nothing else: {', '.join(replies)}"

    def best(self, proba: FloatArray) -> IntArray:
        return argmax(proba)

    def there(self, best: IntArray) -> BoolArray:
        labels = best == 1
        return np.column_stack([labels, (best == 0).all(axis=1)])

    def group(self, best: IntArray) -> IntArray:
        return rarest(self.there(best))

    def write(self, text: str, best: IntArray) -> str:
        return BETWEEN.join(self._names(best)) or NONE

    def tells(self, text: str, best: IntArray) -> bool:
        return True

    def commission(self, group: str) -> str:
        others = ", ".join(with_meaning(self.labels, other) for other in self.labels if other != group)
        if group == NONE:
            return f"that is about none of these: {others}."
        return f"that is clearly about: {with_meaning(self.labels, group)}. It must not be about: {others}."

    def composed(self, written: str, group: str) -> tuple[str, str] | None:
        return (written, group) if written else None

    def gold(self, texts: Sequence[str], true: Sequence[Any]) -> IntArray:
        places = np.arange(len(self.labels))
        rows = [np.full(len(places), -1) if there is None else np.isin(places, there) for there in true]
        return np.array(rows, np.int64).reshape(-1, len(places))

    def pretended(self, number: int, text: str) -> str:
        return list(self.labels)[number % len(self.labels)]

    def cells(self, text: str, best: IntArray, proba: FloatArray) -> dict[str, Any]:
        if best[0] < 0:
            return {"labels": None, "probabilities": None}
        there = {name: round(float(p), 6) for name, p in zip(self.labels, proba[:, 1], strict=True)}
        return {"labels": self._names(best), "probabilities": there}

    def _names(self, best: IntArray) -> list[str]:
        return [name for name, there in zip(self.labels, best, strict=True) if there == 1]

    @cached_property
    def _yes_or_no(self) -> Classification:
        return Classification({NO: "", YES: ""})
