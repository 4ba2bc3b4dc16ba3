"""`freeal show`: what a run came to, or is at."""

from __future__ import annotations

import json

import typer

from freeal.cli.options import AsJson, RunFolder
from freeal.errors import RunError


def show(run: RunFolder, as_json: AsJson = False) -> None:
    """Print the summary of a run; for an unfinished one, the rounds so far.

    Example: freeal show runs/quickstart-local-20261122-034700
    """
    from freeal.store import SUMMARY, TOLD, RunStore, is_finished

    done = run / (SUMMARY if as_json else TOLD)
    if is_finished(run) and done.is_file():
        typer.echo(done.read_text(encoding="utf-8"))
        return
    if not (run / "config.yaml").is_file():
        raise RunError(f"{run}: no run directory (it has no config.yaml)")
    store = RunStore(run)
    rounds = [store.report(folder) for folder in store.finished()]
    if as_json:
        typer.echo(json.dumps({"finished": False, "rounds": rounds}, indent=2))
        return
    typer.echo(f"{run.name}: unfinished, {len(rounds)} whole rounds; go on with:  freeal run --resume {run}")
    for figures in rounds:
        typer.echo(_round(figures))


def _round(figures: dict[str, object]) -> str:
    from freeal.cli.console import round_line
    from freeal.events import RoundFinished

    number = figures["round"]
    assert isinstance(number, int)
    return round_line(RoundFinished(number, figures))
