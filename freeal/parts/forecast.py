"""Configuration -> calls and prompt tokens to come: what a run would ask, as far as a limit lets it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from freeal import guidelines, taste
from freeal.config import Config
from freeal.data import Corpus
from freeal.demonstrations import requests_for_texts
from freeal.llm import LLM, Request
from freeal.parts import decisions
from freeal.parts.readers import as_asked, requests_for_names, worth_asking
from freeal.prompts import Prompt, pretended
from freeal.select import queries
from freeal.types import Pool, portion

SAMPLED = 2000
"""Rows whose prompts are counted; their mean stands for the pool."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run would ask for without a limit.

    `first`, `test`, and at most `later` in each of `further` rounds: distinct texts to ask about, each of which takes
    `a_row` calls in the mean. `cold_start`, and in need `rescue`: texts that the LLM is to write; `names`: lists of
    them. `content_free`: texts that say nothing. `rewrites`: whether the meanings of the labels are rewritten before
    each later round.
    """

    first: int
    later: int = 0
    further: int = 0
    test: int = 0
    a_row: float = 1.0
    cold_start: int = 0
    names: int = 0
    content_free: int = 0
    rescue: int = 0
    rewrites: bool = False

    @property
    def whole_row(self) -> int:
        """Calls to be reckoned with for one row."""
        return max(1, portion(self.a_row, 1))

    def calls_for(self, rows: int) -> int:
        return portion(self.a_row, rows)


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of a run by what they are for; each "at most" is what there may be if the others leave room for it."""

    cold_start: int
    names: int
    first_round: int
    content_free: int
    test: int
    later_rounds_at_most: int
    guidelines_at_most: int
    rescue_at_most: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def calls_within(wanted: Wanted, limit: int | None) -> Calls:
    """How many calls a run makes of those it wants, in the order it makes them; `limit` in all, None: any number.

    Example:
        >>> calls_within(Wanted(first=25, later=100, further=1, test=20, rescue=60), 90)
        Calls(cold_start=0, names=0, first_round=25, content_free=0, test=20, later_rounds_at_most=45, \
guidelines_at_most=0, rescue_at_most=60)
    """
    left = sys.maxsize if limit is None else limit
    cold_start = min(wanted.cold_start, left)
    names = min(wanted.names, left - cold_start)
    first = wanted.calls_for(queries.affordable(wanted.first, left, wanted.whole_row, cold_start + names))
    left -= cold_start + names + first
    content_free = wanted.content_free if wanted.content_free <= left else 0
    left -= content_free
    rescue = min(wanted.rescue, left)
    test = wanted.calls_for(wanted.test)
    test = test if test <= left else 0  # it is read as a whole, or not at all
    left -= test
    later, rewriting = 0, 0
    for _ in range(wanted.further):
        aside = guidelines.most_calls(wanted.whole_row) if wanted.rewrites else 0
        aside = aside if guidelines.affordable(aside, left) else 0
        asked = wanted.calls_for(queries.affordable(wanted.later, left, wanted.whole_row, aside))
        later, rewriting, left = later + asked, rewriting + aside, left - asked - aside
    return Calls(cold_start, names, first, content_free, test, later, rewriting, rescue)


def rewritings(wanted: Wanted, calls: Calls) -> int:
    """How often the meanings of the labels are rewritten at most."""
    return calls.guidelines_at_most // guidelines.most_calls(wanted.whole_row)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompt tokens of a request, in the mean.

    Of a question without demonstrations (`plain`), as put at `first`, about the `test`, and `later` on; of a request
    for a `text`, a list of `names`, or other `meanings` of the labels.
    """

    plain: float
    first: float
    test: float
    later: float
    text: float = 0.0
    names: float = 0.0
    meanings: float = 0.0


def tokens_of(wanted: Wanted, calls: Calls, lengths: Lengths) -> dict[str, int]:
    """Prompt tokens of the calls, under their names.

    Example:
        >>> wanted = Wanted(first=25, cold_start=100)
        >>> lengths = Lengths(plain=40.0, first=90.0, test=40.0, later=90.0, text=80.0)
        >>> tokens_of(wanted, calls_within(wanted, None), lengths)["cold_start"]
        8000
    """
    anew = rewritings(wanted, calls)
    exactly = {
        "cold_start": calls.cold_start * lengths.text,
        "names": calls.names * lengths.names,
        "first_round": calls.first_round * lengths.first,
        "content_free": calls.content_free * lengths.plain,
        "test": calls.test * lengths.test,
        "later_rounds_at_most": calls.later_rounds_at_most * lengths.later,
        "guidelines_at_most": (calls.guidelines_at_most - anew) * lengths.later + anew * lengths.meanings,
        "rescue_at_most": calls.rescue_at_most * lengths.text,
    }
    return {name: round(count) for name, count in exactly.items()}


# --- what these are of a configuration


def readers(config: Config, prompt: Prompt) -> int:
    """Pairs of LLM and prompt, each of which is asked about every row."""
    return (1 + len(config.panel)) * len(prompt.wordings)


def asked_for(config: Config, prompt: Prompt, corpus: Corpus, llm: LLM) -> Wanted:
    """What a run of this configuration would ask for.

    Raises:
        ConfigError: meanings are to be rewritten, and the prompt does not tell them.
    """
    pool, test, start = corpus.pool, corpus.test, config.cold_start
    tested = test is not None and corpus.test_gold is not None and config.evaluation.llm_on_test
    asked, k = len(set(pool.texts)), len(prompt.labels)
    questions = prompt.task.questions * len(as_asked(config, prompt, pool)[1]) / len(pool)
    able, rounds, learns = llm.capabilities, config.rounds, config.learns
    rewrites = config.refine_guidelines and not guidelines.obstacle(prompt, pool[0], able, rounds, learns)
    return Wanted(
        first=min(asked, queries.scouted(len(pool), k, config.query.scout, config.asking_rounds)),
        later=0 if config.query.kind == "none" else portion(config.query.share, asked),
        further=config.rounds - 1,
        test=len(set(test.texts)) if test and tested else 0,
        a_row=readers(config, prompt) * questions * worth_asking(config, prompt),
        cold_start=start.total if start.kind == "generated" else 0,
        names=len(requests_for_names(config, prompt)),
        content_free=len(
            taste.content_free(pool, decisions.texts_for_taste(config, prompt, able, len(pool)), config.seed)
        ),
        rescue=min(start.rescue, len(pool)) if decisions.may_be_rescued(config, prompt.task, llm.capabilities) else 0,
        rewrites=rewrites,
    )


def lengths_of(config: Config, prompt: Prompt, corpus: Corpus, llm: LLM, wanted: Wanted) -> Lengths:
    """How long the requests of this configuration are, as `llm` counts its tokens; 0 of those that are not `wanted`."""
    asking, questions = as_asked(config, prompt, corpus.pool)
    plain = _of_questions(config, asking, questions, 0, llm)
    later = _of_questions(config, asking, questions, _shots(config, prompt), llm)
    tested = as_asked(config, prompt, corpus.test)[1] if corpus.test and wanted.test else None
    written = requests_for_texts(prompt.task, corpus.pool, config.cold_start, config.seed)
    return Lengths(
        plain=plain,
        first=later if wanted.cold_start else plain,
        test=_of_questions(config, asking, tested, 0, llm) if tested else 0.0,
        later=later,
        text=_mean([request for request, _ in written], llm) if wanted.cold_start or wanted.rescue else 0.0,
        names=_mean(requests_for_names(config, prompt), llm),
        meanings=_mean([guidelines.pretended(prompt, corpus.pool)], llm) if wanted.rewrites else 0.0,
    )


def _shots(config: Config, prompt: Prompt) -> int:
    """Demonstrations in a prompt."""
    demos = config.demos
    if demos.kind == "none":
        return 0
    shots = max(demos.shots, len(prompt.labels)) if demos.retrieve == "shared" else demos.shots  # every label is shown
    return shots if config.reading == "written" else 2 * shots  # of each mostly one entity, and words that are none


def _of_questions(config: Config, prompt: Prompt, questions: Pool, shots: int, llm: LLM) -> float:
    """Mean prompt tokens of some of the `questions`, each shown with `shots` others, labels in turn.

    Of several wordings of the prompt, the mean of all.
    """
    rows = np.random.default_rng(config.seed).permutation(len(questions))[:SAMPLED]
    texts = [questions[int(row)] for row in rows]
    teachers = [text for text in texts if len(text.text.split()) <= config.demos.max_words] or texts
    requests = []
    for place, text in enumerate(texts):
        others = [teachers[(place + 1 + i) % len(teachers)] for i in range(min(shots, len(teachers)))]
        shown = pretended(prompt, others)
        requests += [each.request(text, shown) for each in prompt.wordings]
    return _mean(requests, llm)


def _mean(requests: Sequence[Request], llm: LLM) -> float:
    return float(np.mean(llm.count_tokens(requests))) if requests else 0.0
