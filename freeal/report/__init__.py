"""What a run came to: summary.json for machines; summary.md and report.html for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from freeal.config import Config
from freeal.data import Corpus
from freeal.ledger import Ledger
from freeal.report.history import decision, speaker
from freeal.report.summary import (
    Result,
    clock,
    first_answers,
    headline,
    markdown,
    measure,
    moved,
    rolled_back,
    rounds_table,
    scores_table,
    summary,
    worth,
)
from freeal.select import rounds
from freeal.store import SUMMARY, TOLD, RunStore, write_whole

__all__ = ["clock", "first_answers", "headline", "markdown", "measure", "moved", "rolled_back", "rounds_table",
           "scores_table", "summary", "worth", "write"]  # fmt: skip


def write(config: Config, corpus: Corpus, store: RunStore, ledger: Ledger, reason: str, command: str) -> dict[str, Any]:
    """Choose the round that is the result, and write its labels and both summaries; gives what summary.json holds."""
    done = store.finished()
    states = [store.load(folder) for folder in done]
    figures = [store.report(folder) for folder in done]
    signs = [rounds.signs(state, each.get("upheld")) for state, each in zip(states, figures, strict=True)]
    chosen, why = rounds.best_round(signs) if config.stop.rollback else (len(done) - 1, None)
    store.choose(chosen, why)
    how = decision(config.filter, config.belief, config.fusion)
    store.write_labels(corpus.pool, states[chosen], speaker(figures), how)
    result = Result(chosen, why, states[chosen], [asdict(each) for each in signs])
    assert store.task is not None
    meanings = [state.guidelines for state in states]
    found = summary(config, corpus, store.task, result, figures, ledger, reason, command, store.folder.name, meanings)
    write_whole(store.folder / TOLD, markdown(found))
    write_whole(store.folder / SUMMARY, json.dumps(found, indent=2, ensure_ascii=False) + "\n")  # it is finished now
    return found
