"""Hidden states of one layer of a causal model: heard while it reads, kept in sixteen bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from freeal.types import FloatArray

if TYPE_CHECKING:
    import torch

_LAYER = struct.Struct("<H")
_LARGEST = float(np.finfo(np.float16).max)


class _Enough(Exception):
    """The layer has been computed; those above it are not needed."""


@dataclass(frozen=True)
class Layer:
    """One layer of `model`, a causal model without its head: that at `depth`, a share of all."""

    model: Any
    depth: float

    @cached_property
    def _layers(self) -> Any:
        """The layers of the model, in order, whatever its family calls them."""
        from torch.nn import ModuleList

        count = self.model.config.get_text_config().num_hidden_layers
        return next(m for m in self.model.modules() if isinstance(m, ModuleList) and len(m) == count)

    @cached_property
    def number(self) -> int:
        """Counted from nought."""
        return max(0, min(len(self._layers), round(self.depth * len(self._layers))) - 1)

    @contextmanager
    def heard(self, alone: bool = False) -> Iterator[list[torch.Tensor]]:
        """What the layer gives (b, tokens, d), pass by pass; `alone`: each pass ends there, and gives nothing else."""
        found: list[torch.Tensor] = []

        def hear(module: Any, given: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            if alone:
                raise _Enough

        hook = self._layers[self.number].register_forward_hook(hear)
        try:
            with suppress(_Enough):
                yield found
        finally:
            hook.remove()

    def kept(self, state: FloatArray) -> bytes:
        """A state (d,) as it is kept: the layer's number, then d numbers of sixteen bits."""
        return _LAYER.pack(self.number) + np.clip(state, -_LARGEST, _LARGEST).astype(np.float16).tobytes()

    def state_in(self, kept: bytes | None) -> FloatArray | None:
        """(d,) float32 what was kept; None if that is nothing, or of another layer."""
        if kept is None or _LAYER.unpack_from(kept)[0] != self.number:
            return None
        return np.frombuffer(kept, np.float16, offset=_LAYER.size).astype(np.float32)
