"""Tasks that need several decisions a row go the whole way: entities, and any number of labels a text."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from commandline import freeal, undocumented
from pyarrow import parquet

from freeal import build, config, prompts, study
from freeal.config import DataConfig
from freeal.data import load
from freeal.errors import PromptError
from freeal.ledger import Ledger
from freeal.parts import decisions
from freeal.report import history, page
from freeal.select.reasons import sources
from freeal.store import read_table
from freeal.tables import open_table
from freeal.tasks.classification import Classification
from freeal.tasks.multilabel import Multilabel
from freeal.tasks.spans import chunks
from freeal.tasks.tokens import Tokens
from freeal.testing import faultllm
from freeal.testing.plans import Content, Plan, Rule
from freeal.types import Annotations, alike, argmax

PEOPLE, PLACES = ["Ann Lee", "Bob", "Carla Diaz"], ["Rome", "Lake Como", "Peru"]
FRAMES = ("{p} went to {l} .", "{p} met {q} in {l} .", "It rained all day .", "In {l} , {p} slept .", "Nobody spoke .")
TOKENS = """---
task: tokens
labels: {PER: a person, LOC: a place}
---
## user
Mark the names: {{ text }}

## assistant
{{ entities }}
"""
TOPICS = {"price": ["cheap", "money"], "speed": ["fast", "slow"], "looks": ["ugly", "pretty"]}
SETS = """---
task: multilabel
labels: [price, speed, looks]
---
## user
Review: {{ text }}
Is it about {{ label }}?

## assistant
{{ answer }}
"""


def sentences(count):
    """Rows with tokens and BIO tags."""
    rows = []
    for i in range(count):
        tokens, tags = [], []
        for part in FRAMES[i % len(FRAMES)].split():
            names = {"{p}": PEOPLE, "{q}": PEOPLE[::-1], "{l}": PLACES}.get(part)
            words = names[(i // 2) % 3].split() if names else [part]
            kind = "LOC" if part == "{l}" else "PER"
            tokens += words
            tags += [f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)] if names else ["O"]
        rows.append({"id": f"s{i}", "tokens": tokens, "tags": tags})
    return rows


def reviews(count):
    """Rows with any number of topics."""
    rows = []
    for i in range(count):
        there = [name for place, name in enumerate(TOPICS) if (i >> place) & 1]
        words = " and ".join(TOPICS[name][i % 2] for name in there) or "a thing"
        rows.append({"id": f"r{i}", "text": f"number {i}: {words}", "topics": there})
    return rows


def configured(folder, rows, test, prompt, gold, keywords, **settings):
    for name, some in (("pool", rows), ("test", test)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    (folder / "prompt.md").write_text(prompt, encoding="utf-8")
    chosen = {
        "prompt": "prompt.md", "data": {"pool": "pool.jsonl", "test": "test.jsonl", "gold": gold},
        "llm": {"kind": "scripted", "keywords": keywords, "noise": 0.2, "probabilities": gold == "topics"},
        "embedder": {"kind": "tfidf"}, "stop": {"min_change": 0.0}, **settings,
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(chosen), encoding="utf-8")
    return folder / "job.yaml"


@pytest.fixture(scope="module")
def marked(tmp_path_factory, tiny_encoder):
    """A run on sentences, its student a real tagger."""
    folder = tmp_path_factory.mktemp("names")
    tagger = {"kind": "tagger", "model": str(tiny_encoder), "epochs": 2, "min_steps": 0, "device": "cpu"}
    names = {"PER": PEOPLE, "LOC": PLACES}
    job = configured(folder, sentences(40), sentences(60)[40:], TOKENS, "tags", names, student=tagger)
    return job, folder / "run", freeal("run", job, "--out", folder / "run")


@pytest.fixture(scope="module")
def sorted_(tmp_path_factory):
    """A run on reviews with any number of topics."""
    folder = tmp_path_factory.mktemp("topics")
    linear = {"kind": "linear"}
    job = configured(folder, reviews(64), reviews(96)[64:], SETS, "topics", TOPICS, student=linear)
    return job, folder / "run", freeal("run", job, "--out", folder / "run")


def summary(run):
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))


def labels(run):
    with (run / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["marked", "sorted_"])
def test_a_run_goes_through_and_is_measured_by_f1(kind, request):
    _, run, said = request.getfixturevalue(kind)
    assert said.code in (0, 3), said.err
    found = summary(run)
    assert found["data"]["task"] == ("tokens" if kind == "marked" else "multilabel")
    for place in ("pool", "test"):
        for who in ("zero_shot", "llm", "student", "final"):
            assert 0 <= found[place][who]["micro_f1"] <= 1
    assert found["pool"]["llm"]["micro_f1"] > 0.6
    assert "zero-shot F1" in said.out
    assert "| F1 | precision | recall |" in (run / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["marked", "sorted_"])
def test_every_key_of_its_summary_is_documented(kind, request):
    assert undocumented(request.getfixturevalue(kind)[1]) == set()


def test_an_ablation_leaves_out_what_entities_do_not_have(marked, sorted_):
    of_entities, of_topics = (
        {each.name: why for each in study.ablated() if (why := study.without_part(run[0], run[1].parent, each, ()))}
        for run in (marked, sorted_)
    )
    told = "a task of kind tokens has no such part"
    assert {name for name, why in of_entities.items() if why == told} == {
        "default, as sure as it says", "default, as sure as the pool", "default, no understudy",
        "default, taste not asked for",
    }  # fmt: skip
    written = "answers that are written have no such part"
    assert {name for name, why in of_entities.items() if why == written} == {
        "default, as rare as it comes out", "default, no names listed",
    }  # fmt: skip
    judged = study.methods(["default, no names listed"])[0]
    assert study.without_part(marked[0], marked[1].parent, judged, ["reading=names"]) is None
    assert "default, as sure as it says" not in of_topics


@pytest.mark.parametrize("kind", ["agreement", "confident"])
def test_a_sentence_is_believed_where_llm_and_student_mark_the_same_entities(marked, kind):
    chosen = config.load(marked[0], [f"belief.kind={kind}", "belief.share=1.0"])
    llm = np.array([[[0.4, 0.6, 0.0], [0.3, 0.0, 0.7]]] * 2, np.float32)
    student = np.array([[[0.6, 0.4, 0.0], [0.1, 0.0, 0.9]], [[0.4, 0.6, 0.0], [0.6, 0.0, 0.4]]])  # O, I is no marking
    said = replace(Annotations.none(2, (2, 3)), proba=llm)
    assert decisions.believe(said, student, np.ones(2, bool), chosen, Tokens({"PER": ""})).tolist() == [True, False]


def test_who_marks_the_same_entities_disputes_nothing_and_every_label_is_both_ones(marked):
    run = history.read(marked[1])
    said = run.final.annotations.proba
    student = 0.9 * np.eye(said.shape[-1], dtype=np.float32)[run.task.best(said)] + 0.02
    wavers = (run.task.best(said) > 0) & (np.roll(run.task.best(said), -1, axis=1) % 2 == 0)
    wavers &= np.roll(run.task.best(said), -1, axis=1) > 0  # a B before an I
    student[wavers, 0] = student[wavers].max(axis=1) + 0.01  # the likeliest tag is O; O, I is none
    assert not alike(argmax(said), argmax(student)).all()
    same = replace(run, states=[replace(run.final, student=student, posterior=said)], result=0)
    assert page.disputed(same) == []
    assert set(sources(same.final, run.task.best)) == {"both"}


@pytest.mark.parametrize("place", ["pool", "test"])
def test_what_is_wrong_with_the_entities_is_told_by_kind(marked, place):
    _, run, _ = marked
    found, rows = summary(run), sentences(40) if place == "pool" else sentences(60)[40:]
    there = sum(tag.startswith("B-") for row in rows for tag in row["tags"])
    for who in ("zero_shot", "llm", "student", "final"):
        score = found[place][who]
        claimed = sum(count for kind, count in score["noise"].items() if kind != "missed")
        assert sum(each["in_gold"] for each in score["by_label"].values()) == there
        assert score["noise"]["correct"] == pytest.approx(score["recall"] * there)
        assert score["noise"]["correct"] == pytest.approx(score["precision"] * claimed)
        told = " | ".join(f"{count:,}" for count in (*score["noise"].values(), there))
        assert f" | {told} |" in (run / "summary.md").read_text(encoding="utf-8")
        assert all(round_[place][who]["noise"] for round_ in found["rounds"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("Entities by what is wrong with them") == page.count("Each label in: final labels") == 2


def test_what_is_told_of_entities_is_what_schema_1_told_of_the_pool(marked):
    found = summary(marked[1])
    assert found["entities"]["noise"] == found["pool"]["final"]["noise"]
    assert set(found["entities"]["by_type"]) == {"PER", "LOC"}
    for name, each in found["entities"]["by_type"].items():
        assert each["entities"] == found["pool"]["final"]["by_label"][name]["in_gold"] > 0


def test_the_page_of_an_earlier_run_has_what_was_told_of_its_entities(marked, tmp_path):
    shutil.copytree(marked[1], tmp_path / "run")
    found = summary(marked[1])
    places = [where[place] for where in (found, *found["rounds"]) for place in ("pool", "test")]
    for score in (score for place in places for score in place.values()):
        del score["by_label"], score["noise"]
    (tmp_path / "run" / "summary.json").write_text(json.dumps(found), encoding="utf-8")
    assert freeal("report", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").count("Each label in: final labels") == 1


def test_each_label_of_a_set_is_measured(sorted_):
    _, run, _ = sorted_
    gold = [row["topics"] for row in reviews(64)]
    given = [json.loads(row["labels"]) for row in labels(run)]
    final = summary(run)["pool"]["final"]
    assert list(final["by_label"]) == list(TOPICS)
    assert final["noise"] is None
    for name, each in final["by_label"].items():
        right = sum(name in there and name in said for there, said in zip(gold, given, strict=True))
        assert each["in_gold"] == sum(name in there for there in gold)
        assert each["recall"] == pytest.approx(right / each["in_gold"])
        assert each["precision"] == pytest.approx(right / sum(name in said for said in given))
        assert f"| {name} | {each['precision']:.3f} | " in (run / "summary.md").read_text(encoding="utf-8")
    assert final["macro_f1"] == pytest.approx(np.mean([each["f1"] for each in final["by_label"].values()]))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("Each label in: final labels") == 2
    assert "Entities by what is wrong" not in page


def test_gold_of_the_test_alone_tells_of_each_label_there(tmp_path):
    rows, words = [{**row, "tags": None} for row in sentences(20)], {"PER": PEOPLE, "LOC": PLACES}
    job = configured(tmp_path, rows, sentences(30)[20:], TOKENS, "tags", words, student={"kind": "none"}, rounds=1)
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "evaluation.llm_on_test=true")
    assert said.code in (0, 3), said.err
    found = summary(tmp_path / "run")
    assert found["entities"] is None
    assert found["pool"]["final"]["by_label"] is None
    assert set(found["test"]["final"]["by_label"]) == {"PER", "LOC"}
    assert (tmp_path / "run" / "summary.md").read_text(encoding="utf-8").count("| entities | correct |") == 1


@pytest.mark.parametrize(
    ("task", "best", "there", "group"),
    [
        (Tokens({"PER": "", "LOC": ""}), [[1, 2, 3], [1, 0, 0], [0, 0, 0], [-1, -1, -1]],
         [[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], [1, 0, 2, -1]),
        (Multilabel({"a": "", "b": ""}), [[1, 1], [1, 0], [0, 0], [-1, -1]],
         [[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], [1, 0, 2, -1]),
        (Classification({"a": "", "b": ""}), [1, 0, -1], [[0, 1], [1, 0], [0, 0]], [1, 0, -1]),
    ],
)  # fmt: skip
def test_a_row_belongs_to_its_rarest_group(task, best, there, group):
    assert task.there(np.array(best)).astype(int).tolist() == there
    assert task.group(np.array(best)).tolist() == group


def words_of(tokens, start, end):
    """The tokens that stand at the characters `start` to `end` of their sentence."""
    ends = [len(" ".join(tokens[: i + 1])) for i in range(len(tokens))]
    return tokens[
        [end_ - len(token) for end_, token in zip(ends, tokens, strict=True)].index(start) : ends.index(end) + 1
    ]


def test_every_entity_stands_in_the_sentence_that_was_given_where_it_is_said_to(marked):
    _, run, _ = marked
    given, rows = {row["id"]: row["tokens"] for row in sentences(40)}, labels(run)
    assert {row["id"]: row["text"] for row in rows} == {uid: " ".join(tokens) for uid, tokens in given.items()}
    spans = [(given[row["id"]], span) for row in rows for span in json.loads(row["spans"])]
    assert len(spans) > 20
    assert all(words_of(tokens, s["start"], s["end"]) == s["text"].split(" ") for tokens, s in spans)
    assert {span["label"] for _, span in spans} == {"PER", "LOC"}


def test_labels_of_a_set_are_lists_of_names(sorted_):
    _, run, _ = sorted_
    rows = labels(run)
    assert all(set(json.loads(row["labels"])) <= set(TOPICS) for row in rows)
    gold = {row["id"]: set(row["topics"]) for row in reviews(64)}
    right = sum(set(json.loads(row["labels"])) == gold[row["id"]] for row in rows)
    assert right / len(rows) == pytest.approx(summary(run)["pool"]["final"]["accuracy"])


def test_a_set_of_labels_has_a_probability_for_each(sorted_):
    _, run, _ = sorted_
    table = read_table(run / "labels.parquet")
    state = history.read(run).final
    assert table["probabilities"] == [json.loads(row["probabilities"]) for row in labels(run)]
    for there, each, proba in zip(table["labels"], table["probabilities"], state.posterior[..., 1], strict=True):
        assert list(each) == list(TOPICS)
        assert list(each.values()) == pytest.approx(proba.tolist(), abs=1e-6)
        assert there == [name for name, p in each.items() if p > 0.5]


def test_a_row_without_an_answer_has_no_probabilities():
    cells = Multilabel({"a": "", "b": ""}).cells("", np.array([-1, -1]), np.full((2, 2), np.nan))
    assert cells == {"labels": None, "probabilities": None}


def test_explain_tells_how_probable_each_label_of_a_set_is(sorted_):
    _, run, _ = sorted_
    row = labels(run)[3]
    each = json.loads(freeal("explain", run, row["id"], "--json").out)["rounds"][-1]
    assert each["label"] == "; ".join(json.loads(row["labels"]))
    assert each["final"] == pytest.approx(json.loads(row["probabilities"]), abs=1e-6)
    assert list(each["final"].values()) == sorted(each["final"].values(), reverse=True)
    told = ", ".join(f"{name} {p:.3f}" for name, p in each["final"].items())
    assert f"final    {told}" in freeal("explain", run, row["id"]).out


@pytest.mark.parametrize("kind", ["marked", "sorted_"])
def test_a_run_that_is_resumed_repeats_nothing_and_changes_nothing(kind, request, tmp_path):
    _, run, _ = request.getfixturevalue(kind)
    before = (run / "labels.csv").read_bytes()
    (run / "summary.json").unlink()
    assert freeal("run", run).code in (0, 3)
    assert (run / "labels.csv").read_bytes() == before
    forked = freeal("run", "--fork", run, "--out", tmp_path / "forked", "--set", "stop.min_change=0.0", "--json")
    assert forked.code in (0, 3), forked.err
    assert json.loads(forked.out)["usage"]["calls"] == 0
    assert (tmp_path / "forked" / "labels.csv").read_bytes() == before


def written(run):
    """Name -> bytes of what a run came to: its labels and its rounds, but for their times."""
    rounds = [path for path in (run / "rounds").rglob("*") if path.is_file()]
    files = [run / "labels.csv", run / "labels.parquet", run / "result.json", *rounds]
    timed = ("report.json", "sha256.json")
    return {path.relative_to(run): path.read_bytes() for path in files if path.name not in timed}


@pytest.mark.parametrize("kind", ["marked", "sorted_"])
def test_a_round_that_is_gone_is_done_again_to_the_byte(kind, request, tmp_path):
    _, run, _ = request.getfixturevalue(kind)
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "rounds" / "01")
    for name in ("labels.csv", "labels.parquet", "result.json", "summary.json"):
        (tmp_path / "run" / name).unlink()
    said = freeal("run", "--resume", tmp_path / "run")
    assert said.code in (0, 3), said.err
    assert written(tmp_path / "run") == written(run)
    for place in ("pool", "test", "usage"):
        assert summary(tmp_path / "run")[place] == summary(run)[place]


@pytest.mark.parametrize("kind", ["marked", "sorted_"])
def test_a_run_that_is_broken_in_its_last_round_is_resumed_to_the_byte(kind, request, tmp_path):
    job, run, _ = request.getfixturevalue(kind)
    command = [sys.executable, "-c", "from freeal.cli import main; main()", "run", job, "--out", tmp_path / "run"]
    broken = {**os.environ, "FREEAL_FAILPOINT": "artefact.mid_write:2=exit"}
    assert subprocess.run(command, env=broken, capture_output=True, timeout=120).returncode == 70
    assert [path.name for path in sorted((tmp_path / "run" / "rounds").iterdir())] == ["00", "01.partial"]
    said = freeal("run", "--resume", tmp_path / "run")
    assert said.code in (0, 3), said.err
    assert written(tmp_path / "run") == written(run)


@pytest.mark.parametrize("kind", ["tokens", "multilabel"])
def test_a_run_that_shows_by_the_students_vectors_goes_on_as_if_it_had_not_stopped(kind, tmp_path, tiny_encoder):
    student = {"kind": "tagger" if kind == "tokens" else "transformer", "model": str(tiny_encoder), "epochs": 2}
    settings = {"student": {**student, "min_steps": 0, "device": "cpu"}, "rounds": 2}
    told = (TOKENS, "tags", {"PER": PEOPLE, "LOC": PLACES}) if kind == "tokens" else (SETS, "topics", TOPICS)
    some = (sentences if kind == "tokens" else reviews)(40)
    job = configured(tmp_path, some, some[:8], *told, **settings, demos={"retrieve": "nearest", "vectors": "student"})
    run, again = tmp_path / "run", tmp_path / "again"
    said = freeal("run", job, "--out", run)
    assert said.code in (0, 3), said.err
    assert np.load(run / "rounds" / "00" / "vectors.npy").shape == (40, 32)
    shutil.copytree(run, again)
    shutil.rmtree(again / "rounds" / "01")
    for name in ("result.json", "summary.json", "labels.csv"):
        (again / name).unlink()
    assert freeal("run", "--resume", again).code in (0, 3)
    for name in ("posterior.parquet", "demonstrations.jsonl", "vectors.npy"):
        assert (again / "rounds" / "01" / name).read_bytes() == (run / "rounds" / "01" / name).read_bytes(), name
    assert (again / "labels.csv").read_bytes() == (run / "labels.csv").read_bytes()
    assert summary(again)["usage"]["calls"] == summary(run)["usage"]["calls"], "what was shown is what was shown before"


def test_the_page_draws_no_one_line_through_losses_of_labels_that_are_filtered_each_by_its_own(sorted_):
    _, run, _ = sorted_
    source = (run / "report.html").read_text(encoding="utf-8")
    assert "Each label is filtered by its own losses; drawn is the mean of a row" in source


def test_every_question_about_a_row_is_in_its_history(sorted_):
    _, run, _ = sorted_
    told = json.loads(freeal("explain", run, "r1", "--json").out)
    assert sorted(each["about"] for each in told["questions"] if each["work"] == "round 0") == sorted(TOPICS)
    for each in told["questions"]:
        assert f"Is it about {each['about']}?" in each["messages"][-1][1]
    said = freeal("explain", run, "r1", "--chats").out
    for name in TOPICS:
        assert f"round 0, '{name}': asked with 0 demonstrations; reply: " in said
        assert f"--- round 0, '{name}'\n" in said


@pytest.mark.parametrize("kind", ["marked", "sorted_"])
def test_the_other_verbs_know_the_kind(kind, request):
    job, run, _ = request.getfixturevalue(kind)
    uid = labels(run)[0]["id"]
    assert "final" in freeal("explain", run, uid).out
    assert "F1" in freeal("show", run).out
    assert freeal("report", run).code == 0
    assert "rows right throughout" in (run / "report.html").read_text(encoding="utf-8")
    assert freeal("status", run).code == 0
    assert freeal("preview", job).code == 0
    assert freeal("audit", run).code == 8
    questions = 1 if kind == "marked" else 3
    planned = json.loads(freeal("plan", job, "--json").out)
    distinct = planned["distinct_texts"]
    assert planned["calls"]["later_rounds_at_most"] == questions * distinct


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_questions_about_a_text_are_no_panel(marked, sorted_, verb):
    of_entities, of_topics = (freeal(verb, job).out for job, _, _ in (marked, sorted_))
    assert "asked:  3 questions a text, one for each label\n" in of_topics
    assert "panel" not in of_topics
    assert "questions a text" not in of_entities
    found = json.loads(freeal(verb, sorted_[0], "--json").out)
    assert (found["readers"], found["questions"]) == (1, 3)


def test_new_texts_get_entities(marked, tmp_path):
    _, run, _ = marked
    (tmp_path / "new.txt").write_text("Ann Lee went to Peru .\n", encoding="utf-8")
    said = freeal("predict", run, tmp_path / "new.txt", "--json")
    assert said.code == 0, said.err
    words = ["Ann", "Lee", "went", "to", "Peru", "."]
    assert all(words_of(words, s["start"], s["end"]) == s["text"].split(" ") for s in json.loads(said.out)["spans"])


def test_new_texts_may_be_the_only_column_and_blank(marked, sorted_, tmp_path):
    (tmp_path / "new.csv").write_text('sentence\nBob came to Peru\n""\nNobody spoke\n', encoding="utf-8")
    for run, nothing in ((marked[1], {"spans": None}), (sorted_[1], {"labels": None, "probabilities": None})):
        said = freeal("predict", run, tmp_path / "new.csv", "--json")
        assert said.code == 0, said.err
        first, blank, last = map(json.loads, said.out.splitlines())
        assert blank == {"id": "line 3", **nothing}
        assert None not in (*first.values(), *last.values())
        table = freeal("predict", run, tmp_path / "new.csv").out
        assert list(csv.reader(table.splitlines()))[2] == ["line 3", *[""] * len(nothing), ""]


def test_new_texts_may_come_as_conll_under_any_name(marked, tmp_path):
    (tmp_path / "eng.testa").write_text("Bob B-PER\nslept O\n\nNobody O\n", encoding="utf-8")
    said = freeal("predict", marked[1], tmp_path / "eng.testa", "--json")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 2


def test_new_texts_get_sets_of_labels(sorted_, tmp_path):
    _, run, _ = sorted_
    (tmp_path / "new.txt").write_text("cheap and fast\n", encoding="utf-8")
    found = json.loads(freeal("predict", run, tmp_path / "new.txt", "--json").out)
    assert set(found["probabilities"]) == set(TOPICS)
    assert set(found["labels"]) == {name for name, p in found["probabilities"].items() if p > 0.5}


@pytest.mark.parametrize("name", ["names.conll", "names.jsonl", "names.json"])
def test_exported_entities_are_read_back(marked, tmp_path, name):
    _, run, _ = marked
    assert freeal("export", run, tmp_path / name).code == 0
    table = open_table(str(tmp_path / name), "train", DataConfig(pool=name))
    rows = {row["id"]: row for _, row in table.rows}
    given = {row["id"]: row["tokens"] for row in sentences(40)}
    assert list(rows) == [row["id"] for row in labels(run)]
    for row in labels(run):
        there, tokens = rows[row["id"]], given[row["id"]]
        kept = [(span["text"].split(" "), span["label"]) for span in json.loads(row["spans"])]
        if "spans" in there:
            assert [(words_of(tokens, s["start"], s["end"]), s["label"]) for s in there["spans"]] == kept
        else:
            assert there["tokens"] == tokens
            assert [(tokens[c.start : c.end], c.type) for c in chunks(there["tags"])] == kept


def test_exports_replace_nothing_unless_told_to(marked, tmp_path):
    _, run, _ = marked
    for name, to in (("x.jsonl", "jsonl"), ("x", "hf")):
        words = ("export", run, tmp_path / name, "--to", to)
        assert freeal(*words).code == 0
        again = freeal(*words)
        assert again.code == 8
        assert f"{tmp_path / name}: is there already; say --force to replace it, or name another" in again.err
        assert freeal(*words, "--force").code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it", encoding="utf-8")
    said = freeal("export", run, tmp_path / "mine", "--to", "hf", "--force")
    assert "a folder with other things than a data set" in said.err
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_export_tells_what_it_wrote_and_touches_nothing_else(marked, tmp_path):
    _, run, _ = marked
    (tmp_path / "x.conll.partial").write_text("mine", encoding="utf-8")
    (tmp_path / "saved.partial").mkdir()
    count = sum(len(json.loads(row["spans"])) for row in labels(run))
    for name, form in (("x.conll", "conll"), ("saved", "hf")):
        said = freeal("export", run, tmp_path / name, "--to", form)
        assert said.out == f"40 texts with {count} entities: {tmp_path / name}\n"
    assert {each.name for each in tmp_path.iterdir()} == {"x.conll", "x.conll.partial", "saved", "saved.partial"}
    assert (tmp_path / "x.conll.partial").read_text(encoding="utf-8") == "mine"
    os.mkfifo(tmp_path / "pipe")
    said = freeal("export", run, tmp_path / "pipe", "--to", "jsonl")
    assert said.code == 8
    assert "a device or pipe; name a file or folder" in said.err
    assert (tmp_path / "pipe").is_fifo()


def test_spans_have_one_type_in_the_table_of_labels_though_there_be_none(tmp_path):
    rows = [{"id": str(i), "text": f"nobody spoke {i}"} for i in range(4)]
    job = configured(tmp_path, rows, rows, TOKENS, None, {"PER": PEOPLE, "LOC": PLACES}, student={"kind": "none"})
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "data.test=null", "--set", "llm.noise=0")
    assert said.code in (0, 3), said.err
    field = parquet.read_schema(tmp_path / "run" / "labels.parquet").field("spans").type.value_type
    assert [part.name for part in field] == ["start", "end", "label", "text", "probability"]


def test_an_id_may_be_written_as_the_spreadsheet_has_it(marked):
    run = history.read(marked[1])
    run = replace(run, ids=("=cmd", "'=cmd", "-e", *run.ids[3:]))
    assert [run.row_of(uid) for uid in ("=cmd", "'=cmd", "'-e", "-e")] == [0, 1, 2, 2]


def test_types_that_are_named_as_tags_are_told(tmp_path):
    (tmp_path / "prompt.md").write_text(TOKENS.replace("{PER: a person, LOC: a place}", "[O, B-PER, I-PER]"))
    with pytest.raises(PromptError, match="types are named as tags are: O, B-PER, I-PER; name the types alone: PER"):
        prompts.load(tmp_path / "prompt.md")


def test_a_pool_without_a_single_candidate_is_refused_before_anything_is_asked(marked, tmp_path):
    (tmp_path / "low.txt").write_text("berlin is big\nnobody spoke\n", encoding="utf-8")
    settings = ["reading=names", f"data.pool={tmp_path / 'low.txt'}", "data.gold=null", "data.test=null"]
    said = freeal("check", marked[0], *(word for each in settings for word in ("--set", each)))
    assert said.code == 2
    assert "reading: names: no text of the pool has a candidate to ask about: names are runs of words with" in said.err


@pytest.mark.parametrize("name", ["pool.jsonl", "test.jsonl", "prompt.md", "run/labels.csv", "run/x.jsonl", "run", "."])
def test_an_export_never_replaces_what_the_run_needs(marked, name):
    job, run, _ = marked
    target = job.parent / name
    before = target.read_bytes() if target.is_file() else None
    said = freeal("export", run, target, "--to", "hf" if target.is_dir() else "jsonl", "--force")
    assert said.code == 8
    assert (
        f"{target}: the run needs {job.parent / name.partition('/')[0] if name != '.' else run}; name another"
        in said.err
    )
    assert before is None or target.read_bytes() == before


@pytest.mark.parametrize("form", ["conll", "jsonl", "label-studio", "hf"])
def test_every_export_wants_its_folder_to_be_there(marked, tmp_path, form):
    said = freeal("export", marked[1], tmp_path / "nowhere" / "x", "--to", form)
    assert said.code == 8
    assert f"there is no folder {tmp_path / 'nowhere'}; make it first" in said.err
    assert not (tmp_path / "nowhere").exists()


def test_exports_keep_the_probabilities_of_entities(marked, tmp_path):
    _, run, _ = marked
    for form in ("jsonl", "hf", "label-studio"):
        said = freeal("export", run, tmp_path / form, "--to", form)
        assert (said.code, said.err) == (0, ""), "no progress bar of another package"
    product = [json.loads(row["spans"]) for row in labels(run)]
    wanted = [[span["probability"] for span in spans] for spans in product]
    lines = [json.loads(line) for line in (tmp_path / "jsonl").read_text(encoding="utf-8").splitlines()]
    assert [[span["probability"] for span in row["spans"]] for row in lines] == wanted
    table = open_table(str(tmp_path / "hf"), "train", DataConfig(pool="hf"))
    assert [[span["probability"] for span in row["spans"]] for _, row in table.rows] == wanted
    tasks = [task["predictions"][0] for task in json.loads((tmp_path / "label-studio").read_text(encoding="utf-8"))]
    assert [[result["score"] for result in task["result"]] for task in tasks] == wanted
    assert [task["score"] for task in tasks] == pytest.approx(
        [float(row["probability"]) for row in labels(run)], abs=1e-4
    )


def test_labels_of_a_run_are_read_back_as_gold_abstentions_as_unknown(tmp_path):
    rows = [{**row, "text": f"{i}: {' '.join(row['tokens'])}"} for i, row in enumerate(sentences(40))]
    names = {"PER": PEOPLE, "LOC": PLACES}
    job = configured(tmp_path, rows, rows[:1], TOKENS, None, names, student={"kind": "none"}, rounds=1)
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "llm.unreadable=0.3", "--set", "data.test=null")
    assert said.code in (0, 3), said.err
    product = [row["spans"] and len(json.loads(row["spans"])) for row in labels(tmp_path / "run")]
    assert "" in product
    task = Tokens({"PER": "", "LOC": ""})
    assert freeal("export", tmp_path / "run", tmp_path / "saved", "--to", "hf").code == 0
    assert freeal("export", tmp_path / "run", tmp_path / "names.jsonl").code == 0
    for pool, gold in (
        ("run/labels.csv", "spans"), ("run/labels.parquet", "spans"), ("names.jsonl", "spans"), ("saved", "spans"),
        ("saved", "tags"),
    ):  # fmt: skip
        found = load(DataConfig(pool=str(tmp_path / pool), gold=gold), task, 0)
        counts = [
            "" if row[0] < 0 else len(task.spans(example.text, row))
            for example, row in zip(found.pool.examples, found.gold, strict=True)
        ]
        assert counts == product


def test_a_language_may_be_named_for_spacy(marked, tmp_path):
    pytest.importorskip("spacy")
    _, run, _ = marked
    assert freeal("export", run, tmp_path / "out.spacy", "--language", "en").code == 0
    said = freeal("export", run, tmp_path / "other.spacy", "--language", "qq")
    assert said.code != 0
    assert "spaCy has no rules for the language 'qq'" in said.err


@pytest.mark.parametrize("form", ["conll", "hf"])
def test_a_pool_of_tokens_is_exported_with_its_tokens(tmp_path, form):
    given = [["Ann", "Lee's", "U.S.", "e-mail", "(3.5", "%)", "..."], ["Rome", "/", "Peru"], ["New York", "slept"]]
    rows = [{"id": f"r{i}", "tokens": tokens, "tags": ["O"] * len(tokens)} for i, tokens in enumerate(given)]
    words = {"PER": ["Lee"], "LOC": ["Rome", "Peru"]}
    job = configured(tmp_path, rows, rows[:1], TOKENS, "tags", words, student={"kind": "none"}, rounds=1)
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "llm.noise=0.0")
    assert said.code in (0, 3), said.err
    assert freeal("export", tmp_path / "run", tmp_path / "out.conll", "--to", form).code == 0
    table = open_table(str(tmp_path / "out.conll"), "train", DataConfig(pool="out.conll"))
    found = {row["id"]: row for _, row in table.rows}
    assert [list(found[f"r{i}"]["tokens"]) for i in (0, 1)] == given[:2]
    assert list(found["r2"]["tokens"]) == ["New", "York", "slept"], "a token with a space in it has no such form"
    if form == "conll":
        assert found["r0"]["tags"] == ["O", "B-PER", "O", "O", "O", "O", "O"], "an entity is widened to whole tokens"
        assert found["r1"]["tags"] == ["B-LOC", "O", "B-LOC"]


def test_disputed_entities_are_asked_about_and_settled(tmp_path, tiny_encoder):
    tagger = {"kind": "tagger", "model": str(tiny_encoder), "epochs": 1, "min_steps": 0, "device": "cpu"}
    words = {"PER": PEOPLE, "LOC": PLACES}
    job = configured(tmp_path, sentences(20), sentences(4), TOKENS, "tags", words, student=tagger, rounds=1)
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "fusion.verify=true", "--set", "query.scout=1.0")
    assert said.code in (0, 3), said.err
    with Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        asked = sum(work == "round 0 | verification" for work, _, _ in ledger.rows())
        both = ledger.usage(["round 0"]).calls
    assert asked > 0
    assert both > asked, "they count as calls of their round"
    rows = [row["id"] for row in labels(tmp_path / "run")]
    told = [json.loads(freeal("explain", tmp_path / "run", uid, "--json").out)["questions"] for uid in rows]
    again = [each for of_row in told for each in of_row if each["work"].endswith("verification")]
    assert again
    assert all(re.fullmatch(r"(.*), (PER \(a person\)|LOC \(a place\))", each["about"]) for each in again)
    told = re.search(r"of (\d+) disputed entities are ones", (tmp_path / "run" / "events.jsonl").read_text("utf-8"))
    assert told
    assert int(told[1]) >= asked
    again = freeal("run", "--fork", tmp_path / "run", "--out", tmp_path / "again", "--json")
    assert json.loads(again.out)["usage"]["calls"] == 0
    settled = (tmp_path / "run" / "labels.csv").read_bytes()
    assert (tmp_path / "again" / "labels.csv").read_bytes() == settled
    calls = summary(tmp_path / "run")["usage"]["calls"]
    shutil.rmtree(tmp_path / "run" / "rounds" / "00")
    for name in ("summary.json", "labels.csv"):
        (tmp_path / "run" / name).unlink()
    said = freeal("run", "--resume", tmp_path / "run", "--max-calls", calls)
    assert said.code in (0, 3), said.err
    assert (tmp_path / "run" / "labels.csv").read_bytes() == settled, "what was asked before is not asked again"


def test_disputed_entities_stay_as_they_are_where_no_calls_are_left_for_them(tmp_path, tiny_encoder):
    tagger = {"kind": "tagger", "model": str(tiny_encoder), "epochs": 1, "min_steps": 0, "device": "cpu"}
    words = {"PER": PEOPLE, "LOC": PLACES}
    job = configured(tmp_path, sentences(20), sentences(4), TOKENS, "tags", words, student=tagger, rounds=1)
    settings = ("--set", "fusion.verify=true", "--set", "query.scout=1.0", "--max-calls", 9)
    said = freeal("run", job, "--out", tmp_path / "run", *settings)
    assert said.code in (0, 3), said.err
    told = re.search(r"(\d+) disputed entities stay as they are: (\d+) calls left", said.err + said.out)
    assert told
    assert int(told[1]) > int(told[2])
    assert summary(tmp_path / "run")["usage"]["calls"] <= 9
    assert "a call more for each disputed entity (fusion.verify)" in freeal("plan", job, *settings[:2]).out


@pytest.mark.parametrize("reading", ["names", "phrases"])
def test_entities_are_found_by_judging_candidates(tmp_path, tiny_encoder, reading):
    tagger = {"kind": "tagger", "model": str(tiny_encoder), "epochs": 1, "min_steps": 0, "device": "cpu"}
    words = {"PER": PEOPLE, "LOC": PLACES}
    settings = {"student": tagger, "reading": reading, "calibration": {"kind": "none"}}
    job = configured(tmp_path, sentences(40), sentences(60)[40:], TOKENS, "tags", words, **settings)
    words_ = ("--set", "llm.noise=0.0", "--set", "llm.probabilities=true")
    said = freeal("run", job, "--out", tmp_path / "run", *words_)
    assert said.code in (0, 3), said.err
    found = summary(tmp_path / "run")
    assert found["pool"]["llm"]["micro_f1"] == 1.0
    assert found["test"]["zero_shot"]["micro_f1"] == 1.0
    planned = json.loads(freeal("plan", job, *words_, "--json").out)
    assert planned["calls"]["first_round"] == pytest.approx(found["rounds"][0]["usage"]["calls"], rel=0.3)
    assert "What is" in planned["prompts"][0][1][1]
    assert "pool: first answers F1 1.000 → final F1" in said.out
    assert "first answers F1" in (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")
    assert "and so for the other candidates: " in freeal("preview", job, "--id", "s1").out
    shown = freeal("preview", job, "--id", "s1", "--run", tmp_path / "run").out
    assert "── assistant" in shown
    told = freeal("explain", tmp_path / "run", "s1").out
    assert "final" in told
    assert "first word of the LLM: " in told, "calibrated, not raw"
    for words, type_ in {"Carla Diaz": "PER", "Rome": "LOC"}.items():
        assert f"round 0, '{words}': asked with 0 demonstrations; reply: '{type_}'" in told
    assert json.loads(freeal("status", tmp_path / "run", "--json").out)["rows"] == {"labelled": 40}
    forked = freeal("run", "--fork", tmp_path / "run", "--out", tmp_path / "again", "--json")
    assert json.loads(forked.out)["usage"]["calls"] == 0
    assert (tmp_path / "again" / "labels.csv").read_bytes() == (tmp_path / "run" / "labels.csv").read_bytes()


@pytest.mark.parametrize(("rounds", "told"), [(1, False), (2, True)])
def test_that_types_by_words_are_judged_better_without_demonstrations_is_told(tmp_path, rounds, told):
    labels = "{PER: {words: [person, man]}, LOC: {words: [place, city]}}\nnone: [nothing]"
    prompt = TOKENS.replace("{PER: a person, LOC: a place}", labels)
    keywords, nobody = {"PER": PEOPLE, "LOC": PLACES}, {"student": {"kind": "none"}}
    settings = {"reading": "names", "rounds": rounds, **nobody}
    job = configured(tmp_path, sentences(40), sentences(2), prompt, "tags", keywords, **settings)
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "llm.probabilities=true")
    assert said.code in (0, 3), said.err
    assert ("judge candidates by words better without demonstrations: try rounds: 1" in said.err) is told


def test_candidates_count_as_calls(tmp_path):
    words, nobody = {"PER": PEOPLE, "LOC": PLACES}, {"student": {"kind": "none"}}
    job = configured(tmp_path, sentences(40), sentences(2), TOKENS, "tags", words, reading="names", **nobody)
    settings = ("--set", "llm.probabilities=true", "--max-calls", 20, "--json")
    said = freeal("run", job, "--out", tmp_path / "run", *settings)
    found = json.loads(said.out)
    assert 0 < found["usage"]["calls"] <= 20
    assert found["rounds"][0]["asked"] < 40
    assert not [each for each in found["warnings"] if "no readable answer" in each], found["warnings"]
    assert any("the LLM was not asked about them" in each for each in found["warnings"])
    rows = json.loads(freeal("status", tmp_path / "run", "--json").out)["rows"]
    asked = sum(each["asked"] for each in found["rounds"])
    assert rows == {"labelled": asked, "pending": 40 - asked}


@pytest.mark.parametrize("kind", ["marked", "sorted_"])
def test_a_study_leaves_out_what_does_not_serve_the_kind(kind, request, tmp_path):
    job, _, _ = request.getfixturevalue(kind)
    words = [word for name in ("zero-shot", "few-shot", "default", "gold") for word in ("--method", name)]
    said = freeal("study", job, "--seeds", 1, "--out", tmp_path, "--json", *words)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["left_out"] == {}
    assert found["measure"] == "F1"
    assert "F1 on the pool" in freeal("study", job, "--seeds", 1, "--out", tmp_path, *words).out
    assert 0 < found["methods"]["default"]["pool"]["mean"] <= 1
    assert found["methods"]["gold"]["student_test"]["mean"] >= (0 if kind == "marked" else 0.8)


def test_gold_is_a_recording_of_whole_labels_also_where_candidates_are_judged(tmp_path):
    nobody = {"student": {"kind": "none"}, "reading": "names"}
    job = configured(tmp_path, sentences(30), sentences(4), TOKENS, "tags", {"PER": PEOPLE, "LOC": PLACES}, **nobody)
    words = ("--method", "zero-shot", "--method", "gold", "--set", "llm.probabilities=true")
    said = freeal("study", job, "--seeds", 1, "--out", tmp_path / "study", "--json", *words)
    assert said.code in (0, 3), said.err
    assert {"zero-shot", "gold"} == set(json.loads(said.out)["methods"])


def served(folder, url, student, **more):
    """A run on sentences whose LLM is the server at `url`."""
    job = configured(folder, sentences(30), sentences(36)[30:], TOKENS, "tags", {}, student=student, **more)
    llm = {"kind": "openai", "model": "tiny", "base_url": url}
    job.write_text(yaml.safe_dump({**yaml.safe_load(job.read_text(encoding="utf-8")), "llm": llm}), encoding="utf-8")
    return job


def chats(run):
    """Who was asked about a row how: the whole chats of a run, and the schema of each."""
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        return [request for _, _, request, _ in ledger.raw()]


def test_a_server_that_keeps_to_a_schema_is_asked_for_json(tmp_path, tiny_encoder):
    tagger = {"kind": "tagger", "model": str(tiny_encoder), "epochs": 1, "min_steps": 0, "device": "cpu"}
    words = Plan(keywords={"PER": PEOPLE, "LOC": PLACES}, pattern=re.compile("Mark the names: (.*)"))
    with faultllm.serving(words) as server:
        job = served(tmp_path, server.url, tagger)
        said = freeal("run", job, "--out", tmp_path / "run")
        assert said.code in (0, 3), said.err
        billed = server.stats().requests
        (tmp_path / "run" / "summary.json").unlink()
        assert freeal("run", tmp_path / "run").code in (0, 3)
        assert server.stats().requests == billed, "it is not asked again what it understands"
    asked = chats(tmp_path / "run")
    assert {next(iter(request.schema["properties"])) for request in asked} == {"entities"}
    assert all("reply with JSON" in request.messages[0].content for request in asked)
    shown = [m.content for request in asked for m in request.messages if m.role == "assistant"]
    assert shown
    assert all(list(json.loads(turn)) == ["entities"] for turn in shown), "demonstrations have the form of the replies"
    assert summary(tmp_path / "run")["pool"]["llm"]["micro_f1"] == 1.0
    assert summary(tmp_path / "run")["rounds"][-1]["upheld"] == 1.0
    assert "PER" in freeal("explain", tmp_path / "run", "s0").out
    would = json.loads(freeal("preview", job, "--id", "s0", "--run", tmp_path / "run", "--json").out)["messages"]
    assert "reply with JSON" in would[0]["content"]
    assert [json.loads(each["content"]) for each in would if each["role"] == "assistant"]
    assert "keeps to a schema is asked in JSON" not in freeal("preview", job, "--run", tmp_path / "run").out
    assert "keeps to a schema is asked in JSON" in freeal("preview", job).out


@pytest.mark.parametrize(
    ("plan", "setting"), [(Plan(refuses=["response_format"]), "seed=0"), (Plan(), "llm.structured=false")]
)
def test_a_server_that_is_not_held_to_a_schema_is_asked_for_lines(tmp_path, plan, setting):
    with faultllm.serving(replace(plan, rules=[Rule(Content("PER: Ann Lee"), substring="Mark")])) as server:
        job = served(tmp_path, server.url, {"kind": "none"}, rounds=1)
        said = freeal("run", job, "--out", tmp_path / "run", "--set", setting)
    assert said.code in (0, 3), said.err
    asked = chats(tmp_path / "run")
    assert asked
    assert {request.schema for request in asked} == {None}
    planned = [
        json.loads(freeal("plan", job, "--set", way, "--json").out) for way in ("seed=0", "llm.structured=false")
    ]
    assert planned[0]["tokens_in"]["first_round"] > planned[1]["tokens_in"]["first_round"]
    assert not any("JSON" in message.content for request in asked for message in request.messages)
    assert "JSON" not in freeal("preview", job, "--run", tmp_path / "run", "--set", setting).out
    assert json.loads(labels(tmp_path / "run")[0]["spans"])[0]["text"] == "Ann Lee"


def test_only_entities_are_verified(sorted_, tmp_path):
    said = freeal("run", sorted_[0], "--out", tmp_path / "run", "--set", "fusion.verify=true")
    assert said.code == 2
    assert "fusion.verify: is for a task of kind tokens" in said.err


def test_an_unknown_form_is_told(marked, tmp_path):
    assert "say --to with one of conll" in freeal("export", marked[1], tmp_path / "names.xyz").err


def test_sets_are_not_exported_as_entities(sorted_, tmp_path):
    assert "labels.parquet" in freeal("export", sorted_[1], tmp_path / "x.conll").err


@pytest.mark.parametrize(
    ("prompt", "setting", "told"),
    [
        (TOKENS, "student.kind=linear", "student.kind: linear cannot learn a task of kind tokens; set tagger or none"),
        (SETS, "student.kind=tagger", "cannot learn a task of kind multilabel; set transformer or linear or none"),
        (
            SETS,
            "student={kind: transformer, objective: freeal}",
            "freeal is for one label a text; set plain, candidates",
        ),
        (SETS, "demos={retrieve: nearest, vectors: student}", "a student of kind none has no vectors of its own"),
        (SETS, "demos.vectors=student", "needs texts to be compared; set demos.retrieve to nearest or clusters"),
        (SETS, "reading=names", "reading: names is for entities; a task of kind multilabel takes written"),
        (TOKENS.replace("LOC", "None"), "seed=0", "type 'None' is called as what is no entity; rename it"),
    ],
)
def test_settings_that_do_not_serve_the_kind_are_told(tmp_path, prompt, setting, told):
    rows, gold = (sentences(6), "tags") if "tokens" in prompt else (reviews(6), "topics")
    student = {"kind": "none"}
    job = configured(tmp_path, rows, rows, prompt, gold, {}, student=student)
    said = freeal("check", job, "--set", setting)
    assert said.code == 2
    assert told in said.err


def test_candidates_need_a_server_that_may_give_probabilities(tmp_path):
    job = configured(tmp_path, sentences(6), sentences(6), TOKENS, "tags", {}, student={"kind": "none"})
    words = "llm={kind: openai, model: m, base_url: 'http://127.0.0.1:9/v1', strategy: text}"
    said = freeal("plan", job, "--set", "reading=names", "--set", words)
    assert said.code == 2
    assert "llm.strategy: text gives none; set it to probabilities, or reading: written" in said.err
    votes = words.replace("strategy: text", "strategy: votes, votes: 5")
    assert "gives none" not in freeal("plan", job, "--set", "reading=names", "--set", votes).err


@pytest.mark.parametrize(
    ("prompt", "gold", "told"),
    [
        (TOKENS, "tags", "in round 0 the LLM names no entity in 40 of 40 answers"),
        (SETS, "topics", "in round 0 the LLM says no to every label in 40 of 40 answers"),
    ],
)
def test_answers_that_are_all_alike_are_a_warning_everywhere(tmp_path, prompt, gold, told):
    rows = sentences(40) if gold == "tags" else reviews(40)
    settings = {"student": {"kind": "none"}, "rounds": 1}
    job = configured(tmp_path, rows, rows[:2], prompt, gold, {}, **settings)
    words = ("--set", "llm.noise=0.0", "--set", "llm.probabilities=false")
    said = freeal("run", job, "--out", tmp_path / "run", *words)
    assert said.code == 3, said.err
    assert f"look at this before you use the labels: {told}: " in said.err
    assert any(warning.startswith(told) for warning in summary(tmp_path / "run")["warnings"])
    assert summary(tmp_path / "run")["rounds"][0]["alarms"] != []
    for name in ("summary.md", "report.html"):
        assert told in (tmp_path / "run" / name).read_text(encoding="utf-8")
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()]
    assert any(told.endswith(e["message"].partition(":")[0]) for e in events if e["event"] == "Note")


def test_labels_of_every_kind_are_held_against_those_that_were_shown(marked, sorted_):
    for _, run, _ in (marked, sorted_):
        first, second = summary(run)["rounds"]
        assert first["upheld"] is None
        assert second["upheld"] > 0.5


def test_a_run_in_which_the_llm_reads_has_no_such_warning(marked, sorted_):
    for _, run, _ in (marked, sorted_):
        assert [each["alarms"] for each in summary(run)["rounds"]] == [[], []]


@pytest.mark.parametrize(("prompt", "gold"), [(TOKENS, "tags"), (SETS, "topics")])
def test_the_llm_writes_its_first_demonstrations_for_every_kind(tmp_path, prompt, gold):
    rows, words = (sentences(30), {"PER": PEOPLE, "LOC": PLACES}) if gold == "tags" else (reviews(30), TOPICS)
    cold = {"kind": "generated", "total": 12}
    settings = {"student": {"kind": "none"}, "rounds": 1, "cold_start": cold, "preset": "zero-shot"}
    job = configured(tmp_path, rows, rows[:5], prompt, gold, words, **settings)
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "llm.noise=0.0")
    assert said.code == 0, said.err
    written = int(re.search(r"the LLM wrote (\d+) usable demonstrations of 12", said.err)[1])
    assert written >= 6
    read = [json.loads(line) for line in (tmp_path / "run/rounds/00/demonstrations.jsonl").read_text().splitlines()]
    assert not any("](" in demo["text"] for demo in read)


@pytest.mark.parametrize(("prompt", "gold"), [(TOKENS, "tags"), (SETS, "topics")])
def test_without_a_student_the_llms_word_is_the_label(tmp_path, prompt, gold):
    rows, words = (sentences(30), {"PER": PEOPLE, "LOC": PLACES}) if gold == "tags" else (reviews(30), TOPICS)
    job = configured(tmp_path, rows, rows[:5], prompt, gold, words, student={"kind": "none"}, rounds=1)
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "llm.noise=0.0")
    assert said.code in (0, 3), said.err
    assert summary(tmp_path / "run")["pool"]["final"]["micro_f1"] == 1.0


def test_recorded_sets_answer_every_question_and_an_unknown_name_none(tmp_path):
    rows = reviews(16)
    told = [{"id": row["id"], "label": "; ".join(row["topics"]) or "none"} for row in rows[:-2]]
    told += [{"id": rows[-2]["id"], "label": "price;speed"}, {"id": rows[-1]["id"], "label": "price; smell"}]
    (tmp_path / "kept.jsonl").write_text("\n".join(map(json.dumps, told)), encoding="utf-8")
    job = configured(tmp_path, rows, rows[:4], SETS, "topics", {}, student={"kind": "none"}, rounds=1)
    recorded = {"kind": "recorded", "replies": str(tmp_path / "kept.jsonl")}
    chosen = {**yaml.safe_load(job.read_text(encoding="utf-8")), "llm": recorded}
    job.write_text(yaml.safe_dump(chosen), encoding="utf-8")
    said = freeal("run", job, "--out", tmp_path / "run")
    assert said.code in (0, 3), said.err
    found = [row["labels"] and json.loads(row["labels"]) for row in labels(tmp_path / "run")]
    assert found[:-2] == [row["topics"] for row in rows[:-2]]
    assert found[-2:] == [["price", "speed"], ""]


def test_a_fine_tuned_student_learns_sets_of_labels(tmp_path, tiny_encoder):
    encoder = {"kind": "transformer", "model": str(tiny_encoder), "epochs": 2, "min_steps": 0, "device": "cpu"}
    job = configured(tmp_path, reviews(32), reviews(40)[32:], SETS, "topics", TOPICS, student=encoder)
    said = freeal("run", job, "--out", tmp_path / "run")
    assert said.code in (0, 3), said.err
    assert 0 <= summary(tmp_path / "run")["test"]["student"]["micro_f1"] <= 1
    assert summary(tmp_path / "run")["pool"]["final"]["micro_f1"] > 0.6
    (tmp_path / "new.txt").write_text("cheap and fast\n", encoding="utf-8")
    assert set(
        json.loads(freeal("predict", tmp_path / "run", tmp_path / "new.txt", "--json").out)["probabilities"]
    ) == set(TOPICS)


def test_check_and_run_say_what_of_long_texts_is_not_read(tmp_path):
    long = {"id": "long", "tokens": [*["word"] * 140, "Bob"], "tags": [*["O"] * 140, "B-PER"]}
    blank = {"id": "blank", "tokens": ["\u200b"], "tags": ["O"]}
    settings = {"student": {"kind": "none"}, "rounds": 1}
    within = {"id": "within", "text": "Bobby", "tokens": ["Bob", "by"], "tags": ["B-PER", "O"]}
    rows = [*sentences(9), long, blank, within]
    job = configured(tmp_path, rows, sentences(2), TOKENS, "tags", {"PER": PEOPLE}, **settings)
    checked = freeal("check", job)
    assert "1 empty texts skipped" in checked.out
    unread = "1 texts of which nothing behind word 128 is read, nor labelled"
    assert unread in checked.out
    lost = "1 entities of gold end behind what is read, or share a word with a longer one: no figure"
    moved = "1 entities of gold do not begin and end where words do: they count as whole words"
    assert lost in checked.out
    assert moved in checked.out
    said = freeal("run", job, "--out", tmp_path / "run", "--set", "llm.noise=0.0")
    assert unread in said.err
    assert "1 empty texts skipped, first blank" in said.err
    assert lost in said.err
    assert moved in said.err
    assert "1 × behind the last word read" in said.err
    found = summary(tmp_path / "run")
    assert [found["data"][key] for key in ("empty", "long", "lost", "moved")] == [1, 1, 1, 1]
    page = (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")
    assert all(fact in page for fact in (unread, lost, moved)), "in the same words everywhere"
    assert {row["id"]: row["spans"] for row in labels(tmp_path / "run")}["long"] == "", "it is no text without entities"


def test_a_wrong_tag_in_gold_is_told_with_its_place(tmp_path):
    rows = sentences(6)
    rows[3]["tags"][0] = "B-ORG"
    job = configured(tmp_path, rows, sentences(2), TOKENS, "tags", {}, student={"kind": "none"})
    said = freeal("check", job)
    assert said.code == 2
    assert "line 4" in said.err
    assert "'ORG' is no type" in said.err


def test_gold_of_sets_may_be_lists_or_names_with_marks_between_them(tmp_path):
    nothing = ["none", ["none"], '["None"]', "none;", []]
    told = [["price", "speed"], "price; speed", "price|speed", '["price", "speed"]', *nothing, None]
    rows = [{"id": f"r{i}", "text": f"text {i}", "topics": each} for i, each in enumerate(told)]
    job = configured(tmp_path, rows, rows, SETS, "topics", TOPICS, student={"kind": "none"}, rounds=1)
    from freeal import config

    chosen = config.load(job)
    _, corpus = build.inputs(chosen, tmp_path / "prompt.md")
    assert corpus.gold.tolist() == [[1, 1, 0]] * 4 + [[0, 0, 0]] * 5 + [[-1, -1, -1]]


@pytest.mark.parametrize("told", ["none; price", "price|None", ["price", "none"], '["none", "price"]'])
def test_gold_of_sets_is_none_or_names(tmp_path, told):
    rows = [{"id": "a", "text": "x", "topics": ["price"]}, {"id": "b", "text": "y", "topics": told}]
    job = configured(tmp_path, rows, rows[:1], SETS, "topics", TOPICS, student={"kind": "none"})
    said = freeal("check", job)
    assert said.code == 2
    assert "line 2" in said.err
    assert f"gold {told!r} in column 'topics' has 'none' beside labels; leave out one or the other" in said.err


def test_a_label_without_an_answer_takes_no_other_of_its_row_along(tmp_path):
    student = {"kind": "linear"}
    job = configured(tmp_path, reviews(64), reviews(96)[64:], SETS, "topics", TOPICS, student=student, rounds=1)
    some = ("--set", "llm.probabilities=false", "--set", "llm.unreadable=0.3")
    said = freeal("run", job, "--out", tmp_path / "run", *some)
    assert said.code in (0, 3), said.err
    told = re.search(r"(\d+) of 192 questions got no answer, where others about their rows did", said.err)
    assert told, said.err
    read = read_table(tmp_path / "run" / "rounds" / "00" / "annotations.parquet")
    unread = (np.array(list(read["first"])) == 0.5).sum()
    assert unread == 2 * int(told[1]) > 40, "nothing is known of them"
    silent = sum(problem is not None for problem in read["problem"])
    assert silent < 10, "a row abstains where none of its labels was read"
    states = json.loads(freeal("status", tmp_path / "run", "--json").out)
    assert sum(states["rows"].values()) == 64
    assert states["works"]["round 0"].get("labelled") == states["rows"]["labelled"] == 64 - silent


def test_replies_that_are_no_lists_of_entities_have_failed(tmp_path):
    job = configured(tmp_path, sentences(20), [], TOKENS, "tags", {"PER": PEOPLE}, student={"kind": "none"})
    settings = ("--set", "llm.unreadable=1.0", "--set", "data.test=null", "--set", "rounds=1")
    assert freeal("run", job, "--out", tmp_path / "run", *settings).code == 4
    rows = json.loads(freeal("status", tmp_path / "run", "--json").out)["rows"]
    assert list(rows) == ["failed: not a list of entities"], rows


def test_an_llm_that_cannot_judge_candidates_is_refused_before_it_is_asked(tmp_path):
    job = configured(tmp_path, sentences(20), sentences(8), TOKENS, "tags", {"PER": PEOPLE}, student={"kind": "none"})
    for verb in ("check", "plan"):
        said = freeal(verb, job, "--set", "reading=phrases")
        assert said.code == 2
        assert "needs an LLM that gives the probability" in said.err


def test_what_was_left_out_of_what_the_llm_named_is_counted_by_cause(tmp_path):
    replies = [{"id": row["id"], "label": "PER: Nobody Here | Ann"} for row in sentences(20)]
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, replies)), encoding="utf-8")
    rows = [{**row, "tokens": ["Ann", "slept"], "tags": ["B-PER", "O"]} for row in sentences(20)]
    job = configured(tmp_path, rows, rows[:1], TOKENS, "tags", {}, student={"kind": "none"}, rounds=1)
    said = {"kind": "recorded", "replies": str(tmp_path / "said.jsonl")}
    settings = ("--set", f"llm={json.dumps(said)}", "--set", "data.test=null")
    assert freeal("run", job, "--out", tmp_path / "run", *settings).code in (0, 3)
    assert summary(tmp_path / "run")["rounds"][0]["dropped"] == {"invented": 20}
    told = (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")
    assert "Round 0, left out of what the LLM named: 20 × invented." in told
    assert "left out: 'Nobody Here', invented" in freeal("explain", tmp_path / "run", rows[0]["id"]).out
