"""A student for several labels a text: a cross-fitted linear one for each, on the same vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from freeal.errors import ModelError
from freeal.student import Keep
from freeal.student.embedders import Embedder
from freeal.student.linear import LinearStudent
from freeal.student.linear import load as load_linear
from freeal.types import PROBABILITY, FloatArray, Inputs, StudentView

NAMES = ("no", "yes")

C = 10.0
"""Inverse strength of the regularisation, unless the configuration has one: with that of one label a text, a label that
few of some dozen texts have is never found, and no row that has one is believed (docs/log.md)."""


class EachLabelStudent:
    """One `LinearStudent` a label: targets and views are (n, s, 2).

    Args:
        labels: the s labels.
        make: a new student of one of them.
    """

    losses_: FloatArray
    """(1, m, s) out of fold, of each label."""

    out_of_fold_: FloatArray | None

    def __init__(self, labels: Sequence[str], make: Callable[[], LinearStudent]) -> None:
        self.labels = tuple(labels)
        self.make = make
        self.students: list[LinearStudent] = []
        self.losses_ = np.zeros((1, 0, len(self.labels)), PROBABILITY)
        self.out_of_fold_ = None

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Learn the distributions `targets` (m, s, 2); `weights` are those of rows (m,), or of each label's (m, s)."""
        s = len(self.labels)
        counted = [weights] * s if weights is None or weights.ndim == 1 else list(weights.T)
        self.students = [self.make().fit(inputs, targets[:, slot], counted[slot], keep) for slot in range(s)]
        self.losses_ = np.stack([each.losses_ for each in self.students], axis=-1)
        unseen = [each.out_of_fold_ for each in self.students if each.out_of_fold_ is not None]
        self.out_of_fold_ = np.stack(unseen, axis=1)
        return self

    def view(self, inputs: Inputs) -> StudentView:
        """`proba` (n, s, 2), and the embedder's vectors (n, d)."""
        views = [each.view(inputs) for each in self._fitted()]
        return StudentView(np.stack([view.proba for view in views], axis=1), views[0].embeddings)

    def save(self, folder: Path) -> None:
        """A folder a label, numbered in their order, and `labels.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(self._fitted()):
            each.save(folder / f"{number:03d}")
        (folder / "labels.json").write_text(json.dumps(self.labels, ensure_ascii=False) + "\n", encoding="utf-8")

    def _fitted(self) -> list[LinearStudent]:
        if not self.students:
            raise ModelError("this student has learned nothing yet: call fit, or open a saved one with load")
        return self.students


def load(folder: Path, embedder: Embedder) -> EachLabelStudent:
    """The student that `save` wrote, on the embedder it was trained with.

    Raises:
        ModelError: there is no such student in `folder`.
    """
    try:
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no student of several labels that can be read: {error}") from error
    found = EachLabelStudent(labels, lambda: _unused())
    found.students = [load_linear(folder / f"{number:03d}", embedder) for number in range(len(labels))]
    return found


def _unused() -> LinearStudent:
    raise ModelError("a student that was opened from a folder does not learn")
