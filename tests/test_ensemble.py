"""Several prompts, several LLMs: every one reads every row, and a run with them can do what any run can."""

import csv
import doctest
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commandline import WORDS, films, freeal, opinions, undocumented
from loopback import completion, serve

from freeal import config, prompts, store
from freeal.cli import run as run_verb
from freeal.cli.run import _as_it_was, _to_begin
from freeal.config import load, to_yaml
from freeal.errors import ChangedError, ConfigError, PromptError
from freeal.ledger import FILE, Entry, Ledger
from freeal.llm import Message, Request
from freeal.parts import llms
from freeal.store import kept_config

ROWS = 40


def wording(folder: Path, name: str, question: str, labels=tuple(WORDS), assistant="{{ label }}") -> Path:
    path = folder / f"{name}.md"
    front = yaml.safe_dump({"labels": list(labels)})
    path.write_text(f"---\n{front}---\n## user\n{question}\n\n## assistant\n{assistant}\n", encoding="utf-8")
    return path


@pytest.fixture
def paraphrased(tmp_path):
    """A configuration with three prompts; the scripted LLM errs on other rows with each."""
    wording(tmp_path, "second", "Seen: {{ text }}")
    wording(tmp_path, "third", "{{ text }}, somebody said")
    prompts = ["prompt.md", "second.md", "third.md"]
    asked = {"query": {"scout": 1}, "cold_start": {"rescue": 0}}
    return films(tmp_path, opinions(ROWS), data={"gold": "gold"}, prompt=prompts, **asked)


def done(*words):
    said = freeal(*words)
    assert said.code == 0, said.err
    return said


def run(configuration, name, *words):
    folder = configuration.parent / name
    done("run", configuration, "--out", folder, *words)
    return folder


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def labels(folder):
    return (folder / "labels.parquet").read_bytes()


# --- a run


def test_every_row_is_asked_with_every_prompt(paraphrased):
    folder = run(paraphrased, "run")
    assert [figures["usage"]["calls"] for figures in summary(folder)["rounds"]] == [3 * ROWS, 3 * ROWS]
    works = json.loads(done("status", folder, "--json").out)["works"]
    assert [work for work in works if work.startswith("round 0")] == [
        "round 0", "round 0 | scripted, second", "round 0 | scripted, third"
    ]  # fmt: skip
    told = json.loads(done("explain", folder, "r0", "--json").out)
    asked = [question["messages"][-1][1] for question in told["questions"][:3]]
    assert asked == ["Film: film 0 was fine", "Seen: film 0 was fine", "film 0 was fine, somebody said"]


def test_every_key_of_its_summary_is_documented(paraphrased):
    assert undocumented(run(paraphrased, "run")) == set()


def test_three_prompts_are_better_than_each(paraphrased):
    noisy = [
        "--set",
        "student.kind=none",
        "--set",
        "rounds=1",
        "--set",
        "llm.noise=0.3",
        "--set",
        "calibration.kind=none",
    ]
    alone = [
        summary(run(paraphrased, name, *noisy, "--set", f"prompt={name}.md"))["pool"]["final"]["accuracy"]
        for name in ("prompt", "second", "third")
    ]
    assert max(alone) < 0.9
    assert summary(run(paraphrased, "all", *noisy))["pool"]["final"]["accuracy"] > max(alone)


def test_the_run_directory_keeps_every_prompt(paraphrased):
    folder = run(paraphrased, "run", "--set", "rounds=1")
    for kept, given in (("prompt", "prompt"), ("prompt-2", "second"), ("prompt-3", "third")):
        assert (folder / f"{kept}.md").read_bytes() == (paraphrased.parent / f"{given}.md").read_bytes()


def test_a_list_of_one_is_that_one(paraphrased):
    runs = [
        run(paraphrased, name, "--set", f"prompt={given}") for name, given in (("a", "second.md"), ("b", "[second.md]"))
    ]
    assert labels(runs[0]) == labels(runs[1])
    assert (runs[0] / "config.yaml").read_bytes() == (runs[1] / "config.yaml").read_bytes()
    assert not list(runs[1].glob("prompt-*.md"))
    assert "members" not in summary(runs[1])["rounds"][0]


def test_prompts_of_a_list_are_taken_from_the_folder_of_the_configuration(paraphrased):
    folder = paraphrased.parent
    assert load(paraphrased).prompts == tuple(str(folder / name) for name in ("prompt.md", "second.md", "third.md"))
    assert load(paraphrased, ["prompt=[third.md, second.md]"]).prompts == (
        str(folder / "third.md"), str(folder / "second.md")
    )  # fmt: skip


def test_a_run_that_cannot_begin_leaves_no_prompts_behind(paraphrased):
    folder = paraphrased.parent / "run"
    said = freeal("run", paraphrased, "--out", folder, "--set", "llm.keywords={good: [fine], odd: [x]}")
    assert "'odd' is no label" in said.err
    assert not folder.exists()


# --- what goes on


def test_a_resumed_run_gives_the_same_bytes_whatever_became_of_the_files(paraphrased):
    straight = run(paraphrased, "straight")
    halting = run(paraphrased, "halting", "--set", "rounds=1")
    for name in ("prompt.md", "second.md", "third.md"):
        (paraphrased.parent / name).unlink()
    done("run", "--resume", halting, "--set", "rounds=2")
    for name in ("labels.parquet", "rounds/01/posterior.parquet"):
        assert (straight / name).read_bytes() == (halting / name).read_bytes()


@pytest.mark.parametrize("name", ["prompt.md", "second.md", "third.md"])
def test_a_prompt_that_was_changed_is_refused(paraphrased, name):
    folder, changed = run(paraphrased, "run", "--set", "rounds=1"), paraphrased.parent / name
    changed.write_text(changed.read_text().replace("{{ text }}", "{{ text }}!"), encoding="utf-8")
    said = freeal("run", paraphrased, "--resume", "--out", folder)
    assert said.code == 7
    assert f"prompt: {changed} is not one the run began with" in said.err
    assert str(paraphrased.parent) + "/" in said.err


@pytest.mark.parametrize(
    "given", ["prompt=prompt.md", "prompt=[prompt.md, second.md]", "prompt=[prompt.md, third.md, second.md]"]
)
def test_fewer_prompts_or_another_order_are_refused(paraphrased, given):
    folder = run(paraphrased, "run", "--set", "rounds=1")
    said = freeal("run", paraphrased, "--resume", "--out", folder, "--set", given)
    assert said.code == 7
    assert "prompt: " in said.err


def test_a_prompt_that_is_gone_is_refused_too(paraphrased):
    folder = run(paraphrased, "run", "--set", "rounds=1")
    (paraphrased.parent / "second.md").unlink()
    said = freeal("run", paraphrased, "--resume", "--out", folder)
    assert said.code == 7
    assert "second.md is not one the run began with" in said.err


def test_prompts_that_were_moved_are_the_same(paraphrased):
    folder = run(paraphrased, "run", "--set", "rounds=1")
    (paraphrased.parent / "second.md").rename(paraphrased.parent / "moved.md")
    given = "prompt=[prompt.md, moved.md, third.md]"
    done("run", paraphrased, "--resume", "--out", folder, "--set", given, "--set", "rounds=2")
    assert len(summary(folder)["rounds"]) == 2
    assert summary(folder)["rounds"][1]["usage"]["calls"] == 3 * ROWS


def test_a_fork_has_all_prompts_and_pays_for_none(paraphrased):
    first = run(paraphrased, "first")
    for name in ("prompt.md", "second.md", "third.md"):
        (paraphrased.parent / name).unlink()
    done("run", "--fork", first, "--out", paraphrased.parent / "fork")
    assert summary(paraphrased.parent / "fork")["usage"]["calls"] == 0
    assert labels(first) == labels(paraphrased.parent / "fork")
    done("run", "--fork", first, "--out", paraphrased.parent / "one", "--set", f"prompt={first / 'prompt-2.md'}")
    assert not (paraphrased.parent / "one" / "prompt-2.md").exists()
    assert (paraphrased.parent / "one" / "prompt.md").read_bytes() == (first / "prompt-2.md").read_bytes()


def test_a_damaged_round_is_made_again_from_what_was_paid_for(paraphrased):
    folder = run(paraphrased, "run")
    before, calls = labels(folder), summary(folder)["usage"]["calls"]
    (folder / "rounds" / "01" / "posterior.parquet").write_bytes(b"broken")
    done("repair", folder)
    done("run", "--resume", folder)
    assert labels(folder) == before
    assert summary(folder)["usage"]["calls"] == calls


def test_the_calls_allowed_are_shared_by_all_prompts(paraphrased):
    folder = run(paraphrased, "run", "--max-calls", 50)
    assert summary(folder)["usage"]["calls"] <= 50
    assert summary(folder)["rounds"][0]["asked"] == 50 // 3


def test_predict_knows_the_labels(paraphrased):
    folder = run(paraphrased, "run", "--set", "rounds=1")
    said = done("predict", folder, paraphrased.parent / "pool.jsonl")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert len(rows) == ROWS
    assert {row["label"] for row in rows} == set(WORDS)


def test_a_study_may_have_several_prompts(paraphrased):
    folder = paraphrased.parent / "study"
    words = ("--seeds", 1, "--method", "zero-shot", "--method", "gold", "--out", folder)
    done("study", paraphrased, *words)
    found = json.loads((folder / "study.json").read_text(encoding="utf-8"))["methods"]
    assert found["zero-shot"]["calls"]["mean"] == 3 * ROWS
    assert len(list(folder.glob("zero-shot/seed-0/prompt*.md"))) == 3
    done("study", paraphrased, *words)  # it is there already, with these settings
    assert freeal("study", paraphrased, *words, "--set", "prompt=third.md").code == 7


# --- what may be another when a run of several LLMs goes on


@pytest.fixture
def begun(tmp_path):
    """A configuration with two servers, and the directory of a run that has begun with it."""
    llms = [{"kind": "openai", "model": "a"}, {"kind": "openai", "model": "b"}]
    path = films(tmp_path, opinions(4), llm=llms)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(load(path)), encoding="utf-8")
    (tmp_path / "run" / "prompt.md").write_bytes((tmp_path / "prompt.md").read_bytes())
    return path, tmp_path / "run"


def test_how_a_member_is_asked_may_be_another_on_resume(begun):
    path, folder = begun
    now, told = _as_it_was(folder, None, [], ["llm.1.concurrency=4"])
    assert (now.llm.concurrency, now.panel[0].concurrency) == (32, 4)
    assert told == ["panel.0.concurrency: 32 → 4"]
    assert kept_config(folder) == now
    now, told = _as_it_was(folder, path, ["llm.1.concurrency=4"], ["llm.1.base_url=http://localhost:1/v1"])
    assert told == ["panel.0.base_url: None → http://localhost:1/v1"]


def test_which_llm_a_member_is_may_not(begun):
    with pytest.raises(ChangedError, match=r"not be the same run; panel\.0\.model: b → c\. Begin another"):
        _as_it_was(begun[1], None, [], ["llm.1.model=c"])
    with pytest.raises(ConfigError, match=r"--set llm\.concurrency: `llm` is a list here"):
        _as_it_was(begun[1], None, [], ["llm.concurrency=4"])


def test_a_member_may_be_another_in_a_fork(begun):
    assert [each.model for each in _to_begin(None, begun[1], ["llm.1.model=c"]).panel] == ["c"]


# --- before a run


def test_plan_and_check_count_every_prompt(paraphrased):
    for verb in ("plan", "check"):
        one = json.loads(done(verb, paraphrased, "--json", "--set", "prompt=third.md").out)
        three = json.loads(done(verb, paraphrased, "--json").out)
        assert three["calls"] == {what: 3 * count for what, count in one["calls"].items()}
        # "Film: …", "Seen: …" and "…, somebody said": 1, 1 and 2 words beside the text's
        assert three["tokens_per_prompt"] == pytest.approx(one["tokens_per_prompt"] - 2 / 3, abs=0.06)
        assert three["tokens_in"]["first_round"] == pytest.approx(ROWS * 3 * three["tokens_per_prompt"], rel=0.01)
    assert "3 pairs of LLM and prompt" in done("check", paraphrased).out


def test_plan_and_preview_show_every_prompt(paraphrased):
    planned = done("plan", paraphrased).out
    assert all(f"prompt {number}, as first asked" in planned for number in (1, 2, 3))
    assert "Seen: film 0 was fine" in planned
    shown = json.loads(done("preview", paraphrased, "--id", "r1", "--json").out)
    assert [each["messages"][-1]["content"] for each in shown["paraphrases"]] == [
        "Seen: film 1 was awful", "film 1 was awful, somebody said"
    ]  # fmt: skip
    assert "━━ third.md" in done("preview", paraphrased).out
    assert "paraphrases" not in json.loads(done("preview", paraphrased, "--set", "prompt=third.md", "--json").out)


@pytest.mark.parametrize("others", [("bad", "good"), ("good", "poor"), ("good", "bad", "ugly")])
def test_unlike_labels_are_told_with_both_files(tmp_path, others):
    first, second = wording(tmp_path, "one", "{{ text }}"), wording(tmp_path, "two", "x {{ text }}", others)
    with pytest.raises(PromptError) as caught:
        prompts.load_all([first, second])
    assert str(caught.value).startswith(f"{second}: has the labels {', '.join(others)}; {first} has good, bad: ")


def test_the_same_prompt_twice_is_told_with_both_files(tmp_path):
    first, second = wording(tmp_path, "one", "{{ text }}"), wording(tmp_path, "two", "{{ text }}")
    with pytest.raises(PromptError, match=rf"^{second}: says what {first} says"):
        prompts.load_all([first, second])


def test_unlike_labels_stop_every_command_before_anything_is_made(paraphrased):
    wording(paraphrased.parent, "second", "Seen: {{ text }}", ("bad", "good"))
    for verb in ("run", "plan", "check", "preview"):
        said = freeal(verb, paraphrased)
        assert "the same labels in the same order" in said.err
        assert said.code == freeal("preview", paraphrased).code != 0


def test_a_column_that_only_a_later_prompt_uses_must_be_there(paraphrased):
    wording(paraphrased.parent, "third", "{{ text }} by {{ author }}")
    assert "third.md:7: unknown variable 'author'" in freeal("check", paraphrased).err


# --- who is who


def test_members_are_named_by_model_and_stem():
    local, remote = load_llms("{kind: local, model: small}", "{kind: openai, model: big}")
    assert llms.names_of([local]) == llms.names_of([local], ["a/mr.md"]) == ["small"]
    assert llms.names_of([local, remote], ["a/mr.md"]) == ["small", "big"]
    assert llms.names_of([local, remote], ["a/mr.md", "b/mr.md"]) == [
        "small, mr (1)", "small, mr (2)", "big, mr (1)", "big, mr (2)"
    ]  # fmt: skip


def load_llms(*told):
    from pydantic import TypeAdapter

    from freeal.config import LLMConfig

    return [TypeAdapter(LLMConfig).validate_python(yaml.safe_load(each)) for each in told]


def test_two_llms_with_two_prompts_are_four_members_of_two_voices(paraphrased):
    script = {"kind": "scripted", "noise": 0.3, "keywords": WORDS}
    llms = [script, {**script, "noise": 0.1}]
    given = ["--set", f"llm={json.dumps(llms)}", "--set", "prompt=[prompt.md, third.md]"]
    folder = run(paraphrased, "run", *given)
    with Ledger(folder / FILE, read_only=True) as ledger:
        weights = ledger.recall("panel")["weights"]
        works = {work for work, _, _ in ledger.rows() if work.startswith("round 1")}
    assert weights[0] == weights[1]
    assert weights[2] == weights[3] > weights[0]
    others = ("scripted (1), third", "scripted (2), prompt", "scripted (2), third")
    assert works == {"round 1", *(f"round 1 | {name}" for name in others)}


# --- what is told of the members


def members(folder, number):
    return json.loads((folder / "rounds" / f"{number:02}" / "report.json").read_text(encoding="utf-8"))["members"]


def test_each_round_tells_of_every_member(paraphrased):
    folder = run(paraphrased, "run")
    names = ["scripted, prompt", "scripted, second", "scripted, third"]
    for number in (0, 1):
        found = members(folder, number)
        assert [each["name"] for each in found] == names
        assert [each["weight"] for each in found] == pytest.approx([1 / 3] * 3, abs=1e-3)
        assert found == summary(folder)["rounds"][number]["members"]
    told = (folder / "summary.md").read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    right = f"{members(folder, 1)[2]['accuracy']:.3f}"
    assert f"| 1 | scripted, third | 0.333 | 100.0% | {right} |" in told
    assert "<td>scripted, third</td>" in page
    assert f'<td class="n">{right}</td>' in page


def test_members_are_as_right_as_each_alone(paraphrased):
    words = ["--set", "student.kind=none", "--set", "rounds=1", "--set", "calibration.kind=none"]
    words += ["--set", "llm.unreadable=0.1", "--set", "stop.max_failed=1"]
    found = members(run(paraphrased, "all", *words), 0)
    for name, each in zip(("prompt", "second", "third"), found, strict=True):
        alone = summary(run(paraphrased, name, *words, "--set", f"prompt={name}.md"))["pool"]["zero_shot"]
        assert (each["accuracy"], each["answered"]) == (alone["accuracy"], alone["coverage"])
    assert len({each["accuracy"] for each in found}) > 1
    assert min(each["answered"] for each in found) < 1


def test_without_gold_the_weights_alone_are_told(paraphrased):
    folder = run(paraphrased, "run", "--set", "data.gold=null", "--set", "rounds=1")
    assert [each["accuracy"] for each in members(folder, 0)] == [None] * 3
    told = (folder / "summary.md").read_text(encoding="utf-8")
    assert "| round | member | weight | answered |\n" in told


def test_a_single_llm_with_one_prompt_has_no_members(paraphrased):
    folder = run(paraphrased, "run", "--set", "prompt=third.md", "--set", "rounds=1")
    for name in ("summary.md", "report.html"):
        assert "Members of the panel" not in (folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("kind", "freed"), [("none", False), ("batch", True)])
def test_tastes_are_taken_out_where_there_is_calibration(paraphrased, kind, freed):
    folder = run(paraphrased, "run", "--set", f"calibration.kind={kind}", "--set", "rounds=1")
    with Ledger(folder / FILE, read_only=True) as ledger:
        assert np.any(ledger.recall("panel")["biases"]) == freed


# --- a server


def test_a_server_is_asked_once_what_it_understands_and_its_replies_are_read_again(paraphrased):
    pytest.importorskip("openai", reason="the package openai is not installed")

    def answer(text, attempt):
        return completion("good" if any(word in text for word in WORDS["good"]) else "bad")

    with serve(answer) as server:
        llm = {"kind": "openai", "model": "tiny", "base_url": server.url, "strategy": "text", "key_env": None}
        folder = run(paraphrased, "run", "--set", f"llm={json.dumps(llm)}", "--set", "rounds=1")
        asked = [each["messages"][-1]["content"] for each in server.asked]
    of_rows = [text for text in asked if "film" in text]
    assert len(of_rows) == len(set(of_rows)) == 3 * ROWS
    assert len(asked) == len(of_rows) + 1
    found = json.loads(done("reparse", folder, "--json").out)
    assert (found["replies"], found["changed"], found["problems"]) == (3 * ROWS, 0, 0)
    assert json.loads(done("status", folder, "--json").out)["rows"] == {"labelled": ROWS}


# --- what was under way


def test_a_call_that_a_crash_cut_off_counts_at_the_price_of_its_own_llm(paraphrased):
    cheap = {"kind": "openai", "model": "cheap", "price_in": 1.0, "price_out": 1.0}
    dear = {**cheap, "model": "dear", "price_in": 1000.0, "price_out": 1000.0}
    chosen = load(paraphrased, [f"llm={json.dumps([cheap, dear])}"])
    costs = {}
    works = ("round 0", "round 0 | cheap, third", "round 0 | dear, prompt", "round 1 | dear, third")
    for place, work in enumerate(works):
        asked = Request((Message("user", "film 0 was fine"),), ("good", "bad"))
        with Ledger(paraphrased.parent / f"{place}.sqlite") as ledger:
            ledger.sent(Entry.of("key", work, asked)).result()
            purse = llms.purses(chosen, ledger)[0]
            assert (purse.account.calls, purse.account.reserved) == (1, 0.0)
            costs[work] = purse.account.spent
            assert ledger.usage().doubt == pytest.approx(costs[work], abs=1e-6)
            assert ledger.in_doubt(under_way=False) == 1
    assert costs["round 0"] == costs["round 0 | cheap, third"] > 0
    assert costs["round 0 | dear, prompt"] == costs["round 1 | dear, third"]
    assert costs["round 1 | dear, third"] == pytest.approx(1000 * costs["round 0"])


def test_a_batch_of_one_llm_is_waited_for_and_the_calls_of_another_are_not(paraphrased):
    plain = {"kind": "openai", "model": "a", "price_in": 1.0, "price_out": 1.0}
    chosen = load(paraphrased, [f"llm={json.dumps([plain, {**plain, 'model': 'b', 'batch': True}])}"])
    with Ledger(paraphrased.parent / "ledger.sqlite") as ledger:
        for key, work in (("1", "round 0"), ("2", "round 0 | b, second")):
            ledger.sent(Entry.of(key, work, Request((Message("user", "x"),)))).result()
        account = llms.purses(chosen, ledger)[0].account
        assert (ledger.is_under_way("1"), ledger.is_under_way("2")) == (False, True)
    assert account.spent == account.reserved > 0
    assert (account.calls, account.under_way) == (2, 1)


@pytest.mark.parametrize("module", [llms, store, config, run_verb])
def test_the_examples_in_the_docstrings_hold(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
