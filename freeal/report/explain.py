"""The whole history of one row: what was asked and shown, what everybody said, and why its label is what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from freeal import candidates, guidelines, verification
from freeal.ledger import FILE, MEMBER, Ledger, Unread
from freeal.llm import Message, Reply, Request
from freeal.prompts import Prompt
from freeal.report.history import History
from freeal.select.reasons import mute, reasons, sources
from freeal.tasks.grounding import ground
from freeal.tasks.tokens import NONE
from freeal.types import Annotations, FloatArray, LoopState, surest

Said = Mapping[str, float]
"""Label -> probability, the most probable first; empty where nobody spoke. Of entities one for all of them."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request about the row: the work it belongs to, the chat as sent, and the reply as it was read.

    `about`: which label it asks about, or which words of the text; None where there is one question a row. `left_out`:
    what it names that is no entity of the text as it stands, and why, in lists of entities.
    """

    work: str
    about: str | None
    messages: Sequence[tuple[str, str]]
    reply: str | None
    problem: str | None
    left_out: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """What a round made of the row. `loss` is in nats, None where no student learned from the row."""

    number: int
    asked: bool
    llm: Said
    student: Said
    final: Said
    loss: float | None
    p_clean: float
    clean: bool
    label: str | None
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The row is in the demonstration pool of `round`, with this label.

    `shown`: a question of the next round was shown it; None where an earlier freeal did not keep what was.
    """

    round: int
    label: str
    shown: bool | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A row's history; `first` is the LLM's word of its first pass, `demonstrates` tells where it was chosen to.

    `disputed`: the rounds before which the LLM, to say anew what the labels mean, was told its text as one on which
    annotators differ. `speaker`: who says what `Round.llm` has, the LLM or its understudy. `first_is_raw`: that word is
    as it was said; that of judged candidates is calibrated.
    """

    id: str
    text: str | None
    first: Said
    rounds: Sequence[Round]
    questions: Sequence[Question]
    demonstrates: Sequence[Chosen]
    result: int
    """Place of the round whose labels are the run's."""
    speaker: str = "LLM"
    disputed: Sequence[int] = ()
    first_is_raw: bool = True


def explain(run: History, uid: str) -> Explanation:
    """What `run` knows of the row with the id `uid`.

    Raises:
        RunError: there is no such row.
    """
    row = run.row_of(uid)
    rounds = [_round(run, number, state, row) for number, state in enumerate(run.states)]
    with Ledger(run.folder / FILE, read_only=True) as ledger:
        asked, disputed = _asked(run, ledger, uid), _disputed(run, ledger, row)
    asking = _asking(run.prompt)
    questions = [
        Question(
            work, _about(asking, request.messages), [(m.role, m.content) for m in request.messages],
            None if reply is None or isinstance(reply, Unread) else reply.text,
            None if reply is None or isinstance(reply, Unread) else reply.problem,
            _left_out(run, row, request, reply),
        )
        for work, request, reply in asked
    ]  # fmt: skip
    first = _said(run, run.states[0].annotations.first[row], row)
    return Explanation(
        uid, run.text(row), first, rounds, questions, _chosen(run, row), run.result, run.speaker, disputed,
        run.settings.get("reading", "written") == "written",
    )  # fmt: skip


def _asked(run: History, ledger: Ledger, uid: str) -> list[tuple[str, Request, Reply | Unread | None]]:
    """(work, request, what is kept of its reply), round by round; before one a row may be asked to compare meanings."""
    rounds = range(len(run.states) + 1)  # the last one may be under way
    works = [work for number in rounds for work in (*guidelines.works(number)[1:], f"round {number}")]
    place_of = {work: place for place, work in enumerate(works)}
    asked = [each for each in ledger.of_row(uid) if each[0].partition(MEMBER)[0] in place_of]
    return sorted(asked, key=lambda each: place_of[each[0].partition(MEMBER)[0]])


def _disputed(run: History, ledger: Ledger, row: int) -> list[int]:
    """See `Explanation`."""
    text = run.text(row)
    if text is None or not any(state.guidelines for state in run.states):
        return []
    chats = {work.partition(MEMBER)[0]: request.messages for work, request, _ in ledger.of_row("")}  # about no row
    works = [guidelines.works(number)[0] for number in range(len(run.states))]
    told = [guidelines.quotes(chats[work], text, run.labels) if work in chats else False for work in works]
    return [number for number, quoted in enumerate(told) if quoted]


def _chosen(run: History, row: int) -> list[Chosen]:
    """The demonstration pools that the row is in."""
    found = []
    for number, (state, shown) in enumerate(zip(run.states, [*run.shown[1:], {}], strict=True)):
        label = next((demo.label for demo in state.demos if demo.row == row), None)
        if label is not None:
            found.append(Chosen(number, label, None if shown is None else row in shown))
    return found


def _left_out(run: History, row: int, request: Request, reply: Reply | Unread | None) -> list[tuple[str, str]]:
    """(words, cause) of what a written list of entities names in vain."""
    text = run.text(row)
    if text is None or run.task.kind != "tokens" or request.choices or not isinstance(reply, Reply):
        return []
    return [(each.words, each.cause) for each in ground(reply.text, text, list(run.task.labels)).dropped]


def _asking(prompt: Prompt) -> list[Prompt]:
    """The prompts that ask several questions about a row."""
    if prompt.task.kind == "tokens":
        judging = [] if NONE in prompt.labels else [candidates.prompt_of(prompt)]
        return [verification.prompt(), *judging]
    return [prompt] if prompt.task.questions > 1 else []


def _about(asking: Sequence[Prompt], chat: Sequence[Message]) -> str | None:
    """See `Question`; of an entity that is asked about again also what it may be."""
    found = next((found for each in asking if (found := each.question_in(chat))), {})
    named = ("label",) if "label" in found else ("words", "about")
    return ", ".join(found[name] for name in named if name in found) or None


def _round(run: History, number: int, state: LoopState, row: int) -> Round:
    one = _only(state, row)
    alone, loss = bool(mute(one.student)[0]), float(state.loss[row])
    return Round(
        number=number,
        asked=int(state.annotations.asked_in[row]) == number,
        llm=_said(run, state.annotations.proba[row], row),
        student={} if alone else _said(run, state.student[row], row),
        final=_said(run, state.posterior[row], row),
        loss=None if alone or np.isnan(loss) else loss,
        p_clean=float(state.p_clean[row]),
        clean=bool(state.clean[row]),
        label=_label(run, state.posterior[row], row),
        source=sources(one, run.task.best)[0],
        reason=reasons(one, run.task.best, run.speaker, run.decision)[0],
    )


def _only(state: LoopState, row: int) -> LoopState:
    """The state of this row alone."""
    said, at = state.annotations, slice(row, row + 1)
    alone = Annotations(said.first[at], said.proba[at], said.asked_in[at], said.problems[at])
    return LoopState(
        state.next_round, alone, state.posterior[at], state.student[at], state.p_clean[at], state.clean[at],
        state.loss[at],
    )  # fmt: skip


def _said(run: History, proba: FloatArray, row: int) -> Said:
    """Of entities what they come to together, and how sure the least sure of their words is."""
    if (whole := _label(run, proba, row)) is None:
        return {}
    if run.task.kind == "tokens":
        return {whole: float(surest(proba[None], run.task.best(proba[None]))[0])}
    of_labels = proba if proba.ndim == 1 else proba[:, 1]
    return {run.labels[c]: float(of_labels[c]) for c in np.argsort(-of_labels, kind="stable")}


def _label(run: History, proba: FloatArray, row: int) -> str | None:
    """What `proba` comes to, in one line; None for an abstention."""
    if np.isnan(proba).any():
        return None
    if run.task.kind == "tokens" and run.texts is None:
        return "(its words are told when the run has finished)"
    return "; ".join(run.task.write(run.text(row) or "", run.task.best(proba[None])[0]).splitlines())
