"""What a finished run should be looked at for, before its labels are used."""

from __future__ import annotations

import numpy as np

from freeal.types import Annotations, BoolArray, FloatArray, argmax

COLLAPSED = 0.95
FEWEST = 20
"""Rows below which one label for all of them is no collapse."""


def warnings(posterior: FloatArray, said: Annotations, believed: BoolArray, max_failed: float) -> list[str]:
    """Reasons for doubt, none for a run that went well.

    Args:
        posterior: (n, k) final distributions, NaN for rows without a label.
        said: what the LLM said; a row that was never asked is no failure.
        believed: (n,) rows whose label is believed.
        max_failed: the largest share of rows asked, but without an answer, that is no reason for doubt.
    """
    n, found = len(posterior), []
    best = argmax(posterior)
    counts = np.bincount(best[best >= 0], minlength=posterior.shape[1])
    if n >= FEWEST and counts.max() > COLLAPSED * max(1, counts.sum()):
        share = counts.max() / max(1, counts.sum())
        found.append(f"one label for {share:.1%} of the rows: the labels may have collapsed")
    if not believed.any():
        found.append("no row is believed: student and LLM agree on nothing that the filter takes for clean")
    asked = said.asked_in >= 0
    failed = 1 - float(said.labelled[asked].mean()) if asked.any() else 0.0
    if failed > max_failed:
        most = f"more than {max_failed:.1%} (stop.max_failed)"
        found.append(f"{failed:.1%} of the rows asked got no readable answer from the LLM, {most}")
    return found
