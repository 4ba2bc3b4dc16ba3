"""A chat server on this machine that answers without a model and fails as a plan says, below HTTP if need be.

    python -m freeal.testing.faultllm --plan plan.json --dialect vllm

prints its URL (put it into `llm.base_url`) and serves until it is stopped. Besides the chat protocol there are

    POST /__plan      a new plan as JSON; the counts go on
    GET  /__stats     what was asked and billed
    POST /__restart   {"seconds": 2}: every connection is reset, and for so long nobody listens

In the same process, `with serving(plan) as server:` does the same in a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar, get_args

from freeal.errors import ConfigError
from freeal.testing.answers import Sent, complete, failure, last_user_message, refused
from freeal.testing.batches import Batches
from freeal.testing.plans import Action, Delay, Dialect, KillClient, Plan, Row, Status, Truncate, parse_plan, read_plan

HOST = "127.0.0.1"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stats:
    """What a server was asked since it started.

    `requests`, `attempts` (a uid) and `billed` (a uid) count single requests, those in batches too; an answer is
    billed when it is generated, delivered or not. `repeated` are bills for a request that was billed before, word
    for word. A request is in flight from its arrival until its answer is sent or its client gone; without
    latency no two are in flight at once.
    """

    requests: int = 0
    attempts: Mapping[str, int] = field(default_factory=dict)
    billed: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    in_flight: int = 0
    max_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    """One HTTP request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True, slots=True)
class _Turn:
    """One chat request and what the plan has for it. `life` is that of the server when it came."""

    asked: Mapping[str, Any]
    exact: int
    row: Row
    actions: tuple[Action, ...]
    refusal: Sent | None
    life: int


class _Connection(asyncio.Protocol):
    """A socket: requests are cut out of its bytes, answers and faults put in."""

    transport: asyncio.Transport

    def __init__(self, server: FaultLLM) -> None:
        self.server = server
        self.buffer = bytearray()
        self.busy = False
        self.last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self.free()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.next()

    def next(self) -> None:
        """Take up the next request, if one is there whole and none is being answered."""
        if not self.busy and (call := self._call()):
            self.server.handle(self, call)

    def take(self) -> None:
        """From now on a chat request is in flight here."""
        self.busy = True
        self.server.in_flight += 1
        self.server.max_in_flight = max(self.server.max_in_flight, self.server.in_flight)

    def free(self) -> None:
        if self.busy:
            self.busy = False
            self.server.in_flight -= 1

    def _call(self) -> _Call | None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        stop = end + 4 + int(headers.get("content-length", 0))
        if len(self.buffer) < stop:
            return None
        self.last = headers.get("connection", "").lower() == "close"
        body = bytes(self.buffer[end + 4 : stop])
        del self.buffer[:stop]
        method, target, _ = first.split(" ", 2)
        return _Call(method, target.partition("?")[0], headers, body)

    def send(self, sent: Sent, only: int | None = None) -> None:
        """Answer; with `only`, so many bytes of the body, and then the end of the connection."""
        if self.transport.is_closing():
            return
        kind, body = _encoded(sent.body)
        headers = {"content-type": kind, "content-length": str(len(body)), **sent.headers}
        phrase = http.client.responses.get(sent.status, "Fault")
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {sent.status} {phrase}\r\n{head}\r\n".encode("latin-1") + body[:only])
        if self.last or only is not None:
            self.transport.close()
        self.free()
        if self.buffer:  # more was asked before this was answered
            asyncio.get_running_loop().call_soon(self.next)

    def reset(self) -> None:
        """End the connection as a crash does: the other side reads ECONNRESET, not an end of file."""
        if not self.transport.is_closing():
            link = self.transport.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


def _encoded(body: Any) -> tuple[str, bytes]:
    if isinstance(body, bytes):
        return "application/octet-stream", body
    if isinstance(body, str):
        return "text/html", body.encode()
    return "application/json", json.dumps(body).encode()


LOST = ("hang", "rst", "close_before_headers", "html200", "bad_json", "die")
"""Actions for which a line of a batch gets no response."""

HTML = "<html><body><h1>Welcome</h1></body></html>"
TORN = b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "mess'


class FaultLLM:
    """The server itself; all of it lives in one event loop. `exits`: whether `die` ends the process."""

    def __init__(self, plan: Plan, dialect: Dialect = "openai", exits: bool = False) -> None:
        self.plan, self.dialect, self.exits = plan, dialect, exits
        self.port = 0
        self.connections: set[_Connection] = set()
        self.in_flight = self.max_in_flight = 0
        self._requests = self._repeated = self._life = 0
        self._attempts: Counter[str] = Counter()
        self._billed: Counter[str] = Counter()
        self._answered: set[int] = set()
        self._order: dict[str, int] = {}
        self._batches = Batches(self._batch_line)
        self._listener: asyncio.Server | None = None
        self._restarting: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def stats(self) -> Stats:
        attempts, billed = dict(self._attempts), dict(self._billed)
        return Stats(self._requests, attempts, billed, self._repeated, self.in_flight, self.max_in_flight)

    async def up(self, port: int = 0) -> None:
        """Listen: at `port`, or where it did before, or anywhere."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), HOST, port or self.port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Stop listening, reset every connection, forget what is being answered. The counts stay."""
        self._life += 1
        if self._listener:
            self._listener.close()
        for connection in tuple(self.connections):
            connection.reset()

    async def stop(self) -> None:
        self.down()
        await asyncio.sleep(0.001)  # sockets are closed in the next rounds of the loop

    async def restart(self, seconds: float) -> None:
        self.down()
        await asyncio.sleep(seconds)
        await self.up()

    def handle(self, connection: _Connection, call: _Call) -> None:
        """Answer a request, now or later."""
        match call.method, call.path.split("/")[1:]:
            case "POST", ["v1", "chat", "completions"]:
                self._chat(connection, call)
            case "POST", ["__restart"]:
                connection.send(Sent({"ok": True}))
                connection.transport.close()
                seconds = json.loads(call.body or b"{}").get("seconds", 0.0)
                self._restarting = asyncio.get_running_loop().create_task(self.restart(seconds))
            case method, parts:
                connection.send(self._page(method, parts, call))

    def _page(self, method: str, parts: Sequence[str], call: _Call) -> Sent:
        match method, parts:
            case "GET", ["v1", "models"]:
                names = self.plan.models or ("faultllm",)
                return Sent({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
            case "GET", ["health"] if self.dialect == "vllm":
                return Sent("", self.plan.health)
            case "GET", ["__stats"]:
                return Sent(asdict(self.stats()))
            case "POST", ["__plan"]:
                try:
                    self.plan = parse_plan(call.body)
                except ConfigError as error:
                    return Sent({"error": str(error)}, 400)
                return Sent({"ok": True})
            case "POST", ["v1", "files"]:
                return self._batches.upload(call.body, call.headers.get("content-type", ""))
            case "GET", ["v1", "files", name, "content"]:
                return self._batches.content(name)
            case "POST", ["v1", "batches"]:
                return self._batches.create(json.loads(call.body))
            case "GET", ["v1", "batches"]:
                return self._batches.listed()
            case "GET", ["v1", "batches", name]:
                return self._batches.look(name, self.plan.batch_polls)
        return failure(self.dialect, 404, f"Invalid URL ({call.method} {call.path})")

    def _chat(self, connection: _Connection, call: _Call) -> None:
        try:
            turn = self._turn(call.body, call.key)
        except (ValueError, TypeError, AttributeError) as error:
            connection.send(failure(self.dialect, 400, f"The request cannot be read: {error}"))
            return
        connection.take()
        wait = self.plan.latency + sum(action.seconds for action in turn.actions if isinstance(action, Delay))
        if wait and not turn.refusal:
            asyncio.get_running_loop().call_later(wait, self._deliver, connection, turn)
        else:
            self._deliver(connection, turn)

    def _turn(self, body: str | bytes, key: str) -> _Turn:
        """Count the request and look up what happens to it."""
        asked = json.loads(body)
        message = last_user_message(asked)
        row = self.plan.row(message)
        self._requests += 1
        self._attempts[row.uid] += 1
        number = self.plan.numbers.get(row.uid) or self._order.setdefault(row.uid, len(self._order) + 1)
        actions = self.plan.actions(row, message, number, self._attempts[row.uid])
        return _Turn(asked, hash(body), row, actions, refused(self.plan, self.dialect, asked, key), self._life)

    def _deliver(self, connection: _Connection, turn: _Turn) -> None:
        """Send the answer, or let happen what the plan has for it."""
        if turn.life != self._life:  # the server died since
            return
        for action in turn.actions:
            if isinstance(action, KillClient):
                with suppress(ProcessLookupError):
                    os.kill(action.pid, action.signal)
        if sent := turn.refusal or self._unbilled(turn):
            connection.send(sent)
        elif "die" in turn.actions:
            self._die()
        elif "hang" not in turn.actions:
            self._hand_over(connection, Sent(self._generate(turn)), turn.actions)

    def _unbilled(self, turn: _Turn) -> Sent | None:
        """What is sent in place of an answer."""
        if told := next((action for action in turn.actions if isinstance(action, Status)), None):
            body = failure(self.dialect, told.code).body if told.body is None else told.body
            return Sent(body, told.code, told.headers)
        return Sent(HTML) if "html200" in turn.actions else None

    def _hand_over(self, connection: _Connection, sent: Sent, actions: Sequence[Action]) -> None:
        cut = next((action.sent for action in actions if isinstance(action, Truncate)), None)
        if "rst" in actions:
            connection.reset()
        elif "close_before_headers" in actions:
            connection.transport.close()
        elif "bad_json" in actions:
            connection.send(Sent(TORN, headers={"content-type": "application/json"}))
        else:
            connection.send(sent, cut)

    def _generate(self, turn: _Turn) -> dict[str, Any]:
        """The answer, which from now on is billed."""
        self._billed[turn.row.uid] += 1
        self._repeated += turn.exact in self._answered
        self._answered.add(turn.exact)
        return complete(self.plan, self.dialect, turn.asked, turn.row, turn.actions, self._requests)

    def _batch_line(self, asked: Mapping[str, Any]) -> Sent | None:
        turn = self._turn(json.dumps(asked), self.plan.key or "")
        if any(isinstance(action, Truncate) or action in LOST for action in turn.actions):
            return None
        return turn.refusal or self._unbilled(turn) or Sent(self._generate(turn))

    def _die(self) -> None:
        if self.exits:
            os._exit(1)
        self.down()


class Served:
    """A fault server that runs in a thread of this process."""

    def __init__(self, server: FaultLLM, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop

    @property
    def url(self) -> str:
        """What a client takes as its base URL; it ends in `/v1`."""
        return self._server.url

    def stats(self) -> Stats:
        return self._ask(self._server.stats)

    def set_plan(self, plan: Plan) -> None:
        """Follow another plan from the next request on; the counts go on."""
        self._ask(lambda: setattr(self._server, "plan", plan))

    def restart(self, seconds: float = 0.0) -> None:
        """Reset every connection, and listen again after so many seconds: also after `die`. The counts go on."""
        asyncio.run_coroutine_threadsafe(self._server.restart(seconds), self._loop).result()

    def _ask(self, work: Callable[[], T]) -> T:
        async def inside() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result()


@contextmanager
def serving(plan: Plan | None = None, dialect: Dialect = "openai", port: int = 0) -> Iterator[Served]:
    """A fault server for as long as the block runs, in a thread of its own.

    Example:
        >>> from freeal.testing.plans import Rule
        >>> with serving(Plan([Rule(Status(503), attempt=1)], keywords={"good": ["fine"]})) as server:
        ...     server.url.endswith("/v1"), server.stats().requests
        (True, 0)
    """
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="faultllm", daemon=True)
    thread.start()
    server = FaultLLM(plan or Plan(), dialect)
    try:
        asyncio.run_coroutine_threadsafe(server.up(port), loop).result()
        yield Served(server, loop)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped; the first line on stdout is the URL."""
    parser = argparse.ArgumentParser(
        prog="python -m freeal.testing.faultllm", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--plan", type=Path, help="JSON; without one, all goes well")
    parser.add_argument("--dialect", choices=get_args(Dialect), default="openai")
    parser.add_argument("--latency", type=float, help="seconds an answer takes, in place of the plan's")
    told = parser.parse_args(arguments)
    try:
        plan = read_plan(told.plan) if told.plan else Plan()
    except ConfigError as error:
        parser.error(str(error))
    if told.latency is not None:
        plan = replace(plan, latency=told.latency)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(FaultLLM(plan, told.dialect, exits=True), told.port))


async def _serve(server: FaultLLM, port: int) -> None:
    await server.up(port)
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
