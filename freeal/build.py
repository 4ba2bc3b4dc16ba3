"""Config -> the parts of a run; the only file that knows every class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from freeal import candidates, data, guidelines, lexicon, models, money, prompts, understudy
from freeal.annotator import Annotator
from freeal.candidates import Candidates
from freeal.config import (
    Config,
    EncoderConfig,
    LinearConfig,
    LLMConfig,
    LocalConfig,
    NoStudentConfig,
    OpenAIConfig,
    RecordedConfig,
    ScriptedConfig,
    StatesConfig,
    TaggerConfig,
    TfidfConfig,
    TransformerConfig,
    VLLMConfig,
)
from freeal.demonstrations import WORK as COLD_START
from freeal.demonstrations import Demonstrations
from freeal.errors import BudgetError, ConfigError, RunError, Unfit
from freeal.events import Emit, Note
from freeal.ledger import FILE as LEDGER
from freeal.ledger import MEMBER, Ledger
from freeal.lexicon import Lexicon
from freeal.llm import LLM, Reply, Request
from freeal.money import Account, Price, Purse
from freeal.panel import Panel
from freeal.pipeline import Parts
from freeal.prompts import Prompt
from freeal.scorekeeper import TEST, Reader, Scorekeeper, works_of
from freeal.select import beliefs, filters, fusion, queries, stopping
from freeal.select.calibration import Calibrator, asked_again
from freeal.store import RunStore
from freeal.student import Keep, Student
from freeal.tasks import Task
from freeal.tasks.proposals import MOST
from freeal.tasks.spans import split_words
from freeal.tasks.tokens import NONE, Tokens
from freeal.types import (
    Annotations,
    BoolArray,
    Demonstration,
    FloatArray,
    IntArray,
    LoopState,
    Pool,
)
from freeal.understudy import Understudy
from freeal.verification import Verifier

if TYPE_CHECKING:
    from freeal.student.embedders import Embedder


STATES_IN_MEMORY = 50_000
"""Texts whose hidden states are remembered (of 1,536 numbers, 300 MB); those of others are looked up again."""


NAMES_C = 10.0
"""Inverse strength of the regularisation of a regression on single names: few, of which the vectors tell much."""


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
        annotator = reader(config, prompt, corpus.pool, ledger, emit).prepare()
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
    _check_task(config, prompt.task)
    _check_vectors(config)
    corpus = data.load(config.data, prompt.task, config.seed)
    for wording in prompt.wordings:
        wording.check_fields(corpus.pool)
    return prompt, corpus


def _check_task(config: Config, task: Task) -> None:
    """Make sure that the settings can serve this kind of task.

    Raises:
        Unfit: one of them cannot.
    """
    student, wanted = config.student.kind, STUDENTS[task.kind]
    if student not in wanted:
        raise Unfit(f"student.kind: {student} cannot learn a task of kind {task.kind}; set {' or '.join(wanted)}")
    if task.kind == "multilabel" and _objective(config) == "freeal":
        raise Unfit("student.objective: freeal is for one label a text; set plain, candidates or coteaching")
    if _objective(config) == "coteaching" and config.filter.kind == "none":
        raise Unfit("student.objective: coteaching weighs rows by the filter; set filter.kind to gmm or quantile")
    if task.kind != "classification" and (config.panel or config.paraphrases):
        raise Unfit(f"llm, prompt: lists are for one label a text; a task of kind {task.kind} takes one of each")
    if task.questions > 1 and isinstance(config.embedder, StatesConfig):
        raise Unfit(f"embedder.kind: hidden_states is for one question a text, not for a task of kind {task.kind}")
    if task.kind != "classification" and config.calibration.kind == "prior":
        raise Unfit(f"calibration.kind: prior is for one label a text, not for a task of kind {task.kind}")
    if isinstance(config.embedder, StatesConfig):
        _states_of(config, config.embedder)
    if config.fusion.verify and task.kind != "tokens":
        raise Unfit(f"fusion.verify: is for a task of kind tokens, and this one is of kind {task.kind}")
    if config.reading != "written" and task.kind != "tokens":
        raise Unfit(f"reading: {config.reading} is for entities; a task of kind {task.kind} takes written")
    strategy = config.llm.strategy if isinstance(config.llm, OpenAIConfig) else "auto"
    votes = isinstance(config.llm, OpenAIConfig) and config.llm.votes > 1
    if config.reading != "written" and strategy not in ("auto", "probabilities") and not votes:
        raise Unfit(
            f"reading: {config.reading} needs the probabilities of the types, and llm.strategy: {strategy} gives none; "
            "set it to probabilities, or reading: written"
        )


def check_reading(config: Config, asked: LLM) -> None:
    """Make sure that this LLM can be asked as `reading` says, as far as that is known before it is asked anything.

    Raises:
        ConfigError: it cannot.
    """
    if config.reading != "written" and not isinstance(config.llm, OpenAIConfig):
        candidates.check(asked.capabilities, config.reading)


def _check_vectors(config: Config) -> None:
    """Make sure that there are vectors of a student, and somebody to compare by them, where they are wanted.

    Raises:
        Unfit: there are not.
    """
    if config.demos.vectors == "embedder" or config.demos.kind == "none":
        return
    if config.demos.retrieve == "shared":
        raise Unfit("demos.vectors: student needs texts to be compared; set demos.retrieve to nearest or clusters")
    if not isinstance(config.student, TransformerConfig | TaggerConfig):
        raise Unfit(
            f"demos.vectors: a student of kind {config.student.kind} has no vectors of its own; set student.kind to "
            "transformer (entities: tagger), or vectors to embedder"
        )
    if config.rounds == 1:
        raise Unfit("demos.vectors: student is for later rounds; set rounds to 2 or more, or vectors to embedder")


STUDENTS: Mapping[str, tuple[str, ...]] = {
    "classification": ("transformer", "linear", "none"),
    "multilabel": ("transformer", "linear", "none"),
    "tokens": ("tagger", "none"),
}
"""Kind of task -> kinds of student that learn it."""


def reader(config: Config, prompt: Prompt, pool: Pool, ledger: Ledger, emit: Emit) -> Reader:
    """Who reads the rows of `pool`: one LLM with one prompt, also by candidates, or a panel of all LLMs and prompts."""
    wanted = [config.llm, *config.panel]
    llms = [
        (llm(each, prompt, config.seed, emit, _depth_kept(config, each)), purse, name)
        for each, purse, name in zip(wanted, purses(config, ledger), [None, *names_of(wanted)[1:]], strict=True)
    ]
    members = [
        Annotator(wording, each, ledger, emit, purse, name)
        for (each, purse, name), wording in product(llms, prompt.wordings)
    ]
    members[0] = replace(members[0], states=_depth_kept(config, config.llm) is not None)  # of others nobody asks
    if config.reading != "written":
        calls = int(np.ceil(worth_asking(config, prompt) * len(as_asked(config, prompt, pool)[1]) / max(1, len(pool))))
        return Candidates(
            members[0],
            config.reading,
            max(1, calls),
            Calibrator(config.calibration.kind, config.calibration.passes),
            config.stop.min_information,
            vectors=lambda words: embedder(config, prompt, emit).encode(words),
            lexicon=listing(config, prompt, pool, members[0]),
        )
    if len(members) == 1:
        return members[0]
    return Panel(members, names_of(wanted, config.prompts), config.calibration.kind != "none")


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
        vectors = embedder(config, prompt, annotator.emit)
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


def names_of(llms: Sequence[LLMConfig], prompt_files: Sequence[str] = ()) -> list[str]:
    """A name for each LLM, its model or kind; with several prompts, for each LLM with each prompt, the file's stem.

    Example:
        >>> names_of([LocalConfig(model="qwen")], ["mr.md", "other/mr-2.md"])
        ['qwen, mr', 'qwen, mr-2']
    """
    names = _told_apart([str(getattr(each, "model", each.kind)) for each in llms])
    if len(prompt_files) < 2:
        return names
    return [f"{name}, {stem}" for name in names for stem in _told_apart([Path(file).stem for file in prompt_files])]


def _told_apart(names: Sequence[str]) -> list[str]:
    """The names, numbered where another is the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def llm(wanted: LLMConfig, prompt: Prompt, seed: int, emit: Emit, depth: float | None = None) -> LLM:
    """One LLM; one in this process gives the hidden states at `depth` with its answers, if that is not None."""
    match wanted:
        case LocalConfig() as local:
            from freeal.llm.local import LocalLLM

            return LocalLLM(local, emit, depth)
        case VLLMConfig() as engine:
            from freeal.llm.vllm_engine import VLLMEngine

            return VLLMEngine(engine, emit)
        case OpenAIConfig() as remote:
            from freeal.llm.openai_api import OpenAILLM

            held = remote.structured and prompt.task.in_json().form is not None
            return OpenAILLM(remote, emit, schema=held)
        case RecordedConfig() as kept:
            from freeal.llm.recorded import RecordedLLM
            from freeal.llm.replayed import ReplayedLLM

            place = Path(kept.replies)
            if place.is_dir():
                return ReplayedLLM(place / LEDGER)

            def answer(label: str, question: int) -> str:
                if prompt.task.kind == "classification":
                    return label  # read by its name, whatever words a prompt has for it
                return " ".join(prompt.task.answered(label, question).values())

            named = prompt.task.labels if prompt.task.kind == "classification" else prompt.replies
            return RecordedLLM.from_labels(place, kept.id, kept.label, tuple(named), answer)
        case ScriptedConfig() as script:
            from freeal.llm.scripted import ScriptedLLM

            return ScriptedLLM.from_config(script, prompt.task, seed)


def purses(config: Config, ledger: Ledger) -> list[Purse]:
    """What the run may cost, a purse for each LLM's price; what it has cost before is in the ledger.

    Raises:
        ConfigError: a budget in dollars for a model whose price is not known.
    """
    llms = [config.llm, *config.panel]
    prices = [price_of(each) for each in llms]
    if config.stop.budget is not None and None in prices:
        raise ConfigError(
            "stop.budget: the price of this model is not known; say it with --price-in and --price-out "
            "(dollars for a million tokens), or limit the calls with --max-calls"
        )
    usage = ledger.usage()
    limits = config.stop.budget, config.stop.max_calls
    account = Account(usage.cost + usage.doubt, usage.calls + ledger.in_doubt(under_way=False))
    found = [
        Purse(price, *limits, each.votes if isinstance(each, OpenAIConfig) else 1, account)
        for price, each in zip(prices, llms, strict=True)
    ]
    for key, work, request in list(ledger.unanswered()):
        place = _asked_in(config, work)
        asked, purse = llms[place], found[place]
        worst = purse.worst(request)
        purse.await_answer(worst)
        if not (isinstance(asked, OpenAIConfig) and asked.batch):  # the answers of a batch are no lost calls
            purse.lose(worst)
            ledger.failed(key, True, worst)
    ledger.settle()
    return found


def cost_alone(config: Config, ledger: Ledger, works: Sequence[str]) -> float:
    """US dollars for the replies of `works`, each at the price of its LLM, whichever run paid for it.

    An LLM whose price is not known adds nothing.
    """
    llms = [config.llm, *config.panel]
    costs = [
        price.of(*tokens)
        for work, tokens in ledger.tokens(works).items() if (price := price_of(llms[_asked_in(config, work)]))
    ]  # fmt: skip
    return sum(costs, 0.0)


def _asked_in(config: Config, work: str) -> int:
    """Which LLM was asked in `work`, as the ledger names it: its place among `llm` and the panel."""
    names = names_of([config.llm, *config.panel], config.prompts)
    member = work.partition(MEMBER)[2]
    return names.index(member) // len(config.prompts) if member in names else 0


def price_of(llm: LLMConfig) -> Price | None:
    """What the tokens of an LLM cost: as configured, or else as listed; nothing for what runs in this process."""
    if not isinstance(llm, OpenAIConfig):
        return Price(0.0, 0.0)
    if llm.price_in is not None and llm.price_out is not None:
        return Price(llm.price_in, llm.price_out)
    listed = money.price_of(llm.model)
    return listed.times(money.IN_A_BATCH) if listed and llm.batch else listed


def embedder(config: Config, prompt: Prompt, emit: Emit, ledger: Ledger | None = None) -> Embedder:
    """Who turns texts into vectors; `prompt` is what a language model is asked about them, its answers in `ledger`."""
    from freeal.student.embedders import EncoderEmbedder, RememberingEmbedder, TfidfEmbedder

    match config.embedder:
        case EncoderConfig() as encoder:
            return RememberingEmbedder(EncoderEmbedder(str(models.locate(encoder.model, emit))))
        case TfidfConfig() as tfidf:
            return TfidfEmbedder(tfidf.dimensions)
        case StatesConfig() as states:
            from freeal.llm.states import StatesEmbedder

            made = StatesEmbedder(_states_of(config, states), prompt, states.depth, emit, ledger)
            return RememberingEmbedder(made, most=STATES_IN_MEMORY)


def _depth_kept(config: Config, asked: LLMConfig) -> float | None:
    """At which depth hidden states of `asked` are kept while it answers: they are, if it is their model."""
    wanted = config.embedder
    return wanted.depth if isinstance(wanted, StatesConfig) and _states_of(config, wanted) == asked else None


def _states_of(config: Config, states: StatesConfig) -> LocalConfig:
    """The language model whose hidden states are read: the one named, else the run's own."""
    own = config.llm if isinstance(config.llm, LocalConfig) else None
    if states.model is None and own is None:
        raise ConfigError(
            f"embedder.kind: hidden_states reads a model in this process, and llm.kind is {config.llm.kind}; "
            "name one, as in  embedder.model: qwen2.5-coder-0.5b"
        )
    given = own or LocalConfig()
    return given if states.model is None else given.model_copy(update={"model": states.model})


def new_student(config: Config, task: Task, vectors: Callable[[], Embedder], emit: Emit, number: int) -> Student:
    """Who learns in round `number`: a fresh one each round."""
    labels = tuple(task.labels)
    seed = int(np.random.default_rng([config.seed, 2, number]).integers(2**31))
    match config.student:
        case TransformerConfig() as transformer:
            from freeal.student.transformer import TransformerStudent

            path, several = str(models.locate(transformer.model, emit)), task.kind == "multilabel"
            make = partial(TransformerStudent, model_path=path, emit=emit, several=several)
            student: Student = make(transformer, labels, seed)
            if transformer.judge == "none":
                return student
            from freeal.student.judged import JudgedStudent

            judge = _judge(transformer, task, seed, vectors, make)
            return JudgedStudent(student, judge, transformer.objective == "coteaching")
        case LinearConfig() as linear:
            return _linear_student(linear, task, seed, vectors)
        case TaggerConfig() as tagger:
            from freeal.student.tagger import TaggerStudent

            return TaggerStudent(tagger, labels, seed, str(models.locate(tagger.model, emit)), split_words, emit)
        case NoStudentConfig():
            from freeal.student.uniform import UniformStudent

            return UniformStudent(task.shape)


def _judge(
    config: TransformerConfig, task: Task, seed: int, vectors: Callable[[], Embedder], make: Callable[..., Student]
) -> Student:
    """Who judges the rows of a fine-tuned student."""
    if config.judge == "linear":
        return _linear_student(LinearConfig(), task, seed, vectors)
    from freeal.student.crossfitted import CrossFitted

    plain = config.model_copy(update={"objective": "plain"} if config.objective == "coteaching" else {})

    def new(fold: int) -> Student:
        work = f"training without fold {fold + 1} of {config.folds}"
        return make(plain, tuple(task.labels), seed + 1 + fold, work=work)

    return CrossFitted(new, config.folds, seed, task.shape(()))


def _linear_student(config: LinearConfig, task: Task, seed: int, vectors: Callable[[], Embedder]) -> Student:
    from freeal.student import each_label
    from freeal.student.linear import LinearStudent

    labels = tuple(task.labels)
    if task.kind == "multilabel":
        own = config.model_copy(update={"c": config.c or each_label.C})
        return each_label.EachLabelStudent(labels, lambda: LinearStudent(own, each_label.NAMES, seed, vectors()))
    return LinearStudent(config, labels, seed, vectors())


def load_student(config: Config, prompt: Prompt, folder: Path, emit: Emit) -> Student:
    """The student that a round kept in `folder`."""
    match config.student:
        case TransformerConfig():
            from freeal.student import transformer

            return transformer.load(folder)
        case LinearConfig():
            from freeal.student import each_label, linear

            load = each_label.load if prompt.task.kind == "multilabel" else linear.load
            return load(folder, embedder(config, prompt, emit))
        case TaggerConfig():
            from freeal.student import tagger

            return tagger.load(folder, split_words, emit)
        case NoStudentConfig():
            raise ConfigError("this run trained no student (student.kind is none)")


def parts(config: Config, corpus: data.Corpus, annotator: Reader, emit: Emit) -> Parts:
    """Every decision of the loop, bound to its settings."""
    task = annotator.prompt.task
    if config.cold_start.kind == "generated" and not annotator.capabilities.generation:
        raise Unfit(f"cold_start.kind generated: an LLM of kind {config.llm.kind} writes no texts")
    if _objective(config) == "freeal" and not config.data.rewording:
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
    shared = cache(partial(embedder, config, annotator.prompt, emit, annotator.ledger))
    texts = corpus.pool.texts
    demos = demonstrations(config, annotator.prompt, partial(annotator.ask, work=COLD_START), shared, emit)
    refine = refining(config, corpus.pool, annotator, demos, emit)
    own = calibrator(config, tuple(task.labels), lambda rows: shared().encode([texts[int(row)] for row in rows]))
    calibrate = understudied(config, own, corpus.pool, annotator, shared, emit)
    return Parts(
        query=partial(_query, config=config, annotator=annotator, pool=corpus.pool, rewriting=refine is not None),
        demos=demos,
        refine=refine or guidelines.unchanged,
        annotator=annotator,
        calibrate=calibrate,
        lessons=partial(beliefs.lessons, kind=config.targets),
        new_student=partial(new_student, config, task, shared, emit),
        filter=filters.each_decision(keep(config)),
        fuse=partial(
            _fuse,
            config=config,
            modest=config.fusion.modest and task.kind != "tokens",
            sharpen=_sharpens(config, annotator),
            shares=config.keeps_shares,
            verify=verifier(config, annotator, corpus.pool),
        ),
        believe=partial(_believe, config=config, task=task),
        stop=partial(_stop, config=config, annotator=annotator),
        measure=Scorekeeper(config, corpus, annotator, own),
        emit=emit,
    )


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
    config: Config, labels: Sequence[str], vectors: Callable[[IntArray], FloatArray] | None = None
) -> Calibrator:
    """How a pass is calibrated; an LLM that gives mere words is not. `vectors` are those of rows of the pool."""
    settings = config.calibration
    if settings.prior is not None and settings.kind != "prior":
        raise ConfigError(f"calibration.prior is given, but calibration.kind is {settings.kind}; set it to prior")
    if settings.kind == "prior":
        return Calibrator("prior", settings.passes, stated_prior(settings.prior, labels), sober=settings.sober)
    least = config.stop.min_information
    return Calibrator(settings.kind, settings.passes, vectors=vectors, min_information=least, sober=settings.sober)


def understudied(
    config: Config, calibrate: Calibrator, pool: Pool, annotator: Reader, vectors: Callable[[], Embedder], emit: Emit
) -> Calibrator | Understudy:
    """How a pass is calibrated; with an understudy, where a later round could be asked for and the LLM can write."""
    from freeal.student.linear import LinearStudent

    task, rescue = annotator.prompt.task, config.cold_start.rescue
    able = task.kind == "classification" and annotator.capabilities.generation
    if not able or not rescue or not config.learns or config.rounds == 1 or calibrate.kind != "estimated":
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


def stated_prior(prior: Mapping[str, float] | None, labels: Sequence[str]) -> FloatArray:
    """(k,) the shares of `calibration.prior`, made to add up to one."""
    if prior is None or set(prior) != set(labels) or min(prior.values()) < 0 or sum(prior.values()) <= 0:
        raise ConfigError(f"calibration.prior: expected a share of 0 or more for each of {', '.join(labels)}")
    shares = np.array([prior[label] for label in labels], np.float64)
    even: FloatArray = shares / shares.sum()
    return even


def keep(config: Config) -> Keep:
    """Which labels are believed by their losses."""
    match config.filter.kind:
        case "gmm":
            return partial(filters.small_loss_gmm, threshold=config.filter.threshold)
        case "quantile":
            return partial(filters.small_loss_quantile, share=config.filter.share)
        case "none":
            return filters.believe_all


def _query(state: LoopState, config: Config, annotator: Reader, pool: Pool, rewriting: bool = False) -> IntArray:
    n, k = len(state.posterior), len(annotator.prompt.labels)
    limit = int(np.ceil(config.query.share * n))
    if state.next_round == 0:
        limit = queries.scouted(n, k, config.query.scout, config.asking_rounds)
    left = _left(state.next_round, config, annotator)
    if left is not None and state.next_round == 0 and isinstance(annotator, Candidates) and annotator.lexicon:
        left -= annotator.lexicon.calls
    if left is not None:
        aside = guidelines.most_calls(annotator.calls_a_row) if rewriting and state.next_round else 0
        left -= aside if guidelines.affordable(aside, left) else 0
        limit = min(limit, left // annotator.calls_a_row)
        if limit <= 0 and state.next_round == 0:
            raise BudgetError(f"stop.max_calls: all {config.stop.max_calls:,} were spent before any row was asked")
    rng = np.random.default_rng([config.seed, 3, state.next_round])
    words = np.array([1 + len(text.split()) for text in pool.texts])  # what all prompts share is read once
    return queries.query(state, config.query.kind, max(0, limit), rng, words, config.query.min_gain)


def _left(number: int, config: Config, annotator: Reader) -> int | None:
    """Calls that may be made from round `number` on, the rewriting of meanings before it among them; None: any."""
    if config.stop.max_calls is None:
        return None
    return config.stop.max_calls - _spent(annotator, number, config.stop.count_reused)


def _spent(annotator: Reader, number: int, count_reused: bool) -> int:
    """Calls made before round `number`; those of an interrupted try of the round itself are not made again.

    With `count_reused` as many as a run alone would have made of the pool; the test, which is measuring, is left out.
    """
    works = [COLD_START, *(work for before in range(number) for work in works_of(before))]
    if count_reused:
        return annotator.ledger.usage(works, alone=True).calls
    works += [TEST] if number else []
    return annotator.ledger.usage(works).calls + annotator.ledger.in_doubt(works, under_way=False)


def _believe(annotations: Annotations, student: FloatArray, passed: BoolArray, config: Config, task: Task) -> BoolArray:
    if not config.learns:
        return passed & annotations.labelled
    if config.belief.kind == "confident":
        return beliefs.most_confident(annotations, student, config.belief.share, task.best, task.group)
    return beliefs.filtered(annotations, student, passed, task.best)


def _fuse(
    annotations: Annotations,
    student: FloatArray,
    believed: BoolArray,
    config: Config,
    modest: bool,
    sharpen: bool,
    shares: bool,
    verify: Verifier | None,
) -> FloatArray:
    if not config.learns:
        return annotations.proba  # where the LLM abstains, nobody has spoken
    if config.fusion.kind == "freeal":
        posterior = fusion.freeal(annotations, student, believed)
    else:
        weights = (config.fusion.llm, config.fusion.student)
        posterior = fusion.pooled(annotations.proba, student, weights, modest, shares)
        if sharpen and asked_again(annotations):
            posterior = fusion.sharpened(posterior, annotations.proba)
    return posterior if verify is None else verify(annotations, student, posterior)


def _sharpens(config: Config, annotator: Reader) -> bool:
    """Whether pooled labels become as sure as the LLM: where that gives probabilities, and later passes are sober."""
    sober = config.calibration.sober and config.calibration.kind != "none"
    told = annotator.capabilities.probabilities and annotator.prompt.task.kind != "tokens"
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


def _stop(state: LoopState, config: Config, annotator: Reader) -> str | None:
    calls = _spent(annotator, state.next_round, config.stop.count_reused)
    limits = config.stop
    least = min_information(config, annotator.prompt.task)
    taken_over = annotator.ledger.recall(understudy.FACT, alone=True) is not None
    return stopping.reason(state, limits.min_change, calls, limits.max_calls, least, taken_over)


def min_information(config: Config, task: Task) -> float:
    """What first answers must tell at least; of entities nothing: nearly all words are alike, and rightly so."""
    return 0.0 if task.kind == "tokens" else config.stop.min_information


def _objective(config: Config) -> str | None:
    """What the student minimises, if it is a fine-tuned encoder of texts."""
    return config.student.objective if isinstance(config.student, TransformerConfig) else None
