"""The training loop that fine-tuned encoders share: what an attempt changes, an epoch of it, and a second attempt.

What is minimised is theirs: a function of the rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from freeal.config import TaggerConfig, TransformerConfig
from freeal.errors import ModelError, TrainingError
from freeal.events import Emit, Note, Progress
from freeal.failpoints import failpoint
from freeal.processor import bfloat16_is_faster
from freeal.student.encoders import Tokens, open_model, reading_batches, reading_budget, training_batches
from freeal.types import IntArray

Settings = TransformerConfig | TaggerConfig

LearnedT = TypeVar("LearnedT")
ReadingT = TypeVar("ReadingT")


class NotFiniteError(Exception):
    """Training has run away; the text says where."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How an attempt learns: its `learning_rate`, and whether it multiplies in bfloat16 (`autocast`)."""

    learning_rate: float
    autocast: bool


@dataclass(slots=True)
class Training:
    """One attempt at training: what it changes, and the tokens of its rows."""

    model: Any
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    tokens: Sequence[Tokens]
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


def twice_at_most(
    attempt: Callable[[Pace], LearnedT], settings: Settings, model_path: str, device: torch.device, emit: Emit
) -> LearnedT:
    """What `attempt` gives; if it raises NotFiniteError, what it gives with half the learning rate, in float32.

    Raises:
        TrainingError: the second attempt ran away as well.
    """
    rate = settings.learning_rate
    try:
        return attempt(Pace(rate, bfloat16_is_faster(device.type)))
    except NotFiniteError as first:
        emit(Note(f"the loss was not finite in {first}; starting again with half the learning rate", "student"))
    try:
        return attempt(Pace(rate / 2, False))
    except NotFiniteError as again:
        raise TrainingError(
            f"student {model_path}: the loss was not finite in {again}, nor was it with the learning rate"
            f" {rate:g}; this was half of it, in float32. Set student.learning_rate lower or try another model"
        ) from again


def begin(settings: Settings, model: Any, tokens: Sequence[Tokens], seed: int, pace: Pace) -> Training:
    """Everything one attempt changes, new and seeded, around a model that has just been opened."""
    optimizer = _adamw(model, pace.learning_rate, settings.weight_decay)
    batches = -(-len(tokens) // settings.batch_size)
    epochs = max(settings.epochs, -(-settings.min_steps // batches))
    steps = epochs * batches
    return Training(
        model=model,
        optimizer=optimizer,
        schedule=_linear_decay(optimizer, steps, settings.warmup_share),
        tokens=tokens,
        rng=np.random.default_rng(seed),
        generator=torch.Generator().manual_seed(seed),
        autocast=pace.autocast,
        batches=batches,
        epochs=epochs,
        steps=steps,
    )


def run_epoch(
    training: Training, loss: Callable[[IntArray], Tensor], settings: Settings, emit: Emit, work: str = "training"
) -> None:
    """Each row once: `loss` takes the rows of a batch (b,) and gives what is minimised.

    Raises:
        NotFiniteError: a loss or a gradient was not finite.
    """
    training.model.train()
    for rows in training_batches(training.lengths, settings.batch_size, training.rng):
        _train_step(training, loss(rows), settings.clip)
        if training.step % 10 == 0 or training.step == training.steps:
            emit(Progress(work, training.step, training.steps, "batches"))


def _train_step(training: Training, loss: Tensor, clip: float) -> None:
    training.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(training.model.parameters(), clip)
    if not torch.isfinite(loss.detach() + norm):
        raise NotFiniteError(training.place)
    training.optimizer.step()
    training.schedule.step()
    training.step += 1
    failpoint("student.step")


def readings(
    model: Any, forward: Callable[[Sequence[Tokens]], ReadingT], tokens: Sequence[Tokens], device: torch.device
) -> Iterator[tuple[IntArray, ReadingT]]:
    """Rows and what `forward`, a pass through the model, makes of them, without gradients, each row once."""
    model.eval()
    lengths = np.array([len(row) for row in tokens], np.int64)
    for rows in reading_batches(lengths, reading_budget(device)):
        with torch.inference_mode():
            read = forward([tokens[row] for row in rows])
        yield rows, read


def open_classifier(loader: Callable[..., Any], path: str, classes: Sequence[str], **settings: Any) -> Any:
    """`loader(path)` with a last layer for `classes`, which it names; a new one where the checkpoint's does not fit."""
    return open_model(
        loader,
        path,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
        # a checkpoint that was a classifier of other labels: its encoder is still welcome
        ignore_mismatched_sizes=True,
        **settings,
    )


class Head:
    """The linear layer that gives a classifier's `outputs`, which keeps what it reads: the features.

    Raises:
        ModelError: the model has none.
    """

    def __init__(self, model: Any, outputs: int, path: str) -> None:
        linear = [part for part in model.modules() if isinstance(part, nn.Linear) and part.out_features == outputs]
        if not linear:
            raise ModelError(
                f"{path}: {type(model).__name__} has no linear layer with {outputs} outputs; take a plain encoder"
            )
        self.layer = linear[-1]
        self._read: Tensor | None = None
        self.layer.register_forward_pre_hook(self._remember)

    def features(self) -> Tensor | None:
        """What the last forward pass gave it, handed out once."""
        found, self._read = self._read, None
        return found

    def _remember(self, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._read = given[0]


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """torch's random state as it was afterwards, whatever is done inside (on mps: that of the CPU)."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        yield


def set_seed(seed: int, device: torch.device) -> None:
    """Seed torch for new weights and dropout, on the CPU and on `device`."""
    # torch.manual_seed would also touch devices whose state is not put back afterwards
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


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
