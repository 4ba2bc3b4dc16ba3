"""vLLM's own engine in this process: exact label probabilities, all rows of a round together.

The probability of a label is that of `local`: the product of the probabilities of the tokens that tell it from
the others. Each place of the label tree is a prompt of its own, of which one token is written and the
log-probabilities of the tokens that may follow are read. Prompts are handed over in the order of their tokens,
so that what they share is in the engine's prefix cache.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from freeal import models
from freeal.config import VLLMConfig
from freeal.errors import LLMError
from freeal.events import Emit, Progress, ignore
from freeal.llm import Capabilities, Reply, Request
from freeal.llm.chats import ChatTokenizer, InProcessModel, model_identity, scored
from freeal.llm.packing import Tokens

REPLY_TOKENS = 1024
"""Room behind the longest prompt for what the LLM writes."""

TOLD_AT_ONCE = 128
"""Tokens whose probabilities the engine tells at one place."""


class VLLMEngine(InProcessModel):
    """`complete` scores choices, or writes text where a request has none.

    Args:
        config: model, precision, memory and whatever else the engine is to be told.
        emit: hears of downloads.

    Raises:
        ModelError: the model cannot be found.
        LLMError: vLLM is not installed, or cannot load the model.
    """

    def __init__(self, config: VLLMConfig, emit: Emit = ignore) -> None:
        self.config = config
        self.folder = models.locate(config.model, emit)
        super().__init__(ChatTokenizer(self.folder), config.max_prompt_tokens)
        self.identity: Mapping[str, str | int | float | bool | None] = {
            "kind": "vllm", "model": model_identity(self.folder), "dtype": config.dtype,
            "engine": json.dumps(dict(config.engine), sort_keys=True),
        }  # fmt: skip
        self.emit = emit
        self.capabilities = Capabilities(probabilities=True, generation=True, chunk=config.chunk)

    @cached_property
    def engine(self) -> Any:
        """Started when it is first needed: that takes a minute, and counting tokens does without."""
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is for data
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            import vllm
        except ImportError as error:
            raise LLMError(f"llm.kind vllm needs vLLM ({error}); docs/vllm.md says how to install it") from error
        settings: dict[str, Any] = {
            "max_model_len": self.config.max_prompt_tokens + REPLY_TOKENS,
            "gpu_memory_utilization": self.config.gpu_memory,
            "tensor_parallel_size": self.config.gpus,
            "max_logprobs": TOLD_AT_ONCE,
            **self.config.engine,
        }
        try:
            return vllm.LLM(str(self.folder), dtype=self.config.dtype, enable_prefix_caching=True, **settings)
        except (RuntimeError, TypeError, ValueError, OSError) as error:
            raise LLMError(f"vLLM cannot serve {self.config.model}: {error}") from error

    def _score(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[Reply]:
        """At each place of the tree, the tokens that may follow are asked of all prompts, up to 128 at a time.

        A call a place, and not one for all: banking77 has 28 places, and so many copies of a chunk's prompts are much
        memory; what they share is in the prefix cache from the first call on.
        """
        tree = self.chats.tree(choices)
        follow: list[list[int]] = [[] for _ in range(1 + len(tree))]
        for node, token in sorted({step for path in tree.paths for step in path}):
            follow[node].append(token)
        told: list[dict[tuple[int, int], float]] = [{} for _ in prompts]
        cached: list[int] = []
        for node, tail in enumerate(tree.spelt()):
            for start in range(0, len(follow[node]), TOLD_AT_ONCE):
                tokens = follow[node][start : start + TOLD_AT_ONCE]
                settings = {"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": tokens}
                outputs = self._generate([[*prompt, *tail] for prompt in prompts], [settings] * len(prompts))
                for i, output in enumerate(outputs):
                    logprobs = output.outputs[0].logprobs[0]
                    told[i].update({(node, token): float(logprobs[token].logprob) for token in tokens})
                if not cached:
                    hits = [output.num_cached_tokens or 0 for output in outputs]
                    cached = [min(hit, len(prompt)) for hit, prompt in zip(hits, prompts, strict=True)]
        return [
            scored(choices, [sum(told[i][step] for step in path) for path in tree.paths], len(prompts[i]), cached[i])
            for i in range(len(prompts))
        ]

    def _write(self, prompts: Sequence[Tokens], requests: Sequence[Request]) -> list[Reply]:
        """Texts, each with its own length, temperature and seed."""
        settings = [
            {
                "max_tokens": min(request.max_tokens, REPLY_TOKENS), "temperature": request.temperature,
                "top_p": 0.95 if request.temperature > 0 else 1.0, "seed": request.seed,
            }
            for request in requests
        ]  # fmt: skip
        replies = []
        for output in self._generate(prompts, settings):
            written = output.outputs[0]
            text, cached = written.text.strip(), output.num_cached_tokens
            problem = None if text else "empty reply"
            replies.append(Reply(text, None, len(output.prompt_token_ids), len(written.token_ids), problem, cached))
        return replies

    def _generate(self, prompts: Sequence[Tokens], settings: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The engine's outputs, in the order of `prompts`."""
        engine = self.engine  # sets the environment that vLLM reads when it is imported
        from vllm import SamplingParams

        order = sorted(range(len(prompts)), key=prompts.__getitem__)  # type: ignore[arg-type]
        try:
            outputs = engine.generate(
                [{"prompt_token_ids": prompts[i]} for i in order],
                [SamplingParams(**settings[i]) for i in order],
                use_tqdm=_teller(self.emit),
            )
        except (RuntimeError, ValueError) as error:
            raise LLMError(f"vLLM could not answer: {error}") from error
        found: list[Any] = [None] * len(prompts)
        for i, output in zip(order, outputs, strict=True):
            found[i] = output
        return found


def _teller(emit: Emit) -> Any:
    """What the engine takes for a progress bar, and is heard as freeal's own progress."""
    from tqdm import tqdm

    class Teller(tqdm):  # type: ignore[misc]
        def display(self, *_: Any, **__: Any) -> None:
            if self.desc.startswith("Processed"):
                emit(Progress("vllm", self.n, self.total, "prompts"))

    return partial(Teller, file=io.StringIO())
