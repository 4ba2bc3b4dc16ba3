"""A sample for a person to label, and what its answers say of the labels: `audit.csv` and `audit.json` of a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freeal.certificate import Certificate, allocate, certify, draw, more_needed, strata
from freeal.errors import DataError, RunError, did_you_mean
from freeal.report.history import History
from freeal.store import spreadsheet_cell
from freeal.tables import Table, open_sheet
from freeal.types import IntArray, argmax, surest

SHEET, DESIGN = "audit.csv", "audit.json"
ID, TEXT, ANSWER = "id", "text", "label"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows drawn for a person: `strata` (n,) of all rows of the pool, `drawn` a stratum, and the seed."""

    strata: IntArray
    drawn: IntArray
    seed: int

    @property
    def rows(self) -> IntArray:
        """Rows of the pool, in the order of the sheet."""
        return draw(self.drawn, self.strata, self.seed)


def sample(run: History, total: int | None, seed: int) -> Sample:
    """The rows that were drawn of `run`, and as many more as make `total`; the sheet is written, its answers kept.

    The strata are those of the first time, so that the sample stays one if the run goes on.

    Raises:
        RunError: the run has not written its labels yet.
        DataError: the sheet cannot be read, or is there without the file that says how it was drawn.
    """
    if run.task.kind != "classification":
        raise RunError(f"{run.folder}: its task is of kind {run.task.kind}; a certificate is for one label a text")
    if run.texts is None:
        raise RunError(f"{run.folder}: not finished yet; go on with:  freeal run --resume {run.folder}")
    before = _read_design(run)
    if before is not None and (total is None or total <= before.drawn.sum()):
        return before
    sure = np.nan_to_num(surest(run.final.posterior))
    stratum = strata(sure) if before is None else before.strata
    wanted = allocate(min(total or FIRST, len(sure)), stratum)
    if before is not None:
        wanted = np.maximum(wanted, before.drawn)
    if before is None and (run.folder / SHEET).is_file():  # somebody's work may be in it
        raise DataError(
            f"{run.folder / SHEET}: is there, but not the {DESIGN} it was drawn by; move it away to draw anew"
        )
    given = {} if before is None else answers(run, before)
    found = Sample(stratum, wanted, seed if before is None else before.seed)
    _write_sheet(run, found, given)
    design = {"seed": found.seed, "drawn": found.drawn.tolist(), "strata": found.strata.tolist()}
    (run.folder / DESIGN).write_text(json.dumps(design), encoding="utf-8")
    return found


FIRST = 100
"""Rows drawn if nobody says how many."""


def answers(run: History, drawn: Sample) -> dict[int, int]:
    """Row of the pool -> class, of each row of the sheet that has an answer.

    Raises:
        DataError: the sheet is gone, empty or no table, or a row in it is not of the sample, or names no label.
    """
    path = run.folder / SHEET
    if not path.exists():
        raise DataError(f"{path}: is gone; put it back, or {_anew(run, drawn)}")
    table = open_sheet(path)
    places = {str(spreadsheet_cell(run.ids[row])): int(row) for row in drawn.rows}
    classes = {label.casefold(): c for c, label in enumerate(run.labels)}
    classes |= {label: c for c, label in enumerate(run.labels)}  # as written comes first, of labels apart by capitals
    found: dict[int, int] = {}
    rows = list(table.rows)
    if not rows:
        raise DataError(f"{path}: has no row; put back the sheet as it was, or {_anew(run, drawn)}")
    for number, values in rows:
        row = _row_of(table, number, values, places)
        said = str(values.get(ANSWER) or "").strip()
        if not said:
            continue
        written = (said, said.casefold(), said.removeprefix("'"), said.removeprefix("'").casefold())
        answer = next((classes[spelt] for spelt in written if spelt in classes), None)
        if answer is None:
            like = did_you_mean(said, run.labels) or f"; expected one of {', '.join(run.labels)}, or nothing"
            raise table.fault(number, f"{said!r} is no label{like}")
        if found.setdefault(row, answer) != answer:
            raise table.fault(number, f"another answer for {run.ids[row]!r} than further up")
    return found


def _anew(run: History, drawn: Sample) -> str:
    """How to have a sheet again that is lost, and its answers with it."""
    seed = f" --seed {drawn.seed}" if drawn.seed else ""
    files = [SHEET, DESIGN] if (run.folder / SHEET).exists() else [DESIGN]
    command = f"freeal audit {run.folder} --n {drawn.drawn.sum()}{seed}"
    return f"remove {' and '.join(str(run.folder / file) for file in files)} and draw anew:  {command}"


def _row_of(table: Table, number: int, values: Mapping[str, object], places: Mapping[str, int]) -> int:
    if missing := [name for name in (ID, ANSWER) if name not in values]:
        raise table.fault(number, f"no column {missing[0]!r}; expected {ID}, {TEXT} and {ANSWER}")
    uid = str(values[ID])
    if uid not in places:
        raise table.fault(number, f"id {uid!r} is not of the sample{did_you_mean(uid, list(places))}")
    return places[uid]


@dataclass(frozen=True, slots=True)
class Audit:
    """What the answers say: `drawn` rows, `answered` of them; a certificate for the labels of each source.

    `needed`: rows to label besides until the final labels are surely right to `wanted`; None if that is not to be
    expected at all.
    """

    drawn: int
    answered: int
    certificates: Mapping[str, Certificate]
    wanted: float
    needed: int | None


def judge(run: History, drawn: Sample, wanted: float) -> Audit:
    """What the answers in the sheet of `run` say of its labels now.

    Raises:
        DataError: as `answers`.
    """
    given = answers(run, drawn)
    total = int(drawn.drawn.sum())
    if not given:
        return Audit(total, 0, {}, wanted, None)
    rows = np.array(list(given))
    truth = np.array(list(given.values()))
    final = run.final
    spoke = final.annotations.labelled | (final.annotations.asked_in >= 0)
    everywhere = np.ones_like(spoke)
    sources = {"final labels": (final.posterior, everywhere), run.speaker: (final.annotations.proba, spoke)}
    if np.ptp(final.student) > 0:
        sources["student"] = (final.student, everywhere)
    certificates = {}
    for name, (proba, among) in sources.items():
        judged = among[rows]
        if not judged.any():
            continue
        right = argmax(proba[rows[judged]]) == truth[judged]
        places = np.cumsum(among)[rows[judged]] - 1  # among the rows that have a label of this source
        sure = np.nan_to_num(surest(proba[among]))
        certificates[name] = certify(places, right, sure, drawn.strata[among])
    return Audit(
        total, len(given), certificates, wanted, more_needed(certificates["final labels"], wanted, len(run.ids))
    )


def _read_design(run: History) -> Sample | None:
    path = run.folder / DESIGN
    if not path.is_file():
        return None
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = Sample(np.array(kept["strata"], np.int64), np.array(kept["drawn"], np.int64), int(kept["seed"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it and {SHEET} to draw anew") from error
    if len(found.strata) != len(run.ids):
        raise DataError(f"{path}: is of another run: {len(found.strata):,} rows; remove it and {SHEET} to draw anew")
    return found


def _write_sheet(run: History, drawn: Sample, given: Mapping[int, int]) -> None:
    texts: Sequence[str] = run.texts or ()
    path: Path = run.folder / SHEET
    partial = path.with_suffix(".tmp")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([ID, TEXT, ANSWER])
        for row in map(int, drawn.rows):
            answer = run.labels[given[row]] if row in given else ""
            writer.writerow([spreadsheet_cell(value) for value in (run.ids[row], texts[row], answer)])
    partial.replace(path)
