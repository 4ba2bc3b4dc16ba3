"""What a finished run should be looked at for, before its labels are used."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from freeal.select.calibration import information
from freeal.select.rounds import by_chance
from freeal.types import Annotations, BoolArray, FloatArray, argmax, spoken

COLLAPSED = 0.95
FEWEST = 20
"""Rows below which one label for all of them is no collapse."""


def warnings(
    posterior: FloatArray,
    student: FloatArray,
    said: Annotations,
    believed: BoolArray,
    max_failed: float,
    min_information: float,
    understudy: Mapping[str, float] | None = None,
) -> list[str]:
    """Reasons for doubt, none where nothing is seen to be amiss.

    Errors that are consistent, so that the student learns them, cannot be seen without gold; `freeal audit` finds them.

    Args:
        posterior: (n, k) final distributions, NaN for rows without a label.
        student: (n, k) the student's own, of rows that it did not learn from; all alike if there is none.
        said: what the LLM said; a row that was never asked is no failure.
        believed: (n,) rows whose label is believed.
        max_failed: the largest share of rows asked, but without an answer, that is no reason for doubt.
        min_information: the least that the LLM's first answers may tell of the labels, see `information`.
        understudy: the texts "written" to teach who took its place, and how often that was right on them "out_of_fold".
    """
    found = []
    if (share := _largest(posterior)) > COLLAPSED:
        found.append(f"one label for {share:.1%} of the rows: the labels may have collapsed")
    elif np.ptp(student) > 0 and (share := _largest(student)) > COLLAPSED:
        found.append(f"the student gives one label to {share:.1%} of the rows: it may have learned nothing else")
    elif (kappa := by_chance(said, student)) is not None:
        found.append(
            f"LLM and student agree no more than by chance (kappa {kappa:.2f} over {said.labelled.sum():,} rows): "
            "nothing in the texts foretells the labels, which may be wrong throughout; label a sample (freeal audit)"
        )
    told_apart = information(said.first)
    if told_apart is not None and (understudy or told_apart < min_information):
        instead = (
            f"): the labels are those of a student of {understudy['written']} texts that it wrote, "
            f"{understudy['out_of_fold']:.0%} right on such (cold_start.rescue=0: they are not); "
            "label a sample (freeal audit)"
            if understudy
            else f", stop.min_information is {min_information:.0%}); look at the prompt and the label names"
        )
        apart = f"{told_apart:.1%} of what it might tell"
        found.append(f"the LLM hardly tells the labels apart ({apart}{instead}, or take another LLM")
    if not believed.any():
        found.append("no row is believed: student and LLM agree on nothing that the filter takes for clean")
    asked = said.asked_in >= 0
    if left := int((~asked & ~spoken(posterior)).sum()):
        found.append(
            f"{left:,} of {len(posterior):,} rows have no label: the LLM was not asked about them, and no student "
            "speaks for them; allow more calls (stop.max_calls), or have a student (student.kind)"
        )
    failed = 1 - float(said.labelled[asked].mean()) if asked.any() else 0.0
    if failed > max_failed:
        most = f"more than {max_failed:.1%} (stop.max_failed)"
        found.append(f"{failed:.1%} of the rows asked got no readable answer from the LLM, {most}")
    return found


def _largest(proba: FloatArray) -> float:
    """Share of the rows with a label that have the most frequent one; zero where they are too few to tell."""
    best = argmax(proba)[spoken(proba)]
    if len(proba) < FEWEST or not len(best):
        return 0.0
    _, counts = np.unique(best.reshape(len(best), -1), axis=0, return_counts=True)
    return float(counts.max() / counts.sum())
