"""A small encoder fine-tuned on noisy labels, in a plain loop: fit → _run_epoch → _plain.

Its saved folder is an ordinary transformers checkpoint. One label a text is a softmax over k labels, any number of them
a sigmoid for each: read as "no" and "yes", these are s softmaxes over two classes, and all else is the same. Most of
its speed comes from never computing padding: texts are tokenised once and batched by length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from freeal.config import TransformerConfig
from freeal.errors import ModelError
from freeal.events import Emit, ignore
from freeal.models import quiet
from freeal.processor import bfloat16_is_faster, pick_device
from freeal.student import Keep
from freeal.student.augment import augment
from freeal.student.encoders import (
    Tokens,
    longest_input,
    open_model,
    open_tokenizer,
    pad,
    padding,
    tokenise,
)
from freeal.student.finetuning import (
    Head,
    NotFiniteError,
    Pace,
    Training,
    begin,
    open_classifier,
    own_randomness,
    readings,
    run_epoch,
    set_seed,
    twice_at_most,
)
from freeal.student.lessons import Lesson, look_over
from freeal.student.objectives import (
    JointReading,
    freeal_loss,
    no_and_yes,
    plain_loss,
    ramp,
    refined,
    soft_cross_entropy,
)
from freeal.types import PROBABILITY, BoolArray, FloatArray, Inputs, IntArray, StudentView

SEVERAL = "multi_label_classification"
"""What transformers calls a checkpoint that decides on each label apart."""


class TransformerStudent:
    """Any encoder that AutoModelForSequenceClassification opens, fine-tuned in float32.

    The same seed and the same inputs give the same bytes on the same machine, whatever ran before in
    the process, and the process' own random state is left as it was.

    Args:
        config: how to learn; its `model` is only a name, the weights come from `model_path`.
        labels: names of the labels in the order of the targets' columns.
        seed: of the new last layer, the order of the rows, dropout, mixup and augmentation.
        model_path: folder or hub name of the encoder; every `fit` starts from it afresh.
        emit: listener for progress and notes.
        several: a text has any number of the labels: what is said of it is (s, 2), "no" and "yes" for each of the s,
            instead of (k,), a probability for each of the k. Not with the objective `freeal`.
        work: what progress is told of.

    Raises:
        ModelError: there is no model at `model_path`, or it has no linear last layer.
    """

    losses_: FloatArray
    out_of_fold_: FloatArray | None = None

    def __init__(
        self,
        config: TransformerConfig,
        labels: Sequence[str],
        seed: int,
        model_path: str,
        emit: Emit = ignore,
        several: bool = False,
        work: str = "training",
    ) -> None:
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed
        self.model_path = model_path
        self.emit = emit
        self.several = several
        self.work = work
        self.shape = (len(labels), 2) if several else (len(labels),)
        self.device = torch.device(pick_device(config.device))
        self.tokenizer = open_tokenizer(model_path)
        self.losses_ = np.zeros((0, 0), PROBABILITY)
        self._network: _Network | None = None

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Learn the distributions `targets` (m, k), or (m, s, 2); they need not be hard. `weights` (m,) default to one.

        With the objective `freeal`, `keep` is asked at the start of each epoch after the warm-up which
        rows are clean by the losses so far. `losses_` (epochs, m), or (epochs, m, s), are those after each epoch;
        where nobody needs them (objective `plain`, and a judge), those after the last one.

        Raises:
            DataError: no rows, or targets that are no distributions.
            TrainingError: the loss was not finite, and again with half the learning rate.
        """
        lesson = look_over(inputs, targets, weights, self.shape[-1], self.several)
        attempt = partial(self._fit_loop, lesson, keep)
        with own_randomness(self.device):
            self.losses_ = twice_at_most(attempt, self.config, self.model_path, self.device, self.emit)
        return self

    def view(self, inputs: Inputs) -> StudentView:
        """`proba` (n, k), or (n, s, 2), and `embeddings` (n, d), float32: what the last layer gives, and reads."""
        network = self._fitted()
        proba = np.zeros((len(inputs), *self.shape), PROBABILITY)
        embeddings = np.zeros((len(inputs), network.head.in_features), np.float32)
        tokens = tokenise(self.tokenizer, inputs.texts, self._limit(network))
        for rows, read in self._read(network, tokens, autocast=bfloat16_is_faster(self.device.type)):
            proba[rows] = torch.softmax(read.logits, dim=-1).cpu().numpy()
            embeddings[rows] = read.features.cpu().numpy()
        return StudentView(proba, embeddings)

    def save(self, folder: Path) -> None:
        """Write a checkpoint in safetensors that transformers opens without freeal, with the labels' names."""
        network = self._fitted()
        # the tokenizer's own limit, so that a reopened student cuts texts where this one did
        self.tokenizer.model_max_length = self._limit(network)
        with quiet():
            network.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def _start(self, lesson: Lesson, pace: Pace) -> _Work:
        """Everything one attempt changes, new and seeded: also the weights."""
        set_seed(self.seed, self.device)
        network = self._open()
        tokens = tokenise(self.tokenizer, lesson.inputs.texts, self._limit(network))
        taught = torch.from_numpy(lesson.targets).to(self.device)
        return _Work(
            training=begin(self.config, network.model, tokens, self.seed, pace),
            network=network,
            lesson=lesson,
            taught=taught,
            targets=taught,
            given=nn.functional.one_hot(torch.from_numpy(lesson.given), self.shape[-1]).to(self.device),
            weights=torch.from_numpy(lesson.weights).to(self.device),
        )

    def _fit_loop(self, lesson: Lesson, keep: Keep | None, pace: Pace) -> FloatArray:
        work = self._start(lesson, pace)
        epochs = work.training.epochs
        losses = np.zeros((epochs, *work.lesson.given.shape), PROBABILITY)
        watched = self.config.objective in ("freeal", "candidates") or self.config.judge == "none"
        for epoch in range(epochs):
            # the pass over the rows that ended the last epoch is the one that FreeAL starts this one with
            clean = self._believed(losses[:epoch], keep)
            self._run_epoch(work, epoch, clean)
            if not watched and epoch + 1 < epochs:
                continue
            logits = self._logits(work, epoch)
            losses[epoch] = soft_cross_entropy(logits, work.given).cpu().numpy()
            if self.config.objective == "candidates":
                share = self.config.refine * (epoch + 1) / epochs
                work.targets = refined(work.taught, logits, share, self.config.temperature)
        self._network = work.network
        return losses if watched else losses[-1:]

    def _believed(self, losses: FloatArray, keep: Keep | None) -> BoolArray:
        """(m,) rows whose labels are believed, by `losses` (epochs so far, m); all, while there is no telling."""
        epoch, m = losses.shape[:2]
        # a filter compares rows with each other, by losses of a student that has seen them
        if keep is None or self.config.objective != "freeal" or epoch < max(self.config.warmup_epochs, 1) or m < 2:
            return np.ones(m, bool)
        return keep(losses[-1:]).clean

    def _run_epoch(self, work: _Work, epoch: int, clean: BoolArray) -> None:
        second = self._second_wordings(work) if self.config.objective == "freeal" else None
        mask = torch.from_numpy(clean).to(self.device)

        def loss(rows: IntArray) -> Tensor:
            return self._plain(work, rows) if second is None else self._freeal(work, rows, mask, second)

        run_epoch(work.training, loss, self.config, self.emit, self.work)

    def _plain(self, work: _Work, rows: IntArray) -> Tensor:
        read = self._forward(work.network, [work.training.tokens[row] for row in rows], work.training.autocast)
        return plain_loss(read.logits, work.targets[rows], work.weights[rows])

    def _freeal(self, work: _Work, rows: IntArray, clean: Tensor, second: list[Tokens]) -> Tensor:
        """Both wordings in one forward pass of 2b rows."""
        training = work.training
        wordings = [training.tokens[row] for row in rows] + [second[row] for row in rows]
        read = self._forward(work.network, wordings, training.autocast)
        b = len(rows)
        return freeal_loss(
            JointReading(read.features[:b], read.logits[:b], read.logits[b:]),
            work.targets[rows],
            work.weights[rows],
            clean[rows],
            head=work.network.head,
            extra=ramp(training.step / training.batches, self.config.ramp_epochs),
            alpha=self.config.mixup_alpha,
            temperature=self.config.temperature,
            generator=training.generator,
        )

    def _second_wordings(self, work: _Work) -> list[Tokens]:
        """The rewording of each row, or, where there is none, another augmentation in every epoch."""
        texts = work.lesson.inputs.texts
        given = work.lesson.inputs.rewordings or [None] * len(texts)
        wordings = [new or augment(text, work.training.rng) for text, new in zip(texts, given, strict=True)]
        return tokenise(self.tokenizer, wordings, self._limit(work.network))

    def _logits(self, work: _Work, epoch: int) -> Tensor:
        """(m, k), or (m, s, 2), of every row, without dropout."""
        logits = torch.zeros((len(work.lesson), *self.shape), device=self.device)
        for rows, read in self._read(work.network, work.training.tokens, work.training.autocast):
            logits[rows] = read.logits
        if not torch.isfinite(logits).all():
            raise NotFiniteError(f"the reading after epoch {epoch + 1}")
        return logits

    def _read(self, network: _Network, tokens: Sequence[Tokens], autocast: bool) -> Iterator[tuple[IntArray, _Reading]]:
        """Rows and what the network makes of them, without gradients, each row once."""
        return readings(network.model, lambda batch: self._forward(network, batch, autocast), tokens, self.device)

    def _forward(self, network: _Network, tokens: Sequence[Tokens], autocast: bool) -> _Reading:
        batch = pad(tokens, padding(self.tokenizer), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            return network(batch)

    def _open(self) -> _Network:
        loader = AutoModelForSequenceClassification.from_pretrained
        problem = SEVERAL if self.several else "single_label_classification"
        model = open_classifier(loader, self.model_path, self.labels, problem_type=problem)
        return _Network(model.to(self.device), len(self.labels), self.model_path, self.several)

    def _limit(self, network: _Network) -> int:
        return longest_input(self.tokenizer, network.model.config, self.config.max_tokens)

    def _fitted(self) -> _Network:
        if self._network is None:
            raise ModelError("this student has learned nothing yet: call fit, or open a saved one with load")
        return self._network


def load(folder: Path) -> TransformerStudent:
    """The student that `save` wrote, for `view`; its `losses_` are not kept.

    Raises:
        ModelError: there is no such student in `folder`.
    """
    model = open_model(AutoModelForSequenceClassification.from_pretrained, str(folder), use_safetensors=True)
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    several = model.config.problem_type == SEVERAL
    student = TransformerStudent(TransformerConfig(model=str(folder)), labels, 0, str(folder), several=several)
    student.config = TransformerConfig(model=str(folder), max_tokens=student.tokenizer.model_max_length)
    student._network = _Network(model.to(student.device), len(labels), str(folder), several)
    return student


@dataclass(frozen=True, slots=True)
class _Reading:
    """`logits` (b, k), or (b, s, 2), and `features` (b, d), float32."""

    logits: Tensor
    features: Tensor


class _Network:
    """A classifier and its last linear layer, whose input are the features; `several`: each output is a decision."""

    def __init__(self, model: Any, outputs: int, path: str, several: bool = False) -> None:
        self.model = model
        self.several = several
        self._last = Head(model, outputs, path)
        self.head = self._last.layer

    def __call__(self, batch: dict[str, Tensor]) -> _Reading:
        logits = self.model(**batch).logits
        features = self._last.features()
        if features is None or features.ndim != 2:
            raise ModelError(f"{type(self.model).__name__} does not read a text as one vector; take a plain encoder")
        logits = logits.float()
        return _Reading(no_and_yes(logits) if self.several else logits, features.float())


@dataclass(slots=True)
class _Work:
    """One attempt at training: what it changes, and what it reads."""

    training: Training
    network: _Network
    lesson: Lesson
    taught: Tensor
    """(m, k), or (m, s, 2), the distributions given."""
    targets: Tensor
    """As wide: what is learned in this epoch."""
    given: Tensor
    """As wide: one for the most probable label given, the one that losses are taken under."""
    weights: Tensor
