"""What a label is: one of a few names, any number of them, or entities in the text. What differs is behind `Task`.

Sizes: a row needs one decision among `k` classes, (k,), or `s` such decisions, (s, k).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from freeal.types import BoolArray, FloatArray, IntArray

Kind = Literal["classification", "multilabel", "tokens"]

TRUST_IN_A_WORD = 0.9
"""Probability given to the label of a bare word; FreeAL's GPT-3.5 words on MR are 93.7 % right."""


class Said(NamedTuple):
    """What a written reply says: `proba` (k,), or (s, k) for the words of a text; None, with a `problem`, abstains.

    `dropped`: why something that it names was left out, a cause for each. `named`: the entities or labels that it
    names, kept or not; None where it could not be read, or names one label as any reply does. `invented`: those that
    are not in the text.
    """

    proba: FloatArray | None
    problem: str | None = None
    dropped: tuple[str, ...] = ()
    named: tuple[str, ...] | None = None
    invented: tuple[str, ...] = ()


class Form(NamedTuple):
    """JSON that a written reply is held to: its `schema`, and how the LLM is `told` of it."""

    schema: Mapping[str, Any]
    told: str


def rarest(there: BoolArray) -> IntArray:
    """(n,) the place of the rarest group that each row of `there` (n, g) has; -1 where it has none.

    Example:
        >>> rarest(np.array([[True, True], [True, False], [False, False]]))
        array([ 1,  0, -1])
    """
    rarity = np.where(there, -there.sum(axis=0), -len(there) - 1)
    return np.where(there.any(axis=1), rarity.argmax(axis=1), -1)


def with_meaning(labels: Mapping[str, str], label: str) -> str:
    """A label with what it means, if that is said.

    Example:
        >>> with_meaning({"joy": "glad", "fear": ""}, "joy"), with_meaning({"joy": "glad", "fear": ""}, "fear")
        ('joy (glad)', 'fear')
    """
    return f"{label} ({labels[label]})" if labels[label] else label


class Task(Protocol):
    """One kind of label. `labels` maps the names of the prompt file to their meanings."""

    @property
    def kind(self) -> Kind: ...

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """(k,) names of what one decision chooses among."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the kinds of rows that demonstrations are spread over."""

    @property
    def alike_by_nature(self) -> bool:
        """Whether nearly all decisions come to the same, and rightly so: most words are no entity."""

    @property
    def questions(self) -> int:
        """Calls that a row costs."""

    @property
    def room(self) -> int:
        """Tokens that a written reply may take."""

    @property
    def form(self) -> Form | None:
        """How replies are written as JSON; None where they are written as the prompt file says."""

    def in_json(self) -> Task:
        """The same task with replies, and so demonstrations, in JSON; itself, where there is no such form."""

    def meaning(self, labels: Mapping[str, str]) -> Task:
        """The same task, but the labels mean something else."""

    @property
    def answers(self) -> tuple[str, ...]:
        """What the variable of '## assistant' may be, class by class; none where the LLM is to write."""

    @property
    def owners(self) -> IntArray:
        """(a,) the class of each of `answers`: several may stand for one."""

    @property
    def variables(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names that '## user' and '## assistant' may use beside the text, its id, and the labels."""

    def asked(self, question: int) -> Mapping[str, str]:
        """The variables that tell a row's questions apart."""

    def answered(self, label: str, question: int) -> Mapping[str, str]:
        """The variables of '## assistant' for a demonstration's `label`."""

    def shape(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Of what is said of one of `texts`: (k,) or (s, k)."""

    def heard(self, reply: str | None, text: str) -> Said:
        """What a written reply to one question about `text` says."""

    def correction(self, replies: Sequence[str]) -> str:
        """What the LLM is told whose reply could not be read; `replies` are those put to it."""

    def best(self, proba: FloatArray) -> IntArray:
        """(n,) or (n, s) what distributions (n, k) or (n, s, k) come to; -1 for an abstention."""

    def there(self, best: IntArray) -> BoolArray:
        """(n, g) which of `groups` each row belongs to; none of them, if it is an abstention."""

    def group(self, best: IntArray) -> IntArray:
        """(n,) the rarest of each row's `groups`, so that none is left out for frequent ones; -1 for an abstention."""

    def write(self, text: str, best: IntArray) -> str:
        """A row's label as the LLM is to write it, and as a demonstration has it."""

    def tells(self, text: str, best: IntArray) -> bool:
        """Whether `write` tells all of a row's label, so that it can be demonstrated."""

    def commission(self, group: str) -> str:
        """What a new text of one of `groups` must be, as the LLM is told that writes it."""

    def composed(self, written: str, group: str) -> tuple[str, str] | None:
        """The text, and its label as `write` has it, in the line the LLM wrote of a group; None if it is no use."""

    def gold(self, texts: Sequence[str], true: Sequence[Any]) -> IntArray:
        """(n,) or (n, s) the classes of what `data` read of each of `texts`; -1 where that is unknown."""

    def pretended(self, number: int, text: str) -> str:
        """Some label for `text`, to see and to count what prompts will look like."""

    def cells(self, text: str, best: IntArray, proba: FloatArray) -> dict[str, Any]:
        """Columns of the product for one row."""
