"""`freeal predict`: the student of a run on new texts; no LLM is asked."""

from __future__ import annotations

import csv
import json
import sys
from typing import Annotated

import typer

from freeal.cli.options import RunFolder
from freeal.errors import RunError


def predict(
    run: RunFolder,
    file: Annotated[str, typer.Argument(help="Texts: csv, tsv, jsonl, parquet, txt, or a data set.")],
    text: Annotated[str | None, typer.Option("--text", help="Column with the text. Default: as in the run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON a text, with every probability.")] = False,
) -> None:
    """Label the texts of FILE with the student of RUN: id, label and probability on stdout.

    Example: freeal predict runs/quickstart-local-20261122-034700 new.csv > labelled.csv
    """
    import yaml

    from freeal import build, data, prompts
    from freeal import config as settings
    from freeal.cli.console import listening
    from freeal.store import STUDENT, RunStore, damaged_files

    chosen = RunStore(run, (), ()).result()
    if damaged := damaged_files(chosen, STUDENT):
        raise RunError(
            f"{chosen / damaged[0]}: not as it was written; have the round done again, free of charge:  "
            f"freeal repair {run}  and then  freeal run --resume {run}"
        )
    config = settings.parse(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")), str(run))
    labels = list(prompts.load(run / "prompt.md").labels)
    wanted = settings.DataConfig(pool=file, text=text or config.data.text, max_words=config.data.max_words)
    pool = data.load(wanted, labels, 0).pool
    with listening() as emit:
        proba = build.load_student(config, chosen / STUDENT, emit).view(pool.inputs()).proba
    writer = csv.writer(sys.stdout)
    if not as_json:
        writer.writerow(["id", "label", "probability"])
    for example, row in zip(pool.examples, proba, strict=True):
        best = int(row.argmax())
        if as_json:
            each = {label: round(float(p), 6) for label, p in zip(labels, row, strict=True)}
            typer.echo(json.dumps({"id": example.id, "label": labels[best], "probabilities": each}, ensure_ascii=False))
        else:
            writer.writerow([example.id, labels[best], f"{row[best]:.4f}"])
