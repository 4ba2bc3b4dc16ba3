"""What a run directory tells of a run, round by round; nothing else is read: the directory may have been moved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeal import prompts, rows
from freeal.config import BeliefConfig, FilterConfig, FusionConfig
from freeal.errors import RunError, did_you_mean
from freeal.prompts import Prompt
from freeal.select.reasons import Decision, believed_by, decided_by
from freeal.store import ENVIRONMENT, EVENTS, LABELS, RunStore, kept_settings, read_json, read_table
from freeal.tasks import Task
from freeal.types import FloatArray, LoopState

COMPARED = 20_000
"""Ids that an unknown one is compared with, to say which was meant."""


@dataclass(frozen=True)
class History:
    """A run as its directory has it.

    `states` and `figures` have an entry a whole round, `result` is the place of the one whose labels are the run's;
    `texts` are in the order of `ids`, None before the run wrote its labels; `notes` are what the user was told:
    (where, message). `settings`: the configuration as it was, every default written out. `shown`: of each round the
    rows of the pool that its questions were shown as demonstrations, with their labels; None where it was not kept.
    """

    folder: Path
    prompt: Prompt
    ids: Sequence[str]
    texts: Sequence[str] | None
    states: Sequence[LoopState]
    figures: Sequence[Mapping[str, Any]]
    notes: Sequence[tuple[str, str]]
    environment: Mapping[str, Any]
    result: int
    settings: Mapping[str, Any]
    shown: Sequence[Mapping[int, str] | None]

    @property
    def task(self) -> Task:
        return self.prompt.task

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.task.labels)

    @property
    def final(self) -> LoopState:
        """The state whose labels are the run's."""
        return self.states[self.result]

    @property
    def speaker(self) -> str:
        """Whose words the annotations are, see `speaker`."""
        return speaker(self.figures)

    @property
    def decision(self) -> Decision:
        """How the run decided."""
        return decision(
            FilterConfig(**self.settings.get("filter", {})),
            BeliefConfig(**self.settings.get("belief", {})),
            FusionConfig(**self.settings.get("fusion", {})),
        )

    def text(self, row: int) -> str | None:
        """The text of a row of the pool, if it is kept."""
        return None if self.texts is None else self.texts[row]

    def on_test(self) -> tuple[list[str], dict[str, FloatArray]]:
        """Ids of the test's rows, and who said what of them in the round that is the result, (t, k) each."""
        store = RunStore(self.folder, self.task, self.ids)
        return store.on_test(store.result())

    def row_of(self, uid: str) -> int:
        """Place in the pool of the example with this id.

        Raises:
            RunError: there is none; the id most like it is named.
        """
        ids = list(self.ids)
        if uid not in ids and uid[:1] == "'" and uid[1:] in ids:  # as a spreadsheet has it
            uid = uid[1:]
        try:
            return ids.index(uid)
        except ValueError:
            like = did_you_mean(uid, self.ids[:COMPARED]) or f"; the first is {self.ids[0]!r}"
            raise RunError(f"{self.folder}: no row {uid!r} among the {len(self.ids):,} of its pool{like}") from None


def speaker(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Whose words the annotations of a run with these figures are: the LLM's, or its understudy's."""
    return "understudy" if any(figures.get("understudy") for figures in rounds) else "LLM"


def decision(filter_: FilterConfig, belief: BeliefConfig, fusion: FusionConfig) -> Decision:
    """How a run with these settings decides."""
    return Decision(
        believed_by(filter_.kind, belief.kind),
        decided_by(fusion.kind, fusion.llm, fusion.student),
        fusion.verify,
    )


def read(folder: Path) -> History:
    """The run in `folder`.

    Raises:
        RunError: no run directory, no whole round in it, or files that cannot be read.
        ConfigError: its config.yaml cannot be read.
    """
    settings = kept_settings(folder)
    prompt = prompts.load(folder / "prompt.md")
    ids = list(rows.read(folder)["pool"])
    store = RunStore(folder, prompt.task, ids)
    done = store.finished()
    if not done:
        raise RunError(f"{folder}: no round is whole yet; go on with:  freeal run --resume {folder}")
    texts = read_table(folder / LABELS)["text"] if (folder / LABELS).is_file() else None
    return History(
        folder, prompt, ids, texts, [store.load(each) for each in done], [store.report(each) for each in done],
        _notes(folder), read_json(folder / ENVIRONMENT),
        done.index(store.result()), settings,
        [store.shown(each) for each in done],
    )  # fmt: skip


def _notes(folder: Path) -> list[tuple[str, str]]:
    """What the user was told, each thing once; a line that a crash cut short is passed over."""
    if not (folder / EVENTS).is_file():
        return []
    found: dict[tuple[str, str], None] = {}
    with (folder / EVENTS).open(encoding="utf-8") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("event") == "Note":
                found[str(event["where"]), str(event["message"])] = None
    return list(found)
