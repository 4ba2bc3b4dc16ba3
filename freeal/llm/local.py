"""A causal language model in this process, through transformers: exact label probabilities, and text.

The probability of a label is that of the event "the reply begins like this label and like no other":
the first token where labels differ there, more tokens where they share a beginning, with the end-of-turn
token where one label begins with the whole of another. It is taken from the full softmax over the
vocabulary, so that the log-probabilities of a `Reply` also tell how much of the reply is no label at all.

How prompts become forward passes is `packing`; a model that does not fit it (found out by comparing, when
the model is loaded) is read one padded batch at a time instead.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freeal import models
from freeal.config import LocalConfig
from freeal.errors import LLMError
from freeal.events import Emit, Note, ignore
from freeal.llm import UNHEARD, Capabilities, InProcess, Journal, Message, Reply, Request
from freeal.llm.packing import ChoiceTree, Tokens, branches, choice_tree, pack, packs, shared_length

if TYPE_CHECKING:
    import torch

CPU_TOKENS, GPU_TOKENS = 512, 8192
READOUTS = 1024
"""Places of one forward pass whose logits are kept, about: 1,024 of them over 150,000 tokens take 600 MB in float32."""
SAME = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""How far packed and plain probabilities may differ before a model counts as unfit for packing."""


class LocalLLM(InProcess):
    """`complete` scores choices, or writes text where a request has none.

    Args:
        config: model, device, precision and the size of a forward pass.
        emit: hears of downloads and fallbacks.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    def __init__(self, config: LocalConfig, emit: Emit = ignore) -> None:
        self.config = config
        folder = models.locate(config.model, emit)
        self.reader = _Reader(folder, config)
        self.identity: Mapping[str, str | int | float | bool | None] = {
            "kind": "local", "model": _model_identity(folder), "dtype": self.reader.dtype,
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
        """One reply a request, in order; too long a prompt is a problem of its own row."""
        replies: list[Reply | None] = [None] * len(requests)
        by_choices: dict[tuple[str, ...], list[int]] = {}
        prompts = [self.reader.tokens(request.messages) for request in requests]
        for i, request in enumerate(requests):
            if len(prompts[i]) > self.config.max_prompt_tokens:
                most = self.config.max_prompt_tokens
                long = f"not asked: prompt of {len(prompts[i])} tokens; llm.max_prompt_tokens is {most}"
                replies[i] = Reply(tokens_in=0, problem=long)
            else:
                by_choices.setdefault(request.choices, []).append(i)
        for choices, rows in by_choices.items():
            asked = [prompts[i] for i in rows]
            found = self._score(asked, choices) if choices else self._write(asked, [requests[i] for i in rows])
            for i, reply in zip(rows, found, strict=True):
                replies[i] = reply
        return [reply for reply in replies if reply is not None]

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Exact prompt tokens of each request."""
        return [len(self.reader.tokens(request.messages)) for request in requests]

    def _score(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[Reply]:
        score = self.reader.score_packed if self.packed else self.reader.score_plain
        replies = []
        for tokens, logprobs in zip(prompts, score(prompts, choices), strict=True):
            best = max(range(len(choices)), key=logprobs.__getitem__)
            replies.append(Reply(choices[best], tuple(logprobs), len(tokens), 1))
        return replies

    def _write(self, prompts: Sequence[Tokens], requests: Sequence[Request]) -> list[Reply]:
        """Texts, some at a time; those written together share the first one's seed, and its sampling."""
        found: dict[int, Reply] = {}
        alike: dict[tuple[int, float], list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault((request.max_tokens, request.temperature), []).append(i)
        for rows in alike.values():
            for start in range(0, len(rows), _WRITE_TOGETHER):
                some = rows[start : start + _WRITE_TOGETHER]
                written = self.reader.write([prompts[i] for i in some], requests[some[0]])
                found.update(zip(some, written, strict=True))
        return [found[i] for i in range(len(requests))]


_WRITE_TOGETHER = 16


@dataclass
class _Reader:
    """The model, its tokenizer, and the one key-value cache that grows and shrinks along the prefix tree."""

    folder: Path
    config: LocalConfig
    in_cache: list[int] = field(default_factory=list)
    trees: dict[tuple[str, ...], ChoiceTree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from transformers import AutoTokenizer

        self.device = _device(self.config.device)
        self.dtype = _dtype(self.config.dtype, self.device)
        with _loading(self.folder):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        self.cache: Any = None
        self.budget = self.config.batch_tokens or (CPU_TOKENS if self.device == "cpu" else GPU_TOKENS)
        self.chunk = 64 if self.device == "cpu" else 1024
        # of `all_special_tokens` a turn's beginning may be missing: it is an added token without a role of its own
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        self.special = sorted({*map(str, self.tokenizer.all_special_tokens), *added}, key=lambda s: (-len(s), s))
        self.folds_system = not self._takes_system()

    @cached_property
    def model(self) -> Any:
        """The weights, loaded when they are first needed: counting tokens does without."""
        import torch
        from transformers import AutoModelForCausalLM

        with _loading(self.folder):
            model = AutoModelForCausalLM.from_pretrained(
                self.folder, dtype=getattr(torch, self.dtype), trust_remote_code=False
            )
        return model.to(self.device).eval().requires_grad_(False)

    # ---- text to tokens

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The prompt of a chat, up to where the assistant begins to speak."""
        ids = self._encode(self._chat(messages))
        begin = None if self.tokenizer.chat_template else self.tokenizer.bos_token_id
        return ids if begin is None else [begin, *ids]

    def reply_tokens(self, choice: str) -> list[int]:
        """What the model would have to write to give `choice` as its whole reply."""
        question = (Message("user", "?"),)
        asked, answered = self._chat(question), self._chat((*question, Message("assistant", choice)))
        written = answered[len(asked) :].rstrip("\n") if answered.startswith(asked) else choice
        ids = self._encode(written)
        end = self.tokenizer.eos_token_id
        return ids if end is None or (ids and ids[-1] == end) else [*ids, end]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _chat(self, messages: Sequence[Message]) -> str:
        turns = [{"role": m.role, "content": self._inert(m.content)} for m in messages]
        if not self.tokenizer.chat_template:
            return _plain_chat(turns)
        if self.folds_system and turns[0]["role"] == "system":
            system, first, *rest = turns
            turns = [{"role": first["role"], "content": system["content"] + "\n\n" + first["content"]}, *rest]
        asks = turns[-1]["role"] != "assistant"
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks))

    def _inert(self, text: str) -> str:
        """Text in which no special token of the tokenizer is left: pool text cannot forge a turn."""
        for token in self.special:
            text = text.replace(token, token[0] + "\u200b" + token[1:]) if len(token) > 1 else text
        return text

    def _takes_system(self) -> bool:
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            return True
        self.folds_system = False
        try:
            return "@system@" in self._chat((Message("system", "@system@"), Message("user", "?")))
        except TemplateError:
            return False

    # ---- scoring

    def tree(self, choices: tuple[str, ...]) -> ChoiceTree:
        """The choices as a tree of tokens, made once."""
        if choices not in self.trees:
            try:
                self.trees[choices] = choice_tree([self.reply_tokens(choice) for choice in choices])
            except ValueError as error:
                raise LLMError(f"two labels look the same to the tokenizer of {self.folder.name}: {error}") from error
        return self.trees[choices]

    def score_packed(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[list[float]]:
        """(prompts, choices) log-probabilities; each shared prefix is read once."""
        import torch

        order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
        distinct = [i for j, i in enumerate(order) if j == 0 or prompts[i] != prompts[order[j - 1]]]
        found: dict[int, list[float]] = {}
        with torch.inference_mode():
            self._walk([prompts[i] for i in distinct], distinct, self.tree(choices), found, 0)
        same: list[float] = []
        for i in order:
            same = found.setdefault(i, same)
        return [found[i] for i in range(len(prompts))]

    def _walk(
        self, prompts: list[Tokens], names: list[int], tree: ChoiceTree, found: dict[int, list[float]], depth: int
    ) -> None:
        """Score sorted `prompts`, the first `depth` tokens of which are in the cache, into `found`."""
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
                scores = self._read([tails[i] for i in places], tree, depth)
                found.update(zip((named[i] for i in places), scores, strict=True))

    def _extend(self, tokens: Tokens, depth: int, end: int) -> None:
        """Bring tokens [depth, end) into the cache behind the first `depth`."""
        import torch

        if depth == 0 and self.in_cache == list(tokens[:end]) and self.cache.get_seq_length() == end:
            return  # the root of the last call: system text and fixed demonstrations
        if depth == 0:
            self._shrink(0)
        if end > depth:
            ids = torch.tensor([list(tokens[depth:end])], device=self.device)
            self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, **self._last_only)
        self.in_cache = list(tokens[:end])

    def _shrink(self, length: int) -> None:
        from transformers import DynamicCache

        if length == 0:
            self.cache = DynamicCache(config=self.model.config)
        elif extra := self.cache.get_seq_length() - length:
            self.cache.crop(-extra)
        self.in_cache = self.in_cache[:length]

    def _read(self, tails: Sequence[Tokens], tree: ChoiceTree, depth: int) -> list[list[float]]:
        """Log-probabilities (tails, choices) from one forward pass; the cache is left as it was."""
        import torch

        packed = pack(tails, tree, depth)
        logits = self.model(
            input_ids=torch.from_numpy(packed.tokens)[None].to(self.device),
            position_ids=torch.from_numpy(packed.positions)[None].to(self.device),
            attention_mask=torch.from_numpy(packed.mask)[None, None].to(self.device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.from_numpy(packed.readout.ravel()).to(self.device),
        ).logits[0]
        self._shrink(depth)
        return _path_scores(logits, tree, len(tails))

    def score_plain(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[list[float]]:
        """The same, each prompt read whole behind each of the tree's nodes: slow, and right for any causal model."""
        import torch

        tree = self.tree(choices)
        spelt = [()] + [_spell(tree, i) for i in range(len(tree))]
        scores = []
        with torch.inference_mode():
            for prompt in prompts:
                ends = []
                for tail in spelt:
                    ids = torch.tensor([[*prompt, *tail]], device=self.device)
                    ends.append(self.model(input_ids=ids, use_cache=False, **self._last_only).logits[0, -1])
                scores += _path_scores(torch.stack(ends), tree, 1)
        return scores

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
        prompts = [self.tokens((system, Message("user", text))) for text in texts]
        choices = ("yes", "yes and no", "no")
        self._shrink(0)
        if any(getattr(layer, "is_sliding", False) for layer in self.cache.layers):
            return "it has layers with sliding-window attention"
        try:
            packed = torch.tensor(self.score_packed(prompts, choices))
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError) as error:
            self._shrink(0)
            return f"{type(error).__name__}: {error}"
        plain = torch.tensor(self.score_plain(prompts, choices))
        apart = float((packed.exp() - plain.exp()).abs().max())
        return None if apart <= SAME[self.dtype] else f"packed probabilities are {apart:.2g} off"

    # ---- writing

    def write(self, prompts: Sequence[Tokens], how: Request) -> list[Reply]:
        """Text for each prompt, sampled together with the length, temperature and seed of `how`."""
        import torch

        width = max(len(prompt) for prompt in prompts)
        pad = next((t for t in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if t is not None), 0)
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        attends = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if how.temperature > 0:
            sampling = {"do_sample": True, "temperature": how.temperature, "top_p": 0.95, "top_k": 0}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(how.seed)
            written = self.model.generate(
                input_ids=ids, attention_mask=attends, max_new_tokens=how.max_tokens, pad_token_id=pad, **sampling
            )[:, width:]
        replies = []
        for prompt, tokens in zip(prompts, written.tolist(), strict=True):
            text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            spent = sum(token != pad for token in tokens)
            replies.append(Reply(text, None, len(prompt), spent, None if text else "empty reply"))
        return replies


def _path_scores(logits: torch.Tensor, tree: ChoiceTree, prompts: int) -> list[list[float]]:
    """Logits at the readout places of `prompts` prompts -> log-probability of each choice."""
    logprobs = logits.float().log_softmax(-1).view(prompts, 1 + len(tree), -1)
    columns = [sum(logprobs[:, node, token] for node, token in path) for path in tree.paths]
    return [list(map(float, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]  # type: ignore[union-attr]


def _spell(tree: ChoiceTree, i: int) -> tuple[int, ...]:
    parent = tree.parents[i]
    return (*(_spell(tree, parent - 1) if parent else ()), tree.tokens[i])


def _plain_chat(turns: Sequence[Mapping[str, str]]) -> str:
    """For models without a chat template: the turns as paragraphs, a reply right behind its question."""
    parts = []
    for turn in turns:
        parts.append(" " + turn["content"] + "\n\n" if turn["role"] == "assistant" else turn["content"])
        if turn["role"] == "system":
            parts.append("\n\n")
    return "".join(parts)


def _model_identity(folder: Path) -> str:
    """Name of the weights: their published sha256 where it is known, else a hash of the folder, weights in samples."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        kept = json.loads(manifest.read_text(encoding="utf-8"))
        return f"{kept.get('name', folder.name)}@{str(kept.get('sha256', ''))[:16]}"
    about = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".bin", ".gguf"):
            about.update(f"{path.name} {path.stat().st_size}".encode() + _samples(path))
        elif path.is_file():
            about.update(path.read_bytes())
    return f"{folder.name}@{about.hexdigest()[:16]}"


def _samples(path: Path, count: int = 64, size: int = 4096) -> bytes:
    """Blocks from all over a large file: enough to tell two trainings of one model apart."""
    with path.open("rb") as file:
        blocks = []
        for i in range(count):
            file.seek(path.stat().st_size * i // count)
            blocks.append(file.read(size))
    return b"".join(blocks)


def _device(wanted: str) -> str:
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(wanted: str, device: str) -> str:
    """`auto` is bfloat16 where the processor computes with it, else float32."""
    import torch

    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device == "mps":
        return "float16"
    return "bfloat16" if bfloat16_is_fast() else "float32"


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Loading without transformers' bars and warnings; a folder that cannot be loaded is an LLMError."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise LLMError(f"{folder}: cannot be loaded as a causal language model: {error}") from error
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
