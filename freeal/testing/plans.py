"""What a fault server is told: how it labels, and which of its answers go wrong in what way.

A plan is plain data and may be written in JSON. An action is a name, `"hang"`, or has a kind and settings,
`{"kind": "status", "code": 429}`:

    {"keywords": {"negative": ["dull"], "positive": ["charming"]},
     "pattern": "Review: (.*)\\nLabel:",
     "rules": [{"uid": "r3", "attempt": 1, "action": "rst"},
               {"every": 10, "attempt": [1, 2], "action": {"kind": "status", "code": 503}}]}

What happens to a request depends on its row and on how often that row was asked before, never on the clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from freeal.errors import ConfigError

Dialect = Literal["openai", "vllm"]

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class Status:
    """An answer that is refused: nothing is billed. Without a `body` the dialect's own error is sent; a str is HTML."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    kind: Literal["status"] = "status"


@dataclass(frozen=True, config=STRICT)
class Delay:
    """So many seconds more than the plan's latency. The answer is billed even if nobody waited for it."""

    seconds: float
    kind: Literal["delay"] = "delay"


@dataclass(frozen=True, config=STRICT)
class Truncate:
    """The whole length is declared, `sent` bytes of the body come, then the connection closes."""

    sent: int
    kind: Literal["truncate"] = "truncate"


@dataclass(frozen=True, config=STRICT)
class Content:
    """The message says exactly this, whatever was asked; None is sent as null."""

    text: str | None
    kind: Literal["content"] = "content"


@dataclass(frozen=True, config=STRICT)
class Refusal:
    """The model declines: `refusal` in place of content."""

    text: str = "I'm sorry, I cannot help with that."
    kind: Literal["refusal"] = "refusal"


@dataclass(frozen=True, config=STRICT)
class Finish:
    """The answer ends early: half of it comes (`length`), or nothing (`content_filter`)."""

    reason: Literal["length", "content_filter"]
    kind: Literal["finish"] = "finish"


@dataclass(frozen=True, config=STRICT)
class Label:
    """The model believes this label, and says it as far as the constraint of the request allows."""

    name: str
    kind: Literal["label"] = "label"


@dataclass(frozen=True, config=STRICT)
class PartialLogprobs:
    """No more than `k` candidates a token, however many were wanted."""

    k: int
    kind: Literal["partial_logprobs"] = "partial_logprobs"


@dataclass(frozen=True, config=STRICT)
class WrongModelEcho:
    """The answer names another model than the one asked for."""

    model: str = "another-model"
    kind: Literal["wrong_model_echo"] = "wrong_model_echo"


@dataclass(frozen=True, config=STRICT)
class KillClient:
    """Sends process `pid` a signal (9, if not told otherwise), then answers and bills as if nothing had happened."""

    pid: int
    signal: int = 9
    kind: Literal["kill_client"] = "kill_client"


Plain = Literal[
    "hang", "rst", "close_before_headers", "html200", "bad_json", "empty_choices", "drop_logprobs",
    "neg_inf_logprob", "no_usage", "dup_choice", "ignore_constraint", "die",
]  # fmt: skip
"""Actions that need no setting. `hang`, `html200` and `die` (the server exits) cost nothing; the others are billed."""

Action = (
    Plain
    | Annotated[
        Status | Delay | Truncate | Content | Refusal | Finish | Label | PartialLogprobs | WrongModelEcho | KillClient,
        Field(discriminator="kind"),
    ]
)


class Row(NamedTuple):
    """What a request is about: the id of the example, and its text."""

    uid: str
    text: str


@dataclass(frozen=True, config=STRICT)
class Rule:
    """One or several actions, and the requests they happen to: those that meet every condition which is set.

    Args:
        action: one, or several that happen together: `(Delay(0.2), Status(503))`.
        uid: of the row.
        substring: of the last user message.
        nth: the number of the row, from 1: its place in `rows`, or else in the order in which rows are first asked.
        every: rows whose number is a multiple of this.
        attempt: how often the row was asked, this time included; (1, 3) means the first three times.

    Example:
        >>> rule = Rule(Status(429, {"retry-after": "2"}), every=5, attempt=(1, 3))
        >>> rule.applies(Row("r9", "fine"), "fine", number=10, attempt=3)
        True
    """

    action: Action | tuple[Action, ...]
    uid: str | None = None
    substring: str | None = None
    nth: PositiveInt | None = None
    every: PositiveInt | None = None
    attempt: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None

    def applies(self, row: Row, message: str, number: int, attempt: int) -> bool:
        first, last = self.attempt if isinstance(self.attempt, tuple) else (self.attempt, self.attempt)
        return (
            (self.uid is None or self.uid == row.uid)
            and (self.substring is None or self.substring in message)
            and (self.nth is None or self.nth == number)
            and (self.every is None or number % self.every == 0)
            and (first is None or last is None or first <= attempt <= last)
        )


@dataclass(frozen=True, config=STRICT)
class Noise:
    """A share `p` of the rows, fixed by text and seed, gets another label than the keywords say."""

    p: Annotated[float, Field(ge=0, le=1)]
    seed: int = 0
    kind: Literal["noise"] = "noise"


@dataclass(frozen=True, config=STRICT)
class Constant:
    """One label for every row."""

    name: str
    kind: Literal["constant"] = "constant"


Mode = Literal["oracle", "permuted", "adversary"] | Annotated[Noise | Constant, Field(discriminator="kind")]
"""`oracle` obeys the keywords, `permuted` says the next label, `adversary` obeys instructions found in the text."""


@dataclass(frozen=True, config=STRICT)
class Plan:
    """All that a fault server does.

    Args:
        rules: the first one that applies to a request decides; without one, all goes well.
        keywords: label: words that give it away. Without keywords the labels are those a request allows.
        mode: how rows are labelled.
        pattern: finds the row in the last user message: its first group, or all it matches. Without one, the row
            is the longest of `rows` that occurs there (slow beyond a thousand rows), or the whole message.
        rows: text: uid. A row that is not listed is its own uid.
        latency: seconds an answer takes.
        models: names that are served; empty means any.
        key: the API key to insist on.
        refuses: fields of a request that this server does not know.
        context: tokens a request may have; four characters count as one.
        health: the status of `/health` in the dialect `vllm`.
        batch_polls: a batch is completed when it is looked at for this time.

    Example:
        >>> plan = Plan([Rule("rst", uid="r1", attempt=1)], rows={"a charming film": "r1"})
        >>> plan.row("Review: a charming film").uid
        'r1'
        >>> plan.actions(plan.row("a charming film"), "a charming film", number=1, attempt=1)
        ('rst',)
    """

    rules: Sequence[Rule] = ()
    keywords: Mapping[str, Sequence[str]] = field(default_factory=dict)
    mode: Mode = "oracle"
    pattern: re.Pattern[str] | None = None
    rows: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0
    models: Sequence[str] = ()
    key: str | None = None
    refuses: Sequence[str] = ()
    context: int | None = None
    health: int = 200
    batch_polls: PositiveInt = 1

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """uid: its place in `rows`, from 1."""
        return {uid: number for number, uid in enumerate(dict.fromkeys(self.rows.values()), start=1)}

    @cached_property
    def _longest_first(self) -> list[str]:
        return sorted(self.rows, key=len, reverse=True)

    def row(self, message: str) -> Row:
        """The row that the last user message is about."""
        found = self.pattern.search(message) if self.pattern else None
        if found:
            text = found[1] if found.re.groups else found[0]
        elif message in self.rows:
            text = message
        else:
            text = next((text for text in self._longest_first if text in message), message)
        return Row(self.rows.get(text, text), text)

    def actions(self, row: Row, message: str, number: int, attempt: int) -> tuple[Action, ...]:
        """What happens to the `attempt`-th request about a row."""
        for rule in self.rules:
            if rule.applies(row, message, number, attempt):
                return rule.action if isinstance(rule.action, tuple) else (rule.action,)
        return ()


_PLAN = TypeAdapter(Plan)


def parse_plan(told: str | bytes, where: str = "plan") -> Plan:
    """A plan from JSON.

    Raises:
        ConfigError: no JSON, an unknown action or setting, a value of the wrong kind; the message starts with `where`.

    Example:
        >>> parse_plan('{"rules": [{"nth": 3, "action": "hang"}]}').rules[0].action
        'hang'
    """
    try:
        return _PLAN.validate_json(told)
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc'])) or 'JSON'}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError(f"{where}: the plan cannot be used:\n" + "\n".join(faults)) from error


def read_plan(path: Path) -> Plan:
    """The plan in a JSON file.

    Raises:
        ConfigError: the file cannot be read or holds no plan.
    """
    try:
        return parse_plan(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: the plan cannot be read: {error.strerror}") from error


def to_json(plan: Plan) -> bytes:
    """The plan as `parse_plan` reads it, for `POST /__plan`."""
    return _PLAN.dump_json(plan)
