"""Configuration -> who reads the rows, and what is put to the LLM for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from freeal import candidates, guidelines, lexicon
from freeal.annotator import Annotator
from freeal.candidates import Candidates
from freeal.config import (
    Config,
    LinearConfig,
)
from freeal.events import Emit, Note
from freeal.ledger import Ledger
from freeal.lexicon import Lexicon
from freeal.llm import Request
from freeal.panel import Panel
from freeal.parts import llms, students
from freeal.prompts import Prompt
from freeal.scorekeeper import Reader
from freeal.select.calibration import Calibrator
from freeal.tasks.proposals import MOST
from freeal.tasks.tokens import NONE
from freeal.types import (
    Demonstration,
    Pool,
)

NAMES_C = 10.0
"""Inverse strength of the regularisation of a regression on single names: few, of which the vectors tell much."""


def reader(config: Config, prompt: Prompt, pool: Pool, ledger: Ledger, emit: Emit) -> Reader:
    """Who reads the rows of `pool`: one LLM with one prompt, also by candidates, or a panel of all LLMs and prompts."""
    wanted = [config.llm, *config.panel]
    asked = [
        (llms.llm(each, prompt, config.seed, emit, llms.depth_kept(config, each)), purse, name)
        for each, purse, name in zip(
            wanted, llms.purses(config, ledger), [None, *llms.names_of(wanted)[1:]], strict=True
        )
    ]
    members = [
        Annotator(wording, each, ledger, emit, purse, name)
        for (each, purse, name), wording in product(asked, prompt.wordings)
    ]
    members[0] = replace(members[0], states=llms.depth_kept(config, config.llm) is not None)  # of others nobody asks
    if config.reading != "written":
        calls = int(np.ceil(worth_asking(config, prompt) * len(as_asked(config, prompt, pool)[1]) / max(1, len(pool))))
        return Candidates(
            members[0],
            config.reading,
            max(1, calls),
            Calibrator(config.calibration.kind, config.calibration.passes),
            config.stop.min_information,
            vectors=lambda words: students.embedder(config, prompt, emit).encode(words),
            lexicon=listing(config, prompt, pool, members[0]),
        )
    if len(members) == 1:
        return members[0]
    return Panel(members, llms.names_of(wanted, config.prompts), config.calibration.kind != "none")


def as_asked(config: Config, prompt: Prompt, pool: Pool) -> tuple[Prompt, Pool]:
    """What is put to the LLM at first: the prompt about the rows of `pool`, or a question about each candidate.

    Of the candidates it is the share `worth_asking` that is asked about.
    """
    if config.reading == "written":
        return prompt, pool
    most = None if worth_asking(config, prompt) < 1.0 else MOST
    return candidates.prompt_of(prompt), candidates.questions_of(pool, config.reading, most)


def worth_asking(config: Config, prompt: Prompt) -> float:
    """Which share of what may be asked is asked: where the LLM lists names, phrases unlike them are not."""
    return lexicon.WORTH if config.reading == "phrases" and requests_for_names(config, prompt) else 1.0


def shown_as_asked(config: Config, prompt: Prompt, shown: Sequence[Demonstration]) -> Sequence[Demonstration]:
    """What `shown` is where questions are put as `as_asked` has them."""
    return shown if config.reading == "written" else candidates.turns_of(shown, prompt, config.reading)


def requests_for_names(config: Config, prompt: Prompt) -> list[Request]:
    """What the LLM is asked to list; nothing if it is not, or `stop.max_calls` leaves too few calls for it."""
    if not config.lists_names:
        return []
    start, most = config.cold_start, config.stop.max_calls
    left = None if most is None else most - (start.total if start.kind == "generated" else 0)
    if not guidelines.affordable(start.names * len(prompt.labels), left):
        return []
    return lexicon.requests_for(prompt.labels, candidates.words_of(prompt), start.names, start.temperature, config.seed)


def listing(config: Config, prompt: Prompt, pool: Pool, annotator: Annotator) -> Lexicon | None:
    """Who has names listed, and reads the candidates of `pool` by them; None if nobody does, or it takes most calls."""
    asked = requests_for_names(config, prompt)
    if config.reading == "written" or not asked:
        if config.cold_start.names and config.reading != "written":
            why = (
                "too few calls (stop.max_calls)"
                if config.lists_names
                else "without calibration there are no shares to keep (calibration.kind: none)"
            )
            annotator.emit(Note(f"no names are listed: {why}", lexicon.WORK))
        return None
    from freeal.student.linear import LinearStudent

    types, kind = tuple(prompt.labels), config.reading

    def unlabelled() -> list[str]:
        return [each.fields["words"] for each in candidates.questions_of(pool, kind, None).examples]

    def student() -> LinearStudent:
        vectors = students.embedder(config, prompt, annotator.emit)
        return LinearStudent(LinearConfig(c=NAMES_C, folds=2), (*types, NONE), config.seed, vectors)

    return Lexicon(
        types,
        asked,
        unlabelled,
        student,
        partial(annotator.ask, work=lexicon.WORK),
        annotator.ledger,
        annotator.emit,
    )
