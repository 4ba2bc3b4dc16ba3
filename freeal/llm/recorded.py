"""An LLM that was asked before: its labels are read from a file, found by the id of the example."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from freeal.config import DataConfig
from freeal.llm import UNHEARD, Capabilities, InProcess, Journal, Reply, Request
from freeal.tables import open_table

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
        encoding: str = "utf-8",
    ) -> RecordedLLM:
        """Read a file with one label a row, of any kind that `tables` reads.

        A number stands for the label of that class index, unless labels are numbers themselves; -1, an
        empty field and null mean that no label was recorded. Any other text is replayed as it is.

        Raises:
            DataError: the file cannot be read, a column is missing, or an id has two different labels.
        """
        replies: dict[str, Reply] = {}
        place = str(path.absolute())  # never a name to be looked for elsewhere
        table = open_table(place, "train", DataConfig(pool=place, encoding=encoding))
        for number, row in table.rows:
            if missing := [column for column in (id_column, label_column) if column not in row]:
                raise table.fault(number, f"no column {missing[0]!r}; there are {', '.join(map(repr, row))}")
            uid, reply = _text(row[id_column]), _reply(_text(row[label_column]), labels)
            if replies.setdefault(uid, reply) != reply:
                was, here = _told(replies[uid]), _told(reply)
                raise table.fault(number, f"id {uid!r} was {was} before and is {here} here; an id must have one label")
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
