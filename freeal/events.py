"""What happens, as it happens: parts emit events; the terminal, events.jsonl and trackers listen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` `unit`s of a long piece of work, such as "round 1: labelling"."""

    work: str
    done: int
    total: int
    unit: str = "rows"


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know: a fallback, a skipped row, a warning. Kept in events.jsonl."""

    message: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class RoundFinished:
    """A round is on disk, with the figures of its report.json."""

    number: int
    figures: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over and says why."""

    reason: str


Event = Progress | Note | RoundFinished | RunFinished
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that listens to nothing."""


def fan_out(listeners: Sequence[Emit]) -> Emit:
    """One `Emit` that tells every listener in turn."""

    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return emit


class JsonLines:
    """Keeps every event but progress as one line of JSON with its time, flushed at once."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            return
        line = {"time": round(self.clock(), 3), "event": type(event).__name__, **asdict(event)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
