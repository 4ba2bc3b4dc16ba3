"""Names that the LLM lists, and what they say of the candidates of a text."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commandline import freeal
from hypothesis import given
from hypothesis import strategies as st
from test_kinds import PEOPLE, PLACES, TOKENS, configured, sentences

from freeal import study
from freeal.config import LinearConfig
from freeal.errors import BudgetError
from freeal.ledger import Ledger
from freeal.lexicon import FACT, Lexicon, evenly, listed
from freeal.llm import Reply
from freeal.student.embedders import TfidfEmbedder
from freeal.student.linear import LinearStudent

TYPES = {"Drug": "a medicine", "Illness": ""}
LISTS = {
    "Drug": "Sure, gladly:\n1. Amoxicillin\n2. Ampicillin (new)\n3. Penicillin\n4. Oxacillin\n5. Bacillin\n6. Pen",
    "Illness": "bronchitis, arthritis, hepatitis, gastritis, dermatitis",
}
POOL = ("Methicillin", "table", "colitis", "window", "went", "walked", "seven", "Monday") * 5


@pytest.fixture
def made(tmp_path):
    """Makes lexicons that share one ledger; what they tell, and what they ask, is kept beside them."""
    events, asked = [], []

    def make(lists=LISTS, unlabelled=POOL, budget=None):
        def ask(requests):
            if budget is not None:
                raise BudgetError(budget)
            asked.extend(requests)
            return [Reply(next(text for type_, text in lists.items() if type_ in each.messages[-1].content))
                    for each in requests]  # fmt: skip

        def student():
            return LinearStudent(LinearConfig(c=10.0, folds=2), (*TYPES, "none"), 0, TfidfEmbedder(256))

        return Lexicon(
            TYPES, {"Drug": ["pill", "cure"]}, 2, lambda: unlabelled, student, ask, 0.9, 3, ledger, events.append
        )

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield make, events, asked


def test_a_run_keeps_to_how_it_began(made):
    make, _, asked = made
    later = make()
    assert later(told(3), POOL[:3], "round 1") == pytest.approx(told(3))
    assert not asked
    later(told(len(POOL)), POOL, "round 0")
    assert later(told(len(POOL)), POOL, "round 1")[0, 0] > 0.25
    assert make()(np.full((2, 3), np.nan), POOL[:2], "round 0").shape == (2, 3)
    assert len(asked) == 4


def told(n):
    return np.tile([0.2, 0.2, 0.6], (n, 1))


def test_a_candidate_like_the_names_of_a_type_becomes_likelier_to_be_one(made):
    make, events, asked = made
    proba = make()(told(len(POOL)), POOL, "round 0")
    drug, table, illness = proba[:3]
    assert drug[0] > table[0] + 0.05
    assert illness[1] > table[1] + 0.05
    assert proba.sum(axis=1) == pytest.approx(1)
    said = events[-1].message
    assert said.startswith("10 names that the LLM listed have a say on the candidates (Drug: Amoxicillin, Ampicillin, ")
    assert said.endswith("Illness: bronchitis, arthritis, hepatitis, …)")
    assert len(asked) == 4
    assert len({each.seed for each in asked[:2]}) == 2
    assert [each.messages[-1].content.partition(" of ")[2] for each in asked] == [
        "pill (Drug: a medicine).", "cure (Drug: a medicine).", "Illness.", "Illness.",
    ]  # fmt: skip


def test_each_type_stays_as_frequent_as_the_llm_has_it(made):
    make, _, _ = made
    rng = np.random.default_rng(0)
    proba = rng.dirichlet([1, 2, 5], len(POOL))
    corrected = make()(proba, POOL, "round 0")
    assert np.abs(corrected - proba).max() > 0.05
    assert corrected.mean(axis=0) == pytest.approx(proba.mean(axis=0), abs=1e-3)


def test_what_the_llm_did_not_answer_stays_open(made):
    make, _, _ = made
    proba = told(len(POOL))
    proba[3] = np.nan
    corrected = make()(proba, POOL, "round 0")
    assert np.isnan(corrected[3]).all()
    assert not np.isnan(np.delete(corrected, 3, axis=0)).any()
    none = np.full((2, 3), np.nan)
    assert np.isnan(make()(none, POOL[:2], "round 0")).all()
    assert make()(np.zeros((0, 3)), (), "round 0").shape == (0, 3)


def test_a_test_is_read_as_the_first_round_was(made):
    make, _, _ = made
    assert make()(told(3), POOL[:3], "test") == pytest.approx(told(3))
    first = make()(told(len(POOL)), POOL, "round 0")
    again = make()
    assert again(told(3), POOL[:3], "test") == pytest.approx(first[:3])
    assert isinstance(again.ledger.recall(FACT), list)


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        (
            {"lists": {**LISTS, "Illness": "I cannot help with that, as it would be very long indeed."}},
            "of Illness were",
        ),
        ({"budget": "nothing is left"}, "no names are listed: nothing is left"),
        ({"unlabelled": ()}, "judges alone"),
    ],
)
def test_without_names_the_llm_judges_alone(made, changed, note):
    make, events, _ = made
    lexicon = make(**changed)
    assert lexicon(told(3), POOL[:3], "round 0") == pytest.approx(told(3))
    assert any(note in each.message for each in events)
    assert lexicon(told(3), POOL[:3], "test") == pytest.approx(told(3))


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("Asthma\nFlu\n", ["Asthma"]),
        ("Asthma\nFlu.\n", ["Asthma", "Flu"]),
        (
            "- **Gout**: a disease\n- Gout\n* Mumps – of children\n7) Lupus, a disease\n- cut o",
            ["Gout", "Mumps", "Lupus"],
        ),
        ("Here are some examples:\n1. Asthma\n2. 1984\n3. one two three four five\n4. x", ["Asthma"]),
        ("Asthma; Flu; Gout.", ["Asthma", "Flu", "Gout"]),
        ("", []),
        ("…", []),
    ],
)
def test_names_are_read_from_what_llms_write(written, names):
    assert listed(written) == names


@given(st.text(max_size=200))
def test_every_name_stands_in_what_was_written(written):
    plain = written.replace("**", "")
    for name in listed(written):
        assert name in plain
        assert any(map(str.isalpha, name))


@given(st.lists(st.integers(0, 2), max_size=20))
def test_types_weigh_alike_and_as_much_as_all_else(types):
    every = np.array([0, 1, 2, *types, 3, 3, 3])
    named = int((every < 3).sum())
    weights = evenly(every, named)
    sums = np.bincount(every, weights)
    assert sums[:3] == pytest.approx(np.full(3, named / 3))
    assert sums[3] == pytest.approx(named)


def judged(folder, **more):
    words = {"PER": PEOPLE, "LOC": PLACES}
    nobody = {"student": {"kind": "none"}, "reading": "names", "embedder": {"kind": "tfidf"}}
    job = configured(folder, sentences(40), sentences(60)[40:], TOKENS, "tags", words, **nobody, **more)
    settings = yaml.safe_load(job.read_text(encoding="utf-8"))
    settings["llm"] |= {"probabilities": True, "noise": 0.0}
    job.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return job


def test_a_run_tells_what_the_lists_cost(tmp_path):
    job = judged(tmp_path)
    planned = json.loads(freeal("plan", job, "--json").out)
    assert planned["calls"]["names"] == 12
    assert "12 lists of them to be written by the LLM (cold_start.names)" in freeal("plan", job).out
    runs = {}
    for count in (6, 0):
        said = freeal("run", job, "--out", tmp_path / str(count), "--set", f"cold_start.names={count}", "--json")
        assert said.code in (0, 3), said.err
        runs[count] = json.loads(said.out)["rounds"][0]["usage"]["calls"]
    assert runs[6] == runs[0] + 12
    assert freeal("plan", job, "--set", "cold_start.names=0", "--json").out.count('"names": 0') == 1


@pytest.mark.parametrize(("most", "listed_"), [(30, True), (20, False)])
def test_lists_are_put_aside_or_left_out(tmp_path, most, listed_):
    said = freeal("run", judged(tmp_path), "--out", tmp_path / "run", "--max-calls", most, "--json")
    assert said.code in (0, 3), said.err
    assert json.loads(said.out)["usage"]["calls"] <= most
    assert ("no names are listed: too few calls" in said.err) is not listed_


@pytest.mark.parametrize("name", ["zero-shot", "calibrated", "few-shot", "distilled"])
def test_methods_that_others_are_measured_by_list_nothing(tmp_path, name):
    wanted = ["cold_start.names=8"]
    chosen = study.settings(judged(tmp_path), study.methods([name])[0], 0, tmp_path, wanted)
    assert not chosen.lists_names


@pytest.mark.parametrize("preset", ["zero-shot", "freeal-paper"])
def test_the_llm_as_it_answers_lists_nothing(preset):
    settings = yaml.safe_load((Path(__file__).parent.parent / "freeal/presets" / f"{preset}.yaml").read_text("utf-8"))
    assert settings["cold_start"]["names"] == 0
