"""Several LLMs, or one with several prompts, read every row, and what they say becomes one answer a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from freeal.annotator import Annotator
from freeal.events import Emit, Note
from freeal.ledger import MEMBER, Ledger
from freeal.llm import Capabilities, Reply, Request
from freeal.prompts import Prompt
from freeal.select.panel import Pooling, learned, pooled
from freeal.types import Answers, Demonstration, IntArray, LoopState, Pool

FACT = "panel"
"""Under this name the ledger remembers what the first round told of the members."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What each member said in a round, and how it was pooled."""

    said: Sequence[Answers]
    known: Pooling


@dataclass(frozen=True, slots=True)
class Panel:
    """`members`, an LLM with a prompt each, asked one after the other with the same ledger; `names` tell them apart.

    It stands where one `Annotator` does. Demonstrations are written by the first member that writes texts. With
    `calibrated`, each member's taste for some labels is taken out before its answers are pooled.
    """

    members: Sequence[Annotator]
    names: Sequence[str]
    calibrated: bool = True
    _rounds: list[Heard] = field(default_factory=list, repr=False)

    @property
    def heard(self) -> Heard | None:
        """The last round's pass, if this process has made one."""
        return self._rounds[-1] if self._rounds else None

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

    @property
    def voices(self) -> list[int]:
        """Of each member the number of its LLM: what one LLM says to several prompts is one voice."""
        llms = list(dict.fromkeys(id(member.llm) for member in self.members))
        return [llms.index(id(member.llm)) for member in self.members]

    def prepare(self) -> Panel:
        """Let every LLM find out what it needs to know, which the ledger then tells its further members."""
        return replace(self, members=[member.prepare() for member in self.members])

    def told(self, meanings: Mapping[str, str] | None) -> Panel:
        """The same, but what the labels mean is told in other words; None: as the prompt has it."""
        return replace(self, members=[member.told(meanings) for member in self.members])

    def after(self, state: LoopState) -> Panel:
        """The same, for the round that begins with `state`."""
        return self.told(state.meanings)

    def unasked(self, pool: Pool, work: str) -> int:
        """Calls that the members have to make for all rows of `pool`; as `Annotator.unasked`."""
        return sum(member.unasked(pool, self._work_of(work, place)) for place, member in enumerate(self.members))

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
            member.annotate(pool, rows, shown, self._work_of(work, place), all_or_none)
            for place, member in enumerate(self.members)
        ]
        known = self._known(said, work)
        told = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(self.names, known.weights, strict=True))
        self.emit(Note(f"weights: {told}", work))
        return pooled(said, known)

    def _known(self, said: Sequence[Answers], work: str) -> Pooling:
        """What these answers tell of the members; those of a test estimate nothing, the first round has told it."""
        if not work.startswith("round ") and isinstance(kept := self.ledger.recall(FACT), dict):
            voices, as_said = np.array(self.voices), [1.0] * len(self.members)
            temperatures = np.array(kept.get("temperatures", as_said))
            sharpness = float(kept.get("sharpness", 1.0))
            return Pooling(np.array(kept["biases"]), np.array(kept["weights"]), voices, temperatures, sharpness)
        found = learned(said, self.voices, self.calibrated)
        self._rounds[:] = [Heard(said, found)]
        if work == "round 0":
            facts = {"biases": found.biases, "weights": found.weights, "temperatures": found.temperatures}
            told = {name: values.tolist() for name, values in facts.items()}
            self.ledger.remember(FACT, {**told, "sharpness": found.sharpness})
        return found

    def ask(self, requests: Sequence[Request], work: str) -> list[Reply]:
        """Replies of the first member that writes texts."""
        writers = (place for place, member in enumerate(self.members) if member.capabilities.generation)
        place = next(writers, 0)
        return self.members[place].ask(requests, self._work_of(work, place))

    def _work_of(self, work: str, place: int) -> str:
        """The name under which the ledger has the share of the member at `place` in `work`."""
        return f"{work}{MEMBER}{self.names[place]}" if place else work
