"""Requests by the file, answered within a day at half the price: OpenAI's Batch API.

A batch is known by a hash of all its requests, which goes with it as metadata: a process that finds its batch
already there, be it finished or not, waits for that one and pays for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from freeal.errors import LLMUnavailable
from freeal.events import Emit, Note, Progress
from freeal.llm.pacing import Clock
from freeal.llm.packing import packs

HEAVIEST = 190_000_000
"""Bytes of the requests of a batch: OpenAI takes files of 200 MB."""

Read = Callable[[str], Awaitable[str]]
"""Id of a file -> what is in it; nothing, if it is gone."""

WINDOW = "24h"
PATH = "/v1/chat/completions"
_AT_AN_END = ("failed", "expired", "cancelled")


async def find(client: Any, bodies: Sequence[Mapping[str, Any]]) -> Any:
    """The batch of these requests that the server has already, or None."""
    name = _name(bodies)
    async for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get("freeal") == name and not _lost(batch):
            return batch
    return None


async def holding(client: Any, wanted: Set[str], read: Read) -> list[tuple[Any, set[str]]]:
    """Batches of ours, the newest first, that hold some of the requests `wanted`, and the requests each holds.

    A run that is resumed with other limits asks another chunk, and what was submitted is paid for all the same.
    """
    found, left = [], set(wanted)
    async for batch in client.batches.list(limit=100):
        if not left:
            break
        if "freeal" in (batch.metadata or {}) and not _lost(batch):
            held = {str(line.get("custom_id")) for line in _lines(await read(batch.input_file_id))}
            if held & left:
                found.append((batch, held))
                left -= held
    return found


def id_of(body: Mapping[str, Any]) -> str:
    """What a request is called within its batch: a hash of it."""
    return _name([body])


def cut(bodies: Sequence[Mapping[str, Any]], heaviest: int = HEAVIEST) -> Iterator[list[int]]:
    """Places in `bodies`, in order, of the requests of one file after the other, none heavier than it may be.

    Example:
        >>> [len(part) for part in cut([{"model": "tiny"}] * 5, heaviest=300)]
        [2, 2, 1]
    """
    return packs([len(_line(body)) for body in bodies], heaviest)


async def submit(client: Any, bodies: Sequence[Mapping[str, Any]]) -> Any:
    """Upload the requests and start their batch."""
    content = b"".join(map(_line, bodies))
    file = await client.files.create(file=("requests.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=PATH, completion_window=WINDOW, metadata={"freeal": _name(bodies)}
    )


async def collect(client: Any, batch: Any, pause: float, clock: Clock, emit: Emit) -> dict[str, tuple[int, str]]:
    """Id of each request -> (status, raw body), once the batch is done; a request without an answer is left out.

    Raises:
        LLMUnavailable: the batch failed as a whole, or was cancelled.
    """
    emit(Note(f"batch {batch.id}: answered within {WINDOW}; the run may be interrupted and resumed meanwhile", "llm"))
    while batch.status not in ("completed", *_AT_AN_END):
        await clock.sleep(pause)
        batch = await client.batches.retrieve(batch.id)
        if counts := batch.request_counts:
            emit(Progress(f"batch {batch.id}", counts.completed + counts.failed, counts.total, "requests"))
    answers: dict[str, tuple[int, str]] = {}
    for file in (batch.output_file_id, batch.error_file_id):
        if file:
            content = await client.files.content(file)
            answers |= dict(filter(None, map(_answer, _lines(content.text))))
    if not answers:
        raise LLMUnavailable(_nothing(batch))
    return answers


def _nothing(batch: Any) -> str:
    """What to tell of a batch without an answer: of one that was too large, how to make it smaller."""
    why = str(batch.errors) if batch.errors else ""
    told = f"batch {batch.id} is {batch.status}{f' ({why})' if why else ''}, and answered nothing"
    if any(word in why.casefold() for word in ("token_limit", "enqueued", "too_large", "too large")):
        return f"{told}; resume with fewer requests a batch, as with  --set llm.batch_size=1000"
    return f"{told}; resume to submit it again"


def _lost(batch: Any) -> bool:
    """Whether nothing good will come of it any more: all it has are errors, or nothing."""
    return batch.status in ("completed", *_AT_AN_END, "cancelling") and not batch.output_file_id


def _lines(text: str) -> Iterator[dict[str, Any]]:
    # str.splitlines would also cut at characters that stand in replies, such as U+2028
    found = (json.loads(line) for line in text.split("\n") if line.strip())
    return (line for line in found if isinstance(line, dict))


def _line(body: Mapping[str, Any]) -> bytes:
    """A request as it stands in the file of a batch."""
    told = {"custom_id": id_of(body), "method": "POST", "url": PATH, "body": body}
    return f"{json.dumps(told, ensure_ascii=False)}\n".encode("utf-8", "replace")


def _answer(line: Mapping[str, Any]) -> tuple[str, tuple[int, str]] | None:
    """(id of a request, (status, raw body)); None for a line that does not say of which request, or what."""
    response = line.get("response") or {"status_code": 500, "body": {"error": line.get("error")}}
    try:
        uid, status, body = line["custom_id"], int(response["status_code"]), json.dumps(response["body"])
    except (KeyError, TypeError, ValueError):
        return None
    return (uid, (status, body)) if isinstance(uid, str) else None


def _name(bodies: Sequence[Mapping[str, Any]]) -> str:
    told = json.dumps(list(bodies), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:40]
