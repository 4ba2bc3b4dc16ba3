"""What a study came to, as values of study.json (docs/summary.md): its tables in the terminal, and its page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freeal.report import charts
from freeal.report.page import environment, uri
from freeal.report.summary import as_table

JSON, PAGE = "study.json", "study.html"

AT = " at "
"""Between the name of a method and its budget."""

COLUMNS = {
    "pool": "labels, pool", "pool_f1": "macro-F1, pool", "test": "labels, test", "test_f1": "macro-F1, test",
    "student_test": "student, test", "student_f1": "student, macro-F1, test",
    "calibration": "calibration error, pool", "calls": "calls", "tokens": "tokens", "dollars": "dollars",
    "seconds": "seconds",
}  # fmt: skip
"""Figures of a method, and what the table calls them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure that methods are compared by: what it is called, its macro-F1, and the differences that are about it."""

    title: str
    f1: str
    differences: str


MEASURED = {
    "pool": Measured("labels, pool", "pool_f1", "differences"),
    "test": Measured("labels, test", "test_f1", "differences_test"),
    "student_test": Measured("student, test", "student_f1", "differences_student"),
}


@dataclass(frozen=True, slots=True)
class Group:
    """Methods by name that may make as many calls as each other: `title` says how many."""

    title: str
    methods: Mapping[str, Mapping[str, Any]]


def write(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write study.json and study.html; gives the path of the page."""
    (folder / JSON).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    made = environment()
    made.filters |= {"figure": told, "plain": lambda value, name: told({"mean": value, "values": [value]}, name)}
    made.globals |= {
        "against": against, "otherwise": otherwise, "worth": worth, "sureness": sureness, "groups": groups,
        "warnings": warnings,
    }  # fmt: skip
    page = made.get_template("study.html.j2").render(
        found=found, drawings=_drawings(found), columns=shown(found), measured=MEASURED
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def table(found: Mapping[str, Any]) -> list[str]:
    """The study as Markdown: a table of methods, mean and, of several seeds, the standard deviation; one of parts."""
    columns, measures = shown(found), compared(found)
    head = ["method", *columns.values(), *(f"more than {found['reference']}, {each.title}" for each in measures)]
    rows = [
        [name, *(told(method[key], key) if key in method else "–" for key in columns),
         *(f"{against(found, name, each) or '–'} {otherwise(found, name)}".rstrip() for each in measures)]
        for group in groups(found, parts=False) for name, method in group.methods.items()
    ]  # fmt: skip
    parts = {name: method for group in groups(found, parts=True) for name, method in group.methods.items()}
    if not parts:
        return as_table(head, rows)
    head_of_parts = [
        "what a part is worth", *(each.title for each in measures), COLUMNS["calibration"], COLUMNS["calls"]
    ]  # fmt: skip
    worths = [
        [name, *(worth(found, name, each) or "–" for each in measures), sureness(found, name) or "–",
         told(method["calls"], "calls")]
        for name, method in parts.items()
    ]  # fmt: skip
    return [*as_table(head, rows), "", *as_table(head_of_parts, worths)]


def shown(found: Mapping[str, Any]) -> dict[str, str]:
    """The columns that have something in them; dollars, where anything costs any."""
    there = {key for method in found["methods"].values() for key in method if key in COLUMNS}
    if not any(method.get("dollars", {}).get("mean") for method in found["methods"].values()):
        there -= {"dollars"}
    return {key: title for key, title in COLUMNS.items() if key in there}


def compared(found: Mapping[str, Any]) -> list[Measured]:
    """The figures by which methods can be compared here."""
    return [each for each in MEASURED.values() if found[each.differences]]


def groups(found: Mapping[str, Any], parts: bool) -> list[Group]:
    """The methods by their budgets, those without one first: the parts of an ablation, or the others.

    A part is one only beside the whole.
    """
    whole = any(name == found["reference"] and not of["part"] for name, of in found["methods"].items())
    chosen = {name: of for name, of in found["methods"].items() if (of["part"] and whole) == parts}
    budgets = sorted({of["budget"] for of in chosen.values()}, key=lambda budget: budget or 0.0)
    return [
        Group(_allowed(those), those)
        for those in ({name: of for name, of in chosen.items() if of["budget"] == budget} for budget in budgets)
    ]


def _allowed(methods: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(methods.values()))
    if first["budget"] is None:
        return "as many calls as each makes"
    return f"at most {first['max_calls']:,} calls: {first['budget']:g} for a row of the pool"


def against(found: Mapping[str, Any], name: str, figure: Measured) -> str:
    """By how many points a method has more right than the reference at its budget; "" if that is not known."""
    apart = found[figure.differences].get(name)
    return "" if apart is None else points(apart, -1)


def otherwise(found: Mapping[str, Any], name: str) -> str:
    """What is to be said of a method that is compared with something else: the reference itself, at a budget."""
    method = found["methods"][name]
    return "against all its calls" if method["budget"] and name.partition(AT)[0] == found["reference"] else ""


def worth(found: Mapping[str, Any], name: str, figure: Measured) -> str:
    """By how many points the default has more right than without a part of it; "" if that is not known."""
    apart = found[figure.differences].get(name)
    return "" if apart is None else points(apart)


def sureness(found: Mapping[str, Any], name: str) -> str:
    """By how much more the labels' probabilities on the pool err without a part of the default; "" if not known.

    Seeds are paired: of several, the mean difference of their calibration errors, and its standard deviation.
    """
    whole = found["differences"].get(name, {}).get("reference", "")
    of, over = (_by_seed(found, each, "calibration") for each in (name, whole))
    more = [of[seed] - over[seed] for seed in of if seed in over]
    if not more:
        return ""
    spread = f" ± {np.std(more, ddof=1):.3f}" if len(more) > 1 else ""
    return f"{round(float(np.mean(more)), 3) + 0.0:+.3f}{spread}"  # no -0.000


def _by_seed(found: Mapping[str, Any], name: str, figure: str) -> dict[int, float]:
    """Seed -> a figure of that run of a method, where it has it."""
    runs = found["methods"].get(name, {"runs": []})["runs"]
    return {run["seed"]: run[figure] for run in runs if figure in run}


def points(apart: Mapping[str, Any], sign: int = 1) -> str:
    """A difference in points with its interval; the other way round with `sign` -1.

    Example:
        >>> points({"mean": 0.05, "low": 0.02, "high": 0.08}, -1)
        '-5.0 (-8.0 to -2.0)'
    """
    mean, low, high = (round(100 * sign * apart[name], 1) + 0.0 for name in ("mean", "low", "high"))  # no -0.0
    return f"{mean:+.1f} ({min(low, high):+.1f} to {max(low, high):+.1f})"


def told(figure: Mapping[str, Any], name: str) -> str:
    """A mean with its spread, as people read it."""
    if name in ("calls", "tokens", "seconds"):
        return f"{figure['mean']:,.0f}"
    if name == "dollars":
        return f"{figure['mean']:,.4f}"
    spread = f" ± {figure['sd']:.3f}" if len(figure["values"]) > 1 else ""
    return f"{figure['mean']:.3f}{spread}"


def warnings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(warning, of which runs) of all with which runs ended."""
    said: dict[str, list[str]] = {}
    for name, method in found["methods"].items():
        for run in method["runs"]:
            for warning in run["warnings"]:
                said.setdefault(warning, []).append(f"{name}, seed {run['seed']}")
    return [(warning, "; ".join(runs)) for warning, runs in said.items()]


def _drawings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, source of the image) of the figures against what they cost."""
    ceiling = next((of.get("student_test") for of in found["methods"].values() if "calls" not in of), None)
    drawings = []
    for figure, title in (("pool", "Labels on the pool"), ("student_test", "Student on the test")):
        for cost, axis in (("calls", "calls to the LLM"), ("dollars", "dollars")):
            curves = _curves(found, figure, cost)
            if any(x and not np.isnan(y) for each in curves.values() for x, y, _ in each):
                across = ceiling["mean"] if ceiling and figure == "student_test" else None
                drawings.append((title, uri(charts.against_cost(curves, axis, found["measure"], across))))
    return drawings


def _curves(found: Mapping[str, Any], figure: str, cost: str) -> dict[str, list[tuple[float, float, float]]]:
    """Name -> (cost, mean, standard deviation), a point a budget, of what costs something; NaN without the figure."""
    nothing = {"mean": float("nan"), "sd": None}
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for group in groups(found, parts=False):
        for name, method in group.methods.items():
            if cost in method:
                value = method.get(figure, nothing)
                point = (method[cost]["mean"], value["mean"], value["sd"] or 0.0)
                curves.setdefault(name.partition(AT)[0], []).append(point)
    return curves
