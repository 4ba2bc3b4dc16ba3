"""`freeal explain`: why a row has the label it has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from freeal.cli.options import AsJson, RunFolder

if TYPE_CHECKING:
    from freeal.report.explain import Chosen, Explanation, Question, Said

MOST = 3
"""Labels of a distribution that are told, and all that are likelier than not; `--json` has the others, too."""


def explain(
    run: RunFolder,
    uid: Annotated[
        str, typer.Argument(metavar="ID", help="The row's id, as in labels.csv; behind -- if it begins with -.")
    ],
    chats: Annotated[bool, typer.Option("--chats", help="Print the whole chats as they were sent, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell the whole history of one row: what was asked, what LLM and student said, and why its label was accepted.

    Example: freeal explain runs/quickstart-local-20261122-034700 t017
    """
    from dataclasses import asdict

    from freeal.report import explain as tell
    from freeal.report import history

    found = tell.explain(history.read(run), uid)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
        return
    typer.echo("\n".join([*lines(found), *(_chats(found) if chats else ())]))


def lines(found: Explanation) -> list[str]:
    """The history as people read it."""
    told = [f"{found.id}: {found.text}" if found.text else found.id, ""]
    wide = max(len("student"), len(found.speaker))
    if found.first:
        told.append(f"first word of the LLM{', raw' if found.first_is_raw else ''}: {_some(found.first)}")
    for each in found.rounds:
        told += [
            "",
            f"round {each.number}: {each.label or 'no label'} (source: {each.source})"
            + (": the result" if each.number == found.result < len(found.rounds) - 1 else ""),
            f"  {each.reason}",
            f"  {found.speaker:<{wide}}  {_some(each.llm)}{'' if each.asked else ' (not asked in this round)'}",
            f"  {'student':<{wide}}  {_some(each.student)}",
            f"  {'final':<{wide}}  {_some(each.final)}",
        ]
        if each.loss is not None:
            told.append(f"  loss {each.loss:.3f} nats, P(clean) {each.p_clean:.2f}")
    if found.demonstrates:
        told += ["", *(_chosen(each) for each in found.demonstrates)]
    told += [f"guidelines {number}: quoted as a text on which annotators differ" for number in found.disputed]
    for question in found.questions:
        shown = sum(role == "assistant" for role, _ in question.messages)
        asked = "asked" if question.work.startswith("round ") else "asked to compare meanings,"
        answer = question.problem or repr(question.reply)
        told.append(f"{_question(question)}: {asked} with {shown} demonstrations; reply: {answer}")
        told += [f"  left out: {words!r}, {cause}" for words, cause in question.left_out]
    return told


def _chosen(each: Chosen) -> str:
    told = f"in the demonstration pool of round {each.round} as {each.label!r}"
    if each.shown is None:
        return told
    return f"{told}, shown in round {each.round + 1}" if each.shown else f"{told}, shown to nobody"


def _chats(found: Explanation) -> list[str]:
    told = []
    for question in found.questions:
        told += ["", f"--- {_question(question)}"]
        told += [f"[{role}]\n{content}" for role, content in question.messages]
    return told


def _question(question: Question) -> str:
    return question.work if question.about is None else f"{question.work}, {question.about!r}"


def _some(said: Said) -> str:
    if not said:
        return "nothing"
    told = max(MOST, sum(probability > 0.5 for probability in said.values()))
    named = [f"{label} {probability:.3f}" for label, probability in list(said.items())[:told]]
    return ", ".join(named) + (", …" if len(said) > told else "")
