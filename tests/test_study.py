"""`freeal study`: methods side by side, replies shared, figures from the runs themselves."""

import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from commandline import films, freeal, opinions
from loopback import completion, serve

from freeal import build, study
from freeal.report import charts
from freeal.report import study as pages
from freeal.study import ABLATED, METHODS, difference, methods, without_part


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    rows = opinions(90)
    data = {"test": "test.jsonl", "gold": "gold", "sample": 50}
    return films(tmp_path_factory.mktemp("films"), rows[:60], rows[60:], data=data)


@pytest.fixture(scope="module")
def studied(configuration):
    folder = configuration.parent / "study"
    return folder, freeal("study", configuration, "--seeds", 2, "--out", folder, *SOME)


SOME = [word for name in ("zero-shot", "calibrated", "distilled", "default", "gold") for word in ("--method", name)]


def test_all_methods_are_run_if_none_is_named(configuration, tmp_path):
    said = freeal(
        "study", configuration, "--seeds", 1, "--out", tmp_path / "study", "--set", "data.sample=20", "--json"
    )
    assert set(json.loads(said.out)["methods"]) == {method.name for method in METHODS}


def test_every_method_is_in_the_study_with_every_seed(studied):
    folder, said = studied
    assert said.code == 0
    found = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert set(found["methods"]) == set(SOME[1::2])
    assert found["left_out"] == {}
    for name, method in found["methods"].items():
        assert [run["seed"] for run in method["runs"]] == [0, 1]
        assert f"| {name} |" in said.out


def test_a_reply_that_one_method_has_is_asked_for_by_no_other(studied):
    folder, _ = studied
    found = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    summary = json.loads((folder / "calibrated" / "seed-0" / "summary.json").read_text(encoding="utf-8"))
    assert summary["usage"]["calls"] == 0
    assert summary["usage"]["reused"] == 80
    assert summary["student"] == "none", "whatever the configuration says of students"
    assert found["methods"]["calibrated"]["runs"][0]["calls"] == 50, "the pool, and not what was only measured"


def test_a_method_of_a_panel_costs_as_if_alone_each_member_by_its_own_price(tmp_path):
    rows = opinions(12)
    place = films(tmp_path, rows, data={"gold": "gold"})
    some = [word for name in ("zero-shot", "calibrated") for word in ("--method", name)]
    with serve(lambda text, tries: completion("good" if "fine" in text or "lovely" in text else "bad")) as server:
        llms = [
            {"kind": "openai", "model": f"m{price}", "base_url": server.url, "price_in": price, "price_out": price}
            for price in (1000, 3000)
        ]
        said = freeal(
            "study",
            place,
            "--seeds",
            1,
            "--out",
            tmp_path / "study",
            *some,
            "--set",
            f"llm={json.dumps(llms)}",
            "--json",
        )
    assert said.code == 0, said.err
    found = json.loads(said.out)["methods"]
    assert found["calibrated"]["tokens"]["mean"] == 12 * 2 * 9, "a reply has 7 tokens in and 2 out"
    for name in ("zero-shot", "calibrated"):
        assert found[name]["dollars"]["mean"] == pytest.approx(12 * 9 * (1000 + 3000) / 1e6)


def test_gold_teaches_the_ceiling_and_nobody_else(studied):
    folder, _ = studied
    found = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    ceiling = found["methods"]["gold"]
    assert not {"pool", "calls"} & set(ceiling)
    assert ceiling["student_test"]["mean"] >= found["methods"]["distilled"]["student_test"]["mean"]
    for run in folder.glob("*/seed-*/environment.json"):
        reused = json.loads(run.read_text(encoding="utf-8"))["reuse"]
        assert not [path for path in reused if "gold" in path]


def test_gold_is_taught_where_there_are_several_llms_too(tmp_path):
    place = films(tmp_path, opinions(40), data={"gold": "gold"})
    words = {"good": ["fine", "lovely"], "bad": ["awful", "dull"]}
    llms = json.dumps([{"kind": "scripted", "keywords": words, "noise": noise} for noise in (0.1, 0.2)])
    some = ("--method", "default", "--method", "gold")
    said = freeal("study", place, "--seeds", 1, "--out", tmp_path / "study", *some, "--set", f"llm={llms}", "--json")
    assert said.code == 0, said.err
    assert set(json.loads(said.out)["methods"]) == {"default", "gold"}


def test_a_study_without_gold_leaves_no_folder(tmp_path):
    said = freeal("study", films(tmp_path, opinions(20)), "--seeds", 1, "--out", tmp_path / "study")
    assert "without gold labels nothing can be measured" in said.err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("objective", ["plain", "freeal", "candidates", "coteaching"])
def test_gold_can_be_learned_by_every_student(configuration, tmp_path, objective):
    (gold,) = methods(["gold"])
    own = ["student.kind=transformer", f"student.objective={objective}"]
    chosen = study.settings(configuration, tmp_path, gold, 0, own)
    assert chosen.student.objective == ("plain" if objective == "coteaching" else objective)
    build.inputs(chosen, Path(chosen.prompt))


def test_the_figures_are_those_of_the_runs(studied):
    folder, _ = studied
    found = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    for seed in (0, 1):
        summary = json.loads((folder / "default" / f"seed-{seed}" / "summary.json").read_text(encoding="utf-8"))
        assert found["methods"]["default"]["runs"][seed]["pool"] == summary["pool"]["final"]["accuracy"]
    apart = found["differences"]["zero-shot"]
    means = [found["methods"][name]["pool"]["mean"] for name in ("default", "zero-shot")]
    assert apart["mean"] == pytest.approx(means[0] - means[1])
    assert apart["low"] <= apart["mean"] <= apart["high"]


def test_a_study_that_is_done_asks_and_changes_nothing(studied, configuration):
    folder, _ = studied
    before = (folder / "default" / "seed-1" / "ledger.sqlite").stat().st_mtime_ns
    said = freeal("study", configuration, "--seeds", 2, "--out", folder, "--json", *SOME)
    assert json.loads(said.out)["seeds"] == [0, 1]
    assert (folder / "default" / "seed-1" / "ledger.sqlite").stat().st_mtime_ns == before


def test_a_study_goes_on_though_an_earlier_freeal_did_not_know_a_setting(configuration, tmp_path):
    words = ("study", configuration, "--seeds", 1, "--out", tmp_path / "study", "--method", "zero-shot")
    assert freeal(*words).code == 0
    kept = tmp_path / "study" / "zero-shot" / "seed-0" / "config.yaml"
    settings = yaml.safe_load(kept.read_text(encoding="utf-8"))
    del settings["query"]["min_gain"]
    kept.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert freeal(*words).code == 0


def test_a_study_is_not_gone_on_with_under_other_settings(studied, configuration):
    kept = studied[0] / "default" / "seed-0" / "config.yaml"
    before = kept.read_bytes()
    for setting in ("student.c=3.0", "stop.min_change=0.5"):
        said = freeal("study", configuration, "--seeds", 2, "--out", studied[0], "--set", setting, *SOME)
        assert said.code == 7
        assert setting.partition("=")[0] in said.err
    assert kept.read_bytes() == before
    assert "name another with --out" in said.err


def test_the_page_has_its_table_and_drawings(studied):
    source = (studied[0] / "study.html").read_text(encoding="utf-8")
    assert source.count("data:image/svg+xml;base64,") == 2
    assert "<b>default</b>" in source
    assert "<script" not in source


def test_a_method_that_the_llm_cannot_do_is_left_out_with_the_reason(configuration, tmp_path):
    replayed = ["llm.kind=recorded", f"llm.replies={configuration.parent / 'pool.jsonl'}", "llm.label=gold"]
    some = [word for name in ("zero-shot", "few-shot") for word in ("--method", name)]
    words = [word for each in replayed for word in ("--set", each)]
    said = freeal("study", configuration, "--seeds", 1, "--out", tmp_path / "study", *some, *words)
    assert said.code == 0
    assert "few-shot is left out" in said.err
    assert "| zero-shot | 1.000 |" in said.out


def test_an_unknown_method_is_told_with_the_one_meant(configuration):
    said = freeal("study", configuration, "--method", "defaut")
    assert said.code == 2
    assert "no method 'defaut'; did you mean 'default'?" in said.err


def test_an_ablation_of_no_configuration_names_no_part(tmp_path):
    said = freeal("study", tmp_path / "nothing.yaml", "--ablate", "--out", tmp_path / "study")
    assert said.code == 2
    assert said.err.count("nothing.yaml") == 1


def test_a_part_of_the_ablation_is_studied_by_its_name(configuration, tmp_path):
    some = [word for name in ("default", "default, hard labels") for word in ("--method", name)]
    said = freeal("study", configuration, "--seeds", 1, "--out", tmp_path / "study", *some)
    assert said.code == 0
    found = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))
    assert list(found["methods"]) == ["default", "default, hard labels"]
    assert "default, hard labels" in found["differences"]


def test_a_part_that_the_configuration_does_not_have_is_told_before_anything_is_asked(configuration, tmp_path):
    some = [word for name in ("default", "default, no judge") for word in ("--method", name)]
    said = freeal("study", configuration, "--seeds", 1, "--out", tmp_path / "study", *some)
    assert said.code == 2
    assert "default, no judge:" in said.err
    assert "student.judge" in said.err
    assert not (tmp_path / "study").exists()


def test_without_gold_nothing_is_studied(configuration, tmp_path):
    said = freeal("study", configuration, "--out", tmp_path / "study", "--set", "data.gold=null")
    assert said.code == 2
    assert "data.gold is not set" in said.err


def rows_of(values):
    return {f"r{i}": float(value) for i, value in enumerate(values)}


def test_the_interval_of_a_difference_holds():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(300):
        of, over = rng.random(400) < 0.7, rng.random(400) < 0.6
        found = difference([rows_of(of)], [rows_of(over)], seed)
        held += found["low"] <= 0.1 <= found["high"]
    assert held >= 273


def test_the_same_rows_in_several_seeds_prove_no_more_than_once():
    rng = np.random.default_rng(0)
    of, over = rows_of(rng.random(400) < 0.7), rows_of(rng.random(400) < 0.66)
    once, thrice = difference([of], [over]), difference([of] * 3, [over] * 3)
    assert thrice["mean"] == pytest.approx(once["mean"])
    assert thrice["high"] - thrice["low"] == pytest.approx(once["high"] - once["low"], rel=0.1)


def test_settings_of_the_user_go_with_methods_that_choose_another_kind(configuration, tmp_path):
    some = [word for name in ("zero-shot", "default", "gold") for word in ("--method", name)]
    own = ["--set", "student.c=3.0", "--set", "llm.noise=0.3"]
    said = freeal("study", configuration, "--seeds", 1, "--out", tmp_path / "study", *some, *own)
    assert said.code == 0
    found = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))
    assert set(found["methods"]) == {"zero-shot", "default", "gold"}


def test_budgets_limit_the_calls_of_each_method(configuration, tmp_path):
    folder = tmp_path / "study"
    some = ("--method", "zero-shot", "--method", "default", "--method", "gold", "--seeds", 1)
    said = freeal("study", configuration, "--out", folder, *some, "--budgets", "1,0.5", "--json")
    assert said.code == 0
    methods = json.loads(said.out)["methods"]
    at = ["", " at 0.5", " at 1"]
    assert list(methods) == [*("zero-shot" + each for each in at), *("default" + each for each in at), "gold"]
    for name, most in (("default at 0.5", 25), ("default at 1", 50), ("zero-shot at 0.5", 25)):
        assert 0 < methods[name]["calls"]["mean"] <= most
    assert methods["default at 0.5"]["pool"]["mean"] > methods["zero-shot at 0.5"]["pool"]["mean"]
    assert (folder / "default-at-0.5" / "seed-0" / "summary.json").is_file()


@pytest.fixture(scope="module")
def budgeted(configuration):
    """The pool has 50 texts and the test 30: with half a call for a row, the test alone would spend them."""
    folder = configuration.parent / "budgeted"
    some = [word for name in ("zero-shot", "default", "default, hard labels") for word in ("--method", name)]
    said = freeal("study", configuration, "--out", folder, *some, "--seeds", 1, "--budgets", "0.5,1")
    assert said.code == 0, said.err
    return json.loads((folder / "study.json").read_text(encoding="utf-8")), said, folder


def test_a_method_is_compared_with_the_default_at_the_same_budget(budgeted):
    found, said, folder = budgeted
    against = {name: apart["reference"] for name, apart in found["differences"].items()}
    for at in (" at 0.5", " at 1"):
        assert against["zero-shot" + at] == against["default, hard labels" + at] == "default" + at
        assert against["default" + at] == "default"
    assert against["zero-shot"] == against["default, hard labels"] == "default"
    means = [found["methods"][name]["pool"]["mean"] for name in ("default at 0.5", "zero-shot at 0.5")]
    assert found["differences"]["zero-shot at 0.5"]["mean"] == pytest.approx(means[0] - means[1])
    assert said.out.count("against all its calls") == 2 * 3, "two budgets; labels of pool and test, and the student"
    assert "at most 25 calls: 0.5 for a row of the pool" in (folder / "study.html").read_text(encoding="utf-8")


def test_the_test_is_measured_at_every_budget_as_its_replies_are_kept(budgeted):
    found, _, folder = budgeted
    for name, method in found["methods"].items():
        assert "test" in method, name
    assert set(found["differences_test"]) == set(found["differences"])
    usage = json.loads((folder / "default-at-0.5" / "seed-0" / "summary.json").read_text(encoding="utf-8"))["usage"]
    assert usage["calls"] <= 25


def test_parts_stand_in_a_table_of_their_own_and_in_no_drawing(budgeted):
    found, said, folder = budgeted
    main, _, parts = said.out.partition("| what a part is worth |")
    assert "hard labels" not in main
    assert f"| default, hard labels | {pages.points(found['differences']['default, hard labels'])} |" in parts
    assert "calibration error, by which the default is worse without it" in said.out
    page = (folder / "study.html").read_text(encoding="utf-8")
    assert page.index("<figure>") < page.index("<h2>Methods</h2>") < page.index("What each part of default is worth")
    assert set(pages._curves(found, "pool", "calls")) == {"zero-shot", "default"}


def test_a_part_that_sets_sureness_is_worth_what_the_calibration_error_would_be_more_without_it(budgeted):
    found, said, folder = budgeted
    page = (folder / "study.html").read_text(encoding="utf-8").partition("What each part of default is worth")[2]
    table = said.out.partition("| what a part is worth |")[2]
    for at in ("", " at 0.5", " at 1"):
        without, whole = (
            found["methods"][name + at]["calibration"]["mean"] for name in ("default, hard labels", "default")
        )
        told = f"{without - whole + 0.0:+.3f}"
        assert pages.sureness(found, "default, hard labels" + at) in (told, told.replace("-0.000", "+0.000"))
        assert f"| {pages.sureness(found, 'default, hard labels' + at)} | " in table
        assert f'"calibration error, pool">{pages.sureness(found, "default, hard labels" + at)}</td>' in page
    assert "the calibration error of its labels on the pool is larger so: above zero, the part pays" in page


def test_sureness_is_compared_seed_by_seed():
    def ran(*errors):
        return {"runs": [{"seed": seed, "calibration": error} for seed, error in enumerate(errors) if error]}

    methods = {"default": ran(0.10, 0.30), "part": ran(0.15, 0.33, 0.9), "one": ran(None, 0.20), "none": ran()}
    found = {"methods": methods, "differences": {name: {"reference": "default"} for name in methods}}
    assert pages.sureness(found, "part") == "+0.040 ± 0.014"
    assert pages.sureness(found, "one") == "-0.100"
    assert pages.sureness(found, "none") == pages.sureness(found, "unknown") == ""


def test_the_page_tells_macro_f1_and_differences_on_the_test(budgeted):
    found, _, folder = budgeted
    page = (folder / "study.html").read_text(encoding="utf-8")
    cell = page.partition('<td class="n" data-title="labels, test">')[2].partition("</td>")[0]
    assert f"macro-F1 {found['methods']['zero-shot']['test_f1']['mean']:.3f}" in cell
    assert pages.points(found["differences_test"]["zero-shot"], -1) in cell


def test_a_narrower_command_in_the_same_folder_keeps_what_others_have_made_there(configuration, tmp_path):
    folder, small = tmp_path / "study", ("--seeds", 1, "--set", "data.sample=20")
    words = ("study", configuration, "--out", folder, *small)
    wide = [word for name in ("zero-shot", "default", "default, hard labels") for word in ("--method", name)]
    assert freeal(*words, *wide, "--budgets", "0.5").code == 0
    before = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    said = freeal(*words, "--method", "calibrated")
    after = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert list(after["methods"]) == [
        "zero-shot", "zero-shot at 0.5", "calibrated", "default", "default at 0.5", "default, hard labels",
        "default, hard labels at 0.5",
    ]  # fmt: skip
    assert after["earlier"] == [name for name in after["methods"] if name != "calibrated"]
    assert {name: after["methods"][name] for name in before["methods"]} == before["methods"]
    assert {name: after["differences"][name] for name in before["differences"]} == before["differences"]
    assert after["unfinished"] == []
    assert "not in this table" not in said.err
    page = (folder / "study.html").read_text(encoding="utf-8")
    assert "Made in this folder by an earlier command, with the same settings: zero-shot; zero-shot at 0.5;" in page


def test_finished_methods_of_other_settings_or_too_few_seeds_are_told_and_not_in_the_table(configuration, tmp_path):
    folder = tmp_path / "study"
    words = ("study", configuration, "--out", folder, "--set", "data.sample=20", "--method")
    assert freeal(*words, "zero-shot", "--seeds", 1).code == 0
    assert freeal(*words, "distilled", "--seeds", 2, "--set", "student.c=3.0").code == 0
    said = freeal(*words, "calibrated", "--seeds", 2)
    assert said.code == 0
    told = f"not in this table, as {folder} has them "
    assert f"{told}not with all of 2 seeds (--method NAME adds them): zero-shot\n" in said.err
    assert f"{told}with other settings: distilled\n" in said.err
    assert list(json.loads((folder / "study.json").read_text(encoding="utf-8"))["methods"]) == ["calibrated"]


def test_runs_about_other_rows_stand_in_no_table_together(tmp_path):
    rows = opinions(40)
    words = ("study", films(tmp_path, rows, data={"gold": "gold"}), "--out", tmp_path / "study", "--seeds", 1)
    assert freeal(*words, "--method", "zero-shot").code == 0
    films(tmp_path, rows[1:], data={"gold": "gold"})
    study._finished.cache_clear()  # the next command is a process of its own
    said = freeal(*words, "--method", "calibrated")
    assert said.code == 7
    assert "its pool has changed since: 1 removed (r0)" in said.err
    assert not (tmp_path / "study" / "calibrated").exists()


def test_dollars_are_told_where_anything_costs_any(budgeted):
    found = json.loads(json.dumps(budgeted[0]))
    assert "dollars" not in pages.shown(found)
    found["methods"]["default"]["dollars"] = {"mean": 0.0123, "sd": 0.0, "values": [0.0123]}
    assert "| dollars |" in pages.table(found)[0]
    assert "| 0.0123 |" in "\n".join(pages.table(found))


def test_a_legend_is_never_higher_than_its_drawing():
    for count in (2, 30):
        curves = {f"way {i}": [(1.0, 0.5, 0.0)] for i in range(count)}
        drawn = charts.against_cost(curves, "calls", "accuracy", 0.9)
        height = float(re.search(r'height="([\d.]+)pt"', drawn)[1])
        places = re.findall(r'y="(-?[\d.]+)" transform="[^"]*">(?:way|taught)', drawn)
        assert len(places) == count + 1
        assert all(0 < float(place) < height for place in places)


@pytest.mark.parametrize("wrong", ["half", "0", "-1", "nan"])
def test_a_budget_that_is_none_is_told(configuration, wrong):
    said = freeal("study", configuration, f"--budgets={wrong}")
    assert said.code == 2
    assert f"--budgets {wrong}" in said.err


NOT_THERE = {
    "default, no judge",
    "default, linear judge",
    "default, as rare as it comes out",
    "default, no names listed",
}


def test_each_part_of_the_default_is_switched_off_in_turn(configuration, tmp_path):
    small = ("--method", "default", "--seeds", 1, "--set", "data.sample=30")
    said = freeal("study", configuration, "--out", tmp_path / "study", *small, "--ablate", "--json")
    assert said.code == 0
    found = json.loads(said.out)
    assert set(found["differences"]) == {method.name for method in ABLATED} - NOT_THERE
    assert set(found["left_out"]) == NOT_THERE


def test_a_part_that_the_configuration_has_not_is_left_out(configuration, tmp_path):
    (part,) = methods(["default, one round"])
    assert without_part(configuration, tmp_path, part, ["rounds=1"]) == "the configuration says so already"
    assert without_part(configuration, tmp_path, part, ["rounds=2"]) is None
    (part,) = methods(["default, nearest demonstrations"])
    assert without_part(configuration, tmp_path, part, ["rounds=1"]) == "a run of one round has no such part"
    assert without_part(configuration, tmp_path, part, ["rounds=2"]) is None


def test_differences_are_known_for_the_student_on_the_test(studied):
    found = json.loads((studied[0] / "study.json").read_text(encoding="utf-8"))
    apart = found["differences_student"]["gold"]
    means = [found["methods"][name]["student_test"]["mean"] for name in ("default", "gold")]
    assert apart["mean"] == pytest.approx(means[0] - means[1])
    assert "its student on the test" in (studied[0] / "study.html").read_text(encoding="utf-8")


def test_a_budget_that_the_first_demonstrations_exceed_leaves_the_method_out(configuration, tmp_path):
    some = ("--method", "zero-shot", "--method", "few-shot", "--seeds", 1)
    said = freeal("study", configuration, "--out", tmp_path / "study", *some, "--budgets", "0.2", "--json")
    assert said.code == 0
    found = json.loads(said.out)
    assert set(found["methods"]) == {"zero-shot", "zero-shot at 0.2", "few-shot"}
    assert "max_calls" in found["left_out"]["few-shot at 0.2"]


def test_every_method_has_the_calls_that_the_configuration_allows_whoever_asked_before(configuration, tmp_path):
    for method in study.methods([]):
        chosen = study.settings(configuration, tmp_path, method, 0, ["stop.max_calls=30"])
        assert chosen.stop.count_reused
    assert not study.settings(configuration, tmp_path, method, 0).stop.count_reused


def test_figures_of_one_seed_have_no_spread():
    assert study._spread([0.5]) == {"mean": 0.5, "sd": None, "values": [0.5]}


def test_rows_that_a_budget_leaves_without_a_label_count_as_wrong(configuration, tmp_path):
    some = ("--method", "calibrated", "--seeds", 1, "--budgets", "0.5", "--json")
    found = json.loads(freeal("study", configuration, "--out", tmp_path / "study", *some).out)["methods"]
    assert found["calibrated at 0.5"]["pool"]["mean"] <= 0.5 < found["calibrated"]["pool"]["mean"]


UNREADABLE = ("--set", "llm.unreadable=0.9", "--set", "data.sample=30", "--seeds", 1)


def test_a_method_of_which_nothing_can_be_read_is_left_out_and_the_others_are_told(configuration, tmp_path):
    some = ("--method", "zero-shot", "--method", "default", "--budgets", "0.04", *UNREADABLE)
    said = freeal("study", configuration, "--out", tmp_path / "study", *some)
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))
    assert {"zero-shot", "default"} <= set(found["methods"])
    assert "none of 1 replies could be read" in found["left_out"]["default at 0.04"]
    assert found["unfinished"] == []


def test_warnings_of_the_runs_are_told_by_method_and_seed(configuration, tmp_path):
    said = freeal("study", configuration, "--out", tmp_path / "study", "--method", "zero-shot", *UNREADABLE)
    found = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))
    (run,) = found["methods"]["zero-shot"]["runs"]
    (warning,) = [each for each in run["warnings"] if "got no readable answer" in each]
    assert f"look at this before you use the labels: {warning} (zero-shot, seed 0)" in said.out
    page = (tmp_path / "study" / "study.html").read_text(encoding="utf-8")
    assert re.search(r'class="warning">[^<]*got no readable answer[^<]*<br><span class="quiet">zero-shot, seed 0', page)


def test_a_reason_is_one_line(configuration, tmp_path):
    (part,) = methods(["default, no judge"])
    assert without_part(configuration, tmp_path, part, ()) == "student.judge: is for student.kind transformer"


def without_times(folder):
    """study.json but for seconds, and the command, which names the folder."""
    found = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    del found["command"]
    for method in found["methods"].values():
        for each in (method, *method["runs"]):
            del each["seconds"]
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("action", "code"), [("term", 128 + 15), ("kill9", -9)], ids=str)
def test_a_study_interrupted_within_a_run_has_a_table_and_goes_on_to_the_same_figures(
    configuration, tmp_path, action, code
):
    some = ("--method", "zero-shot", "--method", "default", "--seeds", "1", "--set", "data.sample=30")
    words = ["study", str(configuration), "--out", str(tmp_path / "halting"), *some]
    third = {**os.environ, "FREEAL_FAILPOINT": f"artefact.mid_write:3={action}"}  # that of default's second round
    said = subprocess.run([sys.executable, "-m", "freeal", *words], env=third, capture_output=True, text=True)
    assert said.returncode == code, said.stderr
    table = without_times(tmp_path / "halting")
    assert (set(table["methods"]), table["unfinished"]) == ({"zero-shot"}, ["default, seed 0"])
    assert "Not finished: 1 run is" in (tmp_path / "halting" / "study.html").read_text(encoding="utf-8")
    assert (tmp_path / "halting" / "default" / "seed-0" / "rounds" / "00").is_dir()
    if action == "term":
        assert f"go on with:  freeal {' '.join(words)}" in said.stderr
    assert freeal(*words).code == 0
    assert freeal("study", configuration, "--out", tmp_path / "straight", *some).code == 0
    assert without_times(tmp_path / "halting") == without_times(tmp_path / "straight")


def test_the_examples_in_the_docstrings_hold():
    assert [doctest.testmod(module).failed for module in (study, pages)] == [0, 0]


def test_a_study_does_not_mix_two_versions_of_a_prompt(configuration, tmp_path):
    mine = tmp_path / "prompt.md"
    mine.write_bytes((configuration.parent / yaml.safe_load(configuration.read_text())["prompt"]).read_bytes())
    some = ("--method", "zero-shot", "--seeds", 1, "--out", tmp_path / "study", "--set", f"prompt={mine}")
    assert freeal("study", configuration, *some).code == 0
    mine.write_text(mine.read_text(encoding="utf-8").replace("## user\n", "## user\nRead this.\n"), encoding="utf-8")
    said = freeal("study", configuration, *some, "--method", "calibrated")
    assert said.code == 7
    assert f"{mine} is not the one the run began with" in said.err
