"""One label out of a few: the choices put to the LLM, and how its reply is read.

Reading is tolerant of form (case, quotes, emphasis, a full stop, "Label:", a small JSON object) and strict
about content: a reply that is not exactly one label is an abstention, never a guess.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from freeal.errors import PromptError
from freeal.tasks import TRUST_IN_A_WORD, Kind, Said, with_meaning
from freeal.types import PROBABILITY, BoolArray, FloatArray, IntArray, argmax


class Reading(NamedTuple):
    """What a reply says: `label` is a class index, or None with the `problem` told."""

    label: int | None
    problem: str | None = None


@dataclass(frozen=True)
class Classification:
    """Each text has exactly one of `labels`, a mapping from name to meaning; its order is the class index.

    `words`: label -> what the LLM may call it, the most general word first; a label without any goes by its name. The
    probability of a label is that of its words together (a verbalizer; Schick and Schütze, EACL 2021, sec. 3.1): where
    the label is a box of many things, "entity", a small LLM knows the things better than the box.

    Raises:
        PromptError: the labels cannot be told apart, see `validate_labels`.

    Example:
        >>> task = Classification({"negative": "", "positive": ""})
        >>> task.read("**Positive.**").label
        1
        >>> task.read("positive or negative").problem
        "not a label: 'positive or negative'"
    """

    labels: Mapping[str, str]
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: Kind = "classification"
    questions: int = 1
    alike_by_nature: bool = False
    room: int = 32
    form: None = None

    def __post_init__(self) -> None:
        validate_labels(list(self.labels))
        validate_labels(list(self.answers))
        validate_labels([*self.labels, *(word for label, word in self._spoken if fold(word) != fold(label))])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.labels)

    groups = classes

    @cached_property
    def answers(self) -> tuple[str, ...]:
        return tuple(word for _, word in self._spoken)

    @cached_property
    def owners(self) -> IntArray:
        return np.array([self.classes.index(label) for label, _ in self._spoken], np.int64)

    @property
    def _spoken(self) -> list[tuple[str, str]]:
        """(label, word) of every word, in the order of the labels."""
        return [(label, word) for label in self.labels for word in self.words.get(label) or (label,)]

    def meaning(self, labels: Mapping[str, str]) -> Classification:
        return replace(self, labels=labels)

    def in_json(self) -> Classification:
        return self

    @property
    def variables(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (), ("label",)

    def asked(self, question: int) -> Mapping[str, str]:
        return {}

    def answered(self, label: str, question: int) -> Mapping[str, str]:
        return {"label": (self.words.get(label) or (label,))[0]}

    def shape(self, texts: Sequence[str]) -> tuple[int, ...]:
        return (len(self.labels),)

    def heard(self, reply: str | None, text: str) -> Said:
        label, problem = self.read(reply)
        return Said(None, problem) if label is None else Said(word(label, len(self.labels)))

    def correction(self, replies: Sequence[str]) -> str:
        return f"That is none of the labels. Reply with one of these and nothing else: {', '.join(replies)}"

    def best(self, proba: FloatArray) -> IntArray:
        return argmax(proba)

    def there(self, best: IntArray) -> BoolArray:
        there: BoolArray = best[:, None] == np.arange(len(self.labels))
        return there

    def group(self, best: IntArray) -> IntArray:
        return best

    def write(self, text: str, best: IntArray) -> str:
        return self.classes[int(best)]

    def tells(self, text: str, best: IntArray) -> bool:
        return True

    def commission(self, group: str) -> str:
        others = ", ".join(other for other in self.labels if other != group)
        return f"that is clearly: {with_meaning(self.labels, group)}. It must not be: {others}."

    def composed(self, written: str, group: str) -> tuple[str, str] | None:
        return (written, group) if written else None

    def gold(self, texts: Sequence[str], true: Sequence[Any]) -> IntArray:
        return np.array([-1 if label is None else label for label in true], np.int64)

    def pretended(self, number: int, text: str) -> str:
        return self.classes[number % len(self.labels)]

    def cells(self, text: str, best: IntArray, proba: FloatArray) -> dict[str, Any]:
        return {"label": self.classes[int(best)] if best >= 0 else None}

    def read(self, text: str | None) -> Reading:
        """The label that `text` names and no other; an abstention with its reason otherwise."""
        if text is None or not text.strip():
            return Reading(None, "empty reply")
        if text in self._exact:
            return Reading(self._exact[text])
        for form in _forms(_unwrap(text)):
            if form in self._folded:
                return Reading(self._folded[form])
        return Reading(None, f"not a label: {text.strip()[:80]!r}")

    @cached_property
    def _exact(self) -> dict[str, int]:
        named = {label: index for index, label in enumerate(self.labels)}
        return named | dict(zip(self.answers, map(int, self.owners), strict=True))

    @cached_property
    def _folded(self) -> dict[str, int]:
        return {key: index for name, index in self._exact.items() for key in _keys(name)}


def word(label: int, k: int) -> FloatArray:
    """(k,) the distribution that a bare word stands for."""
    proba = np.full(k, (1 - TRUST_IN_A_WORD) / (k - 1), PROBABILITY)
    proba[label] = TRUST_IN_A_WORD
    return proba


def validate_labels(labels: Sequence[object], least: int = 2) -> None:
    """Make sure that replies can tell the labels apart.

    Raises:
        PromptError: fewer than `least` labels, one that is empty or no text, or two that read the same.
    """
    owners: dict[str, str] = {}
    for label in labels:
        if not isinstance(label, str):
            raise PromptError(
                f"label {label!r} is no text but {type(label).__name__}; "
                "put it in quotes (YAML reads no, yes, on, off, null, 1 and dates as something else)"
            )
        if not label.strip():
            raise PromptError(f"label {label!r} is empty; every label needs a name")
        for key in _keys(label):
            if key in owners:
                raise PromptError(f"labels {owners[key]!r} and {label!r} read the same in a reply; rename one of them")
        owners.update(dict.fromkeys(_keys(label), label))
    if len(labels) < least:
        raise PromptError(f"{len(labels)} label(s) found, at least {'two are' if least == 2 else f'{least} is'} needed")


def fold(text: str) -> str:
    """`text` in the form in which labels are compared: NFC, trimmed, without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).strip()


def _keys(label: str) -> set[str]:
    """Every form under which a reply may name `label`: with and without the decoration in its own name."""
    *_, bare = _forms(label)
    return {key for key in (fold(label), bare) if key}


_PAIRS = {'"': '"', "'": "'", "`": "`", "*": "*", "_": "_", "“": "”", "‘": "’", "«": "»", "„": "“"}
_PREFIX = re.compile(r"[*_]*label[*_]*\s*:[*_]*\s*")


def _forms(text: str) -> Iterator[str]:
    """`text` folded, and then with one decoration after the other taken off, outermost first."""
    form, periods = fold(text), 1
    while True:
        yield form
        if len(form) > 2 and _PAIRS.get(form[0]) == form[-1]:
            form = form[1:-1].strip()
        elif periods and len(form) > 1 and form.endswith((".", "。")):
            form, periods = form[:-1].rstrip(), 0
        elif prefix := _PREFIX.match(form):
            form = form[prefix.end() :]
        else:
            return


_FENCED = re.compile(r"```[\w-]*\s*\n?(.*?)\n?\s*```", re.DOTALL)


def _unwrap(text: str) -> str:
    """What a Markdown fence or a JSON object `{"label": ...}` around the whole reply holds; else `text` itself."""
    text = text.strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1]
    try:
        found = json.loads(text, object_pairs_hook=_only_label)
    except (ValueError, RecursionError):  # most replies are no JSON
        return text
    return str(found) if isinstance(found, (str, _Named)) else text


class _Named(str):
    """The value of `label` in a JSON object."""


def _only_label(pairs: Iterable[tuple[str, object]]) -> _Named | None:
    named = [value for key, value in pairs if fold(key) == "label"]
    if len(named) != 1 or isinstance(named[0], bool) or not isinstance(named[0], (str, int)):
        return None
    return _Named(named[0])
