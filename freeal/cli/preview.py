"""`freeal preview`: exactly what would be sent."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
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
    """Print the chat that would be sent for one row, turn by turn, and the choices put to the LLM; with each prompt.

    Example: freeal preview configs/quickstart.yaml --id t017
    """
    from freeal import build
    from freeal import config as settings
    from freeal.parts import readers
    from freeal.types import Pool

    chosen = settings.load(config, overrides or ())
    prompt, corpus = build.inputs(chosen, *map(Path, chosen.prompts))
    ids = [example.id for example in corpus.pool.examples]
    if uid is not None and uid not in ids:
        raise DataError(f"{chosen.data.pool}: no row with id {uid!r} in the pool; the first are {', '.join(ids[:3])}")
    if run and _is_held_to_json(run):
        prompt = prompt.in_json()
    row = 0 if uid is None else ids.index(uid)
    shown = readers.shown_as_asked(chosen, prompt, _shown(run, chosen, prompt, corpus, row) if run else ())
    asking, questions = readers.as_asked(chosen, prompt, Pool((corpus.pool[row],)))
    if not len(questions):
        raise DataError(f"{chosen.data.pool}: the row {ids[row]!r} has no candidate, and nothing is asked about it")
    asked = [each.request(questions[0], shown) for each in asking.wordings]
    if as_json:
        first, *others = [{"messages": [asdict(m) for m in each.messages], "choices": each.choices} for each in asked]
        typer.echo(json.dumps({"id": ids[row], **first, **({"paraphrases": others} if others else {})}))
        return
    for wording, request in zip(prompt.wordings, asked, strict=True):
        if prompt.paraphrases:
            typer.echo(f"━━ {wording.path.name} " + "━" * max(0, 40 - len(wording.path.name)))
        for message in request.messages:
            typer.echo(f"── {message.role} " + "─" * (40 - len(message.role)))
            typer.echo(printable(message.content))
        if not request.choices:
            typer.echo(f"── to be written, in at most {request.max_tokens} tokens " + "─" * 3)
            continue
        typer.echo("── choices " + "─" * 33)
        typer.echo("\n".join(request.choices))
    if not run and isinstance(chosen.llm, settings.OpenAIConfig) and chosen.llm.structured and _has_json(asking):
        typer.echo("a server that keeps to a schema is asked in JSON; which does is found out when it is asked")
    if len(questions) > 1:
        told = ", ".join(each.fields["words"] for each in questions.examples[1:])
        some = readers.worth_asking(chosen, prompt) < 1
        which = "those of the other candidates that are like the names listed" if some else "the other candidates"
        typer.echo(f"and so for {which}: {told}")
    if prompt.task.questions > 1:
        typer.echo(f"and so for each of the {prompt.task.questions} labels: {', '.join(prompt.labels)}")


def _is_held_to_json(run: Path) -> bool:
    """Whether the server of `run` keeps to a schema, and so is asked in JSON, as its ledger remembers."""
    from freeal.ledger import FILE, WAYS, Ledger

    if not (run / FILE).is_file():
        return False
    with Ledger(run / FILE, read_only=True) as ledger:
        known = ledger.recall(WAYS)
    return isinstance(known, dict) and bool(known.get("ways", {}).get("schema"))


def _has_json(prompt: Prompt) -> bool:
    """Whether replies to `prompt` may also be written as JSON."""
    return prompt.in_json().task.form is not None


def _shown(run: Path, config: Config, prompt: Prompt, corpus: Corpus, row: int) -> Sequence[Demonstration]:
    """What the next round of `run` would show with `row`."""
    import numpy as np

    from freeal import prompts
    from freeal.events import ignore
    from freeal.parts import decisions, students
    from freeal.store import PROMPT, RunStore, kept_settings

    kept_settings(run)
    then = prompts.load(run / PROMPT).labels
    if tuple(then) != tuple(prompt.labels):
        raise RunError(
            f"{run}: its labels are {', '.join(then)}, and those of {prompt.path} are {', '.join(prompt.labels)}; "
            "its demonstrations are for a prompt with the same labels"
        )
    store = RunStore(run, prompt.task, tuple(example.id for example in corpus.pool.examples))
    state = store.resume()
    if state is None:
        raise RunError(f"{run}: no finished round, so no demonstrations yet")
    vectors = partial(students.embedder, config, prompt, ignore)
    demos = decisions.demonstrations(config, prompt, lambda requests: [], vectors, ignore)
    return demos.retrieve(corpus.pool, np.array([row]), state)[0]
