"""Sentences with their entities: read from the rows of any table, written as the tools that use them want it.

Read are rows of `tokens` and `tags` (every BIO dialect of `tasks.spans`), and of `text` and `spans`; written are CoNLL,
jsonl, Hugging Face data sets, Label Studio and spaCy. Offsets count characters (code points) everywhere.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from freeal.errors import DataError, did_you_mean
from freeal.tables import Table
from freeal.tasks.classification import fold
from freeal.tasks.spans import Span, Word, join_tokens, split_words, tag_vocabulary, to_spans, to_tags, widened


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text, its words, and its entities; `spans` is None where nobody has said what they are.

    Where they are known, `probabilities` has one for each of `spans`, and `probability` is that of all words together.
    """

    id: str | None
    text: str
    words: tuple[Word, ...]
    spans: tuple[Span, ...] | None
    probabilities: tuple[float, ...] | None = None
    probability: float | None = None

    @classmethod
    def of(
        cls, uid: str, text: str, found: Sequence[Mapping[str, Any]] | None, probability: float, tokenized: bool = False
    ) -> Sentence:
        """A text with the entities `found` as `Task.cells` has them, None for an abstention.

        Its words are as `split_words` finds them; if it is `tokenized`, as single spaces divide them.
        """
        words = join_tokens(text.split(" ")).words if tokenized else split_words(text)
        if found is None:
            return cls(uid, text, words, None)
        spans = tuple(Span(each["start"], each["end"], each["label"]) for each in found)
        return cls(uid, text, words, spans, tuple(each["probability"] for each in found), round(probability, 4))

    @property
    def tokens(self) -> list[str]:
        return [self.text[start:end] for start, end in self.words]

    @property
    def tags(self) -> list[str] | None:
        """BIO2, a tag a word; spans count as widened to whole words."""
        return None if self.spans is None else to_tags(self.spans, self.words)


# --- rows -> sentences


def sentence_of(
    table: Table, row: Mapping[str, object], types: Mapping[str, str] | None, text: str, labels: str | None
) -> Sentence:
    """The sentence of one row of `table`; rows are known by what they hold.

    Labels are spans, `{"start": ..., "end": ..., "label": ...}` or `[start, end, label]`, or the tags of its tokens:
    those that stand for the text, or, beside a text, those in `tokens`, which are looked for in it one after the other.
    Labels that are null or blank are unknown.

    Args:
        types: folded name -> name of the types there are; None accepts any.
        text: column with the text, or with its tokens.
        labels: column with tags or spans; None asks for none.

    Raises:
        ValueError: the row is no sentence, and why.
    """
    found = _value(row, text)
    tokens = tokens_of(row, text)
    if tokens is None and not isinstance(found, str):
        raise ValueError(f"column {text!r} holds neither a text nor a list of tokens: {str(found)[:80]}")
    joined, words = (str(found), split_words(str(found))) if tokens is None else join_tokens(tokens)
    given = row.get("id")
    uid = None if given is None else str(given)
    told = None if labels is None else _told(_value(row, labels))
    if told is None:
        return Sentence(uid, joined, words, None)
    names = table.classes.get(labels or "")
    tagged = tokens_of(row, "tokens") if tokens is None else tokens
    if tagged is None or _are_spans(told) or (not told and (tokens is None or labels == "spans")):
        return Sentence(uid, joined, words, _spans(told, joined, words, types, names))
    places = words if tokens is not None else _places(tagged, joined)
    found_there = to_spans([_tag(tag, names) for tag in told], places)
    spans = [Span(s.start, s.end, _type(s.type, types, s.of(joined))) for s in found_there]
    return Sentence(uid, joined, words, tuple(spans))


def tokens_of(row: Mapping[str, object], column: str) -> list[str] | None:
    """The tokens in a column of `row`: a list of texts, also as JSON, if it is not `text`; None if it has none.

    Raises:
        ValueError: it is a list as Python prints it.
    """
    found = row.get(column)
    if isinstance(found, str) and column != "text":
        check_printed(column, found)
        found = _of_cell(found)
    if isinstance(found, Iterable) and not isinstance(found, (str, Mapping)) and all(isinstance(t, str) for t in found):
        return list(found)
    return None


def check_printed(column: str, cell: str) -> None:
    """Raise ValueError where a cell is a list of texts as Python or numpy prints it, which is no JSON.

    Example:
        >>> check_printed("tokens", '["EU", "rejects"]')
        >>> check_printed("tokens", "['EU' 'rejects']")
        Traceback (most recent call last):
        ValueError: column 'tokens' holds a list as Python prints it: ['EU' 'rejects']; write it as JSON ...
    """
    if isinstance(_of_cell(cell), str) and (_PRINTED.fullmatch(cell.strip()) or _is_literal(cell.strip())):
        raise ValueError(
            f"column {column!r} holds a list as Python prints it: {' '.join(cell.split())[:80]}; write it as "
            "JSON (json.dumps), or save the table as jsonl or parquet"
        )


_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PRINTED = re.compile(rf"(array\()?\[\s*{_QUOTED}(,?\s+{_QUOTED})*\s*\](,\s+dtype=.+\))?", re.DOTALL)
"""Arrays of numpy; lists of Python are known by being literals."""


def _is_literal(cell: str) -> bool:
    """Whether a cell is a list of texts, or of texts and None, as Python writes it."""
    if not cell.startswith("["):
        return False
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(found, list) and any(isinstance(each, str) for each in found)


def _value(row: Mapping[str, object], column: str) -> object:
    if column not in row:
        raise ValueError(
            f"there is no column {column!r}{did_you_mean(column, row)}; there are {', '.join(map(repr, row))}"
        )
    return row[column]


def _told(labels: object) -> list[object] | None:
    """A list of tags or spans, as it is, as JSON, or as a list for each part of a span; None where nothing is told."""
    found = _of_cell(labels) if isinstance(labels, str) else labels
    parts = list(found.values()) if isinstance(found, Mapping) else []
    if isinstance(found, Mapping) and all(isinstance(p, list) for p in parts) and len(set(map(len, parts))) == 1:
        return [dict(zip(found, each, strict=True)) for each in zip(*parts, strict=True)]
    if found is None or isinstance(found, list):
        return found
    raise ValueError(f"labels are {type(found).__name__}, not a list: {str(found)[:80]}; {_EXPECTED}")


_EXPECTED = (
    'expected a tag for each token, such as ["B-PER", "O"], or spans, such as [{"start": 0, "end": 5, "label": "PER"}] '
    'or [[0, 5, "PER"]]; [] for none, null or nothing where that is unknown'
)


def _of_cell(cell: str) -> object:
    """What a cell holds as JSON, None if it is blank; the cell itself, if it holds none."""
    if not cell.strip():
        return None
    try:
        found: object = json.loads(cell)
    except ValueError:
        return cell
    return found


def _are_spans(told: Sequence[object]) -> bool:
    return bool(told) and all(isinstance(each, (Mapping, list, tuple)) for each in told)


def _places(tokens: Sequence[str], text: str) -> list[Word]:
    """Where `tokens` stand in `text`, one after the other."""
    found, start = [], 0
    for number, token in enumerate(tokens, 1):
        start = text.find(token, start)
        if not token or start < 0:
            raise ValueError(
                f"token {number} ({token!r}) is not in the text behind those before it; set data.text: tokens"
            )
        found.append(Word(start, start + len(token)))
        start += len(token)
    return found


def _tag(tag: object, names: Sequence[str] | None) -> str:
    if isinstance(tag, str):
        return tag
    if not isinstance(tag, int) or isinstance(tag, bool):
        raise ValueError(f"tag {tag!r} is no text; expected O, or B- or I- and a type, such as 'B-PER'")
    if names is None:
        raise ValueError(f"tag {tag} is a number that nothing names; write tags as 'B-PER'")
    return _named(tag, names)


def _named(number: int, names: Sequence[str]) -> str:
    if not 0 <= number < len(names):
        raise ValueError(f"{number} is none of the {len(names)} classes that the data set names")
    return names[number]


def _spans(
    found: Sequence[object],
    text: str,
    words: Sequence[Word],
    types: Mapping[str, str] | None,
    names: Sequence[str] | None,
) -> tuple[Span, ...]:
    spans = sorted(_span(each, text, types, names) for each in found)
    for one, other in pairwise(spans):
        if other.start < one.end:
            raise ValueError(
                f"spans {one.start}:{one.end} {one.type!r} and {other.start}:{other.end} {other.type!r} overlap; "
                "entities are flat: keep one of them"
            )
    widened(spans, words)  # each has a word
    return tuple(spans)


def _span(found: object, text: str, types: Mapping[str, str] | None, names: Sequence[str] | None) -> Span:
    parts = [found.get(key) for key in ("start", "end", "label")] if isinstance(found, dict) else found
    match parts:
        case [int(start), int(end), int(number)] if names is not None and not isinstance(number, bool):
            parts = [start, end, _named(number, names)]
    match parts:
        case [int(start), int(end), str(label)] if not isinstance(start, bool) and not isinstance(end, bool):
            if end > len(text):
                raise ValueError(f"span {start}:{end} {label!r} ends after the text, which has {len(text)} characters")
            span = Span(start, end, _type(label, types, text[max(start, 0) : end]))
            _check_words(span, text, found.get("text") if isinstance(found, dict) else None)
            return span
    mend = "; tags need a column 'tokens' beside the text" if isinstance(found, (str, int)) else ""
    raise ValueError(
        f'{str(found)[:80]} is no span; expected {{"start": 0, "end": 5, "label": "PER"}} or [0, 5, "PER"]{mend}'
    )


def _check_words(span: Span, text: str, words: object) -> None:
    """Raise ValueError where `words`, which stand beside the offsets of `span`, differ by more than white space."""
    there = span.of(text)
    if isinstance(words, str) and "".join(words.split()) != "".join(there.split()):
        raise ValueError(
            f"span {span.start}:{span.end} {span.type!r} is {there!r} by its offsets and {words!r} by its text; "
            "offsets count code points, from 0 to behind the last: correct them, or leave out 'text'"
        )


def _type(written: str, types: Mapping[str, str] | None, words: str) -> str:
    """The type that is `written` of `words`, as the prompt spells it."""
    if types is None:
        return written
    if fold(written) not in types:
        known = list(types.values())
        raise ValueError(
            f"{written!r} is no type{did_you_mean(written, known)}; types are {', '.join(map(repr, known))}: add it to "
            f"the labels of the prompt, or leave {words!r} and its like out of the gold"
        )
    return types[fold(written)]


# --- sentences -> files


class Losses(NamedTuple):
    """What a form has no place for: how many sentences, how many entities, and how many had to be widened."""

    sentences: int = 0
    entities: int = 0
    widened: int = 0

    def and_of(self, spans: Sequence[Span], kept: Sequence[Span]) -> Losses:
        """With those of one more sentence, whose `spans` became `kept`."""
        entities, moved = len(spans) - len(kept), len(set(kept) - set(spans))
        return self._replace(entities=self.entities + entities, widened=self.widened + moved)


def _as_tags(sentences: Iterable[Sentence]) -> Losses:
    """What is lost where entities are tags of words."""
    lost = Losses()
    for each in sentences:
        lost = lost.and_of(each.spans or (), widened(each.spans or (), each.words))
    return lost


def write_conll(path: Path, sentences: Sequence[Sentence]) -> Losses:
    """A token and its BIO2 tag a line, a blank line after each sentence, `# id = ...` before it where it has one.

    Spaces in a text are lost, but for one between two tokens. Sentences without spans or words have no form here.

    Raises:
        DataError: a token or id holds a tab or line break; or the file cannot be written.
    """
    written = [sentence for sentence in sentences if sentence.spans is not None and sentence.words]
    _write(path, (_block(path, sentence) for sentence in written))
    return _as_tags(written)._replace(sentences=len(sentences) - len(written))


def _block(path: Path, sentence: Sentence) -> str:
    for value in (sentence.id or "", *sentence.tokens):
        if any(character in value for character in "\t\r\n"):
            raise DataError(f"{path}: {value!r} has a tab or line break, which CoNLL has no way to write; use jsonl")
    head = "" if sentence.id is None else f"# id = {sentence.id}\n"
    rows = zip(sentence.tokens, sentence.tags or (), strict=True)
    return head + "".join(f"{token}\t{tag}\n" for token, tag in rows) + "\n"


def write_jsonl(path: Path, sentences: Iterable[Sentence]) -> Losses:
    """An object a line: `id`, `text` and `spans`, which are null where they are unknown, with their probabilities.

    Raises:
        DataError: the file cannot be written.
    """
    rows = ({"id": each.id, "text": each.text, "spans": _listed(each)} for each in sentences)
    _write(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Losses()


def _listed(sentence: Sentence) -> list[dict[str, Any]] | None:
    if sentence.spans is None:
        return None
    spans = [{"start": span.start, "end": span.end, "label": span.type} for span in sentence.spans]
    if sentence.probabilities is None:
        return spans
    return [{**span, "probability": each} for span, each in zip(spans, sentence.probabilities, strict=True)]


def save_dataset(folder: Path, sentences: Iterable[Sentence], types: Sequence[str]) -> Losses:
    """A Hugging Face data set: `id`, `text`, `tokens`, `tags` (classes named as `tag_vocabulary` has it) and `spans`.

    `tags` and `spans` are null where they are unknown; spans have their `probability`, where any is known. A data set
    that is there already is replaced once the new one is whole.

    Raises:
        DataError: the folder cannot be written.
    """
    import datasets

    sentences = list(sentences)
    known = any(each.probabilities is not None for each in sentences)
    text, number, real = datasets.Value("string"), datasets.Value("int64"), datasets.Value("float64")
    features = datasets.Features(
        id=text,
        text=text,
        tokens=datasets.Sequence(text),
        tags=datasets.Sequence(datasets.ClassLabel(names=list(tag_vocabulary(types)))),
        spans=[{"start": number, "end": number, "label": text} | ({"probability": real} if known else {})],
    )
    rows = [
        {"id": each.id, "text": each.text, "tokens": each.tokens, "tags": each.tags, "spans": _listed(each)}
        for each in sentences
    ]
    columns = {name: [row[name] for row in rows] for name in features}
    with _whole(folder) as partial, _without_bars():
        datasets.Dataset.from_dict(columns, features).save_to_disk(str(partial))
    return _as_tags(sentences)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hugging Face's data sets without progress bars for a while."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def write_label_studio(path: Path, sentences: Iterable[Sentence]) -> Losses:
    """Tasks of Label Studio with their entities as predictions of freeal, to be imported and corrected there.

    They fit a labelling interface with `<Labels name="label" toName="text">` and `<Text name="text" value="$text"/>`.
    A sentence without spans is a task without a prediction. Where they are known, a prediction has its probability as
    `score`, by which tasks are sorted there, and so has each entity. Offsets count code points, as Label Studio does
    since its pull request 1559 (and label-studio-frontend's 308), not the UTF-16 units of JavaScript.

    Raises:
        DataError: the file cannot be written.
    """
    tasks = [
        {
            "data": {"id": each.id, "text": each.text},
            "predictions": []
            if each.spans is None
            else [{"model_version": "freeal", **_score(each.probability), "result": _results(each)}],
        }
        for each in sentences
    ]
    _write(path, [json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"])
    return Losses()


def _score(probability: float | None) -> dict[str, float]:
    return {} if probability is None else {"score": probability}


def _results(sentence: Sentence) -> list[dict[str, Any]]:
    spans = sentence.spans or ()
    return [
        {
            "id": f"{span.start}-{span.end}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            **_score(probability),
            "value": {
                "start": span.start,
                "end": span.end,
                "text": span.of(sentence.text),
                "labels": [span.type],
            },
        }
        for span, probability in zip(spans, sentence.probabilities or [None] * len(spans), strict=True)
    ]


def write_spacy(path: Path, sentences: Iterable[Sentence], language: str = "xx") -> Losses:
    """A spaCy DocBin, to train with: texts cut by spaCy's rules of `language`, spans widened to its tokens.

    Where two spans come to share a token, the longer is kept; the entities of a sentence without spans are missing.

    Raises:
        DataError: spaCy is not installed, does not know the language, or the file cannot be written.
    """
    try:
        import spacy
        from spacy.tokens import DocBin
        from spacy.util import filter_spans
    except ImportError as error:
        raise DataError(
            f'{path}: this format needs the package spacy; install it with: pip install "freeal[spacy]"'
        ) from error
    try:
        cut = spacy.blank(language)
    except ImportError as error:
        raise DataError(f"{path}: spaCy has no rules for the language {language!r} here: {error}") from error
    kept, lost = DocBin(), Losses()
    for sentence in sentences:
        doc = cut.make_doc(sentence.text)
        if sentence.spans is None:
            doc.set_ents([], default="missing")
        else:
            spans = [doc.char_span(s.start, s.end, s.type, alignment_mode="expand") for s in sentence.spans]
            doc.set_ents(filter_spans(spans))
            found = [Span(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]
            lost = lost.and_of(sentence.spans, found)
        kept.add(doc)
    with _whole(path) as partial:
        partial.write_bytes(kept.to_bytes())
    return lost


def _write(path: Path, pieces: Iterable[str]) -> None:
    with _whole(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(pieces)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write what `path` is to hold; it is there whole when the block ends, or as it was before."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".freeal-", ignore_cleanup_errors=True) as desk:
            whole = Path(desk) / "whole"
            yield whole
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists() and whole.is_dir():
                path.unlink()
            whole.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from error
