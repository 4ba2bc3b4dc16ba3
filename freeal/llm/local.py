"""A causal language model in this process, through transformers: exact label probabilities, and text.

The probability of a label is that of the event "the reply begins like this label and like no other":
the first token where labels differ there, more tokens where they share a beginning, with the end-of-turn
token where one label begins with the whole of another. It is taken from the full softmax over the
vocabulary, so that the log-probabilities of a `Reply` also tell how much of the reply is no label at all.

How prompts become forward passes is `packing`; a model that does not fit it (found out by comparing, when
the model is loaded) is read one padded batch at a time instead.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from freeal import models
from freeal.config import LocalConfig
from freeal.errors import ConfigError
from freeal.events import Emit, Note, ignore
from freeal.llm import UNHEARD, Capabilities, Journal, Message, Reply, Request
from freeal.llm.chats import ChatTokenizer, InProcessModel, loading, model_identity, scored
from freeal.llm.hidden import Layer
from freeal.llm.packing import ChoiceTree, Tokens, branches, pack, packs, shared_length
from freeal.processor import bfloat16_is_faster, give_memory_back, pick_device
from freeal.types import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

CPU_TOKENS, GPU_TOKENS = 512, 8192
INT8 = "int8"
READOUTS = 1024
"""Places of one forward pass whose logits are kept, about: 1,024 of them over 150,000 tokens take 600 MB in float32."""
SAME = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2, "int8": 0.1}
"""How far packed and plain probabilities may differ before a model counts as unfit for packing."""


class LocalLLM(InProcessModel):
    """`complete` scores choices, or writes text where a request has none.

    Args:
        config: model, device, precision and the size of a forward pass.
        emit: hears of downloads and fallbacks.
        depth: with a scored reply comes, if it is wanted, the hidden state of the layer there, a share of all.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    def __init__(self, config: LocalConfig, emit: Emit = ignore, depth: float | None = None) -> None:
        self.config = config
        folder = models.locate(config.model, emit)
        super().__init__(ChatTokenizer(folder), config.max_prompt_tokens)
        self.reader = _Reader(folder, config, self.chats, depth)
        self.identity: Mapping[str, str | int | float | bool | None] = {
            "kind": "local", "model": model_identity(folder), "dtype": self.reader.dtype,
        }  # fmt: skip
        self.capabilities = Capabilities(probabilities=True, generation=True, chunk=self.reader.chunk)
        self.emit = emit

    @cached_property
    def packed(self) -> bool:
        """Whether prompts are packed; found out before the first question."""
        unfit = self.reader.unfit_for_packing()
        if unfit:
            self.emit(Note(f"{self.config.model} reads each prompt whole, which is slower: {unfit}", "llm"))
        return unfit is None

    def complete(self, requests: Sequence[Request], journal: Journal = UNHEARD) -> list[Reply]:
        """As every client does; hidden states are left out where they are not wanted."""
        give_memory_back()  # of a student's training
        replies = super().complete(requests, journal)
        return [
            reply if request.state else replace(reply, hidden=None)
            for request, reply in zip(requests, replies, strict=True)
        ]

    def _score(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[Reply]:
        score = self.reader.score_packed if self.packed else self.reader.score_plain
        found = zip(prompts, score(prompts, choices), strict=True)
        return [
            replace(scored(choices, read.logprobs, len(tokens)), hidden=self._kept(read.state))
            for tokens, read in found
        ]

    def _kept(self, state: FloatArray | None) -> bytes | None:
        return None if self.reader.layer is None or state is None else self.reader.layer.kept(state)

    def states(self, prompts: Sequence[Tokens]) -> list[FloatArray]:
        """(d,) float32 of each prompt: the hidden state at its end; layers above the one read are not computed.

        Which prompts are read together tells in rounding alone.
        """
        return self.reader.states_packed(prompts) if self.packed else self.reader.states_plain(prompts)

    def _write(self, prompts: Sequence[Tokens], requests: Sequence[Request]) -> list[Reply]:
        """Texts, some at a time; those written together share the first one's seed, and its sampling."""
        found: dict[int, Reply] = {}
        alike: dict[tuple[int, float], list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault((request.max_tokens, request.temperature), []).append(i)
        for rows in alike.values():
            for start in range(0, len(rows), _WRITE_TOGETHER):
                some = rows[start : start + _WRITE_TOGETHER]
                written = self.reader.write([prompts[i] for i in some], requests[some[0]], self.packed)
                found.update(zip(some, written, strict=True))
        return [found[i] for i in range(len(requests))]


_WRITE_TOGETHER = 16

_in_use: WeakValueDictionary[tuple[Path, str, str], Any] = WeakValueDictionary()
"""Weights that somebody in this process uses: whoever else wants them has the same ones."""


class _Read(NamedTuple):
    """What a prompt was read to: the log-probability of each choice, and the hidden state (d,) if one is heard."""

    logprobs: list[float]
    state: FloatArray | None


@dataclass
class _Reader:
    """The model, and the one key-value cache that grows and shrinks along the prefix tree."""

    folder: Path
    config: LocalConfig
    chats: ChatTokenizer
    depth: float | None = None
    in_cache: list[int] = field(default_factory=list)
    only_states: bool = False
    """Whether layers above that whose states are heard are left out: the cache then holds nothing of them."""

    def __post_init__(self) -> None:
        self.device = pick_device(self.config.device)
        self.dtype = _dtype(self.config.dtype, self.device)
        self.cache: Any = None
        self.budget = self.config.batch_tokens or (CPU_TOKENS if self.device == "cpu" else GPU_TOKENS)
        self.chunk = 64 if self.device == "cpu" else 1024

    @cached_property
    def model(self) -> Any:
        """The weights, loaded when they are first needed: counting tokens does without."""
        import torch
        from transformers import AutoModelForCausalLM

        key = self.folder, self.dtype, self.device
        model = _in_use.get(key)
        if model is None:
            load = partial(AutoModelForCausalLM.from_pretrained, self.folder, trust_remote_code=False)
            with loading(self.folder):
                if self.dtype == INT8:
                    from freeal.llm.int8 import read_for_rounding, rounded

                    model = rounded(read_for_rounding(self.folder, lambda dtype: load(dtype=dtype)))
                else:
                    model = load(dtype=getattr(torch, self.dtype))
            model = model.to(self.device).eval().requires_grad_(False)
            _in_use[key] = model
            give_memory_back()
        return model

    @cached_property
    def layer(self) -> Layer | None:
        """Whose hidden states are heard, if any are."""
        return None if self.depth is None else Layer(self.model.base_model, self.depth)

    # ---- scoring

    def score_packed(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[_Read]:
        """What each prompt is read to; each shared prefix is read once."""
        return self._packed(prompts, self.chats.tree(choices), only_states=False)

    def states_packed(self, prompts: Sequence[Tokens]) -> list[FloatArray]:
        """(d,) of each prompt, in the same way."""
        return [read.state for read in self._packed(prompts, _NO_CHOICES, only_states=True) if read.state is not None]

    def _packed(self, prompts: Sequence[Tokens], tree: ChoiceTree, only_states: bool) -> list[_Read]:
        import torch

        if not prompts:
            return []
        self._want(only_states)
        order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
        distinct = [i for j, i in enumerate(order) if j == 0 or prompts[i] != prompts[order[j - 1]]]
        found: dict[int, _Read] = {}
        with torch.inference_mode():
            self._walk([prompts[i] for i in distinct], distinct, tree, found, 0)
        same = found[order[0]]
        for i in order:
            same = found.setdefault(i, same)
        return [found[i] for i in range(len(prompts))]

    def _walk(
        self, prompts: list[Tokens], names: list[int], tree: ChoiceTree, found: dict[int, _Read], depth: int
    ) -> None:
        """Read sorted `prompts`, the first `depth` tokens of which are in the cache, into `found`."""
        shared = shared_length(prompts)
        if shared > depth or depth == 0:
            self._extend(prompts[0], depth, shared)
            depth = shared
        for run, further in branches(prompts, depth):
            some, named = [prompts[i] for i in run], [names[i] for i in run]
            if further:
                self._walk(some, named, tree, found, depth)
                self._shrink(depth)
                continue
            tails = [tokens[depth:] for tokens in some]
            most = min(self.budget, READOUTS // (1 + len(tree)) * max(map(len, tails)))
            for places in packs([len(tail) + len(tree) for tail in tails], max(most, 1)):
                read = self._read([tails[i] for i in places], tree, depth)
                found.update(zip((named[i] for i in places), read, strict=True))

    def _extend(self, tokens: Tokens, depth: int, end: int) -> None:
        """Bring tokens [depth, end) into the cache behind the first `depth`."""
        import torch

        if depth == 0 and self.in_cache == list(tokens[:end]) and self.cache.get_seq_length() == end:
            return  # the root of the last call: system text and fixed demonstrations
        if depth == 0:
            self._shrink(0)
        if end > depth:
            ids = torch.tensor([list(tokens[depth:end])], device=self.device)
            with self._hearing():
                self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, **self._last_only)
        self.in_cache = list(tokens[:end])

    def _shrink(self, length: int) -> None:
        from transformers import DynamicCache

        if length == 0:
            self.cache = DynamicCache(config=self.model.config)
        elif extra := self.cache.get_seq_length() - length:
            self.cache.crop(-extra)
        self.in_cache = self.in_cache[:length]

    def _read(self, tails: Sequence[Tokens], tree: ChoiceTree, depth: int) -> list[_Read]:
        """What each of `tails` is read to in one forward pass; the cache is left as it was."""
        import torch

        packed = pack(tails, tree, depth)
        logprobs: list[list[float]] = [[]] * len(tails)
        with self._hearing() as heard:
            logits = self.model(
                input_ids=torch.from_numpy(packed.tokens)[None].to(self.device),
                position_ids=torch.from_numpy(packed.positions)[None].to(self.device),
                attention_mask=torch.from_numpy(packed.mask)[None, None].to(self.device),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=torch.from_numpy(packed.readout.ravel()).to(self.device),
            ).logits[0]
            logprobs = _path_scores(logits, tree, len(tails))  # not come to where states alone are wanted
        self._shrink(depth)
        states = _at(heard[0], packed.readout[:, 0]) if heard else [None] * len(tails)
        return list(map(_Read, logprobs, states))

    def _want(self, only_states: bool) -> None:
        if only_states != self.only_states:
            self._shrink(0)
        self.only_states = only_states

    def _hearing(self) -> AbstractContextManager[list[torch.Tensor]]:
        return self.layer.heard(alone=self.only_states) if self.layer else nullcontext([])

    def score_plain(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[_Read]:
        """The same, each prompt read whole behind each of the tree's nodes: slow, and right for any causal model."""
        import torch

        self._want(only_states=False)
        tree = self.chats.tree(choices)
        found = []
        with torch.inference_mode():
            for prompt in prompts:
                with self._hearing() as heard:
                    ends = [self._whole([*prompt, *tail]).logits[0, -1] for tail in tree.spelt()]
                state = _at(heard[0], np.array([-1]))[0] if heard else None
                found += [_Read(each, state) for each in _path_scores(torch.stack(ends), tree, 1)]
        return found

    def states_plain(self, prompts: Sequence[Tokens]) -> list[FloatArray]:
        """(d,) of each prompt, read whole."""
        import torch

        self._want(only_states=True)
        found = []
        with torch.inference_mode():
            for prompt in prompts:
                with self._hearing() as heard:
                    self._whole(prompt)
                found.append(_at(heard[0], np.array([-1]))[0])
        return found

    def _whole(self, tokens: Tokens) -> Any:
        """What the model gives of `tokens`, nothing of which is in a cache."""
        import torch

        ids = torch.tensor([list(tokens)], device=self.device)
        return self.model(input_ids=ids, use_cache=False, **self._last_only)

    @cached_property
    def _last_only(self) -> dict[str, int]:
        """What keeps a model from giving logits of every place, if it knows how."""
        return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(self.model.forward).parameters else {}

    def unfit_for_packing(self) -> str | None:
        """Why packed reading does not give this model's plain probabilities; None if it does. Tried on a few words."""
        import torch

        texts = ("a short one", "a somewhat longer one that goes on for a while, and then ends", "b")
        system = Message(
            "system", "Reply with one word and nothing else: yes, yes and no, or no. Think of the weather."
        )
        prompts = [self.chats.tokens((system, Message("user", text))) for text in texts]
        choices = ("yes", "yes and no", "no")
        self._shrink(0)
        if any(getattr(layer, "is_sliding", False) for layer in self.cache.layers):
            return "it has layers with sliding-window attention"
        try:
            packed = torch.tensor([each.logprobs for each in self.score_packed(prompts, choices)])
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError) as error:
            self._shrink(0)
            return f"{type(error).__name__}: {error}"
        plain = torch.tensor([each.logprobs for each in self.score_plain(prompts, choices)])
        apart = float((packed.exp() - plain.exp()).abs().max())
        return None if apart <= SAME[self.dtype] else f"packed probabilities are {apart:.2g} off"

    # ---- writing

    def write(self, prompts: Sequence[Tokens], how: Request, packed: bool) -> list[Reply]:
        """Text for each prompt, sampled together with the length, temperature and seed of `how`.

        What all prompts begin with is read once if they can be `packed`, and not again where the last ones had it, too.
        """
        import torch

        tokenizer = self.chats.tokenizer
        width = max(len(prompt) for prompt in prompts)
        pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)
        shared = shared_length(sorted(prompts, key=list)) if packed else 0
        padded = [[*p[:shared], *[pad] * (width - len(p)), *p[shared:]] for p in prompts]
        attended = [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts]
        ids, attends = torch.tensor(padded, device=self.device), torch.tensor(attended, device=self.device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if how.temperature > 0:
            sampling = {"do_sample": True, "temperature": how.temperature, "top_p": 0.95, "top_k": 0}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(how.seed)
            begun = {"past_key_values": self._begun(prompts[0], shared, len(prompts))} if shared > 0 else {}
            written = self.model.generate(
                input_ids=ids, attention_mask=attends, max_new_tokens=how.max_tokens, pad_token_id=pad,
                **begun, **sampling,
            )[:, width:]  # fmt: skip
        replies = []
        for prompt, tokens in zip(prompts, written.tolist(), strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            spent = sum(token != pad for token in tokens)
            replies.append(Reply(text, None, len(prompt), spent, None if text else "empty reply"))
        return replies

    def _begun(self, prompt: Tokens, shared: int, times: int) -> Any:
        """A cache that holds the first `shared` tokens of `prompt`, for as many prompts that begin so."""
        self._extend(prompt, 0, shared)
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(times)
        return cache


_NO_CHOICES = ChoiceTree((), (), (), ())


def _at(states: torch.Tensor, places: IntArray) -> FloatArray:
    """(p, d) float32 of `states` (1, tokens, d) at `places` (p,)."""
    found: FloatArray = states[0, list(map(int, places))].float().cpu().numpy()
    return found


def _path_scores(logits: torch.Tensor, tree: ChoiceTree, prompts: int) -> list[list[float]]:
    """Logits at the readout places of `prompts` prompts -> log-probability of each choice."""
    logprobs = logits.float().log_softmax(-1).view(prompts, 1 + len(tree), -1)
    columns = [sum(logprobs[:, node, token] for node, token in path) for path in tree.paths]
    return [list(map(float, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]  # type: ignore[union-attr]


def _dtype(wanted: str, device: str) -> str:
    """`auto` is bfloat16 where the device computes faster with it, else float32, on a GPU float16.

    Raises:
        ConfigError: eight bits, and not on a processor.
    """
    if wanted == INT8 and device != "cpu":
        raise ConfigError(
            f"llm.dtype: int8 is computed on a processor, and this model runs on {device}: "
            "leave llm.dtype out, or set llm.device: cpu"
        )
    if wanted != "auto":
        return wanted
    if bfloat16_is_faster(device):
        return "bfloat16"
    return "float16" if device.startswith(("cuda", "mps")) else "float32"
