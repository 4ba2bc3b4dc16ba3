"""`freeal repair`: a damaged run directory, made usable again."""

from __future__ import annotations

import json
from typing import Any

import typer

from freeal.cli.options import AsJson, RunFolder
from freeal.errors import RunError


def repair(run: RunFolder, as_json: AsJson = False) -> None:
    """Save what can be read of a damaged ledger, and set damaged rounds aside; then resume: kept replies cost nothing.

    Nothing is deleted: the damaged files stay beside the new ones.

    Example: freeal repair runs/mr-openai-20261122-0347
    """
    from freeal.lock import RunLock
    from freeal.repair import mend_ledger, set_aside_rounds

    if not (run / "config.yaml").is_file():
        raise RunError(f"{run}: no run directory (it has no config.yaml)")
    with RunLock(run):
        saved, rounds = mend_ledger(run), set_aside_rounds(run)
    found: dict[str, Any] = {
        "ledger": None
        if saved is None
        else {"rows": saved.rows, "lost": saved.lost, "gone": saved.gone, "damaged": str(saved.kept)},
        "damaged_files": rounds,
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if saved:
        gone = f" and all of {', '.join(saved.gone)}" if saved.gone else ""
        typer.echo(f"ledger: {saved.rows:,} rows saved, {saved.lost:,}{gone} lost; the damaged one is {saved.kept}")
    for path in rounds:
        typer.echo(f"{path}: damaged; its round and those after it are set aside")
    if saved or rounds:
        typer.echo(f"go on with:  freeal run --resume {run}")
    else:
        typer.echo("nothing is damaged")
