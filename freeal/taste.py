"""What an LLM says of texts that say nothing: its taste for some labels, told apart from what the pool is like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from freeal.annotator import Annotator
from freeal.types import Example, FloatArray, Pool, spoken

WORK = "content-free texts"
"""What is asked about them is told, and kept, under this name."""

ASKED_FOR = "content-free texts"
"""Under this name the ledger remembers how many are asked about: who is interrupted amid them asks for as many."""

ANSWERS = "content-free texts, answers"
"""And under this one what came of it: a run that is resumed goes by the same, whatever its settings are by then."""

FEWEST_WORDS = 4
"""Of a pool whose median text is shorter, a word may be all that a text says, or is not divided by spaces."""

MOST_ROWS = 2000
"""Rows of which words are drawn."""

MOST_WORDS = 500
"""Words of a row that may be drawn."""


@dataclass(frozen=True)
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

    def __call__(self) -> FloatArray | None:
        """(b, k) distributions as answered; None where they were not asked about, or most were not answered.

        Raises:
            BudgetError: the money allowed is spent; what was answered is kept.
        """
        ledger = self.annotator.ledger
        if ledger.recall(ANSWERS, alone=True) is None:
            ledger.remember(ANSWERS, self._asked().tolist())
        return self.kept()

    def kept(self) -> FloatArray | None:
        """The same, without asking."""
        found = self.annotator.ledger.recall(ANSWERS, alone=True)
        return np.array(found, np.float64) if isinstance(found, list) and found else None

    def _asked(self) -> FloatArray:
        ledger, left = self.annotator.ledger, self.left()
        begun = ledger.recall(ASKED_FOR, alone=True)
        count = begun if isinstance(begun, int) else self.count if left is None or left >= self.count else 0
        ledger.remember(ASKED_FOR, count)
        texts = content_free(self.pool, count, self.seed)
        nothing: FloatArray = np.zeros((0, len(self.annotator.prompt.task.classes)))
        if not texts:
            return nothing
        asking = replace(self.annotator, unit="texts", states=False)
        said = asking.annotate(Pool(texts), np.arange(len(texts)), [()] * len(texts), WORK)
        told: FloatArray = said.proba[said.scored & spoken(said.proba)].astype(np.float64)
        return told if len(told) > len(texts) / 2 else nothing


def content_free(pool: Pool, count: int, seed: int) -> tuple[Example, ...]:
    """So many texts of words drawn at random from those of `pool`, each as long as its median text.

    Other columns are those of a row drawn with the words. None where texts are too short for that.
    """
    rng = np.random.default_rng([seed, 8])
    rows = rng.choice(len(pool), min(len(pool), MOST_ROWS), replace=False)
    of_rows = [pool[int(row)].text.split()[:MOST_WORDS] for row in rows]
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
