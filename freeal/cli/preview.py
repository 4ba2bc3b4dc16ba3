"""`freeal preview`: exactly what would be sent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freeal.cli.console import printable
from freeal.cli.options import AsJson, ConfigFile, Overrides
from freeal.errors import DataError, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from freeal.config import Config
    from freeal.data import Corpus
    from freeal.prompts import Prompt
    from freeal.types import Demonstration


def preview(
    config: ConfigFile,
    uid: Annotated[str | None, typer.Option("--id", help="The row to ask about. Default: the first.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Show it with the demonstrations of this run.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print the chat that would be sent for one row, turn by turn, and the choices put to the LLM.

    Example: freeal preview configs/mr.yaml --id mr-train-00007
    """
    from freeal import build
    from freeal import config as settings

    chosen = settings.load(config, overrides or ())
    prompt, corpus = build.inputs(chosen, Path(chosen.prompt))
    ids = [example.id for example in corpus.pool.examples]
    if uid is not None and uid not in ids:
        raise DataError(f"{chosen.data.pool}: no row with id {uid!r} in the pool; the first are {', '.join(ids[:3])}")
    row = 0 if uid is None else ids.index(uid)
    shown = _shown(run, chosen, prompt, corpus, row) if run else ()
    chat = prompt.render(corpus.pool[row], shown)
    if as_json:
        typer.echo(json.dumps({"id": ids[row], "messages": [asdict(m) for m in chat], "choices": prompt.replies}))
        return
    for message in chat:
        typer.echo(f"── {message.role} " + "─" * (40 - len(message.role)))
        typer.echo(printable(message.content))
    typer.echo("── choices " + "─" * 33)
    typer.echo("\n".join(prompt.replies))


def _shown(run: Path, config: Config, prompt: Prompt, corpus: Corpus, row: int) -> Sequence[Demonstration]:
    """What the next round of `run` would show with `row`."""
    import numpy as np

    from freeal import build
    from freeal.events import ignore
    from freeal.store import RunStore

    store = RunStore(run, tuple(prompt.labels), tuple(example.id for example in corpus.pool.examples))
    state = store.resume()
    if state is None:
        raise RunError(f"{run}: no finished round, so no demonstrations yet")
    demos = build.demonstrations(config, prompt, lambda requests: [], lambda: build.embedder(config, ignore), ignore)
    return demos.retrieve(corpus.pool, np.array([row]), state)[0]
