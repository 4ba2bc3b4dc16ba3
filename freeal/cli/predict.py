"""`freeal predict`: the student of a run on new texts; no LLM is asked."""

from __future__ import annotations

import csv
import json
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freeal.cli.options import RunFolder
from freeal.errors import RunError

if TYPE_CHECKING:
    from freeal.config import DataConfig
    from freeal.tasks import Task
    from freeal.types import FloatArray


def predict(
    run: RunFolder,
    file: Annotated[str, typer.Argument(help="Texts: csv, tsv, jsonl, parquet, txt, or a data set.")],
    text: Annotated[str | None, typer.Option("--text", help="Column with the text. Default: as in the run.")] = None,
    uid: Annotated[
        str | None, typer.Option("--id", help="Column with ids; '' numbers texts by content. Default: as in the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON a text, with every probability.")] = False,
) -> None:
    """Label the texts of FILE with the student of RUN: id, label and probability on stdout.

    A row of FILE without text has blank cells (in JSON null), and its place for an id where it has none. As in
    labels.csv, an apostrophe stands before what a spreadsheet would take for a formula (= + - @); not with --json.

    Example: freeal predict runs/quickstart-local-20261122-034700 new.csv > labelled.csv
    """
    import numpy as np

    from freeal import config as settings
    from freeal import data, prompts
    from freeal.cli.console import listening
    from freeal.events import Note
    from freeal.parts import students
    from freeal.store import STUDENT, RunStore, damaged_files, kept_config, spreadsheet_cell
    from freeal.types import surest

    config, chosen = kept_config(run), RunStore(run).result()
    if damaged := damaged_files(chosen, STUDENT):
        raise RunError(
            f"{chosen / damaged[0]}: not as it was written; have the round done again, free of charge:  "
            f"freeal repair {run}  and then  freeal run --resume {run}"
        )
    prompt = prompts.load(run / "prompt.md")
    task = prompt.task
    kept = config.data.model_dump(include={"text", "id", "subset", "split", "encoding", "max_words"})
    told = ({"text": text} if text else {}) | ({} if uid is None else {"id": uid or None})
    wanted = _fitting(settings.DataConfig(pool=file, **kept | told), task, uid is not None)
    corpus = data.load(wanted, task, 0)
    pool, empty, before = corpus.pool, corpus.report.empty, corpus.report.before
    with listening() as emit:
        if empty:
            emit(Note(f"{len(empty)} rows without text have blank cells, first {empty[0]}"))
        proba = students.load_student(config, prompt, chosen / STUDENT, emit).view(pool.inputs()).proba
    ids = np.insert(np.array([example.id for example in pool.examples], object), before, empty)
    texts = np.insert(np.array(pool.texts, object), before, "")
    proba = np.insert(proba, before, np.nan, axis=0)
    writer = csv.writer(sys.stdout)
    best = task.best(proba)
    found = zip(ids, texts, best, proba, surest(proba, best), strict=True)
    for number, (name, words, said, row, sure) in enumerate(found):
        cells = task.cells(words, said, row)
        if as_json:
            typer.echo(json.dumps({"id": name, **cells, **_probabilities(task, row)}, ensure_ascii=False))
            continue
        if number == 0:
            writer.writerow(["id", *cells, "probability"])
        told = "" if np.isnan(sure) else f"{sure:.4f}"
        writer.writerow([*map(spreadsheet_cell, (name, *cells.values())), told])


def _fitting(wanted: DataConfig, task: Task, has_ids: bool) -> DataConfig:
    """The same for the columns that the file has: without the run's column of ids, these are in `id`, or hashes.

    Args:
        has_ids: the column of ids was named for this file.

    Raises:
        RunError: it has no column with the text.
    """
    from freeal.tables import open_table

    table = open_table(wanted.pool, wanted.split, wanted, entities=task.kind == "tokens")
    _, first = next(iter(table.rows), (0, {wanted.text: ""}))
    if (
        len(first) > 1
        and wanted.text not in first
        and not (task.kind == "tokens" and {"text", "tokens"} & first.keys())
    ):
        there = ", ".join(map(repr, first))
        raise RunError(f"{table.name}: there is no column {wanted.text!r}; there are {there}: name one with --text")
    return wanted if has_ids or wanted.id is None or wanted.id in first else wanted.model_copy(update={"id": "id"})


def _probabilities(task: Task, proba: FloatArray) -> dict[str, Any]:
    """Of each label, where there is one label a text, None for an abstention; the cells of other kinds have theirs."""
    if task.kind != "classification":
        return {}
    if math.isnan(proba[0]):
        return {"probabilities": None}
    return {"probabilities": {label: round(float(p), 6) for label, p in zip(task.labels, proba, strict=True)}}
