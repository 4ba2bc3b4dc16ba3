"""The loop, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from freeal.events import Emit, Note, RoundFinished
from freeal.select.beliefs import Lessons
from freeal.store import RunStore
from freeal.student import Keep, Student
from freeal.types import (
    PROBABILITY,
    Annotations,
    Answers,
    Best,
    BoolArray,
    CleanSplit,
    Demonstration,
    FloatArray,
    IntArray,
    LoopState,
    Measured,
    Pool,
    StudentView,
    alike,
)


class Reader(Protocol):
    """Who asks the LLM about rows, however many questions that takes."""

    def after(self, state: LoopState) -> Reader:
        """The same, for the round that begins with `state`."""

    def annotate(self, pool: Pool, rows: IntArray, shown: Sequence[Sequence[Demonstration]], work: str) -> Answers:
        """What is said of `rows`, each shown with its demonstrations; `work` is what the ledger calls it."""


class Demos(Protocol):
    """Who chooses what the LLM is shown."""

    def begin(self, pool: Pool) -> Sequence[Demonstration]:
        """Demonstrations before the first round: none, or such as the LLM writes itself."""

    def retrieve(self, pool: Pool, rows: IntArray, state: LoopState) -> Sequence[Sequence[Demonstration]]:
        """What to show with each of `rows`; never the row itself."""

    def build(
        self, pool: Pool, posterior: FloatArray, believed: BoolArray, view: StudentView
    ) -> Sequence[Demonstration]:
        """The demonstrations of the next round."""

    def kept(self, view: StudentView) -> FloatArray | None:
        """(n, d) what the next round compares rows by, if that is the student's."""


@dataclass(frozen=True)
class Parts:
    """The decisions of a run, each one callable; `build` makes them from a configuration."""

    query: Callable[[LoopState], IntArray]
    demos: Demos
    refine: Callable[[Pool, LoopState], LoopState]
    annotator: Reader
    calibrate: Callable[[LoopState, Answers], Annotations]
    lessons: Callable[[Annotations, LoopState], Lessons]
    new_student: Callable[[int], Student]
    filter: Keep
    fuse: Callable[[Annotations, FloatArray, BoolArray], FloatArray]
    believe: Callable[[Annotations, FloatArray, BoolArray], BoolArray]
    stop: Callable[[LoopState], str | None]
    measure: Callable[[LoopState, Student, Sequence[Sequence[Demonstration]], Answers], Measured]
    best: Best
    emit: Emit


def run(pool: Pool, parts: Parts, store: RunStore, shape: tuple[int, ...], max_rounds: int) -> str:
    """Alternate annotation by the LLM and training of the student; return why it stopped.

    Args:
        pool: the n texts to label.
        parts: the decisions.
        store: where each round is kept; the loop goes on after the last one it holds.
        shape: of what is said of one row.
        max_rounds: the most rounds, those already in `store` counted.
    """
    state = store.resume()
    if state is not None and (reason := parts.stop(state)):
        return reason
    state = state or LoopState.start(len(pool), shape, parts.demos.begin(pool))
    # fmt: off
    for number in range(state.next_round, max_rounds):
        asked = parts.query(state)                                          # 1. which rows to ask about
        if not len(asked):
            return "nothing left to ask"
        with store.round(number) as record:
            shown = parts.demos.retrieve(pool, asked, state)                #    and what to show with each
            state = parts.refine(pool, state)                               #    what the labels mean, said anew
            answers = parts.annotator.after(state).annotate(pool, asked, shown, f"round {number}")
            annotations = parts.calibrate(state, answers)                   # 2. the LLM labels
            lessons = parts.lessons(annotations, state)                     #    abstentions drop out here
            taught = lessons.targets, lessons.weights
            student = parts.new_student(number).fit(pool.inputs(lessons.rows), *taught, keep=parts.filter)
            split = parts.filter(student.losses_)                           # 3. small losses: clean labels
            view = unconfirmed(student.view(pool.inputs()), lessons.rows, student)
            clean = over_pool(split, lessons.rows, len(pool))               # 4. the student reads the whole pool
            believed = parts.believe(annotations, view.proba, clean.clean)  #    and is believed where both agree;
            posterior = parts.fuse(annotations, view.proba, believed)       #    one distribution a row
            demos = parts.demos.build(pool, posterior, believed, view)      # 5. the clean teach the LLM
            state = after(state, annotations, view, clean, believed, posterior, demos, parts)
            figures = record.save(state, student, parts.measure(state, student, shown, answers))
        if split.note:
            parts.emit(Note(split.note, f"round {number}"))
        parts.emit(RoundFinished(number, figures))
        if reason := parts.stop(state):
            return reason
    # fmt: on
    return "the one round is done" if max_rounds == 1 else f"{max_rounds} rounds are done"


def unconfirmed(view: StudentView, rows: IntArray, student: Student) -> StudentView:
    """The view with what the student would say of its training `rows` had it not learned from them, if it can tell."""
    if student.out_of_fold_ is None:
        return view
    proba = view.proba.copy()
    proba[rows] = student.out_of_fold_
    return StudentView(proba, view.embeddings)


def over_pool(split: CleanSplit, rows: IntArray, n: int) -> CleanSplit:
    """A split of `rows` as one of the whole pool: what the student did not learn from is not believed."""
    p_clean, clean, loss = np.zeros(n, PROBABILITY), np.zeros(n, bool), np.full(n, np.nan, PROBABILITY)
    p_clean[rows], clean[rows], loss[rows] = split.p_clean, split.clean, split.loss
    return CleanSplit(p_clean, clean, loss, split.note)


def after(
    state: LoopState,
    annotations: Annotations,
    view: StudentView,
    clean: CleanSplit,
    believed: BoolArray,
    posterior: FloatArray,
    demos: Sequence[Demonstration],
    parts: Parts,
) -> LoopState:
    """The state that the next round reads."""
    return LoopState(
        next_round=state.next_round + 1,
        annotations=annotations,
        posterior=posterior.astype(PROBABILITY),
        student=view.proba.astype(PROBABILITY),
        p_clean=clean.p_clean.astype(PROBABILITY),
        clean=believed,
        loss=clean.loss.astype(PROBABILITY),
        demos=tuple(demos),
        changed=float(1.0 - alike(parts.best(posterior), parts.best(state.posterior)).mean()),
        guidelines=state.guidelines,
        vectors=parts.demos.kept(view),
    )
