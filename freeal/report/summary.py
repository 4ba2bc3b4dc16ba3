"""What a run came to, as values (docs/summary.md documents the keys), and the text of summary.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freeal.config import Config
from freeal.data import Corpus, facts
from freeal.ledger import Ledger
from freeal.metrics import Gold
from freeal.select import calibration, gates, habits, noise, stopping
from freeal.select.reasons import sources
from freeal.tasks import Task
from freeal.types import FloatArray, Guidelines, LoopState, spoken, surest

SCHEMA_VERSION = 1

ALL = 0.95
"""Share of rows with an answer from which on figures are taken for those of all."""

FAR = 0.15
"""Share of the rows by which a label may be more or less frequent than the LLM first had it, without a word on it."""

NAMES = {"zero_shot": "zero-shot, raw", "llm": "LLM", "student": "student", "final": "final labels"}


def first_answers(reading: str | None, otherwise: str = "zero-shot") -> str:
    """What the first pass is called; judged candidates are calibrated in it, and corrected by names, as configured.

    Args:
        reading: as in the configuration; None in what an earlier freeal wrote.
        otherwise: its name where answers are written.
    """
    return otherwise if reading in (None, "written") else "first answers"


def titles(found: Mapping[str, Any], place: str) -> dict[str, str]:
    """Of each set of labels at `place`, "pool" or "test", what to call it."""
    taken_over = place == "pool" and any(figures.get("understudy") for figures in found["rounds"])
    first = first_answers(found["data"].get("reading"), NAMES["zero_shot"])
    return NAMES | ({"llm": "understudy"} if taken_over else {}) | {"zero_shot": first}


@dataclass(frozen=True, slots=True)
class Result:
    """The round that is the run's result, `why` if it is not the last, its state, and the signs of all rounds."""

    round: int
    why: str | None
    state: LoopState
    signs: Sequence[Mapping[str, float | None]]


def summary(
    config: Config,
    corpus: Corpus,
    task: Task,
    result: Result,
    rounds: Sequence[Mapping[str, Any]],
    ledger: Ledger,
    reason: str,
    command: str,
    run: str,
    meanings: Sequence[Guidelines | None] = (),
) -> dict[str, Any]:
    """Everything there is to say of a run (of the name `run`), in plain values.

    `meanings`: of each round what became of those of the labels before it.
    """
    state = result.state
    origin = sources(state, task.best)
    gold = Gold(corpus.gold)
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "command": command,
        "preset": config.preset,
        "seed": config.seed,
        "llm": _reader(config),
        "student": getattr(config.student, "model", config.student.kind),
        "data": {
            "name": config.name,
            "pool": Path(config.data.pool).name,
            "rows": len(corpus.pool),
            "task": task.kind,
            "reading": config.reading,
            "labels": list(task.labels),
            "read": corpus.report.rows,
            **corpus.report.counts(),
            "test": Path(config.data.test).name if config.data.test else None,
            "test_rows": len(corpus.test) if corpus.test else 0,
        },
        "stopped": reason,
        "warnings": [
            *gates.warnings(
                state.posterior, state.student, state.annotations, state.clean,
                config.stop.max_failed, stopping.least_information(config.stop, task),
                rounds[result.round].get("understudy"),
            ),
            *habits.standing([figures.get("alarms", ()) for figures in rounds], state.annotations.asked_in),
        ],
        "rounds": [dict(figures) for figures in rounds],
        "result": {"round": result.round, "why": result.why, "signs": list(result.signs)},
        "guidelines": [_anew(number, each) for number, each in enumerate(meanings) if each],
        "pool": rounds[result.round]["pool"],
        "test": rounds[result.round]["test"],
        "shares": _shares(task, state, _estimates_shares(config, task, state, rounds)),
        "estimated": asdict(noise.estimated_error(state.posterior, tuple(task.labels), task.best)),
        "entities": _entities(rounds[result.round]["pool"]["final"]),
        "confusion": gold.confusion(state.posterior),
        "reliability": gold.reliability(state.posterior),
        "sources": {name: origin.count(name) for name in sorted(set(origin))},
        "usage": asdict(ledger.usage()),
        "seconds": round(sum(float(figures["seconds"]) for figures in rounds), 1),
    }  # fmt: skip


def _entities(score: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a score tells of entities, in the form in which schema 1 had it at first; None where there are none."""
    if score.get("noise") is None:
        return None
    by_type = {name: {**each, "entities": each["in_gold"]} for name, each in score["by_label"].items()}
    return {"by_type": by_type, "noise": score["noise"]}


def markdown(found: Mapping[str, Any]) -> str:
    """summary.md: headline, the rounds as one table, results on pool and test, cost, how to reproduce."""
    data, usage = found["data"], found["usage"]
    hits = usage.get("tokens_cached")
    cached = "" if hits is None else f" ({hits / max(1, usage['tokens_in']):.0%} of them from the prefix cache)"
    lines = [
        f"# {found['run']}",
        "",
        headline(found),
        "",
        f"Pool `{data['pool']}`: {data['rows']:,} texts" + _also(data) + f" LLM `{found['llm']}`, "
        f"student `{found['student']}`, preset `{found['preset']}`, seed {found['seed']}.",
        f"Stopped: {found['stopped']}.",
        *rolled_back(found),
        *moved(found),
        *[f"**Look at this before you use the labels: {warning}.**" for warning in found["warnings"]],
        "",
        "## Rounds",
        "",
        *rounds_table(found),
        "",
        *left_out(found),
    ]
    if members := members_table(found):
        lines += ["## Members of the panel", "", *members, ""]
    for place, title in (("pool", "the pool (transductive)"), ("test", f"the test ({data['test_rows']:,} rows)")):
        if has_gold(found[place]):
            lines += [f"## Right on {title}", "", *scores_table(found, place), ""]
            lines += [line for table in (noise_table(found, place), labels_table(found, place)) if table
                      for line in (*table, "")]  # fmt: skip
    if told := meanings_table(found):
        lines += ["## What the labels mean", "", *told]
    lines += [
        "Gold labels were read for these figures alone; nothing was selected by them."
        if has_gold(found["pool"]) or has_gold(found["test"])
        else "No gold labels were given: agreement and the share believed clean are the only signs of quality here.",
        "",
        "## Cost",
        "",
        f"{usage['calls']:,} calls ({usage['reused']:,} more replies reused), {usage['tokens_in']:,} tokens "
        f"in{cached}, {usage['tokens_out']:,} out, {clock(usage['seconds'])} of the LLM, "
        f"{clock(found['seconds'])} in all" + (f", {usage['cost']:.4f} dollars." if usage["cost"] else "."),
        "",
        "## Reproduce",
        "",
        f"    {found['command']}",
        "",
    ]
    return "\n".join(lines)


def left_out(found: Mapping[str, Any]) -> list[str]:
    """What the LLM named that is no entity of its text, by cause, round by round; nothing where nothing was."""
    dropped = [(figures["round"], figures.get("dropped")) for figures in found["rounds"]]
    told = []
    for number, causes in dropped:
        if causes:
            counts = ", ".join(f"{count:,} × {cause}" for cause, count in causes.items())
            told.append(f"Round {number}, left out of what the LLM named: {counts}.")
    return [*told, ""] if told else []


def _anew(number: int, each: Guidelines) -> dict[str, Any]:
    return {
        "round": number, "kept": each.kept, "rows": each.rows,
        "agreed_before": each.agreed_before, "agreed": each.agreed, "notes": list(each.notes),
        "labels": {label: {"before": old, "proposed": each.proposed[label]} for label, old in each.before.items()},
    }  # fmt: skip


def meanings_table(found: Mapping[str, Any]) -> list[str]:
    """What the labels meant before a round and what the LLM made of it, a row for each that it changed."""
    lines = []
    for each in found.get("guidelines", ()):
        lines += [f"Before round {each['round']}:", "", *(f"- {_cell(note)}" for note in each["notes"]), ""]
        rows = [
            [_cell(label), _cell(said["before"]), _cell(said["proposed"])]
            for label, said in each["labels"].items() if said["before"] != said["proposed"]
        ]  # fmt: skip
        if rows:
            lines += [*as_table(["label", "before", "kept" if each["kept"] else "proposed, not kept"], rows), ""]
    return lines


def _cell(text: str) -> str:
    """As plain text on one line, also where it is in a Markdown table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def rolled_back(found: Mapping[str, Any]) -> list[str]:
    """A line that says which round is the result, if it is not the last one."""
    number, why = found["result"]["round"], found["result"]["why"]
    return [f"The result is round {number}, not the last one: {why}."] if why else []


def shares(task: Task, proba: FloatArray) -> FloatArray:
    """(g,) share of the rows spoken of that have each of the task's groups."""
    there: FloatArray = task.there(task.best(proba[spoken(proba)])).sum(axis=0) / max(1, spoken(proba).sum())
    return there


def _estimates_shares(config: Config, task: Task, state: LoopState, rounds: Sequence[Mapping[str, Any]]) -> bool:
    """Whether final labels follow estimated shares: of an LLM that gives mere words, all as sure, nothing is estimated.

    Nor from too few answers, nor where an understudy has taken over.
    """
    if config.calibration.kind != "estimated" or task.kind != "classification":
        return False
    first = state.annotations.first[spoken(state.annotations.first)]
    taken_over = any(figures.get("understudy") for figures in rounds)
    enough = len(first) >= calibration.FEWEST * first.shape[-1]
    return enough and not taken_over and len(set(surest(first).tolist())) > 1


def _shares(task: Task, state: LoopState, estimated: bool) -> dict[str, Any]:
    said = {"first": state.annotations.first, "final": state.posterior}
    told = {name: shares(task, proba).round(4) if spoken(proba).any() else None for name, proba in said.items()}
    by_label = {
        label: {name: None if found is None else float(found[place]) for name, found in told.items()}
        for place, label in enumerate(task.groups)
    }
    return {"estimated": estimated, "by_label": by_label}


def moved(found: Mapping[str, Any]) -> list[str]:
    """A line on the label whose estimated share is farthest from what the LLM first gave it, if that is far.

    Which of the two is right only who knows the data can tell: estimates are poor where a label is rare.
    """
    told = found.get("shares")
    if not told or not told["estimated"]:  # an earlier freeal kept none
        return []
    apart = {
        label: (each["first"], each["final"])
        for label, each in told["by_label"].items() if None not in each.values()
    }  # fmt: skip
    label = max(apart, key=lambda name: abs(apart[name][1] - apart[name][0]), default=None)
    if label is None or abs(apart[label][1] - apart[label][0]) < FAR:
        return []
    first, final = apart[label]
    return [
        f"Shares of the labels are an estimate: the LLM first gave {label!r} to {first:.0%} of the rows it "
        f"answered, the final labels have it in {final:.0%}. If you know how frequent the labels are, say so "
        "(calibration.kind: prior, calibration.prior)."
    ]


def headline(found: Mapping[str, Any]) -> str:
    """The one line a run comes to."""
    parts, first = [], first_answers(found["data"].get("reading"))
    for place in ("pool", "test"):
        figures = found[place]
        final, before = worth(figures.get("final")), worth(figures.get("zero_shot"))
        unit = " F1" if "final" in figures and figures["final"].get("micro_f1") is not None else ""
        if final is not None and before is not None:
            part = _part(found) if place == "pool" else ""
            gain = f"{100 * (final - before):+.1f} points"
            parts.append(f"{place}: {first}{unit} {before:.3f}{part} → final{unit} {final:.3f} ({gain})")
        elif final is not None:
            parts.append(f"{place}: final{unit} {final:.3f}")
    if parts:
        return "; ".join(parts)
    of = found["rounds"][found["result"]["round"]]
    agreement = "" if of["agreement"] is None else f"LLM and student agree on {of['agreement']:.1%} of the rows, "
    return f"{agreement}{of['clean']:.1%} are believed clean"


def _part(found: Mapping[str, Any]) -> str:
    """Which rows of the pool the zero-shot score is of, if not of all with an answer."""
    first, rows = found["rounds"][0], found["data"]["rows"]
    if (of := first.get("zero_shot_of", first["asked"]) / rows) < ALL:
        return f" (of the {of:.0%} that were asked so)"
    if (answered := found["pool"]["zero_shot"]["coverage"]) < ALL:
        return f" ({1 - answered:.0%} have no answer, and count as wrong where gold is known)"
    return ""


def rounds_table(found: Mapping[str, Any]) -> list[str]:
    """A row a round: what it cost and what came of it."""
    head = ["round", "asked", "calls", "tokens in", "agree", "clean", "changed"]
    gold = [p for p in ("pool", "test") if has_gold(found[p])]
    measured = {(p, name) for figures in found["rounds"] for p in gold for name in figures[p]}
    columns = [(p, name) for p in gold for name in NAMES if (p, name) in measured and name != "zero_shot"]
    head += [f"{name.replace('final', 'final labels')}, {place}" for place, name in columns] + ["time"]
    rows = []
    for figures in found["rounds"]:
        cost = figures["usage"]
        row = [
            str(figures["round"]), f"{figures['asked']:,}", f"{cost['calls']:,}", f"{cost['tokens_in']:,}",
            as_percent(figures["agreement"]), as_percent(figures["clean"]), as_percent(figures["changed"]),
        ]  # fmt: skip
        row += [as_number(worth(figures[place].get(name))) for place, name in columns] + [clock(figures["seconds"])]
        rows.append(row)
    return as_table(head, rows)


def members_table(found: Mapping[str, Any]) -> list[str]:
    """A row for each member of a panel in each round: its weight, and how right it was; nothing of a single LLM."""
    rows = [(figures["round"], each) for figures in found["rounds"] for each in figures.get("members", ())]
    measured = any(each["accuracy"] is not None for _, each in rows)
    cells = [
        [str(number), each["name"], as_number(each["weight"]), as_percent(each["answered"])]
        + ([as_number(each["accuracy"])] if measured else [])
        for number, each in rows
    ]
    return as_table(["round", "member", "weight", "answered", *(["right"] if measured else [])], cells) if rows else []


def scores_table(found: Mapping[str, Any], place: str) -> list[str]:
    """The figures at `place`, "pool" or "test", of each set of labels: those that were measured."""
    figures = found[place]
    columns = score_columns(figures)
    rows = [
        [title, *(as_number(figures[name][key]) for key in columns), as_percent(figures[name]["coverage"])]
        for name, title in titles(found, place).items() if name in figures
    ]  # fmt: skip
    return as_table(["labels", *columns.values(), "coverage"], rows)


def score_columns(figures: Mapping[str, Any]) -> dict[str, str]:
    """Key -> heading of the scores to show: those of one label a text, or of any number of them."""
    several = any(score.get("micro_f1") is not None for score in figures.values())
    if several:
        return {"micro_f1": "F1", "precision": "precision", "recall": "recall", "macro_f1": "macro-F1",
                "accuracy": "rows right throughout", "calibration_error": "calibration error"}  # fmt: skip
    return {"accuracy": "accuracy", "macro_f1": "macro-F1", "calibration_error": "calibration error"}


def labels_table(found: Mapping[str, Any], place: str) -> list[str]:
    """A row for each label or type of entity, of the last set of labels at `place`; nothing of one label a text."""
    if not (scores := by_label(found, place)):
        return []
    title, score = list(scores.items())[-1]
    rows = [
        [_cell(name), *(as_number(each[key]) for key in ("precision", "recall", "f1")), f"{each['in_gold']:,}"]
        for name, each in score["by_label"].items()
    ]
    return as_table([title, "precision", "recall", "F1", "in gold"], rows)


def noise_table(found: Mapping[str, Any], place: str) -> list[str]:
    """What is wrong with the entities of each set of labels, from the first answers to the final ones."""
    told = {title: counts for title, score in by_label(found, place).items() if (counts := noise_counts(score))}
    rows = [[title, *(f"{count:,}" for count in counts.values())] for title, counts in told.items()]
    return as_table(["entities", *next(iter(told.values()))], rows) if told else []


def by_label(found: Mapping[str, Any], place: str) -> dict[str, Mapping[str, Any]]:
    """What each set of labels at `place` is called -> its score, of those that have one for each label or type."""
    figures = found[place]
    return {
        title: figures[name] for name, title in titles(found, place).items() if figures.get(name, {}).get("by_label")
    }


def noise_counts(score: Mapping[str, Any]) -> dict[str, int]:
    """Entities by what is wrong with them, and those of gold that were looked for; nothing of labels of whole texts."""
    if not score.get("noise"):
        return {}
    counts = {kind.replace("_", " "): count for kind, count in score["noise"].items()}
    return {**counts, "in gold": sum(each["in_gold"] for each in score["by_label"].values())}


def worth(score: Mapping[str, Any] | None) -> float | None:
    """The figure by which labels are judged: accuracy, or, of several labels a text, their micro-averaged F1."""
    if score is None:
        return None
    found: float | None = score.get("accuracy") if score.get("micro_f1") is None else score["micro_f1"]
    return found


def measure(score: Mapping[str, Any]) -> str:
    """What `worth` of this score is called."""
    return "accuracy" if score.get("micro_f1") is None else "F1"


def clock(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> clock(4.2), clock(95), clock(3720)
        ('4 s', '1 min 35 s', '1 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _also(data: Mapping[str, Any]) -> str:
    told = facts(data)
    return f" ({'; '.join(told)})." if told else "."


def _reader(config: Config) -> str:
    return " + ".join(str(getattr(llm, "model", llm.kind)) for llm in (config.llm, *config.panel))


def has_gold(figures: Mapping[str, Any]) -> bool:
    """Whether any of these scores was measured against gold."""
    return any(score["accuracy"] is not None for score in figures.values())


def as_number(value: float | None) -> str:
    """With three decimals; None as a dash."""
    return "–" if value is None else f"{value:.3f}"


def as_percent(value: float | None) -> str:
    """A share of one as a percentage; None as a dash."""
    return "–" if value is None else f"{value:.1%}"


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
