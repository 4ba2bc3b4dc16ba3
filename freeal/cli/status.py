"""`freeal status`: what became of every row, of a run that works, waits or is done."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from freeal.cli.options import AsJson, RunFolder
from freeal.cli.run import with_more

if TYPE_CHECKING:
    from freeal.types import Annotations


def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Account for every row: pending, labelled, skipped or failed with the reason. Reading disturbs no running process.

    Example: freeal status runs/mr-openai-20261122-0347 --json
    """
    found = account(run)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    usage = found["usage"]
    typer.echo(f"{run.name}: {found['state']}, {found['whole_rounds']} of at most {found['rounds']} rounds whole")
    for what, count in found["rows"].items():
        typer.echo(f"{count:>9,} {what}")
    typer.echo(f"{found['total']:>9,} rows in all")
    for work, counts in found["works"].items():
        typer.echo(f"{work}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}")
    cost = f", {usage['cost']:.4f} dollars" if usage["cost"] else ""
    typer.echo(f"{usage['calls']:,} calls, {usage['tokens_in']:,} tokens in, {usage['tokens_out']:,} out{cost}")
    if found["in_doubt"]:
        typer.echo(f"{found['in_doubt']:,} attempts may have been paid for and brought nothing")
    if found["state"] == "interrupted":
        typer.echo(f"go on with:  freeal run --resume {run}")
        if found["budget"] is not None:
            spent = usage["cost"] + usage["doubt"]
            typer.echo(f"{spent:.4f} of {found['budget']:.4f} dollars are spent; with more:  {with_more(run)}")


def account(run: Path) -> dict[str, Any]:
    """State of the run; rows by state, which add up to `total`; the same by piece of work; usage.

    Raises:
        RunError: no run directory.
        ConfigError: its config.yaml cannot be used.
    """
    from freeal import lock, prompts, rows
    from freeal.ledger import FILE, Ledger
    from freeal.store import ENVIRONMENT, RunStore, is_finished, kept_config, read_json
    from freeal.types import NO_CALL

    config = kept_config(run)
    environment = read_json(run / ENVIRONMENT)
    prompt, pool = prompts.load(run / "prompt.md"), rows.read(run)["pool"]
    works: dict[str, Counter[str]] = {}
    of_row = dict.fromkeys(pool, "pending")
    with Ledger(run / FILE, read_only=True) as ledger:
        for work, uid, reply in ledger.rows():
            state = _state(prompt, reply) if uid else _written(reply)
            works.setdefault(work, Counter())[state] += 1
            # ids of the test may be those of the pool, too; and a label once given stays
            if work.startswith("round ") and uid in of_row and of_row[uid] != "labelled":
                of_row[uid] = state
        usage, in_doubt = ledger.usage(), ledger.in_doubt()
    store = RunStore(run, prompt.task, tuple(pool))
    if prompt.task.questions > 1:  # of several questions a row the ledger tells one apart
        for number, folder in enumerate(store.finished()):
            works[f"round {number}"] = _of_round(store.load(folder).annotations, number)
    last = store.resume()
    if last is not None:
        said, several = last.annotations, prompt.task.kind != "classification"
        for uid, labelled, problem in zip(pool, said.labelled, said.problems, strict=True):
            # a text without candidates, or one for an understudy, is labelled without a question; of several questions
            # a text, or of a list of entities, the round alone knows what they came to
            if several and not labelled and problem:
                of_row[uid] = "pending" if problem == NO_CALL else f"failed: {problem.partition(':')[0]}"
            elif labelled and (several or of_row[uid] == "pending"):
                of_row[uid] = "labelled"
    by_state = Counter(of_row.values())
    by_state["skipped: empty"] = len(environment.get("empty", ()))
    whole = len(store.finished())
    done = "finished" if is_finished(run) else "interrupted"
    return {
        "schema_version": 1,
        "state": "running" if lock.is_held(run) else done,
        "rounds": config.rounds,
        "budget": config.stop.budget,
        "whole_rounds": whole,
        "total": len(pool) + by_state["skipped: empty"],
        "rows": dict(sorted((state, count) for state, count in by_state.items() if count)),
        "works": {work: dict(sorted(counts.items())) for work, counts in sorted(works.items())},
        "in_doubt": 0 if lock.is_held(run) else in_doubt,
        "usage": {"calls": usage.calls, "reused": usage.reused, "tokens_in": usage.tokens_in,
                  "tokens_out": usage.tokens_out, "cost": usage.cost, "doubt": usage.doubt},
    }  # fmt: skip


def _of_round(said: Annotations, number: int) -> Counter[str]:
    """What became of the rows that round `number` asked about, when it was done."""
    asked = said.asked_in == number
    return Counter(
        "labelled" if labelled or not problem else f"failed: {problem.partition(':')[0]}"
        for labelled, problem in zip(said.labelled[asked], said.problems[asked], strict=True)
    )


def _written(reply: Any) -> str:
    """The same of a text that the LLM was to write, which is about no row."""
    from freeal.ledger import Unread

    if reply is None or isinstance(reply, Unread):
        return "pending"
    return f"failed: {reply.problem.partition(':')[0]}" if reply.problem else "written"


def _state(prompt: Any, reply: Any) -> str:
    from freeal.ledger import Unread

    if reply is None or isinstance(reply, Unread):
        return "pending"
    if reply.problem is None and reply.logprobs is not None:
        return "labelled"
    said = prompt.read(reply, "")
    named = reply.problem is None and said.named  # whether that is in the text is for the run to say
    if prompt.task.kind == "tokens" and (named or said.proba is not None):
        return "answered"
    return "labelled" if said.proba is not None else f"failed: {said.problem.partition(':')[0]}"
