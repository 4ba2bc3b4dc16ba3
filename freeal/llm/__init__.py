"""Who reads: the protocol every LLM client follows, and the messages that pass through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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
    to be generated (at most `max_tokens`, at `temperature`, from `seed`). `uid` is the id of the example
    asked about: recorded replies are found by it; it is no part of what the LLM reads.
    """

    messages: tuple[Message, ...]
    choices: tuple[str, ...] = ()
    max_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    `logprobs` holds one natural logarithm a choice: of the event that the reply begins like this choice and
    like no other (they need not add up to one; -inf is allowed). None means the client cannot tell. A
    failed item has `problem` set and is never an exception.
    """

    text: str | None = None
    logprobs: tuple[float, ...] | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a client can do.

    `chunk` is how many requests it likes at a time: the unit that is kept or lost. `by_uid`: its replies depend
    on the id of the example, not on what is asked.
    """

    probabilities: bool
    generation: bool
    chunk: int = 64
    by_uid: bool = False


class LLM(Protocol):
    """`complete` gives one reply a request, in order. Only a dead server, a bad key or an unknown model raises."""

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """Everything beside the request that changes an answer: part of the key under which a reply is kept."""

    @property
    def capabilities(self) -> Capabilities: ...

    def complete(self, requests: Sequence[Request]) -> list[Reply]: ...

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Prompt tokens of each request, without asking anything (an estimate where there is no tokenizer)."""
