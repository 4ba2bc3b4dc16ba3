"""Config -> all that a run needs, made and checked; what each part is made of stands in `parts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from freeal import data, guidelines, prompts
from freeal.candidates import Candidates
from freeal.config import (
    Config,
)
from freeal.demonstrations import WORK as COLD_START
from freeal.errors import RunError
from freeal.events import Emit, Note
from freeal.ledger import FILE as LEDGER
from freeal.ledger import Ledger
from freeal.parts import checks, decisions, readers, students
from freeal.pipeline import Parts
from freeal.prompts import Prompt
from freeal.scorekeeper import Reader, Scorekeeper
from freeal.select import beliefs, filters, fusion
from freeal.store import RunStore


@dataclass(frozen=True)
class Job:
    """Everything a run needs, made and checked."""

    config: Config
    prompt: Prompt
    corpus: data.Corpus
    parts: Parts
    store: RunStore
    ledger: Ledger


def job(
    config: Config, prompt: Prompt, corpus: data.Corpus, folder: Path, emit: Emit, reuse: Sequence[Path] = ()
) -> Job:
    """Make every part of a run.

    Args:
        prompt, corpus: as `inputs` gives them.
        folder: the run directory; it exists.
        reuse: run directories whose kept replies are used as well.
    """
    if any((folder / "rounds").glob("[0-9]*")) and not _holds_something(folder / LEDGER):
        raise RunError(f"{folder / LEDGER}: is gone or empty, and with it what the run has paid for; begin another run")
    ledger = Ledger(folder / LEDGER, [place / LEDGER for place in reuse])
    try:
        annotator = readers.reader(config, prompt, corpus.pool, ledger, emit).prepare()
        store = RunStore(folder, prompt.task, tuple(example.id for example in corpus.pool.examples))
        return Job(config, prompt, corpus, parts(config, corpus, annotator, emit), store, ledger)
    except BaseException:
        ledger.close()
        raise


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def inputs(config: Config, *prompt_files: Path) -> tuple[Prompt, data.Corpus]:
    """Prompt, with its paraphrases if there are several files, and data, checked against each other."""
    prompt = prompts.load_all(prompt_files)
    checks.check_task(config, prompt.task)
    checks.check_vectors(config)
    corpus = data.load(config.data, prompt.task, config.seed)
    checks.check_candidates(config, corpus.pool)
    for wording in prompt.wordings:
        wording.check_fields(corpus.pool)
        if corpus.test is not None and _is_asked(config, corpus):
            wording.check_fields(corpus.test, f"the test ({config.data.test})")
    return prompt, corpus


def _is_asked(config: Config, corpus: data.Corpus) -> bool:
    """Whether the LLM is asked about the test, too; a recording is of the pool."""
    return config.evaluation.llm_on_test and corpus.test_gold is not None and config.llm.kind != "recorded"


def parts(config: Config, corpus: data.Corpus, annotator: Reader, emit: Emit) -> Parts:
    """Every decision of the loop, bound to its settings."""
    task = annotator.prompt.task
    checks.check_start(config, annotator.capabilities.generation)
    if note := checks.untold_words(annotator.prompt, corpus.pool[0]):
        emit(Note(note, "prompt"))
    if checks.objective(config) == "freeal" and not config.data.rewording:
        emit(Note("no data.rewording: texts are augmented by dropping and swapping words", "student"))
    if getattr(config.student, "objective", None) == "freeal" and config.filter.kind == "none":
        emit(
            Note(
                "filter.kind none: all rows count as clean; none is left for the consistency term of FreeAL's loss",
                "student",
            )
        )
    if isinstance(annotator, Candidates) and annotator.by_words and config.rounds > 1 and config.demos.kind != "none":
        emit(Note("small LLMs judge candidates by words better without demonstrations: try rounds: 1", "reading"))
    shared = cache(partial(students.embedder, config, annotator.prompt, emit, annotator.ledger))
    texts = corpus.pool.texts
    demos = decisions.demonstrations(config, annotator.prompt, partial(annotator.ask, work=COLD_START), shared, emit)
    refine = decisions.refining(config, corpus.pool, annotator, demos, emit)
    taste = decisions.taste(config, annotator, corpus.pool)
    own = decisions.calibrator(
        config,
        tuple(task.labels),
        lambda rows: shared().encode([texts[int(row)] for row in rows]),
        taste,
    )
    calibrate = decisions.understudied(config, own, corpus.pool, annotator, shared, emit)
    return Parts(
        query=partial(
            decisions.query, config=config, annotator=annotator, pool=corpus.pool, rewriting=refine is not None
        ),
        demos=demos,
        refine=refine or guidelines.unchanged,
        annotator=annotator,
        calibrate=calibrate,
        lessons=partial(beliefs.lessons, kind=config.targets),
        new_student=partial(students.new_student, config, task, shared, emit),
        filter=filters.each_decision(decisions.keep(config)),
        fuse=partial(
            decisions.fuse,
            config=config,
            bound=fusion.bound_of(config.fusion, task),
            words=task.alike_by_nature,
            sharpen=decisions.sharpens(config, annotator),
            shares=config.keeps_shares,
            verify=decisions.verifier(config, annotator, corpus.pool),
            emit=emit,
        ),
        believe=partial(decisions.believe, config=config, task=task),
        stop=partial(decisions.stop, config=config, annotator=annotator),
        measure=Scorekeeper(config, corpus, annotator, replace(own, taste=taste and taste.kept)),
        best=task.best,
        emit=emit,
    )
