"""The data that flows: values only, no behaviour beyond looking at themselves.

Sizes: `n` examples in the pool, `m` labelled rows, `k` classes, `d` dimensions. `rows` are indices
into the pool. A distribution that is NaN throughout is an abstention: the LLM was not asked, or its
reply could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]
ObjectArray = NDArray[np.object_]

PROBABILITY = np.float32
"""Distributions are kept as float32 in memory and on disk, so that a resumed run sees the same bytes."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text to label; `fields` holds the other columns of its row, for prompts that use them."""

    id: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a student reads: texts and, if the data have them, a second wording of each (back-translations)."""

    texts: Sequence[str]
    rewordings: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: IntArray) -> Inputs:
        """The inputs of `rows`, in that order."""
        rewordings = None if self.rewordings is None else [self.rewordings[row] for row in rows]
        return Inputs([self.texts[row] for row in rows], rewordings)


@dataclass(frozen=True, slots=True)
class Pool:
    """Examples in a fixed order; every array of a run is aligned to it. It never holds gold labels."""

    examples: tuple[Example, ...]
    rewording: str | None = None
    """Name of the column with a second wording of each text, if there is one."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> Example:
        return self.examples[row]

    @property
    def texts(self) -> list[str]:
        return [example.text for example in self.examples]

    def inputs(self, rows: IntArray | None = None) -> Inputs:
        """What a student reads of `rows` (default: of the whole pool)."""
        examples = self.examples if rows is None else [self.examples[row] for row in rows]
        column = self.rewording
        rewordings = None if column is None else [example.fields.get(column) for example in examples]
        return Inputs([example.text for example in examples], rewordings)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A labelled text shown to the LLM. `row` is its place in the pool, None if the LLM wrote it."""

    text: str
    label: str
    row: int | None = None
    probability: float = 1.0
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one pass of the LLM gave: `rows` (a,), `proba` (a, k) with NaN where it abstained, and why it did.

    `scored` (a,): the LLM gave real probabilities; False where it gave a mere word.
    """

    rows: IntArray
    proba: FloatArray
    scored: BoolArray
    problems: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Annotations:
    """What the LLM has said so far of every row of the pool.

    `first` (n, k): the raw distribution of its first pass; `proba` (n, k): calibrated, all passes
    considered; `asked_in` (n,): the round of its last pass, -1 if it was never asked; `problems` (n,):
    why it abstained, None where it did not.
    """

    first: FloatArray
    proba: FloatArray
    asked_in: IntArray
    problems: ObjectArray

    @classmethod
    def none(cls, n: int, k: int) -> Annotations:
        """No row asked yet."""
        blank = np.full((n, k), np.nan, PROBABILITY)
        return cls(blank, blank.copy(), np.full(n, -1, np.int16), np.full(n, None, object))

    @property
    def labelled(self) -> BoolArray:
        """(n,) rows on which the LLM gave a readable answer."""
        return ~np.isnan(self.proba[:, 0])

    @property
    def labels(self) -> IntArray:
        """(n,) most probable class, -1 where the LLM abstained."""
        return argmax(self.proba)


@dataclass(frozen=True, slots=True)
class CleanSplit:
    """Which labels are believed: `p_clean` (m,) in [0, 1] and the mask `clean` (m,), by the `loss` (m,) in nats.

    `loss` is the mean over the epochs, NaN for what was not learned; `note` tells of a fallback.
    """

    p_clean: FloatArray
    clean: BoolArray
    loss: FloatArray
    note: str | None = None


@dataclass(frozen=True, slots=True)
class StudentView:
    """What a student makes of texts: `proba` (n, k) and `embeddings` (n, d)."""

    proba: FloatArray
    embeddings: FloatArray


@dataclass(frozen=True, slots=True)
class LoopState:
    """Everything that survives a round; a run is resumed from this alone.

    `posterior` (n, k) is the one distribution a row, `student` (n, k) the student's own, `p_clean` (n,)
    and `clean` (n,) what the filter believes of the LLM's labels (False where the LLM abstained), by the
    student's `loss` (n,) in nats (NaN where it did not learn), `changed` the share of the pool whose label
    is another than a round before (1.0 after the first).
    """

    next_round: int
    annotations: Annotations
    posterior: FloatArray
    student: FloatArray
    p_clean: FloatArray
    clean: BoolArray
    loss: FloatArray
    demos: tuple[Demonstration, ...] = ()
    changed: float = 1.0

    @classmethod
    def start(cls, n: int, k: int, demos: Sequence[Demonstration] = ()) -> LoopState:
        """Before the first round: nobody has said anything."""
        blank = np.full((n, k), np.nan, PROBABILITY)
        return cls(
            0, Annotations.none(n, k), blank, blank.copy(), np.zeros(n, PROBABILITY), np.zeros(n, bool),
            np.full(n, np.nan, PROBABILITY), tuple(demos),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found of a round and selects nothing: its figures, and what was said of the test.

    `test`: who -> (t, k) distributions over the rows `test_ids`.
    """

    figures: Mapping[str, Any]
    test: Mapping[str, FloatArray] = field(default_factory=dict)
    test_ids: Sequence[str] = ()


def argmax(proba: FloatArray) -> IntArray:
    """(n,) most probable class of each row of `proba` (n, k), -1 for an abstention."""
    best = np.where(np.isnan(proba), -np.inf, proba).argmax(axis=1)
    return np.where(np.isnan(proba[:, 0]), -1, best)
