"""Prompt and LLM together: rows in, distributions out, every reply kept before it is read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np

from freeal.errors import BudgetError, CallsSpent, Unreadable
from freeal.events import Emit, Note, Progress
from freeal.ledger import MEMBER, WAYS, Entry, Ledger, Unread, key_of, question_of
from freeal.llm import LLM, Capabilities, Message, Reply, Request
from freeal.money import Purse
from freeal.prompts import Prompt
from freeal.select import habits
from freeal.select.habits import Named
from freeal.tasks import Said
from freeal.types import NO_CALL, PROBABILITY, Answers, Demonstration, Example, FloatArray, IntArray, LoopState, Pool

FEWEST_WORDS = 8
"""A text too long for the LLM is cut in halves down to this many words."""

TOLD_EVERY = 0.2
"""Seconds between two words of progress."""

NO_REPLY = Reply()


@dataclass(slots=True)
class Trial:
    """Whether an LLM names labels at all: of its first answers one must, before more are paid for."""

    passed: bool = False
    in_vain: int = 0

    def take(self, problems: Sequence[str | None], wanted: int, who: str) -> None:
        """Look at the problems, if any, of further answers of `who`.

        Raises:
            Unreadable: all of the first `wanted` have one.
        """
        self.passed = self.passed or None in problems
        self.in_vain += len(problems)
        if not self.passed and self.in_vain >= wanted:
            raise Unreadable(
                f"{who}: none of the first {self.in_vain} replies names a label (the last: {problems[-1]}); they are "
                "kept, and no more are asked for. Does the prompt say what to reply, and is there room for thoughts, "
                "if the model has any (llm.reply_tokens)?"
            )


@dataclass(frozen=True, slots=True)
class Annotator:
    """Asks `llm` about rows of a pool through `prompt`; replies go to `ledger`, progress to `emit`."""

    prompt: Prompt
    llm: LLM
    ledger: Ledger
    emit: Emit
    purse: Purse = field(default_factory=Purse)
    name: str | None = None
    """Of its LLM, where a panel has several; None for the first, or only, one."""
    unit: str = "rows"
    """What the rows of its pools are, to be told."""
    states: bool = False
    """Whether the LLM's hidden states of rows are wanted that are asked about without demonstrations."""
    trial: Trial = field(default_factory=Trial)

    @property
    def capabilities(self) -> Capabilities:
        return self.llm.capabilities

    @property
    def calls_a_row(self) -> int:
        return self.prompt.task.questions

    def prepare(self) -> Annotator:
        """Let the LLM find out what it needs to know; a run that is resumed keeps to what was found at its start.

        Returns:
            The annotator that asks so: for JSON, if the LLM can be held to it and the task has such a form.
        """
        ways = f"{WAYS}{MEMBER}{self.name}" if self.name else WAYS
        known = self.ledger.recall(ways)
        found = self.llm.prepare(known if isinstance(known, dict) else None)
        if found:  # also if it was known from another run, or has to be other than there
            self.ledger.remember(ways, found)
        return replace(self, prompt=self.prompt.in_json()) if self.capabilities.structured else self

    def told(self, meanings: Mapping[str, str] | None) -> Annotator:
        """The same, but what the labels mean is told in other words; None: as the prompt has it."""
        return self if meanings is None else replace(self, prompt=self.prompt.with_meanings(meanings))

    def after(self, state: LoopState) -> Annotator:
        """The same, for the round that begins with `state`."""
        return self.told(state.meanings)

    def unasked(self, pool: Pool, work: str) -> int:
        """Calls that `annotate` has to make at first for all rows of `pool`, shown nothing: those without a kept reply.

        Args:
            work: as in `annotate`.
        """
        identity, by_uid = self.llm.identity, self.llm.capabilities.by_uid
        questions = range(self.prompt.task.questions)
        requests = (self.prompt.request(example, (), each) for example in pool.examples for each in questions)
        keys = {key_of(identity, question_of(self.roomy(request), by_uid)) for request in requests}
        return sum(not self.ledger.has(key) for key in keys)

    def annotate(
        self,
        pool: Pool,
        rows: IntArray,
        shown: Sequence[Sequence[Demonstration]],
        work: str,
        all_or_none: bool = False,
    ) -> Answers:
        """What the LLM says of `rows`, each shown with its demonstrations; an unreadable reply abstains.

        Rows with the same demonstrations are asked one after the other, so that their common prefix is read once,
        in chunks that depend on the question alone. A row that is too long is asked with fewer demonstrations, and
        then in part; one whose reply names no label is asked again, where that may help. When the calls allowed are
        made, the rows that are left stay without an answer.

        Raises:
            BudgetError: the money allowed is spent; with `all_or_none`, also if only the calls are.
            Unreadable: none of the first answers names a label (`Capabilities.trial`).
        """
        questions, shape = self.prompt.task.questions, self.prompt.task.shape(pool.texts)
        proba = np.full((len(rows), *shape), np.nan, PROBABILITY)
        scored, problems = np.zeros(len(rows), bool), np.full(len(rows), None, object)
        order = _by_demonstrations(rows, shown)
        done, shortened, unread = 0, 0, 0
        dropped: Counter[str] = Counter()
        named: list[Named] = []
        while done < len(order):
            places = order[done : done + self._together()]
            tries = [
                _Try(pool[int(rows[i])], tuple(shown[i]), self.llm.capabilities.reasks, question)
                for i in places for question in range(questions)
            ]  # fmt: skip
            self._ask_until_read(tries, work, done, len(rows), all_or_none)
            self._look_at(tries)
            for place, i in enumerate(places):
                of_row = tries[place * questions : (place + 1) * questions]
                read = [self._read(each) for each in of_row]
                proba[i], scored[i], problems[i] = self._row(read, pool[int(rows[i])].text, shape, dropped)
                named += self._named(of_row, [said for said, _ in read])
                unread += sum(said.proba is None for said, _ in read) if problems[i] is None else 0
            shortened += sum(tried.shortened for tried in tries)
            done += len(places)
            self.emit(Progress(work, done, len(rows), self.unit))
        if shortened:
            self.emit(Note(f"{shortened} {self.unit} were too long: asked with fewer demonstrations or cut", work))
        if unread:
            told = f"{unread} of {len(rows) * questions} questions got no answer, where others about their rows did"
            self.emit(Note(told, work))
        if dropped:
            told = ", ".join(f"{count} × {cause}" for cause, count in dropped.most_common())
            self.emit(Note(f"of what the LLM named, this was left out: {told}", work))
        self._tell(problems.tolist(), work)
        alarms = habits.alarms(named, questions if self.prompt.task.answers else None)
        for alarm in alarms:
            self.emit(Note(alarm, work))
        return Answers(np.asarray(rows), proba, scored, tuple(problems), tuple(alarms), dict(dropped.most_common()))

    def replies(self, requests: Sequence[Request], work: str, tick: _Tick | None = None) -> list[Reply]:
        """Kept replies where there are any; the others are asked for, each question once, and kept."""
        requests = list(map(self.roomy, requests))
        by_uid = self.llm.capabilities.by_uid
        identity = self.llm.identity
        keys = [key_of(identity, question_of(request, by_uid)) for request in requests]
        known: dict[str, Reply] = {}
        missing: dict[str, Entry] = {}
        for key, request in zip(keys, requests, strict=True):
            if key not in known and key not in missing:
                found = self.ledger.find(key, work)
                if found is None:
                    missing[key] = Entry.of(key, work, request)
                else:
                    known[key] = self._understood(key, found, request)
        self.ledger.note_rows(work, ((request.uid, key) for request, key in zip(requests, keys, strict=True)))
        if missing:
            if tick:
                tick.done += len(keys) - len(missing)
            known |= self._ask(missing, tick)
        self.ledger.settle()
        return [known[key] for key in keys]

    def roomy(self, request: Request) -> Request:
        """The request with as much room for its reply as the LLM needs."""
        room = self.llm.capabilities.room
        return request if request.max_tokens >= room else replace(request, max_tokens=room)

    def _kept(self, requests: Sequence[Request], work: str) -> list[Reply | None]:
        """Of each request, as `replies` puts it, the reply there is, without asking."""
        requests = list(map(self.roomy, requests))
        identity, by_uid = self.llm.identity, self.llm.capabilities.by_uid
        keys = [key_of(identity, question_of(request, by_uid)) for request in requests]
        found = [self.ledger.find(key, work) for key in keys]
        return [
            None if each is None else self._understood(key, each, request)
            for key, each, request in zip(keys, found, requests, strict=True)
        ]

    def ask(self, requests: Sequence[Request], work: str) -> list[Reply]:
        """`replies` to any number of requests, a chunk at a time."""
        size, replies = self.llm.capabilities.chunk, []
        for start in range(0, len(requests), size):
            tick = _Tick(self.emit, work, start, len(requests), "requests")
            replies += self.replies(requests[start : start + size], work, tick)
            self.emit(Progress(work, len(replies), len(requests), "requests"))
        return replies

    def _together(self) -> int:
        """Rows to ask about in one go: few, until one is known to be answered with a label."""
        able = self.llm.capabilities
        calls = able.trial if able.trial and not self.trial.passed else able.chunk
        return max(1, calls // self.calls_a_row)

    def _look_at(self, tries: Sequence[_Try]) -> None:
        """Unreadable, if this LLM's first answers name no label; what it did not answer for tells nothing."""
        wanted = self.llm.capabilities.trial
        if not wanted or self.trial.passed:
            return
        if answered := [tried for tried in tries if tried.reply.tokens_in]:
            problems = [self._read(tried)[0].problem for tried in answered]
            self.trial.take(problems, wanted, str(self.llm.identity.get("model", "the LLM")))

    def _ask_until_read(self, tries: Sequence[_Try], work: str, done: int, total: int, all_or_none: bool) -> None:
        """Ask all of `tries`, and again those that another wording of the question may help."""
        asked, tick = list(tries), _Tick(self.emit, work, done, total, self.unit)
        while asked:
            requests = [tried.request(self) for tried in asked]
            try:
                replies = self.replies(requests, work, tick if asked[0].reply is NO_REPLY else None)
            except BudgetError as error:
                if asked[0].reply is not NO_REPLY:  # a second try is not worth the whole run
                    for tried, second in zip(asked, self._kept(requests, work), strict=True):
                        tried.reply = second or tried.reply
                    return
                if all_or_none or not isinstance(error, CallsSpent):
                    raise
                for tried, reply in zip(asked, self._kept(requests, work), strict=True):
                    tried.reply = reply or Reply(problem=NO_CALL)
                return
            for tried, reply in zip(asked, replies, strict=True):
                tried.take(reply, self._said(reply, tried.example.text)[0].problem)
            asked = [tried for tried in asked if tried.again]

    def _ask(self, missing: dict[str, Entry], tick: _Tick | None) -> dict[str, Reply]:
        started = time.perf_counter()
        journal = _Journal(self, list(missing.values()), tick)
        try:
            fresh = self.llm.complete([entry.request for entry in missing.values()], journal)
        finally:
            self.ledger.settle()
        answered = dict(zip(missing, fresh, strict=True))
        # what the journal was not told of was computed here; of the rest, a refusal that lasts is an answer, too
        own = [(missing[k], reply) for k, reply in answered.items() if k not in journal.told or reply.problem]
        if lasting := [(entry, reply) for entry, reply in own if not _passing(reply)]:
            self.ledger.keep(lasting, time.perf_counter() - started)
        return answered

    def _understood(self, key: str, found: Reply | Unread, request: Request) -> Reply:
        """A kept reply, read now if the process that received it could not."""
        if isinstance(found, Reply):
            return found
        reply = self.llm.read(found.raw, request)
        self.ledger.read(key, reply, 0.0 if found.reused else self.purse.pay(reply))
        return reply

    def _read(self, tried: _Try) -> tuple[Said, bool]:
        """What came of one question, and whether it is more than a word."""
        return self._said(tried.reply, tried.example.text)

    def _said(self, reply: Reply, text: str) -> tuple[Said, bool]:
        if reply.problem or reply.logprobs is None:
            return self.prompt.read(reply, text), False
        logprobs = np.array(reply.logprobs, np.float64)
        if np.isnan(logprobs).any() or np.isneginf(logprobs).all():
            return Said(None, "no label has a probability"), False
        task = self.prompt.task
        weights = np.bincount(task.owners, np.exp(logprobs - logprobs.max()), minlength=len(task.classes))
        return Said((weights / weights.sum()).astype(PROBABILITY)), True

    def _row(
        self, answers: Sequence[tuple[Said, bool]], text: str, shape: tuple[int, ...], dropped: Counter[str]
    ) -> tuple[FloatArray, bool, str | None]:
        """The distributions of a row, whether they are more than words, and why they are NaN if they are.

        Of words that were left out of the question nothing is known: every class of theirs is as likely. Nor is it of a
        label that the row was asked about in vain, if there was an answer about another.
        """
        for said, _ in answers:
            dropped.update(said.dropped)
        problem = next((said.problem for said, _ in answers if said.proba is None), None)
        found = [said.proba for said, _ in answers if said.proba is not None]
        if not found:
            return np.full(shape, np.nan, PROBABILITY), False, problem
        nothing = np.full(shape[-1], 1.0 / shape[-1])
        whole = np.zeros(shape, PROBABILITY)
        whole[..., 0] = 1.0  # behind the last word of a text
        given = found[0]
        if given.ndim < len(shape):
            given = np.stack([nothing if said.proba is None else said.proba for said, _ in answers])
        whole[: self.prompt.task.shape((text,))[0]] = nothing
        whole[: len(given)] = given
        return whole, all(scored for said, scored in answers if said.proba is not None), None

    def _named(self, tries: Sequence[_Try], answers: Sequence[Said]) -> list[Named]:
        """What the replies to a row's questions named; nothing where one was not read, or gave probabilities."""
        if any(said.named is None for said in answers):
            return []
        words = tuple(each for said in answers for each in said.named or ())
        return [Named(words, any(map(self._copied, tries, answers)))]

    def _copied(self, tried: _Try, said: Said) -> bool:
        """Whether the reply names entities of a demonstration that the text does not have."""
        heard = self.prompt.task.heard
        return bool(said.invented) and any(
            not set(said.invented).isdisjoint(heard(demo.label, demo.text).named or ()) for demo in tried.shown
        )

    def _tell(self, problems: Sequence[str | None], work: str) -> None:
        kinds = Counter(problem.partition(":")[0] for problem in problems if problem)
        if kinds:
            told = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(3))
            self.emit(Note(f"{sum(kinds.values())} of {len(problems)} {self.unit} got no label: {told}", work))


@dataclass(slots=True)
class _Try:
    """One row on its way to a reply that can be read: what it is shown, and what is left to be tried."""

    example: Example
    shown: tuple[Demonstration, ...]
    reasks: int
    question: int = 0
    reply: Reply = NO_REPLY
    again: bool = False
    shortened: bool = False
    _correction: tuple[Message, ...] = ()
    _more_tokens: bool = False

    def request(self, annotator: Annotator) -> Request:
        request = annotator.roomy(annotator.prompt.request(self.example, self.shown, self.question))
        request = replace(request, state=annotator.states and not self.shown)
        if self._more_tokens:
            request = replace(request, max_tokens=4 * request.max_tokens)
        if self._correction:
            order = Message("user", annotator.prompt.task.correction(annotator.prompt.replies))
            request = replace(request, messages=(*request.messages, *self._correction, order))
        return request

    def take(self, reply: Reply, problem: str | None) -> None:
        """Note `reply`, and whether another question may do better than its `problem`."""
        self.reply, self.again = reply, False
        kind = (problem or "").partition(":")[0]
        if kind in _TOO_LONG:
            self._shorten()
        elif kind == "cut off" and not self._more_tokens:
            self._more_tokens = self.again = True
        elif kind in _UNREADABLE and self.reasks:
            said = (reply.text or "").strip() or "(nothing)"
            self._correction, self.reasks, self.again = (Message("assistant", said),), self.reasks - 1, True

    def _shorten(self) -> None:
        """First fewer demonstrations, the last ones first; then the first half of the text."""
        words = self.example.text.split()
        if self.shown:
            self.shown = self.shown[: len(self.shown) // 2]
        elif len(words) > FEWEST_WORDS:
            self.example = replace(self.example, text=" ".join(words[: len(words) // 2]))
        else:
            return
        self.again = self.shortened = True


_TOO_LONG = ("too long", "not asked")
_UNREADABLE = ("not a label", "not a list of entities", "nothing that was named can be kept", "empty reply")


@dataclass(slots=True)
class _Tick:
    """Tells of replies as they come, a few times a second."""

    emit: Emit
    work: str
    done: int
    total: int
    unit: str = "rows"
    _told: float = 0.0

    def __call__(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self.done < self.total and now - self._told >= TOLD_EVERY:  # the last word is that of who asked
            self._told = now
            self.emit(Progress(self.work, self.done, self.total, self.unit))


@dataclass(slots=True)
class _Journal:
    """What a client tells of its requests, on its way to the ledger; nothing is sent that cannot be paid for."""

    annotator: Annotator
    entries: Sequence[Entry]
    tick: _Tick | None = None
    held: dict[str, float] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def pending(self, place: int) -> bool:
        entry = self.entries[place]
        if not self.annotator.ledger.is_under_way(entry.key):
            return False
        self.held.setdefault(entry.key, self.annotator.purse.worst(entry.request))  # put aside when the run went on
        return True

    def sent(self, place: int) -> Future[None]:
        entry = self.entries[place]
        if entry.key not in self.held:
            self.held[entry.key] = self.annotator.purse.reserve(entry.request)
        self.told.add(entry.key)
        return self.annotator.ledger.sent(entry)

    def received(self, raw: Mapping[int, str], seconds: float) -> Future[None]:
        replies = [(self.entries[place], each) for place, each in raw.items()]
        return self.annotator.ledger.received(replies, seconds)

    def understood(self, place: int, reply: Reply) -> None:
        entry, purse = self.entries[place], self.annotator.purse
        held = self.held.pop(entry.key, None)
        cost = purse.pay(reply) if held is None else purse.settle(held, reply, entry.request)
        self.annotator.ledger.read(entry.key, reply, cost)
        self.told.add(entry.key)
        if self.tick:
            self.tick()

    def failed(self, place: int, billed: bool = False) -> None:
        """Give back at once what was reserved, for others may be waiting for it; or count it as spent."""
        entry = self.entries[place]
        held = self.held.pop(entry.key, None)
        if held is not None and billed:
            self.annotator.purse.lose(held)
        elif held is not None:
            self.annotator.purse.settle(held, None)
        self.annotator.ledger.failed(entry.key, billed, held or 0.0)


def _passing(reply: Reply) -> bool:
    """Whether a problem is of the moment (the server's fault, a prompt never sent): the row deserves another try."""
    return reply.problem is not None and reply.problem.startswith(("server", "rate limit", "not asked"))


def _by_demonstrations(rows: IntArray, shown: Sequence[Sequence[Demonstration]]) -> list[int]:
    """Places in `rows`, those with the same first demonstrations together, else in the order of the pool."""
    contents = {id(demos): tuple((demo.label, demo.text) for demo in demos) for demos in shown}  # few are distinct
    rank = {content: place for place, content in enumerate(sorted(set(contents.values())))}
    return sorted(range(len(rows)), key=lambda i: (rank[contents[id(shown[i])]], int(rows[i])))
