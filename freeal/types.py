"""The data that flows: values only, no behaviour beyond looking at themselves.

Sizes: `n` examples in the pool, `m` labelled rows, `k` classes, `d` dimensions. `rows` are indices
into the pool. A distribution that is NaN throughout is an abstention: the LLM was not asked, or its
reply could not be read. Where a row needs `s` decisions and not one (several labels a row), every
(n, k) here is (n, s, k) and every (n,) of classes (n, s); a row then abstains as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]
ObjectArray = NDArray[np.object_]

Best = Callable[[FloatArray], IntArray]
"""What distributions (n, k) or (n, s, k) come to, (n,) or (n, s), -1 for an abstention: `argmax`, or `Task.best`."""

PROBABILITY = np.float32
"""Distributions are kept as float32 in memory and on disk, so that a resumed run sees the same bytes."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text to label; `fields` holds the other columns of its row, for prompts that use them.

    `tokenized`: it came as tokens, and the single spaces in it are what divides them.
    """

    id: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)
    tokenized: bool = False


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
    group: int | None = None
    """The kind of row it is, see `Task.groups`; None where `label` is the name of that."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one pass of the LLM gave: `rows` (a,), `proba` (a, k) with NaN where it abstained, and why it did.

    `scored` (a,): the LLM gave real probabilities; False where it gave a mere word. `alarms`: what is wrong with the
    answers as a whole, see `select/habits.py`. `dropped`: how much of what the LLM named was left out, by cause.
    """

    rows: IntArray
    proba: FloatArray
    scored: BoolArray
    problems: tuple[str | None, ...]
    alarms: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)


NO_CALL = "no call left: stop.max_calls"
"""Why a row has no answer that was not asked about, for lack of calls."""


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
    def none(cls, n: int, shape: tuple[int, ...]) -> Annotations:
        """No row asked yet; `shape` is that of one row's distributions, (k,) or (s, k)."""
        blank = np.full((n, *shape), np.nan, PROBABILITY)
        return cls(blank, blank.copy(), np.full(n, -1, np.int16), np.full(n, None, object))

    @property
    def labelled(self) -> BoolArray:
        """(n,) rows on which the LLM gave a readable answer."""
        return spoken(self.proba)

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
class Guidelines:
    """What became of the meanings of the labels before a round: those `before`, and those `proposed` by the LLM.

    `kept`: the proposed ones are in force from this round on. On `agreed_before` and `agreed` of `rows` compared rows
    LLM and student agreed with the old and with the new ones. `notes` tell why.
    """

    before: Mapping[str, str]
    proposed: Mapping[str, str]
    kept: bool
    notes: Sequence[str] = ()
    rows: int = 0
    agreed_before: int = 0
    agreed: int = 0

    @property
    def meanings(self) -> Mapping[str, str]:
        """Those in force."""
        return self.proposed if self.kept else self.before


@dataclass(frozen=True, slots=True)
class LoopState:
    """Everything that survives a round; a run is resumed from this alone.

    `posterior` (n, k) is the one distribution a row, `student` (n, k) the student's own, `p_clean` (n,)
    and `clean` (n,) what the filter believes of the LLM's labels (False where the LLM abstained), by the
    student's `loss` (n,) in nats (NaN where it did not learn), `changed` the share of the pool whose label
    is another than a round before (1.0 after the first). `guidelines`: None while the labels mean what the prompt says.
    `vectors` (n, d): the student's, where demonstrations are retrieved by them, else None.
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
    guidelines: Guidelines | None = None
    vectors: FloatArray | None = None

    @property
    def meanings(self) -> Mapping[str, str] | None:
        """Of the labels, in force in the last round; None: those of the prompt."""
        return self.guidelines.meanings if self.guidelines else None

    @classmethod
    def start(cls, n: int, shape: tuple[int, ...], demos: Sequence[Demonstration] = ()) -> LoopState:
        """Before the first round: nobody has said anything. `shape` as in `Annotations.none`."""
        blank = np.full((n, *shape), np.nan, PROBABILITY)
        return cls(
            0, Annotations.none(n, shape), blank, blank.copy(), np.zeros(n, PROBABILITY), np.zeros(n, bool),
            np.full(n, np.nan, PROBABILITY), tuple(demos),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found of a round and steers no other: its figures, what was said of the test, and what was shown.

    `test`: who -> (t, k) distributions over the rows `test_ids`. `shown`: row of the pool -> its label as it was shown,
    of every demonstration that any question of the round had.
    """

    figures: Mapping[str, Any]
    test: Mapping[str, FloatArray] = field(default_factory=dict)
    test_ids: Sequence[str] = ()
    shown: Mapping[int, str] = field(default_factory=dict)


def argmax(proba: FloatArray) -> IntArray:
    """(n,) most probable class of each row of `proba` (n, k), -1 for an abstention; (n, s) of (n, s, k)."""
    best = np.where(np.isnan(proba), -np.inf, proba).argmax(axis=-1)
    return np.where(np.isnan(proba[..., 0]), -1, best)


def surest(proba: FloatArray, best: IntArray | None = None) -> FloatArray:
    """(n,) probability of the label of each row; of several decisions a row the least; NaN for an abstention.

    Args:
        proba: (n, k) or (n, s, k).
        best: (n,) or (n, s) the classes that the rows come to, where these are not the likeliest ones: of tags those
            that make valid entities.
    """
    there = argmax(proba) if best is None else best
    sure: FloatArray = np.take_along_axis(proba.astype(np.float64), there[..., None], axis=-1)[..., 0]
    if sure.ndim == 1:
        return sure
    least: FloatArray = sure.min(axis=-1, initial=1.0)
    return least


def spoken(proba: FloatArray) -> BoolArray:
    """(n,) rows of `proba` (n, k) or (n, s, k) that are no abstentions."""
    flat = proba.reshape(len(proba), -1) if len(proba) else proba.reshape(0, 1)
    return ~np.isnan(flat[:, 0])


def answered(proba: FloatArray) -> BoolArray:
    """(n,), or (n, s), decisions of `proba` (n, k), or (n, s, k), of which something is known.

    Of one that was asked about in vain, in a row that others were answered of, every class is as likely.

    Example:
        >>> answered(np.array([[[0.5, 0.5], [0.3, 0.7]], [[np.nan, np.nan], [np.nan, np.nan]]]))
        array([[False,  True],
               [False, False]])
    """
    told: BoolArray = np.ptp(proba, axis=-1) > 0
    return told


def alike(first: IntArray, second: IntArray) -> BoolArray:
    """(n,) rows on which two arrays of classes, (n,) or (n, s), are the same throughout.

    Example:
        >>> alike(np.array([[0, 1], [1, 1]]), np.array([[0, 1], [1, 0]]))
        array([ True, False])
    """
    same: BoolArray = (first == second).reshape(len(first), -1).all(axis=1)
    return same


def portion(share: float, n: float) -> int:
    """The least whole number that is `share` of `n` or more, and no more than that for how floats are rounded.

    Example:
        >>> portion(0.07, 100), 0.07 * 100, portion(0.071, 100)
        (7, 7.000000000000001, 8)
    """
    return int(np.ceil(round(share * n, 9)))


def by_row(mask: BoolArray, proba: FloatArray) -> BoolArray:
    """`mask` (n,) with as many axes as `proba` has, to choose whole rows of it."""
    return mask.reshape(-1, *[1] * (proba.ndim - 1))
