"""`freeal predict`: the student of a run on new texts; no LLM is asked."""

from __future__ import annotations

import csv
import json
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freeal.cli.options import RunFolder
from freeal.errors import DataError, RunError

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
    wanted = settings.DataConfig(pool=file, **kept | ({"text": text} if text else {}))
    wanted = _with_ids(wanted, task) if uid is None else wanted.model_copy(update={"id": uid or None})
    try:
        corpus = data.load(wanted, task, 0)
    except DataError as error:
        raise DataError(_in_options(str(error))) from error
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


def _with_ids(wanted: DataConfig, task: Task) -> DataConfig:
    """The same with the run's column of ids, where the file has it; else ids are in a column `id`, or hashes."""
    from freeal.tables import open_table

    if wanted.id in (None, "id"):
        return wanted
    table = open_table(wanted.pool, wanted.split, wanted, entities=task.kind == "tokens")
    first = next(iter(table.rows), (0, {}))
    return wanted if wanted.id in first[1] else wanted.model_copy(update={"id": "id"})


def _in_options(problem: str) -> str:
    """What is wrong with a file, by the options of this command in place of settings."""
    for setting, option in (("set data.id to null", "say --id ''"), ("data.id", "--id"), ("data.text", "--text")):
        problem = problem.replace(setting, option)
    return problem


def _probabilities(task: Task, proba: FloatArray) -> dict[str, Any]:
    """Of each label, where there is one label a text, None for an abstention; the cells of other kinds have theirs."""
    if task.kind != "classification":
        return {}
    if math.isnan(proba[0]):
        return {"probabilities": None}
    return {"probabilities": {label: round(float(p), 6) for label, p in zip(task.labels, proba, strict=True)}}
