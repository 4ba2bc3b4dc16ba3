"""Settings: who wins, what is refused, and that every one of them is read."""

import ast
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from freeal import build, config
from freeal.config import PRESETS, Config, Section, chosen_by_kind, forked, load, parse, to_yaml
from freeal.errors import ConfigError

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
LEAST = {"data": {"pool": "pool.csv"}, "prompt": "prompt.md"}


def write(folder, name="mine.yaml", **settings):
    path = folder / name
    path.write_text(yaml.safe_dump(LEAST | settings), encoding="utf-8")
    return path


def fault(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value)


# --- several LLMs


def test_a_list_of_llms_is_a_first_one_and_a_panel(tmp_path):
    llms = [{"kind": "local"}, {"kind": "openai", "model": "gpt-4o-mini"}]
    chosen = load(write(tmp_path, llm=llms))
    assert chosen.llm.kind == "local"
    assert [each.model for each in chosen.panel] == ["gpt-4o-mini"]
    assert parse(yaml.safe_load(to_yaml(chosen)), "config.yaml") == chosen
    assert "the same LLM twice (gpt-4o-mini)" in fault(write(tmp_path, llm=[llms[1], llms[1]]))
    assert "is a list here" in fault(write(tmp_path, llm=llms), "llm.model=x")
    assert "as in  --set llm.0.price_in=…" in fault(write(tmp_path, llm=llms), "llm.price_in=1")
    found = fault(write(tmp_path, llm=[llms[0], {"kind": "local", "modle": "x"}]))
    assert "llm.1.modle: unknown key; did you mean 'model'" in found


def test_a_member_of_a_list_of_llms_is_changed_by_its_place(tmp_path):
    path = write(tmp_path, llm=[{"kind": "local", "dtype": "float32"}, {"kind": "openai", "model": "gpt-4o-mini"}])
    found = load(path, ["llm.0.model=x", "llm.1.votes=3"])
    assert (found.llm.model, found.llm.dtype, found.panel[0].model, found.panel[0].votes) == (
        "x", "float32", "gpt-4o-mini", 3,
    )  # fmt: skip
    assert load(path, ["llm.0.kind=openai", "llm.0.model=x"]).llm.kind == "openai"
    for override, named in (("llm.2.model=x", "llm.2"), ("llm.noise=0.5", "llm.noise"), ("llm.0=x", "llm.0")):
        told = fault(path, override)
        assert f"--set {named}: `llm` is a list here" in told
        assert "(the last one is llm.1)" in told


def test_the_home_of_nobody_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"'~nobody-at-all/x\.csv': the home directory it begins with is not known"):
        load(write(tmp_path), ["data.pool=~nobody-at-all/x.csv"])


# --- who wins


def test_a_pool_and_a_prompt_are_enough(tmp_path):
    found = load(write(tmp_path))
    assert found.name == "mine"
    assert (found.preset, found.seed, found.llm.kind, found.student.kind) == ("default", 0, "local", "transformer")


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(tmp_path):
    path = write(tmp_path, preset="freeal-paper", student={"epochs": 7})
    assert load(path).student.epochs == 7
    assert load(path, ["student.epochs=9"]).student.epochs == 9
    assert load(path).student.warmup_epochs == 3
    assert load(path).demos.shots == 10


def test_a_preset_may_be_chosen_on_the_command_line(tmp_path):
    assert load(write(tmp_path), ["preset=zero-shot"]).student.kind == "none"


def test_zero_shot_chosen_on_the_command_line_is_the_llm_alone_whatever_the_file_says(tmp_path):
    told = {"rounds": 2, "student": {"kind": "linear", "c": 2.0}, "query": {"kind": "all"}, "demos": {"shots": 3}}
    path = write(tmp_path, **told, cold_start={"kind": "generated"}, calibration={"kind": "batch"})
    found = load(path, ["preset=zero-shot", "filter.kind=gmm"])
    assert (found.rounds, found.student.kind, found.query.kind, found.demos.kind) == (1, "none", "none", "none")
    assert (found.cold_start.kind, found.calibration.kind, found.filter.kind) == ("none", "none", "gmm")
    assert load(path, ["preset=zero-shot", "student.kind=linear"]).student.kind == "linear"
    assert load(path, (), ["preset=zero-shot"]).student.kind == "none"
    assert load(write(tmp_path, **told, preset="zero-shot")).student.kind == "linear"


@pytest.mark.parametrize("preset", ["default", "freeal-paper"])
def test_any_other_preset_stays_beneath_the_file(tmp_path, preset):
    found = load(write(tmp_path, rounds=1, student={"kind": "linear"}), [f"preset={preset}"])
    assert (found.preset, found.rounds, found.student.kind) == (preset, 1, "linear")


@pytest.mark.parametrize("override", ["student.epochs=5", "llm.batch_tokens=64", "embedder.model=x", "query.share=0.5"])
def test_a_setting_can_be_changed_without_repeating_the_kind_of_its_section(tmp_path, override):
    section, name = override.partition("=")[0].split(".")
    assert str(getattr(getattr(load(write(tmp_path), [override]), section), name)) == override.partition("=")[2]


def test_a_section_of_the_file_need_not_repeat_the_default_kind(tmp_path):
    assert load(write(tmp_path, student={"epochs": 5})).student.epochs == 5
    assert load(write(tmp_path, student={"epochs": 5}), ["student.kind=transformer"]).student.epochs == 5


def test_another_kind_in_the_file_drops_what_the_preset_says_of_the_old_one(tmp_path):
    found = load(write(tmp_path, preset="freeal-paper", student={"kind": "linear"}))
    assert found.student == config.LinearConfig()


@pytest.mark.parametrize("then", ["default", "freeal-paper", "zero-shot"])
@pytest.mark.parametrize(
    "own",
    [
        {"student": {"kind": "linear", "c": 10.0}, "embedder": {"kind": "tfidf", "dimensions": 64}},
        {"student": {"kind": "transformer", "epochs": 9}, "demos": {"shots": 3}, "seed": 4},
        {"student": {"kind": "tagger"}, "llm": [{"kind": "local"}, {"kind": "openai", "model": "a"}]},
    ],
)
def test_a_fork_with_another_preset_is_as_the_file_with_it(tmp_path, own, then):
    path = write(tmp_path, **own)
    for first in ("default", "freeal-paper"):
        kept = yaml.safe_load(to_yaml(load(path, [f"preset={first}"])))
        assert forked(kept, [f"preset={then}"], "config.yaml") == load(path, [f"preset={then}"])


def test_a_preset_has_a_student_for_words_too(tmp_path):
    path = write(tmp_path, preset="freeal-paper", student={"kind": "tagger", "epochs": 7})
    found = load(path, ["student.learning_rate=1.0e-4"]).student
    assert (found.kind, found.objective, found.folds, found.epochs, found.learning_rate) == (
        "tagger",
        "freeal",
        0,
        7,
        1e-4,
    )
    assert load(path, ["student.kind=transformer"]).student.warmup_epochs == 3
    assert load(write(tmp_path, student={"kind": "tagger"})).student == config.TaggerConfig()


def test_another_kind_on_the_command_line_drops_what_the_file_says_of_the_old_one(tmp_path):
    path = write(tmp_path, student={"kind": "transformer", "epochs": 5})
    assert load(path, ["student.kind=linear", "student.c=2.0"]).student == config.LinearConfig(c=2.0)


@pytest.mark.parametrize(("value", "seen"), [("a", "a"), ("null", None), ("'null'", "null"), ("a=b", "a=b")])
def test_values_are_yaml(tmp_path, value, seen):
    assert load(write(tmp_path), [f"data.gold={value}"]).data.gold == seen


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rouns": 3}, "rouns: unknown key; did you mean 'rounds'?"),
        ({"demos": {"shot": 3}}, "demos.shot: unknown key; did you mean 'shots'?"),
        ({"student": {"kind": "linear", "fold": 3}}, "student.fold: unknown key; did you mean 'folds'?"),
        ({"llm": {"kind": "openai"}}, "llm.model: is needed"),
        ({"llm": {"kind": "local", "price_in": 1}}, "llm.price_in: is for llm.kind openai (--price-in)"),
        ({"student": {"kind": "linear", "epochs": 3}}, "student.epochs: is for student.kind transformer or tagger"),
        ({"llm": [{"kind": "local", "modle": "x"}]}, "llm.0.modle: unknown key; did you mean 'model'?"),
        ({"budget": 5}, "budget: unknown key; did you mean 'stop.budget'?"),
        ({"fusion": {"llm": 0, "student": 0}}, "nobody would have a say in the labels"),
        ({"rounds": 0}, "rounds: input should be greater than 0 (found 0)"),
        ({"query": {"share": 2}}, "query.share: input should be less than or equal to 1 (found 2)"),
        ({"filter": {"kind": "gnm"}}, "filter.kind: input should be 'gmm', 'quantile' or 'none' (found 'gnm')"),
    ],
)
def test_a_fault_names_the_key_and_what_was_meant(tmp_path, settings, message):
    assert message in fault(write(tmp_path, **settings))


@pytest.mark.parametrize(
    ("section", "kind"), [(name, kind) for name, kinds in chosen_by_kind().items() for kind in kinds]
)
def test_the_place_of_a_fault_is_named_as_it_is_written_whatever_the_kind(tmp_path, section, kind):
    assert f"\n  {section}.nothing: unknown key" in fault(write(tmp_path, **{section: {"kind": kind, "nothing": 1}}))


def test_a_key_of_a_kind_is_named_with_the_one_meant(tmp_path):
    told = fault(write(tmp_path, embedder={"kind": "hidden_states"}), "embedder.dept=0.5")
    assert "embedder.dept: unknown key; did you mean 'depth'?" in told


def test_all_faults_are_told_at_once(tmp_path):
    told = fault(write(tmp_path, rouns=3, seed=-1))
    assert "2 setting(s) cannot be used" in told
    assert "rouns" in told
    assert "seed" in told


def test_an_unknown_preset_names_those_there_are(tmp_path):
    told = fault(write(tmp_path, preset="zeroshot"))
    assert told.endswith(
        "preset 'zeroshot' is unknown; did you mean 'zero-shot'?; there are default, freeal-paper, zero-shot"
    )


def test_an_unknown_kind_is_refused(tmp_path):
    assert "'linear'" in fault(write(tmp_path, student={"kind": "forest"}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("rounds=[", "is no YAML value"),
        ("seed.a=1", "seed: input should be a valid integer"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused(tmp_path, override, message):
    assert message in fault(write(tmp_path), override)


def test_two_overrides_that_contradict_each_other_are_refused(tmp_path):
    assert "'seed' is no section" in fault(write(tmp_path), "seed=1", "seed.a=1")


@pytest.mark.parametrize(("content", "message"), [("- a\n", "found list"), ("a: [", "as YAML"), ("", "found NoneType")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_text(content, encoding="utf-8")
    assert message in fault(path)


def test_a_missing_file_is_told(tmp_path):
    assert fault(tmp_path / "none.yaml").endswith("no such configuration file")


def test_nothing_can_be_changed_afterwards(tmp_path):
    found = load(write(tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        found.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        found.data.pool = "other.csv"


# --- paths


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    found = load(write(Path("configs"), data={"pool": "../data/pool.csv", "test": "test.csv"}))
    assert found.data.pool == str(tmp_path / "data" / "pool.csv")
    assert found.data.test == str(tmp_path / "configs" / "test.csv")
    assert found.prompt == str(tmp_path / "configs" / "prompt.md")


def test_names_of_the_hub_and_of_embedded_models_stay_names(tmp_path):
    found = load(write(tmp_path, data={"pool": "stanfordnlp/sst2"}))
    assert found.data.pool == "stanfordnlp/sst2"
    assert found.llm.model == "qwen2.5-coder-0.5b"


def test_variables_are_replaced_and_may_have_a_fallback(tmp_path, monkeypatch):
    monkeypatch.setenv("FREEAL_HERE", str(tmp_path / "here"))
    monkeypatch.delenv("FREEAL_GONE", raising=False)
    path = write(tmp_path, data={"pool": "${FREEAL_HERE}/a.csv", "test": "${FREEAL_GONE:-../there}/b.csv"})
    assert load(path).data.pool == str(tmp_path / "here" / "a.csv")
    assert load(path).data.test == str(tmp_path.parent / "there" / "b.csv")


def test_a_variable_that_begins_a_path_is_taken_from_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here-too").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SHARED", "../here")
    (tmp_path / "mine").mkdir()
    path = write(tmp_path / "mine", data={"pool": "${SHARED}/a.csv", "test": "${SHARED}-too/b.csv"})
    assert load(path).data.pool == str(tmp_path / "here" / "a.csv")
    assert load(path).data.test == str(tmp_path / "here-too" / "b.csv")


def test_a_variable_may_be_a_part_of_a_path_or_of_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("NAME", "mr")
    monkeypatch.delenv("MODEL", raising=False)
    told = {"data": {"pool": "data/${NAME}.csv", "test": "org/${NAME}"}, "llm": {"model": "${MODEL:-qwen2.5-0.5b}"}}
    found = load(write(tmp_path, **told))
    assert (found.data.pool, found.data.test) == (str(tmp_path / "data" / "mr.csv"), "org/mr")
    assert found.llm.model == "qwen2.5-0.5b"
    monkeypatch.setenv("MODEL", "org/other")
    assert load(write(tmp_path, **told)).llm.model == "org/other"


def test_a_variable_that_is_not_set_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("FREEAL_GONE", raising=False)
    path = write(tmp_path, data={"pool": "${FREEAL_GONE}/a.csv"})
    assert "the environment variable FREEAL_GONE is not set" in fault(path)


# --- what is shipped


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_can_be_used(tmp_path, name):
    assert load(write(tmp_path, preset=name)).preset == name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_can_be_used(path):
    found = load(path)
    if not all(Path(place).exists() for place in (found.prompt, found.data.pool, found.data.test) if place):
        pytest.skip(f"{found.data.pool}: the data are not here")
    prompt, corpus = build.inputs(found, Path(found.prompt))
    assert len(corpus.pool) > 0
    assert len(prompt.task.groups) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_can_be_written_and_read_back(tmp_path, name):
    found = load(write(tmp_path, preset=name), ["seed=3"])
    assert parse(yaml.safe_load(to_yaml(found)), "again") == found


def sections(model=Config):
    """Every section that can be reached from the configuration."""
    yield model
    for field in model.model_fields.values():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from sections(inner)


def test_every_setting_is_read_somewhere():
    sources = [path for path in (ROOT / "freeal").rglob("*.py") if path.name != "config.py"]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    settings = {f"{model.__name__}.{name}" for model in sections() for name in model.model_fields}
    by_class = {name for name in settings if name.endswith(".kind")}  # read by matching the class
    assert {name for name in settings - by_class if name.partition(".")[2] not in read} == set()


def test_every_preset_says_only_what_is_there():
    for name in NAMES:
        settings = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
        others = settings.pop("other_students", {})
        assert settings.pop("over_file", True) is True
        assert set(settings) <= set(Config.model_fields)
        assert all(student["kind"] == kind for kind, student in others.items())


def test_further_fields_of_requests_are_added_one_by_one(tmp_path):
    path = write(tmp_path, llm={"kind": "openai", "model": "x", "extra_body": {"reasoning_effort": "low"}})
    found = load(path, ["llm.extra_body={chat_template_kwargs: {enable_thinking: false}}"])
    thinks_not = {"chat_template_kwargs": {"enable_thinking": False}}
    assert found.llm.extra_body == {"reasoning_effort": "low"} | thinks_not
    assert load(path, ["llm.extra_body.reasoning_effort=high"]).llm.extra_body == {"reasoning_effort": "high"}
    assert parse(yaml.safe_load(to_yaml(found)), "config.yaml") == found
