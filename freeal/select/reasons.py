"""Whose word a row's label is, and why, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from freeal.types import Annotations, Best, BoolArray, FloatArray, LoopState, alike, spoken

By = Literal["loss", "confidence", "agreement"]
"""What makes a row believed on which LLM and student agree: how easily it was learned, how sure the student is of it,
or nothing else."""


def believed_by(filter_kind: str, belief_kind: str) -> By:
    """By what a run with these settings (`filter.kind`, `belief.kind`) believes rows."""
    if belief_kind == "confident":
        return "confidence"
    return "agreement" if filter_kind == "none" else "loss"


def sources(state: LoopState, best: Best) -> list[str]:
    """Whose word a row's label is: both, llm, student (the other said something else, or nothing), or nobody.

    Of a row with several decisions: who decided the same throughout; `fused` where neither did. `best` says what
    distributions come to.
    """
    final, llm, student = map(best, (state.posterior, state.annotations.proba, state.student))
    given = spoken(state.posterior)
    by_llm, by_student = alike(final, llm), alike(final, student) & ~mute(state.student)
    names = np.where(given, "fused" if final.ndim > 1 else "nobody", "nobody").astype(object)
    names[given & by_student] = "student"
    names[given & by_llm] = "llm"
    names[given & by_llm & by_student] = "both"
    return [str(name) for name in names]


def reasons(state: LoopState, best: Best, speaker: str = "LLM", by: By = "loss") -> list[str]:
    """Why each row's label is what it is, in one sentence a row.

    Args:
        best: what distributions come to.
        speaker: who says what the annotations hold, the LLM or its understudy.
        by: what else than that both agree makes a row believed.
    """
    rows = zip(
        sources(state, best), silences(state.annotations), mute(state.student), state.clean, spoken(state.posterior),
        strict=True,
    )  # fmt: skip
    return [_reason(*row, speaker, by) for row in rows]


def _reason(source: str, silence: str | None, alone: bool, believed: bool, given: bool, speaker: str, by: By) -> str:
    """That of one row; `silence`: why the speaker says nothing, `alone`: the student does not."""
    match source:
        case "both" if believed:
            return f"{speaker} and student agree{_FOUND[by][0]}: believed"
        case "both":
            return f"{speaker} and student agree{_FOUND[by][1]}: not believed"
        case "llm" if alone:
            return f"the {speaker}'s word alone: no student has a say"
        case "llm":
            return f"the student says otherwise; the {speaker} is surer"
        case "student" if silence:
            return f"the {speaker} {silence}: the student's word alone"
        case "student":
            return f"the {speaker} says otherwise; the student is surer"
        case "fused":
            return f"{speaker} and student differ in part: each decision is the surer one's"
    if given:
        return f"{speaker} and student differ: together they favour a third label"
    return f"no label: the {speaker} {silence}, and no student has a say"


_FOUND: Mapping[By, tuple[str, str]] = {
    "loss": (", and the student found it easy", ", but the student found it hard"),
    "confidence": (", and it is among those the student is surest of", ", but the student is surer of others"),
    "agreement": ("", ", but the student did not learn from the row"),
}


def silences(said: Annotations) -> list[str | None]:
    """Why the LLM says nothing of a row; None where it does."""
    rows = zip(said.labelled, said.asked_in, said.problems, strict=True)
    return [None if told else _silence(int(asked_in), problem) for told, asked_in, problem in rows]


def _silence(asked_in: int, problem: str | None) -> str:
    if problem:
        return f"gave no label ({problem})"
    return "was not asked" if asked_in < 0 else "gave no label"


def mute(student: FloatArray) -> BoolArray:
    """(n,) rows of which a student's distributions, (n, k) or (n, s, k), prefer no label: it has said nothing."""
    flat = student.reshape(len(student), -1) if len(student) else np.zeros((0, 1))
    silent: BoolArray = np.ptp(flat, axis=1) == 0
    return silent
