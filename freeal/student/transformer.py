"""A small encoder fine-tuned on noisy labels, in a plain loop: fit → _run_epoch → _train_step.

Its saved folder is an ordinary transformers checkpoint. Most of its speed comes from never computing
padding: texts are tokenised once and batched by length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSequenceClassification

from freeal.config import TransformerConfig
from freeal.errors import ModelError, TrainingError
from freeal.events import Emit, Note, Progress, ignore
from freeal.failpoints import failpoint
from freeal.student import Keep
from freeal.student.augment import augment
from freeal.student.encoders import (
    Tokens,
    longest_input,
    open_model,
    open_tokenizer,
    pad,
    padding,
    pick_device,
    quiet,
    reading_batches,
    reading_budget,
    tokenise,
    training_batches,
)
from freeal.student.lessons import Lesson, look_over
from freeal.student.objectives import JointReading, freeal_loss, plain_loss, ramp, refined, soft_cross_entropy
from freeal.types import PROBABILITY, BoolArray, FloatArray, Inputs, IntArray, StudentView


class TransformerStudent:
    """Any encoder that AutoModelForSequenceClassification opens, fine-tuned in float32.

    The same seed and the same inputs give the same bytes on the same machine, whatever ran before in
    the process, and the process' own random state is left as it was.

    Args:
        config: how to learn; its `model` is only a name, the weights come from `model_path`.
        labels: names of the k classes in the order of the targets' columns.
        seed: of the new last layer, the order of the rows, dropout, mixup and augmentation.
        model_path: folder or hub name of the encoder; every `fit` starts from it afresh.
        emit: listener for progress and notes.

    Raises:
        ModelError: there is no model at `model_path`, or it has no linear last layer.
    """

    losses_: FloatArray
    out_of_fold_: FloatArray | None = None

    def __init__(
        self, config: TransformerConfig, labels: Sequence[str], seed: int, model_path: str, emit: Emit = ignore
    ) -> None:
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed
        self.model_path = model_path
        self.emit = emit
        self.device = pick_device(config.device)
        self.tokenizer = open_tokenizer(model_path)
        self.losses_ = np.zeros((0, 0), PROBABILITY)
        self._network: _Network | None = None

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Learn the distributions `targets` (m, k), which need not be hard; `weights` (m,) default to one.

        With the objective `freeal`, `keep` is asked at the start of each epoch after the warm-up which
        rows are clean by the losses so far. `losses_` (epochs, m) are those after each epoch; where nobody
        needs them (objective `plain`, and a judge), those after the last one.

        Raises:
            DataError: no rows, or targets that are no distributions.
            TrainingError: the loss was not finite, and again with half the learning rate.
        """
        lesson = look_over(inputs, targets, weights, len(self.labels))
        with _own_randomness(self.device):
            self.losses_ = self._fit_twice_at_most(lesson, keep)
        return self

    def view(self, inputs: Inputs) -> StudentView:
        """`proba` (n, k) and `embeddings` (n, d), float32: what the last linear layer gives and what it reads."""
        network = self._fitted()
        proba = np.zeros((len(inputs), len(self.labels)), PROBABILITY)
        embeddings = np.zeros((len(inputs), network.head.in_features), np.float32)
        tokens = tokenise(self.tokenizer, inputs.texts, self._limit(network))
        for rows, read in self._read(network, tokens, autocast=_bfloat16_is_faster(self.device)):
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

    def _fit_twice_at_most(self, lesson: Lesson, keep: Keep | None) -> FloatArray:
        rate = self.config.learning_rate
        try:
            return self._fit_loop(self._start(lesson, rate, _bfloat16_is_faster(self.device)), keep)
        except _NotFiniteError as first:
            self.emit(
                Note(f"the loss was not finite in {first}; starting again with half the learning rate", "student")
            )
        try:
            return self._fit_loop(self._start(lesson, rate / 2, False), keep)
        except _NotFiniteError as again:
            raise TrainingError(
                f"student {self.model_path}: the loss was not finite in {again}, nor was it with the learning rate"
                f" {rate:g}; this was half of it, in float32. Set student.learning_rate lower or try another model"
            ) from again

    def _start(self, lesson: Lesson, learning_rate: float, autocast: bool) -> _Work:
        """Everything one attempt changes, new and seeded: also the weights."""
        _seed(self.seed, self.device)
        network = self._open()
        optimizer = _adamw(network.model, learning_rate, self.config.weight_decay)
        taught = torch.from_numpy(lesson.targets).to(self.device)
        batches = -(-len(lesson) // self.config.batch_size)
        epochs = max(self.config.epochs, -(-self.config.min_steps // batches))
        steps = epochs * batches
        return _Work(
            network=network,
            optimizer=optimizer,
            schedule=_linear_decay(optimizer, steps, self.config.warmup_share),
            lesson=lesson,
            taught=taught,
            targets=taught,
            given=nn.functional.one_hot(torch.from_numpy(lesson.given), len(self.labels)).to(self.device),
            weights=torch.from_numpy(lesson.weights).to(self.device),
            tokens=tokenise(self.tokenizer, lesson.inputs.texts, self._limit(network)),
            rng=np.random.default_rng(self.seed),
            generator=torch.Generator().manual_seed(self.seed),
            autocast=autocast,
            batches=batches,
            epochs=epochs,
            steps=steps,
        )

    def _fit_loop(self, work: _Work, keep: Keep | None) -> FloatArray:
        losses = np.zeros((work.epochs, len(work.lesson)), PROBABILITY)
        watched = self.config.objective in ("freeal", "candidates") or self.config.judge == "none"
        for epoch in range(work.epochs):
            # the pass over the rows that ended the last epoch is the one that FreeAL starts this one with
            clean = self._believed(losses[:epoch], keep)
            self._run_epoch(work, epoch, clean)
            if not watched and epoch + 1 < work.epochs:
                continue
            logits = self._logits(work, epoch)
            losses[epoch] = soft_cross_entropy(logits, work.given).cpu().numpy()
            if self.config.objective == "candidates":
                share = self.config.refine * (epoch + 1) / work.epochs
                work.targets = refined(work.taught, logits, share, self.config.temperature)
        self._network = work.network
        return losses if watched else losses[-1:]

    def _believed(self, losses: FloatArray, keep: Keep | None) -> BoolArray:
        """(m,) rows whose labels are believed, by `losses` (epochs so far, m); all, while there is no telling."""
        epoch, m = losses.shape
        # a filter compares rows with each other, by losses of a student that has seen them
        if keep is None or self.config.objective != "freeal" or epoch < max(self.config.warmup_epochs, 1) or m < 2:
            return np.ones(m, bool)
        return keep(losses[-1:]).clean

    def _run_epoch(self, work: _Work, epoch: int, clean: BoolArray) -> None:
        work.network.model.train()
        second = self._second_wordings(work) if self.config.objective == "freeal" else None
        mask = torch.from_numpy(clean).to(self.device)
        for rows in training_batches(work.lengths, self.config.batch_size, work.rng):
            self._train_step(work, rows, mask, second)
            if work.step % 10 == 0 or work.step == work.steps:
                self.emit(Progress("training", work.step, work.steps, "batches"))

    def _train_step(self, work: _Work, rows: IntArray, clean: Tensor, second: list[Tokens] | None) -> None:
        loss = self._plain(work, rows) if second is None else self._freeal(work, rows, clean, second)
        work.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(work.network.model.parameters(), self.config.clip)
        if not torch.isfinite(loss.detach() + norm):
            raise _NotFiniteError(work.place)
        work.optimizer.step()
        work.schedule.step()
        work.step += 1
        failpoint("student.step")

    def _plain(self, work: _Work, rows: IntArray) -> Tensor:
        read = self._forward(work.network, [work.tokens[row] for row in rows], work.autocast)
        return plain_loss(read.logits, work.targets[rows], work.weights[rows])

    def _freeal(self, work: _Work, rows: IntArray, clean: Tensor, second: list[Tokens]) -> Tensor:
        """Both wordings in one forward pass of 2b rows."""
        wordings = [work.tokens[row] for row in rows] + [second[row] for row in rows]
        read = self._forward(work.network, wordings, work.autocast)
        b = len(rows)
        return freeal_loss(
            JointReading(read.features[:b], read.logits[:b], read.logits[b:]),
            work.targets[rows],
            work.weights[rows],
            clean[rows],
            head=work.network.head,
            extra=ramp(work.step / work.batches, self.config.ramp_epochs),
            alpha=self.config.mixup_alpha,
            temperature=self.config.temperature,
            generator=work.generator,
        )

    def _second_wordings(self, work: _Work) -> list[Tokens]:
        """The rewording of each row, or, where there is none, another augmentation in every epoch."""
        texts = work.lesson.inputs.texts
        given = work.lesson.inputs.rewordings or [None] * len(texts)
        wordings = [new or augment(text, work.rng) for text, new in zip(texts, given, strict=True)]
        return tokenise(self.tokenizer, wordings, self._limit(work.network))

    def _logits(self, work: _Work, epoch: int) -> Tensor:
        """(m, k) of every row, without dropout."""
        logits = torch.zeros((len(work.lesson), len(self.labels)), device=self.device)
        for rows, read in self._read(work.network, work.tokens, work.autocast):
            logits[rows] = read.logits
        if not torch.isfinite(logits).all():
            raise _NotFiniteError(f"the reading after epoch {epoch + 1}")
        return logits

    def _read(self, network: _Network, tokens: Sequence[Tokens], autocast: bool) -> Iterator[tuple[IntArray, _Reading]]:
        """Rows and what the network makes of them, without gradients, each row once."""
        network.model.eval()
        lengths = np.array([len(row) for row in tokens], np.int64)
        for rows in reading_batches(lengths, reading_budget(self.device)):
            with torch.inference_mode():
                read = self._forward(network, [tokens[row] for row in rows], autocast)
            yield rows, read

    def _forward(self, network: _Network, tokens: Sequence[Tokens], autocast: bool) -> _Reading:
        batch = pad(tokens, padding(self.tokenizer), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            return network(batch)

    def _open(self) -> _Network:
        model = open_model(
            AutoModelForSequenceClassification.from_pretrained,
            self.model_path,
            num_labels=len(self.labels),
            id2label=dict(enumerate(self.labels)),
            label2id={label: i for i, label in enumerate(self.labels)},
            problem_type="single_label_classification",
            # a checkpoint that was a classifier of other labels: its encoder is still welcome
            ignore_mismatched_sizes=True,
        )
        return _Network(model.to(self.device), len(self.labels), self.model_path)

    def _limit(self, network: _Network) -> int:
        return longest_input(self.tokenizer, network.model, self.config.max_tokens)

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
    student = TransformerStudent(TransformerConfig(model=str(folder)), labels, 0, str(folder))
    student.config = TransformerConfig(model=str(folder), max_tokens=student.tokenizer.model_max_length)
    student._network = _Network(model.to(student.device), len(labels), str(folder))
    return student


class _NotFiniteError(Exception):
    """Training has run away; the text says where."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """`logits` (b, k) and `features` (b, d), float32."""

    logits: Tensor
    features: Tensor


class _Network:
    """A classifier and its last linear layer, whose input are the features."""

    def __init__(self, model: Any, k: int, path: str) -> None:
        linear = [part for part in model.modules() if isinstance(part, nn.Linear) and part.out_features == k]
        if not linear:
            raise ModelError(
                f"{path}: {type(model).__name__} has no linear layer with {k} outputs; take a plain encoder"
            )
        self.model = model
        self.head = linear[-1]
        self._features: Tensor | None = None
        self.head.register_forward_pre_hook(self._remember)

    def __call__(self, batch: dict[str, Tensor]) -> _Reading:
        logits = self.model(**batch).logits
        features, self._features = self._features, None
        if features is None or features.ndim != 2:
            raise ModelError(f"{type(self.model).__name__} does not read a text as one vector; take a plain encoder")
        return _Reading(logits.float(), features.float())

    def _remember(self, head: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._features = given[0]


@dataclass(slots=True)
class _Work:
    """One attempt at training: what it changes, and what it reads."""

    network: _Network
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    lesson: Lesson
    taught: Tensor
    """(m, k) the distributions given."""
    targets: Tensor
    """(m, k) what is learned in this epoch."""
    given: Tensor
    """(m, k) one for the most probable label given, the one that losses are taken under."""
    weights: Tensor
    tokens: list[Tokens]
    rng: np.random.Generator
    generator: torch.Generator
    autocast: bool
    batches: int
    epochs: int
    steps: int
    step: int = 0

    @property
    def place(self) -> str:
        return f"epoch {self.step // self.batches + 1}, batch {self.step % self.batches + 1}"

    @property
    def lengths(self) -> IntArray:
        return np.array([len(row) for row in self.tokens])


def _adamw(model: Any, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW without decay on biases and norms, that is on vectors (Devlin et al., BERT, appendix A)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=parameters[0].device.type in {"cpu", "cuda"})


def _linear_decay(optimizer: torch.optim.Optimizer, steps: int, warmup_share: float) -> LambdaLR:
    """The learning rate rises over `warmup_share` of the steps and falls to zero over the others."""
    rising = round(warmup_share * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(steps - step, 0) / max(steps - rising, 1)

    return LambdaLR(optimizer, factor)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """torch's random state as it was afterwards, whatever is done inside (on mps: that of the CPU)."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        yield


def _seed(seed: int, device: torch.device) -> None:
    # torch.manual_seed would also touch devices whose state is not put back afterwards
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _bfloat16_is_faster(device: torch.device) -> bool:
    """Whether the machine multiplies bfloat16 in hardware; elsewhere autocast costs more than it saves."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
