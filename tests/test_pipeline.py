"""The loop, whole: a scripted LLM, a linear student, sixty made-up texts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from pyarrow import parquet

from freeal import build, config, pipeline, report
from freeal.annotator import Annotator
from freeal.errors import BudgetError, LLMError, Unfit
from freeal.events import Note, RoundFinished
from freeal.llm.scripted import ScriptedLLM
from freeal.types import argmax

WORDS = {
    "delivery": ["parcel", "courier"],
    "refund": ["money", "return"],
    "damaged": ["broken", "cracked"],
    "billing": ["invoice", "charged"],
    "account": ["password", "login"],
    "praise": ["thanks", "wonderful"],
}
PROMPT = "---\nlabels: [{labels}]\n---\n## user\nMessage: {{{{ text }}}}\n\n## assistant\n{{{{ label }}}}\n"
FRAMES = ("number {} about the {}", "hello {}, it is the {} again", "{}: what of my {}?", "once more {}, {} please")


def texts_of(labels, n):
    """Made-up messages, their labels in turn."""
    words = [WORDS[label] for label in labels]
    k = len(labels)
    return [FRAMES[i % 4].format(i, words[i % k][i // k % 2]) for i in range(n)]


def settings(folder, n=60, k=2, preset="default", noise=0.2, unreadable=0.1, **more):
    """A configuration file for `n` texts of `k` labels, read back."""
    labels = list(WORDS)[:k]
    lines = [{"id": f"r{i}", "text": text, "gold": labels[i % k]} for i, text in enumerate(texts_of(labels, n))]
    (folder / "pool.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (folder / "prompt.md").write_text(PROMPT.format(labels=", ".join(labels)), encoding="utf-8")
    keywords = {label: WORDS[label] for label in labels}
    wanted = {
        "preset": preset, "rounds": 3, "prompt": "prompt.md", "data": {"pool": "pool.jsonl", "gold": "gold"},
        "llm": {"kind": "scripted", "keywords": keywords, "noise": noise, "unreadable": unreadable},
        "embedder": {"kind": "tfidf", "dimensions": 64}, "student": {"kind": "linear"}, "stop": {"min_change": 0.0},
    } | more  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(wanted), encoding="utf-8")
    return config.load(folder / "run.yaml")


def prepare(chosen, folder, emit=lambda event: None, answer=None):
    folder.mkdir(exist_ok=True)
    job = build.job(chosen, *build.inputs(chosen, config.Path(chosen.prompt)), folder, emit)
    if answer is None:
        return job
    annotator = Annotator(job.prompt, ScriptedLLM(answer), job.ledger, emit)
    return replace(job, parts=build.parts(chosen, job.corpus, annotator, emit))


def go(job, rounds=None):
    """Run to the end, write the report; gives why it stopped and the summary."""
    chosen = job.config
    reason = pipeline.run(job.corpus.pool, job.parts, job.store, (len(job.prompt.labels),), rounds or chosen.rounds)
    found = report.write(chosen, job.corpus, job.store, job.ledger, reason, "freeal run")
    job.ledger.close()
    return reason, found


def labels_of(folder):
    return parquet.read_table(folder / "labels.parquet").to_pydict()


def test_three_rounds_straight_are_one_round_and_two_more(tmp_path):
    chosen = settings(tmp_path)
    go(prepare(chosen, tmp_path / "straight"))
    go(prepare(chosen, tmp_path / "halting"), rounds=1)
    go(prepare(chosen, tmp_path / "halting"))
    for name in ("labels.parquet", "labels.csv", "rounds/02/posterior.parquet", "rounds/02/demonstrations.jsonl"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "halting" / name).read_bytes()


BY_STUDENT = {"retrieve": "nearest", "vectors": "student", "shots": 4}


def test_rounds_are_the_same_after_a_halt_where_rows_are_compared_by_the_student(tmp_path, tiny_encoder):
    student = {"kind": "transformer", "model": str(tiny_encoder), "epochs": 1, "min_steps": 0, "device": "cpu"}
    chosen = settings(tmp_path, demos=BY_STUDENT, student=student)
    go(prepare(chosen, tmp_path / "straight"))
    go(prepare(chosen, tmp_path / "halting"), rounds=1)
    go(prepare(chosen, tmp_path / "halting"))
    for name in ("labels.csv", "rounds/02/posterior.parquet", "rounds/02/vectors.npy"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "halting" / name).read_bytes()
    job = prepare(chosen, tmp_path / "halting")
    job.ledger.close()
    state, rows = job.store.resume(), np.arange(60)
    shown = [job.parts.demos.retrieve(job.corpus.pool, rows, each) for each in (state, replace(state, vectors=None))]
    assert shown[0] != shown[1]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"demos": {**BY_STUDENT, "retrieve": "shared"}}, "set demos.retrieve to nearest or clusters"),
        ({}, "a student of kind linear has no vectors of its own; set student.kind to transformer"),
        ({"student": {"kind": "transformer"}, "rounds": 1}, "set rounds to 2 or more, or vectors to embedder"),
    ],
)
def test_vectors_of_a_student_that_there_are_not_are_refused(tmp_path, more, told):
    with pytest.raises(Unfit, match=told):
        prepare(settings(tmp_path, **{"demos": BY_STUDENT, **more}), tmp_path / "run")


@pytest.mark.parametrize("judge", ["linear", "cross_fitted"])
def test_co_teaching_without_a_filter_to_weigh_rows_by_is_refused(tmp_path, judge):
    student = {"kind": "transformer", "objective": "coteaching", "judge": judge}
    build.inputs(settings(tmp_path, student=student), tmp_path / "prompt.md")
    with pytest.raises(Unfit, match="coteaching weighs rows by the filter; set filter"):
        build.inputs(settings(tmp_path, student=student, filter={"kind": "none"}), tmp_path / "prompt.md")


@pytest.mark.parametrize(("kind", "told"), [("none", True), ("gmm", False)])
def test_the_loss_of_freeal_without_a_filter_says_what_is_left_of_it(tmp_path, kind, told):
    heard = []
    chosen = settings(tmp_path, preset="freeal-paper", student={"kind": "transformer"}, filter={"kind": kind})
    prepare(chosen, tmp_path / "run", heard.append).ledger.close()
    assert told == any("all rows count as clean" in each.message for each in heard if isinstance(each, Note))


def test_who_shows_nothing_compares_nothing(tmp_path):
    prepare(settings(tmp_path, demos={**BY_STUDENT, "kind": "none"}), tmp_path / "run").ledger.close()


def test_a_finished_run_that_is_resumed_does_nothing_more(tmp_path):
    chosen = settings(tmp_path)
    go(prepare(chosen, tmp_path / "run"))
    before = (tmp_path / "run" / "labels.parquet").read_bytes()
    job = prepare(chosen, tmp_path / "run", answer=lambda request: pytest.fail("asked again"))
    assert go(job)[0] == "3 rounds are done"
    assert (tmp_path / "run" / "labels.parquet").read_bytes() == before


def test_rounds_make_the_labels_better_than_zero_shot(tmp_path):
    reason, found = go(prepare(settings(tmp_path), tmp_path / "run"))
    assert reason == "3 rounds are done"
    assert found["pool"]["final"]["accuracy"] > found["pool"]["zero_shot"]["accuracy"]
    assert found["pool"]["final"]["coverage"] == 1.0


def test_abstentions_are_counted_and_never_trained_on(tmp_path):
    job = prepare(settings(tmp_path, unreadable=0.4, query={"scout": 1.0}), tmp_path / "run")
    _, found = go(job, rounds=1)
    state = job.store.resume()
    nothing = ~state.annotations.labelled
    assert found["rounds"][0]["labelled"] == 60 - nothing.sum() < 60
    assert found["pool"]["llm"]["coverage"] == pytest.approx(1 - nothing.mean())
    assert not state.clean[nothing].any()
    assert (state.p_clean[nothing] == 0).all()
    assert all(problem.startswith("not a label") for problem in state.annotations.problems[nothing])


def test_every_row_is_asked_again_with_demonstrations(tmp_path):
    job = prepare(settings(tmp_path), tmp_path / "run")
    go(job, rounds=2)
    assert (job.store.load(job.store.finished()[1]).annotations.asked_in == 1).all()


def test_believed_rows_need_not_be_asked_again(tmp_path):
    job = prepare(settings(tmp_path, query={"kind": "not_clean"}), tmp_path / "run")
    go(job, rounds=2)
    first, second = (job.store.load(folder) for folder in job.store.finished())
    assert first.clean.any()
    assert (second.annotations.asked_in[first.clean] == 0).all()
    assert (second.annotations.asked_in[~first.clean] == 1).all()


def test_every_finished_round_is_told(tmp_path):
    events = []
    go(prepare(settings(tmp_path), tmp_path / "run", events.append))
    finished = [event for event in events if isinstance(event, RoundFinished)]
    assert [event.number for event in finished] == [0, 1, 2]
    assert [event.figures["asked"] for event in finished] == [50, 60, 60]  # 25 rows a label scout


def test_figures_of_the_scout_are_of_the_rows_it_asked(tmp_path):
    _, found = go(prepare(settings(tmp_path, noise=0.0, unreadable=0.0), tmp_path / "run"), rounds=2)
    assert found["pool"]["zero_shot"]["accuracy"] == 1.0
    assert found["pool"]["zero_shot"]["coverage"] == pytest.approx(50 / 60)
    assert found["rounds"][0]["pool"]["llm"]["accuracy"] == 1.0
    assert "zero-shot 1.000 (of the 83% that were asked so) → final" in report.headline(found)
    assert found["rounds"][0]["pool"]["final"]["coverage"] == 1.0


def test_what_the_scout_could_not_read_is_wrong_zero_shot_as_it_is_for_the_llm(tmp_path):
    chosen = settings(tmp_path, noise=0.0, unreadable=0.3)
    go(prepare(chosen, tmp_path / "run"), rounds=1)
    _, found = go(prepare(chosen, tmp_path / "run"), rounds=2)
    first, second = (each["pool"] for each in found["rounds"])
    assert first["zero_shot"]["accuracy"] == pytest.approx(first["zero_shot"]["coverage"] * 60 / 50)
    assert first["zero_shot"]["accuracy"] == first["llm"]["accuracy"] < 0.9
    assert second["zero_shot"] == first["zero_shot"]  # rows first asked later do not count
    assert "(of the 83% that were asked so)" in report.headline(found)


def test_the_zero_shot_preset_asks_once_and_keeps_what_the_llm_says(tmp_path):
    chosen = settings(tmp_path, preset="zero-shot", rounds=1, student={"kind": "none"})
    job = prepare(chosen, tmp_path / "run")
    _, found = go(job)
    state = job.store.resume()
    assert found["usage"]["calls"] == 60
    assert found["pool"]["final"]["accuracy"] == found["pool"]["zero_shot"]["accuracy"]
    np.testing.assert_allclose(state.posterior, state.annotations.first, atol=1e-5)


def test_without_a_student_a_row_the_llm_cannot_read_is_labelled_by_nobody(tmp_path):
    chosen = settings(tmp_path, preset="zero-shot", rounds=1, student={"kind": "none"}, unreadable=0.4)
    _, found = go(prepare(chosen, tmp_path / "run"))
    kept = labels_of(tmp_path / "run")
    assert {source for source, label in zip(kept["source"], kept["label"], strict=True) if label is None} == {"nobody"}
    assert {source for source, label in zip(kept["source"], kept["label"], strict=True) if label} == {"llm"}
    assert 0.4 < found["pool"]["final"]["coverage"] == found["pool"]["zero_shot"]["coverage"] < 0.8


def test_an_llm_that_always_says_the_same_is_no_reason_to_fail(tmp_path):
    job = prepare(settings(tmp_path), tmp_path / "run", answer=lambda request: "refund")
    go(job)
    assert set(labels_of(tmp_path / "run")["label"]) == {"refund"}


@pytest.mark.parametrize("rollback", [True, False])
def test_a_round_that_does_harm_is_not_the_result(tmp_path, rollback):
    """Shown demonstrations, this LLM repeats one label; asked plainly, it reads."""

    def answer(request):
        if any(message.role == "assistant" for message in request.messages):
            return "refund"
        return "delivery" if any(word in request.messages[-1].content for word in WORDS["delivery"]) else "refund"

    chosen = settings(tmp_path, rounds=2, query={"scout": 1.0}, stop={"min_change": 0.0, "rollback": rollback})
    job = prepare(chosen, tmp_path / "run", answer=answer)
    _, found = go(job)
    kept = labels_of(tmp_path / "run")["label"]
    assert found["result"]["round"] == (0 if rollback else 1)
    assert set(kept) == ({"delivery", "refund"} if rollback else {"refund"})
    assert found["pool"] == found["rounds"][found["result"]["round"]]["pool"]
    assert ("The result is round 0, not the last one" in report.markdown(found)) == rollback
    result = job.store.result()
    assert result.name == f"{found['result']['round']:02d}"
    final = argmax(job.store.load(result).posterior)
    np.testing.assert_array_equal(final, [["delivery", "refund"].index(each) for each in kept])


@pytest.mark.parametrize("kind", ["linear", "none"])
def test_an_llm_that_says_nothing_readable_is_a_clear_error(tmp_path, kind):
    chosen = settings(tmp_path, student={"kind": kind}, filter={"kind": "none"})
    job = prepare(chosen, tmp_path / "run", answer=lambda request: "Who knows?")
    with pytest.raises(LLMError, match=r"none of 50 replies could be read, first: not a label: 'Who knows\?'"):
        go(job)
    assert job.store.finished() == []


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("preset", ["default", "freeal-paper"])
def test_a_pool_of_hardly_any_rows_is_enough(tmp_path, n, preset):
    chosen = settings(tmp_path, n=n, preset=preset, noise=0.0, unreadable=0.0)
    go(prepare(chosen, tmp_path / "run"))
    assert None not in labels_of(tmp_path / "run")["label"]


def test_freeal_paper_runs_with_six_labels(tmp_path):
    events = []
    chosen = settings(tmp_path, k=6, preset="freeal-paper", rounds=2)
    job = prepare(chosen, tmp_path / "run", events.append)
    reason, found = go(job)
    assert reason == "2 rounds are done"
    assert [figures["asked"] for figures in found["rounds"]] == [60, 60]
    assert found["rounds"][0]["demonstrations"] > 0
    assert "zero_shot" not in found["pool"]
    assert any(isinstance(event, Note) and event.message.startswith("the LLM wrote") for event in events)


def test_in_freeal_paper_believed_rows_keep_the_students_label(tmp_path):
    job = prepare(settings(tmp_path, k=6, preset="freeal-paper", rounds=2), tmp_path / "run")
    go(job)
    state = job.store.resume()
    np.testing.assert_array_equal(state.posterior[state.clean], state.student[state.clean])


def test_every_question_of_a_later_round_shows_every_label_and_never_its_own_text(tmp_path):
    asked = []
    chosen = settings(tmp_path, k=6, preset="freeal-paper", rounds=2, noise=0.0, unreadable=0.0)
    job = prepare(chosen, tmp_path / "run")
    script = job.parts.annotator.llm
    script.answer = lambda request, answer=script.answer: asked.append(request) or answer(request)
    go(job)
    later = [request for request in asked if request.choices and len(request.messages) > 1][-60:]
    assert len(later) == 60
    for request in later:
        *shown, question = [message.content for message in request.messages]
        assert question not in shown
        assert set(WORDS) <= set(shown)


@pytest.mark.parametrize(
    "more", [{"demos": {"retrieve": "clusters", "sets": 2, "trust": "neighbours"}}, {"query": {"kind": "gain"}}]
)
def test_chosen_otherwise_a_resumed_run_is_the_same_and_no_worse(tmp_path, more):
    chosen = settings(tmp_path, noise=0.1, unreadable=0.0, **more)
    _, straight = go(prepare(chosen, tmp_path / "straight"))
    go(prepare(chosen, tmp_path / "parts"), rounds=1)
    go(prepare(chosen, tmp_path / "parts"))
    assert labels_of(tmp_path / "parts") == labels_of(tmp_path / "straight")
    assert straight["pool"]["final"]["accuracy"] >= straight["pool"]["zero_shot"]["accuracy"]
    assert straight["rounds"][0]["wrong_prompts"] is None
    assert straight["rounds"][1]["wrong_prompts"] is not None


def test_a_round_keeps_which_rows_its_questions_were_really_shown(tmp_path):
    asked = []
    job = prepare(settings(tmp_path, rounds=2), tmp_path / "run")
    script = job.parts.annotator.llm
    script.answer = lambda request, answer=script.answer: asked.append(request) or answer(request)
    _, found = go(job)
    first, second = job.store.finished()
    assert job.store.shown(first) == {}
    told = job.store.shown(second)
    in_chats = {turn.content for request in asked for turn in request.messages[:-1] if turn.role == "user"}
    chosen = job.store.load(first).demos
    assert {f"Message: {job.corpus.pool[row].text}" for row in told} == in_chats
    assert told == {demo.row: demo.label for demo in chosen if f"Message: {demo.text}" in in_chats}
    assert 0 < len(told) < len(chosen)
    label = labels_of(tmp_path / "run")["label"]
    upheld = np.mean([label[row] == was for row, was in told.items()])
    assert [signs["upheld"] for signs in found["result"]["signs"]] == [None, pytest.approx(upheld)]


def test_rows_that_promise_nothing_are_not_asked_again(tmp_path):
    chosen = settings(tmp_path, noise=0.1, unreadable=0.0, query={"kind": "gain", "min_gain": 0.1, "scout": 1.0})
    _, found = go(prepare(chosen, tmp_path / "run"), rounds=2)
    assert [figures["asked"] < 60 for figures in found["rounds"]] == [False, True][: len(found["rounds"])]


def several(*noises, k=2):
    """LLMs that err on other rows each: the noise is fixed by text and the settings' seed, so the keywords differ."""
    labels = list(WORDS)[:k]
    return [
        {"kind": "scripted", "noise": noise, "keywords": {each: [*WORDS[each], f"unused {place}"] for each in labels}}
        for place, noise in enumerate(noises)
    ]


def test_a_list_of_llms_reads_every_row_and_pools_what_they_say(tmp_path):
    told = []
    chosen = settings(tmp_path, llm=several(0.3, 0.3, 0.3), query={"scout": 1.0})
    assert len(chosen.panel) == 2
    _, found = go(prepare(chosen, tmp_path / "run", told.append), rounds=1)
    assert found["usage"]["calls"] == 3 * 60
    assert found["rounds"][0]["usage"]["calls"] == 3 * 60
    assert found["llm"] == "scripted + scripted + scripted"
    weights = [event.message for event in told if isinstance(event, Note) and "weights" in event.message]
    assert weights[0].startswith("weights: scripted (1) 0.")


def test_a_panel_learns_nothing_from_a_test(tmp_path):
    told = []
    chosen = settings(tmp_path, llm=several(0.1, 0.4), query={"scout": 1.0})
    job = prepare(chosen, tmp_path / "run", told.append)
    rows, panel = np.arange(60), job.parts.annotator
    first = panel.annotate(job.corpus.pool, rows, [()] * 60, "round 0")
    some = panel.annotate(job.corpus.pool, rows[:7], [()] * 7, "test, zero-shot")
    np.testing.assert_array_equal(some.proba, first.proba[:7])
    weights = [event.message for event in told if isinstance(event, Note) and "weights" in event.message]
    assert weights[0] == weights[1]
    job.ledger.close()


def test_a_panel_that_is_resumed_gives_the_same_bytes(tmp_path):
    chosen = settings(tmp_path, llm=several(0.2, 0.3))
    go(prepare(chosen, tmp_path / "straight"))
    go(prepare(chosen, tmp_path / "halting"), rounds=1)
    go(prepare(chosen, tmp_path / "halting"))
    for name in ("labels.parquet", "rounds/02/posterior.parquet"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "halting" / name).read_bytes()


def test_the_calls_allowed_are_those_of_all_llms(tmp_path):
    chosen = settings(tmp_path, llm=several(0.2, 0.3), query={"scout": 1.0}, stop={"max_calls": 50})
    _, found = go(prepare(chosen, tmp_path / "run"))
    assert found["usage"]["calls"] == 50
    assert found["rounds"][0]["asked"] == 25


def test_a_spent_budget_stops_the_run(tmp_path):
    chosen = settings(tmp_path, stop={"min_change": 0.0, "max_calls": 40})
    reason, found = go(prepare(chosen, tmp_path / "run"))
    assert reason == "budget: 40 of 40 calls are spent"
    assert found["usage"]["calls"] == 40
    assert None not in labels_of(tmp_path / "run")["label"]


def test_a_budget_with_too_few_calls_for_a_row_is_spent(tmp_path):
    chosen = settings(tmp_path, llm=several(0.2, 0.3, 0.4), query={"scout": 1.0}, stop={"max_calls": 50})
    reason, found = go(prepare(chosen, tmp_path / "run"))
    assert reason == "budget: 48 of 50 calls are spent, and a row takes 3"
    assert found["rounds"][0]["asked"] == 16
    chosen = settings(tmp_path, llm=several(0.2, 0.3, 0.4), stop={"max_calls": 2})
    with pytest.raises(
        BudgetError, match=r"stop.max_calls: all but 2 were spent before any row was asked; a row takes"
    ):
        go(prepare(chosen, tmp_path / "none"))


def test_a_budget_spent_in_an_interrupted_round_is_not_counted_twice(tmp_path):
    chosen = settings(tmp_path, stop={"min_change": 0.0, "max_calls": 40})
    go(prepare(chosen, tmp_path / "straight"))
    job = prepare(chosen, tmp_path / "halting")

    def dies(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(replace(job, parts=replace(job.parts, new_student=dies)))
    assert job.ledger.usage().calls == 40
    go(prepare(chosen, tmp_path / "halting"))
    straight, halting = (tmp_path / name / "labels.parquet" for name in ("straight", "halting"))
    assert straight.read_bytes() == halting.read_bytes()


def test_a_budget_that_ends_before_the_first_row_says_so(tmp_path):
    cold = {"kind": "generated", "total": 20}
    chosen = settings(tmp_path, cold_start=cold, stop={"min_change": 0.0, "max_calls": 20})
    with pytest.raises(BudgetError, match=r"stop.max_calls: all 20 were spent before any row was asked"):
        go(prepare(chosen, tmp_path / "run"))


def test_the_gold_labels_change_no_label(tmp_path):
    chosen = settings(tmp_path)
    go(prepare(chosen, tmp_path / "with"))
    go(prepare(chosen.model_copy(update={"data": chosen.data.model_copy(update={"gold": None})}), tmp_path / "without"))
    assert labels_of(tmp_path / "with") == labels_of(tmp_path / "without")


def test_the_same_seed_gives_the_same_labels_and_another_seed_another_run(tmp_path):
    chosen = settings(tmp_path)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        go(prepare(chosen.model_copy(update={"seed": seed}), tmp_path / name))
    a, b, c = ((tmp_path / name / "labels.parquet").read_bytes() for name in "abc")
    assert a == b != c


def test_replies_of_an_earlier_run_are_reused(tmp_path):
    chosen = settings(tmp_path)
    go(prepare(chosen, tmp_path / "first"))
    (tmp_path / "second").mkdir()
    job = build.job(
        chosen, *build.inputs(chosen, config.Path(chosen.prompt)), tmp_path / "second", print, [tmp_path / "first"]
    )
    _, found = go(job)
    assert found["usage"]["calls"] == 0
    assert found["usage"]["reused"] >= 60
    assert labels_of(tmp_path / "first") == labels_of(tmp_path / "second")
