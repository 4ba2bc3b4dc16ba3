"""The figures of a round: its cost, how far LLM and student agree, and, where gold is known, who is how right."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from freeal import data, entity_metrics, guidelines, lexicon, metrics, taste, understudy
from freeal.annotator import Annotator
from freeal.candidates import Candidates
from freeal.config import Config
from freeal.demonstrations import WORK as COLD_START
from freeal.errors import BudgetError
from freeal.events import Note
from freeal.metrics import Gold, Score
from freeal.panel import Panel
from freeal.select import fusion, queries, rounds
from freeal.select.beliefs import agreeing
from freeal.select.calibration import Calibrator, Correction, Corrections
from freeal.select.panel import freed
from freeal.student import Student
from freeal.tasks import Task
from freeal.types import (
    Annotations,
    Answers,
    BoolArray,
    Demonstration,
    FloatArray,
    LoopState,
    Measured,
    Pool,
    spoken,
)

TEST = "test, zero-shot"
FIRST_ASKED = "rows of round 0"
"""Under this name the ledger remembers which rows of the pool the first round asked about."""

Reader = Annotator | Panel | Candidates


def works_of(number: int) -> list[str]:
    """What round `number` asks for, as the ledger names it."""
    return [
        f"round {number}",
        *guidelines.works(number),
        *([] if number else [understudy.WORK, lexicon.WORK, taste.WORK]),
    ]


def all_works_of(number: int) -> list[str]:
    """The same, with the demonstrations that the LLM wrote before the first round."""
    return [*works_of(number), *([] if number else [COLD_START])]


def works_before(number: int) -> list[str]:
    """What is asked for to label the pool before round `number`: in rounds, and before the first; not the test.

    Example:
        >>> works_before(0), set(works_before(2)) >= {"cold start", "round 0", "round 1"}
        (['cold start'], True)
    """
    return [COLD_START, *(work for before in range(number) for work in works_of(before))]


def score_of(task: Task) -> Score:
    """How labels are measured against gold."""
    match task.kind:
        case "classification":
            return metrics.scores
        case "multilabel":
            return partial(metrics.set_scores, tuple(task.labels))
        case "tokens":
            return entity_metrics.scores_of(task.classes, task.best)


@dataclass
class Scorekeeper:
    """The figures of a round: cost, agreement, and, where gold is known, how right everybody is."""

    config: Config
    corpus: data.Corpus
    annotator: Reader
    calibrate: Calibrator

    def __post_init__(self) -> None:
        self.task = self.annotator.prompt.task
        self.gold = Gold(self.corpus.gold, self.corpus.test_gold, score_of(self.task))
        self.started = time.perf_counter()
        self.test_answers: Answers | None = None

    def __call__(
        self, state: LoopState, student: Student, shown: Sequence[Sequence[Demonstration]], answers: Answers
    ) -> Measured:
        number = state.next_round - 1
        said, stand_in = state.annotations, self.annotator.ledger.recall(understudy.FACT, alone=True)
        asked, scouted = self._asked(said, number, stand_in is not None)
        pool = self.gold.on_pool(llm=said.proba, among=asked)
        pool |= self.gold.on_pool(student=state.student, final=state.posterior)
        if self.config.cold_start.kind == "none":
            pool = {**self.gold.on_pool(zero_shot=said.first, among=scouted), **pool}
        on_test = self._on_test(state, student, stand_in is not None)
        from_pool = _from_pool(shown)
        figures: dict[str, Any] = {
            "reading": self.config.reading,
            "asked": int((said.asked_in == number).sum()),
            "zero_shot_of": int(scouted.sum()),
            "labelled": int(said.labelled.sum()),
            "agreement": _share(said.labelled, agreeing(said, state.student, self.task.best)),
            "clean": float(state.clean.mean()),
            "demonstrations": len(state.demos),
            "wrong_demonstrations": self.gold.wrong_demonstrations(state.demos, self.task.write),
            "wrong_prompts": self.gold.wrong_prompts(shown, self.task.write),
            "upheld": rounds.upheld_share(from_pool, self._written(from_pool, state)),
            "alarms": list(answers.alarms),
            "dropped": dict(answers.dropped),
            "understudy": stand_in,
            "usage": asdict(self.annotator.ledger.usage(all_works_of(number))),
            "pool": _plain(pool),
            "test": _plain(self.gold.on_test(**on_test)),
        }
        if not self.config.learns:
            for place in ("pool", "test"):
                figures[place].pop("student", None)
            figures["agreement"] = None
        if isinstance(self.annotator, Panel):
            figures["members"] = self._members(self.annotator)
        figures["seconds"] = round(time.perf_counter() - self.started, 1)
        self.started = time.perf_counter()
        ids = [example.id for example in self.corpus.test.examples] if self.corpus.test and on_test else []
        return Measured(figures, on_test, ids, from_pool)

    def _written(self, rows: Iterable[int], state: LoopState) -> dict[int, str]:
        """The final labels of those of `rows` that have one, as they would be shown."""
        labelled = spoken(state.posterior)
        return {
            row: self.task.write(self.corpus.pool[row].text, self.task.best(state.posterior[[row]])[0])
            for row in rows if labelled[row]
        }  # fmt: skip

    def _members(self, panel: Panel) -> list[dict[str, Any]]:
        """Of each member its weight in the round's pass, and how right its answers were as they were pooled."""
        if (heard := panel.heard) is None:
            return []
        asked, found = heard.said[0].rows, []
        for name, said, bias, weight in zip(
            panel.names, heard.said, heard.known.biases, heard.known.weights, strict=True
        ):
            whole, among = np.full((len(self.corpus.pool), len(bias)), np.nan), np.zeros(len(self.corpus.pool), bool)
            whole[asked], among[asked] = freed(said, bias), True
            accuracy = self.gold.on_pool(member=whole, among=among)["member"].accuracy
            answered = float((~np.isnan(said.proba[:, 0])).mean())
            found.append({"name": name, "weight": round(float(weight), 4), "answered": answered, "accuracy": accuracy})
        return found

    def _asked(self, said: Annotations, number: int, taken_over: bool) -> tuple[BoolArray, BoolArray]:
        """(n,) rows that count for what the LLM said, and for what it said at first: all, unless that was a scout.

        Who has `taken_over` from it has spoken of all.
        """
        n, k = len(said.first), len(self.task.labels)
        if queries.scouted(n, k, self.config.query.scout, self.config.asking_rounds) == n:
            return np.ones(n, bool), np.ones(n, bool)
        return (said.asked_in >= 0) | taken_over, self._scouted(said, number)

    def _scouted(self, said: Annotations, number: int) -> BoolArray:
        """(n,) rows the first round asked about, answered or not: of those asked again no later state can tell.

        A run begun before the ledger remembered them knows those that were answered.
        """
        ledger = self.annotator.ledger
        if number == 0:
            ledger.remember(FIRST_ASKED, np.flatnonzero(said.asked_in == 0).tolist())
        rows = ledger.recall(FIRST_ASKED, alone=True)
        if not isinstance(rows, list):
            return spoken(said.first)
        scouted = np.zeros(len(said.first), bool)
        scouted[rows] = True
        return scouted

    def _on_test(self, state: LoopState, student: Student, taken_over: bool) -> dict[str, FloatArray]:
        """Who says what of the test, (t, k) each; an LLM that an understudy has `taken_over` from has no say there."""
        test = self.corpus.test
        if test is None or self.corpus.test_gold is None:
            return {}
        answers = None
        if self._may_ask(test):
            try:
                answers = self._read_test(test)  # before the student reads it: hidden states come along
            except BudgetError as error:  # measuring is no reason to lose a round
                self.annotator.emit(Note(f"the LLM is not asked about all of the test: {error}", TEST))
        read = student.view(test.inputs()).proba
        if answers is None:
            return {"student": read}
        calibrated = self._zero_shot_correction(state.annotations)(answers.proba, answers.scored)
        settings = self.config.fusion
        both = settings.kind == "log_linear" and not taken_over
        weights = (settings.llm, settings.student) if both else (0.0, 1.0)
        final = calibrated
        if self.config.learns:
            pool = (state.annotations.proba, state.student)
            bound = fusion.bound_of(settings, self.task) if both else "none"
            say = fusion.say(*pool, weights, bound, self.task.alike_by_nature)
            final = fusion.pooled(calibrated, read, say, both and self.config.keeps_shares, pool)
        return {"zero_shot": answers.proba, "llm": calibrated, "student": read, "final": final}

    def _may_ask(self, test: Pool) -> bool:
        """Whether the LLM is to read the test: wanted, not a recording of other rows, and within the budget.

        What is kept costs no call. It is as it was after the first round, also where the run has gone on since.
        """
        most, reader = self.config.stop.max_calls, self.annotator
        if not self.config.evaluation.llm_on_test or reader.capabilities.by_uid:
            return False
        if most is None or not (calls := reader.unasked(test, TEST)):
            return True
        return reader.ledger.usage([*works_before(1), TEST]).calls + calls <= most

    def _read_test(self, test: Pool) -> Answers:
        """The LLM's zero-shot answers on the test, asked once."""
        if self.test_answers is None:
            rows = np.arange(len(test))
            self.test_answers = self.annotator.annotate(test, rows, [()] * len(rows), TEST, all_or_none=True)
        return self.test_answers

    def _zero_shot_correction(self, said: Annotations) -> Correction | Corrections:
        """That of the pool's zero-shot pass: a test split estimates nothing, not even this."""
        k = said.first.shape[-1]
        scored = self.annotator.capabilities.probabilities and bool(self.task.answers)
        if self.config.cold_start.kind != "none" or not scored:
            return Correction(np.zeros(k))
        rows = np.flatnonzero(spoken(said.first))
        first = Answers(rows, said.first[rows], np.ones(len(rows), bool), (None,) * len(rows))
        return self.calibrate.correction(first, np.full_like(said.first, np.nan))


def _from_pool(shown: Sequence[Sequence[Demonstration]]) -> dict[int, str]:
    """Row of the pool -> its label, of every demonstration in `shown`; texts that the LLM wrote are no rows of it."""
    return dict(sorted({demo.row: demo.label for demos in shown for demo in demos if demo.row is not None}.items()))


def _share(among: BoolArray, true: BoolArray) -> float | None:
    return float(true[among].mean()) if among.any() else None


def _plain(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(found) for name, found in named.items()}
