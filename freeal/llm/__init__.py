"""Who reads: the protocol every LLM client follows, and the messages that pass through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the LLM.

    With `choices` the probability of each choice is wanted as the assistant's reply; without, text is
    to be generated (at most `max_tokens`, at `temperature`, from `seed`), as JSON that keeps to `schema` if there is
    one and the client has `Capabilities.structured`. `uid` is the id of the example
    asked about and `question` the number of the question about it: recorded replies are found by them; they are no part
    of what the LLM reads. `state`: its hidden state is wanted as well, where it can give that.
    """

    messages: tuple[Message, ...]
    choices: tuple[str, ...] = ()
    max_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0
    uid: str = ""
    question: int = 0
    schema: Mapping[str, Any] | None = None
    state: bool = False


FRAME = 16
"""Tokens of a reply around its label, where it comes as JSON: the braces and the name."""


def longest_reply(request: Request) -> int:
    """Tokens that a reply may have, its frame apart: as asked, but room for every label (a token has a byte or more).

    Example:
        >>> longest_reply(Request((), ("yes", "no"), max_tokens=2))
        7
    """
    return max(request.max_tokens, 4 + max((len(choice.encode()) for choice in request.choices), default=0))


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    `logprobs` holds one natural logarithm a choice: of the event that the reply begins like this choice and
    like no other (they need not add up to one; -inf is allowed). None means the client cannot tell. A
    failed item has `problem` set and is never an exception. `tokens_cached` of the `tokens_in` were in the server's
    prefix cache; None where it does not tell. `hidden`: what the model made of the question (`llm.hidden`).
    """

    text: str | None = None
    logprobs: tuple[float, ...] | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    problem: str | None = None
    tokens_cached: int | None = None
    hidden: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a client can do.

    `chunk` is how many requests it likes at a time: the unit that is kept or lost. `by_uid`: its replies depend
    on the id of the example, not on what is asked. `reasks`: how often a row may be asked again whose reply names
    no label. `structured`: text that it writes can be held to `Request.schema`. `room`: tokens that a reply has at
    least, as it thinks before it speaks. `trial`: answers that are looked at before more are paid for; 0 for none.
    """

    probabilities: bool
    generation: bool
    chunk: int = 64
    by_uid: bool = False
    reasks: int = 0
    structured: bool = False
    room: int = 0
    trial: int = 0


class Crowded(Exception):
    """The call cannot be paid for while others are under way: it may be made once they are paid."""


class Journal(Protocol):
    """Where a client that costs money tells what it does with each request, by its place among those given.

    `sent` before it leaves, `received` when raw replies are there, by place: the client goes on when the future is
    done, for what was told is then on the disk. `understood`: what the reply says; `failed`: this attempt brought
    none, and with `billed` the server may charge for it all the same; another attempt is sent anew.
    `sent` may raise: BudgetError if the call may not be made, Crowded if it may be made later. A full disk is a
    RunError. `pending`: it was sent by a process that is gone, and an answer may still come (of a batch).
    """

    def pending(self, place: int) -> bool: ...

    def sent(self, place: int) -> Future[None]: ...

    def received(self, raw: Mapping[int, str], seconds: float) -> Future[None]: ...

    def understood(self, place: int, reply: Reply) -> None: ...

    def failed(self, place: int, billed: bool = False) -> None: ...


class Unheard:
    """The journal that keeps nothing: for a question asked outside a run."""

    def pending(self, place: int) -> bool:
        return False

    def sent(self, place: int) -> Future[None]:
        return _done()

    def received(self, raw: Mapping[int, str], seconds: float) -> Future[None]:
        return _done()

    def understood(self, place: int, reply: Reply) -> None:
        pass

    def failed(self, place: int, billed: bool = False) -> None:
        pass


def _done() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


UNHEARD = Unheard()


class LLM(Protocol):
    """`complete` gives one reply a request, in order. Only a dead server, a bad key or an unknown model raises."""

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """Everything beside the request that changes an answer: part of the key under which a reply is kept."""

    @property
    def capabilities(self) -> Capabilities: ...

    def prepare(self, known: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Find out what is needed before the first request, and give it; `known` is what it gave last time."""

    def complete(self, requests: Sequence[Request], journal: Journal = UNHEARD) -> list[Reply]: ...

    def read(self, raw: str, request: Request) -> Reply:
        """What a raw reply says that the journal was told of; pure, so that kept replies can be read again."""

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Prompt tokens of each request, without asking anything (an estimate where there is no tokenizer)."""


class InProcess:
    """What is alike in clients that cost no money: nothing to find out, and no raw replies."""

    def prepare(self, known: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        return {}

    def read(self, raw: str, request: Request) -> Reply:
        raise ValueError("this client has no raw replies")
