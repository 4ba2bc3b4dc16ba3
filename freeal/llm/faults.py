"""What went wrong with a request, and what is to be done: the one table that all servers share.

Servers agree on status codes, and on little else: the rest is phrases, collected from OpenAI, Azure, vLLM,
llama.cpp, TGI and Groq.
"""

from __future__ import annotations

import email.utils
import math
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

    `billed`: the request went out and no refusal came back, so that the server may charge for it.
    """

    kind: Kind
    problem: str
    wait: float | None = None
    billed: bool = False

    @property
    def passes(self) -> bool:
        """Whether the same request may go well later."""
        return self.kind in ("rate", "transient", "outage")


def of_status(status: int, code: str | None, message: str, headers: Mapping[str, str]) -> Fault:
    """The fault that an HTTP status, an error code and the words beside it stand for.

    Example:
        >>> of_status(429, None, "slow down", {"retry-after": "2"})
        Fault(kind='rate', problem='rate limit: slow down', wait=2.0, billed=False)
        >>> of_status(400, None, "This model's maximum context length is 512 tokens", {}).kind
        'row'
    """
    said, lowered = message.strip()[:300], f"{code or ''} {message}".casefold()
    if status == 403 and "logprobs" in lowered:  # OpenAI of its reasoning models: it is the setting that is refused
        return Fault("request", f"request refused: {said}")
    if status in (400, 413, 422, 429) and (status == 413 or _any_of(_TOO_LONG, lowered)):
        return Fault("row", f"too long: {said}")
    if status in (400, 403) and _any_of(_FILTERED, lowered):
        return Fault("row", f"refused: {said}")
    if status in (401, 402, 403, 404) or (status in (400, 429) and _any_of(_NO_MONEY, lowered)):
        return Fault("fatal", f"{status}: {said}")
    if status == 429:
        return Fault("rate", f"rate limit: {said}", retry_after(headers))
    if status in (408, 409, 425) or status >= 500:
        return Fault("transient", f"server: {status} {said}", retry_after(headers))
    return Fault("request", f"request refused: {status} {said}")


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
    return Fault("outage", f"server: {said}".strip(), billed=not kinds & unsent)


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


def _any_of(phrases: tuple[str, ...], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


_TOO_LONG = (
    "context length", "context_length", "context window", "maximum context", "context size", "too long",
    "max_model_len", "too many tokens", "reduce the length", "request too large",
)  # fmt: skip
_FILTERED = ("content_filter", "content filter", "content management policy", "content policy", "safety system")
_NO_MONEY = (
    "insufficient_quota", "exceeded your current quota", "billing_hard_limit", "billing_not_active", "credit balance",
    "payment required",
)  # fmt: skip
