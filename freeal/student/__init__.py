"""Who learns: the protocol every student follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from freeal.types import CleanSplit, FloatArray, Inputs, StudentView

Keep = Callable[[FloatArray], CleanSplit]
"""A filter: losses (epochs, m) in nats -> which rows are believed clean. While it trains, a student gives its last."""


class Student(Protocol):
    """A small model that learns from noisy targets and tells which of them it found easy."""

    losses_: FloatArray
    """(epochs, m) cross-entropy in nats of each training row under its given (most probable) label."""

    out_of_fold_: FloatArray | None
    """(m, k) what the student says of each training row without having learned from it; None if it cannot tell."""

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Learn `targets` (m, k), rows of which add up to one; `weights` (m,) default to one."""

    def view(self, inputs: Inputs) -> StudentView:
        """Read any inputs: probabilities (n, k) and embeddings (n, d)."""

    def save(self, folder: Path) -> None:
        """Write the student so that `load` of its module, and its own library, open it."""
