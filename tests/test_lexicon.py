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
from freeal.candidates import Candidates
from freeal.config import LinearConfig
from freeal.errors import BudgetError
from freeal.ledger import Ledger
from freeal.lexicon import FACT, ROOM, Lexicon, evenly, listed, requests_for
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
            written = [next(text for type_, text in lists.items() if type_ in each.messages[-1].content)
                       for each in requests]  # fmt: skip
            return [Reply(text, tokens_out=ROOM if text.endswith("Pen") else 9) for text in written]

        def student():
            return LinearStudent(LinearConfig(c=10.0, folds=2), (*TYPES, "none"), 0, TfidfEmbedder(256))

        wanted = requests_for(TYPES, {"Drug": ["pill", "cure"]}, 2, 0.9, 3)
        return Lexicon(tuple(TYPES), wanted, lambda: unlabelled, student, ask, ledger, events.append)

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


def test_what_is_least_like_the_names_is_not_worth_a_question(made):
    make, _, asked = made
    worth = make().worth(POOL, "round 0")
    assert worth.tolist() == make().worth(POOL, "round 0").tolist()
    assert worth[:8][[0, 2]].all(), "Methicillin and colitis"
    assert 0.4 <= worth.mean() <= 0.7
    assert make().worth(("Zoxacillin", "window"), "round 0").tolist() == [True, False], "others, by the same measure"
    assert make().worth((), "round 0").shape == (0,)
    assert asked


def test_a_run_that_began_without_names_asks_about_all_candidates(made):
    make, _, asked = made
    assert make().worth(POOL, "test") is None
    assert not asked
    assert make(budget="nothing is left").worth(POOL, "round 0") is None
    make()(told(len(POOL)), POOL, "round 0")
    assert make().worth(POOL[:1], "test").tolist() == [True]


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
        ("Asthma\nFlu\n", ["Asthma", "Flu"]),
        ("- **Gout**: a disease\n- Gout\n* Mumps – of children\n7) Lupus, a disease", ["Gout", "Mumps", "Lupus"]),
        ("Here are some examples:\n1. Asthma\n2. 1984\n3. one two three four five\n4. x", ["Asthma", "x"]),
        ("1.Asthma\n2)Flu\n10. Gout", ["Asthma", "Flu", "Gout"]),
        ("Asthma; Flu; Gout.", ["Asthma", "Flu", "Gout"]),
        ("- asthma, flu, and gout.", ["asthma", "flu", "gout"]),
        ("- iron, zinc, lead\n- tin, gold, or silver", ["iron", "zinc", "lead", "tin", "gold", "silver"]),
        ("2,4-dinitrophenol\n1,2-propanediol", ["2,4-dinitrophenol", "1,2-propanediol"]),
        ("1. (R)-warfarin\n2. N-(2-furyl)amine\n3. Ethane (C2H6)", ["(R)-warfarin", "N-(2-furyl)amine", "Ethane"]),
        ('["aspirin", "2,4-D"]', ["aspirin", "2,4-D"]),
        ('[\n  "aspirin",\n  "ether"\n]', ["aspirin", "ether"]),
        ("1. London, England\n2. Paris", ["London", "Paris"]),
        ("Acronym: HIV\nAIDS: a disease", ["Acronym", "AIDS"]),
        ("1. Tylenol (acetaminophen, paracetamol, APAP)\n2. Ether (gas, old, sleep)", ["Tylenol", "Ether"]),
        ("1. NSAIDs: aspirin, ibuprofen, naproxen\n2. Ether", ["NSAIDs", "Ether"]),
        ("aspirin (acid, oral), ether (gas, old), tin", ["aspirin", "ether", "tin"]),
        ("Diseases: asthma, flu, gout", ["asthma", "flu", "gout"]),
        ("asthma,flu,gout", ["asthma", "flu", "gout"]),
        ("N,N-dimethylaniline, 10,11-epoxide, tin", ["N,N-dimethylaniline", "10,11-epoxide", "tin"]),
        ("1: Asthma\n2 - Flu\n(3) Gout\n•Mumps", ["Asthma", "Flu", "Gout", "Mumps"]),
        ('["aspirin","ibuprofen"]', ["aspirin", "ibuprofen"]),
        ('```json\n["aspirin", "ether"]\n```', ["aspirin", "ether"]),
        ('{"names": ["aspirin", "ether"]}', ["aspirin", "ether"]),
        ('[{"name": "Asthma"}, {"name": "Flu"}]', ["Asthma", "Flu"]),
        ("[1] Asthma\n[2] Flu (viral)", ["Asthma", "Flu"]),
        ("+ Asthma\n+ Flu", ["Asthma", "Flu"]),
        ("[Asthma, Flu, Gout]", ["Asthma", "Flu", "Gout"]),
        ("", []),
        ("…", []),
    ],
)  # fmt: skip
def test_names_are_read_from_what_llms_write(written, names):
    assert listed(written) == names


@pytest.mark.parametrize(
    "written", ["- Asthma\n- Flu\n- Gou", "Asthma, Flu, Gou", "Asthma\nFlu\nGou", '["Asthma", "Flu", "Gou']
)
def test_the_last_name_of_a_list_that_was_cut_off_is_left_out(written):
    assert listed(written, cut_off=True) == ["Asthma", "Flu"]
    assert listed(written) == ["Asthma", "Flu", *([] if "[" in written else ["Gou"])]


MARKS = (
    "- {}",
    "* {}",
    "+ {}",
    "[1] {}",
    "{}.",
    "1. {}",
    "12) {}",
    "3.{}",
    "**{}**",
    '"{}",',
    "{} - which is so",
    "{} (so)",
    "{}: so",
)
WORD = st.text("abcdefghij", min_size=1, max_size=8).filter(lambda word: word not in {"and", "or"})
NAME = st.lists(WORD, min_size=1, max_size=4).map(" ".join)


@given(st.lists(NAME, min_size=2, max_size=8, unique=True), st.sampled_from(MARKS), st.booleans())
def test_names_come_back_from_any_common_form(names, mark, cut_off):
    found = listed("Sure, here are some:\n" + "\n".join(mark.format(name) for name in names), cut_off)
    assert found == (names[:-1] if cut_off else names)


@given(st.text('ab1 ,.;:-*()[]"\n', max_size=60))
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


def judged(folder, rows=None, test=None, words=None, noise=0.0, **more):
    words = words or {"PER": PEOPLE, "LOC": PLACES}
    nobody = {"student": {"kind": "none"}, "reading": "names", "embedder": {"kind": "tfidf"}}
    rows, test = rows or sentences(40), test or sentences(60)[40:]
    job = configured(folder, rows, test, TOKENS, "tags", words, **nobody, **more)
    settings = yaml.safe_load(job.read_text(encoding="utf-8"))
    settings["llm"] |= {"probabilities": True, "noise": noise}
    job.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return job


def test_a_run_tells_what_the_lists_cost(tmp_path):
    job = judged(tmp_path)
    planned = json.loads(freeal("plan", job, "--json").out)
    assert planned["calls"]["names"] == 24
    assert planned["tokens_in"]["names"] > 24 * 15, "a word is a token"
    assert json.loads(freeal("plan", job, "--set", "stop.max_calls=30", "--json").out)["calls"]["names"] == 0
    assert "names:  none are listed: stop.max_calls" in freeal("plan", job, "--set", "stop.max_calls=30").out
    assert "24 lists of them to be written by the LLM (cold_start.names)" in freeal("plan", job).out
    runs = {}
    for count in (6, 0):
        said = freeal("run", job, "--out", tmp_path / str(count), "--set", f"cold_start.names={count}", "--json")
        assert said.code in (0, 3), said.err
        assert "pool first answers" in said.err
        assert "zero-shot" not in said.err
        runs[count] = json.loads(said.out)["rounds"][0]["usage"]["calls"]
    assert runs[6] == runs[0] + 12
    unlisted = json.loads(freeal("plan", job, "--set", "cold_start.names=0", "--json").out)
    assert (unlisted["calls"]["names"], unlisted["tokens_in"]["names"]) == (0, 0)


FOLK = ["Ann Lee", "Bob", "Carla Diaz", "Dan Fox", "Eve Lind", "Finn"]
TOWNS = ["Rome", "Lake Como", "Peru", "Oslo", "Cork", "Lima"]


@pytest.fixture(scope="module")
def heedless(tmp_path_factory):
    """Sentences that an LLM reads poorly, though it can name people and places; runs with its lists and without."""
    folder = tmp_path_factory.mktemp("heedless")
    rows = []
    for i in range(80):
        frame = ("{} met Yours Truly in {} .", "In {1} , {0} slept .", "Nobody in Town spoke .")[i % 3]
        tokens = frame.format(FOLK[i % 6], TOWNS[i // 3 % 6]).split()
        named = {words[0]: (len(words), type_) for type_, some in (("PER", FOLK), ("LOC", TOWNS))
                 for words in map(str.split, some)}  # fmt: skip
        tags = ["O"] * len(tokens)
        for place, token in enumerate(tokens):
            if token in named:
                count, type_ = named[token]
                tags[place : place + count] = [f"B-{type_}", *[f"I-{type_}"] * (count - 1)]
        rows.append({"id": f"s{i}", "tokens": tokens, "tags": tags})
    job = judged(folder, rows[:50], rows[50:], {"PER": FOLK, "LOC": TOWNS}, noise=0.5)
    runs = {}
    for count in (6, 0):
        said = freeal("run", job, "--out", folder / str(count), "--set", f"cold_start.names={count}", "--json")
        assert said.code in (0, 3), said.err
        runs[count] = json.loads(said.out)
    return job, folder, runs


def test_lists_make_the_labels_of_a_run_better(heedless):
    _, _, runs = heedless
    for rows in ("pool", "test"):
        with_lists, without = (runs[count][rows]["llm"]["micro_f1"] for count in (6, 0))
        assert with_lists > without + 0.1, rows


def test_a_run_that_broke_after_the_lists_asks_for_them_once(heedless, tmp_path, monkeypatch):
    job, folder, runs = heedless

    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Candidates, "_composed", broken)
        assert freeal("run", job, "--out", tmp_path / "run", "--set", "cold_start.names=6").code not in (0, 3)
    assert not (tmp_path / "run" / "labels.csv").exists()
    resumed = freeal("run", tmp_path / "run", "--json")
    assert resumed.code in (0, 3), resumed.err
    assert (tmp_path / "run" / "labels.csv").read_bytes() == (folder / "6" / "labels.csv").read_bytes()
    assert json.loads(resumed.out)["usage"]["calls"] == runs[6]["usage"]["calls"]


@pytest.mark.parametrize(("most", "listed_"), [(50, True), (30, False)])
def test_lists_are_put_aside_or_left_out(tmp_path, most, listed_):
    said = freeal("run", judged(tmp_path), "--out", tmp_path / "run", "--max-calls", most, "--json")
    assert said.code in (0, 3), said.err
    assert json.loads(said.out)["usage"]["calls"] <= most
    assert ("no names are listed: too few calls" in said.err) is not listed_


def test_that_no_names_are_listed_without_calibration_is_told(tmp_path):
    said = freeal("run", judged(tmp_path), "--out", tmp_path / "run", "--set", "calibration.kind=none", "--json")
    assert said.code in (0, 3), said.err
    assert "no names are listed: without calibration there are no shares to keep" in said.err


@pytest.mark.parametrize("name", ["zero-shot", "calibrated", "few-shot", "distilled"])
def test_methods_that_others_are_measured_by_list_nothing(tmp_path, name):
    wanted = ["cold_start.names=8"]
    chosen = study.settings(judged(tmp_path), tmp_path, study.methods([name])[0], 0, wanted)
    assert not chosen.lists_names


@pytest.mark.parametrize("preset", ["zero-shot", "freeal-paper"])
def test_the_llm_as_it_answers_lists_nothing(preset):
    settings = yaml.safe_load((Path(__file__).parent.parent / "freeal/presets" / f"{preset}.yaml").read_text("utf-8"))
    assert settings["cold_start"]["names"] == 0
