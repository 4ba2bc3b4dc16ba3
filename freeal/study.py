"""What a pipeline is worth: the same data and LLM, method by method and seed by seed, and what came of it.

A study is a folder of runs, METHOD/seed-S, each an ordinary run directory; a kept reply is used by all that ask the
same. What a method costs is counted as if it had been alone.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np

from freeal import build, config, metrics, prompts, rows, store
from freeal.errors import ConfigError, FreealError, did_you_mean
from freeal.ledger import FILE as LEDGER
from freeal.ledger import Ledger
from freeal.parts import llms
from freeal.report import history, measure, worth
from freeal.report.study import AT
from freeal.scorekeeper import works_before
from freeal.tasks import Kind
from freeal.types import IntArray

SCHEMA_VERSION = 1
REFERENCE = "default"
"""The method that the others are compared with, if it is among them."""

GOLD = "gold.csv"

RESAMPLED = 10_000
"""Bootstrap samples behind an interval of a difference."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to label the pool: `settings` over the configuration, and whose word counts as its labels.

    `student`: whether its student is measured on the test. `on_gold`: it is taught by gold labels, to show what a
    student could reach; they never get to any other method. `tasks`: the kinds of task that it concerns. `again`: it
    matters only where demonstrations are shown, or rows are asked again. `judged`: only where candidates are judged.
    `part`: it is the default with one part of it another way. `budget`: calls for a row of the pool that it is limited
    to, `max_calls` in all; None: as many as it makes.
    """

    name: str
    told: str
    settings: tuple[str, ...]
    labels: str | None
    student: bool = False
    on_gold: bool = False
    tasks: tuple[Kind, ...] = get_args(Kind)
    again: bool = False
    judged: bool = False
    part: bool = False
    budget: float | None = None
    max_calls: int | None = None


_ALONE = ("preset=zero-shot", "rounds=1", "student.kind=none", "cold_start.names=0")
METHODS = (
    Method("zero-shot", "the LLM alone, as it answers", (*_ALONE, "calibration.kind=none"), "zero_shot"),
    Method("calibrated", "the LLM, calibrated on the pool", (*_ALONE, "calibration.kind=batch"), "llm"),
    Method(
        "few-shot", "the LLM with the nearest demonstrations that it wrote itself, calibrated",
        (
            *_ALONE, "calibration.kind=batch", "cold_start.kind=generated", "demos.retrieve=nearest",
            "evaluation.llm_on_test=false",  # which is asked without demonstrations
        ), "llm",
    ),
    Method(
        "distilled", "a student of the calibrated labels", ("preset=default", "rounds=1", "cold_start.names=0"),
        "student", student=True,
    ),
    Method("freeal-paper", "FreeAL as published", ("preset=freeal-paper", "rounds=2"), "final", student=True),
    Method("default", "freeal", ("preset=default",), "final", student=True),
    Method(
        "gold", "the same student, taught by gold labels: the ceiling",
        ("preset=default", "rounds=1", "calibration.kind=none", "targets=hard", "filter.kind=none", "demos.kind=none"),
        None, student=True, on_gold=True,
    ),
)  # fmt: skip


def methods(names: Sequence[str]) -> list[Method]:
    """The methods of these names, parts of an ablation among them, in the order in which they share replies best.

    If none is named, all but the parts.

    Raises:
        ConfigError: no method has this name.
    """
    if not names:
        return list(METHODS)
    known = {method.name: method for method in (*METHODS, *ablated())}
    for name in names:
        if name not in known:
            told = "; ".join(known) if name.startswith("default,") else ", ".join(method.name for method in METHODS)
            raise ConfigError(f"no method {name!r}{did_you_mean(name, known)}; there are {told}")
    return [method for name, method in known.items() if name in names]


ABLATED = (
    Method(
        "default, LLM as it answers",
        "without calibration, and the lists of names that keep to its shares",
        ("calibration.kind=none",),
        "final",
        student=True,
    ),
    Method(
        "default, even shares", "divided by the mean of the pass", ("calibration.kind=batch",), "final", student=True
    ),
    Method(
        "default, as sure as it says",
        "no pass is tempered",
        ("calibration.sober=false",),
        "final",
        student=True,
        tasks=("classification", "multilabel"),
        again=True,
    ),
    Method(
        "default, immodest student",
        "it is as sure as it says, and its weight not bound by what it foretells",
        ("fusion.modest=false",),
        "final",
        student=True,
    ),
    Method(
        "default, as sure as the pool",
        "pooled labels are not sharpened",
        ("fusion.sharpen=false",),
        "final",
        student=True,
        tasks=("classification", "multilabel"),
        again=True,
    ),
    Method(
        "default, as rare as it comes out",
        "pooled labels do not keep the LLM's shares of types",
        ("fusion.shares=false",),
        "final",
        student=True,
        tasks=("tokens",),
        judged=True,
    ),
    Method(
        "default, no names listed",
        "what candidates are like has no say",
        ("cold_start.names=0",),
        "final",
        student=True,
        tasks=("tokens",),
        judged=True,
    ),
    Method(
        "default, no scout",
        "the first round asks about all rows",
        ("query.scout=1.0",),
        "final",
        student=True,
        again=True,
    ),
    Method(
        "default, no understudy",
        "answers that tell little stay",
        ("cold_start.rescue=0",),
        "final",
        student=True,
        tasks=("classification",),
        again=True,
    ),
    Method("default, one round", "no demonstrations at all", ("rounds=1",), "final", student=True),
    Method(
        "default, doubtful rows alone",
        "later rounds ask what is not believed",
        ("query.scout=1.0", "query.kind=not_clean"),
        "final",
        student=True,
        again=True,
    ),
    Method(
        "default, nearest demonstrations",
        "for each row its own",
        ("demos.retrieve=nearest",),
        "final",
        student=True,
        again=True,
    ),
    Method(
        "default, demonstrations by cluster",
        "a set for each cluster",
        ("demos.retrieve=clusters",),
        "final",
        student=True,
        again=True,
    ),
    Method(
        "default, trust by neighbours",
        "neighbours agree, too",
        ("demos.trust=neighbours",),
        "final",
        student=True,
        again=True,
    ),
    Method(
        "default, last round whatever it did",
        "a round that did harm is not taken back",
        ("stop.rollback=false",),
        "final",
        student=True,
        again=True,
    ),
    Method(
        "default, taste not asked for",
        "no texts that say nothing",
        ("calibration.content_free=0",),
        "final",
        student=True,
        tasks=("classification",),
    ),
    Method("default, no judge", "the student judges its own rows", ("student.judge=none",), "final", student=True),
    Method(
        "default, linear judge",
        "a regression on frozen embeddings judges them",
        ("student.judge=linear",),
        "final",
        student=True,
    ),
    Method("default, no filter", "losses are not looked at", ("filter.kind=none",), "final", student=True),
    Method("default, LLM alone", "the student has no say in the labels", ("fusion.student=0",), "final", student=True),
    Method("default, hard labels", "the student learns labels", ("targets=hard",), "final", student=True),
)
"""The default with one part switched off, or another way; what each part is worth is the difference."""


def ablated() -> list[Method]:
    """Those of the ablation, with the settings of the default beneath."""
    return [replace(method, settings=("preset=default", *method.settings), part=True) for method in ABLATED]


def without_part(file: Path, folder: Path, method: Method, overrides: Sequence[str]) -> str | None:
    """Why a method of the ablation is not run, if the configuration has no such part to switch off."""
    (whole,) = methods([REFERENCE])
    try:
        chosen = settings(file, folder, method, 0, overrides)
    except ConfigError as error:
        return reason(error)
    if chosen == settings(file, folder, whole, 0, overrides):
        return "the configuration says so already"
    if method.again and chosen.rounds == 1 and chosen.cold_start.kind == "none":
        return "a run of one round has no such part"
    if method.judged and chosen.reading == "written":
        return "answers that are written have no such part"
    kind = prompts.load(Path(chosen.prompt)).task.kind
    return None if kind in method.tasks else f"a task of kind {kind} has no such part"


def reason(error: FreealError) -> str:
    """Why a method cannot be run, on one line and without the name of the configuration, which all have in common."""
    return " ".join(str(error).rpartition("cannot be used:\n")[2].split())


def at_budgets(chosen: Sequence[Method], shares: Sequence[float], size: int) -> list[Method]:
    """The methods, each also with at most so many calls for each of `size` rows; those that ask nobody as they are.

    Raises:
        ConfigError: a share that allows no call.
    """
    found = []
    for method in chosen:
        found.append(method)
        for share in () if method.on_gold else shares:
            if round(share * size) < 1:
                raise ConfigError(f"--budgets {share:g}: allows no call for {size:,} rows")
            found.append(_limited(method, share, round(share * size)))
    return found


def _limited(method: Method, share: float, calls: int) -> Method:
    """The method with at most `calls` calls, a `share` of the rows of the pool."""
    limits = (f"stop.max_calls={calls}", "stop.count_reused=true")
    name, chosen_so = f"{method.name}{AT}{share:g}", (*method.settings, *limits)
    return replace(method, name=name, settings=chosen_so, budget=share, max_calls=calls)


def run_of(folder: Path, method: Method, seed: int) -> Path:
    """The run directory of a method and a seed in the study's `folder`."""
    return folder / _as_folder(method.name) / f"seed-{seed}"


def _as_folder(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def is_finished(folder: Path, method: Method, seed: int) -> bool:
    """Whether the study in `folder` has the whole run of a method and a seed."""
    return store.is_finished(run_of(folder, method, seed))


def methods_in(folder: Path, size: Callable[[], int]) -> list[Method]:
    """The methods that the study in `folder` has finished runs of, in the order of its tables.

    Args:
        size: rows of the pool; asked where a method is there with a budget, of which it is a share.
    """
    found = []
    for method in (*METHODS, *ablated()):
        at = _as_folder(method.name + AT)
        budgets = (each.name.removeprefix(at) for each in folder.glob(f"{at}*"))
        shares = sorted(float(each) for each in budgets if re.fullmatch(r"\d+(\.\d+)?(e-\d+)?", each))
        found += [method, *(_limited(method, share, round(share * size())) for share in shares)]
    runs = {each.name: (folder / _as_folder(each.name)).glob("seed-*") for each in found}
    return [each for each in found if any(map(store.is_finished, runs[each.name]))]


def in_order(chosen: Sequence[Method]) -> list[Method]:
    """The methods in the order of a study's tables: each at its budgets after it, the parts at the end."""
    names = [method.name for method in (*METHODS, *ablated())]
    return sorted(chosen, key=lambda each: (names.index(each.name.partition(AT)[0]), each.budget or 0.0))


def settings(file: Path, folder: Path, method: Method, seed: int, overrides: Sequence[str] = ()) -> config.Config:
    """The settings of a run of the study in `folder`: those of `file`, `overrides`, and the method's."""
    given = [*method.settings, f"seed={seed}"]
    if method.on_gold:
        recording = {"kind": "recorded", "replies": str((folder / GOLD).resolve()), "id": "id", "label": "label"}
        given += [f"llm={json.dumps([recording])}", "panel=[]"]  # a list takes the place of one LLM, and of several
        given += ["evaluation.llm_on_test=false", "reading=written"]
        if getattr(config.load(file, overrides, given).student, "objective", None) == "coteaching":
            given += ["student.objective=plain"]  # where every row is believed, all weigh the same
    if config.load(file, overrides, given).stop.max_calls is not None:
        given += ["stop.count_reused=true"]  # or who comes later and finds replies kept would have more calls
    return config.load(file, overrides, given)


def pool_size(file: Path, overrides: Sequence[str]) -> int:
    """Rows of the pool that the configuration `file` names."""
    chosen = config.load(file, overrides)
    return len(build.inputs(chosen, Path(chosen.prompt))[1].pool)


def write_gold(file: Path, folder: Path, seeds: Sequence[int], overrides: Sequence[str]) -> None:
    """The pool's gold labels as a recording, for the method that is taught by them.

    Raises:
        ConfigError: the configuration names no gold labels.
    """
    found: dict[str, str] = {}
    for seed in seeds:
        chosen = config.load(file, [*overrides, f"seed={seed}"])
        prompt, corpus = build.inputs(chosen, Path(chosen.prompt))
        if corpus.gold is None:
            raise ConfigError(f"{file}: data.gold is not set: without gold labels nothing can be measured")
        known = metrics.known(corpus.gold)
        found |= {
            example.id: prompt.task.write(example.text, gold)
            for example, gold, there in zip(corpus.pool.examples, corpus.gold, known, strict=True) if there
        }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / GOLD).open("w", encoding="utf-8", newline="") as kept:
        csv.writer(kept).writerows([("id", "label"), *found.items()])


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run came to: figures by name, where -> id -> 1.0 where it is right there, its summary, what is `worth`."""

    figures: Mapping[str, float]
    right: Mapping[str, Mapping[str, float]]
    summary: Mapping[str, Any]
    measures: frozenset[str]


@cache
def _finished(run: Path, method: Method) -> Finished:
    """The run in the directory `run`, which does not change any more."""
    summary = store.read_json(run / store.SUMMARY)
    cost = {"seconds": summary["seconds"]} if method.on_gold else _cost(run, summary)
    measures = {measure(score) for where in ("pool", "test") for score in summary[where].values() if score}
    return Finished(_scores(summary, method) | cost, _right(run, method), summary, frozenset(measures))


def collect(
    folder: Path,
    chosen: Sequence[Method],
    seeds: Sequence[int],
    command: str,
    left_out: Mapping[str, str],
    earlier: Sequence[Method] = (),
) -> dict[str, Any]:
    """Every figure of the runs of the study in `folder` that are finished by now; one at least is.

    Args:
        left_out: method -> why it could not be run.
        earlier: methods of which another command has made every run; they are told beside the `chosen` ones.
    """
    told = in_order([*chosen, *earlier])
    runs = {(method, seed): run_of(folder, method, seed) for seed in seeds for method in told}
    done = {key: _finished(run.resolve(), key[0]) for key, run in runs.items() if is_finished(folder, *key)}
    there = [method for method in told if any((method, seed) in done for seed in seeds)]
    judged = [method.name.partition(AT)[0] for method in there if method.labels]
    reference = REFERENCE if REFERENCE in judged else judged[-1] if judged else ""
    first = next(iter(done.values()))
    return {
        "schema_version": SCHEMA_VERSION, "command": command, "seeds": list(seeds), "data": first.summary["data"],
        "measure": "F1" if any("F1" in each.measures for each in done.values()) else "accuracy",
        "reference": reference,
        "methods": {
            method.name: _of_seeds(
                method, {seed: (runs[method, seed].relative_to(folder), done[method, seed])
                         for seed in seeds if (method, seed) in done}
            ) for method in there
        },
        **{
            key: _differences({(of.name, seed): run.right.get(where) for (of, seed), run in done.items()}, reference)
            for key, where in DIFFERENCES.items()
        },
        "left_out": dict(left_out), "earlier": [method.name for method in in_order(earlier)],
        "unfinished": [
            f"{method.name}, seed {seed}" for seed in seeds for method in chosen if (method, seed) not in done
        ],
    }  # fmt: skip


DIFFERENCES = {"differences": "pool", "differences_test": "test", "differences_student": "student_test"}
"""Key of study.json -> the figure that its differences are about."""


def _of_seeds(method: Method, runs: Mapping[int, tuple[Path, Finished]]) -> dict[str, Any]:
    """A method's runs by seed (and where they are), and its figures, those that every seed has, over them."""
    figures = [run.figures for _, run in runs.values()]
    names = [name for name in figures[0] if all(name in each for each in figures)]
    return {
        "told": method.told, "part": method.part, "budget": method.budget, "max_calls": method.max_calls,
        "runs": [
            {"seed": seed, "run": str(where), **run.figures, "warnings": list(run.summary["warnings"])}
            for seed, (where, run) in runs.items()
        ],
        **{name: _spread([float(each[name]) for each in figures]) for name in names},
    }  # fmt: skip


def _differences(
    right: Mapping[tuple[str, int], Mapping[str, float] | None], reference: str
) -> dict[str, dict[str, Any]]:
    """How much more the rival of each method has right than that, with the seeds with which both were measured."""
    found = {}
    for name in dict.fromkeys(name for name, _ in right):
        other = rival(name, reference)
        seeds = [seed for of, seed in right if of == name and right[name, seed] and right.get((other, seed))]
        if other != name and seeds:
            of, over = ([right[each, seed] or {} for seed in seeds] for each in (other, name))
            found[name] = {**difference(of, over), "reference": other}
    return found


def rival(name: str, reference: str) -> str:
    """What a method is compared with: the reference at the same budget; the reference at a budget with that without.

    Example:
        >>> rival("zero-shot at 0.5", "default"), rival("zero-shot", "default"), rival("default at 0.5", "default")
        ('default at 0.5', 'default', 'default')
    """
    method, at, share = name.partition(AT)
    return reference if method == reference else f"{reference}{at}{share}"


def difference(
    of: Sequence[Mapping[str, float]], over: Sequence[Mapping[str, float]], seed: int = 0
) -> dict[str, float]:
    """How much more of the rows `of` has right than `over`, in the mean of the seeds, with a 95 % interval.

    A paired bootstrap over rows (Efron and Tibshirani, 1993, ch. 16): a row that several seeds have is drawn with all
    of them, since what they say of it is not independent. Rows differ in few ways, so that how often each of these is
    drawn is multinomial, and no row need be.

    Args:
        of, over: a seed's rows by id: 1.0 where right, else 0.0.

    Example:
        >>> difference([{"a": 1.0, "b": 1.0, "c": 0.0}], [{"a": 1.0, "b": 0.0, "c": 0.0}])["mean"]
        0.3333333333333333
    """
    shares: dict[str, float] = {}
    for ours, theirs in zip(of, over, strict=True):
        for uid in ours:
            shares[uid] = shares.get(uid, 0.0) + (ours[uid] - theirs[uid]) / (len(ours) * len(of))
    ways, counts = np.unique(np.round(list(shares.values()), 12), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(shares), counts / counts.sum(), RESAMPLED)
    low, high = np.quantile(drawn @ ways, [0.025, 0.975])
    return {"mean": sum(shares.values()), "low": float(low), "high": float(high)}


def _scores(summary: Mapping[str, Any], method: Method) -> dict[str, float]:
    """Accuracy and macro-F1 of a run's labels and student, as far as they were measured."""
    wanted = {"pool": ("pool", method.labels), "test": ("test", method.labels)}
    if method.student:
        wanted["student_test"] = ("test", "student")
    found = {}
    for name, (where, who) in wanted.items():
        score = summary[where].get(who) or {}
        if (value := worth(score)) is not None:
            found[name] = value
            if name == "pool" and score["calibration_error"] is not None:
                found["calibration"] = score["calibration_error"]
            found["student_f1" if name == "student_test" else f"{name}_f1"] = score["macro_f1"]
    return found


def _cost(run: Path, summary: Mapping[str, Any]) -> dict[str, float]:
    """Calls, tokens and dollars of labelling the pool, as if no reply had been there before; seconds as they were."""
    settings = store.kept_config(run)
    with Ledger(run / LEDGER, read_only=True) as ledger:
        works = works_before(len(summary["rounds"]))
        alone = ledger.usage(works, alone=True)
        dollars = llms.cost_alone(settings, ledger, works)
    return {
        "calls": alone.calls, "tokens": alone.tokens_in + alone.tokens_out, "dollars": dollars,
        "seconds": summary["seconds"],
    }  # fmt: skip


def _right(run: Path, method: Method) -> dict[str, dict[str, float]]:
    """Where -> id -> 1.0 where the row's label is gold's, else 0.0; rows without gold are left out.

    `pool`: the labels of the pool; `test`: the labels of the test; `student_test`: the student's.
    """
    then, chosen = history.read(run), store.kept_config(run)
    _, corpus = build.inputs(chosen, run / "prompt.md")
    gold = rows.as_before(run, corpus).gold
    assert gold is not None, "write_gold has looked"
    found = {}
    if method.labels:
        found["pool"] = _paired(then.ids, _labels(then, method.labels), gold)
    if corpus.test is not None and corpus.test_gold is not None:
        ids, said = then.on_test()
        by_id = {example.id: label for example, label in zip(corpus.test.examples, corpus.test_gold, strict=True)}
        true = np.array([by_id[uid] for uid in ids], np.int64)
        if method.labels in said:
            found["test"] = _paired(ids, then.task.best(said[method.labels]), true)
        if method.student and "student" in said:
            found["student_test"] = _paired(ids, then.task.best(said["student"]), true)
    return found


def _paired(ids: Sequence[str], labels: IntArray, gold: IntArray) -> dict[str, float]:
    known = [uid for uid, there in zip(ids, metrics.known(gold), strict=True) if there]
    return dict(zip(known, metrics.right(labels, gold).tolist(), strict=True))


def _labels(run: history.History, who: str) -> IntArray:
    final = run.final
    said = {
        "zero_shot": run.states[0].annotations.first, "llm": final.annotations.proba, "student": final.student,
        "final": final.posterior,
    }  # fmt: skip
    return run.task.best(said[who])


def _spread(values: Sequence[float]) -> dict[str, Any]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": deviation, "values": list(values)}
