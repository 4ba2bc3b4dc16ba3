"""Chats as the tokens of a causal language model: its own template, nothing in a text able to forge a turn."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freeal.errors import LLMError
from freeal.llm import UNHEARD, InProcess, Journal, Message, Reply, Request
from freeal.llm.packing import ChoiceTree, Tokens, choice_tree
from freeal.models import quiet


class ChatTokenizer:
    """The tokenizer and chat template of the model in `folder`.

    Raises:
        LLMError: the folder holds no tokenizer that transformers can load.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.folder = folder
        with loading(folder):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        # of `all_special_tokens` a turn's beginning may be missing: it is an added token without a role of its own
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        self.special = sorted({*map(str, self.tokenizer.all_special_tokens), *added}, key=lambda s: (-len(s), s))
        self.folds_system = not self._takes_system()
        self._trees: dict[tuple[str, ...], ChoiceTree] = {}

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
            text = text.replace(token, _broken(token)) if len(token) > 1 else text
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

    def tree(self, choices: tuple[str, ...]) -> ChoiceTree:
        """The choices as a tree of tokens, made once."""
        if choices not in self._trees:
            try:
                self._trees[choices] = choice_tree([self.reply_tokens(choice) for choice in choices])
            except ValueError as error:
                raise LLMError(f"two labels look the same to the tokenizer of {self.folder.name}: {error}") from error
        return self._trees[choices]


_MARKS = re.compile(
    r"<\|[\w ▁-]{1,40}\|>|<｜[^｜\n]{1,40}｜>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS)\]|<</?SYS>>|</?s>"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
)
"""Special tokens of the models people serve: those of the ChatML, Llama, Mistral, Gemma, DeepSeek and Phi families."""


def inert(text: str) -> str:
    """Text for a model whose tokenizer is elsewhere: no mark of a turn in it is one any more.

    Example:
        >>> inert("dull</s>") == "dull<\u200b/s>", inert("5 < 6 | 7 > 2")
        (True, '5 < 6 | 7 > 2')
    """
    return _MARKS.sub(lambda mark: _broken(mark[0]), text)


def _broken(token: str) -> str:
    """`token` with a space of no width in it: it reads the same, and is no special token."""
    return token[0] + "\u200b" + token[1:]


class InProcessModel(InProcess):
    """What is alike in models whose tokens are ours to choose: subclasses score choices, and write.

    Args:
        chats: turns chats into tokens.
        longest: tokens of the longest prompt that is asked.
    """

    def __init__(self, chats: ChatTokenizer, longest: int) -> None:
        self.chats = chats
        self.longest = longest

    def complete(self, requests: Sequence[Request], journal: Journal = UNHEARD) -> list[Reply]:
        """One reply a request, in order; too long a prompt is a problem of its own row."""
        replies: list[Reply | None] = [None] * len(requests)
        by_choices: dict[tuple[str, ...], list[int]] = {}
        prompts = [self.chats.tokens(request.messages) for request in requests]
        for i, request in enumerate(requests):
            if len(prompts[i]) > self.longest:
                long = f"not asked: prompt of {len(prompts[i])} tokens; llm.max_prompt_tokens is {self.longest}"
                replies[i] = Reply(problem=long)
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
        return [len(self.chats.tokens(request.messages)) for request in requests]

    def _score(self, prompts: Sequence[Tokens], choices: tuple[str, ...]) -> list[Reply]:
        raise NotImplementedError

    def _write(self, prompts: Sequence[Tokens], requests: Sequence[Request]) -> list[Reply]:
        raise NotImplementedError


def scored(choices: Sequence[str], logprobs: Sequence[float], tokens_in: int, cached: int | None = None) -> Reply:
    """The reply that names the likeliest choice and the log-probabilities of all."""
    best = max(range(len(choices)), key=logprobs.__getitem__)
    return Reply(choices[best], tuple(logprobs), tokens_in, 1, tokens_cached=cached)


def _plain_chat(turns: Sequence[Mapping[str, str]]) -> str:
    """For models without a chat template: the turns as paragraphs, a reply right behind its question."""
    parts = []
    for turn in turns:
        parts.append(" " + turn["content"] + "\n\n" if turn["role"] == "assistant" else turn["content"])
        if turn["role"] == "system":
            parts.append("\n\n")
    return "".join(parts)


def model_identity(folder: Path) -> str:
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


BLOCKS, BLOCK = 64, 4096
"""How many blocks of a file of weights its name is made from, and their bytes."""


def _samples(path: Path) -> bytes:
    """Blocks from all over a large file: enough to tell two trainings of one model apart."""
    with path.open("rb") as file:
        blocks = []
        for i in range(BLOCKS):
            file.seek(path.stat().st_size * i // BLOCKS)
            blocks.append(file.read(BLOCK))
    return b"".join(blocks)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Loading without transformers' bars and warnings; a folder that cannot be loaded is an LLMError."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError) as error:
        raise LLMError(f"{folder}: cannot be loaded as a causal language model: {error}") from error
