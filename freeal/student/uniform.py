"""The student that learns nothing, for runs without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from freeal.student import Keep
from freeal.types import PROBABILITY, FloatArray, Inputs, StudentView


class UniformStudent:
    """Finds every row equally easy and every label equally likely.

    Args:
        shape: texts -> that of what is said of one of them, (k,) or (s, k).
    """

    losses_: FloatArray
    out_of_fold_: FloatArray | None = None

    def __init__(self, shape: Callable[[Sequence[str]], tuple[int, ...]]) -> None:
        self.shape = shape
        self.losses_ = np.zeros((1, 0), PROBABILITY)

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Look at nothing: `losses_` (1, m) are zero."""
        self.losses_ = np.zeros((1, len(inputs)), PROBABILITY)
        return self

    def view(self, inputs: Inputs) -> StudentView:
        """`proba` (n, k) or (n, s, k) all 1/k, `embeddings` (n, 1) all zero: every text is as near as any other."""
        n, shape = len(inputs), self.shape(inputs.texts)
        return StudentView(np.full((n, *shape), 1.0 / shape[-1], PROBABILITY), np.zeros((n, 1), np.float32))

    def save(self, folder: Path) -> None:
        """Write `student.json`, so that the folder says what is in it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "student.json").write_text(json.dumps({"kind": "none"}) + "\n", encoding="utf-8")
