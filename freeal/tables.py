"""Rows of csv, tsv, jsonl, json, parquet, txt and CoNLL files, saved data sets and the Hugging Face hub, as streams."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from freeal.config import DataConfig
from freeal.errors import DataError, did_you_mean
from freeal.tasks.spans import read_tag

Rows = Iterator[tuple[int, Mapping[str, object]]]
ReadRows = Callable[[Path, str], Rows]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they come from `name`, each with the number of its `unit`.

    `classes` names the integers of a column: its values, those in lists that are its values, or the labels of spans.
    """

    name: str
    unit: str
    rows: Iterable[tuple[int, Mapping[str, object]]]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def fault(self, number: int, problem: str) -> DataError:
        return DataError(f"{self.name}: {self.unit} {number}: {problem}")


def open_table(place: str, split: str, config: DataConfig, entities: bool = False) -> Table:
    """The rows of a file, a folder or a data set; where `entities` are sought, CoNLL is known by its lines, too."""
    path = Path(place)
    if path.is_dir():
        return _saved(path, split)
    if path.is_file():
        return _file(path, config.encoding, entities)
    inner = path.with_suffix("") if path.suffix == ".gz" else path
    if inner.suffix.lower() in _KNOWN or path.is_absolute() or not _HUB_NAME.fullmatch(place):
        raise DataError(f"{path}: no such file{_near(path)}")
    return _hub(place, config.subset, split)


def open_sheet(path: Path) -> Table:
    """The rows of a .csv as spreadsheet programs save it: in UTF-8, or UTF-16 with its mark; between `,`, `;` or tabs.

    Raises:
        DataError: it is not there, or in another encoding; later, from its rows: it is no table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    encoding = _guess(content)
    if encoding not in ("utf-8", "utf-16"):
        found = _first_undecodable(content, "utf-8") if encoding == "latin-1" else f"looks like {encoding}, unmarked"
        raise DataError(f"{path}: {found}; save it as UTF-8 (in Excel: 'CSV UTF-8')")
    head = next(_lines(path, encoding), "")
    return Table(str(path), "line", _csv(path, encoding, max(_SEPARATORS, key=head.count)))


_SEPARATORS = ",;\t"
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; its folder {path.parent} does not exist either"
    return did_you_mean(path.name, sorted(file.name for file in path.parent.iterdir()))


def _file(path: Path, encoding: str, entities: bool) -> Table:
    packed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if suffix == ".parquet" and not packed:
        return _parquet(path)
    read = _TEXTS.get(suffix)
    if entities and read in (None, _plain, _TEXTS[".tsv"]):
        read = _read_by_lines(path, encoding, read)
    if read is None:
        mend = "; a file of a token and its tag a line must end in .conll" if entities else ""
        known = ", ".join(_KNOWN)
        raise DataError(f"{path}: cannot tell the kind of this file; known are {known} (text also as .gz){mend}")
    return Table(str(path), "object" if suffix == ".json" else "line", read(path, encoding))


def _read_by_lines(path: Path, encoding: str, otherwise: ReadRows | None) -> ReadRows | None:
    """How to read a file whose name says little: as CoNLL, if most of its first lines end in a tag; else `otherwise`.

    Raises:
        DataError: they are words with blank lines between, so that each may be a token or a text.
    """
    try:
        lines = _first_lines(path, encoding)
    except DataError:  # reading it tells
        return otherwise
    rows = [_columns(line) for line in lines if line and not line.startswith(("#", "-DOCSTART-"))]
    between = "" in lines[next((n for n, line in enumerate(lines) if line), 0) : -1]
    headed = otherwise is _TEXTS[".tsv"] and not between and bool(rows) and not _is_tag(rows[0][-1])
    if not headed and sum(len(row) > 1 and _is_tag(row[-1]) for row in rows) > len(rows) / 2:
        return partial(
            _conll, because="; it is read as CoNLL, as most of its lines end in a tag: if it is none, save it as .csv"
        )
    if otherwise is _plain and len(rows) > 2 and between and all(len(row) == 1 for row in rows):
        raise DataError(
            f"{path}: each line is one word, with blank lines between: rename it to .conll if each is a token; "
            "remove the blank lines if each is a text"
        )
    return otherwise


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
    rows = [_object(item, f"{path}: object {number}") for number, item in enumerate(found, 1)]
    yield from enumerate(_of_tasks(rows) if rows and all(map(_is_task, rows)) else rows, 1)


def _conll(path: Path, encoding: str, because: str = "") -> Rows:
    """One row a sentence, with the number of its first line: `tokens` and `tags` as they stand there, and `id`.

    A blank line ends a sentence. Columns are separated by tabs, where there are any, else by spaces; the first is the
    token, or the second, where the first numbers those of each sentence, the last its tag; a file with one column has
    no tags. `-DOCSTART-` is no token. Before the first token may be comments: `# name = ...`, or, in a file with tags,
    a line with a # at its start and no tag at its end; `# id = ...` is the id.

    Args:
        because: what to say of a line without a tag, if the file's name does not tell that it is CoNLL.
    """
    tagged = any(
        len(columns := _columns(line)) > 1 and (not line.startswith("#") or _is_tag(columns[-1]))
        for line in _first_lines(path, encoding) if not _CONLL_ABOUT.match(line)
    )  # fmt: skip
    at = 1 if tagged and _are_numbered(_first_lines(path, encoding)) else 0
    first, row = 0, _no_tokens(tagged)
    for number, line in enumerate(_lines(path, encoding), 1):
        line = line.strip(" \r\n")
        columns = _columns(line)
        remark = tagged and line.startswith("#") and not _is_tag(columns[-1])
        ended = columns[0] == "-DOCSTART-" or (remark and _CONLL_ABOUT.match(line))  # the blank line is missing
        if row["tokens"] and (not line.strip() or ended):
            yield first, row
            first, row = 0, _no_tokens(tagged)
        if not line.strip():
            first, row = 0, _no_tokens(tagged)
            continue
        first = first or number
        if not row["tokens"] and (_CONLL_ABOUT.match(line) or remark):
            row |= {"id": found[1].strip()} if (found := _CONLL_ID.match(line)) else {}
        elif columns[0] != "-DOCSTART-":
            if tagged:
                row["tags"].append(_tag(path, number, columns, because))
            row["tokens"].append(columns[at])
            if not tagged and len(columns) > 1:
                raise DataError(
                    f"{path}: line {number}: {len(columns)} columns, and the lines before have one: a token"
                )
    if row["tokens"]:
        yield first, row


_CONLL_ABOUT = re.compile(r"# +[\w.]+ *= ")
_CONLL_ID = re.compile(r"#\s+(?:sent_)?id(?:\s*=\s*|\s+)([^\t]+)")


LOOKED_AT = 1000
"""Lines of a file that tell what it is."""


def _first_lines(path: Path, encoding: str) -> list[str]:
    return [line.strip() and line.strip(" \r\n") for line in islice(_lines(path, encoding), LOOKED_AT)]


def _columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else re.split(" +", line)


def _are_numbered(lines: Sequence[str]) -> bool:
    """Whether the first of three or more columns numbers the tokens of each sentence, as in CoNLL-X and GermEval 2014.

    Example:
        >>> _are_numbered(["1\tBonn\tB-LOC", "2\tliegt\tO", "", "1\tJa\tO"]), _are_numbered(["1\tCD\tO", "1\tCD\tO"])
        (True, False)
    """
    before = found = 0
    for line in lines:
        columns = _columns(line)
        if not line:
            before = 0
        elif columns[0] != "-DOCSTART-" and not (line.startswith("#") and not _is_tag(columns[-1])):
            before, found = before + 1, found + 1
            if len(columns) < 3 or columns[0] != str(before):
                return False
    return found > 0


def _no_tokens(tagged: bool) -> dict[str, Any]:
    return {"tokens": [], "tags": []} if tagged else {"tokens": []}


def _is_tag(value: str) -> bool:
    try:
        read_tag(value)
    except ValueError:
        return False
    return True


def _tag(path: Path, line: int, columns: list[str], because: str) -> str:
    if len(columns) < 2:
        raise DataError(
            f"{path}: line {line}: {columns[0]!r} has no tag; expected a token, and in the last column its tag{because}"
        )
    try:
        read_tag(columns[-1])
    except ValueError as error:
        raise DataError(f"{path}: line {line}: the last column of {columns[0]!r}: {error}{because}") from error
    return columns[-1]


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


def _parquet(path: Path) -> Table:
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
    return Table(str(path), "row", rows(), _classes(_noted((file.schema_arrow.metadata or {}).get(b"huggingface"))))


def _noted(about: bytes | None) -> Mapping[str, object]:
    """The features that Hugging Face's datasets note in a parquet file; none where nothing of the kind can be read."""
    try:
        found = json.loads(about or b"{}")
    except ValueError:
        return {}
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _classes(features: Mapping[str, object]) -> dict[str, Sequence[str]]:
    """The names of classes in each of the features that have some, as Hugging Face data sets write them."""
    named = {column: _names(feature) for column, feature in features.items()}
    return {column: names for column, names in named.items() if names is not None}


def _names(feature: object) -> Sequence[str] | None:
    """Those of a class, of a list of them, or of the `label` of an object, as spans are."""
    if isinstance(feature, list):  # how a list of objects is written, too
        return _names(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    match feature.get("_type"):
        case "ClassLabel":
            return names if isinstance(names := feature.get("names"), list) else None
        case "List" | "LargeList" | "Sequence":
            return _names(feature.get("feature"))
    return _names(feature.get("label"))


_TEXTS: Mapping[str, ReadRows] = {
    ".csv": partial(_csv, delimiter=","),
    ".tsv": partial(_csv, delimiter="\t"),
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".txt": _plain,
    **dict.fromkeys((".conll", ".bio", ".iob", ".iob2"), _conll),
}
_KNOWN = (*_TEXTS, ".parquet")


def _saved(folder: Path, split: str) -> Table:
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(f"{folder}: a folder, but no data set saved by save_to_disk; name a file in it")
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: the saved data set cannot be opened: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise DataError(
                f"{folder}: no split {split!r}{did_you_mean(split, list(found))}; there are {', '.join(found)}"
            )
        found = found[split]
    return _features(str(folder), found)


def _hub(name: str, subset: str | None, split: str) -> Table:
    import datasets

    part = f"split {split!r}" if subset is None else f"subset {subset!r} and split {split!r}"
    try:
        return _features(f"{name} ({part})", datasets.load_dataset(name, subset, split=split))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{name}: no file of this name, and no data set with {part} from the Hugging Face hub: {error}"
        ) from error


def _features(name: str, dataset: Any) -> Table:
    plain = dataset.with_format(None)  # as Python has them, whatever arrays it was saved to give
    return Table(name, "row", enumerate(plain, 1), _classes(dataset.features.to_dict()))


# --- tasks of Label Studio -> rows


def _is_task(row: Mapping[str, object]) -> bool:
    marked = (row.get("annotations"), row.get("predictions"))
    return isinstance(row.get("data"), dict) and any(isinstance(each, list) for each in marked)


def _of_tasks(tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, object]]:
    """A row for each task of Label Studio: its `id`, its data, and what is marked in it.

    Entities are in `spans`. Where any text has choices, all of them are in `labels`, and `label` is the one, if there
    are not several. They are what people said; only where nobody has annotated any task, what was predicted. All are
    None where nothing is known: the task has no such annotation, or was skipped.
    """
    by = "annotations" if any(task.get("annotations") for task in tasks) else "predictions"
    told = [_results(task.get(by)) for task in tasks]
    kinds = {kind for results in told for result in results or () if isinstance(kind := result.get("type"), str)}
    rows: list[Mapping[str, object]] = []
    for task, results in zip(tasks, told, strict=True):
        row = {"id": task.get("id"), **task["data"]}
        if "choices" in kinds:
            names = None if results is None else _choices(results)
            row |= {"labels": names, "label": names[0] if names and len(names) == 1 else names or None}
        if "labels" in kinds or not kinds:
            row["spans"] = None if results is None else _marked(results)
        rows.append(row)
    return rows


def _results(said: object) -> list[Mapping[str, Any]] | None:
    """Those of the ground truth, else of the first that was not skipped; None where there is none."""
    whole = [each for each in _objects(said) if not each.get("was_cancelled")]
    if not whole:
        return None
    return _objects(next((each for each in whole if each.get("ground_truth")), whole[0]).get("result"))


def _objects(found: object) -> list[Mapping[str, Any]]:
    """The objects of a list; exports may have numbers in place of predictions."""
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _values(results: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    values = [result.get("value") for result in results if result.get("type") == kind]
    return [value if isinstance(value, dict) else {} for value in values]


def _choices(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names chosen for the whole text; choices for a part of it have a start."""
    whole = [value for value in _values(results, "choices") if "start" not in value]
    return [name for value in whole for name in value.get("choices") or ()]


def _marked(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, object]]:
    """Entities as spans; one whose text has line breaks, which are written there as two characters, without it."""
    spans: list[Mapping[str, object]] = []
    for value in _values(results, "labels"):
        parts = ("start", "end") if "\\n" in str(value.get("text")) else ("start", "end", "text")
        names = value.get("labels") or [None]
        spans += [{**{part: value.get(part) for part in parts}, "label": name} for name in names]
    return spans


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


_ELSE = " (recorded labels: llm.encoding)"


def _codec(path: Path, encoding: str) -> str:
    try:
        "".encode(encoding)  # which refuses what is no encoding of texts, such as hex, too
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(
            f"{path}: data.encoding: {encoding!r} is no known encoding; try utf-8 or latin-1{_ELSE}"
        ) from error


def _bytes(path: Path) -> Any:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _undecodable(path: Path, codec: str) -> DataError:
    """Where the first undecodable byte is, and in which encoding the file may be instead."""
    with _bytes(path) as raw:
        content = raw.read()
    return DataError(f"{path}: {_first_undecodable(content, codec)}{_hint(path, codec)}")


def _first_undecodable(content: bytes, codec: str) -> str:
    start = 0
    try:
        content.decode(codec)
    except UnicodeError as error:  # without a place where the byte order mark of UTF-16 is missing
        start = getattr(error, "start", 0)
    line = content.count(b"\n", 0, start) + 1
    return f"line {line}: byte {start} ({content[start : start + 1]!r}) is no {codec}"


def _hint(path: Path, codec: str) -> str:
    with _bytes(path) as raw:
        guess = _guess(raw.read())
    return "" if guess == codec else f"; the file looks like {guess}: set data.encoding to {guess}{_ELSE}"


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
