"""What a language model in this process makes of a text when it is asked about it: hidden states as vectors.

The state of a middle layer where the answer would begin tells the classes of a task apart far better than the model's
own words do (linear probes: Alain & Bengio, 2016; of language models: Burns et al., ICLR 2023). So a linear student on
these vectors learns in seconds what a small encoder would have to be fine-tuned for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from freeal.config import LocalConfig
from freeal.events import Emit, Progress, ignore
from freeal.ledger import Ledger, key_of, question_of
from freeal.llm.hidden import Layer
from freeal.llm.local import LocalLLM
from freeal.llm.packing import Tokens, shared_length
from freeal.prompts import Prompt
from freeal.types import Example, FloatArray

TOLD_EVERY = 32
"""Texts between two reports of progress."""


class StatesEmbedder:
    """The hidden state of one layer at the place where the answer to the prompt, without demonstrations, begins.

    From each state that of the empty text is taken off, asked in the same way, and of each coordinate the root is
    drawn, its sign kept (Perronnin et al., ECCV 2010): a few coordinates of such states are a hundred times as large as
    the others. A text's vector depends on no other text. States that came with the answers of the run are in its
    ledger; for the others, layers above the one read are not computed, what all prompts begin with is read once, and
    they are kept there, too: whoever goes on with the run has the same.

    Args:
        config: the model.
        prompt: what it is asked; columns besides the text are empty.
        depth: which layer, as a share of all.
        emit: hears of downloads and progress.
        ledger: that of the run.

    Raises:
        LLMError: the model cannot be loaded.
    """

    def __init__(
        self,
        config: LocalConfig,
        prompt: Prompt,
        depth: float,
        emit: Emit = ignore,
        ledger: Ledger | None = None,
    ) -> None:
        self.llm = LocalLLM(config, emit)
        self.prompt = prompt
        self.depth = depth
        self.emit = emit
        self.ledger = ledger

    @property
    def description(self) -> Mapping[str, str | int]:
        return {
            "kind": "hidden_states",
            "model": str(self.llm.identity["model"]),
            "layer": self._layer.number,
            "dimensions": int(self._layer.model.config.get_text_config().hidden_size),
        }

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32 of length one each; of a text that is too long for the model the end is left out."""
        vectors = np.zeros((len(texts), int(self.description["dimensions"])), np.float32)
        for start in range(0, len(texts), TOLD_EVERY):
            some = texts[start : start + TOLD_EVERY]
            for i, state in enumerate(self._states(some), start):
                vectors[i] = self._vector(state)
            if len(texts) > TOLD_EVERY:
                self.emit(Progress("reading hidden states", start + len(some), len(texts), "texts"))
        return vectors

    def _states(self, texts: Sequence[str]) -> list[FloatArray]:
        """(d,) of each text: as it is kept, and if it is not yet, it is computed and kept.

        Of the empty text nothing is kept: when its own state is taken off, nothing must be left, nor what sixteen bits
        cannot tell.
        """
        if self.ledger is None:
            return [self._state(self._tokens(text)) for text in texts]
        keys = [self._key(text) if text else "" for text in texts]
        known = {key: self._layer.state_in(self.ledger.state(key)) for key in dict.fromkeys(keys) if key}
        new = {
            key: self._layer.kept(self._state(self._tokens(text)))
            for key, text in zip(keys, texts, strict=True) if key and known[key] is None
        }  # fmt: skip
        if new:
            self.ledger.keep_states(new)
        known |= {key: self._layer.state_in(hidden) for key, hidden in new.items()}
        return [self._empty if (state := known.get(key)) is None else state for key in keys]

    def _vector(self, state: FloatArray) -> FloatArray:
        apart = state - self._empty
        rooted = np.sign(apart) * np.sqrt(np.abs(apart))
        length = np.linalg.norm(rooted)
        d = len(rooted)  # the empty text itself has no direction: a fixed one
        return rooted / length if length > 0 else np.full(d, d**-0.5, np.float32)

    def _key(self, text: str) -> str:
        return key_of(self.llm.identity, question_of(self.prompt.request(Example("", text))))

    def _tokens(self, text: str) -> Tokens:
        """The prompt about `text`, of which so much of the end is left out that the model can read it."""
        while True:
            tokens = self.llm.chats.tokens(self.prompt.render(Example("", text)))
            if len(tokens) <= self.llm.longest or not text:
                return tokens
            text = text[: len(text) * self.llm.longest // len(tokens)]

    @cached_property
    def _layer(self) -> Layer:
        return Layer(self.llm.reader.model.base_model, self.depth)

    @cached_property
    def _empty(self) -> FloatArray:
        """(d,) the state that says nothing of a text, but all of the prompt."""
        return self._state(self._tokens(""))

    @cached_property
    def _root(self) -> Tokens:
        """What all prompts begin with, found out by two that have nothing else in common."""
        return self._tokens("a")[: shared_length(sorted([self._tokens("a"), self._tokens("Z")], key=list))]

    @cached_property
    def _cache(self) -> Any:
        """Keys and values of the root; none for a model whose layers forget."""
        from transformers.cache_utils import DynamicCache, DynamicLayer

        cache = DynamicCache(config=self.llm.reader.model.config)
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            return None
        self._read(self._root, cache)
        return cache

    def _state(self, tokens: Tokens) -> FloatArray:
        """(d,) float32 of the last of `tokens`."""
        known = len(self._root)
        if self._cache is None or tuple(tokens[:known]) != tuple(self._root) or len(tokens) == known:
            return self._read(tokens, None)
        state = self._read(tokens[known:], self._cache)
        self._cache.crop(known - len(tokens))
        return state

    def _read(self, tokens: Tokens, cache: Any) -> FloatArray:
        import torch

        ids = torch.tensor([list(tokens)], device=self.llm.reader.device)
        with torch.inference_mode(), self._layer.heard(alone=True) as found:
            self._layer.model(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
        return np.asarray(found[0][0, -1].float().cpu().numpy(), np.float32)
