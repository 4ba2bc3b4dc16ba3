"""`freeal export`: a run's labels in the form other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from freeal.cli.options import RunFolder
from freeal.errors import RunError, did_you_mean

ENDINGS = {
    ".conll": "conll", ".bio": "conll", ".iob": "conll", ".iob2": "conll",
    ".jsonl": "jsonl", ".json": "label-studio", ".spacy": "spacy",
}  # fmt: skip
FORMS = ("conll", "jsonl", "hf", "label-studio", "spacy")


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(help="File or folder to write.")],
    form: Annotated[
        str, typer.Option("--to", help="conll, jsonl, hf (a folder), label-studio or spacy. Default: by OUT's ending.")
    ] = "",
    language: Annotated[
        str, typer.Option(help="spacy: whose rules cut texts into tokens: en, de; xx: of many.")
    ] = "xx",
    force: Annotated[bool, typer.Option("--force", help="Replace what is at OUT.")] = False,
) -> None:
    """Write the entities of RUN as CoNLL, jsonl, a Hugging Face data set, Label Studio tasks or a spaCy DocBin.

    A pool that was given as tokens keeps them, and entities are widened to whole ones. Their probabilities are kept
    where the form has a place for them: jsonl, hf and label-studio. For tasks of kind tokens; of the others
    labels.parquet and labels.csv in RUN are the product.

    Examples:

      freeal export runs/conll03-local-20261123-0347 names.conll

      freeal export runs/conll03-local-20261123-0347 names --to hf
    """
    from freeal import formats, rows
    from freeal.report import history
    from freeal.tasks.tokens import Tokens
    from freeal.types import surest

    found = history.read(run)
    task = found.task
    if not isinstance(task, Tokens):
        raise RunError(f"{run}: its task is of kind {task.kind}; take {run / 'labels.parquet'} or labels.csv")
    if found.texts is None:
        raise RunError(f"{run}: not finished yet; go on with:  freeal run --resume {run}")
    _check_free(out, run, force)
    name = form or ENDINGS.get(out.suffix.lower(), "")
    proba = found.final.posterior
    labels = task.best(proba)
    sentences = [
        formats.Sentence.of(uid, text, task.cells(text, best, of_row)["spans"], sure, tokenized)
        for uid, text, best, of_row, sure, tokenized in zip(
            found.ids, found.texts, labels, proba, surest(proba, labels), rows.tokenized(run), strict=True
        )
    ]
    match name:
        case "conll":
            lost = formats.write_conll(out, sentences)
        case "jsonl":
            lost = formats.write_jsonl(out, sentences)
        case "hf":
            lost = formats.save_dataset(out, sentences, list(task.labels))
        case "label-studio":
            lost = formats.write_label_studio(out, sentences)
        case "spacy":
            lost = formats.write_spacy(out, sentences, language)
        case _:
            what = f"--to {name}: no such form" if name else f"{out}: its ending tells no form"
            raise RunError(f"{what}{did_you_mean(name, FORMS)}; say --to with one of {', '.join(FORMS)}")
    entities = sum(len(each.spans or ()) for each in sentences)
    there = " in its tags" if name == "hf" else ""  # its spans have them all, as they are
    told = {
        f"{lost.sentences:,} without labels": lost.sentences,
        f"{lost.widened:,} of them widened to whole tokens{there}": lost.widened,
        f"{lost.entities:,} of them left out{there}: they share a token with a longer one": lost.entities,
    }
    written = f"{len(sentences) - lost.sentences:,} texts with {entities:,} entities: {out}"
    typer.echo("; ".join([written, *(what for what, count in told.items() if count)]))


def _check_free(out: Path, run: Path, force: bool) -> None:
    """Make sure that nothing is lost by writing `out`.

    Raises:
        RunError: its folder is missing, something is there, or, with or without `force`, it holds what the run reads.
    """
    from freeal.config import RecordedConfig
    from freeal.store import kept_config

    config, target = kept_config(run), out.resolve()
    replies = [llm.replies for llm in (config.llm, *config.panel) if isinstance(llm, RecordedConfig)]
    for read in (run, config.data.pool, config.data.test, *config.prompts, *replies):
        place = Path(read or run).resolve()
        if place.exists() and (place.is_relative_to(target) or target.is_relative_to(place)):
            raise RunError(f"{out}: the run needs {place}; name another place for its labels")
    if not target.parent.is_dir():
        raise RunError(f"{out}: there is no folder {target.parent}; make it first")
    if out.exists() and not (out.is_file() or out.is_dir()):
        raise RunError(f"{out}: a device or pipe; name a file or folder")
    inside = [each.name for each in target.iterdir()] if target.is_dir() else []
    if inside and "state.json" not in inside:
        raise RunError(f"{out}: a folder with other things than a data set; name another")
    if (inside or target.is_file()) and not force:
        raise RunError(f"{out}: is there already; say --force to replace it, or name another")
