"""C. Answers: faults 24 to 30 of the matrix."""

from __future__ import annotations

import csv
import json

import pytest
from conftest_faults import ROWS, WORDS, plan, text_of
from pyarrow import parquet

from freeal.testing.plans import Content, Finish, PartialLogprobs, Plan, Refusal, Rule, Status

CORRECTION = "none of the labels"
FREE = ("drop_logprobs", "ignore_constraint")


def small(n=20):
    return [{"id": f"r{i}", "text": text_of(i)} for i in range(n)]


def asked_about_r3(bench):
    """Times the row was asked about, corrections included: their last message is not the text of the row."""
    attempts = bench.server.stats().attempts
    return attempts["r3"] + sum(count for uid, count in attempts.items() if CORRECTION in uid)


def says(text, **where):
    """A free reply, without probabilities."""
    return Rule((Content(text), "drop_logprobs"), **where)


@pytest.mark.parametrize("text", ['```json\n{"label": "good"}\n```', '"good"', "Good.", " **GOOD** ", "label: good"])
def test_24_decorated_replies_are_read(bench, text):
    bench.server.set_plan(plan(says(text, uid="r3"), Rule(FREE)))
    assert bench.begin(rows=small()).code == 0
    assert bench.server.stats().attempts["r3"] == 1
    assert bench.check(20)["rows"] == {"labelled": 20}


@pytest.mark.parametrize(
    "text", ["I think it may be good, or bad.", '{"label": "good"} {"label": "bad"}', "goodish", "none"]
)
def test_27_ambiguous_replies_are_asked_once_more_and_then_skipped(bench, text):
    bench.server.set_plan(plan(says(text, uid="r3"), says(text, substring=CORRECTION), Rule(FREE)))
    assert bench.begin(rows=small()).code == 0
    assert bench.check(20)["rows"] == {"failed: not a label": 1, "labelled": 19}
    assert asked_about_r3(bench) == 2


def test_27_a_correction_is_heard(bench):
    bench.server.set_plan(plan(says("Hard to say", uid="r3", attempt=1), Rule(FREE)))
    assert bench.begin(rows=small()).code == 0
    assert bench.check(20)["rows"] == {"labelled": 20}


def test_24_kept_replies_are_read_again_without_asking(bench):
    bench.server.set_plan(plan(says("Hard to say", uid="r3"), Rule(FREE)))
    assert bench.begin(rows=small()).code == 0
    before = bench.server.stats().requests
    said = bench.run("reparse", bench.run_folder, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["replies"] == 21
    assert json.loads(said.out)["changed"] == 0
    assert bench.server.stats().requests == before


@pytest.mark.parametrize("content", [Content(""), Content(None), Content("  \n")])
def test_25_an_empty_reply_is_asked_once_more_and_then_skipped(bench, content):
    empty = (content, "drop_logprobs")
    bench.server.set_plan(plan(Rule(empty, uid="r3"), Rule(empty, substring=CORRECTION)))
    assert bench.begin(rows=small()).code == 0
    assert bench.check(20)["rows"] == {"failed: empty reply": 1, "labelled": 19}
    assert asked_about_r3(bench) == 2


FILTERED = {"error": {"message": "The response was filtered", "code": "content_filter"}}


@pytest.mark.parametrize(
    "action", [Refusal("I cannot"), Finish("content_filter"), Status(400, {}, json.dumps(FILTERED))]
)
def test_26_a_refusal_is_taken_for_an_answer(bench, action):
    bench.server.set_plan(plan(Rule(action, uid="r3")))
    assert bench.begin(rows=small()).code == 0
    assert bench.check(20)["rows"] == {"failed: refused": 1, "labelled": 19}
    assert bench.server.stats().attempts["r3"] == 1
    before = bench.server.stats().requests
    assert bench.resume().code == 0
    assert bench.server.stats().requests == before


NASTY = (
    "very, good",
    "very, bad",
    "🎬",
    "[/x]",
    "=cmd",
    "../a",
    "a 'quoted' one",
    "no",
    "1",
    "x\ty",
    "größe",
    "%s {label}",
)


def test_28_nasty_labels_come_through_everything(bench):
    bench.prompt(*NASTY)
    words = {label: [f"word{i}x"] for i, label in enumerate(NASTY)}
    rows = [{"id": f"r{i}", "text": f"text {i} word{i % 12}x", "gold": NASTY[i % 12]} for i in range(36)]
    bench.server.set_plan(Plan(keywords=words, rows={row["text"]: row["id"] for row in rows}))
    said = bench.begin(rows=rows, data={"pool": "pool.jsonl", "gold": "gold"})
    assert said.code == 0, said.err
    table = parquet.read_table(bench.run_folder / "labels.parquet").to_pydict()
    assert table["label"] == [row["gold"] for row in rows]
    with (bench.run_folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert [row["label"].lstrip("'") for row in csv.DictReader(file)] == [row["gold"] for row in rows]
    assert bench.run("show", bench.run_folder).code == 0
    bench.check(36)


@pytest.mark.parametrize("labels", [("Good", "good"), ("good", "good ")])
def test_28_labels_that_read_the_same_are_refused(bench, labels):
    bench.prompt(*labels)
    assert bench.begin().code == 2


@pytest.mark.parametrize("action", ["drop_logprobs", PartialLogprobs(1), "neg_inf_logprob"])
def test_29_missing_probabilities_are_no_zero(bench, action):
    bench.server.set_plan(plan(Rule(action, every=3)))
    assert bench.begin().code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    table = parquet.read_table(bench.run_folder / "rounds/00/annotations.parquet").to_pydict()
    assert all(0 < value < 1 for value in table["llm: good"])
    assert "NaN" not in (bench.run_folder / "summary.json").read_text(encoding="utf-8")


def test_30_a_text_that_is_too_long_is_cut_and_told(bench):
    bench.server.set_plan(Plan(keywords=WORDS, context=64))
    rows = [*small(5), {"id": "long", "text": "a fine film " * 400}]
    assert bench.begin(rows=rows).code == 0
    assert bench.check(6)["rows"] == {"labelled": 6}
    assert "1 rows were too long" in (bench.run_folder / "events.jsonl").read_text(encoding="utf-8")


def test_30_a_text_that_cannot_be_cut_is_skipped(bench):
    bench.server.set_plan(Plan(keywords=WORDS, context=64))
    rows = [*small(5), {"id": "long", "text": "x" * 4000}]
    assert bench.begin(rows=rows).code == 0
    assert bench.check(6)["rows"] == {"failed: too long": 1, "labelled": 5}


def test_24_a_reply_that_is_cut_off_is_given_more_room(bench):
    bench.server.set_plan(
        plan(Rule((Content("Let me think about"), Finish("length"), "drop_logprobs"), uid="r3", attempt=1))
    )
    assert bench.begin(rows=small()).code == 0
    assert bench.check(20)["rows"] == {"labelled": 20}
