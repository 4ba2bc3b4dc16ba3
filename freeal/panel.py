"""Several LLMs read every row, and what they say becomes one answer a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from freeal.annotator import Annotator
from freeal.events import Emit, Note
from freeal.ledger import MEMBER, Ledger
from freeal.llm import Capabilities, Reply, Request
from freeal.prompts import Prompt
from freeal.select.panel import Pooling, learned, pooled
from freeal.types import Answers, Demonstration, IntArray, Pool

FACT = "panel"
"""Under this name the ledger remembers what the first round told of the members."""


@dataclass(frozen=True, slots=True)
class Panel:
    """`members` asked one after the other through the same prompt, ledger and purse; `names` tell them apart.

    It stands where one `Annotator` does. Demonstrations are written by the first member that writes texts.
    """

    members: Sequence[Annotator]
    names: Sequence[str]

    @property
    def prompt(self) -> Prompt:
        return self.members[0].prompt

    @property
    def ledger(self) -> Ledger:
        return self.members[0].ledger

    @property
    def emit(self) -> Emit:
        return self.members[0].emit

    @property
    def capabilities(self) -> Capabilities:
        """What they can do together."""
        each = [member.capabilities for member in self.members]
        return replace(
            each[0],
            probabilities=any(can.probabilities for can in each),
            generation=any(can.generation for can in each),
            by_uid=any(can.by_uid for can in each),
        )

    @property
    def calls_a_row(self) -> int:
        return len(self.members)

    def prepare(self) -> None:
        """Let every member find out what it needs to know."""
        for member in self.members:
            member.prepare()

    def annotate(
        self,
        pool: Pool,
        rows: IntArray,
        shown: Sequence[Sequence[Demonstration]],
        work: str,
        all_or_none: bool = False,
    ) -> Answers:
        """What the members say of `rows` together; as `Annotator.annotate`, also in what is raised."""
        said = [
            member.annotate(pool, rows, shown, work if place == 0 else f"{work}{MEMBER}{name}", all_or_none)
            for place, (member, name) in enumerate(zip(self.members, self.names, strict=True))
        ]
        known = self._known(said, work)
        told = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(self.names, known.weights, strict=True))
        self.emit(Note(f"weights of the LLMs: {told}", work))
        return pooled(said, known)

    def _known(self, said: Sequence[Answers], work: str) -> Pooling:
        """What these answers tell of the members; those of a test estimate nothing, the first round has told it."""
        if not work.startswith("round ") and isinstance(kept := self.ledger.recall(FACT), dict):
            return Pooling(np.array(kept["biases"]), np.array(kept["weights"]))
        found = learned(said)
        if work == "round 0":
            self.ledger.remember(FACT, {"biases": found.biases.tolist(), "weights": found.weights.tolist()})
        return found

    def ask(self, requests: Sequence[Request], work: str) -> list[Reply]:
        """Replies of the first member that writes texts."""
        writer = next((member for member in self.members if member.capabilities.generation), self.members[0])
        return writer.ask(requests, work)
