"""What a pipeline is worth: the same data and LLM, method by method and seed by seed, and what came of it.

A study is a folder of runs, METHOD/seed-S, each an ordinary run directory; a kept reply is used by all that ask the
same. What a method costs is counted as if it had been alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freeal import build, config, metrics
from freeal.demonstrations import WORK as COLD_START
from freeal.errors import ConfigError, did_you_mean
from freeal.ledger import FILE as LEDGER
from freeal.ledger import Ledger
from freeal.report import charts, history
from freeal.report.page import environment, uri
from freeal.types import IntArray, LoopState, argmax

SCHEMA_VERSION = 1
REFERENCE = "default"
"""The method that the others are compared with, if it is among them."""

JSON, PAGE, GOLD = "study.json", "study.html", "gold.csv"

RESAMPLED = 10_000
"""Bootstrap samples behind an interval of a difference."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to label the pool: `settings` over the configuration, and whose word counts as its labels.

    `student`: whether its student is measured on the test. `on_gold`: it is taught by gold labels, to show what a
    student could reach; they never get to any other method.
    """

    name: str
    told: str
    settings: tuple[str, ...]
    labels: str | None
    student: bool = False
    on_gold: bool = False


_ALONE = ("preset=zero-shot", "rounds=1", "student.kind=none")
METHODS = (
    Method("zero-shot", "the LLM alone, as it answers", (*_ALONE, "calibration.kind=none"), "zero_shot"),
    Method("calibrated", "the LLM, calibrated on the pool", (*_ALONE, "calibration.kind=batch"), "llm"),
    Method(
        "few-shot", "the LLM with the nearest demonstrations that it wrote itself, calibrated",
        (*_ALONE, "calibration.kind=batch", "cold_start.kind=generated", "demos.retrieve=nearest"), "llm",
    ),
    Method("distilled", "a student of the calibrated labels", ("preset=default", "rounds=1"), "student", student=True),
    Method("freeal-paper", "FreeAL as published", ("preset=freeal-paper",), "final", student=True),
    Method("default", "freeal", ("preset=default",), "final", student=True),
    Method(
        "gold", "the same student, taught by gold labels: the ceiling",
        ("preset=default", "rounds=1", "calibration.kind=none", "targets=hard", "filter.kind=none", "demos.kind=none"),
        None, student=True, on_gold=True,
    ),
)  # fmt: skip


def methods(names: Sequence[str]) -> list[Method]:
    """The methods of these names, in the order in which they share replies best; all, if none is named."""
    known = {method.name: method for method in METHODS}
    for name in names:
        if name not in known:
            raise ConfigError(f"no method {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return [method for method in METHODS if method.name in names or not names]


def place(folder: Path, method: Method, seed: int) -> Path:
    """The run directory of a method and a seed in the study's `folder`."""
    return folder / method.name / f"seed-{seed}"


def settings(place: Path, method: Method, seed: int, folder: Path, overrides: Sequence[str] = ()) -> config.Config:
    """The settings of a run of the study in `folder`: those of the file at `place`, `overrides`, and the method's."""
    given = [*method.settings, f"seed={seed}"]
    if method.on_gold:
        gold = json.dumps(str((folder / GOLD).resolve()))
        given += ["llm.kind=recorded", f"llm.replies={gold}", "llm.id=id", "llm.label=label"]
        given += ["evaluation.llm_on_test=false"]
    return config.load(place, overrides, given)


def write_gold(folder: Path, place: Path, overrides: Sequence[str], seeds: Sequence[int]) -> None:
    """The pool's gold labels as a recording, for the method that is taught by them.

    Raises:
        ConfigError: the configuration names no gold labels.
    """
    found: dict[str, str] = {}
    for seed in seeds:
        chosen = config.load(place, [*overrides, f"seed={seed}"])
        prompt, corpus = build.inputs(chosen, Path(chosen.prompt))
        if corpus.gold is None:
            raise ConfigError(f"{place}: data.gold is not set: without gold labels nothing can be measured")
        labels = list(prompt.labels)
        pairs = zip(corpus.pool.examples, corpus.gold, strict=True)
        found |= {example.id: labels[gold] for example, gold in pairs if gold >= 0}
    with (folder / GOLD).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "label"), *found.items()])


def collect(
    folder: Path,
    chosen: Sequence[Method],
    seeds: Sequence[int],
    command: str,
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Every figure of the study in `folder`, all runs of which are finished; study.json and study.html hold them.

    Args:
        left_out: method -> why it could not be run.
    """
    judged = [method.name for method in chosen if method.labels]
    reference = REFERENCE if REFERENCE in judged else judged[-1] if judged else ""
    right: dict[tuple[str, int], Mapping[str, float]] = {}
    found: dict[str, Any] = {}
    for method in chosen:
        runs: list[dict[str, Any]] = []
        for seed in seeds:
            run = place(folder, method, seed)
            summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
            if method.labels:
                right[method.name, seed] = _right(run, method.labels)
            cost = {"seconds": summary["seconds"]} if method.on_gold else _cost(run, summary)
            runs.append({"seed": seed, "run": str(run.relative_to(folder)), **_scores(summary, method), **cost})
        every = set.intersection(*(set(run) for run in runs))
        numbers = [name for name in runs[0] if name in every - {"seed", "run"}]
        found[method.name] = {
            "told": method.told, "runs": runs,
            **{name: _spread([float(run[name]) for run in runs]) for name in numbers},
        }  # fmt: skip
    differences = {
        method.name: difference(
            [right[reference, seed] for seed in seeds], [right[method.name, seed] for seed in seeds]
        )
        for method in chosen if method.labels and method.name != reference
    }  # fmt: skip
    data = json.loads((place(folder, chosen[0], seeds[0]) / "summary.json").read_text(encoding="utf-8"))["data"]
    return {
        "schema_version": SCHEMA_VERSION, "command": command, "seeds": list(seeds), "data": data,
        "reference": reference, "methods": found, "differences": differences,
        "left_out": dict(left_out),
    }  # fmt: skip


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


def write(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write study.json and study.html; gives the path of the page."""
    (folder / JSON).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    methods = found["methods"]
    axes = {"calls": "calls to the LLM", "dollars": "dollars"}
    ceiling = next((methods[method.name].get("student_test") for method in METHODS if _is_ceiling(method, found)), None)
    drawings = []
    for figure, title in (("pool", "Labels on the pool"), ("student_test", "Student on the test")):
        for cost, axis in axes.items():
            points = _points(found, figure, cost)
            if any(x and not np.isnan(y) for x, y, _ in points.values()):
                across = ceiling["mean"] if ceiling and figure == "student_test" else None
                drawings.append((title, uri(charts.against_cost(points, axis, "accuracy", across))))
    made = environment()
    made.filters |= {"figure": told, "plain": lambda value, name: told({"mean": value, "values": [value]}, name)}
    page = made.get_template("study.html.j2").render(found=found, drawings=drawings, columns=COLUMNS)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


COLUMNS = {
    "pool": "labels, pool", "pool_f1": "macro-F1, pool", "test": "labels, test", "student_test": "student, test",
    "student_f1": "student, macro-F1, test", "calls": "calls", "tokens": "tokens", "seconds": "seconds",
}  # fmt: skip
"""Figures of a method, and what the table calls them."""


def table(found: Mapping[str, Any]) -> list[str]:
    """The study as a Markdown table: mean and, of several seeds, the standard deviation."""
    shown = [name for name in COLUMNS if any(name in method for method in found["methods"].values())]
    head = ["method", *(COLUMNS[name] for name in shown), f"more than {found['reference']}, pool"]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    for name, method in found["methods"].items():
        cells = [told(method[column], column) if column in method else "–" for column in shown]
        apart = found["differences"].get(name)
        more = (
            f"{100 * -apart['mean']:+.1f} ({100 * -apart['high']:+.1f} to {100 * -apart['low']:+.1f})" if apart else "–"
        )
        lines.append(f"| {' | '.join([name, *cells, more])} |")
    return lines


def told(figure: Mapping[str, Any], name: str) -> str:
    """A mean with its spread, as people read it."""
    if name in ("calls", "tokens", "seconds"):
        return f"{figure['mean']:,.0f}"
    spread = f" ± {figure['sd']:.3f}" if len(figure["values"]) > 1 else ""
    return f"{figure['mean']:.3f}{spread}"


def _is_ceiling(method: Method, found: Mapping[str, Any]) -> bool:
    return method.on_gold and method.name in found["methods"]


def _points(found: Mapping[str, Any], figure: str, cost: str) -> dict[str, tuple[float, float, float]]:
    """Name -> (cost, mean, standard deviation) of every method that costs something; NaN for one without the figure."""
    nothing = {"mean": float("nan"), "sd": 0.0}
    return {
        name: (method[cost]["mean"], method.get(figure, nothing)["mean"], method.get(figure, nothing)["sd"])
        for name, method in found["methods"].items() if cost in method
    }  # fmt: skip


def _scores(summary: Mapping[str, Any], method: Method) -> dict[str, float]:
    """Accuracy and macro-F1 of a run's labels and student, as far as they were measured."""
    wanted = {"pool": ("pool", method.labels), "test": ("test", method.labels)}
    if method.student:
        wanted["student_test"] = ("test", "student")
    found = {}
    for name, (where, who) in wanted.items():
        score = summary[where].get(who) or {}
        if score.get("accuracy") is not None:
            found[name] = score["accuracy"]
            found["student_f1" if name == "student_test" else f"{name}_f1"] = score["macro_f1"]
    return found


def _cost(run: Path, summary: Mapping[str, Any]) -> dict[str, float]:
    """Calls, tokens and dollars of labelling the pool, as if no reply had been there before; seconds as they were."""
    import yaml

    settings = config.parse(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")), str(run))
    price = build.price_of_calls(settings)
    with Ledger(run / LEDGER, read_only=True) as ledger:
        works = [COLD_START, *(f"round {number}" for number in range(len(summary["rounds"])))]
        alone = ledger.usage(works, alone=True)
    dollars = price.of(alone.tokens_in, alone.tokens_out) if price else 0.0
    return {
        "calls": alone.calls, "tokens": alone.tokens_in + alone.tokens_out, "dollars": dollars,
        "seconds": summary["seconds"],
    }  # fmt: skip


def _right(run: Path, who: str) -> dict[str, float]:
    """Id -> 1.0 where the label of the pool's row is gold's, else 0.0; rows without gold are left out."""
    import yaml

    then = history.read(run)
    chosen = config.parse(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")), str(run))
    _, corpus = build.inputs(chosen, run / "prompt.md")
    gold = corpus.in_order(list(then.ids)).gold
    assert gold is not None, "write_gold has looked"
    known = [uid for uid, label in zip(then.ids, gold, strict=True) if label >= 0]
    return dict(zip(known, metrics.right(_labels(then.states, who), gold).tolist(), strict=True))


def _labels(states: Sequence[LoopState], who: str) -> IntArray:
    last = states[-1]
    said = {
        "zero_shot": states[0].annotations.first, "llm": last.annotations.proba, "student": last.student,
        "final": last.posterior,
    }  # fmt: skip
    return argmax(said[who])


def _spread(values: Sequence[float]) -> dict[str, Any]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "sd": deviation, "values": list(values)}
