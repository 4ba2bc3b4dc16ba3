"""A prompt file -> Prompt: what the LLM is shown, and how its reply is read.

The file is Markdown: YAML front matter with the labels and their meanings, then `## system` (optional), `## user`
and `## assistant`. It is cut into turns *before* anything is rendered, and data enter as variables only, so that no
text of the pool can forge a turn or a template.
"""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from freeal.errors import PromptError, did_you_mean
from freeal.llm import Message, Reply, Request, Role
from freeal.tasks import Said, Task
from freeal.tasks.classification import Classification, fold
from freeal.tasks.multilabel import Multilabel
from freeal.tasks.tokens import NONE, Tokens
from freeal.types import Demonstration, Example, Pool

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
TASKS: Mapping[str, Callable[..., Task]] = {
    "classification": Classification, "multilabel": Multilabel, "tokens": Tokens,
}  # fmt: skip
"""What `task` in the front matter may be: one label a text (the default), any number of them, entities."""

HAS_WORDS = ("classification", "tokens")
"""Tasks whose labels may go by words of their own, which these take beside the labels."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One section of the file: its template, where it starts, and the variables it uses with their lines."""

    role: Role
    line: int
    source: str
    template: Template
    variables: Mapping[str, int]
    known: tuple[str, ...]
    """What it may use by name, beside the columns of the data (in all but `system`)."""


@dataclass(frozen=True)
class Prompt:
    """A prompt file, ready to use: `labels` maps names to meanings, in class order.

    `paraphrases` ask the same in other words, where a run has several prompts.

    Example:
        >>> prompt = load(Path("prompts/mr.md"))
        >>> [message.role for message in prompt.render(Example("1", "a joy"), ())]
        ['system', 'user']
        >>> prompt.read(Reply("Positive."), "a joy").proba.round(1).tolist()
        [0.1, 0.9]
    """

    path: Path
    source: str
    labels: Mapping[str, str]
    task: Task
    turns: Mapping[Role, Turn] = field(repr=False)
    paraphrases: tuple[Prompt, ...] = ()

    @property
    def wordings(self) -> tuple[Prompt, ...]:
        """This prompt and its paraphrases."""
        return (self, *self.paraphrases)

    @cached_property
    def sha256(self) -> str:
        """Of the file's text: another prompt is another run."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns of the data that the templates use, sorted."""
        return tuple(sorted({name for turn in self.turns.values() for name in _columns_used(turn)}))

    @cached_property
    def replies(self) -> tuple[str, ...]:
        """What the assistant would say for each answer of the task: the choices to put to the LLM; none to write."""
        last = self.task.variables[1][-1]
        first = self.task.asked(0)
        return tuple(self._render("assistant", Example("", ""), **first, **{last: each}) for each in self.task.answers)

    def render(self, example: Example, shown: Sequence[Demonstration] = (), question: int = 0) -> tuple[Message, ...]:
        """The chat that asks about `example` after `shown`; a column that a row lacks is the empty text.

        Raises:
            PromptError: a template cannot be rendered with these data.
        """
        about = self.task.asked(question)
        chat = [Message("system", self._system)] if "system" in self.turns or self.task.form else []
        for demonstration in shown:
            seen = Example("", demonstration.text, demonstration.fields)
            chat.append(Message("user", self._render("user", seen, **about)))
            chat.append(Message("assistant", self._reply(seen, demonstration.label, question)))
        return (*chat, Message("user", self._render("user", example, **about)))

    def _reply(self, seen: Example, label: str, question: int) -> str:
        """What the assistant says of a demonstration; where replies are held to JSON, nothing around it."""
        if self.task.form:
            return label
        return self._render("assistant", seen, **self.task.asked(question), **self.task.answered(label, question))

    def in_json(self) -> Prompt:
        """The same prompt with replies in JSON, for which the LLM is told so; itself, if the task has no such form."""
        return replace(self, task=self.task.in_json())

    def with_meanings(self, meanings: Mapping[str, str]) -> Prompt:
        """The same prompt, but the labels mean something else; `meanings` has one for each."""
        told = {label: meanings[label] for label in self.labels}
        return replace(self, labels=told, task=self.task.meaning(told))

    def request(self, example: Example, shown: Sequence[Demonstration] = (), question: int = 0) -> Request:
        """What is sent to ask one question about `example`."""
        schema = self.task.form.schema if self.task.form else None
        chat = self.render(example, shown, question)
        return Request(chat, self.replies, self.task.room, uid=example.id, question=question, schema=schema)

    def question_in(self, chat: Sequence[Message]) -> Mapping[str, str] | None:
        """The variables of the question that `chat` asks, read back from it; None where it is none of this prompt.

        None, too, where '## user' takes a row's columns apart, which cannot be done without them.
        """
        ways: list[tuple[re.Pattern[str], Mapping[str, str]]] = []
        for about in map(self.task.asked, range(self.task.questions)):
            with suppress(PromptError):
                ways.append((self._pattern(about), about))
        ways.sort(key=lambda way: -len(way[0].pattern))  # who tells more of a turn leaves less of it to the row
        turns = [message.content for message in chat if message.role == "user"]
        for turn in reversed(turns):  # a correction may stand behind the question
            for pattern, about in ways:
                if found := pattern.fullmatch(turn):
                    return {**found.groupdict(), **about}
        return None

    def _pattern(self, about: Mapping[str, str]) -> re.Pattern[str]:
        """What '## user' says `about` something, of whatever row: a group for each variable that the row fills in."""
        turn, names = self.turns["user"], _row_variables(self.turns["user"])
        marks = {name: chr(_PRIVATE_USE + place) for place, name in enumerate(names)}
        pattern = re.escape(_rendered(self.path, turn, {"labels": self.labels, **marks, **about}))
        for name, mark in marks.items():
            pattern = pattern.replace(mark, f"(?P<{name}>.*)", 1).replace(mark, ".*")
        return re.compile(pattern, re.DOTALL)

    def read(self, reply: Reply, text: str) -> Said:
        """What a written `reply` says of `text`, or why it says nothing."""
        return Said(None, reply.problem) if reply.problem else self.task.heard(aloud(reply.text), text)

    def check_fields(self, pool: Pool, of: str = "") -> None:
        """Make sure that the data have every column the templates use.

        Args:
            of: what to call the data where a column is missing; they need no name if they are the pool.

        Raises:
            PromptError: a variable is no column of `pool`.
        """
        columns = {name for example in pool.examples for name in example.fields}
        for turn in self.turns.values():
            for name in _columns_used(turn):
                if name not in columns:
                    raise _unknown(self.path, turn, name, [*turn.known, *sorted(columns)], of)

    @cached_property
    def _system(self) -> str:
        turn, form = self.turns.get("system"), self.task.form
        told = [_rendered(self.path, turn, {"labels": self.labels, "words": self.task.answers})] if turn else []
        return "\n\n".join([*told, form.told] if form else told)

    def _render(self, role: Role, example: Example, **more: str) -> str:
        turn = self.turns[role]
        columns = {name: example.fields.get(name, "") for name in _columns_used(turn)}
        known = {"text": example.text, "id": example.id, "labels": self.labels}
        return _rendered(self.path, turn, {**columns, **known, **more})


def load(path: Path) -> Prompt:
    """Read a prompt file and make sure that it can be used.

    Raises:
        PromptError: with the path and the line of what is wrong.
    """
    return parse(path, _read(path))


def parse(path: Path, source: str) -> Prompt:
    """The prompt that `source` is, `path` being where it is told to come from; as `load`, also in what is raised."""
    front, sections = _cut(path, source)
    labels, words, kind = _front(path, front)
    try:
        task = TASKS[kind](labels, words) if words else TASKS[kind](labels)
    except PromptError as error:
        raise PromptError(f"{path}:{_labels_line(front)}: {error}") from error
    turns = {role: _compile(path, role, line, text, task) for role, (line, text) in sections.items()}
    prompt = Prompt(path, source, labels, task, turns)
    _try_out(prompt)
    return prompt


def load_all(paths: Sequence[Path]) -> Prompt:
    """The first prompt file, with the others as its paraphrases.

    Raises:
        PromptError: one of them cannot be used, says what another says, or has other labels or another order of them.
    """
    first, *others = wordings = [load(path) for path in paths]
    for place, other in enumerate(others, 1):
        if list(other.labels) != list(first.labels):
            raise PromptError(
                f"{other.path}: has the labels {', '.join(other.labels)}; {first.path} has {', '.join(first.labels)}: "
                "the prompts of a run name the same labels in the same order"
            )
        for before in wordings[:place]:
            if other.source == before.source:
                raise PromptError(f"{other.path}: says what {before.path} says; its word would count twice")
    return replace(first, paraphrases=tuple(others)) if others else first


def pretended(prompt: Prompt, examples: Sequence[Example]) -> list[Demonstration]:
    """Examples as demonstrations, labels in turn: to see, and to count, what a prompt will look like."""
    return [Demonstration(e.text, prompt.task.pretended(i, e.text), fields=e.fields) for i, e in enumerate(examples)]


_THOUGHTS = re.compile(r"\A\s*(?:<think>)?(?:(?!</think>).)*</think>\s*", re.DOTALL)


def aloud(text: str | None) -> str | None:
    """A written reply without the thoughts before it, as servers leave them in that do not take them out.

    Example:
        >>> aloud("<think>It says dull.</think>\\n\\nnegative"), aloud("positive")
        ('negative', 'positive')
    """
    return None if text is None else _THOUGHTS.sub("", text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise PromptError(f"{path}: no such prompt file{did_you_mean(path.name, _neighbours(path))}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _neighbours(path: Path) -> list[str]:
    return [file.name for file in path.parent.glob("*.md")]


_HEADING = re.compile(r"^##[ \t]+(.*?)[ \t]*$", re.MULTILINE)
_FRONT = re.compile(r"---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|$)", re.DOTALL)


def _cut(path: Path, source: str) -> tuple[str, dict[Role, tuple[int, str]]]:
    """The front matter, and of each section its first line and its text without blank edges."""
    front = _FRONT.match(source)
    if front is None:
        raise PromptError(f"{path}:1: the file must begin with '---', 'labels:' and a closing '---'")
    headings = list(_HEADING.finditer(source, front.end()))
    lead = source[front.end() : headings[0].start() if headings else len(source)]
    if lead.strip():
        line = _line(source, front.end() + len(lead) - len(lead.lstrip()))
        raise PromptError(f"{path}:{line}: text before the first section; sections are {_ROLES}")
    sections: dict[Role, tuple[int, str]] = {}
    for heading, end in zip(headings, [*(h.start() for h in headings[1:]), len(source)], strict=True):
        role = _role(path, _line(source, heading.start()), heading[1], sections)
        text = source[heading.end() : end]
        start = heading.end() + len(text) - len(text.lstrip())
        sections[role] = (_line(source, start), text.strip())
    for needed in ("user", "assistant"):
        if needed not in sections:
            raise PromptError(f"{path}:{_line(source, len(source))}: section '## {needed}' is missing")
    return front[1] or "", sections


_ROLES = ", ".join(f"'## {role}'" for role in ROLES)


def _role(path: Path, line: int, name: str, sections: Iterable[str]) -> Role:
    if name not in ROLES:
        raise PromptError(
            f"{path}:{line}: unknown section '## {name}'{did_you_mean(name, ROLES)}; sections are {_ROLES}; "
            "a heading inside a turn needs another level, such as '###'"
        )
    if name in sections:
        raise PromptError(f"{path}:{line}: section '## {name}' is there twice")
    return name


def _line(source: str, offset: int) -> int:
    return source.count("\n", 0, offset) + 1


class _Front(NamedTuple):
    """What the front matter says: label -> meaning, label or NONE -> words, as far as there are any, and the task."""

    labels: dict[str, str]
    words: dict[str, tuple[str, ...]]
    task: str


def _front(path: Path, front: str) -> _Front:
    """What the front matter says. The nodes of the YAML are read: they know of repeated keys and of lines."""
    try:
        root = yaml.compose(front, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 2
        raise PromptError(f"{path}:{line}: the front matter is no YAML: {getattr(error, 'problem', error)}") from error
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    found: dict[str, yaml.Node] = {}
    for key, value in entries:
        line = key.start_mark.line + 2
        if key.value not in _KEYS:
            raise PromptError(
                f"{path}:{line}: unknown key {key.value!r} in the front matter{did_you_mean(key.value, _KEYS)}; "
                "only 'labels', 'task' and, for entities, 'none' are known"
            )
        if key.value in found:
            raise PromptError(f"{path}:{line}: the front matter must have the key {key.value!r} once")
        found[key.value] = value
    if "labels" not in found:
        raise PromptError(f"{path}:1: the front matter must have the key 'labels' once")
    labels: dict[str, str] = {}
    words: dict[str, tuple[str, ...]] = {}
    for name, told in _label_nodes(path, found["labels"]):
        _check_label(path, name, labels)
        meaning, spoken = _told(path, told)
        labels[name.value] = "" if meaning is None or meaning.tag.endswith(":null") else meaning.value
        if spoken:
            words[name.value] = tuple(each.value for each in spoken)
    kind = found["task"].value if "task" in found else "classification"
    if kind not in TASKS:
        line = found["task"].start_mark.line + 2
        raise PromptError(f"{path}:{line}: task {kind!r} is unknown{did_you_mean(str(kind), TASKS)}; "
                          f"there are {', '.join(TASKS)}")  # fmt: skip
    if words and kind not in HAS_WORDS:
        line = found["labels"].start_mark.line + 2
        raise PromptError(
            f"{path}:{line}: label {next(iter(words))!r} has words; those are for one label a text, and for entities"
        )
    if NONE in found:
        if kind != Tokens.kind:
            line = found[NONE].start_mark.line + 2
            raise PromptError(f"{path}:{line}: '{NONE}' has words for what is no entity; it is for task: {Tokens.kind}")
        words[NONE] = _listed(path, found[NONE])
    if words and kind == Tokens.kind:
        _check_words(path, found, labels, words)
    return _Front(labels, words, kind)


_KEYS = ("labels", "task", NONE)


def _check_words(
    path: Path, found: Mapping[str, yaml.Node], labels: Mapping[str, str], words: Mapping[str, Sequence[str]]
) -> None:
    """Make sure that types of entities go by words all together, and that these can be told from those for none."""
    line = found["labels"].start_mark.line + 2
    if bare := next((label for label in labels if label not in words), None):
        raise PromptError(
            f"{path}:{line}: type {bare!r} has no words, and others, or '{NONE}', have: the LLM would see a bare name; "
            "give it words, too"
        )
    of_types = [word for label in labels for word in words[label]]
    if taken := next((word for word in of_types if fold(word) == NONE), None):
        raise PromptError(f"{path}:{line}: the word {taken!r} is for what is no entity; leave it out")
    if NONE in found:
        known = set(map(fold, of_types))
        if twice := next((word for word in words[NONE] if fold(word) in known), None):
            line = found[NONE].start_mark.line + 2
            raise PromptError(f"{path}:{line}: {twice!r} is a word of a type, too; leave it out in one of them")


def _listed(path: Path, node: yaml.Node) -> tuple[str, ...]:
    listed = node.value if isinstance(node, yaml.SequenceNode) else []
    if not listed or not all(isinstance(each, yaml.ScalarNode) for each in listed):
        line = node.start_mark.line + 2
        raise PromptError(f"{path}:{line}: '{NONE}' must list words for what is no entity, as in  none: [{NONE}, date]")
    for each in listed:
        _check_label(path, each, ())
    return tuple(each.value for each in listed)


def _label_nodes(path: Path, node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node | None]]:
    pairs: list[tuple[yaml.Node, yaml.Node | None]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = list(node.value)
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(item, None) for item in node.value]
    for odd in (name for name, _ in pairs if not isinstance(name, yaml.ScalarNode)):
        raise PromptError(f"{path}:{odd.start_mark.line + 2}: labels and their meanings must be plain text")
    if not pairs:
        line = node.start_mark.line + 2
        raise PromptError(f"{path}:{line}: 'labels' must map each label to its meaning, or list the labels")
    return pairs


def _told(path: Path, node: yaml.Node | None) -> tuple[yaml.Node | None, Sequence[yaml.Node]]:
    """The meaning of a label, and its words: plain text is a meaning, a mapping may have `means` and `words`."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return node, ()
    entries = {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {"": node}
    meaning, words = entries.pop("means", None), entries.pop("words", None)
    listed = words.value if isinstance(words, yaml.SequenceNode) else []
    plain = all(isinstance(each, yaml.ScalarNode) for each in (*listed, *([meaning] if meaning else [])))
    if entries or not plain or (words is not None and not listed):
        raise PromptError(
            f"{path}:{node.start_mark.line + 2}: labels and their meanings must be plain text; a label with words of "
            "its own is written {means: what it means, words: [one, another]}"
        )
    for each in listed:
        _check_label(path, each, ())
    return meaning, listed


def _check_label(path: Path, name: yaml.Node, before: Iterable[str]) -> None:
    line, kind = name.start_mark.line + 2, name.tag.rpartition(":")[2]
    if kind != "str":
        raise PromptError(
            f'{path}:{line}: label {name.value} is no text but {kind} to YAML; put it in quotes: "{name.value}"'
        )
    if name.value in before:
        raise PromptError(f"{path}:{line}: label {name.value!r} is there twice")


def _labels_line(front: str) -> int:
    return next((number for number, line in enumerate(front.split("\n"), 2) if line.startswith("labels")), 1)


class _Environment(ImmutableSandboxedEnvironment):
    """No attributes that reach into Python, no state, and no operator that makes a huge text out of a small one."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        raise SecurityError(f"the operator {operator} is not allowed")


_ENVIRONMENT = _Environment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
)
_ENVIRONMENT.globals.clear()  # range, lipsum and the like: a prompt needs none, and a column may bear such a name


def _compile(path: Path, role: Role, line: int, source: str, task: Task) -> Turn:
    try:
        tree = _ENVIRONMENT.parse(source)
        template = _ENVIRONMENT.from_string(source)
    except TemplateSyntaxError as error:
        raise PromptError(f"{path}:{line + error.lineno - 1}: in '## {role}': {error.message}") from error
    for loads in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise PromptError(f"{path}:{line + loads.lineno - 1}: in '## {role}': a prompt is one file and loads no other")
    unknown = meta.find_undeclared_variables(tree)
    uses = [name for name in tree.find_all(nodes.Name) if name.ctx == "load" and name.name in unknown]
    variables = {name.name: line + name.lineno - 1 for name in reversed(uses)}
    user, assistant = task.variables
    system = ("labels", "words") if task.answers else ("labels",)
    of_role: dict[Role, tuple[str, ...]] = {
        "system": system,
        "user": (*_OF_ROW, *user),
        "assistant": (*_OF_ROW, *assistant),
    }
    turn = Turn(role, line, source, template, variables, of_role[role])
    for name in sorted(unknown):
        if name not in turn.known and (role == "system" or name in of_role["assistant"]):
            raise _unknown(path, turn, name, turn.known)
    return turn


_OF_ROW = ("text", "labels", "id")


_PRIVATE_USE = 0xE000
"""The first of the characters that Unicode leaves to everybody: a mark for a variable, where no text has it."""


def _row_variables(turn: Turn) -> list[str]:
    """Variables that a row fills in: its text, its id and its columns."""
    return [name for name in turn.variables if name in ("text", "id") or name not in turn.known]


def _columns_used(turn: Turn) -> list[str]:
    return [name for name in turn.variables if name not in turn.known]


def _unknown(path: Path, turn: Turn, name: str, available: Sequence[str], of: str = "") -> PromptError:
    place = f"{path}:{turn.variables[name]}: unknown variable {name!r} in '## {turn.role}'"
    there = f"in {of} there are" if of else "available:"
    return PromptError(f"{place}{did_you_mean(name, available)}; {there} {', '.join(available)}")


def _rendered(path: Path, turn: Turn, variables: Mapping[str, object]) -> str:
    """The turn with `variables`; edges are trimmed where the template made them, never where data did."""
    try:
        text = turn.template.render(variables)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
        line = turn.line + (frames[-1].lineno or 1) - 1 if frames else turn.line
        raise PromptError(f"{path}:{line}: '## {turn.role}' cannot be rendered: {error}") from error
    text = text if turn.source.startswith("{{") else text.lstrip()
    return text if turn.source.endswith("}}") else text.rstrip()


def _try_out(prompt: Prompt) -> None:
    """Render every turn once, and make sure that each label is read back from the assistant's turn."""
    user = prompt.turns["user"]
    if "text" not in user.variables and not _columns_used(user):
        raise PromptError(
            f"{prompt.path}:{user.line}: '## user' never shows the text; write {{{{ text }}}} where it goes"
        )
    _tell_questions_apart(prompt, user)
    _forbid_unsafe(lambda: prompt.render(Example("id", "text")))
    turn, task = prompt.turns["assistant"], prompt.task
    for index, (answer, reply) in enumerate(zip(task.answers, prompt.replies, strict=True)):
        said = task.heard(reply, "")
        if said.proba is None or int(said.proba.argmax()) != task.owners[index]:
            name = task.variables[1][-1]
            raise PromptError(
                f"{prompt.path}:{turn.line}: '## assistant' says {reply[:80]!r} for the label {answer!r}, which is not "
                f"read back as that label; write {{{{ {name} }}}} alone or 'Label: {{{{ {name} }}}}'"
            )
    if not task.answers:
        _try_writing(prompt)


def _tell_questions_apart(prompt: Prompt, user: Turn) -> None:
    """Make sure that '## user' uses what tells the questions about a text apart."""
    owners: dict[tuple[str, ...], str] = {}
    for question, label in zip(range(prompt.task.questions), prompt.labels, strict=False):
        told = tuple(said for name, said in prompt.task.asked(question).items() if name in user.variables)
        if told in owners:
            raise PromptError(
                f"{prompt.path}:{user.line}: '## user' asks the same about {owners[told]!r} and {label!r}; each label "
                "is a question of its own: write {{ label }} where its name goes"
            )
        owners[told] = label


def _try_writing(prompt: Prompt) -> None:
    """Make sure that what a demonstration shows is read back."""
    text = "Somebody"
    shown = Demonstration(text, prompt.task.pretended(0, text))
    (reply,) = [message.content for message in prompt.render(Example("", ""), [shown]) if message.role == "assistant"]
    if prompt.task.heard(reply, text).proba is None:
        raise PromptError(
            f"{prompt.path}:{prompt.turns['assistant'].line}: '## assistant' says {reply[:80]!r} for {shown.label!r}, "
            f"which is not read back; write {{{{ {prompt.task.variables[1][-1]} }}}} alone"
        )


def _forbid_unsafe(render: Callable[[], object]) -> None:
    """Raise what the sandbox forbids at load; other faults may lie in the made-up data and wait for real ones."""
    try:
        render()
    except PromptError as error:
        if isinstance(error.__cause__, SecurityError):
            raise
