"""The student that learns nothing, for runs without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np

from freeal.student import Keep
from freeal.types import PROBABILITY, FloatArray, Inputs, StudentView


class UniformStudent:
    """Finds every row equally easy and every label equally likely.

    Args:
        k: number of labels.
    """

    losses_: FloatArray
    out_of_fold_: FloatArray | None = None

    def __init__(self, k: int) -> None:
        self.k = k
        self.losses_ = np.zeros((1, 0), PROBABILITY)

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Look at nothing: `losses_` (1, m) are zero."""
        self.losses_ = np.zeros((1, len(inputs)), PROBABILITY)
        return self

    def view(self, inputs: Inputs) -> StudentView:
        """`proba` (n, k) all 1/k, `embeddings` (n, 1) all zero: every text is as near as any other."""
        n = len(inputs)
        return StudentView(np.full((n, self.k), 1.0 / self.k, PROBABILITY), np.zeros((n, 1), np.float32))

    def save(self, folder: Path) -> None:
        """Write `student.json`, so that the folder says what is in it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "student.json").write_text(json.dumps({"kind": "none", "k": self.k}) + "\n", encoding="utf-8")


def load(folder: Path) -> UniformStudent:
    """The student that `save` wrote."""
    return UniformStudent(int(json.loads((folder / "student.json").read_text(encoding="utf-8"))["k"]))
