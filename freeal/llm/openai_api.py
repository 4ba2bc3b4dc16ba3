"""Any server that speaks the OpenAI chat protocol: vLLM, llama.cpp, Ollama, OpenAI itself and many more."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from freeal.config import OpenAIConfig
from freeal.errors import BudgetError, LLMError, LLMUnavailable
from freeal.events import Emit, Note, ignore
from freeal.llm import UNHEARD, Capabilities, Crowded, Journal, Reply, Request, batches
from freeal.llm.completions import no_completion, read_completion
from freeal.llm.faults import Fault, of_connection, of_status
from freeal.llm.pacing import HALF, LONGEST_PAUSE, Clock, Outage, Pace
from freeal.llm.ways import SMALL, Lacking, Ways, find_out

try:
    import openai
except ImportError as error:
    raise LLMError(
        'llm.kind openai needs the package openai; install it with: pip install "openai[aiohttp]"'
    ) from error

BATCH_RETRIES = 8
"""Of each look at a batch, which may be looked at for a day."""

CHUNK = 16_384
"""Requests asked for in one go; each reply is kept on its own, so that this is no unit of loss."""

ALIKE = 20
"""Refusals in the same words, numbers apart, before any row is answered, after which no more are asked for."""

TRIAL = 20
"""Answers, second tries included, of which one at least must name a label before the rest is asked for."""

CONNECTIONS = 8
"""Requests in flight that share a pool of connections: it looks at each of them for every request."""


class OpenAILLM:
    """A chat server, asked many things at once.

    Rate limits, timeouts and outages are waited out. A request that the server refuses for its own sake (too
    long, filtered) becomes a `Reply` with a problem; a wrong key, an unknown model and an empty account end the
    work at once. Every request is noted in the journal before it leaves, every reply before it is read.

    Args:
        config: server, model, limits.
        emit: hears of outages and of what the server can do.
        clock: time; tests have one of their own.
        schema: what it is to write comes with a schema, so that it is found out whether the server keeps to one.

    Example:
        >>> llm = OpenAILLM(OpenAIConfig(model="qwen", base_url="http://localhost:8000/v1"))
        >>> llm.prepare()                                                       # doctest: +SKIP
        >>> llm.complete([Request((Message("user", "Say yes."),))])             # doctest: +SKIP
        [Reply(text='Yes.', logprobs=None, tokens_in=33, tokens_out=3, problem=None)]
    """

    def __init__(
        self, config: OpenAIConfig, emit: Emit = ignore, clock: Clock | None = None, schema: bool = False
    ) -> None:
        self.config = config
        self.schema = schema
        self.emit = emit
        self.clock = clock or Clock()
        self.base_urls = urls_of(config)
        self._ways: Ways | None = None
        self._stopping = False
        self._answered = False
        self._refusals: Counter[str] = Counter()
        self._at = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: dict[tuple[str, int], openai.AsyncOpenAI] = {}
        self._pace = Pace(config.concurrency, config.requests_per_minute, config.tokens_per_minute, self.clock)
        self._outage = Outage(
            min(3, config.attempts), config.server_wait, self._is_there, self._unavailable, self.clock, emit
        )

    @cached_property
    def _key(self) -> str:
        return key_of(self.config.key_env, self.base_urls)

    @property
    def ways(self) -> Ways:
        if self._ways is None:
            self.prepare()
        assert self._ways is not None
        return self._ways

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The model, and how it is asked; not where it is served: a server may move."""
        ways, extra = self.ways, self.config.extra_body
        return {
            "kind": "openai", "model": self.config.model, "constraint": ways.constraint, "logprobs": ways.logprobs,
            "votes": ways.votes, "spared": ",".join(ways.spared),
            **({} if ways.system else {"system": False}),
            **({"extra_body": json.dumps(extra, sort_keys=True)} if extra else {}),
        }  # fmt: skip

    @property
    def capabilities(self) -> Capabilities:
        told = self._ways is None or self._ways.logprobs > 0 or self._ways.votes > 1
        chunk = self.config.batch_size if self.config.batch else CHUNK
        held = self._ways is not None and self._ways.schema
        room = self._ways.room if self._ways else self.config.reply_tokens or 0
        return Capabilities(
            told,
            generation=True,
            chunk=chunk,
            reasks=self.config.parse_retries,
            structured=held,
            room=room,
            trial=0 if self.config.batch else TRIAL,  # a batch may take a day
        )

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """An estimate: four characters a token, and four tokens a message."""
        return [sum(len(m.content) // 4 + 4 for m in request.messages) for request in requests]

    def prepare(self, known: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Ask a few tokens' worth what the server understands; with `known`, what it understood last time, nothing.

        Raises:
            LLMError: the environment variable with the key is not set; the server refuses key or model, speaks
                another protocol, or cannot do what `llm.require` asks.
            LLMUnavailable: nobody answers.
        """
        _ = self._key  # its absence is told before anything is sent
        if known and known.get("asked") == self.asked:
            found = known["ways"]
            self._ways = self._fitting(Ways(**{**found, "spared": tuple(found["spared"])}))
        else:
            self._ways = self._await(self._find_out())
            self.emit(Note(f"{self.config.model}: {self._ways.told()}", "llm"))
            if self.config.votes > 1 and self._ways.votes == 1 and not self._ways.logprobs:
                told = f"{self.config.model} gives one reply however many are asked for: llm.votes does nothing here"
                self.emit(Note(told, "llm"))
        return {"asked": self.asked, "ways": asdict(self._ways)}

    @property
    def asked(self) -> dict[str, Any]:
        """What the ways were found out for; for anything else they have to be found out anew."""
        told = {name: getattr(self.config, name) for name in ("model", "strategy", "votes")}
        added = {name: getattr(self.config, name) for name in ("reply_tokens", "extra_body")}
        return {**told, "schema": self.schema, **{name: value for name, value in added.items() if value}}

    def complete(self, requests: Sequence[Request], journal: Journal = UNHEARD) -> list[Reply]:
        """One reply a request, in order.

        Raises:
            LLMError: the server refuses the key, the model or every request.
            LLMUnavailable: nobody answered for `llm.server_wait` seconds, or the rate limit lasts too long.
        """
        if not requests:
            return []
        ways = self.ways
        ask = self._ask_in_batch if self.config.batch else self._ask_all
        answers = self._await(ask(requests, ways, journal))
        refused = [a for a in answers if isinstance(a, Fault)]
        self._answered = self._answered or len(refused) < len(answers)
        if not self._answered and refused[0].kind == "request":  # is it these, or everything?
            small = self._await(self._ask_small(ways, ways.roomy(SMALL)))
            if isinstance(small, Fault):
                raise LLMError(f"{self._where()}: refused every request; the first: {refused[0].problem}")
            answers = [self._unsure(a) if isinstance(a, Fault) else a for a in answers]
        return [Reply(problem=a.problem) if isinstance(a, Fault) else a for a in answers]

    @staticmethod
    def _unsure(fault: Fault) -> Fault:
        """A refusal by a server that has answered no row yet: it is not known to be of this row, and not kept."""
        return replace(fault, problem=f"server: {fault.problem}") if fault.kind == "request" else fault

    def read(self, raw: str, request: Request) -> Reply:
        """What a chat completion says."""
        return read_completion(raw, request, self.count_tokens([request])[0])

    # --- many at once

    async def _ask_all(self, requests: Sequence[Request], ways: Ways, journal: Journal) -> list[Reply | Fault]:
        """Workers take one request after the other; the first refusal that concerns all stops the taking."""
        answers: list[Reply | Fault | None] = [None] * len(requests)
        todo = iter(range(len(requests)))
        failures: list[Exception] = []

        async def work() -> None:
            while not failures and not self._stopping and (place := next(todo, None)) is not None:
                try:
                    answers[place] = await self._answer(requests[place], ways, place, journal)
                except Exception as failure:
                    failures.append(failure)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.config.concurrency, len(requests))):
                group.create_task(work())
        if failures:
            raise failures[0]
        if self._stopping:
            raise asyncio.CancelledError
        return [answer for answer in answers if answer is not None]

    async def _ask_in_batch(self, requests: Sequence[Request], ways: Ways, journal: Journal) -> list[Reply | Fault]:
        """The same by the file; a batch that an earlier process submitted is waited for, not submitted again."""
        client = self._client().with_options(max_retries=BATCH_RETRIES)
        bodies = [self._body(ways, request) for request in requests]
        ids = [batches.id_of(body) for body in bodies]
        told: dict[str, tuple[int, str]] = {}
        short: BudgetError | None = None
        unsent: set[int] = set()
        try:
            pending = {ids[place] for place in range(len(ids)) if journal.pending(place)}
            under_way = await self._under_way(client, bodies, pending)
            held = set().union(*(each for _, each in under_way))
            rest = [place for place in range(len(ids)) if ids[place] not in held]
            if rest:
                try:
                    await self._note_all(rest, journal)
                    under_way += await self._submit(client, [bodies[place] for place in rest])
                except BudgetError as error:  # what is paid for is collected before that is told
                    short, unsent = error, set(rest)
            for batch, _ in under_way:
                told |= await batches.collect(client, batch, self.config.batch_poll, self.clock, self.emit)
        except openai.APIStatusError as error:
            fault = self._fault(error)
            raise self._unavailable(fault.problem) if fault.passes else await self._refused(fault) from error
        except openai.APIConnectionError as error:
            raise self._unavailable(self._without_key(f"server: {error}")) from error
        answers = {place: told[uid] for place, uid in enumerate(ids) if uid in told}
        good = {i: raw for i, (status, raw) in answers.items() if status == 200 and not no_completion(raw)}
        await asyncio.wrap_future(journal.received(good, 0.0))  # all or none: the rest would be another batch
        found: list[Reply | Fault] = []
        for place, request in enumerate(requests):
            if place in unsent:
                continue
            if place in good:
                reply = self.read(good[place], request)
                journal.understood(place, reply)
                found.append(reply)
                continue
            status, raw = answers.get(place, (500, "the batch has no answer for this row"))
            fault = of_status(500 if status == 200 else status, None, self._without_key(raw), {})
            fault = await self._forbidden(fault)
            if fault.kind == "fatal":
                raise await self._refused(fault)
            journal.failed(place)
            found.append(fault)
        if short:
            raise short
        return found

    async def _under_way(
        self, client: openai.AsyncOpenAI, bodies: Sequence[Mapping[str, Any]], pending: Set[str]
    ) -> list[tuple[Any, set[str]]]:
        """Batches that an earlier process submitted, and which of the requests each holds."""
        found: list[tuple[Any, set[str]]] = []
        for part in batches.cut(bodies):
            asked = [bodies[place] for place in part]
            if same := await batches.find(client, asked):
                found.append((same, set(map(batches.id_of, asked))))
        left = set(pending).difference(*(each for _, each in found))
        return found + await batches.holding(client, left, _reading(client))

    async def _submit(
        self, client: openai.AsyncOpenAI, bodies: Sequence[Mapping[str, Any]]
    ) -> list[tuple[Any, set[str]]]:
        """The batches of these requests: one, or as many as they need files."""
        found: list[tuple[Any, set[str]]] = []
        for part in batches.cut(bodies):
            asked = [bodies[place] for place in part]
            found.append((await batches.submit(client, asked), set(map(batches.id_of, asked))))
        return found

    async def _note_all(self, places: Sequence[int], journal: Journal) -> None:
        """Note requests that leave together: all of them, or, where one may not be paid for, none."""
        noted: list[Future[None]] = []
        try:
            for place in places:
                noted.append(journal.sent(place))
        except (BudgetError, Crowded) as error:
            for place in places[: len(noted)]:
                journal.failed(place)
            if isinstance(error, BudgetError):
                raise
            raise BudgetError("the batch may cost more than is left (stop.budget)") from error
        await asyncio.wrap_future(noted[-1])  # the last of them is on the disk after all others

    async def _answer(self, request: Request, ways: Ways, place: int, journal: Journal) -> Reply | Fault:
        """One reply, after as many attempts as it takes."""
        patience = _Patience(self)
        body = self._body(ways, request)
        tokens = self.count_tokens([request])[0] + request.max_tokens
        retrying = patience.retrying()
        try:
            raw: str = await retrying(self._attempt, body, tokens, place, journal, patience)
        except _FaultError as error:
            fault = await self._forbidden(error.fault)
            if fault.kind == "fatal":
                raise await self._refused(fault) from error
            if fault.kind == "rate":
                raise LLMUnavailable(
                    f"{self._where()}: {fault.problem}; it has lasted {self.config.max_wait:g} s (llm.max_wait)"
                ) from error
            self._look_for_likes(fault)
            return fault
        self._answered = True
        reply = self.read(raw, request)
        journal.understood(place, reply)
        return reply

    async def _forbidden(self, fault: Fault) -> Fault:
        """`fault`; a 403 that is of its text, not of the key, as one of its row: a small question is not forbidden."""
        if fault.kind != "fatal" or not fault.problem.startswith("403"):
            return fault
        small = await self._refusal()
        if small is None:
            return Fault("request", f"request refused: {fault.problem}")
        return Fault("transient", f"server: {fault.problem}") if small.passes else fault

    def _look_for_likes(self, fault: Fault) -> None:
        """Stop where, before any row is answered, so many are refused alike that it is not the rows.

        Raises:
            LLMError: they are.
        """
        if self._answered or fault.kind != "request":
            return
        words = re.sub(r"\d+", "#", fault.problem)
        self._refusals[words] += 1
        if self._refusals[words] >= ALIKE:
            raise LLMError(f"{self._where()}: answered nothing, and refused {ALIKE} rows alike: {fault.problem}")

    async def _attempt(
        self, body: dict[str, Any], tokens: int, place: int, journal: Journal, patience: _Patience
    ) -> str:
        """The raw reply, kept; a `_FaultError` if there is none."""
        came = self.clock.now()
        await self._outage.open()
        noted, entered = await self._enter(tokens, place, journal)
        patience.excuse(self.clock.now() - came)
        try:
            await asyncio.wrap_future(noted)
            raw = await self._post(body, place)
            await asyncio.wrap_future(journal.received({place: raw}, self.clock.now() - entered))
        except _FaultError as error:
            if error.fault.kind == "rate":
                self._pace.slow_down(entered)
            elif error.fault.strained:
                self._pace.slow_down(entered, HALF)
            if error.fault.kind != "outage":
                self._outage.answered()
            journal.failed(place, error.fault.billed)
            failed = error
        else:
            self._outage.answered()
            self._pace.went_well()
            return raw
        finally:
            self._pace.leave()
        await patience.note(failed.fault)
        raise failed

    async def _enter(self, tokens: int, place: int, journal: Journal) -> tuple[Future[None], float]:
        """Wait for a place, and for the money; whoever lacks the one does not keep others from the other.

        Who waits for money keeps what he was given of the rates: it would else be used up by looking.
        """
        entered = await self._pace.enter(tokens)
        while True:
            try:
                if self._stopping:
                    raise asyncio.CancelledError
                return journal.sent(place), entered
            except Crowded:
                self._pace.leave()
                await self.clock.sleep(0.02)
                entered = await self._pace.place()
            except BaseException:
                self._pace.leave()
                raise

    async def _post(self, body: dict[str, Any], place: int = 0) -> str:
        """One request, one body; whatever is wrong with it is told as a `_FaultError`."""
        client, at = self._client(place), self._at
        try:
            async with asyncio.timeout(self.config.timeout):
                # not chat.completions.create: it walks through every message to learn its type
                raw = await client.post(batches.PATH.removeprefix("/v1"), cast_to=str, body=body)
        except openai.APIStatusError as error:
            fault = self._fault(error)
            self._move_on(at, fault)
            raise _FaultError(fault) from error
        except (TimeoutError, openai.APIConnectionError) as error:
            fault = of_connection(error, self.config.timeout)
            self._move_on(at, fault)
            raise _FaultError(replace(fault, problem=self._without_key(fault.problem))) from error
        if problem := no_completion(raw):
            raise _FaultError(Fault("transient", f"server: {problem}", billed=True))
        return raw

    def _move_on(self, at: int, fault: Fault) -> None:
        """To the next server, if none is there, and no other request that failed at this one has moved on."""
        if fault.kind == "outage" and self._at == at:
            self._at += 1

    # --- what the server understands

    async def _find_out(self) -> Ways:
        try:
            return self._fitting(await find_out(self.config, self._ask_small, self.schema))
        except Lacking as error:
            raise LLMError(f"{self._where()}: {error}") from error

    def _fitting(self, ways: Ways) -> Ways:
        """`ways`, if they are what `llm.require` and `llm.strategy` ask for."""
        try:
            return ways.fitting(self.config)
        except Lacking as error:
            raise LLMError(f"{self._where()}: {error}") from error

    def _body(self, ways: Ways, request: Request) -> dict[str, Any]:
        return ways.body(self.config.model, request) | dict(self.config.extra_body)

    async def _ask_small(self, ways: Ways, request: Request) -> dict[str, Any] | Fault:
        answer = await self._answer_raw(self._body(ways, request))
        found: dict[str, Any] | Fault = answer if isinstance(answer, Fault) else json.loads(answer)
        return found

    async def _answer_raw(self, body: dict[str, Any]) -> str | Fault:
        patience = _Patience(self)
        retrying = patience.retrying()

        async def attempt() -> str:
            try:
                return await self._post(body)
            except _FaultError as error:
                await patience.note(error.fault)
                raise

        try:
            raw: str = await retrying(attempt)
        except _FaultError as error:
            if error.fault.kind == "fatal":
                raise await self._refused(error.fault) from error
            if error.fault.kind in ("transient", "rate", "outage"):
                raise self._unavailable(error.fault.problem) from error
            return error.fault
        return raw

    async def _is_there(self) -> bool:
        """Whether a small question is answered, or refused: a server may be up, and its engine hang."""
        fault = await self._refusal()
        return fault is None or fault.kind not in ("outage", "transient")

    async def _refusal(self) -> Fault | None:
        """What is said to a small question in place of an answer."""
        ways = self._ways or Ways()
        try:
            await self._post(self._body(ways, ways.roomy(SMALL)))
        except _FaultError as error:
            return error.fault
        return None

    # --- what to tell

    def _fault(self, error: openai.APIStatusError) -> Fault:
        said = self._without_key(_said(error))
        return of_status(error.status_code, error.code or error.type, said, error.response.headers)

    def _unavailable(self, problem: str) -> LLMError:
        if "no chat completion" in problem:
            return LLMError(f"{self._where()}: {problem}; is base_url right, with /v1?")
        return LLMUnavailable(
            f"{self._where()}: {problem}; is the server up? What was answered is kept: the same run goes on from there"
        )

    async def _refused(self, fault: Fault) -> LLMError:
        """What to tell of a refusal that concerns every request."""
        if fault.of_the_key:
            return LLMError(
                f"{self._where()}: refused with {fault.problem}; the key is taken from the environment variable"
                f" {self.config.key_env or 'OPENAI_API_KEY'} (llm.key_env)"
            )
        served = await _served(self._client()) if fault.problem.startswith("404") else ""
        return LLMError(f"{self._where()}: refused with {fault.problem}{served}")

    def _where(self) -> str:
        return f"{self.config.model} at {_public(self.base_urls[self._at % len(self.base_urls)])}"

    def _without_key(self, text: str) -> str:
        return text if self._key == _NO_KEY else text.replace(self._key, "***")

    # --- the thread in which it all happens

    def _client(self, place: int = 0) -> openai.AsyncOpenAI:
        """The client for the request at `place`, of the server whose turn it is."""
        url = self.base_urls[self._at % len(self.base_urls)]
        lane = place % -(-self.config.concurrency // CONNECTIONS)
        if (url, lane) not in self._clients:
            self._clients[url, lane] = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=url,
                timeout=self.config.timeout,
                max_retries=0,
                http_client=_http_client(),
            )
        return self._clients[url, lane]

    def close(self) -> None:
        """Give the connections back; another request would make new ones."""
        clients, self._clients = list(self._clients.values()), {}
        if self._loop and clients:
            closing = asyncio.run_coroutine_threadsafe(_close(clients), self._loop)
            with suppress(NotYet):  # the process ends, with them or without
                closing.result(timeout=2.0)

    def _await(self, work: Any) -> Any:
        """Run `work` in the client's own thread, also from within a notebook's loop.

        On Ctrl-C nothing more is sent, what is under way is waited for and kept, and the interrupt goes on.
        """
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            Thread(target=self._loop.run_forever, name="openai", daemon=True).start()
            atexit.register(self.close)
        self._stopping = False
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            self._stopping = True
            try:
                future.exception(timeout=self.config.grace)
            except (NotYet, CancelledError):
                future.cancel()
            raise


class _FaultError(Exception):
    """An attempt that gave no reply."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.problem)
        self.fault = fault


class _Patience:
    """How long one row is tried: so many attempts and seconds, rate limits and outages apart."""

    def __init__(self, llm: OpenAILLM) -> None:
        self.llm = llm
        self.attempts, self.waited, self.outages = 0, 0.0, 0
        self.started: float | None = None  # by the first fault
        self.spells = llm._outage.spells

    def retrying(self) -> AsyncRetrying:
        sleep = self.llm.clock.sleep
        return AsyncRetrying(
            retry=retry_if_exception(_may_pass), stop=self.at_an_end, wait=_wait, sleep=sleep, reraise=True
        )

    async def note(self, fault: Fault) -> None:
        """Count a failed attempt; in an outage, wait until it is over."""
        if self.started is None:
            self.started = self.llm.clock.now()
        if fault.kind == "rate":
            self.waited += fault.wait or 0.0
            return
        self.attempts += 1
        if fault.kind == "outage":
            await self.llm._outage.failed(fault.problem, min(fault.wait or 0.0, self.llm.config.max_wait))
            if self.llm._outage.spells > self.spells:  # it was nobody's fault but the server's
                self.spells, self.outages = self.llm._outage.spells, self.outages + 1
                if self.outages < self.llm.config.attempts:  # unless it is this row that brings the server down
                    self.attempts, self.started = 0, self.llm.clock.now()

    def excuse(self, seconds: float) -> None:
        """Do not count what a row waited for its turn, which is nobody's fault."""
        if self.started is not None:
            self.started += seconds

    def at_an_end(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        spent = 0.0 if self.started is None else self.llm.clock.now() - self.started
        if isinstance(error, _FaultError):
            if error.fault.kind == "rate":
                return max(self.waited, spent) > self.llm.config.max_wait
            spent += _pause(error.fault) or 0.0
        return self.attempts >= self.llm.config.attempts or spent > self.llm.config.row_timeout


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, _FaultError) and error.fault.passes


def _wait(state: RetryCallState) -> float:
    """What the server asks for, a little spread out, or else about twice as long as the last time."""
    error = state.outcome.exception() if state.outcome else None
    asked = _pause(error.fault) if isinstance(error, _FaultError) else None
    # no seed: it spreads requests, it decides nothing
    if asked is not None:
        return asked * random.uniform(1.0, 1.1)
    return float(min(30.0, 0.5 * 2 ** (state.attempt_number - 1)) * random.uniform(0.5, 1.0))


def _said(error: openai.APIStatusError) -> str:
    """What a refusal says: the client tells nothing of a body in another form than OpenAI's (Gemini, TGI, FastAPI)."""
    told, body = str(error.message), error.response.text.strip()
    silent = told == f"Error code: {error.status_code}" and body and not body.startswith("<")
    return f"{told} - {body}" if silent else told


def _pause(fault: Fault) -> float | None:
    """Seconds one row is held back for, as the server asks; in an outage all wait for it together, whatever it asks."""
    return min(fault.wait, LONGEST_PAUSE) if fault.kind == "outage" and fault.wait is not None else fault.wait


async def _close(clients: Sequence[openai.AsyncOpenAI]) -> None:
    await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


def _http_client() -> Any:
    """The client's faster transport, where aiohttp is there for it; else None, for its usual one."""
    try:
        return openai.DefaultAioHttpClient()
    except RuntimeError:
        return None


def _reading(client: openai.AsyncOpenAI) -> batches.Read:
    """Files of a server as text; one that was deleted there holds nothing."""

    async def read(name: str) -> str:
        try:
            return (await client.files.content(name)).text
        except openai.NotFoundError:
            return ""

    return read


OPENAI = "https://api.openai.com/v1"
_NO_KEY = "none"
_LOOPBACK = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}


def urls_of(config: OpenAIConfig) -> list[str]:
    given = [config.base_url] if isinstance(config.base_url, str) else list(config.base_url or ())
    return given or [os.environ.get("OPENAI_BASE_URL") or OPENAI]


def key_variable(name: str | None, base_urls: Sequence[str]) -> str | None:
    """The environment variable whose key these servers are sent: `name`; None if it is none.

    That of OpenAI goes to OpenAI and to the server that OPENAI_BASE_URL names; to nobody else unless it is named.
    """
    own = {url.rstrip("/") for url in (OPENAI, os.environ.get("OPENAI_BASE_URL")) if url}
    return name or ("OPENAI_API_KEY" if all(url.rstrip("/") in own for url in base_urls) else None)


def key_of(name: str | None, base_urls: Sequence[str]) -> str:
    """The key of the variable that `key_variable` finds.

    Raises:
        LLMError: it is not set, or none is named, and a server is on another machine.
    """
    name = key_variable(name, base_urls)
    key = os.environ.get(name, "").strip() if name else ""
    if key:
        return _sendable(key, str(name))
    remote = [url for url in base_urls if urlsplit(url).hostname not in _LOOPBACK]
    if not remote:
        return _NO_KEY  # servers on one's own machine seldom want a key, but the client insists on one
    where = _public(remote[0])
    if name is None:
        raise LLMError(f"llm.key_env must name the environment variable that holds the key for {where}")
    raise LLMError(f"the environment variable {name} (llm.key_env) is not set; it must hold the key for {where}")


def _sendable(key: str, name: str) -> str:
    """`key`, if an HTTP header can hold it: what was pasted along with it cannot be sent."""
    odd = next((character for character in key if not "!" <= character <= "~"), None)
    if odd is None:
        return key
    what = "white space" if odd.isspace() else "a character that is not ASCII" if odd > "~" else "a control character"
    raise LLMError(f"the environment variable {name} (llm.key_env) holds no key: there is {what} in it; set it again")


def _public(url: str) -> str:
    """`url` without user, password and query: it is shown, and written to disk."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


async def _served(client: openai.AsyncOpenAI) -> str:
    try:
        page = await client.with_options(timeout=5.0).models.list()
        names = [model.id for model in page.data]
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):  # it is only a hint, and nothing is validated
        return ""
    return f"; models served: {', '.join(sorted(names)[:20])}" if names else ""
