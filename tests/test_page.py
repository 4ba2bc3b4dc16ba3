"""report.html and `freeal explain`: a run to look at, from its directory alone."""

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from commandline import films, freeal, opinions

from freeal.ledger import FILE as LEDGER
from freeal.report import charts, explain, history, page
from freeal.select.filters import boundary_gmm

HOSTILE = "fine <script>alert(1)</script> & <img src=x onerror=alert(2)>"
LABELS = {"good": ["fine", "lovely"], "<b>$bad$</b>": ["awful", "dull"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on hostile texts, with a label that is markup and mathematics."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = opinions(40, LABELS)
    rows[0]["text"] = HOSTILE
    films(folder, rows, labels=LABELS, data={"gold": "gold"})
    assert freeal("run", folder / "films.yaml", "--out", folder / "run").code == 0
    return folder / "run"


class Tags(HTMLParser):
    """What a browser would make of a page: the names of its elements, and where its images come from."""

    def __init__(self, source):
        super().__init__()
        self.names, self.sources, self.handlers = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def test_every_run_leaves_a_page_that_needs_nothing_else(run):
    found = Tags((run / "report.html").read_text(encoding="utf-8"))
    assert found.names.count("img") == 6  # rounds, gold, agreement, confidence, losses, balance
    assert all(source.startswith("data:image/svg+xml;base64,") for source in found.sources)
    assert not {"script", "link", "iframe"} & set(found.names)


def test_hostile_texts_and_labels_are_only_text(run):
    source = (run / "report.html").read_text(encoding="utf-8")
    assert Tags(source).handlers == []
    assert "<b>$bad$</b>" not in source
    assert "&lt;b&gt;$bad$&lt;/b&gt;" in source


def test_the_page_is_made_anew_byte_by_byte_from_a_moved_directory(run, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    (moved / "report.html").unlink()
    said = freeal("report", moved)
    assert said.code == 0
    assert said.out.strip() == str(moved / "report.html")
    assert (moved / "report.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_run_that_is_not_finished_has_no_page(run, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    (moved / "summary.json").unlink()
    said = freeal("report", moved)
    assert said.code == 8
    assert "not finished yet; go on with:  freeal run --resume" in said.err


def test_without_gold_the_page_says_so_and_shows_signs_of_quality(run):
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    nothing = {**found, "pool": {}, "test": {}, "confusion": None, "reliability": None}
    nothing["rounds"] = [{**figures, "pool": {}, "test": {}} for figures in found["rounds"]]
    source = page.html(history.read(run), nothing)
    assert "No gold labels were given" in source
    assert "Signs of quality after each round" in source


def test_one_round_is_no_curve(run):
    found, told = json.loads((run / "summary.json").read_text(encoding="utf-8")), history.read(run)
    assert "Rounds" in [each.title for each in page.figures(told, found)]
    once = {**found, "rounds": found["rounds"][:1]}
    assert "Rounds" not in [each.title for each in page.figures(told, once)]


def test_the_most_disputed_rows_are_those_on_which_both_are_sure(run):
    rows = page.disputed(history.read(run))
    sure = [min(row.llm_sure, row.student_sure) for row in rows]
    assert rows
    assert all(row.llm != row.student for row in rows)
    assert sure == sorted(sure, reverse=True)


def test_a_matrix_of_many_labels_is_drawn():
    assert charts.matrix(np.eye(77, dtype=int), [f"label_{i}" for i in range(77)], "gold", "final").startswith("<?xml")


def test_the_same_values_give_the_same_drawing():
    losses = np.random.default_rng(0).gamma(1.0, 1.0, 100)
    drawn = [charts.losses(losses, losses < 1, boundary_gmm(losses[None, :])) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_drawing_holds_no_number_where_there_is_none():
    assert "nan" not in charts.curve({"student, pool": [None, 0.5]}, [10, 20], "accuracy")


def test_every_sign_of_quality_has_a_colour_and_a_mark_of_its_own(run):
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    nothing = {**found, "rounds": [{**figures, "pool": {}, "test": {}} for figures in found["rounds"]]}
    rounds, *_ = page.figures(history.read(run), nothing)
    drawn = base64.b64decode(rounds.image.partition(",")[2]).decode()
    lines = re.findall(r"stroke: (#\w{6}); stroke-width: 1.5", drawn)
    marks = {colour: re.findall(rf'<path id="m\w+" d="([^"]+)" style="stroke: {colour}', drawn) for colour in lines}
    assert len(marks) == 3
    assert len({shapes[0] for shapes in marks.values()}) == 3


def drawing(run, title, **settings):
    """What the page of `run` shows under `title`, had it had these settings: its caption, and the drawing's text."""
    told = history.read(run)
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    figures = page.figures(replace(told, settings={**told.settings, **settings}), found)
    (figure,) = [figure for figure in figures if figure.title == title]
    return figure.caption, base64.b64decode(figure.image.partition(",")[2]).decode()


@pytest.mark.parametrize(
    ("settings", "told", "drawn", "not_drawn"),
    [
        (
            {"filter": {"kind": "quantile", "share": 0.4}},
            "the dotted line (smallest 40%)",
            [">smallest 40%<"],
            ["heap"],
        ),
        (
            {"filter": {"kind": "none"}},
            "Nothing is filtered by them. Believed are those on which",
            [],
            ["heap", "P(cl"],
        ),
        ({"belief": {"kind": "confident"}}, "of which the student is surest, 20% of each label's", [], []),
    ],
)
def test_losses_show_what_was_done_with_them(run, settings, told, drawn, not_drawn):
    caption, image = drawing(run, "Losses", **settings)
    assert told in caption
    assert all(each in image for each in drawn)
    assert not any(each in image for each in not_drawn)


def test_the_line_among_losses_parts_what_the_filter_passed(run):
    last = history.read(run).final
    there = ~np.isnan(last.loss)
    loss, p_clean = last.loss[there].astype(float), last.p_clean[there]
    line = boundary_gmm(loss[None, :], 0.7)
    assert "(P(clean) = 0.7)" in drawing(run, "Losses")[0]
    assert ((loss < line.loss) == (p_clean > 0.7)).all()


def test_bars_of_a_first_pass_over_some_rows_are_shares_of_these(tmp_path):
    films(tmp_path, opinions(200))
    assert freeal("run", tmp_path / "films.yaml", "--out", tmp_path / "run").code == 0
    told = history.read(tmp_path / "run")
    assert np.isnan(told.final.annotations.first).any()
    for shares in page._shares(told).values():
        assert shares.sum() == pytest.approx(1)


def test_failures_are_counted_by_round_and_reason(run, tmp_path):
    films(tmp_path, opinions(200), llm={"kind": "scripted", "keywords": LABELS, "unreadable": 0.3}, labels=LABELS)
    freeal("run", tmp_path / "films.yaml", "--out", tmp_path / "run")
    first, second = page.failures(history.read(tmp_path / "run"))
    assert (first.asked, second.asked) == (50, 200)
    assert second.by_reason["not a label"] > first.by_reason["not a label"] > 0
    assert first.retries == 0
    assert f"<td>not a label {second.by_reason['not a label']}</td>" in (tmp_path / "run/report.html").read_text(
        "utf-8"
    )
    (tmp_path / "run" / LEDGER).unlink()
    assert page.failures(history.read(tmp_path / "run"))[0].retries is None


def test_lists_that_are_shut_on_the_screen_are_printed(run):
    """By the style alone: the list is beside its `details`, not within, so that no browser can leave it out."""
    source = (run / "report.html").read_text(encoding="utf-8")
    assert "@media screen { details:not([open]) + .wide { display: none; } }" in source
    assert re.findall(r"</summary></details>\s*<div class=\"wide\">", source)
    assert len(re.findall("</summary></details>", source)) == source.count("<details")
    assert ".wide, pre { overflow-x: visible; }" in source.partition("@media print")[2]


def test_explain_tells_rounds_questions_and_why(run):
    said = freeal("explain", run, "r1")
    assert said.code == 0
    assert "r1: film 1 was awful" in said.out
    assert "round 0: asked with 0 demonstrations; reply:" in said.out
    assert "P(clean)" in said.out


def test_explain_tells_a_row_that_was_shown_from_one_that_was_only_chosen(run):
    ran = history.read(run)
    nobody, shown = ran.shown
    assert nobody == {}
    first, last = ([demo.row for demo in state.demos] for state in ran.states)
    taught = next(row for row in first if row in shown)
    left = next(row for row in first if row not in shown)
    label = shown[taught]
    told = freeal("explain", run, ran.ids[taught]).out
    assert f"in the demonstration pool of round 0 as {label!r}, shown in round 1\n" in told
    assert "in the demonstration pool of round 0 as" in (told := freeal("explain", run, ran.ids[left]).out)
    assert ", shown to nobody\n" in told
    assert "shown in round" not in told
    assert ", shown to nobody\n" in freeal("explain", run, ran.ids[last[0]]).out
    demonstrates = json.loads(freeal("explain", run, ran.ids[taught], "--json").out)["demonstrates"]
    assert demonstrates[0] == {"round": 0, "label": label, "shown": True}
    never = next(row for row in range(40) if row not in {*first, *last})
    assert "demonstration pool" not in freeal("explain", run, ran.ids[never]).out


def test_what_an_earlier_freeal_did_not_keep_is_not_told(run, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    (moved / "rounds" / "01" / "shown.json").unlink()
    ran = history.read(moved)
    chosen = explain.explain(ran, ran.ids[ran.states[0].demos[0].row]).demonstrates[0]
    assert (chosen.round, chosen.shown) == (0, None)
    assert "of them were shown in round 1" not in page.html(ran, json.loads((run / "summary.json").read_text()))


def test_the_page_tells_how_many_demonstrations_were_shown_and_that_the_last_were_not(run):
    source = (run / "report.html").read_text(encoding="utf-8")
    first, last = source.partition("Demonstrations chosen in round 0")[2].split("Demonstrations chosen in round 1")
    assert f"{len(history.read(run).shown[1])} of them were shown in round 1." in first
    assert "Nobody was shown them: it was the last round." in last


def test_explain_in_json_has_every_round_whole(run):
    found = json.loads(freeal("explain", run, "r2", "--json").out)
    assert [each["number"] for each in found["rounds"]] == [0, 1]
    for each in found["rounds"]:
        assert sum(each["final"].values()) == pytest.approx(1, abs=1e-5)
        assert each["label"] == next(iter(each["final"]))


def test_explain_shows_the_chats_as_sent(run):
    said = freeal("explain", run, "r0", "--chats")
    assert f"[user]\nFilm: {HOSTILE}" in said.out


def test_an_unknown_row_is_answered_with_the_id_most_like_it(run):
    said = freeal("explain", run, "r-1")
    assert said.code == 8
    assert "no row 'r-1' among the 40 of its pool; did you mean 'r" in said.err


def test_the_label_explained_is_the_label_written(run):
    ran = history.read(run)
    written = history.read_table(run / "labels.parquet")
    columns = [written[name] for name in ("id", "label", "source", "believed", "why")]
    for uid, *said in list(zip(*columns, strict=True))[:10]:
        last = explain.explain(ran, uid).rounds[-1]
        assert [last.label, last.source, last.clean, last.reason] == said


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A configuration with 120 rows."""
    return films(tmp_path_factory.mktemp("pool"), opinions(120), data={"gold": "gold"})


def test_a_row_that_was_never_asked_has_the_students_word_alone(pool):
    folder = pool.parent / "few-calls"
    freeal("run", pool, "--out", folder, "--max-calls", "30")
    final = history.read(folder).final
    asked = final.annotations.asked_in >= 0
    assert asked.sum() == 30
    written = history.read_table(folder / "labels.parquet")
    assert {why for why, was in zip(written["why"], asked, strict=True) if not was} == {
        "the LLM was not asked: the student's word alone"
    }
    told = freeal("explain", folder, written["id"][int(np.flatnonzero(~asked)[0])]).out
    assert "the LLM was not asked: the student's word alone\n  LLM      nothing (not asked in this round)" in told
    assert "otherwise" not in told


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("fusion.kind=freeal", "LLM and student differ: not believed, so the LLM's word stands"),
        ("fusion.student=0", "the LLM's word alone: the student, which says otherwise, has no say"),
    ],
)
def test_why_a_word_stands_is_told_as_the_run_decided(pool, setting, why):
    folder = pool.parent / setting
    freeal("run", pool, "--out", folder, "--set", setting, "--set", "rounds=1")
    written = history.read_table(folder / "labels.parquet")
    told = [(uid, each) for uid, each in zip(written["id"], written["why"], strict=True) if "agree" not in each]
    assert why in {each for _, each in told}
    assert not any("weighs more" in each for _, each in told)
    uid = next(uid for uid, each in told if each == why)
    assert f"  {why}\n" in freeal("explain", folder, uid).out


def test_without_a_student_the_llm_speaks_alone_and_no_loss_is_told(pool):
    folder = pool.parent / "alone"
    freeal("run", pool, "--out", folder, "--set", "student.kind=none", "--set", "rounds=1")
    told = freeal("explain", folder, "r1").out
    assert "the LLM's word alone: no student has a say" in told
    assert "otherwise" not in told
    assert "P(clean)" not in told
