"""report.html: everything there is to see of a run, in one file that needs nothing else, no network and no script."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freeal import __version__, metrics
from freeal.config import BeliefConfig, FilterConfig
from freeal.data import facts
from freeal.errors import RunError
from freeal.ledger import FILE as LEDGER
from freeal.ledger import Ledger
from freeal.report import charts
from freeal.report.history import History, read
from freeal.report.summary import (
    as_number,
    as_percent,
    by_label,
    clock,
    has_gold,
    headline,
    measure,
    moved,
    noise_counts,
    rolled_back,
    score_columns,
    shares,
    titles,
    worth,
)
from freeal.scorekeeper import all_works_of
from freeal.select.filters import Boundary, boundary_gmm, boundary_quantile
from freeal.store import SUMMARY, is_finished, read_json
from freeal.types import FloatArray, alike, argmax, spoken, surest

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
    return template.render(
        found=found, headline=headline(found), figures=figures(run, found), titles=titles, version=__version__,
        demonstrations=_demonstrations(run), disputed=disputed(run), environment=run.environment, gold=measured,
        facts=facts(found["data"]), notes=run.notes, rolled_back=rolled_back(found), moved=moved(found),
        score_columns=score_columns, by_label=by_label, noise_counts=noise_counts,
        speaker=run.speaker, failures=failures(run),
    )  # fmt: skip


def environment() -> Environment:
    """Templates of this folder: everything that is put into them is escaped, and nothing may be missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"percent": as_percent, "number": as_number, "count": "{:,}".format, "clock": clock}
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
    learned, single = ~np.isnan(last.loss), last.posterior.ndim == 2
    llm, student = last.annotations.labels, argmax(last.student)
    taught = np.ptp(last.student) > 0  # without a student, every label is as probable as any other
    drawn = [_curve(found)] if len(found["rounds"]) > 1 else []
    if gold:
        image = charts.matrix(np.array(found["confusion"]), labels, "gold", "final label")
        drawn.append(
            Drawing("Gold and final labels", "Rows of the pool; the darker, the larger the share of its row.", image)
        )
    if taught and single:
        image = charts.matrix(np.array(metrics.confusion(student, llm, len(labels))), labels, run.speaker, "student")
        drawn.append(
            Drawing(
                f"{run.speaker.replace('understudy', 'Understudy')} and student",
                "What each says of the same rows in the end.",
                image,
            )
        )
    image = charts.confidence(surest(last.posterior)[spoken(last.posterior)], found["reliability"])
    caption = "How sure the final labels are" if single else "How sure the least sure decision of each row is"
    caption += ", and how many of the so sure are right." if gold else "."
    drawn.append(Drawing("Confidence", caption, image))
    if taught and learned.any():
        drawn.append(_losses(run))
    told = "What share of the rows that have an answer each label has."
    drawn.append(Drawing("Balance", told, charts.balance(_shares(run), run.task.groups)))
    return [Drawing(each.title, each.caption, uri(each.image)) for each in drawn]


def _curve(found: Mapping[str, Any]) -> Drawing:
    rounds = found["rounds"]
    calls = [int(n) for n in np.cumsum([each["usage"]["calls"] + each["usage"]["reused"] for each in rounds])]
    lines: dict[str, list[float | None]] = {}
    for place in ("pool", "test"):
        for name, told in titles(found, place).items():
            scores = [worth(figures[place].get(name)) for figures in rounds]
            if any(score is not None for score in scores):
                lines[f"{told.replace(', raw', '').replace(' labels', '')}, {place}"] = scores
    if lines:
        called = "F1" if any(measure(score) == "F1" for score in _all_scores(rounds)) else "accuracy"
        caption = f"{called[0].upper()}{called[1:]} after each round, against the replies by then, kept ones counted."
        return Drawing("Rounds", caption, charts.curve(lines, calls, called))
    signs = {"LLM and student agree": "agreement", "believed clean": "clean", "labels changed": "changed"}
    lines = {told: [figures[key] for figures in rounds] for told, key in signs.items()}
    return Drawing("Rounds", "Signs of quality after each round; gold is not known.",
                   charts.curve(lines, calls, "share of the pool"))  # fmt: skip


def _losses(run: History) -> Drawing:
    """What the student's losses were, and what filter and belief made of them."""
    last, belief = run.final, BeliefConfig(**run.settings.get("belief", {}))
    settings = FilterConfig(**run.settings.get("filter", {}))
    loss = last.loss[~np.isnan(last.loss)].astype(np.float64)
    apart = run.task.kind == "multilabel"  # each label has losses of its own, of which the mean is kept
    filtered = None if apart else _boundary(loss, settings)
    if settings.kind == "none":
        caption = "Nothing is filtered by them."
    elif filtered is None:
        caption = "Each label is filtered by its own losses; drawn is the mean of a row's."
    else:
        caption = f"The filter passes those up to the dotted line ({filtered.rule})."
    caption = f"How hard the student found the labels it learned in the round of the result. {caption}"
    caption += f" Believed are {_believed(settings, belief, run.speaker)}."
    return Drawing("Losses", caption, charts.losses(loss, last.clean[~np.isnan(last.loss)], filtered))


def _boundary(loss: FloatArray, settings: FilterConfig) -> Boundary | None:
    match settings.kind:
        case "gmm":
            return boundary_gmm(loss[None, :], settings.threshold)
        case "quantile":
            return boundary_quantile(loss[None, :], settings.share)
        case "none":
            return None


def _believed(settings: FilterConfig, belief: BeliefConfig, speaker: str) -> str:
    both = f"student and {speaker} agree"
    if belief.kind == "confident":
        return f"those of which the student is surest, {belief.share:.0%} of each label's on which {both}"
    return f"those {'' if settings.kind == 'none' else 'passed '}on which {both}"


def _all_scores(rounds: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    scores = [score for figures in rounds for place in ("pool", "test") for score in figures[place].values()]
    return [{"micro_f1": None, **score} for score in scores]  # an earlier freeal kept no micro_f1


def _shares(run: History) -> dict[str, FloatArray]:
    """Share of the rows spoken of that have each label, or none, (g,) at first, and after each round."""
    first = run.states[0].annotations.first
    by_whom = {"LLM, first pass": first} if spoken(first).any() else {}
    by_whom |= {f"final, round {number}": state.posterior for number, state in enumerate(run.states)}
    return {name: shares(run.task, proba) for name, proba in by_whom.items()}


@dataclass(frozen=True, slots=True)
class Failures:
    """Of a round how many rows it asked about got no label, by reason, and what the requests went through.

    `retries`: attempts that followed a failed one; None where the run directory holds no ledger. `wait`: mean seconds
    of a reply; None where none was paid for.
    """

    asked: int
    by_reason: Mapping[str, int]
    retries: int | None
    wait: float | None


def failures(run: History) -> list[Failures]:
    """What went wrong in each round."""
    retries: list[int | None] = [None] * len(run.states)
    if (run.folder / LEDGER).is_file():
        with Ledger(run.folder / LEDGER, read_only=True) as ledger:
            retries = [ledger.retries(all_works_of(number)) for number in range(len(run.states))]
    found = []
    for number, (state, figures, again) in enumerate(zip(run.states, run.figures, retries, strict=True)):
        asked = state.annotations.asked_in == number
        reasons = Counter(problem.partition(":")[0] for problem in state.annotations.problems[asked] if problem)
        calls = figures["usage"]["calls"]
        wait = figures["usage"]["seconds"] / calls if calls else None
        found.append(Failures(int(asked.sum()), dict(reasons.most_common()), again, wait))
    return found


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
    task, said, student, posterior = run.task, run.final.annotations.proba, run.final.student, run.final.posterior
    if not np.ptp(student) > 0:
        return []
    theirs, ours, final = (task.best(proba) for proba in (said, student, posterior))
    their_sure, our_sure = surest(said, theirs), surest(student, ours)
    both = np.minimum(np.nan_to_num(their_sure), our_sure)
    apart = ~alike(theirs, ours)
    rows = np.flatnonzero(spoken(said) & apart)
    rows = rows[np.argsort(-both[rows], kind="stable")][:most]
    texts = [run.text(int(row)) or "" for row in rows]
    return [
        Disputed(
            run.ids[int(row)], _cut(text), task.write(text, theirs[row]), float(their_sure[row]),
            task.write(text, ours[row]), float(our_sure[row]), task.write(text, final[row]),
        )
        for row, text in zip(rows, texts, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoPool:
    """The demonstrations that a round chose, (label, text) of each.

    `shown`: how many of them any question of the next round had; None where an earlier freeal did not keep that.
    """

    round: int
    demos: Sequence[tuple[str, str]]
    shown: int | None


def _demonstrations(run: History) -> list[DemoPool]:
    return [
        DemoPool(number, [(demo.label, _cut(demo.text)) for demo in state.demos], None if shown is None else len(shown))
        for number, (state, shown) in enumerate(zip(run.states, [*run.shown[1:], {}], strict=True)) if state.demos
    ]  # fmt: skip


def _summary(folder: Path) -> dict[str, Any]:
    if not is_finished(folder):
        raise RunError(f"{folder}: not finished yet; go on with:  freeal run --resume {folder}")
    found: dict[str, Any] = read_json(folder / SUMMARY)
    if (entities := found.get("entities")) and "noise" not in found["pool"]["final"]:  # an earlier freeal had no more
        by_type = {name: {**each, "in_gold": each["entities"]} for name, each in entities["by_type"].items()}
        found["pool"]["final"] |= {"by_label": by_type, "noise": entities["noise"]}
    last: dict[str, Any] = {"round": len(found["rounds"]) - 1, "why": None, "signs": []}
    return {
        "estimated": None,
        "confusion": None,
        "reliability": None,
        "guidelines": [],
        "result": last,
        **found,
    }


def uri(svg: str) -> str:
    """A drawing as the source of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + " …"
