"""Every decision of the loop, bound to its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from freeal import guidelines, understudy
from freeal.annotator import Annotator
from freeal.candidates import Candidates
from freeal.config import (
    Config,
    LinearConfig,
    OpenAIConfig,
)
from freeal.demonstrations import Demonstrations
from freeal.errors import CallsSpent, ConfigError
from freeal.events import Emit, Note
from freeal.llm import Capabilities, Reply, Request
from freeal.panel import Panel
from freeal.prompts import Prompt
from freeal.scorekeeper import TEST, Reader, works_before
from freeal.select import beliefs, filters, fusion, queries, stopping
from freeal.select.calibration import Calibrator, asked_again
from freeal.student import Keep
from freeal.tasks import Task
from freeal.tasks.tokens import Tokens
from freeal.taste import ANSWERS, Taste
from freeal.types import (
    Annotations,
    BoolArray,
    Demonstration,
    FloatArray,
    IntArray,
    LoopState,
    Pool,
    portion,
)
from freeal.understudy import Understudy
from freeal.verification import Verifier

if TYPE_CHECKING:
    from freeal.student.embedders import Embedder

AT_LEAST = 5
"""Rows of the first round for each text that says nothing."""


def demonstrations(
    config: Config,
    prompt: Prompt,
    ask: Callable[[Sequence[Request]], Sequence[Reply]],
    vectors: Callable[[], Embedder],
    emit: Emit,
) -> Demonstrations:
    """Who chooses what the LLM is shown."""
    return Demonstrations(config.demos, config.cold_start, prompt.task, ask, vectors, config.seed, emit)


def refining(
    config: Config, pool: Pool, annotator: Reader, demos: Demonstrations, emit: Emit
) -> guidelines.Refining | None:
    """How the meanings of the labels are rewritten; None if they are not.

    Raises:
        ConfigError: they are to be, and the prompt does not tell them.
    """
    if not config.refine_guidelines:
        return None
    learns = config.learns
    if why := guidelines.obstacle(annotator.prompt, pool[0], annotator.capabilities, config.rounds, learns):
        emit(Note(f"the meanings of the labels are not rewritten: {why}", "refine_guidelines"))
        return None
    left = partial(_left, config=config, annotator=annotator)
    return guidelines.Refining(annotator, demos.retrieve, left, config.seed, emit)


def calibrator(
    config: Config,
    labels: Sequence[str],
    vectors: Callable[[IntArray], FloatArray] | None = None,
    taste: Taste | None = None,
) -> Calibrator:
    """How a pass is calibrated; an LLM that gives mere words is not. `vectors` are those of rows of the pool."""
    settings = config.calibration
    if settings.prior is not None and settings.kind != "prior":
        raise ConfigError(f"calibration.prior is given, but calibration.kind is {settings.kind}; set it to prior")
    if settings.kind == "prior":
        return Calibrator("prior", settings.passes, stated_prior(settings.prior, labels), sober=settings.sober)
    least = config.stop.min_information
    return Calibrator(
        settings.kind, settings.passes, vectors=vectors, taste=taste, min_information=least, sober=settings.sober
    )


def taste(config: Config, annotator: Reader, pool: Pool) -> Taste | None:
    """Who knows what the LLM says of texts that say nothing; None if it is not asked about any."""
    if not isinstance(annotator, Annotator):
        return None
    count = texts_for_taste(config, annotator.prompt, annotator.capabilities, len(pool))
    known = annotator.ledger.recall(ANSWERS, alone=True) is not None
    left = partial(_left, 1, config, annotator)
    return Taste(annotator, pool, count, left, config.seed) if count or known else None


def texts_for_taste(config: Config, prompt: Prompt, able: Capabilities, rows: int) -> int:
    """How many texts that say nothing to ask about, for a pool of `rows`; 0 where that costs much, or serves nothing.

    They serve where there are two labels. A panel of LLMs divides out their tastes in its own way; other columns that a
    prompt shows say something; and a file of its own for them may keep a batch waiting for a day.
    """
    settings, labels = config.calibration, prompt.labels
    two = prompt.task.kind == "classification" and len(labels) == 2
    alone = not config.panel and len(prompt.wordings) == 1 and not prompt.fields
    plain = settings.kind == "estimated" and config.cold_start.kind == "none"
    batched = isinstance(config.llm, OpenAIConfig) and config.llm.batch
    if not (two and alone and plain and able.probabilities) or able.by_uid or batched:
        return 0
    first = queries.scouted(rows, len(labels), config.query.scout, config.asking_rounds)
    return settings.content_free if first >= AT_LEAST * settings.content_free else 0


def stated_prior(prior: Mapping[str, float] | None, labels: Sequence[str]) -> FloatArray:
    """(k,) the shares of `calibration.prior`, made to add up to one."""
    if prior is None or set(prior) != set(labels) or min(prior.values()) < 0 or sum(prior.values()) <= 0:
        raise ConfigError(f"calibration.prior: expected a share of 0 or more for each of {', '.join(labels)}")
    shares = np.array([prior[label] for label in labels], np.float64)
    even: FloatArray = shares / shares.sum()
    return even


def understudied(
    config: Config, calibrate: Calibrator, pool: Pool, annotator: Reader, vectors: Callable[[], Embedder], emit: Emit
) -> Calibrator | Understudy:
    """How a pass is calibrated; with an understudy, where a later round could be asked for and the LLM can write."""
    from freeal.student.linear import LinearStudent

    task, rescue = annotator.prompt.task, config.cold_start.rescue
    if not may_be_rescued(config, task, annotator.capabilities):
        return calibrate
    labels = tuple(task.labels)

    def most() -> int:
        left = _left(1, config, annotator)
        return min(rescue, len(pool), len(pool) if left is None else left)

    def write(count: int) -> Sequence[Demonstration]:
        wanted = config.cold_start.model_copy(update={"kind": "generated", "total": count})
        changed = config.model_copy(update={"cold_start": wanted})
        asking = partial(annotator.ask, work=understudy.WORK)
        return demonstrations(changed, annotator.prompt, asking, vectors, emit).begin(pool)

    def student() -> LinearStudent:
        return LinearStudent(LinearConfig(), labels, config.seed, vectors())

    return Understudy(
        calibrate, pool.texts, labels, config.cold_start.rescue_below, most, write, student, annotator.ledger, emit
    )


def may_be_rescued(config: Config, task: Task, able: Capabilities) -> bool:
    """Whether an LLM that is `able` to do so writes texts to learn from, should its first answers tell little."""
    fit = task.kind == "classification" and able.generation and config.calibration.kind == "estimated"
    return fit and config.learns and config.rounds > 1 and config.cold_start.rescue > 0


def query(state: LoopState, config: Config, annotator: Reader, pool: Pool, rewriting: bool = False) -> IntArray:
    """The rows to ask about; no more than the budget has calls for.

    Raises:
        CallsSpent: nothing is left for the first round.
    """
    n, k, number = len(state.posterior), len(annotator.prompt.labels), state.next_round
    wanted = portion(config.query.share, n)
    if number == 0:
        wanted = queries.scouted(n, k, config.query.scout, config.asking_rounds)
    left = _left(number, config, annotator)
    limit = queries.affordable(wanted, left, annotator.calls_a_row, _aside(number, left, annotator, rewriting))
    if number == 0 and not limit:
        spent = f"{config.stop.max_calls:,} were spent" if not left else f"but {left:,} were spent"
        more = f"; a row takes {annotator.calls_a_row}" if left else ""
        raise CallsSpent(f"stop.max_calls: all {spent} before any row was asked{more}")
    rng = np.random.default_rng([config.seed, 3, number])
    words = np.array([1 + len(text.split()) for text in pool.texts])  # what all prompts share is read once
    return queries.query(state, config.query.kind, limit, rng, words, config.query.min_gain)


def _aside(number: int, left: int | None, annotator: Reader, rewriting: bool) -> int:
    """Calls of round `number` that are not about rows: for lists of names, or for meanings if they are rewritten."""
    if number == 0:
        return annotator.lexicon.calls if isinstance(annotator, Candidates) and annotator.lexicon else 0
    calls = guidelines.most_calls(annotator.calls_a_row) if rewriting else 0
    return calls if guidelines.affordable(calls, left) else 0


def _left(number: int, config: Config, annotator: Reader) -> int | None:
    """Calls that may be made from round `number` on, the rewriting of meanings before it among them; None: any."""
    if config.stop.max_calls is None:
        return None
    return config.stop.max_calls - _spent(annotator, number, config.stop.count_reused)


def _spent(annotator: Reader, number: int, count_reused: bool) -> int:
    """Calls made before round `number`; those of an interrupted try of the round itself are not made again.

    With `count_reused` as many as a run alone would have made of the pool; the test, which is measuring, is left out.
    """
    works = works_before(number)
    if count_reused:
        return annotator.ledger.usage(works, alone=True).calls
    works += [TEST] if number else []
    return annotator.ledger.usage(works).calls + annotator.ledger.in_doubt(works, under_way=False)


def keep(config: Config) -> Keep:
    """Which labels are believed by their losses."""
    match config.filter.kind:
        case "gmm":
            return partial(filters.small_loss_gmm, threshold=config.filter.threshold)
        case "quantile":
            return partial(filters.small_loss_quantile, share=config.filter.share)
        case "none":
            return filters.believe_all


def believe(annotations: Annotations, student: FloatArray, passed: BoolArray, config: Config, task: Task) -> BoolArray:
    if not config.learns:
        return passed & annotations.labelled
    if config.belief.kind == "confident":
        return beliefs.most_confident(annotations, student, config.belief.share, task.best, task.group)
    return beliefs.filtered(annotations, student, passed, task.best)


def fuse(
    annotations: Annotations,
    student: FloatArray,
    believed: BoolArray,
    config: Config,
    bound: fusion.Bound,
    words: bool,
    sharpen: bool,
    shares: bool,
    verify: Verifier | None,
    emit: Emit,
) -> FloatArray:
    if not config.learns:
        return annotations.proba  # where the LLM abstains, nobody has spoken
    if config.fusion.kind == "freeal":
        posterior = fusion.freeal(annotations, student, believed)
    else:
        weights = (config.fusion.llm, config.fusion.student)
        say = fusion.say(annotations.proba, student, weights, bound, words)
        if faint := int((say.student < config.fusion.student / 2).sum()):
            of = f" for {faint} of {say.student.size} labels" if say.student.size > 1 else ""
            told = f"it foretells little of what the LLM says{of}: where both speak, its word weighs"
            emit(Note(f"{told} {say.student.min():.2f} in place of {config.fusion.student:.2f}", "student"))
        posterior = fusion.pooled(annotations.proba, student, say, shares)
        if sharpen and asked_again(annotations):
            posterior = fusion.sharpened(posterior, annotations.proba)
    return posterior if verify is None else verify(annotations, student, posterior)


def sharpens(config: Config, annotator: Reader) -> bool:
    """Whether pooled labels become as sure as the LLM: where that gives probabilities, and later passes are sober."""
    sober = config.calibration.sober and config.calibration.kind != "none"
    told = annotator.capabilities.probabilities and not annotator.prompt.task.alike_by_nature
    return config.fusion.sharpen and sober and told


def verifier(config: Config, annotator: Reader, pool: Pool) -> Verifier | None:
    """Who asks again about disputed entities, if anybody does.

    Raises:
        ConfigError: there are no entities to ask about.
    """
    if not config.fusion.verify:
        return None
    task = annotator.prompt.task
    if not isinstance(task, Tokens) or isinstance(annotator, Panel):
        raise ConfigError(f"fusion.verify: is for a task of kind tokens, and this one is of kind {task.kind}")
    asking = annotator.annotator if isinstance(annotator, Candidates) else annotator
    return Verifier(asking, task, pool, lambda number: _left(number + 1, config, annotator))


def stop(state: LoopState, config: Config, annotator: Reader) -> str | None:
    calls = _spent(annotator, state.next_round, config.stop.count_reused)
    limits = config.stop
    least = stopping.least_information(limits, annotator.prompt.task)
    taken_over = annotator.ledger.recall(understudy.FACT, alone=True) is not None
    return stopping.reason(state, limits.min_change, calls, limits.max_calls, least, taken_over, annotator.calls_a_row)
