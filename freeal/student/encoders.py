"""What surrounds an encoder: opening it without noise, its tokens, and batches without waste."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from freeal.errors import ModelError
from freeal.models import quiet
from freeal.types import IntArray

Tokens = list[int]

WINDOW = 4
"""Batches whose rows are sorted by length together: padding is nearly gone, chance nearly all there."""

JITTER = 4.0
"""Tokens by which lengths are blurred before sorting, or few rows would form the same batches in every epoch."""


def open_model(loader: Callable[..., Any], path: str, **settings: Any) -> Any:
    """`loader(path)` in float32, never running code that lies beside the weights.

    Safetensors are taken where there are any. Transformers' table of new weights is kept back: a
    classifier on top of an encoder is always new.

    Raises:
        ModelError: there is no model at `path`, or it is none that transformers knows.
    """
    try:
        # weights that the checkpoint lacks are drawn at random, which is no business of the caller's
        with quiet(), torch.random.fork_rng(devices=[], device_type="cuda"):
            return loader(path, dtype=torch.float32, trust_remote_code=False, **settings)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: no encoder that transformers can open: {error}") from error


def open_tokenizer(path: str) -> Any:
    """The tokenizer beside the weights.

    Raises:
        ModelError: there is none.
    """
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: no tokenizer that transformers can open: {error}") from error


def longest_input(tokenizer: Any, model_config: Any, wanted: int) -> int:
    """Tokens a text may have: as many as wanted, and no more than the model was built for."""
    positions = getattr(model_config, "max_position_embeddings", None) or wanted
    return int(min(wanted, tokenizer.model_max_length, positions))


def tokenise(tokenizer: Any, texts: Sequence[str], limit: int) -> list[Tokens]:
    """Ids of each text with the special tokens, cut at `limit`, not padded; never an empty list."""
    if not texts:
        return []
    ids = tokenizer(list(texts), truncation=True, max_length=limit, return_attention_mask=False)["input_ids"]
    return [tokens or [padding(tokenizer)] for tokens in ids]


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """(b, d) of length one each: the mean of `hidden` (b, l, d) over the tokens that `mask` (b, l) leaves."""
    mask = mask[:, :, None]
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def padding(tokenizer: Any) -> int:
    """The id that fills up short rows; it is masked, so any will do where a tokenizer has none."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def pad(batch: Sequence[Tokens], fill: int, device: torch.device) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, both (b, longest)."""
    longest = max(map(len, batch))
    ids = torch.tensor([[*tokens, *[fill] * (longest - len(tokens))] for tokens in batch])
    lengths = torch.tensor([len(tokens) for tokens in batch])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def training_batches(lengths: IntArray, size: int, rng: np.random.Generator) -> list[IntArray]:
    """Rows 0..m-1 in batches of `size`, like with like in length, in random order.

    Shuffle, sort by `lengths` (m,), somewhat blurred, inside windows of WINDOW batches, cut, shuffle the batches.
    """
    shuffled = rng.permutation(len(lengths))
    blurred = lengths + rng.uniform(0.0, JITTER, len(lengths))
    windows = _cut(shuffled, WINDOW * size)
    batches = [batch for rows in windows for batch in _cut(rows[np.argsort(blurred[rows])], size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def reading_batches(lengths: IntArray, budget: int) -> list[IntArray]:
    """Rows 0..n-1 by rising length, as many in a batch as fit `budget` tokens with padding, one at least."""
    batches: list[IntArray] = []
    current: list[int] = []
    for row in np.argsort(lengths, kind="stable"):
        if current and (len(current) + 1) * lengths[row] > budget:
            batches.append(np.array(current))
            current = []
        current.append(int(row))
    return [*batches, np.array(current)] if current else batches


def reading_budget(device: torch.device) -> int:
    """Tokens in one pass without gradients: enough to fill the machine, little enough for its caches."""
    return 4096 if device.type == "cpu" else 32768


def _cut(rows: IntArray, size: int) -> list[IntArray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
