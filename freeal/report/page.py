"""report.html: everything there is to see of a run, in one file that needs nothing else, no network and no script."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freeal import __version__
from freeal.errors import RunError
from freeal.report import charts
from freeal.report.history import History, read
from freeal.report.summary import FACTS, NAMES, clock, has_gold, headline, rolled_back
from freeal.select.filters import mixture
from freeal.types import FloatArray, IntArray, argmax

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"
DISPUTED = 20
"""Rows of the list of those on which LLM and student differ most."""

SHOWN = 400
"""Characters of a text that are shown."""


def write(folder: Path) -> Path:
    """Make the page of the finished run in `folder`; gives its path.

    Raises:
        RunError: no run directory, or none that is finished.
    """
    path = folder / FILE
    path.write_text(html(read(folder), _summary(folder)), encoding="utf-8")
    return path


def html(run: History, found: Mapping[str, Any]) -> str:
    """The page of `run`, whose summary.json is `found`."""
    template = environment().get_template("page.html.j2")
    measured = has_gold(found["pool"]) or has_gold(found["test"])
    facts = {told: found["data"][key] for key, told in FACTS.items() if found["data"][key]}
    return template.render(
        found=found, headline=headline(found), figures=figures(run, found), names=NAMES, version=__version__,
        demonstrations=_demonstrations(run), disputed=disputed(run), environment=run.environment, gold=measured,
        facts=facts, notes=run.notes, rolled_back=rolled_back(found),
    )  # fmt: skip


def environment() -> Environment:
    """Templates of this folder: everything that is put into them is escaped, and nothing may be missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"percent": _percent, "number": _number, "count": "{:,}".format, "clock": clock}
    return made


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure of the page: its heading, what it shows, and the image as a data URI."""

    title: str
    caption: str
    image: str


def figures(run: History, found: Mapping[str, Any]) -> list[Drawing]:
    """All drawings, those left out for which the run has no values."""
    last, labels, gold = run.final, run.labels, found["confusion"] is not None
    learned = ~np.isnan(last.loss)
    llm, student, final = last.annotations.labels, argmax(last.student), argmax(last.posterior)
    taught = np.ptp(last.student) > 0  # without a student, every label is as probable as any other
    drawn = [_curve(found)]
    if gold:
        image = charts.matrix(np.array(found["confusion"]), labels, "gold", "final label")
        drawn.append(
            Drawing("Gold and final labels", "Rows of the pool; the darker, the larger the share of its row.", image)
        )
    if taught:
        image = charts.matrix(_counts(llm, student, len(labels)), labels, "LLM", "student")
        drawn.append(Drawing("LLM and student", "What each says of the same rows in the end.", image))
    image = charts.confidence(last.posterior.max(axis=1)[final >= 0], found["reliability"])
    caption = "How sure the final labels are" + (", and how many of the so sure are right." if gold else ".")
    drawn.append(Drawing("Confidence", caption, image))
    if taught and learned.any():
        heaps = mixture(last.loss[learned][None, :])
        caption = "How hard the student found the labels it learned in the last round: small losses are believed clean."
        drawn.append(Drawing("Losses", caption, charts.losses(last.loss[learned], last.clean[learned], heaps)))
    drawn.append(Drawing("Balance", "What share of the pool each label has.", charts.balance(_shares(run), labels)))
    return [Drawing(each.title, each.caption, uri(each.image)) for each in drawn]


def _curve(found: Mapping[str, Any]) -> Drawing:
    rounds = found["rounds"]
    calls = [int(n) for n in np.cumsum([each["usage"]["calls"] + each["usage"]["reused"] for each in rounds])]
    lines: dict[str, list[float | None]] = {}
    for place in ("pool", "test"):
        for name, told in NAMES.items():
            scores = [figures[place].get(name, {}).get("accuracy") for figures in rounds]
            if any(score is not None for score in scores):
                lines[f"{told.replace(', raw', '').replace(' labels', '')}, {place}"] = scores
    if lines:
        return Drawing("Rounds", "Accuracy after each round, against the replies by then, kept ones counted.",
                       charts.curve(lines, calls, "accuracy"))  # fmt: skip
    signs = {"LLM and student agree": "agreement", "believed clean": "clean", "labels changed": "changed"}
    lines = {told: [figures[key] for figures in rounds] for told, key in signs.items()}
    return Drawing("Rounds", "Signs of quality after each round; gold is not known.",
                   charts.curve(lines, calls, "share of the pool"))  # fmt: skip


def _counts(down: IntArray, across: IntArray, k: int) -> IntArray:
    counts = np.zeros((k, k), np.int64)
    both = (down >= 0) & (across >= 0)
    np.add.at(counts, (down[both], across[both]), 1)
    return counts


def _shares(run: History) -> dict[str, FloatArray]:
    """Share of each label (k,) at first, and after each round."""
    first = argmax(run.states[0].annotations.first)
    by_whom = {"LLM, first pass": first} if (first >= 0).any() else {}
    by_whom |= {f"final, round {number}": argmax(state.posterior) for number, state in enumerate(run.states)}
    k = len(run.labels)
    return {name: np.bincount(given[given >= 0], minlength=k) / max(1, len(given)) for name, given in by_whom.items()}


@dataclass(frozen=True, slots=True)
class Disputed:
    """A row of which LLM and student say different things, each being sure of it."""

    id: str
    text: str
    llm: str
    llm_sure: float
    student: str
    student_sure: float
    final: str


def disputed(run: History, most: int = DISPUTED) -> list[Disputed]:
    """The rows on which LLM and student differ, those first where the less sure of the two is surest."""
    said, student, final = run.final.annotations.proba, run.final.student, argmax(run.final.posterior)
    if not np.ptp(student) > 0:
        return []
    theirs, ours = argmax(said), argmax(student)
    sure = np.minimum(np.nan_to_num(said).max(axis=1), student.max(axis=1))
    rows = np.flatnonzero((theirs >= 0) & (theirs != ours))
    rows = rows[np.argsort(-sure[rows], kind="stable")][:most]
    label = run.labels
    return [
        Disputed(
            run.ids[row], _cut(run.text(row) or ""), label[theirs[row]], float(said[row].max()),
            label[ours[row]], float(student[row].max()), label[final[row]],
        )
        for row in map(int, rows)
    ]  # fmt: skip


def _demonstrations(run: History) -> list[tuple[int, Sequence[tuple[str, str]]]]:
    """(round they were shown from, (label, text) of each) of the demonstrations that each round chose."""
    return [
        (number, [(demo.label, _cut(demo.text)) for demo in state.demos])
        for number, state in enumerate(run.states) if state.demos
    ]  # fmt: skip


def _summary(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder}: not finished yet; go on with:  freeal run --resume {folder}") from None
    last: dict[str, Any] = {"round": len(found["rounds"]) - 1, "why": None, "signs": []}
    return {"estimated": None, "confusion": None, "reliability": None, "result": last, **found}


def uri(svg: str) -> str:
    """A drawing as the source of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + " …"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
