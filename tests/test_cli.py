"""The command line: help with examples, one-line errors, JSON that parses, and nothing heavy before it is needed."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from commandline import Said, films, freeal, opinions
from loopback import completion, serve

from freeal import __version__

VERBS = (
    ["run"],
    ["check"],
    ["plan"],
    ["status"],
    ["reparse"],
    ["report"],
    ["explain"],
    ["audit"],
    ["study"],
    ["repair"],
    ["doctor"],
    ["preview"],
    ["show"],
    ["predict"],
    ["models", "list"],
    ["models", "pull"],
    ["models", "path"],
)


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    rows = opinions(40)
    data = {"test": "test.jsonl", "gold": "gold"}
    return films(tmp_path_factory.mktemp("films"), rows[:30], rows[30:], data=data)


@pytest.fixture(scope="module")
def ran(configuration):
    """A finished run, and what was said of it."""
    folder = configuration.parent / "run"
    return folder, freeal("run", configuration, "--out", folder)


@pytest.fixture
def unfinished(ran, tmp_path):
    """The same run, interrupted after its first round."""
    folder = tmp_path / "unfinished"
    shutil.copytree(ran[0], folder, ignore=shutil.ignore_patterns("01", "summary.*", "labels.*"))
    return folder


# --- help


def test_help_names_the_verbs_examples_and_exit_codes():
    said = freeal("--help")
    assert said.code == 0
    assert all(verb in said.out for verb in ("run", "check", "preview", "show", "predict", "models"))
    assert "freeal run configs/quickstart.yaml" in said.out
    assert "Exit codes" in said.out


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_help_page_has_an_example(verb):
    said = freeal(*verb, "-h")
    assert said.code == 0
    assert "Example" in said.out
    assert f"freeal {' '.join(verb)}" in said.out


def test_no_words_at_all_are_answered_with_help():
    assert "Usage" in freeal().out + freeal().err


def test_the_version_is_printed():
    assert freeal("--version") == Said(0, f"freeal {__version__}\n", "")


@pytest.mark.parametrize(
    "code", ["import freeal", "from freeal.cli import main; sys.argv = ['freeal', '--help']; main()"]
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    heavy = ("torch", "transformers", "openai", "vllm", "sklearn", "datasets", "pyarrow")
    script = f"import sys, atexit\natexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- run


def test_a_run_tells_what_came_of_it_and_what_to_do_next(ran):
    folder, said = ran
    assert said.code == 0, said.err
    assert "pool: zero-shot" in said.out
    assert f"next:    freeal show {folder}" in said.out
    assert "round 0 · 30 asked" in said.err
    assert "round 1 · " in said.err


def test_a_run_leaves_what_it_promises(ran):
    folder, _ = ran
    names = {
        "config.yaml", "prompt.md", "environment.json", "events.jsonl", "ledger.sqlite", "rounds",
        "labels.csv", "labels.parquet", "summary.md", "summary.json",
    }  # fmt: skip
    assert names <= {path.name for path in folder.iterdir()}
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 30
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["event"] for event in events].count("RoundFinished") == 2
    assert events[-1]["event"] == "RunFinished"


def test_a_run_may_be_told_in_json(configuration, tmp_path):
    said = freeal("run", configuration, "--out", tmp_path / "run", "--set", "rounds=1", "--json")
    assert json.loads(said.out)["usage"]["calls"] == 40
    assert json.loads(said.out)["stopped"] == "the one round is done"


@pytest.mark.parametrize("chosen", ["preset=zero-shot", "query.kind=none"])
def test_who_is_never_asked_again_is_asked_about_all_rows_at_once(tmp_path, chosen):
    job = films(tmp_path, opinions(120), data={"gold": "gold"})
    planned = json.loads(freeal("plan", job, "--set", chosen, "--json").out)["calls"]
    found = json.loads(freeal("run", job, "--out", tmp_path / "run", "--set", chosen, "--json").out)
    assert planned["first_round"] == found["rounds"][0]["asked"] == 120
    assert planned["first_round"] + planned["content_free"] == found["usage"]["calls"]
    assert found["pool"]["zero_shot"]["coverage"] == 1.0
    if chosen == "preset=zero-shot":
        assert found["sources"] == {"llm": 120}
        assert found["pool"]["final"]["accuracy"] == found["pool"]["zero_shot"]["accuracy"]


def test_a_fork_may_be_the_llm_alone(ran, tmp_path):
    said = freeal("run", "--fork", ran[0], "--set", "preset=zero-shot", "--out", tmp_path / "run", "--json")
    found = json.loads(said.out)
    assert (found["student"], found["sources"]) == ("none", {"llm": 30})


def test_a_preset_chosen_for_a_fork_stands_over_what_the_other_run_had_from_its_own(configuration, ran):
    from freeal.cli.run import _to_begin
    from freeal.config import load

    apart = {"prompt", "paraphrases"}
    for preset in ("freeal-paper", "default", "zero-shot"):
        chosen = [f"preset={preset}", "query.share=0.9"]
        forked, anew = _to_begin(None, ran[0], chosen), load(configuration, chosen)
        assert forked.model_dump(exclude=apart) == anew.model_dump(exclude=apart), preset
    assert _to_begin(None, ran[0], ["preset=freeal-paper"]).demos.retrieve == "nearest"


def test_paths_given_to_a_fork_are_taken_from_where_the_user_stands(ran, tmp_path, monkeypatch):
    from freeal.cli.run import _to_begin

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILMS", "films")
    for given in ("new.jsonl", "${FILMS}/new.jsonl", "${GONE:-films}/new.jsonl"):
        found = _to_begin(None, ran[0], [f"data.pool={given}"]).data.pool
        assert Path(found) == tmp_path / given.replace("${FILMS}", "films").replace("${GONE:-films}", "films")


def test_a_run_is_resumed_by_the_name_it_was_given(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "other"):
        assert freeal("run", configuration, "--set", f"name={name}").code == 0
    (mine,) = (tmp_path / "runs").glob("mine-*")
    assert f"runs/{mine.name}" in freeal("run", configuration, "--resume", "--set", "name=mine").err


def test_a_run_without_a_student_tells_of_none(configuration, tmp_path):
    said = freeal("run", configuration, "--out", tmp_path / "run", "--set", "preset=zero-shot")
    assert "labels: " in said.out
    assert "student: " not in said.out


def test_rows_that_no_call_was_left_for_are_told_and_their_cells_are_blank(configuration, tmp_path):
    run = ("run", configuration, "--out", tmp_path / "run", "--set", "preset=zero-shot", "--max-calls", 12)
    said = freeal(*run)
    assert said.code == 3
    assert "18 of 30 rows have no label: the LLM was not asked about them" in said.err
    with (tmp_path / "run" / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["label"] == row["probability"] == "" for row in rows) == 18
    found = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert found["pool"]["zero_shot"]["accuracy"] <= 0.4
    assert "(60% have no answer, and count as wrong where gold is known)" in said.out
    counts = Counter(row["label"] for row in rows if row["label"])
    shares = {label: pytest.approx(count / 12, abs=1e-3) for label, count in counts.items()}
    told = found["shares"]
    assert {label: each["final"] for label, each in told["by_label"].items() if each["final"]} == shares
    assert not told["estimated"]


@pytest.mark.parametrize(
    ("setting", "estimated"),
    [
        ("calibration.kind=estimated", True),
        ("calibration.kind=batch", False),
        ("data.sample=15", False),
        ("llm={kind: recorded, replies: pool.jsonl, id: id, label: gold}", False),
    ],
)
def test_the_summary_says_whether_shares_of_labels_are_an_estimate(configuration, tmp_path, setting, estimated):
    assert freeal("run", configuration, "--out", tmp_path / "run", "--set", "rounds=1", "--set", setting).code in (0, 3)
    found = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert found["shares"]["estimated"] == estimated
    for name in ("first", "final"):
        assert sum(each[name] for each in found["shares"]["by_label"].values()) == pytest.approx(1, abs=1e-3)


def test_a_column_that_the_prompt_uses_must_be_in_the_test_too(tmp_path):
    pool, test = [{**row, "year": "1999"} for row in opinions(8)], opinions(4)
    job = films(tmp_path, pool, test, data={"test": "test.jsonl", "gold": "gold"})
    prompt = (tmp_path / "prompt.md").read_text(encoding="utf-8").replace("Film:", "Film of {{ year }}:")
    (tmp_path / "prompt.md").write_text(prompt, encoding="utf-8")
    said = freeal("check", job)
    assert said.code == 2
    assert f"unknown variable 'year' in '## user'; in the test ({tmp_path / 'test.jsonl'}) there are" in said.err
    assert freeal("check", job, "--set", "evaluation.llm_on_test=false").code == 0


def test_pooled_labels_are_as_sure_as_the_llm_and_the_same(tmp_path):
    job = films(tmp_path, opinions(120), data={"gold": "gold"})
    found = {}
    for sharpen in ("true", "false"):
        freeal("run", job, "--out", tmp_path / sharpen, "--set", f"fusion.sharpen={sharpen}")
        with (tmp_path / sharpen / "labels.csv").open(encoding="utf-8", newline="") as file:
            found[sharpen] = list(csv.DictReader(file))
    labels, sureness = (
        {name: [row[key] for row in rows] for name, rows in found.items()} for key in ("label", "probability")
    )
    assert labels["true"] == labels["false"]
    assert sum(map(float, sureness["true"])) > sum(map(float, sureness["false"]))


@pytest.mark.parametrize("content", [None, "{]", "[]"])
def test_a_run_whose_origin_cannot_be_read_is_told_with_the_way_out(unfinished, content):
    path = unfinished / "environment.json"
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    for words in (["status", unfinished], ["run", "--resume", unfinished], ["explain", unfinished, "0"]):
        said = freeal(*words)
        assert said.code == 8
        assert str(path) in said.err
        assert f"freeal run CONFIG --reuse {unfinished}" in said.err


@pytest.mark.parametrize("content", ["{]", '{"round": 0}'])
def test_a_damaged_round_is_shown_by_nobody_and_can_be_mended(unfinished, content):
    (unfinished / "rounds/00/report.json").write_text(content, encoding="utf-8")
    for verb in ("show", "explain"):
        said = freeal(verb, unfinished, *(["0"] if verb == "explain" else []))
        assert said.code == 8
        assert f"freeal repair {unfinished}" in said.err


@pytest.mark.parametrize("name", ["labels.parquet", "summary.json"])
def test_what_was_made_from_the_rounds_is_made_anew_if_it_cannot_be_read(ran, tmp_path, name):
    folder = tmp_path / "damaged"
    shutil.copytree(ran[0], folder)
    (folder / name).write_text("{]", encoding="utf-8")
    said = freeal("report", folder)
    assert said.code == 8
    assert f"{folder / name}: cannot be read" in said.err
    assert f"freeal run --resume {folder}" in said.err
    assert freeal("run", "--resume", folder).code == 0
    assert freeal("report", folder).code == 0


@pytest.mark.parametrize("verb", ["run", "study"])
def test_a_file_is_no_place_for_a_run(configuration, tmp_path, verb):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    said = freeal(verb, configuration, "--out", tmp_path / "mine.txt")
    assert said.code == 8
    assert said.err.endswith("is a file; name another place with --out\n")
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_an_unfinished_run_is_resumed_to_the_same_labels(ran, unfinished):
    assert freeal("run", "--resume", unfinished).code == 0
    for name in ("labels.csv", "labels.parquet"):
        assert (unfinished / name).read_bytes() == (ran[0] / name).read_bytes()


def test_settings_that_an_older_freeal_did_not_know_are_told_on_resume(unfinished):
    kept = yaml.safe_load((unfinished / "config.yaml").read_text(encoding="utf-8"))
    del kept["calibration"]["sober"]
    (unfinished / "config.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
    said = freeal("run", "--resume", unfinished)
    assert said.code == 0
    assert "changed since: calibration.sober: not known when the run began, True now" in said.err


def test_without_a_name_the_newest_run_is_resumed(ran, unfinished, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    unfinished.rename(tmp_path / "runs" / "films-scripted-1")
    monkeypatch.chdir(tmp_path)
    assert "runs/films-scripted-1" in freeal("run", "--resume").err


def test_replies_of_an_earlier_run_are_reused(configuration, ran, tmp_path):
    said = freeal("run", configuration, "--out", tmp_path / "run", "--reuse", ran[0], "--json")
    assert json.loads(said.out)["usage"]["calls"] == 0
    assert (tmp_path / "run" / "labels.csv").read_bytes() == (ran[0] / "labels.csv").read_bytes()


def test_a_run_goes_on_though_the_one_it_borrowed_from_is_gone(configuration, ran, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(ran[0], first)
    freeal("run", configuration, "--out", tmp_path / "run", "--reuse", first, "--set", "rounds=1")
    shutil.rmtree(first)
    said = freeal("run", "--resume", tmp_path / "run", "--set", "rounds=2")
    assert f"note: ledger: {first} is gone; what only it kept is asked anew" in said.err
    assert "rounds are done" in said.out


def test_a_finished_run_that_gets_a_further_round_is_interrupted_until_that_is_done(ran, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(ran[0], folder)
    words = [sys.executable, "-m", "freeal", "run", "--resume", str(folder), "--set", "rounds=3"]
    subprocess.run(words, env={**os.environ, "FREEAL_FAILPOINT": "artefact.mid_write=exit"}, capture_output=True)
    said = freeal("status", folder)
    assert "interrupted, 2 of at most 3 rounds whole" in said.out
    assert f"go on with:  freeal run --resume {folder}" in said.out
    assert "unfinished, 2 whole rounds" in freeal("show", folder).out
    assert "not finished yet" in freeal("report", folder).err
    freeal("run", "--resume", folder)
    assert "finished, 3 of at most 3" in freeal("status", folder).out


def test_an_empty_summary_is_none(ran, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(ran[0], folder)
    (folder / "summary.json").write_bytes(b"")
    assert "interrupted, 2 of at most 2" in freeal("status", folder).out
    assert "not finished yet" in freeal("report", folder).err


# --- before and beside a run


@pytest.mark.parametrize("prompts", [["prompt.md"], ["prompt.md", "second.md"]], ids=len)
def test_the_test_is_read_where_the_calls_allow_it_or_its_replies_are_kept(tmp_path, prompts):
    rows = opinions(40)
    data = {"test": "test.jsonl", "gold": "gold"}
    job = films(tmp_path, rows[:30], rows[30:], data=data, rounds=1, prompt=prompts)
    other = (tmp_path / "prompt.md").read_text(encoding="utf-8").replace("Film:", "Seen:")
    (tmp_path / "second.md").write_text(other, encoding="utf-8")

    def figures(name, *words):
        freeal("run", job, "--out", tmp_path / name, *words)
        found = json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8"))
        return "final" in found["test"], found["usage"]["calls"] // len(prompts)

    most = 35 * len(prompts)
    assert figures("bounded", "--max-calls", most) == (False, 30)
    assert figures("whole") == (True, 40)
    assert figures("kept", "--max-calls", most, "--reuse", tmp_path / "whole") == (True, 0)


def test_plan_counts_calls_tokens_and_dollars_and_shows_prompts_without_a_key(configuration, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = ["--set", "llm.kind=openai", "--set", "llm.model=gpt-4o-mini"]
    plain = configuration.parent / "paid.yaml"
    settings = {**yaml.safe_load(configuration.read_text(encoding="utf-8")), "llm": {"kind": "openai", "model": "x"}}
    plain.write_text(yaml.safe_dump(settings), encoding="utf-8")
    found = json.loads(freeal("plan", plain, *server, "--json").out)
    calls = {
        "cold_start": 0,
        "names": 0,
        "content_free": 0,
        "guidelines_at_most": 0,
        "first_round": 30,
        "later_rounds_at_most": 30,
        "rescue_at_most": 30,
        "test": 10,
    }
    assert found["calls"] == calls
    assert 0 < found["cost"]["low"] < found["cost"]["high"] < 0.01
    assert found["seconds"] == pytest.approx(100 / 32, abs=0.1)
    assert [[role for role, _ in chat][-1] for chat in found["prompts"]] == ["user", "user"]
    dearer = json.loads(freeal("plan", plain, "--price-in", 100, "--price-out", 100, "--json").out)
    assert dearer["cost"]["low"] > 10 * found["cost"]["low"]
    assert "what a million tokens cost" in freeal("plan", plain).out


def test_plan_counts_votes_and_thoughts_of_each_llm(configuration):
    paid = {"kind": "openai", "model": "x", "price_in": 0.0, "price_out": 1000.0}
    settings = yaml.safe_load(configuration.read_text(encoding="utf-8"))

    def costs(*llms):
        job = configuration.parent / "paid.yaml"
        job.write_text(yaml.safe_dump({**settings, "llm": [*llms] if len(llms) > 1 else llms[0]}), encoding="utf-8")
        found = json.loads(freeal("plan", job, "--set", "cold_start.rescue=0", "--json").out)
        return found["calls_at_most"], found["cost"]["low"], found["cost"]["high"]

    calls, low, high = costs(paid)
    assert 0 < low < high
    assert costs({**paid, "votes": 5}) == (calls, low, pytest.approx(5 * high))
    assert costs({**paid, "votes": 5, "strategy": "votes"}) == (calls, pytest.approx(5 * low), pytest.approx(5 * high))
    thoughts = calls * 5 * 100 * 1000.0 / 1e6
    told = costs({**paid, "votes": 5, "reply_tokens": 100})
    assert told == (calls, low, pytest.approx(5 * high + thoughts))
    free = {**paid, "price_out": 0.0}
    assert costs({**paid, "votes": 5, "reply_tokens": 100}, free) == (2 * calls, low, pytest.approx(told[2]))


def planned(configuration, *settings):
    """What `freeal plan` says in JSON of a dear server, and in words."""
    server = {"llm.kind": "openai", "llm.model": "gpt-4o-mini", "llm.price_in": 100, "llm.price_out": 100}
    words = [word for each in (*(f"{k}={v}" for k, v in server.items()), *settings) for word in ("--set", each)]
    return json.loads(freeal("plan", configuration, *words, "--json").out), freeal("plan", configuration, *words).out


def served(configuration, name, llm, **settings):
    """The configuration with a server for its LLM."""
    known = yaml.safe_load(configuration.read_text(encoding="utf-8"))
    (configuration.parent / name).write_text(yaml.safe_dump({**known, **settings, "llm": llm}), encoding="utf-8")
    return configuration.parent / name


def test_one_price_alone_is_taken_beside_the_listed_other(configuration):
    listed = served(configuration, "listed.yaml", {"kind": "openai", "model": "gpt-4o-mini"})
    plain, dearer = (
        json.loads(freeal("plan", listed, *price, "--json").out)["cost"]["low"] for price in ([], ["--price-in", 100])
    )
    assert dearer > 10 * plain
    other = served(configuration, "unlisted.yaml", {"kind": "openai", "model": "x"})
    said = freeal("plan", other, "--price-in", 100)
    assert said.code == 2
    assert "x has no known price: say what a million tokens cost with --price-out" in said.err


def test_of_several_llms_the_one_without_a_price_is_named_with_its_place(configuration):
    llms = [{"kind": "openai", "model": "gpt-4o-mini"}, {"kind": "openai", "model": "x"}]
    said = freeal("plan", served(configuration, "two.yaml", llms, stop={"budget": 5.0}))
    assert said.code == 2
    assert "x has no known price" in said.err
    assert "--set llm.1.price_in=… and --set llm.1.price_out=…" in said.err


WORDS_AS_TOLD = """---
labels:
  good: {words: [joy, delight]}
  bad: it bores
---
## system
TOLD

## user
Film: {{ text }}

## assistant
{{ label }}
"""


@pytest.mark.parametrize(
    ("told", "noted"),
    [("Say good or bad.", True), ('One of: {{ words | join(", ") }}', False), ("joy, delight", False)],
)
def test_words_that_the_llm_is_not_told_are_noted(tmp_path, told, noted):
    job = films(tmp_path, opinions(10))
    (tmp_path / "prompt.md").write_text(WORDS_AS_TOLD.replace("TOLD", told), encoding="utf-8")
    note = "does not tell the LLM the words that stand for labels (joy, delight)"
    assert (note in freeal("check", job).out) is noted
    assert (note in freeal("run", job, "--out", tmp_path / "run").err) is noted


def test_check_refuses_what_the_run_would_refuse_at_once(configuration, tmp_path):
    server = served(configuration, "paid.yaml", {"kind": "openai", "model": "x"}, stop={"budget": 1.0})
    recorded = ("--set", "llm={kind: recorded, replies: pool.jsonl, id: id, label: gold}")
    for verb in ("check", "plan"):
        assert "x has no known price" in freeal(verb, server).err
        told = freeal(verb, configuration, *recorded, "--set", "cold_start.kind=generated")
        assert (told.code, "writes no texts" in told.err) == (2, True)


def test_check_tells_what_will_have_no_effect_and_what_a_run_lacks(configuration, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    meanings = "{% for label, meaning in labels.items() %}- {{ label }}: {{ meaning }}\n{% endfor %}"
    prompt = configuration.parent / "meanings.md"
    turns = f"## user\n{meanings}\nFilm: {{{{ text }}}}\n\n## assistant\n{{{{ label }}}}\n"
    prompt.write_text("---\nlabels: {good: it pleases, bad: it bores}\n---\n" + turns, encoding="utf-8")
    server = served(configuration, "keyless.yaml", {"kind": "openai", "model": "x"}, prompt=prompt.name)
    said = freeal("check", server, "--set", "refine_guidelines=true", "--set", "rounds=1")
    assert said.code == 0
    assert "note:   a run could not begin now: the environment variable OPENAI_API_KEY" in said.out
    assert "note:   refine_guidelines has no effect: there is one round only" in said.out


def test_plan_shows_a_prompt_with_demonstrations_only_where_there_will_be_one(configuration):
    for settings, count in (((), 2), (("--set", "rounds=1"), 1), (("--set", "demos.kind=none"), 1)):
        said = freeal("plan", configuration, *settings)
        assert said.out.count("\n--- as ") == count, settings


def test_plan_counts_the_demonstrations_that_the_llm_writes(configuration):
    plain, _ = planned(configuration, "cold_start.total=40")
    found, said = planned(configuration, "cold_start.kind=generated", "cold_start.total=40")
    assert found["calls"]["cold_start"] == 40
    assert found["tokens_in"]["cold_start"] > 40 * 50, "each is told the task and five texts"
    assert f"start:  40 demonstrations to be written by the LLM, about {found['tokens_in']['cold_start']:,} tok" in said
    assert found["cost"]["low"] > plain["cost"]["low"] + found["tokens_in"]["cold_start"] * 100 / 1e6


def test_plan_keeps_to_the_calls_allowed(configuration):
    free, said = planned(configuration)
    assert "rescue: at most 30 calls" in said
    assert "in all" not in said
    found, said = planned(configuration, "stop.max_calls=50")
    assert (found["calls"]["first_round"], found["calls"]["test"], found["calls"]["later_rounds_at_most"]) == (
        30,
        10,
        10,
    )
    assert found["calls_at_most"] == 50
    assert found["cost"]["low"] == free["cost"]["low"]
    assert found["cost"]["high"] < free["cost"]["high"]
    assert "in all: at most 50 calls (stop.max_calls: 50)" in said
    few, _ = planned(configuration, "stop.max_calls=35")
    assert (few["calls"]["test"], few["calls"]["later_rounds_at_most"]) == (0, 5), (
        "the test is read whole or not at all"
    )
    none = ("cold_start.kind=generated", "cold_start.total=40", "stop.max_calls=40")
    assert "limit:  40 calls leave none for a row (stop.max_calls)" in planned(configuration, *none)[1]


def test_status_accounts_for_every_row(ran, unfinished):
    found = json.loads(freeal("status", ran[0], "--json").out)
    assert (found["state"], found["total"], found["rows"]) == ("finished", 30, {"labelled": 30})
    assert found["works"]["test, zero-shot"] == {"labelled": 10}
    said = freeal("status", unfinished)
    assert "interrupted, 1 of at most 2 rounds whole" in said.out
    assert f"go on with:  freeal run --resume {unfinished}" in said.out


def test_reparse_leaves_what_was_computed_here_alone(ran):
    assert freeal("reparse", ran[0]).out.startswith("0 kept replies read again")


def test_doctor_tells_versions_machine_and_whether_the_llm_can_be_asked(configuration, monkeypatch):
    found = json.loads(freeal("doctor", configuration, "--json").out)
    assert found["versions"]["freeal"] == __version__
    assert found["llm"] == {"kind": "scripted", "understands": "probabilities, in this process"}
    for llm, gives in (
        ("llm.probabilities=false", "text, in this process"),
        ("llm={kind: recorded, replies: pool.jsonl, id: id, label: gold}", "labels, as recorded"),
    ):
        told = freeal("doctor", configuration, "--set", llm, "--json").out
        assert json.loads(told)["llm"]["understands"] == gives
    monkeypatch.setenv("MY_KEY", "sk-SENTINEL")
    away = ["--set", "llm.kind=openai", "--set", "llm.model=x", "--set", "llm.base_url=http://127.0.0.1:9/v1"]
    plain = configuration.parent / "away.yaml"
    settings = {**yaml.safe_load(configuration.read_text(encoding="utf-8")), "llm": {"kind": "openai", "model": "x"}}
    plain.write_text(yaml.safe_dump(settings), encoding="utf-8")
    said = freeal("doctor", plain, *away, "--set", "llm.key_env=MY_KEY", "--set", "llm.server_wait=0")
    assert said.code == 5
    assert "MY_KEY           set" in said.out
    assert "SENTINEL" not in said.out + said.err


def test_doctor_looks_at_every_llm_and_names_the_key_only_where_one_is_sent(configuration, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with serve(lambda text, tries: completion("red")) as server:
        llms = [{"kind": "openai", "model": name, "base_url": server.url} for name in ("one", "two")]
        both = served(configuration, "both.yaml", [*llms, {"kind": "openai", "model": "far"}])
        said = freeal("doctor", both)
        found = json.loads(freeal("doctor", both, "--json").out)
    assert [found[name]["model"] for name in ("llm", "llm.1", "llm.2")] == ["one", "two", "far"]
    assert "OPENAI_API_KEY" not in found["llm"]
    assert found["llm.2"]["OPENAI_API_KEY"] == "not set"
    assert found["llm"]["understands"].startswith("the label as a word, without probabilities")
    assert "{" not in said.out.partition("\nllm\n")[2]
    assert said.code == found["llm.2"]["exit_code"] == 4


def test_doctor_waits_for_a_server_a_few_seconds_at_most(configuration, monkeypatch):
    from freeal.cli import doctor

    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    away = {"kind": "openai", "model": "x", "base_url": "http://127.0.0.1:9/v1"}
    said = freeal("doctor", served(configuration, "gone.yaml", away))
    assert said.code == 5
    assert "waiting 0.1 s for it if it is down" in said.err


# --- the other verbs


def test_show_prints_the_summary(ran):
    folder, _ = ran
    assert "## Rounds" in freeal("show", folder).out
    assert json.loads(freeal("show", folder, "--json").out)["data"]["rows"] == 30


def test_show_of_an_unfinished_run_prints_the_rounds_so_far(unfinished):
    said = freeal("show", unfinished)
    assert said.out.startswith(f"unfinished: unfinished, 1 whole rounds; go on with:  freeal run --resume {unfinished}")
    assert "round 0 · 30 asked" in said.out
    found = json.loads(freeal("show", unfinished, "--json").out)
    assert (found["finished"], len(found["rounds"])) == (False, 1)


def test_preview_prints_the_chat_and_the_choices(configuration):
    said = freeal("preview", configuration, "--id", "r3")
    assert "Film: film 3 was dull" in said.out
    assert said.out.endswith("good\nbad\n")


def test_preview_in_json_holds_the_same(configuration):
    found = json.loads(freeal("preview", configuration, "--json").out)
    assert (found["id"], found["choices"]) == ("r0", ["good", "bad"])
    assert found["messages"] == [{"role": "user", "content": "Film: film 0 was fine"}]


def test_preview_of_a_run_shows_its_demonstrations(configuration, ran):
    found = json.loads(freeal("preview", configuration, "--run", ran[0], "--json").out)
    roles = [message["role"] for message in found["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert len(roles) > 1
    assert found["messages"][-1]["content"] not in [message["content"] for message in found["messages"][:-1]]


def test_preview_of_a_run_with_other_labels_names_both(configuration, ran, tmp_path):
    prompt = configuration.parent / "others.md"
    prompt.write_text(
        "---\nlabels: [great, bad]\n---\n## user\n{{ text }}\n\n## assistant\n{{ label }}\n", encoding="utf-8"
    )
    ungold = ("--set", "data.gold=null", "--set", "data.test=null")
    said = freeal("preview", configuration, "--run", ran[0], "--set", f"prompt={prompt}", *ungold)
    assert said.code == 8
    assert f"{ran[0]}: its labels are good, bad, and those of {prompt} are great, bad" in said.err


def test_the_example_of_preview_holds():
    example = re.search(r"Example: freeal (preview .*)", freeal("preview", "--help").out.replace("\n", " "))
    words = example[1].split()[:4]
    said = freeal(words[0], Path(__file__).parent.parent / words[1], *words[2:])
    assert said.code == 0, said.err


def test_check_says_what_is_to_come_and_asks_nothing(configuration):
    said = freeal("check", configuration)
    assert said.out.startswith("pool:   30 texts, 30 distinct; 2 labels")
    assert said.out.endswith("nothing was asked\n")


def test_check_in_json_counts_the_calls(configuration, ran):
    found = json.loads(freeal("check", configuration, "--json").out)
    assert found["calls"]["first_round"] == 30
    assert found["calls"]["test"] == 10
    usage = json.loads((ran[0] / "summary.json").read_text(encoding="utf-8"))["usage"]
    assert 40 <= usage["calls"] <= 40 + found["calls"]["later_rounds_at_most"]


def test_predict_labels_new_texts(ran, tmp_path):
    (tmp_path / "new.csv").write_text("id,text\na,film 90 was lovely\nb,film 91 was dull\n", encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(freeal("predict", ran[0], tmp_path / "new.csv").out)))
    assert [(row["id"], row["label"]) for row in rows] == [("a", "good"), ("b", "bad")]


def test_predict_reads_as_the_run_did(tmp_path):
    rows = [{"number": f"n{i}", "text": row["text"]} for i, row in enumerate(opinions(60))]
    films(tmp_path, rows, data={"id": "number", "encoding": "latin-1"})
    assert freeal("run", tmp_path / "films.yaml", "--out", tmp_path / "run").code == 0
    (tmp_path / "new.csv").write_text("number,text\nn7,a lovely caf\u00e9\n", encoding="latin-1")
    (tmp_path / "other.csv").write_text("id,text\na,a lovely film\n", encoding="latin-1")
    told = [freeal("predict", tmp_path / "run", tmp_path / name).out for name in ("new.csv", "other.csv")]
    assert [next(csv.DictReader(io.StringIO(each)))["id"] for each in told] == ["n7", "a"]


def test_predict_keeps_rows_without_text_in_their_places(ran, tmp_path):
    lines = ["", "film 90 was lovely", " ", "", "film 91 was dull", ""]
    (tmp_path / "new.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    said = freeal("predict", ran[0], tmp_path / "new.txt")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["label"] for row in rows] == ["", "good", "", "", "bad", ""]
    assert [row["id"] for row in rows if not row["label"]] == ["line 1", "line 3", "line 4", "line 6"]
    assert [row["probability"] == "" for row in rows] == [not line.strip() for line in lines]
    assert "note: 4 rows without text have blank cells, first line 1" in said.err
    (tmp_path / "new.csv").write_text("id,text\na,film 90 was lovely\nb,\n", encoding="utf-8")
    said = freeal("predict", ran[0], tmp_path / "new.csv", "--json")
    blank = json.loads(said.out.splitlines()[1])
    assert blank == {"id": "b", "label": None, "probabilities": None}


def test_predict_tells_its_own_options_where_columns_are_others_than_the_runs(ran, tmp_path):
    (tmp_path / "new.csv").write_text("number,body\n7,a lovely film\n7,a dull film\n", encoding="utf-8")
    said = freeal("predict", ran[0], tmp_path / "new.csv")
    assert said.code == 2
    assert "new.csv: --text: there is no column 'text'; there are 'number', 'body'" in said.err
    said = freeal("predict", ran[0], tmp_path / "new.csv", "--text", "body", "--id", "number")
    assert "1 duplicate id(s): '7' on lines 2 and 3" in said.err
    assert "name another column in --id, or say --id '' to number texts by their content" in said.err
    assert (
        "--id: there is no column 'nr'"
        in freeal("predict", ran[0], tmp_path / "new.csv", "--text", "body", "--id", "nr").err
    )
    said = freeal("predict", ran[0], tmp_path / "new.csv", "--text", "body", "--id", "")
    assert [row["label"] for row in csv.DictReader(io.StringIO(said.out))] == ["good", "bad"]


def test_predict_in_json_gives_every_probability(ran, tmp_path):
    (tmp_path / "new.txt").write_text("film 90 was lovely\n", encoding="utf-8")
    line = json.loads(freeal("predict", ran[0], tmp_path / "new.txt", "--json").out)
    assert line["label"] == "good"
    assert sum(line["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


def test_models_are_listed_in_json():
    assert {"name", "role", "licence"} <= set(json.loads(freeal("models", "list", "--json").out)[0])


# --- errors


FAULTS = {
    "run": (2, "which configuration?"),
    "run {tmp}/none.yaml": (2, "no such configuration file"),
    "check {config} --set rouns=3": (2, "did you mean 'rounds'?"),
    "check {config} --set data.pool=gone.csv": (2, "gone.csv: no such file"),
    "check {config} --set prompt=gone.md": (2, "no such prompt file"),
    "check {config} --set data.text=txet": (2, "did you mean 'text'?"),
    "preview {config} --id r999": (2, "no row with id 'r999'"),
    "run {config} --out {run}": (8, "is not empty"),
    "run {config} --out {tmp}/a --reuse {tmp}": (8, "no ledger here"),
    "run {config} --fork {run}": (2, "--fork takes RUN's settings; leave out CONFIG and --resume, or use --reuse"),
    "run --fork {run} --resume": (2, "--fork takes RUN's settings"),
    "run --resume {run} --reuse {tmp}": (8, "no ledger here; --reuse and --fork take the replies of a run directory"),
    "run --resume {tmp}": (8, "no run directory"),
    "run --resume {run} --set seed=1": (7, "seed: 0 → 1"),
    "run {run} --out {tmp}/a": (2, "leave --out away, or begin another:  freeal run --fork"),
    "run {tmp}": (8, "no run directory"),
    "run {config} --set name=a/b": (2, "name: 'a/b' has a / in it"),
    "run --fork {run} --set name=a/b": (2, "name: 'a/b' has a / in it"),
    "show {tmp}": (8, "no run directory"),
    "predict {tmp} new.csv": (8, "no run directory"),
    "models path gtp-5": (2, "is no embedded model"),
}


@pytest.mark.parametrize("line", FAULTS)
def test_an_error_is_one_message_with_its_exit_code(configuration, ran, tmp_path, line):
    code, message = FAULTS[line]
    said = freeal(*(word.format(config=configuration, run=ran[0], tmp=tmp_path) for word in line.split()))
    told = said.err[said.err.index("freeal: ") :]
    assert (said.code, said.out) == (code, "")
    assert message in told
    assert len(told.splitlines()) == (2 if "setting(s)" in told else 1)


@pytest.mark.parametrize("words", [["runn"], ["run", "--nope"], ["show"]])
def test_words_that_are_not_understood_exit_with_2(words):
    said = freeal(*words)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_resuming_a_configuration_takes_its_own_run_and_no_other_with_a_longer_name(ran, tmp_path, monkeypatch):
    from freeal.cli.run import _to_resume

    monkeypatch.chdir(tmp_path)
    for name in ("mr", "mr-gpt35"):
        (tmp_path / "runs" / f"{name}-local-1").mkdir(parents=True)
        (tmp_path / "runs" / f"{name}-local-1" / "config.yaml").write_text(f"name: {name}\n", encoding="utf-8")
    assert _to_resume(Path("mr.yaml"), True, None) == Path("runs/mr-local-1")


def test_a_run_without_settings_is_passed_over_and_told(tmp_path, monkeypatch):
    from freeal.cli.run import _to_resume

    monkeypatch.chdir(tmp_path)
    for number, settings in enumerate(("name: mr\n", "")):
        (tmp_path / "runs" / str(number)).mkdir(parents=True)
        path = tmp_path / "runs" / str(number) / "config.yaml"
        path.write_text(settings, encoding="utf-8")
        os.utime(path, (number, number))
    assert (_to_resume(Path("mr.yaml"), True, None), _to_resume(None, True, None)) == (Path("runs/0"), Path("runs/0"))
    shutil.rmtree(tmp_path / "runs" / "0")
    told = freeal("run", "--resume")
    assert "passed over: runs/1/config.yaml: expected a mapping of settings, found NoneType" in told.err
    assert "nothing to resume" in told.err


@pytest.mark.parametrize("verb", ["status {run}", "report {run}", "predict {run} x.csv", "run {run}"])
def test_settings_that_cannot_be_read_are_told_with_their_file(ran, tmp_path, verb):
    moved = tmp_path / "run"
    shutil.copytree(ran[0], moved)
    (moved / "config.yaml").write_text("", encoding="utf-8")
    said = freeal(*verb.format(run=moved).split())
    assert said.code == 2, said.err
    assert f"{moved / 'config.yaml'}: expected a mapping of settings" in said.err


def test_a_run_that_ends_before_its_settings_are_there_is_none_and_begins_anew(configuration, ran, tmp_path):
    words = [sys.executable, "-m", "freeal", "run", str(configuration), "--out", str(tmp_path / "run")]
    killed = subprocess.run(words, env={**os.environ, "FREEAL_FAILPOINT": "run.begin=exit"}, capture_output=True)
    assert killed.returncode != 0
    assert "rows.parquet" in {path.name for path in (tmp_path / "run").iterdir()}
    assert "nothing to resume there" in freeal("run", "--resume", "--out", tmp_path / "run").err
    assert freeal("run", configuration, "--out", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "labels.csv").read_bytes() == (ran[0] / "labels.csv").read_bytes()


def test_a_run_whose_ledger_is_gone_is_not_gone_on_with(ran, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(ran[0], moved)
    (moved / "ledger.sqlite").write_bytes(b"")
    said = freeal("run", "--resume", moved)
    assert said.code == 8
    assert "is gone or empty" in said.err


def test_a_file_that_is_no_yaml_is_told_on_resume_too(tmp_path):
    (tmp_path / "broken.yaml").write_text("data: [unclosed", encoding="utf-8")
    assert "cannot be read as YAML" in freeal("run", "--resume", tmp_path / "broken.yaml").err


def test_a_plan_refuses_what_the_run_could_not_use_after_it_has_paid(tmp_path):
    job = films(tmp_path, opinions(40))
    told = freeal("plan", job, "--set", "embedder.kind=hidden_states")
    assert told.code != 0
    assert "hidden_states reads a model in this process" in told.err
