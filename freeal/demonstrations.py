"""Demonstrations put to use: written by the LLM at the start, chosen from the pool later, shown with each question."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from freeal.config import ColdStartConfig, DemosConfig
from freeal.events import Emit, Note
from freeal.llm import Message, Reply, Request
from freeal.select import demos as choose
from freeal.select.suspects import suspects
from freeal.tasks import Task
from freeal.types import BoolArray, Demonstration, FloatArray, IntArray, LoopState, Pool, StudentView, portion, surest

if TYPE_CHECKING:
    from freeal.student.embedders import Embedder

WORK = "cold start"
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+")
_REFUSAL = re.compile(
    r"^(?:(?:i['’]m|i am) )?sorry,? (?:but )?(?:i|as)\b|^(?:i['’]m|i am) (?:unable|not able) to\b"
    r"|^i can(?:no|['’])t (?:assist|help|write|provide|create|generate|fulfil)\b",
    re.IGNORECASE,
)


@dataclass
class Demonstrations:
    """The demonstrations of a run, as `config` wants them.

    `task` has the labels with what they mean; `ask` puts requests to the LLM, for demonstrations it writes itself.
    `embedder` makes who turns texts into unit vectors, for retrieval of the nearest; it is called only then, and the
    pool is encoded once. Where the student's vectors are wanted instead, they come with the state.
    """

    config: DemosConfig
    cold_start: ColdStartConfig
    task: Task
    ask: Callable[[Sequence[Request]], Sequence[Reply]]
    embedder: Callable[[], Embedder]
    seed: int
    emit: Emit
    _pool_vectors: FloatArray | None = field(default=None, repr=False)

    @property
    def labels(self) -> list[str]:
        return list(self.task.groups)

    def begin(self, pool: Pool) -> Sequence[Demonstration]:
        """None, or labelled texts that the LLM writes from label names and a few pool texts (FreeAL, sec. 3.1)."""
        if self.cold_start.kind == "none":
            return ()
        asked = requests_for_texts(self.task, pool, self.cold_start, self.seed)
        replies = self.ask([request for request, _ in asked])
        seen = {text.strip().casefold() for text in pool.texts}
        demos = []
        for (_, group), reply in zip(asked, replies, strict=True):
            text, label = self.task.composed(cleaned(reply.text or ""), group) or ("", "")
            new = text and text.casefold() not in seen and not _REFUSAL.search(text)
            if new and len(text.split()) <= self.config.max_words:
                seen.add(text.casefold())
                demos.append(Demonstration(text, label, group=self.labels.index(group)))
        self.emit(Note(f"the LLM wrote {len(demos)} usable demonstrations of {len(asked)} asked for", WORK))
        return demos

    def retrieve(self, pool: Pool, rows: IntArray, state: LoopState) -> Sequence[Sequence[Demonstration]]:
        """What to show with each of `rows`: one set for all or for its cluster, or the nearest; never its own text."""
        demos = state.demos
        if not demos:
            return [()] * len(rows)
        classes = np.array([self.labels.index(demo.label) if demo.group is None else demo.group for demo in demos])
        k, shots = len(self.labels), self.config.shots
        if self.config.retrieve == "shared":
            # every label is shown, also where there are more than shots: the set is read once
            return _without_own_text(
                pool, rows, demos, [choose.shared(classes, max(shots, k), k)], np.zeros(len(pool), int)
            )
        taken = [demo.row for demo in demos if demo.row is not None]
        from_pool = len(taken) == len(demos)
        # the student has not read what the LLM wrote itself
        vectors = state.vectors if state.vectors is not None and from_pool else self._vectors(pool)
        theirs = vectors[taken] if from_pool else self.embedder().encode([demo.text for demo in demos])
        if self.config.retrieve == "clusters":
            of_row, centres = choose.clusters(vectors, self.config.sets, self.seed)
            nobody: list[list[int]] = [[]] * len(centres)
            near = choose.nearest(centres, theirs, classes, nobody, max(shots, k), k)
            return _without_own_text(pool, rows, demos, [choose.in_turn(places, classes) for places in near], of_row)
        places_of: dict[str, list[int]] = {}
        for place, demo in enumerate(demos):
            places_of.setdefault(demo.text, []).append(place)
        forbidden = [places_of.get(pool[int(row)].text, []) for row in rows]
        even = len(rows) * min(shots, len(demos)) / len(demos)
        cap = None if self.config.reuse is None else max(1, portion(self.config.reuse, even))
        shown = choose.nearest(vectors[rows], theirs, classes, forbidden, shots, k, balanced=from_pool, cap=cap)
        if self.config.order == "frequent":
            shown = choose.by_frequency(shown)
        return [tuple(demos[place] for place in places) for places in shown]

    def build(
        self, pool: Pool, posterior: FloatArray, believed: BoolArray, view: StudentView
    ) -> Sequence[Demonstration]:
        """Believed rows, class-balanced and spread by the student's embeddings; a label may be left without any."""
        if self.config.kind == "none":
            return ()
        proba = view.proba if self.config.labelled_by == "student" else posterior
        best = self.task.best(proba)
        classes, confidence = self.task.group(best), np.nan_to_num(surest(proba))
        short = np.array([len(example.text.split()) <= self.config.max_words for example in pool.examples])
        k = len(self.labels)
        least = -(-self.config.shots // k)
        suspected = suspects(pool.texts)
        if hidden := int((suspected & believed).sum()):
            self.emit(Note(f"{hidden} believed rows look like orders to the LLM: never shown to it", "demonstrations"))
        fit = short & ~suspected & (classes >= 0)
        fit[fit] = [self.task.tells(pool[int(row)].text, best[row]) for row in np.flatnonzero(fit)]
        if self.config.trust == "neighbours":
            fit &= choose.neighbours_agree(self._vectors(pool), classes)
        named = np.where(fit, classes, -1)
        eligible = choose.with_every_label(believed & fit, named, confidence, k, least)
        doubtful = [label for c, label in enumerate(self.labels) if not (believed & fit)[classes == c].any()]
        rows = choose.clustered(
            classes, confidence, view.embeddings, eligible,
            self.config.total, self.config.top, k, self.seed,
        )  # fmt: skip
        there = {self.labels[classes[row]] for row in rows}
        for some, what in ((True, "its surest ones"), (False, "no example of it")):
            if named_so := ", ".join(label for label in doubtful if (label in there) == some):
                self.emit(
                    Note(
                        f"no believed row for {named_so}: the next round, if there is one, is shown {what}",
                        "demonstrations",
                    )
                )
        return [
            Demonstration(
                pool[int(row)].text, self.task.write(pool[int(row)].text, best[row]), int(row),
                round(float(confidence[row]), 4), dict(pool[int(row)].fields), int(classes[row]),
            )
            for row in rows
        ]  # fmt: skip

    def kept(self, view: StudentView) -> FloatArray | None:
        """(n, d) of length one each: the student's embeddings, where the next round retrieves by them."""
        if self.config.vectors == "embedder":
            return None
        return choose.of_length_one(view.embeddings)

    def _vectors(self, pool: Pool) -> FloatArray:
        if self._pool_vectors is None:
            self._pool_vectors = self.embedder().encode(pool.texts)
        return self._pool_vectors


def _without_own_text(
    pool: Pool,
    rows: IntArray,
    demos: Sequence[Demonstration],
    sets: Sequence[Sequence[int] | IntArray],
    of_row: IntArray,
) -> list[tuple[Demonstration, ...]]:
    """For each of `rows` the set of demonstrations (places in `demos`) that `of_row` (n,) names, its own text apart."""
    chosen = [tuple(demos[int(place)] for place in places) for places in sets]
    texts = [{demo.text for demo in each} for each in chosen]
    shown = []
    for row in rows:
        here, own = int(of_row[row]), pool[int(row)].text
        mine = chosen[here]
        shown.append(tuple(demo for demo in mine if demo.text != own) if own in texts[here] else mine)
    return shown


def requests_for_texts(task: Task, pool: Pool, start: ColdStartConfig, seed: int) -> list[tuple[Request, str]]:
    """A request for each text that the LLM is to write, groups in turn, and the group it is for."""
    rng, groups = np.random.default_rng([seed, 1]), list(task.groups)
    asked = []
    for group, count in zip(groups, choose.quotas(start.total, len(groups)), strict=True):
        for _ in range(count):
            rows = rng.choice(len(pool), min(start.seen, len(pool)), replace=False)
            chat = writing_chat([pool[int(row)].text for row in rows], task.commission(group))
            asked.append((Request(chat, (), 96, start.temperature, int(rng.integers(2**31))), group))
    return asked


def writing_chat(seen: Sequence[str], commission: str) -> tuple[Message, ...]:
    """The chat that asks for one new text as `commission` has it, in the style of the `seen` ones."""
    texts = "\n".join(f"- {' '.join(text.split()[:60])}" for text in seen)
    return (
        Message("system", "You write texts for a data set. Reply with one text on one line and nothing else."),
        Message(
            "user",
            f"Some texts of the data set:\n{texts}\n\nWrite one new text in the same style, about something else, "
            + commission,
        ),
    )


def cleaned(written: str) -> str:
    """The first line of text in what the LLM wrote, without list marks, quotes, and a heading before it."""
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    texts = [line for line in lines if not line.endswith(":")] if len(lines) > 1 else lines
    first = _LIST_MARK.sub("", texts[0]).strip() if texts else ""
    if len(first) > 1 and first[0] == first[-1] and first[0] in "\"'`":
        first = first[1:-1].strip()
    return " ".join(first.split())
