"""Whose word a row's label is, and why, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from freeal.types import Annotations, Best, BoolArray, FloatArray, LoopState, alike, spoken

By = Literal["loss", "confidence", "agreement"]
"""What makes a row believed on which LLM and student agree: how easily it was learned, how sure the student is of it,
or nothing else."""

Rule = Literal["pooled", "llm", "student", "believed"]
"""Whose word stands where LLM and student differ: that which weighs more when they are pooled; always the one of whom
alone has a weight; or the student's on believed rows and the LLM's on the others."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a run decides: what makes a row believed, and whose word stands.

    `verified`: the LLM was asked again about each entity on which it and the student differ.
    """

    by: By = "loss"
    rule: Rule = "pooled"
    verified: bool = False


DEFAULT = Decision()


def believed_by(filter_kind: str, belief_kind: str) -> By:
    """By what a run with these settings (`filter.kind`, `belief.kind`) believes rows."""
    if belief_kind == "confident":
        return "confidence"
    return "agreement" if filter_kind == "none" else "loss"


def decided_by(fusion_kind: str, llm_weight: float, student_weight: float) -> Rule:
    """Whose word stands in a run with these settings (`fusion.kind`, `fusion.llm`, `fusion.student`).

    Example:
        >>> decided_by("log_linear", 0.5, 0.5), decided_by("log_linear", 1.0, 0.0), decided_by("freeal", 0.5, 0.5)
        ('pooled', 'llm', 'believed')
    """
    if fusion_kind == "freeal":
        return "believed"
    if not student_weight:
        return "llm"
    return "pooled" if llm_weight else "student"


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


def reasons(state: LoopState, best: Best, speaker: str = "LLM", decision: Decision = DEFAULT) -> list[str]:
    """Why each row's label is what it is, in one sentence a row.

    Args:
        best: what distributions come to.
        speaker: who says what the annotations hold, the LLM or its understudy.
        decision: how the run decides.
    """
    rows = zip(
        sources(state, best), silences(state.annotations), mute(state.student), state.clean, spoken(state.posterior),
        strict=True,
    )  # fmt: skip
    return [_reason(*row, speaker, decision) for row in rows]


def _reason(
    source: str, silence: str | None, alone: bool, believed: bool, given: bool, speaker: str, decision: Decision
) -> str:
    """That of one row; `silence`: why the speaker says nothing, `alone`: the student does not."""
    match source:
        case "both" if believed:
            return f"{speaker} and student agree{_FOUND[decision.by][0]}: believed"
        case "both":
            return f"{speaker} and student agree{_FOUND[decision.by][1]}: not believed"
        case "llm" if alone:
            return f"the {speaker}'s word alone: no student has a say"
        case "student" if silence:
            return f"the {speaker} {silence}: the student's word alone"
        case "llm" | "student" | "fused" if decision.verified:
            return f"{speaker} and student differ: {_VERIFIED[source]}, as far as calls went"
        case "llm":
            return _llm_stands(speaker, decision.rule)
        case "student":
            return _student_stands(speaker, decision.rule)
        case "fused":
            return f"{speaker} and student differ in part: their words are pooled decision by decision"
    if given:
        return f"{speaker} and student differ: together they favour a third label"
    return f"no label: the {speaker} {silence}, and no student has a say"


def _llm_stands(speaker: str, rule: Rule) -> str:
    """Why it does against the student's word."""
    match rule:
        case "believed":
            return f"{speaker} and student differ: not believed, so the {speaker}'s word stands"
        case "llm":
            return f"the {speaker}'s word alone: the student, which says otherwise, has no say"
        case _:
            return f"pooled with the student's, which says otherwise, the {speaker}'s word weighs more"


def _student_stands(speaker: str, rule: Rule) -> str:
    """Why it does against the LLM's word."""
    if rule == "student":
        return f"the student's word alone: the {speaker}, which says otherwise, has no say"
    return f"pooled with the {speaker}'s, which says otherwise, the student's word weighs more"


_VERIFIED: Mapping[str, str] = {
    "llm": "the LLM's word stands, now that it was asked again about each entity in dispute",
    "student": "the student's word stands, now that the LLM was asked again about each entity in dispute",
    "fused": "each entity in dispute is one if the LLM, asked again, says so",
}
"""Where the budget does not suffice to ask again, labels stay pooled: hence the `as far as calls went` behind each."""

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
    told = "was not asked" if asked_in < 0 else "gave no label"
    return f"{told} ({problem})" if problem else told


def mute(student: FloatArray) -> BoolArray:
    """(n,) rows of which a student's distributions, (n, k) or (n, s, k), prefer no label: it has said nothing."""
    flat = student.reshape(len(student), -1) if len(student) else np.zeros((0, 1))
    silent: BoolArray = np.ptp(flat, axis=1) == 0
    return silent
