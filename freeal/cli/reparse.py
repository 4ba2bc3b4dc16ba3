"""`freeal reparse`: read the replies that a run keeps once more; nothing is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from freeal.cli.options import AsJson, RunFolder
from freeal.errors import RunError

if TYPE_CHECKING:
    from freeal.llm import Reply


def reparse(run: RunFolder, as_json: AsJson = False) -> None:
    """Read the kept raw replies again, as this version of freeal reads them, and keep what they say now.

    Rounds that are done stay as they are; make them anew, free of charge, with the command it prints.

    Example: freeal reparse runs/mr-openai-20261122-0347
    """
    from freeal.ledger import FILE, Ledger, Unread
    from freeal.llm.completions import read_completion
    from freeal.lock import RunLock

    if not (run / "config.yaml").is_file():
        raise RunError(f"{run}: no run directory (it has no config.yaml)")
    found: dict[str, Any] = {"replies": 0, "changed": 0, "problems_before": 0, "problems": 0}
    with RunLock(run), Ledger(run / FILE) as ledger:
        for key, raw, request, before in list(ledger.raw()):
            if isinstance(before, Unread):
                continue  # the run itself will read it, and count what it cost
            after = read_completion(raw, request, before.tokens_in)
            found["replies"] += 1
            found["problems_before"] += bool(before.problem)
            found["problems"] += bool(after.problem)
            if _says(after) != _says(before):
                found["changed"] += 1
                ledger.reread(key, after)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(
        f"{found['replies']:,} kept replies read again: {found['changed']:,} say something else now; "
        f"{found['problems_before']:,} with a problem before, {found['problems']:,} now"
    )
    if found["changed"]:
        typer.echo(f"rounds anew, free of charge:  freeal run --fork {run}")


def _says(reply: Reply) -> tuple[object, ...]:
    return reply.text, reply.logprobs, reply.problem
