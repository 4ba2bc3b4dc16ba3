"""csv, tsv, jsonl, json, parquet, txt, saved data sets and the Hugging Face hub -> one pool of examples.

Rows are read as a stream. Gold labels are kept beside the pool, never in it, so that nothing can select by them.
Every fault names the file, the line, what was found there, and what to do about it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from freeal.config import DataConfig
from freeal.errors import DataError, did_you_mean
from freeal.formats import check_printed, sentence_of, tokens_of
from freeal.tables import Table, open_table
from freeal.tasks import Task
from freeal.tasks.classification import fold
from freeal.tasks.multilabel import NONE, listed
from freeal.tasks.spans import split_words, widened
from freeal.tasks.tokens import MOST_WORDS, behind
from freeal.types import Example, IntArray, Pool

FACTS = {
    "empty": "empty texts skipped",
    "test_empty": "empty texts of the test skipped",
    "duplicates": "repeated texts, asked about once",
    "leaked": "texts of the pool are also in the test",
    "cut": "texts cut to data.max_words",
    "long": f"texts of which nothing behind word {MOST_WORDS} is read, nor labelled",
    "lost": "entities of gold end behind what is read, or share a word with a longer one: no figure counts them",
    "moved": "entities of gold do not begin and end where words do: they count as whole words",
}
"""What a user should know of the data, where the count of `DataReport` is not 0."""


def facts(counts: Mapping[str, int]) -> list[str]:
    """Those of FACTS that there are, in words.

    Example:
        >>> facts({"empty": 3, "leaked": 0})
        ['3 empty texts skipped']
    """
    return [f"{counts[key]:,} {what}" for key, what in FACTS.items() if counts.get(key)]


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was read: `rows` in the file of the pool, and what a user should know about them.

    `empty` and `test_empty` are ids (or places) of rows without text, which are skipped, and `before` how many rows of
    the pool's file with a text stand before each; `duplicates` counts rows whose text an earlier row of the pool has
    too; `leaked` are ids of pool rows whose text is also in the test; `cut` counts texts shortened to `max_words`.
    Where entities are marked, `long` counts texts of pool and test with more words than are read, `lost` the entities
    of gold that no figure counts, as they end behind what is read or share a word with a longer one, and `moved` those
    that do not begin and end where words do, and count as whole words.
    """

    rows: int
    empty: tuple[str, ...] = ()
    before: tuple[int, ...] = ()
    duplicates: int = 0
    leaked: tuple[str, ...] = ()
    cut: int = 0
    test_empty: tuple[str, ...] = ()
    long: int = 0
    lost: int = 0
    moved: int = 0

    def counts(self) -> dict[str, int]:
        """How many there are of each of FACTS."""
        found = {key: getattr(self, key) for key in FACTS}
        return {key: value if isinstance(value, int) else len(value) for key, value in found.items()}

    def notes(self) -> list[str]:
        """What a user should know, a line each; of rows that have an id, the first one."""
        firsts = {"empty": self.empty, "test_empty": self.test_empty, "leaked": self.leaked}
        return [
            fact + (f", first {firsts[key][0]}" if key in firsts else "")
            for key, count in self.counts().items() for fact in facts({key: count})
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Corpus:
    """A pool, a test to measure on, and their gold as `Task.gold` has it, -1 where unknown; None without any."""

    pool: Pool
    gold: IntArray | None
    test: Pool | None
    test_gold: IntArray | None
    report: DataReport

    def in_order(self, ids: Sequence[str]) -> Corpus:
        """The same with the pool in the order of `ids`, which are all of its rows."""
        place = {example.id: row for row, example in enumerate(self.pool.examples)}
        rows = [place[uid] for uid in ids]
        pool = replace(self.pool, examples=tuple(self.pool[row] for row in rows))
        return replace(self, pool=pool, gold=None if self.gold is None else self.gold[rows])


def load(config: DataConfig, task: Task, seed: int) -> Corpus:
    """The texts of `config`: the pool, sampled by `seed` if it is to be sampled, and the test.

    Raises:
        DataError: a file is missing or broken, a column unknown, an id repeated, a gold value no label,
            or nothing is left to label.

    Example:
        >>> task = Classification({"negative": "", "positive": ""})              # doctest: +SKIP
        >>> corpus = load(DataConfig(pool="reviews.csv"), task, seed=0)          # doctest: +SKIP
        >>> len(corpus.pool), corpus.report.duplicates                           # doctest: +SKIP
        (8662, 0)
    """
    intake = _take_in(config.pool, config.split, config, task)
    tested = None
    if config.test is not None:
        there = config.model_copy(update={"gold": config.test_gold or config.gold})
        tested = _take_in(config.test, config.test_split, there, task)
    _check_columns(config, intake, tested)
    rows = _chosen(intake, config.sample, seed)
    pool, gold = intake.pool_of(rows), intake.gold_of(rows)
    if tested is None:
        return Corpus(pool, gold, None, None, _report(pool, None, intake, None, rows, _unread(intake, rows)))
    of_test = _chosen(tested, config.test_sample, 0)
    test = tested.pool_of(of_test)
    unread = _unread(intake, rows) + _unread(tested, of_test)
    return Corpus(pool, gold, test, tested.gold_of(of_test), _report(pool, test, intake, tested, rows, unread))


def _chosen(intake: _Intake, sample: int | None, seed: int) -> IntArray:
    n = len(intake.examples)
    return np.arange(n) if sample is None else np.random.default_rng(seed).permutation(n)[:sample]


def _unread(intake: _Intake, rows: IntArray) -> Counter[str]:
    """How many of `rows` are `long`, and how many entities of their gold `lost` and `moved`, see `DataReport`."""
    long = [len(split_words(intake.examples[row].text)) > MOST_WORDS for row in rows if intake.task.kind == "tokens"]
    lost, moved = (sum(of[row] for row in rows) for of in (intake.lost, intake.moved))
    return Counter(long=sum(long), lost=lost, moved=moved)


def _report(
    pool: Pool, test: Pool | None, intake: _Intake, tested: _Intake | None, rows: IntArray, unread: Mapping[str, int]
) -> DataReport:
    """What is to be told of the pool, which has these `rows` of its file, and of the test."""
    whole = len(rows) == len(intake.examples)  # a sample is drawn from rows with text: none of it is skipped
    seen = set() if test is None else {_same_text(text) for text in test.texts}
    return DataReport(
        rows=intake.rows,
        empty=tuple(intake.empty) if whole else (),
        before=tuple(intake.before) if whole else (),
        duplicates=len(pool) - len(set(pool.texts)),
        leaked=tuple(example.id for example in pool.examples if seen and _same_text(example.text) in seen),
        cut=int(np.isin(rows, intake.cut).sum()),
        test_empty=tuple(tested.empty) if test and tested and len(test) == len(tested.examples) else (),
        long=unread["long"],
        lost=unread["lost"],
        moved=unread["moved"],
    )


def _same_text(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


# --- rows of any source -> examples


@dataclass
class _Intake:
    """The examples of one table, built row by row."""

    table: Table
    config: DataConfig
    task: Task
    text_column: str
    columns: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    cut: list[int] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    gold: list[Any] = field(default_factory=list)
    lost: Counter[int] = field(default_factory=Counter)
    moved: Counter[int] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    hashed: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, row: Mapping[str, object]) -> None:
        """One row: an example with its gold label, or an empty text that is skipped."""
        self.rows += 1
        self.columns.update(dict.fromkeys(row))
        column = self._column(number, row)
        text = self._text(number, row, column) or ""
        short = self._short(text)
        given = "" if self.config.id is None else self._string(number, self.config.id, row.get(self.config.id)) or ""
        if self._is_empty(short):
            self.empty.append(given if given.strip() else f"{self.table.unit} {number}")
            self.before.append(len(self.examples))
            return
        name = given if given.strip() else self._hash(text)
        if name in self.lines:
            self.repeated.append(f"{name!r} on {self.table.unit}s {self.lines[name]} and {number}")
        self.lines.setdefault(name, number)
        fields = self._fields(number, row, column)
        if short != text:
            self.cut.append(len(self.examples))
        self.examples.append(Example(name, short, fields, self._tokenized(row, column)))
        if self.config.gold is not None:
            self.gold.append(self._true(number, row, column, short))

    def check(self) -> None:
        """Raise what can be told of the whole table only: columns, repeated ids, nothing to label."""
        name = self.table.name
        if not self.rows:
            raise DataError(f"{name}: there are no rows to label")
        self.check_column("text", self.text_column)
        if self.config.id not in (None, "id"):  # the default may be missing: ids are hashes then
            self.check_column("id", self.config.id)
        if self.repeated:
            first = ", ".join(self.repeated[:5])
            more = ", ..." if len(self.repeated) > 5 else ""
            raise DataError(
                f"{name}: {len(self.repeated)} duplicate id(s): {first}{more}; ids must be unique: "
                "mend them, name another column in data.id, or set data.id to null to number texts by their content"
            )
        if not self.examples:
            raise DataError(f"{name}: all {self.rows} texts in column {self.text_column!r} are empty")

    def pool_of(self, rows: IntArray) -> Pool:
        """The examples of `rows`, in that order."""
        rewording = self.config.rewording if self.config.rewording in self.columns else None
        return Pool(tuple(self.examples[row] for row in rows), rewording)

    def gold_of(self, rows: IntArray) -> IntArray | None:
        """What `Task.gold` makes of them; None where the table has no gold column."""
        if not self.columns.keys() & set(_columns(self.config.gold)):
            return None
        return self.task.gold([self.examples[row].text for row in rows], [self.gold[row] for row in rows])

    def check_column(self, setting: str, column: str | None) -> None:
        """Raise DataError where no row has `column`, which `data.<setting>` names."""
        if column not in self.columns:
            known = list(self.columns)
            raise DataError(
                f"{self.table.name}: data.{setting}: there is no column {column!r}{did_you_mean(str(column), known)}; "
                f"there are {', '.join(map(repr, known))}"
            )

    def _column(self, number: int, row: Mapping[str, object]) -> str:
        """Where the text of a row is: of a text with entities in `text` or `tokens`, whichever it has, by default."""
        if self.task.kind != "tokens":
            return self.text_column
        known: tuple[str, ...] = ("text", "tokens") if self.config.text == "text" else (self.text_column,)
        there = [column for column in (*known, self.text_column) if column in row]
        if not there:
            names = " or ".join(map(repr, known))
            raise self.table.fault(
                number,
                f"there is no column {names}{did_you_mean(self.text_column, row)}; there are "
                f"{', '.join(map(repr, row))}; name the one with the text, or with its tokens, in data.text",
            )
        return next((column for column in there if not _blank(row[column])), there[0])

    def _text(self, number: int, row: Mapping[str, object], column: str) -> str | None:
        """The text of a row; of one that comes as tokens, these with a space between them."""
        value = row.get(column)
        try:
            if self.task.kind != "tokens" or not (isinstance(value, (list, np.ndarray)) or tokens_of(row, column)):
                return self._string(number, column, value)
            return sentence_of(self.table, row, None, column, None).text
        except ValueError as error:
            raise self.table.fault(number, str(error)) from error

    def _is_empty(self, text: str) -> bool:
        """Whether there is nothing to label: no word, where words are labelled."""
        return not (split_words(text) if self.task.kind == "tokens" else text.strip())

    def _tokenized(self, row: Mapping[str, object], column: str) -> bool:
        """Whether the text of a row is tokens, none of which has a space in it."""
        tokens = tokens_of(row, column) if self.task.kind == "tokens" else None
        return bool(tokens) and not any(" " in token for token in tokens or ())

    def _true(self, number: int, row: Mapping[str, object], column: str, text: str) -> object:
        """What gold says of a row, None where it says nothing: a class, classes, or spans of words that are read."""
        if isinstance(self.config.gold, tuple):
            return self._flagged(number, row, self.config.gold)
        told = self.config.gold or ""
        match self.task.kind:
            case "classification":
                return self._class(number, told, row.get(told))
            case "multilabel":
                return self._set(number, told, row.get(told))
        if row.get(told) is None:
            return None
        types = {fold(name): name for name in self.task.labels}
        try:
            spans, words = sentence_of(self.table, row, types, column, told).spans, split_words(text)
            within = [span for span in spans or () if span.end <= len(text)]
            unread = behind(words, within)
            whole = widened([span for span in within if span not in unread], words)
        except ValueError as error:
            raise self.table.fault(number, str(error)) from error
        self.lost[len(self.gold)] = len(spans or ()) - len(whole)
        self.moved[len(self.gold)] = len(set(whole) - set(within))
        return None if spans is None else whole

    def _flagged(self, number: int, row: Mapping[str, object], columns: Sequence[str]) -> list[int] | None:
        """The labels with a 1 in their column; None where all are blank."""
        cells = {column: row.get(column) for column in columns}
        if all(map(_blank, cells.values())):
            return None
        for column, value in cells.items():
            if column not in row:
                raise self.table.fault(
                    number,
                    f"data.gold: there is no column {column!r} here{did_you_mean(column, row)}; there are "
                    f"{', '.join(map(repr, row))}",
                )
            if _flag(value) is None:
                raise self.table.fault(
                    number,
                    f"gold {str(value)!r} in column {column!r}; expected 0 or 1, true or false (all columns of gold "
                    "blank where it is unknown)",
                )
        return [self._classes[fold(column)] for column, value in cells.items() if _flag(value)]

    def _set(self, number: int, column: str, value: object) -> list[int] | None:
        """Classes of a list, of one written as JSON, or of names with `;`, `,` or `|` between; None of blanks alone.

        A list may also have a 0 or 1 for each label. The name `none` alone is the empty set.
        """
        if _blank(value):
            return None
        given: object = value
        if isinstance(value, str):
            if fold(value) not in self._classes:
                self._check_printed(number, column, value)
            given = listed(value, self._classes)
        told: list[object] = list(given) if isinstance(given, (list, tuple, np.ndarray)) else [given]
        if self._numbers_are_classes and column not in self.table.classes:
            if (there := self._one_hot(told)) is not None:
                return there
            self._check_named(number, column, told)
        labels = [name for name in told if not (isinstance(name, str) and fold(name) == NONE)]
        if labels and len(labels) < len(told):
            raise self.table.fault(
                number, f"gold {value!r} in column {column!r} has {NONE!r} beside labels; leave out one or the other"
            )
        found = [self._class(number, column, name) for name in labels]
        if found and max(found) < 0:
            return None
        if -1 in found:
            raise self.table.fault(
                number,
                f"gold {value!r} in column {column!r} has a blank beside labels; leave it out, or name the label",
            )
        return found

    def _check_printed(self, number: int, column: str, value: str) -> None:
        """Raise DataError where a cell is a list as Python prints it."""
        try:
            check_printed(column, value)
        except ValueError as error:
            raise self.table.fault(number, str(error)) from error

    def _one_hot(self, told: Sequence[object]) -> list[int] | None:
        """Classes of a 0 or 1 for each label; None of other lists, and of [0, 1], which may be numbers of labels."""
        flags = [_flag(each) for each in told]
        numbers = len(set(flags)) == len(flags) and all(str(each).strip() in ("0", "1") for each in told)
        if len(flags) != len(self.task.labels) or None in flags or numbers:
            return None
        return [index for index, flag in enumerate(flags) if flag]

    def _check_named(self, number: int, column: str, told: Sequence[object]) -> None:
        """Raise DataError where a label is a bare number, or one cell of many with 0 and 1."""
        bare = [each for each in map(str, told) if _NUMBER.fullmatch(each.strip()) or _flag(each) is not None]
        if not any(fold(each) not in self._classes for each in bare):
            return
        labels = list(self.task.labels)
        named = json.dumps(labels[:2], ensure_ascii=False)
        each_one = f", or a 0 or 1 for each of the {len(labels)} labels" if len(labels) > 2 else ""
        raise self.table.fault(
            number,
            f"gold {', '.join(map(str, told))!r} in column {column!r}: numbers do not tell which labels are meant; "
            f"write names, such as {named}{each_one}; where each label has a column with 0 and 1, set data.gold: "
            f"[{', '.join(labels)}]",
        )

    def _hash(self, text: str) -> str:
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.hashed[name] += 1
        return name if self.hashed[name] == 1 else f"{name}-{self.hashed[name]}"

    def _fields(self, number: int, row: Mapping[str, object], column: str) -> dict[str, str]:
        told = {self.text_column, column, self.config.id, *_columns(self.config.gold)}
        fields = {key: self._string(number, key, value) for key, value in row.items() if key not in told}
        found = {key: value for key, value in fields.items() if value is not None}
        if self.config.rewording in found:
            found[self.config.rewording] = self._short(found[self.config.rewording])
        return found

    def _string(self, number: int, column: str, value: object) -> str | None:
        if value is None or value != value:  # NaN, as pandas writes a missing text
            return None
        nested = isinstance(value, (list, dict))
        text = json.dumps(value, ensure_ascii=False, default=str) if nested or isinstance(value, bool) else str(value)
        if nested and column == self.text_column:
            raise self.table.fault(number, f"column {column!r} holds {type(value).__name__}, not text: {text[:80]}")
        if bad := _UNUSABLE.search(text):
            kind = "a NUL character" if bad[0] == "\0" else f"the lone surrogate {bad[0]!r}"
            raise self.table.fault(number, f"column {column!r} has {kind} at character {bad.start() + 1}; remove it")
        return text

    def _short(self, text: str) -> str:
        limit = self.config.max_words
        if limit is None:
            return text
        ends = [word.end() for word in islice(_WORD.finditer(text), limit + 1)]
        if len(ends) <= limit:
            return text
        return text[: ends[limit - 1]]

    def _class(self, number: int, column: str, value: object) -> int:
        """Class index of a gold value, -1 for a missing one."""
        names = self.table.classes.get(column)
        value = int(value) if isinstance(value, np.integer) else value
        if names is not None and isinstance(value, int) and -1 <= value < len(names):
            value = None if value == -1 else names[value]
        text = (self._string(number, column, value) or "").strip()
        if not text:
            return -1
        if fold(text) in self._classes:
            return self._classes[fold(text)]
        if names is None and self._numbers_are_classes and _NUMBER.fullmatch(text):
            index = int(float(text))
            if -1 <= index < len(self.task.labels):
                return index
        known = ", ".join(map(repr, self.task.labels))
        raise self.table.fault(
            number,
            f"gold {text!r} in column {column!r} is no label{did_you_mean(text, self.task.labels)}; labels are {known}",
        )

    @cached_property
    def _classes(self) -> dict[str, int]:
        return {fold(label): index for index, label in enumerate(self.task.labels)}

    @cached_property
    def _numbers_are_classes(self) -> bool:
        """Integers may stand for places in `labels` only if no label is itself a number."""
        return not any(_NUMBER.fullmatch(label) for label in self.task.labels)


_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"-?\d{1,9}(\.0+)?")
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def _flag(value: object) -> bool | None:
    return _FLAGS.get(str(value).strip().casefold())


def _blank(value: object) -> bool:
    """Whether a cell says nothing; NaN is how pandas writes a missing text."""
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )


def _columns(gold: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (gold,) if isinstance(gold, str) else gold or ()


def _take_in(place: str, split: str, config: DataConfig, task: Task) -> _Intake:
    _check_gold(config, task)
    table = open_table(place, split, config, entities=task.kind == "tokens")
    intake = _Intake(table, config, task, config.text)
    for number, row in table.rows:
        if not intake.rows and len(row) == 1 and config.text == "text":
            intake.text_column = next(iter(row))  # a file with one column has no other text
        elif not intake.rows and task.kind == "tokens" and config.text == "text" and "text" not in row:
            intake.text_column = "tokens"
        intake.add(number, row)
    intake.check()
    return intake


def _check_gold(config: DataConfig, task: Task) -> None:
    """Several columns must be one for each label."""
    if not isinstance(config.gold, tuple):
        return
    if task.kind != "multilabel":
        raise DataError(
            f"data.gold: {', '.join(config.gold)}: several columns are for several labels a text; a task of kind "
            f"{task.kind} takes one"
        )
    if sorted(map(fold, config.gold)) != sorted(map(fold, task.labels)):
        raise DataError(
            f"data.gold: {', '.join(config.gold)}: expected a column of 0 and 1 for each label, and of its name: "
            f"{', '.join(task.labels)}"
        )


def _check_columns(config: DataConfig, intake: _Intake, tested: _Intake | None) -> None:
    """The rewording must be in the pool; gold in the test, if there is one, and otherwise in the pool."""
    if config.rewording is not None:
        intake.check_column("rewording", config.rewording)
    measured = intake if tested is None or tested.config.gold is None else tested
    for column in _columns(measured.config.gold):
        measured.check_column("test_gold" if measured is tested and config.test_gold else "gold", column)
