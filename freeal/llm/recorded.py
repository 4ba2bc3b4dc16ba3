"""An LLM that was asked before: its labels are read from a file, found by the id of the example."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from freeal.errors import DataError
from freeal.llm import UNHEARD, Capabilities, InProcess, Journal, Reply, Request

NOT_ASKED = "no reply recorded for this row"
NO_LABEL = "no label recorded"

Answer = Callable[[str, int], str]
"""A reply, and the number of a question -> what it says to that."""


class RecordedLLM(InProcess):
    """Replays kept replies, and never a probability.

    Args:
        replies: id of the example -> reply.
        identity: what tells this recording from another.
        answer: what a reply about a whole example says to one of the questions about it; by default the same to all.

    Example:
        >>> llm = RecordedLLM({"r1": Reply("positive")}, {})
        >>> llm.complete([Request((), uid="r1"), Request((), uid="r2")])[1].problem
        'no reply recorded for this row'
    """

    capabilities = Capabilities(probabilities=False, generation=False, chunk=1024, by_uid=True)

    def __init__(
        self,
        replies: Mapping[str, Reply],
        identity: Mapping[str, str | int | float | bool | None],
        answer: Answer = lambda reply, question: reply,
    ) -> None:
        self.replies = replies
        self.identity = {"kind": "recorded", **identity}
        self.answer = answer

    @classmethod
    def from_labels(
        cls,
        path: Path,
        id_column: str,
        label_column: str,
        labels: Sequence[str],
        answer: Answer = lambda reply, question: reply,
    ) -> RecordedLLM:
        """Read a csv, tsv, jsonl or parquet file with one label a row.

        A number stands for the label of that class index, unless labels are numbers themselves; -1, an
        empty field and null mean that no label was recorded. Any other text is replayed as it is.

        Raises:
            DataError: the file cannot be read, a column is missing, or an id has two different labels.
        """
        replies: dict[str, Reply] = {}
        for line, row in _rows(path):
            if missing := [column for column in (id_column, label_column) if column not in row]:
                raise DataError(f"{path}: row {line}: no column {missing[0]!r}; there are {', '.join(map(repr, row))}")
            uid, reply = _text(row[id_column]), _reply(_text(row[label_column]), labels)
            if replies.setdefault(uid, reply) != reply:
                raise DataError(
                    f"{path}: row {line}: id {uid!r} was {_told(replies[uid])} before and is {_told(reply)} here; "
                    "an id must have one label"
                )
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(
            replies, {"sha256": sha256, "id": id_column, "label": label_column, "labels": "\n".join(labels)}, answer
        )

    def complete(self, requests: Sequence[Request], journal: Journal = UNHEARD) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Nothing is read, so nothing is counted."""
        return [0] * len(requests)

    def _reply(self, request: Request) -> Reply:
        kept = self.replies.get(request.uid, Reply(problem=NOT_ASKED))
        return kept if kept.text is None else replace(kept, text=self.answer(kept.text, request.question))


def _reply(recorded: str, labels: Sequence[str]) -> Reply:
    by_index = _NUMBER.fullmatch(recorded) and not any(map(_NUMBER.fullmatch, labels))
    index = int(float(recorded)) if by_index else None
    if not recorded.strip() or index == -1:
        return Reply(problem=NO_LABEL)
    return Reply(labels[index] if index is not None and 0 <= index < len(labels) else recorded)


_NUMBER = re.compile(r"-?\d{1,9}(\.0+)?")


def _told(reply: Reply) -> str:
    return repr(reply.text) if reply.text is not None else "without a label"


def _text(value: object) -> str:
    if value is None or value != value:  # NaN, as pandas writes a missing text
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The rows of a file, counted from 1."""
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: recorded labels must be in a file of kind {', '.join(readers)}")
    try:
        yield from enumerate(reader(path), 1)
    except (OSError, ValueError, csv.Error) as error:  # ValueError: bad UTF-8, bad JSON, bad parquet
        raise DataError(f"{path}: the recorded labels cannot be read: {error}") from error


def _csv(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")


def _jsonl(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise ValueError(f"expected one JSON object a line, found {line[:80]!r}")
            if row:
                yield row


def _parquet(path: Path) -> Iterable[Mapping[str, object]]:
    import pyarrow.parquet as pq

    rows: list[Mapping[str, object]] = pq.read_table(path).to_pylist()
    return rows
