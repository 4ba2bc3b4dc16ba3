"""What a run came to: summary.json for machines; summary.md and report.html for people."""

from __future__ import annotations

import json
from typing import Any

from freeal.config import Config
from freeal.data import Corpus
from freeal.ledger import Ledger
from freeal.report.summary import clock, headline, markdown, rounds_table, scores_table, summary
from freeal.store import RunStore

JSON, MARKDOWN = "summary.json", "summary.md"

__all__ = ["clock", "headline", "markdown", "rounds_table", "scores_table", "summary", "write"]


def write(config: Config, corpus: Corpus, store: RunStore, ledger: Ledger, reason: str, command: str) -> dict[str, Any]:
    """Write labels and both summaries into the run directory; gives the content of summary.json."""
    done = store.finished()
    state = store.load(done[-1])
    store.write_labels(corpus.pool, state)
    figures = [store.report(folder) for folder in done]
    found = summary(config, corpus, store.labels, state, figures, ledger, reason, command, store.folder.name)
    (store.folder / JSON).write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (store.folder / MARKDOWN).write_text(markdown(found), encoding="utf-8")
    return found
