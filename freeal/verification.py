"""A second, cheap question about each entity on which LLM and student differ: is this one, yes or no?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freeal.annotator import Annotator
from freeal.errors import BudgetError
from freeal.events import Note
from freeal.ledger import MEMBER
from freeal.llm import Message, Reply, Request
from freeal.select.calibration import batch_bias, shifted
from freeal.select.disputes import Dispute, disputed, settled
from freeal.tasks import TRUST_IN_A_WORD
from freeal.tasks.spans import split_words
from freeal.tasks.tokens import Tokens
from freeal.types import Annotations, FloatArray, Pool

CHOICES = ("no", "yes")

FEWEST = 20
"""Questions below which a taste for yes is not told from many a yes that is right."""


@dataclass(frozen=True)
class Verifier:
    """Asks `annotator`'s LLM about entities of `pool`, in the work of the round whose labels they are."""

    annotator: Annotator
    task: Tokens
    pool: Pool

    def __call__(self, annotations: Annotations, student: FloatArray, posterior: FloatArray) -> FloatArray:
        """(n, s, k) the posterior, its disputed entities settled; as it was where the budget does not suffice."""
        disputes = disputed(self.task.best(annotations.proba), self.task.best(student))
        if not disputes:
            return posterior
        work = f"round {int(annotations.asked_in.max())}{MEMBER}verification"
        try:
            replies = self.annotator.ask([self._request(each) for each in disputes], work)
        except BudgetError as error:
            self.annotator.emit(Note(f"{len(disputes)} disputed entities stay as they are: {error}", work))
            return posterior
        right = self._right(replies)
        told = f"{int((right > 0.5).sum())} of {len(disputes)} disputed entities are ones, says the LLM"
        self.annotator.emit(Note(told, work))
        return settled(posterior, disputes, right)

    def _request(self, dispute: Dispute) -> Request:
        example = self.pool[dispute.row]
        words = split_words(example.text)
        named = example.text[words[dispute.start].start : words[dispute.end - 1].end]
        label, meaning = list(self.task.labels.items())[dispute.type]
        about = f"{label} ({meaning})" if meaning else label
        system = Message("system", "You check marks in texts. Reply with yes or no and nothing else.")
        user = Message("user", f'Text: {example.text}\n\nIs "{named}", exactly these words, here one of: {about}?')
        return Request((system, user), CHOICES, uid=example.id)

    def _right(self, replies: list[Reply]) -> FloatArray:
        """(d,) P(yes), freed of a taste for one of the two where there are enough; NaN where nothing was readable."""
        proba = np.array([_yes_or_no(reply) for reply in replies], np.float64)
        scored = np.array([reply.logprobs is not None for reply in replies]) & ~np.isnan(proba[:, 0])
        if scored.sum() >= FEWEST:
            proba[scored] = shifted(proba[scored], batch_bias(proba[scored]))
        yes: FloatArray = proba[:, 1]
        return yes


def _yes_or_no(reply: Reply) -> tuple[float, float]:
    if reply.problem is None and reply.logprobs is not None:
        weights = np.exp(np.array(reply.logprobs) - max(reply.logprobs))
        no, yes = weights / weights.sum()
        return float(no), float(yes)
    word = (reply.text or "").strip(" .!*\"'`\n").casefold()
    if reply.problem or word not in CHOICES:
        return float("nan"), float("nan")
    return (1 - TRUST_IN_A_WORD, TRUST_IN_A_WORD) if word == "yes" else (TRUST_IN_A_WORD, 1 - TRUST_IN_A_WORD)
