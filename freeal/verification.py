"""A second, cheap question about each entity on which LLM and student differ: is this one, yes or no?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from freeal import prompts
from freeal.annotator import Annotator
from freeal.errors import BudgetError
from freeal.events import Note
from freeal.ledger import MEMBER
from freeal.prompts import Prompt
from freeal.select.calibration import batch_bias, shifted
from freeal.select.disputes import Dispute, disputed, settled
from freeal.tasks import with_meaning
from freeal.tasks.proposals import question
from freeal.tasks.tokens import Tokens
from freeal.types import Annotations, Answers, Example, FloatArray, Pool, spoken

FEWEST = 20
"""Questions below which a taste for yes is not told from many a yes that is right."""

QUESTION = """---
labels: ["no", "yes"]
---
## system
You check marks in texts. Reply with yes or no and nothing else.

## user
Text: {{ text }}

Is "{{ words }}", exactly these words, here one of: {{ about }}?

## assistant
{{ label }}
"""


def prompt() -> Prompt:
    """How it is asked: the columns `words` and `about` are the entity, and what it may be."""
    return prompts.parse(Path(__file__), QUESTION)


@dataclass(frozen=True)
class Verifier:
    """Asks `annotator`'s LLM about entities of `pool`, in the work of the round whose labels they are.

    `left`: a round -> calls that may still be made in it; None: any.
    """

    annotator: Annotator
    task: Tokens
    pool: Pool
    left: Callable[[int], int | None] = lambda number: None

    def __call__(self, annotations: Annotations, student: FloatArray, posterior: FloatArray) -> FloatArray:
        """(n, s, k) the posterior, its disputed entities settled; as it was where the budget does not suffice."""
        disputes = disputed(self.task.best(annotations.proba), self.task.best(student))
        if not disputes:
            return posterior
        number = int(annotations.asked_in.max())
        work = f"round {number}{MEMBER}verification"
        asking = replace(self.annotator, prompt=prompt(), unit="disputed entities")
        questions = Pool(tuple(map(self._question, disputes)))
        left, unasked = self.left(number), asking.unasked(questions, work)
        if left is not None and left < unasked:  # what was asked before an interruption has its reply
            self.annotator.emit(Note(f"{len(disputes)} disputed entities stay as they are: {left} calls left", work))
            return posterior
        try:
            said = asking.annotate(questions, np.arange(len(disputes)), [()] * len(disputes), work, all_or_none=True)
        except BudgetError as error:
            self.annotator.emit(Note(f"{len(disputes)} disputed entities stay as they are: {error}", work))
            return posterior
        right = _right(said)
        told = f"{int((right > 0.5).sum())} of {len(disputes)} disputed entities are ones, says the LLM"
        self.annotator.emit(Note(told, work))
        return settled(posterior, disputes, right)

    def _question(self, dispute: Dispute) -> Example:
        about = with_meaning(self.task.labels, list(self.task.labels)[dispute.type])
        return question(self.pool[dispute.row], (dispute.start, dispute.end), about=about)


def _right(said: Answers) -> FloatArray:
    """(d,) P(yes), freed of a taste for one of the two where there are enough; NaN where nothing was readable."""
    proba = said.proba.astype(np.float64)
    scored = said.scored & spoken(proba)
    if scored.sum() >= FEWEST:
        proba[scored] = shifted(proba[scored], batch_bias(proba[scored]))
    yes: FloatArray = proba[:, 1]
    return yes
