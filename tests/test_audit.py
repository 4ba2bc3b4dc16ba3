"""`freeal audit`: a sheet for a person, and what its answers say."""

import csv
import json
import shutil

import numpy as np
import pytest
from commandline import films, freeal, opinions

from freeal.certificate import certify
from freeal.report import audit as audits
from freeal.report import history
from freeal.types import argmax, surest


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run without gold, and the truth of each row."""
    folder = tmp_path_factory.mktemp("films")
    rows = opinions(80)
    films(folder, [{"id": row["id"], "text": f"={row['text']}"} for row in rows])
    assert freeal("run", folder / "films.yaml", "--out", folder / "run").code == 0
    return folder / "run", {row["id"]: row["gold"] for row in rows}


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def sheet(run):
    with (run / "audit.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(run, truth, most=1000):
    rows = [{**row, "label": truth[row["id"]] if i < most else ""} for i, row in enumerate(sheet(run))]
    with (run / "audit.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_sheet_holds_no_label_to_lean_on_and_no_formula(run):
    said = freeal("audit", run, "--n", 20)
    assert said.code == 0
    assert "with one of: good, bad" in said.out
    rows = sheet(run)
    assert len(rows) >= 20
    assert all(row["label"] == "" and row["text"].startswith("'=film") for row in rows)


def test_all_answers_give_the_accuracy_itself(run, finished):
    freeal("audit", run, "--n", 80)
    fill(run, finished[1])
    found = json.loads(freeal("audit", run, "--json").out)
    with (run / "labels.csv").open(encoding="utf-8", newline="") as file:
        right = [row["label"] == finished[1][row["id"]] for row in csv.DictReader(file)]
    assert found["answered"] == 80
    assert found["certificates"]["final labels"]["estimate"] == pytest.approx(sum(right) / 80)
    assert set(found["certificates"]) == {"final labels", "LLM", "student"}


def test_each_source_is_judged_by_its_own_probabilities(run):
    found = history.read(run)
    student, sure = found.final.student, surest(found.final.student)
    right = sure > np.median(sure)
    truth = np.where(right, argmax(student), 1 - argmax(student))
    freeal("audit", run, "--n", 40)
    fill(run, {uid: found.labels[c] for uid, c in zip(found.ids, truth, strict=True)})
    drawn = audits.sample(found, None, 0)
    told = audits.judge(found, drawn, 0.9).certificates["student"]
    by_row = np.array(list(audits.answers(found, drawn)))
    assert told == certify(by_row, right[by_row], sure, drawn.strata)
    assert told.estimate != certify(by_row, right[by_row], np.full(len(sure), 0.9), drawn.strata).estimate


def test_more_rows_may_be_drawn_and_answers_stay(run, finished):
    freeal("audit", run, "--n", 30)
    fill(run, finished[1])
    before = {row["id"]: row["label"] for row in sheet(run)}
    assert freeal("audit", run, "--n", 60).code == 0
    after = {row["id"]: row["label"] for row in sheet(run)}
    assert len(after) >= 60
    assert before.items() <= after.items()
    assert sum(not label for label in after.values()) == len(after) - len(before)


def test_some_answers_are_enough(run, finished):
    freeal("audit", run, "--n", 40)
    fill(run, finished[1], most=25)
    said = freeal("audit", run, "--at-least", 0.5)
    assert said.code == 0
    assert "25 of 40 drawn rows are labelled by a person" in said.out
    assert "final labels" in said.out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace(",bad", ",baad"), "'baad' is no label; did you mean 'bad'?"),
        (lambda text: text.replace("r", "x", 1).replace("\nr", "\nzz", 1), "is not of the sample"),
        (lambda text: text.replace("id,text,label", "id,text,answer"), "no column 'label'"),
    ],
)
def test_a_sheet_that_cannot_be_read_is_told_with_its_line(run, finished, change, told):
    freeal("audit", run, "--n", 20)
    fill(run, finished[1])
    path = run / "audit.csv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    said = freeal("audit", run)
    assert said.code == 2
    assert told in said.err
    assert "line " in said.err


def test_more_rows_than_asked_for_are_drawn_with_the_reason(run):
    said = freeal("audit", run, "--n", 20)
    assert "25 rows are drawn, not 20: 5 at least of each of 5 parts of the pool" in said.out
    assert "at least of each" not in freeal("audit", run).out


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (0.5, "label 2 rows more to be sure of 50 %, if they turn out like these: 26 drawn rows are still blank"),
        (0.9, "26 drawn rows are still blank, for the others:  freeal audit {run} --n {total} --at-least 0.9"),
    ],
)
def test_what_is_still_to_label_is_told_with_the_rows_that_are_blank_and_the_command(run, finished, wanted, told):
    freeal("audit", run, "--n", 30)
    with (run / "labels.csv").open(encoding="utf-8", newline="") as file:
        fill(run, {row["id"]: row["label"] for row in csv.DictReader(file)}, most=4)
    found = json.loads(freeal("audit", run, "--at-least", wanted, "--json").out)
    said = freeal("audit", run, "--at-least", wanted)
    assert told.format(run=run, total=4 + found["needed"]) in said.out


@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (lambda sheet: sheet.unlink(), "audit.csv: is gone; put it back, or remove {run}/audit.json and draw anew:"),
        (lambda sheet: sheet.write_bytes(b""), "has no row; put back the sheet as it was, or remove {run}/audit.csv"),
        (lambda sheet: sheet.write_text("id,text,label\n"), "and {run}/audit.json and draw anew:"),
    ],
)
def test_a_sheet_that_is_lost_is_told_with_the_way_to_a_new_one(run, lose, told):
    freeal("audit", run, "--n", 30, "--seed", 3)
    before = (run / "audit.csv").read_bytes()
    lose(run / "audit.csv")
    said = freeal("audit", run)
    assert said.code == 2
    assert told.format(run=run) in said.err
    assert f"draw anew:  freeal audit {run} --n 30 --seed 3" in said.err
    (run / "audit.json").unlink()
    (run / "audit.csv").unlink(missing_ok=True)
    assert freeal("audit", run, "--n", 30, "--seed", 3).code == 0
    assert (run / "audit.csv").read_bytes() == before


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_sheet_may_come_back_as_a_spreadsheet_program_saves_it(run, finished, encoding, separator):
    freeal("audit", run, "--n", 30)
    rows = [{**row, "label": finished[1][row["id"]], "text": "café; naïve, 'so'\t"} for row in sheet(run)]
    with (run / "audit.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    assert "30 of 30 drawn rows are labelled by a person" in freeal("audit", run).out


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("latin-1", "line 2: byte 20 (b'\\xe9') is no utf-8; save it as UTF-8"),
        ("utf-16-le", "looks like utf-16-le, unmarked; save it as UTF-8"),
    ],
)
def test_a_sheet_in_another_encoding_is_told_with_the_mend(run, encoding, told):
    freeal("audit", run, "--n", 30)
    (run / "audit.csv").write_text(f"id,text,label\nr1,café,{'good' * 9}\n", encoding=encoding)
    said = freeal("audit", run)
    assert said.code == 2
    assert told in said.err
    assert "data.encoding" not in said.err


def test_an_answer_may_be_written_with_other_capitals(run, finished):
    freeal("audit", run, "--n", 20)
    fill(run, {uid: label.upper() for uid, label in finished[1].items()})
    assert "labelled by a person" in freeal("audit", run).out


def test_a_sheet_is_never_written_over_with_answers_in_it(run, finished):
    freeal("audit", run, "--n", 20)
    fill(run, finished[1])
    before = (run / "audit.csv").read_bytes()
    (run / "audit.json").unlink()
    said = freeal("audit", run, "--n", 20)
    assert said.code == 2
    assert "move it away to draw anew" in said.err
    assert (run / "audit.csv").read_bytes() == before


def test_the_llm_is_certified_for_the_rows_that_it_was_asked_about(tmp_path):
    rows = opinions(80)
    films(tmp_path, [{"id": row["id"], "text": row["text"]} for row in rows])
    assert freeal("run", tmp_path / "films.yaml", "--out", tmp_path / "run", "--max-calls", 50).code == 0
    freeal("audit", tmp_path / "run", "--n", 80)
    fill(tmp_path / "run", {row["id"]: row["gold"] for row in rows})
    found = json.loads(freeal("audit", tmp_path / "run", "--json").out)["certificates"]
    assert (found["LLM"]["rows"], found["final labels"]["rows"]) == (50, 80)
    assert found["LLM"]["estimate"] > 0.7, "rows that it was not asked about are no mistakes of it"
