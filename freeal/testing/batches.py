"""The batch API of a fault server: a file of requests goes in, a file of answers comes out some polls later."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from freeal.testing.answers import Sent, failure

Answer = Callable[[Mapping[str, Any]], Sent | None]
"""The body of one line -> its response; None if the line gets none before the batch expires."""


Lines = list[dict[str, Any]]


class Batches:
    """Files and batches by id. Lines are answered, and billed, when the batch completes."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, int] = {}

    def upload(self, body: bytes, content_type: str) -> Sent:
        """`POST /v1/files`"""
        parts = _parts(body, content_type)
        if parts.get("purpose") != b"batch" or "file" not in parts:
            return failure("openai", 400, "expected multipart fields 'file' and 'purpose' = 'batch'", "purpose")
        return Sent(self._file(parts["file"], "batch"))

    def content(self, name: str) -> Sent:
        """`GET /v1/files/{name}/content`"""
        return Sent(self.files[name]) if name in self.files else _unknown("file", name)

    def create(self, asked: Mapping[str, Any]) -> Sent:
        """`POST /v1/batches`"""
        source = asked.get("input_file_id", "")
        if source not in self.files:
            return _unknown("file", source)
        name = f"batch-{len(self.batches) + 1}"
        total = sum(bool(line.strip()) for line in self.files[source].splitlines())
        self.batches[name] = {
            "id": name, "object": "batch", "endpoint": asked.get("endpoint"), "input_file_id": source,
            "completion_window": asked.get("completion_window"), "created_at": 0, "status": "validating",
            "output_file_id": None, "error_file_id": None, "errors": None, "metadata": asked.get("metadata"),
            "request_counts": {"total": total, "completed": 0, "failed": 0},
        }  # fmt: skip
        self._looks[name] = 0
        return Sent(self.batches[name])

    def listed(self) -> Sent:
        """`GET /v1/batches`, the newest first."""
        return Sent({"object": "list", "data": list(self.batches.values())[::-1], "has_more": False})

    def look(self, name: str, polls: int) -> Sent:
        """`GET /v1/batches/{name}`; the batch completes when it is looked at for the `polls`-th time."""
        if name not in self.batches:
            return _unknown("batch", name)
        self._looks[name] += 1
        batch = self.batches[name]
        if batch["status"] != "completed":
            batch["status"] = "in_progress"
            if self._looks[name] >= polls:
                self._complete(batch)
        return Sent(batch)

    def _complete(self, batch: dict[str, Any]) -> None:
        done: Lines = []
        failed: Lines = []
        for line in self.files[batch["input_file_id"]].splitlines():
            if line.strip():
                asked = json.loads(line)
                sent = self.answer(asked["body"])
                (done if sent and sent.status == 200 else failed).append(_outcome(asked.get("custom_id"), sent))
        batch["status"] = "completed"
        batch["output_file_id"] = self._lines(done)
        batch["error_file_id"] = self._lines(failed)
        batch["request_counts"] |= {"completed": len(done), "failed": len(failed)}

    def _lines(self, lines: Lines) -> str | None:
        """The id of a new file of these lines; None if there are none."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        return str(self._file(text.encode(), "batch_output")["id"]) if lines else None

    def _file(self, content: bytes, purpose: str) -> dict[str, Any]:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        told = {"id": name, "object": "file", "bytes": len(content), "created_at": 0, "filename": f"{name}.jsonl"}
        return {**told, "purpose": purpose, "status": "processed"}


def _outcome(custom_id: object, sent: Sent | None) -> dict[str, Any]:
    """One line of the output file or the error file."""
    line = {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": None, "error": None}
    if sent is None:
        message = "This request could not be executed before the completion window expired."
        return line | {"error": {"code": "batch_expired", "message": message}}
    return line | {"response": {"status_code": sent.status, "request_id": line["id"], "body": sent.body}}


def _unknown(kind: str, name: str) -> Sent:
    return failure("openai", 404, f"No such {kind}: '{name}'.", "id", "not_found")


def _parts(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a multipart form."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        return {}
    parts = {}
    for part in body.split(b"--" + boundary[1].encode("latin-1"))[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if name := re.search(rb'\bname="([^"]*)"', head):
            parts[name[1].decode()] = content.removesuffix(b"\r\n")
    return parts
