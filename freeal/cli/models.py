"""`freeal models`: which models come with freeal, and where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from freeal.errors import ModelError
from freeal.events import Emit, Event, Note, Progress

if TYPE_CHECKING:
    from freeal.models import ModelStatus

app = typer.Typer(
    no_args_is_help=True,
    help="Fetch and find the embedded models. They are kept below $FREEAL_CACHE (default ~/.cache/freeal).",
)


@app.command("list")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """List the embedded models: what they are for, their size, their licence, and where they are.

    Example: freeal models list
    """
    from freeal.models import status

    found = status()
    if as_json:
        typer.echo(json.dumps([_as_json(model) for model in found], indent=2))
        return
    for line in _table(found):
        typer.echo(line)


@app.command()
def pull(
    names: Annotated[list[str] | None, typer.Argument(help="Embedded names, hub names or GGUF files.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every embedded model (about 5 GB on disk).")] = False,
) -> None:
    """Fetch models ahead of time; print the folder of each.

    Example: freeal models pull qwen2.5-coder-0.5b all-minilm-l6-v2
    """
    from freeal.models import REGISTRY, locate

    wanted = [*(names or []), *(REGISTRY if everything else [])]
    if not wanted:
        raise typer.BadParameter(f"name one or more of {', '.join(REGISTRY)}, or give --all")
    with _progress() as emit:
        folders = [locate(name, emit) for name in dict.fromkeys(wanted)]
    for folder in folders:
        typer.echo(folder)


@app.command()
def path(name: Annotated[str, typer.Argument(help="An embedded name.")]) -> None:
    """Print the folder of a model that has been fetched.

    Example: ls $(freeal models path all-minilm-l6-v2)
    """
    from freeal.models import REGISTRY, cached

    folder = cached(name)
    if folder is None and name in REGISTRY:
        raise ModelError(f"{name}: not fetched yet; `freeal models pull {name}` does it")
    if folder is None:
        raise ModelError(f"{name!r} is no embedded model; there are {', '.join(REGISTRY)}")
    typer.echo(folder)


def _as_json(model: ModelStatus) -> dict[str, object]:
    return asdict(model) | {"cached": model.cached, "path": str(model.path) if model.path else None}


def _table(models: list[ModelStatus]) -> list[str]:
    rows = [("NAME", "FOR", "DOWNLOAD", "LICENCE", "FOLDER")]
    for m in models:
        rows.append((m.name, m.role, f"{m.bytes / 1e6:.0f} MB", m.licence, str(m.path or "not fetched yet")))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@contextmanager
def _progress() -> Iterator[Emit]:
    """A listener that draws one bar a piece of work, and prints notes, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def emit(event: Event) -> None:
            if isinstance(event, Note):
                bars.console.print(event.message, markup=False, highlight=False)
            elif isinstance(event, Progress):
                if event.work not in tasks:
                    tasks[event.work] = bars.add_task(event.work, total=event.total)
                bars.update(tasks[event.work], completed=event.done)

        yield emit
