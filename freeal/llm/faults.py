"""What went wrong with a request, and what is to be done: the one table that all servers share.

Servers agree on status codes, and on little else: the rest is phrases, collected from OpenAI, Azure, vLLM,
llama.cpp, TGI, Groq, Gemini, xAI, Bedrock, LiteLLM and OpenRouter.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["fatal", "rate", "transient", "outage", "row", "request"]
"""fatal: every request would be refused. rate: too fast. transient: may go better the next time. outage: nobody is
there. row: this text is the trouble, and always will be. request: refused as it is put, perhaps all of them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt. `wait`: seconds the server asked for, if it did; `problem` begins with a word to count.

    `billed`: the request went out and no refusal came back, or a gateway's that it waited for the answer in vain, so
    that the server may charge for it. `strained`: it may have come to this because the server had too much to do at
    once.
    """

    kind: Kind
    problem: str
    wait: float | None = None
    billed: bool = False
    strained: bool = False

    @property
    def of_the_key(self) -> bool:
        """Whether it is likely the key that every request is refused for."""
        return self.problem.startswith(("401", "403")) or _any_of(_BAD_KEY, self.problem.casefold())

    @property
    def passes(self) -> bool:
        """Whether the same request may go well later."""
        return self.kind in ("rate", "transient", "outage")


def of_status(status: int, code: str | None, message: str, headers: Mapping[str, str]) -> Fault:
    """The fault that an HTTP status, an error code and the words beside it stand for.

    Example:
        >>> of_status(429, None, "slow down", {"retry-after": "2"}).wait
        2.0
        >>> of_status(400, None, "This model's maximum context length is 512 tokens", {}).kind
        'row'
    """
    said, lowered = message.strip()[:300], f"{code or ''} {message}".casefold()
    if status == 403 and "logprobs" in lowered:  # OpenAI of its reasoning models: it is the setting that is refused
        return Fault("request", f"request refused: {said}")
    if status >= 500 and _any_of(_NO_SYSTEM, lowered):  # the model's template raised, and always will
        return Fault("request", f"request refused: {status} {said}")
    if status == 429:
        return _too_many(said, lowered, headers)
    if status == 413 or (status in (400, 422) and _any_of(_TOO_LONG, lowered)):
        return Fault("row", f"too long: {said}")
    if status in (400, 403) and _any_of(_FILTERED, lowered):
        return Fault("row", f"refused: {said}")
    if status in (401, 402, 403, 404) or (status == 400 and _any_of((*_NO_MONEY, *_BAD_KEY), lowered)):
        return Fault("fatal", f"{status}: {said}")
    if status in _AWAY:
        late = status in _TOO_LATE
        return Fault("outage", f"server: {status} {said}", _wait(message, headers), billed=late, strained=status != 502)
    if status in (408, 409, 425) or status >= 500:
        return Fault("transient", f"server: {status} {said}", _wait(message, headers))
    return Fault("request", f"request refused: {status} {said}")


def _too_many(said: str, lowered: str, headers: Mapping[str, str]) -> Fault:
    """What a 429 means: nearly always that one should wait, even where its words are also those of something else."""
    rate = Fault("rate", f"rate limit: {said}", _wait(lowered, headers))
    if _any_of(_NO_MONEY, lowered):
        return rate if _any_of(_SOON, lowered) else Fault("fatal", f"429: {said}")
    if _any_of(_NEVER_FITS, lowered) and not _any_of(_LATER, lowered):
        return Fault("row", f"too long: {said}")
    return rate


def of_connection(error: BaseException, timeout: float) -> Fault:
    """The fault behind a request that got no response: whether it went out, and whether the server was too slow.

    The client raises one class for all; what happened is in the causes, of one of two HTTP libraries: the names of
    their classes are read, as neither is a dependency of ours. aiohttp's lost and refused connections come dressed
    as timeouts.
    """
    causes = list(_causes(error))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    through_aiohttp = "ClientError" in kinds
    unsent = {"ConnectError", "ClientConnectorError", "ConnectionTimeoutError"} | (
        set() if through_aiohttp else {"ConnectTimeout"}
    )
    late = "TimeoutError" in kinds or (not through_aiohttp and "TimeoutException" in kinds)
    said = f"no answer within {timeout:g} s" if late else " ".join(dict.fromkeys(map(str, (causes[0], causes[-1]))))
    return Fault("outage", f"server: {said}".strip(), billed=not kinds & unsent, strained=late)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, from the three forms in use: milliseconds, seconds, a date; None if nothing sensible is said.

    Example:
        >>> retry_after({"retry-after-ms": "1500"}), retry_after({"retry-after": "nan"})
        (1.5, None)
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except (ValueError, TypeError, OverflowError):
        return None


def _wait(message: str, headers: Mapping[str, str]) -> float | None:
    asked = retry_after(headers)
    return wait_said(message) if asked is None else asked


def wait_said(message: str) -> float | None:
    """Seconds to wait, as some servers say them in their message only; None if it names none.

    Example:
        >>> wait_said("Please retry in 17.3s."), wait_said("Please try again in 7m12s."), wait_said("Slow down.")
        (17.3, 432.0, None)
    """
    found = _SAID.search(message.casefold())
    if not found:
        return None
    return sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(found[1]))


_SECONDS = {"ms": 0.001, "millisecond": 0.001, "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60,
            "h": 3600, "hour": 3600}  # fmt: skip
_UNITS = "|".join(sorted(_SECONDS, key=len, reverse=True))
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNITS})(?:(?<=\w\w)s)?(?![a-z])")
_SAID = re.compile(rf"(?:retry|try again)\s+(?:in|after)\s+((?:{_PART.pattern}[\s,]*)+)")


def _any_of(phrases: tuple[str, ...], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


_TOO_LATE = (504, 524)
"""What a gateway says when no answer came in time from a server that it had passed the request on to."""
_AWAY = (502, 503, 529, *_TOO_LATE)
"""What a gateway says when nobody is behind it, and a server that has too much to do."""
_NEVER_FITS = (
    "request too large", "maximum context", "must be reduced", "context length", "context_length", "context window",
    "contextwindowexceeded",
)  # fmt: skip
_TOO_LONG = (
    *_NEVER_FITS, "context size", "too long", "max_model_len", "too many tokens", "reduce the length",
    "`inputs` tokens + `max_new_tokens` must be", "`inputs` must have less than", "maximum prompt length",
    "exceeds the maximum number of tokens",
)  # fmt: skip
_LATER = ("wait", "try again", "retry", "throttl")
_SOON = ("retry in", "retry after", "try again in", "per minute", "per_minute", "perminute")
"""Beside words about a quota: it is one of the minute, and money is there."""
_FILTERED = (
    "content_filter", "content filter", "content management policy", "content policy", "safety system", "moderation",
    "input was flagged", "prompt was flagged", "flagged as", "flagged for", "usage policy", "usage policies",
)  # fmt: skip
_NO_MONEY = (
    "insufficient_quota", "exceeded your current quota", "billing_hard_limit", "billing_not_active", "credit balance",
    "payment required",
)  # fmt: skip
_BAD_KEY = ("api key not valid", "invalid api key", "invalid_api_key", "api_key_invalid")
_NO_SYSTEM = ("system role not supported", "roles must alternate")
