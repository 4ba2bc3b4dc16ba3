"""Prompt and LLM together: rows in, distributions out, every reply kept before it is read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freeal.events import Emit, Note, Progress
from freeal.ledger import Ledger, key_of, question_of
from freeal.llm import LLM, Reply, Request
from freeal.prompts import Prompt
from freeal.types import PROBABILITY, Answers, Demonstration, FloatArray, IntArray, Pool

TRUST_IN_A_WORD = 0.9
"""Probability given to the label of a bare word; FreeAL's GPT-3.5 words on MR are 93.7 % right."""


@dataclass(frozen=True, slots=True)
class Annotator:
    """Asks `llm` about rows of a pool through `prompt`; replies go to `ledger`, progress to `emit`."""

    prompt: Prompt
    llm: LLM
    ledger: Ledger
    emit: Emit

    def annotate(self, pool: Pool, rows: IntArray, shown: Sequence[Sequence[Demonstration]], work: str) -> Answers:
        """What the LLM says of `rows`, each shown with its demonstrations; an unreadable reply abstains.

        Rows with the same demonstrations are asked one after the other, so that their common prefix is read once,
        in chunks that depend on the question alone: a chunk is paid for and kept, or neither.
        """
        k = len(self.prompt.labels)
        proba = np.full((len(rows), k), np.nan, PROBABILITY)
        scored, problems = np.zeros(len(rows), bool), np.full(len(rows), None, object)
        order = _by_demonstrations(rows, shown)
        size, done = self.llm.capabilities.chunk, 0
        for start in range(0, len(order), size):
            places = order[start : start + size]
            requests = [self.request(pool, int(rows[i]), shown[i]) for i in places]
            for i, reply in zip(places, self.replies(requests, work), strict=True):
                proba[i], scored[i], problems[i] = self._read(reply)
            done += len(places)
            self.emit(Progress(work, done, len(rows)))
        self._tell(problems.tolist(), work)
        return Answers(np.asarray(rows), proba, scored, tuple(problems))

    def request(self, pool: Pool, row: int, shown: Sequence[Demonstration]) -> Request:
        """What is sent for one row."""
        example = pool[row]
        return Request(self.prompt.render(example, shown), self.prompt.replies, uid=example.id)

    def replies(self, requests: Sequence[Request], work: str) -> list[Reply]:
        """Kept replies where there are any; the others are asked for, each question once, and kept."""
        by_uid = self.llm.capabilities.by_uid
        keys = [key_of(self.llm.identity, question_of(request, by_uid)) for request in requests]
        known: dict[str, Reply] = {}
        missing: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key not in known and key not in missing:
                found = self.ledger.find(key, work)
                if found is None:
                    missing[key] = request
                else:
                    known[key] = found
        self.ledger.settle()
        if missing:
            started = time.perf_counter()
            fresh = self.llm.complete(list(missing.values()))
            answered = dict(zip(missing, fresh, strict=True))
            lasting = [(key, missing[key], reply) for key, reply in answered.items() if not _passing(reply)]
            self.ledger.keep(work, lasting, time.perf_counter() - started)
            known |= answered
        return [known[key] for key in keys]

    def ask(self, requests: Sequence[Request], work: str) -> list[Reply]:
        """`replies` to any number of requests, a chunk at a time."""
        size, replies = self.llm.capabilities.chunk, []
        for start in range(0, len(requests), size):
            replies += self.replies(requests[start : start + size], work)
            self.emit(Progress(work, len(replies), len(requests), "requests"))
        return replies

    def _read(self, reply: Reply) -> tuple[FloatArray, bool, str | None]:
        """(k,) distribution, whether it is more than a word, and why it is NaN if it is."""
        k = len(self.prompt.labels)
        nothing = np.full(k, np.nan, PROBABILITY)
        if reply.problem:
            return nothing, False, reply.problem
        if reply.logprobs is not None:
            logprobs = np.array(reply.logprobs, np.float64)
            if np.isnan(logprobs).any() or np.isneginf(logprobs).all():
                return nothing, False, "no label has a probability"
            weights = np.exp(logprobs - logprobs.max())
            return (weights / weights.sum()).astype(PROBABILITY), True, None
        label, problem = self.prompt.read(reply)
        if label is None:
            return nothing, False, problem
        word = np.full(k, (1 - TRUST_IN_A_WORD) / (k - 1), PROBABILITY)
        word[label] = TRUST_IN_A_WORD
        return word, False, None

    def _tell(self, problems: Sequence[str | None], work: str) -> None:
        kinds = Counter(problem.partition(":")[0] for problem in problems if problem)
        if kinds:
            told = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(3))
            self.emit(Note(f"{sum(kinds.values())} of {len(problems)} rows got no label: {told}", work))


def _passing(reply: Reply) -> bool:
    """Whether a problem is of the moment (the server's fault, a prompt never sent): the row deserves another try."""
    return reply.problem is not None and reply.problem.startswith(("server", "not asked"))


def _by_demonstrations(rows: IntArray, shown: Sequence[Sequence[Demonstration]]) -> list[int]:
    """Places in `rows`, those with the same first demonstrations together, else in the order of the pool."""
    contents = {id(demos): tuple((demo.label, demo.text) for demo in demos) for demos in shown}  # few are distinct
    rank = {content: place for place, content in enumerate(sorted(set(contents.values())))}
    return sorted(range(len(rows)), key=lambda i: (rank[contents[id(shown[i])]], int(rows[i])))
