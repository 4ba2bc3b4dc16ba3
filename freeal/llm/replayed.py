"""An LLM that was asked in an earlier run: its replies are read from that run's ledger, found by the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from freeal.ledger import WAYS, Ledger, question_of
from freeal.llm import UNHEARD, Capabilities, InProcess, Journal, Reply, Request

NOT_ASKED = "not asked in the recorded run"


class ReplayedLLM(InProcess):
    """Gives what any LLM of an earlier run replied to the same question; a new question is a problem of its row.

    Args:
        ledger: the `ledger.sqlite` of that run.
    """

    def __init__(self, ledger: Path) -> None:
        self.ledger = Ledger(ledger, read_only=True)
        known = self.ledger.recall(WAYS)
        ways = known.get("ways") if isinstance(known, dict) else None
        room = int(ways.get("room", 0)) if isinstance(ways, dict) else 0
        self.capabilities = Capabilities(probabilities=True, generation=True, chunk=1024, room=room)
        self.identity: Mapping[str, str | int | float | bool | None] = {"kind": "replayed", "run": ledger.parent.name}

    def complete(self, requests: Sequence[Request], journal: Journal = UNHEARD) -> list[Reply]:
        """The kept replies, in order."""
        kept = (self.ledger.answers_to(question_of(request)) for request in requests)
        return [reply or Reply(problem=NOT_ASKED) for reply in kept]

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Tokens the kept replies had; 0 for a question that was not asked."""
        return [reply.tokens_in for reply in self.complete(requests)]
