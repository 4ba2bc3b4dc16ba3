"""The terminal as a listener: a progress line with rate and ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from freeal.events import Emit, Event, Note, Progress, RoundFinished
from freeal.report import clock, first_answers, worth

if TYPE_CHECKING:
    from rich.console import Console

QUIET_SECONDS = 15.0
"""Without a terminal, a long piece of work says how far it is once in so many seconds."""


@contextmanager
def listening() -> Iterator[Emit]:
    """An `Emit` that shows events on stderr."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with _bars(console) if console.is_terminal else _lines(console) as show_progress:

        def emit(event: Event) -> None:
            match event:
                case Progress():
                    show_progress(event)
                case Note():
                    where = f"{event.where}: " if event.where else ""
                    console.print(f"  note: {where}{event.message}", markup=False, style="yellow")
                case RoundFinished():
                    console.print(round_line(event), markup=False, style="bold")
                case _:
                    pass

        yield emit


def round_line(event: RoundFinished) -> str:
    """One line on a finished round."""
    figures: Mapping[str, Any] = event.figures
    parts = [f"round {event.number}", f"{figures['asked']:,} asked"]
    if figures["agreement"] is not None:
        parts.append(f"agree {figures['agreement']:.1%}")
    parts += [f"clean {figures['clean']:.1%}", f"changed {figures['changed']:.1%}"]
    first = first_answers(figures.get("reading"))
    for place in ("pool", "test"):
        for name, title in (("zero_shot", first), ("llm", "LLM"), ("student", "student"), ("final", "final")):
            score = worth(figures[place].get(name))
            if score is not None:
                parts.append(f"{place} {title} {score:.3f}")
    return " · ".join(parts) + f" · {clock(figures['seconds'])}"


@contextmanager
def _bars(console: Console) -> Iterator[Emit]:
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    tasks: dict[str, Any] = {}
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=console, transient=True) as bars:
        started: dict[str, float] = {}

        def show(event: Event) -> None:
            if not isinstance(event, Progress):
                return
            if event.work not in tasks:
                tasks[event.work] = bars.add_task(event.work, total=event.total, rate="")
                started[event.work] = time.monotonic()
            rate = event.done / max(time.monotonic() - started[event.work], 1e-3)
            shown = f"{rate:,.1f} {event.unit}/s"
            bars.update(tasks[event.work], completed=event.done, total=event.total, rate=shown)
            if event.done >= event.total:
                bars.remove_task(tasks.pop(event.work))

        yield show


@contextmanager
def _lines(console: Console) -> Iterator[Emit]:
    seen: dict[str, tuple[float, int]] = {}
    told: dict[str, float] = {}

    def show(event: Event) -> None:
        if not isinstance(event, Progress):
            return
        now = time.monotonic()
        start, first = seen.setdefault(event.work, (now, event.done))
        finished = event.done >= event.total
        if finished:
            seen.pop(event.work)
        if now - told.get(event.work, start) < QUIET_SECONDS and not (finished and event.work in told):
            return
        told[event.work] = now
        rate = (event.done - first) / max(now - start, 1e-3)
        left = f", {clock((event.total - event.done) / rate)} left" if rate > 0 and not finished else ""
        line = f"  {event.work}: {event.done:,}/{event.total:,} {event.unit}, {rate:.1f}/s{left}"
        console.print(line, markup=False)

    yield show


def printable(text: str) -> str:
    """`text` without the control characters that would give orders to a terminal; line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)
