"""Logistic regression on frozen embeddings: learned in seconds, and its losses are out of fold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from freeal.config import LinearConfig
from freeal.errors import ModelError
from freeal.student import Keep
from freeal.student.embedders import Description, Embedder
from freeal.student.lessons import Lesson, look_over, losses_under, spread
from freeal.types import PROBABILITY, FloatArray, Inputs, IntArray, StudentView

NEGLIGIBLE = 1e-3
"""Entries of a target up to this are not worth a row of the regression."""

C = 1.0
"""Inverse strength of the regularisation, unless the configuration has one."""

FLOOR = 1e-3
"""Probability of a label of which no training row speaks: small, but its losses stay finite."""


class LinearStudent:
    """A linear layer on what a frozen encoder makes of the texts.

    Each row's loss comes from a regression that saw neither the row nor another of the same text, so
    that a wrong label cannot confirm itself.

    Args:
        config: strength of the regularisation, number of folds.
        labels: names of the k classes in the order of the targets' columns.
        seed: of the folds.
        embedder: texts -> (n, d); never changed.
    """

    losses_: FloatArray

    def __init__(self, config: LinearConfig, labels: Sequence[str], seed: int, embedder: Embedder) -> None:
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed
        self.embedder = embedder
        self.losses_ = np.zeros((1, 0), PROBABILITY)
        self.out_of_fold_: FloatArray | None = None
        self._head: _Head | None = None

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Learn the distributions `targets` (m, k); `losses_` (1, m) are out of fold. `keep` is not asked.

        Raises:
            DataError: no rows, or targets that are no distributions.
        """
        lesson = look_over(inputs, targets, weights, len(self.labels))
        embeddings = self.embedder.encode(inputs.texts)
        unseen = self._out_of_fold(embeddings, lesson)
        self.out_of_fold_ = unseen
        self.losses_ = losses_under(lesson.given, unseen)[None, :]
        self._head = _learn(embeddings, lesson.targets, lesson.weights, self.config.c or C)
        return self

    def view(self, inputs: Inputs) -> StudentView:
        """`proba` (n, k) float32, and the embedder's vectors (n, d)."""
        embeddings = self.embedder.encode(inputs.texts)
        return StudentView(self._fitted().proba(embeddings, len(self.labels)), embeddings)

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` and `student.json` (labels, and which embedder belongs to it)."""
        head = self._fitted()
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"classes": head.classes, "coefficients": head.coefficients, "intercepts": head.intercepts}
        save_file(arrays, folder / "head.safetensors")
        card = {"kind": "linear", "labels": list(self.labels), "embedder": dict(self.embedder.description)}
        (folder / "student.json").write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def _out_of_fold(self, embeddings: FloatArray, lesson: Lesson) -> FloatArray:
        """(m, k) of heads that have not seen the row; even for a single row, as nothing else was seen."""
        k = len(self.labels)
        proba = np.full((len(lesson), k), 1.0 / k, PROBABILITY)
        folds = spread(lesson.given, lesson.inputs.texts, self.config.folds, self.seed)
        for fold in range(folds.max() + 1):
            rest = folds != fold
            if rest.any() and not rest.all():
                head = _learn(embeddings[rest], lesson.targets[rest], lesson.weights[rest], self.config.c or C)
                proba[~rest] = head.proba(embeddings[~rest], k)
        return proba

    def _fitted(self) -> _Head:
        if self._head is None:
            raise ModelError("this student has learned nothing yet: call fit, or open a saved one with load")
        return self._head


def load(folder: Path, embedder: Embedder) -> LinearStudent:
    """The student that `save` wrote, for `view`, on the embedder it was trained with.

    Raises:
        ModelError: there is no such student in `folder`, or the embedder is another.
    """
    try:
        card = json.loads((folder / "student.json").read_text(encoding="utf-8"))
        head = _Head(**load_file(folder / "head.safetensors"))
        labels, trained_on = card["labels"], card["embedder"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder}: no linear student that can be read: {error}") from error
    if _essence(trained_on) != _essence(embedder.description):
        raise ModelError(f"{folder}: was trained on {trained_on}; found the embedder {dict(embedder.description)}")
    student = LinearStudent(LinearConfig(), labels, 0, embedder)
    student._head = head
    return student


@dataclass(frozen=True, slots=True)
class _Head:
    """Weights for the p labels that occurred: `classes` (p,), `coefficients` (p, d), `intercepts` (p,)."""

    classes: IntArray
    coefficients: FloatArray
    intercepts: FloatArray

    def proba(self, embeddings: FloatArray, k: int) -> FloatArray:
        """(n, k) float32; labels that did not occur share FLOOR each."""
        proba = np.full((len(embeddings), k), FLOOR)
        seen = softmax(embeddings @ self.coefficients.T + self.intercepts, axis=1)
        proba[:, self.classes] = seen * (1.0 - FLOOR * (k - len(self.classes)))
        return proba.astype(PROBABILITY)


def _learn(embeddings: FloatArray, targets: FloatArray, weights: FloatArray, c: float) -> _Head:
    """A regression on soft targets: each row once for every label it may have, weighted by the probability."""
    rows, classes = np.nonzero(targets > NEGLIGIBLE)
    mass = targets[rows, classes] * weights[rows]
    rows, classes, mass = rows[mass > 0], classes[mass > 0], mass[mass > 0]
    found = np.unique(classes)
    if len(found) < 2:  # nothing to tell apart: this label always, or any, if every weight is zero
        flat = found if len(found) else np.arange(targets.shape[1])
        return _Head(flat, np.zeros((len(flat), embeddings.shape[1]), np.float32), np.zeros(len(flat), np.float32))
    regression = LogisticRegression(C=c, max_iter=1000).fit(embeddings[rows], classes, sample_weight=mass)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(found) == 2:  # scikit-learn keeps the second label's weights only
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([[0.0], intercepts])
    return _Head(found, coefficients.astype(np.float32), intercepts.astype(np.float32))


def _essence(description: Description) -> tuple[object, object]:
    """What must agree: a model may lie in another folder on another machine."""
    return description.get("kind"), description.get("dimensions")
