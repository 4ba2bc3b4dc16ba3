"""A real chat server on this machine, for tests: it answers as it is told and remembers what it was asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = Callable[[str, int], "Sent | str"]
"""(text of the last message, how often it was asked before) -> what is sent; a str is a good reply."""


@dataclass
class Sent:
    """One response, below the chat protocol."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class ChatServer:
    """Runs while the `with` block of `serve` does."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


def completion(text: str | None, top: dict[str, float] | None = None, usage: bool = True, **more: Any) -> Sent:
    """A chat completion; `top` are the candidates for the first token with their logarithms."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if top is not None:
        candidates = [{"token": token, "logprob": logprob} for token, logprob in top.items()]
        choice["logprobs"] = {"content": [{**candidates[0], "top_logprobs": candidates}]}
    counted = {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}} if usage else {}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny"}
    return Sent({**head, "choices": [choice | more], **counted})


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Sent:
    """An error in the form of the chat protocol; `retry_after_ms="5"` becomes a header."""
    error = {"message": message, "type": "error", "code": code}
    return Sent({"error": error}, status, {name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def serve(answer: Answer) -> Iterator[ChatServer]:
    attempts: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(Sent({"object": "list", "data": [{"id": "tiny"}, {"id": "small"}]}))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(asked)
            server.keys.append(self.headers.get("Authorization"))
            text = asked["messages"][-1]["content"]
            attempts[text] += 1
            sent = answer(text, attempts[text] - 1)
            self._send(completion(sent) if isinstance(sent, str) else sent)

        def _send(self, sent: Sent) -> None:
            plain = isinstance(sent.body, str)
            body = sent.body.encode() if plain else json.dumps(sent.body).encode()
            kind = {"Content-Type": "text/html" if plain else "application/json"}
            self.send_response(sent.status)
            for name, value in (kind | {"Content-Length": str(len(body))} | sent.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = ChatServer(f"http://127.0.0.1:{http.server_port}/v1")
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
