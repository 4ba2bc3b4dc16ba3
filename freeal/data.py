"""csv, tsv, jsonl, json, parquet, txt, saved data sets and the Hugging Face hub -> one pool of examples.

Rows are read as a stream. Gold labels are kept beside the pool, never in it, so that nothing can select by them.
Every fault names the file, the line, what was found there, and what to do about it.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import hashlib
import io
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from freeal.config import DataConfig
from freeal.errors import DataError
from freeal.tasks.classification import fold
from freeal.types import Example, IntArray, Pool


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was read: `rows` in the file of the pool, and what a user should know about them.

    `empty` are ids (or places) of rows without text, which are skipped; `duplicates` counts rows whose text
    an earlier row of the pool has too; `leaked` are ids of pool rows whose text is also in the test; `cut`
    counts texts shortened to `max_words`.
    """

    rows: int
    empty: tuple[str, ...] = ()
    duplicates: int = 0
    leaked: tuple[str, ...] = ()
    cut: int = 0
    test_rows: int = 0
    test_empty: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """A pool, a test to measure on, and their gold labels: (n,) class indices, -1 where unknown; None without any."""

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


def load(config: DataConfig, labels: Sequence[str], seed: int) -> Corpus:
    """The texts of `config`: the pool, sampled by `seed` if it is to be sampled, and the test.

    Raises:
        DataError: a file is missing or broken, a column unknown, an id repeated, a gold value no label,
            or nothing is left to label.

    Example:
        >>> corpus = load(DataConfig(pool="reviews.csv"), ["negative", "positive"], seed=0)  # doctest: +SKIP
        >>> len(corpus.pool), corpus.report.duplicates                                       # doctest: +SKIP
        (8662, 0)
    """
    check_labels(labels)
    intake = _take_in(_open(config.pool, config.split, config), config, labels)
    tested = None
    if config.test is not None:
        there = config.model_copy(update={"gold": config.test_gold or config.gold})
        tested = _take_in(_open(config.test, config.test_split, config), there, labels)
    _check_columns(config, intake, tested)
    rows = _chosen(intake, config.sample, seed)
    pool, gold = intake.pool_of(rows), intake.gold_of(rows)
    if tested is None:
        return Corpus(pool, gold, None, None, _report(pool, None, intake, None))
    rows = _chosen(tested, config.test_sample, 0)
    test = tested.pool_of(rows)
    return Corpus(pool, gold, test, tested.gold_of(rows), _report(pool, test, intake, tested))


def check_labels(labels: Sequence[str]) -> None:
    """Raise DataError where there is nothing to choose between."""
    if len(labels) < 2:
        raise DataError(f"{len(labels)} label(s) given, at least two are needed to tell texts apart")


def _chosen(intake: _Intake, sample: int | None, seed: int) -> IntArray:
    n = len(intake.examples)
    return np.arange(n) if sample is None else np.random.default_rng(seed).permutation(n)[:sample]


def _report(pool: Pool, test: Pool | None, intake: _Intake, tested: _Intake | None) -> DataReport:
    seen = set() if test is None else {_same_text(text) for text in test.texts}
    return DataReport(
        rows=intake.rows,
        empty=tuple(intake.empty),
        duplicates=len(pool) - len(set(pool.texts)),
        leaked=tuple(example.id for example in pool.examples if seen and _same_text(example.text) in seen),
        cut=intake.cut,
        test_rows=0 if tested is None else tested.rows,
        test_empty=() if tested is None else tuple(tested.empty),
    )


def _same_text(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


# --- rows of any source -> examples


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows as they come from `name`, each with the number of its `unit`; `classes` names the integers of a column."""

    name: str
    unit: str
    rows: Iterable[tuple[int, Mapping[str, object]]]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def fault(self, number: int, problem: str) -> DataError:
        return DataError(f"{self.name}: {self.unit} {number}: {problem}")


@dataclass
class _Intake:
    """The examples of one table, built row by row."""

    table: _Table
    config: DataConfig
    labels: Sequence[str]
    text_column: str
    columns: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    cut: int = 0
    examples: list[Example] = field(default_factory=list)
    gold: list[int] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    hashed: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, row: Mapping[str, object]) -> None:
        """One row: an example with its gold label, or an empty text that is skipped."""
        self.rows += 1
        self.columns.update(dict.fromkeys(row))
        text = self._string(number, self.text_column, row.get(self.text_column)) or ""
        given = "" if self.config.id is None else self._string(number, self.config.id, row.get(self.config.id)) or ""
        if not text.strip():
            self.empty.append(given.strip() or f"{self.table.unit} {number}")
            return
        name = given if given.strip() else self._hash(text)
        if name in self.lines:
            self.repeated.append(f"{name!r} on {self.table.unit}s {self.lines[name]} and {number}")
        self.lines.setdefault(name, number)
        self.examples.append(Example(name, self._short(text, count=True), self._fields(number, row)))
        if self.config.gold is not None:
            self.gold.append(self._class(number, row.get(self.config.gold)))

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
        """(len(rows),) class indices; None where the table has no gold column."""
        return np.asarray(self.gold, np.int64)[rows] if self.config.gold in self.columns else None

    def check_column(self, setting: str, column: str | None) -> None:
        """Raise DataError where no row has `column`, which `data.<setting>` names."""
        if column not in self.columns:
            known = list(self.columns)
            raise DataError(
                f"{self.table.name}: data.{setting}: there is no column {column!r}{_meant(str(column), known)}; "
                f"there are {', '.join(map(repr, known))}"
            )

    def _hash(self, text: str) -> str:
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.hashed[name] += 1
        return name if self.hashed[name] == 1 else f"{name}-{self.hashed[name]}"

    def _fields(self, number: int, row: Mapping[str, object]) -> dict[str, str]:
        told = {self.text_column, self.config.id, self.config.gold}
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

    def _short(self, text: str, count: bool = False) -> str:
        limit = self.config.max_words
        if limit is None:
            return text
        ends = [word.end() for word in islice(_WORD.finditer(text), limit + 1)]
        if len(ends) <= limit:
            return text
        self.cut += count
        return text[: ends[limit - 1]]

    def _class(self, number: int, value: object) -> int:
        """Class index of a gold value, -1 for a missing one."""
        column = self.config.gold or ""
        names = self.table.classes.get(column)
        if names is not None and isinstance(value, int) and -1 <= value < len(names):
            value = None if value == -1 else names[value]
        text = (self._string(number, column, value) or "").strip()
        if not text:
            return -1
        if fold(text) in self._classes:
            return self._classes[fold(text)]
        if names is None and self._numbers_are_classes and _NUMBER.fullmatch(text):
            index = int(float(text))
            if -1 <= index < len(self.labels):
                return index
        known = ", ".join(map(repr, self.labels))
        raise self.table.fault(
            number, f"gold {text!r} in column {column!r} is no label{_meant(text, self.labels)}; labels are {known}"
        )

    @cached_property
    def _classes(self) -> dict[str, int]:
        return {fold(label): index for index, label in enumerate(self.labels)}

    @cached_property
    def _numbers_are_classes(self) -> bool:
        """Integers may stand for places in `labels` only if no label is itself a number."""
        return not any(_NUMBER.fullmatch(label) for label in self.labels)


_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"-?\d{1,9}(\.0+)?")


def _take_in(table: _Table, config: DataConfig, labels: Sequence[str]) -> _Intake:
    intake = _Intake(table, config, labels, config.text)
    for number, row in table.rows:
        if not intake.rows and len(row) == 1 and config.text == "text":
            intake.text_column = next(iter(row))  # a file with one column has no other text
        intake.add(number, row)
    intake.check()
    return intake


def _check_columns(config: DataConfig, intake: _Intake, tested: _Intake | None) -> None:
    """The rewording must be in the pool; gold in the test, if there is one, and otherwise in the pool."""
    if config.rewording is not None:
        intake.check_column("rewording", config.rewording)
    if tested is not None and tested.config.gold is not None:
        tested.check_column("test_gold" if config.test_gold else "gold", tested.config.gold)
    elif config.gold is not None:
        intake.check_column("gold", config.gold)


# --- where the rows come from


Rows = Iterator[tuple[int, Mapping[str, object]]]


def _open(place: str, split: str, config: DataConfig) -> _Table:
    path = Path(place)
    if path.is_dir():
        return _saved(path, split)
    if path.is_file():
        return _file(path, config.encoding)
    inner = path.with_suffix("") if path.suffix == ".gz" else path
    if inner.suffix.lower() in _KNOWN or path.is_absolute() or not _HUB_NAME.fullmatch(place):
        raise DataError(f"{path}: no such file{_near(path)}")
    return _hub(place, config.subset, split)


_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; its folder {path.parent} does not exist either"
    return _meant(path.name, sorted(file.name for file in path.parent.iterdir()))


def _file(path: Path, encoding: str) -> _Table:
    packed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if suffix == ".parquet" and not packed:
        return _parquet(path)
    if suffix not in _TEXTS:
        raise DataError(f"{path}: cannot tell the kind of this file; known are {', '.join(_KNOWN)} (text also as .gz)")
    return _Table(str(path), "object" if suffix == ".json" else "line", _TEXTS[suffix](path, encoding))


def _plain(path: Path, encoding: str) -> Rows:
    for number, line in enumerate(_lines(path, encoding), 1):
        yield number, {"text": line.rstrip("\n")}


def _csv(path: Path, encoding: str, delimiter: str) -> Rows:
    csv.field_size_limit(2**31 - 1)  # the default refuses texts above 128 KiB
    reader = csv.reader(_lines(path, encoding, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for values in reader:
            if values and header is None:
                header = _header(path, values)
            elif values and header is not None:  # a blank line is no row
                yield start, dict(zip(header, _level(path, start, header, values), strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: line {start}: {error}; a quote inside a quoted text must be doubled, and every quote closed"
        ) from error


def _header(path: Path, names: list[str]) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: line 1: column {twice[0]!r} is there twice; columns need names of their own")
    if len(names) == 1 and (other := re.search(r"[;\t|]", names[0])):
        raise DataError(f"{path}: line 1: columns seem to be separated by {other[0]!r}; .csv needs ',' and .tsv a tab")
    return names


def _level(path: Path, line: int, header: list[str], values: list[str]) -> list[str]:
    if len(values) != len(header):
        raise DataError(
            f"{path}: line {line}: {len(values)} value(s) where the header names {len(header)} column(s) "
            f"({', '.join(header)[:200]}); a text that contains the separator must be quoted"
        )
    return values


def _jsonl(path: Path, encoding: str) -> Rows:
    for number, line in enumerate(_lines(path, encoding), 1):
        if line.strip():
            yield number, _object(_parsed(path, line, number), f"{path}: line {number}")


def _json(path: Path, encoding: str) -> Rows:
    found = _parsed(path, "".join(_lines(path, encoding)), 1)
    if not isinstance(found, list):
        raise DataError(f"{path}: expected a list of objects, found {type(found).__name__}")
    for number, item in enumerate(found, 1):
        yield number, _object(item, f"{path}: object {number}")


def _parsed(path: Path, text: str, line: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = "; one object a line is .jsonl" if error.msg == "Extra data" else ""
        place = f"{path}: line {line + error.lineno - 1}, column {error.colno}"
        excerpt = text[max(0, error.pos - 20) : error.pos + 20]
        raise DataError(f"{place}: no JSON: {error.msg} near {excerpt!r}{hint}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise DataError(f"{path}: line {line}: no usable JSON: {error}") from error


def _object(found: object, place: str) -> Mapping[str, object]:
    if not isinstance(found, dict):
        raise DataError(f'{place}: expected an object such as {{"text": "..."}}, found {type(found).__name__}')
    return found


def _parquet(path: Path) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows() -> Rows:
        try:
            items = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
            yield from enumerate(items, 1)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: broken parquet file: {error}") from error

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: no parquet file: {error}") from error
    about = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    classes = {name: kind["names"] for name, kind in features.items() if isinstance(kind, dict) and "names" in kind}
    return _Table(str(path), "row", rows(), classes)


_TEXTS: Mapping[str, Callable[[Path, str], Rows]] = {
    ".csv": partial(_csv, delimiter=","),
    ".tsv": partial(_csv, delimiter="\t"),
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".txt": _plain,
}
_KNOWN = (*_TEXTS, ".parquet")


def _saved(folder: Path, split: str) -> _Table:
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(f"{folder}: a folder, but no data set saved by save_to_disk; name a file in it")
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: the saved data set cannot be opened: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise DataError(f"{folder}: no split {split!r}{_meant(split, list(found))}; there are {', '.join(found)}")
        found = found[split]
    return _features(str(folder), found)


def _hub(name: str, subset: str | None, split: str) -> _Table:
    import datasets

    part = f"split {split!r}" if subset is None else f"subset {subset!r} and split {split!r}"
    try:
        return _features(f"{name} ({part})", datasets.load_dataset(name, subset, split=split))
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: no file of this name, and no data set with {part} from the Hugging Face hub: {error}"
        ) from error


def _features(name: str, dataset: Any) -> _Table:
    classes = {key: kind.names for key, kind in dataset.features.items() if hasattr(kind, "names")}
    return _Table(name, "row", enumerate(dataset, 1), classes)


# --- bytes -> lines


def _lines(path: Path, encoding: str, newline: str | None = None) -> Iterator[str]:
    """The lines of a text file, which may be packed; a byte order mark is no part of the first."""
    codec = _codec(path, encoding)
    try:
        with (
            _bytes(path) as raw,
            io.TextIOWrapper(raw, "utf-8-sig" if codec == "utf-8" else codec, newline=newline) as file,
        ):
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise DataError(f"{path}: line {number}: has NUL bytes; remove them{_hint(path, codec)}")
                yield line
    except UnicodeError as error:
        raise _undecodable(path, codec) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the packed file is cut off or damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _codec(path: Path, encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise DataError(f"{path}: data.encoding: {encoding!r} is no known encoding; try utf-8 or latin-1") from error


def _bytes(path: Path) -> Any:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _undecodable(path: Path, codec: str) -> DataError:
    """Where the first undecodable byte is, and in which encoding the file may be instead."""
    with _bytes(path) as raw:
        content = raw.read()
    start = 0
    try:
        content.decode(codec)
    except UnicodeError as error:  # without a place where the byte order mark of UTF-16 is missing
        start = getattr(error, "start", 0)
    line = content.count(b"\n", 0, start) + 1
    found = f"byte {start} ({content[start : start + 1]!r}) is no {codec}"
    return DataError(f"{path}: line {line}: {found}{_hint(path, codec)}")


def _hint(path: Path, codec: str) -> str:
    with _bytes(path) as raw:
        guess = _guess(raw.read())
    return "" if guess == codec else f"; the file looks like {guess}: set data.encoding to {guess}"


def _guess(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if content.count(b"\0") > len(content) / 4:  # Western text in two bytes a character
        return "utf-16-le" if content[1::2].count(b"\0") > content[::2].count(b"\0") else "utf-16-be"
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "latin-1"  # decodes any bytes: the last guess
    return "utf-8"


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
