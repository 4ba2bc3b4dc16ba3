"""Where the LLM's answers tell nothing of the labels: it writes texts, and a student of those takes its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from freeal.errors import BudgetError
from freeal.events import Emit, Note
from freeal.ledger import Ledger
from freeal.select.calibration import Calibrator, information, temperature, tempered
from freeal.student import Student
from freeal.types import Annotations, Answers, Demonstration, FloatArray, Inputs, IntArray, LoopState, argmax

WORK = "understudy"
"""What it says is told under this name."""

FACT = "understudy"
"""Under this name the ledger remembers what it was taught, and how well it learned it."""

ASKED_FOR = "understudy, texts"
"""And under this one how many texts were asked for: a run that is resumed asks for as many."""


@dataclass(frozen=True)
class Understudy:
    """It stands where a `Calibrator` does, and takes over if the first pass tells little, and itself tells more.

    An LLM that cannot say which label a text has may still write texts that have it; who learns from those reads the
    pool (Ye et al., ZeroGen, EMNLP 2022). What it says of its own lessons out of fold sets how sure it is; there it has
    to be right more often than by always naming the commonest label, and its answers have to tell more than the LLM's,
    unless those tell so little that the run would end of it (`Calibrator.min_information`): how much is told once it
    was tempered by 50 lessons swings by a factor of ten, and an LLM that was not tempered is not to win by that.

    `texts`: the pool's. `below`: the LLM writes if its answers tell less (see `information`). `most`: how many may
    still be written. `write`: so many, with their labels.
    """

    calibrate: Calibrator
    texts: Sequence[str]
    labels: Sequence[str]
    below: float
    most: Callable[[], int]
    write: Callable[[int], Sequence[Demonstration]]
    student: Callable[[], Student]
    ledger: Ledger
    emit: Emit

    def __call__(self, state: LoopState, answers: Answers) -> Annotations:
        """The annotations after `answers`; those of the whole pool, if the understudy takes over."""
        said, told = self.calibrate(state, answers), information(answers.proba)
        if state.next_round or told is None or told >= self.below:
            return said
        proba = self._read(told)
        return said if proba is None else replace(said, proba=proba)

    def _read(self, heard: float) -> FloatArray | None:
        """(n, k) what a student of written texts says of the pool; None if that is no more than `heard`, or chance."""
        lessons = self._lessons()
        classes = np.array([self.labels.index(each.label) for each in lessons], np.int64)
        if len(np.unique(classes)) < len(self.labels):
            self.emit(Note("too few texts of every label were written to learn from", WORK))
            return None
        student = self.student().fit(Inputs(tuple(each.text for each in lessons)), np.eye(len(self.labels))[classes])
        unseen = student.out_of_fold_
        if unseen is None:
            raise TypeError("an understudy has to tell what it would say of its lessons, had it not learned them")
        read = tempered(student.view(Inputs(tuple(self.texts))).proba, temperature(unseen, classes))
        right, told = float((argmax(unseen) == classes).mean()), information(read)
        to_beat = heard if heard >= self.calibrate.min_information else 0.0
        if told is None or told <= to_beat or not beyond_chance(right, classes):
            self.emit(Note("what it wrote tells the labels apart no better than its answers, or than chance", WORK))
            return None
        self.emit(Note(f"its labels are those of a student of {len(lessons)} texts that the LLM wrote", WORK))
        self.ledger.remember(FACT, {"written": len(lessons), "out_of_fold": round(right, 4), "told": told})
        return self._calibrated(read)

    def _lessons(self) -> Sequence[Demonstration]:
        kept = self.ledger.recall(ASKED_FOR, alone=True)
        count = kept if isinstance(kept, int) else self.most()
        self.ledger.remember(ASKED_FOR, count)
        if count < len(self.labels):
            return ()
        try:
            return self.write(count)
        except BudgetError as error:  # the round is kept as it is
            self.emit(Note(f"no texts are written: {error}", WORK))
            return ()

    def _calibrated(self, read: FloatArray) -> FloatArray:
        rows: IntArray = np.arange(len(read))
        every = np.ones(len(read), bool)
        heard = Answers(rows, read, every, (None,) * len(read))
        as_sure = replace(self.calibrate, min_information=0.0, taste=None)  # its lessons tell how sure it may be
        return as_sure.correction(heard, np.full_like(read, np.nan))(read, every)


def beyond_chance(right: float, classes: IntArray) -> bool:
    """Whether a share that is `right` is above that of the commonest of `classes` (m,), by a standard error.

    Who guesses among two labels passes one time in seven, with 55 lessons.

    Example:
        >>> beyond_chance(0.62, np.arange(55) % 2), beyond_chance(0.56, np.arange(55) % 2)
        (True, False)
    """
    chance = np.bincount(classes).max() / len(classes)
    return bool(right > chance + np.sqrt(chance * (1.0 - chance) / len(classes)))
