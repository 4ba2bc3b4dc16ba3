"""What a server understands: found out with a few small questions, and said in the body of every request after."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from freeal.config import OpenAIConfig
from freeal.llm import FRAME, Message, Request, longest_reply
from freeal.llm.chats import inert
from freeal.llm.completions import candidates_told, label_said, read_completion, thoughts, unreadable
from freeal.llm.faults import Fault

TOP_LOGPROBS = 20
"""The most that OpenAI, and vLLM by default, hand out."""

CHOICES = ("red", "blue")
SMALL = Request(
    (
        Message("system", "You answer short questions."),
        Message("user", "What colour is grass? Reply with the single word green."),
    ),
    CHOICES,
    max_tokens=8,
)
"""A question whose plain answer is none of its choices: a server that gives one of them has kept to the constraint."""

THINKING = 2048
"""Tokens of room for a reply of a model that thinks before it speaks, unless `llm.reply_tokens` says another number."""

OBJECT = {
    "type": "object",
    "properties": {"colours": {"type": "array", "items": {"type": "string", "enum": list(CHOICES)}}},
    "required": ["colours"],
    "additionalProperties": False,
}
SMALL_OBJECT = Request(SMALL.messages, max_tokens=64, schema=OBJECT)
"""The same, to be answered by an object."""

AskSmall = Callable[["Ways", Request], Awaitable[Mapping[str, Any] | Fault]]
"""Ask a small question in some way: the completion, or why there is none."""


class Lacking(Exception):
    """The server refuses every way, or does not do what the configuration asks for."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What a server was found to understand; part of the identity of its answers.

    `constraint`: how it is told to say a choice and nothing else. `logprobs`: candidates a token that it tells.
    `votes`: replies asked for at once, whose shares stand for probabilities. `spared`: sampling settings that it
    refuses. `limit`: what it calls the most tokens of a reply. `schema`: what it writes can be held to one. `system`:
    it takes a system turn; else its text comes before that of the user. `room`: tokens that a reply has at least.
    """

    constraint: Literal["structured_outputs", "response_format"] | None = None
    logprobs: int = 0
    votes: int = 1
    usage: bool = True
    spared: tuple[str, ...] = ()
    limit: str = "max_tokens"
    schema: bool = False
    system: bool = True
    room: int = 0

    def told(self) -> str:
        """In words, for the user."""
        if self.logprobs:
            how = f"probabilities from the {self.logprobs} likeliest tokens"
        elif self.votes > 1:
            how = f"{self.votes} votes a row"
        else:
            how = "the label as a word, without probabilities"
        held = f"held to the labels by {self.constraint}" if self.constraint else "free to say anything, read strictly"
        usage = "" if self.usage else "; it tells no usage, so tokens are estimated"
        spared = f"; it refuses {', '.join(self.spared)}" if self.spared else ""
        written = "; what it writes is held to JSON" if self.schema else ""
        folded = "" if self.system else "; it takes no system turn, so that its text comes before the user's"
        room = f"; {self.room:,} tokens of room for each reply (llm.reply_tokens)" if self.room else ""
        return f"{how}; {held}{written}{usage}{spared}{folded}{room}"

    def roomy(self, request: Request) -> Request:
        """The request with the room that replies need here."""
        return replace(request, max_tokens=max(request.max_tokens, self.room))

    def fitting(self, config: OpenAIConfig) -> Ways:
        """Themselves; Lacking if they are less than `llm.require` or `llm.strategy` ask for."""
        missing = {"probabilities": not self.logprobs, "constraint": not self.constraint}
        for need in {config.require, config.strategy} & {"probabilities", "constraint"}:
            if missing[str(need)]:
                raise Lacking(f"gives no {need} ({self.told()}), and the configuration asks for it")
        return self

    def body(self, model: str, request: Request) -> dict[str, Any]:
        """The body of a request. Servers have defaults of their own (vLLM: those of the model): everything is said."""
        most = longest_reply(request) + FRAME * (bool(request.choices) and self.constraint == "response_format")
        voting = bool(request.choices) and self.votes > 1
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": inert(message.content)} for message in self._turns(request)],
            self.limit: most, "temperature": 1.0 if voting else request.temperature, "top_p": 1.0, "seed": request.seed,
        }  # fmt: skip
        if request.choices:
            body |= {"n": self.votes} if voting else {}
            body |= {"logprobs": True, "top_logprobs": self.logprobs} if self.logprobs else {}
            body |= _constrained(self.constraint, request.choices)
        elif request.schema and self.schema:
            body |= _response_format("reply", request.schema)
        return {name: value for name, value in body.items() if name not in self.spared}

    def _turns(self, request: Request) -> Sequence[Message]:
        if self.system or len(request.messages) < 2 or request.messages[0].role != "system":
            return request.messages
        system, first, *rest = request.messages
        return replace(first, content=f"{system.content}\n\n{first.content}"), *rest


async def find_out(config: OpenAIConfig, ask: AskSmall, schema: bool = False) -> Ways:
    """From the best way down to the plainest, until one is answered as it should be.

    Args:
        schema: also whether it can be held to one.

    Raises:
        Lacking: the server refuses every way.
    """
    wanted = config.strategy
    best = Ways(logprobs=TOP_LOGPROBS if wanted in ("auto", "probabilities") else 0, room=config.reply_tokens or 0)
    ways, reply = await _accepted(best, ask)
    if thoughts(reply) and not ways.room:
        ways, reply = await _accepted(replace(ways, room=THINKING), ask)
    told = min(ways.logprobs, candidates_told(reply))
    ways = replace(ways, logprobs=told, usage=bool(reply.get("usage")))
    if wanted != "text":
        ways = await _constraint(ways, ask)
    if not ways.logprobs and (wanted == "votes" or (wanted == "auto" and config.votes > 1)):
        ways = await _votes(ways, config.votes, ask)
    return await _schema(ways, ask) if schema else ways


async def _accepted(ways: Ways, ask: AskSmall) -> tuple[Ways, Mapping[str, Any]]:
    """`ways` without what the server refuses to hear of, or answers so that it cannot be read, and its reply."""
    while True:
        answer = await ask(ways, ways.roomy(SMALL))
        if isinstance(answer, Fault):
            problem, lesser = answer.problem, _without_what_was_refused(ways, answer.problem)
        elif odd := unreadable(answer, SMALL):
            problem, lesser = f"answered oddly: {odd}", replace(ways, logprobs=0) if ways.logprobs else None
        else:
            return ways, answer
        if lesser is None:  # each step takes something away, so that this comes to an end
            raise Lacking(problem)
        ways = lesser


async def _votes(ways: Ways, votes: int, ask: AskSmall) -> Ways:
    """`ways` with votes, if the server gives as many replies as are asked for."""
    bound = replace(ways, votes=votes)
    answer = await ask(bound, bound.roomy(SMALL))
    return ways if isinstance(answer, Fault) or len(answer["choices"]) < votes else bound


async def _constraint(ways: Ways, ask: AskSmall) -> Ways:
    """The first constraint that the server keeps to although it was told to say something else."""
    tried: tuple[Literal["structured_outputs", "response_format"], ...] = ("structured_outputs",)
    if not ways.logprobs:  # within JSON the label is no longer what the reply begins with
        tried += ("response_format",)
    for constraint in tried:
        bound = replace(ways, constraint=constraint)
        answer = await ask(bound, bound.roomy(SMALL))
        if not isinstance(answer, Fault) and label_said(answer, SMALL) in CHOICES:
            return bound
    return ways


async def _schema(ways: Ways, ask: AskSmall) -> Ways:
    """`ways` with a schema, if the server answers with an object although it was told to say something else."""
    bound = replace(ways, schema=True)
    answer = await ask(bound, bound.roomy(SMALL_OBJECT))
    said = None if isinstance(answer, Fault) else read_completion(json.dumps(answer), SMALL_OBJECT, 0).text
    try:
        found = json.loads(said or "")
    except ValueError:
        return ways
    return bound if isinstance(found, dict) and list(found) == ["colours"] else ways


def _constrained(constraint: str | None, choices: Sequence[str]) -> dict[str, Any]:
    if constraint == "structured_outputs":
        return {"structured_outputs": {"choice": list(choices)}}
    if constraint == "response_format":
        label = {"type": "string", "enum": list(choices)}
        schema = {
            "type": "object",
            "properties": {"label": label},
            "required": ["label"],
            "additionalProperties": False,
        }
        return _response_format("label", schema)
    return {}


def _response_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    described = {"name": name, "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


_SETTINGS = ("temperature", "top_p", "seed")
_NO_SYSTEM = re.compile(r"system (role|message|prompt|instruction)|roles? must alternate|only user and assistant"
                        r"|developer instruction|(invalid|unsupported|unknown) role", re.IGNORECASE)  # fmt: skip
_NO_ROOM = "max_tokens or model output limit was reached"
"""What OpenAI says of a model that thought until there was no room left to speak."""


def _without_what_was_refused(ways: Ways, said: str) -> Ways | None:
    """`ways` without the setting that a refusal names, or with the room it asks for; None if it names nothing."""
    if _NO_ROOM in said and not ways.room:
        return replace(ways, room=THINKING)
    if "max_completion_tokens" in said and ways.limit != "max_completion_tokens":
        return replace(ways, limit="max_completion_tokens")
    if "logprobs" in said and ways.logprobs:
        return replace(ways, logprobs=5 if ways.logprobs > 5 else 0)
    if _NO_SYSTEM.search(said) and ways.system:
        return replace(ways, system=False)
    for setting in _SETTINGS:
        if setting in said and setting not in ways.spared:
            return replace(ways, spared=(*ways.spared, setting))
    return None
