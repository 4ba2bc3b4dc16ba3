"""How fast the transformer student trains, against a plain float32 loop on texts padded to 128 tokens.

Same machine, same run, same encoder, same rows, same learning rate, optimiser and number of epochs. The
time of the student holds everything its `fit` does: opening the model, tokenising, training and, after
each epoch, the reading of all rows for their losses. The plain loop opens, tokenises and trains only.

    FREEAL_SHARED=../shared python benchmarks/student.py --rows 600 --epochs 2 --seeds 3
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from freeal.config import TransformerConfig
from freeal.models import quiet
from freeal.processor import pick_device
from freeal.student.transformer import TransformerStudent
from freeal.types import FloatArray, Inputs, IntArray

LENGTH = 128


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and the index of the gold label of each, (n,)."""

    texts: list[str]
    gold: IntArray


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of training did: rows a second over all epochs, and the share of the test it got right."""

    rows_per_second: float
    accuracy: float


def main() -> None:
    options = read_options()
    folder = Path(options.shared) / "data" / "mr"
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    train = sample(folder / "train.jsonl", labels, options.rows)
    test = sample(folder / "test.jsonl", labels, options.test_rows)
    path = find_model(options.model)
    rate, device = options.learning_rate, options.device
    config = TransformerConfig(epochs=options.epochs, min_steps=0, learning_rate=rate, device=device)

    # the first passes of a process are slow: they are nobody's
    plain_loop(path, config, labels, Labelled(train.texts[:32], train.gold[:32]), 0)
    ways = {"plain": plain_loop, "student": our_student}
    rows, found = len(train.texts) * config.epochs, {name: list[Figures]() for name in ways}
    for seed in range(options.seeds):
        for name, way in ways.items():
            found[name].append(measured(partial(way, path, config, labels, train, seed), rows, test))
    show(found["plain"], found["student"], options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of the transformer student against a plain loop.")
    parser.add_argument("--rows", type=int, default=1000, help="training rows of MR (default: 1000)")
    parser.add_argument("--test-rows", type=int, default=500, help="test rows of MR (default: 500)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each, from seed 0 on (default: 1)")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="all-minilm-l6-v2", help="embedded name, folder or hub name")
    parser.add_argument(
        "--shared", default=os.environ.get("FREEAL_SHARED", "../shared"), help="default: $FREEAL_SHARED"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser.parse_args()


def find_model(name: str) -> str:
    """The folder of an embedded model; a path is taken as it is."""
    if Path(name).is_dir():
        return name
    from freeal.models import locate

    return str(locate(name))


def sample(path: Path, labels: list[str], n: int) -> Labelled:
    """The first n rows after a shuffle with seed 0: the files are sorted by label."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:n]]
    return Labelled([row["text"] for row in chosen], np.array([labels.index(row["label"]) for row in chosen]))


def measured(train: Callable[[], Callable[[list[str]], FloatArray]], rows: int, test: Labelled) -> Figures:
    """Time `train`, which returns what reads texts, then let that read the test."""
    start = time.perf_counter()
    read = train()
    seconds = time.perf_counter() - start
    return Figures(rows / seconds, float((read(test.texts).argmax(axis=1) == test.gold).mean()))


def our_student(
    path: str, config: TransformerConfig, labels: list[str], train: Labelled, seed: int
) -> Callable[[list[str]], FloatArray]:
    targets = np.eye(len(labels), dtype=np.float32)[train.gold]
    student = TransformerStudent(config, labels, seed, path).fit(Inputs(train.texts), targets)
    return lambda texts: student.view(Inputs(texts)).proba


def plain_loop(
    path: str, config: TransformerConfig, labels: list[str], train: Labelled, seed: int
) -> Callable[[list[str]], FloatArray]:
    """What one writes first: shuffle, pad to LENGTH, forward, backward, step; float32 throughout."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(path)
    with quiet():
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=len(labels), dtype=torch.float32
        )
    device = torch.device(pick_device(config.device))
    model.to(device).train()
    given = torch.from_numpy(train.gold)
    batch = tokenizer(train.texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(train.texts) // config.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(config.epochs):
        for rows in torch.split(torch.randperm(len(train.texts)), config.batch_size):
            inputs = {name: values[rows].to(device) for name, values in batch.items()}
            loss = torch.nn.functional.cross_entropy(model(**inputs).logits, given[rows].to(device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            schedule.step()
    return lambda texts: read_plainly(model.eval(), tokenizer, texts, device)


@torch.inference_mode()
def read_plainly(model: Any, tokenizer: Any, texts: list[str], device: torch.device) -> FloatArray:
    pieces = [texts[start : start + 32] for start in range(0, len(texts), 32)]
    batches = [
        tokenizer(piece, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt") for piece in pieces
    ]
    return np.concatenate([model(**batch.to(device)).logits.cpu().numpy() for batch in batches])


def show(plain: list[Figures], student: list[Figures], options: argparse.Namespace) -> None:
    ratio = float(np.mean([s.rows_per_second / p.rows_per_second for p, s in zip(plain, student, strict=True)]))
    if options.json:
        settings = {"rows": options.rows, "epochs": options.epochs, "test_rows": options.test_rows}
        settings |= {"model": options.model, "threads": torch.get_num_threads()}
        ways = {"plain": [asdict(p) for p in plain], "student": [asdict(s) for s in student]}
        print(json.dumps({**settings, **ways, "ratio": ratio}))
        return
    print(f"MR, {options.rows} rows, {options.epochs} epoch(s), {options.model}, {torch.get_num_threads()} thread(s)")
    for name, figures in ((f"plain loop, {LENGTH} tokens", plain), ("TransformerStudent", student)):
        speed, accuracy = (np.array([getattr(f, of) for f in figures]) for of in ("rows_per_second", "accuracy"))
        print(f"{name:24} {speed.mean():7.1f} rows/s   accuracy {accuracy.mean():.3f} ± {accuracy.std():.3f}")
    share = float(np.mean([p.accuracy for p in plain]))
    noise = 2 * (share * (1 - share) / options.test_rows) ** 0.5
    print(f"ratio {ratio:.2f}; two standard errors of an accuracy on {options.test_rows} rows: {noise:.3f}")


if __name__ == "__main__":
    main()
