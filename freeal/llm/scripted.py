"""The test double that ships with freeal: an LLM without a model, right as often as one likes."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from freeal.config import ScriptedConfig
from freeal.errors import ConfigError
from freeal.llm import UNHEARD, Capabilities, InProcess, Journal, Message, Reply, Request
from freeal.tasks import Kind, Said, Task
from freeal.tasks.tokens import NONE, Tokens

REMEMBERED = 10_000
"""Requests kept for tests to look at; older ones are forgotten."""


class ScriptedLLM(InProcess):
    """Answers by a function of the request, always the same to the same request; remembers what it was asked.

    Args:
        answer: request -> `Reply`, or the text of one. Raise in it what the LLM should raise.
        probabilities: whether it claims to give the probability of each choice.
        identity: what tells it from another script.

    Example:
        >>> llm = ScriptedLLM(lambda request: "positive")
        >>> llm.complete([Request((Message("user", "a joy"),))])[0].text
        'positive'
        >>> len(llm.requests)
        1
    """

    def __init__(
        self,
        answer: Callable[[Request], Reply | str],
        probabilities: bool = False,
        identity: Mapping[str, str | int | float | bool | None] | None = None,
    ) -> None:
        self.answer = answer
        self.capabilities = Capabilities(probabilities=probabilities, generation=True)
        self.identity = {"kind": "scripted", **(identity or {})}
        self.requests: list[Request] = []

    @classmethod
    def from_config(cls, config: ScriptedConfig, task: Task, seed: int) -> ScriptedLLM:
        """A script that looks for keywords, with noise fixed by text and seed.

        Asked for one label it names that with the most keywords; asked about one of several labels, by its name in the
        last line, it says yes where there is a keyword of it; of a text with entities it names the keywords.

        Raises:
            ConfigError: keywords for something that is no label.
        """
        labels = tuple(task.labels)
        if strange := [name for name in config.keywords if name not in labels]:
            raise ConfigError(f"llm.keywords: {strange[0]!r} is no label; labels are {', '.join(map(repr, labels))}")
        called = {name: said[0] for name, said in task.words.items()} if isinstance(task, Tokens) else {}
        script = _Keywords(config, labels, seed, task.kind, task.heard, called)
        about = hashlib.sha256(config.model_dump_json().encode()).hexdigest()
        return cls(script, config.probabilities, {"config": about, "labels": "\n".join(labels), "seed": seed})

    def complete(self, requests: Sequence[Request], journal: Journal = UNHEARD) -> list[Reply]:
        self.requests = [*self.requests, *requests][-REMEMBERED:]
        return [self._reply(request) for request in requests]

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """A word is a token."""
        return [sum(len(message.content.split()) for message in request.messages) for request in requests]

    def _reply(self, request: Request) -> Reply:
        found = self.answer(request)
        if isinstance(found, Reply):
            return found
        return Reply(found, tokens_in=self.count_tokens([request])[0], tokens_out=len(found.split()))


@dataclass(frozen=True, slots=True)
class _Keywords:
    """The label whose keywords occur most often, except where the dice, thrown by text and seed, say otherwise."""

    config: ScriptedConfig
    labels: tuple[str, ...]
    seed: int
    kind: Kind = "classification"
    heard: Callable[[str | None, str], Said] = lambda reply, text: Said(None)
    """What a reply says: several choices may stand for one label."""
    called: Mapping[str, str] = field(default_factory=dict)
    """Type of entity, or `none` -> the choice that stands for it, if not its name."""

    def __call__(self, request: Request) -> Reply | str:
        text = _last_user_text(request.messages)
        if self.kind == "tokens":
            if not request.choices:
                return self._written(request, text)
            if set(request.choices) == {"no", "yes"}:
                return self._chosen(request, self._is_one(text), text, True)
            right = self._which(request, text)
            mistaken = self._dice("noise", text) < self.config.noise
            return self._chosen(request, self._another(request, right, text) if mistaken else right, text, not mistaken)
        if not request.choices:
            return self._mean() if "'label: meaning'" in request.messages[0].content else self._write(request, text)
        if self._dice("unreadable", text) < self.config.unreadable:
            return f"Maybe {request.choices[0]}, maybe not: hard to say."
        right = self._right(text) if self.kind == "classification" else self._yes(text)
        # the same dice with and without demonstrations: what is right without them stays right with them
        shown = any(message.role == "assistant" for message in request.messages)
        mistaken = self._dice("noise", text) < self.config.noise * (0.5 if shown else 1.0)
        if self.kind == "multilabel":
            label = 1 - right if mistaken else right
        else:
            label = self._other(right, text) if mistaken and len(self.labels) > 1 else right
        return self._chosen(request, self._choice_of(request, label), text, sure=label == right)

    def _written(self, request: Request, text: str) -> str:
        """Entities of a text, or what the first message asks it to write."""
        task = request.messages[0].content
        if "You write lists" in task:
            return self._list(text)
        return self._write(request, text) if "You write texts" in task else self._entities(text)

    def _choice_of(self, request: Request, label: int) -> int:
        """The first of the choices that says so."""
        said = (self.heard(choice, "").proba for choice in request.choices)
        found = (place for place, proba in enumerate(said) if proba is not None and int(proba.argmax()) == label)
        return next(found, label % len(request.choices))

    def _right(self, text: str) -> int:
        """Class index; among labels named equally often the dice choose."""
        hits = [_count(self.config.keywords.get(name, ()), text) for name in self.labels]
        best = [index for index, count in enumerate(hits) if count == max(hits)]
        return best[int(self._dice("tie", text) * len(best))]

    def _is_one(self, text: str) -> int:
        """1 if the words in quotes are a keyword of the label that the last line names behind them, else 0."""
        quoted, _, about = text.rpartition("\n")[2].rpartition('"')
        words = quoted.partition('"')[2].casefold()
        asked = next((name for name in self.labels if name in about), self.labels[0])
        return int(words in [each.casefold() for each in self.config.keywords.get(asked, ())])

    def _which(self, request: Request, text: str) -> int:
        """The choice for the type that has the words in quotes as a keyword, or for none."""
        words = text.rpartition("\n")[2].partition('"')[2].rpartition('"')[0].casefold()
        known = {each.casefold(): name for name, listed in self.config.keywords.items() for each in listed}
        found = known.get(words, NONE)
        return request.choices.index(self.called.get(found, found))

    def _another(self, request: Request, right: int, text: str) -> int:
        """Any of the other choices."""
        others = [place for place in range(len(request.choices)) if place != right]
        return others[int(self._dice("other", text) * len(others))] if others else right

    def _yes(self, text: str) -> int:
        """1 if the text has a keyword of the label that its last line names, else 0."""
        above, _, question = text.rpartition("\n")
        asked = max(self.labels, key=lambda name: (question.casefold().rfind(name.casefold()), len(name)))
        return int(_count(self.config.keywords.get(asked, ()), above) > 0)

    def _entities(self, text: str) -> str:
        """A line for each type whose keywords stand in the text; by the dice one is left out, or of another type."""
        if self._dice("unreadable", text) < self.config.unreadable:
            return "Somebody is named here, I think."
        named: dict[str, list[str]] = {}
        for place, name in enumerate(self.labels):
            for word in self.config.keywords.get(name, ()):
                found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
                if found is None:
                    continue
                dice = self._dice("noise", text, word)
                other = self.labels[(place + 1) % len(self.labels)]
                if dice >= self.config.noise / 2:
                    named.setdefault(other if dice < self.config.noise else name, []).append(found[0])
        return "\n".join(f"{name}: {' | '.join(words)}" for name, words in named.items()) or "none"

    def _other(self, right: int, text: str) -> int:
        steps = 1 + int(self._dice("other", text) * (len(self.labels) - 1))
        return (right + steps) % len(self.labels)

    def _chosen(self, request: Request, index: int, text: str, sure: bool) -> Reply:
        """The choice as text, and with probabilities: above one half, and on average higher where it is right."""
        k, text_in = len(request.choices), sum(len(message.content.split()) for message in request.messages)
        p = 0.55 + (0.44 if sure else 0.25) * self._dice("confidence", text)
        rest = math.log((1 - p) / (k - 1)) if k > 1 else 0.0
        logprobs = tuple(math.log(p) if i == index else rest for i in range(k)) if self.config.probabilities else None
        reply = request.choices[index]
        return Reply(reply, logprobs, text_in, len(reply.split()))

    def _list(self, text: str) -> str:
        """The keywords of the labels that `text` names, one on each line."""
        named = (name for name in self.labels if re.search(rf"\b{re.escape(name)}\b", text))
        return "\n".join(f"- {word}" for name in named for word in self.config.keywords.get(name, ()))

    def _mean(self) -> str:
        """What each label means: its keywords, a line a label."""
        return "\n".join(f"- {name}: says {', '.join(self.config.keywords.get(name, ()))}" for name in self.labels)

    def _write(self, request: Request, text: str) -> str:
        """A few lines with keywords of the label that `text` names, or of any."""
        named = [name for name in self.labels if re.search(rf"\b{re.escape(name.casefold())}\b", text.casefold())]
        if self.kind == "tokens":  # of the types named, that which is to occur comes first, if one is to
            wanted = text.casefold().rpartition("at least one")[1:]
            named = sorted(named, key=lambda name: wanted[1].find(name.casefold()))[:1] if wanted[0] else []
        pool = named or list(self.labels)
        label = pool[int(self._dice("label", text, request.seed) * len(pool))]
        words = self.config.keywords.get(label) or [label]
        lines = []
        for number in range(max(2, min(8, request.max_tokens // 8))):
            word = words[int(self._dice("word", text, request.seed, number) * len(words))]
            frame = _FRAMES[int(self._dice("frame", text, request.seed, number) * len(_FRAMES))]
            if self.kind == "tokens":
                word = f"[{word}]({label})" if named else "it"
            lines.append(frame.format(word))
        return "\n".join(lines)

    def _dice(self, *what: object) -> float:
        """A number in [0, 1) that depends on `what` and the seed alone."""
        told = "\x1f".join(map(str, (self.seed, *what)))
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big") / 2**64


def _count(words: Sequence[str], text: str) -> int:
    return sum(text.casefold().count(word.casefold()) for word in words)


_FRAMES = (
    "I would call this {}",
    "all in all it was {} to me",
    "{} is the word for it",
    "well, {} once more",
    "nobody told us it is so {}",
    "this one seems {}, from start to end",
)


def _last_user_text(messages: Sequence[Message]) -> str:
    return next((message.content for message in reversed(messages) if message.role == "user"), "")
