"""Any server that speaks the OpenAI chat protocol: vLLM, llama.cpp, Ollama, OpenAI itself and many more."""

from __future__ import annotations

import asyncio
import email.utils
import math
import os
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from freeal.config import OpenAIConfig
from freeal.errors import LLMError, LLMUnavailable
from freeal.llm import Capabilities, Reply, Request

try:
    import openai
    from openai.types.chat import ChatCompletion
except ImportError as error:
    raise LLMError('llm.kind openai needs the package openai; install it with: pip install "freeal[openai]"') from error

LONGEST_WAIT = 120.0
"""Seconds: a server that asks for more patience (Retry-After) is asked again after this long."""

AMBIGUOUS = 0.01
"""Share of the probability that may lie on tokens which begin several choices, before nothing is said of any."""

_TOP_LOGPROBS = 20  # the most that OpenAI, and vLLM by default, hand out


class OpenAILLM:
    """A chat server, asked many things at once.

    Rate limits, timeouts and faults of the server are waited out. A request that the server refuses for its own
    sake (too long, filtered) becomes a `Reply` with a problem; a wrong key, an unknown model and an empty
    account end the work at once.

    Raises:
        LLMError: the environment variable with the key is not set.

    Example:
        >>> llm = OpenAILLM(OpenAIConfig(model="qwen", base_url="http://localhost:8000/v1"))
        >>> llm.complete([Request((Message("user", "Say yes."),))])             # doctest: +SKIP
        [Reply(text='Yes.', logprobs=None, tokens_in=33, tokens_out=3, problem=None)]
    """

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.base_url = config.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self._key = _key(config.key_env, self.base_url)
        self._proven = False

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        where = urlsplit(self.base_url)
        host = where.netloc.rpartition("@")[2]  # no user, no password, no query: this is written to disk
        return {
            "kind": "openai",
            "model": self.config.model,
            "base_url": f"{where.scheme}://{host}{where.path.rstrip('/')}",
            "logprobs": self.config.logprobs,
        }

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.config.logprobs, generation=True, chunk=4 * self.config.concurrency)

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """An estimate: four characters a token."""
        return [_estimate("".join(message.content for message in request.messages)) for request in requests]

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request, in order.

        Raises:
            LLMError: the server refuses the key, the model or every request.
            LLMUnavailable: it answered none of the requests, for all the attempts.
        """
        if not requests:
            return []
        answers = _run(self._ask_all(requests))
        failures = [answer for answer in answers if isinstance(answer, _Failure)]
        if len(failures) == len(answers) and not (len(answers) == 1 and failures[0].kind == "row"):
            raise self._world_failure(failures[0])
        return [Reply(problem=a.problem) if isinstance(a, _Failure) else a for a in answers]

    async def _ask_all(self, requests: Sequence[Request]) -> list[Reply | _Failure]:
        # a new client a call: its connections belong to the event loop, which ends with the call
        client = openai.AsyncOpenAI(
            api_key=self._key, base_url=self.base_url, timeout=self.config.timeout, max_retries=0
        )
        places = asyncio.Semaphore(self.config.concurrency)
        async with client:
            try:
                # the first request of all goes alone: a wrong key or model costs one refusal, not dozens
                alone = 0 if self._proven else 1
                first = [await self._ask(client, places, request) for request in requests[:alone]]
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._ask(client, places, request)) for request in requests[alone:]]
            except openai.APIStatusError as refusal:
                raise await self._refused(client, refusal) from refusal
            except ExceptionGroup as refusals:
                raise await self._refused(client, refusals.exceptions[0]) from refusals
        self._proven = True
        return [*first, *(task.result() for task in tasks)]

    async def _ask(self, client: openai.AsyncOpenAI, places: asyncio.Semaphore, request: Request) -> Reply | _Failure:
        """One reply; a refusal that concerns every request is raised."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(_passes),
            stop=stop_after_attempt(self.config.attempts),
            wait=_wait,
            reraise=True,
        )
        try:
            async with places:  # kept while waiting, too: a server under pressure is asked less
                completion: ChatCompletion = await retrying(self._create, client, request)
        except openai.APITimeoutError as error:
            return _Failure("row", f"server: {error}")
        except openai.APIConnectionError as error:
            return _Failure("server", f"server: {error} {error.__cause__ or ''}".strip())
        except _NoCompletionError as error:
            return _Failure("protocol", f"server: {error}")
        except openai.APIStatusError as error:
            if _concerns_all(error):
                raise
            return self._row_failure(error)
        return _reply(completion, request, self.count_tokens([request])[0])

    async def _create(self, client: openai.AsyncOpenAI, request: Request) -> ChatCompletion:
        # servers have defaults of their own (vLLM: those of the model), so everything is said
        asked: dict[str, Any] = {
            "model": self.config.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": 1.0,
            "seed": request.seed,
        }
        if request.choices:
            longest = max(len(choice.encode()) for choice in request.choices)  # a token has at least one byte
            asked["max_tokens"] = max(request.max_tokens, longest + 4)
            if self.config.logprobs:
                asked |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        try:
            completion = await client.chat.completions.create(**asked)
        except ValueError as error:  # a body that is cut off: the client lets the fault of its JSON parser through
            raise _NoCompletionError(f"the reply is no JSON: {error}") from error
        if not isinstance(completion, ChatCompletion) or not getattr(completion, "choices", None):
            raise _NoCompletionError(f"expected a chat completion, found {str(completion)[:80]!r}")
        return completion

    def _row_failure(self, error: openai.APIStatusError) -> Reply | _Failure:
        said = self._without_key(error.message)[:200]
        if problem := _about_the_text(error):
            return Reply(problem=f"{problem}: {said}")
        if error.status_code in (400, 422):
            return _Failure("request", f"refused: {said}")
        return _Failure("row", f"server: {error.status_code} {said}")

    def _world_failure(self, failure: _Failure) -> LLMError:
        where = f"{self.config.model} at {self.identity['base_url']}"
        if failure.kind == "request":
            return LLMError(f"{where}: refused every request; the first: {failure.problem}")
        if failure.kind == "protocol":
            return LLMError(
                f"{where}: does not speak the chat protocol ({failure.problem}); is base_url right, with /v1?"
            )
        return LLMUnavailable(
            f"{where}: no answer in {self.config.attempts} attempt(s) ({failure.problem}); "
            "is the server up? What was answered before is kept: the same command goes on from there"
        )

    async def _refused(self, client: openai.AsyncOpenAI, error: Exception) -> LLMError:
        """What to tell of a refusal that concerns every request; anything else is raised as it is."""
        if not isinstance(error, openai.APIStatusError):
            raise error
        where = f"{self.config.model} at {self.identity['base_url']}"
        said = self._without_key(error.message)[:300]
        if error.status_code in (401, 403):
            hint = f"; the key is taken from the environment variable {self.config.key_env}"
        else:
            hint = await _served(client)
        return LLMError(f"{where}: refused with {error.status_code}: {said}{hint}")

    def _without_key(self, text: str) -> str:
        return text if self._key == _NO_KEY else text.replace(self._key, "***")


@dataclass(frozen=True, slots=True)
class _Failure:
    """A request without a reply, and what is to be thought of it if no other got one either."""

    kind: Literal["server", "row", "request", "protocol"]
    problem: str


class _NoCompletionError(Exception):
    """The server said 200, but what it sent is no chat completion."""


_NO_KEY = "none"


def _key(name: str, base_url: str) -> str:
    key = os.environ.get(name, "").strip()
    if key:
        return key
    if urlsplit(base_url).hostname in {"localhost", "127.0.0.1", "::1", "0.0.0.0"}:
        return _NO_KEY  # servers on one's own machine seldom want a key, but the client insists on one
    raise LLMError(f"the environment variable {name} (llm.key_env) is not set; it must hold the key for {base_url}")


def _passes(error: BaseException) -> bool:
    """Whether it may go better the next time."""
    if isinstance(error, openai.APIStatusError):
        return not _concerns_all(error) and (error.status_code in (408, 409, 425, 429) or error.status_code >= 500)
    return isinstance(error, (openai.APIConnectionError, _NoCompletionError))


def _concerns_all(error: openai.APIStatusError) -> bool:
    """Whether every other request would be refused as well."""
    return error.status_code in (401, 403, 404) or "insufficient_quota" in (error.code, error.type)


_backoff = wait_exponential_jitter(initial=0.5, max=30.0, jitter=0.5)


def _wait(state: RetryCallState) -> float:
    """What the server asks for, a little spread out, or else twice as long as the last time."""
    error = state.outcome.exception() if state.outcome else None
    asked = _retry_after(error.response.headers) if isinstance(error, openai.APIStatusError) else None
    if asked is None:
        return _backoff(state)
    return min(asked, LONGEST_WAIT) * random.uniform(1.0, 1.1)  # no seed: it spreads requests, it decides nothing


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from the three forms in use: milliseconds, seconds, a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


_TOO_LONG = ("context length", "context window", "maximum context", "too long", "too many tokens", "max_model_len")
_FILTERED = ("content_filter", "content filter", "content management policy", "content policy", "safety system")


def _about_the_text(error: openai.APIStatusError) -> str | None:
    """What is wrong with this one text. Servers have no common code for it, only phrases: OpenAI, Azure, vLLM, TGI."""
    said = f"{error.code} {error.message}".casefold()
    if error.status_code == 413 or (error.status_code == 400 and any(phrase in said for phrase in _TOO_LONG)):
        return "too long"
    return "refused" if error.status_code == 400 and any(phrase in said for phrase in _FILTERED) else None


async def _served(client: openai.AsyncOpenAI) -> str:
    try:
        page = await client.with_options(timeout=5.0).models.list()
        names = [model.id for model in page.data]
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):  # it is only a hint, and nothing is validated
        return ""
    return f"; models served: {', '.join(sorted(names)[:20])}" if names else ""


def _reply(completion: ChatCompletion, request: Request, tokens_in: int) -> Reply:
    """Fields may be missing although their types do not say so: the client does not validate what comes."""
    choice = completion.choices[0]
    message: Any = choice.message
    text: str | None = getattr(message, "content", None)
    usage = completion.usage
    tokens_in = (usage and usage.prompt_tokens) or tokens_in
    tokens_out = (usage and usage.completion_tokens) or _estimate(text or "")
    if choice.finish_reason == "content_filter" or getattr(message, "refusal", None):
        said = getattr(message, "refusal", None) or "content filter"
        return Reply(text, None, tokens_in, tokens_out, f"refused: {said[:200]}")
    if not (text or "").strip():
        return Reply(text, None, tokens_in, tokens_out, "empty reply")
    logprobs = choice_logprobs(_first_token(choice), request.choices) if request.choices else None
    return Reply(text, logprobs, tokens_in, tokens_out)


def _first_token(choice: Any) -> list[tuple[str, float]]:
    """The candidates for the first token with their logarithms; empty if the server gave none."""
    content = getattr(choice.logprobs, "content", None) or []
    candidates = (getattr(content[0], "top_logprobs", None) or []) if content else []
    return [(c.token, c.logprob) for c in candidates if c.logprob is not None and not math.isnan(c.logprob)]


def choice_logprobs(candidates: Sequence[tuple[str, float]], choices: Sequence[str]) -> tuple[float, ...] | None:
    """One logarithm a choice, from the candidates for the first token.

    A token counts for the one choice it is the beginning of, whatever its case. A choice that no candidate
    begins gets a bound: one less than the least probable candidate.

    Returns:
        None if no candidate begins a choice, or if choices begin alike, so that the first token cannot tell.

    Example:
        >>> choice_logprobs([("pos", -0.1), (" Neg", -2.5), ("The", -6.0)], ["negative", "positive", "mixed"])
        (-2.5, -0.1, -7.0)
    """
    found = [-math.inf] * len(choices)
    ambiguous = -math.inf
    for token, logprob in candidates:
        beginning = token.lstrip().casefold()
        owners = [i for i, choice in enumerate(choices) if choice.casefold().startswith(beginning)] if beginning else []
        if len(owners) == 1:
            found[owners[0]] = _add(found[owners[0]], logprob)
        elif owners:
            ambiguous = _add(ambiguous, logprob)
    told = max(found, default=-math.inf)
    if told == -math.inf or ambiguous - told > math.log(AMBIGUOUS):
        return None
    bound = min(logprob for _, logprob in candidates if logprob > -math.inf) - 1.0
    return tuple(bound if logprob == -math.inf else logprob for logprob in found)


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))"""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _estimate(text: str) -> int:
    return len(text) // 4


T = TypeVar("T")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, also where a loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
