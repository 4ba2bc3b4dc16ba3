"""An LLM that cannot read labels but can write texts of them."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from commandline import freeal, undocumented
from hypothesis import given
from hypothesis import strategies as st
from test_pipeline import WORDS, go, settings

from freeal import build, config
from freeal.annotator import Annotator
from freeal.config import LinearConfig
from freeal.errors import BudgetError
from freeal.llm import Reply
from freeal.llm.scripted import ScriptedLLM
from freeal.parts import llms
from freeal.select.calibration import Calibrator, information, temperature, tempered
from freeal.select.gates import warnings
from freeal.student.embedders import TfidfEmbedder
from freeal.student.linear import LinearStudent
from freeal.types import Answers, Demonstration, LoopState, StudentView, argmax
from freeal.understudy import FACT, Understudy, beyond_chance

LABELS = list(WORDS)[:2]


def texts(n, seed=0):
    """Texts of the two labels in turn, with words of these and some that say nothing; none is repeated."""
    rng = np.random.default_rng(seed)
    noise = [" ".join([*rng.choice(["so", "it", "is", "now", "here"], 3), str(i)]) for i in range(n)]
    return [f"{said} {WORDS[LABELS[i % 2]][i // 2 % 2]} please" for i, said in enumerate(noise)]


def lessons(count):
    return [Demonstration(text, LABELS[i % 2]) for i, text in enumerate(texts(count, 1))]


def understudy(written=lessons, most=40, least=0.08, below=0.2):
    events, facts = [], {}

    class Facts:
        def remember(self, name, value):
            facts[name] = value

        def recall(self, name, alone=False):
            return facts.get(name)

    pool = texts(40)
    vectors = TfidfEmbedder(32)
    calibrate = Calibrator("batch", "latest", min_information=least)
    found = Understudy(
        calibrate, pool, LABELS, below, lambda: most, written,
        lambda: LinearStudent(LinearConfig(), LABELS, 0, vectors), Facts(), events.append,
    )  # fmt: skip
    return found, events, facts


def heard(proba):
    n = len(proba)
    return Answers(np.arange(n), np.asarray(proba, np.float32), np.ones(n, bool), (None,) * n)


ALIKE = heard(np.tile([0.6, 0.4], (20, 1)))
APART = heard(np.tile([[0.95, 0.05], [0.05, 0.95]], (10, 1)))


def start(n=40):
    return LoopState.start(n, (2,), ())


def test_where_answers_are_all_alike_it_labels_the_whole_pool():
    found, events, facts = understudy()
    said = found(start(), ALIKE)
    assert (argmax(said.proba) == np.arange(40) % 2).mean() > 0.9
    assert (said.asked_in[:20] == 0).all()
    assert (said.asked_in[20:] == -1).all()
    assert said.first[:20] == pytest.approx(ALIKE.proba)
    assert facts[FACT]["written"] == 40
    assert facts[FACT]["out_of_fold"] > 0.8
    assert "a student of 40 texts that the LLM wrote" in events[-1].message


def test_a_run_that_is_resumed_asks_for_as_many_texts_as_before():
    found, _, _ = understudy(most=40)
    found(start(), ALIKE)
    killed, asked = replace(found, most=lambda: 0), []
    again = replace(killed, write=lambda count: asked.append(count) or lessons(count))
    assert (again(start(), ALIKE).proba == found(start(), ALIKE).proba).all()
    assert asked == [40]


def in_part_wrong(count):
    """Two texts of ten have the other label."""
    return [replace(each, label=LABELS[(i + (i % 10 < 2)) % 2]) for i, each in enumerate(lessons(count))]


LITTLE = heard(np.tile([[0.76, 0.24], [0.24, 0.76]], (10, 1)))
"""They tell a fifth of what they might: more than is needed to go on, less than the texts do."""


def test_answers_that_tell_something_give_way_to_one_who_tells_more():
    told = information(LITTLE.proba)
    assert 0.19 < told < 0.22
    found, _, facts = understudy(below=0.25)
    assert (argmax(found(start(), LITTLE).proba) == np.arange(40) % 2).mean() > 0.9
    assert facts[FACT]["told"] > told


def test_one_who_tells_less_than_the_answers_does_not_take_over():
    found, events, facts = understudy(in_part_wrong, below=0.25)
    said = found(start(), LITTLE)
    assert FACT not in facts
    assert "no better" in events[-1].message
    assert np.array_equal(said.proba, found.calibrate(start(), LITTLE).proba, equal_nan=True)
    found(start(), ALIKE)
    assert 0 < facts[FACT]["told"] < information(LITTLE.proba)


def test_answers_that_tell_next_to_nothing_do_not_win_by_telling_more():
    """As on SUBJ in eight bits: the answers told .0402, the texts .0393, right on .49 and .76 of the pool."""
    classes = np.arange(40) % 2
    said = heard(np.tile([[0.64, 0.36], [0.36, 0.64]], (10, 1)))
    student = Stub(says(classes, 12, 0.6), says(classes, 18, 0.6))
    found, _, facts = understudy(lambda count: [Demonstration(f"text {i}", LABELS[c]) for i, c in enumerate(classes)])
    found = replace(found, student=lambda: student)
    found(start(), said)
    assert facts.pop(FACT)["told"] < information(said.proba) < 0.08
    replace(found, calibrate=replace(found.calibrate, min_information=0.0))(start(), said)
    assert FACT not in facts


def test_one_who_is_modest_takes_over_from_answers_that_tell_less_and_stays_as_sure():
    """As on SUBJ, where 55 written texts are hard to tell apart, and the pool is not."""
    found, _, facts = understudy(in_part_wrong, least=0.9, below=0.95)
    said = found(start(), ALIKE)
    assert facts[FACT]["told"] < 0.9
    assert (argmax(said.proba) == np.arange(40) % 2).mean() > 0.9
    assert information(said.proba) == pytest.approx(facts[FACT]["told"], abs=0.02)


class Stub:
    """A student that says what it is told to, of its lessons and of the pool."""

    def __init__(self, of_lessons, of_pool):
        self.out_of_fold_, self.of_pool = np.asarray(of_lessons), np.asarray(of_pool)

    def fit(self, inputs, targets):
        return self

    def view(self, inputs):
        return StudentView(self.of_pool, np.zeros((len(self.of_pool), 1)))


def says(classes, right, sure=0.7):
    """(m, 2): the first `right` of every twenty rows are right."""
    said = np.where(np.arange(len(classes)) % 20 < right, classes, 1 - classes)
    return np.where(np.eye(2)[said] == 1, sure, 1 - sure)


@pytest.mark.parametrize(
    ("classes", "right", "takes_over"),
    [(np.arange(40) % 2, 12, True), (np.arange(40) % 2, 11, False), (np.arange(40) % 20 // 16, 16, False)],
    ids=["better than chance", "hardly better", "as often as the commonest label"],
)
def test_who_tells_something_has_to_be_right_of_its_lessons_more_often_than_chance(classes, right, takes_over):
    written = [Demonstration(f"text {i}", LABELS[c]) for i, c in enumerate(classes)]
    found, _, facts = understudy(lambda count: written)
    of_lessons, of_pool = says(classes, right), says(np.arange(40) % 2, 18)
    assert information(tempered(of_pool, temperature(of_lessons, classes))) > 0
    found = replace(found, student=lambda: Stub(of_lessons, of_pool))
    found(start(), ALIKE)
    assert (FACT in facts) is takes_over


@pytest.mark.parametrize(
    ("right", "classes", "enough"),
    [
        (0.62, np.arange(55) % 2, True),
        (0.56, np.arange(55) % 2, False),
        (0.3, np.arange(60) % 5, True),
        (0.85, np.arange(33) // 28, False),
    ],
)
def test_better_than_the_commonest_label_by_a_standard_error(right, classes, enough):
    assert beyond_chance(right, classes) is enough


def test_nothing_is_written_where_the_answers_tell_enough():
    found, _, facts = understudy(lambda count: pytest.fail("texts were written"), below=0.15)
    found(start(), LITTLE)
    assert FACT not in facts


@pytest.mark.parametrize(
    ("answers", "state"),
    [(APART, start()), (heard(ALIKE.proba[:5]), start()), (ALIKE, LoopState.start(40, (2,), ()))],
    ids=["they tell labels apart", "too few to say", "a later round"],
)
def test_otherwise_it_is_as_if_there_were_none(answers, state):
    found, _, facts = understudy(lambda count: pytest.fail("texts were written"))
    state = replace(state, next_round=1) if answers is ALIKE else state
    said, without = found(state, answers), found.calibrate(state, answers)
    assert np.array_equal(said.proba, without.proba, equal_nan=True)
    assert FACT not in facts


@pytest.mark.parametrize(
    ("written", "most", "told"),
    [
        (lambda count: [], 40, "too few texts of every label"),
        (lambda count: lessons(count)[::2], 40, "too few texts of every label"),
        (lambda count: pytest.fail("texts were written"), 1, "too few texts of every label"),
        (
            lambda count: [Demonstration(f"text {i}", LABELS[i // 2 % 2]) for i in range(count)],
            40,
            "tells the labels apart no better",
        ),
    ],
    ids=["nothing written", "one label", "no calls left", "texts that say nothing"],
)
def test_what_teaches_nothing_changes_nothing(written, most, told):
    found, events, facts = understudy(written, most)
    assert np.array_equal(found(start(), ALIKE).proba, found.calibrate(start(), ALIKE).proba, equal_nan=True)
    assert told in events[-1].message
    assert FACT not in facts


def test_a_budget_that_ends_while_texts_are_written_keeps_the_round():
    def spent(count):
        raise BudgetError("no dollar left")

    found, events, _ = understudy(spent)
    assert np.array_equal(found(start(), ALIKE).proba, found.calibrate(start(), ALIKE).proba, equal_nan=True)
    assert any("no dollar left" in event.message for event in events)


# --- how sure it may be


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5.0))
def test_the_temperature_that_was_added_is_found_again(seed, added):
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([1.0, 1.0, 1.0], 3000).astype(np.float64)
    classes = (rng.random((3000, 1)) > true.cumsum(1)).sum(1).clip(0, 2)
    assert temperature(tempered(true, 1 / added), classes) == pytest.approx(added, rel=0.35)


def test_tempering_keeps_labels_order_and_abstentions():
    proba = np.array([[0.6, 0.3, 0.1], [np.nan] * 3], np.float32)
    for by in (0.3, 1.0, 3.0):
        found = tempered(proba, by)
        assert found[0].sum() == pytest.approx(1.0)
        assert list(np.argsort(found[0])) == [2, 1, 0]
        assert np.isnan(found[1]).all()
    assert tempered(proba, 0.3)[0, 0] > 0.6 > tempered(proba, 3.0)[0, 0]


# --- in a run


def blind(request):
    """Every label as likely as the other; asked for a text, one with a word of the label."""
    if request.choices:
        return Reply(request.choices[0], (math.log(0.6), math.log(0.4)), 1, 1)
    label = re.search("|".join(LABELS), request.messages[-1].content.rpartition("about something else")[2])[0]
    return f"text {request.seed} has the {WORDS[label][request.seed % 2]}"


def finished(folder, answer=blind, **more):
    chosen = settings(folder, **more)
    folder = folder / "run"
    folder.mkdir(exist_ok=True)
    events = []
    job = build.job(chosen, *build.inputs(chosen, config.Path(chosen.prompt)), folder, events.append)
    llm = ScriptedLLM(answer, probabilities=True)
    parts = build.parts(chosen, job.corpus, Annotator(job.prompt, llm, job.ledger, events.append), events.append)
    return *go(replace(job, parts=parts)), llm, events


def test_a_run_whose_llm_reads_nothing_ends_with_the_labels_of_what_it_wrote(tmp_path):
    reason, found, _, _ = finished(tmp_path, n=120)
    assert reason.startswith("the LLM hardly tells the labels apart")
    assert found["pool"]["zero_shot"]["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert found["pool"]["final"]["accuracy"] > 0.9
    assert found["usage"]["calls"] == 50 + 60
    assert found["rounds"][0]["understudy"]["written"] > 40
    assert "texts that it wrote" in found["warnings"][0]


def test_it_is_measured_on_all_that_it_labelled_and_the_test_has_the_labels_of_the_student(tmp_path):
    def of_one_word(request):
        said = blind(request)
        for first, second in () if request.choices else (WORDS[label][:2] for label in LABELS):
            said = said.replace(second, first)
        return said

    unseen = [{"id": f"t{i}", "text": text, "gold": LABELS[i % 2]} for i, text in enumerate(texts(30, 2))]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, unseen)), encoding="utf-8")
    held_out = {"pool": "pool.jsonl", "gold": "gold", "test": "test.jsonl"}
    _, found, _, _ = finished(tmp_path, of_one_word, n=120, data=held_out)

    last = tmp_path / "run/rounds/00"
    said = pd.read_parquet(last / "annotations.parquet")
    right = said[[f"llm: {label}" for label in LABELS]].to_numpy().argmax(1) == np.arange(120) % 2
    asked = said["asked_in"].to_numpy() >= 0
    assert right[asked].mean() != pytest.approx(right.mean(), abs=0.005)
    assert found["pool"]["llm"]["accuracy"] == pytest.approx(right.mean())

    read = pd.read_parquet(last / "test.parquet")
    for label in LABELS:
        assert read[f"final: {label}"].to_list() == pytest.approx(read[f"student: {label}"].to_list(), abs=1e-5)
    assert found["test"]["final"]["accuracy"] > found["test"]["llm"]["accuracy"]


@pytest.mark.parametrize(
    "more",
    [{"cold_start": {"rescue": 0}}, {"rounds": 1}, {"calibration": {"kind": "none"}}, {"preset": "freeal-paper"}],
    ids=["switched off", "one round", "words as they are", "as published"],
)
def test_none_is_asked_for_where_none_is_wanted(tmp_path, more):
    quiet = {"cold_start": {"kind": "none"}} if "preset" in more else {}
    _, found, llm, _ = finished(tmp_path, **(quiet | more))
    assert all(request.choices for request in llm.requests)
    assert found["rounds"][0]["understudy"] is None


def test_it_writes_no_more_texts_than_calls_are_left(tmp_path):
    _, found, llm, _ = finished(tmp_path, n=120, stop={"max_calls": 60})
    assert found["usage"]["calls"] == 60
    assert sum(not request.choices for request in llm.requests) == 10


def test_the_warning_names_it():
    state = understudy()[0](start(), ALIKE)
    told = warnings(
        state.proba, state.proba, state, np.ones(40, bool), 0.5, 0.08, {"written": 53, "out_of_fold": 0.717}
    )
    assert "a student of 53 texts that it wrote, 72% right on such" in told[0]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The directory of such a run, begun at the command line."""
    settings(tmp_path, n=120)
    monkeypatch.setattr(llms, "llm", lambda *wanted: ScriptedLLM(blind, probabilities=True))
    said = freeal("run", tmp_path / "run.yaml", "--out", tmp_path / "run")
    assert said.code == 3
    assert "texts that it wrote" in said.err
    return tmp_path / "run"


def test_a_row_tells_whose_word_it_has(kept):
    told = freeal("explain", kept, "r7").out
    assert "understudy  " in told
    assert "LLM and student" not in told


def test_the_report_tells_whose_words_they_are(kept):
    page = (kept / "report.html").read_text(encoding="utf-8")
    assert "<td>understudy</td>" in page
    assert "| understudy |" in (kept / "summary.md").read_text(encoding="utf-8")


def test_every_key_of_its_summary_is_documented(kept):
    assert undocumented(kept) == set()


def test_status_counts_what_was_written_and_whom_it_labelled(kept):
    found = json.loads(freeal("status", kept, "--json").out)
    assert found["rows"] == {"labelled": 120}
    assert found["works"]["understudy"] == {"written": 60}
    assert found["works"]["round 0"] == {"labelled": 50}


def test_a_finished_run_that_is_resumed_asks_nothing(kept, monkeypatch):
    monkeypatch.setattr(llms, "llm", lambda *wanted: ScriptedLLM(lambda request: pytest.fail("asked"), True))
    before = (kept / "labels.csv").read_bytes()
    assert freeal("run", "--resume", kept).code == 3
    assert (kept / "labels.csv").read_bytes() == before
