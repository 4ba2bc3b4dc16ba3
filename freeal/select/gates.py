"""What a finished run should be looked at for, before its labels are used."""

from __future__ import annotations

import numpy as np

from freeal.types import Annotations, BoolArray, FloatArray, argmax

COLLAPSED = 0.95
FEWEST = 20
"""Rows below which one label for all of them is no collapse."""


def warnings(
    posterior: FloatArray, student: FloatArray, said: Annotations, believed: BoolArray, max_failed: float
) -> list[str]:
    """Reasons for doubt, none for a run that went well.

    Args:
        posterior: (n, k) final distributions, NaN for rows without a label.
        student: (n, k) the student's own; all alike if there is none.
        said: what the LLM said; a row that was never asked is no failure.
        believed: (n,) rows whose label is believed.
        max_failed: the largest share of rows asked, but without an answer, that is no reason for doubt.
    """
    found = []
    if (share := _largest(posterior)) > COLLAPSED:
        found.append(f"one label for {share:.1%} of the rows: the labels may have collapsed")
    elif np.ptp(student) > 0 and (share := _largest(student)) > COLLAPSED:
        found.append(f"the student gives one label to {share:.1%} of the rows: it may have learned nothing else")
    if not believed.any():
        found.append("no row is believed: student and LLM agree on nothing that the filter takes for clean")
    asked = said.asked_in >= 0
    failed = 1 - float(said.labelled[asked].mean()) if asked.any() else 0.0
    if failed > max_failed:
        most = f"more than {max_failed:.1%} (stop.max_failed)"
        found.append(f"{failed:.1%} of the rows asked got no readable answer from the LLM, {most}")
    return found


def _largest(proba: FloatArray) -> float:
    """Share of the rows with a label that have the most frequent one; zero where they are too few to tell."""
    best = argmax(proba)
    if len(best) < FEWEST or not (best >= 0).any():
        return 0.0
    counts = np.bincount(best[best >= 0])
    return float(counts.max() / counts.sum())
