"""What an LLM says of texts that say nothing: its taste for some labels, told apart from what the pool is like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from freeal.annotator import Annotator
from freeal.errors import BudgetError
from freeal.events import Note
from freeal.types import Example, FloatArray, Pool, spoken

WORK = "content-free texts"
"""What is asked about them is told, and kept, under this name."""

FACT = "content-free texts"
"""Under this name the ledger remembers how many were asked about: a run that is resumed keeps to it."""

FEWEST_WORDS = 4
"""Of a pool whose median text is shorter, a word may be all that a text says, or is not divided by spaces."""


MOST_ROWS = 2000
"""Rows of which words are drawn."""


@dataclass
class Taste:
    """The LLM's answers to `count` texts of words that are drawn at random from the pool.

    Domain-context calibration (Fei et al., ACL 2023, arXiv 2305.19148): such a text says nothing of any label, so that
    what the LLM answers is its taste alone, in the words and at the length of the pool. They are asked about once, when
    they are first wanted, if at least as many calls are `left`.
    """

    annotator: Annotator
    pool: Pool
    count: int
    left: Callable[[], int | None]
    seed: int
    _answers: FloatArray | None = field(default=None, repr=False)

    def __call__(self) -> FloatArray | None:
        """(b, k) distributions as answered; None where they were not asked about, or most were not answered."""
        if self._answers is None:
            self._answers = self._asked()
        return self._answers if len(self._answers) > self.count / 2 else None

    def _asked(self) -> FloatArray:
        k, ledger = len(self.annotator.prompt.task.classes), self.annotator.ledger
        nothing: FloatArray = np.zeros((0, k))
        kept, left = ledger.recall(FACT, alone=True), self.left()
        enough = kept == self.count if isinstance(kept, int) else left is None or left >= self.count
        texts = content_free(self.pool, self.count, self.seed) if enough else ()
        ledger.remember(FACT, len(texts))
        if not texts:
            return nothing
        asking = replace(self.annotator, unit="texts", states=False)
        try:
            said = asking.annotate(Pool(texts), np.arange(len(texts)), [()] * len(texts), WORK)
        except BudgetError as error:  # the round is kept as it is
            self.annotator.emit(Note(f"the LLM is not asked about them: {error}", WORK))
            ledger.remember(FACT, 0)
            return nothing
        return said.proba[said.scored & spoken(said.proba)].astype(np.float64)


def content_free(pool: Pool, count: int, seed: int) -> tuple[Example, ...]:
    """So many texts of words drawn at random from those of `pool`, each as long as its median text.

    Other columns are those of a row drawn with the words. None where texts are too short for that.
    """
    rng = np.random.default_rng([seed, 8])
    rows = rng.choice(len(pool), min(len(pool), MOST_ROWS), replace=False)
    of_rows = [pool[int(row)].text.split() for row in rows]
    words = [word for row in of_rows for word in row]
    length = int(np.median([len(row) for row in of_rows]))
    if length < FEWEST_WORDS:
        return ()
    return tuple(
        replace(
            pool[int(rng.choice(rows))],
            id=f"content-free-{number}",
            text=" ".join(words[place] for place in rng.integers(len(words), size=length)),
        )
        for number in range(count)
    )
