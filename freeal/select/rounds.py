"""Which of the rounds done is the result, without gold: the last one, unless it did harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from freeal.select.calibration import FEWEST, FLOOR
from freeal.select.noise import estimated_error
from freeal.types import Annotations, BoolArray, FloatArray, IntArray, LoopState, argmax, by_row

MARGINS = {"kappa": 0.1, "evenness": 0.1, "certainty": 0.1, "answered": 0.1, "believed": 0.1, "upheld": 0.1}
"""How far a sign must fall to speak against a round; from round to round of good runs they move by less, or rise."""

COLLAPSED = 0.25
"""Evenness below which nearly all rows have one label; two labels at 96 to 4 have it.

The tags of words often are not far above it: a round that comes down to it by less than the margin has not collapsed.
"""

NONE, SOME = 0.05, 0.2
"""Kappa up to which student and LLM agree no more than by chance, and from which on they clearly do."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What tells how good the labels of a round are, from 0 (kappa: -1) to 1; None where there is nothing to tell.

    `kappa`: agreement of the LLM with a student that has not seen the row, beyond chance, so that one label for
    everything is no agreement (Cohen, 1960). `evenness`: entropy of the labels' shares, of log k; of entities both are
    told of words and their tags, see `telling`. `certainty`: one less the estimated noise. `answered`: of the rows
    asked in the round those with a readable answer. `believed`: of the rows with an answer. `upheld`: of the rows of
    the pool that the round was shown as demonstrations those whose labels it left as they were shown, so that what is
    one less is how far they drifted.
    """

    kappa: float | None
    evenness: float
    certainty: float
    answered: float | None
    believed: float | None
    upheld: float | None = None


def signs(state: LoopState, upheld: float | None = None) -> Signs:
    """Those of the round that led to `state`; `upheld` is known to who saw what was shown, see `upheld_share`."""
    k = state.posterior.shape[-1]
    said, labelled = state.annotations, state.annotations.labelled
    asked = said.asked_in == state.next_round - 1
    failed = np.array([problem is not None for problem in said.problems], bool)
    noise = estimated_error(state.posterior, [str(c) for c in range(k)]).overall
    return Signs(
        kappa=agreement(said, state.student),
        evenness=evenness(argmax(state.posterior)[telling(said.proba, state.student)], k),
        certainty=0.0 if noise is None else 1.0 - noise,
        answered=1.0 - float(failed[asked].mean()) if asked.any() else None,
        believed=float(state.clean[labelled].mean()) if labelled.any() else None,
        upheld=upheld,
    )


def upheld_share(shown: Mapping[int, str], final: Mapping[int, str]) -> float | None:
    """Share of the rows `shown` in a round as demonstrations whose `final` label after it is the one they had.

    Args:
        shown: row of the pool -> its label as it was shown.
        final: row -> its label after the round, written as a demonstration has it; a row without one upholds nothing.

    Returns:
        None where no row of the pool was shown.

    Example:
        >>> upheld_share({3: "good", 7: "bad"}, {3: "good", 7: "good"})
        0.5
    """
    if not shown:
        return None
    return float(np.mean([final.get(row) == label for row, label in shown.items()]))


def agreement(said: Annotations, student: FloatArray) -> float | None:
    """Kappa of LLM and student over the `telling` decisions of rows that the LLM labelled; None without any."""
    told = _told(said, student)
    if not told.any():
        return None
    return kappa(said.labels[told], argmax(student)[told], student.shape[-1])


def telling(llm: FloatArray, student: FloatArray) -> BoolArray:
    """(n,), or (n, s), decisions that tell something: all but the slots behind the last word of a text.

    There the student says O (the first tag) for certain, and so does the LLM, but for the FLOOR that calibration leaves
    to every class, or it abstains. Two that are filled alike do not agree, and most slots are such where one text is
    long. Classes and several labels a row, (n, k) and (n, s, 2), have no such slots: all tell.

    Args:
        llm, student: (n, k) or (n, s, k); NaN where the LLM abstained.

    Example:
        >>> behind = [1.0, 0.0, 0.0]
        >>> telling(np.array([[[0.9, 0.05, 0.05], behind]]), np.array([[[0.8, 0.1, 0.1], behind]]))
        array([[ True, False]])
    """
    if student.ndim < 3 or student.shape[-1] < 3:
        return np.ones(student.shape[:-1], bool)
    nothing = np.isnan(llm[..., 0]) | (llm[..., 1:] <= FLOOR).all(axis=-1)
    filled: BoolArray = nothing & (student[..., 1:] == 0.0).all(axis=-1)
    return ~filled


def _told(said: Annotations, student: FloatArray) -> BoolArray:
    """(n,), or (n, s), decisions on which both have spoken."""
    return by_row(said.labelled, student[..., 0]) & telling(said.proba, student)


def by_chance(said: Annotations, student: FloatArray) -> float | None:
    """Kappa of LLM and student if they agree no more than by chance; None if they do, or too little is there to tell.

    Kappa is at most NONE, and two standard errors more (Cohen, 1960; of rows, for decisions of one row are no
    independent witnesses) are less than SOME; and each label has FEWEST rows, for a student to learn it from.

    Args:
        student: (n, k) or (n, s, k), of rows that it did not learn from; all alike if there is none.

    Example:
        >>> llm, student = np.eye(2)[np.arange(400) % 2], np.eye(2)[np.arange(400) // 2 % 2]
        >>> said = Annotations(llm, llm, np.zeros(400, np.int16), np.full(400, None, object))
        >>> by_chance(said, student), by_chance(said, llm), by_chance(said, np.full((400, 2), 0.5))
        (0.0, None, None)
    """
    rows, found = int(said.labelled.sum()), agreement(said, student)
    if found is None or found > NONE or np.ptp(student) == 0 or rows < FEWEST * student.shape[-1]:
        return None
    agreed = float((said.labels == argmax(student))[_told(said, student)].mean())
    if agreed == 1.0:
        return None
    error = (1.0 - found) * float(np.sqrt(agreed / (1.0 - agreed) / rows))
    return found if found + 2.0 * error < SOME else None


def best_round(history: Sequence[Signs]) -> tuple[int, str | None]:
    """Place of the round that is the result and, if it is not the last, what is wrong with those after it.

    Later rounds have seen more and are taken unless they did harm: from the last one back, a round gives way to the one
    before it where its labels collapsed to one, where student and LLM ceased to agree, or where agreement and other
    signs fell by more than their margin, together more than half as many as there are without `upheld`. Of two rounds
    that were both shown rows of the pool `upheld` is one sign more that may have fallen. Sureness alone moves nothing:
    who repeats himself is sure.

    Raises:
        ValueError: no round.
    """
    if not history:
        raise ValueError("history: no round is done")
    chosen, why = len(history) - 1, None
    for earlier in range(len(history) - 2, -1, -1):
        if told := _harm(history[earlier], history[chosen]):
            chosen, why = earlier, told
    return chosen, why


def _harm(before: Signs, now: Signs) -> str | None:
    """What got worse from one round to a later one, if that is enough to go back."""
    if now.evenness < COLLAPSED <= before.evenness and before.evenness - now.evenness > MARGINS["evenness"]:
        return f"later nearly all rows have one label (evenness {before.evenness:.2f}, then {now.evenness:.2f})"
    if before.kappa is not None and now.kappa is not None and now.kappa <= NONE and before.kappa >= SOME:
        return f"later LLM and student agree no more than by chance (kappa {before.kappa:.2f}, then {now.kappa:.2f})"
    pairs = {each.name: (getattr(before, each.name), getattr(now, each.name)) for each in fields(Signs)}
    known = {name: pair for name, pair in pairs.items() if None not in pair}
    fallen = [name for name, (was, is_now) in known.items() if was - is_now > MARGINS[name]]
    if "kappa" not in fallen or 2 * len(fallen) <= len(known.keys() - {"upheld"}):
        return None
    told = ", ".join(f"{name} {known[name][0]:.2f} to {known[name][1]:.2f}" for name in fallen)
    return f"later signs fell: {told}"


def kappa(first: IntArray, second: IntArray, k: int) -> float:
    """Cohen's kappa of two labellings (m,) with classes below `k`: 0 is what chance gives, 1 full agreement.

    Zero, too, where both give one label to everything: then there is nothing to agree on.

    Example:
        >>> kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), 2)
        0.5
    """
    agree = float((first == second).mean())
    chance = float((np.bincount(first, minlength=k) * np.bincount(second, minlength=k)).sum()) / len(first) ** 2
    return 0.0 if chance >= 1.0 else (agree - chance) / (1.0 - chance)


def evenness(labels: IntArray, k: int) -> float:
    """Entropy of the shares of `labels` (m,), as a share of log k; abstentions (-1) apart.

    Example:
        >>> evenness(np.array([0, 1, 0, 1]), 2), evenness(np.array([1, 1, 1]), 2)
        (1.0, 0.0)
    """
    counts: FloatArray = np.bincount(labels[labels >= 0], minlength=k).astype(np.float64)
    shares = counts[counts > 0] / max(1.0, counts.sum())
    return abs(float(-(shares * np.log(shares)).sum() / np.log(k)))
