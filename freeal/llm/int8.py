"""A model's weights, and what is multiplied by them, in eight bits: faster on a processor, a little less exact.

Each output of a layer has a scale for its weights, each token one for its inputs (W8A8, dynamic: Dettmers et al.,
LLM.int8(), 2022; in place of their outliers, inputs are sixteen bits wide where that is cheap and tells: docs/log.md).
As a token's scale depends on that token alone, it does not matter which others share its forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

STEPS = 127
TINY = 1e-12
"""The least scale, for rows of zeros."""


class Int8Linear(nn.Module):
    """What `layer` computes, from weights in eight bits.

    Args:
        layer: weights (outputs, inputs) of any precision, on a processor.
        fine: inputs have sixteen bits, in two halves, for twice the multiplications.

    Shape: (..., inputs) float32 -> (..., outputs) float32.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, layer: nn.Linear, fine: bool = False) -> None:
        super().__init__()
        weight, scale = in_eight_bits(layer.weight.detach().float())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())
        self.bias = layer.bias
        self.fine = fine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        numbers, scale = in_eight_bits(rows)
        found = self._times(numbers, scale)
        if self.fine:
            found += self._times(*in_eight_bits(rows - numbers * scale))
        if self.bias is not None:
            found += self.bias
        return found.view(*x.shape[:-1], -1)

    def _times(self, numbers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return (torch._int_mm(numbers, self.weight.T) * self.scale).mul_(scale)


def in_eight_bits(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, d) float -> (n, d) whole numbers in [-127, 127] as int8 and (n, 1) scales: rows ≈ numbers · scale.

    Example:
        >>> in_eight_bits(torch.tensor([[1.0, -4.0]]))[0]
        tensor([[  32, -127]], dtype=torch.int8)
    """
    largest = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True))
    scale = largest.clamp_min_(TINY) / STEPS
    return (rows / scale).round_().to(torch.int8), scale


def read_for_rounding(folder: Path, load: Callable[[torch.dtype], Any]) -> Any:
    """The model in `folder` as `load` reads it, in sixteen bits if all of its checkpoint is so and nothing is lost.

    What a model computes for itself when it is made, such as Gemma's scale of embeddings, is as exact as it is read:
    where there is any of that, it is read in float32.
    """
    kinds = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            kinds |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    kept = {"F16": torch.float16, "BF16": torch.bfloat16}.get("".join(kinds), torch.float32)
    model = load(kept)
    if any(each.is_floating_point() and each.dtype != torch.float32 for each in model.buffers()):
        model = load(torch.float32)
    return model


def rounded(model: Any) -> Any:
    """The same causal model, its linear layers in eight bits; embeddings and norms in float32.

    Layers are taken one by one: a model that was read in sixteen bits, as most are kept, is never whole in 32.

    Inputs are fine where outputs are fewer, and for the logits: what errs there errs most.
    """
    head = id(model.get_output_embeddings())
    for module in [each for each in model.modules() if type(each) is not nn.Linear]:
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                fine = id(child) == head or child.out_features < child.in_features
                setattr(module, name, Int8Linear(child, fine))
    return model.float()
