"""What a run came to, as values (docs/summary.md documents the keys), and the text of summary.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freeal.config import Config
from freeal.data import Corpus, DataReport
from freeal.ledger import Ledger
from freeal.metrics import Gold
from freeal.select import gates, noise
from freeal.store import sources
from freeal.types import LoopState

SCHEMA_VERSION = 1

ALL = 0.95
"""Share of rows with an answer from which on figures are taken for those of all."""

NAMES = {"zero_shot": "zero-shot, raw", "llm": "LLM", "student": "student", "final": "final labels"}


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
    labels: Sequence[str],
    result: Result,
    rounds: Sequence[Mapping[str, Any]],
    ledger: Ledger,
    reason: str,
    command: str,
    run: str,
) -> dict[str, Any]:
    """Everything there is to say of a run (of the name `run`), in plain values."""
    state = result.state
    origin = sources(state)
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
            "pool": Path(config.data.pool).name,
            "rows": len(corpus.pool),
            "labels": list(labels),
            **_data(corpus.report),
            "test": Path(config.data.test).name if config.data.test else None,
            "test_rows": len(corpus.test) if corpus.test else 0,
        },
        "stopped": reason,
        "warnings": gates.warnings(
            state.posterior, state.student, state.annotations, state.clean,
            config.stop.max_failed, config.stop.min_information,
        ),
        "rounds": [dict(figures) for figures in rounds],
        "result": {"round": result.round, "why": result.why, "signs": list(result.signs)},
        "pool": rounds[result.round]["pool"],
        "test": rounds[result.round]["test"],
        "estimated": asdict(noise.estimated_error(state.posterior, labels)),
        "confusion": gold.confusion(state.posterior),
        "reliability": gold.reliability(state.posterior),
        "sources": {name: origin.count(name) for name in sorted(set(origin))},
        "usage": asdict(ledger.usage()),
        "seconds": round(sum(float(figures["seconds"]) for figures in rounds), 1),
    }  # fmt: skip


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
        *[f"**Look at this before you use the labels: {warning}.**" for warning in found["warnings"]],
        "",
        "## Rounds",
        "",
        *rounds_table(found),
        "",
    ]
    for place, title in (("pool", "the pool (transductive)"), ("test", f"the test ({data['test_rows']:,} rows)")):
        if has_gold(found[place]):
            lines += [f"## Right on {title}", "", *scores_table(found[place]), ""]
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


def rolled_back(found: Mapping[str, Any]) -> list[str]:
    """A line that says which round is the result, if it is not the last one."""
    number, why = found["result"]["round"], found["result"]["why"]
    return [f"The result is round {number}, not the last one: {why}."] if why else []


def headline(found: Mapping[str, Any]) -> str:
    """The one line a run comes to."""
    parts = []
    for place in ("pool", "test"):
        figures = found[place]
        final, before = _accuracy(figures, "final"), _accuracy(figures, "zero_shot")
        if final is not None and before is not None:
            asked = figures["zero_shot"]["coverage"]
            part = f" (of the {asked:.0%} that were asked so)" if asked < ALL else ""
            gain = f"{100 * (final - before):+.1f} points"
            parts.append(f"{place}: zero-shot {before:.3f}{part} → final {final:.3f} ({gain})")
        elif final is not None:
            parts.append(f"{place}: final {final:.3f}")
    if parts:
        return "; ".join(parts)
    of = found["rounds"][found["result"]["round"]]
    agreement = "" if of["agreement"] is None else f"LLM and student agree on {of['agreement']:.1%} of the rows, "
    return f"{agreement}{of['clean']:.1%} are believed clean"


def rounds_table(found: Mapping[str, Any]) -> list[str]:
    """A row a round: what it cost and what came of it."""
    head = ["round", "asked", "calls", "tokens in", "agree", "clean", "changed"]
    gold = [p for p in ("pool", "test") if has_gold(found[p])]
    columns = [(p, name) for p in gold for name in NAMES if name in found["rounds"][0][p] and name != "zero_shot"]
    head += [f"{name.replace('final', 'final labels')}, {place}" for place, name in columns] + ["time"]
    rows = []
    for figures in found["rounds"]:
        cost = figures["usage"]
        row = [
            str(figures["round"]), f"{figures['asked']:,}", f"{cost['calls']:,}", f"{cost['tokens_in']:,}",
            _percent(figures["agreement"]), _percent(figures["clean"]), _percent(figures["changed"]),
        ]  # fmt: skip
        row += [_number(_accuracy(figures[place], name)) for place, name in columns] + [clock(figures["seconds"])]
        rows.append(row)
    return _table(head, rows)


def scores_table(figures: Mapping[str, Any]) -> list[str]:
    """Accuracy, macro-F1, calibration error and coverage of each set of labels."""
    rows = []
    for name, title in NAMES.items():
        if name in figures:
            score = figures[name]
            shown = [_number(score[key]) for key in ("accuracy", "macro_f1", "calibration_error")]
            rows.append([title, *shown, _percent(score["coverage"])])
    return _table(["labels", "accuracy", "macro-F1", "calibration error", "coverage"], rows)


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
    told = [f"{data[key]:,} {what}" for key, what in FACTS.items() if data[key]]
    return f" ({'; '.join(told)})." if told else "."


FACTS = {
    "empty": "empty ones skipped",
    "duplicates": "repeated texts, asked once",
    "leaked": "texts that are also in the test",
    "cut": "texts cut to data.max_words",
}


def _data(report: DataReport) -> dict[str, int]:
    return {
        "read": report.rows,
        "empty": len(report.empty),
        "duplicates": report.duplicates,
        "leaked": len(report.leaked),
        "cut": report.cut,
    }


def _reader(config: Config) -> str:
    return " + ".join(str(getattr(llm, "model", llm.kind)) for llm in (config.llm, *config.panel))


def has_gold(figures: Mapping[str, Any]) -> bool:
    """Whether any of these scores was measured against gold."""
    return any(score["accuracy"] is not None for score in figures.values())


def _accuracy(figures: Mapping[str, Any], name: str) -> float | None:
    found: float | None = figures.get(name, {}).get("accuracy")
    return found


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
