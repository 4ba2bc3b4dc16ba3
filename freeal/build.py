"""Config -> the parts of a run; the only file that knows every class."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freeal import data, models, money, prompts
from freeal.annotator import Annotator
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
    TfidfConfig,
    TransformerConfig,
    VLLMConfig,
)
from freeal.demonstrations import WORK as COLD_START
from freeal.demonstrations import Demonstrations
from freeal.errors import BudgetError, ConfigError, RunError, WritesNothing
from freeal.events import Emit, Note
from freeal.ledger import FILE as LEDGER
from freeal.ledger import Ledger
from freeal.llm import LLM, Reply, Request
from freeal.metrics import Gold
from freeal.money import Account, Price, Purse
from freeal.panel import Panel
from freeal.pipeline import Parts
from freeal.prompts import Prompt
from freeal.select import beliefs, filters, fusion, queries, stopping
from freeal.select.calibration import Calibrator, Correction
from freeal.store import RunStore
from freeal.student import Keep, Student
from freeal.types import (
    Annotations,
    Answers,
    BoolArray,
    Demonstration,
    FloatArray,
    IntArray,
    LoopState,
    Measured,
    Pool,
    argmax,
)

if TYPE_CHECKING:
    from freeal.student.embedders import Embedder

TEST = "test, zero-shot"


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
        annotator = reader(config, prompt, ledger, emit)
        annotator.prepare()
        store = RunStore(folder, tuple(prompt.labels), tuple(example.id for example in corpus.pool.examples))
        return Job(config, prompt, corpus, parts(config, corpus, annotator, emit), store, ledger)
    except BaseException:
        ledger.close()
        raise


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def inputs(config: Config, prompt_file: Path) -> tuple[Prompt, data.Corpus]:
    """Prompt and data, checked against each other."""
    prompt = prompts.load(prompt_file)
    corpus = data.load(config.data, tuple(prompt.labels), config.seed)
    prompt.check_fields(corpus.pool)
    return prompt, corpus


Reader = Annotator | Panel


def reader(config: Config, prompt: Prompt, ledger: Ledger, emit: Emit) -> Reader:
    """Who reads the rows: one LLM, or several."""
    wanted = [config.llm, *config.panel]
    names = names_of(wanted)
    members = [
        Annotator(prompt, llm(each, prompt, config.seed, emit), ledger, emit, purse, name)
        for each, purse, name in zip(wanted, purses(config, ledger), [None, *names[1:]], strict=True)
    ]
    return Panel(members, names) if config.panel else members[0]


def names_of(llms: Sequence[LLMConfig]) -> list[str]:
    """A name for each: its model or kind, numbered where another has the same."""
    plain = [str(getattr(each, "model", each.kind)) for each in llms]
    return [
        name if plain.count(name) == 1 else f"{name} ({plain[: place + 1].count(name)})"
        for place, name in enumerate(plain)
    ]


def llm(wanted: LLMConfig, prompt: Prompt, seed: int, emit: Emit) -> LLM:
    """One LLM."""
    match wanted:
        case LocalConfig() as local:
            from freeal.llm.local import LocalLLM

            return LocalLLM(local, emit)
        case VLLMConfig() as engine:
            from freeal.llm.vllm_engine import VLLMEngine

            return VLLMEngine(engine, emit)
        case OpenAIConfig() as remote:
            from freeal.llm.openai_api import OpenAILLM

            return OpenAILLM(remote, emit)
        case RecordedConfig() as kept:
            from freeal.llm.recorded import RecordedLLM
            from freeal.llm.replayed import ReplayedLLM

            place = Path(kept.replies)
            if place.is_dir():
                return ReplayedLLM(place / LEDGER)
            return RecordedLLM.from_labels(place, kept.id, kept.label, prompt.replies)
        case ScriptedConfig() as script:
            from freeal.llm.scripted import ScriptedLLM

            return ScriptedLLM.from_config(script, tuple(prompt.labels), seed)


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
    to_come = isinstance(config.llm, OpenAIConfig) and config.llm.batch  # the answers of a batch are no lost calls
    calls = usage.calls + ledger.in_doubt(under_way=not to_come)
    account = Account(usage.cost + usage.doubt, calls)
    found = [
        Purse(price, *limits, each.votes if isinstance(each, OpenAIConfig) else 1, account)
        for price, each in zip(prices, llms, strict=True)
    ]
    for key, request in list(ledger.unanswered()):
        worst = max(purse.worst(request) for purse in found)
        if to_come:
            found[0].await_answer(worst)
        else:
            account.spent += worst
            ledger.failed(key, True, worst)
    ledger.settle()
    return found


def price_of(llm: LLMConfig) -> Price | None:
    """What the tokens of an LLM cost: as configured, or else as listed; nothing for what runs in this process."""
    if not isinstance(llm, OpenAIConfig):
        return Price(0.0, 0.0)
    if llm.price_in is not None and llm.price_out is not None:
        return Price(llm.price_in, llm.price_out)
    listed = money.price_of(llm.model)
    return listed.times(money.IN_A_BATCH) if listed and llm.batch else listed


def embedder(config: Config, emit: Emit) -> Embedder:
    """Who turns texts into vectors."""
    from freeal.student.embedders import EncoderEmbedder, RememberingEmbedder, TfidfEmbedder

    match config.embedder:
        case EncoderConfig() as encoder:
            return RememberingEmbedder(EncoderEmbedder(str(models.locate(encoder.model, emit))))
        case TfidfConfig() as tfidf:
            return TfidfEmbedder(tfidf.dimensions)


def new_student(
    config: Config, labels: Sequence[str], vectors: Callable[[], Embedder], emit: Emit, number: int
) -> Student:
    """Who learns in round `number`: a fresh one each round."""
    seed = int(np.random.default_rng([config.seed, 2, number]).integers(2**31))
    match config.student:
        case TransformerConfig() as transformer:
            from freeal.student.transformer import TransformerStudent

            student = TransformerStudent(transformer, labels, seed, str(models.locate(transformer.model, emit)), emit)
            if transformer.judge == "none":
                return student
            from freeal.student.judged import JudgedStudent
            from freeal.student.linear import LinearStudent

            judge = LinearStudent(LinearConfig(), labels, seed, vectors())
            return JudgedStudent(student, judge, transformer.objective == "coteaching")
        case LinearConfig() as linear:
            from freeal.student.linear import LinearStudent

            return LinearStudent(linear, labels, seed, vectors())
        case NoStudentConfig():
            from freeal.student.uniform import UniformStudent

            return UniformStudent(len(labels))


def load_student(config: Config, folder: Path, emit: Emit) -> Student:
    """The student that a round kept in `folder`."""
    match config.student:
        case TransformerConfig():
            from freeal.student import transformer

            return transformer.load(folder)
        case LinearConfig():
            from freeal.student import linear

            return linear.load(folder, embedder(config, emit))
        case NoStudentConfig():
            raise ConfigError("this run trained no student (student.kind is none)")


def parts(config: Config, corpus: data.Corpus, annotator: Reader, emit: Emit) -> Parts:
    """Every decision of the loop, bound to its settings."""
    labels = tuple(annotator.prompt.labels)
    if config.cold_start.kind == "generated" and not annotator.capabilities.generation:
        raise WritesNothing(f"cold_start.kind generated: an LLM of kind {config.llm.kind} writes no texts")
    robust = isinstance(config.student, TransformerConfig) and config.student.objective == "freeal"
    if robust and not config.data.rewording:
        emit(Note("no data.rewording: texts are augmented by dropping and swapping words", "student"))
    shared = cache(partial(embedder, config, emit))
    calibrate = calibrator(config, labels, lambda rows: shared().encode([corpus.pool[int(row)].text for row in rows]))
    return Parts(
        query=partial(_query, config=config, annotator=annotator, pool=corpus.pool),
        demos=demonstrations(config, annotator.prompt, partial(annotator.ask, work=COLD_START), shared, emit),
        annotator=annotator,
        calibrate=calibrate,
        lessons=partial(beliefs.lessons, kind=config.targets),
        new_student=partial(new_student, config, labels, shared, emit),
        filter=keep(config),
        fuse=partial(_fuse, config=config),
        believe=partial(_believe, config=config),
        stop=partial(_stop, config=config, annotator=annotator),
        measure=Scorekeeper(config, corpus, annotator, calibrate),
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
    return Demonstrations(config.demos, config.cold_start, prompt.labels, ask, vectors, config.seed, emit)


def calibrator(
    config: Config, labels: Sequence[str], vectors: Callable[[IntArray], FloatArray] | None = None
) -> Calibrator:
    """How a pass is calibrated; an LLM that gives mere words is not. `vectors` are those of rows of the pool."""
    settings = config.calibration
    if settings.prior is not None and settings.kind != "prior":
        raise ConfigError(f"calibration.prior is given, but calibration.kind is {settings.kind}; set it to prior")
    if settings.kind == "prior":
        return Calibrator("prior", settings.passes, stated_prior(settings.prior, labels))
    return Calibrator(settings.kind, settings.passes, vectors=vectors, min_information=config.stop.min_information)


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


def _query(state: LoopState, config: Config, annotator: Reader, pool: Pool) -> IntArray:
    n = len(state.posterior)
    k = state.posterior.shape[1]
    limit = int(np.ceil(config.query.share * n))
    if state.next_round == 0:
        limit = queries.scouted(n, k, config.query.scout, config.rounds)
    if config.stop.max_calls is not None:
        left = config.stop.max_calls - _spent(annotator, state.next_round, config.stop.count_reused)
        limit = min(limit, left // annotator.calls_a_row)
        if limit <= 0 and state.next_round == 0:
            raise BudgetError(f"stop.max_calls: all {config.stop.max_calls:,} were spent before any row was asked")
    rng = np.random.default_rng([config.seed, 3, state.next_round])
    words = np.array([1 + len(text.split()) for text in pool.texts])  # what all prompts share is read once
    return queries.query(state, config.query.kind, max(0, limit), rng, words, config.query.min_gain)


def _spent(annotator: Reader, number: int, count_reused: bool) -> int:
    """Calls made before round `number`; those of an interrupted try of the round itself are not made again.

    With `count_reused` as many as a run alone would have made of the pool; the test, which is measuring, is left out.
    """
    works = [COLD_START, *(f"round {before}" for before in range(number))]
    if count_reused:
        return annotator.ledger.usage(works, alone=True).calls
    works += [TEST] if number else []
    return annotator.ledger.usage(works).calls + annotator.ledger.in_doubt(works, under_way=False)


def _believe(annotations: Annotations, student: FloatArray, passed: BoolArray, config: Config) -> BoolArray:
    if _is_uniform(config):
        return passed & annotations.labelled
    if config.belief.kind == "confident":
        return beliefs.most_confident(annotations, student, config.belief.share)
    return beliefs.filtered(annotations, student, passed)


def _fuse(annotations: Annotations, student: FloatArray, believed: BoolArray, config: Config) -> FloatArray:
    if _is_uniform(config):
        return annotations.proba  # where the LLM abstains, nobody has spoken
    if config.fusion.kind == "freeal":
        return fusion.freeal(annotations, student, believed)
    return fusion.log_linear(annotations.proba, student, config.fusion.llm, config.fusion.student)


def _stop(state: LoopState, config: Config, annotator: Reader) -> str | None:
    calls = _spent(annotator, state.next_round, config.stop.count_reused)
    limits = config.stop
    return stopping.reason(state, limits.min_change, calls, limits.max_calls, limits.min_information)


@dataclass
class Scorekeeper:
    """The figures of a round: cost, agreement, and, where gold is known, how right everybody is."""

    config: Config
    corpus: data.Corpus
    annotator: Reader
    calibrate: Calibrator

    def __post_init__(self) -> None:
        self.gold = Gold(self.corpus.gold, self.corpus.test_gold)
        self.started = time.perf_counter()
        self.test_answers: Answers | None = None

    def __call__(self, state: LoopState, student: Student, shown: Sequence[Sequence[Demonstration]]) -> Measured:
        number = state.next_round - 1
        works = [f"round {number}", *([COLD_START] if number == 0 else [])]
        said = state.annotations
        asked, scouted = self._asked(said)
        pool = self.gold.on_pool(llm=said.proba, among=asked)
        pool |= self.gold.on_pool(student=state.student, final=state.posterior)
        if self.config.cold_start.kind == "none":
            pool = {**self.gold.on_pool(zero_shot=said.first, among=scouted), **pool}
        on_test = self._on_test(state, student)
        figures: dict[str, Any] = {
            "asked": int((said.asked_in == number).sum()),
            "labelled": int(said.labelled.sum()),
            "agreement": _share(said.labelled, said.labels == argmax(state.student)),
            "clean": float(state.clean.mean()),
            "demonstrations": len(state.demos),
            "wrong_demonstrations": self.gold.wrong_demonstrations(*self._places(state.demos)),
            "wrong_prompts": self.gold.wrong_prompts([self._places(demos) for demos in shown]),
            "usage": asdict(self.annotator.ledger.usage(works)),
            "pool": _plain(pool),
            "test": _plain(self.gold.on_test(**on_test)),
        }
        if _is_uniform(self.config):
            for place in ("pool", "test"):
                figures[place].pop("student", None)
            figures["agreement"] = None
        figures["seconds"] = round(time.perf_counter() - self.started, 1)
        self.started = time.perf_counter()
        ids = [example.id for example in self.corpus.test.examples] if self.corpus.test and on_test else []
        return Measured(figures, on_test, ids)

    def _places(self, demos: Sequence[Demonstration]) -> tuple[list[int | None], list[int]]:
        """Row and class of each demonstration."""
        return [demo.row for demo in demos], [list(self.annotator.prompt.labels).index(demo.label) for demo in demos]

    def _asked(self, said: Annotations) -> tuple[BoolArray, BoolArray]:
        """(n,) rows that count for what the LLM said, and for what it said at first: all, unless that was a scout."""
        n, k = said.first.shape
        if queries.scouted(n, k, self.config.query.scout, self.config.rounds) == n:
            return np.ones(n, bool), np.ones(n, bool)
        return said.asked_in >= 0, ~np.isnan(said.first[:, 0])

    def _on_test(self, state: LoopState, student: Student) -> dict[str, FloatArray]:
        """Who says what of the test, (t, k) each."""
        test = self.corpus.test
        if test is None or self.corpus.test_gold is None:
            return {}
        read = student.view(test.inputs()).proba
        if not self._may_ask(test):
            return {"student": read}
        try:
            answers = self._read_test(test)
        except BudgetError as error:  # measuring is no reason to lose a round
            self.annotator.emit(Note(f"the LLM is not asked about all of the test: {error}", TEST))
            return {"student": read}
        calibrated = self._zero_shot_correction(state.annotations)(answers.proba, answers.scored)
        settings = self.config.fusion
        weights = (settings.llm, settings.student) if settings.kind == "log_linear" else (0.0, 1.0)
        final = calibrated if _is_uniform(self.config) else fusion.log_linear(calibrated, read, *weights)
        return {"zero_shot": answers.proba, "llm": calibrated, "student": read, "final": final}

    def _may_ask(self, test: Pool) -> bool:
        """Whether the LLM is to read the test: wanted, not a recording of other rows, and within the budget."""
        most, reader = self.config.stop.max_calls, self.annotator
        spent = self.annotator.ledger.usage([COLD_START, "round 0"]).calls
        fits = most is None or spent + reader.calls_a_row * len(set(test.texts)) <= most
        return self.config.evaluation.llm_on_test and not reader.capabilities.by_uid and fits

    def _read_test(self, test: Pool) -> Answers:
        """The LLM's zero-shot answers on the test, asked once."""
        if self.test_answers is None:
            rows = np.arange(len(test))
            self.test_answers = self.annotator.annotate(test, rows, [()] * len(rows), TEST, all_or_none=True)
        return self.test_answers

    def _zero_shot_correction(self, said: Annotations) -> Correction:
        """That of the pool's zero-shot pass: a test split estimates nothing, not even this."""
        k = said.first.shape[1]
        if self.config.cold_start.kind != "none" or not self.annotator.capabilities.probabilities:
            return Correction(np.zeros(k))
        rows = np.flatnonzero(~np.isnan(said.first[:, 0]))
        first = Answers(rows, said.first[rows], np.ones(len(rows), bool), (None,) * len(rows))
        return self.calibrate.correction(first, np.full_like(said.first, np.nan))


def _share(among: BoolArray, true: BoolArray) -> float | None:
    return float(true[among].mean()) if among.any() else None


def _plain(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(found) for name, found in named.items()}


def _is_uniform(config: Config) -> bool:
    return isinstance(config.student, NoStudentConfig)
